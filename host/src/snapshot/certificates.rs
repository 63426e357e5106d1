//! What routers ask of certificates resolvers: the names that somebody has to get certificates for.

use std::collections::{BTreeMap, HashSet};

use super::{Items, Sources};
use crate::acme::{Ask, Asker, Domain, Name, Severity, Wanted};
use crate::config::{Item, Problem, routing};
use crate::tls;

/// The certificates that each resolver should have, by its name.
pub type WantedByResolver = BTreeMap<String, Vec<Wanted>>;

/// Works them out, and tells routers what they will not get.
pub(super) fn wanted(sources: &Sources<'_>, items: &mut Items, tls: &tls::Store) -> WantedByResolver {
    let asks = asks(sources, items);
    // What files have is not ordered.
    let of_files = tls.certificates().filter(|certificate| certificate.place.is_some());
    let served: HashSet<Name> =
        of_files.flat_map(|certificate| &certificate.names).filter_map(|name| Name::parse(name).ok()).collect();
    let mut by_resolver = WantedByResolver::new();
    for resolver in sources.install.certificates_resolvers.keys() {
        let Some(plan) = sources.acme.plan(resolver, &asks, &served) else { continue };
        for problem in plan.problems {
            note(sources, items, &problem.asker, problem.severity, problem.message);
        }
        by_resolver.insert(resolver.clone(), plan.certificates);
    }
    for ask in &asks {
        if let Some(reason) = sources.acme.refused(&ask.resolver) {
            let message = format!("certificates resolver `{}` is not used: {reason}", ask.resolver);
            note(
                sources,
                items,
                &ask.asker,
                Severity::Warning,
                format!("{message}; the default certificate is served"),
            );
        }
    }
    by_resolver
}

fn asks(sources: &Sources<'_>, items: &Items) -> Vec<Ask> {
    let mut asks: Vec<Ask> = Vec::new();
    for (name, status) in &items.routers {
        for placed in status.serves.iter().flatten().filter(|placed| !placed.is_disabled()) {
            let Some(tls) = &placed.tls else { continue };
            let Some(resolver) = tls.cert_resolver.clone() else { continue };
            let ask = Ask {
                asker: Asker::Router(name.clone()),
                resolver,
                domains: tls.domains.iter().map(domain).collect(),
                hosts: placed.route.rule.certificate_names(),
            };
            if !asks.contains(&ask) {
                asks.push(ask);
            }
        }
    }
    let default = sources.routing.tls.default_generated.as_ref().and_then(Item::readable);
    asks.extend(default.map(|routing::DefaultGenerated { resolver, domain: wanted }| Ask {
        asker: Asker::DefaultCertificate,
        resolver: resolver.clone(),
        domains: vec![domain(wanted)],
        hosts: Vec::new(),
    }));
    asks
}

fn domain(domain: &routing::Domain) -> Domain {
    Domain { main: domain.main.clone(), sans: domain.sans.clone() }
}

fn note(sources: &Sources<'_>, items: &mut Items, asker: &Asker, severity: Severity, message: String) {
    let severity = match severity {
        Severity::Error => crate::config::Severity::Error,
        Severity::Warning => crate::config::Severity::Warning,
    };
    let routing = sources.routing;
    let problem = match asker {
        Asker::Router(name) => routing.routers.get(name).map(|item| item.problem("tls", message.as_str())),
        Asker::DefaultCertificate => {
            routing.tls.default_generated.as_ref().map(|item| item.problem("", message.as_str()))
        }
    };
    let problem = Problem { severity, ..problem.unwrap_or_else(|| Problem::error("", message)) };
    match asker {
        Asker::Router(name) if let Some(status) = items.routers.get_mut(name) => status.problems.push(problem),
        _ => items.problems.push(problem),
    }
}
