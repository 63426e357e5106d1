//! One HTTP exchange of the proxy's own: with a certificate authority, or for a plugin that may reach hosts.
//!
//! HTTP/1.1 over TCP or TLS, a connection for each exchange. It has no part in what clients ask for, follows no redirect,
//! keeps no cookie and reads no proxy from the environment.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use bytes::{Bytes, BytesMut};
use http::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, HOST, HeaderName, HeaderValue, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
    USER_AGENT,
};
use http::uri::{PathAndQuery, Scheme};
use http::{Request, Response, StatusCode, Uri, Version};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// What all exchanges have in common. Clones share TLS sessions.
#[derive(Clone)]
pub struct Client {
    settings: Arc<Settings>,
}

pub struct Settings {
    /// Who is trusted. The protocols it offers are replaced by HTTP/1.1.
    pub tls: Arc<rustls::ClientConfig>,
    /// The name to ask for and to verify in place of the URL's host.
    pub server_name: Option<String>,
    /// From the look-up of the host to the end of the TLS handshake, all its addresses together.
    pub connect_timeout: Duration,
    /// From the request to the head of its answer.
    pub head_timeout: Duration,
    /// The whole exchange.
    pub timeout: Duration,
    pub body_at_most: usize,
    /// Replaces what the request says.
    pub user_agent: HeaderValue,
}

/// Why there is no answer. Texts name the host; of path and query, where tokens may be, they say nothing.
#[derive(Debug)]
pub enum Error {
    /// The URL is none that can be asked, in words.
    Unusable(String),
    /// All addresses of the host are refused.
    Denied { host: String, address: IpAddr },
    /// Nothing was sent: no address, or no connection.
    Unreachable(anyhow::Error),
    /// Nothing was sent: whoever answers does not prove to be the host.
    Untrusted(anyhow::Error),
    /// What took too long. The request may have been sent.
    Timeout(String),
    /// The connection broke off, or its bytes are no HTTP. The request may have been sent.
    Broken(anyhow::Error),
    /// The answer has more than this many bytes.
    TooLarge(usize),
}

impl Client {
    pub fn new(mut settings: Settings) -> Self {
        Arc::make_mut(&mut settings.tls).alpn_protocols = vec![b"http/1.1".to_vec()];
        Self { settings: Arc::new(settings) }
    }

    /// Sends `request`, whose URI is absolute, to the first address of its host that `admit` lets through and that answers.
    ///
    /// `Host`, `User-Agent` and all fields about the connection and its framing are set here.
    pub async fn send(
        &self,
        request: Request<Bytes>,
        admit: &(dyn Fn(IpAddr) -> bool + Send + Sync),
    ) -> Result<Response<Bytes>, Error> {
        let target = Target::parse(request.uri())?;
        let host = target.host.clone();
        let exchange = self.exchange(request, target, admit);
        timeout(self.settings.timeout, exchange)
            .await
            .unwrap_or_else(|_| Err(Error::Timeout(format!("no whole answer from `{host}`"))))
    }

    async fn exchange(
        &self,
        request: Request<Bytes>,
        target: Target,
        admit: &(dyn Fn(IpAddr) -> bool + Send + Sync),
    ) -> Result<Response<Bytes>, Error> {
        let request = self.normalised(request, &target)?;
        match self.connect(&target, admit).await? {
            Connection::Plain(stream) => self.converse(stream, request, &target).await,
            Connection::Tls(stream) => self.converse(*stream, request, &target).await,
        }
    }

    fn normalised(&self, request: Request<Bytes>, target: &Target) -> Result<Request<Full<Bytes>>, Error> {
        let (mut head, body) = request.into_parts();
        for ours in CONNECTION_FIELDS {
            head.headers.remove(ours);
        }
        let host = HeaderValue::from_str(&target.authority)
            .map_err(|_| Error::Unusable("the URL's host is no value for `Host`".to_owned()))?;
        head.headers.insert(HOST, host);
        head.headers.insert(USER_AGENT, self.settings.user_agent.clone());
        head.headers.insert(CONNECTION, HeaderValue::from_static("close"));
        let path = head.uri.path_and_query().cloned();
        head.uri = path.unwrap_or_else(|| PathAndQuery::from_static("/")).into();
        head.version = Version::HTTP_11;
        Ok(Request::from_parts(head, Full::new(body)))
    }

    async fn connect(
        &self,
        target: &Target,
        admit: &(dyn Fn(IpAddr) -> bool + Send + Sync),
    ) -> Result<Connection, Error> {
        let deadline = Instant::now() + self.settings.connect_timeout;
        let mut addresses = target.addresses(deadline).await?;
        let first = addresses.first().map(|address| address.ip().to_canonical());
        // `::ffff:127.0.0.1` is 127.0.0.1 to whoever connects, and so to whoever decides.
        addresses.retain(|address| admit(address.ip().to_canonical()));
        let mut failure = match first {
            Some(address) => Error::Denied { host: target.host.clone(), address },
            None => Error::Unreachable(anyhow!("`{}` has no address", target.host)),
        };
        let count = addresses.len();
        for (place, address) in addresses.into_iter().enumerate() {
            // An address that swallows everything must leave time for those after it.
            let share = deadline.saturating_duration_since(Instant::now()) / u32::try_from(count - place).unwrap_or(1);
            failure = match timeout(share, self.dial(target, address)).await {
                Ok(Ok(connection)) => return Ok(connection),
                Ok(Err(error)) => {
                    let is_untrusted = is_untrusted(&error);
                    let error = error.context(format!("`{}` at {address}", target.host));
                    if is_untrusted { Error::Untrusted(error) } else { Error::Unreachable(error) }
                }
                Err(_) => Error::Timeout(format!("no connection to `{}` at {address}", target.host)),
            };
        }
        Err(failure)
    }

