//! Who serves what, as the workers say and as far as their processes live.

use super::super::table::Table;
use worldline_proto::{EntityId, Incarnation, LeaseId, NodeId};
use worldline_system::{
    doors::ledger::Authority,
    history::{Entry, Note, What},
};

/// One life of a worker.
#[derive(Clone, Debug, Default)]
struct Life {
    incarnation: Incarnation,
    gone: bool,
    suspended: bool,
    fenced: Option<LeaseId>,
}

/// Follows the owners of all entities. No checker by itself.
#[derive(Clone, Debug, Default)]
pub struct Owners {
    lives: Table<NodeId, Life>,
    servers: Table<EntityId, Option<(NodeId, Incarnation, Authority)>>,
}

impl Owners {
    /// Takes the next line of the history.
    pub fn on_entry(&mut self, entry: &Entry) {
        match &entry.what {
            What::Started => {
                *self.lives.slot(entry.node) = Life { incarnation: entry.incarnation, ..Life::default() };
            }
            What::Crashed | What::Stopped => self.lives.slot(entry.node).gone = true,
            What::Noted(Note::Identity { .. } | Note::Resumed { .. }) => self.lives.slot(entry.node).suspended = false,
            What::Noted(Note::Suspended { .. }) => self.lives.slot(entry.node).suspended = true,
            What::Noted(Note::Fenced { lease }) => self.lives.slot(entry.node).fenced = Some(*lease),
            What::Noted(Note::Serving { authority, .. }) => {
                let server = self.servers.slot(authority.entity);
                if server.is_none_or(|(_, _, known)| known.epoch <= authority.epoch) {
                    *server = Some((entry.node, entry.incarnation, *authority));
                }
            }
            What::Noted(Note::Dropped { authority }) => {
                let server = self.servers.slot(authority.entity);
                if server.is_some_and(|(_, _, known)| known == *authority) {
                    *server = None;
                }
            }
            _ => {}
        }
    }

    /// Who serves an entity now: its process lives, is not suspended and its identity not known to be dead.
    pub fn server(&self, entity: EntityId) -> Option<(NodeId, Authority)> {
        let (node, incarnation, authority) = (*self.servers.get(entity)?)?;
        let life = self.lives.get(node);
        let lives = life.is_none_or(|life| {
            let same = life.incarnation == incarnation && !life.gone;
            same && !life.suspended && life.fenced != Some(authority.lease)
        });
        lives.then_some((node, authority))
    }
}
