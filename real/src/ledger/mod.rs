//! The ledger door on PostgreSQL 17: every submission is one call of a stored function, and so one transaction.
//!
//! The functions (`migrations/`) lock every row of a call, in id order, before they read any of them, and hold the locks until
//! the commit. So at READ COMMITTED, where each statement sees what was committed before it, two calls that share a row are
//! serial, and none waits for another in a circle: strict two-phase locking makes the whole history serializable. A roster
//! reads one snapshot, which is a moment between commits.
//!
//! What may be said of a call that has no answer:
//!
//! * `Refused`: nothing was sent (`PoolExhausted`: no connection was free before the deadline; `Unreachable`, `Busy`,
//!   `ReadOnly`, `NotServing`: none could be made), or the server has said that it rolled back (`session` knows when that
//!   is certain).
//! * `Unknown`: the deadline has passed or the connection broke after something was sent, the server ended the session, or
//!   it warned at the commit. The transaction may still commit, within the server's own timeout, or may wait for its standby.
//!
//! What is left behind at the server has a bound: a call keeps its place in the pool for as long as the server is at work on
//! it, whether anybody waits for its answer or not, and a server that has many sessions of our name gets no other.
//!
//! Whether the server is there, and confirms commits, is found out by a task of its own, which tells [`Readiness`]; calls do
//! not wait for it.
//!
//! Deliberately absent: retries (a role resubmits the same key), a cache, reads of a standby.

mod check;
mod journal;
mod migrate;
mod pool;
mod problem;
mod request;
mod revoke;
mod servers;
mod session;
mod watch;

pub use journal::{Tables, journal, row, tables};
pub use migrate::{Report, Seed, migrate, seed};
pub use problem::{Place, Problem};
pub use revoke::{Unrevoked, revoke};
pub(crate) use servers::each;

use crate::{clock, host::Inbox, ready::Readiness};
use pool::Pool;
use request::Request;
use servers::Servers;
use session::Session;
use std::{
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::{runtime::Handle, sync::Semaphore, task::AbortHandle, time::timeout};
use worldline_proto::OpId;
use worldline_system::{
    Refusal,
    doors::{
        Asked, Event,
        ledger::{self, Answer, Ask, Submission},
    },
    limits::OPERATIONS_IN_FLIGHT,
    outcome::End,
    time::{Duration, Instant},
};

/// A future at a crate's boundary.
pub type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Connections of one process, unless it says otherwise.
pub const CONNECTIONS: usize = 8;
/// Sessions that the server may have of one process: twice its connections, for as many may be left behind by a network or a
/// process that broke, and these for whoever looks after it, now and before.
const SESSIONS_BESIDE: usize = 8;
/// The adapter answers so long before the deadline, so that its answer is there when the host looks.
const GUARD: Duration = Duration::from_millis(5);

/// Which ledger, and how it is used.
#[derive(Clone, Debug)]
pub struct Config {
    pub(crate) servers: Servers,
    /// What the server calls us in `pg_stat_activity`.
    pub name: String,
    /// At most so many connections at a time for calls; two more look after the server. At least one.
    pub connections: usize,
}

impl Config {
    /// The ledger at `postgres://USER[:PASSWORD]@HOST:PORT[,HOST:PORT..]/DATABASE`, with the defaults. Of several servers the one
    /// that takes writes is used.
    ///
    /// # Errors
    /// The address does not read.
    pub fn new(url: &str) -> Result<Self, Problem> {
        Ok(Self { servers: Servers::new(url)?, name: "worldlined".to_owned(), connections: CONNECTIONS })
    }
}

/// The adapter. Clones share its connections.
#[derive(Clone, Debug)]
pub struct Ledger(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    pool: Arc<Pool>,
    inbox: Inbox,
    runtime: Handle,
    /// Bounds what is in flight; taken whole to wait for its end.
    in_flight: Arc<Semaphore>,
    watch: AbortHandle,
    problem: Arc<Mutex<Option<Problem>>>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

impl Ledger {
    /// Starts at once, whether the server is there or not; `ready` hears of the need `ledger`. Called inside a runtime.
    #[must_use]
    pub fn new(config: Config, inbox: Inbox, ready: Readiness) -> Self {
        let Config { servers, name, connections } = config;
        let servers = servers.named(&name, 2 * connections + SESSIONS_BESIDE);
        ready.missing("ledger", format_args!("PostgreSQL at {} has not answered yet", servers.current().place));
        let problem = Arc::new(Mutex::new(None));
        let pool = Arc::new(Pool::new(servers.clone(), connections));
        let watch = watch::Watch { servers, pool: pool.clone(), ready, problem: problem.clone() };
        let (runtime, in_flight) = (Handle::current(), Arc::new(Semaphore::new(OPERATIONS_IN_FLIGHT)));
        let watch = runtime.spawn(watch.run()).abort_handle();
        Self(Arc::new(Shared { pool, inbox, runtime, in_flight, watch, problem }))
    }

    /// How many of its connections are in use, and how many there may be.
    #[must_use]
    pub fn connections_used(&self) -> (usize, usize) {
        self.0.pool.used()
    }

    /// Takes an operation; its answer goes to the inbox, before its deadline. Never waits.
    pub fn submit(&self, asked: Asked<Submission>) {
        let Asked { op, deadline, submission } = asked;
        let owed = Owed { inbox: self.0.inbox.clone(), op, ask: Ask::from(&submission), paid: false };
        let Ok(permit) = self.0.in_flight.clone().try_acquire_owned() else {
            let busy = owed.ask.ended(End::Refused(Refusal::Busy));
            return owed.pay(busy);
        };
        let pool = self.0.pool.clone();
        self.0.runtime.spawn(async move {
            let answer = answer(&pool, deadline, &submission).await;
            drop(permit);
            owed.pay(answer);
        });
    }

    /// The same, with the answer returned instead. It is asked even if the future is dropped.
    #[must_use]
    pub fn ask(&self, asked: Asked<Submission>) -> Boxed<'static, Answer> {
        let Asked { deadline, submission, .. } = asked;
        let kind = Ask::from(&submission);
        let permit = self.0.in_flight.clone().try_acquire_owned();
        let pool = self.0.pool.clone();
        let asking = permit.map(|permit| {
            self.0.runtime.spawn(async move {
                let answer = answer(&pool, deadline, &submission).await;
                drop(permit);
                answer
            })
        });
        Box::pin(async move {
            match asking {
                Err(_) => kind.ended(End::Refused(Refusal::Busy)),
                Ok(asking) => asking.await.unwrap_or_else(|_| kind.ended(End::Unknown)),
            }
        })
    }

    /// What is wrong, as of the last look. `None` also before the first.
    #[must_use]
    pub fn problem(&self) -> Option<Problem> {
        self.0.problem.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ends: what is in flight is answered, what comes later is refused, every connection is closed.
    #[must_use]
    pub fn close(&self) -> Boxed<'_, ()> {
        Box::pin(async {
            self.0.watch.abort();
            let all = u32::try_from(OPERATIONS_IN_FLIGHT).expect("a bound of a few thousand");
            // Every operation ends at its deadline, so this does too.
            let everything = self.0.in_flight.acquire_many(all).await;
            self.0.in_flight.close();
            drop(everything);
            self.0.pool.close().await;
        })
    }
}

/// An answer that is owed: whatever becomes of the task that was to give it, it is given.
struct Owed {
    inbox: Inbox,
    op: OpId,
    ask: Ask,
    paid: bool,
}

impl Owed {
    fn pay(mut self, answer: Answer) {
        self.give(answer);
    }

    fn give(&mut self, answer: Answer) {
        self.paid = true;
        self.inbox.answer(self.op, Event::Ledger(ledger::Event { op: self.op, answer: Box::new(answer) }));
    }
}

impl Drop for Owed {
    fn drop(&mut self) {
        if !self.paid {
            self.give(self.ask.ended(End::Unknown));
        }
    }
}

/// Whether the ledger can be used as it stands.
#[must_use]
pub fn check(url: &str) -> Boxed<'_, Result<(), Problem>> {
    Box::pin(async move {
        let (server, mut connection) = Servers::new(url)?.primary().await?;
        check::schema(&server, &mut connection).await
    })
}

