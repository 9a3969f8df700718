//! The stored functions without a cluster: what they return, what they write, what undoing leaves.

use super::*;
use crate::ledger::Seed;
use std::sync::Arc;
use worldline_proto::{CharacterId, Digest, EntityKind, Generation, Nonce, OpNumber, Version};
use worldline_system::{
    doors::ledger::{Checkpointed, Login, Revoked, Standing},
    limits::RESULTS_KEPT,
    rules::space::Position,
    time::UnixTime,
};

fn hero() -> CharacterId {
    CharacterId::new(1).unwrap()
}

fn boss() -> EntityId {
    EntityId::new(EntityKind::Boss, 1).unwrap()
}

fn lease(n: u64) -> LeaseId {
    LeaseId::from_bits(n)
}

fn world() -> Database {
    let seed =
        |entity, hit_points, balance| Seed { entity, position: Position::default(), pinned: None, hit_points, balance };
    Database::new(&[seed(boss(), 100, 30), seed(hero().entity(), 50, 5)])
}

/// Hero and boss owned at epoch 1 under lease 1, and a session of generation 1.
fn begun() -> Database {
    let mut database = world();
    claim(&mut database, 1, &[(hero().entity(), 1), (boss(), 1)]).unwrap();
    login(&mut database, 1);
    database
}

fn claim(database: &mut Database, by: u64, entities: &[(EntityId, u64)]) -> Result<Vec<Durable>, Refusal> {
    let entities = entities.iter().map(|&(entity, epoch)| (entity, Epoch(epoch))).collect();
    match execute(database, Instant::default(), &Submission::Claim { lease: lease(by), entities }).answer {
        Answer::Claimed(Outcome::Done(each)) => each.into_iter().map(|one| one.map(|durable| *durable)).collect(),
        other => panic!("{other:?}"),
    }
}

fn login(database: &mut Database, nonce: u64) -> Login {
    match execute(database, Instant::default(), &log_in(hero(), nonce)).answer {
        Answer::LoggedIn(Outcome::Done(login)) => login,
        other => panic!("{other:?}"),
    }
}

/// With a token that was issued at 1,000 ms.
fn log_in(character: CharacterId, nonce: u64) -> Submission {
    Submission::Login { character, nonce: Nonce(nonce), issued_unix_ms: 1_000 }
}

fn authority(entity: EntityId, epoch: u64, by: u64) -> Authority {
    Authority { entity, epoch: Epoch(epoch), lease: lease(by) }
}

fn hit(number: u64, damage: u32) -> Operation {
    Operation {
        character: hero(),
        generation: Generation(1),
        number: OpNumber(number),
        digest: Digest([number as u8; 16]),
        authority: vec![authority(hero().entity(), 1, 1), authority(boss(), 1, 1)],
        effect: Effect::Attack { target: boss(), blow: Blow { damage, experience: 7, bounty: 20 } },
    }
}

fn commit(database: &mut Database, operation: Operation) -> Verdict {
    let batch = Batch { operations: vec![operation], checkpoints: vec![], published: vec![] };
    match execute(database, Instant::default(), &Submission::Commit(Arc::new(batch))).answer {
        Answer::Committed(Outcome::Done(committed)) => committed.verdicts[0],
        other => panic!("{other:?}"),
    }
}

