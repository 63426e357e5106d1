//! Which certificates routers want of a resolver: the names that they ask for, each in one certificate.
//!
//! Each resolver works it out when the configuration has changed. Pure: it asks neither DNS nor the authority, and it does not
//! know what there is already.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap, HashSet};

use http::Uri;

use super::name::{Identity, Name, TWO_WILDCARDS};

/// What a router, or the default TLS store, asks of a resolver.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Ask {
    pub(crate) asker: Asker,
    pub(crate) resolver: String,
    /// `tls.domains`: a certificate for each. If there are none, `hosts` counts.
    pub(crate) domains: Vec<Domain>,
    /// What the rule names with `Host` or `HostSNI`, in order: one certificate for all. `*` asks for nothing.
    pub(crate) hosts: Vec<String>,
}

#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Asker {
    /// `tls.stores.default.defaultGeneratedCert`.
    DefaultCertificate,
    /// By its name.
    Router(String),
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Domain {
    pub(crate) main: String,
    pub(crate) sans: Vec<String>,
}

/// What a resolver can get.
#[derive(Clone, Debug)]
pub(crate) struct Terms<'a> {
    pub(crate) resolver: &'a str,
    pub(crate) authority: Authority,
    pub(crate) challenges: Challenges,
    /// The profile that is asked of the authority; empty for its own choice.
    pub(crate) profile: &'a str,
    /// The names of certificates from files: nothing is ordered for what they cover.
    pub(crate) served: &'a HashSet<Name>,
}

/// Of which kind an authority is, as far as its rules are known beforehand.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Authority {
    LetsEncrypt,
    /// Another one that browsers trust.
    Public,
    /// One's own, or one that is not known here. It decides itself.
    Unknown,
}

/// Those that the resolver is configured with.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Challenges {
    pub(crate) dns: bool,
    pub(crate) http: bool,
    pub(crate) tls_alpn: bool,
}

/// The answer to all that is asked of one resolver.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Plan {
    pub(crate) certificates: Vec<Wanted>,
    /// What nobody will get, and what is odd; sorted by asker.
    pub(crate) problems: Vec<Problem>,
}

/// A certificate that there should be.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Wanted {
    /// At least one; the first is the main one.
    pub(crate) names: Vec<Name>,
    /// All that it serves, also those whose names it covers by a wildcard.
    pub(crate) askers: BTreeSet<Asker>,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Problem {
    pub(crate) asker: Asker,
    pub(crate) severity: Severity,
    pub(crate) message: String,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Severity {
    /// A name gets no certificate. The others do.
    Error,
    Warning,
}

/// What is wanted of the resolver of `terms`. The order of the questions does not matter.
pub(crate) fn wanted(asks: &[Ask], terms: &Terms<'_>) -> Plan {
    let mut plan = Plan::default();
    let mut asks: Vec<&Ask> = asks.iter().filter(|ask| ask.resolver == terms.resolver).collect();
    asks.sort_by_key(|ask| &ask.asker);
    let mut lists: Vec<List<'_>> = asks.into_iter().flat_map(|ask| lists(ask, terms, &mut plan.problems)).collect();
    lists.sort_by_key(|list| list.source);
    let askers: Vec<(&Asker, Vec<Name>)> = lists.iter().map(|list| (list.asker, list.names.clone())).collect();
    plan.certificates = certificates(lists, terms);
    note_askers(&mut plan.certificates, &askers);
    plan
}

impl Wanted {
    pub(crate) fn identity(&self) -> Identity {
        Identity::new(&self.names)
    }
}

impl Authority {
    /// Whom a directory's URL belongs to. A host that is not known here may be anybody's.
    pub(crate) fn of(directory: &str) -> Self {
        const PUBLIC: [&str; 11] = [
            "actalis.com",
            "buypass.com",
            "certum.pl",
            "digicert.com",
            "entrust.net",
            "globalsign.com",
            "harica.gr",
            "pki.goog",
            "sectigo.com",
            "ssl.com",
            "zerossl.com",
        ];
        let uri: Option<Uri> = directory.parse().ok();
        let host = uri.as_ref().and_then(Uri::host).unwrap_or_default().to_ascii_lowercase();
        let is_of = |domain: &str| host.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
        if is_of("letsencrypt.org") {
            return Self::LetsEncrypt;
        }
        if PUBLIC.into_iter().any(is_of) { Self::Public } else { Self::Unknown }
    }
}

/// Names that are asked for together.
struct List<'a> {
    asker: &'a Asker,
    source: Source,
    names: Vec<Name>,
}

/// Whose wish comes first, where several name the same host.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Source {
    /// Must be exactly what is asked for, since it is served to whoever names nothing.
    DefaultCertificate,
    /// Somebody has decided what is to be together.
    Domains,
    /// The longest list first, so that a router for one of its hosts does not split it.
    Rule(Reverse<usize>),
}

fn lists<'a>(ask: &'a Ask, terms: &Terms<'_>, problems: &mut Vec<Problem>) -> Vec<List<'a>> {
    let asker = &ask.asker;
    if ask.domains.is_empty() {
        let hosts = ask.hosts.iter().map(String::as_str).filter(|host| *host != "*");
        let names = accepted(asker, hosts, terms, problems);
        return vec![List { asker, source: Source::Rule(Reverse(names.len())), names }];
    }
    let source = match asker {
        Asker::DefaultCertificate => Source::DefaultCertificate,
        Asker::Router(_) => Source::Domains,
    };
    let texts = |domain: &'a Domain| {
        // Traefik takes an empty main name for none.
        let main = Some(domain.main.as_str()).filter(|main| !main.is_empty());
        main.into_iter().chain(domain.sans.iter().map(String::as_str))
    };
    let list = |domain| List { asker, source, names: accepted(asker, texts(domain), terms, problems) };
    ask.domains.iter().map(list).collect()
}

