//! The options of Traefik's `headers` middleware, by their names. Empty text and empty lists are as good as unset.

use std::collections::BTreeMap;

use serde::Deserialize;

/// All options; what they mean is in `config.schema.json`.
#[derive(Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct Config {
    pub(crate) custom_request_headers: BTreeMap<String, String>,
    pub(crate) custom_response_headers: BTreeMap<String, String>,

    pub(crate) access_control_allow_credentials: bool,
    pub(crate) access_control_allow_headers: Vec<String>,
    pub(crate) access_control_allow_methods: Vec<String>,
    pub(crate) access_control_allow_origin_list: Vec<String>,
    pub(crate) access_control_allow_origin_list_regex: Vec<String>,
    pub(crate) access_control_expose_headers: Vec<String>,
    /// Seconds.
    pub(crate) access_control_max_age: Option<i64>,
    pub(crate) add_vary_header: bool,

    pub(crate) allowed_hosts: Vec<String>,
    pub(crate) hosts_proxy_headers: Vec<String>,
    pub(crate) ssl_proxy_headers: BTreeMap<String, String>,
    pub(crate) is_development: bool,

    pub(crate) sts_seconds: Option<u64>,
    pub(crate) sts_include_subdomains: bool,
    pub(crate) sts_preload: bool,
    #[serde(rename = "forceSTSHeader")]
    pub(crate) force_sts_header: bool,
    pub(crate) frame_deny: bool,
    pub(crate) custom_frame_options_value: String,
    pub(crate) content_type_nosniff: bool,
    pub(crate) browser_xss_filter: bool,
    #[serde(rename = "customBrowserXSSValue")]
    pub(crate) custom_browser_xss_value: String,
    pub(crate) content_security_policy: String,
    pub(crate) content_security_policy_report_only: String,
    pub(crate) public_key: String,
    pub(crate) referrer_policy: String,
    pub(crate) permissions_policy: String,

    // Accepted and without effect, as in Traefik 3.
    feature_policy: String,
    ssl_redirect: bool,
    ssl_temporary_redirect: bool,
    ssl_host: String,
    ssl_force_host: bool,
}
