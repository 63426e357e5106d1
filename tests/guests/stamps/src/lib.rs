//! Marks requests and responses with its version. The package `guest-stamps-again` is the same with a higher one.

use serde::Deserialize;
use weir_sdk::{
    About, Decision, Error, Middleware, Plan, Request, RequestEdit, Response, ResponseEdit, ResponseVerdict,
};

const VERSION: &str = env!("CARGO_PKG_VERSION");

pub struct Stamps;

/// Any options are fine, so that it can take the place of another plugin.
#[derive(Deserialize)]
pub struct Config {}

impl Middleware for Stamps {
    type Config = Config;

    const ABOUT: About = weir_sdk::about!("stamps").config_schema(r#"{"type": "object"}"#);

    fn init(Config {}: Config) -> Result<(Self, Plan), Error> {
        Ok((Self, Plan::new().on_request(&[]).on_response(&[])))
    }

    fn on_request(&self, request: &Request<'_>) -> Decision {
        Decision::from(RequestEdit::new().set("x-stamp", VERSION)).remember(request.path())
    }

    fn on_response(&self, state: &[u8], _: &Response<'_>) -> ResponseVerdict {
        ResponseEdit::new().set("x-stamp", VERSION).set("x-stamped-path", state).into()
    }
}

weir_sdk::export!(Stamps);
