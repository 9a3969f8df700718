//! The batch: what a worker commits in one transaction, one in flight at a time. Answers leave after it, never before.

use super::{
    Phase, Resuming, Submission, Timer, Worker,
    operations::refuse,
    telemetry::{Traced, Tracing},
};
use crate::{
    Outcome, Refusal, Turn,
    backoff::Backoff,
    doors::{
        ledger::{self, Batch, Checkpoint, Committed, OpResult, Operation, Verdict},
        telemetry::Metric,
    },
    limits, maybe, reached,
    time::Instant,
    wire,
};
use alloc::{sync::Arc, vec::Vec};
use worldline_proto::{
    CallId, CharacterId, EntityId, OpId, OpNumber,
    server::{ApplyEffectReply, ApplyEffectStatus, Reply},
};

/// An operation that waits for a batch, or is in one.
#[derive(Clone, Debug)]
pub(super) struct Queued {
    pub operation: Operation,
    pub requester: Requester,
    /// For whoever traces.
    pub traced: Traced,
}

/// Who waits for the verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Requester {
    /// The character's own head, at this worker.
    Head,
    /// The attacker's owner, by this call.
    Call(CallId),
}

/// The batch in flight.
#[derive(Clone, Debug)]
pub(super) struct Flight {
    /// The attempt under way; `None` between two attempts.
    op: Option<OpId>,
    batch: Arc<Batch>,
    requesters: Vec<Requester>,
    tracing: Tracing,
    backoff: Backoff,
}

impl Worker {
    /// The tick: one batch if none is in flight, and the states that have changed.
    pub(super) fn on_tick(&mut self, turn: &mut Turn<'_, Submission>) {
        if !self.acts(turn.now()) {
            return;
        }
        turn.time(Metric::WorkerTickDurationMs);
        turn.arm_in(Timer::Tick, limits::TICK);
        self.tick += 1;
        self.tell_load(turn);
        self.tell_of_players(turn);
        if self.flight.is_none() && !maybe!(turn, "worker.delay-commit-a-tick") {
            self.commit(turn);
        }
        self.emit_states(turn);
        self.drain(turn);
    }

    fn commit(&mut self, turn: &mut Turn<'_, Submission>) {
        let most = if maybe!(turn, "worker.commit-small-batch") { 1 } else { limits::BATCH_OPERATIONS };
        let taken = self.queue.len().min(most);
        let checkpoints = self.due_checkpoints(turn.now());
        if taken == 0 && checkpoints.is_empty() && !self.outgoing.is_due(turn.now()) {
            return;
        }
        let taken: Vec<Queued> = self.queue.drain(..taken).collect();
        let requesters = taken.iter().map(|queued| queued.requester).collect();
        let traced = taken.iter().map(|queued| queued.traced).collect();
        let operations = taken.into_iter().map(|queued| queued.operation).collect();
        self.cache_checkpoints(&checkpoints, turn);
        let batch = Arc::new(Batch { operations, checkpoints, published: self.outgoing.take_flags(turn.now()) });
        let op = turn.ledger(ledger::Submission::Commit(Arc::clone(&batch)), limits::LEDGER_PATIENCE);
        let tracing = Tracing::new(traced, (turn.node(), op), turn.now());
        self.flight = Some(Flight { op: Some(op), batch, requesters, tracing, backoff: Backoff::default() });
    }

    fn due_checkpoints(&mut self, now: Instant) -> Vec<Checkpoint> {
        let every = self.config.knobs.checkpoint_every;
        let due = self.entities.values_mut().filter(|served| served.checkpoint_due <= now);
        due.take(limits::BATCH_CHECKPOINTS)
            .map(|served| {
                served.checkpoint_due = now + every;
                Checkpoint { authority: served.authority, version: served.next_version(), state: served.checkpointed() }
            })
            .collect()
    }

    /// Submits the batch in flight again, as it was: the same keys and the same payloads.
    pub(super) fn resubmit_batch(&mut self, turn: &mut Turn<'_, Submission>) {
        let may = match self.phase {
            Phase::Active | Phase::Draining | Phase::Resuming(Resuming::Resolving) => self.valid(turn.now()),
            _ => false,
        };
        let Some(flight) = self.flight.as_mut().filter(|flight| may && flight.op.is_none()) else { return };
        let submission = ledger::Submission::Commit(Arc::clone(&flight.batch));
        flight.op = Some(turn.ledger(submission, limits::LEDGER_PATIENCE));
        flight.tracing.submitted = turn.now();
    }

    pub(super) fn on_committed(&mut self, op: OpId, outcome: Outcome<Committed>, turn: &mut Turn<'_, Submission>) {
        if self.flight.as_ref().is_none_or(|flight| flight.op != Some(op)) {
            return;
        }
        if let Some(flight) = &self.flight {
            flight.tracing.tell_transaction(op, &flight.batch, &outcome, turn);
        }
        let committed = match outcome {
            Outcome::Done(committed) => committed,
            Outcome::Unknown => {
                reached!(turn, "worker.commit-unknown-resubmitted");
                return self.resubmit_later(turn);
            }
            Outcome::Refused(_) => return self.resubmit_later(turn),
        };
        let Some(Flight { batch, requesters, tracing, .. }) = self.flight.take() else { return };
        tracing.tell_simulations(&batch, &committed, self.entities.len(), self.tick, turn);
        if !self.acts(turn.now()) && !matches!(self.phase, Phase::Resuming(_)) {
            // It stands in the ledger, but this worker may not say so now. Its clients ask again, and the stored results
            // answer them.
            return self.take_in_silently(&batch, &committed, turn);
        }
        if matches!(self.phase, Phase::Resuming(_)) {
            self.take_in_silently(&batch, &committed, turn);
            return self.go_on_resuming(turn);
        }
        for (checkpoint, accepted) in batch.checkpoints.iter().zip(&committed.checkpoints) {
            if let Err(highest) = *accepted {
                self.fenced_if_held(checkpoint.authority, highest, turn);
            }
        }
        for ((operation, requester), verdict) in batch.operations.iter().zip(requesters).zip(&committed.verdicts) {
            self.take_in_target(operation, *verdict);
            self.take_in_fence(operation, *verdict, turn);
            match requester {
                Requester::Head => self.conclude(operation.authority[0], operation.number, *verdict, turn),
                Requester::Call(call) => wire::reply(call, Reply::ApplyEffect(wire::verdict_to_reply(*verdict)), turn),
            }
        }
        self.outgoing.publish(&committed.facts, &tracing.simulations(&batch), turn);
        self.drain(turn);
    }

