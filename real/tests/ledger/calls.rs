//! What the four calls answer and write. That they agree with the simulator's ledger in every case is compared elsewhere
//! (`real/drill/tests/ledger_model.rs`); here stands what a reader should know.

use super::support::*;
use worldline_proto::{CharacterId, Digest, EntityId, EntityKind, Epoch, Generation, Nonce, OpNumber, Version};
use worldline_real::ledger;
use worldline_system::{
    Outcome, Refusal,
    doors::ledger::{
        Answer, Checkpoint, Checkpointed, Effect, OpResult, Operation, Roster, RuleRefusal, Submission, Verdict,
    },
    history::Acceptance,
    limits::{BATCH_OPERATIONS, CLAIM_ENTITIES, RESULTS_KEPT, ROSTER_PAGE},
    rules::space::Position,
    time::UnixTime,
};

#[tokio::test]
async fn a_blow_takes_what_is_left_and_pays_what_the_purse_holds() {
    let url = world().await;
    let ledger = begun(&url).await;
    let applied = |dealt, remaining, bounty| {
        Verdict::Applied(OpResult::Hit { target: boss(), dealt, remaining, experience: 7, bounty })
    };
    let dead = OpResult::Refused(RuleRefusal::TargetDead);
    let verdicts = commit(&ledger, vec![hit(1, 60), hit(2, 60), hit(3, 60), hit(3, 60)]).await;
    assert_eq!(verdicts, [applied(60, 40, 20), applied(40, 0, 10), Verdict::Applied(dead), Verdict::Stored(dead)]);
    let tables = ledger::tables(&url).await.unwrap();
    let balances: i128 = tables.rows.iter().map(|row| i128::from(row.balance)).sum();
    assert_eq!(balances, tables.minted);
    assert_eq!(tables.applied_through[0], (hero(), OpNumber(3)));
    assert_eq!(tables.results.iter().map(|(_, stored)| stored.number.0).collect::<Vec<_>>(), [1, 2, 3]);
}

#[tokio::test]
async fn a_stored_result_is_returned_before_session_gap_and_fence_are_looked_at() {
    let url = world().await;
    let ledger = begun(&url).await;
    let first = commit(&ledger, vec![hit(1, 10)]).await;
    let Verdict::Applied(result) = first[0] else { panic!("{first:?}") };
    login(&ledger, 2).await;
    claim(&ledger, 2, &[(hero().entity(), 2), (boss(), 2)]).await;
    let other = Operation { digest: Digest([9; 16]), ..hit(1, 10) };
    let never = Operation { number: OpNumber(0), ..hit(1, 10) };
    let verdicts = commit(&ledger, vec![hit(1, 10), other, never]).await;
    assert_eq!(verdicts, [Verdict::Stored(result), Verdict::Conflict, Verdict::Forgotten]);
}

#[tokio::test]
async fn refusals_come_in_their_order_and_one_does_not_touch_another() {
    let url = world().await;
    let ledger = begun(&url).await;
    let (hero, none) = (hero().entity(), EntityId::new(EntityKind::Npc, 77).unwrap());
    let with = |authority| Operation { authority, ..hit(1, 10) };
    let fenced = |entity, highest| Verdict::Fenced { entity, highest: Epoch(highest) };
    let cases = [
        (Operation { generation: Generation(u64::MAX), number: OpNumber(9), ..hit(1, 1) }, {
            Verdict::StaleSession { current: Generation(1) }
        }),
        (Operation { number: OpNumber(u64::MAX), authority: vec![], ..hit(1, 1) }, {
            Verdict::Gap { expected: OpNumber(1) }
        }),
        (with(vec![authority(hero, u64::MAX, 1), authority(boss(), 1, 1)]), fenced(hero, 1)),
        (with(vec![authority(hero, 1, 2), authority(boss(), 1, 1)]), fenced(hero, 1)),
        (with(vec![authority(boss(), 0, 1), authority(hero, 0, 1)]), fenced(boss(), 1)),
        (with(vec![authority(hero, 1, 1)]), fenced(boss(), 1)),
        (with(vec![authority(hero, 1, 1), authority(boss(), 1, 1), authority(none, 1, 1)]), fenced(none, 0)),
        (Operation { character: CharacterId::new(99).unwrap(), ..hit(1, 1) }, {
            fenced(CharacterId::new(99).unwrap().entity(), 0)
        }),
    ];
    let (mut operations, mut expected): (Vec<_>, Vec<_>) = cases.into_iter().unzip();
    let before = ledger::tables(&url).await.unwrap();
    assert_eq!(commit(&ledger, operations.clone()).await, expected);
    assert_eq!(ledger::tables(&url).await.unwrap(), before, "a refusal writes nothing");
    // One that passes stands first; what follows finds its number taken, and answers by what is stored under it.
    let passes = Operation { effect: Effect::Refuse(RuleRefusal::Cooldown), ..hit(1, 0) };
    let result = OpResult::Refused(RuleRefusal::Cooldown);
    operations.truncate(2);
    operations.extend([passes, with(vec![])]);
    expected.truncate(2);
    expected.extend([Verdict::Applied(result), Verdict::Stored(result)]);
    assert_eq!(commit(&ledger, operations).await, expected);
}

