//! What callers of a ledger do. A deed is drawn without knowing what stands: what is `Right` is looked up when it is asked, in
//! one of the states that the ledger can be in, so that calls of one round meet each other.

use super::{
    Moment,
    model::{Born, Rows},
};
use crate::service::{CALLERS, Fault, Mishap};
use proptest::prelude::*;
use worldline_proto::{
    CharacterId, Digest, EntityId, EntityKind, Epoch, FactSequence, Generation, LeaseId, Nonce, OpNumber, Version,
};
use worldline_system::{
    doors::{
        directory::RegionId,
        ledger::{Authority, Batch, Checkpoint, Checkpointed, Effect, Operation, RuleRefusal, Submission},
    },
    limits,
    rules::{attack::Blow, space::Position},
    time::{Duration, UnixTime},
};

/// Few enough that everything meets everything. The last of each kind does not exist.
const CHARACTERS: u64 = 3;
const BOSSES: u64 = 2;

/// A step of a case.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// By whom, all at once.
    Ask(Vec<(usize, Deed)>),
    /// What was asked in the round before is asked again, with another payload where it says so.
    Again { other: bool },
    /// A fault, some operations of one character in it, and its end.
    Fault(Mishap, u64),
    /// The connection under a commit of this character breaks.
    Break(Moment, u64),
    /// The server refuses writes for a while, also of this character.
    ReadOnly(u64),
    /// More is asked than there are connections, while none is answered.
    Exhaust(u64),
}

/// A submission.
#[derive(Clone, Debug)]
pub(super) enum Deed {
    Login {
        who: u64,
        nonce: u64,
        /// When its token was issued.
        issued: u64,
    },
    Claim {
        lease: u64,
        entities: Vec<(EntityId, Wanted)>,
    },
    Commit {
        blows: Vec<Strike>,
        checkpoints: Vec<(Right, Version, Checkpointed)>,
        flags: Vec<(EntityId, FactSequence)>,
    },
    /// So many operations as push the oldest results out.
    Burst {
        who: u64,
    },
    /// What needs nothing of what stands.
    Plain(Submission),
}

/// An epoch to claim.
#[derive(Clone, Copy, Debug)]
pub(super) enum Wanted {
    Next,
    Same,
    Exactly(u64),
}

/// A right over an entity: the one that stands, or any.
#[derive(Clone, Copy, Debug)]
pub(super) struct Right(EntityId, Option<(u64, u64)>);

/// An operation.
#[derive(Clone, Debug)]
pub(super) struct Strike {
    who: u64,
    /// The session as it stands, or any.
    generation: Option<u64>,
    /// So far from the next number, or any.
    number: Result<i64, u64>,
    digest: u8,
    /// Beside character and target: what else it claims, or what instead of them.
    rights: Result<Vec<Right>, Vec<Right>>,
    effect: Effect,
}

fn character(n: u64) -> CharacterId {
    CharacterId::new(n).expect("a small number")
}

fn boss(n: u64) -> EntityId {
    EntityId::new(EntityKind::Boss, n).expect("a small number")
}

/// The world of every case.
#[must_use]
pub fn world() -> Vec<Born> {
    let born = |entity, pinned, hit_points, balance, x_mm| {
        let position = Position { x_mm, y_mm: 7 };
        Born { entity, position, pinned, hit_points, balance }
    };
    let characters = (1..CHARACTERS).map(|n| born(character(n).entity(), None, 50, i64::MAX / 2 - 20, -5));
    let bosses = (1..BOSSES).map(|n| born(boss(n), Some(RegionId(2)), 300, 100, 5));
    characters.chain(bosses).collect()
}

/// Everybody who exists.
pub(super) fn everybody() -> Vec<EntityId> {
    world().into_iter().map(|born| born.entity).collect()
}

fn any_number() -> impl Strategy<Value = u64> + Clone {
    prop_oneof![6 => 0..5_u64, 1 => Just(i64::MAX as u64), 1 => 0..=i64::MAX as u64]
}

