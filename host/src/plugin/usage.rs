//! What a middleware has cost on one router: calls, failures by cause, time.
//!
//! `middleware` holds one [`Usage`] for each step of a chain, `instance` counts in it, `admin` shows it. The counts of a
//! router go on over reloads for as long as the middleware is on it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

use super::shared::Scopes;

/// The upper ends of the classes of time, in microseconds; a last class has what took longer.
pub const TIME_CLASSES: [u64; 11] = [1, 2, 5, 10, 20, 50, 100, 500, 1_000, 10_000, 50_000];

/// One middleware on one router.
#[derive(Debug)]
pub struct Usage {
    pub plugin: Arc<str>,
    /// As `/api/http/middlewares` has it: `auth@file`.
    pub middleware: Arc<str>,
    pub router: Arc<str>,
    /// What its calls share, where it imports that.
    pub(super) scopes: OnceLock<Scopes>,
    /// One for each worker, so that counting is nobody else's business.
    counts: Box<[Counts]>,
}

/// Why a call came to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// It trapped.
    Trap,
    /// It used up its CPU time.
    Time,
    /// It waited longer than a call may take.
    Deadline,
    /// It wanted more memory than it may have.
    Memory,
    /// What it answered cannot be used.
    Answer,
    /// A new instance could not be made.
    Start,
    /// All its instances were busy, or its share of the CPU was used up.
    Busy,
    /// It has failed too often, and was not called.
    Open,
}

/// All causes, in the order of their counters.
pub const CAUSES: [Cause; 8] =
    [Cause::Trap, Cause::Time, Cause::Deadline, Cause::Memory, Cause::Answer, Cause::Start, Cause::Busy, Cause::Open];

/// A cache line of its own for each worker.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Counts {
    calls: AtomicU64,
    nanoseconds: AtomicU64,
    times: [AtomicU64; TIME_CLASSES.len() + 1],
    failures: [AtomicU64; CAUSES.len()],
}

/// Sums of all workers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    pub calls: u64,
    /// Of guests and of what they waited for.
    pub time: Duration,
    /// Calls by class of time: see [`TIME_CLASSES`].
    pub times: [u64; TIME_CLASSES.len() + 1],
    /// In the order of [`CAUSES`].
    pub failures: [u64; CAUSES.len()],
}

/// All usages that are in use. One for the process.
#[derive(Debug)]
pub struct Usages {
    workers: usize,
    known: Mutex<BTreeMap<[Arc<str>; 3], Weak<Usage>>>,
}

impl Usages {
    pub fn new(workers: usize) -> Self {
        Self { workers: workers.max(1), known: Mutex::default() }
    }

    /// The one there is, with its counts, or a new one.
    pub fn of(&self, plugin: &Arc<str>, middleware: &Arc<str>, router: &Arc<str>) -> Arc<Usage> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let key = [plugin, middleware, router].map(Arc::clone);
        if let Some(usage) = known.get(&key).and_then(Weak::upgrade) {
            return usage;
        }
        known.retain(|_, usage| usage.strong_count() > 0);
        let [plugin, middleware, router] = key.clone();
        let counts = std::iter::repeat_with(Counts::default).take(self.workers).collect();
        let usage = Arc::new(Usage { plugin, middleware, router, scopes: OnceLock::new(), counts });
        known.insert(key, Arc::downgrade(&usage));
        usage
    }

    /// Those in use, by plugin, middleware and router.
    pub fn all(&self) -> Vec<Arc<Usage>> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.values().filter_map(Weak::upgrade).collect()
    }
}

impl Usage {
    /// A call that has ended, well or not. `worker` is counted from 0.
    pub(super) fn called(&self, worker: usize, took: Duration) {
        let counts = self.of_worker(worker);
        let microseconds = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let class = TIME_CLASSES.partition_point(|end| *end < microseconds);
        add(&counts.calls, 1);
        add(&counts.times[class], 1);
        add(&counts.nanoseconds, u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
    }

    pub(super) fn failed(&self, worker: usize, cause: Cause) {
        add(&self.of_worker(worker).failures[cause as usize], 1);
    }

    pub fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        for counts in &self.counts {
            totals.calls += counts.calls.load(Ordering::Relaxed);
            totals.time += Duration::from_nanos(counts.nanoseconds.load(Ordering::Relaxed));
            for (total, count) in totals.times.iter_mut().zip(&counts.times) {
                *total += count.load(Ordering::Relaxed);
            }
            for (total, count) in totals.failures.iter_mut().zip(&counts.failures) {
                *total += count.load(Ordering::Relaxed);
            }
        }
        totals
    }

    fn of_worker(&self, worker: usize) -> &Counts {
        &self.counts[worker % self.counts.len()]
    }
}

/// Nobody else writes there, so that nothing need be locked.
fn add(count: &AtomicU64, by: u64) {
    count.store(count.load(Ordering::Relaxed).wrapping_add(by), Ordering::Relaxed);
}

impl Totals {
    pub fn failures(&self) -> u64 {
        self.failures.iter().sum()
    }
}

impl std::ops::AddAssign<&Self> for Totals {
    fn add_assign(&mut self, other: &Self) {
        self.calls += other.calls;
        self.time += other.time;
        self.times.iter_mut().zip(other.times).for_each(|(total, count)| *total += count);
        self.failures.iter_mut().zip(other.failures).for_each(|(total, count)| *total += count);
    }
}

impl Cause {
    /// As metrics and the API have it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Trap => "trap",
            Self::Time => "time",
            Self::Deadline => "deadline",
            Self::Memory => "memory",
            Self::Answer => "answer",
            Self::Start => "start",
            Self::Busy => "busy",
            Self::Open => "open",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(usages: &Usages, router: &str) -> Arc<Usage> {
        usages.of(&"stamp".into(), &"m@file".into(), &router.into())
    }

    #[test]
    fn workers_count_apart_and_are_summed() {
        let usages = Usages::new(2);
        let usage = usage(&usages, "r@file");
        usage.called(0, Duration::from_nanos(900));
        usage.called(1, Duration::from_micros(3));
        usage.called(1, Duration::from_secs(1));
        usage.failed(1, Cause::Time);
        let totals = usage.totals();
        assert_eq!((totals.calls, totals.failures()), (3, 1));
        assert_eq!(totals.times, [1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!(totals.time, Duration::from_nanos(900) + Duration::from_micros(3) + Duration::from_secs(1));
    }

    #[test]
    fn causes_have_counters_of_their_own() {
        for (at, cause) in CAUSES.into_iter().enumerate() {
            assert_eq!(cause as usize, at, "{}", cause.name());
        }
    }

    #[test]
    fn counts_live_as_long_as_anything_uses_them() {
        let usages = Usages::new(1);
        let first = usage(&usages, "r@file");
        first.called(0, Duration::ZERO);
        let second = usage(&usages, "r@file");
        drop(first);
        assert_eq!(usage(&usages, "r@file").totals().calls, 1, "a reload takes it over");
        drop(second);
        assert_eq!(usages.all().len(), 0);
        assert_eq!(usage(&usages, "r@file").totals().calls, 0);
    }
}
