//! What a guest decides, checked as a whole before anything of it is applied: a verdict that cannot be used has changed
//! nothing.
//!
//! `instance` makes it of what a call answers.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HOST};
use http::{HeaderValue, Method, StatusCode, Uri};

use super::Plugin;
use super::bindings::middleware::exports::weir::plugin::middleware as wit;
use super::bindings::middleware::weir::plugin::types;
use super::edit::{self, HeaderEdit};
use super::filter::Wanted;
use crate::http::{Body, Request, Response, ResponseHead, is_authority};
use crate::target;

pub(super) enum OnRequest {
    Pass,
    Change(RequestChange),
    Reply(Response),
}

pub(super) enum OnResponse {
    Pass,
    Change(ResponseChange),
    Reply(Response),
}

pub(super) struct RequestChange {
    method: Option<Method>,
    uri: Option<Uri>,
    headers: Vec<HeaderEdit>,
    authority: Option<HeaderValue>,
    body: Option<Bytes>,
    pub(super) delay: Duration,
    pub(super) filter: Option<Wanted>,
}

pub(super) struct ResponseChange {
    status: Option<StatusCode>,
    headers: Vec<HeaderEdit>,
    body: Option<Bytes>,
    pub(super) filter: Option<Wanted>,
}

/// The error says what of it cannot be used.
pub(super) fn on_request(verdict: wit::RequestVerdict, plugin: &Plugin) -> Result<OnRequest, String> {
    match verdict {
        wit::RequestVerdict::Pass => Ok(OnRequest::Pass),
        wit::RequestVerdict::Reply(reply) => edit::reply(reply).map(OnRequest::Reply),
        wit::RequestVerdict::Edit(edit) => RequestChange::of(edit, plugin).map(OnRequest::Change),
    }
}

/// The error says what of it cannot be used.
pub(super) fn on_response(verdict: wit::ResponseVerdict, plugin: &Plugin) -> Result<OnResponse, String> {
    match verdict {
        wit::ResponseVerdict::Pass => Ok(OnResponse::Pass),
        wit::ResponseVerdict::Reply(reply) => edit::reply(reply).map(OnResponse::Reply),
        wit::ResponseVerdict::Edit(edit) => ResponseChange::of(edit, plugin).map(OnResponse::Change),
    }
}

impl RequestChange {
    fn of(edit: types::RequestEdit, plugin: &Plugin) -> Result<Self, String> {
        let headers = edit::header_edits(edit.headers)?;
        headers.iter().try_for_each(|edit| plugin.policy.admits_edit(&plugin.name, edit.name()))?;
        headers.iter().try_for_each(HeaderEdit::check_host)?;
        let method = |method: String| match Method::from_bytes(method.as_bytes()) {
            Ok(Method::CONNECT) => Err("no server is asked for a tunnel (CONNECT)".to_owned()),
            Ok(method) => Ok(method),
            Err(_) => Err(format!("{method:?} is not a method")),
        };
        let uri = |path: String| target::parse(&path).map_err(|error| format!("the path {path:?} {error}"));
        let authority = |authority: String| {
            plugin.policy.admits_edit(&plugin.name, &HOST)?;
            let value = HeaderValue::from_str(&authority).ok().filter(|_| is_authority(authority.as_bytes()));
            value.ok_or_else(|| format!("{authority:?} is not an authority"))
        };
        Ok(Self {
            method: edit.method.map(method).transpose()?,
            uri: edit.path_with_query.map(uri).transpose()?,
            headers,
            authority: edit.authority.map(authority).transpose()?,
            body: edit.body.map(Bytes::from),
            delay: Duration::from_millis(edit.delay_ms.into()),
            filter: wanted(plugin, edit.filter)?,
        })
    }

    pub(super) fn apply(&mut self, request: &mut Request) {
        let head = &mut request.head;
        if let Some(method) = self.method.take() {
            head.method = method;
        }
        if let Some(uri) = self.uri.take() {
            head.uri = uri;
        }
        self.headers.iter().for_each(|edit| edit.apply_to_request(&mut head.headers));
        if let Some(authority) = self.authority.take() {
            head.headers.insert(HOST, authority);
        }
        if let Some(body) = self.body.take() {
            head.headers.remove(CONTENT_LENGTH);
            if !body.is_empty() {
                head.headers.insert(CONTENT_LENGTH, body.len().into());
            }
            request.body = body.into();
        }
    }
}

impl ResponseChange {
    fn of(edit: types::ResponseEdit, plugin: &Plugin) -> Result<Self, String> {
        Ok(Self {
            headers: edit::header_edits(edit.headers)?,
            status: edit.status.map(edit::final_status).transpose()?,
            body: edit.body.map(Bytes::from),
            filter: wanted(plugin, edit.filter)?,
        })
    }

    pub(super) fn apply(&mut self, head: &mut ResponseHead, body: &mut Body) {
        if let Some(status) = self.status {
            head.status = status;
        }
        self.headers.iter().for_each(|edit| edit.apply(&mut head.headers));
        if let Some(bytes) = self.body.take() {
            head.headers.remove(CONTENT_LENGTH);
            *body = bytes.into();
        }
    }
}

fn wanted(plugin: &Plugin, state: Option<Vec<u8>>) -> Result<Option<Wanted>, String> {
    state.map(|state| Wanted::of(plugin, state)).transpose()
}
