//! The network's laws on the simulated one.

use crate::stage::Stage;
use worldline_laws::{
    Extent, Fault as Befalls,
    network::{self, CLIENTS, GATEWAY, NetworkService, WORKER, Weather},
    seed,
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

    fn weather(&mut self, weather: Weather) {
        self.stage.world.inject(Fault::Uncut { id: OF_CLIENTS });
        let (clients, gateway) = (CLIENTS.map(|client| self.node(client)).to_vec(), vec![self.node(GATEWAY)]);
        let (there, back) = ((clients.clone(), gateway.clone()), (gateway, clients));
        let cut = |(from, to), both| Fault::Cut { id: OF_CLIENTS, from, to, both };
        let degrade = |(from, to), loss_permille, duplicate_permille, delay, jitter| {
            let (delay, jitter) = (Duration::from_millis(delay), Duration::from_millis(jitter));
            Fault::Degrade { id: OF_CLIENTS, from, to, both: true, loss_permille, duplicate_permille, delay, jitter }
        };
        self.stage.world.inject(match weather {
            Weather::Fair => return,
            Weather::Cut => cut(there, true),
            Weather::CutToGateway => cut(there, false),
            Weather::CutToClients => cut(back, false),
            Weather::Slow => degrade(there, 0, 0, 100, 0),
            Weather::Lossy => degrade(there, 300, 0, 0, 0),
            Weather::Doubling => degrade(there, 0, 500, 0, 20),
            Weather::Reordering => degrade(there, 0, 0, 0, 30),
        });
    }

    fn fault(&mut self, fault: Befalls) -> bool {
        let (gateway, worker) = (vec![self.node(GATEWAY)], vec![self.node(WORKER)]);
        let (from, to, both) = match fault {
            Befalls::Cut => (gateway, worker, true),
            Befalls::LoseRequests => (gateway, worker, false),
            Befalls::LoseAnswers | Befalls::HalfClose => (worker, gateway, false),
            Befalls::Slow => {
                let delay = Duration::from_millis(100);
                self.stage.world.inject(Fault::Degrade {
                    id: OF_WORKER,
                    from: gateway,
                    to: worker,
                    both: true,
                    loss_permille: 0,
                    duplicate_permille: 0,
                    delay,
                    jitter: delay,
                });
                return true;
            }
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
    let extent = Extent { cases: 96, steps: 40, longest_wait: Duration::ZERO, seed: seed() };
    network::connections(&mut Simulated::new(), extent).expect(network::CONNECTIONS);
}

#[test]
fn idle() {
    network::idle(&mut Simulated::new());
}

#[test]
fn idle_one_way() {
    network::idle_one_way(&mut Simulated::new(), Weather::CutToGateway);
    network::idle_one_way(&mut Simulated::new(), Weather::CutToClients);
}

#[test]
fn backlog() {
    network::backlog(&mut Simulated::new());
}

#[test]
fn under_weather() {
    let extent = Extent { cases: 96, steps: 12, longest_wait: Duration::ZERO, seed: seed() };
    let seen = network::under_weather(&mut Simulated::new(), extent);
    seen.expect(network::UNDER_WEATHER);
    seen.expect(&["a datagram doubled"]);
}

#[test]
fn calls() {
    let extent = Extent { cases: 64, steps: 16, longest_wait: Duration::ZERO, seed: seed() };
    network::calls(&mut Simulated::new(), extent).expect(network::CALLS);
}
