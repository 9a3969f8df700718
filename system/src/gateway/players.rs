//! What players send, and what their owners send back.

use super::{
    GREETING_PATIENCE, Gateway, PERFORMS_IN_FLIGHT, Performing, Submission, Timer,
    session::{Session, Stage, send},
    telemetry::Routing,
};
use crate::{
    Outcome, Turn,
    doors::{
        network::{self, CloseReason, Payload, StreamClass},
        telemetry::SpanId,
    },
    history::Note,
    limits,
};
use alloc::vec::Vec;
use prost::Message as _;
use worldline_proto::{
    CharacterId, ConnectionId, EntityId, Epoch, Generation, NodeId, OpId, OpNumber, Version,
    client::{
        Answer, ClientFrame, DeniedReason, OperationResult, Perform, client_frame, gateway_frame::Frame,
        operation_result,
    },
    movement::{Input, Update},
    server::{
        Moved, PeerMessage, PerformReply, PerformRequest, PerformStatus, Released, ReleasedReason, Reply, Request,
        State, peer_message::Message,
    },
};

impl Gateway {
    pub(super) fn on_network(&mut self, event: network::Event, turn: &mut Turn<'_, Submission>) {
        match event {
            network::Event::Accepted { connection, .. } => self.on_accepted(connection, turn),
            network::Event::Opened { op, connection } => {
                if let Some(node) = self.links.on_opened(op, connection) {
                    self.on_replica_link(node);
                    self.on_link(node, turn);
                }
            }
            network::Event::NotOpened { op, reason } => {
                if let Some(node) = self.links.on_not_opened(op, reason) {
                    self.on_link_lost(node, turn);
                }
            }
            network::Event::Closed { connection, .. } => match self.links.on_closed(connection) {
                Some(node) => self.on_link_lost(node, turn),
                None => self.forget(connection, turn),
            },
            network::Event::Datagram { connection, payload } | network::Event::Received { connection, payload, .. }
                if self.links.node(connection).is_some() =>
            {
                if let Payload::Peer(message) = payload {
                    self.on_peer(connection, &message, turn);
                }
            }
            network::Event::Datagram { connection, payload } => {
                self.bandwidth.upstream += payload.as_bytes().map_or(0, <[u8]>::len) as u64;
                self.on_input(connection, &payload, turn);
            }
            network::Event::Received { connection, payload, .. } => {
                self.bandwidth.upstream += payload.as_bytes().map_or(0, <[u8]>::len) as u64;
                self.on_frame(connection, &payload, turn);
            }
            network::Event::Answered { op, outcome } => {
                if self.attaches.contains_key(&op) {
                    self.on_attached(op, *outcome, turn);
                } else {
                    self.on_performed(op, *outcome, turn);
                }
            }
            // A gateway serves no calls: the caller has taken it for somebody else.
            network::Event::Called { call, .. } => {
                let outcome = Outcome::Refused(crate::Refusal::Malformed).into();
                turn.submit(network::Submission::Reply { call, outcome });
            }
        }
    }

    fn on_accepted(&mut self, connection: ConnectionId, turn: &mut Turn<'_, Submission>) {
        if self.drains() {
            return self.deny(connection, DeniedReason::Draining, turn);
        }
        if self.sessions.len() + self.greeting.len() >= limits::GATEWAY_SESSIONS {
            return self.deny(connection, DeniedReason::Busy, turn);
        }
        self.greeting.insert(connection, ());
        turn.arm_in(Timer::Greeting(connection), GREETING_PATIENCE);
    }

    fn on_link(&mut self, node: NodeId, turn: &mut Turn<'_, Submission>) {
        let seeking = |session: &Session| session.stage == Stage::Seeking;
        let waiting: Vec<(ConnectionId, EntityId)> = self
            .sessions
            .iter()
            .filter(|(_, session)| seeking(session))
            .map(|(&connection, session)| (connection, session.character.entity()))
            .collect();
        for (connection, entity) in waiting {
            if self.routes.get(entity) == Some(node) {
                self.seek(connection, turn);
            }
        }
    }

    fn on_link_lost(&mut self, node: NodeId, turn: &mut Turn<'_, Submission>) {
        self.on_replica_link_lost(node, turn);
        let there = |stage: Stage| matches!(stage, Stage::Playing { node: n, .. } if n == node);
        let lost: Vec<(ConnectionId, EntityId)> = self
            .sessions
            .iter()
            .filter(|(_, session)| there(session.stage))
            .map(|(&connection, session)| (connection, session.character.entity()))
            .collect();
        for (connection, entity) in lost {
            self.routes.forget(entity);
            self.notice(connection, true, turn);
            self.seek(connection, turn);
        }
    }

