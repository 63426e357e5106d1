//! A listener: accepts connections, agrees on TLS and the version of HTTP, and answers each request on them.
//!
//! `server` starts one per entry point and worker. It finds the route in the live snapshot anew for each request, so that
//! kept-alive connections see a reload. It never reads configuration.

mod exchange;
mod forwarded;
mod head;
mod hop;
mod io;
mod request_line;

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use arc_swap::ArcSwap;
use http::HeaderValue;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::server::Acceptor;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

pub use self::forwarded::Trust;
pub use self::io::Limits;
use self::io::{Activity, Timed};
use self::request_line::RequestLines;
use crate::http::{Causes, Connection, LocalExecutor, TlsSession};
use crate::middleware::Resources;
use crate::snapshot::Snapshot;
use crate::target::Paths;
use crate::telemetry::AccessLog;
use crate::tls;

/// The first bytes of HTTP/2 with prior knowledge (RFC 9113, section 3.4).
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How long a listener rests after it could not accept, for want of file descriptors for example.
const REST_AFTER_FAILURE: Duration = Duration::from_millis(100);

/// The settings of an entry point that hold until the process ends.
#[derive(Debug)]
pub struct EntryPoint {
    pub name: Arc<str>,
    pub trust: Trust,
    /// Whether clients' addresses are added to `X-Forwarded-For`.
    pub append_client_address: bool,
    pub paths: Paths,
    /// What becomes of fields whose names may be taken for others'.
    pub aliases: Aliases,
    pub limits: Limits,
    pub keep_alive_time_at_most: Option<Duration>,
    pub keep_alive_requests_at_most: Option<u64>,
    pub header_bytes_at_most: usize,
    pub http2_streams_at_most: u32,
    pub access_log: bool,
}

/// Traefik's `aliasHeadersStrategy`: names with `_` or `.`, in which servers may see a `-`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Aliases {
    /// Only those of fields that the proxy manages are removed.
    #[default]
    Keep,
    /// Those with one of these characters are removed.
    Delete(&'static [u8]),
    /// A request with one of these characters is refused.
    Reject(&'static [u8]),
}

/// What one worker brings to the connections that it serves.
pub struct Worker {
    pub live: Live,
    pub resources: Resources,
    pub access_log: Option<Arc<AccessLog>>,
    /// This host's name, for `X-Forwarded-Server`.
    pub host_name: HeaderValue,
    /// Failures are logged once a second at most.
    pub last_failure: Cell<Option<Instant>>,
}

/// A worker's view of the live snapshot: its requests count their references to it without touching what the other
/// workers count.
pub struct Live {
    shared: Arc<ArcSwap<Snapshot>>,
    seen: RefCell<Local>,
}

/// The inner count is shared by all workers, the outer one is this worker's.
type Local = Rc<Arc<Snapshot>>;

impl Live {
    pub fn new(shared: Arc<ArcSwap<Snapshot>>) -> Self {
        let seen = RefCell::new(Rc::new(shared.load_full()));
        Self { shared, seen }
    }

    /// The live snapshot. To ask now and then lets go of the one before, even when no request comes.
    pub fn snapshot(&self) -> Local {
        let live = self.shared.load();
        let mut seen = self.seen.borrow_mut();
        if !Arc::ptr_eq(&live, &seen) {
            *seen = Rc::new(Arc::clone(&live));
        }
        Rc::clone(&seen)
    }
}

/// When to stop: set to true, connections finish the requests they have and end.
pub type Draining = watch::Receiver<bool>;

/// Accepts connections until it drains. Each holds a clone of `open` while it lasts.
pub async fn serve(
    listener: TcpListener,
    entry_point: Arc<EntryPoint>,
    worker: Rc<Worker>,
    mut draining: Draining,
    open: mpsc::Sender<()>,
) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = draining.wait_for(|draining| *draining) => return,
        };
        match accepted {
            Ok((stream, client)) => {
                let connecting = Connecting {
                    entry_point: Arc::clone(&entry_point),
                    worker: Rc::clone(&worker),
                    draining: draining.clone(),
                    client,
                };
                let open = open.clone();
                spawn_local(async move {
                    connecting.serve(stream).await;
                    drop(open);
                });
            }
            Err(error) => {
                tracing::warn!(entry_point = &*entry_point.name, "failed to accept a connection: {error}");
                sleep(REST_AFTER_FAILURE).await;
            }
        }
    }
}

