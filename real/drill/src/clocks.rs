//! The two clocks of the machine: the ledger's commits and the stream's messages are dated by the wall's, all else by the monotonic
//! one.

use crate::processes::Failed;
use worldline_real::clock;
use worldline_system::time::{Duration as Span, Instant, UnixTime};

/// How far a moment of the wall clock may be off on the monotonic one.
pub const CLOCK_ERROR_MAX: Span = Span::from_millis(5);
/// How often both clocks are read for one look.
const LOOKS: usize = 5;

/// How the wall clock stood against the monotonic one, from time to time: what the ledger's commits are dated by.
#[derive(Clone, Debug, Default)]
pub struct WallClock(Vec<(Instant, UnixTime)>);

impl WallClock {
    /// Looks at both.
    pub fn look(&mut self) {
        let look = || (clock::now(), clock::unix_now(), clock::now());
        self.looked(std::iter::repeat_with(look).take(LOOKS));
    }

    /// Takes the tightest of some looks: the monotonic clock, the wall's, and again the monotonic one. One that is too wide,
    /// because the machine had other things to do in between, is only taken where there is no other.
    fn looked(&mut self, looks: impl Iterator<Item = (Instant, UnixTime, Instant)>) {
        let tightest = looks.min_by_key(|(before, _, after)| after.since(*before));
        let Some((before, wall, after)) = tightest else { return };
        let width = after.since(before);
        if width <= CLOCK_ERROR_MAX || self.0.is_empty() {
            self.0.push((before + width / 2, wall));
        }
    }

    /// A moment of the wall clock, by the monotonic one: by the last look before it, or else the first.
    ///
    /// # Errors
    /// Nobody ever looked.
    pub fn monotonic(&self, wall: UnixTime) -> Result<Instant, Failed> {
        let before = self.0.iter().rev().find(|(_, known)| *known <= wall).or(self.0.first());
        let &(at, known) = before.ok_or_else(|| Failed::History("nobody has looked at the clocks".to_owned()))?;
        let (wall, known) = (wall.as_nanos(), known.as_nanos());
        Ok(if wall >= known { at + Span::from_nanos(wall - known) } else { at - Span::from_nanos(known - wall) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tightest_look_is_taken_and_none_that_is_too_wide() {
        let mut clocks = WallClock::default();
        let look = |before_ms, wall_ms: u64, after_ms| {
            let at = |ms: u64| Instant::from_nanos(ms * 1_000_000);
            (at(before_ms), UnixTime::from_nanos(wall_ms * 1_000_000), at(after_ms))
        };
        clocks.looked([look(10, 1_000, 30), look(40, 1_031, 42), look(50, 1_045, 60)].into_iter());
        clocks.looked([look(70, 1_060, 170)].into_iter());
        assert_eq!(clocks.0, [(Instant::from_nanos(41_000_000), UnixTime::from_nanos(1_031_000_000))]);
    }

    #[test]
    fn a_commit_is_dated_by_the_last_look_before_it() {
        let clocks = WallClock(vec![
            (Instant::from_nanos(100), UnixTime::from_nanos(1_000)),
            // The wall clock was set forward by 50 in between.
            (Instant::from_nanos(200), UnixTime::from_nanos(1_150)),
        ]);
        let at = |wall| clocks.monotonic(UnixTime::from_nanos(wall)).expect("looked").as_nanos();
        assert_eq!((at(1_040), at(1_160), at(990)), (140, 210, 90));
        assert!(WallClock::default().monotonic(UnixTime::from_nanos(1)).is_err());
    }
}
