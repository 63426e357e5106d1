//! Calls of middlewares: what a request or a response becomes by what a guest answers.
//!
//! Each worker has one [`Instances`]; `middleware` calls through it. Nothing that a guest answers is applied unchecked.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use http::header::CONTENT_LENGTH;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use http_body::Body as _;

use super::bindings::middleware::exports::weir::plugin::middleware as wit;
use super::edit::BodyMode;
use super::filter::{Direction, Wanted};
use super::imports::Exchange;
use super::limits::in_time;
use super::pool::{Instance, Lease, Pool};
use super::usage::Cause;
use super::verdict::{self, OnRequest, OnResponse};
use super::{Step, body, filter};
use crate::http::{Body, Failure, Request, Response};

/// The most that a guest may hand from its request phase to its response phase.
const STATE_BYTES_AT_MOST: usize = 4 << 10;

/// The idle instances of one worker, by configured plugin. Never locked: a worker is one thread.
pub struct Instances {
    /// Counted from 0.
    worker: usize,
    pools: RefCell<BTreeMap<u64, Rc<Pool>>>,
}

/// What a plugin decided in the request phase.
pub enum RequestVerdict {
    /// Go on; the bytes come back in the response phase.
    Continue(Vec<u8>),
    /// Go on after so long.
    Delay(Duration, Vec<u8>),
    Reply(Response),
}

impl Instances {
    /// `worker` is counted from 0.
    pub fn of_worker(worker: usize) -> Self {
        Self { worker, pools: RefCell::default() }
    }

    /// Calls `on-request` and applies what it answers to the request.
    pub async fn on_request(&self, step: &Step, request: &mut Request) -> Result<RequestVerdict, Failure> {
        match self.verdict(step, request).await {
            Err(failure) if self.goes_on_without(step, &failure) => Ok(RequestVerdict::Continue(Vec::new())),
            verdict => verdict,
        }
    }

    /// Whether a request goes on as if the middleware were not there. Nobody else hears of the failure.
    fn goes_on_without(&self, step: &Step, failure: &Failure) -> bool {
        if !step.goes_on_without(failure) {
            return false;
        }
        let router = &*step.usage.router;
        match self.pool(step).may_be_logged() {
            true => tracing::error!(router, "a request went on without a middleware: {failure}"),
            false => tracing::debug!(router, "a request went on without a middleware: {failure}"),
        }
        true
    }

    async fn verdict(&self, step: &Step, request: &mut Request) -> Result<RequestVerdict, Failure> {
        let plugin = &step.configured;
        let ahead = match plugin.plan.request_body {
            BodyMode::None => None,
            _ => Some(Box::pin(body::of_request(plugin, request)).await?),
        };
        let mut lease = self.take(step).await?;
        let exchange = plugin.asks_for_connection().then(|| Exchange::of(request));
        let Request { head, connection, hops, .. } = &mut *request;
        let subject = Subject {
            method: &head.method,
            tls: connection.tls.is_some(),
            uri: &head.uri,
            headers: named(&head.headers, &plugin.plan.request_headers),
        };
        let instance = lease.enter(&mut head.headers, exchange, *hops);
        instance.store.data_mut().body = ahead;
        let answer = if plugin.pace.is_slow() {
            Box::pin(on_request_aside(&mut lease, subject)).await
        } else {
            instance.on_request(&subject).await
        };
        let (verdict, state) = lease.leave(&mut request.head.headers, answer)?;
        if state.len() > STATE_BYTES_AT_MOST {
            let reason = format!("its state has {} bytes: at most {STATE_BYTES_AT_MOST} are kept", state.len());
            return Err(lease.failed(Cause::Answer, &reason));
        }
        let verdict = verdict::on_request(verdict, &plugin.plugin);
        let verdict = verdict.map_err(|reason| lease.failed(Cause::Answer, &reason))?;
        drop(lease);
        let mut change = match verdict {
            OnRequest::Pass => return Ok(RequestVerdict::Continue(state)),
            OnRequest::Reply(response) => return Ok(RequestVerdict::Reply(response)),
            OnRequest::Change(change) => change,
        };
        change.apply(request);
        let verdict = match change.delay {
            Duration::ZERO => RequestVerdict::Continue(state),
            delay => RequestVerdict::Delay(delay, state),
        };
        match change.filter {
            Some(filter) => Box::pin(self.filter_request(step, filter, request, verdict)).await,
            None => Ok(verdict),
        }
    }

