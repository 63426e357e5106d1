//! Fields of a request that end here: those of the client's connection (RFC 9110, section 7.6.1), and what servers may
//! take for a field that this proxy manages.
//!
//! They go before rules and middlewares see the request, so that a client can take away nothing that a middleware has
//! added, but for those that an entry point keeps for its middlewares. Fields of responses are `forward`'s.

use http::header::{CONNECTION, HeaderName, HeaderValue, TE, UPGRADE};
use http::{HeaderMap, request};

use super::Aliases;
use crate::http::{Failure, has_token, may_be_taken_for, websocket_key};

/// Leaves of the fields of a connection only what asks for a websocket, in one spelling, and answers whether it is
/// there. Any other upgrade is a way around the proxy. Fields that are `kept` stay for the middlewares, and with them the
/// `Connection` that names them, so that they end before the server.
pub(super) fn strip(head: &mut request::Parts, has_content: bool, kept: &[HeaderName]) -> bool {
    let is_websocket = !has_content && websocket_key(head).is_some();
    let headers = &mut head.headers;
    // Most requests have none of them: one pass over the names costs less than a look-up for each.
    let ours: Vec<HeaderName> = headers.keys().filter(|name| ends_here(name.as_str())).cloned().collect();
    if ours.is_empty() {
        return false;
    }
    // Without it servers of gRPC do not answer.
    let takes_trailers = headers.get_all(TE).iter().any(|te| has_token(te, b"trailers"));
    let (stay, go): (Vec<HeaderName>, Vec<HeaderName>) =
        named(headers).into_iter().partition(|name| kept.contains(name) && !ends_here(name.as_str()));
    for name in go {
        headers.remove(name);
    }
    for name in ours {
        headers.remove(name);
    }
    for name in stay {
        headers.append(CONNECTION, name.into());
    }
    if takes_trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    if is_websocket {
        headers.append(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    }
    is_websocket
}

/// Removes fields whose names may be taken for others', or refuses the request, as the entry point wants it.
pub(super) fn settle_aliases(headers: &mut HeaderMap, aliases: Aliases) -> Result<(), Failure> {
    let (Aliases::Delete(marks) | Aliases::Reject(marks)) = aliases else { return Ok(()) };
    let has_mark = |name: &&HeaderName| name.as_str().bytes().any(|byte| marks.contains(&byte));
    let found: Vec<HeaderName> = headers.keys().filter(has_mark).cloned().collect();
    if !found.is_empty() && matches!(aliases, Aliases::Reject(_)) {
        return Err(Failure::BadRequest("a field whose name may be taken for another's"));
    }
    for name in found {
        headers.remove(name);
    }
    Ok(())
}

fn ends_here(name: &str) -> bool {
    match name.as_bytes().first() {
        Some(b'c') => name == "connection" || is_alias(name, "content-length"),
        Some(b'h') => may_be_taken_for(name, "http2-settings"),
        Some(b'k') => may_be_taken_for(name, "keep-alive"),
        Some(b'p') => ["proxy-authenticate", "proxy-authorization", "proxy-connection"]
            .into_iter()
            .any(|known| may_be_taken_for(name, known)),
        Some(b't') => matches!(name, "te" | "trailer") || may_be_taken_for(name, "transfer-encoding"),
        Some(b'u') => name == "upgrade",
        _ => false,
    }
}

fn is_alias(name: &str, known: &str) -> bool {
    name != known && may_be_taken_for(name, known)
}

/// What `Connection` names, but for what nobody may take from the server: the host, the length, and fields that say where
/// a request came from.
fn named(headers: &HeaderMap) -> Vec<HeaderName> {
    let lines = headers.get_all(CONNECTION).iter();
    let members = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    members
        .map(<[u8]>::trim_ascii)
        // What most messages say, and what names no field or one that goes anyway.
        .filter(|name| ![&b"keep-alive"[..], b"close", b"upgrade"].iter().any(|usual| name.eq_ignore_ascii_case(usual)))
        .filter_map(|name| HeaderName::from_bytes(name).ok())
        .filter(|name| {
            let name = name.as_str();
            !name.starts_with("x-forwarded-") && !matches!(name, "x-real-ip" | "host" | "content-length")
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(fields: &[(&'static str, &'static str)], kept: &[HeaderName]) -> (bool, Vec<String>) {
        let mut request = http::Request::builder();
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let (mut head, ()) = request.body(()).expect("a good request").into_parts();
        let is_websocket = strip(&mut head, false, kept);
        let mut left: Vec<String> =
            head.headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap_or("?"))).collect();
        left.sort_unstable();
        (is_websocket, left)
    }

    #[test]
    fn fields_of_the_connection_and_those_that_it_names_go() {
        let fields = [
            ("connection", "X-Private, \u{e9}, keep-alive"),
            ("connection", "x-forwarded-host,host, content-length"),
            ("x-private", "1"),
            ("keep-alive", "timeout=5"),
            ("te", "gzip"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("transfer_encoding", "chunked"),
            ("content-length", "0"),
            ("content_length", "0"),
            ("proxy-authorization", "Basic eA=="),
            ("upgrade", "h2c"),
            ("http2-settings", "AA"),
            ("x-forwarded-host", "a"),
            ("host", "a"),
        ];
        let expected = ["content-length: 0", "host: a", "te: trailers", "x-forwarded-host: a"].map(str::to_owned);
        assert_eq!(left(&fields, &[]), (false, expected.to_vec()));
    }

    #[test]
    fn named_fields_that_are_kept_stay_with_what_names_them() {
        let kept = ["x-private", "x-other", "te", "connection", "x-absent"].map(HeaderName::from_static);
        let fields = [("connection", "close, X-PRIVATE,te, x-gone, Connection"), ("x-private", "1"), ("x-gone", "1")];
        assert_eq!(left(&fields, &kept).1, ["connection: x-private", "x-private: 1"]);
        let fields = [("connection", "x-other"), ("connection", "x-private"), ("x-other", "1")];
        assert_eq!(left(&fields, &kept).1, ["connection: x-other", "connection: x-private", "x-other: 1"]);
        let fields = [("connection", "close"), ("x-private", "1")];
        assert_eq!(left(&fields, &kept).1, ["x-private: 1"]);
    }

    #[test]
    fn what_asks_for_a_websocket_stays() {
        let good = [
            ("connection", "keep-alive, UPGRADE"),
            ("upgrade", "WebSocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ];
        let (is_websocket, fields) = left(&good, &[]);
        assert!(is_websocket);
        assert_eq!(fields[..1], ["connection: Upgrade"]);
        assert_eq!(fields[3..], ["upgrade: websocket"]);
        for wrong in 0..4 {
            let mut fields = good;
            fields[wrong].1 = "wrong";
            let (is_websocket, fields) = left(&fields, &[]);
            assert!(!is_websocket && !fields.iter().any(|field| field.starts_with("upgrade")), "{fields:?}");
        }
    }
}
