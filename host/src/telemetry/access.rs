//! The access log: which requests are logged, and with which fields.
//!
//! An entry point begins an [`Entry`] with the head of a request, fills it on the way, and logs it when the last byte
//! of the response has left. A request never waits for the disk: where the writer cannot keep up, lines are dropped
//! and counted.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context;
use http::header::{HOST, REFERER, USER_AGENT};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Version};
use jiff::Timestamp;

use super::Output;
use super::file::{LogFile, Rotation};
use super::line::{Kept, Shape};
use super::writer::Writer;
use crate::config::install::{self, AccessLogFilters, AccessLogFormat, FieldMode};

/// A running access log. Dropping it writes what is left.
#[derive(Debug)]
pub struct AccessLog {
    filters: AccessLogFilters,
    headers: Headers,
    shape: Shape,
    requests: AtomicU64,
    writer: Writer,
}

impl AccessLog {
    /// Opens the file, or standard output, and starts the writer.
    ///
    /// # Errors
    ///
    /// The file cannot be opened, or no thread can be started.
    pub fn open(config: &install::AccessLog) -> anyhow::Result<Self> {
        let output = match &config.file_path {
            // Traefik knows no limits for this file: whoever rotates it sends SIGUSR1.
            Some(path) => Output::File(
                LogFile::open(path, Rotation::default())
                    .with_context(|| format!("the access log `{}` cannot be opened", path.display()))?,
            ),
            None => Output::Stdout,
        };
        let lines = usize::try_from(config.buffering_size).unwrap_or(usize::MAX);
        Ok(Self {
            filters: config.filters.clone(),
            headers: Headers::new(config),
            shape: Shape { format: config.format, kept: Kept::new(&config.fields) },
            requests: AtomicU64::new(0),
            writer: Writer::start(output, lines.saturating_mul(LINE).clamp(LEAST_ROOM, MOST_ROOM))?,
        })
    }

    /// The entry of a request whose head has just arrived.
    pub fn begin<B>(&self, request: &Request<B>, client: SocketAddr, entry_point: &Arc<str>) -> Entry {
        let (uri, headers) = (request.uri(), request.headers());
        let host = uri.authority().and_then(|authority| HeaderValue::from_str(authority.as_str()).ok());
        Entry {
            time: Timestamp::now(),
            count: self.requests.fetch_add(1, Ordering::Relaxed) + 1,
            client,
            forwarded_for: None,
            user: None,
            entry_point: Arc::clone(entry_point),
            method: request.method().clone(),
            target: uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/")),
            protocol: request.version(),
            host: host.or_else(|| headers.get(HOST).cloned()),
            tls: None,
            request_headers: self.headers.kept(headers),
            request_size: 0,
            router: None,
            service: None,
            server: None,
            retries: 0,
            origin: None,
            status: 0,
            size: 0,
            response_headers: HeaderMap::new(),
            duration: Duration::ZERO,
        }
    }

    /// The fields of a response that lines show, for [`Origin::headers`] and [`Entry::response_headers`].
    pub fn response_headers(&self, headers: &HeaderMap) -> HeaderMap {
        match self.shape.format {
            AccessLogFormat::Json => self.headers.kept(headers),
            AccessLogFormat::Common | AccessLogFormat::GenericClf => HeaderMap::new(),
        }
    }

    /// Writes the entry's line unless the filters keep it out. Never waits.
    pub fn log(&self, entry: &Entry) {
        if self.passes(entry) {
            self.writer.push(&self.shape.line(entry));
        }
    }

    /// Opens the file anew, for whoever has renamed it. Lines logged before still go to the old one.
    pub fn reopen(&self) {
        self.writer.reopen();
    }

    /// One filter that lets the entry pass is enough; without any, all pass.
    fn passes(&self, entry: &Entry) -> bool {
        let AccessLogFilters { status_codes, retry_attempts, min_duration } = &self.filters;
        if status_codes.is_empty() && !retry_attempts && min_duration.is_zero() {
            return true;
        }
        status_codes.iter().any(|codes| codes.contains(&entry.status))
            || (*retry_attempts && entry.retries > 0)
            || (!min_duration.is_zero() && entry.duration > *min_duration)
    }
}

