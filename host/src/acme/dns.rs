//! What must be known of the DNS to prove control of a domain by a record: the name and the zone it belongs in, and who
//! can see it already.
//!
//! `dns01` asks. Nothing is written here but by `rfc2136`, the one provider that is no component.

mod address;
mod exchange;
mod rfc2136;
#[cfg(test)]
#[expect(dead_code, unreachable_pub, reason = "tests of the whole proxy include the file too")]
pub(super) mod server;
#[cfg(test)]
mod tests;
mod tsig;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use jiff::Timestamp;
use tokio::task::JoinSet;

use self::address::Address;
use self::exchange::{Transport, Trouble};

pub(crate) use self::rfc2136::{Rfc2136, UpdateError};

/// CNAMEs in a row, as many as lego follows.
const ALIASES: usize = 50;
/// A zone is not asked for its name servers one by one where there are more of them than anybody has.
const NAME_SERVERS: usize = 32;
/// A zone may be cut anew: what the SOA says is not trusted for longer than this.
const REMEMBERED: Duration = Duration::from_secs(3600);

/// How names are looked up.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// `dnsChallenge.resolvers`: `host[:port]` of recursive servers. None: the system's.
    pub resolvers: Vec<String>,
    /// Not with `LEGO_DISABLE_CNAME_SUPPORT`.
    pub follow_cnames: bool,
    /// `LEGO_EXPERIMENTAL_DNS_TCP_ONLY`.
    pub tcp_only: bool,
    /// For each question; several resolvers share it.
    pub timeout: Duration,
    /// Of authoritative servers.
    pub port: u16,
}

pub(crate) struct Dns {
    resolvers: Vec<Address>,
    follow_cnames: bool,
    transport: Transport,
    port: u16,
    /// By the name of a record, until when.
    zones: Mutex<HashMap<Name, (Name, Timestamp)>>,
}

/// Where the record of a domain belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Absolute, in lower case, CNAMEs followed.
    pub fqdn: String,
    /// That holds it: absolute, in lower case.
    pub zone: String,
}

/// Who must see a record before the authority is asked to look for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Checks {
    /// The name servers of its zone.
    pub authoritative: bool,
    /// Each of the resolvers.
    pub recursive: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Visible {
    Yes,
    NotYet(Absence),
}

/// Who does not show the record, in words.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Absence {
    pub lacking: Vec<String>,
    pub unreachable: Vec<String>,
}

/// One name server's view.
enum View {
    Has,
    Lacks(String),
    /// It cannot be asked, or does not serve the zone.
    Lame(String),
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            resolvers: Vec::new(),
            follow_cnames: true,
            tcp_only: false,
            timeout: Duration::from_secs(10),
            port: address::PORT,
        }
    }
}

impl Dns {
    pub(crate) fn new(settings: &Settings) -> anyhow::Result<Self> {
        Ok(Self {
            resolvers: address::resolvers(&settings.resolvers).context("failed to read `dnsChallenge.resolvers`")?,
            follow_cnames: settings.follow_cnames,
            transport: Transport { timeout: settings.timeout, tcp_only: settings.tcp_only },
            port: settings.port,
            zones: Mutex::default(),
        })
    }

    /// Where the record that proves control of `domain` belongs (RFC 8555, section 8.4).
    pub(crate) async fn place(&self, domain: &str, now: Timestamp) -> anyhow::Result<Place> {
        let name = parse(&format!("_acme-challenge.{}.", domain.trim_end_matches('.')))?;
        let name = if self.follow_cnames { self.follow(name).await? } else { name };
        let zone = self.zone(&name, now).await?;
        Ok(Place { fqdn: name.to_ascii(), zone: zone.to_ascii() })
    }

    /// Whether all that `checks` names show the record. Resolvers are asked last: one that is asked too early remembers
    /// for long that there is none.
    pub(crate) async fn is_visible(&self, place: &Place, value: &str, checks: Checks) -> anyhow::Result<Visible> {
        let name = parse(&place.fqdn)?;
        if checks.authoritative {
            let visible = self.is_authoritative(&name, &parse(&place.zone)?, value).await?;
            if visible != Visible::Yes {
                return Ok(visible);
            }
        }
        if checks.recursive {
            return Ok(self.is_recursive(&name, value).await);
        }
        Ok(Visible::Yes)
    }

    async fn follow(&self, mut name: Name) -> anyhow::Result<Name> {
        let first = name.clone();
        let mut seen = HashSet::from([name.clone()]);
        while let Some(target) = self.cname(&name).await? {
            name = target;
            if !seen.insert(name.clone()) {
                bail!("the CNAME records of `{first}` lead in a circle, by `{name}`");
            }
            if seen.len() > ALIASES {
                bail!("more than {ALIASES} CNAME records follow each other at `{first}`");
            }
        }
        Ok(name)
    }

