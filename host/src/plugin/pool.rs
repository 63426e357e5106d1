//! The idle instances of one configured plugin on one worker: made, lent for one call, kept for the next, dropped after a
//! trap.
//!
//! `instance` takes a [`Lease`] for each call. An instance is held only while a call runs. What a call may cost is
//! settled here, what it is about there.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use http::HeaderMap;
use tokio::time::timeout;
use wasmtime::{Store, component};

use super::bindings::middleware::MiddlewarePlugin;
use super::bindings::middleware::weir::plugin::log::Level;
use super::breaker;
use super::edit::{self, Plan};
use super::grants::Grants;
use super::imports::{Exchange, State};
use super::lane::{Lane, Meter};
use super::limits::{self, CALL_TIME, HANDED_OVER_AT_MOST, INIT_BUDGET, TICK, allow, trap_reason};
use super::usage::Cause;
use super::{Configured, Step, opaque};
use crate::config::install::Isolation;
use crate::http::{Broken, Failure};

/// For `init` with all that it waits for.
const INIT_TIME: Duration = Duration::from_secs(10);
/// Exchanges by `fetch`.
const EXCHANGES_PER_CALL: u32 = 16;
/// A call that ran so many ticks is known to be long without a meter: one alone falls into short calls too.
const TICKS_OF_A_LONG_CALL: u32 = 2;
/// An instance whose memory has grown by more than this, and more than twofold, is not kept.
const GROWTH_AT_MOST: usize = 1 << 20;
/// Handles that an instance may have left lying about when a call ends.
const HANDLES_AT_MOST: usize = 256;

/// Bodies that are cut, and failures that are passed over, are logged once in this time: a bad plugin does not fill the disk.
const LOG_INTERVAL: Duration = Duration::from_secs(1);

pub(super) struct Pool {
    of: Weak<Configured>,
    idle: RefCell<Vec<Instance>>,
    /// The fewest idle ones since they were last looked at: so many were not needed.
    not_needed: Cell<usize>,
    /// Instances in use, by [`Use`].
    running: [Cell<usize>; 2],
    /// When such a failure was last logged.
    said: Cell<Option<Instant>>,
}

pub(super) struct Instance {
    pub(super) store: Store<State>,
    pub(super) guest: MiddlewarePlugin,
    /// All of its exports.
    pub(super) component: component::Instance,
    gauge: Gauge,
    /// Bytes of memory after `init`.
    memory_at_first: usize,
    handles_at_first: usize,
}

/// The instances there are of a configured plugin, on all workers.
#[derive(Debug, Default)]
pub(super) struct Held {
    instances: AtomicUsize,
    /// Bytes of linear memory.
    memory: AtomicUsize,
}

/// What a call of an instance answers, in time.
pub(super) type Answer<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The part of one instance in what is [`Held`].
struct Gauge {
    held: Arc<Held>,
    memory: usize,
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
    /// While the guest runs, and while the instance is made.
    entered: Option<Instant>,
    /// Of the call that comes, or runs, with what it takes to make the instance for it.
    meter: Meter,
}

impl Pool {
    pub(super) fn of(plugin: &Arc<Configured>) -> Self {
        Self {
            of: Arc::downgrade(plugin),
            idle: RefCell::default(),
            not_needed: Cell::new(0),
            running: Default::default(),
            said: Cell::new(None),
        }
    }

    /// Whether a configuration or a call still needs it.
    pub(super) fn is_needed(&self) -> bool {
        self.of.strong_count() > 0 || self.running.iter().any(|running| running.get() > 0)
    }

    /// Drops the instances that were not needed since the last time, but for one.
    pub(super) fn prune(&self) {
        let mut idle = self.idle.borrow_mut();
        let kept = idle.len() - self.not_needed.get().saturating_sub(1).min(idle.len());
        idle.truncate(kept);
        self.not_needed.set(kept);
    }

