//! What publishers and readers see when things go well, and when they do not.

use super::*;
use crate::{
    Fault as WorldFault,
    testing::{Ask, Bench, Caller, Follow},
};
use worldline_proto::{EntityId, EntityKind};
use worldline_system::{
    Outcome, Refusal,
    doors::bus::{Durable, Event, GapCause, MessageId, Published, Start, Subject},
    history::Acceptance,
};

/// By when a bus whose leader is gone has another, whatever is drawn.
const ELECTED_MS: u64 = 10_500;

fn boss(n: u64) -> EntityId {
    EntityId::new(EntityKind::Boss, n).unwrap()
}

/// Publishes fact `number` of boss `n`.
pub(super) fn publish(n: u64, number: u64) -> Ask {
    publish_after(n, number, None)
}

fn publish_after(n: u64, number: u64, after: Option<u64>) -> Ask {
    let (subject, message) = (Subject::Fact(boss(n)), MessageId { entity: boss(n), number });
    let payload = number.to_le_bytes().as_slice().into();
    Submission::Publish { subject, message, after: after.map(StreamSequence), payload }.into()
}

pub(super) fn patient(ask: Ask, ms: u64) -> Ask {
    match ask {
        Ask::Bus(submission, _) => Ask::Bus(submission, Duration::from_millis(ms)),
        other => panic!("{other:?}"),
    }
}

fn consume(durable: Option<u32>, start: Start) -> Ask {
    Submission::Consume { durable: durable.map(|n| Durable(NodeId(n))), start }.into()
}

pub(super) fn bench_of(seed: u64, callers: Vec<Caller>, change: impl FnOnce(&mut Config)) -> Bench {
    Bench::new(seed, callers, |world, members| {
        let mut config = Config::new(members);
        change(&mut config);
        world.set_bus(config);
    })
}

fn bench(seed: u64, callers: Vec<Caller>) -> Bench {
    bench_of(seed, callers, |_| {})
}

fn published(bench: &Bench, caller: usize, line: usize) -> Outcome<Published> {
    match bench.caller(caller).bus(line) {
        Some((_, Answer::Published(outcome))) => outcome.clone(),
        other => panic!("line {line}: {other:?}"),
    }
}

fn stored(sequence: u64) -> Outcome<Published> {
    Outcome::Done(Published { sequence: StreamSequence(sequence), duplicate: false })
}

fn known(sequence: u64) -> Outcome<Published> {
    Outcome::Done(Published { sequence: StreamSequence(sequence), duplicate: true })
}

/// What a caller's consumers have delivered: sequence and how often.
fn delivered(bench: &Bench, caller: usize) -> Vec<(u64, u32)> {
    let message = |(_, event): (u64, &Event)| match event {
        Event::Delivered { message, .. } => Some((message.sequence.0, message.delivery)),
        _ => None,
    };
    bench.caller(caller).told().filter_map(message).collect()
}

fn gaps(bench: &Bench, caller: usize) -> Vec<GapCause> {
    let gap = |(_, event): (u64, &Event)| match event {
        Event::Gap { cause, .. } => Some(*cause),
        _ => None,
    };
    bench.caller(caller).told().filter_map(gap).collect()
}

fn leader(bench: &Bench) -> NodeId {
    let core = bench.world.core();
    bench.world.bus().unwrap().leader(core).expect("somebody leads")
}

#[test]
fn what_is_published_is_stored_told_and_delivered_in_order() {
    let publisher = Caller::new((0..5).map(|n| (500 + n * 10, publish(1 + n % 2, n))).collect());
    let reader = Caller::new(vec![(400, consume(None, Start::Beginning))]);
    let mut bench = bench(1, vec![publisher, reader]);
    bench.run_to(1_000);
    assert_eq!((0..5).map(|n| published(&bench, 0, n)).collect::<Vec<_>>(), (1..=5).map(stored).collect::<Vec<_>>());
    assert_eq!(delivered(&bench, 1), [(1, 1), (2, 1), (3, 1), (4, 1), (5, 1)]);
    let payloads: Vec<u64> = bench.world.bus().unwrap().messages().map(|message| message.payload[0].into()).collect();
    assert_eq!(payloads, [0, 1, 2, 3, 4]);
    let told = bench.accepted().into_iter().filter(|(_, what)| matches!(what, Acceptance::Published { .. })).count();
    assert_eq!(told, 5);
}

