//! The access log: a line for each request, with what became of it.

use std::path::Path;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::Request;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use crate::support::backend::Backend;
use crate::support::client::{Client, connect};
use crate::support::folder::Folder;
use crate::support::program::Program;
use crate::support::proxy::{INSTALL, Proxy};
use crate::support::websocket::WebSocket;
use crate::support::{eventually, read_head, with_services};

const ADMIN: &str = "Basic YWRtaW46YWRtaW4=";

async fn logging(options: &str, backend: &Backend) -> Proxy {
    let routers = "
    a: {rule: \"Host(`a.example`)\", service: a}
    tls: {rule: \"Host(`a.example`)\", service: a, tls: {}}
    private: {rule: \"Host(`a.example`) && PathPrefix(`/private`)\", service: a, middlewares: [auth]}
    quiet: {rule: \"Host(`a.example`) && PathPrefix(`/quiet`)\", service: a, observability: {accessLogs: false}}
";
    let text = with_services(routers, &[("a", backend.url())])
        + "  middlewares: {auth: {basicAuth: {users: [\"admin:$apr1$c5IwaNCW$VpEXax7LtUneLsElXFWCI.\"]}}}\n";
    let install = format!("{INSTALL}accessLog: {{filePath: $DIR/access.log{options}}}\n");
    Proxy::start(&install, &[("a.yaml", &text)]).await
}

/// The lines so far, as soon as there are so many.
async fn lines(proxy: &Proxy, count: usize) -> Vec<String> {
    eventually(&format!("{count} lines"), async || proxy.folder.read("access.log").lines().count() >= count).await;
    let text = proxy.folder.read("access.log");
    assert!(text.ends_with('\n'), "whole lines");
    text.lines().map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn common_lines() {
    let backend = Backend::saying("hello").await;
    let proxy = logging(", fields: {headers: {names: {User-Agent: keep, Referer: keep}}}", &backend).await;
    let request = Request::get("http://a.example/x?y=1").header("user-agent", "a \"quoted\" agent");
    assert_eq!(proxy.send(request).await.status, 200);
    proxy.get("http://a.example/quiet").await;
    proxy.get("http://b.example/").await;
    proxy.get("http://a.example/private").await;
    proxy.send(Request::head("http://a.example/private").header("authorization", ADMIN)).await;
    let lines = lines(&proxy, 4).await;
    assert_eq!(lines.len(), 4, "{lines:#?}");
    let time = r"\[\d\d/[A-Z][a-z][a-z]/\d{4}:\d\d:\d\d:\d\d \+0000\]";
    let server = regex::escape(&backend.url());
    for (line, expected) in lines.iter().zip([
        format!(r#"127.0.0.1 - - {time} "GET /x\?y=1 HTTP/1.1" 200 5 "-" "a \\"quoted\\" agent" \d+ "a@file" "{server}" \d+ms"#),
        format!(r#"127.0.0.1 - - {time} "GET / HTTP/1.1" 404 19 "-" "-" \d+ "-" "-" \d+ms"#),
        format!(r#"127.0.0.1 - - {time} "GET /private HTTP/1.1" 401 17 "-" "-" \d+ "private@file" "-" \d+ms"#),
        format!(r#"127.0.0.1 - admin {time} "HEAD /private HTTP/1.1" 200 0 "-" "-" \d+ "private@file" "{server}" \d+ms"#),
    ]) {
        let pattern = regex::Regex::new(&format!("^{expected}$")).expect("a good pattern");
        assert!(pattern.is_match(line), "{line}\n{expected}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn json_lines() {
    let backend = Backend::saying("hello").await;
    let fields = ", format: json, fields: {headers: {defaultMode: drop, names: {X-Kept: keep, Authorization: redact}}}";
    let proxy = logging(fields, &backend).await;
    let request = Request::post("https://a.example/x?y").header("x-kept", "1").header("x-other", "2");
    assert_eq!(proxy.send_with(request.header("authorization", "secret"), "body").await.status, 200);
    let lines = lines(&proxy, 1).await;
    let line: Value = serde_json::from_str(&lines[0]).expect("an object");
    for (field, value) in [
        ("ClientHost", json!("127.0.0.1")),
        ("RequestMethod", json!("POST")),
        ("RequestPath", json!("/x?y")),
        ("RequestProtocol", json!("HTTP/1.1")),
        ("RequestHost", json!("a.example")),
        ("RequestScheme", json!("https")),
        ("RequestContentSize", json!(4)),
        ("DownstreamStatus", json!(200)),
        ("DownstreamContentSize", json!(5)),
        ("OriginStatus", json!(200)),
        ("OriginContentSize", json!(5)),
        ("RouterName", json!("tls@file")),
        ("ServiceName", json!("a@file")),
        ("ServiceURL", json!(backend.url())),
        ("ServiceAddr", json!(backend.address.to_string())),
        ("entryPointName", json!("websecure")),
        ("TLSVersion", json!("1.3")),
        ("request_X-Kept", json!("1")),
        ("request_Authorization", json!("REDACTED")),
        ("request_X-Other", Value::Null),
    ] {
        assert_eq!(line[field], value, "{field} in {line:#}");
    }
    assert!(line["Duration"].as_u64() >= line["OriginDuration"].as_u64() && line["OriginDuration"].as_u64() > Some(0));
    assert!(line["ClientPort"].as_str().is_some_and(|port| port.parse::<u16>().is_ok()), "{line:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_keep_lines_out() {
    let backend = Backend::saying("hello").await;
    let proxy = logging(", filters: {statusCodes: [\"400-403\", 503]}", &backend).await;
    for path in ["", "private", "x"] {
        proxy.get(&format!("http://a.example/{path}")).await;
    }
    proxy.get("http://b.example/").await;
    proxy.get("http://a.example/private").await;
    let lines = lines(&proxy, 2).await;
    assert!(lines.len() == 2 && lines.iter().all(|line| line.contains("\" 401 17 ")), "{lines:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn websockets_and_failures_have_lines() {
    let (backend, _heads) = Backend::echoing_websockets().await;
    let proxy = logging("", &backend).await;
    let stream = connect(proxy.address("web")).await;
    let mut socket = WebSocket::connect(stream, "a.example", "/chat").await.expect("a websocket");
    assert_eq!(socket.echo("hello").await.as_deref(), Some("hello"));
    socket.close().await;
    let first = lines(&proxy, 1).await;
    assert!(first[0].contains("\"GET /chat HTTP/1.1\" 101 "), "{first:?}");

    drop(backend);
    assert_eq!(proxy.get("http://a.example/down").await.status, 502);
    let second = lines(&proxy, 2).await;
    assert!(second[1].contains("\"GET /down HTTP/1.1\" 502 11 "), "{second:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_file_can_be_moved_away() {
    let backend = Backend::saying("hello").await;
    let proxy = logging("", &backend).await;
    proxy.get("http://a.example/one").await;
    lines(&proxy, 1).await;
    let path = proxy.folder.path("access.log");
    std::fs::rename(&path, Path::new(&path).with_extension("1")).expect("the file is there");
    proxy.reopen_access_log();
    proxy.get("http://a.example/two").await;
    let lines = lines(&proxy, 1).await;
    assert!(lines.len() == 1 && lines[0].contains("/two"), "{lines:?}");
    assert!(proxy.folder.read("access.1").contains("/one"));
}

/// What breaks lines that are not written with care, in a request line and in fields.
const HOSTILE: &[&[u8]] = &[
    b"\"",
    b"\\",
    b"\\\"",
    b"\" 200 5 \"-\" \"-\" 1 \"a@file\" \"http://x\" 1ms",
    b"\", \"DownstreamStatus\": 999, \"x\": \"",
    b"\x1b[31mred",
    b"a\tb",
    b"\xff\xfe",
    // A line separator, one of the C1 control characters, half of a surrogate pair, and a change of direction.
    b"\xe2\x80\xa8",
    b"\xc2\x85",
    b"\xed\xa0\x80",
    b"\xe2\x80\xae",
    b"%0d%0a",
    b"",
];

/// Sends each of [`HOSTILE`] in the fields that lines show, and answers with the lines.
async fn hostile_lines(options: &str) -> Vec<String> {
    let backend = Backend::saying("hello").await;
    let proxy = logging(options, &backend).await;
    let mut expected = 0;
    for text in HOSTILE {
        let user = BASE64_STANDARD.encode([text, &b":password"[..]].concat());
        let mut request = b"GET /%22?q='{}%e2%80%a8| HTTP/1.1\r\nConnection: close\r\n".to_vec();
        for name in ["User-Agent", "Referer", "X-Forwarded-For", "X-Any"] {
            request.extend([name.as_bytes(), b": ", text, b"\r\n"].concat());
        }
        request.extend(format!("Host: a.example\r\nAuthorization: Basic {user}\r\n\r\n").as_bytes());
        let mut stream = connect(proxy.address("web")).await;
        stream.write_all(&request).await.expect("a new connection takes bytes");
        let head = read_head(&mut stream).await;
        // What is no request at all has no line, as in Traefik.
        expected += usize::from(!head.to_lowercase().contains("content-length: 0\r\n"));
    }
    assert!(expected > HOSTILE.len() / 2, "{expected} requests were answered");
    lines(&proxy, expected).await
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_requests_leave_json_whole() {
    for line in hostile_lines(", format: json, fields: {headers: {defaultMode: keep}}").await {
        let entry: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error} in {line}"));
        assert_eq!((&entry["RequestMethod"], &entry["RequestHost"]), (&json!("GET"), &json!("a.example")), "{line}");
        assert!(entry["DownstreamStatus"].as_u64().is_some_and(|status| status < 600), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_requests_leave_lines_whole() {
    let text = r#"(?:[^"\\]|\\.)*"#;
    let pattern = format!(
        r#"^[^ ]+ - [^ ]+ \[[^\] ]+ \+0000\] "GET {text} HTTP/1\.1" [1-5]\d\d \d+ "{text}" "{text}" \d+ "{text}" "{text}" \d+ms$"#
    );
    let pattern = regex::Regex::new(&pattern).expect("a good pattern");
    for line in hostile_lines(", fields: {headers: {names: {User-Agent: keep, Referer: keep}}}").await {
        assert!(pattern.is_match(&line) && !line.chars().any(char::is_control), "{line:?}");
    }
}

/// CVE-2022-23469: a log with all details had credentials in it.
#[tokio::test(flavor = "multi_thread")]
async fn no_log_has_secrets() {
    const SECRET: &str = "canary-7f3a9c";

    let backend = Backend::saying("hello").await;
    let folder = Folder::new();
    let routers = "
    a: {rule: \"Host(`a.example`)\", service: a}
    private: {rule: \"Host(`a.example`) && PathPrefix(`/private`)\", service: a, middlewares: [auth]}
    gone: {rule: \"Host(`gone.example`)\", service: gone}
";
    let services = [("a", backend.url()), ("gone", "http://127.0.0.1:1".to_owned())];
    let auth = "  middlewares: {auth: {basicAuth: {users: [\"admin:$apr1$c5IwaNCW$VpEXax7LtUneLsElXFWCI.\"]}}}\n";
    folder.write("routing/a.yaml", with_services(routers, &services) + auth);
    let install = INSTALL.replace("$DIR/routing", "routing");
    folder.write(
        "install.yaml",
        format!("{install}log: {{level: TRACE}}\naccessLog: {{format: json, filePath: access.log}}\n"),
    );
    let program = Program::start(folder.root(), &["--configFile=install.yaml"]);
    let address = program.address("web").await;
    let basic = format!("Basic {}", BASE64_STANDARD.encode(format!("admin:{SECRET}")));
    let requests = ["http://a.example/", "http://a.example/private", "http://gone.example/", "http://nobody.example/"];
    for url in requests {
        for credentials in [&format!("Bearer {SECRET}"), &basic] {
            for mut client in [Client::plain(address).await, Client::h2c(address).await] {
                let request = Request::get(url)
                    .header("authorization", credentials)
                    .header("proxy-authorization", credentials)
                    .header("cookie", format!("session={SECRET}"));
                client.send(request).await;
            }
        }
    }
    let access_log = || folder.read("access.log");
    eventually("all lines", async || access_log().lines().count() == 4 * requests.len()).await;
    for text in [program.printed(), access_log()] {
        for secret in [SECRET, basic.trim_start_matches("Basic ")] {
            assert!(!text.contains(secret), "{text}");
        }
    }
}
