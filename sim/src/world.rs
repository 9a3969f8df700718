//! A world: the core, its roles and its services, stepped one event at a time.

mod faults;
mod outbox;

use crate::{
    bus, cache,
    core::Core,
    directory,
    hash::TraceHash,
    host::{Actor, Seat},
    item::{Item, Scheduled},
    ledger,
    network::connection::EndRef,
    node::{NodeChange, NodeSpec},
    service_times::ServiceTimes,
};
use std::{hash::Hash, sync::Arc};
use worldline_proto::{ConnectionId, NodeId, OpId};
use worldline_system::{
    Outcome, Refusal,
    doors::{
        self, Submission, network,
        telemetry::{Meter, Span},
    },
    history::{Entry, EventId},
    time::{Duration, Instant},
};

/// How a world begins.
#[derive(Clone, Copy, Debug, Default)]
pub struct Config {
    /// What every draw depends on.
    pub seed: u64,
    /// Whether hooks may be active.
    pub hooks: bool,
}

/// What kind of event a step was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum StepKind {
    /// A role took an event.
    Role,
    /// Packets and timers of the network below the roles.
    Transport,
    /// Something of the directory model.
    Directory,
    /// Something of the ledger model.
    Ledger,
    /// Something of the bus model.
    Bus,
    /// Something of the cache model.
    Cache,
    /// A fault.
    Fault,
}

/// One event that was handled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Its place in the order of all events, from 1.
    pub id: EventId,
    /// The event during which it was scheduled; zero for faults and beginnings.
    pub cause: EventId,
    /// When, by virtual time.
    pub at: Instant,
    /// Where.
    pub node: NodeId,
    /// What kind.
    pub kind: StepKind,
    /// What happened, in words. Empty unless [`World::tracing`].
    pub text: String,
}

/// What [`Step`] is made of.
#[derive(Clone, Copy)]
struct Happened {
    cause: EventId,
    node: NodeId,
    kind: StepKind,
}

/// Something that waits for what will not come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Leak {
    /// An operation of a running node is past its deadline and unanswered.
    Operation {
        /// Whose.
        node: NodeId,
        /// Which.
        op: OpId,
    },
    /// A connection is open at one end only, for longer than any timeout.
    HalfOpen {
        /// Whose end.
        node: NodeId,
        /// Which.
        connection: ConnectionId,
    },
    /// Events wait at a running node that has time.
    Inbox {
        /// Whose.
        node: NodeId,
        /// How many.
        waiting: usize,
    },
}

/// A world. Cloning it forks the run.
#[derive(Clone)]
pub struct World<A> {
    /// Whether steps are described in words.
    pub tracing: bool,
    core: Core,
    actors: Vec<Option<A>>,
    /// What each actor is at the beginning of every incarnation.
    births: Arc<Vec<Option<A>>>,
    directory: Option<directory::Model>,
    ledger: Option<ledger::Model>,
    bus: Option<bus::Model>,
    cache: Option<cache::Model>,
    outbox: Vec<Submission>,
    faults: u32,
    /// The last event in words.
    text: String,
}

