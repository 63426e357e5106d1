//! Traefik's API as JSON, from the live snapshot: <https://doc.traefik.io/traefik/reference/install-configuration/api-dashboard/>.
//!
//! Beyond Traefik's: `problems` with places and help, `stale`, and `/api/plugins`.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use http::header::CONTENT_TYPE;
use http::{HeaderName, HeaderValue, StatusCode};
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

use super::{Admin, certificates, plugins};
use crate::config::install::EntryPoint;
use crate::config::{Problem, routing};
use crate::http::Response;
use crate::plugin;
use crate::service::{Internal, Service};
use crate::snapshot::{Items, Middleware, Placed, Snapshot, Status};

static NEXT_PAGE: HeaderName = HeaderName::from_static("x-next-page");

const ITEMS_PER_PAGE: usize = 100;

/// Answers `GET` of a path below the API's base.
pub(super) fn answer(admin: &Admin, path: &str, query: &str) -> Response {
    let snapshot = admin.live.load_full();
    let items = &snapshot.items;
    let parts: Vec<String> = path
        .trim_matches('/')
        .split('/')
        .skip(1)
        .map(|part| percent_decode_str(part).decode_utf8_lossy().into_owned())
        .collect();
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    match parts.as_slice() {
        ["overview"] => ok(overview(admin, &snapshot)),
        ["version"] => version(admin),
        ["rawdata"] => ok(raw_data(items)),
        ["entrypoints"] => page(entry_points(admin), query),
        ["entrypoints", name] => one(entry_points(admin), "entry point", name),
        ["plugins"] => page(plugins::list(admin, &snapshot), query),
        ["certificates"] => page(certificates::list(admin, &snapshot), query),
        ["http", "routers"] => page(routers(items), query),
        ["http", "routers", name] => one(routers(items), "router", name),
        ["http", "services"] => page(services(items), query),
        ["http", "services", name] => one(services(items), "service", name),
        ["http", "middlewares"] => page(middlewares(items), query),
        ["http", "middlewares", name] => one(middlewares(items), "middleware", name),
        ["tcp", "routers" | "services" | "middlewares"] | ["udp", "routers" | "services"] => page(Vec::new(), query),
        _ => json_response(StatusCode::NOT_FOUND, &json!({ "message": "404 page not found" })),
    }
}

fn ok(value: Value) -> Response {
    json_response(StatusCode::OK, &value)
}

fn json_response(status: StatusCode, value: &Value) -> Response {
    let mut response = Response::new(bytes::Bytes::from(value.to_string()).into());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn one(values: Vec<Value>, kind: &str, name: &str) -> Response {
    match values.into_iter().find(|value| value["name"] == name) {
        Some(value) => ok(value),
        None => {
            let message = format!("{kind} not found: {name}");
            json_response(StatusCode::NOT_FOUND, &json!({ "message": message }))
        }
    }
}

/// One page of a list, chosen by `page`, `per_page`, `search` and `status`.
fn page(mut values: Vec<Value>, query: &str) -> Response {
    let parameters: BTreeMap<&str, String> = query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (name, percent_decode_str(&value.replace('+', " ")).decode_utf8_lossy().into_owned()))
        .collect();
    if let Some(status) = parameters.get("status").filter(|status| !status.is_empty()) {
        values.retain(|value| value["status"] == status.as_str());
    }
    if let Some(search) = parameters.get("search").map(|search| search.to_lowercase()) {
        values.retain(|value| {
            ["name", "rule", "service"]
                .iter()
                .any(|key| value[key].as_str().is_some_and(|text| text.to_lowercase().contains(&search)))
        });
    }
    let number = |name, default| parameters.get(name).map_or(Some(default), |text| text.parse().ok());
    let (Some(page @ 1..), Some(size @ 1..)) = (number("page", 1_usize), number("per_page", ITEMS_PER_PAGE)) else {
        return json_response(StatusCode::BAD_REQUEST, &json!({ "message": "invalid request: page or per_page" }));
    };
    let start = (page - 1).saturating_mul(size);
    if start > 0 && start >= values.len() {
        let message = format!("invalid request: page: {page}, per_page: {size}");
        return json_response(StatusCode::BAD_REQUEST, &json!({ "message": message }));
    }
    let end = start.saturating_add(size).min(values.len());
    let next = if end < values.len() { page + 1 } else { 1 };
    let mut response = ok(Value::Array(values[start..end].to_vec()));
    response.headers_mut().insert(&NEXT_PAGE, HeaderValue::from(next));
    response
}

