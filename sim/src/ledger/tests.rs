//! What a caller of the ledger sees when things go well, and when they do not.

use super::*;
use crate::{
    Fault as WorldFault,
    service_times::{ServiceTimes, Work},
    testing::{Ask, Bench, Caller},
};
use std::sync::Arc;
use worldline_proto::{Digest, EntityKind, Epoch, Generation, LeaseId, Nonce};
use worldline_system::{
    Outcome, Refusal,
    doors::ledger::{Authority, Batch, Effect, Login, Operation, Verdict},
    history::Acceptance,
};

pub(super) fn hero(n: u64) -> CharacterId {
    CharacterId::new(n).unwrap()
}

fn boss() -> EntityId {
    EntityId::new(EntityKind::Boss, 1).unwrap()
}

/// A world with a ledger, a boss, and one hero a caller.
pub(super) fn bench(seed: u64, callers: Vec<Caller>) -> Bench {
    let heroes = callers.len() as u64;
    Bench::new(seed, callers, |world, members| {
        let seed =
            |entity| Seed { entity, position: Position::default(), pinned: None, hit_points: 1_000_000, balance: 100 };
        let seeds = (1..=heroes).map(|n| hero(n).entity()).chain([boss()]).map(seed).collect();
        world.set_ledger(Config::new(members, seeds));
    })
}

pub(super) fn login(n: u64) -> Ask {
    Submission::Login { character: hero(n), nonce: Nonce(n), issued_unix_ms: 0 }.into()
}

/// Claims hero `n` and the boss at an epoch under the lease of that number.
pub(super) fn claim(n: u64, epoch: u64) -> Ask {
    let entities = vec![(hero(n).entity(), Epoch(epoch)), (boss(), Epoch(epoch))];
    Submission::Claim { lease: LeaseId::from_bits(epoch), entities }.into()
}

/// An operation of hero `n` under the claim of epoch 1: its result is a refusal, so that nothing else is needed.
fn operation(n: u64, number: u64) -> Operation {
    let authority = Authority { entity: hero(n).entity(), epoch: Epoch(1), lease: LeaseId::from_bits(1) };
    Operation {
        character: hero(n),
        generation: Generation(1),
        number: OpNumber(number),
        digest: Digest([number as u8; 16]),
        authority: vec![authority],
        effect: Effect::Refuse(worldline_system::doors::ledger::RuleRefusal::Cooldown),
    }
}

fn commit(n: u64, number: u64) -> Ask {
    Submission::Commit(Arc::new(Batch {
        operations: vec![operation(n, number)],
        checkpoints: vec![],
        published: vec![],
    }))
    .into()
}

/// Hero `n` hits the boss with every operation up to this number, under a claim of both at epoch 1.
pub(super) fn attacks(n: u64, through: u64) -> Ask {
    let authority = |entity| Authority { entity, epoch: Epoch(1), lease: LeaseId::from_bits(1) };
    let blow = worldline_system::rules::attack::Blow { damage: 1, experience: 1, bounty: 1 };
    let hit = |number| Operation {
        authority: vec![authority(hero(n).entity()), authority(boss())],
        effect: Effect::Attack { target: boss(), blow },
        ..operation(n, number)
    };
    let operations = (1..=through).map(hit).collect();
    Submission::Commit(Arc::new(Batch { operations, checkpoints: vec![], published: vec![] })).into()
}

fn within(ask: Ask, ms: u64) -> Ask {
    match ask {
        Ask::Ledger(submission, _) => Ask::Ledger(submission, Duration::from_millis(ms)),
        other => panic!("{other:?}"),
    }
}

fn verdict(bench: &Bench, caller: usize, n: usize) -> Outcome<Verdict> {
    match bench.caller(caller).ledger(n) {
        Some((_, Answer::Committed(outcome))) => outcome.clone().map(|committed| committed.verdicts[0]),
        other => panic!("{other:?}"),
    }
}

fn applied() -> Outcome<Verdict> {
    use worldline_system::doors::ledger::{OpResult, RuleRefusal};
    Outcome::Done(Verdict::Applied(OpResult::Refused(RuleRefusal::Cooldown)))
}

fn stored() -> Outcome<Verdict> {
    use worldline_system::doors::ledger::{OpResult, RuleRefusal};
    Outcome::Done(Verdict::Stored(OpResult::Refused(RuleRefusal::Cooldown)))
}

