//! A client's connection.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::header::HOST;
use http::{HeaderMap, HeaderValue, Request, Response, Version, request};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, HandshakeKind, NamedGroup, ProtocolVersion, SignatureScheme};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{Body, empty, full, soon};

/// One connection, which requests follow one another on.
pub(crate) struct Client {
    sender: Sender,
    /// What TLS agreed on; `None` in clear text.
    pub(crate) session: Option<Session>,
}

enum Sender {
    Http1(http1::SendRequest<Body>),
    Http2(http2::SendRequest<Body>),
}

/// Facts of a TLS connection.
pub(crate) struct Session {
    pub(crate) certificate: CertificateDer<'static>,
    pub(crate) alpn: Option<String>,
    pub(crate) version: Option<ProtocolVersion>,
    pub(crate) group: Option<NamedGroup>,
    pub(crate) resumed: bool,
}

/// A whole response.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) version: Version,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Client {
    pub(crate) async fn plain(address: SocketAddr) -> Self {
        Self { sender: http1(connect(address).await).await, session: None }
    }

    /// HTTP/2 in clear text, with prior knowledge.
    pub(crate) async fn h2c(address: SocketAddr) -> Self {
        Self { sender: http2(connect(address).await).await, session: None }
    }

    /// Speaks what both sides agree on.
    pub(crate) async fn secure(address: SocketAddr, name: &str, config: ClientConfig) -> io::Result<Self> {
        let stream = secure_stream(address, name, config).await?;
        let session = Session::of(&stream);
        let sender = match session.alpn.as_deref() {
            Some("h2") => http2(stream).await,
            _ => http1(stream).await,
        };
        Ok(Self { sender, session: Some(session) })
    }

    pub(crate) fn session(&self) -> &Session {
        self.session.as_ref().expect("a connection with TLS")
    }

    pub(crate) async fn get(&mut self, url: &str) -> Reply {
        self.send(Request::get(url)).await
    }

    pub(crate) async fn send(&mut self, request: request::Builder) -> Reply {
        self.send_request(request.body(empty()).expect("a good request")).await
    }

    pub(crate) async fn send_request(&mut self, request: Request<Body>) -> Reply {
        let response = self.head(request).await.expect("a response");
        Reply::read(response).await.expect("a whole response")
    }

    /// The response as soon as its head is there.
    pub(crate) async fn head(&mut self, mut request: Request<Body>) -> hyper::Result<Response<Incoming>> {
        let authority = request.uri().authority().expect("a whole URL").to_string();
        let sending = async {
            match &mut self.sender {
                Sender::Http1(sender) => {
                    let host = HeaderValue::from_str(&authority).expect("an authority is ASCII");
                    request.headers_mut().entry(HOST).or_insert(host);
                    let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
                    *request.uri_mut() = target.parse().expect("a target");
                    sender.ready().await?;
                    sender.send_request(request).await
                }
                Sender::Http2(sender) => {
                    sender.ready().await?;
                    sender.send_request(request).await
                }
            }
        };
        soon("the head of a response", sending).await
    }

    /// Another handle on the same HTTP/2 connection.
    pub(crate) fn another(&self) -> Self {
        match &self.sender {
            Sender::Http2(sender) => Self { sender: Sender::Http2(sender.clone()), session: None },
            Sender::Http1(_) => panic!("only HTTP/2 has several requests at once"),
        }
    }
}

impl Session {
    fn of(stream: &TlsStream<TcpStream>) -> Self {
        let tls = stream.get_ref().1;
        let certificates = tls.peer_certificates().expect("a server shows a certificate");
        Self {
            certificate: certificates[0].clone(),
            alpn: tls.alpn_protocol().map(|name| String::from_utf8_lossy(name).into_owned()),
            version: tls.protocol_version(),
            group: tls.negotiated_key_exchange_group().map(|group| group.name()),
            resumed: tls.handshake_kind() == Some(HandshakeKind::Resumed),
        }
    }

    pub(crate) fn common_name(&self) -> String {
        let (_, certificate) = X509Certificate::from_der(&self.certificate).expect("a certificate");
        let mut names = certificate.subject().iter_common_name();
        names.next().and_then(|name| name.as_str().ok()).unwrap_or_default().to_owned()
    }
}

impl Reply {
    pub(crate) async fn read(response: Response<Incoming>) -> hyper::Result<Self> {
        let (head, body) = response.into_parts();
        let body = soon("the end of a response", body.collect()).await?.to_bytes();
        Ok(Self { status: head.status.as_u16(), version: head.version, headers: head.headers, body })
    }

    pub(crate) fn text(&self) -> &str {
        str::from_utf8(&self.body).expect("a body in UTF-8")
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).expect("a body in JSON")
    }

    /// Empty if it is not there.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("a field value in ASCII"))
    }

    /// Status and body at once, for assertions.
    pub(crate) fn said(&self) -> (u16, &str) {
        (self.status, self.text())
    }
}

/// Sends bytes as they are on a new connection, and answers with all that comes back until it is closed.
pub(crate) async fn raw(address: SocketAddr, request: &str) -> String {
    let mut stream = connect(address).await;
    stream.write_all(request.as_bytes()).await.expect("the request can be sent");
    let mut answer = Vec::new();
    soon("the end of the connection", stream.read_to_end(&mut answer)).await.expect("an answer");
    String::from_utf8(answer).expect("an answer in UTF-8")
}

pub(crate) async fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).await.expect("somebody listens");
    stream.set_nodelay(true).expect("an option of TCP");
    stream
}

/// A TLS connection for whatever is spoken on it.
pub(crate) async fn secure_stream(
    address: SocketAddr,
    name: &str,
    config: ClientConfig,
) -> io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from(name.to_owned()).expect("a host name");
    let stream = connect(address).await;
    let mut stream = soon("a TLS handshake", TlsConnector::from(Arc::new(config)).connect(name, stream)).await?;
    stream.flush().await?;
    Ok(stream)
}

/// Accepts any certificate and offers HTTP/1.1.
pub(crate) fn trusting() -> ClientConfig {
    offering(&["http/1.1"])
}

/// Accepts any certificate and offers these protocols (ALPN).
pub(crate) fn offering(protocols: &[&str]) -> ClientConfig {
    let mut config = builder().with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    config
}

/// Accepts any certificate and shows its own.
pub(crate) fn showing(identity: &super::certificates::Identity) -> ClientConfig {
    let (chain, key) = identity.der();
    builder().with_client_auth_cert(chain, key).expect("a certificate and its key")
}

fn builder() -> rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .expect("the provider has TLS 1.2 and 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
}

async fn http1<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: S) -> Sender {
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.expect("HTTP/1.1");
    tokio::spawn(connection);
    Sender::Http1(sender)
}

async fn http2<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: S) -> Sender {
    let (sender, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.expect("HTTP/2 with prior knowledge");
    tokio::spawn(connection);
    Sender::Http2(sender)
}

/// Trusts everybody, so that tests look at certificates themselves.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// A request with a body of known length.
pub(crate) fn with_body(request: request::Builder, body: impl Into<Bytes>) -> Request<Body> {
    request.body(full(body)).expect("a good request")
}
