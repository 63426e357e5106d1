//! DigitalOcean's API for domain records, as documented at <https://docs.digitalocean.com/reference/api/>, in front of a
//! name server of the tests.

use std::sync::{Arc, Mutex, PoisonError};

use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::dns::DnsServer;
use super::{Body, full};

pub(crate) const TOKEN: &str = "dop_v1_canary";

/// Listens until it is dropped.
pub(crate) struct DigitalOcean {
    pub(crate) url: String,
    account: Arc<Account>,
    accepting: JoinHandle<()>,
}

struct Account {
    domain: String,
    dns: Arc<DnsServer>,
    /// Identifier, name below the domain, value.
    records: Mutex<Vec<(u64, String, String)>>,
    /// Method and path of every request, with its status.
    asked: Mutex<Vec<String>>,
}

impl DigitalOcean {
    /// With one domain, which the name server has as a zone.
    pub(crate) async fn start(domain: &str, dns: Arc<DnsServer>) -> Self {
        let account =
            Arc::new(Account { domain: domain.to_owned(), dns, records: Mutex::default(), asked: Mutex::default() });
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let of_server = Arc::clone(&account);
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let account = Arc::clone(&of_server);
                let service = service_fn(move |request| Arc::clone(&account).answer(request));
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        Self { url, account, accepting }
    }

    /// `POST /v2/domains/… 201`, in the order in which they came.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.account.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn records(&self) -> usize {
        self.account.records.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

impl Drop for DigitalOcean {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Account {
    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Result<Response<Body>, hyper::Error> {
        let (head, body) = request.into_parts();
        let body = body.collect().await?.to_bytes();
        let authorized = head.headers.get("authorization").is_some_and(|value| value == &format!("Bearer {TOKEN}"));
        let (status, answer) = if authorized {
            self.act(&head.method, head.uri.path(), head.uri.query(), &body)
        } else {
            let error = json!({ "id": "unauthorized", "message": "Unable to authenticate you" });
            (StatusCode::UNAUTHORIZED, error)
        };
        let line = format!("{} {} {}", head.method, head.uri.path(), status.as_u16());
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).push(line);
        let text = if answer.is_null() { String::new() } else { answer.to_string() };
        let mut response = Response::new(full(text));
        *response.status_mut() = status;
        Ok(response)
    }

    fn act(&self, method: &Method, path: &str, query: Option<&str>, body: &[u8]) -> (StatusCode, Value) {
        let missing = json!({ "id": "not_found", "message": "The resource you were accessing could not be found." });
        let all = format!("/v2/domains/{}/records", self.domain);
        let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(below) = path.strip_prefix(&all) else {
            return (StatusCode::NOT_FOUND, missing);
        };
        match (method, below.trim_start_matches('/')) {
            (&Method::POST, "") => {
                let Ok(record) = serde_json::from_slice::<Value>(body) else {
                    return (StatusCode::BAD_REQUEST, json!({ "id": "bad_request", "message": "no JSON" }));
                };
                let text = |key: &str| record[key].as_str().unwrap_or_default().to_owned();
                assert_eq!(text("type"), "TXT");
                let (name, data) = (text("name"), text("data"));
                let id = records.last().map_or(1000, |(id, ..)| id + 1);
                self.dns.add_txt(&name, &data);
                records.push((id, name.clone(), data.clone()));
                (
                    StatusCode::CREATED,
                    json!({ "domain_record": { "id": id, "type": "TXT", "name": name, "data": data } }),
                )
            }
            (&Method::GET, "") => {
                let wanted = query.and_then(|query| query.split('&').find_map(|pair| pair.strip_prefix("name=")));
                let matching = records
                    .iter()
                    .filter(|(_, name, _)| wanted.is_none_or(|wanted| name.trim_end_matches('.') == wanted));
                let list: Vec<Value> = matching
                    .map(|(id, name, data)| json!({ "id": id, "type": "TXT", "name": name.trim_end_matches('.').trim_end_matches(&format!(".{}", self.domain)), "data": data }))
                    .collect();
                (StatusCode::OK, json!({ "meta": { "total": list.len() }, "domain_records": list, "links": {} }))
            }
            (&Method::DELETE, id) => match records.iter().position(|(known, ..)| known.to_string() == id) {
                Some(position) => {
                    let (_, name, data) = records.remove(position);
                    self.dns.remove_txt(&name, &data);
                    (StatusCode::NO_CONTENT, Value::Null)
                }
                None => (StatusCode::NOT_FOUND, missing),
            },
            _ => (StatusCode::METHOD_NOT_ALLOWED, json!({ "id": "method_not_allowed", "message": "no" })),
        }
    }
}
