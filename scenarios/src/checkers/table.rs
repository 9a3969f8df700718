//! A map by a small id: a vector where the ids are small, a tree for the rest.

use std::collections::BTreeMap;
use worldline_proto::{CharacterId, EntityId, NodeId};

/// Ids from here on live in the tree, so that a wild number costs no memory.
const DENSE: u64 = 1 << 17;
/// Kinds of ids: an entity's kind is below it.
const KINDS: usize = 4;

/// An id that is mostly small.
pub trait Small: Copy + Ord {
    /// Its kind, below [`KINDS`], and its number within it.
    fn place(self) -> (usize, u64);
}

impl Small for EntityId {
    fn place(self) -> (usize, u64) {
        // By the high byte: cheaper than its kind, and below four for every kind that exists.
        ((self.get() >> 56) as usize % KINDS, self.number())
    }
}

impl Small for CharacterId {
    fn place(self) -> (usize, u64) {
        self.entity().place()
    }
}

impl Small for NodeId {
    fn place(self) -> (usize, u64) {
        (0, u64::from(self.0))
    }
}

/// A map from small ids.
#[derive(Clone, Debug)]
pub struct Table<K, T> {
    dense: [Vec<Option<T>>; KINDS],
    sparse: BTreeMap<K, T>,
}

impl<K, T> Default for Table<K, T> {
    fn default() -> Self {
        Self { dense: [const { Vec::new() }; KINDS], sparse: BTreeMap::new() }
    }
}

impl<K: Small, T> Table<K, T> {
    /// What stands under `key`.
    pub fn get(&self, key: K) -> Option<&T> {
        let (kind, number) = key.place();
        if number < DENSE { self.dense[kind].get(number as usize)?.as_ref() } else { self.sparse.get(&key) }
    }

    /// What stands under `key`, to be changed.
    pub fn get_mut(&mut self, key: K) -> Option<&mut T> {
        let (kind, number) = key.place();
        if number < DENSE { self.dense[kind].get_mut(number as usize)?.as_mut() } else { self.sparse.get_mut(&key) }
    }

    /// What stands under `key`, after putting a default there if nothing did.
    pub fn slot(&mut self, key: K) -> &mut T
    where
        T: Default,
    {
        let (kind, number) = key.place();
        if number >= DENSE {
            return self.sparse.entry(key).or_default();
        }
        let (row, at) = (&mut self.dense[kind], number as usize);
        if row.len() <= at {
            row.resize_with(at + 1, || None);
        }
        row[at].get_or_insert_default()
    }

    /// Puts a value under `key`; what stood there.
    pub fn insert(&mut self, key: K, value: T) -> Option<T>
    where
        T: Default,
    {
        if let Some(old) = self.get_mut(key) {
            return Some(std::mem::replace(old, value));
        }
        *self.slot(key) = value;
        None
    }

    /// Every value.
    pub fn values(&self) -> impl Iterator<Item = &T> {
        self.dense.iter().flatten().flatten().chain(self.sparse.values())
    }

    /// Every value, to be changed.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.dense.iter_mut().flatten().flatten().chain(self.sparse.values_mut())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use worldline_proto::EntityKind;

    #[test]
    fn small_and_huge_ids_and_all_kinds_live_apart() {
        let ids: Vec<EntityId> = EntityKind::ALL
            .into_iter()
            .flat_map(|kind| [0, 7, DENSE - 1, DENSE, EntityId::NUMBER_MAX].map(|number| EntityId::new(kind, number)))
            .flatten()
            .collect();
        let mut table = Table::default();
        for (value, &id) in ids.iter().enumerate() {
            assert_eq!(table.get(id), None);
            assert_eq!(table.insert(id, value), None);
        }
        for (value, &id) in ids.iter().enumerate() {
            assert_eq!(table.get(id), Some(&value));
            assert_eq!(table.insert(id, value + 1), Some(value));
            assert_eq!(*table.slot(id), value + 1);
        }
        assert_eq!(table.values().count(), ids.len());
    }
}
