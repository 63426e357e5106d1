use proptest::prelude::*;

use super::*;

const HOUR: f64 = 3600.0;
const DAY: f64 = 24.0 * HOUR;

fn begin() -> Timestamp {
    "2026-06-01T00:00:00Z".parse().expect("it is a time")
}

/// Seconds after the beginning.
fn at(seconds: f64) -> Timestamp {
    begin().saturating_add(SignedDuration::from_secs_f64(seconds)).expect("it is a time")
}

fn since_begin(time: Timestamp) -> f64 {
    time.duration_since(begin()).as_secs_f64()
}

fn life(days: f64) -> Life {
    Life { not_before: begin(), not_after: at(days * DAY) }
}

fn advice(start: f64, end: f64, seed: u64) -> Advice {
    Advice::of((at(start * DAY), at(end * DAY)), None, at(0.0), None, seed)
}

#[test]
fn without_advice_two_thirds_of_a_life_decide_or_half_of_a_short_one() {
    for (days, share) in [(90.0, 2.0 / 3.0), (45.0, 2.0 / 3.0), (10.0, 2.0 / 3.0), (9.9, 0.5), (6.6, 0.5), (0.25, 0.5)]
    {
        let mut seen = Vec::new();
        for seed in 0..500 {
            let renewal = since_begin(life(days).renewal(None, seed)) / (days * DAY);
            assert!((renewal - share).abs() <= 0.021, "{days}: {renewal}");
            assert_eq!(life(days).renewal(None, seed), life(days).renewal(None, seed));
            seen.push(renewal);
        }
        seen.sort_unstable_by(f64::total_cmp);
        assert!(seen[0] < share - 0.018 && seen[499] > share + 0.018, "they spread to both sides: {seen:?}");
    }
}

#[test]
fn advice_is_followed_but_into_the_last_twentieth_and_in_the_first_day() {
    for (case, days, start, end, expected) in [
        ("a usual window", 90.0, 58.0, 60.0, 58.0..60.0),
        ("of no length", 90.0, 58.0, 58.0, 58.0..58.0),
        ("turned round", 90.0, 60.0, 58.0, 60.0..60.0),
        ("early, as certificates are revoked", 90.0, 5.0, 6.0, 5.0..6.0),
        ("in the last twentieth", 90.0, 88.0, 89.0, 85.5..85.5),
        ("long after the end", 90.0, 9000.0, 9001.0, 85.5..85.5),
        ("before the beginning", 90.0, -9.0, -8.0, 1.0..1.0),
        ("before the beginning of a short life", 6.0, -9.0, -8.0, 0.3..0.3),
    ] {
        for seed in 0..50 {
            let renewal = since_begin(life(days).renewal(Some(&advice(start, end, seed)), seed)) / DAY;
            assert!((expected.start - 0.001..=expected.end + 0.001).contains(&renewal), "{case}: {renewal}");
        }
    }
}

#[test]
fn the_chosen_instant_stays_while_the_window_does() {
    let first = advice(58.0, 60.0, 7);
    let again = Advice::of((first.start, first.end), None, at(5.0), Some(&first), 8);
    assert_eq!((again.chosen, again.ask_again), (first.chosen, at(5.0)));
    let moved = Advice::of((first.start, at(61.0 * DAY)), Some("why".to_owned()), at(5.0), Some(&first), 8);
    assert_ne!(moved.chosen, first.chosen);
    assert_eq!(moved.explanation.as_deref(), Some("why"));
    let mut chosen: Vec<f64> = (0..500).map(|seed| since_begin(advice(0.0, 1.0, seed).chosen) / DAY).collect();
    chosen.sort_unstable_by(f64::total_cmp);
    for (place, share) in [(0, 0.0), (125, 0.25), (250, 0.5), (375, 0.75), (499, 1.0)] {
        assert!((chosen[place] - share).abs() < 0.1, "the window is used evenly: {}", chosen[place]);
    }
}

