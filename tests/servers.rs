//! Whom the proxy trusts, what it sends twice and what never, and what becomes of a server's work when its client goes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::Request;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use crate::support::backend::Backend;
use crate::support::certificates::{Authority, Identity};
use crate::support::client::{Client, connect, raw, with_body};
use crate::support::folder::Folder;
use crate::support::proxy::{INSTALL, Proxy};
use crate::support::{empty, read_head, route, soon, with_services};

/// Every kind of certificate with every option: an inverted flag once trusted everybody (CVE-2025-66491).
#[tokio::test(flavor = "multi_thread")]
async fn only_who_asks_for_it_trusts_everybody() {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let servers = [
        ("right", ours.sign(&["127.0.0.1"])),
        ("named", ours.sign(&["server.example"])),
        ("foreign", theirs.sign(&["127.0.0.1"])),
        ("expired", ours.sign_expired(&["127.0.0.1"])),
        ("own", Identity::self_signed(&["127.0.0.1"])),
    ];
    let every = ["right", "named", "foreign", "expired", "own"];
    let options = [
        ("none", "{disableHTTP2: false}", &[][..]),
        ("authority", "{rootCAs: [$DIR/ca.pem]}", &["right"]),
        ("verified", "{rootCAs: [$DIR/ca.pem], insecureSkipVerify: false}", &["right"]),
        ("called", "{rootCAs: [$DIR/ca.pem], serverName: server.example}", &["named"]),
        ("misnamed", "{rootCAs: [$DIR/ca.pem], serverName: other.example}", &[]),
        ("name", "{serverName: server.example}", &[]),
        ("skip", "{insecureSkipVerify: true}", &every),
        ("both", "{rootCAs: [$DIR/ca.pem], insecureSkipVerify: true}", &every),
    ];
    let folder = Folder::new();
    folder.write("ca.pem", &ours.pem);
    let mut backends = Vec::new();
    let (mut routers, mut services, mut transports) = (String::new(), String::new(), String::new());
    for (option, transport, _) in options {
        transports.push_str(&format!("    {option}: {transport}\n"));
    }
    for (server, identity) in &servers {
        let backend = Backend::saying_over_tls("in", identity, &["http/1.1"]).await;
        let url = backend.url();
        for (option, ..) in options {
            let name = format!("{server}-{option}");
            routers.push_str(&format!("    {name}: {{rule: \"Host(`{name}.example`)\", service: {name}}}\n"));
            services.push_str(&format!(
                "    {name}: {{loadBalancer: {{servers: [{{url: \"{url}\"}}], serversTransport: {option}}}}}\n"
            ));
        }
        backends.push(backend);
    }
    let text = format!("http:\n  routers:\n{routers}  services:\n{services}  serversTransports:\n{transports}");
    folder.write("routing/a.yaml", text);
    let proxy = Proxy::start_in(folder, INSTALL).await;
    assert_eq!(proxy.problems(), [""; 0]);
    for ((server, _), backend) in servers.iter().zip(&backends) {
        let mut trusted = 0;
        for (option, _, expected) in options {
            let said = proxy.get(&format!("http://{server}-{option}.example/")).await;
            let expected = if expected.contains(server) { (200, "in") } else { (500, "Internal Server Error") };
            assert_eq!(said.said(), expected, "{server} {option}");
            trusted += usize::from(said.status == 200);
        }
        assert_eq!(backend.seen().len(), trusted, "nothing is sent to whom is not trusted");
    }
}