/// When operation `number` of hero 1 was accepted.
fn accepted_at(bench: &mut Bench, number: u64) -> Option<u64> {
    bench.accepted().into_iter().find_map(|(at, acceptance)| match acceptance {
        Acceptance::OperationApplied { operation, .. }
            if operation.number == OpNumber(number) && operation.character == hero(1) =>
        {
            Some(at)
        }
        _ => None,
    })
}

#[test]
fn a_commit_takes_as_long_as_the_real_one_was_measured_to_take() {
    let answered = |each_ms| {
        let mut bench = bench(1, vec![Caller::new(vec![(10, login(1)), (30, claim(1, 1)), (50, attacks(1, 5))])]);
        let each = Duration::from_millis(each_ms);
        let ledger_commit = Work { request: Duration::from_millis(2), each };
        bench.world.set_service_times(ServiceTimes { ledger_commit, ..ServiceTimes::default() });
        bench.run_to(200);
        assert!(matches!(verdict(&bench, 0, 2), Outcome::Done(Verdict::Applied(_))));
        bench.caller(0).ledger(2).unwrap().0
    };
    assert_eq!(answered(10) - answered(0), 50, "five operations");
}

#[test]
fn a_login_a_claim_and_a_commit_are_answered_within_milliseconds() {
    let mut bench = bench(1, vec![Caller::new(vec![(10, login(1)), (30, claim(1, 1)), (50, commit(1, 1))])]);
    bench.run_to(100);
    let caller = bench.caller(0);
    let login = Login { generation: Generation(1), applied_through: OpNumber(0) };
    assert_eq!(caller.ledger(0).unwrap().1, &Answer::LoggedIn(Outcome::Done(login)));
    assert!(caller.ledger(0).unwrap().0 < 30);
    assert!(matches!(caller.ledger(1).unwrap().1, Answer::Claimed(Outcome::Done(each)) if each[0].is_ok()));
    assert_eq!(verdict(&bench, 0, 2), applied());
    let kinds: Vec<_> =
        bench.accepted().into_iter().map(|(_, acceptance)| std::mem::discriminant(&acceptance)).collect();
    assert_eq!(kinds.len(), 4, "login, both fences and the operation are told once each");
    let model = bench.world.ledger().unwrap();
    assert_eq!(model.columns(hero(1).entity()).unwrap().applied_through, OpNumber(1));
    assert!(model.stored_result(hero(1), OpNumber(1)).is_some());
}

/// Who is the primary, among the members.
fn primary(bench: &Bench) -> usize {
    let node = bench.world.ledger().unwrap().primary();
    bench.members.iter().position(|&member| member == node).unwrap()
}

fn fault(bench: &mut Bench, fault: Fault) {
    bench.inject(WorldFault::Ledger(fault));
}

/// A hero that logs in and is claimed in the first 100 ms, and what it does then.
fn played(n: u64, then: Vec<(u64, Ask)>) -> Caller {
    Caller::new([(10, login(n)), (50, claim(n, 1))].into_iter().chain(then).collect())
}

/// The standbys cannot be reached from the primary.
fn isolate_primary(bench: &mut Bench) -> u32 {
    let (alone, rest) = (bench.members[0], bench.members[1..].to_vec());
    bench.cut(&[alone], &rest)
}

fn refused(refusal: Refusal) -> Outcome<Verdict> {
    Outcome::Refused(refusal)
}

#[test]
fn conflicts_roll_back_and_write_nothing() {
    let script = vec![(1_000, commit(1, 1)), (2_000, commit(1, 1)), (4_000, commit(1, 1))];
    let mut bench = bench(2, vec![played(1, script)]);
    bench.run_to(900);
    fault(&mut bench, Fault::Conflicts { serialization: 1_000, deadlock: 0, contended: 0 });
    bench.run_to(1_900);
    assert_eq!(verdict(&bench, 0, 2), refused(Refusal::SerializationFailure));
    fault(&mut bench, Fault::Conflicts { serialization: 0, deadlock: 1_000, contended: 0 });
    bench.run_to(3_500);
    assert_eq!(verdict(&bench, 0, 3), refused(Refusal::Deadlock));
    assert!(bench.caller(0).ledger(3).unwrap().0 >= 3_000, "it is looked for only after a second");
    assert_eq!(accepted_at(&mut bench, 1), None);
    bench.inject(WorldFault::Heal).run_to(5_000);
    assert_eq!(verdict(&bench, 0, 4), applied());
}

