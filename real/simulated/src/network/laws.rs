//! The network's laws on the adapter over simulated links: the same suites as on the simulated network and over loopback.

use super::{Link, NAMES, Stage, number};
use crate::log::Log;
use std::time::Duration as Span;
use worldline_laws::{
    Extent, Fault,
    network::{self, CLIENTS, GATEWAY, NetworkService, WORKER, Weather},
};
use worldline_proto::{NodeId, OpId};
use worldline_system::{
    doors::network::{Event, Submission},
    time::{Duration, Instant},
};

/// How long each way takes on a slow link.
const SLOW: Span = Span::from_millis(80);

struct Simulated {
    seed: u64,
    link: Link,
    cases: u64,
    stage: Stage,
    log: Log,
}

impl Simulated {
    fn new(seed: u64, link: Link) -> Self {
        Self { seed, link, cases: 0, stage: Stage::new(seed, link), log: Log::default() }
    }
}

impl NetworkService for Simulated {
    fn begin(&mut self) {
        self.cases += 1;
        self.stage = Stage::new(self.seed * 1_000 + self.cases, self.link);
    }

    fn now(&self) -> Instant {
        self.stage.now()
    }

    fn node(&self, node: usize) -> NodeId {
        NodeId(number(node))
    }

    fn submit(&mut self, node: usize, what: impl FnOnce(OpId, Instant) -> Submission) -> OpId {
        self.stage.submit(node, what)
    }

    fn next_event(&mut self, by: Instant) -> Option<(usize, Event)> {
        self.stage.next_event(by, &mut self.log)
    }

    /// As long as a link is slow, and some steps of the simulation.
    fn grace(&self) -> Duration {
        Duration::from_millis(self.link.latency_ms.1 + 20)
    }

    fn weather(&mut self, weather: Weather) {
        let gateway = NAMES[GATEWAY];
        for client in CLIENTS.map(|client| NAMES[client]) {
            self.stage.sim.repair(client, gateway);
            match weather {
                Weather::Cut => self.stage.sim.partition(client, gateway),
                Weather::CutToGateway => self.stage.sim.partition_oneway(client, gateway),
                Weather::CutToClients => self.stage.sim.partition_oneway(gateway, client),
                // What is slow, lossy and out of order the link of the seed is by itself; it doubles nothing.
                _ => {}
            }
        }
    }

    fn fault(&mut self, fault: Fault) -> bool {
        let (gateway, worker) = (NAMES[GATEWAY], NAMES[WORKER]);
        match fault {
            Fault::Cut => self.stage.sim.partition(gateway, worker),
            Fault::LoseRequests => self.stage.sim.partition_oneway(gateway, worker),
            Fault::LoseAnswers | Fault::HalfClose => self.stage.sim.partition_oneway(worker, gateway),
            Fault::Slow => self.stage.sim.set_link_latency(gateway, worker, SLOW),
            Fault::Heal => {
                self.stage.sim.repair(gateway, worker);
                self.stage.sim.set_link_latency(gateway, worker, Span::from_millis(self.link.latency_ms.0));
            }
            Fault::Kill | Fault::Stop => return false,
        }
        true
    }
}

/// Order within a class, nothing torn, an end that both sides learn of.
#[must_use]
pub fn connections(seed: u64) -> Log {
    let mut service = Simulated::new(seed, Link::of(seed));
    network::connections(&mut service, Extent { cases: 14, steps: 24, longest_wait: Duration::ZERO, seed: 0 })
        .expect(network::CONNECTIONS);
    service.log
}

/// A silent connection ends in time, and not before. Who loses what shows that the other lives is silent before it is cut off,
/// so this link loses nothing.
#[must_use]
pub fn idle(seed: u64) -> Log {
    let mut service = Simulated::new(seed, Link { break_permille: 0, ..Link::of(seed) });
    network::idle(&mut service);
    service.log
}

/// One answer each, in time; certainty where it is claimed.
#[must_use]
pub fn calls(seed: u64) -> Log {
    let mut service = Simulated::new(seed, Link::of(seed));
    network::calls(&mut service, Extent { cases: 6, steps: 12, longest_wait: Duration::ZERO, seed: 0 })
        .expect(network::CALLS);
    service.log
}
