//! What etcd has: records with the revisions that made them, leases, and every revision since the beginning.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{DefaultHasher, Hash as _, Hasher as _},
};
use worldline_proto::{LeaseId, Revision};
use worldline_real::{
    clock,
    directory::client::{Among, Changed, Latest, Range, Stands, State, Told, Verdict},
};
use worldline_system::{
    Refusal,
    doors::directory::{Change, Compare, Family, Key, Page, Record, Transacted, Transaction, Value, Write},
    time::{Duration, Instant},
};

/// What stands under a key.
#[derive(Clone, Copy, Debug)]
pub struct Item {
    value: Value,
    created: u64,
    modified: u64,
    version: u64,
    lease: Option<LeaseId>,
}

/// What one revision has changed.
type Changes = Vec<(Key, Option<Item>)>;
/// All revisions, by their numbers.
pub type History = Vec<Changes>;

/// The directory.
#[derive(Debug)]
pub struct Model {
    cluster: u64,
    term: u64,
    history: History,
    /// What was before it was restored, each time.
    pub lost: Vec<History>,
    /// The first revision that can be read.
    pub oldest: u64,
    records: BTreeMap<Key, Item>,
    /// Each with its time to live, and when that is over.
    leases: BTreeMap<LeaseId, (Duration, Instant)>,
}

const fn refused<T>(refusal: Refusal) -> Result<T, Verdict> {
    Err(Verdict::Refused(refusal))
}

fn path(key: Key) -> Vec<u8> {
    key.to_string().into_bytes()
}

impl Item {
    const fn record(self, key: Key) -> Record {
        Record { key, value: self.value, mod_revision: Revision(self.modified), lease: self.lease }
    }
}

fn left(key: Key, item: Option<Item>) -> Latest {
    let stands = item.map(|item| {
        let mut hasher = DefaultHasher::new();
        item.value.hash(&mut hasher);
        Stands {
            created: Revision(item.created),
            modified: Revision(item.modified),
            version: item.version,
            lease: item.lease.map_or(0, LeaseId::get),
            value_hash: hasher.finish(),
        }
    });
    Latest { path: path(key), stands }
}

/// What a history has for a watch: these revisions' changes of a family.
pub fn told(history: &History, family: Family, from: u64, through: u64) -> Vec<Change> {
    let revisions = history.iter().take(through as usize + 1).skip(from as usize);
    let of_family = revisions.flatten().filter(|(key, _)| key.family() == family);
    of_family.map(|(key, item)| item.map_or(Change::Deleted(*key), |item| Change::Put(item.record(*key)))).collect()
}

impl Model {
    /// One in which nothing was written.
    pub fn new() -> Self {
        Self {
            cluster: 1,
            term: 2,
            history: vec![vec![], vec![]],
            lost: vec![],
            oldest: 1,
            records: BTreeMap::new(),
            leases: BTreeMap::new(),
        }
    }

    pub fn revision(&self) -> u64 {
        self.history.len() as u64 - 1
    }

    /// Every history that there was, the present one last.
    pub fn histories(&self) -> impl Iterator<Item = &History> {
        self.lost.iter().chain([&self.history])
    }

    fn at(&self, revision: u64) -> BTreeMap<Key, Item> {
        let mut records = BTreeMap::new();
        for (key, item) in self.history.iter().take(revision as usize + 1).flatten() {
            match item {
                Some(item) => records.insert(*key, *item),
                None => records.remove(key),
            };
        }
        records
    }

    fn commit(&mut self, writes: impl Iterator<Item = (Key, Option<(Value, Option<LeaseId>)>)>) {
        let (mut changes, revision) = (vec![], self.revision() + 1);
        for (key, written) in writes {
            let item = match written {
                Some((value, lease)) => {
                    let before = self.records.get(&key);
                    let (created, version) = before.map_or((revision, 1), |it| (it.created, it.version + 1));
                    let item = Item { value, created, modified: revision, version, lease };
                    self.records.insert(key, item);
                    Some(item)
                }
                // What is not there cannot be deleted.
                None if self.records.remove(&key).is_none() => continue,
                None => None,
            };
            changes.push((key, item));
        }
        if !changes.is_empty() {
            self.history.push(changes);
        }
    }

    /// Somebody else writes.
    pub fn put(&mut self, key: Key, value: Value) {
        self.commit([(key, Some((value, None)))].into_iter());
    }

    pub fn transact(&mut self, transaction: &Transaction) -> Result<Transacted, Verdict> {
        self.expire();
        let Transaction { compares, writes, otherwise } = transaction;
        let holds = |compare: &Compare| {
            let stands = self.records.get(&compare.key()).map(|item| item.modified);
            match *compare {
                Compare::Absent(_) => stands.is_none(),
                Compare::Present(_) => stands.is_some(),
                Compare::Unchanged(_, revision) => stands == Some(revision.0),
            }
        };
        let succeeded = compares.iter().all(holds);
        let mut read = vec![];
        if succeeded {
            let nobodys =
                |write: &Write| matches!(write, Write::Put { lease: Some(it), .. } if !self.leases.contains_key(it));
            if writes.iter().any(nobodys) {
                return refused(Refusal::LeaseNotFound);
            }
            self.commit(writes.iter().map(|write| match *write {
                Write::Put { key, value, lease } => (key, Some((value, lease))),
                Write::Delete(key) => (key, None),
            }));
        } else {
            read.extend(otherwise.iter().filter_map(|key| Some(self.records.get(key)?.record(*key))));
        }
        Ok(Transacted { succeeded, revision: Revision(self.revision()), otherwise: read })
    }

