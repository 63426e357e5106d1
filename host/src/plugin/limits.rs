//! What a call may cost: CPU time, counted while the guest runs, memory, and lines of the log; and the words for a call that ended early.
//!
//! `about`, `instance` and `provider` make their stores here.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::anyhow;
use tokio::time::timeout;
use wasmtime::{
    Engine, FrameInfo, ResourceLimiter, Store, StoreLimits, StoreLimitsBuilder, Trap, UpdateDeadline, WasmBacktrace,
};

use super::filter::ANSWER_AT_MOST;
use super::grants::TooLate;
use super::imports::{State, printable};
use super::lane::Meter;
use super::usage::Cause;

/// How often running guests are made to yield their thread, and the unit of their CPU budget.
pub(super) const TICK: Duration = Duration::from_millis(5);
/// CPU time of one call of a middleware that somebody dropped in.
pub(super) const CALL_BUDGET: Duration = Duration::from_millis(50);
/// CPU time of one call of a built-in middleware: bcrypt with a high cost is slow on purpose.
pub(super) const BUILT_IN_BUDGET: Duration = Duration::from_secs(5);
/// CPU time of `describe`, `init` and all calls of DNS providers, which run off the request path.
pub(super) const INIT_BUDGET: Duration = Duration::from_secs(5);
/// For a call of a middleware with all that it waits for.
pub(super) const CALL_TIME: Duration = Duration::from_secs(10);
/// Lines that one call may write into the log.
const LOG_LINES: u32 = 100;
/// Elements of one table: languages with a runtime of their own need many.
const TABLE_ELEMENTS: usize = 100_000;
/// Linear memory of one instance, unless an administrator gives it more or less.
pub(super) const MEMORY: usize = 32 << 20;
/// What a guest may hand to the host at once, in bytes of the host's memory, unless it is called for a verdict: the longest
/// that is asked for, and fields.
pub(super) const HANDED_OVER_AT_MOST: usize = ANSWER_AT_MOST + (1 << 20);
/// Linear memory that one instance may be given.
pub(super) const MEMORY_AT_MOST: usize = 1 << 30;

/// Functions that are named where a call ended early, from the innermost on.
const FUNCTIONS_NAMED: usize = 5;
/// Of the name of one.
const NAME_CHARACTERS_AT_MOST: usize = 100;

/// A store whose guest may run for so long from now on.
pub(super) fn store(engine: &Engine, state: State, budget: Duration) -> Store<State> {
    let mut store = Store::new(engine, state);
    store.limiter(|state| &mut state.limits);
    store.set_hostcall_fuel(HANDED_OVER_AT_MOST);
    store.epoch_deadline_callback(|mut store| {
        let state = store.data_mut();
        if std::mem::take(&mut state.has_waited) {
            return Ok(UpdateDeadline::Continue(1));
        }
        // Ticks pass as well while its thread waits for a turn, which on a busy machine may be most of them.
        state.ticks = state.meter.so_far().map_or(state.ticks + 1, ticks);
        if state.ticks > state.ticks_at_most {
            return Err(Trap::Interrupt.into());
        }
        // Not `Yield`, which wakes itself at once: the worker's sockets must be looked at in between.
        Ok(UpdateDeadline::YieldCustom(1, Box::pin(tokio::task::yield_now())))
    });
    allow(&mut store, budget);
    store
}

/// Grants CPU time for the next call, counted in ticks during which the guest ran, and lines of the log.
pub(super) fn allow(store: &mut Store<State>, budget: Duration) {
    let state = store.data_mut();
    (state.ticks, state.ticks_at_most) = (0, ticks(budget));
    state.log_lines_left = LOG_LINES;
    store.set_epoch_deadline(1);
}

/// As many as begin in that time.
fn ticks(time: Duration) -> u32 {
    u32::try_from(time.as_nanos().div_ceil(TICK.as_nanos())).unwrap_or(u32::MAX)
}

/// Ends a call that waits for too long, by whatever means: what guests use to wait is not all ours. A timer is made for
/// calls alone that do wait. The call is large, and so stays where it is.
pub(super) async fn in_time<T>(
    meter: &Meter,
    mut call: Pin<&mut impl Future<Output = wasmtime::Result<T>>>,
) -> wasmtime::Result<T> {
    let mut part = |context: &mut Context<'_>| meter.run(|| call.as_mut().poll(context));
    if let Poll::Ready(answer) = poll_fn(|context| Poll::Ready(part(context))).await {
        return answer;
    }
    timeout(CALL_TIME, poll_fn(part)).await.unwrap_or_else(|_| Err(wasmtime::Error::new(TooLate)))
}

