//! The directory door, served by etcd 3.4 or newer.
//!
//! * Every submission is answered once, a few milliseconds before its deadline at the latest.
//! * `Refused` is certain: what never left, and what etcd says before it proposes a request or after it has applied it. All
//!   else is `Unknown`; nothing is ever sent twice but what may be: reads, renewals, and what certainly never left.
//! * An adapter speaks with one member at a time, and with another when that one is gone (`link`).
//! * The loops are over any client (`client`); production's is etcd-client (`etcd`).
//! * A watch goes on after the loss of its connection where it stood, if nothing can be missed; else it has a gap (`watch`).
//! * A key or a value that cannot be read, because somebody wrote it by hand, is to the roles not there: not in a page, not in
//!   a transaction's reads, deleted in a watch. etcd compares it nevertheless, so nobody overwrites it unawares.
//! * A page is in the order of etcd, which is that of the paths' bytes: `boss-10` before `boss-2`. `after` is meant in the same
//!   order.
//!
//! Deliberately absent: TLS to etcd; any caching.

mod calls;
pub mod client;
mod config;
#[cfg(not(madsim))]
mod etcd;
mod leases;
mod link;
#[cfg(test)]
mod tests;
mod watch;

pub use config::{Config, Endpoint};
#[cfg(not(madsim))]
pub use etcd::{Owner, WhoOwnsError, codec, who_owns};

#[cfg(not(madsim))]
use crate::machine;
use crate::{Inbox, machine::Machine, ready::Readiness};
use client::{Client, Verdict};
use leases::Leases;
use link::Link;
use std::{fmt, pin::Pin, sync::Arc, time::Duration};
use tokio::{
    runtime::Handle,
    sync::{Mutex, RwLock, Semaphore, watch as news},
    task::JoinHandle,
    time::{Instant, timeout_at},
};
use watch::Watches;
use worldline_proto::OpId;
use worldline_system::{
    Outcome, Refusal,
    doors::{
        Asked, Event,
        directory::{self, Answer, Ask, Submission},
        entropy::Entropy,
    },
    limits,
    outcome::End,
    time,
};

/// A future that leaves this crate.
pub type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// How long before its deadline an operation is answered at the latest: the answer has still to reach its role.
const MARGIN: Duration = Duration::from_millis(5);
/// How long who closes waits for answers: a role's last word gives its lease back.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Requests that etcd is asked at the same time; more wait for one to end.
const CALLS: usize = 256;

/// The adapter. Clones share one connection; it lives until it is closed.
#[derive(Clone)]
pub struct Directory(Arc<Shared>);

impl fmt::Debug for Directory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Directory").finish_non_exhaustive()
    }
}

struct Shared {
    machine: Arc<dyn Machine>,
    inbox: Inbox,
    runtime: Handle,
    link: Link,
    leases: Leases,
    watches: Watches,
    /// A permit for each operation that is not yet answered, and for each watch that has not yet ended.
    in_flight: Arc<Semaphore>,
    calls: Semaphore,
    /// Read by each operation that is not yet answered, watches apart; written by who closes.
    asked: Arc<RwLock<()>>,
    closing: news::Sender<bool>,
    keeper: Mutex<Option<JoinHandle<()>>>,
}

/// All that can be in flight: the operations of a node, and its watches.
const PERMITS: u32 = (limits::OPERATIONS_IN_FLIGHT + watch::WATCHES) as u32;

impl Directory {
    /// Begins to look for etcd; must be called inside a tokio runtime. `ready` hears of `"directory"`: missing, and why, until
    /// etcd serves a linearizable read, and again whenever it does not.
    #[cfg(not(madsim))]
    #[must_use]
    pub fn new(config: Config, inbox: Inbox, ready: Readiness) -> Self {
        Self::on(machine::own(), config, inbox, ready)
    }

    /// As [`Directory::new`], on this machine.
    #[cfg(not(madsim))]
    #[must_use]
    pub fn on(machine: Arc<dyn Machine>, config: Config, inbox: Inbox, ready: Readiness) -> Self {
        Self::over(Arc::new(etcd::Etcd(machine.clone())), machine, config, inbox, ready)
    }

    /// The same with this client.
    #[must_use]
    pub fn over(
        client: Arc<dyn Client>,
        machine: Arc<dyn Machine>,
        config: Config,
        inbox: Inbox,
        ready: Readiness,
    ) -> Self {
        let (closing, closed) = news::channel(false);
        let entropy = machine.entropy().unwrap_or_else(|_| Entropy::from_seed([0; 32]));
        let (link, keep) = Link::new(client, entropy, config, ready, closed);
        let runtime = Handle::current();
        let keeper = Mutex::new(Some(runtime.spawn(keep)));
        Self(Arc::new(Shared {
            machine,
            inbox,
            runtime,
            link,
            leases: Leases::default(),
            watches: Watches::default(),
            in_flight: Arc::new(Semaphore::new(PERMITS as usize)),
            calls: Semaphore::new(CALLS),
            asked: Arc::default(),
            closing,
            keeper,
        }))
    }

