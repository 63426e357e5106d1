//! A status that is no success as an [`Error`]: what kind it is, when another try makes sense, and what the provider says
//! of it in its own words. Called by `Answer::refusal`.

use serde_json::Value;

use super::Client;
use crate::{Error, ErrorKind, clock, fetch};

/// Characters of the provider's text that are quoted.
const MAX_QUOTE: usize = 300;

/// `name` is the request that was answered so.
pub(super) fn of(
    client: &Client,
    name: &str,
    response: &fetch::Response,
    kind: ErrorKind,
    said: Option<&str>,
) -> Error {
    let mut message = format!("{name}: status {}", response.status);
    if let Some(said) = said {
        message.push_str(&format!(": `{}`", quoted(&client.without_credentials(said))));
    }
    if kind == ErrorKind::Unauthorized && !client.credentials.is_empty() {
        let variables: Vec<&str> = client.credentials.iter().map(|credential| credential.variable).collect();
        message.push_str(&format!("; check {}", variables.join(" and ")));
    }
    let retry_after_ms = matches!(kind, ErrorKind::RateLimited | ErrorKind::Unavailable)
        .then(|| retry_after_ms(&response.headers))
        .flatten();
    Error { kind, message, retry_after_ms }
}

/// Any other status says that the request is wrong: a setting or a zone that the provider does not take.
pub(super) const fn kind(status: u16) -> ErrorKind {
    match status {
        401 | 403 => ErrorKind::Unauthorized,
        404 | 410 => ErrorKind::NotFound,
        408 | 500.. => ErrorKind::Unavailable,
        409 => ErrorKind::Conflict,
        429 => ErrorKind::RateLimited,
        _ => ErrorKind::InvalidConfig,
    }
}

/// From `Retry-After` in seconds, or else from `RateLimit-Reset`, which is a number of seconds or the time of a clock.
fn retry_after_ms(headers: &[(String, Vec<u8>)]) -> Option<u64> {
    let number = |name: &str| -> Option<u64> {
        let (_, value) = headers.iter().find(|(given, _)| given.eq_ignore_ascii_case(name))?;
        str::from_utf8(value).ok()?.trim().parse().ok()
    };
    if let Some(seconds) = number("retry-after") {
        return Some(seconds.saturating_mul(1_000));
    }
    let reset_ms = number("ratelimit-reset")?.saturating_mul(1_000);
    let now_ms = clock::unix_ms();
    let is_time = reset_ms > now_ms / 2;
    Some(if is_time { reset_ms.saturating_sub(now_ms) } else { reset_ms })
}

/// The words of the provider, wherever its kind of JSON has them; of another body the text, if it is some.
pub(super) fn explanation(body: &[u8]) -> Option<String> {
    let Ok(json) = serde_json::from_slice::<Value>(body) else {
        let text = str::from_utf8(body).ok()?.trim();
        return (!text.is_empty() && !text.starts_with('<')).then(|| text.to_owned());
    };
    let mut words = Vec::new();
    collect(&json, &mut words);
    (!words.is_empty()).then(|| words.join("; "))
}

/// Members that hold words, or what holds them. A member of any other name may be data.
fn collect(json: &Value, words: &mut Vec<String>) {
    match json {
        Value::String(text) if !words.contains(text) => words.push(text.clone()),
        Value::Array(items) => items.iter().for_each(|item| collect(item, words)),
        Value::Object(members) => {
            for name in ["message", "error", "errors", "error_chain", "error_description", "description", "detail"] {
                if let Some(value) = members.get(name) {
                    collect(value, words);
                }
            }
        }
        _ => {}
    }
}

/// On one line and not too long.
fn quoted(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ").replace('`', "'");
    match line.char_indices().nth(MAX_QUOTE) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_words_of_each_providers_json() {
        for (body, expected) in [
            (r#"{"id": "unauthorized", "message": "Unable to authenticate you"}"#, Some("Unable to authenticate you")),
            (r#"{"error": {"code": "not_found", "message": "zone not found"}}"#, Some("zone not found")),
            (
                r#"{"success": false, "errors": [{"code": 6003, "message": "Invalid request headers",
                    "error_chain": [{"code": 6111, "message": "Invalid format"}]}]}"#,
                Some("Invalid request headers; Invalid format"),
            ),
            (
                r#"{"error": "RRset x IN TXT: Duplicate record", "errors": []}"#,
                Some("RRset x IN TXT: Duplicate record"),
            ),
            (r#"{"detail": "Invalid token."}"#, Some("Invalid token.")),
            (r#"{"data": "abc"}"#, None),
            ("out\nof order", Some("out\nof order")),
            ("<html><body>502</body></html>", None),
            ("", None),
        ] {
            assert_eq!(explanation(body.as_bytes()).as_deref(), expected, "{body}");
        }
    }

    #[test]
    fn what_is_quoted_is_one_short_line_in_backticks() {
        assert_eq!(quoted("a\r\n `b`\tc"), "a 'b' c");
        assert_eq!(quoted(&"ä".repeat(400)).chars().count(), MAX_QUOTE + 1);
    }
}
