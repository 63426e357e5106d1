//! Host names to values: exact names before wildcards of one label, as certificates (RFC 6125, section 6.4.3) and
//! `tls.options` want it.

use std::borrow::Cow;
use std::collections::hash_map::{Entry, HashMap};

/// A map from host names and `*.` patterns; a look-up allocates only for names in upper case.
#[derive(Debug)]
pub(super) struct Names<T> {
    exact: HashMap<Box<str>, T>,
    /// By what follows `*.`.
    wildcard: HashMap<Box<str>, T>,
}

impl<T> Names<T> {
    /// The value of `host`: its own, or that of the pattern with `*` in place of its first label.
    pub(super) fn find(&self, host: &str) -> Option<&T> {
        let host = canonical(host);
        if let Some(value) = self.exact.get(&*host) {
            return Some(value);
        }
        let (_, parent) = host.split_once('.')?;
        self.wildcard.get(parent)
    }

    /// The place for the value of `name`, which may be a pattern.
    pub(super) fn entry(&mut self, name: &str) -> Entry<'_, Box<str>, T> {
        let name = canonical(name);
        match name.strip_prefix("*.") {
            Some(parent) => self.wildcard.entry(parent.into()),
            None => self.exact.entry(name.into()),
        }
    }
}

impl<T> Default for Names<T> {
    fn default() -> Self {
        Self { exact: HashMap::new(), wildcard: HashMap::new() }
    }
}

/// Lower case, without the root's dot.
pub(super) fn canonical(host: &str) -> Cow<'_, str> {
    let host = host.strip_suffix('.').unwrap_or(host);
    if host.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(host.to_ascii_lowercase())
    } else {
        Cow::Borrowed(host)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_exact_names_before_wildcards_of_one_label() {
        let mut names = Names::default();
        for name in ["*.Example.com", "a.example.com", "example.org."] {
            names.entry(name).or_insert(name);
        }
        for (host, expected) in [
            ("a.example.com", Some("a.example.com")),
            ("A.EXAMPLE.com.", Some("a.example.com")),
            ("b.example.com", Some("*.Example.com")),
            ("b.b.example.com", None),
            ("example.com", None),
            ("example.org", Some("example.org.")),
            ("", None),
        ] {
            assert_eq!(names.find(host).copied(), expected, "{host}");
        }
    }
}
