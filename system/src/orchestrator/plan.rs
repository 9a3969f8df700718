//! What a survey has found, and the takeovers it calls for. Pure.

use crate::{
    doors::{
        directory::{Compare, Key, Ownership, Record, RegionId, Transaction, Value, Worker, Write},
        entropy::Entropy,
        ledger::RosterEntry,
    },
    rules::space::Map,
};
use alloc::{collections::BTreeMap, vec, vec::Vec};
use worldline_proto::{EntityId, Epoch, LeaseId, Nonce, Revision};

/// All workers and all ownership records at one revision.
#[derive(Clone, Debug, Default)]
pub(super) struct Survey {
    pub at: Option<Revision>,
    workers: BTreeMap<LeaseId, Worker>,
    owners: BTreeMap<EntityId, (Ownership, Revision)>,
}

/// An entity that gets a new owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Assignment {
    pub entity: EntityId,
    /// The dead owner and the revision of its record; `None` where there is no record yet.
    pub from: Option<(LeaseId, Revision)>,
    /// The epoch that the record keeps. The new owner raises it.
    pub epoch: Epoch,
    pub to: LeaseId,
}

impl Assignment {
    /// From whom to whom: those of one pair share a transaction, whatever the revisions of their records.
    pub fn leases(&self) -> (Option<LeaseId>, LeaseId) {
        (self.from.map(|(lease, _)| lease), self.to)
    }
}

impl Survey {
    pub fn take_in(&mut self, records: &[Record]) {
        for record in records {
            match (record.key, record.value) {
                (Key::Worker(lease), Value::Worker(worker)) => {
                    self.workers.insert(lease, worker);
                }
                (Key::Owner(entity), Value::Owner(owner)) => {
                    self.owners.insert(entity, (owner, record.mod_revision));
                }
                _ => {}
            }
        }
    }

    /// Leases that records name and that are gone, with how many records name each.
    pub fn dead(&self) -> BTreeMap<LeaseId, u32> {
        let mut dead = BTreeMap::new();
        for (owner, _) in self.owners.values().filter(|(owner, _)| !self.workers.contains_key(&owner.lease)) {
            *dead.entry(owner.lease).or_default() += 1;
        }
        dead
    }

    /// Every entity of the roster without a living owner goes to the worker of its region that has the fewest; ordered by
    /// (old owner, new owner), so that equal ones share a transaction. Where a region has no worker its entities wait.
    pub fn assignments(&self, map: &Map, roster: &BTreeMap<EntityId, RosterEntry>) -> Vec<Assignment> {
        let mut load: BTreeMap<LeaseId, usize> = self.workers.keys().map(|&lease| (lease, 0)).collect();
        for (owner, _) in self.owners.values() {
            if let Some(load) = load.get_mut(&owner.lease) {
                *load += 1;
            }
        }
        let mut assignments = Vec::new();
        for entry in roster.values() {
            let record = self.owners.get(&entry.entity);
            if record.is_some_and(|(owner, _)| self.workers.contains_key(&owner.lease)) {
                continue;
            }
            let region = entry.pinned.unwrap_or_else(|| map.home(entry.position));
            let Some(to) = self.least_loaded(region, &load) else { continue };
            *load.entry(to).or_default() += 1;
            assignments.push(Assignment {
                entity: entry.entity,
                from: record.map(|(owner, revision)| (owner.lease, *revision)),
                epoch: record.map(|(owner, _)| owner.epoch).unwrap_or_default(),
                to,
            });
        }
        assignments.sort_by_key(|a| (a.leases(), a.entity));
        assignments
    }

    fn least_loaded(&self, region: RegionId, load: &BTreeMap<LeaseId, usize>) -> Option<LeaseId> {
        let mut fit = self.workers.iter().filter(|(_, worker)| worker.region == region).map(|(&lease, _)| lease);
        let first = fit.next()?;
        Some(fit.fold(first, |best, lease| if load.get(&lease) < load.get(&best) { lease } else { best }))
    }
}

