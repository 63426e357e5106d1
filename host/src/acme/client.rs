//! A certificate authority as configured: how it is reached and trusted, and what its directory offers.
//!
//! `resolver` makes one for each certificates resolver; `account`, `session` and `renewal_info` send through it. It sends
//! to whatever URLs the CA names, but never what would be safe over HTTPS over plain HTTP.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use http::header::HeaderValue;
use http::uri::Scheme;
use http::{Request, Response, StatusCode, Uri};
use jiff::{SignedDuration, Timestamp};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use serde::Deserialize;

use super::Clock;
use super::failure::{Failure, Kind};
use super::session::Exchange;
use crate::config::install::Acme;
use crate::config::reason;
use crate::fetch::{self, Client, Settings};

/// What the environment says where the options say nothing of trust, as with lego.
#[derive(Clone, Debug, Default)]
pub(crate) struct Environment {
    /// `LEGO_CA_CERTIFICATES`: paths, separated like those of `PATH`.
    pub certificates: Option<String>,
    /// `LEGO_CA_SERVER_NAME`
    pub server_name: Option<String>,
    /// `LEGO_CA_SYSTEM_CERT_POOL`
    pub system_cert_pool: Option<String>,
}

pub(crate) struct Authority {
    url: String,
    host: String,
    /// Plain HTTP, and so this machine.
    is_plain: bool,
    http: Client,
    directory: ArcSwapOption<Directory>,
}

/// What a CA offers, and where (RFC 8555, section 7.1.1).
pub(crate) struct Directory {
    pub(super) body: Bytes,
    read: Timestamp,
    pub renewal_info: Option<String>,
    pub profiles: BTreeMap<String, String>,
    pub is_external_account_required: bool,
}

/// What is wrong with an option, or what to mind, in words.
#[derive(Debug)]
pub(crate) struct Wrong {
    pub option: &'static str,
    pub reason: String,
}

impl Authority {
    /// Reads the files, and says what to mind.
    pub(crate) fn new(options: &Acme, environment: &Environment) -> Result<(Self, Vec<Wrong>), Wrong> {
        let wrong = |option| move |reason| Wrong { option, reason };
        let (server, warning) = Server::parse(&options.ca_server).map_err(wrong("caServer"))?;
        let trust = Trust::of(options, environment);
        let tls = trust.roots().and_then(client_config).map_err(wrong("caCertificates"))?;
        let settings = Settings {
            tls: Arc::new(tls),
            server_name: trust.server_name,
            connect_timeout: CONNECT_TIMEOUT,
            head_timeout: options.client_response_header_timeout,
            timeout: options.client_timeout,
            body_at_most: BODY_AT_MOST,
            user_agent: HeaderValue::from_static(USER_AGENT),
        };
        let Server { url, host, is_plain } = server;
        let http = Client::new(settings);
        let warnings = warning.map(wrong("caServer")).into_iter().collect();
        Ok((Self { url, host, is_plain, http, directory: ArcSwapOption::empty() }, warnings))
    }

    /// The URL of its directory, by which accounts are told apart.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// The directory, which is asked for again after an hour, or when something went wrong.
    pub(crate) async fn directory(&self, clock: &Clock) -> Result<Arc<Directory>, Failure> {
        let now = clock.now();
        if let Some(known) = self.directory.load_full()
            && now.duration_since(known.read).abs() < DIRECTORY_LIFE
        {
            return Ok(known);
        }
        let request = Request::get(&self.url).body(Bytes::new());
        let request = request.map_err(|error| Failure::new(Kind::Settings, format!("`caServer`: {error}")))?;
        let mut exchange = Exchange::new(&self.url);
        let answer = self.send(request).await;
        exchange.record(&answer, now);
        let body = match answer {
            Ok(response) if response.status() == StatusCode::OK => response.into_body(),
            _ => return Err(exchange.unavailable()),
        };
        let Some(directory) = Directory::parse(body, now) else {
            let message = format!("`{}` answers with something that is no ACME directory", self.url);
            return Err(Failure::new(Kind::Unavailable, message).help("check `caServer`"));
        };
        let directory = Arc::new(directory);
        self.directory.store(Some(Arc::clone(&directory)));
        Ok(directory)
    }

    /// After a failure: the CA may have moved.
    pub(super) fn forget_directory(&self) {
        self.directory.store(None);
    }

    pub(super) async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, fetch::Error> {
        if !self.is_plain && request.uri().scheme() != Some(&Scheme::HTTPS) {
            let words = format!("`{}` names a URL without `https://`", self.host);
            return Err(fetch::Error::Unusable(words));
        }
        self.http.send(request, &|_| true).await
    }
}

