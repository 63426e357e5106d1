//! `http.routers` and the proxy's own routers → routes on entry points.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::json;

use super::{Items, Placed, Reference, Sources, Status, did_you_mean, middlewares, services};
use crate::config::install::{EntryPoint, Protocol, RedirectEntryPoint};
use crate::config::routing::{self, RouterTls};
use crate::config::{Install, Item, Problem, Routing, Severity};
use crate::middleware::Chain;
use crate::plugin::{Configured, Step};
use crate::router::{Route, Target};
use crate::rule::{self, Hosts, Rule};
use crate::service::{Internal, Service};
use crate::tls::{self, DEFAULT_OPTIONS, HostOptions};

/// Where the API listens when it is `insecure`, and what routers without entry points leave out.
const ADMIN_ENTRY_POINT: &str = "traefik";
/// Priorities above are the proxy's own.
const PRIORITY_AT_MOST: i64 = i64::MAX - 1000;

/// Builds all routers, and says which hosts have which TLS options.
pub(super) async fn build(sources: &Sources<'_>, items: &mut Items) -> HostOptions {
    let entry_middlewares = entry_point_middlewares(sources, items);
    for (name, item) in &sources.routing.routers {
        let previous = sources.previous.items.routers.get(name);
        let status = match Draft::of(name, item, sources, items, &entry_middlewares) {
            Ok(draft) if draft.problems.iter().any(Problem::is_error) => draft.failed(previous),
            Ok(draft) => draft.finished(),
            Err(problems) => Status::broken(problems, last_good(previous)),
        };
        items.routers.insert(name.clone(), status);
    }
    internal(sources, items).await;
    host_options(items, sources.routing)
}

/// A router whose TLS options never were good must not serve with others.
pub(super) fn disable_without_options(items: &mut Items, routing: &Routing, tls: &tls::Store) {
    for (name, item) in &routing.routers {
        let Some(status) = items.routers.get_mut(name) else { continue };
        let mut broken = BTreeSet::new();
        for placed in status.serves.iter_mut().flatten() {
            let Some(options) = placed.tls.as_ref().map(options_of) else { continue };
            if options == DEFAULT_OPTIONS || tls.has_option_set(options) || placed.is_disabled() {
                continue;
            }
            broken.insert(options.to_owned());
            placed.route = disabled(&placed.route);
        }
        let broken = broken.iter().map(|options| format!("the TLS options `{options}` are broken"));
        status.problems.extend(broken.map(|message| item.problem("tls.options", message)));
    }
}

fn disabled(route: &Route) -> Arc<Route> {
    Arc::new(Route {
        name: Arc::clone(&route.name),
        rule: route.rule.clone(),
        priority: route.priority,
        service: Arc::clone(&route.service),
        access_log: route.access_log,
        metrics: route.metrics,
        target: Target::Disabled,
    })
}

/// The middlewares that an entry point puts before those of each router, or why they cannot be had.
type EntryMiddlewares = BTreeMap<String, Result<Vec<Arc<Configured>>, Problem>>;

fn entry_point_middlewares(sources: &Sources<'_>, items: &mut Items) -> EntryMiddlewares {
    let mut of_entry_points = BTreeMap::new();
    for (name, entry_point) in &sources.install.entry_points {
        let item = Item::new(format!("entryPoints.{name}"), ());
        let references = entry_point.http.middlewares.iter().enumerate();
        let resolved: Result<Vec<_>, Problem> = references
            .map(|(position, reference)| {
                middlewares::resolve(items, &item, &format!("http.middlewares[{position}]"), reference)
            })
            .collect();
        // Each router of the entry point has the same problem at the same place, which is shown once.
        let resolved = resolved.map_err(|problem| {
            let place = sources.install.place(&problem.key);
            problem.at(place)
        });
        items.problems.extend(resolved.as_ref().err().cloned());
        of_entry_points.insert(name.clone(), resolved.map(|plugins| plugins.into_iter().flatten().collect()));
    }
    of_entry_points
}

