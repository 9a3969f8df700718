//! Who leads and who owns while a drill goes on: what a fault's selectors mean.

use worldline_proto::{EntityId, LeaseId, NodeId};
use worldline_scenarios::{inject::Now, nodes::Roles};
use worldline_system::doors::directory::{Key, Record, Value};

/// The directory as it stands.
#[derive(Clone, Debug)]
pub struct Records(Vec<Record>);

impl Records {
    /// Of these records.
    #[must_use]
    pub const fn of(records: Vec<Record>) -> Self {
        Self(records)
    }

    fn leader(&self) -> Option<(NodeId, LeaseId)> {
        self.0.iter().find_map(|record| match record.value {
            Value::Leader(leader) => Some((leader.node, leader.lease)),
            _ => None,
        })
    }

    fn worker(&self, holds: impl Fn(LeaseId, NodeId) -> bool) -> Option<(LeaseId, NodeId)> {
        let workers = self.0.iter().filter_map(|record| match (record.key, record.value) {
            (Key::Worker(lease), Value::Worker(worker)) => Some((lease, worker.node)),
            _ => None,
        });
        workers.filter(|&(lease, node)| holds(lease, node)).last()
    }
}

/// The records, and which nodes stand for the services: their leader and their primary.
#[derive(Clone, Debug)]
pub struct Present {
    /// What the directory says. `None`: nothing.
    pub records: Option<Records>,
    /// The directory's.
    pub directory: Option<NodeId>,
    /// The ledger's.
    pub ledger: Option<NodeId>,
    /// The bus's.
    pub bus: Option<NodeId>,
}

impl Roles for Present {
    fn orchestrator_leader(&self) -> Option<NodeId> {
        self.records.as_ref()?.leader().map(|(node, _)| node)
    }

    fn directory_leader(&self) -> Option<NodeId> {
        self.directory
    }

    fn ledger_primary(&self) -> Option<NodeId> {
        self.ledger
    }

    fn bus_leader(&self) -> Option<NodeId> {
        self.bus
    }

    fn owner(&self, entity: EntityId) -> Option<NodeId> {
        let records = self.records.as_ref()?;
        let owner = records.0.iter().find_map(|record| match (record.key, record.value) {
            (Key::Owner(owned), Value::Owner(ownership)) if owned == entity => Some(ownership.lease),
            _ => None,
        })?;
        records.worker(|lease, _| lease == owner).map(|(_, node)| node)
    }
}

impl Now for Present {
    fn lease(&self, node: NodeId) -> Option<LeaseId> {
        let records = self.records.as_ref()?;
        let leader = records.leader().filter(|&(leader, _)| leader == node).map(|(_, lease)| lease);
        leader.or_else(|| records.worker(|_, at| at == node).map(|(lease, _)| lease))
    }
}
