//! A name that a certificate can carry: a host, a wildcard or an address, in the one form in which names are compared.
//!
//! `wanted` reads names with it and `storage` compares them. It asks no DNS.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use idna::AsciiDenyList;
use sha2::{Digest, Sha256};

/// Lower case, in the ASCII form of IDNA, without the root's dot.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Name {
    Address(IpAddr),
    Host(String),
    /// What follows `*.`.
    Wildcard(String),
}

impl Name {
    /// Reads what a configuration or `acme.json` has.
    ///
    /// # Errors
    ///
    /// Words that stand after the name itself.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let text = text.trim();
        if text.is_empty() {
            return Err("is empty");
        }
        if let Some(address) = address(text) {
            return Ok(Self::Address(address));
        }
        let text = text.strip_suffix('.').unwrap_or(text);
        let Some(parent) = text.strip_prefix("*.") else {
            return Ok(Self::Host(host(text)?));
        };
        if parent.starts_with('*') {
            return Err(TWO_WILDCARDS);
        }
        match host(parent)? {
            parent if parent.len() > LONGEST_NAME - "*.".len() => Err(TOO_LONG),
            parent => Ok(Self::Wildcard(parent)),
        }
    }

    /// Whether a certificate for this name serves `other`: a wildcard stands for one label (RFC 6125, section 6.4.3).
    pub(crate) fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Wildcard(parent), Self::Host(host)) => {
                host.split_once('.').is_some_and(|(_, rest)| rest == parent.as_str())
            }
            (one, other) => one == other,
        }
    }

    /// Why no public authority signs this name, if that can be told from the name: words that stand after it.
    pub(crate) fn private_reason(&self) -> Option<&'static str> {
        let name = match self {
            Self::Address(address) => {
                return (!is_public(*address)).then_some("is an address of private or special use");
            }
            Self::Wildcard(parent) if !parent.contains('.') => return Some("stands for a whole top-level domain"),
            Self::Host(name) | Self::Wildcard(name) => name,
        };
        if PRIVATE_DOMAINS.iter().any(|domain| is_within(name, domain)) {
            return Some("is in a domain of private or special use");
        }
        if !name.contains('.') {
            return Some("is a name of the local network: it has no dot");
        }
        name.split('.').find_map(label_reason)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => write!(f, "{address}"),
            Self::Host(host) => f.write_str(host),
            Self::Wildcard(parent) => write!(f, "*.{parent}"),
        }
    }
}

/// Which certificate it is, over restarts and changes of the configuration: the set of its names.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) struct Identity(String);

impl Identity {
    pub(crate) fn new<'a>(names: impl IntoIterator<Item = &'a Name>) -> Self {
        Self::of_texts(names.into_iter().map(Name::to_string))
    }

    /// Of names as `acme.json` has them, some of which may be none.
    pub(crate) fn of_texts(names: impl IntoIterator<Item = impl AsRef<str>>) -> Self {
        let normal = |name: &str| match Name::parse(name) {
            Ok(name) => name.to_string(),
            Err(_) => name.trim().to_ascii_lowercase(),
        };
        let mut names: Vec<String> = names.into_iter().map(|name| normal(name.as_ref())).collect();
        names.sort_unstable();
        names.dedup();
        Self(names.join(","))
    }

    /// Spreads certificates over time: the same number for the same names, whichever version of Weir asks.
    pub(crate) fn seed(&self) -> u64 {
        let digest = Sha256::digest(&self.0);
        digest.iter().take(8).fold(0, |seed, byte| seed << 8 | u64::from(*byte))
    }
}

/// The names, separated by commas.
impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Traefik's words, which stand after the name in its own message.
pub(crate) const TWO_WILDCARDS: &str = "ACME does not allow '*.*' wildcard domain";

const LONGEST_NAME: usize = 253;
const LONGEST_LABEL: usize = 63;
const TOO_LONG: &str = "is longer than 253 characters";

/// Special-use domains (RFC 6761, 6762, 7686, 8375, 9476; none of `arpa` is for hosts), `internal` (reserved by ICANN) and those that networks took for
/// themselves and that no registry will hand out.
const PRIVATE_DOMAINS: [&str; 17] = [
    "alt",
    "arpa",
    "corp",
    "example",
    "home",
    "internal",
    "intranet",
    "invalid",
    "lan",
    "local",
    "localdomain",
    "localhost",
    "mail",
    "onion",
    "private",
    "test",
    "workgroup",
];

