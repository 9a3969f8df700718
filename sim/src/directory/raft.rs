//! Agreement on the log: replication, synchronisation, commitment. After Ongaro and Ousterhout.
//!
//! Appends and their answers are messages with the delays and losses of their links; what is lost is sent again at a
//! leader's pulse.

use super::{
    Item, Model, later,
    member::{Entry, Message, Role},
    store::{LeaseEffect, Proposal},
};
use crate::{
    Core, Purpose,
    replication::{carry, quorum},
};
use std::sync::Arc;
use worldline_system::history::{Acceptance, What};

/// Entries in one append.
const APPEND_ENTRIES: usize = 256;
/// Entries that a leader takes before the first of them is committed; one more is refused (etcd: 5,000).
const UNCOMMITTED: u64 = 4_096;

impl Model {
    pub(super) fn tell(&mut self, core: &mut Core, from: usize, to: usize, message: Message) {
        let (source, target) = (self.members[from].node, self.members[to].node);
        if let Some(delay) = carry(core, source, target) {
            // Two members speak over one connection: nothing overtakes.
            let arrival = &mut self.members[to].arrivals[from];
            *arrival = (*arrival).max(core.now() + delay);
            later(core, *arrival, target, Item::Peer(from, to, Box::new(message)));
        }
    }

    pub(super) fn hear(&mut self, core: &mut Core, from: usize, to: usize, message: Message) {
        match message {
            Message::Append { term, previous, entries, commit } => {
                self.on_append(core, from, to, term, previous, entries, commit);
            }
            Message::Appended { term, matched, refused } => self.on_appended(core, from, to, term, matched, refused),
            Message::Snapshot { term, last } => self.on_snapshot(core, from, to, term, last),
            Message::Vote { term, last } => self.on_vote(core, from, to, term, last),
            Message::Voted { term, granted } => self.on_voted(core, from, to, term, granted),
            Message::Propose(proposal) => {
                self.append(core, to, proposal);
            }
            Message::ReadIndex { .. } | Message::ReadReady { .. } | Message::Renew { .. } | Message::Renewed { .. } => {
                self.on_query_message(core, from, to, message);
            }
        }
    }

    /// Where disks have lied, the new leader may lack entries that were committed: they are undone, as if they had never
    /// been.
    pub(super) fn drop_lost_tail(&mut self, core: &mut Core, index: usize) {
        let log = &self.members[index].log;
        if log.term(self.store.applied()) == Some(self.store.applied_term()) || log.base() > self.store.applied() {
            return;
        }
        let shared = self.store.last_shared(|at| log.term(at));
        self.store.roll_back(shared);
        let (applied, revision) = (self.store.applied(), self.store.revision());
        for member in &mut self.members {
            member.applied = member.applied.min(applied);
            member.commit = member.commit.min(applied);
            member.revision = member.revision.min(revision);
        }
        let at = (applied, self.store.applied_term());
        let member = &mut self.members[index];
        if member.log.term(at.0) != Some(at.1) {
            // The store could not go back as far as the log: the member starts over from the store.
            member.log.replace(at);
            member.disk.replace(at.0);
            (member.commit, member.applied) = (at.0, at.0);
        }
        self.end_all_watches(core);
    }

    /// A leader takes a proposal. `false` where this member does not lead or has too much uncommitted.
    pub(super) fn append(&mut self, core: &mut Core, index: usize, proposal: Arc<Proposal>) -> bool {
        let member = &mut self.members[index];
        if !member.is_leader() || member.log.last().0 - member.commit >= UNCOMMITTED {
            return false;
        }
        let entry = Entry { term: member.term, proposal };
        member.log.push(entry);
        self.sync(core, index);
        for other in (0..self.members.len()).filter(|&other| other != index) {
            self.append_to(core, index, other);
        }
        true
    }

    /// Sends a follower what it lacks, and how far is committed.
    pub(super) fn append_to(&mut self, core: &mut Core, index: usize, other: usize) {
        let now = core.now();
        let member = &mut self.members[index];
        let (term, commit, log) = (member.term, member.commit, &member.log);
        let Role::Leader(leading) = &mut member.role else { return };
        leading.sent_at[other] = now;
        let before = leading.next[other] - 1;
        let message = match log.term(before) {
            Some(previous_term) => {
                let entries = log.behind(before, APPEND_ENTRIES);
                leading.next[other] += entries.len() as u64;
                Message::Append { term, previous: (before, previous_term), entries, commit }
            }
            None => {
                let last = (member.applied, log.term(member.applied).expect("what is applied last is in the log"));
                leading.next[other] = last.0 + 1;
                Message::Snapshot { term, last }
            }
        };
        self.tell(core, index, other, message);
    }

    #[expect(clippy::too_many_arguments, reason = "the message's fields")]
    fn on_append(
        &mut self,
        core: &mut Core,
        from: usize,
        to: usize,
        term: u64,
        previous: (u64, u64),
        entries: Vec<Entry>,
        commit: u64,
    ) {
        if term < self.members[to].term {
            let term = self.members[to].term;
            return self.tell(core, to, from, Message::Appended { term, matched: 0, refused: true });
        }
        self.adopt(to, term, Some(from));
        self.heard(core, to);
        let member = &mut self.members[to];
        let covered = previous.0 < member.log.base();
        if !covered && member.log.term(previous.0) != Some(previous.1) {
            // The leader tries again from where both are certain: what this member has committed.
            let matched = member.commit.min(member.log.last().0).max(member.log.base());
            return self.tell(core, to, from, Message::Appended { term, matched, refused: true });
        }
        let end = previous.0 + entries.len() as u64;
        for (at, entry) in (previous.0 + 1..).zip(entries) {
            match member.log.term(at) {
                _ if at <= member.log.base() => {}
                Some(known) if known == entry.term => {}
                Some(_) => {
                    member.log.truncate(at - 1);
                    member.disk.truncate(at - 1);
                    member.log.push(entry);
                }
                None => member.log.push(entry),
            }
        }
        member.verified = member.verified.max(end);
        self.commit_up_to(core, to, commit.min(end));
        let member = &self.members[to];
        if member.disk.synced() >= end {
            let matched = member.verified.min(member.disk.synced());
            self.tell(core, to, from, Message::Appended { term, matched, refused: false });
        } else {
            self.sync(core, to);
        }
    }

