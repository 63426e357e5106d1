//! Where a plugin may reach: origins (RFC 6454) and kinds of addresses. Pure.
//!
//! `about` parses what plugins declare, `grants` compares it with what they ask for.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
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
    pub(super) fn of(url: &Uri) -> Result<Self, &'static str> {
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
    pub(super) fn parse_alone(text: &str) -> Result<Self, &'static str> {
        let url = Uri::from_str(text).map_err(|_| "it is no URL")?;
        if url.path_and_query().is_some_and(|path| path.as_str() != "/") || text.contains('#') {
            return Err("it has a path: an origin ends with its host or port");
        }
        Self::of(&url)
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

/// Whether an address is of the public internet, so that no machine of the proxy's own network can be meant.
pub(super) fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let is_special = match (a, b, c) {
        // "This network", and what is reserved from multicast on.
        (0 | 224.., _, _) => true,
        // Between a provider and its customers, protocol assignments, benchmarks (RFC 6890).
        (100, 64..=127, _) | (192, 0, 0) | (198, 18 | 19, _) => true,
        _ => address.is_private() || address.is_loopback() || address.is_link_local() || address.is_documentation(),
    };
    !is_special
}

/// Global unicast alone (RFC 4291), and what leads to an IPv4 address if that one is public.
fn is_public_v6(address: Ipv6Addr) -> bool {
    let [a, b, c, d, e, f, g, h] = address.segments();
    let embedded = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        is_public_v4(Ipv4Addr::new(a, b, c, d))
    };
    match (a, b) {
        // NAT64 (RFC 6052) and 6to4 (RFC 3056).
        (0x64, 0xff9b) if (c, d, e, f) == (0, 0, 0, 0) => embedded(g, h),
        (0x2002, _) => embedded(b, c),
        // Teredo and other assignments to protocols, documentation.
        (0x2001, 0..0x200 | 0xdb8) | (0x3fff, 0..0x1000) => false,
        (0x2000..0x4000, _) => true,
        _ => false,
    }
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

    #[test]
    fn addresses_of_ones_own_network_are_not_public() {
        for public in ["1.1.1.1", "100.63.0.1", "172.32.0.1", "198.20.0.1", "2606:4700::1111", "64:ff9b::101:101"] {
            assert!(is_public(public.parse().expect(public)), "{public}");
        }
        for own in [
            "0.0.0.0",
            "10.0.0.1",
            "100.64.0.1",
            "127.0.0.1",
            "169.254.169.254",
            "172.16.0.1",
            "192.168.0.1",
            "192.0.0.8",
            "198.18.0.1",
            "203.0.113.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::7f00:1",
            "::ffff:127.0.0.1",
            "64:ff9b::a00:1",
            "64:ff9b:1::1",
            "2001::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "ff02::1",
        ] {
            assert!(!is_public(own.parse().expect(own)), "{own}");
        }
    }
}
