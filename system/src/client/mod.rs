//! The client, as a bot: it logs in, walks, strikes, and goes on at another gateway when it loses its own.
//!
//! It predicts its own movement at once and is corrected by authority. It sends an operation again until it is answered,
//! under the same number, and so knows of each exactly once what became of it.
//!
//! It has no door but the network: it cannot even say "commit". What a worker may write,
//!
//! ```
//! # use worldline_system::{Turn, doors::ledger, limits, worker};
//! fn commit(turn: &mut Turn<'_, worker::Submission>, batch: ledger::Submission) {
//!     turn.ledger(batch, limits::LEDGER_PATIENCE);
//! }
//! ```
//!
//! does not compile for a client:
//!
//! ```compile_fail,E0277
//! # use worldline_system::{Turn, client, doors::ledger, limits};
//! fn commit(turn: &mut Turn<'_, client::Submission>, batch: ledger::Submission) {
//!     turn.ledger(batch, limits::LEDGER_PATIENCE);
//! }
//! ```
//!
//! Deliberately absent: rendering, and whatever a player's hand does better than a plan.

mod conduct;
mod globals;
mod operations;
mod telemetry;
mod walk;

use crate::{
    Role, Turn,
    backoff::Backoff,
    doors::{
        clock::TimerKey,
        network::{self, CloseReason, Payload, StreamClass},
    },
    history::Note,
    knobs::Knobs,
    limits, reached,
    role::role_sums,
    rules::space::Position,
    time::{Duration, Instant},
    wire::{PROTOCOL, bars},
};
use alloc::vec::Vec;
pub use conduct::Conduct;
use globals::Globals;
use operations::Operations;
use prost::Message as _;
use telemetry::Reconciling;
use walk::Walk;
use worldline_proto::{
    CharacterId, ConnectionId, EntityId, Epoch, Generation, NodeId, OpId, OpNumber, Version,
    client::{ClientFrame, Denied, DeniedReason, GatewayFrame, Hello, Move, MoveReason, client_frame, gateway_frame},
    movement::Update,
    token::Claims,
};

role_sums! {
    Network(network::Event, network::Submission),
}

/// How long a client waits for its welcome before it turns to another gateway.
const WELCOME_PATIENCE: Duration = Duration::from_secs(6);
/// Clients that are asked to leave a gateway spread their leaving over so long.
const MOVE_SPREAD: Duration = Duration::from_secs(2);
/// As many gateways as a client remembers.
const GATEWAYS: usize = 8;
/// How long a client stays away after another session has taken its place.
const SUPERSEDED_PAUSE: Duration = Duration::from_secs(10);

/// What a client is told before it starts.
#[derive(Clone, Debug)]
pub struct Config {
    /// Whom it plays.
    pub character: CharacterId,
    /// Its session token.
    pub token: Vec<u8>,
    /// Gateways to turn to, the nearest first. Not empty.
    pub gateways: Vec<NodeId>,
    /// When it comes, after its process starts.
    pub start: Duration,
    /// When it begins nothing new any more, after its process starts. It still finishes what it has begun.
    pub stop: Duration,
    /// How often it walks a step; zero is never.
    pub moves_every: Duration,
    /// How often it strikes; zero is never.
    pub attacks_every: Duration,
    /// Whom it strikes.
    pub target: Option<EntityId>,
    /// How it behaves.
    pub conduct: Conduct,
    /// Its waits between tries.
    pub knobs: Knobs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Timer {
    /// Connect, now or again.
    Connect,
    /// The welcome has not come.
    Welcome,
    Step,
    Strike,
    /// Send again what is unanswered.
    Resend,
    /// Leave this gateway, as it has asked.
    Move,
}

impl From<Timer> for TimerKey {
    fn from(timer: Timer) -> Self {
        Self::new(timer as u8, 0)
    }
}

impl Timer {
    fn from_key(key: TimerKey) -> Option<Self> {
        [Self::Connect, Self::Welcome, Self::Step, Self::Strike, Self::Resend, Self::Move]
            .into_iter()
            .find(|timer| *timer as u8 == key.kind())
    }
}

/// How far a client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Away,
    Connecting(OpId),
    /// It has said hello.
    Greeting(ConnectionId),
    Playing(ConnectionId),
}

