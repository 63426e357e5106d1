//! A server that takes a request only if it can be understood in one way, and remembers what it took.
//!
//! Its parser is its own and knows no mercy: what it lets through, no server can read otherwise (RFC 9112).

use std::net::Ipv6Addr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::backend::Backend;

pub(crate) struct Strict {
    backend: Backend,
    log: Log,
}

/// A request, or why it is none.
type Log = Arc<Mutex<Vec<Result<Received, String>>>>;

#[derive(Clone, Debug, Default)]
pub(crate) struct Received {
    pub(crate) method: String,
    pub(crate) target: String,
    /// Names as they came; values one character for each byte.
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Strict {
    /// Answers 200 to each request. One that breaks off before its end is not remembered.
    pub(crate) async fn start() -> Self {
        let log = Log::default();
        let to = Arc::clone(&log);
        let backend = Backend::raw(move |stream, _| {
            let to = Arc::clone(&to);
            async move { serve(stream, &to).await }
        });
        Self { backend: backend.await, log }
    }

    pub(crate) fn url(&self) -> String {
        self.backend.url()
    }

    /// What has come since the last time.
    pub(crate) fn take(&self) -> Vec<Result<Received, String>> {
        std::mem::take(&mut *self.log.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Received {
    /// The values of a field, whose name is written in lower case.
    pub(crate) fn values(&self, name: &str) -> Vec<&str> {
        self.fields.iter().filter(|(it, _)| it.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str()).collect()
    }
}

async fn serve(stream: TcpStream, log: &Log) {
    let mut input = Input { stream, bytes: Vec::new() };
    loop {
        let received = receive(&mut input).await;
        let answer: &[u8] = match &received {
            Ok(request) if request.method == "HEAD" => b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n",
            Ok(_) => b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            Err(Wrong::Cut) => return,
            Err(Wrong::Malformed(_)) => b"HTTP/1.1 555 Malformed\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        };
        let is_good = received.is_ok();
        let entry = received.map_err(|wrong| match wrong {
            Wrong::Malformed(why) => why,
            Wrong::Cut => "cut off".to_owned(),
        });
        log.lock().unwrap_or_else(PoisonError::into_inner).push(entry);
        if input.stream.write_all(answer).await.is_err() || !is_good {
            return;
        }
    }
}

enum Wrong {
    /// The connection ended before the request did.
    Cut,
    Malformed(String),
}

fn malformed<T>(why: impl Into<String>) -> Result<T, Wrong> {
    Err(Wrong::Malformed(why.into()))
}

struct Input {
    stream: TcpStream,
    bytes: Vec<u8>,
}

impl Input {
    async fn fill(&mut self) -> Result<(), Wrong> {
        match self.stream.read_buf(&mut self.bytes).await {
            Ok(count) if count > 0 => Ok(()),
            _ => Err(Wrong::Cut),
        }
    }

    async fn exactly(&mut self, count: usize) -> Result<Vec<u8>, Wrong> {
        while self.bytes.len() < count {
            self.fill().await?;
        }
        Ok(self.bytes.drain(..count).collect())
    }

    /// A line without its end, which is CRLF and nothing else.
    async fn line(&mut self) -> Result<Vec<u8>, Wrong> {
        let end = loop {
            match self.bytes.iter().position(|byte| *byte == b'\n') {
                Some(end) => break end,
                None => self.fill().await?,
            }
        };
        let mut line = self.exactly(end + 1).await?;
        line.pop();
        if line.pop() != Some(b'\r') {
            return malformed("a line ends with LF alone");
        }
        if line.iter().any(|byte| byte.is_ascii_control() && *byte != b'\t') {
            return malformed(format!("a control character in `{}`", line.escape_ascii()));
        }
        Ok(line)
    }
}

async fn receive(input: &mut Input) -> Result<Received, Wrong> {
    let line = text(&input.line().await?);
    let parts: Vec<&str> = line.split(' ').collect();
    let [method, target, "HTTP/1.1"] = parts[..] else {
        return malformed(format!("`{line}` is no request line"));
    };
    if !is_token(method) || !is_target(method, target) {
        return malformed(format!("`{line}` is no request line"));
    }
    let mut request = Received {
        method: method.to_owned(),
        target: target.to_owned(),
        fields: fields(input).await?,
        body: Vec::new(),
    };
    check_fields(&request)?;
    match (&request.values("content-length")[..], &request.values("transfer-encoding")[..]) {
        ([], []) => {}
        ([length], []) => {
            let is_number = !length.is_empty() && length.bytes().all(|byte| byte.is_ascii_digit());
            let Some(length) = length.parse().ok().filter(|_| is_number) else {
                return malformed(format!("a content of `{length}` bytes"));
            };
            request.body = input.exactly(length).await?;
        }
        ([], ["chunked"]) => {
            request.body = chunks(input).await?;
            for (name, _) in fields(input).await? {
                if FORBIDDEN_TRAILERS.contains(&name.to_ascii_lowercase().as_str()) {
                    return malformed(format!("the trailer `{name}`"));
                }
            }
        }
        (lengths, encodings) => return malformed(format!("framed by {lengths:?} and {encodings:?}")),
    }
    Ok(request)
}

async fn fields(input: &mut Input) -> Result<Vec<(String, String)>, Wrong> {
    let mut fields = Vec::new();
    loop {
        let line = text(&input.line().await?);
        if line.is_empty() {
            return Ok(fields);
        }
        let Some((name, value)) = line.split_once(": ").filter(|(name, _)| is_token(name)) else {
            return malformed(format!("`{line}` is no field"));
        };
        if value.trim() != value {
            return malformed(format!("space around the value of `{line}`"));
        }
        fields.push((name.to_owned(), value.to_owned()));
    }
}

async fn chunks(input: &mut Input) -> Result<Vec<u8>, Wrong> {
    let mut body = Vec::new();
    loop {
        let line = text(&input.line().await?);
        let is_number = !line.is_empty() && line.bytes().all(|byte| byte.is_ascii_hexdigit());
        let Some(size) = usize::from_str_radix(&line, 16).ok().filter(|_| is_number) else {
            return malformed(format!("`{line}` is no size of a chunk"));
        };
        if size == 0 {
            return Ok(body);
        }
        body.extend(input.exactly(size).await?);
        if input.exactly(2).await? != b"\r\n" {
            return malformed("a chunk without its end");
        }
    }
}

const FORBIDDEN_TRAILERS: [&str; 10] = [
    "authorization",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "cookie",
    "host",
    "te",
    "transfer-encoding",
    "x-forwarded-for",
];

fn check_fields(request: &Received) -> Result<(), Wrong> {
    let hosts = request.values("host");
    let [host] = hosts[..] else {
        return malformed(format!("the hosts {hosts:?}"));
    };
    if !is_authority(host) {
        return malformed(format!("the host `{host}`"));
    }
    for name in ["keep-alive", "proxy-connection", "proxy-authorization", "http2-settings", "trailer"] {
        if !request.values(name).is_empty() {
            return malformed(format!("`{name}` belongs to the client's connection"));
        }
    }
    let websocket = request.values("upgrade") == ["websocket"];
    match (&request.values("connection")[..], &request.values("upgrade")[..]) {
        ([], []) | (["Upgrade"], ["websocket"]) => {}
        (connection, upgrade) => return malformed(format!("connection {connection:?}, upgrade {upgrade:?}")),
    }
    let framed = ["content-length", "transfer-encoding"].into_iter().any(|name| !request.values(name).is_empty());
    if websocket && framed {
        return malformed("an upgrade with a body");
    }
    if !matches!(request.values("te")[..], [] | ["trailers"]) {
        return malformed("TE belongs to the client's connection");
    }
    for name in ["x-forwarded-for", "x-forwarded-host", "x-forwarded-port", "x-forwarded-proto", "x-real-ip"] {
        if request.values(name).len() > 1 {
            return malformed(format!("`{name}` twice"));
        }
    }
    // Gateways to CGI and some frameworks read `_`, some `.` too, as `-`.
    let alias = request.fields.iter().map(|(name, _)| name.to_ascii_lowercase()).find(|name| {
        let folded = name.replace(['_', '.'], "-");
        folded != *name && (folded.starts_with("x-forwarded-") || MANAGED.contains(&folded.as_str()))
    });
    alias.map_or(Ok(()), |name| malformed(format!("`{name}` may be taken for another field")))
}

const MANAGED: [&str; 5] = ["content-length", "keep-alive", "transfer-encoding", "x-real-ip", "x-scheme"];

fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

/// Origin-form with no second meaning: no fragment, no dot or empty segments, nothing that should have been encoded.
fn is_target(method: &str, target: &str) -> bool {
    if target == "*" {
        return method == "OPTIONS";
    }
    let path = target.split('?').next().unwrap_or_default();
    let no_dots = path.split('/').all(|segment| segment != "." && segment != "..");
    path.starts_with('/') && no_dots && target.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#')
}

fn is_authority(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, port),
        _ => (text, ""),
    };
    let is_name = host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+;=".contains(&byte));
    let is_address = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .is_some_and(|address| address.parse::<Ipv6Addr>().is_ok());
    let is_port = port.is_empty() || port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok();
    !host.is_empty() && (is_name || is_address) && is_port
}

/// One character for each byte.
fn text(bytes: &[u8]) -> String {
    bytes.iter().copied().map(char::from).collect()
}
