//! What a worker tells of itself, every second while it ticks. And its spans: of the effects that it forwards, and of the
//! operations that it commits, each with its transaction.

use super::{Submission, Worker, served::Asked};
use crate::{
    Outcome, Turn,
    doors::{
        directory::RegionId,
        ledger::{Batch, Committed, FactRow, OpResult, Verdict},
        telemetry::{Attribute, Label, Metric, Span, SpanId, Stage, TraceId},
    },
    time::Instant,
};
use alloc::{vec, vec::Vec};
use worldline_proto::{CharacterId, EntityKind, NodeId, OpId, OpNumber, server::Reply};

/// What is counted begins at nothing: a rate needs that.
pub(super) fn begin(turn: &mut Turn<'_, Submission>) {
    for metric in [
        Metric::WorkerSuspensionsTotal,
        Metric::WorkerResumptionsTotal,
        Metric::FenceRefusalsTotal,
        Metric::FactsLeftToRelayTotal,
    ] {
        turn.count(metric, &[], 0);
    }
    turn.count(Metric::LeasesLostTotal, &[Label::Word("worker")], 0);
}

impl Worker {
    pub(super) fn report(&self, turn: &mut Turn<'_, Submission>) {
        let mut owned = EntityKind::ALL.map(|kind| (kind, 0));
        for entity in self.entities.keys() {
            owned.iter_mut().filter(|(kind, _)| *kind == entity.kind()).for_each(|(_, count)| *count += 1);
        }
        for (kind, count) in owned {
            turn.gauge(Metric::WorkerEntityCount, &[Label::Word(kind_word(kind))], count);
        }
        turn.gauge(Metric::WorkerQueuedOperations, &[], self.queue.len());
    }
}

const fn kind_word(kind: EntityKind) -> &'static str {
    match kind {
        EntityKind::Character => "character",
        EntityKind::Boss => "boss",
        EntityKind::Npc => "npc",
    }
}

/// Where an operation comes from and since when it is here, for whoever traces.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Traced {
    pub parent: Option<SpanId>,
    pub since: Instant,
}

impl Traced {
    pub fn new(span: u64, since: Instant) -> Self {
        Self { parent: SpanId::from_wire(span), since }
    }
}

fn word(failed: &'static str) -> Attribute {
    Attribute::Label(Label::Word(failed))
}

fn failure<T>(outcome: &Outcome<T>) -> Option<&'static str> {
    match outcome {
        Outcome::Done(_) => None,
        Outcome::Refused(_) => Some("refused"),
        Outcome::Unknown => Some("unknown"),
    }
}

/// An effect on its way to its target's owner.
#[derive(Clone, Copy, Debug)]
pub(super) struct Forwarding {
    pub character: CharacterId,
    number: OpNumber,
    node: NodeId,
    op: OpId,
    parent: Option<SpanId>,
    /// The owner's region, where that is another one.
    elsewhere: Option<RegionId>,
    since: Instant,
}

impl Forwarding {
    pub fn new(
        character: CharacterId,
        asked: &Asked,
        (node, op): (NodeId, OpId),
        elsewhere: Option<RegionId>,
        since: Instant,
    ) -> Self {
        Self { character, number: asked.number, node, op, parent: asked.traced.parent, elsewhere, since }
    }

    fn trace(&self) -> TraceId {
        TraceId::of_operation(self.character, self.number)
    }

    fn id(&self) -> SpanId {
        SpanId::at(self.trace(), Stage::CrossRegionGrpc, self.node, self.op)
    }

    /// The span that the owner's are under.
    pub fn handed_on(&self) -> Option<SpanId> {
        if self.elsewhere.is_some() { Some(self.id()) } else { self.parent }
    }
}

/// An operation that was committed, and the span of it.
pub(super) type Simulation = (CharacterId, OpNumber, SpanId);

/// The batch in flight, for whoever traces.
#[derive(Clone, Debug)]
pub(super) struct Tracing {
    traced: Vec<Traced>,
    /// Which node, and its first attempt at the batch.
    node: NodeId,
    first: OpId,
    /// When the attempt under way was submitted.
    pub submitted: Instant,
}

impl Tracing {
    pub fn new(traced: Vec<Traced>, (node, first): (NodeId, OpId), submitted: Instant) -> Self {
        Self { traced, node, first, submitted }
    }

