//! What a guest may do beyond what every guest may: ask for its secrets, reach its hosts, wait.
//!
//! `provider` makes [`Grants`] for one call, `pool` for an instance and renews them for each call. A guest without them
//! gets nothing here: the imports are linked for all.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONNECTION, CONTENT_LENGTH, EXPECT, HOST, TE, TRAILER, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use rustls::ClientConfig;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::addresses::is_public;
use super::bindings::dns_provider::weir::plugin::timer;
use super::bindings::middleware::weir::plugin::fetch::{ClientTls, Request, Response};
use super::bindings::middleware::weir::plugin::log::Level;
use super::bindings::middleware::weir::plugin::types::{Error, ErrorKind};
use super::bindings::middleware::weir::plugin::{fetch, secrets};
use super::imports::State;
use super::variables::Values;
use crate::config::WebOrigin;
use crate::config::routing::{Certificate, ServersTransport};
use crate::fetch::{Client, Error as FetchError, Settings};
use crate::http::HOPS;
use crate::tls::{self, Alpn};

/// Of one plugin, at the same time.
const EXCHANGES_AT_MOST: usize = 256;
const CONNECT_TIME: Duration = Duration::from_secs(15);
const REQUEST_BODY_AT_MOST: usize = 1 << 20;
const RESPONSE_BODY_AT_MOST: usize = 4 << 20;
const REQUEST_HEADERS_AT_MOST: usize = 100;
const USER_AGENT: &str = concat!("weir/", env!("CARGO_PKG_VERSION"));

/// What one call may use.
pub(super) struct Grants {
    pub(super) values: Values,
    pub(super) reach: Arc<Reach>,
    /// When the call ends whatever happens.
    pub(super) deadline: Instant,
    /// For an exchange that names no time.
    pub(super) usual_time: Duration,
    pub(super) time_at_most: Duration,
    /// How many exchanges the call may still begin.
    pub(super) left: u32,
    /// How often in a row `fetch` has led to the request behind the call; `None` if there is none.
    pub(super) hops: Option<u8>,
    pub(super) exchanges: Arc<Exchanges>,
}

/// The hosts that `fetch` may reach.
#[derive(Debug)]
pub(super) enum Reach {
    /// What the plugin itself names: on the public internet alone.
    Declared(Vec<WebOrigin>),
    /// What the variables of a DNS provider name, anywhere.
    Configured(Vec<WebOrigin>),
    /// Everything, for a plugin's author.
    Anywhere,
    /// What the administrator names, anywhere.
    Granted { plugin: Arc<str>, origins: Vec<WebOrigin> },
}

/// How exchanges are made. One for each plugin.
pub(super) struct Exchanges {
    /// Where they run: never on a worker, whose requests they would hold up with handshakes.
    control: Option<Handle>,
    /// Those at the same time.
    slots: Semaphore,
    /// For exchanges that name no TLS settings of their own.
    tls: OnceLock<Arc<ClientConfig>>,
}

/// A guest wants to wait until after its call has ended.
#[derive(Debug)]
pub(super) struct SleepsTooLong;

/// A guest goes on asking although the time of its call is over.
#[derive(Debug)]
pub(super) struct TooLate;

impl secrets::Host for State {
    fn get(&mut self, name: String) -> Option<String> {
        self.grants.as_ref()?.values.find(&name).map(str::to_owned)
    }
}

impl timer::Host for State {
    async fn sleep(&mut self, ms: u32) -> wasmtime::Result<()> {
        let until = Instant::now() + Duration::from_millis(ms.into());
        if self.grants.as_ref().is_none_or(|grants| until >= grants.deadline) {
            return Err(wasmtime::Error::new(SleepsTooLong));
        }
        tokio::time::sleep_until(until).await;
        Ok(())
    }
}

impl fetch::Host for State {
    async fn send(&mut self, request: Request) -> wasmtime::Result<Result<Response, Error>> {
        let Some(grants) = &mut self.grants else {
            return Ok(Err(error(ErrorKind::Denied, "reach anything at this moment")));
        };
        if Instant::now() >= grants.deadline {
            return Err(wasmtime::Error::new(TooLate));
        }
        if grants.left == 0 {
            return Ok(Err(error(ErrorKind::RateLimited, "reach more in one call: its exchanges are used up")));
        }
        grants.left -= 1;
        let answer = grants.send(request).await;
        self.has_waited = true;
        if let Err(Error { kind: ErrorKind::Denied, message, .. }) = &answer {
            let message = grants.values.redacted(message);
            self.log(Level::Warn, &format!("it was kept from what it wants: {message}"));
        }
        Ok(answer)
    }
}

