//! The eleven matchers: their names, what arguments they take, and whether a request has what they ask for.
//!
//! <https://doc.traefik.io/traefik/reference/routing-configuration/http/routing/rules-and-priority/#rules>

use std::fmt;
use std::net::IpAddr;
use std::ops::Range;

use http::HeaderName;
use http::header::HOST;
use ipnet::{IpNet, Ipv4Net};

use super::literal::{Literal, Quoted};
use super::parse::Call;
use super::pattern::Pattern;
use super::{Error, Subject, query};

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Matcher {
    /// The network is truncated, and IPv4 where it was written as IPv4-mapped IPv6.
    ClientIp(IpNet),
    Header(HeaderName, String),
    HeaderRegexp(HeaderName, Pattern),
    Host(HostName),
    HostRegexp(Pattern),
    Method(String),
    Path(String),
    PathPrefix(String),
    PathRegexp(Pattern),
    /// The value is empty for `Query` (and `QueryRegexp`) with one argument.
    Query(String, String),
    QueryRegexp(String, Pattern),
}

/// Lower case, without trailing dot.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum HostName {
    All,
    Exact(String),
    /// What follows the asterisk of `*.a.example`, dot included.
    Wildcard(String),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Kind {
    ClientIp,
    Header,
    HeaderRegexp,
    Host,
    HostRegexp,
    Method,
    Path,
    PathPrefix,
    PathRegexp,
    Query,
    QueryRegexp,
}

impl Matcher {
    /// Gives a call its meaning.
    ///
    /// # Errors
    ///
    /// A wrong number of arguments, or an argument that the matcher cannot use.
    pub(super) fn new(kind: Kind, call: &Call<'_>) -> Result<Self, Error> {
        if let Some(empty) = call.arguments.iter().find(|argument| argument.value.is_empty()) {
            return Err(Error::at(empty.span.clone(), "an argument must not be empty"));
        }
        Ok(match (kind, call.arguments.as_slice()) {
            (Kind::ClientIp, [network]) => Self::ClientIp(parse_network(network)?),
            (Kind::Header, [name, value]) => Self::Header(parse_header_name(name)?, value.value.clone()),
            (Kind::HeaderRegexp, [name, value]) => Self::HeaderRegexp(parse_header_name(name)?, parse_pattern(value)?),
            (Kind::Host, [name]) => Self::Host(parse_host(name)?),
            (Kind::HostRegexp, [pattern]) => Self::HostRegexp(parse_host_pattern(pattern)?),
            (Kind::Method, [method]) => Self::Method(method.value.to_ascii_uppercase()),
            (Kind::Path, [path]) => Self::Path(parse_path(path)?),
            (Kind::PathPrefix, [path]) => Self::PathPrefix(parse_path(path)?),
            (Kind::PathRegexp, [pattern]) => Self::PathRegexp(parse_pattern(pattern)?),
            (Kind::Query | Kind::QueryRegexp, [name]) => Self::Query(name.value.clone(), String::new()),
            (Kind::Query, [name, value]) => Self::Query(name.value.clone(), value.value.clone()),
            (Kind::QueryRegexp, [name, value]) => Self::QueryRegexp(name.value.clone(), parse_pattern(value)?),
            _ => return Err(wrong_count(kind, call)),
        })
    }

    pub(super) fn matches(&self, subject: &Subject<'_>) -> bool {
        match self {
            Self::ClientIp(network) => network.contains(&subject.client.to_canonical()),
            // In Go the Host field is no header, so that no rule of Traefik ever finds it.
            Self::Header(HOST, _) | Self::HeaderRegexp(HOST, _) => false,
            Self::Header(name, value) => subject.headers.get_all(name).iter().any(|field| field == value),
            Self::HeaderRegexp(name, pattern) => {
                let mut fields = subject.headers.get_all(name).iter();
                fields.any(|field| pattern.matches(&String::from_utf8_lossy(field.as_bytes())))
            }
            Self::Host(name) => name.matches(subject.host),
            Self::HostRegexp(pattern) => pattern.matches(subject.host),
            Self::Method(method) => subject.method.as_str() == method,
            Self::Path(path) => subject.path == path,
            Self::PathPrefix(prefix) => subject.path.starts_with(prefix),
            Self::PathRegexp(pattern) => pattern.matches(subject.path),
            Self::Query(name, value) => {
                let mut values = query::values(subject.query.unwrap_or_default(), name);
                values.any(|encoded| query::equals(encoded, value))
            }
            Self::QueryRegexp(name, pattern) => {
                let mut values = query::values(subject.query.unwrap_or_default(), name);
                values.any(|encoded| pattern.matches(&query::decode(encoded)))
            }
        }
    }
}

