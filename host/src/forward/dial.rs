//! A new connection to a server: TCP, TLS, and the HTTP version that both sides speak.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};

use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::spawn_local;
use tokio_rustls::TlsConnector;

use super::sender::Sender;
use super::{Protocol, Upstream};
use crate::http::{Body, Failure, LocalExecutor};

/// What a server may send at most before the head of its answer is complete: interim responses and the head itself.
const HEADS_AT_MOST: usize = 1 << 20;

/// hyper doubles its buffer as long as reads fill it, up to what a head may have. So much is enough at a time.
const READ_AT_MOST: u64 = 128 << 10;

const UNLIMITED: usize = usize::MAX;

/// The fields of a head in HTTP/2, as they are counted there (RFC 9113, section 6.5.2).
const HTTP2_HEAD_AT_MOST: u32 = 256 << 10;

/// What the connection is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    Exchange,
    /// A tunnel needs HTTP/1.1, whatever else the server offers.
    Upgrade,
    /// So does a login that holds for a connection; where a server speaks nothing but HTTP/2, it is at least alone there.
    Pinned,
}

pub(super) async fn connect(upstream: &Upstream, purpose: Purpose) -> Result<Sender, Failure> {
    let dialling = dial(upstream, purpose);
    match upstream.transport.dial_timeout {
        None => dialling.await,
        Some(limit) => tokio::time::timeout(limit, dialling)
            .await
            .unwrap_or(Err(Failure::ServerTimeout("no connection within `dialTimeout`"))),
    }
}

async fn dial(upstream: &Upstream, purpose: Purpose) -> Result<Sender, Failure> {
    let stream = TcpStream::connect((upstream.host.as_str(), upstream.port)).await.map_err(unreachable)?;
    stream.set_nodelay(true).map_err(unreachable)?;
    match upstream.protocol {
        Protocol::Http => http1(stream).await,
        Protocol::H2c if purpose == Purpose::Upgrade => http1(stream).await,
        Protocol::H2c => http2(stream, upstream).await,
        Protocol::Https => {
            let stream = handshake(upstream, stream, purpose).await?;
            match stream.get_ref().1.alpn_protocol() {
                Some(b"h2") => http2(stream, upstream).await,
                _ => http1(stream).await,
            }
        }
    }
}

async fn handshake(
    upstream: &Upstream,
    stream: TcpStream,
    purpose: Purpose,
) -> Result<tokio_rustls::client::TlsStream<TcpStream>, Failure> {
    let transport = &upstream.transport;
    let name = transport.server_name.as_deref().unwrap_or(&upstream.host).to_owned();
    let name = ServerName::try_from(name).map_err(|error| Failure::BadServer(error.into()))?;
    let mut tls = Arc::clone(&transport.tls);
    if purpose != Purpose::Exchange {
        Arc::make_mut(&mut tls).alpn_protocols = vec![b"http/1.1".to_vec()];
    }
    TlsConnector::from(tls).connect(name, stream).await.map_err(|error| {
        let tls = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
        let is_untrusted = matches!(tls, Some(rustls::Error::InvalidCertificate(_)));
        if is_untrusted { Failure::BadServer(error.into()) } else { unreachable(error) }
    })
}

async fn http1<S>(stream: S) -> Result<Sender, Failure>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    // Names as browsers and Go write them: some servers compare them letter by letter.
    let mut builder = http1::Builder::new();
    // Most requests are a head alone, which one plain write sends for less than a vectored one.
    builder.title_case_headers(true).writev(false);
    let wire = Wire::default();
    let stream = Wired { stream, wire: wire.clone() };
    let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(super::failure)?;
    spawn_local(connection.with_upgrades());
    Ok(Sender::Http1(sender, wire))
}

async fn http2<S>(stream: S, upstream: &Upstream) -> Result<Sender, Failure>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let mut builder = http2::Builder::new(LocalExecutor);
    builder.timer(TokioTimer::new()).max_header_list_size(HTTP2_HEAD_AT_MOST);
    if let Some((silence, answer)) = upstream.transport.ping {
        builder.keep_alive_interval(silence).keep_alive_timeout(answer).keep_alive_while_idle(true);
    }
    let (sender, connection) = builder.handshake::<_, Body>(TokioIo::new(stream)).await.map_err(super::failure)?;
    spawn_local(connection);
    Ok(Sender::Http2(sender))
}

fn unreachable(error: io::Error) -> Failure {
    if error.kind() == io::ErrorKind::TimedOut {
        return Failure::ServerTimeout("the server's host does not answer");
    }
    Failure::Unreachable(error.into())
}

/// What the requests on a connection of HTTP/1.1 and its bytes must know of one another.
#[derive(Clone)]
pub(super) struct Wire(Arc<Expected>);

struct Expected {
    /// The next head to be written asks for a websocket. It is all that there is to write then.
    websocket: AtomicBool,
    /// How many more bytes the server may send before the head of its answer is complete.
    head_bytes: AtomicUsize,
}

impl Default for Wire {
    fn default() -> Self {
        Self(Arc::new(Expected { websocket: AtomicBool::new(false), head_bytes: AtomicUsize::new(UNLIMITED) }))
    }
}

impl Wire {
    pub(super) fn announce_websocket(&self) {
        self.0.websocket.store(true, Ordering::Relaxed);
    }

    pub(super) fn head_expected(&self) {
        self.0.head_bytes.store(HEADS_AT_MOST, Ordering::Relaxed);
    }

    pub(super) fn is_silent(&self) -> bool {
        self.0.head_bytes.load(Ordering::Relaxed) == HEADS_AT_MOST
    }

    pub(super) fn head_received(&self) {
        self.0.head_bytes.store(UNLIMITED, Ordering::Relaxed);
    }

    /// Bytes have come. There is no other end to interim responses (RFC 9110, section 15.2).
    fn count(&self, bytes: usize) -> io::Result<()> {
        let left = self.0.head_bytes.load(Ordering::Relaxed);
        if left == UNLIMITED {
            return Ok(());
        }
        let left = left.checked_sub(bytes).ok_or_else(|| io::Error::other("the head of the answer has no end"))?;
        self.0.head_bytes.store(left, Ordering::Relaxed);
        Ok(())
    }
}

/// A connection's stream. Writes `Sec-WebSocket-…` as RFC 6455 spells it, where title case would give `Sec-Websocket-…`.
struct Wired<S> {
    stream: S,
    wire: Wire,
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Wired<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        const WRITTEN: &[u8] = b"\r\nSec-Websocket-";
        const SPELLED: &[u8] = b"\r\nSec-WebSocket-";

        if !self.wire.0.websocket.load(Ordering::Relaxed) {
            return Pin::new(&mut self.stream).poll_write(context, bytes);
        }
        let mut head = bytes.to_vec();
        let mut from = 0;
        while let Some(found) = head[from..].windows(WRITTEN.len()).position(|window| window == WRITTEN) {
            let at = from + found;
            head[at..at + SPELLED.len()].copy_from_slice(SPELLED);
            from = at + SPELLED.len();
        }
        let written = Pin::new(&mut self.stream).poll_write(context, &head);
        if let Poll::Ready(Ok(count)) = written {
            self.wire.0.websocket.store(count < bytes.len(), Ordering::Relaxed);
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Wired<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut (&mut self.stream).take(READ_AT_MOST)).poll_read(context, buffer);
        if let Poll::Ready(Ok(())) = read {
            self.wire.count(buffer.filled().len() - before)?;
        }
        read
    }
}
