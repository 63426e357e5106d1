//! What plugins share: values, counters and token buckets that the host keeps for them.

use std::collections::BTreeSet;
use std::sync::Arc;

use http::Request;
use tokio::task::JoinSet;

use crate::support::folder::Folder;
use crate::support::guests::guest;
use crate::support::proxy::{INSTALL, Proxy};
use crate::support::{empty, eventually};

/// `one.example` and `two.example` have the middleware `m`, `three.example` has `n`, of the same plugin.
const ROUTING: &str = "
http:
  routers:
    one: {rule: Host(`one.example`), service: noop@internal, middlewares: [m]}
    two: {rule: Host(`two.example`), service: noop@internal, middlewares: [m]}
    three: {rule: Host(`three.example`), service: noop@internal, middlewares: [n]}
  middlewares:
    m: {plugin: {shares: {}}}
    n: {plugin: {shares: {init: increment middleware started 1}}}
";

const GRANTS: &str = "plugins: {settings: {shares: {allow: {shared: true, metrics: true}, limits: {cpu: 5s}}}}\n";

async fn proxy() -> Proxy {
    let folder = Folder::new();
    folder.write("plugins/shares.wasm", guest("shares").await);
    folder.write("routing/shares.yaml", ROUTING);
    let proxy = Proxy::start_in(folder, &format!("{INSTALL}{GRANTS}")).await;
    assert_eq!(proxy.problems(), [""; 0]);
    proxy
}

