//! Standard output and standard error, and whether a person is looking at them.

use std::io::{IsTerminal as _, StdoutLock, Write};
use worldline_reports::terminal::Colour;

/// Where a command writes. A closed output is an error that ends the command quietly, never a panic.
pub struct Output {
    out: std::io::BufWriter<StdoutLock<'static>>,
    /// Whether to colour standard output.
    pub colour: Colour,
    /// Whether a person looks at standard error, where progress goes.
    pub watched: bool,
}

impl Output {
    /// The process's own.
    pub fn standard() -> Self {
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let stdout = std::io::stdout();
        let colour = Colour(stdout.is_terminal() && !plain);
        let watched = std::io::stderr().is_terminal();
        Self { out: std::io::BufWriter::new(stdout.lock()), colour, watched }
    }

    /// Writes to standard output.
    pub fn print(&mut self, text: &str) -> std::io::Result<()> {
        self.out.write_all(text.as_bytes())
    }

    /// Sends on what was written.
    pub fn flush(&mut self) -> std::io::Result<()> {
        self.out.flush()
    }

    /// Writes a line to standard error. If nobody reads it, nobody misses it.
    pub fn complain(&mut self, text: &str) {
        let _ = self.out.flush();
        let _ = writeln!(std::io::stderr(), "{text}");
    }
}
