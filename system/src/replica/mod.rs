//! The replica: a region's read-only copy of global entities, fed by the bus and shown to the region's gateways.
//!
//! It takes in each fact once and in the order of its aggregate. What came before it began, what the bus lost and what it does
//! not understand it reads in the ledger: the bus only makes it quick.
//!
//! Invariants: what it knows of an aggregate is the ledger's state after some fact, and never goes back; a fact is never
//! dropped for the epoch of whoever published it.
//!
//! Deliberately absent: authority, and a lease. Two replicas of a region disturb nobody.

mod gateways;
mod global;

use crate::{
    Outcome, Role, Turn,
    backoff::Backoff,
    doors::{
        Asked, bus,
        clock::TimerKey,
        ledger::{self, FactSnapshot, FactsPage},
        network,
        telemetry::Metric,
    },
    facts,
    history::Note,
    knobs::Retry,
    limits, reached,
    role::role_sums,
    time::{Duration, Instant},
};
use alloc::{collections::BTreeMap, vec::Vec};
use global::{Global, Heard};
use worldline_proto::{ConnectionId, EntityId, NodeId, OpId};

role_sums! {
    Network(network::Event, network::Submission),
    Bus(bus::Event, Asked<bus::Submission>),
    Ledger(ledger::Event, Asked<ledger::Submission>),
}

/// How often it compares what it knows with the ledger: the bus may have lost the newest facts, and then no later one tells.
const COMPARE_PERIOD: Duration = Duration::from_secs(5);
/// News leave for gateways at most so often; what has changed in between leaves together.
const NEWS_PERIOD: Duration = Duration::from_millis(50);
/// Deliveries that are acknowledged together, or after [`ACKNOWLEDGE_PERIOD`]. Well below [`limits::BUS_CREDITS`].
const ACKNOWLEDGED_TOGETHER: u32 = 64;
/// Well below [`limits::BUS_ACK_WAIT`].
const ACKNOWLEDGE_PERIOD: Duration = Duration::from_secs(1);

/// What a replica is told before it starts.
#[derive(Clone, Debug)]
pub struct Config {
    /// What it keeps a copy of: at most [`limits::SNAPSHOT_ENTITIES`]; more are left out.
    pub entities: Vec<EntityId>,
    /// Between tries of what failed.
    pub retry: Retry,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Timer {
    /// Open a consumer.
    Consume,
    /// Compare with the ledger.
    Compare,
    /// News leave for the gateways.
    News,
    /// Acknowledge what was delivered.
    Acknowledge,
}

impl From<Timer> for TimerKey {
    fn from(timer: Timer) -> Self {
        Self::new(timer as u8, 0)
    }
}

impl Timer {
    fn from_key(key: TimerKey) -> Option<Self> {
        let all = [Self::Consume, Self::Compare, Self::News, Self::Acknowledge];
        all.into_iter().find(|timer| *timer as u8 == key.kind())
    }
}

/// How far the consumer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Consuming {
    No,
    Opening(OpId),
    Yes(OpId),
}

impl Consuming {
    const fn consumer(self) -> Option<OpId> {
        match self {
            Self::No => None,
            Self::Opening(op) | Self::Yes(op) => Some(op),
        }
    }
}

/// A replica.
#[derive(Clone, Debug)]
pub struct Replica {
    config: Config,
    consuming: Consuming,
    backoff: Backoff,
    /// The last delivery that was taken in, and how many are not acknowledged.
    taken: Option<bus::StreamSequence>,
    unacknowledged: u32,
    comparing: Option<OpId>,
    /// Comparisons that came to nothing, in a row.
    comparing_backoff: Backoff,
    globals: BTreeMap<EntityId, Global>,
    /// Reads of facts that were missed: whose.
    reads: BTreeMap<OpId, EntityId>,
    gateways: BTreeMap<ConnectionId, NodeId>,
    news_sent: Instant,
    stopping: bool,
}

impl Replica {
    /// A replica before its first event.
    #[must_use]
    pub fn new(mut config: Config) -> Self {
        config.entities.truncate(limits::SNAPSHOT_ENTITIES);
        let globals = config.entities.iter().map(|&entity| (entity, Global::default())).collect();
        Self {
            config,
            consuming: Consuming::No,
            backoff: Backoff::default(),
            taken: None,
            unacknowledged: 0,
            comparing: None,
            comparing_backoff: Backoff::default(),
            globals,
            reads: BTreeMap::new(),
            gateways: BTreeMap::new(),
            news_sent: Instant::default(),
            stopping: false,
        }
    }

    /// Whether it has a state of every entity, and so can show one.
    #[must_use]
    pub fn complete(&self) -> bool {
        self.globals.values().all(Global::is_known)
    }

