//! Faults of the services: what befalls the ledger and the directory beyond their nodes and links.

use super::{
    fields::{Fields, Sink},
    scenario::Selector,
    select::Census,
    units,
};
use worldline_system::time::Duration;

/// Something that goes wrong in the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LedgerFault {
    /// Statements commit, and their answers are swallowed.
    LoseAnswers {
        /// Of which caller; of all where none is named.
        from: Option<Selector>,
        /// How often, in permille.
        share: u16,
        /// At most so many.
        count: u32,
    },
    /// Connections break.
    LoseConnections {
        /// How often, in permille of the statements.
        share: u16,
        /// At which moment.
        when: Moment,
    },
    /// Commits wait at the server and execute only later.
    DelayCommits {
        /// Of which caller; of all where none is named.
        from: Option<Selector>,
        /// How much later.
        by: Duration,
    },
    /// Transactions are rolled back because of others, in permille.
    Conflicts {
        /// As serialization failures.
        serialization: u16,
        /// As victims of a deadlock.
        deadlock: u16,
    },
    /// Every disk is so many times as slow.
    SlowDisk {
        /// How many times.
        times: u32,
    },
    /// Disks say that they have synced and have not.
    DisksLie,
    /// The primary refuses writes.
    ReadOnly,
    /// The primary's disk is full.
    DiskFull,
    /// A planned change of the primary.
    Switchover,
}

/// Something that goes wrong in the directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DirectoryFault {
    /// The leader leads no longer; an election follows.
    LeaderChange,
    /// Requests are executed, and their answers swallowed.
    LoseAnswers {
        /// Of which caller; of all where none is named.
        from: Option<Selector>,
        /// To which requests.
        of: Requests,
        /// How often, in permille.
        share: u16,
    },
    /// Requests are looked at only later, even after their caller has given up.
    DelayRequests {
        /// Of which caller; of all where none is named.
        from: Option<Selector>,
        /// How much later.
        by: Duration,
    },
    /// News of watches arrive later.
    DelayNews {
        /// How much later.
        by: Duration,
    },
    /// The lease of a node is revoked although it has not expired.
    RevokeEarly(Selector),
    /// Every watch is cancelled.
    CancelWatches,
    /// The past is compacted away.
    Compact,
    /// The database is over its quota.
    DatabaseFull,
    /// The cluster is restored from a backup of this age.
    RestoreBackup {
        /// How old.
        age: Duration,
    },
    /// Every disk is so many times as slow.
    SlowDisk {
        /// How many times.
        times: u32,
    },
    /// Disks say that they have synced and have not.
    DisksLie,
}

/// A kind of request to the directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Requests {
    /// All of them.
    All,
    /// Grants of leases.
    Grants,
    /// Renewals of leases.
    Renewals,
    /// Transactions.
    Transactions,
}

/// When, seen from a commit, its connection breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// Nothing was executed.
    Before,
    /// It lands or does not.
    During,
    /// It has landed.
    After,
}

/// Kinds of faults of the services, their keys, and whether they go on.
pub(super) const KINDS: &[(&str, &[&str], super::faults::Ends)] = {
    use super::faults::Ends::{AtOnce, Later};
    &[
        ("ledger-lose-answers", &["share", "from", "count"], Later),
        ("ledger-lose-connections", &["share", "when"], Later),
        ("ledger-delay-commits", &["by", "from"], Later),
        ("ledger-conflicts", &["serialization", "deadlock"], Later),
        ("ledger-slow-disk", &["times"], Later),
        ("ledger-disks-lie", &[], Later),
        ("ledger-read-only", &[], Later),
        ("ledger-disk-full", &[], Later),
        ("ledger-switchover", &[], AtOnce),
        ("directory-leader-change", &[], AtOnce),
        ("directory-lose-answers", &["share", "from", "of"], Later),
        ("directory-delay-requests", &["by", "from"], Later),
        ("directory-delay-news", &["by"], Later),
        ("directory-revoke-early", &["node"], AtOnce),
        ("directory-cancel-watches", &[], AtOnce),
        ("directory-compact", &[], AtOnce),
        ("directory-full", &[], Later),
        ("directory-restore-backup", &["age"], AtOnce),
        ("directory-slow-disk", &["times"], Later),
        ("directory-disks-lie", &[], Later),
    ]
};

