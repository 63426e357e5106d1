//! What guests answer, checked: header edits, replies and plans in the host's own types.
//!
//! `plugin` calls it on everything that comes back from a guest. It never trusts a name, a value or a status.

use std::fmt;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

use super::Plugin;
use super::bindings::middleware::exports::weir::plugin::middleware as wit;
use super::bindings::middleware::weir::plugin::types;
use crate::http::{Response, X_FORWARDED_FOR, is_authority, may_be_taken_for, may_be_trailer};

/// The most header bytes that one verdict may set: names, values and 32 for each (as RFC 9113, section 6.5.2, counts).
const HEADER_BYTES_AT_MOST: usize = 128 << 10;
const HEADERS_AT_MOST: usize = 100;

/// Fields that frame the message or belong to one connection (RFC 9110, section 7.6.1): the host alone writes them.
const FRAMING: [HeaderName; 7] = [
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// What a configured plugin needs of the host: the checked form of WIT's `plan`.
#[derive(Debug, Default)]
pub struct Plan {
    pub on_request: bool,
    pub on_response: bool,
    pub request_edits: Vec<FixedEdit>,
    pub response_edits: Vec<FixedEdit>,
    pub(super) request_headers: Vec<HeaderName>,
    pub(super) response_headers: Vec<HeaderName>,
    pub(super) request_body: BodyMode,
    pub(super) response_body: BodyMode,
}

/// How much of a body is at hand when a call comes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum BodyMode {
    #[default]
    None,
    /// So many bytes, or all.
    Peek(u64),
    /// All of it, which is not more than so many bytes.
    Buffered(u64),
}

/// An edit that holds for every message, with the transport it is for.
#[derive(Debug)]
pub struct FixedEdit {
    edit: HeaderEdit,
    transport: wit::Transport,
}

#[derive(Debug)]
pub enum HeaderEdit {
    Set(HeaderName, HeaderValue),
    Append(HeaderName, HeaderValue),
    Remove(HeaderName),
}

impl FixedEdit {
    pub fn apply(&self, headers: &mut HeaderMap, tls: bool) {
        if self.is_for(tls) {
            self.edit.apply(headers);
        }
    }

    pub fn apply_to_request(&self, headers: &mut HeaderMap, tls: bool) {
        if self.is_for(tls) {
            self.edit.apply_to_request(headers);
        }
    }

    const fn is_for(&self, tls: bool) -> bool {
        match self.transport {
            wit::Transport::Any => true,
            wit::Transport::Plain => !tls,
            wit::Transport::Tls => tls,
        }
    }
}

impl fmt::Display for FixedEdit {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}", self.edit)?;
        match self.transport {
            wit::Transport::Any => Ok(()),
            wit::Transport::Plain => out.write_str(", without TLS"),
            wit::Transport::Tls => out.write_str(", with TLS"),
        }
    }
}

impl fmt::Display for HeaderEdit {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        match self {
            Self::Set(name, text) => write!(out, "set {name}: {}", value(text)),
            Self::Append(name, text) => write!(out, "append {name}: {}", value(text)),
            Self::Remove(name) => write!(out, "remove {name}"),
        }
    }
}

impl HeaderEdit {
    /// A request has one host, and one that everybody understands.
    pub(super) fn check_host(&self) -> Result<(), String> {
        match self {
            Self::Set(name, value) if *name == header::HOST && !is_authority(value.as_bytes()) => {
                Err(format!("{:?} is not an authority", String::from_utf8_lossy(value.as_bytes())))
            }
            Self::Append(name, _) | Self::Remove(name) if *name == header::HOST => {
                Err("a request has one `host`, which can be set alone".to_owned())
            }
            _ => Ok(()),
        }
    }

    pub(super) const fn name(&self) -> &HeaderName {
        match self {
            Self::Set(name, _) | Self::Append(name, _) | Self::Remove(name) => name,
        }
    }

