//! A fact on its way to the bus, for whoever traces: the span `nats_broadcast`, told by the owner that publishes it and by the relay
//! that publishes what the owner could not.
//!
//! Clients put their own span under the one of the publish that the bus has stored; its id follows from the trace alone. A publish that
//! failed has an id of its own, since another one follows.

use crate::{
    Outcome, Turn,
    doors::{
        self,
        bus::Published,
        ledger::FactRow,
        telemetry::{Attribute, Span, SpanId, Stage, TraceId},
    },
    time::Instant,
};
use alloc::vec;
use worldline_proto::{EntityId, FactSequence, OpId};

/// A fact that was handed to the bus.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Broadcast {
    /// Which.
    pub fact: (EntityId, FactSequence),
    trace: TraceId,
    parent: Option<SpanId>,
    since: Instant,
}

impl Broadcast {
    /// By its owner, under the span of the operation that it tells of.
    pub fn new(fact: &FactRow, parent: Option<SpanId>, since: Instant) -> Self {
        let trace = TraceId::of_operation(fact.character, fact.number);
        Self { fact: (fact.aggregate, fact.sequence), trace, parent, since }
    }

    /// By the relay, which knows of the operation no more than whose it was: under its first span.
    pub fn relayed(fact: &FactRow, since: Instant) -> Self {
        let trace = TraceId::of_operation(fact.character, fact.number);
        Self { parent: Some(SpanId::of(trace, Stage::ClientAttackInput)), ..Self::new(fact, None, since) }
    }

    /// The bus has stored it, or has not.
    pub fn tell<S: Into<doors::Submission>>(&self, op: OpId, outcome: &Outcome<Published>, turn: &mut Turn<'_, S>) {
        let &Self { fact: (aggregate, sequence), trace, parent, since } = self;
        let (stage, end, node) = (Stage::NatsBroadcast, turn.now(), turn.node());
        let (id, failed) = match outcome {
            Outcome::Done(_) => (SpanId::of(trace, stage), None),
            Outcome::Refused(_) => (SpanId::at(trace, stage, node, op), Some("refused")),
            Outcome::Unknown => (SpanId::at(trace, stage, node, op), Some("unknown")),
        };
        let attributes =
            || vec![("aggregate", Attribute::Entity(aggregate)), ("sequence", Attribute::Number(sequence.0))];
        turn.span(|| Span { trace, id, parent, stage, start: since, end, failed, attributes: attributes() });
    }
}
