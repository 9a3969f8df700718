//! The region's gateways: each is shown every entity when it comes, and whatever changes from then on.

use super::{
    NEWS_PERIOD, Replica, Submission, Timer,
    global::{Cause, Global},
};
use crate::{
    Outcome, Refusal, Turn,
    doors::network::{self, StreamClass},
};
use alloc::vec::Vec;
use worldline_proto::{
    ConnectionId, EntityId,
    server::{self, PeerMessage, peer_message::Message},
};

impl Replica {
    pub(super) fn on_network(&mut self, event: network::Event, turn: &mut Turn<'_, Submission>) {
        match event {
            network::Event::Accepted { connection, from } => {
                self.gateways.insert(connection, from);
                for (&entity, global) in &self.globals {
                    show(connection, entity, global, &[], turn);
                }
            }
            network::Event::Closed { connection, .. } => {
                self.gateways.remove(&connection);
            }
            // A replica serves no calls: the caller has taken it for somebody else.
            network::Event::Called { call, .. } => {
                let outcome = Outcome::Refused(Refusal::Malformed).into();
                turn.submit(network::Submission::Reply { call, outcome });
            }
            // Gateways listen, and a replica opens no connection.
            network::Event::Datagram { .. }
            | network::Event::Received { .. }
            | network::Event::Opened { .. }
            | network::Event::NotOpened { .. }
            | network::Event::Answered { .. } => {}
        }
    }

    /// News leave at once if none have left for a while, else together with what comes until then.
    pub(super) fn tell_soon(&mut self, turn: &mut Turn<'_, Submission>) {
        let due = self.news_sent + NEWS_PERIOD;
        if turn.now() >= due {
            self.tell_gateways(turn);
        } else {
            turn.arm(Timer::News, due);
        }
    }

    pub(super) fn tell_gateways(&mut self, turn: &mut Turn<'_, Submission>) {
        self.news_sent = turn.now();
        let gateways: Vec<ConnectionId> = self.gateways.keys().copied().collect();
        for (&entity, global) in self.globals.iter_mut().filter(|(_, global)| global.news) {
            global.news = false;
            let causes: Vec<Cause> = global.take_causes().into();
            for &connection in &gateways {
                show(connection, entity, global, &causes, turn);
            }
        }
    }
}

/// Shows a gateway how an entity stands, if that is known.
fn show(
    connection: ConnectionId,
    entity: EntityId,
    global: &Global,
    causes: &[Cause],
    turn: &mut Turn<'_, Submission>,
) {
    let Some((sequence, hit_points)) = global.state() else { return };
    let (cause_characters, cause_numbers) =
        causes.iter().map(|(character, number)| (character.entity().get(), number.0)).unzip();
    let entity = entity.get();
    let global = server::Global { entity, sequence: sequence.0, hit_points, cause_characters, cause_numbers };
    let payload = PeerMessage { message: Some(Message::Global(global)) }.into();
    turn.submit(network::Submission::Send { connection, class: StreamClass::State, payload });
}
