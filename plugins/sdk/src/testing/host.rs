//! A host for native tests of a plugin: it knows variables and time, keeps what is shared, counts, and answers the requests
//! that the test expects, in their order. What is not expected fails the test, and so does what is expected and does not come.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::marker::PhantomData;
use std::thread;

use serde_json::Value;

use super::metrics::Metrics;
use super::shared::Shared;
use crate::dns::{Challenge, DnsProvider, Timing, component};
use crate::{About, Error, fetch};

/// When tests begin: on 2026-01-02 at 03:04:05 UTC.
pub(crate) const BEGAN_MS: u64 = 1_767_323_045_000;

/// What the host takes of `present`.
const HANDLE_BYTES_AT_MOST: usize = 4 << 10;

/// Where requests come from: an address for documents (RFC 5737).
const CLIENT: &str = "192.0.2.1";

thread_local! {
    /// Each test has a thread of its own, or its turn on one.
    static CURRENT: RefCell<Option<State>> = const { RefCell::new(None) };
}

/// The host of one test, until it is dropped.
#[must_use = "it is the host of the test while it lives"]
pub struct Host {
    /// The state is that of the thread.
    here: PhantomData<*const ()>,
}

pub(crate) struct State {
    about: Option<About>,
    variables: BTreeMap<String, String>,
    expected: VecDeque<Exchange>,
    client: String,
    pub(crate) now_ms: u64,
    pub(crate) slept_ms: u64,
    pub(crate) logged: Vec<String>,
    pub(crate) shared: Shared,
    pub(crate) metrics: Metrics,
}

/// A request that will come and its answer.
struct Exchange {
    method: String,
    url: String,
    headers: Vec<(String, String)>,
    body: Option<Body>,
    answer: Result<fetch::Response, Error>,
}

#[derive(Debug, PartialEq)]
enum Body {
    Json(Value),
    Text(String),
}

pub(crate) fn with<T>(act: impl FnOnce(&mut State) -> T) -> T {
    CURRENT.with_borrow_mut(|state| act(state.as_mut().expect("a test that calls the host has a `testing::Host`")))
}

/// A test of `connection` alone needs no host.
pub(crate) fn client() -> String {
    CURRENT.with_borrow(|state| state.as_ref().map_or_else(|| CLIENT.to_owned(), |state| state.client.clone()))
}

impl Host {
    /// Without variables, on 2026-01-02 at 03:04:05 UTC.
    #[expect(clippy::new_without_default, reason = "what takes the place of the host should be seen to begin")]
    pub fn new() -> Self {
        let state = State {
            about: None,
            variables: BTreeMap::new(),
            expected: VecDeque::new(),
            client: CLIENT.to_owned(),
            now_ms: BEGAN_MS,
            slept_ms: 0,
            logged: Vec::new(),
            shared: Shared::default(),
            metrics: Metrics::default(),
        };
        let before = CURRENT.replace(Some(state));
        assert!(before.is_none(), "a test has one host at a time");
        Self { here: PhantomData }
    }

    /// The same for a provider: only the variables and the origins that it declares can be had.
    pub fn of<P: DnsProvider>(variables: &[(&str, &str)]) -> Self {
        let host = Self::new();
        with(|state| state.about = Some(P::ABOUT));
        host.variables(variables)
    }

    /// Sets these variables, which are what [`secrets`](crate::secrets) has.
    pub fn variables(self, variables: &[(&str, &str)]) -> Self {
        with(|state| state.variables.extend(owned(variables)));
        self
    }

    /// The next request, whose answer is to follow: `host.expect("GET", "https://…").answer(204, json!(null))`.
    pub fn expect(&self, method: &str, url: &str) -> Expected {
        Expected { method: method.to_owned(), url: url.to_owned(), headers: Vec::new(), body: None }
    }

    /// Calls `init` of a provider.
    ///
    /// # Errors
    /// Those of the provider.
    pub fn init<P: DnsProvider>(&self) -> Result<(P, Timing), Error> {
        P::init()
    }

    /// Calls a provider as the host would, with its repetitions.
    ///
    /// # Errors
    /// Those of the provider.
    ///
    /// # Panics
    /// If its handle is longer than the host takes.
    pub fn present<P: DnsProvider>(&self, challenge: &Challenge) -> Result<String, Error> {
        let (provider, _) = P::init()?;
        let handle = component::present(&provider, challenge)?;
        assert!(handle.len() <= HANDLE_BYTES_AT_MOST, "the handle has {} bytes", handle.len());
        Ok(handle)
    }

