//! What a server has counted, as `INFO` tells it of a real one.

use super::{Model, Server, commands::is_write};
use worldline_proto::NodeId;
use worldline_system::{
    Outcome,
    doors::{
        cache::{Answer, Submission},
        telemetry::{Label, Meter, Metric, labels, ratio},
    },
    time::Instant,
};

/// Counted since the beginning of the world.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Told {
    reads: u64,
    writes: u64,
    hits: u64,
    misses: u64,
    pub evicted: u64,
    pub expired: u64,
}

impl Told {
    /// A request was executed.
    pub fn executed(&mut self, submission: &Submission, answer: &Answer) {
        *(if is_write(submission) { &mut self.writes } else { &mut self.reads }) += 1;
        match answer {
            Answer::Read(Outcome::Done(Some(_))) | Answer::Got(Outcome::Done(Some(_))) => self.hits += 1,
            Answer::Read(Outcome::Done(None)) | Answer::Got(Outcome::Done(None)) => self.misses += 1,
            _ => {}
        }
    }
}

impl Model {
    /// What there is to tell of each server now.
    pub(crate) fn meters(&self, now: Instant) -> Vec<(NodeId, Meter)> {
        self.servers.iter().map(|server| (server.node, self.meter(server, now))).collect()
    }

    fn meter(&self, server: &Server, now: Instant) -> Meter {
        let mut meter = Meter::default();
        let Told { reads, writes, hits, misses, evicted, expired } = server.told;
        let node = Label::Node(server.node);
        let a_second = |count: u64| (count / (now.as_nanos() / 1_000_000_000).max(1)).try_into().unwrap_or(i64::MAX);
        for (operation, count) in [("get", reads), ("set", writes)] {
            meter.set(Metric::DragonflyOpsPerSec, labels(&[node, Label::Word(operation)]), a_second(count));
        }
        let bytes = |bytes: usize| i64::try_from(bytes).unwrap_or(i64::MAX);
        meter.set(Metric::DragonflyMemoryUsedBytes, labels(&[node]), bytes(server.store.bytes()));
        meter.set(Metric::DragonflyMemoryLimitBytes, labels(&[node]), bytes(self.memory_bytes_max));
        if hits + misses > 0 {
            meter.set(Metric::DragonflyHitRatio, labels(&[Label::Word("all")]), ratio(hits, hits + misses));
        }
        for (reason, count) in [("memory", evicted), ("expired", expired)] {
            meter.count(Metric::DragonflyEvictionCount, labels(&[Label::Word(reason)]), count);
        }
        meter
    }
}