impl Grants {
    /// For another call of the same instance, which may take so long.
    pub(super) fn renew(&mut self, time: Duration, exchanges: u32, hops: u8) {
        self.deadline = Instant::now() + time;
        self.left = exchanges;
        self.hops = Some(hops);
    }

    async fn send(&self, asked: Request) -> Result<Response, Error> {
        let url = Uri::from_str(&asked.url).map_err(|_| error(ErrorKind::Internal, "ask for what is no URL"))?;
        let origin = WebOrigin::of(&url)
            .map_err(|problem| error(ErrorKind::Internal, format!("ask for a URL that cannot be used: {problem}")))?;
        self.reach.admits(&origin)?;
        let mut request = request(&asked, url)?;
        if let Some(hops) = self.hops {
            request.headers_mut().insert(&HOPS, HeaderValue::from(u16::from(hops) + 1));
        }
        let client = self.client(&asked).map_err(|problem| error(ErrorKind::Internal, problem))?;
        let admits_all = !matches!(*self.reach, Reach::Declared(_));
        let _slot = self.exchanges.slots.try_acquire().map_err(|_| {
            error(
                ErrorKind::RateLimited,
                format!("ask `{origin}`: the plugin has {EXCHANGES_AT_MOST} exchanges already"),
            )
        })?;
        let exchange = async move {
            let admits = |address: IpAddr| admits_all || is_public(address);
            client.send(request, &admits).await
        };
        let response = self.exchanges.run(exchange).await.map_err(|problem| unanswered(&origin, &problem))?;
        let (head, body) = response.into_parts();
        let headers = head.headers.iter().map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec()));
        Ok(Response { status: head.status.as_u16(), headers: headers.collect(), body: body.into() })
    }

    fn client(&self, asked: &Request) -> Result<Client, String> {
        let tls = match &asked.tls {
            Some(tls) => client_config(&transport(tls)?)?,
            None => self.exchanges.usual_tls()?,
        };
        let wanted = match asked.timeout_ms {
            0 => self.usual_time,
            milliseconds => Duration::from_millis(milliseconds.into()).min(self.time_at_most),
        };
        let timeout = wanted.min(self.deadline.saturating_duration_since(Instant::now()));
        Ok(Client::new(Settings {
            tls,
            server_name: asked.tls.as_ref().and_then(|tls| tls.server_name.clone()),
            connect_timeout: timeout.min(CONNECT_TIME),
            head_timeout: timeout,
            timeout,
            body_at_most: (asked.max_body as usize).min(RESPONSE_BODY_AT_MOST),
            user_agent: HeaderValue::from_static(USER_AGENT),
        }))
    }
}

impl Reach {
    fn admits(&self, origin: &WebOrigin) -> Result<(), Error> {
        let origins = match self {
            Self::Declared(origins) | Self::Configured(origins) | Self::Granted { origins, .. } => origins,
            Self::Anywhere => return Ok(()),
        };
        if origins.contains(origin) {
            return Ok(());
        }
        let origins: Vec<String> = origins.iter().map(|origin| format!("`{origin}`")).collect();
        let allowed = if origins.is_empty() { "nothing".to_owned() } else { origins.join(", ") };
        let help = match self {
            Self::Declared(_) => format!("its description must have `{origin}` among its origins"),
            Self::Configured(_) | Self::Anywhere => "its variables name where it goes".to_owned(),
            Self::Granted { plugin, .. } => format!("`plugins.settings.{plugin}.allow.fetch` may grant it"),
        };
        Err(error(ErrorKind::Denied, format!("reach `{origin}`: the plugin may reach {allowed}; {help}")))
    }
}

impl Exchanges {
    pub(super) fn new(control: Option<Handle>) -> Self {
        Self { control, slots: Semaphore::new(EXCHANGES_AT_MOST), tls: OnceLock::new() }
    }

    /// Ends when the caller no longer waits for it.
    async fn run<T: Send + 'static>(&self, exchange: impl Future<Output = T> + Send + 'static) -> T {
        let Some(control) = &self.control else { return exchange.await };
        let mut task = JoinSet::new();
        task.spawn_on(exchange, control);
        match task.join_next().await {
            Some(Ok(answer)) => answer,
            Some(Err(error)) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            // The control runtime ends with the proxy, and the caller with it.
            _ => std::future::pending().await,
        }
    }

    fn usual_tls(&self) -> Result<Arc<ClientConfig>, String> {
        if let Some(tls) = self.tls.get() {
            return Ok(Arc::clone(tls));
        }
        let tls = client_config(&ServersTransport::default())?;
        Ok(Arc::clone(self.tls.get_or_init(|| tls)))
    }
}

