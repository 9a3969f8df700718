//! The typed history that every checker reads: what was asked, what came of it, and what the sinks accepted.
//!
//! Three sources write it. A role leaves a [`Note`] for what no door shows. Its host records every operation on the
//! directory, the ledger and the cache, and every publish on the bus, as [`What::Invoked`] and [`What::Completed`], and the
//! lives of the process. The sinks themselves (in the simulator the models, in a drill etcd's watch, the ledger's tables and
//! the bus's stream) tell what they accepted: the checkers
//! believe these before any role.
//!
//! Deliberately absent: text. A checker never parses a message.

use crate::{
    doors::{
        bus::{self, MessageId, StreamSequence, Subject},
        cache,
        directory::{self, Change, RegionId},
        ledger::{self, Authority, FactRow, OpResult, Operation, Verdict},
    },
    rules::space::Position,
    time::{Duration, Instant},
};
use alloc::{boxed::Box, sync::Arc, vec::Vec};
use worldline_proto::{
    CharacterId, Digest, EntityId, Epoch, FactSequence, Generation, Incarnation, LeaseId, NodeId, OpId, OpNumber,
    Revision, Version,
};

/// An event of a run: its place in the order of all events. Zero is the beginning itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct EventId(pub u64);

impl core::fmt::Display for EventId {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "#{}", self.0)
    }
}

/// One line of the history.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Entry {
    /// When, by the run's own clock: in the simulator its virtual time, in a drill the collector's.
    pub at: Instant,
    /// When, by the monotonic clock of the node.
    pub local: Instant,
    /// Where. For a sink, the member that served.
    pub node: NodeId,
    /// Which life of that node.
    pub incarnation: Incarnation,
    /// The event during which it happened.
    pub event: EventId,
    /// What happened.
    pub what: What,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum What {
    /// A process has started.
    Started,
    /// A process is gone, whatever it was doing.
    Crashed,
    /// A process has stopped in order.
    Stopped,
    /// A fault was injected; the number is its place in the run's fault list.
    FaultInjected(u32),
    /// All faults were taken away but for nodes that stay dead.
    Healed,
    /// A role left a note.
    Noted(Note),
    /// A role submitted an operation.
    Invoked(OpId, Invocation),
    /// An operation was answered.
    Completed(OpId, Box<Completion>),
    /// A sink accepted something.
    Accepted(Acceptance),
}

/// An operation as it was submitted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Invocation {
    /// To the directory.
    Directory(directory::Submission),
    /// To the ledger.
    Ledger(ledger::Submission),
    /// To the bus: a publish. What its consumers do shows in what their roles note.
    Bus(bus::Submission),
    /// To the cache.
    Cache(cache::Submission),
}

/// An operation's answer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Completion {
    /// By the directory.
    Directory(directory::Answer),
    /// By the ledger.
    Ledger(ledger::Answer),
    /// By the bus: of a publish.
    Bus(bus::Answer),
    /// By the cache.
    Cache(cache::Answer),
}

