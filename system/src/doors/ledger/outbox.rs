//! The outbox: durable news, kept by the ledger until they are known to be published, and for readers that missed them.

use worldline_proto::{CharacterId, EntityId, FactSequence, OpNumber};

use alloc::vec::Vec;

/// A fact as the outbox keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct FactRow {
    /// Whose news it is.
    pub aggregate: EntityId,
    /// Its number among the aggregate's.
    pub sequence: FactSequence,
    /// Whose operation caused it.
    pub character: CharacterId,
    /// That operation's number.
    pub number: OpNumber,
    /// What happened.
    pub body: FactBody,
}

/// What a fact tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum FactBody {
    /// The aggregate was hit.
    Hit {
        /// Hit points taken.
        dealt: u32,
        /// Hit points left.
        remaining: u32,
        /// Experience that the character gained.
        experience: i64,
        /// Minor units that it gained, out of the aggregate's purse.
        bounty: i64,
    },
}

/// A page of the outbox.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct FactsPage {
    /// In the order that was asked for.
    pub facts: Vec<FactRow>,
    /// Whether there are more behind the last one.
    pub more: bool,
}

/// How an entity stands: every fact up to `sequence` is taken in, and none behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct FactSnapshot {
    /// Which.
    pub entity: EntityId,
    /// Hit points left; zero is dead.
    pub hit_points: u32,
    /// The last of its facts; zero before the first.
    pub sequence: FactSequence,
}
