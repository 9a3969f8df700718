//! The ledger as far as its callers may rely on it: rows with fences, numbered results, numbered facts. One call is one step.

use super::Ledger;
use crate::judge::{Ending, Model, Window};
use std::collections::{BTreeMap, BTreeSet};
use worldline_proto::{CharacterId, EntityId, Epoch, FactSequence, Generation, LeaseId, Nonce, OpNumber, Version};
use worldline_system::{
    Outcome, Refusal,
    doors::{
        directory::RegionId,
        ledger::{
            Answer, Authority, Batch, Checkpointed, Committed, Durable, Effect, FactBody, FactRow, FactSnapshot,
            FactsPage, Login, OpResult, Operation, Revoked, Roster, RosterEntry, RuleRefusal, Standing, StoredResult,
            Submission, Verdict,
        },
    },
    limits,
    rules::{attack::Blow, space::Position},
    time::Duration,
};

/// What is younger than this was written in this case, and what is asked to be older was not.
const LONG: Duration = Duration::from_secs(600);

/// An entity as the world is made with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Born {
    /// Which.
    pub entity: EntityId,
    /// Where.
    pub position: Position,
    /// The region that must own it.
    pub pinned: Option<RegionId>,
    /// Its hit points.
    pub hit_points: u32,
    /// Its purse.
    pub balance: i64,
}

/// One entity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    born: Born,
    /// The session that may act.
    pub generation: Generation,
    login: Option<Nonce>,
    /// Tokens that were issued before this are revoked, in milliseconds since 1970.
    tokens_valid_from_unix_ms: u64,
    /// Who may write.
    pub fence: Option<(Epoch, LeaseId)>,
    hit_points: u32,
    experience: i64,
    balance: i64,
    checkpoint: Option<(Epoch, Version, Checkpointed)>,
    /// Of operation 1 on. Those that are no longer kept are here all the same.
    results: Vec<StoredResult>,
    /// From fact 1 on, each with its flag.
    facts: Vec<(FactRow, bool)>,
}

/// The ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rows(BTreeMap<EntityId, Row>);

impl Row {
    /// The last number that has a result.
    #[must_use]
    pub fn applied_through(&self) -> OpNumber {
        OpNumber(self.results.len() as u64)
    }

    fn highest(&self) -> Epoch {
        self.fence.map_or(Epoch(0), |(epoch, _)| epoch)
    }

    fn kept(&self) -> &[StoredResult] {
        &self.results[self.results.len().saturating_sub(limits::RESULTS_KEPT)..]
    }

    fn durable(&self) -> Durable {
        Durable {
            entity: self.born.entity,
            generation: self.generation,
            applied_through: self.applied_through(),
            hit_points: self.hit_points,
            experience: self.experience,
            balance: self.balance,
            checkpoint: self.checkpoint,
            results: self.kept().to_vec(),
        }
    }
}

impl Rows {
    /// A world as it is made.
    #[must_use]
    pub fn new(born: &[Born]) -> Self {
        let row = |&born: &Born| Row {
            born,
            generation: Generation(0),
            login: None,
            tokens_valid_from_unix_ms: 0,
            fence: None,
            hit_points: born.hit_points,
            experience: 0,
            balance: born.balance,
            checkpoint: None,
            results: vec![],
            facts: vec![],
        };
        Self(born.iter().map(|born| (born.entity, row(born))).collect())
    }

    /// One entity.
    #[must_use]
    pub fn row(&self, entity: EntityId) -> Option<&Row> {
        self.0.get(&entity)
    }

    /// What all purses hold together: whatever happens, it stays.
    #[must_use]
    pub fn money(&self) -> i128 {
        self.0.values().map(|row| i128::from(row.balance)).sum()
    }

    fn of(&mut self, entity: EntityId) -> &mut Row {
        self.0.get_mut(&entity).expect("it was found before")
    }

