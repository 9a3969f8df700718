//! What roles have asked and the keeper has not taken yet: bounded, in the order of asking.

use super::requests::Work;
use crate::{Inbox, host::Bell};
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use worldline_system::{Refusal, limits};

pub(super) struct Asks {
    inbox: Inbox,
    waiting: Mutex<Waiting>,
    /// Something waits where nothing did, or nothing more will come.
    bell: Arc<Bell>,
}

#[derive(Default)]
struct Waiting {
    works: VecDeque<Work>,
    closed: bool,
}

impl Asks {
    /// For roles that are answered through this inbox.
    pub fn new(inbox: Inbox) -> Self {
        Self { inbox, waiting: Mutex::default(), bell: Arc::default() }
    }

    /// Puts one at the end, if there is a place.
    pub fn put(&self, work: Work) -> Result<(), Refusal> {
        let mut waiting = self.waiting();
        if waiting.closed {
            return Err(Refusal::Unreachable);
        }
        if waiting.works.len() >= limits::OPERATIONS_IN_FLIGHT {
            return Err(Refusal::Busy);
        }
        let first = waiting.works.is_empty();
        waiting.works.push_back(work);
        drop(waiting);
        if first {
            self.inbox.wake_writer(self.bell.clone().into());
        }
        Ok(())
    }

    /// Waits until some wait, and takes at most so many of them; none where none will come any more. Nothing is lost if it is given up.
    pub async fn take(&self, most: usize) -> Vec<Work> {
        loop {
            {
                let mut waiting = self.waiting();
                let count = waiting.works.len().min(most);
                if count > 0 || waiting.closed {
                    return waiting.works.drain(..count).collect();
                }
            }
            self.bell.rung().await;
        }
    }

    /// Nothing more will come.
    pub fn close(&self) {
        self.waiting().closed = true;
        self.inbox.wake_writer(self.bell.clone().into());
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // Nothing panics while it holds the lock: what is inside is whole.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;

    #[tokio::test]
    async fn they_come_out_in_order_so_many_at_once_and_are_refused_beyond_the_bound() {
        let asks = Asks::new(Inbox::default());
        assert!(asks.take(1).now_or_never().is_none());
        assert!((0..limits::OPERATIONS_IN_FLIGHT).all(|_| asks.put(Work::Ping).is_ok()));
        assert!(matches!(asks.put(Work::Ping), Err(Refusal::Busy)));
        assert_eq!(asks.take(10).await.len(), 10);
        asks.close();
        assert!(matches!(asks.put(Work::Ping), Err(Refusal::Unreachable)));
        assert_eq!(asks.take(usize::MAX).await.len(), limits::OPERATIONS_IN_FLIGHT - 10, "what waits is still taken");
        assert!(asks.take(1).await.is_empty());
    }

    #[tokio::test]
    async fn who_waits_hears_of_the_first_and_of_the_end() {
        let asks = Asks::new(Inbox::default());
        let (taken, ()) = tokio::join!(asks.take(10), async { asks.put(Work::Ping).expect("there is a place") });
        assert_eq!(taken.len(), 1);
        let (taken, ()) = tokio::join!(asks.take(10), async { asks.close() });
        assert!(taken.is_empty());
    }
}
