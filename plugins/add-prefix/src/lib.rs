//! `addPrefix`: puts a prefix in front of the path. The host resolves what comes of it, so that `/base/` and `/x` make
//! `/base/x`.

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde::Deserialize;
use weir_sdk::{About, Decision, Error, Middleware, Plan, Request, RequestEdit};

/// What must be percent-encoded in a path (RFC 3986, 3.3).
const ENCODED: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'[')
    .add(b'\\')
    .add(b']')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

/// One configured prefix.
pub struct AddPrefix {
    /// Percent-encoded, with a slash in front.
    prefix: String,
}

/// The options, named as in Traefik.
#[derive(Deserialize)]
pub struct Config {
    prefix: String,
}

impl Middleware for AddPrefix {
    type Config = Config;

    const ABOUT: About = weir_sdk::about!("addPrefix").config_schema(include_str!("../config.schema.json"));

    fn init(config: Config) -> Result<(Self, Plan), Error> {
        Ok((Self::new(&config)?, Plan::new().on_request(&[])))
    }

    fn on_request(&self, request: &Request<'_>) -> Decision {
        RequestEdit::new().path([&self.prefix, request.path()].concat()).into()
    }
}

weir_sdk::export!(AddPrefix);

impl AddPrefix {
    fn new(Config { prefix }: &Config) -> Result<Self, Error> {
        if prefix.is_empty() {
            return Err(Error::invalid_config("use an empty `prefix`: write `/base`, for instance"));
        }
        let slash = if prefix.starts_with('/') { "" } else { "/" };
        Ok(Self { prefix: format!("{slash}{}", utf8_percent_encode(prefix, ENCODED)) })
    }
}

#[cfg(test)]
mod tests {
    use weir_sdk::testing::request;

    use super::*;

    fn path(prefix: &str, path: &str) -> String {
        let config = Config { prefix: prefix.to_owned() };
        let add = AddPrefix::new(&config).expect("a configuration of a test is valid");
        let decision = add.on_request(&request("GET", &format!("http://example.com{path}"), &[]));
        let weir_sdk::RequestVerdict::Edit(edit) = decision.verdict else { panic!("every request is changed") };
        edit.path_with_query.expect("the path is what changes")
    }

    #[test]
    fn goes_in_front_of_path_and_query() {
        for (before, after) in
            [("/x?y=1", "/base/x?y=1"), ("/", "/base/"), ("/a%2Fb/%20?c=%2F", "/base/a%2Fb/%20?c=%2F")]
        {
            assert_eq!(path("/base", before), after);
        }
    }

    #[test]
    fn is_text_that_becomes_a_path() {
        for (prefix, after) in [
            ("base", "/base/x"),
            ("/my app", "/my%20app/x"),
            ("/caf\u{e9}", "/caf%C3%A9/x"),
            ("/what?#%", "/what%3F%23%25/x"),
            ("/~a.b-c_d/(e)@f:g;h=!$&'*+,", "/~a.b-c_d/(e)@f:g;h=!$&'*+,/x"),
            ("/a\r\nb", "/a%0D%0Ab/x"),
        ] {
            assert_eq!(path(prefix, "/x"), after);
        }
    }

    #[test]
    fn refuses_to_add_nothing() {
        let config = Config { prefix: String::new() };
        assert!(AddPrefix::new(&config).is_err());
    }
}
