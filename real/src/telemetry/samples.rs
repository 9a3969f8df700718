//! What no role knows of itself, measured every few seconds: transport, connections to the ledger, the process, the cache.

use super::{Telemetry, cache::Servers, process};
use crate::{cache, clock, ledger::Ledger, network::Network};
use std::sync::Arc;
use tokio::time::{MissedTickBehavior, interval};
use worldline_system::{
    doors::telemetry::{Label, Labels, Metric, labels, ratio},
    time::{Duration, Instant},
};

/// How often.
const PERIOD: std::time::Duration = std::time::Duration::from_secs(5);

/// Where there is something to measure.
#[derive(Clone, Default)]
pub struct Sources {
    /// A network that clients connect to.
    pub clients: Option<Arc<Network>>,
    /// The connections to the ledger.
    pub ledger: Option<Ledger>,
    /// The servers of the cache.
    pub cache: Option<cache::Config>,
    /// Whether the process is a worker's: then what it takes of the machine is told.
    pub worker: bool,
}

/// Measures for as long as it is polled.
pub struct Sampler {
    telemetry: Telemetry,
    sources: Sources,
    servers: Servers,
    /// When the process was looked at the last time, and how long it had computed by then: its role, and all of it.
    computed: Option<(Instant, Duration, Duration)>,
}

impl Sampler {
    /// Of this process.
    #[must_use]
    pub fn new(telemetry: Telemetry, sources: Sources) -> Self {
        let servers = Servers::of(sources.cache.as_ref());
        Self { telemetry, sources, servers, computed: None }
    }

    /// Measures, now and every few seconds.
    pub async fn run(mut self) {
        let mut looks = interval(PERIOD);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            self.clients();
            self.ledger();
            self.process();
            self.servers.ask(&self.telemetry).await;
        }
    }

    fn clients(&self) {
        let Some(network) = &self.sources.clients else { return };
        let clients = network.clients();
        let mut meter = self.telemetry.meter();
        let (mut sent, mut lost) = (0, 0);
        for client in &clients {
            meter.observe(Metric::ClientLatencyMs, Labels::default(), client.round_trip);
            sent += client.packets_sent;
            lost += client.packets_lost;
        }
        meter.set(Metric::ClientPacketLossRatio, Labels::default(), ratio(lost, sent));
    }

    fn ledger(&self) {
        let Some(ledger) = &self.sources.ledger else { return };
        let (used, size) = ledger.connections_used();
        let used = ratio(used as u64, size as u64);
        self.telemetry.meter().set(Metric::DbConnectionPoolUsage, Labels::default(), used);
    }

    fn process(&mut self) {
        if !self.sources.worker {
            return;
        }
        let (now, all) = (clock::now(), process::computed());
        let role = self.telemetry.role().and_then(process::Thread::computed);
        let mut meter = self.telemetry.meter();
        for (kind, bytes) in process::memory() {
            meter.set(Metric::WorkerMemoryBytes, labels(&[Label::Word(kind)]), bytes);
        }
        let Some(role) = role else { return };
        // The first time, since the process began: it has not been there for long.
        let (since, role_before, all_before) = self.computed.unwrap_or_default();
        let elapsed = now.since(since).as_nanos();
        let known = self.computed.replace((now, role, all)).is_some();
        if known && elapsed > 0 {
            let share = |after: Duration, before: Duration| ratio((after - before).as_nanos(), elapsed);
            let adapters = share(all, all_before).saturating_sub(share(role, role_before)).max(0);
            meter.set(Metric::WorkerCpuUsage, labels(&[Label::Word("role")]), share(role, role_before));
            meter.set(Metric::WorkerCpuUsage, labels(&[Label::Word("adapters")]), adapters);
        }
    }
}
