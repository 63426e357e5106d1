//! A server's answer before the client may have it: refused where it could be understood in two ways, and without what
//! was meant for the proxy alone.

use http::header::{CONTENT_LENGTH, HeaderValue, TRANSFER_ENCODING};
use http::{HeaderMap, StatusCode, Version};
use hyper::body::Incoming;

use super::hop;
use crate::http::{Body, Failure, ResponseHead};

/// The final answer of an exchange. An upgrade's 101 never comes here.
pub(super) fn checked(response: http::Response<Incoming>) -> Result<(ResponseHead, Body), Failure> {
    let (mut head, body) = response.into_parts();
    if head.status == StatusCode::SWITCHING_PROTOCOLS {
        return Err(Failure::BadAnswer("the server switched protocols though nobody asked".into()));
    }
    settle_framing(&mut head.headers)?;
    // The version is of one connection too, and it is not that of the client's (RFC 9112, section 2.3).
    head.version = Version::HTTP_11;
    hop::strip_response(&mut head);
    Ok((head, body.into()))
}

/// Leaves one way to tell where the body ends (RFC 9112, section 6.3). A recipient behind us may not choose as we did.
fn settle_framing(headers: &mut HeaderMap) -> Result<(), Failure> {
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let length = lengths.next();
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    if let Some(coding) = codings.next() {
        if length.is_some() {
            return Err(Failure::BadAnswer("both `Content-Length` and `Transfer-Encoding`".into()));
        }
        if codings.next().is_some() || !coding.as_bytes().eq_ignore_ascii_case(b"chunked") {
            return Err(Failure::BadAnswer("a `Transfer-Encoding` other than `chunked`".into()));
        }
    }
    let Some(length) = length else {
        return Ok(());
    };
    if lengths.next().is_none() && is_plain(length) {
        return Ok(());
    }
    let Some(length) = agreed_length(headers) else {
        return Err(Failure::BadAnswer("a `Content-Length` that is not one number".into()));
    };
    headers.insert(CONTENT_LENGTH, length.into());
    Ok(())
}

fn is_plain(length: &HeaderValue) -> bool {
    match length.as_bytes() {
        [b'0'] => true,
        [b'1'..=b'9', rest @ ..] => rest.iter().all(u8::is_ascii_digit),
        _ => false,
    }
}

/// What all lines and all elements of their lists say.
fn agreed_length(headers: &HeaderMap) -> Option<u64> {
    let mut agreed = None;
    for line in headers.get_all(CONTENT_LENGTH) {
        for element in line.to_str().ok()?.split(',') {
            let digits = element.trim_matches([' ', '\t']);
            if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
                return None;
            }
            let length: u64 = digits.parse().ok()?;
            if agreed.replace(length).is_some_and(|before| before != length) {
                return None;
            }
        }
    }
    agreed
}

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::*;

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        fields.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn one_length_remains() {
        for (lines, expected) in [
            (&["5"][..], Some("5")),
            (&["0"], Some("0")),
            (&["5", "5"], Some("5")),
            (&["5, 5"], Some("5")),
            (&["005"], Some("5")),
            (&["00"], Some("0")),
            (&["5", "6"], None),
            (&["5, 6"], None),
            (&["5,"], None),
            (&[""], None),
            (&["+5"], None),
            (&["-5"], None),
            (&["5 5"], None),
            (&["0x5"], None),
            (&["99999999999999999999", "99999999999999999999"], None),
        ] {
            let mut fields: HeaderMap =
                lines.iter().map(|line| (CONTENT_LENGTH, HeaderValue::from_static(line))).collect();
            let settled = settle_framing(&mut fields);
            assert_eq!(settled.is_ok(), expected.is_some(), "{lines:?}");
            if let Some(expected) = expected {
                assert!(fields.get_all(CONTENT_LENGTH).iter().eq([expected]), "{lines:?}: {fields:?}");
            }
        }
    }

    #[test]
    fn one_coding_is_known() {
        for (fields, good) in [
            (&[("transfer-encoding", "chunked")][..], true),
            (&[("transfer-encoding", "Chunked")], true),
            (&[("transfer-encoding", "gzip, chunked")], false),
            (&[("transfer-encoding", "chunked, chunked")], false),
            (&[("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")], false),
            (&[("transfer-encoding", "identity")], false),
            (&[("transfer-encoding", "")], false),
            (&[("transfer-encoding", "chunked"), ("content-length", "5")], false),
        ] {
            let mut fields = fields.iter().fold(HeaderMap::new(), |mut map, (name, value)| {
                map.append(HeaderName::from_static(name), HeaderValue::from_static(value));
                map
            });
            assert_eq!(settle_framing(&mut fields).is_ok(), good, "{fields:?}");
        }
        assert!(settle_framing(&mut headers(&[("x-a", "1")])).is_ok());
    }
}
