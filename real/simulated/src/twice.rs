//! Runs a seed twice, each time in a process of its own, and compares what was told: what a process counts (tokio its tasks) begins
//! anew in each.

use crate::log::SEEN;
use std::{
    collections::BTreeSet,
    fmt::Write as _,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    io,
    process::{Child, Command},
};

/// What a run has told, as it was written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// What nodes were told, in order.
    pub lines: Vec<String>,
    /// What happened, each once.
    pub seen: BTreeSet<String>,
}

impl Told {
    fn read(written: &str) -> Self {
        let mut told = Self::default();
        for line in written.lines() {
            match line.strip_prefix(SEEN) {
                Some(what) => drop(told.seen.insert(what.to_owned())),
                None => told.lines.push(line.to_owned()),
            }
        }
        told
    }

    /// A number for all lines.
    #[must_use]
    pub fn digest(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.lines.hash(&mut hasher);
        hasher.finish()
    }

    /// The first difference to another run of the same seed, in words.
    fn difference(&self, other: &Self) -> Option<String> {
        let nothing = || "(nothing more)".to_owned();
        let longest = self.lines.len().max(other.lines.len());
        let at = (0..longest).find(|&at| self.lines.get(at) != other.lines.get(at))?;
        let mut words = String::new();
        for line in &self.lines[at.saturating_sub(3)..at] {
            let _ = writeln!(words, "          {line}");
        }
        let [first, second] = [self, other].map(|told| told.lines.get(at).cloned().unwrap_or_else(nothing));
        let _ = write!(words, "first:    {first}\nsecond:   {second}");
        Some(words)
    }
}

/// What both runs have told, if that is the same.
///
/// # Errors
/// What differs, or why a run ended before.
pub fn twice(command: impl Fn() -> io::Result<Command>) -> Result<Told, String> {
    let once = || command().and_then(|mut command| command.spawn());
    let lost = |error: io::Error| format!("no process for a run: {error}");
    let (first, second) = (once().map_err(lost)?, once().map_err(lost)?);
    let (first, second) = (told(first)?, told(second)?);
    match first.difference(&second) {
        None => Ok(first),
        Some(difference) => Err(format!("two runs of this seed differ:\n{difference}")),
    }
}

/// What a run has told, or why it ended before.
fn told(run: Child) -> Result<Told, String> {
    let output = run.wait_with_output().map_err(|error| format!("a run is lost: {error}"))?;
    if output.status.success() {
        Ok(Told::read(&String::from_utf8_lossy(&output.stdout)))
    } else {
        Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::Log;
    use worldline_system::time::Instant;

    fn read(log: &Log) -> Told {
        Told::read(&log.to_string())
    }

    #[test]
    fn two_runs_differ_where_the_first_line_does() {
        let mut first = Log::default();
        first.tell(Instant::from_nanos(1_000), "n1", &"a");
        let mut second = first.clone();
        assert_eq!(read(&first).difference(&read(&second)), None);
        first.tell(Instant::from_nanos(2_000), "n1", &"b");
        second.tell(Instant::from_nanos(2_001_000), "n1", &"b");
        let (first, second) = (read(&first), read(&second));
        let words = first.difference(&second).expect("they differ");
        assert!(words.contains("2 us") && words.contains("2001 us"), "{words}");
        assert_ne!(first.digest(), second.digest());
        assert!(first.difference(&Told::default()).expect("they differ").contains("(nothing more)"));
    }

    #[test]
    fn what_happened_is_no_line_and_each_is_there_once() {
        let mut log = Log::default();
        for what in ["b", "a", "b"] {
            log.note(what);
        }
        log.tell(Instant::from_nanos(0), "n1", &"c");
        let told = read(&log);
        assert_eq!((told.lines.len(), told.seen), (1, ["a".to_owned(), "b".to_owned()].into()));
    }
}
