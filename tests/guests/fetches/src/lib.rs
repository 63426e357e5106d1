//! Imports `weir:plugin/fetch`, the way to the network.

use weir_sdk::{About, Decision, Error, Middleware, Plan, Request, RequestEdit, fetch};

pub struct Fetches;

impl Middleware for Fetches {
    type Config = std::collections::BTreeMap<String, String>;

    const ABOUT: About = weir_sdk::about!("fetches");

    fn init(_: Self::Config) -> Result<(Self, Plan), Error> {
        Ok((Self, Plan::new().on_request(&[])))
    }

    fn on_request(&self, _: &Request<'_>) -> Decision {
        let answer = fetch::send(&fetch::Request {
            method: "GET".to_owned(),
            url: "http://192.0.2.1/".to_owned(),
            headers: Vec::new(),
            body: Vec::new(),
            timeout_ms: 1000,
            max_body: 1024,
            tls: None,
        });
        RequestEdit::new().set("x-fetched", if answer.is_ok() { "yes" } else { "no" }).into()
    }
}

weir_sdk::export!(Fetches);
