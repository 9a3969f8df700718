//! The one table of metrics: name, kind, labels, bounds, and what each means.
//!
//! The first part are the architecture's own, under its names; the second what operators of this system need beside them. What
//! of the architecture's list is not here is not measured, and
//! `reports/decisions/0012-what-is-measured.md` says why.

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It only grows.
    Counter,
    /// It stands at something.
    Gauge,
    /// A gauge of a share between 0 and 1, kept in millionths.
    Ratio,
    /// How long something took: the bounds of its buckets, in milliseconds.
    Histogram(&'static [u64]),
}

impl Kind {
    /// The bounds of the buckets, in milliseconds; of a histogram.
    #[must_use]
    pub const fn bounds_ms(self) -> &'static [u64] {
        match self {
            Self::Histogram(bounds) => bounds,
            Self::Counter | Self::Gauge | Self::Ratio => &[],
        }
    }
}

/// A label whose value is the process's own: the host gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Own {
    /// `region`: where the process stands.
    Region,
    /// `gateway_id`: the process's name.
    Gateway,
    /// `worker_id`: the process's name.
    Worker,
    /// `node`: the process's name.
    Node,
}

impl Own {
    /// The label's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Region => "region",
            Self::Gateway => "gateway_id",
            Self::Worker => "worker_id",
            Self::Node => "node",
        }
    }
}

/// A line of the table.
#[derive(Clone, Copy, Debug)]
pub struct Table {
    /// Its name.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// Labels that the host gives.
    pub own: &'static [Own],
    /// Labels that the report gives.
    pub labels: &'static [&'static str],
    /// What it means.
    pub help: &'static str,
}

macro_rules! metrics {
    ($($metric:ident = $name:literal, $kind:expr, [$($own:ident),*], [$($label:literal),*], $help:literal;)*) => {
        /// A metric.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Metric {
            $(#[doc = $help] $metric,)*
        }

        impl Metric {
            /// All of them, in the order of the table.
            pub const ALL: &[Self] = &[$(Self::$metric),*];

            /// Its line of the table.
            #[must_use]
            pub const fn table(self) -> &'static Table {
                match self {
                    $(Self::$metric => &Table {
                        name: $name,
                        kind: $kind,
                        own: &[$(Own::$own),*],
                        labels: &[$($label),*],
                        help: $help,
                    },)*
                }
            }
        }
    };
}

use Kind::{Counter, Gauge, Histogram, Ratio};

