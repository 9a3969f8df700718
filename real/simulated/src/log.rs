//! What the nodes of a run were told, and when: two runs of one seed must be alike in it.

use std::{
    collections::BTreeSet,
    fmt::{self, Debug, Write as _},
    hash::{DefaultHasher, Hash, Hasher as _},
};
use worldline_system::{
    doors::network::{Event, Payload},
    time::Instant,
};

/// The log of one run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Log {
    lines: Vec<String>,
    /// What happened, each once.
    seen: BTreeSet<String>,
}

/// What a line begins with that says what happened.
const SEEN: &str = "seen: ";

impl fmt::Display for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lines.iter().try_for_each(|line| writeln!(f, "{line}"))?;
        self.seen.iter().try_for_each(|what| writeln!(f, "{SEEN}{what}"))
    }
}

impl Log {
    /// The log that was written so.
    #[must_use]
    pub fn read(written: &str) -> Self {
        let mut log = Self::default();
        for line in written.lines() {
            match line.strip_prefix(SEEN) {
                Some(what) => drop(log.seen.insert(what.to_owned())),
                None => log.lines.push(line.to_owned()),
            }
        }
        log
    }

    /// This happened.
    pub fn note(&mut self, what: &'static str) {
        self.seen.insert(what.to_owned());
    }

    /// What happened, each once.
    pub fn seen(&self) -> impl Iterator<Item = &str> {
        self.seen.iter().map(String::as_str)
    }

    /// Something was told to somebody.
    pub fn tell(&mut self, at: Instant, who: &str, what: &impl Debug) {
        self.lines.push(format!("{:>12} us  {who:<10} {what:?}", at.as_nanos() / 1_000));
    }

    /// As [`Log::tell`]; long payloads by their length and digest.
    pub fn tell_network(&mut self, at: Instant, who: &str, event: &Event) {
        match event {
            Event::Received { connection, class, payload } => {
                self.tell(at, who, &(connection, class, Short(payload)));
            }
            Event::Datagram { connection, payload } => self.tell(at, who, &(connection, "datagram", Short(payload))),
            other => self.tell(at, who, other),
        }
    }

    /// How much was told.
    #[must_use]
    pub fn lines(&self) -> usize {
        self.lines.len()
    }

    /// A number for all of it.
    #[must_use]
    pub fn digest(&self) -> u64 {
        digest(&self.lines)
    }

    /// The first difference to another run of the same seed, in words.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Option<String> {
        let nothing = || "(nothing more)".to_owned();
        let at = (0..self.lines().max(other.lines())).find(|&at| self.lines.get(at) != other.lines.get(at))?;
        let mut words = String::new();
        for line in &self.lines[at.saturating_sub(3)..at] {
            let _ = writeln!(words, "          {line}");
        }
        let [first, second] = [self, other].map(|log| log.lines.get(at).cloned().unwrap_or_else(nothing));
        let _ = write!(words, "first:    {first}\nsecond:   {second}");
        Some(words)
    }
}

/// A payload by its length and its digest.
struct Short<'a>(&'a Payload);

impl Debug for Short<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_bytes() {
            Some(bytes) => write!(f, "{} bytes {:016x}", bytes.len(), digest(bytes)),
            None => self.0.fmt(f),
        }
    }
}

fn digest<T: Hash + ?Sized>(what: &T) -> u64 {
    let mut hasher = DefaultHasher::new();
    what.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_logs_differ_where_the_first_line_does() {
        let mut first = Log::default();
        first.tell(Instant::from_nanos(1_000), "n1", &"a");
        let mut second = first.clone();
        assert_eq!(first.difference(&second), None);
        first.tell(Instant::from_nanos(2_000), "n1", &"b");
        second.tell(Instant::from_nanos(2_001_000), "n1", &"b");
        let words = first.difference(&second).expect("they differ");
        assert!(words.contains("2 us") && words.contains("2001 us"), "{words}");
        assert_ne!(first.digest(), second.digest());
        first.note("something");
        assert_eq!(Log::read(&first.to_string()), first);
        second = Log::default();
        assert!(first.difference(&second).expect("they differ").contains("(nothing more)"));
    }
}
