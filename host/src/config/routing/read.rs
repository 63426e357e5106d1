//! One routing file's tree as a [`Routing`]: each item on its own, so that a broken one leaves the others alone.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::{LoadBalancer, Middleware, Router, Routing, Service, TRAEFIK_MIDDLEWARES, Tls};
use crate::config::de::{self, Rest, Treat};
use crate::config::tree::{Entry, Kind};
use crate::config::{Item, Node, Place, Problem, did_you_mean};

/// Reads the tree of a routing file, with the problems that concern no single item.
pub(in crate::config) fn read(root: &Node) -> (Routing, Vec<Problem>) {
    let mut routing = Routing::default();
    let mut problems = Vec::new();
    if !matches!(root.kind(), Kind::Section(_)) {
        problems.push(Problem::error("", "the file holds no section").at(root.place().clone()));
    }
    for entry in root.entries() {
        match entry.key.to_ascii_lowercase().as_str() {
            "http" => http(entry, &mut routing, &mut problems),
            "tls" => tls(entry, &mut routing.tls, &mut problems),
            "tcp" | "udp" => problems.extend(unsupported("", entry)),
            _ => problems.extend(unknown(entry)),
        }
    }
    (routing, problems)
}

/// Traefik takes no notice of unknown keys of the first level; those with `x-` are meant to hold anchors.
fn unknown(Entry { key, key_place, value, .. }: &Entry) -> Option<Problem> {
    if key.starts_with("x-") || *value.kind() == Kind::Null {
        return None;
    }
    let is_install = INSTALL.iter().any(|name| name.eq_ignore_ascii_case(key));
    let problem = if is_install {
        Problem::warning(key, format!("`{key}` has no effect here: it belongs in the install file"))
    } else {
        Problem::warning(key, format!("`{key}` is not a known key and has no effect"))
            .help(did_you_mean(key, ["http", "tls"]))
    };
    Some(problem.at(key_place.clone()))
}

fn http(http: &Entry, routing: &mut Routing, problems: &mut Vec<Problem>) {
    for entry in section("http", http, problems) {
        let key = |name: &str| format!("http.{name}");
        match entry.key.to_ascii_lowercase().as_str() {
            "routers" => items(&key("routers"), entry, &mut routing.routers, problems, router),
            "services" => items(&key("services"), entry, &mut routing.services, problems, service),
            "middlewares" => items(&key("middlewares"), entry, &mut routing.middlewares, problems, middleware),
            "serverstransports" => {
                items(&key("serversTransports"), entry, &mut routing.servers_transports, problems, plainly);
            }
            "models" => problems.extend(unsupported("http", entry)),
            _ => problems.push(strange("http", entry, &["routers", "services", "middlewares", "serversTransports"])),
        }
    }
}

fn tls(tls: &Entry, into: &mut Tls, problems: &mut Vec<Problem>) {
    for entry in section("tls", tls, problems) {
        match entry.key.to_ascii_lowercase().as_str() {
            "options" => items("tls.options", entry, &mut into.options, problems, plainly),
            "certificates" => match entry.value.kind() {
                Kind::List(certificates) => {
                    for (index, node) in certificates.iter().enumerate() {
                        let key = format!("tls.certificates[{index}]");
                        let (value, wrong) = de::read(&key, node.place(), node, REST, &[]);
                        into.certificates.push(Item::read(key, node.place().clone(), node.clone(), value, wrong));
                    }
                }
                _ if entry.value.is_blank() => {}
                _ => problems.push(misplaced("tls.certificates", entry, "a list")),
            },
            "stores" => stores(entry, into, problems),
            _ => problems.push(strange("tls", entry, &["certificates", "options", "stores"])),
        }
    }
}

fn stores(stores: &Entry, into: &mut Tls, problems: &mut Vec<Problem>) {
    for store in section("tls.stores", stores, problems) {
        let key = format!("tls.stores.{}", store.key);
        if store.key != "default" {
            let problem = Problem::warning(key.as_str(), "this store has no effect: only `default` is used");
            problems.push(problem.at(store.key_place.clone()));
            continue;
        }
        for entry in section(&key, store, problems) {
            match entry.key.to_ascii_lowercase().as_str() {
                "defaultcertificate" if entry.value.is_blank() => {}
                "defaultcertificate" => {
                    let key = format!("{key}.defaultCertificate");
                    into.default_certificate = Some(plainly(key, entry));
                }
                "defaultgeneratedcert" if entry.value.is_blank() => {}
                "defaultgeneratedcert" => {
                    let key = format!("{key}.defaultGeneratedCert");
                    into.default_generated = Some(plainly(key, entry));
                }
                _ => problems.push(strange(&key, entry, &["defaultCertificate", "defaultGeneratedCert"])),
            }
        }
    }
}

