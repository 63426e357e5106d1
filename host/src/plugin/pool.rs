//! The idle instances of one configured plugin on one worker: made, lent for one call, kept for the next, dropped after a
//! trap.
//!
//! `instance` takes a [`Lease`] for each call. An instance is held only while a call runs.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::{Arc, Weak};
use std::time::Instant;

use anyhow::{Context, anyhow};
use http::HeaderMap;
use serde_json::Value;
use wasmtime::Store;

use super::bindings::middleware::{MiddlewarePlugin, MiddlewarePluginPre};
use super::edit::{self, Plan};
use super::imports::{Attached, Exchange, State};
use super::limits::{self, INIT_BUDGET, allow, trap_reason};
use super::usage::Cause;
use super::{Configured, Step, opaque};
use crate::http::Failure;

/// Calls of one configured plugin that may run on one worker at the same time.
const RUNNING_AT_MOST: usize = 64;

pub(super) struct Pool {
    of: Weak<Configured>,
    idle: RefCell<Vec<Instance>>,
    running: Cell<usize>,
}

pub(super) struct Instance {
    pub(super) store: Store<State>,
    pub(super) guest: MiddlewarePlugin,
}

/// An instance for the time of one call. Dropped in the middle of a call (the client has gone, or the guest has
/// trapped) it drops the instance, whose memory nobody may see again.
pub(super) struct Lease<'a> {
    pool: Rc<Pool>,
    step: &'a Step,
    worker: usize,
    instance: Option<Instance>,
    began: Instant,
}

impl Pool {
    pub(super) fn of(plugin: &Arc<Configured>) -> Self {
        Self { of: Arc::downgrade(plugin), idle: RefCell::default(), running: Cell::new(0) }
    }

    /// Whether a configuration or a call still needs it.
    pub(super) fn is_wanted(&self) -> bool {
        self.of.strong_count() > 0 || self.running.get() > 0
    }

    /// An idle instance, or a new one.
    pub(super) async fn take(self: Rc<Self>, step: &Step, worker: usize) -> Result<Lease<'_>, Failure> {
        let plugin = &step.configured;
        let running = self.running.get();
        if running >= RUNNING_AT_MOST {
            step.usage.failed(worker, Cause::Busy);
            return Err(Failure::PluginBusy(plugin.plugin.name.to_string()));
        }
        self.running.set(running + 1);
        let instance = self.idle.borrow_mut().pop();
        let mut lease = Lease { pool: self, step, worker, instance, began: Instant::now() };
        if lease.instance.is_none() {
            let made = Box::pin(initialised(plugin)).await;
            lease.instance = Some(made.map_err(|error| lease.failed(Cause::Start, &format!("{error:#}")))?);
        }
        Ok(lease)
    }
}

impl Lease<'_> {
    /// Lends the instance the headers of a message, and grants it CPU time.
    pub(super) fn enter(&mut self, headers: &mut HeaderMap, exchange: Option<Exchange>) -> &mut Instance {
        let instance = self.instance.as_mut().expect("a lease is taken with an instance and left once");
        let state = instance.store.data_mut();
        state.headers = std::mem::take(headers);
        state.exchange = exchange;
        if self.step.configured.plugin.counts_by_router {
            state.usage = Some(Arc::clone(&self.step.usage));
            state.worker = self.worker;
        }
        allow(&mut instance.store, self.step.configured.plugin.budget);
        instance
    }

    /// Takes the headers back, even after a trap, and the instance with them if it may be used again.
    pub(super) fn leave<T>(&mut self, headers: &mut HeaderMap, answer: wasmtime::Result<T>) -> Result<T, Failure> {
        let mut instance = self.instance.take().expect("a lease is taken with an instance and left once");
        let state = instance.store.data_mut();
        *headers = std::mem::take(&mut state.headers);
        state.exchange = None;
        state.usage = None;
        self.step.usage.called(self.worker, self.began.elapsed());
        match answer {
            Ok(value) => {
                self.pool.idle.borrow_mut().push(instance);
                Ok(value)
            }
            Err(error) => Err(self.failed(limits::cause(&error), &trap_reason(&error))),
        }
    }

    /// Counts a failure of the plugin, and words it.
    pub(super) fn failed(&self, cause: Cause, reason: &str) -> Failure {
        self.step.usage.failed(self.worker, cause);
        Failure::Plugin(format!("`{}`: {reason}", self.step.configured.plugin.name))
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        self.pool.running.set(self.pool.running.get() - 1);
    }
}

/// Runs `init` in an instance of its own, for the plan and for the guest's judgement of the configuration.
pub(super) async fn init(
    name: &Arc<str>,
    pre: &MiddlewarePluginPre<State>,
    attached: &Attached,
    config: &Value,
) -> anyhow::Result<Plan> {
    let mut instance = instantiate(name, pre, attached).await?;
    call_init(&mut instance, config).await
}

async fn initialised(plugin: &Configured) -> anyhow::Result<Instance> {
    let mut instance = instantiate(&plugin.plugin.name, &plugin.pre, &plugin.attached).await?;
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

async fn instantiate(
    name: &Arc<str>,
    pre: &MiddlewarePluginPre<State>,
    attached: &Attached,
) -> anyhow::Result<Instance> {
    let mut state = State::new(Arc::clone(name), None);
    // An idle instance keeps nothing alive for the others.
    state.scopes = attached.scopes.as_ref().map(Arc::downgrade).unwrap_or_default();
    state.metrics.clone_from(&attached.metrics);
    let mut store = limits::store(pre.engine(), state, INIT_BUDGET);
    let guest = pre.instantiate_async(&mut store).await.map_err(opaque).context("starting it")?;
    Ok(Instance { store, guest })
}
