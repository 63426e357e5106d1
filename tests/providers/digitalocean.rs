//! The built-in `digitalocean` against an API that answers as DigitalOcean documents its own: domain records at
//! <https://docs.digitalocean.com/reference/api/digitalocean/>.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::{Response, StatusCode};
use serde_json::{Value, json};
use weir::plugin::{Compiled, ErrorKind, Plugins, Provider, Wanted};

use super::{challenge, host, variables};
use crate::support::backend::{Backend, Seen};
use crate::support::{Body, full};

const TOKEN: &str = "dop_v1_canary";
const RECORDS: &str = "/v2/domains/example.com/records";

#[tokio::test]
async fn adds_one_record_and_deletes_it() {
    let api =
        Api::start(&[record(1, "_acme-challenge.www", "of another order"), record(2, "www", "v=spf1 -all")]).await;
    let provider = api.provider(&[]).await;
    assert_eq!(provider.timing().polling_interval, Duration::from_secs(5));

    let handle = provider.present(&challenge()).await.expect("a record");
    let added = json!({
        "type": "TXT", "name": "_acme-challenge.www.example.com.", "data": challenge().value, "ttl": 30,
    });
    let request = api.backend.last();
    assert_eq!((request.method.as_str(), request.target.as_str()), ("POST", RECORDS));
    assert_eq!(request.header("authorization"), format!("Bearer {TOKEN}"));
    assert_eq!(request.header("content-type"), "application/json");
    assert_eq!(serde_json::from_slice::<Value>(&request.body).expect("JSON"), added);
    assert_eq!(api.numbers(), [1, 2, 3]);

    provider.cleanup(&challenge(), &handle).await.expect("the record is deleted");
    assert_eq!(api.backend.last().target, format!("{RECORDS}/3"));
    assert_eq!(api.numbers(), [1, 2], "others stay");
    provider.cleanup(&challenge(), &handle).await.expect("it is gone already");
}

#[tokio::test]
async fn the_ttl_can_be_set() {
    let api = Api::start(&[]).await;
    let provider = api.provider(&[("DO_TTL", "600"), ("DO_POLLING_INTERVAL", "7")]).await;
    assert_eq!(provider.timing().polling_interval, Duration::from_secs(7));
    provider.present(&challenge()).await.expect("a record");
    let body: Value = serde_json::from_slice(&api.backend.last().body).expect("JSON");
    assert_eq!(body["ttl"], 600);
}

#[tokio::test]
async fn a_record_that_exists_is_taken() {
    let api = Api::start(&[record(7, "_acme-challenge.www", &challenge().value)]).await;
    let provider = api.provider(&[]).await;
    let handle = provider.present(&challenge()).await.expect("the record");
    assert_eq!((handle.as_str(), api.numbers()), ("7", vec![7]));
}

#[tokio::test]
async fn what_a_crash_left_is_found_without_a_handle() {
    let value = challenge().value;
    let api =
        Api::start(&[record(7, "_acme-challenge.www", "another"), record(8, "_acme-challenge.www", &value)]).await;
    let provider = api.provider(&[]).await;
    provider.cleanup(&challenge(), "").await.expect("it is deleted");
    assert_eq!(api.numbers(), [7]);
    provider.cleanup(&challenge(), "").await.expect("it is gone already");
}

