//! One request and its response: the head checked and normalised, the route found and run, the log written.

use std::borrow::Cow;
use std::cell::Cell;
use std::convert::Infallible;
use std::future::poll_fn;
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONNECTION, CONTENT_LENGTH, EXPECT, HOST};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Version, request};
use http_body::Body as _;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::task::spawn_local;
use tokio::time::{Instant, timeout};

use super::head::Ruling;
use super::watched::Watched;
use super::{EntryPoint, Served, forwarded, head, hop};
use crate::http::{Body, Failure, HOPS, Observer, Request, Response, X_FORWARDED_FOR, empty, routing_host};
use crate::middleware::Outcome;
use crate::router::{Route, Target};
use crate::rule::Subject;
use crate::snapshot::Snapshot;
use crate::target;
use crate::telemetry::{AccessLog, Entry, Measured, Origin, TlsFacts};

/// So much of a body that nobody reads is read all the same, for the sake of the next request, and for so long.
const UNREAD_AT_MOST: usize = 256 << 10;
const UNREAD_FOR_AT_MOST: Duration = Duration::from_secs(5);

/// Exchanges of plugins of which each has led to the next.
const HOPS_AT_MOST: u8 = 10;

/// Failures are logged once in this time, so that a server that is down does not fill the disk.
const FAILURE_LOG_INTERVAL: Duration = Duration::from_secs(1);

pub(super) async fn answer(
    served: Rc<Served>,
    request: http::Request<Incoming>,
    client: Watched,
) -> Result<http::Response<Body>, Infallible> {
    let mut record = Record::begin(&served, &request, client);
    let version = request.version();
    let is_head = request.method() == Method::HEAD;
    let outcome = {
        let mut outcome = pin!(served.outcome(request, &mut record));
        poll_fn(|context| poll_caught(outcome.as_mut(), context)).await
    };
    let Outcome { mut response, server, failure } = outcome;
    record.client.answered();
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        served.activity.becomes_tunnel();
    } else if record.is_last || served.is_worn_out(record.ordinal) {
        if version < Version::HTTP_2 {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        } else if !record.is_last {
            served.activity.retire();
        }
    }
    leave_out_content(&mut response, is_head);
    record.answered(&response, server, failure.as_ref());
    let (head, body) = response.into_parts();
    Ok(Response::from_parts(head, body.observed(record)))
}

/// What answers HEAD, and responses of some statuses, have no content (RFC 9110, sections 9.3.2 and 15), whatever a
/// middleware gave them. In HTTP/1.1 it is left out in any case; in HTTP/2 it would be sent.
fn leave_out_content(response: &mut Response, is_head: bool) {
    let is_empty_status = matches!(response.status(), StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT);
    if is_empty_status {
        response.headers_mut().remove(CONTENT_LENGTH);
    }
    if response.body().is_end_stream() || !(is_head || is_empty_status || response.status() == StatusCode::NOT_MODIFIED)
    {
        return;
    }
    let body = std::mem::take(response.body_mut());
    if let (true, false, Some(length)) = (is_head, is_empty_status, body.size_hint().exact()) {
        response.headers_mut().entry(CONTENT_LENGTH).or_insert_with(|| length.into());
    }
}

/// A panic is a mistake of ours, and ends one request and nothing else.
fn poll_caught(outcome: Pin<&mut impl Future<Output = Outcome>>, context: &mut Context<'_>) -> Poll<Outcome> {
    // Nobody looks at the future again once it has panicked.
    std::panic::catch_unwind(AssertUnwindSafe(|| outcome.poll(context))).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<&str>().copied().map(str::to_owned);
        let message = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
        let failure = Failure::Panic(message);
        tracing::error!("{failure}");
        Poll::Ready(failure.into())
    })
}