/// An instance that cannot be made.
pub(super) fn unmade(error: &wasmtime::Error, store: &Store<State>) -> anyhow::Error {
    let limits = &store.data().limits;
    if limits.has_refused {
        return anyhow!("starting it: it needs more memory than the {} bytes that it may have", limits.memory_at_most);
    }
    anyhow!("starting it: {error:#}")
}

/// What a call failed of.
pub(super) fn cause(error: &wasmtime::Error, state: &State) -> Cause {
    match error.downcast_ref::<Trap>() {
        Some(Trap::Interrupt) => Cause::Time,
        _ if error.is::<TooLate>() => Cause::Deadline,
        _ if state.limits.has_refused => Cause::Memory,
        _ => Cause::Trap,
    }
}

/// What an instance may have, and what it has.
pub(super) struct Limits {
    stores: StoreLimits,
    memory: usize,
    memory_at_most: usize,
    /// Whether it wanted more memory than that.
    has_refused: bool,
}

impl Limits {
    /// `memory_at_most` is in bytes.
    pub(super) fn new(memory_at_most: usize) -> Self {
        let stores = StoreLimitsBuilder::new()
            .memory_size(memory_at_most)
            .table_elements(TABLE_ELEMENTS)
            .instances(200)
            .tables(200)
            .memories(20)
            .build();
        Self { stores, memory: 0, memory_at_most, has_refused: false }
    }

    /// Bytes of linear memory.
    pub(super) const fn memory(&self) -> usize {
        self.memory
    }

    pub(super) const fn memory_at_most(&self) -> usize {
        self.memory_at_most
    }
}

impl ResourceLimiter for Limits {
    fn memory_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        // All its memories together, where there are several.
        let wanted = self.memory.saturating_add(desired.saturating_sub(current));
        let may = wanted <= self.memory_at_most && self.stores.memory_growing(current, desired, maximum)?;
        if may {
            self.memory = wanted;
        } else {
            self.has_refused = true;
        }
        Ok(may)
    }

    fn table_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        self.stores.table_growing(current, desired, maximum)
    }

    fn instances(&self) -> usize {
        self.stores.instances()
    }

    fn tables(&self) -> usize {
        self.stores.tables()
    }

    fn memories(&self) -> usize {
        self.stores.memories()
    }
}

/// Why a call ended early, and in which functions, if the component has kept their names.
pub(super) fn trap_reason(error: &wasmtime::Error, state: &State) -> String {
    let reason = match error.downcast_ref::<Trap>() {
        Some(Trap::Interrupt) => "it used up its CPU time for one call".to_owned(),
        // What a guest does without memory is to trap.
        _ if state.limits.has_refused => "it wanted more memory than it may have".to_owned(),
        Some(trap) => trap.to_string(),
        None => match error.root_cause().to_string() {
            // The engine has no type for it.
            reason if reason.ends_with("fuel allocated for hostcalls has been exhausted") => {
                "it handed over more bytes at once than are taken, which `limits.body` can raise for its verdicts"
                    .to_owned()
            }
            reason => reason,
        },
    };
    let frames = error.downcast_ref::<WasmBacktrace>().map(WasmBacktrace::frames).unwrap_or_default();
    let names = frames.iter().filter_map(FrameInfo::func_name).skip_while(|name| is_way_to_a_trap(name));
    let names = names.take(FUNCTIONS_NAMED).map(|name| format!("`{}`", printable(name, NAME_CHARACTERS_AT_MOST)));
    let names: Vec<_> = names.collect();
    if names.is_empty() { reason } else { format!("{reason}, in {}", names.join(", called by ")) }
}

