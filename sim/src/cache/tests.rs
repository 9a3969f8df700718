//! What a caller of the cache sees when things go well, and when they do not.

use super::*;
use crate::{
    Fault as WorldFault,
    testing::{Ask, Bench, Caller},
};
use worldline_proto::{CharacterId, Digest, Epoch, Version};
use worldline_system::{
    Outcome, Refusal,
    doors::{
        cache::{CounterKey, Fields, Hash, HashKey, Kept, Key, Neighbour, RevokedKey, Stamp, Violation},
        directory::RegionId,
    },
    limits,
    rules::space::Position,
};

pub(super) fn hero(n: u64) -> CharacterId {
    CharacterId::new(n).unwrap()
}

pub(super) fn fields(pairs: &[(&str, &str)]) -> Fields {
    pairs.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn session(n: u64) -> HashKey {
    HashKey::Session(hero(n))
}

fn write(n: u64, value: &str) -> Submission {
    Submission::Write { key: session(n), fields: fields(&[("v", value)]) }
}

fn read(n: u64) -> Submission {
    Submission::Read(session(n))
}

pub(super) fn stamp(epoch: u64, version: u64) -> Stamp {
    Stamp { epoch: Epoch(epoch), version: Version(version) }
}

pub(super) fn keep(n: u64, epoch: u64, version: u64) -> Submission {
    let fields = fields(&[("v", &format!("{epoch}/{version}"))]);
    Submission::Keep { key: HashKey::Checkpoint(hero(n).entity()), stamp: stamp(epoch, version), fields }
}

fn speed(n: u64) -> CounterKey {
    CounterKey { character: hero(n), violation: Violation::Speed }
}

fn increment(n: u64, by: i64) -> Submission {
    Submission::Increment { key: speed(n), by: by.try_into().unwrap() }
}

fn place(n: u64, x_mm: i64, y_mm: i64) -> Submission {
    Submission::Place { region: RegionId(0), member: hero(n), at: Position { x_mm, y_mm } }
}

fn near(radius_mm: u64, limit: u16) -> Submission {
    Submission::Near { region: RegionId(0), around: Position::default(), radius_mm, limit }
}

/// Callers of one region, whose cache has so many members of the three.
pub(super) fn bench_of(seed: u64, callers: Vec<Caller>, members: usize, bytes_max: usize) -> Bench {
    let count = callers.len() as u32;
    Bench::new(seed, callers, |world, nodes| {
        let first = nodes.len() as u32;
        let callers = (first..first + count).map(NodeId).collect();
        let region = Region { members: nodes[..members].to_vec(), callers };
        world.set_cache(Config { memory_bytes_max: bytes_max, ..Config::new(vec![region]) });
    })
}

fn bench(callers: Vec<Caller>) -> Bench {
    bench_of(1, callers, 2, 128 << 20)
}

/// A caller that asks these, ten milliseconds apart from `at` on.
fn from(at: u64, asks: Vec<Submission>) -> Vec<(u64, Ask)> {
    (0..).zip(asks).map(|(n, ask)| (at + n * 10, ask.into())).collect()
}

fn script(parts: Vec<Vec<(u64, Ask)>>) -> Caller {
    Caller::new(parts.into_iter().flatten().collect())
}

fn answer(bench: &Bench, n: usize) -> Answer {
    bench.caller(0).cache(n).unwrap_or_else(|| panic!("line {n} has no answer")).1.clone()
}

fn hash(value: &str) -> Answer {
    Answer::Read(Outcome::Done(Some(Hash { stamp: None, fields: fields(&[("v", value)]) })))
}

fn miss() -> Answer {
    Answer::Read(Outcome::Done(None))
}

fn written() -> Answer {
    Answer::Written(Outcome::Done(()))
}

fn fault(bench: &mut Bench, fault: Fault) {
    bench.inject(WorldFault::Cache(fault));
}

#[test]
fn what_was_written_is_read_and_other_fields_stay() {
    let more = Submission::Write { key: session(1), fields: fields(&[("w", "2")]) };
    let delete = || Submission::Delete(Key::Hash(session(1)));
    let asks = vec![read(1), write(1, "1"), more, read(1), delete(), delete(), read(1)];
    let mut bench = bench(vec![script(vec![from(10, asks)])]);
    bench.run_to(200);
    assert_eq!((answer(&bench, 0), answer(&bench, 1)), (miss(), written()));
    let both = Hash { stamp: None, fields: fields(&[("v", "1"), ("w", "2")]) };
    assert_eq!(answer(&bench, 3), Answer::Read(Outcome::Done(Some(both))));
    assert_eq!(answer(&bench, 4), Answer::Deleted(Outcome::Done(true)));
    assert_eq!(answer(&bench, 5), Answer::Deleted(Outcome::Done(false)));
    assert_eq!(answer(&bench, 6), miss());
    assert!(bench.caller(0).cache(0).unwrap().0 < 15, "it is answered within milliseconds");
}

#[test]
fn an_entry_ends_with_its_life_and_a_write_begins_it_anew() {
    let load = HashKey::Load { region: RegionId(0), node: NodeId(3) };
    let tell = || vec![Submission::Write { key: load, fields: fields(&[("entities", "7")]) }];
    let ask = || vec![Submission::Loads(RegionId(0)), Submission::Loads(RegionId(1))];
    let parts = vec![from(10, tell()), from(4_000, tell()), from(8_900, ask()), from(9_100, ask())];
    let mut bench = bench(vec![script(parts)]);
    bench.run_to(10_000);
    let loads = Answer::Loads(Outcome::Done(vec![(NodeId(3), fields(&[("entities", "7")]))]));
    let none = Answer::Loads(Outcome::Done(vec![]));
    assert_eq!((answer(&bench, 2), answer(&bench, 3)), (loads, none.clone()), "4 s + 5 s, of this region");
    assert_eq!(answer(&bench, 4), none);
    assert_eq!(bench.world.cache().unwrap().holds(bench.members[0]), (0, 0), "and its memory is free");
}

#[test]
fn lives_are_kept_by_the_wall_clock_of_the_server() {
    let mut bench = bench(vec![script(vec![from(10, vec![write(1, "1")]), from(1_000, vec![read(1)])])]);
    bench.run_to(500);
    let node = bench.members[0];
    let by_ns = 3_600_000_000_000;
    bench.inject(WorldFault::Clock { node, fault: crate::ClockFault::StepWall { by_ns } }).run_to(1_200);
    assert_eq!(answer(&bench, 1), miss());
}

#[test]
fn only_a_newer_entry_is_kept() {
    let asks = vec![keep(1, 2, 5), keep(1, 2, 5), keep(1, 2, 4), keep(1, 1, 99), keep(1, 2, 6), keep(1, 3, 1)];
    let mut bench = bench(vec![script(vec![
        from(10, asks),
        from(200, vec![Submission::Read(HashKey::Checkpoint(hero(1).entity()))]),
    ])]);
    bench.run_to(300);
    let kept = |n| match answer(&bench, n) {
        Answer::Kept(Outcome::Done(kept)) => kept,
        other => panic!("{other:?}"),
    };
    let stands = Kept::Stands(stamp(2, 5));
    let expected = [Kept::Replaced, stands, stands, stands, Kept::Replaced, Kept::Replaced];
    assert_eq!((0..6).map(kept).collect::<Vec<_>>(), expected);
    let entry = Hash { stamp: Some(stamp(3, 1)), fields: fields(&[("v", "3/1")]) };
    assert_eq!(answer(&bench, 6), Answer::Read(Outcome::Done(Some(entry))));
}

#[test]
fn a_counter_counts_and_refuses_to_overflow() {
    let asks = vec![
        Submission::Count(speed(1)),
        increment(1, 3),
        increment(1, -1),
        increment(2, i64::MAX),
        increment(2, 1),
        increment(2, -1),
        Submission::Count(speed(1)),
    ];
    let mut bench = bench(vec![script(vec![from(10, asks)])]);
    bench.run_to(200);
    let counted = |n| match answer(&bench, n) {
        Answer::Counted(outcome) => outcome,
        other => panic!("{other:?}"),
    };
    let expected = [
        Outcome::Done(0),
        Outcome::Done(3),
        Outcome::Done(2),
        Outcome::Done(i64::MAX),
        Outcome::Refused(Refusal::Overflow),
        Outcome::Done(i64::MAX - 1),
        Outcome::Done(2),
    ];
    assert_eq!((0..7).map(counted).collect::<Vec<_>>(), expected);
}

#[test]
fn a_text_lives_as_long_as_its_writer_says() {
    let key = RevokedKey(Digest([7; 16]));
    let set = Submission::Set { key, value: "stolen".into(), ttl: Duration::from_secs(3) };
    let get = || vec![Submission::Get(key)];
    let mut bench = bench(vec![script(vec![from(10, vec![set]), from(2_900, get()), from(3_100, get())])]);
    bench.run_to(4_000);
    assert_eq!(answer(&bench, 1), Answer::Got(Outcome::Done(Some("stolen".into()))));
    assert_eq!(answer(&bench, 2), Answer::Got(Outcome::Done(None)));
}

#[test]
fn what_has_another_type_is_a_miss_a_refused_write_and_then_gone() {
    let asks = vec![write(1, "a"), write(2, "b"), increment(1, 5), keep(1, 1, 1), place(1, 0, 0)];
    let then = vec![
        read(1),
        write(2, "c"),
        increment(1, 1),
        keep(1, 2, 2),
        place(1, 0, 0),
        write(2, "d"),
        increment(1, 1),
        keep(1, 3, 3),
        place(1, 0, 0),
        near(1_000, 10),
    ];
    let mut bench = bench(vec![script(vec![from(10, asks), from(1_000, then)])]);
    bench.run_to(500);
    fault(&mut bench, Fault::WrongTypes { region: Some(0), permille: 1_000 });
    bench.run_to(2_000);
    assert_eq!(answer(&bench, 5), miss());
    assert_eq!(answer(&bench, 6), Answer::Written(Outcome::Refused(Refusal::WrongType)));
    assert_eq!(answer(&bench, 7), Answer::Counted(Outcome::Refused(Refusal::WrongType)));
    assert_eq!(answer(&bench, 8), Answer::Kept(Outcome::Refused(Refusal::WrongType)));
    assert_eq!(answer(&bench, 9), Answer::Placed(Outcome::Refused(Refusal::WrongType)));
    assert_eq!(answer(&bench, 10), written());
    assert_eq!(answer(&bench, 11), Answer::Counted(Outcome::Done(1)), "from nothing");
    assert_eq!(answer(&bench, 12), Answer::Kept(Outcome::Done(Kept::Replaced)));
    assert_eq!(answer(&bench, 13), Answer::Placed(Outcome::Done(())));
    assert!(matches!(answer(&bench, 14), Answer::Near(Outcome::Done(near)) if near.len() == 1));
}

#[test]
fn what_is_beyond_a_bound_is_refused() {
    let mut bench =
        bench(vec![script(vec![from(10, vec![near(limits::CACHE_RADIUS_MM + 1, 1), place(1, i64::MAX, 0)])])]);
    bench.run_to(100);
    assert_eq!(answer(&bench, 0), Answer::Near(Outcome::Refused(Refusal::Malformed)));
    assert_eq!(answer(&bench, 1), Answer::Placed(Outcome::Refused(Refusal::Malformed)));
}

#[test]
fn those_present_are_found_nearest_first_until_they_have_not_said_so_for_thirty_seconds() {
    let leave = Submission::Delete(Key::Presence { region: RegionId(0), member: hero(4) });
    let asks = vec![place(1, 20_000, 0), place(2, -10_000, 0), place(3, 0, 500_000), place(4, 0, 0), leave];
    let parts = vec![from(10, asks), from(100, vec![near(100_000, 10), near(500_500, 10), near(100_000, 1)])];
    let again = vec![from(20_000, vec![place(1, 30_000, 0)]), from(30_500, vec![near(100_000, 10)])];
    let over = from(50_500, vec![near(100_000, 10)]);
    let mut bench = bench(vec![script([parts, again, vec![over]].concat())]);
    bench.run_to(60_000);
    let found = |n| match answer(&bench, n) {
        Answer::Near(Outcome::Done(near)) => near.iter().map(|near| near.member.entity().number()).collect::<Vec<_>>(),
        other => panic!("{other:?}"),
    };
    assert_eq!((found(5), found(6), found(7)), (vec![2, 1], vec![2, 1, 3], vec![2]));
    assert_eq!((found(9), found(10)), (vec![1], vec![]));
    let Answer::Near(Outcome::Done(near)) = answer(&bench, 9) else { panic!("it is one") };
    let Neighbour { position, distance_mm, .. } = near[0];
    let error = worldline_system::rules::grid::ERROR_MM;
    assert!(position.distance_mm(Position { x_mm: 30_000, y_mm: 0 }) <= error && distance_mm.abs_diff(30_000) <= error);
}

#[test]
fn the_least_recently_used_entries_go_when_memory_is_short_or_writes_are_refused() {
    let fill: Vec<_> = (1..=40).map(|n| write(n, &"x".repeat(1_000))).collect();
    let used = vec![read(1), read(40)];
    for no_eviction in [false, true] {
        let caller = script(vec![
            from(10, fill.clone()),
            from(600, vec![write(41, "y"), write(42, "y")]),
            from(900, used.clone()),
        ]);
        let mut bench = bench_of(3, vec![caller], 2, 20_000);
        if no_eviction {
            fault(&mut bench, Fault::NoEviction { on: true });
        }
        bench.run_to(2_000);
        let (entries, bytes) = bench.world.cache().unwrap().holds(bench.members[0]);
        assert!(entries > 10 && bytes < 22_000, "{entries} entries, {bytes} bytes");
        let last = if no_eviction { Answer::Written(Outcome::Refused(Refusal::OutOfMemory)) } else { written() };
        assert_eq!(answer(&bench, 41), last);
        assert_eq!((answer(&bench, 42) == miss(), answer(&bench, 43) == miss()), (!no_eviction, no_eviction));
        let replica = bench.world.cache().unwrap().holds(bench.members[1]);
        assert_eq!(replica, (entries, bytes), "the replica drops what its primary does");
    }
}

#[test]
fn a_flush_an_eviction_storm_and_an_empty_restart_are_misses_and_nothing_else() {
    for loss in 0..3 {
        let parts = vec![from(10, vec![write(1, "a")]), from(1_500, vec![read(1), write(1, "b"), read(1)])];
        let mut bench = bench(vec![script(parts)]);
        bench.run_to(500);
        let node = bench.members[0];
        match loss {
            0 => fault(&mut bench, Fault::Flush { region: None }),
            1 => fault(&mut bench, Fault::Evict { region: None, permille: 1_000 }),
            _ => drop(bench.inject(WorldFault::Kill { node }).inject(WorldFault::Restart { node })),
        }
        bench.run_to(1_400);
        let held = bench.members[..2].iter().map(|&node| bench.world.cache().unwrap().holds(node));
        assert_eq!(held.collect::<Vec<_>>(), [(0, 0); 2], "the replica follows");
        bench.run_to(2_000);
        assert_eq!((answer(&bench, 1), answer(&bench, 2), answer(&bench, 3)), (miss(), written(), hash("b")));
    }
}

#[test]
fn a_promoted_replica_lacks_the_last_writes() {
    let parts = vec![from(10, vec![write(1, "old")]), from(1_000, vec![write(1, "new"), write(2, "new")])];
    let mut bench =
        bench(vec![script([parts, vec![from(9_000, vec![read(1), read(2), write(3, "x"), read(3)])]].concat())]);
    bench.run_to(900);
    fault(&mut bench, Fault::DelayReplication { by: Duration::from_secs(60) });
    bench.run_to(1_500);
    assert_eq!((answer(&bench, 1), answer(&bench, 2)), (written(), written()), "acknowledged");
    let node = bench.members[0];
    bench.inject(WorldFault::Crash { node }).run_to(10_000);
    assert_eq!(bench.world.cache().unwrap().primary(0), bench.members[1]);
    assert_eq!((answer(&bench, 3), answer(&bench, 4)), (hash("old"), miss()));
    assert_eq!(answer(&bench, 6), hash("x"));
}

#[test]
fn a_planned_failover_breaks_connections_and_the_old_primary_follows() {
    let parts =
        vec![from(10, vec![write(1, "a")]), from(1_010, vec![read(1)]), from(3_000, vec![read(1), write(1, "b")])];
    let mut bench = bench(vec![script(parts)]);
    bench.run_to(1_000);
    fault(&mut bench, Fault::Failover { region: 0 });
    bench.run_to(4_000);
    assert_eq!(answer(&bench, 1), Answer::Read(Outcome::Refused(Refusal::Unreachable)), "it connects anew");
    assert_eq!((answer(&bench, 2), answer(&bench, 3)), (hash("a"), written()));
    let model = bench.world.cache().unwrap();
    assert_eq!(model.holds(bench.members[0]), model.holds(bench.members[1]));
}

#[test]
fn a_crashed_primary_is_missed_for_less_than_five_seconds() {
    let asks = (0..100).map(|n| (1_000 + n * 100, read(1).into())).collect();
    let mut bench = bench(vec![script(vec![from(10, vec![write(1, "a")]), asks])]);
    bench.run_to(2_000);
    let node = bench.members[0];
    bench.inject(WorldFault::Crash { node }).run_to(12_000);
    let served = (1..=100).filter(|&n| answer(&bench, n) == hash("a")).map(|n| bench.caller(0).asked_ms(n));
    let back = served.filter(|&at| at > 2_000).min().expect("it comes back");
    assert!(back < 7_000, "{back}");
}

#[test]
fn a_primary_cut_off_from_its_replica_loses_what_it_took_meanwhile() {
    let near = script(vec![from(4_000, vec![write(1, "lost")]), from(12_000, vec![read(1)])]);
    let far = script(vec![from(8_000, vec![write(2, "kept")]), from(12_000, vec![read(2)])]);
    let mut bench = bench(vec![near, far]);
    bench.run_to(1_000);
    let (callers, members) = (bench.callers.clone(), bench.members.clone());
    let cut = bench.cut(&[members[0]], &[members[1], callers[1]]);
    bench.run_to(9_000);
    assert_eq!(answer(&bench, 0), written(), "who reaches it is served");
    bench.inject(WorldFault::Uncut { id: cut }).run_to(13_000);
    assert_eq!(answer(&bench, 1), miss());
    assert_eq!(bench.caller(1).cache(1).unwrap().1, &hash("kept"));
}

#[test]
fn what_waits_on_a_broken_connection_is_unknown_and_what_finds_none_is_refused() {
    let asks = |at| vec![(at, Ask::from(write(1, "a")))];
    let mut bench = bench_of(5, vec![script(vec![asks(1_010), asks(1_500), asks(3_600), asks(6_000)])], 1, 1 << 20);
    bench.run_to(1_000);
    let node = bench.members[0];
    bench.inject(WorldFault::Crash { node }).run_to(5_000);
    let (first, second) = (bench.caller(0).cache(0).unwrap(), bench.caller(0).cache(1).unwrap());
    assert_eq!((first.1, second.1), (&Answer::Written(Outcome::Unknown), &Answer::Written(Outcome::Unknown)));
    assert!(second.0 < 3_500, "before its deadline: the connection was given up at {}", second.0);
    let refused = Answer::Written(Outcome::Refused(Refusal::Unreachable));
    assert_eq!(answer(&bench, 2), refused);
    bench.inject(WorldFault::Restart { node }).run_to(7_000);
    assert_eq!(answer(&bench, 3), written());
}

#[test]
fn nobody_is_let_in_where_a_password_was_set() {
    let mut bench = bench(vec![script(vec![
        from(10, vec![write(1, "a")]),
        from(2_000, vec![read(1)]),
        from(4_000, vec![read(1)]),
    ])]);
    bench.run_to(1_000);
    fault(&mut bench, Fault::RefuseConnections { on: true });
    bench.run_to(2_500);
    assert_eq!(answer(&bench, 1), Answer::Read(Outcome::Refused(Refusal::Unreachable)));
    fault(&mut bench, Fault::RefuseConnections { on: false });
    bench.run_to(5_000);
    assert_eq!(answer(&bench, 2), hash("a"));
}

#[test]
fn a_slow_server_and_a_lost_answer_are_unknown_though_the_write_is_done() {
    let ask = |at, submission| vec![(at, Ask::Cache(submission, limits::CACHE_PATIENCE))];
    let parts = vec![ask(1_000, write(1, "a")), ask(2_000, read(1)), ask(3_000, write(2, "b")), ask(4_000, read(2))];
    let mut bench = bench(vec![script(parts)]);
    bench.run_to(900);
    fault(&mut bench, Fault::DelayRequests { from: None, by: Duration::from_millis(100) });
    bench.run_to(1_500);
    assert_eq!(bench.caller(0).cache(0).unwrap(), (1_050, &Answer::Written(Outcome::Unknown)));
    bench.inject(WorldFault::Heal).run_to(2_500);
    assert_eq!(answer(&bench, 1), hash("a"));
    fault(&mut bench, Fault::LoseAnswers { from: None, permille: 1_000 });
    bench.run_to(3_500);
    assert_eq!(bench.caller(0).cache(2).unwrap(), (3_050, &Answer::Written(Outcome::Unknown)));
    bench.inject(WorldFault::Heal).run_to(4_500);
    assert_eq!(answer(&bench, 3), hash("b"));
}

#[test]
fn the_operations_of_a_connection_are_executed_in_their_order_however_packets_are_lost() {
    let asks: Vec<_> = (0..200).map(|n| (1_000 + n * 2, Ask::from(write(1, &n.to_string())))).collect();
    let mut bench = bench(vec![script(vec![asks, from(8_000, vec![read(1)])])]);
    bench.run_to(900);
    let (from, to) = (vec![bench.callers[0]], vec![bench.members[0]]);
    let (delay, jitter) = (Duration::ZERO, Duration::from_millis(50));
    let lossy =
        WorldFault::Degrade { id: 9, from, to, both: true, loss_permille: 300, duplicate_permille: 0, delay, jitter };
    bench.inject(lossy).run_to(9_000);
    let answered: Vec<u64> = (0..200).filter_map(|n| Some(bench.caller(0).cache(n)?.0)).collect();
    assert!(answered.is_sorted() && answered.len() == 200, "answers come in order");
    assert_eq!(answer(&bench, 200), hash("199"));
}

#[test]
fn a_write_of_a_broken_connection_may_land_after_one_of_the_next() {
    let parts =
        vec![from(1_000, vec![write(1, "old")]), from(4_000, vec![write(1, "new")]), from(12_000, vec![read(1)])];
    let mut bench = bench(vec![script(parts)]);
    bench.run_to(900);
    let (caller, members) = (bench.callers[0], bench.members.clone());
    let cut = bench.cut(&[caller], &members);
    bench.run_to(3_500);
    assert_eq!(answer(&bench, 0), Answer::Written(Outcome::Unknown));
    // The first connection's socket waits for its next try while the second one is opened and used.
    bench.inject(WorldFault::Uncut { id: cut }).run_to(13_000);
    assert_eq!((answer(&bench, 1), answer(&bench, 2)), (written(), hash("old")));
    assert_eq!(bench.world.cache().unwrap().waiting(), 0);
}

#[test]
fn a_node_of_no_region_is_refused() {
    let callers = vec![script(vec![from(10, vec![read(1)])])];
    let mut bench = Bench::new(1, callers, |world, nodes| {
        world.set_cache(Config::new(vec![Region { members: nodes, callers: vec![] }]));
    });
    bench.run_to(100);
    assert_eq!(answer(&bench, 0), Answer::Read(Outcome::Refused(Refusal::Unreachable)));
}
