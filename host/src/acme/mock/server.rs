//! HTTP and JWS of the mock CA: every request is checked to the letter (RFC 8555, section 6), then scripted or answered.

use std::sync::Arc;

use anyhow::anyhow;
use aws_lc_rs::hmac;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::crypto::aws_lc_rs as provider;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::book::Account;
use super::issuer::{Csr, Issuer};
use super::{Answer, Rules, Shared, Step, lock};

pub(super) async fn prepare() -> (TcpListener, Issuer, TlsAcceptor) {
    let (issuer, certificate, key) = Issuer::new();
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(provider::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions of TLS")
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .expect("a key of the certificate");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    (listener, issuer, TlsAcceptor::from(Arc::new(config)))
}

pub(super) async fn serve(listener: TcpListener, tls: TlsAcceptor, shared: Arc<Shared>) {
    while let Ok((stream, _)) = listener.accept().await {
        let (tls, shared) = (tls.clone(), Arc::clone(&shared));
        tokio::spawn(async move {
            let Ok(stream) = tls.accept(stream).await else {
                return;
            };
            let service = service_fn(|request| Arc::clone(&shared).answer(request));
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

type Answered = Response<Full<Bytes>>;

/// Who signed a request, and what it says.
struct Signed {
    account: usize,
    thumbprint: String,
    payload: Value,
}

impl Shared {
    /// An error ends the connection.
    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> anyhow::Result<Answered> {
        let (head, body) = request.into_parts();
        let body = body.collect().await?.to_bytes();
        let path: Vec<_> = head.uri.path().split('/').skip(1).collect();
        let Some(step) = step(&path) else {
            return Ok(problem(404, "malformed", "no such resource"));
        };
        let scripted = self.asked(step);
        let mut answered = match &scripted {
            Some(Answer::Drop) => return Err(anyhow!("as scripted")),
            Some(Answer::Problem { status, kind, detail, retry_after }) => {
                with_retry_after(problem(*status, kind, detail), *retry_after)
            }
            Some(Answer::Html { status, retry_after }) => {
                let page =
                    reply(*status, "text/html", "<html><body><h1>Service Unavailable</h1></body></html>".to_owned());
                with_retry_after(page, *retry_after)
            }
            Some(Answer::Garbage) => reply(200, "application/json", "{\"half\": ".to_owned()),
            _ => {
                let forced = match scripted {
                    Some(Answer::Status(status)) => Some(status),
                    _ => None,
                };
                self.handle(step, &path, &head.method, &head.headers, &body, forced)
            }
        };
        match scripted {
            Some(Answer::DropAfter) => return Err(anyhow!("as scripted")),
            Some(Answer::Slow(duration)) => tokio::time::sleep(duration).await,
            _ => {}
        }
        if head.method != Method::GET {
            let nonce = lock(&self.book).nonce();
            answered.headers_mut().insert("replay-nonce", nonce.parse()?);
        }
        Ok(answered)
    }

    fn handle(
        &self,
        step: Step,
        path: &[&str],
        method: &Method,
        headers: &HeaderMap,
        body: &[u8],
        forced: Option<&'static str>,
    ) -> Answered {
        let rules = lock(&self.rules);
        if !headers.get("user-agent").is_some_and(|agent| agent.as_bytes().starts_with(b"weir/")) {
            return problem(400, "malformed", "a client says who it is");
        }
        match (step, method) {
            (Step::Directory, &Method::GET) => return self.directory(&rules),
            (Step::RenewalInfo, &Method::GET) => return self.renewal_info(&rules),
            (Step::NewNonce, &Method::HEAD) => return reply(200, "text/plain", String::new()),
            (Step::Directory | Step::RenewalInfo | Step::NewNonce, _) => {
                return problem(405, "malformed", "which method?");
            }
            _ => {}
        }
        let signed = match self.verify(step, path, method, headers, body, &rules) {
            Ok(signed) => signed,
            Err(answered) => return *answered,
        };
        let number = path.get(1).and_then(|number| number.parse().ok()).unwrap_or_default();
        match step {
            Step::NewAccount => {
                located(201, json!({"status": "valid"}), format!("{}/account/{}", self.base, signed.account))
            }
            Step::NewOrder => self.new_order(&signed.payload, forced, &rules),
            Step::Order => {
                let document = lock(&self.book).look_at_order(number, &self.base, &rules);
                with_retry_after(json_reply(200, &document), rules.retry_after)
            }
            Step::Authorization => match lock(&self.book).look_at_authorization(number, &self.base, &rules) {
                Some(document) => with_retry_after(json_reply(200, &document), rules.retry_after),
                None => problem(404, "malformed", "no such authorization"),
            },
            Step::Challenge => {
                let kind = path.get(2).copied().unwrap_or_default();
                match lock(&self.book).try_challenge(number, kind, &signed.thumbprint, &self.base, &rules) {
                    Some(document) => json_reply(200, &document),
                    None => problem(400, "malformed", "the challenge is not pending"),
                }
            }
            Step::Finalize => self.finalize(number, &signed.payload, &rules),
            _ => self.certificate(number, path, &rules),
        }
    }

    fn directory(&self, rules: &Rules) -> Answered {
        let url = |path: &str| format!("{}/{path}", self.base);
        let profiles: serde_json::Map<_, _> =
            rules.profiles.keys().map(|name| ((*name).to_owned(), Value::from("of the mock"))).collect();
        let mut document = json!({
            "newNonce": url("nonce"), "newAccount": url("new-account"), "newOrder": url("new-order"),
            "revokeCert": url("revoke"), "keyChange": url("key-change"),
            "meta": {"termsOfService": url("terms"), "externalAccountRequired": rules.binding.is_some()},
        });
        if !profiles.is_empty() {
            document["meta"]["profiles"] = profiles.into();
        }
        if rules.renewal_window.is_some() {
            document["renewalInfo"] = url("renewal").into();
        }
        json_reply(200, &document)
    }

    fn renewal_info(&self, rules: &Rules) -> Answered {
        let Some((start, end)) = rules.renewal_window else {
            return problem(404, "malformed", "no such resource");
        };
        let now = self.clock.now();
        let window = json!({"start": (now + start).to_string(), "end": (now + end).to_string()});
        let document = json!({"suggestedWindow": window, "explanationURL": "https://ca.example/why"});
        with_retry_after(json_reply(200, &document), rules.retry_after)
    }

    fn new_order(&self, wanted: &Value, forced: Option<&'static str>, rules: &Rules) -> Answered {
        let mut book = lock(&self.book);
        if let Some(id) = wanted["replaces"].as_str()
            && !book.replace(id)
        {
            return problem(409, "alreadyReplaced", "it was replaced before");
        }
        if let Some(profile) = wanted["profile"].as_str()
            && !rules.profiles.contains_key(profile)
        {
            return problem(400, "invalidProfile", "no such profile");
        }
        let number = book.begin(wanted, forced, rules);
        let document = book.look_at_order(number, &self.base, rules);
        located(201, document, format!("{}/orders/{number}", self.base))
    }

    fn finalize(&self, number: usize, payload: &Value, rules: &Rules) -> Answered {
        let mut book = lock(&self.book);
        if book.order(number).is_none() || book.status(number) != "ready" {
            return problem(403, "orderNotReady", "it is not ready");
        }
        let csr = payload["csr"].as_str().and_then(|csr| URL_SAFE_NO_PAD.decode(csr).ok());
        let Some(csr) = csr.and_then(|csr| Csr::parse(&csr)) else {
            return problem(400, "badCSR", "it cannot be read");
        };
        let serial = book.serial();
        let Some(order) = book.order(number) else {
            return problem(404, "malformed", "no such order");
        };
        let mut names = order.ordered.names.clone();
        let sorted = |mut names: Vec<String>| {
            names.sort();
            names
        };
        if sorted(names.clone()) != sorted(csr.names.clone()) {
            return problem(400, "badCSR", "its names are not those of the order");
        }
        let validity = order.ordered.profile.as_ref().and_then(|profile| rules.profiles.get(profile.as_str()));
        let validity = validity.copied().unwrap_or(rules.validity);
        order.ordered.common_name.clone_from(&csr.common_name);
        if rules.forgets_a_name {
            names.pop();
        }
        let csr = if rules.issues_for_another_key { csr.of_another_key() } else { csr };
        let chains = self.issuer.issue(&csr, &names, serial, self.clock.now(), validity);
        book.finalized(number, chains, rules.looks);
        let document = book.look_at_order(number, &self.base, rules);
        located(200, document, format!("{}/orders/{number}", self.base))
    }

    fn certificate(&self, number: usize, path: &[&str], rules: &Rules) -> Answered {
        let chosen: usize = path.get(2).and_then(|chosen| chosen.parse().ok()).unwrap_or_default();
        let mut book = lock(&self.book);
        let chain = book.order(number).and_then(|order| order.chains.as_ref()?.get(chosen).cloned());
        let Some(chain) = chain else {
            return problem(404, "malformed", "no such certificate");
        };
        let mut answered = reply(200, "application/pem-certificate-chain", chain);
        for other in (0..=rules.alternates).filter(|other| *other != chosen) {
            let link = format!("<{}/cert/{number}/{other}>;rel=\"alternate\"", self.base);
            answered.headers_mut().append("link", link.parse().expect("a value"));
        }
        answered
    }

    /// What RFC 8555, section 6.2 to 6.5, asks of a request.
    fn verify(
        &self,
        step: Step,
        path: &[&str],
        method: &Method,
        headers: &HeaderMap,
        body: &[u8],
        rules: &Rules,
    ) -> Result<Signed, Box<Answered>> {
        let malformed = |detail: &'static str| Box::new(problem(400, "malformed", detail));
        if method != Method::POST || headers.get("content-type").is_none_or(|kind| kind != "application/jose+json") {
            return Err(malformed("it is no POST of JWS"));
        }
        let jws: Value = serde_json::from_slice(body).map_err(|_| malformed("the body is no JSON"))?;
        let text = |field: &str| jws[field].as_str().ok_or_else(|| malformed("a part of the JWS is missing"));
        let (protected, payload) = (text("protected")?, text("payload")?);
        let header = decode(protected).and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
        let header = header.ok_or_else(|| malformed("the protected header cannot be read"))?;
        if header["alg"] != "ES256" || header["url"] != format!("{}/{}", self.base, path.join("/")) {
            return Err(malformed("the algorithm or the URL is wrong"));
        }
        let mut book = lock(&self.book);
        if !book.spend(header["nonce"].as_str().unwrap_or_default()) {
            return Err(Box::new(problem(400, "badNonce", "it was not given, or used before")));
        }
        let parsed = match payload {
            "" => Value::Null,
            payload => decode(payload)
                .and_then(|bytes| serde_json::from_slice(&bytes).ok())
                .ok_or_else(|| malformed("the payload cannot be read"))?,
        };
        let signature = decode(text("signature")?).ok_or_else(|| malformed("the signature cannot be read"))?;
        let is_signed_by = |key: &[u8]| {
            let message = format!("{protected}.{payload}");
            UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, key).verify(message.as_bytes(), &signature).is_ok()
        };
        if step == Step::NewAccount {
            let account = new_account(&header["jwk"], &parsed, rules)?;
            if !is_signed_by(&account.key) {
                return Err(malformed("the signature is wrong"));
            }
            let thumbprint = account.thumbprint.clone();
            return Ok(Signed { account: book.register(account), thumbprint, payload: parsed });
        }
        let kid = header["kid"].as_str().unwrap_or_default();
        let number = kid.strip_prefix(&format!("{}/account/", self.base)).and_then(|number| number.parse().ok());
        let Some((number, account)) = number.and_then(|number| Some((number, book.account(number)?))) else {
            return Err(Box::new(problem(400, "accountDoesNotExist", "no such account")));
        };
        if !is_signed_by(&account.key) {
            return Err(malformed("the signature is wrong"));
        }
        Ok(Signed { account: number, thumbprint: account.thumbprint.clone(), payload: parsed })
    }
}

fn step(path: &[&str]) -> Option<Step> {
    Some(match *path.first()? {
        "dir" => Step::Directory,
        "nonce" => Step::NewNonce,
        "new-account" => Step::NewAccount,
        "new-order" => Step::NewOrder,
        "authz" => Step::Authorization,
        "challenge" => Step::Challenge,
        "orders" => Step::Order,
        "finalize" => Step::Finalize,
        "cert" => Step::Certificate,
        "renewal" => Step::RenewalInfo,
        _ => return None,
    })
}

fn new_account(jwk: &Value, payload: &Value, rules: &Rules) -> Result<Account, Box<Answered>> {
    let [x, y] = ["x", "y"].map(|field| jwk[field].as_str().unwrap_or_default());
    let (Some(left), Some(right)) = (decode(x), decode(y)) else {
        return Err(Box::new(problem(400, "badPublicKey", "it cannot be read")));
    };
    if payload["termsOfServiceAgreed"] != true {
        return Err(Box::new(problem(403, "userActionRequired", "agree to the terms")));
    }
    if let Some((kid, key)) = rules.binding
        && !is_bound(&payload["externalAccountBinding"], kid, key)
    {
        return Err(Box::new(problem(401, "unauthorized", "who are you?")));
    }
    let contact = payload["contact"].as_array().into_iter().flatten();
    // The members in this order, without spaces (RFC 7638, section 3).
    let canonical = format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#);
    Ok(Account {
        contact: contact.filter_map(|contact| Some(contact.as_str()?.to_owned())).collect(),
        key: [&[4][..], &left, &right].concat(),
        thumbprint: URL_SAFE_NO_PAD.encode(Sha256::digest(canonical)),
    })
}

fn is_bound(binding: &Value, kid: &str, key: &str) -> bool {
    let [protected, payload, signature] =
        ["protected", "payload", "signature"].map(|field| binding[field].as_str().unwrap_or_default());
    let header = decode(protected).and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok()).unwrap_or_default();
    let (Some(key), Some(signature)) = (decode(key), decode(signature)) else {
        return false;
    };
    let key = hmac::Key::new(hmac::HMAC_SHA256, &key);
    header["kid"] == kid && hmac::verify(&key, format!("{protected}.{payload}").as_bytes(), &signature).is_ok()
}

fn decode(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

fn problem(status: u16, kind: &str, detail: &str) -> Answered {
    let document = json!({"type": format!("urn:ietf:params:acme:error:{kind}"), "detail": detail, "status": status});
    reply(status, "application/problem+json", document.to_string())
}

fn located(status: u16, document: Value, location: String) -> Answered {
    let mut answered = json_reply(status, &document);
    answered.headers_mut().insert("location", location.parse().expect("a value"));
    answered
}

fn json_reply(status: u16, document: &Value) -> Answered {
    reply(status, "application/json", document.to_string())
}

fn with_retry_after(mut answered: Answered, retry_after: Option<&'static str>) -> Answered {
    if let Some(value) = retry_after {
        answered.headers_mut().insert("retry-after", value.parse().expect("a value"));
    }
    answered
}

fn reply(status: u16, kind: &'static str, body: String) -> Answered {
    let mut answered = Response::new(Full::new(Bytes::from(body)));
    *answered.status_mut() = StatusCode::from_u16(status).expect("a status");
    answered.headers_mut().insert("content-type", kind.parse().expect("a value"));
    answered
}
