//! The form of a line: the architecture's schema in JSON, or the same for people on a terminal. Redacted either way.

use super::redact::Redaction;
use serde_json::{Map, Value, json};
use std::{fmt, thread};
use time::OffsetDateTime;
use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    fmt::{FmtContext, FormatEvent, FormatFields, format::Writer},
    registry::LookupSpan,
};

/// Those of this program whose addresses are the operator's own: services, and what it listens on itself.
const OURS: &str = "worldline";
/// And that of it which speaks with strangers.
const OF_PEERS: &str = "worldline_real::network";

/// How a line is written.
#[derive(Clone)]
pub struct Schema {
    /// What the process is called.
    pub service: String,
    /// Where it stands.
    pub region: Option<String>,
    /// What must not be told.
    pub redaction: Redaction,
    /// For people.
    pub terminal: bool,
}

/// What an event says.
#[derive(Default)]
struct Said {
    event: String,
    attributes: Map<String, Value>,
}

impl Visit for Said {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, Value::String(format!("{value:?}")));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, Value::String(value.to_owned()));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, json!(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, json!(value));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, json!(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, json!(value));
    }
}

impl Said {
    fn put(&mut self, field: &Field, value: Value) {
        match (field.name(), value) {
            ("message", Value::String(text)) => self.event = text,
            (name, value) => drop(self.attributes.insert(name.to_owned(), value)),
        }
    }

    /// Nothing of it tells who or where somebody is.
    fn redacted(mut self, redaction: &Redaction, target: &str) -> Self {
        let ours = target.starts_with(OURS) && !target.starts_with(OF_PEERS);
        let told = |text: &str| if ours { redaction.characters(text) } else { redaction.everything(text) };
        self.event = told(&self.event);
        for (name, value) in &mut self.attributes {
            if let Value::String(text) = value {
                *text = redaction.named(name, text).unwrap_or_else(|| told(text));
            }
        }
        self
    }
}

impl<S, N> FormatEvent<S, N> for Schema
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut said = Said::default();
        event.record(&mut said);
        let metadata = event.metadata();
        let mut said = said.redacted(&self.redaction, metadata.target());
        let (timestamp, level) = (timestamp(OffsetDateTime::now_utc()), *metadata.level());
        if self.terminal {
            write!(writer, "{timestamp} {} {}", painted(level, writer.has_ansi_escapes()), said.event)?;
            for (name, value) in &said.attributes {
                match value {
                    Value::String(text) => write!(writer, " {name}={text}")?,
                    other => write!(writer, " {name}={other}")?,
                }
            }
            return writeln!(writer);
        }
        let mut id = |name: &str| said.attributes.remove(name).unwrap_or(Value::Null);
        let line = json!({
            "timestamp": timestamp,
            "level": level.as_str(),
            "service": self.service,
            "region": self.region,
            "trace_id": id("trace_id"),
            "span_id": id("span_id"),
            "event": said.event,
            "attributes": said.attributes,
            "context": { "target": metadata.target(), "thread": thread::current().name() },
        });
        writeln!(writer, "{line}")
    }
}

fn painted(level: Level, colour: bool) -> String {
    let code = match level {
        Level::ERROR => 31,
        Level::WARN => 33,
        Level::INFO => 32,
        _ => 2,
    };
    if colour { format!("\u{1b}[{code}m{level:>5}\u{1b}[0m") } else { format!("{level:>5}") }
}

/// `2025-11-14T10:32:45.123Z`.
fn timestamp(at: OffsetDateTime) -> String {
    let (year, month, day) = at.to_calendar_date();
    let (hour, minute, second, milli) = at.to_hms_milli();
    format!("{year:04}-{:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z", u8::from(month))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::{self, Write},
        sync::{Arc, Mutex},
    };
    use tracing::Dispatch;

    const GUESSED: &str = "0123456789abcdef0123456789abcdef";

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            self.0.lock().map_err(|_| io::ErrorKind::Other)?.extend_from_slice(line);
            Ok(line.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What is written of what `say` says.
    fn written(terminal: bool, say: impl FnOnce()) -> String {
        let redaction = Redaction::new([7; 32]);
        let schema = Schema { service: "worker-n7".into(), region: Some("frankfurt".into()), redaction, terminal };
        let lines = Lines::default();
        let writer = lines.clone();
        let logs = tracing_subscriber::fmt().with_writer(move || writer.clone()).event_format(schema).finish();
        tracing::dispatcher::with_default(&Dispatch::new(logs), say);
        let bytes = lines.0.lock().expect("nobody panicked").clone();
        String::from_utf8(bytes).expect("text")
    }

    #[test]
    fn a_line_has_the_fields_of_the_schema() {
        let line = written(false, || {
            tracing::warn!(entity = "boss-1", tick = 387_492_u64, trace_id = "a7f3", span_id = "8f3d", "it is slow");
        });
        let line: Value = serde_json::from_str(&line).expect("one line of JSON");
        let timestamp = line["timestamp"].as_str().expect("a text");
        assert!(timestamp.len() == 24 && timestamp.ends_with('Z') && timestamp.as_bytes()[10] == b'T', "{timestamp}");
        for (name, value) in [
            ("level", "WARN"),
            ("service", "worker-n7"),
            ("region", "frankfurt"),
            ("event", "it is slow"),
            ("trace_id", "a7f3"),
            ("span_id", "8f3d"),
        ] {
            assert_eq!(line[name], value, "{line}");
        }
        assert_eq!(line["attributes"], json!({ "entity": "boss-1", "tick": 387_492 }));
        assert!(line["context"]["target"].as_str().is_some_and(|target| target.contains("schema")), "{line}");
    }

    #[test]
    fn nobody_is_told_who_plays_or_from_where_whoever_says_it() {
        for terminal in [false, true] {
            let lines = written(terminal, || {
                tracing::info!(character = %"character-7", trace_id = GUESSED, "plays as character-7");
                tracing::warn!(target: "quinn::connection", remote = %"203.0.113.77:50123", "lost [2001:db8:1:2::7]:9");
                tracing::error!(target: "worldline_real::network::quic", error = %"no route to 203.0.113.77", "no connection");
                tracing::warn!("nobody answers at 10.1.2.3:5432");
            });
            for raw in ["character-7\"", "character-7 ", "203.0.113.77", "50123", "2001:db8:1:2::7"] {
                assert!(!lines.contains(raw), "{raw} in {lines}");
            }
            assert!(lines.contains("203.0.113.x") && lines.contains("character-x"), "{lines}");
            assert!(!lines.contains(GUESSED), "which trace is whose can be worked out: {lines}");
            assert!(lines.contains("10.1.2.3:5432"), "an operator's own service is named: {lines}");
        }
    }
}
