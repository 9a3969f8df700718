//! What the bus's adapter promises: written down when something is asked, leaves, is stored and is delivered, and compared when
//! it is told.

use super::op;
use crate::{
    log::Log,
    script::{Mark, Stalls},
};
use std::collections::{BTreeMap, BTreeSet};
use worldline_proto::OpId;
use worldline_system::{
    Outcome, Refusal,
    doors::{
        Event as Told,
        bus::{Answer, Event, GapCause, Published},
    },
    time::Instant,
};

/// An operation.
#[derive(Debug)]
struct Operation {
    asked: Mark,
    deadline: Instant,
    what: What,
    told: bool,
}

#[derive(Debug)]
enum What {
    Publish(Publish),
    Consume(Consumer),
    /// Of this consumer: what must be known to the server once it is done, and how often the server had been told something.
    Tell {
        consumer: u64,
        must: BTreeSet<u64>,
        heard: u64,
    },
    Close,
}

#[derive(Debug, Default)]
struct Publish {
    /// Over which connection.
    left: Option<u64>,
    not_taken: Option<Refusal>,
    stored: Option<Published>,
    refused: Option<Refusal>,
    told: Option<Outcome<Published>>,
}

#[derive(Debug, Default)]
struct Consumer {
    opened: bool,
    stands: bool,
    /// Its reader has closed it.
    closed: bool,
    gap: Option<GapCause>,
    /// What was sent to it, and how much of that was told.
    sent: Vec<(u64, u32)>,
    told: usize,
    /// The server has deleted it.
    ended: bool,
    acknowledged: BTreeSet<u64>,
    /// How often the server was told something of its messages.
    heard: u64,
    /// The reader was told that it does not stand.
    not_serving: bool,
    /// What the reader has said may yet come to the server.
    under_way: bool,
}

/// All that was asked, and what became of it.
#[derive(Debug)]
pub struct Book {
    log: Log,
    stalls: Stalls,
    operations: BTreeMap<u64, Operation>,
    /// Of each connection: the last that had been asked when the first left over it, and the last of those behind it that left.
    leaving: BTreeMap<u64, (u64, u64)>,
    connections: u64,
    foreign: (u64, u64),
    closing: bool,
}

impl Book {
    pub fn new(stalls: Stalls) -> Self {
        let (log, operations, leaving) = (Log::default(), BTreeMap::new(), BTreeMap::new());
        Self { log, stalls, operations, leaving, connections: 0, foreign: (0, 0), closing: false }
    }

    pub fn note(&mut self, what: &'static str) {
        self.log.note(what);
    }

    fn asks(&mut self, deadline: Instant, what: What) -> u64 {
        let counter = self.operations.len() as u64 + 1;
        let asked = self.stalls.mark();
        self.operations.insert(counter, Operation { asked, deadline, what, told: false });
        counter
    }

    /// A publish is asked for.
    pub fn publishes(&mut self, deadline: Instant) -> u64 {
        self.asks(deadline, What::Publish(Publish::default()))
    }

    /// A consumer is asked for.
    pub fn consumes(&mut self, deadline: Instant) -> u64 {
        self.asks(deadline, What::Consume(Consumer::default()))
    }

    /// A reader says something of what it was told up to here, or of this one alone.
    pub fn tells(&mut self, deadline: Instant, consumer: u64, through: Option<u64>) -> u64 {
        let Consumer { sent, told, heard, .. } = self.consumer(consumer);
        let must = sent[..*told].iter().map(|(sequence, _)| *sequence).filter(|it| Some(*it) <= through).collect();
        let heard = *heard;
        self.asks(deadline, What::Tell { consumer, must, heard })
    }

    /// A reader closes its consumer.
    pub fn closes(&mut self, deadline: Instant, consumer: u64) -> u64 {
        self.consumer(consumer).closed = true;
        self.asks(deadline, What::Close)
    }

    fn publish(&mut self, counter: u64) -> (&mut Publish, bool) {
        match self.operations.get_mut(&counter) {
            Some(Operation { what: What::Publish(publish), told, .. }) => (publish, *told),
            other => panic!("{counter} is no publish, but {other:?}"),
        }
    }

    fn consumer(&mut self, counter: u64) -> &mut Consumer {
        match self.operations.get_mut(&counter) {
            Some(Operation { what: What::Consume(consumer), .. }) => consumer,
            other => panic!("{counter} is no consumer, but {other:?}"),
        }
    }

    /// Somebody connects.
    pub fn connects(&mut self, number: u64) {
        self.connections += 1;
        assert!(!self.closing, "somebody connects behind the end");
        self.log.tell(self.stalls.mark().at, "server", &format_args!("connection {number}"));
    }

    /// The connection has taken a publish.
    pub fn leaves(&mut self, counter: u64, connection: u64) {
        let asked = self.operations.len() as u64;
        let (publish, told) = self.publish(counter);
        assert!(publish.left.is_none(), "{counter} leaves once");
        assert!(!told, "{counter} leaves behind its answer");
        publish.left = Some(connection);
        let (before, last) = self.leaving.entry(connection).or_insert((asked, 0));
        if counter > *before {
            assert!(*last < counter, "{counter} leaves behind {last}, which was asked after it");
            *last = counter;
        }
    }

