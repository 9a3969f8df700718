//! Between the wire's messages and the roles' own types. A value of the wire that names nothing becomes `None` here, once.

use crate::{
    Outcome, Turn,
    doors::{
        self,
        ledger::{OpResult, RuleRefusal, Verdict},
        network,
    },
};
use alloc::{boxed::Box, vec::Vec};
use prost::Message as _;
use worldline_proto::{
    CallId, EntityId, Epoch, Generation, OpNumber,
    client::{self, Action, Attack, DeniedReason, Hit, OperationResult, action, operation_result},
    server::{ApplyEffectReply, ApplyEffectStatus, Reply},
};

/// The version of the protocol between client and gateway.
pub const PROTOCOL: u32 = 1;

/// Whether a player of whom this is said need not come back with the token that it has, wherever it turns.
#[must_use]
pub const fn bars(reason: DeniedReason) -> bool {
    matches!(reason, DeniedReason::TokenRevoked | DeniedReason::Misbehaved)
}

/// Answers a call with a reply.
pub fn reply<S>(call: CallId, reply: Reply, turn: &mut Turn<'_, S>)
where
    S: Into<doors::Submission> + From<network::Submission>,
{
    turn.submit(network::Submission::Reply { call, outcome: Box::new(Outcome::Done(reply)) });
}

/// An attack as a client encodes it.
#[must_use]
pub fn encode_attack(target: EntityId) -> Vec<u8> {
    Action { action: Some(action::Action::Attack(Attack { target: target.get() })) }.encode_to_vec()
}

/// The target of an encoded action.
///
/// # Errors
/// [`RuleRefusal::Malformed`] for what does not decode, [`RuleRefusal::NoSuchTarget`] for an id that names nothing.
pub fn attack_target(action: &[u8]) -> Result<EntityId, RuleRefusal> {
    let action = Action::decode(action).map_err(|_| RuleRefusal::Malformed)?;
    let Some(action::Action::Attack(Attack { target })) = action.action else { return Err(RuleRefusal::Malformed) };
    EntityId::from_raw(target).ok_or(RuleRefusal::NoSuchTarget)
}

/// A stored result, for the wire.
#[must_use]
pub fn result_to_wire(result: OpResult) -> OperationResult {
    let result = match result {
        OpResult::Hit { target, dealt, remaining, experience, bounty } => {
            operation_result::Result::Hit(Hit { target: target.get(), dealt, remaining, experience, bounty })
        }
        OpResult::Refused(refusal) => operation_result::Result::Refused(
            match refusal {
                RuleRefusal::Cooldown => client::RuleRefusal::Cooldown,
                RuleRefusal::OutOfRange => client::RuleRefusal::OutOfRange,
                RuleRefusal::NoSuchTarget => client::RuleRefusal::NoSuchTarget,
                RuleRefusal::TargetDead => client::RuleRefusal::TargetDead,
                RuleRefusal::Malformed => client::RuleRefusal::Malformed,
            }
            .into(),
        ),
    };
    OperationResult { result: Some(result) }
}

/// A stored result from the wire.
#[must_use]
pub fn result_from_wire(result: &OperationResult) -> Option<OpResult> {
    Some(match result.result.as_ref()? {
        operation_result::Result::Hit(hit) => OpResult::Hit {
            target: EntityId::from_raw(hit.target)?,
            dealt: hit.dealt,
            remaining: hit.remaining,
            experience: hit.experience,
            bounty: hit.bounty,
        },
        operation_result::Result::Refused(refusal) => {
            OpResult::Refused(match client::RuleRefusal::try_from(*refusal) {
                Ok(client::RuleRefusal::Cooldown) => RuleRefusal::Cooldown,
                Ok(client::RuleRefusal::OutOfRange) => RuleRefusal::OutOfRange,
                Ok(client::RuleRefusal::NoSuchTarget) => RuleRefusal::NoSuchTarget,
                Ok(client::RuleRefusal::TargetDead) => RuleRefusal::TargetDead,
                Ok(client::RuleRefusal::Malformed) => RuleRefusal::Malformed,
                Ok(client::RuleRefusal::Unspecified) | Err(_) => return None,
            })
        }
        operation_result::Result::Conflict(_) => return None,
    })
}

/// The ledger's verdict on a forwarded effect, for the attacker's owner.
#[must_use]
pub fn verdict_to_reply(verdict: Verdict) -> ApplyEffectReply {
    let mut reply = ApplyEffectReply::default();
    let status = match verdict {
        Verdict::Applied(result) => {
            reply.result = Some(result_to_wire(result));
            ApplyEffectStatus::Applied
        }
        Verdict::Stored(result) => {
            reply.result = Some(result_to_wire(result));
            ApplyEffectStatus::Stored
        }
        Verdict::Conflict => ApplyEffectStatus::Conflict,
        Verdict::Forgotten => ApplyEffectStatus::Forgotten,
        Verdict::Gap { expected } => {
            reply.highest = expected.0;
            ApplyEffectStatus::Gap
        }
        Verdict::StaleSession { current } => {
            reply.highest = current.0;
            ApplyEffectStatus::Superseded
        }
        Verdict::Fenced { entity, highest } => {
            reply.entity = entity.get();
            reply.highest = highest.0;
            ApplyEffectStatus::Fenced
        }
    };
    reply.status = status.into();
    reply
}

/// The verdict that a target's owner sends back. `None` where it is not the owner, or says nothing that can be read.
#[must_use]
pub fn verdict_from_reply(reply: &ApplyEffectReply) -> Option<Verdict> {
    let result = || result_from_wire(reply.result.as_ref()?);
    Some(match ApplyEffectStatus::try_from(reply.status).ok()? {
        ApplyEffectStatus::Applied => Verdict::Applied(result()?),
        ApplyEffectStatus::Stored => Verdict::Stored(result()?),
        ApplyEffectStatus::Conflict => Verdict::Conflict,
        ApplyEffectStatus::Forgotten => Verdict::Forgotten,
        ApplyEffectStatus::Gap => Verdict::Gap { expected: OpNumber(reply.highest) },
        ApplyEffectStatus::Superseded => Verdict::StaleSession { current: Generation(reply.highest) },
        ApplyEffectStatus::Fenced => {
            Verdict::Fenced { entity: EntityId::from_raw(reply.entity)?, highest: Epoch(reply.highest) }
        }
        ApplyEffectStatus::NotOwner | ApplyEffectStatus::Unspecified => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use worldline_proto::EntityKind;

    #[test]
    fn every_verdict_survives_the_wire() {
        let boss = EntityId::new(EntityKind::Boss, 1).expect("in range");
        let hit = OpResult::Hit { target: boss, dealt: 90, remaining: 10, experience: 45, bounty: 3 };
        let refusals = [
            RuleRefusal::Cooldown,
            RuleRefusal::OutOfRange,
            RuleRefusal::NoSuchTarget,
            RuleRefusal::TargetDead,
            RuleRefusal::Malformed,
        ];
        let verdicts = [
            Verdict::Applied(hit),
            Verdict::Stored(hit),
            Verdict::Conflict,
            Verdict::Forgotten,
            Verdict::Gap { expected: OpNumber(7) },
            Verdict::StaleSession { current: Generation(3) },
            Verdict::Fenced { entity: boss, highest: Epoch(9) },
        ];
        for verdict in verdicts.into_iter().chain(refusals.map(|refusal| Verdict::Stored(OpResult::Refused(refusal)))) {
            assert_eq!(verdict_from_reply(&verdict_to_reply(verdict)), Some(verdict));
        }
        assert_eq!(verdict_from_reply(&ApplyEffectReply::default()), None, "an empty reply says nothing");
    }

    #[test]
    fn an_attack_reads_back_and_garbage_is_refused_by_name() {
        let boss = EntityId::new(EntityKind::Boss, 1).expect("in range");
        assert_eq!(attack_target(&encode_attack(boss)), Ok(boss));
        assert_eq!(attack_target(&[0xff; 9]), Err(RuleRefusal::Malformed));
        assert_eq!(attack_target(&[]), Err(RuleRefusal::Malformed));
    }
}
