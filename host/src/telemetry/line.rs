//! One access-log entry as a line, in Traefik's three formats.
//!
//! Whatever a client sends, a line stays one line and its fields keep their bounds: control characters are written as
//! `\xNN`, quotes and backslashes behind a backslash.

use std::fmt;
use std::io::Write;

use http::header::{REFERER, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Version};
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};

use super::access::{Entry, Origin};
use super::format::{rfc3339, rfc3339_nanoseconds};
use crate::config::install::{AccessLogFields, AccessLogFormat, FieldMode};

/// How lines look.
#[derive(Debug)]
pub(super) struct Shape {
    pub(super) format: AccessLogFormat,
    pub(super) kept: Kept,
}

impl Shape {
    /// The entry's line with its end.
    pub(super) fn line(&self, entry: &Entry) -> Vec<u8> {
        let mut line = Vec::with_capacity(1024);
        match self.format {
            AccessLogFormat::Common => {
                self.generic(entry, &mut line);
                self.traefik(entry, &mut line);
            }
            AccessLogFormat::GenericClf => self.generic(entry, &mut line),
            AccessLogFormat::Json => self.json(entry, &mut line),
        }
        line.push(b'\n');
        line
    }

    /// `host - user [time] "GET /p HTTP/1.1" status size "referer" "user-agent"`.
    fn generic(&self, entry: &Entry, line: &mut Vec<u8>) {
        bare(line, self.text(Field::ClientHost, client_host(entry).as_bytes()));
        line.extend(b" - ");
        word(line, self.text(Field::ClientUsername, entry.user.as_deref().unwrap_or_default().as_bytes()));
        put(line, format_args!(" [{}] \"", self.clf_time(entry.time)));
        bare(line, self.text(Field::RequestMethod, entry.method.as_str().as_bytes()));
        line.push(b' ');
        bare(line, self.text(Field::RequestPath, entry.target.as_str().as_bytes()));
        line.push(b' ');
        bare(line, self.text(Field::RequestProtocol, protocol(entry.protocol).as_bytes()));
        line.extend(b"\" ");
        self.number(line, Field::DownstreamStatus, entry.status.into());
        line.push(b' ');
        self.number(line, Field::DownstreamContentSize, entry.size);
        for name in [REFERER, USER_AGENT] {
            line.push(b' ');
            let value = entry.request_headers.get(name).map_or(&b""[..], HeaderValue::as_bytes);
            quoted(line, value);
        }
    }

    /// ` count "router" "url" 12ms`.
    fn traefik(&self, entry: &Entry, line: &mut Vec<u8>) {
        line.push(b' ');
        self.number(line, Field::RequestCount, entry.count);
        line.push(b' ');
        quoted(line, self.text(Field::RouterName, entry.router.as_deref().unwrap_or_default().as_bytes()));
        line.push(b' ');
        quoted(line, self.text(Field::ServiceURL, entry.server.as_deref().unwrap_or_default().as_bytes()));
        let duration = if self.kept.has(Field::Duration) { entry.duration.as_millis() } else { 0 };
        put(line, format_args!(" {duration}ms"));
    }

    /// UTC; local time if only that is kept, as in Traefik.
    fn clf_time(&self, time: Timestamp) -> String {
        let zone = if self.kept.has(Field::StartUTC) {
            TimeZone::UTC
        } else if self.kept.has(Field::StartLocal) {
            TimeZone::system()
        } else {
            return "-".to_owned();
        };
        time.to_zoned(zone).strftime("%d/%b/%Y:%H:%M:%S %z").to_string()
    }

    fn text<'a>(&self, field: Field, text: &'a [u8]) -> &'a [u8] {
        if self.kept.has(field) { text } else { b"" }
    }

    fn number(&self, line: &mut Vec<u8>, field: Field, number: u64) {
        if self.kept.has(field) {
            put(line, format_args!("{number}"));
        } else {
            line.push(b'-');
        }
    }

    /// Keys in the order of their bytes, times in nanoseconds, as Traefik's.
    fn json(&self, entry: &Entry, line: &mut Vec<u8>) {
        let mut object = Object { line, kept: self.kept };
        object.line.push(b'{');
        json_client(entry, &mut object);
        json_response(entry, &mut object);
        json_request(entry, &mut object);
        json_route(entry, &mut object);
        json_start(entry, &mut object);
        json_headers("downstream_", &entry.response_headers, &mut object);
        object.text(Field::EntryPointName, &entry.entry_point);
        object.key("level", "info");
        object.key("msg", "");
        if let Some(origin) = &entry.origin {
            json_headers("origin_", &origin.headers, &mut object);
        }
        json_headers("request_", &entry.request_headers, &mut object);
        object.key("time", &rfc3339(&Zoned::now()));
        object.line.push(b'}');
    }
}

fn json_client(entry: &Entry, object: &mut Object<'_>) {
    object.text(Field::ClientAddr, &entry.client.to_string());
    object.text(Field::ClientHost, &client_host(entry));
    object.text(Field::ClientPort, &entry.client.port().to_string());
    object.text(Field::ClientUsername, entry.user.as_deref().unwrap_or("-"));
}

