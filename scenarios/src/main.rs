//! `worldline`: the engineer's command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    worldline_scenarios::cli::main()
}
