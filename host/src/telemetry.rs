//! What Weir says about itself: its log, the access log with a line per request, and metrics.
//!
//! `main` starts the log, `server` opens the access log and reopens both on SIGUSR1, entry points write to the latter and
//! count. It never decides what is worth a line.

mod access;
mod exposition;
mod file;
mod format;
mod line;
mod metrics;
mod writer;

use std::io::{self, IsTerminal, Write};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;
use jiff::SignedDuration;
use tracing::level_filters::LevelFilter;
use tracing::subscriber::Subscriber;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::DefaultFields;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::{Layer, Registry};

pub use self::access::{AccessLog, Entry, Origin, TlsFacts};
pub use self::exposition::{Exposition, Family, Histogram, Labels};
pub use self::metrics::{Measured, Meter, Metrics, OpenConnection};

use self::file::{LogFile, Rotation};
use self::format::{Common, Json};
use crate::config::install::{Level, Log, LogFormat};

/// Makes `log` the log of the whole process.
///
/// Without `log.level` it is INFO: Traefik's ERROR hides that a file was reloaded and what is wrong with it.
///
/// # Errors
///
/// The file cannot be opened, or the process has a log already.
pub fn start_logging(log: &Log) -> anyhow::Result<Logging> {
    let (subscriber, logging) = subscriber(log)?;
    tracing::subscriber::set_global_default(subscriber).context("the process has a log already")?;
    Ok(logging)
}

/// The log as a subscriber of its own, for `tracing::subscriber::with_default`.
///
/// # Errors
///
/// The file cannot be opened.
pub fn subscriber(log: &Log) -> anyhow::Result<(impl Subscriber + Send + Sync + use<>, Logging)> {
    let output = Output::open(log)?;
    let writer = Shared(Arc::new(Mutex::new(output)));
    let logging = Logging { output: writer.clone() };
    let color = !log.no_color && log.file_path.is_none() && io::stdout().is_terminal() && no_color_unset();
    let layer = tracing_subscriber::fmt::layer().fmt_fields(DefaultFields::new()).with_ansi(false).with_writer(writer);
    let layer = match log.format {
        LogFormat::Common => layer.event_format(Common { color }).boxed(),
        LogFormat::Json => layer.event_format(Json).boxed(),
    };
    Ok((Registry::default().with(layer.with_filter(filter(log.level))), logging))
}

/// The running log.
#[derive(Debug)]
pub struct Logging {
    output: Shared,
}

impl Logging {
    /// Opens the log's file anew, for whoever has renamed it. Nothing happens on standard output.
    ///
    /// # Errors
    ///
    /// The file cannot be opened; the log goes on where it was.
    pub fn reopen(&self) -> io::Result<()> {
        match &mut *self.output.0.lock().unwrap_or_else(PoisonError::into_inner) {
            Output::File(file) => file.reopen(),
            Output::Stdout => Ok(()),
        }
    }
}

/// Where lines go.
#[derive(Debug)]
enum Output {
    File(LogFile),
    Stdout,
}

impl Output {
    fn open(log: &Log) -> anyhow::Result<Self> {
        let Some(path) = &log.file_path else {
            return Ok(Self::Stdout);
        };
        let file = LogFile::open(path, rotation(log));
        Ok(Self::File(file.with_context(|| format!("the log file `{}` cannot be opened", path.display()))?))
    }

    /// Writes whole lines.
    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        match self {
            Self::File(file) => file.write(lines),
            Self::Stdout => {
                let mut stdout = io::stdout().lock();
                stdout.write_all(lines)?;
                stdout.flush()
            }
        }
    }
}

/// The log's output, shared by all threads. A line waits for the disk: unlike an access log it must not lose any.
#[derive(Clone, Debug)]
struct Shared(Arc<Mutex<Output>>);

