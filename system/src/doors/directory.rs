//! The directory door (etcd): leases, records compared by revision, watches.
//!
//! * One transaction is atomic and has one revision; at most [`crate::limits::DIRECTORY_OPERATIONS`] compares and as many
//!   writes.
//! * A linearizable read sees everything acknowledged before it was asked; a serializable one may be stale.
//! * A watch delivers every change after its start revision, in order, each once; or it says that it has a [`Event::Gap`],
//!   after which the reader reads again and watches anew.
//! * A lease is never ended before its time-to-live has passed since the last renewal that was acknowledged, but for a
//!   misbehaving ex-leader; it may end late. Its keys go with it, in one revision.
//!
//! Keys and values are typed here; `real/` writes them as paths and JSON that an operator can read.

use crate::{
    outcome::{End, Outcome},
    time::Duration,
};
use alloc::{sync::Arc, vec::Vec};
use core::fmt;
use worldline_proto::{EntityId, Epoch, LeaseId, NodeId, Nonce, OpId, Revision};

/// A region of the world: an index into the scenario's or the deployment's list of regions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct RegionId(pub u8);

/// A key of the directory. Keys of one kind are contiguous and ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Key {
    /// `/worldline/leader/orchestrator`: who leads the orchestrators.
    Leader,
    /// `/worldline/regions/{region}`: a region without workers, while it has none.
    Region(RegionId),
    /// `/worldline/workers/{lease}`: a living worker; the key goes with its lease.
    Worker(LeaseId),
    /// `/worldline/owners/{entity}`: who owns an entity.
    Owner(EntityId),
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Leader => write!(f, "/worldline/leader/orchestrator"),
            Self::Region(region) => write!(f, "/worldline/regions/{}", region.0),
            Self::Worker(lease) => write!(f, "/worldline/workers/{lease}"),
            Self::Owner(entity) => write!(f, "/worldline/owners/{entity}"),
        }
    }
}

/// A kind of key, for reading and watching all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Family {
    /// Only [`Key::Leader`].
    Leader,
    /// All of [`Key::Region`].
    Regions,
    /// All of [`Key::Worker`].
    Workers,
    /// All of [`Key::Owner`].
    Owners,
}

impl Key {
    /// The family it belongs to.
    #[must_use]
    pub const fn family(self) -> Family {
        match self {
            Self::Leader => Family::Leader,
            Self::Region(_) => Family::Regions,
            Self::Worker(_) => Family::Workers,
            Self::Owner(_) => Family::Owners,
        }
    }
}

/// What stands under a key. The variant always matches the key's kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Value {
    /// Under [`Key::Leader`].
    Leader(Leader),
    /// Under [`Key::Region`].
    Down(Down),
    /// Under [`Key::Worker`].
    Worker(Worker),
    /// Under [`Key::Owner`].
    Owner(Ownership),
}

/// The leading orchestrator. The key goes with its lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Leader {
    /// Its address.
    pub node: NodeId,
    /// Its identity.
    pub lease: LeaseId,
}

/// A region that has no worker left: the leader's decision where its entities go, which its successor carries on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Down {
    /// The region that serves its entities meanwhile.
    pub stand_in: RegionId,
}

/// A living worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Worker {
    /// Its address.
    pub node: NodeId,
    /// The region whose cells it serves.
    pub region: RegionId,
}

/// Who owns an entity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Ownership {
    /// The owner's identity.
    pub lease: LeaseId,
    /// The epoch it holds, or, after a takeover and before its claim, the epoch of the owner before.
    pub epoch: Epoch,
    /// Drawn by who wrote the record.
    pub nonce: Nonce,
}

/// A key with its value and the revision that wrote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Record {
    /// The key.
    pub key: Key,
    /// Its value.
    pub value: Value,
    /// The revision of its last change.
    pub mod_revision: Revision,
    /// The lease it goes with, if any.
    pub lease: Option<LeaseId>,
}

/// A condition of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Compare {
    /// The key does not exist.
    Absent(Key),
    /// The key exists.
    Present(Key),
    /// The key was last changed by exactly this revision.
    Unchanged(Key, Revision),
}

impl Compare {
    /// The key that is compared.
    #[must_use]
    pub const fn key(self) -> Key {
        match self {
            Self::Absent(key) | Self::Present(key) | Self::Unchanged(key, _) => key,
        }
    }
}

/// A change that a transaction makes if all its conditions hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Write {
    /// Put a value, attached to a lease or to none.
    Put {
        /// Where.
        key: Key,
        /// What.
        value: Value,
        /// The lease it goes with. The transaction is refused where there is no such lease.
        lease: Option<LeaseId>,
    },
    /// Delete a key; deleting what is not there is no error.
    Delete(Key),
}

/// An atomic compare-and-write.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Transaction {
    /// All must hold.
    pub compares: Vec<Compare>,
    /// What is written if they do. Each key at most once.
    pub writes: Vec<Write>,
    /// What is read in the same revision if they do not.
    pub otherwise: Vec<Key>,
}

/// What came of a transaction that was executed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Transacted {
    /// Whether the conditions held and the writes were made.
    pub succeeded: bool,
    /// The directory's revision after it.
    pub revision: Revision,
    /// If they did not hold: the records among [`Transaction::otherwise`] that exist.
    pub otherwise: Vec<Record>,
}

