//! What may change any second: routers, services, middlewares and TLS, Traefik's "dynamic configuration".
//!
//! The types mirror the files' keys and carry Traefik's defaults; `super::Files` fills them. References between items
//! keep their text: whether they lead anywhere is the snapshot's question.
//! Reference: <https://doc.traefik.io/traefik/reference/routing-configuration/>.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;

use super::de;
use super::{Item, Node, Problem};

mod read;

pub(super) use read::{read, twice};

/// What all routing files say together. Names are without `@file`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Routing {
    pub routers: BTreeMap<String, Item<Router>>,
    pub services: BTreeMap<String, Item<Service>>,
    pub middlewares: BTreeMap<String, Item<Middleware>>,
    pub servers_transports: BTreeMap<String, Item<ServersTransport>>,
    pub tls: Tls,
}

impl Routing {
    /// The errors and warnings of all items, in no order.
    pub fn problems(&self) -> impl Iterator<Item = &Problem> {
        let http = (self.routers.values().flat_map(Item::problems))
            .chain(self.services.values().flat_map(Item::problems))
            .chain(self.middlewares.values().flat_map(Item::problems))
            .chain(self.servers_transports.values().flat_map(Item::problems));
        let tls = (self.tls.certificates.iter().chain(&self.tls.default_certificate).flat_map(Item::problems))
            .chain(self.tls.default_generated.iter().flat_map(Item::problems))
            .chain(self.tls.options.values().flat_map(Item::problems));
        http.chain(tls)
    }
}

/// `http.routers.<name>`.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Router {
    /// As written; empty where the file has none.
    pub rule: String,
    /// 0: not set, so that the length of the rule counts.
    pub priority: i64,
    /// Empty: the default ones.
    pub entry_points: Vec<String>,
    pub middlewares: Vec<String>,
    /// Empty where the file has none.
    pub service: String,
    /// `Some`: the router answers only over TLS.
    pub tls: Option<RouterTls>,
    pub observability: Observability,
}

/// `http.routers.<name>.tls`, and `http.tls` of an entry point.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RouterTls {
    /// A set of `tls.options`.
    pub options: Option<String>,
    pub cert_resolver: Option<String>,
    /// Empty: the hosts of the rule.
    pub domains: Vec<Domain>,
}

/// One certificate's names.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Domain {
    pub main: String,
    pub sans: Vec<String>,
}

/// `observability` of a router or an entry point. `None`: not said.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Observability {
    pub access_logs: Option<bool>,
    pub metrics: Option<bool>,
    pub tracing: Option<bool>,
    pub trace_verbosity: Option<String>,
}

impl Observability {
    /// The options that ask for something that is not there yet.
    pub(super) fn without_effect(&self) -> impl Iterator<Item = &'static str> {
        let is_detailed = self.trace_verbosity.as_ref().is_some_and(|verbosity| verbosity != "minimal");
        let asked = [("tracing", self.tracing == Some(true)), ("traceVerbosity", is_detailed)];
        asked.into_iter().filter_map(|(option, is_asked)| is_asked.then_some(option))
    }
}

/// `http.services.<name>`.
#[derive(Debug, Clone, PartialEq)]
pub enum Service {
    LoadBalancer(LoadBalancer),
}

/// `http.services.<name>.loadBalancer`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LoadBalancer {
    pub servers: Vec<Server>,
    /// Whether the server sees the client's `Host`; else that of its own URL.
    pub pass_host_header: bool,
    /// An entry of `http.serversTransports`.
    pub servers_transport: Option<String>,
    pub response_forwarding: ResponseForwarding,
}

impl Default for LoadBalancer {
    fn default() -> Self {
        Self {
            servers: Vec::new(),
            pass_host_header: true,
            servers_transport: None,
            response_forwarding: ResponseForwarding::default(),
        }
    }
}

/// One of `loadBalancer.servers`.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Server {
    /// As written. Its path counts only with `preserve_path`.
    pub url: String,
    /// `None`: 1. 0: no requests.
    pub weight: Option<u32>,
    pub preserve_path: bool,
}

/// `loadBalancer.responseForwarding`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ResponseForwarding {
    /// Zero, or a negative value in the file: at once.
    #[serde(deserialize_with = "de::duration_or_zero")]
    pub flush_interval: Duration,
}

impl Default for ResponseForwarding {
    fn default() -> Self {
        Self { flush_interval: Duration::from_millis(100) }
    }
}

/// `http.middlewares.<name>`.
#[derive(Debug, Clone, PartialEq)]
pub enum Middleware {
    /// Several under one name.
    Chain { middlewares: Vec<String> },
    /// All others are plugins: `redirectScheme: {…}` as well as `plugin: {name: {…}}`.
    Plugin {
        /// A plugin's name: Traefik's camelCase name (see [`TRAEFIK_MIDDLEWARES`]), or the key below `plugin`.
        name: String,
        /// For [`Node::to_json`], whose problems then carry whole keys.
        config: Node,
    },
}

