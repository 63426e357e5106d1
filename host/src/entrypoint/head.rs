//! The head of a request, checked and brought into the one form that [`crate::http::Request`] promises.
//!
//! `exchange` calls it before anything else looks at a request. hyper has parsed the head; what hyper lets through though
//! two servers may read it in two ways is refused here. It knows no routes, and leaves the fields of a connection to
//! `hop`.

use http::header::{CONTENT_LENGTH, COOKIE, EXPECT, HOST, MAX_FORWARDS, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Version, request};

use super::EntryPoint;
use crate::http::{Failure, is_authority};
use crate::target;

/// Cookies of HTTP/2 come as a field each, which are counted here too. HTTP/1.1 has its own limit of 100, in hyper.
const FIELDS_AT_MOST: usize = 200;

/// What becomes of a good request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ruling {
    Forward,
    /// It asks for an answer of the proxy itself, which has this status and no content.
    Answer(StatusCode),
}

/// Gives a head its normal form. `secure` says whether it came over TLS, `has_content` whether more than the head comes.
pub(super) fn normalise(
    head: &mut request::Parts,
    entry_point: &EntryPoint,
    secure: bool,
    has_content: bool,
) -> Result<Ruling, Failure> {
    if head.method == Method::CONNECT {
        return Err(Failure::Refused(StatusCode::NOT_IMPLEMENTED, "CONNECT is for forward proxies"));
    }
    if has_content {
        check_framing(head)?;
    }
    if !head.headers.get_all(EXPECT).iter().all(is_known_expectation) {
        return Err(Failure::Refused(StatusCode::EXPECTATION_FAILED, "an unknown expectation"));
    }
    if head.version >= Version::HTTP_2 {
        check_fields(&head.headers)?;
        join_cookies(&mut head.headers);
    }
    settle_host(head, secure)?;
    if matches!(head.method, Method::OPTIONS | Method::TRACE)
        && let Some(status) = last_recipient(head)?
    {
        return Ok(Ruling::Answer(status));
    }
    if head.uri.path() == "*" {
        return Err(Failure::BadRequest("the target `*` is for OPTIONS"));
    }
    if let Some(uri) = target::normalise(&head.uri, entry_point.paths).map_err(Failure::BadRequest)? {
        head.uri = uri;
    }
    Ok(Ruling::Forward)
}

/// Content has one length, or is chunked and nothing else (RFC 9112, section 6.1). hyper sees to lengths and to HTTP/1.0,
/// but is satisfied when `chunked` is the last of several codings.
fn check_framing(head: &request::Parts) -> Result<(), Failure> {
    if head.method == Method::TRACE {
        return Err(Failure::BadRequest("TRACE has no content"));
    }
    let mut codings = head.headers.get_all(TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => Ok(()),
        (Some(coding), None) if coding.as_bytes().eq_ignore_ascii_case(b"chunked") => Ok(()),
        _ => Err(Failure::BadRequest("unsupported transfer encoding")),
    }
}

fn is_known_expectation(value: &HeaderValue) -> bool {
    value.is_empty() || value.as_bytes().eq_ignore_ascii_case(b"100-continue")
}

/// What RFC 9113 (section 8.2.1) asks for and h2 does not look at, and how many fields there are.
fn check_fields(headers: &HeaderMap) -> Result<(), Failure> {
    if headers.len() > FIELDS_AT_MOST {
        return Err(Failure::Refused(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "too many fields"));
    }
    let is_blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    let has_space_around = |value: &HeaderValue| {
        let bytes = value.as_bytes();
        is_blank(bytes.first()) || is_blank(bytes.last())
    };
    if headers.get_all(CONTENT_LENGTH).iter().nth(1).is_some() {
        return Err(Failure::BadRequest("more than one length"));
    }
    if headers.values().any(has_space_around) {
        return Err(Failure::BadRequest("space around the value of a field"));
    }
    Ok(())
}

