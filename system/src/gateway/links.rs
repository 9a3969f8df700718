//! Connections to workers, opened on demand, one a worker.

use super::Submission;
use crate::{Turn, doors::network::CloseReason};
use alloc::collections::BTreeMap;
use worldline_proto::{ConnectionId, NodeId, OpId};

/// The links of a gateway.
#[derive(Clone, Debug, Default)]
pub(super) struct Links {
    open: BTreeMap<NodeId, ConnectionId>,
    nodes: BTreeMap<ConnectionId, NodeId>,
    opening: BTreeMap<OpId, NodeId>,
}

impl Links {
    /// The open connection to a worker.
    pub fn get(&self, node: NodeId) -> Option<ConnectionId> {
        self.open.get(&node).copied()
    }

    /// The worker at the other end of a connection; `None` if it is no link.
    pub fn node(&self, connection: ConnectionId) -> Option<NodeId> {
        self.nodes.get(&connection).copied()
    }

    /// Opens a link unless it is open or opening.
    pub fn connect(&mut self, node: NodeId, turn: &mut Turn<'_, Submission>) {
        if !self.open.contains_key(&node) && !self.opening.values().any(|&n| n == node) {
            self.opening.insert(turn.connect(node), node);
        }
    }

    /// A link stands. Returns to whom.
    pub fn on_opened(&mut self, op: OpId, connection: ConnectionId) -> Option<NodeId> {
        let node = self.opening.remove(&op)?;
        self.open.insert(node, connection);
        self.nodes.insert(connection, node);
        Some(node)
    }

    /// A link could not be opened. Returns to whom.
    pub fn on_not_opened(&mut self, op: OpId, _: CloseReason) -> Option<NodeId> {
        self.opening.remove(&op)
    }

    /// A connection has ended. Returns to whom it was, if it was a link.
    pub fn on_closed(&mut self, connection: ConnectionId) -> Option<NodeId> {
        let node = self.nodes.remove(&connection)?;
        self.open.remove(&node);
        Some(node)
    }
}
