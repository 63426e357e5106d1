//! The idle instances of one configured plugin on one worker: made, lent for one call, kept for the next, dropped after a
//! trap.
//!
//! `instance` takes a [`Lease`] for each call. An instance is held only while a call runs.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use http::HeaderMap;
use serde_json::Value;
use wasmtime::{Store, component};

use super::bindings::middleware::{MinimalMiddleware, MinimalMiddlewarePre};
use super::edit::{self, Plan};
use super::imports::{Exchange, State};
use super::limits::{self, INIT_BUDGET, allow, trap_reason};
use super::usage::Cause;
use super::{Configured, Step, opaque};
use crate::http::{Broken, Failure};

/// Calls of one configured plugin that may run on one worker at the same time, and bodies that may flow through it.
const RUNNING_AT_MOST: usize = 64;

/// Bodies that are cut are logged once in this time, so that a bad filter does not fill the disk.
const CUT_LOG_INTERVAL: Duration = Duration::from_secs(1);

pub(super) struct Pool {
    of: Weak<Configured>,
    idle: RefCell<Vec<Instance>>,
    /// Instances in use, by [`Use`].
    running: [Cell<usize>; 2],
    /// When a body was last said to have been cut.
    said: Cell<Option<Instant>>,
}

pub(super) struct Instance {
    pub(super) store: Store<State>,
    pub(super) guest: MinimalMiddleware,
    /// All of its exports.
    pub(super) component: component::Instance,
}

/// What an instance is taken for. Bodies take as long as their clients like, and calls need not wait for them.
#[derive(Clone, Copy)]
enum Use {
    Call,
    Body,
}

/// An instance for the time of one call, or of one body. Dropped in the middle (the client has gone, or the guest has
/// trapped) it drops the instance, whose memory nobody may see again.
pub(super) struct Lease<'a> {
    pool: Rc<Pool>,
    step: Cow<'a, Step>,
    purpose: Use,
    worker: usize,
    instance: Option<Instance>,
    began: Instant,
}

impl Pool {
    pub(super) fn of(plugin: &Arc<Configured>) -> Self {
        Self {
            of: Arc::downgrade(plugin),
            idle: RefCell::default(),
            running: Default::default(),
            said: Cell::new(None),
        }
    }

    /// Whether a configuration or a call still needs it.
    pub(super) fn is_wanted(&self) -> bool {
        self.of.strong_count() > 0 || self.running.iter().any(|running| running.get() > 0)
    }

    /// An idle instance, or a new one, for one call.
    pub(super) async fn take(self: Rc<Self>, step: &Step, worker: usize) -> Result<Lease<'_>, Failure> {
        self.lease(Cow::Borrowed(step), Use::Call, worker).await
    }

    /// The same for as long as a body flows.
    pub(super) async fn hold(self: Rc<Self>, step: Step, worker: usize) -> Result<Lease<'static>, Failure> {
        self.lease(Cow::Owned(step), Use::Body, worker).await
    }

    async fn lease(self: Rc<Self>, step: Cow<'_, Step>, purpose: Use, worker: usize) -> Result<Lease<'_>, Failure> {
        let running = &self.running[purpose as usize];
        if running.get() >= RUNNING_AT_MOST {
            step.usage.failed(worker, Cause::Busy);
            return Err(Failure::PluginBusy(step.configured.plugin.name.to_string()));
        }
        running.set(running.get() + 1);
        let instance = self.idle.borrow_mut().pop();
        let mut lease = Lease { pool: self, step, purpose, worker, instance, began: Instant::now() };
        if lease.instance.is_none() {
            let made = Box::pin(initialised(&lease.step.configured)).await;
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
        }
        allow(&mut instance.store, self.step.configured.plugin.budget);
        instance
    }

    /// Takes the headers back, even after a trap, and the instance with them if it may be used again.
    pub(super) fn leave<T>(&mut self, headers: &mut HeaderMap, answer: wasmtime::Result<T>) -> Result<T, Failure> {
        let mut instance = self.instance.take().expect("a lease is taken with an instance and left once");
        let state = instance.store.data_mut();
        *headers = std::mem::take(&mut state.headers);
        state.body = None;
        state.exchange = None;
        self.step.usage.called(self.worker, self.began.elapsed());
        match answer {
            Ok(value) => {
                self.pool.idle.borrow_mut().push(instance);
                Ok(value)
            }
            Err(error) => Err(self.failed(limits::cause(&error), &trap_reason(&error))),
        }
    }

    /// Grants CPU time for one call of several that an instance is held for.
    pub(super) fn resume(&mut self) -> &mut Instance {
        self.began = Instant::now();
        let instance = self.instance.as_mut().expect("nothing is resumed after a trap");
        allow(&mut instance.store, self.step.configured.plugin.budget);
        instance
    }

    /// Counts such a call; a trap drops the instance.
    pub(super) fn pause<T>(&mut self, answer: wasmtime::Result<T>) -> Result<T, Failure> {
        self.step.usage.called(self.worker, self.began.elapsed());
        answer.map_err(|error| {
            self.instance = None;
            self.failed(limits::cause(&error), &trap_reason(&error))
        })
    }

    /// What a failure is to the body that flows. Its head may have gone out, so that only the log hears of it.
    pub(super) fn cut(&self, failure: Failure) -> Broken {
        let said = &self.pool.said;
        if said.get().is_none_or(|said| said.elapsed() >= CUT_LOG_INTERVAL) {
            said.set(Some(Instant::now()));
            tracing::error!(router = &*self.step.usage.router, "a body was cut: {failure}");
        }
        match failure {
            Failure::Plugin(reason) => Broken::Plugin(reason),
            failure => Broken::Plugin(failure.to_string()),
        }
    }

    /// Keeps an instance that was held for the next who needs one.
    pub(super) fn give_back(mut self) {
        if let Some(mut instance) = self.instance.take() {
            instance.store.data_mut().exchange = None;
            self.pool.idle.borrow_mut().push(instance);
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
        let running = &self.pool.running[self.purpose as usize];
        running.set(running.get() - 1);
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

async fn call_init(Instance { store, guest, .. }: &mut Instance, config: &Value) -> anyhow::Result<Plan> {
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
    let component = pre.instance_pre().instantiate_async(&mut store).await.map_err(opaque).context("starting it")?;
    let guest = MinimalMiddleware::new(&mut store, &component).map_err(opaque).context("starting it")?;
    Ok(Instance { store, guest, component })
}
