//! The ledger's stored functions on PostgreSQL and the simulator's ledger are one: whatever is submitted, both answer the same,
//! journal the same and stand the same.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

use proptest::{
    prelude::*,
    test_runner::{Config as Runs, TestRunner},
};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};
use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
};
use worldline_proto::{
    CharacterId, Digest, EntityId, EntityKind, Epoch, FactSequence, Generation, Incarnation, LeaseId, Nonce, OpId,
    OpNumber, Version,
};
use worldline_real::{
    Inbox, clock,
    ledger::{self, Config, Ledger},
    ready::Readiness,
};
use worldline_sim::ledger::{Database, Seed};
use worldline_system::{
    Outcome,
    doors::{
        Asked,
        directory::RegionId,
        ledger::{
            Answer, Authority, Batch, Checkpoint, Checkpointed, Effect, Operation, RuleRefusal, StoredResult,
            Submission,
        },
    },
    history::{Acceptance, Row},
    rules::{attack::Blow, space::Position},
    time::{Duration, Instant, UnixTime},
};

const CASES: u32 = 64;
const STEPS: usize = 40;
/// Few enough that everything meets everything. The last of each kind does not exist.
const CHARACTERS: u64 = 3;
const BOSSES: u64 = 2;

/// One call, said so that it fits whatever happened before it: what is `Right` is looked up in the model.
#[derive(Clone, Debug)]
enum Step {
    Login {
        who: u64,
        nonce: u64,
        issued_unix_ms: u64,
    },
    Revoke {
        who: u64,
        valid_from_unix_ms: u64,
    },
    Standing {
        who: u64,
    },
    Claim {
        lease: u64,
        entities: Vec<(EntityId, Wanted)>,
    },
    Commit {
        operations: Vec<Deed>,
        checkpoints: Vec<(Right, Version, Checkpointed)>,
        flags: Vec<(EntityId, FactSequence)>,
    },
    /// So many operations of one character as push the oldest results out.
    Burst {
        who: u64,
    },
    Roster {
        after: Option<EntityId>,
        limit: u16,
    },
    /// What needs nothing of what happened before it: the outbox is read or flagged.
    Outbox(Submission),
}

/// An epoch to claim.
#[derive(Clone, Copy, Debug)]
enum Wanted {
    Next,
    Same,
    Exactly(u64),
}

/// A right over an entity: the one that stands, or any.
#[derive(Clone, Copy, Debug)]
struct Right(EntityId, Option<(u64, u64)>);

/// An operation.
#[derive(Clone, Debug)]
struct Deed {
    who: u64,
    /// The session's generation as it stands, or any.
    generation: Option<u64>,
    /// So far from the next number, or any.
    number: Result<i64, u64>,
    digest: u8,
    /// Beside character and target: what else it claims, or what instead of them.
    rights: Result<Vec<Right>, Vec<Right>>,
    effect: Effect,
}

fn character(n: u64) -> CharacterId {
    CharacterId::new(n).unwrap()
}

fn boss(n: u64) -> EntityId {
    EntityId::new(EntityKind::Boss, n).unwrap()
}

fn any_u64() -> impl Strategy<Value = u64> {
    prop_oneof![6 => 0..4_u64, 1 => Just(u64::MAX), 1 => Just(i64::MAX as u64), 1 => any::<u64>()]
}

fn amount() -> impl Strategy<Value = i64> + Clone {
    prop_oneof![6 => -3..40_i64, 1 => Just(i64::MAX), 1 => Just(i64::MIN), 1 => any::<i64>()]
}

fn who() -> impl Strategy<Value = u64> {
    prop_oneof![9 => 1..CHARACTERS, 1 => Just(CHARACTERS)]
}

fn entity() -> impl Strategy<Value = EntityId> {
    prop_oneof![who().prop_map(|n| character(n).entity()), (1..=BOSSES).prop_map(boss)]
}

