//! What players do: validated here, in the order of their numbers, one at a time for each character.
//!
//! The owner of the attacker validates and spends; the owner of the target commits. Where they are two, the first
//! forwards the effect with its own authority, and the ledger checks both. The second keeps nothing of it but the batch.

use super::{
    Phase, Served, Submission, Timer, Worker,
    batch::{Queued, Requester},
    served::{Asked, Course, Head},
    telemetry::{Forwarding, Traced},
};
use crate::{
    Outcome, Refusal, Turn,
    digest::digest,
    doors::{
        ledger::{Authority, Effect, OpResult, Operation, RuleRefusal, Verdict},
        network,
        telemetry::SpanId,
    },
    history::Note,
    limits, reached,
    rules::attack::{self, Blow},
    time::Duration,
    wire,
};
use alloc::{boxed::Box, vec, vec::Vec};
use worldline_proto::{
    CallId, CharacterId, Digest, EntityId, Epoch, Generation, LeaseId, OpId, OpNumber,
    server::{
        ApplyEffectReply, ApplyEffectRequest, ApplyEffectStatus, PerformReply, PerformRequest, PerformStatus, Reply,
        Request,
    },
};

/// Attempts at a target's owner before the attacker's owner lets the operation go; its client sends it again.
const FORWARD_ATTEMPTS: u32 = 20;
/// How long an attempt at a target's owner may take.
const FORWARD_PATIENCE: Duration = limits::CALL_PATIENCE;

/// Calls that wait for the same operation: its client sends it again while it is under way.
const CALLS_PER_OPERATION: usize = 4;

impl Worker {
    /// A gateway brings an operation.
    pub(super) fn on_perform(&mut self, call: CallId, request: PerformRequest, turn: &mut Turn<'_, Submission>) {
        if self.phase != Phase::Active || !self.acts(turn.now()) {
            return refuse(call, Refusal::NotServing, turn);
        }
        let served = EntityId::from_raw(request.character).and_then(|entity| self.entities.get_mut(&entity));
        let Some(served) = served else { return answer(call, PerformStatus::NotOwner, None, turn) };
        let generation = Generation(request.generation);
        if generation < served.generation {
            reached!(turn, "worker.stale-session-refused");
            return answer(call, PerformStatus::Superseded, None, turn);
        }
        served.heard_of(generation);
        let (number, digest) = (OpNumber(request.number), digest(&request.action));
        if number <= served.applied_through {
            return answer_stored(served, call, number, digest, turn);
        }
        if let Some(known) =
            served.head.iter_mut().map(|h| &mut h.asked).chain(&mut served.behind).find(|a| a.number == number)
        {
            // A resend of what is under way. Another payload under the same number must wait for the result that tells it no.
            if known.digest != digest {
                return refuse(call, Refusal::Busy, turn);
            }
            return wait_too(known, call, generation, turn);
        }
        if number.0 - served.applied_through.0 > limits::CLIENT_WINDOW as u64 {
            return answer(call, PerformStatus::Gap, None, turn);
        }
        if served.behind.len() >= limits::CLIENT_WINDOW || self.queue.len() >= limits::WORKER_QUEUE {
            return refuse(call, Refusal::Busy, turn);
        }
        // Calls overtake each other: what comes early waits here for what is missing.
        let place = served.behind.partition_point(|asked| asked.number < number);
        let traced = Traced::new(request.span, turn.now());
        let asked = Asked { number, generation, digest, action: request.action, calls: vec![call], traced };
        served.behind.insert(place, asked);
        if let Some(character) = served.character() {
            self.begin_next(character, turn);
        }
    }

