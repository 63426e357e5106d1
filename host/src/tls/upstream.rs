//! A `serversTransport` → the TLS configuration for connections to servers.
//!
//! `service` calls it when a transport is new or changed. It never connects; the name that a server must prove is the
//! caller's choice.

use std::sync::{Arc, OnceLock};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, verify_server_name};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use super::pem::{self, Authorities};
use crate::config::routing::{Certificate, ServersTransport};

/// The protocols to offer to a server (RFC 7301).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alpn {
    /// HTTP/1.1 alone, as for upgrades.
    Http1,
    /// HTTP/2, else HTTP/1.1.
    Http2,
}

/// Builds the configuration, or says everything that is wrong with the transport's files.
///
/// Without `rootCAs` the operating system's authorities are trusted. They are read once, so that a change of theirs
/// needs a restart.
pub fn client_config(transport: &ServersTransport, alpn: Alpn) -> Result<Arc<ClientConfig>, Vec<String>> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let (verifier, mut problems) = match verifier(transport, &provider) {
        Ok(verifier) => (Some(verifier), Vec::new()),
        Err(problems) => (None, problems),
    };
    let identities = Identities(identities(transport, &provider, &mut problems));
    let Some(verifier) = verifier.filter(|_| problems.is_empty()) else {
        return Err(problems);
    };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| vec![error.to_string()])?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_cert_resolver(Arc::new(identities));
    config.alpn_protocols = match alpn {
        Alpn::Http1 => vec![b"http/1.1".to_vec()],
        Alpn::Http2 => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
    };
    Ok(Arc::new(config))
}

fn verifier(
    transport: &ServersTransport,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>, Vec<String>> {
    if transport.insecure_skip_verify {
        return Ok(Arc::new(Unverified::new(provider)));
    }
    let (roots, pinned) = if transport.root_cas.is_empty() {
        (native_roots(), Vec::new())
    } else {
        let Authorities { roots, certificates } = pem::authorities(&transport.root_cas)?;
        (Arc::new(roots), certificates)
    };
    if roots.is_empty() {
        return Err(vec!["the operating system has no trusted authorities: name some in `rootCAs`".to_owned()]);
    }
    let authorities = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(provider))
        .build()
        .map_err(|error| vec![format!("`rootCAs` cannot be used: {error}")])?;
    Ok(Arc::new(Verified { authorities, pinned }))
}

fn native_roots() -> Arc<RootCertStore> {
    // Reading and parsing some 150 certificates takes tens of milliseconds, for each transport at each reload.
    static ROOTS: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    let roots = ROOTS.get_or_init(|| {
        let found = rustls_native_certs::load_native_certs();
        for error in &found.errors {
            tracing::debug!(%error, "an authority of the operating system is skipped");
        }
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(found.certs);
        Arc::new(roots)
    });
    Arc::clone(roots)
}

fn identities(
    transport: &ServersTransport,
    provider: &CryptoProvider,
    problems: &mut Vec<String>,
) -> Vec<Arc<CertifiedKey>> {
    let mut identities = Vec::new();
    for source in &transport.certificates {
        match identity(source, provider) {
            Ok(identity) => identities.push(Arc::new(identity)),
            Err(problem) => problems.push(problem),
        }
    }
    identities
}

fn identity(source: &Certificate, provider: &CryptoProvider) -> Result<CertifiedKey, String> {
    let chain = pem::certificates(&source.cert_file, &pem::read(&source.cert_file)?)?;
    let key = pem::private_key(&source.key_file, &pem::read(&source.key_file)?)?;
    CertifiedKey::from_der(chain, key, provider).map_err(|error| {
        let (certificate, key) = (pem::name(&source.cert_file), pem::name(&source.key_file));
        format!("{certificate} and {key} cannot be used together: {error}")
    })
}

/// Shows a server that asks the first certificate whose key can sign as the server wants.
#[derive(Debug)]
struct Identities(Vec<Arc<CertifiedKey>>);

impl ResolvesClientCert for Identities {
    fn resolve(&self, _authorities: &[&[u8]], offered: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.iter().find(|identity| identity.key.choose_scheme(offered).is_some()).cloned()
    }

    fn has_certs(&self) -> bool {
        !self.0.is_empty()
    }
}

/// Verifies chain, time and name; a certificate that `rootCAs` names itself needs no chain.
///
/// Go trusts such a self-signed server certificate, webpki wants an authority above it.
#[derive(Debug)]
struct Verified {
    authorities: Arc<WebPkiServerVerifier>,
    pinned: Vec<CertificateDer<'static>>,
}

impl ServerCertVerifier for Verified {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if !self.pinned.iter().any(|pinned| pinned == certificate) {
            return self.authorities.verify_server_cert(certificate, intermediates, name, ocsp, now);
        }
        verify_time(certificate, now)?;
        verify_server_name(&ParsedCertificate::try_from(certificate)?, name)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.authorities.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.authorities.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.authorities.supported_verify_schemes()
    }
}

fn verify_time(certificate: &CertificateDer<'_>, now: UnixTime) -> Result<(), rustls::Error> {
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| CertificateError::BadEncoding)?;
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    if now < parsed.validity().not_before.timestamp() {
        return Err(CertificateError::NotValidYet.into());
    }
    if now > parsed.validity().not_after.timestamp() {
        return Err(CertificateError::Expired.into());
    }
    Ok(())
}

/// `insecureSkipVerify`: accepts every certificate.
///
/// The handshake's signature is not checked either: anyone can sign with a certificate of their own, and webpki refuses
/// keys in old-fashioned certificates (X.509 version 1) that this option is often there for.
#[derive(Debug)]
pub(super) struct Unverified {
    schemes: Vec<SignatureScheme>,
}

impl Unverified {
    pub(super) fn new(provider: &CryptoProvider) -> Self {
        Self { schemes: provider.signature_verification_algorithms.supported_schemes() }
    }
}

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes.clone()
    }
}
