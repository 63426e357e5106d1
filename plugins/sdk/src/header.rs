//! Checks of header names and values that come from a configuration, so that a bad one is an error of `init` and not of
//! a request. Called by middlewares in `init`.

use crate::Error;

/// The name in lower case.
///
/// # Errors
/// If it is no token of RFC 9110, 5.1.
pub fn name(text: &str) -> Result<String, Error> {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if text.is_empty() || !text.bytes().all(token) {
        return Err(Error::invalid_config(format!("use `{text}` as a header name")));
    }
    Ok(text.to_ascii_lowercase())
}

/// The value of the header called `name`, as bytes.
///
/// # Errors
/// If it has control characters other than the tab (RFC 9110, 5.5).
pub fn value(name: &str, text: &str) -> Result<Vec<u8>, Error> {
    let control = |byte: u8| byte < b' ' && byte != b'\t' || byte == 0x7f;
    if text.bytes().any(control) {
        return Err(Error::invalid_config(format!(
            "use the value of `{name}`: it has a line break or control character"
        )));
    }
    Ok(text.as_bytes().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_tokens_in_lower_case() {
        assert_eq!(name("X-Forwarded-Proto").expect("a token"), "x-forwarded-proto");
        for bad in ["", "a b", "a:b", "ä", "a\r\nb"] {
            assert!(name(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn values_have_no_control_characters() {
        assert_eq!(value("x", "é\t!").expect("text"), "é\t!".as_bytes());
        for bad in ["a\r\nb: c", "\0", "\u{7f}"] {
            assert!(value("x", bad).is_err(), "{bad:?}");
        }
    }
}