/// How fresh a read must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Consistency {
    /// Sees everything acknowledged before it was asked; needs a quorum.
    Linearizable,
    /// What the asked member happens to have; may be stale; served without a quorum.
    Serializable,
}

/// A page of records of one family, in key order, at one revision.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Page {
    /// The records.
    pub records: Vec<Record>,
    /// The revision that was read. A watch from the one after it misses nothing.
    pub revision: Revision,
    /// Whether there are more behind the last one.
    pub more: bool,
}

/// What a role may submit.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Submission {
    /// Create a lease under an id that the caller chose.
    Grant {
        /// The id.
        lease: LeaseId,
        /// Its time to live, in whole seconds on the wire (rounded up).
        ttl: Duration,
    },
    /// Renew a lease to its full time to live.
    KeepAlive(LeaseId),
    /// End a lease and delete its keys.
    Revoke(LeaseId),
    /// Compare and write.
    Transact(Arc<Transaction>),
    /// Read a page of a family.
    Read {
        /// Which.
        family: Family,
        /// Only keys behind this one.
        after: Option<Key>,
        /// At most so many records, 1..=[`crate::limits::DIRECTORY_PAGE`].
        limit: u16,
        /// At this revision, so that a reader's pages fit together; `None` is now.
        at: Option<Revision>,
        /// How fresh.
        consistency: Consistency,
    },
    /// Read one key.
    Get {
        /// Which.
        key: Key,
        /// How fresh.
        consistency: Consistency,
    },
    /// Report every change of a family from this revision on, as [`Event::Changed`] under this operation's id. The answer
    /// says that the watch stands. A watch has no deadline once it stands and ends with its node's incarnation.
    Watch {
        /// Which.
        family: Family,
        /// The first revision to report.
        from: Revision,
    },
    /// End a watch of this node. Always `Done`; news already under way may still arrive.
    Unwatch(OpId),
}

/// What came of a submission; the variant matches it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Answer {
    /// Of [`Submission::Grant`].
    Granted(Outcome<()>),
    /// Of [`Submission::KeepAlive`]: the time to live from when the directory renewed it.
    KeptAlive(Outcome<Duration>),
    /// Of [`Submission::Revoke`].
    Revoked(Outcome<()>),
    /// Of [`Submission::Transact`]. A transaction whose conditions did not hold is `Done`.
    Transacted(Outcome<Transacted>),
    /// Of [`Submission::Read`].
    Read(Outcome<Page>),
    /// Of [`Submission::Get`]: the record, and the revision that was read.
    Got(Outcome<(Option<Record>, Revision)>),
    /// Of [`Submission::Watch`].
    Watching(Outcome<()>),
    /// Of [`Submission::Unwatch`].
    Unwatched(Outcome<()>),
}

/// Which kind of submission an operation is, and so which answer it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// [`Submission::Grant`].
    Grant,
    /// [`Submission::KeepAlive`].
    KeepAlive,
    /// [`Submission::Revoke`].
    Revoke,
    /// [`Submission::Transact`].
    Transact,
    /// [`Submission::Read`].
    Read,
    /// [`Submission::Get`].
    Get,
    /// [`Submission::Watch`].
    Watch,
    /// [`Submission::Unwatch`].
    Unwatch,
}

impl From<&Submission> for Ask {
    fn from(submission: &Submission) -> Self {
        match submission {
            Submission::Grant { .. } => Self::Grant,
            Submission::KeepAlive(_) => Self::KeepAlive,
            Submission::Revoke(_) => Self::Revoke,
            Submission::Transact(_) => Self::Transact,
            Submission::Read { .. } => Self::Read,
            Submission::Get { .. } => Self::Get,
            Submission::Watch { .. } => Self::Watch,
            Submission::Unwatch(_) => Self::Unwatch,
        }
    }
}

impl Ask {
    /// The answer of an operation that ended without a result.
    #[must_use]
    pub fn ended(self, end: End) -> Answer {
        match self {
            Self::Grant => Answer::Granted(end.into()),
            Self::KeepAlive => Answer::KeptAlive(end.into()),
            Self::Revoke => Answer::Revoked(end.into()),
            Self::Transact => Answer::Transacted(end.into()),
            Self::Read => Answer::Read(end.into()),
            Self::Get => Answer::Got(end.into()),
            Self::Watch => Answer::Watching(end.into()),
            Self::Unwatch => Answer::Unwatched(end.into()),
        }
    }
}

/// A change that a watch reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Change {
    /// A key has a new value.
    Put(Record),
    /// A key is gone: deleted, or its lease has ended.
    Deleted(Key),
}

/// Why a watch ended and its reader must read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum GapCause {
    /// The revision it would have gone on from has been compacted away.
    Compacted,
    /// The member cancelled it, or the connection to it was lost.
    Cancelled,
    /// The reader did not keep up with [`crate::limits::WATCH_CREDITS`].
    Overflow,
}

/// What a role may be told.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Event {
    /// The answer to an operation.
    Answered {
        /// Which operation.
        op: OpId,
        /// Its end.
        answer: alloc::boxed::Box<Answer>,
    },
    /// News of a watch: all its changes of one or more revisions.
    Changed {
        /// The operation that watches.
        watch: OpId,
        /// The last revision that is reported.
        revision: Revision,
        /// In the order in which they happened.
        changes: Arc<[Change]>,
    },
    /// A watch has ended. Its reader reads again and watches anew.
    Gap {
        /// The operation that watched.
        watch: OpId,
        /// Why.
        cause: GapCause,
    },
}
