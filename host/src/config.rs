//! Configuration: Traefik's install and routing files as typed values with exact places.
//!
//! `main` and `server` call [`install()`] once and [`Files::read`] at every reload. Text becomes a tree with places
//! ([`tree`]), the tree becomes the types of [`mod@install`] and [`routing`]. This module checks single values; whether
//! names lead anywhere is the snapshot's question. It knows no other module of ours.

use std::fmt;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use serde::{Serialize, Serializer};

mod de;
mod files;
pub mod install;
mod json;
pub mod routing;
pub mod tree;
mod web_origin;

pub use files::{Files, reason};
pub use install::Install;
pub use json::plain;
pub use routing::Routing;
pub use tree::Node;
pub use web_origin::WebOrigin;

/// Reads an install file, with all its warnings.
///
/// # Errors
///
/// Every error of the file in one list, with its warnings: it could not be read, it is no YAML, or keys and values are
/// wrong.
pub fn install(file: &Path) -> Result<(Install, Vec<Problem>), Vec<Problem>> {
    let name: Arc<Path> = Arc::from(file);
    let bytes = fs::read(file).map_err(|error| {
        vec![Problem::error("", format!("`{}` cannot be read: {}", file.display(), reason(&error)))]
    })?;
    let text = tree::text(&name, &bytes).map_err(|problem| vec![problem])?;
    install::read(tree::parse(&name, text)?)
}

/// The same for an install file that is part of the program. `name` stands for it in messages.
///
/// # Errors
///
/// As [`install`].
pub fn install_text(name: &Path, text: &str) -> Result<(Install, Vec<Problem>), Vec<Problem>> {
    install::read(tree::parse(&Arc::from(name), text)?)
}

/// Reads options of a plugin that are no part of a routing file. `name` stands for where they come from in messages.
///
/// # Errors
///
/// They are no YAML, of which JSON is a part.
pub fn options(name: &Path, text: &[u8]) -> Result<Node, Vec<Problem>> {
    let name: Arc<Path> = Arc::from(name);
    let text = tree::text(&name, text).map_err(|problem| vec![problem])?;
    Ok(tree::parse(&name, text)?.unwrap_or_else(|| Node::nothing(name)))
}

/// Where something stands in a file. Line and column count from 1, the column in characters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    pub file: Arc<Path>,
    pub line: usize,
    pub column: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file.display(), self.line, self.column)
    }
}

impl Serialize for Place {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// How bad a [`Problem`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// What it concerns is not used.
    Error,
    /// It is used, perhaps not as meant.
    Warning,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
        })
    }
}

/// Something wrong in a configuration, for the administrator's eyes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct Problem {
    pub severity: Severity,
    /// `None` where no file says it, such as a directory that is missing.
    pub place: Option<Place>,
    /// The path of keys, such as `http.routers.web.rule`. Empty where a whole file is meant.
    pub key: String,
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
}

impl Problem {
    /// An error without place and help.
    pub fn error(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self { severity: Severity::Error, place: None, key: key.into(), message: message.into(), help: None }
    }

    /// A warning without place and help.
    pub fn warning(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(key, message) }
    }

    /// The same problem at a place.
    #[must_use]
    pub fn at(self, place: impl Into<Option<Place>>) -> Self {
        Self { place: place.into(), ..self }
    }

    /// The same problem with what to do about it.
    #[must_use]
    pub fn help(self, help: impl Into<Option<String>>) -> Self {
        Self { help: help.into(), ..self }
    }

    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.severity)?;
        if let Some(place) = &self.place {
            write!(f, "{place}: ")?;
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)?;
        match &self.help {
            Some(help) => write!(f, "\n  help: {help}"),
            None => Ok(()),
        }
    }
}

/// One router, service, middleware, transport, certificate or set of TLS options: its value or why it has none, and
/// where it stands.
#[derive(Debug, Clone)]
pub struct Item<T> {
    pub value: Result<T, Vec<Problem>>,
    /// What could be read in spite of errors, so that a broken router can still refuse what it would have matched.
    partial: Option<T>,
    /// What is doubtful although there may be a value.
    pub warnings: Vec<Problem>,
    key: String,
    source: Option<Source>,
}

#[derive(Debug, Clone)]
struct Source {
    place: Place,
    node: Node,
}

impl<T> Item<T> {
    /// An item that no file defines. `key` is its whole path, such as `http.routers.web`.
    pub fn new(key: impl Into<String>, value: T) -> Self {
        Self { value: Ok(value), partial: None, warnings: Vec::new(), key: key.into(), source: None }
    }