#[test]
fn advice_is_asked_for_in_time() {
    for (days, said, expected) in [
        (90.0, None, 6.0 * HOUR),
        (6.0, None, HOUR),
        (90.0, Some(0.0), 60.0),
        (90.0, Some(-100.0), 60.0),
        (90.0, Some(3.0 * HOUR), 3.0 * HOUR),
        (6.0, Some(6.0 * HOUR), 6.0 * HOUR),
        (90.0, Some(100.0 * DAY), DAY),
    ] {
        assert_eq!(since_begin(life(days).ask_again(said.map(at), begin())), expected, "{days} {said:?}");
    }
}

#[test]
fn waits_grow_and_end_at_a_pace_that_authorities_bear() {
    for (pace, expected) in [
        (Pace::Patient, &[1.0, 5.0, 15.0, 30.0, 60.0, 120.0, 240.0, 480.0, 960.0, 960.0][..]),
        (Pace::Brisk, &[1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 120.0]),
    ] {
        for seed in 0..100 {
            let mut progress = Progress::default();
            let mut now = begin();
            for (failures, minutes) in expected.iter().enumerate() {
                assert_eq!(progress.failures, u32::try_from(failures).expect("they are few"));
                progress.failed(pace, "no".to_owned(), None, now, seed);
                let next = progress.next_attempt.expect("there is one");
                let share = next.duration_since(now).as_secs_f64() / (minutes * 60.0);
                assert!((0.9..=1.1).contains(&share), "{pace:?} {failures}: {share}");
                assert_eq!(progress.last_error, Some(LastError { message: "no".to_owned(), time: now }));
                now = next;
            }
        }
    }
}

#[test]
fn what_an_authority_asks_for_is_kept() {
    for (said, expected) in [
        (HOUR, HOUR..1.1 * HOUR),
        (34.0 * HOUR, 34.0 * HOUR..37.4 * HOUR),
        (1.0, 54.0..66.0),
        (-HOUR, 54.0..66.0),
        (365.0 * DAY, 48.0 * HOUR..52.8 * HOUR),
    ] {
        for seed in 0..100 {
            let mut progress = Progress::default();
            progress.failed(Pace::Patient, "no".to_owned(), Some(at(said)), begin(), seed);
            let next = since_begin(progress.next_attempt.expect("there is one"));
            assert!((expected.start..=expected.end).contains(&next), "{said}: {next}");
        }
    }
}

#[test]
fn success_forgets_failures_and_advice() {
    let mut progress =
        Progress { advice: Some(advice(1.0, 2.0, 0)), unused_since: Some(begin()), ..Progress::default() };
    progress.failed(Pace::Brisk, "no".to_owned(), None, begin(), 0);
    progress.succeeded("https://ca.example");
    let expected = Progress {
        directory: Some("https://ca.example".to_owned()),
        unused_since: Some(begin()),
        ..Progress::default()
    };
    assert_eq!(progress, expected);
}

#[test]
fn a_pause_of_an_authority_holds_for_all_and_is_never_cut_short() {
    let mut authority = AuthorityState::default();
    authority.pause(Refusal::Overloaded, at(3.0 * HOUR), begin());
    assert_eq!(authority.paused_until, Some(at(3.0 * HOUR)));
    authority.pause(Refusal::RateLimited, at(34.0 * HOUR), begin());
    assert_eq!(authority.paused_until, Some(at(3.0 * HOUR)));
    let attempt = Progress::default().attempt(None, &authority, [], begin(), 0);
    assert_eq!(attempt, at(3.0 * HOUR));
    let mut authority = AuthorityState::default();
    authority.pause(Refusal::RateLimited, at(34.0 * HOUR), begin());
    assert_eq!(authority.paused_until, Some(at(0.25 * HOUR)), "it may concern one order alone");
    authority.pause(Refusal::Overloaded, at(365.0 * DAY), begin());
    assert_eq!(authority.paused_until, Some(at(48.0 * HOUR)));
}

