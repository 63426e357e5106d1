//! The means of a resolver to prove control of names, made of its options and of the plugins that there are now.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use anyhow::{Context, anyhow};
use tokio::sync::Mutex;

use super::Surroundings;
use crate::acme::ProviderUse;
use crate::acme::challenge::Solver;
use crate::acme::dns::{self, Checks, Dns, Rfc2136};
use crate::acme::dns01::{self, Dns01, Propagation, Provider};
use crate::acme::journal::Journal;
use crate::acme::name::Name;
use crate::acme::wanted::Wanted;
use crate::config::install::{Acme, DnsChallenge};
use crate::plugin::{Calls, Host, Plugin, Plugins, Variables};

/// What a resolver proves names with.
pub(super) struct Solvers {
    resolver: Arc<str>,
    options: Acme,
    journal: Arc<Journal>,
    surroundings: Arc<Surroundings>,
    /// The DNS provider, for as long as its plugin is the same.
    dns01: Mutex<Option<Made>>,
    /// Of all versions of that plugin.
    calls: Arc<Calls>,
}

/// What was made of a plugin; of none, where the host speaks to the provider itself.
type Made = (Option<Arc<Plugin>>, Arc<Dns01>);

impl Solvers {
    pub(super) fn new(
        resolver: Arc<str>,
        options: Acme,
        journal: Arc<Journal>,
        surroundings: Arc<Surroundings>,
    ) -> Self {
        Self { resolver, options, journal, surroundings, dns01: Mutex::default(), calls: Arc::default() }
    }

    /// The one for these names. Wildcards need DNS-01 (RFC 8555, section 7.1.3), addresses the others (RFC 8738).
    pub(super) async fn choose(&self, wanted: &Wanted, plugins: &Plugins) -> anyhow::Result<Solver> {
        let has_address = wanted.names.iter().any(|name| matches!(name, Name::Address(_)));
        let Acme { dns_challenge, tls_challenge, http_challenge, .. } = &self.options;
        let answers = self.surroundings.answers.clone();
        if dns_challenge.is_some() && !has_address {
            return self.dns01(plugins).await.map(Solver::Dns01);
        }
        if let Some(tls) = tls_challenge {
            return Ok(Solver::TlsAlpn01 { answers, delay: tls.delay });
        }
        if let Some(http) = http_challenge {
            return Ok(Solver::Http01 { answers, delay: http.delay });
        }
        Err(anyhow!("no challenge fits: add `tlsChallenge` or `httpChallenge`"))
    }

    /// Deletes the records that an earlier run of the process has left.
    pub(super) async fn prepare(&self, plugins: &Plugins) {
        if self.options.dns_challenge.is_none() {
            return;
        }
        match self.dns01(plugins).await {
            Ok(dns01) => dns01.clean_up_after_crash().await,
            // The snapshot has it among its problems.
            Err(error) => tracing::debug!(resolver = &*self.resolver, "no TXT record can be deleted: {error:#}"),
        }
    }

    /// The plugin that it calls, if it does.
    pub(super) fn provider(&self) -> Option<ProviderUse> {
        let provider = self.options.dns_challenge.as_ref()?.provider.clone();
        (provider != Rfc2136::NAME).then(|| ProviderUse {
            resolver: Arc::clone(&self.resolver),
            provider,
            calls: self.calls.made.load(Ordering::Relaxed),
            failures: self.calls.failed.load(Ordering::Relaxed),
        })
    }

    /// The hash of the plugin that it would call now.
    pub(super) fn version(&self, plugins: &Plugins) -> Option<String> {
        let challenge = self.options.dns_challenge.as_ref()?;
        Some(plugins.find(&challenge.provider)?.plugin.as_ref()?.sha256.clone())
    }

