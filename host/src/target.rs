//! The request target in its one normal form, in which rules match it, middlewares see it and servers get it.
//!
//! `entrypoint` normalises what clients send, `plugin` what guests answer. Pure: it knows no hosts and no routers.
//!
//! As in Traefik: percent-encoded unreserved characters are decoded, other encodings are kept in upper case, characters
//! that no path may have are encoded, empty and dot segments are resolved, and `;` between parameters becomes `&`.

use http::Uri;
use http::uri::PathAndQuery;

/// What is wrong with a target, to be read after the target itself.
pub type Refusal = &'static str;

/// Parses a path with its query, as a guest answers it, into the normal form.
pub fn parse(text: &str) -> Result<Uri, Refusal> {
    if !text.starts_with('/') {
        return Err("does not start with a slash");
    }
    let target = PathAndQuery::try_from(text).map_err(|_| "has characters that no path may have")?;
    let uri = Uri::from(target);
    Ok(normalise(&uri, true)?.unwrap_or(uri))
}

/// The normal form of a target, or `None` if it is in that form already.
///
/// `resolve` says whether empty and dot segments are resolved (Traefik's `sanitizePath`).
pub fn normalise(uri: &Uri, resolve: bool) -> Result<Option<Uri>, Refusal> {
    let path = uri.path();
    if path == "*" {
        return Ok(None);
    }
    let origin_form = uri.authority().is_none() && path.starts_with('/');
    if origin_form && is_plain(path.as_bytes(), resolve) && !uri.query().is_some_and(|query| query.contains(';')) {
        return Ok(None);
    }
    let mut text = encode(path)?;
    if resolve {
        text = resolve_segments(&text);
    }
    if let Some(query) = uri.query() {
        text.push('?');
        text.push_str(&query.replace(';', "&"));
    }
    let target = PathAndQuery::try_from(text).map_err(|_| "has characters that no path may have")?;
    Ok(Some(Uri::from(target)))
}

/// Whether nothing in a path needs a second look: the common case, without an allocation.
fn is_plain(path: &[u8], resolve: bool) -> bool {
    let mut previous = 0;
    path.iter().all(|&byte| {
        let segment_start = previous == b'/';
        previous = byte;
        may_stand_in_path(byte) && !(resolve && segment_start && matches!(byte, b'/' | b'.'))
    })
}

/// RFC 3986 `pchar` and `/` without the percent sign, and the brackets that Go leaves alone.
const fn may_stand_in_path(byte: u8) -> bool {
    is_unreserved(byte)
        || matches!(byte, b'/' | b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=')
        || matches!(byte, b':' | b'@' | b'[' | b']')
}

const fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

fn encode(path: &str) -> Result<String, Refusal> {
    let mut text = String::with_capacity(path.len() + 8);
    if !path.starts_with('/') {
        text.push('/');
    }
    let bytes = path.as_bytes();
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        at += 1;
        if byte == b'%' {
            let decoded = bytes.get(at..at + 2).and_then(hexadecimal).ok_or("has a broken percent-encoding")?;
            at += 2;
            if is_unreserved(decoded) {
                text.push(char::from(decoded));
            } else {
                push_encoded(&mut text, decoded);
            }
        } else if may_stand_in_path(byte) {
            text.push(char::from(byte));
        } else {
            push_encoded(&mut text, byte);
        }
    }
    Ok(text)
}

fn hexadecimal(digits: &[u8]) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let [high, low] = digits else { return None };
    u8::try_from(digit(*high)? * 16 + digit(*low)?).ok()
}

fn push_encoded(text: &mut String, byte: u8) {
    const DIGITS: [char; 16] = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'A', 'B', 'C', 'D', 'E', 'F'];
    text.extend(['%', DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
}

/// RFC 3986, section 5.2.4, and empty segments with it; a final slash stays.
fn resolve_segments(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => drop(kept.pop()),
            segment => kept.push(segment),
        }
    }
    let is_directory = matches!(path.rsplit('/').next(), Some("" | "." | ".."));
    let mut text = String::with_capacity(path.len());
    for segment in &kept {
        text.push('/');
        text.push_str(segment);
    }
    if kept.is_empty() || is_directory {
        text.push('/');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn normal(target: &str, resolve: bool) -> String {
        let uri: Uri = target.parse().expect("a target that the HTTP parser lets through");
        normalise(&uri, resolve).expect("a good target").unwrap_or(uri).to_string()
    }

    #[test]
    fn targets_get_one_normal_form() {
        for (target, expected) in [
            ("/", "/"),
            ("/a/b?c=d", "/a/b?c=d"),
            ("/a%2Fb/%20c%3Fd", "/a%2Fb/%20c%3Fd"),
            ("/a%62c%7E", "/abc~"),
            ("/a%2fb", "/a%2Fb"),
            ("/a|b^c", "/a%7Cb%5Ec"),
            ("/a;b=c;d?x;y", "/a;b=c;d?x&y"),
            ("/a//b", "/a/b"),
            ("/a/./b", "/a/b"),
            ("/a/../b", "/b"),
            ("/a/%2e%2E/b", "/b"),
            ("/../../x", "/x"),
            ("/a/..", "/"),
            ("/a/b/..", "/a/"),
            ("/a/.", "/a/"),
            ("/.well-known/x", "/.well-known/x"),
            ("//evil.example", "/evil.example"),
            ("http://example.com/a?b", "/a?b"),
            ("http://example.com", "/"),
            ("*", "*"),
        ] {
            assert_eq!(normal(target, true), expected, "{target}");
        }
    }

    #[test]
    fn segments_are_left_alone_on_request() {
        assert_eq!(normal("/a//b/../c", false), "/a//b/../c");
        assert_eq!(normal("/a%62//", false), "/ab//");
    }

    #[test]
    fn broken_encodings_are_refused() {
        for target in ["/%", "/%2", "/%zz", "/a%2", "/%+1"] {
            let uri: Uri = target.parse().expect("the HTTP parser lets it through");
            assert!(normalise(&uri, true).is_err(), "{target}");
        }
    }

    #[test]
    fn the_normal_form_is_its_own_normal_form() {
        for target in ["/a%2Fb", "/a%7Cb", "/..%2f..", "/%252e%252e/", "/a;b", "/%2e%2e%2fx"] {
            let once = normal(target, true);
            assert_eq!(normal(&once, true), once, "{target}");
        }
    }
}
