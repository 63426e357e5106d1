//! `weir plugin check`: what a component is, wants and weighs, and whether a configuration suits it.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use serde::Serialize;
use serde_json::Value;

use super::arguments::Check;
use super::log::{Line, Log};
use super::subject::{Subject, unsuited};
use super::table::{row, size, time};
use super::{line, refusal, report};
use crate::command::check::Report;
use crate::config::plain;
use crate::plugin::{Configured, Instances, Kind, Plugin, Variables, option};

/// Interfaces of `weir:plugin` that an administrator grants, and the key below `plugins.settings.NAME` for each.
const GRANTS: [(&str, &str); 4] =
    [("fetch", "allow.fetch"), ("secrets", "allow.secrets"), ("shared", "allow.shared"), ("metrics", "allow.metrics")];

#[derive(Serialize)]
struct Checked {
    file: String,
    name: String,
    version: String,
    summary: String,
    kind: String,
    /// Of `weir:plugin`.
    interface_version: String,
    imports: Vec<Import>,
    wasi_imports: Vec<String>,
    filters_bodies: bool,
    guards: bool,
    schema: Value,
    files: Vec<String>,
    urls: Vec<String>,
    variables: Vec<Declared>,
    origins: Vec<String>,
    size_bytes: usize,
    load_microseconds: u128,
    #[serde(flatten)]
    configured: Tried,
    log: Vec<Line>,
}

#[derive(Serialize)]
struct Import {
    name: String,
    /// Below `plugins.settings.NAME`.
    grant: Option<String>,
}

#[derive(Serialize)]
struct Declared {
    name: String,
    required: bool,
    url: bool,
}

/// What came of `init`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
enum Tried {
    Instance(Instance),
    /// No options were named, or a secret is missing, and that does not suit it, as it says.
    NeedsOptions(Vec<String>),
    /// A DNS provider with what the environment has.
    Provider {
        propagation_timeout_seconds: u64,
        polling_interval_seconds: u64,
        sequential: bool,
    },
    /// The same, where that does not suit it, as it says.
    NeedsVariables(String),
}

#[derive(Serialize)]
struct Instance {
    memory_bytes: usize,
    start_microseconds: u128,
    plan: Vec<String>,
}

pub(super) async fn check(asked: &Check) -> anyhow::Result<Report> {
    let log = Log::listen();
    // Without a cache, or the time would not be that of compiling.
    let subject = match Subject::load(&asked.file, None).await? {
        Ok(subject) => subject,
        Err(refused) => return Ok(refused),
    };
    let configured = match tried(&subject, asked, &log).await {
        Ok(configured) => configured,
        Err(refused) => return Ok(refused),
    };
    let checked = checked(&asked.file, &subject, configured, log.take());
    report(&checked, text, asked.json)
}

async fn tried(subject: &Subject, asked: &Check, log: &Log) -> Result<Tried, Report> {
    if subject.plugin.kind() == Kind::DnsProvider && asked.config.is_none() {
        return Ok(tried_provider(subject).await);
    }
    let step = match subject.configure(asked.config.as_ref()).await {
        Ok(step) => step,
        Err(problems) if asked.config.is_none() => {
            return Ok(Tried::NeedsOptions(problems.into_iter().map(|problem| problem.message).collect()));
        }
        Err(problems) => return Err(unsuited(&problems, log)),
    };
    let began = Instant::now();
    let memory = Instances::of_worker(0).start(&step).await;
    let start_microseconds = began.elapsed().as_micros();
    let memory_bytes = memory.map_err(|error| refusal(format!("error: {error:#}\n")))?;
    Ok(Tried::Instance(Instance { memory_bytes, start_microseconds, plan: plan(&step.configured) }))
}

async fn tried_provider(subject: &Subject) -> Tried {
    let variables = Variables::new(BTreeMap::new(), std::env::vars_os());
    match subject.host.provider(&subject.plugin, variables).await {
        Ok(provider) => Tried::Provider {
            propagation_timeout_seconds: provider.timing().propagation_timeout.as_secs(),
            polling_interval_seconds: provider.timing().polling_interval.as_secs(),
            sequential: provider.timing().sequential,
        },
        Err(error) => Tried::NeedsVariables(format!("{error:#}")),
    }
}

