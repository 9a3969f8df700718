//! The bus door, served by NATS 2.10 or newer with JetStream.
//!
//! * Every submission is answered once, a few milliseconds before its deadline at the latest.
//! * `Refused` is certain: what never left, and what JetStream says that it has not stored. All else is `Unknown`, and nothing
//!   is ever sent twice.
//! * An adapter speaks with one server at a time, and with another when that one is gone (`link`). With the connection end its
//!   consumers, each with a gap.
//! * The stream is made where there is none, with three members where there is a cluster (`nats::stream`). One that has other limits
//!   than the door says is not touched and not used: what differs stands in `/health`.
//! * The loops are over any client (`client`); production's is async-nats (`nats`).
//! * A role is ready without the bus: `/health` says that it is degraded, and why. What is published later is late, not lost.
//! * A message on a subject that is none of the door's, or larger than its bound, is taken off and counted: no role hears of it.
//!
//! Deliberately absent: TLS to NATS; other streams; where in a cluster the stream's members are, which is its operator's.

pub mod client;
mod config;
mod consumers;
mod link;
#[cfg(not(madsim))]
mod nats;
mod publishes;
#[cfg(test)]
mod tests;

pub use config::{Config, Endpoint, Limits};
#[cfg(not(madsim))]
pub use nats::STREAM;

use crate::{Inbox, clock, ready::Readiness};
use bytes::Bytes;
use client::{Client, Publish};
use consumers::Consumers;
use link::{CONNECT, Link};
use publishes::Asker;
use std::{
    fmt,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    runtime::Handle,
    sync::{Mutex, RwLock, Semaphore, watch},
    task::JoinHandle,
    time::{Instant, timeout_at},
};
use worldline_proto::OpId;
use worldline_system::{
    Outcome, Refusal,
    doors::{
        Asked, Event,
        bus::{self, Answer, Ask, Submission},
    },
    limits,
    outcome::End,
};

/// A future that leaves this crate.
pub type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// How long before its deadline an operation is answered at the latest: the answer has still to reach its role.
const MARGIN: Duration = Duration::from_millis(5);
/// How long who closes waits for answers.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// The adapter. Clones share one connection; it lives until it is closed.
#[derive(Clone)]
pub struct Bus(Arc<Shared>);

impl fmt::Debug for Bus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bus").finish_non_exhaustive()
    }
}

struct Shared {
    inbox: Inbox,
    runtime: Handle,
    link: Link,
    consumers: Consumers,
    /// A permit for each operation that is not yet answered, and for each consumer that has not yet ended.
    in_flight: Arc<Semaphore>,
    /// Read by each operation that is not yet answered, consumers apart; written by who closes.
    asked: Arc<RwLock<()>>,
    closing: watch::Sender<bool>,
    keeper: Mutex<Option<JoinHandle<()>>>,
    foreign: AtomicU64,
}

/// All that can be in flight: the operations of a node, and its consumers, each perhaps with one that is ending.
const PERMITS: u32 = (limits::OPERATIONS_IN_FLIGHT + 2 * limits::BUS_CONSUMERS) as u32;

impl Bus {
    /// Begins to look for NATS; must be called inside a tokio runtime. `ready` hears of `"bus"`: degraded, and why, until the
    /// stream is there and ours, and again whenever it is not.
    #[cfg(not(madsim))]
    #[must_use]
    pub fn new(config: Config, inbox: Inbox, ready: Readiness) -> Self {
        Self::with_limits(config, Limits::default(), inbox, ready)
    }

    /// The same for a world whose stream keeps and recognises more or less than the door says.
    #[cfg(not(madsim))]
    #[must_use]
    pub fn with_limits(config: Config, limits: Limits, inbox: Inbox, ready: Readiness) -> Self {
        Self::on(Arc::new(nats::Nats), config, limits, inbox, ready)
    }

    /// The same with this client.
    #[must_use]
    pub fn on(client: Arc<dyn Client>, config: Config, limits: Limits, inbox: Inbox, ready: Readiness) -> Self {
        let (closing, closed) = watch::channel(false);
        let (link, keep) = Link::new(client, config, limits, inbox.clone(), ready, closed);
        let keeper = Some(Handle::current().spawn(keep));
        Self::with(inbox, link, closing, keeper)
    }

    /// Where no bus is configured: everything is refused. Must be called inside a tokio runtime.
    #[must_use]
    pub fn absent(inbox: Inbox) -> Self {
        Self::with(inbox, Link::absent(), watch::channel(false).0, None)
    }

    fn with(inbox: Inbox, link: Link, closing: watch::Sender<bool>, keeper: Option<JoinHandle<()>>) -> Self {
        Self(Arc::new(Shared {
            inbox,
            runtime: Handle::current(),
            link,
            consumers: Consumers::default(),
            in_flight: Arc::new(Semaphore::new(PERMITS as usize)),
            asked: Arc::default(),
            closing,
            keeper: Mutex::new(keeper),
            foreign: AtomicU64::new(0),
        }))
    }

