//! The directory's laws on the adapter and etcd's client over simulated links.

use super::Stage;
use crate::log::Log;
use worldline_laws::{
    Extent, Fault, Service,
    directory::{self as laws, Directory, DirectoryService},
};
use worldline_proto::OpId;
use worldline_sim::directory as model;
use worldline_system::{
    doors::directory::{Event, Submission},
    time::{Duration, Instant},
};

struct Simulated {
    seed: u64,
    cases: u64,
    stage: Stage,
    log: Log,
}

impl Simulated {
    fn new(seed: u64) -> Self {
        Self { seed, cases: 0, stage: Stage::new(seed), log: Log::default() }
    }
}

impl Service<Directory> for Simulated {
    fn begin(&mut self) {
        self.cases += 1;
        self.stage = Stage::new(self.seed * 1_000 + self.cases);
    }

    fn now(&self) -> Instant {
        self.stage.now()
    }

    fn submit(&mut self, caller: usize, patience: Duration, submission: Submission) -> OpId {
        self.stage.submit(caller, patience, submission)
    }

    fn next_event(&mut self, by: Instant) -> Option<(usize, Event)> {
        self.stage.next_event(by, &mut self.log)
    }

    fn grace(&self) -> Duration {
        Duration::from_millis(20)
    }

    fn fault(&mut self, fault: Fault) -> bool {
        self.stage.befall(fault, &[0, 1, 2]);
        true
    }
}

impl DirectoryService for Simulated {
    fn compact(&mut self) {
        self.stage.kernel.borrow_mut().inject(self.stage.now(), model::Fault::Compact);
    }
}

/// Transactions, reads, leases and watches of a sound directory.
#[must_use]
pub fn sound(seed: u64) -> Log {
    let mut service = Simulated::new(seed);
    laws::sound(&mut service, Extent { cases: 40, steps: 24, longest_wait: Duration::ZERO, seed: 0 })
        .expect(laws::SOUND);
    service.log
}

/// Leases end, and never early.
#[must_use]
pub fn leases(seed: u64) -> Log {
    let mut service = Simulated::new(seed);
    laws::leases(&mut service, Extent { cases: 4, steps: 16, longest_wait: Duration::from_secs(3), seed: 0 })
        .expect(laws::LEASES);
    service.log
}

/// etcd is killed, stopped, cut off; requests and answers are lost.
#[must_use]
pub fn under_faults(seed: u64) -> Log {
    let mut service = Simulated::new(seed);
    laws::under_faults(&mut service, Extent { cases: 18, steps: 12, longest_wait: Duration::ZERO, seed: 0 })
        .expect_under_faults(laws::UNDER_FAULTS);
    service.log
}
