//! `jwt`: lets requests pass that have a valid JSON Web Token (RFC 7519) in `Authorization: Bearer`, signed with a key of a
//! JWKS (RFC 7517) that it fetches and caches. Claims go on as headers.
//!
//! [`token`] judges a token, [`keys`] a set of keys, [`source`] knows where keys are now.

mod keys;
mod source;
mod token;

use serde::Deserialize;
use serde_json::Value;
use weir_sdk::{About, Decision, Error, HeaderEdit, Middleware, Plan, Reply, Request, RequestEdit, clock, header};

use crate::keys::Algorithm;
use crate::source::{Source, Unavailable};
use crate::token::{Checks, Refusal, Token};

/// One configured check.
pub struct Jwt {
    source: Source,
    checks: Checks,
    /// Claim, and the header that it becomes.
    claims: Vec<(String, String)>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Config {
    jwks_url: String,
    issuer: String,
    audiences: Vec<String>,
    #[serde(default = "all_algorithms")]
    algorithms: Vec<Algorithm>,
    #[serde(default = "a_minute")]
    leeway: u64,
    #[serde(default = "five_minutes")]
    refresh: u64,
    #[serde(default)]
    claims: Vec<Claim>,
}

#[derive(Deserialize)]
struct Claim {
    claim: String,
    header: String,
}

impl Middleware for Jwt {
    type Config = Config;

    const ABOUT: About =
        weir_sdk::about!("jwt").config_schema(include_str!("../config.schema.json")).urls(&["/jwksUrl"]).guards();

    fn init(config: Config) -> Result<(Self, Plan), Error> {
        let middleware = Self::new(config)?;
        // What a client says of itself in these headers would be believed by the server.
        let remove = |plan: Plan, (_, header): &(String, String)| plan.edit_request(HeaderEdit::remove(header));
        let plan = middleware.claims.iter().fold(Plan::new().on_request(&["authorization"]), remove);
        Ok((middleware, plan))
    }

    fn on_request(&self, request: &Request<'_>) -> Decision {
        let Some(authorization) = request.header("authorization") else {
            return refused("Bearer".to_owned());
        };
        match self.check(&authorization, clock::unix_ms() / 1000) {
            Ok(edit) => edit.into(),
            Err(Problem::Refused(refusal)) => {
                refused(format!(r#"Bearer error="invalid_token", error_description="{refusal}""#))
            }
            Err(Problem::Unavailable) => {
                Reply::new(503).header("retry-after", "5").body("no keys to check with").into()
            }
        }
    }
}

weir_sdk::export!(Jwt);

enum Problem {
    Refused(Refusal),
    Unavailable,
}

impl Jwt {
    fn new(config: Config) -> Result<Self, Error> {
        let Config { jwks_url, issuer, audiences, algorithms, leeway, refresh, claims } = config;
        if audiences.is_empty() || algorithms.is_empty() {
            return Err(Error::invalid_config("check a token without `audiences` or `algorithms`: name one of each"));
        }
        if leeway > 600 {
            return Err(Error::invalid_config(format!("use a `leeway` of {leeway} seconds: write at most 600")));
        }
        let claims = claims.into_iter().map(|Claim { claim, header }| Ok((claim, header::name(&header)?)));
        Ok(Self {
            source: Source::new(jwks_url, refresh.clamp(30, 86_400)),
            checks: Checks { issuer, audiences, algorithms, leeway },
            claims: claims.collect::<Result<_, Error>>()?,
        })
    }

    /// The edit with the token's claims, if it is valid now.
    fn check(&self, authorization: &[u8], now: u64) -> Result<RequestEdit, Problem> {
        let token = Token::of(authorization).map_err(Problem::Refused)?;
        self.checks.algorithm(&token).map_err(Problem::Refused)?;
        let key = self.source.key(&token, now).map_err(|Unavailable| Problem::Unavailable)?;
        let key = key.ok_or(Problem::Refused(Refusal::UnknownKey))?;
        if !key.has_signed(&token) {
            return Err(Problem::Refused(Refusal::Signature));
        }
        let claims = self.checks.claims(&token, now).map_err(Problem::Refused)?;
        let mut edit = RequestEdit::new();
        for (claim, name) in &self.claims {
            let Some(text) = claims.get(claim).and_then(text) else {
                continue;
            };
            // One that is no header is none that a server has to believe.
            let value = header::value(name, &text).map_err(|_| Problem::Refused(Refusal::Claim))?;
            edit = edit.set(name, value);
        }
        Ok(edit)
    }
}

fn refused(challenge: String) -> Decision {
    Reply::new(401).header("www-authenticate", challenge).body("Unauthorized").into()
}

/// A claim as a header has it; lists with commas.
fn text(claim: &Value) -> Option<String> {
    match claim {
        Value::String(text) => Some(text.clone()),
        Value::Number(_) | Value::Bool(_) => Some(claim.to_string()),
        Value::Array(items) => items.iter().map(text).collect::<Option<Vec<_>>>().map(|texts| texts.join(",")),
        Value::Null | Value::Object(_) => None,
    }
}

fn all_algorithms() -> Vec<Algorithm> {
    vec![Algorithm::Rs256, Algorithm::Es256, Algorithm::EdDsa]
}

const fn a_minute() -> u64 {
    60
}

const fn five_minutes() -> u64 {
    300
}

#[cfg(test)]
mod tests;
