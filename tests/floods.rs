//! Floods of HTTP/2 frames: each ends its connection, or does no harm, and nobody else notices.

use tokio::net::TcpStream;

use crate::support::backend::Backend;
use crate::support::client::connect;
use crate::support::http2::{
    self, ACK, CONTINUATION, Connection, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, INITIAL_WINDOW_SIZE, PING,
    PRIORITY, RST_STREAM, SETTINGS, WINDOW_UPDATE, field, frame, indexed,
};
use crate::support::proxy::{INSTALL, Proxy};
use crate::support::{eventually, route};

/// The code for a stream that its client needs no more.
const CANCEL: [u8; 4] = [0, 0, 0, 8];

async fn start(backend: &Backend) -> Proxy {
    Proxy::start(INSTALL, &[("a.yaml", &route("a", &backend.url()))]).await
}

async fn open(proxy: &Proxy) -> Connection<TcpStream> {
    Connection::open(connect(proxy.address("web")).await, &[]).await
}

/// The head of a GET, with these bytes of HPACK after it.
fn get(stream: u32, more: &[u8]) -> Vec<u8> {
    let fields = [&http2::request("GET", "a.example", "/"), more].concat();
    frame(HEADERS, END_HEADERS | END_STREAM, stream, &fields)
}

fn post(stream: u32, more: &[u8]) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, &[&http2::request("POST", "a.example", "/"), more].concat())
}

/// The numbers of a client's streams.
fn streams() -> impl Iterator<Item = u32> {
    (1..).step_by(2)
}

fn of_streams(count: usize, frames: impl Fn(u32) -> Vec<u8>) -> Vec<u8> {
    streams().take(count).flat_map(frames).collect()
}