#[tokio::test]
async fn the_latest_results_are_kept_and_older_ones_forgotten() {
    let url = world().await;
    let ledger = begun(&url).await;
    let kept = RESULTS_KEPT as u64;
    let verdicts = commit(&ledger, (1..=kept + 1).map(|number| hit(number, 0)).collect()).await;
    assert!(verdicts.iter().all(|verdict| matches!(verdict, Verdict::Applied(_))));
    assert_eq!(commit(&ledger, vec![hit(1, 0)]).await, [Verdict::Forgotten]);
    assert!(matches!(commit(&ledger, vec![hit(2, 0)]).await[0], Verdict::Stored(_)));
    let durable = claim(&ledger, 1, &[(hero().entity(), 1)]).await.remove(0).unwrap();
    let numbers: Vec<u64> = durable.results.iter().map(|stored| stored.number.0).collect();
    assert_eq!(numbers, (2..=kept + 1).collect::<Vec<_>>(), "oldest first");
}

#[tokio::test]
async fn a_claim_raises_the_fence_or_says_how_high_it_stands() {
    let url = world().await;
    let (ledger, _) = adapter(&url, 2);
    let (hero, nobody) = (hero().entity(), EntityId::new(EntityKind::Npc, 9).unwrap());
    let top = u64::MAX;
    let fenced = |highest| Err(Refusal::Fenced { highest: Epoch(highest) });
    let each = claim(&ledger, 1, &[(hero, 4), (nobody, 1), (hero, 4), (hero, 3)]).await;
    assert!(each[0].is_ok() && each[2].is_ok(), "the same claim again passes: {each:?}");
    assert_eq!((&each[1], &each[3]), (&Err(Refusal::Malformed), &fenced(4)));
    assert_eq!(claim(&ledger, 2, &[(hero, 4)]).await[0], fenced(4));
    assert!(claim(&ledger, i64::MAX as u64, &[(hero, top)]).await[0].is_ok(), "an epoch may be any");
    assert_eq!(claim(&ledger, 1, &[(hero, top)]).await[0], fenced(top));
    let raised: Vec<_> = ledger::journal(&url).await.unwrap().into_iter().map(|(_, accepted)| accepted).collect();
    let raise = |epoch, by, before: Option<(u64, u64)>| Acceptance::FenceRaised {
        authority: authority(hero, epoch, by),
        before: before.map(|(epoch, by)| (Epoch(epoch), lease(by))),
    };
    let last = raise(top, i64::MAX as u64, Some((4, 1)));
    assert_eq!(raised, [raise(4, 1, None), raise(4, 1, Some((4, 1))), last]);
}

#[tokio::test]
async fn a_login_counts_up_unless_it_is_the_same_login_again() {
    let url = world().await;
    let (ledger, _) = adapter(&url, 2);
    assert_eq!(login(&ledger, u64::MAX).await.generation, Generation(1), "a nonce may be any");
    assert_eq!(login(&ledger, u64::MAX).await.generation, Generation(1));
    assert_eq!(login(&ledger, u64::MAX - 1).await.generation, Generation(2));
    let character = CharacterId::new(77).unwrap();
    let unknown = ask(&ledger, Submission::Login { character, nonce: Nonce(1), issued_unix_ms: 0 }).await;
    assert_eq!(unknown, Answer::LoggedIn(Outcome::Refused(Refusal::Malformed)));
}

