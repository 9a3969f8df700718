//! The adapters in simulation: production's code on simulated machines, under the laws and in any weather.
//!
//! * Every suite is run for many seeds, and every seed twice: what the nodes were told, and when, must be alike in both.
//! * Suites of schedules are another program's, which is built on madsim's tasks (`scheduled/`); here they are only compared.
//! * A machine of the simulation is a [`worldline_real::machine::Machine`], as production's own is; the adapters know of no other
//!   difference.
//!
//! Must never be here: a promise that is not a door's; the laws say those. A second implementation of an adapter.

#![forbid(unsafe_code)]

pub mod directory;
pub mod log;
pub mod machine;
pub mod network;
pub mod schedules;
pub mod twice;

use clap::Parser;
use log::Log;
use std::{
    collections::BTreeSet,
    env, io,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
};
use twice::twice;

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
    /// The program of the suites of schedules.
    #[arg(long)]
    schedules: Option<PathBuf>,
    /// Only these suites; all of them otherwise.
    suites: Vec<String>,
}

/// A suite.
struct Suite {
    name: &'static str,
    run: Run,
    /// What its seeds together must come across, where there are [`ENOUGH`] of them: one that never met what it is about shows
    /// nothing.
    expected: &'static [&'static str],
}

/// Who runs a seed.
#[derive(Clone, Copy)]
enum Run {
    Own(fn(u64) -> Log),
    /// The program of the suites of schedules.
    Schedules,
}

/// So many seeds come across everything.
const ENOUGH: u64 = 3;

use Run::{Own, Schedules};

const SUITES: &[Suite] = &[
    Suite { name: "directory-sound", run: Own(directory::laws::sound), expected: &[] },
    Suite { name: "directory-leases", run: Own(directory::laws::leases), expected: &[] },
    Suite { name: "directory-faults", run: Own(directory::laws::under_faults), expected: &[] },
    Suite { name: "directory-holder", run: Own(directory::holder::holder), expected: directory::holder::HOLDER },
    Suite { name: "network-connections", run: Own(network::laws::connections), expected: &[] },
    Suite { name: "network-idle", run: Own(network::laws::idle), expected: &[] },
    Suite { name: "network-calls", run: Own(network::laws::calls), expected: &[] },
    Suite { name: "network-weather", run: Own(network::weather::weather), expected: network::weather::WEATHER },
    Suite { name: "host-schedules", run: Schedules, expected: schedules::HOST },
    Suite { name: "cache-schedules", run: Schedules, expected: schedules::CACHE },
    Suite { name: "bus-schedules", run: Schedules, expected: schedules::BUS },
    Suite { name: "directory-schedules", run: Schedules, expected: schedules::DIRECTORY },
];

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Some(unknown) = arguments.suites.iter().find(|name| SUITES.iter().all(|suite| suite.name != *name)) {
        let names: Vec<_> = SUITES.iter().map(|suite| suite.name).collect();
        eprintln!("there is no suite `{unknown}`; there are: {}", names.join(", "));
        return ExitCode::from(64);
    }
    let wanted = |name: &str| arguments.suites.is_empty() || arguments.suites.iter().any(|suite| suite == name);
    let own = arguments.suites.first().and_then(|name| SUITES.iter().find(|suite| suite.name == *name));
    if let (true, Some(Suite { run: Own(run), .. })) = (arguments.once, own) {
        print!("{}", run(arguments.from));
        return ExitCode::SUCCESS;
    }
    let schedules = arguments.schedules.as_deref();
    if schedules.is_none() && SUITES.iter().any(|suite| wanted(suite.name) && matches!(suite.run, Schedules)) {
        eprintln!("which program has the suites of schedules? `ci/adapters` builds it and says so with --schedules");
        return ExitCode::from(64);
    }
    println!("{:<22} {:>6} {:>8}  DIGEST", "SUITE", "SEED", "EVENTS");
    let mut failed = 0;
    for Suite { name, run, expected } in SUITES.iter().filter(|suite| wanted(suite.name)) {
        let mut seen = BTreeSet::new();
        for seed in arguments.from..arguments.from + arguments.seeds {
            let command = || command(name, *run, schedules, seed);
            match twice(command) {
                Ok(told) => {
                    seen.extend(told.seen.iter().cloned());
                    println!("{name:<22} {seed:>6} {:>8}  {:016x}", told.lines.len(), told.digest());
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

/// The process that runs a seed once.
fn command(suite: &str, run: Run, schedules: Option<&Path>, seed: u64) -> io::Result<Command> {
    let seed = seed.to_string();
    let mut command = match (run, schedules) {
        (Schedules, Some(program)) => Command::new(program),
        _ => Command::new(env::current_exe()?),
    };
    match run {
        Own(_) => command.args(["--once", "--from", &seed, suite]),
        Schedules => command.args([suite, &seed]),
    };
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    Ok(command)
}
