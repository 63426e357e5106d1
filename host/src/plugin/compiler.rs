//! Compiling components in a process of its own, which may take so much time and memory and no more, with a low priority.
//!
//! `cache` starts it for components that are not compiled yet; `main` is that process when it is told so. What comes
//! out is code for this machine: it goes where nobody else can write.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context, bail};

use super::engine::compiling_engine;
use super::lane::half_of_the_cores;
use super::{COMPONENT_BYTES_AT_MOST, opaque};

/// What `main` has to be told: this, and the file to write.
pub const COMMAND: &str = "compile-plugin";

/// Seconds of CPU time on all cores together.
#[cfg(unix)]
const CPU_SECONDS: u64 = 120;
/// Bytes of memory.
#[cfg(unix)]
const MEMORY: u64 = 1 << 30;
/// How much less than others it runs (as `nice`).
#[cfg(unix)]
const NICENESS: i32 = 10;
/// More threads need more memory.
const THREADS_AT_MOST: usize = 2;

/// Compiles a component into a file. Fails with [`NotRun`] if the process cannot be had.
pub(super) async fn compile(program: PathBuf, component: Vec<u8>, into: PathBuf) -> anyhow::Result<()> {
    let output = tokio::task::spawn_blocking(move || run(&program, &component, &into)).await;
    let output = output.context(NotRun)?.context(NotRun)?;
    if output.status.success() {
        return Ok(());
    }
    bail!("{}", reason(&output))
}

/// There is no process to compile in.
#[derive(Debug)]
pub(super) struct NotRun;

impl std::fmt::Display for NotRun {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("starting a process to compile in")
    }
}

/// What the process does: a component from the standard input becomes code in a file.
///
/// # Errors
///
/// It is no good component, or the file cannot be written.
pub fn compile_here(into: &Path) -> anyhow::Result<()> {
    limit();
    let mut component = Vec::new();
    std::io::stdin().take(COMPONENT_BYTES_AT_MOST).read_to_end(&mut component).context("reading the component")?;
    let code = compiling_engine()?.precompile_component(&component).map_err(opaque).context("compiling it")?;
    std::fs::write(into, code).context("writing what was compiled")
}

fn run(program: &Path, component: &[u8], into: &Path) -> std::io::Result<Output> {
    let mut process = Command::new(program)
        .arg(COMMAND)
        .arg(into)
        .env("RAYON_NUM_THREADS", half_of_the_cores().min(THREADS_AT_MOST).to_string())
        // Memory that the allocator lays in for later would count.
        .env("MIMALLOC_ARENA_EAGER_COMMIT", "0")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    if let Some(mut input) = process.stdin.take() {
        // One that has ended says why by its status.
        let _ = input.write_all(component);
    }
    process.wait_with_output()
}

#[cfg(unix)]
fn reason(output: &Output) -> String {
    use std::os::unix::process::ExitStatusExt;

    match output.status.signal() {
        Some(signal) if signal == rustix::process::Signal::XCPU.as_raw() => {
            format!("compiling it took more than {CPU_SECONDS} s of CPU time")
        }
        Some(signal) if signal == rustix::process::Signal::ABORT.as_raw() => {
            format!("compiling it took more than {} MiB of memory", MEMORY >> 20)
        }
        Some(signal) => format!("compiling it ended by the signal {signal}"),
        None => said(output),
    }
}

#[cfg(not(unix))]
fn reason(output: &Output) -> String {
    said(output)
}

fn said(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr);
    text.trim().trim_start_matches("error: ").to_owned()
}

#[cfg(unix)]
fn limit() {
    use rustix::process::{Resource, Rlimit, nice, setrlimit};

    let at_most = |limit: u64| Rlimit { current: Some(limit), maximum: Some(limit) };
    // Where the system has no such limit there is none: the component is compiled all the same.
    let _ = setrlimit(Resource::Cpu, at_most(CPU_SECONDS));
    let _ = setrlimit(Resource::Data, at_most(MEMORY));
    let _ = setrlimit(Resource::Core, at_most(0));
    let _ = nice(NICENESS);
}

#[cfg(not(unix))]
fn limit() {}
