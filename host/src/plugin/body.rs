//! Bodies that middlewares want at hand: peeked at, or waited for as a whole.
//!
//! `instance` calls it before it takes an instance, so that none is held while a client or a server is slow. What was read
//! stays in the body and goes on from there.

use http::HeaderValue;
use http::header::CONTENT_LENGTH;
use http_body::Body as _;

use super::Configured;
use super::edit::BodyMode;
use crate::http::{Ahead, Body, Broken, Failure, Request, Response};

/// What `on-request` may see of the body.
pub(super) async fn of_request(plugin: &Configured, request: &mut Request) -> Result<Box<Ahead>, Failure> {
    let mode = plugin.plan.request_body.within(plugin.plugin.policy.body);
    let ahead = match read(mode, &mut request.body).await {
        Ok(ahead) => ahead,
        Err(Problem::TooLong(_)) => return Err(Failure::ContentTooLarge),
        Err(Problem::Broken(broken)) => return Err(broken.of_request()),
    };
    // Not every server takes a body of which it does not hear the length, and now there is one to tell.
    let headers = &mut request.head.headers;
    if ahead.is_all && ahead.length > 0 && !headers.contains_key(CONTENT_LENGTH) {
        headers.insert(CONTENT_LENGTH, HeaderValue::from(ahead.length));
    }
    Ok(ahead)
}

/// What `on-response` may see of the body.
pub(super) async fn of_response(plugin: &Configured, response: &mut Response) -> Result<Box<Ahead>, Failure> {
    let mode = plugin.plan.response_body.within(plugin.plugin.policy.body);
    read(mode, response.body_mut()).await.map_err(|problem| match problem {
        Problem::TooLong(limit) => {
            let (name, wanted) = (&plugin.name, "wants the whole body of a response that has more than");
            Failure::BadAnswer(format!("the middleware `{name}` {wanted} {limit} bytes").into())
        }
        Problem::Broken(broken) => broken.of_response(),
    })
}

enum Problem {
    /// It has more bytes than these.
    TooLong(u64),
    Broken(Broken),
}

async fn read(mode: BodyMode, body: &mut Body) -> Result<Box<Ahead>, Problem> {
    let limit = match mode {
        BodyMode::None => return Ok(Box::default()),
        BodyMode::Peek(bytes) => {
            let mut ahead = body.read_ahead(bytes).await.map_err(Problem::Broken)?;
            ahead.shorten(bytes);
            return Ok(Box::new(ahead));
        }
        BodyMode::Buffered(limit) => limit,
    };
    if !body.is_end_stream() && body.size_hint().lower() > limit {
        return Err(Problem::TooLong(limit));
    }
    let ahead = body.read_ahead(limit.saturating_add(1)).await.map_err(Problem::Broken)?;
    if ahead.length > limit { Err(Problem::TooLong(limit)) } else { Ok(Box::new(ahead)) }
}

impl BodyMode {
    /// Not more than the administrator allows.
    fn within(self, at_most: u64) -> Self {
        match self {
            Self::None => Self::None,
            Self::Peek(bytes) => Self::Peek(bytes.min(at_most)),
            Self::Buffered(bytes) => Self::Buffered(bytes.min(at_most)),
        }
    }
}