#[test]
fn a_message_id_is_stored_once_within_the_window_and_again_outside_it() {
    let script =
        vec![(500, publish(1, 7)), (10_000, publish(1, 7)), (121_000, publish(1, 7)), (122_000, publish(1, 7))];
    let mut bench = bench(2, vec![Caller::new(script)]);
    bench.run_to(123_000);
    let all: Vec<_> = (0..4).map(|n| published(&bench, 0, n)).collect();
    assert_eq!(all, [stored(1), known(1), stored(2), known(2)], "the window counts from the first publish");
}

#[test]
fn a_publish_behind_another_is_stored_only_there() {
    let script = vec![
        (500, publish_after(1, 1, Some(0))),
        (600, publish_after(1, 2, Some(0))),
        (700, publish_after(2, 1, Some(0))),
        (800, publish_after(1, 2, Some(1))),
        (900, publish_after(1, 3, Some(1))),
        (1_000, publish_after(1, 3, Some(1))),
        (120_700, publish_after(1, 2, Some(3))),
    ];
    let mut bench = bench(3, vec![Caller::new(script)]);
    bench.run_to(121_000);
    let wrong = Outcome::Refused(Refusal::WrongSequence { last: StreamSequence(1) });
    let all: Vec<_> = (0..7).map(|n| published(&bench, 0, n)).collect();
    let busy = Outcome::Refused(Refusal::Busy);
    assert_eq!(
        all,
        [stored(1), wrong, stored(2), busy, stored(3), known(3), stored(4)],
        "a refused id is kept in mind"
    );
}

#[test]
fn an_id_that_is_being_stored_is_known_when_it_is() {
    let script = vec![(500, publish(1, 6)), (600, publish(1, 7)), (600, publish(1, 7)), (700, publish(1, 7))];
    let mut bench = bench(3, vec![Caller::new(script)]);
    bench.run_to(1_000);
    let all: Vec<_> = (0..4).map(|line| published(&bench, 0, line)).collect();
    let busy = Outcome::Refused(Refusal::Busy);
    assert!(all[3] == known(2) && all.contains(&stored(2)) && all.contains(&busy), "{all:?}");
}

#[test]
fn the_oldest_go_beyond_the_limits_or_the_newest_are_refused() {
    let script = || (0..6).map(|n| (500 + n * 100, publish(1, n))).collect();
    let kept =
        |bench: &Bench| bench.world.bus().unwrap().messages().map(|message| message.sequence.0).collect::<Vec<_>>();
    let mut old = bench_of(4, vec![Caller::new(script())], |config| config.limits.messages = 3);
    old.run_to(2_000);
    assert_eq!((published(&old, 0, 5), kept(&old)), (stored(6), vec![4, 5, 6]));
    let mut new = bench_of(4, vec![Caller::new(script())], |config| {
        (config.limits.messages, config.discard_new) = (3, true);
    });
    new.run_to(2_000);
    assert_eq!((published(&new, 0, 3), kept(&new)), (Outcome::Refused(Refusal::StreamFull), vec![1, 2, 3]));
    let mut small = bench_of(4, vec![Caller::new(script())], |config| config.limits.bytes = 250);
    small.run_to(2_000);
    assert_eq!(kept(&small), [5, 6]);
    let mut aged = bench_of(4, vec![Caller::new(script())], |config| config.limits.age = Duration::from_millis(250));
    aged.run_to(2_000);
    assert_eq!(kept(&aged), [4, 5, 6]);
}

