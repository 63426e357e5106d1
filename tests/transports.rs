//! How servers are reached: `serversTransports` with their certificates, authorities and time limits, also over reloads.

use http::Request;
use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::backend::Backend;
use crate::support::certificates::{Authority, Identity};
use crate::support::client::{Client, raw};
use crate::support::folder::Folder;
use crate::support::proxy::{INSTALL, Proxy};
use crate::support::{empty, eventually, read_head, route, soon};

/// A routing file with the host `a.example`, whose server is reached with a transport.
fn with_transport(url: &str, transport: &str) -> String {
    let service = route("a", url).replace("{loadBalancer: {", "{loadBalancer: {serversTransport: t, ");
    format!("{service}  serversTransports: {{t: {{{transport}}}}}\n")
}

async fn said_by_proxy(proxy: &Proxy) -> (u16, String) {
    let reply = proxy.get("http://a.example/").await;
    (reply.status, reply.text().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_does_not_come_to_terms() {
    // It accepts, and never answers the TLS handshake.
    let backend = Backend::raw(async |mut stream, _| {
        let mut rest = Vec::new();
        drop(stream.read_to_end(&mut rest).await);
    })
    .await;
    let url = backend.url().replace("http://", "https://");
    let text = with_transport(&url, "insecureSkipVerify: true, forwardingTimeouts: {dialTimeout: 50ms}");
    let proxy = Proxy::start(INSTALL, &[("a.yaml", &text)]).await;
    assert_eq!(proxy.problems(), [""; 0]);
    assert_eq!(said_by_proxy(&proxy).await, (504, "Gateway Timeout".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_wants_a_certificate() {
    let authority = Authority::new("Clients");
    let identity = Identity::self_signed(&["localhost"]);
    let backend = Backend::saying_over_tls_to("let in", &identity, &authority).await;
    let folder = Folder::new();
    authority.sign(&["proxy"]).write(&folder, "proxy");
    Authority::new("Others").sign(&["proxy"]).write(&folder, "other");
    let certificate = |name: &str| format!("certificates: [{{certFile: $DIR/{name}.crt, keyFile: $DIR/{name}.key}}]");
    let file = |extra: &str| with_transport(&backend.url(), &format!("insecureSkipVerify: true, {extra}"));
    folder.write("routing/a.yaml", file(&certificate("proxy")));
    let proxy = Proxy::start_in(folder, INSTALL).await;
    assert_eq!(said_by_proxy(&proxy).await, (200, "let in".to_owned()));

    for other in [String::new(), certificate("other")] {
        proxy.write("a.yaml", &file(&other));
        proxy.reload().await;
        assert_ne!(proxy.status("http://a.example/").await, 200, "{other}");
    }
    assert_eq!(backend.seen().len(), 1, "only a certificate of the right authority opens");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_files_of_a_transport_are_followed() {
    let authority = Authority::new("Servers");
    let backend = Backend::saying_over_tls("trusted", &authority.sign(&["server.example"]), &["http/1.1"]).await;
    for section in ["routing", "install"] {
        let folder = Folder::new();
        folder.write("ca.pem", Authority::new("Others").pem);
        let transport = "rootCAs: [$DIR/ca.pem], serverName: server.example";
        let (install, file) = match section {
            "routing" => (INSTALL.to_owned(), with_transport(&backend.url(), transport)),
            _ => (format!("{INSTALL}serversTransport: {{{transport}}}\n"), route("a", &backend.url())),
        };
        folder.write("routing/a.yaml", file);
        let proxy = Proxy::start_in(folder, &install).await;
        assert_eq!(proxy.status("http://a.example/").await, 500, "{section}");
        proxy.folder.write("ca.pem", &authority.pem);
        eventually("the authority of now", async || proxy.status("http://a.example/").await == 200).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_stay_with_what_has_not_changed() {
    let authority = Authority::new("Servers");
    let backend = Backend::saying_over_tls("kept", &authority.sign(&["server.example"]), &["http/1.1"]).await;
    let folder = Folder::new();
    folder.write("ca.pem", &authority.pem);
    folder
        .write("routing/a.yaml", with_transport(&backend.url(), "rootCAs: [$DIR/ca.pem], serverName: server.example"));
    let proxy = Proxy::start_in(folder, INSTALL).await;
    // One connection is served by one worker, whose own pool it uses.
    let mut client = proxy.client("web").await;
    assert_eq!(client.get("http://a.example/").await.said(), (200, "kept"));
    proxy.write("b.yaml", &route("b", &backend.url()));
    proxy.reload().await;
    assert_eq!(client.get("http://a.example/").await.said(), (200, "kept"));
    assert_eq!(backend.connections(), 1, "nothing has changed about this server");

    // The same path with other authorities in it is another transport: who is trusted now must show it anew.
    proxy.folder.write("ca.pem", format!("{}{}", authority.pem, Authority::new("More").pem));
    proxy.reload().await;
    assert_eq!(client.get("http://a.example/").await.said(), (200, "kept"));
    assert_eq!(backend.connections(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_http2_connection_is_pinged() {
    const PREFACE: usize = 24;
    // It reads the requests, and leaves everything else unanswered.
    let backend = Backend::raw(async |mut stream, _| {
        let mut preface = [0; PREFACE];
        stream.read_exact(&mut preface).await.expect("the preface of HTTP/2");
        stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.expect("the proxy listens");
        let mut rest = Vec::new();
        drop(stream.read_to_end(&mut rest).await);
    })
    .await;
    let url = backend.url().replace("http://", "h2c://");
    let text = with_transport(&url, "forwardingTimeouts: {readIdleTimeout: 50ms, pingTimeout: 50ms}");
    let proxy = Proxy::start(INSTALL, &[("a.yaml", &text)]).await;
    assert_eq!(proxy.problems(), [""; 0]);
    // Without the ping nothing would end this: there is no limit for the head of the response.
    assert_eq!(said_by_proxy(&proxy).await.0, 502);
}

#[tokio::test(flavor = "multi_thread")]
async fn trailers_reach_the_client() {
    let backend = Backend::raw(async |mut stream, _| {
        loop {
            if read_head(&mut stream).await.is_empty() {
                return;
            }
            let response = "HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n\
                        4\r\ntext\r\n0\r\nX-Sum: 42\r\n\r\n";
            stream.write_all(response.as_bytes()).await.expect("the proxy listens");
        }
    })
    .await;
    let proxy = Proxy::start(INSTALL, &[("a.yaml", &route("a", &backend.url()))]).await;
    let mut client = Client::h2c(proxy.address("web")).await;
    let request = Request::get("http://a.example/").header("te", "trailers").body(empty()).expect("a good request");
    let response = client.head(request).await.expect("a response");
    let body = soon("the whole response", response.into_body().collect()).await.expect("a whole response");
    assert_eq!(body.trailers().expect("trailers")["x-sum"], "42");
    assert_eq!(body.to_bytes(), "text");

    let request = "GET / HTTP/1.1\r\nHost: a.example\r\nTE: trailers\r\nConnection: close, TE\r\n\r\n";
    let answer = raw(proxy.address("web"), request).await.to_lowercase();
    assert!(answer.ends_with("4\r\ntext\r\n0\r\nx-sum: 42\r\n\r\n"), "{answer}");
}