fn amount() -> impl Strategy<Value = i64> + Clone {
    prop_oneof![6 => -3..40_i64, 1 => Just(i64::MAX), 1 => Just(i64::MIN), 1 => any::<i64>()]
}

fn who() -> impl Strategy<Value = u64> {
    prop_oneof![12 => 1..CHARACTERS, 1 => Just(CHARACTERS)]
}

fn entity() -> impl Strategy<Value = EntityId> {
    prop_oneof![4 => who().prop_map(|n| character(n).entity()), 4 => Just(boss(1)), 1 => Just(boss(BOSSES))]
}

fn lease() -> impl Strategy<Value = u64> {
    prop_oneof![8 => 1..3_u64, 1 => Just(i64::MAX as u64)]
}

fn right() -> impl Strategy<Value = Right> {
    let any = prop_oneof![5 => Just(None), 1 => (any_number(), lease()).prop_map(Some)];
    (entity(), any).prop_map(|(entity, any)| Right(entity, any))
}

fn effect() -> impl Strategy<Value = Effect> {
    use RuleRefusal::{Cooldown, Malformed, NoSuchTarget, OutOfRange, TargetDead};
    let damage = prop_oneof![8 => 0..60_u32, 1 => Just(u32::MAX)];
    let blow =
        (damage, amount(), amount()).prop_map(|(damage, experience, bounty)| Blow { damage, experience, bounty });
    let refusal = prop::sample::select(vec![Cooldown, Malformed, NoSuchTarget, OutOfRange, TargetDead]);
    prop_oneof![
        6 => (Just(boss(1)), blow.clone()).prop_map(|(target, blow)| Effect::Attack { target, blow }),
        3 => (entity(), blow).prop_map(|(target, blow)| Effect::Attack { target, blow }),
        1 => refusal.prop_map(Effect::Refuse),
    ]
}

fn strike() -> impl Strategy<Value = Strike> {
    let generation = prop_oneof![12 => Just(None), 1 => any_number().prop_map(Some)];
    let number = prop_oneof![10 => Just(Ok(0)), 3 => (-5..3_i64).prop_map(Ok), 1 => any_number().prop_map(Err)];
    let rights = prop_oneof![
        8 => prop::collection::vec(right(), 0..2).prop_map(Ok),
        1 => prop::collection::vec(right(), 0..3).prop_map(Err),
    ];
    (who(), generation, number, 0..3_u8, rights, effect()).prop_map(
        |(who, generation, number, digest, rights, effect)| Strike { who, generation, number, digest, rights, effect },
    )
}

fn checkpoint() -> impl Strategy<Value = (Right, Version, Checkpointed)> {
    let place = || prop_oneof![-1000..1000_i64, -64_000_000..64_000_000_i64];
    (right(), any_number(), place(), place(), any_number()).prop_map(|(right, version, x_mm, y_mm, end)| {
        let cooldown_end = UnixTime::from_nanos(end);
        (right, Version(version), Checkpointed { position: Position { x_mm, y_mm }, cooldown_end })
    })
}

/// A fact that may be there.
fn fact() -> impl Strategy<Value = (EntityId, FactSequence)> {
    let whose = prop_oneof![5 => Just(boss(1)), 1 => entity()];
    let sequence = prop_oneof![8 => 0..12_u64, 1 => any_number()];
    (whose, sequence.prop_map(FactSequence))
}

fn plain() -> impl Strategy<Value = Submission> {
    let limit = || prop_oneof![6 => 0..6_u16, 2 => Just(limits::FACTS_PAGE), 1 => Just(limits::FACTS_PAGE + 1)];
    let age = prop_oneof![4 => Just(Duration::ZERO), 1 => Just(Duration::from_secs(3_600))];
    prop_oneof![
        2 => (fact(), limit()).prop_map(|((aggregate, after), limit)| Submission::Facts { aggregate, after, limit }),
        2 => (age, limit()).prop_map(|(older_than, limit)| Submission::Unpublished { older_than, limit }),
        2 => prop::collection::vec(fact(), 0..5).prop_map(Submission::Flag),
        3 => prop::collection::vec(entity(), 0..5).prop_map(|entities| Submission::Snapshot { entities }),
        1 => (prop::option::of(entity()), limit()).prop_map(|(after, limit)| Submission::Roster { after, limit }),
        1 => (who(), 0..4_u64).prop_map(|(who, moment)| Submission::Revoke {
            character: character(who),
            valid_from_unix_ms: moment,
        }),
        1 => prop::collection::vec(who().prop_map(character), 0..4).prop_map(|characters| Submission::Standing { characters }),
    ]
}

