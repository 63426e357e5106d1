//! What one plugin may do and what it may cost: the administrator's settings, or the usual.
//!
//! `plugin` makes it when a component is loaded; `pool`, `grants` and `edit` hold calls to it.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::bail;
use http::HeaderName;
use http::header::HOST;

use super::about::About;
use super::limits::{BUILT_IN_BUDGET, CALL_BUDGET, MEMORY};
use super::usage::Cause;
use super::{Kind, Origin};
use crate::config::install::{Allow, Isolation, OnFailure, PluginSettings};
use crate::http::may_be_taken_for;

/// For one exchange of a middleware: a client waits for it.
const FETCH_TIME: Duration = Duration::from_secs(5);
/// Calls of one middleware that may run at the same time, on one worker.
const RUNNING_AT_MOST: usize = 64;
/// Of one body that is buffered.
const BODY_AT_MOST: u64 = 1 << 20;

/// What one plugin may do.
#[derive(Clone, Debug)]
pub struct Policy {
    pub allow: Allow,
    /// Bytes of linear memory of one instance.
    pub memory: usize,
    /// CPU time of one call.
    pub cpu: Duration,
    /// CPU time of all calls together, in processor cores; 0: no limit.
    pub share: f64,
    /// For one exchange by `fetch`.
    pub fetch: Duration,
    /// Calls of one middleware that may run at the same time, on one worker.
    pub instances: usize,
    /// Bytes of one body that is buffered.
    pub body: u64,
    pub on_failure: OnFailure,
    pub isolation: Isolation,
    /// Whether it may do all that it asks for.
    pub(super) trusts: bool,
}

impl Policy {
    /// Built-in plugins may use everything that middlewares may.
    pub(super) fn new(origin: &Origin, settings: Option<&PluginSettings>) -> Self {
        let is_built_in = *origin == Origin::BuiltIn;
        let PluginSettings { mut allow, limits, on_failure, isolation } = settings.cloned().unwrap_or_default();
        if is_built_in {
            allow.shared = true;
            allow.metrics = true;
            allow.forwarding_headers = true;
        }
        let (cpu, share) = if is_built_in { (BUILT_IN_BUDGET, 0.0) } else { (CALL_BUDGET, half_of_the_cores()) };
        Self {
            allow,
            memory: limits.memory.and_then(|memory| usize::try_from(memory).ok()).unwrap_or(MEMORY),
            cpu: limits.cpu.unwrap_or(cpu),
            share: limits.share.unwrap_or(share),
            fetch: limits.fetch.unwrap_or(FETCH_TIME),
            instances: limits.instances.unwrap_or(RUNNING_AT_MOST),
            body: limits.body.unwrap_or(BODY_AT_MOST),
            on_failure,
            isolation,
            trusts: false,
        }
    }

    /// All that a plugin asks for, within the usual limits but for its share.
    pub(super) fn trusting() -> Self {
        let allow = Allow { shared: true, metrics: true, forwarding_headers: true, ..Allow::default() };
        let settings = PluginSettings { allow, ..PluginSettings::default() };
        let origin = Origin::File(std::path::PathBuf::new());
        Self { share: 0.0, trusts: true, ..Self::new(&origin, Some(&settings)) }
    }

    /// Whether all that a plugin wants is granted. DNS providers get what they declare.
    ///
    /// # Errors
    ///
    /// What is missing, with the line to add.
    pub(super) fn admits(&self, name: &str, kind: Kind, imports: &[String], about: &About) -> anyhow::Result<()> {
        if about.guards && self.on_failure == OnFailure::Bypass {
            bail!(
                "it decides who may pass, so it cannot be left out when it fails: remove \
                 `plugins.settings.{name}.onFailure`"
            );
        }
        if kind == Kind::DnsProvider || self.trusts {
            return Ok(());
        }
        let imports = |interface: &str| imports.iter().any(|import| import == interface);
        let switches = [("shared", self.allow.shared), ("metrics", self.allow.metrics)];
        let missing = switches.into_iter().filter(|(name, allowed)| imports(name) && !allowed);
        let mut uses: Vec<_> = missing.map(|(name, _)| name.to_owned()).collect();
        let mut grants: Vec<_> = uses.iter().map(|name| format!("{name}: true")).collect();
        let mut of_its_own = "";
        if imports("fetch") && self.allow.fetch.is_empty() && about.urls.is_empty() && about.origins.is_empty() {
            uses.push("fetch".to_owned());
            grants.push("fetch: [\"https://host.example\"]".to_owned());
            of_its_own = " with the origins that it may reach";
        }
        let origins = about.origins.iter().filter(|origin| !self.allow.fetch.contains(origin));
        let origins: Vec<_> = origins.map(ToString::to_string).collect();
        if !origins.is_empty() {
            grants.push(format!("fetch: {origins:?}"));
        }
        let secrets = about.variables.iter().filter(|variable| variable.required).map(|variable| &variable.name);
        let secrets: Vec<_> = secrets.filter(|name| !self.allow.secrets.contains_key(*name)).cloned().collect();
        if !secrets.is_empty() {
            let secrets: Vec<_> = secrets.iter().map(|name| format!("{name}: {{env: {name}}}")).collect();
            grants.push(format!("secrets: {{{}}}", secrets.join(", ")));
        }
        if grants.is_empty() {
            return Ok(());
        }
        let wants = [("may not use", uses), ("may not reach", origins), ("needs the secret", secrets)];
        let wants = wants.iter().filter(|(_, names)| !names.is_empty());
        let wants: Vec<_> = wants.map(|(what, names)| format!("{what} `{}`", names.join("`, `"))).collect();
        let line = line(name, &grants.join(", "));
        bail!("it {}: to allow it, {line}{of_its_own}, and start weir again", wants.join(", and "))
    }