/// A client.
#[derive(Clone, Debug)]
pub struct Client {
    config: Config,
    born: Instant,
    stage: Stage,
    /// Which of its gateways it turns to next.
    gateway: usize,
    backoff: Backoff,
    generation: Generation,
    /// It is not let in any more: it stays away.
    barred: bool,
    /// How many gateways in a row have said that its token has expired.
    expired: usize,
    /// The newest state that was taken in: an older one was overtaken on its way.
    seen: (Epoch, Version),
    joined_before: bool,
    walk: Walk,
    operations: Operations,
    globals: Globals,
    reconciling: Reconciling,
}

impl Client {
    /// A client before its first event. Panics if it knows no gateway.
    #[must_use]
    pub fn new(config: Config) -> Self {
        assert!(!config.gateways.is_empty(), "a client must know a gateway");
        Self {
            config,
            born: Instant::default(),
            stage: Stage::Away,
            gateway: 0,
            backoff: Backoff::default(),
            generation: Generation(0),
            barred: false,
            expired: 0,
            seen: (Epoch(0), Version(0)),
            joined_before: false,
            walk: Walk::default(),
            operations: Operations::default(),
            globals: Globals::default(),
            reconciling: Reconciling::default(),
        }
    }

    /// Whom it plays.
    #[must_use]
    pub const fn character(&self) -> CharacterId {
        self.config.character
    }

    /// Operations that it has sent and that are not answered.
    #[must_use]
    pub fn outstanding(&self) -> usize {
        self.operations.outstanding()
    }

    /// Whether a gateway has welcomed it and its connection stands.
    #[must_use]
    pub const fn playing(&self) -> bool {
        matches!(self.stage, Stage::Playing(_))
    }

    /// Whether it stays away, because its token is not accepted any more or because of how it has moved.
    #[must_use]
    pub const fn barred(&self) -> bool {
        self.barred
    }

    /// Whether it still begins something new.
    fn at_play(&self, now: Instant) -> bool {
        now.since(self.born) < self.config.stop
    }

    fn connect(&mut self, turn: &mut Turn<'_, Submission>) {
        if self.stage != Stage::Away || self.barred {
            return;
        }
        let gateway = self.config.gateways[self.gateway % self.config.gateways.len()];
        turn.note(Note::Connecting { character: self.config.character, gateway });
        let op = turn.connect(gateway);
        self.stage = Stage::Connecting(op);
    }

    /// Leaves what there is of a connection and turns to the next gateway after a while.
    fn turn_away(&mut self, pause: Option<Duration>, turn: &mut Turn<'_, Submission>) {
        self.stage = Stage::Away;
        self.gateway += 1;
        turn.disarm(Timer::Welcome);
        turn.disarm(Timer::Move);
        let wait = self.backoff.fail(self.config.knobs.retry, turn.entropy());
        turn.arm_in(Timer::Connect, pause.unwrap_or(wait));
    }

    fn on_network(&mut self, event: network::Event, turn: &mut Turn<'_, Submission>) {
        match event {
            network::Event::Opened { op, connection } if self.stage == Stage::Connecting(op) => {
                self.stage = Stage::Greeting(connection);
                let hello = Hello { protocol: PROTOCOL, token: self.config.token.clone() };
                send(connection, StreamClass::Control, client_frame::Frame::Hello(hello), turn);
                turn.arm_in(Timer::Welcome, WELCOME_PATIENCE);
            }
            network::Event::NotOpened { op, .. } if self.stage == Stage::Connecting(op) => self.turn_away(None, turn),
            network::Event::Closed { connection, reason } if self.is_on(connection) => match reason {
                CloseReason::Superseded => self.turn_away(Some(SUPERSEDED_PAUSE), turn),
                CloseReason::Barred => self.stay_away(turn),
                _ => self.turn_away(None, turn),
            },
            network::Event::Received { connection, payload, .. } if self.is_on(connection) => {
                let frame = payload.as_bytes().and_then(|bytes| GatewayFrame::decode(bytes).ok());
                match frame.and_then(|frame| frame.frame) {
                    Some(frame) => self.on_frame(connection, frame, turn),
                    None => {
                        turn.submit(network::Submission::Close { connection, reason: CloseReason::ProtocolError });
                        self.turn_away(None, turn);
                    }
                }
            }
            network::Event::Datagram { connection, payload } if self.is_on(connection) => {
                self.on_update(&payload, turn)
            }
            // A gateway that cannot be told apart from a stranger: late news of a connection that was left.
            network::Event::Opened { connection, .. } | network::Event::Accepted { connection, .. } => {
                turn.submit(network::Submission::Close { connection, reason: CloseReason::Closed });
            }
            network::Event::NotOpened { .. }
            | network::Event::Closed { .. }
            | network::Event::Received { .. }
            | network::Event::Datagram { .. }
            | network::Event::Answered { .. } => {}
            network::Event::Called { call, .. } => {
                let outcome = crate::Outcome::Refused(crate::Refusal::Malformed).into();
                turn.submit(network::Submission::Reply { call, outcome });
            }
        }
    }

