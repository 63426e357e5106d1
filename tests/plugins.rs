//! Components that somebody drops into the plugin folder: good ones, and such as mean harm.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::Request;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::time::Instant;

use crate::support::backend::Backend;
use crate::support::client::{Client, connect};
use crate::support::folder::Folder;
use crate::support::guests::guest;
use crate::support::program::Program;
use crate::support::proxy::{INSTALL, Proxy};
use crate::support::{empty, eventually, route};

/// A proxy whose host `a.example` has the middleware `m`, made of `config`; `plain.example` has none, and
/// `admin.example` is the API. `plugins` are in its folder from the start.
async fn proxy_with(plugins: &[(&str, &[u8])], config: &str, backend: &Backend) -> Proxy {
    let folder = Folder::new();
    for (name, bytes) in plugins {
        folder.write(&format!("plugins/{name}.wasm"), bytes);
    }
    let text = route("a", &backend.url())
        .replace("service: a}", "service: a, middlewares: [m]}")
        .replace("  services:", &format!("  middlewares:\n    m: {config}\n  services:"));
    folder.write("routing/a.yaml", text);
    folder.write("routing/plain.yaml", route("plain", &backend.url()));
    folder.write(
        "routing/admin.yaml",
        "http: {routers: {admin: {rule: \"Host(`admin.example`)\", service: api@internal}}}",
    );
    Proxy::start_in(folder, &format!("{INSTALL}api: {{}}\n")).await
}

async fn with_misbehaving(how: &str, backend: &Backend) -> Proxy {
    let bytes = guest("misbehaves").await;
    proxy_with(&[("misbehaves", &bytes)], &format!("{{plugin: {{misbehaves: {{how: {how}}}}}}}"), backend).await
}

