//! The cache door, served by a Redis-protocol server: Valkey, Redis 6.2 or newer, or Dragonfly.
//!
//! * Every submission is answered once, or the host ends it at its deadline. Where there is no connection it is refused at once:
//!   nobody waits for a cache.
//! * All that is asked is executed in that order, in batches on one connection (`keeper`). `Refused` is certain: what never left,
//!   and what the server says before it has written anything. What was sent on a connection that broke is `Unknown`.
//! * What must not be seen by halves, and every write with its time to live, is one script at the server (`scripts`).
//! * An entry of another type is deleted by who finds it and counted. A read of it is a miss.
//! * A role is ready without the cache: `/health` says that it is degraded, and why.
//!
//! Deliberately absent: TLS to the cache; sharding; a memory of our own.

mod asks;
mod config;
mod keeper;
mod link;
mod replies;
mod requests;
mod scripts;
#[cfg(test)]
mod tests;

pub use config::{BadEndpoint, Config, Endpoint};

use crate::{
    Inbox,
    machine::{self, Machine},
    ready::Readiness,
};
use asks::Asks;
use keeper::Keeper;
use requests::Work;
use std::{
    fmt,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{runtime::Handle, task::JoinHandle, time::timeout};
use worldline_proto::OpId;
use worldline_system::{
    Refusal,
    doors::{
        Asked, Event,
        cache::{self, Ask, Submission},
    },
    outcome::End,
};

/// How long who closes waits for answers.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// The adapter. Clones share one connection; it lives until it is closed.
#[derive(Clone)]
pub struct Cache(Arc<Shared>);

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache").finish_non_exhaustive()
    }
}

struct Shared {
    inbox: Inbox,
    counters: Counters,
    asks: Arc<Asks>,
    keeper: Mutex<Option<JoinHandle<()>>>,
}

/// What an adapter has counted. Clones count together.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counters(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    wrong_types: AtomicU64,
    unreadable: AtomicU64,
    lost_connections: AtomicU64,
}

impl Counters {
    fn wrong_type(&self) {
        self.0.wrong_types.fetch_add(1, Ordering::Relaxed);
    }

    fn unreadable(&self) {
        self.0.unreadable.fetch_add(1, Ordering::Relaxed);
    }

    fn lost_connection(&self) {
        self.0.lost_connections.fetch_add(1, Ordering::Relaxed);
    }
}

impl Cache {
    /// Begins to look for the cache; must be called inside a tokio runtime. `ready` hears of `"cache"`: degraded, and why, until
    /// there is a connection, and again whenever there is none.
    #[must_use]
    pub fn new(config: Config, inbox: Inbox, ready: Readiness) -> Self {
        Self::on(machine::own(), config, inbox, ready)
    }

    /// As [`Cache::new`], on this machine.
    #[must_use]
    pub fn on(machine: Arc<dyn Machine>, config: Config, inbox: Inbox, ready: Readiness) -> Self {
        ready.degraded(keeper::NEED, format!("not yet connected to the cache at {}", link::addresses(&config)));
        let asks = Arc::new(Asks::new(inbox.clone()));
        let counters = Counters::default();
        let keeper =
            Keeper { machine, config, inbox: inbox.clone(), ready, counters: counters.clone(), asked: asks.clone() };
        let keeper = Handle::current().spawn(keeper.keep());
        Self(Arc::new(Shared { inbox, counters, asks, keeper: Mutex::new(Some(keeper)) }))
    }

    /// Where no cache is configured: everything is refused at once.
    #[must_use]
    pub fn absent(inbox: Inbox) -> Self {
        let (asks, counters) = (Arc::new(Asks::new(inbox.clone())), Counters::default());
        asks.close();
        Self(Arc::new(Shared { inbox, counters, asks, keeper: Mutex::new(None) }))
    }

    /// Takes a submission and never waits.
    pub fn submit(&self, asked: Asked<Submission>) {
        let Asked { op, deadline, submission } = asked;
        let ask = Ask::from(&submission);
        if !submission.is_bounded() {
            return self.0.refuse(op, ask, Refusal::Malformed);
        }
        if let Err(refusal) = self.0.asks.put(Work::Ask { op, deadline, submission, forgotten: false }) {
            self.0.refuse(op, ask, refusal);
        }
    }

    /// Each count by its name.
    #[must_use]
    pub fn counters(&self) -> [(&'static str, u64); 3] {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let counts = &self.0.counters.0;
        [
            ("wrong_types", read(&counts.wrong_types)),
            ("unreadable", read(&counts.unreadable)),
            ("lost_connections", read(&counts.lost_connections)),
        ]
    }

    /// Ends the connection and the task, and returns when they have ended. What was asked has a second to be answered; what is
    /// asked from now on is refused.
    #[must_use = "nothing is closed before it is awaited"]
    pub fn close(&self) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let shared = self.0.clone();
        Box::pin(async move {
            shared.asks.close();
            let keeper = shared.keeper.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(mut keeper) = keeper
                && timeout(LAST_WORDS, &mut keeper).await.is_err()
            {
                keeper.abort();
                // It has ended; a panic of it is its own report.
                let _ = keeper.await;
            }
        })
    }
}

impl Shared {
    fn refuse(&self, op: OpId, ask: Ask, refusal: Refusal) {
        let answer = Box::new(ask.ended(End::Refused(refusal)));
        self.inbox.answer(op, Event::Cache(cache::Event { op, answer }));
    }
}