/// Bytes of a usual line: `bufferingSize` counts lines.
const LINE: usize = 512;

/// Bytes that may wait for the disk, whatever `bufferingSize` says.
const LEAST_ROOM: usize = 4 * 1024 * 1024;
const MOST_ROOM: usize = 256 * 1024 * 1024;

/// Facts of one request and its response.
#[derive(Clone, Debug)]
pub struct Entry {
    /// When the head had arrived.
    pub time: Timestamp,
    /// The how-manieth request since the start.
    pub count: u64,
    pub client: SocketAddr,
    /// `X-Forwarded-For` as received, if its sender is trusted: shown in place of the client's address.
    pub forwarded_for: Option<HeaderValue>,
    /// The name that the client logged in with.
    pub user: Option<String>,
    pub entry_point: Arc<str>,
    pub method: Method,
    /// Path and query as received.
    pub target: PathAndQuery,
    pub protocol: Version,
    /// The host as sent, with its port.
    pub host: Option<HeaderValue>,
    pub tls: Option<TlsFacts>,
    /// What [`AccessLog::begin`] kept.
    pub request_headers: HeaderMap,
    /// Bytes of the body that were received.
    pub request_size: u64,
    /// With its provider, such as `web@file`.
    pub router: Option<Arc<str>>,
    /// With its provider, such as `web@file`.
    pub service: Option<Arc<str>>,
    /// The URL of the server that answered or failed to.
    pub server: Option<Arc<str>>,
    pub retries: u32,
    /// What the service answered; none if a middleware answered before it.
    pub origin: Option<Origin>,
    /// The status that was sent; 101 for an upgrade.
    pub status: u16,
    /// Bytes of the body that were sent.
    pub size: u64,
    /// What [`AccessLog::response_headers`] kept of the response that was sent.
    pub response_headers: HeaderMap,
    /// From the head of the request to the end of the response.
    pub duration: Duration,
}

/// A service's answer.
#[derive(Clone, Debug, Default)]
pub struct Origin {
    pub status: u16,
    /// Bytes of its body.
    pub size: u64,
    pub duration: Duration,
    /// What [`AccessLog::response_headers`] kept.
    pub headers: HeaderMap,
}

/// What was agreed in the TLS handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TlsFacts {
    /// Such as `1.3`.
    pub version: &'static str,
    /// The IANA name of the cipher suite.
    pub cipher: &'static str,
}

/// Which header fields are kept.
#[derive(Debug)]
struct Headers {
    default: FieldMode,
    named: HashMap<HeaderName, FieldMode>,
}

impl Headers {
    fn new(config: &install::AccessLog) -> Self {
        let mode = |name: &HeaderName| {
            let named = config.fields.headers.names.iter().find(|(known, _)| known.eq_ignore_ascii_case(name.as_str()));
            named.map_or(config.fields.headers.default_mode, |(_, mode)| *mode)
        };
        if config.format != AccessLogFormat::Json {
            // The other formats show these two alone.
            let named = [REFERER, USER_AGENT].into_iter().map(|name| (name.clone(), mode(&name)));
            return Self { default: FieldMode::Drop, named: named.collect() };
        }
        // A name that no header field can have keeps nothing.
        let names = config.fields.headers.names.iter();
        let named = names.filter_map(|(name, mode)| Some((HeaderName::try_from(name.as_str()).ok()?, *mode)));
        Self { default: config.fields.headers.default_mode, named: named.collect() }
    }

    /// A copy without the dropped fields and with the redacted ones made unreadable.
    fn kept(&self, headers: &HeaderMap) -> HeaderMap {
        let mut kept = HeaderMap::new();
        if self.default == FieldMode::Drop {
            for (name, mode) in &self.named {
                for value in headers.get_all(name) {
                    keep(&mut kept, name, value, *mode);
                }
            }
            return kept;
        }
        for (name, value) in headers {
            keep(&mut kept, name, value, self.named.get(name).copied().unwrap_or(self.default));
        }
        kept
    }
}

