//! The history on disk: one file a life of a node, one JSON object a line, appended unbuffered so that it survives SIGKILL.
//!
//! What a turn writes goes out in one system call, before anything that the turn submits leaves the process. The last line of
//! a killed process may be cut short; a reader drops it.
//!
//! Deliberately absent: fsync. A drill kills processes, not machines.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufRead, BufReader, Write as _},
    path::{Path, PathBuf},
};
use worldline_proto::{Incarnation, NodeId};
use worldline_system::history::Entry;

/// Appends the history of one life of a node.
#[derive(Debug)]
pub struct Writer {
    file: File,
    path: PathBuf,
    turn: Vec<u8>,
}

impl Writer {
    /// A new file in `folder`, which is made if it is not there.
    ///
    /// # Errors
    /// The folder or the file cannot be made; this life has written there before.
    pub fn create(folder: &Path, node: NodeId, incarnation: Incarnation) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        let path = folder.join(format!("{node}-{:010}.jsonl", incarnation.0));
        let file = OpenOptions::new().append(true).create_new(true).open(&path)?;
        Ok(Self { file, path, turn: Vec::new() })
    }

    /// Where it is written.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Adds a line to the turn.
    pub fn push(&mut self, entry: &Entry) {
        serde_json::to_writer(&mut self.turn, entry).expect("a history entry has no map with other keys than names");
        self.turn.push(b'\n');
    }

    /// Writes the turn. Nothing of it may leave before this.
    ///
    /// # Errors
    /// What the file system says.
    pub fn flush(&mut self) -> io::Result<()> {
        if self.turn.is_empty() {
            return Ok(());
        }
        let written = self.file.write_all(&self.turn);
        self.turn.clear();
        written
    }
}

/// Why a history cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// The file system says so.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A line other than the last is no entry.
    #[error("{} line {line}: {source}", path.display())]
    Line {
        /// Which file.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
        /// Why.
        source: serde_json::Error,
    },
}

/// Reads every entry of one file, in the order written. A last line that a kill cut short is dropped.
///
/// # Errors
/// See [`Unreadable`].
pub fn read(path: &Path) -> Result<Vec<Entry>, Unreadable> {
    let failed = |source| Unreadable::Io { path: path.to_owned(), source };
    let mut file = BufReader::new(File::open(path).map_err(failed)?);
    let (mut entries, mut text, mut line) = (Vec::new(), Vec::new(), 0);
    loop {
        text.clear();
        line += 1;
        if file.read_until(b'\n', &mut text).map_err(failed)? == 0 || text.last() != Some(&b'\n') {
            return Ok(entries);
        }
        let entry = serde_json::from_slice(&text);
        entries.push(entry.map_err(|source| Unreadable::Line { path: path.to_owned(), line, source })?);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use worldline_proto::{EntityId, EntityKind, Epoch, LeaseId, OpId, Revision};
    use worldline_system::{
        Outcome, Refusal,
        doors::{
            directory,
            ledger::{self, Authority},
        },
        history::{Completion, EventId, Invocation, Note, What},
        time::Instant,
    };

    fn entries() -> Vec<Entry> {
        let boss = EntityId::new(EntityKind::Boss, 1).expect("small");
        let authority = Authority { entity: boss, epoch: Epoch(3), lease: LeaseId::from_bits(77) };
        let op = OpId { incarnation: Incarnation(5), counter: 1 };
        let key = directory::Key::Owner(boss);
        let compacted = Outcome::Refused(Refusal::Compacted { oldest: Revision(4) });
        let whats = [
            What::Started,
            What::Noted(Note::Dropped { authority }),
            What::Invoked(
                op,
                Invocation::Directory(directory::Submission::Get {
                    key,
                    consistency: directory::Consistency::Linearizable,
                }),
            ),
            What::Completed(op, Box::new(Completion::Directory(directory::Answer::Got(compacted)))),
            What::Completed(op, Box::new(Completion::Ledger(ledger::Answer::Committed(Outcome::Unknown)))),
        ];
        let entry = |(at, what)| Entry {
            at: Instant::from_nanos(at),
            local: Instant::from_nanos(at),
            node: NodeId(7),
            incarnation: Incarnation(5),
            event: EventId(at),
            what,
        };
        (1..).zip(whats).map(entry).collect()
    }

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("worldline-history-{name}-{}", std::process::id()));
        drop(fs::remove_dir_all(&folder));
        folder
    }

    #[test]
    fn what_was_flushed_reads_back_and_a_line_cut_short_is_dropped() {
        let folder = folder("cut");
        let mut writer = Writer::create(&folder, NodeId(7), Incarnation(5)).expect("a fresh folder");
        let path = writer.path().to_owned();
        for entry in entries() {
            writer.push(&entry);
        }
        assert_eq!(read(&path).expect("reads"), [], "nothing leaves before the flush");
        writer.flush().expect("writes");
        assert_eq!(read(&path).expect("reads"), entries());
        let whole = fs::read(&path).expect("reads");
        fs::write(&path, &whole[..whole.len() - 3]).expect("writes");
        assert_eq!(read(&path).expect("reads"), entries()[..entries().len() - 1]);
        fs::remove_dir_all(&folder).expect("removes");
    }

    #[test]
    fn a_broken_line_is_named_and_a_life_is_written_once() {
        let folder = folder("broken");
        let writer = Writer::create(&folder, NodeId(1), Incarnation(1)).expect("a fresh folder");
        assert!(Writer::create(&folder, NodeId(1), Incarnation(1)).is_err(), "this life has a file");
        fs::write(writer.path(), "{}\n").expect("writes");
        let error = read(writer.path()).expect_err("no entry").to_string();
        assert!(error.contains("line 1") && error.contains("missing field"), "{error}");
        fs::remove_dir_all(&folder).expect("removes");
    }
}
