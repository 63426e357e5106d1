//! Answers over HTTP/2 that no library would send, written frame by frame.
//!
//! What is sent is a list of `name=value`, separated by `, `. `DATA=ok` is content, and what follows it trailers. In
//! capitals are other frames. The stream ends with the last frame, unless that is `OPEN`.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::Client;
use super::rows::Outcome::{self, Cut, Passes, Refused};
use crate::support::backend::Backend;
use crate::support::client::connect;
use crate::support::proxy::{INSTALL, Proxy};
use crate::support::{soon, with_services};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PUSH_PROMISE: u8 = 5;
const GOAWAY: u8 = 7;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const PREFACE_LENGTH: usize = 24;

const ROWS: [(&str, &str, Outcome); 38] = [
    ("RFC 9113, 8.1", ":status=200, content-length=2, DATA=ok", Passes(200, "ok")),
    ("RFC 9113, 8.1", ":status=200, DATA=o, DATA=k", Passes(200, "ok")),
    ("RFC 9113, 8.1", ":status=200, DATA=ok, x-sum=1", Passes(200, "ok")),
    ("RFC 9113, 8.1", ":status=103, HEADERS, :status=200, DATA=ok", Passes(200, "ok")),
    ("RFC 9113, 8.1", "DATA=ok", Refused),
    ("RFC 9113, 8.1", ":status=200, DATA=ok, x-sum=1, OPEN", Cut),
    ("RFC 9113, 8.1.1", ":status=200, content-length=5, DATA=ok", Cut),
    ("RFC 9113, 8.1.1", ":status=200, content-length=1, DATA=ok", Cut),
    ("RFC 9113, 8.1.1", ":status=200, content-length=2", Refused),
    ("RFC 9113, 8.1.1", ":status=200, content-length=2, content-length=3, DATA=ok", Refused),
    ("RFC 9113, 8.1.1", ":status=200, content-length=x, DATA=ok", Refused),
    ("RFC 9113, 8.2.1", ":status=200, X-A=1, DATA=ok", Refused),
    ("RFC 9113, 8.2.1", ":status=200, x a=1, DATA=ok", Refused),
    ("RFC 9113, 8.2.1", ":status=200, =1, DATA=ok", Refused),
    ("RFC 9113, 8.2.1", ":status=200, x-a=a\r\nx-b: b, DATA=ok", Refused),
    ("RFC 9113, 8.2.1", ":status=200, x-a=a\nb, DATA=ok", Refused),
    ("RFC 9113, 8.2.1", ":status=200, x-a=a\0b, DATA=ok", Refused),
    ("RFC 9113, 8.2.2", ":status=200, connection=close, DATA=ok", Refused),
    ("RFC 9113, 8.2.2", ":status=200, keep-alive=timeout=5, DATA=ok", Refused),
    ("RFC 9113, 8.2.2", ":status=200, proxy-connection=close, DATA=ok", Refused),
    ("RFC 9113, 8.2.2", ":status=200, transfer-encoding=chunked, DATA=ok", Refused),
    ("RFC 9113, 8.2.2", ":status=200, upgrade=websocket, DATA=ok", Refused),
    ("RFC 9113, 8.3", ":status=200, :odd=1, DATA=ok", Refused),
    ("RFC 9113, 8.3", "x-a=1, :status=200, DATA=ok", Refused),
    ("RFC 9113, 8.3.2", "x-a=1, DATA=ok", Refused),
    ("RFC 9113, 8.3.2", ":status=200, :status=201, DATA=ok", Refused),
    ("RFC 9113, 8.3.2", ":status=20, DATA=ok", Refused),
    ("RFC 9113, 8.3.2", ":status=abc, DATA=ok", Refused),
    ("RFC 9113, 8.6", ":status=101, OPEN", Refused),
    ("RFC 9113, 8.6", ":status=101, upgrade=websocket, OPEN", Refused),
    ("RFC 9113, 8.4", "PUSH_PROMISE, :status=200, DATA=ok", Refused),
    ("RFC 9113, 5.4.2", "RST_STREAM", Refused),
    ("RFC 9113, 5.4.2", ":status=200, DATA=o, RST_STREAM", Cut),
    ("RFC 9113, 6.8", "GOAWAY, OPEN", Refused),
    ("RFC 9113, 5.1", ":status=200, DATA=o, OPEN", Cut),
    ("RFC 9113, 3.4", "HTTP/1.1, OPEN", Refused),
    // The `h2` crate forgets such pseudo-fields without a word. Nothing of them goes any further.
    ("RFC 9113, 8.3", ":status=200, :path=/, DATA=ok", Passes(200, "ok")),
    ("RFC 9113, 8.1", ":status=200, DATA=ok, :status=404", Passes(200, "ok")),
];

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_over_http2_has_one_meaning() {
    let mut backends = Vec::new();
    let (mut routers, mut services) = (String::new(), Vec::new());
    for (number, (_, sent, _)) in ROWS.into_iter().enumerate() {
        let backend = serve(sent).await;
        routers.push_str(&format!("    r{number}: {{rule: \"Host(`r{number}.example`)\", service: r{number}}}\n"));
        services.push((format!("r{number}"), backend.url().replace("http:", "h2c:")));
        backends.push(backend);
    }
    let services: Vec<(&str, String)> = services.iter().map(|(name, url)| (name.as_str(), url.clone())).collect();
    let proxy = Proxy::start(INSTALL, &[("a.yaml", &with_services(&routers, &services))]).await;
    let mut failures = String::new();
    for (number, (section, sent, expected)) in ROWS.into_iter().enumerate() {
        let stream = connect(proxy.address("web")).await;
        let answer = Client { stream, host: format!("r{number}.example") }.exchange("GET", "/").await;
        let holds = match (&answer, expected) {
            (Ok(answer), Refused) => answer.status == 502,
            (Ok(answer), Passes(status, body)) => (answer.status, answer.body.as_str()) == (status, body),
            (Err(_), Cut) => true,
            _ => false,
        };
        if !holds {
            failures.push_str(&format!("{sent:?} ({section}): {answer:?}\n"));
        }
    }
    assert!(failures.is_empty(), "\n{failures}");
}

