//! A listener: accepts connections, agrees on TLS and the version of HTTP, and answers each request on them.
//!
//! `server` starts one per entry point and worker. It finds the route in the live snapshot anew for each request, so that
//! kept-alive connections see a reload. It never reads configuration.

mod admission;
mod challenge;
mod exchange;
pub mod forwarded;
mod frames;
mod head;
mod hop;
mod inspected;
mod io;
mod pace;
mod request_line;
mod stream;
mod turns;
mod unfinished;
mod watched;

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::task::Poll;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::BytesMut;
use http::{HeaderName, HeaderValue};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::server::Acceptor;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

pub use self::admission::{Admission, Pressure};
pub use self::forwarded::Trust;
pub use self::io::{Limits, Sending};
pub use self::pace::Reception;

use self::admission::{Decision, Ticket};
use self::inspected::Inspected;
use self::io::{Activity, Timed};
use self::request_line::RequestLines;
use self::stream::Streams;
use self::unfinished::{Outgoing, Unfinished};
use self::watched::Watched;
use crate::acme::Answers;
use crate::http::{Causes, Connection, TlsSession};
use crate::middleware::Resources;
use crate::snapshot::Snapshot;
use crate::target::Paths;
use crate::telemetry::{AccessLog, Meter};
use crate::tls;

/// The first bytes of HTTP/2 with prior knowledge (RFC 9113, section 3.4).
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What a stream may send ahead of its server.
const STREAM_WINDOW: u32 = 512 << 10;

/// What all streams of a connection may.
const CONNECTION_WINDOW: u32 = 1 << 20;

/// What a stream keeps of a response for which the client has no room yet.
const SEND_BUFFER: usize = 64 << 10;

/// After so many streams that a client began and broke, or began although there were enough, its connection ends.
const BROKEN_STREAMS_AT_MOST: usize = 300;

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
    /// Fields that middlewares see although `Connection` names them.
    pub kept_for_middlewares: Vec<HeaderName>,
    /// What becomes of fields whose names may be taken for others'.
    pub aliases: Aliases,
    pub limits: Limits,
    pub keep_alive_time_at_most: Option<Duration>,
    pub keep_alive_requests_at_most: Option<u64>,
    pub header_bytes_at_most: usize,
    pub http2_streams_at_most: u32,
    pub access_log: bool,
    /// Whether requests that no router is found for are counted; routers say it of theirs.
    pub metrics: bool,
    /// Whether handshakes of TLS-ALPN-01 are answered here.
    pub answers_tls_alpn: bool,
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

impl EntryPoint {
    /// Indexed fields cost their sender a byte, so that the bytes of a head are no measure of it in HTTP/2.
    fn http2_header_bytes_at_most(&self) -> u32 {
        const LIMIT: u32 = 128 << 10;
        u32::try_from(self.header_bytes_at_most).unwrap_or(LIMIT).min(LIMIT)
    }
}

/// What one worker brings to the connections that it serves.
pub struct Worker {
    pub live: Live,
    pub resources: Resources,
    pub access_log: Option<Arc<AccessLog>>,
    pub meter: Option<Rc<Meter>>,
    pub admission: Arc<Admission>,
    /// To challenges of ACME.
    pub answers: Answers,
    /// How many requests are in flight.
    pub requests: Arc<AtomicUsize>,
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
    let mut complaint = Complaint::default();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = draining.wait_for(|draining| *draining) => return,
        };
        let (stream, client) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                complaint.log(|| {
                    let name = &*entry_point.name;
                    tracing::warn!(entry_point = name, "failed to accept a connection: {error}");
                });
                sleep(REST_AFTER_FAILURE).await;
                continue;
            }
        };
        let ticket = match worker.admission.decide(client.ip()) {
            Decision::LetIn(ticket) => ticket,
            Decision::Refused => continue,
            Decision::Full => {
                complaint.log(|| {
                    let connections = worker.admission.open();
                    tracing::warn!(connections, "there are as many connections as there may be: new ones wait");
                });
                let ticket = tokio::select! {
                    ticket = worker.admission.wait(client.ip()) => ticket,
                    _ = draining.wait_for(|draining| *draining) => return,
                };
                let Some(ticket) = ticket else { continue };
                ticket
            }
        };
        let connecting = Connecting {
            entry_point: Arc::clone(&entry_point),
            worker: Rc::clone(&worker),
            draining: draining.clone(),
            client,
        };
        let open = open.clone();
        let counted = worker.meter.as_ref().map(|meter| meter.open(&entry_point.name));
        spawn_local(async move {
            connecting.serve(stream, ticket).await;
            drop((open, counted));
        });
    }
}

