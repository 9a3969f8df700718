//! A session from its hello to its owner: log in, find the owner, attach; and again whenever the owner changes.

use super::{Gateway, Submission, Timer, telemetry::word};
use crate::{
    Outcome, Turn,
    backoff::Backoff,
    doors::{
        ledger,
        network::{self, CloseReason, StreamClass},
        telemetry::{Label, Metric},
    },
    history::Note,
    limits, reached,
    time::{Duration, Instant},
    wire,
};
use prost::Message as _;
use worldline_proto::{
    CharacterId, ConnectionId, Digest, EntityId, Epoch, Generation, LeaseId, NodeId, Nonce, OpId, Version,
    client::{Denied, DeniedReason, GatewayFrame, MoveReason, Notice, Welcome, gateway_frame::Frame},
    server::{AttachReply, AttachRequest, AttachStatus, Detached, PeerMessage, Reply, Request, peer_message::Message},
    token::Claims,
};

/// How long the named owner may be out of reach before the client is asked to try another gateway. Longer than it takes to
/// name another owner for a dead one's characters.
const UNREACHED_MAX: Duration = Duration::from_secs(15);
/// What the cache is asked about a hello.
const HINTS: u8 = 2;
/// No session lasts longer than this, whatever its token says.
const LIFE_MAX: Duration = Duration::from_secs(365 * 24 * 3_600);
/// Frames a second that a client may send, and as many at once.
const FRAMES_PER_SECOND: u64 = 100;

/// One player's session at this gateway.
#[derive(Clone, Debug)]
pub(super) struct Session {
    pub character: CharacterId,
    /// The session's generation, once the ledger has given it.
    pub generation: Generation,
    pub stage: Stage,
    /// When its token was issued.
    pub issued_unix_ms: u64,
    /// Of its token.
    pub token: Digest,
    /// Its token ends then.
    pub expires: Instant,
    /// It acts only before this: the ledger was asked about it not long ago.
    pub trusted_until: Instant,
    /// When it came, by the wall clock.
    pub since_unix_ms: u64,
    /// Its data in the cache is written again then.
    pub rewrite_due: Instant,
    /// An owner has said that it has ended, and the ledger is asked why.
    pub ending: bool,
    /// Kept over resubmissions of the same login.
    nonce: Nonce,
    backoff: Backoff,
    /// Whether an owner has taken it once, and its client knows.
    pub welcomed: bool,
    /// Whether its owner is silent.
    owner_silent: bool,
    /// Whether the client was last told that it can only predict.
    told_suspended: bool,
    /// Which owner has not been reached, and since when, although the directory names it.
    unreached: Option<(LeaseId, Instant)>,
    /// The newest state that was passed on: an older one is refused.
    pub seen: (Epoch, Version),
    /// The last movement input that was passed on: an older one was overtaken, or is doubled.
    pub inputs_through: u32,
    budget: u64,
    budget_at: Instant,
    /// A movement that is timed, for whoever traces: its number, and when it was passed on.
    pub timed: Option<(u32, Instant)>,
}

/// What a session is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// The cache is asked; so many hints are still to come.
    Asking { hints: u8 },
    /// The ledger is asked for a generation.
    LoggingIn,
    /// Its owner is looked up, or the link to it is opened.
    Seeking,
    /// Its owner is asked to take it.
    Attaching { op: OpId, node: NodeId, link: ConnectionId, lease: Option<LeaseId> },
    /// Its owner serves it.
    Playing { node: NodeId, lease: Option<LeaseId> },
}

impl Session {
    pub fn new(claims: &Claims, token: Digest, nonce: Nonce, now_unix_ms: u64, now: Instant) -> Self {
        // In milliseconds it may be farther away than a clock of nanoseconds reaches.
        let left_ms = claims.expires_unix_ms.saturating_sub(now_unix_ms).min(LIFE_MAX.as_millis());
        Self {
            character: claims.character,
            issued_unix_ms: claims.issued_unix_ms,
            token,
            expires: now + Duration::from_millis(left_ms),
            trusted_until: now,
            since_unix_ms: now_unix_ms,
            rewrite_due: now,
            ending: false,
            generation: Generation(0),
            stage: Stage::Asking { hints: HINTS },
            nonce,
            backoff: Backoff::default(),
            welcomed: false,
            owner_silent: false,
            told_suspended: false,
            unreached: None,
            seen: (Epoch(0), Version(0)),
            inputs_through: 0,
            budget: FRAMES_PER_SECOND,
            budget_at: now,
            timed: None,
        }
    }

