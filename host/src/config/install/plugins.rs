//! `plugins`: Weir's own section, unknown to Traefik. Where plugins are, and what each may do.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use crate::config::{WebOrigin, de};

/// `plugins`.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Plugins {
    /// `None`: `plugins` beside the install file.
    pub directory: Option<PathBuf>,
    pub cache: PluginCache,
    /// By plugin name.
    pub settings: BTreeMap<String, PluginSettings>,
}

/// `plugins.cache`.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PluginCache {
    /// For compiled plugins. `None`: the platform's cache directory.
    pub directory: Option<PathBuf>,
}

/// `plugins.settings.<name>`: how an administrator trusts one plugin.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PluginSettings {
    pub allow: Allow,
    pub limits: PluginLimits,
    pub on_failure: OnFailure,
    pub isolation: Isolation,
}

/// `allow`: what the plugin may use beyond what all may.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Allow {
    /// What it may reach, on the proxy's own network too.
    #[serde(deserialize_with = "de::origins")]
    pub fetch: Vec<WebOrigin>,
    /// Values that it may ask for, by the name that it asks by.
    pub secrets: BTreeMap<String, Secret>,
    /// State that all its instances see.
    pub shared: bool,
    /// Metrics of its own.
    pub metrics: bool,
    /// Edits of the fields that tell servers who the client is and where it went: `Host`, `Forwarded`, `X-Forwarded-*` and
    /// `X-Real-Ip`.
    pub forwarding_headers: bool,
}

/// `allow.secrets.<name>`: where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Secret {
    /// A variable of the process.
    pub env: Option<String>,
    /// A file that has it, relative to the working directory.
    pub file: Option<PathBuf>,
}

/// `limits`: what is not set has the usual value.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PluginLimits {
    /// Bytes of one instance.
    #[serde(deserialize_with = "de::optional_size")]
    pub memory: Option<u64>,
    /// CPU time of one call.
    #[serde(deserialize_with = "de::optional_duration")]
    pub cpu: Option<Duration>,
    /// CPU time of all calls together, in processor cores; 0: no limit.
    #[serde(deserialize_with = "de::optional_cores")]
    pub share: Option<f64>,
    /// For one exchange by `fetch`.
    #[serde(deserialize_with = "de::optional_duration")]
    pub fetch: Option<Duration>,
    /// Calls of one middleware that may run at the same time, on one worker.
    pub instances: Option<usize>,
    /// Bytes of one body that is buffered for it.
    #[serde(deserialize_with = "de::optional_size")]
    pub body: Option<u64>,
}

/// What a request gets when the plugin fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum OnFailure {
    /// 500, or 503 where it was not called at all.
    #[default]
    Deny,
    /// It goes on as if the middleware were not there.
    Bypass,
}

/// Who may share an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Isolation {
    /// Requests of one middleware, one after the other.
    #[default]
    Pool,
    /// Nobody: each call has a new one.
    Request,
}
