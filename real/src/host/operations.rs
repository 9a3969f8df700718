//! Operations in flight: each has a reserved slot for its answer and a deadline. What comes later is dropped and counted.

use std::collections::{BTreeMap, BTreeSet};
use worldline_proto::OpId;
use worldline_system::{
    doors::{self, bus, cache, directory, ledger, network},
    limits,
    outcome::End,
    time::Instant,
};

/// Which answer an operation has.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    /// A handshake; the network keeps its timeout.
    Connect,
    Call,
    Directory(directory::Ask),
    Ledger(ledger::Ask),
    Bus(bus::Ask),
    Cache(cache::Ask),
}

impl Kind {
    /// What the role is told of an operation that came to no result.
    pub fn ended(self, op: OpId, end: End) -> doors::Event {
        match self {
            Self::Connect => {
                let reason = match end {
                    End::Refused(_) => network::CloseReason::TooMany,
                    End::Unknown => network::CloseReason::HandshakeTimeout,
                };
                doors::Event::Network(network::Event::NotOpened { op, reason })
            }
            Self::Call => doors::Event::Network(network::Event::Answered { op, outcome: Box::new(end.into()) }),
            Self::Directory(ask) => {
                doors::Event::Directory(directory::Event::Answered { op, answer: Box::new(ask.ended(end)) })
            }
            Self::Ledger(ask) => doors::Event::Ledger(ledger::Event { op, answer: Box::new(ask.ended(end)) }),
            Self::Bus(ask) => doors::Event::Bus(bus::Event::Answered { op, answer: Box::new(ask.ended(end)) }),
            Self::Cache(ask) => doors::Event::Cache(cache::Event { op, answer: Box::new(ask.ended(end)) }),
        }
    }
}

/// What waits for its answer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Operations {
    /// With when each was submitted and when it ends.
    pending: BTreeMap<OpId, (Instant, Instant, Kind)>,
    due: BTreeSet<(Instant, OpId)>,
}

impl Operations {
    /// Reserves the slot of an answer; `false` where none is left.
    #[must_use]
    pub fn reserve(&mut self, op: OpId, now: Instant, deadline: Instant, kind: Kind) -> bool {
        if self.pending.len() >= limits::OPERATIONS_IN_FLIGHT {
            return false;
        }
        let before = self.pending.insert(op, (now, deadline, kind));
        assert!(before.is_none(), "an operation is submitted once");
        self.due.insert((deadline, op));
        true
    }

    /// An answer has come: since when its operation has waited for it. `None` if it does not.
    #[must_use]
    pub fn conclude(&mut self, op: OpId) -> Option<(Instant, Kind)> {
        let (since, deadline, kind) = self.pending.remove(&op)?;
        self.due.remove(&(deadline, op));
        Some((since, kind))
    }

    /// When the next deadline is.
    pub fn next(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Takes the earliest operation whose deadline has come by `now`, with when it was submitted.
    pub fn expired(&mut self, now: Instant) -> Option<(OpId, Instant, Kind)> {
        let (at, op) = *self.due.first()?;
        if at > now {
            return None;
        }
        self.due.pop_first();
        self.pending.remove(&op).map(|(since, _, kind)| (op, since, kind))
    }
}
