//! What holds until a restart: the install file, Traefik's "static configuration".
//!
//! The types mirror the file's keys and carry Traefik's defaults; `super::install` fills them. Nothing here opens a
//! port or reads another file. Reference: <https://doc.traefik.io/traefik/reference/install-configuration/>.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use http::HeaderName;
use ipnet::IpNet;
use serde::Deserialize;

use super::de;
use super::routing::{Observability, RouterTls, ServersTransport};
use super::{Node, Place, Problem};

mod address;
mod plugins;
mod read;
mod resolver;

pub use address::{Address, Protocol};
pub use plugins::{Allow, Isolation, OnFailure, PluginCache, PluginLimits, PluginSettings, Plugins, Secret};
pub(super) use read::read;
pub use resolver::{
    Acme, CertificatesResolver, DnsChallenge, ExternalAccountBinding, HttpChallenge, KeyType, LETS_ENCRYPT,
    Propagation, TlsChallenge, Variable,
};

/// A whole install file.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Install {
    /// Accepted, without effect: Weir neither looks for new versions nor sends usage.
    pub global: Global,
    pub log: Log,
    /// `None`: no access log.
    pub access_log: Option<AccessLog>,
    /// `None`: no API and no dashboard.
    pub api: Option<Api>,
    /// `None`: no `ping@internal`.
    pub ping: Option<Ping>,
    /// `None`: no metrics.
    pub metrics: Option<Metrics>,
    /// By name. Never empty after [`super::install()`]: without any, Traefik's `http` on `:80` is there; where the API,
    /// ping or metrics want it, so is `traefik` on `:8080`.
    pub entry_points: BTreeMap<String, EntryPoint>,
    pub providers: Providers,
    /// How servers are reached by services that name no transport.
    pub servers_transport: ServersTransport,
    /// By name, as `tls.certResolver` of a router refers to them.
    pub certificates_resolvers: BTreeMap<String, CertificatesResolver>,
    /// Weir's own section.
    pub plugins: Plugins,
    /// Weir's own section.
    pub limits: Limits,
    #[serde(skip)]
    source: Option<Node>,
}

impl Install {
    /// What Prometheus is to have, if it is to have anything.
    pub fn prometheus(&self) -> Option<&Prometheus> {
        self.metrics.as_ref()?.prometheus.as_ref()
    }

    /// Where `path` (such as `entryPoints.web.address`) stands in the file, or its nearest parent that is there.
    pub fn place(&self, path: &str) -> Option<Place> {
        self.source.as_ref().map(|source| source.nearest(path))
    }

    /// An error about `path`, with its place.
    pub fn problem(&self, path: &str, message: impl Into<String>) -> Problem {
        Problem::error(path, message).at(self.place(path))
    }

    /// The same where it serves all the same.
    pub fn warning(&self, path: &str, message: impl Into<String>) -> Problem {
        Problem::warning(path, message).at(self.place(path))
    }
}

/// `global`.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Global {
    pub check_new_version: bool,
    pub send_anonymous_usage: bool,
}

/// `log`: what Weir says about itself.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Log {
    /// `None`: not set. Traefik's default is then ERROR.
    pub level: Option<Level>,
    pub format: LogFormat,
    /// `None`: standard output. Relative to the working directory.
    pub file_path: Option<PathBuf>,
    pub no_color: bool,
    /// Megabytes after which the file is rotated; 0: 100.
    pub max_size: u64,
    /// Days to keep rotated files; 0: for ever.
    pub max_age: u64,
    /// How many rotated files to keep; 0: all.
    pub max_backups: usize,
    /// Whether rotated files are compressed with gzip.
    pub compress: bool,
}

/// `log.level`, in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Level {
    Trace,
    Debug,
    Info,
    Warn,
    Error,
    Fatal,
    Panic,
}

/// `log.format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum LogFormat {
    #[default]
    Common,
    Json,
}

/// `accessLog`: one line per request.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AccessLog {
    /// `None`: standard output. Relative to the working directory.
    pub file_path: Option<PathBuf>,
    pub format: AccessLogFormat,
    pub filters: AccessLogFilters,
    pub fields: AccessLogFields,
    /// Lines kept in memory before they are written; 0: written at once.
    pub buffering_size: u64,
    /// Whether requests to internal services (`api@internal` …) are logged too.
    pub add_internals: bool,
}