fn checkpoint(database: &mut Database, epoch: u64, by: u64, version: u64, x_mm: i64) -> (Result<(), Epoch>, usize) {
    let state = Checkpointed { position: Position { x_mm, y_mm: 0 }, cooldown_end: UnixTime::default() };
    let authority = authority(hero().entity(), epoch, by);
    let checkpoint = Checkpoint { authority, version: Version(version), state };
    let executed = execute(
        database,
        Instant::default(),
        &Submission::Commit(Arc::new(Batch { operations: vec![], checkpoints: vec![checkpoint], published: vec![] })),
    );
    match executed.answer {
        Answer::Committed(Outcome::Done(committed)) => (committed.checkpoints[0], executed.acceptances.len()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_blow_takes_what_is_left_and_pays_what_the_purse_holds() {
    let mut database = begun();
    let applied = |dealt, remaining, bounty| {
        Verdict::Applied(OpResult::Hit { target: boss(), dealt, remaining, experience: 7, bounty })
    };
    assert_eq!(commit(&mut database, hit(1, 60)), applied(60, 40, 20));
    assert_eq!(commit(&mut database, hit(2, 60)), applied(40, 0, 10));
    let dead = Verdict::Applied(OpResult::Refused(RuleRefusal::TargetDead));
    assert_eq!(commit(&mut database, hit(3, 60)), dead, "a refusal is a result");
    assert_eq!(commit(&mut database, hit(3, 60)), Verdict::Stored(OpResult::Refused(RuleRefusal::TargetDead)));
    let total: i128 = database.entities().iter().map(|entity| i128::from(entity.columns.balance)).sum();
    assert_eq!(total, database.minted());
    assert_eq!(database.entity(hero().entity()).unwrap().columns.experience, 14);
}

#[test]
fn a_stored_result_is_returned_before_session_gap_and_fence_are_looked_at() {
    let mut database = begun();
    let first = commit(&mut database, hit(1, 10));
    login(&mut database, 2);
    claim(&mut database, 2, &[(hero().entity(), 2), (boss(), 2)]).unwrap();
    let Verdict::Applied(result) = first else { panic!("{first:?}") };
    assert_eq!(commit(&mut database, hit(1, 10)), Verdict::Stored(result), "old session, old fence");
    let other = Operation { digest: Digest([9; 16]), ..hit(1, 10) };
    assert_eq!(commit(&mut database, other), Verdict::Conflict);
}

#[test]
fn refusals_come_in_their_order_and_write_nothing() {
    let mut database = begun();
    let before = database.entities().to_vec();
    let stale = Operation { generation: Generation(0), number: OpNumber(5), ..hit(1, 10) };
    assert_eq!(commit(&mut database, stale), Verdict::StaleSession { current: Generation(1) });
    let gap = Operation { number: OpNumber(5), authority: vec![], ..hit(1, 10) };
    assert_eq!(commit(&mut database, gap), Verdict::Gap { expected: OpNumber(1) });
    for (wrong, entity) in [
        (vec![authority(hero().entity(), 2, 1), authority(boss(), 1, 1)], hero().entity()),
        (vec![authority(hero().entity(), 1, 2), authority(boss(), 1, 1)], hero().entity()),
        (vec![authority(hero().entity(), 1, 1), authority(boss(), 0, 1)], boss()),
        (vec![authority(hero().entity(), 1, 1)], boss()),
    ] {
        let verdict = commit(&mut database, Operation { authority: wrong, ..hit(1, 10) });
        assert_eq!(verdict, Verdict::Fenced { entity, highest: Epoch(1) });
    }
    assert_eq!(database.entities(), before);
}

#[test]
fn a_result_that_fell_out_of_the_window_is_forgotten() {
    let mut database = begun();
    let kept = RESULTS_KEPT as u64;
    for number in 1..=kept + 1 {
        assert!(matches!(commit(&mut database, hit(number, 0)), Verdict::Applied(_)));
    }
    assert_eq!(commit(&mut database, hit(1, 0)), Verdict::Forgotten);
    assert!(matches!(commit(&mut database, hit(2, 0)), Verdict::Stored(_)));
    assert_eq!(commit(&mut database, hit(0, 0)), Verdict::Forgotten, "no operation has the number zero");
}

#[test]
fn a_claim_raises_the_fence_or_says_how_high_it_stands() {
    let mut database = world();
    let entity = hero().entity();
    assert!(claim(&mut database, 1, &[(entity, 4)]).is_ok());
    assert!(claim(&mut database, 1, &[(entity, 4)]).is_ok(), "the same claim again");
    assert_eq!(claim(&mut database, 2, &[(entity, 4)]), Err(Refusal::Fenced { highest: Epoch(4) }));
    assert_eq!(claim(&mut database, 1, &[(entity, 3)]), Err(Refusal::Fenced { highest: Epoch(4) }));
    assert!(claim(&mut database, 2, &[(entity, 5)]).is_ok());
    let nobody = EntityId::new(EntityKind::Npc, 9).unwrap();
    assert_eq!(claim(&mut database, 2, &[(nobody, 1)]), Err(Refusal::Malformed));
}

#[test]
fn a_claim_returns_the_results_that_the_owner_before_has_stored() {
    let mut database = begun();
    commit(&mut database, hit(1, 10));
    let durable = claim(&mut database, 2, &[(hero().entity(), 2)]).unwrap().remove(0);
    assert_eq!((durable.applied_through, durable.results.len()), (OpNumber(1), 1));
    assert_eq!((durable.experience, durable.balance), (7, 25));
}

#[test]
fn a_login_counts_up_unless_it_is_the_same_login_again() {
    let mut database = world();
    assert_eq!(login(&mut database, 8).generation, Generation(1));
    assert_eq!(login(&mut database, 8).generation, Generation(1));
    assert_eq!(login(&mut database, 9).generation, Generation(2));
    let character = CharacterId::new(77).unwrap();
    let answer = execute(&mut database, Instant::default(), &log_in(character, 1)).answer;
    assert_eq!(answer, Answer::LoggedIn(Outcome::Refused(Refusal::Malformed)));
}

#[test]
fn a_revoked_token_begins_no_session_and_ends_the_one_that_it_began() {
    let mut database = begun();
    let execute = |database: &mut Database, submission| execute(database, Instant::default(), &submission).answer;
    let revoke = |valid_from_unix_ms| Submission::Revoke { character: hero(), valid_from_unix_ms };
    let revoked = |generation, valid_from, news| {
        let (generation, tokens_valid_from_unix_ms) = (Generation(generation), valid_from);
        let standing = Standing { character: hero(), generation, tokens_valid_from_unix_ms };
        Answer::Revoked(Outcome::Done(Revoked { standing, news }))
    };
    assert_eq!(execute(&mut database, revoke(1_001)), revoked(2, 1_001, true));
    assert_eq!(execute(&mut database, revoke(1_001)), revoked(2, 1_001, false), "it may be submitted again");
    assert_eq!(execute(&mut database, revoke(7)), revoked(2, 1_001, false), "it never falls");
    let refused = Answer::LoggedIn(Outcome::Refused(Refusal::TokenRevoked));
    for nonce in [1, 2] {
        assert_eq!(execute(&mut database, log_in(hero(), nonce)), refused, "also the login that was sent before");
    }
    let verdict = commit(&mut database, hit(1, 100));
    assert_eq!(verdict, Verdict::StaleSession { current: Generation(2) }, "its session has ended");
    let issued = Submission::Login { character: hero(), nonce: Nonce(3), issued_unix_ms: 1_001 };
    let login = Login { generation: Generation(3), applied_through: OpNumber(0) };
    assert_eq!(execute(&mut database, issued), Answer::LoggedIn(Outcome::Done(login)), "a new token counts");
    let standing = Standing { character: hero(), generation: Generation(3), tokens_valid_from_unix_ms: 1_001 };
    let question = Submission::Standing { characters: vec![CharacterId::new(77).unwrap(), hero(), hero()] };
    assert_eq!(execute(&mut database, question), Answer::Standing(Outcome::Done(vec![standing])));
    let nobody = Submission::Revoke { character: CharacterId::new(77).unwrap(), valid_from_unix_ms: 1 };
    assert_eq!(execute(&mut database, nobody), Answer::Revoked(Outcome::Refused(Refusal::Malformed)));
}

#[test]
fn checkpoints_pass_only_at_the_fence_and_go_only_forward() {
    let mut database = begun();
    let position = |database: &Database| database.entity(hero().entity()).unwrap().position().x_mm;
    assert_eq!(checkpoint(&mut database, 1, 1, 2, 20), (Ok(()), 1));
    assert_eq!(checkpoint(&mut database, 1, 1, 1, 10), (Ok(()), 0), "an older one passes and writes nothing");
    assert_eq!(position(&database), 20);
    claim(&mut database, 2, &[(hero().entity(), 2)]).unwrap();
    assert_eq!(checkpoint(&mut database, 1, 1, 3, 30), (Err(Epoch(2)), 0));
    assert_eq!(checkpoint(&mut database, 2, 2, 1, 40), (Ok(()), 1), "versions begin anew in an epoch");
    assert_eq!(position(&database), 40);
}

#[test]
fn gains_are_clipped_to_what_fits() {
    let mut database = begun();
    let blow = Blow { damage: 1, experience: i64::MAX, bounty: -5 };
    let greedy = |number| Operation { effect: Effect::Attack { target: boss(), blow }, ..hit(number, 0) };
    commit(&mut database, hit(1, 1));
    let Verdict::Applied(OpResult::Hit { experience, bounty, .. }) = commit(&mut database, greedy(2)) else { panic!() };
    assert_eq!((experience, bounty), (i64::MAX - 7, 0));
    assert_eq!(database.entity(hero().entity()).unwrap().columns.experience, i64::MAX);
}

#[test]
fn undoing_a_transaction_leaves_no_trace() {
    let mut database = begun();
    for number in 1..=RESULTS_KEPT as u64 {
        commit(&mut database, hit(number, 1));
    }
    let before = database.entities().to_vec();
    let batch = Batch { operations: vec![hit(65, 1), hit(66, 90), hit(67, 1)], checkpoints: vec![], published: vec![] };
    let executed = execute(&mut database, Instant::default(), &Submission::Commit(Arc::new(batch)));
    assert_ne!(database.entities(), before);
    database.undo(&executed.undo);
    assert_eq!(database.entities(), before);
}

#[test]
fn a_roster_is_paged_in_id_order() {
    let mut database = world();
    let mut page =
        |after| match execute(&mut database, Instant::default(), &Submission::Roster { after, limit: 1 }).answer {
            Answer::Roster(Outcome::Done(roster)) => {
                (roster.entries.iter().map(|e| e.entity).collect::<Vec<_>>(), roster.more)
            }
            other => panic!("{other:?}"),
        };
    assert_eq!(page(None), (vec![hero().entity()], true));
    assert_eq!(page(Some(hero().entity())), (vec![boss()], false));
    assert_eq!(page(Some(boss())), (vec![], false));
}

/// The facts of the boss, and of everybody what is not flagged, written before so many milliseconds.
fn outbox(database: &mut Database, now_ms: u64, older_than_ms: u64) -> (Vec<FactRow>, Vec<FactRow>) {
    let now = Instant::from_nanos(now_ms * 1_000_000);
    let mut page = |submission| match execute(database, now, &submission).answer {
        Answer::Facts(Outcome::Done(page)) | Answer::Unpublished(Outcome::Done(page)) => page.facts,
        other => panic!("{other:?}"),
    };
    let facts = page(Submission::Facts { aggregate: boss(), after: FactSequence(0), limit: 500 });
    let older_than = Duration::from_millis(older_than_ms);
    (facts, page(Submission::Unpublished { older_than, limit: 500 }))
}

fn fact(sequence: u64, number: u64, dealt: u32, remaining: u32, bounty: i64) -> FactRow {
    let body = FactBody::Hit { dealt, remaining, experience: 7, bounty };
    FactRow { aggregate: boss(), sequence: FactSequence(sequence), character: hero(), number: OpNumber(number), body }
}

#[test]
fn every_hit_writes_the_next_fact_of_its_target_and_nothing_else_writes_one() {
    let mut database = begun();
    let refused = |number| Operation { effect: Effect::Refuse(RuleRefusal::Cooldown), ..hit(number, 0) };
    let stale = Operation { generation: Generation(0), ..hit(5, 1) };
    let operations = vec![hit(1, 60), refused(2), hit(3, 60), hit(3, 60), hit(4, 60), stale, hit(9, 1)];
    let batch = Batch { operations, checkpoints: vec![], published: vec![] };
    let executed = execute(&mut database, Instant::default(), &Submission::Commit(Arc::new(batch)));
    let expected = [fact(1, 1, 60, 40, 20), fact(2, 3, 40, 0, 10)];
    let Answer::Committed(Outcome::Done(committed)) = executed.answer else { panic!() };
    assert_eq!(committed.facts, expected, "a refusal is no news, nor is a stored result or a blow at the dead");
    let told: Vec<_> = executed
        .acceptances
        .iter()
        .filter_map(|acceptance| match acceptance {
            Acceptance::OperationApplied { fact, .. } => fact.as_deref().copied(),
            _ => None,
        })
        .collect();
    assert_eq!(told, expected);
    assert_eq!(outbox(&mut database, 0, 0), (expected.to_vec(), expected.to_vec()));
    database.undo(&executed.undo);
    assert_eq!(outbox(&mut database, 0, 0), (vec![], vec![]), "a fact goes with its effect");
    assert_eq!(commit(&mut database, hit(1, 1)), commit_of_one(1));
    assert_eq!(outbox(&mut database, 0, 0).0, [fact(1, 1, 1, 99, 20)], "and its number is given out again");
}

fn commit_of_one(dealt: u32) -> Verdict {
    let remaining = 100 - dealt;
    Verdict::Applied(OpResult::Hit { target: boss(), dealt, remaining, experience: 7, bounty: 20 })
}

#[test]
fn what_is_not_flagged_is_told_oldest_first_once_it_is_old_enough() {
    let mut database = begun();
    let at = |database: &mut Database, ms: u64, submission: &Submission| {
        execute(database, Instant::from_nanos(ms * 1_000_000), submission)
    };
    let strike = |number| {
        let batch = Batch { operations: vec![hit(number, 1)], checkpoints: vec![], published: vec![] };
        Submission::Commit(Arc::new(batch))
    };
    at(&mut database, 1_000, &strike(1));
    at(&mut database, 2_000, &strike(2));
    at(&mut database, 3_000, &strike(3));
    let old = |database: &mut Database, now| {
        outbox(database, now, 2_000).1.into_iter().map(|fact| fact.sequence.0).collect::<Vec<_>>()
    };
    assert_eq!(old(&mut database, 1_500), [0_u64; 0]);
    assert_eq!(old(&mut database, 4_000), [1, 2]);
    let flags = vec![(boss(), FactSequence(1)), (boss(), FactSequence(9)), (boss(), FactSequence(0))];
    let flagged = at(&mut database, 4_000, &Submission::Flag(flags.clone()));
    assert_eq!(flagged.answer, Answer::Flagged(Outcome::Done(())));
    assert_eq!(old(&mut database, 5_000), [2, 3]);
    assert!(at(&mut database, 4_000, &Submission::Flag(flags)).undo.is_empty(), "a flag is set once");
    database.undo(&flagged.undo);
    assert_eq!(old(&mut database, 5_000), [1, 2, 3], "a flag that a failover loses is set again");
    let batch = Batch { operations: vec![], checkpoints: vec![], published: vec![(boss(), FactSequence(2))] };
    at(&mut database, 5_000, &Submission::Commit(Arc::new(batch)));
    assert_eq!(old(&mut database, 5_000), [1, 3], "flags ride in a batch");
    assert_eq!(outbox(&mut database, 5_000, 0).0.len(), 3, "and what is flagged can still be read");
}

#[test]
fn facts_come_in_pages_and_a_snapshot_says_where_to_begin() {
    let mut database = begun();
    for number in 1..=5 {
        commit(&mut database, hit(number, 1));
    }
    let now = Instant::default();
    let mut page = |after, limit| {
        let submission = Submission::Facts { aggregate: boss(), after: FactSequence(after), limit };
        match execute(&mut database, now, &submission).answer {
            Answer::Facts(Outcome::Done(page)) => {
                Ok((page.facts.iter().map(|fact| fact.sequence.0).collect::<Vec<_>>(), page.more))
            }
            Answer::Facts(Outcome::Refused(refusal)) => Err(refusal),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(page(0, 2), Ok((vec![1, 2], true)));
    assert_eq!(page(3, 2), Ok((vec![4, 5], false)));
    assert_eq!(page(5, 2), Ok((vec![], false)));
    assert_eq!(page(u64::MAX, 2), Ok((vec![], false)), "what it has not had is not behind it");
    assert_eq!((page(0, 0), page(0, 501)), (Err(Refusal::Malformed), Err(Refusal::Malformed)));
    let nobody = EntityId::new(EntityKind::Npc, 9).unwrap();
    let entities = vec![boss(), nobody, hero().entity(), boss()];
    let snapshot = execute(&mut database, now, &Submission::Snapshot { entities }).answer;
    let stands = |entity, hit_points, sequence| FactSnapshot { entity, hit_points, sequence: FactSequence(sequence) };
    let expected = vec![stands(hero().entity(), 50, 0), stands(boss(), 95, 5)];
    assert_eq!(snapshot, Answer::Snapshot(Outcome::Done(expected)));
}
