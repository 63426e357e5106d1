//! Proof of control of a name: what a challenge asks for, and the answers that wait for a CA to come.
//!
//! `order` presents and cleans up; entry points look answers up, for HTTP-01 by the token in a request's path, for
//! TLS-ALPN-01 by the server name of a handshake. Answers that wait for nobody go away with the order.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use instant_acme::ChallengeType;
use jiff::Timestamp;
use rcgen::{CertificateParams, CustomExtension, DistinguishedName, KeyPair};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::sign::CertifiedKey;

use super::Clock;
use super::dns01::{self, Dns01, Record};
use super::failure::{Failure, Kind};
use super::key::alternative_name;

/// How control of names is proved.
#[derive(Clone)]
pub(crate) enum Solver {
    /// RFC 8555, section 8.3.
    Http01 { answers: Answers, delay: Duration },
    /// RFC 8737.
    TlsAlpn01 { answers: Answers, delay: Duration },
    /// RFC 8555, section 8.4.
    Dns01(Arc<Dns01>),
}

/// What a CA will look for.
pub(crate) struct Challenge {
    /// A wildcard's without its `*.`; or an IP address.
    pub domain: String,
    pub token: String,
    pub key_authorization: String,
    /// Of the key authorization, by SHA-256.
    pub digest: Vec<u8>,
    /// The same for a TXT record.
    pub value: String,
}

/// An answer that is there, until it is cleaned up.
pub(crate) enum Presented {
    Answer(#[expect(dead_code, reason = "it is there to be dropped")] Answer),
    Record(Box<Record>),
}

/// All answers that this process gives. Clones are the same.
#[derive(Clone, Default)]
pub struct Answers(Arc<Lists>);

/// Gone from the list when dropped.
pub(crate) struct Answer {
    lists: Arc<Lists>,
    id: u64,
}

impl Solver {
    pub(crate) fn kind(&self) -> ChallengeType {
        match self {
            Self::Http01 { .. } => ChallengeType::Http01,
            Self::TlsAlpn01 { .. } => ChallengeType::TlsAlpn01,
            Self::Dns01(_) => ChallengeType::Dns01,
        }
    }

    /// Whether one name is to be proved after the other.
    pub(crate) fn is_sequential(&self) -> bool {
        match self {
            Self::Http01 { .. } | Self::TlsAlpn01 { .. } => false,
            Self::Dns01(dns01) => dns01.is_sequential(),
        }
    }

    pub(crate) async fn present(&self, challenge: &Challenge) -> Result<Presented, Failure> {
        match self {
            Self::Http01 { answers, .. } => Ok(Presented::Answer(answers.add_http(challenge))),
            Self::TlsAlpn01 { answers, .. } => answers.add_tls_alpn(challenge).map(Presented::Answer),
            Self::Dns01(dns01) => {
                let Challenge { domain, token, key_authorization, value, .. } = challenge;
                let record = dns01.present(domain, token, key_authorization, value).await;
                record
                    .map(|record| Presented::Record(Box::new(record)))
                    .map_err(|failure| presentation(failure, dns01.clock.now()))
            }
        }
    }

    /// Waits until the CA will find the answers.
    pub(crate) async fn settle(&self, presented: &[Presented], clock: &Clock) -> Result<(), Failure> {
        match self {
            Self::Http01 { delay, .. } | Self::TlsAlpn01 { delay, .. } if !presented.is_empty() => {
                clock.sleep(*delay).await;
            }
            Self::Http01 { .. } | Self::TlsAlpn01 { .. } => {}
            Self::Dns01(dns01) => {
                let records: Vec<&Record> = presented.iter().filter_map(Presented::record).collect();
                dns01.wait(&records).await.map_err(|failure| presentation(failure, clock.now()))?;
            }
        }
        Ok(())
    }