    /// For how long this owner has been out of reach, counted from the first time it was found so.
    fn unreached_for(&mut self, owner: Option<LeaseId>, now: Instant) -> Duration {
        let Some(owner) = owner else { return Duration::ZERO };
        match self.unreached {
            Some((lease, since)) if lease == owner => now.since(since),
            _ => {
                self.unreached = Some((owner, now));
                Duration::ZERO
            }
        }
    }

    /// Whether what its player does may be passed on, and what its owner says to its player.
    pub fn may_act(&self, now: Instant) -> bool {
        !self.ending && now < self.expires && now < self.trusted_until
    }

    /// Takes one frame out of the client's budget; `false` if it has sent too many.
    pub fn pays_for_a_frame(&mut self, now: Instant) -> bool {
        let earned = now.since(self.budget_at).as_nanos().saturating_mul(FRAMES_PER_SECOND) / 1_000_000_000;
        if earned > 0 {
            self.budget = (self.budget + earned).min(FRAMES_PER_SECOND);
            self.budget_at = now;
        }
        let pays = self.budget > 0;
        self.budget = self.budget.saturating_sub(1);
        pays
    }
}

impl Gateway {
    /// Does what a session's stage calls for, the first time or again.
    pub(super) fn go_on(&mut self, connection: ConnectionId, turn: &mut Turn<'_, Submission>) {
        let Some(session) = self.sessions.get(&connection) else { return };
        match session.stage {
            // An answer is on its way.
            Stage::Asking { .. } | Stage::Attaching { .. } => {}
            Stage::LoggingIn => self.log_in(connection, turn),
            Stage::Seeking => self.seek(connection, turn),
            Stage::Playing { .. } => self.read_route_again(connection, turn),
        }
    }

    /// Reads who owns the character of a session that plays, until the directory has said it.
    pub(super) fn read_route_again(&mut self, connection: ConnectionId, turn: &mut Turn<'_, Submission>) {
        let Some(session) = self.sessions.get_mut(&connection) else { return };
        let entity = session.character.entity();
        if self.routes.get(entity).is_some() {
            return session.backoff.reset();
        }
        self.routes.look_up(entity, turn);
        self.retry(connection, turn);
    }

    fn log_in(&mut self, connection: ConnectionId, turn: &mut Turn<'_, Submission>) {
        let Some(session) = self.sessions.get(&connection) else { return };
        let Session { character, nonce, issued_unix_ms, .. } = *session;
        let submission = ledger::Submission::Login { character, nonce, issued_unix_ms };
        let op = turn.ledger(submission, limits::LEDGER_PATIENCE);
        self.logins.insert(op, (connection, turn.now()));
    }

    pub(super) fn on_logged_in(&mut self, op: OpId, outcome: Outcome<ledger::Login>, turn: &mut Turn<'_, Submission>) {
        let Some((connection, sent)) = self.logins.remove(&op) else { return };
        let Some(session) = self.sessions.get_mut(&connection) else { return };
        match outcome {
            Outcome::Done(login) => {
                session.generation = login.generation;
                session.stage = Stage::Seeking;
                session.trusted_until = sent + limits::SESSION_TRUST;
                session.backoff.reset();
                let character = session.character;
                self.admit(character, connection, turn);
                turn.count(Metric::GatewaySessionsOpenedTotal, &[], 1);
                turn.note(Note::SessionOpened { character, generation: login.generation });
                self.seek(connection, turn);
            }
            // There is no such character: no token can say otherwise.
            Outcome::Refused(crate::Refusal::Malformed) => self.deny(connection, DeniedReason::TokenForged, turn),
            Outcome::Refused(crate::Refusal::TokenRevoked) => {
                reached!(turn, "gateway.token-revoked");
                let token = session.token;
                self.spread_revocation(token, turn);
                self.deny(connection, DeniedReason::TokenRevoked, turn);
            }
            // The same login again, under the same nonce: if it has happened, it gives the same generation.
            Outcome::Unknown | Outcome::Refused(_) => self.retry(connection, turn),
        }
    }

    /// The ledger has begun a session: the one before it here has ended.
    fn admit(&mut self, character: CharacterId, connection: ConnectionId, turn: &mut Turn<'_, Submission>) {
        if self.arriving.get(&character) == Some(&connection) {
            self.arriving.remove(&character);
        }
        if let Some(older) = self.characters.insert(character, connection) {
            self.deny(older, DeniedReason::Superseded, turn);
            self.characters.insert(character, connection);
        }
    }