#[test]
fn a_message_that_is_too_large_is_refused() {
    let Ask::Bus(Submission::Publish { subject, message, after, .. }, _) = publish(1, 1) else { unreachable!() };
    let payload = vec![0; limits::BUS_PAYLOAD_BYTES + 1].into();
    let mut bench =
        bench(5, vec![Caller::new(vec![(500, Submission::Publish { subject, message, after, payload }.into())])]);
    bench.run_to(1_000);
    assert_eq!(published(&bench, 0, 0), Outcome::Refused(Refusal::Malformed));
}

#[test]
fn a_consumer_begins_where_it_is_told() {
    let publisher = Caller::new((0..4).map(|n| (500 + n * 500, publish(1, n))).collect());
    let late = |start| Caller::new(vec![(1_750, consume(None, start))]);
    let callers = vec![publisher, late(Start::Beginning), late(Start::New), late(Start::Sequence(StreamSequence(3)))];
    let mut bench = bench(6, callers);
    bench.run_to(3_000);
    let sequences = |caller| delivered(&bench, caller).into_iter().map(|(sequence, _)| sequence).collect::<Vec<_>>();
    assert_eq!((sequences(1), sequences(2), sequences(3)), (vec![1, 2, 3, 4], vec![4], vec![3, 4]));
    // By the stream's own clock.
    let second = bench.world.bus().unwrap().messages().nth(1).unwrap().published;
    let publisher = Caller::new((0..4).map(|n| (500 + n * 500, publish(1, n))).collect());
    let mut again = self::bench(6, vec![publisher, late(Start::Time(second))]);
    again.run_to(3_000);
    assert_eq!(delivered(&again, 1), [(2, 1), (3, 1), (4, 1)]);
}

#[test]
fn what_is_not_acknowledged_comes_again_and_what_is_rejected_at_once() {
    let publisher = Caller::new((1..=3).map(|n| (500, publish(1, n))).collect());
    let script = vec![
        (400, consume(None, Start::Beginning)),
        (1_000, Ask::BusReject(0, 2)),
        (1_500, Ask::BusAcknowledge(0, 1)),
        (1_600, Ask::BusReject(0, 1)),
    ];
    let mut bench = bench(7, vec![publisher, Caller::new(script)]);
    bench.run_to(2_000);
    assert_eq!(delivered(&bench, 1), [(1, 1), (2, 1), (3, 1), (2, 2)]);
    assert_eq!(bench.caller(1).bus(1).unwrap().1, &Answer::Rejected(Outcome::Done(())));
    assert_eq!(bench.caller(1).bus(2).unwrap().1, &Answer::Acknowledged(Outcome::Done(())));
    assert_eq!(bench.caller(1).bus(3).unwrap().1, &Answer::Rejected(Outcome::Refused(Refusal::NotServing)));
    bench.run_to(5_900);
    assert_eq!(delivered(&bench, 1)[4..], [(3, 2)], "after {}", limits::BUS_ACK_WAIT);
}

#[test]
fn no_more_than_the_credits_are_out() {
    let many = limits::BUS_CREDITS as u64 + 10;
    let publisher = Caller::new((0..many).map(|n| (500 + n, publish(1, n))).collect());
    let script = vec![(400, consume(None, Start::Beginning)), (2_000, Ask::BusAcknowledge(0, 4))];
    let mut bench = bench(8, vec![publisher, Caller::new(script)]);
    bench.run_to(1_900);
    assert_eq!(delivered(&bench, 1).len(), limits::BUS_CREDITS);
    bench.run_to(2_500);
    assert_eq!(delivered(&bench, 1).len(), limits::BUS_CREDITS + 4);
}

#[test]
fn a_durable_consumer_goes_on_where_it_was_after_its_reader_has_crashed() {
    let publisher = Caller::new((1..=6).map(|n| (500 * n, publish(1, n))).collect());
    let follow = Follow { durable: Some(Durable(NodeId(4))), acknowledges: true };
    let mut bench = bench(9, vec![publisher, Caller::new(vec![]).following(follow)]);
    bench.run_to(1_800);
    assert_eq!(delivered(&bench, 1), [(1, 1), (2, 1), (3, 1)]);
    let reader = bench.callers[1];
    bench.inject(WorldFault::Crash { node: reader }).run_to(2_800);
    bench.inject(WorldFault::Restart { node: reader }).run_to(4_000);
    assert_eq!(delivered(&bench, 1), [(4, 1), (5, 1), (6, 1)]);
}