type RouterStatus = Status<routing::Router, Vec<Placed>>;

/// A router on its way: what can be known of it although something is wrong.
struct Draft<'a> {
    name: Arc<str>,
    config: &'a routing::Router,
    rule: Rule,
    priority: i64,
    placements: Vec<Placement>,
    problems: Vec<Problem>,
}

struct Placement {
    entry_point: Arc<str>,
    metrics: bool,
    tls: Option<RouterTls>,
    chain: Option<Chain>,
}

impl<'a> Draft<'a> {
    /// Fails if it cannot be told what the router would match.
    fn of(
        name: &str,
        item: &'a Item<routing::Router>,
        sources: &Sources<'_>,
        items: &Items,
        entry_middlewares: &EntryMiddlewares,
    ) -> Result<Self, Vec<Problem>> {
        let Sources { install, routing, .. } = sources;
        let mut problems: Vec<Problem> = item.problems().cloned().collect();
        let Some(config) = item.readable() else {
            return Err(problems);
        };
        let rule = Rule::parse(&config.rule).map_err(|error| {
            problems.push(rule_problem(item, &config.rule, &error));
            problems.clone()
        })?;
        if config.priority > PRIORITY_AT_MOST {
            let message = format!("{} is more than the highest priority, {PRIORITY_AT_MOST}", config.priority);
            problems.push(item.problem("priority", message));
        }
        let service = kept(services::resolve(items, item, install, &config.service), &mut problems);
        let mut plugins = Vec::new();
        for (position, reference) in config.middlewares.iter().enumerate() {
            let resolved = middlewares::resolve(items, item, &format!("middlewares[{position}]"), reference);
            plugins.extend(kept(resolved, &mut problems).unwrap_or_default());
        }
        problems.extend(missing_resolver(item, config, install));
        let entry_points = entry_points(item, config, install, &mut problems);
        let router = format!("{name}@file").into();
        let mut placements = Vec::new();
        for (entry_point, settings) in entry_points {
            let tls = config.tls.clone().or_else(|| settings.http.tls.clone());
            if let Some(Err(problem)) = tls.as_ref().map(|tls| check_options(item, tls, &rule, routing)) {
                note(problem, &mut problems);
            }
            let before = entry_middlewares.get(entry_point).cloned().unwrap_or(Ok(Vec::new()));
            let before = kept(before, &mut problems).unwrap_or_default();
            let all = before.iter().chain(&plugins);
            let chain = service.clone().map(|service| Chain::new(steps(all, &router), service));
            let metrics = config.observability.metrics.or(settings.observability.metrics).unwrap_or(true)
                && (counts_internals(install) || !config.service.ends_with("@internal"));
            placements.push(Placement { entry_point: entry_point.as_str().into(), metrics, tls, chain });
        }
        let priority = if config.priority == 0 { rule.priority() } else { config.priority };
        Ok(Self { name: router, config, rule, priority, placements, problems })
    }

    fn finished(self) -> RouterStatus {
        let Self { name, config, rule, priority, placements, problems } = self;
        let placed = placements.into_iter().map(|Placement { entry_point, metrics, tls, chain }| {
            let target = chain.map_or(Target::Disabled, Target::Serve);
            let service = with_provider(&config.service).into();
            let access_log = config.observability.access_logs.unwrap_or(true);
            let (name, rule) = (Arc::clone(&name), rule.clone());
            let route = Route { name, rule, priority, service, access_log, metrics, target };
            Placed { entry_point, tls, route: Arc::new(route) }
        });
        Status::good(config.clone(), placed.collect(), problems)
    }

    /// The last good version serves on; without one the router refuses what its rule matches.
    fn failed(mut self, previous: Option<&RouterStatus>) -> RouterStatus {
        let good = last_good(previous);
        if good.is_some() {
            return Status::broken(self.problems, good);
        }
        self.placements.iter_mut().for_each(|placement| placement.chain = None);
        self.finished()
    }
}

