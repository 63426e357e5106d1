//! The chain of a route: the request phase of each middleware, the service, the response phases backwards.
//!
//! `entrypoint` runs it once a router has been found. It is a loop: no future is boxed, and a middleware whose plan is
//! fixed costs no call.

use std::rc::Rc;
use std::sync::Arc;

use http::StatusCode;

use crate::forward::Pools;
use crate::http::{Failure, Request, Response};
use crate::plugin::{Configured, Exchange, Instances, RequestVerdict};
use crate::service::{Answer, InternalHandler, Service};

/// What a worker lends to the requests it runs: its own plugin instances and its own connections.
pub struct Resources {
    pub instances: Instances,
    pub pools: Rc<Pools>,
    pub internal: InternalHandler,
}

/// The middlewares of a router in their order, and its service.
pub struct Chain {
    middlewares: Vec<Arc<Configured>>,
    pub service: Arc<Service>,
    has_response_calls: bool,
    /// Whether a response call needs to know of the request's connection.
    keeps_exchange: bool,
}

/// What a request got.
pub struct Outcome {
    pub response: Response,
    /// The URL of the server it came from, or should have.
    pub server: Option<Arc<str>>,
    /// Why the response is the proxy's own, if it is.
    pub failure: Option<Failure>,
}

impl Chain {
    pub fn new(middlewares: Vec<Arc<Configured>>, service: Arc<Service>) -> Self {
        let has_response_calls = middlewares.iter().any(|middleware| middleware.plan.on_response);
        let keeps_exchange =
            middlewares.iter().any(|middleware| middleware.plan.on_response && middleware.asks_for_connection());
        Self { middlewares, service, has_response_calls, keeps_exchange }
    }

    pub async fn run(&self, resources: &Resources, router: &str, request: &mut Request) -> Outcome {
        let tls = request.connection.tls.is_some();
        let facts = self.keeps_exchange.then(|| Exchange::of(request));
        let mut entered = 0;
        let mut states = Vec::new();
        let mut early = None;
        for middleware in &self.middlewares {
            let headers = &mut request.head.headers;
            middleware.plan.request_edits.iter().for_each(|edit| edit.apply_to_request(headers, tls));
            match self.enter(middleware, resources, router, request).await {
                Ok(Entered::On(state)) if self.has_response_calls => states.push(state),
                Ok(Entered::On(_)) => {}
                Ok(Entered::Reply(response)) => {
                    early = Some(Outcome { response, server: None, failure: None });
                    break;
                }
                Err(failure) => {
                    early = Some(failure.into());
                    break;
                }
            }
            entered += 1;
        }
        let mut outcome = match early {
            Some(outcome) => outcome,
            None => self.service.call(&resources.pools, &resources.internal, request).await.into(),
        };
        // The head of an upgrade is the server's: what follows it is no HTTP.
        if outcome.response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return outcome;
        }
        for middleware in self.middlewares[..entered].iter().rev() {
            let headers = outcome.response.headers_mut();
            middleware.plan.response_edits.iter().for_each(|edit| edit.apply(headers, tls));
            let state = states.pop().unwrap_or_default();
            if middleware.plan.on_response {
                leave(middleware, resources, &state, facts.clone(), &mut outcome).await;
            }
        }
        outcome
    }

    async fn enter(
        &self,
        middleware: &Arc<Configured>,
        resources: &Resources,
        router: &str,
        request: &mut Request,
    ) -> Result<Entered, Failure> {
        if !middleware.plan.on_request {
            return Ok(Entered::On(Vec::new()));
        }
        match resources.instances.on_request(middleware, request, router).await? {
            RequestVerdict::Continue(state) => Ok(Entered::On(state)),
            RequestVerdict::Delay(delay, state) => {
                tokio::time::sleep(delay).await;
                Ok(Entered::On(state))
            }
            RequestVerdict::Reply(response) => Ok(Entered::Reply(response)),
        }
    }
}

enum Entered {
    /// The request goes on; the bytes are the middleware's until its response phase.
    On(Vec<u8>),
    Reply(Response),
}

async fn leave(
    middleware: &Arc<Configured>,
    resources: &Resources,
    state: &[u8],
    facts: Option<Exchange>,
    outcome: &mut Outcome,
) {
    let response = std::mem::take(&mut outcome.response);
    match resources.instances.on_response(middleware, state, facts, response).await {
        Ok(response) => outcome.response = response,
        Err(failure) => *outcome = failure.into(),
    }
}

impl From<Failure> for Outcome {
    fn from(failure: Failure) -> Self {
        Self { response: failure.response(), server: None, failure: Some(failure) }
    }
}

impl From<Answer> for Outcome {
    fn from(Answer { response, server }: Answer) -> Self {
        match response {
            Ok(response) => Self { response, server, failure: None },
            Err(failure) => Self { server, ..failure.into() },
        }
    }
}
