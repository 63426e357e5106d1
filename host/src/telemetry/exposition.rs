//! The text that Prometheus reads, version 0.0.4.
//!
//! `admin` makes one for each scrape, and whoever counts writes into it. It knows no metric.

use std::fmt::{Display, Write as _};

/// Families of metrics, one after the other.
#[derive(Debug, Default)]
pub struct Exposition {
    text: String,
}

/// Samples with one name. Without any it leaves no trace.
#[derive(Debug)]
pub struct Family<'a> {
    text: &'a mut String,
    name: &'a str,
    kind: &'static str,
    help: &'a str,
    has_begun: bool,
}

/// How many observations there were up to each of some ends, and their sum.
#[derive(Clone, Debug, PartialEq)]
pub struct Histogram {
    /// By class, not added up; the last is for what is beyond all ends.
    pub counts: Box<[u64]>,
    pub sum: f64,
}

/// Names and values; names are good ones.
pub type Labels<'a> = [(&'a str, &'a str)];

impl Exposition {
    pub const CONTENT_TYPE: &'static str = "text/plain; version=0.0.4; charset=utf-8";

    /// What only grows.
    pub const fn counter<'a>(&'a mut self, name: &'a str, help: &'a str) -> Family<'a> {
        self.family(name, "counter", help)
    }

    pub const fn gauge<'a>(&'a mut self, name: &'a str, help: &'a str) -> Family<'a> {
        self.family(name, "gauge", help)
    }

    pub const fn histogram<'a>(&'a mut self, name: &'a str, help: &'a str) -> Family<'a> {
        self.family(name, "histogram", help)
    }

    pub fn into_text(self) -> String {
        self.text
    }

    const fn family<'a>(&'a mut self, name: &'a str, kind: &'static str, help: &'a str) -> Family<'a> {
        Family { text: &mut self.text, name, kind, help, has_begun: false }
    }
}

impl Family<'_> {
    pub fn sample(&mut self, labels: &Labels<'_>, value: impl Display) {
        self.line("", labels, None, value);
    }

    /// `ends` are the upper ends of the histogram's classes.
    pub fn observations(&mut self, labels: &Labels<'_>, ends: &[f64], histogram: &Histogram) {
        let mut count = 0;
        let ends = ends.iter().map(ToString::to_string).chain(["+Inf".to_owned()]);
        for (of_class, end) in histogram.counts.iter().zip(ends) {
            count += of_class;
            self.line("_bucket", labels, Some(&end), count);
        }
        self.line("_sum", labels, None, histogram.sum);
        self.line("_count", labels, None, count);
    }

    fn line(&mut self, suffix: &str, labels: &Labels<'_>, end: Option<&str>, value: impl Display) {
        let Self { text, name, kind, help, has_begun } = self;
        // Writing to a string cannot fail.
        if !std::mem::replace(has_begun, true) {
            let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
        }
        let _ = write!(text, "{name}{suffix}");
        let labels = labels.iter().copied().chain(end.map(|end| ("le", end)));
        let mut before = '{';
        for (name, value) in labels {
            let _ = write!(text, "{before}{name}=\"");
            push_escaped(text, value);
            text.push('"');
            before = ',';
        }
        let _ = writeln!(text, "{} {value}", if before == '{' { "" } else { "}" });
    }
}

impl Histogram {
    pub fn new(ends: &[f64]) -> Self {
        Self { counts: vec![0; ends.len() + 1].into(), sum: 0.0 }
    }

    pub fn observe(&mut self, ends: &[f64], value: f64) {
        self.counts[ends.partition_point(|end| *end < value)] += 1;
        self.sum += value;
    }
}

impl std::ops::AddAssign<&Self> for Histogram {
    fn add_assign(&mut self, other: &Self) {
        self.counts.iter_mut().zip(&other.counts).for_each(|(sum, count)| *sum += count);
        self.sum += other.sum;
    }
}

fn push_escaped(text: &mut String, value: &str) {
    for character in value.chars() {
        match character {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            other => text.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_written_as_prometheus_reads_them() {
        let mut exposition = Exposition::default();
        exposition.counter("nothing_total", "Not there.");
        let mut counter = exposition.counter("requests_total", "How many.");
        counter.sample(&[], 1);
        counter.sample(&[("path", "a\\b\"c\nd{}é,=")], u64::MAX);
        exposition.gauge("expiry", "When.").sample(&[("cn", ""), ("sans", "a,b")], 1.5);
        let expected = "\
# HELP requests_total How many.
# TYPE requests_total counter
requests_total 1
requests_total{path=\"a\\\\b\\\"c\\nd{}é,=\"} 18446744073709551615
# HELP expiry When.
# TYPE expiry gauge
expiry{cn=\"\",sans=\"a,b\"} 1.5
";
        assert_eq!(exposition.into_text(), expected);
    }

    #[test]
    fn classes_of_a_histogram_are_added_up() {
        let ends = [0.1, 5.0];
        let mut histogram = Histogram::new(&ends);
        [0.1, 0.05, 0.2, 5.0, 6.0].into_iter().for_each(|value| histogram.observe(&ends, value));
        let mut exposition = Exposition::default();
        exposition.histogram("h", "Time.").observations(&[("a", "b")], &ends, &histogram);
        let expected = "\
# HELP h Time.
# TYPE h histogram
h_bucket{a=\"b\",le=\"0.1\"} 2
h_bucket{a=\"b\",le=\"5\"} 4
h_bucket{a=\"b\",le=\"+Inf\"} 5
h_sum{a=\"b\"} 11.35
h_count{a=\"b\"} 5
";
        assert_eq!(exposition.into_text(), expected);
    }
}
