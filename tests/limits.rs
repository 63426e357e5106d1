//! What clients may have together, and what is left of those that go away.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use weir::server::Load;

use crate::support::backend::Backend;
use crate::support::client::connect;
use crate::support::http2::{self, Connection, END_HEADERS, END_STREAM, HEADERS, RST_STREAM, frame};
use crate::support::proxy::{INSTALL, Proxy};
use crate::support::{eventually, read_head, route, soon};

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n";

async fn start(limits: &str, backend: &Backend) -> Proxy {
    let install = format!("{INSTALL}limits: {{{limits}}}\n");
    Proxy::start(&install, &[("a.yaml", &route("a", &backend.url()))]).await
}

/// Whether a request on the connection is answered.
async fn is_served(stream: &mut TcpStream) -> bool {
    stream.write_all(GET).await.is_ok() && read_head(stream).await.starts_with("HTTP/1.1 200 ")
}

#[tokio::test(flavor = "multi_thread")]
async fn more_connections_wait_for_others_to_end() {
    let backend = Backend::saying("hello").await;
    let proxy = start("connections: 2", &backend).await;
    let mut inside = [connect(proxy.address("web")).await, connect(proxy.address("web")).await];
    for stream in &mut inside {
        assert!(is_served(stream).await);
    }
    let mut waiting = connect(proxy.address("web")).await;
    waiting.write_all(GET).await.expect("the system takes it");
    let early = timeout(Duration::from_millis(300), waiting.read_u8()).await;
    assert!(early.is_err(), "nobody serves it yet: {early:?}");
    assert_eq!(proxy.load().connections, 2);
    let [first, _second] = inside;
    drop(first);
    assert!(read_head(&mut waiting).await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_may_have_so_many() {
    let backend = Backend::saying("hello").await;
    let proxy = start("connectionsPerClient: 2", &backend).await;
    let mut inside = [connect(proxy.address("web")).await, connect(proxy.address("web")).await];
    for stream in &mut inside {
        assert!(is_served(stream).await);
    }
    let mut refused = connect(proxy.address("web")).await;
    assert!(soon("the end", refused.read_u8()).await.is_err(), "it is closed at once");
    drop(inside);
    eventually("room for another one", async || is_served(&mut connect(proxy.address("web")).await).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_refused_when_memory_runs_out() {
    let backend = Backend::saying("hello").await;
    // Less than any process has.
    let proxy = start("memory: 1", &backend).await;
    eventually("a refusal", async || proxy.status("http://a.example/").await == 503).await;
    let mut stream = connect(proxy.address("web")).await;
    stream.write_all(GET).await.expect("the connection is new");
    let head = read_head(&mut stream).await.to_lowercase();
    assert!(head.starts_with("http/1.1 503 ") && head.contains("retry-after: 1\r\n"), "{head}");
    assert!(head.contains("connection: close\r\n"), "{head}");
    let mut connection = Connection::open(connect(proxy.address("web")).await, &[]).await;
    connection.send(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &http2::request("GET", "a.example", "/"))).await;
    assert!(connection.receive_kind(http2::GOAWAY).await.is_some());
}

/// A server that answers the head and a piece, and no more.
async fn half() -> Backend {
    Backend::raw(async |mut stream: TcpStream, _| {
        let head = read_head(&mut stream).await;
        if head.starts_with("GET /piece") {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\npiece").await;
        }
        let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_left_of_clients_that_reset() {
    const RESETS: usize = 100;

    let backend = half().await;
    let proxy = start("", &backend).await;
    // A task of each worker for each of two entry points.
    let workers = std::thread::available_parallelism().expect("the system tells").get();
    let idle = Load { connections: 0, requests: 0, tasks: 2 * workers };
    eventually("the start of all workers", async || proxy.load() == idle).await;
    for (phase, sent, in_flight) in [
        ("before a head", "", 0),
        ("in a head", "GET / HT", 0),
        ("in a body", "POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 10\r\n\r\nabc", RESETS),
        ("while the server thinks", "GET / HTTP/1.1\r\nHost: a.example\r\n\r\n", RESETS),
        ("in a response", "GET /piece HTTP/1.1\r\nHost: a.example\r\n\r\n", RESETS),
    ] {
        let mut streams = Vec::new();
        for _ in 0..RESETS {
            let mut stream = connect(proxy.address("web")).await;
            stream.write_all(sent.as_bytes()).await.expect("a new connection takes bytes");
            streams.push(stream);
        }
        eventually(phase, async || {
            let load = proxy.load();
            (load.connections, load.requests) == (RESETS, in_flight)
        })
        .await;
        for stream in &mut streams {
            if phase == "in a response" {
                read_head(stream).await;
            }
            stream.set_zero_linger().expect("an option of TCP");
        }
        drop(streams);
        eventually(&format!("nothing left of resets {phase}"), async || proxy.load() == idle).await;
    }
    let mut connection = Connection::open(connect(proxy.address("web")).await, &[]).await;
    for path in ["/", "/piece"] {
        let first = if path == "/" { 1 } else { 201 };
        for stream in (first..).step_by(2).take(RESETS) {
            let head = http2::request("GET", "a.example", path);
            connection.send(&frame(HEADERS, END_HEADERS | END_STREAM, stream, &head)).await;
        }
        eventually("the streams", async || proxy.load().requests == RESETS).await;
        for stream in (first..).step_by(2).take(RESETS) {
            connection.send(&frame(RST_STREAM, 0, stream, &[0, 0, 0, 8])).await;
        }
        eventually("the end of the streams", async || proxy.load().requests == 0).await;
    }
    drop(connection);
    eventually("nothing left of streams", async || proxy.load() == idle).await;
}
