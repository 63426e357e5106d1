//! `redirectScheme`: sends the client to the same address under another scheme, and port where one is set. The shortest
//! of the built-in middlewares, and so the one to copy first.

use serde::Deserialize;
use weir_sdk::{About, Decision, Error, Middleware, Plan, Reply, Request};

/// One configured redirection.
pub struct RedirectScheme {
    scheme: String,
    /// `:8443`, or empty for the scheme's own port.
    port: String,
    permanent: bool,
}

/// The options, named as in Traefik.
#[derive(Deserialize)]
pub struct Config {
    scheme: String,
    #[serde(default)]
    port: String,
    #[serde(default)]
    permanent: bool,
}

impl Middleware for RedirectScheme {
    type Config = Config;

    const ABOUT: About = weir_sdk::about!("redirectScheme").config_schema(include_str!("../config.schema.json"));

    fn init(config: Config) -> Result<(Self, Plan), Error> {
        Ok((Self::new(config)?, Plan::new().on_request(&["host", "x-forwarded-proto"])))
    }

    fn on_request(&self, request: &Request<'_>) -> Decision {
        let seen = request_scheme(request.header("x-forwarded-proto").as_deref(), request.tls());
        let Some(location) = self.location(seen, &request.authority(), request.path()) else {
            return Decision::pass();
        };
        let (status, text) = self.status(request.method());
        Reply::new(status).header("location", location).body(text).into()
    }
}

weir_sdk::export!(RedirectScheme);

impl RedirectScheme {
    fn new(config: Config) -> Result<Self, Error> {
        let Config { scheme, port, permanent } = config;
        let scheme = scheme.to_ascii_lowercase();
        if !is_scheme(&scheme) {
            return Err(Error::invalid_config(format!("use `{scheme}` as the scheme: write `https`, for instance")));
        }
        let port = match port.as_str() {
            "" => String::new(),
            port if is_default_port(&scheme, port) => String::new(),
            port if port.parse::<u16>().is_ok() => format!(":{port}"),
            port => {
                return Err(Error::invalid_config(format!("use `{port}` as the port: write a number up to 65535")));
            }
        };
        Ok(Self { scheme, port, permanent })
    }

    /// Where to go, or none if the client is there already.
    fn location(&self, scheme: &str, authority: &str, path: &str) -> Option<String> {
        let (host, port) = split_port(authority);
        let port = if is_default_port(scheme, port.trim_start_matches(':')) { "" } else { port };
        if self.scheme == scheme && self.port == port {
            return None;
        }
        Some([&self.scheme, "://", host, &self.port, path].concat())
    }

    /// Only GET may be repeated with another method, which clients do after 301 and 302.
    fn status(&self, method: &str) -> (u16, &'static str) {
        match (method, self.permanent) {
            ("GET", true) => (301, "Moved Permanently"),
            ("GET", false) => (302, "Found"),
            (_, true) => (308, "Permanent Redirect"),
            (_, false) => (307, "Temporary Redirect"),
        }
    }
}

/// The scheme that the client used, as far as a trusted proxy or the connection tells. A websocket begins as HTTP.
fn request_scheme(forwarded_proto: Option<&[u8]>, tls: bool) -> &'static str {
    let is = |name: &str| forwarded_proto.is_some_and(|value| value.eq_ignore_ascii_case(name.as_bytes()));
    if is("https") || is("wss") {
        return "https";
    }
    if is("http") || is("ws") || !tls {
        return "http";
    }
    "https"
}

/// Host with its brackets, and port with its colon or empty.
fn split_port(authority: &str) -> (&str, &str) {
    match authority.rfind(':') {
        Some(colon) if !authority[colon..].contains(']') => authority.split_at(colon),
        _ => (authority, ""),
    }
}

fn is_default_port(scheme: &str, port: &str) -> bool {
    matches!((scheme, port), ("http", "80") | ("https", "443"))
}

/// RFC 3986, 3.1.
fn is_scheme(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
}

#[cfg(test)]
mod tests {
    use weir_sdk::testing::request;

    use super::*;

    fn redirection(scheme: &str, port: &str, permanent: bool) -> RedirectScheme {
        let config = Config { scheme: scheme.to_owned(), port: port.to_owned(), permanent };
        RedirectScheme::new(config).expect("a configuration of a test is valid")
    }

    fn location(redirection: &RedirectScheme, url: &str, proto: &str) -> Option<String> {
        let request = request("GET", url, &[("X-Forwarded-Proto", proto)]);
        let scheme = request_scheme(request.header("x-forwarded-proto").as_deref(), request.tls());
        redirection.location(scheme, &request.authority(), request.path())
    }

    #[test]
    fn keeps_host_and_path_and_drops_the_port() {
        let to_https = redirection("https", "", true);
        for (url, expected) in [
            ("http://example.com/a%20b?c=%2F&d", "https://example.com/a%20b?c=%2F&d"),
            ("http://example.com:8080/", "https://example.com/"),
            ("http://[::1]:80/", "https://[::1]/"),
            ("http://[2001:db8::1]/x", "https://[2001:db8::1]/x"),
        ] {
            assert_eq!(location(&to_https, url, "http").as_deref(), Some(expected), "{url}");
        }
    }

    #[test]
    fn sets_the_port_unless_it_is_the_schemes_own() {
        for (port, expected) in [("8443", "https://example.com:8443/"), ("443", "https://example.com/")] {
            let to_port = redirection("https", port, false);
            assert_eq!(location(&to_port, "http://example.com:8080/", "http").as_deref(), Some(expected));
        }
    }

    #[test]
    fn passes_what_is_there_already() {
        let to_https = redirection("https", "", true);
        for proto in ["https", "HTTPS", "wss"] {
            assert_eq!(location(&to_https, "http://example.com/a", proto), None, "{proto}");
        }
        assert_eq!(location(&to_https, "https://example.com:443/a", "https"), None);
        assert_eq!(location(&redirection("https", "8443", true), "https://example.com:8443/a", "https"), None);
        assert_eq!(location(&redirection("http", "", true), "http://example.com:80/a", "ws"), None);
        let other_port = location(&redirection("http", "", true), "http://example.com:8080/a", "http");
        assert_eq!(other_port.as_deref(), Some("http://example.com/a"));
    }

    #[test]
    fn a_forwarded_scheme_that_is_none_of_http_is_ignored() {
        assert_eq!(request_scheme(Some(b"ftp"), true), "https");
        assert_eq!(request_scheme(Some(b"ftp"), false), "http");
        assert_eq!(request_scheme(None, true), "https");
    }

    #[test]
    fn other_methods_keep_their_method() {
        let status = |method, permanent| redirection("https", "", permanent).status(method).0;
        assert_eq!([status("GET", true), status("GET", false)], [301, 302]);
        assert_eq!([status("POST", true), status("HEAD", false)], [308, 307]);
    }

    #[test]
    fn answers_with_the_text_of_the_status() {
        let decision = redirection("https", "", true).on_request(&request("GET", "http://example.com/a", &[]));
        let expected = Reply::new(301).header("location", "https://example.com/a").body("Moved Permanently");
        assert_eq!(decision, expected.into());
    }

    #[test]
    fn refuses_what_makes_no_address() {
        for (scheme, port) in [("", ""), ("http://", ""), ("https", "https"), ("https", "65536")] {
            let config = Config { scheme: scheme.to_owned(), port: port.to_owned(), permanent: false };
            assert!(RedirectScheme::new(config).is_err(), "{scheme} {port}");
        }
    }
}
