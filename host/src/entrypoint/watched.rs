//! The client of one request, as the deadlines see it: the whole connection in HTTP/1.1, a stream in HTTP/2.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::io::Activity;
use super::stream::Stream;
use crate::http::{Body, Observer};

/// Told by `exchange` how far a request has come.
pub(super) enum Watched {
    Http1(Arc<Activity>),
    Http2(Arc<Activity>, Rc<Stream>),
}

impl Watched {
    /// The request's body, which is still to come. Its bytes are counted where `received` says.
    pub(super) fn watch(&self, body: Body, received: Option<Rc<Cell<u64>>>) -> Body {
        match self {
            Self::Http1(activity) => {
                activity.awaits_body(true);
                body.observed(Upload(Arc::clone(activity), received))
            }
            Self::Http2(_, stream) => stream.watch(body, received),
        }
    }

    /// The head of the response is there.
    pub(super) fn answered(&self) {
        match self {
            Self::Http1(activity) => activity.awaits_body(false),
            Self::Http2(_, stream) => stream.answered(),
        }
    }

    /// The client has made room for a piece of the response.
    pub(super) fn sent(&self, bytes: usize) {
        if let Self::Http2(activity, stream) = self {
            activity.earns(bytes);
            stream.sent(bytes);
        }
    }

    /// The client has made room for more than the server has.
    pub(super) fn drained(&self) {
        if let Self::Http2(_, stream) = self {
            stream.drained();
        }
    }

    /// Ready when the socket takes more: what hyper would keep of a response until then is as much as a head may have.
    /// Streams of HTTP/2 have windows, and a buffer that is smaller.
    pub(super) fn poll_room(&self, context: &Context<'_>) -> Poll<()> {
        match self {
            Self::Http1(activity) => activity.poll_room(context),
            Self::Http2(..) => Poll::Ready(()),
        }
    }

    pub(super) fn request_ends(&self) {
        let (Self::Http1(activity) | Self::Http2(activity, _)) = self;
        activity.request_ends();
    }
}

/// Knows when nobody waits for a request's body any more. The socket sees it come.
struct Upload(Arc<Activity>, Option<Rc<Cell<u64>>>);

impl Observer for Upload {
    fn data(&mut self, bytes: usize) {
        if let Some(received) = &self.1 {
            received.set(received.get() + bytes as u64);
        }
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        self.0.awaits_body(false);
    }
}
