//! Entities that the whole world shares, as far as the client has been shown: for a health bar, never for a decision.

use alloc::collections::BTreeMap;
use worldline_proto::{EntityId, FactSequence, client::Global};

/// As many as a client remembers.
const GLOBALS_MAX: usize = 256;

/// What was last shown of each.
#[derive(Clone, Debug, Default)]
pub(super) struct Globals(BTreeMap<EntityId, FactSequence>);

impl Globals {
    /// Takes in how an entity stands, unless that is known or older than what is known: another gateway may lag behind.
    pub fn take_in(&mut self, global: &Global) -> Option<(EntityId, FactSequence, u32)> {
        let (entity, sequence) = (EntityId::from_raw(global.entity)?, FactSequence(global.sequence));
        let known = self.0.get(&entity).copied();
        if known.is_some_and(|known| known >= sequence) || known.is_none() && self.0.len() >= GLOBALS_MAX {
            return None;
        }
        self.0.insert(entity, sequence);
        Some((entity, sequence, global.hit_points))
    }
}
