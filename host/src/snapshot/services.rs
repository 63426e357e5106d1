//! `http.services` and `http.serversTransports` → load balancers and their connections' settings.

use std::sync::Arc;

use super::{Items, Reference, Status, did_you_mean};
use crate::config::routing::{self, ServersTransport};
use crate::config::{Install, Item, Problem, Routing};
use crate::forward::{Transport, Upstream};
use crate::service::{Internal, LoadBalancer, Server, Service};
use crate::tls::{self, Alpn};

/// The transport of services that name none: `serversTransport` of the install file.
const DEFAULT: &str = "default";

/// Traefik's default for `maxIdleConnsPerHost`, where Go's own would be 2.
const IDLE_CONNECTIONS: usize = 200;

/// What a transport was made from: its configuration, and what its files said.
#[derive(Clone, PartialEq)]
pub struct TransportSource {
    config: ServersTransport,
    files: Vec<Option<Vec<u8>>>,
}

pub(super) fn build(install: &Install, routing: &Routing, previous: &Items, built: &mut Items) {
    let default = Item::new("serversTransport", install.servers_transport.clone());
    let transports = routing.servers_transports.iter().filter(|(name, _)| *name != DEFAULT);
    for (name, item) in transports.map(|(name, item)| (name.as_str(), item)).chain([(DEFAULT, &default)]) {
        let status = transport_status(item, previous.transports.get(name));
        built.transports.insert(name.to_owned(), status);
    }
    for (name, item) in &routing.services {
        let status = service_status(item, previous.services.get(name), built);
        built.services.insert(name.clone(), status);
    }
}

/// The service that a router names.
pub(super) fn resolve(
    built: &Items,
    item: &Item<routing::Router>,
    install: &Install,
    reference: &str,
) -> Result<Arc<Service>, Problem> {
    let name = match Reference::parse(reference) {
        Reference::File("") => return Err(item.problem("service", "`service` is missing")),
        Reference::File(name) => name,
        Reference::Internal(name) => return internal(item, install, name),
        Reference::Elsewhere(provider) => {
            return Err(item.problem("service", format!("the provider `{provider}` of `{reference}` is not supported")));
        }
    };
    match built.services.get(name) {
        None => Err(item
            .problem("service", format!("service `{name}` does not exist"))
            .help(did_you_mean(name, built.services.keys()))),
        Some(status) => match &status.serves {
            Some(service) => Ok(Arc::clone(service)),
            None => Err(item.problem("service", format!("service `{name}` is broken"))),
        },
    }
}

fn internal(item: &Item<routing::Router>, install: &Install, name: &str) -> Result<Arc<Service>, Problem> {
    let section = match Internal::named(name) {
        None => return Err(item.problem("service", format!("there is no service `{name}@internal`"))),
        Some(Internal::Api | Internal::Dashboard) if install.api.is_none() => "api",
        Some(Internal::Ping) if install.ping.is_none() => "ping",
        Some(Internal::Prometheus) if install.prometheus().is_none() => "metrics.prometheus",
        Some(service) => return Ok(Arc::new(Service::Internal(service))),
    };
    let problem =
        item.problem("service", format!("`{name}@internal` is there only with `{section}` in the install file"));
    let written = match section.split_once('.') {
        Some((section, option)) => format!("{section}: {{{option}: {{}}}}"),
        None => format!("{section}: {{}}"),
    };
    Err(problem.help(format!("add `{written}` to the install file and restart")))
}

fn transport_status(
    item: &Item<ServersTransport>,
    previous: Option<&Status<TransportSource, Arc<Transport>>>,
) -> Status<TransportSource, Arc<Transport>> {
    let config = match &item.value {
        Ok(config) => config.clone(),
        Err(problems) => {
            return Status::broken(problems.iter().chain(&item.warnings).cloned().collect(), previous);
        }
    };
    let named = config.certificates.iter().flat_map(|pair| [&pair.cert_file, &pair.key_file]);
    let files = config.root_cas.iter().chain(named).map(|file| std::fs::read(file).ok()).collect();
    let source = TransportSource { config, files };
    if let Some(Status { config: Some(old), serves: Some(transport), stale: false, .. }) = previous
        && *old == source
    {
        return Status::good(source, Arc::clone(transport), item.warnings.clone());
    }
    match transport(&source.config) {
        Ok(transport) => Status::good(source, Arc::new(transport), item.warnings.clone()),
        Err(messages) => {
            let problems = messages.into_iter().map(|message| item.problem("", message));
            Status::broken(problems.chain(item.warnings.iter().cloned()).collect(), previous)
        }
    }
}

