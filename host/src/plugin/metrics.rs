//! What guests count for themselves: `weir:plugin/metrics`.
//!
//! `plugin` gives each configured plugin what it has [`Published`], `State` counts there, `admin` writes it out. Each worker
//! counts apart, so that its lock is nobody else's business but when somebody reads.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::bindings::middleware::weir::plugin::metrics;
use super::imports::State;
use crate::telemetry::{Exposition, Histogram};

/// Different names and labels that one plugin may have.
const SERIES_AT_MOST: usize = 1000;
const NAME_BYTES_AT_MOST: usize = 100;
const LABELS_AT_MOST: usize = 8;
const LABEL_VALUE_BYTES_AT_MOST: usize = 128;

/// The upper ends of a histogram's classes: seconds, as Prometheus' own libraries have them.
const SECONDS: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// Those of a histogram whose name ends in `_bytes`.
const BYTES: &[f64] =
    &[64.0, 256.0, 1024.0, 4096.0, 16384.0, 65536.0, 262_144.0, 1_048_576.0, 4_194_304.0, 16_777_216.0];

/// What all plugins have published. One for the process.
#[derive(Debug)]
pub struct GuestMetrics {
    workers: usize,
    plugins: Mutex<BTreeMap<Arc<str>, Weak<Published>>>,
}

/// What one plugin has published, as long as a middleware is made of it, whatever version it has.
#[derive(Debug)]
pub(super) struct Published {
    plugin: Arc<str>,
    by_worker: Box<[Mutex<HashMap<Series, Value>>]>,
    /// Those of all workers.
    known: Mutex<HashSet<Series>>,
    dropped: AtomicU64,
    has_complained: AtomicBool,
}

/// A name with its labels, in the order of their names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Series {
    kind: Kind,
    /// Without what the name of every metric begins with, and without the `_total` that counters end with.
    name: String,
    labels: Vec<(String, String)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Kind {
    Counter,
    Histogram,
}

#[derive(Clone, Debug)]
enum Value {
    Count(u64),
    Observations(Histogram),
}

impl GuestMetrics {
    pub(super) fn new(workers: usize) -> Self {
        Self { workers: workers.max(1), plugins: Mutex::default() }
    }

    /// What the plugin has published so far.
    pub(super) fn of(&self, plugin: &Arc<str>) -> Arc<Published> {
        let mut plugins = lock(&self.plugins);
        if let Some(known) = plugins.get(plugin).and_then(Weak::upgrade) {
            return known;
        }
        plugins.retain(|_, published| published.strong_count() > 0);
        let published = Arc::new(Published::new(Arc::clone(plugin), self.workers));
        plugins.insert(Arc::clone(plugin), Arc::downgrade(&published));
        published
    }

    /// What is not 0, a line for each, without the classes of histograms.
    pub fn samples(&self) -> Vec<String> {
        let mut exposition = Exposition::default();
        self.write(&mut exposition);
        let is_shown = |line: &&str| !line.starts_with('#') && !line.contains("_bucket{") && !line.ends_with(" 0");
        exposition.into_text().lines().filter(is_shown).map(str::to_owned).collect()
    }

    pub fn write(&self, exposition: &mut Exposition) {
        let published: Vec<Arc<Published>> = lock(&self.plugins).values().filter_map(Weak::upgrade).collect();
        let mut families: BTreeMap<String, Vec<(&str, Series, Value)>> = BTreeMap::new();
        for published in &published {
            for (series, value) in published.sums() {
                let samples = families.entry(series.full_name(&published.plugin)).or_default();
                samples.push((&published.plugin, series, value));
            }
        }
        for (name, samples) in &families {
            let mut family = match samples.first() {
                Some((_, Series { kind: Kind::Histogram, .. }, _)) => exposition.histogram(name, "By a plugin."),
                _ => exposition.counter(name, "By a plugin."),
            };
            for (plugin, series, value) in samples {
                let given = series.labels.iter().map(|(name, value)| (name.as_str(), value.as_str()));
                let labels: Vec<(&str, &str)> = [("plugin", *plugin)].into_iter().chain(given).collect();
                match value {
                    Value::Count(count) => family.sample(&labels, count),
                    Value::Observations(histogram) => family.observations(&labels, series.ends(), histogram),
                }
            }
        }
        let mut dropped = exposition
            .counter("weir_plugin_metrics_dropped_total", "How often a plugin's metric could not be counted.");
        for published in published {
            dropped.sample(&[("plugin", &published.plugin)], published.dropped.load(Ordering::Relaxed));
        }
    }
}

