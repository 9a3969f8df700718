//! O11: whatever an orchestrator commits, it commits as the leader of that moment.

use crate::checkers::{Check, Checker, Facts, Invariant, Setup, breach};
use std::collections::BTreeMap;
use worldline_proto::{Incarnation, LeaseId, NodeId, Nonce, OpId, Revision};
use worldline_system::{
    Outcome,
    doors::directory::{self, Change, Compare, Key, Leader, Transaction, Value, Write},
    history::{Acceptance, Completion, Entry, Invocation, What},
};

/// A decision of an orchestrator that may commit, or has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Decision {
    node: NodeId,
    lease: LeaseId,
    /// The revision of the leader key without which it must not commit.
    under: Option<Revision>,
}

/// Whose the leader key is, and since which revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leads {
    /// Nobody told, or a backup was restored.
    Unknown,
    Nobody,
    This(Leader, Revision),
}

/// O11. Whoever has campaigned is an orchestrator. Every takeover that the directory commits is known by its nonces, so also one
/// whose answer was lost; every decision about a region by its answer. The leader key must be its own in the revision before,
/// and the transaction must have named it.
#[derive(Clone, Debug)]
pub struct OneLeader {
    /// The identity under which each orchestrator campaigned last.
    campaigns: BTreeMap<(NodeId, Incarnation), LeaseId>,
    /// Takeovers, by the nonces that they write.
    takeovers: BTreeMap<Nonce, Decision>,
    /// Decisions about regions that are not answered.
    asked: BTreeMap<(NodeId, OpId), Decision>,
    /// Decisions that were answered as committed, before the directory has told of their revision.
    answered: BTreeMap<Revision, Decision>,
    /// Who led, from which revision on, in their order.
    leads: Vec<(Revision, Leads)>,
    revision: Revision,
    seen: bool,
}

impl OneLeader {
    /// An orchestrator submits a transaction.
    fn submit(&mut self, entry: &Entry, op: OpId, transaction: &Transaction) {
        let life = (entry.node, entry.incarnation);
        for write in &transaction.writes {
            if let Write::Put { value: Value::Leader(leader), .. } = write {
                self.campaigns.insert(life, leader.lease);
                return;
            }
        }
        let Some(&lease) = self.campaigns.get(&life) else { return };
        let under = transaction.compares.iter().find_map(|compare| match *compare {
            Compare::Unchanged(Key::Leader, revision) => Some(revision),
            _ => None,
        });
        let decision = Decision { node: entry.node, lease, under };
        for write in &transaction.writes {
            match *write {
                Write::Put { value: Value::Owner(owner), .. } => {
                    self.takeovers.insert(owner.nonce, decision);
                }
                Write::Put { key: Key::Region(_), .. } | Write::Delete(Key::Region(_)) => {
                    self.asked.insert((entry.node, op), decision);
                }
                Write::Put { .. } | Write::Delete(_) => {}
            }
        }
    }

    /// A decision about a region was answered.
    fn answer(&mut self, node: NodeId, op: OpId, answer: &directory::Answer) -> Check {
        let Some(decision) = self.asked.remove(&(node, op)) else { return Ok(()) };
        match answer {
            directory::Answer::Transacted(Outcome::Done(done)) if done.succeeded => {
                if done.revision > self.revision {
                    self.answered.insert(done.revision, decision);
                    return Ok(());
                }
                self.committed(decision, done.revision)
            }
            _ => Ok(()),
        }
    }

    /// Who led before this revision.
    fn leads_before(&self, revision: Revision) -> Leads {
        let behind = self.leads.partition_point(|(since, _)| *since < revision);
        behind.checked_sub(1).map_or(Leads::Unknown, |place| self.leads[place].1)
    }

    /// The directory has committed a decision in this revision.
    fn committed(&mut self, decision: Decision, revision: Revision) -> Check {
        let Decision { node, lease, under } = decision;
        let (leader, since) = match self.leads_before(revision) {
            Leads::Unknown => return Ok(()),
            Leads::Nobody => breach!("{node} committed a failover in revision {revision}, when nobody led"),
            Leads::This(leader, since) => (leader, since),
        };
        self.seen = true;
        if (leader.node, leader.lease) != (node, lease) {
            breach!(
                "{node} (lease {lease}) committed a failover in revision {revision}, when {} led (lease {})",
                leader.node,
                leader.lease
            );
        }
        if under != Some(since) {
            breach!(
                "{node} committed a failover in revision {revision} under leader key {under:?}; its own is {since}"
            );
        }
        Ok(())
    }

