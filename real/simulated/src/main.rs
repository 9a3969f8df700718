//! The adapters in simulation: production's code on simulated machines, under the laws and in any weather.
//!
//! * Every suite is run for many seeds, and every seed twice: what the nodes were told, and when, must be alike in both.
//! * A machine of the simulation is a [`worldline_real::machine::Machine`], as production's own is; the adapters know of no other
//!   difference.
//!
//! Must never be here: a promise that is not a door's; the laws say those. A second implementation of an adapter.

#![forbid(unsafe_code)]

pub mod directory;
pub mod log;
pub mod machine;
pub mod network;

use clap::Parser;
use log::Log;
use std::{
    collections::BTreeSet,
    env,
    process::{Child, Command, ExitCode, Stdio},
};

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
    /// Runs one seed of one suite once, and writes what was told.
    #[arg(long, hide = true)]
    once: bool,
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
    Suite { name: "directory-sound", run: directory::laws::sound, expected: &[] },
    Suite { name: "directory-leases", run: directory::laws::leases, expected: &[] },
    Suite { name: "directory-faults", run: directory::laws::under_faults, expected: &[] },
    Suite { name: "directory-holder", run: directory::holder::holder, expected: directory::holder::HOLDER },
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
    if arguments.once {
        let suite = SUITES.iter().find(|suite| wanted(suite.name)).expect("a suite");
        print!("{}", (suite.run)(arguments.from));
        return ExitCode::SUCCESS;
    }
    println!("{:<22} {:>6} {:>8}  DIGEST", "SUITE", "SEED", "EVENTS");
    let mut failed = 0;
    for Suite { name, expected, .. } in SUITES.iter().filter(|suite| wanted(suite.name)) {
        let mut seen = BTreeSet::new();
        for seed in arguments.from..arguments.from + arguments.seeds {
            match twice(name, seed) {
                Ok(log) => {
                    seen.extend(log.seen().map(str::to_owned));
                    println!("{name:<22} {seed:>6} {:>8}  {:016x}", log.lines(), log.digest());
                }
                Err(why) => {
                    failed += 1;
                    println!("{name:<22} {seed:>6}   FAILED  {why}");
                }
            }
        }
        let never: Vec<_> = expected.iter().filter(|what| !seen.contains(**what)).collect();
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

/// Runs a seed twice, each time in a process of its own: what a process counts (tokio its tasks) begins anew in each. Both must
/// tell the same.
fn twice(suite: &str, seed: u64) -> Result<Log, String> {
    let (first, second) = (once(suite, seed)?, once(suite, seed)?);
    let (first, second) = (told(first)?, told(second)?);
    match first.difference(&second) {
        None => Ok(first),
        Some(difference) => Err(format!("two runs of this seed differ:\n{difference}")),
    }
}

fn once(suite: &str, seed: u64) -> Result<Child, String> {
    let own = env::current_exe().map_err(|error| format!("this program cannot be found: {error}"))?;
    let mut command = Command::new(own);
    command.args(["--once", "--from", &seed.to_string(), suite]).stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().map_err(|error| format!("no process for a run: {error}"))
}

/// What a run has told, or why it ended before.
fn told(run: Child) -> Result<Log, String> {
    let output = run.wait_with_output().map_err(|error| format!("a run is lost: {error}"))?;
    if output.status.success() {
        Ok(Log::read(&String::from_utf8_lossy(&output.stdout)))
    } else {
        Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
    }
}
