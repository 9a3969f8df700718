//! The network adapter on simulated machines: a gateway, clients and a worker, on QUIC over simulated UDP and gRPC over
//! simulated TCP, each in a host of its own.

mod identities;
pub mod laws;
mod told;
pub mod weather;

use crate::{
    log::Log,
    machine::{STEP, Simulated},
};
use identities::Identities;
use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration as Span,
};
use tokio::sync::mpsc;
use turmoil::{Builder, Sim};
use worldline_laws::network::{CLIENTS, GATEWAY, WORKER};
use worldline_proto::{Incarnation, NodeId, OpId};
use worldline_real::{
    Inbox,
    network::{CLIENT_FRAMES_PER_SECOND, Config, Network, Part},
    ready::Readiness,
};
use worldline_system::{
    doors::{
        self,
        network::{Event, Submission},
    },
    time::Instant,
};

/// Their names, by their numbers.
pub const NAMES: [&str; 4] = ["gateway", "client-1", "client-2", "worker"];
/// Where gateway and worker listen.
const PORT: u16 = 7_000;
/// Packets that wait on a socket of the simulation, and segments.
const SOCKET_CAPACITY: usize = 4_096;
/// No case takes so long.
const LONGEST: Span = Span::from_secs(1_000_000);

/// What the link between clients and gateway does to what it carries. The one between gateway and worker is short and whole:
/// turmoil's TCP does not send again what is lost.
#[derive(Clone, Copy, Debug)]
pub struct Link {
    /// The shortest and the longest latency, in milliseconds: what is sent later may arrive earlier.
    pub latency_ms: (u64, u64),
    /// How often a packet breaks the link, in a thousand. Then everything is lost, until by chance a
    /// packet mends it.
    pub break_permille: u16,
}

impl Link {
    /// The link of a seed: a good one, a slow one, a lossy one.
    #[must_use]
    pub fn of(seed: u64) -> Self {
        let (latency_ms, break_permille) = match seed % 3 {
            0 => ((5, 15), 0),
            1 => ((40, 400), 0),
            _ => ((5, 60), 10),
        };
        Self { latency_ms, break_permille }
    }
}

/// What the test has a node do.
enum Command {
    Submit(Submission),
    Rebind,
}

/// A node's present life, as the test reaches it.
#[derive(Clone)]
struct Life {
    inbox: Inbox,
    commands: mpsc::UnboundedSender<Command>,
}

/// The simulated network of one case.
pub struct Stage {
    /// Hosts and links.
    pub sim: Sim<'static>,
    lives: Vec<Arc<Mutex<Option<Life>>>>,
    asked: u64,
}

impl Stage {
    /// Everybody starts, over links like this.
    #[must_use]
    pub fn new(seed: u64, link: Link) -> Self {
        let mut sim = Builder::new()
            .rng_seed(seed)
            .tick_duration(STEP)
            .simulation_duration(LONGEST)
            .min_message_latency(STEP)
            .max_message_latency(STEP * 3)
            .repair_rate(0.3)
            .tcp_capacity(SOCKET_CAPACITY)
            .udp_capacity(SOCKET_CAPACITY)
            .enable_random_order()
            .build();
        let addresses: Vec<IpAddr> = NAMES.iter().map(|name| sim.lookup(*name)).collect();
        let lives: Vec<Arc<Mutex<Option<Life>>>> = NAMES.iter().map(|_| Arc::default()).collect();
        for (node, name) in NAMES.iter().enumerate() {
            let (part, peers) = match node {
                GATEWAY => (Part::Gateway, vec![WORKER]),
                WORKER => (Part::Server, vec![]),
                _ => (Part::Client, vec![GATEWAY]),
            };
            let peers = peers.into_iter().map(|peer| (NodeId(number(peer)), SocketAddr::new(addresses[peer], PORT)));
            let config = Config {
                node: NodeId(number(node)),
                part,
                listen: SocketAddr::from(([0, 0, 0, 0], PORT)),
                peers: peers.collect::<BTreeMap<_, _>>(),
                identity: Identities::all().of(node),
                client_frames_per_second: CLIENT_FRAMES_PER_SECOND,
            };
            let (machine, life) = (Simulated::new(seed * 8 + node as u64), Arc::clone(&lives[node]));
            sim.host(*name, move || live(Arc::clone(&machine), config.clone(), Arc::clone(&life)));
        }
        let mut stage = Self { sim, lives, asked: 0 };
        CLIENTS.into_iter().for_each(|client| stage.change(client, link));
        while (0..NAMES.len()).any(|node| stage.life(node).is_none()) {
            stage.step();
        }
        stage
    }

