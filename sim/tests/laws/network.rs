//! The network's laws on the simulated one.

use crate::stage::Stage;
use worldline_laws::{
    Extent, Fault as Befalls,
    network::{self, CLIENTS, GATEWAY, NetworkService, WORKER},
};
use worldline_proto::{NodeId, OpId};
use worldline_sim::Fault;
use worldline_system::{
    doors::{
        self,
        network::{Event, Submission},
    },
    limits,
    time::{Duration, Instant},
};

/// The numbers of cuts.
const OF_CLIENTS: u32 = 1;
const OF_WORKER: u32 = 2;

struct Simulated {
    stage: Stage,
    cases: u64,
}

impl Simulated {
    fn new() -> Self {
        Self { stage: Stage::new(0, 0, |_, _, _| {}), cases: 0 }
    }
}

impl NetworkService for Simulated {
    fn begin(&mut self) {
        self.cases += 1;
        self.stage = Stage::new(self.cases, 0, |_, _, _| {});
    }

    fn now(&self) -> Instant {
        self.stage.now()
    }

    fn node(&self, node: usize) -> NodeId {
        self.stage.callers[node]
    }

    fn submit(&mut self, node: usize, what: impl FnOnce(OpId, Instant) -> Submission) -> OpId {
        self.stage.submit(node, |op, now| doors::Submission::Network(what(op, now)))
    }

    fn next_event(&mut self, by: Instant) -> Option<(usize, Event)> {
        self.stage.next_event(by).map(|(node, event)| match event {
            doors::Event::Network(event) => (node, event),
            other => panic!("{other:?} is not of the network"),
        })
    }

    fn grace(&self) -> Duration {
        Duration::ZERO
    }

    fn cut_clients(&mut self, on: bool) {
        let (from, to) = (CLIENTS.map(|client| self.node(client)).to_vec(), vec![self.node(GATEWAY)]);
        let fault = Fault::Cut { id: OF_CLIENTS, from, to, both: true };
        self.stage.world.inject(if on { fault } else { Fault::Uncut { id: OF_CLIENTS } });
    }

    fn fault(&mut self, fault: Befalls) -> bool {
        let (gateway, worker) = (vec![self.node(GATEWAY)], vec![self.node(WORKER)]);
        let (from, to, both) = match fault {
            Befalls::Cut => (gateway, worker, true),
            Befalls::LoseRequests => (gateway, worker, false),
            Befalls::LoseAnswers => (worker, gateway, false),
            Befalls::Heal => {
                // What was sent over a channel that something has befallen ends with it.
                let until = self.stage.world.now() + limits::IDLE_TIMEOUT + limits::KEEP_ALIVE;
                self.stage.world.run_until(until);
                self.stage.world.inject(Fault::Uncut { id: OF_WORKER });
                return true;
            }
            Befalls::Kill | Befalls::Stop => return false,
        };
        self.stage.world.inject(Fault::Cut { id: OF_WORKER, from, to, both });
        true
    }
}

#[test]
fn connections() {
    let extent = Extent { cases: 96, steps: 40, longest_wait: Duration::ZERO };
    network::connections(&mut Simulated::new(), extent).expect(network::CONNECTIONS);
}

#[test]
fn idle() {
    network::idle(&mut Simulated::new());
}

#[test]
fn calls() {
    let extent = Extent { cases: 64, steps: 16, longest_wait: Duration::ZERO };
    network::calls(&mut Simulated::new(), extent).expect(network::CALLS);
}
