//! The cache door, served by a model of Redis-protocol servers: one primary a region, and replicas that follow it.
//!
//! * A caller keeps one connection to its region's primary, from its own start on. What it submits is executed in that order,
//!   and answered in that order, as long as the connection stands; what finds no connection is `Refused(Unreachable)`.
//! * A connection that breaks ends all that waits on it as `Unknown`. What was on its way may still be executed, even after
//!   what its caller sent on the next connection.
//! * Replication is asynchronous: an acknowledged write is lost if the primary falls before the replica has it.
//! * Nothing is kept on disk: a server that starts is empty, and if it is still the primary its replicas become empty too.
//! * A replica is promoted after [`Config::detection`], as Sentinel does it. A primary that is merely cut off from its
//!   replicas goes on serving whoever reaches it, until it sees the new one; then it throws away what it had.
//! * Ends of life are kept by the wall clock of the server that is asked.
//!
//! Places are kept on the [grid](worldline_system::rules::grid) of Redis' geo sets, so that what the model answers is what a
//! real server does.
//!
//! Deliberately absent: persistence, the rewriting of a log, sharding within a region.

mod client;
mod commands;
mod failover;
mod fault;
mod server;
mod store;
#[cfg(test)]
mod storm_tests;
mod telemetry;
#[cfg(test)]
mod tests;

pub use fault::Fault;
pub use store::{ENTRY_BYTES, FIELD_BYTES, MEMBER_BYTES};

use crate::{Core, node::NodeChange};
use client::Client;
use fault::Faults;
use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};
use store::{Effect, Store};
use telemetry::Told;
use worldline_proto::{NodeId, OpId};
use worldline_system::{
    doors::cache::{Answer, Submission},
    time::{Duration, Instant},
};

/// What a region's cache is made of, and whom it serves.
#[derive(Clone, Debug, Default)]
pub struct Region {
    /// The servers' nodes; the first begins as the primary, the others follow it. At least one.
    pub members: Vec<NodeId>,
    /// Whose cache it is. A node that no region serves is refused.
    pub callers: Vec<NodeId>,
}

/// What the caches of a world are made of.
#[derive(Clone, Debug)]
pub struct Config {
    /// One cache a region.
    pub regions: Vec<Region>,
    /// How long a primary must have been lost before a replica is promoted: Sentinel's `down-after-milliseconds`.
    pub detection: Duration,
    /// The memory of each server, in bytes as [estimated](ENTRY_BYTES): `maxmemory`.
    pub memory_bytes_max: usize,
}

impl Config {
    /// These caches, with two seconds to detect a lost primary and 128 MiB a server.
    #[must_use]
    pub fn new(regions: Vec<Region>) -> Self {
        Self { regions, detection: Duration::from_secs(2), memory_bytes_max: 128 << 20 }
    }
}

/// One server.
#[derive(Clone, Debug)]
struct Server {
    node: NodeId,
    group: usize,
    /// Counts what breaks its connections: crashes and demotions.
    life: u32,
    /// Whether it believes to be the primary.
    primary: bool,
    store: Store,
    /// Which past its data are of, and how much of it.
    timeline: u32,
    offset: u64,
    /// Primary's side: the last changes, up to `offset`.
    backlog: VecDeque<Effect>,
    /// Replica's side, as its primary knows it: what was sent, and when the last of it arrives.
    sent: u64,
    arrival: Instant,
    /// It executes one thing after the other.
    free_at: Instant,
    /// What arrived while it was paused.
    parked: VecDeque<Item>,
    told: Told,
}

/// The servers of one region.
#[derive(Clone, Debug)]
struct Group {
    members: Vec<usize>,
    primary: usize,
    /// Counts promotions and empty restarts. A message of an older timeline is void.
    timeline: u32,
    missing_since: Option<Instant>,
}

/// The servers of all regions, and the callers' connections.
#[derive(Clone, Debug)]
pub struct Model {
    servers: Vec<Server>,
    groups: Vec<Group>,
    homes: BTreeMap<NodeId, usize>,
    clients: BTreeMap<NodeId, Client>,
    /// Connections opened so far.
    connections: u64,
    /// What the sockets of broken connections still try to deliver: until when, and when next.
    lingering: VecDeque<(Instant, Instant, Box<Request>)>,
    requests: u64,
    detection: Duration,
    memory_bytes_max: usize,
    faults: Faults,
}

/// A submission on its way.
#[derive(Clone, Debug, Hash)]
pub struct Request {
    client: NodeId,
    op: OpId,
    connection: u64,
    /// The server, and which life of its connections.
    server: usize,
    life: u32,
    submission: Submission,
}

/// An answer on its way.
#[derive(Clone, Debug, Hash)]
pub struct Response {
    client: NodeId,
    op: OpId,
    connection: u64,
    answer: Answer,
}

/// Changes on their way to a replica.
#[derive(Clone, Debug, Hash)]
pub struct Changes(Arc<[Effect]>);

/// All that a primary has, on its way to a replica.
#[derive(Clone, Debug)]
pub struct Snapshot(Arc<Store>);

