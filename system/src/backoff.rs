//! How long to wait before something is tried again: doubling, bounded, with jitter.

use crate::{
    doors::entropy::Entropy,
    limits::{RETRY_MAX, RETRY_MIN},
    time::Duration,
};

/// Counts the failures in a row of one thing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// How often it has failed in a row.
    #[must_use]
    pub const fn failures(self) -> u32 {
        self.failures
    }

    /// The wait after one more failure: between half and all of `RETRY_MIN * 2^failures`, at most `RETRY_MAX`.
    pub fn fail(&mut self, entropy: &mut Entropy) -> Duration {
        let whole = (RETRY_MIN * (1 << self.failures.min(16))).min(RETRY_MAX);
        self.failures = self.failures.saturating_add(1);
        let half = whole / 2;
        half + Duration::from_nanos(entropy.below(half.as_nanos() + 1))
    }

    /// It has succeeded: the next failure is the first one.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_bound_and_differ() {
        let mut entropy = Entropy::from_seed([3; 32]);
        let mut backoff = Backoff::default();
        let waits: alloc::vec::Vec<Duration> = (0..40).map(|_| backoff.fail(&mut entropy)).collect();
        assert!(waits[0] >= RETRY_MIN / 2 && waits[0] <= RETRY_MIN);
        assert!(waits.iter().all(|&wait| wait <= RETRY_MAX));
        assert!(waits[20..].windows(2).any(|pair| pair[0] != pair[1]), "jitter keeps callers apart");
        backoff.reset();
        assert!(backoff.fail(&mut entropy) <= RETRY_MIN);
    }
}