impl Directory {
    fn parse(body: Bytes, read: Timestamp) -> Option<Self> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Document {
            new_nonce: String,
            new_account: String,
            new_order: String,
            renewal_info: Option<String>,
            #[serde(default)]
            meta: Meta,
        }
        #[derive(Default, Deserialize)]
        #[serde(default, rename_all = "camelCase")]
        struct Meta {
            profiles: BTreeMap<String, String>,
            external_account_required: bool,
        }
        let document: Document = serde_json::from_slice(&body).ok()?;
        if [&document.new_nonce, &document.new_account, &document.new_order].into_iter().any(String::is_empty) {
            return None;
        }
        Some(Self {
            body,
            read,
            renewal_info: document.renewal_info,
            profiles: document.meta.profiles,
            is_external_account_required: document.meta.external_account_required,
        })
    }
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
const DIRECTORY_LIFE: SignedDuration = SignedDuration::from_hours(1);
/// Chains and directories are a hundredth of this.
const BODY_AT_MOST: usize = 1 << 20;
const USER_AGENT: &str = concat!("weir/", env!("CARGO_PKG_VERSION"));

/// `caServer`
struct Server {
    url: String,
    host: String,
    is_plain: bool,
}

impl Server {
    fn parse(text: &str) -> Result<(Self, Option<String>), String> {
        let (url, warning) = second_version(text);
        let uri = Uri::from_str(&url).map_err(|error| format!("`caServer` `{url}` is no URL: {error}"))?;
        let Some(host) = uri.host().map(str::to_ascii_lowercase) else {
            return Err(format!("`caServer` `{url}` is no absolute URL"));
        };
        let is_plain = uri.scheme() == Some(&Scheme::HTTP);
        if !is_plain && uri.scheme() != Some(&Scheme::HTTPS) {
            return Err(format!("`caServer` `{url}` must begin with `https://`"));
        }
        if is_plain && !is_loopback(&host) {
            return Err(format!("`caServer` `{url}` must begin with `https://`: plain HTTP is for this machine alone"));
        }
        Ok((Self { url, host, is_plain }, warning))
    }
}

/// The first version of the protocol has been gone since 2021; Traefik rewrites what old files say, too.
fn second_version(server: &str) -> (String, Option<String>) {
    for (first, second) in [
        ("https://acme-v01.api.letsencrypt.org", "https://acme-v02.api.letsencrypt.org"),
        ("https://acme-staging.api.letsencrypt.org", "https://acme-staging-v02.api.letsencrypt.org"),
    ] {
        if let Some(rest) = server.strip_prefix(first) {
            let url = format!("{second}{rest}");
            let warning = format!("`caServer` `{server}` speaks ACME's first version, which is gone: `{url}` is used");
            return (url, Some(warning));
        }
    }
    (server.to_owned(), None)
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}

/// Whom to trust to be the CA.
struct Trust {
    option: &'static str,
    certificates: Vec<PathBuf>,
    system_cert_pool: bool,
    server_name: Option<String>,
}

impl Trust {
    fn of(options: &Acme, environment: &Environment) -> Self {
        let named = |name: &String| Some(name.clone()).filter(|name| !name.is_empty());
        if !options.ca_certificates.is_empty() || !options.ca_server_name.is_empty() {
            return Self {
                option: "caCertificates",
                certificates: options.ca_certificates.clone(),
                system_cert_pool: options.ca_system_cert_pool,
                server_name: named(&options.ca_server_name),
            };
        }
        let paths = environment.certificates.iter().flat_map(std::env::split_paths);
        // Go's `strconv.ParseBool`.
        let is_true = |text: &String| ["1", "t", "T", "TRUE", "true", "True"].contains(&text.as_str());
        Self {
            option: "LEGO_CA_CERTIFICATES",
            certificates: paths.filter(|path| !path.as_os_str().is_empty()).collect(),
            system_cert_pool: environment.system_cert_pool.as_ref().is_some_and(is_true),
            server_name: environment.server_name.as_ref().and_then(named),
        }
    }

    fn roots(&self) -> Result<RootCertStore, String> {
        let mut roots = RootCertStore::empty();
        for path in &self.certificates {
            self.add(path, &mut roots)?;
        }
        if self.certificates.is_empty() || self.system_cert_pool {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
        if roots.is_empty() {
            return Err("the operating system has no trusted authorities: name the CA's in `caCertificates`".to_owned());
        }
        Ok(roots)
    }

    fn add(&self, path: &Path, roots: &mut RootCertStore) -> Result<(), String> {
        let wrong = |what: &str| format!("`{}`: `{}` {what}", self.option, path.display());
        let pem = fs::read(path).map_err(|error| wrong(&format!("cannot be read: {}", reason(&error))))?;
        let mut count = 0;
        for certificate in CertificateDer::pem_slice_iter(&pem) {
            let certificate = certificate.map_err(|_| wrong("is not valid PEM"))?;
            roots.add(certificate).map_err(|_| wrong("holds a certificate that cannot be read"))?;
            count += 1;
        }
        if count == 0 {
            return Err(wrong("holds no certificate in PEM"));
        }
        Ok(())
    }
}

fn client_config(roots: RootCertStore) -> Result<ClientConfig, String> {
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}
