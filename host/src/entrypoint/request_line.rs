//! Looks for a fragment in the request lines of HTTP/1.1.
//!
//! No target has one (RFC 9112, section 3.2), and servers that cut it off and servers that do not are of two minds about
//! the path. hyper cuts it off and does not say so, which is why this sits between hyper and the socket. It sees the
//! line of each request that does not come in one piece with the request before it; of others the fragment is cut off
//! for rules and servers alike.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::io::Activity;

pub(super) struct RequestLines<S> {
    stream: S,
    activity: Arc<Activity>,
    /// The request whose line was looked at last, counted from 1.
    request: u64,
    line: Line,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Line {
    /// Empty lines may come first (RFC 9112, section 2.2).
    Before,
    Within,
    After,
}

impl<S> RequestLines<S> {
    pub(super) const fn new(stream: S, activity: Arc<Activity>) -> Self {
        Self { stream, activity, request: 0, line: Line::After }
    }

    fn look(&mut self, bytes: &[u8]) {
        let next = self.activity.requests() + 1;
        if self.request < next && self.activity.is_between_requests() {
            (self.request, self.line) = (next, Line::Before);
        }
        if self.line == Line::After {
            return;
        }
        for byte in bytes {
            match (byte, self.line) {
                (b'\r' | b'\n', Line::Before) => {}
                (b'\n', _) => {
                    self.line = Line::After;
                    return;
                }
                (b'#', _) => self.activity.found_fragment(self.request),
                _ => self.line = Line::Within,
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for RequestLines<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = ready!(Pin::new(&mut self.stream).poll_read(context, buffer));
        self.look(&buffer.filled()[before..]);
        Poll::Ready(read)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for RequestLines<S> {
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
        Pin::new(&mut self.stream).poll_write_vectored(context, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
