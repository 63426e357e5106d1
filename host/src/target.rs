//! The request target in its one normal form, in which rules match it, middlewares see it and servers get it.
//!
//! `entrypoint` normalises what clients send, `plugin` what guests answer. Pure: it knows no hosts and no routers.
//!
//! As in Traefik: percent-encoded unreserved characters are decoded, other encodings are kept in upper case, characters
//! that no path may have are encoded, empty and dot segments are resolved, and `;` between parameters becomes `&`.

use std::borrow::Cow;

use http::Uri;
use http::uri::PathAndQuery;

/// What an entry point does with targets. The default is Traefik's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Paths {
    /// Whether empty and dot segments are resolved (`sanitizePath`).
    pub resolve: bool,
    /// Whether `;` between parameters becomes `%3B` instead of `&` (`encodeQuerySemicolons`).
    pub encode_semicolons: bool,
    /// What a path may have in its encoded form (`encodedCharacters`).
    pub allowed: Allowed,
}

/// Characters that split the views of proxies and servers when one of them decodes them: `/ \\ ; % ? #` and NUL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowed {
    pub slash: bool,
    pub backslash: bool,
    pub null: bool,
    pub semicolon: bool,
    pub percent: bool,
    pub question_mark: bool,
    pub hash: bool,
}

impl Default for Paths {
    fn default() -> Self {
        Self { resolve: true, encode_semicolons: false, allowed: Allowed::default() }
    }
}

impl Default for Allowed {
    fn default() -> Self {
        Self {
            slash: true,
            backslash: true,
            null: true,
            semicolon: true,
            percent: true,
            question_mark: true,
            hash: true,
        }
    }
}

impl Allowed {
    const fn includes(self, byte: u8) -> bool {
        match byte {
            b'/' => self.slash,
            b'\\' => self.backslash,
            0 => self.null,
            b';' => self.semicolon,
            b'%' => self.percent,
            b'?' => self.question_mark,
            b'#' => self.hash,
            _ => true,
        }
    }
}

/// What is wrong with a target, to be read after the target itself.
pub type Refusal = &'static str;

/// Parses a path with its query, as a guest answers it, into the normal form.
pub fn parse(text: &str) -> Result<Uri, Refusal> {
    if !text.starts_with('/') {
        return Err("does not start with a slash");
    }
    let target = PathAndQuery::try_from(text).map_err(|_| "has characters that no path may have")?;
    let uri = Uri::from(target);
    Ok(normalise(&uri, Paths::default())?.unwrap_or(uri))
}

/// The normal form of a target, or `None` if it is in that form already.
pub fn normalise(uri: &Uri, paths: Paths) -> Result<Option<Uri>, Refusal> {
    let path = uri.path();
    let origin_form = uri.authority().is_none() && path.starts_with('/');
    if origin_form && is_plain(path.as_bytes(), paths.resolve) && uri.query().is_none_or(is_plain_query) {
        return Ok(None);
    }
    let mut text = encode(path, paths.allowed)?;
    if paths.resolve {
        text = resolve_segments(&text);
    }
    if let Some(query) = uri.query() {
        text.push('?');
        push_query(&mut text, query, paths.encode_semicolons);
    }
    let target = PathAndQuery::try_from(text).map_err(|_| "has characters that no path may have")?;
    Ok(Some(Uri::from(target)))
}

/// The path as rules see it: what has no meaning of its own in a path is decoded, so that `/my app` is found in
/// `/my%20app`.
pub fn routing_path(path: &str) -> Cow<'_, str> {
    let Some(first) = path.find('%') else { return Cow::Borrowed(path) };
    let bytes = path.as_bytes();
    let mut decoded = bytes[..first].to_vec();
    let mut at = first;
    while let Some(&byte) = bytes.get(at) {
        match bytes.get(at + 1..at + 3).and_then(hexadecimal) {
            Some(code) if byte == b'%' && !is_reserved(code) => {
                decoded.push(code);
                at += 3;
            }
            _ => {
                decoded.push(byte);
                at += 1;
            }
        }
    }
    Cow::Owned(String::from_utf8_lossy(&decoded).into_owned())
}