/// Reads every item of a section by its name without `@file`.
fn items<T>(
    key: &str,
    entry: &Entry,
    into: &mut BTreeMap<String, Item<T>>,
    problems: &mut Vec<Problem>,
    read: impl Fn(String, &Entry) -> Item<T>,
) {
    for entry in section(key, entry, problems) {
        let name = entry.key.strip_suffix("@file").unwrap_or(&entry.key);
        let key = format!("{key}.{name}");
        if *entry.value.kind() == Kind::Null {
            let problem = Problem::warning(key.as_str(), "this is empty and not used");
            problems.push(problem.at(entry.key_place.clone()));
            continue;
        }
        if let Some(first) = into.get(name) {
            problems.push(twice(&key, name, first.place("")).at(entry.key_place.clone()));
            continue;
        }
        into.insert(name.to_owned(), read(key, entry));
    }
}

/// What is said about an item whose name is taken.
pub(in crate::config) fn twice(key: &str, name: &str, first: Option<Place>) -> Problem {
    let first = first.map(|place| format!(" at {place}")).unwrap_or_default();
    Problem::error(key, format!("`{name}` is already defined{first}: this one is not used"))
}

fn plainly<T: DeserializeOwned>(key: String, entry: &Entry) -> Item<T> {
    let (value, problems) = de::read(&key, &entry.key_place, &entry.value, REST, &[]);
    Item::read(key, entry.key_place.clone(), entry.value.clone(), value, problems)
}

fn router(key: String, entry: &Entry) -> Item<Router> {
    let mut skip = Vec::new();
    let mut quirks = Vec::new();
    if let Some(passthrough) = entry.value.entry("tls.passthrough") {
        let below = format!("{key}.tls.passthrough");
        let problem = if passthrough.value.text().is_some_and(|text| text.eq_ignore_ascii_case("true")) {
            Problem::error(below.as_str(), "an HTTP router cannot pass TLS through")
                .help("a router below `tcp` could: `tcp` is not supported yet".to_owned())
        } else {
            Problem::warning(below.as_str(), "`passthrough` has no effect on an HTTP router")
                .help("remove it".to_owned())
        };
        quirks.push(problem.at(passthrough.place().clone()));
        skip.push(format!("{key}.tls.{}", passthrough.key));
    }
    if let Some(syntax) = entry.value.entry("ruleSyntax") {
        let text = syntax.value.text().unwrap_or_default();
        if !matches!(syntax.value.kind(), Kind::Null) && !text.eq_ignore_ascii_case("v3") {
            let problem = Problem::error(format!("{key}.ruleSyntax"), format!("`{text}` is not supported yet"));
            quirks.push(problem.at(syntax.place().clone()).help("write the rule in `v3` syntax".to_owned()));
        }
        skip.push(format!("{key}.{}", syntax.key));
    }
    let (value, mut problems) = de::read::<Router>(&key, &entry.key_place, &entry.value, REST, &skip);
    problems.extend(quirks);
    for option in value.iter().flat_map(|router| router.observability.without_effect()) {
        let path = format!("observability.{option}");
        problems.push(de::no_effect(&format!("{key}.{path}"), entry.value.find(&path)));
    }
    Item::read(key, entry.key_place.clone(), entry.value.clone(), value, problems)
}

fn service(key: String, entry: &Entry) -> Item<Service> {
    /// All kinds are there only so that a wrong key is told from a missing one.
    #[derive(Deserialize, Default)]
    #[serde(rename_all = "camelCase", default)]
    struct AnyService {
        load_balancer: Option<LoadBalancer>,
    }
    let (value, mut problems) = de::read::<AnyService>(&key, &entry.key_place, &entry.value, REST, &[]);
    let service = value.and_then(|service| service.load_balancer).map(Service::LoadBalancer);
    if service.is_none() && !problems.iter().any(Problem::is_error) {
        let problem = Problem::error(key.as_str(), "a service needs a kind").at(entry.key_place.clone());
        problems.push(problem.help("write `loadBalancer` with its `servers` below it".to_owned()));
    }
    Item::read(key, entry.key_place.clone(), entry.value.clone(), service, problems)
}

fn middleware(key: String, entry: &Entry) -> Item<Middleware> {
    let (value, problems) = match kind(&key, entry) {
        Ok(kind) if kind.name == "chain" => {
            #[derive(Deserialize, Default)]
            #[serde(default)]
            struct Chain {
                middlewares: Vec<String>,
            }
            let (chain, problems) = de::read::<Chain>(&kind.key, kind.entry.place(), &kind.entry.value, REST, &[]);
            (chain.map(|Chain { middlewares }| Middleware::Chain { middlewares }), problems)
        }
        Ok(Kindred { name, key, entry }) => {
            (Some(Middleware::Plugin { name, config: entry.value.named(key) }), Vec::new())
        }
        Err(problem) => (None, vec![problem]),
    };
    Item::read(key, entry.key_place.clone(), entry.value.clone(), value, problems)
}

/// The kind of a middleware: its name, and where its options are.
struct Kindred<'a> {
    name: String,
    key: String,
    entry: &'a Entry,
}