    /// Begins a character's next operation, unless one is under way.
    pub(super) fn begin_next(&mut self, character: CharacterId, turn: &mut Turn<'_, Submission>) {
        let speaks = self.phase == Phase::Active && self.acts(turn.now());
        let Some(served) = self.entities.get_mut(&character.entity()) else { return };
        if served.head.is_some() {
            return;
        }
        while let Some(late) = served.behind.pop_front_if(|asked| asked.number <= served.applied_through) {
            // It has a result by now.
            for call in late.calls {
                if speaks {
                    answer_stored(served, call, late.number, late.digest, turn);
                } else {
                    answer_unknown(call, turn);
                }
            }
        }
        let next = served.applied_through.next();
        let Some(asked) = served.behind.pop_front_if(|asked| asked.number == next) else { return };
        let effect = match decide(served, &self.config.map, &asked, turn) {
            Ok(effect) => effect,
            Err(refusal) => Effect::Refuse(refusal),
        };
        let authority = served.authority;
        self.execute(asked, effect, authority, turn);
    }

    /// Makes a decided operation its character's head and brings it to where its target is owned.
    fn execute(&mut self, asked: Asked, effect: Effect, holding: Authority, turn: &mut Turn<'_, Submission>) {
        let Some(character) = CharacterId::from_entity(holding.entity) else { return };
        let mut authority = vec![holding];
        let target = match effect {
            Effect::Attack { target, .. } => Some(target),
            Effect::Refuse(_) => None,
        };
        let own_target = target.and_then(|target| self.entities.get(&target)).map(|target| target.authority);
        authority.extend(own_target);
        let course = match (target, own_target) {
            (Some(target), None) => Course::Elsewhere { target, call: None, backoff: Default::default() },
            _ => Course::Here,
        };
        let here = matches!(course, Course::Here);
        let (number, generation, digest, traced) = (asked.number, asked.generation, asked.digest, asked.traced);
        let Some(served) = self.entities.get_mut(&holding.entity).filter(|served| served.authority == holding) else {
            return;
        };
        served.head = Some(Head { asked, effect: effect.clone(), course });
        if here {
            let operation = Operation { character, generation, number, digest, authority, effect };
            self.queue.push_back(Queued { operation, requester: Requester::Head, traced });
        } else {
            self.forward(character, turn);
        }
    }

    /// Brings a character's effect to its target's owner, unless an attempt is under way.
    pub(super) fn forward(&mut self, character: CharacterId, turn: &mut Turn<'_, Submission>) {
        if self.phase != Phase::Active || !self.acts(turn.now()) {
            return;
        }
        let waits = self.entities.get(&character.entity()).and_then(Served::awaits_target);
        let Some(target) = waits else { return };
        if self.entities.contains_key(&target) {
            // Its owner is now this worker itself.
            return self.execute_here(character, turn);
        }
        let Some(node) = self.routes.get(target).filter(|&node| node != turn.node()) else {
            self.routes.look_up(target, turn);
            return self.forward_later(character, turn);
        };
        let Some(served) = self.entities.get_mut(&character.entity()) else { return };
        let authority = served.authority;
        let Some(Head { asked, effect: Effect::Attack { blow, .. }, course }) = &mut served.head else { return };
        let Course::Elsewhere { call, .. } = course else { return };
        let op = turn.next_op();
        let elsewhere = self.routes.region(target).filter(|region| *region != self.config.region);
        let forwarding = Forwarding::new(character, asked, (turn.node(), op), elsewhere, turn.now());
        let mut request = effect_request(character, asked, authority, target, *blow);
        request.span = SpanId::to_wire(forwarding.handed_on());
        turn.call_as(op, node, Request::ApplyEffect(request), FORWARD_PATIENCE);
        *call = Some(op);
        self.forwards.insert(op, forwarding);
        reached!(turn, "worker.effect-forwarded");
    }

    fn execute_here(&mut self, character: CharacterId, turn: &mut Turn<'_, Submission>) {
        let Some(served) = self.entities.get(&character.entity()) else { return };
        let Some(Head { asked, effect: effect @ Effect::Attack { target, .. }, .. }) = &served.head else { return };
        let Some(target) = self.entities.get(target) else { return };
        let operation = Operation {
            character,
            generation: asked.generation,
            number: asked.number,
            digest: asked.digest,
            authority: vec![served.authority, target.authority],
            effect: effect.clone(),
        };
        let traced = asked.traced;
        if let Some(head) = self.entities.get_mut(&character.entity()).and_then(|served| served.head.as_mut()) {
            head.course = Course::Here;
        }
        turn.disarm(Timer::Forward(character.entity().number()));
        self.queue.push_back(Queued { operation, requester: Requester::Head, traced });
    }

