//! The built-in middlewares as routers use them; the plugins' own tests have the corner cases.

use std::fmt::Write as _;

use http::Request;

use crate::support::backend::Backend;
use crate::support::client::raw;
use crate::support::folder::Folder;
use crate::support::proxy::{INSTALL, Proxy};
use crate::support::route;

/// A proxy whose host `a.example` has the middlewares of `names`, in their order, in clear text and over TLS.
async fn with_middlewares(names: &str, middlewares: &str, backend: &Backend) -> Proxy {
    let text = format!(
        "
http:
  routers:
    plain: {{rule: \"Host(`a.example`)\", service: a, middlewares: {names}}}
    tls: {{rule: \"Host(`a.example`)\", service: a, middlewares: {names}, tls: {{}}}}
  services:
    a: {{loadBalancer: {{servers: [{{url: \"{}\"}}]}}}}
  middlewares:
    {}
",
        backend.url(),
        middlewares.trim()
    );
    let proxy = Proxy::start(INSTALL, &[("a.yaml", &text)]).await;
    assert_eq!(proxy.problems(), [""; 0]);
    proxy
}

fn basic(user: &str, password: &str) -> String {
    use base64::Engine;

    format!("Basic {}", base64::prelude::BASE64_STANDARD.encode(format!("{user}:{password}")))
}

#[tokio::test(flavor = "multi_thread")]
async fn redirect_scheme() {
    let backend = Backend::saying("here").await;
    let proxy = with_middlewares("[secure]", "secure: {redirectScheme: {scheme: https, port: 8443}}", &backend).await;
    let reply = proxy.get("http://a.example:8000/x%20y?a=b#c").await;
    assert_eq!((reply.said(), reply.header("location")), ((302, "Found"), "https://a.example:8443/x%20y?a=b"));
    let reply = proxy.send_with(Request::put("http://a.example/"), "body").await;
    assert_eq!((reply.said(), reply.header("location")), ((307, "Temporary Redirect"), "https://a.example:8443/"));
    assert_eq!(proxy.get("https://a.example:8443/").await.said(), (200, "here"), "it is there already");
    assert_eq!(backend.seen().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn basic_auth_knows_all_kinds_of_hashes() {
    let backend = Backend::saying("in").await;
    let users = [
        ("apr1", "admin", "$apr1$c5IwaNCW$VpEXax7LtUneLsElXFWCI."),
        ("sha", "secret", "{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ="),
        ("bcrypt", "secret", "$2y$05$/IRNub/zEczxTCXdiQ3wSuQxJ./2DIRJ8WsuOFzL2iobSSSAoecb2"),
        ("md5", "admin", "$1$abcdefgh$l/LAqC8oJERu7Cmx6trtY/"),
    ];
    let mut listed = String::new();
    for (user, _, hash) in users {
        write!(listed, "\"{user}:{hash}\", ").expect("a string can be written to");
    }
    let proxy = with_middlewares(
        "[auth]",
        &format!("auth: {{basicAuth: {{users: [{listed}], realm: vault, headerField: X-User, removeHeader: true}}}}"),
        &backend,
    )
    .await;
    let ask = async |user: &str, password: &str| {
        proxy.send(Request::get("http://a.example/").header("authorization", basic(user, password))).await
    };
    for (user, password, _) in users {
        // The second time from memory.
        for _ in 0..2 {
            assert_eq!(ask(user, password).await.said(), (200, "in"), "{user}");
            let seen = backend.last();
            assert_eq!((seen.header("x-user"), seen.header("authorization")), (user, ""), "{user}");
        }
        for wrong in ["", "wrong", &format!("{password} ")] {
            let reply = ask(user, wrong).await;
            assert_eq!(reply.said(), (401, "401 Unauthorized\n"), "{user} {wrong}");
            assert_eq!(reply.header("www-authenticate"), "Basic realm=\"vault\"");
            assert_eq!(reply.header("content-type"), "text/plain");
        }
    }
    assert_eq!(ask("nobody", "admin").await.status, 401);
    assert_eq!(backend.seen().len(), 2 * users.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn basic_auth_with_a_file_of_users() {
    let backend = Backend::saying("in").await;
    let folder = Folder::new();
    folder.write("users", "# people\n\nadmin:$apr1$c5IwaNCW$VpEXax7LtUneLsElXFWCI.\n");
    let text = route("a", &backend.url()).replace("service: a}", "service: a, middlewares: [auth]}")
        + "  middlewares: {auth: {basicAuth: {usersFile: $DIR/users, users: [\"two:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=\"]}}}\n";
    folder.write("routing/a.yaml", text);
    let proxy = Proxy::start_in(folder, INSTALL).await;
    for (user, password, status) in [("admin", "admin", 200), ("two", "secret", 200), ("two", "admin", 401)] {
        let request = Request::get("http://a.example/").header("authorization", basic(user, password));
        assert_eq!(proxy.send(request).await.status, status, "{user}");
    }
    assert_eq!(backend.last().header("authorization"), basic("two", "secret"), "passed on unless told otherwise");
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_of_requests_and_responses() {
    let backend = Backend::start(async |_| {
        let response = http::Response::builder().header("server", "secret/1.0").header("x-kept", "1");
        response.body(crate::support::full("hello")).expect("a good response")
    })
    .await;
    let proxy = with_middlewares(
        "[h]",
        "h: {headers: {customRequestHeaders: {X-Added: \"yes\", X-Gone: \"\", Host: inner.example}, \
         customResponseHeaders: {Server: \"\", X-Told: \"1\"}, frameDeny: true, contentTypeNosniff: true, \
         referrerPolicy: no-referrer}}",
        &backend,
    )
    .await;
    let reply = proxy.send(Request::get("http://a.example/").header("x-gone", "1").header("x-stays", "1")).await;
    let seen = backend.last();
    assert_eq!(
        ["x-added", "x-gone", "x-stays", "host"].map(|name| seen.header(name)),
        ["yes", "", "1", "inner.example"]
    );
    let names = ["server", "x-kept", "x-told", "x-frame-options", "x-content-type-options", "referrer-policy"];
    assert_eq!(names.map(|name| reply.header(name)), ["", "1", "1", "DENY", "nosniff", "no-referrer"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn strict_transport_security_is_for_tls() {
    let backend = Backend::saying("").await;
    let expected = "max-age=31536000; includeSubDomains; preload";
    let options = "stsSeconds: 31536000, stsIncludeSubdomains: true, stsPreload: true";
    let proxy = with_middlewares("[h]", &format!("h: {{headers: {{{options}}}}}"), &backend).await;
    assert_eq!(proxy.get("https://a.example/").await.header("strict-transport-security"), expected);
    assert_eq!(proxy.get("http://a.example/").await.header("strict-transport-security"), "");
    let forced = format!("h: {{headers: {{{options}, forceSTSHeader: true}}}}");
    let proxy = with_middlewares("[h]", &forced, &backend).await;
    assert_eq!(proxy.get("http://a.example/").await.header("strict-transport-security"), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn cross_origin_requests() {
    let backend = Backend::saying("data").await;
    let proxy = with_middlewares(
        "[cors]",
        "cors: {headers: {accessControlAllowOriginList: [https://app.example], accessControlAllowMethods: [GET, PUT], \
         accessControlAllowHeaders: [X-Token], accessControlExposeHeaders: [X-Total], accessControlMaxAge: 600, \
         accessControlAllowCredentials: true, addVaryHeader: true}}",
        &backend,
    )
    .await;
    let preflight = |origin: &'static str| {
        Request::options("http://a.example/")
            .header("origin", origin)
            .header("access-control-request-method", "PUT")
            .header("access-control-request-headers", "X-Token")
    };
    let reply = proxy.send(preflight("https://app.example")).await;
    assert_eq!(reply.said(), (200, ""));
    for (name, value) in [
        ("access-control-allow-origin", "https://app.example"),
        ("access-control-allow-methods", "GET,PUT"),
        ("access-control-allow-headers", "X-Token"),
        ("access-control-allow-credentials", "true"),
        ("access-control-max-age", "600"),
        ("content-length", "0"),
    ] {
        assert_eq!(reply.header(name), value, "{name}");
    }
    assert_eq!(proxy.send(preflight("https://evil.example")).await.header("access-control-allow-origin"), "");
    assert_eq!(backend.seen().len(), 0, "preflights end at the proxy");

    for (origin, allowed) in [("https://app.example", "https://app.example"), ("https://evil.example", "")] {
        let reply = proxy.send(Request::get("http://a.example/").header("origin", origin)).await;
        assert_eq!((reply.text(), reply.header("access-control-allow-origin")), ("data", allowed), "{origin}");
        assert_eq!(reply.header("vary"), "Origin", "{origin}");
        assert_eq!(reply.header("access-control-expose-headers"), "X-Total", "{origin}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_runs_in_its_order() {
    let backend = Backend::saying("in").await;
    let proxy = with_middlewares(
        "[all]",
        "
    all: {chain: {middlewares: [first, inner]}}
    inner: {chain: {middlewares: [second, auth]}}
    first: {headers: {customRequestHeaders: {X-By: first, X-First: \"1\"}, customResponseHeaders: {X-By: first}}}
    second: {headers: {customRequestHeaders: {X-By: second}, customResponseHeaders: {X-By: second}}}
    auth: {basicAuth: {users: [\"admin:$apr1$c5IwaNCW$VpEXax7LtUneLsElXFWCI.\"]}}
",
        &backend,
    )
    .await;
    let request = Request::get("http://a.example/").header("authorization", basic("admin", "admin"));
    let reply = proxy.send(request).await;
    assert_eq!((reply.said(), reply.header("x-by")), ((200, "in"), "first"), "the first has the last word");
    assert_eq!((backend.last().header("x-by"), backend.last().header("x-first")), ("second", "1"));
    let refused = proxy.get("http://a.example/").await;
    assert_eq!((refused.status, refused.header("x-by")), (401, "first"), "also for what a middleware replies");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_that_contains_itself_is_closed() {
    let backend = Backend::saying("in").await;
    let text = route("a", &backend.url()).replace("service: a}", "service: a, middlewares: [one]}")
        + "  middlewares: {one: {chain: {middlewares: [two]}}, two: {chain: {middlewares: [one]}}}\n";
    let proxy = Proxy::start(INSTALL, &[("a.yaml", &text)]).await;
    assert_eq!(proxy.status("http://a.example/").await, 503);
    assert!(proxy.problems().iter().any(|problem| problem.contains("would contain itself")), "{:?}", proxy.problems());
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_are_on_the_proxys_own_errors() {
    let backend = Backend::saying("").await;
    let url = backend.url();
    drop(backend);
    let text = route("a", &url).replace("service: a}", "service: a, middlewares: [h]}")
        + "  middlewares: {h: {headers: {frameDeny: true}}}\n";
    let proxy = Proxy::start(INSTALL, &[("a.yaml", &text)]).await;
    let reply = proxy.get("http://a.example/").await;
    assert_eq!((reply.said(), reply.header("x-frame-options")), ((502, "Bad Gateway"), "DENY"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_points_middlewares_come_first() {
    let backend = Backend::saying("in").await;
    let install = INSTALL.replacen("\"127.0.0.1:0\"", "\"127.0.0.1:0\", http: {middlewares: [all@file]}", 1);
    let text = route("a", &backend.url()).replace("service: a}", "service: a, middlewares: [own]}")
        + "  middlewares:\n    all: {headers: {customRequestHeaders: {X-By: all, X-All: \"1\"}}}\n    \
           own: {headers: {customRequestHeaders: {X-By: own}}}\n";
    let proxy = Proxy::start(&install, &[("a.yaml", &text)]).await;
    assert_eq!(proxy.get("http://a.example/").await.said(), (200, "in"));
    assert_eq!((backend.last().header("x-by"), backend.last().header("x-all")), ("own", "1"));
    let mut other = proxy.client("websecure").await;
    assert_eq!(other.get("http://a.example/").await.said(), (200, "in"));
    assert_eq!(backend.last().header("x-all"), "", "only on that entry point");

    // Without it nothing on the entry point is open.
    let proxy = Proxy::start(&install, &[("a.yaml", &route("a", &backend.url()))]).await;
    assert_eq!(proxy.status("http://a.example/").await, 503);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_point_redirects_everything() {
    let backend = Backend::saying("in").await;
    for (options, status, location) in [
        ("to: \":8443\"", 301, "https://a.example:8443/x?y"),
        ("to: \":443\"", 301, "https://a.example/x?y"),
        ("to: \":8443\", permanent: false", 302, "https://a.example:8443/x?y"),
    ] {
        let redirection = format!("\"127.0.0.1:0\", http: {{redirections: {{entryPoint: {{{options}}}}}}}");
        let install = INSTALL.replacen("\"127.0.0.1:0\"", &redirection, 1);
        let proxy = Proxy::start(&install, &[("a.yaml", &route("a", &backend.url()))]).await;
        let reply = proxy.get("http://a.example:8080/x?y").await;
        assert_eq!((reply.status, reply.header("location")), (status, location), "{options}");
        assert_eq!(proxy.client("websecure").await.get("http://a.example/").await.said(), (200, "in"));
    }
    // By its name, with the port that the system has chosen.
    let redirection = "\"127.0.0.1:0\", http: {redirections: {entryPoint: {to: websecure}}}";
    let proxy = Proxy::start(&INSTALL.replacen("\"127.0.0.1:0\"", redirection, 1), &[]).await;
    let target = format!("https://a.example:{}/x?y", proxy.address("websecure").port());
    let reply = proxy.get("http://a.example:8080/x?y").await;
    assert_eq!((reply.status, reply.header("location")), (301, target.as_str()));
    // A router may have a higher priority, for certificates by HTTP for example.
    let redirection = "\"127.0.0.1:0\", http: {redirections: {entryPoint: {to: \":8443\", priority: 10}}}";
    let install = INSTALL.replacen("\"127.0.0.1:0\"", redirection, 1);
    let text = route("a", &backend.url()).replace("service: a}", "service: a, priority: 11}");
    let proxy = Proxy::start(&install, &[("a.yaml", &text)]).await;
    assert_eq!(proxy.get("http://a.example/").await.said(), (200, "in"));
    assert_eq!(proxy.status("http://b.example/").await, 301);
}

#[tokio::test(flavor = "multi_thread")]
async fn paths_and_addresses() {
    let backend = Backend::saying("in").await;
    let proxy = with_middlewares(
        "[strip, add, local]",
        "
    strip: {stripPrefix: {prefixes: [/app, /api]}}
    add: {addPrefix: {prefix: /v1}}
    local: {ipAllowList: {sourceRange: 127.0.0.1/32}}
",
        &backend,
    )
    .await;
    assert_eq!(proxy.status("http://a.example/api/users?x").await, 200);
    let seen = backend.last();
    assert_eq!((seen.target.as_str(), seen.header("x-forwarded-prefix")), ("/v1/users?x", "/api"));
    let proxy = with_middlewares("[far]", "far: {ipAllowList: {sourceRange: [10.0.0.0/8]}}", &backend).await;
    let request = Request::get("http://a.example/").header("x-forwarded-for", "10.0.0.1");
    assert_eq!(proxy.send(request).await.said(), (403, "Forbidden"));
    let proxy = with_middlewares(
        "[move]",
        "move: {redirectRegex: {regex: \"^http://a.example/old/(.*)$\", replacement: \"http://a.example/new/${1}\"}}",
        &backend,
    )
    .await;
    let reply = proxy.get("http://a.example/old/x?y=1").await;
    assert_eq!((reply.status, reply.header("location")), (302, "http://a.example/new/x?y=1"));
    assert_eq!(proxy.status("http://a.example/new/x").await, 200);
}

/// An IPv4 client of a listener for both families has an IPv6 address in which its own is mapped (RFC 4291, section
/// 2.5.5.2).
#[tokio::test(flavor = "multi_thread")]
async fn ip_allow_list_knows_an_address_in_each_form() {
    let backend = Backend::saying("in").await;
    let install = INSTALL.replacen("127.0.0.1:0", "[::]:0", 1);
    for (ranges, ipv4, ipv6) in [
        ("[127.0.0.1]", 200, 403),
        ("[127.0.0.0/8]", 200, 403),
        ("[\"::ffff:127.0.0.1\"]", 200, 403),
        ("[\"::ffff:7f00:1/128\"]", 200, 403),
        ("[\"::ffff:127.0.0.0/104\"]", 200, 403),
        ("[\"::1\"]", 403, 200),
        ("[\"0:0:0:0:0:0:0:0001\"]", 403, 200),
        ("[\"::/0\"]", 403, 200),
        ("[0.0.0.0/0]", 200, 403),
    ] {
        let routes = format!(
            "{}  middlewares:\n    listed: {{ipAllowList: {{sourceRange: {ranges}}}}}\n",
            route("a", &backend.url()).replace("service: a}", "service: a, middlewares: [listed]}")
        );
        let proxy = Proxy::start(&install, &[("a.yaml", &routes)]).await;
        assert_eq!(proxy.problems(), [""; 0], "{ranges}");
        let port = proxy.address("web").port();
        for (client, expected) in [("127.0.0.1", ipv4), ("::1", ipv6)] {
            let address = (client.parse::<std::net::IpAddr>().expect("an address"), port).into();
            let reply = raw(address, "GET / HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n").await;
            assert!(reply.starts_with(&format!("HTTP/1.1 {expected} ")), "{client} in {ranges}: {reply}");
        }
    }
}

/// Whatever a middleware lacks, its routers are closed and nothing reaches the server (CVE-2026-54762).
#[tokio::test(flavor = "multi_thread")]
async fn a_middleware_that_cannot_do_its_work_closes_its_routers() {
    let backend = Backend::saying("in").await;
    let folder = Folder::new();
    folder.write("empty", "");
    folder.write("comments", "# nobody\n");
    folder.write("damaged", "admin:$apr1$c5IwaNCW\n");
    folder.write("binary", [0xff, 0xfe, 0x00]);
    std::fs::create_dir(folder.path("directory")).expect("a directory can be made");
    let middlewares = [
        "{basicAuth: {}}",
        "{basicAuth: {users: []}}",
        "{basicAuth: {users: [admin]}}",
        "{basicAuth: {users: [\"admin:secret\"]}}",
        "{basicAuth: {users: [\"admin:$6$abcdefgh$ltjgWl6579NluT\"]}}",
        "{basicAuth: {usersFile: $DIR/nowhere}}",
        "{basicAuth: {usersFile: $DIR/empty}}",
        "{basicAuth: {usersFile: $DIR/comments}}",
        "{basicAuth: {usersFile: $DIR/damaged}}",
        "{basicAuth: {usersFile: $DIR/binary}}",
        "{basicAuth: {usersFile: $DIR/directory}}",
        "{basicAuth: {users: [\"admin:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=\"], usersFile: $DIR/nowhere}}",
        "{basicAuth: {users: [\"admin:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=\"], realms: x}}",
        "{basicAuth: {users: [\"admin:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=\"]}, headers: {frameDeny: true}}",
        "{ipAllowList: {}}",
        "{ipAllowList: {sourceRange: []}}",
        "{ipAllowList: {sourceRange: [127.0.0.1/33]}}",
        "{ipAllowList: {sourceRange: [127.0.0.01]}}",
        "{ipAllowList: {sourceRange: [\"::ffff:127.0.0.01\"]}}",
        "{ipAllowList: {sourceRange: [\"fe80::1%lo\"]}}",
        "{ipAllowList: {sourceRange: [127.0.0.1], ipStrategy: {depth: 1}}}",
        "{redirectRegex: {regex: \"(\", replacement: /}}",
        "{stripPrefix: {prefixes: {a: b}}}",
        "{headers: {frameDenied: true}}",
        "{digestAuth: {users: [\"admin:r:0\"]}}",
        "{forwardAuth: {address: \"http://127.0.0.1:1\"}}",
        "{nonsense: {}}",
        "{plugin: {nowhere: {}}}",
        "{plugin: {}}",
        "{chain: {middlewares: [nowhere]}}",
        "{chain: {middlewares: [m0]}}",
        "{}",
    ];
    let mut text = String::from("http:\n  routers:\n");
    for number in 0..=middlewares.len() {
        let router = format!("{{rule: \"Host(`r{number}.example`)\", service: a, middlewares: [m{number}]}}");
        writeln!(text, "    r{number}: {router}").expect("a string grows");
    }
    text.push_str("    wide: {rule: \"PathPrefix(`/`)\", service: a}\n  middlewares:\n");
    for (number, middleware) in middlewares.iter().enumerate() {
        writeln!(text, "    m{number}: {middleware}").expect("a string grows");
    }
    writeln!(text, "  services:\n    a: {{loadBalancer: {{servers: [{{url: \"{}\"}}]}}}}", backend.url())
        .expect("as above");
    folder.write("routing/a.yaml", text);
    let proxy = Proxy::start_in(folder, INSTALL).await;
    for number in 0..=middlewares.len() {
        let status = proxy.status(&format!("http://r{number}.example/")).await;
        assert_eq!(status, 503, "{}", middlewares.get(number).unwrap_or(&"a middleware that is not there"));
    }
    assert_eq!(backend.seen().len(), 0);
    assert_eq!(proxy.get("http://other.example/").await.said(), (200, "in"), "what needs none of them is open");
}