    pub fn grant(&mut self, lease: LeaseId, ttl: Duration) -> Result<(), Verdict> {
        self.expire();
        if self.leases.contains_key(&lease) {
            return refused(Refusal::LeaseExists);
        }
        self.leases.insert(lease, (ttl, clock::now() + ttl));
        Ok(())
    }

    pub fn renew(&mut self, lease: LeaseId) -> Option<Duration> {
        self.expire();
        let (ttl, end) = self.leases.get_mut(&lease)?;
        *end = clock::now() + *ttl;
        Some(*ttl)
    }

    pub fn revoke(&mut self, lease: LeaseId) -> Result<(), Verdict> {
        self.expire();
        if self.leases.remove(&lease).is_none() {
            return refused(Refusal::LeaseNotFound);
        }
        self.gone(&BTreeSet::from([lease]));
        Ok(())
    }

    pub fn has(&mut self, lease: LeaseId) -> bool {
        self.expire();
        self.leases.contains_key(&lease)
    }

    fn expire(&mut self) {
        let now = clock::now();
        let over = |(lease, (_, end)): (&LeaseId, &(Duration, Instant))| (*end < now).then_some(*lease);
        let over: BTreeSet<LeaseId> = self.leases.iter().filter_map(over).collect();
        self.leases.retain(|lease, _| !over.contains(lease));
        self.gone(&over);
    }

    /// The keys of leases go with them.
    fn gone(&mut self, leases: &BTreeSet<LeaseId>) {
        let of = |item: &Item| item.lease.is_some_and(|lease| leases.contains(&lease));
        let keys: Vec<Key> = self.records.iter().filter(|(_, item)| of(item)).map(|(key, _)| *key).collect();
        self.commit(keys.into_iter().map(|key| (key, None)));
    }

    pub fn read(&mut self, asked: Range) -> Result<Page, Verdict> {
        self.expire();
        let at = asked.at.map_or(self.revision(), |at| at.0);
        let mut records: Vec<Record> = self.readable(at)?.into_iter().map(|(key, item)| item.record(key)).collect();
        records.retain(|record| record.key.family() == asked.family);
        records.retain(|record| asked.after.is_none_or(|after| path(record.key) > path(after)));
        records.sort_by_key(|record| path(record.key));
        let more = records.len() > usize::from(asked.limit);
        records.truncate(usize::from(asked.limit));
        Ok(Page { records, revision: Revision(at), more })
    }

    pub fn get(&mut self, key: Key) -> (Option<Record>, Revision) {
        self.expire();
        (self.records.get(&key).map(|item| item.record(key)), Revision(self.revision()))
    }

    fn readable(&self, at: u64) -> Result<BTreeMap<Key, Item>, Verdict> {
        if at > self.revision() {
            return refused(Refusal::Malformed);
        }
        if at < self.oldest {
            return refused(Refusal::Compacted { oldest: Revision(self.oldest) });
        }
        Ok(self.at(at))
    }

    pub fn latest(&self, among: Among<'_>, before: Revision) -> Result<Option<Latest>, Verdict> {
        match self.readable((before.0 - 1).max(1)) {
            Ok(records) => Ok(match among {
                Among::Family(family) => {
                    records.into_iter().filter(|(key, _)| key.family() == family).max_by_key(|it| it.1.modified)
                }
                Among::Path(wanted) => records.into_iter().find(|(key, _)| path(*key) == wanted),
            }
            .map(|(key, item)| left(key, Some(item)))),
            Err(Verdict::Refused(Refusal::Malformed)) => Ok(None),
            Err(Verdict::Refused(Refusal::Compacted { oldest })) => {
                refused(Refusal::Compacted { oldest: oldest.next() })
            }
            Err(verdict) => Err(verdict),
        }
    }

    pub fn state(&self) -> State {
        State { cluster: self.cluster, term: self.term, revision: Revision(self.revision()) }
    }

    /// What a watch is told of all that there is from this revision on.
    pub fn news(&mut self, family: Family, from: u64) -> Told {
        self.expire();
        let revisions = (from..=self.revision()).rev();
        let of_family = |&revision: &u64| {
            let changes = &self.history[revision as usize];
            changes
                .iter()
                .rev()
                .find(|(key, _)| key.family() == family)
                .map(|(key, item)| (revision, left(*key, *item)))
        };
        let changed = revisions.filter_map(|revision| of_family(&revision)).next().map(|(revision, latest)| Changed {
            revision: Revision(revision),
            changes: told(&self.history, family, from, revision).into(),
            latest: Some(latest),
        });
        Told { state: Some(self.state()), changed }
    }

    pub fn compact(&mut self) {
        self.oldest = self.revision();
    }

    /// A backup takes its place, which is so many revisions older.
    pub fn restore(&mut self, older: u64) {
        let revision = self.revision().saturating_sub(older).max(self.oldest).max(1);
        let backup = self.history[..=revision as usize].to_vec();
        self.lost.push(std::mem::replace(&mut self.history, backup));
        self.records = self.at(revision);
        self.term += 1;
    }

    /// Another directory takes its place, with the same in it.
    pub fn replace(&mut self) {
        self.cluster += 1;
    }

    /// There was an election.
    pub fn elect(&mut self) {
        self.term += 1;
    }
}
