//! One `tls.options` entry → a rustls server configuration.
//!
//! Traefik names versions, cipher suites and curves as Go does. What Go has and rustls leaves out for safety (TLS 1.0
//! and 1.1, CBC and RSA key exchange) is never served: a suite or curve of the kind is skipped with a warning while
//! others remain.

use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{
    CryptoProvider, SupportedKxGroup, WebPkiSupportedAlgorithms, aws_lc_rs, verify_tls12_signature,
    verify_tls13_signature,
};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier};
use rustls::{
    CipherSuite, DigitallySignedStruct, DistinguishedName, ProtocolVersion, ServerConfig, SignatureScheme,
    SupportedCipherSuite, SupportedProtocolVersion, version,
};

use super::pem::{self, Authorities};
use crate::config::routing::{ClientAuth, ClientAuthType, TlsOptions};

/// A remark on one key of an option set, such as `cipherSuites`.
#[derive(Debug, PartialEq)]
pub(super) struct Remark {
    pub(super) key: &'static str,
    pub(super) message: String,
    pub(super) help: Option<String>,
}

/// A configuration, the authorities that it lets clients in by, and what was skipped.
pub(super) struct Built {
    pub(super) config: ServerConfig,
    pub(super) authorities: Vec<CertificateDer<'static>>,
    pub(super) warnings: Vec<Remark>,
}

/// Builds the configuration, or says everything that is wrong.
pub(super) fn build(options: &TlsOptions, certificates: Arc<dyn ResolvesServerCert>) -> Result<Built, Vec<Remark>> {
    let mut errors = Vec::new();
    let mut warnings = Vec::new();
    let versions = versions(options, &mut errors);
    let provider = Arc::new(CryptoProvider {
        cipher_suites: cipher_suites(&options.cipher_suites, &mut errors, &mut warnings),
        kx_groups: curves(&options.curve_preferences, &mut errors, &mut warnings),
        ..aws_lc_rs::default_provider()
    });
    let (verifier, authorities) = match client_verifier(&options.client_auth, &provider) {
        Ok(found) => found,
        Err(remarks) => {
            errors.extend(remarks);
            return Err(errors);
        }
    };
    if !errors.is_empty() {
        return Err(errors);
    }
    let config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&versions)
        .map_err(|error| vec![remark("cipherSuites", format!("they fit none of the TLS versions: {error}"))])?;
    let mut config = config.with_client_cert_verifier(verifier).with_cert_resolver(certificates);
    config.alpn_protocols = alpn_protocols(options);
    if options.disable_session_tickets {
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
    } else {
        config.ticketer = aws_lc_rs::Ticketer::new()
            .map_err(|error| vec![remark("disableSessionTickets", format!("no ticket key can be made: {error}"))])?;
    }
    Ok(Built { config, authorities, warnings })
}

/// The version as Traefik's access log writes it, such as `1.3`.
pub fn version_name(version: Option<ProtocolVersion>) -> &'static str {
    match version {
        Some(ProtocolVersion::TLSv1_2) => "1.2",
        Some(ProtocolVersion::TLSv1_3) => "1.3",
        _ => "unknown",
    }
}

/// The IANA name of a cipher suite, as Go and Traefik write it.
pub fn cipher_name(suite: CipherSuite) -> &'static str {
    match suite {
        CipherSuite::TLS13_AES_128_GCM_SHA256 => "TLS_AES_128_GCM_SHA256",
        CipherSuite::TLS13_AES_256_GCM_SHA384 => "TLS_AES_256_GCM_SHA384",
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => "TLS_CHACHA20_POLY1305_SHA256",
        suite => suite.as_str().unwrap_or("unknown"),
    }
}

