//! The vocabulary of the request path: [`Request`], [`Response`], [`Body`] and [`Failure`].
//!
//! Every station of a request imports it; it imports none of them. It never reads a socket and never decides where a
//! request goes.

mod body;

use std::error::Error as StdError;
use std::fmt;
use std::net::{Ipv6Addr, SocketAddr};
use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, Version, header, request, response};

pub use self::body::{Ahead, Body, Broken, Observer, may_be_trailer};

pub static X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
pub static X_CONTENT_TYPE_OPTIONS: HeaderName = HeaderName::from_static("x-content-type-options");

/// On requests that plugins make by `fetch`: how many times in a row one has led to the next. The proxy alone reads and
/// writes it.
pub static HOPS: HeaderName = HeaderName::from_static("x-weir-hops");

/// One request on its way from an entry point to a server.
///
/// The head's URI is in origin form (path and query, normalised), and the `Host` field is the authority, whatever the
/// version of HTTP that the client spoke: middlewares that change them change what the server sees. Fields that belong to
/// the client's connection are gone, but for `Connection: Upgrade` and `Upgrade: websocket` of a request for a websocket.
pub struct Request {
    pub head: request::Parts,
    pub body: Body,
    /// The target before any middleware, in the same form as the head's.
    pub original: Uri,
    pub connection: Arc<Connection>,
    /// As [`HOPS`] has it.
    pub hops: u8,
}

/// One response on its way back.
pub type Response = http::Response<Body>;
pub type ResponseHead = response::Parts;

/// The client's connection: facts that hold for all requests on it.
#[derive(Debug)]
pub struct Connection {
    pub client: SocketAddr,
    /// The client's address as a field value, made once and shared by the requests.
    pub client_address: HeaderValue,
    /// Whether the client's address is added to `X-Forwarded-For`.
    pub append_client_address: bool,
    pub entry_point: Arc<str>,
    pub tls: Option<TlsSession>,
}

/// What was agreed in the TLS handshake.
#[derive(Debug)]
pub struct TlsSession {
    /// Lower case, as sent in the ClientHello (RFC 6066, section 3).
    pub server_name: Option<String>,
    pub version: &'static str,
    pub cipher: &'static str,
    /// DER, leaf first; empty unless the client authenticated itself.
    pub client_certificates: Vec<Vec<u8>>,
}

