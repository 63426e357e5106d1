//! `weir plugin`: a project to begin a plugin with, and a component judged, called and measured without a proxy.
//!
//! `check`, `run` and `bench` load a component as a proxy does and call it through the pool of a worker. They open no port,
//! and nothing that they find is kept but compiled code.

mod arguments;
mod bench;
mod check;
mod head;
mod log;
mod new;
mod run;
mod subject;
mod table;

use std::fmt::Write as _;

use serde::Serialize;

pub use self::arguments::Asked;
pub(super) use self::arguments::{asked, grammar};
use super::check::Report;

/// Does what was asked for, on the thread that calls it: a worker is one thread too.
///
/// # Errors
///
/// The WebAssembly engine cannot be started. What is wrong with a component is a report.
pub fn plugin(asked: &Asked) -> anyhow::Result<Report> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(tokio::runtime::LocalOptions::default())?;
    let report = match asked {
        Asked::New(new) => new::new(new),
        Asked::Check(check) => runtime.block_on(check::check(check))?,
        Asked::Run(run) => runtime.block_on(run::run(run))?,
        Asked::Bench(bench) => runtime.block_on(bench::bench(bench))?,
    };
    Ok(report)
}

/// What was found, for people or as JSON.
fn report<T: Serialize>(found: &T, text: impl FnOnce(&T) -> String, json: bool) -> anyhow::Result<Report> {
    let text = if json { serde_json::to_string_pretty(found)? + "\n" } else { text(found) };
    Ok(Report { text, good: true })
}

/// What is wrong.
fn refusal(text: impl Into<String>) -> Report {
    Report { text: text.into(), good: false }
}

fn line(text: &mut String, line: impl AsRef<str>) {
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{}", line.as_ref());
}