#[tokio::test]
async fn a_checkpoint_passes_at_the_fence_and_moves_its_entity_in_the_roster() {
    let url = world().await;
    let ledger = begun(&url).await;
    let checkpoint = |epoch, version, x_mm| Checkpoint {
        authority: authority(hero().entity(), epoch, 1),
        version: Version(version),
        state: Checkpointed { position: Position { x_mm, y_mm: -x_mm }, cooldown_end: UnixTime::from_nanos(u64::MAX) },
    };
    let submission = batch(vec![], vec![checkpoint(1, u64::MAX, 20), checkpoint(1, 1, 10), checkpoint(2, 3, 30)]);
    let Answer::Committed(Outcome::Done(committed)) = ask(&ledger, submission).await else { panic!() };
    assert_eq!(committed.checkpoints, [Ok(()), Ok(()), Err(Epoch(1))], "an older one passes and writes nothing");
    let Answer::Roster(Outcome::Done(Roster { entries, more })) =
        ask(&ledger, Submission::Roster { after: None, limit: 1 }).await
    else {
        panic!()
    };
    assert_eq!(
        (entries[0].entity, entries[0].position, more),
        (hero().entity(), Position { x_mm: 20, y_mm: -20 }, true)
    );
    let after = Some(CharacterId::new(40).unwrap().entity());
    let Answer::Roster(Outcome::Done(page)) = ask(&ledger, Submission::Roster { after, limit: 500 }).await else {
        panic!()
    };
    assert_eq!((page.entries.len(), page.entries[0].entity, page.more), (1, boss(), false));
    let durable = claim(&ledger, 1, &[(hero().entity(), 1)]).await.remove(0).unwrap();
    assert_eq!(durable.checkpoint, Some((Epoch(1), Version(u64::MAX), checkpoint(1, 1, 20).state)));
}

#[tokio::test]
async fn what_is_beyond_a_limit_is_malformed() {
    let url = world().await;
    let (ledger, _) = adapter(&url, 2);
    let entities = vec![(boss(), Epoch(1)); CLAIM_ENTITIES + 1];
    let refused = Answer::Claimed(Outcome::Refused(Refusal::Malformed));
    assert_eq!(ask(&ledger, Submission::Claim { lease: lease(1), entities }).await, refused);
    let refused = Answer::Committed(Outcome::Refused(Refusal::Malformed));
    assert_eq!(ask(&ledger, batch(vec![hit(1, 1); BATCH_OPERATIONS + 1], vec![])).await, refused);
    for limit in [0, ROSTER_PAGE + 1] {
        let refused = Answer::Roster(Outcome::Refused(Refusal::Malformed));
        assert_eq!(ask(&ledger, Submission::Roster { after: None, limit }).await, refused);
    }
}

#[tokio::test]
async fn the_journal_tells_each_thing_once_in_the_order_of_the_commits() {
    let url = world().await;
    let ledger = begun(&url).await;
    let before = worldline_real::clock::unix_now();
    let verdict = commit(&ledger, vec![hit(1, 60)]).await[0];
    commit(&ledger, vec![hit(1, 60), Operation { number: OpNumber(7), ..hit(1, 1) }]).await;
    let journal = ledger::journal(&url).await.unwrap();
    assert!(journal.is_sorted_by_key(|(at, _)| *at));
    let (at, last) = journal.last().unwrap();
    assert!(at.as_nanos() / 1_000 >= before.as_nanos() / 1_000, "{at:?} is the time of the commit");
    let Acceptance::OperationApplied { operation, verdict: told, rows, .. } = last else { panic!("{last:?}") };
    assert_eq!((&**operation, *told), (&hit(1, 60), verdict));
    let tables = ledger::tables(&url).await.unwrap();
    assert_eq!(rows[..], [tables.rows[0], *tables.rows.last().unwrap()], "hero and boss as they stand");
    assert_eq!(journal.len(), 4, "two claims, a login, a blow: {journal:#?}");
}

#[tokio::test]
async fn a_full_audit_journals_what_was_only_answered() {
    let url = world().await;
    let name = url.rsplit('/').next().unwrap();
    sql(&url, &format!("alter database {name} set worldline.audit = 'full'")).await;
    let ledger = begun(&url).await;
    commit(&ledger, vec![hit(2, 60)]).await;
    let (_, last) = ledger::journal(&url).await.unwrap().pop().unwrap();
    let (character, number, digest) = (hero(), OpNumber(2), Digest([2; 16]));
    let verdict = Verdict::Gap { expected: OpNumber(1) };
    assert_eq!(last, Acceptance::OperationPassed { character, number, digest, verdict });
}

#[tokio::test]
async fn an_operator_reads_names_and_leases() {
    let url = world().await;
    let ledger = begun(&url).await;
    commit(&ledger, vec![hit(1, 60)]).await;
    let owned =
        "select count(*) from worldline.owners where entity = 'boss-1' and epoch = 1 and lease = '0000000000000001'";
    assert_eq!(number(&url, owned).await, 1);
    assert_eq!(number(&url, "select dealt from worldline.operations where character = 'character-1'").await, 60);
    assert_eq!(number(&url, "select (held - minted)::bigint from worldline.money").await, 0);
    assert_eq!(number(&url, "select hit_points from worldline.entities where name = 'boss-1'").await, 40);
}

#[tokio::test]
async fn the_server_keeps_as_many_results_as_the_owners_do() {
    let url = world().await;
    assert_eq!(number(&url, "select worldline.results_kept()::bigint").await, RESULTS_KEPT as i64);
}