#[test]
fn who_waits_for_a_row_goes_on_after_its_holder_or_loses_the_conflict() {
    for (contended, expected) in [(0, stored()), (1_000, refused(Refusal::SerializationFailure))] {
        let other = Caller::new(vec![(1_100, commit(1, 1)), (1_100, login(2))]);
        let mut bench = bench(3, vec![played(1, vec![(1_000, commit(1, 1))]), other]);
        bench.run_to(900);
        fault(&mut bench, Fault::Conflicts { serialization: 0, deadlock: 0, contended });
        let cut = isolate_primary(&mut bench);
        bench.run_to(1_500);
        assert!(bench.caller(0).ledger(2).is_none(), "it waits for a standby and keeps its locks");
        assert!(bench.caller(1).ledger(0).is_none(), "and this one waits for the locks");
        bench.inject(WorldFault::Uncut { id: cut }).run_to(3_000);
        assert_eq!(verdict(&bench, 0, 2), applied());
        assert_eq!(verdict(&bench, 1, 0), expected);
        assert!(matches!(bench.caller(1).ledger(1).unwrap().1, Answer::LoggedIn(Outcome::Done(_))));
    }
}

#[test]
fn a_connection_is_lost_before_during_or_after_the_commit_and_the_caller_cannot_tell() {
    let landed = |when| {
        let script = (1..=16).map(|n| (1_000 + n * 100, commit(1, n))).collect();
        let mut bench = bench(4, vec![played(1, script)]);
        bench.run_to(900);
        fault(&mut bench, Fault::LoseConnections { permille: 1_000, when });
        bench.run_to(5_000);
        for n in 2..18 {
            assert_eq!(verdict(&bench, 0, n), Outcome::Unknown);
            let (at, asked) = (bench.caller(0).ledger(n).unwrap().0, 1_000 + (n as u64 - 1) * 100);
            assert!(at < asked + 50, "a broken connection is noticed at once: {at}");
        }
        (1..=16).filter(|&n| accepted_at(&mut bench, n).is_some()).count()
    };
    assert_eq!(landed(When::Before), 0);
    assert_eq!(landed(When::After), 16);
    // After the first that does not land, the others are gaps.
    let during = landed(When::During);
    assert!(during < 16, "{during}");
    let some = (0..8).any(|seed| {
        let mut bench = bench(40 + seed, vec![played(1, vec![(1_000, commit(1, 1))])]);
        bench.run_to(900);
        fault(&mut bench, Fault::LoseConnections { permille: 1_000, when: When::During });
        bench.run_to(2_000);
        accepted_at(&mut bench, 1).is_some()
    });
    assert!(some, "some land");
}

#[test]
fn a_lost_acknowledgement_is_resolved_by_the_same_key() {
    let script = vec![(1_000, commit(1, 1)), (3_100, commit(1, 1))];
    let mut bench = bench(5, vec![played(1, script)]);
    bench.run_to(900);
    let from = Some(bench.callers[0]);
    fault(&mut bench, Fault::LoseAnswers { from, permille: 1_000, count: 1 });
    bench.run_to(4_000);
    assert_eq!((bench.caller(0).ledger(2).unwrap().0, verdict(&bench, 0, 2)), (3_000, Outcome::Unknown));
    assert_eq!(verdict(&bench, 0, 3), stored());
    assert!(accepted_at(&mut bench, 1).unwrap() < 1_100);
}

