//! Messages that are signed with a shared key (RFC 8945). The format is hickory's, the HMAC is not: hickory computes none
//! with SHA-1, which is lego's default, nor with SHA-224.

use std::fmt;

use anyhow::{Context, anyhow, bail};
use aws_lc_rs::hmac;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hickory_proto::op::Message;
use hickory_proto::rr::Name;
use hickory_proto::rr::rdata::TSIG;
use hickory_proto::rr::rdata::tsig::{TsigAlgorithm, make_tsig_record, message_tbs, signed_bitmessage_to_buf};
use jiff::Timestamp;

use super::exchange::Reply;

/// By how many seconds clocks may differ, as RFC 8945 recommends.
const FUDGE: u16 = 300;

pub(super) struct Key {
    name: Name,
    algorithm: TsigAlgorithm,
    secret: hmac::Key,
}

/// What a reply must be signed for.
pub(super) struct Signed(Vec<u8>);

impl Key {
    /// From a name, the name of an algorithm such as `hmac-sha256`, and a secret in base64.
    pub(super) fn new(name: &str, algorithm: &str, secret: &str) -> anyhow::Result<Self> {
        let (algorithm, digest) = algorithm_named(algorithm)?;
        // Its error would quote the secret.
        let secret = BASE64_STANDARD.decode(secret.trim()).map_err(|_| anyhow!("the secret is not base64"))?;
        let mut name = Name::from_str_relaxed(name).with_context(|| format!("`{name}` is no name of a key"))?;
        name.set_fqdn(true);
        Ok(Self { name: name.to_lowercase(), algorithm, secret: hmac::Key::new(digest, &secret) })
    }

    pub(super) fn sign(&self, message: &mut Message, now: Timestamp) -> anyhow::Result<Signed> {
        let time = u64::try_from(now.as_second()).context("failed to sign: the time is before 1970")?;
        let unsigned =
            TSIG::new(self.algorithm.clone(), time, FUDGE, Vec::new(), message.metadata.id, None, Vec::new());
        let mac = hmac::sign(&self.secret, &message_tbs(message, &unsigned, &self.name)?).as_ref().to_vec();
        message.set_signature(Box::new(make_tsig_record(self.name.clone(), unsigned.set_mac(mac.clone()))));
        Ok(Signed(mac))
    }

    /// Whether it is the holder of the key who replies, now, and to what was signed (RFC 8945, section 5.4).
    pub(super) fn verify(&self, reply: &Reply, signed: &Signed, now: Timestamp) -> anyhow::Result<()> {
        let (covered, record) = signed_bitmessage_to_buf(&reply.bytes, Some(&signed.0), true)?;
        let signature = &record.data;
        if record.name != self.name || signature.algorithm != self.algorithm {
            bail!("it is signed with another key");
        }
        // A shortened one does not verify: nobody has to send them.
        hmac::verify(&self.secret, &covered, &signature.mac).map_err(|_| anyhow!("its signature is wrong"))?;
        if signature.time.abs_diff(u64::try_from(now.as_second()).unwrap_or(0)) > u64::from(signature.fudge) {
            bail!("it was signed at another time: do the clocks differ?");
        }
        Ok(())
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").field("name", &self.name).field("algorithm", &self.algorithm).finish_non_exhaustive()
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.name)
    }
}

fn algorithm_named(name: &str) -> anyhow::Result<(TsigAlgorithm, hmac::Algorithm)> {
    Ok(match name.trim_end_matches('.').to_ascii_lowercase().as_str() {
        "hmac-sha1" => (TsigAlgorithm::HmacSha1, hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY),
        "hmac-sha224" => (TsigAlgorithm::HmacSha224, hmac::HMAC_SHA224),
        "hmac-sha256" => (TsigAlgorithm::HmacSha256, hmac::HMAC_SHA256),
        "hmac-sha384" => (TsigAlgorithm::HmacSha384, hmac::HMAC_SHA384),
        "hmac-sha512" => (TsigAlgorithm::HmacSha512, hmac::HMAC_SHA512),
        _ => bail!("`{name}` is not one of hmac-sha1, hmac-sha224, hmac-sha256, hmac-sha384 and hmac-sha512"),
    })
}

