//! The caller's side: the NATS client in a node, which speaks with one member at a time.
//!
//! It goes to another member when its own is gone: at once when the process there died and its machine says so, after a
//! keep-alive timeout when nothing is heard. What was sent and then lost is `Unknown`; what found no member to send to is
//! `Refused`. With its connection every consumer of it ends in a gap.

use super::{Item, Model, Request, Response, consumer::Reader, later, server::refused, stream::Name};
use crate::{
    Core, Purpose,
    entropy::below,
    replication::{reachable, retransmit_at, round_trip},
};
use std::collections::BTreeMap;
use worldline_proto::{Incarnation, NodeId, OpId};
use worldline_system::{
    Outcome, Refusal,
    doors::bus::{Answer, Ask, GapCause, Submission},
    limits::BUS_CONSUMERS,
    outcome::End,
    time::{Duration, Instant},
};

/// How long a client tries to connect before it says that nobody is there.
const CONNECT: Duration = Duration::from_secs(1);
/// Round trips until a connection stands: TCP, and the server's greeting answered.
const HANDSHAKE_ROUND_TRIPS: u64 = 2;
/// After so long without a sign of life a connection is given up.
pub(super) const KEEP_ALIVE: Duration = Duration::from_secs(3);
/// How long a member works on a request that left its caller too late.
const GRACE: Duration = Duration::from_millis(500);
/// Kept free before a deadline, so that a refusal arrives in time.
const MARGIN: Duration = Duration::from_micros(1);

/// The client in one process.
#[derive(Clone, Debug)]
pub(super) struct Client {
    life: Incarnation,
    pub member: usize,
    connected: bool,
    member_life: u32,
    silent_since: Option<Instant>,
    /// What waits for its answer, and how it ends if the connection does.
    pending: BTreeMap<OpId, (Instant, Answer)>,
}

impl Model {
    pub(super) fn ask(&mut self, core: &mut Core, from: NodeId, op: OpId, deadline: Instant, submission: Submission) {
        let now = core.now();
        let own = |answer| Item::Answer(Box::new(Response { client: from, op, deadline, broken: None, answer }));
        match submission {
            Submission::Close(consumer) => {
                self.close(from, consumer);
                return later(core, now, from, own(Answer::Closed(Outcome::Done(()))));
            }
            Submission::Acknowledge { consumer, .. } | Submission::Reject { consumer, .. }
                if !self.reads(from, consumer) =>
            {
                return later(core, now, from, own(refused(&submission, Refusal::NotServing)));
            }
            Submission::Consume { .. } if self.readers_of(from) >= BUS_CONSUMERS => {
                return later(core, now, from, own(refused(&submission, Refusal::Busy)));
            }
            _ => {}
        }
        self.know(core, from, op.incarnation);
        let in_time = |ready: &Duration| *ready == Duration::ZERO || now + *ready + MARGIN < deadline;
        let Some(ready) = self.connect(core, from).filter(in_time) else {
            let at = (now + CONNECT).min(deadline - MARGIN);
            return later(core, at, from, own(refused(&submission, Refusal::Unreachable)));
        };
        let client = self.clients.get_mut(&from).expect("it is known");
        client.pending.insert(op, (deadline, Ask::from(&submission).ended(End::Unknown)));
        let (member, life) = (client.member, client.member_life);
        if let Submission::Consume { durable, .. } = submission {
            let name = durable.map_or(Name::Ephemeral(from, op), Name::Durable);
            self.readers.insert((from, op), Reader::new(name, deadline));
        }
        // What leaves after its deadline, from a process that was stopped before its socket, is executed nevertheless.
        let deadline = deadline.max(now + GRACE);
        let request = Box::new(Request { client: from, op, deadline, member, life, submission });
        if ready == Duration::ZERO {
            self.send(core, request, 0);
        } else {
            later(core, now + ready, from, Item::Send(request, 0));
        }
    }

    /// Makes a client for a new incarnation of a node; it begins with a drawn member.
    fn know(&mut self, core: &Core, from: NodeId, life: Incarnation) {
        if self.clients.get(&from).is_some_and(|client| client.life == life) {
            return;
        }
        let bits = core.draw(Purpose::Bus, 1 << 32 | u64::from(from.0), u64::from(life.0));
        let member = below(bits, self.members.len() as u64) as usize;
        let pending = BTreeMap::new();
        self.clients
            .insert(from, Client { life, member, connected: false, member_life: 0, silent_since: None, pending });
    }

