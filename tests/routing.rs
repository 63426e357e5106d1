//! Which router a request gets: entry points, TLS or not, priorities, and what happens where there is none.

use http::{Request, Version};

use crate::support::backend::Backend;
use crate::support::client::{Client, offering, raw};
use crate::support::proxy::{INSTALL, Proxy};
use crate::support::with_services;

/// A proxy whose services `one`, `two` and `three` say their names.
async fn proxy_with(install: &str, routers: &str) -> (Proxy, [Backend; 3]) {
    let backends = [Backend::saying("one").await, Backend::saying("two").await, Backend::saying("three").await];
    let urls = [("one", backends[0].url()), ("two", backends[1].url()), ("three", backends[2].url())];
    (Proxy::start(install, &[("routes.yaml", &with_services(routers, &urls))]).await, backends)
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_router_there_is_404() {
    let (proxy, _backends) = proxy_with(INSTALL, "a: {rule: \"Host(`a.example`)\", service: one}").await;
    for url in ["http://b.example/", "http://b.example/a.example", "https://b.example/"] {
        let reply = proxy.get(url).await;
        assert_eq!(reply.said(), (404, "404 page not found\n"), "{url}");
        assert_eq!(reply.header("content-type"), "text/plain; charset=utf-8");
        assert_eq!(reply.header("x-content-type-options"), "nosniff");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn routers_belong_to_entry_points() {
    let routers = "
    a: {rule: \"Host(`a.example`)\", entryPoints: web, service: one}
    b: {rule: \"Host(`a.example`)\", entryPoints: [other], service: two}
    c: {rule: \"Host(`c.example`)\", entryPoints: \"web, other\", service: three}
";
    let install = format!("{INSTALL}  other: {{address: \"127.0.0.1:0\"}}\n");
    let (proxy, _backends) = proxy_with(&install, routers).await;
    for (entry_point, host, said) in [
        ("web", "a.example", (200, "one")),
        ("other", "a.example", (200, "two")),
        ("web", "c.example", (200, "three")),
        ("other", "c.example", (200, "three")),
        ("websecure", "a.example", (404, "404 page not found\n")),
    ] {
        let reply = proxy.client(entry_point).await.get(&format!("http://{host}/")).await;
        assert_eq!(reply.said(), said, "{host} on {entry_point}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn routers_that_name_no_entry_point() {
    let router = "a: {rule: \"Host(`a.example`)\", service: one}";
    let status =
        async |proxy: &Proxy, entry_point: &str| proxy.client(entry_point).await.get("http://a.example/").await.status;
    // All but the one of the API.
    let install = format!("{INSTALL}  traefik: {{address: \"127.0.0.1:0\"}}\n");
    let (proxy, _backends) = proxy_with(&install, router).await;
    assert_eq!(status(&proxy, "web").await, 200);
    assert_eq!(status(&proxy, "websecure").await, 200);
    assert_eq!(status(&proxy, "traefik").await, 404);
    // The default ones, if there are any.
    let install = format!("{INSTALL}  other: {{address: \"127.0.0.1:0\", asDefault: true}}\n");
    let (proxy, _backends) = proxy_with(&install, router).await;
    assert_eq!(status(&proxy, "web").await, 404);
    assert_eq!(status(&proxy, "other").await, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_tls_or_without() {
    let routers = "
    plain: {rule: \"Host(`a.example`)\", service: one}
    tls: {rule: \"Host(`a.example`)\", service: two, tls: {}}
    only: {rule: \"Host(`b.example`)\", service: three, tls: true}
";
    let (proxy, _backends) = proxy_with(INSTALL, routers).await;
    assert_eq!(proxy.get("http://a.example/").await.said(), (200, "one"));
    assert_eq!(proxy.get("https://a.example/").await.said(), (200, "two"));
    assert_eq!(proxy.get("https://b.example/").await.said(), (200, "three"));
    assert_eq!(proxy.status("http://b.example/").await, 404);
    // Every entry point takes both, as in Traefik.
    assert_eq!(proxy.client("websecure").await.get("http://a.example/").await.said(), (200, "one"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_point_gives_its_routers_tls() {
    let install = INSTALL
        .replace("websecure: {address: \"127.0.0.1:0\"}", "websecure: {address: \"127.0.0.1:0\", http: {tls: {}}}");
    let (proxy, _backends) = proxy_with(&install, "a: {rule: \"Host(`a.example`)\", service: one}").await;
    assert_eq!(proxy.get("https://a.example/").await.said(), (200, "one"));
    assert_eq!(proxy.client("websecure").await.get("http://a.example/").await.status, 404);
    assert_eq!(proxy.get("http://a.example/").await.said(), (200, "one"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_longer_rule_or_the_higher_priority_wins() {
    let routers = "
    host: {rule: \"Host(`a.example`)\", service: one}
    path: {rule: \"Host(`a.example`) && PathPrefix(`/api`)\", service: two}
    any: {rule: \"PathPrefix(`/`)\", service: three}
    urgent: {rule: \"Path(`/u`)\", service: three, priority: 1000}
    late: {rule: \"HostRegexp(`^a.+\\\\.example$`) && PathPrefix(`/api/deep/est`)\", service: three, priority: 1}
";
    let (proxy, _backends) = proxy_with(INSTALL, routers).await;
    for (url, text) in [
        ("http://a.example/", "one"),
        ("http://a.example/other", "one"),
        ("http://a.example/api", "two"),
        ("http://a.example/apis", "two"),
        ("http://a.example/api/deep/est", "two"),
        ("http://A.EXAMPLE/api", "two"),
        ("http://a.example.:8080/api", "two"),
        ("http://b.example/api", "three"),
        ("http://a.example/u", "three"),
    ] {
        assert_eq!(proxy.get(url).await.said(), (200, text), "{url}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_part_of_a_request_can_decide() {
    let routers = "
    method: {rule: \"Host(`a.example`) && Method(`PUT`)\", service: two}
    header: {rule: \"Host(`a.example`) && Header(`X-Tenant`, `blue`)\", service: two}
    query: {rule: \"Host(`a.example`) && Query(`tenant`, `blue`)\", service: two}
    client: {rule: \"Host(`a.example`) && Path(`/client`) && ClientIP(`127.0.0.0/8`)\", service: two}
    nobody: {rule: \"Host(`a.example`) && Path(`/nobody`) && !ClientIP(`127.0.0.1`)\", service: two}
    wildcard: {rule: \"Host(`*.a.example`) || (Host(`c.example`) && PathRegexp(`^/[0-9]+$`))\", service: three}
    rest: {rule: \"Host(`a.example`)\", service: one}
";
    let (proxy, _backends) = proxy_with(INSTALL, routers).await;
    let text = async |request: http::request::Builder| proxy.send(request).await.text().to_owned();
    assert_eq!(text(Request::put("http://a.example/")).await, "two");
    assert_eq!(text(Request::get("http://a.example/").header("x-tenant", "blue")).await, "two");
    assert_eq!(text(Request::get("http://a.example/").header("x-tenant", "Blue")).await, "one");
    assert_eq!(text(Request::get("http://a.example/?x=1&tenant=blue")).await, "two");
    assert_eq!(text(Request::get("http://a.example/client")).await, "two");
    assert_eq!(text(Request::get("http://a.example/client").header("x-forwarded-for", "6.6.6.6")).await, "two");
    assert_eq!(text(Request::get("http://a.example/nobody")).await, "one");
    assert_eq!(text(Request::get("http://x.a.example/")).await, "three");
    assert_eq!(text(Request::get("http://x.y.a.example/")).await, "404 page not found\n");
    assert_eq!(text(Request::get("http://c.example/42")).await, "three");
    assert_eq!(text(Request::get("http://c.example/x")).await, "404 page not found\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_router_answers_503_and_no_wider_one_does() {
    let routers = "
    service: {rule: \"Host(`a.example`) && PathPrefix(`/service`)\", service: nowhere}
    middleware: {rule: \"Host(`a.example`) && PathPrefix(`/middleware`)\", service: one, middlewares: [auht]}
    internal: {rule: \"Host(`a.example`) && PathPrefix(`/api`)\", service: api@internal}
    wide: {rule: \"Host(`a.example`)\", service: one}
";
    let (proxy, backends) = proxy_with(INSTALL, routers).await;
    for path in ["/service", "/middleware", "/api"] {
        let reply = proxy.get(&format!("http://a.example{path}")).await;
        assert_eq!(reply.said(), (503, "this router is disabled by an error in its configuration\n"), "{path}");
    }
    assert_eq!(backends[0].seen().len(), 0);
    assert_eq!(proxy.get("http://a.example/").await.said(), (200, "one"));
    assert_eq!(proxy.problems().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn over_http2() {
    let routers = "
    plain: {rule: \"Host(`a.example`)\", service: one}
    tls: {rule: \"Host(`a.example`)\", service: two, tls: {}}
";
    let (proxy, backends) = proxy_with(INSTALL, routers).await;
    let mut client = Client::h2c(proxy.address("web")).await;
    let reply = client.get("http://a.example/x").await;
    assert_eq!((reply.version, reply.said()), (Version::HTTP_2, (200, "one")));
    assert_eq!(client.get("http://b.example/").await.said(), (404, "404 page not found\n"));
    let seen = backends[0].last();
    assert_eq!((seen.version, seen.target.as_str(), seen.header("host")), (Version::HTTP_11, "/x", "a.example"));

    let mut client =
        proxy.secure_client_with("a.example", offering(&["h2", "http/1.1"])).await.expect("a TLS handshake");
    assert_eq!(client.session().alpn.as_deref(), Some("h2"));
    let mut requests = Vec::new();
    for number in 0..50 {
        let mut client = client.another();
        requests.push(tokio::spawn(async move { client.get(&format!("https://a.example/{number}")).await }));
    }
    for request in requests {
        let reply = request.await.expect("a reply");
        assert_eq!((reply.version, reply.said()), (Version::HTTP_2, (200, "two")));
    }
    assert_eq!(client.get("https://b.example/").await.status, 404);
    assert_eq!(backends[1].seen().len(), 50);
    assert!(backends[1].seen().iter().all(|seen| seen.header("x-forwarded-proto") == "https"));

    let mut client = proxy.secure_client_with("a.example", offering(&["http/1.1"])).await.expect("a TLS handshake");
    assert_eq!(client.session().alpn.as_deref(), Some("http/1.1"));
    assert_eq!(client.get("https://a.example/").await.version, Version::HTTP_11);
}

#[tokio::test(flavor = "multi_thread")]
async fn paths_are_matched_in_their_normal_form() {
    let routers = "
    rest: {rule: \"Host(`a.example`)\", service: one}
    private: {rule: \"Host(`a.example`) && PathPrefix(`/private`)\", service: two}
";
    let (proxy, backends) = proxy_with(INSTALL, routers).await;
    for path in ["/private", "//private", "/x/../private", "/./private", "/%70rivate", "/x/%2e%2e/private/"] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n");
        let answer = raw(proxy.address("web"), &request).await;
        assert!(answer.ends_with("\r\n\r\ntwo"), "{path}: {answer}");
        assert!(backends[1].last().target.starts_with("/private"), "{path}: {}", backends[1].last().target);
    }
    let answer =
        raw(proxy.address("web"), "GET /%2fprivate%2f%c3 HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n")
            .await;
    assert!(answer.ends_with("\r\n\r\none"), "{answer}");
    assert_eq!(backends[0].last().target, "/%2Fprivate%2F%C3", "what is reserved stays encoded");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_are_in_doubt_are_refused() {
    let (proxy, backends) = proxy_with(INSTALL, "a: {rule: \"PathPrefix(`/`)\", service: one}").await;
    for request in [
        "GET / HTTP/1.1\r\nConnection: close\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a.example\r\nHost: b.example\r\nConnection: close\r\n\r\n",
        "GET /%zz HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a.example\r\nX Y: 1\r\nConnection: close\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a.example\r\nX-A : 1\r\nConnection: close\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 1\r\nContent-Length: 2\r\nConnection: close\r\n\r\nab",
        "POST / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: gzip\r\nConnection: close\r\n\r\nab",
        "nonsense\r\n\r\n",
    ] {
        let answer = raw(proxy.address("web"), request).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{request:?}: {answer:?}");
    }
    assert_eq!(backends[0].seen().len(), 0);
    let absolute = "GET http://b.example/x HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n";
    assert!(raw(proxy.address("web"), absolute).await.ends_with("one"));
    assert_eq!(backends[0].last().header("host"), "b.example", "the target wins (RFC 9112, section 3.2.2)");
}