    fn forward_later(&mut self, character: CharacterId, turn: &mut Turn<'_, Submission>) {
        let Some(served) = self.entities.get_mut(&character.entity()) else { return };
        let Some(Head { course: Course::Elsewhere { call, backoff, .. }, .. }) = &mut served.head else { return };
        *call = None;
        if backoff.failures() >= FORWARD_ATTEMPTS {
            // What became of it is unknown here. The client sends it again, and its result, if there is one, is stored.
            served.head = None;
            return self.begin_next(character, turn);
        }
        let wait = backoff.fail(self.config.knobs.retry, turn.entropy());
        turn.arm_in(Timer::Forward(character.entity().number()), wait);
    }

    /// A target's owner was found: bring it everything that waits for it.
    pub(super) fn forward_all(&mut self, target: EntityId, turn: &mut Turn<'_, Submission>) {
        let waits = |served: &&Served| served.awaits_target() == Some(target);
        let waiting: Vec<CharacterId> = self.entities.values().filter(waits).filter_map(Served::character).collect();
        for character in waiting {
            self.forward(character, turn);
        }
    }

    /// The answer of a target's owner.
    pub(super) fn on_forwarded(&mut self, op: OpId, outcome: Outcome<Reply>, turn: &mut Turn<'_, Submission>) {
        let Some(forwarding) = self.forwards.remove(&op) else { return };
        self.tell_forwarded(&forwarding, &outcome, turn);
        let character = forwarding.character;
        let Some(served) = self.entities.get(&character.entity()) else { return };
        let Some(Head { asked, course: Course::Elsewhere { target, call, .. }, .. }) = &served.head else { return };
        if *call != Some(op) {
            return;
        }
        let (target, number, authority) = (*target, asked.number, served.authority);
        let verdict = match outcome {
            Outcome::Done(Reply::ApplyEffect(reply)) => wire::verdict_from_reply(&reply),
            // The same effect again, under the same key: if it has happened, its result is stored.
            Outcome::Unknown => None,
            Outcome::Refused(_) | Outcome::Done(_) => None,
        };
        match verdict {
            Some(Verdict::Fenced { entity, .. }) if entity != character.entity() => {
                self.routes.forget(target);
                self.forward_later(character, turn);
            }
            Some(Verdict::Fenced { highest, .. }) => self.fenced_if_held(authority, highest, turn),
            // It stands in the ledger, but this worker may not say so now.
            Some(verdict) if !self.acts(turn.now()) => self.take_in_result(authority, number, verdict),
            Some(verdict) => self.conclude(authority, number, verdict, turn),
            None => {
                self.routes.forget(target);
                self.forward_later(character, turn);
            }
        }
    }

    /// The owner of an attacker brings an effect.
    pub(super) fn on_apply_effect(
        &mut self,
        call: CallId,
        request: ApplyEffectRequest,
        turn: &mut Turn<'_, Submission>,
    ) {
        if self.phase != Phase::Active || !self.acts(turn.now()) {
            return refuse(call, Refusal::NotServing, turn);
        }
        let Some(operation) = operation_from_request(&request) else { return refuse(call, Refusal::Malformed, turn) };
        let target = match operation.effect {
            Effect::Attack { target, .. } => self.entities.get(&target),
            Effect::Refuse(_) => None,
        };
        let Some(target) = target else {
            let reply = ApplyEffectReply { status: ApplyEffectStatus::NotOwner.into(), ..Default::default() };
            return wire::reply(call, Reply::ApplyEffect(reply), turn);
        };
        let mut operation = operation;
        operation.authority.push(target.authority);
        let same = |queued: &&mut Queued| {
            queued.operation.character == operation.character && queued.operation.number == operation.number
        };
        if let Some(queued) = self.queue.iter_mut().find(same) {
            let (waiting, asked) = (queued.operation.authority[0], operation.authority[0]);
            let (Requester::Call(older), true) = (queued.requester, asked.epoch >= waiting.epoch) else {
                // What waits is of a later owner of the attacker, which may be this worker itself: a call that was overtaken
                // must not take its place. Nor may it hear that nothing happens, for the same operation is under way.
                return answer_unknown(call, turn);
            };
            // A resend of what still waits: what is asked now is what counts.
            let traced = Traced::new(request.span, turn.now());
            *queued = Queued { operation, requester: Requester::Call(call), traced };
            return answer_unknown(older, turn);
        }
        if self.queue.len() >= limits::WORKER_QUEUE {
            return refuse(call, Refusal::Busy, turn);
        }
        let traced = Traced::new(request.span, turn.now());
        self.queue.push_back(Queued { operation, requester: Requester::Call(call), traced });
    }

