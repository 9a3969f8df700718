//! What a survey has found, and the takeovers it calls for. Pure.

use crate::{
    doors::{
        directory::{Compare, Down, Key, Ownership, Record, RegionId, Transaction, Value, Worker, Write},
        entropy::Entropy,
        ledger::RosterEntry,
    },
    limits,
    rules::space::Map,
    time::Duration,
};
use alloc::{
    collections::{BTreeMap, BTreeSet},
    vec,
    vec::Vec,
};
use worldline_proto::{EntityId, Epoch, LeaseId, Nonce, Revision};

/// All regions that are down, all workers and all ownership records at one revision.
#[derive(Clone, Debug, Default)]
pub(super) struct Survey {
    pub at: Option<Revision>,
    down: BTreeMap<RegionId, (Down, Revision)>,
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
    /// The decision that its region is down, if that is why it goes to another region.
    pub by: Option<(RegionId, Revision)>,
}

impl Assignment {
    /// From whom to whom, and by which decision: those that are alike in this share a transaction, whatever the revisions of
    /// their records.
    pub fn kind(&self) -> (Option<LeaseId>, LeaseId, Option<(RegionId, Revision)>) {
        (self.from.map(|(lease, _)| lease), self.to, self.by)
    }
}

/// What to decide about a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// It has no worker: this one serves its entities from now on. With the revision of an earlier decision, which named a region
    /// that has no worker either.
    StandIn(RegionId, Option<Revision>),
    /// It has workers again; the decision of this revision ends.
    Back(Revision),
}