    async fn dial(&self, target: &Target, address: SocketAddr) -> anyhow::Result<Connection> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        if !target.is_tls {
            return Ok(Connection::Plain(stream));
        }
        let name = self.settings.server_name.as_ref().unwrap_or(&target.host);
        let name = ServerName::try_from(name.clone()).with_context(|| format!("`{name}` is no server name"))?;
        let stream = TlsConnector::from(Arc::clone(&self.settings.tls)).connect(name, stream).await?;
        Ok(Connection::Tls(Box::new(stream)))
    }

    async fn converse<S>(
        &self,
        stream: S,
        request: Request<Full<Bytes>>,
        target: &Target,
    ) -> Result<Response<Bytes>, Error>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let broken = |error: hyper::Error| Error::Broken(anyhow!(error).context(format!("`{}`", target.host)));
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        let answer = async {
            let head = timeout(self.settings.head_timeout, sender.send_request(request)).await;
            let response =
                head.map_err(|_| Error::Timeout(format!("no answer from `{}`", target.host)))?.map_err(broken)?;
            if response.status() == StatusCode::SWITCHING_PROTOCOLS {
                return Err(Error::Broken(anyhow!("`{}` changes the protocol without being asked", target.host)));
            }
            let (head, body) = response.into_parts();
            let body = self.whole(body).await?.map_err(broken)?;
            Ok(Response::from_parts(head, body))
        };
        let mut answer = pin!(answer);
        // Whatever ends the connection is told to the answer, which may have all it needs.
        tokio::select! {
            answer = &mut answer => return answer,
            _ = connection => {}
        }
        answer.await
    }

    async fn whole(&self, mut body: Incoming) -> Result<Result<Bytes, hyper::Error>, Error> {
        let at_most = self.settings.body_at_most;
        if body.size_hint().lower() > at_most as u64 {
            return Err(Error::TooLarge(at_most));
        }
        let mut whole = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let data = match frame {
                Ok(frame) => frame.into_data().unwrap_or_default(),
                Err(error) => return Ok(Err(error)),
            };
            if whole.len() + data.len() > at_most {
                return Err(Error::TooLarge(at_most));
            }
            whole.extend_from_slice(&data);
        }
        Ok(Ok(whole.freeze()))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unusable(words) => f.write_str(words),
            Self::Denied { host, address } => write!(f, "`{host}` is at {address}, which may not be reached"),
            Self::Unreachable(error) => write!(f, "no connection: {error:#}"),
            Self::Untrusted(error) => write!(f, "no trust: {error:#}"),
            Self::Timeout(what) => write!(f, "{what} in time"),
            Self::Broken(error) => write!(f, "the connection broke off: {error:#}"),
            Self::TooLarge(at_most) => write!(f, "the answer has more than {at_most} bytes"),
        }
    }
}

impl std::error::Error for Error {}

/// What a request may not say: who is asked, and how its bytes are framed.
const CONNECTION_FIELDS: [HeaderName; 10] = [
    CONNECTION,
    CONTENT_LENGTH,
    EXPECT,
    HOST,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

enum Connection {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// Where an absolute URL leads.
struct Target {
    is_tls: bool,
    /// Without the brackets of an IPv6 address.
    host: String,
    port: u16,
    authority: String,
}

impl Target {
    fn parse(uri: &Uri) -> Result<Self, Error> {
        let is_tls = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTPS => true,
            Some(scheme) if *scheme == Scheme::HTTP => false,
            _ => return Err(Error::Unusable("the URL begins with neither `https://` nor `http://`".to_owned())),
        };
        let Some(authority) = uri.authority().filter(|authority| !authority.host().is_empty()) else {
            return Err(Error::Unusable("the URL has no host".to_owned()));
        };
        if authority.as_str().contains('@') {
            return Err(Error::Unusable("the URL has a user or a password before its host".to_owned()));
        }
        let port = match (authority.port_u16(), authority.as_str() == authority.host()) {
            (Some(port), false) => port,
            (_, true) => {
                if is_tls {
                    443
                } else {
                    80
                }
            }
            (None, false) => return Err(Error::Unusable("the URL's port is no number up to 65535".to_owned())),
        };
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        Ok(Self { is_tls, host, port, authority: authority.as_str().to_owned() })
    }

    async fn addresses(&self, deadline: Instant) -> Result<Vec<SocketAddr>, Error> {
        let lookup = tokio::net::lookup_host((self.host.as_str(), self.port));
        match timeout_at(deadline, lookup).await {
            Ok(Ok(addresses)) => Ok(addresses.collect()),
            Ok(Err(error)) => Err(Error::Unreachable(anyhow!(error).context(format!("look-up of `{}`", self.host)))),
            Err(_) => Err(Error::Timeout(format!("no address of `{}`", self.host))),
        }
    }
}

fn is_untrusted(error: &anyhow::Error) -> bool {
    let tls = error.downcast_ref::<io::Error>().and_then(|error| error.get_ref()?.downcast_ref::<rustls::Error>());
    matches!(tls, Some(rustls::Error::InvalidCertificate(_)))
}

#[cfg(test)]
mod tests;
