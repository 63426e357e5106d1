//! Middlewares that work on bodies: that peek, wait for the whole, replace and filter, in both directions; and what
//! becomes of messages whose filter fails.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::Frame;
use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

use crate::support::backend::Backend;
use crate::support::client::{Client, Reply, connect, raw, with_body};
use crate::support::folder::Folder;
use crate::support::guests::guest;
use crate::support::proxy::{INSTALL, Proxy};
use crate::support::websocket::WebSocket;
use crate::support::{Body, empty, eventually, full, read_head, route, soon};

/// A proxy whose host `a.example` has these middlewares, in their order: each the options of `bodies`, or a whole one.
async fn proxy_with(middlewares: &[&str], url: &str) -> Proxy {
    let folder = Folder::new();
    folder.write("plugins/bodies.wasm", guest("bodies").await);
    let names: Vec<String> = (1..=middlewares.len()).map(|number| format!("m{number}")).collect();
    let mut text =
        route("a", url).replace("service: a}", &format!("service: a, middlewares: [{}]}}", names.join(", ")));
    text.push_str("  middlewares:\n");
    for (name, options) in names.iter().zip(middlewares) {
        match options.starts_with('{') {
            true => text.push_str(&format!("    {name}: {options}\n")),
            false => text.push_str(&format!("    {name}: {{plugin: {{bodies: {{{options}}}}}}}\n")),
        }
    }
    folder.write("routing/a.yaml", text);
    let install = format!("{INSTALL}accessLog: {{filePath: $DIR/access.log}}\n");
    let proxy = Proxy::start_in(folder, &install).await;
    assert_eq!(proxy.problems(), [""; 0]);
    proxy
}

/// A server that sends back what it gets.
async fn echoing() -> Backend {
    Backend::start(|seen| async move { Response::new(full(seen.body)) }).await
}

/// A server that answers every request with these bytes, and keeps the connection.
async fn answering(answer: &'static str) -> Backend {
    Backend::raw(move |mut stream, _| async move {
        while !read_head(&mut stream).await.is_empty() {
            if stream.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
        }
    })
    .await
}

/// A body whose frames come when a test sends them, without a length.
fn streamed() -> (mpsc::Sender<&'static str>, Body) {
    struct Frames(mpsc::Receiver<&'static str>);

    impl http_body::Body for Frames {
        type Data = Bytes;
        type Error = io::Error;

        fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
            self.0.poll_recv(context).map(|text| text.map(|text| Ok(Frame::data(Bytes::from_static(text.as_bytes())))))
        }
    }

    let (sender, receiver) = mpsc::channel(100);
    (sender, Frames(receiver).boxed())
}

