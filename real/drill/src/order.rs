//! One history out of many: the files of all lives, etcd's revisions, the ledger's journal, the bus's stream, and what the drill
//! itself did.
//!
//! * All processes of a machine read one monotonic clock, so their lines are ordered by it; those of one life stay in the
//!   order in which they were written.
//! * A revision has happened at the latest when the drill heard of it, and not after an answer that carries it or a later one,
//!   as far as the watch may have been late.
//! * A commit has happened when the ledger says, and not after the answer that told of it, as far as the clocks may be apart.
//!   Commits about one entity stay in their order. A fact was committed before anybody told of it.
//! * A message was stored when the stream says, and not before somebody had published it.
//! * An answer that is further ahead of what it tells of than that has not told the truth: nothing is moved for it, and the
//!   checkers find it.
//! * A process has died after the last line that it wrote.
//! * What a sink accepted stands before whatever was written at the same moment.
//! * A lease has ended when the key that went with it is gone; of grants and renewals etcd tells nothing.

use crate::{clocks::CLOCK_ERROR_MAX, directory::Heard};
use std::collections::BTreeMap;
use worldline_proto::{
    CharacterId, EntityId, Epoch, FactSequence, Generation, Incarnation, LeaseId, NodeId, OpId, OpNumber, Revision,
};
use worldline_system::{
    doors::{
        bus::{self, MessageId},
        directory::{self, Change, Key, Record, Value},
        ledger::{self, FactRow, Verdict},
    },
    history::{Acceptance, Completion, Entry, EventId, Invocation, Note, What},
    outcome::Outcome,
    time::Instant,
};

/// What a run has left behind. All times are the machine's monotonic clock.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// When the run began: its time zero.
    pub origin: Instant,
    /// The history of each life, in the order in which it was written.
    pub lives: Vec<Vec<Entry>>,
    /// What the drill did, and saw of its processes.
    pub own: Vec<(Instant, NodeId, Incarnation, What)>,
    /// The directory's revisions, in order.
    pub directory: Vec<Heard>,
    /// What the ledger accepted, in the order of its commits.
    pub journal: Vec<(Instant, Acceptance)>,
    /// What the bus's stream has stored, in its order.
    pub stream: Vec<(Instant, Acceptance)>,
    /// The nodes by whose names the sinks go: directory, ledger, bus.
    pub sinks: [NodeId; 3],
}

/// What a commit is known by, to whoever was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Told {
    Fence(EntityId, Epoch, LeaseId),
    Session(CharacterId, Generation),
    Operation(CharacterId, OpNumber),
}

/// A fact's name, which is its message's on the bus.
fn name(fact: &FactRow) -> MessageId {
    MessageId { entity: fact.aggregate, number: fact.sequence.0 }
}

/// When answers told of revisions and commits.
#[derive(Debug, Default)]
struct Answers {
    revisions: BTreeMap<Revision, Instant>,
    /// Rising, as the lines of each life are; of several lives they are sorted at the end.
    commits: BTreeMap<Told, Vec<Instant>>,
    /// When somebody first told of a fact, whoever and however.
    facts: BTreeMap<MessageId, Instant>,
    /// When somebody first published a message.
    publishes: BTreeMap<MessageId, Instant>,
}

impl Answers {
    fn of(lives: &[Vec<Entry>]) -> Self {
        let mut answers = Self::default();
        for life in lives {
            let mut asked: BTreeMap<OpId, &ledger::Submission> = BTreeMap::new();
            for entry in life {
                answers.facts(entry);
                match &entry.what {
                    What::Invoked(op, Invocation::Ledger(submission)) => {
                        asked.insert(*op, submission);
                    }
                    What::Completed(op, completion) => match &**completion {
                        Completion::Directory(answer) => answers.directory(answer, entry.at),
                        Completion::Ledger(answer) => {
                            if let Some(submission) = asked.remove(op) {
                                answers.ledger(submission, answer, entry.at);
                            }
                        }
                        Completion::Bus(_) => {}
                        // What the cache has answered proves nothing.
                        Completion::Cache(_) => {}
                    },
                    _ => {}
                }
            }
        }
        answers.commits.values_mut().for_each(|times| times.sort_unstable());
        answers
    }

    fn directory(&mut self, answer: &directory::Answer, at: Instant) {
        let revision = match answer {
            directory::Answer::Transacted(Outcome::Done(done)) => done.revision,
            directory::Answer::Read(Outcome::Done(page)) => page.revision,
            directory::Answer::Got(Outcome::Done((_, revision))) => *revision,
            _ => return,
        };
        let known = self.revisions.entry(revision).or_insert(at);
        *known = (*known).min(at);
    }