    /// Makes one more idle instance, and says how many bytes of memory it has.
    pub(super) async fn start(&self) -> anyhow::Result<usize> {
        let plugin = self.of.upgrade().context("its configuration has gone")?;
        let (instance, _) = Box::pin(initialised(&plugin)).await?;
        let memory = instance.memory_at_first;
        self.idle.borrow_mut().push(instance);
        Ok(memory)
    }

    /// Whether a failure that nobody else hears of may be logged as such: one may now and then.
    pub(super) fn may_be_logged(&self) -> bool {
        let may = self.said.get().is_none_or(|said| said.elapsed() >= LOG_INTERVAL);
        if may {
            self.said.set(Some(Instant::now()));
        }
        may
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
        let plugin = &step.configured;
        let name = || plugin.plugin.name.to_string();
        let refused = |cause, failure| {
            step.usage.failed(worker, cause);
            Err(failure)
        };
        match plugin.breaker.state() {
            breaker::State::Closed => {}
            breaker::State::Open => return refused(Cause::Open, Failure::PluginOpen(name())),
            breaker::State::Tried => {
                let (plugin, middleware) = (&*plugin.plugin.name, &*plugin.name);
                tracing::info!(plugin, middleware, "it is called again");
            }
        }
        let running = &self.running[purpose as usize];
        let began = Instant::now();
        if running.get() >= plugin.plugin.policy.instances {
            return refused(Cause::Busy, Failure::PluginBusy(name(), "has all the calls (`limits.instances`)"));
        }
        if plugin.plugin.share.is_used_up(began) {
            return refused(Cause::Busy, Failure::PluginBusy(name(), "has used up the CPU time (`limits.share`)"));
        }
        running.set(running.get() + 1);
        let instance = self.idle.borrow_mut().pop();
        self.not_needed.set(self.not_needed.get().min(self.idle.borrow().len()));
        let meter = plugin.pace.meter();
        let mut lease = Lease { pool: self, step, purpose, worker, instance, began, entered: None, meter };
        if lease.instance.is_some() {
            return Ok(lease);
        }
        lease.entered = Some(began);
        match Box::pin(lease.make()).await {
            Ok((instance, _)) => lease.instance = Some(instance),
            Err(error) => {
                lease.spent(0);
                return Err(lease.failed(Cause::Start, &format!("{error:#}")));
            }
        }
        Ok(lease)
    }
}

