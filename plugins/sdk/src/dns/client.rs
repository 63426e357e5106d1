//! The provider's HTTP API, over the host's `fetch`: addresses, headers and JSON in, JSON or an [`Error`] out. Makes each
//! call once (see [`persist`](super::persist)), and never writes a credential into an error.

mod problem;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Settings;
use crate::{Error, ErrorKind, fetch, header};

/// Lists of records are the longest answers.
const MAX_BODY: u32 = 4 << 20;

/// Shorter values are found in words that have nothing to do with them.
const SECRET_AT_LEAST: usize = 8;

/// An address that calls begin with, and what each of them carries.
pub struct Client {
    base: String,
    headers: Vec<(String, Vec<u8>)>,
    credentials: Vec<Credential>,
    timeout_ms: u32,
}

/// To be kept out of errors, which name its variable.
struct Credential {
    variable: &'static str,
    value: String,
}

impl Client {
    /// `base` is a constant, or of [`variables::url`](super::variables::url); a slash at its end makes no difference.
    #[must_use]
    pub fn new(base: &str, settings: &Settings) -> Self {
        let timeout_ms = settings.http_timeout_s.max(1).saturating_mul(1_000);
        let base = base.trim_end_matches('/').to_owned();
        Self { base, headers: Vec::new(), credentials: Vec::new(), timeout_ms }
    }

    /// Authenticates each call with `Authorization: scheme value`, such as `Bearer` of RFC 6750, from this variable.
    ///
    /// # Errors
    /// If the value cannot be part of a header.
    pub fn authorization(self, scheme: &str, variable: &'static str, value: &str) -> Result<Self, Error> {
        self.secret(variable, value).header("authorization", &format!("{scheme} {value}"), variable)
    }

    /// Authenticates each call with a header of the provider's own from this variable.
    ///
    /// # Errors
    /// As in [`authorization`](Self::authorization).
    pub fn credential(self, name: &str, variable: &'static str, value: &str) -> Result<Self, Error> {
        self.secret(variable, value).header(name, value, variable)
    }

    /// Keeps the value of this variable out of errors, in which the variable is named where the provider refuses it.
    #[must_use]
    pub fn secret(mut self, variable: &'static str, value: &str) -> Self {
        self.credentials.push(Credential { variable, value: value.to_owned() });
        self
    }

    /// Sends a header with each call; `variable` is where its value comes from.
    ///
    /// # Errors
    /// As in [`authorization`](Self::authorization).
    pub fn header(mut self, name: &str, value: &str, variable: &str) -> Result<Self, Error> {
        self.headers.push((name.to_owned(), header::value(variable, value)?));
        Ok(self)
    }

    /// Asks for what is at this path, whose segments are encoded.
    #[must_use]
    pub fn get(&self, path: &[&str]) -> Call<'_> {
        self.call("GET", path)
    }

    /// Asks to add something there.
    #[must_use]
    pub fn post(&self, path: &[&str]) -> Call<'_> {
        self.call("POST", path)
    }

    /// Asks to replace what is there.
    #[must_use]
    pub fn put(&self, path: &[&str]) -> Call<'_> {
        self.call("PUT", path)
    }

    /// Asks to change what is there.
    #[must_use]
    pub fn patch(&self, path: &[&str]) -> Call<'_> {
        self.call("PATCH", path)
    }

    /// Asks to delete what is there.
    #[must_use]
    pub fn delete(&self, path: &[&str]) -> Call<'_> {
        self.call("DELETE", path)
    }

    fn call(&self, method: &'static str, path: &[&str]) -> Call<'_> {
        let mut url = self.base.clone();
        for segment in path {
            url.push('/');
            url.push_str(&encode(segment));
        }
        let headers = [vec![("accept".to_owned(), b"application/json".to_vec())], self.headers.clone()].concat();
        Call { client: self, method, url, query: String::new(), headers, body: Vec::new() }
    }

    /// Text of others, fit for an error.
    fn without_credentials(&self, text: &str) -> String {
        let known = self.credentials.iter().filter(|credential| credential.value.len() >= SECRET_AT_LEAST);
        known.fold(text.to_owned(), |text, credential| text.replace(&credential.value, "…"))
    }
}