/// Whether requests to internal services are counted.
fn counts_internals(install: &Install) -> bool {
    install.metrics.as_ref().is_some_and(|metrics| metrics.add_internals)
}

/// A disabled router is no version to fall back to.
fn last_good(previous: Option<&RouterStatus>) -> Option<&RouterStatus> {
    previous.filter(|previous| previous.serves_requests())
}

fn steps<'a>(plugins: impl IntoIterator<Item = &'a Arc<Configured>>, router: &Arc<str>) -> Vec<Step> {
    plugins.into_iter().map(|plugin| plugin.on_router(router)).collect()
}

/// A reference as the API and the logs show it.
fn with_provider(reference: &str) -> String {
    if reference.contains('@') { reference.to_owned() } else { format!("{reference}@file") }
}

fn kept<T>(result: Result<T, Problem>, problems: &mut Vec<Problem>) -> Option<T> {
    result.map_err(|problem| note(problem, problems)).ok()
}

/// What is wrong on several entry points is wrong once.
fn note(problem: Problem, problems: &mut Vec<Problem>) {
    if !problems.contains(&problem) {
        problems.push(problem);
    }
}

fn rule_problem(item: &Item<routing::Router>, text: &str, error: &rule::Error) -> Problem {
    let message = if text.trim().is_empty() { error.to_string() } else { format!("{error}\n{}", error.render(text)) };
    item.problem("rule", message).help(error.help.clone())
}

/// The entry points of a router: those it names, else the default ones.
fn entry_points<'a>(
    item: &Item<routing::Router>,
    config: &routing::Router,
    install: &'a Install,
    problems: &mut Vec<Problem>,
) -> Vec<(&'a String, &'a EntryPoint)> {
    let http = || install.entry_points.iter().filter(|(_, settings)| settings.address.protocol == Protocol::Tcp);
    let mut found = Vec::new();
    let mut missing = Vec::new();
    for (position, name) in config.entry_points.iter().enumerate() {
        match http().find(|(candidate, _)| *candidate == name) {
            Some(entry_point) => found.push(entry_point),
            None => missing.push(
                item.problem(&format!("entryPoints[{position}]"), format!("entry point `{name}` does not exist"))
                    .help(did_you_mean(name, install.entry_points.keys())),
            ),
        }
    }
    // Those that exist serve, as in Traefik. Without any the router is broken, and refuses wherever it might have been.
    let severity = if found.is_empty() { Severity::Error } else { Severity::Warning };
    problems.extend(missing.into_iter().map(|problem| Problem { severity, ..problem }));
    if !found.is_empty() {
        return found;
    }
    let chosen: Vec<_> = http().filter(|(_, settings)| settings.as_default).collect();
    if !chosen.is_empty() {
        return chosen;
    }
    http().filter(|(name, _)| *name != ADMIN_ENTRY_POINT).collect()
}

/// The default certificate is served in place of that of a resolver.
fn missing_resolver(item: &Item<routing::Router>, config: &routing::Router, install: &Install) -> Option<Problem> {
    let resolver = config.tls.as_ref()?.cert_resolver.as_ref()?;
    if install.certificates_resolvers.contains_key(resolver) {
        return None;
    }
    let message = format!("certificates resolver `{resolver}` does not exist; the default certificate is served");
    let help = did_you_mean(resolver, install.certificates_resolvers.keys());
    let problem = item.problem("tls.certResolver", message).help(help);
    Some(Problem { severity: Severity::Warning, ..problem })
}

/// Whether the TLS options exist and can apply.
fn check_options(item: &Item<routing::Router>, tls: &RouterTls, rule: &Rule, routing: &Routing) -> Result<(), Problem> {
    const KEY: &str = "tls.options";

    let options = options_of(tls);
    if options == DEFAULT_OPTIONS {
        return Ok(());
    }
    if hosts_of(rule).is_empty() {
        let message = "TLS options are chosen by host, and the rule names none, so that they would never apply";
        let help = "add `Host(…)` to the rule, or remove `tls.options`";
        return Err(item.problem(KEY, message).help(help.to_owned()));
    }
    if !routing.tls.options.contains_key(options) {
        let message = format!("the TLS options `{options}` do not exist");
        return Err(item.problem(KEY, message).help(did_you_mean(options, routing.tls.options.keys())));
    }
    Ok(())
}

