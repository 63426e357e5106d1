//! A server that answers with bytes, whatever it is asked, and what becomes of them.

use rcgen::{CertificateParams, KeyPair};
use rustls::RootCertStore;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::PrivatePkcs8KeyDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::*;

const ANY: &(dyn Fn(IpAddr) -> bool + Send + Sync) = &|_| true;

#[tokio::test]
async fn a_request_says_what_we_set_and_no_more_about_its_connection() {
    let server = Server::answers(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nx-a: b\r\n\r\nhi").await;
    let request = Request::post(server.url("/a?b=c"))
        .header("authorization", "Bearer token")
        .header("user-agent", "someone else")
        .header("host", "elsewhere.example")
        .header("transfer-encoding", "chunked")
        .header("content-length", "7")
        .body(Bytes::from_static(b"body"))
        .expect("a request");
    let response = client(settings()).send(request, ANY).await.expect("an answer");
    assert_eq!(
        (response.status().as_u16(), &response.headers()["x-a"], &response.body()[..]),
        (200, &HeaderValue::from_static("b"), &b"hi"[..])
    );
    let sent = server.heard.await.expect("a request").to_ascii_lowercase();
    assert!(sent.starts_with("post /a?b=c http/1.1\r\n"), "{sent}");
    assert!(sent.ends_with("\r\n\r\nbody"), "{sent}");
    let host = format!("host: {}\r\n", server.authority);
    for field in [
        "authorization: bearer token\r\n",
        "user-agent: weir/test\r\n",
        "connection: close\r\n",
        "content-length: 4\r\n",
        &host,
    ] {
        assert_eq!(sent.matches(field).count(), 1, "{field} in {sent}");
    }
    for field in ["chunked", "elsewhere", "someone"] {
        assert!(!sent.contains(field), "{field} in {sent}");
    }
}

#[tokio::test]
async fn what_a_server_answers_is_an_answer_or_an_error_in_words() {
    let table: [(&[u8], Result<u16, &str>); 13] = [
        (b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n", Ok(404)),
        (b"HTTP/1.1 302 Found\r\nlocation: http://169.254.169.254/\r\ncontent-length: 0\r\n\r\n", Ok(302)),
        (b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n", Ok(204)),
        (b"HTTP/1.1 200 OK\r\n\r\nuntil the end", Ok(200)),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n", Ok(200)),
        (b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n", Err("protocol")),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 20\r\n\r\ncut sho", Err("broke off")),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n", Err("broke off")),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 65\r\n\r\n", Err("more than 64 bytes")),
        (
            b"HTTP/1.1 200 OK\r\n\r\n0123456789012345678901234567890123456789012345678901234567890123456789",
            Err("more than 64 bytes"),
        ),
        (b"220 mail.example ESMTP\r\n", Err("broke off")),
        (b"HTTP/1.1 200 OK\r\ncontent-le", Err("broke off")),
        (b"", Err("broke off")),
    ];
    for (answer, expected) in table {
        let server = Server::answers(answer).await;
        let result = client(settings()).send(request(&server.url("/")), ANY).await;
        let text = String::from_utf8_lossy(answer);
        match (result, expected) {
            (Ok(response), Ok(status)) => assert_eq!(response.status().as_u16(), status, "{text}"),
            (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{text}: {error}"),
            (result, _) => panic!("{text}: {result:?}"),
        }
    }
}

#[tokio::test]
async fn a_server_that_stalls_is_given_up_in_time() {
    let table: [(&[u8], &str); 3] = [
        (b"", "no answer from"),
        (b"HTTP/1.1 200", "no answer from"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nslo", "no whole answer from"),
    ];
    for (answer, part) in table {
        let server = Server::stalls_after(answer).await;
        let short = Duration::from_millis(100);
        let settings = Settings { head_timeout: short, timeout: short * 3, ..settings() };
        let error = client(settings).send(request(&server.url("/")), ANY).await.expect_err("no answer");
        assert!(matches!(&error, Error::Timeout(_)) && error.to_string().contains(part), "{part}: {error}");
    }
}

#[tokio::test]
async fn addresses_that_are_not_admitted_are_never_connected_to() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let no_loopback: &(dyn Fn(IpAddr) -> bool + Send + Sync) = &|address| !address.is_loopback();
    for host in ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "127.1", "[::1]"] {
        let request = request(&format!("http://{host}:{port}/"));
        let error = client(settings()).send(request, no_loopback).await.expect_err("refused");
        assert!(matches!(error, Error::Denied { .. } | Error::Unreachable(_)), "{host}: {error}");
        if host != "127.1" {
            assert!(matches!(error, Error::Denied { .. }), "{host}: {error}");
        }
    }
    let nobody = timeout(Duration::from_millis(50), listener.accept()).await;
    assert!(nobody.is_err(), "somebody connected");
}

#[tokio::test]
async fn the_second_address_is_tried_when_the_first_does_not_answer() {
    let server = Server::answers(b"HTTP/1.1 204 No Content\r\n\r\n").await;
    let port = server.authority.rsplit(':').next().expect("a port").parse::<u16>().expect("a number");
    // Where `localhost` is ::1 too, nobody listens there.
    let response = client(settings()).send(request(&format!("http://localhost:{port}/")), ANY).await;
    assert_eq!(response.expect("an answer").status(), 204);
}

#[tokio::test]
async fn urls_that_cannot_be_asked_are_refused_before_anything_is_sent() {
    for (url, part) in [
        ("/relative", "begins with neither"),
        ("ftp://host.example/", "begins with neither"),
        ("http://user:password@host.example/", "user or a password"),
        ("http://host.example:99999/", "port"),
        ("http://host.example:/", "port"),
    ] {
        let error = client(settings()).send(request(url), ANY).await.expect_err("refused");
        assert!(matches!(&error, Error::Unusable(words) if words.contains(part)), "{url}: {error}");
        assert!(!error.to_string().contains("password@"), "{error}");
    }
    let error = client(settings()).send(request("http://127.0.0.1:1/?token=secret"), ANY).await.expect_err("closed");
    assert!(matches!(error, Error::Unreachable(_)), "{error}");
    assert!(!format!("{error} {error:?}").contains("secret"));
}

#[tokio::test]
async fn a_server_must_prove_the_name_that_is_expected_of_it() {
    let whole: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi";
    let table: [(_, _, _, &[u8], _); 5] = [
        ("localhost", None, true, whole, Ok(())),
        ("127.0.0.1", Some("localhost"), true, whole, Ok(())),
        ("127.0.0.1", None, true, whole, Err("no trust: `127.0.0.1`")),
        ("localhost", None, false, whole, Err("no trust: `localhost`")),
        // Without the close of TLS, the end of a body may be somebody's cut.
        ("localhost", None, true, b"HTTP/1.1 200 OK\r\n\r\nhi", Err("broke off")),
    ];
    for (host, server_name, is_trusted, answer, expected) in table {
        let (server, root) = Server::answers_in_tls(answer).await;
        let mut roots = RootCertStore::empty();
        if is_trusted {
            roots.add(root).expect("a root");
        }
        let settings = Settings { tls: tls(roots), server_name: server_name.map(str::to_owned), ..settings() };
        let result = client(settings).send(request(&format!("https://{host}:{}/", server.port())), ANY).await;
        match (&result, expected) {
            (Ok(_), Ok(())) => {}
            (Err(error), Err(part)) if error.to_string().contains(part) => {}
            _ => panic!("{host} {server_name:?}: {result:?}"),
        }
    }
}

fn client(settings: Settings) -> Client {
    Client::new(settings)
}

fn settings() -> Settings {
    let long = Duration::from_secs(10);
    Settings {
        tls: tls(RootCertStore::empty()),
        server_name: None,
        connect_timeout: long,
        head_timeout: long,
        timeout: long,
        body_at_most: 64,
        user_agent: HeaderValue::from_static("weir/test"),
    }
}

fn tls(roots: RootCertStore) -> Arc<rustls::ClientConfig> {
    let config = rustls::ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions of TLS")
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config)
}

fn request(url: &str) -> Request<Bytes> {
    Request::get(url).body(Bytes::new()).expect("a request")
}

/// Answers one connection with bytes, whatever it is asked.
struct Server {
    authority: String,
    heard: tokio::task::JoinHandle<String>,
}

impl Server {
    async fn answers(answer: &'static [u8]) -> Self {
        Self::start(answer, false).await
    }

    async fn stalls_after(answer: &'static [u8]) -> Self {
        Self::start(answer, true).await
    }

    async fn start(answer: &'static [u8], stalls: bool) -> Self {
        let (listener, authority) = listen().await;
        let heard = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            let heard = hear(&mut stream).await;
            stream.write_all(answer).await.expect("a write");
            if stalls {
                std::future::pending::<()>().await;
            }
            stream.shutdown().await.expect("a shutdown");
            heard
        });
        Self { authority, heard }
    }

    async fn answers_in_tls(answer: &'static [u8]) -> (Self, rustls::pki_types::CertificateDer<'static>) {
        let (listener, authority) = listen().await;
        let (root, config) = server_config();
        let heard = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.expect("a connection");
            let Ok(mut stream) = TlsAcceptor::from(config).accept(stream).await else {
                return String::new();
            };
            let heard = hear(&mut stream).await;
            stream.write_all(answer).await.expect("a write");
            stream.flush().await.expect("a flush");
            // No close_notify.
            stream.get_mut().0.shutdown().await.expect("a shutdown");
            heard
        });
        (Self { authority, heard }, root)
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.authority)
    }

    fn port(&self) -> &str {
        self.authority.rsplit(':').next().expect("a port")
    }
}

async fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let authority = listener.local_addr().expect("an address").to_string();
    (listener, authority)
}

async fn hear(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut heard = String::new();
    let mut buffer = [0; 4096];
    while !heard.contains("\r\n\r\n") || (heard.starts_with("POST") && !heard.ends_with("body")) {
        let count = stream.read(&mut buffer).await.expect("a read");
        assert_ne!(count, 0, "the client went after {heard}");
        heard.push_str(&String::from_utf8_lossy(&buffer[..count]));
    }
    heard
}

fn server_config() -> (rustls::pki_types::CertificateDer<'static>, Arc<rustls::ServerConfig>) {
    let root_key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(Vec::new()).expect("names");
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let root = params.self_signed(&root_key).expect("a root");
    let issuer = rcgen::Issuer::from_params(&params, &root_key);
    let key = KeyPair::generate().expect("a key");
    let names = CertificateParams::new(vec!["localhost".to_owned()]).expect("names");
    let certificate = names.signed_by(&key, &issuer).expect("a certificate");
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions of TLS")
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], PrivatePkcs8KeyDer::from(key.serialize_der()).into())
        .expect("a key of the certificate");
    (root.der().clone(), Arc::new(config))
}
