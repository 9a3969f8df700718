//! The cache door (a Redis-protocol server, one a region): what can be lost at any moment without losing anything.
//!
//! * The operations of one connection are executed in the order in which they were submitted; [`Submission::Loads`] is no
//!   snapshot.
//! * An entry lives for its [`ttl`](HashKey::ttl) since it was last written, by the server's clock, and may be gone before:
//!   evicted, flushed, or lost with a replica that was promoted without the last writes. So a miss says nothing.
//! * An entry may also be *older* than the last one that was acknowledged. Who cannot bear that compares the [`Stamp`].
//! * An entry of another type than its key's is somebody else's. Who finds it deletes it: a read is then a miss, and a write
//!   is `Refused(WrongType)` and finds the way free when it comes again.
//! * `Unknown` needs no resolution but for [`Submission::Increment`], which a caller who repeats it may count twice.
//!
//! Deliberately absent: anything that must not be lost. What is acknowledged to a player stands in the ledger.

use super::directory::RegionId;
use crate::{
    limits,
    outcome::{End, Outcome},
    rules::space::Position,
    time::Duration,
};
use alloc::{boxed::Box, collections::BTreeMap, string::String, vec::Vec};
use core::{fmt, num::NonZeroI64};
use worldline_proto::{CharacterId, Digest, EntityId, Epoch, NodeId, OpId, Version};

/// The key of a hash: named fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum HashKey {
    /// `session:{character}`: a player's session data.
    Session(CharacterId),
    /// `checkpoint:{entity}`: the checkpointed class of an entity's state.
    Checkpoint(EntityId),
    /// `worker_load:{region}:{node}`: how busy a worker is.
    Load {
        /// The worker's region.
        region: RegionId,
        /// The worker.
        node: NodeId,
    },
    /// `peer:{region}:{character}`: how a peer is reached and what it can do. Where it is stands in the region's presence.
    Peer {
        /// The region in which it is present.
        region: RegionId,
        /// The peer.
        character: CharacterId,
    },
}

impl HashKey {
    /// How long it lives after its last write.
    #[must_use]
    pub const fn ttl(self) -> Duration {
        match self {
            Self::Session(_) => limits::SESSION_TTL,
            Self::Checkpoint(_) => limits::CACHED_CHECKPOINT_TTL,
            Self::Load { .. } => limits::LOAD_TTL,
            Self::Peer { .. } => limits::PRESENCE_TTL,
        }
    }
}

impl fmt::Display for HashKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Session(character) => write!(f, "session:{character}"),
            Self::Checkpoint(entity) => write!(f, "checkpoint:{entity}"),
            Self::Load { region, node } => write!(f, "worker_load:{}:{node}", region.0),
            Self::Peer { region, character } => write!(f, "peer:{}:{character}", region.0),
        }
    }
}

/// What a player was seen to do that an honest client does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Violation {
    /// An impossible velocity.
    Speed,
    /// A jump of the position.
    Teleport,
    /// Too many actions.
    ActionRate,
    /// More spent than there was.
    Resources,
}

impl Violation {
    const fn name(self) -> &'static str {
        match self {
            Self::Speed => "speed",
            Self::Teleport => "teleport",
            Self::ActionRate => "action_rate",
            Self::Resources => "resources",
        }
    }
}

/// The key of a counter: `cheat_flags:{character}:{kind}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct CounterKey {
    /// Whose violations.
    pub character: CharacterId,
    /// Of which kind.
    pub violation: Violation,
}

impl CounterKey {
    /// How long it lives after its last increment.
    #[must_use]
    pub const fn ttl(self) -> Duration {
        limits::VIOLATIONS_TTL
    }
}

impl fmt::Display for CounterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cheat_flags:{}:{}", self.character, self.violation.name())
    }
}

/// The key of a text: `revoked:{token}`. It says that a session token is not accepted any more, by the token's digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct RevokedKey(pub Digest);

impl fmt::Display for RevokedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "revoked:{}", self.0)
    }
}

