//! Arguments, logging, signals, exit codes.

use std::io::{self, Write as _};
use std::process::ExitCode;

use anyhow::Context;
#[cfg(unix)]
use tokio::signal::unix::{Signal, SignalKind, signal};
use weir::command::{self, Arguments, Command, Found, Report, Unusable};
use weir::config::Problem;
use weir::plugin::compile_here;
use weir::server::Server;
use weir::telemetry::{self, Logging};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let arguments = match Arguments::parse(std::env::args_os().skip(1), std::env::vars_os()) {
        Ok(arguments) => arguments,
        Err(Unusable::Help(text)) => return print(&text, true),
        Err(Unusable::Wrong(text)) => return print(&text, false),
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().worker_threads(2).build() {
        Ok(runtime) => runtime,
        Err(error) => return print(&format!("error: failed to start: {error}\n"), false),
    };
    match &arguments.command {
        Command::Version => print(&format!("weir {}\n", env!("CARGO_PKG_VERSION")), true),
        Command::Check => report(runtime.block_on(command::check(command::find(&arguments)))),
        Command::Plugins => report(runtime.block_on(command::plugins(command::find(&arguments)))),
        Command::Plugin(asked) => report(command::plugin(asked)),
        Command::Compile(into) => report(compile_here(into).map(|()| Report { text: String::new(), good: true })),
        Command::Serve => match runtime.block_on(serve(&arguments)) {
            Ok(code) => code,
            Err(error) => print(&format!("error: {error:#}\n"), false),
        },
    }
}

fn report(result: anyhow::Result<Report>) -> ExitCode {
    match result {
        Ok(Report { text, good }) => print(&text, good),
        Err(error) => print(&format!("error: {error:#}\n"), false),
    }
}

async fn serve(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let Found { settings, file, warnings } = match command::find(arguments) {
        Ok(found) => found,
        Err(problems) => {
            let text: String = problems.iter().map(|problem| format!("{problem}\n")).collect();
            return Ok(print(&text, false));
        }
    };
    let logging = telemetry::start_logging(&settings.install.log).context("failed to start logging")?;
    match &file {
        Some(file) => tracing::info!(version = env!("CARGO_PKG_VERSION"), file = %file.display(), "weir starts"),
        None => tracing::info!(version = env!("CARGO_PKG_VERSION"), "weir starts with its quick start"),
    }
    for Problem { place, key, message, help, .. } in warnings {
        let place = place.map(|place| format!("{place}: ")).unwrap_or_default();
        let key = if key.is_empty() { key } else { format!("{key}: ") };
        tracing::warn!(help, "{place}{key}{message}");
    }
    // From now on, since some of them would end a process that does not look at them.
    let mut signals = Signals::caught()?;
    let started = tokio::select! {
        started = Server::start(settings) => started,
        () = signals.end() => return Ok(ExitCode::SUCCESS),
    };
    let server = match started {
        Ok(server) => server,
        Err(error) => {
            tracing::error!("failed to start: {error:#}");
            return Ok(print(&format!("error: failed to start: {error:#}\n"), false));
        }
    };
    if file.is_none() {
        print(&welcome(&server), true);
    }
    signals.act(&server, &logging).await;
    tracing::info!("weir ends: it finishes the requests it has");
    tokio::select! {
        () = server.shut_down() => {}
        // Whoever asks twice does not want to wait.
        _ = tokio::signal::ctrl_c() => {}
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(unix)]
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
    user: Signal,
}

#[cfg(unix)]
impl Signals {
    fn caught() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
            user: signal(SignalKind::user_defined1())?,
        })
    }

    /// Returns with the first one that is to end the proxy.
    async fn end(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    /// Acts on them until one of them is the last.
    async fn act(&mut self, server: &Server, logging: &Logging) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.hang_up.recv() => server.reload().await,
                _ = self.user.recv() => {
                    if let Some(log) = &server.access_log {
                        log.reopen();
                    }
                    if let Err(error) = logging.reopen() {
                        tracing::error!("failed to open the log again: {error}");
                    }
                }
            }
        }
    }
}

/// There is but one, which needs no preparation.
#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn caught() -> io::Result<Self> {
        Ok(Self)
    }

    async fn end(&mut self) {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending().await
        }
    }

    async fn act(&mut self, _: &Server, _: &Logging) {
        self.end().await;
    }
}

/// What somebody sees who has started Weir for the first time.
fn welcome(server: &Server) -> String {
    let port = |name: &str| server.addresses.get(name).map_or(0, std::net::SocketAddr::port);
    let (web, websecure) = (port("web"), port("websecure"));
    format!(
        "
Weir serves its quick start. Its certificate is self-signed, so that clients warn of it. Open:

  https://localhost:{websecure}/             the request, as a server sees it
  https://localhost:{websecure}/private      the same behind a password: admin, admin
  https://localhost:{websecure}/dashboard/   the dashboard: admin, admin
  http://localhost:{web}/              redirected to HTTPS

With files of your own, Traefik's as they are:  weir --configFile=traefik.yaml
To see first what is wrong with them:           weir check --configFile=traefik.yaml
Files to begin with:                            config/quickstart/

"
    )
}

/// Whoever reads it may go before the end.
fn print(text: &str, good: bool) -> ExitCode {
    if good {
        let _ = io::stdout().write_all(text.as_bytes());
        return ExitCode::SUCCESS;
    }
    let _ = io::stderr().write_all(text.as_bytes());
    ExitCode::FAILURE
}
