//! [`Body`]: the content of a message, wherever it comes from and whoever looks at it as it passes.
//!
//! Every station of a request hands it on; hyper reads it. It never decides where a body goes.

mod ahead;

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, header};
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;

pub use self::ahead::Ahead;
use super::Failure;

/// A message body: nothing, bytes at hand, a stream from the network, or what is made of one.
pub struct Body {
    content: Content,
    /// Whether fields that follow the content are left out.
    ends_with_content: bool,
    /// Called once when a stream has ended cleanly; dropped uncalled when it broke or was abandoned.
    on_end: Option<Box<dyn FnOnce()>>,
    observer: Option<Box<dyn Observer>>,
}

enum Content {
    Empty,
    Full(Bytes),
    Stream(Incoming),
    Made(Pin<Box<dyn http_body::Body<Data = Bytes, Error = Broken>>>),
}

/// Why a body never comes to its end.
#[derive(Debug)]
pub enum Broken {
    /// The connection it comes on has failed, or what comes is no body.
    Connection(hyper::Error),
    /// A middleware's plugin failed on it.
    Plugin(String),
}

/// Sees what flows through a body, for accounting. Dropped with the body.
pub trait Observer {
    /// So many more bytes were handed to the connection.
    fn data(&mut self, bytes: usize);

    /// More was asked for, and there is none yet.
    fn waits(&mut self) {}

    /// Ready when the connection takes more; until then nothing is read for it.
    fn poll_room(&mut self, _: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }
}

impl Body {
    pub const fn empty() -> Self {
        Self { content: Content::Empty, ends_with_content: false, on_end: None, observer: None }
    }

    /// What becomes of another body as it flows.
    pub fn made(of: impl http_body::Body<Data = Bytes, Error = Broken> + 'static) -> Self {
        Self { content: Content::Made(Box::pin(of)), ..Self::empty() }
    }

    /// Leaves trailers out, as RFC 9110 (section 6.5.1) allows: a server may take them for what a header has said.
    pub const fn without_trailers(mut self) -> Self {
        self.ends_with_content = true;
        self
    }

    /// Calls `action` when the body has been read to its end without an error.
    pub fn on_end(mut self, action: impl FnOnce() + 'static) -> Self {
        if http_body::Body::is_end_stream(&self) {
            action();
        } else {
            self.on_end = Some(Box::new(action));
        }
        self
    }

    pub fn observed(mut self, observer: impl Observer + 'static) -> Self {
        self.observer = Some(Box::new(observer));
        self
    }

    fn end(&mut self) {
        if let Some(action) = self.on_end.take() {
            action();
        }
    }
}

impl Default for Body {
    fn default() -> Self {
        Self::empty()
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        let content = if bytes.is_empty() { Content::Empty } else { Content::Full(bytes) };
        Self { content, ..Self::empty() }
    }
}

impl From<&'static str> for Body {
    fn from(text: &'static str) -> Self {
        Bytes::from_static(text.as_bytes()).into()
    }
}

impl From<Incoming> for Body {
    fn from(incoming: Incoming) -> Self {
        Self { content: Content::Stream(incoming), ..Self::empty() }
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let flows = matches!(self.content, Content::Stream(_) | Content::Made(_));
        if let Some(observer) = self.observer.as_mut().filter(|_| flows) {
            ready!(observer.poll_room(context));
        }
        let polled = match &mut self.content {
            Content::Empty => Poll::Ready(None),
            Content::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                self.content = Content::Empty;
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Content::Stream(incoming) => Pin::new(incoming).poll_frame(context).map_err(Broken::Connection),
            Content::Made(made) => made.as_mut().poll_frame(context),
        };
        let Poll::Ready(mut frame) = polled else {
            if let Some(observer) = &mut self.observer {
                observer.waits();
            }
            return Poll::Pending;
        };
        if let Some(Ok(trailers)) = &mut frame
            && let Some(fields) = trailers.trailers_mut()
        {
            strip_trailers(fields);
            if self.ends_with_content {
                frame = None;
            }
        }
        match &frame {
            Some(Ok(frame)) => {
                if let (Some(observer), Some(data)) = (&mut self.observer, frame.data_ref()) {
                    observer.data(data.len());
                }
                if frame.is_trailers() || self.is_end_stream() {
                    self.end();
                }
            }
            Some(Err(_)) => self.on_end = None,
            None => self.end(),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Empty => true,
            Content::Full(_) => false,
            Content::Stream(incoming) => incoming.is_end_stream(),
            Content::Made(made) => made.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Empty => SizeHint::with_exact(0),
            Content::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Content::Stream(incoming) => incoming.size_hint(),
            Content::Made(made) => made.size_hint(),
        }
    }
}

