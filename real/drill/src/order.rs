//! One history out of many: the files of all lives, etcd's revisions, the ledger's journal, and what the drill itself did.
//!
//! * All processes of a machine read one monotonic clock, so their lines are ordered by it; those of one life stay in the
//!   order in which they were written.
//! * A revision has happened at the latest when the drill heard of it, and not after an answer that carries it or a later one,
//!   as far as the watch may have been late.
//! * A commit has happened when the ledger says, and not after the answer that told of it, as far as the clocks may be apart.
//!   Commits about one entity stay in their order.
//! * An answer that is further ahead of what it tells of than that has not told the truth: nothing is moved for it, and the
//!   checkers find it.
//! * A process has died after the last line that it wrote.
//! * What a sink accepted stands before whatever was written at the same moment.
//! * A lease has ended when the key that went with it is gone; of grants and renewals etcd tells nothing.

use crate::collect::{CLOCK_ERROR_MAX, Heard};
use std::collections::BTreeMap;
use worldline_proto::{
    CharacterId, EntityId, Epoch, Generation, Incarnation, LeaseId, NodeId, OpId, OpNumber, Revision,
};
use worldline_system::{
    doors::{
        directory::{self, Change, Key, Record, Value},
        ledger::{self, Verdict},
    },
    history::{Acceptance, Completion, Entry, EventId, Invocation, What},
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
    /// The nodes by whose names the sinks go.
    pub sinks: [NodeId; 2],
}

/// What a commit is known by, to whoever was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Told {
    Fence(EntityId, Epoch, LeaseId),
    Session(CharacterId, Generation),
    Operation(CharacterId, OpNumber),
}

/// When answers told of revisions and commits.
#[derive(Debug, Default)]
struct Answers {
    revisions: BTreeMap<Revision, Instant>,
    /// Rising, as the lines of each life are; of several lives they are sorted at the end.
    commits: BTreeMap<Told, Vec<Instant>>,
}

