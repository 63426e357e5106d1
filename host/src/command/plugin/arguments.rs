//! What `weir plugin` can be told.
//!
//! `command::arguments` asks it. All that is not right is refused here, with clap's words.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{PathBufValueParser, PossibleValuesParser};
use clap::{Arg, ArgAction, ArgMatches, value_parser};
use http::{HeaderName, HeaderValue, Method, StatusCode, Uri};

use super::new::{self, Name};
use crate::http::is_authority;
use crate::target;

/// The client of requests that name none: an address for documents (RFC 5737).
const CLIENT: &str = "192.0.2.1";
const HOST: &str = "example.com";
/// Of one request. More of them are measured than looked at.
const TIMES_AT_MOST: i64 = 100_000;

const GRANTED: &str = "\
Here a component may do all that it asks for. A secret that it declares is the environment's variable of that name, `fetch` \
reaches what there is, and `shared` is empty at first.";

/// What was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    New(New),
    Check(Check),
    Run(Box<Run>),
    Bench(Box<Bench>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct New {
    pub name: Name,
    /// One of those that there are templates for.
    pub language: String,
    /// `None`: a folder of the plugin's name, here.
    pub into: Option<PathBuf>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    pub file: PathBuf,
    pub config: Option<Given>,
    pub json: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    pub file: PathBuf,
    pub config: Option<Given>,
    pub message: Message,
    /// How often the request is made.
    pub times: u32,
    pub json: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bench {
    pub file: PathBuf,
    pub config: Option<Given>,
    pub message: Message,
    /// For each call that is measured.
    pub time: Duration,
    pub json: bool,
}

/// A text of the command line, or the content of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Given {
    Text(String),
    File(PathBuf),
}

/// A request and the response to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub method: Method,
    /// Path and query.
    pub target: Uri,
    /// Of the request's URL.
    pub authority: HeaderValue,
    pub fields: Vec<(HeaderName, HeaderValue)>,
    pub body: Option<Given>,
    pub tls: bool,
    pub client: SocketAddr,
    pub status: StatusCode,
    pub response_fields: Vec<(HeaderName, HeaderValue)>,
    pub response_body: Option<Given>,
}

pub(in crate::command) fn grammar() -> clap::Command {
    clap::Command::new("plugin")
        .about("Begin, judge, call and measure a plugin without a proxy")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(
            clap::Command::new("new")
                .about("Write a small plugin that works, with a test, into a folder of its name")
                .arg(Arg::new("name").required(true).value_name("NAME").value_parser(Name::parse))
                .arg(
                    flag("lang", "LANGUAGE")
                        .required(true)
                        .ignore_case(true)
                        .value_parser(PossibleValuesParser::new(new::languages())),
                )
                .arg(flag("into", "DIR").value_parser(PathBufValueParser::new()).help("The project's folder instead")),
        )
        .subcommand(
            component("check").about("Say what a component is, wants and weighs, and whether a configuration suits it"),
        )
        .subcommand(
            with_message(component("run").about("Show what a component makes of a request and its response")).arg(
                flag("times", "N")
                    .value_parser(value_parser!(u32).range(1..=TIMES_AT_MOST))
                    .default_value("1")
                    .help("Make the request so often, and show the last: for limits and counters"),
            ),
        )
        .subcommand(
            with_message(component("bench").about("Measure what calls and instances of a component cost")).arg(
                flag("seconds", "N").value_parser(seconds).default_value("2").help("How long to measure each call"),
            ),
        )
}

/// `None` if it is no call of `weir plugin`.
pub(in crate::command) fn asked(matches: &ArgMatches) -> Option<Asked> {
    let (name, matches) = matches.subcommand()?;
    if name == "new" {
        return Some(Asked::New(New {
            name: one(matches, "name")?,
            language: one::<String>(matches, "lang")?.to_lowercase(),
            into: one(matches, "into"),
        }));
    }
    let file: PathBuf = one(matches, "file")?;
    let (config, json) = (one(matches, "config"), matches.get_flag("json"));
    match name {
        "check" => Some(Asked::Check(Check { file, config, json })),
        "run" => {
            let (message, times) = (message(matches)?, one(matches, "times")?);
            Some(Asked::Run(Box::new(Run { file, config, message, times, json })))
        }
        "bench" => {
            let (message, time) = (message(matches)?, one(matches, "seconds")?);
            Some(Asked::Bench(Box::new(Bench { file, config, message, time, json })))
        }
        _ => None,
    }
}