/// What `/api/plugins` says of one.
async fn listed(proxy: &Proxy, name: &str) -> Value {
    let list = proxy.get("http://admin.example/api/plugins").await.json();
    let plugins = list.as_array().expect("a list");
    plugins.iter().find(|plugin| plugin["name"] == name).cloned().unwrap_or(Value::Null)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_in_plugin_is_known_by_its_file_name() {
    let backend = Backend::saying("hello").await;
    let proxy = proxy_with(&[("marks", &guest("stamps").await)], "{plugin: {marks: {}}}", &backend).await;
    assert_eq!(proxy.problems(), [""; 0]);
    let reply = proxy.get("http://a.example/x?y=1").await;
    assert_eq!(reply.said(), (200, "hello"));
    assert_eq!(reply.header("x-stamp"), "1.0.0");
    assert_eq!(reply.header("x-stamped-path"), "/x?y=1", "what it remembered of the request");
    assert_eq!(backend.last().header("x-stamp"), "1.0.0");
    assert_eq!(proxy.get("http://plain.example/").await.header("x-stamp"), "", "only where it is asked for");

    let plugin = listed(&proxy, "marks").await;
    assert_eq!((&plugin["status"], &plugin["version"]), (&json!("enabled"), &json!("1.0.0")));
    assert_eq!(plugin["origin"], json!(proxy.folder.path("plugins/marks.wasm")));
    assert_eq!(plugin["usedBy"], json!(["m@file"]));
    assert_eq!((&plugin["calls"], &plugin["failures"]), (&json!(2), &json!(0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_comes_later_mends_its_route() {
    let backend = Backend::saying("hello").await;
    let proxy = proxy_with(&[], "{plugin: {stamps: {}}}", &backend).await;
    assert_eq!(proxy.status("http://a.example/").await, 503, "closed as long as its middleware is missing");
    assert_eq!(proxy.status("http://plain.example/").await, 200);
    let message = "http.middlewares.m.plugin.stamps: there is no plugin `stamps` in `plugins`";
    assert!(proxy.problems().iter().any(|problem| problem.contains(message)), "{:?}", proxy.problems());
    // The folder itself is made now.
    proxy.folder.write("plugins/stamps.wasm", guest("stamps").await);
    eventually("the plugin", async || proxy.get("http://a.example/").await.header("x-stamp") == "1.0.0").await;
    assert_eq!(proxy.problems(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_is_swapped_without_a_restart() {
    let backend = Backend::saying("hello").await;
    let proxy = proxy_with(&[("stamps", &guest("stamps").await)], "{plugin: {stamps: {}}}", &backend).await;
    let mut client = proxy.client("web").await;
    assert_eq!(client.get("http://a.example/").await.header("x-stamp"), "1.0.0");
    proxy.folder.write("plugins/stamps.wasm", guest("stamps-again").await);
    eventually("the new version", async || client.get("http://a.example/").await.header("x-stamp") == "2.0.0").await;
    assert_eq!(backend.last().header("x-stamp"), "2.0.0");
    assert_eq!(listed(&proxy, "stamps").await["version"], "2.0.0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_takes_the_place_of_a_built_in_plugin() {
    let backend = Backend::saying("hello").await;
    let proxy = proxy_with(&[], "{redirectScheme: {scheme: https}}", &backend).await;
    assert_eq!(proxy.status("http://a.example/").await, 302);
    proxy.folder.write("plugins/redirectScheme.wasm", guest("stamps").await);
    eventually("the file", async || proxy.get("http://a.example/").await.header("x-stamp") == "1.0.0").await;
    assert_eq!(proxy.status("http://a.example/").await, 200);
    let problems = proxy.problems();
    let warning = "redirectScheme.wasm` takes the place of the built-in plugin `redirectScheme`";
    assert!(matches!(&problems[..], [problem] if problem.contains(warning)), "{problems:?}");

    // A broken one does not: the built-in plugin is better than nothing.
    proxy.folder.remove("plugins/redirectScheme.wasm");
    eventually("the built-in plugin", async || proxy.status("http://a.example/").await == 302).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_removed_serves_on_and_is_listed() {
    let backend = Backend::saying("hello").await;
    let proxy = proxy_with(&[("stamps", &guest("stamps").await)], "{plugin: {stamps: {}}}", &backend).await;
    proxy.folder.remove("plugins/stamps.wasm");
    eventually("a problem", async || !proxy.problems().is_empty()).await;
    assert_eq!(proxy.get("http://a.example/").await.header("x-stamp"), "1.0.0");
    let plugin = listed(&proxy, "stamps").await;
    assert_eq!((&plugin["status"], &plugin["usedBy"]), (&json!("warning"), &json!(["m@file"])));
    let gone = "its file is gone; it serves on until its middlewares change or weir starts again";
    assert_eq!(plugin["problems"][0]["message"], gone);
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_nothing_comes_of_are_warned_about() {
    let folder = Folder::new();
    folder.write("plugins/stamps.wasm", guest("stamps").await);
    // A name of a built-in plugin says that a file may take its place.
    folder.write("plugins/basicAuth.wasm", guest("stamps").await);
    let settings =
        "stmps: {limits: {cpu: 1ms}}, Stamps: {limits: {cpu: 1s}}, basicauth: {}, httpreq: {allow: {shared: true}}";
    let settings = format!("{INSTALL}plugins: {{directory: $DIR/plugins, settings: {{{settings}}}}}\n");
    let route = "http: {middlewares: {m: {plugin: {stamps: {}}}}}";
    folder.write("routing/a.yaml", route);
    let proxy = Proxy::start_in(folder, &settings).await;
    let problems = proxy.problems();
    assert!(
        matches!(&problems[..], [one] if one.contains("plugins.settings.stmps: there is no plugin `stmps`")
            && one.contains("did you mean `stamps`?")),
        "{problems:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_is_named_must_be_there() {
    let proxy = Proxy::start(&format!("{INSTALL}plugins: {{directory: $DIR/plugin}}\n"), &[]).await;
    let problems = proxy.problems();
    assert!(matches!(&problems[..], [one] if one.contains("plugins.directory: there is no folder `")), "{problems:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_middleware_that_is_not_called_for_a_while_says_so() {
    let backend = Backend::saying("hello").await;
    let proxy = with_misbehaving("traps", &backend).await;
    let trap = async || proxy.send(Request::get("http://a.example/").header("x-trap", "1")).await.status;
    for _ in 0..5 {
        assert_eq!(trap().await, 500);
    }
    assert_eq!(trap().await, 503);
    let middleware = async || proxy.get("http://admin.example/api/http/middlewares/m@file").await.json();
    let said = middleware().await;
    assert_eq!(said["status"], "warning");
    let message = said["error"][0].as_str().unwrap_or_default();
    assert!(
        message.starts_with("the plugin `misbehaves` fails again and again, and is not called for another "),
        "{said}"
    );
    let overview = proxy.get("http://admin.example/api/overview").await.json();
    assert_eq!(overview["problems"][0]["key"], "m");
    eventually("another call", async || proxy.status("http://a.example/").await == 200).await;
    assert_eq!(middleware().await["status"], "enabled");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_left_out_where_it_fails_is_in_the_log() {
    let folder = Folder::new();
    folder.write("plugins/misbehaves.wasm", guest("misbehaves").await);
    folder.write("install.yaml", format!("{INSTALL}plugins: {{settings: {{misbehaves: {{onFailure: bypass}}}}}}\n"));
    folder.write(
        "routing/all.yaml",
        "
http:
  routers:
    a: {rule: \"Host(`a.example`)\", service: whoami@internal, middlewares: [m]}
  middlewares:
    m: {plugin: {misbehaves: {how: loops}}}
",
    );
    let program = Program::start(folder.root(), &["--configFile=install.yaml"]);
    let mut client = Client::plain(program.address("web").await).await;
    assert_eq!(client.get("http://a.example/").await.status, 200);
    let went_on = "a request went on without a middleware: plugin failed: `misbehaves`: it used up its CPU time for one call \
        (`limits.cpu` is 50ms)";
    program.prints(went_on).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_file_keeps_the_old_version_and_says_why() {
    let backend = Backend::saying("hello").await;
    let stamps = guest("stamps").await;
    let proxy = proxy_with(&[("stamps", &stamps)], "{plugin: {stamps: {}}}", &backend).await;
    let core_module = b"\0asm\x01\0\0\0";
    assert_eq!(proxy.get("http://a.example/").await.header("x-stamp"), "1.0.0");
    for (bytes, reason) in [
        (&b"PK\x03\x04 not this"[..], "it is not WebAssembly, or not all of it has been copied yet"),
        (&core_module[..], "it is a core WebAssembly module and not a component: build it for wasm32-wasip2"),
        (&stamps[..stamps.len() / 2], "it ends in the middle: it is not whole, or not all of it has been copied yet"),
        (&[&stamps[..], b"\x01\x03abc"].concat(), "compiling it"),
        (b"", "it is not WebAssembly, or not all of it has been copied yet"),
        (&guest("fetches").await, "it may not use `fetch`: to allow it, write `plugins: {settings: {stamps: {allow: "),
    ] {
        proxy.folder.write("plugins/stamps.wasm", bytes);
        let says = |plugin: &Value| plugin["problems"][0]["message"].as_str().unwrap_or_default().to_owned();
        let what = format!("{reason}, of {} bytes", bytes.len());
        eventually(&what, async || says(&listed(&proxy, "stamps").await).contains(reason)).await;
        let plugin = listed(&proxy, "stamps").await;
        assert_eq!((&plugin["status"], &plugin["version"]), (&json!("warning"), &json!("1.0.0")), "{reason}");
        assert_eq!(proxy.get("http://a.example/").await.header("x-stamp"), "1.0.0", "{reason}");
        assert!(proxy.problems().iter().any(|problem| problem.contains(reason)), "{:?}", proxy.problems());
    }
    proxy.folder.write("plugins/stamps.wasm", guest("stamps-again").await);
    eventually("the good one", async || proxy.get("http://a.example/").await.header("x-stamp") == "2.0.0").await;
    assert_eq!(listed(&proxy, "stamps").await["status"], "enabled");
    assert_eq!(proxy.problems(), [""; 0]);
}

/// A proxy with two routers, whose plugin `p` is `guest-stamps`, which takes any options. The first ones suit
/// `guest-misbehaves` too, the others are given.
async fn proxy_with_two_middlewares(other: &str, backend: &Backend) -> Proxy {
    let folder = Folder::new();
    folder.write("plugins/p.wasm", guest("stamps").await);
    folder.write("routing/two.yaml", two_middlewares(other, backend));
    folder.write(
        "routing/admin.yaml",
        "http: {routers: {admin: {rule: \"Host(`admin.example`)\", service: api@internal}}}",
    );
    let proxy = Proxy::start_in(folder, &format!("{INSTALL}api: {{}}\n")).await;
    assert_eq!(stamps(&proxy).await, ["1.0.0", "1.0.0"]);
    proxy
}

fn two_middlewares(other: &str, backend: &Backend) -> String {
    format!(
        "
http:
  routers:
    a: {{rule: Host(`a.example`), service: s, middlewares: [one]}}
    b: {{rule: Host(`b.example`), service: s, middlewares: [other]}}
  middlewares:
    one: {{plugin: {{p: {{how: traps}}}}}}
    other: {{plugin: {{p: {{how: {other}}}}}}}
  services:
    s: {{loadBalancer: {{servers: [{{url: \"{}\"}}]}}}}
",
        backend.url()
    )
}

/// Which version of the stamp serves each of the two.
async fn stamps(proxy: &Proxy) -> [String; 2] {
    let mut stamps = [String::new(), String::new()];
    for (stamp, host) in stamps.iter_mut().zip(["a", "b"]) {
        let reply = proxy.get(&format!("http://{host}.example/")).await;
        assert_eq!(reply.said(), (200, "hello"), "{host}");
        reply.header("x-stamp").clone_into(stamp);
    }
    stamps
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_version_serves_all_middlewares_or_none() {
    let backend = Backend::saying("hello").await;
    let proxy = proxy_with_two_middlewares("refusesInInit", &backend).await;

    proxy.folder.write("plugins/p.wasm", guest("misbehaves").await);
    eventually("a refusal", async || !proxy.problems().is_empty()).await;
    let problem = "error: the plugin `p` in `plugins/p.wasm` cannot be used: it would not serve \
        `http.middlewares.other.plugin.p` (routing/two.yaml:8:22): failed to like `refusesInInit`: write another way; \
        its last good version serves on";
    assert_eq!(proxy.problems(), [problem]);
    proxy.reload().await;
    assert_eq!(proxy.problems(), [problem], "as long as nothing changes");
    assert_eq!(stamps(&proxy).await, ["1.0.0", "1.0.0"], "the one that it would serve has the old one too");
    let plugin = listed(&proxy, "p").await;
    assert_eq!((&plugin["status"], &plugin["version"]), (&json!("warning"), &json!("1.0.0")));
    assert_eq!(plugin["usedBy"], json!(["one@file", "other@file"]));

    proxy.folder.write("plugins/p.wasm", guest("stamps-again").await);
    eventually("a version for both", async || stamps(&proxy).await == ["2.0.0", "2.0.0"]).await;
    assert_eq!(proxy.problems(), [""; 0]);
    assert_eq!(listed(&proxy, "p").await["version"], "2.0.0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_version_waits_for_a_configuration_that_suits_it() {
    let backend = Backend::saying("hello").await;
    let proxy = proxy_with_two_middlewares("refusesInInit", &backend).await;
    proxy.folder.write("plugins/p.wasm", guest("misbehaves").await);
    eventually("a refusal", async || !proxy.problems().is_empty()).await;

    proxy.write("two.yaml", &two_middlewares("traps", &backend));
    eventually("the new version, which has no stamp", async || stamps(&proxy).await == ["", ""]).await;
    assert_eq!(proxy.problems(), [""; 0]);

    // From now on it is the configuration that is wrong, and that concerns one middleware.
    proxy.write("two.yaml", &two_middlewares("refusesInInit", &backend));
    eventually("a refusal", async || !proxy.problems().is_empty()).await;
    assert_eq!(
        proxy.problems(),
        [
            "error: routing/two.yaml:8:22: http.middlewares.other.plugin.p: failed to like `refusesInInit`: write another way"
        ]
    );
    assert_eq!(stamps(&proxy).await, ["", ""]);
    assert_eq!(listed(&proxy, "p").await["status"], "enabled");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_version_must_suit_the_redirections_of_entry_points_too() {
    let redirecting = "\"127.0.0.1:0\", http: {redirections: {entryPoint: {to: websecure}}}";
    let proxy = Proxy::start(&INSTALL.replacen("\"127.0.0.1:0\"", redirecting, 1), &[]).await;
    assert_eq!(proxy.status("http://a.example/").await, 301);

    proxy.folder.write("plugins/redirectScheme.wasm", guest("misbehaves").await);
    eventually("a refusal", async || !proxy.problems().is_empty()).await;
    let refused =
        "it would not serve `redirect-web-to-websecure@internal`: failed to read the options: missing field `how`";
    assert!(proxy.problems()[0].contains(refused), "{:?}", proxy.problems());
    assert_eq!(proxy.status("http://a.example/").await, 301, "the built-in one goes on");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_never_was_good_closes_its_route() {
    let backend = Backend::saying("hello").await;
    let fetches = guest("fetches").await;
    let proxy = proxy_with(&[("fetches", &fetches)], "{plugin: {fetches: {}}}", &backend).await;
    assert_eq!(proxy.status("http://a.example/").await, 503);
    assert_eq!(proxy.status("http://plain.example/").await, 200);
    let plugin = listed(&proxy, "fetches").await;
    assert_eq!(plugin["status"], "disabled");
    let message = plugin["problems"][0]["message"].as_str().expect("a message");
    assert_eq!(
        message,
        "it may not use `fetch`: to allow it, write `plugins: {settings: {fetches: {allow: {fetch: \
         [\"https://host.example\"]}}}}` into the install file with the origins that it may reach, and start weir again"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_half_copied_file_is_not_loaded() {
    use std::io::Write;

    let backend = Backend::saying("hello").await;
    let again = guest("stamps-again").await;
    let proxy = proxy_with(&[("stamps", &guest("stamps").await)], "{plugin: {stamps: {}}}", &backend).await;
    let mut file = std::fs::File::create(proxy.folder.path("plugins/stamps.wasm")).expect("the file can be written");
    let (first, second) = again.split_at(again.len() / 2);
    file.write_all(first).expect("the file can be written");
    // Longer than the proxy waits for the next write, and shorter than it waits for the last.
    let until = Instant::now() + Duration::from_millis(500);
    while Instant::now() < until {
        assert_eq!(proxy.get("http://a.example/").await.header("x-stamp"), "1.0.0");
        assert_eq!(proxy.problems(), [""; 0]);
    }
    file.write_all(second).expect("the file can be written");
    drop(file);
    eventually("the new version", async || proxy.get("http://a.example/").await.header("x-stamp") == "2.0.0").await;
    assert_eq!(proxy.problems(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loop_costs_its_own_route_alone() {
    let backend = Backend::saying("hello").await;
    let proxy = with_misbehaving("loops", &backend).await;
    let stop = Arc::new(AtomicBool::new(false));
    let mut looping = Vec::new();
    for _ in 0..2 {
        let (mut client, stop) = (proxy.client("web").await, Arc::clone(&stop));
        looping.push(tokio::spawn(async move {
            while !stop.load(Ordering::SeqCst) {
                let status = client.get("http://a.example/").await.status;
                assert!(matches!(status, 500 | 503), "{status}");
            }
        }));
    }
    eventually("loops", async || listed(&proxy, "misbehaves").await["failures"].as_u64() > Some(4)).await;
    eventually("no more calls", async || proxy.status("http://a.example/").await == 503).await;
    // Connections are spread over the workers. Where a guest kept its worker, everything there would wait until it had
    // used up its time, 50 ms, several times for one request. A busy machine is slow too, though not every time.
    let mut slow = Vec::new();
    for _ in 0..8 {
        let mut client = proxy.client("web").await;
        let mut times = Vec::new();
        while times.len() < 20 && times.last().is_none_or(|time| *time >= Duration::from_millis(50)) {
            let begun = Instant::now();
            assert_eq!(client.get("http://plain.example/").await.said(), (200, "hello"));
            times.push(begun.elapsed());
        }
        if times.len() == 20 {
            slow.push(times);
        }
    }
    stop.store(true, Ordering::SeqCst);
    for looping in looping {
        looping.await.expect("no answer was good");
    }
    assert!(slow.is_empty(), "{slow:?}");
    assert!(backend.seen().iter().all(|seen| seen.header("host") == "plain.example"));

    proxy.folder.write("plugins/misbehaves.wasm", guest("stamps").await);
    eventually("the mended route", async || proxy.status("http://a.example/").await == 200).await;
    assert_eq!(proxy.get("http://a.example/").await.header("x-stamp"), "1.0.0");
}

/// A call that nobody waits for any more is given up in its middle, and takes nothing along (RUSTSEC-2026-0022).
#[tokio::test(flavor = "multi_thread")]
async fn clients_that_go_while_a_plugin_runs() {
    let backend = Backend::saying("hello").await;
    let proxy = with_misbehaving("loops", &backend).await;
    let address = proxy.address("web");
    for round in 0..40 {
        let mut client = connect(address).await;
        client.write_all(b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n").await.expect("the proxy listens");
        let mut streams = Client::h2c(address).await;
        let request = Request::get("http://a.example/").body(empty()).expect("a good request");
        let sending = tokio::spawn(async move { streams.head(request).await.is_ok() });
        // At another moment of the call each time.
        tokio::time::sleep(Duration::from_millis(round)).await;
        sending.abort();
    }
    for _ in 0..8 {
        assert_eq!(proxy.get("http://plain.example/").await.said(), (200, "hello"));
    }
    proxy.folder.write("plugins/misbehaves.wasm", guest("stamps").await);
    eventually("the mended route", async || proxy.status("http://a.example/").await == 200).await;
    assert!(backend.seen().iter().filter(|seen| seen.header("host") == "a.example").count() <= 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loop_does_not_hold_up_the_end() {
    let folder = Folder::new();
    folder.write("plugins/misbehaves.wasm", guest("misbehaves").await);
    let life_cycle = "transport: {lifeCycle: {graceTimeOut: 200ms}}";
    folder.write("install.yaml", INSTALL.replace("\"127.0.0.1:0\"", &format!("\"127.0.0.1:0\", {life_cycle}")));
    folder.write(
        "routing/a.yaml",
        "
http:
  routers:
    a: {rule: \"Host(`a.example`)\", service: whoami@internal, middlewares: [m]}
    b: {rule: \"Host(`b.example`)\", service: whoami@internal}
  middlewares:
    m: {plugin: {misbehaves: {how: loops}}}
",
    );
    let mut program = Program::start(folder.root(), &["--configFile=install.yaml"]);
    let address = program.address("web").await;
    // Enough for every worker to have some that wait for their turn.
    let looping = (0..16).map(|_| {
        tokio::spawn(async move {
            let mut client = Client::plain(address).await;
            // Until the program ends.
            loop {
                assert_eq!(client.get("http://a.example/").await.status, 500);
            }
        })
    });
    let looping: Vec<_> = looping.collect();
    program.prints("it used up its CPU time for one call").await;
    assert_eq!(Client::plain(address).await.get("http://b.example/").await.status, 200);
    program.signal("TERM");
    assert_eq!(program.ends().await.code(), Some(0), "{}", program.printed());
    for looping in looping {
        looping.await.expect_err("the program has gone");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trap_costs_one_request() {
    let backend = Backend::saying("hello").await;
    let proxy = with_misbehaving("traps", &backend).await;
    let mut client = proxy.client("web").await;
    for _ in 0..3 {
        assert_eq!(client.get("http://a.example/").await.said(), (200, "hello"));
        let trapped = client.send(Request::get("http://a.example/").header("x-trap", "1")).await;
        assert_eq!(trapped.said(), (500, "Internal Server Error"));
    }
    let plugin = listed(&proxy, "misbehaves").await;
    assert_eq!((&plugin["calls"], &plugin["failures"]), (&json!(6), &json!(3)));
    assert_eq!(backend.seen().len(), 3, "what the plugin did not let through has not come through");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_plugin_must_not_do_is_answered_with_500() {
    let backend = Backend::saying("hello").await;
    for how in [
        "growsMemory",
        "injectsHeader",
        "editsContentLength",
        "editsConnection",
        "repliesWithInformational",
        "remembersTooMuch",
        "asksForFilter",
    ] {
        let proxy = with_misbehaving(how, &backend).await;
        for _ in 0..2 {
            let reply = proxy.get("http://a.example/").await;
            assert_eq!(reply.said(), (500, "Internal Server Error"), "{how}");
            assert_eq!((reply.header("x-evil"), reply.header("x-injected")), ("", ""), "{how}");
        }
        assert_eq!(proxy.get("http://plain.example/").await.said(), (200, "hello"), "{how}");
        assert_eq!(listed(&proxy, "misbehaves").await["failures"], 2, "{how}");
        assert!(backend.seen().iter().all(|seen| seen.header("host") == "plain.example"), "{how}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trap_in_the_response_phase_hides_the_response() {
    let backend = Backend::saying("secret").await;
    let proxy = with_misbehaving("trapsOnResponse", &backend).await;
    assert_eq!(proxy.get("http://a.example/").await.said(), (500, "Internal Server Error"));
    assert_eq!(backend.seen().len(), 1);
    assert_eq!(proxy.get("http://plain.example/").await.said(), (200, "secret"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_that_a_plugin_refuses_closes_its_route() {
    let backend = Backend::saying("hello").await;
    for (how, message) in [
        ("trapsInInit", "`init` failed: "),
        ("refusesInInit", "like `refusesInInit`: write another way"),
        (
            "wantsBodies",
            "its plan cannot be used: it asks for request bodies, but not for `on-request`, which would read them",
        ),
        ("nonsense", "read the options: unknown variant `nonsense`"),
        ("[]", "this is a list where text is wanted"),
        ("'', why: not", "`why`"),
    ] {
        let proxy = with_misbehaving(how, &backend).await;
        assert_eq!(proxy.status("http://a.example/").await, 503, "{how}");
        let problems = proxy.problems();
        assert!(problems.iter().any(|problem| problem.contains(message)), "{how}: {problems:?}");
        let placed = "error: routing/a.yaml:6:";
        assert!(problems.iter().any(|problem| problem.starts_with(placed)), "{how}: {problems:?}");
        assert_eq!(proxy.status("http://plain.example/").await, 200, "{how}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_folder_may_be_named() {
    let backend = Backend::saying("hello").await;
    let folder = Folder::new();
    folder.write("elsewhere/stamps.wasm", guest("stamps").await);
    folder.write(
        "routing/a.yaml",
        format!(
            "{}  middlewares:\n    m: {{plugin: {{stamps: {{}}}}}}\n",
            route("a", &backend.url()).replace("service: a}", "service: a, middlewares: [m]}")
        ),
    );
    let install = format!("{INSTALL}plugins: {{directory: $DIR/elsewhere}}\n");
    let proxy = Proxy::start_in(folder, &install).await;
    assert_eq!(proxy.get("http://a.example/").await.header("x-stamp"), "1.0.0");
}