    /// A frame on one of a client's streams.
    fn on_frame(&mut self, connection: ConnectionId, payload: &Payload, turn: &mut Turn<'_, Submission>) {
        let frame = payload.as_bytes().and_then(|bytes| ClientFrame::decode(bytes).ok()).and_then(|frame| frame.frame);
        let Some(frame) = frame else { return self.close(connection, CloseReason::ProtocolError, turn) };
        let now = turn.now();
        if self.sessions.get_mut(&connection).is_some_and(|session| !session.pays_for_a_frame(now)) {
            // A flood: what was asked is asked again by an honest client, later.
            return;
        }
        match frame {
            client_frame::Frame::Hello(hello) => self.on_hello(connection, &hello, turn),
            client_frame::Frame::Perform(perform) => self.on_perform(connection, perform, turn),
            client_frame::Frame::Farewell(_) => self.close(connection, CloseReason::Closed, turn),
        }
    }

    fn on_perform(&mut self, connection: ConnectionId, perform: Perform, turn: &mut Turn<'_, Submission>) {
        let Some(session) = self.sessions.get(&connection) else {
            return self.close(connection, CloseReason::ProtocolError, turn);
        };
        // While nobody serves the character, or the session may have ended, or too much is under way, the client's resend is
        // the queue.
        let Stage::Playing { node, .. } = session.stage else { return };
        if !session.may_act(turn.now()) {
            return;
        }
        if self.performs.len() >= PERFORMS_IN_FLIGHT {
            return;
        }
        let (character, parent) = (session.character, SpanId::from_wire(perform.span));
        let elsewhere = self.routes.region(character.entity()).filter(|region| *region != self.config.region);
        let op = turn.next_op();
        let routing =
            Routing::new(character, OpNumber(perform.number), (turn.node(), op), parent, elsewhere, turn.now());
        let request = PerformRequest {
            character: character.entity().get(),
            generation: session.generation.0,
            number: perform.number,
            action: perform.action,
            span: routing.handed_on().0,
        };
        turn.call_as(op, node, Request::Perform(request), limits::CALL_PATIENCE);
        self.performs.insert(op, Performing { connection, number: OpNumber(perform.number), node, routing });
    }

    fn on_performed(&mut self, op: OpId, outcome: Outcome<Reply>, turn: &mut Turn<'_, Submission>) {
        let Some(Performing { connection, number, node, routing }) = self.performs.remove(&op) else { return };
        self.tell_routed(&routing, &outcome, turn);
        let Some(session) = self.sessions.get(&connection) else { return };
        let entity = session.character.entity();
        // A session may have moved on by now; what its owner before says of the route is of no interest then.
        let there = matches!(session.stage, Stage::Playing { node: n, .. } if n == node);
        let reply = match outcome {
            Outcome::Done(Reply::Perform(reply)) => reply,
            // It may have happened: the client asks again, and a stored result answers it. The owner may be gone.
            Outcome::Unknown if there => {
                self.routes.forget(entity);
                return self.read_route_again(connection, turn);
            }
            Outcome::Unknown | Outcome::Refused(_) | Outcome::Done(_) => return,
        };
        match PerformStatus::try_from(reply.status) {
            Ok(PerformStatus::Stored) => self.answer(connection, number, reply, turn),
            Ok(PerformStatus::Conflict) => {
                let result = OperationResult { result: Some(operation_result::Result::Conflict(true)) };
                self.answer(connection, number, PerformReply { result: Some(result), ..reply }, turn);
            }
            Ok(PerformStatus::Superseded) => self.end_session(connection, turn),
            Ok(PerformStatus::NotOwner) if there => {
                crate::reached!(turn, "gateway.redirected");
                self.routes.forget(entity);
                self.seek(connection, turn);
            }
            // The client sends what is missing again, in order; what is forgotten it has long been told.
            Ok(
                PerformStatus::NotOwner | PerformStatus::Gap | PerformStatus::Forgotten | PerformStatus::Unspecified,
            )
            | Err(_) => {}
        }
    }

    fn answer(
        &mut self,
        connection: ConnectionId,
        number: OpNumber,
        reply: PerformReply,
        turn: &mut Turn<'_, Submission>,
    ) {
        let answer = Answer { number: number.0, result: reply.result };
        send(connection, StreamClass::Action, Frame::Answer(answer), turn);
    }

