//! Certificates that the entry points serve: loaded from files or PEM text, described for the API, found by SNI.
//!
//! `Store` calls it at each reload. It never opens a connection and never decides which TLS options apply.

use std::collections::hash_map;
use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use rustls::SignatureScheme;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::PrivateKeyDer;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use serde::{Serialize, Serializer};
use sha2::{Digest, Sha256};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;
use x509_parser::x509::X509Name;

use super::names::Names;
use super::pem;
use crate::config::Place;
use crate::config::routing;

/// Common name of the certificate that is served where the configuration has none.
pub const GENERATED_NAME: &str = "WEIR DEFAULT CERT";

/// What the API shows of a certificate; its key stays out.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// The names it is served for: DNS names and addresses of its SAN, or else its common name.
    pub names: Vec<String>,
    pub common_name: String,
    /// The issuer's distinguished name, such as `C=US, O=Let's Encrypt, CN=R11`.
    pub issuer: String,
    /// Hexadecimal, bytes separated by colons.
    pub serial_number: String,
    #[serde(serialize_with = "as_text")]
    pub not_before: Timestamp,
    #[serde(serialize_with = "as_text")]
    pub not_after: Timestamp,
    /// SHA-256 of the certificate's DER, hexadecimal.
    pub fingerprint: String,
    /// Where the configuration names it; none for the generated one, and for those that a resolver has obtained.
    pub place: Option<Place>,
    /// The certificates resolver that has obtained it.
    pub resolver: Option<String>,
    /// Served to clients that name no known host.
    pub default: bool,
    /// Its files are broken now, so that what they held before is still served.
    pub stale: bool,
}

/// A chain with its key, ready to be served.
#[derive(Clone, Debug)]
pub(super) struct Certificate {
    pub(super) key: Arc<CertifiedKey>,
    pub(super) summary: Summary,
    /// The options it was read from: the identity of an entry over reloads.
    pub(super) source: Option<routing::Certificate>,
    /// SHA-256 of the material: equal material is not parsed again.
    digest: [u8; 32],
}

impl Certificate {
    /// Reads chain and key; `previous` is what the same entry gave at the last reload.
    pub(super) fn load(source: &routing::Certificate, previous: Option<&Self>) -> Result<Self, String> {
        let chain = pem::read(&source.cert_file)?;
        let key = pem::read(&source.key_file)?;
        let digest = digest(&chain, &key);
        if let Some(previous) = previous.filter(|previous| previous.digest == digest) {
            return Ok(previous.clone());
        }
        let certificates = pem::certificates(&source.cert_file, &chain)?;
        let key = pem::private_key(&source.key_file, &key)?;
        let summary = summary(&certificates[0])
            .map_err(|reason| format!("{} holds no usable certificate: {reason}", pem::name(&source.cert_file)))?;
        let key = CertifiedKey::from_der(certificates, key, &aws_lc_rs::default_provider()).map_err(|error| {
            let (certificate, key) = (pem::name(&source.cert_file), pem::name(&source.key_file));
            match error {
                rustls::Error::InconsistentKeys(_) => {
                    format!("the key in {key} does not belong to the certificate in {certificate}")
                }
                error => format!("{certificate} and {key} cannot be used: {error}"),
            }
        })?;
        Ok(Self { key: Arc::new(key), summary, source: Some(source.clone()), digest })
    }

    /// A self-signed certificate, made anew at each call.
    pub(super) fn generated() -> Self {
        let key = KeyPair::generate().expect("aws-lc makes P-256 keys");
        let certificate = generated_parameters().self_signed(&key).expect("the parameters are constant but for dates");
        let der = certificate.der().clone();
        let mut summary = summary(&der).expect("rcgen writes certificates that can be parsed");
        summary.default = true;
        let private_key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let digest = digest(&der, private_key.secret_der());
        let key = CertifiedKey::from_der(vec![der], private_key, &aws_lc_rs::default_provider())
            .expect("the certificate was signed with this key");
        Self { key: Arc::new(key), summary, source: None, digest }
    }

    /// A sentence if `now` is outside the time of validity.
    pub(super) fn expiry_problem(&self, now: Timestamp) -> Option<String> {
        let names = self.summary.names.join(", ");
        if now > self.summary.not_after {
            return Some(format!("the certificate of `{names}` expired at {}", self.summary.not_after));
        }
        if now < self.summary.not_before {
            return Some(format!("the certificate of `{names}` is not valid before {}", self.summary.not_before));
        }
        None
    }
}

