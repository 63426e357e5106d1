//! The streams of an HTTP/2 connection: a task each, which ends when its client takes too long for the request's body or
//! for the response. The connection and its other streams go on.
//!
//! hyper runs a stream as one future, which waits for the server and for the client in turn. What it waits for is told by
//! the bodies: one that was asked for more and has none, and one that is not asked.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::header::CONTENT_TYPE;
use hyper::body::Incoming;
use tokio::task::spawn_local;
use tokio::time::Instant;

use super::io::{Activity, Sending};
use super::pace::{Alarm, Pace, Reception};
use super::turns::{self, Turn, Turns};
use crate::http::{Body, Observer};

/// Runs the streams of one connection on the worker that owns it.
#[derive(Clone)]
pub(super) struct Streams {
    activity: Arc<Activity>,
    turns: Rc<Turns>,
    /// The stream whose task comes next.
    next: Rc<Cell<Option<Rc<Stream>>>>,
}

impl Streams {
    pub(super) fn new(activity: Arc<Activity>) -> Self {
        Self { activity, turns: Rc::new(Turns::new()), next: Rc::default() }
    }

    /// A request's head is complete; hyper hands over its task right after.
    pub(super) fn begin(&self, request: &http::Request<Incoming>) -> Rc<Stream> {
        let limits = &self.activity.limits;
        let whole = match limits.send {
            Some(Sending::Whole(limit)) => Some(Instant::now() + limit),
            Some(Sending::Stalled(_)) | None => None,
        };
        // Both sides of a conversation may be silent until they have something to say.
        let is_conversation =
            request.headers().get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
        let reception = match limits.body {
            Some(Reception::Steady(_)) if is_conversation => limits.http2_idle.map(Reception::Silence),
            limit => limit,
        };
        let stream = Rc::new(Stream {
            whole,
            reception,
            upload: RefCell::default(),
            is_answered: Cell::new(false),
            is_drained: Cell::new(false),
            pieces: Cell::new(0),
            turns: Rc::clone(&self.turns),
            room: turns::room_for(request.headers()),
            turn: Cell::new(None),
            waits: Cell::new(None),
            counts_as_stalled: Cell::new(false),
        });
        self.next.set(Some(Rc::clone(&stream)));
        stream
    }
}

impl<F: Future<Output: 'static> + 'static> hyper::rt::Executor<F> for Streams {
    fn execute(&self, task: F) {
        match self.next.take() {
            // It is not moved about, nor kept twice.
            Some(stream) => drop(spawn_local(within_deadlines(Box::pin(task), stream, Arc::clone(&self.activity)))),
            None => drop(spawn_local(task)),
        }
    }
}

/// What a stream's task, its request's body and its response's body tell each other.
pub(super) struct Stream {
    /// When the response must have been written, however long the server takes.
    whole: Option<Instant>,
    reception: Option<Reception>,
    /// Of the request's body while it is still to come; `None` when it is there.
    upload: RefCell<Option<Pace>>,
    is_answered: Cell<bool>,
    /// Whether the server has nothing more for the moment.
    is_drained: Cell<bool>,
    /// How many pieces of the response the client has made room for.
    pieces: Cell<u64>,
    turns: Rc<Turns>,
    /// What the request holds once its turn has come, in KiB.
    room: usize,
    turn: Cell<Option<Turn>>,
    waits: Cell<Option<Wait>>,
    counts_as_stalled: Cell<bool>,
}

/// A stream waits for its turn.
#[derive(Clone, Copy)]
struct Wait {
    since: Instant,
    /// When to see what it waits for.
    look_at: Instant,
}

impl Stream {
    /// Whether its turn has come at once.
    pub(super) fn has_turn(&self) -> bool {
        let turn = self.turns.take(self.room);
        let has_turn = turn.is_some();
        self.turn.set(turn);
        has_turn
    }

    /// Waits for its turn.
    pub(super) async fn turn(&self) {
        let since = Instant::now();
        self.waits.set(Some(Wait { since, look_at: since + turns::PATIENCE }));
        self.turns.waits(true);
        let turn = self.turns.wait(self.room).await;
        self.turn.set(turn);
        self.turns.waits(false);
        self.waits.set(None);
    }

    /// Makes room for a stream that has waited for long, unless its client is what it waits for. Answers whether it was
    /// time to look.
    fn looks(&self) -> bool {
        let now = Instant::now();
        let Some(wait) = self.waits.get().filter(|wait| wait.look_at <= now) else { return false };
        let look_at = match self.turns.is_held_up() {
            // The client comes forward with room, or does not.
            true => now + (now - wait.since),
            false => {
                self.turns.double(now);
                now + turns::PATIENCE
            }
        };
        self.waits.set(Some(Wait { look_at, ..wait }));
        true
    }

