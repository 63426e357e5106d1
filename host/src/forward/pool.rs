//! The idle connections of a worker, by server.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::sender::Sender;
use super::{Upstream, pinned};
use crate::http::Connection;

/// The idle connections of one worker. Never locked: a worker is one thread.
pub struct Pools {
    idle: RefCell<BTreeMap<u64, Vec<Idle>>>,
    pub(super) pins: pinned::Pins,
    /// The time when [`Pools::prune`] was called last: idle times need not be more exact.
    now: Cell<Instant>,
}

struct Idle {
    sender: Sender,
    since: Instant,
    timeout: Option<Duration>,
}

/// Where in a pool a connection goes back to: what would otherwise keep the upstream itself.
#[derive(Clone, Copy)]
pub(super) struct Place {
    upstream: u64,
    connections_at_most: usize,
    timeout: Option<Duration>,
}

impl Place {
    pub(super) fn of(upstream: &Upstream) -> Self {
        let transport = &upstream.transport;
        Self {
            upstream: upstream.id,
            connections_at_most: transport.idle_connections_at_most,
            timeout: transport.idle_timeout,
        }
    }
}

impl Default for Pools {
    fn default() -> Self {
        Self { idle: RefCell::default(), pins: pinned::Pins::default(), now: Cell::new(Instant::now()) }
    }
}

impl Pools {
    /// Closes connections that have been idle for longer than their transport allows. To be called every second.
    pub fn prune(&self) {
        let now = Instant::now();
        self.now.set(now);
        self.idle.borrow_mut().retain(|_, idle| {
            idle.retain(|idle| idle.is_alive(now));
            !idle.is_empty()
        });
    }

    /// Whether a client's connection is bound to this server, by a login that holds for a connection.
    pub fn binds(&self, client: &Arc<Connection>, upstream: &Upstream) -> bool {
        self.pins.is_bound(client, upstream)
    }

    /// Closes what was kept for a client's connection. To be called when it has ended.
    pub fn forget(&self, client: &Arc<Connection>) {
        self.pins.forget(client);
    }

    /// Whether [`Pools::take`] would find a connection.
    pub fn has_idle(&self, upstream: &Upstream) -> bool {
        let pools = self.idle.borrow();
        pools.get(&upstream.id).is_some_and(|idle| idle.iter().rev().any(|idle| idle.is_alive(self.now.get())))
    }

    pub(super) fn take(&self, upstream: &Upstream) -> Option<Sender> {
        let mut pools = self.idle.borrow_mut();
        let idle = pools.get_mut(&upstream.id)?;
        while let Some(newest) = idle.pop() {
            if !newest.is_alive(self.now.get()) {
                continue;
            }
            // Streams of one HTTP/2 connection share it: it stays for the next request.
            if let Sender::Http2(sender) = &newest.sender {
                let sender = Sender::Http2(sender.clone());
                idle.push(Idle { since: self.now.get(), ..newest });
                return Some(sender);
            }
            return Some(newest.sender);
        }
        None
    }

    /// Leaves a connection of HTTP/2 for other requests to use beside this one.
    pub(super) fn share(&self, place: Place, sender: Sender) {
        if self.idle.borrow().get(&place.upstream).is_none_or(Vec::is_empty) {
            self.put(place, sender);
        }
    }

    /// Takes a connection back. One whose request is still being sent, or on which more came than the response, ends here.
    pub(super) fn put(&self, place: Place, sender: Sender) {
        if !sender.is_ready() {
            return;
        }
        let mut pools = self.idle.borrow_mut();
        let idle = pools.entry(place.upstream).or_default();
        if idle.len() < place.connections_at_most {
            idle.push(Idle { sender, since: self.now.get(), timeout: place.timeout });
        }
    }
}

impl Idle {
    fn is_alive(&self, now: Instant) -> bool {
        let idle_for = now.saturating_duration_since(self.since);
        !self.sender.is_closed() && self.timeout.is_none_or(|timeout| idle_for < timeout)
    }
}
