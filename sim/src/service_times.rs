//! How long services work on what they are asked, the network apart. Every model takes its figures from here.
//!
//! Deliberately absent: the figures. Who builds a world brings those that were measured; without them a service answers at
//! once, and its disk is a cloud's network disk.

use crate::entropy::below;
use worldline_system::{
    doors::{bus, directory, ledger},
    time::Duration,
};

/// What a request takes: so much for itself, and so much for each thing that it is made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// For the request.
    pub request: Duration,
    /// For each operation, entity or record in it.
    pub each: Duration,
}

impl Work {
    fn of(self, things: usize) -> Duration {
        self.request + self.each * things as u64
    }
}

/// How long a disk takes to sync a log: points of the distribution, in rising order of both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SyncTimes(pub [(u16, Duration); SyncTimes::POINTS]);

impl SyncTimes {
    /// Points that a distribution is given by: thousandths of all syncs, and how long those take at most. The first is at 0, the
    /// last at 1,000.
    pub const POINTS: usize = 6;
    const WHOLE: u64 = 1_000_000;

    /// How long one takes, by 64 bits that were drawn for it: a straight line from point to point.
    pub(crate) fn of(&self, bits: u64) -> Duration {
        let at = below(bits, Self::WHOLE);
        let place = |permille: u16| u64::from(permille) * (Self::WHOLE / 1_000);
        let pairs = self.0.iter().zip(&self.0[1..]);
        let (from, to) = pairs.clone().find(|(_, to)| at < place(to.0)).unwrap_or((&self.0[0], &self.0[0]));
        let (width, rise) = (place(to.0).saturating_sub(place(from.0)).max(1), to.1 - from.1);
        from.1 + rise * (at - place(from.0)) / width
    }
}

/// A cloud's network disk: 0.6 to 1.4 ms, and up to ten times that once in two hundred.
impl Default for SyncTimes {
    fn default() -> Self {
        let point = |permille, us| (permille, Duration::from_micros(us));
        Self([
            point(0, 600),
            point(250, 800),
            point(500, 1_000),
            point(750, 1_200),
            point(995, 1_400),
            point(1_000, 14_000),
        ])
    }
}

/// The figures of every service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServiceTimes {
    /// A log's sync.
    pub sync: SyncTimes,
    /// The ledger commits a batch, without its sync: for each operation.
    pub ledger_commit: Work,
    /// It takes a claim: for each entity.
    pub ledger_claim: Work,
    /// It does anything else.
    pub ledger_other: Duration,
    /// The directory takes a transaction, without its sync: for each compare and write.
    pub directory_transaction: Work,
    /// It does anything else.
    pub directory_other: Duration,
    /// The bus stores a message.
    pub bus_publish: Duration,
    /// A cache executes a command; it does one after the other.
    pub cache_command: Duration,
}

impl ServiceTimes {
    pub(crate) fn ledger(&self, submission: &ledger::Submission) -> Duration {
        match submission {
            ledger::Submission::Commit(batch) => self.ledger_commit.of(batch.operations.len()),
            ledger::Submission::Claim { entities, .. } => self.ledger_claim.of(entities.len()),
            _ => self.ledger_other,
        }
    }

    pub(crate) fn directory(&self, submission: &directory::Submission) -> Duration {
        match submission {
            directory::Submission::Transact(transaction) => {
                self.directory_transaction.of(transaction.compares.len() + transaction.writes.len())
            }
            _ => self.directory_other,
        }
    }

    pub(crate) fn bus(&self, submission: &bus::Submission) -> Duration {
        match submission {
            bus::Submission::Publish { .. } => self.bus_publish,
            _ => Duration::ZERO,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sync_takes_what_its_place_in_the_distribution_says() {
        let times = SyncTimes::default();
        let at =
            |permille: u64| times.of((u64::MAX / 1_000).saturating_mul(permille).saturating_add(u64::MAX / 10_000_000));
        assert_eq!(times.of(0), Duration::from_micros(600));
        assert_eq!(at(250).as_nanos() / 1_000, 800);
        assert_eq!(at(500).as_nanos() / 1_000, 1_000);
        let last = times.of(u64::MAX);
        assert!(last > Duration::from_millis(13) && last <= Duration::from_millis(14), "{last:?}");
        let drawn: Vec<_> = (0..1_000).map(at).collect();
        assert!(drawn.is_sorted(), "later places take longer");
    }
}