    async fn dns01(&self, plugins: &Plugins) -> anyhow::Result<Arc<Dns01>> {
        let Some(options) = &self.options.dns_challenge else {
            return Err(anyhow!("there is no `dnsChallenge`"));
        };
        let plugin = plugin(options, plugins)?;
        let mut made = self.dns01.lock().await;
        if let Some((of, dns01)) = made.as_ref() {
            let is_same = match (of, &plugin) {
                (Some(one), Some(other)) => Arc::ptr_eq(one, other),
                (None, None) => true,
                _ => false,
            };
            if is_same {
                return Ok(Arc::clone(dns01));
            }
        }
        let provider = provider(&self.surroundings.host, options, plugin.as_ref(), &self.calls).await?;
        let dns01 = Arc::new(Dns01 {
            resolver: self.resolver.to_string(),
            provider,
            dns: lookup(options)?,
            propagation: propagation(options),
            clock: self.surroundings.clock.clone(),
            journal: Arc::clone(&self.journal),
            turns: self.surroundings.turns.clone(),
        });
        *made = Some((plugin, Arc::clone(&dns01)));
        Ok(dns01)
    }
}

/// Starts the provider that a challenge names as an order would, so that what is wrong with it is known before a certificate
/// is to be renewed.
pub(crate) async fn try_provider(host: &Host, challenge: &DnsChallenge, plugins: &Plugins) -> anyhow::Result<()> {
    let plugin = plugin(challenge, plugins)?;
    provider(host, challenge, plugin.as_ref(), &Arc::default()).await.map(drop)
}

async fn provider(
    host: &Host,
    challenge: &DnsChallenge,
    plugin: Option<&Arc<Plugin>>,
    calls: &Arc<Calls>,
) -> anyhow::Result<Provider> {
    let variables = Variables::of(challenge);
    let Some(plugin) = plugin else { return Ok(Provider::Rfc2136(Box::new(rfc2136(&variables).await?))) };
    let component = host.provider(plugin, variables).await?;
    Ok(Provider::Component(Box::new(component.counting(Arc::clone(calls)))))
}

/// `None`: the host speaks to the provider itself.
fn plugin(challenge: &DnsChallenge, plugins: &Plugins) -> anyhow::Result<Option<Arc<Plugin>>> {
    let name = challenge.provider.as_str();
    dns01::refuse(name)?;
    if name == Rfc2136::NAME {
        return Ok(None);
    }
    let entry = plugins.find(name).ok_or_else(|| {
        anyhow!("there is no DNS provider `{name}`: `weir plugins` lists those there are, and a file `{name}.wasm` in the plugin folder would be one")
    })?;
    let problem = || anyhow!("{}", entry.problem.as_deref().unwrap_or("it has not been compiled"));
    let plugin = entry.plugin.clone().ok_or_else(problem);
    plugin.map(Some).with_context(|| format!("the DNS provider `{name}` cannot be used"))
}

async fn rfc2136(variables: &Variables) -> anyhow::Result<Rfc2136> {
    let mut values = BTreeMap::new();
    for name in Rfc2136::VARIABLES {
        if let Some(value) = variables.find(name).await? {
            values.insert(name.to_owned(), value);
        }
    }
    Rfc2136::new(&values, is_set("LEGO_EXPERIMENTAL_DNS_TCP_ONLY"))
}

fn lookup(options: &DnsChallenge) -> anyhow::Result<Dns> {
    Dns::new(&dns::Settings {
        resolvers: options.resolvers.clone(),
        follow_cnames: !is_set("LEGO_DISABLE_CNAME_SUPPORT"),
        tcp_only: is_set("LEGO_EXPERIMENTAL_DNS_TCP_ONLY"),
        ..dns::Settings::default()
    })
}

fn propagation(options: &DnsChallenge) -> Propagation {
    let rules = options.propagation();
    let checks = Checks {
        authoritative: !rules.disable_checks && !rules.disable_ans_checks,
        recursive: !rules.disable_checks && rules.require_all_rns,
    };
    Propagation { checks, delay_before: rules.delay_before_checks }
}

/// As lego reads switches in the environment.
fn is_set(name: &str) -> bool {
    std::env::var(name).is_ok_and(|value| matches!(value.as_str(), "1" | "t" | "T" | "TRUE" | "true" | "True"))
}
