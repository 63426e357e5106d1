//! Replies with the secrets that it had in `init`, and then with that whose name the header `x-ask` says.

use serde::Deserialize;
use weir_sdk::{About, Decision, Error, Middleware, Plan, Reply, Request, Secret, secrets};

pub struct Tells {
    text: String,
}

#[derive(Deserialize)]
pub struct Config {}

impl Middleware for Tells {
    type Config = Config;

    const ABOUT: About = weir_sdk::about!("tells")
        .secrets(&[Secret::required("TELLS_TOKEN"), Secret::optional("TELLS_NOTE")])
        .config_schema(r#"{"type": "object"}"#);

    fn init(Config {}: Config) -> Result<(Self, Plan), Error> {
        let text = format!("{} {}", told("TELLS_TOKEN"), told("TELLS_NOTE"));
        Ok((Self { text }, Plan::new().on_request(&["x-ask"])))
    }

    fn on_request(&self, request: &Request<'_>) -> Decision {
        let name = request.header("x-ask").unwrap_or_default();
        Reply::new(200).body(format!("{} {}", self.text, told(&String::from_utf8_lossy(&name)))).into()
    }
}

weir_sdk::export!(Tells);

fn told(name: &str) -> String {
    secrets::get(name).unwrap_or_else(|| "none".to_owned())
}