    /// As [`Self::apply`]; and no spelling remains in which a client says itself what a middleware says of it, or takes
    /// away. `X_User` beside `X-User` is the same variable to many an application.
    pub fn apply_to_request(&self, headers: &mut HeaderMap) {
        self.apply(headers);
        let (Self::Set(name, _) | Self::Remove(name)) = self else { return };
        let is_alias = |other: &&HeaderName| *other != name && may_be_taken_for(other.as_str(), name.as_str());
        let aliases: Vec<HeaderName> = headers.keys().filter(is_alias).cloned().collect();
        for alias in aliases {
            headers.remove(alias);
        }
    }

    pub fn apply(&self, headers: &mut HeaderMap) {
        match self {
            Self::Set(name, value) => drop(headers.insert(name, value.clone())),
            Self::Append(name, value) => drop(headers.append(name, value.clone())),
            // An empty one tells `forward` not to write it.
            Self::Remove(name) if *name == X_FORWARDED_FOR => drop(headers.insert(name, HeaderValue::from_static(""))),
            Self::Remove(name) => drop(headers.remove(name)),
        }
    }
}

pub(super) fn plan(plan: wit::Plan, plugin: &Plugin) -> Result<Plan, String> {
    let on_request = plan.phases.contains(wit::Phases::REQUEST);
    let on_response = plan.phases.contains(wit::Phases::RESPONSE);
    let request_edits: Vec<FixedEdit> = plan.request_edits.into_iter().map(fixed_edit).collect::<Result<_, _>>()?;
    let names = request_edits.iter().map(|fixed| fixed.edit.name());
    names.into_iter().try_for_each(|name| plugin.policy.admits_edit(&plugin.name, name))?;
    request_edits.iter().try_for_each(|fixed| fixed.edit.check_host())?;
    Ok(Plan {
        on_request,
        on_response,
        request_edits,
        response_edits: plan.response_edits.into_iter().map(fixed_edit).collect::<Result<_, _>>()?,
        request_headers: plan.request_headers.iter().map(|name| header_name(name)).collect::<Result<_, _>>()?,
        response_headers: plan.response_headers.iter().map(|name| header_name(name)).collect::<Result<_, _>>()?,
        request_body: body_mode(plan.request_body, on_request, "request")?,
        response_body: body_mode(plan.response_body, on_response, "response")?,
    })
}

fn body_mode(mode: wit::BodyMode, is_called: bool, what: &str) -> Result<BodyMode, String> {
    let mode = match mode {
        wit::BodyMode::None | wit::BodyMode::Peek(0) => BodyMode::None,
        wit::BodyMode::Peek(bytes) => BodyMode::Peek(bytes.into()),
        wit::BodyMode::Buffered(bytes) => BodyMode::Buffered(bytes),
    };
    if mode != BodyMode::None && !is_called {
        return Err(format!("it asks for {what} bodies, but not for `on-{what}`, which would read them"));
    }
    Ok(mode)
}

fn fixed_edit(fixed: wit::FixedEdit) -> Result<FixedEdit, String> {
    Ok(FixedEdit { edit: header_edit(fixed.edit)?, transport: fixed.on })
}

pub(super) fn header_edits(edits: Vec<types::HeaderEdit>) -> Result<Vec<HeaderEdit>, String> {
    let edits: Vec<HeaderEdit> = edits.into_iter().map(header_edit).collect::<Result<_, _>>()?;
    let sizes = edits.iter().map(|edit| match edit {
        HeaderEdit::Set(name, value) | HeaderEdit::Append(name, value) => name.as_str().len() + value.len() + 32,
        HeaderEdit::Remove(_) => 32,
    });
    check_size(sizes)?;
    Ok(edits)
}

fn header_edit(edit: types::HeaderEdit) -> Result<HeaderEdit, String> {
    Ok(match edit {
        types::HeaderEdit::Set(line) => {
            let (name, value) = field(line)?;
            HeaderEdit::Set(name, value)
        }
        types::HeaderEdit::Append(line) => {
            let (name, value) = field(line)?;
            HeaderEdit::Append(name, value)
        }
        types::HeaderEdit::Remove(name) => HeaderEdit::Remove(editable(&name)?),
    })
}

