//! Websockets over HTTP/1.1 (RFC 6455): the tunnel, once the server agrees.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::header::{CONNECTION, CONTENT_LENGTH, HeaderValue, SEC_WEBSOCKET_ACCEPT, UPGRADE};
use http::{StatusCode, request};
use hyper::body::Incoming;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use sha1::{Digest, Sha1};
use tokio::io::copy_bidirectional_with_sizes;
use tokio::task::spawn_local;

use super::{answer, hop};
use crate::http::{Body, Failure, Response, only_line, websocket_key};

/// Large enough for most frames, small enough for thousands of tunnels.
const TUNNEL_BUFFER: usize = 16 << 10;

/// A client that asked for a websocket, its side of the tunnel to come, and what the server must prove that it has read.
pub(super) struct Requested {
    client: OnUpgrade,
    key: HeaderValue,
}

/// Takes the client's side out of a request that asks for a websocket, which a middleware may have changed. Upgrades to
/// anything else are not forwarded, and such requests are ordinary ones.
pub(super) fn requested(head: &mut request::Parts) -> Option<Requested> {
    let client = head.extensions.remove::<OnUpgrade>()?;
    let key = websocket_key(head)?.clone();
    Some(Requested { client, key })
}

/// The response to an upgrade request: the tunnel starts with a 101, and any other answer is an ordinary one.
pub(super) fn finish(requested: Requested, response: http::Response<Incoming>) -> Result<Response, Failure> {
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        let (head, body) = answer::checked(response)?;
        return Ok(Response::from_parts(head, body));
    }
    let protocol = only_line(response.headers(), UPGRADE);
    if !protocol.is_some_and(|protocol| protocol.as_bytes().eq_ignore_ascii_case(b"websocket")) {
        return Err(Failure::BadAnswer("the server switched to a protocol that nobody asked for".into()));
    }
    if only_line(response.headers(), SEC_WEBSOCKET_ACCEPT).is_none_or(|accept| *accept != accept_of(&requested.key)) {
        return Err(Failure::BadAnswer("the server agreed to a websocket without its key".into()));
    }
    let (mut head, body) = response.into_parts();
    let server = hyper::upgrade::on(http::Response::from_parts(head.clone(), body));
    spawn_local(tunnel(requested.client, server));
    hop::strip_response(&mut head);
    head.headers.remove(CONTENT_LENGTH);
    head.headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    head.headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    Ok(Response::from_parts(head, Body::empty()))
}

async fn tunnel(client: OnUpgrade, server: OnUpgrade) {
    let (client, server) = match tokio::try_join!(client, server) {
        Ok(sides) => sides,
        Err(error) => return tracing::debug!("a websocket ended before it began: {error}"),
    };
    let io = TokioIo::<Upgraded>::new;
    let (mut client, mut server) = (io(client), io(server));
    if let Err(error) = copy_bidirectional_with_sizes(&mut client, &mut server, TUNNEL_BUFFER, TUNNEL_BUFFER).await {
        tracing::debug!("a websocket was cut: {error}");
    }
}

/// What a server must answer to a key (RFC 6455, section 4.2.2).
fn accept_of(key: &HeaderValue) -> String {
    const OF_WEBSOCKETS: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

    BASE64_STANDARD.encode(Sha1::new().chain_update(key.as_bytes()).chain_update(OF_WEBSOCKETS).finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_to_the_example_of_the_rfc() {
        let key = HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ==");
        assert_eq!(accept_of(&key), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }
}
