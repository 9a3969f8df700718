//! What can be made to go wrong with the directory, beyond what befalls its nodes and links.

use super::Model;
use crate::{
    Core, Purpose,
    replication::{Disk, happens},
};
use worldline_proto::{LeaseId, NodeId};
use worldline_system::{
    doors::directory::{Family, Key, Record, Submission, Value},
    time::Duration,
};

/// Something that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// The leader leads no longer; an election follows.
    LeaderChange,
    /// Requests are executed and their answers swallowed.
    LoseAnswers {
        /// Of which caller; `None` for all.
        from: Option<NodeId>,
        /// To which submissions.
        of: Which,
        /// How often, in a thousand.
        permille: u16,
    },
    /// Requests sit at their member and are looked at only later, even after their caller has given up.
    DelayRequests {
        /// Of which caller; `None` for all.
        from: Option<NodeId>,
        /// How much later.
        by: Duration,
    },
    /// News of watches arrive later.
    DelayNews {
        /// How much later.
        by: Duration,
    },
    /// A lease is revoked although it has not expired, as a leader does that had stalled and does not know that it leads
    /// no longer (etcd issue 15247).
    RevokeEarly {
        /// Which.
        lease: LeaseId,
    },
    /// The same, for every worker at a node.
    RevokeEarlyAt {
        /// Where the worker is.
        node: NodeId,
    },
    /// Every watch is cancelled.
    CancelWatches,
    /// The past is compacted away, up to the present revision.
    Compact,
    /// The database is over its quota: nothing is taken but reads and deletes.
    DatabaseFull {
        /// Begins or ends it.
        on: bool,
    },
    /// The cluster is restored from a backup: revisions go back, and every connection breaks.
    RestoreBackup {
        /// How old the backup is. One older than the history that is kept is as old as that.
        age: Duration,
    },
    /// A disk takes so many thousandths of its usual time: of one member, or of all.
    SlowDisk {
        /// Which member; `None` for all.
        member: Option<NodeId>,
        /// 1,000 is healthy.
        factor_permille: u32,
    },
    /// A disk says that it has synced and has not: of one member, or of all.
    DisksLie {
        /// Which member; `None` for all.
        member: Option<NodeId>,
        /// Begins or ends it.
        on: bool,
    },
}

/// A kind of submission.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Which {
    /// All of them.
    All,
    /// Grants of leases.
    Grants,
    /// Renewals of leases.
    Renewals,
    /// Transactions.
    Transactions,
}

impl Which {
    const fn holds(self, submission: &Submission) -> bool {
        match self {
            Self::All => true,
            Self::Grants => matches!(submission, Submission::Grant { .. }),
            Self::Renewals => matches!(submission, Submission::KeepAlive(_)),
            Self::Transactions => matches!(submission, Submission::Transact(_)),
        }
    }
}

/// The faults that go on.
#[derive(Clone, Debug, Default)]
pub(super) struct Faults {
    pub lose_answers: Option<(Option<NodeId>, Which, u16)>,
    pub delay_requests: Option<(Option<NodeId>, Duration)>,
    pub delay_news: Duration,
    pub database_full: bool,
}

impl Faults {
    /// Whether the answer to request `n` is swallowed.
    pub fn swallows(&self, core: &Core, client: NodeId, submission: &Submission, n: u64) -> bool {
        self.lose_answers.is_some_and(|(from, which, permille)| {
            from.is_none_or(|from| from == client)
                && which.holds(submission)
                && happens(core.draw(Purpose::Directory, 2 << 32, n), permille)
        })
    }

    /// How long the requests of this caller are held back.
    pub fn delay(&self, client: NodeId) -> Option<Duration> {
        let (from, by) = self.delay_requests?;
        (by > Duration::ZERO && from.is_none_or(|from| from == client)).then_some(by)
    }
}

impl Model {
    pub(super) fn fail(&mut self, core: &mut Core, fault: Fault) {
        let faults = &mut self.faults;
        match fault {
            Fault::LoseAnswers { from, of, permille } => faults.lose_answers = Some((from, of, permille)),
            Fault::DelayRequests { from, by } => faults.delay_requests = Some((from, by)),
            Fault::DelayNews { by } => faults.delay_news = by,
            Fault::DatabaseFull { on } => faults.database_full = on,
            Fault::LeaderChange => {
                if let Some(leader) = self.leading(core) {
                    let term = self.members[leader].term;
                    self.step_down(core, leader, term);
                    // It has fallen behind the others' timers, so that another member leads next where there is one.
                    self.members[leader].election_at = core.now() + super::ELECTION * 3;
                }
            }
            Fault::RevokeEarly { lease } => self.revoke_early(core, lease),
            Fault::RevokeEarlyAt { node } => {
                let at_node = |record: Record| match (record.key, record.value) {
                    (Key::Worker(lease), Value::Worker(worker)) if worker.node == node => Some(lease),
                    _ => None,
                };
                let leases: Vec<LeaseId> = self.store.records(Family::Workers).filter_map(at_node).collect();
                leases.into_iter().for_each(|lease| self.revoke_early(core, lease));
            }
            Fault::CancelWatches => self.end_all_watches(core),
            Fault::Compact => self.store.compact(),
            Fault::RestoreBackup { age } => self.restore(core, age),
            Fault::SlowDisk { member, factor_permille } => self.disks(member, |disk| disk.slow_down(factor_permille)),
            Fault::DisksLie { member, on } => self.disks(member, |disk| disk.lie(on)),
        }
    }

    fn revoke_early(&mut self, core: &mut Core, lease: LeaseId) {
        if let Some(leader) = self.leading(core) {
            self.propose_revoke(core, leader, lease);
        }
    }

    fn disks(&mut self, member: Option<NodeId>, change: impl Fn(&mut Disk)) {
        let chosen = self.members.iter_mut().filter(|each| member.is_none_or(|node| node == each.node));
        chosen.for_each(|member| change(&mut member.disk));
    }

    /// Every member begins anew with what the backup holds; the next leader is elected among them.
    fn restore(&mut self, core: &mut Core, age: Duration) {
        let index = self.store.index_at(core.now() - age);
        self.store.roll_back(index);
        let at = (self.store.applied(), self.store.applied_term());
        let term = self.members.iter().map(|member| member.term).max().unwrap_or(0) + 1;
        for member in &mut self.members {
            member.crash(false);
            member.log.replace(at);
            member.disk.replace(at.0);
            (member.term, member.voted) = (term, None);
            (member.commit, member.applied) = (at.0, at.0);
            member.revision = self.store.revision();
            member.heard_at = worldline_system::time::Instant::default();
        }
        self.hold_elections_off(core);
        self.disconnect_all(core);
        self.end_all_watches(core);
    }
}
