//! How long to wait before something is tried again: doubling, bounded, with jitter.

use crate::{doors::entropy::Entropy, knobs::Retry, time::Duration};

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

    /// The wait after one more failure: between half and all of `first * 2^failures`, at most `longest`.
    pub fn fail(&mut self, retry: Retry, entropy: &mut Entropy) -> Duration {
        let whole = (retry.first * (1 << self.failures.min(16))).min(retry.longest);
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
        let (mut backoff, retry) = (Backoff::default(), Retry::default());
        let waits: alloc::vec::Vec<Duration> = (0..40).map(|_| backoff.fail(retry, &mut entropy)).collect();
        assert!(waits[0] >= retry.first / 2 && waits[0] <= retry.first);
        assert!(waits.iter().all(|&wait| wait <= retry.longest));
        assert!(waits[20..].windows(2).any(|pair| pair[0] != pair[1]), "jitter keeps callers apart");
        backoff.reset();
        assert!(backoff.fail(retry, &mut entropy) <= retry.first);
    }
}