    /// Tries again what the session is about, after a while.
    pub(super) fn retry(&mut self, connection: ConnectionId, turn: &mut Turn<'_, Submission>) {
        if let Some(session) = self.sessions.get_mut(&connection) {
            let wait = session.backoff.fail(self.config.knobs.retry, turn.entropy());
            turn.arm_in(Timer::Retry(connection), wait);
        }
    }

    /// Looks for the owner, opens a link to it, attaches: as far as it goes now.
    pub(super) fn seek(&mut self, connection: ConnectionId, turn: &mut Turn<'_, Submission>) {
        let Some(session) = self.sessions.get_mut(&connection) else { return };
        session.stage = Stage::Seeking;
        let entity = session.character.entity();
        if crate::maybe!(turn, "gateway.forget-route") {
            self.routes.forget(entity);
        }
        let Some(node) = self.routes.get(entity) else {
            self.routes.look_up(entity, turn);
            return self.retry(connection, turn);
        };
        let lease = self.routes.owner(entity).map(|owner| owner.lease);
        let Some(link) = self.links.get(node) else {
            self.links.connect(node, turn);
            if session.unreached_for(lease, turn.now()) >= UNREACHED_MAX {
                reached!(turn, "gateway.owner-unreached");
                session.unreached = None;
                self.ask_to_move(connection, MoveReason::OwnerUnreachable, turn);
            }
            return self.retry(connection, turn);
        };
        let (generation, inputs_through) = (session.generation.0, session.inputs_through);
        let request = AttachRequest { character: entity.get(), generation, inputs_through };
        let op = turn.call(node, Request::Attach(request), limits::CALL_PATIENCE);
        session.stage = Stage::Attaching { op, node, link, lease };
        self.attaches.insert(op, connection);
    }

    pub(super) fn on_attached(&mut self, op: OpId, outcome: Outcome<Reply>, turn: &mut Turn<'_, Submission>) {
        let Some(connection) = self.attaches.remove(&op) else { return };
        let Some(session) = self.sessions.get_mut(&connection) else { return };
        let Stage::Attaching { op: awaited, node, link, lease } = session.stage else { return };
        if awaited != op {
            return;
        }
        let entity = session.character.entity();
        session.stage = Stage::Seeking;
        match outcome {
            Outcome::Done(Reply::Attach(reply)) => match AttachStatus::try_from(reply.status) {
                // The owner sends its states on the link that stood when it was asked. That is gone: once more, on another.
                Ok(AttachStatus::Attached) if self.links.get(node) != Some(link) => self.retry(connection, turn),
                Ok(AttachStatus::Attached) => {
                    session.stage = Stage::Playing { node, lease };
                    session.backoff.reset();
                    session.unreached = None;
                    session.seen = session.seen.max((Epoch(reply.epoch), Version(reply.version)));
                    self.write_session(connection, turn);
                    self.welcome(connection, &reply, turn);
                }
                Ok(AttachStatus::Superseded) => self.end_session(connection, turn),
                Ok(AttachStatus::NotOwner | AttachStatus::Unspecified) | Err(_) => {
                    reached!(turn, "gateway.redirected");
                    self.routes.forget(entity);
                    self.retry(connection, turn);
                }
            },
            // Attaching twice is attaching once: `Unknown` is resolved by asking again. The route may be stale.
            Outcome::Unknown | Outcome::Refused(_) | Outcome::Done(_) => {
                self.routes.forget(entity);
                self.retry(connection, turn);
            }
        }
    }

    fn welcome(&mut self, connection: ConnectionId, reply: &AttachReply, turn: &mut Turn<'_, Submission>) {
        let Some(session) = self.sessions.get_mut(&connection) else { return };
        if session.welcomed {
            return self.notice(connection, false, turn);
        }
        session.welcomed = true;
        let welcome = Welcome {
            generation: session.generation.0,
            applied_through: reply.applied_through,
            alternates: self.config.alternates.iter().map(|node| node.0).collect(),
            x_mm: reply.x_mm,
            y_mm: reply.y_mm,
        };
        send(connection, StreamClass::Control, Frame::Welcome(welcome), turn);
        self.show_globals(connection, turn);
    }

    /// Tells a client whether its owner is silent, unless it knows.
    pub(super) fn notice(&mut self, connection: ConnectionId, suspended: bool, turn: &mut Turn<'_, Submission>) {
        if let Some(session) = self.sessions.get_mut(&connection) {
            session.owner_silent = suspended;
            self.tell_suspension(connection, turn);
        }
    }

