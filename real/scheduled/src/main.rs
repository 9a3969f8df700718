//! The host and the loops of the adapters under madsim: tasks run in an order that is drawn from a seed, on a clock that only
//! moves when nobody has anything to do, and connections are played by a script.
//!
//! * `worldline_real` is built as for production, but on madsim's tasks and timers and without what needs a network or a file.
//! * What a script does is drawn from streams of its own (`script::draws`): another order of tasks does not change it.
//! * A promise is checked where it is kept: when a role is told, when something leaves, when a task ends.
//!
//! `ci/adapters` builds this with `--cfg madsim` and runs it; without, there is nothing in it.

#![forbid(unsafe_code)]

#[cfg(madsim)]
extern crate worldline_tokio as tokio;

#[cfg(madsim)]
pub mod bus;
#[cfg(madsim)]
pub mod cache;
#[cfg(madsim)]
pub mod directory;
#[cfg(madsim)]
pub mod host;
#[cfg(madsim)]
#[path = "../../simulated/src/log.rs"]
pub mod log;
#[cfg(madsim)]
pub mod script;
#[cfg(madsim)]
pub mod wire;

#[cfg(not(madsim))]
fn main() -> std::process::ExitCode {
    eprintln!("this was built without madsim: `ci/adapters` builds it with `--cfg madsim`");
    std::process::ExitCode::from(64)
}

/// `schedules SUITE SEED`: runs [`script::SCHEDULES`] schedules of a suite, and writes what was told.
#[cfg(madsim)]
fn main() -> std::process::ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let suite = match &arguments[..] {
        [name, seed] => seed.parse().ok().and_then(|seed: u64| Some((script::suite(name)?, seed))),
        _ => None,
    };
    let Some((suite, seed)) = suite else {
        eprintln!("usage: schedules SUITE SEED");
        return std::process::ExitCode::from(64);
    };
    for schedule in 0..script::SCHEDULES {
        print!("{}", script::run(suite, seed * script::SCHEDULES + schedule));
    }
    std::process::ExitCode::SUCCESS
}
