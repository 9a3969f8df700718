//! The bus door, served by a model of NATS JetStream 2.10: a stream on several members that agree by Raft, and consumers.
//!
//! * A publish is answered when a majority has the message in its log; the history is told at that moment, at the leader's
//!   node. Nothing is synced then: each member syncs its log every [`Config::sync_period`], and a power loss takes what lies
//!   behind. Where the next leader lacks what was committed, the stream has lost its tail, and says so to the history alone.
//! * Whether a message is a duplicate, in its place, or too much is decided when its entry is applied, by the leader's wall
//!   clock at the moment it was proposed. Of several members the leader turns an id away that it has proposed and not seen
//!   stored, and that is also one that was refused for its place.
//! * A caller speaks with one member at a time, and that one with the leader. Without a known leader a request is refused;
//!   a leader that is gone and was not missed yet swallows it. Elections take 4 to 9 s, after an orderly change less than one.
//! * Of the leaders that take over from another, a drawn part stores the last message once more.
//! * A consumer's place, that is what was acknowledged, is in the log. What is out is known to the leader alone: a new one
//!   waits for the acknowledgement anew. Consumers that are not durable end with their leader.
//!
//! All members share one `Stream`: the state after the last committed entry. Liveness is looked at every 100 ms for all
//! members at once, and a vote is one step: who asks for it, and who gives it, can speak with each other at that moment.
//!
//! Deliberately absent: subjects beyond the door's, other streams, accounts, changes of membership, and trimming of the logs.

mod agreement;
mod client;
mod consumer;
mod election;
mod fault;
mod member;
mod server;
#[cfg(test)]
mod storm_tests;
mod stream;
#[cfg(test)]
mod tests;

pub use fault::{Fault, Which};

use crate::{Core, node::NodeChange, replication::quorum};
use client::Client;
use consumer::{Delivery, Reader};
use fault::Faults;
use member::{Entry, Member, Message};
use std::{collections::BTreeMap, sync::Arc};
use stream::{Name, Stream};
use worldline_proto::{Incarnation, NodeId, OpId};
use worldline_system::{
    doors::bus::{self, Answer, StreamSequence, Submission},
    limits,
    time::{Duration, Instant},
};

/// How often liveness is looked at.
const PULSE: Duration = Duration::from_millis(100);

/// What a bus is made of.
#[derive(Clone, Debug)]
pub struct Config {
    /// The members' nodes, in different zones. At least one, at most 31.
    pub members: Vec<NodeId>,
    /// How often a member syncs its log. Zero: at every entry (`sync_interval: always`).
    pub sync_period: Duration,
    /// How long a message id is recognised.
    pub deduplication: Duration,
    /// What the stream keeps.
    pub limits: Limits,
    /// A full stream refuses what is new, instead of discarding what is old.
    pub discard_new: bool,
}

impl Config {
    /// A bus on these members as Worldline runs it.
    #[must_use]
    pub fn new(members: Vec<NodeId>) -> Self {
        Self {
            members,
            sync_period: limits::BUS_SYNC_PERIOD,
            deduplication: limits::BUS_DEDUPLICATION,
            limits: Limits::default(),
            discard_new: false,
        }
    }
}

/// What a stream keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Messages.
    pub messages: u64,
    /// Bytes of payloads, each with `stream::FRAMING_BYTES` more.
    pub bytes: u64,
    /// How long, by the leader's wall clock.
    pub age: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { messages: limits::BUS_MESSAGES, bytes: limits::BUS_BYTES, age: limits::BUS_AGE }
    }
}

/// The members, and the clients in the nodes that ask.
#[derive(Clone, Debug)]
pub struct Model {
    config: Config,
    members: Vec<Member>,
    stream: Stream,
    /// Every committed entry: what a lost tail is undone by.
    committed: Vec<Entry>,
    deliveries: BTreeMap<Name, Delivery>,
    /// Which consumer an operation has opened.
    readers: BTreeMap<(NodeId, OpId), Reader>,
    clients: BTreeMap<NodeId, Client>,
    /// The highest term that has had a leader.
    term: u64,
    /// Numbers proposals.
    counter: u64,
    pulses: u64,
    faults: Faults,
}

/// A request on its way to a member, and on to the leader.
#[derive(Clone, Debug, Hash)]
pub struct Request {
    client: NodeId,
    op: OpId,
    deadline: Instant,
    member: usize,
    /// Which life of the member's process the connection belongs to.
    life: u32,
    submission: Submission,
}

/// An answer on its way to its caller.
#[derive(Clone, Debug, Hash)]
pub struct Response {
    client: NodeId,
    op: OpId,
    deadline: Instant,
    /// The connection that is broken with it: to which member, in which life of it.
    broken: Option<(usize, u32)>,
    answer: Answer,
}

/// What the model schedules for itself.
#[derive(Clone, Debug, Hash)]
pub enum Item {
    /// Looks after liveness, syncs, connections, what must be sent and delivered again.
    Pulse,
    /// A request leaves its caller, again after each loss.
    Send(Box<Request>, u8),
    /// A request arrives at its member.
    Arrive(Box<Request>),
    /// A request arrives at the member that leads, or did.
    Forwarded(usize, Box<Request>),
    /// A message between members: from, to.
    Peer(usize, usize, Box<Message>),
    /// An answer arrives from the leader at the member that its caller speaks with.
    Back(usize, Box<Response>),
    /// An answer leaves its member, again after each loss.
    Respond(usize, Box<Response>, u8),
    /// An answer arrives at its caller.
    Answer(Box<Response>),
    /// What a consumer tells arrives at its reader.
    Deliver(NodeId, Incarnation, Box<bus::Event>),
}