    /// Executes a call. `None` for what is answered otherwise than by one value.
    fn execute(&mut self, submission: &Submission) -> Answer {
        let malformed = Refusal::Malformed;
        match submission {
            &Submission::Login { character, nonce, issued_unix_ms } => {
                Answer::LoggedIn(self.login(character, nonce, issued_unix_ms))
            }
            &Submission::Revoke { character, valid_from_unix_ms } => {
                Answer::Revoked(self.revoke(character, valid_from_unix_ms))
            }
            Submission::Standing { characters } if characters.len() > limits::STANDING_CHARACTERS => {
                Answer::Standing(Outcome::Refused(malformed))
            }
            Submission::Standing { characters } => {
                let asked: BTreeSet<CharacterId> = characters.iter().copied().collect();
                let stands = asked.into_iter().filter_map(|character| self.standing(character));
                Answer::Standing(Outcome::Done(stands.collect()))
            }
            Submission::Claim { entities, .. } if entities.len() > limits::CLAIM_ENTITIES => {
                Answer::Claimed(Outcome::Refused(malformed))
            }
            Submission::Claim { lease, entities } => {
                let each = entities.iter().map(|&(entity, epoch)| self.claim(entity, epoch, *lease));
                Answer::Claimed(Outcome::Done(each.collect()))
            }
            Submission::Commit(batch) => Answer::Committed(self.commit(batch)),
            &Submission::Roster { limit, .. } if !(1..=limits::ROSTER_PAGE).contains(&limit) => {
                Answer::Roster(Outcome::Refused(malformed))
            }
            &Submission::Roster { after, limit } => {
                let behind = self.0.values().filter(|row| after.is_none_or(|after| row.born.entity > after));
                let mut entries: Vec<RosterEntry> = behind
                    .map(|row| RosterEntry {
                        entity: row.born.entity,
                        position: row.checkpoint.map_or(row.born.position, |(_, _, state)| state.position),
                        pinned: row.born.pinned,
                    })
                    .collect();
                let more = entries.len() > usize::from(limit);
                entries.truncate(limit.into());
                Answer::Roster(Outcome::Done(Roster { entries, more }))
            }
            &Submission::Facts { aggregate, after, limit } => Answer::Facts(match self.0.get(&aggregate) {
                Some(row) if (1..=limits::FACTS_PAGE).contains(&limit) => {
                    let behind = row.facts.iter().filter(|(fact, _)| fact.sequence > after);
                    let mut facts: Vec<FactRow> = behind.map(|(fact, _)| *fact).collect();
                    let more = facts.len() > usize::from(limit);
                    facts.truncate(limit.into());
                    Outcome::Done(FactsPage { facts, more })
                }
                _ => Outcome::Refused(malformed),
            }),
            Submission::Flag(facts) if facts.len() > usize::from(limits::FACTS_PAGE) => {
                Answer::Flagged(Outcome::Refused(malformed))
            }
            Submission::Flag(facts) => {
                self.flag(facts);
                Answer::Flagged(Outcome::Done(()))
            }
            Submission::Snapshot { entities } if entities.len() > limits::SNAPSHOT_ENTITIES => {
                Answer::Snapshot(Outcome::Refused(malformed))
            }
            Submission::Snapshot { entities } => {
                let asked = self.0.values().filter(|row| entities.contains(&row.born.entity));
                let stands = asked.map(|row| FactSnapshot {
                    entity: row.born.entity,
                    hit_points: row.hit_points,
                    sequence: FactSequence(row.facts.len() as u64),
                });
                Answer::Snapshot(Outcome::Done(stands.collect()))
            }
            Submission::Unpublished { limit, .. } => {
                assert!(!(1..=limits::FACTS_PAGE).contains(limit), "it is looked at by itself");
                Answer::Unpublished(Outcome::Refused(malformed))
            }
        }
    }

    fn login(&mut self, character: CharacterId, nonce: Nonce, issued_unix_ms: u64) -> Outcome<Login> {
        let Some(row) = self.0.get_mut(&character.entity()) else { return Outcome::Refused(Refusal::Malformed) };
        // Also where the nonce is known: the session that it had begun has ended.
        if issued_unix_ms < row.tokens_valid_from_unix_ms {
            return Outcome::Refused(Refusal::TokenRevoked);
        }
        if row.login != Some(nonce) {
            (row.generation, row.login) = (row.generation.next(), Some(nonce));
        }
        Outcome::Done(Login { generation: row.generation, applied_through: row.applied_through() })
    }

    fn revoke(&mut self, character: CharacterId, valid_from_unix_ms: u64) -> Outcome<Revoked> {
        let Some(row) = self.0.get_mut(&character.entity()) else { return Outcome::Refused(Refusal::Malformed) };
        let news = row.tokens_valid_from_unix_ms < valid_from_unix_ms;
        if news {
            (row.tokens_valid_from_unix_ms, row.login) = (valid_from_unix_ms, None);
            row.generation = row.generation.next();
        }
        let standing = self.standing(character).expect("it was found");
        Outcome::Done(Revoked { standing, news })
    }