/// The certificates of one snapshot by name.
#[derive(Debug)]
pub(super) struct Certificates {
    /// More than one where keys of several kinds serve one name.
    by_name: Names<Vec<Arc<CertifiedKey>>>,
    default: Arc<CertifiedKey>,
}

impl Certificates {
    /// Of two certificates for one name the valid one comes first, then the one that is listed first.
    pub(super) fn new(certificates: &[Certificate], default: &Certificate, now: Timestamp) -> Self {
        let mut by_name: Names<Vec<Arc<CertifiedKey>>> = Names::default();
        let (expired, valid): (Vec<_>, Vec<_>) =
            certificates.iter().partition(|certificate| certificate.summary.not_after < now);
        for certificate in valid.into_iter().chain(expired) {
            for name in &certificate.summary.names {
                match by_name.entry(name) {
                    hash_map::Entry::Occupied(mut keys) => keys.get_mut().push(Arc::clone(&certificate.key)),
                    hash_map::Entry::Vacant(keys) => {
                        keys.insert(vec![Arc::clone(&certificate.key)]);
                    }
                }
            }
        }
        Self { by_name, default: Arc::clone(&default.key) }
    }

    fn find(&self, server_name: &str, offered: &[SignatureScheme]) -> Option<&Arc<CertifiedKey>> {
        let keys = self.by_name.find(server_name)?;
        if let [key] = keys.as_slice() {
            return Some(key);
        }
        keys.iter().find(|key| key.key.choose_scheme(offered).is_some()).or_else(|| keys.first())
    }
}

/// Picks the certificate within a handshake.
#[derive(Debug)]
pub(super) struct Resolver {
    pub(super) certificates: Arc<Certificates>,
    /// `sniStrict`: clients that name no known host are refused.
    pub(super) strict: bool,
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let known = hello.server_name().and_then(|name| self.certificates.find(name, hello.signature_schemes()));
        match known {
            Some(key) => Some(Arc::clone(key)),
            None if self.strict => None,
            None => Some(Arc::clone(&self.certificates.default)),
        }
    }
}

fn generated_parameters() -> CertificateParams {
    let mut parameters = CertificateParams::new(["localhost".to_owned()]).expect("`localhost` is a DNS name");
    parameters.distinguished_name = DistinguishedName::new();
    parameters.distinguished_name.push(DnType::CommonName, GENERATED_NAME);
    let today = Timestamp::now().to_zoned(TimeZone::UTC).date();
    let (year, month) = (i32::from(today.year()), today.month().unsigned_abs());
    // The first of a month exists in every year, and lies in the past for clients whose clock is a little late.
    parameters.not_before = rcgen::date_time_ymd(year - 1, month, 1);
    parameters.not_after = rcgen::date_time_ymd(year + 10, month, 1);
    parameters
}

fn summary(der: &[u8]) -> Result<Summary, String> {
    let (_, certificate) = X509Certificate::from_der(der).map_err(|error| error.to_string())?;
    let common_name = common_name(certificate.subject());
    let mut names = alternative_names(&certificate);
    if names.is_empty() && !common_name.is_empty() {
        names.push(common_name.to_ascii_lowercase());
    }
    let time = |time: x509_parser::time::ASN1Time| {
        Timestamp::from_second(time.timestamp()).map_err(|error| format!("its validity is out of range: {error}"))
    };
    Ok(Summary {
        names,
        common_name,
        issuer: certificate.issuer().to_string(),
        serial_number: certificate.raw_serial_as_string(),
        not_before: time(certificate.validity().not_before)?,
        not_after: time(certificate.validity().not_after)?,
        fingerprint: hexadecimal(&Sha256::digest(der)),
        place: None,
        resolver: None,
        default: false,
        stale: false,
    })
}

fn common_name(name: &X509Name<'_>) -> String {
    name.iter_common_name().find_map(|attribute| attribute.as_str().ok()).unwrap_or_default().to_owned()
}

fn alternative_names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(extension)) = certificate.subject_alternative_name() else {
        return Vec::new();
    };
    let names = extension.value.general_names.iter();
    names
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
            GeneralName::IPAddress(octets) => address(octets).map(|address| address.to_string()),
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

fn digest(chain: &[u8], key: &[u8]) -> [u8; 32] {
    // The length keeps the two parts apart.
    Sha256::new().chain_update(chain.len().to_le_bytes()).chain_update(chain).chain_update(key).finalize().into()
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn as_text<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(time)
}
