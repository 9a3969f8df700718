//! The outbox: written with the effect, read by whoever relays and whoever missed something, flagged once it is published.

use super::support::*;
use worldline_proto::{EntityId, FactSequence, OpNumber};
use worldline_real::ledger;
use worldline_system::{
    Outcome,
    doors::ledger::{Answer, Batch, Effect, FactBody, FactRow, FactSnapshot, Operation, RuleRefusal, Submission},
    history::Acceptance,
    time::Duration,
};

fn fact(sequence: u64, number: u64, dealt: u32, remaining: u32, bounty: i64) -> FactRow {
    let body = FactBody::Hit { dealt, remaining, experience: 7, bounty };
    FactRow { aggregate: boss(), sequence: FactSequence(sequence), character: hero(), number: OpNumber(number), body }
}

async fn page(ledger: &ledger::Ledger, submission: Submission) -> Vec<FactRow> {
    match ask(ledger, submission).await {
        Answer::Facts(Outcome::Done(page)) | Answer::Unpublished(Outcome::Done(page)) => page.facts,
        other => panic!("{other:?}"),
    }
}

async fn unpublished(ledger: &ledger::Ledger, older_than: Duration) -> Vec<u64> {
    let facts = page(ledger, Submission::Unpublished { older_than, limit: 500 }).await;
    facts.into_iter().map(|fact| fact.sequence.0).collect()
}

#[tokio::test]
async fn a_hit_writes_a_fact_with_its_effect_and_a_refusal_writes_none() {
    let url = world().await;
    let ledger = begun(&url).await;
    let refused = Operation { effect: Effect::Refuse(RuleRefusal::Cooldown), ..hit(2, 0) };
    let submission = batch(vec![hit(1, 60), refused, hit(3, 60), hit(3, 60), hit(4, 60)], vec![]);
    let Answer::Committed(Outcome::Done(committed)) = ask(&ledger, submission).await else { panic!() };
    let expected = [fact(1, 1, 60, 40, 20), fact(2, 3, 40, 0, 10)];
    assert_eq!(committed.facts, expected);
    let of_boss = Submission::Facts { aggregate: boss(), after: FactSequence(0), limit: 500 };
    assert_eq!(page(&ledger, of_boss).await, expected);
    let told: Vec<FactRow> = ledger::journal(&url).await.unwrap().into_iter().filter_map(fact_of).collect();
    assert_eq!(told, expected, "the journal tells each operation with what it wrote");
    assert_eq!(ledger::tables(&url).await.unwrap().facts, expected);
    let Answer::Snapshot(Outcome::Done(stands)) = ask(&ledger, Submission::Snapshot { entities: vec![boss()] }).await
    else {
        panic!()
    };
    assert_eq!(stands, [FactSnapshot { entity: boss(), hit_points: 0, sequence: FactSequence(2) }]);
}

fn fact_of((_, accepted): (worldline_system::time::UnixTime, Acceptance)) -> Option<FactRow> {
    match accepted {
        Acceptance::OperationApplied { fact, .. } => fact.map(|fact| *fact),
        _ => None,
    }
}

#[tokio::test]
async fn what_is_flagged_is_swept_no_more_and_an_operator_sees_since_when() {
    let url = world().await;
    let ledger = begun(&url).await;
    commit(&ledger, (1..=4).map(|number| hit(number, 1)).collect()).await;
    assert_eq!(unpublished(&ledger, Duration::from_secs(3_600)).await, [0_u64; 0], "all of them are young");
    assert_eq!(unpublished(&ledger, Duration::ZERO).await, [1, 2, 3, 4]);
    let flags = |sequences: &[u64]| sequences.iter().map(|&n| (boss(), FactSequence(n))).collect::<Vec<_>>();
    let rides = Batch { operations: vec![hit(5, 1)], checkpoints: vec![], published: flags(&[1, u64::MAX]) };
    assert!(matches!(ask(&ledger, Submission::Commit(rides.into())).await, Answer::Committed(Outcome::Done(_))));
    assert_eq!(unpublished(&ledger, Duration::ZERO).await, [2, 3, 4, 5], "one flag rode along");
    for _ in 0..2 {
        let flagged = ask(&ledger, Submission::Flag(flags(&[4, 2, 2, 77]))).await;
        assert_eq!(flagged, Answer::Flagged(Outcome::Done(())), "a flag may be set again");
    }
    assert_eq!(unpublished(&ledger, Duration::ZERO).await, [3, 5]);
    let seen = "select count(*) from worldline.facts where aggregate = 'boss-1' and \"character\" = 'character-1' \
                and sequence = number and body #>> '{Hit,dealt}' = '1' and published > written";
    assert_eq!(number(&url, seen).await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_flags_the_same_facts_in_any_order_waits_for_nobody_in_a_circle() {
    const FACTS: u64 = 60;
    let url = world().await;
    let ledger = begun(&url).await;
    commit(&ledger, (1..=FACTS).map(|number| hit(number, 0)).collect()).await;
    let mut forth: Vec<(EntityId, FactSequence)> = (1..=FACTS).map(|n| (boss(), FactSequence(n))).collect();
    let calls: Vec<_> = (0..8)
        .map(|_| {
            forth.reverse();
            let (ledger, facts) = (ledger.clone(), forth.clone());
            tokio::spawn(async move { ask(&ledger, Submission::Flag(facts)).await })
        })
        .collect();
    for call in calls {
        assert_eq!(call.await.unwrap(), Answer::Flagged(Outcome::Done(())));
    }
    assert_eq!(number(&url, "select count(*) from worldline.facts where published is null").await, 0);
}
