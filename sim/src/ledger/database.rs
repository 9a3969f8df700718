//! The ledger's tables as a pure value: one row an entity, the results of its operations, its facts, and what undoes a
//! transaction.
//!
//! The stored functions of [`super::functions`] write through here. Every write leaves an [`Undo`], because a transaction
//! that is visible on the primary is lost when a standby without it takes over.
//!
//! Deliberately absent: locks, time, replication. Money is moved and never made: [`Database::minted`] is fixed by the seed.

use crate::ledger::Seed;
use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
};
use worldline_proto::{CharacterId, EntityId, Epoch, FactSequence, Generation, LeaseId, Nonce, OpNumber, Version};
use worldline_system::{
    doors::{
        directory::RegionId,
        ledger::{Checkpointed, Durable, FactBody, FactRow, FactSnapshot, StoredResult},
    },
    history::Row,
    limits::RESULTS_KEPT,
    rules::space::Position,
    time::Instant,
};

/// The place of an entity's row in the table. Rows are in id order and none is ever added or removed.
pub(super) type Slot = u32;

/// The columns that a transaction may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Columns {
    /// The session generation.
    pub generation: Generation,
    /// The nonce of the last login.
    pub login: Option<Nonce>,
    /// Tokens that were issued before this are revoked, in milliseconds since 1970.
    pub tokens_valid_from_unix_ms: u64,
    /// The fence row: who may write, since which epoch.
    pub fence: Option<(Epoch, LeaseId)>,
    /// The last operation that has a result.
    pub applied_through: OpNumber,
    /// Hit points left; zero is dead.
    pub hit_points: u32,
    /// Experience.
    pub experience: i64,
    /// Balance, in minor units. Never negative.
    pub balance: i64,
    /// The last checkpoint that was accepted.
    pub checkpoint: Option<(Epoch, Version, Checkpointed)>,
    /// The last fact.
    pub facts: FactSequence,
}

/// A row of the outbox. Aggregate and sequence follow from its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Fact {
    character: CharacterId,
    number: OpNumber,
    body: FactBody,
    written: Instant,
    published: bool,
}

/// One entity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entity {
    /// Which.
    pub id: EntityId,
    /// Where it stood when the world was made.
    pub born: Position,
    /// The region that must own it, wherever it stands.
    pub pinned: Option<RegionId>,
    /// What transactions change.
    pub columns: Columns,
    /// The latest results, oldest first. Shared between forks of a world until one of them writes.
    results: Arc<VecDeque<StoredResult>>,
    /// Its facts, from number 1 on. Shared likewise.
    facts: Arc<Vec<Fact>>,
}

impl Entity {
    /// A fact of its outbox, and whether it is flagged as published.
    #[must_use]
    pub fn fact(&self, sequence: FactSequence) -> Option<(FactRow, bool)> {
        let fact = self.facts.get(place(sequence)?)?;
        let &Fact { character, number, body, published, .. } = fact;
        Some((FactRow { aggregate: self.id, sequence, character, number, body }, published))
    }

    /// How it stands, with the last of its facts.
    pub(super) fn snapshot(&self) -> FactSnapshot {
        let Columns { hit_points, facts: sequence, .. } = self.columns;
        FactSnapshot { entity: self.id, hit_points, sequence }
    }

    /// Where it was last known to stand.
    #[must_use]
    pub fn position(&self) -> Position {
        self.columns.checkpoint.map_or(self.born, |(_, _, state)| state.position)
    }

    /// The row as the history shows it.
    #[must_use]
    pub fn row(&self) -> Row {
        let Columns { fence, hit_points, experience, balance, .. } = self.columns;
        Row { entity: self.id, fence, hit_points, experience, balance }
    }

    /// The result of an operation, while it is kept.
    #[must_use]
    pub fn result(&self, number: OpNumber) -> Option<&StoredResult> {
        // Numbers are without gaps, so the place in the window follows from the distance to its end.
        let behind = usize::try_from(self.columns.applied_through.0.checked_sub(number.0)?).ok()?;
        let place = self.results.len().checked_sub(behind + 1)?;
        self.results.get(place).filter(|stored| stored.number == number)
    }

    pub(super) fn durable(&self) -> Durable {
        let Columns { generation, applied_through, hit_points, experience, balance, checkpoint, .. } = self.columns;
        let results = self.results.iter().copied().collect();
        Durable { entity: self.id, generation, applied_through, hit_points, experience, balance, checkpoint, results }
    }
}

/// Takes one write back.
#[derive(Clone, Debug)]
pub(super) enum Undo {
    /// The columns as they stood.
    Columns(Slot, Columns),
    /// A result was stored, and pushed this one out of the window.
    Result(Slot, Option<StoredResult>),
    /// A fact was written.
    Fact(Slot),
    /// A fact was flagged.
    Flag(Slot, FactSequence),
}

impl Undo {
    pub fn slot(&self) -> Slot {
        match *self {
            Self::Columns(slot, _) | Self::Result(slot, _) | Self::Fact(slot) | Self::Flag(slot, _) => slot,
        }
    }
}

/// The tables.
#[derive(Clone, Debug)]
pub struct Database {
    entities: Vec<Entity>,
    /// Facts that are not flagged, the oldest first.
    unpublished: BTreeSet<(Instant, Slot, FactSequence)>,
    minted: i128,
}

impl Database {
    /// The tables of a new world. Panics on two seeds for one entity, a negative balance, or experience below zero: the
    /// scenario has let a bad world pass.
    #[must_use]
    pub fn new(seeds: &[Seed]) -> Self {
        let mut entities: Vec<_> = seeds.iter().map(born).collect();
        entities.sort_unstable_by_key(|entity| entity.id);
        assert!(entities.windows(2).all(|pair| pair[0].id < pair[1].id), "one seed an entity");
        let minted = seeds.iter().map(|seed| i128::from(seed.balance)).sum();
        Self { entities, unpublished: BTreeSet::new(), minted }
    }

