//! Requests over HTTP/2, written frame by frame: no library would send them.
//!
//! What is sent is a list of `name=value`, separated by `, `. `DATA=hello` is content, and what follows it trailers.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::table::{Happened, unescape};
use crate::support::client::connect;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const PROBE: &str = ":method=GET, :scheme=http, :authority=a.example, :path=/probe";

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const FRAME_AT_MOST: usize = 16384;

/// The frames of a request on the first stream.
pub(super) fn frames(sent: &str) -> Vec<u8> {
    request(1, sent)
}

/// A reset stream counts as status 0.
pub(super) async fn send(address: SocketAddr, frames: &[u8]) -> Happened {
    let mut stream = connect(address).await;
    let mut happened = Happened { statuses: Vec::new(), closed: false, rest: Vec::new() };
    let opening = [PREFACE, &frame(SETTINGS, 0, 0, &[]), frames].concat();
    let mut input = Vec::new();
    for (number, bytes) in [(1, opening), (3, request(3, PROBE))] {
        // A proxy that gives the connection up need not read to the end.
        drop(stream.write_all(&bytes).await);
        let status = loop {
            while let Some(frame) = next(&mut input) {
                match frame.kind {
                    HEADERS if frame.stream == number => happened.rest = frame.payload,
                    RST_STREAM if frame.stream == number => {
                        happened.statuses.push(0);
                        happened.rest.clear();
                    }
                    GOAWAY => happened.closed = true,
                    _ => {}
                }
            }
            if happened.statuses.len() == usize::from(number == 3) + 1 {
                break None;
            }
            match status(&happened.rest) {
                Some(status) if status >= 200 => break Some(status),
                _ => {}
            }
            match timeout(Duration::from_secs(3), stream.read_buf(&mut input)).await {
                Ok(Ok(count)) if count > 0 => {}
                _ => {
                    happened.closed = true;
                    break Some(0);
                }
            }
        };
        happened.rest.clear();
        happened.statuses.extend(status);
        if happened.closed {
            break;
        }
    }
    happened
}

fn request(stream: u32, sent: &str) -> Vec<u8> {
    let mut parts = vec![(HEADERS, Vec::new())];
    for item in sent.split(", ") {
        let (name, value) = match item.strip_prefix(':').and_then(|rest| rest.split_once('=')) {
            Some((name, value)) => (format!(":{name}"), value),
            None => {
                let (name, value) = item.split_once('=').expect("name=value");
                (name.to_owned(), value)
            }
        };
        if name == "DATA" {
            parts.push((DATA, unescape(value)));
            continue;
        }
        if parts.last().is_some_and(|(kind, _)| *kind == DATA) {
            parts.push((HEADERS, Vec::new()));
        }
        if let Some((_, block)) = parts.last_mut() {
            // A literal that nobody remembers (RFC 7541, section 6.2.2).
            block.push(0);
            push_string(block, &unescape(&name));
            push_string(block, &unescape(value));
        }
    }
    let last = parts.len() - 1;
    let mut bytes = Vec::new();
    for (number, (kind, payload)) in parts.into_iter().enumerate() {
        let end = if number == last { END_STREAM } else { 0 };
        if kind == DATA {
            bytes.extend(frame(DATA, end, stream, &payload));
            continue;
        }
        let pieces: Vec<&[u8]> = payload.chunks(FRAME_AT_MOST).collect();
        for (index, piece) in pieces.iter().enumerate() {
            let whole = if index + 1 == pieces.len() { END_HEADERS } else { 0 };
            let (kind, end) = if index == 0 { (HEADERS, end) } else { (CONTINUATION, 0) };
            bytes.extend(frame(kind, whole | end, stream, piece));
        }
    }
    bytes
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a short frame").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// RFC 7541, section 5.2, without Huffman's code.
fn push_string(block: &mut Vec<u8>, text: &[u8]) {
    match u8::try_from(text.len()) {
        Ok(length) if length < 127 => block.push(length),
        _ => {
            block.push(127);
            let mut rest = text.len() - 127;
            while rest >= 128 {
                block.push(u8::try_from(rest % 128 + 128).expect("a byte"));
                rest /= 128;
            }
            block.push(u8::try_from(rest).expect("a byte"));
        }
    }
    block.extend_from_slice(text);
}

struct Frame {
    kind: u8,
    stream: u32,
    payload: Vec<u8>,
}

fn next(input: &mut Vec<u8>) -> Option<Frame> {
    let head = input.first_chunk::<9>()?;
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
    let (kind, stream) = (head[3], u32::from_be_bytes([head[5], head[6], head[7], head[8]]));
    if input.len() < 9 + length {
        return None;
    }
    let payload = input.drain(..9 + length).skip(9).collect();
    Some(Frame { kind, stream, payload })
}

/// The status, with which each block of response fields begins (RFC 7541, sections 6 and A).
fn status(block: &[u8]) -> Option<u16> {
    const STATIC: [u16; 7] = [200, 204, 206, 304, 400, 404, 500];
    match block {
        [size, rest @ ..] if size & 0xE0 == 0x20 => status(rest),
        [index @ 0x88..=0x8E, ..] => Some(STATIC[usize::from(index - 0x88)]),
        [0x08 | 0x18 | 0x48, 3, digits @ ..] => str::from_utf8(digits.get(..3)?).ok()?.parse().ok(),
        // Huffman's code: three digits, of five bits up to 2 and of six from 3.
        [0x08 | 0x18 | 0x48, length @ 0x82..=0x83, bytes @ ..] => {
            let bytes = bytes.get(..usize::from(length - 0x80))?;
            let mut bits =
                bytes.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (32 - 8 * bytes.len());
            let mut number = 0;
            for _ in 0..3 {
                let five = bits >> 27;
                let (digit, length) = if five <= 2 { (five, 5) } else { ((bits >> 26) - 0b01_1001 + 3, 6) };
                number = number * 10 + u16::try_from(digit).ok()?;
                bits <<= length;
            }
            Some(number)
        }
        _ => None,
    }
}
