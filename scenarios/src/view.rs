//! What the checkers see of a simulated world beside its history.

use crate::{
    checkers::{Leak, LedgerRows, Queue, Services, WorkerState},
    inject::Impaired,
    nodes::{Kind, Nodes},
    world::World,
};
use std::{cell::OnceCell, collections::BTreeSet};
use worldline_proto::{CharacterId, NodeId, OpNumber};
use worldline_sim::{Actor as _, ledger};
use worldline_system::{
    doors::{
        directory::RegionId,
        ledger::{FactRow, StoredResult},
    },
    history::Row,
};

/// The services' nodes and the roles' nodes, by kind.
#[derive(Clone, Debug)]
pub struct Sets {
    directory: Vec<NodeId>,
    orchestrators: Vec<NodeId>,
    workers: Vec<(NodeId, RegionId)>,
}

/// What cannot be relied on though it runs: by the faults that go on.
#[derive(Clone, Debug, Default)]
pub struct Unwell {
    /// Nodes.
    pub nodes: BTreeSet<NodeId>,
    /// Services.
    pub services: Impaired,
}

impl Sets {
    /// Of these nodes.
    #[must_use]
    pub fn of(nodes: &Nodes) -> Self {
        let workers = nodes.iter().filter_map(|(id, node)| match node.kind {
            Kind::Worker(region, _) => Some((id, RegionId(u8::try_from(region).ok()?))),
            _ => None,
        });
        Self {
            directory: nodes.those(|kind| matches!(kind, Kind::Directory(_))),
            orchestrators: nodes.those(|kind| matches!(kind, Kind::Orchestrator(_))),
            workers: workers.collect(),
        }
    }

    /// Whether this member of the directory is up and stands, with members that are up and linked with it and with each
    /// other, for a majority.
    #[must_use]
    pub fn majority(&self, world: &World, member: NodeId) -> bool {
        let core = world.core();
        let linked = |a, b| core.linked(a, b) && core.linked(b, a);
        if !core.is_running(member) {
            return false;
        }
        let peers: Vec<NodeId> =
            self.directory.iter().copied().filter(|&peer| core.is_running(peer) && linked(member, peer)).collect();
        // At most 7 members: every set of them is looked at.
        let sets = 1_u32 << peers.len();
        (0..sets).any(|set| {
            let chosen: Vec<NodeId> =
                peers.iter().enumerate().filter(|(n, _)| set & 1 << n != 0).map(|(_, &peer)| peer).collect();
            chosen.len() * 2 > self.directory.len()
                && chosen.contains(&member)
                && chosen.iter().all(|&a| chosen.iter().all(|&b| a == b || linked(a, b)))
        })
    }

    /// Whether the services can be used.
    #[must_use]
    pub fn services(&self, world: &World, unwell: &Unwell) -> Services {
        let core = world.core();
        let serving = self.serving(world);
        let primary = world.ledger().map(ledger::Model::primary).filter(|&primary| core.is_running(primary));
        let directory = !serving.is_empty() && world.directory().and_then(|model| model.leader(core)).is_some();
        let reaches = |&node: &NodeId| {
            let well = core.is_running(node) && !unwell.nodes.contains(&node);
            well && self.reaches(world, node, &serving) && primary.is_some_and(|primary| linked(world, node, primary))
        };
        Services {
            directory: directory && !unwell.services.directory,
            ledger: world.ledger().is_some_and(|model| model.takes_writes(core)) && !unwell.services.ledger,
            orchestrator: self.orchestrators.iter().any(reaches),
        }
    }

    /// Every worker, and whether it could serve.
    #[must_use]
    pub fn workers(&self, world: &World, unwell: &Unwell) -> Vec<WorkerState> {
        let serving = self.serving(world);
        let primary = world.ledger().map(ledger::Model::primary);
        let state = |&(node, region): &(NodeId, RegionId)| {
            let able = world.core().is_running(node)
                && !unwell.nodes.contains(&node)
                && self.reaches(world, node, &serving)
                && primary.is_some_and(|primary| linked(world, node, primary));
            WorkerState { node, region, able }
        };
        self.workers.iter().map(state).collect()
    }

    /// The members of the directory that stand for a majority.
    fn serving(&self, world: &World) -> Vec<NodeId> {
        self.directory.iter().copied().filter(|&member| self.majority(world, member)).collect()
    }

    /// Whether a node is linked with all members that serve: a caller may be at any of them.
    fn reaches(&self, world: &World, node: NodeId, serving: &[NodeId]) -> bool {
        !serving.is_empty() && serving.iter().all(|&member| linked(world, node, member))
    }
}

fn linked(world: &World, a: NodeId, b: NodeId) -> bool {
    world.core().linked(a, b) && world.core().linked(b, a)
}

/// How full every queue of every running role is.
#[must_use]
pub fn queues(world: &World, nodes: &Nodes) -> Vec<Queue> {
    let mut queues = Vec::new();
    for (node, _) in nodes.iter().filter(|(node, _)| world.core().is_up(*node)) {
        if let Some(actor) = world.actor(node) {
            actor.queues(&mut |name, length, bound| queues.push(Queue { node, name, length, bound }));
        }
    }
    queues
}

/// What has outlived its end.
#[must_use]
pub fn leaks(world: &World) -> Vec<Leak> {
    use worldline_sim::Leak as L;
    let leak = |leak: L| match leak {
        L::Operation { node, op } => Leak { node, what: format!("{op} is past its deadline and unanswered") },
        L::HalfOpen { node, connection } => {
            Leak { node, what: format!("connection {connection} is open at one end only") }
        }
        L::Inbox { node, waiting } => Leak { node, what: format!("{waiting} events wait at a node that has time") },
    };
    world.leaks().into_iter().map(leak).collect()
}

/// The ledger as it stands at a sample.
pub struct Ledger<'a> {
    model: &'a ledger::Model,
    rows: OnceCell<Vec<Row>>,
}

impl<'a> Ledger<'a> {
    /// Of this model.
    #[must_use]
    pub fn of(model: &'a ledger::Model) -> Self {
        Self { model, rows: OnceCell::new() }
    }
}

impl LedgerRows for Ledger<'_> {
    fn each(&self, each: &mut dyn FnMut(&Row)) {
        self.rows.get_or_init(|| self.model.rows()).iter().for_each(each);
    }

    fn applied_through(&self, character: CharacterId) -> Option<OpNumber> {
        self.model.columns(character.entity()).map(|columns| columns.applied_through)
    }

    fn result(&self, character: CharacterId, number: OpNumber) -> Option<StoredResult> {
        self.model.stored_result(character, number)
    }

    fn each_fact(&self, each: &mut dyn FnMut(FactRow)) {
        self.model.facts().for_each(each);
    }
}