fn overview(admin: &Admin, snapshot: &Snapshot) -> Value {
    let items = &snapshot.items;
    let none = json!({ "total": 0, "warnings": 0, "errors": 0 });
    let failed = certificates::problems(admin);
    let open: Vec<_> = items.middlewares.iter().filter_map(|(name, status)| open_breaker(name, status)).collect();
    let problems: Vec<&Problem> = items.all_problems().chain(&failed).chain(&open).collect();
    json!({
        "http": {
            "routers": counts(&routers(items)),
            "services": counts(&services(items)),
            "middlewares": counts(&middlewares(items)),
        },
        "tcp": { "routers": none, "services": none, "middlewares": none },
        "udp": { "routers": none, "services": none },
        "certificates": counts(&certificates::list(admin, snapshot)),
        "features": { "tracing": "", "metrics": admin.metrics.as_ref().map_or("", |_| "Prometheus"), "accessLog": admin.install.access_log.is_some() },
        "providers": if admin.install.providers.file.is_some() { vec!["File"] } else { Vec::new() },
        "problems": problems,
    })
}

fn counts(values: &[Value]) -> Value {
    let with = |status: &str| values.iter().filter(|value| value["status"] == status).count();
    json!({ "total": values.len(), "warnings": with("warning"), "errors": with("disabled") + with("expired") })
}

fn version(admin: &Admin) -> Response {
    let mut response = ok(json!({
        "Version": env!("CARGO_PKG_VERSION"),
        "Codename": "weir",
        "startDate": admin.started.to_string(),
    }));
    // The one answer of Traefik's API that names its charset.
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json; charset=UTF-8"));
    response
}

fn raw_data(items: &Items) -> Value {
    let by_name = |values: Vec<Value>| -> serde_json::Map<String, Value> {
        let named = values.into_iter().filter_map(|mut value| {
            let object = value.as_object_mut()?;
            object.remove("provider");
            object.remove("priorityStr");
            let name = object.remove("name")?.as_str()?.to_owned();
            Some((name, value))
        });
        named.collect()
    };
    json!({
        "routers": by_name(routers(items)),
        "middlewares": by_name(middlewares(items)),
        "services": by_name(services(items)),
    })
}

fn entry_points(admin: &Admin) -> Vec<Value> {
    admin.install.entry_points.iter().map(|(name, entry_point)| entry_point_json(name, entry_point)).collect()
}

fn entry_point_json(name: &str, entry_point: &EntryPoint) -> Value {
    let EntryPoint { address, http, transport, forwarded_headers, http2, as_default, .. } = entry_point;
    let timeouts = &transport.responding_timeouts;
    let trusted: Vec<String> = forwarded_headers.trusted_ips.iter().map(ToString::to_string).collect();
    let redirection = http.redirections.entry_point.as_ref().map(|to| {
        json!({ "entryPoint": { "to": to.to, "scheme": to.scheme, "permanent": to.permanent, "priority": to.priority } })
    });
    without_nulls(json!({
        "name": name,
        "address": address.to_string(),
        "asDefault": as_default.then_some(true),
        "transport": {
            "lifeCycle": { "graceTimeOut": go_duration(transport.life_cycle.grace_timeout) },
            "respondingTimeouts": {
                "readTimeout": timeouts.read_timeout.map(go_duration),
                "writeTimeout": timeouts.write_timeout.map(go_duration),
                "idleTimeout": timeouts.idle_timeout.map(go_duration),
            },
        },
        "forwardedHeaders": {
            "insecure": forwarded_headers.insecure.then_some(true),
            "trustedIPs": (!trusted.is_empty()).then_some(trusted),
        },
        "http": {
            "redirections": redirection,
            "middlewares": (!http.middlewares.is_empty()).then_some(&http.middlewares),
            "tls": http.tls.as_ref().map(tls_json),
            "sanitizePath": http.sanitize_path,
            "maxHeaderBytes": http.max_header_bytes,
        },
        "http2": { "maxConcurrentStreams": http2.max_concurrent_streams },
    }))
}

fn routers(items: &Items) -> Vec<Value> {
    items.routers.iter().map(|(name, status)| router_json(name, status)).collect()
}

