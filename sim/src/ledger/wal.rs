//! The write-ahead log: flushed by the primary, shipped to the standbys, and answered when one of them has flushed it too.
//!
//! A primary ships only what it has flushed itself, as PostgreSQL's walsender does.

use super::{Answer, Item, Model, database::Undo, fault::Draw, fault::draw, later};
use crate::{Core, replication::carry};
use worldline_proto::{NodeId, OpId};
use worldline_system::{
    history::{Acceptance, What},
    time::Instant,
};

/// Records that can be undone. A member that lies further back has lost its place and is taken to have them.
const RECORDS_KEPT: usize = 4_096;

/// What one transaction wrote.
#[derive(Clone, Debug)]
pub(super) struct Record {
    pub number: u64,
    pub undo: Vec<Undo>,
    /// To be told when it stands on a standby.
    pub acceptances: Vec<Acceptance>,
}

/// An answer that waits until everything it tells of stands on a standby.
#[derive(Clone, Debug)]
pub(super) struct Reply {
    /// The last record that it depends on.
    pub at: u64,
    pub transaction: u64,
    pub client: NodeId,
    pub op: OpId,
    pub deadline: Instant,
    pub answer: Answer,
}

impl Model {
    /// Begins to sync what the member has received, unless a sync is under way.
    pub(super) fn flush(&mut self, core: &mut Core, index: usize) {
        if index == self.primary {
            self.members[index].received = self.end;
        }
        let member = &mut self.members[index];
        let (node, sessions) = (member.node, member.sessions);
        let time = |n| core.service_times.sync.of(draw(core, Draw::Sync, node.0, n));
        if let Some(span) = member.disk.begin(member.received, time) {
            later(core, core.now() + span, node, Item::Flushed(index, sessions));
        }
    }

    /// A sync is complete.
    pub(super) fn flushed(&mut self, core: &mut Core, index: usize, sessions: u32) {
        let member = &mut self.members[index];
        if member.sessions != sessions {
            return;
        }
        member.disk.finish();
        self.flush(core, index);
        if index == self.primary {
            self.ship(core);
            self.complete(core);
        } else {
            self.acknowledge(core, index);
        }
    }

    /// Sends the standbys what the primary has flushed.
    pub(super) fn ship(&mut self, core: &mut Core) {
        let flushed = self.members[self.primary].disk.synced();
        let from = self.members[self.primary].node;
        for standby in (0..self.members.len()).filter(|&member| member != self.primary) {
            let member = &mut self.members[standby];
            if member.sent >= flushed {
                continue;
            }
            let wal = Item::Wal(standby, self.timeline, member.sent, flushed);
            (member.sent, member.sent_at) = (flushed, core.now());
            if let Some(delay) = carry(core, from, member.node) {
                // The log is one stream: nothing overtakes.
                member.arrival = member.arrival.max(core.now() + delay);
                later(core, member.arrival, member.node, wal);
            }
        }
    }

    /// Records arrive at a standby.
    pub(super) fn receive(&mut self, core: &mut Core, index: usize, timeline: u32, base: u64, end: u64) {
        let member = &mut self.members[index];
        // A record behind a gap is of no use; the primary sends the missing ones again.
        if timeline != self.timeline || index == self.primary || member.received < base {
            return;
        }
        member.received = member.received.max(end);
        if member.disk.synced() >= end {
            self.acknowledge(core, index);
        } else {
            self.flush(core, index);
        }
    }

    fn acknowledge(&mut self, core: &mut Core, index: usize) {
        let (from, to) = (self.members[index].node, self.members[self.primary].node);
        let acked = Item::Acked(index, self.timeline, self.members[index].disk.synced());
        if let Some(delay) = carry(core, from, to) {
            later(core, core.now() + delay, to, acked);
        }
    }

    /// The primary learns what a standby has flushed.
    pub(super) fn acked(&mut self, core: &mut Core, index: usize, timeline: u32, flushed: u64) {
        if timeline == self.timeline && !self.demoted {
            self.members[index].acked = self.members[index].acked.max(flushed);
            self.complete(core);
        }
    }

    /// Answers every transaction that stands on the primary and on a standby, and tells the history.
    pub(super) fn complete(&mut self, core: &mut Core) {
        let standbys = (0..self.members.len()).filter(|&member| member != self.primary);
        let acked = standbys.map(|member| self.members[member].acked).max();
        let flushed = self.members[self.primary].disk.synced();
        let synced = acked.map_or(flushed, |acked| acked.min(flushed));
        if synced > self.synced {
            let node = self.members[self.primary].node;
            let first = self.wal.partition_point(|record| record.number <= self.synced);
            let last = self.wal.partition_point(|record| record.number <= synced);
            self.synced = synced;
            for record in self.wal.range_mut(first..last) {
                for acceptance in record.acceptances.drain(..) {
                    core.record(node, What::Accepted(acceptance));
                }
            }
            self.trim();
        }
        while self.replies.front().is_some_and(|reply| reply.at <= self.synced) {
            let reply = self.replies.pop_front().expect("there is one");
            self.committed(core, reply);
        }
    }

    /// Forgets how to undo what every member has for certain.
    fn trim(&mut self) {
        let everywhere = self.members.iter().map(|member| member.disk.durable()).min().unwrap_or(0);
        while let Some(record) = self.wal.front()
            && record.number <= self.synced
            && (record.number <= everywhere || self.wal.len() > RECORDS_KEPT)
        {
            self.wal.pop_front();
        }
    }

    /// Goes back to the state after record `end`: what lies behind it is on no member that counts.
    pub(super) fn rewind(&mut self, end: u64) {
        let oldest = self.wal.front().map_or(self.end, |record| record.number - 1);
        let end = end.max(oldest);
        while self.wal.back().is_some_and(|record| record.number > end) {
            let record = self.wal.pop_back().expect("there is one");
            self.database.undo(&record.undo);
        }
        self.end = self.end.min(end);
        self.synced = self.synced.min(self.end);
    }
}
