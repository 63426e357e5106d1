//! Reaches out by `fetch`: to where its configuration says, so often, and tells what came of it in an answer of its own.

use serde::Deserialize;
use weir_sdk::{About, Decision, Error, Middleware, Plan, Reply, Request, fetch};

pub struct Reaches(Config);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Config {
    /// What the path of the request is appended to, unless a header names a whole URL.
    url: String,
    #[serde(default = "once")]
    times: u32,
}

impl Middleware for Reaches {
    type Config = Config;

    const ABOUT: About = weir_sdk::about!("reaches")
        .config_schema(
            r#"{"type": "object", "properties": {"url": {"type": "string"}, "times": {"type": "integer"}},
                "required": ["url"]}"#,
        )
        .urls(&["/url"]);

    fn init(config: Config) -> Result<(Self, Plan), Error> {
        Ok((Self(config), Plan::new().on_request(&["x-url"])))
    }

    fn on_request(&self, request: &Request<'_>) -> Decision {
        let url = match request.header("x-url") {
            Some(url) => String::from_utf8_lossy(&url).into_owned(),
            None => self.0.url.clone(),
        };
        let outcomes: Vec<String> = (0..self.0.times).map(|_| outcome(&url)).collect();
        Reply::new(200).body(outcomes.join("\n")).into()
    }
}

weir_sdk::export!(Reaches);

/// Status and body, or the kind of the error and its words.
fn outcome(url: &str) -> String {
    let request = fetch::Request {
        method: "GET".to_owned(),
        url: url.to_owned(),
        headers: Vec::new(),
        body: Vec::new(),
        timeout_ms: 0,
        max_body: 1 << 16,
        tls: None,
    };
    match fetch::send(&request) {
        Ok(answer) => format!("{} {}", answer.status, String::from_utf8_lossy(&answer.body)),
        Err(error) => format!("{:?}: {}", error.kind, error.message),
    }
}

const fn once() -> u32 {
    1
}
