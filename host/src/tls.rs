//! Certificates and TLS options of the entry points, and TLS towards servers.
//!
//! `Snapshot::build` makes a [`Store`] at each reload; an entry point asks it for the configuration of each
//! ClientHello. It never opens a socket, and never obtains a certificate.

mod certificate;
mod names;
mod options;
mod pem;
mod upstream;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;

pub use self::certificate::{GENERATED_NAME, Summary};
pub use self::options::{cipher_name, version_name};
pub use self::upstream::{Alpn, client_config};

use self::certificate::{Certificate, Certificates, Resolver};
use self::names::Names;
use self::options::{Built, Remark};
use crate::config::routing::{self, Tls, TlsOptions};
use crate::config::{Item, Problem, Severity};

/// The option set of hosts that no router gives another one.
pub const DEFAULT_OPTIONS: &str = "default";

/// Entry point → host, as in rules (`a.example.com`, `*.example.com`) → name of an option set.
pub type HostOptions = BTreeMap<String, BTreeMap<String, String>>;

/// A certificate that a resolver has obtained, as PEM text.
#[derive(Clone, PartialEq, Eq)]
pub struct Obtained {
    pub resolver: Arc<str>,
    pub pair: routing::Certificate,
}

/// The certificates and option sets of one snapshot; never changed.
#[derive(Debug)]
pub struct Store {
    certificates: Vec<Certificate>,
    default: Certificate,
    /// Carried over reloads, so that clients that trusted it once still do.
    generated: Certificate,
    /// By name; those that were never good are missing.
    option_sets: BTreeMap<String, OptionSet>,
    hosts: BTreeMap<String, Names<Arc<str>>>,
}

impl Store {
    /// Reads all files and builds every option set. Certificates of files come before those that were `obtained`.
    ///
    /// What is broken now and was good in `previous` stays as it was; the problems say so. Tickets that clients hold
    /// from `previous` stay valid for option sets that are the same.
    pub fn build(
        tls: &Tls,
        hosts: &HostOptions,
        obtained: &[Obtained],
        previous: Option<&Self>,
    ) -> (Self, Vec<Problem>) {
        let now = Timestamp::now();
        let mut problems = Vec::new();
        let generated = previous.map_or_else(Certificate::generated, |previous| previous.generated.clone());
        let mut certificates = load_certificates(&tls.certificates, previous, now, &mut problems);
        certificates.extend(load_obtained(obtained, previous, &mut problems));
        let default = load_default(tls.default_certificate.as_ref(), previous, now, &mut problems);
        let default = default.or_else(|| obtained_default(tls.default_generated.as_ref(), &certificates));
        let default = default.unwrap_or_else(|| generated.clone());
        let served = Arc::new(Certificates::new(&certificates, &default, now));
        let mut option_sets = build_option_sets(&tls.options, &served, previous, &mut problems);
        keep_option_sets(&mut option_sets, hosts, &served, previous);
        let store = Self { certificates, default, generated, option_sets, hosts: index(hosts) };
        (store, problems)
    }

    /// The configuration for a ClientHello, by the options of its server name.
    ///
    /// # Errors
    ///
    /// [`Refused`] if the options are broken: without them the host would be open to clients that it means to keep out.
    pub fn server_config(&self, entry_point: &str, server_name: Option<&str>) -> Result<Arc<ServerConfig>, Refused> {
        let name = self.option_set_of(entry_point, server_name.unwrap_or_default());
        match self.option_sets.get(name) {
            Some(set) => Ok(Arc::clone(&set.config)),
            None => Err(Refused { option_set: name.to_owned() }),
        }
    }

    /// The name of the option set of a host, in any case, with or without the root's dot.
    ///
    /// A request whose host has another set than the server name of its connection is misdirected (RFC 9110, section
    /// 15.5.20): its client may not have shown the certificate that the host wants.
    pub fn option_set_of(&self, entry_point: &str, host: &str) -> &str {
        let hosts = self.hosts.get(entry_point);
        hosts.and_then(|hosts| hosts.find(host)).map_or(DEFAULT_OPTIONS, |name| name)
    }

    /// Whether the named option set can be served.
    pub fn has_option_set(&self, name: &str) -> bool {
        self.option_sets.contains_key(name)
    }

    /// The certificates in the order of the configuration; the default one last.
    pub fn certificates(&self) -> impl Iterator<Item = &Summary> {
        self.certificates.iter().chain([&self.default]).map(|certificate| &certificate.summary)
    }

