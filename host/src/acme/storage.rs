//! `acme.json`: the certificates and accounts of all resolvers that name the file, in Traefik's format, so that either proxy
//! takes over from the other.
//!
//! Each resolver asks it and tells it. It blocks for as long as the disk takes, and never opens a connection. Other processes
//! may write the file too: each change is made to what is there at the moment.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context, bail};
use jiff::Timestamp;

pub(crate) use self::document::Account;
use self::document::Document;
pub(crate) use self::stored::Stored;
use super::file;
use super::name::Identity;

mod document;
mod json;
mod stored;

/// One file. Resolvers that name the same one share it.
pub(crate) struct Storage {
    /// As the configuration has it, for messages.
    path: PathBuf,
    /// Where it is, with symbolic links followed.
    target: PathBuf,
    content: Mutex<Content>,
}

struct Content {
    /// What the file held when it was last read or written; nothing if it was empty or missing.
    bytes: Vec<u8>,
    document: Document,
}

impl Storage {
    /// Reads the file, or makes it. The sentences are warnings that somebody should read.
    ///
    /// # Errors
    ///
    /// The file is open to others, or cannot be read or written.
    pub(crate) fn open(path: &Path) -> anyhow::Result<(Self, Vec<String>)> {
        let shown = path.display();
        let target = file::followed(path).with_context(|| format!("`{shown}` cannot be followed"))?;
        file::sweep(&target);
        match fs::metadata(&target) {
            Ok(metadata) => check(path, &metadata)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                file::replace(&target, b"").with_context(|| format!("`{shown}` cannot be made"))?;
            }
            Err(error) => return Err(error).with_context(|| format!("`{shown}` cannot be read")),
        }
        let bytes = fs::read(&target).with_context(|| format!("`{shown}` cannot be read"))?;
        let mut storage = Self {
            path: path.to_owned(),
            target,
            content: Mutex::new(Content { bytes, document: Document::default() }),
        };
        let warnings = storage.load()?;
        storage.probe()?;
        Ok((storage, warnings))
    }

    /// Reads the file without changing anything, for those who only want to know.
    ///
    /// # Errors
    ///
    /// The file is open to others, or cannot be read.
    pub(crate) fn look(path: &Path) -> anyhow::Result<(Self, Vec<String>)> {
        let shown = path.display();
        let target = file::followed(path).with_context(|| format!("`{shown}` cannot be followed"))?;
        let bytes = match fs::metadata(&target) {
            Ok(metadata) => {
                check(path, &metadata)?;
                fs::read(&target).with_context(|| format!("`{shown}` cannot be read"))?
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error).with_context(|| format!("`{shown}` cannot be read")),
        };
        let (document, mut warnings) = match Document::parse(&bytes) {
            Ok(read) => read,
            Err(reason) => {
                let aside = aside(&target);
                let (document, rest) = backup(&target);
                let aside =
                    format!("`{shown}` is broken ({reason}): a start would set it aside as `{}`", aside.display());
                (document, vec![format!("{aside}; {rest}")])
            }
        };
        warnings.extend(unreadable(&document));
        Ok((Self { path: path.to_owned(), target, content: Mutex::new(Content { bytes, document }) }, warnings))
    }

    /// Whether a certificate could be kept: asked before an order is spent on one.
    ///
    /// # Errors
    ///
    /// Nothing can be written there, for example because the disk is full.
    pub(crate) fn probe(&self) -> anyhow::Result<()> {
        /// More than a certificate with its chain and key.
        const ROOM: usize = 64 * 1024;
        let size = self.lock().bytes.len() + ROOM;
        file::probe(&self.target, size).with_context(|| format!("`{}` cannot be written", self.path.display()))
    }

    /// Reads what others have written since. Whether that is anything.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or is broken and cannot be set aside.
    pub(crate) fn refresh(&self) -> anyhow::Result<bool> {
        self.refreshed(&mut self.lock())
    }

    /// The certificates of a resolver, but for those that cannot be read.
    pub(crate) fn certificates(&self, resolver: &str) -> Vec<Stored> {
        self.lock().document.certificates(resolver).filter_map(Result::ok).collect()
    }

    /// Keeps a certificate, in place of the one with the same names.
    pub(crate) fn put(&self, resolver: &str, certificate: &Stored) -> anyhow::Result<()> {
        self.change(|document| document.put(resolver, certificate))
    }

    pub(crate) fn remove(&self, resolver: &str, certificate: &Identity) -> anyhow::Result<()> {
        self.change(|document| document.remove(resolver, certificate))
    }

    pub(crate) fn account(&self, resolver: &str) -> Option<Account> {
        self.lock().document.account(resolver)
    }

    /// Keeps Weir's own account, or forgets it. Traefik's stays as it is.
    pub(crate) fn set_account(&self, resolver: &str, account: Option<&Account>) -> anyhow::Result<()> {
        self.change(|document| document.set_account(resolver, account))
    }

    /// The name of a file of ours beside it.
    pub(crate) fn beside(&self, suffix: &str) -> PathBuf {
        file::beside(&self.target, suffix)
    }

    /// Reads the content that `open` has found.
    fn load(&mut self) -> anyhow::Result<Vec<String>> {
        let content = self.content.get_mut().unwrap_or_else(PoisonError::into_inner);
        let mut warnings = Vec::new();
        match Document::parse(&content.bytes) {
            Ok((document, dropped)) => {
                content.document = document;
                warnings = dropped;
            }
            Err(reason) => {
                let aside = set_aside(&self.path, &self.target, &content.bytes, &reason)?;
                let (document, rest) = backup(&self.target);
                content.document = document;
                content.bytes = content.document.to_text().into_bytes();
                file::replace(&self.target, &content.bytes)
                    .with_context(|| format!("`{}` cannot be written", self.path.display()))?;
                warnings.push(format!("{aside}; {rest}"));
            }
        }
        warnings.extend(unreadable(&content.document));
        Ok(warnings)
    }

    fn change(&self, edit: impl FnOnce(&mut Document)) -> anyhow::Result<()> {
        let mut content = self.lock();
        self.refreshed(&mut content)?;
        let mut document = content.document.clone();
        edit(&mut document);
        let bytes = document.to_text().into_bytes();
        if bytes == content.bytes {
            return Ok(());
        }
        if !content.bytes.is_empty()
            && let Err(error) = file::replace(&file::beside(&self.target, BACKUP), &content.bytes)
        {
            tracing::warn!("failed to keep a backup of `{}`: {error}", self.path.display());
        }
        file::replace(&self.target, &bytes).with_context(|| format!("`{}` cannot be written", self.path.display()))?;
        *content = Content { bytes, document };
        Ok(())
    }

    fn refreshed(&self, content: &mut Content) -> anyhow::Result<bool> {
        let bytes = match fs::read(&self.target) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error).with_context(|| format!("`{}` cannot be read", self.path.display())),
        };
        if bytes == content.bytes {
            return Ok(false);
        }
        // Whoever removes or empties the file while we run loses nothing: the next change brings all of it back.
        if bytes.is_empty() {
            content.bytes = bytes;
            return Ok(false);
        }
        match Document::parse(&bytes) {
            Ok((document, _)) => {
                *content = Content { bytes, document };
                Ok(true)
            }
            Err(reason) => {
                let aside = set_aside(&self.path, &self.target, &bytes, &reason)?;
                tracing::warn!("{aside}; it is written anew");
                // Not what is there, so that the next change is written, and not good enough for a backup.
                content.bytes = Vec::new();
                Ok(false)
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Content> {
        // A panic leaves what was last read or written.
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Without the content, which is secret.
impl fmt::Debug for Storage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Storage").field("path", &self.path).finish_non_exhaustive()
    }
}

const BACKUP: &str = ".bak";

fn check(path: &Path, metadata: &fs::Metadata) -> anyhow::Result<()> {
    if !metadata.is_file() {
        bail!("`{}` is no regular file", path.display());
    }
    #[cfg(unix)]
    {
        let mode = std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o777;
        if mode & 0o077 != 0 {
            // Traefik's words, for which its users search.
            bail!("permissions {mode:o} for {} are too open, please use 600", path.display());
        }
    }
    Ok(())
}

/// Keeps a broken file's content under the time at which it was written. Says so.
fn set_aside(path: &Path, target: &Path, content: &[u8], reason: &str) -> anyhow::Result<String> {
    let aside = aside(target);
    file::replace(&aside, content)
        .with_context(|| format!("`{}` is broken ({reason}), and cannot be set aside", path.display()))?;
    Ok(format!("`{}` is broken ({reason}) and has been set aside as `{}`", path.display(), aside.display()))
}

/// Under the time at which it was written, so that the same file comes to the same place.
fn aside(target: &Path) -> PathBuf {
    let written = fs::metadata(target).and_then(|metadata| metadata.modified()).ok();
    let written = written.and_then(|time| Timestamp::try_from(time).ok()).unwrap_or(Timestamp::UNIX_EPOCH);
    file::beside(target, &format!(".corrupt-{}", written.strftime("%Y%m%dT%H%M%SZ")))
}

/// What is used in place of a broken file, and in words.
fn backup(target: &Path) -> (Document, String) {
    let backup = file::beside(target, BACKUP);
    let read = fs::read(&backup).ok().filter(|bytes| !bytes.is_empty());
    match read.and_then(|bytes| Document::parse(&bytes).ok()) {
        Some((document, _)) => (document, format!("its backup `{}` is used instead", backup.display())),
        None => {
            let rest = "there is no usable backup, so that all certificates are ordered anew";
            (Document::default(), rest.to_owned())
        }
    }
}

/// Certificates that cannot be served, each in words.
fn unreadable(document: &Document) -> impl Iterator<Item = String> {
    document.resolvers().flat_map(|resolver| document.certificates(resolver).filter_map(Result::err))
}

#[cfg(test)]
mod tests;
