//! Reads and runs the tables.
//!
//! A row is `name | what it is built on | what is sent | outcome`. `\r`, `\n`, `\t`, `\0`, `\\`, `\x7C` stand for bytes,
//! `{5*ab}` for five times `ab`. A line `@ …` has what surrounds the third column of the rows below it, at `{}`; a line
//! `& web` says which entry point they are sent to. The outcomes are
//!
//! - `to POST /x`: reaches the server once. After it `; Name: value` is a field that is there once with this value,
//!   `; -Name` one that is not there, `; body=…` the body.
//! - `own 200`: the proxy itself answers.
//! - `refused 400`: answered with this status, and the connection is closed. Nothing reaches the server.
//! - `cut 400`: the same for what is wrong in a body that is on its way already: the server never sees its end.
//! - `reset`: the stream is reset, or the connection given up. HTTP/2 alone.
//!
//! A request for `/probe` follows each row in the same write. It is answered too, as the next request and nothing else,
//! unless the connection must be closed: `refused`, `cut` and everything with `; closed`.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::{before, http2};
use crate::support::client::connect;
use crate::support::strict::{Received, Strict};

const PROBE: &[u8] = b"GET /probe HTTP/1.1\r\nHost: a.example\r\n\r\n";

/// Runs all rows of a file, of which there must be `least`.
pub(super) async fn check(file: &str, least: usize) {
    let is_http2 = file == "http2";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../tests/hostile/{file}.txt"));
    let rows = parse(&std::fs::read_to_string(path).expect("a table"), if is_http2 { http2::frames } else { unescape });
    let strict = Strict::start().await;
    let proxy = before(&strict).await;
    let mut wrong = Vec::new();
    for row in &rows {
        let address = proxy.address(&row.entry_point);
        let happened = if is_http2 { http2::send(address, &row.bytes).await } else { send(address, row).await };
        if let Err(why) = row.outcome.judge(&happened, &strict.take()) {
            wrong.push(format!("{} ({}): {why}", row.name, row.basis));
        }
    }
    assert!(rows.len() >= least, "{} rows", rows.len());
    assert!(wrong.is_empty(), "{} of {} rows of {file}:\n{}\n", wrong.len(), rows.len(), wrong.join("\n"));
}

struct Row {
    name: String,
    basis: String,
    entry_point: String,
    bytes: Vec<u8>,
    outcome: Outcome,
}

struct Outcome {
    expected: Expected,
    closed: bool,
    conditions: Vec<Condition>,
}

enum Expected {
    To { method: String, target: String },
    Own(u16),
    Refused(u16),
    Cut(u16),
    Reset,
}

enum Condition {
    Field(String, String),
    NoField(String),
    Body(Vec<u8>),
}

/// What came back.
pub(super) struct Happened {
    /// Of the final responses.
    pub(super) statuses: Vec<u16>,
    pub(super) closed: bool,
    pub(super) rest: Vec<u8>,
}

fn parse(text: &str, bytes: impl Fn(&str) -> Vec<u8>) -> Vec<Row> {
    let (mut template, mut entry_point) = ("{}".to_owned(), "web".to_owned());
    let mut rows = Vec::<Row>::new();
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if let Some(surroundings) = line.strip_prefix("@ ") {
            template = surroundings.to_owned();
            continue;
        }
        if let Some(name) = line.strip_prefix("& ") {
            entry_point = name.to_owned();
            continue;
        }
        let columns: Vec<&str> = line.split('|').map(str::trim).collect();
        let [name, basis, sent, outcome] = columns[..] else { panic!("a row has four columns: {line}") };
        assert!(rows.iter().all(|row| row.name != name), "two rows are called {name}");
        rows.push(Row {
            name: name.to_owned(),
            basis: basis.to_owned(),
            entry_point: entry_point.clone(),
            bytes: bytes(&expand(&template.replacen("{}", sent, 1))),
            outcome: Outcome::parse(outcome),
        });
    }
    rows
}

/// Writes out what is repeated.
pub(super) fn expand(text: &str) -> String {
    let Some((before, rest)) = text.split_once('{') else { return text.to_owned() };
    let (repeated, after) = rest.split_once('}').expect("a closing brace");
    let (count, what) = repeated.split_once('*').expect("`{count*text}`");
    before.to_owned() + &what.repeat(count.parse().expect("a number")) + &expand(after)
}

