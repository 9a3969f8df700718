//! The gateway: where players come in. It checks tokens, begins sessions, finds the owner of each character, passes inputs
//! to it and its states and answers back.
//!
//! It keeps nothing that a session would need again: a client that loses its gateway begins anew at another one. One that
//! is told to stop *drains*: it takes nobody in, asks its clients to go on elsewhere, and serves each until it has left.
//!
//! Deliberately absent: authority. An answer comes from an owner or it does not come; what a client cannot be told now, it
//! asks for again.

mod admission;
mod drain;
mod globals;
mod links;
mod players;
mod session;
mod standing;
mod telemetry;

use crate::{
    Outcome, Role, Turn,
    backoff::Backoff,
    doors::{
        Asked, cache,
        clock::TimerKey,
        directory::{self, Answer, Change, Consistency, Family, Key},
        ledger, network,
    },
    knobs::Knobs,
    limits,
    role::role_sums,
    routes::{Found, Routes},
    time::{Duration, Instant},
};
use admission::Hint;
use alloc::{collections::BTreeMap, vec::Vec};
use drain::Drain;
use globals::Globals;
use links::Links;
use session::{Session, Stage};
use standing::Standings;
use telemetry::{Bandwidth, Routing};
use worldline_proto::{CharacterId, ConnectionId, NodeId, OpId, OpNumber, token};

role_sums! {
    Network(network::Event, network::Submission),
    Directory(directory::Event, Asked<directory::Submission>),
    Ledger(ledger::Event, Asked<ledger::Submission>),
    Cache(cache::Event, Asked<cache::Submission>),
}

/// How long a connection may stay without a hello.
const GREETING_PATIENCE: Duration = Duration::from_secs(5);
/// Operations of players that wait for their owners' answers.
const PERFORMS_IN_FLIGHT: usize = 2_048;

/// What a gateway is told before it starts.
#[derive(Clone, Debug)]
pub struct Config {
    /// Its region.
    pub region: directory::RegionId,
    /// The key that tokens are signed with.
    pub key: token::Key,
    /// Gateways that its clients may turn to when it is gone; the last one is in another region.
    pub alternates: Vec<NodeId>,
    /// The replicas of its region: each shows it the same. Without one its clients are shown nothing but their own characters.
    pub replicas: Vec<NodeId>,
    /// Its waits between tries.
    pub knobs: Knobs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Timer {
    /// A connection has not said hello.
    Greeting(ConnectionId),
    /// A session's next attempt at what it is about.
    Retry(ConnectionId),
    /// The next attempt to watch the owners.
    Watch,
    /// The drain has lasted long enough.
    Drain,
    /// The next attempt to reach the replicas.
    Replica,
    /// The next question how the sessions stand.
    Standing,
    /// It tells of itself.
    Report,
}

impl From<Timer> for TimerKey {
    fn from(timer: Timer) -> Self {
        match timer {
            Timer::Greeting(connection) => Self::new(0, connection.0),
            Timer::Retry(connection) => Self::new(1, connection.0),
            Timer::Watch => Self::new(2, 0),
            Timer::Drain => Self::new(3, 0),
            Timer::Replica => Self::new(4, 0),
            Timer::Standing => Self::new(5, 0),
            Timer::Report => Self::new(6, 0),
        }
    }
}

impl Timer {
    fn from_key(key: TimerKey) -> Option<Self> {
        Some(match key.kind() {
            0 => Self::Greeting(ConnectionId(key.number())),
            1 => Self::Retry(ConnectionId(key.number())),
            2 => Self::Watch,
            3 => Self::Drain,
            4 => Self::Replica,
            5 => Self::Standing,
            6 => Self::Report,
            _ => return None,
        })
    }
}

/// How far the watch on the owners is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Watching {
    No,
    /// It reads the revision to watch from.
    Reading(OpId),
    Yes(OpId),
}

