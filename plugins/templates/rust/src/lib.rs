//! Puts a header of its own on every request: `x-plugin-name`, with the text of the configuration.

use weir_sdk::{About, Decision, Error, Middleware, Plan, Request, RequestEdit, header};

const SCHEMA: &str = r#"{
  "type": "object",
  "properties": {"text": {"type": "string", "description": "what the header says"}},
  "required": ["text"],
  "additionalProperties": false
}"#;

/// One configured middleware. The host makes several instances, and calls each for one request at a time.
pub struct Plugin {
    text: Vec<u8>,
}

#[derive(serde::Deserialize)]
pub struct Config {
    text: String,
}

impl Middleware for Plugin {
    type Config = Config;

    const ABOUT: About = weir_sdk::about!("pluginName").config_schema(SCHEMA);

    fn init(config: Config) -> Result<(Self, Plan), Error> {
        let text = header::value("x-plugin-name", &config.text)?;
        Ok((Self { text }, Plan::new().on_request(&[])))
    }

    fn on_request(&self, _: &Request<'_>) -> Decision {
        RequestEdit::new().set("x-plugin-name", self.text.clone()).into()
    }
}

weir_sdk::export!(Plugin);

#[cfg(test)]
mod tests {
    use weir_sdk::testing::request;

    use super::*;

    fn init(text: &str) -> Result<Plugin, Error> {
        Plugin::init(Config { text: text.to_owned() }).map(|(plugin, _)| plugin)
    }

    #[test]
    fn puts_the_text_into_the_header() {
        let plugin = init("grüezi").expect("a text that is a header");
        let decision = plugin.on_request(&request("GET", "http://localhost/", &[]));
        assert_eq!(decision, RequestEdit::new().set("x-plugin-name", "grüezi").into());
    }

    #[test]
    fn refuses_a_text_that_is_no_header() {
        assert!(init("a\nb").is_err());
    }
}