#[test]
fn an_order_waits_for_the_last_of_its_conditions() {
    let now = at(DAY);
    let none = AuthorityState::default();
    let attempt = |progress: &Progress, life, authority: &AuthorityState, validations: &[Moments]| {
        progress.attempt(life, authority, validations, now, 0)
    };
    let fresh = Progress::default();
    assert!(attempt(&fresh, None, &none, &[]) <= now, "what is missing is ordered at once");
    assert_eq!(attempt(&fresh, Some(life(90.0)), &none, &[]), life(90.0).renewal(None, 0));
    assert!(attempt(&fresh, Some(life(0.5)), &none, &[]) <= now, "what has expired too");
    let advised = Progress { advice: Some(advice(3.0, 4.0, 5)), ..Progress::default() };
    assert_eq!(attempt(&advised, Some(life(90.0)), &none, &[]), advice(3.0, 4.0, 5).chosen);
    let failed = Progress { next_attempt: Some(at(DAY + HOUR)), ..Progress::default() };
    assert_eq!(attempt(&failed, None, &none, &[]), at(DAY + HOUR));
    assert_eq!(attempt(&failed, Some(life(1.0)), &none, &[]), at(DAY + HOUR), "in an emergency too");
    let paused = AuthorityState { paused_until: Some(at(DAY + 2.0 * HOUR)), ..none.clone() };
    assert_eq!(attempt(&failed, None, &paused, &[]), at(DAY + 2.0 * HOUR));
    let validations = Moments((0..5).map(|minute| at(DAY - 60.0 * f64::from(10 - minute))).collect());
    assert_eq!(attempt(&fresh, None, &none, &[Moments::default(), validations]), at(DAY + 50.0 * 60.0));
    let busy = AuthorityState { orders: Moments(vec![at(DAY - 4.0); 10]), ..none };
    assert_eq!(attempt(&fresh, None, &busy, &[]), at(DAY + 6.0));
}

#[test]
fn a_clock_that_was_wrong_stops_nobody() {
    let far = "2099-01-01T00:00:00Z".parse().expect("it is a time");
    let progress = Progress { next_attempt: Some(far), unused_since: Some(far), ..Progress::default() };
    let authority = AuthorityState { paused_until: Some(far), orders: Moments(vec![far; 20]) };
    let validations = Moments(vec![far; 20]);
    assert!(progress.attempt(None, &authority, [&validations], begin(), 0) <= begin());
    let mut progress = progress;
    assert!(!progress.is_dropped(false, begin()));
    assert!(progress.is_dropped(false, at(30.0 * DAY)));
}

#[test]
fn what_nobody_wants_is_dropped_after_thirty_days() {
    let mut progress = Progress::default();
    assert!(!progress.is_dropped(false, at(0.0)));
    assert!(!progress.is_dropped(false, at(29.9 * DAY)));
    assert!(!progress.is_dropped(true, at(29.95 * DAY)), "somebody wants it again");
    assert!(!progress.is_dropped(false, at(30.1 * DAY)));
    assert!(!progress.is_dropped(false, at(60.0 * DAY)));
    assert!(progress.is_dropped(false, at(60.2 * DAY)));
}

/// The instants at which orders fail, until `days` are over.
fn simulate(pace: Pace, days: f64, seed: u64, retry_after: impl Fn(usize) -> Option<f64>) -> Vec<f64> {
    let (mut progress, mut authority, mut validations) =
        (Progress::default(), AuthorityState::default(), Moments::default());
    let mut attempts = Vec::new();
    let mut now = begin();
    while since_begin(now) < days * DAY {
        let attempt = progress.attempt(None, &authority, [&validations], now, seed);
        if attempt > now {
            now = attempt;
            continue;
        }
        attempts.push(since_begin(now));
        ORDERS.note(&mut authority.orders, now);
        if pace == Pace::Patient {
            FAILED_VALIDATIONS.note(&mut validations, now);
        }
        let said = retry_after(attempts.len()).map(|seconds| after(now, Duration::from_secs_f64(seconds)));
        progress.failed(pace, "no".to_owned(), said, now, seed);
    }
    attempts
}