    fn loaded(&self, source: &routing::Certificate) -> Option<&Certificate> {
        let mut loaded = self.certificates.iter().chain([&self.default]);
        loaded.find(|certificate| certificate.source.as_ref() == Some(source))
    }
}

/// Why a handshake is refused before it begins.
#[derive(Debug, PartialEq)]
pub struct Refused {
    option_set: String,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the TLS options `{}` are broken", self.option_set)
    }
}

impl StdError for Refused {}

/// One entry of `tls.options`, built.
#[derive(Clone, Debug)]
struct OptionSet {
    config: Arc<ServerConfig>,
    options: TlsOptions,
    authorities: Vec<CertificateDer<'static>>,
}

impl OptionSet {
    fn new(
        options: &TlsOptions,
        served: &Arc<Certificates>,
        previous: Option<&Self>,
    ) -> Result<(Self, Vec<Remark>), Vec<Remark>> {
        let resolver = Resolver { certificates: Arc::clone(served), strict: options.sni_strict };
        let Built { mut config, authorities, warnings } = options::build(options, Arc::new(resolver))?;
        let same = |previous: &&Self| previous.options == *options && previous.authorities == authorities;
        if let Some(previous) = previous.filter(same) {
            // Tickets and sessions of other options must not be resumed: a client could skip its certificate with them.
            config.ticketer = Arc::clone(&previous.config.ticketer);
            config.session_storage = Arc::clone(&previous.config.session_storage);
        }
        Ok((Self { config: Arc::new(config), options: options.clone(), authorities }, warnings))
    }

    /// The same options with the certificates of now.
    fn serving(&self, served: &Arc<Certificates>) -> Self {
        let mut config = (*self.config).clone();
        let resolver = Resolver { certificates: Arc::clone(served), strict: self.options.sni_strict };
        config.cert_resolver = Arc::new(resolver);
        Self { config: Arc::new(config), ..self.clone() }
    }
}

fn load_certificates(
    items: &[Item<routing::Certificate>],
    previous: Option<&Store>,
    now: Timestamp,
    problems: &mut Vec<Problem>,
) -> Vec<Certificate> {
    let mut certificates = Vec::new();
    for item in items {
        if let Some(problem) = unused_stores(item) {
            problems.push(problem);
            continue;
        }
        certificates.extend(load(item, previous, now, problems));
    }
    certificates
}

/// Traefik has named stores in its types, and serves `default` alone.
fn unused_stores(item: &Item<routing::Certificate>) -> Option<Problem> {
    let stores = &item.value.as_ref().ok()?.stores;
    if stores.is_empty() || stores.iter().any(|store| store == "default") {
        return None;
    }
    let message = format!("the certificate is not served: only the store `default` is, not `{}`", stores.join("`, `"));
    Some(warning(item.problem("stores", message)))
}

fn load_default(
    item: Option<&Item<routing::Certificate>>,
    previous: Option<&Store>,
    now: Timestamp,
    problems: &mut Vec<Problem>,
) -> Option<Certificate> {
    let mut certificate = load(item?, previous, now, problems)?;
    certificate.summary.default = true;
    Some(certificate)
}

/// The one that expires last is served first where several have a name.
fn load_obtained(obtained: &[Obtained], previous: Option<&Store>, problems: &mut Vec<Problem>) -> Vec<Certificate> {
    let mut certificates = Vec::new();
    for Obtained { resolver, pair } in obtained {
        match Certificate::load(pair, previous.and_then(|previous| previous.loaded(pair))) {
            Ok(mut certificate) => {
                certificate.summary.resolver = Some(resolver.to_string());
                certificate.summary.default = false;
                certificates.push(certificate);
            }
            Err(reason) => {
                let key = format!("certificatesResolvers.{resolver}.acme.storage");
                problems.push(Problem::error(key, format!("a certificate that was obtained cannot be used: {reason}")));
            }
        }
    }
    certificates.sort_by_key(|certificate| std::cmp::Reverse(certificate.summary.not_after));
    certificates
}

/// `defaultGeneratedCert`, once it has been obtained.
fn obtained_default(
    wanted: Option<&Item<routing::DefaultGenerated>>,
    certificates: &[Certificate],
) -> Option<Certificate> {
    let routing::DefaultGenerated { resolver, domain } = wanted?.readable()?;
    let is_for = |name: &String, certificate: &Certificate| {
        certificate.summary.names.iter().any(|known| known.eq_ignore_ascii_case(name))
    };
    let found = certificates.iter().find(|certificate| {
        certificate.summary.resolver.as_deref() == Some(resolver)
            && [&domain.main].into_iter().chain(&domain.sans).all(|name| is_for(name, certificate))
    });
    let mut default = found?.clone();
    default.summary.default = true;
    Some(default)
}

