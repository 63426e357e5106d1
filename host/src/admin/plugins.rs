//! `/api/plugins`: what there is, what each may use, and what it has cost on each router.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::Admin;
use super::api::{with_provider, without_nulls};
use crate::acme::ProviderUse;
use crate::config::Problem;
use crate::plugin::{self, CAUSES, Configured, Kind, Totals, Usage};
use crate::snapshot::{Items, Middleware, Snapshot};

pub(super) fn list(admin: &Admin, snapshot: &Snapshot) -> Vec<Value> {
    let usages = admin.usages.all();
    let of =
        |entry: &plugin::Entry| usages.iter().filter(|usage| usage.plugin == entry.name).map(AsRef::as_ref).collect();
    let providers = admin.acme.providers();
    let by = |entry: &plugin::Entry| providers.iter().filter(|used| *used.provider == *entry.name).collect::<Vec<_>>();
    let entries = entries(snapshot);
    entries.iter().map(|entry| plugin_json(entry, &snapshot.items, of(entry), &by(entry))).collect()
}

/// All there are, and what serves on without a file.
pub(super) fn entries(snapshot: &Snapshot) -> Vec<plugin::Entry> {
    let serving = snapshot.items.middlewares.values().filter_map(|status| match &status.serves {
        Some(Middleware::Plugin(configured)) => Some(&configured.plugin),
        _ => None,
    });
    let gone = serving.filter(|plugin| snapshot.plugins.find(&plugin.name).is_none());
    let gone: BTreeMap<_, _> = gone.map(|plugin| (&plugin.name, plugin::Entry::gone(plugin))).collect();
    snapshot.plugins.iter().cloned().chain(gone.into_values()).collect()
}

fn plugin_json(entry: &plugin::Entry, items: &Items, usages: Vec<&Usage>, resolvers: &[&ProviderUse]) -> Value {
    let plugin = entry.plugin.as_deref();
    let provider = plugin.filter(|plugin| plugin.kind() == Kind::DnsProvider).map(|plugin| &plugin.about);
    // Not even compiled: built in, and nothing names it.
    let unused = plugin.is_none() && entry.problem.is_none() && !entry.is_coming;
    let coming = entry.is_coming.then(|| Problem::warning("", "it is being compiled"));
    let problem = entry.problem.as_ref().map(|message| Problem::error("", message.as_str())).or(coming);
    let configured = configured(entry, items);
    let (instances, memory) = held(&configured);
    let mut all = Totals::default();
    usages.iter().for_each(|usage| all += &usage.totals());
    without_nulls(json!({
        "name": &*entry.name,
        "origin": entry.origin.to_string(),
        "version": plugin.map(|plugin| plugin.about.version.as_str()).or_else(|| unused.then_some(env!("CARGO_PKG_VERSION"))),
        "summary": plugin.map(|plugin| &plugin.about.summary),
        "sha256": plugin.map(|plugin| &plugin.sha256),
        "imports": plugin.map(|plugin| &plugin.imports),
        "kind": plugin.map(|plugin| match plugin.kind() {
            Kind::Middleware => "middleware",
            Kind::DnsProvider => "dns-provider",
        }),
        "variables": provider.map(|about| about.variables.iter().map(variable_json).collect::<Vec<_>>()),
        "origins": provider.map(|about| about.origins.iter().map(ToString::to_string).collect::<Vec<_>>()),
        "status": match (plugin.is_some() || unused, problem.is_some()) {
            (true, false) => "enabled",
            (true, true) => "warning",
            (false, _) => "disabled",
        },
        "problems": problem.map(|problem| vec![problem]),
        "usedBy": used_by(&configured, resolvers),
        "granted": plugin.filter(|plugin| plugin.kind() == Kind::Middleware).map(|plugin| plugin.policy.granted()),
        "instances": instances,
        "memoryBytes": memory,
        "calls": all.calls + resolvers.iter().map(|used| used.calls).sum::<u64>(),
        "failures": all.failures() + resolvers.iter().map(|used| used.failures).sum::<u64>(),
        "uses": usages.into_iter().map(usage_json).collect::<Vec<_>>(),
    }))
}

/// Middlewares, and certificates resolvers.
fn used_by(configured: &[(&String, &Configured)], resolvers: &[&ProviderUse]) -> Vec<String> {
    let resolvers = resolvers.iter().map(|used| used.resolver.to_string());
    configured.iter().map(|(name, _)| with_provider(name)).chain(resolvers).collect()
}

/// The instances there are of some middlewares, and the bytes of their memory.
pub(super) fn held(configured: &[(&String, &Configured)]) -> (usize, usize) {
    let each = configured.iter().map(|(_, middleware)| middleware.instances());
    each.fold((0, 0), |(count, memory), (more, bytes)| (count + more, memory + bytes))
}

/// The middlewares that are made of a plugin.
pub(super) fn configured<'a>(entry: &plugin::Entry, items: &'a Items) -> Vec<(&'a String, &'a Configured)> {
    let users = items.middlewares.iter().filter_map(|(name, status)| match &status.serves {
        Some(Middleware::Plugin(configured)) if configured.plugin.name == entry.name => Some((name, &**configured)),
        _ => None,
    });
    users.collect()
}

/// One middleware on one router.
fn usage_json(usage: &Usage) -> Value {
    let totals = usage.totals();
    let failures = CAUSES.iter().zip(totals.failures).filter(|(_, count)| *count > 0);
    let failures: Map<String, Value> = failures.map(|(cause, count)| (cause.name().to_owned(), json!(count))).collect();
    json!({
        "middleware": &*usage.middleware,
        "router": &*usage.router,
        "calls": totals.calls,
        "seconds": totals.time.as_secs_f64(),
        "failures": failures,
    })
}

/// What a variable is for, never what it holds.
fn variable_json(variable: &plugin::Variable) -> Value {
    json!({ "name": variable.name, "required": variable.required, "url": variable.url })
}