impl<'a> MakeWriter<'a> for Shared {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

impl Write for Shared {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write(line)?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Traefik rotates at 100 MB unless told otherwise.
fn rotation(log: &Log) -> Rotation {
    let megabytes = if log.max_size == 0 { 100 } else { log.max_size };
    let days = i64::try_from(log.max_age).unwrap_or(i64::MAX);
    Rotation {
        max_size: Some(megabytes.saturating_mul(1024 * 1024)),
        max_age: (days > 0).then(|| SignedDuration::from_hours(days.saturating_mul(24).min(MAX_HOURS))),
        max_backups: (log.max_backups > 0).then_some(log.max_backups),
        compress: log.compress,
    }
}

/// Longer than any log has been kept, and far from the limits of time arithmetic.
const MAX_HOURS: i64 = 1000 * 366 * 24;

/// Our own events from the level on; those of libraries only as far as an operator can use them.
fn filter(level: Option<Level>) -> Targets {
    let level = match level.unwrap_or(Level::Info) {
        Level::Trace => return Targets::new().with_default(LevelFilter::TRACE),
        Level::Debug => LevelFilter::DEBUG,
        Level::Info => LevelFilter::INFO,
        Level::Warn => LevelFilter::WARN,
        Level::Error | Level::Fatal | Level::Panic => LevelFilter::ERROR,
    };
    // What a client sends wrong would be a line each time, as often as it likes.
    let talkative = level.min(LevelFilter::ERROR);
    Targets::new()
        .with_target(env!("CARGO_CRATE_NAME"), level)
        .with_target("h2", talkative)
        .with_target("hyper", talkative)
        .with_default(level.min(LevelFilter::WARN))
}

/// <https://no-color.org>.
fn no_color_unset() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn writes_lines_as_traefik_does() {
        let text = logged(LogFormat::Common, None, || {
            tracing::info!(router = "web@file", count = 2, reason = "no \"such\"\nhost", "configuration\nloaded");
            tracing::debug!("not at this level");
            tracing::error!(path = %"/a", "gone");
        });
        let lines: Vec<_> = text.lines().map(|line| line.split_once(' ').expect("a time comes first")).collect();
        let time = lines[0].0;
        assert!(time.parse::<jiff::Timestamp>().is_ok(), "{time}");
        let texts: Vec<_> = lines.iter().map(|(_, text)| *text).collect();
        assert_eq!(
            texts,
            [r#"INF configuration\nloaded router=web@file count=2 reason="no \"such\"\nhost""#, "ERR gone path=/a"]
        );
    }

    #[test]
    fn names_the_span_of_an_event() {
        let text = logged(LogFormat::Common, None, || {
            tracing::info_span!("reload", number = 3).in_scope(|| tracing::warn!("slow"));
        });
        assert!(text.ends_with(" WRN slow reload=number=3\n"), "{text}");
    }

    #[test]
    fn writes_json_as_traefik_does() {
        let text = logged(LogFormat::Json, Some(Level::Debug), || {
            tracing::debug!(count = 2, ok = true, "x\ny");
        });
        let line: serde_json::Value = serde_json::from_str(&text).expect("one object");
        assert_eq!((&line["level"], &line["message"]), (&"debug".into(), &"x\ny".into()));
        assert_eq!((&line["count"], &line["ok"]), (&2.into(), &true.into()));
        assert!(line["time"].is_string() && text.ends_with("}\n"));
    }

    #[test]
    fn reopens_its_file() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("weir.log");
        let log = Log { file_path: Some(path.clone()), ..Log::default() };
        let (subscriber, logging) = subscriber(&log).expect("opens");
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!("one");
            fs::rename(&path, directory.path().join("weir.log.1")).expect("renames");
            logging.reopen().expect("reopens");
            tracing::info!("two");
        });
        let text = fs::read_to_string(&path).expect("the file is there");
        assert!(text.ends_with("INF two\n") && !text.contains("one"), "{text}");
    }

    fn logged(format: LogFormat, level: Option<Level>, events: impl FnOnce()) -> String {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("logs/weir.log");
        let log = Log { file_path: Some(path.clone()), format, level, ..Log::default() };
        let (subscriber, _logging) = subscriber(&log).expect("opens");
        tracing::subscriber::with_default(subscriber, events);
        fs::read_to_string(path).expect("the file is there")
    }
}
