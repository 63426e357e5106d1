//! Plugins whose answers nobody may believe: fields, paths, methods and statuses that HTTP does not know or that are not
//! theirs to say, answers against the rules of components, and floods of the log.

use http::Request;

use super::Hostile;
use crate::support::backend::Backend;
use crate::support::client::{Client, raw};
use crate::support::eventually;
use crate::support::folder::Folder;
use crate::support::guests::guest;
use crate::support::program::Program;
use crate::support::proxy::{INSTALL, Proxy};

/// Where a plugin may say something of a message.
const PLACES: [&str; 6] = ["request", "reply", "response", "lateReply", "planOfRequests", "planOfResponses"];
const GRANT: &str = "plugins: {settings: {answers: {allow: {forwardingHeaders: true}}}}\n";

/// One middleware for each, so that none is called too seldom because of the others.
fn all(places: &[&str], what: &[&str]) -> Vec<String> {
    places.iter().flat_map(|by| what.iter().map(move |what| format!("by: {by}, {what}"))).collect()
}

async fn answering(options: &[String], install: &str) -> Hostile {
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    Hostile::start("answers", &options, install).await
}

/// Asks for each middleware's route in both versions of HTTP. Each answer is that of the proxy's own, and nothing of what the
/// plugin wanted is in it or has come to the server.
async fn all_are_refused(hostile: &Hostile, options: &[String]) {
    for (number, options) in options.iter().enumerate() {
        // A plan that cannot be used disables its middleware.
        let (status, text) = match options.contains("planOf") {
            true => (503, "this router is disabled by an error in its configuration"),
            false => (500, "Internal Server Error"),
        };
        let before = seen(hostile, number);
        let request = format!("GET / HTTP/1.1\r\nHost: a{number}.example\r\nConnection: close\r\n\r\n");
        let answer = raw(hostile.proxy.address("web"), &request).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{options}: {answer}");
        assert!(answer.trim_end().ends_with(&format!("\r\n\r\n{text}")), "{options}: {answer}");
        assert!(!answer.contains("evil"), "{options}: {answer}");
        let reply = Client::h2c(hostile.proxy.address("web")).await.get(&format!("http://a{number}.example/")).await;
        assert_eq!((reply.status, reply.text().trim_end()), (status, text), "{options}");
        let has_come = options.contains("by: response") || options.contains("by: lateReply");
        assert_eq!(seen(hostile, number) - before, if has_come { 2 } else { 0 }, "{options}");
    }
}

