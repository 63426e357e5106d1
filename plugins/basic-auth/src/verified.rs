//! Credentials that were found right, kept as keyed hashes so that a request with them costs no password check. Holds
//! no secret that could be read back; what was wrong is never kept.

use std::collections::BTreeMap;
use std::hash::Hasher;
use std::ops::Bound;
use std::rc::Rc;

use siphasher::sip128::{Hasher128, SipHasher24};

/// Entries that are kept: users times routers, for most far fewer.
const CAPACITY: usize = 1024;

/// User names by the fingerprint of router and credentials.
pub(crate) struct Verified {
    keyed: SipHasher24,
    users: BTreeMap<u128, Rc<[u8]>>,
}

impl Verified {
    /// `key` is random and stays in this instance.
    pub(crate) fn new(key: u128) -> Self {
        let keyed = SipHasher24::new_with_keys((key >> 64) as u64, key as u64);
        Self { keyed, users: BTreeMap::new() }
    }

    /// SipHash-2-4 of the two, with the full 128 bits: who does not know the key cannot find two that collide.
    pub(crate) fn fingerprint(&self, router: &str, authorization: &[u8]) -> u128 {
        let mut hasher = self.keyed;
        // The length of the first says where the second begins.
        hasher.write(&(router.len() as u64).to_le_bytes());
        hasher.write(router.as_bytes());
        hasher.write(authorization);
        hasher.finish128().as_u128()
    }

    /// Whose credentials these are, if they were remembered.
    pub(crate) fn user(&self, fingerprint: u128) -> Option<Rc<[u8]>> {
        self.users.get(&fingerprint).map(Rc::clone)
    }

    /// Where there is no room, the next fingerprint in order goes: one by chance, since fingerprints are random.
    pub(crate) fn remember(&mut self, fingerprint: u128, user: Rc<[u8]>) {
        if self.users.len() >= CAPACITY {
            let after = (Bound::Excluded(fingerprint), Bound::Unbounded);
            let next = self.users.range(after).chain(self.users.range(..)).map(|(&victim, _)| victim).next();
            next.map(|victim| self.users.remove(&victim));
        }
        self.users.insert(fingerprint, user);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depends_on_key_router_and_credentials() {
        let fingerprint = |key, router, authorization| Verified::new(key).fingerprint(router, authorization);
        let base = fingerprint(1, "a", b"b".as_slice());
        assert_eq!(base, fingerprint(1, "a", b"b"));
        for other in
            [fingerprint(2, "a", b"b"), fingerprint(1, "b", b"b"), fingerprint(1, "a", b"c"), fingerprint(1, "", b"ab")]
        {
            assert_ne!(base, other);
        }
    }

    /// Two checks whose parts run together were once taken for one, and one user for another (CVE-2026-71326).
    #[test]
    fn parts_do_not_run_together() {
        let parts = ["", "a", "b", "ab", "bc", "abc", "\0", "a\0", "\0b", "a\0b", "\x01\0\0\0\0\0\0\0a"];
        let verified = Verified::new(1);
        let mut seen = BTreeMap::new();
        for router in parts {
            for authorization in parts {
                let before =
                    seen.insert(verified.fingerprint(router, authorization.as_bytes()), (router, authorization));
                assert_eq!(before, None, "{router:?} {authorization:?}");
            }
        }
    }

    #[test]
    fn stays_within_its_room() {
        let mut verified = Verified::new(1);
        for number in 0..u128::try_from(3 * CAPACITY).expect("small") {
            verified.remember(number << 64, Rc::from(b"bob".as_slice()));
            assert!(verified.user(number << 64).is_some());
        }
        assert_eq!(verified.users.len(), CAPACITY);
    }
}
