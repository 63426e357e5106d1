//! Clients that take their time, by intent or by accident: each is let go after its deadline, and nobody else is.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Barrier;
use tokio::time::{Instant, interval, sleep};

use crate::support::backend::Backend;
use crate::support::client::{connect, secure_stream, trusting};
use crate::support::http2::{
    self, Connection, DATA, END_HEADERS, END_STREAM, HEADERS, INITIAL_WINDOW_SIZE, PREFACE, RST_STREAM, field, frame,
};
use crate::support::proxy::Proxy;
use crate::support::websocket::WebSocket;
use crate::support::{eventually, read_head, route, soon};

/// Each deadline of these tests, but for those that would hide it.
const LIMIT: Duration = Duration::from_millis(500);
const NEVER: Duration = Duration::from_secs(3600);

/// Longer than any deadline of these tests: whoever may be silent for so long may be so for ever.
const LONG: Duration = Duration::from_millis(1500);

fn install(transport: &str) -> String {
    format!(
        "
providers: {{providersThrottleDuration: 0s, file: {{directory: $DIR/routing}}}}
entryPoints:
  web: {{address: \"127.0.0.1:0\", transport: {{{transport}}}}}
  websecure: {{address: \"127.0.0.1:0\", transport: {{{transport}}}}}
"
    )
}

/// A proxy before the server, whose deadlines are all [`NEVER`] but for the one that is named.
async fn with_deadline(name: &str, backend: &Backend) -> Proxy {
    let deadlines: Vec<String> = ["handshake", "head", "body", "idle", "http2Idle", "send"]
        .into_iter()
        .map(|known| format!("{known}: {}ms", if known == name { LIMIT } else { NEVER }.as_millis()))
        .collect();
    let install = install(&format!("deadlines: {{{}}}", deadlines.join(", ")));
    Proxy::start(&install, &[("a.yaml", &route("a", &backend.url()))]).await
}

/// How long it takes until the proxy ends the connection; bytes that come before are skipped.
async fn end(stream: &mut (impl AsyncRead + Unpin)) -> Duration {
    let begun = Instant::now();
    let mut bytes = [0; 4096];
    while soon("the end of the connection", stream.read(&mut bytes)).await.is_ok_and(|count| count > 0) {}
    begun.elapsed()
}

/// The deadline has passed, and not much more: the machine may be busy.
fn is_in_time(elapsed: Duration) -> bool {
    elapsed > LIMIT.mul_f32(0.9) && elapsed < LIMIT * 8
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_must_say_something() {
    let backend = Backend::saying("hello").await;
    let proxy = with_deadline("handshake", &backend).await;
    for (entry_point, bytes) in [("web", &b""[..]), ("web", b"P"), ("web", b"PR"), ("websecure", b"\x16\x03\x01")] {
        let mut stream = connect(proxy.address(entry_point)).await;
        stream.write_all(bytes).await.expect("a new connection takes bytes");
        let elapsed = end(&mut stream).await;
        assert!(is_in_time(elapsed), "{bytes:?}: {elapsed:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_must_be_complete() {
    let backend = Backend::saying("hello").await;
    let proxy = with_deadline("head", &backend).await;
    for bytes in ["GET / HT", "GET / HTTP/1.1\r\nHost: a.example\r\nX-Lo"] {
        let mut stream = connect(proxy.address("web")).await;
        stream.write_all(bytes.as_bytes()).await.expect("a new connection takes bytes");
        let elapsed = end(&mut stream).await;
        assert!(is_in_time(elapsed), "{bytes}: {elapsed:?}");
    }
    // The same on a connection that has served already, and with TLS, whose handshake does not count.
    let mut stream = connect(proxy.address("web")).await;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n").await.expect("the connection is new");
    read_head(&mut stream).await;
    stream.write_all(b"GE").await.expect("the connection is kept");
    assert!(is_in_time(end(&mut stream).await));
    let mut stream = secure_stream(proxy.address("websecure"), "a.example", trusting()).await.expect("a handshake");
    assert!(is_in_time(end(&mut stream).await));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_does_not_win_time_by_single_bytes() {
    let backend = Backend::saying("hello").await;
    let proxy = with_deadline("head", &backend).await;
    let (mut reads, mut writes) = connect(proxy.address("web")).await.into_split();
    writes.write_all(b"GET / HTTP/1.1\r\nHost: a.example\r\nX: ").await.expect("a new connection takes bytes");
    let dripping = tokio::spawn(async move {
        let mut ticks = interval(LIMIT / 10);
        while writes.write_all(b"x").await.is_ok() {
            ticks.tick().await;
        }
    });
    let elapsed = end(&mut reads).await;
    assert!(is_in_time(elapsed), "{elapsed:?}");
    soon("the end of the drip", dripping).await.expect("no panic");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_must_go_on_coming() {
    let backend = Backend::saying("hello").await;
    let proxy = with_deadline("body", &backend).await;
    for head in
        ["Content-Length: 10\r\n\r\nabc", "Transfer-Encoding: chunked\r\n\r\n5\r\nab", "Content-Length: 1\r\n\r\n"]
    {
        let mut stream = connect(proxy.address("web")).await;
        let request = format!("POST / HTTP/1.1\r\nHost: a.example\r\n{head}");
        stream.write_all(request.as_bytes()).await.expect("a new connection takes bytes");
        let elapsed = end(&mut stream).await;
        assert!(is_in_time(elapsed), "{head}: {elapsed:?}");
    }
    // One that goes on is not ended, however long it takes.
    let mut stream = connect(proxy.address("web")).await;
    stream.write_all(b"POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 20\r\n\r\n").await.expect("it is new");
    let mut ticks = interval(LIMIT / 5);
    for _ in 0..20 {
        ticks.tick().await;
        stream.write_all(b"x").await.expect("the body is steady");
    }
    assert!(read_head(&mut stream).await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_body_of_a_stream_must_go_on_coming() {
    let backend = Backend::saying("hello").await;
    let proxy = with_deadline("body", &backend).await;
    let mut connection = Connection::open(connect(proxy.address("web")).await, &[]).await;
    let upload = |kind: &str| [http2::request("POST", "a.example", "/"), field("content-type", kind)].concat();
    let begun = Instant::now();
    // What is in a conversation may be silent: the idle time of HTTP/2 holds for it.
    for (stream, kind) in [(1, "application/grpc"), (3, "text/plain")] {
        connection.send(&frame(HEADERS, END_HEADERS, stream, &upload(kind))).await;
        connection.send(&frame(DATA, 0, stream, b"abc")).await;
    }
    let reset = connection.receive_kind(RST_STREAM).await.expect("the connection goes on");
    assert_eq!(reset.stream, 3);
    assert!(is_in_time(begun.elapsed()), "{:?}", begun.elapsed());
    connection.send(&frame(DATA, END_STREAM, 1, b"def")).await;
    let answer = connection.receive_kind(HEADERS).await.expect("the connection goes on");
    assert_eq!(answer.stream, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_end() {
    let backend = Backend::saying("hello").await;
    let proxy = with_deadline("idle", &backend).await;
    let mut stream = connect(proxy.address("web")).await;
    for _ in 0..2 {
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n").await.expect("the connection is kept");
        assert!(read_head(&mut stream).await.starts_with("HTTP/1.1 200 "));
        soon("the body", stream.read_exact(&mut [0; 5])).await.expect("a body");
        sleep(LIMIT / 2).await;
    }
    let elapsed = end(&mut stream).await;
    assert!(elapsed < LIMIT * 8, "{elapsed:?}");
    // The first request has another deadline.
    let mut stream = connect(proxy.address("web")).await;
    sleep(LIMIT * 2).await;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n").await.expect("the connection is kept");
    assert!(read_head(&mut stream).await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_http2_connections_end() {
    let backend = Backend::saying("hello").await;
    let proxy = with_deadline("http2Idle", &backend).await;
    let mut connection = Connection::open(connect(proxy.address("web")).await, &[]).await;
    let elapsed = end(&mut connection.0).await;
    assert!(is_in_time(elapsed), "{elapsed:?}");

    let mut connection = Connection::open(connect(proxy.address("web")).await, &[]).await;
    for stream in [1, 3] {
        let head = http2::request("GET", "a.example", "/");
        connection.send(&frame(HEADERS, END_HEADERS | END_STREAM, stream, &head)).await;
        assert_eq!(connection.receive_kind(HEADERS).await.expect("an answer").stream, stream);
        sleep(LIMIT / 2).await;
    }
    let elapsed = end(&mut connection.0).await;
    assert!(elapsed < LIMIT * 8, "{elapsed:?}");
}

/// More than the buffers of two sockets hold.
const LARGE: usize = 64 << 20;

/// A server that answers with [`LARGE`] bytes.
async fn lavish() -> Backend {
    Backend::raw(async |mut stream: TcpStream, _| {
        read_head(&mut stream).await;
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {LARGE}\r\n\r\n");
        if stream.write_all(head.as_bytes()).await.is_err() {
            return;
        }
        let piece = vec![b'x'; 1 << 20];
        for _ in 0..LARGE / piece.len() {
            if stream.write_all(&piece).await.is_err() {
                return;
            }
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_must_be_taken() {
    let backend = lavish().await;
    let proxy = with_deadline("send", &backend).await;
    let mut stream = connect(proxy.address("web")).await;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n").await.expect("the connection is new");
    sleep(LIMIT * 4).await;
    let mut taken = 0;
    let mut bytes = vec![0; 1 << 20];
    while let Ok(count @ 1..) = soon("the end of the connection", stream.read(&mut bytes)).await {
        taken += count;
    }
    assert!(taken < LARGE, "all of it came");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_may_be_taken_slowly() {
    let backend = lavish().await;
    let proxy = with_deadline("send", &backend).await;
    let mut stream = connect(proxy.address("web")).await;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n").await.expect("the connection is new");
    let mut bytes = vec![0; 64 << 10];
    let mut ticks = interval(LIMIT / 10);
    for _ in 0..50 {
        ticks.tick().await;
        soon("more", stream.read_exact(&mut bytes)).await.expect("the connection goes on");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_without_a_window_ends() {
    let backend = Backend::saying("hello").await;
    let proxy = with_deadline("send", &backend).await;
    let mut connection = Connection::open(connect(proxy.address("web")).await, &[(INITIAL_WINDOW_SIZE, 0)]).await;
    let begun = Instant::now();
    let head = http2::request("GET", "a.example", "/");
    connection.send(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &head)).await;
    let reset = connection.receive_kind(RST_STREAM).await.expect("the connection goes on");
    assert_eq!(reset.stream, 1);
    assert!(is_in_time(begun.elapsed()), "{:?}", begun.elapsed());
}

/// Deadlines that are all over while the server thinks.
async fn hasty(backend: &Backend) -> Proxy {
    let names = ["handshake", "head", "body", "idle", "http2Idle", "send"];
    let deadlines = names.map(|name| format!("{name}: {}ms", LIMIT.as_millis())).join(", ");
    let install = install(&format!("deadlines: {{{deadlines}}}"));
    Proxy::start(&install, &[("a.yaml", &route("a", &backend.url()))]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_window_that_opens_byte_by_byte_is_no_open_window() {
    const WINDOW_UPDATE: u8 = 8;

    let backend = Backend::saying("hello, hello, hello, hello").await;
    let proxy = with_deadline("send", &backend).await;
    let mut connection = Connection::open(connect(proxy.address("web")).await, &[(INITIAL_WINDOW_SIZE, 0)]).await;
    let head = http2::request("GET", "a.example", "/");
    connection.send(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &head)).await;
    assert_eq!(connection.receive_kind(HEADERS).await.expect("an answer").stream, 1);
    let begun = Instant::now();
    let (mut reads, mut writes) = connection.0.into_split();
    let dripping = tokio::spawn(async move {
        let mut ticks = interval(LIMIT / 4);
        while writes.write_all(&frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1])).await.is_ok() {
            ticks.tick().await;
        }
    });
    end(&mut reads).await;
    assert!(is_in_time(begun.elapsed()), "{:?}", begun.elapsed());
    dripping.abort();
}

fn gets(count: u32) -> Vec<u8> {
    let head = http2::request("GET", "a.example", "/");
    (0..count).flat_map(|number| frame(HEADERS, END_HEADERS | END_STREAM, 2 * number + 1, &head)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_of_who_takes_nothing_wait_for_their_turn() {
    let backend = Backend::saying("hello").await;
    let proxy = with_deadline("idle", &backend).await;
    let mut connection = Connection::open(connect(proxy.address("web")).await, &[(INITIAL_WINDOW_SIZE, 0)]).await;
    connection.send(&gets(100)).await;
    assert!(connection.receive_kind(HEADERS).await.is_some(), "the first have their turn");
    sleep(LIMIT).await;
    let begun = backend.seen().len();
    assert!((1..20).contains(&begun), "{begun} of 100");
    connection.send(&http2::settings(&[(INITIAL_WINDOW_SIZE, 65_535)])).await;
    for _ in 1..100 {
        assert!(connection.receive_kind(HEADERS).await.is_some(), "the others come after them");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_wait_for_their_turn_for_as_long_as_for_room() {
    let backend = Backend::saying("hello").await;
    let proxy = with_deadline("send", &backend).await;
    let mut connection = Connection::open(connect(proxy.address("web")).await, &[(INITIAL_WINDOW_SIZE, 0)]).await;
    connection.send(&gets(30)).await;
    for _ in 0..30 {
        assert!(connection.receive_kind(RST_STREAM).await.is_some(), "the connection goes on");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_streams_may_wait_for_a_server() {
    const MANY: u32 = 100;

    // None is answered before all are there.
    let all = Arc::new(Barrier::new(MANY as usize));
    let backend = Backend::start(move |_| {
        let all = Arc::clone(&all);
        async move {
            all.wait().await;
            http::Response::new(crate::support::full("hello"))
        }
    })
    .await;
    let proxy = with_deadline("idle", &backend).await;
    let mut connection = Connection::open(connect(proxy.address("web")).await, &[]).await;
    connection.send(&gets(MANY)).await;
    for _ in 0..MANY {
        assert!(connection.receive_kind(HEADERS).await.is_some(), "an answer");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_server_is_not_the_clients_fault() {
    // It takes the body late, and answers even later.
    let backend = Backend::raw(async |mut stream: TcpStream, _| {
        sleep(LONG).await;
        read_head(&mut stream).await;
        let mut body = vec![0; 4 << 20];
        stream.read_exact(&mut body).await.expect("the body comes");
        sleep(LONG).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.expect("somebody waits");
    })
    .await;
    let proxy = hasty(&backend).await;
    let request = || http::Request::post("http://a.example/");
    let reply = proxy.send_with(request(), vec![b'x'; 4 << 20]).await;
    assert_eq!(reply.said(), (200, "ok"));
    let mut client = crate::support::client::Client::h2c(proxy.address("web")).await;
    let upload = crate::support::client::with_body(request(), vec![b'x'; 4 << 20]);
    assert_eq!(client.send_request(upload).await.said(), (200, "ok"));
}

#[tokio::test(flavor = "multi_thread")]
async fn both_sides_may_be_silent_in_a_tunnel() {
    let (backend, _) = Backend::echoing_websockets().await;
    let proxy = hasty(&backend).await;
    let stream = connect(proxy.address("web")).await;
    let mut socket = WebSocket::connect(stream, "a.example", "/").await.expect("a websocket");
    sleep(LONG).await;
    assert_eq!(socket.echo("hello").await.as_deref(), Some("hello"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_may_be_silent_once_the_server_has_answered() {
    let backend = Backend::raw(async |mut stream: TcpStream, _| {
        read_head(&mut stream).await;
        let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n";
        stream.write_all(head).await.expect("somebody waits");
        read_head(&mut stream).await;
    })
    .await;
    let proxy = hasty(&backend).await;
    let mut stream = connect(proxy.address("web")).await;
    let head = b"POST / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n";
    stream.write_all(head).await.expect("the connection is new");
    assert!(read_head(&mut stream).await.starts_with("HTTP/1.1 200 "));
    sleep(LONG).await;
    let mut piece = [0; 10];
    soon("the first piece", stream.read_exact(&mut piece)).await.expect("the connection goes on");
    stream.write_all(b"3\r\nabc\r\n").await.expect("the connection goes on");
    let more = tokio::time::timeout(LIMIT, stream.read(&mut piece)).await;
    assert!(more.is_err(), "nothing has happened: {more:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn traefiks_time_limits_come_first() {
    let backend = Backend::saying("hello").await;
    let limit = LIMIT.as_millis();
    let start = async |timeouts: &str| {
        let install = install(&format!("respondingTimeouts: {{{timeouts}}}"));
        Proxy::start(&install, &[("a.yaml", &route("a", &backend.url()))]).await
    };
    let proxy = start(&format!("readTimeout: {limit}ms")).await;
    // The whole body, however steady it is.
    for bytes in ["", "GET /", "POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 1000\r\n\r\n"] {
        let (mut reads, mut writes) = connect(proxy.address("web")).await.into_split();
        writes.write_all(bytes.as_bytes()).await.expect("a new connection takes bytes");
        let dripping = tokio::spawn(async move {
            let mut ticks = interval(LIMIT / 10);
            while !bytes.is_empty() && writes.write_all(b"x").await.is_ok() {
                ticks.tick().await;
            }
            writes
        });
        let elapsed = end(&mut reads).await;
        assert!(is_in_time(elapsed), "{bytes}: {elapsed:?}");
        dripping.abort();
    }
    let proxy = start(&format!("idleTimeout: {limit}ms")).await;
    let mut stream = connect(proxy.address("web")).await;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n").await.expect("the connection is new");
    assert!(is_in_time(end(&mut stream).await));
    let mut connection = Connection::open(connect(proxy.address("web")).await, &[]).await;
    assert!(is_in_time(end(&mut connection.0).await));

    // The whole response, however slow the server is.
    let slow = Backend::raw(async |mut stream: TcpStream, _| {
        read_head(&mut stream).await;
        let _ = stream.read_u8().await;
    })
    .await;
    let install = install(&format!("respondingTimeouts: {{writeTimeout: {limit}ms}}"));
    let proxy = Proxy::start(&install, &[("a.yaml", &route("a", &slow.url()))]).await;
    let mut stream = connect(proxy.address("web")).await;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n").await.expect("the connection is new");
    assert!(is_in_time(end(&mut stream).await));
    let mut connection = Connection::open(connect(proxy.address("web")).await, &[]).await;
    let head = http2::request("GET", "a.example", "/");
    connection.send(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &head)).await;
    assert_eq!(connection.receive_kind(RST_STREAM).await.expect("the connection goes on").stream, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn zero_is_no_limit() {
    let backend = Backend::saying("hello").await;
    let install = install("respondingTimeouts: {readTimeout: 0, writeTimeout: 0, idleTimeout: 0}");
    let proxy = Proxy::start(&install, &[("a.yaml", &route("a", &backend.url()))]).await;
    let mut stream = connect(proxy.address("web")).await;
    for piece in ["GET / HTTP", "/1.1\r\nHost: a.example\r\n\r\n"] {
        sleep(LIMIT).await;
        stream.write_all(piece.as_bytes()).await.expect("the connection goes on");
    }
    assert!(read_head(&mut stream).await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_wear_out() {
    let backend = Backend::saying("hello").await;
    let proxy = Proxy::start(&install("keepAliveMaxRequests: 2"), &[("a.yaml", &route("a", &backend.url()))]).await;
    let mut stream = connect(proxy.address("web")).await;
    for closes in [false, true] {
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n").await.expect("the connection is kept");
        let head = read_head(&mut stream).await.to_lowercase();
        assert_eq!(head.contains("connection: close\r\n"), closes, "{head}");
        let mut body = [0; 5];
        soon("the body", stream.read_exact(&mut body)).await.expect("a body");
    }
    end(&mut stream).await;

    let mut connection = Connection::open(connect(proxy.address("web")).await, &[]).await;
    for stream in [1, 3] {
        let head = http2::request("GET", "a.example", "/");
        connection.send(&frame(HEADERS, END_HEADERS | END_STREAM, stream, &head)).await;
        assert_eq!(connection.receive_kind(HEADERS).await.expect("an answer").stream, stream);
    }
    assert!(connection.receive_kind(http2::GOAWAY).await.is_some(), "streams in flight may end, no more may begin");

    let proxy = Proxy::start(&install("keepAliveMaxTime: 1ms"), &[("a.yaml", &route("a", &backend.url()))]).await;
    let mut stream = connect(proxy.address("web")).await;
    sleep(Duration::from_millis(10)).await;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n").await.expect("the connection is new");
    assert!(read_head(&mut stream).await.to_lowercase().contains("connection: close\r\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn first_bytes_may_come_one_by_one() {
    let backend = Backend::saying("hello").await;
    let proxy = hasty(&backend).await;
    let mut stream = connect(proxy.address("web")).await;
    for byte in b"PUT / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 0\r\n\r\n" {
        stream.write_all(&[*byte]).await.expect("the connection is new");
        tokio::task::yield_now().await;
    }
    assert!(read_head(&mut stream).await.starts_with("HTTP/1.1 200 "));
    let mut connection = Connection(connect(proxy.address("web")).await);
    for byte in PREFACE {
        connection.send(&[*byte]).await;
        tokio::task::yield_now().await;
    }
    connection.send(&http2::settings(&[])).await;
    let head = http2::request("GET", "a.example", "/");
    connection.send(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &head)).await;
    assert_eq!(connection.receive_kind(HEADERS).await.expect("an answer").stream, 1);
    eventually("the requests at the server", async || backend.seen().len() == 2).await;
}
