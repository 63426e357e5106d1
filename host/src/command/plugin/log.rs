//! What a guest logs while a command calls it.
//!
//! A subscriber of its own for this thread, so that lines of the guest are part of the report, and all else is silent.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;
use tracing::field::{Field, Visit};
use tracing::subscriber::DefaultGuard;
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::{Layer, Registry};

/// The lines so far; it listens until it is dropped.
pub(super) struct Log {
    lines: Arc<Mutex<Vec<Line>>>,
    _listens: DefaultGuard,
}

/// A line of the log.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Line {
    pub(super) level: String,
    pub(super) message: String,
}

struct Collector(Arc<Mutex<Vec<Line>>>);

impl Log {
    pub(super) fn listen() -> Self {
        let lines = Arc::<Mutex<Vec<Line>>>::default();
        let collector = Registry::default().with(Collector(Arc::clone(&lines)));
        Self { lines, _listens: tracing::subscriber::set_default(collector) }
    }

    /// The lines since the last call.
    pub(super) fn take(&self) -> Vec<Line> {
        std::mem::take(&mut self.lines.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl fmt::Display for Line {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {}", self.level, self.message)
    }
}

impl<S: Subscriber> Layer<S> for Collector {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        if fields.of_plugin {
            let level = event.metadata().level().to_string().to_lowercase();
            let line = Line { level, message: fields.message };
            self.0.lock().unwrap_or_else(PoisonError::into_inner).push(line);
        }
    }
}

#[derive(Default)]
struct Fields {
    message: String,
    of_plugin: bool,
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match field.name() {
            "message" => self.message = format!("{value:?}"),
            "plugin" => self.of_plugin = true,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_guests_alone_are_kept_while_it_listens() {
        let log = Log::listen();
        tracing::debug!(plugin = "a", "first\tline");
        tracing::info!("of the proxy's own");
        let shown = || log.take().iter().map(Line::to_string).collect::<Vec<_>>();
        assert_eq!(shown(), ["debug: first\tline"]);
        assert_eq!(shown(), [""; 0]);
        drop(log);
        tracing::info!(plugin = "a", "too late");
    }
}