#[tokio::test]
async fn refusals_are_told_apart() {
    for (status, headers, body, kind, words) in [
        (
            401,
            &[][..],
            r#"{"id": "Unauthorized", "message": "Unable to authenticate you"}"#,
            ErrorKind::Unauthorized,
            { &["status 401", "Unable to authenticate you", "DO_AUTH_TOKEN"][..] },
        ),
        (
            404,
            &[],
            r#"{"id": "not_found", "message": "The resource you were accessing could not be found."}"#,
            { ErrorKind::NotFound },
            &["is `example.com` a zone of this account?"],
        ),
        (
            429,
            &[("retry-after", "3600")],
            r#"{"id": "too_many_requests", "message": "API rate limit exceeded."}"#,
            { ErrorKind::RateLimited },
            &["status 429"],
        ),
        (422, &[], r#"{"id": "unprocessable_entity", "message": "Data can't be blank"}"#, ErrorKind::InvalidConfig, {
            &["status 422", "Data can't be blank"]
        }),
    ] {
        let api = Api::start(&[]).await;
        api.answers(status, headers, body);
        let error = api.provider(&[]).await.present(&challenge()).await.expect_err("it is refused");
        assert_eq!(error.kind, kind, "{error}");
        assert_eq!(error.retry_after, (status == 429).then_some(Duration::from_secs(3600)));
        assert!(error.message.starts_with("digitalocean: "), "{error}");
        for word in words {
            assert!(error.message.contains(word), "{word} in {error}");
        }
        assert!(!error.message.contains("canary"), "{error}");
    }
}

