//! Request targets: one normal form, which stays what it is.

use http::Uri;
use proptest::collection::vec;
use proptest::prelude::{Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest};
use proptest::sample::select;
use weir::target::{self, Paths};

use super::cases;

const PIECES: &[&str] = &[
    "/",
    "//",
    ".",
    "..",
    "%2e",
    "%2E",
    "%2f",
    "%2F",
    "%5c",
    "\\",
    "%00",
    "%",
    "%2",
    "%zz",
    "a",
    "%61",
    "%7E",
    ";",
    "?",
    "#",
    "&",
    "=",
    "*",
    "é",
    "%c3%a9",
    "@",
    ":",
    "http://b.example",
    "[",
    "|",
    "^",
    "+",
    " ",
];

/// What comes near the start line of a request.
pub(super) fn target() -> impl Strategy<Value = String> {
    let pieces = vec(select(PIECES), 0..12).prop_map(|pieces| format!("/{}", pieces.concat()));
    let bytes = vec(any::<u8>(), 0..40).prop_map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    prop_oneof![8 => pieces, 1 => bytes]
}

/// Why a path is not as servers must see it.
pub(super) fn flaw(path: &str) -> Option<&'static str> {
    let unreserved = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let hexadecimal = |byte: &u8| byte.is_ascii_digit() || (b'A'..=b'F').contains(byte);
    if !path.starts_with('/') {
        return Some("it does not start with a slash");
    }
    if path.contains("//") {
        return Some("it has an empty segment");
    }
    if path.split('/').any(|segment| segment == "." || segment == "..") {
        return Some("it has a dot segment");
    }
    if path.bytes().any(|byte| !byte.is_ascii_graphic() || b"\\?#\"<>^`{|}".contains(&byte)) {
        return Some("it has characters that no path may have");
    }
    for encoded in path.split('%').skip(1) {
        let digits = encoded.as_bytes().get(..2).filter(|digits| digits.iter().all(hexadecimal));
        let byte = digits.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        match byte {
            None => return Some("it has a percent sign that encodes nothing"),
            Some(byte) if unreserved(byte) => return Some("it encodes what need not be"),
            Some(_) => {}
        }
    }
    None
}

proptest! {
    #![proptest_config(cases(4000))]

    #[test]
    fn what_clients_send(text in target(), resolve in any::<bool>(), encode_semicolons in any::<bool>()) {
        let paths = Paths { resolve, encode_semicolons, ..Paths::default() };
        let Ok(uri) = text.parse::<Uri>() else { return Ok(()) };
        let Ok(normal) = target::normalise(&uri, paths) else { return Ok(()) };
        let normal = normal.unwrap_or(uri);
        if normal.path() != "*" && resolve {
            prop_assert_eq!(flaw(normal.path()), None, "{}", normal);
        }
        let again = target::normalise(&normal, paths).expect("a normal form is good").unwrap_or_else(|| normal.clone());
        prop_assert_eq!(again, normal);
    }

    #[test]
    fn what_guests_answer(text in target()) {
        let Ok(normal) = target::parse(&text) else { return Ok(()) };
        prop_assert_eq!(flaw(normal.path()), None, "{}", normal);
        prop_assert!(normal.authority().is_none() && normal.scheme().is_none());
        prop_assert_eq!(target::parse(&normal.to_string()), Ok(normal));
    }
}
