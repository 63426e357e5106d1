//! A connection to a server, ready for a request.

use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};

use super::dial::Wire;
use crate::http::Body;

/// A connection that is ready for a request.
pub(super) enum Sender {
    Http1(http1::SendRequest<Body>, Wire),
    Http2(http2::SendRequest<Body>),
}

/// An error has the request with it if none of it was written.
pub(super) type Sent = Result<http::Response<Incoming>, (hyper::Error, Option<http::Request<Body>>)>;

impl Sender {
    pub(super) fn is_closed(&self) -> bool {
        match self {
            Self::Http1(sender, _) => sender.is_closed(),
            Self::Http2(sender) => sender.is_closed(),
        }
    }

    pub(super) async fn ready(&mut self) -> hyper::Result<()> {
        match self {
            Self::Http1(sender, _) => sender.ready().await,
            Self::Http2(sender) => sender.ready().await,
        }
    }

    /// Whether request and response before have ended, with nothing after them.
    pub(super) fn is_ready(&self) -> bool {
        match self {
            Self::Http1(sender, _) => sender.is_ready(),
            Self::Http2(sender) => sender.is_ready(),
        }
    }

    pub(super) const fn is_http1(&self) -> bool {
        matches!(self, Self::Http1(..))
    }

    /// Whether no byte has come since the request.
    pub(super) fn is_silent(&self) -> bool {
        match self {
            Self::Http1(_, wire) => wire.is_silent(),
            Self::Http2(_) => true,
        }
    }

    /// The next request asks for a websocket.
    pub(super) fn announce_websocket(&self) {
        if let Self::Http1(_, wire) = self {
            wire.announce_websocket();
        }
    }

    pub(super) async fn send(&mut self, request: http::Request<Body>) -> Sent {
        let mut error = match self {
            Self::Http1(sender, wire) => {
                wire.head_expected();
                match sender.try_send_request(request).await {
                    Ok(response) => {
                        wire.head_received();
                        return Ok(response);
                    }
                    Err(error) => error,
                }
            }
            Self::Http2(sender) => match sender.try_send_request(request).await {
                Ok(response) => return Ok(response),
                Err(error) => error,
            },
        };
        let unsent = error.take_message();
        Err((error.into_error(), unsent))
    }
}