/// Sends its frames to the first stream of each connection, and ends it a moment after them.
async fn serve(sent: &'static str) -> Backend {
    Backend::raw(move |mut stream, _| async move {
        let mut preface = [0; PREFACE_LENGTH];
        soon("a preface", stream.read_exact(&mut preface)).await.expect("a client of HTTP/2");
        drop(stream.write_all(&frame(SETTINGS, 0, 0, &[])).await);
        loop {
            let mut head = [0; 9];
            if soon("a frame", stream.read_exact(&mut head)).await.is_err() {
                return;
            }
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let mut payload = vec![0; usize::try_from(length).expect("a small number")];
            soon("a payload", stream.read_exact(&mut payload)).await.expect("a whole frame");
            if head[3] == HEADERS {
                break;
            }
        }
        drop(stream.write_all(&frames(sent)).await);
        drop(stream.shutdown().await);
        let mut rest = Vec::new();
        drop(stream.read_to_end(&mut rest).await);
    })
    .await
}

fn frames(sent: &str) -> Vec<u8> {
    let mut frames: Vec<(u8, u8, Vec<u8>)> = Vec::new();
    let mut is_open = false;
    for part in sent.split(", ") {
        match part {
            "OPEN" => is_open = true,
            "HEADERS" => frames.push((HEADERS, END_HEADERS, Vec::new())),
            "RST_STREAM" => frames.push((RST_STREAM, 0, vec![0, 0, 0, 2])),
            "GOAWAY" => frames.push((GOAWAY, 0, vec![0; 8])),
            "PUSH_PROMISE" => frames.push((PUSH_PROMISE, END_HEADERS, vec![0, 0, 0, 2, 0x82, 0x84, 0x86])),
            "HTTP/1.1" => return b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_vec(),
            _ => match part.strip_prefix("DATA=") {
                Some(content) => frames.push((DATA, 0, content.as_bytes().to_vec())),
                None => push_field(&mut frames, part),
            },
        }
    }
    if let (false, Some((DATA | HEADERS, flags, _))) = (is_open, frames.last_mut()) {
        *flags |= END_STREAM;
    }
    let stream_of = |kind| if kind == GOAWAY { 0 } else { 1 };
    frames.iter().flat_map(|(kind, flags, payload)| frame(*kind, *flags, stream_of(*kind), payload)).collect()
}

/// A literal that is not indexed (RFC 7541, section 6.2.2), in the head or the trailers that are being written.
fn push_field(frames: &mut Vec<(u8, u8, Vec<u8>)>, field: &str) {
    let at = field.char_indices().skip(1).find(|(_, letter)| *letter == '=').map_or(0, |(at, _)| at);
    let (name, value) = (&field[..at], &field[at + 1..]);
    if !matches!(frames.last(), Some((HEADERS, ..))) {
        frames.push((HEADERS, END_HEADERS, Vec::new()));
    }
    let Some((_, _, block)) = frames.last_mut() else { return };
    block.push(0);
    for text in [name, value] {
        block.push(u8::try_from(text.len()).expect("a short string"));
        block.extend(text.as_bytes());
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a short frame").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}
