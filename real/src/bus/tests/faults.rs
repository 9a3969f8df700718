//! The server stops, dies and comes back, and what was set up there is taken away.

use super::{nats::Nats, *};
use worldline_system::Refusal;

#[test]
fn a_server_that_stands_still_leaves_a_publish_unknown_and_its_id_tells_afterwards() {
    let nats = Nats::start("");
    let mut caller = Caller::connected(&nats.url());
    assert_eq!(caller.publish(1, 1), stored(1));
    nats.stop();
    let op = caller.ask_within(publish(1, 2, None), time::Duration::from_millis(500));
    assert_eq!(caller.answer(op), Answer::Published(Outcome::Unknown));
    caller.problem("127.0.0.1");
    nats.go_on();
    caller.until_ready();
    let again = caller.publish(1, 2);
    assert!(again == stored(2) || again == known(2), "{again:?}");
    assert_eq!(caller.publish(1, 2), known(2));
}

#[test]
fn a_server_that_dies_ends_consumers_with_a_gap_and_keeps_what_it_stored() {
    let mut nats = Nats::start("");
    let mut caller = Caller::connected(&nats.url());
    assert_eq!(caller.publish(1, 1), stored(1));
    let consumer = caller.consume(Some(7), Start::Beginning);
    assert_eq!(caller.messages(consumer, 1), [(1, 1)]);
    assert_eq!(caller.acknowledge(consumer, 1), Outcome::Done(()));
    nats.kill();
    assert_eq!(caller.gap(consumer), GapCause::Disconnected);
    caller.problem("nobody answers");
    assert_eq!(caller.publish(1, 2), Outcome::Refused(Refusal::Unreachable));
    assert_eq!(caller.acknowledge(consumer, 1), Outcome::Refused(Refusal::NotServing));
    nats.restart();
    caller.until_ready();
    assert_eq!(caller.publish(1, 2), stored(2));
    let consumer = caller.consume(Some(7), Start::Beginning);
    assert_eq!(caller.messages(consumer, 1), [(2, 1)]);
}

#[test]
fn a_consumer_that_is_deleted_has_a_gap() {
    let nats = Nats::start("");
    let mut caller = Caller::connected(&nats.url());
    let consumer = caller.consume(Some(7), Start::New);
    let jetstream = caller.jetstream(&nats.url());
    let deleted = jetstream.delete_consumer_from_stream("replica-n7", "WORLDLINE_FACTS");
    caller.runtime.block_on(async { deleted.await.expect("it is there") });
    assert_eq!(caller.gap(consumer), GapCause::Ended);
    caller.consume(Some(7), Start::New);
}

#[test]
fn a_stream_that_is_removed_is_made_again_and_publishes_meanwhile_are_refused() {
    let nats = Nats::start("");
    let mut caller = Caller::connected(&nats.url());
    assert_eq!(caller.publish(1, 1), stored(1));
    let jetstream = caller.jetstream(&nats.url());
    caller.runtime.block_on(async { jetstream.delete_stream("WORLDLINE_FACTS").await.expect("it is there") });
    let by = clock::now() + SOON;
    let again = loop {
        match caller.publish(1, 1) {
            Outcome::Refused(Refusal::NoStream) if clock::now() < by => {}
            other => break other,
        }
    };
    assert_eq!(again, stored(1), "it is empty, and recognises no id");
}

#[test]
fn a_reader_that_does_not_keep_up_has_a_gap() {
    let nats = Nats::start("");
    let mut caller = Caller::connected(&nats.url());
    // Other news take all the credits that the inbox has.
    while caller.inbox.news(doors::Event::Stop) {}
    let (consumer, published) = (caller.ask(consume(None, Start::Beginning)), caller.ask(publish(1, 1, None)));
    // Two answers and the gap: these have slots of their own.
    let (all, by) = (limits::WATCH_CREDITS + 3, clock::now() + SOON);
    while caller.inbox.len() < all {
        assert!(clock::now() < by, "{} wait where {all} should", caller.inbox.len());
        std::thread::yield_now();
    }
    let mut rest = vec![];
    while let Some(event) = caller.inbox.next_event(Duration::ZERO) {
        if let doors::Event::Bus(event) = event {
            rest.push(event);
        }
    }
    let gap = Event::Gap { consumer, cause: GapCause::Overflow };
    assert!(rest.contains(&gap), "{rest:?}");
    let answer = Box::new(Answer::Published(stored(1)));
    assert!(rest.contains(&Event::Answered { op: published, answer }), "{rest:?}");
}

#[test]
fn who_closes_waits_for_what_it_asked_and_is_refused_afterwards() {
    let nats = Nats::start("");
    let mut caller = Caller::connected(&nats.url());
    let ops: Vec<OpId> = (1..=100).map(|n| caller.ask(publish(1, n, None))).collect();
    let closing = caller.bus.close();
    caller.runtime.block_on(closing);
    for op in ops {
        assert!(matches!(caller.answer(op), Answer::Published(Outcome::Done(_))));
    }
    assert_eq!(caller.publish(1, 101), Outcome::Refused(Refusal::Unreachable));
}

#[test]
fn a_cluster_elects_another_leader_and_keeps_what_was_answered() {
    let mut servers = Nats::cluster(3);
    let urls: Vec<String> = servers.iter().map(Nats::url).collect();
    let mut caller = Caller::new(&urls);
    caller.until_ready();
    assert_eq!(caller.publish(1, 1), stored(1));
    let leader = {
        let jetstream = caller.jetstream(&urls[0]);
        let stream =
            caller.runtime.block_on(async { jetstream.get_stream("WORLDLINE_FACTS").await.expect("it is there") });
        let cluster = stream.cached_info().cluster.clone().expect("it has members");
        assert_eq!(cluster.replicas.len(), 2, "besides the leader");
        cluster.leader.expect("somebody leads")
    };
    let at: usize = leader.trim_start_matches('s').parse().expect("its number");
    servers[at].kill();
    let by = clock::now() + SOON;
    let again = loop {
        match caller.publish_within(1, 2, time::Duration::from_secs(2)) {
            Outcome::Unknown | Outcome::Refused(_) if clock::now() < by => {}
            other => break other,
        }
    };
    assert!(again == stored(2) || again == known(2), "{again:?}");
    assert_eq!(caller.publish(1, 1), known(1));
    assert_eq!(caller.followed(&[1, 2]), [1, 2]);
}
