//! What a plugin shares, in a native test: one plugin with one middleware on one router. Keys, values and buckets are judged
//! as the host does it, but nothing ever has to make room.
//!
//! The [`Host`](super::Host) of a test has one, and says what time it is.

use std::collections::BTreeMap;

use crate::bindings::weir::plugin::shared::Scope;
use crate::{Error, ErrorKind};

const KEY_BYTES_AT_MOST: usize = 256;
const VALUE_BYTES_AT_MOST: usize = 64 << 10;
const RATE_AT_MOST: f64 = 1e9;

#[derive(Default)]
pub(crate) struct Shared {
    values: BTreeMap<(Scope, String), Entry>,
    buckets: BTreeMap<(Scope, String), Bucket>,
}

struct Entry {
    value: Value,
    /// `None`: never.
    expires_ms: Option<u64>,
}

enum Value {
    Bytes(Vec<u8>),
    Counter(i64),
}

/// So many tokens there were at a moment; fewer than none if some have been promised.
struct Bucket {
    tokens: f64,
    at_ms: u64,
}

/// What a plugin asks of a bucket.
pub(crate) struct Ask {
    pub(crate) per_second: f64,
    pub(crate) burst: u32,
    pub(crate) cost: u32,
    pub(crate) max_wait_ms: u32,
}

impl Shared {
    pub(crate) fn get(&self, scope: Scope, key: &str, now_ms: u64) -> Option<Vec<u8>> {
        match &self.values.get(&(scope, key.to_owned())).filter(|entry| entry.is_there(now_ms))?.value {
            Value::Bytes(bytes) => Some(bytes.clone()),
            Value::Counter(count) => Some(count.to_string().into_bytes()),
        }
    }

    pub(crate) fn set(
        &mut self,
        scope: Scope,
        key: &str,
        value: &[u8],
        ttl_ms: Option<u64>,
        now_ms: u64,
    ) -> Result<(), Error> {
        if value.len() > VALUE_BYTES_AT_MOST {
            return Err(too_large("value", value.len(), VALUE_BYTES_AT_MOST));
        }
        self.put(key_of(scope, key)?, Value::Bytes(value.to_vec()), ttl_ms, now_ms);
        Ok(())
    }

    pub(crate) fn increment(
        &mut self,
        scope: Scope,
        key: &str,
        by: i64,
        ttl_ms: Option<u64>,
        now_ms: u64,
    ) -> Result<i64, Error> {
        let key = key_of(scope, key)?;
        match self.values.get_mut(&key).filter(|entry| entry.is_there(now_ms)).map(|entry| &mut entry.value) {
            Some(Value::Counter(count)) => {
                *count = count.saturating_add(by);
                Ok(*count)
            }
            Some(Value::Bytes(_)) => Err(Error::new(ErrorKind::Conflict, "count: the key holds something else")),
            None => {
                self.put(key, Value::Counter(by), ttl_ms, now_ms);
                Ok(by)
            }
        }
    }

    pub(crate) fn take(&mut self, scope: Scope, bucket: &str, ask: &Ask, now_ms: u64) -> Result<u32, u64> {
        let key = key_of(scope, bucket).map_err(|_| u64::MAX)?;
        let full = Bucket { tokens: ask.burst.into(), at_ms: now_ms };
        let (left, wait_ms) = self.buckets.get(&key).unwrap_or(&full).take(ask, now_ms)?;
        self.buckets.insert(key, left);
        Ok(wait_ms)
    }

    fn put(&mut self, key: (Scope, String), value: Value, ttl_ms: Option<u64>, now_ms: u64) {
        let expires_ms = ttl_ms.map(|ttl_ms| now_ms.saturating_add(ttl_ms));
        self.values.insert(key, Entry { value, expires_ms });
    }
}

impl Entry {
    fn is_there(&self, now_ms: u64) -> bool {
        self.expires_ms.is_none_or(|expires_ms| expires_ms > now_ms)
    }
}

impl Bucket {
    /// What is left and how many milliseconds to wait for it, or after how many another try is worth it.
    fn take(&self, ask: &Ask, now_ms: u64) -> Result<(Self, u32), u64> {
        let (burst, cost) = (f64::from(ask.burst), f64::from(ask.cost));
        let rate = if ask.per_second > 0.0 { ask.per_second.min(RATE_AT_MOST) } else { 0.0 };
        if cost > burst {
            return Err(u64::MAX);
        }
        let tokens = ((now_ms - self.at_ms) as f64 / 1e3).mul_add(rate, self.tokens).min(burst);
        let left = Self { tokens: tokens - cost, at_ms: now_ms };
        if left.tokens >= 0.0 {
            return Ok((left, 0));
        }
        if rate == 0.0 {
            return Err(u64::MAX);
        }
        let wait_ms = (-left.tokens / rate * 1e3).ceil() as u64;
        match u32::try_from(wait_ms) {
            Ok(wait_ms) if wait_ms <= ask.max_wait_ms => Ok((left, wait_ms)),
            _ => Err((wait_ms - u64::from(ask.max_wait_ms)).max(1)),
        }
    }
}

