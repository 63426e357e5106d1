//! One request to one server: the pool of connections, hop-by-hop fields, time limits, upgrades.
//!
//! `service` calls [`send`] with the server it has chosen. It never chooses a server, and sets no forwarding field but
//! the client's address at the end of `X-Forwarded-For`.

mod answer;
mod dial;
mod hop;
mod pinned;
mod pool;
mod sender;
mod upgrade;

use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::header::{CONNECTION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderValue, Method, Uri, Version};
use hyper::body::Incoming;

use self::pool::Place;
pub use self::pool::Pools;
use self::sender::{Sender, Sent};
use crate::http::{Body, Broken, Connection, Failure, Request, Response};

/// Where and how a server is reached. Equal upstreams of two snapshots are one and the same, with their connections.
#[derive(Debug)]
pub struct Upstream {
    id: u64,
    /// Scheme, host and port as configured: `http://10.0.0.1:8080`.
    pub url: Arc<str>,
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) protocol: Protocol,
    /// The `Host` field for services that do not pass the client's.
    pub authority: HeaderValue,
    /// Put before the request's path where the server was configured with `preservePath`.
    pub base_path: String,
    pub transport: Arc<Transport>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Http,
    /// HTTP/2 with prior knowledge, in clear text (`h2c://`).
    H2c,
    /// HTTP/2 if the server offers it, else HTTP/1.1.
    Https,
}

/// Traefik's `serversTransport`, ready for use.
#[derive(Debug)]
pub struct Transport {
    pub tls: Arc<rustls::ClientConfig>,
    /// For SNI and verification, in place of the server's host.
    pub server_name: Option<String>,
    pub idle_connections_at_most: usize,
    pub dial_timeout: Option<Duration>,
    pub response_header_timeout: Option<Duration>,
    pub idle_timeout: Option<Duration>,
    /// Silence on an HTTP/2 connection after which the server is pinged, and how long its answer may take.
    pub ping: Option<(Duration, Duration)>,
}

impl Upstream {
    /// Parses a server's URL: `http`, `https` or `h2c`, host, optional port; the path counts only with `preserve_path`.
    pub fn parse(url: &str, preserve_path: bool, transport: Arc<Transport>) -> Result<Self, String> {
        // Pools outlive snapshots, so that an identity must never come again.
        static NEXT_ID: AtomicU64 = AtomicU64::new(0);

        let uri: Uri = url.parse().map_err(|_| format!("`{url}` is not a URL"))?;
        let (protocol, default_port) = match uri.scheme_str() {
            Some("http" | "ws") => (Protocol::Http, 80),
            Some("https" | "wss") => (Protocol::Https, 443),
            Some("h2c") => (Protocol::H2c, 80),
            Some(scheme) => {
                return Err(format!("the scheme `{scheme}` of `{url}` is not one of http, https and h2c"));
            }
            None => {
                return Err(format!("`{url}` is not a URL: it must start with `http://` or `https://`"));
            }
        };
        let authority = uri.authority().ok_or_else(|| format!("`{url}` names no host"))?;
        let host = authority.host().trim_matches(['[', ']']);
        if host.is_empty() {
            return Err(format!("`{url}` names no host"));
        }
        let host_field = authority.as_str().rsplit_once('@').map_or(authority.as_str(), |(_, host)| host);
        Ok(Self {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            url: url.into(),
            host: host.to_owned(),
            port: authority.port_u16().unwrap_or(default_port),
            protocol,
            authority: HeaderValue::from_str(host_field).map_err(|_| format!("`{url}` is not a URL"))?,
            base_path: if preserve_path { uri.path().trim_end_matches('/').to_owned() } else { String::new() },
            transport,
        })
    }
}

impl Upstream {
    /// Whether a new description is of this very server, reached in the same way.
    pub fn is_like(&self, other: &Self) -> bool {
        self.url == other.url && self.base_path == other.base_path && Arc::ptr_eq(&self.transport, &other.transport)
    }
}

