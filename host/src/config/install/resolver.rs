//! `certificatesResolvers.<name>`: where certificates are ordered, and how control of a name is proved.
//!
//! Reference: <https://doc.traefik.io/traefik/reference/install-configuration/tls/certificate-resolvers/acme/>.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use crate::config::de;

/// The production directory of Let's Encrypt.
pub const LETS_ENCRYPT: &str = "https://acme-v02.api.letsencrypt.org/directory";

/// `certificatesResolvers.<name>`.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CertificatesResolver {
    pub acme: Option<Acme>,
}

/// `certificatesResolvers.<name>.acme`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Acme {
    /// The account's contact; may be empty.
    pub email: String,
    /// The URL of the CA's directory.
    pub ca_server: String,
    /// Common name of the issuer of the last certificate of the chain to choose; empty: the CA's own choice.
    pub preferred_chain: String,
    /// Of the CA's profiles; empty: its default.
    pub profile: String,
    /// Put into certificate requests.
    pub email_addresses: Vec<String>,
    pub disable_common_name: bool,
    /// Relative to the working directory.
    pub storage: PathBuf,
    pub key_type: KeyType,
    pub eab: Option<ExternalAccountBinding>,
    /// Hours. Accepted, without effect: renewal goes by the life of each certificate.
    pub certificates_duration: u64,
    /// For one exchange with the CA.
    #[serde(deserialize_with = "de::duration")]
    pub client_timeout: Duration,
    /// Of it, to the head of the response.
    #[serde(deserialize_with = "de::duration")]
    pub client_response_header_timeout: Duration,
    /// From the certificate request to the certificate.
    #[serde(deserialize_with = "de::duration")]
    pub certificate_timeout: Duration,
    /// Files with PEM roots that the CA's own server is trusted by.
    pub ca_certificates: Vec<PathBuf>,
    /// Whether the system's roots count beside `ca_certificates`.
    pub ca_system_cert_pool: bool,
    /// The name that the CA's server has to prove, if not the host of `ca_server`.
    pub ca_server_name: String,
    pub dns_challenge: Option<DnsChallenge>,
    pub http_challenge: Option<HttpChallenge>,
    pub tls_challenge: Option<TlsChallenge>,
}

impl Default for Acme {
    fn default() -> Self {
        Self {
            email: String::new(),
            ca_server: LETS_ENCRYPT.to_owned(),
            preferred_chain: String::new(),
            profile: String::new(),
            email_addresses: Vec::new(),
            disable_common_name: false,
            storage: PathBuf::from("acme.json"),
            key_type: KeyType::default(),
            eab: None,
            certificates_duration: 2160,
            client_timeout: Duration::from_secs(120),
            client_response_header_timeout: Duration::from_secs(30),
            certificate_timeout: Duration::from_secs(30),
            ca_certificates: Vec::new(),
            ca_system_cert_pool: false,
            ca_server_name: String::new(),
            dns_challenge: None,
            http_challenge: None,
            tls_challenge: None,
        }
    }
}

/// `keyType`: of the keys of certificates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
pub enum KeyType {
    #[serde(rename = "EC256")]
    Ec256,
    #[serde(rename = "EC384")]
    Ec384,
    #[serde(rename = "RSA2048")]
    Rsa2048,
    #[default]
    #[serde(rename = "RSA4096")]
    Rsa4096,
    #[serde(rename = "RSA8192")]
    Rsa8192,
}

/// `eab`: credentials that tie a new account to one that the CA knows otherwise (RFC 8555, section 7.3.4).
#[derive(Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ExternalAccountBinding {
    pub kid: String,
    /// Base64url without padding.
    pub hmac_encoded: String,
}

/// Without the key.
impl fmt::Debug for ExternalAccountBinding {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("ExternalAccountBinding").field("kid", &self.kid).finish_non_exhaustive()
    }
}

/// `dnsChallenge`.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DnsChallenge {
    /// The name of a plugin, or `rfc2136`.
    pub provider: String,
    /// `host:port`, or a host; empty: those of the system.
    pub resolvers: Vec<String>,
    pub propagation: Propagation,
    /// Its older place.
    #[serde(deserialize_with = "de::duration")]
    pub delay_before_check: Duration,
    /// Its older place.
    pub disable_propagation_check: bool,
    /// Weir's own: what the provider finds in place of the variables of the process.
    #[serde(skip)]
    pub env: BTreeMap<String, Variable>,
}

/// `dnsChallenge.propagation`: how it is made sure that the CA will see a record.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Propagation {
    pub disable_checks: bool,
    /// Whether the zone's own servers are not asked.
    #[serde(rename = "disableANSChecks")]
    pub disable_ans_checks: bool,
    /// Whether every resolver must know of the record too.
    #[serde(rename = "requireAllRNS")]
    pub require_all_rns: bool,
    #[serde(deserialize_with = "de::duration")]
    pub delay_before_checks: Duration,
}

/// `dnsChallenge.env.<NAME>`.
#[derive(Clone, PartialEq, Eq)]
pub enum Variable {
    Value(String),
    /// The text of a file, relative to the working directory, without the line's end.
    File(PathBuf),
}

/// Without the value.
impl fmt::Debug for Variable {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value(_) => out.write_str("Value(…)"),
            Self::File(path) => out.debug_tuple("File").field(path).finish(),
        }
    }
}

/// `httpChallenge`.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpChallenge {
    pub entry_point: String,
    /// Before the CA is told to look.
    #[serde(deserialize_with = "de::duration")]
    pub delay: Duration,
}

/// `tlsChallenge`.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TlsChallenge {
    /// Before the CA is told to look.
    #[serde(deserialize_with = "de::duration")]
    pub delay: Duration,
}

impl DnsChallenge {
    /// The rules of propagation, wherever the file has them.
    pub fn propagation(&self) -> Propagation {
        Propagation {
            disable_checks: self.propagation.disable_checks || self.disable_propagation_check,
            delay_before_checks: match self.propagation.delay_before_checks {
                Duration::ZERO => self.delay_before_check,
                delay => delay,
            },
            ..self.propagation.clone()
        }
    }
}
