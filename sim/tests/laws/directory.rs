//! The directory's laws on the model of it.

use crate::stage::Stage;
use worldline_laws::{
    Extent, Fault as Befalls, Service,
    directory::{self, Directory, DirectoryService},
    seed,
};
use worldline_proto::OpId;
use worldline_sim::{Fault, directory as model};
use worldline_system::{
    doors::{self, Asked, directory::Submission},
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
    Stage::new(seed, members, |world, members, _| world.set_directory(model::Config { members }))
}

impl Service<Directory> for Simulated {
    fn begin(&mut self) {
        self.cases += 1;
        self.stage = stage(self.cases, self.members);
    }

    fn now(&self) -> Instant {
        self.stage.now()
    }

    fn submit(&mut self, caller: usize, patience: Duration, submission: Submission) -> OpId {
        self.stage
            .submit(caller, |op, now| doors::Submission::Directory(Asked { op, deadline: now + patience, submission }))
    }

    fn next_event(&mut self, by: Instant) -> Option<(usize, doors::directory::Event)> {
        self.stage.next_event(by).map(|(caller, event)| match event {
            doors::Event::Directory(event) => (caller, event),
            other => panic!("{other:?} is not of the directory"),
        })
    }

    fn grace(&self) -> Duration {
        Duration::ZERO
    }

    fn fault(&mut self, fault: Befalls) -> bool {
        let lose = model::Fault::LoseAnswers { from: None, of: model::Which::All, permille: 1_000 };
        self.stage.befall(fault, Some(Fault::Directory(lose)))
    }
}

impl DirectoryService for Simulated {
    fn compact(&mut self) {
        self.stage.world.inject(Fault::Directory(model::Fault::Compact));
    }
}

#[test]
fn sound() {
    let extent = Extent { cases: 64, steps: 32, longest_wait: Duration::ZERO, seed: seed() };
    directory::sound(&mut Simulated::new(3), extent).expect(directory::SOUND);
}

#[test]
fn leases() {
    let extent = Extent { cases: 64, steps: 24, longest_wait: Duration::from_secs(60), seed: seed() };
    directory::leases(&mut Simulated::new(3), extent).expect(directory::LEASES);
}

#[test]
fn under_faults() {
    let extent = Extent { cases: 48, steps: 12, longest_wait: Duration::ZERO, seed: seed() };
    directory::under_faults(&mut Simulated::new(1), extent).expect_under_faults(directory::UNDER_FAULTS);
}
