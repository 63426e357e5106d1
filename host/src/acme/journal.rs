//! The TXT records that were made, or may have been, and are not known to be gone: what a crash leaves behind can be
//! deleted afterwards.
//!
//! `dns01` writes a record down before it makes it. The file lies beside `acme.json` as `acme.json.records`, and is there
//! only while there are records. It holds what the authority was told, which is no secret, but nobody's business either.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Context;
use serde::{Deserialize, Serialize};

/// One record, and all that it takes to delete it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// The certificates resolver.
    pub resolver: String,
    /// Its DNS provider, the only one that can delete the record.
    pub provider: String,
    pub domain: String,
    pub fqdn: String,
    pub zone: String,
    pub value: String,
    pub token: String,
    pub key_authorization: String,
    /// For those who read it.
    pub since: String,
    /// What the provider calls the record. None: it may not have been made at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handle: Option<String>,
}

/// What makes a record one record.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    resolver: String,
    provider: String,
    fqdn: String,
    value: String,
}

pub(crate) struct Journal {
    path: PathBuf,
    entries: Mutex<Vec<Entry>>,
    /// How many need a record now.
    holders: Mutex<HashMap<Key, usize>>,
}

/// As long as it lives, the record is needed.
pub(crate) struct Hold {
    journal: Arc<Journal>,
    key: Key,
}

impl Entry {
    pub(crate) fn key(&self) -> Key {
        Key {
            resolver: self.resolver.clone(),
            provider: self.provider.clone(),
            fqdn: self.fqdn.clone(),
            value: self.value.clone(),
        }
    }
}

impl Journal {
    /// Reads the file at `path`, if there is one. What cannot be understood is set aside, since it must not keep
    /// certificates from being renewed.
    pub(crate) fn open(path: &Path) -> anyhow::Result<Arc<Self>> {
        let failed = || format!("failed to read `{}`", path.display());
        let entries = match fs::read(path) {
            Ok(bytes) => match serde_json::from_slice(&bytes) {
                Ok(entries) => entries,
                Err(error) => {
                    set_aside(path, &error).with_context(failed)?;
                    Vec::new()
                }
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error).with_context(failed),
        };
        Ok(Arc::new(Self { path: path.to_owned(), entries: Mutex::new(entries), holders: Mutex::default() }))
    }

    pub(crate) fn records(&self) -> Vec<Entry> {
        self.locked().clone()
    }

    pub(crate) fn find(&self, key: &Key) -> Option<Entry> {
        self.locked().iter().find(|entry| entry.key() == *key).cloned()
    }

    pub(crate) fn hold(self: &Arc<Self>, key: Key) -> Hold {
        *self.holders().entry(key.clone()).or_default() += 1;
        Hold { journal: Arc::clone(self), key }
    }

    pub(crate) fn is_held(&self, key: &Key) -> bool {
        self.holders().contains_key(key)
    }

    /// Returns when it is on the disk. An entry with the same key is replaced.
    pub(crate) async fn add(self: &Arc<Self>, entry: Entry) -> anyhow::Result<()> {
        let key = entry.key();
        self.change(move |entries| {
            entries.retain(|entry| entry.key() != key);
            entries.push(entry);
        })
        .await
    }

    /// Notes what the provider calls the record.
    pub(crate) async fn update(self: &Arc<Self>, key: Key, handle: String) -> anyhow::Result<()> {
        self.change(move |entries| {
            if let Some(entry) = entries.iter_mut().find(|entry| entry.key() == key) {
                entry.handle = Some(handle);
            }
        })
        .await
    }

    pub(crate) async fn remove(self: &Arc<Self>, key: Key) -> anyhow::Result<()> {
        self.change(move |entries| entries.retain(|entry| entry.key() != key)).await
    }

    /// Not on the runtime's thread: a disk may take its time. It goes on when nobody waits for it any more.
    async fn change(self: &Arc<Self>, change: impl FnOnce(&mut Vec<Entry>) + Send + 'static) -> anyhow::Result<()> {
        let journal = Arc::clone(self);
        let change = move || {
            let mut entries = journal.locked();
            let mut changed = entries.clone();
            change(&mut changed);
            write(&journal.path, &changed).with_context(|| format!("failed to write `{}`", journal.path.display()))?;
            *entries = changed;
            Ok(())
        };
        tokio::task::spawn_blocking(change).await?
    }

