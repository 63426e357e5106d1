//! The API, the dashboard and ping, as routers lead to them.

use serde_json::{Value, json};

use crate::support::backend::Backend;
use crate::support::eventually;
use crate::support::proxy::{INSTALL, Proxy};
use crate::support::with_services;

const ROUTERS: &str = "
    admin: {rule: \"Host(`admin.example`)\", entryPoints: web, service: api@internal}
    ping: {rule: \"Host(`ping.example`)\", service: ping@internal}
    who: {rule: \"Host(`who.example`)\", service: whoami@internal}
    good: {rule: \"Host(`a.example`)\", service: a, middlewares: [frames, all], tls: {options: strict}}
    bad: {rule: \"Host(`b.example`)\", service: b}
    worse: {rule: \"Hst(`c.example`)\", service: a}
";

async fn proxy() -> (Proxy, Backend) {
    let backend = Backend::saying("a").await;
    let install = format!("{INSTALL}api: {{}}\nping: {{manualRouting: true}}\n");
    (Proxy::start(&install, &[("routes.yaml", &routes(&backend))]).await, backend)
}

fn routes(backend: &Backend) -> String {
    with_services(ROUTERS, &[("a", backend.url())])
        + "  middlewares:\n    frames: {headers: {frameDeny: true}}\n    all: {chain: {middlewares: [frames]}}\n    \
           typo: {headers: {frameDny: true}}\ntls: {options: {strict: {sniStrict: false}}}\n"
}

async fn api(proxy: &Proxy, path: &str) -> Value {
    let reply = proxy.get(&format!("http://admin.example/api/{path}")).await;
    // The version alone names its charset, as in Traefik.
    let kind = if path == "version" { "application/json; charset=UTF-8" } else { "application/json" };
    assert_eq!((reply.status, reply.header("content-type")), (200, kind), "{path}");
    reply.json()
}

/// The place is in a file whose directory nobody knows.
fn places(problems: &Value) -> Vec<String> {
    let problems = problems.as_array().expect("a list of problems");
    let place = |problem: &Value| {
        let place = problem["place"].as_str().unwrap_or_default();
        place.rsplit('/').next().unwrap_or_default().to_owned()
    };
    problems.iter().map(place).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_overview_counts() {
    let (proxy, _backend) = proxy().await;
    let overview = api(&proxy, "overview").await;
    assert_eq!(overview["http"]["routers"], json!({ "total": 6, "warnings": 0, "errors": 2 }));
    assert_eq!(overview["http"]["middlewares"], json!({ "total": 3, "warnings": 0, "errors": 1 }));
    assert_eq!(overview["providers"], json!(["File"]));
    assert_eq!(overview["features"]["accessLog"], json!(false));
    let mut places = places(&overview["problems"]);
    places.sort();
    assert_eq!(places, ["routes.yaml:14:22", "routes.yaml:7:47", "routes.yaml:8:19"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn routers_say_what_became_of_them() {
    let (proxy, _backend) = proxy().await;
    let good = api(&proxy, "http/routers/good@file").await;
    let expected = json!({
        "name": "good@file",
        "provider": "file",
        "status": "enabled",
        "rule": "Host(`a.example`)",
        "service": "a",
        "entryPoints": ["web", "websecure"],
        "using": ["web", "websecure"],
        "middlewares": ["frames@file", "all@file"],
        "priority": 17,
        "priorityStr": "17",
        "tls": { "options": "strict" },
        "observability": { "accessLogs": true, "metrics": true, "tracing": true, "traceVerbosity": "minimal" },
    });
    assert_eq!(good, expected);
    let bad = api(&proxy, "http/routers/bad@file").await;
    assert_eq!(bad["status"], "disabled");
    assert_eq!(bad["error"], json!(["service `b` does not exist"]));
    let problem = &bad["problems"][0];
    assert_eq!((&problem["severity"], &problem["key"]), (&json!("error"), &json!("http.routers.bad.service")));
    assert_eq!(
        (&problem["message"], &problem["help"]),
        (&json!("service `b` does not exist"), &json!("did you mean `a`?"))
    );
    let worse = api(&proxy, "http/routers/worse@file").await;
    assert_eq!(worse["status"], "disabled");
    assert!(worse["error"][0].as_str().is_some_and(|text| text.contains("Hst")), "{worse}");

    let all = api(&proxy, "http/routers").await;
    let names: Vec<&str> =
        all.as_array().expect("a list").iter().filter_map(|router| router["name"].as_str()).collect();
    assert_eq!(names, ["admin@file", "bad@file", "good@file", "ping@file", "who@file", "worse@file"]);
    assert_eq!(api(&proxy, "rawdata").await["routers"]["bad@file"]["status"], "disabled");
}

#[tokio::test(flavor = "multi_thread")]
async fn services_middlewares_and_entry_points() {
    let (proxy, backend) = proxy().await;
    let service = api(&proxy, "http/services/a@file").await;
    assert_eq!((&service["type"], &service["status"]), (&json!("loadbalancer"), &json!("enabled")));
    assert_eq!(service["loadBalancer"]["servers"], json!([{ "url": backend.url(), "weight": 1 }]));
    assert_eq!(service["serverStatus"], json!({ backend.url(): "UP" }));
    assert_eq!(service["usedBy"], json!(["good@file"]), "not by the one that is broken");
    let internal = api(&proxy, "http/services/api@internal").await;
    assert_eq!(internal["usedBy"], json!(["admin@file"]));

    let frames = api(&proxy, "http/middlewares/frames@file").await;
    assert_eq!((&frames["type"], &frames["status"]), (&json!("headers"), &json!("enabled")));
    assert_eq!(frames["usedBy"], json!(["good@file"]));
    let chain = api(&proxy, "http/middlewares/all@file").await;
    assert_eq!(chain["chain"], json!({ "middlewares": ["frames"] }));
    let typo = api(&proxy, "http/middlewares/typo@file").await;
    assert_eq!(typo["status"], "disabled");
    assert_eq!(typo["problems"][0]["help"], "did you mean `frameDeny`?");

    let entry_point = api(&proxy, "entrypoints/web").await;
    let address = proxy.address("web").to_string();
    assert_eq!((&entry_point["name"], &entry_point["address"]), (&json!("web"), &json!(address)));
    assert_eq!(entry_point["transport"]["lifeCycle"]["graceTimeOut"], "10s");
    assert_eq!(api(&proxy, "entrypoints").await.as_array().map(Vec::len), Some(2));
    let version = proxy.get("http://admin.example/api/version").await;
    assert_eq!((version.status, &version.json()["Version"]), (200, &json!(env!("CARGO_PKG_VERSION"))));
    assert_eq!(api(&proxy, "tcp/routers").await, json!([]));
    let certificates = api(&proxy, "certificates").await;
    assert_eq!(certificates[0]["commonName"], "WEIR DEFAULT CERT");
    assert_eq!(certificates[0]["status"], "enabled");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_item_that_breaks_is_stale() {
    let (proxy, backend) = proxy().await;
    proxy.write("routes.yaml", &routes(&backend).replace("Host(`a.example`)", "Hst(`a.example`)"));
    eventually("the stale router", async || api(&proxy, "http/routers/good@file").await["stale"] == true).await;
    let good = api(&proxy, "http/routers/good@file").await;
    assert_eq!((&good["status"], &good["rule"]), (&json!("warning"), &json!("Host(`a.example`)")), "what still serves");
    assert_eq!(good["problems"][0]["key"], "http.routers.good.rule");
    assert_eq!(proxy.get("https://a.example/").await.said(), (200, "a"));
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_come_in_pages() {
    let (proxy, _backend) = proxy().await;
    let names = async |query: &str| {
        let reply = proxy.get(&format!("http://admin.example/api/http/routers{query}")).await;
        assert_eq!(reply.status, 200, "{query}");
        let routers = reply.json();
        let names = routers.as_array().expect("a list").iter().filter_map(|router| router["name"].as_str());
        (
            names.map(|name| name.replace("@file", "")).collect::<Vec<_>>().join(" "),
            reply.header("x-next-page").to_owned(),
        )
    };
    for (query, expected, next) in [
        ("?per_page=4", "admin bad good ping", "2"),
        ("?per_page=4&page=2", "who worse", "1"),
        ("?status=disabled", "bad worse", "1"),
        ("?search=B.EXAMPLE", "bad", "1"),
        ("?search=internal&status=enabled", "admin ping who", "1"),
        ("?search=Host%28%60a.", "good", "1"),
        ("?search=nothing", "", "1"),
    ] {
        assert_eq!(names(query).await, (expected.to_owned(), next.to_owned()), "{query}");
    }
    for query in ["?page=3&per_page=4", "?page=0", "?page=x", "?per_page=-1"] {
        let reply = proxy.get(&format!("http://admin.example/api/http/routers{query}")).await;
        assert_eq!(reply.status, 400, "{query}");
        assert!(reply.json()["message"].as_str().is_some_and(|text| text.starts_with("invalid request: ")), "{query}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_not_found() {
    let (proxy, _backend) = proxy().await;
    for (path, message) in [
        ("http/routers/nobody@file", "router not found: nobody@file"),
        ("http/routers/good", "router not found: good"),
        ("http/services/b@file", "service not found: b@file"),
        ("http/middlewares/x@file", "middleware not found: x@file"),
        ("entrypoints/x", "entry point not found: x"),
        ("nothing", "404 page not found"),
        ("", "404 page not found"),
    ] {
        let reply = proxy.get(&format!("http://admin.example/api/{path}")).await;
        assert_eq!((reply.status, reply.json()), (404, json!({ "message": message })), "{path}");
    }
    let reply = proxy.send_with(http::Request::post("http://admin.example/api/overview"), "").await;
    assert_eq!((reply.status, reply.header("allow")), (405, "GET, HEAD"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_dashboard_is_one_page_that_loads_nothing() {
    let (proxy, _backend) = proxy().await;
    let page = proxy.get("http://admin.example/dashboard/").await;
    assert_eq!((page.status, page.header("content-type")), (200, "text/html; charset=utf-8"));
    let policy = page.header("content-security-policy");
    for rule in ["default-src 'none'", "connect-src 'self'", "frame-ancestors 'none'", "base-uri 'none'"] {
        assert!(policy.contains(rule), "{rule} in {policy}");
    }
    let text = page.text().to_lowercase();
    for outside in ["src=\"http", "href=\"http", "url(http", "@import"] {
        assert!(!text.contains(outside), "{outside}");
    }
    let start = proxy.get("http://admin.example/").await;
    assert_eq!((start.status, start.header("location")), (302, "/dashboard/"));
    assert_eq!(proxy.status("http://admin.example/dashboard/nothing").await, 404);

    let install = format!("{INSTALL}api: {{dashboard: false}}\n");
    let text = "http: {routers: {admin: {rule: \"Host(`admin.example`)\", service: api@internal}}}";
    let proxy = Proxy::start(&install, &[("routes.yaml", text)]).await;
    assert_eq!(proxy.status("http://admin.example/dashboard/").await, 404);
    assert_eq!(proxy.status("http://admin.example/api/overview").await, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_insecure_api_needs_no_router() {
    let install = format!("{INSTALL}  traefik: {{address: \"127.0.0.1:0\"}}\napi: {{insecure: true}}\nping: {{}}\n");
    let proxy = Proxy::start(&install, &[]).await;
    let mut client = proxy.client("traefik").await;
    let overview = client.get("http://any.example/api/overview").await;
    assert_eq!((overview.status, overview.json()["problems"].clone()), (200, json!([])));
    assert_eq!(client.get("http://any.example/dashboard/").await.status, 200);
    assert_eq!(client.get("http://any.example/ping").await.said(), (200, "OK"));
    assert_eq!(proxy.status("http://any.example/api/overview").await, 404, "only there");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoami_shows_the_request() {
    let (proxy, _backend) = proxy().await;
    let reply = proxy.send(http::Request::get("http://who.example/x?y").header("x-a", "1")).await;
    assert_eq!((reply.status, reply.header("content-type")), (200, "text/plain; charset=utf-8"));
    for line in ["GET /x?y HTTP/1.1", "Host: who.example", "x-a: 1", "x-forwarded-proto: http", "x-real-ip: 127.0.0.1"]
    {
        assert!(reply.text().lines().any(|said| said == line), "{line} in {}", reply.text());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ping_tells_of_the_end() {
    let install = INSTALL.replace(
        "\"127.0.0.1:0\"",
        "\"127.0.0.1:0\", transport: {lifeCycle: {requestAcceptGraceTimeout: 5s, graceTimeOut: 1s}}",
    ) + "ping: {manualRouting: true, terminatingStatusCode: 429}\n";
    let text = "http: {routers: {ping: {rule: \"Path(`/ping`)\", service: ping@internal}}}";
    let proxy = Proxy::start(&install, &[("routes.yaml", text)]).await;
    let address = proxy.address("web");
    let ping =
        async || crate::support::client::Client::plain(address).await.get("http://any.example/ping").await.status;
    assert_eq!(ping().await, 200);
    let end = tokio::spawn(proxy.shut_down());
    eventually("the sign of the end", async || ping().await == 429).await;
    end.abort();
}
