//! Servers behind the proxy.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, Version};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::server::WebPkiClientVerifier;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use super::certificates::{Authority, Identity};
use super::websocket::WebSocket;
use super::{Body, full};

/// Listens until it is dropped, and remembers every request.
pub(crate) struct Backend {
    pub(crate) address: SocketAddr,
    scheme: &'static str,
    seen: Arc<Mutex<Vec<Seen>>>,
    connections: Arc<AtomicUsize>,
    accepting: JoinHandle<()>,
}

/// A request as the server saw it.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) method: String,
    /// Path and query.
    pub(crate) target: String,
    pub(crate) version: Version,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Seen {
    /// Empty if it is not there.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("a field value in ASCII"))
    }
}

impl Backend {
    /// Answers each request, whose body has been read, with what `answer` makes of it.
    pub(crate) async fn start<F, A>(answer: F) -> Self
    where
        F: Fn(Seen) -> A + Clone + Send + Sync + 'static,
        A: Future<Output = Response<Body>> + Send + 'static,
    {
        let seen = Arc::<Mutex<Vec<Seen>>>::default();
        let log = Arc::clone(&seen);
        let serve = move |stream, _| http1(stream, Arc::clone(&log), answer.clone());
        Self::listen("http", seen, serve).await
    }

    /// Answers everything with the same text.
    pub(crate) async fn saying(text: &'static str) -> Self {
        Self::start(move |_| async move { Response::new(full(text)) }).await
    }

    /// The same in HTTP/2 with prior knowledge.
    pub(crate) async fn saying_in_h2c(text: &'static str) -> Self {
        let seen = Arc::<Mutex<Vec<Seen>>>::default();
        let log = Arc::clone(&seen);
        let answer = move |_| async move { Response::new(full(text)) };
        let serve = move |stream, _| http2(stream, Arc::clone(&log), answer);
        Self::listen("h2c", seen, serve).await
    }

    /// The same over TLS, in the first of the protocols (ALPN) that the client offers too. A client that is not let in
    /// leaves no trace.
    pub(crate) async fn saying_over_tls(text: &'static str, identity: &Identity, protocols: &[&str]) -> Self {
        Self::over_tls(identity, protocols, move |_| async move { Response::new(full(text)) }).await
    }

    /// The same to clients with a certificate of an authority.
    pub(crate) async fn saying_over_tls_to(text: &'static str, identity: &Identity, clients: &Authority) -> Self {
        let config = server_config(identity, &["http/1.1"], Some(clients));
        Self::tls(config, move |_| async move { Response::new(full(text)) }).await
    }

    /// Answers as [`Backend::start`] does, over TLS.
    pub(crate) async fn over_tls<F, A>(identity: &Identity, protocols: &[&str], answer: F) -> Self
    where
        F: Fn(Seen) -> A + Clone + Send + Sync + 'static,
        A: Future<Output = Response<Body>> + Send + 'static,
    {
        Self::tls(server_config(identity, protocols, None), answer).await
    }

    async fn tls<F, A>(config: ServerConfig, answer: F) -> Self
    where
        F: Fn(Seen) -> A + Clone + Send + Sync + 'static,
        A: Future<Output = Response<Body>> + Send + 'static,
    {
        let seen = Arc::<Mutex<Vec<Seen>>>::default();
        let log = Arc::clone(&seen);
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let serve = move |stream, _| {
            let (acceptor, log, answer) = (acceptor.clone(), Arc::clone(&log), answer.clone());
            async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                match stream.get_ref().1.alpn_protocol() {
                    Some(b"h2") => http2(stream, log, answer).await,
                    _ => http1(stream, log, answer).await,
                }
            }
        };
        Self::listen("https", seen, serve).await
    }

    /// Sends back each message of a websocket, to whom asks for one. Heads of requests are all that it remembers.
    pub(crate) async fn echoing_websockets() -> (Self, Arc<Mutex<Vec<String>>>) {
        let heads = Arc::<Mutex<Vec<String>>>::default();
        let log = Arc::clone(&heads);
        let backend = Self::raw(move |stream, _| {
            let log = Arc::clone(&log);
            async move {
                let (mut socket, head) = WebSocket::accept(stream).await;
                log.lock().unwrap_or_else(PoisonError::into_inner).push(head);
                while let Some(text) = socket.receive().await {
                    socket.send(&text).await;
                }
            }
        });
        (backend.await, heads)
    }

    /// Hands each connection over, with its number, counted from 1.
    pub(crate) async fn raw<F, A>(serve: F) -> Self
    where
        F: Fn(TcpStream, usize) -> A + Send + 'static,
        A: Future<Output = ()> + Send + 'static,
    {
        Self::listen("http", Arc::default(), serve).await
    }

    /// What a service names it by.
    pub(crate) fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.address)
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The requests since the last time that this was asked.
    pub(crate) fn take(&self) -> Vec<Seen> {
        std::mem::take(&mut *self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The newest request.
    pub(crate) fn last(&self) -> Seen {
        self.seen().pop().expect("the server has had a request")
    }

    /// How many connections there have been.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    async fn listen<F, A>(scheme: &'static str, seen: Arc<Mutex<Vec<Seen>>>, serve: F) -> Self
    where
        F: Fn(TcpStream, usize) -> A + Send + 'static,
        A: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let connections = Arc::<AtomicUsize>::default();
        let count = Arc::clone(&connections);
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                stream.set_nodelay(true).expect("an option of TCP");
                let number = count.fetch_add(1, Ordering::SeqCst) + 1;
                tokio::spawn(serve(stream, number));
            }
        });
        Self { address, scheme, seen, connections, accepting }
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

type Log = Arc<Mutex<Vec<Seen>>>;

async fn http1<S, F, A>(stream: S, log: Log, answer: F)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Fn(Seen) -> A + Clone + Send + 'static,
    A: Future<Output = Response<Body>> + Send + 'static,
{
    let service = service_fn(move |request| respond(request, Arc::clone(&log), answer.clone()));
    // Clients come and go as the tests want it.
    drop(http1::Builder::new().serve_connection(TokioIo::new(stream), service).await);
}

async fn http2<S, F, A>(stream: S, log: Log, answer: F)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Fn(Seen) -> A + Clone + Send + 'static,
    A: Future<Output = Response<Body>> + Send + 'static,
{
    let service = service_fn(move |request| respond(request, Arc::clone(&log), answer.clone()));
    drop(http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await);
}

async fn respond<F, A>(request: Request<Incoming>, log: Log, answer: F) -> Result<Response<Body>, Infallible>
where
    F: Fn(Seen) -> A,
    A: Future<Output = Response<Body>>,
{
    let (head, body) = request.into_parts();
    let seen = Seen {
        method: head.method.to_string(),
        target: head.uri.path_and_query().map(ToString::to_string).unwrap_or_default(),
        version: head.version,
        headers: head.headers,
        body: body.collect().await.map(|body| body.to_bytes()).unwrap_or_default(),
    };
    log.lock().unwrap_or_else(PoisonError::into_inner).push(seen.clone());
    Ok(answer(seen).await)
}

fn server_config(identity: &Identity, protocols: &[&str], clients: Option<&Authority>) -> ServerConfig {
    let (chain, key) = identity.der();
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = clients.map_or_else(WebPkiClientVerifier::no_client_auth, |authority| {
        let roots = Arc::new(authority.roots());
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&provider)).build();
        verifier.expect("an authority")
    });
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider has TLS 1.2 and 1.3")
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .expect("a certificate and its key");
    config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    config
}
