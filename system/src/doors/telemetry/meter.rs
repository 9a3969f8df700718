//! What was reported of one process, added up: a value a series.

use super::{Kind, Labels, Metric};
use crate::time::Duration;
use alloc::{boxed::Box, collections::BTreeMap, vec::Vec};

/// Series of one process at most: far above what the table and the words of the code can make. What comes beyond it is counted
/// and lost.
pub const SERIES_MAX: usize = 1_024;

/// How often something took how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Distribution {
    /// One for each bound of the metric, and one for what lies above the last.
    pub counts: Vec<u64>,
    /// The sum of all, in nanoseconds.
    pub sum_ns: u64,
}

impl Distribution {
    /// Of nothing, for this metric.
    #[must_use]
    pub fn new(metric: Metric) -> Self {
        Self { counts: alloc::vec![0; metric.table().kind.bounds_ms().len() + 1], sum_ns: 0 }
    }

    /// How many there are.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    fn add(&mut self, bounds_ms: &[u64], duration: Duration) {
        let ns = duration.as_nanos();
        let bucket = bounds_ms.partition_point(|bound| bound * 1_000_000 < ns);
        self.counts[bucket] += 1;
        self.sum_ns = self.sum_ns.saturating_add(ns);
    }

    /// Adds another of the same metric.
    pub fn merge(&mut self, other: &Self) {
        self.counts.iter_mut().zip(&other.counts).for_each(|(mine, theirs)| *mine += theirs);
        self.sum_ns = self.sum_ns.saturating_add(other.sum_ns);
    }
}

/// The value of a series.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// The sum of what was counted.
    Counter(u64),
    /// What it stands at.
    Gauge {
        /// Now.
        now: i64,
        /// At most, so far.
        most: i64,
    },
    /// How long something took.
    Histogram(Box<Distribution>),
}

/// The series of one process. A new process begins at nothing, as a real one does; in the simulator one goes on over the lives
/// of its node.
#[derive(Clone, Debug, Default)]
pub struct Meter {
    series: BTreeMap<(Metric, Labels), Value>,
    lost: u64,
}

impl Meter {
    /// Adds to a counter.
    pub fn count(&mut self, metric: Metric, labels: Labels, by: u64) {
        if let Some(Value::Counter(sum)) = self.value(metric, labels, |_| Value::Counter(0)) {
            *sum = sum.saturating_add(by);
        }
    }

    /// Sets a gauge.
    pub fn set(&mut self, metric: Metric, labels: Labels, value: i64) {
        if let Some(Value::Gauge { now, most }) =
            self.value(metric, labels, |_| Value::Gauge { now: value, most: value })
        {
            *now = value;
            *most = value.max(*most);
        }
    }

    /// Sets a counter that somebody else keeps.
    pub fn set_counter(&mut self, metric: Metric, labels: Labels, value: u64) {
        if let Some(Value::Counter(sum)) = self.value(metric, labels, |_| Value::Counter(0)) {
            *sum = value;
        }
    }

    /// Adds to a histogram.
    pub fn observe(&mut self, metric: Metric, labels: Labels, duration: Duration) {
        let new = |metric| Value::Histogram(Box::new(Distribution::new(metric)));
        if let Some(Value::Histogram(distribution)) = self.value(metric, labels, new) {
            distribution.add(metric.table().kind.bounds_ms(), duration);
        }
    }

    /// Every series, by metric and labels.
    pub fn each(&self) -> impl Iterator<Item = (Metric, Labels, &Value)> {
        self.series.iter().map(|((metric, labels), value)| (*metric, *labels, value))
    }

    /// Reports that were lost: of a kind that their metric is not, or of more series than there may be.
    #[must_use]
    pub const fn lost(&self) -> u64 {
        self.lost
    }

    /// The value to change. `None`, and counted, where the metric is of another kind or there are too many series.
    fn value(&mut self, metric: Metric, labels: Labels, new: impl Fn(Metric) -> Value) -> Option<&mut Value> {
        let known = self.series.contains_key(&(metric, labels));
        let fits = matches!(
            (metric.table().kind, new(metric)),
            (Kind::Counter, Value::Counter(_))
                | (Kind::Gauge | Kind::Ratio, Value::Gauge { .. })
                | (Kind::Histogram(_), Value::Histogram(_))
        );
        if !fits || !known && self.series.len() >= SERIES_MAX {
            self.lost += 1;
            return None;
        }
        Some(self.series.entry((metric, labels)).or_insert_with(|| new(metric)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doors::telemetry::{Label, labels};

    #[test]
    fn a_duration_lies_in_the_first_bucket_whose_bound_it_does_not_exceed() {
        let mut meter = Meter::default();
        let metric = Metric::WorkerTickDurationMs;
        for us in [0, 5_000, 5_001, 16_670, 50_000, 50_001] {
            meter.observe(metric, Labels::default(), Duration::from_micros(us));
        }
        let Some((_, _, Value::Histogram(distribution))) = meter.each().next() else { panic!("a histogram") };
        assert_eq!(metric.table().kind.bounds_ms(), [5, 10, 15, 20, 30, 50]);
        assert_eq!(distribution.counts, [2, 1, 0, 1, 0, 1, 1]);
        assert_eq!((distribution.total(), distribution.sum_ns), (6, 126_672_000));
    }

    #[test]
    fn what_its_metric_is_not_and_what_is_too_much_is_lost_and_counted() {
        let mut meter = Meter::default();
        meter.count(Metric::WorkerTickDurationMs, Labels::default(), 1);
        assert_eq!((meter.each().count(), meter.lost()), (0, 1));
        for node in 0..SERIES_MAX as u32 + 3 {
            let label = labels(&[Label::Node(worldline_proto::NodeId(node))]);
            meter.set(Metric::ClientConnectionsTotal, label, 1);
        }
        assert_eq!((meter.each().count(), meter.lost()), (SERIES_MAX, 4));
    }

    #[test]
    fn a_gauge_remembers_the_most_that_it_stood_at() {
        let mut meter = Meter::default();
        for value in [3, 7, 2] {
            meter.set(Metric::OutboxBacklog, Labels::default(), value);
        }
        assert_eq!(meter.each().next().map(|(_, _, value)| value.clone()), Some(Value::Gauge { now: 2, most: 7 }));
    }
}