fn json_response(entry: &Entry, object: &mut Object<'_>) {
    object.number(Field::DownstreamContentSize, entry.size);
    object.number(Field::DownstreamStatus, entry.status);
    object.number(Field::Duration, entry.duration.as_nanos());
    let answered = entry.origin.is_some() || entry.router.is_some();
    let nothing = Origin::default();
    let origin = entry.origin.as_ref().unwrap_or(&nothing);
    if entry.size != 0 && origin.size != 0 && origin.size != entry.size {
        #[expect(clippy::cast_precision_loss, reason = "a ratio for people to look at")]
        object.number(Field::GzipRatio, origin.size as f64 / entry.size as f64);
    }
    if answered {
        object.number(Field::OriginContentSize, origin.size);
        object.number(Field::OriginDuration, origin.duration.as_nanos());
        object.number(Field::OriginStatus, origin.status);
    }
    object.number(Field::Overhead, entry.duration.saturating_sub(origin.duration).as_nanos());
}

fn json_request(entry: &Entry, object: &mut Object<'_>) {
    let host = entry.host.as_ref().map(|host| String::from_utf8_lossy(host.as_bytes()));
    if let Some(address) = &host {
        object.text(Field::RequestAddr, address);
    }
    object.number(Field::RequestContentSize, entry.request_size);
    object.number(Field::RequestCount, entry.count);
    let (name, port) = host.as_deref().map_or(("", "-"), split_port);
    if host.is_some() {
        object.text(Field::RequestHost, name);
    }
    object.text(Field::RequestMethod, entry.method.as_str());
    object.text(Field::RequestPath, entry.target.as_str());
    if host.is_some() {
        object.text(Field::RequestPort, port);
    }
    object.text(Field::RequestProtocol, protocol(entry.protocol));
    object.text(Field::RequestScheme, if entry.tls.is_some() { "https" } else { "http" });
}

fn json_route(entry: &Entry, object: &mut Object<'_>) {
    object.number(Field::RetryAttempts, entry.retries);
    if let Some(router) = &entry.router {
        object.text(Field::RouterName, router);
    }
    if let Some(server) = &entry.server {
        object.text(Field::ServiceAddr, address(server));
    }
    if let Some(service) = &entry.service {
        object.text(Field::ServiceName, service);
    }
    if let Some(server) = &entry.server {
        object.text(Field::ServiceURL, server);
    }
}

fn json_start(entry: &Entry, object: &mut Object<'_>) {
    if object.kept.has(Field::StartLocal) {
        let local = entry.time.to_zoned(TimeZone::system());
        let text = if local.offset().is_zero() {
            rfc3339_nanoseconds(entry.time)
        } else {
            local.strftime("%Y-%m-%dT%H:%M:%S%.f%:z").to_string()
        };
        object.text(Field::StartLocal, &text);
    }
    if object.kept.has(Field::StartUTC) {
        object.text(Field::StartUTC, &rfc3339_nanoseconds(entry.time));
    }
    if let Some(tls) = entry.tls {
        object.text(Field::TLSCipher, tls.cipher);
        object.text(Field::TLSVersion, tls.version);
    }
}

fn json_headers(prefix: &str, headers: &HeaderMap, object: &mut Object<'_>) {
    for name in headers.keys() {
        let values: Vec<_> =
            headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
        object.key(&format!("{prefix}{}", canonical(name)), &values.join(","));
    }
}

/// A JSON object under way.
struct Object<'a> {
    line: &'a mut Vec<u8>,
    kept: Kept,
}

impl Object<'_> {
    fn text(&mut self, field: Field, value: &str) {
        if self.kept.has(field) {
            self.name(field);
            json_text(self.line, value);
        }
    }

    fn number(&mut self, field: Field, value: impl fmt::Display) {
        if self.kept.has(field) {
            self.name(field);
            put(self.line, format_args!("{value}"));
        }
    }

    fn key(&mut self, key: &str, value: &str) {
        self.separate();
        json_text(self.line, key);
        self.line.push(b':');
        json_text(self.line, value);
    }

    /// Names of fields need no escapes.
    fn name(&mut self, field: Field) {
        self.separate();
        self.line.push(b'"');
        self.line.extend_from_slice(field.name().as_bytes());
        self.line.extend_from_slice(b"\":");
    }

    fn separate(&mut self) {
        if self.line.last() != Some(&b'{') {
            self.line.push(b',');
        }
    }
}

fn json_text(line: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(line, text).expect("a string is written to memory");
}

/// Which fields `accessLog.fields` keeps, one bit each.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Kept(u64);

impl Kept {
    pub(super) fn new(fields: &AccessLogFields) -> Self {
        let mut kept = 0;
        for field in Field::ALL {
            let named = fields.names.iter().find(|(name, _)| name.eq_ignore_ascii_case(field.name()));
            // `redact` is for header fields; Traefik falls back to the default mode.
            let dropped = match named.map(|(_, mode)| mode) {
                Some(FieldMode::Drop) => true,
                Some(FieldMode::Keep) => false,
                Some(FieldMode::Redact) | None => fields.default_mode == FieldMode::Drop,
            };
            kept |= u64::from(!dropped) << *field as u32;
        }
        Self(kept)
    }

