//! What a checker may know beside the history: the world at its beginning, facts at the moment of an entry, samples.

use std::collections::{BTreeMap, BTreeSet};
use worldline_proto::{CharacterId, EntityId, NodeId, OpNumber};
use worldline_system::{
    doors::{
        directory::RegionId,
        ledger::{FactRow, StoredResult},
    },
    history::{EventId, Row},
    knobs::Retry,
    time::{Duration, Instant},
};

/// The world as it begins.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Every entity's durable row before anything has happened.
    pub rows: Vec<Row>,
    /// The members of the directory.
    pub directory: Vec<NodeId>,
    /// How long an entity may be without an owner while one could take it over.
    pub orphan_budget: Duration,
    /// Between tries of whatever failed.
    pub retry: Retry,
    /// How often an owner writes a checkpoint of each entity.
    pub checkpoint_every: Duration,
    /// When tokens end. Of those that outlive the run nothing is said; nor of any where a clock is set back or goes slow, since a
    /// gateway may take a token in, and keep its session, by as much longer.
    pub tokens_end: BTreeMap<CharacterId, Instant>,
    /// Some gateway's wall clock is never set.
    pub a_clock_is_right: bool,
    /// The characters whose players move faster than the rules allow.
    pub speeders: BTreeSet<CharacterId>,
}

impl Setup {
    /// The budget of a worker's crash.
    pub const ORPHAN_BUDGET: Duration = Duration::from_secs(30);
}

/// What is true of the world at the moment of an entry, asked only where it matters.
#[derive(Clone, Copy, Default)]
pub struct Facts<'a> {
    /// Whether this member of the directory is up and stands, together with members that are up and linked with it and
    /// with each other in both directions, for a majority. `None` where nobody can tell (a drill).
    pub directory_majority: Option<&'a dyn Fn(NodeId) -> bool>,
}

/// A sample of the running world.
#[derive(Clone, Copy)]
pub struct View<'a> {
    /// When, by the run's own clock.
    pub at: Instant,
    /// The last event before it.
    pub event: EventId,
    /// How full every queue is.
    pub queues: &'a [Queue],
    /// Every worker.
    pub workers: &'a [WorkerState],
    /// Whether the services can be used. `None` where nobody can tell.
    pub services: Option<Services>,
    /// The ledger's rows as they stand. `None` where they cannot be read.
    pub ledger: Option<&'a dyn LedgerRows>,
    /// What has outlived its end. `None` where nobody counts.
    pub leaks: Option<&'a [Leak]>,
    /// Something is wrong, or was since the last heal, that is no orderly stop. Whoever runs the scenario need not say: the judge
    /// knows which faults have come.
    pub disturbed: bool,
    /// At the end: the faults were healed and the world had time to settle, so nothing may be left over.
    pub settled: bool,
}

/// How full a queue is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queue {
    /// Where.
    pub node: NodeId,
    /// Which.
    pub name: &'static str,
    /// How many wait in it.
    pub length: usize,
    /// How many may.
    pub bound: usize,
}

/// Whether a worker could serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkerState {
    /// Where.
    pub node: NodeId,
    /// The region whose cells it serves.
    pub region: RegionId,
    /// It is up, runs at a usable pace, and is linked in both directions with a serving majority of the directory and with
    /// the serving ledger.
    pub able: bool,
}

/// Whether the services can be used by whoever is linked with them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Services {
    /// The directory has a leader with a majority.
    pub directory: bool,
    /// The ledger takes writes.
    pub ledger: bool,
    /// At least one orchestrator runs and is linked with both.
    pub orchestrator: bool,
}

impl Services {
    /// All that a takeover needs.
    #[must_use]
    pub const fn all(self) -> bool {
        self.directory && self.ledger && self.orchestrator
    }
}

/// Reads the ledger as it stands.
pub trait LedgerRows {
    /// Hands every entity's row to `each`, in id order.
    fn each(&self, each: &mut dyn FnMut(&Row));
    /// The last operation of a character that has a result. `None` for an unknown one.
    fn applied_through(&self, character: CharacterId) -> Option<OpNumber>;
    /// The result that is kept for an operation. `None` where none is.
    fn result(&self, character: CharacterId, number: OpNumber) -> Option<StoredResult>;
    /// Hands every fact of the outbox to `each`, in the order of (aggregate, sequence).
    fn each_fact(&self, each: &mut dyn FnMut(FactRow));
}

/// Something that has outlived its end: an operation past its deadline, half a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leak {
    /// Where.
    pub node: NodeId,
    /// What, in words.
    pub what: String,
}

impl View<'_> {
    /// The row of one entity.
    #[must_use]
    pub fn row(&self, entity: EntityId) -> Option<Row> {
        let mut found = None;
        self.ledger?.each(&mut |row| {
            if row.entity == entity {
                found = Some(*row);
            }
        });
        found
    }
}
