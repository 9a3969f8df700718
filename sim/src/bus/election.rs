//! Who leads: liveness and elections, with JetStream's times.
//!
//! Heartbeats and votes are not sent. [`Model::pulse`] asks, for all members at once, who would have heard whom.

use super::{
    Item, Model, PULSE, later,
    member::{Entry, Leading, Member},
    proposal,
    stream::{Command, Proposal},
};
use crate::{
    Core, Purpose,
    entropy::below,
    replication::{quorum, reachable},
};
use std::{collections::BTreeMap, sync::Arc};
use worldline_system::time::{Duration, Instant, UnixTime};

/// After so long without an answer a follower is sent the same again.
const RESEND: Duration = Duration::from_millis(300);
/// The shortest time without a leader before a member stands for election (`minElectionTimeout`); the longest is
/// [`ELECTION_SPREAD`] more.
pub(super) const ELECTION: Duration = Duration::from_secs(4);
const ELECTION_SPREAD: Duration = Duration::from_secs(5);
/// The same after an orderly change (`minCampaignTimeout`).
const CAMPAIGN: Duration = Duration::from_millis(100);
const CAMPAIGN_SPREAD: Duration = Duration::from_millis(700);
/// Of so many leaders that take over from another, one stores the last message again.
const AGAIN_ONE_IN: u64 = 4;
/// Entries among which it looks for that.
const LOOKED_AT: usize = 64;
/// A leader that has not seen a majority for so long leads no longer (`lostQuorumInterval`).
const LOST_QUORUM: Duration = Duration::from_secs(10);

impl Model {
    /// Looks at who hears whom, and at everything that has a period.
    pub(super) fn pulse(&mut self, core: &mut Core) {
        self.pulses += 1;
        for index in 0..self.members.len() {
            if !core.is_running(self.members[index].node) {
                continue;
            }
            self.sync(core, index);
            if self.members[index].is_leader() {
                self.lead(core, index);
            } else {
                self.follow(core, index);
            }
        }
        self.redeliver(core);
        if self.pulses.is_multiple_of(10) {
            self.sweep(core);
        }
        later(core, core.now() + PULSE, self.members[0].node, Item::Pulse);
    }

    /// When a member syncs first: each at a time of its own.
    pub(super) fn first_sync(&self, core: &Core, index: usize) -> Duration {
        let bits = core.draw(Purpose::Bus, self.members[index].node.0.into(), 0);
        Duration::from_nanos(below(bits, self.config.sync_period.as_nanos()))
    }

