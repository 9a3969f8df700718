//! The stored functions: those of sessions, `claim`, `commit`, `roster`, and those of the outbox. Each is pure: tables in, answer, undo and history out.
//!
//! The caller holds the locks of every row that [`rows_of`] names. The order inside `commit` is load-bearing: a stored
//! result is returned before the session, the gap and the fence are looked at, so that a new owner can answer for an old
//! one; and a refusal writes nothing.
//!
//! Amounts are clipped, never wrapped and never refused: a gain that would overflow is paid as far as it fits, a bounty is
//! at most what the purse holds, and what was really paid stands in the result. Negative amounts count as zero.

mod sessions;

use super::database::{Database, Slot, Undo};
use worldline_proto::{EntityId, Epoch, FactSequence, LeaseId};
use worldline_system::{
    Outcome, Refusal,
    doors::ledger::{
        Answer, Authority, Batch, Checkpoint, Committed, Durable, Effect, FactBody, FactRow, FactSnapshot, FactsPage,
        OpResult, Operation, Roster, RosterEntry, RuleRefusal, StoredResult, Submission, Verdict,
    },
    history::Acceptance,
    limits::{
        BATCH_CHECKPOINTS, BATCH_FLAGS, BATCH_OPERATIONS, CLAIM_ENTITIES, FACTS_PAGE, ROSTER_PAGE, SNAPSHOT_ENTITIES,
    },
    rules::attack::Blow,
    time::{Duration, Instant},
};

impl Database {
    /// Executes one submission alone at this moment of the ledger's clock, and returns its answer with what the sink accepted:
    /// what the stored functions of a real server are compared with.
    pub fn execute(&mut self, now: Instant, submission: &Submission) -> (Answer, Vec<Acceptance>) {
        let Executed { answer, acceptances, .. } = execute(self, now, submission);
        (answer, acceptances)
    }
}

/// What a call did.
pub(super) struct Executed {
    pub answer: Answer,
    pub undo: Vec<Undo>,
    /// What the sink accepted, to be told once it is durable.
    pub acceptances: Vec<Acceptance>,
}

/// Executes a submission. The caller holds its locks.
pub(super) fn execute(database: &mut Database, now: Instant, submission: &Submission) -> Executed {
    let mut call = Call { database, now, undo: vec![], acceptances: vec![], facts: vec![] };
    let answer = match submission {
        &Submission::Login { character, nonce, issued_unix_ms } => {
            Answer::LoggedIn(call.login(character, nonce, issued_unix_ms))
        }
        &Submission::Revoke { character, valid_from_unix_ms } => {
            Answer::Revoked(call.revoke(character, valid_from_unix_ms))
        }
        Submission::Standing { characters } => Answer::Standing(call.standing(characters)),
        Submission::Claim { lease, entities } => Answer::Claimed(call.claim(*lease, entities)),
        Submission::Commit(batch) => Answer::Committed(call.commit(batch)),
        &Submission::Roster { after, limit } => Answer::Roster(call.roster(after, limit)),
        &Submission::Facts { aggregate, after, limit } => Answer::Facts(call.facts_of(aggregate, after, limit)),
        &Submission::Unpublished { older_than, limit } => Answer::Unpublished(call.unpublished(older_than, limit)),
        Submission::Flag(facts) => Answer::Flagged(call.flag(facts)),
        Submission::Snapshot { entities } => Answer::Snapshot(call.snapshot(entities)),
    };
    Executed { answer, undo: call.undo, acceptances: call.acceptances }
}

/// The rows that a submission locks, in id order. The stored functions lock them all before they read any of them, so a
/// call is serializable against every other, and in one order, so that no two of them can deadlock.
pub(super) fn rows_of(database: &Database, submission: &Submission) -> Vec<Slot> {
    let mut rows: Vec<Slot> = match submission {
        Submission::Login { character, .. } | Submission::Revoke { character, .. } => {
            database.slot(character.entity()).into_iter().collect()
        }
        Submission::Claim { entities, .. } => entities.iter().filter_map(|&(id, _)| database.slot(id)).collect(),
        Submission::Commit(batch) => entities_of(batch).filter_map(|id| database.slot(id)).collect(),
        // A flag locks its fact alone, and whoever else sets it does the same.
        Submission::Flag(_) => vec![],
        Submission::Roster { .. }
        | Submission::Facts { .. }
        | Submission::Unpublished { .. }
        | Submission::Standing { .. }
        | Submission::Snapshot { .. } => vec![],
    };
    rows.sort_unstable();
    rows.dedup();
    rows
}