fn deed() -> impl Strategy<Value = Deed> {
    let wanted =
        prop_oneof![4 => Just(Wanted::Next), 2 => Just(Wanted::Same), 2 => any_number().prop_map(Wanted::Exactly)];
    let commit = (
        prop::collection::vec(strike(), 0..5),
        prop::collection::vec(checkpoint(), 0..3),
        prop::collection::vec(fact(), 0..3),
    );
    prop_oneof![
        2 => (who(), any_number(), 0..4_u64).prop_map(|(who, nonce, issued)| Deed::Login { who, nonce, issued }),
        2 => (lease(), prop::collection::vec((entity(), wanted), 0..4))
            .prop_map(|(lease, entities)| Deed::Claim { lease, entities }),
        9 => commit.prop_map(|(blows, checkpoints, flags)| Deed::Commit { blows, checkpoints, flags }),
        4 => plain().prop_map(Deed::Plain),
    ]
}

fn round() -> impl Strategy<Value = Step> {
    prop::collection::vec((0..CALLERS, deed()), 1..5).prop_map(Step::Ask)
}

/// Beginnings differ: with owners and a session most things pass.
fn beginning() -> impl Strategy<Value = Vec<Step>> {
    let entities = [character(1).entity(), character(2).entity(), boss(1)].map(|id| (id, Wanted::Next)).to_vec();
    let owned = vec![
        Step::Ask(vec![(0, Deed::Claim { lease: 1, entities })]),
        Step::Ask(vec![
            (0, Deed::Login { who: 1, nonce: 1, issued: 3 }),
            (1, Deed::Login { who: 2, nonce: 1, issued: 3 }),
        ]),
    ];
    prop_oneof![8 => Just(owned), 1 => Just(vec![])]
}

pub(super) fn steps(count: usize) -> impl Strategy<Value = Vec<Step>> {
    let burst = (0..CALLERS, 1..CHARACTERS).prop_map(|(caller, who)| Step::Ask(vec![(caller, Deed::Burst { who })]));
    let step = prop_oneof![
        14 => round(),
        3 => prop::bool::weighted(0.3).prop_map(|other| Step::Again { other }),
        1 => burst,
    ];
    (beginning(), prop::collection::vec(step, 1..count)).prop_map(|(beginning, steps)| [beginning, steps].concat())
}

pub(super) fn weather(count: usize, faults: &'static [Fault]) -> impl Strategy<Value = Vec<Step>> {
    let mishap = Mishap::any(faults);
    let moment = prop::sample::select(vec![Moment::Before, Moment::During, Moment::After]);
    let step = prop_oneof![
        9 => round(),
        6 => (mishap, 1..CHARACTERS).prop_map(|(mishap, who)| Step::Fault(mishap, who)),
        3 => (moment, 1..CHARACTERS).prop_map(|(moment, who)| Step::Break(moment, who)),
        1 => (1..CHARACTERS).prop_map(Step::ReadOnly),
        1 => (1..CHARACTERS).prop_map(Step::Exhaust),
    ];
    (beginning(), prop::collection::vec(step, 1..count)).prop_map(|(beginning, steps)| [beginning, steps].concat())
}

fn authority(rows: &Rows, right: Right) -> Authority {
    let fence = rows.row(right.0).and_then(|row| row.fence);
    let stands = fence.unwrap_or((Epoch(0), LeaseId::from_bits(1)));
    let (epoch, lease) = right.1.map_or(stands, |(epoch, lease)| (Epoch(epoch), LeaseId::from_bits(lease)));
    Authority { entity: right.0, epoch, lease }
}

