//! What must fit together in `certificatesResolvers`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::config::install::{Acme, DnsChallenge, Install, Variable};
use crate::config::tree::Kind;
use crate::config::{Node, Problem, nearest};

const KEY_TYPES: &[&str] = &["EC256", "EC384", "RSA2048", "RSA4096", "RSA8192"];

/// Names the key types that are unknown, with a warning for each: Traefik takes its default then.
pub(super) fn unknown_key_types(root: &Node, problems: &mut Vec<Problem>) -> Vec<String> {
    let mut skip = Vec::new();
    let resolvers = root.entry("certificatesResolvers").map(|entry| entry.value.entries()).unwrap_or_default();
    for resolver in resolvers {
        let Some(entry) = resolver.value.entry("acme.keyType") else { continue };
        let Some(text) = entry.value.text().filter(|text| !KEY_TYPES.contains(text)) else { continue };
        let key = format!("certificatesResolvers.{}.acme.keyType", resolver.key);
        let problem = Problem::warning(key.as_str(), format!("`{text}` is not a type of key: RSA4096 is used"));
        let help = nearest(text, KEY_TYPES.iter().copied());
        let help = help
            .map_or_else(|| format!("use one of {}", KEY_TYPES.join(", ")), |near| format!("did you mean `{near}`?"));
        problems.push(problem.at(entry.place().clone()).help(help));
        skip.push(key);
    }
    skip
}

/// Reads what the types leave out, and says what is wrong with each resolver.
pub(super) fn check(install: &mut Install) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (name, resolver) in &install.certificates_resolvers {
        let key = format!("certificatesResolvers.{name}");
        match &resolver.acme {
            Some(acme) => problems.extend(check_acme(install, &format!("{key}.acme"), acme)),
            None => {
                let message = "without `acme` this resolver gets no certificates: the default one is served";
                problems.push(Problem::warning(key.as_str(), message).at(install.place(&key)));
            }
        }
    }
    let names: Vec<String> = install.certificates_resolvers.keys().cloned().collect();
    for name in names {
        let key = format!("certificatesResolvers.{name}.acme.dnsChallenge.env");
        let (env, wrong) = variables(&key, install.source.as_ref());
        problems.extend(wrong);
        let acme = install.certificates_resolvers.get_mut(&name).and_then(|resolver| resolver.acme.as_mut());
        if let Some(dns) = acme.and_then(|acme| acme.dns_challenge.as_mut()) {
            dns.env = env;
        }
    }
    problems
}

fn check_acme(install: &Install, key: &str, acme: &Acme) -> Vec<Problem> {
    let mut problems = Vec::new();
    let at = |option: &str| format!("{key}.{option}");
    let error = |option: &str, message: String| install.problem(&at(option), message);
    let warning = |option: &str, message: &str| Problem::warning(at(option), message).at(install.place(&at(option)));
    if acme.storage.as_os_str().is_empty() {
        let help = "write `storage: acme.json`".to_owned();
        problems.push(error("storage", "there is no place to keep the certificates in".to_owned()).help(help));
    }
    if acme.certificates_duration < 1 {
        let message = "cannot manage certificates with duration lower than 1 hour".to_owned();
        problems.push(error("certificatesDuration", message));
    } else if acme.certificates_duration != 2160 {
        let message = "`certificatesDuration` has no effect: renewal goes by the life of each certificate";
        problems.push(warning("certificatesDuration", message));
    }
    if acme.client_timeout < acme.client_response_header_timeout {
        let message = "clientTimeout must be at least clientResponseHeaderTimeout".to_owned();
        problems.push(error("clientTimeout", message));
    }
    if let Some(eab) = acme.eab.as_ref().filter(|eab| eab.kid.is_empty() || eab.hmac_encoded.is_empty()) {
        let missing = if eab.kid.is_empty() { "kid" } else { "hmacEncoded" };
        problems.push(error("eab", format!("an external account binding needs `{missing}`")));
    }
    if acme.dns_challenge.is_none() && acme.http_challenge.is_none() && acme.tls_challenge.is_none() {
        let message = "no challenge is chosen: no certificate can be ordered";
        let help = "add `dnsChallenge`, `httpChallenge` or `tlsChallenge`".to_owned();
        problems.push(Problem::warning(key, message).at(install.place(key)).help(help));
    }
    if let Some(dns) = &acme.dns_challenge {
        if dns.provider.is_empty() {
            let help = "`weir plugins` lists those there are".to_owned();
            problems.push(error("dnsChallenge.provider", "the DNS challenge needs a provider".to_owned()).help(help));
        }
        problems.extend(moved(dns).map(|(old, new)| {
            warning(&format!("dnsChallenge.{old}"), &format!("`{old}` is deprecated"))
                .help(format!("write `propagation.{new}`"))
        }));
    }
    if let Some(http) = &acme.http_challenge
        && !install.entry_points.contains_key(&http.entry_point)
    {
        let message = match http.entry_point.as_str() {
            "" => "the HTTP challenge needs an entry point".to_owned(),
            name => format!("entry point `{name}` does not exist"),
        };
        let near = nearest(&http.entry_point, install.entry_points.keys().map(String::as_str));
        let help = near.map_or_else(
            || "the CA asks on port 80: name the entry point that clients reach there".to_owned(),
            |near| format!("did you mean `{near}`?"),
        );
        problems.push(error("httpChallenge.entryPoint", message).help(help));
    }
    problems
}

fn moved(dns: &DnsChallenge) -> impl Iterator<Item = (&'static str, &'static str)> {
    let delay = (!dns.delay_before_check.is_zero()).then_some(("delayBeforeCheck", "delayBeforeChecks"));
    let checks = dns.disable_propagation_check.then_some(("disablePropagationCheck", "disableChecks"));
    delay.into_iter().chain(checks)
}

/// `NAME: value`, or `NAME: {file: path}`.
fn variables(key: &str, root: Option<&Node>) -> (BTreeMap<String, Variable>, Vec<Problem>) {
    let mut variables = BTreeMap::new();
    let mut problems = Vec::new();
    let entry = root.and_then(|root| root.entry(key));
    for entry in entry.map(|entry| entry.value.entries()).unwrap_or_default() {
        let file = entry.value.entry("file").and_then(|file| file.value.text());
        let variable = match (entry.value.text(), file) {
            (Some(text), _) => Variable::Value(text.to_owned()),
            (None, Some(path)) => Variable::File(PathBuf::from(path)),
            (None, None) if *entry.value.kind() == Kind::Null => continue,
            (None, None) => {
                let problem = Problem::error(format!("{key}.{}", entry.key), "a variable is a text, or names a file");
                let help = format!("write `{}: {{file: path}}`", entry.key);
                problems.push(problem.at(entry.key_place.clone()).help(help));
                continue;
            }
        };
        variables.insert(entry.key.clone(), variable);
    }
    (variables, problems)
}
