//! Hashes, stamps, counters, texts and loads: what the door promises, on a real server.

use super::*;

#[test]
fn what_was_written_is_read_and_lives_as_long_as_its_kind() {
    let server = Valkey::start(&[]);
    let mut caller = Caller::connected(&[server.url()]);
    assert_eq!((caller.call(read(1)), caller.call(write(1, "1"))), (miss(), written()));
    let more = Submission::Write { key: session(1), fields: fields(&[("w", "zwei\r\n€")]) };
    assert_eq!(caller.call(more), written());
    let both = Hash { stamp: None, fields: fields(&[("v", "1"), ("w", "zwei\r\n€")]) };
    assert_eq!(caller.call(read(1)), Answer::Read(Outcome::Done(Some(both))));
    let ttl_ms: u64 = caller.other(&server, &["PTTL", "session:character-1"]);
    assert!(ttl_ms > 3_500_000 && ttl_ms <= 3_600_000, "{ttl_ms}");
    let delete = || Submission::Delete(Key::Hash(session(1)));
    assert_eq!(caller.call(delete()), Answer::Deleted(Outcome::Done(true)));
    assert_eq!(caller.call(delete()), Answer::Deleted(Outcome::Done(false)));
    assert_eq!(caller.call(read(1)), miss());
}

#[test]
fn only_a_newer_entry_is_kept_and_it_replaces_the_whole() {
    let server = Valkey::start(&[]);
    let mut caller = Caller::connected(&[server.url()]);
    let key = HashKey::Checkpoint(hero(1).entity());
    caller.call(Submission::Write { key, fields: fields(&[("leftover", "1")]) });
    let stands = Kept::Stands(stamp(2, 5));
    for (submission, kept) in [
        (keep(1, 2, 5), Kept::Replaced),
        (keep(1, 2, 5), stands),
        (keep(1, 2, 4), stands),
        (keep(1, 1, u64::MAX), stands),
        (keep(1, 2, 6), Kept::Replaced),
        (keep(1, u64::MAX, u64::MAX - 1), Kept::Replaced),
        (keep(1, u64::MAX, 0), Kept::Stands(stamp(u64::MAX, u64::MAX - 1))),
        (keep(1, u64::MAX, u64::MAX), Kept::Replaced),
    ] {
        assert_eq!(caller.call(submission.clone()), Answer::Kept(Outcome::Done(kept)), "{submission:?}");
    }
    let value = format!("{}/{}", u64::MAX, u64::MAX);
    let entry = Hash { stamp: Some(stamp(u64::MAX, u64::MAX)), fields: fields(&[("v", &value)]) };
    assert_eq!(caller.call(Submission::Read(key)), Answer::Read(Outcome::Done(Some(entry))));
}

#[test]
fn an_entry_with_a_stamp_that_does_not_read_is_replaced_and_one_above_all_is_deleted() {
    let server = Valkey::start(&[]);
    let mut caller = Caller::connected(&[server.url()]);
    let plant = |caller: &Caller, stamp: &str| -> u64 {
        caller.other(&server, &["HSET", "checkpoint:character-1", "stamp", stamp])
    };
    plant(&caller, "yesterday");
    assert_eq!(caller.call(keep(1, 1, 1)), Answer::Kept(Outcome::Done(Kept::Replaced)));
    plant(&caller, &format!("{}.{}", "9".repeat(20), "9".repeat(20)));
    assert_eq!(caller.call(keep(1, 1, 2)), Answer::Kept(Outcome::Refused(Refusal::WrongType)));
    assert_eq!(caller.call(keep(1, 1, 2)), Answer::Kept(Outcome::Done(Kept::Replaced)));
}

#[test]
fn counters_count_exactly_and_refuse_to_overflow() {
    let server = Valkey::start(&[]);
    let mut caller = Caller::connected(&[server.url()]);
    let count = || Submission::Count(speed(1));
    for (submission, outcome) in [
        (count(), Outcome::Done(0)),
        (increment(1, 3), Outcome::Done(3)),
        (increment(1, -1), Outcome::Done(2)),
        (increment(2, i64::MAX - 1), Outcome::Done(i64::MAX - 1)),
        (increment(2, 1), Outcome::Done(i64::MAX)),
        (increment(2, 1), Outcome::Refused(Refusal::Overflow)),
        (Submission::Count(speed(2)), Outcome::Done(i64::MAX)),
        (count(), Outcome::Done(2)),
    ] {
        assert_eq!(caller.call(submission.clone()), Answer::Counted(outcome), "{submission:?}");
    }
    let ttl_ms: u64 = caller.other(&server, &["PTTL", "cheat_flags:character-1:speed"]);
    assert!(ttl_ms > 86_300_000 && ttl_ms <= 86_400_000, "{ttl_ms}");
}