/// RFC 3986, section 2.2, and the percent sign.
const fn is_reserved(byte: u8) -> bool {
    matches!(byte, b':' | b'/' | b'?' | b'#' | b'[' | b']' | b'@' | b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*')
        || matches!(byte, b'+' | b',' | b';' | b'=' | b'%')
}

fn is_plain_query(query: &str) -> bool {
    query.bytes().all(|byte| byte.is_ascii() && byte != b';')
}

/// Queries are opaque but for `;`, which some servers take for `&`, and for what a request line cannot have.
fn push_query(text: &mut String, query: &str, encode_semicolons: bool) {
    for byte in query.bytes() {
        match byte {
            b';' if encode_semicolons => text.push_str("%3B"),
            b';' => text.push('&'),
            byte if byte.is_ascii() => text.push(char::from(byte)),
            byte => push_encoded(text, byte),
        }
    }
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

fn encode(path: &str, allowed: Allowed) -> Result<String, Refusal> {
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
                continue;
            }
            push_allowed(&mut text, decoded, allowed)?;
        } else if may_stand_in_path(byte) {
            text.push(char::from(byte));
        } else {
            push_allowed(&mut text, byte, allowed)?;
        }
    }
    Ok(text)
}

fn push_allowed(text: &mut String, byte: u8, allowed: Allowed) -> Result<(), Refusal> {
    if !allowed.includes(byte) {
        return Err("has an encoded character that this entry point does not allow");
    }
    push_encoded(text, byte);
    Ok(())
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
        let paths = Paths { resolve, ..Paths::default() };
        normalise(&uri, paths).expect("a good target").unwrap_or(uri).to_string()
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
            ("/?q=caf\u{e9}", "/?q=caf%C3%A9"),
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
    fn semicolons_of_queries() {
        let uri: Uri = "/a;b?c;d".parse().expect("a target");
        let encoded = normalise(&uri, Paths { encode_semicolons: true, ..Paths::default() });
        assert_eq!(encoded.expect("a good target").expect("another form"), "/a;b?c%3Bd");
    }

    #[test]
    fn encoded_characters_can_be_forbidden() {
        let none = Allowed {
            slash: false,
            backslash: false,
            null: false,
            semicolon: false,
            percent: false,
            question_mark: false,
            hash: false,
        };
        for target in ["/%2f", "/%5C", "/\\", "/%00", "/%3b", "/%25", "/%3F", "/%23"] {
            let uri: Uri = target.parse().expect("the HTTP parser lets it through");
            assert!(normalise(&uri, Paths::default()).is_ok(), "{target}");
            assert!(normalise(&uri, Paths { allowed: none, ..Paths::default() }).is_err(), "{target}");
        }
        let uri: Uri = "/a;b/%20%c3?%2f".parse().expect("a target");
        assert!(normalise(&uri, Paths { allowed: none, ..Paths::default() }).is_ok());
    }

    #[test]
    fn rules_see_what_has_no_meaning_decoded() {
        for (path, expected) in [
            ("/a/b", "/a/b"),
            ("/my%20app", "/my app"),
            ("/%22%3C%3E%5C%5E%7B%7C%7D", "/\"<>\\^{|}"),
            ("/a%2Fb%3F%23%25%3B%40", "/a%2Fb%3F%23%25%3B%40"),
            ("/caf%C3%A9", "/caf\u{e9}"),
            ("/%FF", "/\u{fffd}"),
            ("/%25%32%30", "/%2520"),
        ] {
            assert_eq!(routing_path(path), expected, "{path}");
        }
    }

    #[test]
    fn broken_encodings_are_refused() {
        for target in ["/%", "/%2", "/%zz", "/a%2", "/%+1"] {
            let uri: Uri = target.parse().expect("the HTTP parser lets it through");
            assert!(normalise(&uri, Paths::default()).is_err(), "{target}");
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
