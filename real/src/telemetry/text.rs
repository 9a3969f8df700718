//! What a meter holds, in the text format of Prometheus: every name as in the table.

use super::label_text;
use prometheus::{
    Encoder as _, TextEncoder,
    proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric as Sample, MetricFamily, MetricType},
};
use worldline_system::doors::telemetry::{self, Distribution, Kind, Labels, Meter, Metric, RATIO_ONE, Value};

/// The media type of the format.
pub const MEDIA_TYPE: &str = prometheus::TEXT_FORMAT;

/// What a process gives to the labels of its own.
#[derive(Clone, Debug, Default)]
pub struct Own {
    /// How logs call it.
    pub name: String,
    /// The region where it stands; none of an orchestrator.
    pub region: Option<String>,
    /// All regions of the world, in order.
    pub regions: Vec<String>,
}

impl Own {
    /// Everything that there is to tell.
    #[must_use]
    pub fn text(&self, meter: &Meter) -> Vec<u8> {
        let mut families: Vec<MetricFamily> = Vec::new();
        let mut last = None;
        for (metric, labels, value) in meter.each() {
            if last.replace(metric) != Some(metric) {
                families.push(family(metric));
            }
            if let Some(family) = families.last_mut() {
                family.mut_metric().push(self.sample(metric, labels, value));
            }
        }
        let mut text = Vec::new();
        // A family is refused that has no samples or no name: none of these is such.
        if let Err(error) = TextEncoder::new().encode(&families, &mut text) {
            tracing::error!(%error, "the metrics cannot be written");
        }
        text
    }

    fn sample(&self, metric: Metric, labels: Labels, value: &Value) -> Sample {
        let table = metric.table();
        let own = table.own.iter().filter_map(|own| Some(pair(own.name(), self.own(*own)?)));
        let given = table.labels.iter().zip(labels).map(|(name, label)| pair(name, label_text(label, &self.regions)));
        let mut sample = Sample::from_label(own.chain(given).collect());
        match value {
            Value::Counter(total) => {
                let mut counter = Counter::default();
                counter.set_value(*total as f64);
                sample.set_counter(counter);
            }
            Value::Gauge { now, .. } => {
                let one = if table.kind == Kind::Ratio { RATIO_ONE } else { 1 };
                let mut gauge = Gauge::default();
                gauge.set_value(*now as f64 / one as f64);
                sample.set_gauge(gauge);
            }
            Value::Histogram(distribution) => sample.set_histogram(histogram(table.kind, distribution)),
        }
        sample
    }

    /// `None` where the process stands nowhere: the label is left out.
    fn own(&self, own: telemetry::Own) -> Option<String> {
        match own {
            telemetry::Own::Region => self.region.clone(),
            telemetry::Own::Gateway | telemetry::Own::Worker | telemetry::Own::Node => Some(self.name.clone()),
        }
    }
}

fn family(metric: Metric) -> MetricFamily {
    let table = metric.table();
    let mut family = MetricFamily::default();
    family.set_name(table.name.to_owned());
    family.set_help(table.help.to_owned());
    family.set_field_type(match table.kind {
        Kind::Counter => MetricType::COUNTER,
        Kind::Gauge | Kind::Ratio => MetricType::GAUGE,
        Kind::Histogram(_) => MetricType::HISTOGRAM,
    });
    family
}

fn pair(name: &str, value: String) -> LabelPair {
    let mut pair = LabelPair::default();
    pair.set_name(name.to_owned());
    pair.set_value(value);
    pair
}

fn histogram(kind: Kind, distribution: &Distribution) -> Histogram {
    let mut below = 0;
    let bucket = |(bound, count): (&u64, &u64)| {
        below += count;
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(*bound as f64);
        bucket.set_cumulative_count(below);
        bucket
    };
    let buckets = kind.bounds_ms().iter().zip(&distribution.counts).map(bucket).collect();
    let mut histogram = Histogram::default();
    histogram.set_bucket(buckets);
    histogram.set_sample_count(distribution.total());
    histogram.set_sample_sum(distribution.sum_ns as f64 / 1e6);
    histogram
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_parse::{Scrape, Value as Read};
    use worldline_system::{
        doors::{
            directory::RegionId,
            telemetry::{Label, labels},
        },
        time::Duration,
    };

    #[test]
    fn the_page_for_operators_names_every_metric_as_it_is() {
        let page = include_str!("../../README.md");
        for metric in Metric::ALL {
            let table = metric.table();
            let row = page.lines().find(|line| line.starts_with(&format!("| `{}` |", table.name)));
            let row = row.unwrap_or_else(|| panic!("{} is not in real/README.md", table.name));
            assert!(row.ends_with(&format!("| {} |", table.help)), "{row}");
            let labels = table.own.iter().map(|own| own.name()).chain(table.labels.iter().copied());
            assert!(labels.into_iter().all(|label| row.contains(&format!("`{label}`"))), "{row}");
        }
    }

    #[test]
    fn what_was_told_reads_back_with_its_labels() {
        let own = Own {
            name: "worker \"a\"\\\n".into(),
            region: Some("frankfurt".into()),
            regions: vec!["singapore".into(), "frankfurt".into()],
        };
        let mut meter = Meter::default();
        meter.set(Metric::WorkerEntityCount, labels(&[Label::Word("boss")]), 3);
        meter.set(Metric::WorkerCpuUsage, labels(&[Label::Word("role")]), 250_000);
        meter.count(
            Metric::OwnershipMigrationsTotal,
            labels(&[Label::Region(RegionId(0)), Label::Region(RegionId(1)), Label::Word("region_down")]),
            7,
        );
        for us in [4_000, 6_000, 60_000] {
            meter.observe(Metric::WorkerTickDurationMs, Labels::default(), Duration::from_micros(us));
        }
        let text = String::from_utf8(own.text(&meter)).expect("text");
        let scrape = Scrape::parse(text.lines().map(|line| Ok(line.to_owned()))).expect("it parses");
        let of = |name: &str| scrape.samples.iter().find(|sample| sample.metric == name).expect("it is there");
        let migrations = of("ownership_migrations_total");
        assert!(matches!(migrations.value, Read::Counter(7.0)), "{migrations:?}");
        assert_eq!(migrations.labels.get("from_region"), Some("singapore"));
        assert_eq!(migrations.labels.get("to_region"), Some("frankfurt"));
        assert!(matches!(of("worker_cpu_usage").value, Read::Gauge(share) if share == 0.25));
        let Read::Histogram(buckets) = &of("worker_tick_duration_ms").value else { panic!("{text}") };
        let counts: Vec<_> = buckets.iter().map(|bucket| (bucket.less_than, bucket.count)).collect();
        assert_eq!(counts[..2], [(5.0, 1.0), (10.0, 2.0)]);
        assert_eq!(counts.last(), Some(&(f64::INFINITY, 3.0)));
        assert!(text.contains("worker_tick_duration_ms_sum{region=\"frankfurt\""), "{text}");
        assert!(text.contains("worker_tick_duration_ms_count"), "{text}");
        assert!(text.contains(r#"worker_id="worker \"a\"\\\n""#), "{text}");
    }
}
