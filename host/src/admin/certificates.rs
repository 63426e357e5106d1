//! `/api/certificates`: what is served, and what is still to come from certificates resolvers.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::Admin;
use super::api::without_nulls;
use crate::acme::{Shown, Step};
use crate::config::Problem;
use crate::snapshot::Snapshot;
use crate::tls::Summary;

/// As Traefik lists them since 3.7, with the place where a file names each, or what its resolver is doing.
pub(super) fn list(admin: &Admin, snapshot: &Snapshot) -> Vec<Value> {
    let mut shown = admin.acme.shown();
    let mut listed: Vec<Value> = Vec::new();
    for certificate in snapshot.tls.certificates() {
        let position = shown.iter().position(|shown| is_about(shown, certificate));
        listed.push(served(certificate, position.map(|position| shown.swap_remove(position)).as_ref()));
    }
    listed.extend(shown.iter().map(awaited));
    listed
}

/// What certificates resolvers have not managed, each as a problem of its resolver.
pub(super) fn problems(admin: &Admin) -> Vec<Problem> {
    admin.acme.shown().iter().filter_map(problem).collect()
}

fn is_about(shown: &Shown, certificate: &Summary) -> bool {
    certificate.resolver.as_deref() == Some(&*shown.resolver)
        && shown.names.len() == certificate.names.len()
        && shown.names.iter().all(|name| certificate.names.contains(name))
}

fn served(certificate: &Summary, shown: Option<&Shown>) -> Value {
    const WARN_BEFORE: i64 = 14 * 24 * 3600;

    let seconds_left = (certificate.not_after - Timestamp::now()).get_seconds();
    // A certificate that lives for six days is never far from its end.
    let lifetime = (certificate.not_after - certificate.not_before).get_seconds();
    without_nulls(json!({
        "name": certificate.fingerprint,
        "certFingerprint": certificate.fingerprint,
        "sans": certificate.names,
        "commonName": certificate.common_name,
        "issuerCN": certificate.issuer,
        "serialNumber": certificate.serial_number,
        "notBefore": certificate.not_before.to_string(),
        "notAfter": certificate.not_after.to_string(),
        "place": certificate.place,
        "resolver": certificate.resolver,
        "acme": shown.map(progress),
        "problems": shown.and_then(problem).map(|problem| vec![problem]),
        "status": if seconds_left <= 0 {
            "expired"
        } else if seconds_left < WARN_BEFORE.min(lifetime / 4) {
            "warning"
        } else {
            "enabled"
        },
    }))
}

/// One that nobody has yet.
fn awaited(shown: &Shown) -> Value {
    without_nulls(json!({
        "name": format!("{} by {}", shown.names.join(", "), shown.resolver),
        "sans": shown.names,
        "commonName": shown.names.first(),
        "resolver": &*shown.resolver,
        "acme": progress(shown),
        "problems": problem(shown).map(|problem| vec![problem]),
        "status": "warning",
    }))
}

fn progress(shown: &Shown) -> Value {
    let time = |time: Timestamp| time.to_string();
    json!({
        "resolver": &*shown.resolver,
        "routers": shown.routers,
        "state": match shown.step {
            Step::Waiting => "waiting",
            Step::Ordering => "ordering",
            Step::Obtained => "obtained",
            Step::Failed => "failed",
        },
        "renewal": shown.renewal.map(time),
        "renewalInfo": shown.window.map(|(start, end)| json!({ "start": time(start), "end": time(end) })),
        "nextAttempt": shown.next_attempt.map(time),
        "lastError": shown.last_error.as_ref().map(|error| json!({ "time": time(error.time), "message": error.message })),
    })
}

fn problem(shown: &Shown) -> Option<Problem> {
    let error = shown.last_error.as_ref()?;
    let names = shown.names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    let message = format!("no certificate for {names}: {}", error.message);
    let next = shown.next_attempt.map(|next| format!("the next attempt is at {next:.0}"));
    Some(Problem::error(format!("certificatesResolvers.{}", shown.resolver), message).help(next))
}
