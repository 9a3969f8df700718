//! The clock door: CLOCK_BOOTTIME, which goes on while the machine sleeps, and the wall clock.
//!
//! Deliberately absent: CLOCK_MONOTONIC. A holder that slept through its lease must notice.

use rustix::time::{ClockId, Timespec, clock_gettime};
use worldline_system::time::{Duration, Instant, UnixTime};

/// The machine's monotonic clock: nanoseconds since it was started, sleep included. The same for every process on it.
#[must_use]
pub fn now() -> Instant {
    Instant::from_nanos(nanos(clock_gettime(ClockId::Boottime)))
}

/// The machine's wall clock.
#[must_use]
pub fn unix_now() -> UnixTime {
    UnixTime::from_nanos(nanos(clock_gettime(ClockId::Realtime)))
}

/// How long it is until `at`, for a timer of the runtime; zero if it has passed.
#[must_use]
pub fn until(at: Instant) -> std::time::Duration {
    span(at.since(now()))
}

/// A span of the roles as one of the runtime.
#[must_use]
pub const fn span(span: Duration) -> std::time::Duration {
    std::time::Duration::from_nanos(span.as_nanos())
}

fn nanos(time: Timespec) -> u64 {
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(u64::try_from(time.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_monotonic_clock_counts_sleep_and_never_goes_back() {
        let awake = nanos(clock_gettime(ClockId::Monotonic));
        let (first, second) = (now(), now());
        assert!(first.as_nanos() >= awake, "the time since the start is at least the time awake");
        assert!(second >= first);
    }

    #[test]
    fn what_has_passed_is_no_wait() {
        assert_eq!(until(now() - Duration::from_secs(1)), std::time::Duration::ZERO);
        let ahead = until(now() + Duration::from_secs(60));
        assert!(ahead > std::time::Duration::from_secs(59) && ahead <= std::time::Duration::from_secs(60));
    }
}
