//! All plugins there are: the built-in ones, and the files of the plugin folder.
//!
//! `server` scans at each reload, `snapshot`, `acme` and `admin` look things up. A file that cannot be used leaves the
//! version before in place.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{anyhow, bail};
use sha2::{Digest, Sha256};

use super::{BUILT_IN, COMPONENT_BYTES_AT_MOST, Host, Origin, Plugin, hexadecimal};
use crate::config::reason;

/// All plugins by name. Built-in ones are replaced by files of the same name.
#[derive(Clone, Default)]
pub struct Plugins {
    /// Keys are lower case: Traefik's middleware names match without regard to case.
    by_name: BTreeMap<String, Entry>,
}

/// One plugin, and what is wrong with the newest version of it.
#[derive(Clone)]
pub struct Entry {
    pub name: Arc<str>,
    pub origin: Origin,
    /// `None` if it is broken and never was good, or built in and not wanted by anything.
    pub plugin: Option<Arc<Plugin>>,
    /// Why the file could not be used; `plugin`, if any, is then its last good version.
    pub problem: Option<String>,
    /// Of the bytes that `plugin` or `problem` speak of.
    sha256: String,
}

/// Which of the built-in plugins are compiled: each takes some tenths of a second of CPU where no cache has it.
pub enum Wanted {
    All,
    /// Middlewares and DNS providers, in lower case.
    Named(BTreeSet<String>),
}

impl Plugins {
    /// The built-in plugins, and those in `directory` if it exists. What `previous` had already is not compiled again.
    pub async fn scan(host: &Arc<Host>, directory: &Path, wanted: &Wanted, previous: &Self) -> Self {
        let mut found = Self::default();
        for (name, bytes) in BUILT_IN {
            if wanted.includes(name) || previous.find(name).is_some_and(|known| known.plugin.is_some()) {
                found.add(host, previous, name, bytes, Origin::BuiltIn).await;
            } else {
                found.insert(name, Origin::BuiltIn, None, None, String::new());
            }
        }
        for file in wasm_files(directory) {
            let Some(name) = file.file_stem().and_then(|stem| stem.to_str()).map(str::to_owned) else {
                continue;
            };
            let read = read_component(&file);
            match read {
                Ok(bytes) => found.add(host, previous, &name, &bytes, Origin::File(file)).await,
                Err(error) => found.keep(previous, &name, Origin::File(file), String::new(), format!("{error:#}")),
            }
        }
        found
    }

    pub fn find(&self, name: &str) -> Option<&Entry> {
        self.by_name.get(&name.to_lowercase())
    }

    pub fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.by_name.values()
    }

    async fn add(&mut self, host: &Arc<Host>, previous: &Self, name: &str, bytes: &[u8], origin: Origin) {
        let sha256 = hexadecimal(&Sha256::digest(bytes));
        if let Some(known) = previous.find(name).filter(|known| known.sha256 == sha256 && known.origin == origin) {
            self.by_name.insert(name.to_lowercase(), known.clone());
            return;
        }
        match host.load(name, bytes, origin.clone()).await {
            Ok(plugin) => self.insert(name, origin, Some(Arc::new(plugin)), None, sha256),
            Err(error) => self.keep(previous, name, origin, sha256, format!("{error:#}")),
        }
    }

    /// A broken file keeps the version that worked: its own last one, else the built-in one it would have replaced.
    fn keep(&mut self, previous: &Self, name: &str, origin: Origin, sha256: String, problem: String) {
        let last_good = previous.find(name).and_then(|known| known.plugin.clone());
        let built_in = || self.find(name).and_then(|known| known.plugin.clone());
        let plugin = last_good.or_else(built_in);
        self.insert(name, origin, plugin, Some(problem), sha256);
    }

    fn insert(
        &mut self,
        name: &str,
        origin: Origin,
        plugin: Option<Arc<Plugin>>,
        problem: Option<String>,
        sha256: String,
    ) {
        let entry = Entry { name: name.into(), origin, plugin, problem, sha256 };
        self.by_name.insert(name.to_lowercase(), entry);
    }
}

impl Wanted {
    fn includes(&self, name: &str) -> bool {
        match self {
            Self::All => true,
            Self::Named(names) => names.contains(&name.to_lowercase()),
        }
    }
}

/// The `.wasm` files of the plugin folder itself, in name order.
fn wasm_files(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(directory) else {
        return Vec::new();
    };
    let mut files: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "wasm"))
        .collect();
    files.sort();
    files
}

fn read_component(file: &Path) -> anyhow::Result<Vec<u8>> {
    let unreadable = |error: std::io::Error| anyhow!("it cannot be read: {}", reason(&error));
    let size = std::fs::metadata(file).map_err(unreadable)?.len();
    if size > COMPONENT_BYTES_AT_MOST {
        bail!("{size} bytes are too many: at most {COMPONENT_BYTES_AT_MOST} are accepted");
    }
    std::fs::read(file).map_err(unreadable)
}
