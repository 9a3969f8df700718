//! What publishers and readers see when things go well.

use super::{nats::Nats, *};
use worldline_system::Refusal;

#[test]
fn a_publish_is_stored_once_under_its_id_and_only_behind_what_it_follows() {
    let nats = Nats::start("");
    let mut caller = Caller::connected(&nats.url());
    assert_eq!(caller.publish(1, 1), stored(1));
    assert_eq!(caller.publish(1, 1), known(1));
    assert_eq!(caller.publish_after(1, 2, Some(1)), stored(2));
    let wrong = Outcome::Refused(Refusal::WrongSequence { last: StreamSequence(2) });
    assert_eq!(caller.publish_after(1, 3, Some(1)), wrong);
    assert_eq!(caller.publish_after(2, 1, Some(0)), stored(3), "each subject has its own last");
    assert_eq!(caller.publish_after(1, 2, Some(1)), known(2), "a duplicate is told before its place is looked at");
}

#[test]
fn a_payload_has_a_bound() {
    let nats = Nats::start("");
    let mut caller = Caller::connected(&nats.url());
    let of = |bytes: usize| {
        let Submission::Publish { subject, message, after, .. } = publish(1, bytes as u64, None) else {
            unreachable!()
        };
        Submission::Publish { subject, message, after, payload: vec![7; bytes].into() }
    };
    assert_eq!(caller.call(of(limits::BUS_PAYLOAD_BYTES)), Answer::Published(stored(1)));
    let refused = Answer::Published(Outcome::Refused(Refusal::Malformed));
    assert_eq!(caller.call(of(limits::BUS_PAYLOAD_BYTES + 1)), refused);
    let consumer = caller.consume(None, Start::Beginning);
    assert_eq!(caller.message(consumer).payload.len(), limits::BUS_PAYLOAD_BYTES);
}

#[test]
fn a_consumer_begins_where_it_is_told_and_delivers_in_order() {
    let nats = Nats::start("");
    let mut caller = Caller::connected(&nats.url());
    (1..=4).for_each(|n| assert_eq!(caller.publish(n % 2, n), stored(n)));
    let all = caller.consume(None, Start::Beginning);
    let first = caller.message(all);
    assert_eq!((first.subject, first.payload.as_ref()), (Subject::Fact(boss(1)), 1_u64.to_le_bytes().as_slice()));
    assert!(first.published <= clock::unix_now() && first.delivery == 1);
    assert_eq!(caller.messages(all, 2), [(2, 1), (3, 1)]);
    let published = caller.message(all).published;
    caller.close(all);
    for (start, sequence) in [(Start::Sequence(StreamSequence(3)), 3), (Start::Time(published), 4)] {
        let consumer = caller.consume(None, start);
        assert_eq!(caller.messages(consumer, 1), [(sequence, 1)], "{start:?}");
        caller.close(consumer);
    }
    let new = caller.consume(None, Start::New);
    assert_eq!(caller.publish(1, 9), stored(5));
    assert_eq!(caller.messages(new, 1), [(5, 1)]);
}

#[test]
fn what_is_not_acknowledged_comes_again_and_what_is_rejected_at_once() {
    let nats = Nats::start("");
    let mut caller = Caller::connected(&nats.url());
    (1..=3).for_each(|n| assert_eq!(caller.publish(1, n), stored(n)));
    let consumer = caller.consume(None, Start::Beginning);
    assert_eq!(caller.messages(consumer, 3), [(1, 1), (2, 1), (3, 1)]);
    let reject = |sequence| Submission::Reject { consumer, sequence: StreamSequence(sequence) };
    assert_eq!(caller.call(reject(2)), Answer::Rejected(Outcome::Done(())));
    assert_eq!(caller.messages(consumer, 1), [(2, 2)]);
    assert_eq!(caller.acknowledge(consumer, 2), Outcome::Done(()));
    assert_eq!(caller.call(reject(2)), Answer::Rejected(Outcome::Refused(Refusal::NotServing)));
    assert_eq!(caller.messages(consumer, 1), [(3, 2)], "after its time");
    assert_eq!(caller.acknowledge(consumer, 3), Outcome::Done(()));
    assert_eq!(caller.acknowledge(consumer, 3), Outcome::Done(()), "there is nothing left to tell");
    assert_eq!(caller.publish(1, 4), stored(4));
    assert_eq!(caller.messages(consumer, 1), [(4, 1)], "and nothing of before comes again");
}

