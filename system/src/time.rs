//! Time as a role sees it: whole nanoseconds, handed in with every event.
//!
//! Deliberately absent: any way to ask for the time. Inside one event it does not move.

use core::{
    fmt,
    ops::{Add, AddAssign, Div, Mul, Sub},
};

/// A span of time, in nanoseconds. Arithmetic saturates: a span is never negative and never wraps.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Duration(u64);

impl fmt::Debug for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Duration {
    /// No time at all.
    pub const ZERO: Self = Self(0);
    /// Longer than any run.
    pub const MAX: Self = Self(u64::MAX);

    /// `n` nanoseconds.
    #[must_use]
    pub const fn from_nanos(n: u64) -> Self {
        Self(n)
    }

    /// `n` microseconds.
    #[must_use]
    pub const fn from_micros(n: u64) -> Self {
        Self(n.saturating_mul(1_000))
    }

    /// `n` milliseconds.
    #[must_use]
    pub const fn from_millis(n: u64) -> Self {
        Self(n.saturating_mul(1_000_000))
    }

    /// `n` seconds.
    #[must_use]
    pub const fn from_secs(n: u64) -> Self {
        Self(n.saturating_mul(1_000_000_000))
    }

    /// In nanoseconds.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// In whole microseconds, rounded down.
    #[must_use]
    pub const fn as_micros(self) -> u64 {
        self.0 / 1_000
    }

    /// In whole milliseconds, rounded down.
    #[must_use]
    pub const fn as_millis(self) -> u64 {
        self.0 / 1_000_000
    }

    /// The shorter of the two.
    #[must_use]
    pub fn min(self, other: Self) -> Self {
        Ord::min(self, other)
    }
}

impl Add for Duration {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl AddAssign for Duration {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Sub for Duration {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl Mul<u64> for Duration {
    type Output = Self;
    fn mul(self, n: u64) -> Self {
        Self(self.0.saturating_mul(n))
    }
}

impl Div<u64> for Duration {
    type Output = Self;
    fn div(self, n: u64) -> Self {
        Self(self.0 / n)
    }
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, unit, nanos) = match self.0 {
            n if n >= 1_000_000_000 => (n / 1_000_000, "s", 1_000),
            n if n >= 1_000_000 => (n / 1_000, "ms", 1_000),
            n if n >= 1_000 => (n, "µs", 1_000),
            n => return write!(f, "{n}ns"),
        };
        let (integer, fraction) = (whole / nanos, whole % nanos);
        if fraction == 0 { write!(f, "{integer}{unit}") } else { write!(f, "{integer}.{fraction:03}{unit}") }
    }
}

/// Declares a point in time: it advances by a [`Duration`], and two of them lie a [`Duration`] apart.
macro_rules! points {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
        pub struct $name(u64);

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}.{:09}s", self.0 / 1_000_000_000, self.0 % 1_000_000_000)
            }
        }

        impl $name {
            /// `n` nanoseconds after this clock's zero.
            #[must_use]
            pub const fn from_nanos(n: u64) -> Self {
                Self(n)
            }

            /// Nanoseconds since this clock's zero.
            #[must_use]
            pub const fn as_nanos(self) -> u64 {
                self.0
            }

            /// How long after `earlier` this is; zero if it is not after.
            #[must_use]
            pub const fn since(self, earlier: Self) -> Duration {
                Duration(self.0.saturating_sub(earlier.0))
            }
        }

        impl Add<Duration> for $name {
            type Output = Self;
            fn add(self, span: Duration) -> Self {
                Self(self.0.saturating_add(span.0))
            }
        }

        impl Sub<Duration> for $name {
            type Output = Self;
            fn sub(self, span: Duration) -> Self {
                Self(self.0.saturating_sub(span.0))
            }
        }
    )*};
}

points! {
    /// A reading of a node's monotonic clock. Zero is the node's own and means nothing to another node. It goes on while
    /// the machine is suspended (CLOCK_BOOTTIME): a holder that slept through its lease must notice.
    Instant;
    /// A reading of a node's wall clock: nanoseconds since 1970-01-01T00:00:00Z. It may step and differs between nodes.
    UnixTime;
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn a_span_prints_in_the_largest_unit_that_fits() {
        for (span, text) in [
            (Duration::from_nanos(999), "999ns"),
            (Duration::from_micros(1), "1µs"),
            (Duration::from_micros(1_500), "1.500ms"),
            (Duration::from_millis(12_345), "12.345s"),
            (Duration::from_secs(90), "90s"),
        ] {
            assert_eq!(span.to_string(), text);
        }
    }

    #[test]
    fn spans_and_points_saturate() {
        assert_eq!(Duration::ZERO - Duration::from_nanos(1), Duration::ZERO);
        assert_eq!(Instant::from_nanos(5).since(Instant::from_nanos(9)), Duration::ZERO);
        assert_eq!(Instant::from_nanos(5) + Duration::MAX, Instant::from_nanos(u64::MAX));
    }
}
