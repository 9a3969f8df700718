//! The clock door: what each node believes the time to be, and its keyed timers.
//!
//! A node's monotonic clock begins somewhere of its own, runs at a rate of its own, may jump forward (a suspended machine
//! wakes) or stand still (a frozen virtual machine). Its wall clock goes with it, and may step besides. A timer never fires
//! before its time by its node's clock: whenever the clock changes, what is armed is placed anew, and a wake that comes too
//! early looks again.

use crate::{core::Core, item::Item};
use std::collections::BTreeMap;
use worldline_proto::NodeId;
use worldline_system::{
    doors::clock::TimerKey,
    time::{Duration, Instant, UnixTime},
};

/// Virtual time zero by a wall clock that is right: 2026-01-01T00:00:00Z, in ns since 1970.
pub const EPOCH_UNIX_NS: u64 = 1_767_225_600 * 1_000_000_000;

/// The fastest and slowest a clock may run, in parts per million: half and one and a half times.
pub const DRIFT_PPM_MAX: i32 = 500_000;

/// A node's clocks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    /// The monotonic clock showed this...
    reading_ns: u64,
    /// ...at this virtual time.
    since_ns: u64,
    drift_ppm: i32,
    frozen: bool,
    /// Wall clock minus monotonic clock.
    wall_offset_ns: i64,
}

impl Clock {
    /// A clock that shows `zero` at virtual time `now`; its wall clock is off by `wall_off_ns`.
    pub(crate) fn new(now: Instant, zero_ns: u64, drift_ppm: i32, wall_off_ns: i64) -> Self {
        assert!(drift_ppm.abs() <= DRIFT_PPM_MAX, "a clock drifts by at most {DRIFT_PPM_MAX} ppm");
        let right = EPOCH_UNIX_NS as i64 + now.as_nanos() as i64;
        let wall_offset_ns = right - zero_ns as i64 + wall_off_ns;
        Self { reading_ns: zero_ns, since_ns: now.as_nanos(), drift_ppm, frozen: false, wall_offset_ns }
    }

    #[inline]
    pub(crate) fn local(&self, now: Instant) -> Instant {
        let elapsed = now.as_nanos() - self.since_ns;
        if self.drift_ppm == 0 && !self.frozen {
            return Instant::from_nanos(self.reading_ns + elapsed);
        }
        Instant::from_nanos(self.reading_ns + self.run(elapsed))
    }

    #[inline]
    pub(crate) fn wall(&self, local: Instant) -> UnixTime {
        UnixTime::from_nanos(local.as_nanos().saturating_add_signed(self.wall_offset_ns))
    }

    /// How far the clock goes while this much virtual time passes.
    fn run(&self, elapsed: u64) -> u64 {
        if self.frozen { 0 } else { (u128::from(elapsed) * self.rate() / 1_000_000) as u64 }
    }

    /// Clock microseconds in a virtual second.
    fn rate(&self) -> u128 {
        (1_000_000 + i64::from(self.drift_ppm)) as u128
    }

    /// The first virtual time at which the clock shows at least `local`. `None` while it stands still.
    pub(crate) fn due(&self, local: Instant, now: Instant) -> Option<Instant> {
        let ahead = local.as_nanos().saturating_sub(self.reading_ns);
        if self.drift_ppm == 0 && !self.frozen {
            return Some(Instant::from_nanos(self.since_ns.saturating_add(ahead)).max(now));
        }
        if self.local(now) >= local {
            return Some(now);
        }
        if self.frozen {
            return None;
        }
        let span = (u128::from(ahead) * 1_000_000).div_ceil(self.rate());
        let span = u64::try_from(span).unwrap_or(u64::MAX);
        Some(Instant::from_nanos(self.since_ns.saturating_add(span)).max(now))
    }

    fn rebase(&mut self, now: Instant) {
        self.reading_ns = self.local(now).as_nanos();
        self.since_ns = now.as_nanos();
    }

    pub(crate) fn step_forward(&mut self, now: Instant, by: Duration) {
        self.rebase(now);
        self.reading_ns += by.as_nanos();
    }

    pub(crate) fn drift(&mut self, now: Instant, ppm: i32) {
        self.rebase(now);
        self.drift_ppm = ppm.clamp(-DRIFT_PPM_MAX, DRIFT_PPM_MAX);
    }

    pub(crate) fn freeze(&mut self, now: Instant, frozen: bool) {
        self.rebase(now);
        self.frozen = frozen;
    }

    pub(crate) fn step_wall(&mut self, by_ns: i64) {
        self.wall_offset_ns = self.wall_offset_ns.saturating_add(by_ns);
    }
}

/// A timer of a node.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Armed {
    /// When, by the node's clock; `None` once disarmed, while a wake for it is still under way.
    at: Option<Instant>,
    /// The virtual time of the earliest wake that is under way.
    wake: Option<Instant>,
}

/// The timers of one incarnation.
pub(crate) type Timers = BTreeMap<TimerKey, Armed>;

