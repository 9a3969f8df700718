//! What the sinks did, counted from the history.

use worldline_system::{
    doors::ledger::Verdict,
    history::{Acceptance, Entry, What},
};

/// How often the sinks did what only a fault brings about. Told beside the probes of the roles.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sinks {
    leases_ended: u64,
    operations_fenced: u64,
    operations_stored: u64,
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
            _ => {}
        }
    }

    pub(super) fn probes(self) -> [(String, u64); 3] {
        [
            ("directory.lease-ended".into(), self.leases_ended),
            ("ledger.operation-fenced".into(), self.operations_fenced),
            ("ledger.operation-stored".into(), self.operations_stored),
        ]
    }
}
