//! An install file's tree as an [`Install`]: what Weir leaves out, what it only warns about, what must fit together.

mod plugins;
mod resolvers;

use super::{EntryPoint, Install, Protocol};
use crate::config::de::{self, Rest, Treat};
use crate::config::tree::{Entry, Kind};
use crate::config::{Node, Problem, did_you_mean, nearest};

/// Reads the tree of an install file; `None` is an empty one.
///
/// # Errors
///
/// All problems, warnings too, when one of them is an error.
pub(in crate::config) fn read(root: Option<Node>) -> Result<(Install, Vec<Problem>), Vec<Problem>> {
    let Some(root) = root else {
        let mut install = Install::default();
        complete(&mut install);
        return Ok((install, Vec::new()));
    };
    let mut problems = Vec::new();
    let mut skip = top_level(&root, &mut problems);
    skip.extend(log_level(&root, &mut problems));
    skip.extend(resolvers::unknown_key_types(&root, &mut problems));
    let (install, wrong) = de::read::<Install>("", root.place(), &root, REST, &skip);
    problems.extend(wrong);
    let Some(mut install) = install else {
        return Err(problems);
    };

    install.source = Some(root);
    problems.extend(entry_points(&install));
    short_forms(&install, &mut problems);
    problems.extend(resolvers::check(&mut install));
    problems.extend(plugins::check(&install));
    problems.extend(without_effect(&install));
    complete(&mut install);

    problems.sort_by(|one, two| one.place.cmp(&two.place));
    if problems.iter().any(Problem::is_error) { Err(problems) } else { Ok((install, problems)) }
}

/// Traefik's own entry points: `http` where there is none, `traefik` where API, ping or metrics ask for it.
fn complete(install: &mut Install) {
    let at =
        |port| EntryPoint { address: super::Address { port, ..super::Address::default() }, ..EntryPoint::default() };
    if install.entry_points.is_empty() {
        install.entry_points.insert("http".to_owned(), at(80));
    }
    let api = install.api.as_ref().is_some_and(|api| api.insecure);
    let ping = install.ping.as_ref().is_some_and(|ping| !ping.manual_routing && ping.entry_point == "traefik");
    let metrics = install.prometheus();
    let metrics = metrics.is_some_and(|metrics| !metrics.manual_routing && metrics.entry_point == "traefik");
    if api || ping || metrics {
        install.entry_points.entry("traefik".to_owned()).or_insert_with(|| at(8080));
    }
}

/// Names the keys of the first level that are not read, with a warning for each: Traefik takes no notice of them, so a
/// file that has them must start.
fn top_level(root: &Node, problems: &mut Vec<Problem>) -> Vec<String> {
    let mut skip = Vec::new();
    for Entry { key, key_place, value, .. } in root.entries() {
        let is = |names: &[&str]| names.iter().any(|name| name.eq_ignore_ascii_case(key));
        if is(SECTIONS) || is(LATER) {
            continue;
        }
        skip.push(key.clone());
        if key.starts_with("x-") || *value.kind() == Kind::Null {
            continue;
        }
        let problem = if is(&["http", "tcp", "udp", "tls"]) {
            Problem::warning(key, format!("`{key}` has no effect here: it belongs in a routing file"))
                .help("move it to a file that `providers.file` names".to_owned())
        } else {
            Problem::warning(key, format!("`{key}` is not a known key and has no effect"))
                .help(did_you_mean(key, SECTIONS.iter().copied()))
        };
        problems.push(problem.at(key_place.clone()));
    }
    skip
}

/// Traefik starts with its default when it does not know the level.
fn log_level(root: &Node, problems: &mut Vec<Problem>) -> Option<String> {
    const LEVELS: &[&str] = &["TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL", "PANIC"];
    let entry = root.entry("log.level")?;
    let text = entry.value.text()?;
    if LEVELS.iter().any(|level| level.eq_ignore_ascii_case(text)) {
        return None;
    }
    let message = format!("`{text}` is not a level: the default is used");
    let help = nearest(text, LEVELS.iter().copied())
        .map_or_else(|| format!("use one of {}", LEVELS.join(", ")), |near| format!("did you mean `{near}`?"));
    problems.push(Problem::warning("log.level", message).at(entry.place().clone()).help(help));
    Some("log.level".to_owned())
}

fn entry_points(install: &Install) -> Vec<Problem> {
    let mut problems = Vec::new();
    let source = install.source.as_ref().and_then(|root| root.entry("entryPoints"));
    for Entry { key: name, key_place, value, .. } in source.map(|entry| entry.value.entries()).unwrap_or_default() {
        let key = format!("entryPoints.{name}");
        match value.kind() {
            Kind::Section(_) if value.entry("address").is_some_and(|entry| *entry.value.kind() != Kind::Null) => {}
            Kind::Section(_) | Kind::Null => {
                let problem = Problem::error(key, "an entry point needs an address").at(key_place.clone());
                problems.push(problem.help("write `address: \":80\"`".to_owned()));
            }
            Kind::Scalar { .. } | Kind::List(_) => {}
        }
    }
    for (name, entry_point) in &install.entry_points {
        if entry_point.address.protocol == Protocol::Udp {
            let key = format!("entryPoints.{name}.address");
            let message = "this entry point is not opened: UDP is not supported yet";
            problems.push(Problem::warning(key.as_str(), message).at(install.place(&key)));
        }
        problems.extend(missing_resolver(install, name, entry_point));
    }
    let ping = install.ping.as_ref().filter(|ping| !ping.manual_routing);
    let ping = ping.map(|ping| ("ping.entryPoint", &ping.entry_point));
    let prometheus = install.prometheus().filter(|prometheus| !prometheus.manual_routing);
    let prometheus = prometheus.map(|prometheus| ("metrics.prometheus.entryPoint", &prometheus.entry_point));
    for (key, name) in [ping, prometheus].into_iter().flatten() {
        let known = || install.entry_points.keys().map(String::as_str).chain(["traefik"]);
        if !known().any(|known| known == name) {
            let problem = Problem::warning(key, format!("there is no entry point `{name}`")).at(install.place(key));
            problems.push(problem.help(did_you_mean(name, known())));
        }
    }
    problems
}

