//! Works on bodies, one way for each configuration: looks at them, waits for them, replaces them, filters them, and does
//! to them what a plugin must not do.

use std::hint::black_box;
use std::time::{Duration, Instant};

use serde::Deserialize;
use weir_sdk::{
    About, BodyFilter, BodyMode, Decision, Direction, Error, ErrorKind, Header, Middleware, Plan, Request, RequestEdit,
    Response, ResponseEdit, ResponseVerdict, connection,
};

pub struct Bodies(Config);

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Config {
    request_peek: Option<u32>,
    request_buffered: Option<u64>,
    request_filter: Option<String>,
    request_replace: Option<String>,
    response_peek: Option<u32>,
    response_buffered: Option<u64>,
    response_filter: Option<String>,
    response_replace: Option<String>,
    /// What a filter that marks adds at the end.
    mark: String,
}

impl Middleware for Bodies {
    type Config = Config;

    const ABOUT: About = weir_sdk::about!("bodies").config_schema(
        r#"{"type": "object", "additionalProperties": false, "properties": {
            "requestPeek": {"type": "integer"}, "requestBuffered": {"type": "integer"},
            "requestFilter": {"type": "string"}, "requestReplace": {"type": "string"},
            "responsePeek": {"type": "integer"}, "responseBuffered": {"type": "integer"},
            "responseFilter": {"type": "string"}, "responseReplace": {"type": "string"},
            "mark": {"type": "string"}}}"#,
    );

    fn init(config: Config) -> Result<(Self, Plan), Error> {
        let request = mode(config.request_peek, config.request_buffered);
        let response = mode(config.response_peek, config.response_buffered);
        let mut plan = Plan::new().request_body(request).response_body(response);
        if request != BodyMode::None || config.request_filter.is_some() || config.request_replace.is_some() {
            plan = plan.on_request(&[]);
        }
        if response != BodyMode::None || config.response_filter.is_some() || config.response_replace.is_some() {
            plan = plan.on_response(&[]);
        }
        Ok((Self(config), plan))
    }

    fn on_request(&self, request: &Request<'_>) -> Decision {
        let mut edit = RequestEdit::new().set("x-seen", seen(&request.body(), request.body_complete()));
        if let Some(text) = &self.0.request_replace {
            edit = edit.body(text.as_bytes());
        }
        if let Some(how) = &self.0.request_filter {
            if how == "tells" {
                edit = edit.set("x-told", format!("{} {}", request.authority(), facts()));
            }
            edit = edit.filter(how.as_bytes());
        }
        edit.into()
    }

    fn on_response(&self, _: &[u8], response: &Response<'_>) -> ResponseVerdict {
        let mut edit = ResponseEdit::new().set("x-seen", seen(&response.body(), response.body_complete()));
        if let Some(text) = &self.0.response_replace {
            edit = edit.body(text.as_bytes());
        }
        if let Some(how) = &self.0.response_filter {
            if how == "tells" {
                edit = edit.set("x-told", facts());
            }
            edit = edit.append("trailer", "x-count").filter(how.as_bytes());
        }
        edit.into()
    }
}

fn mode(peek: Option<u32>, buffered: Option<u64>) -> BodyMode {
    peek.map(BodyMode::Peek).or_else(|| buffered.map(BodyMode::Buffered)).unwrap_or(BodyMode::None)
}

/// Length, whether it is all, and how it begins.
fn seen(body: &[u8], is_complete: bool) -> String {
    format!("{} {is_complete} {}", body.len(), String::from_utf8_lossy(&body[..body.len().min(8)]))
}

/// Who asks, and by which way.
fn facts() -> String {
    let (router, entry_point) = (connection::router(), connection::entry_point());
    format!("{router} {entry_point} {} {}", connection::client().address, connection::original_path_with_query())
}

pub struct Filter {
    how: String,
    mark: String,
    count: usize,
}

impl BodyFilter for Filter {
    type Middleware = Bodies;

    fn new(middleware: &Bodies, direction: Direction, state: &[u8]) -> Self {
        let how = String::from_utf8_lossy(state).into_owned();
        assert!(how != "trapsAtTheBeginning", "on purpose");
        let direction = if direction == Direction::Request { "<" } else { ">" };
        Self { how, mark: format!("{}{direction}", middleware.0.mark), count: 0 }
    }

    fn chunk(&mut self, bytes: Vec<u8>) -> Result<Vec<u8>, Error> {
        assert!(!bytes.is_empty() && bytes.len() <= 64 << 10, "the host keeps to its sizes");
        self.count += bytes.len();
        let is_bad = bytes.windows(4).any(|window| window == b"boom");
        match self.how.as_str() {
            "upper" => Ok(bytes.to_ascii_uppercase()),
            "swallows" => Ok(Vec::new()),
            "expands" => Ok(bytes.repeat(16)),
            "errs" if is_bad => Err(Error::new(ErrorKind::Internal, "like `boom`")),
            "traps" if is_bad => panic!("on purpose"),
            "loops" if is_bad => loops(),
            "takesLong" => {
                takes_long();
                Ok(bytes)
            }
            "growsMemory" if is_bad => Ok(black_box(vec![b'x'; 1 << 30])),
            "answersTooMuch" if is_bad => Ok(vec![b'x'; (16 << 20) + 1]),
            _ => Ok(bytes),
        }
    }

    fn end(self, mut trailers: Vec<Header>) -> Result<(Vec<u8>, Vec<Header>), Error> {
        match self.how.as_str() {
            "marks" => Ok((self.mark.into_bytes(), trailers)),
            "tells" => Ok((facts().into_bytes(), trailers)),
            "counts" => {
                for (_, value) in &mut trailers {
                    value.push(b'!');
                }
                trailers.push(("x-count".to_owned(), self.count.to_string().into_bytes()));
                trailers.push(("set-cookie".to_owned(), b"a=b".to_vec()));
                Ok((Vec::new(), trailers))
            }
            "loopsAtTheEnd" => loops(),
            "endsWithFraming" => Ok((Vec::new(), vec![("content-length".to_owned(), b"1".to_vec())])),
            _ => Ok((Vec::new(), trailers)),
        }
    }
}

weir_sdk::export!(Bodies, filter = Filter);

fn takes_long() {
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(4) {
        black_box(begun);
    }
}

fn loops() -> ! {
    let mut count = 0_u64;
    loop {
        count = black_box(count.wrapping_add(1));
    }
}