/// The names that can be had, each once, in their order.
fn accepted<'a>(
    asker: &Asker,
    texts: impl Iterator<Item = &'a str>,
    terms: &Terms<'_>,
    problems: &mut Vec<Problem>,
) -> Vec<Name> {
    let mut names = Vec::new();
    let mut seen = HashSet::new();
    for text in texts {
        let mut problem = |severity, message| problems.push(Problem { asker: asker.clone(), severity, message });
        if text.trim().ends_with('.') {
            problem(Severity::Warning, format!("`{}` is taken without its final dot: leave it away", shown(text)));
        }
        match Name::parse(text).map_err(|reason| not_a_name(text, reason)).and_then(|name| admitted(name, terms)) {
            Ok(name) if seen.insert(name.clone()) => names.push(name),
            Ok(_) => {}
            Err(message) => problem(Severity::Error, message),
        }
    }
    names
}

fn not_a_name(text: &str, reason: &str) -> String {
    if reason == TWO_WILDCARDS {
        // Traefik's words, for which its users search.
        return format!(
            "unable to generate a wildcard certificate in ACME provider for domain \"{}\" : {TWO_WILDCARDS}",
            shown(text)
        );
    }
    format!("no certificate can be ordered for `{}`: it {reason}", shown(text))
}

/// User text that may be anything.
fn shown(text: &str) -> String {
    const LONGEST: usize = 80;
    let mut shown: String =
        text.chars().take(LONGEST).map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect();
    if text.chars().nth(LONGEST).is_some() {
        shown.push('…');
    }
    shown
}

/// Refuses what would only cost a failed order.
fn admitted(name: Name, terms: &Terms<'_>) -> Result<Name, String> {
    let Terms { resolver, authority, challenges, .. } = terms;
    if *authority != Authority::Unknown
        && let Some(reason) = name.private_reason()
    {
        return Err(format!("no certificate is ordered for `{name}`: it {reason}, and no public authority signs it"));
    }
    match name {
        Name::Wildcard(_) if !challenges.dns => Err(format!(
            "no certificate is ordered for `{name}`: a wildcard needs `dnsChallenge`, which resolver `{resolver}` does not \
             have; name the hosts, or configure it"
        )),
        Name::Address(_) if !challenges.http && !challenges.tls_alpn => Err(format!(
            "no certificate is ordered for `{name}`: an address needs `httpChallenge` or `tlsChallenge`, neither of which \
             resolver `{resolver}` has"
        )),
        Name::Address(_) if *authority == Authority::LetsEncrypt && terms.profile != SHORT_LIVED => Err(format!(
            "no certificate is ordered for `{name}`: Let's Encrypt signs addresses with `profile: {SHORT_LIVED}` alone, \
             which resolver `{resolver}` does not have"
        )),
        name => Ok(name),
    }
}

const SHORT_LIVED: &str = "shortlived";

/// Each name once: what a certificate before it has, or a wildcard of anybody covers, is left out.
fn certificates(lists: Vec<List<'_>>, terms: &Terms<'_>) -> Vec<Wanted> {
    let wildcards: HashSet<Name> = lists.iter().flat_map(|list| wildcards(&list.names)).collect();
    let mut taken = HashSet::new();
    let mut certificates = Vec::new();
    for List { source, mut names, .. } in lists {
        if source == Source::DefaultCertificate {
            // An authority refuses a name beside a wildcard that covers it.
            let own = self::wildcards(&names).collect();
            names.retain(|name| !is_under(name, &own));
        } else {
            let is_served = |name: &Name| terms.served.contains(name) || is_under(name, terms.served);
            names.retain(|name| !taken.contains(name) && !is_under(name, &wildcards) && !is_served(name));
        }
        taken.extend(names.iter().cloned());
        let parts = names.chunks(names_at_most(terms));
        certificates.extend(parts.map(|names| Wanted { names: names.to_vec(), askers: BTreeSet::new() }));
    }
    certificates
}

fn wildcards(names: &[Name]) -> impl Iterator<Item = Name> {
    names.iter().filter(|name| matches!(name, Name::Wildcard(_))).cloned()
}

/// Whether a wildcard of these stands for the name.
fn is_under(name: &Name, wildcards: &HashSet<Name>) -> bool {
    wildcard_above(name).is_some_and(|wildcard| wildcards.contains(&wildcard))
}

fn wildcard_above(name: &Name) -> Option<Name> {
    let Name::Host(host) = name else { return None };
    let (_, parent) = host.split_once('.')?;
    Some(Name::Wildcard(parent.to_owned()))
}

/// Let's Encrypt's limits by profile; those of others are not known to be smaller.
fn names_at_most(terms: &Terms<'_>) -> usize {
    match (terms.authority, terms.profile) {
        (Authority::LetsEncrypt, SHORT_LIVED | "tlsserver") => 25,
        _ => 100,
    }
}

fn note_askers(certificates: &mut [Wanted], askers: &[(&Asker, Vec<Name>)]) {
    let names = certificates.iter().enumerate();
    let places: HashMap<Name, usize> = names
        .flat_map(|(place, certificate)| certificate.names.iter().map(move |name| (name.clone(), place)))
        .collect();
    for (asker, names) in askers {
        for name in names {
            let place = places.get(name).or_else(|| places.get(&wildcard_above(name)?));
            if let Some(certificate) = place.and_then(|place| certificates.get_mut(*place)) {
                certificate.askers.insert((*asker).clone());
            }
        }
    }
}

#[cfg(test)]
mod tests;
