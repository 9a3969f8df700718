//! The command line: what was asked, where it goes, and the exit code that says how it ended.
//!
//! | code | |
//! |---|---|
//! | 0 | all held |
//! | 1 | an invariant broke |
//! | 2 | a liveness or timing budget was missed |
//! | 3 | not deterministic |
//! | 64 | wrong usage |
//! | 65 | a wrong scenario, failure or result file |
//! | 69 | `doctor --real`: something of the real part is missing |
//! | 74 | what was asked for could not be written |

mod diff;
mod doctor;
mod list;
pub mod output;
pub mod place;
mod replay;
mod report;
mod result_file;
mod run;
mod schema;
pub mod usage;

use clap::{Parser, Subcommand};
use output::Output;
use std::process::ExitCode;

/// Wrong usage.
pub const USAGE: u8 = 64;
/// A wrong file.
pub const BAD_FILE: u8 = 65;
/// Output that could not be written.
pub const NOT_WRITTEN: u8 = 74;

/// Why a command has no result.
#[derive(Debug, thiserror::Error)]
pub enum Failed {
    /// Wrong usage.
    #[error("error: {0}")]
    Usage(String),
    /// A wrong file; the text says all that is wrong with it.
    #[error("{0}")]
    File(String),
    /// Output that could not be written.
    #[error("error: cannot write {0}")]
    Write(String),
    /// Nobody reads the output any more: not an error.
    #[error("the output was closed")]
    Closed,
}

impl Failed {
    /// The exit code of a process that ends so.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => USAGE,
            Self::File(_) => BAD_FILE,
            Self::Write(_) | Self::Closed => NOT_WRITTEN,
        }
    }
}

impl From<std::io::Error> for Failed {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::BrokenPipe => Self::Closed,
            _ => Self::Write(format!("the output: {error}")),
        }
    }
}

impl From<crate::format::Problems> for Failed {
    fn from(problems: crate::format::Problems) -> Self {
        Self::File(problems.to_string().trim_end().to_owned())
    }
}

/// Deterministic chaos scenarios of an MMO backend: every failure replayable from its seed.
#[derive(Parser)]
#[command(name = "worldline", version = env!("WORLDLINE_REVISION"), after_help = AFTER_HELP, disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
}

const AFTER_HELP: &str = "Without a command the default suite runs: the whole catalogue, several seeds each.

Exit codes: 0 all held; 1 an invariant broke; 2 a liveness or timing budget was
missed; 3 not deterministic; 64 wrong usage; 65 a wrong scenario, failure or
result file; 69 `doctor --real`: something is missing; 74 a file could not be
written.";

const DOCTOR_HELP: &str = "Exit codes: 0 the simulator can run, whatever the real part lacks; 1 it cannot;
3 it is not deterministic on this machine; 69 with --real: something of the
real part is missing.";

const DIFF_HELP: &str = "Example:
  worldline run worker-crash --seeds 200 --result a.json
  worldline run worker-crash --seeds 200 --set lease.ttl=4s --result b.json
  worldline diff a.json b.json

Exit codes: 0 nothing is worse in B; 1 an invariant breaks in B only; 2 a budget
is missed in B only, or a timing is slower beyond noise; 64 wrong usage; 65 a
file is no result, or the two cannot be compared.";

#[derive(Subcommand)]
enum Command {
    /// The catalogue: names, and what threatens
    List,
    /// Run scenarios over seeds and print what held, how fast, and how long failovers took
    Run(run::RunArguments),
    /// Run one seed again, twice, and print its hash, its verdicts and, if asked, every event
    Replay(replay::ReplayArguments),
    /// Compare two kept results over the same seeds: what moved, and whether beyond noise
    #[command(after_help = DIFF_HELP)]
    Diff(diff::DiffArguments),
    /// Renderings of kept results: simulated beside measured
    Report(report::ReportArguments),
    /// What is installed, what is missing, what for, and the command that gets it
    #[command(after_help = DOCTOR_HELP)]
    Doctor(doctor::DoctorArguments),
    /// Print the JSON Schema of scenario files, for an editor or a program
    Schema,
}

/// Runs the command that the process was started with.
#[must_use]
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // If nobody reads it, nobody misses it.
            let _ = error.print();
            return if error.use_stderr() { USAGE.into() } else { ExitCode::SUCCESS };
        }
    };
    let mut output = Output::standard();
    let ended = match arguments.command {
        None => run::default_suite(&mut output),
        Some(Command::List) => list::list(&mut output).map(|()| 0),
        Some(Command::Diff(arguments)) => diff::diff(&mut output, &arguments),
        Some(Command::Report(arguments)) => report::report(&mut output, &arguments),
        Some(Command::Doctor(arguments)) => doctor::doctor(&mut output, &arguments),
        Some(Command::Schema) => schema::schema(&mut output).map(|()| 0),
        Some(Command::Run(arguments)) => run::run(&mut output, arguments),
        Some(Command::Replay(arguments)) => replay::replay(&mut output, arguments),
    };
    match ended {
        Ok(code) => code.into(),
        Err(Failed::Closed) => ExitCode::SUCCESS,
        Err(failed) => {
            output.complain(&failed.to_string());
            failed.exit_code().into()
        }
    }
}
