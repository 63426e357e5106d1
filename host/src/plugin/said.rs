//! What guests write to their standard output and error: messages of panics and uncaught exceptions above all.
//!
//! `imports` hands it to WASI, and writes to the log what it has after a call. It never waits.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::AsyncWrite;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};

/// What is kept of one call.
const BYTES_AT_MOST: usize = 4 << 10;
/// What a guest may write at once.
const BYTES_AT_ONCE: usize = 64 << 10;

/// Both streams of one instance.
#[derive(Clone, Default)]
pub(super) struct Said(Arc<Text>);

#[derive(Default)]
struct Text {
    is_there: AtomicBool,
    bytes: Mutex<Vec<u8>>,
}

impl Said {
    /// What was written since the last time.
    pub(super) fn take(&self) -> Option<String> {
        // Most calls say nothing.
        if !self.0.is_there.load(Ordering::Relaxed) {
            return None;
        }
        self.0.is_there.store(false, Ordering::Relaxed);
        let bytes = std::mem::take(&mut *self.0.bytes.lock().unwrap_or_else(PoisonError::into_inner));
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// More than is kept is let go: a guest that says too much is not held up.
    fn add(&self, bytes: &[u8]) {
        let mut kept = self.0.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        let room = BYTES_AT_MOST.saturating_sub(kept.len()).min(bytes.len());
        kept.extend_from_slice(&bytes[..room]);
        self.0.is_there.store(true, Ordering::Relaxed);
    }
}

impl IsTerminal for Said {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Said {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

impl OutputStream for Said {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.add(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(BYTES_AT_ONCE)
    }
}

impl Pollable for Said {
    fn ready<'this, 'future>(&'this mut self) -> Pin<Box<dyn Future<Output = ()> + Send + 'future>>
    where
        'this: 'future,
    {
        Box::pin(std::future::ready(()))
    }
}

impl AsyncWrite for Said {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.add(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_much_is_kept_and_taken_once() {
        let said = Said::default();
        assert_eq!(said.take(), None);
        said.add(b"one ");
        said.add(b"two");
        assert_eq!(said.take().as_deref(), Some("one two"));
        assert_eq!(said.take(), None);
        said.add(&[b'a'; BYTES_AT_MOST + 1]);
        said.add(b"more");
        assert_eq!(said.take().map(|text| text.len()), Some(BYTES_AT_MOST));
    }
}
