//! DNS providers as components: what they get, what they must not, and the built-in ones against fake APIs.

mod digitalocean;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::{Response, StatusCode};
use serde_json::json;
use tokio::sync::OnceCell;
use tokio::time::Instant;
use weir::config::install::Variable;
use weir::plugin::{Challenge, ErrorKind, Host, Origin, Plugin, Provider, ProviderError, Variables};

use crate::support::backend::Backend;
use crate::support::folder::Folder;
use crate::support::guests::guest;
use crate::support::proxy::{self, INSTALL, Proxy};
use crate::support::{empty, full, route};

const CANARY: &str = "canary-7f3a9c-token";

async fn host() -> Arc<Host> {
    static HOST: OnceCell<Arc<Host>> = OnceCell::const_new();

    let host = HOST
        .get_or_init(async || Host::new(Some(proxy::cache()), None, 1, &BTreeMap::new()).expect("a WebAssembly engine"))
        .await;
    Arc::clone(host)
}

async fn loaded(name: &str) -> Arc<Plugin> {
    let origin = Origin::File(PathBuf::from(format!("plugins/{name}.wasm")));
    let plugin = host().await.load(name, &guest(name).await, origin).await;
    Arc::new(plugin.expect("a plugin that can be loaded"))
}

/// As if these were the environment.
fn variables(environment: &[(&str, &str)]) -> Variables {
    Variables::new(BTreeMap::new(), environment.iter().map(|(name, value)| (name.into(), value.into())))
}

/// The provider that oversteps in this way; the one address that it may reach is empty for those of its description.
async fn overstepping(how: &str, address: &str) -> Provider {
    let environment = [
        ("OVERSTEPS_HOW", how),
        ("OVERSTEPS_URL", address),
        ("OVERSTEPS_TOKEN", CANARY),
        ("OTHER_TOKEN", "of somebody else"),
        ("PATH", "/bin"),
    ];
    let provider = host().await.provider(&loaded("oversteps").await, variables(&environment)).await;
    provider.expect("its variables are there")
}

fn challenge() -> Challenge {
    Challenge {
        fqdn: "_acme-challenge.www.example.com.".to_owned(),
        zone: "example.com.".to_owned(),
        value: "LPsIwTo7o8BoG0-vjCyGQGBWSVIPxI-i_X336eUOQZo".to_owned(),
        domain: "www.example.com".to_owned(),
        token: "evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA".to_owned(),
        key_authorization: "evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA.9jg46WB3rR_AHD-EBXdN7cBkH1WOu0tA3M9fm21mqTI"
            .to_owned(),
    }
}

/// What comes of overstepping in this way.
async fn outcome(how: &str, address: &str) -> Result<String, ProviderError> {
    overstepping(how, address).await.present(&challenge()).await
}

#[tokio::test]
async fn a_provider_gets_the_challenge_and_hands_a_handle_on() {
    let provider = overstepping("handsOver", "").await;
    assert_eq!(provider.name(), "oversteps");
    let timing = provider.timing();
    assert_eq!(
        (timing.propagation_timeout, timing.polling_interval),
        (Duration::from_secs(60), Duration::from_secs(2))
    );
    assert!(!timing.sequential);
    let handle = provider.present(&challenge()).await.expect("a handle");
    let expected = "_acme-challenge.www.example.com. example.com. LPsIwTo7o8BoG0-vjCyGQGBWSVIPxI-i_X336eUOQZo";
    assert_eq!(handle, expected);
    let error = provider.cleanup(&challenge(), &handle).await.expect_err("it refuses on purpose");
    assert_eq!((error.kind, error.to_string()), (ErrorKind::Conflict, format!("oversteps: forget {expected}")));
}

#[tokio::test(flavor = "multi_thread")]
async fn many_calls_run_at_the_same_time() {
    let provider = Arc::new(overstepping("handsOver", "").await);
    let calls = (0..50).map(|_| {
        let provider = Arc::clone(&provider);
        tokio::spawn(async move { provider.present(&challenge()).await })
    });
    for call in calls.collect::<Vec<_>>() {
        call.await.expect("no panic").expect("a handle");
    }
}

