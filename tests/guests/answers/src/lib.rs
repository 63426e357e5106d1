//! Answers what its configuration says, however bad it is, and writes what no log should have.

use serde::Deserialize;
use weir_sdk::log::{self, Level};
use weir_sdk::{
    About, Decision, Error, FixedEdit, HeaderEdit, Middleware, Plan, Reply, Request, RequestEdit, Response,
    ResponseEdit, ResponseVerdict, Transport,
};

pub struct Answers(Config);

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Config {
    by: By,
    /// Fields, each a name and a value; taken as they are.
    set: Vec<(String, String)>,
    append: Vec<(String, String)>,
    remove: Vec<String>,
    status: Option<u16>,
    body: Option<String>,
    path: Option<String>,
    method: Option<String>,
    authority: Option<String>,
    delay_ms: u32,
    logs: Option<Logs>,
}

#[derive(Clone, Copy, Default, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase")]
enum By {
    /// Edits the request.
    #[default]
    Request,
    /// Replies in place of the service.
    Reply,
    /// Edits the response.
    Response,
    /// Replies in place of the response.
    LateReply,
    /// Edits every request, without a call.
    PlanOfRequests,
    /// Edits every response, without a call.
    PlanOfResponses,
    Trap,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Logs {
    Flood,
    LongLine,
    LongField,
    ControlCharacters,
}

impl Middleware for Answers {
    type Config = Config;

    const ABOUT: About = weir_sdk::about!("answers").config_schema(
        r#"{"type": "object", "additionalProperties": false, "properties": {
            "by": {"type": "string"},
            "set": {"type": "array", "items": {"type": "array", "items": {"type": "string"}}},
            "append": {"type": "array", "items": {"type": "array", "items": {"type": "string"}}},
            "remove": {"type": "array", "items": {"type": "string"}},
            "status": {"type": "integer"},
            "body": {"type": "string"}, "path": {"type": "string"}, "method": {"type": "string"},
            "authority": {"type": "string"}, "delayMs": {"type": "integer"}, "logs": {"type": "string"}}}"#,
    );

    fn init(config: Config) -> Result<(Self, Plan), Error> {
        let fixed = || config.edits().into_iter().map(|edit| FixedEdit { edit, on: Transport::Any }).collect();
        let plan = match config.by {
            By::Request | By::Reply | By::Trap => Plan::new().on_request(&[]),
            By::Response | By::LateReply => Plan::new().on_response(&[]),
            By::PlanOfRequests => Plan { request_edits: fixed(), ..Plan::new() },
            By::PlanOfResponses => Plan { response_edits: fixed(), ..Plan::new() },
        };
        Ok((Self(config), plan))
    }

    fn on_request(&self, _: &Request<'_>) -> Decision {
        let config = &self.0;
        if let Some(logs) = config.logs {
            logs.write();
        }
        match config.by {
            By::Trap => panic!("on purpose"),
            By::Reply => config.reply().into(),
            _ => Decision::from(RequestEdit {
                method: config.method.clone(),
                authority: config.authority.clone(),
                path_with_query: config.path.clone(),
                headers: config.edits(),
                body: config.body.clone().map(String::into_bytes),
                delay_ms: config.delay_ms,
                ..RequestEdit::new()
            }),
        }
    }

    fn on_response(&self, _: &[u8], _: &Response<'_>) -> ResponseVerdict {
        let config = &self.0;
        match config.by {
            By::LateReply => config.reply().into(),
            _ => ResponseVerdict::from(ResponseEdit {
                status: config.status,
                headers: config.edits(),
                body: config.body.clone().map(String::into_bytes),
                ..ResponseEdit::new()
            }),
        }
    }
}

weir_sdk::export!(Answers);

impl Config {
    /// The library would turn names to lower case.
    fn edits(&self) -> Vec<HeaderEdit> {
        let line = |(name, value): &(String, String)| (name.clone(), value.clone().into_bytes());
        let mut edits: Vec<HeaderEdit> = self.set.iter().map(|field| HeaderEdit::Set(line(field))).collect();
        edits.extend(self.append.iter().map(|field| HeaderEdit::Append(line(field))));
        edits.extend(self.remove.iter().cloned().map(HeaderEdit::Remove));
        edits
    }

    fn reply(&self) -> Reply {
        let field = |edit| match edit {
            HeaderEdit::Set(line) | HeaderEdit::Append(line) => Some(line),
            HeaderEdit::Remove(_) => None,
        };
        Reply {
            status: self.status.unwrap_or(200),
            headers: self.edits().into_iter().filter_map(field).collect(),
            body: self.body.clone().unwrap_or_default().into_bytes(),
        }
    }
}

impl Logs {
    fn write(self) {
        match self {
            Self::Flood => (0..1_000_000).for_each(|_| log::write(Level::Error, "again and again", &[])),
            Self::LongLine => log::write(Level::Error, &"long ".repeat(200 << 10), &[]),
            Self::LongField => {
                let field = ("field".to_owned(), "long ".repeat(200 << 10));
                log::write(Level::Error, "a short message", &[field]);
            }
            Self::ControlCharacters => {
                let text = "one\r\n2026-01-01T00:00:00Z ERROR two\u{1b}[31m\0three\u{202e}four\u{85}five";
                log::write(Level::Error, text, &[("a\nb".to_owned(), text.to_owned())]);
            }
        }
    }
}
