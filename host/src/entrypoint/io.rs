//! A client's socket, below TLS, which ends connections on which nothing happens.
//!
//! The deadlines are here and not above hyper, whose timers do not know an idle connection from a slow one. One timer per
//! connection, set again only when it fires. What happens between two requests is seen by whoever reads; time is asked
//! for only when the socket has nothing to give. Streams of HTTP/2 have deadlines of their own, in `stream`.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::admission::Ticket;
use super::pace::{Alarm, Pace, Reception};

/// Up to so many bytes, copying a head and its body together costs less than a vectored write.
const SMALL: usize = 1024;

/// After so long a full socket has given the client's host all that it takes without the client.
const SETTLED: Duration = Duration::from_secs(1);

/// How long a client may take; `None` is for ever.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// From a connection's start to its first byte and to the end of the TLS handshake.
    pub handshake: Option<Duration>,
    /// From then, or from a request's first byte, to the end of the request's head.
    pub head: Option<Duration>,
    pub body: Option<Reception>,
    /// From a response to the next request's first byte.
    pub idle: Option<Duration>,
    /// From the end of the last stream to the next one.
    pub http2_idle: Option<Duration>,
    pub send: Option<Sending>,
}

/// How long a client may take for a response.
#[derive(Clone, Copy, Debug)]
pub enum Sending {
    /// So long may it take nothing of what is there for it.
    Stalled(Duration),
    /// From the request's head to the response's end, however long the server takes.
    Whole(Duration),
}

/// What the socket and the requests on it tell each other.
pub(super) struct Activity {
    pub(super) limits: Limits,
    start: Instant,
    /// Whether TLS, or its absence, has been agreed on.
    open: AtomicBool,
    is_http2: AtomicBool,
    requests: AtomicU64,
    /// Requests in flight on all connections of the worker.
    of_worker: Arc<AtomicUsize>,
    /// Requests whose responses have not been written.
    in_flight: AtomicU32,
    /// Whether the request in flight has a body that is still to come, and no answer. HTTP/1.1 alone.
    awaits_body: AtomicBool,
    /// Milliseconds after `start` when the response in flight must have been written; 0: never.
    answer_by: AtomicU64,
    /// Whether a head is under way on an HTTP/2 connection, and the how-manieth.
    head_open: AtomicBool,
    heads: AtomicU64,
    /// What an HTTP/2 client has earned by the responses that it took; see `frames`.
    earned: AtomicU64,
    /// Streams of HTTP/2 whose responses have not been written to the last byte, and how many bytes of content have been
    /// written at all.
    unfinished: AtomicUsize,
    content: AtomicU64,
    /// Whether the socket takes no more bytes, and whom to wake when it does.
    is_full: AtomicBool,
    waits_for_room: Mutex<Option<Waker>>,
    /// The connection is a tunnel now, and may be silent.
    is_tunnel: AtomicBool,
    /// No more requests are to come on this connection.
    is_retired: AtomicBool,
    /// Whether content of the last request may still come.
    has_content: AtomicBool,
    /// The last request whose target has a fragment, counted from 1.
    fragment: AtomicU64,
}

impl Activity {
    pub(super) fn new(limits: Limits, of_worker: Arc<AtomicUsize>) -> Arc<Self> {
        Arc::new(Self {
            limits,
            start: Instant::now(),
            open: AtomicBool::new(false),
            is_http2: AtomicBool::new(false),
            requests: AtomicU64::new(0),
            of_worker,
            in_flight: AtomicU32::new(0),
            awaits_body: AtomicBool::new(false),
            answer_by: AtomicU64::new(0),
            head_open: AtomicBool::new(false),
            heads: AtomicU64::new(0),
            earned: AtomicU64::new(0),
            unfinished: AtomicUsize::new(0),
            content: AtomicU64::new(0),
            is_full: AtomicBool::new(false),
            waits_for_room: Mutex::default(),
            is_tunnel: AtomicBool::new(false),
            is_retired: AtomicBool::new(false),
            has_content: AtomicBool::new(false),
            fragment: AtomicU64::new(0),
        })
    }