fn lease() -> impl Strategy<Value = u64> {
    prop_oneof![8 => 1..3_u64, 1 => Just(i64::MAX as u64)]
}

fn right() -> impl Strategy<Value = Right> {
    let any = prop_oneof![4 => Just(None), 1 => (any_u64(), lease()).prop_map(Some)];
    (entity(), any).prop_map(|(entity, any)| Right(entity, any))
}

fn effect() -> impl Strategy<Value = Effect> {
    use RuleRefusal::{Cooldown, Malformed, NoSuchTarget, OutOfRange, TargetDead};
    let damage = prop_oneof![8 => 0..60_u32, 1 => Just(u32::MAX)];
    let blow =
        (damage, amount(), amount()).prop_map(|(damage, experience, bounty)| Blow { damage, experience, bounty });
    let refusal = prop::sample::select(vec![Cooldown, Malformed, NoSuchTarget, OutOfRange, TargetDead]);
    prop_oneof![
        5 => (Just(boss(1)), blow.clone()).prop_map(|(target, blow)| Effect::Attack { target, blow }),
        2 => (entity(), blow).prop_map(|(target, blow)| Effect::Attack { target, blow }),
        1 => refusal.prop_map(Effect::Refuse),
    ]
}

fn deed() -> impl Strategy<Value = Deed> {
    let generation = prop_oneof![9 => Just(None), 1 => any_u64().prop_map(Some)];
    let number = prop_oneof![8 => Just(Ok(0)), 4 => (-5..3_i64).prop_map(Ok), 1 => any_u64().prop_map(Err)];
    let rights = prop_oneof![
        6 => prop::collection::vec(right(), 0..2).prop_map(Ok),
        1 => prop::collection::vec(right(), 0..3).prop_map(Err),
    ];
    (who(), generation, number, 0..3_u8, rights, effect()).prop_map(
        |(who, generation, number, digest, rights, effect)| Deed { who, generation, number, digest, rights, effect },
    )
}

fn checkpoint() -> impl Strategy<Value = (Right, Version, Checkpointed)> {
    let place = || prop_oneof![-1000..1000_i64, any::<i64>()];
    (right(), any_u64(), place(), place(), any_u64()).prop_map(|(right, version, x_mm, y_mm, end)| {
        let cooldown_end = UnixTime::from_nanos(end);
        (right, Version(version), Checkpointed { position: Position { x_mm, y_mm }, cooldown_end })
    })
}

/// A fact that may be there.
fn fact() -> impl Strategy<Value = (EntityId, FactSequence)> {
    let whose = prop_oneof![5 => Just(boss(1)), 1 => entity()];
    let sequence = prop_oneof![8 => 0..12_u64, 1 => any_u64()];
    (whose, sequence.prop_map(FactSequence))
}

