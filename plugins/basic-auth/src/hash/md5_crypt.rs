//! The two MD5 schemes of htpasswd and old `/etc/shadow`, which differ in their prefix only. No kept crate has both.
//! Weak by the standard of today: supported since configurations have them.

use md5::{Digest, Md5};
use subtle::ConstantTimeEq;

const LETTERS: &[u8; 64] = b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// The order in which the digest's bytes are written, three to four letters; the last goes alone.
const ORDER: [[usize; 3]; 5] = [[0, 6, 12], [1, 7, 13], [2, 8, 14], [3, 9, 15], [4, 10, 5]];

/// `$apr1$salt$digest` or `$1$salt$digest`.
#[derive(Clone)]
pub(crate) struct Md5Crypt {
    /// With its dollar signs.
    magic: &'static str,
    salt: String,
    digest: [u8; 22],
}

impl Md5Crypt {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let magic = ["$apr1$", "$1$"].into_iter().find(|magic| text.starts_with(magic))?;
        let (salt, digest) = text[magic.len()..].split_once('$')?;
        let digest: [u8; 22] = digest.as_bytes().try_into().ok()?;
        let letters_only = digest.iter().all(|byte| LETTERS.contains(byte));
        letters_only.then(|| Self { magic, salt: salt.to_owned(), digest })
    }

    pub(crate) fn verify(&self, password: &[u8]) -> bool {
        encode(&self.hash(password)).ct_eq(&self.digest).into()
    }

    fn hash(&self, password: &[u8]) -> [u8; 16] {
        let salt = self.salt.as_bytes();
        let inner = Md5::new().chain_update(password).chain_update(salt).chain_update(password).finalize();
        let mut outer = Md5::new().chain_update(password).chain_update(self.magic).chain_update(salt);
        for chunk in password.chunks(inner.len()) {
            outer.update(&inner[..chunk.len()]);
        }
        // The first letter or a NUL for each bit of the length, lowest first: a slip of 1994 that became the format.
        let mut bits = password.len();
        while bits > 0 {
            outer.update(if bits & 1 == 1 { &[0] } else { &password[..1] });
            bits >>= 1;
        }

        let mut digest = outer.finalize();
        for round in 0..1000 {
            let odd = round % 2 == 1;
            let mut next = Md5::new();
            next.update(if odd { password } else { digest.as_slice() });
            if round % 3 != 0 {
                next.update(salt);
            }
            if round % 7 != 0 {
                next.update(password);
            }
            next.update(if odd { digest.as_slice() } else { password });
            digest = next.finalize();
        }
        digest.into()
    }
}

/// Like base64, but with the lowest bits first.
fn encode(digest: &[u8; 16]) -> [u8; 22] {
    let mut text = [0; 22];
    for (letters, [high, middle, low]) in text.chunks_mut(4).zip(ORDER) {
        let bits = u32::from(digest[high]) << 16 | u32::from(digest[middle]) << 8 | u32::from(digest[low]);
        write_letters(letters, bits);
    }
    write_letters(&mut text[20..], u32::from(digest[11]));
    text
}

fn write_letters(letters: &mut [u8], bits: u32) {
    for (index, letter) in letters.iter_mut().enumerate() {
        *letter = LETTERS[(bits >> (6 * index) & 63) as usize];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From `openssl passwd -apr1 -salt …` and `-1`; lengths around a block of MD5.
    #[test]
    fn agrees_with_openssl() {
        for (text, password) in [
            ("$apr1$saltsalt$a8ml/vK5HEjiZ5oypDWA7/", ""),
            ("$apr1$x$16j9.5e7KiXmuYFAYpPJM/", "a"),
            ("$1$abc$BXBqpb9BZcZhXLgbee.0s/", "password"),
            ("$apr1$12345678$/hxkpIWfcfUDOXsr8MLxB1", "sixteen letters!"),
            ("$1$12345678$sOC5lFaIwfb6rArQdCzGd0", "seventeen letters"),
            (
                "$apr1$ab./$sqeXYo4fxWAFnBnufM3Qj1",
                "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
            ),
            ("$1$zz$Q.ilnYeg0TLR1Ydb1sNY40", "pässwörd"),
        ] {
            assert!(Md5Crypt::parse(text).expect("openssl's output").verify(password.as_bytes()), "{text} {password}");
        }
    }
}
