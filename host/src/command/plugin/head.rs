//! Messages as `run` and `bench` make them, and what has become of one.
//!
//! A request is made as an entry point hands it to the first middleware, forwarding fields and all.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use http_body_util::BodyExt;
use serde::Serialize;

use super::arguments::Message;
use super::subject::{Outcome, content};
use crate::entrypoint::forwarded;
use crate::http::{Body, Broken, Connection, Request, Response, TlsSession};

/// A message that can be made again and again.
pub(super) struct Template<'a> {
    message: &'a Message,
    connection: Arc<Connection>,
    body: Bytes,
    response_body: Bytes,
}

/// A line of a message, before or after.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Line {
    pub(super) change: Change,
    pub(super) text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Change {
    None,
    Removed,
    Added,
}

/// What a message says: its first line, its fields, its body and the fields after that.
#[derive(Clone)]
pub(super) struct Shown {
    first: String,
    fields: HeaderMap,
    body: Bytes,
    trailers: HeaderMap,
}

impl<'a> Template<'a> {
    pub(super) fn new(message: &'a Message) -> Outcome<Self> {
        let body = content(message.body.as_ref())?;
        let response_body = content(message.response_body.as_ref())?;
        let session = || TlsSession {
            server_name: message.authority.to_str().ok().map(|host| host.split(':').next().unwrap_or(host).to_owned()),
            version: "TLSv1.3",
            cipher: "TLS_AES_128_GCM_SHA256",
            client_certificates: Vec::new(),
        };
        let client_address = HeaderValue::from_str(&message.client.ip().to_string());
        let connection = Arc::new(Connection {
            client: message.client,
            client_address: client_address.expect("an address is a field's value"),
            append_client_address: true,
            entry_point: Arc::from("web"),
            tls: message.tls.then(session),
        });
        Ok(Self { message, connection, body, response_body })
    }

    pub(super) fn is_tls(&self) -> bool {
        self.message.tls
    }

    /// How many fields a request has.
    pub(super) fn fields(&self) -> usize {
        self.request().head.headers.len()
    }

    pub(super) fn request(&self) -> Request {
        let mut request = http::Request::new(());
        *request.method_mut() = self.message.method.clone();
        *request.uri_mut() = self.message.target.clone();
        let headers = request.headers_mut();
        headers.insert(header::HOST, self.message.authority.clone());
        for (name, value) in &self.message.fields {
            if *name == header::HOST {
                headers.insert(name, value.clone());
            } else {
                headers.append(name, value.clone());
            }
        }
        framed(headers, &self.body);
        forwarded::set(headers, &self.connection, true, false, &HeaderValue::from_static("localhost"));
        let (head, ()) = request.into_parts();
        Request {
            original: head.uri.clone(),
            head,
            body: self.body.clone().into(),
            connection: Arc::clone(&self.connection),
            hops: 0,
        }
    }

    pub(super) fn response(&self) -> Response {
        let mut response = Response::new(self.response_body.clone().into());
        *response.status_mut() = self.message.status;
        response.headers_mut().extend(self.message.response_fields.iter().cloned());
        framed(response.headers_mut(), &self.response_body);
        response
    }
}

/// Says how long a body is, unless somebody has.
fn framed(headers: &mut HeaderMap, body: &Bytes) {
    if !body.is_empty() && !headers.contains_key(header::CONTENT_LENGTH) {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
    }
}

impl Shown {
    /// Reads the body, through its filter if it has one, and puts it back.
    pub(super) async fn request(request: &mut Request) -> Result<Self, Broken> {
        let (body, trailers) = read(&mut request.body).await?;
        let head = &request.head;
        let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
        Ok(Self { first: format!("{} {target}", head.method), fields: head.headers.clone(), body, trailers })
    }

    pub(super) async fn response(response: &mut Response) -> Result<Self, Broken> {
        let (body, trailers) = read(response.body_mut()).await?;
        Ok(Self { first: response.status().to_string(), fields: response.headers().clone(), body, trailers })
    }

    /// All of it, as something new.
    pub(super) fn whole(&self) -> Vec<Line> {
        let mut lines = Vec::new();
        put(&mut lines, Change::None, &self.first);
        for (name, value) in &self.fields {
            put(&mut lines, Change::None, &field(name, value));
        }
        body(&mut lines, Change::None, &self.body);
        lines
    }

