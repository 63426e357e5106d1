//! A new connection to a server: TCP, TLS, and the HTTP version that both sides speak.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::spawn_local;
use tokio_rustls::TlsConnector;

use super::{Protocol, Sender, Upstream};
use crate::http::{Body, Failure, LocalExecutor};

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
        let is_tls = error.get_ref().is_some_and(|cause| cause.is::<rustls::Error>());
        if is_tls { Failure::BadServer(error.into()) } else { unreachable(error) }
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
    let spelling = Spelling::default();
    let stream = Spelled { stream, spelling: spelling.clone() };
    let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(super::failure)?;
    spawn_local(connection.with_upgrades());
    Ok(Sender::Http1(sender, spelling))
}

async fn http2<S>(stream: S, upstream: &Upstream) -> Result<Sender, Failure>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let mut builder = http2::Builder::new(LocalExecutor);
    builder.timer(TokioTimer::new());
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

/// Says of a connection's next request that it asks for a websocket. Its head is all that there is to write.
#[derive(Clone, Default)]
pub(super) struct Spelling {
    is_websocket: Arc<AtomicBool>,
}

impl Spelling {
    pub(super) fn announce_websocket(&self) {
        self.is_websocket.store(true, Ordering::Relaxed);
    }
}

/// Writes `Sec-WebSocket-…` as RFC 6455 spells it, where title case would give `Sec-Websocket-…`.
struct Spelled<S> {
    stream: S,
    spelling: Spelling,
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Spelled<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        const WRITTEN: &[u8] = b"\r\nSec-Websocket-";
        const SPELLED: &[u8] = b"\r\nSec-WebSocket-";

        if !self.spelling.is_websocket.load(Ordering::Relaxed) {
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
            self.spelling.is_websocket.store(count < bytes.len(), Ordering::Relaxed);
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

impl<S: AsyncRead + Unpin> AsyncRead for Spelled<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}
