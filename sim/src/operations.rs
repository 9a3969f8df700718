//! Operations in flight: each has a reserved slot for its answer and a deadline by its node's clock.
//!
//! An operation is answered once. What comes later, or to a dead incarnation, is dropped and counted. At its deadline it is
//! `Unknown`, unless it certainly never left.

use crate::{
    core::Core,
    item::{Item, is_news},
    network::connection::EndRef,
};
use std::mem::Discriminant;
use worldline_proto::{NodeId, OpId};
use worldline_system::{
    Refusal,
    doors::{self, bus, cache, directory, ledger, network},
    history::{Completion, Invocation, What},
    limits,
    outcome::End,
    time::Instant,
};

/// An operation that waits for its answer.
#[derive(Clone, Debug)]
pub(crate) struct Pending {
    /// By the node's clock.
    pub deadline: Instant,
    /// When it was submitted, by virtual time.
    pub since: Instant,
    pub kind: Kind,
}

#[derive(Clone, Debug)]
pub(crate) enum Kind {
    /// A handshake; it has its own timeout.
    Connect,
    /// A call. `via` is the channel it was sent on; `None` while it has not left.
    Call {
        via: Option<EndRef>,
    },
    Directory(directory::Ask),
    Ledger(ledger::Ask),
    Bus(bus::Ask),
    Cache(cache::Ask),
}

impl Core {
    /// Reserves the slot of an operation's answer. `false` where there is none left: it is refused at once.
    pub(crate) fn reserve(&mut self, node: NodeId, op: OpId, deadline: Instant, kind: Kind) -> bool {
        let now = self.now;
        let entry = &mut self.nodes[node.0 as usize];
        assert!(op.incarnation == entry.incarnation, "an operation is numbered by the incarnation that submits it");
        if entry.cold.pending.len() >= limits::OPERATIONS_IN_FLIGHT {
            self.counters.refused_busy += 1;
            self.conclude(node, op, now, &kind, End::Refused(Refusal::Busy));
            return false;
        }
        let due = entry.clock.due(deadline, now);
        let before = entry.cold.pending.insert(op.counter, Pending { deadline, since: now, kind });
        assert!(before.is_none(), "an operation is submitted once");
        if let Some(due) = due
            && deadline < Instant::from_nanos(u64::MAX)
        {
            self.push(due, node, Item::Deadline { counter: op.counter });
        }
        true
    }

    /// Writes an operation on a service to the history.
    pub(crate) fn invoked(&mut self, node: NodeId, op: OpId, what: Invocation) {
        self.record(node, What::Invoked(op, what));
    }

    /// A deadline may have come: whether the operation ends by it. If the node's clock is not there yet, it comes again.
    pub(crate) fn is_past_deadline(&mut self, node: NodeId, counter: u64) -> bool {
        let now = self.now;
        let entry = &mut self.nodes[node.0 as usize];
        let Some(pending) = entry.cold.pending.get(&counter) else { return false };
        let past = entry.clock.local(now) >= pending.deadline;
        if !past && let Some(due) = entry.clock.due(pending.deadline, now) {
            self.push(due, node, Item::Deadline { counter });
        }
        past
    }

    /// The deadline of an operation has come.
    pub(crate) fn on_deadline(&mut self, node: NodeId, counter: u64) -> Option<doors::Event> {
        let entry = &mut self.nodes[node.0 as usize];
        let op = OpId { incarnation: entry.incarnation, counter };
        let pending = entry.cold.pending.remove(&counter)?;
        let end = match &pending.kind {
            Kind::Call { via: None, .. } => End::Refused(Refusal::Unreachable),
            _ => End::Unknown,
        };
        self.counters.deadlines += 1;
        self.event_of(node, op, pending.since, &pending.kind, end)
    }

    /// Ends an operation that is still pending, without a result.
    pub(crate) fn give_up(&mut self, node: NodeId, op: OpId, end: End) {
        let Some(pending) = self.take_pending(node, op) else { return };
        self.conclude(node, op, pending.since, &pending.kind, end);
    }

    fn conclude(&mut self, node: NodeId, op: OpId, since: Instant, kind: &Kind, end: End) {
        if let Some(event) = self.event_of(node, op, since, kind, end) {
            self.tell(node, event);
        }
    }

    /// What the role is told of an operation that ended without a result, after it was written to the history.
    fn event_of(&mut self, node: NodeId, op: OpId, since: Instant, kind: &Kind, end: End) -> Option<doors::Event> {
        Some(match kind {
            Kind::Connect => {
                let reason = network::CloseReason::HandshakeTimeout;
                doors::Event::Network(network::Event::NotOpened { op, reason })
            }
            Kind::Call { .. } => doors::Event::Network(network::Event::Answered { op, outcome: Box::new(end.into()) }),
            Kind::Directory(ask) => {
                let answer = ask.ended(end);
                self.record(node, What::Completed(op, Box::new(Completion::Directory(answer.clone()))));
                doors::Event::Directory(directory::Event::Answered { op, answer: Box::new(answer) })
            }
            Kind::Ledger(ask) => {
                let answer = ask.ended(end);
                self.ledger_answered(node, since, *ask, &answer);
                self.record(node, What::Completed(op, Box::new(Completion::Ledger(answer.clone()))));
                doors::Event::Ledger(ledger::Event { op, answer: Box::new(answer) })
            }
            Kind::Bus(ask) => {
                let answer = ask.ended(end);
                self.record_bus(node, op, &answer);
                doors::Event::Bus(bus::Event::Answered { op, answer: Box::new(answer) })
            }
            Kind::Cache(ask) => {
                let answer = ask.ended(end);
                self.record(node, What::Completed(op, Box::new(Completion::Cache(answer.clone()))));
                doors::Event::Cache(cache::Event { op, answer: Box::new(answer) })
            }
        })
    }

