//! The caller's side: a bounded pool of connections to the primary, as sqlx keeps it in each process.
//!
//! A statement that was sent and then lost ends at its deadline as `Unknown`; one that found no connection, or no primary
//! to connect to, is `Refused` just before it. A caller learns that its connections are dead from a reset, or from a
//! statement that times out on one of them; then it throws them all away. What was sent may still arrive and execute.

use super::{Answer, Item, Model, Response, Statement, later};
use crate::{
    Core,
    replication::{reachable, retransmit_at, round_trip},
};
use std::collections::{BTreeMap, VecDeque};
use worldline_proto::{Incarnation, NodeId, OpId};
use worldline_system::{
    Refusal,
    doors::{
        ledger::{Ask, Submission},
        telemetry::{Labels, Metric, ratio},
    },
    outcome::End,
    time::{Duration, Instant},
};

/// Connections of one caller.
pub(super) const POOL_CONNECTIONS: usize = 16;
/// Statements of one caller that wait for a connection; one more is refused at once.
const POOL_WAITING: usize = 1_024;
/// How long a statement waits for a connection.
const ACQUIRE: Duration = Duration::from_millis(500);
/// How long a server that does not answer is tried before the next one.
const CONNECT: Duration = Duration::from_millis(500);
/// Round trips until a connection stands: TCP, TLS and start-up with authentication.
const HANDSHAKE_ROUND_TRIPS: u64 = 3;
/// How often a segment is sent again before its socket gives up, which is some ten seconds; also after the statement's caller
/// has closed it.
const ATTEMPTS: u8 = 10;
/// Kept free before a deadline, so that a refusal arrives in time.
const MARGIN: Duration = Duration::from_micros(1);

/// The connections of one process.
#[derive(Clone, Debug)]
pub(super) struct Pool {
    life: Incarnation,
    /// The server that it takes for the primary, and which life of its connections.
    member: usize,
    sessions: u32,
    idle: usize,
    /// Statements that occupy a connection, with their deadlines and what refuses or loses them.
    pending: BTreeMap<OpId, (Instant, Answer)>,
    waiting: VecDeque<(OpId, Instant, Submission)>,
}

impl Pool {
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Frees the connections whose statements have timed out. Where one is dead the others are taken to be.
    fn expire(&mut self, now: Instant) {
        let before = self.pending.len();
        self.pending.retain(|_, (deadline, _)| *deadline > now);
        if self.pending.len() < before {
            self.idle = 0;
        }
    }
}

impl Model {
    /// Takes a statement of a caller: it gets a connection, or waits for one.
    pub(super) fn ask(&mut self, core: &mut Core, from: NodeId, op: OpId, deadline: Instant, submission: Submission) {
        let primary = self.primary;
        let fresh = Pool {
            life: op.incarnation,
            member: primary,
            sessions: self.members[primary].sessions,
            idle: 0,
            pending: BTreeMap::new(),
            waiting: VecDeque::new(),
        };
        let pool = self.pools.entry(from).or_insert_with(|| fresh.clone());
        if pool.life != op.incarnation {
            *pool = fresh;
        }
        let now = core.now();
        pool.expire(now);
        let used = ratio(pool.pending.len() as u64, POOL_CONNECTIONS as u64);
        core.meter(from).set(Metric::DbConnectionPoolUsage, Labels::default(), used);
        if pool.pending.len() < POOL_CONNECTIONS {
            self.occupy(core, from, op, deadline, submission);
        } else if pool.waiting.len() < POOL_WAITING {
            pool.waiting.push_back((op, deadline, submission));
            later(core, (now + ACQUIRE).min(deadline - MARGIN), from, Item::Acquire(from, op));
        } else {
            self.refuse(core, now, from, op, deadline, &submission, Refusal::PoolExhausted);
        }
    }

    /// Sends a statement on an idle connection or on a new one.
    fn occupy(&mut self, core: &mut Core, from: NodeId, op: OpId, deadline: Instant, submission: Submission) {
        let now = core.now();
        let (ready, found) = self.connect(core, from);
        let at = now + ready;
        // What stands on an idle connection leaves, however late: a process may have been stopped before its socket.
        if !found || ready > Duration::ZERO && at >= deadline - MARGIN {
            return self.refuse(core, at.min(deadline - MARGIN), from, op, deadline, &submission, Refusal::Unreachable);
        }
        let pool = self.pools.get_mut(&from).expect("a caller has a pool");
        pool.pending.insert(op, (deadline, lost(&submission)));
        let (member, sessions) = (pool.member, pool.sessions);
        let statement = Box::new(Statement { client: from, op, deadline, member, sessions, submission });
        if ready == Duration::ZERO {
            self.send(core, statement, 0);
        } else {
            later(core, at, from, Item::Send(statement, 0));
        }
    }