/// Anything that can be deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Key {
    /// A hash.
    Hash(HashKey),
    /// A counter.
    Counter(CounterKey),
    /// A text.
    Revoked(RevokedKey),
    /// One member of a region's presence. It leaves.
    Presence {
        /// The region.
        region: RegionId,
        /// Who leaves.
        member: CharacterId,
    },
}

/// The fields of a hash, by name. Values are texts, so that an operator reads them.
pub type Fields = BTreeMap<String, String>;

/// The field under which [`Submission::Keep`] keeps its stamp: no field of a caller's own.
pub const STAMP_FIELD: &str = "stamp";

/// By what a newer entry is known: the owner's epoch, and the version within it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Stamp {
    /// Compared first.
    pub epoch: Epoch,
    /// Compared within an epoch.
    pub version: Version,
}

/// 41 characters whose order as texts is the order of the stamps: two numbers of 20 digits with a point between them.
impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:020}.{:020}", self.epoch.0, self.version.0)
    }
}

/// Why a text is no stamp: it is not what [`Stamp`] displays as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadStamp;

impl core::str::FromStr for Stamp {
    type Err = BadStamp;

    fn from_str(text: &str) -> Result<Self, BadStamp> {
        let number = |digits: &str| {
            let plain = digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit());
            if plain { digits.parse().map_err(|_| BadStamp) } else { Err(BadStamp) }
        };
        let (epoch, version) = text.split_once('.').ok_or(BadStamp)?;
        Ok(Self { epoch: Epoch(number(epoch)?), version: Version(number(version)?) })
    }
}

/// A hash as it was read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Hash {
    /// The stamp under which it is kept. `None` where it was written without one, or the stamp does not read.
    pub stamp: Option<Stamp>,
    /// All other fields.
    pub fields: Fields,
}

/// What came of [`Submission::Keep`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Kept {
    /// The entry is now the submitted one.
    Replaced,
    /// The entry that stands is as new or newer. Nothing was written and its life goes on as before.
    Stands(Stamp),
}

/// A member of a region's presence near a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Neighbour {
    /// Who.
    pub member: CharacterId,
    /// Where, as the [grid](crate::rules::grid) keeps it: the middle of its cell.
    pub position: Position,
    /// How far from the place that was asked about.
    pub distance_mm: u64,
}

/// What a role may submit. A submission beyond a bound of [`limits`] is `Refused(Malformed)`: see [`Submission::is_bounded`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Submission {
    /// All fields of a hash.
    Read(HashKey),
    /// Sets these fields of a hash; others stay as they are. Its life begins anew.
    Write {
        /// Which.
        key: HashKey,
        /// At least one, at most [`limits::CACHE_FIELDS`].
        fields: Fields,
    },
    /// Replaces a hash as a whole, if the stamp is above the one that stands there or none does.
    Keep {
        /// Which.
        key: HashKey,
        /// Of the new entry.
        stamp: Stamp,
        /// At least one, at most [`limits::CACHE_FIELDS`].
        fields: Fields,
    },
    /// Adds to a counter and returns the sum. One that does not exist counts from zero. Its life begins anew. Refused as
    /// `Overflow` where the sum leaves the range of an `i64`.
    Increment {
        /// Which.
        key: CounterKey,
        /// By how much.
        by: NonZeroI64,
    },
    /// What a counter stands at; zero where there is none.
    Count(CounterKey),
    /// A text.
    Get(RevokedKey),
    /// Sets a text for so long.
    Set {
        /// Which.
        key: RevokedKey,
        /// To what. At most [`limits::CACHE_ENTRY_BYTES`].
        value: String,
        /// How long it lives: more than nothing.
        ttl: Duration,
    },
    /// Deletes an entry.
    Delete(Key),
    /// Says where a member of a region's presence is, for [`limits::PRESENCE_TTL`].
    Place {
        /// The region.
        region: RegionId,
        /// Who.
        member: CharacterId,
        /// Where: inside the world.
        at: Position,
    },
    /// Who is present near a place, nearest first, and of equals the lower id first. Distances are those of
    /// [`Neighbour::position`]. Of members whose distances differ by less than a thousandth, any may be those that `limit`
    /// cuts off.
    Near {
        /// The region.
        region: RegionId,
        /// The place, inside the world.
        around: Position,
        /// No farther than this, at most [`limits::CACHE_RADIUS_MM`].
        radius_mm: u64,
        /// At most so many, from 1 to [`limits::CACHE_NEIGHBOURS`].
        limit: u16,
    },
    /// How busy each worker of a region is.
    Loads(RegionId),
}

