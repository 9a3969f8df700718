//! What the network door promises, and what it must be able to do to a role.

mod common;

use common::*;
use worldline_proto::NodeId;
use worldline_sim::{City, Fault};
use worldline_system::{
    Outcome, Refusal,
    doors::network::{CloseReason, StreamClass},
    time::Duration,
};

const A: NodeId = NodeId(0);
const B: NodeId = NodeId(1);

/// A puppet that connects at once and follows `script` from 1 s on.
fn caller(script: impl IntoIterator<Item = (Duration, Act)>) -> Puppet {
    Puppet::new([(ms(0), Act::Connect(B))].into_iter().chain(script))
}

fn repeat(times: u32, every: Duration, act: Act) -> Act {
    Act::Repeat(times, every, Box::new(act))
}

fn pair(seed: u64, script: impl IntoIterator<Item = (Duration, Act)>) -> Stage {
    stage(seed, [(City::Singapore, caller(script)), (City::Frankfurt, Puppet::silent())])
}

fn degrade(loss_permille: u32, duplicate_permille: u32, jitter: Duration) -> Fault {
    let (from, to, delay) = (vec![A], vec![B], ms(5));
    Fault::Degrade { id: 1, from, to, both: true, loss_permille, duplicate_permille, delay, jitter }
}

fn cut(from: NodeId, to: NodeId, both: bool) -> Fault {
    Fault::Cut { id: 2, from: vec![from], to: vec![to], both }
}

#[test]
fn messages_of_a_class_arrive_in_order_and_once_however_bad_the_link() {
    for seed in 0..20 {
        let script = [
            (ms(1_000), repeat(300, ms(2), Act::Send(StreamClass::Action, 0))),
            (ms(1_001), repeat(100, ms(5), Act::Send(StreamClass::State, 0))),
        ];
        let mut world = pair(seed, script);
        world.run_until(at_ms(900));
        world.inject(degrade(150, 200, ms(100)));
        world.run_until(at_ms(30_000));
        assert_eq!(received(&world, 1, StreamClass::Action), (0..300).collect::<Vec<_>>(), "seed {seed}");
        assert_eq!(received(&world, 1, StreamClass::State), (0..100).collect::<Vec<_>>(), "seed {seed}");
        assert!(world.core().counters().packets_repeated > 0);
    }
}

#[test]
fn datagrams_are_lost_doubled_and_overtaken_and_never_torn() {
    let mut world = pair(1, [(ms(1_000), repeat(1_000, ms(1), Act::Datagram(0)))]);
    world.run_until(at_ms(900));
    world.inject(degrade(100, 100, ms(20)));
    world.run_until(at_ms(5_000));
    let got = datagrams(&world, 1);
    let mut distinct = got.clone();
    distinct.sort_unstable();
    distinct.dedup();
    assert!((850..950).contains(&distinct.len()), "about one in ten is lost: {}", distinct.len());
    assert!((60..130).contains(&(got.len() - distinct.len())), "about one in ten is doubled: {}", got.len());
    assert!(!got.is_sorted(), "some are overtaken");
}

#[test]
fn a_handshake_takes_a_round_trip_and_nobody_there_takes_its_timeout() {
    let mut world = pair(1, []);
    world.run_until(at_ms(155));
    assert_eq!(heard(&world, 0).len(), 0, "Singapore and Frankfurt are 160 ms apart");
    world.run_until(at_ms(300));
    assert_eq!((heard(&world, 0).len(), heard(&world, 1).len()), (1, 1));

    let mut world = pair(1, []);
    world.inject(Fault::Crash { node: B });
    world.run_until(at_ms(10_000));
    assert_eq!(closed(&world, 0), [(ms(5_000), CloseReason::HandshakeTimeout)]);
}

#[test]
fn a_lost_handshake_is_tried_again() {
    let mut world = pair(1, []);
    world.inject(cut(A, B, true));
    world.run_until(at_ms(1_500));
    world.inject(Fault::Uncut { id: 2 });
    world.run_until(at_ms(4_000));
    assert!(world.actor(A).expect("started").0.connection.is_some());
    assert_eq!(heard(&world, 1).len(), 1, "and makes one connection");
}

#[test]
fn a_dead_peer_is_noticed_only_by_the_idle_timeout() {
    let mut world = pair(1, []);
    world.run_until(at_ms(1_000));
    world.inject(Fault::Crash { node: B });
    world.run_until(at_ms(5_500));
    assert_eq!(closed(&world, 0), []);
    world.run_until(at_ms(30_000));
    let closed = closed(&world, 0);
    assert_eq!(closed.len(), 1);
    assert_eq!(closed[0].1, CloseReason::IdleTimeout);
    assert!((6_000..8_000).contains(&closed[0].0.as_millis()), "{}", closed[0].0);
}

#[test]
fn a_quiet_connection_lives_on() {
    let mut world = pair(1, [(ms(60_000), Act::Send(StreamClass::Control, 5))]);
    world.run_until(at_ms(61_000));
    assert_eq!(closed(&world, 0), []);
    assert_eq!(received(&world, 1, StreamClass::Control), [5]);
}

