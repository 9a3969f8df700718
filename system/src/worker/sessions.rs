//! Players at their gateways: who is attached, where they move, which state leaves for them.

use super::{Phase, Submission, Worker, operations::refuse, served::Served};
use crate::{
    Refusal, Turn,
    doors::network::{self, Payload, StreamClass},
    history::Note,
    reached,
    rules::space::Position,
    time::Duration,
    wire,
};
use alloc::vec::Vec;
use worldline_proto::{
    CallId, ConnectionId, EntityId, Generation, NodeId,
    server::{
        AttachReply, AttachRequest, AttachStatus, Detached, Moved, PeerMessage, Released, ReleasedReason, Reply,
        Request, State, Suspended, peer_message::Message,
    },
};

/// States leave every so many ticks: 20 times a second.
const STATE_TICKS: u64 = 3;
/// A state that does not change is told again so often: the last one may have been lost, and no later one would tell.
const TOLD_AGAIN: Duration = Duration::from_secs(1);

impl Worker {
    pub(super) fn on_network(&mut self, event: network::Event, turn: &mut Turn<'_, Submission>) {
        match event {
            network::Event::Accepted { connection, from } => {
                if let Some(older) = self.gateways.insert(from, connection) {
                    self.peers.remove(&older);
                }
                self.peers.insert(connection, from);
            }
            network::Event::Closed { connection, .. } => self.on_gateway_gone(connection),
            network::Event::Datagram { connection, payload } | network::Event::Received { connection, payload, .. } => {
                if let Payload::Peer(message) = payload {
                    self.on_peer(connection, &message, turn);
                }
            }
            network::Event::Called { call, from, request } => match *request {
                Request::Attach(request) => self.on_attach(call, from, &request, turn),
                Request::Perform(request) => self.on_perform(call, request, turn),
                Request::ApplyEffect(request) => self.on_apply_effect(call, request, turn),
            },
            network::Event::Answered { op, outcome } => self.on_forwarded(op, *outcome, turn),
            // A worker opens no connection.
            network::Event::Opened { .. } | network::Event::NotOpened { .. } => {}
        }
    }

    fn on_gateway_gone(&mut self, connection: ConnectionId) {
        if let Some(node) = self.peers.remove(&connection)
            && self.gateways.get(&node) == Some(&connection)
        {
            self.gateways.remove(&node);
        }
        for served in self.entities.values_mut() {
            served.gateway.take_if(|gateway| *gateway == connection);
        }
    }

    fn on_peer(&mut self, connection: ConnectionId, message: &PeerMessage, turn: &mut Turn<'_, Submission>) {
        match &message.message {
            Some(Message::Moved(moved)) => self.on_moved(connection, moved, turn),
            Some(Message::Detached(Detached { character, generation })) => {
                let served = EntityId::from_raw(*character).and_then(|entity| self.entities.get_mut(&entity));
                let Some(served) = served.filter(|served| served.generation == Generation(*generation)) else { return };
                let left = served.gateway.take_if(|gateway| *gateway == connection).is_some();
                if let Some(member) = served.character().filter(|_| left) {
                    self.leave_presence(member, turn);
                }
            }
            // The rest is what a worker or a replica says to a gateway.
            Some(Message::State(_) | Message::Released(_) | Message::Suspended(_) | Message::Global(_)) | None => {}
        }
    }

    fn on_attach(&mut self, call: CallId, from: NodeId, request: &AttachRequest, turn: &mut Turn<'_, Submission>) {
        if self.phase != Phase::Active || !self.acts(turn.now()) {
            return refuse(call, Refusal::NotServing, turn);
        }
        let Some(&connection) = self.gateways.get(&from) else { return refuse(call, Refusal::NotServing, turn) };
        let served = EntityId::from_raw(request.character).and_then(|entity| self.entities.get_mut(&entity));
        let Some(served) = served else {
            let reply = AttachReply { status: AttachStatus::NotOwner.into(), ..Default::default() };
            return wire::reply(call, Reply::Attach(reply), turn);
        };
        let generation = Generation(request.generation);
        let status = if generation < served.generation {
            reached!(turn, "worker.stale-session-refused");
            AttachStatus::Superseded
        } else {
            served.heard_of(generation);
            let older = served.gateway.replace(connection).filter(|&older| older != connection);
            if let Some(older) = older {
                release_to(older, served, ReleasedReason::Superseded, turn);
            }
            served.inputs_through = served.inputs_through.max(request.inputs_through);
            served.stale = true;
            served.placed_until = turn.now();
            AttachStatus::Attached
        };
        let reply = AttachReply {
            status: status.into(),
            generation: served.generation.0,
            epoch: served.authority.epoch.0,
            applied_through: served.applied_through.0,
            x_mm: served.position.x_mm,
            y_mm: served.position.y_mm,
            version: served.version.0,
        };
        wire::reply(call, Reply::Attach(reply), turn);
    }