    fn locked(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn holders(&self) -> MutexGuard<'_, HashMap<Key, usize>> {
        self.holders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Hold {
    pub(crate) fn key(&self) -> &Key {
        &self.key
    }

    /// Whether nobody else needs the record.
    pub(crate) fn is_last(&self) -> bool {
        self.journal.holders().get(&self.key).is_none_or(|holders| *holders == 1)
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut holders = self.journal.holders();
        if let Some(count) = holders.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                holders.remove(&self.key);
            }
        }
    }
}

/// Whole or not at all, whenever the power fails.
fn write(path: &Path, entries: &[Entry]) -> anyhow::Result<()> {
    if entries.is_empty() {
        return match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(sync_directory(path)?),
        };
    }
    let mut text = serde_json::to_vec_pretty(entries)?;
    text.push(b'\n');
    let temporary = with_suffix(path, ".new");
    let mut file = create(&temporary)?;
    file.write_all(&text)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    Ok(sync_directory(path)?)
}

/// What an earlier crash left there may have other permissions.
fn create(path: &Path) -> io::Result<File> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// A new name is safe only when its directory is.
fn sync_directory(path: &Path) -> io::Result<()> {
    if cfg!(not(unix)) {
        return Ok(());
    }
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    File::open(directory)?.sync_all()
}

fn set_aside(path: &Path, error: &serde_json::Error) -> io::Result<()> {
    let aside = with_suffix(path, ".corrupt");
    tracing::error!(
        "`{}` cannot be understood: {error}. TXT records of challenges may be left in the DNS; it is kept as `{}`",
        path.display(),
        aside.display()
    );
    fs::rename(path, aside)
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(value: &str) -> Entry {
        Entry {
            resolver: "le".to_owned(),
            provider: "rfc2136".to_owned(),
            domain: "example.com".to_owned(),
            fqdn: "_acme-challenge.example.com.".to_owned(),
            zone: "example.com.".to_owned(),
            value: value.to_owned(),
            token: "token".to_owned(),
            key_authorization: "token.thumbprint".to_owned(),
            since: "1970-01-01T00:00:00Z".to_owned(),
            handle: None,
        }
    }

    #[tokio::test]
    async fn what_is_written_down_is_read_again() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("acme.json.records");
        let journal = Journal::open(&path).expect("an empty journal");
        journal.add(entry("one")).await.expect("written");
        journal.add(entry("two")).await.expect("written");
        journal.add(entry("two")).await.expect("written once");
        journal.update(entry("two").key(), "17".to_owned()).await.expect("written");
        let read = Journal::open(&path).expect("a journal").records();
        assert_eq!(read, [entry("one"), Entry { handle: Some("17".to_owned()), ..entry("two") }]);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(fs::metadata(&path).expect("a file").permissions().mode() & 0o777, 0o600);
        }
        journal.remove(entry("one").key()).await.expect("written");
        journal.remove(entry("two").key()).await.expect("written");
        assert_eq!(fs::read_dir(directory.path()).expect("a directory").count(), 0, "nothing is left");
        assert_eq!(Journal::open(&path).expect("an empty journal").records(), []);
    }

    #[test]
    fn what_cannot_be_understood_is_set_aside() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("acme.json.records");
        fs::write(&path, "[{\"resolver\":").expect("written");
        assert_eq!(Journal::open(&path).expect("an empty journal").records(), []);
        assert!(!path.exists());
        assert!(directory.path().join("acme.json.records.corrupt").exists());
    }

    #[tokio::test]
    async fn what_cannot_be_written_is_an_error() {
        let directory = tempfile::tempdir().expect("a directory");
        let journal = Journal::open(&directory.path().join("missing/acme.json.records")).expect("an empty journal");
        let error = journal.add(entry("one")).await.expect_err("no such directory");
        assert!(format!("{error:#}").starts_with("failed to write"), "{error:#}");
    }

    #[test]
    fn a_record_is_held_until_the_last_one_lets_go() {
        let directory = tempfile::tempdir().expect("a directory");
        let journal = Journal::open(&directory.path().join("records")).expect("an empty journal");
        let key = entry("one").key();
        let (first, second) = (journal.hold(key.clone()), journal.hold(key.clone()));
        assert!(!first.is_last());
        drop(first);
        assert!(second.is_last() && journal.is_held(&key));
        drop(second);
        assert!(!journal.is_held(&key));
    }
}
