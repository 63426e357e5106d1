//! Instances of plugins: made, called within limits, kept for the next request, dropped after a trap.
//!
//! Each worker has one [`Instances`]; `middleware` calls through it. An instance is held only while a call runs.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use anyhow::{Context, anyhow};
use bytes::Bytes;
use http::header::HOST;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde_json::Value;
use wasmtime::Store;
use wasmtime::component::Resource;

use super::bindings::middleware::exports::weir::plugin::middleware as wit;
use super::bindings::middleware::{MinimalMiddleware, MinimalMiddlewarePre};
use super::edit::{self, HeaderEdit, Plan};
use super::imports::{Exchange, Message, State};
use super::limits::{self, INIT_BUDGET, allow, trap_reason};
use super::{Configured, opaque};
use crate::http::{Failure, Request, Response, ResponseHead};
use crate::target;

/// The most that a guest may hand from its request phase to its response phase.
const STATE_BYTES_AT_MOST: usize = 4 << 10;
/// Calls of one configured plugin that may run on one worker at the same time.
const RUNNING_AT_MOST: usize = 64;

/// The idle instances of one worker, by configured plugin. Never locked: a worker is one thread.
#[derive(Default)]
pub struct Instances {
    pools: RefCell<BTreeMap<u64, Rc<Pool>>>,
}

struct Pool {
    of: Weak<Configured>,
    idle: RefCell<Vec<Instance>>,
    running: Cell<usize>,
}

struct Instance {
    store: Store<State>,
    guest: MinimalMiddleware,
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
    /// Calls `on-request` and applies what it answers to the request.
    pub async fn on_request(
        &self,
        plugin: &Arc<Configured>,
        request: &mut Request,
        router: &str,
    ) -> Result<RequestVerdict, Failure> {
        let mut lease = self.take(plugin).await?;
        let exchange = plugin.asks_for_connection().then(|| Exchange::of(request));
        let Request { head, connection, .. } = &mut *request;
        let method = head.method.clone();
        let authority = head.headers.get(HOST).cloned();
        let values = named(&head.headers, &plugin.plan.request_headers);
        let headers = bytes(&values);
        let argument = wit::RequestHead {
            method: method.as_str(),
            tls: connection.tls.is_some(),
            authority: text(authority.as_ref()),
            path_with_query: head.uri.path_and_query().map_or("/", |target| target.as_str()),
            client_address: text(Some(&connection.client_address)),
            router,
            headers: &headers,
        };
        let Instance { store, guest } = lease.enter(&mut head.headers, exchange);
        let answer =
            guest.weir_plugin_middleware().call_on_request(store, argument, Resource::<Message>::new_borrow(0)).await;
        let (verdict, state) = lease.leave(&mut request.head.headers, answer)?;
        if state.len() > STATE_BYTES_AT_MOST {
            let reason = format!("its state has {} bytes: at most {STATE_BYTES_AT_MOST} are kept", state.len());
            return Err(failed(plugin, &reason));
        }
        apply_to_request(verdict, state, request).map_err(|reason| failed(plugin, &reason))
    }

    /// Calls `on-response` and applies what it answers. An answer may replace the response.
    pub async fn on_response(
        &self,
        plugin: &Arc<Configured>,
        state: &[u8],
        exchange: Option<Exchange>,
        response: Response,
    ) -> Result<Response, Failure> {
        let mut lease = self.take(plugin).await?;
        let (mut head, body) = response.into_parts();
        let values = named(&head.headers, &plugin.plan.response_headers);
        let headers = bytes(&values);
        let argument = wit::ResponseHead { status: head.status.as_u16(), headers: &headers };
        let Instance { store, guest } = lease.enter(&mut head.headers, exchange);
        let answer = guest
            .weir_plugin_middleware()
            .call_on_response(store, state, argument, Resource::<Message>::new_borrow(0))
            .await;
        let verdict = lease.leave(&mut head.headers, answer)?;
        apply_to_response(verdict, &mut head)
            .map(|replacement| match replacement {
                Replacement::None => Response::from_parts(head, body),
                Replacement::Body(bytes) => {
                    head.headers.remove(http::header::CONTENT_LENGTH);
                    Response::from_parts(head, bytes.into())
                }
                Replacement::Whole(response) => response,
            })
            .map_err(|reason| failed(plugin, &reason))
    }