    /// Bytes that a verdict may hand over, or a call of the host's within it: the longest body, and fields.
    pub(super) fn verdict_at_most(&self) -> usize {
        const BESIDE_THE_BODY: usize = 512 << 10;
        usize::try_from(self.body.max(BODY_AT_MOST)).unwrap_or(usize::MAX).saturating_add(BESIDE_THE_BODY)
    }

    /// The limit that a failure has met, as a remark behind its words.
    pub(super) fn limit(&self, cause: Cause) -> String {
        match cause {
            Cause::Time => format!(" (`limits.cpu` is {:?})", self.cpu),
            Cause::Memory => format!(" (`limits.memory` is {} bytes)", self.memory),
            _ => String::new(),
        }
    }

    /// The files that secrets are in.
    pub(super) fn secret_files(&self) -> impl Iterator<Item = &Path> {
        self.allow.secrets.values().filter_map(|secret| secret.file.as_deref())
    }

    /// What is granted beyond what all may, for lists: `fetch https://login.example.com`, `secret PEPPER`, `shared`.
    pub fn granted(&self) -> Vec<String> {
        let Allow { fetch, secrets, shared, metrics, forwarding_headers } = &self.allow;
        let fetch = fetch.iter().map(|origin| format!("fetch {origin}"));
        let secrets = secrets.keys().map(|name| format!("secret {name}"));
        let others = [(*shared, "shared"), (*metrics, "metrics"), (*forwarding_headers, "forwarding headers")];
        let others = others.into_iter().filter(|(allowed, _)| *allowed).map(|(_, name)| name.to_owned());
        fetch.chain(secrets).chain(others).collect()
    }

    /// Whether a plugin may change a field of requests.
    ///
    /// # Errors
    ///
    /// What to write to let it.
    pub(super) fn admits_edit(&self, plugin: &str, field: &HeaderName) -> Result<(), String> {
        if self.allow.forwarding_headers || !says_who_asks(field) {
            return Ok(());
        }
        let line = line(plugin, "forwardingHeaders: true");
        Err(format!(
            "it may not edit `{field}`, which tells servers who asks for what: to allow it, {line}, and start weir again"
        ))
    }
}

/// Fields that servers believe, since the proxy in front of them wrote them; in any spelling that they may take for them.
fn says_who_asks(field: &HeaderName) -> bool {
    let name = field.as_str();
    let begins_as = |known: &str| name.get(..known.len()).is_some_and(|start| may_be_taken_for(start, known));
    *field == HOST || name == "forwarded" || may_be_taken_for(name, "x-real-ip") || begins_as("x-forwarded-")
}

fn line(name: &str, grant: &str) -> String {
    format!("write `plugins: {{settings: {{{name}: {{allow: {{{grant}}}}}}}}}` into the install file")
}

/// One plugin must not take the time of all others.
fn half_of_the_cores() -> f64 {
    std::thread::available_parallelism().map_or(1, usize::from) as f64 / 2.0
}

/// The settings by plugin name, whose case does not matter.
pub(super) fn by_name(settings: &BTreeMap<String, PluginSettings>) -> BTreeMap<String, PluginSettings> {
    settings.iter().map(|(name, settings)| (name.to_lowercase(), settings.clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::WebOrigin;
    use crate::plugin::about::Variable;

    #[test]
    fn all_that_is_missing_is_said_at_once() {
        let origin = |text| WebOrigin::parse_alone(text).expect("an origin");
        let secret = |name: &str, required| Variable { name: name.to_owned(), required, url: false };
        let about = About {
            version: String::new(),
            summary: String::new(),
            schema: serde_json::Value::Null,
            files: Vec::new(),
            urls: Vec::new(),
            variables: vec![secret("SALT", true), secret("OTHER", false)],
            origins: vec![origin("https://a.example"), origin("http://b.example:8080")],
            guards: false,
        };
        let imports = ["fetch", "metrics", "secrets", "shared"].map(str::to_owned);
        let admitted = |allow: Allow| {
            let settings = PluginSettings { allow, ..PluginSettings::default() };
            let policy = Policy::new(&Origin::File("quota.wasm".into()), Some(&settings));
            policy.admits("quota", Kind::Middleware, &imports, &about).map_err(|error| error.to_string())
        };
        let line = |grants: &str| {
            format!(
                "to allow it, write `plugins: {{settings: {{quota: {{allow: {{{grants}}}}}}}}}` into the install file, and start weir \
                 again"
            )
        };
        let missing = admitted(Allow { shared: true, ..Allow::default() }).expect_err("a part of it");
        let wants = "it may not use `metrics`, and may not reach `https://a.example`, `http://b.example:8080`, and needs the \
                     secret `SALT`: ";
        let grants =
            r#"metrics: true, fetch: ["https://a.example", "http://b.example:8080"], secrets: {SALT: {env: SALT}}"#;
        assert_eq!(missing, wants.to_owned() + &line(grants));
        let secrets = BTreeMap::from([("SALT".to_owned(), crate::config::install::Secret::default())]);
        let all = Allow { fetch: about.origins.clone(), secrets, shared: true, metrics: true, ..Allow::default() };
        assert_eq!(admitted(all), Ok(()));
    }
}
