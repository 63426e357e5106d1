//! What proxies have got wrong before, where one request alone does not show it. The numbers are those of the reports.

use http::Request;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::backend::Backend;
use crate::support::client::connect;
use crate::support::proxy::{INSTALL, Proxy};
use crate::support::strict::Strict;
use crate::support::{eventually, soon, with_services};

const ADMIN: &str = "Basic YWRtaW46YWRtaW4=";

const AUTH: &str =
    "basicAuth: {users: [\"admin:$apr1$c5IwaNCW$VpEXax7LtUneLsElXFWCI.\"], headerField: X-User, removeHeader: true}";

/// An entry point that allows no encoded characters, beside the usual ones.
fn install() -> String {
    let allowed = ["Slash", "BackSlash", "NullCharacter", "Semicolon", "Percent", "QuestionMark", "Hash"]
        .map(|name| format!("allowEncoded{name}: false"));
    let characters = allowed.join(", ");
    format!("{INSTALL}  strict: {{address: \"127.0.0.1:0\", http: {{encodedCharacters: {{{characters}}}}}}}\n")
}

/// CVE-2025-4366: what nobody had read of a request was taken for the next one.
#[tokio::test(flavor = "multi_thread")]
async fn a_reply_of_a_middleware_leaves_no_content_behind() {
    let strict = Strict::start().await;
    let routers = "private: {rule: \"PathPrefix(`/private`)\", service: a, middlewares: [auth]}
    all: {rule: \"PathPrefix(`/`)\", service: a}";
    let text = with_services(routers, &[("a", strict.url())]) + &format!("  middlewares:\n    auth: {{{AUTH}}}\n");
    let proxy = Proxy::start(INSTALL, &[("a.yaml", &text)]).await;
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: a.example\r\n\r\n";
    let probe = "GET /probe HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n";
    for (copies, goes_on) in [(1, true), (2_000, true), (40_000, false)] {
        let content = smuggled.repeat(copies);
        let length = content.len();
        let counted = format!("Content-Length: {length}\r\n\r\n{content}");
        let chunked = format!("Transfer-Encoding: chunked\r\n\r\n{length:x}\r\n{content}\r\n0\r\n\r\n");
        for framed in [counted, chunked] {
            let mut client = connect(proxy.address("web")).await;
            let (mut reader, mut writer) = client.split();
            let request = format!("POST /private HTTP/1.1\r\nHost: a.example\r\n{framed}{probe}");
            let mut answers = Vec::new();
            // The proxy may close first.
            let writing = async { drop(writer.write_all(request.as_bytes()).await) };
            let reading = async { drop(soon("the end", reader.read_to_end(&mut answers)).await) };
            tokio::join!(writing, reading);
            let answers = String::from_utf8_lossy(&answers);
            assert!(answers.is_empty() && !goes_on || answers.starts_with("HTTP/1.1 401 "), "{copies}: {answers}");
            assert_eq!(answers.matches("HTTP/1.1 200 OK").count(), usize::from(goes_on), "{copies}: {answers}");
            let seen: Vec<String> =
                strict.take().into_iter().map(|request| request.expect("a good request").target).collect();
            assert_eq!(seen, if goes_on { vec!["/probe"] } else { Vec::new() });
        }
    }
}

/// A client that waits for leave to send its content, and is refused, may send it or not: what comes then is neither a
/// request nor content.
#[tokio::test(flavor = "multi_thread")]
async fn a_reply_instead_of_100_ends_the_connection() {
    let strict = Strict::start().await;
    let text =
        with_services("private: {rule: \"PathPrefix(`/`)\", service: a, middlewares: [auth]}", &[("a", strict.url())])
            + &format!("  middlewares:\n    auth: {{{AUTH}}}\n");
    let proxy = Proxy::start(INSTALL, &[("a.yaml", &text)]).await;
    let mut client = connect(proxy.address("web")).await;
    let head = "POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 43\r\nExpect: 100-continue\r\n\r\n";
    client.write_all(head.as_bytes()).await.expect("the proxy listens");
    let mut answer = String::new();
    soon("the end", client.read_to_string(&mut answer)).await.expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
    assert!(answer.to_lowercase().contains("\r\nconnection: close\r\n"), "{answer}");
    assert!(!answer.contains("100 Continue"), "{answer}");
}

/// CVE-2024-45410, CVE-2026-29054: `Connection` took away what the proxy adds. CVE-2026-33433 and others: a client's own
/// `X_User` was read as the `X-User` that the proxy sets.
#[tokio::test(flavor = "multi_thread")]
async fn clients_take_nothing_from_middlewares_and_add_nothing() {
    let backend = Backend::saying("").await;
    let text =
        with_services("a: {rule: \"PathPrefix(`/`)\", service: a, middlewares: [auth, add]}", &[("a", backend.url())])
            + &format!(
                "  middlewares:
    auth: {{{AUTH}}}
    add: {{headers: {{customRequestHeaders: {{X-Added: ours, X-Removed: \"\"}}}}}}
"
            );
    let proxy = Proxy::start(INSTALL, &[("a.yaml", &text)]).await;
    for connection in ["X-Added, X-User", "x-added,x-user", "X-ADDED, X-USER", "keep-alive , x-AdDeD,\tX-uSeR"] {
        let request = Request::get("http://a.example/").header("authorization", ADMIN);
        assert_eq!(proxy.send(request.header("connection", connection)).await.status, 200);
        let seen = backend.last();
        assert_eq!((seen.header("x-added"), seen.header("x-user")), ("ours", "admin"), "{connection}");
    }
    let request = Request::get("http://a.example/").header("authorization", ADMIN);
    let names = ["X-Added", "x_added", "X_ADDED", "X.Added", "X-User", "x_user", "X_User", "X.User", "X_Removed"];
    proxy.send(names.iter().fold(request, |request, name| request.header(*name, "forged"))).await;
    let seen = backend.last();
    let forged: Vec<_> = seen.headers.iter().filter(|(_, value)| *value == "forged").collect();
    assert!(forged.is_empty(), "{forged:?}");
    assert_eq!((seen.header("x-added"), seen.header("x-user")), ("ours", "admin"));
}

/// CVE-2026-35051 and others: decisions were taken on fields that the proxy would have removed.
#[tokio::test(flavor = "multi_thread")]
async fn rules_see_what_servers_will_see() {
    let [secure, role, rest] =
        [Backend::saying("secure").await, Backend::saying("role").await, Backend::saying("rest").await];
    let routers = "
    secure: {rule: \"Header(`X-Forwarded-Proto`, `https`)\", service: secure}
    role: {rule: \"Header(`X-Role`, `admin`)\", service: role}
    rest: {rule: \"PathPrefix(`/`)\", priority: 1, service: rest}
";
    let urls = [("secure", secure.url()), ("role", role.url()), ("rest", rest.url())];
    let proxy = Proxy::start(INSTALL, &[("a.yaml", &with_services(routers, &urls))]).await;
    for (fields, said) in [
        (&[("x-forwarded-proto", "https")][..], "rest"),
        (&[("x_forwarded_proto", "https")], "rest"),
        (&[("x-role", "admin")], "role"),
        (&[("connection", "X-Role"), ("x-role", "admin")], "rest"),
        // CVE-2026-31838: each line counts for itself; a list is no line.
        (&[("x-role", "user"), ("x-role", "admin")], "role"),
        (&[("x-role", "admin"), ("x-role", "user")], "role"),
        (&[("x-role", "user, admin")], "rest"),
        (&[("x-role", "admin,admin")], "rest"),
        (&[("x-role", "Admin")], "rest"),
        (&[("x-role", "admin ")], "role"),
        (&[("x_role", "admin")], "rest"),
    ] {
        let request = Request::get("http://a.example/");
        let request = fields.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        assert_eq!(proxy.send(request).await.text(), said, "{fields:?}");
    }
}

/// CVE-2025-32431, CVE-2025-47952, CVE-2025-66490, CVE-2026-26205 and others: router and server saw two paths.
///
/// The server here decodes as often as it can, and takes every kind of slash for one.
#[tokio::test(flavor = "multi_thread")]
async fn no_spelling_of_a_path_leads_past_a_stricter_router() {
    let [admin, public] = [Strict::start().await, Strict::start().await];
    let routers = "admin: {rule: \"PathPrefix(`/admin`)\", service: admin}
    public: {rule: \"PathPrefix(`/`)\", service: public}";
    let urls = [("admin", admin.url()), ("public", public.url())];
    let proxy = Proxy::start(&install(), &[("a.yaml", &with_services(routers, &urls))]).await;
    for path in SPELLINGS {
        let request = format!("GET {path} HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n");
        let mut client = connect(proxy.address("strict")).await;
        client.write_all(request.as_bytes()).await.expect("the proxy listens");
        let mut answer = String::new();
        soon("an answer", client.read_to_string(&mut answer)).await.expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 200 ") || answer.starts_with("HTTP/1.1 400 "), "{path}: {answer}");
        for received in public.take() {
            let target = received.expect("a good request").target;
            assert!(!generous(&target).starts_with("/admin"), "{path} as {target}");
        }
        for received in admin.take() {
            assert!(received.expect("a good request").target.starts_with("/admin"), "{path}");
        }
    }
}

const SPELLINGS: [&str; 34] = [
    "/admin",
    "/admin/",
    "//admin",
    "///admin",
    "/./admin",
    "/x/../admin",
    "/x/./../admin",
    "/x//../admin",
    "/../admin",
    "/%2e/admin",
    "/x/%2e%2e/admin",
    "/x/%2E%2e/admin",
    "/x/.%2e/admin",
    "/x/%2e./admin",
    "/%61dmin",
    "/%61%64%6D%69%6e",
    "/x%2f..%2fadmin",
    "/x/..%2fadmin",
    "/x/..%2Fadmin",
    "/x%2F../admin",
    "/%2fadmin",
    "/%2Fadmin/x",
    "/x%5c..%5cadmin",
    "/x/..%5Cadmin",
    "/x\\..\\admin",
    "/\\admin",
    "/%5cadmin",
    "/x/%252e%252e/admin",
    "/%2561dmin",
    "/x/%252e%252e%252fadmin",
    "/x/..%252fadmin",
    "http://a.example//admin",
    "http://a.example/x/%2e%2e/admin",
    "/x/..%00/admin",
];

/// A path as a server may understand it that goes too far.
fn generous(target: &str) -> String {
    let mut path = target.split('?').next().unwrap_or_default().to_owned();
    for _ in 0..3 {
        path = percent_encoding::percent_decode_str(&path).decode_utf8_lossy().into_owned();
    }
    let mut kept = Vec::new();
    for segment in path.replace('\\', "/").replace('\0', "").split('/') {
        match segment {
            "" | "." => {}
            ".." => drop(kept.pop()),
            name => kept.push(name.to_owned()),
        }
    }
    format!("/{}", kept.join("/"))
}

/// CVE-2026-48020, CVE-2026-40912: a prefix was cut off, and what remained led elsewhere.
#[tokio::test(flavor = "multi_thread")]
async fn what_remains_of_a_path_does_not_climb() {
    let strict = Strict::start().await;
    let text =
        with_services("api: {rule: \"PathPrefix(`/api`)\", service: a, middlewares: [cut]}", &[("a", strict.url())])
            + "  middlewares: {cut: {stripPrefix: {prefixes: [/api]}}}\n";
    let proxy = Proxy::start(INSTALL, &[("a.yaml", &text)]).await;
    for path in ["/api../admin", "/api..%2fadmin", "/api./admin", "/api/../admin", "/api%2e%2e/admin", "/api//admin"] {
        proxy.get(&format!("http://a.example{path}")).await;
        for received in strict.take() {
            let target = received.expect("a good request").target;
            assert!(path == "/api//admin" || !target.starts_with("/admin"), "{path} as {target}");
        }
    }
}

/// CVE-2022-28923, CVE-2024-52003: redirections led to where the path or a field said.
#[tokio::test(flavor = "multi_thread")]
async fn redirections_stay_on_their_host() {
    let backend = Backend::saying("").await;
    let text =
        with_services("a: {rule: \"PathPrefix(`/`)\", service: a, middlewares: [https]}", &[("a", backend.url())])
            + "  middlewares: {https: {redirectScheme: {scheme: https}}}\n";
    let proxy = Proxy::start(INSTALL, &[("a.yaml", &text)]).await;
    for target in [
        "//evil.example",
        "///evil.example/x",
        "/\\evil.example",
        "/%5cevil.example",
        "/%2f%2fevil.example",
        "/x/..//evil.example",
        "/@evil.example",
        "/%0d%0aSet-Cookie:%20a=1",
        "/%09//evil.example",
        "/?//evil.example",
    ] {
        let mut client = connect(proxy.address("web")).await;
        let request = format!(
            "GET {target} HTTP/1.1\r\nHost: a.example\r\nX-Forwarded-Prefix: //evil.example\r\n\
             X-Forwarded-Host: evil.example\r\nX_Forwarded_Host: evil.example\r\nConnection: close\r\n\r\n"
        );
        client.write_all(request.as_bytes()).await.expect("the proxy listens");
        let mut answer = String::new();
        soon("an answer", client.read_to_string(&mut answer)).await.expect("an answer");
        let locations: Vec<&str> = answer
            .lines()
            .filter_map(|line| line.strip_prefix("Location: ").or_else(|| line.strip_prefix("location: ")))
            .collect();
        assert_eq!(locations.len(), 1, "{target}: {answer}");
        assert!(locations[0].starts_with("https://a.example/"), "{target}: {answer}");
        assert!(!locations[0]["https://a.example".len()..].starts_with("//"), "{target}: {answer}");
        assert!(!answer.to_lowercase().contains("\nset-cookie"), "{target}: {answer}");
    }
}

/// CVE-2025-25294: a field's value became a line of the log.
#[tokio::test(flavor = "multi_thread")]
async fn no_request_writes_a_line_of_the_log() {
    let strict = Strict::start().await;
    let text = with_services("a: {rule: \"PathPrefix(`/`)\", service: a}", &[("a", strict.url())]);
    let install = format!(
        "{INSTALL}accessLog: {{filePath: $DIR/access.log, format: json, fields: {{headers: {{defaultMode: keep}}}}}}\n"
    );
    let proxy = Proxy::start(&install, &[("a.yaml", &text)]).await;
    let values = [
        "\"}\\n{\"forged\":\"1",
        "\\\",\"forged\":\"1",
        "\u{2028}{\"forged\":1}",
        "\u{85}\u{9b}31m",
        "a\tb",
        "%0a{\"forged\":1}",
        "\\u0022,\\u0022forged\\u0022:1",
        "",
    ];
    for value in values {
        let mut client = connect(proxy.address("web")).await;
        let request = format!(
            "GET /x HTTP/1.1\r\nHost: a.example\r\nUser-Agent: {value}\r\nReferer: {value}\r\nX-A: {value}\r\n\
             Authorization: Basic {value}\r\nConnection: close\r\n\r\n"
        );
        client.write_all(request.as_bytes()).await.expect("the proxy listens");
        let mut answer = String::new();
        soon("an answer", client.read_to_string(&mut answer)).await.expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 200 "), "{value:?}: {answer}");
    }
    eventually("all lines", async || proxy.folder.read("access.log").lines().count() >= values.len()).await;
    let log = proxy.folder.read("access.log");
    assert_eq!(log.lines().count(), values.len(), "{log}");
    for line in log.lines() {
        let entry: Value = serde_json::from_str(line).expect("a line is an object");
        let fields = entry.as_object().expect("a line is an object");
        assert!(!fields.contains_key("forged"), "{line}");
        assert!(!line.contains(['\u{1b}', '\u{7f}']), "{line}");
    }
}