fn outbox() -> impl Strategy<Value = Submission> {
    let limit = || prop_oneof![6 => 0..6_u16, 2 => Just(500), 1 => Just(501)];
    let age = prop_oneof![4 => Just(Duration::ZERO), 1 => Just(Duration::from_secs(3_600)),
        1 => Just(Duration::from_nanos(u64::MAX))];
    prop_oneof![
        (fact(), limit()).prop_map(|((aggregate, after), limit)| Submission::Facts { aggregate, after, limit }),
        (age, limit()).prop_map(|(older_than, limit)| Submission::Unpublished { older_than, limit }),
        prop::collection::vec(fact(), 0..5).prop_map(Submission::Flag),
        prop::collection::vec(entity(), 0..5).prop_map(|entities| Submission::Snapshot { entities }),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let wanted =
        prop_oneof![4 => Just(Wanted::Next), 2 => Just(Wanted::Same), 2 => any_u64().prop_map(Wanted::Exactly)];
    prop_oneof![
        2 => (who(), any_u64(), 0..10_u64)
            .prop_map(|(who, nonce, issued_unix_ms)| Step::Login { who, nonce, issued_unix_ms }),
        1 => (who(), prop_oneof![4 => 0..10_u64, 1 => any_u64()])
            .prop_map(|(who, valid_from_unix_ms)| Step::Revoke { who, valid_from_unix_ms }),
        1 => who().prop_map(|who| Step::Standing { who }),
        3 => (lease(), prop::collection::vec((entity(), wanted), 0..4))
            .prop_map(|(lease, entities)| Step::Claim { lease, entities }),
        8 => (
            prop::collection::vec(deed(), 0..6),
            prop::collection::vec(checkpoint(), 0..3),
            prop::collection::vec(fact(), 0..3),
        )
            .prop_map(|(operations, checkpoints, flags)| Step::Commit { operations, checkpoints, flags }),
        4 => outbox().prop_map(Step::Outbox),
        1 => who().prop_map(|who| Step::Burst { who }),
        1 => (prop::option::of(entity()), prop_oneof![0..4_u16, Just(500), Just(501)])
            .prop_map(|(after, limit)| Step::Roster { after, limit }),
    ]
}

/// Beginnings differ: with owners and a session most things pass.
fn steps() -> impl Strategy<Value = Vec<Step>> {
    let owned = vec![
        Step::Claim {
            lease: 1,
            entities: [character(1).entity(), character(2).entity(), boss(1)].map(|id| (id, Wanted::Next)).to_vec(),
        },
        Step::Login { who: 1, nonce: 1, issued_unix_ms: 5 },
        Step::Login { who: 2, nonce: 1, issued_unix_ms: 5 },
    ];
    let beginning = prop_oneof![4 => Just(owned), 1 => Just(vec![])];
    (beginning, prop::collection::vec(step(), 1..STEPS)).prop_map(|(beginning, steps)| [beginning, steps].concat())
}

fn authority(model: &Database, right: Right) -> Authority {
    let fence = model.entity(right.0).and_then(|entity| entity.columns.fence);
    let stands = fence.unwrap_or((Epoch(0), LeaseId::from_bits(1)));
    let (epoch, lease) = right.1.map_or(stands, |(epoch, lease)| (Epoch(epoch), LeaseId::from_bits(lease)));
    Authority { entity: right.0, epoch, lease }
}

fn operation(model: &Database, next: &mut BTreeMap<u64, u64>, deed: &Deed) -> Operation {
    let Deed { who, generation, number, digest, rights, effect } = deed;
    let hero = character(*who);
    let columns = model.entity(hero.entity()).map(|entity| entity.columns);
    let expected = next.entry(*who).or_insert_with(|| columns.map_or(0, |columns| columns.applied_through.0) + 1);
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
        generation: generation.map_or(columns.map_or(Generation(0), |columns| columns.generation), Generation),
        number: OpNumber(number),
        digest: Digest([*digest; 16]),
        authority: rights.into_iter().map(|right| authority(model, right)).collect(),
        effect: effect.clone(),
    }
}

fn submission(model: &Database, step: &Step) -> Submission {
    let commit = |deeds: &[Deed], checkpoints: &[(Right, Version, Checkpointed)], flags: &[_]| {
        let mut next = BTreeMap::new();
        let operations = deeds.iter().map(|deed| operation(model, &mut next, deed)).collect();
        let kept = |&(right, version, state)| Checkpoint { authority: authority(model, right), version, state };
        let checkpoints = checkpoints.iter().map(kept).collect();
        Submission::Commit(Batch { operations, checkpoints, published: flags.to_vec() }.into())
    };
    match step {
        &Step::Login { who, nonce, issued_unix_ms } => {
            Submission::Login { character: character(who), nonce: Nonce(nonce), issued_unix_ms }
        }
        &Step::Revoke { who, valid_from_unix_ms } => {
            Submission::Revoke { character: character(who), valid_from_unix_ms }
        }
        &Step::Standing { who } => Submission::Standing { characters: vec![character(who), character(1)] },
        Step::Claim { lease, entities } => {
            let entities = entities.iter().map(|&(entity, wanted)| {
                let stands = model.entity(entity).and_then(|entity| entity.columns.fence).map_or(0, |fence| fence.0.0);
                let epoch = match wanted {
                    Wanted::Next => stands.saturating_add(1),
                    Wanted::Same => stands,
                    Wanted::Exactly(epoch) => epoch,
                };
                (entity, Epoch(epoch))
            });
            Submission::Claim { lease: LeaseId::from_bits(*lease), entities: entities.collect() }
        }
        Step::Commit { operations, checkpoints, flags } => commit(operations, checkpoints, flags),
        &Step::Burst { who } => {
            let blow = Blow { damage: 0, experience: 1, bounty: 0 };
            let effect = Effect::Attack { target: boss(1), blow };
            let deed = Deed { who, generation: None, number: Ok(0), digest: 1, rights: Ok(vec![]), effect };
            commit(&vec![deed; 67], &[], &[])
        }
        &Step::Roster { after, limit } => Submission::Roster { after, limit },
        Step::Outbox(submission) => submission.clone(),
    }
}