fn one<T: Clone + Send + Sync + 'static>(matches: &ArgMatches, id: &str) -> Option<T> {
    matches.get_one::<T>(id).cloned()
}

fn many<T: Clone + Send + Sync + 'static>(matches: &ArgMatches, id: &str) -> Vec<T> {
    matches.get_many::<T>(id).unwrap_or_default().cloned().collect()
}

fn flag(name: &'static str, value: &'static str) -> Arg {
    Arg::new(name).long(name).value_name(value)
}

/// A command on a component.
fn component(name: &'static str) -> clap::Command {
    clap::Command::new(name)
        .arg(
            Arg::new("file")
                .required(true)
                .value_name("FILE")
                .value_parser(PathBufValueParser::new())
                .help("The component"),
        )
        .arg(flag("config", "JSON|@FILE").value_parser(given).help("Its options, in JSON or YAML"))
        .arg(Arg::new("json").long("json").action(ArgAction::SetTrue).help("Print JSON"))
        .after_help(GRANTED)
}

fn with_message(command: clap::Command) -> clap::Command {
    command
        .arg(
            flag("request", "REQUEST")
                .value_parser(request_line)
                .default_value("GET /")
                .help("Method and path, or the whole URL: 'GET /x', 'POST https://example.com/x'"),
        )
        .arg(
            flag("header", "FIELD")
                .short('H')
                .action(ArgAction::Append)
                .value_parser(field)
                .help("A field of the request: 'accept: text/html'"),
        )
        .arg(flag("body", "TEXT|@FILE").value_parser(given).help("The request's body"))
        .arg(Arg::new("tls").long("tls").action(ArgAction::SetTrue).help("The client came over TLS, as with https"))
        .arg(flag("client", "ADDRESS").value_parser(client).default_value(CLIENT).help("Where the client is"))
        .arg(flag("response", "STATUS").value_parser(status).default_value("200").help("The response's status"))
        .arg(
            flag("response-header", "FIELD")
                .action(ArgAction::Append)
                .value_parser(field)
                .help("A field of the response: 'content-type: text/html'"),
        )
        .arg(flag("response-body", "TEXT|@FILE").value_parser(given).help("The response's body"))
}

fn message(matches: &ArgMatches) -> Option<Message> {
    let RequestLine { method, target, authority, tls } = one(matches, "request")?;
    Some(Message {
        method,
        target,
        authority,
        fields: many(matches, "header"),
        body: one(matches, "body"),
        tls: tls || matches.get_flag("tls"),
        client: one(matches, "client")?,
        status: one(matches, "response")?,
        response_fields: many(matches, "response-header"),
        response_body: one(matches, "response-body"),
    })
}

#[derive(Clone)]
struct RequestLine {
    method: Method,
    target: Uri,
    authority: HeaderValue,
    tls: bool,
}

fn request_line(text: &str) -> Result<RequestLine, String> {
    let (method, url) = text.trim().split_once(' ').unwrap_or_else(|| ("GET", text.trim()));
    let method = Method::from_bytes(method.as_bytes()).map_err(|_| format!("`{method}` is not a method"))?;
    let (tls, authority, target) = match url.split_once("://") {
        Some(("https", rest)) => (true, authority(rest), after_authority(rest)),
        Some(("http", rest)) => (false, authority(rest), after_authority(rest)),
        Some((scheme, _)) if !url.starts_with('/') => {
            return Err(format!("a client does not come by `{scheme}`: write a URL with `http` or `https`, or a path"));
        }
        _ => (false, HOST, url.trim()),
    };
    let target = target::parse(target).map_err(|problem| format!("the path `{target}` {problem}"))?;
    let value = HeaderValue::from_str(authority).ok().filter(|value| is_authority(value.as_bytes()));
    let authority = value.ok_or_else(|| format!("`{authority}` is not a host"))?;
    Ok(RequestLine { method, target, authority, tls })
}

fn authority(rest: &str) -> &str {
    rest.split(['/', '?']).next().unwrap_or(rest)
}

fn after_authority(rest: &str) -> &str {
    match rest.find('/') {
        Some(slash) => &rest[slash..],
        None => "/",
    }
}

fn field(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let (name, value) = text.split_once(':').ok_or("write `name: value`")?;
    let name = HeaderName::from_bytes(name.trim().as_bytes()).map_err(|_| format!("`{name}` is not a field's name"))?;
    let value = HeaderValue::from_str(value.trim()).map_err(|_| format!("`{value}` is not a field's value"))?;
    Ok((name, value))
}

