//! What a worker does with the facts of its batches.

use super::*;
use worldline_proto::FactSequence;
use worldline_system::{
    doors::{
        bus::{self, MessageId, Published, StreamSequence, Subject},
        ledger::{FactBody, FactRow},
    },
    facts,
    time::Duration,
};

fn fact(sequence: u64) -> FactRow {
    let body = FactBody::Hit { dealt: 90, remaining: 910, experience: 45, bounty: 3 };
    let (sequence, number) = (FactSequence(sequence), OpNumber(sequence));
    FactRow { aggregate: boss(), sequence, character: character(), number, body }
}

/// A worker whose hero has hit the boss: the batch is committed and wrote fact 17. And whether its lease stood then.
fn struck(in_time: bool) -> Bench<Worker> {
    let mut bench = worker();
    bench.serve(&[boss(), character().entity()]);
    bench.perform(1, 1, boss());
    let (op, batch) = bench.tick_to_commit();
    if !in_time {
        bench.now = bench.now + LeaseTimes::default().ttl;
    }
    let checkpoints = batch.checkpoints.iter().map(|_| Ok(())).collect();
    let committed = Committed { verdicts: vec![Verdict::Applied(hit())], checkpoints, facts: vec![fact(17)] };
    bench.ledger(op, Answer::Committed(Outcome::Done(committed)));
    bench
}

fn published(bench: &mut Bench<Worker>, outcome: Outcome<Published>) {
    let (op, _) = bench.asked_bus().remove(0);
    bench.bus(op, bus::Answer::Published(outcome));
}

const STORED: Outcome<Published> = Outcome::Done(Published { sequence: StreamSequence(4), duplicate: false });

/// The flags in the batches of the next `span`, and how long until the first of them.
fn flags(bench: &mut Bench<Worker>, span: Duration) -> Vec<(EntityId, FactSequence)> {
    let end = bench.now + span;
    while bench.now < end {
        bench.now = bench.now + limits::TICK;
        bench.timer(TICK);
        if let Some((op, ToLedger::Commit(batch))) = bench.asked_ledger().into_iter().next() {
            bench.commit(op, &batch, Verdict::Applied(hit()));
            if !batch.published.is_empty() {
                return batch.published.clone();
            }
        }
    }
    Vec::new()
}

#[test]
fn a_fact_is_published_once_behind_the_answer_under_an_id_of_its_own() {
    let mut bench = struck(true);
    let place = |pick: fn(&worldline_system::doors::Submission) -> bool| bench.outbox.iter().position(pick);
    use worldline_system::doors::Submission as S;
    let answered = place(|s| matches!(s, S::Network(ToNetwork::Reply { .. }))).expect("an answer");
    let told = place(|s| matches!(s, S::Bus(_))).expect("a publish");
    assert!(answered < told, "the player does not wait for it");
    let asked = bench.asked_bus();
    let [(_, bus::Submission::Publish { subject, message, payload, .. })] = &asked[..] else { panic!("{asked:?}") };
    assert_eq!((*subject, *message), (Subject::Fact(boss()), MessageId { entity: boss(), number: 17 }));
    assert_eq!(facts::decode(payload), Ok(fact(17)));
    published(&mut bench, STORED);
    assert!(bench.asked_bus().is_empty() && bench.asked_ledger().is_empty());
}

#[test]
fn its_flag_rides_in_the_next_batch_and_waits_no_longer_than_a_second_for_one() {
    let mut bench = struck(true);
    published(&mut bench, STORED);
    bench.perform(2, 2, boss());
    let (_, batch) = bench.tick_to_commit();
    assert_eq!(batch.published, [(boss(), FactSequence(17))]);

    let mut bench = struck(true);
    published(&mut bench, STORED);
    let at_once = flags(&mut bench, limits::FLAG_WAIT - limits::TICK);
    assert_eq!(at_once, [], "a batch of its own would cost more than it is worth");
    assert_eq!(flags(&mut bench, limits::TICK * 3), [(boss(), FactSequence(17))]);
    assert_eq!(flags(&mut bench, limits::FLAG_WAIT * 2), [], "and it is set once");
}

#[test]
fn what_the_bus_did_not_certainly_take_is_not_flagged() {
    for outcome in [Outcome::Unknown, Outcome::Refused(Refusal::NoStream)] {
        let mut bench = struck(true);
        published(&mut bench, outcome.clone());
        assert!(bench.asked_bus().is_empty(), "the relay publishes it: {outcome:?}");
        assert_eq!(flags(&mut bench, limits::FLAG_WAIT * 3), [], "{outcome:?}");
    }
}

#[test]
fn a_worker_past_its_lease_publishes_nothing() {
    let bench = struck(false);
    assert_eq!(bench.role.phase(), Phase::Suspended);
    assert!(bench.asked_bus().is_empty() && bench.replies().is_empty());
}
