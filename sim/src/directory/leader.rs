//! What only a leader does, and only once a majority has confirmed that it still leads: linearizable reads, renewals, and
//! the revocation of leases that have expired.
//!
//! One round confirms everything that was asked before it began (etcd batches read-index requests the same way). The round
//! takes as long as the majority's round trip; at its end each member of that majority must not have moved to a later
//! term, so no other leader can have committed anything before it.

use super::{
    Item, Model, later,
    member::{Confirm, Leading, Message},
    store::{Command, Proposal},
};
use crate::{
    Core,
    replication::{quorum, reachable},
};
use std::sync::Arc;
use worldline_proto::LeaseId;
use worldline_system::{
    Outcome, Refusal,
    doors::directory::Answer,
    history::{Acceptance, What},
    time::Duration,
};

/// Leases that are revoked in one go (etcd: 1,000 a second).
const REVOKED_AT_ONCE: usize = 500;
/// After so long the revocation of an expired lease is proposed again.
const REVOKE_AGAIN: Duration = Duration::from_secs(3);

impl Model {
    /// Asks the leader at `index` for a confirmed leadership.
    pub(super) fn ask_leader(&mut self, core: &mut Core, index: usize, what: Confirm) {
        if let Some(leading) = self.members[index].leading() {
            leading.asked.push(what);
            self.confirm(core, index);
        }
    }

    /// Begins a round, unless one is under way or nothing waits for one.
    pub(super) fn confirm(&mut self, core: &mut Core, index: usize) {
        let member = &mut self.members[index];
        let (node, term, commit) = (member.node, member.term, member.commit);
        // Before an entry of its own term is committed, a leader does not know what is.
        let ready = member.log.term(commit) == Some(term);
        let Some(leading) = member.leading() else { return };
        if !ready || leading.asked.is_empty() || !leading.confirming.is_empty() {
            return;
        }
        let Some(span) = self.majority_round_trip(core, index) else { return };
        let leading = self.members[index].leading().expect("it was just asked");
        leading.confirming = std::mem::take(&mut leading.asked);
        leading.round += 1;
        leading.round_commit = commit;
        let round = leading.round;
        later(core, core.now() + span, node, Item::Confirmed(index, term, round));
    }

    /// How long until a majority has answered; `None` where there is none.
    fn majority_round_trip(&self, core: &mut Core, index: usize) -> Option<Duration> {
        let node = self.members[index].node;
        let others = self.members.iter().filter(|other| other.node != node && core.is_running(other.node));
        let nodes: Vec<_> = others.map(|other| other.node).collect();
        let mut trips: Vec<Duration> =
            nodes.into_iter().filter_map(|other| Some(core.hop(node, other)? + core.hop(other, node)?)).collect();
        trips.sort_unstable();
        match quorum(self.members.len()) - 1 {
            0 => Some(Duration::ZERO),
            needed => trips.get(needed - 1).copied(),
        }
    }

    /// A round has ended.
    pub(super) fn confirmed(&mut self, core: &mut Core, index: usize, term: u64, round: u64) {
        let node = self.members[index].node;
        let follows = |other: &&super::Member| {
            other.term <= term && core.is_running(other.node) && reachable(core, node, other.node)
        };
        let followers = self.members.iter().filter(follows).count();
        let needed = quorum(self.members.len());
        let member = &mut self.members[index];
        let current = member.term == term;
        let Some(leading) = member.leading().filter(|leading| current && leading.round == round) else { return };
        let (mut batch, commit) = (std::mem::take(&mut leading.confirming), leading.round_commit);
        if followers < needed {
            // Another round, at the next pulse.
            batch.append(&mut leading.asked);
            leading.asked = batch;
            return;
        }
        for what in batch {
            match what {
                Confirm::Read { origin, query } if origin == index => self.serve_read(core, index, query),
                Confirm::Read { origin, query } => {
                    self.tell(core, index, origin, Message::ReadReady { query, index: commit });
                }
                Confirm::Renew { origin, query, lease } => self.renew(core, index, origin, query, lease),
                Confirm::Expire => self.revoke_expired(core, index),
            }
        }
        self.confirm(core, index);
    }