fn transport(config: &ServersTransport) -> Result<Transport, Vec<String>> {
    let alpn = if config.disable_http2 { Alpn::Http1 } else { Alpn::Http2 };
    let timeouts = &config.forwarding_timeouts;
    let unless_zero = |duration: std::time::Duration| (!duration.is_zero()).then_some(duration);
    Ok(Transport {
        tls: tls::client_config(config, alpn)?,
        server_name: config.server_name.clone(),
        idle_connections_at_most: match config.max_idle_conns_per_host {
            0 => IDLE_CONNECTIONS,
            count => usize::try_from(count).unwrap_or(0),
        },
        dial_timeout: unless_zero(timeouts.dial_timeout),
        response_header_timeout: unless_zero(timeouts.response_header_timeout),
        idle_timeout: unless_zero(timeouts.idle_conn_timeout),
        ping: unless_zero(timeouts.read_idle_timeout).map(|silence| (silence, timeouts.ping_timeout)),
    })
}

fn service_status(
    item: &Item<routing::Service>,
    previous: Option<&Status<routing::Service, Arc<Service>>>,
    built: &Items,
) -> Status<routing::Service, Arc<Service>> {
    let config = match &item.value {
        Ok(config) => config,
        Err(problems) => return Status::broken(problems.iter().chain(&item.warnings).cloned().collect(), previous),
    };
    let routing::Service::LoadBalancer(wanted) = config;
    match load_balancer(item, wanted, previous.and_then(|previous| previous.serves.as_deref()), built) {
        Ok(balancer) => {
            let unchanged = previous.filter(|previous| previous.config.as_ref() == Some(config));
            if let Some(Service::LoadBalancer(old)) = unchanged.and_then(|previous| previous.serves.as_deref()) {
                balancer.continue_from(old);
            }
            Status::good(config.clone(), Arc::new(Service::LoadBalancer(balancer)), item.warnings.clone())
        }
        Err(mut problems) => {
            problems.extend(item.warnings.iter().cloned());
            Status::broken(problems, previous)
        }
    }
}

/// Servers that the previous balancer had already are kept, with their connections.
fn load_balancer(
    item: &Item<routing::Service>,
    config: &routing::LoadBalancer,
    previous: Option<&Service>,
    built: &Items,
) -> Result<LoadBalancer, Vec<Problem>> {
    let transport = transport_of(item, config, built).map_err(|problem| vec![problem])?;
    let known: &[Server] = match previous {
        Some(Service::LoadBalancer(previous)) => &previous.servers,
        _ => &[],
    };
    let mut servers = Vec::new();
    let mut problems = Vec::new();
    for (position, server) in config.servers.iter().enumerate() {
        match Upstream::parse(&server.url, server.preserve_path, Arc::clone(&transport)) {
            Ok(upstream) => {
                let kept = known.iter().map(|server| &server.upstream).find(|known| known.is_like(&upstream));
                let upstream = kept.cloned().unwrap_or_else(|| Arc::new(upstream));
                servers.push(Server { upstream, weight: server.weight.unwrap_or(1) });
            }
            Err(message) => {
                problems.push(item.problem(&format!("loadBalancer.servers[{position}].url"), message));
            }
        }
    }
    if problems.is_empty() { Ok(LoadBalancer::new(servers, config.pass_host_header)) } else { Err(problems) }
}

fn transport_of(
    item: &Item<routing::Service>,
    config: &routing::LoadBalancer,
    built: &Items,
) -> Result<Arc<Transport>, Problem> {
    const KEY: &str = "loadBalancer.serversTransport";

    let reference = config.servers_transport.as_deref().unwrap_or(DEFAULT);
    let name = match Reference::parse(reference) {
        Reference::File(name) | Reference::Internal(name) => name,
        Reference::Elsewhere(provider) => {
            return Err(item.problem(KEY, format!("the provider `{provider}` of `{reference}` is not supported")));
        }
    };
    match built.transports.get(name) {
        Some(status) => match &status.serves {
            Some(transport) => Ok(Arc::clone(transport)),
            None => Err(item.problem(KEY, format!("servers transport `{name}` is broken"))),
        },
        None => Err(item
            .problem(KEY, format!("servers transport `{name}` does not exist"))
            .help(did_you_mean(name, built.transports.keys()))),
    }
}