/// Makes sure of a connection to the server, for [`send`] to take: an idle one, or a new one that is idle until then.
pub async fn reach(pools: &Pools, upstream: &Upstream) -> Result<(), Failure> {
    if pools.has_idle(upstream) {
        return Ok(());
    }
    let mut sender = Box::pin(dial::connect(upstream, dial::Purpose::Exchange)).await?;
    sender.ready().await.map_err(failure)?;
    pools.put(Place::of(upstream), sender);
    Ok(())
}

/// Forwards the request, of which nothing is left behind, and answers with the head of the response, its body streaming.
pub async fn send(pools: &Rc<Pools>, upstream: &Upstream, request: &mut Request) -> Result<Response, Failure> {
    let (outgoing, upgrade) = prepare(upstream, request)?;
    let client = &request.connection;
    if let Some(line) = pools.pins.line(client, upstream, outgoing.headers()) {
        return Box::pin(pinned::send(line, upstream, outgoing, upgrade)).await;
    }
    if let Some(upgrade) = upgrade {
        return Box::pin(open_tunnel(pools, upstream, client, outgoing, upgrade)).await;
    }
    let (sender, response) = exchange(pools, upstream, outgoing).await?;
    match pools.pins.challenged(client, upstream, &response) {
        Some(held) if sender.is_http1() => held.received(sender, response),
        _ => received(pools, upstream, sender, response),
    }
}

/// A tunnel uses its connection up, so it never takes one from the pool.
async fn open_tunnel(
    pools: &Rc<Pools>,
    upstream: &Upstream,
    client: &Arc<Connection>,
    outgoing: http::Request<Body>,
    upgrade: upgrade::Requested,
) -> Result<Response, Failure> {
    let mut sender = dial::connect(upstream, dial::Purpose::Upgrade).await?;
    sender.announce_websocket();
    let sent = with_header_timeout(upstream, pin!(sender.send(outgoing))).await?;
    let response = sent.map_err(|(error, _)| failure(error))?;
    match pools.pins.challenged(client, upstream, &response) {
        None => upgrade::finish(upgrade, response),
        Some(held) => held.received(sender, response),
    }
}

/// Makes of a client's request one for the server: target, authority, fields.
fn prepare(
    upstream: &Upstream,
    request: &mut Request,
) -> Result<(http::Request<Body>, Option<upgrade::Requested>), Failure> {
    let upgrade = upgrade::requested(&mut request.head);
    let headers = &mut request.head.headers;
    let connection = &request.connection;
    hop::strip_request(headers);
    hop::append_client_address(headers, connection.append_client_address.then_some(&connection.client_address));
    let mut body = std::mem::take(&mut request.body);
    if upgrade.is_some() {
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        body = Body::empty();
    }
    // Clients of HTTP/1.0 need not name a host, servers of HTTP/1.1 want one.
    if !headers.contains_key(HOST) {
        headers.insert(HOST, upstream.authority.clone());
    }
    let mut outgoing = http::Request::new(body);
    *outgoing.method_mut() = std::mem::take(&mut request.head.method);
    *outgoing.headers_mut() = std::mem::take(headers);
    *outgoing.uri_mut() = std::mem::take(&mut request.head.uri);
    if !upstream.base_path.is_empty() {
        let target = outgoing.uri().path_and_query().map_or("/", |target| target.as_str());
        *outgoing.uri_mut() = format!("{}{target}", upstream.base_path)
            .parse()
            .map_err(|_| Failure::BadRequest("the path and the server's path do not make a path"))?;
    }
    frame_content(&mut outgoing);
    Ok((outgoing, upgrade))
}

