//! The network's laws on QUIC and gRPC over loopback.

use crate::{node::World, proxy::Proxy, relay::relay};
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    time::Duration as Span,
};
use tokio::{runtime::Runtime, sync::watch};
use worldline_laws::{
    Extent, Fault,
    network::{self, CLIENTS, GATEWAY, NetworkService, WORKER, Weather},
    seed,
};
use worldline_proto::{Incarnation, NodeId, OpId};
use worldline_real::{
    Inbox, clock,
    network::{Network, Part},
    ready::Readiness,
};
use worldline_system::{
    doors::{
        self,
        network::{Event, Submission},
    },
    time::{Duration, Instant},
};

struct Real {
    runtime: Runtime,
    world: World,
    nodes: Vec<Network>,
    heard: mpsc::Receiver<(usize, doors::Event)>,
    /// Tells the threads that listen to inboxes that nobody listens to them.
    over: Arc<AtomicBool>,
    weather: watch::Sender<Weather>,
    proxy: Option<Proxy>,
    asked: u64,
}

impl Real {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let (heard, over, weather) = (mpsc::channel().1, Arc::default(), watch::channel(Weather::Fair).0);
        Self { runtime, world: World::new(), nodes: vec![], heard, over, weather, proxy: None, asked: 0 }
    }

    fn close(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        for node in std::mem::take(&mut self.nodes) {
            self.runtime.block_on(node.close());
        }
    }
}

impl Drop for Real {
    fn drop(&mut self) {
        self.close();
    }
}

fn number(node: usize) -> u32 {
    // Clients have other numbers than servers.
    if CLIENTS.contains(&node) { 100 + node as u32 } else { 1 + node as u32 }
}

impl NetworkService for Real {
    fn begin(&mut self) {
        self.close();
        self.weather.send_replace(Weather::Fair);
        let (tell, heard) = mpsc::channel();
        (self.heard, self.over) = (heard, Arc::default());
        let bind = |node: usize, part, peers: &[(u32, SocketAddr)]| {
            let (inbox, config) = (Inbox::default(), self.world.config(number(node), part, peers));
            let bound = Network::bind(config, inbox.clone(), Readiness::default());
            let network = self.runtime.block_on(bound).expect("a free port");
            let (tell, over) = (tell.clone(), self.over.clone());
            std::thread::spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    if let Some(event) = inbox.next_event(Span::from_millis(100))
                        && tell.send((node, event)).is_err()
                    {
                        return;
                    }
                }
            });
            network
        };
        let worker = bind(WORKER, Part::Server, &[]);
        let proxy = Proxy::new(&self.runtime, worker.address());
        let gateway = bind(GATEWAY, Part::Gateway, &[(number(WORKER), proxy.address)]);
        let relayed = self.runtime.block_on(relay(gateway.address(), self.weather.subscribe()));
        let clients = CLIENTS.map(|client| bind(client, Part::Client, &[(number(GATEWAY), relayed)]));
        self.proxy = Some(proxy);
        let [first, second] = clients;
        self.nodes = vec![gateway, first, second, worker];
    }

    fn now(&self) -> Instant {
        clock::now()
    }

    fn node(&self, node: usize) -> NodeId {
        NodeId(number(node))
    }

    fn submit(&mut self, node: usize, what: impl FnOnce(OpId, Instant) -> Submission) -> OpId {
        self.asked += 1;
        let op = OpId { incarnation: Incarnation(1), counter: self.asked };
        let _inside = self.runtime.enter();
        self.nodes[node].submit(what(op, clock::now()));
        op
    }

    fn next_event(&mut self, by: Instant) -> Option<(usize, Event)> {
        self.heard.recv_timeout(clock::until(by)).ok().map(|(node, event)| match event {
            doors::Event::Network(event) => (node, event),
            other => panic!("{other:?} is not of the network"),
        })
    }

    fn grace(&self) -> Duration {
        Duration::from_secs(10)
    }

    fn weather(&mut self, weather: Weather) {
        self.weather.send_replace(weather);
    }

    fn fault(&mut self, fault: Fault) -> bool {
        self.proxy.as_ref().is_some_and(|proxy| proxy.befall(fault))
    }
}

#[test]
fn connections() {
    let extent = Extent { cases: 32, steps: 32, longest_wait: Duration::ZERO, seed: seed() };
    network::connections(&mut Real::new(), extent).expect(network::CONNECTIONS);
}

#[test]
fn idle() {
    network::idle(&mut Real::new());
}

#[test]
fn idle_one_way() {
    network::idle_one_way(&mut Real::new(), Weather::CutToGateway);
}

#[test]
fn idle_the_other_way() {
    network::idle_one_way(&mut Real::new(), Weather::CutToClients);
}

#[test]
fn backlog() {
    network::backlog(&mut Real::new());
}

#[test]
fn under_weather() {
    let extent = Extent { cases: 8, steps: 9, longest_wait: Duration::ZERO, seed: seed() };
    network::under_weather(&mut Real::new(), extent).expect(network::UNDER_WEATHER);
}

#[test]
fn calls() {
    let extent = Extent { cases: 10, steps: 16, longest_wait: Duration::ZERO, seed: seed() };
    network::calls(&mut Real::new(), extent).expect(network::CALLS);
}