/// A connection before it has said what it speaks.
struct Connecting {
    entry_point: Arc<EntryPoint>,
    worker: Rc<Worker>,
    draining: Draining,
    client: SocketAddr,
}

/// A connection that requests come on.
pub(crate) struct Served {
    entry_point: Arc<EntryPoint>,
    worker: Rc<Worker>,
    connection: Arc<Connection>,
    activity: Arc<Activity>,
    /// The TLS option set that was agreed on; `None` without TLS.
    tls_options: Option<String>,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.worker.resources.pools.forget(&self.connection);
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Speaks {
    Tls,
    Http1,
    Http2,
}

impl Connecting {
    async fn serve(self, stream: TcpStream) {
        let limit = self.entry_point.limits.head;
        let opening = async {
            stream.set_nodelay(true)?;
            match first_bytes(&stream).await? {
                Speaks::Tls => self.handshake(stream).await,
                speaks => Ok(Opened::Plain(stream, speaks)),
            }
        };
        let opened = match limit {
            None => opening.await,
            Some(limit) => timeout(limit, opening).await.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into())),
        };
        match opened {
            Ok(Opened::Plain(stream, speaks)) => self.serve_http(stream, speaks, None).await,
            Ok(Opened::Tls(stream, options)) => {
                let speaks = match stream.get_ref().1.alpn_protocol() {
                    Some(b"h2") => Speaks::Http2,
                    _ => Speaks::Http1,
                };
                let session = session(&stream);
                self.serve_http(stream, speaks, Some((session, options))).await;
            }
            Ok(Opened::Refused) => {}
            Err(error) => {
                tracing::debug!(client = %self.client, "a connection ended before its first request: {}", Causes(&error));
            }
        }
    }

    /// Agrees on TLS with the options of the host that the client names.
    async fn handshake(&self, stream: TcpStream) -> std::io::Result<Opened> {
        let start = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
        let hello = start.client_hello();
        let server_name = hello.server_name();
        let snapshot = self.worker.live.snapshot();
        let name = &self.entry_point.name;
        let options = snapshot.tls.option_set_of(name, server_name.unwrap_or_default()).to_owned();
        match snapshot.tls.server_config(name, server_name) {
            Ok(config) => start.into_stream(config).await.map(|stream| Opened::Tls(Box::new(stream), options)),
            Err(refused) => {
                tracing::debug!(client = %self.client, "refused a TLS handshake: {refused}");
                Ok(Opened::Refused)
            }
        }
    }

    async fn serve_http<S>(self, stream: S, speaks: Speaks, tls: Option<(TlsSession, String)>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Self { entry_point, worker, draining, client } = self;
        let activity = Activity::new(entry_point.limits);
        let (session, tls_options) = tls.unzip();
        let connection = Arc::new(Connection {
            client,
            client_address: address_field(client),
            append_client_address: entry_point.append_client_address,
            entry_point: Arc::clone(&entry_point.name),
            tls: session,
        });
        let stream = Timed::new(stream, Arc::clone(&activity));
        let lines = Arc::clone(&activity);
        let served = Rc::new(Served { entry_point, worker, connection, activity, tls_options });
        let ended = match speaks {
            Speaks::Http2 => serve_http2(TokioIo::new(stream), served, draining).await,
            Speaks::Http1 | Speaks::Tls => {
                serve_http1(TokioIo::new(RequestLines::new(stream, lines)), served, draining).await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%client, "a connection was cut: {}", Causes(&error));
        }
    }
}

enum Opened {
    Plain(TcpStream, Speaks),
    /// With the name of the option set.
    Tls(Box<TlsStream<TcpStream>>, String),
    /// The options of the host refuse every handshake.
    Refused,
}

