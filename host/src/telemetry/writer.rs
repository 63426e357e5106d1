//! The thread that writes the access log.
//!
//! `AccessLog` pushes whole lines from all workers. Where the disk cannot keep up, lines are dropped, counted and
//! reported; a worker never waits for it.

use std::mem;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::Context;

use super::Output;

/// The way to the thread that writes. Dropping it writes what is left.
#[derive(Debug)]
pub(super) struct Writer {
    queue: Arc<Queue>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    /// `limit`: bytes that may wait.
    pub(super) fn start(output: Output, limit: usize) -> anyhow::Result<Self> {
        let queue = Arc::new(Queue { waiting: Mutex::default(), changed: Condvar::new(), limit });
        let writing = Writing { output, complained: None };
        let orders = Arc::clone(&queue);
        let thread = thread::Builder::new().name("access-log".to_owned()).spawn(move || writing.run(&orders));
        let thread = thread.context("no thread can be started for the access log")?;
        Ok(Self { queue, thread: Some(thread) })
    }

    /// Has a line written soon, or drops it. Never waits for the disk.
    pub(super) fn push(&self, line: &[u8]) {
        self.queue.push(line);
    }

    /// Has the file opened anew, between the lines pushed before and those after.
    pub(super) fn reopen(&self) {
        self.queue.reopen();
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.queue.lock().closed = true;
        self.queue.changed.notify_one();
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has said so itself.
            let _ = thread.join();
        }
    }
}

/// What is still to be written. A channel would wake the thread for each line; here it wakes once for all of a moment.
#[derive(Debug)]
struct Queue {
    /// Held for a copy of a line at most.
    waiting: Mutex<Waiting>,
    changed: Condvar,
    /// Bytes that may wait.
    limit: usize,
}

#[derive(Debug, Default)]
struct Waiting {
    /// Whole lines.
    lines: Vec<u8>,
    /// Lines for which there was no room.
    dropped: u64,
    /// The file is to be opened anew after so many bytes of `lines`.
    reopen: Option<usize>,
    closed: bool,
}

/// Lines are gathered for so long before they are written together.
const GATHERING: Duration = Duration::from_millis(10);

/// So many bytes are worth a write of their own.
const BATCH: usize = 64 * 1024;

impl Queue {
    fn push(&self, line: &[u8]) {
        let mut waiting = self.lock();
        let before = waiting.lines.len();
        if before + line.len() > self.limit {
            waiting.dropped += 1;
            return;
        }
        waiting.lines.extend_from_slice(line);
        drop(waiting);
        if before == 0 || (before < BATCH && before + line.len() >= BATCH) {
            self.changed.notify_one();
        }
    }

    fn reopen(&self) {
        let mut waiting = self.lock();
        waiting.reopen = Some(waiting.lines.len());
        drop(waiting);
        self.changed.notify_one();
    }

    /// Waits until something is worth doing. `written` is an empty buffer, used again.
    fn take(&self, written: Vec<u8>) -> Waiting {
        let idle = |waiting: &mut Waiting| waiting.lines.is_empty() && waiting.reopen.is_none() && !waiting.closed;
        let gathering =
            |waiting: &mut Waiting| waiting.lines.len() < BATCH && waiting.reopen.is_none() && !waiting.closed;
        let waiting = self.changed.wait_while(self.lock(), idle).unwrap_or_else(PoisonError::into_inner);
        let waited = self.changed.wait_timeout_while(waiting, GATHERING, gathering);
        let (mut waiting, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let closed = waiting.closed;
        mem::replace(&mut *waiting, Waiting { lines: written, closed, ..Waiting::default() })
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the thread owns.
struct Writing {
    output: Output,
    /// When something was last reported.
    complained: Option<Instant>,
}

/// A broken disk fails for each batch; the log is told from time to time.
const BETWEEN_COMPLAINTS: Duration = Duration::from_secs(10);

impl Writing {
    /// Ends when the access log is dropped and everything is written.
    fn run(mut self, queue: &Queue) {
        let mut dropped = 0;
        let mut buffer = Vec::new();
        loop {
            let Waiting { mut lines, dropped: now, reopen, closed } = queue.take(buffer);
            let (before, after) = lines.split_at(reopen.unwrap_or(0));
            self.write(before);
            if reopen.is_some() {
                self.reopen();
            }
            self.write(after);
            dropped += now;
            if dropped > 0 && (closed || self.may_complain()) {
                tracing::warn!(dropped, "the access log cannot keep up, lines were dropped");
                dropped = 0;
            }
            if closed {
                return;
            }
            lines.clear();
            buffer = lines;
        }
    }

    fn write(&mut self, lines: &[u8]) {
        if lines.is_empty() {
            return;
        }
        if let Err(error) = self.output.write(lines)
            && self.may_complain()
        {
            tracing::error!(%error, "the access log cannot be written");
        }
    }

    fn reopen(&mut self) {
        let Output::File(file) = &mut self.output else { return };
        if let Err(error) = file.reopen() {
            tracing::error!(%error, "the access log cannot be reopened, the file as it was stays in use");
        }
    }

    fn may_complain(&mut self) -> bool {
        if self.complained.is_some_and(|last| last.elapsed() < BETWEEN_COMPLAINTS) {
            return false;
        }
        self.complained = Some(Instant::now());
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drops_and_counts_rather_than_waits() {
        let queue = Queue { waiting: Mutex::default(), changed: Condvar::new(), limit: 9 };
        for line in ["one\n", "two\n", "three\n", "\n"] {
            queue.push(line.as_bytes());
        }
        let taken = queue.take(Vec::new());
        assert_eq!((taken.lines.as_slice(), taken.dropped), (&b"one\ntwo\n\n"[..], 1));
        queue.push(b"four\n");
        let taken = queue.take(Vec::new());
        assert_eq!((taken.lines.as_slice(), taken.dropped), (&b"four\n"[..], 0));
    }
}