    fn on_appended(&mut self, core: &mut Core, from: usize, to: usize, term: u64, matched: u64, refused: bool) {
        if term > self.members[to].term {
            return self.step_down(core, to, term);
        }
        if term < self.members[to].term || !self.members[to].is_leader() {
            return;
        }
        let last = self.members[to].log.last().0;
        let leading = self.members[to].leading().expect("it was just asked");
        if refused {
            leading.next[from] = (matched + 1).min(leading.next[from]).min(last + 1);
            return self.append_to(core, to, from);
        }
        leading.matched[from] = leading.matched[from].max(matched);
        leading.next[from] = leading.next[from].max(matched + 1);
        if leading.next[from] <= last {
            self.append_to(core, to, from);
        }
        self.try_commit(core, to);
    }

    fn on_snapshot(&mut self, core: &mut Core, from: usize, to: usize, term: u64, last: (u64, u64)) {
        if term < self.members[to].term {
            return;
        }
        self.adopt(to, term, Some(from));
        self.heard(core, to);
        let member = &mut self.members[to];
        if last.0 > member.commit {
            member.log.replace(last);
            member.disk.replace(last.0);
            member.verified = last.0;
            self.commit_up_to(core, to, last.0);
        }
        self.tell(core, to, from, Message::Appended { term, matched: last.0, refused: false });
    }

    /// Begins to sync what the member's log has, unless a sync is under way.
    fn sync(&mut self, core: &mut Core, index: usize) {
        let member = &mut self.members[index];
        let (node, life, last) = (member.node, member.life, member.log.last().0);
        let who = u64::from(node.0);
        let time = |n| core.service_times.sync.of(core.draw(Purpose::Directory, who, n));
        if let Some(span) = member.disk.begin(last, time) {
            later(core, core.now() + span, node, Item::Synced(index, life));
        }
    }

    pub(super) fn synced(&mut self, core: &mut Core, index: usize, life: u32) {
        if self.members[index].life != life {
            return;
        }
        let synced = self.members[index].disk.finish();
        self.sync(core, index);
        let member = &mut self.members[index];
        if let Role::Leader(leading) = &mut member.role {
            leading.matched[index] = synced;
            self.try_commit(core, index);
        } else if let Some(leader) = member.leader.filter(|&leader| leader != index) {
            let (term, matched) = (member.term, member.verified.min(synced));
            self.tell(core, index, leader, Message::Appended { term, matched, refused: false });
        }
    }

    /// Commits what a majority has synced, if it is of this leader's own term.
    fn try_commit(&mut self, core: &mut Core, index: usize) {
        let needed = quorum(self.members.len());
        let member = &mut self.members[index];
        let term = member.term;
        let Role::Leader(leading) = &member.role else { return };
        let mut matched = leading.matched.clone();
        matched.sort_unstable_by(|a, b| b.cmp(a));
        let majority = matched[needed - 1];
        if majority <= member.commit || member.log.term(majority) != Some(term) {
            return;
        }
        self.commit_up_to(core, index, majority);
        for other in (0..self.members.len()).filter(|&other| other != index) {
            self.append_to(core, index, other);
        }
        self.confirm(core, index);
    }

    /// Commits and applies up to an index, at one member. The first member to get there applies to the store.
    pub(super) fn commit_up_to(&mut self, core: &mut Core, index: usize, commit: u64) {
        let member = &mut self.members[index];
        member.commit = member.commit.max(commit.min(member.log.last().0));
        let commit = member.commit;
        while self.store.applied() < commit {
            self.apply_next(core, index);
        }
        self.applied_up_to(core, index, commit);
    }

    /// Applies the next entry to the store, and tells the history.
    fn apply_next(&mut self, core: &mut Core, index: usize) {
        let at = self.store.applied() + 1;
        let member = &self.members[index];
        let node = member.node;
        let before = member.log.term(at - 1);
        assert_eq!(before, Some(self.store.applied_term()), "what is committed follows from what is applied");
        let entry = member.log.get(at).expect("what is committed and not yet applied is in the log").clone();
        let effect = self.store.apply(entry.term, core.now(), &entry.proposal, self.faults.database_full);
        if !effect.changes.is_empty() {
            let (revision, changes) = (effect.revision, effect.changes.clone());
            core.record(node, What::Accepted(Acceptance::DirectoryChanged { revision, changes }));
        }
        match effect.lease {
            Some(LeaseEffect::Granted(lease, ttl)) => {
                core.record(node, What::Accepted(Acceptance::LeaseGranted { lease, ttl }));
                self.lease_granted(core, index, lease, ttl);
            }
            Some(LeaseEffect::Ended(lease, _)) => {
                core.record(node, What::Accepted(Acceptance::LeaseEnded { lease }));
                self.lease_ended(core, index, lease);
            }
            None => {}
        }
    }
}