/// The parameters of a fault of the ledger.
pub(super) fn ledger(
    kind: &str,
    fields: &mut Fields<'_, '_>,
    census: &Census<'_>,
    sink: &mut Sink,
) -> Option<LedgerFault> {
    Some(match kind {
        "ledger-lose-answers" => {
            let share = fields.required("share", sink, units::permille);
            let count = fields.optional("count", sink, units::whole(1..=1_000_000, "a number of answers"));
            let from = caller(fields, census, sink);
            LedgerFault::LoseAnswers { from: from?, share: share?, count: count.unwrap_or(u32::MAX) }
        }
        "ledger-lose-connections" => {
            const WHEN: &[(&str, Moment)] =
                &[("before", Moment::Before), ("during", Moment::During), ("after", Moment::After)];
            let share = fields.required("share", sink, units::permille);
            let when = fields.required("when", sink, units::word(WHEN, "a moment of a commit"));
            LedgerFault::LoseConnections { share: share?, when: when? }
        }
        "ledger-delay-commits" => {
            let by =
                fields.required("by", sink, units::duration_in(Duration::from_millis(1)..=Duration::from_secs(600)));
            let from = caller(fields, census, sink);
            LedgerFault::DelayCommits { from: from?, by: by? }
        }
        "ledger-conflicts" => {
            let mut share = |key| fields.optional(key, sink, units::permille).unwrap_or(0);
            let (serialization, deadlock) = (share("serialization"), share("deadlock"));
            if serialization == 0 && deadlock == 0 {
                let span = fields.span();
                return sink.report(super::Problem::new(
                    span,
                    "no conflicts",
                    "`serialization` or `deadlock` to be above `0%`",
                ));
            }
            LedgerFault::Conflicts { serialization, deadlock }
        }
        "ledger-slow-disk" => LedgerFault::SlowDisk { times: times(fields, sink)? },
        "ledger-disks-lie" => LedgerFault::DisksLie,
        "ledger-read-only" => LedgerFault::ReadOnly,
        "ledger-disk-full" => LedgerFault::DiskFull,
        _ => LedgerFault::Switchover,
    })
}

/// The parameters of a fault of the directory.
pub(super) fn directory(
    kind: &str,
    fields: &mut Fields<'_, '_>,
    census: &Census<'_>,
    sink: &mut Sink,
) -> Option<DirectoryFault> {
    Some(match kind {
        "directory-leader-change" => DirectoryFault::LeaderChange,
        "directory-lose-answers" => {
            const OF: &[(&str, Requests)] = &[
                ("all", Requests::All),
                ("grants", Requests::Grants),
                ("renewals", Requests::Renewals),
                ("transactions", Requests::Transactions),
            ];
            let share = fields.required("share", sink, units::permille);
            let of = fields.optional("of", sink, units::word(OF, "a kind of request")).unwrap_or(Requests::All);
            let from = caller(fields, census, sink);
            DirectoryFault::LoseAnswers { from: from?, of, share: share? }
        }
        "directory-delay-requests" => {
            let by = delay("by", fields, sink);
            let from = caller(fields, census, sink);
            DirectoryFault::DelayRequests { from: from?, by: by? }
        }
        "directory-delay-news" => DirectoryFault::DelayNews { by: delay("by", fields, sink)? },
        "directory-revoke-early" => {
            DirectoryFault::RevokeEarly(fields.required("node", sink, |value, sink| census.single(value, sink))?)
        }
        "directory-cancel-watches" => DirectoryFault::CancelWatches,
        "directory-compact" => DirectoryFault::Compact,
        "directory-full" => DirectoryFault::DatabaseFull,
        "directory-restore-backup" => DirectoryFault::RestoreBackup { age: delay("age", fields, sink)? },
        "directory-slow-disk" => DirectoryFault::SlowDisk { times: times(fields, sink)? },
        _ => DirectoryFault::DisksLie,
    })
}

/// The caller that a fault concerns, if it is one. The outer `None` is a reported problem.
fn caller(fields: &mut Fields<'_, '_>, census: &Census<'_>, sink: &mut Sink) -> Option<Option<Selector>> {
    match fields.value("from") {
        Some(value) => census.single(value, sink).map(Some),
        None => Some(None),
    }
}

fn delay(key: &'static str, fields: &mut Fields<'_, '_>, sink: &mut Sink) -> Option<Duration> {
    fields.required(key, sink, units::duration_in(Duration::from_millis(1)..=Duration::from_secs(600)))
}

fn times(fields: &mut Fields<'_, '_>, sink: &mut Sink) -> Option<u32> {
    fields.required("times", sink, units::whole(2..=10_000, "a whole number"))
}
