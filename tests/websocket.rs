//! Websockets: what the server sees, what becomes of them over reloads, and what is no websocket.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::backend::Backend;
use crate::support::client::{connect, raw, secure_stream, trusting};
use crate::support::proxy::{INSTALL, Proxy};
use crate::support::websocket::WebSocket;
use crate::support::{read_head, route, with_services};

const CLOSING: &str = "Connection: close\r\n\r\n";

async fn echoing() -> (Proxy, Backend, Arc<Mutex<Vec<String>>>) {
    let (backend, heads) = Backend::echoing_websockets().await;
    let routers = "
    plain: {rule: \"Host(`a.example`)\", service: a}
    tls: {rule: \"Host(`a.example`)\", service: a, tls: {}}
";
    let text = with_services(routers, &[("a", backend.url())]);
    (Proxy::start(INSTALL, &[("a.yaml", &text)]).await, backend, heads)
}

fn first(heads: &Mutex<Vec<String>>) -> String {
    heads.lock().expect("nobody has panicked")[0].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn in_clear_text() {
    let (proxy, _backend, heads) = echoing().await;
    let stream = connect(proxy.address("web")).await;
    let mut socket = WebSocket::connect(stream, "a.example", "/chat?room=1").await.expect("a websocket");
    for text in ["hello", "", &"x".repeat(60_000)] {
        assert_eq!(socket.echo(text).await.as_deref(), Some(text));
    }
    socket.close().await;
    let head = first(&heads);
    assert!(head.starts_with("GET /chat?room=1 HTTP/1.1\r\n"), "{head}");
    for field in [
        "Host: a.example",
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "X-Forwarded-Proto: ws",
        "X-Forwarded-Port: 80",
        "X-Forwarded-For: 127.0.0.1",
    ] {
        assert!(head.contains(&format!("\r\n{field}\r\n")), "{field} in {head}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn over_tls() {
    let (proxy, _backend, heads) = echoing().await;
    let stream = secure_stream(proxy.address("websecure"), "a.example", trusting()).await.expect("a TLS handshake");
    let mut socket = WebSocket::connect(stream, "a.example", "/").await.expect("a websocket");
    assert_eq!(socket.echo("hello").await.as_deref(), Some("hello"));
    socket.close().await;
    let head = first(&heads);
    assert!(
        head.contains("\r\nX-Forwarded-Proto: wss\r\n") && head.contains("\r\nX-Forwarded-Port: 443\r\n"),
        "{head}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn reloads_do_not_cut_it() {
    let (proxy, backend, _heads) = echoing().await;
    let stream = connect(proxy.address("web")).await;
    let mut socket = WebSocket::connect(stream, "a.example", "/").await.expect("a websocket");
    assert_eq!(socket.echo("before").await.as_deref(), Some("before"));
    proxy.write("b.yaml", &route("b", &backend.url()));
    proxy.reload().await;
    assert_eq!(socket.echo("after a change").await.as_deref(), Some("after a change"));
    proxy.folder.remove("routing/a.yaml");
    proxy.reload().await;
    let stream = connect(proxy.address("web")).await;
    let refused = WebSocket::connect(stream, "a.example", "/").await.err().expect("the router is gone");
    assert!(refused.starts_with("HTTP/1.1 404 "), "{refused}");
    assert_eq!(socket.echo("without its router").await.as_deref(), Some("without its router"));
}

#[tokio::test(flavor = "multi_thread")]
async fn either_side_may_end_it() {
    let ended = Arc::new(tokio::sync::Notify::new());
    let told = Arc::clone(&ended);
    let backend = Backend::raw(move |stream, _| {
        let told = Arc::clone(&told);
        async move {
            let (mut socket, _) = WebSocket::accept(stream).await;
            while let Some(text) = socket.receive().await {
                if text == "go away" {
                    return;
                }
                socket.send(&text).await;
            }
            told.notify_one();
        }
    })
    .await;
    let proxy = Proxy::start(INSTALL, &[("a.yaml", &route("a", &backend.url()))]).await;
    let open = async || {
        let stream = connect(proxy.address("web")).await;
        WebSocket::connect(stream, "a.example", "/").await.expect("a websocket")
    };
    let mut socket = open().await;
    assert_eq!(socket.echo("go away").await, None, "the server cuts it");
    let mut socket = open().await;
    assert_eq!(socket.echo("hello").await.as_deref(), Some("hello"));
    drop(socket);
    crate::support::soon("the end at the server", ended.notified()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_may_refuse() {
    let backend = Backend::raw(async |mut stream, _| {
        let head = read_head(&mut stream).await;
        assert!(head.contains("Upgrade: websocket\r\n"), "{head}");
        let response = "HTTP/1.1 403 Forbidden\r\nX-Why: tired\r\nContent-Length: 6\r\n\r\nnot me";
        stream.write_all(response.as_bytes()).await.expect("the proxy listens");
    })
    .await;
    let proxy = Proxy::start(INSTALL, &[("a.yaml", &route("a", &backend.url()))]).await;
    let request = "GET / HTTP/1.1\r\nHost: a.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let mut stream = connect(proxy.address("web")).await;
    stream.write_all(request.as_bytes()).await.expect("the proxy listens");
    let head = read_head(&mut stream).await;
    assert!(head.starts_with("HTTP/1.1 403 Forbidden\r\n") && head.contains("X-Why: tired\r\n"), "{head}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_switches_protocols_unasked() {
    let backend = Backend::raw(async |mut stream, _| {
        let head = read_head(&mut stream).await;
        let head = head.to_lowercase();
        assert!(!head.contains("upgrade"), "{head}");
        let response = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\nsecret";
        drop(stream.write_all(response.as_bytes()).await);
    })
    .await;
    let proxy = Proxy::start(INSTALL, &[("a.yaml", &route("a", &backend.url()))]).await;
    for fields in [
        "",
        // Only websockets are passed on: the others are a way around the proxy.
        "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n",
        // Named, but not as an upgrade.
        "Upgrade: websocket\r\n",
    ] {
        let request = format!("GET / HTTP/1.1\r\nHost: a.example\r\n{fields}{CLOSING}");
        let answer = raw(proxy.address("web"), &request).await;
        assert!(answer.starts_with("HTTP/1.1 502 Bad Gateway\r\n"), "{fields}: {answer}");
        assert!(answer.ends_with("\r\n\r\nBad Gateway"), "{fields}: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_switches_to_websockets_alone() {
    let backend = Backend::raw(async |mut stream, _| {
        read_head(&mut stream).await;
        let response = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: other\r\n\r\n";
        drop(stream.write_all(response.as_bytes()).await);
    })
    .await;
    let proxy = Proxy::start(INSTALL, &[("a.yaml", &route("a", &backend.url()))]).await;
    let stream = connect(proxy.address("web")).await;
    let refused = WebSocket::connect(stream, "a.example", "/").await.err().expect("this is no websocket");
    assert!(refused.starts_with("HTTP/1.1 502 "), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_not_there() {
    let backend = Backend::saying("").await;
    let url = backend.url();
    drop(backend);
    let proxy = Proxy::start(INSTALL, &[("a.yaml", &route("a", &url))]).await;
    let stream = connect(proxy.address("web")).await;
    let refused = WebSocket::connect(stream, "a.example", "/").await.err().expect("there is no server");
    assert!(refused.starts_with("HTTP/1.1 502 "), "{refused}");
}

const UPGRADE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\n";
const VALID: &str = "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

/// No byte behind the request may reach the server before it has agreed (CVE-2026-2833).
#[tokio::test(flavor = "multi_thread")]
async fn early_bytes_wait_for_the_server() {
    let backend = Backend::raw(async |mut stream, _| {
        read_head(&mut stream).await;
        // Longer than the proxy takes for anything.
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        let mut byte = [0];
        let nothing = stream.try_read(&mut byte).expect_err("nothing comes before the server agrees");
        assert_eq!(nothing.kind(), std::io::ErrorKind::WouldBlock);
        let mut socket = WebSocket::agree(stream).await;
        while let Some(text) = socket.receive().await {
            socket.send(&text).await;
        }
    })
    .await;
    let proxy = Proxy::start(INSTALL, &[("a.yaml", &route("a", &backend.url()))]).await;
    let mut client = connect(proxy.address("web")).await;
    let early = b"\x81\x82\0\0\0\0hi";
    let request = format!("GET / HTTP/1.1\r\nHost: a.example\r\n{UPGRADE}{VALID}\r\n");
    client.write_all(&[request.as_bytes(), early].concat()).await.expect("the proxy listens");
    let head = read_head(&mut client).await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    let mut socket = WebSocket::agreed(client);
    assert_eq!(socket.receive().await.as_deref(), Some("hi"));
    assert_eq!(socket.echo("on").await.as_deref(), Some("on"));
}

/// Answers with one text for each request, and says in it whether an upgrade was asked for.
async fn refusing(status: &'static str) -> Backend {
    Backend::raw(move |mut stream: TcpStream, number| async move {
        loop {
            let head = read_head(&mut stream).await;
            let Some(line) = head.lines().next() else { return };
            let text = format!("{line} on {number}, upgrade: {}", head.contains("\r\nUpgrade: "));
            let response = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{text}", text.len());
            drop(stream.write_all(response.as_bytes()).await);
        }
    })
    .await
}

/// Only 101 opens a tunnel (CVE-2024-23326): what follows a refused request is the next request.
#[tokio::test(flavor = "multi_thread")]
async fn a_refused_upgrade_goes_on_as_http() {
    for status in ["200 OK", "403 Forbidden", "426 Upgrade Required"] {
        let backend = refusing(status).await;
        let proxy = Proxy::start(INSTALL, &[("a.yaml", &route("a", &backend.url()))]).await;
        let request = format!(
            "GET /first HTTP/1.1\r\nHost: a.example\r\n{UPGRADE}{VALID}\r\n\
             GET /second HTTP/1.1\r\nHost: a.example\r\n{CLOSING}"
        );
        let answer = raw(proxy.address("web"), &request).await;
        assert_eq!(answer.matches(&format!("HTTP/1.1 {status}\r\n")).count(), 2, "{answer}");
        assert!(answer.contains("GET /first HTTP/1.1 on 1, upgrade: true"), "{answer}");
        assert!(answer.contains("GET /second HTTP/1.1 on 2, upgrade: false"), "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_websocket_is_forwarded_without_its_upgrade() {
    let backend = refusing("200 OK").await;
    let proxy = Proxy::start(INSTALL, &[("a.yaml", &route("a", &backend.url()))]).await;
    let version = "Sec-WebSocket-Version: 13\r\n";
    let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    for (method, fields) in [
        ("GET", UPGRADE.to_owned()),
        ("GET", format!("{UPGRADE}{version}")),
        ("GET", format!("{UPGRADE}{key}")),
        ("GET", format!("{UPGRADE}{key}Sec-WebSocket-Version: 8\r\n")),
        ("GET", format!("{UPGRADE}{key}{version}{version}")),
        ("GET", format!("{UPGRADE}{key}{key}{version}")),
        ("GET", format!("{UPGRADE}{version}Sec-WebSocket-Key: c2hvcnQ=\r\n")),
        ("GET", format!("{UPGRADE}{version}Sec-WebSocket-Key: not base64\r\n")),
        ("GET", format!("{UPGRADE}Upgrade: h2c\r\n{VALID}")),
        ("GET", format!("Connection: Upgrade\r\nUpgrade: websocket, h2c\r\n{VALID}")),
        ("GET", format!("Connection: keep-alive\r\nUpgrade: websocket\r\n{VALID}")),
        ("POST", format!("{UPGRADE}{VALID}Content-Length: 0\r\n")),
    ] {
        let request = format!(
            "{method} / HTTP/1.1\r\nHost: a.example\r\n{fields}\r\n\
             GET /next HTTP/1.1\r\nHost: a.example\r\n{CLOSING}"
        );
        let answer = raw(proxy.address("web"), &request).await;
        assert_eq!(answer.matches("HTTP/1.1 200 OK\r\n").count(), 2, "{fields}: {answer}");
        assert!(!answer.contains("upgrade: true"), "{fields}: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_must_prove_that_it_read_the_key() {
    for accept in [
        "",
        "Sec-WebSocket-Accept: \r\n",
        "Sec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\n",
        "Sec-WebSocket-Accept: s3pplmbitxaq9kygzzhzrbk+xoo=\r\n",
        "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Accept: x\r\n",
    ] {
        let backend = Backend::raw(move |mut stream: TcpStream, _| async move {
            read_head(&mut stream).await;
            let response = format!("HTTP/1.1 101 Switching Protocols\r\n{UPGRADE}{accept}\r\nsecret");
            drop(stream.write_all(response.as_bytes()).await);
            let mut rest = Vec::new();
            drop(stream.read_to_end(&mut rest).await);
            assert_eq!(rest, b"", "nothing of the client reaches a server that was not understood");
        })
        .await;
        let proxy = Proxy::start(INSTALL, &[("a.yaml", &route("a", &backend.url()))]).await;
        let mut client = connect(proxy.address("web")).await;
        let request = format!("GET / HTTP/1.1\r\nHost: a.example\r\n{UPGRADE}{VALID}\r\nearly");
        client.write_all(request.as_bytes()).await.expect("the proxy listens");
        let head = read_head(&mut client).await;
        assert!(head.starts_with("HTTP/1.1 502 "), "{accept}: {head}");
    }
}