#[tokio::test]
async fn a_failure_that_passes_is_no_failure() {
    let api = Api::start(&[]).await;
    api.answers(500, &[], r#"{"id": "server_error", "message": "Unexpected server-side error"}"#);
    api.provider(&[]).await.present(&challenge()).await.expect("a record");
    assert_eq!(api.numbers(), [1]);
}

#[tokio::test]
async fn an_api_that_does_not_answer_costs_the_time_of_a_call() {
    let silent = Backend::start(|_| std::future::pending()).await;
    let provider = provider(&silent.url(), &[("DO_HTTP_TIMEOUT", "1")]).await.time_limit(Duration::from_millis(1500));
    let error = provider.present(&challenge()).await.expect_err("no answer");
    assert_eq!(error.kind, ErrorKind::Timeout, "{error}");
}

#[tokio::test]
async fn what_is_no_api_is_an_error_in_words() {
    for body in ["", "<html>captive portal</html>", "[]", r#"{"domain_records": 1}"#] {
        let api = Api::start(&[]).await;
        api.answers(200, &[], body);
        let error = api.provider(&[]).await.present(&challenge()).await.expect_err(body);
        assert_eq!(error.kind, ErrorKind::Internal, "{error}");
        assert!(error.message.contains("read the answer to GET $DO_API_URL"), "{error}");
    }
}

#[tokio::test]
async fn a_missing_token_is_said_in_legos_words() {
    let error = host().await.provider(&plugin().await, variables(&[])).await.expect_err("there is no token");
    assert_eq!(error.to_string(), "digitalocean: some credentials information are missing: DO_AUTH_TOKEN");
}

/// The part of the API that is about records of `example.com`.
struct Api {
    backend: Backend,
    state: Arc<Mutex<State>>,
}

/// Status, header fields and body.
type Scripted = (u16, Vec<(&'static str, &'static str)>, String);

#[derive(Default)]
struct State {
    records: BTreeMap<u64, Value>,
    /// In place of the next answers.
    scripted: VecDeque<Scripted>,
}

impl Api {
    async fn start(records: &[Value]) -> Self {
        let id = |record: &Value| record["id"].as_u64().expect("a number");
        let records = records.iter().map(|record| (id(record), record.clone())).collect();
        let state = Arc::new(Mutex::new(State { records, ..State::default() }));
        let shared = Arc::clone(&state);
        let backend = Backend::start(move |seen| {
            std::future::ready(shared.lock().unwrap_or_else(PoisonError::into_inner).answer(&seen))
        });
        Self { backend: backend.await, state }
    }

    async fn provider(&self, more: &[(&str, &str)]) -> Provider {
        provider(&self.backend.url(), more).await
    }

    fn answers(&self, status: u16, headers: &[(&'static str, &'static str)], body: &str) {
        self.state().scripted.push_back((status, headers.to_vec(), body.to_owned()));
    }

    /// Of the records that there are.
    fn numbers(&self) -> Vec<u64> {
        self.state().records.keys().copied().collect()
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn answer(&mut self, request: &Seen) -> Response<Body> {
        if let Some((status, headers, body)) = self.scripted.pop_front() {
            let mut response = Response::new(full(body));
            *response.status_mut() = StatusCode::from_u16(status).expect("a status");
            for (name, value) in headers {
                response.headers_mut().insert(name, value.parse().expect("a value"));
            }
            return response;
        }
        if request.header("authorization") != format!("Bearer {TOKEN}") {
            return answer(401, &json!({"id": "Unauthorized", "message": "Unable to authenticate you"}));
        }
        let (path, query) = request.target.split_once('?').unwrap_or((&request.target, ""));
        let Some(below) = path.strip_prefix(RECORDS) else {
            return not_found();
        };
        match (request.method.as_str(), below.strip_prefix('/').and_then(|id| id.parse::<u64>().ok())) {
            ("GET", None) => self.list(query),
            ("POST", None) => self.create(&request.body),
            ("DELETE", Some(id)) if self.records.remove(&id).is_some() => {
                let mut response = Response::new(full(""));
                *response.status_mut() = StatusCode::NO_CONTENT;
                response
            }
            _ => not_found(),
        }
    }

    /// By type, and by the whole name without the final dot.
    fn list(&self, query: &str) -> Response<Body> {
        let parameters: BTreeSet<&str> = query.split('&').collect();
        let is_asked_for = |record: &&Value| {
            let text = |key: &str| record[key].as_str().expect("a text");
            let (kind, name) = (format!("type={}", text("type")), format!("name={}.example.com", text("name")));
            parameters.contains(kind.as_str()) && parameters.contains(name.as_str())
        };
        let found: Vec<&Value> = self.records.values().filter(is_asked_for).collect();
        answer(200, &json!({"domain_records": found, "links": {}, "meta": {"total": found.len()}}))
    }

    fn create(&mut self, body: &[u8]) -> Response<Body> {
        let asked: Value = serde_json::from_slice(body).unwrap_or_default();
        let name = asked["name"].as_str().and_then(|name| name.strip_suffix(".example.com."));
        let (Some("TXT"), Some(name), Some(data)) = (asked["type"].as_str(), name, asked["data"].as_str()) else {
            return answer(422, &json!({"id": "unprocessable_entity", "message": "Name or data cannot be used"}));
        };
        let id = self.records.keys().next_back().map_or(1, |last| last + 1);
        let created = record(id, name, data);
        self.records.insert(id, created.clone());
        answer(201, &json!({"domain_record": created}))
    }
}

fn record(id: u64, name: &str, data: &str) -> Value {
    json!({
        "id": id, "type": "TXT", "name": name, "data": data, "priority": null, "port": null, "ttl": 1800, "weight": null,
        "flags": null, "tag": null,
    })
}

fn not_found() -> Response<Body> {
    answer(404, &json!({"id": "not_found", "message": "The resource you were accessing could not be found."}))
}

fn answer(status: u16, value: &Value) -> Response<Body> {
    let mut response = Response::new(full(value.to_string()));
    *response.status_mut() = StatusCode::from_u16(status).expect("a status");
    response.headers_mut().insert("content-type", "application/json".parse().expect("a value"));
    response
}

async fn provider(address: &str, more: &[(&str, &str)]) -> Provider {
    let environment = [&[("DO_AUTH_TOKEN", TOKEN), ("DO_API_URL", address)], more].concat();
    let provider = host().await.provider(&plugin().await, variables(&environment)).await;
    provider.expect("its variables are there")
}

/// As a start finds it that wants nothing else.
async fn plugin() -> Arc<weir::plugin::Plugin> {
    let wanted = Wanted::Named(BTreeSet::from(["digitalocean".to_owned()]));
    let plugins =
        Plugins::scan(&host().await, Path::new("/missing"), &wanted, Compiled::All, &Plugins::default()).await;
    let compiled = plugins.iter().filter(|entry| entry.plugin.is_some()).count();
    assert_eq!(compiled, 1, "what is not wanted is not compiled");
    let entry = plugins.find("digitalocean").expect("it is built in");
    Arc::clone(entry.plugin.as_ref().expect("it can be loaded"))
}
