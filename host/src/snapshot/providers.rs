//! DNS providers of certificates resolvers, started before they are needed: a certificate is renewed once in two months.

use std::sync::Arc;

use super::Sources;
use crate::acme::try_provider;
use crate::config::Problem;
use crate::config::install::{DnsChallenge, Install};
use crate::plugin::{ErrorKind, Plugin, ProviderError, Variables};

/// What keeps resolvers from ordering a certificate, as things are. Others go on.
pub(super) async fn problems(sources: &Sources<'_>) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (key, challenge) in challenges(sources.install) {
        if let Err(error) = try_provider(sources.host, challenge, &sources.plugins).await {
            let is_unset =
                error.downcast_ref().is_some_and(|error: &ProviderError| error.kind == ErrorKind::InvalidConfig);
            let help = format!("its variables come from the environment of `weir`, and from `{key}.env`");
            let message = format!("no certificate can be ordered as things are: {error:#}");
            let problem = sources.install.warning(&format!("{key}.provider"), message);
            problems.push(problem.help(is_unset.then_some(help)));
        }
    }
    problems
}

/// The first certificates resolver that would have to do without a newer version of a plugin, and why.
pub(super) async fn resolver_without(
    sources: &Sources<'_>,
    serving: &Arc<Plugin>,
    newer: &Arc<Plugin>,
) -> Option<String> {
    for (key, challenge) in challenges(sources.install) {
        if !challenge.provider.eq_ignore_ascii_case(&newer.name) {
            continue;
        }
        let start = async |plugin| sources.host.provider(plugin, Variables::of(challenge)).await;
        // Where the one that serves cannot start either, there is nothing to lose.
        if let Err(problem) = start(newer).await
            && start(serving).await.is_ok()
        {
            return Some(format!("it would not serve `{key}`: {problem:#}"));
        }
    }
    None
}

/// With their keys.
fn challenges(install: &Install) -> impl Iterator<Item = (String, &DnsChallenge)> {
    install.certificates_resolvers.iter().filter_map(|(name, resolver)| {
        let challenge = resolver.acme.as_ref()?.dns_challenge.as_ref()?;
        Some((format!("certificatesResolvers.{name}.acme.dnsChallenge"), challenge))
    })
}
