//! The glue between the generated bindings and a [`Middleware`]. Called by the code that `export!` writes and by
//! nothing else; no part of the interface that plugins are written against.

use std::cell::OnceCell;

use crate::{Error, Middleware, Plan, Request, Response, ResponseVerdict};

pub use crate::bindings::exports::weir::plugin::middleware::{Guest as Calls, RequestVerdict};
pub use crate::bindings::weir::plugin::exchange::Message;
pub use crate::bindings::weir::plugin::types::{RequestHead, ResponseHead};

/// The one middleware of a component instance, from `init` on.
pub struct Instance<M>(OnceCell<Ready<M>>);

struct Ready<M> {
    middleware: M,
    /// Names of the headers that come with the calls, in the plan's order.
    request_headers: Vec<String>,
    response_headers: Vec<String>,
}

impl<M: Middleware> Instance<M> {
    #[expect(clippy::new_without_default, reason = "made by `export!` only, in a constant")]
    pub const fn new() -> Self {
        Self(OnceCell::new())
    }

    pub fn init(&self, config: &str) -> Result<Plan, Error> {
        let config = serde_json::from_str(config)
            .map_err(|problem| Error::invalid_config(format!("read the options: {problem}")))?;
        let (middleware, plan) = M::init(config)?;
        let ready = Ready {
            middleware,
            request_headers: plan.request_headers.clone(),
            response_headers: plan.response_headers.clone(),
        };
        match self.0.set(ready) {
            Ok(()) => Ok(plan),
            Err(_) => Err(Error::new(crate::ErrorKind::Internal, "initialise an instance twice")),
        }
    }

    pub fn on_request(&self, head: RequestHead, message: &Message) -> (RequestVerdict, Vec<u8>) {
        let ready = self.ready();
        let decision = ready.middleware.on_request(&Request::from_host(head, &ready.request_headers, message));
        (decision.verdict, decision.state)
    }

    pub fn on_response(&self, state: &[u8], head: ResponseHead, message: &Message) -> ResponseVerdict {
        let ready = self.ready();
        ready.middleware.on_response(state, &Response::from_host(head, &ready.response_headers, message))
    }

    /// For its filters.
    pub fn middleware(&self) -> &M {
        &self.ready().middleware
    }

    fn ready(&self) -> &Ready<M> {
        self.0.get().expect("the host calls init before anything else")
    }
}

/// Makes `export!` an error for what is no middleware, also where nothing is exported.
pub const fn check<M: Middleware>() {}
