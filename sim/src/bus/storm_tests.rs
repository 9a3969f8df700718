//! Many seeds of drawn faults, and what must hold in each of them: without a power loss what was answered stays where it was,
//! and a reader that acknowledges sees all of it.

use super::{tests::*, *};
use crate::{
    Fault as WorldFault,
    testing::{Bench, Caller, Follow, storm},
};
use std::collections::{BTreeMap, BTreeSet};
use worldline_system::{
    Outcome,
    doors::bus::{Durable, Event, MessageId},
    history::Acceptance,
};

const STORM_MS: u64 = 30_000;
const SEEDS: u64 = 60;

/// Every caller publishes facts of its own, each until it was answered or three times, and two follow the stream.
fn caller(n: u64) -> Caller {
    let mut script = vec![];
    for fact in 0..(STORM_MS + 5_000) / 300 {
        for attempt in 0..3 {
            script.push((600 + fact * 300 + attempt * 2_500, patient(publish(n, fact), 2_000)));
        }
    }
    script.push((STORM_MS + 40_000, publish(n, 9_999)));
    script.sort_by_key(|&(at, _)| at);
    let caller = Caller::new(script);
    match n {
        1 => caller.following(Follow { durable: Some(Durable(NodeId(1))), acknowledges: true }),
        2 => caller.following(Follow { durable: None, acknowledges: true }),
        _ => caller,
    }
}

fn stormy(seed: u64, sync_period: Duration) -> Bench {
    let mut bench = bench_of(seed, (1..=3).map(caller).collect(), |config| config.sync_period = sync_period);
    let own = [
        WorldFault::Bus(Fault::LeaderChange),
        WorldFault::Bus(Fault::Disconnect { from: None }),
        WorldFault::Bus(Fault::RewindConsumers { by: 5 }),
        WorldFault::Bus(Fault::LoseAnswers { from: None, of: Which::All, permille: 200 }),
        WorldFault::Bus(Fault::LoseRequests { from: None, of: Which::Acknowledgements, permille: 300 }),
        WorldFault::Bus(Fault::DelayDeliveries { by: Duration::from_millis(700) }),
    ];
    storm(&mut bench, seed, 400, STORM_MS, &own);
    bench.run_to(STORM_MS + 60_000);
    bench
}

/// What the stream said that it stored, by sequence; a lost tail takes its own back.
fn truth(bench: &mut Bench) -> (BTreeMap<u64, MessageId>, u32) {
    let (mut stored, mut tails) = (BTreeMap::new(), 0);
    for (_, acceptance) in bench.accepted() {
        match acceptance {
            Acceptance::Published { sequence, message, .. } => {
                let next = stored.last_key_value().map_or(1, |(last, _)| last + 1);
                assert_eq!(sequence.0, next, "sequences go up by one");
                stored.insert(sequence.0, message);
            }
            Acceptance::TailLost { last } => {
                stored.split_off(&(last.0 + 1));
                tails += 1;
            }
            _ => {}
        }
    }
    (stored, tails)
}

#[test]
fn what_was_answered_stays_and_a_reader_sees_all_of_it() {
    let (mut total, mut again) = (0, 0);
    for seed in 0..SEEDS {
        let mut bench = stormy(seed, Duration::ZERO);
        let (stored, tails) = truth(&mut bench);
        assert_eq!(tails, 0, "seed {seed}: members that sync every entry lose none");
        let mut once: Vec<&MessageId> = stored.values().collect();
        // A new leader may store the last one again.
        once.dedup();
        again += stored.len() - once.len();
        let ids: BTreeSet<&MessageId> = once.iter().copied().collect();
        assert_eq!(ids.len(), once.len(), "seed {seed}: within the window an id is stored once");
        for n in 0..3 {
            let caller = bench.caller(n);
            for line in 0..caller.lines() {
                if let Some((_, Answer::Published(Outcome::Done(done)))) = caller.bus(line) {
                    assert_eq!(
                        stored.get(&done.sequence.0).map(|id| id.entity.number()),
                        Some(n as u64 + 1),
                        "seed {seed}"
                    );
                    total += 1;
                }
            }
            let last = caller.bus(caller.lines() - 1);
            assert!(matches!(last, Some((_, Answer::Published(Outcome::Done(_))))), "seed {seed}: healed, {last:?}");
        }
        for n in 0..2 {
            let message = |(_, event): (u64, &Event)| match event {
                Event::Delivered { message, .. } => Some(message.sequence.0),
                _ => None,
            };
            let seen: BTreeSet<u64> = bench.caller(n).told().filter_map(message).collect();
            let missed: Vec<u64> = stored.keys().copied().filter(|sequence| !seen.contains(sequence)).collect();
            assert_eq!(missed, [0; 0], "seed {seed}: reader {n}");
        }
        assert_eq!(bench.world.leaks(), [], "seed {seed}");
        assert_eq!(bench.world.bus().unwrap().waiting(), 0, "seed {seed}");
    }
    assert!(total > SEEDS * 100, "the storm lets something through: {total}");
    assert!(again > 0, "some new leader stores a message again");
}

#[test]
fn members_that_sync_rarely_lose_a_tail_at_worst_and_say_so() {
    let mut tails = 0;
    for seed in 100..100 + SEEDS {
        let mut bench = stormy(seed, Duration::from_secs(120));
        let (stored, lost) = truth(&mut bench);
        tails += lost;
        let kept: Vec<(u64, u64)> = bench
            .world
            .bus()
            .unwrap()
            .messages()
            .map(|message| (message.sequence.0, u64::from_le_bytes((*message.payload).try_into().unwrap())))
            .collect();
        let told: Vec<(u64, u64)> = stored.iter().map(|(&sequence, id)| (sequence, id.number)).collect();
        assert_eq!(kept, told, "seed {seed}");
    }
    assert!(tails > 0, "some storm takes a majority's power");
}

#[test]
fn the_same_seed_gives_the_same_storm() {
    let hash = |seed| stormy(seed, Duration::ZERO).world.hash();
    assert_eq!(hash(7), hash(7));
    assert_ne!(hash(7), hash(8));
}
