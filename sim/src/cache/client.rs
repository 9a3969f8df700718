//! The caller's side: one connection to a primary, kept up from the process' start on, as the adapter does it.
//!
//! Requests leave in order and answers come in order, for both travel in one TCP stream: what is lost holds up what is behind it.
//! Where nothing is heard for [`SILENCE`] the connection is given up and another server is tried.

use super::{Item, Model, Request, Response, later};
use crate::{
    Core,
    replication::{RETRANSMIT_MAX, carry, reachable, round_trip},
};
use std::collections::{BTreeMap, VecDeque};
use worldline_proto::{Incarnation, NodeId, OpId};
use worldline_system::{
    Refusal,
    doors::cache::Submission,
    outcome::End,
    time::{Duration, Instant},
};

/// After so long without a sign of life a connection is given up: the adapter's pulse and what it waits for an answer.
pub(super) const SILENCE: Duration = Duration::from_secs(2);
/// Round trips until a connection stands: TCP, the handshake of the protocol, and the question who is the primary.
const HANDSHAKE_ROUND_TRIPS: u64 = 3;
/// Requests of one caller that wait for the link to carry them; one more is refused.
const WAITING: usize = 4_096;
/// How long a socket goes on to send what its process has written before it closed it.
const LINGER: Duration = Duration::from_secs(10);
/// Requests that such sockets keep, over all callers; beyond that the oldest is lost.
const LINGERING: usize = 4_096;

/// One direction of a TCP stream.
#[derive(Clone, Debug)]
pub(super) struct Pipe<T> {
    waiting: VecDeque<T>,
    /// When the last that left arrives.
    last: Instant,
}

impl<T> Default for Pipe<T> {
    fn default() -> Self {
        Self { waiting: VecDeque::new(), last: Instant::default() }
    }
}

impl<T> Pipe<T> {
    /// Everything that the link carries now, each with its arrival: never before what left earlier.
    fn pump(&mut self, core: &mut Core, from: NodeId, to: NodeId) -> Vec<(Instant, T)> {
        let mut carried = vec![];
        while !self.waiting.is_empty()
            && let Some(delay) = carry(core, from, to)
        {
            self.last = self.last.max(core.now() + delay);
            carried.extend(self.waiting.pop_front().map(|what| (self.last, what)));
        }
        carried
    }
}

/// A connection.
#[derive(Clone, Debug)]
pub(super) struct Line {
    number: u64,
    server: usize,
    /// Which life of the server's connections it belongs to.
    life: u32,
    silent_since: Option<Instant>,
    /// What waits for its answer.
    pending: BTreeMap<OpId, ()>,
    up: Pipe<Box<Request>>,
    down: Pipe<Box<Response>>,
}

/// The client in one process.
#[derive(Clone, Debug)]
pub(super) struct Client {
    life: Incarnation,
    line: Option<Line>,
    /// A handshake under way: its number, the server and its life.
    opening: Option<(u64, usize, u32)>,
    /// The server that it had last, by its place in the group.
    place: usize,
}

impl Client {
    pub fn waiting(&self) -> usize {
        self.line.as_ref().map_or(0, |line| line.up.waiting.len() + line.down.waiting.len())
    }
}

impl Model {
    /// Takes a submission of a caller.
    pub(super) fn ask(&mut self, core: &mut Core, from: NodeId, op: OpId, submission: Submission) {
        self.know(core, from, op.incarnation);
        let refuse = |core: &mut Core, refusal| core.give_up(from, op, End::Refused(refusal));
        if !submission.is_bounded() {
            return refuse(core, Refusal::Malformed);
        }
        let Some(line) = self.clients.get_mut(&from).and_then(|client| client.line.as_mut()) else {
            return refuse(core, Refusal::Unreachable);
        };
        if line.up.waiting.len() >= WAITING {
            return refuse(core, Refusal::Busy);
        }
        line.pending.insert(op, ());
        let (connection, server, life) = (line.number, line.server, line.life);
        line.up.waiting.push_back(Box::new(Request { client: from, op, connection, server, life, submission }));
        self.send(core, from);
    }

    /// A new life of a caller begins with a connection, if there is a primary to be had.
    pub(super) fn know(&mut self, core: &Core, from: NodeId, life: Incarnation) {
        if self.clients.get(&from).is_some_and(|client| client.life == life) {
            return;
        }
        if !self.homes.contains_key(&from) {
            return;
        }
        self.clients.insert(from, Client { life, line: None, opening: None, place: 0 });
        if let Some((place, server)) = self.find(core, from) {
            self.connections += 1;
            self.open(from, self.connections, place, server);
        }
    }

    fn open(&mut self, from: NodeId, number: u64, place: usize, server: usize) {
        let life = self.servers[server].life;
        let (pending, up, down) = (BTreeMap::new(), Pipe::default(), Pipe::default());
        let line = Line { number, server, life, silent_since: None, pending, up, down };
        let client = self.clients.get_mut(&from).expect("it is known");
        (client.line, client.opening, client.place) = (Some(line), None, place);
    }

    /// A server of the caller's region that says that it is the primary, from the last one on.
    fn find(&self, core: &Core, from: NodeId) -> Option<(usize, usize)> {
        if self.faults.refuses {
            return None;
        }
        let members = &self.groups[*self.homes.get(&from)?].members;
        let first = self.clients.get(&from).map_or(0, |client| client.place);
        (0..members.len()).map(|offset| (first + offset) % members.len()).find_map(|place| {
            let server = &self.servers[members[place]];
            let serves = server.primary && core.is_running(server.node) && reachable(core, from, server.node);
            serves.then_some((place, members[place]))
        })
    }

