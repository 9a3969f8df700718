//! Kept result files, read for whoever compares them.

use super::Failed;
use crate::format;
use std::path::Path;
use worldline_reports::kept::Kept;

/// The largest result that is read, in bytes: some hundred thousand seeds.
const RESULT_BYTES_MAX: usize = 512 * 1024 * 1024;

/// Two of them; what is wrong with either is said at once.
pub fn both(one: &Path, other: &Path) -> Result<(Kept, Kept), Failed> {
    match (read(one), read(other)) {
        (Ok(one), Ok(other)) => Ok((one, other)),
        (Err(Failed::File(one)), Err(Failed::File(other))) => Err(Failed::File(format!("{one}\n{other}"))),
        (Err(failed), _) | (_, Err(failed)) => Err(failed),
    }
}

fn read(path: &Path) -> Result<Kept, Failed> {
    const EXPECTED: &str = "a result that `worldline run --result FILE` has kept";
    let text = format::read_text_of(path, EXPECTED, RESULT_BYTES_MAX)?;
    Kept::from_json(&text).map_err(|error| {
        let message = if error.is_syntax() { format!("no JSON: {error}") } else { error.to_string() };
        let message: String =
            message.split(" at line ").next().unwrap_or_default().chars().map(format::shown).collect();
        let (line, column) = (error.line().max(1), error.column().max(1));
        Failed::File(format!("{}:{line}:{column}: found {message}, expected {EXPECTED}", path.display()))
    })
}
