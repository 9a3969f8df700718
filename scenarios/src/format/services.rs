//! Faults of the services: what befalls ledger, directory, bus and caches beyond their nodes and links.

use super::{
    fields::{Fields, Sink},
    kinds,
    scenario::Selector,
    select::Census,
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

/// Something that goes wrong in the bus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BusFault {
    /// The leader leads no longer; an election follows.
    LeaderChange,
    /// Requests are executed, and their answers swallowed.
    LoseAnswers {
        /// Of which caller; of all where none is named.
        from: Option<Selector>,
        /// To which requests.
        of: BusRequests,
        /// How often, in permille.
        share: u16,
    },
    /// Requests are swallowed.
    LoseRequests {
        /// Of which caller; of all where none is named.
        from: Option<Selector>,
        /// Which requests.
        of: BusRequests,
        /// How often, in permille.
        share: u16,
    },
    /// What consumers deliver arrives later.
    DelayDeliveries {
        /// How much later.
        by: Duration,
    },
    /// Connections end.
    Disconnect {
        /// Of which caller; of all where none is named.
        from: Option<Selector>,
    },
    /// Every consumer is set back by so many messages.
    Rewind(u32),
    /// Every consumer is deleted.
    EndConsumers,
    /// No message id is recognised any more.
    ForgetIds,
    /// Everything is discarded.
    Purge,
    /// The storage is full.
    Full,
}

/// A kind of request to the bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BusRequests {
    /// All of them.
    All,
    /// Publishes.
    Publishes,
    /// Acknowledgements.
    Acknowledgements,
}

/// Something that goes wrong in the caches. A region is an index into the scenario's; `None` is all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CacheFault {
    /// Everything is gone.
    Flush(Option<usize>),
    /// So many of a thousand entries are evicted.
    Evict(Option<usize>, u16),
    /// So many of a thousand entries are replaced by something of another type.
    WrongTypes(Option<usize>, u16),
    /// A follower is promoted.
    Failover(usize),
    /// Followers are told of changes only so much later.
    DelayReplication(Duration),
    /// Servers come to each request only so much later.
    DelayRequests {
        /// Of which caller; of all where none is named.
        from: Option<Selector>,
        /// How much later.
        by: Duration,
    },
    /// Requests are executed, and their answers swallowed.
    LoseAnswers {
        /// Of which caller; of all where none is named.
        from: Option<Selector>,
        /// How often, in permille.
        share: u16,
    },
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

/// The parameters of a fault of the ledger.
pub(super) fn ledger(
    kind: &str,
    fields: &mut Fields<'_, '_>,
    census: &Census<'_>,
    sink: &mut Sink,
) -> Option<LedgerFault> {
    Some(match kind {
        "ledger-lose-answers" => {
            let share = fields.read(&kinds::SHARE, sink);
            let count = fields.read(&kinds::COUNT, sink);
            let from = caller(fields, census, sink);
            LedgerFault::LoseAnswers { from: from?, share: share?, count: count.unwrap_or(u32::MAX) }
        }
        "ledger-lose-connections" => {
            let share = fields.read(&kinds::SHARE, sink);
            let when = fields.read(&kinds::WHEN, sink);
            LedgerFault::LoseConnections { share: share?, when: when? }
        }
        "ledger-delay-commits" => {
            let by = fields.read(&kinds::BY, sink);
            let from = caller(fields, census, sink);
            LedgerFault::DelayCommits { from: from?, by: by? }
        }
        "ledger-conflicts" => {
            let serialization = fields.read_or(&kinds::SERIALIZATION, sink);
            let deadlock = fields.read_or(&kinds::DEADLOCK, sink);
            if serialization == 0 && deadlock == 0 {
                let span = fields.span();
                return sink.report(
                    super::Problem::new(span, "no conflicts", "`serialization` or `deadlock` to be above `0%`")
                        .beyond_shape(),
                );
            }
            LedgerFault::Conflicts { serialization, deadlock }
        }
        "ledger-slow-disk" => LedgerFault::SlowDisk { times: fields.read(&kinds::DISK_TIMES, sink)? },
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
            let share = fields.read(&kinds::SHARE, sink);
            let of = fields.read_or(&kinds::OF, sink);
            let from = caller(fields, census, sink);
            DirectoryFault::LoseAnswers { from: from?, of, share: share? }
        }
        "directory-delay-requests" => {
            let by = fields.read(&kinds::BY, sink);
            let from = caller(fields, census, sink);
            DirectoryFault::DelayRequests { from: from?, by: by? }
        }
        "directory-delay-news" => DirectoryFault::DelayNews { by: fields.read(&kinds::BY, sink)? },
        "directory-revoke-early" => {
            DirectoryFault::RevokeEarly(
                fields.read_with(&kinds::THE_NODE, sink, |value, sink| census.single(value, sink))?,
            )
        }
        "directory-cancel-watches" => DirectoryFault::CancelWatches,
        "directory-compact" => DirectoryFault::Compact,
        "directory-full" => DirectoryFault::DatabaseFull,
        "directory-restore-backup" => DirectoryFault::RestoreBackup { age: fields.read(&kinds::AGE, sink)? },
        "directory-slow-disk" => DirectoryFault::SlowDisk { times: fields.read(&kinds::DISK_TIMES, sink)? },
        _ => DirectoryFault::DisksLie,
    })
}