    /// Takes an idle connection, or looks for the primary among the members: how long that takes, and whether one was found.
    fn connect(&mut self, core: &mut Core, from: NodeId) -> (Duration, bool) {
        let now = core.now();
        let pool = self.pools.get_mut(&from).expect("a caller has a pool");
        if pool.idle > 0 {
            pool.idle -= 1;
            return (Duration::ZERO, true);
        }
        let (first, count) = (pool.member, self.members.len());
        let mut spent = Duration::ZERO;
        for member in (0..count).map(|offset| (first + offset) % count) {
            let server = &self.members[member];
            if !core.is_running(server.node) || !reachable(core, from, server.node) {
                spent += CONNECT;
                continue;
            }
            spent += round_trip(core, from, server.node) * HANDSHAKE_ROUND_TRIPS;
            if member == self.primary && !self.demoted && server.ready <= now {
                let pool = self.pools.get_mut(&from).expect("a caller has a pool");
                (pool.member, pool.sessions) = (member, server.sessions);
                return (spent, true);
            }
        }
        (spent, false)
    }

    /// A statement leaves its caller. What is lost on the way is sent again, for a while even after the caller gave up.
    pub(super) fn send(&mut self, core: &mut Core, statement: Box<Statement>, attempt: u8) {
        let (now, from) = (core.now(), statement.client);
        if attempt > ATTEMPTS || !core.is_up(from) || core.incarnation(from) != statement.op.incarnation {
            return;
        }
        let to = self.members[statement.member].node;
        match core.hop(from, to) {
            Some(delay) => later(core, now + delay, to, Item::Arrive(statement)),
            None => later(core, retransmit_at(now, attempt), from, Item::Send(statement, attempt.saturating_add(1))),
        }
    }

    /// An answer has arrived: its connection is free for who waits.
    pub(super) fn answered(&mut self, core: &mut Core, response: Response) {
        let Response { client, op, broken, answer, .. } = response;
        if let Some(pool) = self.pools.get_mut(&client) {
            let occupied = pool.pending.remove(&op).is_some();
            if broken {
                pool.idle = 0;
            } else if occupied {
                pool.idle = (pool.idle + 1).min(POOL_CONNECTIONS);
            }
        }
        core.answer_ledger(client, op, answer);
        self.serve_waiting(core, client);
    }

    /// Gives free connections to the statements that wait longest.
    pub(super) fn serve_waiting(&mut self, core: &mut Core, client: NodeId) {
        let now = core.now();
        while let Some(pool) = self.pools.get_mut(&client)
            && pool.pending.len() < POOL_CONNECTIONS
            && let Some((op, deadline, submission)) = pool.waiting.pop_front()
        {
            if deadline > now && core.is_up(client) && core.incarnation(client) == op.incarnation {
                self.occupy(core, client, op, deadline, submission);
            }
        }
    }

    pub(super) fn give_up_waiting(&mut self, core: &mut Core, client: NodeId, op: OpId) {
        let Some(pool) = self.pools.get_mut(&client) else { return };
        let Some(place) = pool.waiting.iter().position(|(waiting, ..)| *waiting == op) else { return };
        let (op, deadline, submission) = pool.waiting.remove(place).expect("it was just found");
        self.refuse(core, core.now(), client, op, deadline, &submission, Refusal::PoolExhausted);
    }

    /// Frees the connections whose statements have timed out.
    pub(super) fn sweep_pools(&mut self, core: &mut Core) {
        let now = core.now();
        let clients: Vec<NodeId> = self.pools.keys().copied().collect();
        for client in clients {
            if let Some(pool) = self.pools.get_mut(&client) {
                pool.expire(now);
            }
            self.serve_waiting(core, client);
        }
    }

    /// A server's process is gone while its machine lives: it resets its connections, and what was under way is unknown.
    pub(super) fn reset_connections(&mut self, core: &mut Core, member: usize) {
        let node = self.members[member].node;
        let connected = |pool: &Pool| pool.member == member;
        let callers: Vec<NodeId> =
            self.pools.iter().filter(|(_, pool)| connected(pool)).map(|(&client, _)| client).collect();
        for client in callers {
            // A reset is one packet; where it does not get through, the caller waits for its deadline. The delay is that of
            // the way there, since a dead process sends nothing by itself: its machine does.
            let Some(delay) = core.hop(client, node).filter(|_| core.linked(node, client)) else { continue };
            let pool = self.pools.get_mut(&client).expect("it was just found");
            pool.idle = 0;
            for (&op, (deadline, answer)) in &pool.pending {
                let (deadline, answer) = (*deadline, answer.clone());
                let response = Box::new(Response { client, op, deadline, broken: true, answer });
                later(core, core.now() + delay, client, Item::Answer(response));
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "an operation and its refusal, side by side")]
    fn refuse(
        &self,
        core: &mut Core,
        at: Instant,
        client: NodeId,
        op: OpId,
        deadline: Instant,
        submission: &Submission,
        refusal: Refusal,
    ) {
        let answer = refused(submission, refusal);
        later(core, at, client, Item::Answer(Box::new(Response { client, op, deadline, broken: false, answer })));
    }
}

/// The answer that refuses a submission.
pub(super) fn refused(submission: &Submission, refusal: Refusal) -> Answer {
    Ask::from(submission).ended(End::Refused(refusal))
}

/// The answer to a submission whose connection broke.
pub(super) fn lost(submission: &Submission) -> Answer {
    Ask::from(submission).ended(End::Unknown)
}