#[cfg(test)]
mod tests {
    use hickory_proto::op::OpCode;
    use hickory_proto::rr::TSigner;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    fn signed(key: &Key, second: i64) -> (Message, Signed) {
        let mut message = Message::query();
        message.metadata.op_code = OpCode::Update;
        let signed = key.sign(&mut message, at(second)).expect("signed");
        (message, signed)
    }

    #[test]
    fn hickory_accepts_what_is_signed() {
        let key = Key::new("Key.Example", "HMAC-SHA256.", "c2VjcmV0").expect("a key");
        let (message, _) = signed(&key, 1_700_000_000);
        let name = Name::from_ascii("key.example.").expect("a name");
        let hickory = TSigner::new(b"secret".to_vec(), TsigAlgorithm::HmacSha256, name, 300).expect("a signer");
        let bytes = message.to_vec().expect("bytes");
        let (_, time, _) = hickory.verify_message_byte(&bytes, None, true).expect("a good signature");
        assert_eq!(time, 1_700_000_000);
    }

    #[test]
    fn a_reply_is_verified_for_its_request_key_and_time() {
        for algorithm in ["hmac-sha1", "hmac-sha224", "hmac-sha256", "hmac-sha384", "hmac-sha512"] {
            let key = Key::new("key.", algorithm, "c2VjcmV0").expect("a key");
            let (_, asked) = signed(&key, 1_000_000);
            let reply = reply(&key, &asked, 1_000_100);
            key.verify(&reply, &asked, at(1_000_000)).expect(algorithm);
            key.verify(&reply, &asked, at(1_000_401)).expect_err("too late");
            let (_, other) = signed(&key, 1_000_001);
            key.verify(&reply, &other, at(1_000_000)).expect_err("another request");
            let other = Key::new("key.", algorithm, "b3RoZXI=").expect("a key");
            other.verify(&reply, &asked, at(1_000_000)).expect_err("another secret");
            let other = Key::new("other.", algorithm, "c2VjcmV0").expect("a key");
            other.verify(&reply, &asked, at(1_000_000)).expect_err("another name");
            let mut bytes = reply.bytes.clone();
            bytes[2] ^= 1;
            let reply = Reply { message: reply.message, bytes };
            key.verify(&reply, &asked, at(1_000_000)).expect_err("another message");
        }
    }

    /// As a server signs it: over the signature of the request as well (RFC 8945, section 5.3).
    fn reply(key: &Key, asked: &Signed, second: u64) -> Reply {
        let mut message = Message::query().into_response();
        let unsigned = TSIG::new(key.algorithm.clone(), second, 300, Vec::new(), message.metadata.id, None, Vec::new());
        let length = u16::try_from(asked.0.len()).expect("short").to_be_bytes();
        let covered = [&length[..], &asked.0, &message_tbs(&message, &unsigned, &key.name).expect("bytes")].concat();
        let mac = hmac::sign(&key.secret, &covered).as_ref().to_vec();
        message.set_signature(Box::new(make_tsig_record(key.name.clone(), unsigned.set_mac(mac))));
        let bytes = message.to_vec().expect("bytes");
        Reply { message, bytes }
    }

    #[test]
    fn a_secret_is_nowhere_to_be_read() {
        let key = Key::new("key.", "hmac-sha256", "c2VjcmV0").expect("a key");
        assert!(!format!("{key:?}").contains("c2VjcmV0"));
        let error = Key::new("key.", "hmac-sha256", "s3cret!").expect_err("not base64");
        assert!(!format!("{error:?}").contains("s3cret"));
    }
}