/// The parameters of a fault of the bus.
pub(super) fn bus(kind: &str, fields: &mut Fields<'_, '_>, census: &Census<'_>, sink: &mut Sink) -> Option<BusFault> {
    Some(match kind {
        "bus-leader-change" => BusFault::LeaderChange,
        "bus-lose-answers" | "bus-lose-requests" => {
            let share = fields.read(&kinds::SHARE, sink);
            let of = fields.read_or(&kinds::OF_BUS, sink);
            let from = caller(fields, census, sink);
            let (from, share) = (from?, share?);
            match kind {
                "bus-lose-answers" => BusFault::LoseAnswers { from, of, share },
                _ => BusFault::LoseRequests { from, of, share },
            }
        }
        "bus-delay-deliveries" => BusFault::DelayDeliveries { by: fields.read(&kinds::BY, sink)? },
        "bus-disconnect" => BusFault::Disconnect { from: caller(fields, census, sink)? },
        "bus-rewind" => BusFault::Rewind(fields.read(&kinds::BACK, sink)?),
        "bus-end-consumers" => BusFault::EndConsumers,
        "bus-forget-ids" => BusFault::ForgetIds,
        "bus-purge" => BusFault::Purge,
        _ => BusFault::Full,
    })
}

/// The parameters of a fault of the caches.
pub(super) fn cache(
    kind: &str,
    fields: &mut Fields<'_, '_>,
    census: &Census<'_>,
    sink: &mut Sink,
) -> Option<CacheFault> {
    Some(match kind {
        "cache-flush" => CacheFault::Flush(cache_of(fields, census, sink)?),
        "cache-evict" | "cache-wrong-types" => {
            let share = fields.read(&kinds::SHARE, sink);
            let region = cache_of(fields, census, sink)?;
            match kind {
                "cache-evict" => CacheFault::Evict(region, share?),
                _ => CacheFault::WrongTypes(region, share?),
            }
        }
        "cache-failover" => {
            let region = fields.read_with(&kinds::THE_CACHE_OF, sink, |value, sink| census.region_named(value, sink));
            CacheFault::Failover(region?)
        }
        "cache-delay-replication" => CacheFault::DelayReplication(fields.read(&kinds::BY, sink)?),
        "cache-delay-requests" => {
            let by = fields.read(&kinds::BY, sink);
            let from = caller(fields, census, sink);
            CacheFault::DelayRequests { from: from?, by: by? }
        }
        _ => {
            let share = fields.read(&kinds::SHARE, sink);
            let from = caller(fields, census, sink);
            CacheFault::LoseAnswers { from: from?, share: share? }
        }
    })
}

/// The region whose cache a fault concerns, if it is one. The outer `None` is a reported problem.
fn cache_of(fields: &mut Fields<'_, '_>, census: &Census<'_>, sink: &mut Sink) -> Option<Option<usize>> {
    match fields.value(&kinds::CACHE_OF) {
        Some(value) => census.region_named(value, sink).map(Some),
        None => Some(None),
    }
}

/// The caller that a fault concerns, if it is one. The outer `None` is a reported problem.
fn caller(fields: &mut Fields<'_, '_>, census: &Census<'_>, sink: &mut Sink) -> Option<Option<Selector>> {
    match fields.value(&kinds::CALLER) {
        Some(value) => census.single(value, sink).map(Some),
        None => Some(None),
    }
}
