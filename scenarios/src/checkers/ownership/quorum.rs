//! O9: a directory that has lost its majority grants, renews and commits nothing.

use super::super::table::Table;
use crate::checkers::{Check, Checker, Facts, Invariant, Setup, breach};
use std::fmt;
use worldline_proto::NodeId;
use worldline_system::{
    history::{Acceptance, Entry, What},
    time::{Duration, Instant},
};

/// Acknowledgements that were under way when a link was cut still arrive: so long after it a commit may still complete.
const IN_FLIGHT: Duration = Duration::from_secs(2);

/// O9. Looks at the members around whichever one served.
#[derive(Clone, Debug)]
pub struct Quorum {
    members: Vec<NodeId>,
    /// Since when each member is without a majority.
    lost: Table<NodeId, Option<Instant>>,
    seen: bool,
}

impl Quorum {
    fn look(&mut self, entry: &Entry, facts: &Facts<'_>) {
        let Some(majority) = facts.directory_majority else { return };
        for &member in &self.members {
            let lost = self.lost.slot(member);
            *lost = if majority(member) { None } else { lost.or(Some(entry.at)) };
        }
    }

    fn commit(&mut self, entry: &Entry, facts: &Facts<'_>, did: &str, what: &dyn fmt::Display) -> Check {
        let Some(majority) = facts.directory_majority else { return Ok(()) };
        self.seen = true;
        let lost = self.lost.slot(entry.node);
        if majority(entry.node) {
            *lost = None;
            return Ok(());
        }
        let alone = entry.at.since(*lost.get_or_insert(entry.at));
        if alone > IN_FLIGHT {
            breach!("member {} {did} {what}, and has been without a majority for {alone}", entry.node);
        }
        Ok(())
    }
}

impl Checker for Quorum {
    const INVARIANT: Invariant = Invariant::O9;

    fn new(setup: &Setup) -> Self {
        Self { members: setup.directory.clone(), lost: Table::default(), seen: false }
    }

    fn on_entry(&mut self, entry: &Entry, facts: &Facts<'_>) -> Check {
        match &entry.what {
            What::FaultInjected(_) | What::Healed | What::Started | What::Crashed | What::Stopped => {
                self.look(entry, facts);
                Ok(())
            }
            What::Accepted(Acceptance::LeaseGranted { lease, .. }) => self.commit(entry, facts, "granted", lease),
            What::Accepted(Acceptance::LeaseRenewed { lease }) => self.commit(entry, facts, "renewed", lease),
            What::Accepted(Acceptance::LeaseEnded { lease }) => self.commit(entry, facts, "ended", lease),
            What::Accepted(Acceptance::DirectoryChanged { revision, .. }) => {
                self.commit(entry, facts, "committed revision", revision)
            }
            _ => Ok(()),
        }
    }

    fn not_checked(&self) -> Option<&'static str> {
        (!self.seen).then_some("nobody could tell which members stood together when the directory committed")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkers::story::*;
    use worldline_proto::Revision;

    fn committed(revision: u64) -> What {
        let changes = [].into();
        What::Accepted(Acceptance::DirectoryChanged { revision: Revision(revision), changes })
    }

    /// Member 60 is cut off from the two others by a fault at 1 s; what it commits afterwards, and when.
    fn first_breach(member: u32, ms: u64, what: What) -> Option<usize> {
        let entries = tell([
            (500, 60, committed(1)),
            (1_000, 0, What::FaultInjected(1)),
            (1_050, 60, committed(2)),
            (ms, member, what),
        ]);
        let mut checker = Quorum::new(&setup());
        entries.iter().position(|entry| {
            let together = |member: NodeId| entry.at < at(1_000) || member != NodeId(60);
            checker.on_entry(entry, &Facts { directory_majority: Some(&together) }).is_err()
        })
    }

    #[test]
    fn o9_a_member_without_a_majority_commits_nothing() {
        assert_eq!(first_breach(61, 9_000, committed(3)), None, "the majority goes on");
        assert_eq!(first_breach(60, 2_900, committed(3)), None, "its acknowledgements were under way");
        assert_eq!(first_breach(60, 3_001, committed(3)), Some(3));
        let granted = What::Accepted(Acceptance::LeaseGranted { lease: lease(1), ttl: Duration::from_secs(10) });
        assert_eq!(first_breach(60, 3_001, granted), Some(3));
        let renewed = What::Accepted(Acceptance::LeaseRenewed { lease: lease(1) });
        assert_eq!(first_breach(60, 3_001, renewed), Some(3));
    }
}