/// One request, not sent yet.
pub struct Call<'a> {
    client: &'a Client,
    method: &'static str,
    url: String,
    query: String,
    headers: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
}

impl<'a> Call<'a> {
    /// One more parameter of the query, encoded.
    #[must_use]
    pub fn query(mut self, name: &str, value: &str) -> Self {
        self.query.push(if self.query.is_empty() { '?' } else { '&' });
        self.query.push_str(&format!("{}={}", encode(name), encode(value)));
        self
    }

    /// One more header, whose value the plugin makes itself.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.as_bytes().to_vec()));
        self
    }

    /// Takes `body` as the content.
    #[must_use]
    pub fn json(self, body: &impl Serialize) -> Self {
        let json = serde_json::to_vec(body).expect("what a provider sends has no maps with other keys than text");
        self.body("application/json", json)
    }

    /// Takes `body` as the content.
    #[must_use]
    pub fn body(mut self, content_type: &str, body: Vec<u8>) -> Self {
        self.body = body;
        self.header("content-type", content_type)
    }

    /// What a signature is over: the method,
    #[must_use]
    pub const fn method(&self) -> &'static str {
        self.method
    }

    /// the whole address,
    #[must_use]
    pub fn url(&self) -> String {
        format!("{}{}", self.url, self.query)
    }

    /// and the content.
    #[must_use]
    pub fn content(&self) -> &[u8] {
        &self.body
    }

    /// Makes the request.
    ///
    /// # Errors
    /// If there is no answer, and for each status but 2xx, with what the provider says of it and of a kind that fits: 401 and
    /// 403 are [`Unauthorized`](ErrorKind::Unauthorized), 404 and 410 [`NotFound`](ErrorKind::NotFound), 409
    /// [`Conflict`](ErrorKind::Conflict), 429 [`RateLimited`](ErrorKind::RateLimited), 408 and 5xx
    /// [`Unavailable`](ErrorKind::Unavailable), all others [`InvalidConfig`](ErrorKind::InvalidConfig).
    pub fn send(self) -> Result<Answer<'a>, Error> {
        let answer = self.send_for_any_status()?;
        if answer.is_success() { Ok(answer) } else { Err(answer.refusal()) }
    }

    /// Makes the request, for providers whose refusals [`Answer::refusal`] cannot read.
    ///
    /// # Errors
    /// If there is no answer.
    pub fn send_for_any_status(self) -> Result<Answer<'a>, Error> {
        let client = self.client;
        let name = format!("{} {}", self.method, client.without_credentials(&self.url));
        let request = fetch::Request::new(self.method, self.url());
        let request = request.body(self.body).timeout_ms(client.timeout_ms).max_body(MAX_BODY);
        let response = fetch::send(&fetch::Request { headers: self.headers, ..request });
        match response {
            Ok(response) => Ok(Answer { client, name, response }),
            Err(error) => {
                let message = format!("{name}: {}", client.without_credentials(&error.message));
                Err(Error { message, ..error })
            }
        }
    }
}

/// What the provider answered.
pub struct Answer<'a> {
    client: &'a Client,
    /// Method and address.
    name: String,
    response: fetch::Response,
}

impl Answer<'_> {
    /// The status code.
    #[must_use]
    pub const fn status(&self) -> u16 {
        self.response.status
    }

    /// Whether the status is 2xx.
    #[must_use]
    pub const fn is_success(&self) -> bool {
        matches!(self.response.status, 200..300)
    }

    /// The first value of a header, where it is text; the case of its name makes no difference.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let (_, value) = self.response.headers.iter().find(|(given, _)| given.eq_ignore_ascii_case(name))?;
        str::from_utf8(value).ok()
    }

    /// The content.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        &self.response.body
    }

    /// The content as a value.
    ///
    /// # Errors
    /// If the content is another one than the API promises.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Error> {
        serde_json::from_slice(&self.response.body).map_err(|problem| self.unexpected(&problem.to_string()))
    }

    /// The error for an answer that is not as the API promises.
    #[must_use]
    pub fn unexpected(&self, what: &str) -> Error {
        Error::new(ErrorKind::Internal, format!("read the answer to {}: {what}", self.name))
    }

    /// The error for a status that is no success, with the provider's words if they are JSON or plain text.
    #[must_use]
    pub fn refusal(&self) -> Error {
        let said = problem::explanation(&self.response.body);
        self.refusal_of(problem::kind(self.response.status), said.as_deref())
    }

    /// The same where kind and words are known.
    #[must_use]
    pub fn refusal_of(&self, kind: ErrorKind, said: Option<&str>) -> Error {
        problem::of(self.client, &self.name, &self.response, kind, said)
    }
}

