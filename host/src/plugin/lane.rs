//! Threads aside for guests that run long, with a low priority: what they cost, they cost themselves.
//!
//! Calls of a middleware run there until it has been quick a few times, and again once too many have run long: `instance`,
//! `filter` and `pool` ask its [`Pace`]. Workers only wait for the answer. What is long is a matter of CPU time, which a
//! [`Meter`] tells: on a busy machine the clock runs on while a thread waits for its turn.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// How much less than other threads it runs where not all can (as `nice`).
#[cfg(target_os = "linux")]
const NICENESS: i32 = 10;
/// A call of so much CPU time is a long one: all others on its worker have waited for it.
const LONG: Duration = Duration::from_micros(250);
/// The same of a plugin whose author we know: a piece of a body may be compressed where requests are served.
const LONG_IF_TRUSTED: Duration = Duration::from_millis(1);
/// So many short calls make up for a long one. Of those that are left open, calls go on aside while it is more than for one:
/// a runtime that collects its garbage now and then stays with the workers.
const SHORT_FOR_A_LONG_ONE: u32 = 200;
/// So many are left open at most: who was slow and no longer is comes back in time.
const OPEN_AT_MOST: u32 = SHORT_FOR_A_LONG_ONE * 3;
/// So many calls of one that nobody knows yet are made aside.
const FIRST_CALLS: u32 = 10;
/// So many things may wait to be dropped. More would heap up memory where the threads have no time for them.
const DROPS_AT_MOST: usize = 4;

/// One for the process; its threads begin with the first call that needs them.
pub(super) struct Lane {
    runtime: OnceLock<Option<Handle>>,
    drops: Arc<Semaphore>,
}

/// Ends its threads without waiting for them: it may be dropped anywhere.
struct Handle(Mutex<Option<Runtime>>);

/// Whether a middleware's calls belong there.
#[derive(Debug)]
pub(super) struct Pace {
    /// The CPU time of a long call.
    long: Duration,
    /// Short calls that would make up for the long ones. Calls are measured until it is 0, which costs half a microsecond.
    open: AtomicU32,
}

/// The CPU time of one call, if it is to be measured. The caller sees it while the call runs elsewhere.
#[derive(Clone, Debug, Default)]
pub(super) struct Meter(Option<Arc<Spent>>);

/// In nanoseconds.
#[derive(Debug, Default)]
struct Spent {
    /// By those parts that have come to their end.
    parts: AtomicU64,
    /// By the thread that runs a part, for whatever it did before that.
    begun: AtomicU64,
}

impl Lane {
    /// One without threads: all is done where it is asked for.
    pub(super) fn here() -> Self {
        Self { runtime: OnceLock::from(None), ..Self::default() }
    }

    /// Runs a call to its end, unless the caller no longer waits for it.
    pub(super) async fn run<T: Send + 'static>(&self, call: impl Future<Output = T> + Send + 'static) -> T {
        // Without threads it runs here, by turns with others as ever.
        let Some(handle) = self.handle() else { return call.await };
        let mut task = JoinSet::new();
        task.spawn_on(call, &handle);
        match task.join_next().await {
            Some(Ok(answer)) => answer,
            Some(Err(error)) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            // The threads end with the proxy, and the caller with them.
            _ => std::future::pending().await,
        }
    }

    /// Drops what takes long to drop, such as an instance that has filled its memory: here where too much waits for that.
    pub(super) fn discard(&self, what: impl Send + 'static) {
        let Some(handle) = self.handle() else { return };
        let Ok(permit) = Arc::clone(&self.drops).try_acquire_owned() else { return };
        handle.spawn(async move {
            drop(what);
            drop(permit);
        });
    }

    fn handle(&self) -> Option<tokio::runtime::Handle> {
        let handle = self.runtime.get_or_init(|| start().map(|runtime| Handle(Mutex::new(Some(runtime)))));
        handle.as_ref().and_then(Handle::tokio)
    }
}