    /// The ledger's verdict on the operation that a character's player waits for.
    pub(super) fn conclude(
        &mut self,
        authority: Authority,
        number: OpNumber,
        verdict: Verdict,
        turn: &mut Turn<'_, Submission>,
    ) {
        let Some(served) = self.entities.get_mut(&authority.entity) else { return };
        if served.authority != authority {
            // It was decided under a holding that is over. The old owner stays silent.
            return;
        }
        let Some(Head { asked, effect, .. }) = served.head.take_if(|head| head.asked.number == number) else { return };
        match verdict {
            Verdict::Applied(result) | Verdict::Stored(result) => {
                served.store(number, asked.digest, result);
                send_result(authority, &asked, result, turn);
            }
            Verdict::Conflict => {
                reached!(turn, "worker.digest-conflict");
                served.applied_through = served.applied_through.max(number);
                answer_all(&asked, PerformStatus::Conflict, None, turn);
            }
            Verdict::Forgotten => {
                served.applied_through = served.applied_through.max(number);
                answer_all(&asked, PerformStatus::Forgotten, None, turn);
            }
            // Whoever waits for it by now is the newest session: it was submitted for the one before, and so nothing of it
            // has happened.
            Verdict::StaleSession { current } if asked.generation == current => {
                return self.execute(asked, effect, authority, turn);
            }
            Verdict::StaleSession { current } => {
                reached!(turn, "worker.stale-session-refused");
                served.heard_of(current);
                answer_all(&asked, PerformStatus::Superseded, None, turn);
            }
            Verdict::Gap { expected } => {
                // Another owner has gone on with this character's numbers, or has not come so far: the fence will tell.
                served.applied_through = OpNumber(expected.0.saturating_sub(1));
                answer_all(&asked, PerformStatus::Gap, None, turn);
                for behind in core::mem::take(&mut served.behind) {
                    answer_all(&behind, PerformStatus::Gap, None, turn);
                }
            }
            // The fence is no answer to a client. The character's own has been dropped by now, and its new owner answers the
            // resend; a target that was lost has another owner.
            Verdict::Fenced { .. } => return self.execute(asked, effect, authority, turn),
        }
        if let Some(character) = CharacterId::from_entity(authority.entity) {
            self.begin_next(character, turn);
        }
    }
}

/// Reads an action and lets the rules decide on it; what is spent is spent here.
fn decide(
    served: &mut Served,
    map: &crate::rules::space::Map,
    asked: &Asked,
    turn: &mut Turn<'_, Submission>,
) -> Result<Effect, RuleRefusal> {
    let target = wire::attack_target(&asked.action)?;
    let now = turn.unix_now();
    // Another owner's clock, or this one's before it was set back, is no reason to rest for longer than a blow costs.
    served.cooldown_end = served.cooldown_end.min(now + attack::COOLDOWN);
    attack::may_strike(served.position, served.cooldown_end, map.boss(target), now)?;
    served.cooldown_end = now + attack::COOLDOWN;
    Ok(Effect::Attack { target, blow: attack::roll(turn.entropy()) })
}

