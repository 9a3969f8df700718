//! The movement codec: what a client and a gateway send each other in datagrams, packed bit by bit.
//!
//! A frame is a nibble of kind and version, then its fields in the order in which the types list them, then zero bits up to
//! the end of the byte. Every value has exactly one frame: whatever decodes, encodes to the same bytes. A typical update
//! takes 19 bytes, a typical input 11.
//!
//! Deliberately absent: signatures (the connection is encrypted and authenticated) and deltas against a baseline.

pub use crate::bits::{BadFrame, FRAME_BYTES, Frame};
use crate::bits::{BitReader, BitWriter};

/// The world reaches so far from its middle in each direction, in millimetres: 64 km. A frame from outside does not decode.
pub const WORLD_EDGE_MM: i64 = 64_000_000;

/// The version in the upper two bits of the nibble.
const VERSION: u64 = 1;
/// The kinds in its lower two bits. Zero is none of them, so that a frame of zeros is garbage.
const KIND_INPUT: u64 = 1;
const KIND_UPDATE: u64 = 2;

/// Group widths, in bits: each the cheapest for what its field typically holds.
const WIDTH_ENTITY: u32 = 8;
const WIDTH_EPOCH: u32 = 4;
const WIDTH_VERSION: u32 = 6;
const WIDTH_SEQUENCE: u32 = 6;
const WIDTH_POSITION: u32 = 9;
const WIDTH_HIT_POINTS: u32 = 6;

/// An entity's id: eight bits of kind, then its number in groups.
const ENTITY_NUMBER_BITS: u32 = 56;

/// Client to gateway: where it says its character has moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Input {
    /// The client's number for this input; it rises.
    pub sequence: u32,
    /// Eastwards from the middle of the world.
    pub x_mm: i64,
    /// Northwards from the middle of the world.
    pub y_mm: i64,
}

/// Gateway to client: an entity's authoritative state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Update {
    /// Which, as [`crate::EntityId::get`] gives it. The codec carries any number; the reader checks it.
    pub entity: u64,
    /// The owner's epoch.
    pub epoch: u64,
    /// The state's version within that epoch.
    pub version: u64,
    /// The last input of the reader that this state has taken in; zero for another's entity.
    pub sequence: u32,
    /// Eastwards from the middle of the world.
    pub x_mm: i64,
    /// Northwards from the middle of the world.
    pub y_mm: i64,
    /// Hit points left.
    pub hit_points: u32,
}

impl Input {
    /// The frame of this input. One from outside the world is written as it is, and refused by whoever reads it.
    #[must_use]
    pub fn encode(&self) -> Frame {
        let mut to = begin(KIND_INPUT);
        to.groups(u64::from(self.sequence), WIDTH_SEQUENCE);
        to.signed(self.x_mm, WIDTH_POSITION);
        to.signed(self.y_mm, WIDTH_POSITION);
        to.finish()
    }

    /// Reads one input that fills `bytes` exactly.
    ///
    /// # Errors
    /// If the bytes are anything else than the one frame of an input inside the world.
    pub fn decode(bytes: &[u8]) -> Result<Self, BadFrame> {
        let mut from = open(bytes, KIND_INPUT)?;
        let input = Self {
            sequence: from.groups_u32(WIDTH_SEQUENCE)?,
            x_mm: coordinate(&mut from)?,
            y_mm: coordinate(&mut from)?,
        };
        from.finish().map(|()| input)
    }
}

impl Update {
    /// The frame of this update. One from outside the world is written as it is, and refused by whoever reads it.
    #[must_use]
    pub fn encode(&self) -> Frame {
        let mut to = begin(KIND_UPDATE);
        to.bits(self.entity >> ENTITY_NUMBER_BITS, 64 - ENTITY_NUMBER_BITS);
        to.groups(self.entity & ((1 << ENTITY_NUMBER_BITS) - 1), WIDTH_ENTITY);
        to.groups(self.epoch, WIDTH_EPOCH);
        to.groups(self.version, WIDTH_VERSION);
        to.groups(u64::from(self.sequence), WIDTH_SEQUENCE);
        to.signed(self.x_mm, WIDTH_POSITION);
        to.signed(self.y_mm, WIDTH_POSITION);
        to.groups(u64::from(self.hit_points), WIDTH_HIT_POINTS);
        to.finish()
    }

    /// Reads one update that fills `bytes` exactly.
    ///
    /// # Errors
    /// If the bytes are anything else than the one frame of an update inside the world.
    pub fn decode(bytes: &[u8]) -> Result<Self, BadFrame> {
        let mut from = open(bytes, KIND_UPDATE)?;
        let kind = from.bits(64 - ENTITY_NUMBER_BITS)?;
        let number = from.groups(WIDTH_ENTITY)?;
        if number >> ENTITY_NUMBER_BITS != 0 {
            return Err(BadFrame::Number);
        }
        let update = Self {
            entity: kind << ENTITY_NUMBER_BITS | number,
            epoch: from.groups(WIDTH_EPOCH)?,
            version: from.groups(WIDTH_VERSION)?,
            sequence: from.groups_u32(WIDTH_SEQUENCE)?,
            x_mm: coordinate(&mut from)?,
            y_mm: coordinate(&mut from)?,
            hit_points: from.groups_u32(WIDTH_HIT_POINTS)?,
        };
        from.finish().map(|()| update)
    }
}

fn begin(kind: u64) -> BitWriter {
    let mut writer = BitWriter::new();
    writer.bits(VERSION << 2 | kind, 4);
    writer
}

