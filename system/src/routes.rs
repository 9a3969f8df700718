//! Where an entity's owner lives: from entity to lease to node, as the directory tells it.
//!
//! A route is a hint. It may be stale at any moment; the owner refuses what is not its own, and the fence refuses the rest.

use crate::{
    Outcome, Turn,
    doors::{
        self, Asked,
        directory::{self, Answer, Consistency, Key, Ownership, Record, RegionId, Value},
    },
    limits,
};
use alloc::{collections::BTreeMap, vec::Vec};
use worldline_proto::{EntityId, LeaseId, NodeId, OpId, Revision};

/// Entities that are looked up at once; more wait for the next attempt of their caller.
const LOOKUPS_IN_FLIGHT: usize = 256;
/// Nodes whose region is remembered.
const NODES_MAX: usize = 1_024;

/// A cache of routes, filled on demand and corrected by watch news.
#[derive(Clone, Debug, Default)]
pub struct Routes {
    owners: BTreeMap<EntityId, (Ownership, Revision)>,
    nodes: BTreeMap<LeaseId, NodeId>,
    /// Where each node stood when it was last looked up: a region outlives leases.
    regions: BTreeMap<NodeId, RegionId>,
    lookups: BTreeMap<OpId, Lookup>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lookup {
    Owner(EntityId),
    Node(EntityId, LeaseId),
}

impl Lookup {
    const fn entity(self) -> EntityId {
        match self {
            Self::Owner(entity) | Self::Node(entity, _) => entity,
        }
    }
}

/// What came of a lookup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// The answer was not to a lookup.
    NotMine,
    /// One of two steps is done.
    Halfway,
    /// The entity's owner lives there.
    Route(EntityId, NodeId),
    /// There is no living owner now, or the directory did not say. Try again later.
    Nowhere(EntityId),
}

impl Routes {
    /// The node of an entity's owner, if it is known.
    #[must_use]
    pub fn get(&self, entity: EntityId) -> Option<NodeId> {
        let (owner, _) = self.owners.get(&entity)?;
        self.nodes.get(&owner.lease).copied()
    }

    /// The region of an entity's owner, if it is known.
    #[must_use]
    pub fn region(&self, entity: EntityId) -> Option<RegionId> {
        self.regions.get(&self.get(entity)?).copied()
    }

    /// The ownership record that a route rests on.
    #[must_use]
    pub fn owner(&self, entity: EntityId) -> Option<Ownership> {
        self.owners.get(&entity).map(|(owner, _)| *owner)
    }

    /// Forgets a route that has proven wrong.
    pub fn forget(&mut self, entity: EntityId) {
        self.owners.remove(&entity);
    }

    /// Forgets everything: a watch had a gap.
    pub fn clear(&mut self) {
        self.owners.clear();
        self.nodes.clear();
    }

    /// How many lookups are under way, and how many may be.
    #[must_use]
    pub fn lookups(&self) -> (usize, usize) {
        (self.lookups.len(), LOOKUPS_IN_FLIGHT)
    }

    /// Takes news of a record, if its entity's route is in use here; older news than is known changes nothing.
    pub fn refresh(&mut self, record: &Record) {
        if let Key::Owner(entity) = record.key
            && self.owners.contains_key(&entity)
        {
            self.learn(record);
        }
    }

    /// Takes a guess of somebody who may be behind the times, where nothing is known. Whatever the directory says replaces it.
    pub fn guess(&mut self, entity: EntityId, owner: Ownership, node: NodeId) {
        if let alloc::collections::btree_map::Entry::Vacant(unknown) = self.owners.entry(entity) {
            unknown.insert((owner, Revision(0)));
            self.nodes.entry(owner.lease).or_insert(node);
        }
    }

    fn learn(&mut self, record: &Record) {
        let (Key::Owner(entity), Value::Owner(owner)) = (record.key, record.value) else { return };
        match self.owners.get(&entity) {
            Some((_, known)) if *known >= record.mod_revision => {}
            _ => {
                self.owners.insert(entity, (owner, record.mod_revision));
            }
        }
    }

    /// Asks the directory for an entity's owner, unless that is under way. Answers come through [`Self::on_answer`].
    pub fn look_up<S>(&mut self, entity: EntityId, turn: &mut Turn<'_, S>)
    where
        S: Into<doors::Submission> + From<Asked<directory::Submission>>,
    {
        if self.lookups.len() >= LOOKUPS_IN_FLIGHT || self.lookups.values().any(|l| l.entity() == entity) {
            return;
        }
        match self.owners.get(&entity) {
            Some((owner, _)) => self.ask_node(entity, owner.lease, turn),
            None => {
                let submission =
                    directory::Submission::Get { key: Key::Owner(entity), consistency: Consistency::Linearizable };
                let op = turn.directory(submission, limits::DIRECTORY_PATIENCE);
                self.lookups.insert(op, Lookup::Owner(entity));
            }
        }
    }

    fn ask_node<S>(&mut self, entity: EntityId, lease: LeaseId, turn: &mut Turn<'_, S>)
    where
        S: Into<doors::Submission> + From<Asked<directory::Submission>>,
    {
        let submission = directory::Submission::Get { key: Key::Worker(lease), consistency: Consistency::Linearizable };
        let op = turn.directory(submission, limits::DIRECTORY_PATIENCE);
        self.lookups.insert(op, Lookup::Node(entity, lease));
    }

    /// Takes an answer of the directory, if it is to a lookup.
    pub fn on_answer<S>(&mut self, op: OpId, answer: &Answer, turn: &mut Turn<'_, S>) -> Found
    where
        S: Into<doors::Submission> + From<Asked<directory::Submission>>,
    {
        let Some(lookup) = self.lookups.remove(&op) else { return Found::NotMine };
        let entity = lookup.entity();
        // A lookup reads: a refusal and `Unknown` alike leave nothing behind, and its caller tries again.
        let Answer::Got(Outcome::Done((Some(record), _))) = answer else {
            self.forget(entity);
            return Found::Nowhere(entity);
        };
        match (lookup, record.value) {
            (Lookup::Owner(_), Value::Owner(_)) => {
                self.learn(record);
                let Some(owner) = self.owner(entity) else { return Found::Nowhere(entity) };
                if let Some(&node) = self.nodes.get(&owner.lease) {
                    return Found::Route(entity, node);
                }
                self.ask_node(entity, owner.lease, turn);
                Found::Halfway
            }
            (Lookup::Node(_, lease), Value::Worker(worker)) => {
                self.nodes.insert(lease, worker.node);
                if self.regions.len() < NODES_MAX || self.regions.contains_key(&worker.node) {
                    self.regions.insert(worker.node, worker.region);
                }
                self.prune();
                match self.get(entity) {
                    Some(node) => Found::Route(entity, node),
                    None => Found::Nowhere(entity),
                }
            }
            _ => Found::Nowhere(entity),
        }
    }

    /// Keeps only the nodes that some route uses, so that dead leases do not pile up.
    fn prune(&mut self) {
        if self.nodes.len() > 64 {
            let used: Vec<LeaseId> = self.owners.values().map(|(owner, _)| owner.lease).collect();
            self.nodes.retain(|lease, _| used.contains(lease));
        }
    }
}