/// The kinds of middleware that Traefik 3.7 has, apart from `plugin`. Those that no loaded plugin provides are not
/// supported yet.
pub const TRAEFIK_MIDDLEWARES: &[&str] = &[
    "addPrefix",
    "basicAuth",
    "buffering",
    "chain",
    "circuitBreaker",
    "compress",
    "contentType",
    "digestAuth",
    "encodedCharacters",
    "errors",
    "forwardAuth",
    "grpcWeb",
    "headers",
    "inFlightReq",
    "ipAllowList",
    "ipWhiteList",
    "passTLSClientCert",
    "rateLimit",
    "redirectRegex",
    "redirectScheme",
    "replacePath",
    "replacePathRegex",
    "retry",
    "stripPrefix",
    "stripPrefixRegex",
];

/// `http.serversTransports.<name>`, and `serversTransport` of the install file.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServersTransport {
    /// Sent as SNI and looked for in the server's certificate, instead of the host of its URL.
    pub server_name: Option<String>,
    pub insecure_skip_verify: bool,
    /// Files or PEM text. Empty: those of the platform.
    #[serde(rename = "rootCAs")]
    pub root_cas: Vec<String>,
    /// Shown to servers that ask for one.
    pub certificates: Vec<Certificate>,
    /// Idle connections kept per server; 0: the default; negative: none.
    pub max_idle_conns_per_host: i64,
    pub forwarding_timeouts: ForwardingTimeouts,
    #[serde(rename = "disableHTTP2")]
    pub disable_http2: bool,
}

impl Default for ServersTransport {
    fn default() -> Self {
        Self {
            server_name: None,
            insecure_skip_verify: false,
            root_cas: Vec::new(),
            certificates: Vec::new(),
            max_idle_conns_per_host: 200,
            forwarding_timeouts: ForwardingTimeouts::default(),
            disable_http2: false,
        }
    }
}

/// `forwardingTimeouts` of a servers transport. Zero: no limit.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ForwardingTimeouts {
    /// To connect, with TLS.
    #[serde(deserialize_with = "de::duration")]
    pub dial_timeout: Duration,
    /// From the end of the request to the head of the response.
    #[serde(deserialize_with = "de::duration")]
    pub response_header_timeout: Duration,
    /// How long an idle connection is kept.
    #[serde(deserialize_with = "de::duration")]
    pub idle_conn_timeout: Duration,
    /// Silence on an HTTP/2 connection after which it is pinged.
    #[serde(deserialize_with = "de::duration")]
    pub read_idle_timeout: Duration,
    /// How long that ping may take.
    #[serde(deserialize_with = "de::duration")]
    pub ping_timeout: Duration,
}

impl Default for ForwardingTimeouts {
    fn default() -> Self {
        Self {
            dial_timeout: Duration::from_secs(30),
            response_header_timeout: Duration::ZERO,
            idle_conn_timeout: Duration::from_secs(90),
            read_idle_timeout: Duration::ZERO,
            ping_timeout: Duration::from_secs(15),
        }
    }
}

/// `tls`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Tls {
    /// `tls.certificates` of all files, in their order.
    pub certificates: Vec<Item<Certificate>>,
    /// `tls.stores.default.defaultCertificate`.
    pub default_certificate: Option<Item<Certificate>>,
    /// `tls.stores.default.defaultGeneratedCert`, which counts where there is no default certificate.
    pub default_generated: Option<Item<DefaultGenerated>>,
    /// By name; `default` holds where a router names none.
    pub options: BTreeMap<String, Item<TlsOptions>>,
}

/// A certificate chain and its key.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Certificate {
    /// A file, relative to the working directory, or PEM text.
    pub cert_file: String,
    /// A file, relative to the working directory, or PEM text.
    pub key_file: String,
    /// Only `default` has a meaning.
    pub stores: Vec<String>,
}

/// `tls.stores.default.defaultGeneratedCert`: the default certificate comes from a resolver.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DefaultGenerated {
    pub resolver: String,
    pub domain: Domain,
}

/// `tls.options.<name>`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TlsOptions {
    /// `VersionTLS12`, `VersionTLS13`. `None`: TLS 1.2.
    pub min_version: Option<String>,
    pub max_version: Option<String>,
    /// Go's names. Empty: the default ones.
    pub cipher_suites: Vec<String>,
    /// Go's names. Empty: the default ones.
    pub curve_preferences: Vec<String>,
    pub alpn_protocols: Vec<String>,
    /// Whether a handshake for a name without a certificate is refused.
    pub sni_strict: bool,
    pub disable_session_tickets: bool,
    pub client_auth: ClientAuth,
}

impl Default for TlsOptions {
    fn default() -> Self {
        Self {
            min_version: None,
            max_version: None,
            cipher_suites: Vec::new(),
            curve_preferences: Vec::new(),
            alpn_protocols: ["h2", "http/1.1", "acme-tls/1"].map(str::to_owned).to_vec(),
            sni_strict: false,
            disable_session_tickets: false,
            client_auth: ClientAuth::default(),
        }
    }
}

/// `tls.options.<name>.clientAuth`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClientAuth {
    /// Files or PEM text.
    pub ca_files: Vec<String>,
    /// `None`: not said; Traefik then requires and verifies a certificate as soon as there are `ca_files`.
    pub client_auth_type: Option<ClientAuthType>,
}

/// `clientAuthType`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum ClientAuthType {
    NoClientCert,
    RequestClientCert,
    RequireAnyClientCert,
    VerifyClientCertIfGiven,
    RequireAndVerifyClientCert,
}
