//! Fields that belong to one connection and are never passed on (RFC 9110, section 7.6.1), and `X-Forwarded-For`. Of
//! requests only those get here that an entry point keeps for its middlewares.

use http::header::{
    CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue, PROXY_AUTHENTICATE, TE, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, StatusCode, response};

use crate::http::X_FORWARDED_FOR;

/// What `Connection` usually says: these name no field, or one that is removed anyway.
const USUAL_OPTIONS: [&[u8]; 3] = [b"keep-alive", b"close", b"upgrade"];

static KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
static PROXY_AUTHENTICATION_INFO: HeaderName = HeaderName::from_static("proxy-authentication-info");
static PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// Removes what middlewares might see of a request, but the server may not.
pub(super) fn strip_request(headers: &mut HeaderMap) {
    if headers.contains_key(CONNECTION) {
        remove_named(headers);
        headers.remove(UPGRADE);
    }
}

/// Removes the hop-by-hop fields of a response, and what says of a 304 more than a cache may hear (RFC 9110, section
/// 15.4.5).
pub(super) fn strip_response(head: &mut response::Parts) {
    let headers = &mut head.headers;
    if headers.contains_key(CONNECTION) {
        remove_named(headers);
    }
    for name in [&KEEP_ALIVE, &PROXY_AUTHENTICATION_INFO, &PROXY_CONNECTION] {
        headers.remove(name);
    }
    for name in [PROXY_AUTHENTICATE, TE, TRANSFER_ENCODING, UPGRADE] {
        headers.remove(name);
    }
    if head.status == StatusCode::NOT_MODIFIED {
        headers.remove(CONTENT_TYPE);
    }
}

/// Removes `Connection` and what it names.
fn remove_named(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|&byte| byte == b','))
        .map(<[u8]>::trim_ascii)
        .filter(|name| !USUAL_OPTIONS.iter().any(|usual| name.eq_ignore_ascii_case(usual)))
        .filter_map(|name| HeaderName::from_bytes(name).ok())
        .collect();
    for name in named {
        headers.remove(name);
    }
    headers.remove(CONNECTION);
}

/// Adds the client to the end of `X-Forwarded-For`, several lines of which become one. `None` adds nobody.
pub(super) fn append_client_address(headers: &mut HeaderMap, client: Option<&HeaderValue>) {
    let Some(first) = headers.get(&X_FORWARDED_FOR) else {
        if let Some(client) = client {
            headers.insert(&X_FORWARDED_FOR, client.clone());
        }
        return;
    };
    // A middleware has removed it for good.
    if first.is_empty() {
        headers.remove(&X_FORWARDED_FOR);
        return;
    }
    let mut list = first.as_bytes().to_vec();
    for more in headers
        .get_all(&X_FORWARDED_FOR)
        .iter()
        .skip(1)
        .map(HeaderValue::as_bytes)
        .chain(client.map(HeaderValue::as_bytes))
    {
        list.extend_from_slice(b", ");
        list.extend_from_slice(more);
    }
    if let Ok(list) = HeaderValue::from_bytes(&list) {
        headers.insert(&X_FORWARDED_FOR, list);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        fields.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn a_response_keeps_none_of_them_in_any_spelling() {
        let mut headers =
            headers(&[("x-private", "1"), ("x-other", "1"), ("x-forwarded-by", "1"), ("x-end-to-end", "1")]);
        for value in ["X-PRIVATE,,x-forwarded-by", " , close", "\tx-other\t"] {
            headers.append(CONNECTION, HeaderValue::from_static(value));
        }
        headers.append(CONNECTION, HeaderValue::from_bytes(b"\xff, x-private").expect("a field value"));
        for name in [
            "keep-alive",
            "proxy-authenticate",
            "proxy-authentication-info",
            "proxy-connection",
            "te",
            "transfer-encoding",
            "upgrade",
        ] {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static("a"));
            headers.append(HeaderName::from_static(name), HeaderValue::from_static("b"));
        }
        let (mut head, ()) = http::Response::new(()).into_parts();
        head.headers = headers;
        strip_response(&mut head);
        assert!(head.headers.keys().eq(["x-end-to-end"]), "{:?}", head.headers);
    }

    #[test]
    fn the_client_is_appended_to_what_trusted_proxies_wrote() {
        let client = HeaderValue::from_static("10.0.0.9");
        let mut none = HeaderMap::new();
        append_client_address(&mut none, Some(&client));
        assert_eq!(none["x-forwarded-for"], "10.0.0.9");
        let mut two = headers(&[("x-forwarded-for", "1.1.1.1")]);
        two.append(&X_FORWARDED_FOR, HeaderValue::from_static("2.2.2.2"));
        append_client_address(&mut two, Some(&client));
        assert_eq!(two.get_all("x-forwarded-for").iter().count(), 1);
        assert_eq!(two["x-forwarded-for"], "1.1.1.1, 2.2.2.2, 10.0.0.9");
    }
}