#[test]
fn a_node_has_so_many_consumers_and_each_ends_when_it_is_closed() {
    let script = vec![
        (400, consume(None, Start::New)),
        (410, consume(None, Start::New)),
        (420, consume(None, Start::New)),
        (600, Ask::BusClose(0)),
        (700, consume(None, Start::New)),
        (900, Ask::BusAcknowledge(0, 1)),
    ];
    let mut bench = bench(10, vec![Caller::new(script)]);
    bench.run_to(1_000);
    let answers: Vec<_> = [0, 1, 2, 4].map(|n| bench.caller(0).bus(n).unwrap().1.clone()).into();
    let done = Answer::Consuming(Outcome::Done(()));
    let busy = Answer::Consuming(Outcome::Refused(Refusal::Busy));
    assert_eq!(answers, [done.clone(), done.clone(), busy, done]);
    assert_eq!(bench.caller(0).bus(5).unwrap().1, &Answer::Acknowledged(Outcome::Refused(Refusal::NotServing)));
    assert_eq!(bench.world.bus().unwrap().readers(), limits::BUS_CONSUMERS);
}

#[test]
fn a_lost_acknowledgement_leaves_the_message_stored_and_the_publisher_in_the_dark() {
    let mut bench = bench(11, vec![Caller::new(vec![(1_000, publish(1, 1)), (4_000, publish(1, 1))])]);
    bench.inject(WorldFault::Bus(Fault::LoseAnswers { from: None, of: Which::Publishes, permille: 1_000 }));
    bench.run_to(3_500).inject(WorldFault::Heal).run_to(5_000);
    assert_eq!((published(&bench, 0, 0), published(&bench, 0, 1)), (Outcome::Unknown, known(1)));
}

#[test]
fn a_lost_acknowledgement_of_a_reader_brings_the_messages_again() {
    let publisher = Caller::new(vec![(500, publish(1, 1))]);
    let script = vec![(400, consume(None, Start::Beginning)), (1_000, Ask::BusAcknowledge(0, 1))];
    let mut bench = bench(12, vec![publisher, Caller::new(script)]);
    bench.inject(WorldFault::Bus(Fault::LoseRequests { from: None, of: Which::Acknowledgements, permille: 1_000 }));
    bench.run_to(6_000);
    assert_eq!(bench.caller(1).bus(1).unwrap().1, &Answer::Acknowledged(Outcome::Unknown));
    assert_eq!(delivered(&bench, 1), [(1, 1), (1, 2)]);
}

#[test]
fn a_leader_that_is_killed_is_missed_at_once_and_replaced_after_an_election() {
    let script = vec![
        (500, publish(1, 1)),
        (1_200, publish(1, 2)),
        (1_000 + ELECTED_MS, publish(1, 2)),
        (20_000, publish(1, 3)),
    ];
    let mut bench = bench(13, vec![Caller::new(script)]);
    bench.run_to(1_000);
    let old = leader(&bench);
    bench.inject(WorldFault::Kill { node: old }).run_to(21_000);
    assert_eq!(published(&bench, 0, 1), Outcome::Refused(Refusal::NoStream));
    assert_eq!((published(&bench, 0, 2), published(&bench, 0, 3)), (stored(2), stored(3)));
    assert_ne!(leader(&bench), old);
}

#[test]
fn a_leader_that_lost_its_power_swallows_what_is_published_until_it_is_missed() {
    let mut script: Vec<_> = (0..12).map(|n| (500 + n * 1_000, publish(1, n))).collect();
    script.push((14_000, publish(1, 99)));
    let mut bench = bench(14, vec![Caller::new(script)]);
    bench.run_to(1_000);
    let old = leader(&bench);
    bench.inject(WorldFault::Crash { node: old }).run_to(15_000);
    let outcomes: Vec<_> = (0..13).map(|n| published(&bench, 0, n)).collect();
    assert!(outcomes.contains(&Outcome::Unknown), "{outcomes:?}");
    assert!(matches!(outcomes[12], Outcome::Done(_)), "{outcomes:?}");
    assert!(bench.accepted().iter().all(|(_, what)| !matches!(what, Acceptance::TailLost { .. })));
}

