//! The keys of the mock CA, and what it signs with them.

use std::time::Duration;

use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, KeyPair, KeyUsagePurpose, PublicKeyData,
    SerialNumber, SignatureAlgorithm,
};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::PrivatePkcs8KeyDer;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer;

use super::super::key::alternative_name;

pub(super) struct Issuer {
    /// Of the CA's own server.
    tls_root: String,
    key: KeyPair,
    params: CertificateParams,
    roots: Vec<(KeyPair, CertificateParams)>,
}

/// What a request for a certificate says.
pub(super) struct Csr {
    pub(super) names: Vec<String>,
    pub(super) common_name: Option<String>,
    key: PublicKey,
}

impl Issuer {
    pub(super) const CHAINS: usize = 4;

    /// With certificate and key of the CA's server.
    pub(super) fn new() -> (Self, rustls::pki_types::CertificateDer<'static>, PrivateKeyDer<'static>) {
        let (tls_key, tls_params) = authority("mock tls root");
        let tls_root = tls_params.self_signed(&tls_key).expect("a root").pem();
        let server_key = KeyPair::generate().expect("a key");
        let names = CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]).expect("names");
        let server = names
            .signed_by(&server_key, &rcgen::Issuer::from_params(&tls_params, &tls_key))
            .expect("a certificate of the server");
        let (key, params) = authority("mock intermediate");
        let roots = (0..Self::CHAINS).map(|n| authority(&format!("mock root {n}"))).collect();
        let server_key = PrivatePkcs8KeyDer::from(server_key.serialize_der()).into();
        (Self { tls_root, key, params, roots }, server.der().clone(), server_key)
    }

    pub(super) fn root_pem(&self) -> &str {
        &self.tls_root
    }

    /// One chain for each root.
    pub(super) fn issue(
        &self,
        csr: &Csr,
        names: &[String],
        serial: u64,
        from: Timestamp,
        validity: Duration,
    ) -> Vec<String> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        if let Some(name) = &csr.common_name {
            params.distinguished_name.push(DnType::CommonName, name.clone());
        }
        params.subject_alt_names = names.iter().map(|name| alternative_name(name).expect("a name")).collect();
        let from = u64::try_from(from.as_second()).expect("a time after 1970");
        params.not_before = rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(from);
        params.not_after = params.not_before + validity;
        params.serial_number = Some(SerialNumber::from(serial));
        params.use_authority_key_identifier_extension = true;
        let issuer = rcgen::Issuer::from_params(&self.params, &self.key);
        let certificate = params.signed_by(&csr.key, &issuer).expect("a certificate").pem();
        let chain = |(key, params): &(KeyPair, CertificateParams)| {
            let root = rcgen::Issuer::from_params(params, key);
            let intermediate = self.params.signed_by(&self.key, &root).expect("an intermediate");
            format!("{certificate}{}", intermediate.pem())
        };
        self.roots.iter().map(chain).collect()
    }
}

impl Csr {
    pub(super) fn parse(der: &[u8]) -> Option<Self> {
        let (_, request) = X509CertificationRequest::from_der(der).ok()?;
        let info = &request.certification_request_info;
        let names = request.requested_extensions()?.find_map(|extension| match extension {
            ParsedExtension::SubjectAlternativeName(names) => {
                Some(names.general_names.iter().filter_map(name).collect())
            }
            _ => None,
        })?;
        let common_name = info.subject.iter_common_name().next().and_then(|name| Some(name.as_str().ok()?.to_owned()));
        let algorithm = match info.subject_pki.algorithm.algorithm.to_id_string().as_str() {
            "1.2.840.113549.1.1.1" => &rcgen::PKCS_RSA_SHA256,
            _ if info.subject_pki.subject_public_key.data.len() == 97 => &rcgen::PKCS_ECDSA_P384_SHA384,
            _ => &rcgen::PKCS_ECDSA_P256_SHA256,
        };
        let bytes = info.subject_pki.subject_public_key.data.to_vec();
        Some(Self { names, common_name, key: PublicKey { algorithm, bytes } })
    }

    pub(super) fn of_another_key(self) -> Self {
        let key = KeyPair::generate().expect("a key");
        let key = PublicKey { algorithm: &rcgen::PKCS_ECDSA_P256_SHA256, bytes: key.public_key_raw().to_vec() };
        Self { key, ..self }
    }
}

struct PublicKey {
    algorithm: &'static SignatureAlgorithm,
    bytes: Vec<u8>,
}

impl PublicKeyData for PublicKey {
    fn der_bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        self.algorithm
    }
}

fn authority(name: &str) -> (KeyPair, CertificateParams) {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    (KeyPair::generate().expect("a key"), params)
}

fn name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => {
            let v4 = <[u8; 4]>::try_from(*bytes).map(|bytes| std::net::Ipv4Addr::from(bytes).to_string());
            let v6 = || <[u8; 16]>::try_from(*bytes).map(|bytes| std::net::Ipv6Addr::from(bytes).to_string());
            v4.or_else(|_| v6()).ok()
        }
        _ => None,
    }
}
