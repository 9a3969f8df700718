//! Structured logs on stderr: a line an event, for people on a terminal, in JSON elsewhere.
//!
//! Invariants:
//! * No secret reaches a log. Secrets have types that do not print themselves.
//! * A reader of the log that has gone ends nothing: what cannot be written is dropped.

use std::io::{self, IsTerminal as _};
use tracing_subscriber::EnvFilter;

/// Begins to log what `filter` lets through. The filter was checked with the configuration.
pub fn start(filter: &str) {
    let filter = EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).log_internal_errors(false);
    let terminal = io::stderr().is_terminal();
    // A second start within one process (tests) keeps the first.
    drop(if terminal { logs.try_init() } else { logs.json().flatten_event(true).with_current_span(false).try_init() });
    std::panic::set_hook(Box::new(|panic| {
        let thread = std::thread::current();
        let place = panic.location().map(ToString::to_string);
        let message = panic.payload_as_str().unwrap_or("no message");
        tracing::error!(thread = thread.name(), place, "panicked: {message}");
    }));
}
