//! What a plugin counts, in a native test. A metric that the host would drop fails the test.
//!
//! The [`Host`](super::Host) of a test has one, and says what was counted.

use std::collections::BTreeMap;

const SERIES_AT_MOST: usize = 1000;
const NAME_BYTES_AT_MOST: usize = 100;
const LABELS_AT_MOST: usize = 8;
const LABEL_VALUE_BYTES_AT_MOST: usize = 128;
/// What Prometheus has for itself in names of histograms.
const TAKEN: [&str; 4] = ["_total", "_bucket", "_count", "_sum"];

#[derive(Default)]
pub(crate) struct Metrics {
    counters: BTreeMap<Series, u64>,
    histograms: BTreeMap<Series, Vec<f64>>,
}

/// A name with its labels, in the order of their names.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Series {
    name: String,
    labels: Vec<(String, String)>,
}

impl Metrics {
    pub(crate) fn add(&mut self, counter: &str, by: u64, labels: &[(String, String)]) {
        let count = self.counters.entry(Series::of_counter(counter, labels)).or_default();
        *count = count.saturating_add(by);
        self.check_number();
    }

    pub(crate) fn observe(&mut self, histogram: &str, value: f64, labels: &[(String, String)]) {
        assert!(value.is_finite(), "the host drops {value}, which `{histogram}` observes");
        self.histograms.entry(Series::of_histogram(histogram, labels)).or_default().push(value);
        self.check_number();
    }

    pub(crate) fn counter(&self, name: &str, labels: &[(String, String)]) -> u64 {
        self.counters.get(&Series::of_counter(name, labels)).copied().unwrap_or_default()
    }

    pub(crate) fn observations(&self, name: &str, labels: &[(String, String)]) -> Vec<f64> {
        self.histograms.get(&Series::of_histogram(name, labels)).cloned().unwrap_or_default()
    }

    fn check_number(&self) {
        let number = self.counters.len() + self.histograms.len();
        assert!(number <= SERIES_AT_MOST, "the host drops metrics after {SERIES_AT_MOST} names with different labels");
    }
}

impl Series {
    fn of_counter(name: &str, labels: &[(String, String)]) -> Self {
        let mut series = Self::new(name, labels);
        series.name.truncate(series.name.strip_suffix("_total").map_or(series.name.len(), str::len));
        series
    }

    fn of_histogram(name: &str, labels: &[(String, String)]) -> Self {
        let series = Self::new(name, labels);
        let taken = TAKEN.into_iter().find(|taken| series.name.ends_with(taken));
        assert_eq!(taken, None, "the host drops a histogram with the name `{name}`");
        series
    }

    fn new(name: &str, labels: &[(String, String)]) -> Self {
        let is_long = name.is_empty() || name.len() > NAME_BYTES_AT_MOST;
        assert!(!is_long, "the host drops a metric with the name `{name}`: it has {} bytes", name.len());
        assert!(labels.len() <= LABELS_AT_MOST, "the host drops `{name}`, which has {} labels", labels.len());
        let mut labels: Vec<_> = labels.iter().map(|(label, value)| (label_name(name, label), value.clone())).collect();
        labels.sort_unstable();
        let twice = labels.windows(2).any(|pair| pair[0].0 == pair[1].0);
        assert!(!twice, "the host drops `{name}`, which has a label twice: {labels:?}");
        let long = labels.iter().find(|(_, value)| value.len() > LABEL_VALUE_BYTES_AT_MOST);
        assert_eq!(long, None, "the host drops `{name}`: the value of a label has more than 128 bytes");
        Self { name: written(name), labels }
    }
}

fn label_name(metric: &str, label: &str) -> String {
    let is_taken = matches!(label, "" | "le" | "plugin") || label.starts_with("__");
    let is_bad =
        is_taken || label.len() > NAME_BYTES_AT_MOST || label.starts_with(|first: char| first.is_ascii_digit());
    assert!(!is_bad, "the host drops `{metric}`, which has a label `{label}`");
    written(label)
}

/// As Prometheus gets it.
fn written(name: &str) -> String {
    name.replace(|character: char| !character.is_ascii_alphanumeric() && character != '_', "_")
}

#[cfg(test)]
mod tests {
    use std::panic;

    use crate::metrics;
    use crate::testing::Host;

    fn labels(labels: &[(&str, &str)]) -> Vec<(String, String)> {
        labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_test_sees_what_was_counted() {
        let host = Host::new();
        metrics::add("hits", 2, &labels(&[("b", "2"), ("a", "1")]));
        metrics::add("hits_total", 1, &labels(&[("a", "1"), ("b", "2")]));
        metrics::add("hits", 5, &[]);
        metrics::observe("look.up_seconds", 0.5, &[]);
        metrics::observe("look_up_seconds", 0.25, &[]);
        assert_eq!(host.counter("hits", &[("a", "1"), ("b", "2")]), 3);
        assert_eq!((host.counter("hits", &[]), host.counter("misses", &[])), (5, 0));
        assert_eq!(host.observations("look_up_seconds", &[]), [0.5, 0.25]);
        assert_eq!(host.observations("look_up_seconds", &[("a", "1")]), [0.0; 0]);
    }

    #[test]
    fn what_the_host_drops_fails_the_test() {
        let long = "x".repeat(129);
        let nine: Vec<(String, String)> = (0..9).map(|number| (format!("l{number}"), String::new())).collect();
        for (name, labels) in [
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
        ] {
            let counted = panic::catch_unwind(|| {
                let _host = Host::new();
                metrics::add(name, 1, &labels);
            });
            assert!(counted.is_err(), "{name} {labels:?}");
        }
        for (name, value) in [("a_count", 1.0), ("a_total", 1.0), ("a", f64::NAN), ("a", f64::INFINITY)] {
            let observed = panic::catch_unwind(|| {
                let _host = Host::new();
                metrics::observe(name, value, &[]);
            });
            assert!(observed.is_err(), "{name} {value}");
        }
        let many = panic::catch_unwind(|| {
            let _host = Host::new();
            (0..1001).for_each(|number| metrics::add("a", 1, &labels(&[("number", &number.to_string())])));
        });
        assert!(many.is_err());
    }
}