    fn standing(&self, character: CharacterId) -> Option<Standing> {
        let row = self.0.get(&character.entity())?;
        let (generation, tokens_valid_from_unix_ms) = (row.generation, row.tokens_valid_from_unix_ms);
        Some(Standing { character, generation, tokens_valid_from_unix_ms })
    }

    fn claim(&mut self, entity: EntityId, epoch: Epoch, lease: LeaseId) -> Result<Box<Durable>, Refusal> {
        let row = self.0.get_mut(&entity).ok_or(Refusal::Malformed)?;
        match row.fence {
            Some(fence) if epoch <= fence.0 && (epoch, lease) != fence => Err(Refusal::Fenced { highest: fence.0 }),
            _ => {
                row.fence = Some((epoch, lease));
                Ok(Box::new(row.durable()))
            }
        }
    }

    fn commit(&mut self, batch: &Batch) -> Outcome<Committed> {
        let Batch { operations, checkpoints, published } = batch;
        if operations.len() > limits::BATCH_OPERATIONS
            || checkpoints.len() > limits::BATCH_CHECKPOINTS
            || published.len() > limits::BATCH_FLAGS
        {
            return Outcome::Refused(Refusal::Malformed);
        }
        let mut facts = vec![];
        let verdicts = operations.iter().map(|operation| self.operate(operation, &mut facts)).collect();
        let checkpoints = checkpoints
            .iter()
            .map(|checkpoint| {
                self.passes(&checkpoint.authority)?;
                let row = self.of(checkpoint.authority.entity);
                let stamp = (checkpoint.authority.epoch, checkpoint.version);
                let newer = row.checkpoint.is_none_or(|(epoch, version, _)| epoch != stamp.0 || version < stamp.1);
                if newer {
                    row.checkpoint = Some((stamp.0, stamp.1, checkpoint.state));
                }
                Ok(())
            })
            .collect();
        self.flag(published);
        Outcome::Done(Committed { verdicts, checkpoints, facts })
    }

    fn operate(&mut self, operation: &Operation, facts: &mut Vec<FactRow>) -> Verdict {
        let &Operation { character, generation, number, digest, .. } = operation;
        let entity = character.entity();
        let Some(row) = self.0.get(&entity) else { return Verdict::Fenced { entity, highest: Epoch(0) } };
        let through = row.applied_through();
        if number <= through {
            return match row.kept().iter().find(|stored| stored.number == number) {
                Some(stored) if stored.digest == digest => Verdict::Stored(stored.result),
                Some(_) => Verdict::Conflict,
                None => Verdict::Forgotten,
            };
        }
        if generation != row.generation {
            return Verdict::StaleSession { current: row.generation };
        }
        if number != through.next() {
            return Verdict::Gap { expected: through.next() };
        }
        for authority in &operation.authority {
            if let Err(highest) = self.passes(authority) {
                return Verdict::Fenced { entity: authority.entity, highest };
            }
        }
        let target = match operation.effect {
            Effect::Attack { target, .. } => Some(target),
            Effect::Refuse(_) => None,
        };
        for written in [Some(entity), target].into_iter().flatten() {
            if operation.authority.iter().all(|authority| authority.entity != written) {
                let highest = self.0.get(&written).map_or(Epoch(0), Row::highest);
                return Verdict::Fenced { entity: written, highest };
            }
        }
        let result = match operation.effect {
            Effect::Attack { target, blow } => self.strike(operation, target, blow, facts),
            Effect::Refuse(refusal) => OpResult::Refused(refusal),
        };
        self.of(entity).results.push(StoredResult { number, digest, result });
        Verdict::Applied(result)
    }

