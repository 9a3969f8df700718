//! Claiming: from a record that names this worker to an entity that it serves.
//!
//! First the record's compare-and-set to a higher epoch, then the ledger's fence to the same, and only then service. Each
//! step is repeated as it was until its outcome is known; a group of claims is one transaction of each kind.

use super::{Phase, Resuming, Served, Submission, Timer, Worker, checkpoints::Claimed};
use crate::{
    Outcome, Refusal, Turn,
    backoff::Backoff,
    doors::{
        directory::{
            self, Answer, Change, Compare, Consistency, Family, Key, Ownership, Page, Record, Transacted, Transaction,
            Value, Write,
        },
        ledger::{self, Authority, Durable},
    },
    history::Note,
    limits, reached,
};
use alloc::{boxed::Box, collections::BTreeMap, sync::Arc, vec, vec::Vec};
use worldline_proto::{EntityId, Epoch, LeaseId, Nonce, OpId, Revision};

/// Groups of claims at once. The rest waits among the wanted.
const GROUPS: usize = 8;
/// Entities in a group: each takes a compare, and one more is the worker's own key.
const GROUP_ENTITIES: usize = limits::TAKEOVER_RECORDS;
/// Entities in all groups together.
pub(super) const ENTITIES_IN_CLAIM: usize = GROUPS * GROUP_ENTITIES;
/// How often a worker reads all records, whatever its watch has told it.
const SCAN_PERIOD: crate::time::Duration = crate::time::Duration::from_secs(5);

/// What is under way between the records and the fences.
#[derive(Clone, Debug, Default)]
pub(super) struct Claims {
    /// Entities whose record names this worker and that it neither holds nor claims yet: the record's epoch and revision.
    wanted: BTreeMap<EntityId, (Epoch, Revision)>,
    groups: BTreeMap<u64, Group>,
    groups_begun: u64,
    /// Directory and ledger operations of groups.
    steps: BTreeMap<OpId, u64>,
    scan: Option<Scan>,
    watch: Option<OpId>,
    /// Fences that a resumption passes again: those asked for, and those that it must ask for again.
    resuming: BTreeMap<OpId, Vec<Authority>>,
    unpassed: Vec<Authority>,
    /// Watches and scans that came to nothing, in a row.
    backoff: Backoff,
}

#[derive(Clone, Debug)]
struct Group {
    step: Step,
    entries: Vec<Claiming>,
    backoff: Backoff,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// The records' compare-and-set.
    Recording,
    /// The ledger's claim.
    Fencing,
}

#[derive(Clone, Copy, Debug)]
struct Claiming {
    entity: EntityId,
    /// The epoch that is claimed.
    epoch: Epoch,
    /// The record's revision: before the compare-and-set the expected one, after it its own.
    revision: Revision,
    nonce: Nonce,
}

#[derive(Clone, Debug)]
struct Scan {
    op: OpId,
    at: Option<Revision>,
    mine: BTreeMap<EntityId, (Ownership, Revision)>,
}

impl Claims {
    /// Forgets everything: the identity is dead.
    pub(super) fn reset(&mut self, turn: &mut Turn<'_, Submission>) {
        for &group in self.groups.keys() {
            turn.disarm(Timer::Group(group));
        }
        if let Some(watch) = self.watch {
            turn.directory(directory::Submission::Unwatch(watch), limits::DIRECTORY_PATIENCE);
        }
        *self = Self { groups_begun: self.groups_begun, ..Self::default() };
    }

    pub(super) fn queues(&self, report: &mut dyn FnMut(&'static str, usize, usize)) {
        report("worker.claim-groups", self.groups.len(), GROUPS);
    }

    fn is_claiming(&self, entity: EntityId) -> bool {
        self.groups.values().any(|group| group.entries.iter().any(|claiming| claiming.entity == entity))
    }
}

impl Worker {
    /// Puts the key that lives as long as the lease: from then on the orchestrator may assign entities to it.
    pub(super) fn register(&mut self, turn: &mut Turn<'_, Submission>) {
        if self.registration.is_some() || self.phase != Phase::Joining || !self.valid(turn.now()) {
            return;
        }
        let Some(holder) = &self.holder else { return };
        let lease = holder.lease();
        let key = Key::Worker(lease);
        let value = Value::Worker(directory::Worker { node: turn.node(), region: self.config.region });
        let transaction = Transaction {
            compares: vec![Compare::Absent(key)],
            writes: vec![Write::Put { key, value, lease: Some(lease) }],
            otherwise: vec![key],
        };
        self.registration =
            Some(turn.directory(directory::Submission::Transact(Arc::new(transaction)), limits::DIRECTORY_PATIENCE));
    }