fn operation(rows: &Rows, next: &mut [u64; CHARACTERS as usize + 1], strike: &Strike) -> Operation {
    let Strike { who, generation, number, digest, rights, effect } = strike;
    let hero = character(*who);
    let row = rows.row(hero.entity());
    let expected = &mut next[*who as usize];
    let number = number.map_or_else(|exactly| exactly, |distance| expected.saturating_add_signed(distance));
    if number == *expected {
        *expected += 1;
    }
    let target = match effect {
        Effect::Attack { target, .. } => Some(*target),
        Effect::Refuse(_) => None,
    };
    let written = [Some(hero.entity()), target].into_iter().flatten().map(|entity| Right(entity, None));
    let rights: Vec<Right> = match rights {
        Ok(more) => written.chain(more.iter().copied()).collect(),
        Err(instead) => instead.clone(),
    };
    Operation {
        character: hero,
        generation: generation.map_or(row.map_or(Generation(0), |row| row.generation), Generation),
        number: OpNumber(number),
        digest: Digest([*digest; 16]),
        authority: rights.into_iter().map(|right| authority(rows, right)).collect(),
        effect: effect.clone(),
    }
}

/// A blow of one character at the boss, as it would be right now.
pub(super) fn blow(rows: &Rows, who: u64) -> Submission {
    let effect = Effect::Attack { target: boss(1), blow: Blow { damage: 1, experience: 1, bounty: 1 } };
    let strike = Strike { who, generation: None, number: Ok(0), digest: 1, rights: Ok(vec![]), effect };
    commit(rows, &[strike], &[], &[])
}

fn commit(
    rows: &Rows,
    blows: &[Strike],
    checkpoints: &[(Right, Version, Checkpointed)],
    flags: &[(EntityId, FactSequence)],
) -> Submission {
    let mut next = std::array::from_fn(|n| {
        let row = CharacterId::new(n as u64).and_then(|who| rows.row(who.entity()));
        row.map_or(0, |row| row.applied_through().0) + 1
    });
    let operations = blows.iter().map(|strike| operation(rows, &mut next, strike)).collect();
    let kept = |&(right, version, state)| Checkpoint { authority: authority(rows, right), version, state };
    let checkpoints = checkpoints.iter().map(kept).collect();
    Submission::Commit(Batch { operations, checkpoints, published: flags.to_vec() }.into())
}

/// What a deed is where the ledger stands like this.
pub(super) fn submission(rows: &Rows, deed: &Deed) -> Submission {
    match deed {
        &Deed::Login { who, nonce, issued } => {
            Submission::Login { character: character(who), nonce: Nonce(nonce), issued_unix_ms: issued }
        }
        Deed::Claim { lease, entities } => {
            let entities = entities.iter().map(|&(entity, wanted)| {
                let stands = rows.row(entity).and_then(|row| row.fence).map_or(0, |fence| fence.0.0);
                let epoch = match wanted {
                    Wanted::Next => stands.saturating_add(1).min(i64::MAX as u64),
                    Wanted::Same => stands,
                    Wanted::Exactly(epoch) => epoch,
                };
                (entity, Epoch(epoch))
            });
            Submission::Claim { lease: LeaseId::from_bits(*lease), entities: entities.collect() }
        }
        Deed::Commit { blows, checkpoints, flags } => commit(rows, blows, checkpoints, flags),
        &Deed::Burst { who } => {
            let effect = Effect::Attack { target: boss(1), blow: Blow { damage: 0, experience: 1, bounty: 0 } };
            let strike = Strike { who, generation: None, number: Ok(0), digest: 1, rights: Ok(vec![]), effect };
            commit(rows, &vec![strike; limits::RESULTS_KEPT + 3], &[], &[])
        }
        Deed::Plain(submission) => submission.clone(),
    }
}

/// The same keys with another payload.
pub(super) fn with_another_payload(submission: &Submission) -> Submission {
    match submission {
        Submission::Commit(batch) => {
            let mut batch = Batch::clone(batch);
            batch.operations.iter_mut().for_each(|operation| operation.digest = Digest([9; 16]));
            Submission::Commit(batch.into())
        }
        other => other.clone(),
    }
}