    /// Takes a submission and never waits. It is answered once, before its deadline.
    pub fn submit(&self, asked: Asked<Submission>) {
        let Asked { op, deadline, submission } = asked;
        let ask = Ask::from(&submission);
        if let Submission::Unwatch(watch) = submission {
            self.0.watches.end(watch);
            return self.0.answer(op, Answer::Unwatched(Outcome::Done(())));
        }
        if let Some(refusal) = calls::malformed(&submission) {
            return self.0.answer(op, ask.ended(End::Refused(refusal)));
        }
        if *self.0.closing.borrow() {
            return self.0.answer(op, ask.ended(End::Refused(Refusal::Unreachable)));
        }
        let Ok(asked) = self.0.asked.clone().try_read_owned() else {
            return self.0.answer(op, ask.ended(End::Refused(Refusal::Unreachable)));
        };
        let Ok(permit) = self.0.in_flight.clone().try_acquire_owned() else {
            return self.0.answer(op, ask.ended(End::Refused(Refusal::Busy)));
        };
        let deadline = Deadline::new(&*self.0.machine, deadline);
        let shared = self.0.clone();
        if let Submission::Watch { family, from } = submission {
            let Some(stop) = self.0.watches.begin(op) else {
                return self.0.answer(op, ask.ended(End::Refused(Refusal::Busy)));
            };
            self.0.runtime.spawn(async move {
                watch::run(&shared, op, deadline, family, from, stop).await;
                drop(permit);
            });
        } else {
            self.0.runtime.spawn(async move {
                let answer = shared.perform(deadline, &submission).await;
                shared.answer(op, answer);
                drop((permit, asked));
            });
        }
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

/// When an operation is to be answered: by the runtime's clock, which wakes it, and by the machine's, which does not stand
/// still while the machine sleeps. What waited through that must not leave behind its deadline.
#[derive(Clone, Copy)]
struct Deadline {
    by: Instant,
    at: time::Instant,
}

impl Deadline {
    fn new(machine: &dyn Machine, at: time::Instant) -> Self {
        Self { by: Instant::now() + machine.until(at).saturating_sub(MARGIN), at }
    }

    /// Whether nothing may leave any more.
    fn is_over(self, machine: &dyn Machine) -> bool {
        Instant::now() >= self.by || machine.until(self.at) <= MARGIN
    }
}

impl Shared {
    fn answer(&self, op: OpId, answer: Answer) {
        let answer = Box::new(answer);
        self.inbox.answer(op, Event::Directory(directory::Event::Answered { op, answer }));
    }

    /// Asks etcd until there is an answer, or until the deadline.
    async fn perform(&self, deadline: Deadline, submission: &Submission) -> Answer {
        let ask = Ask::from(submission);
        let by = deadline.by;
        // Where it has left before, nothing is certain but that there is no such lease any more.
        let refused = |refusal, asked| {
            let unknown = asked && refusal != Refusal::LeaseNotFound;
            ask.ended(if unknown { End::Unknown } else { End::Refused(refusal) })
        };
        let found_by = by.min(Instant::now() + link::CONNECT);
        let Ok(Ok(_call)) = timeout_at(by, self.calls.acquire()).await else {
            return refused(Refusal::Unreachable, false);
        };
        let (mut behind, mut asked) = (0, false);
        loop {
            let Some(line) = self.link.line(behind, found_by).await.filter(|_| !deadline.is_over(&*self.machine))
            else {
                return refused(Refusal::Unreachable, asked);
            };
            let verdict = match timeout_at(by, calls::call(&line, &self.leases, submission, &mut asked)).await {
                Ok(Ok(answer)) => return answer,
                Ok(Err(verdict)) => verdict,
                Err(_) => return ask.ended(End::Unknown),
            };
            if verdict == Verdict::Refused(Refusal::NoLeader) {
                self.link.suspect(line.number);
            }
            match verdict {
                Verdict::NeverLeft => behind = line.number,
                // A stream that is cancelled for want of a leader may have renewed before.
                Verdict::Refused(Refusal::NoLeader) if ask == Ask::KeepAlive => return ask.ended(End::Unknown),
                Verdict::Refused(refusal) => return refused(refusal, asked),
                Verdict::Unknown => return ask.ended(End::Unknown),
            }
        }
    }
}