/// How many requests for the route of that number have come to the server.
fn seen(hostile: &Hostile, number: usize) -> usize {
    let host = format!("a{number}.example");
    hostile.backend.seen().iter().filter(|seen| seen.header("host") == host).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn fields_that_are_none_are_not_sent() {
    let fields = [
        r#"set: [["x-a", "1\r\nx-evil: 1"]]"#,
        r#"append: [["x-a", "1\nx-evil: 1"]]"#,
        r#"set: [["x-a", "1\r\rx-evil"]]"#,
        r#"set: [["x-a", "a\0evil"]]"#,
        r#"set: [["x-a", "evil\x7f"]]"#,
        r#"set: [["x evil", "1"]]"#,
        r#"set: [["x-evil:", "1"]]"#,
        r#"append: [["x-a\r\nx-evil", "1"]]"#,
        r#"append: [["", "evil"]]"#,
        r#"set: [[":path", "/evil"]]"#,
        r#"set: [[":status", "299"]]"#,
        r#"append: [["evil-\u00fc", "1"]]"#,
    ];
    let options = all(&PLACES, &fields);
    let hostile = answering(&options, "").await;
    all_are_refused(&hostile, &options).await;
    hostile
        .beside("fields that are none", async || {
            for (number, options) in options.iter().enumerate() {
                let status = hostile.ask(number).await.status;
                assert!(matches!(status, 500 | 503), "{options}: {status}");
            }
        })
        .await;

    // In HTTP/2 a name in upper case would be malformed (RFC 9113, section 8.2.1).
    let hostile = answering(&all(&["response"], &[r#"set: [["X-Upper", "1"]]"#]), "").await;
    let mut streams = Client::h2c(hostile.proxy.address("web")).await;
    assert_eq!(streams.get("http://a0.example/").await.header("x-upper"), "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn fields_of_the_connection_cannot_be_edited() {
    let mut edits = Vec::new();
    for (name, value) in [
        ("Content-Length", "7"),
        ("transfer-encoding", "chunked"),
        ("connection", "x-real-ip"),
        ("upgrade", "h2c"),
        ("keep-alive", "timeout=9"),
        ("proxy-connection", "close"),
        ("te", "trailers"),
        ("trailer", "content-length"),
    ] {
        edits.push(format!("set: [[{name}, {value}]]"));
        edits.push(format!("append: [[{name}, {value}]]"));
    }
    let edits: Vec<&str> = edits.iter().map(String::as_str).collect();
    let mut options = all(&PLACES, &edits);
    let removed = ["remove: [content-length]", "remove: [Transfer-Encoding]", "remove: [connection]"];
    options.extend(all(&["request", "response", "planOfRequests", "planOfResponses"], &removed));
    // Whatever is granted.
    let hostile = answering(&options, GRANT).await;
    all_are_refused(&hostile, &options).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fields_that_say_who_asks_are_granted() {
    let edits = [
        "set: [[Host, evil.example]]",
        "set: [[x-forwarded-for, 192.0.2.7]]",
        "append: [[x-forwarded-for, 192.0.2.7]]",
        "remove: [x-forwarded-for]",
        "set: [[X-Forwarded-Host, evil.example]]",
        "set: [[x-forwarded-proto, https]]",
        "set: [[x_forwarded_for, 192.0.2.7]]",
        "set: [[x-real-ip, 192.0.2.7]]",
        "append: [[forwarded, for=192.0.2.7]]",
    ];
    let mut options = all(&["request", "planOfRequests"], &edits);
    options.push("by: request, authority: evil.example".to_owned());
    let hostile = answering(&options, "").await;
    all_are_refused(&hostile, &options).await;
    let problem = hostile.proxy.problems().into_iter().find(|problem| problem.contains("x-real-ip"));
    let line =
        "to allow it, write `plugins: {settings: {answers: {allow: {forwardingHeaders: true}}}}` into the install file";
    assert!(problem.as_ref().is_some_and(|problem| problem.contains(line)), "{problem:?}");

    let hostile = answering(&options, GRANT).await;
    assert_eq!(hostile.proxy.problems(), [""; 0]);
    for (number, options) in options.iter().enumerate() {
        assert_eq!(hostile.ask(number).await.said(), (200, "hello"), "{options}");
        let seen = hostile.backend.last();
        let found: Vec<&str> = seen.headers.values().map(|value| value.to_str().expect("ASCII")).collect();
        match options.contains("remove") {
            true => assert_eq!(seen.header("x-forwarded-for"), "", "{options}"),
            false => {
                let value = options.rsplit([',', ':']).next().expect("a value").trim_matches([' ', ']']);
                assert!(found.iter().any(|found| found.contains(value)), "{options}: {found:?}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn statuses_that_end_nothing_are_not_sent() {
    let statuses = [0, 1, 99, 100, 101, 103, 199, 600, 999, 1000, 65535].map(|status| format!("status: {status}"));
    let statuses: Vec<&str> = statuses.iter().map(String::as_str).collect();
    let options = all(&["reply", "response", "lateReply"], &statuses);
    let hostile = answering(&options, "").await;
    all_are_refused(&hostile, &options).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_no_content_is_sent_without() {
    let statuses = ["status: 204, body: evil", "status: 205, body: evil", "status: 304, body: evil", "status: 204"];
    let options = all(&["reply", "response", "lateReply"], &statuses);
    let hostile = answering(&options, "").await;
    for (number, options) in options.iter().enumerate() {
        let request = format!("GET / HTTP/1.1\r\nHost: a{number}.example\r\nConnection: close\r\n\r\n");
        let answer = raw(hostile.proxy.address("web"), &request).await;
        let status = options.split("status: ").nth(1).and_then(|text| text.get(..3)).expect("a status");
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{options}: {answer}");
        assert!(answer.ends_with("\r\n\r\n"), "{options}: {answer}");
        let head = answer.to_lowercase();
        assert!(!head.contains("transfer-encoding"), "{options}: {answer}");
        // RFC 9110, section 8.6; of 205 it says that there is nothing, of 304 what GET would get.
        assert!(status != "204" || !head.contains("content-length"), "{options}: {answer}");
        assert!(status != "205" || head.contains("content-length: 0\r\n"), "{options}: {answer}");
        let reply = Client::h2c(hostile.proxy.address("web")).await.get(&format!("http://a{number}.example/")).await;
        assert_eq!((reply.status.to_string().as_str(), reply.text()), (status, ""), "{options}");
    }
    let hostile = answering(&all(&["reply", "lateReply"], &["body: evil"]), "").await;
    for number in 0..2 {
        let request = format!("HEAD / HTTP/1.1\r\nHost: a{number}.example\r\nConnection: close\r\n\r\n");
        let answer = raw(hostile.proxy.address("web"), &request).await;
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("\r\n\r\n"), "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn paths_are_brought_into_their_normal_form() {
    let paths = [
        ("/../admin", "/admin"),
        ("/%2e%2E/admin", "/admin"),
        ("/x/..;/admin", "/x/..;/admin"),
        ("/a/.//b/../c?d=/../e", "/a/c?d=/../e"),
        ("//evil.example/x", "/evil.example/x"),
        ("/%61%2f%5c", "/a%2F%5C"),
        ("/x#evil", "/x"),
    ];
    let edits = paths.map(|(path, _)| format!("path: \"{path}\""));
    let hostile = answering(&edits, "").await;
    for (number, (path, expected)) in paths.into_iter().enumerate() {
        assert_eq!(hostile.ask(number).await.said(), (200, "hello"), "{path}");
        assert_eq!(hostile.backend.last().target, expected, "{path}");
        assert_eq!(hostile.backend.last().header("host"), format!("a{number}.example"), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn targets_that_are_none_are_not_sent() {
    let targets = [
        r#"path: "http://evil/""#,
        r#"path: """#,
        r#"path: "*""#,
        r#"path: "evil""#,
        r#"path: "evil.example:443""#,
        r#"path: "/a evil""#,
        r#"path: "/a\r\nx-evil: 1""#,
        r#"path: "/a\0evil""#,
        r#"path: "/a\x7fevil""#,
        r#"path: "/a%zzevil""#,
        r#"method: """#,
        r#"method: "GET /evil""#,
        r#"method: "GET\r\nx-evil: 1""#,
        r#"method: "G\0T""#,
        // No server is asked for a tunnel.
        r#"method: CONNECT"#,
        r#"authority: """#,
        r#"authority: "a evil""#,
        r#"authority: "evil.example/x""#,
        r#"authority: "user@evil.example""#,
        r#"authority: "evil.example:99999""#,
        r#"authority: "a.example, evil.example""#,
        r#"authority: "evil\r\nx: 1""#,
        r#"set: [[host, "user@evil.example"]]"#,
        r#"set: [[host, "evil.example/x"]]"#,
        r#"append: [[host, "evil.example"]]"#,
        r#"remove: [host]"#,
    ]
    .map(str::to_owned);
    let hostile = answering(&targets, GRANT).await;
    all_are_refused(&hostile, &targets).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn options_have_a_size_and_types() {
    let hostile = Hostile::start("answers", &["set: [[x-a, good]]"], "").await;
    let routing = hostile.proxy.folder.read("routing/all.yaml");
    let huge = "e".repeat(10 << 20);
    let many = format!("remove: [{}]", "a,".repeat(600 << 10));
    for (options, message) in [
        (format!("body: {huge}"), "its options have 10485771 bytes as JSON: at most 1048576 are accepted"),
        (many, "bytes as JSON: at most 1048576 are accepted"),
        ("status: many".to_owned(), "`many` is not a whole number"),
        ("set: {x-a: good}".to_owned(), "this is a section where a list is wanted"),
        ("set: [[x-a]]".to_owned(), "read the options: invalid length 1"),
        ("status: 65536".to_owned(), "read the options: invalid value: integer `65536`"),
        ("by: nobody".to_owned(), "read the options: unknown variant `nobody`"),
    ] {
        let what = &options[..options.len().min(20)];
        hostile.proxy.write("all.yaml", &routing.replace("set: [[x-a, good]]", &options));
        let says = |problem: &String| problem.contains(message);
        eventually(what, async || hostile.proxy.problems().iter().any(says)).await;
        let problems = hostile.proxy.problems();
        assert!(problems.iter().all(|problem| problem.len() < 1000), "{what}: {problems:.1000?}");
        assert_eq!(hostile.ask(0).await.said(), (200, "hello"), "{what}");
        assert_eq!(hostile.backend.last().header("x-a"), "good", "{what}: the options before serve on");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_against_the_rules_of_components() {
    let in_init = [
        "unknownResult",
        "unknownBodyMode",
        "planOfNowhere",
        "planTooLong",
        "unknownError",
        "errorWithoutText",
        "initOfNowhere",
    ];
    let in_calls = [
        "pathWithoutText",
        "loneSurrogate",
        "unknownOption",
        "unknownVerdict",
        "unknownEdit",
        "headersOfNowhere",
        "headersAskew",
        "tooManyHeaders",
        "bodyOfNowhere",
        "bodyTooLong",
        "stateTooLong",
        "answerOfNowhere",
        "answerAskew",
    ];
    // Bits that no flag has are no flags.
    let good = ["nothing", "unknownPhases"];
    let options: Vec<String> = in_init.iter().chain(&in_calls).chain(&good).map(|how| format!("how: {how}")).collect();
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let hostile = Hostile::start("forges", &options, "").await;
    let problems = hostile.proxy.problems();
    let count = problems.iter().filter(|problem| problem.contains("http.middlewares.")).count();
    assert_eq!(count, in_init.len(), "{problems:?}");
    let ask_all = async || {
        for (number, how) in in_init.iter().enumerate() {
            assert_eq!(hostile.ask(number).await.status, 503, "{how}");
        }
        for (number, how) in in_calls.iter().enumerate() {
            let status = hostile.ask(in_init.len() + number).await.status;
            assert!(matches!(status, 500 | 503), "{how}: {status}");
        }
    };
    ask_all().await;
    assert_eq!(hostile.listed().await["failures"], in_calls.len());
    hostile.beside("forged answers", ask_all).await;
    assert!(hostile.backend.take().iter().all(|seen| seen.header("host") == "plain.example"));
    for number in 0..good.len() {
        let number = in_init.len() + in_calls.len() + number;
        assert_eq!(hostile.ask(number).await.said(), (200, "hello"));
    }
}

/// The phases of those before it run: they may have to undo something, and see the proxy's own answer.
#[tokio::test(flavor = "multi_thread")]
async fn a_chain_ends_where_a_plugin_traps() {
    let backend = Backend::saying("hello").await;
    let folder = Folder::new();
    for plugin in ["answers", "stamps"] {
        folder.write(&format!("plugins/{plugin}.wasm"), guest(plugin).await);
    }
    let routing = format!(
        "
http:
  routers:
    plain: {{rule: \"Host(`plain.example`)\", service: all}}
    first: {{rule: \"Host(`first.example`)\", service: all, middlewares: [traps, stamps]}}
    last: {{rule: \"Host(`last.example`)\", service: all, middlewares: [stamps, traps]}}
    admin: {{rule: \"Host(`admin.example`)\", service: api@internal}}
  middlewares:
    traps: {{plugin: {{answers: {{by: trap}}}}}}
    stamps: {{plugin: {{stamps: {{}}}}}}
  services:
    all: {{loadBalancer: {{servers: [{{url: \"{}\"}}]}}}}
",
        backend.url()
    );
    folder.write("routing/all.yaml", routing);
    let proxy = Proxy::start_in(folder, &format!("{INSTALL}api: {{}}\n")).await;
    let calls = async || {
        let list = proxy.get("http://admin.example/api/plugins").await.json();
        let of = |name: &str| {
            let all = list.as_array().expect("a list");
            let plugin = all.iter().find(|plugin| plugin["name"] == name).expect("it is there");
            plugin["calls"].as_u64().expect("a number")
        };
        (of("answers"), of("stamps"))
    };
    let reply = proxy.get("http://first.example/x").await;
    assert_eq!((reply.said(), reply.header("x-stamp")), ((500, "Internal Server Error"), ""));
    assert_eq!(calls().await, (1, 0), "the second has not been called");

    let reply = proxy.get("http://last.example/x").await;
    assert_eq!(reply.said(), (500, "Internal Server Error"));
    assert_eq!((reply.header("x-stamp"), reply.header("x-stamped-path")), ("1.0.0", "/x"));
    assert_eq!(calls().await, (2, 2), "both phases of the first have been called");
    assert_eq!(backend.seen().len(), 0);
    assert_eq!(proxy.get("http://plain.example/").await.said(), (200, "hello"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_may_be_left_out_where_it_fails() {
    let bypass = "plugins: {settings: {answers: {onFailure: bypass}}}\n";
    let options = [
        "by: trap".to_owned(),
        "by: request, set: [[content-length, 7]]".to_owned(),
        "by: request, set: [[x-half, way]], path: evil".to_owned(),
        "by: reply, status: 101".to_owned(),
        "by: response, set: [[x-a, \"1\\r\\nx-evil: 1\"]]".to_owned(),
        "by: lateReply, status: 1000".to_owned(),
    ];
    let hostile = answering(&options, bypass).await;
    for (number, options) in options.iter().enumerate() {
        // The breaker is open at the end: that is a failure like any other.
        for _ in 0..8 {
            let reply = hostile.ask(number).await;
            assert_eq!((reply.said(), reply.header("x-evil")), ((200, "hello"), ""), "{options}");
            let seen = hostile.backend.last();
            assert_eq!((&*seen.target, seen.header("x-half")), ("/", ""), "{options}: nothing of it has been applied");
        }
    }
    assert_eq!(hostile.listed().await["failures"], 8 * options.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_decides_who_passes_is_never_left_out() {
    let backend = Backend::saying("secret").await;
    let routing = format!(
        "
http:
  routers:
    a: {{rule: \"Host(`a.example`)\", service: all, middlewares: [auth]}}
  middlewares:
    auth: {{basicAuth: {{users: [\"test:$apr1$H6uskkkW$IgXLP6ewTrSuBkTrqE8wj/\"]}}}}
  services:
    all: {{loadBalancer: {{servers: [{{url: \"{}\"}}]}}}}
",
        backend.url()
    );
    let install = format!("{INSTALL}plugins: {{settings: {{basicAuth: {{onFailure: bypass}}}}}}\n");
    let proxy = Proxy::start(&install, &[("all.yaml", &routing)]).await;
    assert_eq!(proxy.send(Request::get("http://a.example/")).await.status, 503);
    let message = "it decides who may pass, so it cannot be left out when it fails";
    assert!(proxy.problems().iter().any(|problem| problem.contains(message)), "{:?}", proxy.problems());
    assert_eq!(backend.seen().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_the_log_is_cut_off() {
    let folder = Folder::new();
    folder.write("plugins/answers.wasm", guest("answers").await);
    folder.write("install.yaml", INSTALL);
    let kinds = ["flood", "longLine", "longField", "controlCharacters"];
    let mut routers = "    plain: {rule: \"Host(`plain.example`)\", service: whoami@internal}\n".to_owned();
    let mut middlewares = String::new();
    for kind in kinds {
        let rule = format!("\"Host(`{}.example`)\"", kind.to_lowercase());
        routers.push_str(&format!("    {kind}: {{rule: {rule}, service: whoami@internal, middlewares: [{kind}]}}\n"));
        middlewares.push_str(&format!("    {kind}: {{plugin: {{answers: {{logs: {kind}}}}}}}\n"));
    }
    folder.write("routing/all.yaml", format!("http:\n  routers:\n{routers}  middlewares:\n{middlewares}"));
    let program = Program::start(folder.root(), &["--configFile=install.yaml"]);
    let address = program.address("web").await;
    let ask = async |host: &str| {
        let url = format!("http://{}.example/", host.to_lowercase());
        let reply = Client::plain(address).await.get(&url).await;
        // A million of calls take their time, logged or not.
        assert!(matches!(reply.status, 200 | 500), "{host}: {}", reply.status);
    };
    for kind in kinds {
        ask(kind).await;
        ask("plain").await;
    }
    program.prints("five").await;
    let printed = program.printed();
    let count = printed.matches("again and again").count();
    assert_eq!(count, 100);
    let flood: Vec<_> = printed.lines().filter(|line| line.contains("again and again")).collect();
    assert!(flood.iter().all(|line| line.contains("flood@file")), "{}", flood[0]);
    assert!(printed.lines().all(|line| line.chars().count() < 4096 + 200), "a line is too long");
    assert!(printed.lines().filter(|line| line.contains("long long")).count() == 2, "both long lines are there");
    assert!(!printed.contains(['\u{1b}', '\0', '\r', '\u{202e}', '\u{85}']), "a terminal would obey it");
    assert!(!printed.lines().any(|line| line.starts_with("2026-01-01")), "a line that nobody wrote: {printed:.3000}");
}
