//! What an orchestrator counts: whom it has found dead, and what went where. And a span of every migration.

use super::{Orchestrator, Submission, plan::Assignment};
use crate::{
    Outcome, Turn,
    doors::{
        directory::{RegionId, Transacted},
        telemetry::{Attribute, Label, Metric, Span, SpanId, Stage, TraceId},
    },
    time::Instant,
};
use alloc::vec;
use worldline_proto::LeaseId;

/// A worker that this orchestrator has never seen alive.
const NOT_KNOWN: Label = Label::Word("unknown");

impl Orchestrator {
    /// What is counted begins at nothing: a rate needs that.
    pub(super) fn begin_telemetry(&self, turn: &mut Turn<'_, Submission>) {
        turn.gauge(Metric::OrchestratorLeads, &[], 0);
        turn.count(Metric::RelayPublishedTotal, &[], 0);
        turn.count(Metric::LeasesLostTotal, &[Label::Word("orchestrator")], 0);
        for region in (0..self.config.map.regions()).map(RegionId) {
            turn.count(Metric::WorkerFailuresTotal, &[Label::Region(region)], 0);
        }
    }

    /// The region of a worker, dead or alive.
    pub(super) fn region_of(&self, lease: LeaseId) -> Label {
        self.regions.get(&lease).map_or(NOT_KNOWN, |&region| Label::Region(region))
    }

    pub(super) fn count_migration(&self, assignment: &Assignment, turn: &mut Turn<'_, Submission>) {
        let (from, reason) = match (assignment.from, assignment.by) {
            (None, _) => (Label::Word("none"), "first_owner"),
            (Some((lease, _)), Some(_)) => (self.region_of(lease), "region_down"),
            (Some((lease, _)), None) => (self.region_of(lease), "worker_lost"),
        };
        let to = self.region_of(assignment.to);
        turn.count(Metric::OwnershipMigrationsTotal, &[from, to, Label::Word(reason)], 1);
    }

    pub(super) fn tell_migrations(
        &self,
        assigned: &[Assignment],
        start: Instant,
        outcome: &Outcome<Transacted>,
        turn: &mut Turn<'_, Submission>,
    ) {
        let failed = match outcome {
            Outcome::Done(transacted) if transacted.succeeded => None,
            Outcome::Done(_) => Some("lost a race"),
            Outcome::Refused(_) => Some("refused"),
            Outcome::Unknown => Some("unknown"),
        };
        let (stage, end) = (Stage::OwnershipMigration, turn.now());
        for assignment in assigned {
            let trace = TraceId::of_migration(assignment.entity, assignment.to);
            turn.span(|| Span {
                trace,
                id: SpanId::of(trace, stage),
                parent: None,
                stage,
                start,
                end,
                failed,
                attributes: vec![
                    ("entity_id", Attribute::Entity(assignment.entity)),
                    ("to_region", Attribute::Label(self.region_of(assignment.to))),
                ],
            });
        }
    }
}
