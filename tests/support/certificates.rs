//! Certificates made for one test.

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::folder::Folder;

/// A certificate and its key.
pub(crate) struct Identity {
    pub(crate) certificate: rcgen::Certificate,
    key: KeyPair,
}

/// Signs certificates.
pub(crate) struct Authority {
    pub(crate) pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Identity {
    /// Signed by itself. The first host is the common name too.
    pub(crate) fn self_signed(hosts: &[&str]) -> Self {
        let key = KeyPair::generate().expect("a key");
        let certificate = parameters(hosts).self_signed(&key).expect("a certificate");
        Self { certificate, key }
    }

    /// As rustls takes it.
    pub(crate) fn der(&self) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let key = PrivateKeyDer::try_from(self.key.serialize_der()).expect("a key");
        (vec![self.certificate.der().clone()], key)
    }

    /// Writes `<name>.crt` and `<name>.key`.
    pub(crate) fn write(&self, folder: &Folder, name: &str) {
        folder.write(&format!("{name}.key"), self.key.serialize_pem());
        folder.write(&format!("{name}.crt"), self.certificate.pem());
    }
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut parameters = parameters(&[]);
        parameters.distinguished_name.push(DnType::CommonName, name);
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = parameters.self_signed(&key).expect("a certificate").pem();
        Self { pem, issuer: Issuer::new(parameters, key) }
    }

    /// As rustls takes it.
    pub(crate) fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        let certificate = CertificateDer::from_pem_slice(self.pem.as_bytes()).expect("a certificate");
        roots.add(certificate).expect("an authority");
        roots
    }

    pub(crate) fn sign(&self, hosts: &[&str]) -> Identity {
        self.sign_with(parameters(hosts))
    }

    /// A certificate that nobody may trust any more.
    pub(crate) fn sign_expired(&self, hosts: &[&str]) -> Identity {
        let mut parameters = parameters(hosts);
        parameters.not_before = date_time_ymd(2001, 1, 1);
        parameters.not_after = date_time_ymd(2002, 1, 1);
        self.sign_with(parameters)
    }

    fn sign_with(&self, parameters: CertificateParams) -> Identity {
        let key = KeyPair::generate().expect("a key");
        let certificate = parameters.signed_by(&key, &self.issuer).expect("a certificate");
        Identity { certificate, key }
    }
}

fn parameters(hosts: &[&str]) -> CertificateParams {
    let names: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
    let mut parameters = CertificateParams::new(names).expect("good names");
    if let Some(first) = hosts.first() {
        parameters.distinguished_name.push(DnType::CommonName, *first);
    }
    parameters
}
