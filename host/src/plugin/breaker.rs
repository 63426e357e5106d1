//! Keeps a middleware from being called that fails again and again, and a plugin from taking the time of all others.
//!
//! `pool` asks before each call and tells how it ended. Nothing here knows what a failure is worth to a request.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// So many failures within so long open it.
const FAILURES: usize = 5;
const WITHIN: Duration = Duration::from_secs(10);
/// How long it stays open: at first, and after having opened again and again.
const OPEN_FIRST: Duration = Duration::from_secs(5);
const OPEN_AT_MOST: Duration = Duration::from_secs(60);

/// CPU time that a plugin may have saved up, in seconds of its share.
const SAVED_SECONDS: f64 = 1.0;

/// One for each configured middleware, for all workers.
#[derive(Debug)]
pub(super) struct Breaker {
    made: Instant,
    /// Milliseconds after `made`; closed if they are over.
    open_until: AtomicU64,
    history: Mutex<History>,
}

/// What it says of the next call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Closed,
    Open,
    /// It was open, and this call is the first one again.
    Tried,
}

#[derive(Debug, Default)]
struct History {
    /// Of the last [`WITHIN`].
    failures: VecDeque<Instant>,
    /// The last time that it opened.
    opened: Option<Opening>,
}

#[derive(Clone, Copy, Debug)]
struct Opening {
    lasting: Duration,
    until: Instant,
}

/// CPU time of a plugin, by a token bucket.
#[derive(Debug)]
pub(super) struct Share {
    cores: f64,
    made: Instant,
    /// Nanoseconds after `made`; something is left if they are over. Each call asks, and none waits for a lock.
    used_up_until: AtomicU64,
    saved: Mutex<Saved>,
}

#[derive(Debug)]
struct Saved {
    seconds: f64,
    at: Instant,
}

impl Breaker {
    pub(super) fn new() -> Self {
        Self { made: Instant::now(), open_until: AtomicU64::new(0), history: Mutex::default() }
    }

    /// Whether a call may be made.
    pub(super) fn state(&self) -> State {
        let until = self.open_until.load(Ordering::Relaxed);
        if until == 0 {
            return State::Closed;
        }
        if self.milliseconds(Instant::now()) < until {
            return State::Open;
        }
        // One of those who see it first.
        match self.open_until.compare_exchange(until, 0, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => State::Tried,
            Err(_) => State::Closed,
        }
    }

    /// For how long no call is made from now on, if none is.
    pub(super) fn open_for(&self) -> Option<Duration> {
        let until = self.open_until.load(Ordering::Relaxed);
        let left = until.checked_sub(self.milliseconds(Instant::now())).filter(|left| *left > 0);
        left.map(Duration::from_millis)
    }

    /// Notes a failure. The answer is how long no call is made from now on, if this was one too many.
    pub(super) fn failed(&self, now: Instant) -> Option<Duration> {
        let mut history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        let open = history.failed(now)?;
        self.open_until.store(self.milliseconds(now + open), Ordering::Relaxed);
        Some(open)
    }

    fn milliseconds(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.made).as_millis()).unwrap_or(u64::MAX)
    }
}

impl History {
    fn failed(&mut self, now: Instant) -> Option<Duration> {
        let since = |earlier: &Instant| now.saturating_duration_since(*earlier);
        self.failures.retain(|earlier| since(earlier) <= WITHIN);
        let opening = self.opened.filter(|opening| since(&opening.until) <= WITHIN);
        self.failures.push_back(now);
        let open = match opening {
            // Calls that were running when it opened.
            Some(opening) if now < opening.until => return None,
            // It has not got better: a single failure is enough.
            Some(opening) => (opening.lasting * 2).min(OPEN_AT_MOST),
            None if self.failures.len() < FAILURES => return None,
            None => OPEN_FIRST,
        };
        self.failures.clear();
        self.opened = Some(Opening { lasting: open, until: now + open });
        Some(open)
    }
}

impl Share {
    /// `cores` is how much CPU time it may take of each second; 0: as much as it likes.
    pub(super) fn new(cores: f64) -> Self {
        let made = Instant::now();
        let saved = Mutex::new(Saved { seconds: cores * SAVED_SECONDS, at: made });
        Self { cores, made, used_up_until: AtomicU64::new(0), saved }
    }

    /// Takes note of CPU time.
    pub(super) fn spend(&self, time: Duration, now: Instant) {
        if self.cores <= 0.0 {
            return;
        }
        let mut saved = self.saved(now);
        saved.seconds -= time.as_secs_f64();
        if saved.seconds <= 0.0 {
            let wait = -saved.seconds / self.cores * 1e9;
            self.used_up_until.store(self.nanoseconds(now).saturating_add(wait as u64), Ordering::Relaxed);
        }
    }

    /// Whether all of it has been used up.
    pub(super) fn is_used_up(&self, now: Instant) -> bool {
        let until = self.used_up_until.load(Ordering::Relaxed);
        until > 0 && self.nanoseconds(now) <= until
    }

    fn nanoseconds(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.made).as_nanos()).unwrap_or(u64::MAX)
    }

    fn saved(&self, now: Instant) -> std::sync::MutexGuard<'_, Saved> {
        let mut saved = self.saved.lock().unwrap_or_else(PoisonError::into_inner);
        let since = now.saturating_duration_since(saved.at).as_secs_f64();
        saved.seconds = since.mul_add(self.cores, saved.seconds).min(self.cores * SAVED_SECONDS);
        saved.at = now;
        saved
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn five_failures_within_ten_seconds_open_it() {
        let (mut history, start) = (History::default(), Instant::now());
        for second in 0..4 {
            assert_eq!(history.failed(start + SECOND * second), None);
        }
        assert_eq!(history.failed(start + SECOND * 4), Some(SECOND * 5));
    }

    #[test]
    fn failures_far_apart_do_not() {
        let (mut history, start) = (History::default(), Instant::now());
        for round in 0..100 {
            assert_eq!(history.failed(start + SECOND * 3 * round), None, "{round}");
        }
    }

    #[test]
    fn it_opens_again_at_the_first_failure_and_for_longer() {
        let (mut history, mut now) = (History::default(), Instant::now());
        for _ in 0..4 {
            history.failed(now);
        }
        let mut open = history.failed(now).expect("the fifth");
        for expected in [10, 20, 40, 60, 60] {
            now += open;
            open = history.failed(now).expect("it has not got better");
            assert_eq!(open, SECOND * expected);
        }
        now += open + SECOND * 11;
        assert_eq!(history.failed(now), None, "it was good for a while");
    }

    #[test]
    fn calls_that_were_running_when_it_opened_do_not_open_it_again() {
        let (mut history, start) = (History::default(), Instant::now());
        let answers: Vec<_> = (0..20).map(|_| history.failed(start)).collect();
        assert_eq!(answers.iter().flatten().count(), 1);
    }

    #[test]
    fn a_share_is_saved_up_for_a_second_and_no_longer() {
        let share = Share::new(0.5);
        let start = Instant::now() + SECOND * 100;
        assert!(!share.is_used_up(start));
        share.spend(SECOND / 2, start);
        assert!(share.is_used_up(start));
        assert!(!share.is_used_up(start + SECOND / 10));
        share.spend(SECOND, start + SECOND / 10);
        assert!(share.is_used_up(start + SECOND));
        assert!(!share.is_used_up(start + SECOND * 3));
        assert!(!Share::new(0.0).is_used_up(start), "no limit");
    }
}