impl fmt::Display for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ClientIp(network) if network.prefix_len() == network.max_prefix_len() => {
                write!(f, "ClientIP(`{}`)", network.addr())
            }
            Self::ClientIp(network) => write!(f, "ClientIP(`{network}`)"),
            Self::Header(name, value) => write!(f, "Header({}, {})", Quoted(name.as_str()), Quoted(value)),
            Self::HeaderRegexp(name, pattern) => {
                write!(f, "HeaderRegexp({}, {})", Quoted(name.as_str()), Quoted(pattern.as_str()))
            }
            Self::Host(HostName::All) => f.write_str("Host(`*`)"),
            Self::Host(HostName::Exact(name)) => write!(f, "Host({})", Quoted(name)),
            Self::Host(HostName::Wildcard(rest)) => write!(f, "Host({})", Quoted(&format!("*{rest}"))),
            Self::HostRegexp(pattern) => write!(f, "HostRegexp({})", Quoted(pattern.as_str())),
            Self::Method(method) => write!(f, "Method({})", Quoted(method)),
            Self::Path(path) => write!(f, "Path({})", Quoted(path)),
            Self::PathPrefix(path) => write!(f, "PathPrefix({})", Quoted(path)),
            Self::PathRegexp(pattern) => write!(f, "PathRegexp({})", Quoted(pattern.as_str())),
            Self::Query(name, value) if value.is_empty() => write!(f, "Query({})", Quoted(name)),
            Self::Query(name, value) => write!(f, "Query({}, {})", Quoted(name), Quoted(value)),
            Self::QueryRegexp(name, pattern) => {
                write!(f, "QueryRegexp({}, {})", Quoted(name), Quoted(pattern.as_str()))
            }
        }
    }
}

impl HostName {
    fn matches(&self, host: &str) -> bool {
        match self {
            Self::All => true,
            Self::Exact(name) => host == name,
            Self::Wildcard(rest) => host.find('.').is_some_and(|dot| host[dot..] == *rest),
        }
    }

    pub(super) fn certificate_name(&self) -> Option<String> {
        match self {
            Self::All => None,
            Self::Exact(name) => Some(name.clone()),
            Self::Wildcard(rest) => Some(format!("*{rest}")),
        }
    }
}

impl Kind {
    const ALL: [(&str, Self); 11] = [
        ("ClientIP", Self::ClientIp),
        ("Header", Self::Header),
        ("HeaderRegexp", Self::HeaderRegexp),
        ("Host", Self::Host),
        ("HostRegexp", Self::HostRegexp),
        ("Method", Self::Method),
        ("Path", Self::Path),
        ("PathPrefix", Self::PathPrefix),
        ("PathRegexp", Self::PathRegexp),
        ("Query", Self::Query),
        ("QueryRegexp", Self::QueryRegexp),
    ];

    /// The matcher of a name, in the casings that Traefik knows: `PathPrefix`, `pathprefix`, `PATHPREFIX` and
    /// `Pathprefix`.
    ///
    /// # Errors
    ///
    /// No matcher is called so.
    pub(super) fn named(name: &str, span: &Range<usize>) -> Result<Self, Error> {
        let Some((proper, kind)) = Self::ALL.into_iter().find(|(proper, _)| proper.eq_ignore_ascii_case(name)) else {
            return Err(unknown(name, span.clone()));
        };
        let lower_after = |skip: usize| name.bytes().skip(skip).all(|byte| byte.is_ascii_lowercase());
        let all_upper = name.bytes().all(|byte| byte.is_ascii_uppercase());
        if name == proper || all_upper || lower_after(1) {
            return Ok(kind);
        }
        Err(unknown(name, span.clone()).with_help(format!("write `{proper}`")))
    }

    fn arity(self) -> &'static str {
        match self {
            Self::Header | Self::HeaderRegexp => "two arguments",
            Self::Query | Self::QueryRegexp => "one or two arguments",
            _ => "one argument",
        }
    }
}

fn unknown(name: &str, span: Range<usize>) -> Error {
    let error = Error::at(span, format!("unknown matcher `{name}`"));
    let version_two = [("Headers", "Header"), ("HeadersRegexp", "HeaderRegexp"), ("HostHeader", "Host")];
    if let Some((_, successor)) = version_two.into_iter().find(|(old, _)| old.eq_ignore_ascii_case(name)) {
        return error.with_help(format!("since version 3 of the rule syntax it is called `{successor}`"));
    }
    if ["HostSNI", "HostSNIRegexp", "ALPN"].into_iter().any(|tcp| tcp.eq_ignore_ascii_case(name)) {
        return error.with_help("TCP routers have this matcher, HTTP routers do not");
    }
    if name.eq_ignore_ascii_case("not") {
        return error.with_help("write `!` for not");
    }
    let lower = name.to_ascii_lowercase();
    let distances = Kind::ALL.map(|(proper, _)| (strsim::osa_distance(&lower, &proper.to_ascii_lowercase()), proper));
    match distances.into_iter().min() {
        Some((distance, proper)) if distance <= 1 + proper.len() / 5 => {
            error.with_help(format!("did you mean `{proper}`?"))
        }
        _ => error.with_help(format!("the matchers are {}", Kind::ALL.map(|(proper, _)| proper).join(", "))),
    }
}

