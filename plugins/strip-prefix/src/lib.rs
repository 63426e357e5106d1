//! `stripPrefix`: takes the first configured prefix that fits off the path, and tells the service which one it was in
//! `X-Forwarded-Prefix`. Reads the path in its encoded form only: a second, decoded one could disagree with it.

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde::Deserialize;
use weir_sdk::{About, Decision, Error, Middleware, Plan, Reply, Request, RequestEdit, header};

/// What stands percent-encoded in a path from the host.
const ENCODED: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'\\')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

/// The prefixes of one configuration, in its order.
pub struct StripPrefix {
    prefixes: Vec<Prefix>,
}

struct Prefix {
    /// As the service is told.
    text: Vec<u8>,
    /// As it stands in a path.
    encoded: String,
}

/// The options, named as in Traefik, without `forceSlash`, which has no effect.
#[derive(Deserialize)]
pub struct Config {
    #[serde(default)]
    prefixes: Vec<String>,
}

impl Middleware for StripPrefix {
    type Config = Config;

    const ABOUT: About = weir_sdk::about!("stripPrefix").config_schema(include_str!("../config.schema.json"));

    fn init(config: Config) -> Result<(Self, Plan), Error> {
        let strip = Self::new(&config)?;
        let plan = if strip.prefixes.is_empty() { Plan::new() } else { Plan::new().on_request(&[]) };
        Ok((strip, plan))
    }

    fn on_request(&self, request: &Request<'_>) -> Decision {
        let Some((prefix, path)) = self.strip(request.path()) else {
            return Decision::pass();
        };
        if !is_resolved(&path) {
            return bad_request().into();
        }
        RequestEdit::new().path(path).append("x-forwarded-prefix", prefix.text.as_slice()).into()
    }
}

weir_sdk::export!(StripPrefix);

impl StripPrefix {
    fn new(config: &Config) -> Result<Self, Error> {
        let prefixes = config.prefixes.iter().map(|text| Prefix::new(text.trim()));
        Ok(Self { prefixes: prefixes.collect::<Result<_, _>>()? })
    }

    /// The first prefix that fits, and path and query without it. A prefix may end within a segment: without `/api`,
    /// `/apifoo` is `/foo`.
    fn strip(&self, path: &str) -> Option<(&Prefix, String)> {
        self.prefixes.iter().find_map(|prefix| {
            let rest = path.strip_prefix(&prefix.encoded)?;
            let slash = if rest.starts_with('/') { "" } else { "/" };
            Some((prefix, [slash, rest].concat()))
        })
    }
}

impl Prefix {
    fn new(text: &str) -> Result<Self, Error> {
        Ok(Self { text: header::value("prefixes", text)?, encoded: utf8_percent_encode(text, ENCODED).to_string() })
    }
}

/// Whether no segment is empty, `.` or `..`. The router chose by the path with the prefix, in which `/api../secret` has
/// none of these: without the prefix it would reach what another router may guard.
fn is_resolved(path_with_query: &str) -> bool {
    let path = path_with_query.split('?').next().unwrap_or_default();
    let (folders, last) = path.rsplit_once('/').unwrap_or_default();
    let is_dots = |segment| matches!(segment, "." | "..");
    !is_dots(last) && !folders.split('/').skip(1).any(|folder| folder.is_empty() || is_dots(folder))
}

fn bad_request() -> Reply {
    Reply::new(400)
        .header("content-type", "text/plain; charset=utf-8")
        .header("x-content-type-options", "nosniff")
        .body("Bad Request\n")
}

#[cfg(test)]
mod tests {
    use percent_encoding::percent_decode_str;
    use weir_sdk::testing::request;

    use super::*;

    fn without(prefixes: &[&str]) -> StripPrefix {
        let config = Config { prefixes: prefixes.iter().map(|&prefix| prefix.to_owned()).collect() };
        StripPrefix::new(&config).expect("a configuration of a test is valid")
    }

