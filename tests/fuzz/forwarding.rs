//! The fields that tell servers where a request came from: no client decides them.

use proptest::collection::vec;
use proptest::prelude::{Strategy, any, prop_assert, prop_assert_eq};
use proptest::sample::select;
use proptest::test_runner::TestRunner;

use super::cases;
use crate::support::backend::Backend;
use crate::support::client::raw;
use crate::support::proxy::{INSTALL, Proxy};
use crate::support::route;

const MANAGED: &[&str] = &[
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-method",
    "x-forwarded-port",
    "x-forwarded-prefix",
    "x-forwarded-proto",
    "x-forwarded-server",
    "x-forwarded-tls-client-cert",
    "x-forwarded-uri",
    "x-real-ip",
];

const OURS: [&str; 6] =
    ["x-forwarded-for", "x-forwarded-host", "x-forwarded-port", "x-forwarded-proto", "x-forwarded-server", "x-real-ip"];

/// A managed name as somebody might write it who wants it to pass.
fn name() -> impl Strategy<Value = String> {
    (select(MANAGED), any::<u32>()).prop_map(|(name, choices)| {
        let spelled = name.chars().enumerate().map(|(at, letter)| match (letter, choices >> (at % 32) & 1) {
            (letter, 0) => letter,
            ('-', _) => '_',
            (letter, _) => letter.to_ascii_uppercase(),
        });
        spelled.collect()
    })
}

fn field() -> impl Strategy<Value = String> {
    let value =
        select(&["6.6.6.6", "https", "evil.example", "1", "", "127.0.0.1, 6.6.6.6", "\"", "for=6.6.6.6;proto=https"]);
    let connection = vec(name(), 1..3).prop_map(|names| format!("Connection: {}", names.join(" ,\t")));
    let forged = (name(), value).prop_map(|(name, value)| format!("{name}: {value}"));
    proptest::prop_oneof![4 => forged, 1 => connection]
}

#[test]
fn no_client_decides_them() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let backend = runtime.block_on(Backend::saying("in"));
    let proxy = runtime.block_on(Proxy::start(INSTALL, &[("a.yaml", &route("a", &backend.url()))]));
    let mut runner = TestRunner::new(cases(200));
    let outcome = runner.run(&vec(field(), 0..8), |fields| {
        let fields: String = fields.iter().map(|field| format!("{field}\r\n")).collect();
        let request = format!("GET / HTTP/1.1\r\nHost: a.example\r\n{fields}Connection: close\r\n\r\n");
        let answer = runtime.block_on(raw(proxy.address("web"), &request));
        let Some(seen) = backend.take().pop() else {
            prop_assert!(answer.starts_with("HTTP/1.1 4"), "{}", answer);
            return Ok(());
        };
        for (name, expected) in [
            ("x-forwarded-for", "127.0.0.1"),
            ("x-forwarded-host", "a.example"),
            ("x-forwarded-port", "80"),
            ("x-forwarded-proto", "http"),
            ("x-real-ip", "127.0.0.1"),
        ] {
            let values: Vec<_> = seen.headers.get_all(name).iter().collect();
            prop_assert_eq!(values, [expected], "{}", name);
        }
        for name in seen.headers.keys().map(|name| name.as_str()).filter(|name| !OURS.contains(name)) {
            let folded = name.replace('_', "-");
            prop_assert!(!MANAGED.contains(&folded.as_str()), "{} reached the server", name);
        }
        Ok(())
    });
    assert!(outcome.is_ok(), "{outcome:?}");
}
