//! The address of an entry point, and what can be wrong with it.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

use serde::Deserialize;

/// `[host]:port[/tcp|/udp]`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Address {
    /// A name, an IPv4 address or an IPv6 address without its brackets. Empty: every address of the machine.
    pub host: String,
    /// 0: any free port.
    pub port: u16,
    pub protocol: Protocol,
}

/// The protocol of an [`Address`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Protocol {
    #[default]
    Tcp,
    Udp,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)?;
        } else {
            write!(f, "{}:{}", self.host, self.port)?;
        }
        match self.protocol {
            Protocol::Tcp => Ok(()),
            Protocol::Udp => f.write_str("/udp"),
        }
    }
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (socket, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        let protocol = match protocol.to_ascii_lowercase().as_str() {
            "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            _ => return Err(format!("`{protocol}` is neither `tcp` nor `udp`")),
        };
        let Some((host, port)) = socket.rsplit_once(':') else {
            let fix = if socket.parse::<u16>().is_ok() { format!(":{socket}") } else { format!("{socket}:80") };
            return Err(format!("`{text}` has no port in it\nwrite `\"{fix}\"`"));
        };
        let port = port.parse().map_err(|_| format!("`{port}` is not a port between 0 and 65535"))?;
        let host = match host.strip_prefix('[') {
            None if host.contains(':') => {
                return Err(format!(
                    "`{text}` is ambiguous\nan IPv6 address stands in brackets: `\"[{host}]:{port}\"`"
                ));
            }
            None => host,
            Some(rest) => {
                let inside = rest.strip_suffix(']').unwrap_or(rest);
                let address = inside.split('%').next().unwrap_or(inside);
                address.parse::<Ipv6Addr>().map_err(|_| format!("`{inside}` is not an IPv6 address"))?;
                inside
            }
        };
        Ok(Self { host: host.to_owned(), port, protocol })
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::{Address, Protocol};

    #[test]
    fn addresses() {
        for (text, host, port, protocol) in [
            (":80", "", 80, Protocol::Tcp),
            ("127.0.0.1:8080", "127.0.0.1", 8080, Protocol::Tcp),
            ("[::1]:443/tcp", "::1", 443, Protocol::Tcp),
            ("localhost:53/UDP", "localhost", 53, Protocol::Udp),
        ] {
            let address: Address = text.parse().expect(text);
            assert_eq!(address, Address { host: host.to_owned(), port, protocol });
            assert_eq!(address.to_string().to_lowercase(), text.trim_end_matches("/tcp").to_lowercase());
        }
        for text in ["80", "localhost", "::1:80", ":http", ":70000", "[nope]:80", ":80/quic", ""] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }
}
