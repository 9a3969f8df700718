//! What a fault does to a world.

use super::{Step, StepKind, World};
use crate::{
    fault::Fault,
    host::Actor,
    network::link::Effect,
    node::{NodeChange, NodeState},
};
use std::hash::Hash;
use worldline_proto::NodeId;
use worldline_system::{
    doors::{self, network},
    history::{EventId, What},
};

impl<A: Actor> World<A> {
    /// Does this to the world, now: an event with an id of its own and no cause.
    pub fn inject(&mut self, fault: Fault) -> Step {
        let node = fault.node().unwrap_or_default();
        let (cause, kind) = (EventId::default(), StepKind::Fault);
        self.begin(cause, node, kind);
        fault.hash(&mut self.core.hash);
        let text = if self.tracing { format!("{fault:?}") } else { String::new() };
        if !self.actors.is_empty() {
            let what = if fault == Fault::Heal { What::Healed } else { What::FaultInjected(self.faults) };
            self.core.record(node, what);
        }
        self.faults += u32::from(fault != Fault::Heal);
        self.apply(fault);
        Step { id: self.core.event, cause, at: self.core.now, node, kind, text }
    }

    pub(super) fn apply(&mut self, fault: Fault) {
        let core = &mut self.core;
        match fault {
            Fault::Crash { node } => self.crash(node),
            Fault::Kill { node } => self.kill(node),
            Fault::Stop { node } => {
                if core.is_up(node) {
                    core.tell(node, doors::Event::Stop);
                }
            }
            Fault::Restart { node } => {
                if core.is_up(node) {
                    self.kill(node);
                }
                self.start(node);
            }
            Fault::Pause { node } => self.pause(node),
            Fault::Resume { node } => self.resume(node),
            Fault::Slow { node, permille } => core.nodes[node.0 as usize].slow_permille = permille,
            Fault::CrashAfterSubmissions { node, which, n } => core.await_outbox(node, Some((which, n)), None),
            Fault::HoldOutbox { node, which } => core.await_outbox(node, None, Some(which)),
            Fault::Clock { node, fault } => core.clock_fault(node, fault),
            Fault::Cut { id, from, to, both } => core.disturb(id, &from, &to, both, Effect::Cut),
            Fault::Degrade { id, from, to, both, loss_permille, duplicate_permille, delay, jitter } => {
                let effect = Effect::Degrade { loss_permille, duplicate_permille, delay, jitter };
                core.disturb(id, &from, &to, both, effect);
            }
            Fault::Uncut { id } => core.network.disturbances.retain(|disturbance| disturbance.id != id),
            Fault::Directory(fault) => {
                if let Some(model) = &mut self.directory {
                    model.inject(core, fault);
                }
            }
            Fault::Ledger(fault) => {
                if let Some(model) = &mut self.ledger {
                    model.inject(core, fault);
                }
            }
            Fault::Cache(fault) => {
                if let Some(model) = &mut self.cache {
                    model.inject(core, fault);
                }
            }
            Fault::Bus(fault) => {
                if let Some(model) = &mut self.bus {
                    model.inject(core, fault);
                }
            }
            Fault::Heal => self.heal(),
        }
    }

    pub(super) fn heal(&mut self) {
        self.core.network.disturbances.clear();
        for node in (0..self.actors.len() as u32).map(NodeId) {
            self.core.heal(node);
            self.resume(node);
        }
        if let Some(model) = &mut self.directory {
            model.heal(&mut self.core);
        }
        if let Some(model) = &mut self.ledger {
            model.heal(&mut self.core);
        }
        if let Some(model) = &mut self.bus {
            model.heal(&mut self.core);
        }
        if let Some(model) = &mut self.cache {
            model.heal(&mut self.core);
        }
    }

    pub(super) fn crash(&mut self, node: NodeId) {
        if self.core.is_up(node) {
            self.core.crash(node);
            self.changed(node, NodeChange::Crashed { power: true });
        }
    }

    pub(super) fn kill(&mut self, node: NodeId) {
        if self.core.is_up(node) {
            self.core.end_process(node, NodeState::Stopped, What::Crashed, Some(network::CloseReason::Reset));
            self.changed(node, NodeChange::Crashed { power: false });
        }
    }

    pub(super) fn pause(&mut self, node: NodeId) {
        if self.core.pause(node) {
            self.changed(node, NodeChange::Paused);
        }
    }

    pub(super) fn resume(&mut self, node: NodeId) {
        if !self.core.resume(node) {
            return;
        }
        self.changed(node, NodeChange::Resumed);
        for submission in std::mem::take(&mut self.core.nodes[node.0 as usize].cold.held) {
            self.transmit(node, submission);
        }
    }

    pub(super) fn changed(&mut self, node: NodeId, change: NodeChange) {
        if let Some(model) = &mut self.directory {
            model.on_node(&mut self.core, node, change);
        }
        if let Some(model) = &mut self.ledger {
            model.on_node(&mut self.core, node, change);
        }
        if let Some(model) = &mut self.bus {
            model.on_node(&mut self.core, node, change);
        }
        if let Some(model) = &mut self.cache {
            model.on_node(&mut self.core, node, change);
        }
    }
}