    /// Takes the directory's answer to a registration, a scan, a watch or a group's compare-and-set.
    pub(super) fn on_claims_answer(&mut self, op: OpId, answer: Answer, turn: &mut Turn<'_, Submission>) {
        if self.registration == Some(op) {
            self.registration = None;
            return self.on_registered(&answer, turn);
        }
        match answer {
            Answer::Read(outcome) => self.on_page(op, outcome, turn),
            Answer::Transacted(outcome) => self.on_recorded(op, outcome, turn),
            Answer::Watching(Outcome::Done(())) if self.claims.watch == Some(op) => self.claims.backoff.reset(),
            Answer::Watching(Outcome::Refused(_)) => self.on_gap(op, turn),
            // It may stand: it is ended, so that the directory does not report to nobody.
            Answer::Watching(Outcome::Unknown) => {
                turn.directory(directory::Submission::Unwatch(op), limits::DIRECTORY_PATIENCE);
                self.on_gap(op, turn);
            }
            _ => {}
        }
    }

    fn on_registered(&mut self, answer: &Answer, turn: &mut Turn<'_, Submission>) {
        match answer {
            // The key is named by a lease that only this worker holds: if it stands already, this worker has put it.
            Answer::Transacted(Outcome::Done(_)) => {
                if self.phase == Phase::Joining && self.valid(turn.now()) {
                    self.activate(turn);
                    self.scan(turn);
                }
            }
            // `Unknown` may have happened and a refusal has not: either way the same transaction is right.
            _ => self.arm_later(Timer::Register, turn),
        }
    }

    /// Reads every ownership record, unless that is under way.
    pub(super) fn scan(&mut self, turn: &mut Turn<'_, Submission>) {
        if self.claims.scan.is_some() || matches!(self.phase, Phase::Joining | Phase::Suspended) {
            return;
        }
        let op = read_owners(None, None, turn);
        self.claims.scan = Some(Scan { op, at: None, mine: BTreeMap::new() });
    }

    fn on_page(&mut self, op: OpId, outcome: Outcome<Page>, turn: &mut Turn<'_, Submission>) {
        let Some(mut scan) = self.claims.scan.take_if(|scan| scan.op == op) else { return };
        let lease = self.lease();
        let Outcome::Done(page) = outcome else {
            // A read: refused and `Unknown` alike leave nothing behind.
            return self.arm_later(Timer::Scan, turn);
        };
        for record in &page.records {
            if let Some((entity, owner)) = ownership(record)
                && Some(owner.lease) == lease
            {
                scan.mine.insert(entity, (owner, record.mod_revision));
            }
        }
        let at = scan.at.unwrap_or(page.revision);
        if let Some(last) = page.records.last().filter(|_| page.more) {
            scan.op = read_owners(Some(last.key), Some(at), turn);
            scan.at = Some(at);
            self.claims.scan = Some(scan);
            return;
        }
        self.on_scanned(&scan.mine, at, turn);
    }

    fn on_scanned(
        &mut self,
        mine: &BTreeMap<EntityId, (Ownership, Revision)>,
        at: Revision,
        turn: &mut Turn<'_, Submission>,
    ) {
        let lost: Vec<EntityId> = self
            .entities
            .values()
            .filter(|served| served.revision <= at && !mine.contains_key(&served.authority.entity))
            .map(|served| served.authority.entity)
            .collect();
        for entity in lost {
            self.drop_entity(entity, turn);
        }
        for (&entity, &(owner, revision)) in mine {
            self.consider(entity, owner, revision, turn);
        }
        if self.claims.watch.is_none() {
            let submission = directory::Submission::Watch { family: Family::Owners, from: at.next() };
            self.claims.watch = Some(turn.directory(submission, limits::DIRECTORY_PATIENCE));
        }
        turn.arm_in(Timer::Scan, SCAN_PERIOD);
        if self.phase == Phase::Resuming(Resuming::Reading) {
            self.phase = Phase::Resuming(Resuming::Resolving);
            self.go_on_resuming(turn);
        }
        self.begin_groups(turn);
    }