#[tokio::test]
async fn only_declared_origins_are_reached() {
    for (how, kind, words) in [
        (
            "undeclaredHost",
            ErrorKind::Denied,
            "reach `https://evil.example`: the plugin may reach `https://api.example`, ",
        ),
        ("undeclaredHost", ErrorKind::Denied, "its description must have `https://evil.example` among its origins"),
        ("undeclaredPort", ErrorKind::Denied, "reach `https://api.example:8443`: "),
        ("undeclaredScheme", ErrorKind::Denied, "reach `http://api.example:443`: "),
        ("privateName", ErrorKind::Denied, "reach `localhost`, which is at "),
        ("privateName", ErrorKind::Denied, "only a host that a variable of the plugin names may be outside the public"),
        ("privateAddress", ErrorKind::Denied, "reach `127.0.0.1`, which is at 127.0.0.1: "),
        ("metadata", ErrorKind::Denied, "reach `169.254.169.254`, which is at 169.254.169.254: "),
        ("userBeforeHost", ErrorKind::Internal, "it has a user or a password before its host"),
        ("otherScheme", ErrorKind::Internal, "ask for "),
        ("noUrl", ErrorKind::Internal, "ask for what is no URL"),
    ] {
        let error = outcome(how, "").await.expect_err(how);
        assert_eq!(error.kind, kind, "{how}: {error}");
        assert!(error.message.contains(words), "{how}: {error}");
    }
}

#[tokio::test]
async fn an_address_in_a_variable_takes_the_place_of_declared_ones() {
    let backend = Backend::saying("hello").await;
    assert_eq!(outcome("reaches", &backend.url()).await.as_deref(), Ok("200 5"));
    assert_eq!(backend.take()[0].header("x-token"), CANARY);
    for how in ["undeclaredPort", "undeclaredHost", "privateName", "metadata"] {
        let error = outcome(how, &backend.url()).await.expect_err(how);
        assert_eq!(error.kind, ErrorKind::Denied, "{how}: {error}");
        assert!(error.message.contains("its variables name where it goes"), "{how}: {error}");
    }
    assert!(backend.seen().is_empty());
    for address in ["localhost:8053", "ftp://localhost", "http://user@localhost"] {
        let environment = [("OVERSTEPS_TOKEN", CANARY), ("OVERSTEPS_URL", address)];
        let provider = host().await.provider(&loaded("oversteps").await, variables(&environment)).await;
        let error = provider.expect_err(address).to_string();
        assert!(error.starts_with("oversteps: the value of `OVERSTEPS_URL` cannot be used: "), "{error}");
    }
}

#[tokio::test]
async fn redirects_are_answers() {
    let other = Backend::saying("the other").await;
    let location = other.url();
    let backend = Backend::start(move |_| {
        let redirect = Response::builder().status(StatusCode::FOUND).header("location", &location).body(empty());
        std::future::ready(redirect.expect("a good response"))
    });
    assert_eq!(outcome("reaches", &backend.await.url()).await.as_deref(), Ok("302 0"));
    assert!(other.seen().is_empty());
}

#[tokio::test]
async fn requests_that_could_be_read_in_two_ways_are_not_sent() {
    let backend = Backend::saying("hello").await;
    for (how, kind, words) in [
        ("framing", ErrorKind::Internal, "the header `transfer-encoding` is for the proxy to set"),
        ("otherHost", ErrorKind::Internal, "the header `host` is for the proxy to set"),
        ("splits", ErrorKind::Internal, "the value of `x-a` cannot be sent"),
        ("tunnels", ErrorKind::Internal, "the method \"CONNECT\" cannot be used"),
        ("hugeRequest", ErrorKind::TooLarge, "send 2097152 bytes: at most 1048576 are sent"),
        ("fileInPlaceOfPem", ErrorKind::Internal, "use the authority: it is no PEM text"),
    ] {
        let error = outcome(how, &backend.url()).await.expect_err(how);
        assert_eq!(error.kind, kind, "{how}: {error}");
        assert!(error.message.contains(words), "{how}: {error}");
        assert!(!error.message.contains("canary"), "{how}: {error}");
    }
    assert!(backend.seen().is_empty());
}

#[tokio::test]
async fn answers_that_are_too_long_or_too_late_are_errors() {
    let huge = Backend::start(|_| std::future::ready(Response::new(full(vec![b'x'; 5 << 20])))).await;
    let error = outcome("reaches", &huge.url()).await.expect_err("5 MiB");
    assert_eq!(error.kind, ErrorKind::TooLarge, "{error}");
    let silent = Backend::start(|_| std::future::pending()).await;
    let error = outcome("reaches", &silent.url()).await.expect_err("no answer");
    assert_eq!(error.kind, ErrorKind::Timeout, "{error}");
    let gone = silent.url();
    drop(silent);
    let error = outcome("reaches", &gone).await.expect_err("nobody listens");
    assert_eq!(error.kind, ErrorKind::Unavailable, "{error}");
}

#[tokio::test]
async fn there_is_no_way_around_the_host() {
    let backend = Backend::saying("hello").await;
    for (how, handle) in [
        ("readsVariables", "[] of 0"),
        ("readsFiles", "false false"),
        ("runsPrograms", "false"),
        ("dialsByItself", "false"),
    ] {
        assert_eq!(outcome(how, &backend.url()).await.as_deref(), Ok(handle), "{how}");
    }
    assert_eq!(backend.connections(), 0);
}

