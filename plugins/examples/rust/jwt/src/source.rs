//! Where keys are: in this instance, in the state that all instances share, or at their address. Asks the address as seldom
//! as it can, and never lets tokens with invented keys make it ask more often.

use std::cell::RefCell;

use weir_sdk::fetch::{self, Request};
use weir_sdk::log::{self, Level};

use crate::keys::{Key, Keys};
use crate::token::Token;

/// Requests for keys that may come at once; then there is one in ten seconds, whatever comes.
const FETCHES_AT_ONCE: u32 = 2;
const FETCH_TIMEOUT_MS: u32 = 5000;
/// What `shared` takes, without the time before it.
const JWKS_BYTES_AT_MOST: u32 = 60 << 10;

/// The keys behind one address.
pub struct Source {
    url: String,
    /// Seconds after which keys are fetched again.
    refresh: u64,
    here: RefCell<Option<Fetched>>,
}

struct Fetched {
    at: u64,
    keys: Keys,
}

/// There are no keys, and so nothing can be said of a token.
#[derive(Debug)]
pub struct Unavailable;

impl Source {
    pub const fn new(url: String, refresh: u64) -> Self {
        Self { url, refresh, here: RefCell::new(None) }
    }

    /// The key of the token, if there is one. A key that is not known may be new: then the keys are fetched again.
    pub fn key(&self, token: &Token, now: u64) -> Result<Option<Key>, Unavailable> {
        if let Some(key) = self.find(token, now) {
            return Ok(Some(key));
        }
        self.take_shared();
        if let Some(key) = self.find(token, now) {
            return Ok(Some(key));
        }
        self.fetch(now);
        // Keys that could not be fetched again are better than none.
        let here = self.here.borrow();
        let keys = &here.as_ref().ok_or(Unavailable)?.keys;
        Ok(keys.of(token).cloned())
    }

    fn find(&self, token: &Token, now: u64) -> Option<Key> {
        let here = self.here.borrow();
        let fetched = here.as_ref()?;
        let is_fresh = now.saturating_sub(fetched.at) < self.refresh;
        if is_fresh { fetched.keys.of(token).cloned() } else { None }
    }

    /// Another instance may have fetched them.
    fn take_shared(&self) {
        let Some((at, keys)) = store::read().as_deref().and_then(|bytes| {
            let (at, jwks) = bytes.split_first_chunk()?;
            Some((u64::from_be_bytes(*at), Keys::parse(jwks)?))
        }) else {
            return;
        };
        let mut here = self.here.borrow_mut();
        if here.as_ref().is_none_or(|known| known.at < at) {
            *here = Some(Fetched { at, keys });
        }
    }

    fn fetch(&self, now: u64) {
        if !store::may_fetch() {
            return;
        }
        match self.ask() {
            Ok((jwks, keys)) => {
                store::write(&[&now.to_be_bytes(), jwks.as_slice()].concat());
                *self.here.borrow_mut() = Some(Fetched { at: now, keys });
            }
            Err(problem) => log::write(Level::Warn, &format!("failed to fetch the keys: {problem}"), &[]),
        }
    }

    fn ask(&self) -> Result<(Vec<u8>, Keys), String> {
        let request = Request::new("GET", &*self.url).header("accept", "application/json");
        let request = request.timeout_ms(FETCH_TIMEOUT_MS).max_body(JWKS_BYTES_AT_MOST);
        let response = fetch::send(&request).map_err(|error| error.message)?;
        if response.status != 200 {
            return Err(format!("the answer has status {}", response.status));
        }
        let keys = Keys::parse(&response.body).ok_or("the answer has no key that can be used")?;
        Ok((response.body, keys))
    }
}

/// The state that all instances of one configured middleware share.
mod store {
    use weir_sdk::shared::{self, Scope};

    use super::FETCHES_AT_ONCE;

    const KEY: &str = "jwks";
    const FETCHES_PER_SECOND: f64 = 0.1;

    pub fn read() -> Option<Vec<u8>> {
        shared::get(Scope::Middleware, KEY)
    }

    /// Without room for it each instance has keys of its own.
    pub fn write(value: &[u8]) {
        let _ = shared::set(Scope::Middleware, KEY, value, None);
    }

    pub fn may_fetch() -> bool {
        shared::take(Scope::Middleware, "fetch", FETCHES_PER_SECOND, FETCHES_AT_ONCE, 1, 0).is_ok()
    }
}