fn client_config(transport: &ServersTransport) -> Result<Arc<ClientConfig>, String> {
    tls::client_config(transport, Alpn::Http1).map_err(|problems| problems.join("; "))
}

impl fmt::Display for TooLate {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("it waited longer than a call may take")
    }
}

impl std::error::Error for TooLate {}

impl fmt::Display for SleepsTooLong {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("it wants to wait longer than a call may take")
    }
}

impl std::error::Error for SleepsTooLong {}

fn request(asked: &Request, url: Uri) -> Result<http::Request<Bytes>, Error> {
    let unusable = |problem: String| error(ErrorKind::Internal, format!("make a request: {problem}"));
    if asked.body.len() > REQUEST_BODY_AT_MOST {
        let message = format!("send {} bytes: at most {REQUEST_BODY_AT_MOST} are sent", asked.body.len());
        return Err(error(ErrorKind::TooLarge, message));
    }
    let method = Method::from_bytes(asked.method.as_bytes())
        .ok()
        .filter(|method| *method != Method::CONNECT && *method != Method::TRACE)
        .ok_or_else(|| unusable(format!("the method {:?} cannot be used", asked.method)))?;
    let mut request = http::Request::new(Bytes::from(asked.body.clone()));
    *request.headers_mut() = headers(&asked.headers).map_err(unusable)?;
    *request.method_mut() = method;
    *request.uri_mut() = url;
    Ok(request)
}

fn headers(asked: &[(String, Vec<u8>)]) -> Result<HeaderMap, String> {
    if asked.len() > REQUEST_HEADERS_AT_MOST {
        return Err(format!("it has more than {REQUEST_HEADERS_AT_MOST} headers"));
    }
    let mut headers = HeaderMap::new();
    for (name, value) in asked {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| format!("{name:?} is no header name"))?;
        if is_ours(&name) {
            return Err(format!("the header `{name}` is for the proxy to set"));
        }
        // The value may be a secret, and is not repeated.
        let mut value = HeaderValue::from_bytes(value).map_err(|_| format!("the value of `{name}` cannot be sent"))?;
        value.set_sensitive(name == AUTHORIZATION);
        headers.append(name, value);
    }
    Ok(headers)
}

/// What frames a message, chooses the host behind an address, or is for the next hop alone.
fn is_ours(name: &HeaderName) -> bool {
    [CONNECTION, CONTENT_LENGTH, EXPECT, HOST, TE, TRAILER, TRANSFER_ENCODING, UPGRADE].contains(name)
        || name.as_str().starts_with("proxy-")
        || name == "keep-alive"
}

/// The same as servers of routers have, but for file names: a guest must not have files read.
fn transport(tls: &ClientTls) -> Result<ServersTransport, String> {
    let pem = |text: &Option<String>, what: &str| match text {
        Some(text) if !text.contains("-----BEGIN ") => Err(format!("use {what}: it is no PEM text")),
        Some(text) => Ok(Some(text.clone())),
        None => Ok(None),
    };
    let ca = pem(&tls.ca, "the authority")?;
    let certificate = pem(&tls.certificate, "the client certificate")?;
    let key = pem(&tls.key, "the client certificate's key")?;
    let certificates = match (certificate, key) {
        (Some(cert_file), Some(key_file)) => vec![Certificate { cert_file, key_file, ..Certificate::default() }],
        (None, None) => Vec::new(),
        _ => return Err("use half a client certificate: both certificate and key are needed".to_owned()),
    };
    Ok(ServersTransport {
        root_cas: ca.into_iter().collect(),
        certificates,
        insecure_skip_verify: tls.insecure_skip_verify,
        ..ServersTransport::default()
    })
}

fn unanswered(origin: &WebOrigin, problem: &FetchError) -> Error {
    let kind = match problem {
        FetchError::Denied { host, address } => {
            let message = format!(
                "reach `{host}`, which is at {address}: only a host that a variable of the plugin names may be outside \
                 the public internet"
            );
            return error(ErrorKind::Denied, message);
        }
        FetchError::Unusable(_) => ErrorKind::Internal,
        FetchError::Timeout(_) => ErrorKind::Timeout,
        FetchError::TooLarge(_) => ErrorKind::TooLarge,
        FetchError::Unreachable(_) | FetchError::Untrusted(_) | FetchError::Broken(_) => ErrorKind::Unavailable,
    };
    error(kind, format!("ask `{origin}`: {problem}"))
}

fn error(kind: ErrorKind, message: impl Into<String>) -> Error {
    Error { kind, message: message.into(), retry_after_ms: None }
}