    async fn cname(&self, name: &Name) -> anyhow::Result<Option<Name>> {
        let reply = self.resolve(name, RecordType::CNAME).await?;
        Ok(reply.answers.iter().find_map(|record| match &record.data {
            RData::CNAME(target) if record.name == *name => Some(target.0.to_lowercase()),
            _ => None,
        }))
    }

    /// The nearest name above that has a SOA record, itself included.
    async fn zone(&self, name: &Name, now: Timestamp) -> anyhow::Result<Name> {
        if let Some(zone) = self.remembered(name, now) {
            return Ok(zone);
        }
        let mut candidate = name.clone();
        while !candidate.is_root() {
            let reply = self.resolve(&candidate, RecordType::SOA).await?;
            // What a CNAME leads to is another name's zone.
            let is_alias = reply.answers.iter().any(|record| record.record_type() == RecordType::CNAME);
            let refresh = reply.answers.iter().find_map(|record| match &record.data {
                RData::SOA(soa) if record.name == candidate => Some(soa.refresh),
                _ => None,
            });
            if let (false, Some(refresh)) = (is_alias, refresh) {
                self.remember(name, &candidate, refresh, now);
                return Ok(candidate);
            }
            candidate = candidate.base_name();
        }
        bail!("no zone holds `{name}`: none of the names above has a SOA record")
    }

    fn remembered(&self, name: &Name, now: Timestamp) -> Option<Name> {
        let zones = self.zones.lock().unwrap_or_else(PoisonError::into_inner);
        zones.get(name).filter(|(_, until)| now < *until).map(|(zone, _)| zone.clone())
    }

    fn remember(&self, name: &Name, zone: &Name, refresh: i32, now: Timestamp) {
        let refresh = Duration::from_secs(u64::try_from(refresh).unwrap_or(0)).min(REMEMBERED);
        let mut zones = self.zones.lock().unwrap_or_else(PoisonError::into_inner);
        zones.retain(|_, (_, until)| now < *until);
        zones.insert(name.clone(), (zone.clone(), now + refresh));
    }

    /// The first resolver's answer that is not empty, else the first answer: one of several may know a zone of which the
    /// others have never heard.
    async fn resolve(&self, name: &Name, kind: RecordType) -> anyhow::Result<Message> {
        let mut nothing = None;
        let mut troubles = Vec::new();
        for resolver in &self.resolvers {
            match self.ask_resolver(resolver, name, kind).await {
                Ok(reply) if !is_answer(&reply) => {
                    troubles.push(format!("`{resolver}` answers {}", mnemonic(reply.metadata.response_code)));
                }
                Ok(reply) if reply.answers.is_empty() => nothing = nothing.or(Some(reply)),
                Ok(reply) => return Ok(reply),
                Err(trouble) => troubles.push(format!("`{resolver}` {trouble}")),
            }
        }
        nothing.ok_or_else(|| {
            let troubles = troubles.join(", ");
            anyhow!(
                "failed to look up {kind} of `{name}`: {troubles} (`dnsChallenge.resolvers` can name other resolvers)"
            )
        })
    }

    async fn ask_resolver(&self, resolver: &Address, name: &Name, kind: RecordType) -> Result<Message, Trouble> {
        let share = self.transport.timeout / u32::try_from(self.resolvers.len()).unwrap_or(u32::MAX);
        let transport = Transport { timeout: share, ..self.transport };
        let mut trouble = Trouble::Malformed("has no address");
        for address in resolver.resolve().await? {
            match transport.ask(address, name, kind, true).await {
                Ok(reply) => return Ok(reply),
                Err(error) => trouble = error,
            }
        }
        Err(trouble)
    }

    /// Servers that do not serve the zone, or not to us, are left out as long as one shows the record: the authority
    /// has to get along without them too.
    async fn is_authoritative(&self, name: &Name, zone: &Name, value: &str) -> anyhow::Result<Visible> {
        let servers = self.name_servers(zone).await?;
        if servers.is_empty() {
            return Ok(Visible::NotYet(Absence::lacking(format!("`{zone}` has no name servers"))));
        }
        let mut views = JoinSet::new();
        for (server, addresses) in servers {
            let (transport, name, value) = (self.transport, name.clone(), value.to_owned());
            views.spawn(async move { view(transport, &server.to_string(), &addresses, &name, &value, false).await });
        }
        let mut has = 0;
        let mut absence = Absence::default();
        for view in views.join_all().await {
            match view {
                View::Has => has += 1,
                View::Lacks(what) => absence.lacking.push(what),
                View::Lame(what) => absence.unreachable.push(what),
            }
        }
        if has > 0 && absence.lacking.is_empty() {
            return Ok(Visible::Yes);
        }
        Ok(Visible::NotYet(absence.sorted()))
    }

