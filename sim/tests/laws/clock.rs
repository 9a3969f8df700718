//! The clock's laws on a simulated node.

use crate::stage::Stage;
use worldline_laws::{
    Extent,
    clock::{self, Act, ClockService, Disturbance, Entry, Happened},
    seed,
};
use worldline_proto::NodeId;
use worldline_sim::{ClockFault, Fault};
use worldline_system::{
    doors,
    time::{Duration, Instant},
};

/// Whose clock it is.
const NODE: usize = 0;

struct Simulated {
    stage: Stage,
    cases: u64,
    /// What it has met and has not been asked for.
    met: Vec<Entry>,
}

impl Simulated {
    fn new() -> Self {
        Self { stage: Stage::new(0, 0, |_, _, _| {}), cases: 0, met: vec![] }
    }

    fn node(&self) -> NodeId {
        self.stage.callers[NODE]
    }

    /// The next timer that fires until then, by virtual time.
    fn fired(&mut self, until: Instant) -> Option<Entry> {
        match self.stage.next_event(until)? {
            (NODE, doors::Event::Timer(key)) => Some(self.entry(Happened::Fired(key))),
            (node, other) => panic!("{node} is told {other:?}"),
        }
    }

    fn entry(&self, what: Happened) -> Entry {
        let (core, node) = (self.stage.world.core(), self.node());
        Entry { at: core.local(node), unix: core.wall(node), what }
    }
}

impl ClockService for Simulated {
    fn begin(&mut self) {
        self.cases += 1;
        self.stage = Stage::new(self.cases, 0, |_, _, _| {});
        self.met.clear();
    }

    fn now(&self) -> Instant {
        self.stage.world.core().local(self.node())
    }

    fn act(&mut self, acts: &[Act]) -> Vec<Entry> {
        for &act in acts {
            self.stage.submit(NODE, |_, now| match act {
                Act::Arm(key, after) => doors::Submission::Arm { key, at: now + after },
                Act::ArmPast(key, before) => doors::Submission::Arm { key, at: now - before },
                Act::Disarm(key) => doors::Submission::Disarm(key),
            });
        }
        let acted = self.entry(Happened::Acted);
        self.met.drain(..).chain([acted]).collect()
    }

    fn next(&mut self, by: Instant) -> Option<Entry> {
        if !self.met.is_empty() {
            return Some(self.met.remove(0));
        }
        loop {
            // The node's clock may be slower than time: then it takes another round.
            let until = self.stage.now() + by.since(self.now());
            match self.fired(until) {
                Some(entry) => return Some(entry),
                None if self.now() >= by => return None,
                None => {}
            }
        }
    }

    fn grace(&self) -> Duration {
        Duration::ZERO
    }

    fn disturb(&mut self, what: Disturbance) -> bool {
        let node = self.node();
        let world = &mut self.stage.world;
        let mut inject = |fault| drop(world.inject(Fault::Clock { node, fault }));
        match what {
            Disturbance::Sleep(span) => inject(ClockFault::StepForward(span)),
            Disturbance::StepWall(by_ns) => inject(ClockFault::StepWall { by_ns }),
            Disturbance::Drift(ppm) => inject(ClockFault::Drift { ppm }),
            Disturbance::StandStill => {
                inject(ClockFault::Freeze);
                let until = self.stage.now() + Duration::from_secs(2);
                while let Some(entry) = self.fired(until) {
                    self.met.push(entry);
                }
                self.stage.world.inject(Fault::Clock { node, fault: ClockFault::Unfreeze });
            }
        }
        true
    }
}

#[test]
fn timers() {
    let extent = Extent { cases: 256, steps: 32, longest_wait: Duration::from_millis(100), seed: seed() };
    let seen = clock::timers(&mut Simulated::new(), extent);
    seen.expect(clock::TIMERS);
    seen.expect(clock::DISTURBED);
}