    fn is_on(&self, connection: ConnectionId) -> bool {
        matches!(self.stage, Stage::Greeting(c) | Stage::Playing(c) if c == connection)
    }

    fn on_frame(&mut self, connection: ConnectionId, frame: gateway_frame::Frame, turn: &mut Turn<'_, Submission>) {
        match frame {
            gateway_frame::Frame::Welcome(welcome) => {
                self.stage = Stage::Playing(connection);
                self.generation = Generation(welcome.generation);
                self.backoff.reset();
                turn.disarm(Timer::Welcome);
                let character = self.config.character;
                let issued_unix_ms = Claims::read(&self.config.token).map_or(0, |claims| claims.issued_unix_ms);
                turn.note(Note::Joined { character, generation: self.generation, issued_unix_ms });
                self.expired = 0;
                if core::mem::replace(&mut self.joined_before, true) {
                    reached!(turn, "client.resumed");
                }
                self.walk.begin(welcome.x_mm, welcome.y_mm, self.config.conduct);
                self.operations.resume(OpNumber(welcome.applied_through));
                for &node in &welcome.alternates {
                    self.learn_gateway(NodeId(node));
                }
                if self.at_play(turn.now()) {
                    self.arm_play(turn);
                }
                self.resend(turn);
            }
            gateway_frame::Frame::Denied(Denied { reason }) => {
                turn.submit(network::Submission::Close { connection, reason: CloseReason::Closed });
                self.on_denied(DeniedReason::try_from(reason).unwrap_or_default(), turn);
            }
            gateway_frame::Frame::Answer(answer) => self.on_answer(&answer, turn),
            // A bot shows no banner.
            gateway_frame::Frame::Notice(_) => {}
            gateway_frame::Frame::Move(asked) => self.on_move(&asked, turn),
            gateway_frame::Frame::Global(global) => {
                if let Some((entity, sequence, hit_points)) = self.globals.take_in(&global) {
                    let character = self.config.character;
                    turn.note(Note::GlobalSeen { character, entity, sequence, hit_points });
                }
                self.tell_seen(&global.own, turn);
            }
        }
    }

    /// A gateway says no. One may say that a token has expired because its own clock is wrong: what all say is so.
    fn on_denied(&mut self, reason: DeniedReason, turn: &mut Turn<'_, Submission>) {
        self.expired = if reason == DeniedReason::TokenExpired { self.expired + 1 } else { 0 };
        if bars(reason) || self.expired >= self.config.gateways.len().min(GATEWAYS) {
            return self.stay_away(turn);
        }
        self.turn_away((reason == DeniedReason::Superseded).then_some(SUPERSEDED_PAUSE), turn);
    }

    /// It is not let in any more, and so does not come back.
    fn stay_away(&mut self, turn: &mut Turn<'_, Submission>) {
        reached!(turn, "client.barred");
        self.barred = true;
        turn.note(Note::TurnedAway { character: self.config.character });
        self.turn_away(None, turn);
        turn.disarm(Timer::Connect);
    }

    /// The gateway asks it to go on elsewhere. It stays until its turn has come: what is under way may still be answered.
    fn on_move(&mut self, asked: &Move, turn: &mut Turn<'_, Submission>) {
        for &node in &asked.gateways {
            self.learn_gateway(NodeId(node));
        }
        let known = |node: &u32| self.config.gateways.iter().position(|gateway| gateway.0 == *node);
        if let Some(next) = asked.gateways.iter().find_map(known) {
            // The next attempt goes there.
            self.gateway = next + self.config.gateways.len() - 1;
        }
        let spread = match MoveReason::try_from(asked.reason) {
            Ok(MoveReason::OwnerUnreachable) => Duration::ZERO,
            _ => Duration::from_nanos(turn_phase(turn, MOVE_SPREAD)),
        };
        turn.arm_in(Timer::Move, spread);
    }