/// Without its authority a service is closed, and not open to everybody (CVE-2026-27586).
#[tokio::test(flavor = "multi_thread")]
async fn a_transport_without_its_files_closes_its_services() {
    let backend = Backend::saying_over_tls("in", &Identity::self_signed(&["127.0.0.1"]), &["http/1.1"]).await;
    let folder = Folder::new();
    folder.write("empty.pem", "");
    folder.write("damaged.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    let options = [
        "{rootCAs: [$DIR/nowhere.pem]}",
        "{rootCAs: [$DIR/empty.pem]}",
        "{rootCAs: [$DIR/damaged.pem]}",
        "{insecureSkipVerify: true, certificates: [{certFile: $DIR/nowhere.crt, keyFile: $DIR/nowhere.key}]}",
        "{insecureSkipVerify: maybe}",
        "{insecureSkipVerified: true}",
    ];
    let (mut routers, mut services, mut transports) = (String::new(), String::new(), String::new());
    for (number, transport) in options.iter().enumerate() {
        transports.push_str(&format!("    t{number}: {transport}\n"));
    }
    for number in 0..=options.len() {
        routers.push_str(&format!("    r{number}: {{rule: \"Host(`r{number}.example`)\", service: s{number}}}\n"));
        let server = format!("servers: [{{url: \"{}\"}}]", backend.url());
        services.push_str(&format!("    s{number}: {{loadBalancer: {{{server}, serversTransport: t{number}}}}}\n"));
    }
    let text = format!("http:\n  routers:\n{routers}  services:\n{services}  serversTransports:\n{transports}");
    folder.write("routing/a.yaml", text);
    let proxy = Proxy::start_in(folder, INSTALL).await;
    for number in 0..=options.len() {
        let status = proxy.status(&format!("http://r{number}.example/")).await;
        assert_eq!(status, 503, "{}", options.get(number).unwrap_or(&"a transport that is not there"));
    }
    assert_eq!(backend.seen().len(), 0);
}

/// Answers the first request of each connection and dies in the way of `death` on the second. Counts what it has read.
async fn dying(death: &'static str, count: &Arc<AtomicUsize>) -> Backend {
    let count = Arc::clone(count);
    Backend::raw(move |mut stream, _| {
        let count = Arc::clone(&count);
        async move {
            read_head(&mut stream).await;
            drop(stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await);
            if !read_head(&mut stream).await.is_empty() {
                count.fetch_add(1, Ordering::SeqCst);
            }
            drop(stream.write_all(death.as_bytes()).await);
        }
    })
    .await
}

