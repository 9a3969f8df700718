//! A series of what nodes tell of themselves, over the nodes of a run or over many runs.
//!
//! Series are added up over nodes: a counter is the sum, a gauge the most that one node had at any time, a histogram all of them
//! together. Which node it was only a running process tells.

use crate::terminal;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What became of a series.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Measured {
    /// So many of them.
    Counter(u64),
    /// At most so much.
    Gauge(f64),
    /// How long something took.
    Histogram {
        /// The upper bounds of the buckets, in milliseconds.
        bounds_ms: Vec<u64>,
        /// One for each bound, and one for what lies above the last.
        counts: Vec<u64>,
        /// All of it, in nanoseconds.
        sum_ns: u64,
    },
}

// A gauge is a finite number.
impl Eq for Measured {}

impl Measured {
    /// Adds another of the same series. One of another kind says nothing here.
    pub fn merge(&mut self, other: &Self) {
        match (self, other) {
            (Self::Counter(mine), Self::Counter(theirs)) => *mine = mine.saturating_add(*theirs),
            (Self::Gauge(mine), Self::Gauge(theirs)) => *mine = mine.max(*theirs),
            (Self::Histogram { counts, sum_ns, .. }, Self::Histogram { counts: theirs, sum_ns: sum, .. }) => {
                counts.iter_mut().zip(theirs).for_each(|(mine, theirs)| *mine = mine.saturating_add(*theirs));
                *sum_ns = sum_ns.saturating_add(*sum);
            }
            _ => {}
        }
    }

    /// For a reader: a number, or how many there are, their mean, and the bound that 95 of a hundred do not exceed.
    #[must_use]
    pub fn words(&self) -> String {
        match self {
            Self::Counter(total) => total.to_string(),
            Self::Gauge(most) if most.fract() == 0.0 => format!("at most {most:.0}"),
            Self::Gauge(most) => format!("at most {most:.3}"),
            Self::Histogram { bounds_ms, counts, sum_ns } => {
                let total: u64 = counts.iter().sum();
                let mean = terminal::span(sum_ns / total.max(1));
                let rank = (total * 95).div_ceil(100);
                let mut below = 0;
                let bucket = counts.iter().position(|count| {
                    below += count;
                    below >= rank
                });
                let bound = match bucket.map(|bucket| bounds_ms.get(bucket)) {
                    Some(Some(bound)) => format!("p95 <= {bound} ms"),
                    _ => format!("p95 > {} ms", bounds_ms.last().unwrap_or(&0)),
                };
                format!("{total}, mean {mean}, {bound}")
            }
        }
    }
}

/// Adds a series to those of others.
pub fn merge<K: Ord>(all: &mut BTreeMap<K, Measured>, name: K, measured: &Measured) {
    match all.get_mut(&name) {
        Some(known) => known.merge(measured),
        None => {
            all.insert(name, measured.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_of_two_nodes_is_one() {
        let histogram = |counts| Measured::Histogram { bounds_ms: vec![5, 10], counts, sum_ns: 6_000_000 };
        let mut all = BTreeMap::new();
        for (name, measured) in [
            ("counted", Measured::Counter(3)),
            ("stood", Measured::Gauge(0.25)),
            ("took", histogram(vec![95, 4, 0])),
            ("counted", Measured::Counter(4)),
            ("stood", Measured::Gauge(2.0)),
            ("took", histogram(vec![0, 0, 1])),
        ] {
            merge(&mut all, name, &measured);
        }
        assert_eq!(all["counted"].words(), "7");
        assert_eq!(all["stood"].words(), "at most 2");
        assert_eq!(all["took"].words(), "100, mean 120 µs, p95 <= 5 ms");
        assert_eq!(histogram(vec![0, 0, 1]).words(), "1, mean 6.00 ms, p95 > 10 ms");
    }
}