/// hyper drops content of GET and HEAD that has neither length nor coding.
fn frame_content(request: &mut http::Request<Body>) {
    if !http_body::Body::is_end_stream(request.body()) && !request.headers().contains_key(CONTENT_LENGTH) {
        request.headers_mut().insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
}

async fn exchange(
    pools: &Rc<Pools>,
    upstream: &Upstream,
    mut request: http::Request<Body>,
) -> Result<(Sender, http::Response<Incoming>), Failure> {
    // A server may close an idle connection while the request is on its way. Without a byte of an answer such a
    // request may be sent again on a new connection, if it changes nothing (RFC 9110, section 9.2.2); Go does the same.
    let mut again = repeatable(&request);
    while let Some(mut sender) = pools.take(upstream) {
        let sent = with_header_timeout(upstream, pin!(send_on(&mut sender, upstream, request))).await?;
        match sent {
            Ok(response) => return Ok((sender, response)),
            Err((error, unsent)) => match (unsent, again.take()) {
                (Some(unsent), copy) => (request, again) = (unsent, copy),
                (None, Some(copy)) if is_stale(&error) && sender.is_silent() => request = copy,
                _ => return Err(failure(error)),
            },
        }
    }
    let mut sender = Box::pin(dial::connect(upstream, dial::Purpose::Exchange)).await?;
    let sent = with_header_timeout(upstream, pin!(send_on(&mut sender, upstream, request))).await?;
    match sent {
        Ok(response) => Ok((sender, response)),
        Err((error, _)) => Err(failure(error)),
    }
}

async fn send_on(sender: &mut Sender, upstream: &Upstream, mut request: http::Request<Body>) -> Sent {
    match sender {
        Sender::Http2(_) => for_http2(&mut request, upstream),
        // It was meant for a connection of HTTP/2 that had ended.
        Sender::Http1(..) if request.version() == Version::HTTP_2 => for_http1(&mut request, upstream),
        Sender::Http1(..) => {}
    }
    sender.send(request).await
}

/// HTTP/2 has the scheme and the authority in the target, HTTP/1.1 in neither and in `Host`.
fn for_http2(request: &mut http::Request<Body>, upstream: &Upstream) {
    let scheme = if upstream.protocol == Protocol::Https { "https" } else { "http" };
    request.headers_mut().remove(TRANSFER_ENCODING);
    let authority = request.headers_mut().remove(HOST);
    let authority = authority.as_ref().unwrap_or(&upstream.authority);
    let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
    if let Ok(uri) = format!("{scheme}://{}{target}", authority.to_str().unwrap_or_default()).parse() {
        *request.uri_mut() = uri;
    }
    *request.version_mut() = Version::HTTP_2;
}

fn for_http1(request: &mut http::Request<Body>, upstream: &Upstream) {
    let host = request.uri().authority().and_then(|host| HeaderValue::from_str(host.as_str()).ok());
    let target = request.uri().path_and_query().cloned().map_or_else(Uri::default, Uri::from);
    request.headers_mut().insert(HOST, host.unwrap_or_else(|| upstream.authority.clone()));
    *request.uri_mut() = target;
    *request.version_mut() = Version::HTTP_11;
    frame_content(request);
}

fn repeatable(request: &http::Request<Body>) -> Option<http::Request<Body>> {
    let safe = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE);
    if !safe || !http_body::Body::is_end_stream(request.body()) {
        return None;
    }
    let mut copy = http::Request::new(Body::empty());
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.version_mut() = request.version();
    *copy.headers_mut() = request.headers().clone();
    Some(copy)
}

/// The response for the client, whose body puts the connection back when it has been read.
fn received(
    pools: &Rc<Pools>,
    upstream: &Upstream,
    sender: Sender,
    response: http::Response<Incoming>,
) -> Result<Response, Failure> {
    let (head, body) = answer::checked(response)?;
    let place = Place::of(upstream);
    let body = match sender {
        Sender::Http1(..) => {
            let pools = Rc::clone(pools);
            body.on_end(move || pools.put(place, sender))
        }
        Sender::Http2(_) => {
            pools.share(place, sender);
            body
        }
    };
    Ok(Response::from_parts(head, body))
}

