//! A bounded number of sessions, each used by one call at a time.
//!
//! A session takes some round trips to open: over a long way that may be more time than a call has. So it is opened by a task of
//! its own, which goes on when the call that asked for it has given up; the next call finds it.
//!
//! A call that its caller has given up keeps its place for as long as the server is at work on it: it may wait there for a
//! lock, or for a synchronous standby that is missing, and then nobody ends it. So what we leave at the server is never more
//! than there are places (`reports/decisions/0009-a-call-given-up-keeps-its-place.md`).

use super::{
    Problem,
    servers::Servers,
    session::{Backend, Session},
};
use crate::clock;
use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
    task::AbortHandle,
};
use worldline_system::time::Duration;

/// A session that has rested for so long is asked whether it is still there before it is trusted with a call.
/// A server that was lost meanwhile is found out sooner by whoever looks after it, and by the first call that breaks.
const RESTED: Duration = Duration::from_secs(5);

/// The sessions. Those in use are with their users.
pub(super) struct Pool {
    servers: Servers,
    room: Arc<Semaphore>,
    size: usize,
    /// Sessions that are being opened.
    openings: Arc<Semaphore>,
    idle: Idle,
    /// Calls that their callers have given up.
    left: Mutex<Vec<Left>>,
}

/// A call that nobody waits for any more. It ends with this.
struct Left {
    backend: Backend,
    call: AbortHandle,
}

impl Drop for Left {
    fn drop(&mut self) {
        self.call.abort();
    }
}

/// The sessions that nobody uses.
type Idle = Arc<Mutex<Vec<Session>>>;

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("server", &self.servers.current().place)
            .field("size", &self.size)
            .finish_non_exhaustive()
    }
}

/// The right to use a session.
pub(super) struct Slot<'a> {
    pool: &'a Pool,
    room: OwnedSemaphorePermit,
}

impl Pool {
    pub fn new(servers: Servers, size: usize) -> Self {
        let size = size.max(1);
        let room = || Arc::new(Semaphore::new(size));
        Self { servers, room: room(), size, openings: room(), idle: Idle::default(), left: Mutex::default() }
    }

    /// Waits for the right to use a session. `None` once the pool is closed.
    pub async fn slot(&self) -> Option<Slot<'_>> {
        let room = self.room.clone().acquire_owned().await.ok()?;
        Some(Slot { pool: self, room })
    }

    /// How many places are taken, and how many there are.
    pub fn used(&self) -> (usize, usize) {
        (self.size.saturating_sub(self.room.available_permits()), self.size)
    }

    /// Drops the idle sessions: their server was lost or replaced.
    pub fn flush(&self) {
        self.idle().clear();
    }

    /// Ends every session. Nobody uses one any more.
    pub async fn close(&self) {
        self.room.close();
        self.openings.close();
        self.left().clear();
        let idle = std::mem::take(&mut *self.idle());
        for session in idle {
            session.close().await;
        }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Session>> {
        lock(&self.idle)
    }

    fn left(&self) -> MutexGuard<'_, Vec<Left>> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The backends of the calls that nobody waits for and that have not ended.
    pub fn left_behind(&self) -> Vec<Backend> {
        let mut left = self.left();
        left.retain(|left| !left.call.is_finished());
        left.iter().map(|left| left.backend.clone()).collect()
    }

    /// Gives up those of `asked` that the server is not at work on any more: their answers were lost on the way.
    pub fn let_go(&self, asked: &[Backend], at_work: &[Backend]) {
        self.left().retain(|left| !asked.contains(&left.backend) || at_work.contains(&left.backend));
    }

    /// Opens a session. If nobody waits for it any more when it is there, it is kept for the next call.
    async fn open(&self, opening: OwnedSemaphorePermit) -> Result<Session, Problem> {
        let (sender, receiver) = oneshot::channel();
        let (server, idle, room, size) =
            (self.servers.current().clone(), self.idle.clone(), self.room.clone(), self.size);
        tokio::spawn(async move {
            let opened = Session::open(&server).await;
            if let Err(Ok(session)) = sender.send(opened) {
                let mut idle = lock(&idle);
                if !room.is_closed() && idle.len() < size {
                    idle.push(session);
                }
            }
            drop(opening);
        });
        // A task that is gone without a word was met by something that is no server.
        receiver.await.unwrap_or_else(|_| Err(self.servers.current().garbage()))
    }
}

fn lock(idle: &Idle) -> MutexGuard<'_, Vec<Session>> {
    // Nothing panics while it holds the lock: what is inside is whole.
    idle.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Slot<'_> {
    /// A session that was alive a moment ago: an idle one or a new one.
    pub async fn session(&self) -> Result<Session, Problem> {
        loop {
            let idle = self.pool.idle().pop();
            let Some(mut session) = idle else {
                let Ok(opening) = self.pool.openings.clone().acquire_owned().await else {
                    return Err(self.pool.servers.current().garbage());
                };
                // One may have come while this one waited.
                if self.pool.idle().is_empty() {
                    return self.pool.open(opening).await;
                }
                continue;
            };
            let here = session.place == self.pool.servers.current().place;
            if here && (clock::now().since(session.alive_at) < RESTED || session.ping().await) {
                return Ok(session);
            }
            // It was closed behind our back, or its server is not used any more, and so it is probably with the others.
            self.pool.flush();
        }
    }

    /// Leaves a call to itself: it keeps this place until it ends, and its session if it gives that back.
    pub fn leave(self, backend: Backend, call: impl Future<Output = Option<Session>> + Send + 'static) {
        let Slot { pool, room } = self;
        let (idle, all) = (pool.idle.clone(), pool.room.clone());
        let call = tokio::spawn(async move {
            if let Some(session) = call.await
                && !all.is_closed()
            {
                lock(&idle).push(session);
            }
            drop(room);
        });
        let mut left = pool.left();
        left.retain(|left| !left.call.is_finished());
        left.push(Left { backend, call: call.abort_handle() });
    }

    /// Keeps a session for the next call. One whose call did not end well is not brought back.
    pub fn keep(&self, session: Session) {
        self.pool.idle().push(session);
    }
}
