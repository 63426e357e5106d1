//! What all tests share: a proxy in this process, servers behind it and clients before it, all on ports that the system
//! chooses. Nothing here says how a proxy should behave.

pub(crate) mod backend;
pub(crate) mod certificates;
pub(crate) mod client;
pub(crate) mod digitalocean;
#[path = "../host/src/acme/dns/server.rs"]
#[expect(dead_code, unreachable_pub, reason = "it is that of the unit tests, which need all of it")]
pub(crate) mod dns;
pub(crate) mod folder;
pub(crate) mod guests;
pub(crate) mod http2;
pub(crate) mod pebble;
pub(crate) mod program;
pub(crate) mod proxy;
pub(crate) mod strict;
pub(crate) mod websocket;

use std::io;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, Full};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::{Instant, sleep, timeout};

/// How long anything may take that a test waits for, on a machine that is busy with others.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A body of a request that a test sends, or of a response that a test's server gives.
pub(crate) type Body = BoxBody<Bytes, io::Error>;

pub(crate) fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed()
}

pub(crate) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed()
}

/// Asks again and again until the answer is yes; `what` is what never came otherwise.
pub(crate) async fn eventually(what: &str, is_so: impl AsyncFnMut() -> bool) {
    eventually_within(PATIENCE, what, is_so).await;
}

pub(crate) async fn eventually_within(patience: Duration, what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + patience;
    while !is_so().await {
        assert!(Instant::now() < deadline, "this never came: {what}");
        sleep(Duration::from_millis(10)).await;
    }
}

/// The result of something that must not take for ever.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("this never came: {what}"),
    }
}

/// The head of a message, with the empty line at its end; what has come until then if the stream ends early.
pub(crate) async fn read_head(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match soon("the head of a message", stream.read_u8()).await {
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8(head).expect("a head in UTF-8")
}

/// A routing file with one router for the host `<name>.example`, on all entry points without TLS, and its service.
pub(crate) fn route(name: &str, url: &str) -> String {
    format!(
        "
http:
  routers:
    {name}: {{rule: \"Host(`{name}.example`)\", service: {name}}}
  services:
    {name}: {{loadBalancer: {{servers: [{{url: \"{url}\"}}]}}}}
"
    )
}

/// A routing file with these routers, one a line, and a service of one server for each name and URL.
pub(crate) fn with_services(routers: &str, services: &[(&str, String)]) -> String {
    let services = services
        .iter()
        .map(|(name, url)| format!("    {name}: {{loadBalancer: {{servers: [{{url: \"{url}\"}}]}}}}\n"))
        .collect::<String>();
    format!("http:\n  routers:\n    {}\n  services:\n{services}", routers.trim())
}
