//! What became of an operation: done, certainly not done, or unknown.

use crate::doors::bus::StreamSequence;
use core::fmt;
use worldline_proto::{Epoch, Revision};

/// The end of an operation, as far as its caller can know.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Outcome<T> {
    /// It happened, and this is what came of it.
    Done(T),
    /// It certainly did not happen and never will.
    Refused(Refusal),
    /// It may have happened, or may yet. Not a failure: resolve it by submitting the same key again.
    Unknown,
}

impl<T> Outcome<T> {
    /// The same outcome with another result.
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> Outcome<U> {
        match self {
            Self::Done(value) => Outcome::Done(f(value)),
            Self::Refused(refusal) => Outcome::Refused(refusal),
            Self::Unknown => Outcome::Unknown,
        }
    }
}

/// The end of an operation that came to no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It certainly did not happen.
    Refused(Refusal),
    /// It may have happened, or may yet.
    Unknown,
}

impl<T> From<End> for Outcome<T> {
    fn from(end: End) -> Self {
        match end {
            End::Refused(refusal) => Self::Refused(refusal),
            End::Unknown => Self::Unknown,
        }
    }
}

/// Why an operation certainly did not happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Refusal {
    /// It never left: nobody there, no route, no connection, or the deadline had passed before it could be sent.
    Unreachable,
    /// This node already has as many operations in flight as [`crate::limits`] allows, or the service sheds load.
    Busy,
    /// The callee has no such method, or the request does not decode.
    Malformed,
    /// The callee is not in a state to serve this (draining, suspended, not yet claimed, not the owner).
    NotServing,
    /// Directory: no leader is known, and the request was not proposed.
    NoLeader,
    /// Directory: no such lease, or it has ended.
    LeaseNotFound,
    /// Directory: a lease with this id exists already.
    LeaseExists,
    /// Directory: more than 128 operations in a transaction.
    TooManyOperations,
    /// Directory: the database is over its quota; only reads and deletes are served.
    DatabaseFull,
    /// Directory: the asked revision has been compacted away; `oldest` still stands.
    Compacted {
        /// The oldest revision that can still be read.
        oldest: Revision,
    },
    /// Ledger: the transaction lost a conflict and was rolled back (SQLSTATE 40001).
    SerializationFailure,
    /// Ledger: the transaction was the victim of a deadlock and was rolled back (SQLSTATE 40P01).
    Deadlock,
    /// Ledger: no connection became free in time; the statement was not sent.
    PoolExhausted,
    /// Ledger and cache: the server is read-only, as a standby is (SQLSTATE 25006, `READONLY`).
    ReadOnly,
    /// Ledger: the disk is full; the transaction was rolled back (SQLSTATE 53100).
    DiskFull,
    /// Cache: the entry is of another type than its key. It has been deleted.
    WrongType,
    /// Cache: the sum would leave the range of an `i64`.
    Overflow,
    /// Cache: the server is at its memory bound and may not evict.
    OutOfMemory,
    /// Ledger: the fence stands at `highest`, held by another or above the claim.
    Fenced {
        /// The epoch of the fence row.
        highest: Epoch,
    },
    /// Ledger: the token was issued before the moment from which its character's tokens count.
    TokenRevoked,
    /// Bus: no stream takes this subject now: there is none, or it has no leader. The message was not stored.
    NoStream,
    /// Bus: the stream takes no more: its limits are reached and it discards what is new, or its storage is full.
    StreamFull,
    /// Bus: another message than the expected one is the last of this subject.
    WrongSequence {
        /// The last of this subject; zero where the bus does not say.
        last: StreamSequence,
    },
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Compacted { oldest } => write!(f, "compacted before revision {oldest}"),
            Self::Fenced { highest } => write!(f, "fenced at epoch {highest}"),
            Self::WrongSequence { last } => write!(f, "the last of the subject is {last}"),
            other => fmt::Debug::fmt(other, f),
        }
    }
}
