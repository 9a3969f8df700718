//! The timers of a role: keyed, so that arming replaces.

use std::collections::{BTreeMap, BTreeSet};
use worldline_system::{doors::clock::TimerKey, time::Instant};

/// What is armed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Timers {
    armed: BTreeMap<TimerKey, Instant>,
    due: BTreeSet<(Instant, TimerKey)>,
}

impl Timers {
    pub fn arm(&mut self, key: TimerKey, at: Instant) {
        self.disarm(key);
        self.armed.insert(key, at);
        self.due.insert((at, key));
    }

    pub fn disarm(&mut self, key: TimerKey) {
        if let Some(at) = self.armed.remove(&key) {
            self.due.remove(&(at, key));
        }
    }

    /// When the next one is due.
    pub fn next(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Takes the earliest one that is due by `now`.
    pub fn pop(&mut self, now: Instant) -> Option<TimerKey> {
        let (at, key) = *self.due.first()?;
        if at > now {
            return None;
        }
        self.disarm(key);
        Some(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arming_replaces_disarming_forgets_and_none_fires_early() {
        let (a, b, at) = (TimerKey::new(1, 0), TimerKey::new(2, 0), Instant::from_nanos);
        let mut timers = Timers::default();
        timers.arm(a, at(10));
        timers.arm(b, at(20));
        timers.arm(a, at(30));
        assert_eq!((timers.next(), timers.pop(at(19))), (Some(at(20)), None));
        assert_eq!(timers.pop(at(20)), Some(b));
        timers.arm(b, at(25));
        timers.disarm(b);
        assert_eq!((timers.pop(at(29)), timers.pop(at(30)), timers.next()), (None, Some(a), None));
    }
}