impl Survey {
    pub fn take_in(&mut self, records: &[Record]) {
        for record in records {
            match (record.key, record.value) {
                (Key::Region(region), Value::Down(down)) => {
                    self.down.insert(region, (down, record.mod_revision));
                }
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

    /// Keeps where the workers are that live, and where those were that records still name.
    pub fn remember_regions(&self, regions: &mut BTreeMap<LeaseId, RegionId>) {
        let named: BTreeSet<LeaseId> = self.owners.values().map(|(owner, _)| owner.lease).collect();
        regions.retain(|lease, _| named.contains(lease));
        regions.extend(self.workers.iter().map(|(&lease, worker)| (lease, worker.region)));
    }

    fn has_worker(&self, region: RegionId) -> bool {
        self.workers.values().any(|worker| worker.region == region)
    }

    /// The regions that have no worker while entities without a living owner are at home there, and how long that may be so. Where
    /// no record names a dead owner nobody was ever there: the region may only be starting.
    pub fn lost_regions(&self, map: &Map, roster: &BTreeMap<EntityId, RosterEntry>) -> BTreeMap<RegionId, Duration> {
        let mut lost = BTreeMap::new();
        for entry in roster.values() {
            let record = self.owners.get(&entry.entity);
            let region = home(map, entry);
            if record.is_some_and(|(owner, _)| self.workers.contains_key(&owner.lease)) || self.has_worker(region) {
                continue;
            }
            let grace = if record.is_some() { limits::REGION_GRACE } else { limits::REGION_START };
            lost.entry(region).and_modify(|known: &mut Duration| *known = grace.min(*known)).or_insert(grace);
        }
        lost
    }

    /// What to decide about a region, which `lost` says has had no worker for long enough. `None`: things are as they should be.
    pub fn decision(&self, region: RegionId, lost: bool, map: &Map) -> Option<Decision> {
        match self.down.get(&region) {
            Some((_, revision)) if self.has_worker(region) => Some(Decision::Back(*revision)),
            Some((down, revision)) if !self.has_worker(down.stand_in) => {
                self.nearest(region, map).map(|stand_in| Decision::StandIn(stand_in, Some(*revision)))
            }
            None if lost => self.nearest(region, map).map(|stand_in| Decision::StandIn(stand_in, None)),
            _ => None,
        }
    }

    /// The region with workers whose band of the world is the nearest.
    fn nearest(&self, region: RegionId, map: &Map) -> Option<RegionId> {
        let all = (0..map.regions()).map(RegionId);
        all.filter(|&other| self.has_worker(other)).min_by_key(|other| other.0.abs_diff(region.0))
    }

    /// Every entity of the roster without a living owner goes to the worker of its region that has the fewest; ordered by
    /// (old owner, new owner), so that equal ones share a transaction. Where a region has no worker its entities wait until
    /// the region is decided to be down, and then go to the region that stands in for it.
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
            let region = home(map, entry);
            let (to, by) = match (self.least_loaded(region, &load), self.down.get(&region)) {
                (Some(to), _) => (Some(to), None),
                (None, Some((down, revision))) => (self.least_loaded(down.stand_in, &load), Some((region, *revision))),
                (None, None) => (None, None),
            };
            let Some(to) = to else { continue };
            *load.entry(to).or_default() += 1;
            assignments.push(Assignment {
                entity: entry.entity,
                from: record.map(|(owner, revision)| (owner.lease, *revision)),
                epoch: record.map(|(owner, _)| owner.epoch).unwrap_or_default(),
                to,
                by,
            });
        }
        assignments.sort_by_key(|a| (a.kind(), a.entity));
        assignments
    }

    fn least_loaded(&self, region: RegionId, load: &BTreeMap<LeaseId, usize>) -> Option<LeaseId> {
        let mut fit = self.workers.iter().filter(|(_, worker)| worker.region == region).map(|(&lease, _)| lease);
        let first = fit.next()?;
        Some(fit.fold(first, |best, lease| if load.get(&lease) < load.get(&best) { lease } else { best }))
    }
}

/// The region that owns an entity, unless it is down.
fn home(map: &Map, entry: &RosterEntry) -> RegionId {
    entry.pinned.unwrap_or_else(|| map.home(entry.position))
}

/// The one transaction of a decision about a region.
pub(super) fn decide(region: RegionId, decision: Decision, leader: Revision) -> Transaction {
    let key = Key::Region(region);
    let leads = Compare::Unchanged(Key::Leader, leader);
    let (compares, writes) = match decision {
        Decision::StandIn(stand_in, before) => (
            vec![leads, before.map_or(Compare::Absent(key), |revision| Compare::Unchanged(key, revision))],
            vec![Write::Put { key, value: Value::Down(Down { stand_in }), lease: None }],
        ),
        Decision::Back(revision) => (vec![leads, Compare::Unchanged(key, revision)], vec![Write::Delete(key)]),
    };
    Transaction { compares, writes, otherwise: vec![Key::Leader] }
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
        if let Some((region, revision)) = first.by {
            transaction.compares.push(Compare::Unchanged(Key::Region(region), revision));
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
    use crate::rules::space::Position;
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
        assert_eq!(assignments, [Assignment { entity: npc(1), from: None, epoch: Epoch(0), to: lease(3), by: None }]);
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
        assert_eq!(assignments.chunk_by(|a, b| a.kind() == b.kind()).count(), 1);
    }

    #[test]
    fn the_largest_takeover_fits_a_transaction() {
        let (from, by) = (Some((lease(9), Revision(5))), Some((RegionId(2), Revision(7))));
        let assignment = |n| Assignment { entity: npc(n), from, epoch: Epoch(1), to: lease(1), by };
        let chunk: Vec<Assignment> = (0..limits::TAKEOVER_RECORDS as u64).map(assignment).collect();
        let transaction = takeover(&chunk, Revision(3), &mut Entropy::from_seed([0; 32]));
        assert_eq!(transaction.compares.len(), limits::DIRECTORY_OPERATIONS);
        assert!(transaction.compares.contains(&Compare::Absent(Key::Worker(lease(9)))));
        assert!(transaction.compares.contains(&Compare::Present(Key::Worker(lease(1)))));
        assert!(transaction.compares.contains(&Compare::Unchanged(Key::Leader, Revision(3))));
        assert!(transaction.compares.contains(&Compare::Unchanged(Key::Region(RegionId(2)), Revision(7))));
    }

    #[test]
    fn a_region_that_nobody_has_ever_served_may_take_longer_to_start() {
        let map = Map::new(2, BTreeMap::new());
        let entities: Vec<EntityId> = (0..3).map(npc).collect();
        let roster = roster(&entities, &map, 1);
        let mut survey = Survey::default();
        survey.take_in(&[worker(1, 0)]);
        assert_eq!(survey.lost_regions(&map, &roster), BTreeMap::from([(RegionId(1), limits::REGION_START)]));
        survey.take_in(&[owned(npc(1), 9)]);
        assert_eq!(survey.lost_regions(&map, &roster), BTreeMap::from([(RegionId(1), limits::REGION_GRACE)]));
        survey.take_in(&[worker(2, 1)]);
        assert_eq!(survey.lost_regions(&map, &roster), BTreeMap::new());
    }

    #[test]
    fn entities_of_a_region_without_workers_go_to_its_stand_in_once_that_is_decided() {
        let map = Map::new(4, BTreeMap::new());
        let entities: Vec<EntityId> = (0..3).map(npc).collect();
        let roster = roster(&entities, &map, 3);
        let mut survey = Survey::default();
        survey.take_in(&[worker(1, 0), worker(2, 1)]);
        survey.take_in(&entities.iter().map(|&e| owned(e, 9)).collect::<Vec<_>>());
        assert_eq!(
            survey.lost_regions(&map, &roster),
            BTreeMap::from([(RegionId(3), limits::REGION_GRACE)]),
            "nothing of region 2 is orphaned"
        );
        assert_eq!(survey.assignments(&map, &roster), [], "not before it is decided");
        let decision = survey.decision(RegionId(3), true, &map);
        assert_eq!(decision, Some(Decision::StandIn(RegionId(1), None)), "the nearest that has a worker");
        assert_eq!(survey.decision(RegionId(3), false, &map), None, "its workers may be about to return");

        let down = |stand_in| Record {
            key: Key::Region(RegionId(3)),
            value: Value::Down(Down { stand_in: RegionId(stand_in) }),
            mod_revision: Revision(50),
            lease: None,
        };
        survey.take_in(&[down(1)]);
        let assignments = survey.assignments(&map, &roster);
        assert!(assignments.iter().all(|a| a.to == lease(2) && a.by == Some((RegionId(3), Revision(50)))));
        assert_eq!((assignments.len(), survey.decision(RegionId(3), true, &map)), (3, None));

        survey.take_in(&[down(2)]);
        let again = Decision::StandIn(RegionId(1), Some(Revision(50)));
        assert_eq!(survey.decision(RegionId(3), false, &map), Some(again), "the stand-in has gone too");
        survey.take_in(&[worker(4, 3)]);
        assert_eq!(survey.decision(RegionId(3), false, &map), Some(Decision::Back(Revision(50))));
        let to_own = survey.assignments(&map, &roster);
        assert!(to_own.iter().all(|a| a.to == lease(4) && a.by.is_none()), "home again");
    }
}
