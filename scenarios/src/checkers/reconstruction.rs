//! S5: the cache makes things quick and decides nothing. Who takes an entity over goes on from where the ledger, or the owner before, had it.

use super::{Check, Checker, Facts, Invariant, Setup, View, breach, table::Table};
use worldline_proto::{CharacterId, EntityId, Epoch, NodeId, OpNumber, Version};
use worldline_system::{
    doors::ledger::{self, Authority, Checkpoint},
    history::{Acceptance, Entry, Invocation, Note, What},
    rules::space::Position,
    time::{Duration, Instant},
};

/// What a checkpoint may come later than its period: a batch in flight to a distant core, a tick, and a slow disk.
const LATE: Duration = Duration::from_secs(1);
/// Epochs of one entity whose last movements are remembered.
const EPOCHS_KEPT: usize = 4;

/// A checkpoint that an owner has submitted.
#[derive(Clone, Copy, Debug)]
struct Written {
    epoch: Epoch,
    version: Version,
    position: Position,
    /// By its owner's clock, and by the run's.
    local: Instant,
    at: Instant,
}

/// What one owner has done with an entity.
#[derive(Clone, Copy, Debug)]
struct Owned {
    epoch: Epoch,
    node: NodeId,
    /// By its clock.
    since: Instant,
    /// The last movement that it accepted while the fence was its own: by its clock, and by the run's.
    moved: Option<(Instant, Instant)>,
}

/// A claim that the ledger has accepted, with what it knew then.
#[derive(Clone, Copy, Debug)]
struct Claimed {
    authority: Authority,
    replaced: Option<Epoch>,
    kept: Option<(Epoch, Version)>,
    applied_through: OpNumber,
}

/// What is known of one entity.
#[derive(Clone, Debug, Default)]
struct State {
    /// Submitted checkpoints that are not older than the ledger's.
    written: Vec<Written>,
    kept: Option<(Epoch, Version)>,
    claimed: Option<Claimed>,
    owned: Vec<Owned>,
    applied_through: OpNumber,
}

/// S5. Knows every checkpoint as its owner brought it to the ledger. Who takes over must stand where one of them has it that is
/// not older than the ledger's and of the ledger's epoch or the one that is replaced; whoever it was read from. The movement
/// that is lost with that is bounded, where the ledger was there to take checkpoints; and durable fields are the ledger's.
#[derive(Clone, Debug)]
pub struct CacheDecidesNothing {
    /// How old a checkpoint may be.
    loss_max: Duration,
    entities: Table<EntityId, State>,
    /// Samples at which the ledger could not be relied on; and by node those at which it could not reach it.
    ledger_away: Vec<Instant>,
    unable: Table<NodeId, Vec<Instant>>,
    taken_over: bool,
}

impl CacheDecidesNothing {
    fn write(&mut self, checkpoint: &Checkpoint, entry: &Entry) {
        let Checkpoint { authority: Authority { entity, epoch, .. }, version, state } = *checkpoint;
        let known = self.entities.slot(entity);
        let stamp = (epoch, version);
        let again = known.written.iter().any(|written| (written.epoch, written.version) == stamp);
        if again || known.kept.is_some_and(|kept| stamp < kept) {
            return;
        }
        let (position, local, at) = (state.position, entry.local, entry.at);
        known.written.push(Written { epoch, version, position, local, at });
    }

    fn keep(&mut self, authority: Authority, version: Version) {
        let known = self.entities.slot(authority.entity);
        let stamp = (authority.epoch, version);
        known.kept = Some(stamp);
        known.written.retain(|written| (written.epoch, written.version) >= stamp);
    }

    fn claim(&mut self, authority: Authority, before: Option<Epoch>) {
        let known = self.entities.slot(authority.entity);
        let again = known.claimed.filter(|claimed| claimed.authority == authority);
        let replaced = again.map_or(before, |claimed| claimed.replaced);
        let (kept, applied_through) = (known.kept, known.applied_through);
        known.claimed = Some(Claimed { authority, replaced, kept, applied_through });
    }

