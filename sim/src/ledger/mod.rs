//! The ledger model. A placeholder until the model lands: it answers nothing.

use crate::{Core, NodeChange};
use worldline_proto::{NodeId, OpId};
use worldline_system::{doors::ledger::Submission, time::Instant};

/// Members and times.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// The members, already nodes of the world.
    pub members: Vec<NodeId>,
}

/// The ledger.
#[derive(Clone, Debug, Default)]
pub struct Model;

/// What waits in the queue.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Item {}

/// What can go wrong in it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Fault {}

impl Model {
    /// A ledger of these members.
    #[must_use]
    pub fn new(_: Config) -> Self {
        Self
    }

    /// Called once, before the first event.
    pub fn start(&mut self, _: &mut Core) {}

    /// A node submits.
    pub fn submit(&mut self, _: &mut Core, _: NodeId, _: OpId, _: Instant, _: Submission) {}

    /// Something scheduled has come.
    pub fn on_item(&mut self, _: &mut Core, _: NodeId, item: Item) {
        match item {}
    }

    /// A node has changed.
    pub fn on_node(&mut self, _: &mut Core, _: NodeId, _: NodeChange) {}

    /// A fault begins.
    pub fn inject(&mut self, _: &mut Core, fault: Fault) {
        match fault {}
    }

    /// Every fault ends.
    pub fn heal(&mut self, _: &mut Core) {}
}
