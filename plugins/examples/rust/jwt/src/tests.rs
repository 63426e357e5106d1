use std::sync::LazyLock;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::Signer as _;
use p256::ecdsa::signature::SignatureEncoding as _;
use rsa::traits::PublicKeyParts as _;
use rsa::{RsaPrivateKey, pkcs1v15};
use serde_json::json;
use weir_sdk::testing::{Host, request};
use weir_sdk::{ErrorKind, RequestVerdict};

use super::*;

const URL: &str = "https://id.test/jwks";
/// When the host of a test says that it is.
const NOW: u64 = 1_767_323_045;

static RSA: LazyLock<RsaPrivateKey> =
    LazyLock::new(|| RsaPrivateKey::new(&mut rand::thread_rng(), 2048).expect("a key of a usual size"));

fn p256_key() -> p256::ecdsa::SigningKey {
    p256::ecdsa::SigningKey::from_slice(&[7; 32]).expect("a number in range")
}

fn ed25519_key() -> ed25519_dalek::SigningKey {
    ed25519_dalek::SigningKey::from_bytes(&[9; 32])
}

fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// One key of each kind, by its algorithm's name, and some that nobody can use.
fn jwks() -> Value {
    let point = p256_key().verifying_key().to_encoded_point(false);
    json!({"keys": [
        {"kty": "oct", "kid": "secret", "k": "AAAA"},
        {"kty": "RSA", "kid": "short", "n": "AQAB", "e": "AQAB"},
        {"kty": 5},
        {"kty": "RSA", "kid": "RS256", "use": "sig", "n": encode(RSA.n().to_bytes_be()), "e": encode(RSA.e().to_bytes_be())},
        {"kty": "RSA", "kid": "to-encrypt", "use": "enc", "n": encode(RSA.n().to_bytes_be()), "e": encode(RSA.e().to_bytes_be())},
        {"kty": "EC", "crv": "P-256", "kid": "ES256", "alg": "ES256",
            "x": encode(point.x().expect("affine")), "y": encode(point.y().expect("affine"))},
        {"kty": "OKP", "crv": "Ed25519", "kid": "EdDSA", "x": encode(ed25519_key().verifying_key())},
    ]})
}

fn good_claims() -> Value {
    json!({"iss": "https://id.test", "aud": ["other", "web"], "exp": NOW + 60, "sub": "jörg", "roles": ["a", "b"]})
}

fn signed(header: &Value, claims: &Value, with: &str) -> String {
    let text = format!("{}.{}", encode(header.to_string()), encode(claims.to_string()));
    let signature = match with {
        "RS256" => pkcs1v15::SigningKey::<rsa::sha2::Sha256>::new(RSA.clone()).sign(text.as_bytes()).to_vec(),
        "ES256" => {
            let signature: p256::ecdsa::Signature = p256_key().sign(text.as_bytes());
            signature.to_vec()
        }
        "EdDSA" => ed25519_key().sign(text.as_bytes()).to_vec(),
        _ => Vec::new(),
    };
    format!("{text}.{}", encode(signature))
}

fn token(algorithm: &str, claims: &Value) -> String {
    signed(&json!({"alg": algorithm, "kid": algorithm}), claims, algorithm)
}

fn middleware() -> Jwt {
    let config = json!({"jwksUrl": URL, "issuer": "https://id.test", "audiences": ["web"],
        "claims": [{"claim": "sub", "header": "X-User"}, {"claim": "roles", "header": "x-roles"}]});
    Jwt::new(serde_json::from_value(config).expect("options of a test")).expect("options of a test")
}

fn decide(middleware: &Jwt, authorization: &str) -> RequestVerdict {
    middleware.on_request(&request("GET", "https://a.test/", &[("authorization", authorization)])).verdict
}

/// The headers that go on, or the status of the refusal and its challenge.
fn outcome(verdict: RequestVerdict) -> Result<Vec<HeaderEdit>, (u16, String)> {
    match verdict {
        RequestVerdict::Edit(edit) => Ok(edit.headers),
        RequestVerdict::Reply(reply) => {
            let challenge = reply.headers.first().map(|(_, value)| String::from_utf8_lossy(value).into_owned());
            Err((reply.status, challenge.unwrap_or_default()))
        }
        RequestVerdict::Pass => panic!("it passes without a check"),
    }
}

