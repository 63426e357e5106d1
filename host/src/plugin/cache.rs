//! Compiled components on disk, so that a start does not compile again.
//!
//! `plugin` alone uses it. Loading machine code trusts its bytes, so the directory must be the user's own and closed to
//! everybody else; what anybody supplies as a plugin is always compiled here.

use std::collections::BTreeMap;
use std::collections::hash_map::{DefaultHasher, RandomState};
use std::fs;
use std::hash::{BuildHasher, Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use anyhow::Context;
use wasmtime::Engine;
use wasmtime::component::Component;

use super::compiler::{self, NotRun};
use super::{Origin, opaque};

/// What nobody has used for so long is removed.
const KEPT_UNUSED: Duration = Duration::from_secs(30 * 24 * 3600);

/// How exactly it is known when a file was used last.
const TOUCHED_EACH: Duration = Duration::from_secs(24 * 3600);

pub(super) struct Cache {
    directory: Option<PathBuf>,
    compiler: Option<PathBuf>,
    /// Of the engine's version and settings, on which compiled code depends.
    engine: u64,
    /// What is compiled aside, or has failed to be, by the hash of the component.
    aside: Mutex<BTreeMap<String, Aside>>,
    /// One after the other: each takes half of the cores.
    turn: tokio::sync::Mutex<()>,
}

/// Of what was compiled well there is nothing left to say.
enum Aside {
    Running,
    Refused(String),
    /// There was no process to compile it in.
    NotRun,
}

/// Code that is wanted.
pub(super) enum Code {
    /// It can be had at once, or nobody else can make it.
    Ready,
    /// It is being compiled.
    Coming,
    /// It cannot be compiled, for this reason.
    Refused(String),
}

impl Cache {
    /// `compiler` is the program that compiles in a process of its own; `None`: it is done here.
    pub(super) fn open(directory: Option<PathBuf>, compiler: Option<PathBuf>, engine: &Engine) -> Self {
        let mut hasher = DefaultHasher::new();
        engine.precompile_compatibility_hash().hash(&mut hasher);
        let directory = directory.filter(|directory| match own_directory(directory) {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(
                    "compiled plugins are kept in memory alone: `{}` cannot be used: {error}",
                    directory.display()
                );
                false
            }
        });
        if let Some(directory) = &directory {
            forget_unused(directory, SystemTime::now());
        }
        Self {
            directory,
            compiler,
            engine: hasher.finish(),
            aside: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
        }
    }

    pub(super) fn directory(&self) -> Option<&Path> {
        self.directory.as_deref()
    }

    /// Whether a component's code is at hand. If it is [`Code::Coming`] for the first time, somebody has to call
    /// [`compile_aside`](Self::compile_aside): then the answer is `true`.
    pub(super) fn code(&self, sha256: &str) -> (Code, bool) {
        let Some((_, file)) = self.apart(sha256) else { return (Code::Ready, false) };
        let mut aside = self.aside.lock().unwrap_or_else(PoisonError::into_inner);
        match aside.get(sha256) {
            Some(Aside::Running) => (Code::Coming, false),
            Some(Aside::NotRun) => (Code::Ready, false),
            Some(Aside::Refused(reason)) => {
                let refused = Code::Refused(reason.clone());
                aside.remove(sha256);
                (refused, false)
            }
            None if file.exists() => (Code::Ready, false),
            None => {
                aside.insert(sha256.to_owned(), Aside::Running);
                (Code::Coming, true)
            }
        }
    }

    /// Compiles what [`code`](Self::code) has said to be coming.
    pub(super) async fn compile_aside(&self, sha256: &str, bytes: &[u8], origin: &Origin) {
        let _turn = self.turn.lock().await;
        let compiled = match self.apart(sha256) {
            Some((program, file)) if is_still_there(origin, bytes).await => {
                compiled_apart(program, bytes, &file, origin).await
            }
            _ => Ok(()),
        };
        let mut aside = self.aside.lock().unwrap_or_else(PoisonError::into_inner);
        match compiled {
            Ok(()) => aside.remove(sha256),
            Err(error) if error.is::<NotRun>() => aside.insert(sha256.to_owned(), Aside::NotRun),
            Err(error) => aside.insert(sha256.to_owned(), Aside::Refused(format!("{error:#}"))),
        };
    }

    /// Where components are compiled in a process of its own, with that program: into this file.
    fn apart(&self, sha256: &str) -> Option<(&Path, PathBuf)> {
        Some((self.compiler.as_deref()?, self.file(sha256)?))
    }

    fn file(&self, sha256: &str) -> Option<PathBuf> {
        let directory = self.directory.as_ref()?;
        Some(directory.join(format!("{sha256}-{:016x}.cwasm", self.engine)))
    }

    /// What somebody has dropped in is compiled in a process of its own.
    pub(super) async fn component(
        &self,
        engine: &Engine,
        sha256: &str,
        bytes: &[u8],
        origin: &Origin,
    ) -> anyhow::Result<Component> {
        let file = self.file(sha256);
        if let Some(component) = file.as_ref().and_then(|file| stored(engine, file)) {
            return Ok(component);
        }
        if let (Some((program, file)), Origin::File(_)) = (self.apart(sha256), origin) {
            match compiled_apart(program, bytes, &file, origin).await {
                Err(error) if error.is::<NotRun>() => tracing::debug!("a plugin is compiled here: {error:#}"),
                Err(error) => return Err(error),
                // One of another version compiles for another engine.
                Ok(()) => {
                    if let Some(component) = stored(engine, &file) {
                        return Ok(component);
                    }
                }
            }
        }
        let component = Component::new(engine, bytes).map_err(opaque).context("compiling it")?;
        if let Some(file) = file
            && let Err(error) = store(&component, &file)
        {
            tracing::warn!("failed to keep a compiled plugin in `{}`: {error:#}", file.display());
        }
        Ok(component)
    }
}