impl Model {
    /// A bus that has not started. Panics without a member or with more than 31.
    #[must_use]
    pub fn new(config: Config) -> Self {
        assert!((1..=31).contains(&config.members.len()), "a bus has 1 to 31 members");
        Self {
            members: config.members.iter().map(|&node| Member::new(node, config.members.len())).collect(),
            stream: Stream::new(&config),
            committed: Vec::new(),
            deliveries: BTreeMap::new(),
            readers: BTreeMap::new(),
            clients: BTreeMap::new(),
            term: 0,
            counter: 0,
            pulses: 0,
            faults: Faults::default(),
            config,
        }
    }

    /// Begins: called once, at the beginning of the world. The first member leads at once, so that a world has a bus from its
    /// first moments.
    pub fn start(&mut self, core: &mut Core) {
        for index in 0..self.members.len() {
            self.hold_election_off(core, index);
            self.members[index].sync_at = core.now() + self.first_sync(core, index);
        }
        self.members[0].election_at = core.now();
        later(core, core.now(), self.members[0].node, Item::Pulse);
    }

    /// Takes a submission. It is answered by [`Core::answer_bus`], or by the kernel at its deadline.
    pub fn submit(&mut self, core: &mut Core, from: NodeId, op: OpId, deadline: Instant, submission: Submission) {
        self.ask(core, from, op, deadline, submission);
    }

    /// Handles what was scheduled. A paused member's items wait until it goes on; a dead one's are lost.
    pub fn on_item(&mut self, core: &mut Core, _: NodeId, item: Item) {
        let member = match &item {
            Item::Arrive(request) => Some(request.member),
            &Item::Forwarded(member, _) | &Item::Peer(_, member, _) => Some(member),
            &Item::Back(member, _) | &Item::Respond(member, ..) => Some(member),
            Item::Pulse | Item::Send(..) | Item::Answer(_) | Item::Deliver(..) => None,
        };
        if let Some(member) = member
            && !core.is_running(self.members[member].node)
        {
            if core.is_up(self.members[member].node) {
                self.members[member].park(item);
            }
            return;
        }
        self.handle(core, item);
    }

    fn handle(&mut self, core: &mut Core, item: Item) {
        match item {
            Item::Pulse => self.pulse(core),
            Item::Send(request, attempt) => self.send(core, request, attempt),
            Item::Arrive(request) => self.arrive(core, request),
            Item::Forwarded(leader, request) => self.serve(core, leader, *request),
            Item::Peer(from, to, message) => self.hear(core, from, to, *message),
            Item::Back(member, response) => self.respond(core, member, response, 0),
            Item::Respond(member, response, attempt) => self.respond(core, member, response, attempt),
            Item::Answer(response) => self.answered(core, *response),
            Item::Deliver(client, life, event) => self.deliver(core, client, life, *event),
        }
    }

    /// Takes note of what happened to a node.
    pub fn on_node(&mut self, core: &mut Core, node: NodeId, change: NodeChange) {
        let Some(index) = self.members.iter().position(|member| member.node == node) else {
            if matches!(change, NodeChange::Crashed { .. }) {
                self.forget_client(node);
            }
            return;
        };
        match change {
            NodeChange::Crashed { power } => self.member_crashed(core, index, power),
            NodeChange::Started => self.hold_election_off(core, index),
            NodeChange::Paused => {}
            NodeChange::Resumed => {
                let parked = std::mem::take(&mut self.members[index].parked);
                parked.into_iter().for_each(|item| self.handle(core, item));
            }
        }
    }

    /// Makes something go wrong.
    pub fn inject(&mut self, core: &mut Core, fault: Fault) {
        self.fail(core, fault);
    }

    /// Ends every fault that goes on.
    pub fn heal(&mut self, _: &mut Core) {
        self.faults = Faults::default();
    }

    /// The members' nodes.
    pub fn members(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.members.iter().map(|member| member.node)
    }

    /// The running leader of the highest term, if there is one.
    #[must_use]
    pub fn leader(&self, core: &Core) -> Option<NodeId> {
        self.leading(core).map(|index| self.members[index].node)
    }

    /// The last message that is stored; zero for none.
    #[must_use]
    pub fn last(&self) -> StreamSequence {
        StreamSequence(self.stream.last())
    }

    /// Every message that is kept, in order: for who replays the stream.
    pub fn messages(&self) -> impl Iterator<Item = bus::Message> + '_ {
        self.stream.messages()
    }

    /// Whether some majority of members runs and its members can all speak with one of them. Without one nothing can be
    /// stored; with one there may still be an election under way.
    #[must_use]
    pub fn has_quorum(&self, core: &Core) -> bool {
        (0..self.members.len()).any(|index| self.sees(core, index) >= quorum(self.members.len()))
    }

    /// How many callers wait at the members: for the checker of leaks. Bounded by what the callers have in flight.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.members.iter().map(|member| member.waiters.len() + member.parked.len()).sum()
    }

    /// How many consumers have a reader.
    #[must_use]
    pub fn readers(&self) -> usize {
        self.readers.len()
    }
}

fn later(core: &mut Core, at: Instant, node: NodeId, item: Item) {
    core.schedule(at, node, item);
}

/// A command on its way to the log.
fn proposal(id: u64, at: worldline_system::time::UnixTime, command: stream::Command) -> Arc<stream::Proposal> {
    Arc::new(stream::Proposal { id, at, command })
}