    /// Calls a provider as the host would, with its repetitions.
    ///
    /// # Errors
    /// Those of the provider.
    pub fn cleanup<P: DnsProvider>(&self, challenge: &Challenge, handle: &str) -> Result<(), Error> {
        let (provider, _) = P::init()?;
        component::cleanup(&provider, challenge, handle)
    }

    /// Where requests come from: 192.0.2.1 if nothing else is said.
    pub fn client(&self, address: &str) {
        with(|state| state.client = address.to_owned());
    }

    /// Lets so many milliseconds pass.
    pub fn advance(&self, ms: u64) {
        with(|state| state.now_ms += ms);
    }

    /// What the plugin has counted under that name, with these labels in any order; 0 if nothing.
    #[must_use]
    pub fn counter(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        with(|state| state.metrics.counter(name, &owned(labels)))
    }

    /// The values that the plugin has observed under that name, with these labels in any order.
    #[must_use]
    pub fn observations(&self, name: &str, labels: &[(&str, &str)]) -> Vec<f64> {
        with(|state| state.metrics.observations(name, &owned(labels)))
    }

    /// How long the plugin has waited.
    #[must_use]
    pub fn slept_ms(&self) -> u64 {
        with(|state| state.slept_ms)
    }

    /// The messages that the plugin has logged, of all levels.
    #[must_use]
    pub fn logged(&self) -> Vec<String> {
        with(|state| state.logged.clone())
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let Some(state) = CURRENT.take() else {
            return;
        };
        if thread::panicking() {
            return;
        }
        let left: Vec<String> =
            state.expected.iter().map(|exchange| format!("{} {}", exchange.method, exchange.url)).collect();
        assert!(left.is_empty(), "these requests did not come: {left:?}");
    }
}

/// A request that is expected; what is not said of it may be anything.
#[must_use = "it needs an answer"]
pub struct Expected {
    method: String,
    url: String,
    headers: Vec<(String, String)>,
    body: Option<Body>,
}

impl Expected {
    /// It has this field line, whatever the case of its name.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Its content is this JSON.
    pub fn json(self, body: Value) -> Self {
        Self { body: Some(Body::Json(body)), ..self }
    }

    /// Its content is this text.
    pub fn text(self, body: &str) -> Self {
        Self { body: Some(Body::Text(body.to_owned())), ..self }
    }

    /// It is answered with JSON, or for `null` without content.
    pub fn answer(self, status: u16, body: Value) {
        self.answer_with(status, &[], &if body.is_null() { String::new() } else { body.to_string() });
    }

    /// It is answered with these field lines and this text.
    pub fn answer_with(self, status: u16, headers: &[(&str, &str)], body: &str) {
        let line = |&(name, value): &(&str, &str)| (name.to_owned(), value.as_bytes().to_vec());
        self.end(Ok(fetch::Response {
            status,
            headers: headers.iter().map(line).collect(),
            body: body.as_bytes().to_vec(),
        }));
    }

    /// There is no answer to it.
    pub fn fail(self, error: Error) {
        self.end(Err(error));
    }

    fn end(self, answer: Result<fetch::Response, Error>) {
        let Self { method, url, headers, body } = self;
        with(|state| state.expected.push_back(Exchange { method, url, headers, body, answer }));
    }
}

impl State {
    pub(crate) fn variable(&self, name: &str) -> Option<String> {
        if let Some(about) = &self.about {
            let declared = about.secrets.iter().any(|secret| secret.name == name)
                || about.setting_names().any(|setting| setting == name);
            assert!(declared, "the plugin asks for `{name}`, which it does not declare");
        }
        self.variables.get(name).cloned()
    }

    pub(crate) const fn sleep(&mut self, ms: u32) {
        self.now_ms += ms as u64;
        self.slept_ms += ms as u64;
    }

    pub(crate) fn answer(&mut self, request: &fetch::Request) -> Result<fetch::Response, Error> {
        self.check_origin(&request.url);
        let sent = format!("{} {}", request.method, request.url);
        let expected = self.expected.pop_front().unwrap_or_else(|| panic!("the request {sent} is not expected"));
        assert_eq!(sent, format!("{} {}", expected.method, expected.url), "the next request");
        for (name, value) in &expected.headers {
            let lines: Vec<_> = request.headers.iter().filter(|(given, _)| given.eq_ignore_ascii_case(name)).collect();
            let given: Vec<_> = lines.iter().map(|(_, value)| String::from_utf8_lossy(value)).collect();
            assert_eq!(given, [value.as_str()], "the header {name} of {sent}");
        }
        if let Some(body) = &expected.body {
            let text = String::from_utf8_lossy(&request.body).into_owned();
            let given = match body {
                Body::Json(_) => Body::Json(serde_json::from_str(&text).unwrap_or_default()),
                Body::Text(_) => Body::Text(text),
            };
            assert_eq!(&given, body, "the content of {sent}");
        }
        expected.answer
    }

