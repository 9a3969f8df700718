//! The entropy door: a stream of bits that belongs to one incarnation of one node.
//!
//! In the simulator the stream is a function of (seed, node, incarnation); a real host seeds it from the operating system.

use rand_chacha::{
    ChaCha8Rng,
    rand_core::{Rng, SeedableRng},
};

/// A node's own random stream (ChaCha with 8 rounds).
#[derive(Clone, Debug)]
pub struct Entropy(ChaCha8Rng);

impl Entropy {
    /// The stream that this seed names.
    #[must_use]
    pub fn from_seed(seed: [u8; 32]) -> Self {
        Self(ChaCha8Rng::from_seed(seed))
    }

    /// 64 drawn bits.
    pub fn bits(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A number in `0..bound`, by multiply and shift: its bias is below `bound / 2^64`. Panics if `bound` is zero.
    pub fn below(&mut self, bound: u64) -> u64 {
        assert!(bound > 0, "nothing lies below zero");
        ((u128::from(self.bits()) * u128::from(bound)) >> 64) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_a_function_of_its_seed_and_stays_below_its_bound() {
        let (mut a, mut b) = (Entropy::from_seed([7; 32]), Entropy::from_seed([7; 32]));
        let mut seen = [false; 6];
        for _ in 0..200 {
            let n = a.below(6);
            assert_eq!(n, b.below(6));
            seen[usize::try_from(n).expect("small")] = true;
        }
        assert_eq!(seen, [true; 6], "every face of the die comes up");
        assert_ne!(Entropy::from_seed([8; 32]).bits(), Entropy::from_seed([7; 32]).bits());
    }
}
