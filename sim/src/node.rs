//! A node: a place, a clock, an incarnation, and what dies with it.
//!
//! A crash takes everything but the node's birth state; answers die with the incarnation that asked, packets under way do
//! not. A pause is SIGSTOP: the clocks go on, and what arrives waits in the inbox.

use crate::{
    clock::{Clock, Timers},
    core::Core,
    cost::Cost,
    fault::Which,
    item::{Item, Scheduled},
    network::{
        call::{Channel, Served},
        connection::End,
        latency::Place,
    },
    operations::Pending,
};
use std::collections::{BTreeMap, VecDeque};
use worldline_proto::{ConnectionId, Incarnation, NodeId};
use worldline_system::{
    Desk,
    doors::{self, telemetry::Reports},
    history::What,
    limits,
    time::{Duration, Instant},
};

/// A node as it is added to a world.
#[derive(Clone, Debug, Default)]
pub struct NodeSpec {
    /// What `--events` calls it.
    pub name: String,
    /// Where it stands.
    pub place: Place,
    /// How fast its clock runs, against virtual time.
    pub drift_ppm: i32,
    /// How far its wall clock is off at the beginning, in ns.
    pub wall_off_ns: i64,
    /// What handling an event costs it. `None` is nothing.
    pub cost: Option<Cost>,
}

impl NodeSpec {
    /// A node with clocks that are right.
    #[must_use]
    pub fn new(name: impl Into<String>, place: Place) -> Self {
        Self { name: name.into(), place, drift_ppm: 0, wall_off_ns: 0, cost: None }
    }
}

/// What has become of a node; told to the service models.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NodeChange {
    /// A new incarnation runs.
    Started,
    /// Its process is gone, and what was not synced with it if it lost power. `power` tells the two apart.
    Crashed {
        /// Whether the machine lost power, and not only the process its life.
        power: bool,
    },
    /// It does nothing until it is resumed.
    Paused,
    /// It goes on.
    Resumed,
}

/// How a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NodeState {
    /// No process; nothing answers.
    Down,
    /// No process; its machine answers that there is none.
    Stopped,
    /// Stopped by SIGSTOP, or held between outbox and socket.
    Paused,
    /// It runs.
    Running,
}

/// What the kernel keeps for a node. What every event needs comes first, in one cache line.
#[derive(Clone)]
#[repr(C, align(64))]
pub(crate) struct Node {
    pub clock: Clock,
    pub ends: Vec<End>,
    pub incarnation: Incarnation,
    /// Nothing stands between an event and the role: running, idle, inbox empty, no fault waiting for its outbox.
    pub plain: bool,
    pub state: NodeState,
    pub actor: bool,
    pub cold: Box<Cold>,
    pub busy_until: Instant,
    pub slow_permille: u32,
    pub place: Place,
    /// Connections opened and accepted so far, over all incarnations: a number is never used again.
    pub connections: u32,
}

/// What most events do not need.
#[derive(Clone)]
pub(crate) struct Cold {
    pub name: String,
    pub free_ends: Vec<u32>,
    pub timers: Timers,
    /// Operations that wait for their answer, by counter.
    pub pending: BTreeMap<u64, Pending>,
    /// What has arrived and waits until the node has time.
    pub inbox: VecDeque<Scheduled>,
    /// Of these, what nobody asked for.
    pub unsolicited: usize,
    /// Watch news that wait, in the inbox or in the queue.
    pub news: usize,
    pub wake_pending: bool,
    /// Door submissions until it crashes, if that is a fault that waits.
    pub crash_after: Option<(Which, u32)>,
    /// Stop it before an outbox like this leaves.
    pub hold: Option<Which>,
    /// What was held when it was stopped.
    pub held: Vec<doors::Submission>,
    /// Packets outside connections, by peer.
    pub hops: Vec<(NodeId, u32)>,
    pub channels: Vec<(NodeId, Channel)>,
    pub served: BTreeMap<u64, Served>,
    /// What handling an event costs.
    pub cost: Option<Cost>,
    pub calls_served: u64,
    /// Typed messages sent so far, for the sample that is encoded.
    pub typed_messages: u64,
}

