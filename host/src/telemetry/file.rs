//! A log file: appended to, rotated by size, reopened on request.
//!
//! `Logging` and the access log's writer own one each. Rotated files are named as Traefik's: `traefik.log` becomes
//! `traefik-2026-11-21T20-57-00.000.log`, with `.gz` at the end once compressed.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

/// When a log file is rotated, and what is kept.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Rotation {
    /// Bytes; `None`: never.
    pub(super) max_size: Option<u64>,
    /// Rotated files that are older are deleted.
    pub(super) max_age: Option<SignedDuration>,
    /// How many rotated files are kept.
    pub(super) max_backups: Option<usize>,
    pub(super) compress: bool,
}

/// An open log file.
#[derive(Debug)]
pub(super) struct LogFile {
    path: PathBuf,
    rotation: Rotation,
    file: File,
    /// Bytes in the file.
    size: u64,
    tidying: Option<JoinHandle<()>>,
}

impl LogFile {
    /// Opens the file for appending; makes it and its directories if they are missing.
    pub(super) fn open(path: &Path, rotation: Rotation) -> io::Result<Self> {
        let (file, size) = append_to(path)?;
        Ok(Self { path: path.to_owned(), rotation, file, size, tidying: None })
    }

    /// Appends whole lines, after a rotation if they do not fit.
    pub(super) fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        let length = lines.len() as u64;
        let full = |max_size| self.size > 0 && self.size + length > max_size;
        if self.rotation.max_size.is_some_and(full) {
            // A file that cannot be renamed is written to further: its lines count more than its size.
            let rotated = self.rotate();
            self.size = if rotated.is_ok() { self.size } else { 0 };
        }
        self.file.write_all(lines)?;
        self.size += length;
        Ok(())
    }

    /// Opens the path anew, for whoever has renamed the file. On an error the file as it is stays in use.
    pub(super) fn reopen(&mut self) -> io::Result<()> {
        (self.file, self.size) = append_to(&self.path)?;
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        fs::rename(&self.path, unused_backup(&self.path))?;
        self.reopen()?;
        self.tidy();
        Ok(())
    }

    /// Deletes and compresses in the background; a run that is still busy leaves the rest to the next one.
    fn tidy(&mut self) {
        if self.tidying.as_ref().is_some_and(|tidying| !tidying.is_finished()) {
            return;
        }
        let (path, rotation) = (self.path.clone(), self.rotation.clone());
        let tidying = thread::Builder::new().name("log-rotation".to_owned());
        self.tidying = tidying.spawn(move || tidy(&path, &rotation)).ok();
    }
}

impl Drop for LogFile {
    fn drop(&mut self) {
        if let Some(tidying) = self.tidying.take() {
            // A thread that panicked has said so itself.
            let _ = tidying.join();
        }
    }
}

fn append_to(path: &Path) -> io::Result<(File, u64)> {
    if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
        fs::create_dir_all(directory)?;
    }
    let file = OpenOptions::new().append(true).create(true).open(path)?;
    let size = file.metadata()?.len();
    Ok((file, size))
}

const TIME: &str = "%Y-%m-%dT%H-%M-%S%.3f";

fn unused_backup(path: &Path) -> PathBuf {
    let (prefix, suffix) = around_time(path);
    let mut time = Timestamp::now();
    loop {
        let backup = path.with_file_name(format!("{prefix}{}{suffix}", time.strftime(TIME)));
        if !backup.exists() && !compressed(&backup).exists() {
            return backup;
        }
        time = time.checked_add(Duration::from_millis(1)).expect("the clock is not at the end of time");
    }
}

/// What stands before and after the time in the name of a rotated file.
fn around_time(path: &Path) -> (String, String) {
    let text = |part: Option<&OsStr>| part.unwrap_or_default().to_string_lossy().into_owned();
    let suffix = path.extension().map(|extension| format!(".{}", extension.to_string_lossy()));
    (format!("{}-", text(path.file_stem())), suffix.unwrap_or_default())
}

fn compressed(backup: &Path) -> PathBuf {
    let mut name = backup.as_os_str().to_owned();
    name.push(".gz");
    name.into()
}

