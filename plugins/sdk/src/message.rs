//! The request and the response as a middleware reads them. Headers that the plan named are at hand; others are fetched
//! from the host when they are asked for. Never changes anything: see `edit`.

use std::borrow::Cow;

use crate::bindings::weir::plugin::message;
use crate::bindings::weir::plugin::types::{RequestHead, ResponseHead};
use crate::connection;

/// A request on its way to the service.
pub struct Request<'a> {
    head: RequestHead,
    fields: Fields<'a>,
}

/// A response on its way to the client.
pub struct Response<'a> {
    status: u16,
    fields: Fields<'a>,
    handed: Vec<Option<Vec<u8>>>,
}

/// Where headers and body come from.
pub(crate) enum Fields<'a> {
    Host {
        /// Names of the headers that came with the call.
        names: &'a [String],
    },
    /// A message of a test.
    #[cfg(not(target_arch = "wasm32"))]
    Given { headers: Vec<(String, Vec<u8>)>, body: Vec<u8>, is_complete: bool },
}

impl<'a> Request<'a> {
    pub(crate) const fn from_host(head: RequestHead, names: &'a [String]) -> Self {
        Self::new(head, Fields::Host { names })
    }

    pub(crate) const fn new(head: RequestHead, fields: Fields<'a>) -> Self {
        Self { head, fields }
    }

    /// As sent; methods are case-sensitive.
    #[must_use]
    pub fn method(&self) -> &str {
        &self.head.method
    }

    /// Whether the client reached the proxy over TLS; what a proxy before this one says is in `x-forwarded-proto`.
    #[must_use]
    pub const fn tls(&self) -> bool {
        self.head.tls
    }

    /// Host and, where it was sent, port: `example.com:8443`, `[::1]`. It is the header `host`: name that in the plan if you
    /// always read it.
    #[must_use]
    pub fn authority(&self) -> Cow<'_, str> {
        match self.header("host") {
            Some(Cow::Borrowed(host)) => String::from_utf8_lossy(host),
            Some(Cow::Owned(host)) => String::from_utf8(host).unwrap_or_default().into(),
            None => Cow::Borrowed(""),
        }
    }

    /// Path and query, still percent-encoded: `/a%20b?c=d`. For the path alone: `path().split('?').next() == Some("/login")`.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.head.path_with_query
    }

    /// IP address of the connection, never from a header, without port, brackets or zone: `192.0.2.1`, `2001:db8::1`. The host is
    /// asked for it: see [`connection`].
    #[must_use]
    pub fn client_address(&self) -> String {
        connection::client().address
    }

    /// The router that was chosen: `dashboard@file`. The host is asked for it: see [`connection`].
    #[must_use]
    pub fn router(&self) -> String {
        connection::router()
    }

    /// The first field line of that name, which is lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<Cow<'_, [u8]>> {
        self.fields.first(name, &self.head.headers)
    }

    /// All field lines of that name, which is lower case.
    #[must_use]
    pub fn header_all(&self, name: &str) -> Vec<Vec<u8>> {
        self.fields.all(name)
    }

    /// What the plan asked for with [`Plan::request_body`](crate::Plan::request_body); empty if it asked for nothing. Each call
    /// copies it. No `Content-Encoding` is decoded.
    #[must_use]
    pub fn body(&self) -> Vec<u8> {
        self.fields.body()
    }

    /// Whether [`body`](Self::body) is all of it. May be false of one that is just as long as `BodyMode::Peek` says.
    #[must_use]
    pub fn body_complete(&self) -> bool {
        self.fields.body_complete()
    }

    /// A message of a test with this body, of which more may follow.
    #[cfg(not(target_arch = "wasm32"))]
    #[must_use]
    pub fn with_body(self, body: &[u8], is_complete: bool) -> Self {
        Self { fields: self.fields.with_body(body, is_complete), ..self }
    }
}

impl<'a> Response<'a> {
    pub(crate) fn from_host(head: ResponseHead, names: &'a [String]) -> Self {
        Self { status: head.status, handed: head.headers, fields: Fields::Host { names } }
    }

    #[cfg(not(target_arch = "wasm32"))]
    pub(crate) const fn new(status: u16, fields: Fields<'a>) -> Self {
        Self { status, fields, handed: Vec::new() }
    }

    /// The status code.
    #[must_use]
    pub const fn status(&self) -> u16 {
        self.status
    }

    /// The first field line of that name, which is lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<Cow<'_, [u8]>> {
        self.fields.first(name, &self.handed)
    }

    /// All field lines of that name, which is lower case.
    #[must_use]
    pub fn header_all(&self, name: &str) -> Vec<Vec<u8>> {
        self.fields.all(name)
    }

    /// What the plan asked for with [`Plan::response_body`](crate::Plan::response_body); empty if it asked for nothing. Each call
    /// copies it. No `Content-Encoding` is decoded.
    #[must_use]
    pub fn body(&self) -> Vec<u8> {
        self.fields.body()
    }

    /// Whether [`body`](Self::body) is all of it. May be false of one that is just as long as `BodyMode::Peek` says.
    #[must_use]
    pub fn body_complete(&self) -> bool {
        self.fields.body_complete()
    }

    /// A message of a test with this body, of which more may follow.
    #[cfg(not(target_arch = "wasm32"))]
    #[must_use]
    pub fn with_body(self, body: &[u8], is_complete: bool) -> Self {
        Self { fields: self.fields.with_body(body, is_complete), ..self }
    }
}

impl Fields<'_> {
    fn first<'s>(&'s self, name: &str, handed: &'s [Option<Vec<u8>>]) -> Option<Cow<'s, [u8]>> {
        match self {
            Self::Host { names } => match names.iter().position(|handed| handed == name) {
                Some(index) => handed.get(index)?.as_deref().map(Cow::Borrowed),
                None => message::get(name).map(Cow::Owned),
            },
            #[cfg(not(target_arch = "wasm32"))]
            Self::Given { headers, .. } => {
                headers.iter().find(|(given, _)| given == name).map(|(_, value)| Cow::Borrowed(value.as_slice()))
            }
        }
    }

    fn all(&self, name: &str) -> Vec<Vec<u8>> {
        match self {
            Self::Host { .. } => message::get_all(name),
            #[cfg(not(target_arch = "wasm32"))]
            Self::Given { headers, .. } => {
                headers.iter().filter(|(given, _)| given == name).map(|(_, value)| value.clone()).collect()
            }
        }
    }

    fn body(&self) -> Vec<u8> {
        match self {
            Self::Host { .. } => message::body(),
            #[cfg(not(target_arch = "wasm32"))]
            Self::Given { body, .. } => body.clone(),
        }
    }

    fn body_complete(&self) -> bool {
        match self {
            Self::Host { .. } => message::body_complete(),
            #[cfg(not(target_arch = "wasm32"))]
            Self::Given { is_complete, .. } => *is_complete,
        }
    }

    #[cfg(not(target_arch = "wasm32"))]
    fn with_body(self, body: &[u8], is_complete: bool) -> Self {
        match self {
            Self::Given { headers, .. } => Self::Given { headers, body: body.to_vec(), is_complete },
            Self::Host { .. } => self,
        }
    }
}