impl Node {
    /// Whether a process exists.
    pub(crate) fn is_up(&self) -> bool {
        matches!(self.state, NodeState::Paused | NodeState::Running)
    }

    /// Recomputes whether an event may go straight to the role.
    pub(crate) fn settle(&mut self) {
        self.plain = self.state == NodeState::Running
            && self.actor
            && self.cold.cost.is_none()
            && self.cold.inbox.is_empty()
            && self.cold.crash_after.is_none()
            && self.cold.hold.is_none();
    }

    /// Whether an outbox leaves as it is.
    #[inline]
    pub(crate) fn undisturbed(&self) -> bool {
        self.plain || self.cold.crash_after.is_none() && self.cold.hold.is_none()
    }

    pub(crate) fn end(&self, index: u32, number: u32) -> Option<&End> {
        self.ends.get(index as usize).filter(|end| end.number == number)
    }

    pub(crate) fn end_mut(&mut self, index: u32, number: u32) -> Option<&mut End> {
        self.ends.get_mut(index as usize).filter(|end| end.number == number)
    }
}

impl Core {
    /// Adds a node that is down. Ids count from zero.
    pub(crate) fn add_node(&mut self, spec: NodeSpec, actor: bool) -> NodeId {
        let node = NodeId(u32::try_from(self.nodes.len()).expect("fewer than four billion nodes"));
        // Zero is a node's own and means nothing to another: somewhere in the first hour.
        let zero_ns = self.draw(crate::Purpose::ClockZero, node.0.into(), 0) % 3_600_000_000_000;
        self.desks.push(Desk {
            node,
            incarnation: Incarnation(0),
            operations: 0,
            entropy: self.keyed.stream(node, Incarnation(0)),
            telemetry: Default::default(),
        });
        self.telemetry.add_node();
        self.nodes.push(Node {
            incarnation: Incarnation(0),
            state: NodeState::Down,
            plain: false,
            actor,
            clock: Clock::new(self.now, zero_ns, spec.drift_ppm, spec.wall_off_ns),
            ends: Vec::new(),
            busy_until: Instant::default(),
            slow_permille: 1_000,
            place: spec.place,
            connections: 0,
            cold: Box::new(Cold {
                name: spec.name,
                free_ends: Vec::new(),
                timers: BTreeMap::new(),
                pending: BTreeMap::new(),
                inbox: VecDeque::new(),
                unsolicited: 0,
                news: 0,
                wake_pending: false,
                crash_after: None,
                hold: None,
                held: Vec::new(),
                hops: Vec::new(),
                channels: Vec::new(),
                served: BTreeMap::new(),
                cost: spec.cost,
                calls_served: 0,
                typed_messages: 0,
            }),
        });
        node
    }

    /// Begins a new incarnation. Its first event is `Started`.
    pub(crate) fn begin(&mut self, node: NodeId) {
        let entry = &mut self.nodes[node.0 as usize];
        assert!(!entry.is_up(), "a node starts when it is down");
        entry.incarnation = Incarnation(entry.incarnation.0 + 1);
        entry.state = NodeState::Running;
        entry.busy_until = self.now;
        entry.settle();
        let incarnation = entry.incarnation;
        let desk = &mut self.desks[node.0 as usize];
        let entropy = self.keyed.stream(node, incarnation);
        let telemetry = Reports::traced(self.telemetry.traced());
        *desk = Desk { node, incarnation, operations: 0, entropy, telemetry };
        self.record(node, What::Started);
        if self.nodes[node.0 as usize].actor {
            self.push(self.now, node, Item::Tell(Box::new(doors::Event::Started)));
        }
    }