/// What came of it on the router of that name.
async fn act(proxy: &Proxy, router: &str, what: &str) -> String {
    let reply = proxy.send(Request::get(format!("http://{router}.example/")).header("x-do", what)).await;
    assert_eq!(reply.status, 200, "{what}");
    reply.text().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn scopes_do_not_mix() {
    let proxy = proxy().await;
    for scope in ["plugin", "middleware", "router"] {
        assert_eq!(act(&proxy, "one", &format!("set {scope} key of-{scope}")).await, "()");
    }
    for (router, scope, expected) in [
        ("one", "plugin", "of-plugin"),
        ("one", "middleware", "of-middleware"),
        ("one", "router", "of-router"),
        ("two", "plugin", "of-plugin"),
        ("two", "middleware", "of-middleware"),
        ("two", "router", "none"),
        ("three", "plugin", "of-plugin"),
        ("three", "middleware", "none"),
        ("three", "router", "none"),
    ] {
        assert_eq!(act(&proxy, router, &format!("get {scope} key")).await, expected, "{router} {scope}");
    }
    // A bucket of the same name is something else.
    assert_eq!(act(&proxy, "one", "take plugin key 1 1 1 0").await, "Ok(0)");
    assert_eq!(act(&proxy, "two", "get plugin key").await, "of-plugin");
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_at_once_take_no_more_than_the_burst() {
    let proxy = proxy().await;
    let mut requests = JoinSet::new();
    for number in 0..50 {
        // Each on a connection of its own, so that all workers have some.
        let mut client = proxy.client("web").await;
        let host = ["one", "two"][number % 2];
        let request = Request::get(format!("http://{host}.example/")).header("x-do", "take middleware b 0.001 7 1 0");
        let request = request.body(empty()).expect("a good request");
        requests.spawn(async move { client.send_request(request).await.text().to_owned() });
    }
    let answers = requests.join_all().await;
    assert_eq!(answers.iter().filter(|answer| *answer == "Ok(0)").count(), 7, "{answers:?}");
    assert!(answers.iter().all(|answer| answer == "Ok(0)" || answer.starts_with("Err(")), "{answers:?}");

    let mut requests = JoinSet::new();
    for _ in 0..50 {
        let mut client = proxy.client("web").await;
        let request = Request::get("http://one.example/").header("x-do", "increment plugin c 1");
        let request = request.body(empty()).expect("a good request");
        requests.spawn(async move { client.send_request(request).await.text().to_owned() });
    }
    let sums: BTreeSet<String> = requests.join_all().await.into_iter().collect();
    assert_eq!(sums, (1..=50).map(|sum: i32| sum.to_string()).collect(), "each sum once");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_shared_survives_reloads_and_another_version() {
    let proxy = proxy().await;
    for scope in ["plugin", "middleware", "router"] {
        assert_eq!(act(&proxy, "one", &format!("increment {scope} count 1")).await, "1");
    }
    proxy.reload().await;
    // Another configuration of the same middleware, and then another file of the same plugin.
    proxy.write("shares.yaml", &ROUTING.replace("m: {plugin: {shares: {}}}", "m: {plugin: {shares: {note: other}}}"));
    proxy.reload().await;
    for scope in ["plugin", "middleware", "router"] {
        assert_eq!(act(&proxy, "one", &format!("increment {scope} count 1")).await, "2", "{scope}");
    }
    let mut bytes = guest("shares").await;
    // An empty custom section: the same component, with another digest.
    bytes.extend([0, 2, 1, b'x']);
    let digest = |proxy: &Proxy| {
        let snapshot = proxy.snapshot();
        let plugin = snapshot.plugins.find("shares").and_then(|entry| entry.plugin.clone());
        plugin.expect("a good plugin").sha256.clone()
    };
    let before = digest(&proxy);
    proxy.folder.write("plugins/shares.wasm", bytes);
    proxy.reload().await;
    eventually("the other version is compiled and serves", async || digest(&proxy) != before).await;
    for scope in ["plugin", "middleware", "router"] {
        assert_eq!(act(&proxy, "one", &format!("increment {scope} count 1")).await, "3", "{scope}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_middleware_has_kept_goes_with_it() {
    let proxy = proxy().await;
    for scope in ["plugin", "middleware", "router"] {
        act(&proxy, "three", &format!("set {scope} key 1")).await;
        act(&proxy, "one", &format!("set {scope} key 1")).await;
    }
    let without = ROUTING.replace("middlewares: [n]", "middlewares: [m]");
    let before = Arc::downgrade(&proxy.snapshot());
    proxy.write("shares.yaml", &without.replace("    n: {", "    other: {"));
    proxy.reload().await;
    eventually("nobody uses the old configuration", async || before.strong_count() == 0).await;
    proxy.write("shares.yaml", ROUTING);
    proxy.reload().await;
    assert_eq!(act(&proxy, "three", "get middleware key").await, "none");
    assert_eq!(act(&proxy, "three", "get router key").await, "none");
    assert_eq!(act(&proxy, "three", "get plugin key").await, "1", "another middleware uses the plugin");
    assert_eq!(act(&proxy, "one", "get middleware key").await, "1");
    assert_eq!(act(&proxy, "one", "get router key").await, "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn values_end_and_limits_hold() {
    let proxy = proxy().await;
    assert_eq!(act(&proxy, "one", "set plugin short 1 1").await, "()");
    eventually("the value's end", async || act(&proxy, "one", "get plugin short").await == "none").await;
    assert_eq!(act(&proxy, "one", "set plugin gone 1").await, "()");
    assert_eq!(act(&proxy, "one", "set plugin gone 1 0").await, "()");
    assert_eq!(act(&proxy, "one", "get plugin gone").await, "none");
    for (what, expected) in [
        ("long 256 65536", "()"),
        ("long 257 1", "ErrorKind::TooLarge: keep a key of 257 bytes: at most 256 are allowed"),
        ("long 1 65537", "ErrorKind::TooLarge: keep a value of 65537 bytes: at most 65536 are allowed"),
        ("set plugin bytes x", "()"),
        ("increment plugin bytes 1", "ErrorKind::Conflict: count: the key holds something else"),
        ("increment plugin edge 9223372036854775807", "9223372036854775807"),
        ("increment plugin edge 1", "9223372036854775807"),
        ("take plugin b NaN 1 1 1000", "Ok(0)"),
        ("take plugin b NaN 1 1 1000", "Err(18446744073709551615)"),
        ("take plugin b inf 1 2 1000", "Err(18446744073709551615)"),
    ] {
        assert_eq!(act(&proxy, "one", what).await, expected, "{what}");
    }
    assert_eq!(act(&proxy, "one", "take plugin kept 0.001 1 1 0").await, "Ok(0)");
    assert_eq!(act(&proxy, "one", "set plugin first 1 60000").await, "()");
    for thousand in 0..10 {
        assert_eq!(act(&proxy, "one", "get plugin first").await, "1", "{thousand}");
        let fill = format!("fill {} {}", thousand * 1000, (thousand + 1) * 1000);
        assert_eq!(act(&proxy, "one", &fill).await, "filled");
    }
    assert_eq!(act(&proxy, "one", "get plugin first").await, "none", "what would have expired made room");
    assert!(act(&proxy, "one", "take plugin kept 0.001 1 1 0").await.starts_with("Err("), "buckets are apart");
}

#[tokio::test(flavor = "multi_thread")]
async fn init_has_its_middleware_and_no_router() {
    let proxy = proxy().await;
    let count = proxy.get("http://three.example/").await.text().parse::<u32>().expect("what `init` counted");
    assert!(count >= 2, "once when the middleware was configured, and once in each instance: {count}");
    proxy.write("shares.yaml", &ROUTING.replace("increment middleware started 1", "set router key 1"));
    proxy.reload().await;
    let text = proxy.get("http://three.example/").await.text().to_owned();
    assert_eq!(text, "ErrorKind::NotFound: find a router: there is none during `init`");
}
