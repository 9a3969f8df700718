//! How fast a stranger may bring what the role must handle: so much a second, and as much at once.

use std::time::Duration;
use tokio::time::Instant;

/// Part of what comes back in a second: it is worth another look when there is so much.
const LOOK: u64 = 10;

pub(super) struct Bucket {
    per_second: u64,
    left: u64,
    at: Instant,
}

impl Bucket {
    pub fn new(per_second: u32, now: Instant) -> Self {
        let per_second = u64::from(per_second.max(1));
        Self { per_second, left: per_second, at: now }
    }

    /// Takes as many of `wanted` as there are.
    pub fn take(&mut self, wanted: usize, now: Instant) -> usize {
        let nanos = now.saturating_duration_since(self.at).as_nanos();
        let earned = u64::try_from(nanos * u128::from(self.per_second) / 1_000_000_000).unwrap_or(u64::MAX);
        if earned >= self.per_second - self.left {
            (self.left, self.at) = (self.per_second, now);
        } else {
            self.left += earned;
            self.at += self.span(earned);
        }
        let taken = self.left.min(wanted as u64);
        self.left -= taken;
        taken as usize
    }

    /// When some are back, where none is left.
    pub fn refilled(&self) -> Instant {
        self.at + self.span((self.per_second / LOOK).max(1)) + Duration::from_nanos(1)
    }

    /// How long it takes until so many are back.
    fn span(&self, tokens: u64) -> Duration {
        Duration::from_nanos((u128::from(tokens) * 1_000_000_000 / u128::from(self.per_second)) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_much_comes_as_was_earned_and_no_more_than_a_second_of_it_at_once() {
        let begin = Instant::now();
        let mut bucket = Bucket::new(300, begin);
        assert_eq!(bucket.take(1_000, begin), 300);
        assert_eq!(bucket.take(1, begin), 0);
        let later = bucket.refilled();
        assert!(later > begin && later < begin + Duration::from_millis(101));
        assert_eq!(bucket.take(1_000, later), 30);
        assert_eq!(
            bucket.take(1_000, begin + Duration::from_secs(60)),
            300,
            "a minute of silence earns a second of it"
        );
    }

    #[test]
    fn who_asks_often_loses_nothing_by_it() {
        let begin = Instant::now();
        let mut bucket = Bucket::new(7, begin);
        let asks = 1..=10_000_u32;
        let taken: usize = asks.map(|n| bucket.take(1, begin + Duration::from_millis(1) * n)).sum();
        assert!((76..=77).contains(&taken), "7 at once and 70 in ten seconds, and not {taken}");
    }
}
