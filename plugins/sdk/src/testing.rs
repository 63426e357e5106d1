//! Messages for unit tests of a middleware, which run natively: `cargo test`. No host is involved, so that capabilities
//! (`random`, `fetch`, …) cannot be called from there.

use crate::bindings::weir::plugin::types::RequestHead;
use crate::message::Fields;
use crate::{Request, Response};

/// A request to an absolute `http` or `https` URL, with these field lines, from 192.0.2.1 by the router `test@file`.
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
        authority: authority.to_owned(),
        path_with_query: path.to_owned(),
        client_address: "192.0.2.1".to_owned(),
        router: "test@file".to_owned(),
        headers: Vec::new(),
    };
    Request::new(head, given(headers, &[]))
}

/// A response with these field lines.
#[must_use]
pub fn response(status: u16, headers: &[(&str, &str)], body: &[u8]) -> Response<'static> {
    Response::new(status, given(headers, body))
}

fn given(headers: &[(&str, &str)], body: &[u8]) -> Fields<'static> {
    let line = |&(name, value): &(&str, &str)| (name.to_ascii_lowercase(), value.as_bytes().to_vec());
    Fields::Given { headers: headers.iter().map(line).collect(), body: body.to_vec() }
}
