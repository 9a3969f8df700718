//! The cost model: what an event costs a server, as it was measured. The figures stand in `scenarios/cost-model.toml`, which
//! `ci/calibrate` measures anew.
//!
//! They are the roles' own work. What sockets, encryption and encoding add on a real host is not in them.
//!
//! Deliberately absent: players' machines, whose time nobody waits for but themselves.

use crate::nodes::Kind;
use serde::{Deserialize, Serialize};
use std::sync::LazyLock;
use worldline_sim::{Charge, Cost};
use worldline_system::time::Duration;

/// The figures of every server role.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// Of a gateway.
    pub gateway: Figures,
    /// Of a worker.
    pub worker: Figures,
    /// Of an orchestrator.
    pub orchestrator: Figures,
    /// Of a replica.
    #[serde(default)]
    pub replica: Figures,
}

/// What each kind of event costs one role.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Figures {
    /// A timer.
    pub timer: Figure,
    /// A datagram or a stream message.
    pub message: Figure,
    /// Any other event of the network.
    pub call: Figure,
    /// News or an answer of the directory.
    pub directory: Figure,
    /// An answer of the ledger.
    pub ledger: Figure,
    /// An answer or a message of the bus.
    pub bus: Figure,
    /// An answer of the cache.
    pub cache: Figure,
}

/// Nanoseconds of a core.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Figure {
    /// For the event.
    pub event: u64,
    /// For each submission that it leaves.
    pub submission: u64,
}

impl From<Figure> for Charge {
    fn from(figure: Figure) -> Self {
        Self { event: Duration::from_nanos(figure.event), submission: Duration::from_nanos(figure.submission) }
    }
}

impl From<Figures> for Cost {
    fn from(figures: Figures) -> Self {
        Self {
            timer: figures.timer.into(),
            message: figures.message.into(),
            call: figures.call.into(),
            directory: figures.directory.into(),
            ledger: figures.ledger.into(),
            bus: figures.bus.into(),
            cache: figures.cache.into(),
        }
    }
}

static MODEL: LazyLock<Model> =
    LazyLock::new(|| toml::from_str(include_str!("../cost-model.toml")).expect("the committed cost model is valid"));

/// What an event costs a node of this kind. `None` is nothing.
pub(crate) fn of(kind: Kind) -> Option<Cost> {
    match kind {
        Kind::Gateway(..) => Some(MODEL.gateway.into()),
        Kind::Worker(..) => Some(MODEL.worker.into()),
        Kind::Orchestrator(_) => Some(MODEL.orchestrator.into()),
        Kind::Replica(_) => Some(MODEL.replica.into()),
        Kind::Directory(_) | Kind::Ledger(_) | Kind::Bus(_) | Kind::Cache(..) => None,
        Kind::Player(..) | Kind::Double(..) | Kind::Operator(..) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_model_is_measured_for_every_kind_that_happens() {
        let Model { gateway, worker, orchestrator, replica } = *MODEL;
        let worker =
            [worker.timer, worker.message, worker.call, worker.directory, worker.ledger, worker.bus, worker.cache];
        let gateway = [gateway.timer, gateway.message, gateway.call, gateway.directory, gateway.ledger, gateway.cache];
        let others = [orchestrator.timer, orchestrator.directory, orchestrator.ledger, replica.bus, replica.ledger];
        for figure in worker.into_iter().chain(gateway).chain(others) {
            assert!(figure.event > 0, "{MODEL:?}");
        }
    }
}
