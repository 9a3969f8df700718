//! Many seeds of drawn faults, and what must hold in each of them: acknowledged writes stay, in the order of real time.

use super::{tests::*, *};
use crate::{
    Fault as WorldFault,
    testing::{Bench, Caller, storm},
};
use std::collections::BTreeMap;
use worldline_system::{
    Outcome,
    doors::directory::{Change, Consistency, Page, Transacted},
    history::Acceptance,
};

const STORM_MS: u64 = 20_000;
const SEEDS: u64 = 60;

/// Every caller writes values of its own, reads, holds a lease, and watches.
fn caller(n: u64) -> Caller {
    let mut script = vec![(100, watch(2)), (500, grant(100 + n, 2))];
    for step in 0..(STORM_MS + 5_000) / 200 {
        let at = 600 + step * 200;
        script.push((at, within(put(n, n * 10_000 + step), 1_000)));
        script.push((at + 70, within(read(Consistency::Linearizable), 1_000)));
        script.push((at + 90, renew(100 + n)));
    }
    script.push((STORM_MS + 9_000, put(n, n * 10_000 + 9_999)));
    Caller::new(script)
}

fn stormy(seed: u64) -> Bench {
    let mut bench = bench(seed, (1..=3).map(caller).collect());
    let own = [
        WorldFault::Directory(Fault::LeaderChange),
        WorldFault::Directory(Fault::CancelWatches),
        WorldFault::Directory(Fault::Compact),
        WorldFault::Directory(Fault::SlowDisk { member: None, factor_permille: 30_000 }),
        WorldFault::Directory(Fault::LoseAnswers { from: None, of: Which::All, permille: 200 }),
        WorldFault::Directory(Fault::DelayRequests { from: None, by: Duration::from_millis(700) }),
    ];
    storm(&mut bench, seed, 300, STORM_MS, &own);
    bench.run_to(STORM_MS + 12_000);
    bench
}

/// An operation that was done: when it was asked and answered, and the revision that it saw or made.
struct Done {
    asked: u64,
    answered: u64,
    revision: u64,
    wrote: bool,
}

fn done(bench: &Bench) -> Vec<Done> {
    let mut all = vec![];
    for n in 0..3 {
        for (line, (at, answer)) in bench.caller(n).directory_answers() {
            let (revision, wrote) = match answer {
                Answer::Transacted(Outcome::Done(Transacted { revision, .. })) => (revision.0, true),
                Answer::Read(Outcome::Done(Page { revision, .. })) => (revision.0, false),
                _ => continue,
            };
            all.push(Done { asked: bench.caller(n).asked_ms(line), answered: at, revision, wrote });
        }
    }
    all
}

#[test]
fn what_is_acknowledged_stays_in_the_order_of_real_time() {
    let mut total = 0;
    for seed in 0..SEEDS {
        let mut bench = stormy(seed);
        let mut made = BTreeMap::new();
        for (_, acceptance) in bench.accepted() {
            if let Acceptance::DirectoryChanged { revision, changes } = acceptance {
                assert_eq!(revision.0, made.len() as u64 + 2, "seed {seed}: revisions go up by one");
                made.insert(revision.0, changes);
            }
        }
        let mut done = done(&bench);
        total += done.len();
        done.sort_by_key(|done| done.answered);
        assert!(done.iter().filter(|done| done.wrote).all(|done| made.contains_key(&done.revision)), "seed {seed}");
        for (n, later) in done.iter().enumerate() {
            for earlier in done[..n].iter().filter(|earlier| earlier.answered < later.asked) {
                let order =
                    if later.wrote { earlier.revision < later.revision } else { earlier.revision <= later.revision };
                assert!(order, "seed {seed}: asked at {} after {}", later.asked, earlier.answered);
            }
        }
        for n in 0..3 {
            let last = bench.caller(n).lines() - 1;
            assert!(
                succeeded(&bench, n, last),
                "seed {seed}: healed, caller {n}: {:?}",
                bench.caller(n).directory(last)
            );
        }
    }
    assert!(total as u64 > SEEDS * 200, "the storm lets something through: {total}");
}

#[test]
fn a_lease_outlives_its_last_renewal_by_its_time_and_no_watch_skips_or_reorders() {
    for seed in 100..100 + SEEDS {
        let mut bench = stormy(seed);
        let mut renewed = BTreeMap::new();
        let mut made = BTreeMap::new();
        for (at, acceptance) in bench.accepted() {
            match acceptance {
                Acceptance::LeaseGranted { lease, .. } | Acceptance::LeaseRenewed { lease } => {
                    renewed.insert(lease, at);
                }
                Acceptance::LeaseEnded { lease } => {
                    assert!(
                        at >= renewed[&lease] + 1_999,
                        "seed {seed}: renewed at {}, ended at {at}",
                        renewed[&lease]
                    );
                }
                Acceptance::DirectoryChanged { revision, changes } => {
                    made.insert(revision, changes);
                }
                _ => {}
            }
        }
        for n in 0..3 {
            let mut expected = Revision(2);
            for (_, event) in bench.caller(n).news() {
                let Event::Changed { revision, changes, .. } = event else { break };
                let owners =
                    |change: &&Change| matches!(change, Change::Put(record) if record.key.family() == Family::Owners);
                let truth: Vec<Change> = made
                    .range(expected..=*revision)
                    .flat_map(|(_, changes)| changes.iter().filter(owners).copied())
                    .collect();
                assert_eq!(changes.to_vec(), truth, "seed {seed}: caller {n} from {expected} to {revision}");
                expected = revision.next();
            }
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_storm() {
    let hash = |seed| stormy(seed).world.hash();
    assert_eq!(hash(7), hash(7));
    assert_ne!(hash(7), hash(8));
}
