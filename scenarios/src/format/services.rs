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
    ]
};

/// The parameters of a fault of the ledger.
pub(super) fn ledger(
    kind: &str,
    fields: &mut Fields<'_, '_>,
    census: &Census<'_>,
    sink: &mut Sink,
) -> Option<LedgerFault> {
    // The outer `None` is a reported problem.
    let from = |fields: &mut Fields<'_, '_>, sink: &mut Sink| match fields.value("from") {
        Some(value) => census.single(value, sink).map(Some),
        None => Some(None),
    };
    Some(match kind {
        "ledger-lose-answers" => {
            let share = fields.required("share", sink, units::permille);
            let count = fields.optional("count", sink, units::whole(1..=1_000_000, "a number of answers"));
            let from = from(fields, sink);
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
            let from = from(fields, sink);
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
        "ledger-slow-disk" => {
            let times: Option<u32> = fields.required("times", sink, units::whole(2..=10_000, "a whole number"));
            LedgerFault::SlowDisk { times: times? }
        }
        "ledger-disks-lie" => LedgerFault::DisksLie,
        "ledger-read-only" => LedgerFault::ReadOnly,
        "ledger-disk-full" => LedgerFault::DiskFull,
        _ => LedgerFault::Switchover,
    })
}
