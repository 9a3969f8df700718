//! Scenarios: the file format, the world that a file describes, one run of it under its faults, many runs over seeds, and
//! the checkers of what must hold.
//!
//! Invariants: nothing that a run computes depends on the machine, on time, or on how many runs go on beside it.
//!
//! Must never be here: a rendering (that is `reports`), a role's own logic, or anything of `real/`.

pub mod catalogue;
pub mod checkers;
pub mod cli;
pub mod cost;
pub mod draw;
pub mod format;
pub mod inject;
pub mod judge;
pub mod measured;
pub mod nodes;
pub mod otlp;
mod panics;
pub mod run;
mod service_times;
pub mod suite;
pub mod timing;
mod view;
pub mod world;