impl Submission {
    /// Whether it is within its bounds. Whoever serves the door refuses what is not.
    #[must_use]
    pub fn is_bounded(&self) -> bool {
        match self {
            Self::Read(_) | Self::Increment { .. } | Self::Count(_) | Self::Get(_) => true,
            Self::Delete(_) | Self::Loads(_) => true,
            Self::Write { fields, .. } | Self::Keep { fields, .. } => {
                let bytes: usize = fields.iter().map(|(name, value)| name.len() + value.len()).sum();
                (1..=limits::CACHE_FIELDS).contains(&fields.len())
                    && bytes <= limits::CACHE_ENTRY_BYTES
                    && !fields.contains_key(STAMP_FIELD)
            }
            Self::Set { value, ttl, .. } => value.len() <= limits::CACHE_ENTRY_BYTES && *ttl > Duration::ZERO,
            Self::Place { at, .. } => at.in_world(),
            &Self::Near { around, radius_mm, limit, .. } => {
                around.in_world()
                    && radius_mm <= limits::CACHE_RADIUS_MM
                    && (1..=limits::CACHE_NEIGHBOURS).contains(&limit)
            }
        }
    }
}

/// What came of a submission; the variant matches it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Answer {
    /// Of [`Submission::Read`]: `None` is a miss.
    Read(Outcome<Option<Hash>>),
    /// Of [`Submission::Write`].
    Written(Outcome<()>),
    /// Of [`Submission::Keep`].
    Kept(Outcome<Kept>),
    /// Of [`Submission::Increment`] and [`Submission::Count`].
    Counted(Outcome<i64>),
    /// Of [`Submission::Get`]: `None` is a miss.
    Got(Outcome<Option<String>>),
    /// Of [`Submission::Set`].
    Set(Outcome<()>),
    /// Of [`Submission::Delete`]: whether there was anything.
    Deleted(Outcome<bool>),
    /// Of [`Submission::Place`].
    Placed(Outcome<()>),
    /// Of [`Submission::Near`].
    Near(Outcome<Vec<Neighbour>>),
    /// Of [`Submission::Loads`], in the order of the nodes.
    Loads(Outcome<Vec<(NodeId, Fields)>>),
}

/// Which answer an operation has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// [`Answer::Read`].
    Read,
    /// [`Answer::Written`].
    Write,
    /// [`Answer::Kept`].
    Keep,
    /// [`Answer::Counted`].
    Count,
    /// [`Answer::Got`].
    Get,
    /// [`Answer::Set`].
    Set,
    /// [`Answer::Deleted`].
    Delete,
    /// [`Answer::Placed`].
    Place,
    /// [`Answer::Near`].
    Near,
    /// [`Answer::Loads`].
    Loads,
}

impl From<&Submission> for Ask {
    fn from(submission: &Submission) -> Self {
        match submission {
            Submission::Read(_) => Self::Read,
            Submission::Write { .. } => Self::Write,
            Submission::Keep { .. } => Self::Keep,
            Submission::Increment { .. } | Submission::Count(_) => Self::Count,
            Submission::Get(_) => Self::Get,
            Submission::Set { .. } => Self::Set,
            Submission::Delete(_) => Self::Delete,
            Submission::Place { .. } => Self::Place,
            Submission::Near { .. } => Self::Near,
            Submission::Loads(_) => Self::Loads,
        }
    }
}

impl Ask {
    /// The answer of an operation that ended without a result.
    #[must_use]
    pub fn ended(self, end: End) -> Answer {
        match self {
            Self::Read => Answer::Read(end.into()),
            Self::Write => Answer::Written(end.into()),
            Self::Keep => Answer::Kept(end.into()),
            Self::Count => Answer::Counted(end.into()),
            Self::Get => Answer::Got(end.into()),
            Self::Set => Answer::Set(end.into()),
            Self::Delete => Answer::Deleted(end.into()),
            Self::Place => Answer::Placed(end.into()),
            Self::Near => Answer::Near(end.into()),
            Self::Loads => Answer::Loads(end.into()),
        }
    }
}