fn judged(token: &str) -> Result<Vec<HeaderEdit>, (u16, String)> {
    let host = Host::new();
    host.expect("GET", URL).answer(200, jwks());
    outcome(decide(&middleware(), &format!("Bearer {token}")))
}

/// The same for a token that no key is looked for.
fn judged_without_keys(authorization: &str) -> Result<Vec<HeaderEdit>, (u16, String)> {
    let _host = Host::new();
    outcome(decide(&middleware(), authorization))
}

#[track_caller]
fn assert_refused(outcome: Result<Vec<HeaderEdit>, (u16, String)>, reason: &str) {
    let (status, challenge) = outcome.expect_err("it passes");
    assert_eq!(status, 401);
    assert!(challenge.contains(reason), "{challenge}");
}

#[test]
fn rs256_passes_with_its_claims() {
    let expected = vec![HeaderEdit::set("x-user", "jörg"), HeaderEdit::set("x-roles", "a,b")];
    assert_eq!(judged(&token("RS256", &good_claims())), Ok(expected));
}

#[test]
fn es256_passes() {
    assert!(judged(&token("ES256", &good_claims())).is_ok());
}

#[test]
fn eddsa_passes() {
    assert!(judged(&token("EdDSA", &good_claims())).is_ok());
}

#[test]
fn a_changed_token_is_refused() {
    let token = token("ES256", &good_claims());
    let (_, rest) = token.split_once('.').expect("three parts");
    let (_, signature) = rest.split_once('.').expect("three parts");
    let header = encode(json!({"alg": "ES256", "kid": "ES256"}).to_string());
    let mut claims = good_claims();
    claims["sub"] = json!("admin");
    assert_refused(judged(&format!("{header}.{}.{signature}", encode(claims.to_string()))), "signature");
}

#[test]
fn none_is_no_algorithm() {
    for alg in ["none", "None", "HS256", "rs256", ""] {
        let token = signed(&json!({"alg": alg, "kid": "RS256"}), &good_claims(), "none");
        assert_refused(judged_without_keys(&format!("Bearer {token}")), "algorithm");
    }
}

#[test]
fn a_key_is_not_used_with_another_algorithm() {
    let token = signed(&json!({"alg": "ES256", "kid": "RS256"}), &good_claims(), "ES256");
    assert_refused(judged(&token), "not known");
}

#[test]
fn a_key_for_encryption_checks_nothing() {
    let token = signed(&json!({"alg": "RS256", "kid": "to-encrypt"}), &good_claims(), "RS256");
    assert_refused(judged(&token), "not known");
}

#[test]
fn an_algorithm_that_is_not_configured_is_refused() {
    let _host = Host::new();
    let mut middleware = middleware();
    middleware.checks.algorithms = vec![Algorithm::Es256];
    let token = token("RS256", &good_claims());
    assert_refused(outcome(decide(&middleware, &format!("Bearer {token}"))), "algorithm");
}

#[test]
fn without_a_key_id_the_only_key_of_the_algorithm_is_taken() {
    assert!(judged(&signed(&json!({"alg": "EdDSA"}), &good_claims(), "EdDSA")).is_ok());
}

#[test]
fn claims_are_demanded() {
    for (name, value, reason) in [
        ("exp", json!(NOW - 60), "expired"),
        ("exp", Value::Null, "read"),
        ("nbf", json!(NOW + 61), "not valid yet"),
        ("iss", json!("https://id.test/"), "issuer"),
        ("aud", json!("other"), "audience"),
        ("aud", json!(["other", 5]), "audience"),
        ("sub", json!("a\r\nb: c"), "claims"),
    ] {
        let mut claims = good_claims();
        claims[name] = value;
        assert_refused(judged(&token("EdDSA", &claims)), reason);
    }
}

#[test]
fn clocks_may_differ_by_the_leeway() {
    for (name, value) in [("exp", json!(NOW - 59)), ("nbf", json!(NOW + 60)), ("exp", json!(NOW as f64 + 0.5))] {
        let mut claims = good_claims();
        claims[name] = value;
        assert!(judged(&token("EdDSA", &claims)).is_ok());
    }
}

