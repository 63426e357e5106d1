//! How fast a request's body comes, counting only the time in which somebody waits for it; and the timer that both
//! connections and streams set for it.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

/// After so much waiting, a body must have come at the least rate.
const GRACE: Duration = Duration::from_secs(30);

/// Bytes per second: what the slowest of modems had.
const LEAST_RATE: u64 = 240;

/// How long a client may take for a request's body.
#[derive(Clone, Copy, Debug)]
pub enum Reception {
    /// So long may nothing come; and after half a minute it must not be slower than [`LEAST_RATE`].
    Steady(Duration),
    /// So long may nothing come, however slow it is.
    Silence(Duration),
    /// So long may the whole take.
    Whole(Duration),
}

/// What has come of a body.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pace {
    bytes: u64,
    /// How long it was waited for, but for the present wait.
    waited: Duration,
    /// The present wait.
    since: Option<Instant>,
}

impl Pace {
    pub(super) fn comes(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
        if let Some(since) = self.since.take() {
            self.waited += since.elapsed();
        }
    }

    /// Somebody waits for more.
    pub(super) fn waits(&mut self) {
        self.since.get_or_insert_with(Instant::now);
    }

    pub(super) const fn is_waited_for(&self) -> bool {
        self.since.is_some()
    }

    /// When the present wait, which begins now if there is none, has lasted too long.
    pub(super) fn deadline(&mut self, limit: Reception) -> Instant {
        let since = *self.since.get_or_insert_with(Instant::now);
        since + self.patience(limit)
    }

    fn patience(&self, limit: Reception) -> Duration {
        match limit {
            Reception::Silence(limit) => limit,
            Reception::Whole(limit) => limit.saturating_sub(self.waited),
            Reception::Steady(limit) => {
                let earned = Duration::from_secs(self.bytes / LEAST_RATE).max(GRACE);
                limit.min(earned.saturating_sub(self.waited))
            }
        }
    }
}

/// A timer that is not moved when a deadline moves away, but looks again when it fires: to move it each time would cost
/// more. Whoever polls it must always be the same task.
#[derive(Default)]
pub(super) struct Alarm(Option<Pin<Box<Sleep>>>);

impl Alarm {
    /// Ready when the deadline has passed; else the task will be woken then or before.
    pub(super) fn poll(&mut self, context: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        loop {
            if self.0.as_ref().is_some_and(|timer| !timer.is_elapsed() && timer.deadline() <= deadline) {
                return Poll::Pending;
            }
            if deadline <= Instant::now() {
                return Poll::Ready(());
            }
            let timer = self.0.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
            timer.as_mut().reset(deadline);
            if timer.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_is_earned_by_bytes() {
        let steady = Reception::Steady(Duration::from_secs(10));
        for (limit, bytes, waited, seconds) in [
            (steady, 0, 0, 10),
            (steady, 0, 25, 5),
            (steady, 0, 30, 0),
            (steady, 10, 31, 0),
            // 240 bytes are a second.
            (steady, 240 * 35, 30, 5),
            (steady, 240 * 35, 36, 0),
            (steady, 1 << 40, 3600, 10),
            (Reception::Silence(Duration::from_secs(180)), 1, 3600, 180),
            (Reception::Whole(Duration::from_secs(60)), 1 << 40, 0, 60),
            (Reception::Whole(Duration::from_secs(60)), 1 << 40, 59, 1),
            (Reception::Whole(Duration::from_secs(60)), 1 << 40, 61, 0),
        ] {
            let pace = Pace { bytes, waited: Duration::from_secs(waited), since: None };
            assert_eq!(pace.patience(limit), Duration::from_secs(seconds), "{limit:?} {bytes} {waited}");
        }
    }

    #[test]
    fn only_time_in_which_somebody_waits_counts() {
        let steady = Reception::Steady(Duration::from_secs(10));
        let ago = |seconds| Some(Instant::now() - Duration::from_secs(seconds));
        let mut pace = Pace { since: ago(9), ..Pace::default() };
        assert!(pace.deadline(steady) < Instant::now() + Duration::from_secs(2), "the wait goes on");
        for _ in 0..3 {
            pace.since = ago(9);
            pace.comes(1);
            assert!(!pace.is_waited_for());
        }
        let left = pace.deadline(steady) - Instant::now();
        assert!(left <= Duration::from_secs(3) && left > Duration::from_secs(2), "27 of 30 s are used up: {left:?}");
        pace.comes(1 << 20);
        assert!(pace.deadline(steady) > Instant::now() + Duration::from_secs(9), "it has come fast enough for long");
    }
}
