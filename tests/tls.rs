//! Certificates, TLS options and client certificates, and what a reload does to them.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::Request;
use rustls::client::{
    ClientSessionMemoryCache, ClientSessionStore, Resumption, Tls12ClientSessionValue, Tls13ClientSessionValue,
};
use rustls::pki_types::ServerName;
use rustls::{NamedGroup, ProtocolVersion};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::support::backend::Backend;
use crate::support::certificates::{Authority, Identity};
use crate::support::client::{connect, offering, secure_stream, showing, trusting};
use crate::support::folder::Folder;
use crate::support::proxy::{INSTALL, Proxy};
use crate::support::{eventually, read_head, soon};

/// A folder whose routing file has a router with TLS for `a.example` and one for `b.example`, both to `whoami@internal`.
fn folder() -> Folder {
    let folder = Folder::new();
    folder.write(
        "routing/routes.yaml",
        "
http:
  routers:
    a: {rule: \"Host(`a.example`)\", service: whoami@internal, tls: {}}
    b: {rule: \"Host(`b.example`)\", service: whoami@internal, tls: {}}
",
    );
    folder
}

async fn common_name(proxy: &Proxy, name: &str) -> String {
    proxy.secure_client(name).await.session().common_name()
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_found_by_server_name() {
    let folder = folder();
    Identity::self_signed(&["a.example"]).write(&folder, "a");
    Identity::self_signed(&["wild.example", "*.wild.example"]).write(&folder, "wild");
    Identity::self_signed(&["fallback.example"]).write(&folder, "fallback");
    folder.write(
        "routing/tls.yaml",
        "
tls:
  certificates:
    - {certFile: $DIR/a.crt, keyFile: $DIR/a.key}
    - {certFile: $DIR/wild.crt, keyFile: $DIR/wild.key}
  stores:
    default:
      defaultCertificate: {certFile: $DIR/fallback.crt, keyFile: $DIR/fallback.key}
",
    );
    let proxy = Proxy::start_in(folder, INSTALL).await;
    assert_eq!(proxy.problems(), [""; 0]);
    for (name, expected) in [
        ("a.example", "a.example"),
        ("A.Example", "a.example"),
        ("x.wild.example", "wild.example"),
        ("x.y.wild.example", "fallback.example"),
        ("b.example", "fallback.example"),
        // No name is sent for an address.
        ("127.0.0.1", "fallback.example"),
    ] {
        assert_eq!(common_name(&proxy, name).await, expected, "{name}");
    }
    assert_eq!(proxy.status("https://a.example/").await, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_certificate_one_is_made() {
    let proxy = Proxy::start_in(folder(), INSTALL).await;
    let first = proxy.secure_client("a.example").await;
    assert_eq!(first.session().common_name(), "WEIR DEFAULT CERT");
    assert_eq!(proxy.status("https://a.example/").await, 200);
    proxy.write("more.yaml", "http: {routers: {c: {rule: \"Host(`c.example`)\", service: whoami@internal, tls: {}}}}");
    proxy.reload().await;
    let second = proxy.secure_client("c.example").await;
    assert_eq!(first.session().certificate, second.session().certificate, "whoever trusts it once need not again");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newest_key_exchange_and_versions() {
    let proxy = Proxy::start_in(folder(), INSTALL).await;
    let client = proxy.secure_client("a.example").await;
    assert_eq!(client.session().version, Some(ProtocolVersion::TLSv1_3));
    assert_eq!(client.session().group, Some(NamedGroup::X25519MLKEM768));
}

#[tokio::test(flavor = "multi_thread")]
async fn options_belong_to_hosts() {
    let folder = folder();
    folder.write(
        "routing/tls.yaml",
        "
http:
  routers:
    modern: {rule: \"Host(`modern.example`)\", service: whoami@internal, tls: {options: modern}}
    older: {rule: \"Host(`older.example`)\", service: whoami@internal, tls: {options: older}}
tls:
  options:
    modern: {minVersion: VersionTLS13, alpnProtocols: [http/1.1], curvePreferences: [X25519]}
    older: {maxVersion: VersionTLS12, cipherSuites: [TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384]}
",
    );
    let proxy = Proxy::start_in(folder, INSTALL).await;
    assert_eq!(proxy.problems(), [""; 0]);
    let agreed = async |name: &str| {
        let client = proxy.secure_client_with(name, offering(&["h2", "http/1.1"])).await.expect("a TLS handshake");
        let session = client.session();
        (session.version, session.alpn.clone().unwrap_or_default(), session.group)
    };
    let (newest, older) = (Some(ProtocolVersion::TLSv1_3), Some(ProtocolVersion::TLSv1_2));
    assert_eq!(agreed("modern.example").await, (newest, "http/1.1".to_owned(), Some(NamedGroup::X25519)));
    let (version, alpn, _) = agreed("older.example").await;
    assert_eq!((version, alpn.as_str()), (older, "h2"));
    let (version, alpn, group) = agreed("a.example").await;
    assert_eq!((version, alpn.as_str(), group), (newest, "h2", Some(NamedGroup::X25519MLKEM768)));
    for host in ["modern", "older"] {
        assert_eq!(proxy.status(&format!("https://{host}.example/")).await, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn strict_server_names() {
    let folder = folder();
    Identity::self_signed(&["a.example"]).write(&folder, "a");
    folder.write(
        "routing/tls.yaml",
        "
tls:
  certificates: [{certFile: $DIR/a.crt, keyFile: $DIR/a.key}]
  options: {default: {sniStrict: true}}
",
    );
    let proxy = Proxy::start_in(folder, INSTALL).await;
    assert_eq!(proxy.status("https://a.example/").await, 200);
    for name in ["b.example", "127.0.0.1"] {
        assert!(proxy.secure_client_with(name, trusting()).await.is_err(), "{name} has no certificate");
    }
}

/// `mutual.example` wants a certificate of an authority, `a.example` does not.
async fn mutual(kind: &str) -> (Proxy, Authority, Backend) {
    let authority = Authority::new("Clients");
    let backend = Backend::saying("secret").await;
    let folder = folder();
    folder.write("clients.pem", &authority.pem);
    folder.write(
        "routing/tls.yaml",
        format!(
            "
http:
  routers:
    mutual: {{rule: \"Host(`mutual.example`)\", service: secret, tls: {{options: mutual}}}}
  services:
    secret: {{loadBalancer: {{servers: [{{url: \"{}\"}}]}}}}
tls:
  options:
    mutual: {{clientAuth: {{caFiles: [$DIR/clients.pem], clientAuthType: {kind}}}}}
",
            backend.url()
        ),
    );
    (Proxy::start_in(folder, INSTALL).await, authority, backend)
}

/// Whether a client may ask for something; in TLS 1.3 it learns only after its handshake that it may not.
async fn is_let_in(proxy: &Proxy, config: rustls::ClientConfig) -> bool {
    let Ok(mut client) = proxy.secure_client_with("mutual.example", config).await else { return false };
    let request = Request::get("https://mutual.example/").body(crate::support::empty()).expect("a good request");
    match client.head(request).await {
        Ok(response) => {
            assert_eq!(response.status(), 200);
            true
        }
        Err(_) => false,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn client_certificates() {
    let (proxy, authority, backend) = mutual("RequireAndVerifyClientCert").await;
    assert_eq!(proxy.problems(), [""; 0]);
    let known = authority.sign(&["client"]);
    let stranger = Authority::new("Strangers").sign(&["client"]);
    assert!(is_let_in(&proxy, showing(&known)).await);
    assert!(!is_let_in(&proxy, trusting()).await, "without a certificate");
    assert!(!is_let_in(&proxy, showing(&stranger)).await, "with one of another authority");
    assert!(!is_let_in(&proxy, showing(&Identity::self_signed(&["client"]))).await);
    assert_eq!(backend.seen().len(), 1);
    assert_eq!(proxy.status("https://a.example/").await, 200, "other hosts do not ask for one");

    let (proxy, authority, _backend) = mutual("VerifyClientCertIfGiven").await;
    assert!(is_let_in(&proxy, trusting()).await);
    assert!(is_let_in(&proxy, showing(&authority.sign(&["client"]))).await);
    assert!(!is_let_in(&proxy, showing(&stranger)).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_router_keeps_its_options_with_its_last_good_version() {
    let (proxy, authority, _backend) = mutual("RequireAndVerifyClientCert").await;
    let text = proxy.folder.read("routing/tls.yaml");
    let (routes, _options) = text.split_once("tls:\n  options").expect("the file has options");
    let known = authority.sign(&["client"]);
    // The options vanish, alone or together with a good rule.
    for routes in [routes.to_owned(), routes.replace("Host(`mutual.example`)", "Hst(`mutual.example`)")] {
        proxy.write("tls.yaml", &routes);
        proxy.reload().await;
        assert!(is_let_in(&proxy, showing(&known)).await);
        assert!(!is_let_in(&proxy, trusting()).await, "without a certificate");
        assert!(proxy.snapshot().items.routers["mutual"].stale);
        assert_eq!(proxy.problems().len(), 1, "{:?}", proxy.problems());
    }
    // Who no longer asks for them has no certificate to show.
    proxy.write("tls.yaml", &routes.replace("{options: mutual}", "{}"));
    proxy.reload().await;
    assert!(is_let_in(&proxy, trusting()).await);
    assert_eq!(proxy.problems(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_comes_in_by_the_name_of_another_host() {
    let (proxy, authority, backend) = mutual("RequireAndVerifyClientCert").await;
    for protocol in ["http/1.1", "h2"] {
        let mut client = proxy.secure_client_with("a.example", offering(&[protocol])).await.expect("a TLS handshake");
        let reply = client.get("https://mutual.example/").await;
        assert_eq!(reply.said(), (421, "Misdirected Request\n"), "{protocol}");
        assert_eq!(client.get("https://a.example/").await.status, 200, "{protocol}: the connection is good otherwise");
        // The same options, though it is another host.
        assert_eq!(client.get("https://b.example/").await.status, 200, "{protocol}");
    }
    assert_eq!(backend.seen().len(), 0);
    let mut client =
        proxy.secure_client_with("mutual.example", showing(&authority.sign(&["client"]))).await.expect("let in");
    assert_eq!(client.get("https://a.example/").await.status, 421);
    assert_eq!(client.get("https://mutual.example/").await.said(), (200, "secret"));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_spelling_of_a_name_leads_past_its_options() {
    let (proxy, authority, backend) = mutual("RequireAndVerifyClientCert").await;
    for name in ["mutual.example", "MUTUAL.Example", "mutual.example."] {
        let stranger = secure_stream(proxy.address("websecure"), name, trusting()).await;
        if let Ok(mut stream) = stranger {
            // In TLS 1.3 a client learns only after its handshake that it may not come in.
            let _ = stream.write_all(b"GET / HTTP/1.1\r\nHost: mutual.example\r\n\r\n").await;
            assert_eq!(read_head(&mut stream).await, "", "{name}");
        }
        let known = showing(&authority.sign(&["client"]));
        let mut stream = secure_stream(proxy.address("websecure"), name, known).await.expect("let in");
        stream.write_all(b"GET / HTTP/1.1\r\nHost: mutual.example\r\n\r\n").await.expect("let in");
        assert!(read_head(&mut stream).await.starts_with("HTTP/1.1 200 "), "{name}");
    }
    let seen = backend.seen().len();
    // With a name that asks for nothing, and with none at all.
    for name in ["a.example", "127.0.0.1"] {
        for host in
            ["mutual.example", "MUTUAL.example", "mutual.example.", "mutual.example:443", "mutual.example.:8443"]
        {
            let mut stream = secure_stream(proxy.address("websecure"), name, trusting()).await.expect("a handshake");
            let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
            stream.write_all(request.as_bytes()).await.expect("a new connection takes bytes");
            let head = read_head(&mut stream).await;
            assert!(head.starts_with("HTTP/1.1 421 "), "{host} by {name}: {head}");
        }
    }
    assert_eq!(backend.seen().len(), seen);
}

/// Cuts the first thing that is written, which is the ClientHello, into pieces of a byte.
struct Fragmented {
    stream: TcpStream,
    /// Records of their own instead of segments.
    as_records: bool,
    /// What is left of it.
    hello: VecDeque<u8>,
    is_begun: bool,
}

impl Fragmented {
    fn new(stream: TcpStream, as_records: bool) -> Self {
        Self { stream, as_records, hello: VecDeque::new(), is_begun: false }
    }

    fn poll_hello(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.hello.is_empty() {
            // Without Nagle's algorithm each of them is a segment.
            let byte = [self.hello[0]];
            ready!(Pin::new(&mut self.stream).poll_write(context, &byte))?;
            self.hello.pop_front();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Fragmented {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, bytes)
    }
}

impl AsyncWrite for Fragmented {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if !self.is_begun {
            self.is_begun = true;
            let [kind, major, minor, _, _, message @ ..] = bytes else { panic!("a whole record") };
            self.hello = match self.as_records {
                true => message.iter().flat_map(|byte| [*kind, *major, *minor, 0, 1, *byte]).collect(),
                false => bytes.iter().copied().collect(),
            };
            return Poll::Ready(Ok(bytes.len()));
        }
        ready!(self.poll_hello(context))?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_hello(context))?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// CVE-2026-32305: a fragmented ClientHello had no server name, and thus the default options.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_hello_in_pieces_has_the_same_options() {
    let (proxy, authority, backend) = mutual("RequireAndVerifyClientCert").await;
    for as_records in [false, true] {
        let ask = async |name: &'static str, config: rustls::ClientConfig| {
            let stream = Fragmented::new(connect(proxy.address("websecure")).await, as_records);
            let server = ServerName::try_from(name).expect("a host name");
            let handshake = TlsConnector::from(Arc::new(config)).connect(server, stream);
            let Ok(mut stream) = soon("a TLS handshake", handshake).await else { return String::new() };
            let request = format!("GET / HTTP/1.1\r\nHost: {name}\r\n\r\n");
            let _ = stream.write_all(request.as_bytes()).await;
            read_head(&mut stream).await
        };
        assert!(ask("a.example", trusting()).await.starts_with("HTTP/1.1 200 "), "{as_records}");
        assert_eq!(ask("mutual.example", trusting()).await, "", "{as_records}");
        let known = showing(&authority.sign(&["client"]));
        assert!(ask("mutual.example", known).await.starts_with("HTTP/1.1 200 "), "{as_records}");
    }
    assert_eq!(backend.seen().len(), 2);
}

/// Offers the ticket of any host to any other.
#[derive(Debug)]
struct Promiscuous(ClientSessionMemoryCache);

fn anybody() -> ServerName<'static> {
    ServerName::try_from("anybody.example").expect("a host name")
}

impl ClientSessionStore for Promiscuous {
    fn set_kx_hint(&self, _: ServerName<'static>, group: NamedGroup) {
        self.0.set_kx_hint(anybody(), group);
    }

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        self.0.kx_hint(&anybody())
    }

    fn set_tls12_session(&self, _: ServerName<'static>, session: Tls12ClientSessionValue) {
        self.0.set_tls12_session(anybody(), session);
    }

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.0.tls12_session(&anybody())
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {
        self.0.remove_tls12_session(&anybody());
    }

    fn insert_tls13_ticket(&self, _: ServerName<'static>, ticket: Tls13ClientSessionValue) {
        self.0.insert_tls13_ticket(anybody(), ticket);
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.0.take_tls13_ticket(&anybody())
    }
}

/// CVE-2025-23419: a ticket of a host without client certificates let its owner in where they are asked for.
#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_is_no_certificate() {
    let (proxy, _authority, backend) = mutual("RequireAndVerifyClientCert").await;
    let mut config = trusting();
    config.resumption = Resumption::store(Arc::new(Promiscuous(ClientSessionMemoryCache::new(8))));
    for resumed in [false, true] {
        let mut client = proxy.secure_client_with("a.example", config.clone()).await.expect("a TLS handshake");
        assert_eq!(client.session().resumed, resumed);
        assert_eq!(client.get("https://a.example/").await.status, 200);
    }
    assert!(!is_let_in(&proxy, config).await);
    assert_eq!(backend.seen().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_of_another_host_is_not_resumed() {
    let (proxy, authority, _backend) = mutual("RequireAndVerifyClientCert").await;
    let resumption = Resumption::in_memory_sessions(8);
    let connect = async |name: &str, mut config: rustls::ClientConfig| {
        config.resumption = resumption.clone();
        proxy.secure_client_with(name, config).await.expect("a TLS handshake")
    };
    let known = authority.sign(&["client"]);
    let mut config = showing(&known);
    config.resumption = resumption.clone();
    for resumed in [false, true] {
        let mut client = proxy.secure_client_with("mutual.example", config.clone()).await.expect("a TLS handshake");
        assert_eq!(client.session().resumed, resumed);
        // Tickets come with the first answer.
        assert_eq!(client.get("https://mutual.example/").await.said(), (200, "secret"));
    }
    let mut client = connect("a.example", trusting()).await;
    assert!(!client.session().resumed);
    assert_eq!(client.get("https://a.example/").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_options_close_their_host_alone() {
    let folder = folder();
    folder.write(
        "routing/tls.yaml",
        "
http:
  routers:
    missing: {rule: \"Host(`missing.example`)\", service: whoami@internal, tls: {options: nowhere}}
    broken: {rule: \"Host(`broken.example`)\", service: whoami@internal, tls: {options: broken}}
tls:
  options:
    broken: {clientAuth: {caFiles: [$DIR/nowhere.pem], clientAuthType: RequireAndVerifyClientCert}}
",
    );
    let proxy = Proxy::start_in(folder, INSTALL).await;
    for name in ["missing.example", "broken.example"] {
        assert!(proxy.secure_client_with(name, trusting()).await.is_err(), "{name} must not be open to everybody");
    }
    assert_eq!(proxy.status("https://a.example/").await, 200);
    assert!(proxy.problems().iter().any(|problem| problem.contains("the TLS options `nowhere` do not exist")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_certificate_is_served_and_connections_stay() {
    let folder = folder();
    Identity::self_signed(&["a.example", "old.example"]).write(&folder, "a");
    folder.write("routing/tls.yaml", "tls: {certificates: [{certFile: $DIR/a.crt, keyFile: $DIR/a.key}]}");
    let proxy = Proxy::start_in(folder, INSTALL).await;
    let mut before = proxy.secure_client("a.example").await;
    let old = before.session().certificate.clone();
    assert_eq!(before.get("https://a.example/").await.status, 200);

    let new = Identity::self_signed(&["a.example", "new.example"]);
    new.write(&proxy.folder, "new");
    proxy.write(
        "tls.yaml",
        &"tls: {certificates: [{certFile: $DIR/new.crt, keyFile: $DIR/new.key}]}"
            .replace("$DIR", &proxy.folder.root().display().to_string()),
    );
    eventually("the new certificate", async || {
        proxy.secure_client("a.example").await.session().certificate == *new.certificate.der()
    })
    .await;
    assert_ne!(old, *new.certificate.der());
    assert_eq!(before.get("https://a.example/").await.status, 200, "on the connection from before");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_is_renewed_in_its_place() {
    let folder = folder();
    Identity::self_signed(&["a.example"]).write(&folder, "a");
    folder.write("routing/tls.yaml", "tls: {certificates: [{certFile: $DIR/a.crt, keyFile: $DIR/a.key}]}");
    let proxy = Proxy::start_in(folder, INSTALL).await;
    let old = proxy.secure_client("a.example").await.session().certificate.clone();

    // A broken file first: the old one is still served, and it is said.
    proxy.folder.write("a.crt", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    proxy.reload().await;
    assert_eq!(proxy.secure_client("a.example").await.session().certificate, old);
    let problems = proxy.problems();
    assert!(
        problems.len() == 1 && problems[0].ends_with("; the certificate as it was is still served"),
        "{problems:?}"
    );

    let new = Identity::self_signed(&["a.example"]);
    new.write(&proxy.folder, "a");
    eventually("the renewed certificate", async || {
        proxy.secure_client("a.example").await.session().certificate == *new.certificate.der()
    })
    .await;
    assert_eq!(proxy.problems(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn tickets_outlive_a_reload() {
    let proxy = Proxy::start_in(folder(), INSTALL).await;
    let mut config = trusting();
    config.resumption = Resumption::in_memory_sessions(8);
    let mut client = proxy.secure_client_with("a.example", config.clone()).await.expect("a TLS handshake");
    assert!(!client.session().resumed);
    assert_eq!(client.get("https://a.example/").await.status, 200);
    proxy.write("more.yaml", "http: {routers: {c: {rule: \"Host(`c.example`)\", service: whoami@internal, tls: {}}}}");
    proxy.reload().await;
    let client = proxy.secure_client_with("a.example", config).await.expect("a TLS handshake");
    assert!(client.session().resumed);
}
