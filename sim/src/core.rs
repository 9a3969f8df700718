//! The core: all of a world that is not its roles and not its services. Time, the queue, nodes, network, draws, history.
//!
//! The service models work on it through the public functions here and in [`crate::network`].

use crate::{
    entropy::{Keyed, Purpose},
    hash::TraceHash,
    hooks::HookBoard,
    item::{Item, Scheduled, ServiceItem},
    network::{HANDSHAKE_TIMEOUT, IDLE_TIMEOUT, Network, connection::End},
    node::{Node, NodeState, connection_id},
    queue::Queue,
    service_times::ServiceTimes,
    telemetry::Telemetry,
    world::Leak,
};
use worldline_proto::{Incarnation, NodeId, OpId};
use worldline_system::{
    Desk, doors,
    history::{Entry, EventId, What},
    time::{Instant, UnixTime},
};

/// What was counted over a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Events handed to roles.
    pub delivered: u64,
    /// Packets sent, of every kind.
    pub packets: u64,
    /// Packets that the network lost, or that found no process.
    pub packets_lost: u64,
    /// Packets that the network doubled.
    pub packets_doubled: u64,
    /// Packets sent again because they were not acknowledged.
    pub packets_repeated: u64,
    /// Unsolicited events dropped because an inbox or a watch was full.
    pub shed: u64,
    /// Answers that came after the operation's end, or to a dead incarnation.
    pub answers_dropped: u64,
    /// Operations refused because their node had too many in flight.
    pub refused_busy: u64,
    /// Operations that reached their deadline.
    pub deadlines: u64,
    /// Replies to calls that nobody waits for any more.
    pub replies_dropped: u64,
    /// Submissions on connections that had ended.
    pub sent_to_nobody: u64,
    /// Datagrams and messages that are larger than the door carries.
    pub unsendable: u64,
    /// Messages between servers that were encoded and decoded on their way, and came out equal.
    pub round_trips: u64,
}

/// All of a world but its roles and services.
#[derive(Clone)]
pub struct Core {
    pub(crate) now: Instant,
    /// The event that is being handled.
    pub(crate) event: EventId,
    pub(crate) hash: TraceHash,
    pub(crate) keyed: Keyed,
    pub(crate) queue: Queue<Scheduled>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) network: Network,
    pub(crate) counters: Counters,
    pub(crate) desks: Vec<Desk>,
    pub(crate) hooks: HookBoard,
    pub(crate) history: Vec<Entry>,
    pub(crate) telemetry: Telemetry,
    pub(crate) service_times: ServiceTimes,
}

impl Core {
    /// A core without nodes, at time zero. A service model's own tests may build on it.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let keyed = Keyed::new(seed);
        Self {
            now: Instant::default(),
            event: EventId::default(),
            hash: TraceHash::default(),
            keyed,
            queue: Queue::new(),
            nodes: Vec::new(),
            network: Network::default(),
            counters: Counters::default(),
            desks: Vec::new(),
            hooks: HookBoard::new(keyed),
            history: Vec::new(),
            telemetry: Telemetry::default(),
            service_times: ServiceTimes::default(),
        }
    }

    /// Virtual time.
    #[must_use]
    pub const fn now(&self) -> Instant {
        self.now
    }

    /// 64 bits that depend on nothing but the seed and these three.
    #[must_use]
    pub const fn draw(&self, purpose: Purpose, who: u64, n: u64) -> u64 {
        self.keyed.draw(purpose, who, n)
    }

    /// Whether a node runs: it has a process, and it is not paused.
    #[must_use]
    pub fn is_running(&self, node: NodeId) -> bool {
        self.state(node) == NodeState::Running
    }

    /// Whether a node has a process, perhaps a paused one.
    #[must_use]
    pub fn is_up(&self, node: NodeId) -> bool {
        self.nodes.get(node.0 as usize).is_some_and(Node::is_up)
    }

    /// How a node is.
    #[must_use]
    pub fn state(&self, node: NodeId) -> NodeState {
        self.nodes.get(node.0 as usize).map_or(NodeState::Down, |node| node.state)
    }

    /// Which life of a node this is, or was, if it is down.
    #[must_use]
    pub fn incarnation(&self, node: NodeId) -> Incarnation {
        self.nodes[node.0 as usize].incarnation
    }

    /// A node's monotonic clock.
    #[must_use]
    pub fn local(&self, node: NodeId) -> Instant {
        self.nodes[node.0 as usize].clock.local(self.now)
    }

    /// A node's wall clock.
    #[must_use]
    pub fn wall(&self, node: NodeId) -> UnixTime {
        let clock = &self.nodes[node.0 as usize].clock;
        clock.wall(clock.local(self.now))
    }

    /// A node's name.
    #[must_use]
    pub fn name(&self, node: NodeId) -> &str {
        &self.nodes[node.0 as usize].cold.name
    }

    /// How many nodes there are; their ids count from zero.
    #[must_use]
    pub fn nodes(&self) -> usize {
        self.nodes.len()
    }

    /// What was counted so far.
    #[must_use]
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Schedules something of a service at a node. It is handed to its model whatever becomes of the node.
    pub fn schedule(&mut self, at: Instant, node: NodeId, item: impl Into<ServiceItem>) {
        self.push(at.max(self.now), node, item.into().into());
    }

    /// Writes to the history, at this moment of this node.
    pub fn record(&mut self, node: NodeId, what: What) {
        let entry = &self.nodes[node.0 as usize];
        self.history.push(Entry {
            at: self.now,
            local: entry.clock.local(self.now),
            node,
            incarnation: entry.incarnation,
            event: self.event,
            what,
        });
    }

    /// See [`crate::World::leaks`].
    pub(crate) fn leaks(&self) -> Vec<Leak> {
        let mut leaks = Vec::new();
        let longest = (IDLE_TIMEOUT + HANDSHAKE_TIMEOUT) * 2;
        for (node, entry) in (0..).map(NodeId).zip(&self.nodes) {
            if entry.state != NodeState::Running {
                continue;
            }
            let local = entry.clock.local(self.now);
            let late = entry.cold.pending.iter().filter(|(_, pending)| pending.deadline < local);
            leaks.extend(
                late.map(|(&counter, _)| Leak::Operation {
                    node,
                    op: OpId { incarnation: entry.incarnation, counter },
                }),
            );
            let silent = |end: &&End| end.number != 0 && self.now.since(end.last_heard) > longest;
            leaks.extend(
                (0..)
                    .zip(&entry.ends)
                    .filter(|(_, end)| silent(end))
                    .map(|(index, end)| Leak::HalfOpen { node, connection: connection_id(index, end.number) }),
            );
            if !entry.cold.inbox.is_empty() && !entry.cold.wake_pending {
                leaks.push(Leak::Inbox { node, waiting: entry.cold.inbox.len() });
            }
        }
        leaks
    }

    /// Schedules something for the node's present incarnation.
    pub(crate) fn push(&mut self, at: Instant, node: NodeId, item: Item) {
        let tag = self.nodes[node.0 as usize].incarnation.0;
        self.queue.push(at.as_nanos(), Scheduled { cause: self.event, node, tag, item });
    }

    /// Schedules a packet.
    pub(crate) fn push_packet(&mut self, at: Instant, from: NodeId, to: NodeId, item: Item) {
        self.queue.push(at.as_nanos(), Scheduled { cause: self.event, node: to, tag: from.0, item });
    }

    /// Tells the node's present incarnation something, now.
    pub(crate) fn tell(&mut self, node: NodeId, event: doors::Event) {
        self.push(self.now, node, Item::Tell(Box::new(event)));
    }
}