fn load(
    item: &Item<routing::Certificate>,
    previous: Option<&Store>,
    now: Timestamp,
    problems: &mut Vec<Problem>,
) -> Option<Certificate> {
    problems.extend(item.problems().cloned());
    let source = item.value.as_ref().ok()?;
    let previous = previous.and_then(|previous| previous.loaded(source));
    let mut certificate = match (Certificate::load(source, previous), previous) {
        (Ok(certificate), _) => certificate,
        (Err(reason), Some(previous)) => {
            problems.push(item.problem("", format!("{reason}; the certificate as it was is still served")));
            let mut certificate = previous.clone();
            certificate.summary.stale = true;
            certificate.summary.default = false;
            certificate.summary.place = item.place("");
            return Some(certificate);
        }
        (Err(reason), None) => {
            problems.push(item.problem("", reason));
            return None;
        }
    };
    certificate.summary.stale = false;
    certificate.summary.default = false;
    certificate.summary.place = item.place("");
    if let Some(reason) = certificate.expiry_problem(now) {
        problems.push(warning(item.problem("", reason)));
    }
    Some(certificate)
}

fn build_option_sets(
    items: &BTreeMap<String, Item<TlsOptions>>,
    served: &Arc<Certificates>,
    previous: Option<&Store>,
    problems: &mut Vec<Problem>,
) -> BTreeMap<String, OptionSet> {
    let mut sets = BTreeMap::new();
    for (name, item) in items {
        let previous = previous.and_then(|previous| previous.option_sets.get(name));
        if let Some(set) = build_option_set(item, served, previous, problems) {
            sets.insert(name.clone(), set);
        }
    }
    if !items.contains_key(DEFAULT_OPTIONS) {
        let previous = previous.and_then(|previous| previous.option_sets.get(DEFAULT_OPTIONS));
        let (set, _) = OptionSet::new(&TlsOptions::default(), served, previous)
            .expect("the default options name no file and nothing unknown");
        sets.insert(DEFAULT_OPTIONS.to_owned(), set);
    }
    sets
}

/// Routers that keep their last good version keep its option set with it, although the files have it no more.
fn keep_option_sets(
    sets: &mut BTreeMap<String, OptionSet>,
    hosts: &HostOptions,
    served: &Arc<Certificates>,
    previous: Option<&Store>,
) {
    for name in hosts.values().flat_map(BTreeMap::values) {
        let gone = previous.and_then(|previous| previous.option_sets.get(name));
        if let Some(gone) = gone.filter(|_| !sets.contains_key(name)) {
            sets.insert(name.clone(), gone.serving(served));
        }
    }
}

fn build_option_set(
    item: &Item<TlsOptions>,
    served: &Arc<Certificates>,
    previous: Option<&OptionSet>,
    problems: &mut Vec<Problem>,
) -> Option<OptionSet> {
    problems.extend(item.problems().cloned());
    if let Ok(options) = &item.value {
        match OptionSet::new(options, served, previous) {
            Ok((set, warnings)) => {
                problems.extend(warnings.into_iter().map(|remark| warning(remarked(item, remark))));
                return Some(set);
            }
            Err(remarks) => problems.extend(remarks.into_iter().map(|remark| remarked(item, remark))),
        }
    }
    let outcome = match previous {
        Some(_) => "the options are broken; as they were they are still in force",
        None => "the options are broken: handshakes for their hosts are refused",
    };
    problems.push(item.problem("", outcome));
    previous.map(|previous| previous.serving(served))
}

fn index(hosts: &HostOptions) -> BTreeMap<String, Names<Arc<str>>> {
    let entry_points = hosts.iter().map(|(entry_point, hosts)| {
        let mut names = Names::default();
        for (host, option_set) in hosts {
            names.entry(host).or_insert_with(|| Arc::from(option_set.as_str()));
        }
        (entry_point.clone(), names)
    });
    entry_points.collect()
}

fn remarked(item: &Item<TlsOptions>, remark: Remark) -> Problem {
    item.problem(remark.key, remark.message).help(remark.help)
}

fn warning(problem: Problem) -> Problem {
    Problem { severity: Severity::Warning, ..problem }
}