impl Answers {
    fn of(lives: &[Vec<Entry>]) -> Self {
        let mut answers = Self::default();
        for life in lives {
            let mut asked: BTreeMap<OpId, &ledger::Submission> = BTreeMap::new();
            for entry in life {
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

    /// When at the latest a revision had happened, as far as answers tell that can be believed.
    fn revision(&self, heard: &Heard) -> Option<Instant> {
        self.revisions.range(heard.revision..).map(|(_, at)| *at).filter(|at| *at >= heard.earliest).min()
    }
}

/// What a commit is known by. `None`: nobody is told of it by name.
fn told(accepted: &Acceptance) -> Option<Told> {
    match accepted {
        Acceptance::FenceRaised { authority, .. } => {
            Some(Told::Fence(authority.entity, authority.epoch, authority.lease))
        }
        Acceptance::LoggedIn { character, generation } => Some(Told::Session(*character, *generation)),
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
        Acceptance::LoggedIn { character, .. } | Acceptance::OperationPassed { character, .. } => {
            vec![character.entity()]
        }
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
        if let Some(&answered) = answered.filter(|&&answered| answered + CLOCK_ERROR_MAX >= *at) {
            *at = (*at).min(answered);
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
    let [directory, ledger] = sources.sinks;
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
mod tests {
    use super::*;
    use worldline_proto::{EntityKind, Nonce};
    use worldline_system::{doors::ledger::Authority, history::Note};

    fn at(n: u64) -> Instant {
        Instant::from_nanos(n)
    }

    fn line(n: u64, node: u32, what: What) -> Entry {
        Entry { at: at(n), local: at(n), node: NodeId(node), incarnation: Incarnation(3), event: EventId(0), what }
    }

    fn op(counter: u64) -> OpId {
        OpId { incarnation: Incarnation(3), counter }
    }

    fn lease(n: u64) -> LeaseId {
        LeaseId::from_bits(n)
    }

    fn boss() -> EntityId {
        EntityId::new(EntityKind::Boss, 1).expect("small")
    }

    fn got(revision: u64) -> What {
        let answer = directory::Answer::Got(Outcome::Done((None, Revision(revision))));
        What::Completed(op(1), Box::new(Completion::Directory(answer)))
    }

    fn heard(n: u64, revision: u64, changes: Vec<Change>) -> Heard {
        Heard { at: at(n), earliest: at(0), revision: Revision(revision), changes }
    }

    fn fence(epoch: u64, holder: u64) -> Acceptance {
        let authority = Authority { entity: boss(), epoch: Epoch(epoch), lease: lease(holder) };
        Acceptance::FenceRaised { authority, before: None }
    }

    fn claims(n: u64, counter: u64, epoch: u64, done: bool) -> [Entry; 2] {
        let claim = ledger::Submission::Claim { lease: lease(7), entities: vec![(boss(), Epoch(epoch))] };
        let durable = ledger::Durable {
            entity: boss(),
            generation: Generation(0),
            applied_through: OpNumber(0),
            hit_points: 1,
            experience: 0,
            balance: 0,
            checkpoint: None,
            results: Vec::new(),
        };
        let outcome = if done { Outcome::Done(vec![Ok(Box::new(durable))]) } else { Outcome::Unknown };
        let answer = Completion::Ledger(ledger::Answer::Claimed(outcome));
        [
            line(n, 1, What::Invoked(op(counter), Invocation::Ledger(claim))),
            line(n + 5, 1, What::Completed(op(counter), Box::new(answer))),
        ]
    }

    /// The times and, shortly, what happened.
    fn told(sources: Sources) -> Vec<(u64, &'static str)> {
        let word = |what: &What| match what {
            What::Started => "started",
            What::Crashed => "crashed",
            What::Noted(_) => "noted",
            What::Invoked(..) => "invoked",
            What::Completed(..) => "completed",
            What::Accepted(Acceptance::DirectoryChanged { .. }) => "changed",
            What::Accepted(Acceptance::LeaseEnded { .. }) => "ended",
            What::Accepted(Acceptance::FenceRaised { .. }) => "fenced",
            _ => "other",
        };
        merged(sources).iter().map(|entry| (entry.at.as_nanos(), word(&entry.what))).collect()
    }

    #[test]
    fn the_lines_of_all_lives_are_ordered_by_the_one_clock_and_numbered() {
        let note = || What::Noted(Note::Suspended { lease: lease(7) });
        let sources = Sources {
            origin: at(100),
            lives: vec![vec![line(110, 1, What::Started), line(130, 1, note())], vec![line(120, 2, What::Started)]],
            own: vec![(at(140), NodeId(1), Incarnation(3), What::Crashed)],
            ..Sources::default()
        };
        let all = merged(sources);
        let places: Vec<_> = all.iter().map(|entry| (entry.event.0, entry.at.as_nanos(), entry.node.0)).collect();
        assert_eq!(places, [(1, 10, 1), (2, 20, 2), (3, 30, 1), (4, 40, 1)]);
    }

    #[test]
    fn a_revision_that_was_heard_late_happened_before_the_answer_that_carries_a_later_one() {
        let worker = Change::Deleted(Key::Worker(lease(9)));
        let sources = Sources {
            lives: vec![vec![line(50, 1, got(6))]],
            directory: vec![heard(40, 4, vec![]), heard(90, 5, vec![worker]), heard(91, 7, vec![])],
            ..Sources::default()
        };
        let expected = [(40, "changed"), (50, "changed"), (50, "ended"), (50, "completed"), (91, "changed")];
        assert_eq!(told(sources), expected);
    }

    #[test]
    fn no_answer_moves_a_revision_further_than_the_watch_may_have_been_late() {
        let heard = |n, earliest, revision| Heard { earliest: at(earliest), ..heard(n, revision, vec![]) };
        let sources = Sources {
            lives: vec![vec![line(50, 1, got(5))]],
            directory: vec![heard(90, 51, 5), heard(91, 52, 6)],
            ..Sources::default()
        };
        assert_eq!(told(sources), [(50, "completed"), (90, "changed"), (91, "changed")]);
    }

    #[test]
    fn a_process_dies_behind_its_last_line() {
        let sources = Sources {
            lives: vec![vec![line(10, 1, What::Started), line(25, 1, got(1))], vec![line(15, 2, What::Started)]],
            own: vec![(at(20), NodeId(1), Incarnation(3), What::Crashed)],
            ..Sources::default()
        };
        assert_eq!(told(sources), [(10, "started"), (15, "started"), (25, "completed"), (25, "crashed")]);
    }

    #[test]
    fn an_answer_long_before_its_commit_stays_before_it() {
        let [asked, answered] = claims(10, 1, 2, true);
        let late = 15 + CLOCK_ERROR_MAX.as_nanos();
        let lives = || vec![vec![asked.clone(), answered.clone()]];
        let journal = |n| vec![(at(n), fence(2, 7))];
        let sources = Sources { lives: lives(), journal: journal(late), ..Sources::default() };
        assert_eq!(told(sources), [(10, "invoked"), (15, "fenced"), (15, "completed")]);
        let sources = Sources { lives: lives(), journal: journal(late + 1), ..Sources::default() };
        assert_eq!(told(sources), [(10, "invoked"), (15, "completed"), (late + 1, "fenced")]);
    }

    #[test]
    fn a_lost_leader_is_an_ended_lease() {
        let leads = Value::Leader(directory::Leader { node: NodeId(3), lease: lease(5) });
        let record = Record { key: Key::Leader, value: leads, mod_revision: Revision(2), lease: Some(lease(5)) };
        let sources = Sources {
            directory: vec![heard(1, 2, vec![Change::Put(record)]), heard(2, 3, vec![Change::Deleted(Key::Leader)])],
            ..Sources::default()
        };
        let all = merged(sources);
        assert_eq!(all[2].what, What::Accepted(Acceptance::LeaseEnded { lease: lease(5) }));
        let owned = Value::Owner(directory::Ownership { lease: lease(5), epoch: Epoch(1), nonce: Nonce(1) });
        let kept = Record { key: Key::Owner(boss()), value: owned, mod_revision: Revision(4), lease: None };
        let sources = Sources { directory: vec![heard(3, 4, vec![Change::Put(kept)])], ..Sources::default() };
        assert_eq!(merged(sources).len(), 1);
    }

    #[test]
    fn a_commit_stands_before_the_answer_that_told_of_it() {
        let [asked, answered] = claims(10, 1, 2, true);
        // By its clock the server committed later than it answered.
        let sources =
            Sources { lives: vec![vec![asked, answered]], journal: vec![(at(17), fence(2, 7))], ..Sources::default() };
        assert_eq!(told(sources), [(10, "invoked"), (15, "fenced"), (15, "completed")]);
    }

    #[test]
    fn commits_about_one_entity_keep_their_order_and_an_answer_dates_its_own() {
        // The first claim's answer was lost; the second one of the same epoch was told.
        let first = claims(10, 1, 2, false);
        let second = claims(20, 2, 2, true);
        let third = claims(30, 3, 3, true);
        let lives = vec![[first, second, third].concat()];
        let journal = vec![(at(13), fence(2, 7)), (at(37), fence(2, 7)), (at(38), fence(3, 7))];
        let all = merged(Sources { lives, journal, ..Sources::default() });
        let fences: Vec<_> = all
            .iter()
            .filter_map(|entry| match &entry.what {
                What::Accepted(Acceptance::FenceRaised { authority, .. }) => {
                    Some((entry.at.as_nanos(), authority.epoch.0))
                }
                _ => None,
            })
            .collect();
        assert_eq!(fences, [(13, 2), (35, 2), (35, 3)]);
    }
}