    /// From here on requests may come.
    pub(super) fn opens(&self, is_http2: bool) {
        self.is_http2.store(is_http2, Ordering::Relaxed);
        self.open.store(true, Ordering::Relaxed);
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
        if let Some(Sending::Whole(limit)) = self.limits.send {
            let by = (self.start.elapsed() + limit).as_millis();
            self.answer_by.store(u64::try_from(by).unwrap_or(u64::MAX), Ordering::Relaxed);
        }
        self.of_worker.fetch_add(1, Ordering::Relaxed);
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        self.requests.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(super) fn request_ends(&self) {
        self.of_worker.fetch_sub(1, Ordering::Relaxed);
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn awaits_body(&self, awaits: bool) {
        self.awaits_body.store(awaits, Ordering::Relaxed);
    }

    /// Whether the last bytes of an HTTP/2 connection were within a head.
    pub(super) fn head_opens(&self, open: bool) {
        if self.head_open.swap(open, Ordering::Relaxed) != open && open {
            self.heads.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// An HTTP/2 client has made room for a piece of a response: it may send some frames for it.
    pub(super) fn earns(&self, bytes: usize) {
        self.earned.fetch_add(4 + (bytes >> 12) as u64, Ordering::Relaxed);
    }

    pub(super) fn earned(&self) -> u64 {
        self.earned.load(Ordering::Relaxed)
    }

    pub(super) fn becomes_tunnel(&self) {
        self.is_tunnel.store(true, Ordering::Relaxed);
    }

    pub(super) fn retire(&self) {
        self.is_retired.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_retired(&self) -> bool {
        self.is_retired.load(Ordering::Relaxed)
    }

    pub(super) fn is_full(&self) -> bool {
        self.is_full.load(Ordering::Relaxed)
    }

    pub(super) fn has_unfinished(&self, streams: usize) {
        self.unfinished.store(streams, Ordering::Relaxed);
    }

    pub(super) fn wrote_content(&self, bytes: usize) {
        self.content.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Ready when the socket takes bytes.
    pub(super) fn poll_room(&self, context: &Context<'_>) -> Poll<()> {
        if !self.is_full() {
            return Poll::Ready(());
        }
        let mut waits = self.waits_for_room.lock().unwrap_or_else(PoisonError::into_inner);
        *waits = Some(context.waker().clone());
        Poll::Pending
    }

    fn has_room(&self) {
        self.is_full.store(false, Ordering::Relaxed);
        let waits = self.waits_for_room.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(waker) = waits {
            waker.wake();
        }
    }

    pub(super) fn age(&self) -> Duration {
        self.start.elapsed()
    }

    /// What the next byte is waited for; `begun` is the request whose head has begun.
    fn stage(&self, begun: u64) -> Stage {
        if self.is_tunnel.load(Ordering::Relaxed) {
            return Stage::Ours;
        }
        if !self.open.load(Ordering::Relaxed) {
            return Stage::Handshake;
        }
        if self.head_open.load(Ordering::Relaxed) {
            return Stage::Head(self.heads.load(Ordering::Relaxed));
        }
        if self.in_flight.load(Ordering::Relaxed) > 0 {
            return if self.awaits_body.load(Ordering::Relaxed) { Stage::Body(self.requests()) } else { Stage::Ours };
        }
        let next = self.requests() + 1;
        if self.is_http2.load(Ordering::Relaxed) {
            return match self.unfinished.load(Ordering::Relaxed) {
                0 => Stage::NextStream(next),
                // A byte now and then is nothing: 4 KiB in half a minute are less than the slowest of modems had.
                _ => Stage::LastPieces(self.content.load(Ordering::Relaxed) >> 12),
            };
        }
        if next == 1 || begun == next { Stage::Head(next) } else { Stage::NextRequest(next) }
    }

    /// When the response in flight must have been written as a whole.
    fn answer_deadline(&self) -> Option<Instant> {
        let by = self.answer_by.load(Ordering::Relaxed);
        let counts = by > 0
            && self.in_flight.load(Ordering::Relaxed) > 0
            && !self.is_tunnel.load(Ordering::Relaxed)
            && !self.is_http2.load(Ordering::Relaxed);
        counts.then(|| self.start + Duration::from_millis(by))
    }
}

/// What a client is waited for, with the number of its request.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Handshake,
    Head(u64),
    Body(u64),
    NextRequest(u64),
    NextStream(u64),
    /// The client is to make room for the rest of responses; with how much it has taken.
    LastPieces(u64),
    /// It has done its part.
    Ours,
}

/// A client's socket with deadlines.
pub(super) struct Timed {
    socket: TcpStream,
    /// What was read before it was known what the client speaks.
    unread: Bytes,
    activity: Arc<Activity>,
    alarm: Alarm,
    stage: Stage,
    /// When the wait for `stage` began.
    since: Instant,
    /// The request whose first bytes came when none was in flight.
    begun: u64,
    /// Of the body of the request in flight.
    pace: Pace,
    /// When the socket took no more bytes, and whether it has been asked again since.
    full_since: Option<Instant>,
    is_settled: bool,
    /// The room is used up that was there without the client.
    uses_up: bool,
    _ticket: Ticket,
}

impl Timed {
    pub(super) fn new(socket: TcpStream, activity: Arc<Activity>, ticket: Ticket) -> Self {
        let since = activity.start;
        Self {
            socket,
            unread: Bytes::new(),
            activity,
            alarm: Alarm::default(),
            stage: Stage::Handshake,
            since,
            begun: 0,
            pace: Pace::default(),
            full_since: None,
            is_settled: false,
            uses_up: false,
            _ticket: ticket,
        }
    }

    /// Has these bytes read again.
    pub(super) fn put_back(&mut self, bytes: Bytes) {
        self.unread = bytes;
    }

    pub(super) fn activity(&self) -> &Arc<Activity> {
        &self.activity
    }

    fn bytes_came(&mut self, count: usize) {
        match self.activity.stage(self.begun) {
            Stage::Body(_) => self.pace.comes(count),
            Stage::NextRequest(number) => self.begun = number,
            _ => {}
        }
    }

    /// When the client must have sent something.
    fn read_deadline(&mut self) -> Option<Instant> {
        let stage = self.activity.stage(self.begun);
        if stage != self.stage {
            self.enter(stage);
        }
        let limits = &self.activity.limits;
        let limit = match stage {
            Stage::Ours => None,
            Stage::Body(_) => return limits.body.map(|limit| self.pace.deadline(limit)),
            Stage::Handshake => limits.handshake,
            Stage::Head(_) => limits.head,
            Stage::NextRequest(_) => limits.idle,
            Stage::NextStream(_) => limits.http2_idle,
            Stage::LastPieces(_) => match limits.send {
                Some(Sending::Stalled(limit) | Sending::Whole(limit)) => Some(limit),
                None => limits.http2_idle,
            },
        };
        limit.map(|limit| self.since + limit)
    }

    fn enter(&mut self, stage: Stage) {
        self.stage = stage;
        match stage {
            Stage::Ours => {}
            Stage::Body(_) => self.pace = Pace::default(),
            _ => self.since = Instant::now(),
        }
    }

    /// A response has been written. Nobody may read again before the client sends something, so that the wait for it must
    /// begin here.
    fn wrote(&mut self, context: &mut Context<'_>) {
        let stage = self.activity.stage(self.begun);
        let limit = match stage {
            Stage::NextRequest(_) => self.activity.limits.idle,
            Stage::NextStream(_) => self.activity.limits.http2_idle,
            _ => return,
        };
        if stage == self.stage {
            return;
        }
        self.enter(stage);
        if let Some(limit) = limit {
            // It has just begun: it cannot be over.
            let _ = self.alarm.poll(context, self.since + limit);
        }
    }

    fn took(&mut self) {
        if self.full_since.take().is_some() {
            self.is_settled = false;
            self.activity.has_room();
        }
    }

    /// The socket takes no more for the moment. Ready when that has lasted too long, or if it does take `bytes` after all.
    fn poll_full(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.uses_up {
            if let Ok(count) = SockRef::from(&self.socket).send(bytes) {
                return Poll::Ready(Ok(count));
            }
            self.uses_up = false;
        }
        self.activity.is_full.store(true, Ordering::Relaxed);
        let since = *self.full_since.get_or_insert_with(Instant::now);
        if self.activity.is_tunnel.load(Ordering::Relaxed) {
            return Poll::Pending;
        }
        match self.activity.limits.send {
            None => return Poll::Pending,
            Some(Sending::Whole(_)) => {
                let Some(deadline) = self.activity.answer_deadline() else { return Poll::Pending };
                ready!(self.alarm.poll(context, deadline));
            }
            Some(Sending::Stalled(limit)) => {
                // The kernel reports room only when a good part of its buffer is free, which may be megabytes: a client
                // that reads slowly but steadily makes less in that time. What room there is right after is none that
                // the client has made, and is used up first.
                let soon = limit.min(SETTLED);
                ready!(self.alarm.poll(context, since + if self.is_settled { limit } else { soon }));
                if let Ok(count) = SockRef::from(&self.socket).send(bytes) {
                    self.uses_up = true;
                    self.took();
                    return Poll::Ready(Ok(count));
                }
                if !self.is_settled && soon < limit {
                    self.is_settled = true;
                    ready!(self.alarm.poll(context, since + limit));
                }
            }
        }
        // Else the kernel would go on to offer the client what it does not take. Failing, it does just that.
        let _ = self.socket.set_zero_linger();
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Timed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if !this.unread.is_empty() {
            let count = this.unread.len().min(buffer.remaining());
            buffer.put_slice(&this.unread.split_to(count));
            if this.unread.is_empty() {
                this.unread = Bytes::new();
            }
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        if let Poll::Ready(read) = Pin::new(&mut this.socket).poll_read(context, buffer) {
            let count = buffer.filled().len() - before;
            if count > 0 {
                this.bytes_came(count);
            }
            return Poll::Ready(read);
        }
        let deadline = this.read_deadline().into_iter().chain(this.activity.answer_deadline()).min();
        let Some(deadline) = deadline else { return Poll::Pending };
        ready!(this.alarm.poll(context, deadline));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncWrite for Timed {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if let Poll::Ready(wrote) = Pin::new(&mut this.socket).poll_write(context, bytes) {
            this.took();
            return Poll::Ready(wrote);
        }
        this.poll_full(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.wrote(context);
        Pin::new(&mut self.socket).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let length: usize = pieces.iter().map(|piece| piece.len()).sum();
        if length > SMALL || pieces.len() < 2 {
            let this = &mut *self;
            if let Poll::Ready(wrote) = Pin::new(&mut this.socket).poll_write_vectored(context, pieces) {
                this.took();
                return Poll::Ready(wrote);
            }
            let first = pieces.iter().find(|piece| !piece.is_empty()).map_or(&[][..], |piece| piece);
            return this.poll_full(context, first);
        }
        let mut whole = [0; SMALL];
        let mut at = 0;
        for piece in pieces {
            whole[at..at + piece.len()].copy_from_slice(piece);
            at += piece.len();
        }
        self.poll_write(context, &whole[..length])
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }
}