fn checked(file: &Path, subject: &Subject, configured: Tried, log: Vec<Line>) -> Checked {
    let plugin = &*subject.plugin;
    let about = &plugin.about;
    let outside = plugin.interfaces();
    let variables =
        about.variables.iter().map(|of| Declared { name: of.name.clone(), required: of.required, url: of.url });
    Checked {
        file: file.display().to_string(),
        name: plugin.name.to_string(),
        version: about.version.clone(),
        summary: about.summary.clone(),
        kind: plugin.kind().to_string(),
        interface_version: outside.version,
        imports: imports(plugin),
        wasi_imports: outside.wasi,
        filters_bodies: outside.filters_bodies,
        guards: about.guards,
        schema: about.schema.clone(),
        files: about.files.clone(),
        urls: about.urls.clone(),
        variables: variables.collect(),
        origins: about.origins.iter().map(ToString::to_string).collect(),
        size_bytes: subject.bytes,
        load_microseconds: subject.loading.as_micros(),
        configured,
        log,
    }
}

/// A DNS provider needs no grant: it is held to what it declares.
fn imports(plugin: &Plugin) -> Vec<Import> {
    let grant = |name: &str| {
        let granted = GRANTS.iter().find(|(import, _)| *import == name && plugin.kind() == Kind::Middleware);
        granted.map(|(_, key)| (*key).to_owned())
    };
    plugin.imports.iter().map(|name| Import { name: name.clone(), grant: grant(name) }).collect()
}

fn plan(configured: &Configured) -> Vec<String> {
    let Configured { plugin, plan, .. } = configured;
    let allowed = plugin.policy.body;
    let calls = [
        (plan.on_request, "request", plan.request_headers(), plan.request_body(allowed)),
        (plan.on_response, "response", plan.response_headers(), plan.response_body(allowed)),
    ];
    let mut lines = Vec::new();
    for (_, message, headers, at_hand) in calls.into_iter().filter(|(called, ..)| *called) {
        let names: Vec<&str> = headers.iter().map(http::HeaderName::as_str).collect();
        let with = if names.is_empty() { String::new() } else { format!(" with {}", names.join(", ")) };
        lines.push(format!("calls on-{message}{with}"));
        let filtered = plugin.filters_bodies().then(|| "filtered where an edit asks for it".to_owned());
        lines.extend(at_hand.into_iter().chain(filtered).map(|body| format!("{message} body: {body}")));
    }
    lines.extend(plan.request_edits.iter().map(|edit| format!("each request: {edit}")));
    lines.extend(plan.response_edits.iter().map(|edit| format!("each response: {edit}")));
    if lines.is_empty() {
        lines.push("nothing: it is never called, and changes nothing".to_owned());
    }
    lines
}

fn text(checked: &Checked) -> String {
    let mut text = String::new();
    line(&mut text, format!("`{}` is good.", checked.file));
    row(&mut text, "plugin", [format!("{} {}: {}", checked.name, checked.version, checked.summary)]);
    let filter = if checked.filters_bodies { ", filters bodies" } else { "" };
    let guards = if checked.guards { ", decides who may pass" } else { "" };
    row(&mut text, "kind", [format!("{} for weir:plugin {}{filter}{guards}", checked.kind, checked.interface_version)]);
    row(&mut text, "imports", import_lines(checked));
    if checked.kind == Kind::Middleware.to_string() {
        row(&mut text, "options", options(&checked.schema));
    }
    row(&mut text, "files", checked.files.iter().map(|pointer| option(pointer)));
    row(
        &mut text,
        "variables",
        checked.variables.iter().map(|variable| {
            let required = if variable.required { ", required" } else { "" };
            let url = if variable.url { ", may be reached" } else { "" };
            format!("{}{required}{url}", variable.name)
        }),
    );
    let addresses = checked.urls.iter().map(|pointer| format!("what the option `{}` says", option(pointer)));
    row(&mut text, "reaches", checked.origins.iter().cloned().chain(addresses));
    row(
        &mut text,
        "size",
        [format!(
            "{}; compiled and described in {}",
            size(checked.size_bytes),
            time(microseconds(checked.load_microseconds))
        )],
    );
    match &checked.configured {
        Tried::Instance(instance) => {
            row(&mut text, "plan", &instance.plan);
            row(
                &mut text,
                "instance",
                [format!(
                    "{} of memory after `init`; started in {}",
                    size(instance.memory_bytes),
                    time(microseconds(instance.start_microseconds))
                )],
            );
        }
        Tried::NeedsOptions(why) => {
            let give =
                "give it its options with --config, and its secrets as variables, to see the plan and an instance";
            row(&mut text, "not started", why.iter().map(String::as_str).chain([give]));
        }
        Tried::Provider { propagation_timeout_seconds, polling_interval_seconds, sequential } => {
            let at_once = if *sequential { "; one challenge at a time" } else { "" };
            let looks = format!("looks for a record for {propagation_timeout_seconds} s");
            row(&mut text, "timing", [format!("{looks}, every {polling_interval_seconds} s{at_once}")]);
        }
        Tried::NeedsVariables(why) => {
            row(&mut text, "not started", [why.as_str(), "give it its variables in the environment to see it start"]);
        }
    }
    row(&mut text, "log", checked.log.iter().map(ToString::to_string));
    text
}