/// `accessLog.format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum AccessLogFormat {
    /// Common log format with Traefik's own fields at the end.
    #[default]
    Common,
    Json,
    /// Common log format without them.
    #[serde(rename = "genericCLF")]
    GenericClf,
}

/// `accessLog.filters`. A request that passes one of them is logged; without any, all are.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AccessLogFilters {
    /// `200`, `300-302`.
    #[serde(deserialize_with = "de::status_codes")]
    pub status_codes: Vec<RangeInclusive<u16>>,
    pub retry_attempts: bool,
    /// Zero: no filter.
    #[serde(deserialize_with = "de::duration")]
    pub min_duration: Duration,
}

/// `accessLog.fields`.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AccessLogFields {
    pub default_mode: FieldMode,
    /// Field name (`ClientUsername`) to mode.
    pub names: BTreeMap<String, FieldMode>,
    pub headers: AccessLogHeaders,
}

/// `accessLog.fields.headers`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AccessLogHeaders {
    /// Traefik drops header fields unless told otherwise.
    pub default_mode: FieldMode,
    /// Header field name to mode; the case of the name does not count.
    pub names: BTreeMap<String, FieldMode>,
}

impl Default for AccessLogHeaders {
    fn default() -> Self {
        Self { default_mode: FieldMode::Drop, names: BTreeMap::new() }
    }
}

/// What becomes of a field in the access log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum FieldMode {
    #[default]
    Keep,
    Drop,
    /// The name is kept, the value is written as `REDACTED`.
    Redact,
}

/// `api`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Api {
    /// Whether API and dashboard answer on the entry point `traefik` without any router of the user.
    pub insecure: bool,
    pub dashboard: bool,
    pub debug: bool,
    pub base_path: String,
    pub dashboard_name: String,
    /// Accepted, without effect: there is no advertisement.
    pub disable_dashboard_ad: bool,
}

impl Default for Api {
    fn default() -> Self {
        Self {
            insecure: false,
            dashboard: true,
            debug: false,
            base_path: "/".to_owned(),
            dashboard_name: String::new(),
            disable_dashboard_ad: false,
        }
    }
}

/// `ping`: a health check of Weir itself.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Ping {
    pub entry_point: String,
    /// Whether only routers of the user lead to `ping@internal`.
    pub manual_routing: bool,
    /// Status while Weir shuts down.
    pub terminating_status_code: u16,
}

impl Default for Ping {
    fn default() -> Self {
        Self { entry_point: "traefik".to_owned(), manual_routing: false, terminating_status_code: 503 }
    }
}

/// `metrics`.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Metrics {
    /// Whether requests to internal services (`api@internal` …) are counted too.
    pub add_internals: bool,
    /// `None`: nothing is counted.
    pub prometheus: Option<Prometheus>,
}

/// `metrics.prometheus`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Prometheus {
    /// The upper ends of the classes of time in which requests are counted, in seconds; ascending.
    #[serde(deserialize_with = "de::ascending")]
    pub buckets: Vec<f64>,
    pub add_entry_points_labels: bool,
    pub add_routers_labels: bool,
    pub add_services_labels: bool,
    pub entry_point: String,
    /// Whether only routers of the user lead to `prometheus@internal`.
    pub manual_routing: bool,
}

impl Default for Prometheus {
    fn default() -> Self {
        Self {
            buckets: vec![0.1, 0.3, 1.2, 5.0],
            add_entry_points_labels: true,
            add_routers_labels: false,
            add_services_labels: true,
            entry_point: "traefik".to_owned(),
            manual_routing: false,
        }
    }
}

/// `entryPoints.<name>`: one listening address.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EntryPoint {
    pub address: Address,
    /// Whether routers that name no entry point use this one.
    pub as_default: bool,
    pub reuse_port: bool,
    pub http: EntryPointHttp,
    pub forwarded_headers: ForwardedHeaders,
    pub transport: Transport,
    pub http2: Http2,
    /// Defaults for routers that do not say.
    pub observability: Observability,
    /// Whether challenges of ACME get no precedence here, so that routers may pass them on.
    #[serde(rename = "allowACMEByPass")]
    pub allow_acme_by_pass: bool,
}