    fn read(key: String, place: Place, node: Node, value: Option<T>, problems: Vec<Problem>) -> Self {
        let (errors, warnings): (Vec<_>, Vec<_>) = problems.into_iter().partition(Problem::is_error);
        let (value, partial) = match value {
            Some(value) if errors.is_empty() => (Ok(value), None),
            partial => (Err(errors), partial),
        };
        Self { value, partial, warnings, key, source: Some(Source { place, node }) }
    }

    /// The item, as far as it could be read: whole, or without what its errors concern.
    pub fn readable(&self) -> Option<&T> {
        self.value.as_ref().ok().or(self.partial.as_ref())
    }

    /// The path of keys, such as `http.routers.web`.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Where a key below the item stands, such as `rule`, `middlewares[1]` or `tls.options`; the nearest parent where
    /// the file does not have it; the item itself for an empty path.
    pub fn place(&self, path: &str) -> Option<Place> {
        let source = self.source.as_ref()?;
        Some(source.node.find(path).unwrap_or_else(|| source.place.clone()))
    }

    /// An error about a key below the item, with its place.
    pub fn problem(&self, path: &str, message: impl Into<String>) -> Problem {
        let key = if path.is_empty() { self.key.clone() } else { format!("{}.{path}", self.key) };
        Problem::error(key, message).at(self.place(path))
    }

    /// Errors, then warnings.
    pub fn problems(&self) -> impl Iterator<Item = &Problem> {
        self.value.as_ref().err().into_iter().flatten().chain(&self.warnings)
    }
}

/// Compares what is said, not where.
impl<T: PartialEq> PartialEq for Item<T> {
    fn eq(&self, other: &Self) -> bool {
        let said = |problem: &Problem| (problem.key.clone(), problem.message.clone());
        match (&self.value, &other.value) {
            (Ok(one), Ok(two)) => one == two,
            (Err(one), Err(two)) => one.iter().map(said).eq(two.iter().map(said)),
            _ => false,
        }
    }
}

/// The known word that `word` was probably meant to be: one with few differences, else one that it begins.
fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_ascii_lowercase();
    let most = (word.chars().count() / 3).clamp(1, 4);
    let rank = |candidate: &'a str| {
        let folded = candidate.to_ascii_lowercase();
        let differences = strsim::damerau_levenshtein(&word, &folded);
        match differences <= most {
            true => Some((differences, candidate)),
            false if word.len() > 2 && folded.starts_with(&word) => Some((usize::MAX, candidate)),
            false => None,
        }
    };
    known.into_iter().filter_map(rank).min_by_key(|(differences, _)| *differences).map(|(_, candidate)| candidate)
}