fn given(text: &str) -> Result<Given, String> {
    match text.strip_prefix('@') {
        Some("") => Err("write a file's name behind `@`".to_owned()),
        Some(file) => Ok(Given::File(PathBuf::from(file))),
        None => Ok(Given::Text(text.to_owned())),
    }
}

fn client(text: &str) -> Result<SocketAddr, String> {
    let address = text.parse::<SocketAddr>().ok();
    let address = address.or_else(|| Some(SocketAddr::new(text.parse::<IpAddr>().ok()?, 50_000)));
    // As servers are told of it.
    let address = address.map(|address| SocketAddr::new(address.ip().to_canonical(), address.port()));
    address.ok_or_else(|| "write an IP address, or one with a port".to_owned())
}

fn status(text: &str) -> Result<StatusCode, String> {
    let status = text.parse::<StatusCode>().ok().filter(|status| (200..600).contains(&status.as_u16()));
    status.ok_or_else(|| "write a status from 200 to 599".to_owned())
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse::<f64>().ok().filter(|seconds| (0.01..=600.0).contains(seconds));
    seconds.map(Duration::from_secs_f64).ok_or_else(|| "write a number from 0.01 to 600".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Asked, String> {
        let matches =
            grammar().no_binary_name(true).try_get_matches_from(arguments).map_err(|error| error.to_string())?;
        asked(&matches).ok_or_else(|| "nothing is asked for".to_owned())
    }

    fn message(arguments: &[&str]) -> Message {
        match parse(&[&["run", "a.wasm"], arguments].concat()) {
            Ok(Asked::Run(run)) => run.message,
            other => panic!("{arguments:?}: {other:?}"),
        }
    }

    #[test]
    fn a_request_is_a_path_or_a_url() {
        for (request, method, tls, host, target) in [
            ("GET /", "GET", false, "example.com", "/"),
            ("/x?y=1", "GET", false, "example.com", "/x?y=1"),
            ("POST https://a.example:8443/x", "POST", true, "a.example:8443", "/x"),
            ("GET http://a.example", "GET", false, "a.example", "/"),
            ("/x?from=ftp://a", "GET", false, "example.com", "/x?from=ftp://a"),
        ] {
            let message = message(&["--request", request]);
            assert_eq!(message.method, method, "{request}");
            assert_eq!((message.tls, &message.authority), (tls, &HeaderValue::from_static(host)), "{request}");
            assert_eq!(message.target, target, "{request}");
        }
    }

    #[test]
    fn fields_and_bodies() {
        let message =
            message(&["-H", "A: b:c", "-H", "a:", "--body", "@b.txt", "--client", "::1", "--response-body", "x"]);
        let names: Vec<_> = message.fields.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
        assert_eq!(names, [("a", &b"b:c"[..]), ("a", b"")]);
        assert_eq!(message.body, Some(Given::File(PathBuf::from("b.txt"))));
        assert_eq!(message.response_body, Some(Given::Text("x".to_owned())));
        assert!(message.client.is_ipv6());
        assert_eq!(self::message(&["--client", "[::ffff:192.0.2.7]:1"]).client.to_string(), "192.0.2.7:1");
    }

    #[test]
    fn what_cannot_be_sent_is_refused() {
        for (arguments, reason) in [
            (&["--request", "GET x"][..], "does not start with a slash"),
            (&["--request", "G(T /"], "`G(T` is not a method"),
            (&["--request", "GET ftp://a/x"], "write a URL with `http` or `https`"),
            (&["--request", "GET http:///x"], "`` is not a host"),
            (&["-H", "accept"], "write `name: value`"),
            (&["-H", "a b: c"], "`a b` is not a field's name"),
            (&["--body", "@"], "write a file's name"),
            (&["--client", "localhost"], "write an IP address"),
            (&["--response", "101"], "write a status from 200 to 599"),
            (&["--times", "0"], "0 is not in 1..=100000"),
        ] {
            let error = parse(&[&["run", "a.wasm"], arguments].concat()).expect_err("it is refused");
            assert!(error.contains(reason), "{arguments:?}: {error}");
        }
        for arguments in [&["check"][..], &["new", "a"], &["new", "--lang", "rust"], &["new", "a", "--lang", "cobol"]] {
            parse(arguments).expect_err("it is refused");
        }
    }
}
