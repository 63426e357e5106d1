//! The configuration of the article that Weir was made for: three files of Traefik's, which load byte for byte but for
//! paths of Windows, ports and servers. See `tests/seed`.

use http::Request;

use crate::support::backend::Backend;
use crate::support::client::{secure_stream, trusting};
use crate::support::eventually;
use crate::support::folder::Folder;
use crate::support::proxy::Proxy;
use crate::support::websocket::WebSocket;

const INSTALL: &str = include_str!("seed/traefik.yaml");
const DASHBOARD: &str = include_str!("seed/config_dynamic/traefik_dynamic.yaml");
const QLIK_SENSE: &str = include_str!("seed/config_dynamic/qliksense_dynamic.yaml");
const HOSTS: [&str; 3] = ["qliksense.ptarmiganlabs.net", "qliksensedev.ptarmiganlabs.net", "traefik.ptarmiganlabs.net"];
/// `admin:admin`.
const ADMIN: &str = "Basic YWRtaW46YWRtaW4=";

/// The three files in a folder, with the two servers of the article in these places.
async fn article(production: &str, development: &str) -> Proxy {
    let folder = Folder::new();
    folder.write("routing/traefik_dynamic.yaml", DASHBOARD);
    let servers = [("http://192.168.100.112:8088", production), ("http://192.168.100.110:8088", development)];
    folder.write("routing/qliksense_dynamic.yaml", replaced(QLIK_SENSE, &servers));
    let places = [
        (r"C:\tool\traefik\log\traefik.log", "$DIR/log/traefik.log"),
        (r"C:\tool\traefik\config_dynamic", "$DIR/routing"),
        ("\":80\"", "\"127.0.0.1:0\""),
        ("\":443\"", "\"127.0.0.1:0\""),
        ("acme.json ", "$DIR/acme.json "),
        // Nobody is to be asked for a certificate here: see `acme`.
        (
            "# caserver: https://acme-staging-v02.api.letsencrypt.org/directory",
            "caserver: https://127.0.0.1:1/directory",
        ),
    ];
    Proxy::start_in(folder, &replaced(INSTALL, &places)).await
}

