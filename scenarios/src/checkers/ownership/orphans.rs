//! O5: no entity stays without an owner while it could have one, and none is taken from an owner that lives.

use super::{super::table::Table, Owners};
use crate::checkers::{Check, Checker, Facts, Invariant, Setup, View, breach};
use std::collections::BTreeSet;
use worldline_proto::{EntityId, LeaseId, Revision};
use worldline_system::{
    doors::directory::{Change, Key, Value},
    history::{Acceptance, Entry, What},
    time::{Duration, Instant},
};

/// An owner passes the fence at least every five seconds by its own clock; twice that is recent.
const HEARD: Duration = Duration::from_secs(10);

/// What is known of one entity.
#[derive(Clone, Copy, Debug, Default)]
struct Watched {
    /// When the ledger last accepted something under its current fence: the owner's only sign of life that needs no belief.
    passed_fence: Instant,
    /// The last sample at which it was served, or could not have been.
    fine: Instant,
    /// The last sample at which it could not have been served.
    excused: Instant,
}

/// What the directory has committed: whose keys stand, and whom each record names.
#[derive(Clone, Debug, Default)]
struct Records {
    revision: Revision,
    living: BTreeSet<LeaseId>,
    owners: Table<EntityId, Option<LeaseId>>,
}

impl Records {
    fn change(&mut self, revision: Revision, changes: &[Change]) -> Check {
        if revision <= self.revision {
            // Restored from a backup: what stands is not known any more.
            *self = Self::default();
        }
        self.revision = revision;
        for change in changes {
            match change {
                Change::Put(record) => match (record.key, record.value) {
                    (Key::Worker(lease), _) => {
                        self.living.insert(lease);
                    }
                    (Key::Owner(entity), Value::Owner(owner)) => {
                        let before =
                            self.owners.slot(entity).replace(owner.lease).filter(|&before| before != owner.lease);
                        if let Some(before) = before.filter(|before| self.living.contains(before)) {
                            breach!("{entity} was taken from lease {before}, which lives, for lease {}", owner.lease);
                        }
                    }
                    _ => {}
                },
                Change::Deleted(Key::Worker(lease)) => {
                    self.living.remove(lease);
                }
                Change::Deleted(Key::Owner(entity)) => *self.owners.slot(*entity) = None,
                Change::Deleted(Key::Leader | Key::Region(_)) => {}
            }
        }
        Ok(())
    }
}

/// O5. An entity is served if a living worker that is able says so and the ledger has heard from it. It is excused while
/// no worker of the world is able, or a service that a takeover needs is away.
#[derive(Clone, Debug)]
pub struct NoOrphans {
    entities: Vec<EntityId>,
    budget: Duration,
    owners: Owners,
    watched: Table<EntityId, Watched>,
    records: Records,
    sampled: bool,
    /// The directory told of a change.
    recorded: bool,
}

impl NoOrphans {
    fn passes(&mut self, entity: EntityId, at: Instant) {
        self.watched.slot(entity).passed_fence = at;
    }
}

impl Checker for NoOrphans {
    const INVARIANT: Invariant = Invariant::O5;

    fn new(setup: &Setup) -> Self {
        Self {
            entities: setup.rows.iter().map(|row| row.entity).collect(),
            budget: setup.orphan_budget,
            owners: Owners::default(),
            watched: Table::default(),
            records: Records::default(),
            sampled: false,
            recorded: false,
        }
    }

    fn on_entry(&mut self, entry: &Entry, _: &Facts<'_>) -> Check {
        match &entry.what {
            What::Accepted(Acceptance::FenceRaised { authority, .. } | Acceptance::Checkpointed { authority, .. }) => {
                self.passes(authority.entity, entry.at)
            }
            What::Accepted(Acceptance::OperationApplied { operation, .. }) => {
                for authority in &operation.authority {
                    self.passes(authority.entity, entry.at);
                }
            }
            What::Accepted(Acceptance::DirectoryChanged { revision, changes }) => {
                self.recorded = true;
                return self.records.change(*revision, changes);
            }
            _ => self.owners.on_entry(entry),
        }
        Ok(())
    }