    fn decide(prefixes: &[&str], path: &str) -> Decision {
        let url = format!("http://example.com{path}");
        without(prefixes).on_request(&request("GET", &url, &[]))
    }

    fn stripped(path: &str, prefix: &str) -> Decision {
        RequestEdit::new().path(path).append("x-forwarded-prefix", prefix).into()
    }

    #[test]
    fn takes_the_first_prefix_that_fits() {
        for (path, rest, prefix) in [
            ("/api/users?x=/v1", "/users?x=/v1", "/api"),
            ("/v1/api/x", "/api/x", "/v1"),
            ("/v1/beta/x", "/beta/x", "/v1"),
            ("/api", "/", "/api"),
            ("/api?x=1", "/?x=1", "/api"),
            ("/api/", "/", "/api"),
            ("/apifoo", "/foo", "/api"),
            ("/old/a", "/a", "/old/"),
        ] {
            let decision = decide(&["/api", "/v1", "/v1/beta", " /old/ "], path);
            assert_eq!(decision, stripped(rest, prefix), "{path}");
        }
    }

    #[test]
    fn passes_what_has_no_such_prefix() {
        for path in ["/", "/other/api", "/ap", "/API/x", "/old", "/x?/api"] {
            assert_eq!(decide(&["/api", "/old/", "api"], path), Decision::pass(), "{path}");
        }
    }

    #[test]
    fn a_root_or_empty_prefix_fits_always() {
        assert_eq!(decide(&["/"], "/a/b"), stripped("/a/b", "/"));
        assert_eq!(decide(&["/"], "/"), stripped("/", "/"));
        assert_eq!(decide(&["", "/a"], "/a/b"), stripped("/a/b", ""));
    }

    #[test]
    fn refuses_what_would_lead_elsewhere() {
        for path in ["/api../secret", "/api./x", "/api..", "/api.", "/api..?x", "/api/../x", "/api/a/./x", "/api//x"] {
            assert_eq!(decide(&["/api"], path), bad_request().into(), "{path}");
        }
        for (path, rest) in
            [("/api.../x", "/.../x"), ("/api/.well-known/x", "/.well-known/x"), ("/api/a..?b=/../c", "/a..?b=/../c")]
        {
            assert_eq!(decide(&["/api"], path), stripped(rest, "/api"), "{path}");
        }
    }

    #[test]
    fn prefixes_are_text_where_paths_are_encoded() {
        for (prefix, path, rest) in [
            ("/my app", "/my%20app/a%2Fb", "/a%2Fb"),
            ("/caf\u{e9}", "/caf%C3%A9/x", "/x"),
            ("/100%", "/100%25/x", "/x"),
            ("/100%", "/100%2520", "/20"),
            ("/what?", "/what%3F/x", "/x"),
            ("/(a)@b:c;d", "/(a)@b:c;d/x", "/x"),
        ] {
            assert_eq!(decide(&[prefix], path), stripped(rest, prefix), "{path}");
            let decode = |path: &str| percent_decode_str(path).decode_utf8_lossy().into_owned();
            let decoded = decode(path);
            let decoded_rest = decoded.strip_prefix(prefix).expect("the prefix fits the text too");
            assert_eq!(decode(rest).trim_start_matches('/'), decoded_rest.trim_start_matches('/'));
        }
        assert_eq!(decide(&["/a/b"], "/a%2Fb/x"), Decision::pass());
    }

    #[test]
    fn without_prefixes_there_is_no_call() {
        let plan = |text: &str| {
            let config = Config { prefixes: text.split_whitespace().map(str::to_owned).collect() };
            StripPrefix::init(config).expect("the configuration is valid").1
        };
        assert_eq!(plan(""), Plan::new());
        assert_eq!(plan("/a /b"), Plan::new().on_request(&[]));
    }

    #[test]
    fn refuses_what_no_header_can_say() {
        let config = Config { prefixes: vec!["/a\r\nb".to_owned()] };
        assert!(StripPrefix::new(&config).is_err());
    }
}