fn versions(options: &TlsOptions, errors: &mut Vec<Remark>) -> Vec<&'static SupportedProtocolVersion> {
    let minimum = protocol_version("minVersion", options.min_version.as_deref(), errors).unwrap_or(&version::TLS12);
    let maximum = protocol_version("maxVersion", options.max_version.as_deref(), errors).unwrap_or(&version::TLS13);
    if *minimum == version::TLS13 && *maximum == version::TLS12 {
        errors.push(remark("maxVersion", "it is lower than `minVersion`".to_owned()));
    }
    if minimum == maximum { vec![minimum] } else { vec![&version::TLS13, &version::TLS12] }
}

fn protocol_version(
    key: &'static str,
    name: Option<&str>,
    errors: &mut Vec<Remark>,
) -> Option<&'static SupportedProtocolVersion> {
    let name = name.filter(|name| !name.is_empty())?;
    match name {
        "VersionTLS12" => Some(&version::TLS12),
        "VersionTLS13" => Some(&version::TLS13),
        "VersionTLS10" | "VersionTLS11" => {
            let message = format!("`{name}` is not served: TLS 1.0 and 1.1 are deprecated as insecure (RFC 8996)");
            errors.push(Remark { help: Some("use `VersionTLS12`".to_owned()), ..remark(key, message) });
            None
        }
        _ => {
            let message = format!("`{name}` is not a TLS version");
            let help = Some("use `VersionTLS12` or `VersionTLS13`".to_owned());
            errors.push(Remark { help, ..remark(key, message) });
            None
        }
    }
}

/// As in Go the names choose among the suites of TLS 1.2 alone; those of TLS 1.3 are always there.
fn cipher_suites(names: &[String], errors: &mut Vec<Remark>, warnings: &mut Vec<Remark>) -> Vec<SupportedCipherSuite> {
    if names.is_empty() {
        return aws_lc_rs::DEFAULT_CIPHER_SUITES.to_vec();
    }
    let mut suites: Vec<_> =
        aws_lc_rs::ALL_CIPHER_SUITES.iter().copied().filter(|suite| suite.tls13().is_some()).collect();
    for name in names {
        let known = aws_lc_rs::ALL_CIPHER_SUITES.iter().find(|suite| names_suite(name, suite.suite()));
        match known {
            Some(suite) if !suites.contains(suite) => suites.push(*suite),
            Some(_) => {}
            None if WEAK_SUITES.contains(&name.as_str()) => {
                let message = format!("`{name}` is skipped: it is not safe enough to be served");
                warnings.push(remark("cipherSuites", message));
            }
            None => {
                let known =
                    aws_lc_rs::ALL_CIPHER_SUITES.iter().map(|suite| format!("`{}`", cipher_name(suite.suite())));
                let help = format!("known are {}", known.collect::<Vec<_>>().join(", "));
                let message = format!("`{name}` is not a cipher suite");
                errors.push(Remark { help: Some(help), ..remark("cipherSuites", message) });
            }
        }
    }
    suites
}

/// Go knows the two ChaCha20 suites without their hash too.
fn names_suite(name: &str, suite: CipherSuite) -> bool {
    let full = cipher_name(suite);
    full == name || (name.ends_with("_CHACHA20_POLY1305") && full.strip_suffix("_SHA256") == Some(name))
}

/// Suites that Traefik knows and rustls leaves out.
const WEAK_SUITES: &[&str] = &[
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_RC4_128_SHA",
    "TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_RC4_128_SHA",
    "TLS_FALLBACK_SCSV",
    "TLS_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA256",
    "TLS_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_RSA_WITH_AES_256_CBC_SHA",
    "TLS_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_RSA_WITH_RC4_128_SHA",
];