    /// How far the client has come with what the stream waits for, if that is the client.
    fn progress(&self) -> Option<u64> {
        if self.waits.get().is_some() {
            return Some(self.turns.taken());
        }
        self.is_stalled().then(|| self.pieces.get())
    }

    /// The request's body, if it is still to come.
    pub(super) fn watch(self: &Rc<Self>, body: Body, received: Option<Rc<Cell<u64>>>) -> Body {
        *self.upload.borrow_mut() = Some(Pace::default());
        body.observed(Upload(Rc::clone(self), received))
    }

    pub(super) fn answered(&self) {
        self.is_answered.set(true);
        self.count();
    }

    pub(super) fn sent(&self, bytes: usize) {
        self.is_drained.set(false);
        self.pieces.set(self.pieces.get() + 1);
        self.turns.takes(bytes);
        self.count();
    }

    pub(super) fn drained(&self) {
        self.is_drained.set(true);
        self.count();
    }

    fn count(&self) {
        let is_stalled = self.is_stalled();
        if self.counts_as_stalled.replace(is_stalled) != is_stalled {
            self.turns.stalls(self.room, is_stalled);
        }
    }

    /// When the client must have sent more of the body. Once the server has answered it may take its time: the two may be
    /// in a conversation.
    fn upload_deadline(&self) -> Option<Instant> {
        let limit = self.reception.filter(|_| !self.is_answered.get())?;
        let mut upload = self.upload.borrow_mut();
        let pace = upload.as_mut()?;
        if pace.is_waited_for() {
            return Some(pace.deadline(limit));
        }
        // Nobody waits yet. To look again after the least time that a wait may last is soon enough.
        let (Reception::Steady(look) | Reception::Silence(look) | Reception::Whole(look)) = limit;
        Some(Instant::now() + look)
    }

    /// Whether the response waits for the client alone.
    fn is_stalled(&self) -> bool {
        self.is_answered.get() && !self.is_drained.get()
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if self.counts_as_stalled.get() {
            self.turns.stalls(self.room, false);
        }
        if self.waits.get().is_some() {
            self.turns.waits(false);
        }
    }
}

/// Sees a request's body come.
struct Upload(Rc<Stream>, Option<Rc<Cell<u64>>>);

impl Observer for Upload {
    fn data(&mut self, bytes: usize) {
        if let Some(received) = &self.1 {
            received.set(received.get() + bytes as u64);
        }
        if let Some(pace) = &mut *self.0.upload.borrow_mut() {
            pace.comes(bytes);
        }
    }

    fn waits(&mut self) {
        if let Some(pace) = &mut *self.0.upload.borrow_mut() {
            pace.waits();
        }
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        *self.0.upload.borrow_mut() = None;
    }
}

/// Runs a stream's task to its end or to its deadline. Dropped early, the stream is reset.
fn within_deadlines<F: Future>(
    mut task: Pin<Box<F>>,
    stream: Rc<Stream>,
    activity: Arc<Activity>,
) -> impl Future<Output = ()> {
    let mut deadlines = Deadlines { stream, activity, alarm: Alarm::default(), stalled: None };
    std::future::poll_fn(move |context| {
        if task.as_mut().poll(context).is_ready() {
            return Poll::Ready(());
        }
        deadlines.poll(context)
    })
}

struct Deadlines {
    stream: Rc<Stream>,
    activity: Arc<Activity>,
    alarm: Alarm,
    /// How far the client had come, and when, since which it has made no room.
    stalled: Option<(u64, Instant)>,
}

impl Deadlines {
    /// Ready when the client has taken too long.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        loop {
            let look = self.stream.waits.get().map(|wait| wait.look_at);
            let deadline =
                self.stream.upload_deadline().into_iter().chain(self.stall_deadline()).chain(self.stream.whole);
            let Some(deadline) = deadline.chain(look).min() else { return Poll::Pending };
            ready!(self.alarm.poll(context, deadline));
            if self.stream.looks() {
                if self.stream.turns.are_too_many() {
                    tracing::debug!("a stream was reset: its client takes nothing, and too many wait");
                    return Poll::Ready(());
                }
                continue;
            }
            // A socket that is full holds up every stream, and has its own deadline.
            if self.stream.progress().is_some() && self.stream.whole.is_none() && self.activity.is_full() {
                self.stalled = None;
                continue;
            }
            tracing::debug!("a stream was reset: its client took too long");
            return Poll::Ready(());
        }
    }

    fn stall_deadline(&mut self) -> Option<Instant> {
        let Some(Sending::Stalled(limit)) = self.activity.limits.send else { return None };
        let Some(progress) = self.stream.progress() else {
            self.stalled = None;
            return None;
        };
        let since = match self.stalled {
            Some((before, since)) if before == progress => since,
            _ => Instant::now(),
        };
        self.stalled = Some((progress, since));
        Some(since + limit)
    }
}