#[test]
fn an_orderly_change_of_the_leader_takes_less_than_a_second() {
    let mut bench = bench(15, vec![Caller::new(vec![(1_000, publish(1, 1)), (2_000, publish(1, 2))])]);
    bench.run_to(1_100);
    let old = leader(&bench);
    bench.inject(WorldFault::Bus(Fault::LeaderChange)).run_to(3_000);
    assert_ne!(leader(&bench), old);
    assert_eq!(published(&bench, 0, 1), stored(2));
}

#[test]
fn members_that_lose_their_power_together_take_the_unsynced_tail_with_them() {
    let lose_power = |sync_period: Duration| {
        let script =
            vec![(500, publish(1, 1)), (1_000, publish(1, 2)), (20_000, publish(1, 2)), (21_000, publish(1, 3))];
        let follow = Follow { durable: Some(Durable(NodeId(9))), acknowledges: true };
        let callers = vec![Caller::new(script), Caller::new(vec![]).following(follow)];
        let mut bench = bench_of(16, callers, |config| config.sync_period = sync_period);
        bench.run_to(2_000);
        for node in bench.members.clone() {
            bench.inject(WorldFault::Crash { node });
        }
        bench.run_to(3_000);
        for node in bench.members.clone() {
            bench.inject(WorldFault::Restart { node });
        }
        bench.run_to(25_000);
        bench
    };
    let mut lost = lose_power(Duration::from_secs(1_000_000));
    assert_eq!((published(&lost, 0, 1), published(&lost, 0, 2)), (stored(2), stored(1)), "what was told is gone");
    let tails: Vec<_> =
        lost.accepted().into_iter().filter(|(_, what)| matches!(what, Acceptance::TailLost { .. })).collect();
    assert!(matches!(tails[..], [(_, Acceptance::TailLost { last: StreamSequence(0) })]), "{tails:?}");
    let told = delivered(&lost, 1);
    assert_eq!(told, [(1, 1), (2, 1), (1, 1), (2, 1)], "a reader goes on at the new end");
    let kept = lose_power(Duration::ZERO);
    assert_eq!((published(&kept, 0, 1), published(&kept, 0, 2)), (stored(2), known(2)));
}

#[test]
fn one_member_that_loses_its_power_loses_nothing_for_the_stream() {
    let mut script: Vec<_> = (0..10).map(|n| (500 + n * 100, publish(1, n))).collect();
    script.push((16_000, publish(1, 99)));
    let mut bench = bench(17, vec![Caller::new(script)]);
    bench.run_to(2_000);
    let node = leader(&bench);
    bench.inject(WorldFault::Crash { node }).run_to(3_000).inject(WorldFault::Restart { node }).run_to(17_000);
    // The new leader may have stored the last of the ten again.
    assert!([stored(11), stored(12)].contains(&published(&bench, 0, 10)));
}

#[test]
fn without_a_majority_nothing_is_stored_and_nobody_is_told_that_it_was() {
    let script = vec![(500, publish(1, 1)), (3_000, publish(1, 2)), (30_000, publish(1, 2))];
    let mut bench = bench(18, vec![Caller::new(script)]);
    bench.run_to(1_000);
    let leader = leader(&bench);
    let others: Vec<NodeId> = bench.members.iter().copied().filter(|&node| node != leader).collect();
    others.iter().for_each(|&node| {
        bench.inject(WorldFault::Crash { node });
    });
    bench.run_to(15_000);
    assert!(!bench.world.bus().unwrap().has_quorum(bench.world.core()));
    assert!(matches!(published(&bench, 0, 1), Outcome::Unknown | Outcome::Refused(_)));
    others.iter().for_each(|&node| {
        bench.inject(WorldFault::Restart { node });
    });
    bench.run_to(32_000);
    assert!(matches!(published(&bench, 0, 2), Outcome::Done(_)));
}