/// Answers a number that has a result already.
fn answer_stored(served: &Served, call: CallId, number: OpNumber, digest: Digest, turn: &mut Turn<'_, Submission>) {
    match served.stored(number) {
        None => answer(call, PerformStatus::Forgotten, None, turn),
        Some(stored) if stored.digest != digest => {
            reached!(turn, "worker.digest-conflict");
            answer(call, PerformStatus::Conflict, None, turn);
        }
        Some(stored) => {
            reached!(turn, "worker.stored-result-returned");
            let (generation, traced) = (served.generation, Traced::default());
            let asked = Asked { number, generation, digest, action: Vec::new(), calls: vec![call], traced };
            send_result(served.authority, &asked, stored.result, turn);
        }
    }
}

fn send_result(authority: Authority, asked: &Asked, result: OpResult, turn: &mut Turn<'_, Submission>) {
    let &Asked { number, generation, digest, .. } = asked;
    turn.note(Note::AnswerSent { authority, generation, number, digest, result });
    answer_all(asked, PerformStatus::Stored, Some(result), turn);
}

/// One more call waits for an operation that is under way. Who called before does not hear that it is refused, for it happens:
/// a session that has ended hears that; of one session's calls the oldest is let go without an answer that says anything.
fn wait_too(known: &mut Asked, call: CallId, generation: Generation, turn: &mut Turn<'_, Submission>) {
    if generation > known.generation {
        answer_all(known, PerformStatus::Superseded, None, turn);
        known.generation = generation;
        known.calls.clear();
    }
    if known.calls.len() >= CALLS_PER_OPERATION {
        answer_unknown(known.calls.remove(0), turn);
    }
    known.calls.push(call);
}

/// Answers everybody who waits for an operation.
fn answer_all(asked: &Asked, status: PerformStatus, result: Option<OpResult>, turn: &mut Turn<'_, Submission>) {
    for &call in &asked.calls {
        answer(call, status, result, turn);
    }
}

fn answer(call: CallId, status: PerformStatus, result: Option<OpResult>, turn: &mut Turn<'_, Submission>) {
    let reply = PerformReply { status: status.into(), result: result.map(wire::result_to_wire) };
    wire::reply(call, Reply::Perform(reply), turn);
}

pub(super) fn refuse(call: CallId, refusal: Refusal, turn: &mut Turn<'_, Submission>) {
    turn.submit(network::Submission::Reply { call, outcome: Box::new(Outcome::Refused(refusal)) });
}

/// Lets a call go whose operation may happen, or may have happened.
fn answer_unknown(call: CallId, turn: &mut Turn<'_, Submission>) {
    turn.submit(network::Submission::Reply { call, outcome: Box::new(Outcome::Unknown) });
}

fn effect_request(
    character: CharacterId,
    asked: &Asked,
    authority: Authority,
    target: EntityId,
    blow: Blow,
) -> ApplyEffectRequest {
    ApplyEffectRequest {
        character: character.entity().get(),
        generation: asked.generation.0,
        number: asked.number.0,
        digest: asked.digest.0.to_vec(),
        epoch: authority.epoch.0,
        lease: authority.lease.get(),
        target: target.get(),
        damage: blow.damage,
        experience: blow.experience,
        bounty: blow.bounty,
        span: 0,
    }
}

/// The operation that a forwarded effect asks for, with the attacker's authority alone. `None` where a field is none.
fn operation_from_request(request: &ApplyEffectRequest) -> Option<Operation> {
    let character = CharacterId::from_entity(EntityId::from_raw(request.character)?)?;
    let lease = LeaseId::from_bits(request.lease);
    let authority = Authority { entity: character.entity(), epoch: Epoch(request.epoch), lease };
    let blow = Blow { damage: request.damage, experience: request.experience, bounty: request.bounty };
    Some(Operation {
        character,
        generation: Generation(request.generation),
        number: OpNumber(request.number),
        digest: Digest(request.digest.as_slice().try_into().ok()?),
        authority: vec![authority],
        effect: Effect::Attack { target: EntityId::from_raw(request.target)?, blow },
    })
}
