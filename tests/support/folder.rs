//! A directory that goes away with the test. `$DIR` in a text that is written to it is its path.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use tempfile::{NamedTempFile, TempDir};

pub(crate) struct Folder(TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary directory"))
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn root(&self) -> &Path {
        self.0.path()
    }

    /// Puts a whole file in its place at once, as careful editors do.
    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        let directory = path.parent().expect("a file is in a directory");
        fs::create_dir_all(directory).expect("a directory can be made");
        // Beside the watched directories, so that what is watched is the renaming alone.
        let mut file = NamedTempFile::new_in(self.root()).expect("a temporary file");
        file.write_all(&self.filled_in(content.as_ref())).expect("a temporary file can be written");
        file.persist(&path).expect("a file can be renamed");
        path
    }

    /// Empties a file and writes it again, as careless editors do.
    pub(crate) fn rewrite(&self, name: &str, content: &str) {
        fs::write(self.path(name), self.filled_in(content.as_bytes())).expect("a file can be written");
    }

    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    pub(crate) fn remove(&self, name: &str) {
        fs::remove_file(self.path(name)).expect("the file is there");
    }

    fn filled_in(&self, content: &[u8]) -> Vec<u8> {
        match str::from_utf8(content) {
            Ok(text) => text.replace("$DIR", &self.root().display().to_string()).into_bytes(),
            Err(_) => content.to_vec(),
        }
    }
}