    /// News of the ownership records.
    pub(super) fn on_changes(&mut self, watch: OpId, changes: &[Change], turn: &mut Turn<'_, Submission>) {
        if self.claims.watch != Some(watch) {
            return;
        }
        for change in changes {
            match change {
                Change::Put(record) => {
                    self.routes.refresh(record);
                    if let Some((entity, owner)) = ownership(record) {
                        self.consider(entity, owner, record.mod_revision, turn);
                    }
                }
                Change::Deleted(Key::Owner(entity)) => {
                    self.routes.forget(*entity);
                    self.claims.wanted.remove(entity);
                    self.drop_entity(*entity, turn);
                }
                Change::Deleted(_) => {}
            }
        }
        self.begin_groups(turn);
    }

    /// The watch has missed something, or does not stand: read again and watch anew.
    pub(super) fn on_gap(&mut self, watch: OpId, turn: &mut Turn<'_, Submission>) {
        if self.claims.watch == Some(watch) {
            self.claims.watch = None;
            self.routes.clear();
            self.arm_later(Timer::Scan, turn);
        }
    }

    /// Tries again after a while that grows with every failure in a row.
    fn arm_later(&mut self, timer: Timer, turn: &mut Turn<'_, Submission>) {
        let wait = self.claims.backoff.fail(self.config.knobs.retry, turn.entropy());
        turn.arm_in(timer, wait);
    }

    /// Compares a record with what is held.
    fn consider(&mut self, entity: EntityId, owner: Ownership, revision: Revision, turn: &mut Turn<'_, Submission>) {
        let mine = Some(owner.lease) == self.lease();
        if let Some(served) = self.entities.get_mut(&entity) {
            if revision <= served.revision {
                return;
            }
            if mine && owner.nonce == served.nonce {
                served.revision = revision;
                return;
            }
            // Somebody has written this record since: taken over, or assigned anew. Either way this holding is over.
            self.drop_entity(entity, turn);
        }
        if !mine {
            self.claims.wanted.remove(&entity);
        } else if !self.claims.is_claiming(entity) {
            self.claims.wanted.insert(entity, (owner.epoch, revision));
        }
    }

    /// Turns wanted entities into groups, as far as there is room.
    fn begin_groups(&mut self, turn: &mut Turn<'_, Submission>) {
        while self.phase == Phase::Active
            && self.acts(turn.now())
            && self.claims.groups.len() < GROUPS
            && !self.claims.wanted.is_empty()
        {
            let mut entries = Vec::new();
            while entries.len() < GROUP_ENTITIES {
                let Some((entity, (recorded, revision))) = self.claims.wanted.pop_first() else { break };
                let held = self.highest.get(&entity).copied().unwrap_or_default();
                let nonce = Nonce(turn.entropy().bits());
                entries.push(Claiming { entity, epoch: recorded.max(held).next(), revision, nonce });
            }
            self.begin_group(Step::Recording, entries, turn);
        }
    }

    fn begin_group(&mut self, step: Step, entries: Vec<Claiming>, turn: &mut Turn<'_, Submission>) {
        if entries.is_empty() {
            return;
        }
        self.claims.groups_begun += 1;
        let group = self.claims.groups_begun;
        self.claims.groups.insert(group, Group { step, entries, backoff: Backoff::default() });
        self.try_group(group, turn);
    }

    /// Submits a group's step, the first time or again.
    pub(super) fn try_group(&mut self, number: u64, turn: &mut Turn<'_, Submission>) {
        if self.phase != Phase::Active || !self.acts(turn.now()) {
            return;
        }
        let (Some(lease), Some(group)) = (self.lease(), self.claims.groups.get(&number)) else { return };
        let op = match group.step {
            Step::Recording => {
                let submission = directory::Submission::Transact(Arc::new(raise_records(lease, &group.entries)));
                turn.directory(submission, limits::DIRECTORY_PATIENCE)
            }
            Step::Fencing => {
                let entities: Vec<_> = group.entries.iter().map(|claiming| (claiming.entity, claiming.epoch)).collect();
                let asked: Vec<EntityId> = entities.iter().map(|(entity, _)| *entity).collect();
                let op = turn.ledger(ledger::Submission::Claim { lease, entities }, limits::LEDGER_PATIENCE);
                self.read_checkpoints(number, &asked, turn);
                op
            }
        };
        self.claims.steps.insert(op, number);
    }

    /// Takes up what a suspension has interrupted.
    pub(super) fn restart_claims(&mut self, turn: &mut Turn<'_, Submission>) {
        let idle: Vec<u64> = self.claims.groups.keys().copied().collect();
        for group in idle {
            if !self.claims.steps.values().any(|&of| of == group) {
                self.try_group(group, turn);
            }
        }
        self.begin_groups(turn);
    }

