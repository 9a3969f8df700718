//! What one server holds, as a pure value: typed entries with their ends of life, their bytes, and who was used when.
//!
//! Memory is estimated: an entry takes [`ENTRY_BYTES`] and the length of its key; each field of a hash its name, its value
//! and [`FIELD_BYTES`]; a text its length; each member of a presence [`MEMBER_BYTES`]. Before a write the least recently used
//! entries go until the bound is kept (`allkeys-lru`, exact where a real server samples), so one write may lie above it.
//!
//! Deliberately absent: time of its own. Ends of life are by the wall clock of whoever looks.

use std::collections::{BTreeMap, BTreeSet};
use worldline_proto::CharacterId;
use worldline_system::{
    doors::{
        cache::{CounterKey, Fields, HashKey, Key, Neighbour, RevokedKey, Stamp},
        directory::RegionId,
    },
    rules::{
        grid::{Cell, ERROR_MM},
        space::{Position, WORLD_EDGE_MM},
    },
    time::UnixTime,
};

/// What an entry takes beside its key and its value.
pub const ENTRY_BYTES: usize = 96;
/// What a field takes beside its name and its value.
pub const FIELD_BYTES: usize = 32;
/// What a member of a presence takes: in the set of places and in that of its ends.
pub const MEMBER_BYTES: usize = 160;

/// A key as the server has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Name {
    Hash(HashKey),
    Counter(CounterKey),
    Revoked(RevokedKey),
    Presence(RegionId),
}

impl Name {
    /// The entry that a key names or lies in.
    pub fn of(key: Key) -> Self {
        match key {
            Key::Hash(key) => Self::Hash(key),
            Key::Counter(key) => Self::Counter(key),
            Key::Revoked(key) => Self::Revoked(key),
            Key::Presence { region, .. } => Self::Presence(region),
        }
    }

    fn bytes(self) -> usize {
        match self {
            Self::Hash(key) => key.to_string().len(),
            Self::Counter(key) => key.to_string().len(),
            Self::Revoked(key) => key.to_string().len(),
            // Two sets: `peer:N:geo` and `peer:N:seen`.
            Self::Presence(_) => 2 * "peer:N:seen".len(),
        }
    }
}

/// The members of a region's presence, each in its cell until its end.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Presence {
    members: BTreeMap<CharacterId, (Cell, UnixTime)>,
    /// From west to east.
    places: BTreeSet<(Cell, CharacterId)>,
}

impl Presence {
    pub fn place(&mut self, member: CharacterId, cell: Cell, until: UnixTime) {
        if let Some((before, _)) = self.members.insert(member, (cell, until)) {
            self.places.remove(&(before, member));
        }
        self.places.insert((cell, member));
    }

    /// Whether it was there.
    pub fn leave(&mut self, member: CharacterId) -> bool {
        let before = self.members.remove(&member);
        before.is_some_and(|(cell, _)| self.places.remove(&(cell, member)))
    }

    /// Takes away whose time is over.
    fn sweep(&mut self, now: UnixTime) {
        let over: Vec<_> = self.members.iter().filter(|(_, (_, until))| *until <= now).map(|(&who, _)| who).collect();
        for member in over {
            self.leave(member);
        }
    }

    /// Those present within a radius, nearest first.
    pub fn near(&self, now: UnixTime, around: Position, radius_mm: u64, limit: u16) -> Vec<Neighbour> {
        let reach = i64::try_from(radius_mm + ERROR_MM).expect("a radius is bounded");
        let southmost = |x_mm| Cell::of(Position { x_mm, y_mm: -WORLD_EDGE_MM });
        let (west, east) = (southmost(around.x_mm - reach), southmost(around.x_mm + reach));
        let nobody = CharacterId::new(0).expect("zero is a number");
        let mut near: Vec<Neighbour> = self
            .places
            .range((west, nobody)..)
            .take_while(|(cell, _)| cell.column() <= east.column())
            .filter(|(_, member)| self.members[member].1 > now)
            .map(|&(cell, member)| {
                let position = cell.middle();
                Neighbour { member, position, distance_mm: position.distance_mm(around) }
            })
            .filter(|neighbour| neighbour.distance_mm <= radius_mm)
            .collect();
        near.sort_unstable_by_key(|neighbour| (neighbour.distance_mm, neighbour.member));
        near.truncate(limit.into());
        near
    }
}

/// What stands under a key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Value {
    Hash(Option<Stamp>, Fields),
    Counter(i64),
    Text(String),
    Presence(Presence),
    /// Of a type that nobody here writes under such a key.
    Foreign,
}

