use http::Request;

use super::*;

const CLIENT_GONE: StatusCode = StatusCode::REQUEST_TIMEOUT;

fn metrics(change: impl FnOnce(&mut install::Prometheus)) -> Arc<Metrics> {
    let mut config = install::Prometheus { buckets: vec![1000.0], ..install::Prometheus::default() };
    change(&mut config);
    Metrics::new(&config, [&"web".to_owned(), &"traefik".to_owned()].into_iter(), 2)
}

fn text(metrics: &Metrics) -> String {
    let mut exposition = Exposition::default();
    metrics.write(&mut exposition);
    exposition.into_text()
}

fn get() -> http::request::Builder {
    Request::get("/")
}

fn begin(metrics: &Arc<Metrics>, worker: usize, request: http::request::Builder) -> Measured {
    let request = request.body(()).expect("a good request");
    metrics.meter(worker).begin(&request, &"web".into(), None, CLIENT_GONE)
}

fn assert_has(text: &str, lines: &[&str]) {
    for line in lines {
        assert!(text.lines().any(|found| found == *line), "{line}\n{text}");
    }
}

#[test]
fn requests_are_counted_by_entry_point_router_and_service() {
    let metrics = metrics(|config| config.add_routers_labels = true);
    for worker in [0, 1, 1] {
        let mut measured = begin(&metrics, worker, get());
        measured.received().set(3);
        measured.routed = Some(("r@file".into(), "s@file".into()));
        (measured.status, measured.sent, measured.is_served) = (StatusCode::OK, 10, true);
    }
    let tls = Some(TlsFacts { version: "1.3", cipher: "TLS_AES_128_GCM_SHA256" });
    let request = Request::post("/").body(()).expect("a good request");
    let mut measured = metrics.meter(0).begin(&request, &"web".into(), tls, CLIENT_GONE);
    measured.routed = Some(("r@file".into(), "s@file".into()));
    measured.status = StatusCode::FORBIDDEN;
    drop(measured);
    assert_has(
        &text(&metrics),
        &[
            "traefik_entrypoint_requests_total{code=\"200\",method=\"GET\",protocol=\"http\",entrypoint=\"web\"} 3",
            "traefik_entrypoint_requests_total{code=\"403\",method=\"POST\",protocol=\"http\",entrypoint=\"web\"} 1",
            "traefik_entrypoint_requests_tls_total{tls_version=\"1.3\",tls_cipher=\"TLS_AES_128_GCM_SHA256\",entrypoint=\"web\"} 1",
            "traefik_entrypoint_request_duration_seconds_bucket{code=\"200\",method=\"GET\",protocol=\"http\",entrypoint=\"web\",le=\"1000\"} 3",
            "traefik_entrypoint_request_duration_seconds_count{code=\"200\",method=\"GET\",protocol=\"http\",entrypoint=\"web\"} 3",
            "traefik_entrypoint_requests_bytes_total{code=\"200\",method=\"GET\",protocol=\"http\",entrypoint=\"web\"} 9",
            "traefik_router_responses_bytes_total{code=\"200\",method=\"GET\",protocol=\"http\",router=\"r@file\",service=\"s@file\"} 30",
            "traefik_router_requests_total{code=\"403\",method=\"POST\",protocol=\"http\",router=\"r@file\",service=\"s@file\"} 1",
            "traefik_service_requests_total{code=\"200\",method=\"GET\",protocol=\"http\",service=\"s@file\"} 3",
        ],
    );
    assert!(!text(&metrics).contains("traefik_service_requests_total{code=\"403\""), "it never came to a server");
}

#[test]
fn only_what_is_asked_for_is_counted() {
    let metrics = metrics(|config| {
        (config.add_entry_points_labels, config.add_services_labels) = (false, false);
    });
    let mut measured = begin(&metrics, 0, get());
    measured.routed = Some(("r@file".into(), "s@file".into()));
    measured.is_served = true;
    drop(measured);
    begin(&metrics, 0, get()).is_counted = false;
    assert!(!text(&metrics).contains("requests_total"), "{}", text(&metrics));
}

#[test]
fn a_request_is_of_one_method_and_protocol() {
    let with = |name, value| get().header(name, value);
    for (request, method, protocol) in [
        (get(), "GET", "http"),
        (Request::builder().method("M-SEARCH").uri("/"), "EXTENSION_METHOD", "http"),
        (Request::builder().method("get").uri("/"), "EXTENSION_METHOD", "http"),
        (with("upgrade", "WebSocket").header("connection", "keep-alive, Upgrade"), "GET", "websocket"),
        (with("upgrade", "websocket"), "GET", "http"),
        (with("accept", "text/event-stream"), "GET", "sse"),
        (with("content-type", "application/grpc+proto"), "GET", "grpc"),
        (with("content-type", "application/grpc-web-text"), "GET", "grpc-web"),
    ] {
        let metrics = metrics(|_| {});
        drop(begin(&metrics, 0, request));
        let line = format!("{{code=\"408\",method=\"{method}\",protocol=\"{protocol}\",entrypoint=\"web\"}} 1");
        assert_has(&text(&metrics), &[&format!("traefik_entrypoint_requests_total{line}")]);
    }
}

#[test]
fn connections_are_counted_while_they_are_open() {
    let metrics = metrics(|_| {});
    let one = metrics.meter(0).open(&"web".into());
    let other = metrics.meter(1).open(&"web".into());
    let open = |count| format!("traefik_open_connections{{entrypoint=\"web\",protocol=\"TCP\"}} {count}");
    assert_has(&text(&metrics), &[&open(2), "traefik_open_connections{entrypoint=\"traefik\",protocol=\"TCP\"} 0"]);
    drop(one);
    assert_has(&text(&metrics), &[&open(1)]);
    drop(other);
    assert_has(&text(&metrics), &[&open(0)]);
}

#[test]
fn a_reload_forgets_what_it_takes_away() {
    let metrics = metrics(|config| config.add_routers_labels = true);
    for (router, service) in [("a@file", "one@file"), ("a@file", "two@file"), ("b@file", "two@file")] {
        let mut measured = begin(&metrics, 0, get());
        measured.routed = Some((router.into(), service.into()));
        measured.is_served = true;
    }
    metrics.reloaded(false, &[("a@file".into(), "one@file".into())].into());
    let left = text(&metrics);
    assert_has(&left, &["traefik_config_reloads_total 1", "traefik_config_last_reload_success 0"]);
    assert!(left.contains("router=\"a@file\",service=\"one@file\"") && !left.contains("two@file"), "{left}");
    assert!(!left.contains("b@file"), "{left}");
    metrics.reloaded(true, &BTreeSet::new());
    assert_has(&text(&metrics), &["traefik_config_reloads_total 2"]);
    assert!(!text(&metrics).contains("last_reload_success 0"));
}
