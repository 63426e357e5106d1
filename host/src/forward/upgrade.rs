//! Websockets over HTTP/1.1 (RFC 6455): what counts as a request for one, and the tunnel once the server agrees.

use http::header::{CONNECTION, HeaderValue, UPGRADE};
use http::{Method, StatusCode, Version, request};
use hyper::body::Incoming;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::copy_bidirectional_with_sizes;
use tokio::task::spawn_local;

use super::hop;
use crate::http::{Body, Failure, Response};

/// Large enough for most frames, small enough for thousands of tunnels.
const TUNNEL_BUFFER: usize = 16 << 10;

/// A client that asked for a websocket, and its side of the tunnel to come.
pub(super) struct Requested(OnUpgrade);

/// Takes the client's side out of a request that asks for a websocket. Upgrades to anything else are not forwarded.
pub(super) fn requested(head: &mut request::Parts) -> Option<Requested> {
    let upgrade = head.extensions.remove::<OnUpgrade>()?;
    let asked = head.method == Method::GET
        && head.version == Version::HTTP_11
        && head.headers.get(CONNECTION).is_some_and(|value| hop::contains_token(value, "upgrade"))
        && head.headers.get(UPGRADE).is_some_and(is_websocket);
    asked.then_some(Requested(upgrade))
}

/// The response to an upgrade request: the tunnel starts with a 101, and any other answer is an ordinary one.
pub(super) fn finish(Requested(client): Requested, response: http::Response<Incoming>) -> Result<Response, Failure> {
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        let (mut head, body) = response.into_parts();
        hop::strip_response(&mut head);
        return Ok(Response::from_parts(head, body.into()));
    }
    if !response.headers().get(UPGRADE).is_some_and(is_websocket) {
        return Err(Failure::Unreachable("the server switched to a protocol that nobody asked for".into()));
    }
    let (mut head, body) = response.into_parts();
    let server = hyper::upgrade::on(http::Response::from_parts(head.clone(), body));
    spawn_local(tunnel(client, server));
    hop::strip_response(&mut head);
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

fn is_websocket(value: &HeaderValue) -> bool {
    value.as_bytes().eq_ignore_ascii_case(b"websocket")
}