    /// A datagram of a client: where it says it has moved. One that does not decode is dropped; it may be any noise.
    fn on_input(&mut self, connection: ConnectionId, payload: &Payload, turn: &mut Turn<'_, Submission>) {
        let Some(input) = payload.as_bytes().and_then(|bytes| Input::decode(bytes).ok()) else { return };
        let now = turn.now();
        let Some(session) = self.sessions.get_mut(&connection) else { return };
        if !session.pays_for_a_frame(now) || !session.may_act(now) {
            return;
        }
        let Stage::Playing { node, .. } = session.stage else { return };
        let Some(link) = self.links.get(node) else { return };
        if input.sequence <= session.inputs_through {
            return;
        }
        session.inputs_through = input.sequence;
        if turn.traces() {
            session.time_a_movement(input.sequence, now);
        }
        let moved = Moved {
            character: session.character.entity().get(),
            generation: session.generation.0,
            sequence: input.sequence,
            x_mm: input.x_mm,
            y_mm: input.y_mm,
        };
        let payload = PeerMessage { message: Some(Message::Moved(moved)) }.into();
        turn.submit(network::Submission::Datagram { connection: link, payload });
    }

    /// A message of a worker.
    fn on_peer(&mut self, link: ConnectionId, message: &PeerMessage, turn: &mut Turn<'_, Submission>) {
        match &message.message {
            Some(Message::State(state)) => self.on_state(state, turn),
            Some(Message::Released(released)) => self.on_released(link, released, turn),
            Some(Message::Global(global)) => self.on_global(link, global, turn),
            Some(Message::Suspended(suspended)) => {
                let node = self.links.node(link);
                let there = |stage: Stage| matches!(stage, Stage::Playing { node: n, .. } if Some(n) == node);
                let sessions = self.sessions.iter().filter(|(_, session)| there(session.stage));
                let connections: Vec<ConnectionId> = sessions.map(|(&connection, _)| connection).collect();
                for connection in connections {
                    self.notice(connection, suspended.suspended, turn);
                }
            }
            // The rest is what a gateway says to a worker.
            Some(Message::Moved(_) | Message::Detached(_)) | None => {}
        }
    }

    fn session_of(&mut self, entity: u64) -> Option<(ConnectionId, &mut Session)> {
        let character = CharacterId::from_entity(EntityId::from_raw(entity)?)?;
        let &connection = self.characters.get(&character)?;
        Some((connection, self.sessions.get_mut(&connection)?))
    }

    /// State is accepted only forwards: an owner that was replaced may still speak. What comes before a session was ever
    /// attached is meant for the one before it.
    fn on_state(&mut self, state: &State, turn: &mut Turn<'_, Submission>) {
        let Some((connection, session)) = self.session_of(state.entity) else { return };
        let (epoch, version) = (Epoch(state.epoch), Version(state.version));
        if !session.welcomed || !session.may_act(turn.now()) || (epoch, version) <= session.seen {
            return;
        }
        session.seen = (epoch, version);
        session.tell_movement(state.sequence, turn);
        turn.note(Note::StateAccepted { entity: session.character.entity(), epoch, version });
        let update = Update {
            entity: state.entity,
            epoch: state.epoch,
            version: state.version,
            sequence: state.sequence,
            x_mm: state.x_mm,
            y_mm: state.y_mm,
            hit_points: state.hit_points,
        };
        let bytes = update.encode();
        let payload = Payload::from(&*bytes);
        let sent = bytes.len() as u64;
        turn.submit(network::Submission::Datagram { connection, payload });
        self.bandwidth.downstream += sent;
    }

    fn on_released(&mut self, link: ConnectionId, released: &Released, turn: &mut Turn<'_, Submission>) {
        let node = self.links.node(link);
        let Some((connection, session)) = self.session_of(released.character) else { return };
        let there = matches!(session.stage, Stage::Playing { node: n, .. } if Some(n) == node);
        if session.generation > Generation(released.generation) || !there {
            return;
        }
        let entity = session.character.entity();
        match ReleasedReason::try_from(released.reason) {
            Ok(ReleasedReason::Superseded) if session.generation < Generation(released.generation) => {
                self.end_session(connection, turn);
            }
            Ok(ReleasedReason::Misbehaved) => {
                let (character, generation) = (session.character, session.generation);
                crate::reached!(turn, "gateway.player-closed");
                turn.note(Note::SentAway { character, generation });
                self.deny(connection, DeniedReason::Misbehaved, turn);
            }
            _ => {
                crate::reached!(turn, "gateway.redirected");
                self.routes.forget(entity);
                self.notice(connection, true, turn);
                self.seek(connection, turn);
            }
        }
    }
}