fn address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    let address: IpAddr = bare.unwrap_or(text).parse().ok()?;
    Some(address.to_canonical())
}

/// The ASCII form of a host's name.
fn host(text: &str) -> Result<String, &'static str> {
    if text.contains('*') {
        return Err("is no name: a wildcard stands for the whole first label, and there alone");
    }
    // Bounds the work: each character of a name is at least a byte of its ASCII form.
    if text.chars().count() > LONGEST_NAME {
        return Err(TOO_LONG);
    }
    let ascii = idna::domain_to_ascii_cow(text.as_bytes(), AsciiDenyList::EMPTY)
        .map_err(|_| "is no internationalised domain name (IDNA)")?;
    // Mapping may have made dots and spaces of other characters.
    let ascii = ascii.strip_suffix('.').unwrap_or(&ascii);
    if ascii.len() > LONGEST_NAME {
        return Err(TOO_LONG);
    }
    for label in ascii.split('.') {
        if label.is_empty() {
            return Err("has an empty label");
        }
        if label.len() > LONGEST_LABEL {
            return Err("has a label of more than 63 characters");
        }
        if !label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')) {
            return Err("has characters that no host name may have");
        }
    }
    let last = ascii.rsplit('.').next().unwrap_or(ascii);
    if last.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err("is neither a name nor an address: it ends in a number");
    }
    Ok(ascii.to_ascii_lowercase())
}

fn is_within(name: &str, domain: &str) -> bool {
    name.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// What RFC 5890, section 2.3.1, and the rules of public authorities say of a label.
fn label_reason(label: &str) -> Option<&'static str> {
    if label.contains('_') {
        return Some("has an underscore");
    }
    if label.starts_with('-') || label.ends_with('-') {
        return Some("has a label that begins or ends with a hyphen");
    }
    let is_reserved = label.get(2..4) == Some("--") && !label.starts_with("xn--");
    is_reserved.then_some("has a label with hyphens in third and fourth place")
}

fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

/// By IANA's registry of special-purpose addresses.
fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let is_shared = a == 100 && (64..128).contains(&b);
    let is_protocol_assignment = (a, b, c) == (192, 0, 0);
    let is_benchmark = a == 198 && matches!(b, 18 | 19);
    !(a == 0
        || a >= 224
        || is_shared
        || is_protocol_assignment
        || is_benchmark
        || address.is_documentation()
        || address.is_link_local()
        || address.is_loopback()
        || address.is_private())
}

