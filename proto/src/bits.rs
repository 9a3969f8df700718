//! Bits in and out of a short frame, most significant first.
//!
//! Numbers of unknown size are cut into groups, the lowest first, each behind a bit that says whether another follows. A
//! reader refuses every other spelling of the same number, so that one value has one frame.
//!
//! Deliberately absent: allocation. A frame is at most [`FRAME_BYTES`] long.

use core::{fmt, ops::Deref};

/// The longest frame, in bytes: no message of [`crate::movement`] can need more, whatever its fields hold.
pub const FRAME_BYTES: usize = 64;

/// Why bytes are no frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadFrame {
    /// It ends within a field.
    Truncated,
    /// It is of another kind, or of a version that this build does not speak.
    Kind,
    /// A number is written in more groups than it needs, or is too large for its field.
    Number,
    /// A position lies outside the world.
    OutOfWorld,
    /// Something follows the last field.
    Trailing,
}

impl fmt::Display for BadFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Truncated => "the frame ends within a field",
            Self::Kind => "unknown kind or version of frame",
            Self::Number => "a number is not in its shortest form, or too large",
            Self::OutOfWorld => "a position lies outside the world",
            Self::Trailing => "bytes follow the last field",
        })
    }
}

impl core::error::Error for BadFrame {}

/// A finished frame. Dereferences to its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    len: u8,
    bytes: [u8; FRAME_BYTES],
}

impl Deref for Frame {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

impl AsRef<[u8]> for Frame {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

/// The widest field that is written or read at once: with up to seven bits that wait, it fills a word.
const WIDTH_MAX: u32 = 56;

/// Writes one frame.
#[derive(Debug)]
pub(crate) struct BitWriter {
    bytes: [u8; FRAME_BYTES],
    len: usize,
    /// Bits that do not fill a byte yet, the latest lowest. What stands above them has been written.
    waiting: u64,
    waiting_bits: u32,
}

impl BitWriter {
    pub(crate) const fn new() -> Self {
        Self { bytes: [0; FRAME_BYTES], len: 0, waiting: 0, waiting_bits: 0 }
    }

    /// Writes the low `width` bits of `value`, the highest of them first.
    pub(crate) fn bits(&mut self, value: u64, width: u32) {
        debug_assert!(width <= WIDTH_MAX && value >> width == 0, "{value} fits into {width} bits");
        self.waiting = self.waiting << width | value;
        self.waiting_bits += width;
        while self.waiting_bits >= 8 {
            self.waiting_bits -= 8;
            self.bytes[self.len] = (self.waiting >> self.waiting_bits) as u8;
            self.len += 1;
        }
    }

    /// Writes `value` in groups of `width` bits, the lowest first; each says first whether another follows.
    pub(crate) fn groups(&mut self, mut value: u64, width: u32) {
        let mask = (1 << width) - 1;
        while value > mask {
            self.bits(1 << width | value & mask, width + 1);
            value >>= width;
        }
        self.bits(value, width + 1);
    }

    /// Writes a signed number in groups, its sign folded into the lowest bit: small magnitudes are short.
    pub(crate) fn signed(&mut self, value: i64, width: u32) {
        self.groups(((value << 1) ^ (value >> 63)) as u64, width);
    }

    /// Pads the last byte with zero bits.
    pub(crate) fn finish(mut self) -> Frame {
        self.bits(0, (8 - self.waiting_bits) % 8);
        Frame { len: self.len as u8, bytes: self.bytes }
    }
}

/// Reads one frame.
#[derive(Debug)]
pub(crate) struct BitReader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> BitReader<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// The next `width` bits, from one to [`WIDTH_MAX`].
    pub(crate) fn bits(&mut self, width: u32) -> Result<u64, BadFrame> {
        debug_assert!((1..=WIDTH_MAX).contains(&width), "{width} bits are read at once");
        let end = self.at + width as usize;
        if end > self.bytes.len() * 8 {
            return Err(BadFrame::Truncated);
        }
        let rest = &self.bytes[self.at / 8..];
        let word = rest.first_chunk().map_or_else(
            || rest.iter().fold(0, |word, &byte| word << 8 | u64::from(byte)) << (64 - 8 * rest.len()),
            |chunk| u64::from_be_bytes(*chunk),
        );
        let value = word << (self.at % 8) >> (64 - width);
        self.at = end;
        Ok(value)
    }

    /// A number in groups of `width` bits. Refused where it has a group too many or does not fit into 64 bits.
    pub(crate) fn groups(&mut self, width: u32) -> Result<u64, BadFrame> {
        let (mut value, mut shift) = (0, 0);
        loop {
            let read = self.bits(width + 1)?;
            let (more, group) = (read >> width == 1, read & ((1 << width) - 1));
            let fits = shift < 64 && group << shift >> shift == group;
            if !fits || (group == 0 && shift > 0 && !more) {
                return Err(BadFrame::Number);
            }
            value |= group << shift;
            if !more {
                return Ok(value);
            }
            shift += width;
        }
    }

    /// A number in groups that fits into 32 bits.
    pub(crate) fn groups_u32(&mut self, width: u32) -> Result<u32, BadFrame> {
        u32::try_from(self.groups(width)?).map_err(|_| BadFrame::Number)
    }

    /// A signed number in groups.
    pub(crate) fn signed(&mut self, width: u32) -> Result<i64, BadFrame> {
        let folded = self.groups(width)?;
        Ok((folded >> 1) as i64 ^ -((folded & 1) as i64))
    }

    /// Nothing may follow but the zero bits that fill the last byte.
    pub(crate) fn finish(mut self) -> Result<(), BadFrame> {
        match self.bytes.len() * 8 - self.at {
            0 => Ok(()),
            left @ 1..8 if self.bits(left as u32)? == 0 => Ok(()),
            _ => Err(BadFrame::Trailing),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_has_exactly_one_spelling() {
        for value in [0, 1, 127, 128, u64::from(u32::MAX), u64::MAX] {
            for width in [1, 4, 7, 9] {
                // 64 groups of one bit need 128 bits: everything fits into a frame.
                let mut writer = BitWriter::new();
                writer.groups(value, width);
                let frame = writer.finish();
                assert_eq!(BitReader::new(&frame).groups(width), Ok(value), "{value} in groups of {width}");
            }
        }
        // Zero in two groups of seven: "more", 0, "last", 0.
        assert_eq!(BitReader::new(&[0b1000_0000, 0]).groups(7), Err(BadFrame::Number));
        // Ten full groups of seven hold 70 bits.
        assert_eq!(BitReader::new(&[0xFF; 10]).groups(7), Err(BadFrame::Number));
    }

    #[test]
    fn signed_numbers_keep_their_sign_to_the_ends() {
        for value in [0, 1, -1, i64::MAX, i64::MIN] {
            let mut writer = BitWriter::new();
            writer.signed(value, 9);
            assert_eq!(BitReader::new(&writer.finish()).signed(9), Ok(value));
        }
    }
}