pub(super) fn reply(reply: types::Reply) -> Result<Response, String> {
    let mut response = Response::new(Bytes::from(reply.body).into());
    *response.status_mut() = final_status(reply.status)?;
    *response.headers_mut() = fields(reply.headers)?;
    Ok(response)
}

/// Field lines of a guest's own, of a head or after a body.
pub(super) fn fields(lines: Vec<types::Header>) -> Result<HeaderMap, String> {
    check_size(lines.iter().map(|(name, value)| name.len() + value.len() + 32))?;
    let mut fields = HeaderMap::new();
    for line in lines {
        let (name, value) = field(line)?;
        fields.append(name, value);
    }
    Ok(fields)
}

/// A status that ends an exchange: 1xx answers are the host's.
pub(super) fn final_status(status: u16) -> Result<StatusCode, String> {
    match StatusCode::from_u16(status) {
        Ok(code) if (200..600).contains(&status) => Ok(code),
        _ => Err(format!("{status} is not the status of a final response")),
    }
}

fn check_size(sizes: impl ExactSizeIterator<Item = usize>) -> Result<(), String> {
    let count = sizes.len();
    if count > HEADERS_AT_MOST {
        return Err(format!("{count} header fields are too many: at most {HEADERS_AT_MOST} are accepted"));
    }
    let bytes: usize = sizes.sum();
    if bytes > HEADER_BYTES_AT_MOST {
        return Err(format!(
            "{bytes} bytes of header fields are too many: at most {HEADER_BYTES_AT_MOST} are accepted"
        ));
    }
    Ok(())
}

fn field((name, value): types::Header) -> Result<(HeaderName, HeaderValue), String> {
    let (field, value) = (editable(&name)?, header_value(&name, value)?);
    if field == header::TRAILER {
        check_announced(&value)?;
    }
    Ok((field, value))
}

/// `Trailer` may name what may come after a body, and nothing that a head alone may say.
fn check_announced(names: &HeaderValue) -> Result<(), String> {
    for name in names.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
        if !HeaderName::from_bytes(name).is_ok_and(|name| may_be_trailer(&name)) {
            return Err(format!("{:?} cannot be a trailer", String::from_utf8_lossy(name)));
        }
    }
    Ok(())
}

fn editable(name: &str) -> Result<HeaderName, String> {
    let name = header_name(name)?;
    if FRAMING.contains(&name) {
        return Err(format!("the header field `{name}` belongs to the connection and cannot be edited"));
    }
    Ok(name)
}

fn header_name(name: &str) -> Result<HeaderName, String> {
    HeaderName::from_bytes(name.as_bytes()).map_err(|_| format!("{name:?} is not the name of a header field"))
}

