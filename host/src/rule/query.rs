//! The pairs of a query string, decoded as Go's `url.ParseQuery` does, mostly without allocating.

use std::borrow::Cow;

/// The values, still encoded, of the pairs with the (decoded) name `name`.
///
/// Pairs end at `&`, and also at `;`, as on Traefik's entry points. A pair with a broken escape does not count.
pub(super) fn values<'q>(query: &'q str, name: &'q str) -> impl Iterator<Item = &'q str> {
    query.split(['&', ';']).filter_map(move |pair| {
        let (encoded, value) = pair.split_once('=').unwrap_or((pair, ""));
        (equals(encoded, name) && is_well_formed(pair)).then_some(value)
    })
}

pub(super) fn equals(encoded: &str, decoded: &str) -> bool {
    bytes(encoded).eq(decoded.bytes())
}

/// Bytes that are not UTF-8 become U+FFFD.
pub(super) fn decode(encoded: &str) -> Cow<'_, str> {
    if !encoded.contains(['%', '+']) {
        return Cow::Borrowed(encoded);
    }
    let decoded: Vec<u8> = bytes(encoded).collect();
    Cow::Owned(String::from_utf8_lossy(&decoded).into_owned())
}

fn is_well_formed(pair: &str) -> bool {
    let mut escapes = pair.split('%');
    escapes.next();
    escapes.all(|escape| matches!(escape.as_bytes(), [a, b, ..] if a.is_ascii_hexdigit() && b.is_ascii_hexdigit()))
}

/// The decoded bytes; a broken escape stands for itself.
fn bytes(encoded: &str) -> impl Iterator<Item = u8> {
    let mut rest = encoded.as_bytes();
    std::iter::from_fn(move || {
        let (&first, mut after) = rest.split_first()?;
        let byte = match (first, after) {
            (b'%', [high, low, tail @ ..]) => match (hex(*high), hex(*low)) {
                (Some(high), Some(low)) => {
                    after = tail;
                    high << 4 | low
                }
                _ => first,
            },
            (b'+', _) => b' ',
            _ => first,
        };
        rest = after;
        Some(byte)
    })
}

fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::{decode, values};

    #[test]
    fn values_are_found_by_decoded_name() {
        let cases: &[(&str, &str, &[&str])] = &[
            ("", "q", &[]),
            ("q", "q", &[""]),
            ("q=", "q", &[""]),
            ("q=1&r=2&q=3", "q", &["1", "3"]),
            ("r=2;q=3", "q", &["3"]),
            ("q=a=b", "q", &["a=b"]),
            ("%71=1", "q", &["1"]),
            ("a+b=1", "a b", &["1"]),
            ("a%2bb=1", "a+b", &["1"]),
            ("q=%zz&q=1", "q", &["1"]),
            ("q=1%", "q", &[]),
            ("q=%e9", "q", &["%e9"]),
            ("Q=1", "q", &[]),
        ];
        for (query, name, expected) in cases {
            assert_eq!(values(query, name).collect::<Vec<_>>(), *expected, "{name} in {query}");
        }
    }

    #[test]
    fn values_decode() {
        for (encoded, decoded) in
            [("a", "a"), ("a+b%26c", "a b&c"), ("%C3%a9", "é"), ("%e9", "\u{fffd}"), ("100%", "100%"), ("%4", "%4")]
        {
            assert_eq!(decode(encoded), decoded);
        }
    }
}