    pub(crate) async fn cleanup(&self, presented: Presented) {
        match (self, presented) {
            (Self::Dns01(dns01), Presented::Record(record)) => dns01.cleanup(*record).await,
            (_, presented) => drop(presented),
        }
    }
}

impl Presented {
    fn record(&self) -> Option<&Record> {
        match self {
            Self::Record(record) => Some(record),
            Self::Answer(_) => None,
        }
    }
}

impl Answers {
    /// The key authorization, for `/.well-known/acme-challenge/<token>` at this host, which may have a port.
    pub fn http(&self, token: &str, host: &str) -> Option<String> {
        let host = without_port(host);
        let list = self.0.http.load();
        let mut answers = list.values().filter(|answer| answer.token == token);
        answers.find(|answer| answer.host.eq_ignore_ascii_case(host)).map(|answer| answer.key_authorization.clone())
    }

    /// The certificate for a handshake that offers `acme-tls/1`.
    pub fn tls_alpn(&self, server_name: &str) -> Option<Arc<CertifiedKey>> {
        let list = self.0.tls_alpn.load();
        let answers = list.iter().filter(|(_, answer)| answer.server_name.eq_ignore_ascii_case(server_name));
        // Of two orders for a name, the CA has been told last of the later one.
        answers.max_by_key(|(id, _)| **id).map(|(_, answer)| Arc::clone(&answer.certificate))
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.0.http.load().is_empty() && self.0.tls_alpn.load().is_empty()
    }

    fn add_http(&self, challenge: &Challenge) -> Answer {
        let answer = Arc::new(Http {
            token: challenge.token.clone(),
            host: challenge.domain.clone(),
            key_authorization: challenge.key_authorization.clone(),
        });
        let id = self.0.next_id();
        change(&self.0.http, |list| list.insert(id, Arc::clone(&answer)));
        Answer { lists: Arc::clone(&self.0), id }
    }

    fn add_tls_alpn(&self, challenge: &Challenge) -> Result<Answer, Failure> {
        let certificate = certificate(challenge).map_err(|error| {
            Failure::new(
                Kind::Presentation,
                format!("no certificate for TLS-ALPN-01 of `{}`: {error}", challenge.domain),
            )
        })?;
        let answer =
            Arc::new(TlsAlpn { server_name: server_name(&challenge.domain), certificate: Arc::new(certificate) });
        let id = self.0.next_id();
        change(&self.0.tls_alpn, |list| list.insert(id, Arc::clone(&answer)));
        Ok(Answer { lists: Arc::clone(&self.0), id })
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        change(&self.lists.http, |list| list.remove(&self.id));
        change(&self.lists.tls_alpn, |list| list.remove(&self.id));
    }
}

fn presentation(failure: dns01::Failure, now: Timestamp) -> Failure {
    let retry_after = failure.retry_after.and_then(|wait| now.checked_add(wait).ok());
    Failure { retry_after, ..Failure::new(Kind::Presentation, failure.message) }
}

/// Copied when they change, so that entry points look without waiting.
#[derive(Default)]
struct Lists {
    next: AtomicU64,
    http: ArcSwap<HashMap<u64, Arc<Http>>>,
    tls_alpn: ArcSwap<HashMap<u64, Arc<TlsAlpn>>>,
}

struct Http {
    token: String,
    host: String,
    key_authorization: String,
}

struct TlsAlpn {
    server_name: String,
    certificate: Arc<CertifiedKey>,
}

impl Lists {
    fn next_id(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }
}

fn change<T, R>(list: &ArcSwap<HashMap<u64, Arc<T>>>, edit: impl Fn(&mut HashMap<u64, Arc<T>>) -> R) {
    list.rcu(|list| {
        let mut list = HashMap::clone(list);
        edit(&mut list);
        list
    });
}

/// The certificate that answers (RFC 8737, section 3; for addresses RFC 8738, section 4).
fn certificate(challenge: &Challenge) -> anyhow::Result<CertifiedKey> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = vec![alternative_name(&challenge.domain)?];
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(&challenge.digest)];
    let certificate = params.self_signed(&key)?;
    let key = aws_lc_rs::sign::any_supported_type(&PrivatePkcs8KeyDer::from(key.serialize_der()).into())?;
    Ok(CertifiedKey::new(vec![certificate.der().clone()], key))
}

