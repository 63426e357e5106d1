//! What a middleware answers: edits, replies, verdicts and errors, built by chaining. Pure values; the host applies
//! them.

use crate::{Error, ErrorKind, HeaderEdit, Reply, RequestEdit, RequestVerdict, ResponseEdit, ResponseVerdict};

/// What becomes of a request, and what to remember of it until its response. Made from a [`RequestEdit`] or a [`Reply`]
/// with `into`, or by [`Decision::pass`].
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    pub verdict: RequestVerdict,
    /// At most 4 KiB.
    pub state: Vec<u8>,
}

impl Decision {
    /// The request goes on as it is.
    #[must_use]
    pub fn pass() -> Self {
        RequestVerdict::Pass.into()
    }

    /// Hands at most 4 KiB to `on_response` of the same request.
    #[must_use]
    pub fn remember(self, state: impl Into<Vec<u8>>) -> Self {
        Self { state: state.into(), ..self }
    }
}

impl From<RequestVerdict> for Decision {
    fn from(verdict: RequestVerdict) -> Self {
        Self { verdict, state: Vec::new() }
    }
}

impl From<RequestEdit> for Decision {
    fn from(edit: RequestEdit) -> Self {
        RequestVerdict::Edit(edit).into()
    }
}

impl From<Reply> for Decision {
    fn from(reply: Reply) -> Self {
        RequestVerdict::Reply(reply).into()
    }
}

impl From<ResponseEdit> for ResponseVerdict {
    fn from(edit: ResponseEdit) -> Self {
        Self::Edit(edit)
    }
}

impl From<Reply> for ResponseVerdict {
    fn from(reply: Reply) -> Self {
        Self::Reply(reply)
    }
}

/// Names are turned to lower case; values are taken as they are. Check what comes from a configuration, or from a client, with
/// [`header`](crate::header): a control character in a value is a 500, and so is a field that is the host's, such as
/// `content-length`. On a request, `host` and `x-forwarded-…` need a grant. An answer may have 100 edits with 128 KiB.
impl HeaderEdit {
    /// Replaces all lines of that name by one.
    pub fn set(name: &str, value: impl Into<Vec<u8>>) -> Self {
        Self::Set((name.to_ascii_lowercase(), value.into()))
    }

    /// Adds a line after those there are.
    pub fn append(name: &str, value: impl Into<Vec<u8>>) -> Self {
        Self::Append((name.to_ascii_lowercase(), value.into()))
    }

    /// Deletes all lines of that name.
    #[must_use]
    pub fn remove(name: &str) -> Self {
        Self::Remove(name.to_ascii_lowercase())
    }
}

impl RequestEdit {
    /// Changes nothing yet.
    #[expect(clippy::new_without_default, reason = "generated types have one way to be made")]
    #[must_use]
    pub const fn new() -> Self {
        Self {
            method: None,
            authority: None,
            path_with_query: None,
            headers: Vec::new(),
            body: None,
            filter: None,
            delay_ms: 0,
        }
    }

    /// Replaces all lines of that name by one.
    #[must_use]
    pub fn set(self, name: &str, value: impl Into<Vec<u8>>) -> Self {
        self.header(HeaderEdit::set(name, value))
    }

    /// Adds a line after those there are.
    #[must_use]
    pub fn append(self, name: &str, value: impl Into<Vec<u8>>) -> Self {
        self.header(HeaderEdit::append(name, value))
    }

    /// Deletes all lines of that name.
    #[must_use]
    pub fn remove(self, name: &str) -> Self {
        self.header(HeaderEdit::remove(name))
    }

    /// One more change to the headers.
    #[must_use]
    pub fn header(mut self, edit: HeaderEdit) -> Self {
        self.headers.push(edit);
        self
    }

    /// Any method but CONNECT; its case counts.
    #[must_use]
    pub fn method(mut self, method: impl Into<String>) -> Self {
        self.method = Some(method.into());
        self
    }

