//! Web origins (RFC 6454): where a plugin may reach. Pure.
//!
//! Install files grant them and plugins declare them; the plugin host compares them with what is asked for.

use std::fmt;
use std::str::FromStr;

use http::Uri;
use http::uri::{Authority, Scheme};

/// Of names in the DNS (RFC 1035).
const HOST_BYTES_AT_MOST: usize = 253;

/// Scheme, host and port of a URL: what two URLs have in common that lead to the same server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebOrigin {
    scheme: Scheme,
    /// In lower case, IPv6 addresses in brackets.
    host: String,
    port: u16,
}

impl WebOrigin {
    /// Of an absolute URL. The error is in words and quotes nothing.
    pub fn of(url: &Uri) -> Result<Self, &'static str> {
        let scheme = match url.scheme() {
            Some(scheme) if *scheme == Scheme::HTTPS || *scheme == Scheme::HTTP => scheme.clone(),
            _ => return Err("it does not begin with `https://` or `http://`"),
        };
        let authority = url.authority().ok_or("it has no host")?;
        if authority.as_str().contains('@') {
            return Err("it has a user or a password before its host");
        }
        let port = port(authority, &scheme)?;
        let host = authority.host().to_ascii_lowercase();
        if host.is_empty() || host.len() > HOST_BYTES_AT_MOST || !host.chars().all(is_of_host) {
            return Err("its host is no name or address");
        }
        Ok(Self { scheme, host, port })
    }

    /// An origin and nothing behind it.
    pub fn parse_alone(text: &str) -> Result<Self, &'static str> {
        let url = Uri::from_str(text).map_err(|_| "it is no URL")?;
        let origin = Self::of(&url)?;
        if url.path_and_query().is_some_and(|path| path.as_str() != "/") || text.contains('#') {
            return Err("it has a path: an origin ends with its host or port");
        }
        Ok(origin)
    }
}

impl fmt::Display for WebOrigin {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}://{}", self.scheme, self.host)?;
        if self.port == default_port(&self.scheme) { Ok(()) } else { write!(out, ":{}", self.port) }
    }
}

fn port(authority: &Authority, scheme: &Scheme) -> Result<u16, &'static str> {
    match authority.as_str()[authority.host().len()..].strip_prefix(':') {
        None => Ok(default_port(scheme)),
        Some(_) => authority.port_u16().filter(|port| *port > 0).ok_or("its port is no number from 1 to 65535"),
    }
}

fn default_port(scheme: &Scheme) -> u16 {
    if *scheme == Scheme::HTTPS { 443 } else { 80 }
}

fn is_of_host(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | '[' | ':' | ']')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(url: &str) -> Result<String, &'static str> {
        WebOrigin::of(&Uri::from_str(url).expect(url)).map(|origin| origin.to_string())
    }

    #[test]
    fn one_origin_has_many_spellings() {
        for (url, origin) in [
            ("https://api.example/v2/domains?a=b", "https://api.example"),
            ("HTTPS://API.Example:443/", "https://api.example"),
            ("http://api.example:80", "http://api.example"),
            ("http://api.example:443", "http://api.example:443"),
            ("https://[::1]:8443/x", "https://[::1]:8443"),
            ("http://127.0.0.1:8081/api", "http://127.0.0.1:8081"),
        ] {
            assert_eq!(of(url).as_deref(), Ok(origin), "{url}");
        }
    }

    #[test]
    fn what_two_readers_could_read_in_two_ways_is_refused() {
        for (url, problem) in [
            ("https://api.example@evil.example/", "it has a user or a password before its host"),
            ("https://user:password@api.example/", "it has a user or a password before its host"),
            ("ftp://api.example/", "it does not begin with `https://` or `http://`"),
            ("/path", "it does not begin with `https://` or `http://`"),
            ("api.example:443", "it does not begin with `https://` or `http://`"),
            ("https://api.example:0/", "its port is no number from 1 to 65535"),
            ("https://api.example:99999/", "its port is no number from 1 to 65535"),
            ("https://api.example,evil.example/", "its host is no name or address"),
        ] {
            assert_eq!(of(url), Err(problem), "{url}");
        }
        for whole in ["https://api.example/", "https://api.example:8443"] {
            WebOrigin::parse_alone(whole).expect(whole);
        }
        for more in ["https://api.example/v2", "https://api.example/?a", "https://a.example/#", "https://*.example"] {
            WebOrigin::parse_alone(more).expect_err(more);
        }
    }
}
