//! Threads aside for guests that run long, with a low priority: what they cost, they cost themselves.
//!
//! Calls of a middleware run there until it has been quick a few times, and again once one has run long: `instance`,
//! `filter` and `pool` ask its [`Pace`]. Workers only wait for the answer. What is long is a matter of CPU time, which a
//! [`Meter`] tells: on a busy machine the clock runs on while a thread waits for its turn.

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
/// A call of so much CPU time is a long one: all others on its worker have waited for it. Guests with a runtime of their own
/// need a third of that for a short one.
const LONG: Duration = Duration::from_micros(250);
/// The same where we know the author: a password may be hashed where requests are served.
const LONG_IF_TRUSTED: Duration = Duration::from_millis(1);
/// So many calls are measured after one that was long by the clock, and one in so many may go on being long unseen. To
/// measure costs half a microsecond, which calls are spared as long as none looks long.
const MEASURED_CALLS: u32 = 200;
/// So many calls must have been short before a middleware comes to the workers.
const SHORT_CALLS_AT_FIRST: u32 = 10;
/// So many in a row before it comes back after a long one.
const SHORT_CALLS: u32 = 1000;
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
    /// Short calls that are still to come; 0: it has been quick.
    to_come: AtomicU32,
    /// Calls that are still to be measured, though it has been quick.
    to_measure: AtomicU32,
}

/// The CPU time of one call in nanoseconds, if it is to be measured. The caller sees it while the call runs elsewhere.
#[derive(Clone, Debug, Default)]
pub(super) struct Meter(Option<Arc<AtomicU64>>);

impl Lane {
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
        Self { long: LONG_IF_TRUSTED, to_come: AtomicU32::new(0), to_measure: AtomicU32::new(0) }
    }

    /// Of a plugin that may be anybody's.
    pub(super) const fn unknown() -> Self {
        Self { long: LONG, to_come: AtomicU32::new(SHORT_CALLS_AT_FIRST), ..Self::trusted() }
    }

    pub(super) fn is_slow(&self) -> bool {
        self.to_come.load(Ordering::Relaxed) > 0
    }

    /// For the next call.
    pub(super) fn meter(&self) -> Meter {
        let is_wanted = self.is_slow() || self.to_measure.load(Ordering::Relaxed) > 0;
        Meter(is_wanted.then(Arc::default))
    }

    /// Takes note of a call that took so long by the clock, and of its CPU time where that is known.
    pub(super) fn called(&self, elapsed: Duration, measured: Option<Duration>) {
        match measured {
            Some(spent) if spent >= self.long => self.to_come.store(SHORT_CALLS, Ordering::Relaxed),
            Some(_) => [&self.to_come, &self.to_measure].into_iter().for_each(count_down),
            None if elapsed >= self.long => self.to_measure.store(MEASURED_CALLS, Ordering::Relaxed),
            None => {}
        }
    }
}

/// Two workers may count one call too few: nothing depends on it.
fn count_down(calls: &AtomicU32) {
    calls.store(calls.load(Ordering::Relaxed).saturating_sub(1), Ordering::Relaxed);
}

impl Meter {
    /// Does a part of the call, on this thread.
    pub(super) fn run<T>(&self, part: impl FnOnce() -> T) -> T {
        let Some(spent) = &self.0 else { return part() };
        let begun = cpu_time();
        let answer = part();
        let more = cpu_time().saturating_sub(begun);
        spent.fetch_add(u64::try_from(more.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
        answer
    }

    /// Of those parts that have come to their end.
    pub(super) fn measured(&self) -> Option<Duration> {
        self.0.as_ref().map(|spent| Duration::from_nanos(spent.load(Ordering::Relaxed)))
    }
}

/// Of this thread.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.try_into().unwrap_or_default()
}

fn start() -> Option<Runtime> {
    let threads = std::thread::available_parallelism().map_or(1, |cores| cores.get().div_ceil(2));
    let runtime = Builder::new_multi_thread()
        .worker_threads(threads)
        .thread_name("plugins")
        .on_thread_start(lower_priority)
        .enable_time()
        .build();
    runtime.inspect_err(|error| tracing::warn!("long calls of plugins stay on the workers: {error}")).ok()
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

    #[test]
    fn a_thousand_short_calls_make_up_for_a_long_one() {
        let pace = Pace::trusted();
        pace.called(LONG_IF_TRUSTED, Some(LONG));
        assert!(!pace.is_slow());
        pace.called(LONG_IF_TRUSTED, Some(LONG_IF_TRUSTED));
        for _ in 0..SHORT_CALLS {
            assert!(pace.is_slow());
            assert!(pace.meter().measured().is_some());
            pace.called(LONG_IF_TRUSTED, Some(LONG));
        }
        assert!(!pace.is_slow());
    }

    #[test]
    fn ten_short_calls_make_a_stranger_known() {
        let pace = Pace::unknown();
        for _ in 0..SHORT_CALLS_AT_FIRST {
            assert!(pace.is_slow());
            pace.called(LONG, Some(LONG / 2));
        }
        assert!(!pace.is_slow());
    }

    #[test]
    fn what_looks_long_is_measured_before_it_is_judged() {
        let pace = Pace::trusted();
        assert!(pace.meter().measured().is_none());
        pace.called(LONG_IF_TRUSTED, None);
        for _ in 0..MEASURED_CALLS {
            assert!(!pace.is_slow());
            assert!(pace.meter().measured().is_some());
            pace.called(LONG_IF_TRUSTED, Some(LONG));
        }
        assert!(pace.meter().measured().is_none());
    }

    #[test]
    fn time_that_a_call_waits_is_not_its_own() {
        const TIME: Duration = Duration::from_millis(20);

        let meter = Pace::unknown().meter();
        meter.run(|| thread::park_timeout(TIME * 2));
        assert!(meter.measured().is_some_and(|spent| spent < TIME), "{meter:?}");
        meter.run(|| {
            let begun = cpu_time();
            while cpu_time() < begun + TIME {}
        });
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