    /// Forgets the instances of plugins that no configuration names any more.
    pub fn prune(&self) {
        self.pools.borrow_mut().retain(|_, pool| pool.of.strong_count() > 0 || pool.running.get() > 0);
    }

    async fn take<'a>(&self, plugin: &'a Arc<Configured>) -> Result<Lease<'a>, Failure> {
        plugin.calls.fetch_add(1, Ordering::Relaxed);
        let mut lease = self.pool(plugin).lease(plugin)?;
        if lease.instance.is_none() {
            let made = Box::pin(initialised(plugin)).await.map_err(|error| failed(plugin, &format!("{error:#}")))?;
            lease.instance = Some(made);
        }
        Ok(lease)
    }

    fn pool(&self, plugin: &Arc<Configured>) -> Rc<Pool> {
        let mut pools = self.pools.borrow_mut();
        Rc::clone(pools.entry(plugin.id).or_insert_with(|| Rc::new(Pool::of(plugin))))
    }
}

impl Pool {
    fn of(plugin: &Arc<Configured>) -> Self {
        Self { of: Arc::downgrade(plugin), idle: RefCell::default(), running: Cell::new(0) }
    }

    /// With an instance if one is idle.
    fn lease(self: Rc<Self>, plugin: &Arc<Configured>) -> Result<Lease<'_>, Failure> {
        let running = self.running.get();
        if running >= RUNNING_AT_MOST {
            return Err(Failure::PluginBusy(plugin.plugin.name.to_string()));
        }
        self.running.set(running + 1);
        let instance = self.idle.borrow_mut().pop();
        Ok(Lease { pool: self, plugin, instance })
    }
}

/// An instance for the time of one call. Dropped in the middle of a call (the client has gone, or the guest has
/// trapped) it drops the instance, whose memory nobody may see again.
struct Lease<'a> {
    pool: Rc<Pool>,
    plugin: &'a Arc<Configured>,
    instance: Option<Instance>,
}

impl Lease<'_> {
    fn enter(&mut self, headers: &mut HeaderMap, exchange: Option<Exchange>) -> &mut Instance {
        let instance = self.instance.as_mut().expect("a lease is taken with an instance and left once");
        let state = instance.store.data_mut();
        state.headers = std::mem::take(headers);
        state.exchange = exchange;
        allow(&mut instance.store, self.plugin.plugin.budget);
        instance
    }

    /// Takes the headers back, even after a trap, and the instance with them if it may be used again.
    fn leave<T>(mut self, headers: &mut HeaderMap, answer: wasmtime::Result<T>) -> Result<T, Failure> {
        let mut instance = self.instance.take().expect("a lease is taken with an instance and left once");
        let state = instance.store.data_mut();
        *headers = std::mem::take(&mut state.headers);
        state.exchange = None;
        match answer {
            Ok(value) => {
                self.pool.idle.borrow_mut().push(instance);
                Ok(value)
            }
            Err(error) => Err(failed(self.plugin, &trap_reason(&error))),
        }
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        self.pool.running.set(self.pool.running.get() - 1);
    }
}

/// Runs `init` in an instance of its own, for the plan and for the guest's judgement of the configuration.
pub(super) async fn init(name: &Arc<str>, pre: &MinimalMiddlewarePre<State>, config: &Value) -> anyhow::Result<Plan> {
    let mut instance = instantiate(name, pre).await?;
    call_init(&mut instance, config).await
}

async fn initialised(plugin: &Configured) -> anyhow::Result<Instance> {
    let mut instance = instantiate(&plugin.plugin.name, &plugin.pre).await?;
    call_init(&mut instance, &plugin.config).await?;
    Ok(instance)
}

async fn call_init(Instance { store, guest }: &mut Instance, config: &Value) -> anyhow::Result<Plan> {
    let plan = guest
        .weir_plugin_middleware()
        .call_init(store, &config.to_string())
        .await
        .map_err(|error| anyhow!("`init` failed: {}", trap_reason(&error)))?
        .map_err(|error| anyhow!("failed to {}", error.message))?;
    edit::plan(plan).map_err(anyhow::Error::msg)
}

