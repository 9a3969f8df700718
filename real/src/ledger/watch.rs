//! Looks after the server: whether it is there and what is wrong with it, on a connection of its own.

use super::{Problem, check::Server, pool::Pool, session::Session};
use crate::{clock, entropy, ready::Readiness};
use std::sync::{Arc, Mutex, PoisonError};
use worldline_system::{backoff::Backoff, doors::entropy::Entropy, knobs::Retry, time::Duration};

/// How often a good server is looked at.
const PERIOD: Duration = Duration::from_secs(2);

pub(super) struct Watch {
    pub server: Server,
    pub pool: Arc<Pool>,
    pub ready: Readiness,
    pub problem: Arc<Mutex<Option<Problem>>>,
}

impl Watch {
    /// Looks, tells, waits; for ever.
    pub async fn run(self) {
        let mut session = None;
        let mut backoff = Backoff::default();
        // Without entropy it comes when the others of its cluster come.
        let mut entropy = entropy::fresh().unwrap_or_else(|_| Entropy::from_seed([0; 32]));
        loop {
            let found = self.look(&mut session).await;
            let wait = match &found {
                Ok(()) => {
                    self.ready.fulfilled("ledger");
                    backoff.reset();
                    PERIOD
                }
                Err(problem) => {
                    self.pool.flush();
                    self.ready.missing("ledger", problem);
                    backoff.fail(Retry::default(), &mut entropy)
                }
            };
            *self.problem.lock().unwrap_or_else(PoisonError::into_inner) = found.err();
            tokio::time::sleep(clock::span(wait)).await;
        }
    }

    /// Looks with the connection of the last time if that still works. If not, its failure may be its own: what a new one
    /// says counts. In a task of its own, since what answers there may be anything.
    async fn look(&self, kept: &mut Option<Session>) -> Result<(), Problem> {
        let (server, old) = (self.server.clone(), kept.take());
        let looking = tokio::spawn(async move {
            if let Some(mut session) = old
                && session.check(&server).await.is_ok()
            {
                return Ok(session);
            }
            Session::open(&server).await
        });
        let looked = looking.await.unwrap_or_else(|_| Err(self.server.garbage()));
        *kept = Some(looked?);
        Ok(())
    }
}
