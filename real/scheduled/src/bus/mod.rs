//! The bus's adapter over a client that a script plays: publishes and consumers while connections end, fall silent and take no
//! more, and readers that do not keep up.

mod book;
mod line;
mod server;

use crate::{
    log::Log,
    script::{SLACK, Stalls, between, draws, one_in, pause},
};
use book::Book;
use line::Leads;
use madsim::{runtime::Handle, task::spawn, time::timeout};
use server::Nats;
use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, Ordering},
};
use worldline_proto::{EntityId, EntityKind, Incarnation, NodeId, OpId};
use worldline_real::{
    Inbox,
    bus::{Bus, Config, Limits},
    clock,
    ready::Readiness,
};
use worldline_system::{
    doors::{
        Asked, Event,
        bus::{Durable, MessageId, Start, StreamSequence, Subject, Submission},
        entropy::Entropy,
    },
    time::{Duration, UnixTime},
};

/// A server that has become well is found again within this, and all that is under way has ended.
const FOUND_AGAIN_S: u64 = 30;
/// How long who closes waits for answers, and then for the server to delete consumers.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// What all tasks of a life write into.
#[derive(Clone, Debug)]
struct Shared(Arc<Mutex<Book>>);

impl Shared {
    fn book(&self) -> MutexGuard<'_, Book> {
        // Whoever panics ends the run.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whoever asks an adapter, and the adapter.
#[derive(Clone)]
struct Caller {
    book: Shared,
    bus: Bus,
}

/// One life of an adapter.
pub async fn life() -> Log {
    let (inbox, ready, stalls) = (Inbox::default(), Readiness::default(), Stalls::default());
    let book = Shared(Arc::new(Mutex::new(Book::new(stalls.clone()))));
    let nats = Arc::new(Nats::new(book.clone()));
    let endpoints = ["nats://first:1", "nats://second:2"];
    let endpoints = endpoints[..1 + draws(0).below(2) as usize].iter().map(|each| each.parse().expect("an address"));
    let config = Config { endpoints: endpoints.collect() };
    let bus = Bus::on(Arc::new(Leads(nats.clone())), config, Limits::default(), inbox.clone(), ready.clone());
    let caller = Caller { book: book.clone(), bus };
    let over = Arc::new(AtomicBool::new(false));
    let told = spawn(hears(book.clone(), inbox, stalls.clone(), nats.clone(), over.clone()));
    let still = spawn(stands_still(stalls.clone(), over.clone()));
    let publishers = (0..2).map(|who| spawn(caller.clone().publishes(who)));
    let readers = (0..3).map(|who| spawn(caller.clone().reads(who)));
    for task in publishers.chain(readers).collect::<Vec<_>>() {
        task.await.expect("no panic");
    }
    nats.heal();
    let span = std::time::Duration::from_secs(FOUND_AGAIN_S);
    timeout(span, ready.until_degraded(|lacks| lacks.is_empty())).await.expect("a server that is well is found again");
    // One that is silent may not have been noticed yet.
    pause(Duration::from_secs(4)).await;
    timeout(span, ready.until_degraded(|lacks| lacks.is_empty())).await.expect("a server that is well stays");
    timeout(span, caller.reads_all(nats.messages())).await.expect("a reader is told all that is stored");
    let last: Vec<u64> = (0..8).map(|n| caller.publish(1_000 + n, Duration::from_secs(9))).collect();
    // As often as not while they are under way.
    if one_in(&mut draws(1), 2) {
        pause(Duration::from_millis(20)).await;
    }
    let closing = stalls.mark();
    book.book().closing();
    caller.bus.close().await;
    closing.prompt(stalls.mark(), closing.at + LAST_WORDS, "the end of an adapter");
    let refused = caller.publish(2_000, Duration::from_secs(9));
    // Whoever hears has its turn.
    pause(Duration::from_secs(1)).await;
    let [(_, unreadable)] = caller.bus.counters();
    book.book().closed(&last, refused, unreadable);
    over.store(true, Ordering::Relaxed);
    told.await.expect("no panic");
    still.await.expect("no panic");
    drop(caller);
    assert_eq!(nats.connections(), 0, "no connection is left");
    timeout(span, async {
        while Handle::current().metrics().num_tasks() > 1 {
            pause(Duration::from_millis(100)).await;
        }
    })
    .await
    .expect("no task is left");
    let mut book = book.book();
    book.ended(clock::now());
    book.log()
}

impl Caller {
    fn publish(&self, number: u64, patience: Duration) -> u64 {
        let mut book = self.book.book();
        let deadline = clock::now() + patience;
        let counter = book.publishes(deadline);
        let entity = EntityId::new(EntityKind::Boss, 1).expect("in range");
        let (subject, message) = (Subject::Fact(entity), MessageId { entity, number });
        let payload = counter.to_le_bytes().as_slice().into();
        // In the order of the book, whoever else asks.
        self.submit(counter, patience, Submission::Publish { subject, message, after: None, payload });
        counter
    }

    fn consume(&self, durable: Option<Durable>, patience: Duration) -> u64 {
        let mut book = self.book.book();
        let counter = book.consumes(clock::now() + patience);
        // Each has its own moment, long ago: the script tells it by that.
        let start = Start::Time(UnixTime::from_nanos(counter));
        self.submit(counter, patience, Submission::Consume { durable, start });
        counter
    }

