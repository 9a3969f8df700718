//! The bus's laws on the model of it.

use crate::stage::Stage;
use worldline_laws::{
    Extent, Fault as Befalls, Service,
    bus::{self, Bus, BusService},
    seed,
};
use worldline_proto::OpId;
use worldline_sim::{Fault, bus as model};
use worldline_system::{
    doors::{self, Asked, bus::Submission},
    limits,
    time::{Duration, Instant},
};

/// The length of what is published where bytes are few: what it takes besides is much less.
const EACH_BYTES: usize = 16_000;

struct Simulated {
    stage: Stage,
    members: u8,
    limits: model::Limits,
    cases: u64,
    /// What befalls the bus befalls the member that leads.
    leader: bool,
}

impl Simulated {
    fn new(members: u8, limits: model::Limits) -> Self {
        Self { stage: stage(0, members, limits), members, limits, cases: 0, leader: false }
    }

    fn clustered() -> Self {
        Self { leader: true, ..Self::new(3, model::Limits::default()) }
    }
}

fn stage(seed: u64, members: u8, limits: model::Limits) -> Stage {
    Stage::new(seed, members, |world, members, _| {
        world.set_bus(model::Config { limits, ..model::Config::new(members) });
    })
}

impl Service<Bus> for Simulated {
    fn begin(&mut self) {
        self.cases += 1;
        self.stage = stage(self.cases, self.members, self.limits);
    }

    fn now(&self) -> Instant {
        self.stage.now()
    }

    fn submit(&mut self, caller: usize, patience: Duration, submission: Submission) -> OpId {
        self.stage.submit(caller, |op, now| doors::Submission::Bus(Asked { op, deadline: now + patience, submission }))
    }

    fn next_event(&mut self, by: Instant) -> Option<(usize, doors::bus::Event)> {
        self.stage.next_event(by).map(|(caller, event)| match event {
            doors::Event::Bus(event) => (caller, event),
            other => panic!("{other:?} is not of the bus"),
        })
    }

    fn grace(&self) -> Duration {
        Duration::ZERO
    }

    fn fault(&mut self, fault: Befalls) -> bool {
        if self.leader {
            let world = &self.stage.world;
            let leader = world.bus().and_then(|bus| bus.leader(world.core()));
            return self.stage.befall_leader(fault, leader);
        }
        let lose = model::Fault::LoseAnswers { from: None, of: model::Which::All, permille: 1_000 };
        self.stage.befall(fault, Some(Fault::Bus(lose)))
    }
}

impl BusService for Simulated {
    fn crowd(&self) -> u64 {
        1
    }

    fn deduplication(&self) -> Duration {
        limits::BUS_DEDUPLICATION
    }

    fn is_clustered(&self) -> bool {
        self.members > 1
    }

    fn messages_max(&self) -> u64 {
        let each = self.payload_bytes().map_or(1, |bytes| bytes as u64);
        self.limits.messages.min(self.limits.bytes / each)
    }

    fn age(&self) -> Duration {
        self.limits.age
    }

    fn until_empty(&mut self) {
        let by = self.stage.now() + Duration::from_secs(2);
        self.stage.world.run_until(by);
    }

    fn payload_bytes(&self) -> Option<usize> {
        (self.limits.bytes < limits::BUS_BYTES).then_some(EACH_BYTES)
    }

    fn base(&self) -> u64 {
        0
    }
}

#[test]
fn sound() {
    let extent = Extent { cases: 64, steps: 40, longest_wait: Duration::ZERO, seed: seed() };
    bus::sound(&mut Simulated::new(3, model::Limits::default()), extent).expect(bus::SOUND);
}

#[test]
fn lives() {
    let extent = Extent { cases: 64, steps: 40, longest_wait: Duration::from_secs(600), seed: seed() };
    let limits = model::Limits { messages: 12, ..model::Limits::default() };
    bus::lives(&mut Simulated::new(3, limits), extent).expect(bus::LIVES);
}

#[test]
fn limits() {
    let extent = Extent { cases: 48, steps: 32, longest_wait: Duration::ZERO, seed: seed() };
    let limits = model::Limits { bytes: 168_000, age: Duration::from_secs(30), ..model::Limits::default() };
    bus::limits(&mut Simulated::new(3, limits), extent).expect(bus::LIMITS);
}

#[test]
fn on_a_cluster() {
    let extent = Extent { cases: 32, steps: 16, longest_wait: Duration::ZERO, seed: seed() };
    bus::leaders_lost(&mut Simulated::clustered(), extent).expect(bus::LEADERS_LOST);
}

#[test]
fn under_faults() {
    let extent = Extent { cases: 48, steps: 16, longest_wait: Duration::ZERO, seed: seed() };
    bus::under_faults(&mut Simulated::new(1, model::Limits::default()), extent).expect_under_faults(bus::UNDER_FAULTS);
}