/// Leaves exactly one good `Host`, but for clients of HTTP/1.0, which need not send any.
///
/// The target's authority wins over the field (RFC 9112, section 3.2.2), but over HTTP/2 they must not differ (RFC 9113,
/// section 8.3.1).
fn settle_host(head: &mut request::Parts, secure: bool) -> Result<(), Failure> {
    let mut hosts = head.headers.get_all(HOST).iter();
    let (field, another) = (hosts.next(), hosts.next());
    if another.is_some() {
        return Err(Failure::BadRequest("too many Host headers"));
    }
    if field.is_some_and(|host| !host.is_empty() && !is_authority(host.as_bytes())) {
        return Err(Failure::BadRequest("malformed Host header"));
    }
    let is_http2 = head.version >= Version::HTTP_2;
    let Some(authority) = head.uri.authority() else {
        return match field {
            None if head.version >= Version::HTTP_11 => Err(Failure::BadRequest("missing required Host header")),
            // It names nobody, and so no router is for it (RFC 9110, section 4.2.1).
            Some(host) if host.is_empty() => Err(Failure::NoRouter),
            _ => Ok(()),
        };
    };
    match head.uri.scheme_str() {
        Some("http") => {}
        // Whoever ends TLS in front of us says `https` over HTTP/2 in clear text.
        Some("https") if secure || is_http2 => {}
        Some(_) => return Err(Failure::BadRequest("the target has another scheme than the connection")),
        None => return Err(Failure::BadRequest("an authority alone is a target for CONNECT")),
    }
    let authority = authority.as_str().as_bytes();
    if !is_authority(authority) {
        return Err(Failure::BadRequest("malformed authority"));
    }
    match field {
        None if head.version == Version::HTTP_11 => {
            return Err(Failure::BadRequest("missing required Host header"));
        }
        Some(host) if is_http2 && !host.as_bytes().eq_ignore_ascii_case(authority) => {
            return Err(Failure::BadRequest("Host and :authority differ"));
        }
        _ => {}
    }
    let host = HeaderValue::from_bytes(authority).map_err(|_| Failure::BadRequest("malformed authority"))?;
    head.headers.insert(HOST, host);
    Ok(())
}

/// Leaves of the head of a request that waits what it needs: a cookie in a field of its own takes ten times its bytes.
/// Others may be copies of one large cookie, which the whole of them is not.
pub(super) fn compact(headers: &mut HeaderMap) {
    const SMALL: usize = 1024;

    let cookies: usize = headers.get_all(COOKIE).iter().map(HeaderValue::len).sum();
    if cookies == 0 || cookies > SMALL || check_fields(headers).is_err() {
        return;
    }
    join_cookies(headers);
    // A table never gets smaller.
    let mut compact = HeaderMap::with_capacity(headers.keys_len());
    compact.extend(std::mem::take(headers));
    *headers = compact;
}

/// HTTP/2 may send each cookie in a field of its own, for which HTTP/1.1 has one (RFC 9113, section 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let mut cookies = headers.get_all(COOKIE).iter();
    let (Some(first), Some(second)) = (cookies.next(), cookies.next()) else { return };
    let mut joined = first.as_bytes().to_vec();
    for cookie in [second].into_iter().chain(cookies) {
        joined.extend_from_slice(b"; ");
        joined.extend_from_slice(cookie.as_bytes());
    }
    if let Ok(joined) = HeaderValue::from_bytes(&joined) {
        headers.insert(COOKIE, joined);
    }
}

/// Whether OPTIONS or TRACE is for this proxy and nobody behind it (RFC 9110, sections 7.6.2 and 9.3.7), and with what
/// status it is answered; else one step less is left.
fn last_recipient(head: &mut request::Parts) -> Result<Option<StatusCode>, Failure> {
    if head.method == Method::OPTIONS && head.uri.path() == "*" {
        return Ok(Some(StatusCode::OK));
    }
    let mut fields = head.headers.get_all(MAX_FORWARDS).iter();
    let Some(steps) = fields.next() else { return Ok(None) };
    let is_number = !steps.is_empty() && steps.as_bytes().iter().all(u8::is_ascii_digit) && fields.next().is_none();
    let steps = steps.to_str().ok().filter(|_| is_number).and_then(|text| text.parse::<u64>().ok());
    match (steps, &head.method) {
        (None, _) => Err(Failure::BadRequest("malformed Max-Forwards header")),
        (Some(0), &Method::OPTIONS) => Ok(Some(StatusCode::OK)),
        // What a request looked like is nobody's business.
        (Some(0), _) => Ok(Some(StatusCode::NOT_IMPLEMENTED)),
        (Some(steps), _) => {
            head.headers.insert(MAX_FORWARDS, HeaderValue::from(steps - 1));
            Ok(None)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookies_become_one_field() {
        let mut headers = HeaderMap::new();
        for cookie in ["a=1", "b=2", "c=3"] {
            headers.append(COOKIE, HeaderValue::from_static(cookie));
        }
        join_cookies(&mut headers);
        assert_eq!(headers.get_all(COOKIE).iter().collect::<Vec<_>>(), ["a=1; b=2; c=3"]);
    }
}