impl Served {
    async fn outcome(&self, request: http::Request<Incoming>, record: &mut Record) -> Outcome {
        let (head, body) = request.into_parts();
        let mut body = Body::from(body).without_trailers();
        let has_content = !body.is_end_stream();
        let expects_continue = has_content && head.headers.contains_key(EXPECT);
        let is_http2 = head.version >= Version::HTTP_2;
        self.activity.has_content(has_content);
        if has_content {
            let activity = Arc::clone(&self.activity);
            body = record.client.watch(body, record.received()).on_end(move || activity.has_content(false));
        }
        let outcome = self.attempt(head, &mut body, record).await;
        // Of a request that is refused nobody knows where the next one begins; nor does the proxy where a client waits
        // for leave to send the content, or sends it without.
        let is_unread = !body.is_end_stream();
        record.is_last = outcome.failure.as_ref().is_some_and(Failure::is_refusal) || (is_unread && expects_continue);
        if is_unread && !record.is_last && !is_http2 {
            spawn_local(discard(body));
        }
        outcome
    }

    /// Answers; of the body there remains what nobody has read.
    async fn attempt(&self, mut head: request::Parts, body: &mut Body, record: &mut Record) -> Outcome {
        if self.worker.admission.refuses_requests() {
            return Failure::Overloaded.into();
        }
        let client = self.connection.client.ip();
        let trusted = self.entry_point.trust.includes(client);
        match self.prepare(&mut head, body, trusted, record.ordinal) {
            Ok(Ruling::Forward) => {}
            Ok(Ruling::Answer(status)) => {
                return Outcome { response: empty(status), server: None, failure: None };
            }
            Err(failure) => return failure.into(),
        }
        let snapshot = self.worker.live.snapshot();
        if self.is_misdirected(&snapshot, &head.headers) {
            return Failure::Misdirected.into();
        }
        let Some(route) = self.route(&snapshot, &head) else {
            return Failure::NoRouter.into();
        };
        record.routed(route);
        if trusted {
            record.forwarded_for(&head.headers);
        }
        let Target::Serve(chain) = &route.target else {
            return Failure::RouterDisabled.into();
        };
        let hops = hops(&mut head.headers);
        if hops > HOPS_AT_MOST {
            return Failure::Loop.into();
        }
        let original = head.uri.clone();
        let connection = Arc::clone(&self.connection);
        let mut request = Request { head, body: std::mem::take(body), original, connection, hops };
        let outcome = chain.run(&self.worker.resources, &mut request).await;
        *body = request.body;
        if let Some(failure) = &outcome.failure {
            self.log_failure(failure, &route.name);
        }
        outcome
    }

    /// Gives the head the form that [`Request`] promises, or refuses it. Rules see what servers will see.
    fn prepare(&self, head: &mut request::Parts, body: &Body, trusted: bool, ordinal: u64) -> Result<Ruling, Failure> {
        if self.activity.has_fragment(ordinal) {
            return Err(Failure::BadRequest("the target has a fragment"));
        }
        let has_content = !body.is_end_stream();
        let ruling = head::normalise(head, &self.entry_point, self.connection.tls.is_some(), has_content)?;
        hop::settle_aliases(&mut head.headers, self.entry_point.aliases)?;
        let websocket = hop::strip(head, has_content, &self.entry_point.kept_for_middlewares);
        forwarded::set(&mut head.headers, &self.connection, trusted, websocket, &self.worker.host_name);
        Ok(ruling)
    }

    /// Whether the connection was made with other TLS options than the host demands: mutual TLS, for example.
    fn is_misdirected(&self, snapshot: &Snapshot, headers: &HeaderMap) -> bool {
        self.tls_options.as_ref().is_some_and(|agreed| {
            snapshot.tls.option_set_of(&self.entry_point.name, routing_host(authority(headers))) != agreed
        })
    }