impl Lease<'_> {
    /// Makes an instance: aside, as the calls of that middleware are, since `init` may run as long as they.
    async fn make(&self) -> anyhow::Result<(Instance, Plan)> {
        let plugin = &self.step.configured;
        if !plugin.pace.is_slow() {
            return self.meter.over(pin!(initialised(plugin))).await;
        }
        let (plugin, meter) = (Arc::clone(plugin), self.meter.clone());
        self.lane().run(async move { meter.over(pin!(initialised(&plugin))).await }).await
    }

    /// Lends the instance the headers of a message, and grants it what a call may cost.
    pub(super) fn enter(&mut self, headers: &mut HeaderMap, exchange: Option<Exchange>, hops: u8) -> &mut Instance {
        let instance = self.instance.as_mut().expect("a lease is taken with an instance and left once");
        let plugin = &self.step.configured.plugin;
        let state = instance.store.data_mut();
        state.headers = std::mem::take(headers);
        state.exchange = exchange;
        state.meter.clone_from(&self.meter);
        if plugin.tells_routers_apart {
            state.usage = Some(Arc::clone(&self.step.usage));
            state.worker = self.worker;
        }
        if let Some(grants) = &mut state.grants {
            grants.renew(CALL_TIME, EXCHANGES_PER_CALL, hops);
        }
        allow(&mut instance.store, plugin.policy.cpu);
        instance.store.set_hostcall_fuel(plugin.policy.verdict_at_most());
        self.entered = Some(self.began);
        instance
    }

    /// Has the instance called: aside if its plugin has run long.
    pub(super) async fn call<T, C>(&mut self, call: C) -> T
    where
        T: Send + 'static,
        C: FnOnce(&mut Instance) -> Answer<'_, T> + Send + 'static,
    {
        const PRESENT: &str = "a lease is taken with an instance and left once";
        if !self.step.configured.pace.is_slow() {
            return call(self.instance.as_mut().expect(PRESENT)).await;
        }
        let mut instance = self.instance.take().expect(PRESENT);
        let called = async move {
            let answer = call(&mut instance).await;
            (instance, answer)
        };
        let (instance, answer) = self.lane().run(called).await;
        self.instance = Some(instance);
        answer
    }

    fn lane(&self) -> &Lane {
        &self.step.configured.plugin.host.lane
    }

    /// Takes the headers back, even after a trap, and the instance with them if it may be used again.
    pub(super) fn leave<T>(&mut self, headers: &mut HeaderMap, answer: wasmtime::Result<T>) -> Result<T, Failure> {
        let mut instance = self.instance.take().expect("a lease is taken with an instance and left once");
        let state = instance.store.data_mut();
        *headers = std::mem::take(&mut state.headers);
        state.tell(if answer.is_ok() { Level::Info } else { Level::Error });
        state.body = None;
        state.exchange = None;
        state.usage = None;
        let ticks = state.ticks;
        let answer = answer.map_err(|error| (limits::cause(&error, state), trap_reason(&error, state)));
        if answer.is_ok() {
            self.put_back(instance);
        } else {
            self.retire(instance);
        }
        self.called(ticks);
        answer.map_err(|(cause, reason)| self.failed(cause, &reason))
    }

    /// Grants what a call may cost, to one of several that an instance is held for.
    pub(super) fn resume(&mut self, hops: u8) -> &mut Instance {
        let instance = self.instance.as_mut().expect("nothing is resumed after a trap");
        let plugin = &self.step.configured.plugin;
        let state = instance.store.data_mut();
        state.meter.clone_from(&self.meter);
        if plugin.tells_routers_apart {
            state.usage = Some(Arc::clone(&self.step.usage));
            state.worker = self.worker;
        }
        if let Some(grants) = &mut state.grants {
            grants.renew(CALL_TIME, EXCHANGES_PER_CALL, hops);
        }
        allow(&mut instance.store, plugin.policy.cpu);
        instance.store.set_hostcall_fuel(HANDED_OVER_AT_MOST);
        self.began = Instant::now();
        self.entered = Some(self.began);
        instance
    }

    /// Counts such a call; a trap drops the instance.
    pub(super) fn pause<T>(&mut self, answer: wasmtime::Result<T>) -> Result<T, Failure> {
        let state = self.instance.as_mut().expect("a call has an instance").store.data_mut();
        state.tell(if answer.is_ok() { Level::Info } else { Level::Error });
        let ticks = state.ticks;
        let answer = answer.map_err(|error| (limits::cause(&error, state), trap_reason(&error, state)));
        if answer.is_err() {
            self.instance.take().into_iter().for_each(|instance| self.retire(instance));
        }
        self.called(ticks);
        self.meter = self.step.configured.pace.meter();
        answer.map_err(|(cause, reason)| self.failed(cause, &reason))
    }

    /// Counts a call, and what it has cost.
    fn called(&mut self, ticks: u32) {
        self.step.usage.called(self.worker, self.began.elapsed());
        self.spent(ticks);
    }

    /// Counts what a call has cost: it decides where the next ones run, and the plugin's share pays it.
    fn spent(&mut self, ticks: u32) {
        self.entered = None;
        let plugin = &self.step.configured;
        let now = Instant::now();
        let measured = self.meter.measured();
        plugin.pace.called(now - self.began, measured.or_else(|| long_by_ticks(ticks)));
        // Ticks pass as well while a thread waits for its turn.
        let spent = measured.unwrap_or(TICK * ticks);
        if !spent.is_zero() {
            plugin.plugin.share.spend(spent, now);
        }
    }

    /// Keeps an instance that was held for the next who needs one, if it may be used again.
    pub(super) fn keep(mut self) {
        let Some(mut instance) = self.instance.take() else { return };
        let state = instance.store.data_mut();
        (state.exchange, state.usage) = (None, None);
        self.put_back(instance);
    }

    /// Into the pool, if the next request may have it.
    fn put_back(&self, mut instance: Instance) {
        if self.step.configured.plugin.policy.isolation == Isolation::Pool && instance.may_be_kept() {
            self.pool.idle.borrow_mut().push(instance);
        } else {
            self.retire(instance);
        }
    }

    /// Drops an instance: aside if it has much memory to give back, which takes milliseconds, or as its calls are.
    fn retire(&self, instance: Instance) {
        if instance.grown_by() > GROWTH_AT_MOST || self.step.configured.pace.is_slow() {
            self.lane().discard(instance);
        } else {
            self.meter.run(|| drop(instance));
        }
    }

    /// What a failure is to the body that flows. Its head may have gone out, so that only the log hears of it.
    pub(super) fn cut(&self, failure: Failure) -> Broken {
        if self.pool.may_be_logged() {
            tracing::error!(router = &*self.step.usage.router, "a body was cut: {failure}");
        }
        match failure {
            Failure::Plugin(reason) => Broken::Plugin(reason),
            failure => Broken::Plugin(failure.to_string()),
        }
    }

    /// Counts a failure of the plugin, and words it.
    pub(super) fn failed(&self, cause: Cause, reason: &str) -> Failure {
        let plugin = &self.step.configured;
        self.step.usage.failed(self.worker, cause);
        if let Some(open) = plugin.breaker.failed(Instant::now()) {
            let (plugin, middleware) = (&*plugin.plugin.name, &*plugin.name);
            tracing::warn!(plugin, middleware, "it fails again and again, and is not called for {} s", open.as_secs());
        }
        let reason = format!("`{}`: {reason}{}", plugin.plugin.name, plugin.plugin.policy.limit(cause));
        if cause == Cause::Deadline { Failure::PluginTimeout(reason) } else { Failure::Plugin(reason) }
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        let running = &self.pool.running[self.purpose as usize];
        running.set(running.get() - 1);
        let instance = self.instance.take();
        if let Some(entered) = self.entered {
            // Nobody waits for the call any more, but it has cost what it has cost.
            let plugin = &self.step.configured;
            let ticks = instance.as_ref().map(|instance| instance.store.data().ticks);
            let (elapsed, measured) = (entered.elapsed(), self.meter.measured());
            plugin.pace.called(elapsed, measured.or_else(|| ticks.and_then(long_by_ticks)));
            // Aside it goes on to the end of its tick.
            let aside = || elapsed.min(measured.unwrap_or_default() + TICK);
            let cost = ticks.map_or_else(aside, |ticks| TICK * ticks);
            plugin.plugin.share.spend(cost, Instant::now());
        }
        instance.into_iter().for_each(|instance| self.retire(instance));
    }
}

