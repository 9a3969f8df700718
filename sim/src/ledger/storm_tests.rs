//! Many seeds of drawn faults, and what must hold in each of them: every operation once, none lost, no money made.

use super::{tests::*, *};
use crate::{
    Fault as WorldFault,
    testing::{Bench, Caller, storm},
};
use std::collections::BTreeMap;
use worldline_system::{Outcome, doors::ledger::Verdict, history::Acceptance};

const STORM_MS: u64 = 60_000;
const SEEDS: u64 = 60;
/// Batches before the next hit. All hits of a run fit the window of kept results.
const STEPS: u64 = 8;

/// A hero that hits and hits, and asks for the results of all its hits every time.
fn caller(n: u64) -> Caller {
    let mut script = vec![];
    for again in 0..5 {
        script.push((10 + again * 30, login(n)));
        script.push((20 + again * 30, claim(n, 1)));
    }
    for step in 0..(STORM_MS + 50_000) / 250 {
        script.push((500 + step * 250, attacks(n, 1 + step / STEPS)));
    }
    Caller::new(script)
}

fn stormy(seed: u64) -> Bench {
    let mut bench = bench(seed, (1..=4).map(caller).collect());
    let own = [
        WorldFault::Ledger(Fault::Conflicts { serialization: 100, deadlock: 50, contended: 500 }),
        WorldFault::Ledger(Fault::LoseConnections { permille: 200, when: When::During }),
        WorldFault::Ledger(Fault::LoseConnections { permille: 200, when: When::After }),
        WorldFault::Ledger(Fault::LoseAnswers { from: None, permille: 300, count: 50 }),
        WorldFault::Ledger(Fault::DelayCommits { from: None, by: Duration::from_secs(3) }),
        WorldFault::Ledger(Fault::SlowDisk { member: None, factor_permille: 50_000 }),
        WorldFault::Ledger(Fault::Switchover),
        WorldFault::Ledger(Fault::ReadOnly { on: true }),
        WorldFault::Ledger(Fault::ReadOnly { on: false }),
    ];
    storm(&mut bench, seed, 500, STORM_MS, &own);
    bench
}

#[test]
fn every_operation_happens_once_and_none_that_was_acknowledged_is_lost() {
    let (mut applied, mut failovers) = (0, 0);
    for seed in 0..SEEDS {
        let mut bench = stormy(seed);
        for at in 1..=50 {
            bench.run_to(STORM_MS + at * 1_000);
            let model = bench.world.ledger().unwrap();
            let total: i128 = model.rows().iter().map(|row| i128::from(row.balance)).sum();
            assert_eq!(total, model.minted(), "seed {seed}");
        }
        let (mut through, mut told) = (BTreeMap::new(), vec![]);
        for (_, acceptance) in bench.accepted() {
            if let Acceptance::OperationApplied { operation, fact, .. } = acceptance {
                told.extend(fact.map(|fact| *fact));
                let last = through.insert(operation.character, operation.number).unwrap_or(OpNumber(0));
                assert_eq!(operation.number, last.next(), "seed {seed}: {}", operation.character);
                applied += 1;
            }
        }
        let model = bench.world.ledger().unwrap();
        failovers += u64::from(model.primary() != bench.members[0]);
        assert!(told.iter().zip(1..).all(|(fact, place)| fact.sequence.0 == place), "seed {seed}: facts without gaps");
        assert_eq!(model.facts().collect::<Vec<_>>(), told, "seed {seed}: the outbox has what was committed");
        for n in 0..4 {
            let hero = hero(n as u64 + 1);
            let columns = model.columns(hero.entity()).unwrap();
            assert_eq!(columns.applied_through, through.get(&hero).copied().unwrap_or_default(), "seed {seed}: {hero}");
            let caller = bench.caller(n);
            let mut healthy = false;
            for (line, (at, answer)) in caller.ledger_answers() {
                let Answer::Committed(Outcome::Done(committed)) = answer else { continue };
                healthy |= at > STORM_MS + 40_000;
                for (number, verdict) in (1..).map(OpNumber).zip(&committed.verdicts) {
                    if let &(Verdict::Applied(result) | Verdict::Stored(result)) = verdict {
                        let stored = model.stored_result(hero, number).map(|stored| stored.result);
                        assert_eq!(stored, Some(result), "seed {seed}: {hero} {number}, acknowledged by line {line}");
                    }
                }
            }
            assert!(healthy, "seed {seed}: healed, {hero}");
        }
    }
    assert!(applied > SEEDS as usize * 100, "the storm lets something through: {applied}");
    assert!(failovers > SEEDS / 4, "and primaries fall: {failovers}");
}

#[test]
fn the_same_seed_gives_the_same_storm() {
    let hash = |seed| stormy(seed).world.hash();
    assert_eq!(hash(7), hash(7));
    assert_ne!(hash(7), hash(8));
}