#[test]
fn a_bus_that_is_down_refuses_and_its_readers_have_a_gap() {
    let script = vec![(400, consume(None, Start::New)), (3_000, publish(1, 1))];
    let mut bench = bench(19, vec![Caller::new(script)]);
    bench.run_to(1_000);
    for node in bench.members.clone() {
        bench.inject(WorldFault::Kill { node });
    }
    bench.run_to(6_000);
    assert_eq!(published(&bench, 0, 1), Outcome::Refused(Refusal::Unreachable));
    assert_eq!(gaps(&bench, 0), [GapCause::Disconnected]);
}

#[test]
fn a_reader_that_is_disconnected_has_a_gap_and_another_consumer_goes_on() {
    let publisher = Caller::new((0..20).map(|n| (500 + n * 100, publish(1, n))).collect());
    let follow = Follow { durable: Some(Durable(NodeId(4))), acknowledges: true };
    let mut bench = bench(20, vec![publisher, Caller::new(vec![]).following(follow)]);
    bench.run_to(1_000);
    let reader = bench.callers[1];
    bench.inject(WorldFault::Bus(Fault::Disconnect { from: Some(reader) })).run_to(9_000);
    assert_eq!(gaps(&bench, 1), [GapCause::Disconnected]);
    let mut seen: Vec<u64> = delivered(&bench, 1).into_iter().map(|(sequence, _)| sequence).collect();
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen, (1..=20).collect::<Vec<u64>>());
}

#[test]
fn a_consumer_that_is_set_back_delivers_again_as_if_for_the_first_time() {
    let publisher = Caller::new((1..=4).map(|n| (500, publish(1, n))).collect());
    let follow = Follow { durable: Some(Durable(NodeId(4))), acknowledges: true };
    let mut bench = bench(21, vec![publisher, Caller::new(vec![]).following(follow)]);
    bench.run_to(1_000).inject(WorldFault::Bus(Fault::RewindConsumers { by: 2 })).run_to(1_500);
    assert_eq!(delivered(&bench, 1), [(1, 1), (2, 1), (3, 1), (4, 1), (3, 1), (4, 1)]);
}

#[test]
fn a_consumer_that_is_deleted_has_a_gap() {
    let script = vec![(400, consume(Some(4), Start::New)), (2_000, Ask::BusAcknowledge(0, 1))];
    let mut bench = bench(22, vec![Caller::new(script)]);
    bench.run_to(1_000).inject(WorldFault::Bus(Fault::EndConsumers)).run_to(3_000);
    assert_eq!(gaps(&bench, 0), [GapCause::Ended]);
    assert_eq!(bench.caller(0).bus(1).unwrap().1, &Answer::Acknowledged(Outcome::Refused(Refusal::NotServing)));
}

#[test]
fn what_is_discarded_before_it_was_delivered_is_passed_over() {
    let publisher = Caller::new(vec![(500, publish(1, 1)), (600, publish(1, 2)), (2_000, publish(1, 3))]);
    let reader = Caller::new(vec![(1_500, consume(None, Start::Beginning))]);
    let mut bench = bench(23, vec![publisher, reader]);
    bench.run_to(1_000).inject(WorldFault::Bus(Fault::Purge)).run_to(2_500);
    assert_eq!(delivered(&bench, 1), [(3, 1)]);
}

#[test]
fn a_full_storage_refuses_and_forgotten_ids_are_stored_again() {
    let script = vec![(500, publish(1, 1)), (1_500, publish(1, 2)), (2_500, publish(1, 1))];
    let mut bench = bench(24, vec![Caller::new(script)]);
    bench.run_to(1_000).inject(WorldFault::Bus(Fault::Full { on: true })).run_to(2_000);
    bench.inject(WorldFault::Heal).inject(WorldFault::Bus(Fault::ForgetIds)).run_to(3_000);
    assert_eq!(published(&bench, 0, 1), Outcome::Refused(Refusal::StreamFull));
    assert_eq!(published(&bench, 0, 2), stored(2));
}