impl Request {
    /// The `Host` field as text; empty when it is missing or not ASCII.
    pub fn authority(&self) -> &str {
        self.head.headers.get(header::HOST).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

/// Whether servers may take a field's name for `known`: gateways to CGI read `_` as `-`, PHP reads `.` so too.
pub fn may_be_taken_for(name: &str, known: &str) -> bool {
    let dash = |byte: u8| if matches!(byte, b'_' | b'.') { b'-' } else { byte };
    known.len() == name.len() && name.bytes().map(dash).eq(known.bytes().map(dash))
}

/// The key of a request that asks for a websocket, as RFC 6455 (section 4.1) has it; any other upgrade is none.
pub fn websocket_key(head: &request::Parts) -> Option<&HeaderValue> {
    let headers = &head.headers;
    let asks = head.method == Method::GET
        && head.version == Version::HTTP_11
        && only_line(headers, header::UPGRADE)?.as_bytes().eq_ignore_ascii_case(b"websocket")
        && headers.get_all(header::CONNECTION).iter().any(|line| has_token(line, b"upgrade"))
        && only_line(headers, header::SEC_WEBSOCKET_VERSION)? == "13";
    let is_nonce = |key: &&HeaderValue| BASE64_STANDARD.decode(key.as_bytes()).is_ok_and(|nonce| nonce.len() == 16);
    only_line(headers, header::SEC_WEBSOCKET_KEY).filter(is_nonce).filter(|_| asks)
}

/// The line of a field that has exactly one.
pub fn only_line(headers: &HeaderMap, name: HeaderName) -> Option<&HeaderValue> {
    let mut lines = headers.get_all(name).iter();
    lines.next().filter(|_| lines.next().is_none())
}

/// Whether a list of tokens, with commas between them, has this one in any case.
pub fn has_token(line: &HeaderValue, token: &[u8]) -> bool {
    line.as_bytes().split(|byte| *byte == b',').any(|member| member.trim_ascii().eq_ignore_ascii_case(token))
}

/// Host and optional port (RFC 3986, section 3.2), without what only some servers would understand: a user, encoded
/// characters, and the comma, which is what two hosts look like that somebody has joined.
pub fn is_authority(text: &[u8]) -> bool {
    let (host, port) = match text.iter().rposition(|byte| *byte == b':') {
        Some(colon) if !text[colon..].contains(&b']') => (&text[..colon], &text[colon + 1..]),
        _ => (text, &[][..]),
    };
    let is_host = match host {
        [] => false,
        [b'[', address @ .., b']'] => str::from_utf8(address).is_ok_and(|text| text.parse::<Ipv6Addr>().is_ok()),
        name => name.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+;=".contains(byte)),
    };
    is_host && is_port(port)
}

fn is_port(digits: &[u8]) -> bool {
    let number = digits.iter().try_fold(0_u16, |number, byte| {
        let digit = char::from(*byte).to_digit(10)?;
        number.checked_mul(10)?.checked_add(u16::try_from(digit).ok()?)
    });
    number.is_some()
}

/// An authority without its port and the dot that ends a fully qualified name.
pub fn routing_host(authority: &str) -> &str {
    let host = match authority.rfind(':') {
        Some(colon) if !authority[colon..].contains(']') => &authority[..colon],
        _ => authority,
    };
    host.strip_suffix('.').unwrap_or(host)
}

/// Runs HTTP/2's tasks on the worker that owns the connection.
#[derive(Clone, Copy)]
pub struct LocalExecutor;

impl<F: Future<Output: 'static> + 'static> hyper::rt::Executor<F> for LocalExecutor {
    fn execute(&self, task: F) {
        tokio::task::spawn_local(task);
    }
}

/// Why a request got no answer from a server or a middleware. Each has one status, and one place writes the response:
/// [`Failure::response`].
#[derive(Debug)]
pub enum Failure {
    /// 400: the request cannot be understood without doubt.
    BadRequest(&'static str),
    /// The same with a status of its own.
    Refused(StatusCode, &'static str),
    /// 404: no router matches.
    NoRouter,
    /// 421: the host's TLS options are not those the connection was made with (RFC 9110, section 15.5.20).
    Misdirected,
    /// 503: the router that matches is broken, and no other may answer in its place.
    RouterDisabled,
    /// 503: the service has no server.
    NoServer,
    /// 503: memory runs out.
    Overloaded,
    /// 502: the server could not be reached, or closed the connection without an answer.
    Unreachable(Box<dyn StdError + Send + Sync>),
    /// 500: the server's certificate is not trusted.
    BadServer(Box<dyn StdError + Send + Sync>),
    /// 502: what the server sent is not HTTP, can be understood in two ways, or is to something that nobody asked.
    BadAnswer(Box<dyn StdError + Send + Sync>),
    /// 504: the server took longer than its transport allows.
    ServerTimeout(&'static str),
    /// 499, for the log alone: the client gave up.
    ClientGone,
    /// 413: a middleware wants the whole of a body that is longer than it may be.
    ContentTooLarge,
    /// 500: a middleware's plugin failed.
    Plugin(String),
    /// 500: a mistake of the proxy's own, which ends this request alone.
    Panic(String),
    /// 504: a middleware's plugin waited for something longer than a call may take.
    PluginTimeout(String),
    /// 503: all instances of a plugin are busy, or it has used up its share of the CPU.
    PluginBusy(String, &'static str),
    /// 503: a plugin has failed too often, and is not called for a while.
    PluginOpen(String),
    /// 508: a plugin asks for what makes it ask again (RFC 5842, section 7.2).
    Loop,
}

impl Failure {
    pub const fn status(&self) -> StatusCode {
        match self {
            Self::BadRequest(_) => StatusCode::BAD_REQUEST,
            Self::Refused(status, _) => *status,
            Self::NoRouter => StatusCode::NOT_FOUND,
            Self::Misdirected => StatusCode::MISDIRECTED_REQUEST,
            Self::ContentTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::RouterDisabled | Self::NoServer | Self::Overloaded | Self::PluginBusy(..) | Self::PluginOpen(_) => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::Loop => StatusCode::LOOP_DETECTED,
            Self::Unreachable(_) | Self::BadAnswer(_) => StatusCode::BAD_GATEWAY,
            Self::BadServer(_) | Self::Plugin(_) | Self::Panic(_) => StatusCode::INTERNAL_SERVER_ERROR,
            Self::ServerTimeout(_) | Self::PluginTimeout(_) => StatusCode::GATEWAY_TIMEOUT,
            Self::ClientGone => match StatusCode::from_u16(499) {
                Ok(status) => status,
                Err(_) => StatusCode::BAD_GATEWAY,
            },
        }
    }

    /// Whether a plugin has failed, or was not called since it fails too often or has too much to do.
    pub const fn is_of_plugin(&self) -> bool {
        matches!(self, Self::Plugin(_) | Self::PluginTimeout(_) | Self::PluginBusy(..) | Self::PluginOpen(_))
    }

    /// Whether the client's side of the connection can no longer be relied on.
    pub const fn is_refusal(&self) -> bool {
        matches!(self, Self::BadRequest(_) | Self::Refused(..))
    }

    /// The answer a client gets, worded as Traefik words it.
    pub fn response(&self) -> Response {
        match self {
            Self::NoRouter => plain_text(self.status(), "404 page not found\n"),
            Self::NoServer => plain_text(self.status(), "no available server\n"),
            Self::RouterDisabled => {
                plain_text(self.status(), "this router is disabled by an error in its configuration\n")
            }
            Self::Misdirected => plain_text(self.status(), "Misdirected Request\n"),
            Self::Overloaded => overloaded(self.status()),
            Self::ContentTooLarge => plain_text(self.status(), "Request Entity Too Large"),
            Self::BadRequest(reason) => bad_request(reason),
            Self::Refused(status, _) => empty(*status),
            _ => status_text(self.status()),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadRequest(reason) | Self::Refused(_, reason) => write!(out, "bad request: {reason}"),
            Self::NoRouter => out.write_str("no router matches"),
            Self::Misdirected => out.write_str("the connection was made with the TLS options of another host"),
            Self::RouterDisabled => out.write_str("the router is disabled"),
            Self::NoServer => out.write_str("no available server"),
            Self::Overloaded => out.write_str("memory runs out"),
            Self::Unreachable(cause) => write!(out, "server unreachable: {}", Causes(cause.as_ref())),
            Self::BadServer(cause) => write!(out, "bad server: {}", Causes(cause.as_ref())),
            Self::BadAnswer(cause) => write!(out, "bad answer: {}", Causes(cause.as_ref())),
            Self::ServerTimeout(what) => write!(out, "server timeout: {what}"),
            Self::ClientGone => out.write_str("the client closed the connection"),
            Self::ContentTooLarge => out.write_str("a middleware wants the whole of a body that is too long"),
            Self::Plugin(reason) | Self::PluginTimeout(reason) => write!(out, "plugin failed: {reason}"),
            Self::Panic(message) => write!(out, "panicked: {message}"),
            Self::PluginBusy(name, why) => write!(out, "plugin `{name}` is busy: it {why} that it may have"),
            Self::PluginOpen(name) => {
                write!(out, "plugin `{name}` fails again and again, and is not called for a while")
            }
            Self::Loop => out.write_str("a plugin's request has led to the next one too often"),
        }
    }
}

/// An error with what caused it, in one line.
pub struct Causes<'a>(pub &'a (dyn StdError + 'static));

impl fmt::Display for Causes<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(out, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

/// A response of our own with a text body that no browser may take for anything else.
pub fn plain_text(status: StatusCode, text: &'static str) -> Response {
    let mut response = Response::new(text.into());
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS.clone(), HeaderValue::from_static("nosniff"));
    response
}

fn overloaded(status: StatusCode) -> Response {
    let mut response = status_text(status);
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

/// As Go words what it refuses before any handler sees it.
fn bad_request(reason: &str) -> Response {
    let mut response = Response::new(Bytes::from(format!("400 Bad Request: {reason}")).into());
    *response.status_mut() = StatusCode::BAD_REQUEST;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

/// A response of our own without content.
pub fn empty(status: StatusCode) -> Response {
    let mut response = Response::default();
    *response.status_mut() = status;
    response
}

fn status_text(status: StatusCode) -> Response {
    let mut response = Response::new(status.canonical_reason().unwrap_or_default().into());
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authorities() {
        for good in
            ["a", "a.example", "A.example.", "a_b", "127.0.0.1:80", "a:", "a:65535", "[::1]", "[::ffff:1.2.3.4]:1"]
        {
            assert!(is_authority(good.as_bytes()), "{good}");
        }
        for bad in
            ["", ":80", "a:65536", "a:+1", "a:b", "a:1:2", "u@a", "a,b", "a b", "a/b", "%61", "::1", "[::1", "[x]"]
        {
            assert!(!is_authority(bad.as_bytes()), "{bad}");
        }
    }

    #[test]
    fn a_websocket_is_asked_for_in_one_way() {
        let good = [
            ("connection", "keep-alive, UPGRADE"),
            ("upgrade", "WebSocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ];
        let asks = |method: &str, fields: &[(&str, &str)]| {
            let request = fields
                .iter()
                .fold(http::Request::builder().method(method), |request, (name, value)| request.header(*name, *value));
            let (head, ()) = request.body(()).expect("a good request").into_parts();
            websocket_key(&head).is_some()
        };
        assert!(asks("GET", &good));
        assert!(!asks("POST", &good));
        for field in 0..good.len() {
            let mut fields = good.to_vec();
            fields.push(good[field]);
            assert_eq!(asks("GET", &fields), field == 0, "{} twice", good[field].0);
            fields.pop();
            fields[field].1 = "wrong";
            assert!(!asks("GET", &fields), "{}", good[field].0);
        }
        for key in ["", "x", "dGhlIHNhbXBsZSBub25jZQ", "dGhlIHNhbXBsZSBub25jZQ= =", "dGhlIHNhbXBsZQ==", "!!!!"] {
            let mut fields = good;
            fields[3].1 = key;
            assert!(!asks("GET", &fields), "{key}");
        }
    }

    #[test]
    fn the_host_for_routing_has_no_port_and_no_final_dot() {
        for (authority, host) in [
            ("example.com", "example.com"),
            ("example.com:8080", "example.com"),
            ("example.com.", "example.com"),
            ("example.com.:80", "example.com"),
            ("[::1]", "[::1]"),
            ("[::1]:80", "[::1]"),
            ("", ""),
        ] {
            assert_eq!(routing_host(authority), host, "{authority}");
        }
    }
}
