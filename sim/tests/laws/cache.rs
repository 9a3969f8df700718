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

struct Simulated {
    stage: Stage,
    cases: u64,
}

impl Simulated {
    fn new() -> Self {
        Self { stage: stage(0), cases: 0 }
    }
}

fn stage(seed: u64) -> Stage {
    Stage::new(seed, 1, |world, members, callers| {
        world.set_cache(model::Config::new(vec![model::Region { members, callers }]));
    })
}

impl Service<Cache> for Simulated {
    fn begin(&mut self) {
        self.cases += 1;
        self.stage = stage(self.cases);
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
}

#[test]
fn sound() {
    let extent = Extent { cases: 96, steps: 40, longest_wait: DAY, seed: seed() };
    cache::sound(&mut Simulated::new(), extent).expect(cache::SOUND);
}

#[test]
fn lives() {
    let extent = Extent { cases: 24, steps: 24, longest_wait: DAY, seed: seed() };
    let seen = cache::lives(&mut Simulated::new(), extent);
    seen.expect(&["a text's life", "a load's life", "a presence's life", "a session's life", "a counter's life"]);
}

#[test]
fn under_faults() {
    let extent = Extent { cases: 64, steps: 12, longest_wait: DAY, seed: seed() };
    cache::under_faults(&mut Simulated::new(), extent).expect_under_faults(cache::UNDER_FAULTS);
}