    /// Leaves the gateway and connects to the next one at once.
    fn leave(&mut self, turn: &mut Turn<'_, Submission>) {
        if let Stage::Greeting(connection) | Stage::Playing(connection) = self.stage {
            reached!(turn, "client.moved-gateway");
            turn.submit(network::Submission::Close { connection, reason: CloseReason::Closed });
            self.turn_away(Some(Duration::ZERO), turn);
        }
    }

    fn learn_gateway(&mut self, node: NodeId) {
        if self.config.gateways.len() < GATEWAYS && !self.config.gateways.contains(&node) {
            self.config.gateways.push(node);
        }
    }

    fn arm_play(&self, turn: &mut Turn<'_, Submission>) {
        // A random phase, so that a crowd does not act in step.
        for (timer, period) in [(Timer::Step, self.config.moves_every), (Timer::Strike, self.config.attacks_every)] {
            if period > Duration::ZERO {
                let phase = Duration::from_nanos(turn_phase(turn, period));
                turn.arm_in(timer, phase);
            }
        }
    }

    /// A datagram of the gateway: authoritative state. One that does not decode is dropped; it may be any noise.
    fn on_update(&mut self, payload: &Payload, turn: &mut Turn<'_, Submission>) {
        let Some(update) = payload.as_bytes().and_then(|bytes| Update::decode(bytes).ok()) else { return };
        let (epoch, version) = (Epoch(update.epoch), Version(update.version));
        if EntityId::from_raw(update.entity) != Some(self.config.character.entity()) || (epoch, version) <= self.seen {
            return;
        }
        self.seen = (epoch, version);
        if self.walk.reconcile(&update) {
            let (character, sequence) = (self.config.character, update.sequence);
            let position = Position { x_mm: update.x_mm, y_mm: update.y_mm };
            turn.note(Note::Confirmed { character, epoch, sequence, position });
        }
    }

    fn on_timer(&mut self, timer: Timer, turn: &mut Turn<'_, Submission>) {
        match timer {
            Timer::Connect => self.connect(turn),
            Timer::Welcome => {
                if let Stage::Greeting(connection) = self.stage {
                    turn.submit(network::Submission::Close { connection, reason: CloseReason::Closed });
                    self.turn_away(None, turn);
                }
            }
            Timer::Step => self.step(turn),
            Timer::Strike => self.strike(turn),
            Timer::Resend => self.resend(turn),
            Timer::Move => self.leave(turn),
        }
    }
}

fn turn_phase(turn: &mut Turn<'_, Submission>, period: Duration) -> u64 {
    turn.entropy().below(period.as_nanos().max(1))
}

/// Sends a frame to the gateway.
fn send(connection: ConnectionId, class: StreamClass, frame: client_frame::Frame, turn: &mut Turn<'_, Submission>) {
    let payload = ClientFrame { frame: Some(frame) }.encode_to_vec().as_slice().into();
    turn.submit(network::Submission::Send { connection, class, payload });
}

impl Role for Client {
    type Event = Event;
    type Submission = Submission;

    fn on_event(&mut self, event: Event, turn: &mut Turn<'_, Submission>) {
        match event {
            Event::Started => {
                self.born = turn.now();
                turn.arm_in(Timer::Connect, self.config.start);
            }
            Event::Stop => {
                if let Stage::Greeting(connection) | Stage::Playing(connection) = self.stage {
                    turn.submit(network::Submission::Close { connection, reason: CloseReason::Closed });
                }
                turn.stopped();
            }
            Event::Timer(key) => {
                if let Some(timer) = Timer::from_key(key) {
                    self.on_timer(timer, turn);
                }
            }
            Event::Network(event) => self.on_network(event, turn),
        }
    }

    fn queues(&self, report: &mut dyn FnMut(&'static str, usize, usize)) {
        report("client.operations", self.operations.outstanding(), limits::CLIENT_WINDOW);
        report("client.predictions", self.walk.predictions(), walk::PREDICTIONS);
    }
}