    /// Calls `on-response` and applies what it answers. An answer may replace the response.
    pub async fn on_response(
        &self,
        step: &Step,
        state: &[u8],
        exchange: Option<Exchange>,
        hops: u8,
        mut response: Response,
    ) -> Result<Response, Failure> {
        let ahead = match step.configured.plan.response_body {
            BodyMode::None => None,
            _ => Some(Box::pin(body::of_response(&step.configured, &mut response)).await?),
        };
        let plugin = &step.configured;
        let mut lease = match self.take(step).await {
            Err(failure) if self.goes_on_without(step, &failure) => return Ok(response),
            lease => lease?,
        };
        let (mut head, mut body) = response.into_parts();
        let values = named(&head.headers, &step.configured.plan.response_headers);
        let status = head.status.as_u16();
        let facts = exchange.clone().filter(|_| step.configured.plugin.filter.is_some());
        let instance = lease.enter(&mut head.headers, exchange, hops);
        instance.store.data_mut().body = ahead;
        let answer = if step.configured.pace.is_slow() {
            let state = state.to_vec();
            let call = lease
                .call(move |instance| Box::pin(async move { instance.on_response(status, &state, &values).await }));
            Box::pin(call).await
        } else {
            instance.on_response(status, state, &values).await
        };
        let verdict = lease.leave(&mut head.headers, answer);
        let verdict = verdict.and_then(|verdict| {
            let verdict = verdict::on_response(verdict, &plugin.plugin);
            verdict.map_err(|reason| lease.failed(Cause::Answer, &reason))
        });
        drop(lease);
        let mut change = match verdict {
            Ok(OnResponse::Pass) => return Ok(Response::from_parts(head, body)),
            Ok(OnResponse::Reply(response)) => return Ok(response),
            Ok(OnResponse::Change(change)) => change,
            Err(failure) if self.goes_on_without(step, &failure) => return Ok(Response::from_parts(head, body)),
            Err(failure) => return Err(failure),
        };
        change.apply(&mut head, &mut body);
        let response = Response::from_parts(head, body);
        match change.filter {
            Some(filter) => Box::pin(self.filter_response(step, filter, (facts, hops), response)).await,
            None => Ok(response),
        }
    }

    /// Puts the plugin's filter around the body. A wait comes before, since an instance is held from then on.
    async fn filter_request(
        &self,
        step: &Step,
        wanted: Wanted,
        request: &mut Request,
        mut verdict: RequestVerdict,
    ) -> Result<RequestVerdict, Failure> {
        if let RequestVerdict::Delay(delay, state) = verdict {
            tokio::time::sleep(delay).await;
            verdict = RequestVerdict::Continue(state);
        }
        if !request.body.is_end_stream() {
            request.head.headers.remove(CONTENT_LENGTH);
            let exchange = step.configured.asks_for_connection().then(|| Exchange::of(request));
            let about = (exchange, request.hops);
            let lease = self.pool(step).hold(step.clone(), self.worker).await?;
            let body = std::mem::take(&mut request.body);
            let filtered = filter::filtered(lease, wanted, Direction::Request, about, body).await?;
            request.body = filtered.without_trailers();
        }
        Ok(verdict)
    }

    /// The same for a response. The length that is removed from one to HEAD is not that of what GET gets.
    async fn filter_response(
        &self,
        step: &Step,
        wanted: Wanted,
        about: (Option<Exchange>, u8),
        response: Response,
    ) -> Result<Response, Failure> {
        let (mut head, mut body) = response.into_parts();
        head.headers.remove(CONTENT_LENGTH);
        if !body.is_end_stream() {
            let lease = self.pool(step).hold(step.clone(), self.worker).await?;
            body = filter::filtered(lease, wanted, Direction::Response, about, body).await?;
        }
        Ok(Response::from_parts(head, body))
    }