    fn ledger(&mut self, submission: &ledger::Submission, answer: &ledger::Answer, at: Instant) {
        let mut tell = |told| self.commits.entry(told).or_default().push(at);
        match (submission, answer) {
            (ledger::Submission::Commit(batch), ledger::Answer::Committed(Outcome::Done(done))) => {
                for (operation, verdict) in batch.operations.iter().zip(&done.verdicts) {
                    if let Verdict::Applied(_) = verdict {
                        tell(Told::Operation(operation.character, operation.number));
                    }
                }
            }
            (ledger::Submission::Claim { lease, entities }, ledger::Answer::Claimed(Outcome::Done(done))) => {
                for ((entity, epoch), _) in entities.iter().zip(done).filter(|(_, claimed)| claimed.is_ok()) {
                    tell(Told::Fence(*entity, *epoch, *lease));
                }
            }
            (ledger::Submission::Login { character, .. }, ledger::Answer::LoggedIn(Outcome::Done(login))) => {
                tell(Told::Session(*character, login.generation));
            }
            _ => {}
        }
    }

    /// Notes what a line tells of facts.
    fn facts(&mut self, entry: &Entry) {
        let mut tell = |fact: MessageId| earliest(&mut self.facts, fact, entry.at);
        let named = |aggregate, sequence: FactSequence| MessageId { entity: aggregate, number: sequence.0 };
        match &entry.what {
            &What::Noted(Note::FactApplied { aggregate, sequence } | Note::FactSnapshot { aggregate, sequence }) => {
                tell(named(aggregate, sequence))
            }
            What::Invoked(_, Invocation::Bus(bus::Submission::Publish { message, .. })) => {
                tell(*message);
                earliest(&mut self.publishes, *message, entry.at);
            }
            What::Completed(_, completion) => match &**completion {
                Completion::Ledger(
                    ledger::Answer::Facts(Outcome::Done(page)) | ledger::Answer::Unpublished(Outcome::Done(page)),
                ) => page.facts.iter().for_each(|fact| tell(name(fact))),
                Completion::Ledger(ledger::Answer::Snapshot(Outcome::Done(stands))) => {
                    stands.iter().for_each(|one| tell(named(one.entity, one.sequence)));
                }
                _ => {}
            },
            _ => {}
        }
    }

    /// When at the latest a revision had happened, as far as answers tell that can be believed.
    fn revision(&self, heard: &Heard) -> Option<Instant> {
        self.revisions.range(heard.revision..).map(|(_, at)| *at).filter(|at| *at >= heard.earliest).min()
    }
}

fn earliest(times: &mut BTreeMap<MessageId, Instant>, message: MessageId, at: Instant) {
    let known = times.entry(message).or_insert(at);
    *known = (*known).min(at);
}

/// What a commit is known by. `None`: nobody is told of it by name.
fn told(accepted: &Acceptance) -> Option<Told> {
    match accepted {
        Acceptance::FenceRaised { authority, .. } => {
            Some(Told::Fence(authority.entity, authority.epoch, authority.lease))
        }
        Acceptance::LoggedIn { character, generation, .. } => Some(Told::Session(*character, *generation)),
        Acceptance::OperationApplied { operation, .. } => Some(Told::Operation(operation.character, operation.number)),
        _ => None,
    }
}

/// The entities whose rows a commit has locked.
fn entities(accepted: &Acceptance) -> Vec<EntityId> {
    match accepted {
        Acceptance::FenceRaised { authority, .. } | Acceptance::Checkpointed { authority, .. } => {
            vec![authority.entity]
        }
        Acceptance::LoggedIn { character, .. }
        | Acceptance::TokensRevoked { character, .. }
        | Acceptance::OperationPassed { character, .. } => vec![character.entity()],
        Acceptance::OperationApplied { operation, rows, .. } => operation
            .authority
            .iter()
            .map(|authority| authority.entity)
            .chain(rows.iter().map(|row| row.entity))
            .collect(),
        _ => Vec::new(),
    }
}

/// Puts revisions no later than the answers that tell of them.
fn date_revisions(heard: &mut [Heard], answers: &Answers) {
    let mut next = None;
    for one in heard.iter_mut().rev() {
        let latest = [Some(one.at), answers.revision(one), next].into_iter().flatten().min();
        one.at = latest.unwrap_or(one.at);
        next = Some(one.at);
    }
}

