//! All plugins there are: the built-in ones, and the files of the plugin folder.
//!
//! `server` scans at each reload, `snapshot`, `acme` and `admin` look things up. A file that cannot be used leaves the
//! version before in place.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{anyhow, bail};
use sha2::{Digest, Sha256};

use super::cache::Code;
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
    /// What serves. `None` if it is broken and never was good, or built in and not wanted by anything.
    pub plugin: Option<Arc<Plugin>>,
    /// Another version, which has not been taken yet: see [`Plugins::settle`].
    newer: Option<Arc<Plugin>>,
    /// The file is being compiled; `plugin`, if any, is the version before.
    pub is_coming: bool,
    /// Why the file could not be used; `plugin`, if any, is then its last good version.
    pub problem: Option<String>,
    /// Of the newest bytes.
    sha256: String,
}

/// Which of the built-in plugins are compiled: each takes some tenths of a second of CPU where no cache has it.
pub enum Wanted {
    All,
    /// Middlewares and DNS providers, in lower case.
    Named(BTreeSet<String>),
}

/// What a scan waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compiled {
    /// The code of all files.
    All,
    /// That of the files that are wanted. [`Host::compiled`] says when there is more.
    Wanted,
    /// None: what is there goes on.
    None,
}

impl Plugins {
    /// The built-in plugins, and those in `directory` if it exists. What `previous` had already is not compiled again.
    pub async fn scan(
        host: &Arc<Host>,
        directory: &Path,
        wanted: &Wanted,
        compiled: Compiled,
        previous: &Self,
    ) -> Self {
        let mut found = Self::default();
        for (name, bytes) in BUILT_IN {
            if wanted.includes(name) || previous.find(name).is_some_and(|known| known.plugin.is_some()) {
                found.add(host, previous, name, bytes, Origin::BuiltIn).await;
            } else {
                found.insert(Entry::new(name, Origin::BuiltIn, String::new()));
            }
        }
        for file in wasm_files(directory) {
            let Some(name) = file.file_stem().and_then(|stem| stem.to_str()).map(str::to_owned) else {
                continue;
            };
            let read = read_component(&file);
            match read {
                Ok(bytes) => {
                    let waits = match compiled {
                        Compiled::All => true,
                        Compiled::Wanted => wanted.includes(&name),
                        Compiled::None => false,
                    };
                    found.add_file(host, previous, &name, &bytes, file, waits).await;
                }
                Err(error) => {
                    let entry = Entry::new(&name, Origin::File(file), String::new());
                    found.keep(previous, entry, format!("{error:#}"));
                }
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

    /// Versions that may take the place of those that serve, which come first.
    pub fn newer(&self) -> impl Iterator<Item = (&Arc<Plugin>, &Arc<Plugin>)> {
        self.iter().filter_map(|entry| entry.plugin.as_ref().zip(entry.newer.as_ref()))
    }

    /// Takes the newer version of a plugin, unless there is a reason not to. It waits then for another time.
    pub fn settle(&mut self, name: &str, refusal: Option<String>) {
        let Some(entry) = self.by_name.get_mut(&name.to_lowercase()) else { return };
        if refusal.is_none() && entry.newer.is_some() {
            entry.plugin = entry.newer.take();
        }
        entry.problem = refusal;
    }

    /// The same of a file, whose code may come later.
    async fn add_file(
        &mut self,
        host: &Arc<Host>,
        previous: &Self,
        name: &str,
        bytes: &[u8],
        file: PathBuf,
        waits: bool,
    ) {
        let origin = Origin::File(file);
        let sha256 = hexadecimal(&Sha256::digest(bytes));
        let is_known = previous.find(name).is_some_and(|known| known.sha256 == sha256 && known.origin == origin);
        if waits || is_known {
            return self.add(host, previous, name, bytes, origin).await;
        }
        match host.code(&sha256, bytes, &origin) {
            Code::Ready => self.add(host, previous, name, bytes, origin).await,
            Code::Refused(problem) => self.keep(previous, Entry::new(name, origin, sha256), problem),
            Code::Coming => {
                let known = previous.find(name).or_else(|| self.find(name)).cloned();
                // Without a hash it is looked at again.
                let entry = Entry::new(name, origin, String::new());
                let plugin = known.and_then(|known| known.plugin);
                self.insert(Entry { plugin, is_coming: true, ..entry });
            }
        }
    }

    async fn add(&mut self, host: &Arc<Host>, previous: &Self, name: &str, bytes: &[u8], origin: Origin) {
        let sha256 = hexadecimal(&Sha256::digest(bytes));
        if let Some(known) = previous.find(name).filter(|known| known.sha256 == sha256 && known.origin == origin) {
            self.by_name.insert(name.to_lowercase(), known.clone());
            return;
        }
        let entry = Entry::new(name, origin.clone(), sha256);
        let serving = previous.find(name).and_then(|known| known.plugin.clone());
        match (host.load(name, bytes, origin).await.map(Arc::new), serving) {
            (Ok(plugin), None) => self.insert(Entry { plugin: Some(plugin), ..entry }),
            // It has yet to be taken.
            (Ok(newer), serving) => self.insert(Entry { plugin: serving, newer: Some(newer), ..entry }),
            (Err(error), _) => self.keep(previous, entry, format!("{error:#}")),
        }
    }

    /// A broken file keeps the version that worked: its own last one, else the built-in one it would have replaced.
    fn keep(&mut self, previous: &Self, entry: Entry, problem: String) {
        let last_good = previous.find(&entry.name).and_then(|known| known.plugin.clone());
        let built_in = || self.find(&entry.name).and_then(|known| known.plugin.clone());
        let plugin = last_good.or_else(built_in);
        self.insert(Entry { plugin, problem: Some(problem), ..entry });
    }

    fn insert(&mut self, entry: Entry) {
        self.by_name.insert(entry.name.to_lowercase(), entry);
    }
}

impl Entry {
    fn new(name: &str, origin: Origin, sha256: String) -> Self {
        Self { name: name.into(), origin, plugin: None, newer: None, is_coming: false, problem: None, sha256 }
    }

    /// What middlewares are made of though its file is gone.
    pub fn gone(plugin: &Arc<Plugin>) -> Self {
        let problem = "its file is gone; it serves on until its middlewares change or weir starts again".to_owned();
        let entry = Self::new(&plugin.name, plugin.origin.clone(), plugin.sha256.clone());
        Self { plugin: Some(Arc::clone(plugin)), problem: Some(problem), ..entry }
    }

    /// Whether it is a file that is called in the place of a built-in plugin.
    pub fn replaces_a_built_in(&self) -> bool {
        matches!(self.origin, Origin::File(_)) && BUILT_IN.iter().any(|(name, _)| name.eq_ignore_ascii_case(&self.name))
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