    fn changed(&mut self, revision: Revision, changes: &[Change]) -> Check {
        if revision <= self.revision {
            // Restored from a backup: nobody knows who leads by it.
            self.leads = vec![(Revision(0), Leads::Unknown)];
            self.answered.clear();
        }
        self.revision = revision;
        for change in changes {
            let Change::Put(record) = change else { continue };
            let Value::Owner(owner) = record.value else { continue };
            if let Some(decision) = self.takeovers.remove(&owner.nonce) {
                self.committed(decision, revision)?;
            }
        }
        if let Some(decision) = self.answered.remove(&revision) {
            self.committed(decision, revision)?;
        }
        for change in changes {
            match change {
                Change::Put(record) => {
                    if let Value::Leader(leader) = record.value {
                        self.leads.push((revision, Leads::This(leader, record.mod_revision)));
                    }
                }
                Change::Deleted(Key::Leader) => self.leads.push((revision, Leads::Nobody)),
                Change::Deleted(_) => {}
            }
        }
        Ok(())
    }
}

impl Checker for OneLeader {
    const INVARIANT: Invariant = Invariant::O11;

    fn new(_: &Setup) -> Self {
        Self {
            campaigns: BTreeMap::new(),
            takeovers: BTreeMap::new(),
            asked: BTreeMap::new(),
            answered: BTreeMap::new(),
            leads: Vec::new(),
            revision: Revision(0),
            seen: false,
        }
    }

    fn on_entry(&mut self, entry: &Entry, _: &Facts<'_>) -> Check {
        match &entry.what {
            What::Invoked(op, Invocation::Directory(directory::Submission::Transact(transaction))) => {
                self.submit(entry, *op, transaction);
            }
            What::Completed(op, completion) => {
                if let Completion::Directory(answer) = &**completion {
                    return self.answer(entry.node, *op, answer);
                }
            }
            What::Accepted(Acceptance::DirectoryChanged { revision, changes }) => {
                return self.changed(*revision, changes);
            }
            _ => {}
        }
        Ok(())
    }

    fn not_checked(&self) -> Option<&'static str> {
        (!self.seen).then_some("no orchestrator committed anything, or nobody told who led")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkers::story::*;
    use std::sync::Arc;
    use worldline_proto::Epoch;
    use worldline_system::doors::directory::{Down, Ownership, Record, RegionId, Transacted};

    const DIRECTORY: u32 = 60;

    fn leader(node: u32) -> Value {
        Value::Leader(Leader { node: NodeId(node), lease: lease(node.into()) })
    }

    fn owned(nonce: u64) -> Value {
        Value::Owner(Ownership { lease: lease(1), epoch: Epoch(1), nonce: Nonce(nonce) })
    }

    fn asks_to(counter: u64, compares: Vec<Compare>, write: Write) -> What {
        let transaction = Transaction { compares, writes: vec![write], otherwise: vec![] };
        asks(counter, directory::Submission::Transact(Arc::new(transaction)))
    }

    fn put(key: Key, value: Value) -> Write {
        Write::Put { key, value, lease: None }
    }

    fn campaigns(node: u32) -> What {
        asks_to(1, vec![Compare::Absent(Key::Leader)], put(Key::Leader, leader(node)))
    }

    fn takes_over(counter: u64, nonce: u64, under: Option<u64>) -> What {
        let compares = under.map(|revision| Compare::Unchanged(Key::Leader, Revision(revision))).into_iter().collect();
        asks_to(counter, compares, put(Key::Owner(boss()), owned(nonce)))
    }

    fn changed(revision: u64, change: Change) -> What {
        What::Accepted(Acceptance::DirectoryChanged { revision: Revision(revision), changes: [change].into() })
    }

    fn wrote(revision: u64, key: Key, value: Value) -> What {
        let record = Record { key, value, mod_revision: Revision(revision), lease: None };
        changed(revision, Change::Put(record))
    }

