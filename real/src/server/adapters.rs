//! The doors of a role on real services, as its host calls them.

use crate::{Doors, bus::Bus, cache::Cache, directory::Directory, ledger::Ledger, network::Network};
use std::sync::Arc;
use worldline_proto::{CharacterId, EntityId, LeaseId};
use worldline_system::{
    doors::{
        Asked, bus, cache, directory, ledger, network,
        telemetry::{SpanId, Stage, TraceId},
    },
    history::Note,
};

/// The adapters of a gateway, a worker, an orchestrator or a replica.
#[derive(Clone)]
pub struct Adapters {
    /// None for an orchestrator: it speaks to nobody.
    pub network: Option<Arc<Network>>,
    /// etcd. None for a replica: it owns nothing, and asks nobody who does.
    pub directory: Option<Directory>,
    /// PostgreSQL.
    pub ledger: Ledger,
    /// NATS, if there is one.
    pub bus: Bus,
    /// A Redis-protocol server, if there is one.
    pub cache: Cache,
}

/// The trace of an entity's coming to an owner, and the orchestrator's span in it.
fn migration(entity: EntityId, to: LeaseId) -> (TraceId, SpanId) {
    let trace = TraceId::of_migration(entity, to);
    (trace, SpanId::of(trace, Stage::OwnershipMigration))
}

impl Doors for Adapters {
    fn network(&mut self, submission: network::Submission) {
        if let Some(network) = &self.network {
            network.submit(submission);
        }
    }

    fn directory(&mut self, asked: Asked<directory::Submission>) {
        // A role without this door has no submission for it.
        if let Some(directory) = &self.directory {
            directory.submit(asked);
        }
    }

    fn ledger(&mut self, asked: Asked<ledger::Submission>) {
        self.ledger.submit(asked);
    }

    fn bus(&mut self, asked: Asked<bus::Submission>) {
        self.bus.submit(asked);
    }

    fn cache(&mut self, asked: Asked<cache::Submission>) {
        self.cache.submit(asked);
    }

    fn note(&mut self, note: &Note) {
        match note {
            Note::Identity { lease, .. } => tracing::info!(%lease, "has an identity"),
            Note::Suspended { lease } => tracing::warn!(%lease, "its lease may have run out: it is silent"),
            Note::Resumed { lease } => tracing::info!(%lease, "its lease was renewed: it acts again"),
            Note::Fenced { lease } => {
                tracing::warn!(%lease, "its lease has ended: it drops what it owned and asks for a new one");
            }
            Note::Serving { authority, .. } => {
                let (trace_id, span_id) = migration(authority.entity, authority.lease);
                let epoch = authority.epoch.0;
                tracing::debug!(entity = %authority.entity, epoch, %trace_id, %span_id, "serves");
            }
            Note::AnswerSent { authority, number, .. } => {
                if let Some(character) = CharacterId::from_entity(authority.entity) {
                    let trace_id = TraceId::of_operation(character, *number);
                    tracing::trace!(%character, number = number.0, %trace_id, "answers an operation");
                }
            }
            Note::Dropped { authority } => {
                tracing::debug!(entity = %authority.entity, epoch = authority.epoch.0, "no longer serves");
            }
            Note::Elected { lease } => tracing::info!(%lease, "leads"),
            Note::Deposed { lease } => tracing::info!(%lease, "leads no longer"),
            Note::FoundDead { lease, orphans } => tracing::warn!(%lease, orphans, "found a dead worker"),
            Note::RegionDown { region, stand_in } => {
                tracing::warn!(
                    region = region.0,
                    stand_in = stand_in.0,
                    "a region without workers is served by another"
                );
            }
            Note::RegionBack { region } => tracing::info!(region = region.0, "a region has workers again"),
            Note::TookOver { entity, to, .. } => {
                let (trace_id, span_id) = migration(*entity, *to);
                tracing::debug!(%entity, %to, %trace_id, %span_id, "assigned");
            }
            _ => {}
        }
    }
}
