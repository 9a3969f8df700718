//! From a role's outbox to the doors: a prefix of it where the node crashes in between, nothing where it is held.

use super::World;
use crate::{
    fault::Which,
    host::Actor,
    node::{NodeChange, NodeState},
    operations::Kind,
};
use worldline_proto::NodeId;
use worldline_system::{
    Refusal,
    doors::{self, Asked, Submission, directory, ledger, network},
    history::{Invocation, What},
    outcome::End,
    time::Instant,
};

impl<A: Actor> World<A> {
    /// Gives an outbox of several submissions, or one that a fault waits for, to the doors.
    #[inline(never)]
    pub(super) fn flush(&mut self, node: NodeId) {
        let mut outbox = std::mem::take(&mut self.outbox);
        if self.core.nodes[node.0 as usize].undisturbed() {
            for submission in outbox.drain(..) {
                self.submit(node, submission);
                // `Stopped` ends the process: what a role submits after it does not leave.
                if !self.core.is_up(node) {
                    break;
                }
            }
        } else {
            self.flush_disturbed(node, &mut outbox);
        }
        outbox.clear();
        self.outbox = outbox;
    }

    /// An outbox that a fault waits for.
    #[cold]
    pub(super) fn flush_disturbed(&mut self, node: NodeId, outbox: &mut Vec<Submission>) {
        let cold = &mut self.core.nodes[node.0 as usize].cold;
        if cold.hold.is_some_and(|which| outbox.iter().any(|submission| counts(which, submission))) {
            cold.hold = None;
            for submission in outbox.drain(..) {
                if !is_for_door(&submission) {
                    self.submit(node, submission);
                } else if self.register(node, &submission) {
                    self.core.nodes[node.0 as usize].cold.held.push(submission);
                }
            }
            self.pause(node);
            return;
        }
        for submission in outbox.drain(..) {
            let cold = &mut self.core.nodes[node.0 as usize].cold;
            if let Some((which, left)) = &mut cold.crash_after
                && counts(*which, &submission)
            {
                if *left == 0 {
                    self.crash(node);
                    break;
                }
                *left -= 1;
            }
            self.submit(node, submission);
            if !self.core.is_up(node) {
                break;
            }
        }
    }

    /// One submission, from the outbox to its door.
    #[inline(always)]
    pub(super) fn submit(&mut self, node: NodeId, submission: Submission) {
        match submission {
            Submission::Network(network::Submission::Datagram { connection, payload }) => {
                self.core.send_datagram(node, connection, payload);
            }
            other => self.submit_rarer(node, other),
        }
    }

    #[inline(never)]
    pub(super) fn submit_rarer(&mut self, node: NodeId, submission: Submission) {
        if self.register(node, &submission) {
            self.transmit(node, submission);
        }
    }

    /// Reserves the slot of the answer and writes the history. `false` where the operation was refused for want of a slot.
    pub(super) fn register(&mut self, node: NodeId, submission: &Submission) -> bool {
        let core = &mut self.core;
        match submission {
            Submission::Network(network::Submission::Connect { op, .. }) => {
                core.reserve(node, *op, Instant::from_nanos(u64::MAX), Kind::Connect)
            }
            Submission::Network(network::Submission::Call(call)) => {
                core.reserve(node, call.op, call.deadline, Kind::Call { via: None })
            }
            Submission::Directory(Asked { op, deadline, submission }) => {
                core.invoked(node, *op, Invocation::Directory(submission.clone()));
                core.reserve(node, *op, *deadline, Kind::Directory(submission.into()))
            }
            Submission::Ledger(Asked { op, deadline, submission }) => {
                core.invoked(node, *op, Invocation::Ledger(submission.clone()));
                core.reserve(node, *op, *deadline, Kind::Ledger(submission.into()))
            }
            Submission::Bus(Asked { op, deadline, submission }) => {
                if matches!(submission, doors::bus::Submission::Publish { .. }) {
                    core.invoked(node, *op, Invocation::Bus(submission.clone()));
                }
                core.reserve(node, *op, *deadline, Kind::Bus(submission.into()))
            }
            Submission::Cache(Asked { op, deadline, submission }) => {
                core.invoked(node, *op, Invocation::Cache(submission.clone()));
                core.reserve(node, *op, *deadline, Kind::Cache(submission.into()))
            }
            _ => true,
        }
    }

    pub(super) fn transmit(&mut self, node: NodeId, submission: Submission) {
        let core = &mut self.core;
        match submission {
            Submission::Arm { key, at } => core.arm(node, key, at),
            Submission::Disarm(key) => core.disarm(node, key),
            Submission::Note(note) => core.record(node, What::Noted(*note)),
            Submission::Stopped => {
                core.end_process(node, NodeState::Stopped, What::Stopped, Some(network::CloseReason::Closed));
                self.changed(node, NodeChange::Crashed { power: false });
            }
            Submission::Network(what) => match what {
                network::Submission::Datagram { connection, payload } => core.send_datagram(node, connection, payload),
                network::Submission::Send { connection, class, payload } => core.send(node, connection, class, payload),
                network::Submission::Connect { op, to } => core.connect(node, op, to),
                network::Submission::Close { connection, reason } => core.close(node, connection, reason),
                network::Submission::Call(call) => core.call(node, call),
                network::Submission::Reply { call, outcome } => core.reply(node, call, outcome),
            },
            Submission::Directory(Asked { op, deadline, submission }) => match &mut self.directory {
                Some(model) => model.submit(core, node, op, core.due(node, deadline), submission),
                None => core.give_up(node, op, End::Refused(Refusal::Unreachable)),
            },
            Submission::Ledger(Asked { op, deadline, submission }) => match &mut self.ledger {
                Some(model) => model.submit(core, node, op, core.due(node, deadline), submission),
                None => core.give_up(node, op, End::Refused(Refusal::Unreachable)),
            },
            Submission::Bus(Asked { op, deadline, submission }) => match &mut self.bus {
                Some(model) => model.submit(core, node, op, core.due(node, deadline), submission),
                None => core.give_up(node, op, End::Refused(Refusal::Unreachable)),
            },
            Submission::Cache(Asked { op, submission, .. }) => match &mut self.cache {
                Some(model) => model.submit(core, node, op, submission),
                None => core.give_up(node, op, End::Refused(Refusal::Unreachable)),
            },
        }
    }
}

fn is_for_door(submission: &Submission) -> bool {
    match submission {
        Submission::Network(_)
        | Submission::Directory(_)
        | Submission::Ledger(_)
        | Submission::Bus(_)
        | Submission::Cache(_) => true,
        Submission::Arm { .. } | Submission::Disarm(_) | Submission::Note(_) | Submission::Stopped => false,
    }
}

/// Whether a fault that waits for these submissions waits for this one.
fn counts(which: Which, submission: &Submission) -> bool {
    match (which, submission) {
        (Which::Any, submission) => is_for_door(submission),
        (Which::LedgerCommit, Submission::Ledger(asked)) => matches!(asked.submission, ledger::Submission::Commit(_)),
        (Which::DirectoryTransaction, Submission::Directory(asked)) => {
            matches!(asked.submission, directory::Submission::Transact(_))
        }
        _ => false,
    }
}