    /// Ends the incarnation and forgets all that was its own. Peers are told where `told`.
    pub(crate) fn end_process(
        &mut self,
        node: NodeId,
        into: NodeState,
        what: What,
        told: Option<doors::network::CloseReason>,
    ) {
        if !self.nodes[node.0 as usize].is_up() {
            self.nodes[node.0 as usize].state = into;
            return;
        }
        self.record(node, what);
        if let Some(reason) = told {
            self.reset_all(node, reason);
        }
        let entry = &mut self.nodes[node.0 as usize];
        entry.state = into;
        entry.plain = false;
        entry.ends.clear();
        let cold = &mut *entry.cold;
        cold.free_ends.clear();
        cold.timers.clear();
        cold.pending.clear();
        cold.inbox.clear();
        cold.unsolicited = 0;
        cold.news = 0;
        cold.wake_pending = false;
        cold.crash_after = None;
        cold.hold = None;
        cold.held.clear();
        cold.channels.clear();
        cold.served.clear();
    }

    /// A fault that waits for the node's next outbox.
    pub(crate) fn await_outbox(&mut self, node: NodeId, crash_after: Option<(Which, u32)>, hold: Option<Which>) {
        let entry = &mut self.nodes[node.0 as usize];
        if entry.is_up() {
            entry.cold.crash_after = crash_after.or(entry.cold.crash_after);
            entry.cold.hold = hold.or(entry.cold.hold);
            entry.plain = false;
        }
    }

    pub(crate) fn pause(&mut self, node: NodeId) -> bool {
        let entry = &mut self.nodes[node.0 as usize];
        let running = entry.state == NodeState::Running;
        if running {
            entry.state = NodeState::Paused;
            entry.plain = false;
        }
        running
    }

    pub(crate) fn resume(&mut self, node: NodeId) -> bool {
        let entry = &mut self.nodes[node.0 as usize];
        let paused = entry.state == NodeState::Paused;
        if paused {
            entry.state = NodeState::Running;
            self.after_turn(node, Duration::ZERO);
        }
        paused
    }

    /// Charges a turn's time and sees to it that a node with a full inbox comes to it.
    pub(crate) fn after_turn(&mut self, node: NodeId, spent: Duration) {
        let now = self.now;
        let entry = &mut self.nodes[node.0 as usize];
        if entry.state != NodeState::Running {
            return;
        }
        entry.busy_until = entry.busy_until.max(now + spent);
        if !entry.cold.inbox.is_empty() && !entry.cold.wake_pending {
            entry.cold.wake_pending = true;
            let at = entry.busy_until;
            self.push(at, node, Item::Wake);
        }
        self.nodes[node.0 as usize].settle();
    }

    /// Whether this may be handled now. If not it waits in the inbox, or is shed where that is full.
    pub(crate) fn gate(&mut self, what: Scheduled) -> Option<Scheduled> {
        let now = self.now;
        let entry = &mut self.nodes[what.node.0 as usize];
        if !entry.actor || !entry.is_up() {
            return Some(what);
        }
        let transport = what.item.is_transport();
        let idle =
            entry.state == NodeState::Running && (transport || entry.busy_until <= now && entry.cold.inbox.is_empty());
        if idle {
            return Some(what);
        }
        if what.item.is_unsolicited() {
            if entry.cold.unsolicited >= limits::INBOX {
                self.counters.shed += 1;
                self.shed(what);
                return None;
            }
            entry.cold.unsolicited += 1;
        }
        let node = what.node;
        entry.cold.inbox.push_back(what);
        entry.plain = false;
        self.after_turn(node, Duration::ZERO);
        None
    }

    /// The first thing in the inbox of a node that has come to it.
    pub(crate) fn take_waiting(&mut self, node: NodeId) -> Option<Scheduled> {
        let entry = &mut self.nodes[node.0 as usize];
        entry.cold.wake_pending = false;
        if entry.state != NodeState::Running {
            return None;
        }
        let what = entry.cold.inbox.pop_front()?;
        if what.item.is_unsolicited() {
            entry.cold.unsolicited -= 1;
        }
        Some(what)
    }
}

/// A connection's name at its own node.
pub(crate) const fn connection_id(index: u32, number: u32) -> ConnectionId {
    ConnectionId((number as u64) << 32 | index as u64)
}