    fn try_group_later(&mut self, number: u64, turn: &mut Turn<'_, Submission>) {
        if let Some(group) = self.claims.groups.get_mut(&number) {
            let wait = group.backoff.fail(self.config.knobs.retry, turn.entropy());
            turn.arm_in(Timer::Group(number), wait);
        }
    }

    fn on_recorded(&mut self, op: OpId, outcome: Outcome<Transacted>, turn: &mut Turn<'_, Submission>) {
        let Some(number) = self.claims.steps.remove(&op) else { return };
        let transacted = match outcome {
            Outcome::Done(transacted) => transacted,
            // The same compare-and-set again: if the first one did happen, its nonces tell.
            Outcome::Unknown => {
                reached!(turn, "worker.record-write-unknown");
                return self.try_group_later(number, turn);
            }
            Outcome::Refused(_) => return self.try_group_later(number, turn),
        };
        let Some(group) = self.claims.groups.remove(&number) else { return };
        let lease = self.lease();
        let mut raised = Vec::new();
        for mut claiming in group.entries {
            if transacted.succeeded {
                claiming.revision = transacted.revision;
                raised.push(claiming);
                continue;
            }
            let stands = transacted.otherwise.iter().find(|record| record.key == Key::Owner(claiming.entity));
            let Some((record, (_, owner))) = stands.and_then(|record| Some((record, ownership(record)?))) else {
                continue;
            };
            if owner.nonce == claiming.nonce {
                claiming.revision = record.mod_revision;
                raised.push(claiming);
            } else if Some(owner.lease) == lease {
                self.claims.wanted.insert(claiming.entity, (owner.epoch, record.mod_revision));
            }
        }
        self.begin_group(Step::Fencing, raised, turn);
        self.begin_groups(turn);
    }

    /// Takes the ledger's answer to a claim, of a group or of a resumption.
    pub(super) fn on_claimed(
        &mut self,
        op: OpId,
        outcome: Outcome<Vec<Result<Box<Durable>, Refusal>>>,
        turn: &mut Turn<'_, Submission>,
    ) {
        if let Some(authorities) = self.claims.resuming.remove(&op) {
            return self.on_fence_passed_again(&authorities, outcome, turn);
        }
        let Some(number) = self.claims.steps.remove(&op) else { return };
        let Outcome::Done(claims) = outcome else {
            // Refused has not happened; `Unknown` may have, and then the same claim passes again for the same lease.
            return self.try_group_later(number, turn);
        };
        if let Some(claims) = self.cached.wait(number, claims) {
            self.take_in_claims(number, claims, turn);
        }
    }

    /// Serves what the ledger has let it claim, once the cache has answered too.
    pub(super) fn take_in_claims(&mut self, number: u64, claims: Claimed, turn: &mut Turn<'_, Submission>) {
        if self.phase != Phase::Active || !self.acts(turn.now()) {
            // Too late to serve under this validity: the group is kept and claims again once the worker is active.
            return;
        }
        let (Some(group), Some(lease)) = (self.claims.groups.remove(&number), self.lease()) else { return };
        let mut higher = Vec::new();
        for (mut claiming, claim) in group.entries.into_iter().zip(claims) {
            let authority = Authority { entity: claiming.entity, epoch: claiming.epoch, lease };
            match claim {
                Ok(mut durable) => {
                    self.cached.bring_up(number, claiming.epoch, &mut durable, turn);
                    self.serve(authority, claiming, &durable, turn);
                }
                Err(Refusal::Fenced { highest }) => {
                    reached!(turn, "worker.claim-refused-went-higher");
                    self.told(claiming.entity, highest);
                    claiming.epoch = highest.max(claiming.epoch).next();
                    claiming.nonce = Nonce(turn.entropy().bits());
                    higher.push(claiming);
                }
                // The ledger does not know the entity: there is nothing to serve.
                Err(_) => {}
            }
        }
        self.cached.forget(number);
        self.begin_group(Step::Recording, higher, turn);
        self.begin_groups(turn);
    }

    fn serve(&mut self, authority: Authority, claiming: Claiming, durable: &Durable, turn: &mut Turn<'_, Submission>) {
        let map = &self.config.map;
        let spawn = map.boss(authority.entity).map_or_else(|| map.middle(self.config.region), |boss| boss.position);
        let served = Served::new(authority, claiming.revision, claiming.nonce, durable, spawn, turn.now());
        self.told(authority.entity, authority.epoch);
        turn.note(Note::Serving { authority, position: served.position, applied_through: served.applied_through });
        self.entities.insert(authority.entity, served);
    }

