//! The program: what it prints, how it ends, and what signals do.

use std::path::Path;
use std::time::Duration;

use http::Response;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use crate::support::backend::Backend;
use crate::support::client::Client;
use crate::support::folder::Folder;
use crate::support::guests::guest;
use crate::support::program::{Program, run, run_with};
use crate::support::{full, route, soon};

const INSTALL: &str = r#"
entryPoints:
  web: {address: "127.0.0.1:0"}
providers:
  providersThrottleDuration: 0s
  file: {directory: routing}
"#;

fn folder(routes: &str) -> Folder {
    let folder = Folder::new();
    folder.write("install.yaml", INSTALL);
    folder.write("routing/routes.yaml", routes);
    folder
}

const WHOAMI: &str = "http: {routers: {who: {rule: \"Host(`who.example`)\", service: whoami@internal}}}\n";

#[test]
fn version_and_help() {
    let folder = Folder::new();
    for arguments in [&["version"][..], &["--version"]] {
        let ended = run(folder.root(), arguments);
        assert_eq!((ended.code, ended.stdout), (Some(0), format!("weir {}\n", env!("CARGO_PKG_VERSION"))));
    }
    let ended = run(folder.root(), &["--help"]);
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
    for word in ["check", "plugins", "version", "--configfile"] {
        assert!(ended.stdout.contains(word), "{word} in {}", ended.stdout);
    }
}

#[test]
fn what_nobody_knows() {
    let folder = Folder::new();
    for arguments in [&["chekc"][..], &["--confgFile=x"], &["--configFile"]] {
        let ended = run(folder.root(), arguments);
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""), "{arguments:?}");
        assert!(ended.stderr.starts_with("error: "), "{}", ended.stderr);
    }
}

#[test]
fn a_file_that_is_not_there() {
    let folder = Folder::new();
    for arguments in [&["--configFile=missing.yaml"][..], &["check", "--configfile", "missing.yaml"]] {
        let ended = run(folder.root(), arguments);
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""), "{arguments:?}");
        assert!(
            ended.stderr.starts_with("error: `missing.yaml` cannot be read: it does not exist\n"),
            "{}",
            ended.stderr
        );
    }
}

#[test]
fn check_says_what_would_be_served() {
    let folder = folder(
        "
http:
  routers:
    who:
      rule: Host(`who.example`)
      service: whoami@internal
      middlewares: [secure]
      tls: {}
    low: {rule: PathPrefix(`/`), service: whoami@internal}
  middlewares:
    secure: {headers: {frameDeny: true}}
",
    );
    let ended = run(folder.root(), &["check", "--configFile=install.yaml"]);
    let expected = "`install.yaml` is good. It would serve:\nweb on 127.0.0.1:0\n  \
                    who: Host(`who.example`) with TLS\n    → secure → whoami@internal\n  \
                    low: PathPrefix(`/`)\n    → whoami@internal\n";
    assert_eq!((ended.code, ended.stdout.as_str(), ended.stderr.as_str()), (Some(0), expected, ""));
}

#[test]
fn check_says_everything_that_is_wrong() {
    let folder = folder(
        "
http:
  routers:
    who: {rule: Host(`who.example`), service: whoam}
    typo: {rule: Hots(`who.example`), service: whoami@internal, midlewares: [x]}
  services:
    whoami: {loadBalancer: {servers: [{url: who.example}]}}
",
    );
    folder.write("routing/broken.yaml", "http: [");
    let ended = run(folder.root(), &["check", "--configFile=install.yaml"]);
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""));
    for part in [
        "error: routing/broken.yaml:",
        "error: routing/routes.yaml:4:47: http.routers.who.service: service `whoam` does not exist\n  help: did you mean `whoami`?\n",
        "http.routers.typo.midlewares: ",
        "http.services.whoami.loadBalancer.servers[0].url: ",
        " errors, 0 warnings\n",
    ] {
        assert!(ended.stderr.contains(part), "{part} in {}", ended.stderr);
    }
}

#[test]
fn warnings_are_no_errors() {
    let folder = folder(WHOAMI);
    folder.write("install.yaml", format!("{INSTALL}certificateResolvers: {{}}\n"));
    let ended = run(folder.root(), &["check", "--configFile=install.yaml"]);
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
    let warning = "warning: install.yaml:7:1: certificateResolvers: `certificateResolvers` is not a known key and has no \
                   effect\n  help: did you mean `certificatesResolvers`?\n0 errors, 1 warning\n";
    assert!(ended.stdout.starts_with(warning), "{}", ended.stdout);
    assert!(ended.stdout.contains("`install.yaml` is good. It would serve:\n"), "{}", ended.stdout);
}

