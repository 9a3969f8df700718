//! Many seeds of drawn faults, and what must hold in each: stamps that only rise on one server's past, presence that is exact,
//! callers that are served again.

use super::{
    store::{Effect, Name, Store, Value},
    tests::*,
    *,
};
use crate::{
    Fault as WorldFault,
    entropy::{Purpose, below},
    testing::{Ask, Bench, Caller, storm},
};
use worldline_system::{
    Outcome,
    doors::{cache::HashKey, directory::RegionId},
    limits,
    rules::{
        grid::{Cell, ERROR_MM},
        space::{Position, WORLD_EDGE_MM},
    },
    time::UnixTime,
};

const STORM_MS: u64 = 30_000;
const SEEDS: u64 = 40;

/// One that keeps rising versions of the same checkpoint and reads it in between.
fn keeper(n: u64) -> Caller {
    let line = |step: u64| match step % 3 {
        0 => Submission::Read(HashKey::Checkpoint(hero(1).entity())),
        _ => keep(1, 1 + step / 50, step * 10 + n),
    };
    let script = (0..(STORM_MS + 15_000) / 40).map(|step| (step * 40 + n, Ask::from(line(step))));
    Caller::new(script.collect())
}

fn stormy(seed: u64) -> Bench {
    let mut bench = bench_of(seed, (1..=3).map(keeper).collect(), 3, 1 << 20);
    let by = Duration::from_millis(200);
    let own = [
        WorldFault::Cache(Fault::Flush { region: None }),
        WorldFault::Cache(Fault::Evict { region: None, permille: 500 }),
        WorldFault::Cache(Fault::WrongTypes { region: None, permille: 500 }),
        WorldFault::Cache(Fault::Failover { region: 0 }),
        WorldFault::Cache(Fault::DelayReplication { by }),
        WorldFault::Cache(Fault::DelayRequests { from: None, by }),
        WorldFault::Cache(Fault::LoseAnswers { from: None, permille: 200 }),
        WorldFault::Cache(Fault::ReadOnly { on: true }),
        WorldFault::Cache(Fault::ReadOnly { on: false }),
        WorldFault::Cache(Fault::RefuseConnections { on: true }),
        WorldFault::Cache(Fault::RefuseConnections { on: false }),
    ];
    storm(&mut bench, seed, 500, STORM_MS, &own);
    bench.run_to(STORM_MS + 15_000);
    bench
}

#[test]
fn whatever_happens_entries_are_whole_and_callers_are_served_again() {
    let (mut read, mut failovers) = (0, 0);
    for seed in 0..SEEDS {
        let bench = stormy(seed);
        let model = bench.world.cache().unwrap();
        failovers += u64::from(model.primary(0) != bench.members[0]);
        assert_eq!(model.waiting(), 0, "seed {seed}: nothing is stuck");
        for n in 0..3 {
            let caller = bench.caller(n);
            let mut served = false;
            for line in 0..caller.lines() {
                let (at, answer) = caller.cache(line).expect("every operation is answered");
                if let Answer::Read(Outcome::Done(Some(entry))) = answer {
                    let stamp = entry.stamp.expect("nobody writes it without one");
                    let value = format!("{}/{}", stamp.epoch, stamp.version);
                    assert_eq!(entry.fields, fields(&[("v", &value)]), "seed {seed}: an entry is one writer's");
                    read += 1;
                    served |= at > STORM_MS + 10_000;
                }
            }
            assert!(served, "seed {seed}: healed, caller {n}");
        }
        let held: Vec<_> = model.members().map(|node| model.holds(node)).collect();
        assert!(held.windows(2).all(|pair| pair[0] == pair[1]), "seed {seed}: replicas agree {held:?}");
    }
    assert!(read > SEEDS * 100, "the storm lets something through: {read}");
    assert!(failovers > SEEDS / 4, "and primaries fall: {failovers}");
}

#[test]
fn the_same_seed_gives_the_same_storm() {
    let hash = |seed| stormy(seed).world.hash();
    assert_eq!(hash(7), hash(7));
    assert_ne!(hash(7), hash(8));
}

/// Against the plain reading of the contract: everybody is looked at.
#[test]
fn a_search_finds_what_a_look_at_everybody_finds() {
    let core = Core::new(11);
    let draw = |who: u64, n: u64, bound: u64| below(core.draw(Purpose::Scenario, who, n), bound);
    let now = UnixTime::from_nanos(1);
    for round in 0..40 {
        // From a crowd on a square to a scatter over the world, and at its edges.
        let span = [2_000, 200_000, 2_000_000, 2 * WORLD_EDGE_MM as u64][round as usize % 4];
        let corner = if round % 8 < 4 { -(span as i64) / 2 } else { WORLD_EDGE_MM - span as i64 };
        let at = |who, n| Position {
            x_mm: corner + draw(who, 2 * n, span + 1) as i64,
            y_mm: corner + draw(who, 2 * n + 1, span + 1) as i64,
        };
        let mut store = Store::default();
        let mut all = BTreeMap::new();
        for n in 0..1_500 {
            let member = hero(draw(round * 4, n, 1_000));
            let (place, until) = (at(round * 4 + 1, n), UnixTime::from_nanos(1 + draw(round * 4 + 2, n, 8)));
            all.insert(member, (place, until));
            store.apply(UnixTime::from_nanos(0), &Effect::Place(RegionId(0), member, Cell::of(place), until));
            // The presence lives on with whoever comes last.
            store.apply(
                UnixTime::from_nanos(0),
                &Effect::Place(RegionId(0), hero(2_000), Cell::of(place), now + Duration::from_secs(1)),
            );
        }
        let Some(Value::Presence(presence)) = store.get(now, Name::Presence(RegionId(0))) else { panic!("it is one") };
        for n in 0..50 {
            let around = at(round * 4 + 3, n);
            let radius_mm = draw(round * 4 + 3, 1_000 + n, limits::CACHE_RADIUS_MM + 1).min(span);
            let limit = 1 + draw(round * 4 + 3, 2_000 + n, limits::CACHE_NEIGHBOURS.into()) as u16;
            let found: Vec<_> = presence.near(now, around, radius_mm, limit);
            let found: Vec<_> = found.into_iter().filter(|near| near.member != hero(2_000)).collect();
            let mut expected: Vec<_> = all
                .iter()
                .filter(|(_, (_, until))| *until > now)
                .map(|(&who, &(place, _))| (Cell::of(place).middle().distance_mm(around), who))
                .filter(|&(distance, _)| distance <= radius_mm)
                .collect();
            expected.sort_unstable();
            let same = found
                .iter()
                .zip(&expected)
                .all(|(near, &(distance, who))| (near.distance_mm, near.member) == (distance, who));
            let enough = found.len() >= expected.len().min(usize::from(limit) - 1) && found.len() <= expected.len();
            assert!(same && enough, "round {round} {around:?} {radius_mm}: {found:?} {expected:?}");
            for near in found {
                let (true_place, _) = all[&near.member];
                assert!(near.distance_mm.abs_diff(true_place.distance_mm(around)) <= ERROR_MM + 1);
            }
        }
    }
}