    /// Remembers the highest epoch of an entity that was held or heard of.
    pub(super) fn told(&mut self, entity: EntityId, epoch: Epoch) {
        let highest = self.highest.entry(entity).or_default();
        *highest = (*highest).max(epoch);
    }

    /// Passes the fence again for everything held, at the same epochs: the last step of a resumption.
    pub(super) fn pass_fences_again(&mut self, turn: &mut Turn<'_, Submission>) {
        self.claims.resuming.clear();
        self.claims.unpassed = self.entities.values().map(|served| served.authority).collect();
        if self.claims.unpassed.is_empty() {
            return self.resumed(turn);
        }
        self.pass_fence(turn);
    }

    /// Asks for the fences that are not passed yet.
    pub(super) fn pass_fence(&mut self, turn: &mut Turn<'_, Submission>) {
        let (true, Some(lease)) = (self.valid(turn.now()), self.lease()) else { return };
        for chunk in core::mem::take(&mut self.claims.unpassed).chunks(limits::CLAIM_ENTITIES) {
            let entities = chunk.iter().map(|authority| (authority.entity, authority.epoch)).collect();
            let op = turn.ledger(ledger::Submission::Claim { lease, entities }, limits::LEDGER_PATIENCE);
            self.claims.resuming.insert(op, chunk.to_vec());
        }
    }

    fn on_fence_passed_again(
        &mut self,
        authorities: &[Authority],
        outcome: Outcome<Vec<Result<Box<Durable>, Refusal>>>,
        turn: &mut Turn<'_, Submission>,
    ) {
        let Outcome::Done(claims) = outcome else {
            // Refused has not happened; `Unknown` may have, and then the same claim passes again for the same lease.
            self.claims.unpassed.extend(authorities);
            return self.arm_later(Timer::Resume, turn);
        };
        self.claims.backoff.reset();
        for (authority, claim) in authorities.iter().zip(claims) {
            let still = self.entities.get(&authority.entity).is_some_and(|served| served.authority == *authority);
            match claim {
                Ok(durable) if still => {
                    if let Some(served) = self.entities.get_mut(&authority.entity) {
                        served.heard_of(durable.generation);
                        served.hit_points = durable.hit_points;
                    }
                }
                Err(Refusal::Fenced { highest }) => {
                    self.told(authority.entity, highest);
                    self.drop_entity(authority.entity, turn);
                }
                Ok(_) | Err(_) => {}
            }
        }
        if self.claims.resuming.is_empty()
            && self.claims.unpassed.is_empty()
            && self.phase == Phase::Resuming(Resuming::Fencing)
        {
            self.resumed(turn);
        }
    }

    /// Ends the holding of an entity. It is never served again at this epoch.
    pub(super) fn drop_entity(&mut self, entity: EntityId, turn: &mut Turn<'_, Submission>) {
        let Some(served) = self.entities.remove(&entity) else { return };
        self.told(entity, served.authority.epoch);
        turn.note(Note::Dropped { authority: served.authority });
        self.release(&served, turn);
        self.drop_queued_of(entity, turn);
    }
}

/// The entity and owner that a record of the owners' family holds.
fn ownership(record: &Record) -> Option<(EntityId, Ownership)> {
    match (record.key, record.value) {
        (Key::Owner(entity), Value::Owner(owner)) => Some((entity, owner)),
        _ => None,
    }
}

/// The compare-and-set of a group's records to their new epochs.
fn raise_records(lease: LeaseId, entries: &[Claiming]) -> Transaction {
    let own = Key::Worker(lease);
    let mut transaction =
        Transaction { compares: vec![Compare::Present(own)], writes: Vec::new(), otherwise: Vec::new() };
    for claiming in entries {
        let key = Key::Owner(claiming.entity);
        let value = Value::Owner(Ownership { lease, epoch: claiming.epoch, nonce: claiming.nonce });
        transaction.compares.push(Compare::Unchanged(key, claiming.revision));
        transaction.writes.push(Write::Put { key, value, lease: None });
        transaction.otherwise.push(key);
    }
    transaction
}

fn read_owners(after: Option<Key>, at: Option<Revision>, turn: &mut Turn<'_, Submission>) -> OpId {
    let submission = directory::Submission::Read {
        family: Family::Owners,
        after,
        limit: limits::DIRECTORY_PAGE,
        at,
        consistency: Consistency::Linearizable,
    };
    turn.directory(submission, limits::DIRECTORY_PATIENCE)
}
