//! Facts after their commit: published once, right behind the answers, and flagged in a later batch once the bus has them.
//!
//! Nothing here must succeed. What is not known to be published, for whatever reason, the relay publishes; what was published
//! and not flagged it publishes again, under the same id. So every bound here sheds, and a silent worker publishes nothing.
//! Publishing late harms nobody either: a fact is true whoever tells it, and is never dropped for its epoch.

use super::{
    Submission,
    telemetry::{Simulation, simulation_of},
};
use crate::{
    Outcome, Turn,
    doors::{bus, ledger::FactRow, telemetry::Metric},
    facts::{self, Broadcast},
    limits, reached,
    time::Instant,
};
use alloc::{
    collections::{BTreeMap, VecDeque},
    vec::Vec,
};
use worldline_proto::{EntityId, FactSequence, OpId};

/// What this worker has told, and what it still has to say of it.
#[derive(Clone, Debug, Default)]
pub(super) struct Outgoing {
    publishing: BTreeMap<OpId, Broadcast>,
    /// Published, and not yet flagged.
    flags: VecDeque<(EntityId, FactSequence)>,
    /// When the first of the flags must go, if nothing else does.
    due: Option<Instant>,
}

impl Outgoing {
    /// Publishes what a batch has written.
    pub fn publish(&mut self, written: &[FactRow], simulations: &[Simulation], turn: &mut Turn<'_, Submission>) {
        let room = limits::PUBLISHES_IN_FLIGHT.saturating_sub(self.publishing.len());
        if room < written.len() {
            let left = (written.len() - room) as u64;
            turn.count(Metric::FactsLeftToRelayTotal, &[], left);
            reached!(turn, "worker.fact-left-to-relay");
        }
        for fact in written.iter().take(room) {
            let op = facts::publish(fact, turn);
            self.publishing.insert(op, Broadcast::new(fact, simulation_of(simulations, fact), turn.now()));
        }
    }

    pub fn on_published(&mut self, op: OpId, outcome: &Outcome<bus::Published>, turn: &mut Turn<'_, Submission>) {
        let Some(publishing) = self.publishing.remove(&op) else { return };
        publishing.tell(op, outcome, turn);
        let fact = publishing.fact;
        match outcome {
            Outcome::Done(_) if self.flags.len() < limits::FLAGS_WAITING => {
                self.flags.push_back(fact);
                self.due.get_or_insert(turn.now() + limits::FLAG_WAIT);
            }
            // `Unknown` may be stored, and is published again under its id; the relay does it for all of these.
            Outcome::Done(_) | Outcome::Unknown | Outcome::Refused(_) => {
                turn.count(Metric::FactsLeftToRelayTotal, &[], 1);
                reached!(turn, "worker.fact-left-to-relay");
            }
        }
    }

    /// Whether flags have waited long enough for a batch of their own: before the relay takes their facts for lost.
    pub fn is_due(&self, now: Instant) -> bool {
        self.due.is_some_and(|due| due <= now)
    }

    /// The flags for a batch that goes now.
    pub fn take_flags(&mut self, now: Instant) -> Vec<(EntityId, FactSequence)> {
        let taken = self.flags.len().min(limits::BATCH_FLAGS);
        let flags = self.flags.drain(..taken).collect();
        self.due = (!self.flags.is_empty()).then_some(now);
        flags
    }

    pub fn queues(&self, report: &mut dyn FnMut(&'static str, usize, usize)) {
        report("worker.publishes", self.publishing.len(), limits::PUBLISHES_IN_FLIGHT);
        report("worker.flags", self.flags.len(), limits::FLAGS_WAITING);
    }
}
