//! `prometheus@internal`: what is counted, under Traefik's names, in the text that Prometheus reads.

use std::collections::BTreeSet;

use http::Request;

use crate::support::backend::Backend;
use crate::support::folder::Folder;
use crate::support::guests::guest;
use crate::support::proxy::{INSTALL, Proxy};
use crate::support::{eventually, route};

const PROMETHEUS: &str = "metrics: {prometheus: {entryPoint: web, addRoutersLabels: true, buckets: [100]}}\n";
/// Of WebAssembly's memory.
const PAGE: f64 = 65536.0;

async fn metrics(proxy: &Proxy) -> String {
    let reply = proxy.get("http://any.example/metrics").await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    let text = reply.text().to_owned();
    assert_readable(&text);
    text
}

/// What `promtool check metrics` would say no to: a family in two places, a sample twice or of no family, a bad value.
fn assert_readable(text: &str) {
    let (mut families, mut samples) = (BTreeSet::new(), BTreeSet::new());
    let (mut family, mut kind) = ("", "");
    for line in text.lines() {
        if let Some(declared) = line.strip_prefix("# TYPE ") {
            (family, kind) = declared.split_once(' ').expect("a name and a type");
            assert!(families.insert(family), "twice: {line}");
            assert_eq!(kind == "counter", family.ends_with("_total"), "{line}");
            continue;
        }
        if line.starts_with("# HELP ") {
            continue;
        }
        let (sample, value) = line.rsplit_once(' ').expect("a sample and its value");
        assert!(value.parse::<f64>().is_ok_and(f64::is_finite), "{line}");
        assert!(samples.insert(sample), "twice: {line}");
        let name = sample.split('{').next().unwrap_or_default();
        let suffixes: &[&str] = if kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
        assert!(suffixes.iter().any(|suffix| *name == format!("{family}{suffix}")), "{line} is none of {family}");
    }
    assert!(text.ends_with('\n') && !families.is_empty());
}

/// The value of a sample, once all of the responses before have ended.
async fn counted(proxy: &Proxy, sample: &str, value: &str) {
    let line = format!("{sample} {value}");
    eventually(&line, async || metrics(proxy).await.lines().any(|found| found == line)).await;
}

