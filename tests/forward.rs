//! What servers see of a request and clients of a response, and what a client gets when a server fails.

use std::sync::Arc;

use http::{Request, Response, Version};
use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;

use crate::support::backend::Backend;
use crate::support::certificates::{Authority, Identity};
use crate::support::client::{connect, raw, with_body};
use crate::support::folder::Folder;
use crate::support::proxy::{INSTALL, Proxy};
use crate::support::{empty, full, read_head, route, soon};

const FORWARDING: [&str; 6] =
    ["x-forwarded-for", "x-forwarded-host", "x-forwarded-port", "x-forwarded-proto", "x-forwarded-server", "x-real-ip"];

async fn before(backend: &Backend) -> Proxy {
    Proxy::start(INSTALL, &[("a.yaml", &route("a", &backend.url()))]).await
}

fn forged() -> http::request::Builder {
    Request::get("http://a.example:8080/")
        .header("x-forwarded-for", "6.6.6.6")
        .header("x-forwarded-host", "evil.example")
        .header("x-forwarded-port", "1")
        .header("x-forwarded-proto", "https")
        .header("x-forwarded-server", "evil")
        .header("x-real-ip", "6.6.6.6")
        .header("x-forwarded-prefix", "/evil")
        .header("x_forwarded_for", "6.6.6.6")
        .header("x-forwarded-tls-client-cert", "evil")
        .header("forwarded", "for=6.6.6.6")
}

#[tokio::test(flavor = "multi_thread")]
async fn forwarding_fields_of_anybody() {
    let backend = Backend::saying("").await;
    let proxy = before(&backend).await;
    proxy.send(forged()).await;
    let seen = backend.last();
    let host_name = gethostname::gethostname().into_string().expect("a host name in UTF-8");
    let expected = ["127.0.0.1", "a.example:8080", "8080", "http", &host_name, "127.0.0.1"];
    assert_eq!(FORWARDING.map(|name| seen.header(name)), expected);
    for name in ["x-forwarded-prefix", "x_forwarded_for", "x-forwarded-tls-client-cert"] {
        assert_eq!(seen.header(name), "", "{name}");
    }
    assert_eq!(seen.header("forwarded"), "for=6.6.6.6", "none of ours");
    assert_eq!(seen.header("host"), "a.example:8080");
}

#[tokio::test(flavor = "multi_thread")]
async fn forwarding_fields_of_a_trusted_proxy() {
    let backend = Backend::saying("").await;
    for trust in ["insecure: true", "trustedIPs: [10.0.0.0/8, 127.0.0.1/32]"] {
        let install =
            INSTALL.replacen("\"127.0.0.1:0\"", &format!("\"127.0.0.1:0\", forwardedHeaders: {{{trust}}}"), 1);
        let proxy = Proxy::start(&install, &[("a.yaml", &route("a", &backend.url()))]).await;
        proxy.send(forged()).await;
        let seen = backend.last();
        let host_name = gethostname::gethostname().into_string().expect("a host name in UTF-8");
        let expected = ["6.6.6.6, 127.0.0.1", "evil.example", "1", "https", &host_name, "6.6.6.6"];
        assert_eq!(FORWARDING.map(|name| seen.header(name)), expected, "{trust}");
        assert_eq!(seen.header("x-forwarded-prefix"), "/evil");
    }
    let install = INSTALL.replacen("\"127.0.0.1:0\"", "\"127.0.0.1:0\", forwardedHeaders: {trustedIPs: 10.0.0.0/8}", 1);
    let proxy = Proxy::start(&install, &[("a.yaml", &route("a", &backend.url()))]).await;
    proxy.send(forged()).await;
    assert_eq!(backend.last().header("x-forwarded-for"), "127.0.0.1");
}

