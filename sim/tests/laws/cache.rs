//! The cache's laws on the model of it.

use crate::stage::Stage;
use worldline_laws::{
    Extent, Fault as Befalls, Service,
    cache::{self, Cache, CacheService},
    seed,
};
use worldline_proto::OpId;
use worldline_sim::{Fault, cache as model};
use worldline_system::{
    doors::{self, Asked, cache::Submission},
    time::{Duration, Instant},
};

const DAY: Duration = Duration::from_secs(25 * 3_600);

/// How much later a replica hears of changes that hears nothing of them.
const LAG: Duration = Duration::from_secs(10);

struct Simulated {
    stage: Stage,
    members: u8,
    cases: u64,
    /// The replica may not have heard yet of what was changed when it lagged.
    lagged: bool,
}

impl Simulated {
    fn new(members: u8) -> Self {
        Self { stage: stage(0, members), members, cases: 0, lagged: false }
    }
}

fn stage(seed: u64, members: u8) -> Stage {
    Stage::new(seed, members, |world, members, callers| {
        world.set_cache(model::Config::new(vec![model::Region { members, callers }]));
    })
}

impl Service<Cache> for Simulated {
    fn begin(&mut self) {
        self.cases += 1;
        self.stage = stage(self.cases, self.members);
    }

    fn now(&self) -> Instant {
        self.stage.now()
    }

    fn submit(&mut self, caller: usize, patience: Duration, submission: Submission) -> OpId {
        self.stage
            .submit(caller, |op, now| doors::Submission::Cache(Asked { op, deadline: now + patience, submission }))
    }

    fn next_event(&mut self, by: Instant) -> Option<(usize, doors::cache::Event)> {
        self.stage.next_event(by).map(|(caller, event)| match event {
            doors::Event::Cache(event) => (caller, event),
            other => panic!("{other:?} is not of the cache"),
        })
    }

    fn grace(&self) -> Duration {
        Duration::ZERO
    }

    fn fault(&mut self, fault: Befalls) -> bool {
        if self.has_replica() {
            let primary = self.stage.world.cache().map(|cache| cache.primary(0));
            return self.stage.befall_leader(fault, primary);
        }
        self.stage.befall(fault, Some(Fault::Cache(model::Fault::LoseAnswers { from: None, permille: 1_000 })))
    }
}

impl CacheService for Simulated {
    fn flush(&mut self) {
        self.stage.world.inject(Fault::Cache(model::Fault::Flush { region: None }));
    }

    fn soil(&mut self) {
        self.stage.world.inject(Fault::Cache(model::Fault::WrongTypes { region: None, permille: 1_000 }));
    }

    fn evict(&mut self) {
        self.stage.world.inject(Fault::Cache(model::Fault::Evict { region: None, permille: 500 }));
    }

    fn has_replica(&self) -> bool {
        self.members > 1
    }

    fn lag(&mut self, on: bool) {
        let by = if on { LAG } else { Duration::ZERO };
        self.lagged |= on;
        self.stage.world.inject(Fault::Cache(model::Fault::DelayReplication { by }));
    }

    fn until_replicated(&mut self) {
        // What was sent to it late is there by then.
        let within = if std::mem::take(&mut self.lagged) { LAG * 2 } else { Duration::from_millis(500) };
        let until = self.stage.now() + within;
        self.stage.world.run_until(until);
    }
}

#[test]
fn sound() {
    let extent = Extent { cases: 96, steps: 40, longest_wait: DAY, seed: seed() };
    cache::sound(&mut Simulated::new(1), extent).expect(cache::SOUND);
}

#[test]
fn lives() {
    let extent = Extent { cases: 24, steps: 24, longest_wait: DAY, seed: seed() };
    let seen = cache::lives(&mut Simulated::new(1), extent);
    seen.expect(&["a text's life", "a load's life", "a presence's life", "a session's life", "a counter's life"]);
}

#[test]
fn on_a_cluster() {
    let extent = Extent { cases: 16, steps: 0, longest_wait: Duration::ZERO, seed: seed() };
    cache::primaries_lost(&mut Simulated::new(2), extent).expect(cache::PRIMARIES_LOST);
}

#[test]
fn under_faults() {
    let extent = Extent { cases: 64, steps: 12, longest_wait: DAY, seed: seed() };
    cache::under_faults(&mut Simulated::new(1), extent).expect_under_faults(cache::UNDER_FAULTS);
}
