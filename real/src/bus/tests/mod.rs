//! The adapter on real NATS processes, one a test, which the test stops, kills and starts again.

mod bad_services;
mod calls;
mod faults;
mod nats;

use super::{Bus, Config};
use crate::{Inbox, clock, ready::Readiness};
use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};
use worldline_proto::{EntityId, EntityKind, Incarnation, NodeId, OpId};
use worldline_system::{
    Outcome,
    doors::{
        self, Asked,
        bus::{
            Answer, Durable, Event, GapCause, Message, MessageId, Published, Start, StreamSequence, Subject, Submission,
        },
    },
    limits, time,
};

/// How long the bus is given: more than a role gives it, for a machine may be busy.
const PATIENCE: time::Duration = time::Duration::from_secs(20);
/// What happens at all happens within this, also on a busy machine.
const SOON: time::Duration = time::Duration::from_secs(60);

/// A role's side of an adapter: what it asks and what it is told.
struct Caller {
    runtime: tokio::runtime::Runtime,
    bus: Bus,
    inbox: Inbox,
    ready: Readiness,
    asked: u64,
    answers: BTreeMap<OpId, Answer>,
    told: VecDeque<Event>,
    /// Consumers that were closed.
    closed: BTreeSet<OpId>,
}

impl Caller {
    fn new<U: AsRef<str>>(urls: &[U]) -> Self {
        let endpoints = urls.iter().map(|url| url.as_ref().parse().expect("a right address")).collect();
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(2).enable_all().build().expect("a runtime");
        let (inbox, ready) = (Inbox::default(), Readiness::default());
        let bus = {
            let _inside = runtime.enter();
            Bus::new(Config { endpoints }, inbox.clone(), ready.clone())
        };
        Self {
            runtime,
            bus,
            inbox,
            ready,
            asked: 0,
            answers: BTreeMap::new(),
            told: VecDeque::new(),
            closed: BTreeSet::new(),
        }
    }

    /// One that is ready.
    fn connected(url: &str) -> Self {
        let caller = Self::new(&[url]);
        caller.until_ready();
        caller
    }

    fn until_ready(&self) {
        self.until("ready", |problems| problems.is_empty());
    }

    /// What is wrong with the bus, once it contains this.
    fn problem(&self, part: &str) -> String {
        let found = RefCell::default();
        self.until(part, |problems| {
            let problem = problems.get("bus").filter(|problem| problem.contains(part));
            problem.is_some_and(|problem| {
                found.replace(problem.clone());
                true
            })
        });
        found.into_inner()
    }

