//! The ledger's laws on the model of it.

use crate::stage::Stage;
use worldline_laws::{
    Extent, Fault as Befalls, Service,
    ledger::{self, Ledger, LedgerService, Moment},
    seed,
};
use worldline_proto::OpId;
use worldline_sim::{Fault, ledger as model};
use worldline_system::{
    doors::{self, Asked, ledger::Submission},
    time::{Duration, Instant},
};

struct Simulated {
    stage: Stage,
    members: u8,
    cases: u64,
}

impl Simulated {
    fn new(members: u8) -> Self {
        Self { stage: stage(0, members), members, cases: 0 }
    }
}

fn stage(seed: u64, members: u8) -> Stage {
    Stage::new(seed, members, |world, members, _| {
        let seeds = ledger::world().into_iter().map(|born| model::Seed {
            entity: born.entity,
            position: born.position,
            pinned: born.pinned,
            hit_points: born.hit_points,
            balance: born.balance,
        });
        world.set_ledger(model::Config::new(members, seeds.collect()));
    })
}

impl Service<Ledger> for Simulated {
    fn begin(&mut self) {
        self.cases += 1;
        self.stage = stage(self.cases, self.members);
    }

    fn now(&self) -> Instant {
        self.stage.now()
    }

    fn submit(&mut self, caller: usize, patience: Duration, submission: Submission) -> OpId {
        self.stage
            .submit(caller, |op, now| doors::Submission::Ledger(Asked { op, deadline: now + patience, submission }))
    }

    fn next_event(&mut self, by: Instant) -> Option<(usize, doors::ledger::Event)> {
        self.stage.next_event(by).map(|(caller, event)| match event {
            doors::Event::Ledger(event) => (caller, event),
            other => panic!("{other:?} is not of the ledger"),
        })
    }

    fn grace(&self) -> Duration {
        Duration::ZERO
    }

    fn fault(&mut self, fault: Befalls) -> bool {
        let lose = model::Fault::LoseAnswers { from: None, permille: 1_000, count: 1_000 };
        self.stage.befall(fault, Some(Fault::Ledger(lose)))
    }
}

impl LedgerService for Simulated {
    fn read_only(&mut self, on: bool) -> bool {
        self.stage.world.inject(Fault::Ledger(model::Fault::ReadOnly { on }));
        true
    }

    fn break_connections(&mut self, moment: Moment) -> bool {
        let when = match moment {
            Moment::Before => model::When::Before,
            Moment::During => model::When::During,
            Moment::After => model::When::After,
        };
        self.stage.world.inject(Fault::Ledger(model::Fault::LoseConnections { permille: 1_000, when }));
        true
    }
}

#[test]
fn sound() {
    let extent = Extent { cases: 64, steps: 24, longest_wait: Duration::ZERO, seed: seed() };
    ledger::sound(&mut Simulated::new(3), extent).expect(ledger::SOUND);
}

#[test]
fn under_faults() {
    let extent = Extent { cases: 64, steps: 8, longest_wait: Duration::ZERO, seed: seed() };
    ledger::under_faults(&mut Simulated::new(1), extent).expect_under_faults(ledger::UNDER_FAULTS);
}
