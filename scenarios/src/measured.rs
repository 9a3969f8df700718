//! What the nodes of a simulated run told of themselves, by the names that a real process has at `/metrics`.

use crate::format::Scenario;
use std::collections::BTreeMap;
use worldline_proto::NodeId;
use worldline_reports::{Measured, measured};
use worldline_system::doors::telemetry::{Kind, Label, Labels, Meter, Metric, RATIO_ONE, Value};

/// All series of a run, added up over its nodes.
#[must_use]
pub fn of(scenario: &Scenario, meters: &[(NodeId, Meter)]) -> BTreeMap<String, Measured> {
    let mut all = BTreeMap::new();
    for (_, meter) in meters {
        for (metric, labels, value) in meter.each() {
            measured::merge(&mut all, series(scenario, metric, labels), &told(metric, value));
        }
    }
    all
}

fn told(metric: Metric, value: &Value) -> Measured {
    match value {
        Value::Counter(total) => Measured::Counter(*total),
        Value::Gauge { most, .. } => {
            let one = if metric.table().kind == Kind::Ratio { RATIO_ONE } else { 1 };
            Measured::Gauge(*most as f64 / one as f64)
        }
        Value::Histogram(distribution) => Measured::Histogram {
            bounds_ms: metric.table().kind.bounds_ms().to_vec(),
            counts: distribution.counts.clone(),
            sum_ns: distribution.sum_ns,
        },
    }
}

/// The name of a series with the labels that its report gave.
fn series(scenario: &Scenario, metric: Metric, labels: Labels) -> String {
    let table = metric.table();
    let value = |label| match label {
        // Added up over nodes, like what the nodes tell of themselves.
        Label::None | Label::Node(_) => None,
        Label::Word(word) => Some(word.to_owned()),
        Label::Region(region) => scenario.regions.get(usize::from(region.0)).map(|region| region.name.clone()),
    };
    let named = table.labels.iter().zip(labels).filter_map(|(name, label)| Some((name, value(label)?)));
    let labels: Vec<String> = named.map(|(name, value)| format!("{name}={value:?}")).collect();
    if labels.is_empty() { table.name.to_owned() } else { format!("{}{{{}}}", table.name, labels.join(",")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{catalogue, run};

    #[test]
    fn a_run_tells_everything_of_the_architecture_that_the_simulator_can_measure() {
        let scenario = catalogue::find("worker-crash").expect("in the catalogue").expect("reads");
        let result = run::seed(&scenario, 1, run::Options::default());
        let has = |metric: &Metric| {
            let name = metric.table().name;
            result.metrics.keys().any(|series| series.split('{').next() == Some(name))
        };
        // These need a real process.
        let absent = [
            Metric::ClientPacketLossRatio,
            Metric::WorkerMemoryBytes,
            Metric::TelemetrySpansTotal,
            Metric::LogLinesLostTotal,
        ];
        let missing: Vec<_> = Metric::ALL.iter().filter(|metric| !has(metric) && !absent.contains(metric)).collect();
        assert!(missing.is_empty(), "{missing:?}");
        assert_eq!(result.metrics["worker_failures_total{region=\"frankfurt\"}"], Measured::Counter(1));
        let Measured::Histogram { counts, .. } = &result.metrics["worker_tick_duration_ms"] else {
            panic!("a histogram")
        };
        assert!(counts.iter().sum::<u64>() > 10_000, "six workers tick sixty times a second");
    }
}