metrics! {
    ClientConnectionsTotal = "client_connections_total", Gauge, [Region, Gateway], ["protocol"],
        "Connections of clients to this gateway.";
    ClientLatencyMs = "client_latency_ms", Histogram(&[10, 25, 50, 100, 250, 500, 1_000]), [Region], [],
        "Round trips between clients and this gateway, as the transport measures them.";
    ClientPacketLossRatio = "client_packet_loss_ratio", Ratio, [Region, Gateway], [],
        "Of the packets sent to the clients that are connected now, the share that was lost.";
    ClientBandwidthBytes = "client_bandwidth_bytes", Counter, [Region], ["direction"],
        "Payload that clients have sent (upstream) and were sent (downstream), without the transport's own.";
    WorkerEntityCount = "worker_entity_count", Gauge, [Region, Worker], ["entity_type"],
        "Entities that this worker owns.";
    WorkerTickDurationMs = "worker_tick_duration_ms", Histogram(&[5, 10, 15, 20, 30, 50]), [Region, Worker], [],
        "How long a tick took.";
    WorkerCpuUsage = "worker_cpu_usage", Ratio, [Region, Worker], ["core"],
        "The share of the time that the worker's own thread (role) or its adapters (adapters) computed, of one core.";
    WorkerMemoryBytes = "worker_memory_bytes", Gauge, [Region, Worker], ["pool_type"],
        "The memory of the worker's process, as the kernel counts it.";
    OwnershipMigrationsTotal = "ownership_migrations_total", Counter, [], ["from_region", "to_region", "reason"],
        "Entities that this orchestrator has given to another owner, once that was committed.";
    DbTransactionDurationMs = "db_transaction_duration_ms", Histogram(&[1, 5, 10, 25, 50, 100, 250]), [],
        ["operation_type", "table"],
        "From a transaction's leaving its role until its outcome was there, whatever it was.";
    DbTransactionErrorsTotal = "db_transaction_errors_total", Counter, [], ["operation_type", "outcome"],
        "Transactions that were refused, or whose outcome is not known.";
    DbConnectionPoolUsage = "db_connection_pool_usage", Ratio, [Region, Worker], [],
        "The share of the process's connections to the ledger that is in use.";
    DragonflyOpsPerSec = "dragonfly_ops_per_sec", Gauge, [Region], ["node", "operation"],
        "What this cache server executes in a second, by kind of command.";
    DragonflyMemoryUsedBytes = "dragonfly_memory_used_bytes", Gauge, [Region], ["node"],
        "The memory of the cache server's data.";
    DragonflyMemoryLimitBytes = "dragonfly_memory_limit_bytes", Gauge, [Region], ["node"],
        "The memory that it may take, where it was given a bound.";
    DragonflyHitRatio = "dragonfly_hit_ratio", Ratio, [Region], ["cache_type"],
        "Of the reads since the server began, the share that found something.";
    DragonflyEvictionCount = "dragonfly_eviction_count", Counter, [Region], ["reason"],
        "Entries that the cache server has dropped to make room (memory) or because their time was over (expired).";
    WorkerFailuresTotal = "worker_failures_total", Counter, [], ["region"],
        "Workers that this orchestrator has found dead.";

    GatewaySessions = "gateway_sessions", Gauge, [Region, Gateway], ["stage"],
        "Sessions: welcomed, or not yet.";
    GatewaySessionsOpenedTotal = "gateway_sessions_opened_total", Counter, [Region, Gateway], [],
        "Sessions that the ledger has granted.";
    GatewayDenialsTotal = "gateway_denials_total", Counter, [Region, Gateway], ["reason"],
        "Clients that were turned away, and sessions that were ended.";
    GatewayDrainsTotal = "gateway_drains_total", Counter, [Region, Gateway], [],
        "Orderly stops that were begun.";
    WorkerQueuedOperations = "worker_queued_operations", Gauge, [Region, Worker], [],
        "Operations that wait for their batch.";
    WorkerSuspensionsTotal = "worker_suspensions_total", Counter, [Region, Worker], [],
        "Times that the lease may have run out and the worker fell silent.";
    WorkerResumptionsTotal = "worker_resumptions_total", Counter, [Region, Worker], [],
        "Times that a late renewal let it act again under the same lease.";
    LeasesLostTotal = "leases_lost_total", Counter, [Region, Node], ["role"],
        "Leases of this process that have ended against its will.";
    FenceRefusalsTotal = "fence_refusals_total", Counter, [Region, Worker], [],
        "Holdings that ended because the ledger's fence refused a write under them.";
    FactsLeftToRelayTotal = "facts_left_to_relay_total", Counter, [Region, Worker], [],
        "Facts that their owner could not publish itself.";
    OutboxBacklog = "outbox_backlog", Gauge, [], [],
        "Facts that no one has published, as the relay's last sweep found them; at most its page.";
    RelayPublishedTotal = "relay_published_total", Counter, [], [],
        "Facts that the relay has published.";
    OrchestratorLeads = "orchestrator_leads", Gauge, [Node], [],
        "1 while this orchestrator leads.";
    ReplicaGapReadsTotal = "replica_gap_reads_total", Counter, [Region, Node], [],
        "Reads in the ledger because the bus did not deliver a fact.";
    ReplicaFactsAppliedTotal = "replica_facts_applied_total", Counter, [Region, Node], [],
        "Facts that the replica has taken in.";
    TelemetrySpansTotal = "telemetry_spans_total", Counter, [Node], ["outcome"],
        "Spans of traces that were exported or dropped, for want of a place or of a collector.";
    LogLinesLostTotal = "log_lines_lost_total", Counter, [Node], [],
        "Lines of the log that nobody read in time.";
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeSet;

    #[test]
    fn every_metric_has_a_name_of_its_own_that_prometheus_takes() {
        let names: BTreeSet<_> = Metric::ALL.iter().map(|metric| metric.table().name).collect();
        assert_eq!(names.len(), Metric::ALL.len());
        let word = |name: &str| {
            name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
                && name.as_bytes()[0].is_ascii_lowercase()
        };
        for metric in Metric::ALL {
            let Table { name, labels, help, own, kind } = metric.table();
            assert!(word(name) && labels.iter().all(|label| word(label)), "{name}");
            assert!(!help.is_empty() && help.ends_with('.'), "{name}");
            assert!(labels.len() <= super::super::LABELS, "{name}");
            let all: BTreeSet<_> = own.iter().map(|own| own.name()).chain(labels.iter().copied()).collect();
            assert_eq!(all.len(), own.len() + labels.len(), "{name} has a label twice");
            assert!(kind.bounds_ms().is_sorted(), "{name}");
        }
    }
}