#[test]
fn a_killed_process_resets_its_peers_and_a_restarted_one_does_not_know_them() {
    let mut world = pair(1, []);
    world.run_until(at_ms(1_000));
    world.inject(Fault::Kill { node: B });
    world.run_until(at_ms(1_200));
    assert_eq!(closed(&world, 0).len(), 1);
    assert_eq!(closed(&world, 0)[0].1, CloseReason::Reset);

    let mut world = pair(1, []);
    world.run_until(at_ms(1_000));
    world.inject(Fault::Crash { node: B });
    world.inject(Fault::Restart { node: B });
    world.run_until(at_ms(5_000));
    let closed = closed(&world, 0);
    assert_eq!(closed[0].1, CloseReason::Reset);
    assert!(closed[0].0 < ms(4_500), "its keep-alive found out: {}", closed[0].0);
}

#[test]
fn an_orderly_stop_closes_connections() {
    let mut world = pair(1, []);
    world.run_until(at_ms(1_000));
    world.inject(Fault::Stop { node: B });
    world.run_until(at_ms(1_200));
    assert_eq!(closed(&world, 0)[0].1, CloseReason::Closed);
    assert!(!world.core().is_up(B));
}

#[test]
fn a_one_way_cut_stalls_one_direction_and_what_stalled_arrives_after_it() {
    let script = [(ms(2_000), repeat(10, ms(10), Act::Send(StreamClass::Action, 0)))];
    let answers = [(ms(2_000), repeat(10, ms(10), Act::Send(StreamClass::Action, 100)))];
    let mut world = stage(1, [(City::Singapore, caller(script)), (City::Frankfurt, Puppet::new(answers))]);
    world.run_until(at_ms(1_900));
    world.inject(cut(A, B, false));
    world.run_until(at_ms(4_000));
    assert_eq!(received(&world, 1, StreamClass::Action), [0; 0]);
    assert_eq!(received(&world, 0, StreamClass::Action), (100..110).collect::<Vec<_>>(), "the other way is open");
    world.inject(Fault::Uncut { id: 2 });
    world.run_until(at_ms(9_000));
    assert_eq!(received(&world, 1, StreamClass::Action), (0..10).collect::<Vec<_>>());
}

#[test]
fn a_stream_whose_peer_does_not_take_in_overflows() {
    let mut world = pair(1, [(ms(2_000), repeat(1_100, ms(1), Act::Send(StreamClass::State, 0)))]);
    world.run_until(at_ms(1_900));
    world.inject(Fault::Pause { node: B });
    world.run_until(at_ms(4_000));
    assert_eq!(closed(&world, 0)[0].1, CloseReason::Overflow);
}

#[test]
fn a_call_is_answered() {
    let mut world = pair(1, [(ms(1_000), repeat(5, ms(10), Act::Call(B, ms(2_000))))]);
    world.run_until(at_ms(3_000));
    let outcomes = outcomes(&world, 0);
    assert_eq!(outcomes.len(), 5);
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Outcome::Done(_))), "{outcomes:?}");
}

#[test]
fn a_call_that_never_left_is_refused() {
    for fault in [Fault::Crash { node: B }, Fault::Kill { node: B }, cut(A, B, true)] {
        let mut world = pair(1, [(ms(1_000), Act::Call(B, ms(2_000)))]);
        world.inject(fault.clone());
        world.run_until(at_ms(9_000));
        assert_eq!(outcomes(&world, 0), [Outcome::Refused(Refusal::Unreachable)], "{fault:?}");
    }
}

#[test]
fn a_call_that_was_sent_is_unknown_when_its_peer_goes_away_or_its_deadline_comes() {
    let cases = [
        (Fault::Crash { node: B }, 3_000..3_100),
        (Fault::Kill { node: B }, 1_300..1_500),
        (cut(B, A, false), 3_000..3_100),
        (Fault::Pause { node: B }, 3_000..3_100),
    ];
    for (fault, expected) in cases {
        let mut slow = Puppet::silent();
        slow.answers_in = Some(ms(500));
        let script = [(ms(400), Act::Call(B, ms(200))), (ms(1_000), Act::Call(B, ms(2_000)))];
        let mut world = stage(1, [(City::Singapore, caller(script)), (City::Frankfurt, slow)]);
        // The first call makes the channel stand; it is refused because that takes longer than it waits.
        world.run_until(at_ms(1_300));
        assert_eq!(outcomes(&world, 0), [Outcome::Refused(Refusal::Unreachable)]);
        world.inject(fault.clone());
        world.run_until(at_ms(5_000));
        assert_eq!(outcomes(&world, 0)[1..], [Outcome::Unknown], "{fault:?}");
        let begin = told(&world, 0)[0].0;
        let took = told(&world, 0).last().expect("an answer").0.since(begin).as_millis();
        assert!(expected.contains(&took), "{fault:?}: after {took} ms");
    }
}

#[test]
fn a_late_answer_is_dropped() {
    let mut slow = Puppet::silent();
    slow.answers_in = Some(ms(3_000));
    let mut world = stage(1, [(City::Singapore, caller([(ms(1_000), Act::Call(B, ms(2_000)))])), (City::Tokyo, slow)]);
    world.run_until(at_ms(9_000));
    assert_eq!(outcomes(&world, 0), [Outcome::Unknown]);
    assert_eq!(world.core().counters().answers_dropped, 1);
}
