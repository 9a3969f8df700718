//! Entities that the whole world shares, as the region's replicas show them, passed on to every client.
//!
//! Invariant: what a client is shown of an entity never goes back, whichever replica shows it.
//!
//! Deliberately absent: a look into the ledger. While no replica is there, clients know what they knew.

use super::{Gateway, Submission, Timer, session::send};
use crate::{Turn, backoff::Backoff, doors::network::StreamClass};
use alloc::{collections::BTreeMap, vec::Vec};
use worldline_proto::{
    ConnectionId, EntityId, FactSequence, NodeId,
    client::{self, gateway_frame::Frame},
    server,
};

/// As many as are passed on; a replica shows no more either.
const GLOBALS_MAX: usize = crate::limits::SNAPSHOT_ENTITIES;

/// What is known of them.
#[derive(Clone, Debug, Default)]
pub(super) struct Globals {
    known: BTreeMap<EntityId, (FactSequence, u32)>,
    backoff: Backoff,
}

impl Gateway {
    /// Opens the links to the replicas that are not open, now or again.
    pub(super) fn seek_replicas(&mut self, turn: &mut Turn<'_, Submission>) {
        for &replica in &self.config.replicas {
            self.links.connect(replica, turn);
        }
    }

    /// Whether a replica is there that shows how things stand, or none is wanted.
    #[must_use]
    pub fn sees_globals(&self) -> bool {
        let replicas = &self.config.replicas;
        replicas.is_empty() || replicas.iter().any(|&replica| self.links.get(replica).is_some())
    }

    pub(super) fn on_replica_link(&mut self, node: NodeId) {
        if self.config.replicas.contains(&node) {
            self.globals.backoff.reset();
        }
    }

    /// A link was lost or could not be opened. A replica's is opened again after a while.
    pub(super) fn on_replica_link_lost(&mut self, node: NodeId, turn: &mut Turn<'_, Submission>) {
        if self.config.replicas.contains(&node) && !self.drains() {
            let wait = self.globals.backoff.fail(self.config.knobs.retry, turn.entropy());
            turn.arm_in(Timer::Replica, wait);
        }
    }

    /// A replica shows how an entity stands. Nobody else may.
    pub(super) fn on_global(&mut self, link: ConnectionId, global: &server::Global, turn: &mut Turn<'_, Submission>) {
        if !self.links.node(link).is_some_and(|node| self.config.replicas.contains(&node)) {
            return;
        }
        let Some(entity) = EntityId::from_raw(global.entity) else { return };
        let (sequence, hit_points) = (FactSequence(global.sequence), global.hit_points);
        let known = self.globals.known.get(&entity);
        if known.is_some_and(|(known, _)| *known >= sequence)
            || known.is_none() && self.globals.known.len() >= GLOBALS_MAX
        {
            return;
        }
        self.globals.known.insert(entity, (sequence, hit_points));
        let clients = self.sessions.iter().filter(|(_, session)| session.welcomed);
        let clients: Vec<_> = clients.map(|(&connection, session)| (connection, session.character)).collect();
        for (connection, character) in clients {
            // Nobody is told of what others have done.
            let causes = global.cause_characters.iter().zip(&global.cause_numbers);
            let own = causes.filter(|(whose, _)| **whose == character.entity().get());
            let own = own.map(|(_, number)| *number).collect();
            show(connection, (entity, sequence, hit_points), own, turn);
        }
    }

    /// Shows a client that was just welcomed how everything stands.
    pub(super) fn show_globals(&self, connection: ConnectionId, turn: &mut Turn<'_, Submission>) {
        for (&entity, &(sequence, hit_points)) in &self.globals.known {
            show(connection, (entity, sequence, hit_points), Vec::new(), turn);
        }
    }
}

fn show(
    connection: ConnectionId,
    (entity, sequence, hit_points): (EntityId, FactSequence, u32),
    own: Vec<u64>,
    turn: &mut Turn<'_, Submission>,
) {
    let global = client::Global { entity: entity.get(), sequence: sequence.0, hit_points, own };
    send(connection, StreamClass::State, Frame::Global(global), turn);
}