/// Percent-encodes all but the unreserved characters of RFC 3986, section 2.3.
#[must_use]
pub fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::testing::Host;

    use super::*;

    fn client() -> Client {
        let client = Client::new("https://api.test/v1/", &Settings::DEFAULT);
        client.authorization("Bearer", "TEST_TOKEN", "secret-token").expect("the token of a test")
    }

    #[test]
    fn what_is_asked_for_stays_in_its_place_of_the_address() {
        let host = Host::new();
        host.expect("GET", "https://api.test/v1/zones/a%2F..%3Fb?name=c%26d%3D%22&page=1")
            .header("accept", "application/json")
            .header("authorization", "Bearer secret-token")
            .answer(200, json!([1, 2]));
        let client = client();
        let call = client.get(&["zones", "a/..?b"]).query("name", "c&d=\"").query("page", "1");
        assert_eq!(call.send().and_then(|answer| answer.json::<Vec<u32>>()), Ok(vec![1, 2]));
    }

    #[test]
    fn each_status_has_its_kind() {
        for (status, kind) in [
            (301, ErrorKind::InvalidConfig),
            (400, ErrorKind::InvalidConfig),
            (401, ErrorKind::Unauthorized),
            (403, ErrorKind::Unauthorized),
            (404, ErrorKind::NotFound),
            (409, ErrorKind::Conflict),
            (422, ErrorKind::InvalidConfig),
            (429, ErrorKind::RateLimited),
            (500, ErrorKind::Unavailable),
            (503, ErrorKind::Unavailable),
        ] {
            let host = Host::new();
            host.expect("DELETE", "https://api.test/v1/x").answer(status, Value::Null);
            let error = client().delete(&["x"]).send().map(|_| ()).expect_err("it is no success");
            assert_eq!(error.kind, kind, "{status}");
            assert!(error.message.starts_with(&format!("DELETE https://api.test/v1/x: status {status}")), "{error:?}");
        }
    }

    #[test]
    fn no_error_has_a_credential() {
        let host = Host::new();
        let silent = Error::new(ErrorKind::Timeout, "no answer to secret-token in 30 s");
        host.expect("GET", "https://api.test/v1/secret-token?key=secret-token").fail(silent);
        let error = client().get(&["secret-token"]).query("key", "secret-token").send().map(|_| ());
        let expected = "GET https://api.test/v1/…: no answer to … in 30 s";
        assert_eq!(error, Err(Error::new(ErrorKind::Timeout, expected)));
    }

    #[test]
    fn headers_have_names_of_any_case() {
        let host = Host::new();
        host.expect("GET", "https://api.test/v1/x").header("Authorization", "Bearer secret-token").answer_with(
            200,
            &[("x-change", "17")],
            "",
        );
        let client = client();
        let answer = client.get(&["x"]).send().expect("it is answered");
        assert_eq!((answer.header("X-Change"), answer.header("x-other")), (Some("17"), None));
    }

    #[test]
    fn an_answer_that_is_no_json_is_an_error() {
        let host = Host::new();
        host.expect("GET", "https://api.test/v1/x").answer_with(200, &[], "<html>");
        let error = client().get(&["x"]).send().and_then(|answer| answer.json::<Value>()).expect_err("it is no JSON");
        assert!(error.message.starts_with("read the answer to GET https://api.test/v1/x: "), "{error:?}");
    }
}