fn curves(
    names: &[String],
    errors: &mut Vec<Remark>,
    warnings: &mut Vec<Remark>,
) -> Vec<&'static dyn SupportedKxGroup> {
    if names.is_empty() {
        return aws_lc_rs::DEFAULT_KX_GROUPS.to_vec();
    }
    let mut groups: Vec<&'static dyn SupportedKxGroup> = Vec::new();
    for name in names {
        let group: &'static dyn SupportedKxGroup = match name.to_ascii_lowercase().as_str() {
            "curvep256" | "p256" | "secp256r1" => aws_lc_rs::kx_group::SECP256R1,
            "curvep384" | "p384" | "secp384r1" => aws_lc_rs::kx_group::SECP384R1,
            "secp256r1mlkem768" => aws_lc_rs::kx_group::SECP256R1MLKEM768,
            "x25519" => aws_lc_rs::kx_group::X25519,
            "x25519mlkem768" => aws_lc_rs::kx_group::X25519MLKEM768,
            "curvep521" | "p521" | "secp384r1mlkem1024" | "secp521r1" => {
                warnings.push(remark("curvePreferences", format!("`{name}` is skipped: it is not supported")));
                continue;
            }
            _ => {
                let help = "known are `X25519MLKEM768`, `X25519`, `CurveP256`, `CurveP384`, `SecP256r1MLKEM768`";
                let message = format!("`{name}` is not a curve");
                errors.push(Remark { help: Some(help.to_owned()), ..remark("curvePreferences", message) });
                continue;
            }
        };
        if !groups.iter().any(|known| known.name() == group.name()) {
            groups.push(group);
        }
    }
    if groups.is_empty() && errors.is_empty() {
        errors.push(remark("curvePreferences", "none of them is supported".to_owned()));
    }
    groups
}

fn alpn_protocols(options: &TlsOptions) -> Vec<Vec<u8>> {
    if options.alpn_protocols.is_empty() {
        return vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    }
    // Traefik's list has `acme-tls/1`, which has a configuration of its own and no HTTP behind it.
    let protocols = options.alpn_protocols.iter().filter(|protocol| *protocol != "acme-tls/1");
    protocols.map(|protocol| protocol.as_bytes().to_vec()).collect()
}

type Verifier = (Arc<dyn ClientCertVerifier>, Vec<CertificateDer<'static>>);

fn client_verifier(auth: &ClientAuth, provider: &Arc<CryptoProvider>) -> Result<Verifier, Vec<Remark>> {
    let Authorities { roots, certificates } = pem::authorities(&auth.ca_files).map_err(|problems| {
        problems.into_iter().map(|problem| remark("clientAuth.caFiles", problem)).collect::<Vec<_>>()
    })?;
    let wanted = match auth.client_auth_type {
        Some(wanted) => wanted,
        None if certificates.is_empty() => ClientAuthType::NoClientCert,
        None => ClientAuthType::RequireAndVerifyClientCert,
    };
    let unverified = |mandatory| AnyClientCertificate {
        mandatory,
        hints: roots.subjects(),
        algorithms: provider.signature_verification_algorithms,
    };
    let verified = || WebPkiClientVerifier::builder_with_provider(Arc::new(roots.clone()), Arc::clone(provider));
    let verifier = match wanted {
        ClientAuthType::NoClientCert => return Ok((WebPkiClientVerifier::no_client_auth(), certificates)),
        ClientAuthType::RequestClientCert => return Ok((Arc::new(unverified(false)), certificates)),
        ClientAuthType::RequireAnyClientCert => return Ok((Arc::new(unverified(true)), certificates)),
        _ if certificates.is_empty() => {
            return Err(vec![remark("clientAuth.caFiles", format!("`{wanted:?}` needs at least one of them"))]);
        }
        ClientAuthType::VerifyClientCertIfGiven => verified().allow_unauthenticated().build(),
        ClientAuthType::RequireAndVerifyClientCert => verified().build(),
    };
    match verifier {
        Ok(verifier) => Ok((verifier, certificates)),
        Err(error) => Err(vec![remark("clientAuth.caFiles", format!("they cannot be used: {error}"))]),
    }
}

fn remark(key: &'static str, message: String) -> Remark {
    Remark { key, message, help: None }
}

/// Asks for a certificate and checks only that the client has its key: who issued it is for the server behind to judge.
#[derive(Debug)]
struct AnyClientCertificate {
    mandatory: bool,
    /// The authorities named to clients that have several certificates.
    hints: Vec<DistinguishedName>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ClientCertVerifier for AnyClientCertificate {
    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