/// Whether a function is one of those that a panic goes through, and not of interest. Names are taken as Rust encodes
/// them: to decode what a guest has written may take long.
fn is_way_to_a_trap(name: &str) -> bool {
    const CRATES: [&str; 4] = ["_3std", "_4core", "_5alloc", "_7___rustc"];
    name == "abort" || CRATES.iter().any(|within| name.contains(within))
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::mpsc::{RecvTimeoutError, channel};
    use std::thread;

    use wasmtime::{Instance, Module};

    use super::super::lane::Pace;
    use super::*;

    /// `(module (table 0 funcref) (func (export "grow") (param i32) (result i32) ref.null func local.get 0 table.grow 0))`
    const GROWS_ITS_TABLE: &[u8] = b"\0asm\x01\0\0\0\x01\x06\x01\x60\x01\x7f\x01\x7f\x03\x02\x01\0\x04\x04\x01\x70\0\0\
        \x07\x08\x01\x04grow\0\0\x0a\x0b\x01\x09\0\xd0\x70\x20\0\xfc\x0f\0\x0b";

    #[tokio::test]
    async fn tables_grow_so_far_and_no_further() {
        let engine = super::super::engine::engine().expect("an engine");
        let mut store = store(&engine, State::new("grows".into(), MEMORY, None), CALL_BUDGET);
        let module = Module::new(&engine, GROWS_ITS_TABLE).expect("a module");
        let instance = Instance::new_async(&mut store, &module, &[]).await.expect("an instance");
        let grow = instance.get_typed_func::<i32, i32>(&mut store, "grow").expect("its only export");
        let most = i32::try_from(TABLE_ELEMENTS).expect("a small number");
        for (by, before) in [(most + 1, -1), (i32::MAX, -1), (most, 0), (1, -1)] {
            assert_eq!(grow.call_async(&mut store, by).await.expect("an answer"), before, "{by}");
        }
    }

    /// `(module (func (export "run") (loop br 0)))`
    const LOOPS: &[u8] = b"\0asm\x01\0\0\0\x01\x04\x01\x60\0\0\x03\x02\x01\0\x07\x07\x01\x03run\0\0\
        \x0a\x09\x01\x07\0\x03\x40\x0c\0\x0b\x0b";

    #[tokio::test]
    async fn ticks_that_pass_while_a_thread_waits_are_not_charged() {
        for meter in [Pace::unknown().meter(), Meter::default()] {
            let engine = super::super::engine::engine().expect("an engine");
            let mut store = store(&engine, State::new("loops".into(), MEMORY, None), CALL_BUDGET);
            store.data_mut().meter.clone_from(&meter);
            let module = Module::new(&engine, LOOPS).expect("a module");
            let instance = Instance::new_async(&mut store, &module, &[]).await.expect("an instance");
            let run = instance.get_typed_func::<(), ()>(&mut store, "run").expect("its only export");
            // As many as if the thread had one turn of fifty.
            let (running, stopped) = channel::<()>();
            let (ticked, every) = (engine.clone(), TICK / 50);
            thread::spawn(move || {
                while stopped.recv_timeout(every) == Err(RecvTimeoutError::Timeout) {
                    ticked.increment_epoch();
                }
            });
            let error = in_time(&meter, pin!(run.call_async(&mut store, ()))).await.expect_err("it never ends");
            drop(running);
            assert_eq!(error.downcast_ref(), Some(&Trap::Interrupt));
            assert!(meter.measured().is_none_or(|spent| spent >= CALL_BUDGET), "{meter:?}");
        }
    }

    /// `(module (func $inner unreachable) (func $outer (export "run") call $inner))`
    const TRAPS_WITHIN: &[u8] = b"\0asm\x01\0\0\0\x01\x04\x01\x60\0\0\x03\x03\x02\0\0\x07\x07\x01\x03run\0\x01\
        \x0a\x0a\x02\x03\0\0\x0b\x04\0\x10\0\x0b\0\x16\x04name\x01\x0f\x02\0\x05inner\x01\x05outer";

    #[tokio::test]
    async fn a_trap_names_the_functions_that_it_came_from() {
        let engine = super::super::engine::engine().expect("an engine");
        let nameless = TRAPS_WITHIN.len() - 24;
        for (bytes, place) in [(TRAPS_WITHIN, ", in `inner`, called by `outer`"), (&TRAPS_WITHIN[..nameless], "")] {
            let mut store = store(&engine, State::new("traps".into(), MEMORY, None), CALL_BUDGET);
            let module = Module::new(&engine, bytes).expect("a module");
            let instance = Instance::new_async(&mut store, &module, &[]).await.expect("an instance");
            let run = instance.get_typed_func::<(), ()>(&mut store, "run").expect("its only export");
            let error = run.call_async(&mut store, ()).await.expect_err("a trap");
            assert_eq!(
                trap_reason(&error, store.data()),
                format!("wasm trap: wasm `unreachable` instruction executed{place}")
            );
        }
    }

    #[test]
    fn what_a_panic_goes_through_is_not_named() {
        for (name, skipped) in [
            ("abort", true),
            ("_RNvNtCshXfaRvt2tfW_3std7process5abort", true),
            ("_RNvCsfLfy6EI15iL_7___rustc12___rust_abort", true),
            ("_RNvCshXfaRvt2tfW_5stamp5grows", false),
            ("weir:plugin/middleware@0.1.0#on-request", false),
        ] {
            assert_eq!(is_way_to_a_trap(name), skipped, "{name}");
        }
    }
}
