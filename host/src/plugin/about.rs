//! What a plugin says of itself, read once when it is loaded.
//!
//! `plugin` alone calls it. Names and origins are checked here, so that what is granted later is what was listed.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use serde_json::Value;
use tokio::time::timeout;
use wasmtime::component::InstancePre;

use super::bindings::middleware::exports::weir::plugin::description::{self, GuestIndices};
use super::imports::{State, printable};
use super::limits::{self, INIT_BUDGET};
use super::opaque;
use crate::config::WebOrigin;

/// A `describe` that waits for something would hold up a start.
const TIME_AT_MOST: Duration = Duration::from_secs(30);
/// Of variables, and of origins.
const ENTRIES_AT_MOST: usize = 64;
const NAME_BYTES_AT_MOST: usize = 128;
const VERSION_CHARACTERS_AT_MOST: usize = 64;
const SUMMARY_CHARACTERS_AT_MOST: usize = 500;

/// Of JSON Schema.
const TYPES: [&str; 7] = ["object", "array", "string", "integer", "number", "boolean", "null"];

/// What a plugin says of itself.
#[derive(Clone, Debug)]
pub struct About {
    pub version: String,
    pub summary: String,
    /// JSON Schema of its configuration.
    pub schema: Value,
    /// JSON pointers to the configuration's file names, in whose place the host puts the files' text.
    pub files: Vec<String>,
    /// JSON pointers to the configuration's addresses, which `fetch` may reach.
    pub urls: Vec<String>,
    /// What it may ask for by name: credentials above all.
    pub variables: Vec<Variable>,
    /// What it may reach.
    pub origins: Vec<WebOrigin>,
    /// Whether it decides who may pass, so that it is never left out.
    pub guards: bool,
}

/// A variable that a plugin declares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variable {
    pub name: String,
    /// Whether the plugin cannot work without it.
    pub required: bool,
    /// Whether its value is a URL, which may then be reached in place of [`About::origins`].
    pub url: bool,
}

/// Runs `describe` in an instance of its own.
pub(super) async fn describe(name: &Arc<str>, memory: usize, pre: &InstancePre<State>) -> anyhow::Result<About> {
    let described = async {
        let mut store = limits::store(pre.engine(), State::new(Arc::clone(name), memory, None), INIT_BUDGET);
        let instance = pre.instantiate_async(&mut store).await;
        let instance = instance.map_err(|error| limits::unmade(&error, &store))?;
        let guest = GuestIndices::new(pre).and_then(|indices| indices.load(&mut store, &instance)).map_err(opaque)?;
        let answer = guest.call_describe(&mut store).await;
        answer.map_err(|error| anyhow!("`describe` failed: {}", limits::trap_reason(&error, store.data())))
    };
    let described = timeout(TIME_AT_MOST, described).await;
    parse(described.map_err(|_| anyhow!("`describe` failed: it took more than {TIME_AT_MOST:?}"))??)
}

fn parse(about: description::About) -> anyhow::Result<About> {
    let schema = match about.config_schema.trim() {
        "" => Value::Null,
        schema => serde_json::from_str(schema).context("its configuration schema is not JSON")?,
    };
    only_known_types("", &schema)?;
    if about.variables.len() > ENTRIES_AT_MOST || about.origins.len() > ENTRIES_AT_MOST {
        bail!("it declares more than {ENTRIES_AT_MOST} variables or origins");
    }
    let origins = about.origins.iter().map(|origin| {
        WebOrigin::parse_alone(origin).map_err(|problem| anyhow!("its origin {origin:?} cannot be used: {problem}"))
    });
    Ok(About {
        version: printable(&about.version, VERSION_CHARACTERS_AT_MOST),
        summary: printable(&about.summary, SUMMARY_CHARACTERS_AT_MOST),
        schema,
        files: about.files,
        urls: about.urls,
        origins: origins.collect::<anyhow::Result<_>>()?,
        variables: variables(about.variables)?,
        guards: about.guards,
    })
}

/// The key that a JSON pointer leads to, as configuration files have it.
pub fn option(pointer: &str) -> String {
    pointer.trim_start_matches('/').replace('/', ".")
}

