//! Handshakes that have not completed: bounded in number, and the oldest makes room for the newest. So whoever opens many and
//! says nothing displaces his own; an honest caller needs a few round trips only.

use super::tasks::Tasks;
use std::{collections::VecDeque, future::Future, sync::Arc};
use tokio::task::AbortHandle;

pub(crate) struct HalfOpen {
    tasks: Tasks,
    oldest_first: VecDeque<AbortHandle>,
    /// One clone a handshake that runs.
    running: Arc<()>,
    max: usize,
}

impl HalfOpen {
    pub fn new(tasks: Tasks, max: usize) -> Self {
        Self { tasks, oldest_first: VecDeque::new(), running: Arc::new(()), max }
    }

    /// How many run.
    pub fn len(&self) -> usize {
        Arc::strong_count(&self.running) - 1
    }

    /// Begins a handshake. Whether the oldest one was given up for it.
    pub fn begin(&mut self, handshake: impl Future<Output = ()> + Send + 'static) -> bool {
        while self.oldest_first.front().is_some_and(AbortHandle::is_finished) {
            self.oldest_first.pop_front();
        }
        if self.oldest_first.len() >= self.max {
            self.oldest_first.retain(|handshake| !handshake.is_finished());
        }
        let evicted = if self.oldest_first.len() >= self.max { self.oldest_first.pop_front() } else { None };
        if let Some(oldest) = &evicted {
            oldest.abort();
        }
        let running = Arc::clone(&self.running);
        let begun = self.tasks.spawn(async move {
            let _running = running;
            handshake.await;
        });
        self.oldest_first.extend(begun);
        evicted.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::pending;

    #[tokio::test]
    async fn the_oldest_handshake_makes_room_and_a_finished_one_takes_none() {
        let tasks = Tasks::new(tokio::runtime::Handle::current());
        let mut half_open = HalfOpen::new(tasks.clone(), 3);
        let (done, told) = tokio::sync::oneshot::channel();
        assert!(!half_open.begin(async move {
            let _ = done.send(());
        }));
        told.await.expect("runs");
        while half_open.len() > 0 {
            tokio::task::yield_now().await;
        }
        for _ in 0..3 {
            assert!(!half_open.begin(pending()));
        }
        assert_eq!(half_open.len(), 3);
        assert!(half_open.begin(pending()));
        while half_open.len() > 3 {
            tokio::task::yield_now().await;
        }
        tasks.end(std::time::Duration::ZERO).await;
        assert_eq!(half_open.len(), 0);
    }
}