/// `entryPoints.<name>.http`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EntryPointHttp {
    pub redirections: Redirections,
    /// Run for every router of the entry point, before its own.
    pub middlewares: Vec<String>,
    /// For routers that have no `tls` section of their own.
    pub tls: Option<RouterTls>,
    /// Whether `//`, `/./` and `/../` are resolved before routing.
    pub sanitize_path: bool,
    pub encoded_characters: EncodedCharacters,
    /// Whether `;` between parameters becomes `%3B` instead of `&`.
    pub encode_query_semicolons: bool,
    /// Fields with `_` or `.` in their names, in which some servers see a `-`.
    pub alias_headers_strategy: HeadersStrategy,
    /// Its older name, for `_` alone.
    pub underscore_headers_strategy: HeadersStrategy,
    /// Bytes.
    pub max_header_bytes: usize,
}

impl Default for EntryPointHttp {
    fn default() -> Self {
        Self {
            redirections: Redirections::default(),
            middlewares: Vec::new(),
            tls: None,
            sanitize_path: true,
            encoded_characters: EncodedCharacters::default(),
            encode_query_semicolons: false,
            alias_headers_strategy: HeadersStrategy::default(),
            underscore_headers_strategy: HeadersStrategy::default(),
            max_header_bytes: 1 << 20,
        }
    }
}

/// `entryPoints.<name>.http.encodedCharacters`: what paths may have percent-encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EncodedCharacters {
    #[serde(rename = "allowEncodedSlash")]
    pub slash: bool,
    #[serde(rename = "allowEncodedBackSlash")]
    pub back_slash: bool,
    #[serde(rename = "allowEncodedNullCharacter")]
    pub null_character: bool,
    #[serde(rename = "allowEncodedSemicolon")]
    pub semicolon: bool,
    #[serde(rename = "allowEncodedPercent")]
    pub percent: bool,
    #[serde(rename = "allowEncodedQuestionMark")]
    pub question_mark: bool,
    #[serde(rename = "allowEncodedHash")]
    pub hash: bool,
}

impl Default for EncodedCharacters {
    fn default() -> Self {
        Self {
            slash: true,
            back_slash: true,
            null_character: true,
            semicolon: true,
            percent: true,
            question_mark: true,
            hash: true,
        }
    }
}

/// What becomes of fields with such names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum HeadersStrategy {
    #[default]
    Keep,
    Delete,
    /// A request with one of them is refused.
    Reject,
}

/// `entryPoints.<name>.http.redirections`.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Redirections {
    pub entry_point: Option<RedirectEntryPoint>,
}

/// `entryPoints.<name>.http.redirections.entryPoint`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RedirectEntryPoint {
    /// An entry point's name, or `:port`.
    pub to: String,
    pub scheme: String,
    pub permanent: bool,
    /// Of the router that Weir makes for it.
    pub priority: i64,
}

impl Default for RedirectEntryPoint {
    fn default() -> Self {
        Self { to: String::new(), scheme: "https".to_owned(), permanent: true, priority: i64::MAX - 1 }
    }
}

/// `entryPoints.<name>.forwardedHeaders`.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ForwardedHeaders {
    /// Whether forwarding fields are believed whoever sends them.
    pub insecure: bool,
    /// Peers whose forwarding fields are believed.
    #[serde(rename = "trustedIPs", deserialize_with = "de::networks")]
    pub trusted_ips: Vec<IpNet>,
    /// Header fields that middlewares still see although `Connection` names them.
    #[serde(deserialize_with = "de::field_names")]
    pub connection: Vec<HeaderName>,
    pub not_append_x_forwarded_for: bool,
}

/// `entryPoints.<name>.transport`.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Transport {
    pub life_cycle: LifeCycle,
    pub responding_timeouts: RespondingTimeouts,
    /// Zero: no limit.
    #[serde(deserialize_with = "de::duration")]
    pub keep_alive_max_time: Duration,
    /// Requests on one connection; 0: no limit.
    pub keep_alive_max_requests: u64,
    pub deadlines: Deadlines,
}