    /// Renews a lease. One that has expired is not: its renewal waits until it is revoked.
    fn renew(&mut self, core: &mut Core, index: usize, origin: usize, query: u64, lease: LeaseId) {
        let node = self.members[index].node;
        let local = core.local(node);
        let Some(leading) = self.members[index].leading() else { return };
        let answer = match leading.end_of.get(&lease).copied() {
            None => Answer::KeptAlive(Outcome::Refused(Refusal::LeaseNotFound)),
            Some(end) if end <= local => {
                leading.too_late.push((lease, Confirm::Renew { origin, query, lease }));
                return;
            }
            Some(end) => {
                let ttl = self.store.lease_ttl(lease).expect("a lease that is counted exists");
                let leading = self.members[index].leading().expect("it was just asked");
                leading.ends.remove(&(end, lease));
                leading.count(lease, local + ttl);
                core.record(node, What::Accepted(Acceptance::LeaseRenewed { lease }));
                Answer::KeptAlive(Outcome::Done(ttl))
            }
        };
        self.answer_renewal(core, index, origin, query, answer);
    }

    fn answer_renewal(&mut self, core: &mut Core, index: usize, origin: usize, query: u64, answer: Answer) {
        if origin == index {
            self.finish(core, index, query, answer);
        } else {
            self.tell(core, index, origin, Message::Renewed { query, answer });
        }
    }

    /// Looks for expired leases at every leader's own clock.
    pub(super) fn expire(&mut self, core: &mut Core) {
        for index in 0..self.members.len() {
            let node = self.members[index].node;
            let local = core.local(node);
            if core.is_running(node)
                && let Some(leading) = self.members[index].leading()
                && leading.ends.first().is_some_and(|&(end, _)| end <= local)
                && !leading.asked.iter().any(|what| matches!(what, Confirm::Expire))
            {
                self.ask_leader(core, index, Confirm::Expire);
            }
        }
    }

    fn revoke_expired(&mut self, core: &mut Core, index: usize) {
        let local = core.local(self.members[index].node);
        for _ in 0..REVOKED_AT_ONCE {
            let Some(leading) = self.members[index].leading() else { return };
            let Some(&(end, lease)) = leading.ends.first().filter(|&&(end, _)| end <= local) else { return };
            leading.ends.remove(&(end, lease));
            if leading.end_of.get(&lease).is_some_and(|&end| end <= local) {
                leading.ends.insert((local + REVOKE_AGAIN, lease));
                self.propose_revoke(core, index, lease);
            }
        }
    }

    pub(super) fn propose_revoke(&mut self, core: &mut Core, index: usize, lease: LeaseId) {
        self.counter += 1;
        let proposal = Arc::new(Proposal { id: self.counter, command: Command::Revoke(lease) });
        self.append(core, index, proposal);
    }

    /// A lease is granted: the leader that commits it begins to count.
    pub(super) fn lease_granted(&mut self, core: &Core, index: usize, lease: LeaseId, ttl: Duration) {
        let local = core.local(self.members[index].node);
        if let Some(leading) = self.members[index].leading() {
            leading.count(lease, local + ttl);
        }
    }

    /// A lease has ended; who came too late to renew it is told.
    pub(super) fn lease_ended(&mut self, core: &mut Core, index: usize, lease: LeaseId) {
        let Some(leading) = self.members[index].leading() else { return };
        if let Some(end) = leading.end_of.remove(&lease) {
            leading.ends.remove(&(end, lease));
        }
        let (told, kept) = std::mem::take(&mut leading.too_late).into_iter().partition(|&(id, _)| id == lease);
        leading.too_late = kept;
        let told: Vec<(LeaseId, Confirm)> = told;
        for (_, what) in told {
            if let Confirm::Renew { origin, query, .. } = what {
                let answer = Answer::KeptAlive(Outcome::Refused(Refusal::LeaseNotFound));
                self.answer_renewal(core, index, origin, query, answer);
            }
        }
    }

    /// What followers and leaders say to each other for the sake of a caller.
    pub(super) fn on_query_message(&mut self, core: &mut Core, from: usize, to: usize, message: Message) {
        match message {
            Message::ReadIndex { query } => self.ask_leader(core, to, Confirm::Read { origin: from, query }),
            Message::Renew { query, lease } => self.ask_leader(core, to, Confirm::Renew { origin: from, query, lease }),
            Message::ReadReady { query, index } if self.members[to].applied >= index => {
                self.serve_read(core, to, query)
            }
            Message::ReadReady { query, index } => self.members[to].reads.push((index, query)),
            Message::Renewed { query, answer } => self.finish(core, to, query, answer),
            _ => unreachable!("agreement has its own messages"),
        }
    }
}

impl Leading {
    fn count(&mut self, lease: LeaseId, end: worldline_system::time::Instant) {
        self.end_of.insert(lease, end);
        self.ends.insert((end, lease));
    }
}
