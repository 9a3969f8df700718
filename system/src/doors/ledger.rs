//! The ledger door (PostgreSQL): durable state, owned here and nowhere else.
//!
//! * Every submission is one transaction, serializable against every other.
//! * A write locks the fence rows of its entities, in id order, and passes only if epoch and lease both equal the fence.
//! * One key, one result: (character, number) with its payload's digest is stored in the same transaction as the effect.
//!   A stored result is returned before anything else is looked at.
//! * A refusal by the fence, for a gap, or for an ended session writes nothing and advances nothing.
//! * An effect that is news to others writes a fact in its own transaction. The facts of an aggregate are numbered from 1
//!   without gaps, in the order of their commits; each is flagged once it is known to be published.
//!
//! Deliberately absent: a worker's absolute values. Durable fields change by keyed increments and transfers only.

mod outbox;
mod sessions;

pub use outbox::{FactBody, FactRow, FactSnapshot, FactsPage};
pub use sessions::{Login, Revoked, Standing};

use crate::{
    outcome::{End, Outcome, Refusal},
    rules::{attack::Blow, space::Position},
    time::{Duration, UnixTime},
};
use alloc::{boxed::Box, sync::Arc, vec::Vec};
use worldline_proto::{
    CharacterId, Digest, EntityId, Epoch, FactSequence, Generation, LeaseId, Nonce, OpId, OpNumber, Version,
};

/// The right to write an entity: who claims to own it, since which epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Authority {
    /// The entity.
    pub entity: EntityId,
    /// The epoch at which it was claimed.
    pub epoch: Epoch,
    /// The lease that claimed it.
    pub lease: LeaseId,
}

/// What an operation does, as its owner decided it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Effect {
    /// A hit. The ledger takes at most the hit points that are left, and pays experience and bounty only for a living
    /// target.
    Attack {
        /// Who is hit. Its authority stands in the operation.
        target: EntityId,
        /// What the blow is worth.
        blow: Blow,
    },
    /// The rules of the game refuse it; that is its stored result.
    Refuse(RuleRefusal),
}

/// Why the rules of the game refuse an operation. Such a refusal is a result like any other: stored, then answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum RuleRefusal {
    /// The weapon is not ready yet.
    Cooldown,
    /// The target is too far away.
    OutOfRange,
    /// The target does not exist or cannot be attacked.
    NoSuchTarget,
    /// The target is dead.
    TargetDead,
    /// The action does not decode.
    Malformed,
}

/// One operation of a player, keyed by (character, number).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Operation {
    /// Whose.
    pub character: CharacterId,
    /// The session that sent it.
    pub generation: Generation,
    /// The client's number for it.
    pub number: OpNumber,
    /// Of its payload as the client sent it.
    pub digest: Digest,
    /// The authority over every entity that it writes, the character's first.
    pub authority: Vec<Authority>,
    /// What it does.
    pub effect: Effect,
}

/// An entity's checkpointed state. Accepted only at the current fence and with a version above the stored one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Checkpoint {
    /// Who writes it.
    pub authority: Authority,
    /// Increases within an epoch.
    pub version: Version,
    /// What is kept.
    pub state: Checkpointed,
}

/// The checkpointed class of an entity's state: at most [`crate::limits::CHECKPOINT_PERIOD`] of it is lost at a crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Checkpointed {
    /// Where it stands.
    pub position: Position,
    /// When it may attack again, by the wall clock of its owner.
    pub cooldown_end: UnixTime,
}

/// What one worker commits in one transaction. Refusals are per operation: one does not touch another.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Batch {
    /// In the order of their execution.
    pub operations: Vec<Operation>,
    /// After the operations.
    pub checkpoints: Vec<Checkpoint>,
    /// Facts, of whomever, that are known to be published: their flags ride along. At most
    /// [`crate::limits::BATCH_FLAGS`]; one that does not exist is passed over.
    pub published: Vec<(EntityId, FactSequence)>,
}

/// The stored result of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum OpResult {
    /// The blow landed.
    Hit {
        /// Who was hit.
        target: EntityId,
        /// Hit points taken.
        dealt: u32,
        /// Hit points left.
        remaining: u32,
        /// Experience gained.
        experience: i64,
        /// Minor units gained, out of the target's purse.
        bounty: i64,
    },
    /// The rules of the game refused it.
    Refused(RuleRefusal),
}