/// The same with all that it has.
fn chunked(texts: &[&'static str]) -> Body {
    let (sender, body) = streamed();
    for text in texts {
        sender.try_send(text).expect("a few texts");
    }
    body
}

/// A client of either version.
async fn clients(proxy: &Proxy) -> [Client; 2] {
    [proxy.client("web").await, Client::h2c(proxy.address("web")).await]
}

fn post(body: Body) -> Request<Body> {
    Request::post("http://a.example/").body(body).expect("a good request")
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_change_bodies_of_both_directions() {
    let backend = echoing().await;
    let request_only = proxy_with(&["requestFilter: upper"], &backend.url()).await;
    let both = proxy_with(&["requestFilter: marks, responseFilter: upper, mark: x"], &backend.url()).await;
    for (proxy, sent, expected) in [(&request_only, "ABC", "ABC"), (&both, "abcx<", "ABCX<")] {
        for mut client in clients(proxy).await {
            for body in [full("abc"), chunked(&["a", "bc"])] {
                assert_eq!(client.send_request(post(body)).await.said(), (200, expected));
                let seen = backend.last();
                assert_eq!((&seen.body[..], seen.header("content-length")), (sent.as_bytes(), ""));
                assert_eq!(seen.header("transfer-encoding"), "chunked");
            }
            let reply = client.get("http://a.example/").await;
            assert_eq!(reply.said(), (200, ""), "there is nothing to filter");
            assert_eq!(backend.last().header("transfer-encoding"), "");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_compose_in_the_order_of_the_chain() {
    let backend = echoing().await;
    let marks = |mark| format!("requestFilter: marks, responseFilter: marks, mark: {mark}");
    let (first, second) = (marks("a"), marks("b"));
    let proxy = proxy_with(&[&first, &second], &backend.url()).await;
    for mut client in clients(&proxy).await {
        assert_eq!(client.send_request(post(full("1"))).await.said(), (200, "1a<b<b>a>"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_and_by_which_router_is_told_in_both_phases_and_in_filters() {
    let backend = echoing().await;
    let facts = "a@file web 127.0.0.1 /x?y";
    let tells = "requestFilter: tells, responseFilter: tells";
    for (middlewares, host) in [
        (&["{addPrefix: {prefix: /p}}", tells][..], "a.example"),
        (&["{headers: {customRequestHeaders: {Host: 'inner.example:81'}}}", tells], "inner.example:81"),
    ] {
        let proxy = proxy_with(middlewares, &backend.url()).await;
        for mut client in clients(&proxy).await {
            let request = Request::post("http://a.example/x?y").body(full(": ")).expect("a good request");
            let reply = client.send_request(request).await;
            let told = format!(": {facts}{facts}");
            assert_eq!((reply.said(), reply.header("x-told")), ((200, told.as_str()), facts));
            assert_eq!(backend.last().header("x-told"), format!("{host} {facts}"));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_says_which_trailers_go_on() {
    let answer =
        "HTTP/1.1 200 OK\r\nTrailer: x-sum\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nx-sum: 7\r\n\r\n";
    let backend = answering(answer).await;
    let proxy = proxy_with(&["responseFilter: counts"], &backend.url()).await;

    let mut client = Client::h2c(proxy.address("web")).await;
    let response = client.head(Request::get("http://a.example/").body(empty()).expect("a good request")).await;
    let body = response.expect("a response").into_body().collect().await.expect("a whole body");
    let mut expected = HeaderMap::new();
    expected.insert("x-sum", HeaderValue::from_static("7!"));
    expected.insert("x-count", HeaderValue::from_static("3"));
    assert_eq!(body.trailers(), Some(&expected), "no cookie, which is none of a trailer");
    assert_eq!(body.to_bytes(), "abc");

    let ask = |version: &str, fields: &str| {
        format!("GET / HTTP/{version}\r\nHost: a.example\r\n{fields}Connection: close\r\n\r\n")
    };
    let answer = raw(proxy.address("web"), &ask("1.1", "TE: trailers\r\n")).await;
    assert!(answer.to_lowercase().contains("\r\ntrailer: x-sum, x-count\r\n"), "{answer}");
    assert!(answer.to_lowercase().ends_with("0\r\nx-sum: 7!\r\nx-count: 3\r\n\r\n"), "{answer}");
    let answer = raw(proxy.address("web"), &ask("1.1", "")).await;
    assert!(answer.ends_with("3\r\nabc\r\n0\r\n\r\n"), "{answer}");
    let answer = raw(proxy.address("web"), &ask("1.0", "")).await;
    assert!(answer.ends_with("\r\n\r\nabc") && !answer.contains("chunked"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_middleware_sees_the_beginning_that_it_peeks_at() {
    let backend = echoing().await;
    let proxy = proxy_with(&["requestPeek: 4, responsePeek: 4"], &backend.url()).await;
    for mut client in clients(&proxy).await {
        for (text, expected) in
            [("abcdefgh", "4 false abcd"), ("abcd", "4 true abcd"), ("ab", "2 true ab"), ("", "0 true")]
        {
            let reply = client.send_request(post(full(text))).await;
            assert_eq!(reply.said(), (200, text));
            assert_eq!(reply.header("content-length"), text.len().to_string());
            assert_eq!((backend.last().header("x-seen"), reply.header("x-seen").trim_end()), (expected, expected));
        }
        let reply = client.send_request(post(chunked(&["ab", "c", "def"]))).await;
        assert_eq!(reply.said(), (200, "abcdef"));
        assert_eq!(backend.last().header("x-seen"), "4 false abcd");
        let reply = client.send_request(post(chunked(&["ab"]))).await;
        assert_eq!(reply.said(), (200, "ab"));
        assert_eq!((backend.last().header("x-seen"), backend.last().header("content-length")), ("2 true ab", "2"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_peeked_at_goes_on_before_the_rest_is_there() {
    let (heads, mut arrived) = mpsc::channel(1);
    let backend = Backend::raw(move |mut stream, _| {
        let heads = heads.clone();
        async move {
            heads.send(read_head(&mut stream).await).await.expect("the test waits");
            let mut piece = [0; 7];
            stream.read_exact(&mut piece).await.expect("what was peeked at");
            assert_eq!(&piece, b"4\r\nabcd");
            heads.send(String::new()).await.expect("the test waits");
            let mut rest = Vec::new();
            while !rest.ends_with(b"0\r\n\r\n") {
                rest.push(stream.read_u8().await.expect("the rest"));
            }
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.expect("an answer");
        }
    });
    let backend = backend.await;
    let proxy = proxy_with(&["requestPeek: 4"], &backend.url()).await;
    let mut client = proxy.client("web").await;
    let (sender, body) = streamed();
    let answer = tokio::spawn(async move { client.send_request(post(body)).await.status });
    sender.send("abcd").await.expect("the proxy reads");
    let head = soon("a head", arrived.recv()).await.expect("a head");
    assert!(head.to_lowercase().contains("x-seen: 4 false abcd\r\n"), "{head}");
    soon("the beginning", arrived.recv()).await;
    sender.send("efgh").await.expect("the proxy reads");
    drop(sender);
    assert_eq!(answer.await.expect("an answer"), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_middleware_has_the_whole_of_a_body_up_to_its_limit() {
    let backend = echoing().await;
    let proxy = proxy_with(&["requestBuffered: 8"], &backend.url()).await;
    for mut client in clients(&proxy).await {
        for body in [full("abcdefgh"), chunked(&["abc", "defgh"])] {
            assert_eq!(client.send_request(post(body)).await.said(), (200, "abcdefgh"));
            let seen = backend.last();
            assert_eq!((seen.header("x-seen"), seen.header("content-length")), ("8 true abcdefgh", "8"));
        }
        backend.take();
        for body in [full("abcdefghi"), chunked(&["abcdefgh", "i"])] {
            assert_eq!(client.send_request(post(body)).await.said(), (413, "Request Entity Too Large"));
        }
        assert!(backend.take().is_empty(), "nothing of it has come to the server");
        assert_eq!(client.send_request(post(full("abc"))).await.said(), (200, "abc"), "the connection goes on");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_that_is_longer_than_a_middleware_may_have_it_is_502() {
    let backend = echoing().await;
    let proxy = proxy_with(&["responseBuffered: 8"], &backend.url()).await;
    for mut client in clients(&proxy).await {
        let reply = client.send_request(post(full("abcdefgh"))).await;
        assert_eq!((reply.said(), reply.header("x-seen")), ((200, "abcdefgh"), "8 true abcdefgh"));
        assert_eq!(client.send_request(post(full("abcdefghi"))).await.said(), (502, "Bad Gateway"));
    }
    let unknown = answering("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nabcdefghi\r\n0\r\n\r\n").await;
    let proxy = proxy_with(&["responseBuffered: 8"], &unknown.url()).await;
    assert_eq!(proxy.get("http://a.example/").await.said(), (502, "Bad Gateway"));
    let proxy = proxy_with(&["responseBuffered: 9"], &unknown.url()).await;
    let reply = proxy.get("http://a.example/").await;
    assert_eq!((reply.said(), reply.header("content-length")), ((200, "abcdefghi"), "9"));
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_has_more_at_hand_than_the_host_allows() {
    let backend = Backend::saying("hello").await;
    let proxy = proxy_with(&["requestBuffered: 1000000000"], &backend.url()).await;
    let fits = vec![b'x'; 1 << 20];
    let reply = proxy.send_with(Request::post("http://a.example/"), fits.clone()).await;
    assert_eq!(reply.said(), (200, "hello"));
    assert_eq!(backend.take().len(), 1);
    let answer = raw(
        proxy.address("web"),
        "POST / HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\nContent-Length: 1048577\r\n\r\n",
    )
    .await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "at once: {answer}");
    let proxy = proxy_with(&["requestPeek: 1000000000"], &backend.url()).await;
    let reply = proxy.send_with(Request::post("http://a.example/"), [fits, vec![b'x']].concat()).await;
    assert_eq!(reply.said(), (200, "hello"));
    assert_eq!(backend.last().header("x-seen"), "1048576 false xxxxxxxx");
    assert_eq!(backend.last().body.len(), (1 << 20) + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_wait_are_told_to_go_on() {
    let backend = echoing().await;
    let proxy = proxy_with(&["requestBuffered: 8"], &backend.url()).await;
    let mut client = connect(proxy.address("web")).await;
    let ask = |length| {
        format!("POST / HTTP/1.1\r\nHost: a.example\r\nExpect: 100-continue\r\nContent-Length: {length}\r\n\r\n")
    };
    client.write_all(ask(3).as_bytes()).await.expect("the proxy reads");
    assert!(read_head(&mut client).await.starts_with("HTTP/1.1 100 "));
    client.write_all(b"abc").await.expect("the proxy reads");
    assert!(read_head(&mut client).await.starts_with("HTTP/1.1 200 "));
    let mut body = [0; 3];
    client.read_exact(&mut body).await.expect("the body");
    client.write_all(ask(9).as_bytes()).await.expect("the proxy reads");
    let head = read_head(&mut client).await;
    assert!(head.starts_with("HTTP/1.1 413 "), "without a 100: {head}");
    assert!(head.to_lowercase().contains("connection: close\r\n"), "{head}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_without_content_is_not_filtered() {
    for (answer, status) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n", 200),
        ("HTTP/1.1 304 Not Modified\r\nContent-Length: 100\r\n\r\n", 304),
        ("HTTP/1.1 204 No Content\r\n\r\n", 204),
    ] {
        let backend = answering(answer).await;
        for options in ["responseFilter: marks, mark: x", "responseBuffered: 8"] {
            let proxy = proxy_with(&[options], &backend.url()).await;
            for mut client in clients(&proxy).await {
                let reply = client.send(Request::head("http://a.example/")).await;
                assert_eq!((reply.said(), reply.header("x-seen").split(' ').next()), ((status, ""), Some("0")));
                let length = if options.contains("Filter") || status != 200 { "" } else { "100" };
                assert!(status != 200 || reply.header("content-length") == length, "{options} {:?}", reply.headers);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn replies_of_other_middlewares_have_bodies_too() {
    let backend = Backend::saying("hello").await;
    let auth = "{basicAuth: {users: [\"admin:$apr1$c5IwaNCW$VpEXax7LtUneLsElXFWCI.\"]}}";
    let proxy = proxy_with(&["responseFilter: upper, responsePeek: 3", auth], &backend.url()).await;
    let reply = proxy.get("http://a.example/").await;
    assert_eq!((reply.said(), reply.header("x-seen")), ((401, "401 UNAUTHORIZED\n"), "3 false 401"));
    let proxy =
        proxy_with(&["responseBuffered: 100", "responseReplace: other, requestReplace: mine"], &backend.url()).await;
    let reply = proxy.send_with(Request::post("http://a.example/"), "yours").await;
    assert_eq!((reply.said(), reply.header("x-seen")), ((200, "other"), "5 true other"));
    assert_eq!((&backend.last().body[..], backend.last().header("content-length")), (&b"mine"[..], "4"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_that_fails_on_a_request_aborts_it() {
    let backend = echoing().await;
    for how in ["errs", "traps", "loops", "growsMemory", "answersTooMuch", "loopsAtTheEnd", "trapsAtTheBeginning"] {
        let proxy = proxy_with(&[&format!("requestFilter: {how}")], &backend.url()).await;
        for mut client in clients(&proxy).await {
            let reply = client.send_request(post(full("boom"))).await;
            assert_eq!(reply.said(), (500, "Internal Server Error"), "{how}");
            if !how.ends_with("End") && !how.ends_with("Beginning") {
                assert_eq!(client.send_request(post(full("fine"))).await.said(), (200, "fine"), "{how}");
            }
        }
    }
    let wrong = |body: &[u8]| !matches!(body, b"fine" | b"");
    assert!(!backend.seen().iter().any(|seen| wrong(&seen.body)), "no server takes a part for the whole");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_that_fails_on_a_response_cuts_it() {
    let answer = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nfine\r\n4\r\nboom\r\n0\r\n\r\n";
    for how in ["errs", "traps", "loops", "growsMemory", "answersTooMuch", "loopsAtTheEnd", "endsWithFraming"] {
        let backend = answering(answer).await;
        let proxy = proxy_with(&[&format!("responseFilter: {how}")], &backend.url()).await;
        for round in 1..=2 {
            let request = "GET / HTTP/1.1\r\nHost: a.example\r\n\r\n";
            let answer = raw(proxy.address("web"), request).await;
            assert!(!answer.contains("0\r\n\r\n") && !answer.contains("boom0"), "{how}: {answer}");
            let is_at_the_end = how.contains("End") || how.starts_with("ends");
            assert!(is_at_the_end || backend.connections() == round, "{how}: its connection is not used again");
        }
        let mut client = Client::h2c(proxy.address("web")).await;
        let request = Request::get("http://a.example/").body(empty()).expect("a good request");
        match client.head(request).await {
            Ok(response) => drop(Reply::read(response).await.expect_err("the stream is reset")),
            Err(error) => assert!(error.to_string().contains("http2"), "{how}: {error}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_ends_with_either_side() {
    let (gone, mut goes) = mpsc::channel(8);
    let backend = Backend::raw(move |mut stream, number| {
        let gone = gone.clone();
        async move {
            read_head(&mut stream).await;
            let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nfine\r\n";
            stream.write_all(head).await.expect("the proxy reads");
            // The second server goes away itself.
            if number == 1 {
                drop(stream.read_u8().await);
                gone.send(()).await.expect("the test waits");
            }
        }
    });
    let backend = backend.await;
    let proxy = proxy_with(&["responseFilter: upper"], &backend.url()).await;
    let mut client = connect(proxy.address("web")).await;
    client.write_all(b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n").await.expect("the proxy reads");
    read_head(&mut client).await;
    let mut piece = [0; 7];
    client.read_exact(&mut piece).await.expect("the first piece");
    assert_eq!(&piece, b"4\r\nFINE");
    drop(client);
    soon("the end of the server's connection", goes.recv()).await;

    let answer = raw(proxy.address("web"), "GET / HTTP/1.1\r\nHost: a.example\r\n\r\n").await;
    assert!(answer.ends_with("4\r\nFINE\r\n"), "no clean end: {answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_client_holds_up_the_guest_and_the_server() {
    const PIECES: usize = 4096;

    let written = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&written);
    let backend = Backend::raw(move |mut stream, _| {
        let count = Arc::clone(&count);
        async move {
            read_head(&mut stream).await;
            let length = PIECES << 14;
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
            stream.write_all(head.as_bytes()).await.expect("the proxy reads");
            for _ in 0..PIECES {
                stream.write_all(&[b'x'; 1 << 14]).await.expect("the proxy reads");
                count.fetch_add(1, Ordering::SeqCst);
            }
        }
    });
    let backend = backend.await;
    // 1 GiB for the client, of 64 MiB.
    let proxy = proxy_with(&["responseFilter: expands"], &backend.url()).await;
    for mut client in clients(&proxy).await {
        written.store(0, Ordering::SeqCst);
        let request = Request::get("http://a.example/").body(empty()).expect("a good request");
        let response = client.head(request).await.expect("a response");
        let mut before = 0;
        eventually("a standstill", async || {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let now = written.load(Ordering::SeqCst);
            now == std::mem::replace(&mut before, now) && now > 0
        })
        .await;
        assert!(before < PIECES / 2, "{before} pieces were taken that nobody reads");
        let mut body = response.into_body();
        let mut length = 0;
        while length < 32 << 20 {
            let frame = soon("more", body.frame()).await.expect("more").expect("a frame");
            length += frame.data_ref().map_or(0, Bytes::len);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn so_many_bodies_may_flow_through_a_plugin_at_once() {
    let backend = answering("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nfine\r\n").await;
    let proxy = proxy_with(&["responseFilter: upper"], &backend.url()).await;
    // Streams of one connection are on one worker.
    let mut client = Client::h2c(proxy.address("web")).await;
    let request = || Request::get("http://a.example/").body(empty()).expect("a good request");
    let mut flowing = Vec::new();
    for _ in 0..64 {
        let response = client.head(request()).await.expect("a response");
        assert_eq!(response.status(), 200);
        flowing.push(response);
    }
    assert_eq!(client.head(request()).await.expect("a response").status(), 503);
    flowing.pop();
    eventually("room for another", async || client.head(request()).await.expect("a response").status() == 200).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_access_log_counts_what_the_client_gets() {
    let backend = Backend::saying("hello").await;
    let proxy = proxy_with(&["responseFilter: marks, mark: \"12\""], &backend.url()).await;
    assert_eq!(proxy.get("http://a.example/").await.said(), (200, "hello12>"));
    eventually("a line", async || proxy.folder.read("access.log").contains("\"GET / HTTP/1.1\" 200 8 ")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn websockets_pass_as_they_are() {
    let (backend, _) = Backend::echoing_websockets().await;
    let options = "requestFilter: upper, requestBuffered: 8, responseFilter: upper, responseBuffered: 8";
    let proxy = proxy_with(&[options], &backend.url()).await;
    let stream = connect(proxy.address("web")).await;
    let mut socket = WebSocket::connect(stream, "a.example", "/").await.expect("a websocket");
    socket.send("hello").await;
    assert_eq!(socket.receive().await.as_deref(), Some("hello"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_never_whole_is_not_sent() {
    let backend = echoing().await;
    let proxy = proxy_with(&["requestBuffered: 8"], &backend.url()).await;
    let head = "POST / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n";
    let answer = raw(proxy.address("web"), &format!("{head}nonsense\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    let mut client = connect(proxy.address("web")).await;
    client.write_all(head.as_bytes()).await.expect("the proxy reads");
    drop(client);
    assert_eq!(proxy.send_with(Request::post("http://a.example/"), "whole").await.said(), (200, "whole"));
    assert!(backend.seen().iter().all(|seen| &seen.body[..] == b"whole"));
    assert_eq!(backend.seen().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_swallowed_has_no_end_of_its_own() {
    let backend = echoing().await;
    let proxy = proxy_with(&["requestFilter: swallows"], &backend.url()).await;
    for mut client in clients(&proxy).await {
        let body = vec![b'x'; 1 << 20];
        let request = with_body(Request::post("http://a.example/"), body);
        assert_eq!(client.send_request(request).await.said(), (200, ""));
        assert_eq!(backend.last().body.len(), 0);
    }
}
