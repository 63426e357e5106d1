//! Lines of Weir's log, as Traefik writes them: `2026-11-21T20:57:00Z INF message key=value`, or one JSON object each.
//!
//! Each event stays one line, whatever a client or a file put into its values.

use std::collections::BTreeMap;
use std::fmt::{self, Write};

use jiff::{Timestamp, Zoned};
use serde_json::Value;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::fmt::{FmtContext, FormattedFields};
use tracing_subscriber::registry::LookupSpan;

/// `log.format: common`.
pub(super) struct Common {
    pub(super) color: bool,
}

impl<S, N> FormatEvent<S, N> for Common
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let now = Zoned::now();
        let (level, color) = short_level(*event.metadata().level());
        if self.color {
            write!(writer, "\x1b[90m{}\x1b[0m \x1b[{color}m{level}\x1b[0m ", rfc3339(&now))?;
        } else {
            write!(writer, "{} {level} ", rfc3339(&now))?;
        }
        let mut fields = CommonFields { color: self.color, message: String::new(), rest: String::new() };
        event.record(&mut fields);
        writer.write_str(&fields.message)?;
        writer.write_str(&fields.rest)?;
        for span in context.event_scope().into_iter().flatten() {
            if let Some(fields) = span.extensions().get::<FormattedFields<N>>().filter(|fields| !fields.is_empty()) {
                write!(writer, " {}=", span.name())?;
                write_value(&mut writer, &fields.fields)?;
            }
        }
        writer.write_char('\n')
    }
}

/// `log.format: json`.
pub(super) struct Json;

impl<S, N> FormatEvent<S, N> for Json
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut fields = JsonFields(BTreeMap::new());
        event.record(&mut fields);
        for span in context.event_scope().into_iter().flatten() {
            if let Some(formatted) = span.extensions().get::<FormattedFields<N>>().filter(|fields| !fields.is_empty()) {
                fields.0.insert(span.name(), formatted.fields.as_str().into());
            }
        }
        let level = event.metadata().level().as_str().to_ascii_lowercase();
        fields.0.insert("level", level.into());
        fields.0.insert("time", rfc3339(&Zoned::now()).into());
        let line = serde_json::to_string(&fields.0).map_err(|_| fmt::Error)?;
        writeln!(writer, "{line}")
    }
}

/// Seconds and the offset from UTC, `Z` for none.
pub(super) fn rfc3339(time: &Zoned) -> String {
    if time.offset().is_zero() {
        time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
    } else {
        time.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string()
    }
}

/// As Traefik's access log has it: UTC with nanoseconds.
pub(super) fn rfc3339_nanoseconds(time: Timestamp) -> String {
    time.to_string()
}

fn short_level(level: Level) -> (&'static str, u8) {
    match level {
        Level::TRACE => ("TRC", 34),
        Level::DEBUG => ("DBG", 33),
        Level::INFO => ("INF", 32),
        Level::WARN => ("WRN", 33),
        Level::ERROR => ("ERR", 31),
    }
}

struct CommonFields {
    color: bool,
    message: String,
    rest: String,
}

impl CommonFields {
    fn add(&mut self, field: &Field, value: &str) {
        // Writing to a string cannot fail.
        let _ = if field.name() == "message" {
            write_escaped(&mut self.message, value)
        } else if self.color {
            write!(self.rest, " \x1b[36m{}=\x1b[0m", field.name()).and_then(|()| write_value(&mut self.rest, value))
        } else {
            write!(self.rest, " {}=", field.name()).and_then(|()| write_value(&mut self.rest, value))
        };
    }
}

impl Visit for CommonFields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, &format!("{value:?}"));
    }
}

struct JsonFields(BTreeMap<&'static str, Value>);

impl Visit for JsonFields {
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.0.insert(field.name(), value.into());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name(), format!("{value:?}").into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.0.insert(field.name(), value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.0.insert(field.name(), value.into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name(), value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.insert(field.name(), value.into());
    }
}

/// In quotes where its end would not be seen otherwise.
fn write_value(out: &mut impl Write, value: &str) -> fmt::Result {
    let plain = |c: char| !c.is_whitespace() && !c.is_control() && c != '"' && c != '\\';
    if !value.is_empty() && value.chars().all(plain) {
        return out.write_str(value);
    }
    out.write_char('"')?;
    for c in value.chars() {
        match c {
            '"' | '\\' => write!(out, "\\{c}")?,
            c => write_escaped_char(out, c)?,
        }
    }
    out.write_char('"')
}

fn write_escaped(out: &mut impl Write, text: &str) -> fmt::Result {
    text.chars().try_for_each(|c| write_escaped_char(out, c))
}

fn write_escaped_char(out: &mut impl Write, c: char) -> fmt::Result {
    match c {
        c if c.is_control() => write!(out, "{}", c.escape_default()),
        c => out.write_char(c),
    }
}
