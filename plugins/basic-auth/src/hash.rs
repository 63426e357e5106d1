//! Password hashes as they stand in htpasswd files: read once in `init`, so that a bad one is found there. Knows
//! nothing of users.

mod md5_crypt;

use base64::Engine;
use base64::alphabet::BCRYPT;
use base64::engine::GeneralPurpose;
use base64::engine::general_purpose::{NO_PAD, STANDARD};
use sha1::{Digest, Sha1};
use subtle::ConstantTimeEq;

use md5_crypt::Md5Crypt;

/// Some tools leave bits in the last letter that mean nothing.
const BCRYPT_BASE64: GeneralPurpose = GeneralPurpose::new(&BCRYPT, NO_PAD.with_decode_allow_trailing_bits(true));

/// One hash, by kind.
#[derive(Clone)]
pub(crate) enum PasswordHash {
    /// `$2y$cost$…`, also `$2a$`, `$2b$` and `$2x$`
    Bcrypt { cost: u32, salt: [u8; 16], digest: [u8; 23] },
    /// `$apr1$salt$…` and `$1$salt$…`
    Md5Crypt(Md5Crypt),
    /// `{SHA}…`
    Sha1([u8; 20]),
}

impl PasswordHash {
    /// # Errors
    /// A clause that says what the text is instead, without quoting it.
    pub(crate) fn parse(text: &str) -> Result<Self, &'static str> {
        if let Some(encoded) = text.strip_prefix("{SHA}") {
            let digest = STANDARD.decode(encoded).ok().and_then(|bytes| bytes.try_into().ok());
            return digest.map(Self::Sha1).ok_or("the SHA-1 hash is damaged");
        }
        if let Some(rest) = ["$2y$", "$2b$", "$2a$", "$2x$"].iter().find_map(|prefix| text.strip_prefix(prefix)) {
            return parse_bcrypt(rest).ok_or("the bcrypt hash is damaged");
        }
        if text.starts_with("$apr1$") || text.starts_with("$1$") {
            return Md5Crypt::parse(text).map(Self::Md5Crypt).ok_or("the MD5 hash is damaged");
        }
        Err(unsupported(text))
    }

    /// Whether this is the password that was hashed. Takes the same time whatever the answer.
    pub(crate) fn verify(&self, password: &[u8]) -> bool {
        match self {
            Self::Bcrypt { cost, salt, digest } => bcrypt_digest(*cost, *salt, password)[..23].ct_eq(digest).into(),
            Self::Md5Crypt(hash) => hash.verify(password),
            Self::Sha1(digest) => Sha1::digest(password).as_slice().ct_eq(digest).into(),
        }
    }

    /// Orders hashes by the time that one check takes.
    pub(crate) const fn cost(&self) -> u32 {
        match self {
            Self::Sha1(_) => 0,
            Self::Md5Crypt(_) => 1,
            Self::Bcrypt { cost, .. } => *cost,
        }
    }
}

/// The rest after the prefix: `10$`, 22 letters of salt, 31 of digest.
fn parse_bcrypt(rest: &str) -> Option<PasswordHash> {
    let (cost, rest) = rest.split_once('$')?;
    let (salt, digest) = rest.split_at_checked(22)?;
    let cost = cost.parse().ok().filter(|cost| (4..=31).contains(cost))?;
    let salt = BCRYPT_BASE64.decode(salt).ok()?.try_into().ok()?;
    let digest = BCRYPT_BASE64.decode(digest).ok()?.try_into().ok()?;
    Some(PasswordHash::Bcrypt { cost, salt, digest })
}

/// bcrypt hashes the password with its closing NUL, and of both no more than 72 bytes.
fn bcrypt_digest(cost: u32, salt: [u8; 16], password: &[u8]) -> [u8; 24] {
    let mut key = [0; 72];
    let used = password.len().min(72);
    key[..used].copy_from_slice(&password[..used]);
    bcrypt::bcrypt(cost, salt, &key[..72.min(used + 1)])
}

fn unsupported(text: &str) -> &'static str {
    match text {
        "" => "it is empty",
        _ if text.starts_with("$5$") || text.starts_with("$6$") => "SHA-crypt is not supported",
        _ if text.starts_with("$y$") || text.starts_with("$7$") => "yescrypt is not supported",
        _ if text.starts_with("$argon2") => "Argon2 is not supported",
        _ if text.starts_with('$') || text.starts_with('{') => "this kind of hash is not supported",
        _ => "this is no hash of a known kind, perhaps the password itself or DES",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_what_htpasswd_makes() {
        for (text, password) in [
            ("$apr1$c5IwaNCW$VpEXax7LtUneLsElXFWCI.", "admin"),
            ("$apr1$Mi1J0p.B$E8fnKqMgqAX263OlViQmq/", "secret"),
            ("$1$abcdefgh$cHJi5PXp/ki/ktXzqlk6I1", "secret"),
            ("$2y$05$/IRNub/zEczxTCXdiQ3wSuQxJ./2DIRJ8WsuOFzL2iobSSSAoecb2", "secret"),
            ("{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=", "secret"),
        ] {
            let hash = PasswordHash::parse(text).expect("a hash of a known kind");
            assert!(hash.verify(password.as_bytes()), "{text}");
            for wrong in ["", "Secret", "secret\0", "admin "] {
                assert!(!hash.verify(wrong.as_bytes()), "{text} {wrong:?}");
            }
        }
    }

    #[test]
    fn bcrypt_ends_after_72_bytes() {
        let long = [b'x'; 100];
        assert_eq!(bcrypt_digest(4, [7; 16], &long), bcrypt_digest(4, [7; 16], &long[..72]));
        assert_ne!(bcrypt_digest(4, [7; 16], &long), bcrypt_digest(4, [7; 16], &long[..71]));
    }

    #[test]
    fn says_what_it_does_not_know() {
        let problem = |text| PasswordHash::parse(text).err().expect("not a hash that is supported");
        assert_eq!(problem("$6$abcdefgh$ltjgWl6579NluT"), "SHA-crypt is not supported");
        assert_eq!(problem("$argon2id$v=19$m=65536"), "Argon2 is not supported");
        assert!(problem("secret").contains("the password itself"));
        for damaged in [
            "{SHA}5en6",
            "$1$abcdefgh",
            "$1$abcdefgh$short",
            "$apr1$a$VpEXax7LtUneLsElXFWC!.",
            "$2y$05$/IRNub",
            "$2y$99$/IRNub/zEczxTCXdiQ3wSuQxJ./2DIRJ8WsuOFzL2iobSSSAoecb2",
            "$2y$05$/IRNub/zEczxTCXdiQ3wSé",
        ] {
            assert!(problem(damaged).ends_with("is damaged"), "{damaged}");
        }
    }
}
