//! The entropy door and every other draw: keyed, never shared.
//!
//! A draw is a function of (seed, purpose, who, n), without a state. So taking one fault out, or adding a draw for another
//! purpose, leaves every other draw as it was; shrinking a failure depends on it. A node's own stream is a function of
//! (seed, node, incarnation).

use worldline_proto::{Incarnation, NodeId};
use worldline_system::doors::entropy::Entropy;

/// What a draw is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Purpose {
    /// The stream of a node's incarnation.
    Stream = 1,
    /// The fate and delay of a packet of a connection. Who: the connection's end; n: its count of packets.
    Packet = 2,
    /// The fate and delay of any other packet. Who: the link; n: its count of packets.
    Hop = 3,
    /// What a disturbance does to a packet. Who: the disturbance and the link.
    Disturbance = 4,
    /// Whether a typed message is encoded and decoded on its way.
    RoundTrip = 5,
    /// Whether a hook is active in this seed. Who: the hook.
    HookActive = 6,
    /// Whether an active hook fires. Who: the hook; n: its count of calls.
    HookFires = 7,
    /// Where a node's monotonic clock begins.
    ClockZero = 8,
    /// A directory member's election timeout. Who: the member; n: the term.
    DirectoryElection = 16,
    /// What else the directory draws.
    Directory = 17,
    /// The ledger's draws.
    Ledger = 24,
    /// The cache's draws.
    Cache = 26,
    /// The bus's draws.
    Bus = 25,
    /// A bus member's election timeout. Who: the member; n: the term.
    BusElection = 27,
    /// Whether a new leader of the bus stores its predecessor's last message again. Who: the member; n: the term.
    BusAgain = 28,
    /// Which nodes and times a scenario chooses.
    Scenario = 32,
}

/// Odd constants with well-mixed bits (the fractional part of the golden ratio, and primes of wyhash).
const K: [u64; 4] = [0x9E37_79B9_7F4A_7C15, 0xA076_1D64_78BD_642F, 0xE703_7ED1_A0B4_28DB, 0x8EBC_6AF0_9C88_C6E3];

/// The 128-bit product of two words, its halves combined.
#[inline]
pub(crate) const fn fold(a: u64, b: u64) -> u64 {
    let product = a as u128 * b as u128;
    product as u64 ^ (product >> 64) as u64
}

/// A world's seed, ready to draw from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Keyed {
    seed: u64,
}

impl Keyed {
    pub(crate) const fn new(seed: u64) -> Self {
        Self { seed: fold(seed ^ K[0], K[1]) }
    }

    /// 64 bits that depend on nothing but (seed, purpose, who, n).
    #[inline]
    pub(crate) const fn draw(self, purpose: Purpose, who: u64, n: u64) -> u64 {
        let key = fold(self.seed ^ who, K[2] ^ (purpose as u64) << 56);
        fold(key ^ n.wrapping_mul(K[0]) ^ K[3], K[1] ^ n)
    }

    /// The stream of one incarnation of one node.
    pub(crate) fn stream(self, node: NodeId, incarnation: Incarnation) -> Entropy {
        let who = u64::from(node.0) << 32 | u64::from(incarnation.0);
        let mut seed = [0; 32];
        for (n, word) in seed.chunks_exact_mut(8).enumerate() {
            word.copy_from_slice(&self.draw(Purpose::Stream, who, n as u64).to_le_bytes());
        }
        Entropy::from_seed(seed)
    }
}

/// Maps 64 drawn bits to `0..bound`, by multiply and shift. Zero for a bound of zero.
#[must_use]
#[inline]
pub const fn below(bits: u64, bound: u64) -> u64 {
    ((bits as u128 * bound as u128) >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_differ_in_every_part_of_their_key_and_repeat_under_the_same() {
        let draws = [
            Keyed::new(1).draw(Purpose::Packet, 1, 1),
            Keyed::new(2).draw(Purpose::Packet, 1, 1),
            Keyed::new(1).draw(Purpose::Hop, 1, 1),
            Keyed::new(1).draw(Purpose::Packet, 2, 1),
            Keyed::new(1).draw(Purpose::Packet, 1, 2),
            Keyed::new(1).draw(Purpose::Packet, 0, 0),
        ];
        for (i, a) in draws.iter().enumerate() {
            assert!(draws[i + 1..].iter().all(|b| a != b), "draw {i} is alone");
        }
        assert_eq!(draws[0], Keyed::new(1).draw(Purpose::Packet, 1, 1));
    }

    #[test]
    fn draws_of_neighbouring_keys_are_spread_evenly() {
        // 64,000 draws into 64 bins, for counters and for ids: the chi-square of 63 degrees stays below its 99.99 % bound.
        for by_who in [false, true] {
            let mut bins = [0_i64; 64];
            for n in 0..64_000 {
                let (who, n) = if by_who { (n, 7) } else { (7, n) };
                bins[(Keyed::new(3).draw(Purpose::Packet, who, n) >> 58) as usize] += 1;
            }
            let chi: i64 = bins.iter().map(|b| (b - 1000) * (b - 1000)).sum::<i64>() / 1000;
            assert!(chi < 113, "chi-square {chi}");
        }
    }

    #[test]
    fn an_incarnation_has_a_stream_of_its_own() {
        let keyed = Keyed::new(9);
        let first = |node, life| keyed.stream(NodeId(node), Incarnation(life)).bits();
        assert_eq!(first(1, 1), first(1, 1));
        assert_ne!(first(1, 1), first(1, 2));
        assert_ne!(first(1, 1), first(2, 1));
    }
}
