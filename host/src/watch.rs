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
    /// Routing files and plugins in them, and in all directories below.
    pub directories: BTreeSet<PathBuf>,
    pub files: BTreeSet<PathBuf>,
}

impl Followed {
    /// Events name paths as they were given to the system: all are made absolute, to be compared.
    fn absolute(&self) -> Self {
        let absolute = |paths: &BTreeSet<PathBuf>| {
            paths.iter().map(|path| std::path::absolute(path).unwrap_or_else(|_| path.clone())).collect()
        };
        Self { directories: absolute(&self.directories), files: absolute(&self.files) }
    }

    /// Whether a change of `path` may change what is read. A log beside the configuration does not: following it, the
    /// proxy would reload because it has said that it reloads.
    fn concerns(&self, path: &Path) -> bool {
        let within = |directory: &PathBuf| path.starts_with(directory) && is_readable_name(path);
        let holds = |followed: &PathBuf| followed.starts_with(path);
        let is_replaced = |file: &PathBuf| path.parent() == file.parent() && is_kubernetes_name(path);
        self.directories.iter().any(|directory| within(directory) || holds(directory))
            || self.files.iter().any(|file| holds(file) || is_replaced(file))
    }
}

/// A routing file, a plugin, or what may be a directory of them.
fn is_readable_name(path: &Path) -> bool {
    let known = |extension: &std::ffi::OsStr| ["yaml", "yml", "toml", "wasm"].iter().any(|known| extension == *known);
    is_kubernetes_name(path) || path.extension().is_none_or(known)
}

/// Kubernetes replaces all files of a directory at once, by a link named `..data`.
fn is_kubernetes_name(path: &Path) -> bool {
    path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(".."))
}

/// Follows files until it is dropped.
pub struct Watch {
    watcher: RecommendedWatcher,
    followed: Followed,
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
        Ok(Self { watcher, followed: Followed::default(), watched: BTreeMap::new(), events })
    }

    /// Changes what is followed. What does not exist yet is waited for. Answers whether anything new is: what happened to
    /// it before went unseen.
    pub fn follow(&mut self, followed: &Followed) -> bool {
        let followed = followed.absolute();
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
        self.followed = followed;
        is_more
    }

    /// Waits for a change, and until it is complete: nothing is half-written as far as the system can tell.
    pub async fn changed(&mut self) {
        let mut being_written = BTreeSet::new();
        loop {
            let Some(event) = self.events.recv().await else {
                return std::future::pending().await;
            };
            if note(&event, &self.followed, &mut being_written) {
                break;
            }
        }
        let patience = Instant::now() + PATIENCE;
        let mut quiet = Instant::now() + QUIET;
        loop {
            let until = if being_written.is_empty() { quiet.min(patience) } else { patience };
            match timeout_at(until, self.events.recv()).await {
                Ok(Some(event)) if note(&event, &self.followed, &mut being_written) => quiet = Instant::now() + QUIET,
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => return,
            }
        }
    }
}

/// Whether the event is a change, and which files it leaves open. Reading, our own included, is none.
fn note(event: &Event, followed: &Followed, being_written: &mut BTreeSet<PathBuf>) -> bool {
    if !event.paths.is_empty() && !event.paths.iter().any(|path| followed.concerns(path)) {
        return false;
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_read_concerns_the_proxy() {
        let followed = Followed {
            directories: BTreeSet::from(["/etc/weir/dynamic".into(), "/etc/weir/plugins".into()]),
            files: BTreeSet::from(["/etc/tls/a.pem".into()]),
        };
        for (path, concerns) in [
            ("/etc/weir/dynamic/a.yaml", true),
            ("/etc/weir/dynamic/below/b.yml", true),
            ("/etc/weir/dynamic/new-folder", true),
            ("/etc/weir/dynamic/..data", true),
            ("/etc/weir/dynamic/.a.yaml.swp", false),
            ("/etc/weir/dynamic/access.log", false),
            ("/etc/weir/dynamic", true),
            ("/etc/weir", true),
            ("/etc/weir/weir.log", false),
            ("/etc/weir/plugins/a.wasm", true),
            ("/etc/tls/a.pem", true),
            ("/etc/tls/b.pem", false),
            ("/etc/tls/..data", true),
        ] {
            assert_eq!(followed.concerns(Path::new(path)), concerns, "{path}");
        }
    }
}