    /// As the host grants it: what a variable names, or else what the plugin declares.
    fn check_origin(&self, url: &str) {
        let Some(about) = &self.about else {
            return;
        };
        let urls = about.secrets.iter().filter(|secret| secret.url);
        let named: Vec<&str> = urls.filter_map(|secret| self.variables.get(secret.name)).map(String::as_str).collect();
        let granted = if named.is_empty() { about.origins } else { &named };
        let known = granted.iter().any(|granted| origin(granted) == origin(url));
        assert!(known, "the plugin wants to reach {url}, and declares {granted:?}");
    }
}

fn owned(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// Scheme, host and port of a URL.
fn origin(url: &str) -> &str {
    let host = url.find("://").map_or(0, |colon| colon + 3);
    url[host..].find('/').map_or(url, |slash| &url[..host + slash])
}

#[cfg(test)]
mod tests {
    use std::panic::{self, AssertUnwindSafe};

    use crate::dns::{Client, Settings};
    use crate::testing::challenge;
    use crate::{Secret, secrets};

    use super::*;

    fn fetch(url: &str) -> Result<(), Error> {
        Client::new(url, &Settings::DEFAULT).get(&["a"]).send().map(drop)
    }

    #[test]
    fn a_request_that_is_not_expected_fails_the_test() {
        let _host = Host::new();
        assert!(panic::catch_unwind(|| fetch("https://a.test")).is_err());
    }

    #[test]
    fn a_request_that_does_not_come_fails_the_test() {
        let forgotten = panic::catch_unwind(|| {
            let host = Host::new();
            host.expect("GET", "https://a.test/a").answer(200, Value::Null);
        });
        assert!(forgotten.is_err());
    }

    #[test]
    fn another_request_than_expected_fails_the_test() {
        let host = Host::new();
        host.expect("GET", "https://a.test/b").answer(200, Value::Null);
        assert!(panic::catch_unwind(|| fetch("https://a.test")).is_err());
    }

    /// Asks for what it does not declare.
    struct Greedy;

    impl DnsProvider for Greedy {
        const ABOUT: About = About::new("greedy", "1.0.0", "A provider of a test")
            .secrets(&[Secret::optional("DECLARED"), Secret::url("ADDRESS")])
            .origins(&["https://a.test"]);

        fn init() -> Result<(Self, Timing), Error> {
            Ok((Self, Settings::DEFAULT.timing()))
        }

        fn present(&self, _: &Challenge) -> Result<String, Error> {
            Ok(secrets::get("UNDECLARED").unwrap_or_default())
        }

        fn cleanup(&self, _: &Challenge, url: &str) -> Result<(), Error> {
            fetch(url)
        }
    }

    #[test]
    fn what_a_provider_does_not_declare_fails_the_test() {
        let challenge = || challenge("_acme-challenge.a.test.", "a.test.");
        let reaches = |variables: &[(&str, &str)], url: &str| {
            let host = Host::of::<Greedy>(variables);
            host.expect("GET", &format!("{url}/a")).answer(200, Value::Null);
            let reached = panic::catch_unwind(AssertUnwindSafe(|| host.cleanup::<Greedy>(&challenge(), url)));
            // What is still expected would fail this test, and not the one that it plays.
            with(|state| state.expected.clear());
            reached.is_ok()
        };
        assert!(reaches(&[], "https://a.test"));
        assert!(!reaches(&[], "https://a.test:444"));
        assert!(!reaches(&[], "http://a.test"));
        assert!(reaches(&[("ADDRESS", "http://b.test/api")], "http://b.test"));
        assert!(!reaches(&[("ADDRESS", "http://b.test/api")], "https://a.test"));

        let host = Host::of::<Greedy>(&[("UNDECLARED", "x")]);
        let asked = panic::catch_unwind(AssertUnwindSafe(|| host.present::<Greedy>(&challenge())));
        assert!(asked.is_err());
    }

    #[test]
    fn time_moves_by_sleeping_and_by_the_test_alone() {
        let host = Host::new();
        let before = crate::clock::unix_ms();
        crate::dns::timer::sleep(1_500);
        assert_eq!((crate::clock::unix_ms() - before, host.slept_ms()), (1_500, 1_500));
        host.advance(500);
        assert_eq!((crate::clock::unix_ms() - before, host.slept_ms()), (2_000, 1_500));
        assert_eq!(crate::clock::monotonic_ns(), 2_000_000_000);
    }
}