    /// Until when the client has a connection: zero where it stands, `None` where no member answers.
    fn connect(&mut self, core: &mut Core, from: NodeId) -> Option<Duration> {
        let client = &self.clients[&from];
        if client.connected {
            return Some(Duration::ZERO);
        }
        let (first, count) = (client.member, self.members.len());
        let found = (0..count).map(|offset| (first + offset) % count).find(|&index| {
            let node = self.members[index].node;
            core.is_running(node) && reachable(core, from, node)
        })?;
        let span = round_trip(core, from, self.members[found].node) * HANDSHAKE_ROUND_TRIPS;
        let life = self.members[found].life;
        let client = self.clients.get_mut(&from).expect("it is known");
        (client.member, client.connected, client.member_life, client.silent_since) = (found, true, life, None);
        Some(span)
    }

    /// A request leaves its caller; what is lost on the way is sent again until its deadline.
    pub(super) fn send(&mut self, core: &mut Core, request: Box<Request>, attempt: u8) {
        let (now, from) = (core.now(), request.client);
        if now >= request.deadline || !core.is_up(from) || core.incarnation(from) != request.op.incarnation {
            return;
        }
        let to = self.members[request.member].node;
        match core.hop(from, to) {
            Some(delay) => {
                // It counts as arrived when the server has looked at it.
                let at = now + delay + core.service_times.bus(&request.submission);
                later(core, at, to, Item::Arrive(request));
            }
            None => later(core, retransmit_at(now, attempt), from, Item::Send(request, attempt.saturating_add(1))),
        }
    }

    pub(super) fn answered(&mut self, core: &mut Core, response: Response) {
        let Response { client: node, op, deadline, broken, answer } = response;
        let mut lost = false;
        if let Some(client) = self.clients.get_mut(&node)
            && client.pending.remove(&op).is_some()
        {
            client.silent_since = None;
            lost = client.connected && broken == Some((client.member, client.member_life));
        }
        if let Answer::Consuming(outcome) = &answer {
            let stands = matches!(outcome, Outcome::Done(())) && core.now() < deadline;
            self.stands(core, node, op, stands);
        }
        core.answer_bus(node, op, answer);
        if lost {
            self.disconnect(core, node, Duration::ZERO);
        }
    }

    /// Every second: forgets what has timed out, and gives up connections on which nothing was heard for too long.
    pub(super) fn sweep_clients(&mut self, core: &mut Core) {
        let now = core.now();
        let mut lost = vec![];
        for (&node, client) in &mut self.clients {
            client.pending.retain(|_, (deadline, _)| *deadline > now);
            let member = &self.members[client.member];
            let alive =
                client.member_life == member.life && core.is_running(member.node) && reachable(core, node, member.node);
            if alive || !client.connected {
                client.silent_since = None;
            } else if now.since(*client.silent_since.get_or_insert(now)) >= KEEP_ALIVE {
                lost.push(node);
            }
        }
        lost.into_iter().for_each(|node| self.disconnect(core, node, Duration::ZERO));
        self.forget_unheard(now);
    }

    /// A client's connection is gone, and it learns that after `delay`: what waits on it is unknown, its consumers end.
    pub(super) fn disconnect(&mut self, core: &mut Core, node: NodeId, delay: Duration) {
        let count = self.members.len();
        let Some(client) = self.clients.get_mut(&node) else { return };
        (client.connected, client.member, client.silent_since) = (false, (client.member + 1) % count, None);
        for (op, (deadline, answer)) in std::mem::take(&mut client.pending) {
            let response = Box::new(Response { client: node, op, deadline, broken: None, answer });
            later(core, core.now() + delay, node, Item::Answer(response));
        }
        self.end_readers(core, GapCause::Disconnected, delay, |client, _| client == node);
    }

    /// A member's process is gone while its machine lives: it resets its connections.
    pub(super) fn reset_connections(&mut self, core: &mut Core, index: usize) {
        let member = self.members[index].node;
        let speaks = |client: &Client| client.connected && client.member == index;
        let clients: Vec<NodeId> =
            self.clients.iter().filter(|(_, client)| speaks(client)).map(|(&node, _)| node).collect();
        for node in clients {
            // The machine sends the reset; the way is as long as the way there.
            if let Some(delay) = core.hop(node, member).filter(|_| core.linked(member, node)) {
                self.disconnect(core, node, delay);
            }
        }
    }

    pub(super) fn forget_client(&mut self, node: NodeId) {
        self.clients.remove(&node);
        let own: Vec<OpId> = self.readers.keys().filter(|(client, _)| *client == node).map(|&(_, op)| op).collect();
        own.into_iter().for_each(|op| self.close(node, op));
    }

    /// The clients that are connected.
    pub(super) fn connected(&self) -> Vec<NodeId> {
        self.clients.iter().filter(|(_, client)| client.connected).map(|(&node, _)| node).collect()
    }
}
