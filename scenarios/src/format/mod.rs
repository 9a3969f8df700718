//! The scenario format: TOML, decoded over a document that keeps the place of every value.
//!
//! Whatever is wrong with a file is said as `file:line:column: found this, expected that`, with the nearest valid word where
//! one exists; all that is wrong with it is said at once. Nothing here panics on any input, and no more than
//! [`source::BYTES_MAX`] of a file is ever read.
//!
//! Deliberately absent: defaults of the roles (they stand in `worldline_system::limits`) and anything of the simulator: the
//! same file is a drill on real processes.

mod decode;
mod faults;
mod fields;
mod forms;
mod kinds;
mod knobs;
mod problem;
mod scenario;
mod schema;
mod select;
mod services;
mod setting;
mod shape;
mod source;
mod units;
mod workload;
mod world;

pub use problem::{Problem, Problems, nearest, shown};
pub use scenario::{
    Boss, Budget, CoreGroup, Fault, FaultKind, Outbox, Place, Region, Scenario, Selector, Timing, Window, Workload,
};
pub use schema::schema;
pub use services::{BusFault, BusRequests, CacheFault, DirectoryFault, LedgerFault, Moment, Requests};
pub use setting::{SETTINGS_MAX, Setting};
pub use source::BYTES_MAX;
pub use units::{moment, permille_text};

use std::path::Path;

/// The scenario in the file at `path`.
///
/// # Errors
/// Everything that is wrong with the file.
pub fn read(path: &Path) -> Result<Scenario, Problems> {
    let name = path.display().to_string();
    let text = read_text(path, "a scenario file in TOML")?;
    parse(&name, &text)
}

/// The text of a file that should be `expected`, bounded as a scenario file is.
///
/// # Errors
/// Why it cannot be read, or is no text.
pub fn read_text(path: &Path, expected: &str) -> Result<String, Problems> {
    read_text_of(path, expected, BYTES_MAX)
}

/// The same of at most so many bytes.
///
/// # Errors
/// Why it cannot be read, or is no text.
pub fn read_text_of(path: &Path, expected: &str, bytes_max: usize) -> Result<String, Problems> {
    source::read(path, expected, bytes_max).map_err(|problem| Problems::of_file(&path.display().to_string(), problem))
}

/// The scenario in `text`; `file` is how its problems call it.
///
/// # Errors
/// Everything that is wrong with the text.
pub fn parse(file: &str, text: &str) -> Result<Scenario, Problems> {
    parse_with(file, text, &[])
}

/// The scenario in `text`, with these values in the place of its own.
///
/// # Errors
/// Everything that is wrong with the text, with a setting, or with what a setting makes of the text.
pub fn parse_with(file: &str, text: &str, settings: &[Setting]) -> Result<Scenario, Problems> {
    decode::scenario(text, settings).map_err(|problems| Problems::new(file, text, settings, problems))
}