    /// The connection has not taken a publish.
    pub fn not_taken(&mut self, counter: u64, refusal: Refusal) {
        self.publish(counter).0.not_taken = Some(refusal);
    }

    /// The server has stored a publish, or has had it.
    pub fn stored(&mut self, counter: u64, published: Published) {
        let (publish, told) = self.publish(counter);
        assert!(!matches!(publish.told, Some(Outcome::Refused(_))), "{counter} was refused, and is stored");
        publish.stored = Some(published);
        if told {
            self.note("stored when it was given up");
        }
    }

    /// The server refuses a publish.
    pub fn refuses(&mut self, counter: u64, refusal: Refusal) {
        self.publish(counter).0.refused = Some(refusal);
    }

    /// The server has a consumer for this operation.
    pub fn opens(&mut self, op: OpId) {
        self.consumer(op.counter).opened = true;
    }

    pub fn delivers(&mut self, consumer: u64, sequence: u64, delivery: u32) {
        self.consumer(consumer).sent.push((sequence, delivery));
    }

    /// The server has deleted a consumer.
    pub fn ends(&mut self, consumer: u64) {
        self.consumer(consumer).ended = true;
    }

    pub fn acknowledged(&mut self, consumer: u64, sequence: u64) {
        let consumer = self.consumer(consumer);
        consumer.acknowledged.insert(sequence);
        consumer.heard += 1;
    }

    pub fn rejected(&mut self, consumer: u64) {
        self.consumer(consumer).heard += 1;
    }

    /// So many messages of others were sent to consumers, and so many were discarded.
    pub fn foreign(&mut self, sent: u64, discarded: u64) {
        self.foreign = (self.foreign.0 + sent, self.foreign.1 + discarded);
    }

    /// Whether an operation was answered.
    pub fn is_told(&self, counter: u64) -> bool {
        self.operations[&counter].told
    }

    /// What a consumer that stands has told, last first.
    pub fn heard(&mut self, consumer: u64) -> Option<Vec<u64>> {
        let Consumer { stands, closed, gap, sent, told, .. } = self.consumer(consumer);
        let stands = *stands && !*closed && gap.is_none();
        stands.then(|| sent[..*told].iter().rev().map(|(sequence, _)| *sequence).collect())
    }

    /// Somebody is told.
    pub fn told(&mut self, event: &Told) {
        let Told::Bus(event) = event else { return assert_eq!(event, &Told::Stop, "nobody's news") };
        let now = self.stalls.mark();
        self.log.tell(now.at, "caller", event);
        match event {
            Event::Answered { op, answer } => self.answered(*op, answer, now),
            Event::Delivered { consumer, message } => {
                let consumer = self.consumer(consumer.counter);
                assert!(consumer.stands && consumer.gap.is_none(), "{message:?} comes to nobody");
                let sent = consumer.sent.get(consumer.told).copied();
                assert_eq!(Some((message.sequence.0, message.delivery)), sent, "what was sent comes in its order");
                consumer.told += 1;
                if message.delivery > 1 {
                    self.note("delivered again");
                }
            }
            Event::Gap { consumer, cause } => {
                let closing = self.closing;
                let consumer = self.consumer(consumer.counter);
                assert!(consumer.stands && !closing, "a gap of what does not stand");
                assert_eq!(consumer.gap.replace(*cause), None, "a consumer ends once");
                if *cause == GapCause::Ended {
                    assert!(consumer.ended, "the server has not ended it");
                    assert_eq!(consumer.told, consumer.sent.len(), "all that came before the end is told before it");
                }
                self.note(match cause {
                    GapCause::Disconnected => "a gap: disconnected",
                    GapCause::Ended => "a gap: ended",
                    GapCause::Overflow => "a gap: overflow",
                });
            }
        }
    }

    fn answered(&mut self, op: OpId, answer: &Answer, now: Mark) {
        let operation = self.operations.get_mut(&op.counter).expect("only what was asked is answered");
        assert!(!operation.told, "{op} is answered twice");
        operation.told = true;
        operation.asked.prompt(now, operation.deadline, "an operation");
        let late = now.at >= operation.deadline;
        match (&mut operation.what, answer) {
            (What::Publish(publish), Answer::Published(outcome)) => {
                publish.told = Some(outcome.clone());
                let words = published(op, publish, outcome, late);
                self.note(words);
            }
            (What::Consume(consumer), Answer::Consuming(outcome)) => {
                let words = match outcome {
                    Outcome::Done(()) => {
                        assert!(consumer.opened, "{op} stands, and the server does not know of it");
                        consumer.stands = true;
                        "a consumer that stands"
                    }
                    Outcome::Unknown if consumer.opened => "a consumer that nobody knows of, and that was opened",
                    Outcome::Unknown => "a consumer that nobody knows of",
                    Outcome::Refused(refusal) => {
                        assert!(!consumer.opened, "{op} is refused, and was opened");
                        match refusal {
                            Refusal::Busy => "a consumer too many",
                            Refusal::NoStream => "a consumer of no stream",
                            Refusal::NotServing => "a consumer of another's stream",
                            Refusal::Unreachable => "a consumer without a connection",
                            other => panic!("{op} is refused as {other:?}"),
                        }
                    }
                };
                self.note(words);
            }
            (What::Tell { consumer, must, heard }, Answer::Acknowledged(outcome) | Answer::Rejected(outcome)) => {
                let (consumer, must, heard) = (*consumer, std::mem::take(must), *heard);
                let acknowledges = matches!(answer, Answer::Acknowledged(_));
                self.has_told(op, consumer, (must, heard), acknowledges, outcome);
            }
            (What::Close, Answer::Closed(Outcome::Done(()))) => {}
            (what, answer) => panic!("{op} is answered with {answer:?}, where it asked {what:?}"),
        }
    }