/// Executes one submission until shortly before its deadline.
async fn answer(pool: &Pool, deadline: Instant, submission: &Submission) -> Answer {
    let ask = Ask::from(submission);
    match call(pool, deadline - GUARD, submission).await {
        Ok(given) => request::answer(ask, &given),
        Err(end) => ask.ended(end),
    }
}

async fn call(pool: &Pool, until: Instant, submission: &Submission) -> Result<String, End> {
    let refused = End::Refused;
    let request = Request::new(submission).map_err(refused)?;
    let slot = match timeout(clock::until(until), pool.slot()).await {
        Err(_) => return Err(refused(Refusal::PoolExhausted)),
        Ok(None) => return Err(refused(Refusal::NotServing)),
        Ok(Some(slot)) => slot,
    };
    let session = match timeout(clock::until(until), slot.session()).await {
        Err(_) => return Err(refused(Refusal::Unreachable)),
        Ok(session) => session.map_err(|problem| refused(unsent(&problem)))?,
    };
    if clock::now() >= until {
        slot.keep(session);
        return Err(refused(Refusal::PoolExhausted));
    }
    // From here on something may have been sent. A session whose call does not end well is dropped, and so closed.
    let backend = session.backend.clone();
    let mut calling = Box::pin(called(session, request));
    match timeout(clock::until(until), &mut calling).await {
        Ok((Ok(given), session)) => {
            slot.keep(session);
            Ok(given)
        }
        Ok((Err(End::Refused(refusal)), _)) => Err(refused(refusal)),
        Ok((Err(End::Unknown), _)) => {
            // What broke this connection has probably broken the others.
            pool.flush();
            Err(End::Unknown)
        }
        Err(_) => {
            slot.leave(backend, async {
                let (ended, session) = calling.await;
                ended.is_ok().then_some(session)
            });
            Err(End::Unknown)
        }
    }
}

async fn called(mut session: Session, request: Request) -> (Result<String, End>, Session) {
    let ended = session.call(&request).await;
    (ended, session)
}

/// The refusal of a call for which there is no connection.
fn unsent(problem: &Problem) -> Refusal {
    match problem {
        Problem::Unreachable(..) | Problem::Silent(..) | Problem::Foreign(..) | Problem::BadUrl(_) => {
            Refusal::Unreachable
        }
        Problem::Busy(..) => Refusal::Busy,
        Problem::ReadOnly(..) => Refusal::ReadOnly,
        _ => Refusal::NotServing,
    }
}
