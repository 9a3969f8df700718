//! A role by hand: one event at a time, looking at what it leaves in its outbox.
#![allow(dead_code, reason = "each test file is a crate of its own and uses a part of it")]

use std::fmt::Debug;
use worldline_proto::{CallId, ConnectionId, Incarnation, NodeId, OpId, server::Reply};
use worldline_system::{
    Desk, Outcome, Role, Turn,
    doors::{
        Event, Submission, bus,
        cache::{Answer as Said, Event as FromCache, Submission as ToCache},
        clock::TimerKey,
        directory::{Answer as Told, Event as FromDirectory, Submission as ToDirectory},
        entropy::Entropy,
        hooks::NoHooks,
        ledger::{Answer, Event as FromLedger, Submission as ToLedger},
        network::{Event as FromNetwork, Submission as ToNetwork},
    },
    history::Note,
    time::{Duration, Instant, UnixTime},
};

/// One role with its desk, its clock and what its last event left.
pub struct Bench<R> {
    pub role: R,
    pub now: Instant,
    /// By how much its wall clock is behind its monotonic one.
    pub wall_behind: Duration,
    pub outbox: Vec<Submission>,
    desk: Desk,
}

impl<R: Role> Bench<R>
where
    <R::Event as TryFrom<Event>>::Error: Debug,
{
    pub fn new(role: R) -> Self {
        let entropy = Entropy::from_seed([5; 32]);
        let desk = Desk {
            node: NodeId(1),
            incarnation: Incarnation(1),
            operations: 0,
            entropy,
            telemetry: Default::default(),
        };
        Self { role, now: Instant::from_nanos(1_000_000_000), wall_behind: Duration::ZERO, outbox: Vec::new(), desk }
    }

    pub fn give(&mut self, event: Event) {
        self.outbox.clear();
        let unix_now = UnixTime::from_nanos((self.now - self.wall_behind).as_nanos());
        let mut hooks = NoHooks;
        let mut turn = Turn::new(self.now, unix_now, &mut self.desk, &mut hooks, &mut self.outbox);
        self.role.on_event(event.try_into().expect("a door that the role uses"), &mut turn);
    }

    pub fn network(&mut self, event: FromNetwork) {
        self.give(Event::Network(event));
    }

    pub fn directory(&mut self, op: OpId, answer: Told) {
        self.give(Event::Directory(FromDirectory::Answered { op, answer: Box::new(answer) }));
    }

    pub fn ledger(&mut self, op: OpId, answer: Answer) {
        self.give(Event::Ledger(FromLedger { op, answer: Box::new(answer) }));
    }

    pub fn bus(&mut self, op: OpId, answer: bus::Answer) {
        self.give(Event::Bus(bus::Event::Answered { op, answer: Box::new(answer) }));
    }

    pub fn cache(&mut self, op: OpId, answer: Said) {
        self.give(Event::Cache(FromCache { op, answer: Box::new(answer) }));
    }

    pub fn timer(&mut self, kind: u8) {
        self.give(Event::Timer(TimerKey::new(kind, 0)));
    }

    /// Fires every timer that the last event armed for up to `span` from now; the outbox holds what all of them left.
    pub fn pass(&mut self, span: Duration) {
        self.now = self.now + span;
        let due = |s: &Submission| match s {
            Submission::Arm { key, at } if *at <= self.now => Some(*key),
            _ => None,
        };
        let due: Vec<TimerKey> = self.outbox.iter().filter_map(due).collect();
        let mut all = Vec::new();
        for key in due {
            self.give(Event::Timer(key));
            all.append(&mut self.outbox);
        }
        self.outbox = all;
    }

    pub fn asked_directory(&self) -> Vec<(OpId, ToDirectory)> {
        self.submitted(|s| match s {
            Submission::Directory(asked) => Some((asked.op, asked.submission.clone())),
            _ => None,
        })
    }

    pub fn asked_ledger(&self) -> Vec<(OpId, ToLedger)> {
        self.submitted(|s| match s {
            Submission::Ledger(asked) => Some((asked.op, asked.submission.clone())),
            _ => None,
        })
    }

    pub fn asked_bus(&self) -> Vec<(OpId, bus::Submission)> {
        self.submitted(|s| match s {
            Submission::Bus(asked) => Some((asked.op, asked.submission.clone())),
            _ => None,
        })
    }

    pub fn asked_cache(&self) -> Vec<(OpId, ToCache)> {
        self.submitted(|s| match s {
            Submission::Cache(asked) => Some((asked.op, asked.submission.clone())),
            _ => None,
        })
    }

    pub fn asked_network(&self) -> Vec<ToNetwork> {
        self.submitted(|s| match s {
            Submission::Network(submission) => Some(submission.clone()),
            _ => None,
        })
    }

    pub fn replies(&self) -> Vec<(CallId, Outcome<Reply>)> {
        self.submitted(|s| match s {
            Submission::Network(ToNetwork::Reply { call, outcome }) => Some((*call, (**outcome).clone())),
            _ => None,
        })
    }

    /// The bytes of every stream message on a connection.
    pub fn frames(&self, on: ConnectionId) -> Vec<Vec<u8>> {
        self.submitted(|s| match s {
            Submission::Network(ToNetwork::Send { connection, payload, .. }) if *connection == on => {
                payload.as_bytes().map(Vec::from)
            }
            _ => None,
        })
    }

    pub fn notes(&self) -> Vec<Note> {
        self.submitted(|s| match s {
            Submission::Note(note) => Some((**note).clone()),
            _ => None,
        })
    }

    fn submitted<T>(&self, pick: impl Fn(&Submission) -> Option<T>) -> Vec<T> {
        self.outbox.iter().filter_map(pick).collect()
    }
}