async fn serve_http1<S>(stream: TokioIo<S>, served: Rc<Served>, mut draining: Draining) -> hyper::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = http1::Builder::new();
    builder.header_read_timeout(None).title_case_headers(true);
    builder.max_buf_size(served.entry_point.header_bytes_at_most.max(8 << 10));
    let requests = service_fn(|request| exchange::answer(Rc::clone(&served), request));
    let mut connection = pin!(builder.serve_connection(stream, requests).with_upgrades());
    if let Some(ended) = until_draining(connection.as_mut(), &mut draining).await {
        return ended;
    }
    connection.as_mut().graceful_shutdown();
    connection.await
}

async fn serve_http2<S>(stream: TokioIo<S>, served: Rc<Served>, mut draining: Draining) -> hyper::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let mut builder = http2::Builder::new(LocalExecutor);
    builder.timer(TokioTimer::new());
    builder.max_concurrent_streams(served.entry_point.http2_streams_at_most);
    builder.max_header_list_size(u32::try_from(served.entry_point.header_bytes_at_most).unwrap_or(u32::MAX));
    let requests = service_fn(move |request| exchange::answer(Rc::clone(&served), request));
    let mut connection = pin!(builder.serve_connection(stream, requests));
    if let Some(ended) = until_draining(connection.as_mut(), &mut draining).await {
        return ended;
    }
    connection.as_mut().graceful_shutdown();
    connection.await
}

/// Drives a connection until it ends; `None` when the proxy drains first.
///
/// Unlike `select!` it asks whether to drain once, for the waker, and then again only when that has changed: a connection
/// is polled several times for each request.
async fn until_draining<C: Future>(mut connection: Pin<&mut C>, draining: &mut Draining) -> Option<C::Output> {
    let changes = draining.clone();
    let mut drains = pin!(draining.wait_for(|draining| *draining));
    let mut waits = false;
    std::future::poll_fn(move |context| {
        if let Poll::Ready(ended) = connection.as_mut().poll(context) {
            return Poll::Ready(Some(ended));
        }
        if waits && !changes.has_changed().unwrap_or(true) {
            return Poll::Pending;
        }
        waits = true;
        drains.as_mut().poll(context).map(|_| None)
    })
    .await
}

/// What a connection speaks, by its first bytes, which stay unread: every entry point takes TLS and clear text.
async fn first_bytes(stream: &TcpStream) -> std::io::Result<Speaks> {
    const TLS_HANDSHAKE: u8 = 22;
    /// No method starts like this, so that three bytes decide.
    const ENOUGH: usize = 3;

    let mut bytes = [0; HTTP2_PREFACE.len()];
    loop {
        let count = stream.peek(&mut bytes).await?;
        match &bytes[..count] {
            [] => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            [TLS_HANDSHAKE, ..] => return Ok(Speaks::Tls),
            some if !HTTP2_PREFACE.starts_with(some) => return Ok(Speaks::Http1),
            some if some.len() >= ENOUGH => return Ok(Speaks::Http2),
            // The bytes at hand would be reported as readable again and again.
            _ => sleep(Duration::from_millis(5)).await,
        }
    }
}

fn session(stream: &TlsStream<TcpStream>) -> TlsSession {
    let tls = stream.get_ref().1;
    TlsSession {
        server_name: tls.server_name().map(str::to_ascii_lowercase),
        version: tls::version_name(tls.protocol_version()),
        cipher: tls.negotiated_cipher_suite().map_or("", |suite| tls::cipher_name(suite.suite())),
        client_certificates: tls
            .peer_certificates()
            .map(|chain| chain.iter().map(|certificate| certificate.to_vec()).collect())
            .unwrap_or_default(),
    }
}

fn address_field(client: SocketAddr) -> HeaderValue {
    let address = client.ip().to_canonical().to_string();
    HeaderValue::try_from(address).expect("an IP address has no characters that a field value may not have")
}
