//! Periods and retry bounds that whoever runs a world may turn. Whatever they are set to, the same invariants must hold; what
//! changes is how soon something is noticed, and what noticing costs.
//!
//! Deliberately absent: the times of a lease ([`crate::lease::LeaseTimes`]), and every bound that another side counts on
//! ([`crate::limits`]).

use crate::{limits, time::Duration};

/// The waits between tries of one thing: doubling from the first to the longest, with jitter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Retry {
    /// The wait after the first failure. Above zero.
    pub first: Duration,
    /// No wait is longer. At least `first`.
    pub longest: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self { first: limits::RETRY_MIN, longest: limits::RETRY_MAX }
    }
}

/// All of them; a role takes what is its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Knobs {
    /// How often an orchestrator looks for orphans. Above zero.
    pub scan_every: Duration,
    /// How often every served entity is checkpointed, and so passes the fence: what a crash may lose of its position.
    pub checkpoint_every: Duration,
    /// How long a renewal of a lease may take before another is tried.
    pub renewal_patience: Duration,
    /// Between tries of whatever failed.
    pub retry: Retry,
}

impl Default for Knobs {
    fn default() -> Self {
        Self {
            scan_every: limits::SCAN_PERIOD,
            checkpoint_every: limits::CHECKPOINT_PERIOD,
            renewal_patience: limits::RENEWAL_PATIENCE,
            retry: Retry::default(),
        }
    }
}
