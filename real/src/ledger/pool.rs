//! A bounded number of sessions, each used by one call at a time.

use super::{Problem, check::Server, session::Session};
use crate::clock;
use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use worldline_system::time::Duration;

/// A session that has rested for so long is asked whether it is still there before it is trusted with a call.
const RESTED: Duration = Duration::from_secs(1);

/// The sessions. Those in use are with their users.
pub(super) struct Pool {
    server: Server,
    room: Arc<Semaphore>,
    size: usize,
    idle: Mutex<Vec<Session>>,
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("server", &self.server.place).field("size", &self.size).finish_non_exhaustive()
    }
}

/// The right to use a session.
pub(super) struct Slot<'a> {
    pool: &'a Pool,
    _room: OwnedSemaphorePermit,
}

impl Pool {
    pub fn new(server: Server, size: usize) -> Self {
        let size = size.max(1);
        Self { server, room: Arc::new(Semaphore::new(size)), size, idle: Mutex::default() }
    }

    /// Waits for the right to use a session. `None` once the pool is closed.
    pub async fn slot(&self) -> Option<Slot<'_>> {
        let room = self.room.clone().acquire_owned().await.ok()?;
        Some(Slot { pool: self, _room: room })
    }

    /// Drops the idle sessions: their server was lost or replaced.
    pub fn flush(&self) {
        self.idle().clear();
    }

    /// Ends every session. Nobody uses one any more.
    pub async fn close(&self) {
        self.room.close();
        let idle = std::mem::take(&mut *self.idle());
        for session in idle {
            session.close().await;
        }
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Session>> {
        // Nothing panics while it holds the lock: what is inside is whole.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slot<'_> {
    /// A session that was alive a moment ago: an idle one or a new one.
    pub async fn session(&self) -> Result<Session, Problem> {
        loop {
            let idle = self.pool.idle().pop();
            let Some(mut session) = idle else { return Session::open(&self.pool.server).await };
            if clock::now().since(session.alive_at) < RESTED || session.ping().await {
                return Ok(session);
            }
            // It was closed behind our back, and so probably were the others.
            self.pool.flush();
        }
    }

    /// Keeps a session for the next call. One whose call did not end well is not brought back.
    pub fn keep(&self, session: Session) {
        self.pool.idle().push(session);
    }
}