impl Published {
    fn new(plugin: Arc<str>, workers: usize) -> Self {
        Self {
            plugin,
            by_worker: std::iter::repeat_with(Mutex::default).take(workers).collect(),
            known: Mutex::default(),
            dropped: AtomicU64::new(0),
            has_complained: AtomicBool::new(false),
        }
    }

    fn add(&self, worker: usize, counter: String, by: u64, labels: Vec<(String, String)>) {
        let counted = Series::new(Kind::Counter, counter, labels).and_then(|series| {
            self.change(worker, series, |value| {
                if let Value::Count(count) = value {
                    *count = count.saturating_add(by);
                }
            })
        });
        counted.unwrap_or_else(|reason| self.drops(&reason));
    }

    fn observe(&self, worker: usize, histogram: String, observed: f64, labels: Vec<(String, String)>) {
        if !observed.is_finite() {
            return self.drops("an observation is no finite number");
        }
        let counted = Series::new(Kind::Histogram, histogram, labels).and_then(|series| {
            let ends = series.ends();
            self.change(worker, series, |value| {
                if let Value::Observations(histogram) = value {
                    histogram.observe(ends, observed);
                }
            })
        });
        counted.unwrap_or_else(|reason| self.drops(&reason));
    }

    fn change(&self, worker: usize, series: Series, change: impl FnOnce(&mut Value)) -> Result<(), String> {
        let mut values = lock(&self.by_worker[worker % self.by_worker.len()]);
        if let Some(value) = values.get_mut(&series) {
            change(value);
            return Ok(());
        }
        let mut known = lock(&self.known);
        if !known.contains(&series) {
            if known.len() >= SERIES_AT_MOST {
                return Err(format!("it has more than {SERIES_AT_MOST} names with different labels"));
            }
            known.insert(series.clone());
        }
        drop(known);
        let zero = match series.kind {
            Kind::Counter => Value::Count(0),
            Kind::Histogram => Value::Observations(Histogram::new(series.ends())),
        };
        change(values.entry(series).or_insert(zero));
        Ok(())
    }

    /// Said once: whoever wants to know how often has a metric for it.
    fn drops(&self, reason: &str) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
        if !self.has_complained.swap(true, Ordering::Relaxed) {
            tracing::warn!(plugin = &*self.plugin, "a metric of the plugin is dropped: {reason}");
        }
    }

    fn sums(&self) -> BTreeMap<Series, Value> {
        let mut sums = BTreeMap::new();
        for values in &self.by_worker {
            for (series, value) in &*lock(values) {
                match (sums.get_mut(series), value) {
                    (Some(Value::Count(sum)), Value::Count(count)) => *sum = sum.saturating_add(*count),
                    (Some(Value::Observations(sum)), Value::Observations(histogram)) => *sum += histogram,
                    _ => drop(sums.insert(series.clone(), value.clone())),
                }
            }
        }
        sums
    }
}

