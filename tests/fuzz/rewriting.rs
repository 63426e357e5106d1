//! Paths on their way through routers and middlewares: no spelling and no rewriting leads past a stricter router.

use proptest::collection::vec;
use proptest::prelude::{Strategy, prop_assert, prop_assert_eq};
use proptest::sample::select;
use proptest::test_runner::TestRunner;

use super::cases;
use super::targets::flaw;
use crate::support::backend::Backend;
use crate::support::client::raw;
use crate::support::proxy::{INSTALL, Proxy};

const SEGMENTS: &[&str] = &[
    "",
    ".",
    "..",
    "%2e",
    "%2E%2e",
    ".%2e",
    "admin",
    "%61dmin",
    "Admin",
    "app",
    "%61pp",
    "v1",
    "x",
    "x;y",
    "..;",
    "%252e",
    "%2F",
    "%5c",
    "..%2f",
    "admin%2f..",
    "%20",
];

/// Hosts whose middlewares rewrite, and one without; `/admin` is for nobody on all of them.
const ROUTES: &str = "
http:
  routers:
    open: {rule: \"Host(`plain.example`)\", service: s}
    strip: {rule: \"Host(`strip.example`)\", service: s, middlewares: [strip]}
    add: {rule: \"Host(`add.example`)\", service: s, middlewares: [add]}
    both: {rule: \"Host(`both.example`)\", service: s, middlewares: [strip, add, strip]}
    strict: {rule: \"HostRegexp(`^[a-z]+.example$`) && PathPrefix(`/admin`)\", priority: 1000, service: s, middlewares: [nobody]}
  middlewares:
    strip: {stripPrefix: {prefixes: [/app, /v1/, /x]}}
    add: {addPrefix: {prefix: /v1/../app/.}}
    nobody: {ipAllowList: {sourceRange: 192.0.2.1}}
  services:
    s: {loadBalancer: {servers: [{url: \"$URL\"}]}}
";

fn target() -> impl Strategy<Value = String> {
    let path = vec(select(SEGMENTS), 0..6).prop_map(|segments| format!("/{}", segments.join("/")));
    (path, select(&["", "?", "?/../admin", "?a=..&b=//"])).prop_map(|(path, query)| format!("{path}{query}"))
}

#[test]
fn no_spelling_leads_past_a_stricter_router() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let backend = runtime.block_on(Backend::saying("in"));
    let proxy = runtime.block_on(Proxy::start(INSTALL, &[("a.yaml", &ROUTES.replace("$URL", &backend.url()))]));
    assert_eq!(proxy.problems(), [""; 0]);
    let hosts = select(&["plain", "strip", "add", "both"]);
    let mut runner = TestRunner::new(cases(400));
    let outcome = runner.run(&(hosts, target()), |(host, target)| {
        let request = format!("GET {target} HTTP/1.1\r\nHost: {host}.example\r\nConnection: close\r\n\r\n");
        let answer = runtime.block_on(raw(proxy.address("web"), &request));
        let Some(seen) = backend.take().pop() else {
            prop_assert!(answer.starts_with("HTTP/1.1 40"), "{}", answer);
            return Ok(());
        };
        let path = seen.target.split('?').next().unwrap_or_default();
        prop_assert_eq!(flaw(path), None, "{}", path);
        if host == "plain" {
            prop_assert!(path != "/admin" && !path.starts_with("/admin/"), "{}", path);
        }
        Ok(())
    });
    assert!(outcome.is_ok(), "{outcome:?}");
}