    fn consume(&mut self, turn: &mut Turn<'_, Submission>) {
        if self.consuming != Consuming::No || self.stopping {
            return;
        }
        let submission = bus::Submission::Consume { durable: Some(bus::Durable(turn.node())), start: bus::Start::New };
        self.consuming = Consuming::Opening(turn.bus(submission, limits::BUS_PATIENCE));
        (self.taken, self.unacknowledged) = (None, 0);
    }

    fn on_consuming(&mut self, op: OpId, outcome: &Outcome<()>, turn: &mut Turn<'_, Submission>) {
        if self.consuming != Consuming::Opening(op) {
            return;
        }
        match outcome {
            Outcome::Done(()) => {
                self.consuming = Consuming::Yes(op);
                self.backoff.reset();
                // What was published before it stood is read.
                self.compare(turn);
            }
            // It may stand: it is ended, so that the bus does not deliver to nobody.
            Outcome::Unknown => {
                turn.bus(bus::Submission::Close(op), limits::BUS_PATIENCE);
                self.consume_later(turn);
            }
            Outcome::Refused(_) => self.consume_later(turn),
        }
    }

    fn consume_later(&mut self, turn: &mut Turn<'_, Submission>) {
        self.consuming = Consuming::No;
        let wait = self.backoff.fail(self.config.retry, turn.entropy());
        turn.arm_in(Timer::Consume, wait);
    }

    fn on_delivered(&mut self, message: &bus::Message, turn: &mut Turn<'_, Submission>) {
        if message.delivery > 1 {
            reached!(turn, "replica.redelivered");
        }
        let bus::Subject::Fact(aggregate) = message.subject;
        match facts::decode(&message.payload) {
            Ok(fact) => {
                if let Some(global) = self.globals.get_mut(&fact.aggregate) {
                    match global.hear(&fact) {
                        Heard::Applied => self.on_applied(fact.aggregate, turn),
                        Heard::Known => reached!(turn, "replica.fact-known"),
                        Heard::Behind => self.read_missing(fact.aggregate, turn),
                    }
                }
            }
            // Of a newer build, or nobody's: whatever it tells stands in the ledger.
            Err(_) => {
                reached!(turn, "replica.fact-undecodable");
                if self.globals.contains_key(&aggregate) {
                    self.read_missing(aggregate, turn);
                }
            }
        }
        self.taken = self.taken.max(Some(message.sequence));
        self.unacknowledged += 1;
        if self.unacknowledged >= ACKNOWLEDGED_TOGETHER {
            self.acknowledge(turn);
        } else if self.unacknowledged == 1 {
            turn.arm_in(Timer::Acknowledge, ACKNOWLEDGE_PERIOD);
        }
    }

    /// One that is not `Done` is made good by the next one, or by a redelivery that says nothing new.
    fn acknowledge(&mut self, turn: &mut Turn<'_, Submission>) {
        let (Consuming::Yes(consumer), Some(through)) = (self.consuming, self.taken) else { return };
        turn.bus(bus::Submission::Acknowledge { consumer, through }, limits::BUS_PATIENCE);
        self.unacknowledged = 0;
        turn.disarm(Timer::Acknowledge);
    }

    /// Facts were taken in: the history is told of each, and the gateways of the last.
    fn on_applied(&mut self, aggregate: EntityId, turn: &mut Turn<'_, Submission>) {
        let Some(global) = self.globals.get_mut(&aggregate) else { return };
        for sequence in global.take_applied() {
            turn.count(Metric::ReplicaFactsAppliedTotal, &[], 1);
            turn.note(Note::FactApplied { aggregate, sequence });
        }
        self.tell_soon(turn);
    }

    /// Reads an aggregate's facts behind the last that is known, unless that is under way.
    fn read_missing(&mut self, aggregate: EntityId, turn: &mut Turn<'_, Submission>) {
        let Some(global) = self.globals.get(&aggregate) else { return };
        let Some(known) = global.sequence() else { return self.compare(turn) };
        if self.reads.values().any(|&of| of == aggregate) {
            return;
        }
        reached!(turn, "replica.gap-read");
        turn.count(Metric::ReplicaGapReadsTotal, &[], 1);
        turn.note(Note::FactGap { aggregate, missing: known.next() });
        let submission = ledger::Submission::Facts { aggregate, after: known, limit: limits::FACTS_PAGE };
        let op = turn.ledger(submission, limits::LEDGER_PATIENCE);
        self.reads.insert(op, aggregate);
    }

    fn on_facts(&mut self, op: OpId, outcome: Outcome<FactsPage>, turn: &mut Turn<'_, Submission>) {
        let Some(aggregate) = self.reads.remove(&op) else { return };
        // A read leaves nothing behind: the next comparison finds what is missing.
        let Outcome::Done(page) = outcome else { return };
        let Some(global) = self.globals.get_mut(&aggregate) else { return };
        for fact in &page.facts {
            global.hear(fact);
        }
        let behind = !page.facts.is_empty() && (page.more || global.waits());
        self.on_applied(aggregate, turn);
        if behind {
            self.read_missing(aggregate, turn);
        }
    }