/// The one transaction of a takeover: from one dead owner (or from none) to one living one.
pub(super) fn takeover(chunk: &[Assignment], leader: Revision, entropy: &mut Entropy) -> Transaction {
    let mut transaction = Transaction {
        compares: vec![Compare::Unchanged(Key::Leader, leader)],
        writes: Vec::with_capacity(chunk.len()),
        otherwise: vec![Key::Leader],
    };
    if let Some(first) = chunk.first() {
        transaction.compares.push(Compare::Present(Key::Worker(first.to)));
        if let Some((dead, _)) = first.from {
            transaction.compares.push(Compare::Absent(Key::Worker(dead)));
        }
    }
    for assignment in chunk {
        let key = Key::Owner(assignment.entity);
        transaction.compares.push(match assignment.from {
            Some((_, revision)) => Compare::Unchanged(key, revision),
            None => Compare::Absent(key),
        });
        let owner = Ownership { lease: assignment.to, epoch: assignment.epoch, nonce: Nonce(entropy.bits()) };
        transaction.writes.push(Write::Put { key, value: Value::Owner(owner), lease: None });
    }
    transaction
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{limits, rules::space::Position};
    use worldline_proto::{EntityKind, NodeId};

    fn lease(n: u64) -> LeaseId {
        LeaseId::from_bits(n)
    }

    fn worker(n: u64, region: u8) -> Record {
        let value = Value::Worker(Worker { node: NodeId(1), region: RegionId(region) });
        Record { key: Key::Worker(lease(n)), value, mod_revision: Revision(n), lease: Some(lease(n)) }
    }

    fn owned(entity: EntityId, by: u64) -> Record {
        let value = Value::Owner(Ownership { lease: lease(by), epoch: Epoch(4), nonce: Nonce(0) });
        Record { key: Key::Owner(entity), value, mod_revision: Revision(100), lease: None }
    }

    fn npc(n: u64) -> EntityId {
        EntityId::new(EntityKind::Npc, n).expect("in range")
    }

    fn roster(entities: &[EntityId], map: &Map, region: u8) -> BTreeMap<EntityId, RosterEntry> {
        let position = map.middle(RegionId(region));
        let entry = |&entity: &EntityId| (entity, RosterEntry { entity, position, pinned: None });
        entities.iter().map(entry).collect()
    }

    #[test]
    fn orphans_are_spread_over_the_workers_of_their_region_and_the_rest_is_left_alone() {
        let map = Map::new(2, BTreeMap::new());
        let entities: Vec<EntityId> = (0..10).map(npc).collect();
        let mut survey = Survey::default();
        survey.take_in(&[worker(1, 0), worker(2, 0), worker(3, 1)]);
        survey.take_in(&entities.iter().map(|&e| owned(e, if e.number() < 2 { 1 } else { 9 })).collect::<Vec<_>>());
        let assignments = survey.assignments(&map, &roster(&entities, &map, 0));
        let to = |n| assignments.iter().filter(|a| a.to == lease(n)).count();
        assert_eq!((to(1), to(2), to(3)), (3, 5, 0), "five each in the region, nobody in the other");
        assert!(assignments.iter().all(|a| a.from == Some((lease(9), Revision(100))) && a.epoch == Epoch(4)));
        assert_eq!(survey.dead(), BTreeMap::from([(lease(9), 8)]));
    }

    #[test]
    fn a_pinned_entity_goes_to_its_region_and_waits_where_that_has_no_worker() {
        let map = Map::new(2, BTreeMap::new());
        let position: Position = map.middle(RegionId(0));
        let entry = |entity, pinned| (entity, RosterEntry { entity, position, pinned: Some(RegionId(pinned)) });
        let roster = BTreeMap::from([entry(npc(1), 1), entry(npc(2), 0)]);
        let mut survey = Survey::default();
        survey.take_in(&[worker(3, 1)]);
        let assignments = survey.assignments(&map, &roster);
        assert_eq!(assignments, [Assignment { entity: npc(1), from: None, epoch: Epoch(0), to: lease(3) }]);
    }

    #[test]
    fn orphans_of_one_owner_share_a_transaction_whatever_the_revisions_of_their_records() {
        let map = Map::new(1, BTreeMap::new());
        let entities: Vec<EntityId> = (0..100).map(npc).collect();
        let mut survey = Survey::default();
        survey.take_in(&[worker(1, 0)]);
        let record = |&e: &EntityId| Record { mod_revision: Revision(100 + e.number() % 7), ..owned(e, 9) };
        survey.take_in(&entities.iter().map(record).collect::<Vec<_>>());
        let assignments = survey.assignments(&map, &roster(&entities, &map, 0));
        assert_eq!(assignments.chunk_by(|a, b| a.leases() == b.leases()).count(), 1);
    }

    #[test]
    fn the_largest_takeover_fits_a_transaction() {
        let assignment =
            |n| Assignment { entity: npc(n), from: Some((lease(9), Revision(5))), epoch: Epoch(1), to: lease(1) };
        let chunk: Vec<Assignment> = (0..limits::TAKEOVER_RECORDS as u64).map(assignment).collect();
        let transaction = takeover(&chunk, Revision(3), &mut Entropy::from_seed([0; 32]));
        assert_eq!(transaction.compares.len(), limits::DIRECTORY_OPERATIONS);
        assert!(transaction.compares.contains(&Compare::Absent(Key::Worker(lease(9)))));
        assert!(transaction.compares.contains(&Compare::Present(Key::Worker(lease(1)))));
        assert!(transaction.compares.contains(&Compare::Unchanged(Key::Leader, Revision(3))));
    }
}
