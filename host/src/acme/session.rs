//! One conversation with a CA, such as an order: it remembers the last answer, of which the ACME library drops what
//! matters here (the header fields, and all that is no ACME), and decides what is worth another try at once.
//!
//! `account` and `order` hold one each time they talk. It waits for seconds; minutes and days are the scheduler's.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{HeaderMap, LINK, RETRY_AFTER};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient, Problem};
use jiff::fmt::rfc2822;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::Clock;
use super::client::Authority;
use super::failure::{Failure, Kind, Stage, cleaned};
use crate::fetch;

/// The way of the ACME library to its CA.
#[derive(Clone)]
pub(super) struct Session {
    authority: Arc<Authority>,
    clock: Clock,
    last: Arc<Mutex<Exchange>>,
}

/// A request and what became of it.
#[derive(Clone, Debug, Default)]
pub(super) struct Exchange {
    url: String,
    /// Nothing arrived, for this reason.
    pub(super) broken: Option<String>,
    pub(super) status: Option<StatusCode>,
    headers: HeaderMap,
    pub(super) body: Bytes,
    pub(super) retry_after: Option<Timestamp>,
}

/// How often a step of a conversation is tried again, and after how long.
pub(super) struct Patience<'a> {
    session: &'a Session,
    nonces: u32,
    waits: u32,
    /// Whether doing it twice is the same as once.
    is_repeatable: bool,
}

impl Session {
    pub(super) fn new(authority: &Arc<Authority>, clock: &Clock) -> Self {
        Self { authority: Arc::clone(authority), clock: clock.clone(), last: Arc::default() }
    }

    pub(super) fn clock(&self) -> &Clock {
        &self.clock
    }

    /// The last exchange.
    pub(super) fn last(&self) -> Exchange {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What an error of the library means, seen with the last exchange.
    pub(super) fn failure(&self, error: &Error, stage: Stage) -> Failure {
        // Our own, passed through the library: the directory could not be read again.
        if let Error::Other(error) = error
            && let Some(failure) = error.downcast_ref::<Failure>()
        {
            return failure.clone();
        }
        let last = self.last();
        let mut failure = match error {
            Error::Api(problem) => {
                let status = problem.status.or_else(|| last.status.map(|status| status.as_u16()));
                Failure::of_problem(&Problem { status, ..problem.clone() }, stage)
            }
            _ if last.broken.is_some() || !last.is_success() => last.unavailable(),
            error => {
                let error = cleaned(&error.to_string());
                Failure::new(Kind::Unavailable, format!("`{}` answers with something unexpected: {error}", last.url))
            }
        };
        failure.retry_after = last.retry_after.filter(|_| !last.is_success()).or(failure.retry_after);
        if failure.help.is_none()
            && let Some(instance) = last.instance()
        {
            failure.help = Some(format!("see {instance}"));
        }
        self.authority.forget_directory();
        failure
    }

    async fn exchange(self, request: Request<BodyWrapper<Bytes>>) -> Result<BytesResponse, Error> {
        let (head, body) = request.into_parts();
        let body = match body.collect().await {
            Ok(body) => body.to_bytes(),
            Err(never) => match never {},
        };
        let url = head.uri.to_string();
        if head.method == Method::GET && url == self.authority.url() {
            let directory =
                self.authority.directory(&self.clock).await.map_err(|failure| Error::Other(failure.into()))?;
            return Ok(Response::new(Full::new(directory.body.clone())).into());
        }
        let mut exchange = Exchange::new(&url);
        let answer = self.authority.send(Request::from_parts(head, body)).await;
        exchange.record(&answer, self.clock.now());
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = exchange;
        match answer {
            Ok(response) => Ok(response.map(Full::new).into()),
            Err(error) => Err(Error::Other(error.into())),
        }
    }
}

impl HttpClient for Session {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        Box::pin(self.clone().exchange(request))
    }
}

impl Exchange {
    pub(super) fn new(url: &str) -> Self {
        Self { url: url.to_owned(), ..Self::default() }
    }

    pub(super) fn record(&mut self, answer: &Result<Response<Bytes>, fetch::Error>, now: Timestamp) {
        match answer {
            Ok(response) => {
                self.status = Some(response.status());
                self.retry_after = retry_after(response.headers(), now);
                self.headers = response.headers().clone();
                self.body = response.body().clone();
            }
            Err(error @ fetch::Error::Untrusted(_)) => {
                self.broken = Some(format!("{error}: if the CA is your own, name its root in `caCertificates`"));
            }
            Err(error) => self.broken = Some(error.to_string()),
        }
    }

    /// The CA did not answer, or with something that is no ACME.
    pub(super) fn unavailable(&self) -> Failure {
        let (kind, message) = match (&self.broken, self.status) {
            (Some(broken), _) => (Kind::Unavailable, broken.clone()),
            (None, Some(StatusCode::TOO_MANY_REQUESTS)) => {
                (Kind::RateLimited, format!("`{}` answers 429: too many requests", self.url))
            }
            (None, Some(status)) => (Kind::Unavailable, format!("`{}` answers {}", self.url, status.as_u16())),
            (None, None) => (Kind::Unavailable, format!("`{}` was not asked", self.url)),
        };
        Failure { retry_after: self.retry_after, ..Failure::new(kind, message) }
    }