    /// From now on a client's link is like this.
    pub fn change(&mut self, client: usize, link: Link) {
        let (shortest, longest) = link.latency_ms;
        self.sim.set_link_latency(NAMES[client], NAMES[GATEWAY], Span::from_millis(shortest));
        self.sim.set_link_max_message_latency(NAMES[client], NAMES[GATEWAY], Span::from_millis(longest));
        self.sim.set_link_fail_rate(NAMES[client], NAMES[GATEWAY], f64::from(link.break_permille) / 1_000.0);
    }

    /// Now, by everybody's clock.
    #[must_use]
    pub fn now(&self) -> Instant {
        Instant::from_nanos(u64::try_from(self.sim.elapsed().as_nanos()).expect("shorter than 500 years"))
    }

    /// Submits as a node.
    pub fn submit(&mut self, node: usize, what: impl FnOnce(OpId, Instant) -> Submission) -> OpId {
        self.asked += 1;
        let op = OpId { incarnation: Incarnation(1), counter: self.asked };
        let submission = what(op, self.now());
        self.command(node, Command::Submit(submission));
        op
    }

    /// From now on a node's datagrams come from other ports.
    pub fn rebind(&self, node: usize) {
        self.command(node, Command::Rebind);
    }

    /// A node dies, and what waits for it is forgotten.
    pub fn crash(&mut self, node: usize) {
        self.sim.crash(NAMES[node]);
        self.life_of(node, |life| *life = None);
    }

    /// A node that has died starts again.
    pub fn restart(&mut self, node: usize) {
        self.sim.bounce(NAMES[node]);
        while self.life(node).is_none() {
            self.step();
        }
    }

    /// The next event of any node, if one comes until then.
    pub fn next_event(&mut self, by: Instant, log: &mut Log) -> Option<(usize, Event)> {
        loop {
            for (node, name) in NAMES.iter().enumerate() {
                let heard = self.life(node).and_then(|life| life.inbox.next_event(Span::ZERO));
                if let Some(event) = heard {
                    let doors::Event::Network(event) = event else { panic!("{event:?} is not of the network") };
                    told::tell(log, self.now(), name, &event);
                    return Some((node, event));
                }
            }
            if self.now() >= by {
                return None;
            }
            self.step();
        }
    }

    fn step(&mut self) {
        self.sim.step().expect("hosts run for ever");
    }

    fn command(&self, node: usize, command: Command) {
        if let Some(life) = self.life(node) {
            // Nobody hears what is said to the dead.
            drop(life.commands.send(command));
        }
    }

    fn life(&self, node: usize) -> Option<Life> {
        self.life_of(node, |life| life.clone())
    }

    fn life_of<T>(&self, node: usize, with: impl FnOnce(&mut Option<Life>) -> T) -> T {
        with(&mut self.lives[node].lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The number of a node: clients have other numbers than servers.
#[must_use]
pub fn number(node: usize) -> u32 {
    if CLIENTS.contains(&node) { 100 + node as u32 } else { 1 + node as u32 }
}

/// A node's life: the adapter as production has it, and commands of the test instead of a role.
async fn live(machine: Arc<Simulated>, config: Config, life: Arc<Mutex<Option<Life>>>) -> turmoil::Result {
    let (inbox, (commands, mut commanded)) = (Inbox::default(), mpsc::unbounded_channel());
    let network = Network::bind_on(machine.clone(), config, inbox.clone(), Readiness::default()).await?;
    *life.lock().unwrap_or_else(PoisonError::into_inner) = Some(Life { inbox, commands });
    while let Some(command) = commanded.recv().await {
        match command {
            Command::Submit(submission) => network.submit(submission),
            Command::Rebind => machine.rebind()?,
        }
    }
    std::future::pending().await
}
