//! One certificate of `acme.json`, with its chain and key.

use std::fmt;
use std::net::IpAddr;

use jiff::Timestamp;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;
use x509_parser::time::ASN1Time;

use crate::acme::name::{Identity, Name};

/// A certificate that has been read, so that it can be served.
#[derive(Clone)]
pub(crate) struct Stored {
    /// The names under which it is kept, as they were ordered. Traefik may keep one under fewer names than it has.
    pub(crate) main: String,
    pub(crate) sans: Vec<String>,
    /// The names that it serves.
    pub(crate) names: Vec<Name>,
    /// The issuer's distinguished name.
    pub(crate) issuer: String,
    pub(crate) not_before: Timestamp,
    pub(crate) not_after: Timestamp,
    /// In PEM, the certificate itself first.
    pub(crate) chain: String,
    /// In PEM: PKCS#8, PKCS#1 or SEC1.
    pub(super) key: String,
}

impl Stored {
    /// Reads chain and key, both PEM. Whether they belong together is asked where the certificate is put to use.
    ///
    /// # Errors
    ///
    /// Words about the certificate.
    pub(crate) fn parse(main: String, sans: Vec<String>, chain: String, key: String) -> Result<Self, String> {
        let certificates = CertificateDer::pem_slice_iter(chain.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| format!("its chain is not valid PEM: {error}"))?;
        let Some(leaf) = certificates.first() else {
            return Err("its chain holds no certificate in PEM".to_owned());
        };
        PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|_| "its key cannot be read".to_owned())?;
        let (_, leaf) = X509Certificate::from_der(leaf).map_err(|error| format!("it cannot be read: {error}"))?;
        let validity = leaf.validity();
        Ok(Self {
            names: names(&leaf),
            issuer: leaf.issuer().to_string(),
            not_before: timestamp(validity.not_before)?,
            not_after: timestamp(validity.not_after)?,
            main,
            sans,
            chain,
            key,
        })
    }

    pub(crate) fn identity(&self) -> Identity {
        Identity::of_texts([&self.main].into_iter().chain(&self.sans))
    }

    /// Whether it serves all of these names.
    pub(crate) fn covers<'a>(&self, names: impl IntoIterator<Item = &'a Name>) -> bool {
        names.into_iter().all(|name| self.names.iter().any(|own| own.covers(name)))
    }

    /// In PEM: PKCS#8, PKCS#1 or SEC1. A secret.
    pub(crate) fn key_pem(&self) -> &str {
        &self.key
    }
}

/// Without the key.
impl fmt::Debug for Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stored")
            .field("main", &self.main)
            .field("sans", &self.sans)
            .field("issuer", &self.issuer)
            .field("not_before", &self.not_before)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

fn names(certificate: &X509Certificate<'_>) -> Vec<Name> {
    let Ok(Some(extension)) = certificate.subject_alternative_name() else {
        return Vec::new();
    };
    let names = extension.value.general_names.iter();
    names
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Name::parse(name).ok(),
            GeneralName::IPAddress(octets) => address(octets).map(Name::Address),
            _ => None,
        })
        .collect()
}

fn address(octets: &[u8]) -> Option<IpAddr> {
    if let Ok(octets) = <[u8; 4]>::try_from(octets) {
        return Some(octets.into());
    }
    <[u8; 16]>::try_from(octets).ok().map(IpAddr::from)
}

fn timestamp(time: ASN1Time) -> Result<Timestamp, String> {
    Timestamp::from_second(time.timestamp()).map_err(|_| "its time of validity is out of range".to_owned())
}