    /// The spans of the batch's operations, in its order.
    pub fn simulations(&self, batch: &Batch) -> Vec<Simulation> {
        let span = |character, number| {
            SpanId::at(TraceId::of_operation(character, number), Stage::WorkerCombatSimulation, self.node, self.first)
        };
        let operations = batch.operations.iter().map(|operation| (operation.character, operation.number));
        operations.map(|(character, number)| (character, number, span(character, number))).collect()
    }

    /// An attempt has ended.
    pub fn tell_transaction(
        &self,
        op: OpId,
        batch: &Batch,
        outcome: &Outcome<Committed>,
        turn: &mut Turn<'_, Submission>,
    ) {
        if !turn.traces() {
            return;
        }
        let (stage, end) = (Stage::DbTransaction, turn.now());
        for (character, number, parent) in self.simulations(batch) {
            let trace = TraceId::of_operation(character, number);
            turn.span(|| Span {
                trace,
                id: SpanId::at(trace, stage, self.node, op),
                parent: Some(parent),
                stage,
                start: self.submitted,
                end,
                failed: failure(outcome),
                attributes: vec![
                    ("operations_in_transaction", Attribute::Number(batch.operations.len() as u64)),
                    ("tables", word("entities, results, outbox")),
                ],
            });
        }
    }

    /// The batch is committed: every operation in it has its result.
    pub fn tell_simulations(
        &self,
        batch: &Batch,
        committed: &Committed,
        entities: usize,
        tick: u64,
        turn: &mut Turn<'_, Submission>,
    ) {
        if !turn.traces() {
            return;
        }
        let (stage, end) = (Stage::WorkerCombatSimulation, turn.now());
        for (((character, number, id), traced), verdict) in
            self.simulations(batch).into_iter().zip(&self.traced).zip(&committed.verdicts)
        {
            let mut attributes = vec![
                ("worker_id", Attribute::Label(Label::Node(self.node))),
                ("entity_count", Attribute::Number(entities as u64)),
                ("tick_number", Attribute::Number(tick)),
            ];
            let failed = match verdict {
                Verdict::Applied(OpResult::Hit { dealt, .. }) | Verdict::Stored(OpResult::Hit { dealt, .. }) => {
                    attributes.push(("combat_result", word("hit")));
                    attributes.push(("damage", Attribute::Number((*dealt).into())));
                    None
                }
                Verdict::Applied(_) | Verdict::Stored(_) => {
                    attributes.push(("combat_result", word("refused by the rules")));
                    None
                }
                Verdict::Fenced { .. } => Some("fenced"),
                Verdict::Conflict | Verdict::Forgotten | Verdict::Gap { .. } | Verdict::StaleSession { .. } => {
                    Some("not executed")
                }
            };
            let trace = TraceId::of_operation(character, number);
            let (parent, start) = (traced.parent, traced.since);
            turn.span(|| Span { trace, id, parent, stage, start, end, failed, attributes });
        }
    }
}

/// The span of the operation that a fact tells of, if it was in the batch.
pub(super) fn simulation_of(simulations: &[Simulation], fact: &FactRow) -> Option<SpanId> {
    let of = |simulation: &&Simulation| (simulation.0, simulation.1) == (fact.character, fact.number);
    simulations.iter().find(of).map(|(_, _, span)| *span)
}

impl Worker {
    /// An effect has come back from its target's owner, or has not.
    pub(super) fn tell_forwarded(
        &self,
        forwarding: &Forwarding,
        outcome: &Outcome<Reply>,
        turn: &mut Turn<'_, Submission>,
    ) {
        let Some(elsewhere) = forwarding.elsewhere else { return };
        let region = |region| Attribute::Label(Label::Region(region));
        let (own, end) = (self.config.region, turn.now());
        turn.span(|| Span {
            trace: forwarding.trace(),
            id: forwarding.id(),
            parent: forwarding.parent,
            stage: Stage::CrossRegionGrpc,
            start: forwarding.since,
            end,
            failed: failure(outcome),
            attributes: vec![
                ("from_region", region(own)),
                ("to_region", region(elsewhere)),
                ("protocol", word("gRPC/HTTP2")),
            ],
        });
    }
}