    /// Takes an operation out of the table. `None` if it was answered before, or its incarnation is dead.
    pub(crate) fn take_pending(&mut self, node: NodeId, op: OpId) -> Option<Pending> {
        let entry = self.nodes.get_mut(node.0 as usize)?;
        if !entry.is_up() || entry.incarnation != op.incarnation {
            self.counters.answers_dropped += 1;
            return None;
        }
        let pending = entry.cold.pending.remove(&op.counter);
        if pending.is_none() {
            self.counters.answers_dropped += 1;
        }
        pending
    }

    /// The directory has answered. Delivered now; dropped if the operation has ended or its incarnation is dead.
    pub fn answer_directory(&mut self, to: NodeId, op: OpId, answer: directory::Answer) {
        let Some(pending) = self.take_pending(to, op) else { return };
        let Kind::Directory(ask) = pending.kind else { panic!("{op} of {to} is no operation on the directory") };
        assert!(same_kind(&ask.ended(End::Unknown), &answer), "the answer to {ask:?} cannot be {answer:?}");
        self.record(to, What::Completed(op, Box::new(Completion::Directory(answer.clone()))));
        self.tell(to, doors::Event::Directory(directory::Event::Answered { op, answer: Box::new(answer) }));
    }

    fn ledger_answered(&mut self, node: NodeId, since: Instant, ask: ledger::Ask, answer: &ledger::Answer) {
        let after = self.now.since(since);
        self.meter(node).ledger_answered(ask, answer, after);
    }

    /// The ledger has answered. Delivered now; dropped if the operation has ended or its incarnation is dead.
    pub fn answer_ledger(&mut self, to: NodeId, op: OpId, answer: ledger::Answer) {
        let Some(pending) = self.take_pending(to, op) else { return };
        let Kind::Ledger(ask) = pending.kind else { panic!("{op} of {to} is no operation on the ledger") };
        assert!(same_kind(&ask.ended(End::Unknown), &answer), "the answer to {ask:?} cannot be {answer:?}");
        self.ledger_answered(to, pending.since, ask, &answer);
        self.record(to, What::Completed(op, Box::new(Completion::Ledger(answer.clone()))));
        self.tell(to, doors::Event::Ledger(ledger::Event { op, answer: Box::new(answer) }));
    }

    /// The bus has answered. Delivered now; dropped if the operation has ended or its incarnation is dead.
    pub fn answer_bus(&mut self, to: NodeId, op: OpId, answer: bus::Answer) {
        let Some(pending) = self.take_pending(to, op) else { return };
        let Kind::Bus(ask) = pending.kind else { panic!("{op} of {to} is no operation on the bus") };
        assert!(same_kind(&ask.ended(End::Unknown), &answer), "the answer to {ask:?} cannot be {answer:?}");
        self.record_bus(to, op, &answer);
        self.tell(to, doors::Event::Bus(bus::Event::Answered { op, answer: Box::new(answer) }));
    }

    /// Of what is asked of the bus, only publishes are written to the history.
    fn record_bus(&mut self, node: NodeId, op: OpId, answer: &bus::Answer) {
        if matches!(answer, bus::Answer::Published(_)) {
            self.record(node, What::Completed(op, Box::new(Completion::Bus(answer.clone()))));
        }
    }

    /// The cache has answered. Delivered now; dropped if the operation has ended or its incarnation is dead.
    pub fn answer_cache(&mut self, to: NodeId, op: OpId, answer: cache::Answer) {
        let Some(pending) = self.take_pending(to, op) else { return };
        let Kind::Cache(ask) = pending.kind else { panic!("{op} of {to} is no operation on the cache") };
        assert!(same_kind(&ask.ended(End::Unknown), &answer), "the answer to {ask:?} cannot be {answer:?}");
        self.record(to, What::Completed(op, Box::new(Completion::Cache(answer.clone()))));
        self.tell(to, doors::Event::Cache(cache::Event { op, answer: Box::new(answer) }));
    }

    /// News of a watch, delivered now. `false` where the incarnation is dead, or its reader has as many news waiting as it
    /// has credits for: the watch must end with a gap. A gap itself is never shed.
    pub fn directory_news(
        &mut self,
        to: NodeId,
        incarnation: worldline_proto::Incarnation,
        event: directory::Event,
    ) -> bool {
        self.news(to, incarnation, doors::Event::Directory(event))
    }

    /// What a consumer tells, delivered now; as [`Core::directory_news`].
    pub fn bus_news(&mut self, to: NodeId, incarnation: worldline_proto::Incarnation, event: bus::Event) -> bool {
        self.news(to, incarnation, doors::Event::Bus(event))
    }

    fn news(&mut self, to: NodeId, incarnation: worldline_proto::Incarnation, event: doors::Event) -> bool {
        let entry = &mut self.nodes[to.0 as usize];
        if !entry.is_up() || entry.incarnation != incarnation {
            return false;
        }
        if is_news(&event) {
            if entry.cold.news >= limits::WATCH_CREDITS {
                self.counters.shed += 1;
                return false;
            }
            entry.cold.news += 1;
        }
        self.tell(to, event);
        true
    }
}

fn same_kind<T>(a: &T, b: &T) -> bool {
    let kind: fn(&T) -> Discriminant<T> = std::mem::discriminant;
    kind(a) == kind(b)
}