/// Nothing here is worth a stop: what fails is tried again after the next rotation.
fn tidy(path: &Path, rotation: &Rotation) {
    let now = Timestamp::now();
    for (index, backup) in backups(path).into_iter().enumerate() {
        let too_many = rotation.max_backups.is_some_and(|most| index >= most);
        let too_old = rotation.max_age.is_some_and(|age| now.duration_since(backup.time) > age);
        if too_many || too_old {
            let _ = fs::remove_file(&backup.path);
        } else if rotation.compress && !backup.compressed {
            let _ = compress(&backup.path);
        }
    }
}

struct Backup {
    path: PathBuf,
    time: Timestamp,
    compressed: bool,
}

/// The rotated files, youngest first.
fn backups(path: &Path) -> Vec<Backup> {
    let (prefix, suffix) = around_time(path);
    let directory =
        path.parent().filter(|directory| !directory.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    let Ok(entries) = fs::read_dir(directory) else {
        return Vec::new();
    };
    let mut backups: Vec<_> = entries
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let (rest, compressed) = match name.strip_suffix(".gz") {
                Some(rest) => (rest, true),
                None => (name.as_str(), false),
            };
            let time = rest.strip_prefix(&prefix)?.strip_suffix(&suffix)?;
            let time = DateTime::strptime(TIME, time).ok()?.to_zoned(TimeZone::UTC).ok()?.timestamp();
            Some(Backup { path: entry.path(), time, compressed })
        })
        .collect();
    backups.sort_by_key(|backup| std::cmp::Reverse(backup.time));
    backups
}

/// The original goes only when its copy is complete; half a copy from a crash is written anew.
fn compress(backup: &Path) -> io::Result<()> {
    let target = compressed(backup);
    let partial = target.with_extension("gz.part");
    let mut encoder = GzEncoder::new(File::create(&partial)?, Compression::default());
    io::copy(&mut File::open(backup)?, &mut encoder)?;
    encoder.finish()?.sync_all()?;
    fs::rename(&partial, &target)?;
    fs::remove_file(backup)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use flate2::read::GzDecoder;

    use super::*;

    #[test]
    fn rotates_compresses_and_deletes() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("new").join("weir.log");
        let rotation = Rotation { max_size: Some(10), max_backups: Some(2), compress: true, ..Rotation::default() };
        let mut log = LogFile::open(&path, rotation).expect("opens");
        for line in ["one\n", "two\n", "three\n", "four\n", "fifth line\n"] {
            log.write(line.as_bytes()).expect("writes");
            if let Some(tidying) = log.tidying.take() {
                tidying.join().expect("tidies");
            }
        }
        assert_eq!(fs::read_to_string(&path).expect("the file is there"), "fifth line\n");
        let texts: Vec<_> = backups(&path).iter().map(|backup| decompressed(&backup.path)).collect();
        assert_eq!(texts, ["four\n", "three\n"]);
    }

    #[test]
    fn deletes_by_age() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("weir.log");
        for name in ["weir-2020-01-01T00-00-00.000.log", "weir-2020-01-01T00-00-00.001.log.gz", "weir-x.log"] {
            fs::write(directory.path().join(name), "old").expect("writes");
        }
        tidy(&path, &Rotation { max_age: Some(SignedDuration::from_hours(24)), ..Rotation::default() });
        let names: Vec<_> = fs::read_dir(directory.path()).expect("lists").flatten().map(|e| e.file_name()).collect();
        assert_eq!(names, ["weir-x.log"]);
    }

    #[test]
    fn reopens_after_a_rename() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("weir.log");
        let mut log = LogFile::open(&path, Rotation::default()).expect("opens");
        log.write(b"one\n").expect("writes");
        fs::rename(&path, directory.path().join("weir.log.1")).expect("renames");
        log.reopen().expect("reopens");
        log.write(b"two\n").expect("writes");
        assert_eq!(fs::read_to_string(&path).expect("the file is there"), "two\n");
    }

    fn decompressed(path: &Path) -> String {
        let mut text = String::new();
        let file = File::open(path).expect("the backup is there");
        GzDecoder::new(file).read_to_string(&mut text).expect("the backup is gzip");
        text
    }
}