    pub(super) fn is_success(&self) -> bool {
        self.status.is_some_and(|status| status.is_success())
    }

    /// Other chains for the same certificate (RFC 8555, section 7.4.2).
    pub(super) fn alternates(&self) -> Vec<String> {
        let links = self.headers.get_all(LINK).iter().filter_map(|link| link.to_str().ok());
        links.flat_map(|links| links.split(',')).filter_map(|link| alternate(link, &self.url)).collect()
    }

    /// Where a problem says that there is more about it, such as new terms to agree to.
    fn instance(&self) -> Option<String> {
        let problem: Value = serde_json::from_slice(&self.body).ok()?;
        Some(cleaned(problem.get("instance")?.as_str()?))
    }
}

impl<'a> Patience<'a> {
    const NONCES: u32 = 10;
    const WAITS: u32 = 3;
    const LONGEST: SignedDuration = SignedDuration::from_secs(10);

    /// For what may be done twice: reading, and what the CA does once however often it is asked.
    pub(super) fn repeating(session: &'a Session) -> Self {
        Self { session, nonces: 0, waits: 0, is_repeatable: true }
    }

    /// For what may not: only a refused nonce proves that nothing was done.
    pub(super) fn careful(session: &'a Session) -> Self {
        Self { session, nonces: 0, waits: 0, is_repeatable: false }
    }

    /// Waits until the step may be tried again, or gives its failure back.
    pub(super) async fn after(&mut self, error: &Error, stage: Stage) -> Result<(), Failure> {
        if is_bad_nonce(error) && self.nonces < Self::NONCES {
            // The library itself has tried three times by now.
            self.nonces += 1;
            return Ok(());
        }
        let failure = self.session.failure(error, stage);
        let may_pass = match failure.kind {
            Kind::Unavailable => true,
            Kind::RateLimited => failure.retry_after.is_some(),
            _ => false,
        };
        if !self.is_repeatable || !may_pass || self.waits == Self::WAITS {
            return Err(failure);
        }
        let now = self.session.clock.now();
        let wait = failure.retry_after.map_or(SignedDuration::ZERO, |time| time.duration_since(now));
        if wait > Self::LONGEST {
            return Err(failure);
        }
        let wait = Duration::try_from(wait).unwrap_or_default().max(Duration::from_millis(500) * 2_u32.pow(self.waits));
        self.waits += 1;
        self.session.clock.sleep(wait).await;
        Ok(())
    }
}

fn is_bad_nonce(error: &Error) -> bool {
    matches!(error, Error::Api(problem) if problem.r#type.as_deref() == Some("urn:ietf:params:acme:error:badNonce"))
}

/// A date or seconds (RFC 9110, section 10.2.3), and no more than a month.
pub(super) fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Timestamp> {
    const AT_MOST: SignedDuration = SignedDuration::from_hours(30 * 24);
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let latest = now.saturating_add(AT_MOST).unwrap_or(Timestamp::MAX);
    let time = match text.parse::<u64>() {
        Ok(seconds) => {
            let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
            now.saturating_add(SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MAX)
        }
        Err(_) => rfc2822::parse(text).ok()?.timestamp(),
    };
    Some(time.min(latest))
}

/// `<https://ca.example/cert/1>;rel="alternate"`
fn alternate(link: &str, base: &str) -> Option<String> {
    let (url, parameters) = link.trim().strip_prefix('<')?.split_once('>')?;
    let mut parameters = parameters.split(';').map(|parameter| parameter.trim().to_ascii_lowercase());
    if !parameters.any(|parameter| parameter == "rel=\"alternate\"" || parameter == "rel=alternate") {
        return None;
    }
    if !url.starts_with('/') {
        return Some(url.to_owned());
    }
    let end = base.find("://").map(|scheme| scheme + 3)?;
    let end = base[end..].find('/').map_or(base.len(), |path| end + path);
    Some(format!("{}{url}", &base[..end]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_to_try_again_is_read_in_both_forms_and_never_too_far() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().expect("a time");
        let table = [
            ("120", Some("2026-01-01T00:02:00Z")),
            ("Fri, 02 Jan 2026 00:00:00 GMT", Some("2026-01-02T00:00:00Z")),
            ("99999999999999999999", None),
            ("18446744073709551615", Some("2026-01-31T00:00:00Z")),
            ("Fri, 01 Jan 2100 00:00:00 GMT", Some("2026-01-31T00:00:00Z")),
            ("-1", None),
            ("", None),
            ("soon", None),
        ];
        for (text, expected) in table {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, text.parse().expect("a value"));
            let expected = expected.map(|time| time.parse().expect("a time"));
            assert_eq!(retry_after(&headers, now), expected, "{text}");
        }
    }

    #[test]
    fn alternate_chains_are_found_among_links() {
        let mut exchange = Exchange::new("https://ca.example:8443/cert/1");
        for link in [
            "<https://ca.example/dir>;rel=\"index\"",
            "<https://ca.example/cert/1/1>; rel=\"alternate\", </cert/1/2>;title=x;rel=alternate",
            "no link",
        ] {
            exchange.headers.append(LINK, link.parse().expect("a value"));
        }
        assert_eq!(exchange.alternates(), ["https://ca.example/cert/1/1", "https://ca.example:8443/cert/1/2"]);
    }
}
