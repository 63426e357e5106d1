//! When a CA would have a certificate renewed (RFC 9773).
//!
//! `resolver` asks for it every few hours. It is advice: without an answer a certificate's own life decides.

use bytes::Bytes;
use http::Request;
use instant_acme::CertificateIdentifier;
use jiff::{SignedDuration, Timestamp};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde::Deserialize;

use super::Clock;
use super::client::Authority;
use super::failure::cleaned;
use super::session::retry_after;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RenewalInfo {
    pub start: Timestamp,
    pub end: Timestamp,
    /// A page about the reason, such as a mass revocation.
    pub explanation: Option<String>,
    /// When to ask again.
    pub ask_again: Timestamp,
}

/// Asks about the first certificate of `chain`, which is PEM. `None` is no advice, for whatever reason.
pub(crate) async fn renewal_info(authority: &Authority, chain: &str, clock: &Clock) -> Option<RenewalInfo> {
    let certificate = CertificateDer::pem_slice_iter(chain.as_bytes()).next()?.ok()?;
    let id = CertificateIdentifier::try_from(&certificate).ok()?;
    let directory = authority.directory(clock).await.ok()?;
    let url = directory.renewal_info.as_deref()?;
    let request = Request::get(format!("{}/{id}", url.trim_end_matches('/'))).body(Bytes::new()).ok()?;
    let answer = authority.send(request).await;
    let now = clock.now();
    let response = match answer {
        Ok(response) if response.status().is_success() => response,
        Ok(response) => {
            tracing::debug!(ca = authority.host(), status = response.status().as_u16(), "no renewal information");
            return None;
        }
        Err(error) => {
            tracing::debug!(ca = authority.host(), %error, "no renewal information");
            return None;
        }
    };
    let ask_again = retry_after(response.headers(), now).unwrap_or_else(|| now.saturating_add(DEFAULT).unwrap_or(now));
    parse(response.body(), ask_again.clamp(now.saturating_add(SOONEST).ok()?, now.saturating_add(LATEST).ok()?))
}

/// Where the CA does not say when to ask again (RFC 9773, section 4.3.2).
const DEFAULT: SignedDuration = SignedDuration::from_hours(6);
const SOONEST: SignedDuration = SignedDuration::from_mins(1);
const LATEST: SignedDuration = SignedDuration::from_hours(24);

fn parse(body: &[u8], ask_again: Timestamp) -> Option<RenewalInfo> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Document {
        suggested_window: Window,
        #[serde(rename = "explanationURL")]
        explanation_url: Option<String>,
    }
    #[derive(Deserialize)]
    struct Window {
        start: String,
        end: String,
    }
    let document: Document = serde_json::from_slice(body).ok()?;
    let [start, end] = [&document.suggested_window.start, &document.suggested_window.end].map(|time| time.parse().ok());
    let (start, end) = (start?, end?);
    // An end before its start is no advice (RFC 9773, section 4.2).
    if end < start {
        return None;
    }
    let explanation = document.explanation_url.map(|url| cleaned(&url));
    Some(RenewalInfo { start, end, explanation, ask_again })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_that_makes_sense_is_taken() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().expect("a time");
        let window =
            |start: &str, end: &str| format!(r#"{{"suggestedWindow": {{"start": "{start}", "end": "{end}"}}}}"#);
        let table = [
            (window("2026-01-02T00:00:00Z", "2026-01-03T00:00:00Z"), true),
            (window("2026-01-02T00:00:00+02:00", "2026-01-02T00:00:00.5Z"), true),
            (window("2026-01-02T00:00:00Z", "2026-01-02T00:00:00Z"), true),
            (window("2026-01-03T00:00:00Z", "2026-01-02T00:00:00Z"), false),
            (window("0001-01-01T00:00:00Z", "soon"), false),
            ("{}".to_owned(), false),
            ("<html>".to_owned(), false),
        ];
        for (body, is_advice) in table {
            assert_eq!(parse(body.as_bytes(), now).is_some(), is_advice, "{body}");
        }
    }
}
