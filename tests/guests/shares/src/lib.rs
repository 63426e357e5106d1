//! Does what the header `x-do` says, or in `init` the option `init`, and replies with what came of it:
//! `get SCOPE KEY`, `set SCOPE KEY VALUE [TTL]`, `increment SCOPE KEY BY [TTL]`, `take SCOPE BUCKET RATE BURST COST WAIT`,
//! `add COUNTER BY`, `observe HISTOGRAM VALUE`, `long KEY-BYTES VALUE-BYTES`, `fill FROM TO`, `explode COUNT`.

use std::str::FromStr;

use serde::Deserialize;
use weir_sdk::shared::{self, Scope};
use weir_sdk::{About, Decision, Error, Middleware, Plan, Reply, Request, metrics};

pub struct Shares {
    /// What came of the option `init`.
    done: Option<String>,
}

#[derive(Deserialize)]
pub struct Config {
    init: Option<String>,
}

impl Middleware for Shares {
    type Config = Config;

    const ABOUT: About = weir_sdk::about!("shares")
        .config_schema(r#"{"type": "object", "properties": {"init": {"type": "string"}, "note": {"type": "string"}}}"#);

    fn init(Config { init }: Config) -> Result<(Self, Plan), Error> {
        Ok((Self { done: init.map(|what| act(&what)) }, Plan::new().on_request(&["x-do"])))
    }

    fn on_request(&self, request: &Request<'_>) -> Decision {
        let what = request.header("x-do").unwrap_or_default();
        let result = match (&*what, &self.done) {
            (b"", Some(done)) => done.clone(),
            (what, _) => act(&String::from_utf8_lossy(what)),
        };
        Reply::new(200).header("x-version", env!("CARGO_PKG_VERSION")).body(result).into()
    }
}

weir_sdk::export!(Shares);

fn act(what: &str) -> String {
    let words: Vec<&str> = what.split_whitespace().collect();
    match words[..] {
        ["get", scope, key] => {
            let value = shared::get(self::scope(scope), key);
            value.map_or_else(|| "none".to_owned(), |value| String::from_utf8_lossy(&value).into_owned())
        }
        ["set", scope, key, value, ref ttl @ ..] => {
            shown(shared::set(self::scope(scope), key, value.as_bytes(), ttl.first().map(|ttl| number(ttl))))
        }
        ["increment", scope, key, by, ref ttl @ ..] => {
            shown(shared::increment(self::scope(scope), key, number(by), ttl.first().map(|ttl| number(ttl))))
        }
        ["take", scope, bucket, rate, burst, cost, wait] => {
            let taken =
                shared::take(self::scope(scope), bucket, number(rate), number(burst), number(cost), number(wait));
            format!("{taken:?}")
        }
        ["long", key, value] => {
            shown(shared::set(Scope::Plugin, &"k".repeat(number(key)), &vec![b'v'; number(value)], None))
        }
        ["fill", from, to] => {
            for number in number::<u32>(from)..number::<u32>(to) {
                let set = shared::set(Scope::Plugin, &format!("fill-{number}"), b"", None);
                set.expect("there is always room for a new one");
            }
            "filled".to_owned()
        }
        _ => counts(&words),
    }
}

fn counts(words: &[&str]) -> String {
    let labels = [("path".to_owned(), "a \"b\"\\\n".to_owned())];
    match *words {
        ["add", counter, by] => metrics::add(counter, number(by), &labels),
        ["observe", histogram, value] => metrics::observe(histogram, number(value), &[]),
        ["explode", count] => (0..number::<u32>(count))
            .for_each(|number| metrics::add("explosion", 1, &[("number".to_owned(), number.to_string())])),
        _ => return "?".to_owned(),
    }
    "counted".to_owned()
}

fn scope(name: &str) -> Scope {
    match name {
        "plugin" => Scope::Plugin,
        "middleware" => Scope::Middleware,
        _ => Scope::Router,
    }
}

fn number<T: FromStr<Err: std::fmt::Debug>>(text: &str) -> T {
    text.parse().expect("a number")
}

fn shown<T: std::fmt::Debug>(result: Result<T, Error>) -> String {
    match result {
        Ok(value) => format!("{value:?}"),
        Err(error) => format!("{:?}: {}", error.kind, error.message),
    }
}
