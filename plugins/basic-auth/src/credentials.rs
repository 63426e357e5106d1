//! What the client sent in `Authorization`. Reads bytes from the network; allocates only for what may be credentials.

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::GeneralPurpose;
use base64::engine::general_purpose::PAD;

/// Longer passwords are refused unread: the work of checking one grows with its length.
const MAX_LENGTH: usize = 2048;

/// As lenient as Go, which Traefik's users are used to: the last letter may have bits that mean nothing.
const BASE64: GeneralPurpose = GeneralPurpose::new(&STANDARD, PAD.with_decode_allow_trailing_bits(true));

/// User name and password of RFC 7617, in whatever encoding the client chose.
pub(crate) struct Credentials {
    pub(crate) user: Vec<u8>,
    pub(crate) password: Vec<u8>,
}

impl Credentials {
    /// The name ends at the first colon. None for anything but the scheme `Basic`, in any case, and valid base64.
    pub(crate) fn parse(authorization: &[u8]) -> Option<Self> {
        let (scheme, encoded) = authorization.split_at_checked(6)?;
        if !scheme.eq_ignore_ascii_case(b"basic ") || encoded.len() > MAX_LENGTH {
            return None;
        }
        let mut user = BASE64.decode(encoded).ok()?;
        let colon = user.iter().position(|&byte| byte == b':')?;
        let password = user.split_off(colon + 1);
        user.truncate(colon);
        Some(Self { user, password })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(authorization: &str) -> Option<(String, String)> {
        let Credentials { user, password } = Credentials::parse(authorization.as_bytes())?;
        Some((String::from_utf8(user).expect("a test is UTF-8"), String::from_utf8(password).expect("a test is UTF-8")))
    }

    #[test]
    fn the_password_may_have_colons() {
        let pair = |user: &str, password: &str| Some((user.to_owned(), password.to_owned()));
        assert_eq!(parse("Basic Y29sb246YTpi"), pair("colon", "a:b"));
        assert_eq!(parse("bAsIc Og=="), pair("", ""));
        assert_eq!(parse("Basic w7w6w6Q="), pair("ü", "ä"));
    }

    #[test]
    fn anything_else_is_no_credentials() {
        for bad in ["", "Basic", "Basic ", "Basic YQ==", "Basic  YTpi", "Basic YTpi=", "Bearer YTpi", "Basicé"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
        assert_eq!(parse(&format!("Basic {}", "YTpi".repeat(1000))), None);
    }
}
