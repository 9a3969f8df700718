//! Everything a role can ask of the world, and everything the world can tell it.
//!
//! A door is a module: what may be submitted, what may come back, in which order. `sim/` and `real/` serve each door in a
//! file of the same name. [`Event`] and [`Submission`] are the sums that a host carries; a role has its own, smaller
//! sums, and converts.
//!
//! One door is not in these sums: what a role tells of itself by [`telemetry`] is no submission, and nothing comes back.
//!
//! Order is promised only within one stream class of a connection, within one watch, among a consumer's first deliveries,
//! and among the operations of one connection to the cache. Everything else may overtake.

pub mod bus;
pub mod cache;
pub mod clock;
pub mod directory;
pub mod entropy;
pub mod hooks;
pub mod ledger;
pub mod network;
pub mod telemetry;

use crate::{history::Note, time::Instant};
use clock::TimerKey;
use worldline_proto::OpId;

/// What a host may deliver to a role.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// The first event of an incarnation. The role is as its constructor made it.
    Started,
    /// A timer fired: the node's clock has reached what it was armed for.
    Timer(TimerKey),
    /// Orderly stop was asked for (SIGTERM). The role finishes what it must and then submits [`Submission::Stopped`].
    Stop,
    /// From the network.
    Network(network::Event),
    /// From the directory: the answer to an operation, or news of a watch.
    Directory(directory::Event),
    /// From the ledger: the answer to an operation.
    Ledger(ledger::Event),
    /// From the bus: the answer to an operation, or what a consumer delivers.
    Bus(bus::Event),
    /// From the cache: the answer to an operation.
    Cache(cache::Event),
}

/// An operation on its way to a service.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Asked<S> {
    /// Names the answer.
    pub op: OpId,
    /// By the node's monotonic clock.
    pub deadline: Instant,
    /// What is asked.
    pub submission: S,
}

/// What a role may ask of its host.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Submission {
    /// Fire this timer at `at` by the node's monotonic clock (at once if that has passed); replaces an earlier arming.
    Arm {
        /// Which timer.
        key: TimerKey,
        /// When, on the node's monotonic clock.
        at: Instant,
    },
    /// Forget this timer. Once this is submitted it does not fire, even if it was due.
    Disarm(TimerKey),
    /// To the network.
    Network(network::Submission),
    /// To the directory. Answered once, at the latest at `deadline`.
    Directory(Asked<directory::Submission>),
    /// To the ledger. Answered once, at the latest at `deadline`.
    Ledger(Asked<ledger::Submission>),
    /// To the bus. Answered once, at the latest at `deadline`.
    Bus(Asked<bus::Submission>),
    /// To the cache. Answered once, at the latest at `deadline`.
    Cache(Asked<cache::Submission>),
    /// For the history: something the role did that no door shows.
    Note(alloc::boxed::Box<Note>),
    /// The orderly stop is complete: the host ends the process.
    Stopped,
}