#[test]
fn an_acknowledgement_counts_also_behind_that_of_one_which_came_again() {
    let nats = Nats::start("");
    let mut caller = Caller::connected(&nats.url());
    (1..=3).for_each(|n| assert_eq!(caller.publish(1, n), stored(n)));
    let consumer = caller.consume(None, Start::Beginning);
    caller.messages(consumer, 3);
    caller.call(Submission::Reject { consumer, sequence: StreamSequence(1) });
    assert_eq!(caller.messages(consumer, 1), [(1, 2)]);
    assert_eq!(caller.acknowledge(consumer, 1), Outcome::Done(()), "delivered last");
    assert_eq!(caller.acknowledge(consumer, 3), Outcome::Done(()), "delivered before it");
    let mut info = caller.jetstream(&nats.url());
    info.set_timeout(Duration::from_secs(10));
    let names = caller.runtime.block_on(async {
        let stream = info.get_stream("WORLDLINE_FACTS").await.expect("it is there");
        let mut consumers = stream.consumers();
        futures_util::StreamExt::next(&mut consumers).await.expect("one").expect("told")
    });
    assert_eq!((names.num_ack_pending, names.ack_floor.stream_sequence), (0, 3));
}

#[test]
fn no_more_than_the_credits_are_out() {
    let nats = Nats::start("");
    let mut caller = Caller::connected(&nats.url());
    let many = limits::BUS_CREDITS as u64 + 10;
    let ops: Vec<OpId> = (1..=many).map(|n| caller.ask(publish(1, n, None))).collect();
    ops.into_iter().for_each(|op| assert!(matches!(caller.answer(op), Answer::Published(Outcome::Done(_)))));
    let consumer = caller.consume(None, Start::Beginning);
    let first = caller.messages(consumer, limits::BUS_CREDITS);
    assert_eq!(first.last(), Some(&(limits::BUS_CREDITS as u64, 1)));
    assert_eq!(caller.acknowledge(consumer, 4), Outcome::Done(()));
    let next = limits::BUS_CREDITS as u64 + 1;
    assert_eq!(caller.messages(consumer, 4), (next..next + 4).map(|n| (n, 1)).collect::<Vec<_>>());
}

#[test]
fn a_durable_consumer_goes_on_behind_what_was_acknowledged_for_its_reader_s_next_life() {
    let nats = Nats::start("");
    let mut caller = Caller::connected(&nats.url());
    (1..=4).for_each(|n| assert_eq!(caller.publish(1, n), stored(n)));
    let consumer = caller.consume(Some(7), Start::Beginning);
    caller.messages(consumer, 4);
    assert_eq!(caller.acknowledge(consumer, 2), Outcome::Done(()));
    drop(caller);
    let mut next = Caller::connected(&nats.url());
    let consumer = next.consume(Some(7), Start::New);
    let mut told = next.messages(consumer, 2);
    told.sort_unstable();
    assert_eq!(told, [(3, 2), (4, 2)]);
}

#[test]
fn a_node_has_so_many_consumers() {
    let nats = Nats::start("");
    let mut caller = Caller::connected(&nats.url());
    let consumers: Vec<OpId> = (0..limits::BUS_CONSUMERS).map(|_| caller.consume(None, Start::New)).collect();
    let busy = Answer::Consuming(Outcome::Refused(Refusal::Busy));
    assert_eq!(caller.call(consume(None, Start::New)), busy);
    caller.call(Submission::Close(consumers[0]));
    assert_eq!(caller.acknowledge(consumers[0], 1), Outcome::Refused(Refusal::NotServing));
    caller.consume(None, Start::New);
}

#[test]
fn what_others_put_on_the_stream_is_passed_over_and_counted() {
    let nats = Nats::start("");
    let mut caller = Caller::connected(&nats.url());
    let other = caller.jetstream(&nats.url());
    caller.runtime.block_on(async {
        for subject in ["worldline.facts.nobody", "worldline.facts.boss-x"] {
            other.publish(subject, "?".into()).await.expect("sent").await.expect("stored");
        }
    });
    assert_eq!(caller.publish(1, 1), stored(3));
    let consumer = caller.consume(None, Start::Beginning);
    assert_eq!(caller.messages(consumer, 1), [(3, 1)]);
    assert_eq!(caller.bus.counters(), [("unreadable", 2)]);
    assert_eq!(caller.acknowledge(consumer, 3), Outcome::Done(()));
}