    fn has(self, field: Field) -> bool {
        self.0 & (1 << field as u32) != 0
    }
}

macro_rules! fields {
    ($($field:ident = $name:literal),* $(,)?) => {
        /// A field that `accessLog.fields.names` can name.
        #[derive(Clone, Copy, Debug, PartialEq)]
        enum Field { $($field),* }

        impl Field {
            const ALL: &[Self] = &[$(Self::$field),*];

            fn name(self) -> &'static str {
                match self { $(Self::$field => $name),* }
            }
        }
    };
}

fields! {
    ClientAddr = "ClientAddr",
    ClientHost = "ClientHost",
    ClientPort = "ClientPort",
    ClientUsername = "ClientUsername",
    DownstreamContentSize = "DownstreamContentSize",
    DownstreamStatus = "DownstreamStatus",
    Duration = "Duration",
    EntryPointName = "entryPointName",
    GzipRatio = "GzipRatio",
    OriginContentSize = "OriginContentSize",
    OriginDuration = "OriginDuration",
    OriginStatus = "OriginStatus",
    Overhead = "Overhead",
    RequestAddr = "RequestAddr",
    RequestContentSize = "RequestContentSize",
    RequestCount = "RequestCount",
    RequestHost = "RequestHost",
    RequestMethod = "RequestMethod",
    RequestPath = "RequestPath",
    RequestPort = "RequestPort",
    RequestProtocol = "RequestProtocol",
    RequestScheme = "RequestScheme",
    RetryAttempts = "RetryAttempts",
    RouterName = "RouterName",
    ServiceAddr = "ServiceAddr",
    ServiceName = "ServiceName",
    ServiceURL = "ServiceURL",
    StartLocal = "StartLocal",
    StartUTC = "StartUTC",
    TLSCipher = "TLSCipher",
    TLSVersion = "TLSVersion",
}

fn client_host(entry: &Entry) -> String {
    match &entry.forwarded_for {
        Some(chain) if !chain.is_empty() => String::from_utf8_lossy(chain.as_bytes()).into_owned(),
        _ => entry.client.ip().to_string(),
    }
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_09 => "HTTP/0.9",
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2.0",
        Version::HTTP_3 => "HTTP/3.0",
        _ => "HTTP/1.1",
    }
}

/// Host and port, as Go splits them: without a port the whole is the host.
fn split_port(address: &str) -> (&str, &str) {
    let Some((host, port)) = address.rsplit_once(':') else {
        return (address, "-");
    };
    match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(host) => (host, port),
        None if host.contains(':') => (address, "-"),
        None => (host, port),
    }
}

/// Host and port of a server's URL.
fn address(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.split('/').next().unwrap_or(rest)
}

/// Go's spelling of a header field's name: `x-real-ip` is `X-Real-Ip`.
fn canonical(name: &HeaderName) -> String {
    let mut start = true;
    let letters = name.as_str().chars().map(|letter| {
        let shown = if start { letter.to_ascii_uppercase() } else { letter };
        start = letter == '-';
        shown
    });
    letters.collect()
}

/// Text whose end the format shows in another way; `-` for none.
fn bare(line: &mut Vec<u8>, text: &[u8]) {
    if text.is_empty() {
        return line.push(b'-');
    }
    escape(line, text, false);
}

/// Text that ends at the first space; `-` for none.
fn word(line: &mut Vec<u8>, text: &[u8]) {
    if text.is_empty() {
        return line.push(b'-');
    }
    escape(line, text, true);
}

/// Text in quotes; `"-"` for none.
fn quoted(line: &mut Vec<u8>, text: &[u8]) {
    line.push(b'"');
    bare(line, text);
    line.push(b'"');
}

/// `spaces`: whether they are escaped too.
fn escape(line: &mut Vec<u8>, text: &[u8], spaces: bool) {
    let plain = |byte: &u8| matches!(byte, b'!'..=b'~') && !matches!(byte, b'"' | b'\\') || (*byte == b' ' && !spaces);
    if text.iter().all(plain) {
        return line.extend_from_slice(text);
    }
    for chunk in text.utf8_chunks() {
        for c in chunk.valid().chars() {
            let mut bytes = [0; 4];
            let bytes = c.encode_utf8(&mut bytes).as_bytes();
            match c {
                '"' | '\\' => line.extend([b'\\', bytes[0]]),
                c if c.is_control() || (c == ' ' && spaces) => hexadecimal(line, bytes),
                _ => line.extend(bytes),
            }
        }
        hexadecimal(line, chunk.invalid());
    }
}

fn hexadecimal(line: &mut Vec<u8>, bytes: &[u8]) {
    for byte in bytes {
        put(line, format_args!("\\x{byte:02x}"));
    }
}

fn put(line: &mut Vec<u8>, text: fmt::Arguments<'_>) {
    line.write_fmt(text).expect("memory can be written to");
}

#[cfg(test)]
mod tests;