    async fn is_recursive(&self, name: &Name, value: &str) -> Visible {
        let mut absence = Absence::default();
        for resolver in &self.resolvers {
            let addresses = resolver.resolve().await.unwrap_or_default();
            match view(self.transport, &resolver.to_string(), &addresses, name, value, true).await {
                View::Has => {}
                View::Lacks(what) => absence.lacking.push(what),
                View::Lame(what) => absence.unreachable.push(what),
            }
        }
        if absence == Absence::default() { Visible::Yes } else { Visible::NotYet(absence) }
    }

    async fn name_servers(&self, zone: &Name) -> anyhow::Result<Vec<(Name, Vec<SocketAddr>)>> {
        let reply = self.resolve(zone, RecordType::NS).await?;
        let names = reply.answers.iter().filter_map(|record| match &record.data {
            RData::NS(server) if record.name == *zone => Some(server.0.to_lowercase()),
            _ => None,
        });
        let mut servers = Vec::new();
        for name in names.take(NAME_SERVERS) {
            let mut addresses = self.addresses(&name, RecordType::A).await;
            addresses.extend(self.addresses(&name, RecordType::AAAA).await);
            servers.push((name, addresses));
        }
        Ok(servers)
    }

    /// None where they cannot be found out, which is not the end: there are other servers.
    async fn addresses(&self, server: &Name, kind: RecordType) -> Vec<SocketAddr> {
        let Ok(reply) = self.resolve(server, kind).await else {
            return Vec::new();
        };
        let addresses = reply.answers.iter().filter_map(|record| record.data.ip_addr());
        addresses.map(|address| SocketAddr::new(address, self.port)).collect()
    }
}

impl Absence {
    fn lacking(what: String) -> Self {
        Self { lacking: vec![what], unreachable: Vec::new() }
    }

    /// So that the same absence has the same words, whoever answered first.
    fn sorted(mut self) -> Self {
        self.lacking.sort_unstable();
        self.unreachable.sort_unstable();
        self
    }
}

impl fmt::Display for Absence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: Vec<_> = self.lacking.iter().chain(&self.unreachable).map(String::as_str).collect();
        f.write_str(&all.join(", "))
    }
}

fn parse(name: &str) -> anyhow::Result<Name> {
    let name = Name::from_str_relaxed(name).with_context(|| format!("`{name}` is not a name of the DNS"))?;
    Ok(name.to_lowercase())
}

/// That there is no such name is an answer too.
fn is_answer(reply: &Message) -> bool {
    matches!(reply.metadata.response_code, ResponseCode::NoError | ResponseCode::NXDomain)
}

/// As other tools write it.
fn mnemonic(code: ResponseCode) -> String {
    match code {
        ResponseCode::FormErr => "FORMERR".to_owned(),
        ResponseCode::NotAuth => "NOTAUTH".to_owned(),
        ResponseCode::NotImp => "NOTIMP".to_owned(),
        ResponseCode::NXDomain => "NXDOMAIN".to_owned(),
        ResponseCode::Refused => "REFUSED".to_owned(),
        ResponseCode::ServFail => "SERVFAIL".to_owned(),
        code => format!("with code {}", u16::from(code)),
    }
}

async fn view(
    transport: Transport,
    server: &str,
    addresses: &[SocketAddr],
    name: &Name,
    value: &str,
    recursion_desired: bool,
) -> View {
    let mut why = "has no address".to_owned();
    for &address in addresses {
        match transport.ask(address, name, RecordType::TXT, recursion_desired).await {
            Err(trouble) => why = trouble.to_string(),
            Ok(reply) if !is_answer(&reply) => why = format!("answers {}", mnemonic(reply.metadata.response_code)),
            // It points to others instead.
            Ok(reply) if !recursion_desired && !reply.metadata.authoritative && reply.answers.is_empty() => {
                "does not serve the zone".clone_into(&mut why);
            }
            Ok(reply) if reply.answers.iter().any(|record| is_text(record, value)) => return View::Has,
            Ok(reply) => {
                let others = reply.answers.iter().filter(|record| record.record_type() == RecordType::TXT).count();
                let others = if others == 0 { String::new() } else { format!(", but {others} other") };
                return View::Lacks(format!("`{server}` does not have it{others}"));
            }
        }
    }
    View::Lame(format!("`{server}` {why}"))
}

/// A text longer than 255 bytes comes in several strings.
fn is_text(record: &Record, value: &str) -> bool {
    matches!(&record.data, RData::TXT(text) if text.txt_data.concat() == value.as_bytes())
}
