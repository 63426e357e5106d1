//! Fields that belong to one connection and are never forwarded (RFC 9110, section 7.6.1), and `X-Forwarded-For`.

use http::header::{
    CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER,
    TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, StatusCode, response};

use crate::http::X_FORWARDED_FOR;

static PROXY_AUTHENTICATION_INFO: HeaderName = HeaderName::from_static("proxy-authentication-info");
static KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
static PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// Removes the hop-by-hop fields of a request, those that `Connection` names first.
///
/// Names that the proxy itself manages stay even if a client lists them: otherwise it could take them from the server.
pub(super) fn strip_request(headers: &mut HeaderMap) {
    let trailers = headers.get(TE).is_some_and(|te| contains_token(te, "trailers"));
    strip(headers, |name| !is_managed(name));
    headers.remove(PROXY_AUTHORIZATION);
    headers.remove(TRAILER);
    if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
}

/// Removes the hop-by-hop fields of a response, and what says of a 304 more than a cache may hear (RFC 9110, section
/// 15.4.5).
pub(super) fn strip_response(head: &mut response::Parts) {
    strip(&mut head.headers, |_| true);
    head.headers.remove(&PROXY_AUTHENTICATION_INFO);
    if head.status == StatusCode::NOT_MODIFIED {
        head.headers.remove(CONTENT_TYPE);
    }
}

/// `may_go` tells of a field that `Connection` names whether it goes.
fn strip(headers: &mut HeaderMap, may_go: impl Fn(&HeaderName) -> bool) {
    const USUAL: [&[u8]; 3] = [b"keep-alive", b"close", b"upgrade"];

    if headers.contains_key(CONNECTION) {
        let named: Vec<HeaderName> = headers
            .get_all(CONNECTION)
            .iter()
            .flat_map(|value| value.as_bytes().split(|&byte| byte == b','))
            .map(<[u8]>::trim_ascii)
            // What most messages say, and what names no field or one that goes anyway.
            .filter(|name| !USUAL.iter().any(|usual| name.eq_ignore_ascii_case(usual)))
            .filter_map(|name| HeaderName::from_bytes(name).ok())
            .filter(&may_go)
            .collect();
        for name in named {
            headers.remove(name);
        }
        headers.remove(CONNECTION);
    }
    for name in [&KEEP_ALIVE, &PROXY_CONNECTION, &PROXY_AUTHENTICATE, &TE, &TRANSFER_ENCODING, &UPGRADE] {
        headers.remove(name);
    }
}

fn is_managed(name: &HeaderName) -> bool {
    let name = name.as_str();
    name.starts_with("x-forwarded-") || name == "x-real-ip" || name == "host"
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

/// Whether a comma-separated field value has a token, in any case.
pub(super) fn contains_token(value: &HeaderValue, token: &str) -> bool {
    value.to_str().is_ok_and(|value| value.split(',').any(|part| part.trim().eq_ignore_ascii_case(token)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        fields.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn hop_by_hop_fields_and_those_that_connection_names_go() {
        let mut fields = headers(&[
            ("connection", "X-Private, keep-alive, X-Forwarded-Host, host"),
            ("x-private", "1"),
            ("keep-alive", "timeout=5"),
            ("te", "trailers, gzip"),
            ("transfer-encoding", "chunked"),
            ("proxy-authorization", "Basic eA=="),
            ("upgrade", "h2c"),
            ("x-forwarded-host", "a"),
            ("host", "a"),
            ("accept", "*/*"),
        ]);
        strip_request(&mut fields);
        let mut left: Vec<&str> = fields.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["accept", "host", "te", "x-forwarded-host"]);
        assert_eq!(fields["te"], "trailers");
    }

    #[test]
    fn a_response_keeps_none_of_them_in_any_spelling() {
        let mut headers =
            headers(&[("x-private", "1"), ("x-other", "1"), ("x-forwarded-by", "1"), ("x-end-to-end", "1")]);
        for value in ["X-PRIVATE,,x-forwarded-by", " , close", "\tx-other\t"] {
            headers.append(CONNECTION, HeaderValue::from_static(value));
        }
        headers.append(CONNECTION, HeaderValue::from_bytes(b"\xff, x-private").expect("a field value"));
        for name in ["keep-alive", "proxy-connection", "te", "transfer-encoding", "upgrade", "proxy-authenticate"] {
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