/// Takes the future pinned, since it holds a whole request, which would be copied with it.
async fn with_header_timeout<F: Future>(upstream: &Upstream, sending: Pin<&mut F>) -> Result<F::Output, Failure> {
    match upstream.transport.response_header_timeout {
        None => Ok(sending.await),
        Some(limit) => tokio::time::timeout(limit, sending)
            .await
            .map_err(|_| Failure::ServerTimeout("no response head within `responseHeaderTimeout`")),
    }
}

/// Whether the server may have closed the connection before the request came.
fn is_stale(error: &hyper::Error) -> bool {
    error.is_incomplete_message() || is_reset(error)
}

fn is_reset(error: &hyper::Error) -> bool {
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<std::io::Error>() {
            return matches!(error.kind(), std::io::ErrorKind::ConnectionReset | std::io::ErrorKind::BrokenPipe);
        }
        cause = error.source();
    }
    false
}

fn failure(error: hyper::Error) -> Failure {
    if let Some(broken) = std::error::Error::source(&error).and_then(|cause| cause.downcast_ref::<Broken>()) {
        return broken.of_request();
    }
    if error.is_user() || error.is_body_write_aborted() {
        return Failure::ClientGone;
    }
    if error.is_parse() {
        return Failure::BadAnswer(error.into());
    }
    Failure::Unreachable(error.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transport() -> Arc<Transport> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider has TLS 1.2 and 1.3")
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        Arc::new(Transport {
            tls: Arc::new(tls),
            server_name: None,
            idle_connections_at_most: 1,
            dial_timeout: None,
            response_header_timeout: None,
            idle_timeout: None,
            ping: None,
        })
    }

    #[test]
    fn server_urls_are_parsed() {
        for (url, host, port, authority) in [
            ("http://10.0.0.1:8080", "10.0.0.1", 8080, "10.0.0.1:8080"),
            ("https://a.example/ignored", "a.example", 443, "a.example"),
            ("h2c://a.example", "a.example", 80, "a.example"),
            ("http://[::1]:81/", "::1", 81, "[::1]:81"),
            ("http://user@a.example/", "a.example", 80, "a.example"),
        ] {
            let upstream = Upstream::parse(url, false, transport()).expect(url);
            assert_eq!((upstream.host.as_str(), upstream.port), (host, port), "{url}");
            assert_eq!(upstream.authority, authority, "{url}");
            assert_eq!(upstream.base_path, "", "{url}");
        }
        let with_path = Upstream::parse("http://a/base/", true, transport()).expect("a URL");
        assert_eq!(with_path.base_path, "/base");
    }

    #[test]
    fn what_is_no_server_url_is_refused() {
        for url in ["", "10.0.0.1:80", "ftp://a", "http://", "/path", "a b"] {
            assert!(Upstream::parse(url, false, transport()).is_err(), "{url}");
        }
    }
    #[test]
    fn a_request_changes_between_the_versions_and_back() {
        let upstream = Upstream::parse("https://10.0.0.1", false, transport()).expect("a URL");
        let request = http::Request::get("/a/b?c").header(HOST, "a.example:8443").header("x-a", "1");
        let mut request = request.body(Body::from("content")).expect("a good request");
        frame_content(&mut request);
        for_http2(&mut request, &upstream);
        assert_eq!((request.version(), request.headers().len()), (Version::HTTP_2, 1));
        assert_eq!(*request.uri(), "https://a.example:8443/a/b?c");
        for_http1(&mut request, &upstream);
        assert_eq!((request.version(), request.headers().len()), (Version::HTTP_11, 3));
        assert_eq!(*request.uri(), "/a/b?c");
        assert_eq!(request.headers()[HOST], "a.example:8443");
        assert_eq!(request.headers()[TRANSFER_ENCODING], "chunked");
    }
}