/// Addresses are handed out of `2000::/3` alone.
fn is_public_v6(address: Ipv6Addr) -> bool {
    let [first, second, ..] = address.segments();
    let is_protocol_assignment = first == 0x2001 && second < 0x200;
    let is_documentation = (first, second) == (0x2001, 0xdb8) || first == 0x3fff && second < 0x1000;
    let is_tunnel = first == 0x2002;
    first & 0xe000 == 0x2000 && !is_protocol_assignment && !is_documentation && !is_tunnel
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_have_one_form() {
        let long_label = "a".repeat(64);
        let long_name = ["abcdefghi"; 26].join(".");
        for (text, expected) in [
            ("example.com", Ok("example.com")),
            (" Example.COM. ", Ok("example.com")),
            ("*.Example.com.", Ok("*.example.com")),
            ("bücher.example", Ok("xn--bcher-kva.example")),
            ("*.BÜCHER.example", Ok("*.xn--bcher-kva.example")),
            ("a。example", Ok("a.example")),
            ("xn--bcher-kva.example", Ok("xn--bcher-kva.example")),
            ("localhost", Ok("localhost")),
            ("_dmarc.example.com", Ok("_dmarc.example.com")),
            ("192.0.2.1", Ok("192.0.2.1")),
            ("2001:DB8:0::1", Ok("2001:db8::1")),
            ("[2001:db8::1]", Ok("2001:db8::1")),
            ("::ffff:192.0.2.1", Ok("192.0.2.1")),
            ("", Err("is empty")),
            ("  ", Err("is empty")),
            (".", Err("has an empty label")),
            ("a..example", Err("has an empty label")),
            (".example", Err("has an empty label")),
            ("*.", Err("is no name: a wildcard stands for the whole first label, and there alone")),
            ("*", Err("is no name: a wildcard stands for the whole first label, and there alone")),
            ("a.*.example", Err("is no name: a wildcard stands for the whole first label, and there alone")),
            ("a*.example", Err("is no name: a wildcard stands for the whole first label, and there alone")),
            ("*.*.example", Err("ACME does not allow '*.*' wildcard domain")),
            ("*.*", Err("ACME does not allow '*.*' wildcard domain")),
            ("a b.example", Err("has characters that no host name may have")),
            ("a.example:443", Err("has characters that no host name may have")),
            ("https://a.example/", Err("has characters that no host name may have")),
            ("a,b.example", Err("has characters that no host name may have")),
            ("xn--a.example", Err("is no internationalised domain name (IDNA)")),
            ("1.2.3.256", Err("is neither a name nor an address: it ends in a number")),
            (long_label.as_str(), Err("has a label of more than 63 characters")),
            (long_name.as_str(), Err("is longer than 253 characters")),
        ] {
            let name = Name::parse(text).map(|name| name.to_string());
            assert_eq!(name.as_deref().map_err(|problem| *problem), expected, "{text}");
        }
    }

    #[test]
    fn a_wildcard_covers_one_label() {
        for (one, other, expected) in [
            ("example.com", "example.com", true),
            ("*.example.com", "www.example.com", true),
            ("*.example.com", "example.com", false),
            ("*.example.com", "a.b.example.com", false),
            ("*.example.com", "*.example.com", true),
            ("*.com", "*.example.com", false),
            ("www.example.com", "*.example.com", false),
            ("192.0.2.1", "192.0.2.1", true),
            ("*.0.2.1x", "192.0.2.1x", true),
        ] {
            let (one, other) = (parse(one), parse(other));
            assert_eq!(one.covers(&other), expected, "{one} {other}");
        }
    }

    #[test]
    fn what_no_public_authority_signs_is_known() {
        for (name, is_private) in [
            ("example.com", false),
            ("*.example.com", false),
            ("xn--bcher-kva.com", false),
            ("latest", true),
            ("contest.com", false),
            ("mylocal.com", false),
            ("printer", true),
            ("a.local", true),
            ("*.local", true),
            ("*.com", true),
            ("a.internal", true),
            ("a.b.test", true),
            ("localhost", true),
            ("a.localhost", true),
            ("a.onion", true),
            ("a.home.arpa", true),
            ("a.lan", true),
            ("a_b.example.com", true),
            ("-a.example.com", true),
            ("a-.example.com", true),
            ("ab--c.example.com", true),
            ("1.1.1.1", false),
            ("100.64.0.1", true),
            ("100.128.0.1", false),
            ("10.1.2.3", true),
            ("127.0.0.1", true),
            ("169.254.169.254", true),
            ("172.16.0.1", true),
            ("192.0.0.8", true),
            ("192.0.2.1", true),
            ("192.168.0.1", true),
            ("198.19.0.1", true),
            ("224.0.0.1", true),
            ("255.255.255.255", true),
            ("0.0.0.0", true),
            ("2606:4700::1", false),
            ("2001:db8::1", true),
            ("3fff::1", true),
            ("2001::1", true),
            ("2001:4860::1", false),
            ("2002::1", true),
            ("::1", true),
            ("::", true),
            ("fc00::1", true),
            ("fe80::1", true),
            ("ff02::1", true),
            ("64:ff9b::1", true),
            ("::ffff:10.0.0.1", true),
        ] {
            assert_eq!(parse(name).private_reason().is_some(), is_private, "{name}");
        }
    }

    #[test]
    fn an_identity_is_a_set() {
        let identity = Identity::of_texts(["b.example.", "A.example", "a.example"]);
        assert_eq!(identity, Identity::new(&[parse("a.example"), parse("b.example")]));
        assert_eq!(identity.to_string(), "a.example,b.example");
        assert_ne!(identity, Identity::of_texts(["a.example"]));
        // What was written by one version is spread alike by the next.
        assert_eq!(identity.seed(), 0x2c3b_a6cd_ce09_fc2a);
    }

    fn parse(text: &str) -> Name {
        Name::parse(text).expect("it is a name")
    }

    proptest! {
        #[test]
        fn a_name_is_read_again_as_itself(text in r"(\*\.)?[a-zA-Z0-9_äß.:*-]{1,20}|\PC{0,12}") {
            if let Ok(name) = Name::parse(&text) {
                prop_assert_eq!(Name::parse(&name.to_string()), Ok(name.clone()));
                prop_assert!(name.to_string().is_ascii());
                prop_assert!(name.covers(&name));
                prop_assert!(!name.to_string().contains(','), "identities separate names by commas");
            }
        }
    }
}
