//! `drill`: a scenario file on real processes.
//!
//! It starts services and the processes of every role, puts a proxy on every link between them, plays the workload, provokes
//! the faults, and then judges what all of them have left behind with the checkers of the simulator.
//!
//! Invariants:
//! * What a checker has no source for is not checked, and a fault that cannot be provoked from outside is skipped by name.
//! * Nothing that a drill has started outlives it, but where it is killed (SIGKILL): then its processes and services go on,
//!   and `ci/services status` and the folder `worldline-drill-*` among the temporary files tell of them.
//!
//! Must never be here: a rule of the game, a judgement of its own, anything that a server would need.

mod bus;
mod cache;
mod cli;
mod clocks;
mod command;
mod directory;
mod drill;
mod faults;
mod histories;
mod kept;
mod links;
mod order;
mod present;
mod printed;
mod processes;
mod proxy;
mod services;
mod stage;
mod verdict;
mod world;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