fn seeds() -> Vec<Seed> {
    let seed = |entity, pinned, hit_points, balance, x_mm| Seed {
        entity,
        position: Position { x_mm, y_mm: 7 },
        pinned,
        hit_points,
        balance,
    };
    let characters = (1..CHARACTERS).map(|n| seed(character(n).entity(), None, 50, i64::MAX / 2 - 20, -5));
    let bosses = (1..BOSSES).map(|n| seed(boss(n), Some(RegionId(2)), 300, 100, 5));
    characters.chain(bosses).collect()
}

/// A database of its own, emptied for each case.
struct Real {
    url: String,
    ledger: Ledger,
}

impl Real {
    async fn new() -> Self {
        let any = std::env::var("WORLDLINE_TEST_POSTGRES").expect(
            "WORLDLINE_TEST_POSTGRES is not set: this test needs PostgreSQL 17. Run it by `ci/test`, or first \
             eval \"$(ci/services start --only postgres)\"",
        );
        let (scheme, rest) = any.split_once("://").expect("an address");
        let server = format!("{scheme}://{}", rest.split('/').next().expect("a host"));
        let name = format!("test_model_{}", std::process::id());
        let statements = format!(
            "drop database if exists {name}; create database {name} template template0; \
             alter database {name} set worldline.audit = 'full'"
        );
        for statement in statements.split(';') {
            sql(&format!("{server}/postgres"), statement).await;
        }
        let url = format!("{server}/{name}");
        ledger::migrate(&url).await.unwrap();
        let ledger = Ledger::new(Config::new(&url).unwrap(), Inbox::default(), Readiness::default());
        Self { url, ledger }
    }

    async fn begin(&self) {
        sql(
            &self.url,
            "truncate worldline.entities, worldline.results, worldline.outbox, worldline.journal restart identity",
        )
        .await;
        let seeds = seeds().into_iter().map(|seed| ledger::Seed {
            entity: seed.entity,
            position: seed.position,
            pinned: seed.pinned,
            hit_points: seed.hit_points,
            balance: seed.balance,
        });
        ledger::seed(&self.url, &seeds.collect::<Vec<_>>()).await.unwrap();
    }
}

async fn sql(url: &str, statements: &str) {
    let mut connection = PgConnection::connect(url).await.expect("the server is there");
    connection.execute(AssertSqlSafe(statements)).await.unwrap();
}

/// Names what an answer says, in so far as the calls can say different things.
fn said(answer: &Answer, reached: &mut BTreeSet<String>) {
    let mut note = |what: &dyn std::fmt::Debug| {
        let text = format!("{what:?}");
        let words = text.split(|c: char| !c.is_alphabetic()).filter(|word| word.starts_with(char::is_uppercase));
        reached.insert(words.take(2).collect::<Vec<_>>().join(" "));
    };
    match answer {
        Answer::Committed(Outcome::Done(committed)) => {
            committed.verdicts.iter().for_each(|verdict| note(verdict));
            committed.checkpoints.iter().for_each(|kept| note(kept));
        }
        Answer::Claimed(Outcome::Done(each)) => each.iter().for_each(|one| match one {
            Ok(_) => note(&"Claimed"),
            Err(refusal) => note(&("Claim", refusal)),
        }),
        other => note(other),
    }
}