/// A gateway.
#[derive(Clone, Debug)]
pub struct Gateway {
    config: Config,
    /// Connections that have not said hello yet.
    greeting: BTreeMap<ConnectionId, ()>,
    sessions: BTreeMap<ConnectionId, Session>,
    /// Those that the ledger has not admitted yet.
    arriving: BTreeMap<CharacterId, ConnectionId>,
    /// Those that it has.
    characters: BTreeMap<CharacterId, ConnectionId>,
    links: Links,
    routes: Routes,
    watching: Watching,
    /// Watches that came to nothing, in a row.
    watch_backoff: Backoff,
    /// `None` until it is told to stop.
    drain: Option<Drain>,
    globals: Globals,
    /// What the wall clock showed when the monotonic one began, in nanoseconds, as it was seen with the last token. Wraps.
    wall_clock_started: Option<u64>,
    standings: Standings,
    /// What the cache is asked, for which hello.
    hints: BTreeMap<OpId, (ConnectionId, Hint)>,
    /// Logins under way, and when they were sent.
    logins: BTreeMap<OpId, (ConnectionId, Instant)>,
    attaches: BTreeMap<OpId, ConnectionId>,
    performs: BTreeMap<OpId, Performing>,
    bandwidth: Bandwidth,
}

/// An operation of a player that waits for its owner's answer.
#[derive(Clone, Copy, Debug)]
struct Performing {
    connection: ConnectionId,
    number: OpNumber,
    /// The owner that was asked.
    node: NodeId,
    /// For whoever traces.
    routing: Routing,
}

impl Gateway {
    /// A gateway before its first event.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self {
            config,
            greeting: BTreeMap::new(),
            sessions: BTreeMap::new(),
            arriving: BTreeMap::new(),
            characters: BTreeMap::new(),
            links: Links::default(),
            routes: Routes::default(),
            watching: Watching::No,
            watch_backoff: Backoff::default(),
            drain: None,
            globals: Globals::default(),
            wall_clock_started: None,
            standings: Standings::default(),
            hints: BTreeMap::new(),
            logins: BTreeMap::new(),
            attaches: BTreeMap::new(),
            performs: BTreeMap::new(),
            bandwidth: Bandwidth::default(),
        }
    }

    /// How many sessions it has.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.sessions.len()
    }

    /// Reads the directory's revision, to watch from the next one on.
    fn watch(&mut self, turn: &mut Turn<'_, Submission>) {
        if self.watching != Watching::No {
            return;
        }
        let submission = directory::Submission::Get { key: Key::Leader, consistency: Consistency::Linearizable };
        self.watching = Watching::Reading(turn.directory(submission, limits::DIRECTORY_PATIENCE));
    }

    fn on_revision(&mut self, answer: &Answer, turn: &mut Turn<'_, Submission>) {
        let Answer::Got(Outcome::Done((_, revision))) = answer else {
            return self.watch_later(turn);
        };
        let submission = directory::Submission::Watch { family: Family::Owners, from: revision.next() };
        self.watching = Watching::Yes(turn.directory(submission, limits::DIRECTORY_PATIENCE));
        // What has changed before the watch stood is read again, session by session.
        self.routes.clear();
        let players: Vec<ConnectionId> = self.characters.values().copied().collect();
        for connection in players {
            if matches!(self.sessions.get(&connection), Some(Session { stage: Stage::Playing { .. }, .. })) {
                self.read_route_again(connection, turn);
            }
        }
    }

    /// The watch does not stand, or not any more: another one after a while that grows with every failure in a row.
    fn watch_later(&mut self, turn: &mut Turn<'_, Submission>) {
        self.watching = Watching::No;
        let wait = self.watch_backoff.fail(self.config.knobs.retry, turn.entropy());
        turn.arm_in(Timer::Watch, wait);
    }

    fn on_directory(&mut self, event: directory::Event, turn: &mut Turn<'_, Submission>) {
        match event {
            directory::Event::Answered { op, answer } => {
                match self.routes.on_answer(op, &answer, turn) {
                    Found::NotMine => {}
                    Found::Halfway => return,
                    Found::Route(entity, _) => return self.on_route(entity, turn),
                    Found::Nowhere(_) => return,
                }
                match *answer {
                    _ if self.watching == Watching::Reading(op) => self.on_revision(&answer, turn),
                    Answer::Watching(Outcome::Done(())) if self.watching == Watching::Yes(op) => {
                        self.watch_backoff.reset();
                    }
                    Answer::Watching(Outcome::Refused(_)) if self.watching == Watching::Yes(op) => {
                        self.watch_later(turn);
                    }
                    // It may stand: it is ended, so that the directory does not report to nobody.
                    Answer::Watching(Outcome::Unknown) if self.watching == Watching::Yes(op) => {
                        turn.directory(directory::Submission::Unwatch(op), limits::DIRECTORY_PATIENCE);
                        self.watch_later(turn);
                    }
                    _ => {}
                }
            }
            directory::Event::Changed { watch, changes, .. } if self.watching == Watching::Yes(watch) => {
                for change in changes.iter() {
                    match change {
                        Change::Put(record) => {
                            self.routes.refresh(record);
                            if let Key::Owner(entity) = record.key {
                                self.on_owner_changed(entity, turn);
                            }
                        }
                        Change::Deleted(Key::Owner(entity)) => self.routes.forget(*entity),
                        Change::Deleted(_) => {}
                    }
                }
            }
            directory::Event::Gap { watch, .. } if self.watching == Watching::Yes(watch) => self.watch_later(turn),
            directory::Event::Changed { .. } | directory::Event::Gap { .. } => {}
        }
    }

    fn on_timer(&mut self, timer: Timer, turn: &mut Turn<'_, Submission>) {
        match timer {
            Timer::Greeting(connection) => {
                if self.greeting.contains_key(&connection) {
                    self.close(connection, network::CloseReason::ProtocolError, turn);
                }
            }
            Timer::Retry(connection) => self.go_on(connection, turn),
            Timer::Watch => self.watch(turn),
            Timer::Drain => self.end_drain(turn),
            Timer::Replica => self.seek_replicas(turn),
            Timer::Standing => self.look_after_sessions(turn),
            Timer::Report => self.report(turn),
        }
    }
}