fn keep(kept: &mut HeaderMap, name: &HeaderName, value: &HeaderValue, mode: FieldMode) {
    match mode {
        FieldMode::Drop => {}
        FieldMode::Keep => {
            kept.append(name, value.clone());
        }
        FieldMode::Redact => {
            kept.insert(name, HeaderValue::from_static("REDACTED"));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn filters_by_status_retries_and_duration() {
        let filters = |filters: AccessLogFilters| install::AccessLog { filters, ..install::AccessLog::default() };
        let status = filters(AccessLogFilters { status_codes: vec![404..=404, 500..=599], ..Default::default() });
        let retries = filters(AccessLogFilters { retry_attempts: true, ..Default::default() });
        let slow =
            filters(AccessLogFilters { min_duration: Duration::from_millis(200), ..AccessLogFilters::default() });
        for (config, code, retried, milliseconds, expected) in [
            (&filters(AccessLogFilters::default()), 200, 0, 1, true),
            (&status, 200, 0, 1, false),
            (&status, 404, 0, 1, true),
            (&status, 599, 0, 1, true),
            (&retries, 200, 0, 1, false),
            (&retries, 200, 1, 1, true),
            (&slow, 500, 0, 200, false),
            (&slow, 500, 0, 201, true),
        ] {
            let log = AccessLog::open(config).expect("standard output is there");
            let mut entry = begin(&log, &[]);
            (entry.status, entry.retries, entry.duration) = (code, retried, Duration::from_millis(milliseconds));
            assert_eq!(log.passes(&entry), expected, "{code} {retried} {milliseconds}");
        }
    }

    #[test]
    fn copies_no_header_that_is_dropped() {
        let sent = [("user-agent", "curl"), ("cookie", "secret"), ("x-test", "1"), ("x-test", "2")];
        let mut config = install::AccessLog { format: AccessLogFormat::Json, ..install::AccessLog::default() };
        let log = AccessLog::open(&config).expect("standard output is there");
        assert!(begin(&log, &sent).request_headers.is_empty());

        config.fields.headers.names = [("Cookie".to_owned(), FieldMode::Redact)].into();
        let log = AccessLog::open(&config).expect("standard output is there");
        assert_eq!(shown(&begin(&log, &sent)), ["cookie: REDACTED"]);

        config.fields.headers.default_mode = FieldMode::Keep;
        let log = AccessLog::open(&config).expect("standard output is there");
        assert_eq!(shown(&begin(&log, &sent)), ["cookie: REDACTED", "user-agent: curl", "x-test: 1", "x-test: 2"]);

        config.format = AccessLogFormat::Common;
        let log = AccessLog::open(&config).expect("standard output is there");
        assert_eq!(shown(&begin(&log, &sent)), ["user-agent: curl"]);
    }

    #[test]
    fn writes_all_lines_and_reopens_between_them() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path: PathBuf = directory.path().join("logs").join("access.log");
        let config = install::AccessLog { file_path: Some(path.clone()), ..install::AccessLog::default() };
        let log = AccessLog::open(&config).expect("opens");
        for _ in 0..1000 {
            log.log(&begin(&log, &[]));
        }
        // The writer may still be busy with the thousand: its order to reopen comes after them.
        let renamed = path.with_extension("log.1");
        fs::rename(&path, &renamed).expect("renames");
        log.reopen();
        log.log(&begin(&log, &[]));
        drop(log);
        assert_eq!(fs::read_to_string(&renamed).expect("the old file is there").lines().count(), 1000);
        let text = fs::read_to_string(&path).expect("the new file is there");
        assert!(text.contains(" 1001 \"-\" \"-\" 0ms\n") && text.lines().count() == 1, "{text}");
    }

    fn begin(log: &AccessLog, headers: &[(&str, &str)]) -> Entry {
        let request =
            headers.iter().fold(http::Request::builder(), |request, (name, value)| request.header(*name, *value));
        let request = request.body(()).expect("a valid request");
        log.begin(&request, "192.0.2.1:4711".parse().expect("an address"), &Arc::from("web"))
    }

    fn shown(entry: &Entry) -> Vec<String> {
        let headers = entry.request_headers.iter();
        let mut shown: Vec<_> =
            headers.map(|(name, value)| format!("{name}: {}", value.to_str().expect("text"))).collect();
        shown.sort();
        shown
    }
}