#[test]
fn the_file_is_looked_up() {
    let folder = folder(WHOAMI);
    folder.write("traefik.yml", INSTALL);
    let ended = run(folder.root(), &["check"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stdout.starts_with("`./traefik.yml` is good. "), "{}", ended.stdout);
    let ended = run(Folder::new().root(), &["check"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stdout.starts_with("the quick start is good. It would serve:\n"), "{}", ended.stdout);
}

#[tokio::test(flavor = "multi_thread")]
async fn plugins_are_listed() {
    let folder = folder(WHOAMI);
    folder.write("plugins/stamps.wasm", guest("stamps").await);
    let ended = run(folder.root(), &["plugins", "--configFile=install.yaml"]);
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
    for part in [
        "stamps 1.0.0 (middleware, plugins/stamps.wasm)\n  Marks requests and responses with its version\n  may use: nothing\n",
        &format!("basicAuth {} (middleware, built-in)\n", env!("CARGO_PKG_VERSION")),
        "  may use: random, connection\n",
        &format!(
            "digitalocean {} (DNS provider, built-in)\n  Adds and deletes TXT records at DigitalOcean\n  \
             may use: log, clock, timer, secrets, fetch\n  needs the variables: DO_AUTH_TOKEN\n  \
             knows the variables: DO_API_URL, DO_TTL, DO_PROPAGATION_TIMEOUT, DO_POLLING_INTERVAL, DO_HTTP_TIMEOUT\n  \
             may reach: https://api.digitalocean.com; or what DO_API_URL says\n",
            env!("CARGO_PKG_VERSION")
        ),
        "Plugins are found in `plugins`, by their file names.\n",
    ] {
        assert!(ended.stdout.contains(part), "{part} in {}", ended.stdout);
    }
    folder.write("plugins/stamps.wasm", guest("fetches").await);
    let ended = run(folder.root(), &["plugins", "--configFile=install.yaml"]);
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""));
    let error = "stamps - (plugins/stamps.wasm)\n  error: it may not use `fetch`: to allow it, write `plugins: {settings: {stamps: {allow: {fetch: [\"https://host.example\"]}}}}` into the install file with the origins that it may reach, and start weir again\n";
    assert!(ended.stderr.contains(error), "{}", ended.stderr);
}

