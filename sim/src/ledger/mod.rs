//! The ledger door, served by a model of PostgreSQL 17: a primary, synchronous standbys in other zones, and what happens
//! to them.
//!
//! * `synchronous_commit = on` with `synchronous_standby_names = 'ANY 1 (..)'`: a commit is answered when the primary and
//!   one standby have flushed it. Until then its row locks are held and nobody sees it. So an acknowledged commit
//!   survives the loss of any one member, unless disks lie.
//! * The stored functions lock every row they touch, in id order, before they read: calls are serializable and never
//!   deadlock among themselves. Conflicts beyond that are drawn ([`Fault::Conflicts`]).
//! * `login`, `claim`, `commit` and `flag` always write (at least a log row), and whatever only reads waits for what it has
//!   read: so no answer tells of a state that a failover could take back.
//! * The history is told at the moment a commit stands on primary and standby. A commit that the primary had flushed
//!   alone, and that a failover loses, was never told; one that the primary recovers after a crash is told when a standby
//!   has it, with nobody left to answer.
//! * A new primary is promoted after [`Config::detection`], by a majority of the members: the one that has flushed most.
//!   An isolated primary gives up before that.
//!
//! All members share one [`Database`]: the state at the primary's write-ahead log's end. A member's own state is a prefix
//! of that log, reached by undoing the rest.
//!
//! Deliberately absent: SQL, and read replicas: a standby answers that it is read-only.

mod database;
mod failover;
mod fault;
mod functions;
mod pool;
mod server;
#[cfg(test)]
mod storm_tests;
#[cfg(test)]
mod tests;
mod wal;

pub use database::{Columns, Database, Entity};
pub use fault::{Fault, When};

use crate::{Core, node::NodeChange, replication::Disk};
use fault::Faults;
use pool::Pool;
use server::{Lock, Transaction};
use std::collections::{BTreeMap, VecDeque};
use wal::{Record, Reply};
use worldline_proto::{CharacterId, EntityId, FactSequence, NodeId, OpId, OpNumber};
use worldline_system::{
    doors::{
        directory::RegionId,
        ledger::{Answer, FactRow, StoredResult, Submission},
    },
    history::Row,
    rules::space::Position,
    time::{Duration, Instant},
};

/// An entity as the world begins with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seed {
    /// Which.
    pub entity: EntityId,
    /// Where it stands.
    pub position: Position,
    /// The region that must own it, wherever it stands.
    pub pinned: Option<RegionId>,
    /// Its hit points.
    pub hit_points: u32,
    /// What is minted for it, in minor units. Not negative.
    pub balance: i64,
}

/// What a ledger is made of.
#[derive(Clone, Debug)]
pub struct Config {
    /// The members' nodes; the first begins as the primary, the others are its standbys. At least one.
    pub members: Vec<NodeId>,
    /// The entities of the world, in any order, one seed each.
    pub seeds: Vec<Seed>,
    /// How long a primary must have been lost before a standby is promoted: Patroni's `ttl`.
    pub detection: Duration,
}

impl Config {
    /// These members and entities, with the defaults of Patroni and sqlx.
    #[must_use]
    pub fn new(members: Vec<NodeId>, seeds: Vec<Seed>) -> Self {
        Self { members, seeds, detection: Duration::from_secs(30) }
    }
}

/// One server.
#[derive(Clone, Debug)]
struct Member {
    node: NodeId,
    /// Counts what breaks its connections: crashes and demotions.
    sessions: u32,
    /// It accepts connections from then on: recovery takes time.
    ready: Instant,
    /// The last record of the write-ahead log that it has.
    received: u64,
    disk: Disk,
    /// Primary's side: sent to it, and flushed by it as it says.
    sent: u64,
    acked: u64,
    sent_at: Instant,
    /// When the last records that were sent arrive.
    arrival: Instant,
    /// What arrived while it was paused.
    parked: VecDeque<Item>,
}

/// The servers, and the callers' connection pools.
#[derive(Clone, Debug)]
pub struct Model {
    members: Vec<Member>,
    detection: Duration,
    primary: usize,
    /// Counts promotions. A message of an older timeline is void.
    timeline: u32,
    /// Whether the primary has given up because it is isolated.
    demoted: bool,
    /// Since when the primary is missing.
    missing_since: Option<Instant>,
    database: Database,
    /// The number of the last record.
    end: u64,
    /// Everything up to here is answered.
    synced: u64,
    /// What can still be undone, oldest first.
    wal: VecDeque<Record>,
    replies: VecDeque<Reply>,
    transactions: BTreeMap<u64, Transaction>,
    locks: BTreeMap<database::Slot, Lock>,
    statements: u64,
    pools: BTreeMap<NodeId, Pool>,
    faults: Faults,
}

