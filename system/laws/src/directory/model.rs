//! The directory as far as its callers may rely on it: what every revision changed, and leases that end when they may.

use super::Directory;
use crate::judge::{Ending, Model, Window};
use std::collections::{BTreeMap, btree_map::Entry};
use worldline_proto::{LeaseId, Revision};
use worldline_system::{
    Outcome, Refusal,
    doors::directory::{
        Answer, Change, Compare, Consistency, Family, Key, Page, Record, Submission, Transacted, Transaction, Write,
    },
    limits,
    time::{Duration, Instant},
};

/// A lease ends at most so long after its time: a server raises short ones, looks now and then, and a machine is busy.
const LATE: Duration = Duration::from_secs(8);
/// A clock may run so much faster.
const SLACK: Duration = Duration::from_millis(20);

/// A lease: when it may end, and when it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Lease {
    ttl: Duration,
    from: Instant,
    to: Instant,
}

/// The directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// What each revision changed, from the one behind `base` on.
    log: Vec<Vec<Change>>,
    base: Revision,
    compacted: Revision,
    leases: BTreeMap<LeaseId, Lease>,
}

/// A lease's life from a renewal on.
fn life(window: Window, ttl: Duration) -> Lease {
    Lease { ttl, from: (window.from + ttl) - SLACK, to: window.to + ttl + LATE }
}

fn key_of(change: &Change) -> Key {
    match change {
        Change::Put(record) => record.key,
        Change::Deleted(key) => *key,
    }
}

impl State {
    /// An empty one at a revision.
    #[must_use]
    pub fn new(base: Revision) -> Self {
        Self { log: vec![], base, compacted: Revision(0), leases: BTreeMap::new() }
    }

    /// Its revision.
    #[must_use]
    pub fn revision(&self) -> Revision {
        Revision(self.base.0 + self.log.len() as u64)
    }

    /// The revision before the case.
    #[must_use]
    pub fn first(&self) -> Revision {
        self.base
    }

    /// The past is gone, up to now.
    pub fn compact(&mut self) {
        self.compacted = self.revision();
    }

    /// The service is disturbed: nothing ends in time.
    pub fn disturb(&mut self) {
        self.leases.values_mut().for_each(|lease| lease.to = Instant::from_nanos(u64::MAX));
    }

    /// What stands under a key, at a revision.
    #[must_use]
    pub fn at(&self, key: Key, at: Revision) -> Option<Record> {
        let mut changes = self.log.iter().take((at.0 - self.base.0) as usize).flatten();
        changes.rfind(|change| key_of(change) == key).and_then(|change| match change {
            Change::Put(record) => Some(*record),
            Change::Deleted(_) => None,
        })
    }

    /// What stands under a key.
    #[must_use]
    pub fn stands(&self, key: Key) -> Option<Record> {
        self.at(key, self.revision())
    }

    fn page(&self, family: Family, after: Option<Key>, limit: u16, at: Revision) -> Page {
        let mut keys: Vec<Key> = self.log.iter().flatten().map(key_of).filter(|key| key.family() == family).collect();
        keys.sort_unstable();
        keys.dedup();
        let behind = keys.into_iter().filter(|key| after.is_none_or(|after| *key > after));
        let mut records: Vec<Record> = behind.filter_map(|key| self.at(key, at)).collect();
        let more = records.len() > usize::from(limit);
        records.truncate(limit.into());
        Page { records, revision: at, more }
    }

    fn end(&mut self, lease: LeaseId) {
        self.leases.remove(&lease);
        let mut keys: Vec<Key> = self.log.iter().flatten().map(key_of).collect();
        keys.sort_unstable();
        keys.dedup();
        keys.retain(|&key| self.stands(key).is_some_and(|record| record.lease == Some(lease)));
        if !keys.is_empty() {
            self.log.push(keys.into_iter().map(Change::Deleted).collect());
        }
    }

    /// Every way in which leases may have ended by then. What must have ended has.
    fn lapses(&self, window: Window) -> Vec<Self> {
        let mut all = vec![self.clone()];
        let mut at = 0;
        while at < all.len() {
            let state = all[at].clone();
            for (&lease, life) in &state.leases {
                if life.from <= window.to {
                    let mut next = state.clone();
                    next.end(lease);
                    if !all.contains(&next) {
                        all.push(next);
                    }
                }
            }
            at += 1;
        }
        all.retain(|state| state.leases.values().all(|life| life.to >= window.from));
        all
    }