    fn on_sample(&mut self, view: &View<'_>) -> Check {
        let Some(services) = view.services else { return Ok(()) };
        self.sampled = true;
        let able = view.workers.iter().any(|worker| worker.able);
        for &entity in &self.entities {
            let server = self.owners.server(entity).and_then(|(node, authority)| {
                let worker = view.workers.iter().find(|worker| worker.node == node)?;
                Some((worker, authority))
            });
            let watched = self.watched.slot(entity);
            if !services.all() || !able {
                watched.excused = view.at;
                watched.fine = view.at;
                continue;
            }
            // One that a fault has made unwell and that the ledger hears from all the same is an owner.
            let heard = view.at.since(watched.passed_fence) <= HEARD;
            if server.is_some_and(|(worker, _)| worker.able || heard) {
                watched.fine = view.at;
            }
            let alone = view.at.since(watched.fine);
            if alone > self.budget {
                breach!("{entity} has had no owner for {alone}; the budget is {}", self.budget);
            }
            let silent = view.at.since(watched.passed_fence.max(watched.excused));
            if silent > self.budget {
                breach!(
                    "the owner of {entity} has not passed the ledger's fence for {silent}; the budget is {}",
                    self.budget
                );
            }
        }
        Ok(())
    }

    fn not_checked(&self) -> Option<&'static str> {
        match (self.sampled, self.recorded) {
            (false, _) => Some("no sample told whether the services could be used"),
            (true, false) => Some("nobody was orphaned, and the directory told of no change"),
            (true, true) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkers::{Services, WorkerState, story::*};
    use worldline_proto::{Epoch, NodeId, Nonce};
    use worldline_system::{
        doors::directory::{Ownership, Record, RegionId, Worker},
        history::Note,
    };

    const UP: Services = Services { directory: true, ledger: true, orchestrator: true };

    fn workers(able: [bool; 2]) -> [WorkerState; 2] {
        [1, 2].map(|node| WorkerState { node: NodeId(node), region: RegionId(0), able: able[node as usize - 1] })
    }

    /// Both entities are served by worker 1 from the beginning; it dies at 10 s. Then a sample every second.
    fn first_breach(
        until_s: u64,
        more: &[(u64, u32, What)],
        workers: &[WorkerState],
        services: Services,
    ) -> Option<u64> {
        let (hero, boss) = (authority(hero(), 1, 1), authority(boss(), 1, 1));
        let mut lines = vec![
            (0, LEDGER, raised(hero, None)),
            (0, LEDGER, raised(boss, None)),
            (0, 1, serving(hero, east(0))),
            (0, 1, serving(boss, east(0))),
            (10_000, LEDGER, checkpointed(hero, 1)),
            (10_000, LEDGER, checkpointed(boss, 1)),
            (10_000, 1, What::Crashed),
        ];
        lines.extend_from_slice(more);
        let entries = tell(lines);
        let mut checker = NoOrphans::new(&setup());
        for second in 0..until_s {
            for entry in
                entries.iter().filter(|entry| (second..second + 1).contains(&(entry.at.as_nanos() / 1_000_000_000)))
            {
                assert_eq!(checker.on_entry(entry, &Facts::default()), Ok(()));
            }
            let workers = if second < 10 { self::workers([true, true]).to_vec() } else { workers.to_vec() };
            let view = View { workers: &workers, services: Some(services), ..view(second * 1_000 + 999) };
            if checker.on_sample(&view).is_err() {
                return Some(second);
            }
        }
        None
    }

    #[test]
    fn o5_an_orphan_outlives_the_budget() {
        assert_eq!(first_breach(60, &[], &workers([false, true]), UP), Some(40), "30 s after the last good sample");
        let (hero, boss) = (authority(hero(), 2, 2), authority(boss(), 2, 2));
        let taken_over = [
            (30_000, LEDGER, raised(hero, None)),
            (30_000, LEDGER, raised(boss, None)),
            (30_500, 2, serving(hero, east(0))),
            (30_500, 2, serving(boss, east(0))),
            (50_000, LEDGER, checkpointed(hero, 1)),
            (50_000, LEDGER, checkpointed(boss, 1)),
        ];
        assert_eq!(first_breach(60, &taken_over, &workers([false, true]), UP), None);
        let suspended = [&taken_over[..], &[(33_000, 2, What::Noted(Note::Suspended { lease: lease(2) }))]].concat();
        assert_eq!(first_breach(90, &suspended, &workers([false, true]), UP), Some(63));
    }

    #[test]
    fn o5_an_entity_changes_hands_only_when_its_owner_is_gone() {
        let changed = |revision, change: Change| {
            let (revision, changes) = (Revision(revision), [change].into());
            What::Accepted(Acceptance::DirectoryChanged { revision, changes })
        };
        let put = |key, value| Change::Put(Record { key, value, mod_revision: Revision(0), lease: None });
        let worker = |by| {
            let value = Value::Worker(Worker { node: NodeId(by as u32), region: RegionId(0) });
            put(Key::Worker(lease(by)), value)
        };
        let owned = |by| {
            let value = Value::Owner(Ownership { lease: lease(by), epoch: Epoch(1), nonce: Nonce(0) });
            put(Key::Owner(boss()), value)
        };
        let breaks_at = |lines: Vec<What>| {
            let mut checker = NoOrphans::new(&setup());
            let entries = tell(lines.into_iter().map(|what| (0, 60, what)));
            entries.iter().position(|entry| checker.on_entry(entry, &Facts::default()).is_err())
        };
        let begin = vec![changed(1, worker(1)), changed(2, worker(2)), changed(3, owned(1)), changed(4, owned(1))];
        let gone = changed(5, Change::Deleted(Key::Worker(lease(1))));
        assert_eq!(breaks_at([begin.clone(), vec![gone, changed(6, owned(2))]].concat()), None);
        assert_eq!(breaks_at([begin.clone(), vec![changed(5, owned(2))]].concat()), Some(4));
        assert_eq!(breaks_at([begin, vec![changed(2, owned(2))]].concat()), None, "restored: nobody knows");
    }

    #[test]
    fn o5_without_a_word_of_the_directory_nobody_knows_from_whom_an_entity_was_taken() {
        let mut checker = NoOrphans::new(&setup());
        let workers = workers([true, true]);
        let sample = View { workers: &workers, services: Some(UP), ..view(1) };
        assert_eq!(checker.on_sample(&sample), Ok(()));
        let why = "nobody was orphaned, and the directory told of no change";
        assert_eq!(checker.not_checked(), Some(why));
        let told =
            Acceptance::DirectoryChanged { revision: Revision(2), changes: [Change::Deleted(Key::Leader)].into() };
        for entry in tell([(2, 60, What::Accepted(told))]) {
            assert_eq!(checker.on_entry(&entry, &Facts::default()), Ok(()));
        }
        assert_eq!(checker.not_checked(), None);
    }

    #[test]
    fn o5_nobody_is_blamed_for_what_could_not_be_taken_over() {
        let away = Services { directory: false, ..UP };
        assert_eq!(first_breach(90, &[], &workers([false, true]), away), None, "no quorum");
        assert_eq!(first_breach(90, &[], &workers([false, false]), UP), None, "nobody there to take over");
    }

    #[test]
    fn o5_an_owner_that_only_says_so_is_none() {
        let (hero, boss) = (authority(hero(), 2, 2), authority(boss(), 2, 2));
        let lies = [(12_000, 2, serving(hero, east(0))), (12_000, 2, serving(boss, east(0)))];
        assert_eq!(first_breach(60, &lies, &workers([false, true]), UP), Some(40), "the fence was last passed at 10 s");
    }
}