/// What the model schedules for itself.
#[derive(Clone, Debug)]
pub enum Item {
    /// Looks after liveness, connections, and what must be sent again.
    Pulse,
    /// A connection of this number stands.
    Connected(NodeId, u64),
    /// A connection of this number was reset.
    Reset(NodeId, u64),
    /// A request arrives at its server.
    Arrive(Box<Request>),
    /// A server comes to a request.
    Execute(Box<Request>),
    /// An answer arrives at its caller.
    Answer(Box<Response>),
    /// Changes arrive at a replica: of this timeline, behind this offset.
    Replicate(usize, u32, u64, Changes),
    /// All data arrive at a replica: of this timeline, up to this offset.
    Resync(usize, u32, u64, Snapshot),
}

impl Model {
    /// Caches that have not started. Panics on a region without a member.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let (mut servers, mut groups, mut homes) = (vec![], vec![], BTreeMap::new());
        for (group, region) in config.regions.into_iter().enumerate() {
            assert!(!region.members.is_empty(), "a region's cache has a server");
            let first = servers.len();
            servers.extend(region.members.iter().map(|&node| Server::new(node, group)));
            servers[first].primary = true;
            groups.push(Group {
                members: (first..servers.len()).collect(),
                primary: first,
                timeline: 1,
                missing_since: None,
            });
            homes.extend(region.callers.into_iter().map(|caller| (caller, group)));
        }
        Self {
            servers,
            groups,
            homes,
            clients: BTreeMap::new(),
            connections: 0,
            lingering: VecDeque::new(),
            requests: 0,
            detection: config.detection,
            memory_bytes_max: config.memory_bytes_max,
            faults: Faults::default(),
        }
    }

    /// Begins: called once, at the beginning of the world.
    pub fn start(&mut self, core: &mut Core) {
        if let Some(server) = self.servers.first() {
            later(core, core.now() + failover::PULSE, server.node, Item::Pulse);
        }
    }

    /// Takes a submission. It is answered by [`Core::answer_cache`], or by the kernel at its deadline.
    pub fn submit(&mut self, core: &mut Core, from: NodeId, op: OpId, submission: Submission) {
        self.ask(core, from, op, submission);
    }

    /// Handles what was scheduled. A paused server's items wait until it goes on; a dead one's are lost.
    pub fn on_item(&mut self, core: &mut Core, _: NodeId, item: Item) {
        let server = match &item {
            Item::Arrive(request) | Item::Execute(request) => Some(request.server),
            &Item::Replicate(server, ..) | &Item::Resync(server, ..) => Some(server),
            Item::Pulse | Item::Connected(..) | Item::Reset(..) | Item::Answer(_) => None,
        };
        if let Some(server) = server
            && !core.is_running(self.servers[server].node)
        {
            if core.is_up(self.servers[server].node) {
                self.servers[server].park(item);
            }
            return;
        }
        self.handle(core, item);
    }

    fn handle(&mut self, core: &mut Core, item: Item) {
        match item {
            Item::Pulse => self.pulse(core),
            Item::Connected(client, number) => self.connected(core, client, number),
            Item::Reset(client, number) => self.reset(core, client, number),
            Item::Arrive(request) => self.arrive(core, request),
            Item::Execute(request) => self.execute(core, *request),
            Item::Answer(response) => self.answered(core, *response),
            Item::Replicate(server, timeline, base, changes) => {
                self.replicate(core, server, timeline, base, &changes.0);
            }
            Item::Resync(server, timeline, offset, snapshot) => self.resync(server, timeline, offset, &snapshot.0),
        }
    }

    /// Takes note of what happened to a node, a member's or a caller's.
    pub fn on_node(&mut self, core: &mut Core, node: NodeId, change: NodeChange) {
        self.node_changed(core, node, change);
    }

    /// Makes something go wrong.
    pub fn inject(&mut self, core: &mut Core, fault: Fault) {
        self.fail(core, fault);
    }

    /// Ends every fault that goes on.
    pub fn heal(&mut self, _: &mut Core) {
        self.faults = Faults::default();
    }

    /// A region's primary's node.
    #[must_use]
    pub fn primary(&self, region: usize) -> NodeId {
        self.servers[self.groups[region].primary].node
    }

    /// The nodes of all servers.
    pub fn members(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.servers.iter().map(|server| server.node)
    }

    /// How many entries a server holds, and how many bytes they are estimated to take. Zeroes for another node.
    #[must_use]
    pub fn holds(&self, node: NodeId) -> (usize, usize) {
        let server = self.servers.iter().find(|server| server.node == node);
        server.map_or((0, 0), |server| (server.store.len(), server.store.bytes()))
    }

    /// How many requests and answers wait for a link to carry them: for the checker of leaks.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.lingering.len() + self.clients.values().map(Client::waiting).sum::<usize>()
    }
}

impl Server {
    fn new(node: NodeId, group: usize) -> Self {
        Self {
            node,
            group,
            life: 0,
            primary: false,
            store: Store::default(),
            timeline: 1,
            offset: 0,
            backlog: VecDeque::new(),
            sent: 0,
            arrival: Instant::default(),
            free_at: Instant::default(),
            parked: VecDeque::new(),
            told: Told::default(),
        }
    }

    /// Keeps what arrives while the process is paused; beyond the socket's bound it is lost.
    fn park(&mut self, item: Item) {
        const PARKED: usize = 4_096;
        if self.parked.len() < PARKED {
            self.parked.push_back(item);
        }
    }
}

fn later(core: &mut Core, at: Instant, node: NodeId, item: Item) {
    core.schedule(at, node, item);
}
