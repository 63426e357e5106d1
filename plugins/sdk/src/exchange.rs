//! The request of a [`fetch`](crate::fetch), built by chaining.

use crate::fetch::Request;

/// How much of an answer is wanted if nothing is said.
const MAX_BODY: u32 = 64 << 10;

/// ```no_run
/// use weir_sdk::fetch::{self, Request};
///
/// fn active(token: &str) -> Result<bool, weir_sdk::Error> {
///     let form = format!("token={token}");
///     let request = Request::new("POST", "https://id.example/introspect")
///         .header("content-type", "application/x-www-form-urlencoded")
///         .body(form)
///         .timeout_ms(2000);
///     let response = fetch::send(&request)?;
///     Ok(response.status == 200 && response.body.starts_with(b"{\"active\":true"))
/// }
/// ```
impl Request {
    /// Without field lines, content and TLS settings of its own, for an answer of at most 64 KiB within the usual time. The URL
    /// is absolute.
    pub fn new(method: &str, url: impl Into<String>) -> Self {
        Self {
            method: method.to_owned(),
            url: url.into(),
            headers: Vec::new(),
            body: Vec::new(),
            timeout_ms: 0,
            max_body: MAX_BODY,
            tls: None,
        }
    }

    /// One more field line, of at most 100.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl Into<Vec<u8>>) -> Self {
        self.headers.push((name.to_ascii_lowercase(), value.into()));
        self
    }

    /// Replaces the content, which has at most 1 MiB.
    #[must_use]
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// Milliseconds for the whole exchange; 0 stands for the usual, which is also the most that a middleware has
    /// (`limits.fetch`).
    #[must_use]
    pub const fn timeout_ms(mut self, timeout_ms: u32) -> Self {
        self.timeout_ms = timeout_ms;
        self
    }

    /// Bytes of the answer's content, at most 4 MiB; more is the error too-large.
    #[must_use]
    pub const fn max_body(mut self, max_body: u32) -> Self {
        self.max_body = max_body;
        self
    }
}
