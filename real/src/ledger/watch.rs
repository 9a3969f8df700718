//! Looks after the server: whether it is there, what is wrong with it, and whether it confirms commits, on connections of its
//! own.
//!
//! A commit that is not confirmed occupies its connection, maybe for ever. So there is one such at a time, and what else is
//! to be asked meanwhile is asked on another.

use super::{
    Problem,
    check::Server,
    pool::Pool,
    servers::Servers,
    session::{Backend, Session},
};
use crate::{clock, entropy, ready::Readiness};
use std::{
    future::pending,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::{
    task::JoinHandle,
    time::{sleep, timeout},
};
use worldline_system::{
    backoff::Backoff,
    doors::entropy::Entropy,
    knobs::Retry,
    time::{Duration, Instant},
};

/// How often a good server is looked at.
const PERIOD: Duration = Duration::from_secs(2);
/// How long a commit may wait for its confirmation before that is told.
const CONFIRMED: Duration = Duration::from_secs(3);

pub(super) struct Watch {
    pub servers: Servers,
    pub pool: Arc<Pool>,
    pub ready: Readiness,
    pub problem: Arc<Mutex<Option<Problem>>>,
}

/// What is kept from one look to the next.
#[derive(Default)]
struct Eyes {
    session: Option<Session>,
    confirming: Option<Confirming>,
}

/// A commit that waits for its confirmation.
struct Confirming {
    backend: Backend,
    task: JoinHandle<Result<Session, Problem>>,
    since: Instant,
    ended: Option<Result<Session, Problem>>,
}

impl Drop for Confirming {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Confirming {
    fn begin(server: &Server, mut session: Session) -> Self {
        let (server, backend) = (server.clone(), session.backend.clone());
        let task = tokio::spawn(async move { session.confirm(&server).await.map(|()| session) });
        Self { backend, task, since: clock::now(), ended: None }
    }

    /// Waits for its end. May be dropped and called again.
    async fn end(&mut self, server: &Server) {
        if self.ended.is_none() {
            self.ended = Some((&mut self.task).await.unwrap_or_else(|_| Err(server.garbage())));
        }
    }
}

impl Watch {
    /// Looks, tells, waits; for ever.
    pub async fn run(self) {
        let mut eyes = Eyes::default();
        let mut backoff = Backoff::default();
        // Without entropy it comes when the others of its cluster come.
        let mut entropy = entropy::fresh().unwrap_or_else(|_| Entropy::from_seed([0; 32]));
        // What is wrong with each server; nothing of those that were not looked at since the last good one.
        let mut wrong: Vec<Option<String>> = vec![None; self.servers.count()];
        loop {
            let server = self.servers.current().clone();
            let found = self.look(&server, &mut eyes).await;
            let wait = match &found {
                Ok(()) => {
                    self.ready.fulfilled("ledger");
                    backoff.reset();
                    wrong.fill(None);
                    PERIOD
                }
                Err(problem @ Problem::Unconfirmed(..)) => {
                    self.ready.missing("ledger", problem);
                    PERIOD
                }
                Err(problem) => {
                    self.pool.flush();
                    eyes = Eyes::default();
                    wrong[self.servers.at()] = Some(problem.to_string());
                    let told: Vec<&str> = wrong.iter().flatten().map(String::as_str).collect();
                    self.ready.missing("ledger", told.join("; "));
                    self.servers.turn();
                    // None has been found that serves: wait before the next round.
                    if told.len() == wrong.len() {
                        backoff.fail(Retry::default(), &mut entropy)
                    } else {
                        Duration::ZERO
                    }
                }
            };
            *self.problem.lock().unwrap_or_else(PoisonError::into_inner) = found.err();
            let confirmed = async {
                match &mut eyes.confirming {
                    Some(confirming) => confirming.end(&server).await,
                    None => pending().await,
                }
            };
            tokio::select! {
                () = sleep(clock::span(wait)) => {}
                () = confirmed => {}
            }
        }
    }

    /// Looks at server and schema, at what was left behind there, and whether a commit is confirmed.
    async fn look(&self, server: &Server, eyes: &mut Eyes) -> Result<(), Problem> {
        let kept = eyes.session.as_ref().map(|session| session.backend.clone());
        let mut session = open(server, eyes.session.take()).await?;
        if kept.is_some_and(|kept| kept != session.backend) {
            // The connection of the last time is lost, and so probably are those that rest: another server may stand there now.
            self.pool.flush();
        }
        let left = self.pool.left_behind();
        let waiting = eyes.confirming.iter().filter(|confirming| confirming.ended.is_none());
        let asked: Vec<Backend> = left.into_iter().chain(waiting.map(|waiting| waiting.backend.clone())).collect();
        if !asked.is_empty() {
            let at_work = session.at_work(server, &asked).await?;
            self.pool.let_go(&asked, &at_work);
            // An answer that was lost on the way is waited for no longer.
            eyes.confirming.take_if(|waiting| asked.contains(&waiting.backend) && !at_work.contains(&waiting.backend));
        }
        let mut confirming = match eyes.confirming.take() {
            None => Confirming::begin(server, session),
            Some(confirming) => {
                eyes.session = Some(session);
                confirming
            }
        };
        let patience = clock::span(CONFIRMED).saturating_sub(clock::span(clock::now().since(confirming.since)));
        // Whether it ended in time stands in it.
        let _ = timeout(patience, confirming.end(server)).await;
        match confirming.ended.take() {
            Some(ended) => {
                let session = ended?;
                eyes.session.get_or_insert(session);
                Ok(())
            }
            None => {
                eyes.confirming = Some(confirming);
                Err(Problem::Unconfirmed(server.place.clone(), CONFIRMED))
            }
        }
    }
}

/// The connection of the last time if that still works. If not, its failure may be its own: what a new one says counts.
/// In a task of its own, since what answers there may be anything.
async fn open(server: &Server, old: Option<Session>) -> Result<Session, Problem> {
    let place = server.clone();
    let looking = tokio::spawn(async move {
        if let Some(mut session) = old
            && session.check(&place).await.is_ok()
        {
            return Ok(session);
        }
        Session::open(&place).await
    });
    looking.await.unwrap_or_else(|_| Err(server.garbage()))
}
