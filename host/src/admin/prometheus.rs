//! `prometheus@internal`: what there is to count, as text, whatever the path.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use http::HeaderValue;
use http::header::CONTENT_TYPE;

use super::{Admin, plugins};
use crate::http::Response;
use crate::plugin::{CAUSES, TIME_CLASSES, Totals, Usage};
use crate::snapshot::Snapshot;
use crate::telemetry::{Exposition, Histogram};

pub(super) fn answer(admin: &Admin) -> Response {
    let mut exposition = Exposition::default();
    if let Some(metrics) = &admin.metrics {
        metrics.write(&mut exposition);
    }
    let snapshot = admin.live.load();
    certificates(&mut exposition, &snapshot);
    calls(&mut exposition, &admin.usages.all());
    instances(&mut exposition, &snapshot);
    admin.guest_metrics.write(&mut exposition);
    let mut response = Response::new(Bytes::from(exposition.into_text()).into());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(Exposition::CONTENT_TYPE));
    response
}

fn certificates(exposition: &mut Exposition, snapshot: &Snapshot) {
    // One that is configured twice is served once.
    let mut expiries = BTreeMap::new();
    for certificate in snapshot.tls.certificates() {
        let mut names = certificate.names.clone();
        names.sort_unstable();
        let serial = decimal(&certificate.serial_number);
        let labels = (certificate.common_name.as_str(), serial, names.join(","));
        expiries.insert(labels, certificate.not_after.as_second());
    }
    let mut family = exposition.gauge("traefik_tls_certs_not_after", "Certificate expiration timestamp");
    for ((common_name, serial, names), expiry) in &expiries {
        family.sample(&[("cn", common_name), ("serial", serial), ("sans", names)], expiry);
    }
}

/// A serial number, written in hexadecimal bytes, as Traefik has it.
fn decimal(serial_number: &str) -> String {
    let mut digits = vec![0_u16];
    for byte in serial_number.split(':').filter_map(|byte| u16::from_str_radix(byte, 16).ok()) {
        let mut carry = byte;
        for digit in &mut digits {
            let value = *digit * 256 + carry;
            (*digit, carry) = (value % 10, value / 10);
        }
        while carry > 0 {
            digits.push(carry % 10);
            carry /= 10;
        }
    }
    digits.iter().rev().map(ToString::to_string).collect()
}

fn calls(exposition: &mut Exposition, usages: &[Arc<Usage>]) {
    let totals: Vec<(&Usage, Totals)> = usages.iter().map(|usage| (&**usage, usage.totals())).collect();
    let mut family = exposition.counter("weir_plugin_calls_total", "Calls of a plugin.");
    for (usage, totals) in &totals {
        family.sample(&labels(usage), totals.calls);
    }
    let mut family = exposition.counter("weir_plugin_failures_total", "Calls of a plugin that came to nothing.");
    for (usage, totals) in &totals {
        for (cause, count) in CAUSES.into_iter().zip(totals.failures) {
            let [plugin, middleware, router] = labels(usage);
            family.sample(&[plugin, middleware, router, ("cause", cause.name())], count);
        }
    }
    let ends = TIME_CLASSES.map(|microseconds| microseconds as f64 / 1e6);
    let help = "How long calls of a plugin took, with what they waited for.";
    let mut family = exposition.histogram("weir_plugin_call_duration_seconds", help);
    for (usage, totals) in &totals {
        let histogram = Histogram { counts: totals.times.into(), sum: totals.time.as_secs_f64() };
        family.observations(&labels(usage), &ends, &histogram);
    }
}

/// Of the plugins that middlewares are made of.
fn instances(exposition: &mut Exposition, snapshot: &Snapshot) {
    let entries = plugins::entries(snapshot);
    let of_each = entries.iter().map(|entry| (&*entry.name, plugins::configured(entry, &snapshot.items)));
    let used = of_each.filter(|(_, configured)| !configured.is_empty());
    let held: Vec<_> = used.map(|(name, configured)| (name, plugins::held(&configured))).collect();
    let mut family = exposition.gauge("weir_plugin_instances", "Instances of a plugin, idle ones too.");
    for (name, (instances, _)) in &held {
        family.sample(&[("plugin", name)], instances);
    }
    let mut family = exposition.gauge("weir_plugin_memory_bytes", "Linear memory of a plugin's instances.");
    for (name, (_, memory)) in &held {
        family.sample(&[("plugin", name)], memory);
    }
}

fn labels(usage: &Usage) -> [(&'static str, &str); 3] {
    [("plugin", &usage.plugin), ("middleware", &usage.middleware), ("router", &usage.router)]
}

#[cfg(test)]
mod tests {
    use super::decimal;

    #[test]
    fn serial_numbers_are_decimal() {
        for (hexadecimal, expected) in [
            ("00", "0"),
            ("ff", "255"),
            ("01:00", "256"),
            ("FF:FF:FF:FF:FF:FF:FF:FF", "18446744073709551615"),
            ("01:00:00:00:00:00:00:00:00", "18446744073709551616"),
        ] {
            assert_eq!(decimal(hexadecimal), expected, "{hexadecimal}");
        }
    }
}