impl<A: Actor> World<A> {
    /// An empty world at time zero.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let mut core = Core::new(config.seed);
        if config.hooks {
            core.hooks.enable();
        }
        Self {
            tracing: false,
            core,
            actors: Vec::new(),
            births: Arc::default(),
            directory: None,
            ledger: None,
            bus: None,
            cache: None,
            outbox: Vec::new(),
            faults: 0,
            text: String::new(),
        }
    }

    /// Adds a node that plays a role, down until it is started. Ids count from zero in the order of these calls.
    pub fn add_node(&mut self, spec: NodeSpec, birth: A) -> NodeId {
        self.add(spec, Some(birth))
    }

    /// Adds a node for a member of a service, and starts it.
    pub fn add_member(&mut self, spec: NodeSpec) -> NodeId {
        let node = self.add(spec, None);
        self.core.begin(node);
        node
    }

    fn add(&mut self, spec: NodeSpec, birth: Option<A>) -> NodeId {
        Arc::make_mut(&mut self.births).push(birth.clone());
        let node = self.core.add_node(spec, birth.is_some());
        self.actors.push(None);
        node
    }

    /// How long the services of this world work on what they are asked.
    pub fn set_service_times(&mut self, times: ServiceTimes) {
        self.core.service_times = times;
    }

    /// Gives the world its directory. Its members must be nodes already.
    pub fn set_directory(&mut self, config: directory::Config) {
        let mut model = directory::Model::new(config);
        model.start(&mut self.core);
        self.directory = Some(model);
    }

    /// Gives the world its ledger. Its members must be nodes already.
    pub fn set_ledger(&mut self, config: ledger::Config) {
        let mut model = ledger::Model::new(config);
        model.start(&mut self.core);
        self.ledger = Some(model);
    }

    /// Gives the world its caches. Their members and callers must be nodes already.
    pub fn set_cache(&mut self, config: cache::Config) {
        let mut model = cache::Model::new(config);
        model.start(&mut self.core);
        self.cache = Some(model);
    }

    /// Gives the world its bus. Its members must be nodes already.
    pub fn set_bus(&mut self, config: bus::Config) {
        let mut model = bus::Model::new(config);
        model.start(&mut self.core);
        self.bus = Some(model);
    }

    /// Starts a node that is down: a new incarnation from its birth state.
    pub fn start(&mut self, node: NodeId) {
        self.actors[node.0 as usize].clone_from(&self.births[node.0 as usize]);
        self.core.begin(node);
        self.changed(node, NodeChange::Started);
    }

    /// Submits as a running node, between two events of its role: for who plays its role from outside the world. `what` is given
    /// the name of an operation and the node's clock. Panics where the node is not up.
    pub fn submit_as(&mut self, node: NodeId, what: impl FnOnce(OpId, Instant) -> Submission) -> OpId {
        assert!(self.core.is_up(node), "{node} is up");
        self.begin(EventId::default(), node, StepKind::Role);
        let desk = &mut self.core.desks[node.0 as usize];
        desk.operations += 1;
        let op = OpId { incarnation: desk.incarnation, counter: desk.operations };
        let submission = what(op, self.core.local(node));
        self.outbox.push(submission);
        self.flush(node);
        op
    }

    /// The core: time, nodes, counters, draws.
    #[must_use]
    pub const fn core(&self) -> &Core {
        &self.core
    }

    /// A node's role. `None` for a member of a service, and before the first start.
    #[must_use]
    pub fn actor(&self, node: NodeId) -> Option<&A> {
        self.actors.get(node.0 as usize)?.as_ref()
    }

    /// The directory model.
    #[must_use]
    pub const fn directory(&self) -> Option<&directory::Model> {
        self.directory.as_ref()
    }

    /// The ledger model.
    #[must_use]
    pub const fn ledger(&self) -> Option<&ledger::Model> {
        self.ledger.as_ref()
    }

    /// The cache model.
    #[must_use]
    pub const fn cache(&self) -> Option<&cache::Model> {
        self.cache.as_ref()
    }

    /// The bus model.
    #[must_use]
    pub const fn bus(&self) -> Option<&bus::Model> {
        self.bus.as_ref()
    }

    /// Virtual time.
    #[must_use]
    pub const fn now(&self) -> Instant {
        self.core.now
    }

    /// Events handled so far.
    #[must_use]
    pub const fn events(&self) -> u64 {
        self.core.event.0
    }

    /// How much waits in the queue, stale timers and deadlines included.
    #[must_use]
    pub fn scheduled(&self) -> usize {
        self.core.queue.len()
    }

    /// The trace hash.
    #[must_use]
    pub const fn hash(&self) -> u64 {
        self.core.hash.get()
    }

    /// How often each probe was reached.
    pub fn probes(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.core.hooks.probes()
    }

    /// Whether each hook is active in this seed.
    pub fn hooks(&self) -> impl Iterator<Item = (&'static str, bool)> {
        self.core.hooks.active()
    }

    /// Moves what was written to the history since the last call.
    pub fn drain_history(&mut self, into: &mut Vec<Entry>) {
        into.append(&mut self.core.history);
    }

    /// When the next event is due. (What is due may turn out to be stale: then [`Self::step`] goes on to the one after.)
    pub fn next_at(&mut self) -> Option<Instant> {
        self.core.queue.next_at().map(Instant::from_nanos)
    }

    /// Moves time forward to `to`, where nothing is due before. Panics otherwise.
    pub fn advance(&mut self, to: Instant) {
        assert!(self.next_at().is_none_or(|next| next >= to), "an event is due before {to:?}");
        self.core.now = self.core.now.max(to);
    }

    /// Handles every event up to and including `until`, and moves time there.
    pub fn run_until(&mut self, until: Instant) {
        while self.happen_within(until).is_some() {}
        self.advance(until);
    }

    /// Handles the next event. `None` where nothing is left to happen.
    #[inline]
    pub fn step(&mut self) -> Option<Step> {
        self.step_within(Instant::from_nanos(u64::MAX))
    }

    /// Handles the next event if it is due at `until` or before.
    #[inline]
    pub fn step_within(&mut self, until: Instant) -> Option<Step> {
        let Happened { cause, node, kind } = self.happen_within(until)?;
        let text = if self.tracing { std::mem::take(&mut self.text) } else { String::new() };
        Some(Step { id: self.core.event, cause, at: self.core.now, node, kind, text })
    }

    #[inline(always)]
    fn happen_within(&mut self, until: Instant) -> Option<Happened> {
        loop {
            let core = &mut self.core;
            let (at, slot) = core.queue.pop(until.as_nanos())?;
            debug_assert!(at >= core.now.as_nanos(), "time does not go back");
            core.now = Instant::from_nanos(at);
            // The one path that is taken millions of times a second reads the message where it lies.
            let what = core.queue.peek_mut(&slot);
            let happened = match &mut what.item {
                Item::Datagram { to, payload } if core.nodes[what.node.0 as usize].plain => {
                    let (cause, node, from, to) = (what.cause, what.node, NodeId(what.tag), *to);
                    core.event = EventId(core.event.0 + 1);
                    core.hash.pair(at, cause.0);
                    core.hash.pair(u64::from(node.0) << 32 | u64::from(from.0), to.id().0);
                    fold_payload(&mut core.hash, payload);
                    let payload = std::mem::replace(payload, network::Payload::from(&[][..]));
                    core.queue.drop_at(slot);
                    Some(self.datagram(cause, node, from, to, payload))
                }
                _ => {
                    let what = core.queue.take(slot);
                    self.handle(what)
                }
            };
            if happened.is_some() {
                return happened;
            }
        }
    }

    /// Begins an event: gives it its id and folds it into the trace hash.
    #[inline]
    fn begin(&mut self, cause: EventId, node: NodeId, kind: StepKind) {
        let core = &mut self.core;
        core.event = EventId(core.event.0 + 1);
        core.hash.pair(core.now.as_nanos(), cause.0);
        core.hash.pair(u64::from(node.0), kind as u64);
    }

    #[inline(always)]
    fn datagram(
        &mut self,
        cause: EventId,
        node: NodeId,
        from: NodeId,
        to: EndRef,
        payload: network::Payload,
    ) -> Happened {
        let mut kind = StepKind::Role;
        match self.core.on_datagram(from, node, to, payload) {
            Some(event) => {
                if self.tracing {
                    self.text = format!("{event:?}");
                }
                self.deliver(node, event);
            }
            None => kind = StepKind::Transport,
        }
        Happened { cause, node, kind }
    }

    /// Handles what the queue gave out. `None` if it was stale or has to wait.
    #[inline(never)]
    fn handle(&mut self, what: Scheduled) -> Option<Happened> {
        let mut what = what;
        if self.core.is_stale(&what) {
            return None;
        }
        match what.item {
            Item::Wake => what = self.core.take_waiting(what.node)?,
            Item::Directory(_) | Item::Ledger(_) | Item::Bus(_) | Item::Cache(_) => {}
            _ => what = self.core.gate(what)?,
        }
        let happened = self.handle_now(what);
        if let Some(happened) = &happened {
            // A node that came to its inbox goes on with it, also where this was nothing for its role.
            self.core.after_turn(happened.node, Duration::ZERO);
        }
        happened
    }

    fn handle_now(&mut self, what: Scheduled) -> Option<Happened> {
        let Scheduled { cause, node, tag, item } = what;
        // Placed anew without having come about, a timer keeps its cause.
        let event_before = std::mem::replace(&mut self.core.event, cause);
        let due = match &item {
            Item::Timer(key) => self.core.on_timer(node, *key),
            Item::Deadline { counter } => self.core.is_past_deadline(node, *counter),
            _ => true,
        };
        self.core.event = event_before;
        if !due {
            self.core.after_turn(node, Duration::ZERO);
            return None;
        }
        let mut kind = match &item {
            Item::Directory(_) => StepKind::Directory,
            Item::Ledger(_) => StepKind::Ledger,
            Item::Bus(_) => StepKind::Bus,
            Item::Cache(_) => StepKind::Cache,
            item if item.is_for_role() => StepKind::Role,
            _ => StepKind::Transport,
        };
        self.begin(cause, node, kind);
        item.fold(&mut self.core.hash);
        if self.tracing {
            self.text = item.describe(NodeId(tag));
        }
        match item {
            Item::Directory(item) => {
                let model = self.directory.as_mut().expect("only the directory schedules its items");
                model.on_item(&mut self.core, node, *item);
            }
            Item::Ledger(item) => {
                let model = self.ledger.as_mut().expect("only the ledger schedules its items");
                model.on_item(&mut self.core, node, *item);
            }
            Item::Cache(item) => {
                let model = self.cache.as_mut().expect("only the cache schedules its items");
                model.on_item(&mut self.core, node, *item);
            }
            Item::Bus(item) => {
                let model = self.bus.as_mut().expect("only the bus schedules its items");
                model.on_item(&mut self.core, node, *item);
            }
            item => {
                if let Some(event) = self.core.happen(node, NodeId(tag), item) {
                    if self.tracing {
                        self.text = format!("{event:?}");
                    }
                    self.deliver_rarer(node, event);
                } else {
                    kind = StepKind::Transport;
                }
            }
        }
        Some(Happened { cause, node, kind })
    }

    #[inline(never)]
    fn deliver_rarer(&mut self, node: NodeId, event: doors::Event) {
        self.deliver(node, event);
    }

    /// Gives an event to a node's role, and its submissions to the doors.
    #[inline(always)]
    fn deliver(&mut self, node: NodeId, event: doors::Event) {
        let core = &mut self.core;
        let at = node.0 as usize;
        let Some(actor) = &mut self.actors[at] else { return };
        core.counters.delivered += 1;
        let clock = &core.nodes[at].clock;
        let now = clock.local(core.now);
        let unix_now = clock.wall(now);
        let called = match &event {
            doors::Event::Network(network::Event::Called { call, .. }) => Some(*call),
            _ => None,
        };
        let entry = &core.nodes[at];
        let charged = if entry.plain { None } else { entry.cold.cost };
        let charge = charged.map(|cost| cost.of(&event));
        let mut foreign = false;
        let seat = Seat {
            now,
            unix_now,
            desk: &mut core.desks[at],
            hooks: &mut core.hooks,
            outbox: &mut self.outbox,
            foreign: &mut foreign,
        };
        actor.deliver(event, seat);
        let spent = charge.map_or(Duration::ZERO, |charge| {
            let slow = u64::from(self.core.nodes[at].slow_permille);
            (charge.event + charge.submission * self.outbox.len() as u64) * slow / 1_000
        });
        if !self.core.desks[at].telemetry.is_empty() {
            self.core.take_reports(node, spent);
        }
        if foreign && let Some(call) = called {
            self.core.reply(node, call, Box::new(Outcome::Refused(Refusal::Malformed)));
        }
        if self.outbox.len() > 1 || !self.core.nodes[at].undisturbed() {
            self.flush(node);
        } else if let Some(submission) = self.outbox.pop() {
            self.submit(node, submission);
        }
        if spent != Duration::ZERO {
            self.core.telemetry.spent(node, spent);
            self.core.after_turn(node, spent);
        }
    }

    /// Listens to the spans of every node, from its next turn on. Nothing else changes by it.
    pub fn listen(&mut self) {
        self.core.listen();
    }

    /// Takes the spans that were told since the last call, each with where; their times are virtual.
    pub fn take_spans(&mut self) -> Vec<(NodeId, Span)> {
        self.core.take_spans()
    }

    /// What was measured of each node so far, the servers of the caches included.
    #[must_use]
    pub fn meters(&self) -> Vec<(NodeId, Meter)> {
        let caches = self.cache.iter().flat_map(|cache| cache.meters(self.core.now));
        self.core.meters().into_iter().chain(caches).collect()
    }

    /// What waits for something that will not come. Empty in a world that has been left alone for long enough.
    #[must_use]
    pub fn leaks(&self) -> Vec<Leak> {
        self.core.leaks()
    }
}

/// A payload into the trace hash, by its bytes.
#[inline]
fn fold_payload(hash: &mut TraceHash, payload: &network::Payload) {
    match payload {
        network::Payload::Peer(message) => message.hash(hash),
        network::Payload::Shared(bytes) => hash.bytes(bytes),
        network::Payload::Inline(bytes) => hash.bytes(bytes.as_bytes()),
    }
}