    fn sync(&mut self, core: &Core, index: usize) {
        let member = &mut self.members[index];
        if core.now() >= member.sync_at {
            member.synced = member.log.len();
            member.sync_at = core.now() + self.config.sync_period;
        }
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

    /// The wall clock of a member.
    pub(super) fn wall(&self, core: &Core, index: usize) -> UnixTime {
        let node = self.members[index].node;
        core.nodes[node.0 as usize].clock.wall(core.local(node))
    }

    /// A leader's pulse: it steps down without a majority or before a higher term, and sends again what was lost.
    fn lead(&mut self, core: &mut Core, index: usize) {
        let (now, node, term) = (core.now(), self.members[index].node, self.members[index].term);
        let heard = |core: &Core, other: &Member| core.is_running(other.node) && reachable(core, node, other.node);
        let highest = self.members.iter().filter(|other| heard(core, other)).map(|other| other.term).max();
        if let Some(highest) = highest.filter(|&highest| highest > term) {
            return self.step_down(core, index, highest);
        }
        let majority = self.sees(core, index) >= quorum(self.members.len());
        let last = self.members[index].last().0;
        for other in 0..self.members.len() {
            let has = self.members[other].log.len() as u64;
            let Some(leading) = &mut self.members[index].leading else { return };
            if majority {
                leading.quorum_at = now;
            }
            // A member that has lost its tail says so in its answer to a heartbeat.
            leading.matched[other] = leading.matched[other].min(has);
            if other != index && leading.matched[other] < last && now.since(leading.sent_at[other]) >= RESEND {
                leading.next[other] = leading.matched[other] + 1;
                self.append_to(core, index, other);
            }
        }
        let leading = self.members[index].leading.as_ref().expect("it leads");
        if now.since(leading.quorum_at) >= LOST_QUORUM {
            self.step_down(core, index, term);
        }
    }

    /// A follower's pulse: it hears its leader, or stands for election once it has not for long enough.
    fn follow(&mut self, core: &mut Core, index: usize) {
        if let Some(leader) = self.heard_leader(core, index) {
            let (term, commit) = (self.members[leader].term, self.members[leader].commit);
            self.adopt(index, term, Some(leader));
            self.heard(core, index);
            if self.members[index].term_at(commit) == self.members[leader].term_at(commit) {
                self.note_committed(index, commit);
            }
        } else if core.now() >= self.members[index].election_at {
            self.members[index].leader = None;
            match self.votes(core, index) {
                Some(voters) => self.win(core, index, &voters),
                None => self.members[index].election_at = core.now() + PULSE * 3,
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
        self.members[index].heard_at = core.now();
        self.hold_election_off(core, index);
    }

    /// Does not stand for election for now.
    pub(super) fn hold_election_off(&mut self, core: &Core, index: usize) {
        self.members[index].election_at = core.now() + self.drawn(core, index, ELECTION, ELECTION_SPREAD);
    }

    fn drawn(&self, core: &Core, index: usize, least: Duration, spread: Duration) -> Duration {
        let member = &self.members[index];
        let bits = core.draw(Purpose::BusElection, member.node.0.into(), member.term);
        least + Duration::from_nanos(below(bits, spread.as_nanos()))
    }

    /// Who would vote for this member, itself included, if that is a majority: reachable, without a leader that they hear,
    /// and with logs that are not ahead.
    fn votes(&self, core: &Core, index: usize) -> Option<Vec<usize>> {
        let (now, me) = (core.now(), &self.members[index]);
        let (last, term) = me.last();
        let would = |&other: &usize| {
            let member = &self.members[other];
            let (their_last, their_term) = member.last();
            let quiet = member.heard_at == Instant::default() || now.since(member.heard_at) >= ELECTION;
            other == index
                || quiet
                    && !member.is_leader()
                    && core.is_running(member.node)
                    && reachable(core, me.node, member.node)
                    && (term, last) >= (their_term, their_last)
        };
        let voters: Vec<usize> = (0..self.members.len()).filter(would).collect();
        (voters.len() >= quorum(self.members.len())).then_some(voters)
    }

    /// Moves to a term, and to following its leader if that is known.
    pub(super) fn adopt(&mut self, index: usize, term: u64, leader: Option<usize>) {
        let member = &mut self.members[index];
        member.term = member.term.max(term);
        member.leader = leader;
        if member.leading.take().is_some() {
            // Whoever waits is told nothing: its proposal may still be committed.
            member.waiters.clear();
        }
    }

    /// A leader leads no longer.
    pub(super) fn step_down(&mut self, core: &mut Core, index: usize, term: u64) {
        self.adopt(index, term, None);
        self.hold_election_off(core, index);
    }

    /// An orderly change: the leader steps down and tells the others, who stand for election soon.
    pub(super) fn change_leader(&mut self, core: &mut Core) {
        let Some(leader) = self.leading(core) else { return };
        let term = self.members[leader].term;
        self.step_down(core, leader, term);
        let node = self.members[leader].node;
        for other in (0..self.members.len()).filter(|&other| other != leader) {
            if core.is_running(self.members[other].node) && reachable(core, node, self.members[other].node) {
                let soon = self.drawn(core, other, CAMPAIGN, CAMPAIGN_SPREAD);
                let member = &mut self.members[other];
                (member.leader, member.heard_at) = (None, Instant::default());
                member.election_at = core.now() + soon;
            }
        }
        if self.members.len() == 1 {
            self.members[leader].election_at = core.now() + CAMPAIGN;
        }
    }

    /// Leads from now on: an empty entry commits what stood before it.
    fn win(&mut self, core: &mut Core, index: usize, voters: &[usize]) {
        let (now, count) = (core.now(), self.members.len());
        let term = voters.iter().map(|&voter| self.members[voter].term).max().unwrap_or(0).max(self.term) + 1;
        self.term = term;
        for &voter in voters {
            self.adopt(voter, term, Some(index));
            self.heard(core, voter);
        }
        self.drop_lost_tail(core, index);
        let again = self.stored_again(core, index);
        let member = &mut self.members[index];
        let last = member.last().0;
        let mut matched = vec![0; count];
        matched[index] = last;
        let (next, sent_at) = (vec![last + 1; count], vec![now; count]);
        member.leading = Some(Leading { next, matched, sent_at, quorum_at: now, staged: BTreeMap::new() });
        self.new_leader(core);
        let (id, at) = (self.number(), self.wall(core, index));
        self.append(core, index, proposal(id, at, Command::Nothing));
        if let Some(again) = again {
            self.append(core, index, again);
        }
    }

    /// The last message of a leader, where its successor stores it once more: under the same id, with the time of the first.
    /// JetStream does so now and then.
    fn stored_again(&mut self, core: &Core, index: usize) -> Option<Arc<Proposal>> {
        let member = &self.members[index];
        let drawn = below(core.draw(Purpose::BusAgain, member.node.0.into(), self.term), AGAIN_ONE_IN);
        if self.members.len() == 1 || drawn != 0 {
            return None;
        }
        let (applied, stream) = (self.committed.len(), &self.stream);
        let is_last = |&(at, entry): &(usize, &Entry)| match entry.proposal.command {
            Command::Publish { message, .. } => at >= applied || stream.is_last(message),
            _ => false,
        };
        let (_, last) = member.log.iter().enumerate().rev().take(LOOKED_AT).find(is_last)?;
        let (mut command, at) = (last.proposal.command.clone(), last.proposal.at);
        let Command::Publish { again, .. } = &mut command else { return None };
        *again = true;
        Some(proposal(self.number(), at, command))
    }

    /// The number of a new proposal.
    pub(super) fn number(&mut self) -> u64 {
        self.counter += 1;
        self.counter
    }
}
