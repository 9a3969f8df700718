//! `worldline schema`.

use super::{Failed, output::Output};
use crate::{format, suite::REVISION};

/// Prints the JSON Schema of scenario files.
pub fn schema(output: &mut Output) -> Result<(), Failed> {
    output.print(&format!("{:#}\n", format::schema(REVISION)))?;
    output.flush()?;
    Ok(())
}
