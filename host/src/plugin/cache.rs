//! Compiled components on disk, so that a start does not compile again.
//!
//! `plugin` alone uses it. Loading machine code trusts its bytes, so the directory must be the user's own and closed to
//! everybody else; what anybody supplies as a plugin is always compiled here.

use std::collections::hash_map::{DefaultHasher, RandomState};
use std::fs;
use std::hash::{BuildHasher, Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context;
use wasmtime::Engine;
use wasmtime::component::Component;

use super::opaque;

pub(super) struct Cache {
    directory: Option<PathBuf>,
    /// Of the engine's version and settings, on which compiled code depends.
    engine: u64,
}

impl Cache {
    pub(super) fn open(directory: Option<PathBuf>, engine: &Engine) -> Self {
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
        Self { directory, engine: hasher.finish() }
    }

    pub(super) fn directory(&self) -> Option<&Path> {
        self.directory.as_deref()
    }

    pub(super) fn component(&self, engine: &Engine, sha256: &str, bytes: &[u8]) -> anyhow::Result<Component> {
        let file =
            self.directory.as_ref().map(|directory| directory.join(format!("{sha256}-{:016x}.cwasm", self.engine)));
        if let Some(component) = file.as_ref().and_then(|file| stored(engine, file)) {
            return Ok(component);
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

fn stored(engine: &Engine, file: &Path) -> Option<Component> {
    if !file.exists() {
        return None;
    }
    #[expect(unsafe_code, reason = "the file is our own serialisation, in a directory that nobody else can write to")]
    // SAFETY: `own_directory` has checked that only this user can write there, and only `store` does, whole files by
    // renaming. The engine refuses code of another version or with other settings.
    let component = unsafe { Component::deserialize_file(engine, file) };
    component.ok()
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