    fn submit(&self, counter: u64, patience: Duration, submission: Submission) {
        self.bus.submit(Asked { op: op(counter), deadline: clock::now() + patience, submission });
    }

    async fn answered(&self, counter: u64) {
        while !self.book.book().is_told(counter) {
            pause(Duration::from_millis(2)).await;
        }
    }

    async fn publishes(self, who: u64) {
        let mut draws = draws(10 + who);
        let mut number = 0;
        for _ in 0..10 + draws.below(20) {
            let long = one_in(&mut draws, 6);
            pause(between(&mut draws, Duration::ZERO, Duration::from_millis(if long { 1_500 } else { 30 }))).await;
            let crowd = if one_in(&mut draws, 10) { 30 } else { 4 };
            for _ in 0..1 + draws.below(crowd) {
                number += 1;
                let again = one_in(&mut draws, 6);
                let named = if again { 1 + draws.below(number) } else { number };
                let patience = between(&mut draws, Duration::ZERO, Duration::from_millis(500));
                self.publish(named * 2 + who, patience);
            }
        }
    }

    async fn reads(self, who: u64) {
        let mut draws = draws(20 + who);
        // One of them goes on where it was.
        let durable = (who == 0).then_some(Durable(NodeId(7)));
        for _ in 0..3 + draws.below(5) {
            pause(between(&mut draws, Duration::ZERO, Duration::from_millis(500))).await;
            let patience = between(&mut draws, Duration::ZERO, Duration::from_secs(2));
            let consumer = self.consume(durable, patience);
            // Sometimes it is closed before it stands.
            if !one_in(&mut draws, 8) {
                self.answered(consumer).await;
                for _ in 0..draws.below(12) {
                    self.says(&mut draws, consumer).await;
                }
            }
            let counter = self.book.book().closes(clock::now() + SLACK, consumer);
            self.submit(counter, SLACK, Submission::Close(op(consumer)));
            self.answered(counter).await;
            self.answered(consumer).await;
        }
    }

    /// Reads until so many were told, and leaves its consumer open.
    async fn reads_all(&self, messages: u64) {
        let patience = Duration::from_secs(9);
        let consumer = self.consume(None, patience);
        self.answered(consumer).await;
        loop {
            let heard = self.book.book().heard(consumer).expect("all is well").into_iter().max().unwrap_or(0);
            if heard == messages {
                return;
            }
            let submission = Submission::Acknowledge { consumer: op(consumer), through: StreamSequence(heard) };
            let counter = self.book.book().tells(clock::now() + patience, consumer, Some(heard));
            self.submit(counter, patience, submission);
            self.answered(counter).await;
        }
    }

    /// Says something of what it was told, and waits until that is answered.
    async fn says(&self, draws: &mut Entropy, consumer: u64) {
        let long = one_in(draws, 12);
        pause(between(draws, Duration::ZERO, Duration::from_millis(if long { 6_000 } else { 300 }))).await;
        let heard = self.book.book().heard(consumer).unwrap_or_default();
        let Some(at) = heard.len().checked_sub(1) else { return };
        let sequence = heard[draws.below(at as u64 + 1) as usize];
        let patience = between(draws, Duration::ZERO, Duration::from_millis(600));
        let deadline = clock::now() + patience;
        let (consumer_op, place) = (op(consumer), StreamSequence(sequence));
        let (through, submission) = if one_in(draws, 3) {
            (None, Submission::Reject { consumer: consumer_op, sequence: place })
        } else {
            (Some(sequence), Submission::Acknowledge { consumer: consumer_op, through: place })
        };
        let counter = self.book.book().tells(deadline, consumer, through);
        self.submit(counter, patience, submission);
        self.answered(counter).await;
    }
}

/// Hears, but that it is held up now and then, with an inbox full of others' news.
async fn hears(book: Shared, inbox: Inbox, stalls: Stalls, nats: Arc<Nats>, over: Arc<AtomicBool>) {
    let mut draws = draws(3);
    let crowded = one_in(&mut draws, 3);
    while !over.load(Ordering::Relaxed) {
        let Some(event) = inbox.awaited_event(std::time::Duration::from_millis(100)).await else { continue };
        book.book().told(&event);
        if crowded && event != Event::Stop && one_in(&mut draws, 50) && !nats.is_well() {
            let span = between(&mut draws, Duration::ZERO, Duration::from_millis(200));
            while inbox.news(Event::Stop) {}
            pause(span).await;
            stalls.hold_up(span + SLACK);
        }
    }
}

async fn stands_still(stalls: Stalls, over: Arc<AtomicBool>) {
    let mut draws = draws(2);
    let stalled = one_in(&mut draws, 2);
    while !over.load(Ordering::Relaxed) {
        pause(between(&mut draws, Duration::ZERO, Duration::from_millis(500))).await;
        if stalled && !over.load(Ordering::Relaxed) {
            stalls.stall(between(&mut draws, Duration::ZERO, Duration::from_millis(300)));
        }
    }
}

/// An operation's name.
fn op(counter: u64) -> OpId {
    OpId { incarnation: Incarnation(1), counter }
}