fn open(bytes: &[u8], kind: u64) -> Result<BitReader<'_>, BadFrame> {
    let mut reader = BitReader::new(bytes);
    if reader.bits(4)? == VERSION << 2 | kind { Ok(reader) } else { Err(BadFrame::Kind) }
}

fn coordinate(from: &mut BitReader<'_>) -> Result<i64, BadFrame> {
    let value = from.signed(WIDTH_POSITION)?;
    if value.unsigned_abs() <= WORLD_EDGE_MM as u64 { Ok(value) } else { Err(BadFrame::OutOfWorld) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{EntityId, EntityKind};
    use alloc::vec::Vec;
    use proptest::prelude::*;

    const EDGES: core::ops::RangeInclusive<i64> = -WORLD_EDGE_MM..=WORLD_EDGE_MM;

    fn typical() -> Update {
        let entity = EntityId::new(EntityKind::Character, 412).expect("in range").get();
        Update {
            entity,
            epoch: 3,
            version: 72_000,
            sequence: 24_000,
            x_mm: 1_204_118,
            y_mm: -38_990_443,
            hit_points: 870,
        }
    }

    #[test]
    fn an_hour_into_a_session_far_from_the_middle_frames_are_short() {
        assert_eq!(typical().encode().len(), 19);
        assert_eq!(Input { sequence: 72_000, x_mm: 1_204_118, y_mm: -38_990_443 }.encode().len(), 11);
    }

    #[test]
    fn the_widest_values_fit_into_a_frame() {
        let widest = Update {
            entity: u64::MAX,
            epoch: u64::MAX,
            version: u64::MAX,
            sequence: u32::MAX,
            x_mm: i64::MIN,
            y_mm: i64::MIN,
            hit_points: u32::MAX,
        };
        assert!(widest.encode().len() <= FRAME_BYTES);
        assert_eq!(Update::decode(&widest.encode()), Err(BadFrame::OutOfWorld));
    }

    #[test]
    fn every_cut_every_tail_and_every_other_kind_is_refused() {
        let frame = typical().encode();
        for len in 0..frame.len() {
            assert_eq!(Update::decode(&frame[..len]), Err(BadFrame::Truncated), "cut to {len} bytes");
        }
        let mut longer: Vec<u8> = frame.to_vec();
        longer.push(0);
        assert_eq!(Update::decode(&longer), Err(BadFrame::Trailing));
        assert_eq!(Input::decode(&frame), Err(BadFrame::Kind));
        assert_eq!(Input::decode(&[0; 12]), Err(BadFrame::Kind));
        let mut newer: Vec<u8> = frame.to_vec();
        newer[0] ^= 0b1100_0000;
        assert_eq!(Update::decode(&newer), Err(BadFrame::Kind), "another version");
    }

    #[test]
    fn the_edge_of_the_world_decodes_and_a_millimetre_behind_it_does_not() {
        let at = |x_mm, y_mm| Input { sequence: 1, x_mm, y_mm };
        assert!(Input::decode(&at(WORLD_EDGE_MM, -WORLD_EDGE_MM).encode()).is_ok());
        for outside in [at(WORLD_EDGE_MM + 1, 0), at(0, -WORLD_EDGE_MM - 1), at(i64::MIN, i64::MAX)] {
            assert_eq!(Input::decode(&outside.encode()), Err(BadFrame::OutOfWorld));
        }
    }

    prop_compose! {
        fn updates()(
            (entity, epoch, version) in (any::<u64>(), any::<u64>(), any::<u64>()),
            (sequence, hit_points) in (any::<u32>(), any::<u32>()),
            (x_mm, y_mm) in (EDGES, EDGES),
            cut in 0u32..64,
        ) -> Update {
            // Cut, so that short numbers are as likely as long ones.
            let (epoch, version) = (epoch >> cut, version >> (63 - cut));
            Update { entity, epoch, version, sequence, x_mm, y_mm, hit_points }
        }
    }

    proptest! {
        #[test]
        fn what_is_encoded_decodes_to_itself(update in updates(), sequence in any::<u32>()) {
            prop_assert_eq!(Update::decode(&update.encode()), Ok(update));
            let input = Input { sequence, x_mm: update.x_mm, y_mm: update.y_mm };
            prop_assert_eq!(Input::decode(&input.encode()), Ok(input));
        }

        #[test]
        fn any_bytes_are_refused_or_encode_to_themselves(
            mut bytes in proptest::collection::vec(any::<u8>(), 0..80),
            kind in 0u8..3,
        ) {
            // Two out of three begin like a frame, or hardly any would get past the first nibble.
            if let (Some(first), 1..) = (bytes.first_mut(), kind) {
                *first = (VERSION as u8) << 6 | kind << 4 | *first & 0x0F;
            }
            if let Ok(update) = Update::decode(&bytes) {
                prop_assert_eq!(&update.encode()[..], &bytes[..]);
            }
            if let Ok(input) = Input::decode(&bytes) {
                prop_assert_eq!(&input.encode()[..], &bytes[..]);
            }
        }

        #[test]
        fn a_flipped_bit_is_refused_or_another_value(update in updates(), bit in any::<proptest::sample::Index>()) {
            let mut bytes = update.encode().to_vec();
            let bit = bit.index(bytes.len() * 8);
            bytes[bit / 8] ^= 0x80 >> (bit % 8);
            prop_assert_ne!(Update::decode(&bytes), Ok(update));
        }
    }
}
