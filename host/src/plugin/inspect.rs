//! What a component imports and exports, and what its plan asks for, as people want to see it.
//!
//! `weir plugin check` shows it; nothing is decided by it.

use std::collections::BTreeSet;

use http::{HeaderName, StatusCode};
use wasmtime::component::Component;

use super::edit::{BodyMode, Plan};
use super::{Exports, Plugin};

/// The outside of a component.
#[derive(Debug)]
pub struct Interfaces {
    /// The version of `weir:plugin` that it was built for.
    pub version: String,
    /// Packages of WASI that it imports, such as `wasi:io`. They are there, and there is nothing in them.
    pub wasi: Vec<String>,
    /// Whether it works on bodies as they flow.
    pub filters_bodies: bool,
}

impl Plugin {
    pub fn interfaces(&self) -> Interfaces {
        let component = self.component();
        let outside = component.component_type();
        let exports: Vec<&str> = outside.exports(component.engine()).map(|(name, _)| name).collect();
        let of_ours = |name: &&str| name.starts_with("weir:plugin/");
        let version = exports.iter().copied().find(of_ours).and_then(|name| name.split_once('@'));
        let imports = outside.imports(component.engine()).map(|(name, _)| name);
        let wasi: BTreeSet<&str> =
            imports.filter(|name| name.starts_with("wasi:")).filter_map(|name| name.split('/').next()).collect();
        Interfaces {
            version: version.map(|(_, version)| version.to_owned()).unwrap_or_default(),
            wasi: wasi.into_iter().map(str::to_owned).collect(),
            filters_bodies: exports.iter().any(|name| name.starts_with("weir:plugin/body-filter")),
        }
    }

    fn component(&self) -> &Component {
        match &self.exports {
            Exports::Middleware(pre) => pre.instance_pre().component(),
            Exports::DnsProvider(pre) => pre.instance_pre().component(),
        }
    }
}

impl Plan {
    /// Headers that are handed over with `on-request`.
    pub fn request_headers(&self) -> &[HeaderName] {
        &self.request_headers
    }

    /// Headers that are handed over with `on-response`.
    pub fn response_headers(&self) -> &[HeaderName] {
        &self.response_headers
    }

    /// What is at hand of the body with `on-request`, in words, if so many bytes are `allowed`; `None`: nothing.
    pub fn request_body(&self, allowed: u64) -> Option<String> {
        self.request_body.at_hand(allowed, StatusCode::PAYLOAD_TOO_LARGE)
    }

    /// The same with `on-response`.
    pub fn response_body(&self, allowed: u64) -> Option<String> {
        self.response_body.at_hand(allowed, StatusCode::BAD_GATEWAY)
    }
}

impl BodyMode {
    fn at_hand(self, allowed: u64, refused: StatusCode) -> Option<String> {
        let (bytes, wanted) = match self {
            Self::None => return None,
            Self::Peek(bytes) => (bytes, format!("up to {bytes} bytes at hand")),
            Self::Buffered(bytes) => {
                let refused = refused.as_u16();
                (bytes, format!("all of it at hand, or {refused} where it has more than {bytes} bytes"))
            }
        };
        let beyond = format!(" (more than {allowed} only where `limits.body` says so)");
        Some(if bytes > allowed { wanted + &beyond } else { wanted })
    }
}