fn entities_of(batch: &Batch) -> impl Iterator<Item = EntityId> + '_ {
    let operations = batch.operations.iter().flat_map(|operation| {
        let written = operation.authority.iter().map(|authority| authority.entity);
        written.chain([operation.character.entity()])
    });
    operations.chain(batch.checkpoints.iter().map(|checkpoint| checkpoint.authority.entity))
}

struct Call<'a> {
    database: &'a mut Database,
    now: Instant,
    undo: Vec<Undo>,
    acceptances: Vec<Acceptance>,
    /// What it wrote to the outbox.
    facts: Vec<FactRow>,
}

impl Call<'_> {
    fn claim(&mut self, lease: LeaseId, entities: &[(EntityId, Epoch)]) -> Outcome<Vec<Result<Box<Durable>, Refusal>>> {
        if entities.len() > CLAIM_ENTITIES {
            return Outcome::Refused(Refusal::Malformed);
        }
        Outcome::Done(entities.iter().map(|&(entity, epoch)| self.raise(Authority { entity, epoch, lease })).collect())
    }

    /// Raises one fence row, or lets the claim that stands there pass again.
    fn raise(&mut self, authority: Authority) -> Result<Box<Durable>, Refusal> {
        let slot = self.database.slot(authority.entity).ok_or(Refusal::Malformed)?;
        let before = self.database.at(slot).columns.fence;
        let claim = (authority.epoch, authority.lease);
        if let Some(fence) = before
            && authority.epoch <= fence.0
            && claim != fence
        {
            return Err(Refusal::Fenced { highest: fence.0 });
        }
        self.database.write(slot, &mut self.undo, |columns| columns.fence = Some(claim));
        self.acceptances.push(Acceptance::FenceRaised { authority, before });
        Ok(Box::new(self.database.at(slot).durable()))
    }

    fn commit(&mut self, batch: &Batch) -> Outcome<Committed> {
        let Batch { operations, checkpoints, published } = batch;
        if operations.len() > BATCH_OPERATIONS || checkpoints.len() > BATCH_CHECKPOINTS || published.len() > BATCH_FLAGS
        {
            return Outcome::Refused(Refusal::Malformed);
        }
        let verdicts = operations.iter().map(|operation| self.operate(operation)).collect();
        let checkpoints = checkpoints.iter().map(|checkpoint| self.checkpoint(checkpoint)).collect();
        self.flag_each(published);
        Outcome::Done(Committed { verdicts, checkpoints, facts: std::mem::take(&mut self.facts) })
    }

    fn operate(&mut self, operation: &Operation) -> Verdict {
        match self.admit(operation) {
            Ok(slot) => self.apply(slot, operation),
            Err(verdict) => {
                self.acceptances.push(Acceptance::OperationPassed {
                    character: operation.character,
                    number: operation.number,
                    digest: operation.digest,
                    verdict,
                });
                verdict
            }
        }
    }

    /// Whether an operation may take effect. The order of these questions is the contract.
    fn admit(&self, operation: &Operation) -> Result<Slot, Verdict> {
        let entity = operation.character.entity();
        let Some(slot) = self.database.slot(entity) else {
            return Err(Verdict::Fenced { entity, highest: Epoch(0) });
        };
        let character = self.database.at(slot);
        let columns = &character.columns;
        if operation.number <= columns.applied_through {
            return Err(match character.result(operation.number) {
                Some(stored) if stored.digest == operation.digest => Verdict::Stored(stored.result),
                Some(_) => Verdict::Conflict,
                None => Verdict::Forgotten,
            });
        }
        if operation.generation != columns.generation {
            return Err(Verdict::StaleSession { current: columns.generation });
        }
        let expected = columns.applied_through.next();
        if operation.number != expected {
            return Err(Verdict::Gap { expected });
        }
        self.fence(operation)?;
        Ok(slot)
    }

    /// Every authority must equal its fence, and every entity that is written must have one.
    fn fence(&self, operation: &Operation) -> Result<(), Verdict> {
        for authority in &operation.authority {
            self.passes(authority).map_err(|highest| Verdict::Fenced { entity: authority.entity, highest })?;
        }
        let target = match operation.effect {
            Effect::Attack { target, .. } => Some(target),
            Effect::Refuse(_) => None,
        };
        for entity in [Some(operation.character.entity()), target].into_iter().flatten() {
            if !operation.authority.iter().any(|authority| authority.entity == entity) {
                return Err(Verdict::Fenced { entity, highest: self.highest(entity) });
            }
        }
        Ok(())
    }

    fn passes(&self, authority: &Authority) -> Result<(), Epoch> {
        let fence = self.database.entity(authority.entity).and_then(|entity| entity.columns.fence);
        if fence == Some((authority.epoch, authority.lease)) { Ok(()) } else { Err(self.highest(authority.entity)) }
    }

    fn highest(&self, entity: EntityId) -> Epoch {
        self.database.entity(entity).and_then(|entity| entity.columns.fence).map_or(Epoch(0), |(epoch, _)| epoch)
    }

    /// Takes effect and stores the result, in one transaction.
    fn apply(&mut self, slot: Slot, operation: &Operation) -> Verdict {
        let (result, target) = match operation.effect {
            Effect::Attack { target, blow } => self.attack(slot, target, blow),
            Effect::Refuse(refusal) => (OpResult::Refused(refusal), None),
        };
        let Operation { number, digest, .. } = *operation;
        self.database.write(slot, &mut self.undo, |columns| columns.applied_through = number);
        self.database.store(slot, &mut self.undo, StoredResult { number, digest, result });
        let verdict = Verdict::Applied(result);
        let fact = target.and_then(|target| self.tell(target, operation, result)).map(Box::new);
        let rows = [Some(slot), target].into_iter().flatten().map(|slot| self.database.at(slot).row()).collect();
        let operation = Box::new(operation.clone());
        self.acceptances.push(Acceptance::OperationApplied { operation, verdict, rows, fact });
        verdict
    }

    /// Writes the fact of a result to the outbox of who was hit.
    fn tell(&mut self, target: Slot, operation: &Operation, result: OpResult) -> Option<FactRow> {
        let OpResult::Hit { dealt, remaining, experience, bounty, .. } = result else { return None };
        let key = (operation.character, operation.number);
        let body = FactBody::Hit { dealt, remaining, experience, bounty };
        let fact = self.database.tell(target, &mut self.undo, self.now, key, body);
        self.facts.push(fact);
        Some(fact)
    }

    /// A blow: what it takes from the target and gives to the attacker. Returns the target's row if it was written.
    fn attack(&mut self, attacker: Slot, target: EntityId, blow: Blow) -> (OpResult, Option<Slot>) {
        let refused = |refusal| (OpResult::Refused(refusal), None);
        let Some(slot) = self.database.slot(target).filter(|&slot| slot != attacker) else {
            return refused(RuleRefusal::NoSuchTarget);
        };
        let (victim, winner) = (self.database.at(slot).columns, self.database.at(attacker).columns);
        if victim.hit_points == 0 {
            return refused(RuleRefusal::TargetDead);
        }
        let dealt = blow.damage.min(victim.hit_points);
        let remaining = victim.hit_points - dealt;
        let experience = blow.experience.clamp(0, i64::MAX - winner.experience);
        let bounty = blow.bounty.clamp(0, victim.balance.min(i64::MAX - winner.balance));
        self.database.write(slot, &mut self.undo, |columns| {
            columns.hit_points = remaining;
            columns.balance -= bounty;
        });
        self.database.write(attacker, &mut self.undo, |columns| {
            columns.experience += experience;
            columns.balance += bounty;
        });
        (OpResult::Hit { target, dealt, remaining, experience, bounty }, Some(slot))
    }

    /// Accepted at the fence with an increasing version. What is stored already, or newer, makes it a repetition: it passes
    /// the fence and writes nothing, so that a batch submitted again does not look fenced.
    fn checkpoint(&mut self, checkpoint: &Checkpoint) -> Result<(), Epoch> {
        let &Checkpoint { authority, version, state } = checkpoint;
        self.passes(&authority)?;
        let slot = self.database.slot(authority.entity).expect("a row without a fence lets nobody pass");
        let stored = self.database.at(slot).columns.checkpoint;
        if stored.is_some_and(|(epoch, newest, _)| epoch == authority.epoch && newest >= version) {
            return Ok(());
        }
        self.database.write(slot, &mut self.undo, |columns| {
            columns.checkpoint = Some((authority.epoch, version, state));
        });
        self.acceptances.push(Acceptance::Checkpointed { authority, version });
        Ok(())
    }

    fn roster(&self, after: Option<EntityId>, limit: u16) -> Outcome<Roster> {
        if limit == 0 || limit > ROSTER_PAGE {
            return Outcome::Refused(Refusal::Malformed);
        }
        let entities = self.database.entities();
        let start = after.map_or(0, |after| entities.partition_point(|entity| entity.id <= after));
        let end = entities.len().min(start + usize::from(limit));
        let entries = entities[start..end].iter().map(|entity| RosterEntry {
            entity: entity.id,
            position: entity.position(),
            pinned: entity.pinned,
        });
        Outcome::Done(Roster { entries: entries.collect(), more: end < entities.len() })
    }

    fn facts_of(&self, aggregate: EntityId, after: FactSequence, limit: u16) -> Outcome<FactsPage> {
        let Some(entity) = self.database.entity(aggregate).filter(|_| is_page(limit)) else {
            return Outcome::Refused(Refusal::Malformed);
        };
        let next = |sequence: &FactSequence| Some(sequence.next());
        let behind = (after < entity.columns.facts).then(|| after.next());
        let facts = std::iter::successors(behind, next).map_while(|sequence| entity.fact(sequence)).map(|(row, _)| row);
        Outcome::Done(page(facts, limit))
    }

    fn unpublished(&self, older_than: Duration, limit: u16) -> Outcome<FactsPage> {
        if !is_page(limit) {
            return Outcome::Refused(Refusal::Malformed);
        }
        let age = self.now.as_nanos().checked_sub(older_than.as_nanos()).map(Instant::from_nanos);
        Outcome::Done(page(age.into_iter().flat_map(|age| self.database.unpublished(age)), limit))
    }

    fn flag(&mut self, facts: &[(EntityId, FactSequence)]) -> Outcome<()> {
        if facts.len() > usize::from(FACTS_PAGE) {
            return Outcome::Refused(Refusal::Malformed);
        }
        self.flag_each(facts);
        Outcome::Done(())
    }

    fn flag_each(&mut self, facts: &[(EntityId, FactSequence)]) {
        for &(aggregate, sequence) in facts {
            if let Some(slot) = self.database.slot(aggregate) {
                self.database.flag(slot, &mut self.undo, sequence);
            }
        }
    }

    fn snapshot(&self, entities: &[EntityId]) -> Outcome<Vec<FactSnapshot>> {
        if entities.len() > SNAPSHOT_ENTITIES {
            return Outcome::Refused(Refusal::Malformed);
        }
        let mut slots: Vec<Slot> = entities.iter().filter_map(|&entity| self.database.slot(entity)).collect();
        slots.sort_unstable();
        slots.dedup();
        Outcome::Done(slots.into_iter().map(|slot| self.database.at(slot).snapshot()).collect())
    }
}

fn is_page(limit: u16) -> bool {
    (1..=FACTS_PAGE).contains(&limit)
}

/// As many as fit, and whether there are more.
fn page(mut facts: impl Iterator<Item = FactRow>, limit: u16) -> FactsPage {
    let taken = facts.by_ref().take(usize::from(limit)).collect();
    FactsPage { facts: taken, more: facts.next().is_some() }
}

#[cfg(test)]
#[path = "functions_tests.rs"]
mod tests;