/// What has reached a server may have had its effect: it is sent twice only if it has none (RFC 9110, section 9.2.2), and
/// never when an answer has begun.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_with_an_effect_arrives_twice() {
    const BEGUN: &str = "HTTP/1.1 200 OK\r\nContent-Le";

    for (method, body, death, status) in [
        ("POST", "", "", 502),
        ("POST", "order", "", 502),
        ("PUT", "order", "", 502),
        ("DELETE", "", "", 502),
        ("PATCH", "order", "", 502),
        ("PROPFIND", "", "", 502),
        ("GET", "with a body", "", 502),
        ("GET", "", BEGUN, 502),
        ("GET", "", "", 200),
        ("HEAD", "", "", 200),
        ("OPTIONS", "", "", 200),
    ] {
        let count = Arc::new(AtomicUsize::new(0));
        let backend = dying(death, &count).await;
        let proxy = Proxy::start(INSTALL, &[("a.yaml", &route("a", &backend.url()))]).await;
        let mut client = proxy.client("web").await;
        assert_eq!(client.get("http://a.example/").await.status, 200);
        let request = Request::builder().method(method).uri("http://a.example/");
        let request =
            if body.is_empty() { request.body(empty()).expect("a request") } else { with_body(request, body) };
        assert_eq!(client.send_request(request).await.status, status, "{method} {body} {death}");
        assert_eq!(count.load(Ordering::SeqCst), 1, "{method} {body} {death}");
        assert_eq!(backend.connections(), if status == 200 { 2 } else { 1 }, "{method} {body} {death}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_connection_that_fails_is_not_tried_again() {
    let backend = Backend::raw(async |mut stream, _| drop(read_head(&mut stream).await)).await;
    let proxy = Proxy::start(INSTALL, &[("a.yaml", &route("a", &backend.url()))]).await;
    for number in 1..=3 {
        assert_eq!(proxy.get("http://a.example/").await.status, 502);
        assert_eq!(backend.connections(), number);
    }
}

/// When a client goes, at whatever point.
#[derive(Clone, Copy, Debug)]
enum Goes {
    WhileItSends,
    WhileItWaits,
    WhileItReads,
    BeforeItReads,
}

/// A server that says on the channel when its connection has ended.
async fn watched(goes: Goes, arrived: mpsc::Sender<()>, ended: mpsc::Sender<()>) -> Backend {
    Backend::raw(move |mut stream: TcpStream, _| {
        let (arrived, ended) = (arrived.clone(), ended.clone());
        async move {
            read_head(&mut stream).await;
            match goes {
                Goes::WhileItSends | Goes::WhileItWaits => {}
                Goes::WhileItReads => {
                    drop(stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nbegun").await);
                }
                Goes::BeforeItReads => {
                    drop(stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n").await);
                    arrived.try_send(()).ok();
                    while stream.write_all(&[0; 65536]).await.is_ok() {}
                    ended.send(()).await.ok();
                    return;
                }
            }
            arrived.send(()).await.ok();
            let mut rest = Vec::new();
            drop(stream.read_to_end(&mut rest).await);
            ended.send(()).await.ok();
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_frees_its_server() {
    for goes in [Goes::WhileItSends, Goes::WhileItWaits, Goes::WhileItReads, Goes::BeforeItReads] {
        let (arrived, mut has_arrived) = mpsc::channel(1);
        let (ended, mut has_ended) = mpsc::channel(1);
        let backend = watched(goes, arrived, ended).await;
        let proxy = Proxy::start(INSTALL, &[("a.yaml", &route("a", &backend.url()))]).await;
        let mut client = connect(proxy.address("web")).await;
        let length = if matches!(goes, Goes::WhileItSends) { 100 } else { 0 };
        let request = format!("POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: {length}\r\n\r\n");
        client.write_all(request.as_bytes()).await.expect("the proxy listens");
        soon("the request", has_arrived.recv()).await;
        if matches!(goes, Goes::WhileItReads) {
            read_head(&mut client).await;
        }
        drop(client);
        soon(&format!("the end, {goes:?}"), has_ended.recv()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_stream_frees_its_server() {
    for goes in [Goes::WhileItWaits, Goes::WhileItReads, Goes::BeforeItReads] {
        let (arrived, mut has_arrived) = mpsc::channel(1);
        let (ended, mut has_ended) = mpsc::channel(1);
        let backend = watched(goes, arrived, ended).await;
        let other = Backend::saying("still here").await;
        let routers = "
    a: {rule: \"Host(`a.example`)\", service: a}
    b: {rule: \"Host(`b.example`)\", service: b}
";
        let text = with_services(routers, &[("a", backend.url()), ("b", other.url())]);
        let proxy = Proxy::start(INSTALL, &[("a.yaml", &text)]).await;
        let mut client = Client::h2c(proxy.address("web")).await;
        let mut stream = client.another();
        let request = Request::get("http://a.example/").body(empty()).expect("a good request");
        let sending = tokio::spawn(async move { stream.head(request).await });
        soon("the request", has_arrived.recv()).await;
        if matches!(goes, Goes::WhileItWaits) {
            sending.abort();
        } else {
            drop(sending.await.expect("no panic").expect("a head"));
        }
        soon(&format!("the end, {goes:?}"), has_ended.recv()).await;
        assert_eq!(client.get("http://b.example/").await.said(), (200, "still here"), "the connection goes on");
    }
}

/// What a server of HTTP/2 gets has nothing of HTTP/1.1's connections (RFC 9113, section 8.2.2) and says its length once.
#[tokio::test(flavor = "multi_thread")]
async fn requests_to_http2_servers_are_well_formed() {
    let backend = Backend::saying_in_h2c("in").await;
    let proxy = Proxy::start(INSTALL, &[("a.yaml", &route("a", &backend.url()))]).await;
    for framing in ["Content-Length: 5\r\n\r\nhello", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"] {
        let request = format!(
            "POST /a//b?c HTTP/1.1\r\nHost: a.example\r\nConnection: close, X-Private, TE\r\nX-Private: 1\r\n\
             Keep-Alive: timeout=5\r\nProxy-Connection: close\r\nUpgrade: h2c\r\nTE: trailers, gzip\r\n{framing}"
        );
        let answer = raw(proxy.address("web"), &request).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        let seen = backend.last();
        for name in
            ["connection", "x-private", "keep-alive", "proxy-connection", "upgrade", "transfer-encoding", "host"]
        {
            assert!(!seen.headers.contains_key(name), "{name}: {:?}", seen.headers);
        }
        assert!(["", "trailers"].contains(&seen.header("te")), "{:?}", seen.headers);
        assert!(["", "5"].contains(&seen.header("content-length")), "{:?}", seen.headers);
        assert_eq!((&seen.body[..], seen.header("x-forwarded-host")), (&b"hello"[..], "a.example"));
    }
}
