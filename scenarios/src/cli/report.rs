//! `worldline report`: renderings of kept results.

use super::{Failed, output::Output, result_file};
use clap::{Args, Subcommand};
use std::path::PathBuf;
use worldline_reports::agreement::{self, Tolerance};

/// Arguments of `worldline report`.
#[derive(Args, Debug)]
pub struct ReportArguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Debug)]
enum What {
    /// Simulated timings beside measured ones: where each run lies, and which lie outside
    #[command(after_help = COMPARE_HELP)]
    Compare(CompareArguments),
}

const COMPARE_HELP: &str = "Example:
  worldline run --all --seeds 100 --result simulated.json
  ci/drill --all --repeat 5        (writes reports/latest/drill.json)
  worldline report compare simulated.json reports/latest/drill.json

Exit codes: 0 every measured run lies inside; 2 one lies outside, or only one
side has a timing; 64 wrong usage; 65 a file is no result, or the two cannot be
compared.";

/// Arguments of `worldline report compare`.
#[derive(Args, Debug)]
struct CompareArguments {
    /// What the simulator says: a result that `run --result FILE` has kept
    #[arg(value_name = "SIMULATED")]
    simulated: PathBuf,
    /// What was measured: the result of drills of the same scenarios
    #[arg(value_name = "MEASURED")]
    measured: PathBuf,
    /// How far outside a measured figure may lie, in hundredths of the simulated one
    #[arg(long, value_name = "PERCENT", default_value_t = Tolerance::default().percent, value_parser = clap::value_parser!(u64).range(0..=1_000))]
    tolerance: u64,
    /// And how much further, in milliseconds: what a loaded machine may take
    #[arg(long, value_name = "MS", default_value_t = Tolerance::default().slack_ns / 1_000_000, value_parser = clap::value_parser!(u64).range(0..=60_000))]
    slack_ms: u64,
}

/// Renders.
pub fn report(output: &mut Output, arguments: &ReportArguments) -> Result<u8, Failed> {
    let What::Compare(arguments) = &arguments.what;
    let (simulated, measured) = result_file::both(&arguments.simulated, &arguments.measured)?;
    let tolerance = Tolerance { percent: arguments.tolerance, slack_ns: arguments.slack_ms * 1_000_000 };
    let agreements = agreement::compare(&simulated, &measured, tolerance)
        .map_err(|wrong| Failed::File(format!("error: these cannot be compared\n  {}", wrong.join("\n  "))))?;
    if simulated.revision != measured.revision {
        output.print(&format!("simulated at revision {}, measured at {}\n", simulated.revision, measured.revision))?;
    }
    output.print(&agreement::text(&agreements, tolerance, output.colour))?;
    output.flush()?;
    let agree = agreements.iter().flat_map(|one| &one.compared).all(agreement::Compared::agrees);
    Ok(if agree { 0 } else { worldline_reports::Outcome::Missed.exit_code() })
}
