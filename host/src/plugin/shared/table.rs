//! A bounded table with times to live, which all workers read and change.
//!
//! `shared` has two for each plugin. Keys are spread over shards, each behind a lock that is held for the time of one change.
//! It never looks at a clock: whoever calls says what time it is.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The time at which nothing expires.
pub(super) const NEVER: u64 = u64::MAX;

/// What an entry is counted for beside its name and value.
const OVERHEAD: usize = 128;

const SHARDS: usize = 16;

/// What a table may hold at most; more makes room by dropping what expires next, and then what was changed longest ago.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) entries: usize,
    pub(super) bytes: usize,
}

#[derive(Debug)]
pub(super) struct Table<V> {
    shards: [Mutex<Shard<V>>; SHARDS],
    hasher: RandomState,
    limits: Limits,
    /// Of all shards.
    entries: AtomicUsize,
    bytes: AtomicUsize,
    changes: AtomicUsize,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) owner: u64,
    pub(super) name: String,
}

#[derive(Debug)]
struct Shard<V> {
    entries: HashMap<Key, Entry<V>>,
    /// What goes first comes first.
    order: BTreeMap<Rank, Key>,
}

#[derive(Debug)]
struct Entry<V> {
    value: V,
    bytes: usize,
    rank: Rank,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    expires: u64,
    /// The how-manieth change of the table.
    change: usize,
}

impl<V> Table<V> {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            shards: std::array::from_fn(|_| Mutex::new(Shard::default())),
            hasher: RandomState::new(),
            limits,
            entries: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            changes: AtomicUsize::new(0),
        }
    }

    pub(super) fn read<T>(&self, key: &Key, now: u64, read: impl FnOnce(&V) -> T) -> Option<T> {
        let shard = self.shard(key);
        shard.entries.get(key).filter(|entry| entry.rank.expires > now).map(|entry| read(&entry.value))
    }

    /// Puts a value of so many bytes in the place of any other.
    pub(super) fn put(&self, key: Key, value: V, bytes: usize, expires: u64, now: u64) {
        let mut shard = self.shard(&key);
        self.drop_expired(&mut shard, now);
        self.insert(shard, key, Entry { value, bytes, rank: self.rank(expires) });
    }

    /// Changes a small value, which `change` gets with the time it expires: `None` in the place of the new one leaves it
    /// as it is. Nobody else comes in between.
    pub(super) fn change<T>(
        &self,
        key: Key,
        now: u64,
        change: impl FnOnce(Option<(&V, u64)>) -> (Option<(V, u64)>, T),
    ) -> T {
        let mut shard = self.shard(&key);
        let known = shard.entries.get(&key).filter(|entry| entry.rank.expires > now);
        let (changed, answer) = change(known.map(|entry| (&entry.value, entry.rank.expires)));
        if let Some((value, expires)) = changed {
            self.drop_expired(&mut shard, now);
            self.insert(shard, key, Entry { value, bytes: 0, rank: self.rank(expires) });
        }
        answer
    }

    pub(super) fn remove(&self, key: &Key) {
        self.take_out(&mut self.shard(key), key);
    }

    /// Drops all that somebody owns.
    pub(super) fn forget(&self, owner: u64) {
        for shard in &self.shards {
            let mut shard = lock(shard);
            let keys: Vec<Key> = shard.entries.keys().filter(|key| key.owner == owner).cloned().collect();
            for key in keys {
                self.take_out(&mut shard, &key);
            }
        }
    }

    /// Keeps the number of what nobody can see any more small, without ever taking long.
    fn drop_expired(&self, shard: &mut Shard<V>, now: u64) {
        const AT_ONCE: usize = 4;
        for _ in 0..AT_ONCE {
            let Some(key) = shard.order.first_key_value().filter(|(rank, _)| rank.expires <= now).map(|(_, key)| key)
            else {
                return;
            };
            let key = key.clone();
            self.take_out(shard, &key);
        }
    }

    fn insert(&self, mut guard: MutexGuard<'_, Shard<V>>, key: Key, entry: Entry<V>) {
        let shard = &mut *guard;
        let rank = entry.rank;
        self.bytes.fetch_add(size(&key, &entry), Ordering::Relaxed);
        if let Some(known) = shard.entries.get_mut(&key) {
            self.bytes.fetch_sub(size(&key, known), Ordering::Relaxed);
            let name = shard.order.remove(&known.rank).unwrap_or(key);
            shard.order.insert(rank, name);
            *known = entry;
        } else {
            self.entries.fetch_add(1, Ordering::Relaxed);
            shard.order.insert(rank, key.clone());
            shard.entries.insert(key, entry);
        }
        drop(guard);
        self.make_room(rank);
    }

    /// Drops others than `kept`, which is new, until all is within the limits.
    fn make_room(&self, kept: Rank) {
        let is_over = || {
            self.entries.load(Ordering::Relaxed) > self.limits.entries
                || self.bytes.load(Ordering::Relaxed) > self.limits.bytes
        };
        while is_over() {
            // Between the look and the removal others may come in: then something else goes, which is as good.
            let first = self.shards.iter().filter_map(|shard| Some((lock(shard).first_but(kept)?, shard)));
            let Some((rank, shard)) = first.min_by_key(|(rank, _)| *rank) else { return };
            let mut shard = lock(shard);
            if let Some(key) = shard.order.get(&rank).cloned() {
                self.take_out(&mut shard, &key);
            }
        }
    }

    fn take_out(&self, shard: &mut Shard<V>, key: &Key) {
        if let Some(entry) = shard.entries.remove(key) {
            shard.order.remove(&entry.rank);
            self.entries.fetch_sub(1, Ordering::Relaxed);
            self.bytes.fetch_sub(size(key, &entry), Ordering::Relaxed);
        }
    }

    fn rank(&self, expires: u64) -> Rank {
        Rank { expires, change: self.changes.fetch_add(1, Ordering::Relaxed) }
    }

    fn shard(&self, key: &Key) -> MutexGuard<'_, Shard<V>> {
        lock(&self.shards[self.hasher.hash_one(key) as usize % SHARDS])
    }
}

