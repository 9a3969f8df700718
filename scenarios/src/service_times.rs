//! How long the services of a scenario's world work on what they are asked: as the real ones did on the machine that measured
//! them. The figures stand in `scenarios/service-times.toml`, which `ci/calibrate` measures anew.

use serde::Deserialize;
use std::sync::LazyLock;
use worldline_sim::service_times::{ServiceTimes, SyncTimes, Work};
use worldline_system::time::Duration;

/// The file. Microseconds, but where a name says otherwise.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Figures {
    sync: [Point; SyncTimes::POINTS],
    ledger_commit: Task,
    ledger_claim: Task,
    ledger_other_us: u32,
    directory_transaction: Task,
    directory_other_us: u32,
    bus_publish_us: u32,
    cache_command_us: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Point {
    permille: u16,
    us: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Task {
    request_us: u32,
    each_us: u32,
}

impl From<Task> for Work {
    fn from(task: Task) -> Self {
        Self { request: us(task.request_us), each: us(task.each_us) }
    }
}

fn us(us: u32) -> Duration {
    Duration::from_micros(us.into())
}

impl From<Figures> for ServiceTimes {
    fn from(figures: Figures) -> Self {
        Self {
            sync: SyncTimes(figures.sync.map(|point| (point.permille, us(point.us)))),
            ledger_commit: figures.ledger_commit.into(),
            ledger_claim: figures.ledger_claim.into(),
            ledger_other: us(figures.ledger_other_us),
            directory_transaction: figures.directory_transaction.into(),
            directory_other: us(figures.directory_other_us),
            bus_publish: us(figures.bus_publish_us),
            cache_command: us(figures.cache_command_us),
        }
    }
}

static MEASURED: LazyLock<ServiceTimes> = LazyLock::new(|| {
    let figures: Figures =
        toml::from_str(include_str!("../service-times.toml")).expect("the committed service times are valid");
    figures.into()
});

/// The figures.
pub(crate) fn measured() -> ServiceTimes {
    *MEASURED
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_times_are_those_of_services_that_work_and_of_a_disk_that_syncs() {
        let ServiceTimes { sync, ledger_commit, ledger_claim, directory_transaction, .. } = measured();
        for work in [ledger_commit, ledger_claim, directory_transaction] {
            assert!(work.request > Duration::ZERO, "{work:?}");
        }
        let SyncTimes(points) = sync;
        assert_eq!((points[0].0, points[SyncTimes::POINTS - 1].0), (0, 1_000));
        assert!(points.is_sorted() && points[0].1 > Duration::ZERO, "{points:?}");
    }
}
