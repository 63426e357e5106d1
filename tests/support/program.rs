//! The program itself, as a process of its own.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use super::eventually;

/// A process that runs until it is dropped.
pub(crate) struct Program {
    child: Child,
    printed: Arc<Mutex<String>>,
}

/// What a process that has ended had to say.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// The program with these arguments in that directory, and nothing of the environment that it could look at.
fn command(directory: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
    command.args(arguments).current_dir(directory).env_clear();
    // Compiled plugins are shared with `Proxy`: the program appends its own name.
    command.env("XDG_CACHE_HOME", env!("CARGO_TARGET_TMPDIR")).env("HOME", directory);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs it to its end.
pub(crate) fn run(directory: &Path, arguments: &[&str]) -> Ended {
    run_with(directory, arguments, &[])
}

pub(crate) fn run_with(directory: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Ended {
    let mut command = command(directory, arguments);
    let output = command.envs(variables.iter().copied()).output().expect("the program can be run");
    Ended {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).expect("output in UTF-8"),
        stderr: String::from_utf8(output.stderr).expect("output in UTF-8"),
    }
}

impl Program {
    pub(crate) fn start(directory: &Path, arguments: &[&str]) -> Self {
        Self::start_with(directory, arguments, &[])
    }

    /// With these variables in its environment.
    pub(crate) fn start_with(directory: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let mut command = command(directory, arguments);
        let mut child = command.envs(variables.iter().copied()).spawn().expect("the program can be run");
        let printed = Arc::<Mutex<String>>::default();
        let stdout = child.stdout.take().expect("it is piped");
        let stderr = child.stderr.take().expect("it is piped");
        for lines in
            [BufReader::new(Box::new(stdout) as Box<dyn std::io::Read + Send>), BufReader::new(Box::new(stderr))]
        {
            let printed = Arc::clone(&printed);
            thread::spawn(move || {
                for line in lines.lines().map_while(Result::ok) {
                    let mut printed = printed.lock().unwrap_or_else(PoisonError::into_inner);
                    printed.push_str(&line);
                    printed.push('\n');
                }
            });
        }
        Self { child, printed }
    }

    /// Both outputs so far, line by line as they came.
    pub(crate) fn printed(&self) -> String {
        self.printed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) async fn prints(&self, text: &str) {
        eventually(&format!("`{text}` in what the program prints"), async || self.printed().contains(text)).await;
    }

    /// What an entry point listens on, as the program says.
    pub(crate) async fn address(&self, entry_point: &str) -> SocketAddr {
        let marker = format!("listening entry_point={entry_point} address=");
        self.prints(&marker).await;
        let printed = self.printed();
        let (_, rest) = printed.split_once(&marker).expect("it has just been seen");
        let address = rest.split_whitespace().next().unwrap_or_default();
        address.parse().expect("an address")
    }

    /// Bytes of the machine's memory that it has at the moment.
    pub(crate) fn resident(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line of each process");
        let kibibytes: usize = line.trim().trim_end_matches(" kB").parse().expect("a number");
        kibibytes << 10
    }

    /// Sends a signal, such as `TERM`.
    pub(crate) fn signal(&self, name: &str) {
        let kill = format!("kill -{name} {}", self.id());
        let status = Command::new("sh").args(["-c", &kill]).status().expect("a shell");
        assert!(status.success(), "{kill}");
    }

    pub(crate) async fn ends(&mut self) -> ExitStatus {
        let mut ended = None;
        eventually("the end of the program", async || {
            ended = self.child.try_wait().expect("a child can be waited for");
            ended.is_some()
        })
        .await;
        ended.expect("it has ended")
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("a child can be waited for").is_none()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