/// The time of a call that has run long for sure.
fn long_by_ticks(ticks: u32) -> Option<Duration> {
    (ticks >= TICKS_OF_A_LONG_CALL).then(|| TICK * ticks)
}

impl Instance {
    /// Whether the next request may have it: it has not grown, and has let go of what it was lent.
    fn may_be_kept(&mut self) -> bool {
        let state = self.store.data_mut();
        let (memory, handles) = (state.limits.memory(), state.handles());
        let memory_at_most = state.limits.memory_at_most();
        self.gauge.set(memory);
        let has_grown = memory > self.memory_at_first.saturating_mul(2).saturating_add(GROWTH_AT_MOST)
            || self.grown_by() > memory_at_most / 2;
        !has_grown && handles <= self.handles_at_first + HANDLES_AT_MOST
    }

    /// Bytes of memory since `init`.
    fn grown_by(&self) -> usize {
        self.store.data().limits.memory().saturating_sub(self.memory_at_first)
    }
}

impl Held {
    /// How many there are, and the bytes of their memory together.
    pub(super) fn now(&self) -> (usize, usize) {
        (self.instances.load(Ordering::Relaxed), self.memory.load(Ordering::Relaxed))
    }
}

impl Gauge {
    fn new(held: &Arc<Held>, memory: usize) -> Self {
        held.instances.fetch_add(1, Ordering::Relaxed);
        held.memory.fetch_add(memory, Ordering::Relaxed);
        Self { held: Arc::clone(held), memory }
    }