fn options_of(tls: &RouterTls) -> &str {
    let name = tls.options.as_deref().unwrap_or(DEFAULT_OPTIONS);
    match Reference::parse(name) {
        Reference::File(name) => name,
        Reference::Internal(_) | Reference::Elsewhere(_) => name,
    }
}

fn hosts_of(rule: &Rule) -> Vec<String> {
    match rule.hosts() {
        Hosts::Exact(hosts) => hosts,
        Hosts::Any => rule.certificate_names(),
    }
}

/// Which option set each host has. Two for one host is a contradiction, which Traefik settles with the default.
fn host_options(items: &mut Items, routing: &Routing) -> HostOptions {
    let mut hosts = HostOptions::new();
    let mut chosen: BTreeMap<(&str, String), (&str, &str)> = BTreeMap::new();
    let mut contradictions = Vec::new();
    for (name, placed) in placed(items) {
        let Some(tls) = &placed.tls else { continue };
        let options = options_of(tls);
        let of_entry_point = hosts.entry(placed.entry_point.to_string()).or_default();
        for host in hosts_of(&placed.route.rule) {
            let (first, known) = *chosen.entry((&placed.entry_point, host.clone())).or_insert((name, options));
            if known == options {
                of_entry_point.entry(host).or_insert_with(|| options.to_owned());
                continue;
            }
            let message = format!(
                "`{host}` has the TLS options `{options}` here and `{known}` by the router `{first}`: it gets the default"
            );
            let problem = routing.routers.get(name).map(|item| item.problem("tls.options", message));
            problem.into_iter().for_each(|problem| note(problem, &mut contradictions));
            of_entry_point.insert(host, DEFAULT_OPTIONS.to_owned());
        }
    }
    items.problems.extend(contradictions);
    hosts
}

/// What each router serves, by its name.
fn placed(items: &Items) -> impl Iterator<Item = (&str, &Placed)> {
    let serving = items.routers.iter().filter_map(|(name, status)| Some((name.as_str(), status.serves.as_ref()?)));
    serving.flat_map(|(name, placed)| placed.iter().map(move |placed| (name, placed)))
}

/// The proxy's own routers: redirections of entry points, the insecure API, ping, metrics.
async fn internal(sources: &Sources<'_>, items: &mut Items) {
    let install = sources.install;
    for (name, entry_point) in &install.entry_points {
        if let Some(redirection) = &entry_point.http.redirections.entry_point {
            redirect(sources, items, name, redirection).await;
        }
    }
    if let Some(api) = install.api.as_ref().filter(|api| api.insecure) {
        let base = api.base_path.trim_end_matches('/');
        add(items, "api", ADMIN_ENTRY_POINT, &format!("PathPrefix(`{base}/api`)"), i64::MAX - 1, Internal::Api);
        if api.dashboard {
            add(items, "dashboard", ADMIN_ENTRY_POINT, "PathPrefix(`/`)", i64::MAX - 2, Internal::Dashboard);
        }
    }
    if let Some(ping) = install.ping.as_ref().filter(|ping| !ping.manual_routing) {
        add(items, "ping", &ping.entry_point, "PathPrefix(`/ping`)", i64::MAX, Internal::Ping);
    }
    if let Some(prometheus) = install.prometheus().filter(|prometheus| !prometheus.manual_routing) {
        let (entry_point, rule) = (&prometheus.entry_point, "PathPrefix(`/metrics`)");
        add(items, "prometheus", entry_point, rule, i64::MAX, Internal::Prometheus);
    }
    challenges(install, items);
}