#[test]
fn a_commit_that_waited_lands_later_or_is_fenced_by_then() {
    for (claimed, lands) in [(false, true), (true, false)] {
        let mut other = vec![];
        if claimed {
            other.push((3_000, claim(1, 2)));
        }
        let mut bench = bench(6, vec![played(1, vec![(1_000, commit(1, 1))]), Caller::new(other)]);
        bench.run_to(900);
        let from = Some(bench.callers[0]);
        fault(&mut bench, Fault::DelayCommits { from, by: Duration::from_secs(5) });
        bench.run_to(8_000);
        assert_eq!((bench.caller(0).ledger(2).unwrap().0, verdict(&bench, 0, 2)), (3_000, Outcome::Unknown));
        assert_eq!(accepted_at(&mut bench, 1).is_some_and(|at| at > 6_000), lands);
        let fenced = bench.accepted().into_iter().any(|(_, acceptance)| {
            let Acceptance::OperationPassed { verdict, .. } = acceptance else { return false };
            matches!(verdict, Verdict::Fenced { highest: Epoch(2), .. })
        });
        assert_eq!(fenced, claimed);
    }
}

#[test]
fn a_commit_that_no_standby_has_is_recovered_by_its_primary_and_told_only_then() {
    let script = vec![(1_000, commit(1, 1)), (9_000, commit(1, 1))];
    let mut bench = bench(7, vec![played(1, script)]);
    bench.run_to(900);
    let cut = isolate_primary(&mut bench);
    bench.run_to(2_000);
    let node = bench.members[0];
    bench.inject(WorldFault::Crash { node });
    bench.run_to(3_500).inject(WorldFault::Restart { node });
    bench.run_to(6_000);
    assert_eq!(verdict(&bench, 0, 2), Outcome::Unknown);
    assert_eq!(accepted_at(&mut bench, 1), None, "visible on the primary, and not replicated");
    assert!(bench.world.ledger().unwrap().stored_result(hero(1), OpNumber(1)).is_none());
    bench.inject(WorldFault::Uncut { id: cut }).run_to(10_000);
    assert!(accepted_at(&mut bench, 1).unwrap() > 6_000);
    assert_eq!(verdict(&bench, 0, 3), stored());
}

#[test]
fn a_commit_that_no_standby_has_is_lost_by_a_failover_and_never_told() {
    let script = vec![(500, commit(1, 1)), (1_000, commit(1, 2)), (60_000, commit(1, 2))];
    let mut bench = bench(8, vec![played(1, script)]);
    bench.run_to(900);
    let cut = isolate_primary(&mut bench);
    bench.run_to(1_500);
    let node = bench.members[0];
    bench.inject(WorldFault::Crash { node }).inject(WorldFault::Uncut { id: cut });
    bench.run_to(50_000).inject(WorldFault::Restart { node });
    bench.run_to(62_000);
    assert_ne!(primary(&bench), 0);
    assert_eq!(verdict(&bench, 0, 3), Outcome::Unknown);
    assert_eq!(verdict(&bench, 0, 4), applied(), "number 2 is free: nobody was told that it had happened");
    assert!(accepted_at(&mut bench, 2).unwrap() >= 60_000);
}

#[test]
fn a_failover_keeps_what_was_acknowledged_and_takes_30_to_60_seconds() {
    let logins = (0..90).map(|n| (2_000 + n * 1_000, login(2))).collect();
    let mut bench = bench(9, vec![played(1, vec![(500, commit(1, 1))]), Caller::new(logins)]);
    bench.run_to(1_500);
    let node = bench.members[0];
    bench.inject(WorldFault::Crash { node });
    bench.run_to(95_000);
    assert_ne!(primary(&bench), 0);
    let model = bench.world.ledger().unwrap();
    assert_eq!(model.columns(hero(1).entity()).unwrap().applied_through, OpNumber(1));
    let done = |n: &usize| matches!(bench.caller(1).ledger(*n).unwrap().1, Answer::LoggedIn(Outcome::Done(_)));
    let first = (0..90).find(done).expect("the new primary serves");
    assert!((29..60).contains(&first), "{first} seconds");
    assert!((first..90).all(|n| done(&n)));
}

#[test]
fn an_isolated_primary_answers_nothing_and_gives_up_before_another_takes_over() {
    let near = Caller::new((0..60).map(|n| (1_000 + n * 1_000, login(1))).collect());
    let mut bench = bench(10, vec![near]);
    bench.run_to(1_500);
    let (alone, rest) = (vec![bench.members[0], bench.callers[0]], bench.members[1..].to_vec());
    bench.cut(&alone, &rest);
    bench.run_to(29_000);
    assert!(bench.world.ledger().unwrap().waiting().0 > 0, "they wait for a standby");
    bench.run_to(62_000);
    assert_ne!(primary(&bench), 0);
    let logged_in = bench.accepted().into_iter().filter(|(_, a)| matches!(a, Acceptance::LoggedIn { .. })).count();
    assert_eq!(logged_in, 1, "only the one before the cut");
    let last = bench.caller(0).ledger(58).unwrap().1;
    assert_eq!(last, &Answer::LoggedIn(Outcome::Refused(Refusal::Unreachable)), "no primary on this side");
}