/// The value of a sample now.
fn value(text: &str, sample: &str) -> f64 {
    let value = text.lines().find_map(|line| line.strip_prefix(sample)?.trim().parse().ok());
    value.unwrap_or_else(|| panic!("{sample} is missing:\n{text}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_counted_by_entry_point_router_and_service() {
    let backend = Backend::saying("hello").await;
    let proxy = Proxy::start(&format!("{INSTALL}{PROMETHEUS}"), &[("a.yaml", &route("a", &backend.url()))]).await;
    assert_eq!(proxy.warnings, [""; 0]);
    for _ in 0..3 {
        assert_eq!(proxy.send_with(Request::post("http://a.example/"), "abc").await.said(), (200, "hello"));
    }
    assert_eq!(proxy.status("http://nowhere.example/").await, 404);
    let labels = "code=\"200\",method=\"POST\",protocol=\"http\"";
    for (sample, value) in [
        (format!("traefik_entrypoint_requests_total{{{labels},entrypoint=\"web\"}}"), "3"),
        (format!("traefik_entrypoint_requests_bytes_total{{{labels},entrypoint=\"web\"}}"), "9"),
        (format!("traefik_entrypoint_responses_bytes_total{{{labels},entrypoint=\"web\"}}"), "15"),
        (format!("traefik_router_requests_total{{{labels},router=\"a@file\",service=\"a@file\"}}"), "3"),
        (format!("traefik_service_requests_total{{{labels},service=\"a@file\"}}"), "3"),
        (format!("traefik_service_request_duration_seconds_bucket{{{labels},service=\"a@file\",le=\"100\"}}"), "3"),
    ] {
        counted(&proxy, &sample, value).await;
    }
    let missing = "{code=\"404\",method=\"GET\",protocol=\"http\",entrypoint=\"web\"}";
    counted(&proxy, &format!("traefik_entrypoint_requests_total{missing}"), "1").await;
    let text = metrics(&proxy).await;
    assert!(!text.contains("prometheus@internal"), "what is internal is not counted: {text}");
    assert!(text.contains("traefik_tls_certs_not_after{cn=\"WEIR DEFAULT CERT\",serial=\""), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn routers_and_entry_points_choose_whether_they_count() {
    let backend = Backend::saying("hello").await;
    let install = INSTALL.replace("web: {address", "web: {observability: {metrics: false}, address");
    let quiet = route("quiet", &backend.url());
    let loud =
        route("loud", &backend.url()).replace("service: loud}", "service: loud, observability: {metrics: true}}");
    let admin = "http: {routers: {admin: {rule: Host(`admin.example`), service: ping@internal}}}";
    let install = format!("{install}{PROMETHEUS}ping: {{manualRouting: true}}\n")
        .replace("{prometheus", "{addInternals: true, prometheus");
    let proxy = Proxy::start(&install, &[("a.yaml", &quiet), ("b.yaml", &loud), ("c.yaml", admin)]).await;
    for host in ["quiet", "loud", "nowhere"] {
        proxy.get(&format!("http://{host}.example/")).await;
    }
    let labels = "{code=\"200\",method=\"GET\",protocol=\"http\",entrypoint=\"web\"}";
    counted(&proxy, &format!("traefik_entrypoint_requests_total{labels}"), "1").await;
    assert!(!metrics(&proxy).await.contains("quiet@file"));
    proxy.write("c.yaml", &admin.replace("service:", "observability: {metrics: true}, service:"));
    proxy.reload().await;
    assert_eq!(proxy.status("http://admin.example/").await, 200);
    counted(&proxy, &format!("traefik_entrypoint_requests_total{labels}"), "2").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn counts_survive_a_reload_and_go_with_their_router() {
    let backend = Backend::saying("hello").await;
    let files = [("a.yaml", &*route("a", &backend.url())), ("b.yaml", &*route("b", &backend.url()))];
    let proxy = Proxy::start(&format!("{INSTALL}{PROMETHEUS}"), &files).await;
    let sample = |router: &str| {
        format!(
            "traefik_router_requests_total{{code=\"200\",method=\"GET\",protocol=\"http\",router=\"{router}@file\",service=\"{router}@file\"}}"
        )
    };
    for host in ["a", "b"] {
        assert_eq!(proxy.status(&format!("http://{host}.example/")).await, 200);
        counted(&proxy, &sample(host), "1").await;
    }
    proxy.folder.remove("routing/b.yaml");
    proxy.reload().await;
    assert_eq!(proxy.status("http://a.example/").await, 200);
    counted(&proxy, &sample("a"), "2").await;
    let text = metrics(&proxy).await;
    assert!(!text.contains("b@file"), "{text}");
    let last_success = |text: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix("traefik_config_last_reload_success "));
        line.and_then(|time| time.parse::<u64>().ok()).expect("a time")
    };
    assert!(last_success(&text) > 1_700_000_000, "{text}");
    assert!(!text.contains("traefik_config_reloads_total 1\n"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn open_connections_are_counted() {
    let proxy = Proxy::start(&format!("{INSTALL}{PROMETHEUS}"), &[]).await;
    let open = "traefik_open_connections{entrypoint=\"websecure\",protocol=\"TCP\"}";
    counted(&proxy, open, "0").await;
    let client = proxy.client("websecure").await;
    counted(&proxy, open, "1").await;
    drop(client);
    counted(&proxy, open, "0").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_are_where_they_are_asked_for_alone() {
    let routed = "http: {routers: {m: {rule: Host(`m.example`), service: prometheus@internal}}}";
    let proxy = Proxy::start(INSTALL, &[("m.yaml", routed)]).await;
    assert_eq!(proxy.status("http://any.example/metrics").await, 404);
    assert_eq!(proxy.status("http://m.example/").await, 503);
    let message = "`prometheus@internal` is there only with `metrics.prometheus` in the install file";
    let help = "add `metrics: {prometheus: {}}` to the install file and restart";
    let problems = proxy.problems();
    assert!(problems.iter().any(|problem| problem.contains(message) && problem.contains(help)), "{problems:?}");

    let install = format!("{INSTALL}metrics: {{prometheus: {{manualRouting: true}}}}\n");
    let proxy = Proxy::start(&install, &[("m.yaml", routed)]).await;
    assert_eq!(proxy.status("http://any.example/metrics").await, 404);
    let reply = proxy.get("http://m.example/any/path").await;
    assert_eq!(reply.status, 200);
    assert_readable(reply.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn plugins_count_and_are_counted() {
    let folder = Folder::new();
    folder.write("plugins/shares.wasm", guest("shares").await);
    folder.write(
        "routing/shares.yaml",
        "
http:
  routers:
    one: {rule: Host(`one.example`), service: noop@internal, middlewares: [m]}
  middlewares:
    m: {plugin: {shares: {}}}
",
    );
    let grants = "plugins: {settings: {shares: {allow: {shared: true, metrics: true}, limits: {cpu: 5s}}}}\n";
    let proxy = Proxy::start_in(folder, &format!("{INSTALL}{PROMETHEUS}{grants}")).await;
    let act = async |what: &str| {
        let reply = proxy.send(Request::get("http://one.example/").header("x-do", what)).await;
        assert_eq!(reply.said(), (200, "counted"), "{what}");
    };
    act("add hits 2").await;
    act("add hits 3").await;
    act("observe body-bytes 300").await;
    act("observe wait NaN").await;
    proxy.reload().await;
    act("add hits 1").await;
    let text = metrics(&proxy).await;
    for line in [
        r#"plugin_shares_hits_total{plugin="shares",path="a \"b\"\\\n"} 6"#,
        r#"plugin_shares_body_bytes_bucket{plugin="shares",le="256"} 0"#,
        r#"plugin_shares_body_bytes_bucket{plugin="shares",le="1024"} 1"#,
        r#"plugin_shares_body_bytes_sum{plugin="shares"} 300"#,
        r#"weir_plugin_metrics_dropped_total{plugin="shares"} 1"#,
        r#"weir_plugin_calls_total{plugin="shares",middleware="m@file",router="one@file"} 5"#,
        r#"weir_plugin_failures_total{plugin="shares",middleware="m@file",router="one@file",cause="trap"} 0"#,
        r#"weir_plugin_call_duration_seconds_count{plugin="shares",middleware="m@file",router="one@file"} 5"#,
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
    // Each worker that has served one of these requests keeps an instance.
    let instances = value(&text, r#"weir_plugin_instances{plugin="shares"}"#);
    assert!(instances >= 1.0, "{text}");
    let memory = value(&text, r#"weir_plugin_memory_bytes{plugin="shares"}"#);
    assert!(memory >= instances * PAGE && memory % PAGE == 0.0, "{memory} of {instances}");
    for _ in 0..3 {
        act("explode 500").await;
    }
    let text = metrics(&proxy).await;
    assert_eq!(text.matches("plugin_shares_explosion_total{").count(), 500);
    act("explode 2000").await;
    let text = metrics(&proxy).await;
    assert_eq!(text.matches("plugin_shares_explosion_total{").count(), 998, "a thousand in all");
    assert!(
        text.contains("weir_plugin_metrics_dropped_total{plugin=\"shares\"} 1003\n"),
        "{}",
        &text[text.len() - 300..]
    );

    proxy.write("shares.yaml", "{}");
    eventually("no plugin", async || !metrics(&proxy).await.contains("plugin=\"shares\"")).await;
}