fn router_json(name: &str, status: &Status<routing::Router, Vec<Placed>>) -> Value {
    let config = status.config.as_ref();
    let placed = status.serves.as_deref().unwrap_or_default();
    let using: Vec<&str> = placed.iter().map(|placed| &*placed.entry_point).collect();
    let priority = placed.first().map(|placed| placed.route.priority);
    let tls = placed.iter().find_map(|placed| placed.tls.as_ref()).map(tls_json);
    let serves = !placed.is_empty() && !placed.iter().any(Placed::is_disabled);
    let details = json!({
        "rule": config.map(|config| &config.rule),
        "service": config.map(|config| &config.service),
        "entryPoints": config.map(|config| if config.entry_points.is_empty() {
            using.iter().map(|&name| name.to_owned()).collect()
        } else {
            config.entry_points.clone()
        }),
        "middlewares": config.filter(|config| !config.middlewares.is_empty()).map(|config| {
            config.middlewares.iter().map(|name| with_provider(name)).collect::<Vec<_>>()
        }),
        "priority": priority,
        "priorityStr": priority.map(|priority| priority.to_string()),
        "tls": tls,
        "observability": config.map(|config| json!({
            "accessLogs": config.observability.access_logs.unwrap_or(true),
            "metrics": config.observability.metrics.unwrap_or(true),
            "tracing": config.observability.tracing.unwrap_or(true),
            "traceVerbosity": config.observability.trace_verbosity.as_deref().unwrap_or("minimal"),
        })),
        "using": using,
    });
    item_json(name, status, serves, details)
}

fn tls_json(tls: &routing::RouterTls) -> Value {
    let domains: Vec<Value> =
        tls.domains.iter().map(|domain| json!({ "main": domain.main, "sans": domain.sans })).collect();
    without_nulls(json!({
        "options": tls.options.as_deref().unwrap_or("default"),
        "certResolver": tls.cert_resolver,
        "domains": (!domains.is_empty()).then_some(domains),
    }))
}

fn services(items: &Items) -> Vec<Value> {
    let used = used_by(items, |config| vec![config.service.clone()]);
    let of_files = items.services.iter().map(|(name, status)| {
        let details = match status.serves.as_deref() {
            Some(Service::LoadBalancer(balancer)) => {
                let servers = balancer.servers.iter();
                let listed: Vec<Value> = servers
                    .clone()
                    .map(|server| json!({ "url": &*server.upstream.url, "weight": server.weight }))
                    .collect();
                let states: serde_json::Map<String, Value> =
                    servers.map(|server| (server.upstream.url.to_string(), json!("UP"))).collect();
                json!({
                    "type": "loadbalancer",
                    "loadBalancer": {
                        "servers": listed,
                        "passHostHeader": balancer.pass_host_header,
                        "strategy": "wrr",
                    },
                    "serverStatus": states,
                })
            }
            _ => json!({}),
        };
        let mut value = item_json(name, status, status.serves.is_some(), details);
        value["usedBy"] = json!(used.get(&with_provider(name)));
        without_nulls(value)
    });
    // As in Traefik, what the install file can turn on is listed where a router leads to it.
    let prometheus = used.contains_key(Internal::Prometheus.name()).then_some(Internal::Prometheus);
    let internal = [Internal::Api, Internal::Dashboard, Internal::Ping, Internal::Whoami, Internal::Noop];
    let internal = internal.into_iter().chain(prometheus);
    let internal = internal.map(|service| {
        without_nulls(json!({
            "name": service.name(),
            "provider": "internal",
            "status": "enabled",
            "usedBy": used.get(service.name()),
        }))
    });
    let mut services: Vec<Value> = of_files.chain(internal).collect();
    services.sort_by_key(|service| service["name"].as_str().unwrap_or_default().to_owned());
    services
}

fn middlewares(items: &Items) -> Vec<Value> {
    let used = used_by(items, |config| config.middlewares.clone());
    let values = items.middlewares.iter().map(|(name, status)| {
        let details = match (&status.serves, &status.config) {
            (Some(Middleware::Plugin(configured)), config) => plugin_details(&configured.plugin, config.as_ref()),
            (_, Some(routing::Middleware::Chain { middlewares })) => {
                json!({ "type": "chain", "chain": { "middlewares": middlewares } })
            }
            (_, Some(routing::Middleware::Plugin { name, .. })) => json!({ "type": name.to_lowercase() }),
            (_, None) => json!({}),
        };
        let status = &with_breaker(name, status);
        let mut value = item_json(name, status, status.serves.is_some(), details);
        value["usedBy"] = json!(used.get(&with_provider(name)));
        without_nulls(value)
    });
    values.collect()
}

