//! What is wrong with plugins, and with what the install file says of them, as problems that no single item is to blame for.

use std::path::Path;

use super::did_you_mean;
use crate::config::Problem;
use crate::config::install::{Allow, Install};
use crate::plugin::{Kind, Plugins};

pub(super) fn problems(install: &Install, plugins: &Plugins, directory: &Path) -> Vec<Problem> {
    let broken = plugins.iter().filter_map(|entry| {
        let problem = entry.problem.as_ref()?;
        let kept = if entry.plugin.is_some() { "; its last good version serves on" } else { "" };
        let message = format!("the plugin `{}` in `{}` cannot be used: {problem}{kept}", entry.name, entry.origin);
        Some(Problem::error("", message))
    });
    let mut problems: Vec<_> = broken.collect();
    problems.extend(replaced(install, plugins));
    problems.extend(settings(install, plugins));
    let wanted = install.plugins.directory.as_ref().filter(|_| !directory.is_dir());
    problems.extend(wanted.map(|_| {
        let message = format!("there is no folder `{}`", directory.display());
        install.warning("plugins.directory", message)
    }));
    problems
}

/// Files in the place of built-in plugins, unless the install file names them: one that guards may be among them.
fn replaced<'a>(install: &'a Install, plugins: &'a Plugins) -> impl Iterator<Item = Problem> + 'a {
    let is_named = |name: &str| install.plugins.settings.keys().any(|known| known.eq_ignore_ascii_case(name));
    let files = plugins.iter().filter(move |entry| entry.replaces_a_built_in() && !is_named(&entry.name));
    files.map(|entry| {
        let message = format!("`{}` takes the place of the built-in plugin `{}`", entry.origin, entry.name);
        let help =
            format!("remove the file, or write `{}: {{}}` below `plugins.settings` if that is meant", entry.name);
        Problem::warning("", message).help(help)
    })
}

/// Settings that nothing comes of.
fn settings<'a>(install: &'a Install, plugins: &'a Plugins) -> impl Iterator<Item = Problem> + 'a {
    install.plugins.settings.iter().filter_map(|(name, settings)| {
        let key = format!("plugins.settings.{name}");
        let Some(entry) = plugins.find(name) else {
            let known: Vec<_> = plugins.iter().map(|entry| entry.name.to_string()).collect();
            let problem = install.warning(&key, format!("there is no plugin `{name}`"));
            return Some(problem.help(did_you_mean(name, known.iter())));
        };
        let kind = entry.plugin.as_ref().map(|plugin| plugin.kind());
        let is_idle = kind == Some(Kind::DnsProvider) && settings.allow != Allow::default();
        let message = "a DNS provider gets what it declares, and needs no grant";
        is_idle.then(|| install.warning(&format!("{key}.allow"), message))
    })
}