    /// A reader hears what became of what it said of its messages.
    fn has_told(
        &mut self,
        op: OpId,
        consumer: u64,
        (must, before): (BTreeSet<u64>, u64),
        acknowledges: bool,
        outcome: &Outcome<()>,
    ) {
        let Consumer { acknowledged, heard, not_serving, under_way, .. } = self.consumer(consumer);
        let words = match outcome {
            Outcome::Done(()) if acknowledges => {
                let missing: Vec<_> = must.difference(acknowledged).collect();
                assert!(missing.is_empty(), "{op}: the server does not know of {missing:?}");
                "acknowledged"
            }
            Outcome::Done(()) => {
                assert!(*heard > before, "{op}: the server has not heard of it");
                "rejected"
            }
            Outcome::Unknown => {
                *under_way = true;
                if *heard > before { "told, and unknown" } else { "not told, and unknown" }
            }
            Outcome::Refused(refusal) => {
                assert!(*heard == before || *under_way, "{op} is refused, and the server has heard of it");
                *not_serving |= acknowledges && *refusal == Refusal::NotServing;
                assert!(matches!(refusal, Refusal::NotServing | Refusal::Unreachable), "{op}: {refusal:?}");
                "of a consumer that does not stand, or too late"
            }
        };
        self.note(words);
    }

    /// The adapter is about to be closed.
    pub fn closing(&mut self) {
        self.closing = true;
    }

    /// The adapter is closed: these were asked before, and that behind it.
    pub fn closed(&mut self, last: &[u64], refused: u64, unreadable: u64) {
        for counter in last {
            assert!(self.is_told(*counter), "{} was asked before the end and is not answered", op(*counter));
        }
        let unreachable = Some(Outcome::Refused(Refusal::Unreachable));
        assert_eq!(self.publish(refused).0.told, unreachable, "what is asked behind the end is refused");
        let (foreign, discarded) = self.foreign;
        assert!(unreadable == discarded && unreadable <= foreign, "{unreadable} of {foreign}, {discarded} discarded");
    }

    /// Everything has ended.
    pub fn ended(&mut self, now: Instant) {
        for (counter, Operation { told, what, .. }) in &self.operations {
            assert!(told, "{} is not answered", op(*counter));
            if let What::Consume(Consumer { not_serving: true, closed, gap, .. }) = what {
                assert!(*closed || gap.is_some(), "{} does not stand, and nobody was told", op(*counter));
            }
        }
        // At least half the first wait is between two rounds.
        assert!(self.connections <= 4 + now.as_nanos() / 10_000_000, "{} connections by {now:?}", self.connections);
    }

    pub fn log(&mut self) -> Log {
        std::mem::take(&mut self.log)
    }
}

/// What an answer to a publish is, if it is right.
fn published(op: OpId, publish: &Publish, outcome: &Outcome<Published>, late: bool) -> &'static str {
    match outcome {
        Outcome::Done(published) => {
            assert_eq!(Some(*published), publish.stored, "{op}: its own answer");
            if published.duplicate { "a duplicate" } else { "stored" }
        }
        Outcome::Unknown => {
            assert!(publish.left.is_some(), "{op} has not left, and nobody knows what became of it");
            if publish.stored.is_some() { "unknown, and stored" } else { "unknown, and not stored" }
        }
        Outcome::Refused(refusal) => {
            assert!(publish.stored.is_none(), "{op} is refused, and was stored");
            let said = publish.refused.or(publish.not_taken);
            match (refusal, said) {
                (_, Some(said)) if said == *refusal => match refusal {
                    Refusal::Busy => "refused by a connection that takes no more",
                    Refusal::Unreachable => "refused by a connection that is over",
                    _ => "refused by the server",
                },
                (Refusal::Unreachable | Refusal::NotServing, None) => {
                    assert!(publish.left.is_none(), "{op} has left, and is refused");
                    match refusal {
                        Refusal::NotServing => "refused for another's stream",
                        _ if late => "refused behind its deadline",
                        _ => "refused before its deadline",
                    }
                }
                _ => panic!("{op} is refused as {refusal:?}, where {said:?} was said"),
            }
        }
    }
}