/// CAs look on port 80, where most entry points redirect: the challenge comes first, if the entry point lets it.
fn challenges(install: &Install, items: &mut Items) {
    let resolvers = install.certificates_resolvers.values().filter_map(|resolver| resolver.acme.as_ref());
    let entry_points = resolvers.filter_map(|acme| Some(acme.http_challenge.as_ref()?.entry_point.as_str()));
    for name in entry_points.collect::<BTreeSet<_>>() {
        let Some(entry_point) = install.entry_points.get(name) else { continue };
        let rule = "PathPrefix(`/.well-known/acme-challenge/`)";
        let priority = if entry_point.allow_acme_by_pass { rule.len() as i64 } else { i64::MAX };
        add(items, &format!("acme-http-{name}"), name, rule, priority, Internal::Acme);
    }
}

fn add(items: &mut Items, name: &str, entry_point: &str, rule: &str, priority: i64, service: Internal) {
    let chain = Chain::new(Vec::new(), Arc::new(Service::Internal(service)));
    place(items, name, entry_point, rule, priority, service.name(), Target::Serve(chain));
}

fn place(items: &mut Items, name: &str, entry_point: &str, rule: &str, priority: i64, service: &str, target: Target) {
    let config = routing::Router {
        rule: rule.to_owned(),
        priority,
        entry_points: vec![entry_point.to_owned()],
        service: service.to_owned(),
        ..routing::Router::default()
    };
    let name = format!("{name}@internal");
    let rule = Rule::parse(rule).expect("the proxy's own rules are good");
    let (route_name, service) = (name.as_str().into(), service.into());
    let route =
        Arc::new(Route { name: route_name, rule, priority, service, access_log: false, metrics: false, target });
    let placed = Placed { entry_point: entry_point.into(), tls: None, route };
    items.routers.insert(name, Status::good(config, vec![placed], Vec::new()));
}

/// Everything on an entry point is sent to another one, by the same plugin that routers would use.
async fn redirect(sources: &Sources<'_>, items: &mut Items, from: &str, redirection: &RedirectEntryPoint) {
    let key = format!("entryPoints.{from}.http.redirections.entryPoint");
    let port = match redirection_port(sources.install, &redirection.to) {
        Ok(port) => port,
        Err(message) => {
            let help = did_you_mean(&redirection.to, sources.install.entry_points.keys());
            return items.problems.push(sources.install.problem(&format!("{key}.to"), message).help(help));
        }
    };
    let config = json!({ "scheme": redirection.scheme, "port": port.to_string(), "permanent": redirection.permanent });
    let name = format!("redirect-{from}-to-{}", redirection.to.trim_start_matches(':'));
    let middleware = format!("{name}@internal");
    let target = match middlewares::internal(sources, &middleware, middlewares::REDIRECTION, &config).await {
        Ok(configured) => {
            let steps = steps(configured.plugins(), &middleware.as_str().into());
            items.middlewares.insert(
                middleware,
                Status { config: None, serves: Some(configured), stale: false, problems: Vec::new() },
            );
            Target::Serve(Chain::new(steps, Arc::new(Service::Internal(Internal::Noop))))
        }
        Err(problem) => {
            items.problems.push(Problem { key: key.clone(), ..problem }.at(sources.install.place(&key)));
            Target::Disabled
        }
    };
    place(items, &name, from, "PathPrefix(`/`)", redirection.priority, Internal::Noop.name(), target);
}

/// The port that clients are sent to: that of an entry point, or the one that is written.
fn redirection_port(install: &Install, to: &str) -> Result<u16, String> {
    if to.is_empty() {
        return Err("`to` is missing: nothing is redirected".to_owned());
    }
    if let Some(port) = to.strip_prefix(':') {
        return port.parse().map_err(|_| format!("`{to}` is no port: nothing is redirected"));
    }
    match install.entry_points.get(to) {
        Some(target) => Ok(target.address.port),
        None => Err(format!("there is no entry point `{to}`: nothing is redirected")),
    }
}
