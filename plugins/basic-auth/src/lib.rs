//! `basicAuth`: lets a request pass with a user name and a password (RFC 7617). Checking a password is slow on purpose,
//! so that credentials once verified are remembered, as a keyed hash, by the instance that saw them.

mod credentials;
mod hash;
mod users;
mod verified;

use std::cell::RefCell;
use std::rc::Rc;

use serde::Deserialize;
use weir_sdk::{About, Decision, Error, Middleware, Plan, Reply, Request, RequestEdit, header, random};

use credentials::Credentials;
use users::Users;
use verified::Verified;

/// One configured list of users.
pub struct BasicAuth {
    users: Users,
    /// The value of `WWW-Authenticate`.
    challenge: Vec<u8>,
    /// Header that gets the user's name.
    header_field: Option<String>,
    remove_header: bool,
    verified: RefCell<Verified>,
}

/// The options, named as in Traefik.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Config {
    users: Vec<String>,
    /// The text of the file: the host puts it in place of the name.
    users_file: String,
    realm: String,
    header_field: String,
    remove_header: bool,
}

impl Middleware for BasicAuth {
    type Config = Config;

    const ABOUT: About = weir_sdk::about!("basicAuth")
        .config_schema(include_str!("../config.schema.json"))
        .files(&["/usersFile"])
        .guards();

    fn init(config: Config) -> Result<(Self, Plan), Error> {
        let key = u128::from(random::next()) << 64 | u128::from(random::next());
        Ok((Self::new(&config, key)?, Plan::new().on_request(&["authorization"])))
    }

    fn on_request(&self, request: &Request<'_>) -> Decision {
        let user = request.header("authorization").and_then(|value| self.user(&request.router(), &value));
        user.map_or_else(|| self.refuse(), |user| self.forward(&user))
    }
}

weir_sdk::export!(BasicAuth);

impl BasicAuth {
    /// `key` is random: without it nobody can make credentials that pass for remembered ones.
    fn new(config: &Config, key: u128) -> Result<Self, Error> {
        let header_field = (!config.header_field.is_empty()).then(|| header::name(&config.header_field)).transpose()?;
        Ok(Self {
            users: Users::parse(&config.users_file, &config.users)?,
            challenge: challenge(&config.realm)?,
            header_field,
            remove_header: config.remove_header,
            verified: RefCell::new(Verified::new(key)),
        })
    }

    /// The name of the user whose credentials these are. The router is part of what is remembered, so that how fast an
    /// answer comes tells nothing about the use of other routers.
    fn user(&self, router: &str, authorization: &[u8]) -> Option<Rc<[u8]>> {
        let fingerprint = self.verified.borrow().fingerprint(router, authorization);
        if let Some(user) = self.verified.borrow().user(fingerprint) {
            return Some(user);
        }
        let user = self.users.verify(&Credentials::parse(authorization)?)?;
        self.verified.borrow_mut().remember(fingerprint, Rc::clone(&user));
        Some(user)
    }

    fn forward(&self, user: &[u8]) -> Decision {
        if self.header_field.is_none() && !self.remove_header {
            return Decision::pass();
        }
        let mut edit = RequestEdit::new();
        if let Some(name) = &self.header_field {
            edit = edit.set(name, user);
        }
        if self.remove_header {
            edit = edit.remove("authorization");
        }
        edit.into()
    }

    fn refuse(&self) -> Decision {
        Reply::new(401)
            .header("content-type", "text/plain")
            .header("www-authenticate", self.challenge.as_slice())
            .body("401 Unauthorized\n")
            .into()
    }
}

fn challenge(realm: &str) -> Result<Vec<u8>, Error> {
    let realm = if realm.is_empty() { "traefik" } else { realm };
    let quoted = realm.replace('\\', "\\\\").replace('"', "\\\"");
    header::value("realm", &format!("Basic realm=\"{quoted}\""))
}

#[cfg(test)]
mod tests {
    use weir_sdk::testing::request;

    use super::*;

    /// `admin` with the password `admin`.
    const ADMIN: &str = "admin:$apr1$c5IwaNCW$VpEXax7LtUneLsElXFWCI.";

    fn basic_auth(config: Config) -> BasicAuth {
        let config = Config { users: vec![ADMIN.to_owned()], ..config };
        BasicAuth::new(&config, 7).expect("a configuration of a test is valid")
    }

    fn ask(auth: &BasicAuth, authorization: &str) -> Decision {
        auth.on_request(&request("GET", "http://example.com/", &[("Authorization", authorization)]))
    }

    fn refusal(realm: &str) -> Decision {
        Reply::new(401)
            .header("content-type", "text/plain")
            .header("www-authenticate", format!("Basic realm={realm}"))
            .body("401 Unauthorized\n")
            .into()
    }

    #[test]
    fn asks_who_brings_no_valid_credentials() {
        let auth = basic_auth(Config::default());
        assert_eq!(auth.on_request(&request("GET", "http://example.com/", &[])), refusal("\"traefik\""));
        for bad in ["Basic !!!", "Bearer x", "Basic YWRtaW46", "Basic bm9ib2R5OmFkbWlu", "Basic", ""] {
            assert_eq!(ask(&auth, bad), refusal("\"traefik\""), "{bad}");
        }
    }

    #[test]
    fn quotes_the_realm() {
        let auth = basic_auth(Config { realm: r#"the "vault""#.to_owned(), ..Config::default() });
        assert_eq!(ask(&auth, "Basic x"), refusal(r#""the \"vault\"""#));
        assert!(challenge("a\r\nSet-Cookie: b").is_err());
    }

    #[test]
    fn passes_the_first_time_and_from_memory() {
        let auth = basic_auth(Config::default());
        for _ in 0..2 {
            assert_eq!(ask(&auth, "basic YWRtaW46YWRtaW4="), Decision::pass());
        }
    }

    #[test]
    fn a_remembered_user_is_remembered_for_one_router() {
        let auth = basic_auth(Config::default());
        assert_eq!(ask(&auth, "Basic YWRtaW46YWRtaW4="), Decision::pass());
        let verified = auth.verified.borrow();
        let known = |router| verified.user(verified.fingerprint(router, b"Basic YWRtaW46YWRtaW4=")).is_some();
        assert!(known("test@file"));
        assert!(!known("other@file"));
    }

    #[test]
    fn tells_the_service_who_it_is() {
        let auth = basic_auth(Config { header_field: "X-User".to_owned(), remove_header: true, ..Config::default() });
        let expected = RequestEdit::new().set("x-user", "admin").remove("authorization");
        assert_eq!(ask(&auth, "Basic YWRtaW46YWRtaW4="), expected.into());
    }
}