/// `web: ":80"` is easily written; Traefik then listens on a random port.
fn short_forms(install: &Install, problems: &mut [Problem]) {
    let source = install.source.as_ref().and_then(|root| root.entry("entryPoints"));
    for entry in source.map(|entry| entry.value.entries()).unwrap_or_default() {
        let Some(text) = entry.value.text() else { continue };
        let key = format!("entryPoints.{}", entry.key);
        for problem in problems.iter_mut().filter(|problem| problem.key == key) {
            problem.help = Some(format!("write `address: \"{text}\"` below it"));
        }
    }
}

/// The default certificate is served in place of that of a resolver.
fn missing_resolver(install: &Install, name: &str, entry_point: &EntryPoint) -> Option<Problem> {
    let resolver = entry_point.http.tls.as_ref()?.cert_resolver.as_ref()?;
    if install.certificates_resolvers.contains_key(resolver) {
        return None;
    }
    let key = format!("entryPoints.{name}.http.tls.certResolver");
    let message = format!("certificates resolver `{resolver}` does not exist; the default certificate is served");
    let problem = Problem::warning(key.as_str(), message).at(install.place(&key));
    Some(problem.help(did_you_mean(resolver, install.certificates_resolvers.keys().map(String::as_str))))
}

/// Options that ask for something that is not there yet.
fn without_effect(install: &Install) -> Vec<Problem> {
    let mut keys = Vec::new();
    if let Some(api) = &install.api {
        keys.extend(api.debug.then(|| "api.debug".to_owned()));
        keys.extend((!api.dashboard_name.is_empty()).then(|| "api.dashboardName".to_owned()));
    }
    for (name, entry_point) in &install.entry_points {
        let key = format!("entryPoints.{name}");
        keys.extend(entry_point.observability.without_effect().map(|option| format!("{key}.observability.{option}")));
    }
    keys.into_iter().map(|key| de::no_effect(&key, install.place(&key))).collect()
}

/// The keys of the first level that are read.
const SECTIONS: &[&str] = &[
    "global",
    "log",
    "accessLog",
    "api",
    "ping",
    "metrics",
    "entryPoints",
    "providers",
    "serversTransport",
    "certificatesResolvers",
    "plugins",
    "limits",
];

/// Traefik's other keys of the first level.
const LATER: &[&str] = &["tracing", "hostResolver", "experimental", "core", "spiffe", "ocsp", "tcpServersTransport"];

const REST: &[Rest] = &[
    Rest { section: "Install", keys: LATER, treat: Treat::Ignore },
    Rest { section: "Log", keys: &["otlp"], treat: Treat::Ignore },
    Rest { section: "Metrics", keys: &["otlp", "datadog", "statsD", "influxDB2"], treat: Treat::Ignore },
    Rest { section: "Prometheus", keys: &["headerLabels"], treat: Treat::Ignore },
    Rest { section: "AccessLog", keys: &["otlp", "dualOutput"], treat: Treat::Ignore },
    Rest { section: "AccessLogFields", keys: &["queryParameters"], treat: Treat::Ignore },
    Rest { section: "EntryPoint", keys: &["proxyProtocol", "http3", "udp"], treat: Treat::Ignore },
    Rest { section: "ForwardedHeaders", keys: &["addXForwardedSchemeHeaders"], treat: Treat::Ignore },
    Rest { section: "Http2", keys: &["maxDecoderHeaderTableSize", "maxEncoderHeaderTableSize"], treat: Treat::Ignore },
    Rest {
        section: "Providers",
        keys: &[
            "precedence",
            "docker",
            "swarm",
            "kubernetesIngress",
            "kubernetesIngressNGINX",
            "kubernetesCRD",
            "kubernetesGateway",
            "knative",
            "rest",
            "consulCatalog",
            "nomad",
            "ecs",
            "consul",
            "etcd",
            "zooKeeper",
            "redis",
            "http",
            "plugin",
        ],
        treat: Treat::Ignore,
    },
    Rest {
        section: "ServersTransport",
        keys: &["cipherSuites", "minVersion", "maxVersion", "peerCertURI", "peerCertSANs", "spiffe"],
        treat: Treat::Ignore,
    },
    Rest { section: "CertificatesResolver", keys: &["tailscale"], treat: Treat::Ignore },
    Rest { section: "DnsChallenge", keys: &["env"], treat: Treat::Pass },
];
