//! What serves: routing files, plugins and the previous snapshot become one immutable [`Snapshot`].
//!
//! `server` builds one at each reload, workers read it, `admin` shows it. Building cannot fail: what is broken keeps its
//! last good version, or is disabled, and says why. It opens no socket.

mod certificates;
mod middlewares;
mod plugins;
mod providers;
mod routers;
mod services;
mod versions;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use self::certificates::WantedByResolver;
pub use self::middlewares::plugin_options;
use crate::acme::Acme;
use crate::config::{Install, Problem, Routing, routing};
use crate::forward::Transport;
use crate::middleware::Chain;
use crate::plugin::{Configured, Host, Plugins};
use crate::router::{Route, Router, Target};
use crate::service::Service;
use crate::tls;

/// The proxy's state between two reloads: everything a request needs, and everything an administrator may ask.
pub struct Snapshot {
    pub items: Items,
    pub tls: tls::Store,
    /// What certificates resolvers should have.
    pub wanted: WantedByResolver,
    pub plugins: Plugins,
    entry_points: HashMap<Arc<str>, Routes>,
    /// Nothing has been built yet: there is no last good version of anything.
    is_empty: bool,
}

/// Every item of the configuration by name, with what became of it.
#[derive(Default)]
pub struct Items {
    pub routers: BTreeMap<String, Status<routing::Router, Vec<Placed>>>,
    pub services: BTreeMap<String, Status<routing::Service, Arc<Service>>>,
    pub middlewares: BTreeMap<String, Status<routing::Middleware, Middleware>>,
    pub transports: BTreeMap<String, Status<services::TransportSource, Arc<Transport>>>,
    /// What no single item is to blame for: files, certificates, plugins.
    pub problems: Vec<Problem>,
    /// Files that configurations refer to, whose change asks for a reload.
    pub files: BTreeSet<PathBuf>,
}

#[derive(Default)]
struct Routes {
    plain: Router,
    tls: Router,
}

/// One item of the configuration and what became of it.
#[derive(Clone)]
pub struct Status<C, T> {
    /// As configured, or as last configured well; `None` if it never was.
    pub config: Option<C>,
    /// What serves; `None` if the item is disabled.
    pub serves: Option<T>,
    /// It is broken now, and its last good version serves.
    pub stale: bool,
    pub problems: Vec<Problem>,
}

/// A route on one entry point, for connections with TLS or without.
#[derive(Clone)]
pub struct Placed {
    pub entry_point: Arc<str>,
    pub tls: Option<routing::RouterTls>,
    pub route: Arc<Route>,
}

/// A middleware of the routing files.
#[derive(Clone)]
pub enum Middleware {
    Plugin(Arc<Configured>),
    /// Others, in order.
    Chain(Vec<Arc<Configured>>),
}

/// What a snapshot is made of.
pub struct Sources<'a> {
    pub install: &'a Install,
    pub routing: &'a Routing,
    pub plugins: Plugins,
    /// Where plugins are dropped in, for messages.
    pub plugin_directory: &'a Path,
    pub host: &'a Host,
    /// Certificates resolvers, and what they have to be served.
    pub acme: &'a Acme,
    pub previous: &'a Snapshot,
}

impl Snapshot {
    /// What there is before the first build: nothing is served.
    pub fn empty() -> Self {
        let (tls, _) = tls::Store::build(&routing::Tls::default(), &tls::HostOptions::new(), &[], None);
        Self {
            items: Items::default(),
            tls,
            wanted: WantedByResolver::new(),
            plugins: Plugins::default(),
            entry_points: HashMap::new(),
            is_empty: true,
        }
    }

    /// The names, in lower case, of the plugins that a configuration uses.
    pub fn used_plugins(install: &Install, routing: &Routing) -> BTreeSet<String> {
        middlewares::used_plugins(install, routing)
    }

    pub async fn build(mut sources: Sources<'_>, file_problems: Vec<Problem>) -> Self {
        let mut items = Items { problems: file_problems, ..Items::default() };
        versions::settle(&mut sources, &mut items.files).await;
        let Sources { install, routing, plugins, acme, previous, .. } = &sources;
        items.problems.extend(plugins::problems(install, plugins, sources.plugin_directory));
        items.problems.extend(providers::problems(&sources).await);
        middlewares::build(&sources, &mut items).await;
        services::build(install, routing, &previous.items, &mut items);
        let hosts = routers::build(&sources, &mut items).await;
        items.files.extend(certificate_files(install, routing));
        let (tls, problems) =
            tls::Store::build(&routing.tls, &hosts, &acme.obtained(), (!previous.is_empty).then_some(&previous.tls));
        items.problems.extend(problems);
        routers::disable_without_options(&mut items, routing, &tls);
        items.problems.extend(sources.acme.problems());
        let wanted = certificates::wanted(&sources, &mut items, &tls);
        let entry_points = index(&items);
        Self { items, tls, wanted, plugins: sources.plugins, entry_points, is_empty: false }
    }

    /// The names of all routers that may have requests, each with that of its service.
    pub fn routers_and_services(&self) -> BTreeSet<(Arc<str>, Arc<str>)> {
        let placed = self.items.routers.values().filter_map(|status| status.serves.as_ref()).flatten();
        placed.map(|placed| (Arc::clone(&placed.route.name), Arc::clone(&placed.route.service))).collect()
    }

    /// The routes of an entry point for connections with TLS, or for those without.
    pub fn routes(&self, entry_point: &str, tls: bool) -> Option<&Router> {
        let routes = self.entry_points.get(entry_point)?;
        Some(if tls { &routes.tls } else { &routes.plain })
    }
}