/// What a role says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Note {
    /// Worker: it has a new identity, and will act until `ttl - margin` after sending each acknowledged renewal.
    Identity {
        /// The lease.
        lease: LeaseId,
        /// Its time to live.
        ttl: Duration,
        /// What it keeps off.
        margin: Duration,
    },
    /// Worker: it emits nothing authoritative from now on.
    Suspended {
        /// Its identity.
        lease: LeaseId,
    },
    /// Worker: its lease was renewed late and it acts again.
    Resumed {
        /// Its identity.
        lease: LeaseId,
    },
    /// Worker: its identity is dead and it has dropped its state.
    Fenced {
        /// The dead identity.
        lease: LeaseId,
    },
    /// Worker: it serves an entity from now on.
    Serving {
        /// By what right.
        authority: Authority,
        /// Where the entity stands.
        position: Position,
        /// For a character: the last operation that has a result.
        applied_through: OpNumber,
    },
    /// Worker: it no longer serves an entity.
    Dropped {
        /// By what right it had served.
        authority: Authority,
    },
    /// Worker: authoritative state left for a gateway.
    Emitted {
        /// By what right.
        authority: Authority,
        /// The state's version within the epoch.
        version: Version,
    },
    /// Worker: it accepted a movement.
    Moved {
        /// By what right.
        authority: Authority,
        /// The session that moved.
        generation: Generation,
        /// The client's number for the input.
        sequence: u32,
        /// From where.
        from: Position,
        /// To where.
        to: Position,
    },
    /// Worker: the answer to an operation left for a gateway.
    AnswerSent {
        /// By what right.
        authority: Authority,
        /// The session that asked.
        generation: Generation,
        /// The operation.
        number: OpNumber,
        /// Of the payload that is answered.
        digest: Digest,
        /// The result.
        result: OpResult,
    },
    /// Gateway: a session stands, as the ledger granted it.
    SessionOpened {
        /// Whose.
        character: CharacterId,
        /// Its generation.
        generation: Generation,
    },
    /// Gateway: a session has ended here.
    SessionClosed {
        /// Whose.
        character: CharacterId,
        /// Its generation.
        generation: Generation,
    },
    /// Gateway: it ends a session because its player has moved as no honest client does, for too long.
    SentAway {
        /// Whose.
        character: CharacterId,
        /// Its generation.
        generation: Generation,
    },
    /// Gateway: it was told to stop, and asks its clients to go on elsewhere.
    Draining {
        /// The sessions that it still serves.
        sessions: u32,
    },
    /// Gateway: as a sink of state it accepted an owner's state (and passed it on).
    StateAccepted {
        /// The entity.
        entity: EntityId,
        /// The owner's epoch.
        epoch: Epoch,
        /// The version within it.
        version: Version,
    },
    /// Client: it was shown how an entity that the whole world shares stands.
    GlobalSeen {
        /// Who it plays.
        character: CharacterId,
        /// Which entity.
        entity: EntityId,
        /// The last of its facts that is taken in.
        sequence: FactSequence,
        /// Its hit points then.
        hit_points: u32,
    },
    /// Client: it turns to a gateway.
    Connecting {
        /// Who it plays.
        character: CharacterId,
        /// To which.
        gateway: NodeId,
    },
    /// Client: it sends again, within one session, whatever is unanswered.
    Resent {
        /// Who it plays.
        character: CharacterId,
        /// The first number of it.
        from: OpNumber,
    },
    /// Client: it was welcomed.
    Joined {
        /// Who it plays.
        character: CharacterId,
        /// Its session.
        generation: Generation,
        /// When its token was issued, as the token says, in milliseconds since 1970.
        issued_unix_ms: u64,
    },
    /// Client: it is not let in any more: its token is not accepted, or it has moved as no honest client does. It stays away.
    TurnedAway {
        /// Who it plays.
        character: CharacterId,
    },
    /// Client: it sent an operation for the first time.
    Performed {
        /// Who it plays.
        character: CharacterId,
        /// Its number.
        number: OpNumber,
        /// Of its payload.
        digest: Digest,
    },
    /// Client: an operation of its own was acknowledged.
    Acknowledged {
        /// Who it plays.
        character: CharacterId,
        /// Its number.
        number: OpNumber,
        /// Of the payload that it had sent under this number. `None` where it knows of none (a resend of an earlier life).
        digest: Option<Digest>,
        /// The result; `None` where the number was refused because it had been used with another payload.
        result: Option<OpResult>,
    },
    /// Client: it saw authoritative state of its own character.
    Confirmed {
        /// Who it plays.
        character: CharacterId,
        /// The owner's epoch.
        epoch: Epoch,
        /// The last of its movement inputs that is taken in.
        sequence: u32,
        /// Where it stood then.
        position: Position,
    },
    /// Orchestrator: it leads from now on.
    Elected {
        /// Its identity.
        lease: LeaseId,
    },
    /// Orchestrator: it leads no longer.
    Deposed {
        /// Its identity.
        lease: LeaseId,
    },
    /// Orchestrator: it has seen that a worker's lease is gone while records still name it.
    FoundDead {
        /// The dead identity.
        lease: LeaseId,
        /// How many records name it.
        orphans: u32,
    },
    /// Orchestrator: it has decided that a region is down.
    RegionDown {
        /// Which.
        region: RegionId,
        /// The region that serves its entities meanwhile.
        stand_in: RegionId,
    },
    /// Orchestrator: it has decided that a region serves again.
    RegionBack {
        /// Which.
        region: RegionId,
    },
    /// Replica: it has the state of an aggregate as the ledger stands, and takes in the facts behind it.
    FactSnapshot {
        /// Whose.
        aggregate: EntityId,
        /// The last fact that the state contains.
        sequence: FactSequence,
    },
    /// Replica: it has taken in a fact.
    FactApplied {
        /// Whose.
        aggregate: EntityId,
        /// Its number.
        sequence: FactSequence,
    },
    /// Replica: it has seen that it misses facts, and asks the ledger.
    FactGap {
        /// Whose.
        aggregate: EntityId,
        /// The first that it misses.
        missing: FactSequence,
    },
    /// Orchestrator: a takeover has committed.
    TookOver {
        /// Which.
        entity: EntityId,
        /// From whom; `None` for an entity that had no record.
        from: Option<LeaseId>,
        /// To whom.
        to: LeaseId,
    },
}