async fn instantiate(name: &Arc<str>, pre: &MinimalMiddlewarePre<State>) -> anyhow::Result<Instance> {
    let mut store = limits::store(pre.engine(), State::new(Arc::clone(name), None), INIT_BUDGET);
    let guest = pre.instantiate_async(&mut store).await.map_err(opaque).context("starting it")?;
    Ok(Instance { store, guest })
}

/// A field value as guests get it where the interface has a string; empty if it is missing or no text.
fn text(value: Option<&HeaderValue>) -> &str {
    value.and_then(|value| value.to_str().ok()).unwrap_or_default()
}

fn named(headers: &HeaderMap, names: &[HeaderName]) -> Vec<Option<HeaderValue>> {
    names.iter().map(|name| headers.get(name).cloned()).collect()
}

fn bytes(values: &[Option<HeaderValue>]) -> Vec<Option<&[u8]>> {
    values.iter().map(|value| value.as_ref().map(HeaderValue::as_bytes)).collect()
}

fn failed(plugin: &Configured, reason: &str) -> Failure {
    plugin.failures.fetch_add(1, Ordering::Relaxed);
    Failure::Plugin(format!("`{}`: {reason}", plugin.plugin.name))
}

fn apply_to_request(
    verdict: wit::RequestVerdict,
    state: Vec<u8>,
    request: &mut Request,
) -> Result<RequestVerdict, String> {
    let edit = match verdict {
        wit::RequestVerdict::Pass => return Ok(RequestVerdict::Continue(state)),
        wit::RequestVerdict::Reply(reply) => return edit::reply(reply).map(RequestVerdict::Reply),
        wit::RequestVerdict::Edit(edit) => edit,
    };
    if edit.filter.is_some() {
        return Err("it asks for a body filter, which this version of weir does not run yet".to_owned());
    }
    let edits = edit::header_edits(edit.headers)?;
    let head = &mut request.head;
    if let Some(method) = edit.method {
        head.method = Method::from_bytes(method.as_bytes()).map_err(|_| format!("{method:?} is not a method"))?;
    }
    if let Some(path) = edit.path_with_query {
        head.uri = target::parse(&path).map_err(|error| format!("the path {path:?} {error}"))?;
    }
    edits.iter().for_each(|edit: &HeaderEdit| edit.apply_to_request(&mut head.headers));
    if let Some(authority) = edit.authority {
        let value = http::uri::Authority::try_from(authority.as_str())
            .ok()
            .and_then(|authority| HeaderValue::from_str(authority.as_str()).ok())
            .ok_or_else(|| format!("{authority:?} is not an authority"))?;
        head.headers.insert(HOST, value);
    }
    if let Some(body) = edit.body {
        head.headers.remove(http::header::CONTENT_LENGTH);
        request.body = Bytes::from(body).into();
    }
    match edit.delay_ms {
        0 => Ok(RequestVerdict::Continue(state)),
        delay => Ok(RequestVerdict::Delay(Duration::from_millis(delay.into()), state)),
    }
}

enum Replacement {
    None,
    Body(Bytes),
    Whole(Response),
}

fn apply_to_response(verdict: wit::ResponseVerdict, head: &mut ResponseHead) -> Result<Replacement, String> {
    let edit = match verdict {
        wit::ResponseVerdict::Pass => return Ok(Replacement::None),
        wit::ResponseVerdict::Reply(reply) => return edit::reply(reply).map(Replacement::Whole),
        wit::ResponseVerdict::Edit(edit) => edit,
    };
    if edit.filter.is_some() {
        return Err("it asks for a body filter, which this version of weir does not run yet".to_owned());
    }
    let edits = edit::header_edits(edit.headers)?;
    if let Some(status) = edit.status {
        head.status = edit::final_status(status)?;
    }
    edits.iter().for_each(|edit| edit.apply(&mut head.headers));
    Ok(edit.body.map_or(Replacement::None, |body| Replacement::Body(body.into())))
}