    /// Takes a submission and never waits. It is answered once, before its deadline.
    pub fn submit(&self, asked: Asked<Submission>) {
        let Asked { op, deadline, submission } = asked;
        let ask = Ask::from(&submission);
        let refused = |refusal| self.0.answer(op, ask.ended(End::Refused(refusal)));
        match &submission {
            Submission::Close(consumer) => {
                self.0.consumers.end(*consumer);
                return self.0.answer(op, Answer::Closed(Outcome::Done(())));
            }
            Submission::Publish { payload, .. } if payload.len() > limits::BUS_PAYLOAD_BYTES => {
                return refused(Refusal::Malformed);
            }
            _ => {}
        }
        if *self.0.closing.borrow() {
            return refused(Refusal::Unreachable);
        }
        let Ok(asked) = self.0.asked.clone().try_read_owned() else { return refused(Refusal::Unreachable) };
        let Ok(permit) = self.0.in_flight.clone().try_acquire_owned() else { return refused(Refusal::Busy) };
        let by = Instant::now() + clock::until(deadline).saturating_sub(MARGIN);
        let shared = self.0.clone();
        match submission {
            Submission::Publish { subject, message, after, payload } => {
                let publish = Publish { subject, message, after, payload: Bytes::copy_from_slice(&payload) };
                let asker = Asker { op, by, _held: (permit, asked) };
                match self.0.link.present() {
                    Some(line) => line.publishes.send(&line, publish, asker),
                    None => drop(self.0.runtime.spawn(async move { shared.publish_later(publish, asker).await })),
                }
            }
            Submission::Consume { durable, start } => {
                let Some(stop) = self.0.consumers.begin(op) else { return refused(Refusal::Busy) };
                self.0.runtime.spawn(async move {
                    consumers::run(&shared, op, by, durable, start, stop).await;
                    drop(permit);
                });
            }
            submission => {
                self.0.runtime.spawn(async move {
                    let answer = shared.perform(by, submission).await;
                    shared.answer(op, answer);
                    drop((permit, asked));
                });
            }
        }
    }

    /// Each count by its name: messages that were taken off the stream because no role could have read them.
    #[must_use]
    pub fn counters(&self) -> [(&'static str, u64); 1] {
        [("unreadable", self.0.foreign.load(Ordering::Relaxed))]
    }

    /// Ends all connections and tasks, and returns when they have ended. What was asked has a second to be answered; what
    /// is asked from now on is refused.
    #[must_use = "nothing is closed before it is awaited"]
    pub fn close(&self) -> Boxed<()> {
        let shared = self.0.clone();
        Box::pin(async move {
            let last_words = Instant::now() + LAST_WORDS;
            // Answered or not: from here on nothing is taken.
            let _answered = timeout_at(last_words, shared.asked.write()).await;
            shared.closing.send_replace(true);
            if let Some(keeper) = shared.keeper.lock().await.take() {
                // It ends by itself, and a panic of it is its own report.
                let _ = keeper.await;
            }
            // The semaphore is never closed; who holds a permit gives it back at its deadline at the latest.
            let _all = shared.in_flight.acquire_many(PERMITS).await;
        })
    }
}

impl Shared {
    fn answer(&self, op: OpId, answer: Answer) {
        let answer = Box::new(answer);
        self.inbox.answer(op, Event::Bus(bus::Event::Answered { op, answer }));
    }

    /// A message that no role can read.
    fn foreign(&self, subject: &str) {
        let before = self.foreign.fetch_add(1, Ordering::Relaxed);
        if before == 0 {
            tracing::warn!(subject, "something on the bus is none of ours: it is passed over, and counted from now on");
        }
    }

    async fn perform(&self, by: Instant, submission: Submission) -> Answer {
        match submission {
            Submission::Acknowledge { consumer, through } => {
                Answer::Acknowledged(self.acknowledge(by, consumer, through).await)
            }
            Submission::Reject { consumer, sequence } => Answer::Rejected(self.reject(by, consumer, sequence).await),
            Submission::Publish { .. } | Submission::Consume { .. } | Submission::Close(_) => {
                unreachable!("a consumer has a task of its own; the others need none")
            }
        }
    }

    /// Publishes as soon as there is a connection.
    async fn publish_later(&self, publish: Publish, asker: Asker) {
        let found_by = asker.by.min(Instant::now() + CONNECT);
        match self.link.line(found_by).await {
            Some(line) => line.publishes.send(&line, publish, asker),
            None => {
                let refused = Outcome::Refused(Refusal::Unreachable);
                self.answer(asker.op, Answer::Published(refused));
            }
        }
    }
}
