//! The adapters in simulation: production's code on simulated machines, under the laws and in any weather.
//!
//! * Every suite is run for many seeds, and every seed twice: what the nodes were told, and when, must be alike in both.
//! * A machine of the simulation is a [`worldline_real::machine::Machine`], as production's own is; the adapters know of no other
//!   difference.
//!
//! Must never be here: a promise that is not a door's; the laws say those. A second implementation of an adapter.

#![forbid(unsafe_code)]

pub mod log;
pub mod machine;
pub mod network;

use clap::Parser;
use log::Log;
use std::{collections::BTreeSet, panic, process::ExitCode};

/// Runs the adapters in simulation.
#[derive(Parser)]
#[command(name = "adapters")]
struct Arguments {
    /// How many seeds.
    #[arg(long, default_value_t = ENOUGH)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Only these suites; all of them otherwise.
    suites: Vec<String>,
}

/// A suite.
struct Suite {
    name: &'static str,
    /// Runs a seed.
    run: fn(u64) -> Log,
    /// What its seeds together must come across, where there are [`ENOUGH`] of them: one that never met what it is about shows
    /// nothing.
    expected: &'static [&'static str],
}

/// So many seeds come across everything.
const ENOUGH: u64 = 3;

const SUITES: &[Suite] = &[
    Suite { name: "network-connections", run: network::laws::connections, expected: &[] },
    Suite { name: "network-idle", run: network::laws::idle, expected: &[] },
    Suite { name: "network-calls", run: network::laws::calls, expected: &[] },
    Suite { name: "network-weather", run: network::weather::weather, expected: network::weather::WEATHER },
];

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Some(unknown) = arguments.suites.iter().find(|name| SUITES.iter().all(|suite| suite.name != *name)) {
        let names: Vec<_> = SUITES.iter().map(|suite| suite.name).collect();
        eprintln!("there is no suite `{unknown}`; there are: {}", names.join(", "));
        return ExitCode::from(64);
    }
    let wanted = |name: &str| arguments.suites.is_empty() || arguments.suites.iter().any(|suite| suite == name);
    println!("{:<22} {:>6} {:>8}  DIGEST", "SUITE", "SEED", "EVENTS");
    let mut failed = 0;
    for Suite { name, run, expected } in SUITES.iter().filter(|suite| wanted(suite.name)) {
        let mut seen = BTreeSet::new();
        for seed in arguments.from..arguments.from + arguments.seeds {
            match twice(*run, seed) {
                Ok(log) => {
                    seen.extend(log.seen());
                    println!("{name:<22} {seed:>6} {:>8}  {:016x}", log.lines(), log.digest());
                }
                Err(why) => {
                    failed += 1;
                    println!("{name:<22} {seed:>6}   FAILED  {why}");
                }
            }
        }
        let never: Vec<_> = expected.iter().filter(|what| !seen.contains(*what)).collect();
        if arguments.seeds >= ENOUGH && !never.is_empty() {
            failed += 1;
            println!("{name:<22}          FAILED  never happened in any seed: {never:?}");
        }
    }
    if failed > 0 {
        eprintln!("{failed} runs failed; `adapters --from SEED --seeds 1 SUITE` repeats one");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// Runs a seed twice; both runs must tell the same.
fn twice(run: fn(u64) -> Log, seed: u64) -> Result<Log, String> {
    // The panic has been printed when it is caught here.
    let once = || panic::catch_unwind(|| run(seed)).map_err(|_| "a promise is broken, see above".to_owned());
    let (first, second) = (once()?, once()?);
    match first.difference(&second) {
        None => Ok(first),
        Some(difference) => Err(format!("two runs of this seed differ:\n{difference}")),
    }
}
