//! The plan: what `init` asks of the host. The less it asks, the less a request costs.

use crate::bindings::exports::weir::plugin::middleware::Phases;
use crate::{BodyMode, FixedEdit, HeaderEdit, Plan, Transport};

impl Plan {
    /// Nothing to do and nothing to call.
    #[expect(clippy::new_without_default, reason = "generated types have one way to be made")]
    #[must_use]
    pub const fn new() -> Self {
        Self {
            phases: Phases::empty(),
            request_edits: Vec::new(),
            response_edits: Vec::new(),
            request_headers: Vec::new(),
            response_headers: Vec::new(),
            request_body: BodyMode::None,
            response_body: BodyMode::None,
        }
    }

    /// Asks for `on_request`, with these headers at hand. Others can be read too, each at the cost of a call to the
    /// host.
    #[must_use]
    pub fn on_request(mut self, headers: &[&str]) -> Self {
        self.phases |= Phases::REQUEST;
        self.request_headers.extend(headers.iter().map(|name| name.to_ascii_lowercase()));
        self
    }

    /// Asks for `on_response`, with these headers at hand.
    #[must_use]
    pub fn on_response(mut self, headers: &[&str]) -> Self {
        self.phases |= Phases::RESPONSE;
        self.response_headers.extend(headers.iter().map(|name| name.to_ascii_lowercase()));
        self
    }

    /// An edit of every request, made by the host before `on_request`, in the order given. One that cannot be used is an error of
    /// `init`: `Plan::new().edit_request(HeaderEdit::remove("x-user"))` keeps clients from naming themselves.
    #[must_use]
    pub fn edit_request(mut self, edit: HeaderEdit) -> Self {
        self.request_edits.push(FixedEdit { edit, on: Transport::Any });
        self
    }

    /// An edit of every response but own replies, made by the host before `on_response`, in the order given.
    #[must_use]
    pub fn edit_response(self, edit: HeaderEdit) -> Self {
        self.edit_response_on(Transport::Any, edit)
    }

    /// The same for the responses to requests that came by this transport.
    #[must_use]
    pub fn edit_response_on(mut self, on: Transport, edit: HeaderEdit) -> Self {
        self.response_edits.push(FixedEdit { edit, on });
        self
    }

    /// What to have of the request's body when `on_request` is called, for every request of the middleware, whatever its path:
    /// `BodyMode::Buffered(65536)` answers 413 to all longer ones. To look at some, put the middleware on a router of its own, or
    /// use `BodyMode::Peek(65536)` and ask [`Request::body_complete`](crate::Request::body_complete). What is at hand goes on to
    /// the server all the same. The administrator allows 1 MiB if nothing else is said.
    #[must_use]
    pub const fn request_body(mut self, mode: BodyMode) -> Self {
        self.request_body = mode;
        self
    }

    /// What to have of the response's body when `on_response` is called: the same, with 502 for a longer one.
    #[must_use]
    pub const fn response_body(mut self, mode: BodyMode) -> Self {
        self.response_body = mode;
        self
    }
}
