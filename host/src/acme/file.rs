//! Small files that hold keys and must never be half there: written beside the old one, and renamed over it.
//!
//! `storage` and `state` call it. It knows nothing of what is in them.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// Replaces the content of `path`, which may be missing, but not a symbolic link.
///
/// A reader sees the old content or the new one. Only where the directory is closed, or where the file is a mount of its own,
/// is the file written in place, as there is no other way; a crash in the meantime may then damage it.
pub(super) fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    replace_by(path, content, |from, to| fs::rename(from, to))
}

/// The file that `path` stands for: symbolic links are followed, also to where nothing is yet.
pub(super) fn followed(path: &Path) -> io::Result<PathBuf> {
    /// As many as Linux follows.
    const LINKS: usize = 40;
    let mut path = path.to_owned();
    for _ in 0..LINKS {
        let Ok(target) = fs::read_link(&path) else { return Ok(path) };
        path = path.parent().unwrap_or_else(|| Path::new("")).join(target);
    }
    Err(io::Error::other("it is a symbolic link that leads nowhere"))
}

/// `path` with more behind its last name: `acme.json.bak`.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Tries whether a file of this size could be written.
pub(super) fn probe(path: &Path, size: usize) -> io::Result<()> {
    let content = vec![b' '; size];
    match Temporary::write(path, &content) {
        Ok(_removed) => Ok(()),
        Err(error) if is_closed(&error) && OpenOptions::new().write(true).open(path).is_ok() => Ok(()),
        Err(error) => Err(error),
    }
}

/// Removes what writers have left that were killed.
pub(super) fn sweep(path: &Path) {
    /// No write takes this long.
    const STALE: Duration = Duration::from_secs(60 * 60);
    let prefix = temporary_prefix(path);
    let Ok(entries) = fs::read_dir(directory(path)) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let name = name.as_encoded_bytes();
        let is_ours = name.starts_with(prefix.as_encoded_bytes()) && name.ends_with(TEMPORARY_SUFFIX.as_bytes());
        let age = || SystemTime::now().duration_since(entry.metadata().ok()?.modified().ok()?).ok();
        if is_ours && age().is_some_and(|age| age > STALE) {
            // Whoever may not remove it cannot do anything about it either.
            let _ = fs::remove_file(entry.path());
        }
    }
}

fn replace_by(path: &Path, content: &[u8], rename: impl Fn(&Path, &Path) -> io::Result<()>) -> io::Result<()> {
    let renamed = Temporary::write(path, content).and_then(|temporary| {
        rename(&temporary.path, path)?;
        sync_directory(directory(path))
    });
    match renamed {
        Err(error) if is_closed(&error) => write_in_place(path, content).map_err(|_| error),
        renamed => renamed,
    }
}

/// Whether the directory or a mount is in the way, and not the disk.
fn is_closed(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::CrossesDevices
            | io::ErrorKind::PermissionDenied
            | io::ErrorKind::ReadOnlyFilesystem
            | io::ErrorKind::ResourceBusy
    )
}

/// Never empty on the way: an empty file means that somebody has emptied it, a broken one that the backup is needed.
fn write_in_place(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).open(path)?;
    file.write_all(content)?;
    file.set_len(content.len() as u64)?;
    file.sync_all()
}

/// A file that is removed again unless it has been renamed.
struct Temporary {
    path: PathBuf,
}

impl Temporary {
    fn write(target: &Path, content: &[u8]) -> io::Result<Self> {
        let mut name = temporary_prefix(target);
        // A name that no other process uses at the same time, in this container or in another one.
        name.push(format!("{:016x}{TEMPORARY_SUFFIX}", RandomState::new().build_hasher().finish()));
        let path = directory(target).join(name);
        let mut file = create(&path)?;
        let temporary = Self { path };
        keep_owner(target, &file);
        file.write_all(content)?;
        file.sync_all()?;
        Ok(temporary)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // Once it has been renamed there is nothing to remove.
        let _ = fs::remove_file(&self.path);
    }
}

const TEMPORARY_SUFFIX: &str = ".tmp";

fn temporary_prefix(path: &Path) -> OsString {
    let mut prefix = OsString::from(".");
    prefix.push(path.file_name().unwrap_or_default());
    prefix.push(".");
    prefix
}

