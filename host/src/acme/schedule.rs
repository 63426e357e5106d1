//! When to order, when to renew, and how long to wait after a failure.
//!
//! `resolver` asks it. Pure: the time is an argument, and chance is a number that a certificate's names give, so that the
//! same question has the same answer after a restart.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::state::{Advice, AuthorityState, LastError, Moments, Progress};

/// When a certificate is valid.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Life {
    pub(crate) not_before: Timestamp,
    pub(crate) not_after: Timestamp,
}

/// How soon a failure is worth another attempt.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Pace {
    /// The authority has looked and said no, and counts how often it does (Let's Encrypt: five failed validations in an hour
    /// for a name, and 1152 in a row with one forgiven each day).
    Patient,
    /// Nobody has counted it: the authority, or a DNS provider, is out of order.
    Brisk,
}

/// Why an authority wants to be left alone.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Refusal {
    /// 503, or 429 before there was an order: it concerns everything that is asked of it.
    Overloaded,
    /// 429 for an order. It may concern the account, or only names of this order, which cannot be told.
    RateLimited,
}

/// So many events in so long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limit {
    at_most: usize,
    within: SignedDuration,
}

/// Of one authority, at the same time: each asks for nonces, of which Let's Encrypt gives twenty a second.
pub(crate) const ORDERS_IN_FLIGHT: usize = 4;

/// Of one authority.
pub(crate) const ORDERS: Limit = Limit { at_most: 10, within: SignedDuration::from_secs(10) };

/// Of one name and account.
pub(crate) const FAILED_VALIDATIONS: Limit = Limit { at_most: 5, within: SignedDuration::from_hours(1) };

impl Life {
    /// When to renew it: at the instant chosen from an authority's advice, else after two thirds of its life, or half of a
    /// short one, a little sooner or later for each certificate. In any case before the last twentieth of its life.
    pub(crate) fn renewal(self, advice: Option<&Advice>, seed: u64) -> Timestamp {
        let emergency = self.at(1.0 - LAST_RESORT);
        let Some(advice) = advice else {
            let share = if self.is_short() { 1.0 / 2.0 } else { 2.0 / 3.0 };
            return self.at(share + SPREAD * around_zero(seed));
        };
        // An authority that calls for the renewal of what it has just signed would have us order without end.
        let fresh_until = after(self.not_before, self.length().mul_f64(LAST_RESORT).min(FRESH_AT_MOST));
        advice.chosen.max(fresh_until).min(emergency)
    }

    /// When to ask an authority for its advice again. It may have said so itself.
    pub(crate) fn ask_again(self, said: Option<Timestamp>, now: Timestamp) -> Timestamp {
        let default = if self.is_short() { Duration::from_secs(3600) } else { ASK_AGAIN };
        // RFC 9773, section 4.3, has these bounds.
        let (soonest, latest) = (after(now, Duration::from_secs(60)), after(now, Duration::from_secs(86_400)));
        said.map_or_else(|| after(now, default), |said| said.clamp(soonest, latest))
    }

    fn is_short(self) -> bool {
        self.length() < SHORT
    }

    fn at(self, share: f64) -> Timestamp {
        after(self.not_before, self.length().mul_f64(share))
    }

    fn length(self) -> Duration {
        Duration::try_from(self.not_after.duration_since(self.not_before)).unwrap_or(Duration::ZERO)
    }
}

impl Advice {
    /// Chooses an instant of the window; of one that has not changed the same one as before. Where the window is over, the
    /// instant is too, and the certificate is due.
    pub(crate) fn of(
        (start, end): (Timestamp, Timestamp),
        explanation: Option<String>,
        ask_again: Timestamp,
        previous: Option<&Self>,
        seed: u64,
    ) -> Self {
        let kept = previous.filter(|previous| (previous.start, previous.end) == (start, end));
        let chosen = kept.map_or_else(
            || {
                let length = Duration::try_from(end.duration_since(start)).unwrap_or(Duration::ZERO);
                after(start, length.mul_f64(share(mixed(seed, start.as_second().cast_unsigned()))))
            },
            |previous| previous.chosen,
        );
        Self { start, end, chosen, ask_again, explanation }
    }
}

impl Progress {
    /// Notes a failure and sets the next attempt: by the number of failures in a row, and not before `retry_after`.
    pub(crate) fn failed(
        &mut self,
        pace: Pace,
        message: String,
        retry_after: Option<Timestamp>,
        now: Timestamp,
        seed: u64,
    ) {
        let seed = mixed(seed, self.failures.into());
        let wait = pace.wait(self.failures);
        let mut next = after(now, wait.mul_f64(1.0 + JITTER * around_zero(seed)));
        if let Some(retry_after) = retry_after {
            let asked = believed(retry_after, now);
            let length = Duration::try_from(asked.duration_since(now)).unwrap_or(Duration::ZERO);
            // Later alone: what was asked for is kept.
            next = next.max(after(asked, length.mul_f64(JITTER * share(seed))));
        }
        self.failures = self.failures.saturating_add(1);
        self.last_error = Some(LastError { message, time: now });
        self.next_attempt = Some(next);
    }

    /// Notes a new certificate of an authority. The advice was about the old one.
    pub(crate) fn succeeded(&mut self, directory: &str) {
        *self = Self { directory: Some(directory.to_owned()), unused_since: self.unused_since, ..Self::default() };
    }

    /// Notes whether anybody wants it. Whether it is to be dropped: nobody has for a long time.
    pub(crate) fn is_dropped(&mut self, is_wanted: bool, now: Timestamp) -> bool {
        if is_wanted {
            self.unused_since = None;
            return false;
        }
        // Since a time that is still to come means that the clock was wrong.
        let since = self.unused_since.filter(|since| *since <= now).unwrap_or(now);
        self.unused_since = Some(since);
        now >= after(since, GRACE)
    }