    fn set(&mut self, memory: usize) {
        if memory != self.memory {
            self.held.memory.fetch_add(memory.wrapping_sub(self.memory), Ordering::Relaxed);
            self.memory = memory;
        }
    }
}

impl Drop for Gauge {
    fn drop(&mut self) {
        self.held.instances.fetch_sub(1, Ordering::Relaxed);
        self.held.memory.fetch_sub(self.memory, Ordering::Relaxed);
    }
}

/// Runs `init` in an instance of its own, for the plan and for the guest's judgement of the configuration.
pub(super) async fn init(plugin: &Configured) -> anyhow::Result<Plan> {
    Ok(initialised(plugin).await?.1)
}

async fn initialised(plugin: &Configured) -> anyhow::Result<(Instance, Plan)> {
    let started = async {
        let mut instance = instantiate(plugin).await?;
        let plan = call_init(&mut instance, plugin).await?;
        let state = instance.store.data_mut();
        (instance.memory_at_first, instance.handles_at_first) = (state.limits.memory(), state.handles());
        instance.gauge.set(instance.memory_at_first);
        Ok((instance, plan))
    };
    timeout(INIT_TIME, started)
        .await
        .unwrap_or_else(|_| Err(anyhow!("`init` failed: it took more than {} s", INIT_TIME.as_secs())))
}

async fn call_init(Instance { store, guest, .. }: &mut Instance, plugin: &Configured) -> anyhow::Result<Plan> {
    let answer = guest.weir_plugin_middleware().call_init(&mut *store, &plugin.config.to_string()).await;
    store.data_mut().tell(if answer.is_ok() { Level::Info } else { Level::Error });
    let plan = answer
        .map_err(|error| anyhow!("`init` failed: {}", trap_reason(&error, store.data())))?
        .map_err(|error| anyhow!("failed to {}", error.message))?;
    edit::plan(plan, &plugin.plugin).map_err(|problem| anyhow!("its plan cannot be used: {problem}"))
}

async fn instantiate(plugin: &Configured) -> anyhow::Result<Instance> {
    let Configured { plugin: of, pre, scopes, metrics, .. } = plugin;
    let grants = of.needs_grants.then(|| Grants {
        values: plugin.secrets.clone(),
        reach: Arc::clone(&plugin.reach),
        deadline: tokio::time::Instant::now() + INIT_TIME,
        usual_time: of.policy.fetch,
        time_at_most: of.policy.fetch,
        left: EXCHANGES_PER_CALL,
        hops: None,
        exchanges: Arc::clone(&of.exchanges),
    });
    let mut state = State::new(Arc::clone(&of.name), of.policy.memory, grants);
    // An idle instance keeps nothing alive for the others.
    state.scopes = scopes.as_ref().map(Arc::downgrade).unwrap_or_default();
    state.metrics.clone_from(metrics);
    state.middleware = Some(Arc::clone(&plugin.name));
    let mut store = limits::store(pre.engine(), state, INIT_BUDGET);
    let component = pre.instance_pre().instantiate_async(&mut store).await;
    let component = component.map_err(|error| limits::unmade(&error, &store))?;
    let guest = MiddlewarePlugin::new(&mut store, &component).map_err(opaque).context("starting it")?;
    let gauge = Gauge::new(&plugin.held, 0);
    Ok(Instance { store, guest, component, gauge, memory_at_first: 0, handles_at_first: 0 })
}