    fn resubmit_later(&mut self, turn: &mut Turn<'_, Submission>) {
        let Some(flight) = &mut self.flight else { return };
        flight.op = None;
        let wait = flight.backoff.fail(self.config.knobs.retry, turn.entropy());
        turn.arm_in(Timer::Batch, wait);
    }

    /// Takes in what a batch has done without telling anybody: this worker is silent.
    fn take_in_silently(&mut self, batch: &Batch, committed: &Committed, turn: &mut Turn<'_, Submission>) {
        for (checkpoint, accepted) in batch.checkpoints.iter().zip(&committed.checkpoints) {
            if let Err(highest) = *accepted {
                self.fenced_if_held(checkpoint.authority, highest, turn);
            }
        }
        for (operation, verdict) in batch.operations.iter().zip(&committed.verdicts) {
            self.take_in_target(operation, *verdict);
            self.take_in_fence(operation, *verdict, turn);
            self.take_in_result(operation.authority[0], operation.number, *verdict);
        }
    }

    /// Ends a character's head without telling its player: asked again, it is answered from the stored result, if there is
    /// one.
    pub(super) fn take_in_result(&mut self, holding: ledger::Authority, number: OpNumber, verdict: Verdict) {
        let held = self.entities.get_mut(&holding.entity).filter(|served| served.authority == holding);
        let Some(served) = held else { return };
        let Some(head) = served.head.take_if(|head| head.asked.number == number) else { return };
        if let Verdict::Applied(result) | Verdict::Stored(result) = verdict {
            served.store(number, head.asked.digest, result);
        }
    }

    /// Ends the holding that an operation was refused under. A later holding of the same entity goes on.
    fn take_in_fence(&mut self, operation: &Operation, verdict: Verdict, turn: &mut Turn<'_, Submission>) {
        if let Verdict::Fenced { entity, highest } = verdict
            && let Some(&authority) = operation.authority.iter().find(|authority| authority.entity == entity)
        {
            self.fenced_if_held(authority, highest, turn);
        }
    }

    /// Follows the hit points of a target that this worker owns.
    fn take_in_target(&mut self, operation: &Operation, verdict: Verdict) {
        let Verdict::Applied(OpResult::Hit { target, remaining, .. }) = verdict else { return };
        let written = operation.authority.iter().find(|authority| authority.entity == target);
        if let Some(served) = self.entities.get_mut(&target).filter(|served| Some(&served.authority) == written) {
            served.hit_points = remaining;
            served.stale = true;
        }
    }

    /// A write under this authority was refused because the fence stands higher.
    pub(super) fn fenced_if_held(
        &mut self,
        authority: ledger::Authority,
        highest: worldline_proto::Epoch,
        turn: &mut Turn<'_, Submission>,
    ) {
        if self.entities.get(&authority.entity).is_some_and(|served| served.authority == authority) {
            reached!(turn, "worker.commit-refused-by-fence");
            turn.count(Metric::FenceRefusalsTotal, &[], 1);
            self.told(authority.entity, highest);
            self.drop_entity(authority.entity, turn);
        }
    }

    /// An entity is no longer held: what waits for it and was never submitted has certainly not happened.
    pub(super) fn drop_queued_of(&mut self, entity: EntityId, turn: &mut Turn<'_, Submission>) {
        let (dropped, kept): (Vec<Queued>, Vec<Queued>) = self
            .queue
            .drain(..)
            .partition(|queued| queued.operation.authority.iter().any(|authority| authority.entity == entity));
        self.queue = kept.into();
        for Queued { operation, requester, .. } in dropped {
            match requester {
                Requester::Call(call) => {
                    let reply = ApplyEffectReply { status: ApplyEffectStatus::NotOwner.into(), ..Default::default() };
                    wire::reply(call, Reply::ApplyEffect(reply), turn);
                }
                Requester::Head => self.decide_again(operation.character, turn),
            }
        }
    }

    /// A character's head waited for a target that is no longer held here: its owner is elsewhere now.
    fn decide_again(&mut self, character: CharacterId, turn: &mut Turn<'_, Submission>) {
        let Some(served) = self.entities.get_mut(&character.entity()) else { return };
        let Some(head) = &mut served.head else { return };
        if let ledger::Effect::Attack { target, .. } = head.effect {
            head.course = super::served::Course::Elsewhere { target, call: None, backoff: Backoff::default() };
            self.forward(character, turn);
        }
    }

    /// The identity is dead: nothing of what was under way is this process's any more.
    pub(super) fn abandon_operations(&mut self, turn: &mut Turn<'_, Submission>) {
        for queued in core::mem::take(&mut self.queue) {
            if let Requester::Call(call) = queued.requester {
                refuse(call, Refusal::NotServing, turn);
            }
        }
        // What was submitted may yet happen. Its clients are answered by the new owners.
        self.flight = None;
        self.forwards.clear();
    }
}
