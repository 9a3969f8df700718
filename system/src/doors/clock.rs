//! The clock door: keyed timers. The time itself comes with every event, in [`crate::Turn`].
//!
//! `arm` replaces, `disarm` forgets; a timer never fires before its time by the node's own monotonic clock, and may fire
//! any time after it.

/// Names a timer of one role: a kind in the high byte and a number of 56 bits below. A role wraps it in an enum of its own.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TimerKey(pub u64);

impl core::fmt::Debug for TimerKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}.{}", self.kind(), self.number())
    }
}

impl TimerKey {
    /// The timer of this kind and number. The number is cut to 56 bits.
    #[must_use]
    pub const fn new(kind: u8, number: u64) -> Self {
        Self((kind as u64) << 56 | number & ((1 << 56) - 1))
    }

    /// The high byte.
    #[must_use]
    pub const fn kind(self) -> u8 {
        (self.0 >> 56) as u8
    }

    /// The low 56 bits.
    #[must_use]
    pub const fn number(self) -> u64 {
        self.0 & ((1 << 56) - 1)
    }
}
