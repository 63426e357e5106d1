//! A token in its parts, and what has to be true of it. Nothing in here is believed before `keys` has checked the signature.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::keys::Algorithm;

/// No sensible token is longer, and what is longer is not looked at.
const BYTES_AT_MOST: usize = 16 << 10;

/// A token whose parts can be read; valid or not.
pub struct Token {
    pub header: Header,
    /// What is signed: the first two parts as they are written.
    pub signed: Vec<u8>,
    pub signature: Vec<u8>,
    claims: Map<String, Value>,
}

#[derive(Deserialize)]
pub struct Header {
    pub alg: String,
    pub kid: Option<String>,
    /// Extensions that must be understood; there are none that are.
    crit: Option<Value>,
}

/// What is demanded of tokens.
pub struct Checks {
    pub issuer: String,
    pub audiences: Vec<String>,
    pub algorithms: Vec<Algorithm>,
    pub leeway: u64,
}

/// Why a token is not good enough. The client sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    Malformed,
    Algorithm,
    UnknownKey,
    Signature,
    Expired,
    NotYet,
    Issuer,
    Audience,
    Claim,
}

impl Token {
    /// Of the value of `Authorization`.
    pub fn of(authorization: &[u8]) -> Result<Self, Refusal> {
        let text = std::str::from_utf8(authorization).map_err(|_| Refusal::Malformed)?;
        let (scheme, token) = text.split_once(' ').ok_or(Refusal::Malformed)?;
        if !scheme.eq_ignore_ascii_case("bearer") || token.len() > BYTES_AT_MOST {
            return Err(Refusal::Malformed);
        }
        let token = token.trim_matches(' ');
        let (signed, signature) = token.rsplit_once('.').ok_or(Refusal::Malformed)?;
        let (header, claims) = signed.split_once('.').ok_or(Refusal::Malformed)?;
        let header: Header = json(header)?;
        if header.crit.is_some() {
            return Err(Refusal::Malformed);
        }
        Ok(Self { header, claims: json(claims)?, signature: decode(signature)?, signed: signed.as_bytes().to_vec() })
    }
}

impl Checks {
    /// What the header says is compared with what is allowed, before anything is made of it.
    pub fn algorithm(&self, token: &Token) -> Result<(), Refusal> {
        let algorithm = Algorithm::named(&token.header.alg).ok_or(Refusal::Algorithm)?;
        if self.algorithms.contains(&algorithm) { Ok(()) } else { Err(Refusal::Algorithm) }
    }

    /// The claims, if they are good at this time.
    pub fn claims<'a>(&self, token: &'a Token, now: u64) -> Result<&'a Map<String, Value>, Refusal> {
        let claims = &token.claims;
        let seconds = |name: &str| claims.get(name).map(|value| value.as_f64().ok_or(Refusal::Malformed)).transpose();
        let (now, leeway) = (now as f64, self.leeway as f64);
        let expires = seconds("exp")?.ok_or(Refusal::Expired)?;
        if now >= expires + leeway {
            return Err(Refusal::Expired);
        }
        if seconds("nbf")?.is_some_and(|begins| now < begins - leeway) {
            return Err(Refusal::NotYet);
        }
        if claims.get("iss").and_then(Value::as_str) != Some(&self.issuer) {
            return Err(Refusal::Issuer);
        }
        let wanted = |audience: &Value| audience.as_str().is_some_and(|name| self.audiences.iter().any(|a| a == name));
        let is_for_us = match claims.get("aud") {
            Some(Value::Array(audiences)) => audiences.iter().any(wanted),
            Some(audience) => wanted(audience),
            None => false,
        };
        if is_for_us { Ok(claims) } else { Err(Refusal::Audience) }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Malformed => "it is no token that can be read",
            Self::Algorithm => "its algorithm is not allowed",
            Self::UnknownKey => "its key is not known",
            Self::Signature => "its signature is not right",
            Self::Expired => "it has expired",
            Self::NotYet => "it is not valid yet",
            Self::Issuer => "it is of another issuer",
            Self::Audience => "it is for another audience",
            Self::Claim => "one of its claims is no header",
        })
    }
}

fn json<T: for<'de> Deserialize<'de>>(part: &str) -> Result<T, Refusal> {
    serde_json::from_slice(&decode(part)?).map_err(|_| Refusal::Malformed)
}

fn decode(part: &str) -> Result<Vec<u8>, Refusal> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| Refusal::Malformed)
}