/// An address has no place in SNI, so that its reverse name stands for it (RFC 8738, section 6).
fn server_name(domain: &str) -> String {
    match domain.parse::<IpAddr>() {
        Ok(IpAddr::V4(address)) => {
            let [a, b, c, d] = address.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa")
        }
        Ok(IpAddr::V6(address)) => {
            let nibbles = address.octets().into_iter().rev().flat_map(|byte| [byte & 15, byte >> 4]);
            nibbles.map(|nibble| format!("{nibble:x}.")).chain(["ip6.arpa".to_owned()]).collect()
        }
        Err(_) => domain.to_owned(),
    }
}

fn without_port(host: &str) -> &str {
    match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use x509_parser::oid_registry::asn1_rs::oid;
    use x509_parser::prelude::{FromDer, X509Certificate};

    use super::*;

    #[test]
    fn an_answer_is_given_for_its_token_and_host_until_it_is_dropped() {
        let answers = Answers::default();
        let answer = answers.add_http(&challenge("a.example"));
        let other = answers.add_http(&challenge("2001:db8::1"));
        let expected = Some("token.thumbprint".to_owned());
        for host in ["a.example", "A.example", "a.example:80", "[2001:db8::1]", "[2001:db8::1]:8080"] {
            assert_eq!(answers.http("token", host), expected, "{host}");
        }
        for (token, host) in [("token", "b.example"), ("toke", "a.example"), ("", "a.example"), ("token", "")] {
            assert_eq!(answers.http(token, host), None, "{token} {host}");
        }
        drop(answer);
        assert_eq!(answers.http("token", "a.example"), None);
        assert!(!answers.is_empty());
        drop(other);
        assert!(answers.is_empty());
    }

    #[test]
    fn a_handshake_gets_the_certificate_of_its_name() {
        let answers = Answers::default();
        let first = answers.add_tls_alpn(&challenge("a.example")).expect("a certificate");
        let served = answers.tls_alpn("A.EXAMPLE").expect("a certificate");
        let (_, parsed) = X509Certificate::from_der(&served.cert[0]).expect("a certificate");
        let extension = parsed.get_extension_unique(&oid!(1.3.6.1.5.5.7.1.31)).expect("one").expect("acmeIdentifier");
        assert!(extension.critical);
        assert_eq!(extension.value, [&[4, 32][..], &[7; 32]].concat());
        let names = parsed.subject_alternative_name().expect("names").expect("names");
        assert_eq!(names.value.general_names.len(), 1);
        assert!(answers.tls_alpn("b.example").is_none());

        let second = answers.add_tls_alpn(&challenge("a.example")).expect("a certificate");
        assert_ne!(answers.tls_alpn("a.example").expect("the later one").cert, served.cert);
        drop(second);
        assert_eq!(answers.tls_alpn("a.example").expect("the earlier one").cert, served.cert);
        drop(first);
        assert!(answers.tls_alpn("a.example").is_none());
    }

    #[test]
    fn an_address_is_asked_for_by_its_reverse_name() {
        let answers = Answers::default();
        let table = [
            ("192.0.2.1", "1.2.0.192.in-addr.arpa"),
            ("2001:db8::1", "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa"),
        ];
        for (address, server_name) in table {
            let _answer = answers.add_tls_alpn(&challenge(address)).expect("a certificate");
            assert!(answers.tls_alpn(server_name).is_some(), "{address}");
            assert!(answers.tls_alpn(address).is_none(), "{address}");
        }
    }

    fn challenge(domain: &str) -> Challenge {
        Challenge {
            domain: domain.to_owned(),
            token: "token".to_owned(),
            key_authorization: "token.thumbprint".to_owned(),
            digest: vec![7; 32],
            value: String::new(),
        }
    }
}
