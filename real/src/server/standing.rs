//! What a role needs besides its services: a lease, a state to show, somebody who shows it one. `/ready` says whether it has it, or
//! `/health` where it goes on without.

use crate::ready::Readiness;
use worldline_system::{
    Role, Turn,
    gateway::Gateway,
    orchestrator::Orchestrator,
    replica::Replica,
    time::Instant,
    worker::{Phase, Worker},
};

/// A role that can do its work, or all of it, only while it has what it needs.
pub trait Needing {
    /// How `/ready` or `/health` calls what it needs.
    const NEED: &str;
    /// Whether it is not ready without it, or only degraded.
    const VITAL: bool = true;

    /// What is missing at `now`; `None` where nothing is.
    fn missing(&self, now: Instant) -> Option<&'static str>;
}

impl Needing for Worker {
    const NEED: &str = "lease";

    fn missing(&self, _: Instant) -> Option<&'static str> {
        match self.phase() {
            Phase::Joining => Some("it has no lease in etcd under which it is registered yet"),
            Phase::Active => None,
            Phase::Suspended => Some("its lease may have run out: it is silent until etcd renews it"),
            Phase::Resuming(_) => {
                Some("its lease was renewed late: it makes sure of what it owns before it acts again")
            }
            Phase::Draining => Some("it is stopping"),
        }
    }
}

impl Needing for Orchestrator {
    const NEED: &str = "lease";

    fn missing(&self, now: Instant) -> Option<&'static str> {
        (!self.can_lead(now)).then_some("it has no lease in etcd that stands: it cannot lead")
    }
}

impl Needing for Replica {
    const NEED: &str = "globals";

    fn missing(&self, _: Instant) -> Option<&'static str> {
        let problem =
            "the ledger has not told yet how each boss of the world file stands (run `worldlined migrate --seed`?)";
        (!self.complete()).then_some(problem)
    }
}

impl Needing for Gateway {
    const NEED: &str = "replica";
    const VITAL: bool = false;

    fn missing(&self, _: Instant) -> Option<&'static str> {
        let problem = "none of its replicas can be reached: players are shown bosses as they stood before";
        (!self.sees_globals()).then_some(problem)
    }
}

/// The role unchanged; what it is missing is told whenever that is news.
#[derive(Clone, Debug)]
pub struct Standing<R> {
    role: R,
    ready: Readiness,
    told: Option<Option<&'static str>>,
}

impl<R: Needing> Standing<R> {
    /// A role before its first event: nothing stands yet.
    pub fn new(role: R, ready: Readiness) -> Self {
        let mut standing = Self { role, ready, told: None };
        standing.tell(Instant::default());
        standing
    }

    fn tell(&mut self, now: Instant) {
        let missing = self.role.missing(now);
        if self.told == Some(missing) {
            return;
        }
        self.told = Some(missing);
        match missing {
            Some(problem) if R::VITAL => self.ready.missing(R::NEED, problem),
            None if R::VITAL => self.ready.fulfilled(R::NEED),
            Some(problem) => self.ready.degraded(R::NEED, problem),
            None => self.ready.restored(R::NEED),
        }
    }
}

impl<R: Role + Needing> Role for Standing<R> {
    type Event = R::Event;
    type Submission = R::Submission;

    fn on_event(&mut self, event: R::Event, turn: &mut Turn<'_, R::Submission>) {
        let now = turn.now();
        self.role.on_event(event, turn);
        self.tell(now);
    }

    fn queues(&self, report: &mut dyn FnMut(&'static str, usize, usize)) {
        self.role.queues(report);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{collections::BTreeMap, sync::Arc};
    use worldline_proto::{EntityId, EntityKind};
    use worldline_system::{
        doors::directory::RegionId,
        knobs::{Knobs, Retry},
        lease::LeaseTimes,
        orchestrator, replica,
        rules::space::Map,
        worker,
    };

    #[test]
    fn a_replica_is_ready_when_it_knows_every_boss_and_at_once_where_there_is_none() {
        let problems = |entities| {
            let ready = Readiness::default();
            Standing::new(Replica::new(replica::Config { entities, retry: Retry::default() }), ready.clone());
            ready.problems()
        };
        let boss = EntityId::new(EntityKind::Boss, 1).expect("small");
        assert!(problems(vec![boss])["globals"].contains("each boss"));
        assert!(problems(Vec::new()).is_empty());
    }

    #[test]
    fn a_role_without_a_lease_is_not_ready_from_its_first_moment() {
        let map = Arc::new(Map::new(1, BTreeMap::new()));
        let (lease, knobs) = (LeaseTimes::default(), Knobs::default());
        let worker = Worker::new(worker::Config { region: RegionId(0), map: Arc::clone(&map), lease, knobs });
        let orchestrator = Orchestrator::new(orchestrator::Config { map, lease, knobs });
        let (of_worker, of_orchestrator) = (Readiness::default(), Readiness::default());
        Standing::new(worker, of_worker.clone());
        Standing::new(orchestrator, of_orchestrator.clone());
        for ready in [of_worker, of_orchestrator] {
            assert!(ready.problems()["lease"].contains("etcd"), "{:?}", ready.problems());
        }
    }
}