impl Series {
    fn new(kind: Kind, name: String, mut labels: Vec<(String, String)>) -> Result<Self, String> {
        if name.is_empty() || name.len() > NAME_BYTES_AT_MOST {
            return Err(format!("its name has {} bytes: from 1 to {NAME_BYTES_AT_MOST} are allowed", name.len()));
        }
        let mut name = named(name);
        match kind {
            Kind::Counter => name.truncate(name.strip_suffix("_total").map_or(name.len(), str::len)),
            Kind::Histogram => {
                let taken = ["_total", "_bucket", "_count", "_sum"].into_iter().find(|taken| name.ends_with(taken));
                if let Some(taken) = taken {
                    return Err(format!("the name of a histogram may not end with `{taken}`: {name:?}"));
                }
            }
        }
        if labels.len() > LABELS_AT_MOST {
            return Err(format!("it has {} labels: at most {LABELS_AT_MOST} are allowed", labels.len()));
        }
        for (label, value) in &mut labels {
            *label = label_name(std::mem::take(label))?;
            if value.len() > LABEL_VALUE_BYTES_AT_MOST {
                let bytes = value.len();
                return Err(format!(
                    "the label `{label}` has {bytes} bytes: at most {LABEL_VALUE_BYTES_AT_MOST} are allowed"
                ));
            }
        }
        labels.sort_unstable();
        if let Some(pair) = labels.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            return Err(format!("the label `{}` is there twice", pair[0].0));
        }
        Ok(Self { kind, name, labels })
    }

    fn full_name(&self, plugin: &str) -> String {
        let end = if self.kind == Kind::Counter { "_total" } else { "" };
        format!("plugin_{}_{}{end}", named(plugin.to_owned()), self.name)
    }

    fn ends(&self) -> &'static [f64] {
        if self.name.ends_with("_bytes") { BYTES } else { SECONDS }
    }
}

fn label_name(name: String) -> Result<String, String> {
    let is_taken = matches!(name.as_str(), "le" | "plugin") || name.starts_with("__");
    if name.len() > NAME_BYTES_AT_MOST
        || is_taken
        || name.starts_with(|first: char| !may_begin(first))
        || name.is_empty()
    {
        let shown: String = name.chars().take(NAME_BYTES_AT_MOST).collect();
        return Err(format!("{shown:?} is no name for a label of a plugin"));
    }
    Ok(named(name))
}

const fn may_begin(first: char) -> bool {
    !first.is_ascii_digit()
}

/// A name as Prometheus has them: with `_` in the place of other characters.
fn named(name: String) -> String {
    let is_good = |character: char| character.is_ascii_alphanumeric() || character == '_';
    if name.chars().all(is_good) { name } else { name.replace(|character| !is_good(character), "_") }
}

impl metrics::Host for State {
    fn add(&mut self, counter: String, by: u64, labels: Vec<(String, String)>) {
        if let Some(metrics) = &self.metrics {
            metrics.add(self.worker, counter, by, labels);
        }
    }

