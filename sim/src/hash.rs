//! The trace hash: one number that two runs share only if they were the same run.
//!
//! Folded over every event: time, node, kind, payload, cause. Independent of the machine's byte order and of the build's
//! optimisation. Not a cryptographic hash: nobody attacks it.

use crate::entropy::fold;
use std::hash::Hasher;

const K: u64 = 0x2D35_8DCC_AA6C_78A5;

/// Folds words into one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceHash(u64);

impl Default for TraceHash {
    fn default() -> Self {
        Self(0x8BB8_4B93_962E_ACC9)
    }
}

impl TraceHash {
    /// What has been folded so far.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// Folds bytes and their number.
    #[inline]
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.0 = self.0.wrapping_add(bytes.len() as u64);
        self.write(bytes);
    }

    /// Folds two words at once.
    #[inline]
    pub fn pair(&mut self, a: u64, b: u64) {
        self.0 = fold(self.0 ^ a, K ^ b.rotate_left(32)).wrapping_add(b);
    }
}

impl Hasher for TraceHash {
    fn finish(&self) -> u64 {
        self.0
    }

    #[inline]
    fn write(&mut self, bytes: &[u8]) {
        let word = |part: &[u8]| {
            let mut whole = [0; 8];
            whole[..part.len()].copy_from_slice(part);
            u64::from_le_bytes(whole)
        };
        let (pairs, rest) = bytes.as_chunks::<16>();
        for both in pairs {
            self.pair(word(&both[..8]), word(&both[8..]));
        }
        if rest.len() > 8 {
            self.pair(word(&rest[..8]), word(&rest[8..]));
        } else if !rest.is_empty() {
            self.pair(word(rest), rest.len() as u64);
        }
    }

    #[inline]
    fn write_u8(&mut self, n: u8) {
        self.write_u64(n.into());
    }

    #[inline]
    fn write_u16(&mut self, n: u16) {
        self.write_u64(n.into());
    }

    #[inline]
    fn write_u32(&mut self, n: u32) {
        self.write_u64(n.into());
    }

    #[inline]
    fn write_u64(&mut self, n: u64) {
        self.pair(n, 0x5851_F42D_4C95_7F2D);
    }

    #[inline]
    fn write_u128(&mut self, n: u128) {
        self.pair(n as u64, (n >> 64) as u64);
    }

    #[inline]
    fn write_usize(&mut self, n: usize) {
        self.write_u64(n as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::hash::Hash;

    fn of(what: impl Hash) -> u64 {
        let mut hash = TraceHash::default();
        what.hash(&mut hash);
        hash.get()
    }

    #[test]
    fn every_part_and_the_order_of_parts_count() {
        let all = [of(0_u64), of(1_u64), of((0_u64, 0_u64)), of((1_u64, 0_u64)), of((0_u64, 1_u64)), of("a"), of("ab")];
        for (i, a) in all.iter().enumerate() {
            assert!(all[i + 1..].iter().all(|b| a != b), "hash {i} is alone");
        }
        let bytes: Vec<u8> = (0..40).collect();
        for len in 0..40 {
            assert_ne!(of(&bytes[..len]), of(&bytes[..len + 1]), "{len} bytes");
        }
    }
}
