//! What the nodes of a run were told, and when, as the run writes it; [`SEEN`] begins a line of what it came across.
//!
//! Deliberately absent: reading and comparing, which is for who runs a seed twice; and whatever only some runs tell.

use std::{
    collections::BTreeSet,
    fmt::{self, Debug},
};
use worldline_system::time::Instant;

/// The log of one run.
#[derive(Clone, Debug, Default)]
pub struct Log {
    lines: Vec<String>,
    /// What happened, each once.
    seen: BTreeSet<&'static str>,
}

/// What a line begins with that says what happened.
pub const SEEN: &str = "seen: ";

impl fmt::Display for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lines.iter().try_for_each(|line| writeln!(f, "{line}"))?;
        self.seen.iter().try_for_each(|what| writeln!(f, "{SEEN}{what}"))
    }
}

impl Log {
    /// This happened.
    pub fn note(&mut self, what: &'static str) {
        self.seen.insert(what);
    }

    /// Something was told to somebody.
    pub fn tell(&mut self, at: Instant, who: &str, what: &impl Debug) {
        self.lines.push(format!("{:>12} us  {who:<10} {what:?}", at.as_nanos() / 1_000));
    }
}