#[test]
fn ignored_flags_and_variables_are_named() {
    let folder = folder(WHOAMI);
    let arguments = ["check", "--configFile=install.yaml", "--entryPoints.web.address=:80", "--log.level", "DEBUG"];
    let ended = run_with(folder.root(), &arguments, &[("TRAEFIK_API", "true")]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    for ignored in ["the flag --entryPoints.web.address=:80", "the flag --log.level", "the variable TRAEFIK_API"] {
        let warning = format!("warning: {ignored} is ignored, since the configuration comes from `install.yaml`\n");
        assert!(ended.stdout.contains(&warning), "{warning} in {}", ended.stdout);
    }
    let ended = run(Folder::new().root(), &["check", "--api"]);
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.starts_with("error: the flag --api alone cannot configure weir yet"), "{}", ended.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_warns_and_serves() {
    let folder = folder(WHOAMI);
    let mut program = Program::start(folder.root(), &["--configFile", "install.yaml", "--log.level=DEBUG"]);
    let mut client = Client::plain(program.address("web").await).await;
    assert_eq!(client.get("http://who.example/").await.status, 200);
    let printed = program.printed();
    assert!(printed.contains(" WRN the flag --log.level=DEBUG is ignored, since"), "{printed}");
    assert!(printed.contains(" INF started routers=1 disabled=0 stale=0 "), "{printed}");
    assert!(program.is_running());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_in_use() {
    let taken = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = taken.local_addr().expect("a bound socket has an address");
    let folder = folder(WHOAMI);
    folder.write("install.yaml", INSTALL.replace("127.0.0.1:0", &address.to_string()));
    let ended = run(folder.root(), &["--configFile=install.yaml"]);
    assert_eq!(ended.code, Some(1));
    let error = format!("error: failed to start: listening on `{address}` for the entry point `web`: ");
    assert!(ended.stderr.contains(&error), "{}", ended.stderr);

    // A second proxy too, which could share the port in silence.
    drop(taken);
    folder.write("install.yaml", INSTALL);
    let first = Program::start(folder.root(), &["--configFile=install.yaml"]);
    let address = first.address("web").await;
    folder.write("second.yaml", INSTALL.replace("127.0.0.1:0", &address.to_string()));
    let ended = run(folder.root(), &["--configFile=second.yaml"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("failed to start: listening on"), "{}", ended.stderr);
}

/// A server that holds each request until it is told to answer, and says when one has come.
async fn slow() -> (Backend, mpsc::Receiver<()>, mpsc::Sender<()>) {
    let (arrived, arrivals) = mpsc::channel(8);
    let (go_on, waiting) = mpsc::channel::<()>(8);
    let waiting = std::sync::Arc::new(tokio::sync::Mutex::new(waiting));
    let backend = Backend::start(move |_| {
        let (arrived, waiting) = (arrived.clone(), std::sync::Arc::clone(&waiting));
        async move {
            arrived.send(()).await.expect("the test waits");
            waiting.lock().await.recv().await;
            Response::new(full("late"))
        }
    })
    .await;
    (backend, arrivals, go_on)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_waits_for_requests_in_flight() {
    for signal in ["TERM", "INT"] {
        let (backend, mut arrivals, go_on) = slow().await;
        let folder = folder(&route("a", &backend.url()));
        let mut program = Program::start(folder.root(), &["--configFile=install.yaml"]);
        let address = program.address("web").await;
        let request = tokio::spawn(async move { Client::plain(address).await.get("http://a.example/").await });
        soon("the request", arrivals.recv()).await;
        program.signal(signal);
        program.prints("weir ends").await;
        crate::support::eventually("nobody listens any more", async || {
            tokio::net::TcpStream::connect(address).await.is_err()
        })
        .await;
        assert!(program.is_running(), "{signal}");
        go_on.send(()).await.expect("the server waits");
        assert_eq!(request.await.expect("an answer").said(), (200, "late"), "{signal}");
        assert_eq!(program.ends().await.code(), Some(0), "{signal}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_does_not_wait_for_ever() {
    let (backend, mut arrivals, _go_on) = slow().await;
    let folder = folder(&route("a", &backend.url()));
    let life_cycle = "\"127.0.0.1:0\", transport: {lifeCycle: {graceTimeOut: 100ms}}";
    folder.write("install.yaml", INSTALL.replace("\"127.0.0.1:0\"", life_cycle));
    let mut program = Program::start(folder.root(), &["--configFile=install.yaml"]);
    let address = program.address("web").await;
    let request = tokio::spawn(async move { Client::plain(address).await.get("http://a.example/").await });
    soon("the request", arrivals.recv()).await;
    program.signal("TERM");
    assert_eq!(program.ends().await.code(), Some(0));
    program.prints("connections were cut after 100ms").await;
    request.await.expect_err("it got no answer");
}

#[tokio::test(flavor = "multi_thread")]
async fn hanging_up_reloads() {
    let folder = folder(WHOAMI);
    folder.write("install.yaml", INSTALL.replace("{directory", "{watch: false, directory"));
    let mut program = Program::start(folder.root(), &["--configFile=install.yaml"]);
    let mut client = Client::plain(program.address("web").await).await;
    folder.write("routing/more.yaml", WHOAMI.replace("who", "more").replace("moreami", "whoami"));
    assert_eq!(client.get("http://more.example/").await.status, 404);
    program.signal("HUP");
    crate::support::eventually("the new router", async || client.get("http://more.example/").await.status == 200).await;
    program.prints(" INF reloaded routers=2 disabled=0 stale=0 ").await;
    assert!(program.is_running());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_says_what_serves_on() {
    let folder = folder(WHOAMI);
    let routing = |options: &str| {
        let router = "a: {rule: \"Host(`a.example`)\", service: whoami@internal, middlewares: [m]}";
        format!("http: {{routers: {{{router}}}, middlewares: {{m: {{addPrefix: {options}}}}}}}")
    };
    folder.write("routing/a.yaml", routing("{prefix: /a}"));
    let program = Program::start(folder.root(), &["--configFile=install.yaml"]);
    let mut client = Client::plain(program.address("web").await).await;
    folder.write("routing/a.yaml", routing("{prfix: /a}"));
    program.prints(" WRN the last good version serves on: middleware `m`").await;
    program.prints(" INF reloaded routers=2 disabled=0 stale=1 ").await;
    assert_eq!(client.get("http://a.example/").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_are_opened_again() {
    let folder = folder(WHOAMI);
    folder.write(
        "install.yaml",
        format!("{INSTALL}log: {{filePath: weir.log}}\naccessLog: {{filePath: access.log}}\napi: {{}}\n"),
    );
    folder.write("routing/routes.yaml", "http: {routers: {a: {rule: \"PathPrefix(`/`)\", service: noop@internal}}}");
    let program = Program::start(folder.root(), &["--configFile=install.yaml"]);
    crate::support::eventually("the log", async || folder.read("weir.log").contains("address=127.0.0.1:")).await;
    let log = folder.read("weir.log");
    let address = log.split_once("address=").and_then(|(_, rest)| rest.split_whitespace().next()).expect("an address");
    let address = address.parse().expect("an address");
    let rename = |from: &str, to: &str| std::fs::rename(folder.path(from), folder.path(to)).expect("the file is there");
    rename("weir.log", "weir.1");
    rename("access.log", "access.1");
    program.signal("USR1");
    let is_there = |name: &str| Path::new(&folder.path(name)).exists();
    crate::support::eventually("new files", async || is_there("weir.log") && is_there("access.log")).await;
    folder.write("routing/more.yaml", WHOAMI);
    crate::support::eventually("a line", async || folder.read("weir.log").contains(" INF reloaded ")).await;
    assert_eq!(Client::plain(address).await.get("http://who.example/seen").await.status, 200);
    assert_eq!(program.printed(), "", "nothing goes to the terminal");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_access_log_that_cannot_be_written() {
    let folder = folder(WHOAMI);
    folder.write("file", "");
    folder.write("install.yaml", format!("{INSTALL}accessLog: {{filePath: file/access.log}}\n"));
    let begun = std::time::Instant::now();
    let ended = run(folder.root(), &["--configFile=install.yaml"]);
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.contains("the access log `file/access.log` cannot be opened"), "{}", ended.stderr);
    assert!(begun.elapsed() < Duration::from_secs(10));
}
