//! The time that certificates live by. Whoever waits for hours waits here, so that a test can let a month go by.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::watch;
use tokio::time::timeout;

/// The system's time, and in tests so much more.
#[derive(Clone, Debug)]
pub struct Clock {
    ahead: Option<watch::Receiver<Duration>>,
}

/// Moves the clocks that were made with it.
#[cfg(test)]
pub struct Hands(watch::Sender<Duration>);

impl Clock {
    /// A wait is cut into these: the system's time may be set while it lasts, and a machine may sleep.
    const LOOK_AGAIN: Duration = Duration::from_secs(60);

    pub const fn system() -> Self {
        Self { ahead: None }
    }

    #[cfg(test)]
    pub fn movable() -> (Self, Hands) {
        let (hands, ahead) = watch::channel(Duration::ZERO);
        (Self { ahead: Some(ahead) }, Hands(hands))
    }

    pub fn now(&self) -> Timestamp {
        let ahead = self.ahead.as_ref().map_or(Duration::ZERO, |ahead| *ahead.borrow());
        Timestamp::now()
            .saturating_add(SignedDuration::try_from(ahead).unwrap_or(SignedDuration::MAX))
            .unwrap_or(Timestamp::MAX)
    }

    pub async fn sleep(&self, duration: Duration) {
        let until = self.now().saturating_add(SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX));
        self.sleep_until(until.unwrap_or(Timestamp::MAX)).await;
    }

    pub async fn sleep_until(&self, time: Timestamp) {
        let mut ahead = self.ahead.clone();
        loop {
            let left = Duration::try_from(time.duration_since(self.now())).unwrap_or(Duration::ZERO);
            if left.is_zero() {
                return;
            }
            // Either way the clock is looked at again.
            let _ = timeout(left.min(Self::LOOK_AGAIN), moved(ahead.as_mut())).await;
        }
    }
}

#[cfg(test)]
impl Hands {
    pub fn advance(&self, by: Duration) {
        self.0.send_modify(|ahead| *ahead += by);
    }
}

async fn moved(ahead: Option<&mut watch::Receiver<Duration>>) {
    if let Some(ahead) = ahead
        && ahead.changed().await.is_ok()
    {
        return;
    }
    std::future::pending::<()>().await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_month_goes_by_at_once() {
        let (clock, hands) = Clock::movable();
        let begun = clock.now();
        let (waits, until) = (clock.clone(), begun + SignedDuration::from_hours(30 * 24));
        let waiting = tokio::spawn(async move { waits.sleep_until(until).await });
        hands.advance(Duration::from_secs(29 * 86_400));
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        hands.advance(Duration::from_secs(86_400));
        waiting.await.expect("the wait ends");
        assert!(clock.now().duration_since(begun) >= SignedDuration::from_hours(30 * 24));
    }
}
