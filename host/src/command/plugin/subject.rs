//! The component that a command is about: read, loaded and configured as a proxy does it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::arguments::Given;
use super::log::Log;
use super::refusal;
use super::table::row;
use crate::command::check::{Report, listed};
use crate::config::{self, Node, Problem, reason};
use crate::plugin::{Configured, Host, Kind, Origin, Plugin, Step};
use crate::snapshot::plugin_options;

/// What stands for a text of the command line in messages.
const ARGUMENT: &str = "--config";
/// The name that the component has as a middleware, and the router that uses it.
const MIDDLEWARE: &str = "middleware@file";
const ROUTER: &str = "router@file";

pub(super) struct Subject {
    pub(super) host: Arc<Host>,
    pub(super) plugin: Arc<Plugin>,
    pub(super) bytes: usize,
    /// To compile it, and to run its `describe`.
    pub(super) loading: Duration,
}

/// What came of a component, or what to say instead.
pub(super) type Outcome<T> = Result<T, Report>;

impl Subject {
    /// Compiled code is kept in `cache`, if there is one.
    pub(super) async fn load(file: &Path, cache: Option<PathBuf>) -> anyhow::Result<Outcome<Self>> {
        let cannot = |why: String| refusal(format!("error: `{}` cannot be used: {why}\n", file.display()));
        let bytes = match fs::read(file) {
            Ok(bytes) => bytes,
            Err(error) => return Ok(Err(cannot(format!("it cannot be read: {}", reason(&error))))),
        };
        let name = file.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        let host = Host::trusting(cache)?;
        let began = Instant::now();
        let plugin = host.load(&name, &bytes, Origin::File(file.to_owned())).await;
        let loading = began.elapsed();
        Ok(plugin
            .map(|plugin| Self { host, plugin: Arc::new(plugin), bytes: bytes.len(), loading })
            .map_err(|error| cannot(format!("{error:#}"))))
    }

    /// With these options, or with none; in the chain of a router.
    pub(super) async fn configure(&self, config: Option<&Given>) -> Result<Step, Vec<Problem>> {
        self.plugin.must_be(Kind::Middleware).map_err(|error| {
            let help = "call it by native tests; `weir plugin check` without --config says what it wants";
            vec![Problem::error("", error.to_string()).help(help.to_owned())]
        })?;
        let configured = match config {
            Some(given) => {
                let configured = self.configured(&read_options(given)?).await;
                configured
                    .map_err(|problems| problems.into_iter().map(|problem| misread(problem, given)).collect::<Vec<_>>())
            }
            None => {
                self.configured(&no_options()).await.map_err(|problems| problems.into_iter().map(unasked).collect())
            }
        };
        Ok(Arc::new(configured?).on_router(&Arc::from(ROUTER)))
    }

    async fn configured(&self, options: &Node) -> Result<Configured, Vec<Problem>> {
        let checked = plugin_options(&self.plugin, options, &mut BTreeSet::new())?;
        let configured = self.host.configure(MIDDLEWARE, &self.plugin, &checked).await;
        configured.map_err(|error| vec![options.problem("", format!("{error:#}"))])
    }
}

/// The report of options that do not suit, with what the plugin has said about it.
pub(super) fn unsuited(problems: &[Problem], log: &Log) -> Report {
    let mut text = listed(problems);
    row(&mut text, "log", log.take());
    refusal(text)
}

/// Whoever names a file means what is in it, and whoever writes a word a key or a value.
fn misread(problem: Problem, given: &Given) -> Problem {
    match given {
        Given::Text(text) if Path::new(text).is_file() => {
            problem.help(format!("write `@{text}` for the options that the file has"))
        }
        Given::Text(text) if !text.trim().is_empty() && !text.contains([':', '{']) => {
            problem.help("write `{key: value}`, or `@FILE` for the options that a file has".to_owned())
        }
        _ => problem,
    }
}

/// What is wrong with options that nobody has written.
fn unasked(problem: Problem) -> Problem {
    Problem { place: None, ..problem }.help("name its options with --config".to_owned())
}

fn read_options(given: &Given) -> Result<Node, Vec<Problem>> {
    match given {
        Given::Text(text) => config::options(Path::new(ARGUMENT), text.as_bytes()),
        Given::File(file) => {
            let bytes = fs::read(file).map_err(|error| vec![Problem::error("", unreadable(file, &error))])?;
            config::options(file, &bytes)
        }
    }
}

fn no_options() -> Node {
    config::options(Path::new(ARGUMENT), b"").expect("nothing is good YAML")
}

/// The bytes of a body.
pub(super) fn content(given: Option<&Given>) -> Outcome<Bytes> {
    match given {
        None => Ok(Bytes::new()),
        Some(Given::Text(text)) => Ok(Bytes::from(text.clone())),
        Some(Given::File(file)) => {
            fs::read(file).map(Bytes::from).map_err(|error| refusal(format!("error: {}\n", unreadable(file, &error))))
        }
    }
}

fn unreadable(file: &Path, error: &std::io::Error) -> String {
    format!("`{}` cannot be read: {}", file.display(), reason(error))
}