/// What a role may be told: the answer to an operation.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Event {
    /// Which operation.
    pub op: OpId,
    /// Its end.
    pub answer: Box<Answer>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn stamps_are_ordered_as_their_texts_are() {
        let stamp = |epoch, version| Stamp { epoch: Epoch(epoch), version: Version(version) };
        let rising = [stamp(0, 0), stamp(0, u64::MAX), stamp(1, 0), stamp(9, 10), stamp(10, 9), stamp(u64::MAX, 1)];
        for pair in rising.windows(2) {
            assert!(pair[0] < pair[1] && pair[0].to_string() < pair[1].to_string(), "{pair:?}");
        }
        for stamp in rising {
            assert_eq!((stamp.to_string().len(), stamp.to_string().parse()), (41, Ok(stamp)));
        }
        let signed = stamp(1, 1).to_string().replacen('0', "+", 1);
        let over = "99999999999999999999.00000000000000000000".to_string();
        for wrong in ["".into(), "1.2".into(), signed, over, stamp(1, 1).to_string().replace('.', "")] {
            assert_eq!(wrong.parse::<Stamp>(), Err(BadStamp), "{wrong}");
        }
    }

    #[test]
    fn keys_have_the_names_that_an_operator_looks_for() {
        let hero = CharacterId::new(7).expect("a number");
        let (region, node) = (RegionId(2), NodeId(9));
        let counter = CounterKey { character: hero, violation: Violation::Speed };
        for (key, name) in [
            (HashKey::Session(hero).to_string(), "session:character-7"),
            (HashKey::Checkpoint(hero.entity()).to_string(), "checkpoint:character-7"),
            (HashKey::Load { region, node }.to_string(), "worker_load:2:n9"),
            (HashKey::Peer { region, character: hero }.to_string(), "peer:2:character-7"),
            (counter.to_string(), "cheat_flags:character-7:speed"),
            (RevokedKey(Digest([0xab; 16])).to_string(), "revoked:abababababababababababababababab"),
        ] {
            assert_eq!(key, name);
        }
    }

    #[test]
    fn what_is_beyond_a_bound_is_told_apart() {
        let hero = CharacterId::new(7).expect("a number");
        let write = |fields| Submission::Write { key: HashKey::Session(hero), fields };
        let of = |pairs: &[(&str, &str)]| -> Fields {
            pairs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
        };
        let many = |count: usize| (0..count).map(|n| (n.to_string(), String::new())).collect();
        assert!(write(of(&[("a", "1")])).is_bounded() && write(many(limits::CACHE_FIELDS)).is_bounded());
        assert!(!write(of(&[])).is_bounded() && !write(many(limits::CACHE_FIELDS + 1)).is_bounded());
        assert!(!write(of(&[(STAMP_FIELD, "1")])).is_bounded());
        assert!(!write(of(&[("a", &"x".repeat(limits::CACHE_ENTRY_BYTES))])).is_bounded());
        let near = |radius_mm, limit| {
            Submission::Near { region: RegionId(0), around: Position::default(), radius_mm, limit }.is_bounded()
        };
        assert!(near(0, 1) && near(limits::CACHE_RADIUS_MM, limits::CACHE_NEIGHBOURS));
        assert!(!near(limits::CACHE_RADIUS_MM + 1, 1) && !near(1, 0) && !near(1, limits::CACHE_NEIGHBOURS + 1));
        let outside = Position { x_mm: i64::MAX, y_mm: 0 };
        assert!(!Submission::Place { region: RegionId(0), member: hero, at: outside }.is_bounded());
        let set = |ttl| Submission::Set { key: RevokedKey(Digest([0; 16])), value: String::new(), ttl };
        assert!(set(Duration::from_millis(1)).is_bounded() && !set(Duration::ZERO).is_bounded());
    }
}