impl Items {
    /// Everything that is wrong, each once: first what concerns whole files, then item by item.
    pub fn all_problems(&self) -> impl Iterator<Item = &Problem> {
        let of_routers = self.routers.values().flat_map(|status| &status.problems);
        let of_services = self.services.values().flat_map(|status| &status.problems);
        let of_middlewares = self.middlewares.values().flat_map(|status| &status.problems);
        let of_transports = self.transports.values().flat_map(|status| &status.problems);
        let all = self.problems.iter().chain(of_routers).chain(of_middlewares).chain(of_services).chain(of_transports);
        let mut seen = HashSet::new();
        all.filter(move |problem| seen.insert(*problem))
    }

    /// What is broken now and serves on as it was, in words: ``router `a@file` ``.
    pub fn stale(&self) -> Vec<String> {
        fn of<C, T>(kind: &str, items: &BTreeMap<String, Status<C, T>>) -> Vec<String> {
            let stale = items.iter().filter(|(_, status)| status.stale);
            stale.map(|(name, _)| format!("{kind} `{name}`")).collect()
        }
        let transports = of("transport", &self.transports);
        let of_requests =
            [of("router", &self.routers), of("middleware", &self.middlewares), of("service", &self.services)];
        of_requests.into_iter().flatten().chain(transports).collect()
    }
}

/// The files that TLS is made of, towards clients and servers; PEM text in their place is none.
fn certificate_files<'a>(install: &'a Install, routing: &'a Routing) -> impl Iterator<Item = PathBuf> {
    let tls = &routing.tls;
    let options = tls.options.values().filter_map(|item| item.readable());
    let transports = routing.servers_transports.values().filter_map(|item| item.readable());
    let transports = || transports.clone().chain([&install.servers_transport]);
    let authorities = options.flat_map(|options| &options.client_auth.ca_files);
    let authorities = authorities.chain(transports().flat_map(|transport| &transport.root_cas));
    let certificates = tls.certificates.iter().chain(&tls.default_certificate).filter_map(|item| item.readable());
    let certificates = certificates.chain(transports().flat_map(|transport| &transport.certificates));
    let files = certificates.flat_map(|pair| [&pair.cert_file, &pair.key_file]).chain(authorities);
    files.filter(|file| !file.is_empty() && !file.contains("-----BEGIN")).map(PathBuf::from)
}

fn index(items: &Items) -> HashMap<Arc<str>, Routes> {
    let mut by_entry_point: HashMap<Arc<str>, Vec<&Placed>> = HashMap::new();
    for placed in items.routers.values().filter_map(|status| status.serves.as_ref()).flatten() {
        by_entry_point.entry(Arc::clone(&placed.entry_point)).or_default().push(placed);
    }
    let router = |placed: &[&Placed], tls: bool| {
        let routes = placed.iter().filter(|placed| placed.tls.is_some() == tls);
        Router::new(routes.map(|placed| Arc::clone(&placed.route)).collect())
    };
    let routes = by_entry_point.into_iter().map(|(entry_point, placed)| {
        (entry_point, Routes { plain: router(&placed, false), tls: router(&placed, true) })
    });
    routes.collect()
}

impl<C, T> Status<C, T> {
    pub const fn good(config: C, serves: T, warnings: Vec<Problem>) -> Self {
        Self { config: Some(config), serves: Some(serves), stale: false, problems: warnings }
    }

    /// Broken: the last good version serves on if there is one.
    pub fn broken(problems: Vec<Problem>, previous: Option<&Self>) -> Self
    where
        C: Clone,
        T: Clone,
    {
        let previous = previous.filter(|previous| previous.serves.is_some());
        Self {
            config: previous.and_then(|previous| previous.config.clone()),
            serves: previous.and_then(|previous| previous.serves.clone()),
            stale: previous.is_some(),
            problems,
        }
    }

    pub fn has_errors(&self) -> bool {
        self.problems.iter().any(Problem::is_error)
    }
}

impl Status<routing::Router, Vec<Placed>> {
    /// Whether the router leads to its service, with its newest configuration or its last good one.
    pub fn serves_requests(&self) -> bool {
        self.serves.as_ref().is_some_and(|placed| !placed.is_empty() && !placed.iter().any(Placed::is_disabled))
    }
}

impl Middleware {
    /// The plugins it comes down to, in order.
    pub fn plugins(&self) -> &[Arc<Configured>] {
        match self {
            Self::Plugin(plugin) => std::slice::from_ref(plugin),
            Self::Chain(plugins) => plugins,
        }
    }
}

impl Placed {
    pub fn is_disabled(&self) -> bool {
        matches!(self.route.target, Target::Disabled)
    }

    pub fn chain(&self) -> Option<&Chain> {
        match &self.route.target {
            Target::Serve(chain) => Some(chain),
            Target::Disabled => None,
        }
    }
}

/// What a reference names: `auth` and `auth@file` are the files' own, `api@internal` is the proxy's.
enum Reference<'a> {
    File(&'a str),
    Internal(&'a str),
    Elsewhere(&'a str),
}

impl<'a> Reference<'a> {
    fn parse(text: &'a str) -> Self {
        match text.rsplit_once('@') {
            None => Self::File(text),
            Some((name, "file")) => Self::File(name),
            Some((name, "internal")) => Self::Internal(name),
            Some((_, provider)) => Self::Elsewhere(provider),
        }
    }
}

/// The closest of the names there are, for a reference that leads nowhere.
fn did_you_mean<'a>(name: &str, names: impl Iterator<Item = &'a String>) -> Option<String> {
    let close = names.map(|candidate| (strsim::damerau_levenshtein(name, candidate), candidate));
    let (distance, nearest) = close.min()?;
    (distance <= name.len().div_ceil(3)).then(|| format!("did you mean `{nearest}`?"))
}