    fn serve(&mut self, entry: &Entry, authority: Authority, position: Position, through: OpNumber) -> Check {
        let Authority { entity, epoch, .. } = authority;
        let (node, since) = (entry.node, entry.local);
        let known = self.entities.slot(entity);
        let claimed = known.claimed.filter(|claimed| claimed.authority == authority);
        let owned = known.owned.clone();
        known.owned.retain(|owned| owned.epoch != epoch);
        if known.owned.len() == EPOCHS_KEPT {
            known.owned.remove(0);
        }
        known.owned.push(Owned { epoch, node, since, moved: None });
        // Whoever serves what it has not claimed breaks another invariant.
        let Some(Claimed { replaced, kept, applied_through, .. }) = claimed else { return Ok(()) };
        if CharacterId::from_entity(entity).is_some() && through != applied_through {
            breach!("{node} serves {entity} as if {through} operations had results; the ledger had {applied_through}");
        }
        let Some(replaced) = replaced else { return Ok(()) };
        self.taken_over = true;
        let may = |written: &&Written| {
            let fits = kept.is_none_or(|kept| (written.epoch, written.version) >= kept);
            fits && (written.epoch == replaced || kept.is_some_and(|(epoch, _)| epoch == written.epoch))
        };
        let written = &self.entities.slot(entity).written;
        let loaded = written.iter().filter(may).filter(|written| written.position == position);
        let loaded = loaded.max_by_key(|written| (written.epoch, written.version)).copied();
        if loaded.is_none() && kept.is_some() {
            breach!(
                "{node} serves {entity} at ({}, {}) mm, where no checkpoint has it that is as new as the ledger's {kept:?} and \
                 was written at epoch {replaced}",
                position.x_mm,
                position.y_mm
            );
        }
        let Some(before) = owned.into_iter().find(|owned| owned.epoch == replaced) else { return Ok(()) };
        let Some((moved, moved_at)) = before.moved else { return Ok(()) };
        // From what was loaded on; or from when the owner before began, if it is its own that is missing.
        let own = loaded.filter(|written| written.epoch == replaced);
        let from = own.map_or(before.since, |written| written.local);
        let lost = moved.since(from);
        let lasted = own.map_or(Instant::default(), |written| written.at);
        if lost > self.loss_max && !self.excused(before.node, lasted, moved_at) {
            breach!("{node} serves {entity} without the last {lost} of its movement; {} is the most", self.loss_max);
        }
        Ok(())
    }

    /// Whether checkpoints could not come to the ledger at some moment in between.
    fn excused(&self, node: NodeId, from: Instant, to: Instant) -> bool {
        let within = |times: &Vec<Instant>| times.iter().any(|&at| from <= at && at <= to);
        within(&self.ledger_away) || self.unable.get(node).is_some_and(within)
    }

    fn walk(&mut self, entry: &Entry, authority: Authority) {
        let known = self.entities.slot(authority.entity);
        // What an owner accepts behind the claim of another is nobody's loss.
        if known.claimed.is_some_and(|claimed| claimed.authority == authority)
            && let Some(owned) = known.owned.iter_mut().find(|owned| owned.epoch == authority.epoch)
        {
            owned.moved = Some((entry.local, entry.at));
        }
    }
}

impl Checker for CacheDecidesNothing {
    const INVARIANT: Invariant = Invariant::S5;

    fn new(setup: &Setup) -> Self {
        Self {
            loss_max: setup.checkpoint_every + LATE,
            entities: Table::default(),
            ledger_away: Vec::new(),
            unable: Table::default(),
            taken_over: false,
        }
    }

    fn on_entry(&mut self, entry: &Entry, _: &Facts<'_>) -> Check {
        match &entry.what {
            What::Invoked(_, Invocation::Ledger(ledger::Submission::Commit(batch))) => {
                batch.checkpoints.iter().for_each(|checkpoint| self.write(checkpoint, entry));
            }
            What::Accepted(Acceptance::Checkpointed { authority, version }) => self.keep(*authority, *version),
            What::Accepted(Acceptance::FenceRaised { authority, before }) => {
                self.claim(*authority, before.map(|(epoch, _)| epoch));
            }
            What::Accepted(Acceptance::OperationApplied { operation, .. }) => {
                self.entities.slot(operation.character.entity()).applied_through = operation.number;
            }
            What::Noted(Note::Serving { authority, position, applied_through }) => {
                return self.serve(entry, *authority, *position, *applied_through);
            }
            What::Noted(Note::Moved { authority, .. }) => self.walk(entry, *authority),
            _ => {}
        }
        Ok(())
    }

    fn on_sample(&mut self, view: &View<'_>) -> Check {
        if view.services.is_none_or(|services| !services.ledger) {
            self.ledger_away.push(view.at);
        }
        for worker in view.workers.iter().filter(|worker| !worker.able) {
            self.unable.slot(worker.node).push(view.at);
        }
        Ok(())
    }

    fn not_checked(&self) -> Option<&'static str> {
        (!self.taken_over).then_some("nobody took an entity over from another epoch")
    }
}

#[cfg(test)]
#[path = "reconstruction_tests.rs"]
mod tests;