    /// It line by line, with what has become of it.
    pub(super) fn become_of(&self, after: &Self) -> Vec<Line> {
        let mut lines = Vec::new();
        if self.first == after.first {
            put(&mut lines, Change::None, &self.first);
        } else {
            put(&mut lines, Change::Removed, &self.first);
            put(&mut lines, Change::Added, &after.first);
        }
        compare(&mut lines, "", &self.fields, &after.fields);
        if self.body == after.body {
            body(&mut lines, Change::None, &self.body);
        } else {
            body(&mut lines, Change::Removed, &self.body);
            body(&mut lines, Change::Added, &after.body);
        }
        compare(&mut lines, "trailer ", &self.trailers, &after.trailers);
        lines
    }
}

async fn read(body: &mut Body) -> Result<(Bytes, HeaderMap), Broken> {
    let read = std::mem::take(body).collect().await?;
    let trailers = read.trailers().cloned().unwrap_or_default();
    let bytes = read.to_bytes();
    *body = bytes.clone().into();
    Ok((bytes, trailers))
}

/// Fields line by line, with what has become of them.
fn compare(lines: &mut Vec<Line>, label: &str, before: &HeaderMap, after: &HeaderMap) {
    let new = after.keys().filter(|name| !before.contains_key(*name));
    for name in before.keys().chain(new) {
        let values = |of: &HeaderMap| of.get_all(name).iter().cloned().collect::<Vec<_>>();
        let (mut old, mut new) = (values(before), values(after));
        let common = old.iter().zip(&new).take_while(|(one, two)| one == two).count();
        let (old_rest, new_rest) = (old.split_off(common), new.split_off(common));
        for (change, values) in [(Change::None, old), (Change::Removed, old_rest), (Change::Added, new_rest)] {
            values.iter().for_each(|value| put(lines, change, &format!("{label}{}", field(name, value))));
        }
    }
}

impl Line {
    pub(super) fn is_change(&self) -> bool {
        self.change != Change::None
    }

    pub(super) fn shown(&self) -> String {
        let sign = match self.change {
            Change::None => ' ',
            Change::Removed => '-',
            Change::Added => '+',
        };
        format!("  {sign} {}", self.text).trim_end().to_owned()
    }
}

fn put(lines: &mut Vec<Line>, change: Change, text: &str) {
    lines.push(Line { change, text: text.to_owned() });
}

fn field(name: &HeaderName, value: &HeaderValue) -> String {
    format!("{name}: {}", printable(&String::from_utf8_lossy(value.as_bytes())))
}

/// A guest's text must not turn or colour the terminal.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\t' { '\u{fffd}' } else { c }).collect()
}

/// The lines of a body that is text, or its size.
fn body(lines: &mut Vec<Line>, change: Change, bytes: &Bytes) {
    if bytes.is_empty() {
        return;
    }
    put(lines, Change::None, "");
    match str::from_utf8(bytes) {
        Ok(text) => text.lines().for_each(|text| put(lines, change, &printable(text))),
        Err(_) => put(lines, change, &format!("({} bytes that are no text)", bytes.len())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(first: &str, fields: &[(&'static str, &'static str)], body: &'static str) -> Shown {
        let line = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        let mut headers = HeaderMap::new();
        for (name, value) in fields.iter().map(line) {
            headers.append(name, value);
        }
        let body = Bytes::from_static(body.as_bytes());
        Shown { first: first.to_owned(), fields: headers, body, trailers: HeaderMap::new() }
    }

    #[test]
    fn what_has_changed_is_marked() {
        let before = shown("GET /", &[("a", "1"), ("b", "1"), ("b", "2"), ("c", "1")], "old\nbody");
        let after = shown("GET /x", &[("a", "1"), ("b", "1"), ("b", "3"), ("d", "1")], "new\u{1b}[0m");
        let lines: Vec<String> = before.become_of(&after).iter().map(Line::shown).collect();
        let expected = [
            "  - GET /",
            "  + GET /x",
            "    a: 1",
            "    b: 1",
            "  - b: 2",
            "  + b: 3",
            "  - c: 1",
            "  + d: 1",
            "",
            "  - old",
            "  - body",
            "",
            "  + new\u{fffd}[0m",
        ];
        assert_eq!(lines, expected);
        let same: Vec<String> = before.become_of(&before).iter().map(Line::shown).collect();
        assert!(same.iter().all(|line| line.is_empty() || line.starts_with("    ")), "{same:?}");
    }
}
