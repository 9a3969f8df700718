//! Agreement on the log: replication and commitment. After Ongaro and Ousterhout, but for the disk: a follower acknowledges
//! what it has in memory, as JetStream's does.
//!
//! Appends and their answers are messages with the delays and losses of their links; what is lost is sent again at a
//! leader's pulse.

use super::{
    Item, Model, later,
    member::{Entry, Message, term_at},
    stream::{Command, Proposal, Stream},
};
use crate::{
    Core,
    replication::{carry, quorum},
};
use std::sync::Arc;
use worldline_system::{
    Outcome, Refusal,
    doors::bus::{Answer, StreamSequence},
    history::{Acceptance, What},
    time::Duration,
};

/// Entries in one append.
const APPEND_ENTRIES: usize = 256;
/// Entries that a leader takes before the first of them is committed; one more is refused.
const UNCOMMITTED: u64 = 4_096;

impl Model {
    fn tell(&mut self, core: &mut Core, from: usize, to: usize, message: Message) {
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
        }
    }

    /// A leader takes a proposal. `false` where this member does not lead or has too much uncommitted.
    pub(super) fn append(&mut self, core: &mut Core, index: usize, proposal: Arc<Proposal>) -> bool {
        let member = &mut self.members[index];
        if !member.is_leader() || member.last().0 - member.commit >= UNCOMMITTED {
            return false;
        }
        let term = member.term;
        member.log.push(Entry { term, proposal });
        self.note_written(index);
        for other in (0..self.members.len()).filter(|&other| other != index) {
            self.append_to(core, index, other);
        }
        self.try_commit(core, index);
        true
    }

    /// A member that syncs every entry has what it has written.
    fn note_written(&mut self, index: usize) {
        let member = &mut self.members[index];
        if self.config.sync_period == Duration::ZERO {
            member.synced = member.log.len();
        }
        let length = member.log.len() as u64;
        if let Some(leading) = &mut member.leading {
            leading.matched[index] = length;
        }
    }

    /// Sends a follower what it lacks, and how far is committed.
    pub(super) fn append_to(&mut self, core: &mut Core, index: usize, other: usize) {
        let now = core.now();
        let member = &mut self.members[index];
        let (term, commit) = (member.term, member.commit);
        let Some(leading) = &mut member.leading else { return };
        leading.sent_at[other] = now;
        let before = leading.next[other] - 1;
        let start = usize::try_from(before).unwrap_or(usize::MAX).min(member.log.len());
        let entries: Vec<Entry> = member.log[start..].iter().take(APPEND_ENTRIES).cloned().collect();
        leading.next[other] += entries.len() as u64;
        let previous = (before, term_at(&member.log, before).expect("a leader sends what its log has"));
        self.tell(core, index, other, Message::Append { term, previous, entries, commit });
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
        if member.term_at(previous.0) != Some(previous.1) {
            let matched = member.commit.min(previous.0.saturating_sub(1));
            return self.tell(core, to, from, Message::Appended { term, matched, refused: true });
        }
        let end = previous.0 + entries.len() as u64;
        for (at, entry) in (previous.0 + 1..).zip(entries) {
            match member.term_at(at) {
                Some(known) if known == entry.term => {}
                Some(_) => {
                    member.truncate(at - 1);
                    member.log.push(entry);
                }
                None => member.log.push(entry),
            }
        }
        self.note_written(to);
        self.note_committed(to, commit.min(end));
        self.tell(core, to, from, Message::Appended { term, matched: end, refused: false });
    }

    fn on_appended(&mut self, core: &mut Core, from: usize, to: usize, term: u64, matched: u64, refused: bool) {
        if term > self.members[to].term {
            return self.step_down(core, to, term);
        }
        let member = &mut self.members[to];
        let last = member.last().0;
        let Some(leading) = member.leading.as_mut().filter(|_| term == member.term) else { return };
        if refused {
            // What it had may be gone with its power.
            leading.matched[from] = leading.matched[from].min(matched);
            leading.next[from] = (matched + 1).min(last + 1);
            return self.append_to(core, to, from);
        }
        leading.matched[from] = leading.matched[from].max(matched);
        leading.next[from] = leading.next[from].max(matched + 1);
        if leading.next[from] <= last {
            self.append_to(core, to, from);
        }
        self.try_commit(core, to);
    }

    /// Commits what a majority has, if it is of this leader's own term.
    fn try_commit(&mut self, core: &mut Core, index: usize) {
        let needed = quorum(self.members.len());
        let member = &self.members[index];
        // A later leader stands: what this one believes to have been acknowledged may be gone.
        let Some(leading) = member.leading.as_ref().filter(|_| member.term >= self.term) else { return };
        let mut matched = leading.matched.clone();
        matched.sort_unstable_by(|a, b| b.cmp(a));
        let majority = matched[needed - 1];
        if majority <= member.commit || member.term_at(majority) != Some(member.term) {
            return;
        }
        self.members[index].commit = majority;
        while (self.committed.len() as u64) < majority {
            self.apply_next(core, index);
        }
        for other in (0..self.members.len()).filter(|&other| other != index) {
            self.append_to(core, index, other);
        }
    }

    /// A follower hears what is committed.
    pub(super) fn note_committed(&mut self, index: usize, commit: u64) {
        let known = self.committed.len() as u64;
        let member = &mut self.members[index];
        member.commit = member.commit.max(commit.min(known).min(member.log.len() as u64));
    }

    /// Applies the next entry to the stream, tells the history, and answers who waits at the leader.
    fn apply_next(&mut self, core: &mut Core, index: usize) {
        let at = self.committed.len();
        let member = &self.members[index];
        let node = member.node;
        let before = term_at(&self.committed, at as u64);
        assert_eq!(member.term_at(at as u64), before, "what is committed follows from what is applied");
        let entry = member.log[at].clone();
        let applied = self.stream.apply(&entry.proposal);
        let proposal = entry.proposal.clone();
        self.committed.push(entry);
        if let (Some(sequence), Command::Publish { subject, message, payload, .. }) =
            (applied.stored, &proposal.command)
        {
            let (subject, message, payload) = (*subject, *message, payload.clone());
            let sequence = StreamSequence(sequence);
            core.record(node, What::Accepted(Acceptance::Published { sequence, subject, message, payload }));
        }
        if let (Command::Publish { message, .. }, Some(leading)) = (&proposal.command, &mut self.members[index].leading)
            && !matches!(applied.answer, Some(Answer::Published(Outcome::Refused(Refusal::WrongSequence { .. }))))
        {
            leading.staged.remove(message);
        }
        match proposal.command {
            Command::Acknowledge { name, .. } => self.acknowledged(core, name),
            Command::Publish { .. } => self.push_all(core),
            Command::Consume { .. } | Command::Nothing => {}
        }
        if let Some(answer) = applied.answer {
            self.finish(core, index, proposal.id, answer);
        }
    }

    /// The new leader may lack entries that were committed, because members have lost what they had not synced: the stream
    /// goes back to what it shares with this one.
    pub(super) fn drop_lost_tail(&mut self, core: &mut Core, index: usize) {
        let member = &self.members[index];
        let mut shared = self.committed.len().min(member.log.len());
        while shared > 0 && self.committed[shared - 1].term != member.log[shared - 1].term {
            shared -= 1;
        }
        if shared == self.committed.len() {
            return;
        }
        let node = member.node;
        self.committed.truncate(shared);
        let before = self.stream.last();
        self.stream = Stream::new(&self.config);
        for entry in &self.committed {
            self.stream.apply(&entry.proposal);
        }
        for member in &mut self.members {
            member.commit = member.commit.min(shared as u64);
        }
        let last = self.stream.last();
        if last < before {
            core.record(node, What::Accepted(Acceptance::TailLost { last: StreamSequence(last) }));
        }
        self.reconcile();
    }
}
