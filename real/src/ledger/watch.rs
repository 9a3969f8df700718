//! Looks after the server: whether it is there and what is wrong with it, on a connection of its own.

use super::{Problem, check::Server, pool::Pool, session::Session};
use crate::{clock, entropy, ready::Readiness};
use std::sync::{Arc, Mutex, PoisonError};
use worldline_system::{
    limits::{RETRY_MAX, RETRY_MIN},
    time::Duration,
};

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
        let mut backoff = RETRY_MIN;
        loop {
            let found = self.look(&mut session).await;
            match &found {
                Ok(()) => {
                    self.ready.fulfilled("ledger");
                    backoff = RETRY_MIN;
                }
                Err(problem) => {
                    self.pool.flush();
                    self.ready.missing("ledger", problem);
                }
            }
            let wait = if found.is_ok() { PERIOD } else { backoff };
            *self.problem.lock().unwrap_or_else(PoisonError::into_inner) = found.err();
            tokio::time::sleep(clock::span(jittered(wait))).await;
            if wait == backoff {
                backoff = (backoff * 2).min(RETRY_MAX);
            }
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

/// Up to a quarter less, so that the processes of a cluster do not come all at once.
fn jittered(span: Duration) -> Duration {
    let quarter = (span / 4).as_nanos().max(1);
    let drawn = entropy::fresh().map_or(0, |mut entropy| entropy.bits() % quarter);
    span - Duration::from_nanos(drawn)
}
