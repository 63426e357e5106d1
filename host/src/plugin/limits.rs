//! What a call may cost: CPU time, counted while the guest runs, memory, and lines of the log; and the words for a call that ended early.
//!
//! `about`, `instance` and `provider` make their stores here.

use std::time::Duration;

use wasmtime::{Engine, Store, Trap, UpdateDeadline};

use super::imports::State;
use super::usage::Cause;

/// How often running guests are made to yield their thread, and the unit of their CPU budget.
pub(super) const TICK: Duration = Duration::from_millis(5);
/// CPU time of one call of a middleware that somebody dropped in.
pub(super) const CALL_BUDGET: Duration = Duration::from_millis(50);
/// CPU time of one call of a built-in middleware: bcrypt with a high cost is slow on purpose.
pub(super) const BUILT_IN_BUDGET: Duration = Duration::from_secs(5);
/// CPU time of `describe`, `init` and all calls of DNS providers, which run off the request path.
pub(super) const INIT_BUDGET: Duration = Duration::from_secs(5);
/// Lines that one call may write into the log.
const LOG_LINES: u32 = 100;
/// What a middleware may have of a body at hand, and so the longest body that it may want the whole of.
pub(super) const BODY_AT_MOST: u64 = 1 << 20;
/// Linear memory of one instance.
pub(super) const MEMORY: usize = 32 << 20;

/// A store whose guest may run for so long from now on.
pub(super) fn store(engine: &Engine, state: State, budget: Duration) -> Store<State> {
    let mut store = Store::new(engine, state);
    store.limiter(|state| &mut state.limits);
    store.epoch_deadline_callback(|mut store| {
        let state = store.data_mut();
        if state.ticks_left == 0 {
            return Err(Trap::Interrupt.into());
        }
        state.ticks_left -= 1;
        // Not `Yield`, which wakes itself at once: the worker's sockets must be looked at in between.
        Ok(UpdateDeadline::YieldCustom(1, Box::pin(tokio::task::yield_now())))
    });
    allow(&mut store, budget);
    store
}

/// Grants CPU time for the next call, counted in ticks during which the guest ran, and lines of the log.
pub(super) fn allow(store: &mut Store<State>, budget: Duration) {
    let state = store.data_mut();
    state.ticks_left = u32::try_from(budget.as_millis() / TICK.as_millis()).unwrap_or(u32::MAX);
    state.log_lines_left = LOG_LINES;
    store.set_epoch_deadline(1);
}

/// What a call failed of.
pub(super) fn cause(error: &wasmtime::Error) -> Cause {
    match error.downcast_ref::<Trap>() {
        Some(Trap::Interrupt) => Cause::Time,
        _ => Cause::Trap,
    }
}

pub(super) fn trap_reason(error: &wasmtime::Error) -> String {
    match error.downcast_ref::<Trap>() {
        Some(Trap::Interrupt) => "it used up its CPU time for one call".to_owned(),
        Some(trap) => trap.to_string(),
        None => error.root_cause().to_string(),
    }
}