#[test]
fn what_is_no_token_is_refused_without_a_request() {
    let token = token("EdDSA", &good_claims());
    for bad in
        ["", "Bearer", "Bearer ", "Basic YTpi", "Bearer a.b", "Bearer a.b.c", "Bearer ....", &token, "Bearer \u{e9}"]
    {
        assert_refused(judged_without_keys(bad), "read");
    }
    let critical = signed(&json!({"alg": "EdDSA", "crit": ["b64"]}), &good_claims(), "EdDSA");
    assert_refused(judged_without_keys(&format!("Bearer {critical}")), "read");
}

#[test]
fn without_a_token_one_is_asked_for() {
    let verdict = middleware().on_request(&request("GET", "https://a.test/", &[])).verdict;
    assert_eq!(outcome(verdict), Err((401, "Bearer".to_owned())));
}

#[test]
fn keys_are_fetched_once() {
    let host = Host::new();
    host.expect("GET", URL).answer(200, jwks());
    let bearer = format!("Bearer {}", token("ES256", &good_claims()));
    let first = middleware();
    for middleware in [&first, &first, &middleware()] {
        assert!(outcome(decide(middleware, &bearer)).is_ok());
    }
}

#[test]
fn a_new_key_is_fetched() {
    let host = Host::new();
    let mut old = jwks();
    old["keys"].as_array_mut().expect("keys").retain(|key| key["kid"] != "EdDSA");
    host.expect("GET", URL).answer(200, old);
    host.expect("GET", URL).answer(200, jwks());
    let middleware = middleware();
    assert!(outcome(decide(&middleware, &format!("Bearer {}", token("ES256", &good_claims())))).is_ok());
    assert!(outcome(decide(&middleware, &format!("Bearer {}", token("EdDSA", &good_claims())))).is_ok());
}

#[test]
fn invented_keys_make_no_more_requests_than_are_allowed() {
    let host = Host::new();
    host.expect("GET", URL).answer(200, jwks());
    host.expect("GET", URL).answer(200, jwks());
    let middleware = middleware();
    let invented = || {
        for number in 0..20 {
            let header = json!({"alg": "EdDSA", "kid": format!("invented-{number}")});
            let bearer = format!("Bearer {}", signed(&header, &good_claims(), "EdDSA"));
            assert_refused(outcome(decide(&middleware, &bearer)), "not known");
        }
    };
    invented();
    host.advance(10_000);
    host.expect("GET", URL).answer(200, jwks());
    invented();
}

#[test]
fn old_keys_are_better_than_none() {
    let host = Host::new();
    host.expect("GET", URL).answer(200, jwks());
    host.expect("GET", URL).fail(Error::new(ErrorKind::Unavailable, "reach it"));
    let middleware = middleware();
    let token = Token::of(format!("Bearer {}", token("EdDSA", &good_claims())).as_bytes()).ok().expect("a token");
    assert!(middleware.source.key(&token, NOW).expect("keys").is_some());
    assert!(middleware.source.key(&token, NOW + 301).expect("keys").is_some());
    assert_eq!(host.logged().len(), 1);
}

#[test]
fn without_keys_nothing_passes() {
    let host = Host::new();
    host.expect("GET", URL).answer(500, Value::Null);
    host.expect("GET", URL).answer(200, json!({"keys": []}));
    let bearer = format!("Bearer {}", token("EdDSA", &good_claims()));
    let middleware = middleware();
    for _ in 0..3 {
        assert_eq!(outcome(decide(&middleware, &bearer)), Err((503, "5".to_owned())));
    }
}

#[test]
fn options_that_check_nothing_are_refused() {
    for change in [
        json!({"audiences": []}),
        json!({"algorithms": []}),
        json!({"leeway": 601}),
        json!({"claims": [{"claim": "a", "header": "b c"}]}),
    ] {
        let mut config = json!({"jwksUrl": URL, "issuer": "i", "audiences": ["web"]});
        for (name, value) in change.as_object().expect("an object") {
            config[name] = value.clone();
        }
        assert!(Jwt::new(serde_json::from_value(config).expect("options of a test")).is_err(), "{change}");
    }
}