#[test]
fn a_text_lives_as_long_as_its_writer_says() {
    let server = Valkey::start(&[]);
    let mut caller = Caller::connected(&[server.url()]);
    let key = |byte| RevokedKey(Digest([byte; 16]));
    let set = |byte, ttl| Submission::Set { key: key(byte), value: "stolen".into(), ttl };
    let done = Answer::Set(Outcome::Done(()));
    assert_eq!(caller.call(set(1, time::Duration::from_secs(60))), done);
    assert_eq!(caller.call(set(2, time::Duration::from_nanos(1))), done);
    let stolen = Answer::Got(Outcome::Done(Some("stolen".into())));
    assert_eq!(caller.call(Submission::Get(key(1))), stolen);
    let by = clock::now() + SOON;
    while caller.call(Submission::Get(key(2))) != Answer::Got(Outcome::Done(None)) {
        assert!(clock::now() < by, "it ends");
    }
    assert_eq!(caller.call(Submission::Get(key(1))), stolen);
}

#[test]
fn the_loads_of_a_region_are_those_that_live() {
    let server = Valkey::start(&[]);
    let mut caller = Caller::connected(&[server.url()]);
    let load = |region, node| HashKey::Load { region: RegionId(region), node: NodeId(node) };
    for (key, entities) in [(load(0, 12), "7"), (load(0, 3), "8"), (load(1, 4), "9"), (load(0, 5), "1")] {
        caller.call(Submission::Write { key, fields: fields(&[("entities", entities)]) });
    }
    caller.other::<u64>(&server, &["DEL", "worker_load:0:n5"]);
    let expected = vec![(NodeId(3), fields(&[("entities", "8")])), (NodeId(12), fields(&[("entities", "7")]))];
    for _ in 0..2 {
        assert_eq!(caller.call(Submission::Loads(RegionId(0))), Answer::Loads(Outcome::Done(expected.clone())));
    }
    let index: Vec<String> = caller.other(&server, &["SMEMBERS", "worker_load:0"]);
    assert_eq!(index.len(), 2, "who has no load any more is forgotten: {index:?}");
    assert_eq!(caller.call(Submission::Loads(RegionId(7))), Answer::Loads(Outcome::Done(vec![])));
}

#[test]
fn what_is_asked_is_done_in_that_order() {
    let server = Valkey::start(&[]);
    let mut caller = Caller::connected(&[server.url()]);
    // Scripts, single commands and requests of two steps, more than fit one batch.
    let asked: Vec<_> = (0..3_000_u64)
        .map(|n| match n % 4 {
            0 => caller.ask(write(1, &n.to_string())),
            1 => caller.ask(read(1)),
            2 => caller.ask(Submission::Loads(RegionId(0))),
            _ => caller.ask(increment(1, 1)),
        })
        .collect();
    for (n, op) in (0_u64..).zip(asked) {
        let answer = caller.answer(op);
        match n % 4 {
            1 => assert_eq!(answer, hash(&(n - 1).to_string())),
            3 => assert_eq!(answer, Answer::Counted(Outcome::Done(n as i64 / 4 + 1))),
            _ => {}
        }
    }
}

#[test]
fn what_is_beyond_a_bound_is_refused_and_nothing_is_left_without_an_end() {
    let server = Valkey::start(&[]);
    let mut caller = Caller::connected(&[server.url()]);
    let outside = Position { x_mm: i64::MAX, y_mm: 0 };
    let refused = Answer::Near(Outcome::Refused(Refusal::Malformed));
    assert_eq!(caller.call(near(outside, 1, 1)), refused);
    let many: Fields = (0..limits::CACHE_FIELDS).map(|n| (n.to_string(), "x".repeat(900))).collect();
    let key = session(1);
    assert_eq!(caller.call(Submission::Write { key, fields: many.clone() }), written());
    let stamp = stamp(1, 1);
    assert_eq!(caller.call(Submission::Keep { key, stamp, fields: many }), Answer::Kept(Outcome::Done(Kept::Replaced)));
    caller.call(increment(1, 1));
    caller.call(place(1, 0, 0));
    let load = HashKey::Load { region: RegionId(0), node: NodeId(3) };
    caller.call(Submission::Write { key: load, fields: fields(&[("entities", "7")]) });
    let keys: Vec<String> = caller.other(&server, &["KEYS", "*"]);
    assert_eq!(keys.len(), 6, "{keys:?}");
    for key in keys {
        let ttl_ms: i64 = caller.other(&server, &["PTTL", &key]);
        assert!(ttl_ms > 0, "{key} has no end");
    }
}