    /// Host and optional port that go on: `b.example:8080`. Needs the grant `allow.forwardingHeaders`.
    #[must_use]
    pub fn authority(mut self, authority: impl Into<String>) -> Self {
        self.authority = Some(authority.into());
        self
    }

    /// Path and query that go on, percent-encoded and starting with `/`.
    #[must_use]
    pub fn path(mut self, path_with_query: impl Into<String>) -> Self {
        self.path_with_query = Some(path_with_query.into());
        self
    }

    /// Replaces the body, at most 1.5 MiB with all else of the edit.
    #[must_use]
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = Some(body.into());
        self
    }

    /// Streams the body through the plugin's [`BodyFilter`](crate::BodyFilter), which begins with this state, at most
    /// 4 KiB. The host removes `Content-Length`.
    #[must_use]
    pub fn filter(mut self, state: impl Into<Vec<u8>>) -> Self {
        self.filter = Some(state.into());
        self
    }

    /// The host waits so many milliseconds before the request goes on. A [`Reply`] cannot be delayed: to slow somebody down, let
    /// [`shared::take`](crate::shared::take) say how long he has to wait for his turn, and put that here.
    #[must_use]
    pub const fn delay_ms(mut self, delay_ms: u32) -> Self {
        self.delay_ms = delay_ms;
        self
    }
}

impl ResponseEdit {
    /// Changes nothing yet.
    #[expect(clippy::new_without_default, reason = "generated types have one way to be made")]
    #[must_use]
    pub const fn new() -> Self {
        Self { status: None, headers: Vec::new(), body: None, filter: None }
    }

    /// Replaces all lines of that name by one.
    #[must_use]
    pub fn set(self, name: &str, value: impl Into<Vec<u8>>) -> Self {
        self.header(HeaderEdit::set(name, value))
    }

    /// Adds a line after those there are.
    #[must_use]
    pub fn append(self, name: &str, value: impl Into<Vec<u8>>) -> Self {
        self.header(HeaderEdit::append(name, value))
    }

    /// Deletes all lines of that name.
    #[must_use]
    pub fn remove(self, name: &str) -> Self {
        self.header(HeaderEdit::remove(name))
    }

    /// One more change to the headers.
    #[must_use]
    pub fn header(mut self, edit: HeaderEdit) -> Self {
        self.headers.push(edit);
        self
    }

    /// 200 to 599.
    #[must_use]
    pub const fn status(mut self, status: u16) -> Self {
        self.status = Some(status);
        self
    }

    /// Replaces the body, at most 1.5 MiB with all else of the edit.
    #[must_use]
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = Some(body.into());
        self
    }

    /// Streams the body through the plugin's [`BodyFilter`](crate::BodyFilter), which begins with this state, at most
    /// 4 KiB. The host removes `Content-Length`.
    #[must_use]
    pub fn filter(mut self, state: impl Into<Vec<u8>>) -> Self {
        self.filter = Some(state.into());
        self
    }
}

impl Reply {
    /// A reply of that status, 200 to 599, without headers and body.
    #[must_use]
    pub const fn new(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Vec::new() }
    }

    /// One more field line. The host adds `Date` and `Content-Length`.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl Into<Vec<u8>>) -> Self {
        self.headers.push((name.to_ascii_lowercase(), value.into()));
        self
    }

    /// Replaces the body, at most 1.5 MiB with all else of the reply.
    #[must_use]
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }
}

impl Error {
    /// The message is lower case, has no full stop and reads after "failed to":
    ///
    /// ```
    /// # use weir_sdk::{Error, ErrorKind};
    /// Error::new(ErrorKind::Unavailable, "reach the list of users");
    /// Error::invalid_config("use the prefix `api`: begin it with `/`");
    /// ```
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), retry_after_ms: None }
    }

    /// For `init`: say what is wrong and what to write instead, with the user's text in backticks.
    pub fn invalid_config(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidConfig, message)
    }
}
