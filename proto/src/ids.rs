//! Names of things, each a type of its own, so that an epoch cannot stand where a revision belongs.
//!
//! Deliberately absent: how an id is chosen. Roles draw lease ids and nonces from their entropy, the ledger counts
//! generations, the directory counts revisions.

use alloc::string::String;
use core::{fmt, num::NonZeroU64, str::FromStr};

/// Declares newtypes over `u64` that count upwards from zero.
macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
        pub struct $name(pub u64);

        impl $name {
            /// The next one. Panics past `u64::MAX`, which no world lives to see.
            #[must_use]
            pub const fn next(self) -> Self {
                match self.0.checked_add(1) {
                    Some(n) => Self(n),
                    None => panic!("counter overflow"),
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl From<u64> for $name {
            fn from(n: u64) -> Self {
                Self(n)
            }
        }
    )*};
}

counters! {
    /// How often an entity has changed hands. Raised by every claim, never reused.
    Epoch;
    /// A session generation: how often a character has logged in. Owners accept only the highest.
    Generation;
    /// A client's own number for an operation, counted from 1 without gaps; it goes on across sessions.
    OpNumber;
    /// A revision of the directory: every transaction that writes has its own.
    Revision;
    /// A version of an entity's volatile state within one epoch.
    Version;
    /// A fact's number among those of its aggregate, counted from 1 without gaps. Zero stands before the first.
    FactSequence;
    /// Written with every ownership record, so that a writer whose answer was lost can recognise its own write.
    Nonce;
    /// A connection as its host numbers it; both ends of one connection see different numbers.
    ConnectionId;
    /// A unary call as the callee's host numbers it.
    CallId;
}

/// The logical address of a process. `real/` resolves it to a host and a port.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct NodeId(pub u32);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "n{}", self.0)
    }
}

/// How often a node has started. Answers die with the incarnation that asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Incarnation(pub u32);

/// An operation that a role has submitted and that will be answered once: unique over all incarnations of its node.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct OpId {
    /// Which life of the node asked.
    pub incarnation: Incarnation,
    /// Its count of operations, from 1.
    pub counter: u64,
}

impl fmt::Display for OpId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "op{}.{}", self.incarnation.0, self.counter)
    }
}

/// In a trace a name says more than its numbers.
macro_rules! debug_as_displayed {
    ($($name:ident)*) => {$(
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    )*};
}

debug_as_displayed!(NodeId OpId LeaseId EntityId CharacterId);

/// A lease, and so the identity of the process that holds it: drawn anew at every start. A host name is only an address.
///
/// In 1..=`i64::MAX`, since etcd keeps lease ids as signed integers and reads zero as "choose one for me".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId(NonZeroU64);

impl LeaseId {
    /// A lease id from 64 drawn bits: the sign bit is dropped and zero becomes one.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        match NonZeroU64::new(bits & i64::MAX as u64) {
            Some(id) => Self(id),
            None => Self(NonZeroU64::MIN),
        }
    }

    /// The id as a number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0.get()
    }
}

impl fmt::Display for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Why a text is no lease's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadLeaseName(pub String);

impl fmt::Display for BadLeaseName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` names no lease: expected 16 hexadecimal digits, not all zero, the first below 8", self.0)
    }
}

impl core::error::Error for BadLeaseName {}

impl FromStr for LeaseId {
    type Err = BadLeaseName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let bits = if text.len() == 16 && digits { u64::from_str_radix(text, 16).ok() } else { None };
        let id = bits.filter(|&bits| i64::try_from(bits).is_ok()).and_then(NonZeroU64::new);
        id.map(Self).ok_or_else(|| BadLeaseName(text.into()))
    }
}

/// What an entity is; the high byte of its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum EntityKind {
    /// A player's character.
    Character = 1,
    /// A world boss: pinned to a region by its record.
    Boss = 2,
    /// Any other creature of the world.
    Npc = 3,
}

impl EntityKind {
    /// Every kind, in the order of their ids.
    pub const ALL: [Self; 3] = [Self::Character, Self::Boss, Self::Npc];

    const fn name(self) -> &'static str {
        match self {
            Self::Character => "character",
            Self::Boss => "boss",
            Self::Npc => "npc",
        }
    }
}

/// An entity of the world. Written `boss-1`, `character-42`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntityId(NonZeroU64);

/// An entity's number has 56 bits; the kind has the other eight.
const NUMBER_BITS: u32 = 56;

impl EntityId {
    /// The largest number within a kind.
    pub const NUMBER_MAX: u64 = (1 << NUMBER_BITS) - 1;

    /// The entity of this kind and number. `None` for a number above [`Self::NUMBER_MAX`].
    #[must_use]
    pub const fn new(kind: EntityKind, number: u64) -> Option<Self> {
        if number > Self::NUMBER_MAX {
            return None;
        }
        match NonZeroU64::new((kind as u64) << NUMBER_BITS | number) {
            Some(id) => Some(Self(id)),
            None => None,
        }
    }

    /// The id as a number, for the wire.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0.get()
    }

    /// The id that [`Self::get`] gave. `None` where no kind has that high byte.
    #[must_use]
    pub fn from_raw(raw: u64) -> Option<Self> {
        let kind = EntityKind::ALL.into_iter().find(|&kind| kind as u64 == raw >> NUMBER_BITS)?;
        Self::new(kind, raw & Self::NUMBER_MAX)
    }

    /// What it is.
    #[must_use]
    pub fn kind(self) -> EntityKind {
        let high = self.0.get() >> NUMBER_BITS;
        EntityKind::ALL.into_iter().find(|&kind| kind as u64 == high).expect("an id is only made with a kind")
    }

    /// Its number within its kind.
    #[must_use]
    pub const fn number(self) -> u64 {
        self.0.get() & Self::NUMBER_MAX
    }
}

impl fmt::Display for EntityId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.kind().name(), self.number())
    }
}

/// Why a text is no entity's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadEntityName(pub String);

impl fmt::Display for BadEntityName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` names no entity: expected `character-N`, `boss-N` or `npc-N`", self.0)
    }
}