    /// When to order, be it for the first time (`life` is none) or again. What is past means now.
    ///
    /// `validations` are the failed ones of each of its names.
    pub(crate) fn attempt<'a>(
        &self,
        life: Option<Life>,
        authority: &AuthorityState,
        validations: impl IntoIterator<Item = &'a Moments>,
        now: Timestamp,
        seed: u64,
    ) -> Timestamp {
        let due = life.map_or(Timestamp::MIN, |life| life.renewal(self.advice.as_ref(), seed));
        let waits = [self.next_attempt, authority.paused_until].into_iter().flatten();
        let limits = validations.into_iter().map(|moments| FAILED_VALIDATIONS.free(moments, now));
        // No wait is this long: the clock was wrong when it was reckoned.
        let is_believable = |time: &Timestamp| *time <= after(now, LONGEST_WAIT);
        let others = waits.chain(limits).chain([ORDERS.free(&authority.orders, now)]).filter(is_believable);
        others.fold(due, Timestamp::max)
    }
}

impl AuthorityState {
    /// Leaves it alone until then.
    pub(crate) fn pause(&mut self, refusal: Refusal, retry_after: Timestamp, now: Timestamp) {
        let until = match refusal {
            Refusal::Overloaded => believed(retry_after, now),
            // The order that was refused waits all of it. Others try before, for it may not concern them.
            Refusal::RateLimited => believed(retry_after, now).min(after(now, RATE_LIMITED_AT_MOST)),
        };
        self.paused_until = self.paused_until.max(Some(until));
    }
}

impl Limit {
    /// When there is room for another one.
    pub(crate) fn free(&self, past: &Moments, now: Timestamp) -> Timestamp {
        let counted: Vec<Timestamp> = self.counted(past, now).collect();
        match counted.len().checked_sub(self.at_most) {
            Some(first) => counted[first].saturating_add(self.within).unwrap_or(Timestamp::MAX),
            None => now,
        }
    }

    pub(crate) fn note(&self, past: &mut Moments, now: Timestamp) {
        past.0 = self.counted(past, now).chain([now]).collect();
    }

    /// Those that still count. What is still to come was noted by a clock that was wrong.
    fn counted(&self, past: &Moments, now: Timestamp) -> impl Iterator<Item = Timestamp> {
        past.0.iter().copied().filter(move |time| *time <= now && now.duration_since(*time) < self.within)
    }
}

impl Pace {
    /// After so many failures before this one.
    fn wait(self, failures: u32) -> Duration {
        // Sixteen hours is less than twice a day, also with jitter.
        const PATIENT: [u64; 9] = [1, 5, 15, 30, 60, 120, 240, 480, 960];
        const BRISK: [u64; 8] = [1, 2, 5, 10, 20, 30, 60, 120];
        let minutes: &[u64] = match self {
            Self::Patient => &PATIENT,
            Self::Brisk => &BRISK,
        };
        let place = usize::try_from(failures).unwrap_or(usize::MAX).min(minutes.len() - 1);
        Duration::from_secs(60 * minutes[place])
    }
}

/// The share of a life before whose end it is renewed whatever anybody advises.
const LAST_RESORT: f64 = 1.0 / 20.0;
/// Advice to renew is not followed within this time, or the share above, of a certificate's first day.
const FRESH_AT_MOST: Duration = Duration::from_secs(86_400);
/// Lives below this are short.
const SHORT: Duration = Duration::from_secs(10 * 86_400);
/// Share of a life by which renewals spread to both sides.
const SPREAD: f64 = 0.02;
/// Share of a wait by which attempts spread.
const JITTER: f64 = 0.1;
/// RFC 9773, section 4.3.2.
const ASK_AGAIN: Duration = Duration::from_secs(6 * 3600);
/// How long a certificate is kept that nobody asks for: a router may be taken away for a holiday.
const GRACE: Duration = Duration::from_secs(30 * 86_400);
/// Let's Encrypt's longest is a day and a half. An authority that says a year is mistaken.
const RETRY_AFTER_AT_MOST: Duration = Duration::from_secs(48 * 3600);
const RATE_LIMITED_AT_MOST: Duration = Duration::from_secs(15 * 60);
/// Longer than any that is reckoned here.
const LONGEST_WAIT: Duration = Duration::from_secs(54 * 3600);

fn believed(retry_after: Timestamp, now: Timestamp) -> Timestamp {
    retry_after.clamp(now, after(now, RETRY_AFTER_AT_MOST))
}

fn after(time: Timestamp, wait: Duration) -> Timestamp {
    let wait = SignedDuration::try_from(wait).unwrap_or(SignedDuration::MAX);
    time.saturating_add(wait).unwrap_or(Timestamp::MAX)
}

/// From −1 to 1.
fn around_zero(seed: u64) -> f64 {
    2.0 * share(mixed(seed, 0)) - 1.0
}

/// From 0 to 1.
fn share(seed: u64) -> f64 {
    // As many bits as a double holds exactly.
    #[expect(clippy::cast_precision_loss, reason = "53 bits fit")]
    let (part, whole) = ((seed >> 11) as f64, (1_u64 << 53) as f64);
    part / whole
}

/// Another number of two, by the finaliser of SplitMix64: any bit of them changes half of its bits.
fn mixed(seed: u64, salt: u64) -> u64 {
    let mut mixed = seed ^ salt.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ mixed >> 31
}

#[cfg(test)]
mod tests;
