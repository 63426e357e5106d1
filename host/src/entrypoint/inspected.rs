//! A stream whose bytes are looked at as they are read, before hyper gets them.
//!
//! `request_line` and `frames` look. It never changes a byte, and lets everything that is written pass.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

/// hyper doubles its buffer as long as reads fill it, up to what a head may have. So much is enough at a time.
const READ_AT_MOST: u64 = 64 << 10;

/// `look` sees what each read brings; its error ends the connection.
pub(super) struct Inspected<S, L> {
    stream: S,
    look: L,
}

impl<S, L> Inspected<S, L>
where
    L: FnMut(&[u8]) -> io::Result<()>,
{
    pub(super) const fn new(stream: S, look: L) -> Self {
        Self { stream, look }
    }
}

impl<S, L> AsyncRead for Inspected<S, L>
where
    S: AsyncRead + Unpin,
    L: FnMut(&[u8]) -> io::Result<()> + Unpin,
{
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buffer.filled().len();
        ready!(Pin::new(&mut (&mut this.stream).take(READ_AT_MOST)).poll_read(context, buffer))?;
        Poll::Ready((this.look)(&buffer.filled()[before..]))
    }
}

impl<S, L> AsyncWrite for Inspected<S, L>
where
    S: AsyncWrite + Unpin,
    L: Unpin,
{
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
