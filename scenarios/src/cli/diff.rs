//! `worldline diff`: two kept results over the same seeds.

use super::{Failed, output::Output, result_file};
use clap::Args;
use std::path::PathBuf;
use worldline_reports::{diff, moved};

/// Arguments of `worldline diff`.
#[derive(Args, Debug)]
pub struct DiffArguments {
    /// What is compared with: a result that `run --result FILE` has kept
    #[arg(value_name = "A")]
    before: PathBuf,
    /// What is looked at: another one over the same scenarios and seeds
    #[arg(value_name = "B")]
    after: PathBuf,
}

/// Compares.
pub fn diff(output: &mut Output, arguments: &DiffArguments) -> Result<u8, Failed> {
    let (a, b) = result_file::both(&arguments.before, &arguments.after)?;
    let differs = if a.revision == b.revision { "" } else { "  (another revision)" };
    for (side, path, kept, note) in [('A', &arguments.before, &a, ""), ('B', &arguments.after, &b, differs)] {
        output.print(&format!("{side}  {}  revision {}{note}\n", path.display(), kept.revision))?;
    }
    let compared = diff::diff(&a, &b)
        .map_err(|wrong| Failed::File(format!("error: these cannot be compared\n  {}", wrong.join("\n  "))))?;
    output.print(&moved::diff(&compared, output.colour))?;
    output.flush()?;
    Ok(compared.exit_code())
}