/// What the ledger made of one operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Verdict {
    /// It took effect now.
    Applied(OpResult),
    /// It had taken effect before, under the same key with the same payload.
    Stored(OpResult),
    /// The key has a result for another payload. Nothing was written; never an answer to this payload.
    Conflict,
    /// The key's result is so old that it is no longer kept: below the window of [`crate::limits::RESULTS_KEPT`].
    Forgotten,
    /// The number is not the next one. Nothing was written.
    Gap {
        /// The number that would have been right.
        expected: OpNumber,
    },
    /// The session is not the character's highest. Nothing was written.
    StaleSession {
        /// The highest.
        current: Generation,
    },
    /// An authority does not equal its fence. Nothing was written.
    Fenced {
        /// Whose.
        entity: EntityId,
        /// The epoch of the fence row.
        highest: Epoch,
    },
}

/// What the ledger made of a batch, entry by entry.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Committed {
    /// One for each operation.
    pub verdicts: Vec<Verdict>,
    /// One for each checkpoint: accepted, or the epoch of the fence that refused it.
    pub checkpoints: Vec<Result<(), Epoch>>,
    /// What this batch wrote to the outbox, in the order of its operations. What an operation wrote that was applied
    /// before is not here again.
    pub facts: Vec<FactRow>,
}

/// The durable state of an entity, as its claim returns it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Durable {
    /// Which.
    pub entity: EntityId,
    /// The entity's session generation. Zero for what is no character or has never logged in.
    pub generation: Generation,
    /// The last operation number that has a result.
    pub applied_through: OpNumber,
    /// Hit points left; zero is dead.
    pub hit_points: u32,
    /// Experience.
    pub experience: i64,
    /// Balance, in minor units.
    pub balance: i64,
    /// The last checkpoint accepted, with the epoch and version that wrote it.
    pub checkpoint: Option<(Epoch, Version, Checkpointed)>,
    /// The latest results, oldest first, at most [`crate::limits::RESULTS_KEPT`].
    pub results: Vec<StoredResult>,
}

/// A result under its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct StoredResult {
    /// The operation.
    pub number: OpNumber,
    /// Of its payload.
    pub digest: Digest,
    /// Its result.
    pub result: OpResult,
}

/// What a role may submit.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Submission {
    /// Begin a session: increments the character's generation, unless the last login had the same nonce, which then
    /// returns its generation again. Refused as `TokenRevoked` where the token does not count any more, whatever the nonce;
    /// as `Malformed` for an unknown character.
    Login {
        /// Whose.
        character: CharacterId,
        /// Drawn for this login; kept when it is resubmitted.
        nonce: Nonce,
        /// When its token was issued, in milliseconds since 1970.
        issued_unix_ms: u64,
    },
    /// Revoke the tokens of a character that were issued before a moment, and end its session: raises the moment from which its
    /// tokens count, and its generation. Where that moment stands as late already it changes nothing, so that it may be
    /// submitted again. Refused as `Malformed` for an unknown character.
    Revoke {
        /// Whose.
        character: CharacterId,
        /// Tokens that were issued at or after this go on to count, in milliseconds since 1970.
        valid_from_unix_ms: u64,
    },
    /// How the sessions of characters stand.
    Standing {
        /// Whose. At most [`crate::limits::STANDING_CHARACTERS`].
        characters: Vec<CharacterId>,
    },
    /// Raise the fence rows of these entities to (epoch, lease) and return their durable state. Per entity: `Done` where the
    /// epoch is above the fence's, or equals it under the same lease.
    Claim {
        /// The claimant.
        lease: LeaseId,
        /// What it claims, at which epoch. At most [`crate::limits::CLAIM_ENTITIES`].
        entities: Vec<(EntityId, Epoch)>,
    },
    /// Commit a batch.
    Commit(Arc<Batch>),
    /// A page of all entities that exist, in id order.
    Roster {
        /// Only those behind this one.
        after: Option<EntityId>,
        /// At most so many.
        limit: u16,
    },
    /// A page of an aggregate's facts, in their order. Refused as `Malformed` for an unknown entity.
    Facts {
        /// Whose.
        aggregate: EntityId,
        /// Only those behind this one.
        after: FactSequence,
        /// At most so many; at most [`crate::limits::FACTS_PAGE`].
        limit: u16,
    },
    /// The oldest facts that are not flagged, of all aggregates; those of one aggregate in their order.
    Unpublished {
        /// Only those that were written before so much time, by the ledger's clock: whoever wrote a younger one may still be
        /// about to publish it.
        older_than: Duration,
        /// At most so many; at most [`crate::limits::FACTS_PAGE`].
        limit: u16,
    },
    /// Flag facts as published. At most [`crate::limits::FACTS_PAGE`]; one that does not exist is passed over.
    Flag(Vec<(EntityId, FactSequence)>),
    /// How entities stand, each with the last of its facts: where a reader begins that was not there from the first.
    Snapshot {
        /// Which. At most [`crate::limits::SNAPSHOT_ENTITIES`].
        entities: Vec<EntityId>,
    },
}

