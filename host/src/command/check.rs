//! `weir check` and `weir plugins`: the same path as a start, serving nothing.

use std::fmt::Write as _;

use jiff::Timestamp;

use super::Found;
use crate::acme::Shown;
use crate::config::install::Install;
use crate::config::{Problem, Severity};
use crate::plugin::{Kind, Origin, Plugin};
use crate::server::{self, Preview};
use crate::snapshot::{Placed, Snapshot};

/// What a command has to say.
pub struct Report {
    pub text: String,
    pub good: bool,
}

/// Everything that is wrong with a configuration; if nothing is, what it would serve.
pub async fn check(found: Result<Found, Vec<Problem>>) -> anyhow::Result<Report> {
    let Found { settings, file, warnings } = match found {
        Ok(found) => found,
        Err(problems) => {
            return Ok(Report { text: listed(&problems), good: false });
        }
    };
    let install = settings.install.clone();
    let Preview { snapshot, certificates } = server::preview(settings, false).await?;
    let problems: Vec<Problem> = warnings.into_iter().chain(snapshot.items.all_problems().cloned()).collect();
    let good = !problems.iter().any(Problem::is_error);
    let mut text = listed(&problems);
    if good {
        let name = file.map_or_else(|| "the quick start".to_owned(), |file| format!("`{}`", file.display()));
        served(&mut text, &name, &install, &snapshot);
        obtained(&mut text, &certificates);
    }
    Ok(Report { text, good })
}

/// The plugins there are, and what each may use.
pub async fn plugins(found: Result<Found, Vec<Problem>>) -> anyhow::Result<Report> {
    let Found { settings, .. } = match found {
        Ok(found) => found,
        Err(problems) => {
            return Ok(Report { text: listed(&problems), good: false });
        }
    };
    let directory = settings.install.plugins.directory.clone().unwrap_or_else(|| settings.plugin_directory.clone());
    let Preview { snapshot, .. } = server::preview(settings, true).await?;
    let mut text = String::new();
    for entry in snapshot.plugins.iter() {
        let version = entry.plugin.as_ref().map_or("-", |plugin| plugin.about.version.as_str());
        let kind = entry.plugin.as_ref().map(|plugin| format!("{}, ", plugin.kind())).unwrap_or_default();
        line(&mut text, &format!("{} {version} ({kind}{})", entry.name, entry.origin));
        if let Some(plugin) = &entry.plugin {
            described(&mut text, plugin);
        }
        if let Some(problem) = &entry.problem {
            line(&mut text, &format!("  error: {problem}"));
        }
    }
    line(&mut text, &format!("Plugins are found in `{}`, by their file names.", directory.display()));
    let good = snapshot.plugins.iter().all(|entry| entry.problem.is_none());
    Ok(Report { text, good })
}

fn described(text: &mut String, plugin: &Plugin) {
    let about = &plugin.about;
    let or_nothing = |list: Vec<String>| if list.is_empty() { "nothing".to_owned() } else { list.join(", ") };
    line(text, &format!("  {}", about.summary));
    line(text, &format!("  may use: {}", or_nothing(plugin.imports.clone())));
    if plugin.kind() == Kind::Middleware {
        if plugin.origin != Origin::BuiltIn {
            line(text, &format!("  granted: {}", or_nothing(plugin.policy.granted())));
        }
        return;
    }
    let variables = |required: bool| {
        let variables = about.variables.iter().filter(|variable| variable.required == required);
        or_nothing(variables.map(|variable| variable.name.clone()).collect())
    };
    line(text, &format!("  needs the variables: {}", variables(true)));
    line(text, &format!("  knows the variables: {}", variables(false)));
    let origins = about.origins.iter().map(ToString::to_string).collect();
    let urls: Vec<&str> = about.variables.iter().filter(|of| of.url).map(|of| of.name.as_str()).collect();
    let instead = if urls.is_empty() { String::new() } else { format!("; or what {} says", urls.join(", ")) };
    line(text, &format!("  may reach: {}{instead}", or_nothing(origins)));
}

pub(super) fn listed(problems: &[Problem]) -> String {
    if problems.is_empty() {
        return String::new();
    }
    let mut text = String::new();
    for problem in problems {
        line(&mut text, &problem.to_string());
    }
    let count = |severity| problems.iter().filter(|problem| problem.severity == severity).count();
    let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
    line(&mut text, &format!("{}, {}", counted(errors, "error"), counted(warnings, "warning")));
    text
}

fn counted(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

fn served(text: &mut String, name: &str, install: &Install, snapshot: &Snapshot) {
    line(text, &format!("{name} is good. It would serve:"));
    for (entry_point, settings) in &install.entry_points {
        line(text, &format!("{entry_point} on {}", settings.address));
        let routers = snapshot.items.routers.iter().flat_map(|(name, status)| {
            let placed = status.serves.iter().flatten();
            placed.filter(|placed| *placed.entry_point == **entry_point).map(move |placed| (name, status, placed))
        });
        let mut routers: Vec<_> = routers.collect();
        routers.sort_by_key(|(_, _, placed): &(_, _, &Placed)| std::cmp::Reverse(placed.route.priority));
        for (name, status, placed) in routers {
            let tls = if placed.tls.is_some() { " with TLS" } else { "" };
            line(text, &format!("  {name}: {}{tls}", placed.route.rule));
            let middlewares = status.config.iter().flat_map(|config| &config.middlewares).cloned();
            let way: Vec<String> = middlewares.chain([placed.route.service.to_string()]).collect();
            line(text, &format!("    → {}", way.join(" → ")));
        }
    }
}

/// What resolvers have, and what they would order.
fn obtained(text: &mut String, certificates: &[Shown]) {
    if !certificates.is_empty() {
        line(text, "certificates");
    }
    let now = Timestamp::now();
    for Shown { resolver, names, not_after, renewal, last_error, next_attempt, .. } in certificates {
        let mut state = match (not_after, renewal) {
            (Some(end), _) if *end <= now => format!("has expired at {end:.0}, would be ordered"),
            (Some(end), Some(renewal)) if *renewal > now => format!("until {end:.0}, renewed at {renewal:.0}"),
            (Some(end), _) => format!("until {end:.0}, would be renewed"),
            (None, _) => "would be ordered".to_owned(),
        };
        if let Some(error) = last_error {
            let _ = write!(state, "; failed at {:.0}: {}", error.time, error.message);
        }
        if let Some(next) = next_attempt.filter(|next| *next > now) {
            let _ = write!(state, "; not before {next:.0}");
        }
        line(text, &format!("  {} by {resolver}: {state}", names.join(", ")));
    }
}

fn line(text: &mut String, line: &str) {
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{line}");
}