    /// Tells a client whether it can only predict, for whatever reason, unless it knows.
    pub(super) fn tell_suspension(&mut self, connection: ConnectionId, turn: &mut Turn<'_, Submission>) {
        let Some(session) = self.sessions.get_mut(&connection) else { return };
        let suspended = session.owner_silent || turn.now() >= session.trusted_until;
        if session.welcomed && core::mem::replace(&mut session.told_suspended, suspended) != suspended {
            send(connection, StreamClass::Control, Frame::Notice(Notice { suspended }), turn);
        }
    }

    /// A route was found or found again: whoever seeks this entity goes on, whoever plays elsewhere moves.
    pub(super) fn on_route(&mut self, entity: EntityId, turn: &mut Turn<'_, Submission>) {
        let character = CharacterId::from_entity(entity);
        let Some(&connection) = character.and_then(|character| self.characters.get(&character)) else { return };
        match self.sessions.get(&connection).map(|session| session.stage) {
            Some(Stage::Seeking) => self.seek(connection, turn),
            Some(Stage::Playing { .. }) => self.on_owner_changed(entity, turn),
            _ => {}
        }
    }

    /// An ownership record has changed: a session that plays at another owner goes to the new one.
    pub(super) fn on_owner_changed(&mut self, entity: EntityId, turn: &mut Turn<'_, Submission>) {
        let character = CharacterId::from_entity(entity);
        let Some(&connection) = character.and_then(|character| self.characters.get(&character)) else { return };
        let owner = self.routes.owner(entity).map(|owner| owner.lease);
        let stage = self.sessions.get(&connection).map(|session| session.stage);
        if matches!(stage, Some(Stage::Playing { lease, .. }) if lease != owner) {
            reached!(turn, "gateway.redirected");
            self.notice(connection, true, turn);
            self.seek(connection, turn);
        }
    }

    /// Ends a session with a reason that the client is told.
    pub(super) fn deny(&mut self, connection: ConnectionId, reason: DeniedReason, turn: &mut Turn<'_, Submission>) {
        let close = match reason {
            DeniedReason::Superseded => {
                reached!(turn, "gateway.session-superseded");
                CloseReason::Superseded
            }
            _ if wire::bars(reason) => CloseReason::Barred,
            _ => CloseReason::Closed,
        };
        turn.count(Metric::GatewayDenialsTotal, &[Label::Word(word(reason))], 1);
        send(connection, StreamClass::Control, Frame::Denied(Denied { reason: reason.into() }), turn);
        self.close(connection, close, turn);
    }

    /// Closes a client's connection and forgets it.
    pub(super) fn close(&mut self, connection: ConnectionId, reason: CloseReason, turn: &mut Turn<'_, Submission>) {
        turn.submit(network::Submission::Close { connection, reason });
        self.forget(connection, turn);
    }

    /// A client's connection is gone.
    pub(super) fn forget(&mut self, connection: ConnectionId, turn: &mut Turn<'_, Submission>) {
        if self.greeting.remove(&connection).is_some() {
            turn.disarm(Timer::Greeting(connection));
        }
        let Some(session) = self.sessions.remove(&connection) else { return self.go_on_draining(turn) };
        turn.disarm(Timer::Retry(connection));
        let Session { character, generation, stage, .. } = session;
        if self.arriving.get(&character) == Some(&connection) {
            self.arriving.remove(&character);
        }
        if self.characters.get(&character) == Some(&connection) {
            self.characters.remove(&character);
            self.routes.forget(character.entity());
        }
        turn.note(Note::SessionClosed { character, generation });
        if let Stage::Playing { node, .. } = stage
            && let Some(link) = self.links.get(node)
        {
            let detached = Detached { character: character.entity().get(), generation: generation.0 };
            let payload = PeerMessage { message: Some(Message::Detached(detached)) }.into();
            turn.submit(network::Submission::Send { connection: link, class: StreamClass::Control, payload });
        }
        self.go_on_draining(turn);
    }
}

/// Sends a frame to a client.
pub(super) fn send(connection: ConnectionId, class: StreamClass, frame: Frame, turn: &mut Turn<'_, Submission>) {
    let bytes = GatewayFrame { frame: Some(frame) }.encode_to_vec();
    turn.count(Metric::ClientBandwidthBytes, &[Label::Word("downstream")], bytes.len() as u64);
    let payload = bytes.as_slice().into();
    turn.submit(network::Submission::Send { connection, class, payload });
}
