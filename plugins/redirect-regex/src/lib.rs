//! `redirectRegex`: sends the client to what a regular expression makes of the URL it asked for. The scheme of that URL
//! is the connection's, whatever `X-Forwarded-Proto` says.

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use regex_lite::Regex;
use serde::Deserialize;
use weir_sdk::{About, Decision, Error, Middleware, Plan, Reply, Request, header};

/// What no URL has as it is. Other characters that a path may not have came encoded, or stand so in the configuration.
const ENCODED: &AsciiSet = &CONTROLS.add(b' ');

/// One configured redirection.
pub struct RedirectRegex {
    regex: Regex,
    replacement: String,
    permanent: bool,
}

/// The options, named as in Traefik.
#[derive(Deserialize)]
pub struct Config {
    regex: String,
    #[serde(default)]
    replacement: String,
    #[serde(default)]
    permanent: bool,
}

impl Middleware for RedirectRegex {
    type Config = Config;

    const ABOUT: About = weir_sdk::about!("redirectRegex").config_schema(include_str!("../config.schema.json"));

    fn init(config: Config) -> Result<(Self, Plan), Error> {
        Ok((Self::new(config)?, Plan::new().on_request(&["host"])))
    }

    fn on_request(&self, request: &Request<'_>) -> Decision {
        let Some(location) = self.location(request.tls(), &request.authority(), request.path()) else {
            return Decision::pass();
        };
        let (status, text) = self.status(request.method());
        Reply::new(status).header("location", location).body(text).into()
    }
}

weir_sdk::export!(RedirectRegex);

impl RedirectRegex {
    fn new(config: Config) -> Result<Self, Error> {
        let Config { regex, replacement, permanent } = config;
        header::value("replacement", &replacement)?;
        let regex = Regex::new(&regex)
            .map_err(|problem| Error::invalid_config(format!("read `{regex}` of `regex`: {problem}")))?;
        Ok(Self { regex, replacement, permanent })
    }

    /// Where to go, or none if the expression finds nothing or changes nothing.
    fn location(&self, tls: bool, authority: &str, path: &str) -> Option<String> {
        let scheme = if tls { "https" } else { "http" };
        let url = [scheme, "://", authority, path].concat();
        let location = self.regex.replace_all(&url, self.replacement.as_str());
        (location != url).then(|| utf8_percent_encode(&location, ENCODED).to_string())
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

#[cfg(test)]
mod tests {
    use weir_sdk::testing::request;

    use super::*;

    fn redirection(regex: &str, replacement: &str, permanent: bool) -> RedirectRegex {
        let config = Config { regex: regex.to_owned(), replacement: replacement.to_owned(), permanent };
        RedirectRegex::new(config).expect("a configuration of a test is valid")
    }

    fn location(regex: &str, replacement: &str, url: &str) -> Option<String> {
        let request = request("GET", url, &[("X-Forwarded-Proto", "https")]);
        redirection(regex, replacement, false).location(request.tls(), &request.authority(), request.path())
    }

    #[test]
    fn replaces_what_matches_in_the_whole_url() {
        for (regex, replacement, url, expected) in [
            (
                r"^http://old\.example\.com/(.*)",
                "https://new.example.com/${1}",
                "http://old.example.com/a/b?x=%2F",
                "https://new.example.com/a/b?x=%2F",
            ),
            (r"^https?:\/\/www\.(.+)", "https://${1}", "https://www.example.com/x?y=z", "https://example.com/x?y=z"),
            (
                r"(https?)://[^/:]+(:[0-9]+)?/(.*)",
                "$1://example.com$2/$3",
                "http://www.example.com:8080/path",
                "http://example.com:8080/path",
            ),
            (":8080", "", "http://example.com:8080/a", "http://example.com/a"),
            ("a", "b", "http://example.com/aa", "http://exbmple.com/bb"),
            ("^(.*)/hub$", "$1/hub/", "http://[::1]:80/hub", "http://[::1]:80/hub/"),
        ] {
            assert_eq!(location(regex, replacement, url).as_deref(), Some(expected), "{regex}");
        }
    }

    #[test]
    fn groups_are_named_as_in_go() {
        let expand = |replacement| {
            let regex = r"^http://(?P<h>[^/:]+)[^/]*/(\w+)/(\w+)$";
            location(regex, replacement, "http://example.com/a/b")
        };
        for (replacement, expected) in [
            ("http://${h}/$3/$2x/${2}x", "http://example.com/b//ax"),
            ("/$h-$2-$9-$none", "/example.com-a--"),
            ("/$$2/$", "/$2/$"),
            ("/$0", "/http://example.com/a/b"),
        ] {
            assert_eq!(expand(replacement).as_deref(), Some(expected), "{replacement}");
        }
    }

    #[test]
    fn passes_what_does_not_match_or_does_not_change() {
        for (regex, replacement, url) in [
            ("^http://old/", "http://new/", "http://other/"),
            ("^http://old/", "http://new/", "http://old:80/"),
            ("^http://", "https://", "https://old/"),
            ("^(.*)$", "$1", "http://old/a"),
        ] {
            assert_eq!(location(regex, replacement, url), None, "{regex}");
        }
    }

    #[test]
    fn a_location_has_no_spaces_and_is_ascii() {
        let expected = "http://example.com/caf%C3%A9%20au%20lait";
        assert_eq!(location("/x$", "/caf\u{e9} au lait", "http://example.com/x").as_deref(), Some(expected));
    }

    #[test]
    fn other_methods_keep_their_method() {
        let status = |method, permanent| redirection("a", "b", permanent).status(method).0;
        assert_eq!([status("GET", true), status("GET", false)], [301, 302]);
        assert_eq!([status("POST", true), status("HEAD", false)], [308, 307]);
    }

    #[test]
    fn answers_with_the_text_of_the_status() {
        let decision = redirection("^http:", "https:", true).on_request(&request("GET", "http://example.com/a", &[]));
        let expected = Reply::new(301).header("location", "https://example.com/a").body("Moved Permanently");
        assert_eq!(decision, expected.into());
    }

    #[test]
    fn refuses_what_is_no_expression_and_what_breaks_the_answer() {
        for (regex, replacement, named) in [("^(", "x", "`^(`"), ("a", "b\r\nSet-Cookie: c", "`replacement`")] {
            let config = Config { regex: regex.to_owned(), replacement: replacement.to_owned(), permanent: false };
            let problem = RedirectRegex::new(config).err().expect("the configuration is wrong");
            assert!(problem.message.contains(named), "{}", problem.message);
        }
    }

    #[test]
    fn reads_the_spellings_of_go() {
        for (regex, url) in [
            (r"(?i)^http:\/\/EXAMPLE\.com\/[\w\-\.]+$", "http://example.com/a-b.c"),
            (r"^http://[[:alpha:].]+/(?:a|b){1,2}\z", "http://example.com/ab"),
            (r"\Ahttp://[^\s/]+/\d+$", "http://example.com/12"),
        ] {
            assert_eq!(location(regex, "/y", url).as_deref(), Some("/y"), "{regex}");
        }
    }
}
