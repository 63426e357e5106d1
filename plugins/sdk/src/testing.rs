//! What unit tests of a plugin need, which run natively with `cargo test`: messages for a middleware, challenges for a
//! DNS provider, and a [`Host`] that answers `fetch`, gives variables and time, keeps what is shared and counts. But for the
//! client's address, `connection` has the same answers for all requests; `random` cannot be called from there.
//!
//! ```
//! use weir_sdk::fetch::{self, Request};
//! use weir_sdk::shared::{self, Scope};
//! use weir_sdk::testing::Host;
//! use weir_sdk::{metrics, secrets};
//!
//! let host = Host::new().variables(&[("PEPPER", "hot")]);  // what `secrets` has
//! host.expect("GET", "https://id.example/keys").answer_with(200, &[], "k1");
//! host.client("192.0.2.7");                                // of all requests from now on
//!
//! // What the functions of a plugin do:
//! let keys = fetch::send(&Request::new("GET", "https://id.example/keys")).expect("the answer").body;
//! shared::set(Scope::Plugin, "keys", &keys, Some(60_000)).expect("room");
//! metrics::add("fetched", 1, &[]);
//! assert_eq!(secrets::get("PEPPER").as_deref(), Some("hot"));
//!
//! host.advance(60_000);
//! assert_eq!(shared::get(Scope::Plugin, "keys"), None);
//! assert_eq!(host.counter("fetched", &[]), 1);
//! ```
//!
//! It is not as strict as the host of a proxy, which refuses what is not declared and granted, and edits that cannot be used:
//! `weir plugin check` and `weir plugin run` are.

#[doc(hidden)]
pub mod capabilities;
mod host;
mod metrics;
mod shared;

use crate::bindings::weir::plugin::types::RequestHead;
use crate::dns::Challenge;
use crate::message::Fields;
use crate::{BodyFilter, Direction, Error, Header, Request, Response};

pub use host::{Expected, Host};

/// A request to an absolute `http` or `https` URL, with these field lines, from [`Host::client`] by the router `test@file`. The
/// URL says what `host` is, unless a line does.
///
/// # Panics
/// If the URL has no scheme.
#[must_use]
pub fn request(method: &str, url: &str, headers: &[(&str, &str)]) -> Request<'static> {
    let (scheme, rest) = url.split_once("://").expect("the URL of a test has a scheme");
    let (authority, path) = rest.find('/').map_or((rest, "/"), |slash| rest.split_at(slash));
    let head = RequestHead {
        method: method.to_owned(),
        tls: scheme == "https",
        path_with_query: path.to_owned(),
        headers: Vec::new(),
    };
    let host = ("host", authority);
    let is_said = headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host"));
    let lines: Vec<_> = headers.iter().copied().chain((!is_said).then_some(host)).collect();
    Request::new(head, given(&lines, &[]))
}

/// A response with these field lines.
#[must_use]
pub fn response(status: u16, headers: &[(&str, &str)], body: &[u8]) -> Response<'static> {
    Response::new(status, given(headers, body))
}

/// Takes a body through a filter as the host would, in these pieces and with these trailers.
///
/// # Errors
/// If the filter fails.
pub fn filter<F: BodyFilter>(
    middleware: &F::Middleware,
    direction: Direction,
    state: &[u8],
    pieces: &[impl AsRef<[u8]>],
    trailers: &[(&str, &str)],
) -> Result<(Vec<u8>, Vec<Header>), Error> {
    let mut filter = F::new(middleware, direction, state);
    let mut filtered = Vec::new();
    for piece in pieces {
        filtered.extend(filter.chunk(piece.as_ref().to_vec())?);
    }
    let line = |&(name, value): &(&str, &str)| (name.to_owned(), value.as_bytes().to_vec());
    let (last, trailers) = filter.end(trailers.iter().map(line).collect())?;
    filtered.extend(last);
    Ok((filtered, trailers))
}

/// A challenge for the record at `fqdn`, in `zone`, both with the final dot. The value is [`VALUE`].
#[must_use]
pub fn challenge(fqdn: &str, zone: &str) -> Challenge {
    Challenge {
        fqdn: fqdn.to_owned(),
        zone: zone.to_owned(),
        value: VALUE.to_owned(),
        domain: fqdn.trim_start_matches("_acme-challenge.").trim_end_matches('.').to_owned(),
        token: "tOkEn".to_owned(),
        key_authorization: "tOkEn.tHuMbPrInT".to_owned(),
    }
}

/// What the record of a [`challenge`] has to hold.
pub const VALUE: &str = "w2toDKxcQx2N8zcu4HnDboT1FceHs7lupLMTXsPbXCQ";

fn given(headers: &[(&str, &str)], body: &[u8]) -> Fields<'static> {
    let line = |&(name, value): &(&str, &str)| (name.to_ascii_lowercase(), value.as_bytes().to_vec());
    Fields::Given { headers: headers.iter().map(line).collect(), body: body.to_vec(), is_complete: true }
}
