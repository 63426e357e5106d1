//! What a component imports and exports, and what its plan asks for, as people want to see it.
//!
//! `weir plugin check` shows it; nothing is decided by it.

use std::collections::BTreeSet;

use http::HeaderName;
use wasmtime::component::Component;

use super::edit::Plan;
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
}
