//! Making a call again where the reason that it failed may pass in seconds. Longer waits are the host's business.

use super::timer;
use crate::{Error, ErrorKind};

/// Milliseconds before each further attempt.
const WAITS_MS: [u32; 3] = [1_000, 2_000, 4_000];

/// A provider that asks for more gets the host's next attempt.
const LONGEST_WAIT_MS: u64 = 30_000;

/// Calls again, up to three times, while the provider is busy or cannot be reached: after 1, 2 and 4 s, or what it asks for
/// up to 30 s, and for errors of the kinds [`RateLimited`](ErrorKind::RateLimited), [`Timeout`](ErrorKind::Timeout) and
/// [`Unavailable`](ErrorKind::Unavailable) alone. All calls of a [`DnsProvider`](super::DnsProvider) are made through this, the
/// whole of `present` each time: after an answer that was lost it finds the record there.
///
/// # Errors
/// The last one.
pub fn persist<T>(mut attempt: impl FnMut() -> Result<T, Error>) -> Result<T, Error> {
    for wait in WAITS_MS {
        let error = match attempt() {
            Ok(done) => return Ok(done),
            Err(error) => error,
        };
        let Some(wait) = worth_waiting(&error, wait) else {
            return Err(error);
        };
        timer::sleep(wait);
    }
    attempt()
}

/// How long, if at all. What the provider asks for goes before our own.
fn worth_waiting(error: &Error, wait_ms: u32) -> Option<u32> {
    if !matches!(error.kind, ErrorKind::RateLimited | ErrorKind::Timeout | ErrorKind::Unavailable) {
        return None;
    }
    let asked = error.retry_after_ms.unwrap_or(0);
    if asked > LONGEST_WAIT_MS {
        return None;
    }
    u32::try_from(asked).ok().map(|asked| asked.max(wait_ms))
}

#[cfg(test)]
mod tests {
    use crate::testing::Host;

    use super::*;

    fn failing(kind: ErrorKind, retry_after_ms: Option<u64>) -> (Host, u32) {
        let host = Host::new();
        let mut calls = 0;
        let outcome: Result<(), Error> = persist(|| {
            calls += 1;
            Err(Error { retry_after_ms, ..Error::new(kind, "x") })
        });
        assert_eq!(outcome.expect_err("it always fails").kind, kind);
        (host, calls)
    }

    #[test]
    fn what_may_pass_is_tried_four_times() {
        for kind in [ErrorKind::RateLimited, ErrorKind::Timeout, ErrorKind::Unavailable] {
            let (host, calls) = failing(kind, None);
            assert_eq!((calls, host.slept_ms()), (4, 7_000), "{kind:?}");
        }
    }

    #[test]
    fn what_cannot_pass_is_tried_once() {
        for kind in [ErrorKind::Unauthorized, ErrorKind::NotFound, ErrorKind::Conflict, ErrorKind::Internal] {
            let (host, calls) = failing(kind, None);
            assert_eq!((calls, host.slept_ms()), (1, 0), "{kind:?}");
        }
    }

    #[test]
    fn a_provider_says_how_long_to_wait() {
        let (host, calls) = failing(ErrorKind::RateLimited, Some(10_000));
        assert_eq!((calls, host.slept_ms()), (4, 30_000));
        drop(host);
        let (host, calls) = failing(ErrorKind::RateLimited, Some(3_600_000));
        assert_eq!((calls, host.slept_ms()), (1, 0));
    }

    #[test]
    fn the_first_success_ends_it() {
        let host = Host::new();
        let mut left = 1;
        let outcome = persist(|| {
            if left == 0 {
                return Ok("done");
            }
            left -= 1;
            Err(Error::new(ErrorKind::Unavailable, "x"))
        });
        assert_eq!((outcome, host.slept_ms()), (Ok("done"), 1_000));
    }
}
