//! `http.middlewares` → configured plugins.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;

use super::{Items, Middleware, Reference, Sources, Status, did_you_mean};
use crate::config::routing::{self, TRAEFIK_MIDDLEWARES};
use crate::config::{Install, Item, Node, Problem, Routing, reason};
use crate::plugin::{Configured, Kind, Plugin};

/// The plugin behind redirections of whole entry points.
pub(super) const REDIRECTION: &str = "redirectScheme";

pub(super) async fn build(sources: &Sources<'_>, built: &mut Items) {
    for (name, item) in &sources.routing.middlewares {
        if let Ok(routing::Middleware::Plugin { name: plugin, config }) = &item.value {
            let status = plugin_status(sources, name, item, plugin, config, &mut built.files).await;
            built.middlewares.insert(name.clone(), status);
        } else if let Err(problems) = &item.value {
            let problems = problems.iter().chain(&item.warnings).cloned().collect();
            let status = Status::broken(problems, sources.previous.items.middlewares.get(name));
            built.middlewares.insert(name.clone(), status);
        }
    }
    for (name, item) in &sources.routing.middlewares {
        if let Ok(routing::Middleware::Chain { .. }) = &item.value {
            let status = chain_status(sources, name, item, built);
            built.middlewares.insert(name.clone(), status);
        }
    }
}

/// The names, in lower case, of the plugins that a configuration uses.
pub(super) fn used_plugins(install: &Install, routing: &Routing) -> BTreeSet<String> {
    let of_files = routing.middlewares.values().filter_map(|item| match &item.value {
        Ok(routing::Middleware::Plugin { name, .. }) => Some(name.to_lowercase()),
        _ => None,
    });
    let redirects = install.entry_points.values().any(|entry| entry.http.redirections.entry_point.is_some());
    let authorities = install.certificates_resolvers.values().filter_map(|resolver| resolver.acme.as_ref());
    let providers = authorities.filter_map(|acme| Some(acme.dns_challenge.as_ref()?.provider.to_lowercase()));
    of_files.chain(redirects.then(|| REDIRECTION.to_lowercase())).chain(providers).collect()
}

/// The plugins that a reference to a middleware comes down to.
pub(super) fn resolve<T>(
    built: &Items,
    item: &Item<T>,
    key: &str,
    reference: &str,
) -> Result<Vec<Arc<Configured>>, Problem> {
    let name = match Reference::parse(reference) {
        Reference::File(name) => name,
        Reference::Internal(name) => {
            return Err(item.problem(key, format!("`{name}@internal` is not a middleware that routers may name")));
        }
        Reference::Elsewhere(provider) => {
            return Err(item.problem(key, format!("the provider `{provider}` of `{reference}` is not supported")));
        }
    };
    match built.middlewares.get(name) {
        None => Err(item
            .problem(key, format!("middleware `{name}` does not exist"))
            .help(did_you_mean(name, built.middlewares.keys()))),
        Some(status) => match &status.serves {
            Some(middleware) => Ok(middleware.plugins().to_vec()),
            None => Err(item.problem(key, format!("middleware `{name}` is broken"))),
        },
    }
}

/// Configures a plugin for the proxy's own use; `None` and a problem if that fails.
pub(super) async fn internal(
    sources: &Sources<'_>,
    name: &str,
    plugin: &str,
    config: &Value,
) -> Result<Middleware, Problem> {
    let problem = |message: String| Problem::error(name, message);
    let loaded = sources.plugins.find(plugin).and_then(|entry| entry.plugin.clone());
    let loaded = loaded.ok_or_else(|| problem(format!("the plugin `{plugin}` is missing")))?;
    let kept = previous_with(sources, name, &loaded, config);
    let configured = match kept {
        Some(configured) => configured,
        None => configure(sources, name, &loaded, config).await.map_err(problem)?,
    };
    Ok(Middleware::Plugin(configured))
}

async fn plugin_status(
    sources: &Sources<'_>,
    name: &str,
    item: &Item<routing::Middleware>,
    plugin: &str,
    config: &Node,
    files: &mut BTreeSet<PathBuf>,
) -> Status<routing::Middleware, Middleware> {
    let previous = sources.previous.items.middlewares.get(name);
    let configured = match loaded(sources, item, plugin, config) {
        Ok(loaded) => configured(sources, name, item, &loaded, config, files).await,
        Err(problem) => Err(vec![problem]),
    };
    match (configured, &item.value) {
        (Ok(configured), Ok(config)) => {
            Status::good(config.clone(), Middleware::Plugin(configured), item.warnings.clone())
        }
        (Err(mut problems), _) => {
            problems.extend(item.warnings.iter().cloned());
            Status::broken(problems, previous)
        }
        (_, Err(problems)) => Status::broken(problems.clone(), previous),
    }
}

fn loaded(
    sources: &Sources<'_>,
    item: &Item<routing::Middleware>,
    name: &str,
    config: &Node,
) -> Result<Arc<Plugin>, Problem> {
    let key = below(item, config);
    let Some(entry) = sources.plugins.find(name) else {
        let directory = sources.plugin_directory.display();
        if TRAEFIK_MIDDLEWARES.contains(&name) {
            let help = format!("a plugin in `{directory}/{name}.wasm` would provide it");
            return Err(item.problem(key, format!("`{name}` is not supported yet")).help(help));
        }
        let known: Vec<String> = sources.plugins.iter().map(|entry| entry.name.to_string()).collect();
        let help = did_you_mean(name, known.iter());
        return Err(item.problem(key, format!("there is no plugin `{name}` in `{directory}`")).help(help));
    };
    let Some(plugin) = &entry.plugin else {
        let reason = entry.problem.as_deref().unwrap_or("it was never loaded");
        let problem = match entry.is_coming {
            true => format!("the plugin `{name}` is being compiled"),
            false => format!("the plugin `{name}` cannot be used: {reason}"),
        };
        return Err(item.problem(key, problem));
    };
    plugin.must_be(Kind::Middleware).map_err(|error| item.problem(key, error.to_string()))?;
    Ok(Arc::clone(plugin))
}