impl Broken {
    /// What it is to the request whose body it is.
    pub fn of_request(&self) -> Failure {
        match self {
            Self::Connection(error) if is_malformed(error) => Failure::BadRequest("malformed content"),
            Self::Connection(_) => Failure::ClientGone,
            Self::Plugin(reason) => Failure::Plugin(reason.clone()),
        }
    }

    /// What it is to the response whose body it is, while its head has not gone out.
    pub fn of_response(self) -> Failure {
        match self {
            Self::Connection(error) => Failure::BadAnswer(error.into()),
            Self::Plugin(reason) => Failure::Plugin(reason),
        }
    }
}

/// Whether a body is not framed as it should be: hyper says so in its error's causes.
fn is_malformed(error: &hyper::Error) -> bool {
    let mut cause = StdError::source(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData);
        }
        cause = error.source();
    }
    false
}

impl fmt::Display for Broken {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connection(error) => error.fmt(out),
            Self::Plugin(reason) => write!(out, "plugin failed: {reason}"),
        }
    }
}

impl StdError for Broken {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::Connection(error) => error.source(),
            Self::Plugin(_) => None,
        }
    }
}

/// Removes what only a head may say (RFC 9110, section 6.5.1): how the message is framed, where it goes, who sends it and
/// how it is to be understood. Whoever merges trailers into a head would believe it.
fn strip_trailers(trailers: &mut HeaderMap) {
    let forbidden: Vec<HeaderName> = trailers.keys().filter(|name| !may_be_trailer(name)).cloned().collect();
    for name in forbidden {
        trailers.remove(name);
    }
}

/// Whether a field may come after the content.
pub fn may_be_trailer(name: &HeaderName) -> bool {
    const NEVER: [HeaderName; 20] = [
        header::AUTHORIZATION,
        header::CACHE_CONTROL,
        header::CONNECTION,
        header::CONTENT_ENCODING,
        header::CONTENT_LENGTH,
        header::CONTENT_RANGE,
        header::CONTENT_TYPE,
        header::COOKIE,
        header::EXPECT,
        header::HOST,
        header::LOCATION,
        header::MAX_FORWARDS,
        header::PROXY_AUTHENTICATE,
        header::PROXY_AUTHORIZATION,
        header::SET_COOKIE,
        header::TE,
        header::TRAILER,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
        header::WWW_AUTHENTICATE,
    ];
    const NEVER_EITHER: [&str; 4] = ["forwarded", "keep-alive", "proxy-connection", "x-real-ip"];

    !NEVER.contains(name) && !NEVER_EITHER.contains(&name.as_str()) && !name.as_str().starts_with("x-forwarded-")
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn trailers_say_nothing_that_belongs_in_a_head() {
        let names =
            ["grpc-status", "X-Checksum", "Content-Length", "host", "TE", "X-Forwarded-For", "Keep-Alive", "Cookie"];
        let mut trailers = HeaderMap::new();
        for name in names {
            let name = HeaderName::from_bytes(name.as_bytes()).expect("a field name");
            trailers.append(name.clone(), HeaderValue::from_static("1"));
            trailers.append(name, HeaderValue::from_static("2"));
        }
        strip_trailers(&mut trailers);
        let mut left: Vec<&str> = trailers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["grpc-status", "x-checksum"]);
    }
}