    fn route<'a>(&self, snapshot: &'a Snapshot, head: &request::Parts) -> Option<&'a Arc<Route>> {
        let host = routing_host(authority(&head.headers));
        let host = match host.bytes().any(|byte| byte.is_ascii_uppercase()) {
            true => Cow::Owned(host.to_ascii_lowercase()),
            false => Cow::Borrowed(host),
        };
        let path = target::routing_path(head.uri.path());
        let subject = Subject {
            host: host.trim_matches(['[', ']']),
            path: &path,
            query: head.uri.query(),
            method: &head.method,
            headers: &head.headers,
            client: self.connection.client.ip(),
        };
        snapshot.routes(&self.entry_point.name, self.connection.tls.is_some())?.find(&subject)
    }

    /// Whether the connection has served as much or as long as it may, or others need its room.
    fn is_worn_out(&self, ordinal: u64) -> bool {
        self.entry_point.keep_alive_requests_at_most.is_some_and(|limit| ordinal >= limit)
            || self.entry_point.keep_alive_time_at_most.is_some_and(|limit| self.activity.age() >= limit)
            || self.worker.admission.is_pressed()
    }

    fn log_failure(&self, failure: &Failure, router: &str) {
        let noteworthy = matches!(
            failure,
            Failure::Plugin(_)
                | Failure::PluginTimeout(_)
                | Failure::PluginBusy(..)
                | Failure::PluginOpen(_)
                | Failure::Loop
                | Failure::BadServer(_)
                | Failure::BadAnswer(_)
        );
        let last = &self.worker.last_failure;
        if noteworthy && last.get().is_none_or(|last| last.elapsed() >= FAILURE_LOG_INTERVAL) {
            last.set(Some(Instant::now()));
            tracing::error!(router, "{failure}");
        } else {
            tracing::debug!(router, "{failure}");
        }
    }
}

/// Takes the proxy's own field off a request, whoever wrote it.
fn hops(headers: &mut HeaderMap) -> u8 {
    let Some(value) = headers.remove(&HOPS) else { return 0 };
    value.to_str().ok().and_then(|hops| hops.parse().ok()).unwrap_or(u8::MAX)
}

/// Reads what a client still sends of a request that is answered, so that the next one can be read; if it is too much,
/// the connection is closed.
async fn discard(mut body: Body) {
    let reading = async {
        let mut left = UNREAD_AT_MOST;
        while let Some(Ok(frame)) = body.frame().await {
            let Some(rest) = left.checked_sub(frame.data_ref().map_or(0, Bytes::len)) else { return };
            left = rest;
        }
    };
    // Whether or not it comes to its end in time, nobody waits for it.
    drop(timeout(UNREAD_FOR_AT_MOST, reading).await);
}

