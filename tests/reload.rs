//! Files that change while the proxy serves: what takes effect, and what must not.

use std::fs::{self, File};
use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{Request, Response};
use tokio::sync::Notify;

use crate::support::backend::Backend;
use crate::support::folder::Folder;
use crate::support::proxy::{INSTALL, Proxy};
use crate::support::{eventually, full, route};

/// Longer than the proxy waits for the next write, and shorter than it waits for the last.
const SOME_TIME: Duration = Duration::from_millis(500);

/// A proxy with the host `a.example`, and its server, which says `one`.
async fn one() -> (Proxy, Backend) {
    let backend = Backend::saying("one").await;
    let proxy = Proxy::start(INSTALL, &[("a.yaml", &route("a", &backend.url()))]).await;
    assert_eq!(proxy.get("http://a.example/").await.said(), (200, "one"));
    (proxy, backend)
}

async fn comes_to_say(proxy: &Proxy, url: &str, text: &str) {
    eventually(&format!("`{text}` from {url}"), async || proxy.get(url).await.said() == (200, text)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_right_after_the_start() {
    let (one, two) = (Backend::saying("one").await, Backend::saying("two").await);
    let proxy = Proxy::start(INSTALL, &[("a.yaml", &route("a", &one.url()))]).await;
    proxy.write("a.yaml", &route("a", &two.url()));
    comes_to_say(&proxy, "http://a.example/", "two").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_rewritten_in_place() {
    let (proxy, _one) = one().await;
    let two = Backend::saying("two").await;
    proxy.folder.rewrite("routing/a.yaml", &route("a", &two.url()));
    comes_to_say(&proxy, "http://a.example/", "two").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_renamed_into_place() {
    let (proxy, _one) = one().await;
    let two = Backend::saying("two").await;
    proxy.write("a.yaml", &route("a", &two.url()));
    comes_to_say(&proxy, "http://a.example/", "two").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_come_and_go() {
    let (proxy, one) = one().await;
    proxy.write("b.yml", &route("b", &one.url()));
    comes_to_say(&proxy, "http://b.example/", "one").await;
    proxy.folder.remove("routing/a.yaml");
    eventually("a.example is gone", async || proxy.status("http://a.example/").await == 404).await;
    assert_eq!(proxy.status("http://b.example/").await, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn directories_within_the_directory() {
    let (proxy, one) = one().await;
    // Made while it runs, and changed again: the new directory must be watched too.
    proxy.write("more/deep/b.yaml", &route("b", &one.url()));
    comes_to_say(&proxy, "http://b.example/", "one").await;
    proxy.write("more/deep/b.yaml", &route("c", &one.url()));
    comes_to_say(&proxy, "http://c.example/", "one").await;
    assert_eq!(proxy.status("http://b.example/").await, 404);
    fs::remove_dir_all(proxy.folder.path("routing/more")).expect("the directory is there");
    eventually("c.example is gone", async || proxy.status("http://c.example/").await == 404).await;
    assert_eq!(proxy.status("http://a.example/").await, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_file_in_place_of_a_directory() {
    let (one, two) = (Backend::saying("one").await, Backend::saying("two").await);
    let folder = Folder::new();
    folder.write("routes.yaml", route("a", &one.url()));
    let install = INSTALL.replace("directory: $DIR/routing", "filename: $DIR/routes.yaml");
    let proxy = Proxy::start_in(folder, &install).await;
    assert_eq!(proxy.get("http://a.example/").await.text(), "one");
    proxy.folder.write("routes.yaml", route("a", &two.url()));
    comes_to_say(&proxy, "http://a.example/", "two").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_watching_only_a_reload_counts() {
    let one = Backend::saying("one").await;
    let install = INSTALL.replace("{directory", "{watch: false, directory");
    let proxy = Proxy::start(&install, &[("a.yaml", &route("a", &one.url()))]).await;
    proxy.write("b.yaml", &route("b", &one.url()));
    assert_eq!(proxy.status("http://b.example/").await, 404);
    proxy.reload().await;
    assert_eq!(proxy.get("http://b.example/").await.said(), (200, "one"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_file_keeps_its_last_good_content() {
    let (proxy, one) = one().await;
    proxy.write("a.yaml", "http:\n  routers:\n    a: {rule: \"Host(`a.example`)\", service: [\n");
    // The change of another file is not held up.
    proxy.write("b.yaml", &route("b", &one.url()));
    comes_to_say(&proxy, "http://b.example/", "one").await;
    eventually("the problem", async || proxy.problems().len() == 1).await;
    let problem = &proxy.problems()[0];
    assert!(problem.starts_with("error: routing/a.yaml:"), "{problem}");
    assert!(problem.ends_with("; the file keeps its last good content"), "{problem}");
    assert_eq!(proxy.get("http://a.example/").await.said(), (200, "one"));

    proxy.write("a.yaml", &route("mended", &one.url()));
    comes_to_say(&proxy, "http://mended.example/", "one").await;
    assert_eq!(proxy.problems(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_read_is_never_applied() {
    let (proxy, one) = one().await;
    for empty in ["", "\n", "# soon\n", "---\n"] {
        proxy.folder.rewrite("routing/a.yaml", empty);
        proxy.reload().await;
        assert_eq!(proxy.get("http://a.example/").await.said(), (200, "one"), "{empty:?}");
        let problems = proxy.problems();
        assert!(problems.len() == 1 && problems[0].contains("`routing/a.yaml` is empty now"), "{problems:?}");
    }
    proxy.folder.rewrite("routing/a.yaml", &route("a", &one.url()));
    eventually("no problem", async || proxy.problems().is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_half_written_file_is_waited_for() {
    let (proxy, one) = one().await;
    let whole = format!("{}\n{}", route("a", &one.url()), "# end");
    let whole = whole.replace("  services:", "    b: {rule: \"Host(`b.example`)\", service: a}\n  services:");
    let (first, second) = whole.split_at(whole.find("  services:").expect("it has services"));
    let mut file = File::create(proxy.folder.path("routing/a.yaml")).expect("the file can be written");
    file.write_all(first.as_bytes()).expect("the file can be written");
    file.flush().expect("the file can be written");
    // A file that is still open for writing is no change yet: half of it would be good YAML, and break both routers.
    let until = Instant::now() + SOME_TIME;
    while Instant::now() < until {
        assert_eq!(proxy.get("http://a.example/").await.said(), (200, "one"));
        assert_eq!(proxy.status("http://b.example/").await, 404);
        assert_eq!(proxy.problems(), [""; 0]);
    }
    file.write_all(second.as_bytes()).expect("the file can be written");
    drop(file);
    comes_to_say(&proxy, "http://b.example/", "one").await;
    assert_eq!(proxy.problems(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_item_keeps_its_last_good_version_alone() {
    let (one, two) = (Backend::saying("one").await, Backend::saying("two").await);
    let files = |rule_of_a: &str, url_of_b: &str, middleware: &str| {
        format!(
            "
http:
  routers:
    a: {{rule: \"{rule_of_a}\", service: one}}
    b: {{rule: \"Host(`b.example`)\", service: b, middlewares: [m]}}
  middlewares:
    m: {{headers: {{{middleware}}}}}
  services:
    one: {{loadBalancer: {{servers: [{{url: \"{}\"}}]}}}}
    b: {{loadBalancer: {{servers: [{{url: \"{url_of_b}\"}}]}}}}
",
            one.url()
        )
    };
    let frame_deny = "frameDeny: true";
    let proxy = Proxy::start(INSTALL, &[("a.yaml", &files("Host(`a.example`)", &one.url(), frame_deny))]).await;
    assert_eq!(proxy.get("http://a.example/").await.text(), "one");
    assert_eq!(proxy.get("http://b.example/").await.header("x-frame-options"), "DENY");

    // A rule breaks; in the same change another item becomes what it says now.
    proxy.write("a.yaml", &files("Hst(`a.example`)", &two.url(), frame_deny));
    comes_to_say(&proxy, "http://b.example/", "two").await;
    assert_eq!(proxy.get("http://a.example/").await.said(), (200, "one"));
    assert!(proxy.snapshot().items.routers["a"].stale);
    assert!(!proxy.snapshot().items.routers["b"].stale);
    assert_eq!(proxy.problems().len(), 1);

    // A service and a middleware break.
    proxy.write("a.yaml", &files("Host(`a.example`)", "gopher://b", "frameDny: true"));
    eventually("two problems", async || proxy.problems().len() == 2).await;
    let reply = proxy.get("http://b.example/").await;
    assert_eq!((reply.said(), reply.header("x-frame-options")), ((200, "two"), "DENY"));
    let items = &proxy.snapshot().items;
    assert!(items.services["b"].stale && items.middlewares["m"].stale && !items.routers["a"].stale);

    proxy.write("a.yaml", &files("Host(`a.example`)", &one.url(), "contentTypeNosniff: true"));
    comes_to_say(&proxy, "http://b.example/", "one").await;
    let reply = proxy.get("http://b.example/").await;
    assert_eq!((reply.header("x-frame-options"), reply.header("x-content-type-options")), ("", "nosniff"));
    assert_eq!(proxy.problems(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_a_middleware_names_is_followed() {
    let backend = Backend::saying("in").await;
    let folder = Folder::new();
    folder.write("users", "admin:$apr1$c5IwaNCW$VpEXax7LtUneLsElXFWCI.\n");
    folder.write(
        "routing/a.yaml",
        format!(
            "{}  middlewares:\n    auth: {{basicAuth: {{usersFile: $DIR/users}}}}\n",
            route("a", &backend.url()).replace("service: a}", "service: a, middlewares: [auth]}")
        ),
    );
    let proxy = Proxy::start_in(folder, INSTALL).await;
    let ask = async |authorization: &str| {
        proxy.send(Request::get("http://a.example/").header("authorization", authorization)).await.status
    };
    let (admin, other) = ("Basic YWRtaW46YWRtaW4=", "Basic b3RoZXI6YWRtaW4=");
    assert_eq!((ask(admin).await, ask(other).await), (200, 401));
    proxy.folder.write("users", "other:$apr1$c5IwaNCW$VpEXax7LtUneLsElXFWCI.\n");
    eventually("the other user", async || ask(other).await == 200).await;
    assert_eq!(ask(admin).await, 401, "whoever was struck off the list is out, remembered or not");
}

#[tokio::test(flavor = "multi_thread")]
async fn round_robin_goes_on_where_it_stood() {
    let (one, two) = (Backend::saying("one").await, Backend::saying("two").await);
    let servers = format!("servers: [{{url: \"{}\"}}, {{url: \"{}\"}}]", one.url(), two.url());
    let text = route("a", "").replace("servers: [{url: \"\"}]", &servers);
    let proxy = Proxy::start(INSTALL, &[("a.yaml", &text)]).await;
    let mut order = Vec::new();
    for round in 0..3 {
        order.push(proxy.get("http://a.example/").await.text().to_owned());
        proxy.write("other.yaml", &route(&format!("other{round}"), &one.url()));
        proxy.reload().await;
        assert_eq!(proxy.status(&format!("http://other{round}.example/")).await, 200);
    }
    assert_eq!(order, ["one", "two", "one"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn middlewares_that_are_the_same_go_on() {
    let backend = Backend::saying("in").await;
    let with = |options: &str| {
        let routes = route("a", &backend.url()).replace("service: a}", "service: a, middlewares: [auth]}");
        format!("{routes}  middlewares:\n    auth: {{basicAuth: {{{options}users: [\"admin:admin\"]}}}}\n")
            .replace("admin:admin", "admin:$apr1$c5IwaNCW$VpEXax7LtUneLsElXFWCI.")
    };
    let proxy = Proxy::start(INSTALL, &[("a.yaml", &with(""))]).await;
    let configured = || {
        let snapshot = proxy.snapshot();
        let middleware = snapshot.items.middlewares["auth"].serves.as_ref().expect("a good middleware");
        Arc::clone(&middleware.plugins()[0])
    };
    let first = configured();
    for round in ["b", "c"] {
        assert_eq!(proxy.status("http://a.example/").await, 401);
        proxy.write("b.yaml", &route(round, &backend.url()));
        proxy.reload().await;
        assert!(Arc::ptr_eq(&first, &configured()), "with its instances");
    }
    proxy.write("a.yaml", &with("realm: other, "));
    proxy.reload().await;
    assert!(!Arc::ptr_eq(&first, &configured()), "another configuration begins anew");
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_to_servers_and_from_clients_stay() {
    let (proxy, one) = one().await;
    let mut client = proxy.client("web").await;
    assert_eq!(client.get("http://a.example/").await.text(), "one");
    let connections = one.connections();
    for round in 0..3 {
        proxy.write("other.yaml", &route(&format!("other{round}"), &one.url()));
        proxy.reload().await;
        assert_eq!(client.get("http://a.example/").await.text(), "one");
    }
    assert_eq!(one.connections(), connections, "the connection to the server is used again");
    let url = format!("http://other{}.example/", 2);
    assert_eq!(client.get(&url).await.status, 200, "a connection from before sees what is new");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_in_flight_finishes() {
    let (arrived, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (told, wait) = (Arc::clone(&arrived), Arc::clone(&go_on));
    let slow = Backend::start(move |_| {
        let (told, wait) = (Arc::clone(&told), Arc::clone(&wait));
        async move {
            told.notify_one();
            wait.notified().await;
            Response::new(full("late"))
        }
    })
    .await;
    let proxy = Arc::new(Proxy::start(INSTALL, &[("a.yaml", &route("a", &slow.url()))]).await);
    let request = tokio::spawn({
        let proxy = Arc::clone(&proxy);
        async move { proxy.get("http://a.example/").await }
    });
    arrived.notified().await;
    proxy.folder.remove("routing/a.yaml");
    proxy.reload().await;
    assert_eq!(proxy.status("http://a.example/").await, 404);
    go_on.notify_one();
    assert_eq!(request.await.expect("an answer").said(), (200, "late"));
}