#[test]
fn a_pool_has_sixteen_connections_and_who_waits_too_long_is_refused() {
    let script = (0..20).map(|_| (1_000, within(login(1), 3_000))).collect();
    let mut bench = bench(11, vec![Caller::new(script)]);
    bench.run_to(900);
    isolate_primary(&mut bench);
    bench.run_to(5_000);
    let exhausted = Answer::LoggedIn(Outcome::Refused(Refusal::PoolExhausted));
    for n in 0..20 {
        let (at, answer) = bench.caller(0).ledger(n).unwrap();
        if n < pool::POOL_CONNECTIONS {
            assert_eq!((at, answer), (4_000, &Answer::LoggedIn(Outcome::Unknown)));
        } else {
            assert_eq!((at, answer), (1_500, &exhausted));
        }
    }
}

#[test]
fn slow_read_only_and_full_disks_show() {
    let roster = Submission::Roster { after: None, limit: 10 };
    let script = vec![
        (1_000, commit(1, 1)),
        (2_000, commit(1, 2)),
        (3_000, commit(1, 2)),
        (3_100, roster.into()),
        (4_000, commit(1, 2)),
        (5_000, commit(1, 2)),
    ];
    let mut bench = bench(12, vec![played(1, script)]);
    bench.run_to(1_500);
    fault(&mut bench, Fault::SlowDisk { member: None, factor_permille: 100_000 });
    bench.run_to(2_900);
    let took = |n: usize, asked| bench.caller(0).ledger(n).unwrap().0 - asked;
    assert!(took(2, 1_000) < 20 && took(3, 2_000) >= 120, "{} and {} ms", took(2, 1_000), took(3, 2_000));
    bench.inject(WorldFault::Heal);
    fault(&mut bench, Fault::ReadOnly { on: true });
    bench.run_to(3_900);
    assert_eq!(verdict(&bench, 0, 4), refused(Refusal::ReadOnly));
    assert!(matches!(bench.caller(0).ledger(5).unwrap().1, Answer::Roster(Outcome::Done(_))));
    fault(&mut bench, Fault::ReadOnly { on: false });
    fault(&mut bench, Fault::DiskFull { on: true });
    bench.run_to(4_900);
    assert_eq!(verdict(&bench, 0, 6), refused(Refusal::DiskFull));
    bench.inject(WorldFault::Heal).run_to(6_000);
    assert_eq!(verdict(&bench, 0, 7), stored());
}

#[test]
fn a_power_loss_of_all_keeps_what_was_acknowledged_unless_disks_lie() {
    for lie in [false, true] {
        let script = vec![(1_000, commit(1, 1)), (8_000, commit(1, 1)), (8_500, commit(1, 1))];
        let mut bench = bench(13, vec![played(1, script)]);
        bench.run_to(900);
        fault(&mut bench, Fault::DisksLie { member: None, on: lie });
        bench.run_to(1_500);
        assert_eq!(verdict(&bench, 0, 2), applied());
        for node in bench.members.clone() {
            bench.inject(WorldFault::Crash { node });
        }
        for node in bench.members.clone() {
            bench.inject(WorldFault::Restart { node });
        }
        bench.run_to(9_000);
        assert_eq!(verdict(&bench, 0, 3), Outcome::Unknown, "the connection was of the server's life before");
        assert_eq!(verdict(&bench, 0, 4), if lie { applied() } else { stored() });
    }
}

