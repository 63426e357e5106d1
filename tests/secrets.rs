//! Values that an administrator grants a plugin to know: `plugins.settings.<name>.allow.secrets`.

use http::Request;
use serde_json::json;

use crate::support::eventually;
use crate::support::folder::Folder;
use crate::support::guests::guest;
use crate::support::program::run_with;
use crate::support::proxy::{INSTALL, Proxy};

const ROUTES: &str = "
http:
  routers:
    a: {rule: \"Host(`a.example`)\", service: whoami@internal, middlewares: [m]}
    admin: {rule: \"Host(`admin.example`)\", service: api@internal}
  middlewares:
    m: {plugin: {tells: {}}}
";

/// With `allow` for the plugin `tells`, and `token` in the file that `$DIR/token` is.
async fn proxy(allow: &str, token: &str) -> Proxy {
    let folder = Folder::new();
    folder.write("plugins/tells.wasm", guest("tells").await);
    folder.write("token", token);
    folder.write("routing/all.yaml", ROUTES);
    let settings = format!("api: {{}}\nplugins: {{settings: {{tells: {{allow: {allow}}}}}}}\n");
    let install = format!("{INSTALL}{settings}").replace("$DIR", &folder.root().to_string_lossy());
    Proxy::start_in(folder, &install).await
}

async fn told(proxy: &Proxy) -> String {
    proxy.get("http://a.example/").await.text().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_knows_what_it_is_granted_and_nothing_else() {
    let path = std::env::var("PATH").expect("it is set wherever tests run");
    let proxy = proxy("{secrets: {TELLS_TOKEN: {file: $DIR/token}, TELLS_NOTE: {env: PATH}}}", "s3cr3t\r\n\n").await;
    assert_eq!(proxy.problems(), [""; 0]);
    assert_eq!(told(&proxy).await, format!("s3cr3t {path} none"));
    for (name, expected) in [("TELLS_TOKEN", "s3cr3t"), ("HOME", "none"), ("PATH", "none")] {
        let reply = proxy.send(Request::get("http://a.example/").header("x-ask", name)).await;
        assert_eq!(reply.text(), format!("s3cr3t {path} {expected}"), "{name}");
    }
    let listed = proxy.get("http://admin.example/api/plugins").await;
    let list = listed.json();
    let tells = list.as_array().and_then(|list| list.iter().find(|plugin| plugin["name"] == "tells"));
    assert_eq!(tells.expect("it is listed")["granted"], json!(["secret TELLS_NOTE", "secret TELLS_TOKEN"]));
    assert!(!listed.text().contains("s3cr3t"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_plugin_can_do_without_need_not_be_granted() {
    let proxy = proxy("{secrets: {TELLS_TOKEN: {file: $DIR/token}}}", "s3cr3t").await;
    assert_eq!((proxy.problems(), told(&proxy).await), (Vec::new(), "s3cr3t none none".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn another_value_is_taken_and_a_missing_one_leaves_the_one_before() {
    let proxy = proxy("{secrets: {TELLS_TOKEN: {file: $DIR/token}}}", "first").await;
    assert_eq!(told(&proxy).await, "first none none");
    proxy.folder.write("token", "second");
    eventually("the other value", async || told(&proxy).await == "second none none").await;

    proxy.folder.remove("token");
    eventually("a problem", async || !proxy.problems().is_empty()).await;
    let problem = "reading the secret of `plugins.settings.tells.allow.secrets.TELLS_TOKEN`";
    assert!(proxy.problems()[0].contains(problem), "{:?}", proxy.problems());
    assert_eq!(told(&proxy).await, "second none none");

    proxy.folder.write("token", "third");
    eventually("a value again", async || told(&proxy).await == "third none none").await;
    assert_eq!(proxy.problems(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_without_its_secret_does_not_serve_and_says_what_to_write() {
    let line = "it needs the secret `TELLS_TOKEN`: to allow it, ";
    let unset = "reading the secret of `plugins.settings.tells.allow.secrets.TELLS_TOKEN`: the variable `WEIR_UNSET` is not set";
    for (allow, expected) in [("{}", line), ("{secrets: {TELLS_TOKEN: {env: WEIR_UNSET}}}", unset)] {
        let proxy = proxy(allow, "s3cr3t").await;
        assert_eq!(proxy.status("http://a.example/").await, 503, "{allow}");
        let problems = proxy.problems();
        assert!(problems.iter().any(|problem| problem.contains(expected)), "{allow}: {problems:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tools_take_secrets_from_the_environment() {
    let folder = Folder::new();
    folder.write("tells.wasm", guest("tells").await);
    let ended = run_with(folder.root(), &["plugin", "run", "tells.wasm"], &[("TELLS_TOKEN", "s3cr3t")]);
    assert!(ended.stdout.contains("s3cr3t none none"), "{ended:?}");
    let ended = run_with(folder.root(), &["plugin", "run", "tells.wasm"], &[]);
    let missing = "the secret `TELLS_TOKEN` is not set: write `TELLS_TOKEN=…` in front of the command";
    assert!(ended.code == Some(1) && ended.stderr.contains(missing), "{ended:?}");
}
