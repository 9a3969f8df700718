//! The tasks of one network: counted, so that none outlives it.

use std::{
    fmt,
    future::{Future, poll_fn},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    runtime::Handle,
    task::{AbortHandle, JoinError, JoinSet},
};

/// Clones spawn into the same set.
#[derive(Clone)]
pub(crate) struct Tasks {
    set: Arc<Mutex<Set>>,
    runtime: Handle,
}

#[derive(Default)]
struct Set {
    tasks: JoinSet<()>,
    closed: bool,
}

impl fmt::Debug for Tasks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} tasks", self.set().tasks.len())
    }
}

impl Tasks {
    pub fn new(runtime: Handle) -> Self {
        Self { set: Arc::default(), runtime }
    }

    /// Runs `future` until it is done or the network is closed; afterwards nothing is run any more.
    pub fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) -> Option<AbortHandle> {
        let mut set = self.set();
        if set.closed {
            return None;
        }
        while let Some(ended) = set.tasks.try_join_next() {
            tell(ended);
        }
        Some(set.tasks.spawn_on(future, &self.runtime))
    }

    /// Gives what still runs `patience` to end by itself, and ends the rest. No task is left afterwards.
    pub async fn end(&self, patience: Duration) {
        let all = || poll_fn(|context| self.set().tasks.poll_join_next(context));
        let ended = async {
            while let Some(ended) = all().await {
                tell(ended);
            }
        };
        drop(tokio::time::timeout(patience, ended).await);
        {
            let mut set = self.set();
            set.closed = true;
            set.tasks.abort_all();
        }
        while let Some(ended) = all().await {
            tell(ended);
        }
    }

    fn set(&self) -> MutexGuard<'_, Set> {
        // Nothing panics while it holds the lock: what is inside is whole.
        self.set.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn tell(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "a task of the network has panicked");
    }
}

impl<F: Future<Output: Send> + Send + 'static> hyper::rt::Executor<F> for Tasks {
    fn execute(&self, future: F) {
        self.spawn(async move { drop(future.await) });
    }
}