fn directory(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// A new file that only its owner can read.
fn create(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// Root writes for others too, who must be able to read what has been theirs.
#[cfg(unix)]
fn keep_owner(target: &Path, file: &File) {
    use std::os::unix::fs::{MetadataExt, fchown};

    let (Ok(old), Ok(new)) = (fs::metadata(target), file.metadata()) else { return };
    if (old.uid(), old.gid()) != (new.uid(), new.gid()) {
        // Whoever is not root may not, and owns the file from now on.
        let _ = fchown(file, Some(old.uid()), Some(old.gid()));
    }
}

#[cfg(not(unix))]
fn keep_owner(_: &Path, _: &File) {}

/// A rename is there after a loss of power only when its directory is.
#[cfg(unix)]
fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// Elsewhere a directory cannot be opened as a file.
#[cfg(not(unix))]
fn sync_directory(_: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(directory)
            .expect("the directory can be read")
            .map(|entry| entry.expect("the directory can be read").file_name().to_string_lossy().into_owned())
            .collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn a_file_is_made_and_replaced_and_nothing_else_is_left() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("acme.json");
        for content in ["first, and longer", "second"] {
            replace(&path, content.as_bytes()).expect("it can be written");
            assert_eq!(fs::read_to_string(&path).expect("it is there"), content);
        }
        assert_eq!(names(folder.path()), ["acme.json"]);
    }

    #[cfg(unix)]
    #[test]
    fn only_the_owner_reads_it_and_root_leaves_it_to_its_owner() {
        use std::os::unix::fs::{MetadataExt, chown};

        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("acme.json");
        replace(&path, b"1").expect("it can be written");
        assert_eq!(fs::metadata(&path).expect("it is there").mode() & 0o777, 0o600);
        // Only root can give files away.
        if chown(&path, Some(1234), Some(1234)).is_ok() {
            replace(&path, b"2").expect("it can be written");
            let metadata = fs::metadata(&path).expect("it is there");
            assert_eq!((metadata.uid(), metadata.gid(), metadata.mode() & 0o777), (1234, 1234, 0o600));
        }
    }

    #[test]
    fn a_mounted_file_is_written_in_place() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("acme.json");
        fs::write(&path, "a long old content").expect("it can be written");
        for kind in [io::ErrorKind::ResourceBusy, io::ErrorKind::CrossesDevices] {
            replace_by(&path, b"new", |_, _| Err(kind.into())).expect("it is written in place");
            assert_eq!(fs::read_to_string(&path).expect("it is there"), "new");
        }
        assert_eq!(names(folder.path()), ["acme.json"]);
    }

    #[test]
    fn a_full_disk_leaves_the_old_content() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("acme.json");
        fs::write(&path, "old").expect("it can be written");
        let error = replace_by(&path, b"new", |_, _| Err(io::ErrorKind::StorageFull.into())).expect_err("it fails");
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        assert_eq!(fs::read_to_string(&path).expect("it is there"), "old");
        assert_eq!(names(folder.path()), ["acme.json"]);
    }

    #[test]
    fn a_probe_leaves_nothing_and_finds_a_directory_that_is_not_there() {
        let folder = tempfile::tempdir().expect("a folder");
        probe(&folder.path().join("acme.json"), 10).expect("it could be written");
        assert!(names(folder.path()).is_empty());
        assert!(probe(&folder.path().join("missing/acme.json"), 10).is_err());
    }

    #[test]
    fn leftovers_of_killed_writers_are_removed_after_an_hour() {
        let folder = tempfile::tempdir().expect("a folder");
        let make = |name: &str, age: u64| {
            let file = File::create(folder.path().join(name)).expect("it can be made");
            file.set_modified(SystemTime::now() - Duration::from_secs(age)).expect("its time can be set");
        };
        make(".acme.json.0123.tmp", 4000);
        make(".acme.json.4567.tmp", 10);
        make(".other.json.0123.tmp", 4000);
        make("acme.json", 4000);
        sweep(&folder.path().join("acme.json"));
        assert_eq!(names(folder.path()), [".acme.json.4567.tmp", ".other.json.0123.tmp", "acme.json"]);
    }

    #[cfg(unix)]
    #[test]
    fn links_are_followed_to_where_nothing_is_yet() {
        use std::os::unix::fs::symlink;

        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        symlink("second", at("first")).expect("a link");
        symlink(at("data.json"), at("second")).expect("a link");
        assert_eq!(followed(&at("first")).expect("it leads to a file"), at("data.json"));
        symlink("round", at("round")).expect("a link");
        assert!(followed(&at("round")).is_err());
    }
}