/// What must have been said at least once, or the comparison is worth little.
const SAID: [&str; 23] = [
    "Applied Hit",
    "Applied Refused",
    "Claim Fenced",
    "Claim Malformed",
    "Claimed",
    "Conflict",
    "Err Epoch",
    "Facts Done",
    "Facts Refused",
    "Fenced Epoch",
    "Flagged Done",
    "Forgotten",
    "Gap OpNumber",
    "LoggedIn Done",
    "LoggedIn Refused",
    "Ok",
    "Revoked Done",
    "Revoked Refused",
    "Snapshot Done",
    "StaleSession Generation",
    "Standing Done",
    "Stored Hit",
    "Unpublished Done",
];

async fn compare(real: &Real, steps: &[Step], reached: &RefCell<BTreeSet<String>>) -> Result<(), TestCaseError> {
    real.begin().await;
    let mut model = Database::new(&seeds());
    let mut accepted: Vec<Acceptance> = Vec::new();
    for (n, step) in (1..).zip(steps) {
        let submission = submission(&model, step);
        let (op, deadline) = (OpId { incarnation: Incarnation(1), counter: 1 }, clock::now() + Duration::from_secs(20));
        let answer = real.ledger.ask(Asked { op, deadline, submission: submission.clone() }).await;
        let (expected, acceptances) = model.execute(Instant::from_nanos(n), &submission);
        said(&answer, &mut reached.borrow_mut());
        prop_assert_eq!(answer, expected, "{:?}", submission);
        accepted.extend(acceptances);
    }
    let journal: Vec<Acceptance> =
        ledger::journal(&real.url).await.unwrap().into_iter().map(|(_, what)| what).collect();
    prop_assert_eq!(journal, accepted);
    let tables = ledger::tables(&real.url).await.unwrap();
    let rows: Vec<Row> = model.entities().iter().map(|entity| entity.row()).collect();
    prop_assert_eq!(tables.rows, rows);
    prop_assert_eq!(tables.minted, model.minted());
    let facts = model.entities().iter().flat_map(|entity| {
        (1..=entity.columns.facts.0).filter_map(|sequence| entity.fact(FactSequence(sequence))).map(|(fact, _)| fact)
    });
    prop_assert_eq!(tables.facts, facts.collect::<Vec<_>>());
    for (hero, through) in tables.applied_through {
        prop_assert_eq!(through, model.entity(hero.entity()).unwrap().columns.applied_through);
        let mine = tables.results.iter().filter(|(whose, _)| *whose == hero).map(|(_, stored)| *stored);
        let expected =
            (1..=through.0).filter_map(|n| model.entity(hero.entity()).unwrap().result(OpNumber(n)).copied());
        prop_assert_eq!(mine.collect::<Vec<StoredResult>>(), expected.collect::<Vec<_>>());
    }
    Ok(())
}

#[test]
fn postgres_and_the_model_answer_journal_and_stand_alike() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let real = runtime.block_on(Real::new());
    let mut runner = TestRunner::new(Runs { cases: CASES, failure_persistence: None, ..Runs::default() });
    let reached = RefCell::default();
    if let Err(failure) = runner.run(&steps(), |steps| runtime.block_on(compare(&real, &steps, &reached))) {
        panic!("{failure}");
    }
    let reached = reached.into_inner();
    let missed: Vec<_> = SAID.iter().filter(|what| !reached.contains(**what)).collect();
    assert!(missed.is_empty(), "never said: {missed:?}, among {reached:?}");
    runtime.block_on(real.ledger.close());
}