    fn observe(&mut self, histogram: String, value: f64, labels: Vec<(String, String)>) {
        if let Some(metrics) = &self.metrics {
            metrics.observe(self.worker, histogram, value, labels);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn published() -> (GuestMetrics, Arc<Published>) {
        let metrics = GuestMetrics::new(2);
        let published = metrics.of(&"my-limit".into());
        (metrics, published)
    }

    fn text(metrics: &GuestMetrics) -> String {
        let mut exposition = Exposition::default();
        metrics.write(&mut exposition);
        exposition.into_text()
    }

    fn labels(labels: &[(&str, &str)]) -> Vec<(String, String)> {
        labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn workers_count_apart_and_are_summed() {
        let (metrics, published) = published();
        published.add(0, "hits".to_owned(), 2, labels(&[("b", "2"), ("a", "1")]));
        published.add(1, "hits_total".to_owned(), 3, labels(&[("a", "1"), ("b", "2")]));
        published.add(3, "hits".to_owned(), 0, labels(&[]));
        published.observe(0, "body.bytes".to_owned(), 100.0, labels(&[]));
        published.observe(1, "body.bytes".to_owned(), 1e9, labels(&[]));
        let text = text(&metrics);
        for line in [
            "# TYPE plugin_my_limit_hits_total counter",
            "plugin_my_limit_hits_total{plugin=\"my-limit\",a=\"1\",b=\"2\"} 5",
            "plugin_my_limit_hits_total{plugin=\"my-limit\"} 0",
            "# TYPE plugin_my_limit_body_bytes histogram",
            "plugin_my_limit_body_bytes_bucket{plugin=\"my-limit\",le=\"64\"} 0",
            "plugin_my_limit_body_bytes_bucket{plugin=\"my-limit\",le=\"256\"} 1",
            "plugin_my_limit_body_bytes_sum{plugin=\"my-limit\"} 1000000100",
            "plugin_my_limit_body_bytes_count{plugin=\"my-limit\"} 2",
            "weir_plugin_metrics_dropped_total{plugin=\"my-limit\"} 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        assert_eq!(text.matches("# TYPE plugin_my_limit_hits_total").count(), 1, "{text}");
    }

    #[test]
    fn what_prometheus_could_not_read_is_dropped_and_counted() {
        let long = "x".repeat(129);
        let nine: Vec<(String, String)> = (0..9).map(|number| (format!("l{number}"), String::new())).collect();
        let (metrics, published) = published();
        let bad = [
            ("", labels(&[])),
            (&long, labels(&[])),
            ("a", nine),
            ("a", labels(&[("le", "1")])),
            ("a", labels(&[("plugin", "other")])),
            ("a", labels(&[("__name__", "other")])),
            ("a", labels(&[("", "1")])),
            ("a", labels(&[("0a", "1")])),
            ("a", labels(&[("a.b", "1"), ("a_b", "1")])),
            ("a", labels(&[("a", &long)])),
        ];
        let count = bad.len() as u64;
        for (name, labels) in bad {
            published.add(0, name.to_owned(), 1, labels);
        }
        for (name, value) in [("a_count", 1.0), ("a_total", 1.0), ("a", f64::NAN), ("a", f64::INFINITY)] {
            published.observe(0, name.to_owned(), value, labels(&[]));
        }
        let text = text(&metrics);
        assert!(text.ends_with(&format!("{{plugin=\"my-limit\"}} {}\n", count + 4)), "{text}");
        assert!(!text.contains("plugin_my_limit_"), "{text}");
    }

    #[test]
    fn a_plugin_has_a_thousand_series_at_most() {
        let (metrics, published) = published();
        for number in 0..1500 {
            published.add(number % 2, "hits".to_owned(), 1, labels(&[("number", &number.to_string())]));
        }
        published.add(1, "hits".to_owned(), 1, labels(&[("number", "0")]));
        let text = text(&metrics);
        assert_eq!(text.matches("plugin_my_limit_hits_total{").count(), SERIES_AT_MOST);
        assert!(text.contains("number=\"0\"} 2\n"), "another worker may count what is known");
        assert!(text.ends_with(" 500\n"), "{}", &text[text.len() - 100..]);
    }

    #[test]
    fn names_that_come_out_alike_are_told_apart_by_their_plugin() {
        let metrics = GuestMetrics::new(1);
        let [one, other] = ["a", "a-b"].map(|name| metrics.of(&name.into()));
        one.add(0, "b_c".to_owned(), 1, labels(&[]));
        other.add(0, "c".to_owned(), 2, labels(&[]));
        let text = text(&metrics);
        assert!(text.contains("plugin_a_b_c_total{plugin=\"a\"} 1\nplugin_a_b_c_total{plugin=\"a-b\"} 2\n"), "{text}");
    }

    #[test]
    fn what_is_published_goes_with_the_plugin() {
        let (metrics, published) = published();
        published.add(0, "hits".to_owned(), 1, labels(&[]));
        let swapped = metrics.of(&"my-limit".into());
        drop(published);
        assert!(text(&metrics).contains("plugin_my_limit_hits_total"));
        drop(swapped);
        assert_eq!(text(&metrics), "");
    }
}
