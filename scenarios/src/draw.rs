//! Draws of a scenario: each a function of the seed, of what it is for, and of a number; so that taking one fault out changes
//! nothing about the others.

/// What is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Draw {
    /// The moment of a fault within its window.
    FaultMoment = 1,
    /// How a player behaves.
    Conduct = 2,
    /// A player's line.
    Line = 3,
    /// When a player comes.
    Arrival = 4,
    /// How fast a node's clock runs.
    ClockDrift = 5,
    /// How far a node's wall clock is off.
    WallClock = 6,
    /// What becomes of a packet that a drill carries.
    Packet = 7,
    /// What becomes of a statement that a drill carries.
    Statement = 8,
    /// What becomes of a request to the bus that a drill carries, and of an entry of a cache.
    Request = 10,
    /// Whose token ends during the run.
    ShortToken = 11,
    /// When it ends.
    TokenEnd = 12,
}

/// 64 drawn bits.
#[must_use]
pub fn bits(seed: u64, what: Draw, n: u64) -> u64 {
    let round = |state: u64| {
        // SplitMix64 (Steele, Lea, Flood 2014).
        let z = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    };
    let keyed = round(seed.wrapping_add((what as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)));
    round(keyed.wrapping_add(n.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15)))
}

/// A number in `0..bound`; zero if `bound` is.
#[must_use]
pub fn below(seed: u64, what: Draw, n: u64, bound: u64) -> u64 {
    // The product of two 64-bit numbers, so its high half is below `bound`.
    ((u128::from(bits(seed, what, n)) * u128::from(bound)) >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_draw_depends_on_all_it_is_keyed_by_and_stays_below_its_bound() {
        assert_eq!(bits(1, Draw::Line, 2), bits(1, Draw::Line, 2));
        assert_ne!(bits(1, Draw::Line, 2), bits(2, Draw::Line, 2));
        assert_ne!(bits(1, Draw::Line, 2), bits(1, Draw::Arrival, 2));
        assert_ne!(bits(1, Draw::Line, 2), bits(1, Draw::Line, 3));
        assert_eq!(below(1, Draw::Line, 2, 0), 0);
        let faces: std::collections::BTreeSet<_> = (0..200).map(|n| below(7, Draw::Line, n, 6)).collect();
        assert_eq!(faces.into_iter().collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5]);
    }
}
