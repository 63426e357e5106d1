//! Where a name server is, as the configuration and `/etc/resolv.conf` write it.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use anyhow::{Context, bail};

pub(super) const PORT: u16 = 53;

const RESOLV_CONF: &str = "/etc/resolv.conf";
/// Where the system names none: Cloudflare's, as in Traefik.
const PUBLIC: [&str; 4] = ["1.1.1.1", "1.0.0.1", "2606:4700:4700::1111", "2606:4700:4700::1001"];

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address {
    host: String,
    port: u16,
}

/// The recursive servers to ask: those that are configured, else the system's, else public ones.
pub(super) fn resolvers(configured: &[String]) -> anyhow::Result<Vec<Address>> {
    if !configured.is_empty() {
        return configured.iter().map(|text| text.parse()).collect();
    }
    let system = std::fs::read_to_string(RESOLV_CONF).map(|text| name_servers(&text)).unwrap_or_default();
    if !system.is_empty() {
        return Ok(system);
    }
    PUBLIC.iter().map(|text| text.parse()).collect()
}

impl Address {
    /// All that the host stands for. One that is a name is looked up by the system.
    pub(super) async fn resolve(&self) -> io::Result<Vec<SocketAddr>> {
        Ok(tokio::net::lookup_host((self.host.as_str(), self.port)).await?.collect())
    }
}

/// `host[:port]`, where an IPv6 address may stand in brackets.
impl FromStr for Address {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let (host, port) = split(text.trim()).with_context(|| format!("`{text}` is not of the form host:port"))?;
        let port = match port {
            None => PORT,
            Some(port) => port.parse().with_context(|| format!("`{port}` in `{text}` is not a port"))?,
        };
        let is_name = |host: &str| host.chars().all(|c| c.is_ascii_alphanumeric() || "-._%".contains(c));
        if host.is_empty() || !(is_name(host) || host.parse::<IpAddr>().is_ok() || is_scoped(host)) {
            bail!("`{text}` is not of the form host:port");
        }
        Ok(Self { host: host.to_owned(), port })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            return write!(f, "[{}]:{}", self.host, self.port);
        }
        write!(f, "{}:{}", self.host, self.port)
    }
}

fn split(text: &str) -> Option<(&str, Option<&str>)> {
    if let Some(bracketed) = text.strip_prefix('[') {
        let (host, rest) = bracketed.split_once(']')?;
        return if rest.is_empty() { Some((host, None)) } else { Some((host, Some(rest.strip_prefix(':')?))) };
    }
    match text.split_once(':') {
        Some((host, port)) if !port.contains(':') => Some((host, Some(port))),
        // A name, or an IPv6 address without brackets.
        _ => Some((text, None)),
    }
}

/// Such as `fe80::1%eth0`.
fn is_scoped(host: &str) -> bool {
    host.split_once('%').is_some_and(|(address, _)| address.parse::<IpAddr>().is_ok())
}

fn name_servers(resolv_conf: &str) -> Vec<Address> {
    let servers = resolv_conf.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        (words.next() == Some("nameserver")).then(|| words.next()).flatten()
    });
    servers.filter_map(|server| server.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_in_all_forms() {
        for (text, expected) in [
            ("1.1.1.1", "1.1.1.1:53"),
            (" 1.1.1.1:5353 ", "1.1.1.1:5353"),
            ("dns.example.com", "dns.example.com:53"),
            ("dns.example.com:54", "dns.example.com:54"),
            ("::1", "[::1]:53"),
            ("[::1]", "[::1]:53"),
            ("[2606:4700::1111]:54", "[2606:4700::1111]:54"),
            ("fe80::1%eth0", "[fe80::1%eth0]:53"),
        ] {
            assert_eq!(text.parse::<Address>().expect(text).to_string(), expected);
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in
            ["", ":53", "1.1.1.1:", "1.1.1.1:dns", "1.1.1.1:70000", "[::1", "[::1]53", "https://dns.google", "a b"]
        {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_servers_of_the_system_are_read() {
        let text =
            "# comment\nsearch lan\nnameserver 192.0.2.1\nnameserver\t::1 # local\noptions ndots:5\nnameserver\n";
        let read: Vec<_> = name_servers(text).iter().map(Address::to_string).collect();
        assert_eq!(read, ["192.0.2.1:53", "[::1]:53"]);
    }
}