impl Submission {
    /// Whether it writes nothing.
    #[must_use]
    pub const fn is_read(&self) -> bool {
        match self {
            Self::Roster { .. } | Self::Facts { .. } | Self::Unpublished { .. } | Self::Snapshot { .. } => true,
            Self::Standing { .. } => true,
            Self::Login { .. } | Self::Revoke { .. } | Self::Claim { .. } | Self::Commit(_) | Self::Flag(_) => false,
        }
    }
}

/// What an entity is pinned or drawn to, for whoever assigns owners.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct RosterEntry {
    /// Which.
    pub entity: EntityId,
    /// Where it was last known to stand.
    pub position: Position,
    /// The region that must own it, wherever it stands.
    pub pinned: Option<super::directory::RegionId>,
}

/// A page of the roster.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Roster {
    /// In id order.
    pub entries: Vec<RosterEntry>,
    /// Whether there are more behind the last one.
    pub more: bool,
}

/// What came of a submission; the variant matches it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Answer {
    /// Of [`Submission::Login`].
    LoggedIn(Outcome<Login>),
    /// Of [`Submission::Revoke`].
    Revoked(Outcome<Revoked>),
    /// Of [`Submission::Standing`]: those that exist, each once, in id order.
    Standing(Outcome<Vec<Standing>>),
    /// Of [`Submission::Claim`]: for each entity its state, or [`Refusal::Fenced`] (or `Malformed` for an unknown one).
    Claimed(Outcome<Vec<Result<Box<Durable>, Refusal>>>),
    /// Of [`Submission::Commit`].
    Committed(Outcome<Committed>),
    /// Of [`Submission::Roster`].
    Roster(Outcome<Roster>),
    /// Of [`Submission::Facts`].
    Facts(Outcome<FactsPage>),
    /// Of [`Submission::Unpublished`].
    Unpublished(Outcome<FactsPage>),
    /// Of [`Submission::Flag`].
    Flagged(Outcome<()>),
    /// Of [`Submission::Snapshot`]: those that exist, each once, in id order.
    Snapshot(Outcome<Vec<FactSnapshot>>),
}

/// Which kind of submission an operation is, and so which answer it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// [`Submission::Login`].
    Login,
    /// [`Submission::Revoke`].
    Revoke,
    /// [`Submission::Standing`].
    Standing,
    /// [`Submission::Claim`].
    Claim,
    /// [`Submission::Commit`].
    Commit,
    /// [`Submission::Roster`].
    Roster,
    /// [`Submission::Facts`].
    Facts,
    /// [`Submission::Unpublished`].
    Unpublished,
    /// [`Submission::Flag`].
    Flag,
    /// [`Submission::Snapshot`].
    Snapshot,
}

impl From<&Submission> for Ask {
    fn from(submission: &Submission) -> Self {
        match submission {
            Submission::Login { .. } => Self::Login,
            Submission::Revoke { .. } => Self::Revoke,
            Submission::Standing { .. } => Self::Standing,
            Submission::Claim { .. } => Self::Claim,
            Submission::Commit(_) => Self::Commit,
            Submission::Roster { .. } => Self::Roster,
            Submission::Facts { .. } => Self::Facts,
            Submission::Unpublished { .. } => Self::Unpublished,
            Submission::Flag(_) => Self::Flag,
            Submission::Snapshot { .. } => Self::Snapshot,
        }
    }
}

impl Ask {
    /// The answer of an operation that ended without a result.
    #[must_use]
    pub fn ended(self, end: End) -> Answer {
        match self {
            Self::Login => Answer::LoggedIn(end.into()),
            Self::Revoke => Answer::Revoked(end.into()),
            Self::Standing => Answer::Standing(end.into()),
            Self::Claim => Answer::Claimed(end.into()),
            Self::Commit => Answer::Committed(end.into()),
            Self::Roster => Answer::Roster(end.into()),
            Self::Facts => Answer::Facts(end.into()),
            Self::Unpublished => Answer::Unpublished(end.into()),
            Self::Flag => Answer::Flagged(end.into()),
            Self::Snapshot => Answer::Snapshot(end.into()),
        }
    }
}

/// What a role may be told: the answer to an operation.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Event {
    /// Which operation.
    pub op: OpId,
    /// Its end.
    pub answer: Box<Answer>,
}
