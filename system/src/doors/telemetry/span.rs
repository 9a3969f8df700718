//! Spans: the stages of what a player does, each told by the role that it went through.
//!
//! A trace is named by what it is about: an operation by its character and number, so that every role on its way, and an operator
//! who holds nothing but these two, knows the name. A span's parent travels in the message that hands the operation on; where an
//! id must be known on the other side of a bus, it follows from the trace alone ([`SpanId::of`]).
//!
//! A span of a stage lasts from when the stage has the operation until it has an answer for it, so a parent covers its children,
//! but for what goes on behind an answer: the broadcast, and the reconciliation of who struck.
//!
//! Sampling: operations, database transactions and migrations of ownership always; of movements one in a thousand, and each that
//! was slow.
//!
//! Deliberately absent: a name, an address or anything else that a player has chosen.

use super::Label;
use crate::time::{Duration, Instant};
use alloc::vec::Vec;
use worldline_proto::{CharacterId, EntityId, Generation, LeaseId, NodeId, OpId, OpNumber};

/// A movement that took longer is always told.
pub const SLOW: Duration = Duration::from_millis(100);
/// One in so many movements is told although it was quick.
const MOVEMENTS: u64 = 1_000;

/// Which trace. Never zero; written as 32 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TraceId(pub u128);

/// Which span of it. Never zero; written as 16 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpanId(pub u64);

impl core::fmt::Display for TraceId {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl core::fmt::Display for SpanId {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// The client: from the blow until its answer.
    ClientAttackInput,
    /// The gateway: from the client's frame until the owner's answer is passed on.
    GatewayRouting,
    /// A call from one region to another, as its caller sees it.
    CrossRegionGrpc,
    /// The worker that owns the target: from the operation's coming until it answers.
    WorkerCombatSimulation,
    /// The transaction that the operation was in.
    DbTransaction,
    /// The fact on its way to the bus, until that has stored it: told by its owner, or by the relay.
    NatsBroadcast,
    /// The client: from the first of answer and shared state until it has both.
    ClientReconciliation,
    /// The gateway: from a movement's passing until the owner's state that has taken it in.
    MovementUpdate,
    /// The orchestrator: from the takeover's leaving until it is committed.
    OwnershipMigration,
}

impl Stage {
    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ClientAttackInput => "client_attack_input",
            Self::GatewayRouting => "gateway_routing",
            Self::CrossRegionGrpc => "cross_region_grpc",
            Self::WorkerCombatSimulation => "worker_combat_simulation",
            Self::DbTransaction => "db_transaction",
            Self::NatsBroadcast => "nats_broadcast",
            Self::ClientReconciliation => "client_reconciliation",
            Self::MovementUpdate => "movement_update",
            Self::OwnershipMigration => "ownership_migration",
        }
    }
}

/// What a span says of itself beside its times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attribute {
    /// A number.
    Number(u64),
    /// A word, a region or a node.
    Label(Label),
    /// An entity. Of a character it is personal data: whoever writes it down writes it as its policy is.
    Entity(EntityId),
}

/// A stage of something, over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// Of what.
    pub trace: TraceId,
    /// Its own name.
    pub id: SpanId,
    /// The stage that handed it on; none of the first.
    pub parent: Option<SpanId>,
    /// Which stage.
    pub stage: Stage,
    /// When it began, by the node's monotonic clock.
    pub start: Instant,
    /// When it ended, by the same.
    pub end: Instant,
    /// What went wrong.
    pub failed: Option<&'static str>,
    /// What else there is to say.
    pub attributes: Vec<(&'static str, Attribute)>,
}

/// Spreads bits: the finaliser of `splitmix64`.
const fn mix(bits: u64) -> u64 {
    let bits = (bits ^ bits >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let bits = (bits ^ bits >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    bits ^ bits >> 31
}

const fn fold(a: u64, b: u64) -> u64 {
    mix(mix(a ^ 0x9E37_79B9_7F4A_7C15) ^ b)
}

impl TraceId {
    fn new(kind: u64, who: u64, n: u64) -> Self {
        let high = fold(fold(kind, who), n);
        Self((u128::from(high) << 64 | u128::from(fold(high, n ^ who))).max(1))
    }

    /// Of an operation.
    #[must_use]
    pub fn of_operation(character: CharacterId, number: OpNumber) -> Self {
        Self::new(1, character.entity().get(), number.0)
    }

    /// Of a movement of a session.
    #[must_use]
    pub fn of_movement(character: CharacterId, generation: Generation, sequence: u32) -> Self {
        Self::new(2, character.entity().get(), generation.0 << 32 ^ u64::from(sequence))
    }

    /// Of an entity's coming to this owner.
    #[must_use]
    pub fn of_migration(entity: EntityId, to: LeaseId) -> Self {
        Self::new(3, entity.get(), to.get())
    }

    /// Whether a movement that was quick is told too.
    #[must_use]
    pub const fn is_sampled(self) -> bool {
        (self.0 as u64).is_multiple_of(MOVEMENTS)
    }
}

impl SpanId {
    /// The span of a stage that comes once in its trace.
    #[must_use]
    pub fn of(trace: TraceId, stage: Stage) -> Self {
        Self::salted(trace, stage, 0)
    }

    /// The span of a stage that may come again, told apart by the node and its operation on a door that it is about.
    #[must_use]
    pub fn at(trace: TraceId, stage: Stage, node: NodeId, op: OpId) -> Self {
        Self::salted(trace, stage, fold(u64::from(node.0) << 32 | u64::from(op.incarnation.0), op.counter))
    }

    fn salted(trace: TraceId, stage: Stage, salt: u64) -> Self {
        Self(fold(fold(trace.0 as u64 ^ (trace.0 >> 64) as u64, stage as u64 + 1), salt).max(1))
    }

    /// As it travels in a message; zero says nothing.
    #[must_use]
    pub const fn from_wire(bits: u64) -> Option<Self> {
        if bits == 0 { None } else { Some(Self(bits)) }
    }

    /// For a message.
    #[must_use]
    pub fn to_wire(span: Option<Self>) -> u64 {
        span.map_or(0, |span| span.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeSet;
    use worldline_proto::Incarnation;

    #[test]
    fn names_follow_from_what_they_name_and_are_told_apart() {
        let character = |n| CharacterId::new(n).expect("small");
        let traces: BTreeSet<_> = (1..=100)
            .flat_map(|n| (1..=100).map(move |number| TraceId::of_operation(character(n), OpNumber(number))))
            .collect();
        assert_eq!(traces.len(), 10_000);
        let trace = TraceId::of_operation(character(7), OpNumber(3));
        assert_eq!(trace, TraceId::of_operation(character(7), OpNumber(3)));
        let op = |counter| OpId { incarnation: Incarnation(1), counter };
        let spans: BTreeSet<_> =
            (0..1_000).map(|n| SpanId::at(trace, Stage::GatewayRouting, NodeId(1), op(n))).collect();
        assert_eq!(spans.len(), 1_000);
        assert_ne!(SpanId::of(trace, Stage::NatsBroadcast), SpanId::of(trace, Stage::DbTransaction));
        assert_eq!(SpanId::from_wire(SpanId::to_wire(None)), None);
    }

    #[test]
    fn about_one_movement_in_a_thousand_is_sampled() {
        let character = CharacterId::new(1).expect("small");
        let sampled = |n| TraceId::of_movement(character, Generation(2), n).is_sampled();
        let count = (0..1_000_000).filter(|&n| sampled(n)).count();
        assert!((850..1_150).contains(&count), "{count}");
    }
}