fn replaced(text: &str, pairs: &[(&str, &str)]) -> String {
    pairs.iter().fold(text.to_owned(), |text, (from, to)| {
        assert!(text.contains(from), "the seed has `{from}`");
        text.replace(from, to)
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn loads_without_a_problem() {
    let proxy = article("http://127.0.0.1:1", "http://127.0.0.1:1").await;
    let token = "no certificate can be ordered as things are: digitalocean: some credentials information are missing";
    let problems = proxy.problems();
    assert!(matches!(&problems[..], [problem] if problem.contains(token)), "{problems:?}");
    let warning = "`delayBeforeCheck` is deprecated\n  help: write `propagation.delayBeforeChecks`";
    assert_eq!(proxy.warnings.len(), 2, "{:?}", proxy.warnings);
    assert!(proxy.warnings[0].ends_with("api.debug: `debug` has no effect: not supported yet"), "{:?}", proxy.warnings);
    assert!(proxy.warnings[1].ends_with(warning), "{:?}", proxy.warnings);
}

#[tokio::test(flavor = "multi_thread")]
async fn http_is_redirected_to_https() {
    let proxy = article("http://127.0.0.1:1", "http://127.0.0.1:1").await;
    for host in HOSTS {
        let url = format!("http://{host}/a/b?c=d&e");
        let reply = proxy.get(&url).await;
        assert_eq!(reply.status, 301, "{host}");
        assert_eq!(reply.header("location"), format!("https://{host}/a/b?c=d&e"));
        assert_eq!(reply.text(), "Moved Permanently");
        let posted = proxy.send_with(Request::post(&url), "body").await;
        assert_eq!(posted.status, 308, "{host}: a POST stays a POST");
        assert_eq!(posted.header("location"), format!("https://{host}/a/b?c=d&e"));
    }
    let elsewhere = proxy.get("http://elsewhere.ptarmiganlabs.net/").await;
    assert_eq!(elsewhere.said(), (404, "404 page not found\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_dashboard_wants_a_password() {
    let proxy = article("http://127.0.0.1:1", "http://127.0.0.1:1").await;
    for path in ["/dashboard/", "/api/overview", "/"] {
        let url = format!("https://traefik.ptarmiganlabs.net{path}");
        for authorization in ["", "Basic YWRtaW46d3Jvbmc=", "Basic bm9ib2R5OmFkbWlu"] {
            let refused = proxy.send(Request::get(&url).header("authorization", authorization)).await;
            assert_eq!(refused.said(), (401, "401 Unauthorized\n"), "{path} {authorization}");
            assert_eq!(refused.header("www-authenticate"), "Basic realm=\"traefik\"");
        }
    }
    let admin =
        |path: &str| Request::get(format!("https://traefik.ptarmiganlabs.net{path}")).header("authorization", ADMIN);
    let dashboard = proxy.send(admin("/dashboard/")).await;
    assert_eq!(dashboard.status, 200);
    assert_eq!(dashboard.header("content-type"), "text/html; charset=utf-8");
    assert!(dashboard.text().starts_with("<!doctype html>"), "{}", dashboard.text());
    let start = proxy.send(admin("/")).await;
    assert_eq!((start.status, start.header("location")), (302, "/dashboard/"));

    let overview = proxy.send(admin("/api/overview")).await;
    assert_eq!((overview.status, overview.header("content-type")), (200, "application/json"));
    let overview = overview.json();
    assert_eq!(overview["http"]["routers"], serde_json::json!({ "total": 6, "warnings": 0, "errors": 0 }));
    // But for those of a resolver that has neither a token nor a CA here.
    let problems = overview["problems"].as_array().expect("a list").iter();
    let others: Vec<_> = problems.filter(|problem| !problem["key"].to_string().contains("Resolver")).collect();
    assert!(others.is_empty(), "{others:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_servers_see_https() {
    let production = Backend::saying("production").await;
    let development = Backend::saying("development").await;
    let proxy = article(&production.url(), &development.url()).await;
    for (host, backend, text) in [(HOSTS[0], &production, "production"), (HOSTS[1], &development, "development")] {
        let url = format!("https://{host}/hub/?qlikTicket=1");
        let request = Request::get(&url).header("x-forwarded-for", "6.6.6.6").header("x-forwarded-proto", "gopher");
        assert_eq!(proxy.send(request).await.said(), (200, text));
        let seen = backend.last();
        assert_eq!(seen.target, "/hub/?qlikTicket=1");
        assert_eq!(seen.header("host"), host);
        assert_eq!(seen.header("x-forwarded-proto"), "https");
        assert_eq!(seen.header("x-forwarded-host"), host);
        assert_eq!(seen.header("x-forwarded-port"), "443");
        assert_eq!(seen.header("x-forwarded-for"), "127.0.0.1");
        assert_eq!(seen.header("x-real-ip"), "127.0.0.1");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_goes_through_over_tls() {
    let (backend, heads) = Backend::echoing_websockets().await;
    let proxy = article(&backend.url(), "http://127.0.0.1:1").await;
    let stream = secure_stream(proxy.address("websecure"), HOSTS[0], trusting()).await.expect("a TLS handshake");
    let mut socket = WebSocket::connect(stream, HOSTS[0], "/app/engineData").await.expect("a websocket");
    assert_eq!(socket.echo("{\"method\":\"OpenDoc\"}").await.as_deref(), Some("{\"method\":\"OpenDoc\"}"));
    let long = "x".repeat(60_000);
    assert_eq!(socket.echo(&long).await, Some(long));
    socket.close().await;
    let head = heads.lock().expect("nobody has panicked")[0].clone();
    assert!(head.starts_with("GET /app/engineData HTTP/1.1\r\n"), "{head}");
    // The article's middleware writes over the `wss` that would stand here: Qlik Sense wants `https`.
    assert!(head.contains("\r\nX-Forwarded-Proto: https\r\n"), "{head}");
    assert!(head.contains("\r\nSec-WebSocket-Version: 13\r\n"), "{head}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fourth_host_is_added_while_it_runs() {
    let backend = Backend::saying("fourth").await;
    let proxy = article("http://127.0.0.1:1", "http://127.0.0.1:1").await;
    let url = "https://fourth.ptarmiganlabs.net/";
    assert_eq!(proxy.status(url).await, 404);
    proxy.write(
        "fourth.yaml",
        &format!(
            "
http:
  routers:
    fourth-https:
      rule: Host(`fourth.ptarmiganlabs.net`)
      entrypoints: websecure
      service: fourthService
      middlewares:
        - sslHeader
      tls:
        certResolver: myDnsChallengeResolver
  services:
    fourthService:
      loadBalancer:
        servers:
          - url: {}
",
            backend.url()
        ),
    );
    eventually("the fourth host", async || proxy.status(url).await == 200).await;
    assert_eq!(backend.last().header("x-forwarded-proto"), "https", "by the middleware of another file");
    assert_eq!(proxy.status("http://qliksense.ptarmiganlabs.net/").await, 301, "the others serve on");
}
