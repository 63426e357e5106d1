//! The chain of a route: the request phase of each middleware, the service, the response phases backwards.
//!
//! `entrypoint` runs it once a router has been found. It is a loop: no future is boxed, and a middleware whose plan is
//! fixed costs no call.

use std::rc::Rc;
use std::sync::Arc;

use http::StatusCode;

use crate::forward::Pools;
use crate::http::{Failure, Request, Response};
use crate::plugin::{Exchange, Instances, RequestVerdict, Step};
use crate::service::{Answer, InternalHandler, Service};

/// What a worker lends to the requests it runs: its own plugin instances and its own connections.
pub struct Resources {
    pub instances: Instances,
    pub pools: Rc<Pools>,
    pub internal: InternalHandler,
}

/// The middlewares of a router in their order, and its service.
pub struct Chain {
    steps: Vec<Step>,
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
    pub fn new(steps: Vec<Step>, service: Arc<Service>) -> Self {
        let responding = || steps.iter().map(|step| &step.configured).filter(|middleware| middleware.plan.on_response);
        let has_response_calls = responding().next().is_some();
        let keeps_exchange = responding().any(|middleware| middleware.asks_for_connection());
        Self { steps, service, has_response_calls, keeps_exchange }
    }

    pub async fn run(&self, resources: &Resources, request: &mut Request) -> Outcome {
        let tls = request.connection.tls.is_some();
        let facts = self.keeps_exchange.then(|| Exchange::of(request));
        let mut entered = 0;
        let mut states = Vec::new();
        let mut early = None;
        for step in &self.steps {
            let headers = &mut request.head.headers;
            step.configured.plan.request_edits.iter().for_each(|edit| edit.apply_to_request(headers, tls));
            match enter(step, resources, request).await {
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
        for step in self.steps[..entered].iter().rev() {
            let plan = &step.configured.plan;
            let headers = outcome.response.headers_mut();
            plan.response_edits.iter().for_each(|edit| edit.apply(headers, tls));
            let state = states.pop().unwrap_or_default();
            if plan.on_response {
                leave(step, resources, &state, facts.clone(), request.hops, &mut outcome).await;
            }
        }
        outcome
    }
}

async fn enter(step: &Step, resources: &Resources, request: &mut Request) -> Result<Entered, Failure> {
    if !step.configured.plan.on_request {
        return Ok(Entered::On(Vec::new()));
    }
    match resources.instances.on_request(step, request).await? {
        RequestVerdict::Continue(state) => Ok(Entered::On(state)),
        RequestVerdict::Delay(delay, state) => {
            tokio::time::sleep(delay).await;
            Ok(Entered::On(state))
        }
        RequestVerdict::Reply(response) => Ok(Entered::Reply(response)),
    }
}

enum Entered {
    /// The request goes on; the bytes are the middleware's until its response phase.
    On(Vec<u8>),
    Reply(Response),
}

async fn leave(
    step: &Step,
    resources: &Resources,
    state: &[u8],
    facts: Option<Exchange>,
    hops: u8,
    outcome: &mut Outcome,
) {
    let response = std::mem::take(&mut outcome.response);
    match resources.instances.on_response(step, state, facts, hops, response).await {
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
