//! tokio on madsim, as the host and the adapters use it: what madsim leaves out of it is added here.

#![cfg(madsim)]
#![forbid(unsafe_code)]

pub use madsim_tokio::{io, join, net, pin, runtime, select, spawn};

/// What tasks share.
pub mod sync {
    pub mod watch;

    pub use madsim_tokio::sync::{
        Mutex, Notify, OwnedRwLockReadGuard, OwnedSemaphorePermit, RwLock, Semaphore, mpsc, oneshot,
    };
}

/// Tasks: their order is drawn.
pub mod task {
    pub use madsim_tokio::task::{JoinError, JoinHandle, spawn, yield_now};

    /// There is no budget that a task could use up.
    pub fn unconstrained<F>(future: F) -> F {
        future
    }
}

/// Timers: the clock moves when nobody has anything to do.
pub mod time {
    pub use madsim_tokio::time::*;

    /// Waits for a future until `deadline`.
    pub fn timeout_at<F: Future>(
        deadline: Instant,
        future: F,
    ) -> impl Future<Output = Result<F::Output, error::Elapsed>> {
        timeout(deadline.saturating_duration_since(Instant::now()), future)
    }
}
