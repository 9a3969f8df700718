//! What a caller of the ledger sees when things go well, and when they do not.

use super::*;
use crate::{
    Fault as WorldFault,
    testing::{Ask, Bench, Caller},
};
use std::sync::Arc;
use worldline_proto::{Digest, EntityKind, Epoch, Generation, LeaseId, Nonce};
use worldline_system::{
    Outcome, Refusal,
    doors::ledger::{Authority, Batch, Effect, Login, Operation, Verdict},
    history::Acceptance,
    rules::attack::Blow,
};

fn hero(n: u64) -> CharacterId {
    CharacterId::new(n).unwrap()
}

fn boss() -> EntityId {
    EntityId::new(EntityKind::Boss, 1).unwrap()
}

/// A world with a ledger, a boss, and one hero a caller.
fn bench(seed: u64, callers: Vec<Caller>) -> Bench {
    let heroes = callers.len() as u64;
    Bench::new(seed, callers, |world, members| {
        let seed =
            |entity| Seed { entity, position: Position::default(), pinned: None, hit_points: 1_000_000, balance: 100 };
        let seeds = (1..=heroes).map(|n| hero(n).entity()).chain([boss()]).map(seed).collect();
        world.set_ledger(Config::new(members, seeds));
    })
}

fn login(n: u64) -> Ask {
    Submission::Login { character: hero(n), nonce: Nonce(n) }.into()
}

/// Claims hero `n` at an epoch under the lease of that number.
fn claim(n: u64, epoch: u64) -> Ask {
    let entities = vec![(hero(n).entity(), Epoch(epoch))];
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
    Submission::Commit(Arc::new(Batch { operations: vec![operation(n, number)], checkpoints: vec![] })).into()
}

fn within(ask: Ask, ms: u64) -> Ask {
    match ask {
        Ask::Ledger(submission, _) => Ask::Ledger(submission, Duration::from_millis(ms)),
        Ask::Directory(..) => panic!("of the ledger"),
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
    assert_eq!(kinds.len(), 3, "login, claim and operation are told once each");
    let model = bench.world.ledger().unwrap();
    assert_eq!(model.columns(hero(1).entity()).unwrap().applied_through, OpNumber(1));
    assert!(model.stored_result(hero(1), OpNumber(1)).is_some());
}
