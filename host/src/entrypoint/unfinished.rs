//! Which streams of an HTTP/2 connection have not been answered to the last byte, as the frames of both sides tell.
//!
//! hyper is done with a stream when it has put the end of a response into its buffers. What of it the client takes can be
//! seen in the frames alone: `frames` says which streams begin, [`Outgoing`] sees them end. `io` has the deadline.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::frames::{DATA, END_STREAM, HEAD, HEADERS, RST_STREAM};
use super::io::Activity;

/// The streams of one connection.
#[derive(Clone)]
pub(super) struct Unfinished(Rc<RefCell<Streams>>);

struct Streams {
    activity: Arc<Activity>,
    /// In the order in which they began.
    numbers: Vec<u32>,
    newest: u32,
}

impl Unfinished {
    pub(super) fn new(activity: Arc<Activity>) -> Self {
        Self(Rc::new(RefCell::new(Streams { activity, numbers: Vec::new(), newest: 0 })))
    }

    /// A client sends HEADERS: those of a request, or trailers.
    pub(super) fn begins(&self, number: u32) {
        let streams = &mut *self.0.borrow_mut();
        if number > streams.newest {
            streams.newest = number;
            streams.numbers.push(number);
            streams.count();
        }
    }

    /// Either side has ended or reset a stream.
    pub(super) fn ends(&self, number: u32) {
        let streams = &mut *self.0.borrow_mut();
        if let Ok(at) = streams.numbers.binary_search(&number) {
            streams.numbers.remove(at);
            streams.count();
        }
    }
}

impl Streams {
    fn count(&self) {
        self.activity.has_unfinished(self.numbers.len());
    }
}

/// A connection's stream, with an eye on the frames that are written.
pub(super) struct Outgoing<S> {
    stream: S,
    unfinished: Unfinished,
    activity: Arc<Activity>,
    head: [u8; HEAD],
    have: usize,
    /// Of the payload of the frame.
    left: usize,
}

impl<S> Outgoing<S> {
    pub(super) const fn new(stream: S, unfinished: Unfinished, activity: Arc<Activity>) -> Self {
        Self { stream, unfinished, activity, head: [0; HEAD], have: 0, left: 0 }
    }

    fn wrote(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.left > 0 {
                let count = bytes.len().min(self.left);
                self.left -= count;
                bytes = &bytes[count..];
                if self.head[3] == DATA {
                    self.activity.wrote_content(count);
                }
                continue;
            }
            let count = bytes.len().min(HEAD - self.have);
            self.head[self.have..self.have + count].copy_from_slice(&bytes[..count]);
            self.have += count;
            bytes = &bytes[count..];
            if self.have == HEAD {
                self.have = 0;
                self.begin();
            }
        }
    }

    fn begin(&mut self) {
        let [a, b, c, kind, flags, stream @ ..] = self.head;
        self.left = u32::from_be_bytes([0, a, b, c]) as usize;
        if kind == RST_STREAM || matches!(kind, DATA | HEADERS) && flags & END_STREAM != 0 {
            self.unfinished.ends(u32::from_be_bytes(stream));
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Outgoing<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Outgoing<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let count = ready!(Pin::new(&mut self.stream).poll_write(context, bytes))?;
        self.wrote(&bytes[..count]);
        Poll::Ready(Ok(count))
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
        let count = ready!(Pin::new(&mut self.stream).poll_write_vectored(context, pieces))?;
        let mut left = count;
        for piece in pieces {
            let of_piece = piece.len().min(left);
            self.wrote(&piece[..of_piece]);
            left -= of_piece;
        }
        Poll::Ready(Ok(count))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
