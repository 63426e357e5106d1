//! Files on disk → one debounced "something changed".
//!
//! `server` says what to follow and is pinged; it reads the files itself. Directories are watched rather than files, since
//! editors and Kubernetes replace files by renaming.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use notify::event::{AccessKind, AccessMode, EventKind, ModifyKind};
use notify::{Event, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

/// Nothing must happen for so long before a change counts as complete.
const QUIET: Duration = Duration::from_millis(50);
/// A file that is being written is waited for, but not for ever.
const PATIENCE: Duration = Duration::from_secs(2);

/// What is followed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Followed {
    /// With all directories below.
    pub directories: BTreeSet<PathBuf>,
    pub files: BTreeSet<PathBuf>,
}

/// Follows files until it is dropped.
pub struct Watch {
    watcher: RecommendedWatcher,
    watched: BTreeMap<PathBuf, RecursiveMode>,
    events: mpsc::UnboundedReceiver<Event>,
}

impl Watch {
    pub fn new() -> anyhow::Result<Self> {
        #[expect(
            clippy::disallowed_methods,
            reason = "the kernel bounds its own queue, and events are drained at once"
        )]
        let (sender, events) = mpsc::unbounded_channel();
        let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            match event {
                // The receiver is gone only when the proxy is.
                Ok(event) => drop(sender.send(event)),
                Err(error) => tracing::warn!("failed to watch files: {error}"),
            }
        })
        .context("starting to watch files")?;
        Ok(Self { watcher, watched: BTreeMap::new(), events })
    }

    /// Changes what is followed. What does not exist yet is waited for. Answers whether anything new is: what happened to
    /// it before went unseen.
    pub fn follow(&mut self, followed: &Followed) -> bool {
        let mut wanted = BTreeMap::new();
        for file in &followed.files {
            wanted.entry(nearest_directory(file.parent().unwrap_or(file))).or_insert(RecursiveMode::NonRecursive);
        }
        for directory in &followed.directories {
            let nearest = nearest_directory(directory);
            let mode = if nearest == *directory { RecursiveMode::Recursive } else { RecursiveMode::NonRecursive };
            wanted.insert(nearest, mode);
        }
        for gone in self.watched.keys().filter(|path| !wanted.contains_key(*path)) {
            // Whoever deleted the directory has ended the watch already.
            drop(self.watcher.unwatch(gone));
        }
        let mut is_more = false;
        for (path, mode) in &wanted {
            if self.watched.get(path) == Some(mode) {
                continue;
            }
            is_more = true;
            if let Err(error) = self.watcher.watch(path, *mode) {
                tracing::warn!("failed to watch `{}`: {error}", path.display());
            }
        }
        self.watched = wanted;
        is_more
    }

    /// Waits for a change, and until it is complete: nothing is half-written as far as the system can tell.
    pub async fn changed(&mut self) {
        let mut being_written = BTreeSet::new();
        loop {
            let Some(event) = self.events.recv().await else {
                return std::future::pending().await;
            };
            if note(&event, &mut being_written) {
                break;
            }
        }
        let patience = Instant::now() + PATIENCE;
        loop {
            let quiet = if being_written.is_empty() { Instant::now() + QUIET } else { patience };
            match timeout_at(quiet.min(patience), self.events.recv()).await {
                Ok(Some(event)) => drop(note(&event, &mut being_written)),
                Ok(None) | Err(_) => return,
            }
        }
    }
}

/// Whether the event is a change, and which files it leaves open. Reading, our own included, is none.
fn note(event: &Event, being_written: &mut BTreeSet<PathBuf>) -> bool {
    match event.kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => {
            being_written.retain(|path| !event.paths.contains(path));
            true
        }
        EventKind::Access(_) => false,
        EventKind::Modify(ModifyKind::Data(_)) if cfg!(target_os = "linux") => {
            being_written.extend(event.paths.iter().cloned());
            true
        }
        _ => true,
    }
}

/// The directory itself, or the closest one above that exists.
fn nearest_directory(path: &Path) -> PathBuf {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    path.ancestors().find(|ancestor| ancestor.is_dir()).unwrap_or_else(|| Path::new(".")).to_owned()
}