impl Value {
    fn bytes(&self) -> usize {
        match self {
            Self::Hash(stamp, fields) => {
                let stamp = if stamp.is_some() { 46 + FIELD_BYTES } else { 0 };
                stamp + fields.iter().map(|(name, value)| name.len() + value.len() + FIELD_BYTES).sum::<usize>()
            }
            Self::Counter(_) => 8,
            Self::Text(text) => text.len(),
            Self::Presence(presence) => presence.members.len() * MEMBER_BYTES,
            Self::Foreign => 0,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Entry {
    value: Value,
    until: UnixTime,
    bytes: usize,
    /// The count of uses when it was last used.
    used: u64,
}

/// A change, as a replica is told of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Effect {
    Put(Name, Value, UnixTime),
    Remove(Name),
    /// A member of a presence moved, and the presence lives until its end.
    Place(RegionId, CharacterId, Cell, UnixTime),
    Leave(RegionId, CharacterId),
    Flush,
}

/// The entries of one server.
#[derive(Clone, Debug, Default)]
pub(super) struct Store {
    entries: BTreeMap<Name, Entry>,
    /// By their last use, the longest ago first.
    lru: BTreeMap<u64, Name>,
    uses: u64,
    bytes: usize,
}

impl Store {
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// As it is estimated.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// What stands there, if it lives; and it was used.
    pub fn get(&mut self, now: UnixTime, name: Name) -> Option<&Value> {
        let used = self.next_use();
        let entry = self.entries.get_mut(&name).filter(|entry| entry.until > now)?;
        self.lru.remove(&entry.used);
        self.lru.insert(used, name);
        entry.used = used;
        Some(&entry.value)
    }

    /// All that live from `first` on, without being used, in the order of their names.
    pub fn range(&self, now: UnixTime, first: Name) -> impl Iterator<Item = (Name, &Value)> {
        let alive = move |(_, entry): &(&Name, &Entry)| entry.until > now;
        self.entries.range(first..).filter(alive).map(|(&name, entry)| (name, &entry.value))
    }

    /// Until when an entry lives.
    pub fn until(&self, name: Name) -> Option<UnixTime> {
        self.entries.get(&name).map(|entry| entry.until)
    }

    /// The names of those that live and those that do not.
    pub fn names(&self) -> impl Iterator<Item = Name> {
        self.entries.keys().copied()
    }

    /// Does to it what was done elsewhere, or is to be done here.
    pub fn apply(&mut self, now: UnixTime, effect: &Effect) {
        match effect {
            Effect::Put(name, value, until) => self.put(*name, value.clone(), *until),
            Effect::Remove(name) => drop(self.remove(*name)),
            &Effect::Place(region, member, cell, until) => {
                let name = Name::Presence(region);
                let mut presence = self.take_presence(now, name);
                presence.place(member, cell, until);
                presence.sweep(now);
                self.put(name, Value::Presence(presence), until);
            }
            &Effect::Leave(region, member) => {
                let name = Name::Presence(region);
                let Some(until) = self.until(name) else { return };
                let mut presence = self.take_presence(now, name);
                presence.leave(member);
                self.put(name, Value::Presence(presence), until);
            }
            Effect::Flush => *self = Self { uses: self.uses, ..Self::default() },
        }
    }

    /// Whether there was one.
    fn remove(&mut self, name: Name) -> Option<Value> {
        let entry = self.entries.remove(&name)?;
        self.lru.remove(&entry.used);
        self.bytes -= entry.bytes;
        Some(entry.value)
    }

    fn take_presence(&mut self, now: UnixTime, name: Name) -> Presence {
        let alive = self.until(name).is_some_and(|until| until > now);
        match self.remove(name) {
            Some(Value::Presence(presence)) if alive => presence,
            _ => Presence::default(),
        }
    }

    fn put(&mut self, name: Name, value: Value, until: UnixTime) {
        self.remove(name);
        let (used, bytes) = (self.next_use(), ENTRY_BYTES + name.bytes() + value.bytes());
        self.bytes += bytes;
        self.lru.insert(used, name);
        self.entries.insert(name, Entry { value, until, bytes, used });
    }

    fn next_use(&mut self) -> u64 {
        self.uses += 1;
        self.uses
    }

    /// Takes away what no longer lives: who.
    pub fn expire(&mut self, now: UnixTime) -> Vec<Name> {
        let over: Vec<Name> =
            self.entries.iter().filter(|(_, entry)| entry.until <= now).map(|(&name, _)| name).collect();
        over.iter().for_each(|&name| drop(self.remove(name)));
        over
    }

    /// Takes away the least recently used entries until the bound is kept: who.
    pub fn evict(&mut self, bytes_max: usize) -> Vec<Name> {
        let mut gone = vec![];
        while self.bytes > bytes_max
            && let Some((_, &name)) = self.lru.first_key_value()
        {
            self.remove(name);
            gone.push(name);
        }
        gone
    }

    /// Takes away so many of the least recently used entries: who.
    pub fn evict_entries(&mut self, count: usize) -> Vec<Name> {
        let gone: Vec<Name> = self.lru.values().copied().take(count).collect();
        gone.iter().for_each(|&name| drop(self.remove(name)));
        gone
    }
}
