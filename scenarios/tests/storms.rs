//! Storms: faults of many kinds that overlap at drawn moments. Whatever happens, the invariants hold, and the world comes to
//! itself again.

use std::{fs, path::Path};
use worldline_reports::Outcome;
use worldline_scenarios::{
    format,
    run::{self, Options},
};

/// Few in a debug build; `worldline run scenarios/tests/storms/*.toml --seeds 1000` runs more.
const SEEDS: std::ops::RangeInclusive<u64> = 1..=3;

#[test]
fn every_storm_is_weathered() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/storms");
    let entries = fs::read_dir(folder).expect("the storms are here");
    let mut storms: Vec<_> = entries.map(|entry| entry.expect("readable").path()).collect();
    storms.sort();
    assert!(storms.len() >= 8, "{storms:?}");
    for storm in storms {
        let scenario = format::read(&storm).unwrap_or_else(|problems| panic!("{problems}"));
        for seed in SEEDS {
            let run = run::seed(&scenario, seed, Options::default());
            assert_eq!(
                run.outcome(),
                Outcome::Held,
                "{} seed {seed}: {:?} {:?}",
                run.scenario,
                run.violation,
                run.misses
            );
        }
    }
}
