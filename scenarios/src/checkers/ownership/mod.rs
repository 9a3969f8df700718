//! O1–O5, O8, O9, O11: who may write an entity, and that somebody may.

mod clock;
mod failovers;
mod fence;
mod identity;
mod orphans;
mod owners;
mod quorum;
mod sinks;

pub use clock::OwnClock;
pub use failovers::OneLeader;
pub use fence::{OneWriter, RisingEpochs};
pub use identity::DeadIdentities;
pub use orphans::NoOrphans;
pub use owners::Owners;
pub use quorum::Quorum;
pub use sinks::MonotonicSinks;

use worldline_system::{doors::ledger::Authority, history::Note};

/// The authority under which a worker says that it acts.
fn acts_under(note: &Note) -> Option<Authority> {
    match note {
        Note::Serving { authority, .. }
        | Note::Emitted { authority, .. }
        | Note::Moved { authority, .. }
        | Note::AnswerSent { authority, .. } => Some(*authority),
        _ => None,
    }
}
