//! Newer versions of plugins, which are taken whole or not at all.
//!
//! The version that serves goes on until the newer one has passed `init` with every middleware and every certificates
//! resolver that it would serve. One that is refused is tried again at each reload: another configuration may suit it.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use super::{Middleware, Sources, middlewares, providers};
use crate::config::{Problem, routing};
use crate::plugin::Plugin;

/// Takes the newer versions that there are, or says why not. Files that configurations name are added to `files`.
pub(super) async fn settle(sources: &mut Sources<'_>, files: &mut BTreeSet<PathBuf>) {
    let waiting: Vec<_> =
        sources.plugins.newer().map(|(serving, newer)| (Arc::clone(serving), Arc::clone(newer))).collect();
    for (serving, newer) in waiting {
        let refusal = match middleware_without(sources, &serving, &newer, files).await {
            None => providers::resolver_without(sources, &serving, &newer).await,
            refusal => refusal,
        };
        if refusal.is_none() {
            let (plugin, version, sha256) = (&*newer.name, &*newer.about.version, &*newer.sha256);
            tracing::info!(plugin, version, sha256, "another version of it serves");
        }
        sources.plugins.settle(&newer.name, refusal);
    }
}

/// The first middleware that would have to do without the newer version, and why.
async fn middleware_without(
    sources: &Sources<'_>,
    serving: &Arc<Plugin>,
    newer: &Arc<Plugin>,
    files: &mut BTreeSet<PathBuf>,
) -> Option<String> {
    for (name, status) in &sources.previous.items.middlewares {
        let Some(Middleware::Plugin(configured)) = &status.serves else { continue };
        if !Arc::ptr_eq(&configured.plugin, serving) {
            continue;
        }
        let problems = match sources.routing.middlewares.get(name).map(|item| (item, &item.value)) {
            Some((item, Ok(routing::Middleware::Plugin { name: plugin, config })))
                if plugin.eq_ignore_ascii_case(&newer.name) =>
            {
                middlewares::configured(sources, name, item, newer, config, files).await.err()
            }
            Some((_, Err(problems))) => Some(problems.clone()),
            // It is made of something else now.
            Some(_) => None,
            // The proxy's own, which no file has.
            None if name.ends_with("@internal") => {
                let again = sources.host.configure_again(configured, newer).await;
                again.err().map(|error| vec![Problem::error(name, format!("{error:#}"))])
            }
            None => None,
        };
        if let Some(problem) = problems.iter().flatten().find(|problem| problem.is_error()) {
            let place = problem.place.as_ref().map(|place| format!(" ({place})")).unwrap_or_default();
            return Some(format!("it would not serve `{}`{place}: {}", problem.key, problem.message));
        }
    }
    None
}