fn header_value(name: &str, value: Vec<u8>) -> Result<HeaderValue, String> {
    HeaderValue::from_maybe_shared(Bytes::from(value))
        .map_err(|_| format!("the value of the header field `{name}` has characters that no field may have"))
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::{ProptestConfig, Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest};
    use proptest::sample::select;

    use super::*;

    /// A field as a guest may answer it, well-behaved or not.
    fn field() -> impl Strategy<Value = (String, Vec<u8>)> {
        let framing = select(FRAMING.to_vec()).prop_map(|name| name.as_str().to_uppercase());
        let name = prop_oneof![3 => "[a-zA-Z-]{1,12}", 1 => framing, 1 => any::<String>()];
        let value = prop_oneof![3 => "[ -~]{0,20}".prop_map(String::into_bytes), 1 => vec(any::<u8>(), 0..20)];
        (name, value)
    }

    fn edit() -> impl Strategy<Value = types::HeaderEdit> {
        (field(), 0..3).prop_map(|((name, value), kind)| match kind {
            0 => types::HeaderEdit::Set((name, value)),
            1 => types::HeaderEdit::Append((name, value)),
            _ => types::HeaderEdit::Remove(name),
        })
    }

    /// Whether a message with these fields is one message, whoever reads it.
    fn is_one_message(headers: &HeaderMap) -> bool {
        let is_safe = |value: &HeaderValue| !value.as_bytes().iter().any(|byte| b"\r\n\0".contains(byte));
        headers.values().all(is_safe)
    }

    /// As many cases as `PROPTEST_CASES` says.
    fn cases() -> ProptestConfig {
        ProptestConfig { failure_persistence: None, ..ProptestConfig::default() }
    }

    proptest! {
        #![proptest_config(cases())]

        #[test]
        fn no_edit_changes_where_a_message_ends(edits in vec(edit(), 0..6)) {
            let mut headers = HeaderMap::new();
            for name in &FRAMING {
                headers.insert(name, HeaderValue::from_static("as it was"));
            }
            let Ok(edits) = header_edits(edits) else { return Ok(()) };
            edits.iter().for_each(|edit| edit.apply(&mut headers));
            prop_assert!(is_one_message(&headers), "{:?}", headers);
            for name in &FRAMING {
                prop_assert_eq!(headers.get_all(name).iter().collect::<Vec<_>>(), ["as it was"], "{}", name);
            }
        }

        #[test]
        fn a_reply_is_one_message(status in any::<u16>(), headers in vec(field(), 0..6), body in vec(any::<u8>(), 0..9)) {
            let Ok(response) = reply(types::Reply { status, headers, body }) else { return Ok(()) };
            prop_assert!((200..600).contains(&response.status().as_u16()));
            prop_assert!(is_one_message(response.headers()), "{:?}", response.headers());
            prop_assert!(FRAMING.iter().all(|name| !response.headers().contains_key(name)));
        }
    }

    #[test]
    fn edits_that_could_break_framing_are_refused() {
        for name in ["Content-Length", "transfer-encoding", "connection", "Upgrade", "keep-alive", "te", "a b", ""] {
            let edit = types::HeaderEdit::Set((name.to_owned(), b"1".to_vec()));
            assert!(header_edits(vec![edit]).is_err(), "{name}");
        }
        let injection = types::HeaderEdit::Set(("x".to_owned(), b"1\r\nx-evil: 1".to_vec()));
        assert!(header_edits(vec![injection]).is_err());
    }

    #[test]
    fn only_what_may_be_a_trailer_is_announced() {
        for (names, accepted) in [
            ("x-sum", true),
            ("X-Sum , Grpc-Status", true),
            ("", false),
            ("x-sum,", false),
            ("content-length", false),
            ("x-sum, host", false),
            ("a b", false),
        ] {
            let edit = types::HeaderEdit::Append(("trailer".to_owned(), names.as_bytes().to_vec()));
            assert_eq!(header_edits(vec![edit]).is_ok(), accepted, "{names:?}");
        }
    }

    #[test]
    fn a_body_is_asked_for_with_the_call_that_reads_it() {
        for (mode, is_called, expected) in [
            (wit::BodyMode::None, false, Ok(BodyMode::None)),
            (wit::BodyMode::Peek(0), false, Ok(BodyMode::None)),
            (wit::BodyMode::Peek(9), true, Ok(BodyMode::Peek(9))),
            (wit::BodyMode::Buffered(0), true, Ok(BodyMode::Buffered(0))),
            (wit::BodyMode::Buffered(u64::MAX), true, Ok(BodyMode::Buffered(u64::MAX))),
            (wit::BodyMode::Peek(9), false, Err(())),
            (wit::BodyMode::Buffered(0), false, Err(())),
        ] {
            assert_eq!(body_mode(mode, is_called, "request").map_err(drop), expected, "{mode:?}");
        }
    }

    #[test]
    fn only_final_statuses_are_replied_with() {
        for (status, accepted) in [(0, false), (101, false), (199, false), (200, true), (599, true), (600, false)] {
            assert_eq!(final_status(status).is_ok(), accepted, "{status}");
        }
    }

    #[test]
    fn too_many_or_too_large_fields_are_refused() {
        let edit = |bytes: usize| types::HeaderEdit::Set(("x-a".to_owned(), vec![b'a'; bytes]));
        assert!(header_edits((0..HEADERS_AT_MOST).map(|_| edit(1)).collect()).is_ok());
        assert!(header_edits((0..=HEADERS_AT_MOST).map(|_| edit(1)).collect()).is_err());
        assert!(header_edits(vec![edit(HEADER_BYTES_AT_MOST)]).is_err());
    }
}
