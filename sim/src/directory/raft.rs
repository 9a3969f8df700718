//! Agreement: elections, replication, commitment. After Ongaro and Ousterhout, with etcd's pre-vote and check-quorum.
//!
//! Heartbeats are not sent. [`Model::pulse`] asks, for all members at once, who would have heard whom. Appends, votes and
//! their answers are messages with the delays and losses of their links.

use super::{
    ELECTION, Item, Model, PULSE, later,
    member::{Entry, Leading, Message, Role},
    store::{Command, LeaseEffect, Proposal},
};
use crate::{
    Core, Purpose,
    entropy::below,
    replication::{quorum, reachable},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use worldline_system::{
    history::{Acceptance, What},
    time::{Duration, Instant},
};

/// Entries in one append.
const APPEND_ENTRIES: usize = 256;
/// Entries that a leader takes before the first of them is committed; one more is refused (etcd: 5,000).
pub(super) const UNCOMMITTED: u64 = 4_096;
/// After so long without an answer a follower is sent the same again.
const RESEND: Duration = Duration::from_millis(300);

impl Model {
    /// Looks at who hears whom, and at everything that has a period.
    pub(super) fn pulse(&mut self, core: &mut Core) {
        self.pulses += 1;
        for index in 0..self.members.len() {
            if !core.is_running(self.members[index].node) {
                continue;
            }
            if self.members[index].is_leader() {
                self.lead(core, index);
            } else {
                self.follow(core, index);
            }
        }
        if self.pulses.is_multiple_of(5) {
            self.expire(core);
        }
        if self.pulses.is_multiple_of(10) {
            self.sweep(core);
        }
        let node = self.members[0].node;
        later(core, core.now() + PULSE, node, Item::Pulse);
    }

    /// How many running members a running member can speak with, itself included.
    pub(super) fn sees(&self, core: &Core, index: usize) -> usize {
        let node = self.members[index].node;
        if !core.is_running(node) {
            return 0;
        }
        self.members.iter().filter(|other| core.is_running(other.node) && reachable(core, node, other.node)).count()
    }

    /// The running leader of the highest term.
    pub(super) fn leading(&self, core: &Core) -> Option<usize> {
        let leads = |&index: &usize| self.members[index].is_leader() && core.is_running(self.members[index].node);
        (0..self.members.len()).filter(leads).max_by_key(|&index| self.members[index].term)
    }

    /// A leader's pulse: it steps down without a majority or before a higher term, and sends again what was lost.
    fn lead(&mut self, core: &mut Core, index: usize) {
        let (now, node, term) = (core.now(), self.members[index].node, self.members[index].term);
        let heard =
            |core: &Core, other: &super::Member| core.is_running(other.node) && reachable(core, node, other.node);
        let highest = self.members.iter().filter(|other| heard(core, other)).map(|other| other.term).max();
        if highest.is_some_and(|highest| highest > term) {
            return self.step_down(core, index, highest.unwrap_or(term));
        }
        if self.sees(core, index) >= quorum(self.members.len()) {
            self.members[index].leading().expect("it leads").quorum_at = now;
        } else if now.since(self.members[index].leading().expect("it leads").quorum_at) >= ELECTION {
            return self.step_down(core, index, term);
        }
        let last = self.members[index].log.last().0;
        for other in (0..self.members.len()).filter(|&other| other != index) {
            let leading = self.members[index].leading().expect("it leads");
            let behind = leading.matched[other] < last;
            if behind && now.since(leading.sent_at[other]) >= RESEND {
                leading.next[other] = leading.matched[other] + 1;
                self.append_to(core, index, other);
            }
        }
        self.confirm(core, index);
    }

    /// A follower's pulse: it hears its leader, or stands for election once it has not for long enough.
    fn follow(&mut self, core: &mut Core, index: usize) {
        let now = core.now();
        if let Some(leader) = self.heard_leader(core, index) {
            let (term, commit) = (self.members[leader].term, self.members[leader].commit);
            let matched = self.members[leader].leading().expect("it leads").matched[index];
            self.adopt(index, term, Some(leader));
            self.heard(core, index);
            self.commit_up_to(core, index, commit.min(matched));
        } else if now >= self.members[index].election_at {
            self.members[index].leader = None;
            if self.would_win(core, index) {
                self.stand(core, index);
            } else {
                self.members[index].election_at = now + PULSE * 3;
            }
        }
    }

    /// The leader whose heartbeat a follower would have got by now.
    fn heard_leader(&self, core: &Core, index: usize) -> Option<usize> {
        let (node, term) = (self.members[index].node, self.members[index].term);
        let leader = self.leading(core)?;
        let other = &self.members[leader];
        (other.term >= term && core.linked(other.node, node)).then_some(leader)
    }

    /// Notes a sign of life of the leader: the next election is a drawn time away.
    fn heard(&mut self, core: &Core, index: usize) {
        let now = core.now();
        self.members[index].heard_at = now;
        self.members[index].election_at = now + self.patience(core, index);
    }

    fn patience(&self, core: &Core, index: usize) -> Duration {
        let member = &self.members[index];
        let bits = core.draw(Purpose::DirectoryElection, member.node.0.into(), member.term);
        ELECTION + Duration::from_nanos(below(bits, ELECTION.as_nanos()))
    }

    /// Nobody stands for election for now.
    pub(super) fn hold_elections_off(&mut self, core: &Core) {
        for index in 0..self.members.len() {
            self.members[index].election_at = core.now() + self.patience(core, index);
        }
    }

    /// The pre-vote: whether a majority can be reached that hears no leader and whose logs are not ahead.
    fn would_win(&self, core: &Core, index: usize) -> bool {
        let (now, me) = (core.now(), &self.members[index]);
        let (last, term) = me.log.last();
        let votes = self.members.iter().enumerate().filter(|&(other, member)| {
            let (their_last, their_term) = member.log.last();
            let quiet = now.since(member.heard_at) >= ELECTION || member.heard_at == Instant::default();
            let free = other == index || quiet && !member.is_leader();
            free && core.is_running(member.node)
                && reachable(core, me.node, member.node)
                && (term, last) >= (their_term, their_last)
        });
        votes.count() >= quorum(self.members.len())
    }

    /// Stands for election in the next term.
    fn stand(&mut self, core: &mut Core, index: usize) {
        let term = self.members[index].term + 1;
        self.adopt(index, term, None);
        self.members[index].voted = Some(index);
        self.members[index].role = Role::Candidate(1 << index);
        self.members[index].election_at = core.now() + self.patience(core, index);
        if self.members.len() == 1 {
            return self.win(core, index);
        }
        let last = self.members[index].log.last();
        for other in (0..self.members.len()).filter(|&other| other != index) {
            self.tell(core, index, other, Message::Vote { term, last });
        }
    }

    /// Moves to a term, and to following its leader if that is known.
    fn adopt(&mut self, index: usize, term: u64, leader: Option<usize>) {
        let member = &mut self.members[index];
        if term > member.term {
            (member.term, member.voted, member.verified) = (term, None, 0);
        }
        member.role = Role::Follower;
        member.leader = leader;
    }

    /// A leader leads no longer. Who waits for a proposal goes on waiting: it may still be committed.
    pub(super) fn step_down(&mut self, core: &mut Core, index: usize, term: u64) {
        self.adopt(index, term, None);
        self.members[index].election_at = core.now() + self.patience(core, index);
    }

    pub(super) fn tell(&mut self, core: &mut Core, from: usize, to: usize, message: Message) {
        let (source, target) = (self.members[from].node, self.members[to].node);
        if let Some(delay) = core.hop(source, target) {
            later(core, core.now() + delay, target, Item::Peer(from, to, Box::new(message)));
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

    fn on_vote(&mut self, core: &mut Core, from: usize, to: usize, term: u64, last: (u64, u64)) {
        let now = core.now();
        let member = &mut self.members[to];
        // Check-quorum: who hears a leader lets nobody stand.
        let quiet = member.heard_at == Instant::default() || now.since(member.heard_at) >= ELECTION;
        if term < member.term || (term > member.term && !quiet && member.leader.is_some()) {
            return;
        }
        if term > member.term {
            self.adopt(to, term, None);
        }
        let member = &mut self.members[to];
        let (own_last, own_term) = member.log.last();
        let granted = (last.1, last.0) >= (own_term, own_last) && member.voted.is_none_or(|voted| voted == from);
        if granted {
            member.voted = Some(from);
            self.members[to].election_at = now + self.patience(core, to);
        }
        self.tell(core, to, from, Message::Voted { term, granted });
    }

    fn on_voted(&mut self, core: &mut Core, from: usize, to: usize, term: u64, granted: bool) {
        let needed = quorum(self.members.len());
        let member = &mut self.members[to];
        if let Role::Candidate(votes) = &mut member.role
            && member.term == term
            && granted
        {
            *votes |= 1 << from;
            if votes.count_ones() as usize >= needed {
                self.win(core, to);
            }
        }
    }

    /// Leads from now on: every lease gets its full time again, and an empty entry commits what stood before it.
    fn win(&mut self, core: &mut Core, index: usize) {
        let (now, count) = (core.now(), self.members.len());
        self.drop_lost_tail(core, index);
        let local = core.local(self.members[index].node);
        let end_of: BTreeMap<_, _> = self.store.leases().map(|(lease, ttl)| (lease, local + ttl)).collect();
        let ends: BTreeSet<_> = end_of.iter().map(|(&lease, &end)| (end, lease)).collect();
        let member = &mut self.members[index];
        let last = member.log.last().0;
        let mut matched = vec![0; count];
        matched[index] = member.disk.synced();
        member.leader = Some(index);
        member.role = Role::Leader(Box::new(Leading {
            next: vec![last + 1; count],
            matched,
            sent_at: vec![now; count],
            quorum_at: now,
            ends,
            end_of,
            asked: Vec::new(),
            confirming: Vec::new(),
            round: 0,
            round_commit: 0,
            too_late: Vec::new(),
        }));
        self.counter += 1;
        let proposal = Arc::new(Proposal { id: self.counter, command: Command::Nothing });
        self.append(core, index, proposal);
    }

    /// Where disks have lied, the new leader may lack entries that were committed: they are undone, as if they had never
    /// been.
    fn drop_lost_tail(&mut self, core: &mut Core, index: usize) {
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
    fn append_to(&mut self, core: &mut Core, index: usize, other: usize) {
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
        if let Some(span) = member.disk.begin(last, |n| core.draw(Purpose::Directory, who, n)) {
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
    fn commit_up_to(&mut self, core: &mut Core, index: usize, commit: u64) {
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
