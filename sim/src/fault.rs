//! What can be done to a world. Each fault is an event with an id of its own and no cause.

use crate::{
    bus, cache,
    core::Core,
    directory, ledger,
    network::link::{Disturbance, Effect},
    node::NodeState,
};
use worldline_proto::NodeId;
use worldline_system::{history::What, time::Duration};

/// Something that goes wrong, or right again.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// Power loss: the node is gone and says nothing. Peers find out by their own timeouts.
    Crash {
        /// Which.
        node: NodeId,
    },
    /// The process dies and the machine lives: connections are reset at once, calls sent become unknown.
    Kill {
        /// Which.
        node: NodeId,
    },
    /// SIGTERM: the role is told to stop, and the process ends when it says so.
    Stop {
        /// Which.
        node: NodeId,
    },
    /// A new incarnation from the node's birth state. A running process is killed first.
    Restart {
        /// Which.
        node: NodeId,
    },
    /// SIGSTOP: nothing happens in the process; its clocks go on; what arrives waits.
    Pause {
        /// Which.
        node: NodeId,
    },
    /// SIGCONT. What was held between outbox and socket leaves first.
    Resume {
        /// Which.
        node: NodeId,
    },
    /// Handling an event takes so many times as long; 1000 is normal. Shows only with a cost model, which it multiplies.
    Slow {
        /// Which.
        node: NodeId,
        /// How slow.
        permille: u32,
    },
    /// Power loss after so many more submissions to a door: between two of one event.
    CrashAfterSubmissions {
        /// Which.
        node: NodeId,
        /// Which submissions count.
        which: Which,
        /// How many still leave.
        n: u32,
    },
    /// Stops the node between outbox and socket: the next outbox of this kind stays where it is until the node is resumed,
    /// and then leaves as it was.
    HoldOutbox {
        /// Which.
        node: NodeId,
        /// By what it holds.
        which: Which,
    },
    /// Something about a node's clocks.
    Clock {
        /// Whose.
        node: NodeId,
        /// What.
        fault: ClockFault,
    },
    /// No packet passes from any of these to any of those.
    Cut {
        /// Names it for [`Fault::Uncut`].
        id: u32,
        /// Senders.
        from: Vec<NodeId>,
        /// Receivers.
        to: Vec<NodeId>,
        /// The other direction too.
        both: bool,
    },
    /// Packets from any of these to any of those are lost, doubled and delayed, on top of what their links do.
    Degrade {
        /// Names it for [`Fault::Uncut`].
        id: u32,
        /// Senders.
        from: Vec<NodeId>,
        /// Receivers.
        to: Vec<NodeId>,
        /// The other direction too.
        both: bool,
        /// Packets lost, of a thousand.
        loss_permille: u32,
        /// Packets doubled, of a thousand.
        duplicate_permille: u32,
        /// Every packet takes this much longer.
        delay: Duration,
        /// And up to this much longer, each its own.
        jitter: Duration,
    },
    /// Ends the cuts and degradations of this id.
    Uncut {
        /// Which.
        id: u32,
    },
    /// To the directory.
    Directory(directory::Fault),
    /// To the ledger.
    Ledger(ledger::Fault),
    /// To the bus.
    Bus(bus::Fault),
    /// To the caches.
    Cache(cache::Fault),
    /// Every fault ends. Cuts, degradations, slowness and pauses go, frozen clocks run, services recover, and faults that
    /// wait for an outbox are forgotten. Clocks keep their drift; dead nodes stay dead.
    Heal,
}

/// Something about a node's clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ClockFault {
    /// Monotonic and wall clock jump forward: the machine was suspended.
    StepForward(Duration),
    /// The clocks run fast or slow from now on, in parts per million against virtual time.
    Drift {
        /// At most half a million either way.
        ppm: i32,
    },
    /// The clocks stand still.
    Freeze,
    /// They go on from where they stood.
    Unfreeze,
    /// The wall clock alone is set forward or back.
    StepWall {
        /// By so many ns.
        by_ns: i64,
    },
}

/// Which submissions a fault of an outbox waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Which {
    /// Those to any door.
    Any,
    /// Commits to the ledger.
    LedgerCommit,
    /// Transactions of the directory: claims, registrations, campaigns, takeovers.
    DirectoryTransaction,
}

impl Fault {
    /// The node it concerns, if it is one.
    #[must_use]
    pub fn node(&self) -> Option<NodeId> {
        match *self {
            Self::Crash { node }
            | Self::Kill { node }
            | Self::Stop { node }
            | Self::Restart { node }
            | Self::Pause { node }
            | Self::Resume { node }
            | Self::Slow { node, .. }
            | Self::CrashAfterSubmissions { node, .. }
            | Self::HoldOutbox { node, .. }
            | Self::Clock { node, .. } => Some(node),
            _ => None,
        }
    }
}

impl Core {
    /// What a fault does that concerns neither roles nor services.
    pub(crate) fn disturb(&mut self, id: u32, from: &[NodeId], to: &[NodeId], both: bool, effect: Effect) {
        self.network.disturbances.push(Disturbance::new(id, from, to, both, effect));
    }

    pub(crate) fn clock_fault(&mut self, node: NodeId, fault: ClockFault) {
        let now = self.now;
        let clock = &mut self.nodes[node.0 as usize].clock;
        match fault {
            ClockFault::StepForward(by) => clock.step_forward(now, by),
            ClockFault::Drift { ppm } => clock.drift(now, ppm),
            ClockFault::Freeze => clock.freeze(now, true),
            ClockFault::Unfreeze => clock.freeze(now, false),
            ClockFault::StepWall { by_ns } => clock.step_wall(by_ns),
        }
        self.clock_changed(node);
    }

    /// Power loss.
    pub(crate) fn crash(&mut self, node: NodeId) {
        self.end_process(node, NodeState::Down, What::Crashed, None);
    }

    /// Takes away all but what the caller sees to: paused nodes and the services.
    pub(crate) fn heal(&mut self, node: NodeId) {
        self.clock_fault(node, ClockFault::Unfreeze);
        let entry = &mut self.nodes[node.0 as usize];
        entry.slow_permille = 1_000;
        entry.cold.crash_after = None;
        entry.cold.hold = None;
        entry.settle();
    }
}