    fn until(&self, what: &str, state: impl Fn(&BTreeMap<&'static str, String>) -> bool) {
        let waited = async { tokio::time::timeout(clock::span(SOON), self.ready.until_degraded(state)).await };
        assert!(
            self.runtime.block_on(waited).is_ok(),
            "{what}: not within {SOON:?}, but {:?}",
            self.ready.degradations()
        );
    }

    fn ask(&mut self, submission: Submission) -> OpId {
        self.ask_within(submission, PATIENCE)
    }

    fn ask_within(&mut self, submission: Submission, patience: time::Duration) -> OpId {
        self.asked += 1;
        let op = OpId { incarnation: Incarnation(1), counter: self.asked };
        self.bus.submit(Asked { op, deadline: clock::now() + patience, submission });
        op
    }

    /// Takes what comes next, if anything comes within this.
    fn take(&mut self, within: Duration) -> bool {
        let Some(item) = self.inbox.take(within) else { return false };
        match item.into_event() {
            doors::Event::Bus(Event::Answered { op, answer }) => {
                assert!(self.answers.insert(op, *answer).is_none(), "{op} is answered once");
            }
            doors::Event::Bus(event) => self.told.push_back(event),
            other => panic!("{other:?} is not of the bus"),
        }
        true
    }

    /// The answer to an operation, within [`SOON`].
    fn answer(&mut self, op: OpId) -> Answer {
        let by = clock::now() + SOON;
        while !self.answers.contains_key(&op) {
            assert!(self.take(clock::until(by)), "{op} is answered");
        }
        self.answers[&op].clone()
    }

    fn call(&mut self, submission: Submission) -> Answer {
        let op = self.ask(submission);
        self.answer(op)
    }

    fn publish(&mut self, boss: u64, number: u64) -> Outcome<Published> {
        self.publish_after(boss, number, None)
    }

    fn publish_after(&mut self, boss: u64, number: u64, after: Option<u64>) -> Outcome<Published> {
        match self.call(publish(boss, number, after)) {
            Answer::Published(outcome) => outcome,
            other => panic!("{other:?}"),
        }
    }

    fn publish_within(&mut self, boss: u64, number: u64, patience: time::Duration) -> Outcome<Published> {
        let op = self.ask_within(publish(boss, number, None), patience);
        match self.answer(op) {
            Answer::Published(outcome) => outcome,
            other => panic!("{other:?}"),
        }
    }

    /// Opens a consumer and returns the operation that did.
    fn consume(&mut self, durable: Option<u32>, start: Start) -> OpId {
        let op = self.ask(consume(durable, start));
        assert_eq!(self.answer(op), Answer::Consuming(Outcome::Done(())));
        op
    }

    /// What a reader has been told once all of these have come: it opens another consumer as often as it has to, for whoever
    /// leads the cluster or the consumer may have to be elected first.
    fn followed(&mut self, wanted: &[u64]) -> Vec<u64> {
        let (mut seen, by) = (BTreeSet::new(), clock::now() + SOON);
        while !wanted.iter().all(|sequence| seen.contains(sequence)) {
            assert!(clock::now() < by, "only {seen:?} of {wanted:?}");
            let consumer = self.ask(consume(Some(7), Start::Beginning));
            if self.answer(consumer) != Answer::Consuming(Outcome::Done(())) {
                continue;
            }
            while !wanted.iter().all(|sequence| seen.contains(sequence)) {
                match self.told() {
                    Event::Delivered { message, .. } => {
                        seen.insert(message.sequence.0);
                    }
                    Event::Gap { .. } => break,
                    other => panic!("{other:?}"),
                }
            }
        }
        seen.into_iter().collect()
    }

    /// Closes a consumer.
    fn close(&mut self, consumer: OpId) {
        self.closed.insert(consumer);
        assert_eq!(self.call(Submission::Close(consumer)), Answer::Closed(Outcome::Done(())));
    }

    /// What consumers tell next. What was under way to one when it was closed may still come, and is passed over.
    fn told(&mut self) -> Event {
        loop {
            match self.told.pop_front() {
                Some(Event::Delivered { consumer, .. }) if self.closed.contains(&consumer) => {}
                Some(event) => return event,
                None => assert!(self.take(clock::span(SOON)), "there are news"),
            }
        }
    }

    fn message(&mut self, of: OpId) -> Arc<Message> {
        match self.told() {
            Event::Delivered { consumer, message } if consumer == of => message,
            other => panic!("{other:?} instead of a message"),
        }
    }

    /// Sequences and deliveries of the next messages.
    fn messages(&mut self, of: OpId, count: usize) -> Vec<(u64, u32)> {
        (0..count)
            .map(|_| {
                let message = self.message(of);
                (message.sequence.0, message.delivery)
            })
            .collect()
    }

    fn gap(&mut self, of: OpId) -> GapCause {
        loop {
            match self.told() {
                Event::Gap { consumer, cause } if consumer == of => return cause,
                Event::Delivered { .. } => {}
                other => panic!("{other:?} instead of a gap"),
            }
        }
    }

    fn acknowledge(&mut self, consumer: OpId, through: u64) -> Outcome<()> {
        match self.call(Submission::Acknowledge { consumer, through: StreamSequence(through) }) {
            Answer::Acknowledged(outcome) => outcome,
            other => panic!("{other:?}"),
        }
    }

    /// A client of NATS's own, for what no role does.
    fn jetstream(&self, url: &str) -> async_nats::jetstream::Context {
        let connected = async { async_nats::jetstream::new(async_nats::connect(url).await.expect("NATS is there")) };
        self.runtime.block_on(connected)
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        self.runtime.block_on(self.bus.close());
    }
}

fn boss(number: u64) -> EntityId {
    EntityId::new(EntityKind::Boss, number).expect("a small number")
}

fn publish(n: u64, number: u64, after: Option<u64>) -> Submission {
    Submission::Publish {
        subject: Subject::Fact(boss(n)),
        message: MessageId { entity: boss(n), number },
        after: after.map(StreamSequence),
        payload: number.to_le_bytes().as_slice().into(),
    }
}

fn consume(durable: Option<u32>, start: Start) -> Submission {
    Submission::Consume { durable: durable.map(|n| Durable(NodeId(n))), start }
}

fn stored(sequence: u64) -> Outcome<Published> {
    Outcome::Done(Published { sequence: StreamSequence(sequence), duplicate: false })
}

fn known(sequence: u64) -> Outcome<Published> {
    Outcome::Done(Published { sequence: StreamSequence(sequence), duplicate: true })
}
