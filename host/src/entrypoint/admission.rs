//! Who is let in: so many connections in all, so many of one client, and no more requests when memory runs out.
//!
//! `server` makes one for all workers and tells it how much memory is left. It never ends what has been let in.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How short memory or connections are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pressure {
    None,
    /// Connections end after the responses that they owe.
    High,
    /// Requests are refused.
    Critical,
}

pub struct Admission {
    at_most: usize,
    free: Arc<Semaphore>,
    clients: Option<Clients>,
    pressure: AtomicU8,
}

/// How many connections each client has.
struct Clients {
    at_most: usize,
    open: Mutex<HashMap<IpAddr, usize>>,
}

/// A connection that was let in, for as long as it is kept.
pub(super) struct Ticket {
    _permit: OwnedSemaphorePermit,
    client: Option<(Arc<Admission>, IpAddr)>,
}

pub(super) enum Decision {
    LetIn(Ticket),
    /// The client has as many connections as it may.
    Refused,
    /// Nobody is let in until another connection ends.
    Full,
}

impl Admission {
    pub fn new(connections: Option<usize>, of_a_client: Option<usize>) -> Arc<Self> {
        let at_most = connections.unwrap_or(Semaphore::MAX_PERMITS).min(Semaphore::MAX_PERMITS);
        Arc::new(Self {
            at_most,
            free: Arc::new(Semaphore::new(at_most)),
            clients: of_a_client.map(|at_most| Clients { at_most, open: Mutex::default() }),
            pressure: AtomicU8::new(Pressure::None as u8),
        })
    }

    pub fn press(&self, pressure: Pressure) {
        self.pressure.store(pressure as u8, Ordering::Relaxed);
    }

    /// Connections that are open now.
    pub fn open(&self) -> usize {
        self.at_most - self.free.available_permits()
    }

    /// Whether nine in ten connections are taken.
    pub fn is_nearly_full(&self) -> bool {
        self.free.available_permits() <= self.at_most / 10
    }

    pub(super) fn is_pressed(&self) -> bool {
        self.pressure.load(Ordering::Relaxed) >= Pressure::High as u8
    }

    pub(super) fn refuses_requests(&self) -> bool {
        self.pressure.load(Ordering::Relaxed) >= Pressure::Critical as u8
    }

    pub(super) fn decide(self: &Arc<Self>, client: IpAddr) -> Decision {
        let Ok(permit) = Arc::clone(&self.free).try_acquire_owned() else { return Decision::Full };
        self.ticket(permit, client).map_or(Decision::Refused, Decision::LetIn)
    }

    /// Waits for another connection to end; `None` if the client has as many as it may.
    pub(super) async fn wait(self: &Arc<Self>, client: IpAddr) -> Option<Ticket> {
        let permit = Arc::clone(&self.free).acquire_owned().await.expect("the semaphore is never closed");
        self.ticket(permit, client)
    }

    fn ticket(self: &Arc<Self>, permit: OwnedSemaphorePermit, client: IpAddr) -> Option<Ticket> {
        let Some(clients) = &self.clients else {
            return Some(Ticket { _permit: permit, client: None });
        };
        let client = one_client(client);
        let mut open = clients.open.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(client).or_default();
        if *count >= clients.at_most {
            return None;
        }
        *count += 1;
        Some(Ticket { _permit: permit, client: Some((Arc::clone(self), client)) })
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let Some((admission, client)) = &self.client else { return };
        let Some(clients) = &admission.clients else { return };
        let mut open = clients.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(client) {
            *count -= 1;
            if *count == 0 {
                open.remove(client);
            }
        }
    }
}

/// A client of IPv6 has a network of 64 bits to choose its addresses from.
fn one_client(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decide(admission: &Arc<Admission>, client: &str) -> Decision {
        admission.decide(client.parse().expect("an address"))
    }

    #[test]
    fn so_many_connections_and_no_more() {
        let admission = Admission::new(Some(2), None);
        let first = decide(&admission, "192.0.2.1");
        let second = decide(&admission, "192.0.2.1");
        assert!(matches!((&first, &second), (Decision::LetIn(_), Decision::LetIn(_))));
        assert_eq!(admission.open(), 2);
        assert!(matches!(decide(&admission, "192.0.2.2"), Decision::Full));
        drop(first);
        assert!(matches!(decide(&admission, "192.0.2.2"), Decision::LetIn(_)), "and let go again");
        assert_eq!(admission.open(), 1);
    }

    #[test]
    fn so_many_connections_of_one_client() {
        let admission = Admission::new(None, Some(1));
        for (client, same) in [
            ("192.0.2.1", "::ffff:192.0.2.1"),
            ("2001:db8::1", "2001:db8:0:0:ffff::2"),
            ("2001:db8:0:1::1", "2001:db8:0:1::1"),
        ] {
            let first = decide(&admission, client);
            assert!(matches!(first, Decision::LetIn(_)), "{client}");
            assert!(matches!(decide(&admission, same), Decision::Refused), "{same}");
            drop(first);
            assert!(matches!(decide(&admission, same), Decision::LetIn(_)), "{same}");
        }
        assert_eq!(admission.open(), 0);
        let clients = admission.clients.as_ref().expect("there is a limit");
        assert!(clients.open.lock().expect("no panic").is_empty(), "nobody is remembered");
    }

    #[test]
    fn pressure_comes_and_goes() {
        let admission = Admission::new(Some(1), None);
        for (pressure, is_pressed, refuses) in
            [(Pressure::Critical, true, true), (Pressure::High, true, false), (Pressure::None, false, false)]
        {
            admission.press(pressure);
            assert_eq!((admission.is_pressed(), admission.refuses_requests()), (is_pressed, refuses), "{pressure:?}");
        }
    }
}
