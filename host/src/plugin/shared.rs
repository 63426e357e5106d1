//! What guests keep in the host and share with one another: `weir:plugin/shared`.
//!
//! `plugin` gives each configured plugin its [`Scopes`], and `State` asks them for the guest. Everything is in memory; what
//! a middleware or a router has kept goes with it. No lock is held while a guest runs.

mod table;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Instant;

use self::table::{Key, Limits, NEVER, Table};
use super::bindings::middleware::weir::plugin::shared;
use super::bindings::middleware::weir::plugin::shared::Scope;
use super::bindings::middleware::weir::plugin::types::{Error, ErrorKind};
use super::imports::State;

const KEY_BYTES_AT_MOST: usize = 256;
const VALUE_BYTES_AT_MOST: usize = 64 << 10;
/// Of the values and counters of one plugin.
const VALUES: Limits = Limits { entries: 10_000, bytes: 16 << 20 };
/// Of the token buckets of one plugin. They are apart, so that values that stay for ever leave room for them.
const BUCKETS: Limits = Limits { entries: 10_000, bytes: 16 << 20 };

/// What all plugins keep. One for the process.
#[derive(Debug, Default)]
pub(super) struct Shared {
    spaces: Mutex<BTreeMap<Arc<str>, Weak<Space>>>,
}

/// What the calls of one middleware see: without a router those of its `init`, with one those for its requests.
#[derive(Debug)]
pub(super) struct Scopes {
    space: Arc<Space>,
    middleware: Arc<Owner>,
    router: Option<Owner>,
}

/// What one plugin keeps. It lives as long as a middleware is made of the plugin, whatever version it has.
#[derive(Debug)]
struct Space {
    values: Table<Value>,
    buckets: Table<Bucket>,
    middlewares: Mutex<BTreeMap<Arc<str>, Weak<Owner>>>,
    last_owner: AtomicU64,
    began: Instant,
}

/// A middleware, or one on a router. What it has kept is dropped with it.
#[derive(Debug)]
struct Owner {
    space: Weak<Space>,
    id: u64,
}

/// The owner of what all uses of a plugin share.
const PLUGIN: u64 = 0;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Value {
    Bytes(Vec<u8>),
    Counter(i64),
}

/// So many tokens there were at a moment; fewer than none if some have been promised.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    tokens: f64,
    /// In nanoseconds since the space began.
    at: u64,
}

/// What a guest asks of a bucket.
#[derive(Clone, Copy, Debug)]
struct Ask {
    per_second: f64,
    burst: u32,
    cost: u32,
    max_wait_ms: u32,
}

impl Shared {
    /// Those of a middleware, which it has kept over reloads if it was there before.
    pub(super) fn of(&self, plugin: &Arc<str>, middleware: &Arc<str>) -> Scopes {
        let mut spaces = self.spaces.lock().unwrap_or_else(PoisonError::into_inner);
        let known = spaces.get(plugin).and_then(Weak::upgrade);
        let space = known.unwrap_or_else(|| {
            spaces.retain(|_, space| space.strong_count() > 0);
            let space = Arc::new(Space::new());
            spaces.insert(Arc::clone(plugin), Arc::downgrade(&space));
            space
        });
        let middleware = space.middleware(middleware);
        Scopes { space, middleware, router: None }
    }
}

impl Scopes {
    /// The same middleware on a router. What the router has kept ends with the answer.
    pub(super) fn on_router(&self) -> Self {
        let router = Some(self.space.owner());
        Self { space: Arc::clone(&self.space), middleware: Arc::clone(&self.middleware), router }
    }

    /// Who owns what is in a scope; `None` where there is no router.
    fn owner(&self, scope: Scope) -> Option<u64> {
        match scope {
            Scope::Plugin => Some(PLUGIN),
            Scope::Middleware => Some(self.middleware.id),
            Scope::Router => self.router.as_ref().map(|router| router.id),
        }
    }
}

impl Space {
    fn new() -> Self {
        Self {
            values: Table::new(VALUES),
            buckets: Table::new(BUCKETS),
            middlewares: Mutex::default(),
            last_owner: AtomicU64::new(PLUGIN),
            began: Instant::now(),
        }
    }

    fn middleware(self: &Arc<Self>, name: &Arc<str>) -> Arc<Owner> {
        let mut middlewares = self.middlewares.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = middlewares.get(name).and_then(Weak::upgrade) {
            return known;
        }
        middlewares.retain(|_, owner| owner.strong_count() > 0);
        let owner = Arc::new(self.owner());
        middlewares.insert(Arc::clone(name), Arc::downgrade(&owner));
        owner
    }

    /// A number is never given twice: a middleware that is removed and comes back finds nothing.
    fn owner(self: &Arc<Self>) -> Owner {
        let id = self.last_owner.fetch_add(1, Ordering::Relaxed) + 1;
        Owner { space: Arc::downgrade(self), id }
    }

    /// In nanoseconds since the space began.
    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn get(&self, key: &Key, now: u64) -> Option<Vec<u8>> {
        self.values.read(key, now, |value| match value {
            Value::Bytes(bytes) => bytes.clone(),
            Value::Counter(count) => count.to_string().into_bytes(),
        })
    }

    fn set(&self, key: Key, bytes: Vec<u8>, ttl_ms: Option<u64>, now: u64) {
        if ttl_ms == Some(0) {
            return self.values.remove(&key);
        }
        let size = bytes.len();
        self.values.put(key, Value::Bytes(bytes), size, expiry(ttl_ms, now), now);
    }

