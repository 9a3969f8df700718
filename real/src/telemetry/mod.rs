//! The telemetry door in production: what a role tells is kept in the process and shown at `/metrics`.
//!
//! Invariants: a role never waits for whoever looks. It puts its reports down under a lock that is held for as long as a few
//! numbers take to add; who scrapes takes a copy. What a role does not know of itself (`samples`) is measured beside it, every
//! few seconds, so that several who scrape see the same.
//!
//! Deliberately absent: names of metrics. They stand in one table, `worldline_system::doors::telemetry`.

#[cfg(not(madsim))]
mod cache;
#[cfg_attr(madsim, path = "export_nothing.rs")]
mod export;
#[cfg_attr(madsim, expect(dead_code, reason = "who looks at the kernel is not built"))]
mod process;
#[cfg(not(madsim))]
mod samples;
#[cfg(not(madsim))]
mod text;

pub use export::Exporter;
#[cfg(not(madsim))]
pub use {
    export::Config,
    samples::{Sampler, Sources},
    text::{MEDIA_TYPE, Own},
};

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use worldline_system::{
    doors::{
        ledger::{Answer, Ask},
        telemetry::{Label, Meter, Metric, Reports, labels},
    },
    time::Duration,
};

/// What a process tells of itself. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Telemetry(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    meter: Mutex<Meter>,
    role: Mutex<Option<process::Thread>>,
    exporter: OnceLock<Exporter>,
}

impl Telemetry {
    /// What a role has told in a turn that took so long.
    pub fn take(&self, reports: &mut Reports, turn: Duration) {
        reports.hand_to(&mut self.meter(), turn);
        let spans = reports.take_spans();
        if let Some(exporter) = self.0.exporter.get() {
            spans.into_iter().for_each(|span| exporter.tell(span));
        }
    }

    /// From now on spans go there. Only the first counts.
    pub fn export_to(&self, exporter: Exporter) {
        drop(self.0.exporter.set(exporter));
    }

    /// Sends the spans that wait, if any do, and ends that.
    pub async fn end(&self) {
        if let Some(exporter) = self.0.exporter.get() {
            exporter.end().await;
        }
    }

    /// Reports of a role that begins now.
    #[must_use]
    pub fn reports(&self) -> Reports {
        Reports::traced(self.0.exporter.get().is_some())
    }

    /// An operation on the ledger was answered after so long.
    pub fn ledger_answered(&self, ask: Ask, answer: &Answer, after: Duration) {
        self.meter().ledger_answered(ask, answer, after);
    }

    /// The calling thread is the role's.
    pub fn on_role_thread(&self) {
        *self.0.role.lock().unwrap_or_else(PoisonError::into_inner) = Some(process::Thread::this());
    }

    /// A copy of everything at this moment.
    #[must_use]
    pub fn meters(&self) -> Meter {
        let mut meter = self.meter().clone();
        if let Some(exporter) = self.0.exporter.get() {
            let (exported, dropped) = exporter.counts();
            for (outcome, count) in [("exported", exported), ("dropped", dropped)] {
                meter.set_counter(Metric::TelemetrySpansTotal, labels(&[Label::Word(outcome)]), count);
            }
        }
        #[cfg(not(madsim))]
        meter.set_counter(Metric::LogLinesLostTotal, labels(&[]), crate::server::log_lines_lost());
        meter
    }

    fn meter(&self) -> MutexGuard<'_, Meter> {
        // Nothing panics while it holds the lock: what is inside is whole.
        self.0.meter.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(not(madsim))]
    fn role(&self) -> Option<process::Thread> {
        *self.0.role.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a label says, where the regions of the world have these names.
#[cfg(not(madsim))]
fn label_text(label: Label, regions: &[String]) -> String {
    match label {
        Label::None => String::new(),
        Label::Word(word) => word.to_owned(),
        Label::Region(region) => regions.get(usize::from(region.0)).cloned().unwrap_or_else(|| region.0.to_string()),
        Label::Node(node) => node.to_string(),
    }
}