impl Default for Lane {
    fn default() -> Self {
        Self { runtime: OnceLock::new(), drops: Arc::new(Semaphore::new(DROPS_AT_MOST)) }
    }
}

impl Handle {
    fn tokio(&self) -> Option<tokio::runtime::Handle> {
        let runtime = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        runtime.as_ref().map(|runtime| runtime.handle().clone())
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.get_mut().unwrap_or_else(PoisonError::into_inner).take() {
            runtime.shutdown_background();
        }
    }
}

impl Pace {
    /// Of a plugin whose author we know.
    pub(super) const fn trusted() -> Self {
        Self { long: LONG_IF_TRUSTED, open: AtomicU32::new(0) }
    }

    /// Of a plugin that may be anybody's.
    pub(super) const fn unknown() -> Self {
        Self { long: LONG, open: AtomicU32::new(SHORT_FOR_A_LONG_ONE + FIRST_CALLS) }
    }

    pub(super) fn is_slow(&self) -> bool {
        self.open.load(Ordering::Relaxed) > SHORT_FOR_A_LONG_ONE
    }

    /// For the next call.
    pub(super) fn meter(&self) -> Meter {
        Meter((self.open.load(Ordering::Relaxed) > 0).then(Arc::default))
    }

    /// Takes note of a call that took so long by the clock, and of its CPU time where that is known.
    pub(super) fn called(&self, elapsed: Duration, measured: Option<Duration>) {
        let open = self.open.load(Ordering::Relaxed);
        let now = match measured {
            Some(spent) if spent >= self.long => (open + SHORT_FOR_A_LONG_ONE).min(OPEN_AT_MOST),
            Some(_) => open.saturating_sub(1),
            // It may have waited, for a turn or for an answer. The next ones are measured.
            None if elapsed >= self.long => open.max(SHORT_FOR_A_LONG_ONE),
            None => return,
        };
        // Two workers may count one call too few: nothing depends on it.
        self.open.store(now, Ordering::Relaxed);
    }
}

impl Meter {
    /// Does a part of the call, on this thread.
    pub(super) fn run<T>(&self, part: impl FnOnce() -> T) -> T {
        let Some(spent) = &self.0 else { return part() };
        let begun = cpu_time();
        spent.begun.store(begun, Ordering::Relaxed);
        let answer = part();
        spent.parts.fetch_add(cpu_time().saturating_sub(begun), Ordering::Relaxed);
        answer
    }

    /// Does the whole of what stays where it is, part by part.
    pub(super) async fn over<T>(&self, mut call: Pin<&mut impl Future<Output = T>>) -> T {
        poll_fn(|context| self.run(|| call.as_mut().poll(context))).await
    }

    /// Of those parts that have come to their end.
    pub(super) fn measured(&self) -> Option<Duration> {
        self.0.as_ref().map(|spent| Duration::from_nanos(spent.parts.load(Ordering::Relaxed)))
    }

    /// Of those, and of the part that this thread is at.
    pub(super) fn so_far(&self) -> Option<Duration> {
        let begun = self.0.as_ref()?.begun.load(Ordering::Relaxed);
        self.measured().map(|parts| parts + Duration::from_nanos(cpu_time().saturating_sub(begun)))
    }
}

/// Of this thread, in nanoseconds.
fn cpu_time() -> u64 {
    let time = Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default();
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn start() -> Option<Runtime> {
    let runtime = Builder::new_multi_thread()
        .worker_threads(half_of_the_cores())
        .thread_name("plugins")
        .on_thread_start(lower_priority)
        .enable_time()
        .build();
    runtime.inspect_err(|error| tracing::warn!("long calls of plugins stay on the workers: {error}")).ok()
}

/// Threads for what plugins cost aside: who serves finds a core that is free.
pub(super) fn half_of_the_cores() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| cores.get().div_ceil(2))
}