fn key_of(scope: Scope, key: &str) -> Result<(Scope, String), Error> {
    if key.len() > KEY_BYTES_AT_MOST {
        return Err(too_large("key", key.len(), KEY_BYTES_AT_MOST));
    }
    Ok((scope, key.to_owned()))
}

fn too_large(what: &str, bytes: usize, at_most: usize) -> Error {
    Error::new(ErrorKind::TooLarge, format!("keep a {what} of {bytes} bytes: at most {at_most} are allowed"))
}

#[cfg(test)]
mod tests {
    use crate::ErrorKind;
    use crate::shared::{self, Scope};
    use crate::testing::Host;

    #[test]
    fn values_are_there_until_they_expire() {
        let host = Host::new();
        assert_eq!(shared::get(Scope::Plugin, "a"), None);
        shared::set(Scope::Plugin, "a", b"1", Some(1000)).expect("room");
        shared::set(Scope::Plugin, "b", b"2", None).expect("room");
        shared::set(Scope::Plugin, "c", b"3", Some(0)).expect("room");
        host.advance(999);
        assert_eq!(shared::get(Scope::Plugin, "a").as_deref(), Some(&b"1"[..]));
        host.advance(1);
        assert_eq!(shared::get(Scope::Plugin, "a"), None);
        assert_eq!(shared::get(Scope::Plugin, "b").as_deref(), Some(&b"2"[..]));
        assert_eq!(shared::get(Scope::Plugin, "c"), None);
        assert_eq!(shared::get(Scope::Middleware, "b"), None);
    }

    #[test]
    fn counters_count_from_their_start() {
        let host = Host::new();
        let count = |by| shared::increment(Scope::Router, "a", by, Some(1000)).expect("a counter");
        assert_eq!((count(1), count(2)), (1, 3));
        host.advance(999);
        assert_eq!((count(i64::MAX), count(1)), (i64::MAX, i64::MAX));
        host.advance(1);
        assert_eq!(count(1), 1);
        assert_eq!(shared::get(Scope::Router, "a").as_deref(), Some(&b"1"[..]));
        shared::set(Scope::Router, "a", b"1", None).expect("room");
        let error = shared::increment(Scope::Router, "a", 1, None).expect_err("no counter");
        assert_eq!(error.kind, ErrorKind::Conflict);
    }

    #[test]
    fn buckets_fill_as_time_passes() {
        let host = Host::new();
        let take = |cost, max_wait_ms| shared::take(Scope::Middleware, "a", 10.0, 2, cost, max_wait_ms);
        assert_eq!((take(1, 0), take(1, 0), take(1, 0)), (Ok(0), Ok(0), Err(100)));
        assert_eq!((take(1, 100), take(1, 100)), (Ok(100), Err(100)));
        host.advance(200);
        assert_eq!((take(1, 0), take(1, 0)), (Ok(0), Err(100)));
        host.advance(3_600_000);
        assert_eq!((take(2, 0), take(1, 0)), (Ok(0), Err(100)));
        assert_eq!(take(3, u32::MAX), Err(u64::MAX));
        let once = || shared::take(Scope::Middleware, "b", f64::NAN, 1, 1, u32::MAX);
        assert_eq!((once(), once()), (Ok(0), Err(u64::MAX)));
    }

    #[test]
    fn what_is_too_large_is_refused() {
        let _host = Host::new();
        let (long, large) = ("k".repeat(257), vec![b'v'; (64 << 10) + 1]);
        for refused in [
            shared::set(Scope::Plugin, &long, b"", None),
            shared::set(Scope::Plugin, "a", &large, None),
            shared::increment(Scope::Plugin, &long, 1, None).map(drop),
        ] {
            assert_eq!(refused.expect_err("it is too large").kind, ErrorKind::TooLarge);
        }
        assert_eq!(shared::take(Scope::Plugin, &long, 1.0, 1, 1, 0), Err(u64::MAX));
        shared::set(Scope::Plugin, &long[1..], &large[1..], None).expect("what is allowed");
    }
}
