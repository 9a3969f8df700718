//! Quantiles of measured spans, by the nearest-rank definition: every figure is one that was measured.

use serde::{Deserialize, Serialize};

/// p50, p95, p99 and the largest of a set of spans, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quantiles {
    /// How many samples.
    pub samples: usize,
    /// The median.
    pub p50_ns: u64,
    /// 95 of 100 are at most this.
    pub p95_ns: u64,
    /// 99 of 100 are at most this.
    pub p99_ns: u64,
    /// The largest.
    pub max_ns: u64,
}

impl Quantiles {
    /// Of these samples. `None` of none.
    #[must_use]
    pub fn of(mut samples: Vec<u64>) -> Option<Self> {
        samples.sort_unstable();
        let rank = |percent: usize| samples.get((samples.len() * percent).div_ceil(100).saturating_sub(1)).copied();
        let (p50_ns, p95_ns, p99_ns) = (rank(50)?, rank(95)?, rank(99)?);
        Some(Self { samples: samples.len(), p50_ns, p95_ns, p99_ns, max_ns: *samples.last()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_quantile_is_a_sample() {
        let quantiles = Quantiles::of((1..=100).rev().collect()).expect("not empty");
        assert_eq!(
            (quantiles.p50_ns, quantiles.p95_ns, quantiles.p99_ns, quantiles.max_ns, quantiles.samples),
            (50, 95, 99, 100, 100)
        );
        assert_eq!(Quantiles::of(vec![7]).map(|one| (one.p50_ns, one.max_ns)), Some((7, 7)));
        assert_eq!(Quantiles::of(Vec::new()), None);
    }
}