    /// `None` if something else is there.
    fn increment(&self, key: Key, by: i64, ttl_ms: Option<u64>, now: u64) -> Option<i64> {
        self.values.change(key, now, |value| match value {
            None if ttl_ms == Some(0) => (None, Some(by)),
            None => (Some((Value::Counter(by), expiry(ttl_ms, now))), Some(by)),
            Some((Value::Counter(count), expires)) => {
                let sum = count.saturating_add(by);
                (Some((Value::Counter(sum), expires)), Some(sum))
            }
            Some((Value::Bytes(_), _)) => (None, None),
        })
    }

    fn take(&self, key: Key, ask: Ask, now: u64) -> Result<u32, u64> {
        self.buckets.change(key, now, |bucket| {
            let bucket = bucket.map_or_else(|| Bucket { tokens: ask.burst.into(), at: now }, |(bucket, _)| *bucket);
            match bucket.take(&ask, now) {
                Ok((left, wait)) => (Some((left, left.full_at(&ask))), Ok(wait)),
                Err(wait) => (None, Err(wait)),
            }
        })
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        if let Some(space) = self.space.upgrade() {
            space.values.forget(self.id);
            space.buckets.forget(self.id);
        }
    }
}

fn expiry(ttl_ms: Option<u64>, now: u64) -> u64 {
    ttl_ms.map_or(NEVER, |ms| now.saturating_add(ms.saturating_mul(1_000_000)))
}

impl Ask {
    /// Tokens per second: what is no number or below zero is none, and there are no more than one each nanosecond.
    fn rate(&self) -> f64 {
        const RATE_AT_MOST: f64 = 1e9;
        if self.per_second > 0.0 { self.per_second.min(RATE_AT_MOST) } else { 0.0 }
    }
}

impl Bucket {
    /// What is left and how many milliseconds to wait for it, or after how many another try is worth it.
    fn take(self, ask: &Ask, now: u64) -> Result<(Self, u32), u64> {
        let (burst, cost, rate) = (f64::from(ask.burst), f64::from(ask.cost), ask.rate());
        if cost > burst {
            return Err(u64::MAX);
        }
        // Two workers may look at the clock in one order and come here in the other.
        let now = now.max(self.at);
        let tokens = (self.tokens + (now - self.at) as f64 / 1e9 * rate).min(burst);
        let missing = cost - tokens;
        let left = Self { tokens: tokens - cost, at: now };
        if missing <= 0.0 {
            return Ok((left, 0));
        }
        // Infinite where nothing comes: a float as an integer is then the largest.
        let wait_ms = (missing / rate * 1e3).ceil() as u64;
        match u32::try_from(wait_ms) {
            Ok(wait) if wait <= ask.max_wait_ms => Ok((left, wait)),
            _ if rate == 0.0 => Err(u64::MAX),
            _ => Err((wait_ms - u64::from(ask.max_wait_ms)).max(1)),
        }
    }

    /// From when on it is like one that nobody has taken from.
    fn full_at(&self, ask: &Ask) -> u64 {
        let nanoseconds = (f64::from(ask.burst) - self.tokens) / ask.rate() * 1e9;
        if nanoseconds.is_nan() { NEVER } else { self.at.saturating_add(nanoseconds.ceil() as u64) }
    }
}

impl State {
    /// Acts on a key in the scopes of the call, or in those of `init`.
    fn within<T>(&self, scope: Scope, name: String, act: impl FnOnce(&Space, Key) -> T) -> Result<T, Error> {
        let of_call = self.usage.as_ref().and_then(|usage| usage.scopes.get());
        let of_init = if of_call.is_none() { self.scopes.upgrade() } else { None };
        let Some(scopes) = of_call.or(of_init.as_deref()) else {
            return Err(error(ErrorKind::Denied, "use what is shared at this moment".to_owned()));
        };
        let Some(owner) = scopes.owner(scope) else {
            return Err(error(ErrorKind::NotFound, "find a router: there is none during `init`".to_owned()));
        };
        if name.len() > KEY_BYTES_AT_MOST {
            let message = format!("keep a key of {} bytes: at most {KEY_BYTES_AT_MOST} are allowed", name.len());
            return Err(error(ErrorKind::TooLarge, message));
        }
        Ok(act(&scopes.space, Key { owner, name }))
    }
}

impl shared::Host for State {
    fn get(&mut self, scope: Scope, key: String) -> Option<Vec<u8>> {
        self.within(scope, key, |space, key| space.get(&key, space.now())).ok()?
    }

    fn set(&mut self, scope: Scope, key: String, value: Vec<u8>, ttl_ms: Option<u64>) -> Result<(), Error> {
        if value.len() > VALUE_BYTES_AT_MOST {
            let message = format!("keep a value of {} bytes: at most {VALUE_BYTES_AT_MOST} are allowed", value.len());
            return Err(error(ErrorKind::TooLarge, message));
        }
        self.within(scope, key, |space, key| space.set(key, value, ttl_ms, space.now()))
    }

    fn increment(&mut self, scope: Scope, key: String, by: i64, ttl_ms: Option<u64>) -> Result<i64, Error> {
        let sum = self.within(scope, key, |space, key| space.increment(key, by, ttl_ms, space.now()))?;
        sum.ok_or_else(|| error(ErrorKind::Conflict, "count: the key holds something else".to_owned()))
    }

    /// Whoever cannot be counted may not pass.
    fn take(
        &mut self,
        scope: Scope,
        bucket: String,
        per_second: f64,
        burst: u32,
        cost: u32,
        max_wait_ms: u32,
    ) -> Result<u32, u64> {
        let ask = Ask { per_second, burst, cost, max_wait_ms };
        self.within(scope, bucket, |space, key| space.take(key, ask, space.now())).unwrap_or(Err(u64::MAX))
    }
}

fn error(kind: ErrorKind, message: String) -> Error {
    Error { kind, message, retry_after_ms: None }
}

#[cfg(test)]
mod tests;