/// Puts commits no later than the answers that tell of them, and no later than those that had to wait for them.
fn date_commits(journal: &mut [(Instant, Acceptance)], answers: &Answers) {
    let mut nth: BTreeMap<Told, usize> = BTreeMap::new();
    for (at, accepted) in journal.iter_mut() {
        let Some(told) = told(accepted) else { continue };
        let n = nth.entry(told).or_default();
        let answered = answers.commits.get(&told).and_then(|times| times.get(*n));
        let heard = match accepted {
            Acceptance::OperationApplied { fact: Some(fact), .. } => answers.facts.get(&name(fact)),
            _ => None,
        };
        let latest = answered.into_iter().chain(heard).min();
        if let Some(&latest) = latest.filter(|&&latest| latest + CLOCK_ERROR_MAX >= *at) {
            *at = (*at).min(latest);
        }
        *n += 1;
    }
    let mut next: BTreeMap<EntityId, Instant> = BTreeMap::new();
    for (at, accepted) in journal.iter_mut().rev() {
        let locked = entities(accepted);
        *at = locked.iter().filter_map(|entity| next.get(entity)).copied().fold(*at, Instant::min);
        next.extend(locked.into_iter().map(|entity| (entity, *at)));
    }
}

/// Puts stored messages behind their first publish.
fn date_stream(stream: &mut [(Instant, Acceptance)], answers: &Answers) {
    for (at, stored) in stream {
        let Acceptance::Published { message, .. } = stored else { continue };
        *at = answers.publishes.get(message).map_or(*at, |&published| published.max(*at));
    }
}

/// What a revision means to a checker: the change, and the leases that have ended with it.
fn acceptances(heard: &Heard, leader: &mut Option<LeaseId>) -> Vec<Acceptance> {
    let mut ended = Vec::new();
    for change in &heard.changes {
        match change {
            Change::Put(Record { value: Value::Leader(leads), .. }) => *leader = Some(leads.lease),
            Change::Deleted(Key::Leader) => ended.extend(leader.take()),
            Change::Deleted(Key::Worker(lease)) => ended.push(*lease),
            _ => {}
        }
    }
    let changed = Acceptance::DirectoryChanged { revision: heard.revision, changes: heard.changes.as_slice().into() };
    std::iter::once(changed).chain(ended.into_iter().map(|lease| Acceptance::LeaseEnded { lease })).collect()
}

/// Puts all in one order, each line with its place as the event's number and its time counted from the beginning.
#[must_use]
pub fn merged(mut sources: Sources) -> Vec<Entry> {
    let answers = Answers::of(&sources.lives);
    date_revisions(&mut sources.directory, &answers);
    date_commits(&mut sources.journal, &answers);
    date_stream(&mut sources.stream, &answers);
    let [directory, ledger, bus] = sources.sinks;
    // (time, what stands first at one time, line)
    let mut all: Vec<(Instant, u8, Entry)> = Vec::new();
    let entry = |at, node, incarnation, what| Entry { at, local: at, node, incarnation, event: EventId(0), what };
    let mut leader = None;
    for heard in &sources.directory {
        for accepted in acceptances(heard, &mut leader) {
            all.push((heard.at, 0, entry(heard.at, directory, Incarnation(1), What::Accepted(accepted))));
        }
    }
    for (at, accepted) in sources.journal {
        all.push((at, 0, entry(at, ledger, Incarnation(1), What::Accepted(accepted))));
    }
    for (at, stored) in sources.stream {
        // Behind the line that published it.
        all.push((at, 2, entry(at, bus, Incarnation(1), What::Accepted(stored))));
    }
    let mut lasts: BTreeMap<(NodeId, Incarnation), Instant> = BTreeMap::new();
    for life in sources.lives {
        let mut last = Instant::default();
        for line in life {
            last = last.max(line.at);
            lasts.insert((line.node, line.incarnation), last);
            all.push((last, 1, line));
        }
    }
    for (at, node, incarnation, what) in sources.own {
        let last = lasts.get(&(node, incarnation)).filter(|_| what == What::Crashed);
        let at = last.map_or(at, |&last| at.max(last));
        all.push((at, 2, entry(at, node, incarnation, what)));
    }
    // Stable: what is equal stays as it was, the lines of each source in their order.
    all.sort_by_key(|(at, first, _)| (*at, *first));
    let since = |at: Instant| Instant::default() + at.since(sources.origin);
    let number = |(n, (at, _, line)): (u64, (Instant, u8, Entry))| Entry {
        at: since(at),
        local: since(line.local),
        event: EventId(n),
        ..line
    };
    (1..).zip(all).map(number).collect()
}

#[cfg(test)]
#[path = "order_tests.rs"]
mod tests;
