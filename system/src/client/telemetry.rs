//! The client's two spans of a blow: until its answer, and until it has also been shown what became of the target.

use super::{Client, Submission};
use crate::{
    Turn,
    doors::{
        ledger::OpResult,
        telemetry::{Attribute, Label, Span, SpanId, Stage, TraceId},
    },
    time::Instant,
};
use alloc::{collections::VecDeque, vec, vec::Vec};
use worldline_proto::{CharacterId, OpNumber};

/// Blows of which one of answer and shared state is still to come, at most; the oldest is let go. Where no replica tells, none is
/// ever whole.
const HALVES: usize = 32;

/// What has come of each blow: when it was answered, and when it was seen in what the world shares.
#[derive(Clone, Debug, Default)]
pub(super) struct Reconciling(VecDeque<Half>);

#[derive(Clone, Copy, Debug)]
struct Half {
    number: OpNumber,
    answered: Option<Instant>,
    seen: Option<Instant>,
}

impl Reconciling {
    /// One of both has come: when the first and the last came, if that was the second.
    fn take_in(
        &mut self,
        number: OpNumber,
        answered: Option<Instant>,
        seen: Option<Instant>,
    ) -> Option<(Instant, Instant)> {
        let Some(index) = self.0.iter().position(|half| half.number == number) else {
            if self.0.len() >= HALVES {
                self.0.pop_front();
            }
            self.0.push_back(Half { number, answered, seen });
            return None;
        };
        let half = &mut self.0[index];
        half.answered = half.answered.or(answered);
        half.seen = half.seen.or(seen);
        let (answered, seen) = (half.answered?, half.seen?);
        self.0.remove(index);
        Some((answered.min(seen), answered.max(seen)))
    }
}

/// The trace of a blow, and its first span.
pub(super) fn root(character: CharacterId, number: OpNumber) -> (TraceId, SpanId) {
    let trace = TraceId::of_operation(character, number);
    (trace, SpanId::of(trace, Stage::ClientAttackInput))
}

impl Client {
    pub(super) fn tell_answered(
        &mut self,
        number: OpNumber,
        begun: Instant,
        result: Option<OpResult>,
        turn: &mut Turn<'_, Submission>,
    ) {
        if !turn.traces() {
            return;
        }
        let character = self.config.character;
        let (trace, id) = root(character, number);
        let end = turn.now();
        let mut attributes = vec![
            ("player_id", Attribute::Entity(character.entity())),
            ("operation_number", Attribute::Number(number.0)),
        ];
        let mut hit = false;
        let failed = match result {
            Some(OpResult::Hit { target, dealt, .. }) => {
                attributes.push(("target_id", Attribute::Entity(target)));
                attributes.push(("damage", Attribute::Number(dealt.into())));
                hit = true;
                None
            }
            Some(OpResult::Refused(_)) => {
                attributes.push(("combat_result", Attribute::Label(Label::Word("refused"))));
                None
            }
            None => Some("conflict"),
        };
        let stage = Stage::ClientAttackInput;
        turn.span(|| Span { trace, id, parent: None, stage, start: begun, end, failed, attributes });
        if hit && let Some(both) = self.reconciling.take_in(number, Some(end), None) {
            self.tell_reconciled(number, both, turn);
        }
    }

    /// The world's shared state, as it is shown, contains these of its own blows.
    pub(super) fn tell_seen(&mut self, own: &[u64], turn: &mut Turn<'_, Submission>) {
        if !turn.traces() {
            return;
        }
        let whole: Vec<_> = own
            .iter()
            .take(HALVES)
            .filter_map(|&number| {
                let number = OpNumber(number);
                Some((number, self.reconciling.take_in(number, None, Some(turn.now()))?))
            })
            .collect();
        for (number, both) in whole {
            self.tell_reconciled(number, both, turn);
        }
    }

    fn tell_reconciled(&self, number: OpNumber, (start, end): (Instant, Instant), turn: &mut Turn<'_, Submission>) {
        let character = self.config.character;
        let (trace, _) = root(character, number);
        let stage = Stage::ClientReconciliation;
        turn.span(|| Span {
            trace,
            id: SpanId::of(trace, stage),
            parent: Some(SpanId::of(trace, Stage::NatsBroadcast)),
            stage,
            start,
            end,
            failed: None,
            attributes: vec![("player_id", Attribute::Entity(character.entity()))],
        });
    }
}