    fn strike(&mut self, operation: &Operation, target: EntityId, blow: Blow, facts: &mut Vec<FactRow>) -> OpResult {
        let attacker = operation.character.entity();
        let Some(victim) = self.0.get(&target).filter(|_| target != attacker) else {
            return OpResult::Refused(RuleRefusal::NoSuchTarget);
        };
        if victim.hit_points == 0 {
            return OpResult::Refused(RuleRefusal::TargetDead);
        }
        let purse = victim.balance;
        let winner = self.of(attacker);
        // What would not fit is not paid.
        let experience = blow.experience.max(0).min(i64::MAX - winner.experience);
        let bounty = blow.bounty.max(0).min(purse).min(i64::MAX - winner.balance);
        winner.experience += experience;
        winner.balance += bounty;
        let victim = self.of(target);
        let dealt = blow.damage.min(victim.hit_points);
        victim.hit_points -= dealt;
        victim.balance -= bounty;
        let remaining = victim.hit_points;
        let fact = FactRow {
            aggregate: target,
            sequence: FactSequence(victim.facts.len() as u64 + 1),
            character: operation.character,
            number: operation.number,
            body: FactBody::Hit { dealt, remaining, experience, bounty },
        };
        victim.facts.push((fact, false));
        facts.push(fact);
        OpResult::Hit { target, dealt, remaining, experience, bounty }
    }

    fn passes(&self, authority: &Authority) -> Result<(), Epoch> {
        let row = self.0.get(&authority.entity);
        let stands = row.and_then(|row| row.fence) == Some((authority.epoch, authority.lease));
        if stands { Ok(()) } else { Err(row.map_or(Epoch(0), Row::highest)) }
    }

    fn flag(&mut self, facts: &[(EntityId, FactSequence)]) {
        for &(aggregate, sequence) in facts {
            let place = usize::try_from(sequence.0).ok().and_then(|sequence| sequence.checked_sub(1));
            let row = self.0.get_mut(&aggregate);
            if let Some((_, flag)) = row.zip(place).and_then(|(row, place)| row.facts.get_mut(place)) {
                *flag = true;
            }
        }
    }

    /// Whether this is a page of what is not flagged: of each aggregate the first ones, in their order.
    fn are_unpublished(&self, older_than: Duration, limit: usize, page: &FactsPage) -> bool {
        let open = |row: &Row| row.facts.iter().filter(|(_, flag)| !flag).map(|(fact, _)| *fact).collect::<Vec<_>>();
        let total: usize = if older_than >= LONG { 0 } else { self.0.values().map(|row| open(row).len()).sum() };
        let first = self.0.values().all(|row| {
            let told: Vec<FactRow> =
                page.facts.iter().filter(|fact| fact.aggregate == row.born.entity).copied().collect();
            open(row).starts_with(&told)
        });
        first && page.facts.len() == total.min(limit) && page.more == (total > limit)
    }
}

impl Model<Ledger> for Rows {
    const IN_ORDER: bool = false;

    fn ending(answer: &Answer) -> Ending {
        const ABSENT: &[Refusal] = &[
            Refusal::Unreachable,
            Refusal::Busy,
            Refusal::NotServing,
            Refusal::PoolExhausted,
            Refusal::ReadOnly,
            Refusal::DiskFull,
            Refusal::SerializationFailure,
            Refusal::Deadlock,
        ];
        match answer {
            Answer::LoggedIn(outcome) => Ending::of(outcome, ABSENT),
            Answer::Revoked(outcome) => Ending::of(outcome, ABSENT),
            Answer::Standing(outcome) => Ending::of(outcome, ABSENT),
            Answer::Claimed(outcome) => Ending::of(outcome, ABSENT),
            Answer::Committed(outcome) => Ending::of(outcome, ABSENT),
            Answer::Roster(outcome) => Ending::of(outcome, ABSENT),
            Answer::Facts(outcome) | Answer::Unpublished(outcome) => Ending::of(outcome, ABSENT),
            Answer::Flagged(outcome) => Ending::of(outcome, ABSENT),
            Answer::Snapshot(outcome) => Ending::of(outcome, ABSENT),
        }
    }

    fn is_write(submission: &Submission) -> bool {
        !submission.is_read()
    }

    fn after(&self, submission: &Submission, _: Window, answer: Option<&Answer>) -> Vec<Self> {
        if let &Submission::Unpublished { older_than, limit } = submission
            && (1..=limits::FACTS_PAGE).contains(&limit)
        {
            let fits = match answer {
                None => true,
                Some(Answer::Unpublished(Outcome::Done(page))) => self.are_unpublished(older_than, limit.into(), page),
                Some(_) => false,
            };
            return if fits { vec![self.clone()] } else { vec![] };
        }
        let mut next = self.clone();
        let expected = next.execute(submission);
        assert_eq!(next.money(), self.money(), "the model mints nothing");
        if answer.is_none_or(|answer| *answer == expected) { vec![next] } else { vec![] }
    }
}
