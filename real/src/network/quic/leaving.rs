//! Connections that their role has closed and that still have something to deliver: a process that ends waits for them.

use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// How many there are.
#[derive(Default)]
pub(super) struct Leaving(watch::Sender<usize>);

/// What one connection is to it. Its role and its end may speak of it in either order, from two threads.
#[derive(Default)]
pub(super) struct Leaver(Mutex<Stage>);

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Stands,
    Leaves,
    Over,
}

impl Leaving {
    /// Its role has closed it; it counts unless it is over already.
    pub fn begin(&self, leaver: &Leaver) {
        let mut stage = leaver.stage();
        if *stage == Stage::Stands {
            *stage = Stage::Leaves;
            self.0.send_modify(|leaving| *leaving += 1);
        }
    }

    /// It has ended, and will never count again.
    pub fn end(&self, leaver: &Leaver) {
        let mut stage = leaver.stage();
        if std::mem::replace(&mut *stage, Stage::Over) == Stage::Leaves {
            self.0.send_modify(|leaving| *leaving -= 1);
        }
    }

    /// Waits until there is none.
    pub async fn none(&self) {
        // The sender is here: it cannot go away meanwhile.
        drop(self.0.subscribe().wait_for(|leaving| *leaving == 0).await);
    }
}

impl Leaver {
    fn stage(&self) -> MutexGuard<'_, Stage> {
        // Nothing panics while it holds the lock: what is inside is whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_speaks_first_nothing_is_waited_for_in_the_end() {
        let leaving = Leaving::default();
        let waits = |leaving: &Leaving| *leaving.0.borrow();
        let (orderly, raced) = (Leaver::default(), Leaver::default());
        leaving.begin(&orderly);
        leaving.begin(&orderly);
        assert_eq!(waits(&leaving), 1, "each counts once");
        leaving.end(&raced);
        leaving.begin(&raced);
        assert_eq!(waits(&leaving), 1, "its end came before its role's word");
        leaving.end(&orderly);
        leaving.end(&orderly);
        assert_eq!(waits(&leaving), 0);
    }
}
