//! `pluginName`: marks requests with a text.

use weir_sdk::{About, Decision, Error, Middleware, Plan, Request, RequestEdit};

pub struct Plugin {
    text: String,
}

/// The options, as the schema in `ABOUT` has them.
#[derive(serde::Deserialize)]
pub struct Config {
    text: String,
}

impl Middleware for Plugin {
    type Config = Config;

    const ABOUT: About = weir_sdk::about!("pluginName").config_schema(
        r#"{
            "type": "object",
            "required": ["text"],
            "properties": {"text": {"type": "string", "description": "the value of X-Mark"}}
        }"#,
    );

    fn init(config: Config) -> Result<(Self, Plan), Error> {
        if config.text.is_empty() {
            return Err(Error::invalid_config("use an empty `text`"));
        }
        Ok((Self { text: config.text }, Plan::new().on_request(&[])))
    }

    fn on_request(&self, _: &Request<'_>) -> Decision {
        RequestEdit::new().set("x-mark", &*self.text).into()
    }
}

weir_sdk::export!(Plugin);

#[cfg(test)]
mod tests {
    use weir_sdk::testing::request;

    use super::*;

    #[test]
    fn requests_are_marked() {
        let plugin = Plugin { text: "seen".to_owned() };
        let decision = plugin.on_request(&request("GET", "https://example.com/", &[]));
        assert_eq!(decision, RequestEdit::new().set("x-mark", "seen").into());
    }

    #[test]
    fn an_empty_text_is_refused() {
        assert!(Plugin::init(Config { text: String::new() }).is_err());
    }
}