/// A statement on its way.
#[derive(Clone, Debug, Hash)]
pub struct Statement {
    client: NodeId,
    op: OpId,
    deadline: Instant,
    /// The server, and which life of its connections.
    member: usize,
    sessions: u32,
    submission: Submission,
}

/// What the model schedules for itself.
#[derive(Clone, Debug, Hash)]
pub enum Item {
    /// Looks after liveness, detection, and what must be sent again.
    Pulse,
    /// A statement leaves its caller, again after each loss.
    Send(Box<Statement>, u8),
    /// A statement arrives at its server.
    Arrive(Box<Statement>),
    /// A statement that took its time, or that a fault had held back, executes.
    Execute(Box<Statement>),
    /// A sync of the member's disk is complete, in this life of it.
    Flushed(usize, u32),
    /// Records arrive at a standby: all after the first number up to the second.
    Wal(usize, u32, u64, u64),
    /// A standby tells the primary what it has flushed.
    Acked(usize, u32, u64),
    /// An answer leaves its server, again after each loss.
    Respond(usize, Box<Response>, u8),
    /// An answer arrives at its caller.
    Answer(Box<Response>),
    /// A statement has waited for a connection long enough.
    Acquire(NodeId, OpId),
}

/// An answer on its way.
#[derive(Clone, Debug, Hash)]
pub struct Response {
    client: NodeId,
    op: OpId,
    deadline: Instant,
    /// Whether the connection is broken with it.
    broken: bool,
    answer: Answer,
}

impl Model {
    /// A ledger that has not started. Panics without a member or with two seeds for one entity.
    #[must_use]
    pub fn new(config: Config) -> Self {
        assert!(!config.members.is_empty(), "a ledger has a member");
        Self {
            members: config.members.iter().map(|&node| Member::new(node)).collect(),
            detection: config.detection,
            primary: 0,
            timeline: 1,
            demoted: false,
            missing_since: None,
            database: Database::new(&config.seeds),
            end: 0,
            synced: 0,
            wal: VecDeque::new(),
            replies: VecDeque::new(),
            transactions: BTreeMap::new(),
            locks: BTreeMap::new(),
            statements: 0,
            pools: BTreeMap::new(),
            faults: Faults::default(),
        }
    }

    /// Begins: called once, at the beginning of the world.
    pub fn start(&mut self, core: &mut Core) {
        let node = self.members[0].node;
        later(core, core.now() + failover::PULSE, node, Item::Pulse);
    }

    /// Takes a submission. It is answered by [`Core::answer_ledger`], or by the kernel at its deadline.
    pub fn submit(&mut self, core: &mut Core, from: NodeId, op: OpId, deadline: Instant, submission: Submission) {
        self.ask(core, from, op, deadline, submission);
    }

    /// Handles what was scheduled. A paused member's items wait until it goes on; a dead one's are lost.
    pub fn on_item(&mut self, core: &mut Core, _: NodeId, item: Item) {
        let member = match &item {
            Item::Arrive(statement) | Item::Execute(statement) => Some(statement.member),
            &Item::Flushed(member, _) | &Item::Wal(member, ..) | &Item::Respond(member, ..) => Some(member),
            Item::Acked(..) => Some(self.primary),
            Item::Pulse | Item::Send(..) | Item::Answer(_) | Item::Acquire(..) => None,
        };
        if let Some(member) = member
            && !core.is_running(self.members[member].node)
        {
            if core.is_up(self.members[member].node) {
                self.members[member].park(item);
            }
            return;
        }
        self.handle(core, item);
    }

    fn handle(&mut self, core: &mut Core, item: Item) {
        match item {
            Item::Pulse => self.pulse(core),
            Item::Send(statement, attempt) => self.send(core, statement, attempt),
            Item::Arrive(statement) => self.arrive(core, statement),
            Item::Execute(statement) => self.begin(core, statement),
            Item::Flushed(member, sessions) => self.flushed(core, member, sessions),
            Item::Wal(member, timeline, base, end) => self.receive(core, member, timeline, base, end),
            Item::Acked(member, timeline, flushed) => self.acked(core, member, timeline, flushed),
            Item::Respond(member, response, attempt) => self.respond(core, member, response, attempt),
            Item::Answer(response) => self.answered(core, *response),
            Item::Acquire(client, op) => self.give_up_waiting(core, client, op),
        }
    }