    fn on_moved(&mut self, connection: ConnectionId, moved: &Moved, turn: &mut Turn<'_, Submission>) {
        if self.phase != Phase::Active || !self.acts(turn.now()) {
            return;
        }
        let generation = Generation(moved.generation);
        let served = EntityId::from_raw(moved.character).and_then(|entity| self.entities.get_mut(&entity));
        let attached = |served: &&mut Served| served.generation >= generation;
        let Some(served) = served.filter(attached) else { return send_back(connection, moved, turn) };
        if generation < served.generation {
            reached!(turn, "worker.stale-session-refused");
            return;
        }
        if served.gateway != Some(connection) {
            return send_back(connection, moved, turn);
        }
        if moved.sequence <= served.sequence.max(served.inputs_through) {
            // A doubled or overtaken datagram: movement is applied at most once.
            return;
        }
        served.sequence = moved.sequence;
        served.stale = true;
        let (from, to) = (served.position, Position { x_mm: moved.x_mm, y_mm: moved.y_mm });
        if served.speed.pay(from, to, turn.now()).is_err() {
            // The state that leaves next tells the client where it really is.
            reached!(turn, "worker.speed-refused");
            if let Some(character) = served.character() {
                self.watch.refused(character, from, to);
            }
            return;
        }
        served.position = to;
        turn.note(Note::Moved { authority: served.authority, generation, sequence: moved.sequence, from, to });
    }

    /// Sends what has changed to the gateways of the players it concerns.
    pub(super) fn emit_states(&mut self, turn: &mut Turn<'_, Submission>) {
        if !self.tick.is_multiple_of(STATE_TICKS) {
            return;
        }
        let now = turn.now();
        for served in self.entities.values_mut().filter(|served| served.stale || served.told_again <= now) {
            let Some(connection) = served.gateway else { continue };
            (served.stale, served.told_again) = (false, now + TOLD_AGAIN);
            let version = served.next_version();
            turn.note(Note::Emitted { authority: served.authority, version });
            let state = State {
                entity: served.authority.entity.get(),
                epoch: served.authority.epoch.0,
                version: version.0,
                sequence: served.sequence,
                x_mm: served.position.x_mm,
                y_mm: served.position.y_mm,
                hit_points: served.hit_points,
            };
            let payload = PeerMessage { message: Some(Message::State(state)) }.into();
            turn.submit(network::Submission::Datagram { connection, payload });
        }
    }

    /// Tells an entity's gateway that it is no longer served here.
    pub(super) fn release(&mut self, served: &Served, turn: &mut Turn<'_, Submission>) {
        if let Some(gateway) = served.gateway {
            release_to(gateway, served, ReleasedReason::NotOwner, turn);
        }
    }

    pub(super) fn tell_gateways_suspended(&mut self, suspended: bool, turn: &mut Turn<'_, Submission>) {
        let gateways: Vec<ConnectionId> = self.gateways.values().copied().collect();
        for connection in gateways {
            let message = PeerMessage { message: Some(Message::Suspended(Suspended { suspended })) };
            send_control(connection, message, turn);
        }
    }
}

/// Tells a gateway that a session is no longer served here, and why.
pub(super) fn release_to(
    connection: ConnectionId,
    served: &Served,
    reason: ReleasedReason,
    turn: &mut Turn<'_, Submission>,
) {
    let released =
        Released { character: served.authority.entity.get(), generation: served.generation.0, reason: reason.into() };
    send_control(connection, PeerMessage { message: Some(Message::Released(released)) }, turn);
}

/// A gateway believes that a session is attached here, and it is not: what told it so was overtaken or lost with a
/// connection. It looks for the owner and attaches again.
fn send_back(connection: ConnectionId, moved: &Moved, turn: &mut Turn<'_, Submission>) {
    let &Moved { character, generation, .. } = moved;
    let released = Released { character, generation, reason: ReleasedReason::NotOwner.into() };
    send_control(connection, PeerMessage { message: Some(Message::Released(released)) }, turn);
}

fn send_control(connection: ConnectionId, message: PeerMessage, turn: &mut Turn<'_, Submission>) {
    turn.submit(network::Submission::Send { connection, class: StreamClass::Control, payload: message.into() });
}
