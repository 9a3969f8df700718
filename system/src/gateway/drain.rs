//! An orderly stop: nobody is taken in any more, everybody is asked to go on at another gateway, and each is served until
//! it has left.
//!
//! Invariant: an operation that is under way when a drain begins is still answered here, or again elsewhere: its client
//! keeps its number until it has the answer.
//!
//! Deliberately absent: a handover of sessions. There is nothing to hand over; a session begins anew from the ledger.

use super::{Gateway, Submission, Timer, session::send};
use crate::{
    Turn,
    doors::{
        network::{CloseReason, StreamClass},
        telemetry::Metric,
    },
    history::Note,
    reached,
    time::Duration,
};
use alloc::vec::Vec;
use worldline_proto::{
    ConnectionId,
    client::{DeniedReason, Move, MoveReason, gateway_frame::Frame},
};

/// How long a gateway that drains waits for its clients to leave. Longer than their spread and a slow handshake elsewhere.
const DRAIN_PATIENCE: Duration = Duration::from_secs(10);

/// An orderly stop that is under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Drain;

impl Gateway {
    /// Whether it is about to stop.
    #[must_use]
    pub const fn drains(&self) -> bool {
        self.drain.is_some()
    }

    pub(super) fn begin_drain(&mut self, turn: &mut Turn<'_, Submission>) {
        if self.drain.is_some() {
            return;
        }
        let strangers: Vec<ConnectionId> = self.greeting.keys().copied().collect();
        let unwelcomed =
            self.sessions.iter().filter(|(_, session)| !session.welcomed).map(|(&connection, _)| connection);
        for connection in strangers.into_iter().chain(unwelcomed.collect::<Vec<_>>()) {
            self.deny(connection, DeniedReason::Draining, turn);
        }
        self.drain = Some(Drain);
        turn.count(Metric::GatewayDrainsTotal, &[], 1);
        turn.note(Note::Draining { sessions: self.sessions.len() as u32 });
        let clients: Vec<ConnectionId> = self.sessions.keys().copied().collect();
        for connection in clients {
            self.ask_to_move(connection, MoveReason::Draining, turn);
        }
        turn.arm_in(Timer::Drain, DRAIN_PATIENCE);
        self.go_on_draining(turn);
    }

    /// A client has left: the last one lets the gateway stop.
    pub(super) fn go_on_draining(&mut self, turn: &mut Turn<'_, Submission>) {
        if self.drain.is_some() && self.sessions.is_empty() && self.greeting.is_empty() {
            reached!(turn, "gateway.drained");
            turn.stopped();
        }
    }

    /// Who has not left by now is cut off, and begins anew elsewhere as after a crash.
    pub(super) fn end_drain(&mut self, turn: &mut Turn<'_, Submission>) {
        reached!(turn, "gateway.drain-cut-off");
        let clients: Vec<ConnectionId> = self.sessions.keys().chain(self.greeting.keys()).copied().collect();
        for connection in clients {
            self.close(connection, CloseReason::Closed, turn);
        }
    }

    /// Asks a client to go on elsewhere: within the region while this gateway stops, in another region first where the
    /// owner cannot be reached from here.
    pub(super) fn ask_to_move(
        &mut self,
        connection: ConnectionId,
        reason: MoveReason,
        turn: &mut Turn<'_, Submission>,
    ) {
        let mut gateways: Vec<u32> = self.config.alternates.iter().map(|node| node.0).collect();
        if reason == MoveReason::OwnerUnreachable {
            gateways.reverse();
        }
        let asked = Move { reason: reason.into(), gateways };
        send(connection, StreamClass::Control, Frame::Move(asked), turn);
    }
}