/// Something that would fill the log if it were said each time.
#[derive(Default)]
struct Complaint(Option<Instant>);

impl Complaint {
    const INTERVAL: Duration = Duration::from_secs(60);

    fn log(&mut self, log: impl FnOnce()) {
        if self.0.is_none_or(|last| last.elapsed() >= Self::INTERVAL) {
            self.0 = Some(Instant::now());
            log();
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
    async fn serve(self, stream: TcpStream, ticket: Ticket) {
        // What a handshake or a request needs for a moment is not kept with connections that are idle.
        let opened = Box::pin(self.open(stream, ticket)).await;
        match opened {
            Ok(Opened::Plain(socket, speaks)) => {
                let activity = Arc::clone(socket.activity());
                self.serve_http(socket, activity, speaks, None).await;
            }
            Ok(Opened::Tls(stream, options)) => {
                let (socket, tls) = stream.get_ref();
                let speaks = match tls.alpn_protocol() {
                    Some(b"h2") => Speaks::Http2,
                    _ => Speaks::Http1,
                };
                let activity = Arc::clone(socket.activity());
                let session = session(&stream);
                self.serve_http(stream, activity, speaks, Some((session, options))).await;
            }
            Ok(Opened::Refused) => {}
            Err(error) => {
                tracing::debug!(client = %self.client, "a connection ended before its first request: {}", Causes(&error));
            }
        }
    }

    async fn open(&self, stream: TcpStream, ticket: Ticket) -> std::io::Result<Opened> {
        stream.set_nodelay(true)?;
        let activity = Activity::new(self.entry_point.limits, Arc::clone(&self.worker.requests));
        let mut socket = Timed::new(stream, activity, ticket);
        match first_bytes(&mut socket).await? {
            Speaks::Tls => self.handshake(socket).await,
            speaks => Ok(Opened::Plain(socket, speaks)),
        }
    }

    /// Agrees on TLS with the options of the host that the client names.
    async fn handshake(&self, socket: Timed) -> std::io::Result<Opened> {
        let start = LazyConfigAcceptor::new(Acceptor::default(), socket).await?;
        let hello = start.client_hello();
        let server_name = hello.server_name();
        if self.entry_point.answers_tls_alpn && challenge::is_offered(&hello) {
            let proof = self.worker.answers.tls_alpn(server_name.unwrap_or_default());
            challenge::answer(start, proof).await?;
            return Ok(Opened::Refused);
        }
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

    async fn serve_http<S>(self, stream: S, activity: Arc<Activity>, speaks: Speaks, tls: Option<(TlsSession, String)>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Self { entry_point, worker, draining, client } = self;
        activity.opens(speaks == Speaks::Http2);
        let (session, tls_options) = tls.unzip();
        let connection = Arc::new(Connection {
            client,
            client_address: address_field(client),
            append_client_address: entry_point.append_client_address,
            entry_point: Arc::clone(&entry_point.name),
            tls: session,
        });
        let served = Rc::new(Served { entry_point, worker, connection, activity, tls_options });
        let activity = Arc::clone(&served.activity);
        let ended = match speaks {
            Speaks::Http2 => {
                let unfinished = Unfinished::new(Arc::clone(&activity));
                let stream = Outgoing::new(stream, unfinished.clone(), Arc::clone(&activity));
                let look = frames::counting(activity, unfinished);
                Box::pin(serve_http2(TokioIo::new(Inspected::new(stream, look)), served, draining)).await
            }
            Speaks::Http1 | Speaks::Tls => {
                let mut lines = RequestLines::new(activity);
                let look = move |bytes: &[u8]| {
                    lines.look(bytes);
                    Ok(())
                };
                serve_http1(TokioIo::new(Inspected::new(stream, look)), served, draining).await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%client, "a connection was cut: {}", Causes(&error));
        }
    }
}

#[expect(clippy::large_enum_variant, reason = "there is one, for a moment, for each connection")]
enum Opened {
    Plain(Timed, Speaks),
    /// With the name of the option set.
    Tls(Box<TlsStream<Timed>>, String),
    /// There is nothing to serve: the options of the host refuse every handshake, or a CA has had its proof.
    Refused,
}

async fn serve_http1<S>(stream: TokioIo<S>, served: Rc<Served>, mut draining: Draining) -> hyper::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = http1::Builder::new();
    builder.header_read_timeout(None).title_case_headers(true);
    builder.max_buf_size(served.entry_point.header_bytes_at_most.max(8 << 10));
    let requests = service_fn(|request| {
        let client = Watched::Http1(Arc::clone(&served.activity));
        Box::pin(exchange::answer(Rc::clone(&served), request, client))
    });
    let mut connection = pin!(builder.serve_connection(stream, requests).with_upgrades());
    if let Some(ended) = until_draining(connection.as_mut(), &mut draining, || false).await {
        return ended;
    }
    connection.as_mut().graceful_shutdown();
    connection.await
}

async fn serve_http2<S>(stream: TokioIo<S>, served: Rc<Served>, mut draining: Draining) -> hyper::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let activity = Arc::clone(&served.activity);
    let streams = Streams::new(Arc::clone(&activity));
    let mut builder = http2::Builder::new(streams.clone());
    builder.timer(TokioTimer::new());
    builder.max_concurrent_streams(served.entry_point.http2_streams_at_most);
    builder.max_header_list_size(served.entry_point.http2_header_bytes_at_most());
    builder.initial_stream_window_size(STREAM_WINDOW).initial_connection_window_size(CONNECTION_WINDOW);
    builder.max_send_buf_size(SEND_BUFFER);
    builder.max_local_error_reset_streams(BROKEN_STREAMS_AT_MOST);
    let requests = service_fn(move |mut request| {
        let stream = streams.begin(&request);
        let has_turn = stream.has_turn();
        if !has_turn {
            head::compact(request.headers_mut());
        }
        let served = Rc::clone(&served);
        async move {
            if !has_turn {
                stream.turn().await;
            }
            let client = Watched::Http2(Arc::clone(&served.activity), stream);
            // Its many kilobytes are not moved about with the stream's task, and not kept for a client that takes its time.
            Box::pin(exchange::answer(served, request, client)).await
        }
    });
    let mut connection = pin!(builder.serve_connection(stream, requests));
    if let Some(ended) = until_draining(connection.as_mut(), &mut draining, || activity.is_retired()).await {
        return ended;
    }
    connection.as_mut().graceful_shutdown();
    connection.await
}

/// Drives a connection until it ends; `None` when the proxy drains first, or the connection is to take no more requests.
///
/// Unlike `select!` it asks whether to drain once, for the waker, and then again only when that has changed: a connection
/// is polled several times for each request.
async fn until_draining<C: Future>(
    mut connection: Pin<&mut C>,
    draining: &mut Draining,
    is_retired: impl Fn() -> bool,
) -> Option<C::Output> {
    let changes = draining.clone();
    let mut drains = pin!(draining.wait_for(|draining| *draining));
    let mut waits = false;
    std::future::poll_fn(move |context| {
        if let Poll::Ready(ended) = connection.as_mut().poll(context) {
            return Poll::Ready(Some(ended));
        }
        if is_retired() {
            return Poll::Ready(None);
        }
        if waits && !changes.has_changed().unwrap_or(true) {
            return Poll::Pending;
        }
        waits = true;
        drains.as_mut().poll(context).map(|_| None)
    })
    .await
}

/// What a connection speaks, by its first bytes, which are read again later: every entry point takes TLS and clear text.
async fn first_bytes(socket: &mut Timed) -> std::io::Result<Speaks> {
    const TLS_HANDSHAKE: u8 = 22;
    /// No method starts like this, so that three bytes decide.
    const ENOUGH: usize = 3;
    /// A usual ClientHello, or the head of a request.
    const USUAL: usize = 2048;

    let mut bytes = BytesMut::with_capacity(USUAL);
    let speaks = loop {
        if socket.read_buf(&mut bytes).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        match &bytes[..] {
            [TLS_HANDSHAKE, ..] => break Speaks::Tls,
            some if some.len() >= ENOUGH && HTTP2_PREFACE.starts_with(&some[..ENOUGH]) => break Speaks::Http2,
            some if !HTTP2_PREFACE.starts_with(some) => break Speaks::Http1,
            _ => {}
        }
    };
    socket.put_back(bytes.freeze());
    Ok(speaks)
}

fn session(stream: &TlsStream<Timed>) -> TlsSession {
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