pub(super) fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        rest = &rest[c.len_utf8()..];
        match c {
            '\\' => {
                let letter = rest.chars().next().expect("an escape has a letter");
                rest = &rest[1..];
                bytes.push(match letter {
                    'r' => b'\r',
                    'n' => b'\n',
                    't' => b'\t',
                    '0' => 0,
                    '\\' => b'\\',
                    's' => b' ',
                    'x' => {
                        let digits = rest.get(..2).expect("two digits");
                        rest = &rest[2..];
                        u8::from_str_radix(digits, 16).expect("two hexadecimal digits")
                    }
                    other => panic!("there is no escape \\{other}"),
                });
            }
            c => bytes.extend(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    bytes
}

impl Outcome {
    fn parse(text: &str) -> Self {
        let mut parts = text.split("; ");
        let words: Vec<&str> = parts.next().expect("an outcome").split(' ').collect();
        let status = |text: &str| text.parse().expect("a status");
        let expected = match words[..] {
            ["to", method, target] => Expected::To { method: method.to_owned(), target: target.to_owned() },
            ["own", number] => Expected::Own(status(number)),
            ["refused", number] => Expected::Refused(status(number)),
            ["cut", number] => Expected::Cut(status(number)),
            ["reset"] => Expected::Reset,
            _ => panic!("there is no outcome `{text}`"),
        };
        let mut closed = matches!(expected, Expected::Refused(_) | Expected::Cut(_));
        let mut conditions = Vec::new();
        for part in parts {
            if part == "closed" {
                closed = true;
            } else if let Some(name) = part.strip_prefix('-') {
                conditions.push(Condition::NoField(name.to_owned()));
            } else if let Some(body) = part.strip_prefix("body=") {
                conditions.push(Condition::Body(unescape(body)));
            } else {
                let (name, value) = part.split_once(": ").expect("a condition");
                let value = unescape(value).into_iter().map(char::from).collect();
                conditions.push(Condition::Field(name.to_owned(), value));
            }
        }
        Self { expected, closed, conditions }
    }

    fn judge(&self, happened: &Happened, received: &[Result<Received, String>]) -> Result<(), String> {
        let (status, reaches) = match &self.expected {
            Expected::To { .. } => (200, true),
            Expected::Own(status) | Expected::Refused(status) | Expected::Cut(status) => (*status, false),
            Expected::Reset => (0, false),
        };
        let mut requests = Vec::new();
        for received in received {
            requests.push(received.as_ref().map_err(|why| format!("ambiguous at the server: {why}"))?);
        }
        let closed = self.closed || (matches!(self.expected, Expected::Reset) && happened.closed);
        let statuses = if closed { vec![status] } else { vec![status, 200] };
        if happened.statuses != statuses || !happened.rest.is_empty() {
            let rest = happened.rest.escape_ascii();
            let targets: Vec<_> = requests.iter().map(|request| &request.target).collect();
            return Err(format!("{:?} instead of {statuses:?}, server saw {targets:?} {rest}", happened.statuses));
        }
        if happened.closed != closed {
            return Err(format!("closed: {}", happened.closed));
        }
        if !closed && requests.pop().is_none_or(|probe| probe.method != "GET" || probe.target != "/probe") {
            return Err("the server has not seen the probe as it was sent".to_owned());
        }
        if requests.len() != usize::from(reaches) {
            return Err(format!("{} requests at the server: {requests:?}", requests.len()));
        }
        requests.first().map_or(Ok(()), |request| self.judge_request(request))
    }

    fn judge_request(&self, request: &Received) -> Result<(), String> {
        if let Expected::To { method, target } = &self.expected
            && (request.method != *method || request.target != *target)
        {
            return Err(format!("{} {} at the server", request.method, request.target));
        }
        for condition in &self.conditions {
            let holds = match condition {
                Condition::Field(name, value) => request.values(name) == [value],
                Condition::NoField(name) => request.values(name).is_empty(),
                Condition::Body(body) => request.body == *body,
            };
            if !holds {
                return Err(format!("not as it should be at the server: {request:?}"));
            }
        }
        Ok(())
    }
}

async fn send(address: SocketAddr, row: &Row) -> Happened {
    let mut stream = connect(address).await;
    // A proxy that refuses need not read to the end.
    drop(stream.write_all(&[&row.bytes[..], PROBE].concat()).await);
    let is_head = row.bytes.starts_with(b"HEAD ");
    let mut happened = Happened { statuses: Vec::new(), closed: false, rest: Vec::new() };
    loop {
        while let Some((status, length)) = response(&happened.rest, is_head && happened.statuses.is_empty()) {
            happened.rest.drain(..length);
            if status >= 200 {
                happened.statuses.push(status);
            }
        }
        if happened.statuses.len() >= 2 {
            return happened;
        }
        match timeout(Duration::from_secs(3), stream.read_buf(&mut happened.rest)).await {
            Ok(Ok(count)) if count > 0 => {}
            Ok(_) => {
                happened.closed = true;
                return happened;
            }
            Err(_) => return happened,
        }
    }
}

/// The status of the first response, and where it ends, if it is there as a whole.
fn response(bytes: &[u8], is_head: bool) -> Option<(u16, usize)> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
    let status = head.get(9..12).and_then(|digits| digits.parse().ok()).unwrap_or(0);
    let length = head.split("\r\n").find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
    let length = length.filter(|_| !is_head).unwrap_or(0);
    (bytes.len() >= end + length).then_some((status, end + length))
}