fn did_you_mean<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    nearest(word, known).map(|near| format!("did you mean `{near}`?"))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::{Path, PathBuf};
    use std::sync::Arc;
    use std::time::Duration;

    use super::routing::{Middleware, Service};
    use super::{Problem, Routing, files, install, nearest};

    fn golden() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/config")
    }

    fn routing(file: &Path) -> Result<(Routing, Vec<Problem>), Vec<Problem>> {
        let bytes = fs::read(file).expect("the golden file is there");
        files::parse(&Arc::from(file), &bytes).map(Option::unwrap_or_default)
    }

    /// All problems of a file as `weir check` prints them.
    fn problems(file: &Path) -> String {
        let name = file.file_name().and_then(|name| name.to_str()).expect("the golden file has a name");
        let mut problems = if name.starts_with("install-") {
            install(file).map_or_else(|errors| errors, |(_, warnings)| warnings)
        } else {
            match routing(file) {
                Ok((routing, problems)) => routing.problems().cloned().chain(problems).collect(),
                Err(problems) => problems,
            }
        };
        problems.sort_by(|one, two| one.place.cmp(&two.place));
        let directory = format!("{}/", golden().display());
        problems.iter().map(|problem| format!("{problem}\n").replace(&directory, "")).collect()
    }

    /// Every message has a file. `UPDATE=1` writes what is said now.
    #[test]
    fn golden_files() {
        let update = std::env::var_os("UPDATE").is_some();
        let mut differing = Vec::new();
        for entry in fs::read_dir(golden()).expect("the golden files are there") {
            let file = entry.expect("the directory can be read").path();
            if file.extension().is_none_or(|extension| extension != "yaml") {
                continue;
            }
            let expected = file.with_extension("txt");
            let said = problems(&file);
            if update {
                fs::write(&expected, said).expect("the golden files can be written");
            } else if fs::read_to_string(&expected).unwrap_or_default() != said {
                differing.push(format!("{}:\n{said}", file.display()));
            }
        }
        assert!(differing.is_empty(), "run with UPDATE=1 and look at the difference:\n{}", differing.join("\n"));
    }

    #[test]
    fn the_article_loads() {
        let (install, _) = install(&golden().join("install-seed.yaml")).expect("the seed loads");
        assert_eq!(install.entry_points["websecure"].address.to_string(), ":443");
        assert_eq!(install.log.file_path.as_deref(), Some(Path::new(r"C:\tool\traefik\log\traefik.log")));
        assert!(install.api.as_ref().is_some_and(|api| api.dashboard && api.debug && !api.insecure));
        let file = install.providers.file.as_ref().expect("the seed has a file provider");
        assert_eq!(file.directory.as_deref(), Some(Path::new(r"C:\tool\traefik\config_dynamic")));
        assert_eq!(install.providers.providers_throttle_duration, Duration::from_secs(2));
        assert!(install.certificates_resolvers["myDnsChallengeResolver"].acme.is_some());
        let place = install.place("entryPoints.web.address").map(|place| (place.line, place.column));
        assert_eq!(place, Some((17, 14)));

        let (routing, problems) = routing(&golden().join("routing-seed-qliksense.yaml")).expect("the seed loads");
        assert_eq!(problems, []);
        let item = &routing.routers["qliksenseProd-https"];
        let router = item.value.as_ref().expect("the router is fine");
        assert_eq!(router.rule, "Host(`qliksense.ptarmiganlabs.net`)");
        assert_eq!(router.entry_points, ["websecure"]);
        assert_eq!(router.middlewares, ["sslHeader"]);
        assert_eq!(router.tls.as_ref().and_then(|tls| tls.cert_resolver.as_deref()), Some("myDnsChallengeResolver"));
        let problem = item.problem("middlewares[0]", "wrong");
        assert!(problem.to_string().ends_with(".yaml:15:11: http.routers.qliksenseProd-https.middlewares[0]: wrong"));
        let Ok(Service::LoadBalancer(service)) = &routing.services["qliksenseProdService"].value else {
            panic!("the service is fine");
        };
        assert_eq!(service.servers[0].url, "http://192.168.100.112:8088");
        assert!(service.pass_host_header);
        let Ok(Middleware::Plugin { name, config }) = &routing.middlewares["sslHeader"].value else {
            panic!("the middleware is fine");
        };
        assert_eq!((name.as_str(), config.key()), ("headers", "http.middlewares.sslHeader.headers"));
    }

    #[test]
    fn values_in_every_form() {
        let (routing, _) = routing(&golden().join("routing-forms.yaml")).expect("the file loads");
        let plain = routing.routers["plain"].value.as_ref().expect("the router is fine");
        for name in ["folded", "merged"] {
            assert_eq!(routing.routers[name].value.as_ref().expect("the router is fine"), plain, "{name}");
        }
        assert_eq!(routing.routers["plain"], routing.routers["folded"]);
        assert_eq!(routing.routers["on"].value.as_ref().map(|router| router.tls.is_some()), Ok(true));
        assert_eq!(routing.routers["off"].value.as_ref().map(|router| router.tls.is_some()), Ok(false));
        let transport = routing.servers_transports["slow"].value.as_ref().expect("the transport is fine");
        let timeouts = &transport.forwarding_timeouts;
        assert_eq!(timeouts.dial_timeout, Duration::from_secs(5));
        assert_eq!(timeouts.response_header_timeout, Duration::from_millis(90_500));
        assert_eq!(timeouts.idle_conn_timeout, Duration::from_secs(90));
        assert!(routing.tls.default_certificate.is_some());
    }

    #[test]
    fn without_entry_points() {
        let (install, warnings) = install(&golden().join("install-empty.yaml")).expect("the file loads");
        assert_eq!(warnings, []);
        assert_eq!(install.entry_points["http"].address.to_string(), ":80");
        assert_eq!(install.entry_points["traefik"].address.to_string(), ":8080");
    }

    #[test]
    fn suggestions() {
        let known = ["certificatesResolvers", "entryPoints", "log", "api"];
        for (word, expected) in [
            ("certificateResolvers", Some("certificatesResolvers")),
            ("ENTRYPOINT", Some("entryPoints")),
            ("apis", Some("api")),
            ("entry", Some("entryPoints")),
            ("nonsense", None),
        ] {
            assert_eq!(nearest(word, known), expected, "{word}");
        }
    }
}