#[test]
fn a_killed_primary_resets_its_connections_and_recovers() {
    let script = vec![(1_000, commit(1, 1)), (4_000, commit(1, 1))];
    let mut bench = bench(14, vec![played(1, script)]);
    bench.run_to(900);
    fault(&mut bench, Fault::SlowDisk { member: None, factor_permille: 1_000_000 });
    let node = bench.members[0];
    bench.run_to(1_100).inject(WorldFault::Kill { node });
    bench.inject(WorldFault::Heal).inject(WorldFault::Restart { node });
    bench.run_to(5_000);
    let (at, answer) = bench.caller(0).ledger(2).unwrap();
    assert_eq!(answer, &Answer::Committed(Outcome::Unknown));
    assert!(at < 1_200, "the reset is heard at once: {at}");
    assert_eq!(verdict(&bench, 0, 3), applied(), "it had not been flushed");
}

/// The facts of the boss that the outbox has.
fn facts(bench: &Bench) -> Vec<u64> {
    bench.world.ledger().unwrap().facts().map(|fact| fact.sequence.0).collect()
}

#[test]
fn a_fact_that_no_standby_has_is_told_to_nobody_and_lost_with_its_effect() {
    let read: Ask = Submission::Facts { aggregate: boss(), after: FactSequence(0), limit: 500 }.into();
    let snapshot: Ask = Submission::Snapshot { entities: vec![boss()] }.into();
    let unpublished: Ask = Submission::Unpublished { older_than: Duration::ZERO, limit: 500 }.into();
    let reads = [(1_100, read.clone()), (1_100, snapshot), (1_100, unpublished), (60_000, read)];
    let script = [(500, attacks(1, 2)), (1_000, attacks(1, 5))].into_iter().chain(reads).collect();
    let mut bench = bench(18, vec![played(1, script)]);
    bench.run_to(900);
    let cut = isolate_primary(&mut bench);
    bench.run_to(1_500);
    assert_eq!(facts(&bench), [1, 2], "the others are on the primary alone");
    let node = bench.members[0];
    bench.inject(WorldFault::Crash { node }).inject(WorldFault::Uncut { id: cut });
    bench.run_to(62_000);
    assert_ne!(primary(&bench), 0);
    let caller = bench.caller(0);
    assert_eq!(caller.ledger(4).unwrap().1, &Answer::Facts(Outcome::Unknown));
    assert_eq!(caller.ledger(5).unwrap().1, &Answer::Snapshot(Outcome::Unknown));
    assert_eq!(caller.ledger(6).unwrap().1, &Answer::Unpublished(Outcome::Unknown));
    let Answer::Facts(Outcome::Done(page)) = caller.ledger(7).unwrap().1 else { panic!() };
    assert_eq!((page.facts.len(), facts(&bench)), (2, vec![1, 2]));
}

#[test]
fn a_switchover_takes_a_second_and_loses_nothing() {
    let script = vec![(1_000, commit(1, 1)), (3_500, commit(1, 1)), (3_600, commit(1, 2))];
    let mut bench = bench(15, vec![played(1, script)]);
    bench.run_to(1_500);
    fault(&mut bench, Fault::Switchover);
    bench.run_to(5_000);
    assert_ne!(primary(&bench), 0);
    assert_eq!(verdict(&bench, 0, 3), stored());
    assert_eq!(verdict(&bench, 0, 4), applied());
}

#[test]
fn what_was_held_before_the_socket_leaves_late_and_executes() {
    let mut bench = bench(16, vec![played(1, vec![(1_000, commit(1, 1))])]);
    let node = bench.callers[0];
    bench.run_to(900).inject(WorldFault::HoldOutbox { node, which: crate::Which::LedgerCommit });
    bench.run_to(20_000);
    assert_eq!(accepted_at(&mut bench, 1), None);
    bench.inject(WorldFault::Resume { node }).run_to(21_000);
    assert!(accepted_at(&mut bench, 1).unwrap() >= 20_000);
    assert_eq!(verdict(&bench, 0, 2), Outcome::Unknown);
}

#[test]
fn a_caller_notices_a_power_loss_only_by_its_own_deadline() {
    let script = vec![(1_000, commit(1, 1)), (3_500, commit(1, 1))];
    let mut bench = bench(17, vec![played(1, script)]);
    let node = bench.members[0];
    bench.run_to(900).inject(WorldFault::Crash { node });
    bench.run_to(6_000);
    assert_eq!((bench.caller(0).ledger(2).unwrap().0, verdict(&bench, 0, 2)), (3_000, Outcome::Unknown));
    assert_eq!(verdict(&bench, 0, 3), refused(Refusal::Unreachable), "and then finds no primary to connect to");
}