    /// Puts the plugin's filter around the body of a response, though no verdict asks for it. The filter begins with no
    /// state.
    pub async fn filter(&self, step: &Step, body: Body) -> Result<Body, Failure> {
        let lease = self.pool(step).hold(step.clone(), self.worker).await?;
        let wanted = Wanted::of(&step.configured.plugin, Vec::new()).map_err(Failure::Plugin)?;
        filter::filtered(lease, wanted, Direction::Response, (None, 0), body).await
    }

    /// Makes an instance before any request asks for one. Answers the bytes of memory that it has after `init`.
    pub async fn start(&self, step: &Step) -> anyhow::Result<usize> {
        self.pool(step).start().await
    }

    /// Forgets the instances of plugins that no configuration names any more, and those that were not needed lately.
    pub fn prune(&self) {
        let mut pools = self.pools.borrow_mut();
        pools.retain(|_, pool| pool.is_needed());
        pools.values().for_each(|pool| pool.prune());
    }

    async fn take<'a>(&self, step: &'a Step) -> Result<Lease<'a>, Failure> {
        self.pool(step).take(step, self.worker).await
    }

    fn pool(&self, step: &Step) -> Rc<Pool> {
        let plugin = &step.configured;
        let mut pools = self.pools.borrow_mut();
        if let Some(pool) = pools.get(&plugin.id) {
            return Rc::clone(pool);
        }
        // A reload has brought it. What that has replaced goes now, or many reloads in a row would heap it up.
        pools.retain(|_, pool| pool.is_needed());
        let pool = Rc::new(Pool::of(plugin));
        pools.insert(plugin.id, Rc::clone(&pool));
        pool
    }
}

/// What a call is about.
struct Subject<'a> {
    method: &'a Method,
    tls: bool,
    uri: &'a Uri,
    /// Those that the plan names.
    headers: Vec<Option<HeaderValue>>,
}

impl Instance {
    async fn on_request(&mut self, subject: &Subject<'_>) -> wasmtime::Result<(wit::RequestVerdict, Vec<u8>)> {
        let headers = bytes(&subject.headers);
        let head = wit::RequestHead {
            method: subject.method.as_str(),
            tls: subject.tls,
            path_with_query: subject.uri.path_and_query().map_or("/", |target| target.as_str()),
            headers: &headers,
        };
        let Self { store, guest, .. } = self;
        in_time(&store.data().meter.clone(), pin!(guest.weir_plugin_middleware().call_on_request(store, head))).await
    }

    async fn on_response(
        &mut self,
        status: u16,
        state: &[u8],
        headers: &[Option<HeaderValue>],
    ) -> wasmtime::Result<wit::ResponseVerdict> {
        let head = wit::ResponseHead { status, headers: &bytes(headers) };
        let Self { store, guest, .. } = self;
        in_time(&store.data().meter.clone(), pin!(guest.weir_plugin_middleware().call_on_response(store, state, head)))
            .await
    }
}

/// The same for a middleware that has run long. What the call is about must outlive this worker's wait for it.
async fn on_request_aside(
    lease: &mut Lease<'_>,
    subject: Subject<'_>,
) -> wasmtime::Result<(wit::RequestVerdict, Vec<u8>)> {
    let Subject { method, tls, uri, headers } = subject;
    let (method, uri) = (method.clone(), uri.clone());
    lease
        .call(move |instance| {
            Box::pin(async move {
                let subject = Subject { method: &method, tls, uri: &uri, headers };
                instance.on_request(&subject).await
            })
        })
        .await
}

fn named(headers: &HeaderMap, names: &[HeaderName]) -> Vec<Option<HeaderValue>> {
    names.iter().map(|name| headers.get(name).cloned()).collect()
}

fn bytes(values: &[Option<HeaderValue>]) -> Vec<Option<&[u8]>> {
    values.iter().map(|value| value.as_ref().map(HeaderValue::as_bytes)).collect()
}
