//! Who leads: liveness and elections, with etcd's pre-vote and check-quorum.
//!
//! Heartbeats are not sent. [`Model::pulse`] asks, for all members at once, who would have heard whom. Votes and their
//! answers are messages with the delays and losses of their links.

use super::{
    ELECTION, Item, Model, PULSE, later,
    member::{Leading, Member, Message, Role},
    store::{Command, Proposal},
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
use worldline_system::time::{Duration, Instant};

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
        let heard = |core: &Core, other: &Member| core.is_running(other.node) && reachable(core, node, other.node);
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
    pub(super) fn heard(&mut self, core: &Core, index: usize) {
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
    pub(super) fn adopt(&mut self, index: usize, term: u64, leader: Option<usize>) {
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

    pub(super) fn on_vote(&mut self, core: &mut Core, from: usize, to: usize, term: u64, last: (u64, u64)) {
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

    pub(super) fn on_voted(&mut self, core: &mut Core, from: usize, to: usize, term: u64, granted: bool) {
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
        let (now, count, term) = (core.now(), self.members.len(), self.members[index].term);
        let another = self.members.iter().find(|other| other.is_leader() && other.term == term);
        assert!(another.is_none(), "a term has one leader");
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
}