impl Core {
    pub(crate) fn arm(&mut self, node: NodeId, key: TimerKey, at: Instant) {
        let now = self.now;
        let Some(entry) = self.nodes.get_mut(node.0 as usize) else { return };
        let due = entry.clock.due(at, now);
        let armed = entry.cold.timers.entry(key).or_insert(Armed { at: None, wake: None });
        armed.at = Some(at);
        // A wake that comes earlier looks again, so that pushing a timeout back costs nothing.
        if let Some(due) = due
            && armed.wake.is_none_or(|wake| wake > due)
        {
            armed.wake = Some(due);
            self.push(due, node, Item::Timer(key));
        }
    }

    pub(crate) fn disarm(&mut self, node: NodeId, key: TimerKey) {
        let timers = &mut self.nodes[node.0 as usize].cold.timers;
        if let Some(armed) = timers.get_mut(&key) {
            armed.at = None;
            if armed.wake.is_none() {
                timers.remove(&key);
            }
        }
    }

    /// A wake for `key`: whether the timer fires. Not where it was disarmed, or replaced by a later arming.
    pub(crate) fn on_timer(&mut self, node: NodeId, key: TimerKey) -> bool {
        let now = self.now;
        let entry = &mut self.nodes[node.0 as usize];
        let Some(armed) = entry.cold.timers.get_mut(&key) else { return false };
        if armed.wake.is_none_or(|wake| wake > now) {
            return false;
        }
        let Some(at) = armed.at else {
            entry.cold.timers.remove(&key);
            return false;
        };
        if entry.clock.local(now) >= at {
            entry.cold.timers.remove(&key);
            return true;
        }
        armed.wake = entry.clock.due(at, now);
        if let Some(due) = armed.wake {
            self.push(due, node, Item::Timer(key));
        }
        false
    }

    /// The virtual time at which a node's clock shows `local`; the end of time while it stands still.
    pub(crate) fn due(&self, node: NodeId, local: Instant) -> Instant {
        self.nodes[node.0 as usize].clock.due(local, self.now).unwrap_or(Instant::from_nanos(u64::MAX))
    }

    /// The node's clock has changed: everything that waits for it is placed anew.
    pub(crate) fn clock_changed(&mut self, node: NodeId) {
        let now = self.now;
        let entry = &mut self.nodes[node.0 as usize];
        let mut wakes = Vec::new();
        for (&key, armed) in &mut entry.cold.timers {
            let Some(at) = armed.at else { continue };
            let Some(due) = entry.clock.due(at, now) else { continue };
            if armed.wake.is_none_or(|wake| wake > due) {
                armed.wake = Some(due);
                wakes.push((due, Item::Timer(key)));
            }
        }
        for (counter, pending) in &entry.cold.pending {
            if let Some(due) = entry.clock.due(pending.deadline, now) {
                wakes.push((due, Item::Deadline { counter: *counter }));
            }
        }
        for (due, item) in wakes {
            self.push(due, node, item);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn at(seconds: u64) -> Instant {
        Instant::from_nanos(seconds * 1_000_000_000)
    }

    #[test]
    fn a_timer_is_due_exactly_when_a_drifting_clock_shows_its_time() {
        for ppm in [-DRIFT_PPM_MAX, -200, -1, 0, 1, 333, DRIFT_PPM_MAX] {
            let clock = Clock::new(at(3), 77, ppm, 0);
            for local in [78, 1_000_003, 999_999_999, 86_400_000_000_123] {
                let local = Instant::from_nanos(local);
                let due = clock.due(local, at(3)).expect("it runs");
                assert!(clock.local(due) >= local, "{ppm} ppm: too early");
                let before = Instant::from_nanos(due.as_nanos() - 1);
                assert!(clock.local(before) < local, "{ppm} ppm: too late");
            }
        }
    }

    #[test]
    fn a_clock_never_goes_back_and_goes_on_where_it_stood() {
        let mut clock = Clock::new(at(0), 500, 0, 0);
        let mut last = clock.local(at(0));
        let mut check = |clock: &Clock, now| {
            let reading = clock.local(now);
            assert!(reading >= last);
            last = reading;
        };
        clock.drift(at(1), 100_000);
        check(&clock, at(1));
        clock.freeze(at(2), true);
        check(&clock, at(2));
        assert_eq!(clock.local(at(2)), clock.local(at(9)), "frozen");
        assert_eq!(clock.due(clock.local(at(9)) + SECOND, at(9)), None);
        clock.freeze(at(9), false);
        check(&clock, at(9));
        clock.step_forward(at(10), SECOND * 30);
        check(&clock, at(10));
        assert_eq!(clock.local(at(10)).as_nanos(), 500 + 1_000_000_000 + 2 * 1_100_000_000 + 30_000_000_000);
    }

    #[test]
    fn the_wall_clock_steps_without_the_monotonic_clock() {
        let mut clock = Clock::new(at(0), 0, 0, -5);
        let wall = |clock: &Clock| clock.wall(clock.local(at(1))).as_nanos();
        assert_eq!(wall(&clock), EPOCH_UNIX_NS + 1_000_000_000 - 5);
        clock.step_wall(-2_000_000_000);
        assert_eq!(wall(&clock), EPOCH_UNIX_NS - 1_000_000_000 - 5);
        assert_eq!(clock.local(at(1)), at(1));
    }
}