    fn transact(&mut self, transaction: &Transaction) -> Outcome<Transacted> {
        let Transaction { compares, writes, otherwise } = transaction;
        if [compares.len(), writes.len(), otherwise.len()].iter().any(|count| *count > limits::DIRECTORY_OPERATIONS) {
            return Outcome::Refused(Refusal::TooManyOperations);
        }
        let target = |write: &Write| match *write {
            Write::Put { key, .. } | Write::Delete(key) => key,
        };
        let twice = |n: usize| writes[..n].iter().any(|write| target(write) == target(&writes[n]));
        if (0..writes.len()).any(twice) {
            return Outcome::Refused(Refusal::Malformed);
        }
        let holds = |compare: &Compare| match *compare {
            Compare::Absent(key) => self.stands(key).is_none(),
            Compare::Present(key) => self.stands(key).is_some(),
            Compare::Unchanged(key, revision) => self.stands(key).is_some_and(|record| record.mod_revision == revision),
        };
        if !compares.iter().all(holds) {
            let otherwise = otherwise.iter().filter_map(|&key| self.stands(key)).collect();
            return Outcome::Done(Transacted { succeeded: false, revision: self.revision(), otherwise });
        }
        let unknown =
            |write: &Write| matches!(write, Write::Put { lease: Some(lease), .. } if !self.leases.contains_key(lease));
        if writes.iter().any(unknown) {
            return Outcome::Refused(Refusal::LeaseNotFound);
        }
        let mod_revision = self.revision().next();
        let changes: Vec<Change> = writes
            .iter()
            .filter_map(|write| match *write {
                Write::Put { key, value, lease } => Some(Change::Put(Record { key, value, mod_revision, lease })),
                Write::Delete(key) => self.stands(key).map(|_| Change::Deleted(key)),
            })
            .collect();
        if !changes.is_empty() {
            self.log.push(changes);
        }
        Outcome::Done(Transacted { succeeded: true, revision: self.revision(), otherwise: vec![] })
    }

    /// Executes what is answered by one value.
    fn execute(&mut self, submission: &Submission, window: Window) -> Answer {
        match submission {
            &Submission::Grant { lease, ttl } => Answer::Granted(match self.leases.entry(lease) {
                Entry::Occupied(_) => Outcome::Refused(Refusal::LeaseExists),
                Entry::Vacant(vacant) => {
                    vacant.insert(life(window, ttl));
                    Outcome::Done(())
                }
            }),
            &Submission::Revoke(lease) => Answer::Revoked(if self.leases.contains_key(&lease) {
                self.end(lease);
                Outcome::Done(())
            } else {
                Outcome::Refused(Refusal::LeaseNotFound)
            }),
            Submission::Transact(transaction) => Answer::Transacted(self.transact(transaction)),
            &Submission::Read { family, after, limit, at, .. } => Answer::Read(match at {
                _ if limit == 0 || limit > limits::DIRECTORY_PAGE => Outcome::Refused(Refusal::Malformed),
                Some(at) if at < self.compacted => Outcome::Refused(Refusal::Compacted { oldest: self.compacted }),
                Some(at) if at > self.revision() => Outcome::Refused(Refusal::Malformed),
                at => Outcome::Done(self.page(family, after, limit, at.unwrap_or(self.revision()))),
            }),
            &Submission::Get { key, .. } => Answer::Got(Outcome::Done((self.stands(key), self.revision()))),
            Submission::Unwatch(_) => Answer::Unwatched(Outcome::Done(())),
            Submission::KeepAlive(_) | Submission::Watch { .. } => unreachable!("they are looked at by themselves"),
        }
    }

    /// Whether a stale read may be answered so: as it stood at some revision.
    fn stood_once(&self, submission: &Submission, answer: &Answer) -> bool {
        let known = |revision: Revision| revision >= self.base && revision <= self.revision();
        match (submission, answer) {
            (&Submission::Read { family, after, limit, at: None, .. }, Answer::Read(Outcome::Done(page))) => {
                known(page.revision) && *page == self.page(family, after, limit, page.revision)
            }
            (&Submission::Get { key, .. }, Answer::Got(Outcome::Done((record, revision)))) => {
                known(*revision) && *record == self.at(key, *revision)
            }
            _ => false,
        }
    }