#[tokio::test]
async fn a_call_ends_whatever_it_does() {
    for (how, kind, words) in [
        ("traps", ErrorKind::Internal, "oversteps: wasm trap: wasm `unreachable` instruction executed"),
        ("growsMemory", ErrorKind::Internal, "oversteps: "),
        ("hugeHandle", ErrorKind::TooLarge, "oversteps: its handle has 5000 bytes: at most 4096 are kept"),
        ("loops", ErrorKind::Timeout, "oversteps: it used up its CPU time for one call"),
        ("sleepsForEver", ErrorKind::Timeout, "oversteps: it wants to wait longer than a call may take"),
    ] {
        let error = outcome(how, "").await.expect_err(how);
        assert_eq!(error.kind, kind, "{how}: {error}");
        assert!(error.message.starts_with(words), "{how}: {error}");
    }
    for how in ["loops", "sleepsAgainAndAgain", "sleepsByItself"] {
        let provider = overstepping(how, "").await.time_limit(Duration::from_millis(300));
        let begun = Instant::now();
        let error = provider.present(&challenge()).await.expect_err(how);
        assert_eq!(error.kind, ErrorKind::Timeout, "{how}: {error}");
        assert!(begun.elapsed() < Duration::from_secs(3), "{how}: {:?}", begun.elapsed());
    }
}

#[tokio::test]
async fn a_provider_that_cannot_start_says_why() {
    let plugin = loaded("oversteps").await;
    for (environment, words) in [
        (&[][..], "oversteps: some credentials information are missing: OVERSTEPS_TOKEN"),
        (&[("OVERSTEPS_HOW", "refusesInInit"), ("OVERSTEPS_TOKEN", CANARY)], {
            "oversteps: use the token $OVERSTEPS_TOKEN"
        }),
        (&[("OVERSTEPS_HOW", "trapsInInit"), ("OVERSTEPS_TOKEN", CANARY)], {
            "oversteps: wasm trap: wasm `unreachable` instruction executed"
        }),
        (&[("OVERSTEPS_HOW", "loopsInInit"), ("OVERSTEPS_TOKEN", CANARY)], {
            "oversteps: it used up its CPU time for one call"
        }),
        (&[("OVERSTEPS_TOKEN_FILE", "/missing/token")], {
            "oversteps: the file `/missing/token` of `OVERSTEPS_TOKEN` cannot be read: it does not exist"
        }),
    ] {
        let (log, guard) = Log::collect();
        let error = host().await.provider(&plugin, variables(environment)).await.expect_err(words);
        assert_eq!(error.to_string(), words);
        assert!(error.downcast_ref().is_some_and(|error: &ProviderError| error.is_of_init), "{words}");
        drop(guard);
        let says_what_it_panicked_of = log.text().contains("on purpose");
        assert_eq!(says_what_it_panicked_of, words.contains("wasm trap"), "{}", log.text());
    }
    let own = BTreeMap::from([("OVERSTEPS_TOKE".to_owned(), Variable::Value(CANARY.to_owned()))]);
    let error = host().await.provider(&plugin, Variables::new(own, [])).await.expect_err("a typing error");
    let words =
        "oversteps: there is no variable `OVERSTEPS_TOKE`; it knows OVERSTEPS_TOKEN, OVERSTEPS_HOW, OVERSTEPS_URL";
    assert_eq!(error.to_string(), words);
}

#[tokio::test]
async fn times_that_make_no_sense_are_bounded() {
    let timing = *overstepping("neverRests", "").await.timing();
    assert_eq!(timing.polling_interval, Duration::from_secs(1));
    assert_eq!(timing.propagation_timeout, Duration::from_secs(24 * 60 * 60));
    assert!(timing.sequential);
}

#[tokio::test]
async fn a_secret_in_a_file_is_read_again_for_each_call() {
    let backend = Backend::saying("hello").await;
    let folder = Folder::new();
    let file = folder.write("token", "of monday\n");
    let own = BTreeMap::from([("OVERSTEPS_TOKEN".to_owned(), Variable::File(file))]);
    let environment =
        [("OVERSTEPS_TOKEN".into(), "of the process".into()), ("OVERSTEPS_URL".into(), backend.url().into())];
    let provider = host().await.provider(&loaded("oversteps").await, Variables::new(own, environment)).await;
    let provider = provider.expect("its variables are there");
    for day in ["of monday", "of tuesday"] {
        folder.write("token", format!("{day}\r\n"));
        provider.present(&challenge()).await.expect("a handle");
        assert_eq!(backend.last().header("x-token"), day);
    }
    folder.remove("token");
    let error = provider.present(&challenge()).await.expect_err("the file has gone");
    assert_eq!(error.kind, ErrorKind::InvalidConfig, "{error}");
}