/// Else an administrator would be blamed for options that nothing fits.
fn only_known_types(path: &str, schema: &Value) -> anyhow::Result<()> {
    if !schema.is_object() {
        return Ok(());
    }
    let types = schema["type"].as_array().map_or_else(|| std::slice::from_ref(&schema["type"]), Vec::as_slice);
    let is_known = |kind: &&Value| kind.is_null() || kind.as_str().is_some_and(|kind| TYPES.contains(&kind));
    if let Some(unknown) = types.iter().find(|kind| !is_known(kind)) {
        bail!("its configuration schema has the type {unknown} at `{path}/type`: use one of {}", TYPES.join(", "));
    }
    let members = schema["properties"].as_object().into_iter().flatten();
    members
        .map(|(name, member)| (format!("properties/{name}"), member))
        .chain(["items", "additionalProperties"].map(|key| (key.to_owned(), &schema[key])))
        .try_for_each(|(key, member)| only_known_types(&format!("{path}/{key}"), member))
}

fn variables(declared: Vec<description::Variable>) -> anyhow::Result<Vec<Variable>> {
    let mut names = BTreeSet::new();
    for variable in &declared {
        let name = &variable.name;
        if !is_name(name) {
            bail!(
                "its variable {name:?} cannot be used: a name has capital letters, digits and `_`, as in `API_TOKEN`"
            );
        }
        if !names.insert(name) {
            bail!("it declares its variable `{name}` twice");
        }
    }
    let variables =
        declared.iter().map(|of| Variable { name: of.name.clone(), required: of.required, url: of.url }).collect();
    Ok(variables)
}

fn is_name(name: &str) -> bool {
    let starts_well = name.starts_with(|first: char| first.is_ascii_uppercase() || first == '_');
    let is_usual = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    starts_well && name.len() <= NAME_BYTES_AT_MOST && name.chars().all(is_usual)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about() -> description::About {
        description::About {
            name: "a".to_owned(),
            version: "1.0.0".to_owned(),
            summary: String::new(),
            config_schema: String::new(),
            files: Vec::new(),
            urls: Vec::new(),
            variables: Vec::new(),
            origins: Vec::new(),
            guards: false,
        }
    }

    fn variable(name: &str) -> description::Variable {
        description::Variable { name: name.to_owned(), required: true, url: false }
    }

    #[test]
    fn names_of_variables_look_like_those_of_an_environment() {
        for good in ["DO_AUTH_TOKEN", "_X", "A1"] {
            let about = description::About { variables: vec![variable(good)], ..about() };
            assert_eq!(parse(about).expect(good).variables[0].name, good);
        }
        for bad in ["", "path", "1A", "A=B", "A B", "A\n", "Ä", &"A".repeat(129)] {
            let about = description::About { variables: vec![variable(bad)], ..about() };
            parse(about).expect_err(bad);
        }
        let twice = description::About { variables: vec![variable("A"), variable("A")], ..about() };
        assert_eq!(parse(twice).expect_err("twice").to_string(), "it declares its variable `A` twice");
    }

    #[test]
    fn origins_are_whole() {
        let about = description::About { origins: vec!["https://api.example".to_owned()], ..about() };
        assert_eq!(parse(about).expect("an origin").origins[0].to_string(), "https://api.example");
        let about = description::About { origins: vec!["api.example".to_owned()], ..self::about() };
        let error = parse(about).expect_err("no scheme").to_string();
        assert!(error.starts_with("its origin \"api.example\" cannot be used: "), "{error}");
    }

    #[test]
    fn schemas_want_what_there_is() {
        let parsed = |schema: &str| parse(description::About { config_schema: schema.to_owned(), ..about() });
        for good in ["", "{}", r#"{"type": ["integer", "null"], "items": {"type": "string"}}"#, "true"] {
            parsed(good).expect(good);
        }
        for (bad, path) in [
            (r#"{"properties": {"salt": {"type": "strng"}}}"#, r#""strng" at `/properties/salt/type`"#),
            (
                r#"{"items": {"additionalProperties": {"type": ["string", 1]}}}"#,
                "1 at `/items/additionalProperties/type`",
            ),
        ] {
            let error = parsed(bad).expect_err(bad).to_string();
            assert!(
                error.starts_with(&format!("its configuration schema has the type {path}: use one of ")),
                "{error}"
            );
        }
    }

    #[test]
    fn lists_without_end_are_refused() {
        let variables = (0..65).map(|number| variable(&format!("A{number}"))).collect();
        let error = parse(description::About { variables, ..about() }).expect_err("too many").to_string();
        assert_eq!(error, "it declares more than 64 variables or origins");
    }
}
