//! Connections to servers that belong to one client's connection. NTLM and Negotiate (RFC 4559) log in a connection and
//! not a request: whoever sends the next request on it is taken for the same user.
//!
//! A request with such credentials, and every later one of the same client's connection to the same server, goes by a
//! connection of their own. It is never in a pool, before or after, and is closed with the client's. Requests of HTTP/2
//! clients wait for one another there; a websocket uses it up.

use std::cell::RefCell;
use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;

use http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, StatusCode};
use hyper::body::Incoming;
use tokio::sync::{Mutex, OwnedMutexGuard};

use super::sender::{Sender, Sent};
use super::{Upstream, answer, dial, failure, is_stale, repeatable, send_on, upgrade, with_header_timeout};
use crate::http::{Body, Connection, Failure, Response};

/// The schemes that log in connections.
const SCHEMES: [&[u8]; 2] = [b"NTLM", b"Negotiate"];

/// The pinned connections of one worker, by the connections of its clients. Each of those calls [`Pins::forget`] before
/// its address can be another's.
#[derive(Default)]
pub(super) struct Pins(RefCell<HashMap<*const Connection, Vec<Pin>>>);

struct Pin {
    upstream: u64,
    line: Line,
}

/// A connection to a server, or the place of one that has been lost. Whoever holds it has it for themselves.
#[derive(Clone, Default)]
pub(super) struct Line(Arc<Mutex<Option<Sender>>>);

/// A line while one exchange lasts, to the end of the response's body.
pub(super) struct Held(OwnedMutexGuard<Option<Sender>>);

impl Pins {
    /// The line that a request must go by, if it must.
    pub(super) fn line(&self, client: &Arc<Connection>, upstream: &Upstream, headers: &HeaderMap) -> Option<Line> {
        if let Some(line) = self.find(client, upstream) {
            return Some(line);
        }
        headers.get_all(AUTHORIZATION).iter().any(logs_in_connections).then(|| self.pin(client, upstream))
    }

    /// Whether the client's handshake or login with this server would be lost with another one.
    pub(super) fn is_bound(&self, client: &Arc<Connection>, upstream: &Upstream) -> bool {
        self.find(client, upstream).is_some_and(|line| match line.0.try_lock() {
            Ok(sender) => sender.as_ref().is_some_and(|sender| !sender.is_closed()),
            Err(_) => true,
        })
    }

    /// A line for the connection on which the server has just asked for a login, if it has. One of HTTP/2 cannot be used.
    pub(super) fn challenged(
        &self,
        client: &Arc<Connection>,
        upstream: &Upstream,
        response: &http::Response<Incoming>,
    ) -> Option<Held> {
        let asks = response.status() == StatusCode::UNAUTHORIZED
            && response.headers().get_all(WWW_AUTHENTICATE).iter().any(logs_in_connections);
        if !asks {
            return None;
        }
        // Another stream of the client may have been asked at the same time: then this connection ends with its response.
        let line = if self.find(client, upstream).is_some() { Line::default() } else { self.pin(client, upstream) };
        line.0.try_lock_owned().ok().map(Held)
    }

    /// The client's connection has ended.
    pub(super) fn forget(&self, client: &Arc<Connection>) {
        let mut pins = self.0.borrow_mut();
        if !pins.is_empty() {
            pins.remove(&Arc::as_ptr(client));
        }
    }

    fn find(&self, client: &Arc<Connection>, upstream: &Upstream) -> Option<Line> {
        let pins = self.0.borrow();
        if pins.is_empty() {
            return None;
        }
        let pin = pins.get(&Arc::as_ptr(client))?.iter().find(|pin| pin.upstream == upstream.id)?;
        Some(pin.line.clone())
    }

    fn pin(&self, client: &Arc<Connection>, upstream: &Upstream) -> Line {
        let line = Line::default();
        let pin = Pin { upstream: upstream.id, line: line.clone() };
        self.0.borrow_mut().entry(Arc::as_ptr(client)).or_default().push(pin);
        line
    }
}

/// Sends on the client's own connection. One that has been lost is replaced by a new one and never by one of the pool:
/// the server will ask for a login again.
pub(super) async fn send(
    line: Line,
    upstream: &Upstream,
    mut request: http::Request<Body>,
    upgrade: Option<upgrade::Requested>,
) -> Result<Response, Failure> {
    let mut held = Held(line.0.lock_owned().await);
    if let Some(mut sender) = held.0.take().filter(Sender::is_ready) {
        let again = repeatable(&request);
        match exchange(&mut sender, upstream, request, upgrade.is_some()).await? {
            Ok(response) => return held.answered(sender, response, upgrade),
            Err((error, unsent)) => match unsent.or_else(|| again.filter(|_| is_stale(&error) && sender.is_silent())) {
                Some(unanswered) => request = unanswered,
                None => return Err(failure(error)),
            },
        }
    }
    let mut sender = dial::connect(upstream, dial::Purpose::Pinned).await?;
    match exchange(&mut sender, upstream, request, upgrade.is_some()).await? {
        Ok(response) => held.answered(sender, response, upgrade),
        Err((error, _)) => Err(failure(error)),
    }
}

async fn exchange(
    sender: &mut Sender,
    upstream: &Upstream,
    request: http::Request<Body>,
    is_upgrade: bool,
) -> Result<Sent, Failure> {
    if is_upgrade {
        sender.announce_websocket();
    }
    with_header_timeout(upstream, pin!(send_on(sender, upstream, request))).await
}

impl Held {
    fn answered(
        self,
        sender: Sender,
        response: http::Response<Incoming>,
        upgrade: Option<upgrade::Requested>,
    ) -> Result<Response, Failure> {
        match upgrade {
            Some(upgrade) if response.status() == StatusCode::SWITCHING_PROTOCOLS => upgrade::finish(upgrade, response),
            _ => self.received(sender, response),
        }
    }

    /// The response for the client, whose body gives the line free.
    pub(super) fn received(mut self, sender: Sender, response: http::Response<Incoming>) -> Result<Response, Failure> {
        let (head, body) = answer::checked(response)?;
        Ok(Response::from_parts(head, body.on_end(move || *self.0 = Some(sender).filter(Sender::is_ready))))
    }
}

/// Whether challenges or credentials (RFC 9110, section 11) are of a scheme that logs in connections. A comma in a quoted
/// string may look like the start of one: then a connection is pinned without need.
fn logs_in_connections(value: &HeaderValue) -> bool {
    value.as_bytes().split(|&byte| byte == b',').any(|part| {
        let scheme = part.trim_ascii_start().split(u8::is_ascii_whitespace).next().unwrap_or_default();
        SCHEMES.iter().any(|known| scheme.eq_ignore_ascii_case(known))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schemes_that_log_in_connections() {
        for (value, expected) in [
            ("NTLM", true),
            ("Negotiate", true),
            ("negotiate YII=", true),
            ("ntlm\tTlRM", true),
            (" NTLM TlRM", true),
            ("Basic realm=\"a, b\", NTLM", true),
            ("Basic realm=\"a\",Negotiate,NTLM", true),
            ("", false),
            ("Basic TlRM", false),
            ("Bearer NTLM", false),
            ("NTLMv2 x", false),
            ("Digest realm=\"ntlm\"", false),
        ] {
            assert_eq!(logs_in_connections(&HeaderValue::from_static(value)), expected, "{value}");
        }
    }
}
