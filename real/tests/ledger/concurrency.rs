//! Many callers at once: each batch as if it were alone, no two in a circle.

use super::support::*;
use std::collections::BTreeSet;
use worldline_proto::{Digest, Generation, Nonce, OpNumber};
use worldline_real::{entropy, ledger};
use worldline_system::{
    Outcome, Refusal,
    doors::{
        entropy::Entropy,
        ledger::{Answer, Effect, OpResult, Operation, Submission, Verdict},
    },
    rules::attack::Blow,
};

#[tokio::test(flavor = "multi_thread")]
async fn of_two_claimants_at_one_epoch_one_wins_and_the_other_is_told() {
    let url = world().await;
    let (one, two) = (adapter(&url, 2).0, adapter(&url, 2).0);
    for epoch in 1..=30 {
        let entities = [(boss(), epoch), (hero().entity(), epoch)];
        let (first, second) = tokio::join!(claim(&one, 1, &entities), claim(&two, 2, &entities));
        let won = |each: &[Result<_, Refusal>]| each.iter().all(Result::is_ok);
        let lost = |each: &[Result<_, Refusal>]| {
            each.iter().all(|one| matches!(one, Err(Refusal::Fenced { highest }) if highest.0 == epoch))
        };
        assert!(won(&first) && lost(&second) || won(&second) && lost(&first), "{first:?} {second:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_submitted_many_times_at_once_applies_once() {
    let url = world().await;
    let ledger = begun(&url).await;
    let calls: Vec<_> = (0..12)
        .map(|_| {
            tokio::spawn({
                let ledger = ledger.clone();
                async move { commit(&ledger, vec![hit(1, 10), hit(2, 10)]).await }
            })
        })
        .collect();
    let (mut applied, mut results) = (0, BTreeSet::new());
    for call in calls {
        let verdicts = call.await.unwrap();
        applied += verdicts.iter().filter(|verdict| matches!(verdict, Verdict::Applied(_))).count();
        results.insert(format!("{:?}", verdicts.map_results()));
    }
    assert_eq!((applied, results.len()), (2, 1), "one applies, all have the same results: {results:?}");
    assert_eq!(number(&url, "select hit_points from worldline.entities where name = 'boss-1'").await, 80);
}

trait MapResults {
    fn map_results(&self) -> Vec<OpResult>;
}

impl MapResults for Vec<Verdict> {
    fn map_results(&self) -> Vec<OpResult> {
        let result = |verdict: &Verdict| match verdict {
            Verdict::Applied(result) | Verdict::Stored(result) => *result,
            other => panic!("{other:?}"),
        };
        self.iter().map(result).collect()
    }
}

/// `count` of the characters, in a random order.
fn some_of(entropy: &mut Entropy, count: usize) -> Vec<u64> {
    let mut all: Vec<u64> = (1..=40).collect();
    for place in 0..count {
        let other = place + usize::try_from(entropy.below((all.len() - place) as u64)).unwrap();
        all.swap(place, other);
    }
    all.truncate(count);
    all
}

/// Each character belongs to one caller, so that its numbers have an order; rows of others are locked along with it.
#[tokio::test(flavor = "multi_thread")]
async fn overlapping_batches_in_any_order_never_deadlock_and_lose_nothing() {
    const CALLERS: u64 = 8;
    const ROUNDS: u64 = 25;
    let url = world().await;
    let (ledger, _) = adapter(&url, 8);
    sql(&url, "update worldline.entities set hit_points = 1000000 where name = 'boss-1'").await;
    let everybody: Vec<_> = (1..=40).map(|n| (character(n).entity(), 1)).chain([(boss(), 1)]).collect();
    claim(&ledger, 1, &everybody).await;
    for n in 1..=40 {
        let login = Submission::Login { character: character(n), nonce: Nonce(n), issued_unix_ms: 0 };
        assert!(matches!(ask(&ledger, login).await, Answer::LoggedIn(Outcome::Done(_))));
    }
    let callers: Vec<_> = (0..CALLERS)
        .map(|caller| {
            let ledger = ledger.clone();
            tokio::spawn(async move {
                let mut entropy = entropy::fresh().unwrap();
                for round in 1..=ROUNDS {
                    let mut operations = Vec::new();
                    for n in some_of(&mut entropy, 40).into_iter().filter(|n| n % CALLERS == caller) {
                        let mut authorities = vec![authority(character(n).entity(), 1, 1), authority(boss(), 1, 1)];
                        authorities
                            .extend(some_of(&mut entropy, 3).iter().map(|&n| authority(character(n).entity(), 1, 1)));
                        operations.push(Operation {
                            character: character(n),
                            generation: Generation(1),
                            number: OpNumber(round),
                            digest: Digest([round as u8; 16]),
                            authority: authorities,
                            effect: Effect::Attack {
                                target: boss(),
                                blow: Blow { damage: 3, experience: 1, bounty: 0 },
                            },
                        });
                    }
                    let verdicts = commit(&ledger, operations).await;
                    assert!(verdicts.iter().all(|verdict| matches!(verdict, Verdict::Applied(_))), "{verdicts:?}");
                    let again: Vec<_> = some_of(&mut entropy, 6).iter().map(|&n| (character(n).entity(), 1)).collect();
                    assert!(claim(&ledger, 1, &again).await.iter().all(Result::is_ok));
                }
            })
        })
        .collect();
    for caller in callers {
        caller.await.unwrap();
    }
    let tables = ledger::tables(&url).await.unwrap();
    assert_eq!(tables.rows.last().unwrap().hit_points, 1_000_000 - 3 * 40 * u32::try_from(ROUNDS).unwrap());
    assert!(tables.rows[..40].iter().all(|row| row.experience == i64::try_from(ROUNDS).unwrap()));
}