fn wrong_count(kind: Kind, call: &Call<'_>) -> Error {
    let found = call.arguments.len();
    let message = format!("`{}` takes {}, found {found}", call.name, kind.arity());
    let [first, second, ..] = call.arguments.as_slice() else {
        return Error::at(call.span.clone(), message);
    };
    match kind {
        Kind::Header | Kind::HeaderRegexp | Kind::Query | Kind::QueryRegexp => Error::at(call.span.clone(), message),
        _ => Error::at(second.span.start..call.arguments[found - 1].span.end, message).with_help(format!(
            "since version 3 of the rule syntax several values are several matchers: {0}({1}) || {0}({2})",
            call.name,
            Quoted(&first.value),
            Quoted(&second.value)
        )),
    }
}

fn parse_network(literal: &Literal) -> Result<IpNet, Error> {
    let text = literal.value.as_str();
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(IpNet::from(address.to_canonical()));
    }
    let Ok(network) = text.parse::<IpNet>() else {
        let message = format!("`{text}` is neither an IP address nor a network such as `10.0.0.0/8`");
        return Err(Error::at(literal.span.clone(), message));
    };
    if let IpNet::V6(network) = network
        && let Some(address) = network.addr().to_ipv4_mapped()
        && let Some(prefix) = network.prefix_len().checked_sub(96)
    {
        return Ok(Ipv4Net::new_assert(address, prefix).trunc().into());
    }
    Ok(network.trunc())
}

fn parse_header_name(literal: &Literal) -> Result<HeaderName, Error> {
    let invalid = || Error::at(literal.span.clone(), format!("`{}` cannot name a header", literal.value));
    HeaderName::from_bytes(literal.value.as_bytes()).map_err(|_| invalid())
}

fn parse_host(literal: &Literal) -> Result<HostName, Error> {
    if !literal.value.is_ascii() {
        return Err(not_ascii(literal));
    }
    if literal.value == "*" {
        return Ok(HostName::All);
    }
    let mut name = literal.value.to_ascii_lowercase();
    if name.ends_with('.') {
        name.pop();
    }
    if name.is_empty() {
        return Err(Error::at(literal.span.clone(), "`.` is no host"));
    }
    Ok(match name.strip_prefix('*') {
        Some(rest) if rest.starts_with('.') => HostName::Wildcard(rest.to_owned()),
        _ => HostName::Exact(name),
    })
}

/// Unlike Traefik it refuses the placeholders of version 2, which match no host in version 3.
fn parse_host_pattern(literal: &Literal) -> Result<Pattern, Error> {
    if !literal.value.is_ascii() {
        return Err(not_ascii(literal));
    }
    let Some(placeholder) = find_placeholder(&literal.value) else {
        return parse_pattern(literal);
    };
    let help = r"since version 3 of the rule syntax it is a plain regular expression, such as `^[a-z]+\.a\.example$`";
    let message = format!("`{}` is a placeholder of version 2", &literal.value[placeholder.clone()]);
    Err(Error::at(literal.place(placeholder), message).with_help(help))
}

/// The place of `{name:expression}`, in which braces may be nested.
fn find_placeholder(text: &str) -> Option<Range<usize>> {
    let start = text.match_indices('{').map(|(at, _)| at).find(|&at| {
        let name = text[at + 1..].split(|c: char| c != '_' && !c.is_ascii_alphanumeric()).next().unwrap_or_default();
        name.starts_with(|c: char| !c.is_ascii_digit()) && text[at + 1 + name.len()..].starts_with(':')
    })?;
    let mut depth = 0_usize;
    let end = text[start..].find(|c: char| {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        depth == 0
    });
    Some(start..end.map_or(text.len(), |length| start + length + 1))
}

fn not_ascii(literal: &Literal) -> Error {
    Error::at(literal.span.clone(), format!("`{}` is not ASCII", literal.value))
        .with_help("write an internationalised name in its encoded form, `xn--…`")
}

fn parse_path(literal: &Literal) -> Result<String, Error> {
    if literal.value.starts_with('/') {
        return Ok(literal.value.clone());
    }
    let slashed = format!("/{}", literal.value);
    Err(Error::at(literal.span.clone(), format!("the path `{}` does not start with `/`", literal.value))
        .with_help(format!("write {}", Quoted(&slashed))))
}

fn parse_pattern(literal: &Literal) -> Result<Pattern, Error> {
    Pattern::new(&literal.value).map_err(|error| Error { span: literal.place(error.span.clone()), ..error })
}
