//! The keys of a JWKS, each for one algorithm. A key is never used with another one, whatever a token says.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use p256::ecdsa::signature::Verifier;
use rsa::traits::PublicKeyParts;
use rsa::{BigUint, RsaPublicKey, pkcs1v15};
use serde::Deserialize;
use serde_json::Value;

use crate::token::Token;

/// Shorter RSA keys are not believed (RFC 7518, 3.3).
const RSA_BITS_AT_LEAST: usize = 2048;
/// A verification with a longer one takes long.
const RSA_BITS_AT_MOST: usize = 4096;

/// Signatures with a public key. Those with a secret, and `none`, are not among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Algorithm {
    #[serde(rename = "RS256")]
    Rs256,
    #[serde(rename = "ES256")]
    Es256,
    #[serde(rename = "EdDSA")]
    EdDsa,
}

/// The keys of a set that can be used; others are left out.
pub struct Keys(Vec<Key>);

#[derive(Clone)]
pub struct Key {
    id: Option<String>,
    public: Public,
}

#[derive(Clone)]
enum Public {
    Rsa(pkcs1v15::VerifyingKey<rsa::sha2::Sha256>),
    P256(p256::ecdsa::VerifyingKey),
    Ed25519(ed25519_dalek::VerifyingKey),
}

#[derive(Deserialize)]
struct Jwks {
    /// Each by itself: one of a kind that is not known must not spoil the others.
    keys: Vec<Value>,
}

#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    purpose: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

impl Algorithm {
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "RS256" => Some(Self::Rs256),
            "ES256" => Some(Self::Es256),
            "EdDSA" => Some(Self::EdDsa),
            _ => None,
        }
    }
}

impl Keys {
    /// None if it is no set of keys, or has none that can be used.
    pub fn parse(jwks: &[u8]) -> Option<Self> {
        let Jwks { keys } = serde_json::from_slice(jwks).ok()?;
        let keys: Vec<Key> =
            keys.into_iter().filter_map(|key| Key::parse(&serde_json::from_value(key).ok()?)).collect();
        (!keys.is_empty()).then_some(Self(keys))
    }

    /// The key that the token names; or, if it names none, the only one of its algorithm.
    pub fn of(&self, token: &Token) -> Option<&Key> {
        let algorithm = Algorithm::named(&token.header.alg)?;
        let mut keys = self.0.iter().filter(|key| key.algorithm() == algorithm);
        match &token.header.kid {
            Some(id) => keys.find(|key| key.id.as_ref() == Some(id)),
            None => keys.next().filter(|_| keys.next().is_none()),
        }
    }
}

impl Key {
    fn parse(jwk: &Jwk) -> Option<Self> {
        if jwk.purpose.as_ref().is_some_and(|purpose| purpose != "sig") {
            return None;
        }
        let public = match (jwk.kty.as_str(), jwk.crv.as_deref()) {
            ("RSA", _) => rsa(&decode(jwk.n.as_ref())?, &decode(jwk.e.as_ref())?)?,
            ("EC", Some("P-256")) => p256(&decode(jwk.x.as_ref())?, &decode(jwk.y.as_ref())?)?,
            ("OKP", Some("Ed25519")) => ed25519(&decode(jwk.x.as_ref())?)?,
            _ => return None,
        };
        let key = Self { id: jwk.kid.clone(), public };
        let says_so = jwk.alg.as_ref().is_none_or(|alg| Algorithm::named(alg) == Some(key.algorithm()));
        says_so.then_some(key)
    }

    const fn algorithm(&self) -> Algorithm {
        match self.public {
            Public::Rsa(_) => Algorithm::Rs256,
            Public::P256(_) => Algorithm::Es256,
            Public::Ed25519(_) => Algorithm::EdDsa,
        }
    }

    pub fn has_signed(&self, token: &Token) -> bool {
        let Token { signed, signature, .. } = token;
        match &self.public {
            Public::Rsa(key) => {
                pkcs1v15::Signature::try_from(signature.as_slice()).is_ok_and(|s| key.verify(signed, &s).is_ok())
            }
            Public::P256(key) => {
                p256::ecdsa::Signature::from_slice(signature).is_ok_and(|s| key.verify(signed, &s).is_ok())
            }
            Public::Ed25519(key) => {
                ed25519_dalek::Signature::from_slice(signature).is_ok_and(|s| key.verify_strict(signed, &s).is_ok())
            }
        }
    }
}

fn rsa(modulus: &[u8], exponent: &[u8]) -> Option<Public> {
    let key = RsaPublicKey::new(BigUint::from_bytes_be(modulus), BigUint::from_bytes_be(exponent)).ok()?;
    let bits = key.n().bits();
    (RSA_BITS_AT_LEAST..=RSA_BITS_AT_MOST).contains(&bits).then(|| Public::Rsa(pkcs1v15::VerifyingKey::new(key)))
}

fn p256(x: &[u8], y: &[u8]) -> Option<Public> {
    let (x, y): (&[u8; 32], &[u8; 32]) = (x.try_into().ok()?, y.try_into().ok()?);
    let point = p256::EncodedPoint::from_affine_coordinates(x.into(), y.into(), false);
    p256::ecdsa::VerifyingKey::from_encoded_point(&point).ok().map(Public::P256)
}

fn ed25519(x: &[u8]) -> Option<Public> {
    ed25519_dalek::VerifyingKey::from_bytes(x.try_into().ok()?).ok().map(Public::Ed25519)
}

fn decode(text: Option<&String>) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text?).ok()
}