fn most_within(attempts: &[f64], seconds: f64) -> usize {
    let from = |first: &f64| attempts.iter().filter(|attempt| (*first..first + seconds).contains(*attempt)).count();
    attempts.iter().map(from).max().unwrap_or(0)
}

#[test]
fn a_month_and_a_year_of_failure_stay_within_the_limits() {
    for seed in 0..40 {
        let month = simulate(Pace::Patient, 30.0, seed, |_| None);
        assert!((45..=60).contains(&month.len()), "{}", month.len());
        let year = simulate(Pace::Patient, 365.0, seed, |_| None);
        assert!(most_within(&year, HOUR) <= 5);
        let settled: Vec<f64> = year.iter().copied().filter(|attempt| *attempt > 2.0 * DAY).collect();
        #[expect(clippy::cast_precision_loss, reason = "they are few")]
        let a_day = settled.len() as f64 / 363.0;
        assert!(a_day < 2.0, "{a_day}");
        // Let's Encrypt pauses a name after 1152 failures in a row, and forgives one each day.
        assert!(year.len() < 1152);
        let brisk = simulate(Pace::Brisk, 30.0, seed, |_| None);
        assert!((330..=420).contains(&brisk.len()), "{}", brisk.len());
        assert!(brisk.windows(2).all(|pair| pair[1] - pair[0] <= 2.2 * HOUR + 1.0), "recovery is noticed within hours");
    }
}

proptest! {
    #[test]
    fn no_attempt_comes_before_its_time(seed: u64, waits in prop::collection::vec(prop::option::of(0.0..40.0 * HOUR), 1..40)) {
        let said = |number: usize| waits[number % waits.len()];
        let attempts = simulate(Pace::Patient, 60.0, seed, said);
        for (number, pair) in attempts.windows(2).enumerate() {
            let wait = said(number + 1).unwrap_or(0.0);
            prop_assert!(pair[1] - pair[0] >= wait - 0.001, "{} after {}", pair[1], pair[0]);
            prop_assert!(pair[1] - pair[0] >= 53.0);
        }
        prop_assert!(most_within(&attempts, HOUR) <= 5);
    }

    #[test]
    fn a_limit_holds_for_whoever_keeps_to_it(gaps in prop::collection::vec(0.0..1000.0_f64, 1..200)) {
        let mut past = Moments::default();
        let mut now = begin();
        let mut noted = Vec::new();
        for gap in gaps {
            now = after(now, Duration::from_secs_f64(gap)).max(FAILED_VALIDATIONS.free(&past, now));
            FAILED_VALIDATIONS.note(&mut past, now);
            noted.push(since_begin(now));
            prop_assert!(past.0.len() <= 5);
        }
        prop_assert!(most_within(&noted, HOUR - 0.001) <= 5);
    }

    #[test]
    fn a_renewal_is_within_life_whatever_an_authority_says(
        seed: u64,
        seconds in 1..400 * 86_400_i64,
        window in prop::option::of((any::<i32>(), any::<i32>())),
    ) {
        let life = Life { not_before: begin(), not_after: at(0.0).saturating_add(SignedDuration::from_secs(seconds)).expect("a time") };
        let advice = window.map(|(start, end)| {
            Advice::of((at(f64::from(start)), at(f64::from(end))), None, begin(), None, seed)
        });
        let renewal = life.renewal(advice.as_ref(), seed);
        prop_assert!(renewal > life.not_before && renewal < life.not_after);
        if let Some(advice) = advice.filter(|advice| advice.start <= advice.end) {
            prop_assert!((advice.start..=advice.end).contains(&advice.chosen));
        }
    }
}
