//! The directory door, served by a model of etcd 3.5: members that agree by Raft, leases, watches, and their failures.
//!
//! * A write is answered when a majority has synced it; the history is told at that moment, at the leader's node.
//! * A linearizable read, a renewal and the expiry of a lease first confirm that a majority still follows this leader; so
//!   no ex-leader renews, and what was acknowledged is read. A serializable read is what the asked member has applied.
//! * Leases are counted by the leader's own monotonic clock. A new leader gives each its full time to live again: a lease
//!   may end late, and never early but for [`Fault::RevokeEarly`].
//! * A write that was proposed and lost its leader may still stand in a log that wins the next election: applied late.
//! * A caller speaks with one member at a time and goes to another when that one is gone.
//!
//! All members share one store: the state after the last committed entry. A member's own state is a prefix of
//! its history. Liveness is looked at every 100 ms for all members at once, where etcd sends heartbeats.
//!
//! Deliberately absent: changes of membership, authentication, and whatever of etcd's interface the door does not use.

mod client;
mod election;
mod fault;
mod leader;
mod member;
mod raft;
mod server;
mod store;
#[cfg(test)]
mod storm_tests;
#[cfg(test)]
mod tests;
mod watch;

pub use fault::{Fault, Which};

use crate::{Core, node::NodeChange, replication::quorum};
use client::Client;
use fault::Faults;
use member::{Member, Message};
use std::collections::BTreeMap;
use store::Store;
use watch::Watch;
use worldline_proto::{Incarnation, LeaseId, NodeId, OpId, Revision};
use worldline_system::{
    doors::directory::{Answer, Event, Family, Record, Submission},
    time::{Duration, Instant},
};

/// How often liveness is looked at: etcd's `--heartbeat-interval`.
const PULSE: Duration = Duration::from_millis(100);
/// The shortest time without a leader before a member stands for election; the longest is twice that. etcd's
/// `--election-timeout`.
const ELECTION: Duration = Duration::from_secs(1);

/// What a directory is made of.
#[derive(Clone, Debug)]
pub struct Config {
    /// The members' nodes: an odd number, in different zones. At least one, at most 31.
    pub members: Vec<NodeId>,
}

/// The members, and the clients in the nodes that ask.
#[derive(Clone, Debug)]
pub struct Model {
    members: Vec<Member>,
    store: Store,
    clients: BTreeMap<NodeId, Client>,
    watches: BTreeMap<(NodeId, OpId), Watch>,
    /// Numbers proposals and queries.
    counter: u64,
    pulses: u64,
    faults: Faults,
}

/// A request on its way to a member.
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
    /// Looks after liveness, leases, connections, and what must be sent again.
    Pulse,
    /// A request leaves its caller, again after each loss.
    Send(Box<Request>, u8),
    /// A request arrives at its member.
    Arrive(Box<Request>),
    /// A request that a fault had held back is looked at.
    Handle(Box<Request>),
    /// A message between members: from, to.
    Peer(usize, usize, Box<Message>),
    /// A sync of the member's disk is complete, in this life of it.
    Synced(usize, u32),
    /// A majority may have confirmed the leader: member, term, round.
    Confirmed(usize, u64, u64),
    /// An answer leaves its member, again after each loss.
    Respond(usize, Box<Response>, u8),
    /// An answer arrives at its caller.
    Answer(Box<Response>),
    /// A watch looks for news to send.
    Push(NodeId, OpId),
    /// News of a watch arrive.
    News(NodeId, Incarnation, Box<Event>),
}

impl Model {
    /// A directory that has not started. Panics without a member or with more than 31.
    #[must_use]
    pub fn new(config: Config) -> Self {
        assert!((1..=31).contains(&config.members.len()), "a directory has 1 to 31 members");
        Self {
            members: config.members.iter().map(|&node| Member::new(node, config.members.len())).collect(),
            store: Store::new(),
            clients: BTreeMap::new(),
            watches: BTreeMap::new(),
            counter: 0,
            pulses: 0,
            faults: Faults::default(),
        }
    }

    /// Begins: called once, at the beginning of the world. The first member stands for election at once, so that a world
    /// has a directory from its first moments.
    pub fn start(&mut self, core: &mut Core) {
        let node = self.members[0].node;
        self.hold_elections_off(core);
        self.members[0].election_at = core.now();
        later(core, core.now(), node, Item::Pulse);
    }

    /// Takes a submission. It is answered by [`Core::answer_directory`], or by the kernel at its deadline.
    pub fn submit(&mut self, core: &mut Core, from: NodeId, op: OpId, deadline: Instant, submission: Submission) {
        self.ask(core, from, op, deadline, submission);
    }

    /// Handles what was scheduled. A paused member's items wait until it goes on; a dead one's are lost.
    pub fn on_item(&mut self, core: &mut Core, _: NodeId, item: Item) {
        let member = match &item {
            Item::Arrive(request) | Item::Handle(request) => Some(request.member),
            &Item::Peer(_, member, _) | &Item::Synced(member, _) => Some(member),
            &Item::Confirmed(member, ..) | &Item::Respond(member, ..) => Some(member),
            Item::Pulse | Item::Send(..) | Item::Answer(_) | Item::Push(..) | Item::News(..) => None,
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
            Item::Handle(request) => self.serve(core, *request),
            Item::Peer(from, to, message) => self.hear(core, from, to, *message),
            Item::Synced(member, life) => self.synced(core, member, life),
            Item::Confirmed(member, term, round) => self.confirmed(core, member, term, round),
            Item::Respond(member, response, attempt) => self.respond(core, member, response, attempt),
            Item::Answer(response) => self.answered(core, *response),
            Item::Push(client, op) => self.push(core, client, op),
            Item::News(client, life, event) => self.news(core, client, life, *event),
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
            NodeChange::Started => self.member_started(core, index),
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
        self.members.iter_mut().for_each(|member| {
            member.disk.slow_down(1_000);
            member.disk.lie(false);
        });
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

    /// The last committed revision.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.store.revision()
    }

    /// The committed records of a family, in key order.
    pub fn records(&self, family: Family) -> impl Iterator<Item = Record> + '_ {
        self.store.records(family)
    }

    /// Whether a lease stands, by what is committed.
    #[must_use]
    pub fn lease_alive(&self, lease: LeaseId) -> bool {
        self.store.lease_ttl(lease).is_some()
    }

    /// Whether some majority of members runs and its members can all speak with one of them. Without one nothing can be
    /// committed; with one there may still be an election under way.
    #[must_use]
    pub fn has_quorum(&self, core: &Core) -> bool {
        (0..self.members.len()).any(|index| self.sees(core, index) >= quorum(self.members.len()))
    }

    /// How many callers wait at the members: for the checker of leaks. Bounded by what the callers have in flight.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.members.iter().map(|member| member.waiters.len() + member.parked.len()).sum()
    }

    /// How many watches stand.
    #[must_use]
    pub fn watches(&self) -> usize {
        self.watches.len()
    }
}

fn later(core: &mut Core, at: Instant, node: NodeId, item: Item) {
    core.schedule(at, node, item);
}
