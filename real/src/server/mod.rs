//! `worldlined`: the command line, and the process of each role.
//!
//! Exit codes: 0 as it should; 1 the answer is no; 64 usage or configuration; 69 an address cannot be had; 70 something broke
//! inside; 78 the ledger has another schema.

/// Prints a line for whoever runs the command; where the reader has gone there is nobody to tell.
macro_rules! tell {
    ($($said:tt)*) => {
        drop(std::io::Write::write_fmt(&mut std::io::stdout(), format_args!("{}\n", format_args!($($said)*))))
    };
}

mod adapters;
mod authority;
mod command_line;
mod exit;
mod holder;
mod http;
mod logs;
mod near;
mod operator;
mod revoke;
mod role;
mod standing;

pub use command_line::main;
pub use exit::Exit;
pub(crate) use http::{Process as Told, serve};
pub use logs::Redaction;
pub(crate) use logs::lost as log_lines_lost;
pub(crate) use role::{Stops, listen};

use crate::config::Command;

/// Of the code that this program was built from.
const REVISION: &str = env!("WORLDLINE_REVISION");

/// A command's name for a machine.
const fn name_of(command: Command) -> &'static str {
    match command {
        Command::Gateway => "gateway",
        Command::Worker => "worker",
        Command::Orchestrator => "orchestrator",
        Command::Replica => "replica",
        Command::Bot => "bot",
        Command::Migrate => "migrate",
        Command::WhoOwns => "who-owns",
        Command::Revoke => "revoke",
        Command::Near => "near",
    }
}