fn authority(headers: &HeaderMap) -> &str {
    headers.get(HOST).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// The time between a request's head and the last byte of its response. Dropped early, the client has gone.
struct Record {
    client: Watched,
    ordinal: u64,
    /// No request may follow on the connection.
    is_last: bool,
    log: Option<Box<Logged>>,
    measured: Option<Box<Measured>>,
}

struct Logged {
    to: Arc<AccessLog>,
    entry: Entry,
    begun: Instant,
}

impl Record {
    fn begin(served: &Served, request: &http::Request<Incoming>, client: Watched) -> Self {
        let wanted = served.worker.access_log.as_ref().filter(|_| served.entry_point.access_log);
        let log = wanted.map(|to| Box::new(Logged::begin(to, served, request)));
        let meter = served.worker.meter.as_ref();
        let measured = meter.map(|meter| {
            let EntryPoint { name, metrics, .. } = &*served.entry_point;
            let mut measured = meter.begin(request, name, tls_facts(served), Failure::ClientGone.status());
            measured.is_counted = *metrics;
            Box::new(measured)
        });
        Self { client, ordinal: served.activity.request_begins(), is_last: false, log, measured }
    }

    /// Where the bytes of the request's body are counted, if they are.
    fn received(&self) -> Option<Rc<Cell<u64>>> {
        self.measured.as_ref().map(|measured| measured.received())
    }

    fn routed(&mut self, route: &Arc<Route>) {
        if !route.access_log {
            self.log = None;
        }
        if let Some(log) = &mut self.log {
            log.entry.router = Some(Arc::clone(&route.name));
            log.entry.service = Some(Arc::clone(&route.service));
        }
        if let Some(measured) = &mut self.measured {
            measured.is_counted = route.metrics;
            measured.routed = Some((Arc::clone(&route.name), Arc::clone(&route.service)));
        }
    }

    /// A trusted proxy says who the client is.
    fn forwarded_for(&mut self, headers: &HeaderMap) {
        if let Some(log) = &mut self.log {
            log.entry.forwarded_for = headers.get(&X_FORWARDED_FOR).cloned();
        }
    }

    fn answered(&mut self, response: &Response, server: Option<Arc<str>>, failure: Option<&Failure>) {
        let status = failure.map_or_else(|| response.status(), Failure::status);
        if let Some(measured) = &mut self.measured {
            measured.status = status;
            measured.is_served = server.is_some();
        }
        let Some(log) = &mut self.log else { return };
        log.entry.status = status.as_u16();
        log.entry.response_headers = log.to.response_headers(response.headers());
        if server.is_some() {
            let headers = log.entry.response_headers.clone();
            let duration = log.begun.elapsed();
            log.entry.origin = Some(Origin { status: log.entry.status, size: 0, duration, headers });
        }
        log.entry.server = server;
    }
}

impl Logged {
    fn begin(to: &Arc<AccessLog>, served: &Served, request: &http::Request<Incoming>) -> Self {
        let mut entry = to.begin(request, served.connection.client, &served.entry_point.name);
        entry.user = user(request.headers());
        entry.tls = tls_facts(served);
        entry.request_size = http_body::Body::size_hint(request.body()).exact().unwrap_or(0);
        Self { to: Arc::clone(to), entry, begun: Instant::now() }
    }
}

fn tls_facts(served: &Served) -> Option<TlsFacts> {
    served.connection.tls.as_ref().map(|tls| TlsFacts { version: tls.version, cipher: tls.cipher })
}

/// The name in `Authorization: Basic`, whether or not anything checks it.
fn user(headers: &HeaderMap) -> Option<String> {
    let credentials = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, encoded) = credentials.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = String::from_utf8(BASE64_STANDARD.decode(encoded.trim()).ok()?).ok()?;
    decoded.split_once(':').map(|(user, _)| user.to_owned())
}

impl Observer for Record {
    fn data(&mut self, bytes: usize) {
        self.client.sent(bytes);
        if let Some(measured) = &mut self.measured {
            measured.sent += bytes as u64;
        }
        let Some(log) = &mut self.log else { return };
        log.entry.size += bytes as u64;
        if let Some(origin) = &mut log.entry.origin {
            origin.size += bytes as u64;
        }
    }

    fn waits(&mut self) {
        self.client.drained();
    }

    fn poll_room(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.client.poll_room(context)
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        self.client.request_ends();
        if let Some(log) = &mut self.log {
            if log.entry.status == 0 {
                log.entry.status = Failure::ClientGone.status().as_u16();
            }
            log.entry.duration = log.begun.elapsed();
            log.to.log(&log.entry);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_ends_one_request_with_500() {
        fn mistaken() -> Outcome {
            panic!("a mistake in {}", "a handler")
        }
        let mut context = Context::from_waker(std::task::Waker::noop());
        let polled = poll_caught(pin!(async { mistaken() }), &mut context);
        let Poll::Ready(Outcome { response, failure: Some(failure), .. }) = polled else {
            panic!("no failure");
        };
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(failure.to_string(), "panicked: a mistake in a handler");
        let fine = poll_caught(pin!(async { Failure::NoRouter.into() }), &mut context);
        assert!(matches!(fine, Poll::Ready(Outcome { failure: Some(Failure::NoRouter), .. })));
    }
}
