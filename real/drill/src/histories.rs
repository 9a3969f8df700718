//! The history files that the processes of a drill have left behind, and the one that is made of them.

use crate::{processes::Failed, stage::Folder};
use std::{collections::BTreeMap, fs, path::PathBuf};
use worldline_proto::NodeId;
use worldline_real::history;
use worldline_system::history::{Entry, What};

/// Every life's history.
///
/// # Errors
/// One cannot be read.
pub fn lives(folder: &Folder) -> Result<Vec<Vec<Entry>>, Failed> {
    let read = fs::read_dir(folder.histories()).map_err(Failed::machine("cannot read the histories"))?;
    let mut paths: Vec<PathBuf> = read.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    let lives = paths.iter().map(|path| history::read(path).map_err(|error| Failed::History(error.to_string())));
    lives.collect()
}

/// A node of whose lives not each has written that it began, and how many have.
#[must_use]
pub fn unwritten(lives: &[Vec<Entry>], started: &BTreeMap<NodeId, usize>) -> Option<(NodeId, String)> {
    started.iter().find_map(|(&node, &started)| {
        let first = lives.iter().filter_map(|life| life.first());
        let wrote = first.filter(|line| line.node == node && line.what == What::Started).count();
        (wrote < started)
            .then(|| (node, format!("it was started {started} times, and {wrote} of its lives wrote that")))
    })
}

/// Keeps the one history, a line an event: an event's number is the line's.
///
/// # Errors
/// It cannot be written.
pub fn write_merged(folder: &Folder, entries: &[Entry]) -> Result<(), Failed> {
    let mut text = Vec::new();
    for entry in entries {
        serde_json::to_writer(&mut text, entry).map_err(|error| Failed::History(error.to_string()))?;
        text.push(b'\n');
    }
    let path = folder.path().join("history.jsonl");
    fs::write(&path, text).map_err(Failed::machine(format!("cannot write {}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use worldline_proto::Incarnation;
    use worldline_system::{history::EventId, time};

    #[test]
    fn every_life_that_was_started_has_to_have_written_that() {
        let line = |node, what| {
            let (at, node, incarnation) = (time::Instant::default(), NodeId(node), Incarnation(1));
            Entry { at, local: at, node, incarnation, event: EventId(0), what }
        };
        let lives = [vec![line(1, What::Started)], vec![line(1, What::Started)], vec![line(2, What::Stopped)], vec![]];
        let short = |started| unwritten(&lives, &BTreeMap::from(started)).map(|(node, _)| node.0);
        assert_eq!(short([(NodeId(1), 2)]), None);
        assert_eq!(short([(NodeId(1), 3)]), Some(1), "a file is missing");
        assert_eq!(short([(NodeId(2), 1)]), Some(2), "its beginning is missing");
        assert_eq!(short([(NodeId(3), 1)]), Some(3));
        assert_eq!(short([(NodeId(3), 0)]), None, "it was never started");
    }
}
