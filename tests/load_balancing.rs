//! Which of a service's servers gets a request, and what it sees of its own address.

use std::collections::BTreeMap;

use crate::support::backend::Backend;
use crate::support::proxy::{INSTALL, Proxy};
use crate::support::route;

/// A proxy whose service for `a.example` has what `load_balancer` says.
async fn balanced(load_balancer: &str) -> Proxy {
    let text = route("a", "").replace("servers: [{url: \"\"}]", load_balancer);
    Proxy::start(INSTALL, &[("a.yaml", &text)]).await
}

async fn counts(proxy: &Proxy, requests: usize) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for _ in 0..requests {
        // Each on a connection of its own: the weights hold for all workers together.
        let reply = proxy.get("http://a.example/").await;
        assert_eq!(reply.status, 200);
        *counts.entry(reply.text().to_owned()).or_default() += 1;
    }
    counts
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_take_turns() {
    let backends = [Backend::saying("a").await, Backend::saying("b").await, Backend::saying("c").await];
    let servers: Vec<String> = backends.iter().map(|backend| format!("{{url: \"{}\"}}", backend.url())).collect();
    let proxy = balanced(&format!("servers: [{}]", servers.join(", "))).await;
    let expected = ["a", "b", "c"].map(|name| (name.to_owned(), 3));
    assert_eq!(counts(&proxy, 9).await, expected.into());
}

#[tokio::test(flavor = "multi_thread")]
async fn weights_are_exact() {
    let backends = [
        Backend::saying("a").await,
        Backend::saying("b").await,
        Backend::saying("c").await,
        Backend::saying("d").await,
    ];
    let weights = [3, 2, 1, 0];
    let servers: Vec<String> = backends
        .iter()
        .zip(weights)
        .map(|(backend, weight)| format!("{{url: \"{}\", weight: {weight}}}", backend.url()))
        .collect();
    let proxy = balanced(&format!("servers: [{}]", servers.join(", "))).await;
    for _ in 0..3 {
        let expected = [("a", 3), ("b", 2), ("c", 1)].map(|(name, count)| (name.to_owned(), count));
        assert_eq!(counts(&proxy, 6).await, expected.into(), "in every round");
    }
    assert_eq!(backends[3].connections(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_server_there_is_503() {
    let backend = Backend::saying("a").await;
    for servers in
        ["servers: []", "passHostHeader: true", &format!("servers: [{{url: \"{}\", weight: 0}}]", backend.url())]
    {
        let proxy = balanced(servers).await;
        let reply = proxy.get("http://a.example/").await;
        assert_eq!(reply.said(), (503, "no available server\n"), "{servers}");
        assert_eq!(reply.header("content-type"), "text/plain; charset=utf-8");
    }
    assert_eq!(backend.connections(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_host_is_the_clients_or_the_servers() {
    let backend = Backend::saying("a").await;
    let server = format!("servers: [{{url: \"{}/ignored\"}}]", backend.url());
    for (option, host) in [("", "a.example:8080".to_owned()), (", passHostHeader: false", backend.address.to_string())]
    {
        let proxy = balanced(&format!("{server}{option}")).await;
        assert_eq!(proxy.status("http://a.example:8080/x?y").await, 200);
        let seen = backend.last();
        assert_eq!((seen.header("host"), seen.target.as_str()), (host.as_str(), "/x?y"));
        assert_eq!(seen.header("x-forwarded-host"), "a.example:8080");
    }
    let proxy = balanced(&format!("servers: [{{url: \"{}/base/\", preservePath: true}}]", backend.url())).await;
    assert_eq!(proxy.status("http://a.example/x?y").await, 200);
    assert_eq!(backend.last().target, "/base/x?y");
}

/// One that takes no connections has been sent nothing, so that another may have the request.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_down_loses_no_request() {
    let backends = [Backend::saying("a").await, Backend::saying("b").await, Backend::saying("c").await];
    let url = |index: usize| backends[index].url();
    let servers = format!("servers: [{{url: \"{}\"}}, {{url: \"{}\"}}, {{url: \"{}\"}}]", url(0), url(1), url(2));
    let proxy = balanced(&servers).await;
    let [a, b, c] = backends;
    drop(a);
    let mut posted = 0;
    for _ in 0..12 {
        let reply = proxy.send_with(http::Request::post("http://a.example/"), "order").await;
        assert_eq!(reply.status, 200);
        posted += 1;
    }
    let arrived = b.seen().len() + c.seen().len();
    assert_eq!(arrived, posted, "each once");
    assert!(b.seen().len() >= 4 && c.seen().len() >= 4);
    assert!(b.seen().iter().chain(&c.seen()).all(|seen| seen.body == "order" && seen.header("host") == "a.example"));
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_that_are_all_down() {
    let backends = [Backend::saying("a").await, Backend::saying("b").await];
    let servers: Vec<String> = backends.iter().map(|backend| format!("{{url: \"{}\"}}", backend.url())).collect();
    drop(backends);
    let proxy = balanced(&format!("servers: [{}]", servers.join(", "))).await;
    assert_eq!(proxy.get("http://a.example/").await.said(), (502, "Bad Gateway"));
}