impl core::error::Error for BadEntityName {}

impl FromStr for EntityId {
    type Err = BadEntityName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let (kind, number) = text.split_once('-')?;
            let kind = EntityKind::ALL.into_iter().find(|k| k.name() == kind)?;
            Self::new(kind, number.parse().ok()?)
        };
        parse().ok_or_else(|| BadEntityName(text.into()))
    }
}

/// A player's character. It is an entity; the type says that it can hold a session and number operations.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CharacterId(EntityId);

impl CharacterId {
    /// Character number `n`. `None` above [`EntityId::NUMBER_MAX`].
    #[must_use]
    pub const fn new(n: u64) -> Option<Self> {
        match EntityId::new(EntityKind::Character, n) {
            Some(entity) => Some(Self(entity)),
            None => None,
        }
    }

    /// The character that is this entity. `None` for an entity of another kind.
    #[must_use]
    pub fn from_entity(entity: EntityId) -> Option<Self> {
        (entity.kind() == EntityKind::Character).then_some(Self(entity))
    }

    /// The entity it is.
    #[must_use]
    pub const fn entity(self) -> EntityId {
        self.0
    }
}

impl FromStr for CharacterId {
    type Err = BadEntityName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().ok().and_then(Self::from_entity).ok_or_else(|| BadEntityName(text.into()))
    }
}

impl From<CharacterId> for EntityId {
    fn from(character: CharacterId) -> Self {
        character.0
    }
}

impl fmt::Display for CharacterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// SHA-256 of an operation's payload, cut to 128 bits: tells two payloads under one key apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 16]);

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Why a text is no digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadDigest(pub String);

impl fmt::Display for BadDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is no digest: expected 32 hexadecimal digits", self.0)
    }
}

impl core::error::Error for BadDigest {}

impl FromStr for Digest {
    type Err = BadDigest;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let bits = if text.len() == 32 && digits { u128::from_str_radix(text, 16).ok() } else { None };
        bits.map(|bits| Self(bits.to_be_bytes())).ok_or_else(|| BadDigest(text.into()))
    }
}

/// In JSON an id is the name that an operator knows it by.
#[cfg(feature = "serde")]
mod named {
    use super::{CharacterId, Digest, EntityId, LeaseId};
    use alloc::string::{String, ToString};
    use core::str::FromStr;
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    macro_rules! by_name {
        ($($id:ident)*) => {$(
            impl Serialize for $id {
                fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                    serializer.serialize_str(&self.to_string())
                }
            }

            impl<'de> Deserialize<'de> for $id {
                fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                    let text = String::deserialize(deserializer)?;
                    Self::from_str(&text).map_err(D::Error::custom)
                }
            }
        )*};
    }

    by_name!(EntityId CharacterId LeaseId Digest);
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn an_entity_reads_back_from_its_name_and_its_number() {
        for kind in EntityKind::ALL {
            for number in [0, 1, 42, EntityId::NUMBER_MAX] {
                let id = EntityId::new(kind, number).expect("in range");
                assert_eq!(id.to_string().parse(), Ok(id));
                assert_eq!(EntityId::from_raw(id.get()), Some(id));
                assert_eq!((id.kind(), id.number()), (kind, number));
            }
        }
        assert_eq!(EntityId::new(EntityKind::Boss, EntityId::NUMBER_MAX + 1), None);
        assert_eq!(EntityId::from_raw(7), None, "no kind has the high byte 0");
        for wrong in ["boss", "boss-", "dragon-1", "boss--1", "boss-1x", ""] {
            assert!(wrong.parse::<EntityId>().is_err(), "{wrong:?} is refused");
        }
    }

    #[test]
    fn a_lease_id_fits_what_etcd_keeps() {
        assert_eq!(LeaseId::from_bits(0).get(), 1);
        assert_eq!(LeaseId::from_bits(u64::MAX).get(), i64::MAX as u64);
    }
}
