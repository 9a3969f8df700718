//! The client under the adapter's loops: connections, each to one member, and what comes over them.
//!
//! * A connection that is over stays over. Nothing is repeated here.
//! * A [`Verdict`] is worth what it says: what is refused has certainly not happened, what never left will not happen either.
//! * Deadlines are the adapter's: whoever drops a future waits no longer. Only a connect has an end of its own.
//!
//! Production has one client (`etcd`); whoever gives another finds the same loops above it.

use super::Endpoint;
use futures_util::Stream;
use std::{
    fmt,
    pin::Pin,
    sync::{Arc, atomic::AtomicU64},
};
use tokio::sync::oneshot;
use worldline_proto::{LeaseId, Revision};
use worldline_system::{
    Refusal,
    doors::directory::{Change, Consistency, Family, GapCause, Key, Page, Record, Transacted, Transaction},
    time::Duration,
};

/// What a client will have done.
pub type Pending<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;
/// What comes over a connection, in its order; it ends with the connection.
pub type Coming<T> = Pin<Box<dyn Stream<Item = T> + Send>>;
/// A record, if there is one, and the revision that was read.
pub type Found = (Option<Record>, Revision);

/// Why an operation came to no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It was never sent: there was no connection any more. It can be sent on another one.
    NeverLeft,
    /// It was certainly not executed.
    Refused(Refusal),
    /// It may have been executed, or may yet be.
    Unknown,
}

/// Opens connections.
pub trait Client: fmt::Debug + Send + Sync {
    /// Connects to a member that has shown itself to be etcd, or says what is wrong. An address may stand for several members:
    /// behind another number of tries, another is asked first.
    fn connect<'a>(&'a self, endpoint: &'a Endpoint, tries: usize) -> Pending<'a, Result<Connected, String>>;
}

/// A connection that was opened.
pub struct Connected {
    /// What can be asked of it.
    pub connection: Box<dyn Connection>,
    /// How it ends.
    pub ends: Ends,
}

impl fmt::Debug for Connected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connected").field("ends", &self.ends).finish_non_exhaustive()
    }
}

/// What the keeper of a connection holds of it.
#[derive(Debug)]
pub struct Ends {
    /// Dropped with this: ends the connection.
    pub hang_up: oneshot::Sender<()>,
    /// Completes when the connection is gone.
    pub gone: oneshot::Receiver<()>,
    /// How many bytes have come over it.
    pub heard_bytes: Arc<AtomicU64>,
}

/// A connection to one member.
pub trait Connection: Send + Sync {
    /// A read that costs nothing: whether the member lives, or, where it is linearizable, also has a quorum. In words what is
    /// wrong.
    fn probe(&self, consistency: Consistency) -> Pending<'_, Result<(), String>>;

    /// Creates a lease.
    fn grant(&self, lease: LeaseId, ttl: Duration) -> Pending<'_, Result<(), Verdict>>;

    /// Ends a lease.
    fn revoke(&self, lease: LeaseId) -> Pending<'_, Result<(), Verdict>>;

    /// Opens a stream of renewals of a lease.
    fn renewals(&self, lease: LeaseId) -> Pending<'_, Result<Box<dyn Renewals>, Verdict>>;

    /// Compares and writes.
    fn transact<'a>(&'a self, transaction: &'a Transaction) -> Pending<'a, Result<Transacted, Verdict>>;

    /// Reads a page.
    fn read(&self, asked: Range) -> Pending<'_, Result<Page, Verdict>>;

    /// Reads a key.
    fn get(&self, key: Key, consistency: Consistency) -> Pending<'_, Result<Found, Verdict>>;

    /// Opens a watch of what changes in a family from a revision on; it may turn out later that the revision is compacted.
    fn watch(&self, family: Family, from: Revision) -> Pending<'_, Result<Watched, Verdict>>;

    /// What had changed last before a revision; refused where not everything from that revision on can still be watched.
    fn latest<'a>(&'a self, among: Among<'a>, before: Revision) -> Pending<'a, Result<Option<Latest>, Verdict>>;
}

/// A page that is to be read.
#[derive(Clone, Copy, Debug)]
pub struct Range {
    /// Of which family.
    pub family: Family,
    /// Only keys behind this one.
    pub after: Option<Key>,
    /// At most so many records.
    pub limit: u16,
    /// At this revision; `None` is now.
    pub at: Option<Revision>,
    /// How fresh.
    pub consistency: Consistency,
}

/// A stream of renewals of one lease: what is asked on it is answered in order.
pub trait Renewals: fmt::Debug + Send {
    /// Renews: the time to live, or `None` where there is no such lease any more.
    fn renew(&mut self) -> Pending<'_, Result<Option<Duration>, Verdict>>;
}

/// A watch that was opened.
pub struct Watched {
    /// Which state of which directory has opened it.
    pub state: State,
    /// What it tells, and at last why it has a gap, if the member says so. Otherwise its end says nothing of what it has missed.
    pub news: Coming<Result<Told, GapCause>>,
}

impl fmt::Debug for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watched").field("state", &self.state).finish_non_exhaustive()
    }
}

/// A state of a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    /// Which directory.
    pub cluster: u64,
    /// The term of its leader.
    pub term: u64,
    /// What it had come to.
    pub revision: Revision,
}

/// What a watch tells at once.
#[derive(Clone, Debug)]
pub struct Told {
    /// Who tells it.
    pub state: Option<State>,
    /// What has changed, if anything has.
    pub changed: Option<Changed>,
}

/// Whole revisions.
#[derive(Clone, Debug)]
pub struct Changed {
    /// The last of them.
    pub revision: Revision,
    /// What they have changed, as far as roles can read it.
    pub changes: Arc<[Change]>,
    /// What the last of all changes left.
    pub latest: Option<Latest>,
}

/// Among what a change is looked for.
#[derive(Clone, Copy, Debug)]
pub enum Among<'a> {
    /// A whole family.
    Family(Family),
    /// A key, by its path.
    Path(&'a [u8]),
}

/// The key that changed last, and what stands there: `None` where it was deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Latest {
    /// Its path: nobody says that it is a key of a role.
    pub path: Vec<u8>,
    /// What stands there.
    pub stands: Option<Stands>,
}

impl Latest {
    /// Where nothing stands.
    #[must_use]
    pub fn nothing_at(path: &[u8]) -> Self {
        Self { path: path.to_vec(), stands: None }
    }
}

/// A record's making: another history does not repeat it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stands {
    /// The revision that has created the key.
    pub created: Revision,
    /// The revision of its last change.
    pub modified: Revision,
    /// How often it was written since it was created.
    pub version: u64,
    /// The lease that it goes with; 0 is none.
    pub lease: u64,
    /// Of its value.
    pub value_hash: u64,
}