    fn took(revision: u64, nonce: u64) -> What {
        wrote(revision, Key::Owner(boss()), owned(nonce))
    }

    /// Orchestrator 3 leads and takes over; its key goes, orchestrator 4 leads.
    fn good() -> Vec<(u64, u32, What)> {
        vec![
            (0, 3, campaigns(3)),
            (1, DIRECTORY, wrote(1, Key::Leader, leader(3))),
            (2, 4, campaigns(4)),
            (3, 3, takes_over(2, 7, Some(1))),
            (4, DIRECTORY, took(2, 7)),
            (5, DIRECTORY, changed(3, Change::Deleted(Key::Leader))),
            (6, DIRECTORY, wrote(4, Key::Leader, leader(4))),
        ]
    }

    fn breaks(more: Vec<(u64, u32, What)>) -> Option<usize> {
        breaks_at::<OneLeader>(&tell([good(), more].concat()))
    }

    #[test]
    fn o11_only_the_leader_of_a_revision_commits_a_takeover_in_it() {
        assert_eq!(breaks(vec![]), None);
        assert_eq!(breaks(vec![(7, 4, takes_over(2, 8, Some(4))), (8, DIRECTORY, took(5, 8))]), None);
        assert_eq!(
            breaks(vec![(7, 3, takes_over(3, 8, Some(1))), (8, DIRECTORY, took(5, 8))]),
            Some(8),
            "it led before"
        );
        assert_eq!(breaks(vec![(7, 4, takes_over(2, 8, None)), (8, DIRECTORY, took(5, 8))]), Some(8), "by good luck");
        assert_eq!(
            breaks(vec![(7, 4, takes_over(2, 8, Some(1))), (8, DIRECTORY, took(5, 8))]),
            Some(8),
            "by another key"
        );
        let nobody = vec![
            (7, 4, takes_over(2, 8, Some(4))),
            (8, DIRECTORY, changed(5, Change::Deleted(Key::Leader))),
            (9, DIRECTORY, took(6, 8)),
        ];
        assert_eq!(breaks(nobody), Some(9), "nobody leads");
        assert_eq!(breaks(vec![(7, 1, takes_over(2, 8, None)), (8, DIRECTORY, took(5, 8))]), None, "a worker claims");
    }

    #[test]
    fn o11_a_decision_about_a_region_is_known_by_its_answer() {
        let key = Key::Region(RegionId(1));
        let down = Value::Down(Down { stand_in: RegionId(0) });
        let decides = |under| asks_to(5, vec![Compare::Unchanged(Key::Leader, Revision(under))], put(key, down));
        let done = |revision| Transacted { succeeded: true, revision: Revision(revision), otherwise: vec![] };
        let heard = |revision| hears(5, directory::Answer::Transacted(Outcome::Done(done(revision))));
        assert_eq!(breaks(vec![(7, 4, decides(4)), (8, DIRECTORY, wrote(5, key, down)), (9, 4, heard(5))]), None);
        let late = vec![(7, 3, decides(1)), (8, DIRECTORY, wrote(5, key, down)), (9, 3, heard(5))];
        assert_eq!(breaks(late), Some(9));
        let early = vec![(7, 3, decides(1)), (8, 3, heard(5)), (9, DIRECTORY, wrote(5, key, down))];
        assert_eq!(breaks(early), Some(9), "in whichever order it is told");
        let failed = hears(5, directory::Answer::Transacted(Outcome::Unknown));
        assert_eq!(breaks(vec![(7, 3, decides(1)), (8, 3, failed)]), None, "it may not have happened");
    }

    #[test]
    fn o11_behind_a_restored_backup_nobody_knows_who_leads() {
        let restored = vec![
            (7, DIRECTORY, wrote(2, Key::Owner(boss()), owned(1))),
            (8, 3, takes_over(3, 8, Some(1))),
            (9, DIRECTORY, took(3, 8)),
        ];
        assert_eq!(breaks(restored), None);
        assert_eq!(
            OneLeader::new(&setup()).not_checked(),
            Some("no orchestrator committed anything, or nobody told who led")
        );
    }
}