impl<V> Shard<V> {
    fn first_but(&self, kept: Rank) -> Option<Rank> {
        self.order.keys().find(|rank| **rank != kept).copied()
    }
}

impl<V> Default for Shard<V> {
    fn default() -> Self {
        Self { entries: HashMap::new(), order: BTreeMap::new() }
    }
}

fn size<V>(key: &Key, entry: &Entry<V>) -> usize {
    OVERHEAD + key.name.len() + entry.bytes
}

fn lock<V>(shard: &Mutex<Shard<V>>) -> MutexGuard<'_, Shard<V>> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn key(name: &str) -> Key {
        Key { owner: 1, name: name.to_owned() }
    }

    fn table(entries: usize, bytes: usize) -> Table<u32> {
        Table::new(Limits { entries, bytes })
    }

    fn left(table: &Table<u32>, now: u64) -> Vec<u32> {
        (0..100).filter_map(|number| table.read(&key(&number.to_string()), now, |value| *value)).collect()
    }

    #[test]
    fn what_expires_next_makes_room_and_then_what_is_oldest() {
        let table = table(4, usize::MAX);
        for (number, expires) in [(0, NEVER), (1, 20 * SECOND), (2, 10 * SECOND), (3, NEVER)] {
            table.put(key(&number.to_string()), number, 0, expires, 0);
        }
        for (number, expected) in [(4, [0, 1, 3, 4]), (5, [0, 3, 4, 5]), (6, [3, 4, 5, 6]), (7, [4, 5, 6, 7])] {
            table.put(key(&number.to_string()), number, 0, NEVER, 0);
            assert_eq!(left(&table, 0), expected, "after {number}");
        }
    }

    #[test]
    fn what_is_new_stays_although_it_expires_first() {
        let table = table(2, usize::MAX);
        for number in 0..10 {
            table.put(key(&number.to_string()), number, 0, SECOND, 0);
            assert!(left(&table, 0).contains(&number), "{number}");
            assert!(left(&table, 0).len() <= 2, "{number}");
        }
    }

    #[test]
    fn bytes_are_counted_and_given_back() {
        let each = OVERHEAD + 1 + 1000;
        let table = table(usize::MAX, 3 * each);
        for number in 0..9 {
            table.put(key(&number.to_string()), number, 1000, NEVER, 0);
        }
        assert_eq!(left(&table, 0), [6, 7, 8]);
        assert_eq!(table.bytes.load(Ordering::Relaxed), 3 * each);
        table.put(key("7"), 7, 10, NEVER, 0);
        table.remove(&key("8"));
        assert_eq!(table.bytes.load(Ordering::Relaxed), each + OVERHEAD + 1 + 10);
        table.forget(1);
        assert_eq!((table.bytes.load(Ordering::Relaxed), table.entries.load(Ordering::Relaxed)), (0, 0));
        assert!(table.shards.iter().all(|shard| lock(shard).order.is_empty()));
    }

    #[test]
    fn what_has_expired_is_neither_seen_nor_kept_for_long() {
        let table = table(10_000, usize::MAX);
        for number in 0..1000 {
            table.put(key(&number.to_string()), number, 0, SECOND, 0);
        }
        assert_eq!(left(&table, SECOND - 1).len(), 100);
        assert_eq!(left(&table, SECOND).len(), 0);
        for number in 1000..2000 {
            table.put(key(&number.to_string()), number, 0, 2 * SECOND, SECOND);
        }
        assert!(table.entries.load(Ordering::Relaxed) < 1100, "{:?}", table.entries);
    }
}
