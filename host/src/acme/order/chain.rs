//! The chain of certificates that a CA has issued: which one of several, and whether it is what was asked for.

use std::net::IpAddr;
use std::ops::Range;

use instant_acme::Account;
use jiff::Timestamp;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;
use x509_parser::x509::X509Name;

use crate::acme::failure::{Failure, Kind};
use crate::acme::session::Session;

/// At least one certificate, the one that was asked for first.
pub(super) struct Chain {
    pem: String,
    certificates: Vec<CertificateDer<'static>>,
}

/// The chain whose last certificate `preferred` has issued, among those that the CA offers; else the one at hand.
pub(super) async fn prefer(
    session: &Session,
    account: &Account,
    chain: Chain,
    alternates: &[String],
    preferred: &str,
    warnings: &mut Vec<String>,
) -> Chain {
    // Let's Encrypt has three.
    const AT_MOST: usize = 8;
    let mut offered = vec![chain.root_name()];
    if offered[0] == preferred {
        return chain;
    }
    for url in alternates.iter().take(AT_MOST) {
        // The library reads every answer as an order. What it cannot read is still the session's last exchange.
        let _ = account.order(url.clone()).await;
        let last = session.last();
        let pem = String::from_utf8(last.body.to_vec()).ok().filter(|_| last.is_success());
        let Some(alternate) = pem.and_then(|pem| Chain::parse(pem).ok()) else {
            warnings.push(format!("another chain of the CA cannot be read at `{url}`"));
            continue;
        };
        let name = alternate.root_name();
        if name == preferred {
            return alternate;
        }
        offered.push(name);
    }
    let offered = offered.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    warnings.push(format!("`preferredChain` `{preferred}` is not offered, but {offered}: the first is used"));
    chain
}

/// The certificate of a chain in PEM, without what follows it.
pub(super) fn first(pem: &str) -> Option<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(pem.as_bytes()).next()?.ok()
}

impl Chain {
    pub(super) fn parse(pem: String) -> Result<Self, Failure> {
        let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
        let certificates =
            certificates.map_err(|error| wrong(&format!("what the CA has issued is no PEM: {error}")))?;
        if certificates.is_empty() {
            return Err(wrong("the CA has issued no certificate"));
        }
        for certificate in &certificates {
            parse(certificate)?;
        }
        Ok(Self { pem, certificates })
    }

    /// That it belongs to the key, has the names, and that each certificate's issuer comes next. Its validity.
    pub(super) fn verify(&self, key: &[u8], names: &[String], now: Timestamp) -> Result<Range<Timestamp>, Failure> {
        let leaf = parse(&self.certificates[0])?;
        if leaf.public_key().raw != key {
            return Err(wrong("the CA's certificate belongs to another key"));
        }
        let missing: Vec<_> =
            names.iter().filter(|name| !has_name(&leaf, name)).map(|name| format!("`{name}`")).collect();
        if !missing.is_empty() {
            return Err(wrong(&format!("the CA's certificate lacks {}", missing.join(", "))));
        }
        for pair in self.certificates.windows(2) {
            if parse(&pair[0])?.issuer().as_raw() != parse(&pair[1])?.subject().as_raw() {
                return Err(wrong("the CA's certificates are no chain"));
            }
        }
        let [start, end] = [leaf.validity().not_before, leaf.validity().not_after].map(|time| time.timestamp());
        let (Ok(start), Ok(end)) = (Timestamp::from_second(start), Timestamp::from_second(end)) else {
            return Err(wrong("the CA's certificate has no proper validity"));
        };
        if end <= now {
            return Err(
                wrong(&format!("the CA's certificate has expired at {end}")).help("is this machine's clock right?")
            );
        }
        Ok(start..end)
    }

    pub(super) fn issuer(&self) -> Result<String, Failure> {
        Ok(common_name(parse(&self.certificates[0])?.issuer()))
    }

    pub(super) fn into_pem(self) -> String {
        self.pem
    }

    /// Who has issued the last certificate.
    pub(super) fn root_name(&self) -> String {
        let last = self.certificates.last().and_then(|last| parse(last).ok());
        last.map(|last| common_name(last.issuer())).unwrap_or_default()
    }
}

fn parse<'a>(certificate: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, Failure> {
    let parsed = X509Certificate::from_der(certificate);
    parsed
        .map(|(_, parsed)| parsed)
        .map_err(|error| wrong(&format!("what the CA has issued is no certificate: {error}")))
}

fn has_name(certificate: &X509Certificate<'_>, name: &str) -> bool {
    let Ok(Some(names)) = certificate.subject_alternative_name() else {
        return false;
    };
    let address = name.parse::<IpAddr>().ok().map(|address| match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    });
    names.value.general_names.iter().any(|found| match found {
        GeneralName::DNSName(found) => found.eq_ignore_ascii_case(name),
        GeneralName::IPAddress(found) => address.as_deref() == Some(*found),
        _ => false,
    })
}

fn common_name(name: &X509Name<'_>) -> String {
    let common_name = name.iter_common_name().next().and_then(|name| name.as_str().ok());
    common_name.map_or_else(|| name.to_string(), str::to_owned)
}

fn wrong(message: &str) -> Failure {
    Failure::new(Kind::Certificate, message)
}