    fn step(&self, submission: &Submission, window: Window, answer: Option<&Answer>) -> Option<Self> {
        let mut next = self.clone();
        let fits = match (submission, answer) {
            (&Submission::KeepAlive(lease), answer) => match (self.leases.get(&lease), answer) {
                (Some(stands), None) => {
                    let renewed = life(window, stands.ttl);
                    // It may be renewed at any later moment, but nobody may rely on that.
                    next.leases.insert(lease, Lease { from: stands.from, ..renewed });
                    true
                }
                (Some(stands), Some(Answer::KeptAlive(Outcome::Done(ttl)))) => {
                    next.leases.insert(lease, life(window, stands.ttl));
                    *ttl >= stands.ttl && *ttl <= stands.ttl + LATE
                }
                (None, answer) => {
                    answer.is_none_or(|answer| *answer == Answer::KeptAlive(Outcome::Refused(Refusal::LeaseNotFound)))
                }
                _ => false,
            },
            (&Submission::Watch { from, .. }, Some(Answer::Watching(outcome))) => match outcome {
                // What the oldest revision changed may or may not be kept.
                Outcome::Done(()) => from >= self.compacted,
                Outcome::Refused(Refusal::Compacted { oldest }) => {
                    from <= self.compacted && (self.compacted..=self.compacted.next()).contains(oldest)
                }
                _ => false,
            },
            (Submission::Watch { .. }, _) => answer.is_none(),
            (
                Submission::Read {
                    at: None,
                    limit: 1..=limits::DIRECTORY_PAGE,
                    consistency: Consistency::Serializable,
                    ..
                }
                | Submission::Get { consistency: Consistency::Serializable, .. },
                answer,
            ) => answer.is_none_or(|answer| self.stood_once(submission, answer)),
            (_, answer) => {
                let expected = next.execute(submission, window);
                answer.is_none_or(|answer| *answer == expected)
            }
        };
        fits.then_some(next)
    }

    /// Whether a watch that stood from a revision on may have told this, and whether that is all there is.
    #[must_use]
    pub fn told(&self, family: Family, from: Revision, news: &[(Revision, Vec<Change>)]) -> (bool, bool) {
        let mut expected = (1_u64..)
            .zip(&self.log)
            .map(|(n, changes)| {
                let of_family = changes.iter().copied().filter(|change| key_of(change).family() == family).collect();
                (Revision(self.base.0 + n), of_family)
            })
            .filter(|(revision, changes): &(Revision, Vec<Change>)| *revision >= from && !changes.is_empty());
        for (revision, changes) in news {
            let mut rest = changes.as_slice();
            let mut last = Revision(0);
            while !rest.is_empty() {
                let Some((at, group)) = expected.next() else { return (false, false) };
                let Some((now, behind)) = rest.split_at_checked(group.len()) else { return (false, false) };
                // Within one revision the order is nobody's.
                if !group.iter().all(|change| now.contains(change)) {
                    return (false, false);
                }
                (rest, last) = (behind, at);
            }
            // A revision is never cut in two, and what is reported is reported as far as it says.
            if *revision < last {
                return (false, false);
            }
        }
        (true, expected.next().is_none())
    }
}

impl Model<Directory> for State {
    const IN_ORDER: bool = false;

    fn ending(answer: &Answer) -> Ending {
        const ABSENT: &[Refusal] =
            &[Refusal::Unreachable, Refusal::Busy, Refusal::NotServing, Refusal::NoLeader, Refusal::DatabaseFull];
        match answer {
            Answer::Granted(outcome)
            | Answer::Revoked(outcome)
            | Answer::Watching(outcome)
            | Answer::Unwatched(outcome) => Ending::of(outcome, ABSENT),
            Answer::KeptAlive(outcome) => Ending::of(outcome, ABSENT),
            Answer::Transacted(outcome) => Ending::of(outcome, ABSENT),
            Answer::Read(outcome) => Ending::of(outcome, ABSENT),
            Answer::Got(outcome) => Ending::of(outcome, ABSENT),
        }
    }

    fn is_write(submission: &Submission) -> bool {
        match submission {
            Submission::Grant { .. } | Submission::KeepAlive(_) | Submission::Revoke(_) | Submission::Transact(_) => {
                true
            }
            Submission::Read { .. } | Submission::Get { .. } | Submission::Watch { .. } | Submission::Unwatch(_) => {
                false
            }
        }
    }

    fn after(&self, submission: &Submission, window: Window, answer: Option<&Answer>) -> Vec<Self> {
        self.lapses(window).iter().filter_map(|state| state.step(submission, window, answer)).collect()
    }
}