#[tokio::test]
async fn texts_of_a_provider_are_one_line_and_give_nothing_away() {
    let error = outcome("controlCharacters", "").await.expect_err("on purpose");
    let words = "oversteps: say  2026-01-01 INF all is well [31m  $OVERSTEPS_TOKEN";
    assert_eq!((error.kind, error.message.as_str()), (ErrorKind::RateLimited, words));
    assert_eq!(error.retry_after, Some(Duration::from_secs(24 * 60 * 60)), "not for ever");
    assert!(!error.is_of_init, "there may be a record to delete");
    let error = outcome("hugeError", "").await.expect_err("on purpose");
    assert_eq!((error.kind, error.message.chars().count()), (ErrorKind::NotFound, 1000));
}

#[tokio::test]
async fn no_log_has_a_secret() {
    let backend = Backend::saying("hello").await;
    let (log, collecting) = Log::collect();
    let provider = overstepping("logsSecrets", "").await;
    provider.present(&challenge()).await.expect("a handle");
    assert!(!format!("{provider:?}").contains("canary"));
    outcome("reaches", &backend.url()).await.expect("an answer");
    outcome("undeclaredHost", "").await.expect_err("it is not declared");
    outcome("controlCharacters", "").await.expect_err("on purpose");
    drop(collecting);
    let text = log.text();
    assert!(text.contains("the token is $OVERSTEPS_TOKEN token=\"$OVERSTEPS_TOKEN\""), "{text}");
    assert!(text.contains("it was kept from what it wants: reach `https://evil.example`"), "{text}");
    assert!(!text.contains("canary"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_kind_of_plugin_has_its_place() {
    let error = host().await.provider(&loaded("stamps").await, variables(&[])).await.expect_err("a middleware");
    let words = "the plugin `stamps` is a middleware and no DNS provider: it belongs into `http.middlewares`";
    assert_eq!(error.to_string(), words);

    let backend = Backend::saying("hello").await;
    let folder = Folder::new();
    folder.write("plugins/oversteps.wasm", guest("oversteps").await);
    let middlewares = "  middlewares:\n    m: {plugin: {oversteps: {any: option}}}\n  services:";
    let routes = route("a", &backend.url()).replace("service: a}", "service: a, middlewares: [m]}");
    folder.write("routing/a.yaml", routes.replace("  services:", middlewares));
    let proxy = Proxy::start_in(folder, INSTALL).await;
    let words = "http.middlewares.m.plugin.oversteps: the plugin `oversteps` is a DNS provider and no middleware: it belongs \
                 into `dnsChallenge.provider` of a certificates resolver";
    assert!(proxy.problems().iter().any(|problem| problem.contains(words)), "{:?}", proxy.problems());
    assert_eq!(proxy.status("http://a.example/").await, 503);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_says_what_a_provider_asks_for() {
    let folder = Folder::new();
    folder.write("plugins/oversteps.wasm", guest("oversteps").await);
    folder.write(
        "routing/admin.yaml",
        "http: {routers: {admin: {rule: \"Host(`admin.example`)\", service: api@internal}}}",
    );
    let proxy = Proxy::start_in(folder, &format!("{INSTALL}api: {{}}\n")).await;
    let list = proxy.get("http://admin.example/api/plugins").await.json();
    let plugin =
        list.as_array().expect("a list").iter().find(|plugin| plugin["name"] == "oversteps").expect("it is listed");
    assert_eq!((&plugin["kind"], &plugin["status"]), (&json!("dns-provider"), &json!("enabled")));
    let variable = |name: &str| {
        let variables = plugin["variables"].as_array().expect("a list");
        variables.iter().find(|variable| variable["name"] == name).cloned().unwrap_or_default()
    };
    assert_eq!(variable("OVERSTEPS_TOKEN"), json!({"name": "OVERSTEPS_TOKEN", "required": true, "url": false}));
    assert_eq!(variable("OVERSTEPS_URL"), json!({"name": "OVERSTEPS_URL", "required": false, "url": true}));
    assert_eq!(plugin["origins"][0], "https://api.example");
}

#[tokio::test]
async fn a_call_writes_so_many_lines_and_no_more() {
    let (log, collecting) = Log::collect();
    outcome("floodsLog", "").await.expect("a handle");
    drop(collecting);
    assert_eq!(log.text().matches("again and again").count(), 100);
}

/// What is logged, for a look at it.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    /// From now on and on this thread, until the second is dropped.
    fn collect() -> (Self, tracing::subscriber::DefaultGuard) {
        let log = Self::default();
        let subscriber = tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(log.clone());
        (log, tracing::subscriber::set_default(subscriber.finish()))
    }

    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()).expect("a log in UTF-8")
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> tracing_subscriber::fmt::MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}