/// Traefik's `forwardedHeaders.connection`. Rules see what middlewares see.
#[tokio::test(flavor = "multi_thread")]
async fn fields_that_are_kept_for_middlewares_end_before_the_server() {
    let backend = Backend::saying("hello").await;
    let kept = "\"127.0.0.1:0\", forwardedHeaders: {connection: [x-kept]}";
    let routes = route("a", &backend.url()).replace("Host(`a.example`)", "Host(`a.example`) && Header(`X-Kept`, `1`)");
    assert!(routes.contains("X-Kept"), "{routes}");
    let proxy = Proxy::start(&INSTALL.replacen("\"127.0.0.1:0\"", kept, 1), &[("a.yaml", &routes)]).await;
    assert_eq!(proxy.warnings, [""; 0]);
    for connection in ["X-Kept, X-Gone", "close, x-gone,X-KEPT", "x-gone"] {
        let request = Request::get("http://a.example/").header("connection", connection);
        let reply = proxy.send(request.header("x-kept", "1").header("x-gone", "1").header("x-other", "1")).await;
        assert_eq!(reply.said(), (200, "hello"), "{connection}");
        let seen = backend.last();
        let kept = if connection == "x-gone" { "1" } else { "" };
        let fields = ["x-kept", "x-gone", "connection", "x-other"].map(|name| seen.header(name));
        assert_eq!(fields, [kept, "", "", "1"], "{connection}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fields_of_one_connection_stay_on_it() {
    let backend = Backend::start(async |_| {
        let response = Response::builder()
            .header("connection", "X-Of-Server, keep-alive")
            .header("keep-alive", "timeout=5")
            .header("x-of-server", "1")
            .header("proxy-authenticate", "Basic")
            .header("upgrade", "h2c")
            .header("set-cookie", "a=1")
            .header("set-cookie", "b=2; Path=/")
            .header("x-end-to-end", "1");
        response.body(full("hello")).expect("a good response")
    })
    .await;
    let proxy = before(&backend).await;
    let request = Request::get("http://a.example/")
        .header("connection", "X-Of-Client, X-Forwarded-For, X-Real-Ip, Host, keep-alive")
        .header("x-of-client", "1")
        .header("keep-alive", "timeout=5")
        .header("proxy-connection", "keep-alive")
        .header("proxy-authorization", "Basic eA==")
        .header("te", "trailers, gzip")
        .header("x-end-to-end", "1")
        .header("x-twice", "1")
        .header("x-twice", "2")
        .header("cookie", "a=1; b=2");
    let reply = proxy.send(request).await;
    let seen = backend.last();
    for name in ["x-of-client", "keep-alive", "proxy-connection", "proxy-authorization", "connection", "upgrade"] {
        assert_eq!(seen.header(name), "", "{name} to the server");
    }
    assert_eq!((seen.header("te"), seen.header("x-end-to-end"), seen.header("cookie")), ("trailers", "1", "a=1; b=2"));
    assert_eq!(seen.headers.get_all("x-twice").iter().collect::<Vec<_>>(), ["1", "2"]);
    assert_eq!((seen.header("x-forwarded-for"), seen.header("x-real-ip")), ("127.0.0.1", "127.0.0.1"));
    assert_eq!(seen.header("host"), "a.example");

    for name in ["x-of-server", "keep-alive", "proxy-authenticate", "connection", "upgrade"] {
        assert_eq!(reply.header(name), "", "{name} to the client");
    }
    assert_eq!(reply.header("x-end-to-end"), "1");
    assert_eq!(reply.headers.get_all("set-cookie").iter().collect::<Vec<_>>(), ["a=1", "b=2; Path=/"]);
    assert_eq!(reply.text(), "hello");
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_of_any_size_in_both_directions() {
    let backend = Backend::start(async |seen| Response::new(full(seen.body))).await;
    let proxy = before(&backend).await;
    let large: Vec<u8> = (0..8 << 20).map(|number: u32| number.to_le_bytes()[1]).collect();
    for body in [Vec::new(), b"short".to_vec(), large] {
        let length = body.len().to_string();
        let reply = proxy.send_with(Request::post("http://a.example/"), body.clone()).await;
        assert_eq!((reply.status, reply.header("content-length")), (200, length.as_str()));
        assert!(reply.body == body, "{length} bytes come back as they went");
        let expected = if body.is_empty() {
            ["", "0"].contains(&backend.last().header("content-length"))
        } else {
            backend.last().header("content-length") == length
        };
        assert!(expected, "{:?}", backend.last().headers);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_streams() {
    let backend = Backend::raw(async |mut stream, _| {
        let head = read_head(&mut stream).await.to_lowercase();
        assert!(head.contains("\r\ntransfer-encoding: chunked\r\n") && !head.contains("content-length"), "{head}");
        let mut chunk = [0; 10];
        stream.read_exact(&mut chunk).await.expect("the first chunk");
        assert_eq!(&chunk, b"5\r\nfirst\r\n");
        // The client sends the rest only when it has seen this.
        let response = "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf";
        stream.write_all(response.as_bytes()).await.expect("the proxy listens");
        let mut rest = [0; 16];
        stream.read_exact(&mut rest).await.expect("the rest");
        assert_eq!(&rest, b"6\r\nsecond\r\n0\r\n\r\n"[..].first_chunk::<16>().expect("16 bytes"));
        stream.write_all(b"done").await.expect("the proxy listens");
    })
    .await;
    let proxy = before(&backend).await;
    let mut client = connect(proxy.address("web")).await;
    let head = "POST / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n";
    client.write_all(head.as_bytes()).await.expect("the proxy listens");
    let head = read_head(&mut client).await;
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    let mut half = [0; 4];
    soon("the first half", client.read_exact(&mut half)).await.expect("a body");
    assert_eq!(&half, b"half");
    client.write_all(b"6\r\nsecond\r\n0\r\n\r\n").await.expect("the proxy listens");
    soon("the second half", client.read_exact(&mut half)).await.expect("a body");
    assert_eq!(&half, b"done");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_streams() {
    let go_on = Arc::new(Notify::new());
    let wait = Arc::clone(&go_on);
    let backend = Backend::raw(move |mut stream, _| {
        let wait = Arc::clone(&wait);
        async move {
            read_head(&mut stream).await;
            let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
            stream.write_all(head.as_bytes()).await.expect("the proxy listens");
            stream.write_all(b"5\r\nfirst\r\n").await.expect("the proxy listens");
            wait.notified().await;
            stream.write_all(b"6\r\nsecond\r\n0\r\n\r\n").await.expect("the proxy listens");
        }
    })
    .await;
    let proxy = before(&backend).await;
    let mut client = proxy.client("web").await;
    let request = Request::get("http://a.example/").body(empty()).expect("a good request");
    let response = client.head(request).await.expect("a response");
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let mut body = response.into_body();
    let mut next = async || {
        let frame = soon("a piece of the body", body.frame()).await?;
        Some(frame.expect("a whole body").into_data().expect("no trailers"))
    };
    assert_eq!(next().await.expect("a piece"), "first");
    go_on.notify_one();
    assert_eq!(next().await.expect("a piece"), "second");
    assert_eq!(next().await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn expectations_are_met_by_the_server() {
    let backend = Backend::start(async |seen| Response::new(full(seen.body))).await;
    let proxy = before(&backend).await;
    let mut client = connect(proxy.address("web")).await;
    let head = "POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n";
    client.write_all(head.as_bytes()).await.expect("the proxy listens");
    let head = read_head(&mut client).await;
    assert!(head.starts_with("HTTP/1.1 100 Continue\r\n"), "{head}");
    client.write_all(b"hello").await.expect("the proxy listens");
    let head = read_head(&mut client).await;
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert_eq!(backend.last().body, "hello");
}

#[tokio::test(flavor = "multi_thread")]
async fn methods_and_statuses_pass_unchanged() {
    let backend = Backend::start(async |seen| {
        let status: u16 = seen.target.trim_start_matches('/').parse().expect("a status");
        let response = Response::builder().status(status).header("location", "http://elsewhere.example/x");
        response.body(if status == 204 || status == 304 { empty() } else { full("text") }).expect("a good response")
    })
    .await;
    let proxy = before(&backend).await;
    for status in [200, 201, 204, 206, 301, 304, 400, 404, 418, 500, 503, 599] {
        let reply = proxy.get(&format!("http://a.example/{status}")).await;
        assert_eq!((reply.status, reply.header("location")), (status, "http://elsewhere.example/x"));
        assert_eq!(reply.text(), if status == 204 || status == 304 { "" } else { "text" }, "{status}");
        assert_eq!(reply.header("content-type"), "", "none is guessed");
    }
    for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "M-SEARCH"] {
        let reply = proxy.send(Request::builder().method(method).uri("http://a.example/200")).await;
        assert_eq!((reply.status, backend.last().method.as_str()), (200, method));
        assert_eq!(reply.header("content-length"), "4", "{method}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_with_two_lengths_is_one_message() {
    let backend = Backend::start(async |seen| Response::new(full(seen.body))).await;
    let proxy = before(&backend).await;
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: a.example\r\n\r\n";
    let request = format!(
        "POST /outer HTTP/1.1\r\nHost: a.example\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\
         Connection: close\r\n\r\n0\r\n\r\n{smuggled}"
    );
    let answer = raw(proxy.address("web"), &request).await;
    assert!(answer.starts_with("HTTP/1.1 400 ") || answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{answer}");
    for seen in backend.seen() {
        assert_eq!((seen.target.as_str(), seen.body.len()), ("/outer", 0));
        let both = seen.headers.contains_key("content-length") && seen.headers.contains_key("transfer-encoding");
        assert!(!both, "{:?}", seen.headers);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_not_there() {
    let backend = Backend::saying("").await;
    let url = backend.url();
    drop(backend);
    let proxy = Proxy::start(INSTALL, &[("a.yaml", &route("a", &url))]).await;
    let reply = proxy.get("http://a.example/").await;
    assert_eq!(reply.said(), (502, "Bad Gateway"));
    assert_eq!(reply.header("content-type"), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_says_nothing_or_nonsense() {
    for (answer, status, text) in [
        ("", 502, "Bad Gateway"),
        ("HTTP/1.1 200 OK\r\nContent-", 502, "Bad Gateway"),
        ("220 mail.example ESMTP\r\n\r\n", 502, "Bad Gateway"),
    ] {
        let backend = Backend::raw(move |mut stream, _| async move {
            read_head(&mut stream).await;
            drop(stream.write_all(answer.as_bytes()).await);
        })
        .await;
        let proxy = before(&backend).await;
        assert_eq!(proxy.get("http://a.example/").await.said(), (status, text), "{answer:?}");
        let posted = proxy.send_with(Request::post("http://a.example/"), "body").await;
        assert_eq!(posted.said(), (status, text), "{answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_that_breaks_off_breaks_off() {
    for framing in ["Content-Length: 100\r\n\r\nhalf", "Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"] {
        let backend = Backend::raw(move |mut stream, _| async move {
            read_head(&mut stream).await;
            drop(stream.write_all(format!("HTTP/1.1 200 OK\r\n{framing}").as_bytes()).await);
        })
        .await;
        let proxy = before(&backend).await;
        let mut client = proxy.client("web").await;
        let request = Request::get("http://a.example/").body(empty()).expect("a good request");
        let response = client.head(request).await.expect("a head");
        let body = soon("the end", response.into_body().collect()).await;
        assert!(body.is_err(), "a client must see that something is missing: {framing}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_takes_too_long() {
    let backend = Backend::raw(async |mut stream, _| {
        // Until the proxy gives up.
        let mut rest = Vec::new();
        drop(stream.read_to_end(&mut rest).await);
    })
    .await;
    let text = route("a", &backend.url()).replace("{loadBalancer: {", "{loadBalancer: {serversTransport: hasty, ")
        + "  serversTransports: {hasty: {forwardingTimeouts: {responseHeaderTimeout: 50ms}}}\n";
    let proxy = Proxy::start(INSTALL, &[("a.yaml", &text)]).await;
    assert_eq!(proxy.problems(), [""; 0]);
    assert_eq!(proxy.get("http://a.example/").await.said(), (504, "Gateway Timeout"));
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_to_servers_are_used_again() {
    let backend = Backend::saying("hello").await;
    let proxy = before(&backend).await;
    let mut client = proxy.client("web").await;
    for _ in 0..5 {
        assert_eq!(client.get("http://a.example/").await.text(), "hello");
    }
    assert_eq!(backend.connections(), 1);
}

/// Answers the first request of each connection, and ends it when the second comes.
async fn forgetful() -> Backend {
    Backend::raw(async |mut stream, number| {
        read_head(&mut stream).await;
        let text = number.to_string();
        let response = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len());
        stream.write_all(response.as_bytes()).await.expect("the proxy listens");
        read_head(&mut stream).await;
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_met_a_stale_connection_is_sent_again() {
    let backend = forgetful().await;
    let proxy = before(&backend).await;
    let mut client = proxy.client("web").await;
    for number in ["1", "2", "3"] {
        assert_eq!(client.get("http://a.example/").await.said(), (200, number));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_may_have_had_an_effect_is_not_sent_again() {
    for (method, body) in [("POST", "order"), ("POST", ""), ("DELETE", ""), ("PUT", "order")] {
        let backend = forgetful().await;
        let proxy = before(&backend).await;
        let mut client = proxy.client("web").await;
        assert_eq!(client.get("http://a.example/").await.said(), (200, "1"));
        let request = Request::builder().method(method).uri("http://a.example/");
        let reply = client.send_request(with_body(request, body)).await;
        assert_eq!(reply.said(), (502, "Bad Gateway"), "{method} {body}");
        assert_eq!(backend.connections(), 1, "{method} {body}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_takes_its_request_along() {
    let (arrived, gone) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (tell_arrived, tell_gone) = (Arc::clone(&arrived), Arc::clone(&gone));
    let backend = Backend::raw(move |mut stream, _| {
        let (arrived, gone) = (Arc::clone(&tell_arrived), Arc::clone(&tell_gone));
        async move {
            read_head(&mut stream).await;
            arrived.notify_one();
            let mut rest = Vec::new();
            drop(stream.read_to_end(&mut rest).await);
            gone.notify_one();
        }
    })
    .await;
    let proxy = before(&backend).await;
    let mut client = connect(proxy.address("web")).await;
    client.write_all(b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n").await.expect("the proxy listens");
    soon("the request", arrived.notified()).await;
    drop(client);
    soon("the end of the request", gone.notified()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_https_server_must_be_trusted() {
    let authority = Authority::new("Test Authority");
    let signed = Backend::saying_over_tls("signed", &authority.sign(&["server.example"]), &["http/1.1"]).await;
    let own = Backend::saying_over_tls("own", &Identity::self_signed(&["localhost"]), &["http/1.1"]).await;
    let folder = Folder::new();
    folder.write("ca.pem", &authority.pem);
    folder.write(
        "routing/a.yaml",
        format!(
            "
http:
  routers:
    system: {{rule: \"Host(`system.example`)\", service: system}}
    any: {{rule: \"Host(`any.example`)\", service: any}}
    named: {{rule: \"Host(`named.example`)\", service: named}}
    unnamed: {{rule: \"Host(`unnamed.example`)\", service: unnamed}}
  services:
    system: {{loadBalancer: {{servers: [{{url: \"{own}\"}}]}}}}
    any: {{loadBalancer: {{servers: [{{url: \"{own}\"}}], serversTransport: any}}}}
    named: {{loadBalancer: {{servers: [{{url: \"{signed}\"}}], serversTransport: named}}}}
    unnamed: {{loadBalancer: {{servers: [{{url: \"{signed}\"}}], serversTransport: unnamed}}}}
  serversTransports:
    any: {{insecureSkipVerify: true}}
    named: {{rootCAs: [$DIR/ca.pem], serverName: server.example}}
    unnamed: {{rootCAs: [$DIR/ca.pem]}}
",
            own = own.url(),
            signed = signed.url()
        ),
    );
    let proxy = Proxy::start_in(folder, INSTALL).await;
    for (host, said) in [
        ("system.example", (500, "Internal Server Error")),
        ("any.example", (200, "own")),
        ("named.example", (200, "signed")),
        // The authority is right, the name is not: the server is called 127.0.0.1 here.
        ("unnamed.example", (500, "Internal Server Error")),
    ] {
        assert_eq!(proxy.get(&format!("http://{host}/")).await.said(), said, "{host}");
    }
    assert_eq!((own.seen().len(), signed.seen().len()), (1, 1), "nothing is sent to whom is not trusted");
    assert_eq!(own.last().header("x-forwarded-proto"), "http");
}

#[tokio::test(flavor = "multi_thread")]
async fn http2_to_servers_that_speak_it() {
    let identity = Identity::self_signed(&["localhost"]);
    let secure = Backend::saying_over_tls("secure", &identity, &["h2", "http/1.1"]).await;
    let plain = Backend::saying_in_h2c("plain").await;
    let text = format!(
        "
http:
  routers:
    secure: {{rule: \"Host(`secure.example`)\", service: secure}}
    older: {{rule: \"Host(`older.example`)\", service: older}}
    plain: {{rule: \"Host(`plain.example`)\", service: plain}}
  services:
    secure: {{loadBalancer: {{servers: [{{url: \"{secure}\"}}], serversTransport: any}}}}
    older: {{loadBalancer: {{servers: [{{url: \"{secure}\"}}], serversTransport: older}}}}
    plain: {{loadBalancer: {{servers: [{{url: \"{plain}\"}}]}}}}
  serversTransports:
    any: {{insecureSkipVerify: true}}
    older: {{insecureSkipVerify: true, disableHTTP2: true}}
",
        secure = secure.url(),
        plain = plain.url()
    );
    let proxy = Proxy::start(INSTALL, &[("a.yaml", &text)]).await;
    for (name, backend, version) in
        [("secure", &secure, Version::HTTP_2), ("older", &secure, Version::HTTP_11), ("plain", &plain, Version::HTTP_2)]
    {
        let request = Request::post(format!("http://{name}.example/x?y")).header("x-a", "1");
        let reply = proxy.send_with(request, "body").await;
        assert_eq!((reply.status, reply.version), (200, Version::HTTP_11), "{name}");
        let seen = backend.last();
        assert_eq!((seen.version, seen.target.as_str(), seen.header("x-a")), (version, "/x?y", "1"), "{name}");
        assert_eq!((&seen.body[..], seen.header("x-forwarded-host")), (&b"body"[..], &*format!("{name}.example")));
    }
}
