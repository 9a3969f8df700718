//! One player: the client's role unchanged, with a witness at its ear and at its mouth.

use super::measure::Measure;
use crate::{Doors, clock, network::Network};
use prost::Message as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use worldline_proto::{
    NodeId,
    client::{Denied, DeniedReason, GatewayFrame, gateway_frame::Frame},
    movement::Input,
};
use worldline_system::{
    Role, Turn,
    client::{self, Client},
    doors::{Asked, bus, cache, directory, ledger, network},
    history::Note,
};

/// What is measured of a player. Clones share it.
#[derive(Clone, Debug)]
pub struct Witness {
    /// Whose.
    pub node: NodeId,
    measure: Arc<Mutex<Measure>>,
}

impl Witness {
    /// Of a player that has not done anything.
    #[must_use]
    pub fn new(node: NodeId) -> Self {
        Self { node, measure: Arc::default() }
    }

    /// What was measured so far.
    pub fn measure(&self) -> MutexGuard<'_, Measure> {
        // Nothing panics while it holds the lock: what is inside is whole.
        self.measure.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hears what the role is told, of which it makes no note.
    fn hears(&self, event: &client::Event) {
        let client::Event::Network(event) = event else { return };
        match event {
            network::Event::NotOpened { reason, .. } => {
                let mut measure = self.measure();
                let (gateway, before) = measure.unreached.unwrap_or((NodeId(u32::MAX), None));
                measure.unreached = Some((gateway, Some(*reason)));
                // The network tells of every attempt; what is news to a player is another reason.
                if before != Some(*reason) {
                    tracing::warn!(player = %self.node, %gateway, ?reason, "no connection to the gateway");
                }
            }
            network::Event::Received { payload, .. } => {
                let frame = payload.as_bytes().and_then(|bytes| GatewayFrame::decode(bytes).ok());
                if let Some(Frame::Denied(Denied { reason })) = frame.and_then(|frame| frame.frame) {
                    let reason = DeniedReason::try_from(reason).unwrap_or(DeniedReason::Unspecified);
                    tracing::warn!(player = %self.node, "turned away: {}", said(reason));
                    self.measure().denied = Some(reason);
                }
            }
            _ => {}
        }
    }
}

/// What a gateway means by a reason.
#[must_use]
pub fn said(reason: DeniedReason) -> &'static str {
    match reason {
        DeniedReason::Unspecified => "the gateway does not say why",
        DeniedReason::Protocol => "the gateway speaks another version of the protocol",
        DeniedReason::TokenForged => {
            "the token is not one of this world (signed with another key than the gateway's `token_key`, or for a \
             character that the ledger does not know)"
        }
        DeniedReason::TokenVersion => {
            "the token is of a version that the gateway does not read; `worldlined token` of its build makes one that it does"
        }
        DeniedReason::Misbehaved => "its character has moved as no honest client does, for too long",
        DeniedReason::TokenRevoked => "the token is revoked; `worldlined token` makes a new one",
        DeniedReason::TokenNotYetValid => {
            "the token was issued in the future: the clock of its issuer or of the gateway is wrong"
        }
        DeniedReason::TokenExpired => "the token has expired; `worldlined token` makes a new one",
        DeniedReason::Busy => "the gateway has as many players as it can take",
        DeniedReason::Draining => "the gateway is about to stop",
        DeniedReason::Superseded => "another session plays this character now",
    }
}

/// A client's role whose witness hears what it hears.
#[derive(Clone, Debug)]
pub struct Player {
    client: Client,
    witness: Witness,
}

impl Player {
    /// A player before its first event.
    #[must_use]
    pub fn new(config: client::Config, witness: Witness) -> Self {
        Self { client: Client::new(config), witness }
    }
}

impl Role for Player {
    type Event = client::Event;
    type Submission = client::Submission;

    fn on_event(&mut self, event: client::Event, turn: &mut Turn<'_, client::Submission>) {
        self.witness.hears(&event);
        self.client.on_event(event, turn);
    }

    fn queues(&self, report: &mut dyn FnMut(&'static str, usize, usize)) {
        self.client.queues(report);
    }
}

/// A player's doors: its network, and its witness, who sees what leaves.
pub struct Mouth {
    /// Where it leaves.
    pub network: Arc<Network>,
    /// Who sees it.
    pub witness: Witness,
}

impl Doors for Mouth {
    fn network(&mut self, submission: network::Submission) {
        match &submission {
            network::Submission::Datagram { payload, .. } => {
                if let Some(input) = payload.as_bytes().and_then(|bytes| Input::decode(bytes).ok()) {
                    self.witness.measure().sent(input.sequence, clock::now());
                }
            }
            network::Submission::Connect { to, .. } => {
                let mut measure = self.witness.measure();
                let before = measure.unreached.and_then(|(_, reason)| reason);
                measure.unreached = Some((*to, before));
            }
            _ => {}
        }
        self.network.submit(submission);
    }

    // A client has no door but the network.
    fn directory(&mut self, _: Asked<directory::Submission>) {}

    fn ledger(&mut self, _: Asked<ledger::Submission>) {}

    fn bus(&mut self, _: Asked<bus::Submission>) {}

    fn cache(&mut self, _: Asked<cache::Submission>) {}

    fn note(&mut self, note: &Note) {
        if let Note::Joined { character, generation, .. } = note {
            tracing::debug!(player = %self.witness.node, %character, generation = generation.0, "plays");
        }
        self.witness.measure().noted(note, clock::now());
    }
}