/// With the problem that a middleware is not called for a while, if that is so.
fn with_breaker<'a>(
    name: &str,
    status: &'a Status<routing::Middleware, Middleware>,
) -> Cow<'a, Status<routing::Middleware, Middleware>> {
    let Some(problem) = open_breaker(name, status) else { return Cow::Borrowed(status) };
    let mut status = status.clone();
    status.problems.push(problem);
    Cow::Owned(status)
}

fn open_breaker(name: &str, status: &Status<routing::Middleware, Middleware>) -> Option<Problem> {
    let Some(Middleware::Plugin(configured)) = &status.serves else { return None };
    let seconds = configured.open_for()?.as_secs_f64().ceil();
    let message = format!(
        "the plugin `{}` fails again and again, and is not called for another {seconds} s: the log says why",
        configured.plugin.name
    );
    Some(Problem::error(name, message))
}

/// The configuration as the file has it: what the host has put in the place of file names stays the plugin's.
fn plugin_details(plugin: &plugin::Plugin, config: Option<&routing::Middleware>) -> Value {
    let mut details = json!({ "type": plugin.name.to_lowercase(), "plugin": &*plugin.name });
    if let Some(routing::Middleware::Plugin { config, .. }) = config
        && let Ok(config) = config.to_json(&plugin.about.schema)
    {
        details[&*plugin.name] = config;
    }
    details
}

/// The routers that refer to each item.
fn used_by(items: &Items, references: impl Fn(&routing::Router) -> Vec<String>) -> BTreeMap<String, Vec<String>> {
    let mut used: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, status) in &items.routers {
        for reference in status.config.iter().flat_map(&references) {
            used.entry(with_provider(&reference)).or_default().push(with_provider(name));
        }
    }
    used
}

/// What all kinds of items have in common.
fn item_json<C, T>(name: &str, status: &Status<C, T>, serves: bool, mut details: Value) -> Value {
    let state = match (serves, status.problems.is_empty()) {
        (true, true) => "enabled",
        (true, false) => "warning",
        (false, _) => "disabled",
    };
    let name = with_provider(name);
    let errors: Vec<&str> = status.problems.iter().map(|problem| problem.message.as_str()).collect();
    details["provider"] = json!(name.rsplit_once('@').map(|(_, provider)| provider));
    details["name"] = json!(name);
    details["status"] = json!(state);
    if !status.problems.is_empty() {
        details["error"] = json!(errors);
        details["problems"] = json!(status.problems);
    }
    if status.stale {
        details["stale"] = json!(true);
    }
    without_nulls(details)
}

pub(super) fn with_provider(name: &str) -> String {
    if name.contains('@') { name.to_owned() } else { format!("{name}@file") }
}

/// Traefik leaves out what is not set.
pub(super) fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(members) => {
            let members = members.into_iter().filter(|(_, member)| !member.is_null());
            Value::Object(members.map(|(name, member)| (name, without_nulls(member))).collect())
        }
        other => other,
    }
}

/// As Go prints durations: `1m30s`, `100ms`.
fn go_duration(duration: Duration) -> String {
    if duration.is_zero() {
        return "0s".to_owned();
    }
    if duration < Duration::from_secs(1) {
        return format!("{}ms", duration.as_secs_f64() * 1000.0);
    }
    let (minutes, seconds) = (duration.as_secs() / 60, duration.as_secs_f64() % 60.0);
    match (minutes / 60, minutes % 60) {
        (0, 0) => format!("{seconds}s"),
        (0, minutes) => format!("{minutes}m{seconds}s"),
        (hours, minutes) => format!("{hours}h{minutes}m{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_in_traefik() {
        for (duration, text) in
            [(0, "0s"), (100, "100ms"), (60_000, "1m0s"), (90_500, "1m30.5s"), (3_600_000, "1h0m0s")]
        {
            assert_eq!(go_duration(Duration::from_millis(duration)), text);
        }
    }

    #[test]
    fn pages_are_counted_from_one() {
        let values = || (0..5).map(|number| json!({ "name": format!("r{number}"), "status": "enabled" })).collect();
        let next = |query: &str| page(values(), query).headers().get(&NEXT_PAGE).cloned();
        assert_eq!(next("").expect("a page"), "1");
        assert_eq!(next("per_page=2").expect("a page"), "2");
        assert_eq!(next("per_page=2&page=3").expect("a page"), "1");
        assert_eq!(page(values(), "page=9").status(), StatusCode::BAD_REQUEST);
        assert_eq!(page(values(), "page=0").status(), StatusCode::BAD_REQUEST);
    }
}