    /// Sends what waits at a caller.
    pub(super) fn send(&mut self, core: &mut Core, from: NodeId) {
        if !core.is_up(from) {
            return;
        }
        let Some(line) = self.clients.get_mut(&from).and_then(|client| client.line.as_mut()) else { return };
        let to = self.servers[line.server].node;
        for (at, request) in line.up.pump(core, from, to) {
            later(core, at, to, Item::Arrive(request));
        }
    }

    /// An answer leaves its server, behind those before it.
    pub(super) fn respond(&mut self, core: &mut Core, response: Response) {
        let client = response.client;
        let Some(line) = self.line(client, response.connection) else { return };
        line.down.waiting.push_back(Box::new(response));
        self.send_answers(core, client);
    }

    pub(super) fn send_answers(&mut self, core: &mut Core, client: NodeId) {
        let Some(line) = self.clients.get_mut(&client).and_then(|client| client.line.as_mut()) else { return };
        let from = self.servers[line.server].node;
        for (at, response) in line.down.pump(core, from, client) {
            later(core, at, client, Item::Answer(response));
        }
    }

    fn line(&mut self, client: NodeId, number: u64) -> Option<&mut Line> {
        self.clients.get_mut(&client)?.line.as_mut().filter(|line| line.number == number)
    }

    pub(super) fn answered(&mut self, core: &mut Core, response: Response) {
        let Response { client, op, connection, answer } = response;
        let Some(line) = self.line(client, connection) else { return };
        line.silent_since = None;
        if line.pending.remove(&op).is_some() {
            core.answer_cache(client, op, answer);
        }
    }

    /// A handshake is complete.
    pub(super) fn connected(&mut self, core: &Core, from: NodeId, number: u64) {
        let Some(client) = self.clients.get_mut(&from) else { return };
        let Some((_, server, life)) = client.opening.take_if(|(opening, ..)| *opening == number) else { return };
        let there = &self.servers[server];
        if there.life == life && there.primary && core.is_running(there.node) && !self.faults.refuses {
            let place = self.groups[there.group].members.iter().position(|&member| member == server).unwrap_or(0);
            self.open(from, number, place, server);
        }
    }

    /// Every pulse: opens what is closed, gives up what is silent, sends again what was held up.
    pub(super) fn tend_connections(&mut self, core: &mut Core) {
        let now = core.now();
        let clients: Vec<NodeId> = self.clients.keys().copied().collect();
        for from in clients {
            if !core.is_running(from) {
                continue;
            }
            self.look(core, from, now);
            self.send(core, from);
            self.send_answers(core, from);
        }
        for _ in 0..self.lingering.len() {
            let Some((until, next, request)) = self.lingering.pop_front() else { break };
            if now < next {
                self.lingering.push_back((until, next, request));
                continue;
            }
            let to = self.servers[request.server].node;
            match carry(core, request.client, to) {
                Some(delay) => later(core, now + delay, to, Item::Arrive(request)),
                None if now < until => self.lingering.push_back((until, now + RETRANSMIT_MAX, request)),
                None => {}
            }
        }
    }

    fn look(&mut self, core: &mut Core, from: NodeId, now: Instant) {
        let client = self.clients.get_mut(&from).expect("it was just listed");
        let Some(line) = &mut client.line else {
            if client.opening.is_none()
                && let Some((_, server)) = self.find(core, from)
            {
                self.connections += 1;
                let number = self.connections;
                let span = round_trip(core, from, self.servers[server].node) * HANDSHAKE_ROUND_TRIPS;
                let opening = Some((number, server, self.servers[server].life));
                self.clients.get_mut(&from).expect("it is known").opening = opening;
                later(core, now + span, from, Item::Connected(from, number));
            }
            return;
        };
        let server = &self.servers[line.server];
        let alive = server.life == line.life && core.is_running(server.node) && reachable(core, from, server.node);
        if alive {
            line.silent_since = None;
        } else if now.since(*line.silent_since.get_or_insert(now)) >= SILENCE {
            let number = line.number;
            self.reset(core, from, number);
        }
    }

    /// A connection is gone: what waited for its answer is unknown, and what was not sent its socket still tries to send.
    pub(super) fn reset(&mut self, core: &mut Core, from: NodeId, number: u64) {
        let now = core.now();
        let Some(client) = self.clients.get_mut(&from) else { return };
        let Some(line) = client.line.take_if(|line| line.number == number) else { return };
        client.place += 1;
        for request in line.up.waiting {
            if self.lingering.len() >= LINGERING {
                self.lingering.pop_front();
            }
            self.lingering.push_back((now + LINGER, now + RETRANSMIT_MAX, request));
        }
        line.pending.into_keys().for_each(|op| core.give_up(from, op, End::Unknown));
    }

    /// A server's process resets its connections, or its machine does when it is gone.
    pub(super) fn reset_connections(&mut self, core: &mut Core, server: usize) {
        let node = self.servers[server].node;
        let of = |client: &Client| client.line.as_ref().filter(|line| line.server == server).map(|line| line.number);
        let lines: Vec<_> = self.clients.iter().filter_map(|(&client, state)| Some((client, of(state)?))).collect();
        for (client, number) in lines {
            // The machine sends the reset; the way is as long as the way there.
            if let Some(delay) = core.hop(client, node).filter(|_| core.linked(node, client)) {
                later(core, core.now() + delay, client, Item::Reset(client, number));
            }
        }
    }

    pub(super) fn forget_client(&mut self, node: NodeId) {
        self.clients.remove(&node);
    }
}