/// What a sink accepted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Acceptance {
    /// The directory committed a revision.
    DirectoryChanged {
        /// The revision.
        revision: Revision,
        /// What changed in it.
        changes: Arc<[Change]>,
    },
    /// The directory granted a lease.
    LeaseGranted {
        /// Which.
        lease: LeaseId,
        /// Its time to live.
        ttl: Duration,
    },
    /// The directory renewed a lease.
    LeaseRenewed {
        /// Which.
        lease: LeaseId,
    },
    /// The directory ended a lease, because it had expired or was revoked.
    LeaseEnded {
        /// Which.
        lease: LeaseId,
    },
    /// The ledger raised a fence, or let the same claim pass again.
    FenceRaised {
        /// To what.
        authority: Authority,
        /// Where it stood before.
        before: Option<(Epoch, LeaseId)>,
    },
    /// The ledger began a session.
    LoggedIn {
        /// Whose.
        character: CharacterId,
        /// Its generation.
        generation: Generation,
        /// When its token was issued, as the gateway said, in milliseconds since 1970. Zero in a ledger of before tokens said it.
        #[cfg_attr(feature = "serde", serde(default))]
        issued_unix_ms: u64,
    },
    /// The ledger revoked tokens of a character and ended its session.
    TokensRevoked {
        /// Whose.
        character: CharacterId,
        /// From when on tokens count, in milliseconds since 1970.
        valid_from_unix_ms: u64,
        /// The generation now: no session's.
        generation: Generation,
    },
    /// The ledger executed an operation that wrote something: its verdict is [`Verdict::Applied`].
    OperationApplied {
        /// As it was submitted.
        operation: Box<Operation>,
        /// What came of it.
        verdict: Verdict,
        /// Every row it wrote, as it stands after it.
        rows: Vec<Row>,
        /// What it wrote to the outbox. Boxed: most acceptances have none.
        fact: Option<Box<FactRow>>,
    },
    /// The ledger answered an operation without writing: stored, conflict, or refused.
    OperationPassed {
        /// Whose.
        character: CharacterId,
        /// Its number.
        number: OpNumber,
        /// Of its payload.
        digest: Digest,
        /// What came of it.
        verdict: Verdict,
    },
    /// The ledger accepted a checkpoint.
    Checkpointed {
        /// By what right.
        authority: Authority,
        /// Its version.
        version: Version,
    },
    /// The stream stored a message. A duplicate that it recognised is not told.
    Published {
        /// Its place. Lower than an earlier one where the stream has lost its tail meanwhile.
        sequence: StreamSequence,
        /// What it is about.
        subject: Subject,
        /// Its name.
        message: MessageId,
        /// As it was published.
        payload: Arc<[u8]>,
    },
    /// The stream has lost what was stored behind this: a majority of its members lost what they had not synced.
    TailLost {
        /// The last that is left; zero where nothing is.
        last: StreamSequence,
    },
}

/// The durable fields of an entity after a write, and the fence under which it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Row {
    /// Which.
    pub entity: EntityId,
    /// The fence row at that moment.
    pub fence: Option<(Epoch, LeaseId)>,
    /// Hit points.
    pub hit_points: u32,
    /// Experience.
    pub experience: i64,
    /// Balance, in minor units.
    pub balance: i64,
}