/// Whoever writes one version after the other waits for the last one alone.
async fn is_still_there(origin: &Origin, bytes: &[u8]) -> bool {
    match origin {
        Origin::File(path) => tokio::fs::read(path).await.is_ok_and(|now| now == bytes),
        Origin::BuiltIn => true,
    }
}

/// Leaves the file when it is whole.
async fn compiled_apart(program: &Path, component: &[u8], file: &Path, origin: &Origin) -> anyhow::Result<()> {
    // Some take a minute.
    tracing::info!("compiling `{origin}`");
    let temporary = file.with_extension(format!("{:016x}.tmp", unique()));
    let compiled = compiler::compile(program.to_owned(), component.to_vec(), temporary.clone()).await;
    let kept = compiled.and_then(|()| fs::rename(&temporary, file).context("keeping what was compiled"));
    if kept.is_err() {
        // It may not be there.
        let _ = fs::remove_file(&temporary);
    }
    kept
}

fn stored(engine: &Engine, file: &Path) -> Option<Component> {
    if !file.exists() {
        return None;
    }
    #[expect(unsafe_code, reason = "the file is our own serialisation, in a directory that nobody else can write to")]
    // SAFETY: `own_directory` has checked that only this user can write there, and only `store` and our own compiler do,
    // whole files by renaming. The engine refuses code of another version or with other settings.
    let component = unsafe { Component::deserialize_file(engine, file) };
    let component = component.ok()?;
    touch(file, SystemTime::now());
    Some(component)
}

/// Notes that a file is in use, as the time of its last change.
fn touch(file: &Path, now: SystemTime) {
    if unused_for(file, now).is_some_and(|unused| unused >= TOUCHED_EACH)
        && let Err(error) = fs::File::options().append(true).open(file).and_then(|file| file.set_modified(now))
    {
        tracing::debug!("failed to note the use of `{}`: {error}", file.display());
    }
}

/// Removes what no proxy has used for long: code of former plugins, former engines and broken attempts.
fn forget_unused(directory: &Path, now: SystemTime) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for file in entries.flatten().map(|entry| entry.path()) {
        let is_ours = file.extension().is_some_and(|kind| kind == "cwasm" || kind == "tmp" || kind == "probe");
        if is_ours && unused_for(&file, now).is_some_and(|unused| unused >= KEPT_UNUSED) {
            match fs::remove_file(&file) {
                Ok(()) => tracing::debug!("removed `{}`, which nobody has used for long", file.display()),
                Err(error) => tracing::debug!("failed to remove `{}`: {error}", file.display()),
            }
        }
    }
}

fn unused_for(file: &Path, now: SystemTime) -> Option<Duration> {
    now.duration_since(fs::metadata(file).ok()?.modified().ok()?).ok()
}

fn store(component: &Component, file: &Path) -> anyhow::Result<()> {
    let temporary = file.with_extension(format!("{:016x}.tmp", unique()));
    fs::write(&temporary, component.serialize().map_err(opaque)?)?;
    fs::rename(&temporary, file)?;
    Ok(())
}

/// For names that no other proxy uses at the same time, in this process or in another container.
fn unique() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// Makes the directory, or checks that it is ours alone.
#[cfg(unix)]
fn own_directory(directory: &Path) -> io::Result<()> {
    use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};

    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    let metadata = fs::metadata(directory)?;
    if metadata.permissions().mode() & 0o077 != 0 {
        return Err(io::Error::other("others may write or read there (its mode must be 0700)"));
    }
    let probe = directory.join(format!(".{:016x}.probe", unique()));
    fs::write(&probe, [])?;
    let ours = fs::metadata(&probe)?.uid() == metadata.uid();
    fs::remove_file(&probe)?;
    if ours { Ok(()) } else { Err(io::Error::other("it belongs to another user")) }
}

/// Elsewhere the user's own profile directory is closed to other users by the system.
#[cfg(not(unix))]
fn own_directory(directory: &Path) -> io::Result<()> {
    fs::create_dir_all(directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_uses_is_removed_after_a_month() {
        let folder = tempfile::tempdir().expect("a folder");
        let now = SystemTime::now();
        let write = |name: &str, days: u64| {
            let file = folder.path().join(name);
            let modified = now - Duration::from_secs(days * 24 * 3600);
            fs::File::create(&file).and_then(|file| file.set_modified(modified)).expect("a file");
            file
        };
        let [new, old, broken] = [write("new.cwasm", 29), write("old.cwasm", 30), write("old.0.tmp", 31)];
        let [used, other] = [write("used.cwasm", 31), write("notes.txt", 400)];
        touch(&used, now);
        forget_unused(folder.path(), now);
        assert_eq!([&new, &old, &broken, &used, &other].map(|file| file.exists()), [true, false, false, true, true]);
        forget_unused(&folder.path().join("nowhere"), now);
    }
}