    /// Asks the ledger how every entity stands.
    fn compare(&mut self, turn: &mut Turn<'_, Submission>) {
        if self.comparing.is_none() && !self.stopping {
            let submission = ledger::Submission::Snapshot { entities: self.config.entities.clone() };
            self.comparing = Some(turn.ledger(submission, limits::LEDGER_PATIENCE));
        }
    }

    fn on_snapshot(&mut self, op: OpId, outcome: Outcome<Vec<FactSnapshot>>, turn: &mut Turn<'_, Submission>) {
        if self.comparing != Some(op) {
            return;
        }
        self.comparing = None;
        let Outcome::Done(snapshots) = outcome else {
            let wait = self.comparing_backoff.fail(self.config.retry, turn.entropy());
            return turn.arm_in(Timer::Compare, wait);
        };
        self.comparing_backoff.reset();
        for snapshot in snapshots {
            let (aggregate, sequence) = (snapshot.entity, snapshot.sequence);
            let Some(global) = self.globals.get_mut(&aggregate) else { continue };
            match global.sequence() {
                None => {
                    turn.note(Note::FactSnapshot { aggregate, sequence });
                    global.begin(&snapshot);
                    self.on_applied(aggregate, turn);
                }
                Some(known) if known < sequence => self.read_missing(aggregate, turn),
                Some(_) => {}
            }
        }
        turn.arm_in(Timer::Compare, COMPARE_PERIOD);
    }

    fn on_bus(&mut self, event: bus::Event, turn: &mut Turn<'_, Submission>) {
        match event {
            bus::Event::Answered { op, answer } => {
                if let bus::Answer::Consuming(outcome) = &*answer {
                    self.on_consuming(op, outcome, turn);
                }
                // Whether an acknowledgement came through shows in what is delivered.
            }
            bus::Event::Delivered { consumer, message } if self.consuming.consumer() == Some(consumer) => {
                self.on_delivered(&message, turn);
            }
            bus::Event::Gap { consumer, .. } if self.consuming.consumer() == Some(consumer) => {
                reached!(turn, "replica.bus-gap");
                self.consume_later(turn);
            }
            bus::Event::Delivered { .. } | bus::Event::Gap { .. } => {}
        }
    }

    fn on_ledger(&mut self, event: ledger::Event, turn: &mut Turn<'_, Submission>) {
        match *event.answer {
            ledger::Answer::Facts(outcome) => self.on_facts(event.op, outcome, turn),
            ledger::Answer::Snapshot(outcome) => self.on_snapshot(event.op, outcome, turn),
            // A replica asks for nothing else.
            ledger::Answer::LoggedIn(_)
            | ledger::Answer::Revoked(_)
            | ledger::Answer::Standing(_)
            | ledger::Answer::Claimed(_)
            | ledger::Answer::Committed(_)
            | ledger::Answer::Roster(_)
            | ledger::Answer::Unpublished(_)
            | ledger::Answer::Flagged(_) => {}
        }
    }

    fn on_timer(&mut self, timer: Timer, turn: &mut Turn<'_, Submission>) {
        match timer {
            Timer::Consume => self.consume(turn),
            Timer::Compare => self.compare(turn),
            Timer::News => self.tell_gateways(turn),
            Timer::Acknowledge => self.acknowledge(turn),
        }
    }
}

impl Role for Replica {
    type Event = Event;
    type Submission = Submission;

    fn on_event(&mut self, event: Event, turn: &mut Turn<'_, Submission>) {
        match event {
            Event::Started => {
                turn.count(Metric::ReplicaGapReadsTotal, &[], 0);
                turn.count(Metric::ReplicaFactsAppliedTotal, &[], 0);
                self.consume(turn);
                // The ledger alone is enough to begin with, should the bus be away.
                self.compare(turn);
            }
            Event::Stop => {
                self.stopping = true;
                self.acknowledge(turn);
                if let Some(consumer) = self.consuming.consumer() {
                    turn.bus(bus::Submission::Close(consumer), limits::BUS_PATIENCE);
                }
                turn.stopped();
            }
            Event::Timer(key) => {
                if let Some(timer) = Timer::from_key(key) {
                    self.on_timer(timer, turn);
                }
            }
            Event::Network(event) => self.on_network(event, turn),
            Event::Bus(event) => self.on_bus(event, turn),
            Event::Ledger(event) => self.on_ledger(event, turn),
        }
    }

    fn queues(&self, report: &mut dyn FnMut(&'static str, usize, usize)) {
        let waiting = self.globals.values().map(Global::waiting).max().unwrap_or(0);
        report("replica.facts-ahead", waiting, global::AHEAD);
        report("replica.reads", self.reads.len(), limits::SNAPSHOT_ENTITIES);
        report("replica.unacknowledged", self.unacknowledged as usize, limits::BUS_CREDITS);
    }
}
