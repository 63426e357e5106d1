//! Why there is no certificate: what a CA says (RFC 8555, section 6.7) or what went wrong before it, in words, with what
//! to do about it, and with what a scheduler must know.
//!
//! The siblings make them. A CA's own text is cut and cleaned before it gets in, and no secret ever does.

use std::fmt;

use instant_acme::{Problem, Subproblem};
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub kind: Kind,
    /// What happened. Reads after "failed to".
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
    /// Not before then, says the CA.
    pub retry_after: Option<Timestamp>,
    /// The names that are at fault, where not all of them are.
    pub names: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The CA wants something of the account's owner.
    Account,
    /// The CA does not know the account: to register again and to repeat is right.
    AccountGone,
    /// What was issued is not what was asked for.
    Certificate,
    /// The answer to a challenge could not be set up. The CA has not looked.
    Presentation,
    RateLimited,
    /// The CA does not issue for these names.
    Refused,
    /// A setting must change before it makes sense to repeat.
    Settings,
    /// The CA cannot be reached, or is out of order. This says nothing of the names.
    Unavailable,
    /// The CA has looked and did not find what proves control of a name.
    Validation,
}

/// What was asked for when a CA answered with a problem, since `unauthorized` depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Account,
    Order,
    Challenge,
}

impl Failure {
    pub(crate) fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), help: None, retry_after: None, names: Vec::new() }
    }

    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    pub(crate) fn of_problem(problem: &Problem, stage: Stage) -> Self {
        let explained = explain(problem.r#type.as_deref(), stage);
        let first = problem.subproblems.first().map(|problem| explain(problem.r#type.as_deref(), stage));
        let outer = explained.or_else(|| first.flatten());
        let Explained { kind, words, help } = outer.unwrap_or_else(|| unexplained(problem.status));
        let detail = problem.detail.as_deref().unwrap_or_default();
        Self {
            kind,
            message: join(
                words,
                detail,
                problem.r#type.as_deref().filter(|_| explained.is_none()),
                &problem.subproblems,
            ),
            help: help.map(str::to_owned),
            retry_after: retry_after(detail),
            names: problem.subproblems.iter().filter_map(name).collect(),
        }
    }

    /// Several names have failed, each for a reason of its own.
    pub(crate) fn of_names(failures: Vec<(String, Self)>) -> Option<Self> {
        let names = failures.iter().map(|(name, _)| name.clone()).collect();
        let retry_after = failures.iter().filter_map(|(_, failure)| failure.retry_after).max();
        let message = failures.iter().map(|(name, failure)| format!("`{name}`: {}", failure.message));
        let message = list(message, failures.len());
        let (_, first) = failures.into_iter().next()?;
        Some(Self { message, retry_after, names, ..first })
    }

    /// Whether the account must be registered again.
    pub(crate) fn is_account_gone(&self) -> bool {
        self.kind == Kind::AccountGone
    }

    /// Whether CAs count it, of which they allow a few in an hour (Let's Encrypt: five for a name and account).
    pub(crate) fn counts_as_failed_validation(&self) -> bool {
        self.kind == Kind::Validation
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.help {
            Some(help) => write!(f, "; {help}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Failure {}

/// Text from outside, fit for a log: one line, and not a long one.
pub(super) fn cleaned(text: &str) -> String {
    const AT_MOST: usize = 400;
    let mut cleaned: String =
        text.chars().map(|char| if char.is_control() { ' ' } else { char }).take(AT_MOST).collect();
    if text.chars().nth(AT_MOST).is_some() {
        cleaned.push('…');
    }
    cleaned.trim().trim_end_matches('.').to_owned()
}

#[derive(Clone, Copy)]
struct Explained {
    kind: Kind,
    words: &'static str,
    help: Option<&'static str>,
}

fn explain(problem: Option<&str>, stage: Stage) -> Option<Explained> {
    let (kind, words, help) = match problem?.strip_prefix("urn:ietf:params:acme:error:")? {
        "accountDoesNotExist" => (Kind::AccountGone, "the CA does not know the account", ""),
        "badCSR" => (
            Kind::Settings,
            "the CA refuses the request for the certificate",
            "another `keyType`, or no `emailAddresses`, may be what it wants",
        ),
        "badNonce" => (Kind::Unavailable, "the CA refuses its own nonces", ""),
        "badPublicKey" => (Kind::Settings, "the CA refuses the certificate's key", "choose another `keyType`"),
        "badSignatureAlgorithm" => (Kind::Account, "the CA refuses accounts with keys of P-256", ""),
        "caa" => (
            Kind::Refused,
            "the domain's CAA records do not allow this CA",
            "add a CAA record that names the CA, or remove the ones that forbid it",
        ),
        "connection" => (
            Kind::Validation,
            "the CA cannot connect to the server of the name",
            "port 80 for HTTP-01, or 443 for TLS-ALPN-01, must be open to the internet at every address that DNS has for \
             the name, those of IPv6 too",
        ),
        "dns" => (
            Kind::Validation,
            "the CA cannot look the name up",
            "check the name's records and DNSSEC, as seen from the internet",
        ),
        "externalAccountRequired" => (
            Kind::Account,
            "the CA wants an account that is bound to one of its customers",
            "set `eab.kid` and `eab.hmacEncoded`",
        ),
        "incorrectResponse" => (Kind::Validation, ANOTHER_ANSWER, LEADS_HERE),
        "invalidContact" | "unsupportedContact" => {
            (Kind::Account, "the CA refuses the e-mail address of the account", "correct `email`")
        }
        "invalidProfile" => (Kind::Settings, "the CA does not offer the profile", "correct `profile`"),
        "orderNotReady" => (Kind::Unavailable, "the CA has changed its mind about the order", ""),
        "rateLimited" => (Kind::RateLimited, "a rate limit of the CA is reached", ""),
        "rejectedIdentifier" => (Kind::Refused, "the CA does not issue for the name", ""),
        "serverInternal" => (Kind::Unavailable, "the CA is out of order", ""),
        "tls" => (
            Kind::Validation,
            "the CA cannot agree on TLS with the server of the name",
            "for TLS-ALPN-01, port 443 must lead to this proxy, and nothing before it may end TLS",
        ),
        "unauthorized" if stage == Stage::Challenge => (Kind::Validation, ANOTHER_ANSWER, LEADS_HERE),
        "unauthorized" => (Kind::Account, "the CA does not allow the account to do this", ""),
        "unsupportedIdentifier" => (
            Kind::Refused,
            "the CA does not issue for this type of name",
            "for IP addresses Let's Encrypt wants `profile: shortlived`",
        ),
        "userActionRequired" => {
            (Kind::Account, "the CA waits for its customer to do something, such as to agree to new terms", "")
        }
        _ => return None,
    };
    Some(Explained { kind, words, help: Some(help).filter(|help| !help.is_empty()) })
}

const ANOTHER_ANSWER: &str = "the CA has found another answer to its challenge than ours";
const LEADS_HERE: &str =
    "the name must lead to this proxy alone, for DNS-01 its records to the zone that is written to";

fn unexplained(status: Option<u16>) -> Explained {
    let (kind, words) = match status {
        Some(429) => (Kind::RateLimited, "a rate limit of the CA is reached"),
        Some(400..=499) => (Kind::Settings, "the CA refuses the request"),
        _ => (Kind::Unavailable, "the CA is out of order"),
    };
    Explained { kind, words, help: None }
}

fn join(words: &str, detail: &str, unknown: Option<&str>, subproblems: &[Subproblem]) -> String {
    let mut message = words.to_owned();
    for part in [Some(detail), unknown].into_iter().flatten() {
        let part = cleaned(part);
        if !part.is_empty() {
            message.push_str(": ");
            message.push_str(&part);
        }
    }
    if !subproblems.is_empty() {
        let each = subproblems.iter().map(|problem| {
            let detail = cleaned(problem.detail.as_deref().or(problem.r#type.as_deref()).unwrap_or_default());
            name(problem).map_or_else(|| detail.clone(), |name| format!("`{name}`: {detail}"))
        });
        message.push_str(": ");
        message.push_str(&list(each, subproblems.len()));
    }
    message
}

fn name(problem: &Subproblem) -> Option<String> {
    problem.identifier.as_ref().map(|identifier| cleaned(&identifier.authorized(false).to_string()))
}

/// The first few, since a hundred names may fail for the same reason.
fn list(parts: impl Iterator<Item = String>, count: usize) -> String {
    const SHOWN: usize = 3;
    let mut list = parts.take(SHOWN).collect::<Vec<_>>().join("; ");
    if count > SHOWN {
        list.push_str(&format!("; and {} more", count - SHOWN));
    }
    list
}

/// Let's Encrypt puts the time into its text: `retry after 2026-03-01 12:00:00 UTC`.
fn retry_after(detail: &str) -> Option<Timestamp> {
    let (_, rest) = detail.split_once("retry after ")?;
    let (time, _) = rest.split_once(" UTC")?;
    let time: DateTime = time.parse().ok()?;
    Some(time.to_zoned(TimeZone::UTC).ok()?.timestamp())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_cas_say_becomes_words_with_what_to_do() {
        let rate =
            "too many certificates (5) already issued, retry after 2026-03-01 12:00:00 UTC: see https://ca.example";
        let table = [
            ("rateLimited", Stage::Order, rate, Kind::RateLimited, "a rate limit of the CA is reached: too many"),
            ("unauthorized", Stage::Challenge, "404", Kind::Validation, "the CA has found another answer"),
            ("unauthorized", Stage::Order, "no", Kind::Account, "the CA does not allow the account to do this: no"),
            ("connection", Stage::Challenge, "refused", Kind::Validation, "port 80 for HTTP-01"),
            ("accountDoesNotExist", Stage::Order, "", Kind::AccountGone, "the CA does not know the account"),
            ("externalAccountRequired", Stage::Account, "", Kind::Account, "; set `eab.kid` and `eab.hmacEncoded`"),
            (
                "invented",
                Stage::Order,
                "why",
                Kind::Unavailable,
                "out of order: why: urn:ietf:params:acme:error:invented",
            ),
        ];
        for (kind, stage, detail, expected, part) in table {
            let kind = format!("urn:ietf:params:acme:error:{kind}");
            let failure = Failure::of_problem(&problem(&json!({"type": kind, "detail": detail})), stage);
            assert_eq!(failure.kind, expected, "{kind}");
            assert!(failure.to_string().contains(part), "{kind}: {failure}");
            assert_eq!(failure.retry_after.is_some(), detail == rate, "{kind}");
        }
        let limited = Failure::of_problem(&problem(&json!({"status": 429, "detail": rate})), Stage::Order);
        assert_eq!(limited.retry_after, "2026-03-01T12:00:00Z".parse().ok());
        assert_eq!(limited.kind, Kind::RateLimited);
    }

    #[test]
    fn names_are_told_apart_and_a_few_of_many_are_shown() {
        let subproblems: Vec<_> = (0..5)
            .map(|n| {
                json!({"type": "urn:ietf:params:acme:error:caa", "detail": "CAA says no",
                       "identifier": {"type": "dns", "value": format!("{n}.example")}})
            })
            .collect();
        let problem = problem(&json!({"type": "urn:ietf:params:acme:error:compound", "subproblems": subproblems}));
        let failure = Failure::of_problem(&problem, Stage::Order);
        assert_eq!(failure.kind, Kind::Refused);
        assert_eq!(failure.names.len(), 5);
        assert!(failure.message.contains("`0.example`: CAA says no; "), "{failure}");
        assert!(failure.message.ends_with("; and 2 more"), "{failure}");
    }

    #[test]
    fn text_of_a_ca_is_one_line_and_not_a_long_one() {
        let detail = format!("first\r\nlevel=error forged\u{1b}[31m{}", "x".repeat(5000));
        let failure = Failure::of_problem(&problem(&json!({"detail": detail, "status": 500})), Stage::Order);
        assert!(!failure.to_string().contains(char::is_control), "{failure}");
        assert!(failure.to_string().len() < 500, "{}", failure.to_string().len());
    }

    fn problem(json: &serde_json::Value) -> Problem {
        serde_json::from_value(json.clone()).expect("a problem")
    }
}