fn kind<'a>(key: &str, middleware: &'a Entry) -> Result<Kindred<'a>, Problem> {
    const HELP: &str = "write one kind, such as `headers`, with its options below it";
    let wrong = |message: String, at: &Entry| Problem::error(key, message).at(at.key_place.clone());
    if !matches!(middleware.value.kind(), Kind::Section(_)) {
        return Err(wrong("a middleware is a section".to_owned(), middleware).help(HELP.to_owned()));
    }
    let entry = one(middleware).map_err(|problem| match problem {
        None => wrong("a middleware needs a kind".to_owned(), middleware).help(HELP.to_owned()),
        Some((first, second)) => {
            let message = format!("a middleware has one kind: `{}` and `{}` are two", first.key, second.key);
            wrong(message, second).help("give each a name of its own and put both on the router".to_owned())
        }
    })?;
    if entry.key.eq_ignore_ascii_case("plugin") {
        let below = format!("{key}.plugin");
        let plugin = one(entry).map_err(|problem| match problem {
            None => Problem::error(below.as_str(), "`plugin` needs a plugin's name").at(entry.key_place.clone()),
            Some((first, second)) => {
                let message = format!("a middleware is one plugin: `{}` and `{}` are two", first.key, second.key);
                Problem::error(below.as_str(), message).at(second.key_place.clone())
            }
        })?;
        return Ok(Kindred { name: plugin.key.clone(), key: format!("{below}.{}", plugin.key), entry: plugin });
    }
    let known = TRAEFIK_MIDDLEWARES.iter().find(|name| name.eq_ignore_ascii_case(&entry.key));
    let Some(name) = known else {
        let problem =
            Problem::error(format!("{key}.{}", entry.key), format!("`{}` is not a kind of middleware", entry.key));
        let help = did_you_mean(&entry.key, TRAEFIK_MIDDLEWARES.iter().copied());
        let help = help.unwrap_or_else(|| format!("for a plugin write `plugin: {{{}: {{…}}}}`", entry.key));
        return Err(problem.at(entry.key_place.clone()).help(help));
    };
    Ok(Kindred { name: (*name).to_owned(), key: format!("{key}.{name}"), entry })
}

/// The only entry of a section. Null ones count only where there is no other.
fn one(section: &Entry) -> Result<&Entry, Option<(&Entry, &Entry)>> {
    let entries = section.value.entries();
    let mut present = entries.iter().filter(|entry| *entry.value.kind() != Kind::Null);
    match (present.next(), present.next()) {
        (Some(one), None) => Ok(one),
        (Some(first), Some(second)) => Err(Some((first, second))),
        (None, _) => match entries {
            [one] => Ok(one),
            _ => Err(None),
        },
    }
}

fn section<'a>(key: &str, entry: &'a Entry, problems: &mut Vec<Problem>) -> &'a [Entry] {
    if !matches!(entry.value.kind(), Kind::Section(_) | Kind::Null) {
        problems.push(misplaced(key, entry, "a section"));
    }
    entry.value.entries()
}

fn misplaced(key: &str, entry: &Entry, wanted: &str) -> Problem {
    let found = match entry.value.kind() {
        Kind::Scalar { text, .. } => format!("`{text}` stands"),
        Kind::List(_) => "this is a list".to_owned(),
        Kind::Section(_) | Kind::Null => "this is a section".to_owned(),
    };
    Problem::error(key, format!("{found} where {wanted} is wanted")).at(entry.place().clone())
}

fn unsupported(key: &str, entry: &Entry) -> Option<Problem> {
    if entry.value.is_blank() {
        return None;
    }
    let key = if key.is_empty() { entry.key.clone() } else { format!("{key}.{}", entry.key) };
    Some(Problem::error(key, format!("`{}` is not supported yet", entry.key)).at(entry.key_place.clone()))
}

fn strange(key: &str, entry: &Entry, known: &[&str]) -> Problem {
    let problem = Problem::error(format!("{key}.{}", entry.key), format!("`{}` is not a known key", entry.key));
    problem.at(entry.key_place.clone()).help(did_you_mean(&entry.key, known.iter().copied()))
}

/// Sections of an install file, for those who mix the two up.
const INSTALL: &[&str] = &[
    "global",
    "log",
    "accessLog",
    "api",
    "ping",
    "entryPoints",
    "providers",
    "serversTransport",
    "certificatesResolvers",
    "plugins",
    "metrics",
    "tracing",
    "hostResolver",
    "experimental",
    "core",
    "spiffe",
    "ocsp",
    "tcpServersTransport",
];

const REST: &[Rest] = &[
    Rest { section: "Router", keys: &["parentRefs"], treat: Treat::Refuse },
    Rest {
        section: "AnyService",
        keys: &["middlewares", "weighted", "highestRandomWeight", "mirroring", "failover"],
        treat: Treat::Refuse,
    },
    Rest {
        section: "LoadBalancer",
        keys: &["sticky", "strategy", "healthCheck", "passiveHealthCheck"],
        treat: Treat::Refuse,
    },
    Rest {
        section: "ServersTransport",
        keys: &["cipherSuites", "minVersion", "maxVersion", "peerCertURI", "peerCertSANs", "spiffe"],
        treat: Treat::Refuse,
    },
    Rest { section: "TlsOptions", keys: &["preferServerCipherSuites"], treat: Treat::Obsolete },
];
