//! The telemetry door: what a role tells of itself to whoever watches it. Metrics by the names of one table, and the spans of
//! what a player does.
//!
//! It is the one door that nothing comes back from. A report is no submission: it has no place in the outbox, costs no simulated
//! time and is in no trace hash, so that a run is the same whether anybody listens or not. A host takes the reports behind each
//! turn and keeps them in a [`Meter`]; how long the turn itself took only the host knows ([`Report::Time`]).
//!
//! Invariants: a series is named by the table and by words of the code, regions and nodes; nothing that a player brings is ever a
//! label, so that the number of series has a bound that no player moves.
//!
//! Deliberately absent: floats. A ratio is counted in millionths.

mod calls;
mod meter;
#[cfg(feature = "serde")]
pub mod otlp;
mod span;
mod table;

pub use calls::{failed, words};
pub use meter::{Distribution, Meter, Value};
pub use span::{Attribute, SLOW, Span, SpanId, Stage, TraceId};
pub use table::{Kind, Metric, Own, Table};

use crate::{Turn, doors, doors::directory::RegionId, time::Duration};
use alloc::vec::Vec;
use worldline_proto::NodeId;

/// Labels of a metric that its role gives, at most.
pub const LABELS: usize = 3;
/// What stands for one in a gauge that is a ratio.
pub const RATIO_ONE: i64 = 1_000_000;

/// The value of a label.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Label {
    /// The metric has fewer labels.
    #[default]
    None,
    /// A word of the code.
    Word(&'static str),
    /// A region: whoever shows it knows its name.
    Region(RegionId),
    /// A node.
    Node(NodeId),
}

/// The values of a metric's labels, in the order of its table.
pub type Labels = [Label; LABELS];

/// What a role tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// Adds to a counter.
    Count(Metric, Labels, u64),
    /// Sets a gauge.
    Gauge(Metric, Labels, i64),
    /// Adds to a histogram.
    Observe(Metric, Labels, Duration),
    /// Adds the duration of this very turn to a histogram, as the host measures it.
    Time(Metric, Labels),
}

/// What a role has told in a turn, until its host takes it.
#[derive(Clone, Debug, Default)]
pub struct Reports {
    reports: Vec<Report>,
    spans: Vec<Span>,
    traced: bool,
}

impl Reports {
    /// Of a role whose spans somebody listens to. Nothing else depends on it.
    #[must_use]
    pub fn traced(traced: bool) -> Self {
        Self { traced, ..Self::default() }
    }

    /// Whether there is nothing to take.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.reports.is_empty() && self.spans.is_empty()
    }

    /// Takes the spans that were told.
    pub fn take_spans(&mut self) -> Vec<Span> {
        core::mem::take(&mut self.spans)
    }

    /// Hands the figures that were told to a meter; the turn took so long.
    pub fn hand_to(&mut self, meter: &mut Meter, turn: Duration) {
        for report in self.reports.drain(..) {
            match report {
                Report::Count(metric, labels, by) => meter.count(metric, labels, by),
                Report::Gauge(metric, labels, value) => meter.set(metric, labels, value),
                Report::Observe(metric, labels, duration) => meter.observe(metric, labels, duration),
                Report::Time(metric, labels) => meter.observe(metric, labels, turn),
            }
        }
    }
}

/// Labels of these values.
///
/// # Panics
/// In a debug build, if there are more than [`LABELS`].
#[must_use]
pub fn labels(values: &[Label]) -> Labels {
    debug_assert!(values.len() <= LABELS, "{values:?}");
    let mut labels = Labels::default();
    labels.iter_mut().zip(values).for_each(|(label, value)| *label = *value);
    labels
}

/// A share of a whole, in millionths; nothing of nothing is nothing.
#[must_use]
pub fn ratio(part: u64, whole: u64) -> i64 {
    let millionths = u128::from(part) * RATIO_ONE as u128 / u128::from(whole.max(1));
    i64::try_from(millionths).unwrap_or(i64::MAX)
}

impl<S: Into<doors::Submission>> Turn<'_, S> {
    /// Adds to a counter.
    pub fn count(&mut self, metric: Metric, values: &[Label], by: u64) {
        self.report(Report::Count(metric, labels(values), by));
    }

    /// Sets a gauge.
    pub fn gauge(&mut self, metric: Metric, values: &[Label], value: usize) {
        self.report(Report::Gauge(metric, labels(values), i64::try_from(value).unwrap_or(i64::MAX)));
    }

    /// Adds a duration to a histogram.
    pub fn observe(&mut self, metric: Metric, values: &[Label], duration: Duration) {
        self.report(Report::Observe(metric, labels(values), duration));
    }

    /// Adds the duration of this turn to a histogram, as the host measures it.
    pub fn time(&mut self, metric: Metric) {
        self.report(Report::Time(metric, Labels::default()));
    }

    /// Whether anybody listens to spans.
    pub fn traces(&mut self) -> bool {
        self.reports().traced
    }

    /// Tells a span, if anybody listens.
    pub fn span(&mut self, span: impl FnOnce() -> Span) {
        if self.traces() {
            self.reports().spans.push(span());
        }
    }

    fn report(&mut self, report: Report) {
        self.reports().reports.push(report);
    }
}
