//! One entity as its owner holds it.

use super::telemetry::Traced;
use crate::{
    backoff::Backoff,
    doors::ledger::{Authority, Checkpointed, Durable, Effect, OpResult, StoredResult},
    limits,
    rules::{movement::SpeedBudget, space::Position},
    time::{Instant, UnixTime},
};
use alloc::{collections::VecDeque, vec::Vec};
use worldline_proto::{
    CallId, CharacterId, ConnectionId, Digest, EntityId, Generation, Nonce, OpId, OpNumber, Revision, Version,
};

/// An entity that this worker owns.
#[derive(Clone, Debug)]
pub struct Served {
    /// By what right.
    pub(super) authority: Authority,
    /// The revision of its ownership record.
    pub(super) revision: Revision,
    /// The nonce in it.
    pub(super) nonce: Nonce,
    /// Raised with every state that leaves and every checkpoint.
    pub(super) version: Version,
    pub(super) position: Position,
    pub(super) cooldown_end: UnixTime,
    pub(super) hit_points: u32,
    pub(super) generation: Generation,
    pub(super) applied_through: OpNumber,
    pub(super) results: VecDeque<StoredResult>,
    pub(super) checkpoint_due: Instant,
    pub(super) speed: SpeedBudget,
    /// The last movement input of this session that was looked at.
    pub(super) sequence: u32,
    /// Inputs up to here were passed on before its session came here: another owner may have taken them in.
    pub(super) inputs_through: u32,
    /// Where its player is.
    pub(super) gateway: Option<ConnectionId>,
    /// The cache knows where it is until then.
    pub(super) placed_until: Instant,
    /// Whether its state has changed since it last left.
    pub(super) stale: bool,
    /// When its state leaves again though nothing has changed.
    pub(super) told_again: Instant,
    /// The operation that is being executed: the one after `applied_through`.
    pub(super) head: Option<Head>,
    /// Operations behind it, in the order of their numbers.
    pub(super) behind: VecDeque<Asked>,
}

/// An operation as a gateway brought it.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub number: OpNumber,
    pub generation: Generation,
    pub digest: Digest,
    pub action: Vec<u8>,
    /// The calls that wait for its answer, oldest first.
    pub calls: Vec<CallId>,
    /// For whoever traces.
    pub traced: Traced,
}

/// The operation that is being executed.
#[derive(Clone, Debug)]
pub(super) struct Head {
    pub asked: Asked,
    pub effect: Effect,
    pub course: Course,
}

/// Where an operation is executed.
#[derive(Clone, Debug)]
pub(super) enum Course {
    /// In a batch of this worker.
    Here,
    /// At the target's owner. `call` is the attempt under way.
    Elsewhere { target: EntityId, call: Option<OpId>, backoff: Backoff },
}

impl Served {
    /// What the ledger gave with the claim.
    pub(super) fn new(
        authority: Authority,
        revision: Revision,
        nonce: Nonce,
        durable: &Durable,
        spawn: Position,
        now: Instant,
    ) -> Self {
        let kept = durable.checkpoint.map(|(_, _, state)| state);
        Self {
            authority,
            revision,
            nonce,
            version: Version(0),
            position: kept.map_or(spawn, |state| state.position),
            cooldown_end: kept.map_or(UnixTime::default(), |state| state.cooldown_end),
            hit_points: durable.hit_points,
            generation: durable.generation,
            applied_through: durable.applied_through,
            results: durable.results.iter().copied().collect(),
            checkpoint_due: now,
            speed: SpeedBudget::full(now),
            sequence: 0,
            inputs_through: 0,
            gateway: None,
            placed_until: now,
            stale: false,
            told_again: now,
            head: None,
            behind: VecDeque::new(),
        }
    }

    /// By what right it is held.
    #[must_use]
    pub const fn authority(&self) -> Authority {
        self.authority
    }

    /// Where it stands.
    #[must_use]
    pub const fn position(&self) -> Position {
        self.position
    }

    /// The character that it is, if it is one.
    #[must_use]
    pub fn character(&self) -> Option<CharacterId> {
        CharacterId::from_entity(self.authority.entity)
    }

    /// Operations that wait for their turn.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.behind.len()
    }

    pub(super) fn checkpointed(&self) -> Checkpointed {
        Checkpointed { position: self.position, cooldown_end: self.cooldown_end }
    }

    pub(super) fn next_version(&mut self) -> Version {
        self.version = self.version.next();
        self.version
    }

    pub(super) fn stored(&self, number: OpNumber) -> Option<&StoredResult> {
        self.results.iter().find(|stored| stored.number == number)
    }

    /// It has heard of a session, from whomever: a newer one numbers its movements anew.
    pub(super) fn heard_of(&mut self, generation: Generation) {
        if generation > self.generation {
            self.generation = generation;
            (self.sequence, self.inputs_through) = (0, 0);
        }
    }

    /// Takes in a result that now stands in the ledger.
    pub(super) fn store(&mut self, number: OpNumber, digest: Digest, result: OpResult) {
        self.applied_through = self.applied_through.max(number);
        self.results.push_back(StoredResult { number, digest, result });
        if self.results.len() > limits::RESULTS_KEPT {
            self.results.pop_front();
        }
    }

    /// The target whose owner elsewhere its head must still be brought to. `None` while an attempt is under way.
    pub(super) fn awaits_target(&self) -> Option<EntityId> {
        match self.head.as_ref()?.course {
            Course::Elsewhere { target, call: None, .. } => Some(target),
            Course::Elsewhere { .. } | Course::Here => None,
        }
    }
}
