//! What runs come to: the result types, and every rendering of them (terminal, failure file, JUnit, JSON).
//!
//! Must never be here: a clock, a simulator, or a decision about a run. Whoever fills in a result has judged already.

pub mod agreement;
pub mod beside;
pub mod diff;
pub mod failure;
pub mod junit;
pub mod kept;
pub mod latest;
pub mod measured;
pub mod moved;
pub mod pairs;
pub mod quantiles;
pub mod result;
pub mod terminal;

/// The timings in the order in which they happen, and are shown.
pub const TIMINGS: [&str; 9] =
    ["failover", "detect", "reassign", "reconstruct", "redirect", "reconnect", "resume", "operation", "visibility"];

pub use failure::Failure;
pub use measured::Measured;
pub use quantiles::Quantiles;
pub use result::{
    FirstEvent, Miss, Nondeterminism, Outcome, RunResult, ScenarioResult, Skipped, Source, State, SuiteResult, Verdict,
    Violation,
};