/// The key of a plugin's options below its middleware: `headers`, or `plugin.stamp`.
fn below<'a>(item: &Item<routing::Middleware>, config: &'a Node) -> &'a str {
    config.key().strip_prefix(item.key()).unwrap_or_default().trim_start_matches('.')
}

/// Makes a plugin the middleware of the routing files that is called `name`. Files that its options name are added to
/// `files`.
pub(super) async fn configured(
    sources: &Sources<'_>,
    name: &str,
    item: &Item<routing::Middleware>,
    plugin: &Arc<Plugin>,
    config: &Node,
    files: &mut BTreeSet<PathBuf>,
) -> Result<Arc<Configured>, Vec<Problem>> {
    let options = plugin_options(plugin, config, files)?;
    files.extend(plugin.secret_files().map(Path::to_owned));
    if let Some(configured) = previous_with(sources, name, plugin, &options) {
        return Ok(configured);
    }
    configure(sources, &format!("{name}@file"), plugin, &options)
        .await
        .map_err(|message| vec![item.problem(below(item, config), message)])
}

/// A plugin's options as it gets them: what its schema makes of them, with the texts of files in the place of their
/// names. The files are added to `files`.
///
/// # Errors
///
/// Everything in which they do not fit the schema, or a file that cannot be read.
pub fn plugin_options(plugin: &Plugin, config: &Node, files: &mut BTreeSet<PathBuf>) -> Result<Value, Vec<Problem>> {
    let mut options = config.to_json(&plugin.about.schema)?;
    if options.is_null() {
        options = Value::Object(serde_json::Map::new());
    }
    for pointer in &plugin.about.files {
        let path = pointer.trim_start_matches('/').replace('/', ".");
        inline(&mut options, pointer, files).map_err(|message| vec![config.problem(&path, message)])?;
    }
    Ok(options)
}

/// The middleware of the previous snapshot, if neither its plugin nor its configuration has changed: its instances, with
/// what they remember, serve on.
fn previous_with(sources: &Sources<'_>, name: &str, plugin: &Arc<Plugin>, config: &Value) -> Option<Arc<Configured>> {
    let previous = sources.previous.items.middlewares.get(name)?.serves.as_ref()?;
    previous.plugins().iter().find(|configured| configured.is(plugin, config)).cloned()
}

async fn configure(
    sources: &Sources<'_>,
    name: &str,
    plugin: &Arc<Plugin>,
    config: &Value,
) -> Result<Arc<Configured>, String> {
    let configured = sources.host.configure(name, plugin, config).await;
    configured.map(Arc::new).map_err(|error| format!("{error:#}"))
}

/// Puts the text of a file in the place of its name.
fn inline(config: &mut Value, pointer: &str, files: &mut BTreeSet<PathBuf>) -> Result<(), String> {
    let Some(value) = config.pointer_mut(pointer) else {
        return Ok(());
    };
    let Some(file) = value.as_str().filter(|file| !file.is_empty()) else {
        return Ok(());
    };
    let file = Path::new(file);
    files.insert(file.to_owned());
    let text = std::fs::read_to_string(file)
        .map_err(|error| format!("`{}` cannot be read: {}", file.display(), reason(&error)))?;
    *value = Value::String(text);
    Ok(())
}

fn chain_status(
    sources: &Sources<'_>,
    name: &str,
    item: &Item<routing::Middleware>,
    built: &Items,
) -> Status<routing::Middleware, Middleware> {
    let mut plugins = Vec::new();
    let mut within = vec![name];
    let mut problems = Vec::new();
    expand(sources, item, built, &mut within, &mut plugins, &mut problems);
    match &item.value {
        Ok(config) if problems.is_empty() => {
            Status::good(config.clone(), Middleware::Chain(plugins), item.warnings.clone())
        }
        _ => {
            problems.extend(item.warnings.iter().cloned());
            Status::broken(problems, sources.previous.items.middlewares.get(name))
        }
    }
}

/// Chains may name chains, but never one that they are part of.
fn expand<'a>(
    sources: &'a Sources<'_>,
    item: &'a Item<routing::Middleware>,
    built: &Items,
    within: &mut Vec<&'a str>,
    plugins: &mut Vec<Arc<Configured>>,
    problems: &mut Vec<Problem>,
) {
    let Ok(routing::Middleware::Chain { middlewares }) = &item.value else {
        return;
    };
    for (position, reference) in middlewares.iter().enumerate() {
        let key = format!("chain.middlewares[{position}]");
        let named = match Reference::parse(reference) {
            Reference::File(name) => sources.routing.middlewares.get_key_value(name),
            _ => None,
        };
        match named {
            Some((name, chain)) if matches!(chain.value, Ok(routing::Middleware::Chain { .. })) => {
                if within.contains(&name.as_str()) {
                    problems.push(item.problem(&key, format!("the chain `{name}` would contain itself")));
                    continue;
                }
                within.push(name);
                expand(sources, chain, built, within, plugins, problems);
                within.pop();
            }
            _ => match resolve(built, item, &key, reference) {
                Ok(resolved) => plugins.extend(resolved),
                Err(problem) => problems.push(problem),
            },
        }
    }
}
