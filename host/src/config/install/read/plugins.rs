//! What must fit together in `plugins.settings`.

use crate::config::Problem;
use crate::config::install::{Install, PluginLimits, Secret};

/// Memory that one instance may be given.
const MEMORY_AT_MOST: u64 = 1 << 30;
const INSTANCES_AT_MOST: usize = 1000;
const BODY_AT_MOST: u64 = 1 << 30;

pub(super) fn check(install: &Install) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (name, settings) in &install.plugins.settings {
        let key = format!("plugins.settings.{name}");
        for (secret, Secret { env, file }) in &settings.allow.secrets {
            let problem = match (env.as_deref().is_some_and(|env| !env.is_empty()), file.is_some()) {
                (true, false) | (false, true) => continue,
                (true, true) => "a value comes from a variable or from a file, not from both",
                (false, false) => "it is not said where the value comes from",
            };
            let help = format!("write `{secret}: {{env: NAME}}` or `{secret}: {{file: path}}`");
            problems.push(install.problem(&format!("{key}.allow.secrets.{secret}"), problem).help(help));
        }
        let wrong = wrong_limits(&settings.limits);
        problems.extend(wrong.map(|(limit, problem)| install.problem(&format!("{key}.limits.{limit}"), problem)));
    }
    problems
}

fn wrong_limits(limits: &PluginLimits) -> impl Iterator<Item = (&'static str, String)> {
    let PluginLimits { memory, cpu, fetch, instances, body, .. } = limits;
    let bounded = |value: Option<u64>, at_most: u64| value.filter(|value| *value == 0 || *value > at_most);
    let outside = |value: u64, at_most: u64| format!("{value} is not between 1 and {at_most}");
    let zero = || "without any time nothing can run".to_owned();
    let instances = bounded(instances.map(|count| count as u64), INSTANCES_AT_MOST as u64);
    [
        bounded(*memory, MEMORY_AT_MOST).map(|value| ("memory", outside(value, MEMORY_AT_MOST))),
        cpu.filter(std::time::Duration::is_zero).map(|_| ("cpu", zero())),
        fetch.filter(std::time::Duration::is_zero).map(|_| ("fetch", zero())),
        instances.map(|value| ("instances", outside(value, INSTANCES_AT_MOST as u64))),
        bounded(*body, BODY_AT_MOST).map(|value| ("body", outside(value, BODY_AT_MOST))),
    ]
    .into_iter()
    .flatten()
}