/// Whether the proxy ends the connection by itself.
async fn ends(mut connection: Connection<TcpStream>, flood: &[u8]) -> bool {
    for piece in flood.chunks(16 << 10) {
        if !connection.send(piece).await {
            return true;
        }
    }
    // Were it still open, this would be answered.
    let question = *b"question";
    let _ = connection.send(&frame(PING, 0, 0, &question)).await;
    loop {
        match connection.receive().await {
            None => return true,
            Some(answer) if answer.kind == GOAWAY => return true,
            Some(answer) if answer.kind == PING && answer.payload == question => return false,
            Some(_) => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn floods_end_their_connection() {
    let backend = Backend::saying("hello").await;
    let proxy = start(&backend).await;
    let many = 20_000;
    let block = |kind: u8, fields: &[u8]| frame(kind, 0, 1, fields);
    let name_and_value = field("x-name", "value");
    for (name, flood) in [
        ("rapid reset", of_streams(many, |stream| [get(stream, b""), frame(RST_STREAM, 0, stream, &CANCEL)].concat())),
        // A window that grows by nothing is an error of its stream: the server must reset it.
        (
            "made-you-reset",
            of_streams(many, |stream| [get(stream, b""), frame(WINDOW_UPDATE, 0, stream, &[0; 4])].concat()),
        ),
        (
            "made-you-reset by a body that is too long",
            of_streams(many, |stream| {
                [post(stream, &field("content-length", "1")), frame(DATA, 0, stream, b"too much")].concat()
            }),
        ),
        (
            "CONTINUATION",
            [
                block(HEADERS, &http2::request("GET", "a.example", "/")),
                block(CONTINUATION, &name_and_value).repeat(many),
            ]
            .concat(),
        ),
        (
            "empty CONTINUATION",
            [block(HEADERS, &http2::request("GET", "a.example", "/")), block(CONTINUATION, b"").repeat(many)].concat(),
        ),
        // Fields of 4 KiB that cost their sender a byte each.
        ("HPACK", get(1, &[indexed("x", &"y".repeat(4000)), vec![0xbe; 8000]].concat())),
        ("tiny fields", get(1, &[indexed("a", ""), vec![0xbe; 8000]].concat())),
        ("cookie crumbs", get(1, &[indexed("cookie", "a=b"), vec![0xbe; 8000]].concat())),
        ("fields of many frames", {
            let crumbs = [indexed("cookie", "a=b"), vec![0xbe; 100]].concat();
            let head = [http2::request("GET", "a.example", "/"), crumbs].concat();
            [block(HEADERS, &head), block(CONTINUATION, &[0xbe; 100]).repeat(3)].concat()
        }),
        ("empty DATA", [post(1, b""), frame(DATA, 0, 1, b"").repeat(many)].concat()),
        ("padding", [post(1, b""), frame(DATA, 8, 1, &[1, 0]).repeat(many)].concat()),
        ("SETTINGS", frame(SETTINGS, 0, 0, b"").repeat(many)),
        ("PING", frame(PING, 0, 0, &[0; 8]).repeat(many)),
        ("answers to no PING", frame(PING, ACK, 0, &[0; 8]).repeat(many)),
        ("PRIORITY", frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 16]).repeat(many)),
        ("WINDOW_UPDATE", [post(1, b""), frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]).repeat(many)].concat()),
        ("frames of no known kind", frame(0xfa, 0, 0, b"").repeat(many)),
        ("streams beyond the limit", of_streams(many, |stream| post(stream, b""))),
    ] {
        assert!(ends(open(&proxy).await, &flood).await, "{name}");
        assert_eq!(proxy.status("http://a.example/").await, 200, "somebody else after {name}");
    }
    // Most of these never became requests, and what did has been let go.
    eventually("the end of all requests", async || {
        let load = proxy.load();
        (load.requests, load.connections) == (0, 0)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_stops_the_work_for_it() {
    let backend = Backend::raw(async |mut stream: TcpStream, _| {
        // Never answers; ends when the other side does.
        let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
    })
    .await;
    let proxy = start(&backend).await;
    let mut connection = open(&proxy).await;
    connection.send(&of_streams(50, |stream| get(stream, b""))).await;
    eventually("the requests", async || proxy.load().requests == 50).await;
    connection.send(&of_streams(50, |stream| frame(RST_STREAM, 0, stream, &CANCEL))).await;
    eventually("the end of the requests", async || proxy.load().requests == 0).await;
    assert_eq!(proxy.load().connections, 1, "the connection goes on");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_looks_like_a_flood_and_is_none() {
    let backend = Backend::start(async |_| {
        let mut response = http::Response::new(crate::support::full(vec![b'x'; 1000]));
        response.headers_mut().insert("x-answer", http::HeaderValue::from_static("1"));
        response
    })
    .await;
    let proxy = start(&backend).await;
    // As many cookies as browsers keep, a crumb each.
    let mut connection = open(&proxy).await;
    let crumbs: Vec<u8> = (0..180).flat_map(|number| field("cookie", &format!("name-{number}=value"))).collect();
    for part in [&crumbs[..], &[]] {
        let stream = if part.is_empty() { 3 } else { 1 };
        connection.send(&get(stream, part)).await;
        let answer = connection.receive_kind(HEADERS).await.expect("an answer");
        assert_eq!(answer.stream, stream);
    }
    // Frames that belong to responses: two windows for each piece, and a ping.
    let mut connection = open(&proxy).await;
    for stream in streams().take(1000) {
        let mut frames = get(stream, b"");
        frames.extend(frame(WINDOW_UPDATE, 0, 0, &1000_u32.to_be_bytes()));
        frames.extend(frame(PING, 0, 0, &[0; 8]));
        frames.extend(frame(PRIORITY, 0, stream, &[0, 0, 0, 0, 16]));
        assert!(connection.send(&frames).await, "stream {stream}");
        let answer = connection.receive_kind(DATA).await.expect("an answer");
        assert_eq!(answer.stream, stream);
    }
    // A body in small frames.
    let mut connection = open(&proxy).await;
    connection.send(&post(1, b"")).await;
    for _ in 0..200 {
        connection.send(&frame(DATA, 0, 1, &[b'x'; 300])).await;
    }
    connection.send(&frame(DATA, END_STREAM, 1, b"")).await;
    assert!(connection.receive_kind(HEADERS).await.is_some_and(|answer| answer.stream == 1));
    assert_eq!(backend.last().body.len(), 60_000);
    // Settings that change now and then.
    for window in 0..50 {
        connection.send(&http2::settings(&[(INITIAL_WINDOW_SIZE, 65_535 + window)])).await;
    }
    connection.send(&get(3, b"")).await;
    assert!(connection.receive_kind(HEADERS).await.is_some_and(|answer| answer.stream == 3));
}
