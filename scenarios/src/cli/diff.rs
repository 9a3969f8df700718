//! `worldline diff`: two kept results over the same seeds.

use super::{Failed, output::Output};
use crate::format;
use clap::Args;
use std::path::{Path, PathBuf};
use worldline_reports::{diff, kept::Kept, moved};

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
    let (a, b) = match (read(&arguments.before), read(&arguments.after)) {
        (Ok(a), Ok(b)) => (a, b),
        (Err(Failed::File(one)), Err(Failed::File(two))) => return Err(Failed::File(format!("{one}\n{two}"))),
        (Err(failed), _) | (_, Err(failed)) => return Err(failed),
    };
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

fn read(path: &Path) -> Result<Kept, Failed> {
    const EXPECTED: &str = "a result that `worldline run --result FILE` has kept";
    let text = format::read_text_of(path, EXPECTED, RESULT_BYTES_MAX)?;
    Kept::from_json(&text).map_err(|error| {
        let message = error.to_string();
        let message: String =
            message.split(" at line ").next().unwrap_or_default().chars().map(format::shown).collect();
        let (line, column) = (error.line().max(1), error.column().max(1));
        Failed::File(format!("{}:{line}:{column}: found {message}, expected {EXPECTED}", path.display()))
    })
}

/// The largest result that is read, in bytes: some hundred thousand seeds.
const RESULT_BYTES_MAX: usize = 512 * 1024 * 1024;
