//! What the sinks did and what became of leases, counted from the history.

use std::collections::{BTreeMap, BTreeSet};
use worldline_proto::{Incarnation, LeaseId, NodeId};
use worldline_system::{
    doors::ledger::Verdict,
    history::{Acceptance, Entry, Note, What},
};

/// How often the sinks did what only a fault brings about, and how often somebody was thought dead. Told beside the probes of
/// the roles.
#[derive(Clone, Debug, Default)]
pub(super) struct Sinks {
    leases_ended: u64,
    operations_fenced: u64,
    operations_stored: u64,
    /// Workers that fell silent because their lease might have ended.
    suspended: u64,
    /// Whose each worker's identity is.
    holders: BTreeMap<LeaseId, (NodeId, Incarnation)>,
    /// Processes that are gone.
    gone: BTreeSet<(NodeId, Incarnation)>,
    /// Identities that an orchestrator found dead.
    found_dead: BTreeSet<LeaseId>,
    /// Of these, those whose process lived on: false alarms.
    found_dead_alive: u64,
}

impl Sinks {
    pub(super) fn on_entry(&mut self, entry: &Entry) {
        match &entry.what {
            What::Accepted(Acceptance::LeaseEnded { .. }) => self.leases_ended += 1,
            What::Accepted(Acceptance::OperationPassed { verdict: Verdict::Fenced { .. }, .. }) => {
                self.operations_fenced += 1;
            }
            What::Accepted(Acceptance::OperationPassed { verdict: Verdict::Stored(_), .. }) => {
                self.operations_stored += 1;
            }
            What::Crashed | What::Stopped => {
                self.gone.insert((entry.node, entry.incarnation));
            }
            What::Noted(Note::Identity { lease, .. }) => {
                self.holders.insert(*lease, (entry.node, entry.incarnation));
            }
            What::Noted(Note::Suspended { .. }) => self.suspended += 1,
            What::Noted(Note::FoundDead { lease, .. }) if self.found_dead.insert(*lease) => {
                let lives = self.holders.get(lease).is_some_and(|holder| !self.gone.contains(holder));
                self.found_dead_alive += u64::from(lives);
            }
            _ => {}
        }
    }

    pub(super) fn probes(&self) -> [(String, u64); 6] {
        [
            ("directory.lease-ended".into(), self.leases_ended),
            ("ledger.operation-fenced".into(), self.operations_fenced),
            ("ledger.operation-stored".into(), self.operations_stored),
            ("worker.suspended".into(), self.suspended),
            ("orchestrator.found-dead".into(), self.found_dead.len() as u64),
            ("orchestrator.found-dead-but-alive".into(), self.found_dead_alive),
        ]
    }
}