    /// Takes note of what happened to a node, if it is a member.
    pub fn on_node(&mut self, core: &mut Core, node: NodeId, change: NodeChange) {
        self.node_changed(core, node, change);
    }

    /// Makes something go wrong.
    pub fn inject(&mut self, core: &mut Core, fault: Fault) {
        self.fail(core, fault);
    }

    /// Ends every fault that goes on.
    pub fn heal(&mut self, _: &mut Core) {
        self.faults = Faults::default();
        self.members.iter_mut().for_each(|member| {
            member.disk.slow_down(1_000);
            member.disk.lie(false);
        });
    }

    /// The primary's node, or who was it last.
    #[must_use]
    pub fn primary(&self) -> NodeId {
        self.members[self.primary].node
    }

    /// The members' nodes.
    pub fn members(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.members.iter().map(|member| member.node)
    }

    /// All rows as they are committed: on the primary and a standby. In id order.
    #[must_use]
    pub fn rows(&self) -> Vec<Row> {
        let mut rows: Vec<Row> = self.database.entities().iter().map(Entity::row).collect();
        for (slot, columns) in self.uncommitted() {
            let Columns { fence, hit_points, experience, balance, .. } = columns;
            let entity = rows[slot as usize].entity;
            rows[slot as usize] = Row { entity, fence, hit_points, experience, balance };
        }
        rows
    }

    /// The columns of an entity as they are committed.
    #[must_use]
    pub fn columns(&self, entity: EntityId) -> Option<Columns> {
        let slot = self.database.slot(entity)?;
        Some(self.uncommitted().remove(&slot).unwrap_or(self.database.at(slot).columns))
    }

    /// The result of an operation as it is committed, while it is kept.
    #[must_use]
    pub fn stored_result(&self, character: CharacterId, number: OpNumber) -> Option<StoredResult> {
        let through = self.columns(character.entity())?.applied_through;
        self.database.entity(character.entity())?.result(number).filter(|_| number <= through).copied()
    }

    /// The outbox as it is committed: every fact, in the order of (aggregate, sequence).
    pub fn facts(&self) -> impl Iterator<Item = FactRow> + '_ {
        let uncommitted = self.uncommitted();
        self.database.entities().iter().zip(0..).flat_map(move |(entity, slot)| {
            let last = uncommitted.get(&slot).unwrap_or(&entity.columns).facts;
            (1..=last.0).filter_map(|sequence| entity.fact(FactSequence(sequence))).map(|(row, _)| row)
        })
    }

    /// Minor units that the world began with. Nothing is minted or burned later.
    #[must_use]
    pub fn minted(&self) -> i128 {
        self.database.minted()
    }

    /// How many statements wait at the servers for locks or for a standby, and how many for a connection: for the checker
    /// of leaks. Both are bounded by what the callers have in flight.
    #[must_use]
    pub fn waiting(&self) -> (usize, usize) {
        (self.transactions.len() + self.replies.len(), self.pools.values().map(Pool::waiting).sum())
    }

    /// What rows looked like before the transactions that are not yet committed.
    fn uncommitted(&self) -> BTreeMap<database::Slot, Columns> {
        let mut before = BTreeMap::new();
        for record in self.wal.iter().rev().take_while(|record| record.number > self.synced) {
            for undo in record.undo.iter().rev() {
                if let &database::Undo::Columns(slot, columns) = undo {
                    before.insert(slot, columns);
                }
            }
        }
        before
    }
}

impl Member {
    fn new(node: NodeId) -> Self {
        Self {
            node,
            sessions: 0,
            ready: Instant::default(),
            received: 0,
            disk: Disk::new(),
            sent: 0,
            acked: 0,
            sent_at: Instant::default(),
            arrival: Instant::default(),
            parked: VecDeque::new(),
        }
    }

    /// Keeps what arrives while the process is paused; beyond the socket's bound it is lost.
    fn park(&mut self, item: Item) {
        const PARKED: usize = 4_096;
        if self.parked.len() < PARKED {
            self.parked.push_back(item);
        }
    }
}

fn later(core: &mut Core, at: Instant, node: NodeId, item: Item) {
    core.schedule(at, node, item);
}