    /// What was minted when the world was made; nothing is minted or burned after that.
    #[must_use]
    pub fn minted(&self) -> i128 {
        self.minted
    }

    /// All entities, in id order.
    #[must_use]
    pub fn entities(&self) -> &[Entity] {
        &self.entities
    }

    /// One entity.
    #[must_use]
    pub fn entity(&self, id: EntityId) -> Option<&Entity> {
        self.slot(id).map(|slot| self.at(slot))
    }

    pub(super) fn slot(&self, id: EntityId) -> Option<Slot> {
        let place = self.entities.binary_search_by_key(&id, |entity| entity.id).ok()?;
        Some(Slot::try_from(place).expect("a world has fewer than 2^32 entities"))
    }

    pub(super) fn at(&self, slot: Slot) -> &Entity {
        &self.entities[slot as usize]
    }

    /// Changes the columns of a row.
    pub(super) fn write(&mut self, slot: Slot, undo: &mut Vec<Undo>, change: impl FnOnce(&mut Columns)) {
        let columns = &mut self.entities[slot as usize].columns;
        let before = *columns;
        change(columns);
        if *columns != before {
            undo.push(Undo::Columns(slot, before));
        }
    }

    /// Stores the result of an operation; the oldest one falls out of a full window.
    pub(super) fn store(&mut self, slot: Slot, undo: &mut Vec<Undo>, result: StoredResult) {
        let results = Arc::make_mut(&mut self.entities[slot as usize].results);
        let dropped = if results.len() >= RESULTS_KEPT { results.pop_front() } else { None };
        results.push_back(result);
        undo.push(Undo::Result(slot, dropped));
    }

    /// Writes the next fact of an aggregate to the outbox.
    pub(super) fn tell(
        &mut self,
        slot: Slot,
        undo: &mut Vec<Undo>,
        now: Instant,
        (character, number): (CharacterId, OpNumber),
        body: FactBody,
    ) -> FactRow {
        let sequence = self.at(slot).columns.facts.next();
        self.write(slot, undo, |columns| columns.facts = sequence);
        let entity = &mut self.entities[slot as usize];
        let fact = Fact { character, number, body, written: now, published: false };
        Arc::make_mut(&mut entity.facts).push(fact);
        self.unpublished.insert((now, slot, sequence));
        undo.push(Undo::Fact(slot));
        FactRow { aggregate: entity.id, sequence, character, number, body }
    }

    /// Flags a fact as published. One that does not exist is passed over.
    pub(super) fn flag(&mut self, slot: Slot, undo: &mut Vec<Undo>, sequence: FactSequence) {
        if self.set_published(slot, sequence, true) {
            undo.push(Undo::Flag(slot, sequence));
        }
    }

    /// Facts that are not flagged and were written at this moment or before, the oldest first.
    pub(super) fn unpublished(&self, through: Instant) -> impl Iterator<Item = FactRow> + '_ {
        let old = self.unpublished.iter().take_while(move |(written, ..)| *written <= through);
        old.map(|&(_, slot, sequence)| {
            self.at(slot).fact(sequence).expect("what is not flagged stands in the outbox").0
        })
    }

    /// Whether that changed anything.
    fn set_published(&mut self, slot: Slot, sequence: FactSequence, published: bool) -> bool {
        let facts = &mut self.entities[slot as usize].facts;
        let Some(place) = place(sequence) else { return false };
        let Some(written) = facts.get(place).filter(|fact| fact.published != published).map(|fact| fact.written) else {
            return false;
        };
        Arc::make_mut(facts)[place].published = published;
        let key = (written, slot, sequence);
        if published { self.unpublished.remove(&key) } else { self.unpublished.insert(key) }
    }

    /// Takes a transaction's writes back, the last one first.
    pub(super) fn undo(&mut self, writes: &[Undo]) {
        for write in writes.iter().rev() {
            let entity = &mut self.entities[write.slot() as usize];
            match *write {
                Undo::Columns(_, before) => entity.columns = before,
                Undo::Result(_, dropped) => {
                    let results = Arc::make_mut(&mut entity.results);
                    results.pop_back();
                    if let Some(dropped) = dropped {
                        results.push_front(dropped);
                    }
                }
                Undo::Fact(slot) => {
                    let facts = Arc::make_mut(&mut entity.facts);
                    let fact = facts.pop().expect("it was written, and what came behind it is taken back");
                    let sequence = FactSequence(facts.len() as u64 + 1);
                    self.unpublished.remove(&(fact.written, slot, sequence));
                }
                Undo::Flag(slot, sequence) => {
                    self.set_published(slot, sequence, false);
                }
            }
        }
    }
}

fn born(seed: &Seed) -> Entity {
    assert!(seed.balance >= 0, "{} begins with a debt", seed.entity);
    Entity {
        id: seed.entity,
        born: seed.position,
        pinned: seed.pinned,
        columns: Columns {
            generation: Generation(0),
            login: None,
            tokens_valid_from_unix_ms: 0,
            fence: None,
            applied_through: OpNumber(0),
            hit_points: seed.hit_points,
            experience: 0,
            balance: seed.balance,
            checkpoint: None,
            facts: FactSequence(0),
        },
        results: Arc::default(),
        facts: Arc::default(),
    }
}

/// Where a fact stands among those of its aggregate.
fn place(sequence: FactSequence) -> Option<usize> {
    usize::try_from(sequence.0.checked_sub(1)?).ok()
}
