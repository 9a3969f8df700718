//! The directory's state machine: records with their past revisions, and leases with the keys that go with them.
//!
//! It is etcd's MVCC store as a pure value: one command in, one [`Effect`] out. Effects are kept in a bounded window, and
//! three things live off it: a watch replays it, a member that lags finds its own revision in it, and a restored backup or
//! a lost tail is reached by undoing it from its end.
//!
//! Deliberately absent: time but for a label on each effect, and who is asking. Whether a lease has expired is the leader's
//! to know; here it exists or it does not.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};
use worldline_proto::{LeaseId, Revision};
use worldline_system::{
    Outcome, Refusal,
    doors::directory::{Answer, Change, Compare, Family, Key, Page, Record, Transacted, Transaction, Write},
    time::{Duration, Instant},
};

/// Effects that are kept. What lies further back is compacted: etcd's auto-compaction by revision.
pub(super) const EFFECTS_KEPT: usize = 4_096;

/// An etcd that has never been written to stands at revision 1.
const FIRST_REVISION: Revision = Revision(1);

/// What the members agree on, in one order.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Command {
    /// A new leader's first entry: it commits what its predecessors left behind.
    Nothing,
    Grant {
        lease: LeaseId,
        ttl: Duration,
    },
    Revoke(LeaseId),
    Transact(Arc<Transaction>),
}

/// A command with the number under which its asker waits for it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Proposal {
    pub id: u64,
    pub command: Command,
}

/// What one entry of the log did.
#[derive(Clone, Debug)]
pub(super) struct Effect {
    pub index: u64,
    pub term: u64,
    pub at: Instant,
    pub proposal: u64,
    /// The store's revision after it.
    pub revision: Revision,
    pub changes: Arc<[Change]>,
    pub lease: Option<LeaseEffect>,
    pub answer: Option<Box<Answer>>,
}

/// What an entry did to a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LeaseEffect {
    Granted(LeaseId, Duration),
    Ended(LeaseId, Duration),
}

#[derive(Clone, Debug)]
struct Lease {
    ttl: Duration,
    keys: BTreeSet<Key>,
}

#[derive(Clone, Copy, Debug)]
struct Version {
    revision: Revision,
    /// `None`: the key was deleted.
    record: Option<Record>,
}

/// The store. See the module's documentation.
#[derive(Clone, Debug)]
pub(super) struct Store {
    families: [BTreeMap<Key, Vec<Version>>; 4],
    leases: BTreeMap<LeaseId, Lease>,
    revision: Revision,
    /// Below this revision nothing can be read, and no watch begins at it. Zero: nothing was ever compacted.
    compacted: Revision,
    applied: u64,
    /// The term of the last applied entry.
    applied_term: u64,
    effects: VecDeque<Effect>,
    no_changes: Arc<[Change]>,
}

impl Store {
    pub fn new() -> Self {
        Self {
            families: Default::default(),
            leases: BTreeMap::new(),
            revision: FIRST_REVISION,
            compacted: Revision(0),
            applied: 0,
            applied_term: 0,
            effects: VecDeque::new(),
            no_changes: Arc::new([]),
        }
    }

    /// The index of the last entry that was applied.
    pub fn applied(&self) -> u64 {
        self.applied
    }

    /// The term of the last entry that was applied.
    pub fn applied_term(&self) -> u64 {
        self.applied_term
    }

    pub fn revision(&self) -> Revision {
        self.revision
    }

    pub fn lease_ttl(&self, lease: LeaseId) -> Option<Duration> {
        self.leases.get(&lease).map(|lease| lease.ttl)
    }