/// On Linux threads have priorities of their own.
fn lower_priority() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::nice(NICENESS) {
        tracing::debug!("long calls of plugins have the priority of all others: {error}");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::thread::{self, ThreadId};

    use super::*;

    const SHORT: Option<Duration> = Some(Duration::from_micros(249));

    #[test]
    fn ten_short_calls_make_a_stranger_known() {
        let pace = Pace::unknown();
        for _ in 0..FIRST_CALLS {
            assert!(pace.is_slow());
            pace.called(LONG, SHORT);
        }
        assert!(!pace.is_slow());
    }

    #[test]
    fn what_looks_long_is_measured_before_it_is_judged() {
        let pace = Pace::trusted();
        assert!(pace.meter().measured().is_none());
        pace.called(LONG_IF_TRUSTED, None);
        for _ in 0..SHORT_FOR_A_LONG_ONE {
            assert!(!pace.is_slow());
            assert!(pace.meter().measured().is_some());
            pace.called(LONG_IF_TRUSTED, Some(LONG));
        }
        assert!(pace.meter().measured().is_none());
    }

    #[test]
    fn more_than_one_long_call_of_two_hundred_is_too_many() {
        for (every, is_slow) in
            [(SHORT_FOR_A_LONG_ONE + 1, false), (SHORT_FOR_A_LONG_ONE - 10, true), (2, true), (1, true)]
        {
            let pace = Pace::trusted();
            for call in 0..every * 30 {
                let is_long = call % every == 0;
                let spent = if is_long { LONG_IF_TRUSTED } else { Duration::ZERO };
                pace.called(spent, pace.meter().measured().and(Some(spent)));
            }
            assert_eq!(pace.is_slow(), is_slow, "one of {every}");
        }
    }

    #[test]
    fn who_was_slow_comes_back() {
        let pace = Pace::unknown();
        (0..10_000).for_each(|_| pace.called(LONG, Some(LONG)));
        for _ in SHORT_FOR_A_LONG_ONE..OPEN_AT_MOST {
            assert!(pace.is_slow());
            pace.called(LONG, SHORT);
        }
        assert!(!pace.is_slow());
    }

    #[test]
    fn time_that_a_call_waits_is_not_its_own() {
        const TIME: Duration = Duration::from_millis(20);

        let meter = Pace::unknown().meter();
        meter.run(|| {
            thread::park_timeout(TIME * 2);
            assert!(meter.so_far().is_some_and(|spent| spent < TIME), "{meter:?}");
        });
        assert!(meter.measured().is_some_and(|spent| spent < TIME), "{meter:?}");
        meter.run(|| while meter.so_far() < Some(TIME) {});
        assert!(meter.measured().is_some_and(|spent| spent >= TIME), "{meter:?}");
    }

    #[tokio::test]
    async fn calls_run_on_a_thread_of_its_own() {
        let lane = Lane::default();
        let name = lane.run(async { std::thread::current().name().map(str::to_owned) }).await;
        assert_eq!(name.as_deref(), Some("plugins"));
    }

    /// Takes as long to drop as the other end of its channel lives.
    struct Waits(Receiver<()>);

    /// Says which thread has dropped it.
    struct Says(Sender<ThreadId>);

    impl Drop for Waits {
        fn drop(&mut self) {
            let _ = self.0.recv();
        }
    }

    impl Drop for Says {
        fn drop(&mut self) {
            let _ = self.0.send(thread::current().id());
        }
    }

    #[test]
    fn so_much_waits_to_be_dropped_and_no_more() {
        let (lane, (says, dropped)) = (Lane::default(), channel());
        let held: Vec<_> = (0..DROPS_AT_MOST)
            .map(|_| {
                let (hold, waits) = channel::<()>();
                lane.discard(Waits(waits));
                hold
            })
            .collect();
        lane.discard(Says(says));
        assert_eq!(dropped.try_recv(), Ok(thread::current().id()));
        drop(held);
    }
}
