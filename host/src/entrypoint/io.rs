//! The wrapper around a client's socket that ends connections on which nothing happens.
//!
//! The deadlines are here and not above hyper, whose timers do not know an idle connection from a slow one. One timer per
//! connection, set again only when it fires.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// Up to so many bytes, copying a head and its body together costs less than a vectored write.
const SMALL: usize = 1024;

/// How long a connection may take; `None` is for ever.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// From a connection's start, or a request's first byte, to the end of the request's head.
    pub head: Option<Duration>,
    /// From a response to the next request's first byte.
    pub idle: Option<Duration>,
}

/// What the socket and the requests on it tell each other.
pub(super) struct Activity {
    limits: Limits,
    start: Instant,
    /// Requests whose responses have not been written.
    in_flight: AtomicU32,
    /// Whether bytes have come since the last response.
    head_begun: AtomicBool,
    /// Milliseconds after `start` when the present wait began.
    since: AtomicU64,
    requests: AtomicU64,
    /// The connection is a tunnel now, and may be silent.
    is_tunnel: AtomicBool,
    /// Whether content of the last request may still come.
    has_content: AtomicBool,
    /// The last request whose target has a fragment, counted from 1.
    fragment: AtomicU64,
}

impl Activity {
    pub(super) fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self {
            limits,
            start: Instant::now(),
            in_flight: AtomicU32::new(0),
            head_begun: AtomicBool::new(true),
            since: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            is_tunnel: AtomicBool::new(false),
            has_content: AtomicBool::new(false),
            fragment: AtomicU64::new(0),
        })
    }

    pub(super) fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    pub(super) fn has_content(&self, has_content: bool) {
        self.has_content.store(has_content, Ordering::Relaxed);
    }

    /// Whether the next byte is the first one of a request.
    pub(super) fn is_between_requests(&self) -> bool {
        self.in_flight.load(Ordering::Relaxed) == 0 && !self.has_content.load(Ordering::Relaxed)
    }

    pub(super) fn found_fragment(&self, request: u64) {
        self.fragment.store(request, Ordering::Relaxed);
    }

    pub(super) fn has_fragment(&self, request: u64) -> bool {
        self.fragment.load(Ordering::Relaxed) == request
    }

    /// A request's head is complete. Answers how many there have been on this connection.
    pub(super) fn request_begins(&self) -> u64 {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        self.requests.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(super) fn request_ends(&self) {
        if self.in_flight.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.head_begun.store(false, Ordering::Relaxed);
            self.wait_begins();
        }
    }

    pub(super) fn becomes_tunnel(&self) {
        self.is_tunnel.store(true, Ordering::Relaxed);
    }

    pub(super) fn age(&self) -> Duration {
        self.start.elapsed()
    }

    fn wait_begins(&self) {
        let now = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.since.store(now, Ordering::Relaxed);
    }

    fn bytes_came(&self) {
        if self.in_flight.load(Ordering::Relaxed) == 0 && !self.head_begun.swap(true, Ordering::Relaxed) {
            self.wait_begins();
        }
    }

    fn deadline(&self) -> Option<Instant> {
        if self.is_tunnel.load(Ordering::Relaxed) || self.in_flight.load(Ordering::Relaxed) > 0 {
            return None;
        }
        let begun = self.head_begun.load(Ordering::Relaxed);
        let limit = if begun { self.limits.head } else { self.limits.idle };
        limit.map(|limit| self.start + Duration::from_millis(self.since.load(Ordering::Relaxed)) + limit)
    }
}

/// A socket, or the TLS session on it, with deadlines.
pub(super) struct Timed<S> {
    stream: S,
    activity: Arc<Activity>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl<S> Timed<S> {
    pub(super) const fn new(stream: S, activity: Arc<Activity>) -> Self {
        Self { stream, activity, timer: None }
    }

    /// Ready when the present wait has lasted too long; else the task will be woken when it may have.
    fn poll_deadline(&mut self, context: &mut Context<'_>) -> Poll<()> {
        loop {
            let Some(deadline) = self.activity.deadline() else {
                return Poll::Pending;
            };
            // A timer that fires early costs one look; to move it at each request would cost more. It knows this task:
            // a connection never moves to another.
            if self.timer.as_ref().is_some_and(|timer| !timer.is_elapsed() && timer.deadline() <= deadline) {
                return Poll::Pending;
            }
            if deadline <= Instant::now() {
                return Poll::Ready(());
            }
            let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
            timer.as_mut().reset(deadline);
            if timer.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Timed<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        if let Poll::Ready(read) = Pin::new(&mut self.stream).poll_read(context, buffer) {
            if buffer.filled().len() > before {
                self.activity.bytes_came();
            }
            return Poll::Ready(read);
        }
        match self.poll_deadline(context) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Timed<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let length: usize = pieces.iter().map(|piece| piece.len()).sum();
        if length > SMALL || pieces.len() < 2 {
            return Pin::new(&mut self.stream).poll_write_vectored(context, pieces);
        }
        let mut whole = [0; SMALL];
        let mut at = 0;
        for piece in pieces {
            whole[at..at + piece.len()].copy_from_slice(piece);
            at += piece.len();
        }
        Pin::new(&mut self.stream).poll_write(context, &whole[..length])
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