impl Role for Gateway {
    type Event = Event;
    type Submission = Submission;

    fn on_event(&mut self, event: Event, turn: &mut Turn<'_, Submission>) {
        match event {
            Event::Started => {
                self.watch(turn);
                self.seek_replicas(turn);
                self.look_after_sessions(turn);
                telemetry::begin(turn);
                self.report(turn);
            }
            Event::Stop => self.begin_drain(turn),
            Event::Timer(key) => {
                if let Some(timer) = Timer::from_key(key) {
                    self.on_timer(timer, turn);
                }
            }
            Event::Network(event) => self.on_network(event, turn),
            Event::Directory(event) => self.on_directory(event, turn),
            Event::Ledger(ledger::Event { op, answer }) => match *answer {
                ledger::Answer::LoggedIn(outcome) => self.on_logged_in(op, outcome, turn),
                ledger::Answer::Standing(outcome) => self.on_standing(op, outcome, turn),
                _ => {}
            },
            Event::Cache(cache::Event { op, answer }) => self.on_cache(op, &answer, turn),
        }
    }

    fn queues(&self, report: &mut dyn FnMut(&'static str, usize, usize)) {
        report("gateway.sessions", self.sessions.len() + self.greeting.len(), limits::GATEWAY_SESSIONS);
        report("gateway.performs", self.performs.len(), PERFORMS_IN_FLIGHT);
        let (lookups, most) = self.routes.lookups();
        report("gateway.lookups", lookups, most);
        report("gateway.hints", self.hints.len(), 2 * limits::GATEWAY_SESSIONS);
        report("gateway.standings", self.standings.waiting(), limits::GATEWAY_SESSIONS);
    }
}
