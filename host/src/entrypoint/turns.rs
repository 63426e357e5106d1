//! How much the streams of an HTTP/2 connection may hold at a time: who opens hundreds and takes no response has most of
//! them wait before anything is done for them.
//!
//! A stream whose request is at a server costs many times what one costs that waits, and a client that keeps its window
//! closed could hold all of them. So a connection has room for a few, and for more with what its client takes of
//! responses. Where the server is what takes long, streams wait for a moment only. `stream` calls it; it refuses no request.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

/// What a request holds besides its fields, in KiB: buffers of the connection to its server, above all.
const OF_A_REQUEST: usize = 32;

/// What all requests of a connection may hold before its client has taken anything, in KiB.
const AT_FIRST: usize = 128;

/// What a piece of a response counts for at least, in bytes.
const PIECE: usize = 256;

/// What they may hold when it has taken much.
const AT_MOST: usize = 64 << 10;

/// So many streams of a client that takes nothing may wait.
const WAITING_AT_MOST: usize = 100;

/// Each time that streams have waited for so long there is made as much room again, unless their client is what they wait
/// for. Room for all of them at once would let everything in before it shows whether the client takes anything.
pub(super) const PATIENCE: Duration = Duration::from_millis(50);

/// The room of one connection.
pub(super) struct Turns {
    room: Arc<Semaphore>,
    /// KiB in all, in use or not.
    size: Cell<usize>,
    /// Bytes of responses.
    taken: Cell<u64>,
    /// KiB of streams whose responses wait for the client.
    stalled: Cell<usize>,
    /// Streams that wait for room.
    waiting: Cell<usize>,
    /// When room was made for streams that waited for a server.
    doubled: Cell<Option<Instant>>,
}

/// The room that a stream takes, for as long as it is there.
pub(super) type Turn = OwnedSemaphorePermit;

impl Turns {
    pub(super) fn new() -> Self {
        Self {
            room: Arc::new(Semaphore::new(AT_FIRST)),
            size: Cell::new(AT_FIRST),
            taken: Cell::new(0),
            stalled: Cell::new(0),
            waiting: Cell::new(0),
            doubled: Cell::new(None),
        }
    }

    /// The client has made room for so many bytes of a response, of which even a small piece counts.
    pub(super) fn takes(&self, bytes: usize) {
        let before = self.taken.replace(self.taken.get() + bytes.max(PIECE) as u64);
        let more = usize::try_from((self.taken.get() >> 10) - (before >> 10)).unwrap_or(AT_MOST);
        self.grow(more);
    }

    /// A server is what streams wait for.
    pub(super) fn double(&self, now: Instant) {
        if self.doubled.get().is_none_or(|before| now >= before + PATIENCE) {
            self.doubled.set(Some(now));
            self.grow(self.size.get());
        }
    }

    fn grow(&self, more: usize) {
        let more = more.min(AT_MOST.saturating_sub(self.size.get()));
        if more > 0 {
            self.size.set(self.size.get() + more);
            self.room.add_permits(more);
        }
    }

    /// How many bytes of responses the client has taken.
    pub(super) const fn taken(&self) -> u64 {
        self.taken.get()
    }

    /// A response begins to wait for the client, or waits no longer.
    pub(super) fn stalls(&self, room: usize, stalls: bool) {
        let stalled = self.stalled.get();
        self.stalled.set(if stalls { stalled + room } else { stalled - room });
    }

    /// Whether the client is what the streams wait for.
    pub(super) const fn is_held_up(&self) -> bool {
        self.stalled.get() * 2 > self.size.get()
    }

    /// A stream begins to wait for room, or waits no longer.
    pub(super) fn waits(&self, waits: bool) {
        let waiting = self.waiting.get();
        self.waiting.set(if waits { waiting + 1 } else { waiting - 1 });
    }

    /// Whether more streams wait for the client than may.
    pub(super) const fn are_too_many(&self) -> bool {
        self.is_held_up() && self.waiting.get() > WAITING_AT_MOST
    }

    /// Takes room where there is some at once.
    pub(super) fn take(&self, room: usize) -> Option<Turn> {
        Arc::clone(&self.room).try_acquire_many_owned(permits(room)).ok()
    }

    /// Waits for room, behind those that have waited longer.
    pub(super) async fn wait(&self, room: usize) -> Option<Turn> {
        Arc::clone(&self.room).acquire_many_owned(permits(room)).await.ok()
    }
}

fn permits(room: usize) -> u32 {
    u32::try_from(room).unwrap_or(u32::MAX)
}

/// The room for a request with these fields, in KiB. Of a client's head they may be copies of one field that cost nothing
/// yet; what is sent to a server has them all.
pub(super) fn room_for(headers: &HeaderMap) -> usize {
    let fields: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 32).sum();
    (OF_A_REQUEST + (fields >> 10)).min(AT_FIRST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_won_by_taking_responses() {
        let turns = Turns::new();
        let many = AT_FIRST / OF_A_REQUEST;
        let first: Vec<Turn> = (0..many).filter_map(|_| turns.take(OF_A_REQUEST)).collect();
        assert_eq!(first.len(), many);
        assert!(turns.take(OF_A_REQUEST).is_none());
        for _ in 0..OF_A_REQUEST {
            turns.takes(1000);
        }
        assert!(turns.take(OF_A_REQUEST).is_none(), "32,000 bytes are no 32 KiB");
        turns.takes(768);
        let after_32_kib = turns.take(OF_A_REQUEST);
        assert!(after_32_kib.is_some() && turns.take(OF_A_REQUEST).is_none());
        for _ in 0..OF_A_REQUEST * 1024 / PIECE {
            turns.takes(1);
        }
        assert!(turns.take(OF_A_REQUEST).is_some());
        turns.takes(1 << 40);
        assert_eq!(turns.size.get(), AT_MOST);
    }

    #[test]
    fn room_is_doubled_now_and_then_where_servers_are_slow() {
        let (turns, now) = (Turns::new(), Instant::now());
        for after in [0, 1, 49, 50, 99] {
            turns.double(now + Duration::from_millis(after));
        }
        assert_eq!(turns.size.get(), 4 * AT_FIRST);
    }

    #[test]
    fn a_client_that_takes_nothing_is_what_is_waited_for() {
        let turns = Turns::new();
        assert!(!turns.is_held_up());
        turns.stalls(AT_FIRST / 2 + 1, true);
        assert!(turns.is_held_up());
        turns.takes(4096);
        assert!(!turns.is_held_up());
        (0..=WAITING_AT_MOST).for_each(|_| turns.waits(true));
        assert!(!turns.are_too_many());
        turns.stalls(4096, true);
        assert!(turns.are_too_many());
        turns.waits(false);
        assert!(!turns.are_too_many());
    }

    #[test]
    fn large_heads_take_more_room() {
        let mut headers = HeaderMap::new();
        assert_eq!(room_for(&headers), OF_A_REQUEST);
        headers.insert("x-a", "x".repeat(10 << 10).parse().expect("a field value"));
        assert_eq!(room_for(&headers), OF_A_REQUEST + 10);
        headers.insert("x-b", "x".repeat(1 << 20).parse().expect("a field value"));
        assert_eq!(room_for(&headers), AT_FIRST);
    }
}