    pub fn leases(&self) -> impl Iterator<Item = (LeaseId, Duration)> + '_ {
        self.leases.iter().map(|(&id, lease)| (id, lease.ttl))
    }

    /// The record under a key, now.
    pub fn current(&self, key: Key) -> Option<&Record> {
        self.families[key.family() as usize].get(&key)?.last()?.record.as_ref()
    }

    /// The effect of the entry at `index`, while it is kept.
    pub fn effect(&self, index: u64) -> Option<&Effect> {
        let first = self.effects.front()?.index;
        self.effects.get(usize::try_from(index.checked_sub(first)?).ok()?)
    }

    /// The revision after the entry at `index`; the oldest readable one where the entry is no longer kept.
    pub fn revision_at(&self, index: u64) -> Revision {
        if index >= self.applied {
            return self.revision;
        }
        let oldest = self.compacted.max(FIRST_REVISION);
        self.effect(index).map_or(oldest, |effect| effect.revision.max(oldest))
    }

    /// Applies the next entry. `full`: the database is over its quota, so nothing that grows it is taken.
    pub fn apply(&mut self, term: u64, at: Instant, proposal: &Proposal, full: bool) -> &Effect {
        self.applied += 1;
        self.applied_term = term;
        let (answer, changes, lease) = match &proposal.command {
            Command::Nothing => (None, vec![], None),
            Command::Grant { .. } if full => {
                (Some(Answer::Granted(Outcome::Refused(Refusal::DatabaseFull))), vec![], None)
            }
            &Command::Grant { lease, ttl } => self.grant(lease, ttl),
            &Command::Revoke(lease) => self.revoke(lease),
            Command::Transact(transaction) => {
                let (outcome, changes) = self.transact(transaction, full);
                (Some(Answer::Transacted(outcome)), changes, None)
            }
        };
        let changes = if changes.is_empty() { self.no_changes.clone() } else { changes.into() };
        self.effects.push_back(Effect {
            index: self.applied,
            term,
            at,
            proposal: proposal.id,
            revision: self.revision,
            changes,
            lease,
            answer: answer.map(Box::new),
        });
        if self.effects.len() > EFFECTS_KEPT {
            self.forget_oldest();
        }
        self.effects.back().expect("it was just pushed")
    }

    fn grant(&mut self, lease: LeaseId, ttl: Duration) -> (Option<Answer>, Vec<Change>, Option<LeaseEffect>) {
        if self.leases.contains_key(&lease) {
            return (Some(Answer::Granted(Outcome::Refused(Refusal::LeaseExists))), vec![], None);
        }
        self.leases.insert(lease, Lease { ttl, keys: BTreeSet::new() });
        (Some(Answer::Granted(Outcome::Done(()))), vec![], Some(LeaseEffect::Granted(lease, ttl)))
    }

    /// Ends a lease; its keys go with it in one revision.
    fn revoke(&mut self, id: LeaseId) -> (Option<Answer>, Vec<Change>, Option<LeaseEffect>) {
        let Some(lease) = self.leases.get(&id) else {
            return (Some(Answer::Revoked(Outcome::Refused(Refusal::LeaseNotFound))), vec![], None);
        };
        let (ttl, keys) = (lease.ttl, lease.keys.clone());
        if !keys.is_empty() {
            self.revision = self.revision.next();
        }
        let changes = keys.into_iter().filter_map(|key| self.write(key, None)).collect();
        self.leases.remove(&id);
        (Some(Answer::Revoked(Outcome::Done(()))), changes, Some(LeaseEffect::Ended(id, ttl)))
    }

    fn transact(&mut self, transaction: &Transaction, full: bool) -> (Outcome<Transacted>, Vec<Change>) {
        if !transaction.compares.iter().all(|compare| self.holds(compare)) {
            let otherwise = transaction.otherwise.iter().filter_map(|&key| self.current(key).copied()).collect();
            return (Outcome::Done(Transacted { succeeded: false, revision: self.revision, otherwise }), vec![]);
        }
        if let Some(refusal) = self.refusal(&transaction.writes, full) {
            return (Outcome::Refused(refusal), vec![]);
        }
        let effective = |write: &Write| match *write {
            Write::Put { .. } => true,
            Write::Delete(key) => self.current(key).is_some(),
        };
        let mut changes = vec![];
        if transaction.writes.iter().any(effective) {
            self.revision = self.revision.next();
            for write in &transaction.writes {
                let (key, record) = match *write {
                    Write::Put { key, value, lease } => {
                        (key, Some(Record { key, value, mod_revision: self.revision, lease }))
                    }
                    Write::Delete(key) => (key, None),
                };
                changes.extend(self.write(key, record));
            }
        }
        (Outcome::Done(Transacted { succeeded: true, revision: self.revision, otherwise: vec![] }), changes)
    }

    fn holds(&self, compare: &Compare) -> bool {
        match *compare {
            Compare::Absent(key) => self.current(key).is_none(),
            Compare::Present(key) => self.current(key).is_some(),
            Compare::Unchanged(key, revision) => {
                self.current(key).is_some_and(|record| record.mod_revision == revision)
            }
        }
    }

    fn refusal(&self, writes: &[Write], full: bool) -> Option<Refusal> {
        writes.iter().find_map(|write| match *write {
            Write::Put { .. } if full => Some(Refusal::DatabaseFull),
            Write::Put { lease: Some(lease), .. } if !self.leases.contains_key(&lease) => Some(Refusal::LeaseNotFound),
            Write::Put { .. } | Write::Delete(_) => None,
        })
    }

    /// Gives a key a new version in the present revision. `None` where a missing key is deleted.
    fn write(&mut self, key: Key, record: Option<Record>) -> Option<Change> {
        let before = self.current(key).copied();
        if before.is_none() && record.is_none() {
            return None;
        }
        self.attach(key, before, record);
        let version = Version { revision: self.revision, record };
        self.families[key.family() as usize].entry(key).or_default().push(version);
        Some(record.map_or(Change::Deleted(key), Change::Put))
    }

    fn attach(&mut self, key: Key, before: Option<Record>, after: Option<Record>) {
        if let Some(lease) = before.and_then(|record| record.lease).and_then(|id| self.leases.get_mut(&id)) {
            lease.keys.remove(&key);
        }
        if let Some(lease) = after.and_then(|record| record.lease).and_then(|id| self.leases.get_mut(&id)) {
            lease.keys.insert(key);
        }
    }

    /// One key at a revision that [`Self::readable`] has let pass.
    pub fn get(&self, key: Key, at: Revision) -> Option<Record> {
        record_at(self.families[key.family() as usize].get(&key)?, at)
    }

    /// A page of a family at a revision that [`Self::readable`] has let pass.
    pub fn page(&self, family: Family, after: Option<Key>, limit: u16, at: Revision) -> Page {
        use std::ops::Bound::{Excluded, Unbounded};
        let range = (after.map_or(Unbounded, Excluded), Unbounded);
        let mut found =
            self.families[family as usize].range::<Key, _>(range).filter_map(|(_, versions)| record_at(versions, at));
        let records = found.by_ref().take(usize::from(limit)).collect();
        Page { records, revision: at, more: found.next().is_some() }
    }

    /// Whether a revision can be read: neither compacted nor ahead of what the member has.
    pub fn readable(&self, at: Revision, reached: Revision) -> Result<(), Refusal> {
        match at {
            at if at < self.compacted => Err(Refusal::Compacted { oldest: self.compacted }),
            at if at > reached => Err(Refusal::Malformed),
            _ => Ok(()),
        }
    }

    /// All records of a family, in key order, now.
    pub fn records(&self, family: Family) -> impl Iterator<Item = Record> + '_ {
        self.families[family as usize].values().filter_map(|versions| versions.last()?.record)
    }

    /// The first revision whose changes can still be replayed.
    pub fn oldest_change(&self) -> Revision {
        self.compacted.next()
    }

    /// The effects that made revisions `from..=through`, oldest first. The caller has checked [`Self::oldest_change`].
    pub fn effects_between(&self, from: Revision, through: Revision) -> impl Iterator<Item = &Effect> + '_ {
        let start = self.effects.partition_point(|effect| effect.revision < from);
        self.effects.range(start..).take_while(move |effect| effect.revision <= through)
    }

    /// Forgets the past up to the present revision: what `etcdctl compact` does.
    pub fn compact(&mut self) {
        while self.effects.len() > 1 {
            self.forget_oldest();
        }
        self.compacted = self.revision;
        if let Some(changes) = self.effects.back().map(|effect| effect.changes.clone()) {
            changes.iter().for_each(|change| self.prune(key_of(change)));
        }
    }

    fn forget_oldest(&mut self) {
        let Some(oldest) = self.effects.pop_front() else { return };
        self.compacted = self.compacted.max(oldest.revision);
        oldest.changes.iter().for_each(|change| self.prune(key_of(change)));
    }

    /// Drops the versions of a key that nobody can read any more.
    fn prune(&mut self, key: Key) {
        let compacted = self.compacted;
        let family = &mut self.families[key.family() as usize];
        let Some(versions) = family.get_mut(&key) else { return };
        let visible = versions.partition_point(|version| version.revision <= compacted);
        versions.drain(..visible.saturating_sub(1));
        if let [Version { revision, record: None }] = versions[..]
            && revision <= compacted
        {
            family.remove(&key);
        }
    }

    /// The index that had been reached at a time, as far back as effects are kept.
    pub fn index_at(&self, at: Instant) -> u64 {
        let behind = self.effects.partition_point(|effect| effect.at <= at);
        match behind.checked_sub(1) {
            Some(last) => self.effects[last].index,
            // The first effect kept cannot be undone past: the versions before it are pruned.
            None => self.effects.front().map_or(self.applied, |first| first.index),
        }
    }

    /// Goes back to the state after the entry at `index`, or as far as effects are kept: a restored backup, or a tail that
    /// no surviving member has.
    pub fn roll_back(&mut self, index: u64) {
        while self.applied > index && self.effects.len() > 1 {
            let effect = self.effects.pop_back().expect("there is more than one");
            if let Some(LeaseEffect::Ended(lease, ttl)) = effect.lease {
                self.leases.insert(lease, Lease { ttl, keys: BTreeSet::new() });
            }
            for change in effect.changes.iter().rev() {
                self.undo(key_of(change));
            }
            if let Some(LeaseEffect::Granted(lease, _)) = effect.lease {
                self.leases.remove(&lease);
            }
            let last = self.effects.back().expect("there was more than one");
            (self.applied, self.applied_term, self.revision) = (last.index, last.term, last.revision);
        }
    }

    fn undo(&mut self, key: Key) {
        let family = &mut self.families[key.family() as usize];
        let versions = family.get_mut(&key).expect("a change left a version");
        let undone = versions.pop().expect("a change left a version");
        let before = versions.last().and_then(|version| version.record);
        if versions.is_empty() {
            family.remove(&key);
        }
        self.attach(key, undone.record, before);
    }

    /// The terms of effects from the last one backwards, for finding where a log departs from what was applied.
    pub fn last_shared(&self, term_of: impl Fn(u64) -> Option<u64>) -> u64 {
        self.effects
            .iter()
            .rev()
            .find(|effect| term_of(effect.index) == Some(effect.term))
            .map_or(self.applied.min(self.effects.front().map_or(self.applied, |first| first.index)), |effect| {
                effect.index
            })
    }
}

fn record_at(versions: &[Version], at: Revision) -> Option<Record> {
    let behind = versions.partition_point(|version| version.revision <= at);
    versions[..behind].last()?.record
}

fn key_of(change: &Change) -> Key {
    match change {
        Change::Put(record) => record.key,
        Change::Deleted(key) => *key,
    }
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
