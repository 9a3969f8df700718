//! L7 on told histories.

use super::{super::story::*, *};
use worldline_system::doors::ledger::Answer;

/// A node renews its lease, which fails; then again after each of these waits, in milliseconds and nanoseconds.
fn renews(node: u32, waits: &[(u64, u64)]) -> Vec<Entry> {
    let asks = |counter| asks(counter, directory::Submission::KeepAlive(lease(node.into())));
    let fails = |counter| hears(counter, directory::Answer::KeptAlive(Outcome::Unknown));
    let mut lines = vec![(0, node, asks(0)), (0, node, fails(0))];
    for counter in 1..=waits.len() as u64 {
        lines.extend([(0, node, asks(counter)), (0, node, fails(counter))]);
    }
    let mut entries = tell(lines);
    let mut now = Instant::default();
    for (entry, place) in entries.iter_mut().zip(0..) {
        if place >= 2 && place % 2 == 0 {
            let (ms, ns) = waits[place / 2 - 1];
            now = now + Duration::from_millis(ms) + Duration::from_nanos(ns);
        }
        (entry.at, entry.local) = (now, now);
    }
    entries
}

#[test]
fn l7_waits_grow() {
    let growing = [(51, 1), (101, 2), (201, 3), (401, 4), (801, 5), (1_001, 6), (1_002, 7)];
    assert_eq!(breaks_at::<Retries>(&renews(1, &growing)), None);
    assert_eq!(breaks_at::<Retries>(&renews(1, &[(40, 1)])), Some(2), "at once");
    assert_eq!(breaks_at::<Retries>(&renews(1, &[(90, 1), (90, 2)])), Some(4), "as soon as before");
    assert_eq!(breaks_at::<Retries>(&renews(1, &[(100, 1), (200, 2), (400, 3), (100, 4)])), Some(8));
}

#[test]
fn l7_waits_differ_between_nodes() {
    let told = |third| [renews(1, &[(90, 7)]), renews(2, &[(90, 7)]), renews(3, &[(90, third)])].concat();
    assert_eq!(breaks_at::<Retries>(&told(8)), None);
    assert_eq!(breaks_at::<Retries>(&told(7)), Some(10), "three in step");
}

#[test]
fn l7_what_has_succeeded_begins_anew() {
    let mut entries = renews(1, &[(90, 1), (190, 2), (60, 3)]);
    entries[5].what = hears(2, directory::Answer::KeptAlive(Outcome::Done(Duration::from_secs(10))));
    assert_eq!(breaks_at::<Retries>(&entries), None);
    let mut entries = renews(1, &[(90, 1), (190, 2), (60, 3)]);
    entries[5].what = What::Noted(Note::Resumed { lease: lease(1) });
    assert_eq!(breaks_at::<Retries>(&entries), None, "a node that resumes begins anew too");
}

#[test]
fn l7_another_batch_is_no_second_try() {
    let fails = |counter| {
        let answer = Completion::Ledger(Answer::Committed(Outcome::Unknown));
        What::Completed(op(counter), Box::new(answer))
    };
    let told = |second| {
        let lines = [(0, 1, commits(1, attack(1, 1, 1))), (5, 1, fails(1)), (6, 1, commits(2, attack(second, 1, 1)))];
        let mut checker = Retries::new(&setup());
        let broken = tell(lines).iter().any(|entry| checker.on_entry(entry, &Facts::default()).is_err());
        (broken, checker.not_checked())
    };
    assert_eq!(told(1), (true, None), "the same batch at once");
    assert_eq!(told(2), (false, Some("nothing was tried again")));
}

#[test]
fn l7_a_client_that_is_not_welcomed_waits_longer_each_time() {
    let connects = || What::Noted(Note::Connecting { character: hero(), gateway: NodeId(5) });
    let joined =
        What::Noted(Note::Joined { character: hero(), generation: worldline_proto::Generation(1), issued_unix_ms: 0 });
    let good = vec![(0, 9, connects()), (60, 9, connects()), (170, 9, connects()), (180, 9, joined)];
    let with = |ms| [good.clone(), vec![(181, 9, connects()), (ms, 9, connects())]].concat();
    assert_eq!(breaks_at::<Retries>(&tell(with(300))), None, "behind a welcome it begins anew");
    assert_eq!(breaks_at::<Retries>(&tell(with(182))), Some(5));
    let resent = |ms| (ms, 9, What::Noted(Note::Resent { character: hero(), from: worldline_proto::OpNumber(1) }));
    assert_eq!(breaks_at::<Retries>(&tell((0..40).map(|n| resent(n * 1_500)))), None);
    assert!(breaks_at::<Retries>(&tell((0..40).map(|n| resent(n * 100)))).is_some(), "a flood");
}

#[test]
fn l7_what_backs_off_keeps_within_the_bound_and_what_does_not_is_stopped_by_it() {
    let publish = |counter| {
        let message = MessageId { entity: boss(), number: 1 };
        let subject = bus::Subject::Fact(boss());
        What::Invoked(
            op(counter),
            Invocation::Bus(bus::Submission::Publish { subject, message, payload: [].into(), after: None }),
        )
    };
    let fails = |counter| {
        let answer = Completion::Bus(bus::Answer::Published(Outcome::Unknown));
        What::Completed(op(counter), Box::new(answer))
    };
    let every = |ms| {
        let tries = (0..40).flat_map(|n| [(n * ms, 3, publish(n)), (n * ms, 3, fails(n))]);
        breaks_at::<Retries>(&tell(tries))
    };
    assert_eq!(every(1_000), None, "a sweep every second");
    assert!(every(200).is_some_and(|place| place < 50), "more than any backoff would allow");
}
