//! Headers that tell browsers to be strict, and the list of hosts that are served. Most are fixed; some are for HTTPS
//! only, which a proxy before this one may have ended.

use weir_sdk::{Error, HeaderEdit, Plan, Reply, Request, Transport, header};

use crate::config::Config;

/// Headers for HTTPS, sent over plain connections whose request says that the client itself uses HTTPS.
pub(crate) struct HttpsOnly {
    /// Names and the values that say so.
    proofs: Vec<(String, String)>,
    edits: Vec<HeaderEdit>,
}

/// `allowedHosts`, and where to look for the host.
pub(crate) struct AllowedHosts {
    hosts: Vec<String>,
    proxy_headers: Vec<String>,
}

/// Adds what does not depend on a header of the request.
pub(crate) fn plan(config: &Config, mut plan: Plan) -> Result<(Option<HttpsOnly>, Plan), Error> {
    let mut edits = Vec::new();
    for (name, value) in https_headers(config) {
        edits.push(HeaderEdit::set(name, header::value(name, &value)?));
    }
    for edit in &edits {
        plan = plan.edit_response_on(Transport::Tls, edit.clone());
    }
    if let Some(value) = strict_transport(config).filter(|_| config.force_sts_header) {
        plan = plan.edit_response(HeaderEdit::set("strict-transport-security", value));
    }
    for (name, value) in headers(config) {
        plan = plan.edit_response(HeaderEdit::set(name, header::value(name, value)?));
    }
    Ok((HttpsOnly::new(config, edits)?, plan))
}

impl HttpsOnly {
    /// None if there is nothing to send or no header to look for. What `customResponseHeaders` names is decided there.
    fn new(config: &Config, mut edits: Vec<HeaderEdit>) -> Result<Option<Self>, Error> {
        let custom: Vec<_> = config.custom_response_headers.keys().map(|name| name.to_ascii_lowercase()).collect();
        edits.retain(|edit| !matches!(edit, HeaderEdit::Set((name, _)) if custom.contains(name)));
        let proof = |(name, value): (&String, &String)| Ok((header::name(name)?, value.clone()));
        let proofs = config.ssl_proxy_headers.iter().map(proof).collect::<Result<Vec<_>, Error>>()?;
        Ok((!edits.is_empty() && !proofs.is_empty()).then_some(Self { proofs, edits }))
    }

    /// Whether to send the headers here: over TLS the plan does.
    pub(crate) fn applies(&self, request: &Request<'_>) -> bool {
        let proven = |(name, value): &(String, String)| request.header(name).as_deref() == Some(value.as_bytes());
        !request.tls() && self.proofs.iter().any(proven)
    }

    pub(crate) fn edits(&self) -> impl Iterator<Item = HeaderEdit> {
        self.edits.iter().cloned()
    }

    pub(crate) fn request_headers(&self) -> impl Iterator<Item = &str> {
        self.proofs.iter().map(|(name, _)| name.as_str())
    }
}

impl AllowedHosts {
    /// None if every host is allowed.
    pub(crate) fn new(config: &Config) -> Result<Option<Self>, Error> {
        if config.allowed_hosts.is_empty() || config.is_development {
            return Ok(None);
        }
        let proxy_headers =
            config.hosts_proxy_headers.iter().map(|name| header::name(name)).collect::<Result<_, _>>()?;
        Ok(Some(Self { hosts: config.allowed_hosts.clone(), proxy_headers }))
    }

    /// The refusal if the host is not in the list. Ports count, case does not.
    pub(crate) fn refuse(&self, request: &Request<'_>) -> Option<Reply> {
        let forwarded = self.proxy_headers.iter().find_map(|name| request.header(name).filter(|host| !host.is_empty()));
        let host = forwarded.or_else(|| request.header("host")).unwrap_or_default();
        if self.hosts.iter().any(|allowed| allowed.as_bytes().eq_ignore_ascii_case(&host)) {
            return None;
        }
        let reply = Reply::new(500)
            .header("content-type", "text/plain; charset=utf-8")
            .header("x-content-type-options", "nosniff")
            .body("Bad Host\n");
        Some(reply)
    }

    pub(crate) fn request_headers(&self) -> impl Iterator<Item = &str> {
        self.proxy_headers.iter().map(String::as_str).chain(["host"])
    }
}

/// Sent over HTTPS only.
fn https_headers(config: &Config) -> Vec<(&'static str, String)> {
    let sts = strict_transport(config).filter(|_| !config.force_sts_header);
    let pins = Some(config.public_key.clone()).filter(|pins| !pins.is_empty() && !config.is_development);
    let headers = [("strict-transport-security", sts), ("public-key-pins", pins)];
    headers.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
}

fn strict_transport(config: &Config) -> Option<String> {
    let seconds = config.sts_seconds.filter(|&seconds| seconds > 0 && !config.is_development)?;
    let subdomains = if config.sts_include_subdomains { "; includeSubDomains" } else { "" };
    let preload = if config.sts_preload { "; preload" } else { "" };
    Some(format!("max-age={seconds}{subdomains}{preload}"))
}

/// Sent always.
fn headers(config: &Config) -> impl Iterator<Item = (&'static str, &str)> {
    let or = |custom: &'_ str, flag: bool, value: &'static str| if custom.is_empty() && flag { value } else { "" };
    let frame = or(&config.custom_frame_options_value, config.frame_deny, "DENY");
    let xss = or(&config.custom_browser_xss_value, config.browser_xss_filter, "1; mode=block");
    [
        ("x-frame-options", config.custom_frame_options_value.as_str()),
        ("x-frame-options", frame),
        ("x-content-type-options", if config.content_type_nosniff { "nosniff" } else { "" }),
        ("x-xss-protection", config.custom_browser_xss_value.as_str()),
        ("x-xss-protection", xss),
        ("content-security-policy", config.content_security_policy.as_str()),
        ("content-security-policy-report-only", config.content_security_policy_report_only.as_str()),
        ("referrer-policy", config.referrer_policy.as_str()),
        ("permissions-policy", config.permissions_policy.as_str()),
    ]
    .into_iter()
    .filter(|(_, value)| !value.is_empty())
}
