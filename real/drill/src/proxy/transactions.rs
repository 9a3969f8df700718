//! Where in the transactions of one caller of the directory its process ends: behind so many, with another one begun and nothing of
//! that on its way. A signal alone cannot hit this place; the link sees it.

use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;
use worldline_proto::NodeId;

/// A caller that is waited for.
#[derive(Clone, Copy, Debug)]
struct Armed {
    caller: NodeId,
    /// How many transactions still pass.
    left: u32,
    /// Those that pass and have not arrived whole.
    under_way: u32,
    /// One more has begun.
    another: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Going {
    armed: Option<Armed>,
    /// Who is to be ended now.
    due: Option<NodeId>,
    ended: u64,
}

/// Who is waited for, for all links to the directory.
#[derive(Debug, Default)]
pub struct Transactions {
    going: Mutex<Going>,
    due: Notify,
}

impl Transactions {
    fn going(&self) -> MutexGuard<'_, Going> {
        self.going.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on so many transactions of this caller pass. When they have arrived and one more begins, the caller is due.
    pub fn end_behind(&self, caller: NodeId, count: u32) {
        self.going().armed = Some(Armed { caller, left: count, under_way: 0, another: false });
    }

    /// Nobody is waited for any more.
    pub fn heal(&self) {
        self.going().armed = None;
    }

    /// This one is not.
    pub fn started(&self, caller: NodeId) {
        let mut going = self.going();
        going.armed = going.armed.filter(|armed| armed.caller != caller);
    }

    /// A caller's transaction begins. Whether it passes.
    pub fn begins(&self, caller: NodeId) -> bool {
        let mut going = self.going();
        let Some(armed) = going.armed.as_mut().filter(|armed| armed.caller == caller) else {
            return going.due != Some(caller);
        };
        let passes = armed.left > 0;
        if passes {
            (armed.left, armed.under_way) = (armed.left - 1, armed.under_way + 1);
        } else {
            armed.another = true;
        }
        self.look(&mut going);
        passes
    }

    /// A caller's transaction has arrived whole, or never will: its connection is gone.
    pub fn arrived(&self, caller: NodeId) {
        let mut going = self.going();
        if let Some(armed) = going.armed.as_mut().filter(|armed| armed.caller == caller) {
            armed.under_way = armed.under_way.saturating_sub(1);
        }
        self.look(&mut going);
    }

    fn look(&self, going: &mut Going) {
        if let Some(armed) = going.armed.take_if(|armed| armed.another && armed.under_way == 0) {
            going.due = Some(armed.caller);
            self.due.notify_one();
        }
    }

    /// Waits until somebody is due.
    pub async fn due(&self) -> NodeId {
        loop {
            let told = self.due.notified();
            if let Some(caller) = self.going().due {
                return caller;
            }
            told.await;
        }
    }

    /// Who was due has ended, by this or before.
    pub fn ended(&self, by_this: bool) {
        let mut going = self.going();
        going.due = None;
        going.ended += u64::from(by_this);
    }

    /// How many have ended so.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.going().ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_is_waited_for_is_due_when_what_passes_has_arrived_and_one_more_begins() {
        let (transactions, one, other) = (Transactions::default(), NodeId(1), NodeId(2));
        assert!(transactions.begins(one), "nobody is waited for");
        transactions.end_behind(one, 2);
        assert!(transactions.begins(one) && transactions.begins(one) && transactions.begins(other));
        assert!(!transactions.begins(one) && !transactions.begins(one), "what is begun behind them does not pass");
        transactions.arrived(one);
        assert_eq!(transactions.going().due, None, "one is under way");
        transactions.arrived(one);
        assert_eq!(transactions.due().await, one);
        assert!(!transactions.begins(one), "until it has ended");
        transactions.ended(true);
        assert!(transactions.begins(one), "of its next life");
        assert_eq!(transactions.count(), 1);
        transactions.end_behind(one, 1);
        assert!(transactions.begins(one));
        transactions.arrived(one);
        assert_eq!(transactions.going().due, None, "a plan of one transaction has no middle");
        transactions.started(one);
        assert!(transactions.begins(one) && transactions.begins(one));
    }
}