/// `entryPoints.<name>.transport.deadlines`: Weir's own, for clients that do nothing or next to nothing. Zero: no limit.
/// `respondingTimeouts` take the place of those that they are about.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Deadlines {
    /// To the first byte of a connection and to the end of its TLS handshake.
    #[serde(deserialize_with = "de::duration")]
    pub handshake: Duration,
    /// To the end of a request's head, from its first byte.
    #[serde(deserialize_with = "de::duration")]
    pub head: Duration,
    /// To the next byte of a request's body; after half a minute it must also come with 240 bytes per second.
    #[serde(deserialize_with = "de::duration")]
    pub body: Duration,
    /// To the next request of a connection.
    #[serde(deserialize_with = "de::duration")]
    pub idle: Duration,
    /// To the next stream of an HTTP/2 connection.
    #[serde(deserialize_with = "de::duration")]
    pub http2_idle: Duration,
    /// To the client's taking something of a response that is there for it.
    #[serde(deserialize_with = "de::duration")]
    pub send: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(10),
            head: Duration::from_secs(10),
            body: Duration::from_secs(10),
            idle: Duration::from_secs(75),
            http2_idle: Duration::from_secs(180),
            send: Duration::from_secs(30),
        }
    }
}

/// `entryPoints.<name>.transport.lifeCycle`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LifeCycle {
    /// How long to keep accepting requests after the signal to stop.
    #[serde(deserialize_with = "de::duration")]
    pub request_accept_grace_timeout: Duration,
    /// How long requests in flight may then still take.
    #[serde(rename = "graceTimeOut", deserialize_with = "de::duration")]
    pub grace_timeout: Duration,
}

impl Default for LifeCycle {
    fn default() -> Self {
        Self { request_accept_grace_timeout: Duration::ZERO, grace_timeout: Duration::from_secs(10) }
    }
}

/// `entryPoints.<name>.transport.respondingTimeouts`. `None`: not set, so that [`Deadlines`] hold, which watch progress
/// instead of the whole; zero: no limit.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RespondingTimeouts {
    /// For a whole request with its body, and for the TLS handshake. Traefik's default is 60 s.
    #[serde(deserialize_with = "de::optional_duration")]
    pub read_timeout: Option<Duration>,
    /// For a whole response. Traefik's default is no limit.
    #[serde(deserialize_with = "de::optional_duration")]
    pub write_timeout: Option<Duration>,
    /// Between two requests of one connection. Traefik's default is 180 s.
    #[serde(deserialize_with = "de::optional_duration")]
    pub idle_timeout: Option<Duration>,
}

/// `entryPoints.<name>.http2`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Http2 {
    /// Of one connection.
    pub max_concurrent_streams: u32,
}

impl Default for Http2 {
    fn default() -> Self {
        Self { max_concurrent_streams: 250 }
    }
}

/// `providers`: where routing comes from.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Providers {
    /// The least time between two reloads.
    #[serde(deserialize_with = "de::duration")]
    pub providers_throttle_duration: Duration,
    /// `None`: no routing files.
    pub file: Option<FileProvider>,
}

impl Default for Providers {
    fn default() -> Self {
        Self { providers_throttle_duration: Duration::from_secs(2), file: None }
    }
}

/// `providers.file`. With both set the directory is read, as in Traefik.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FileProvider {
    /// Relative to the working directory.
    pub directory: Option<PathBuf>,
    /// Relative to the working directory.
    pub filename: Option<PathBuf>,
    pub watch: bool,
    /// Accepted, without effect: there are no templates yet.
    pub debug_log_generated_template: bool,
}

impl Default for FileProvider {
    fn default() -> Self {
        Self { directory: None, filename: None, watch: true, debug_log_generated_template: false }
    }
}

/// `limits`: Weir's own section, unknown to Traefik. What all entry points may have together.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Limits {
    /// Open connections of clients; 0: as many as there are file descriptors for.
    pub connections: usize,
    /// Of one address, or of one network of 64 bits in IPv6; 0: no limit.
    pub connections_per_client: usize,
    /// Megabytes of memory; 0: what the container has. From 90 % on connections are not kept, from 95 % on requests are
    /// answered with 503.
    #[serde(deserialize_with = "de::megabytes")]
    pub memory: u64,
}