fn microseconds(count: u128) -> std::time::Duration {
    std::time::Duration::from_micros(u64::try_from(count).unwrap_or(u64::MAX))
}

fn import_lines(checked: &Checked) -> Vec<String> {
    let reaches_its_options = checked.origins.is_empty() && !checked.urls.is_empty();
    let ours = checked.imports.iter().map(|import| match &import.grant {
        Some(_) if import.name == "fetch" && reaches_its_options => "fetch, of what its options name".to_owned(),
        Some(grant) => format!("{}, granted by `plugins.settings.{}.{grant}`", import.name, checked.name),
        None => import.name.clone(),
    });
    let mut lines: Vec<String> = ours.collect();
    if !checked.wasi_imports.is_empty() {
        lines.push(format!("{} (present, empty)", checked.wasi_imports.join(", ")));
    }
    if lines.is_empty() {
        lines.push("nothing".to_owned());
    }
    lines
}

/// One line for each key of a schema: `retry.attempts: integer, required`.
fn options(schema: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    describe(schema, "", &mut lines);
    if lines.is_empty() {
        lines.push(if schema.is_null() { "no schema" } else { "no keys in its schema" }.to_owned());
    }
    lines
}

/// `, one of a, b`, `, from 1 to 10`: what a value of the type must be besides.
fn bounds(schema: &Value) -> String {
    if let Some(values) = schema["enum"].as_array() {
        return format!(", one of {}", values.iter().map(plain).collect::<Vec<_>>().join(", "));
    }
    match (schema["minimum"].as_number(), schema["maximum"].as_number()) {
        (Some(least), Some(most)) => format!(", from {least} to {most}"),
        (Some(least), None) => format!(", from {least}"),
        (None, Some(most)) => format!(", up to {most}"),
        (None, None) => String::new(),
    }
}

fn describe(schema: &Value, key: &str, lines: &mut Vec<String>) {
    let required = |name: &str| {
        let names = schema["required"].as_array();
        names.is_some_and(|names| names.iter().any(|one| one == name))
    };
    for (name, below) in schema["properties"].as_object().into_iter().flatten() {
        let key = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
        let kind = match (&below["type"], &below["items"]["type"]) {
            (Value::String(kind), Value::String(items)) => format!("{kind} of {items}"),
            (Value::String(kind), _) => kind.clone(),
            (Value::Array(kinds), _) => kinds.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" or "),
            _ => "anything".to_owned(),
        };
        let required = if required(name) { ", required" } else { "" };
        let why = below["description"].as_str().map(|text| format!(": {text}")).unwrap_or_default();
        lines.push(format!("{key} ({kind}{required}{}){why}", bounds(below)));
        describe(below, &key, lines);
        describe(&below["items"], &format!("{key}[]"), lines);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn options_say_what_they_may_be() {
        let schema = json!({"required": ["algorithm"], "properties": {
            "algorithm": {"type": "string", "enum": ["sha256", "sha512"], "description": "the hash"},
            "at-least": {"type": "number", "minimum": 0.5},
            "at-most": {"type": "integer", "maximum": 9},
            "ttl": {"type": "integer", "minimum": 1, "maximum": 3600},
        }});
        let lines = [
            "algorithm (string, required, one of sha256, sha512): the hash",
            "at-least (number, from 0.5)",
            "at-most (integer, up to 9)",
            "ttl (integer, from 1 to 3600)",
        ];
        assert_eq!(options(&schema), lines);
    }
}
