//! The cache as far as its callers may rely on it: typed entries, each with the span in which its life ends.

use super::Cache;
use crate::{
    judge::{Ending, Model, Window},
    service::Door,
};
use std::collections::BTreeMap;
use worldline_proto::{CharacterId, NodeId};
use worldline_system::{
    Outcome, Refusal,
    doors::{
        cache::{Answer, Ask, Fields, Hash, HashKey, Kept, Key, Neighbour, Stamp, Submission},
        directory::RegionId,
    },
    limits,
    outcome::End,
    rules::{grid::Cell, space::Position},
    time::{Duration, Instant},
};

/// Servers count in milliseconds, by a clock that they look at now and then.
const SLACK: Duration = Duration::from_millis(20);
/// Something of another type stands for at least so long.
const FOREIGN_TTL: Duration = Duration::from_secs(3_500);

/// When something ends: somewhere between these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Life {
    from: Instant,
    to: Instant,
}

/// Whether something that ends is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Alive {
    Yes,
    Perhaps,
    No,
}

impl Life {
    fn new(window: Window, ttl: Duration) -> Self {
        Self { from: (window.from + ttl) - SLACK, to: window.to + ttl + SLACK }
    }

    fn at(self, window: Window) -> Alive {
        if window.to < self.from {
            Alive::Yes
        } else if window.from > self.to {
            Alive::No
        } else {
            Alive::Perhaps
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Value {
    Hash(Option<Stamp>, Fields),
    Counter(i64),
    Text(String),
    /// Of a type that no caller writes there.
    Foreign,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Presence {
    Members(BTreeMap<CharacterId, (Position, Life)>),
    /// Of a type that no caller writes there, if it has not been evicted.
    Foreign(Alive),
}

/// What may stand in a cache.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entries {
    entries: BTreeMap<Key, (Value, Life)>,
    present: BTreeMap<RegionId, Presence>,
}

impl Entries {
    /// All is gone.
    pub fn lose(&mut self) {
        *self = Self::default();
    }

    /// Whatever stands may be gone from now on.
    pub fn evict(&mut self, now: Instant) {
        self.entries.values_mut().for_each(|(_, life)| life.from = life.from.min(now));
        for presence in self.present.values_mut() {
            match presence {
                Presence::Members(members) => {
                    members.values_mut().for_each(|(_, life)| life.from = life.from.min(now));
                }
                Presence::Foreign(alive) => *alive = Alive::Perhaps,
            }
        }
    }

    /// Everything that stands is replaced by something of another type.
    pub fn soil(&mut self, now: Instant) {
        // Who is not sure to be there is not waited for: the suite lets lives end before.
        for (value, life) in self.entries.values_mut() {
            (*value, *life) = (Value::Foreign, Life { from: now + FOREIGN_TTL, to: Instant::from_nanos(u64::MAX) });
        }
        self.present.values_mut().for_each(|presence| *presence = Presence::Foreign(Alive::Yes));
    }

    /// Whether every entry is either surely there or surely gone.
    #[must_use]
    pub fn is_certain(&self, now: Instant) -> bool {
        let window = Window { from: now, to: now + SLACK };
        // A region that everybody has left may or may not have an entry.
        let left = self.present.values().any(|presence| match presence {
            Presence::Members(all) => all.is_empty(),
            Presence::Foreign(alive) => *alive != Alive::Yes,
        });
        let mut members = self.present.values().flat_map(|presence| match presence {
            Presence::Members(members) => members.values().map(|(_, life)| *life).collect(),
            Presence::Foreign(_) => vec![],
        });
        !left
            && self.entries.values().all(|(_, life)| life.at(window) == Alive::Yes)
            && members.all(|life| life.at(window) == Alive::Yes)
    }

    /// What may stand there: each case with the entries as they are then.
    fn cases(&self, key: Key, window: Window) -> Vec<(Self, Option<Value>)> {
        let Some((value, life)) = self.entries.get(&key) else { return vec![(self.clone(), None)] };
        let there = || (self.clone(), Some(value.clone()));
        let gone = || (self.without(key), None);
        match life.at(window) {
            Alive::Yes => vec![there()],
            Alive::No => vec![gone()],
            Alive::Perhaps => vec![there(), gone()],
        }
    }

    fn without(&self, key: Key) -> Self {
        let mut next = self.clone();
        next.entries.remove(&key);
        next
    }

    fn with(&self, key: Key, value: Value, life: Life) -> Self {
        let mut next = self.clone();
        next.entries.insert(key, (value, life));
        next
    }

    /// What an operation on one entry makes of it, and what it is answered by.
    fn on_entry(&self, submission: &Submission, window: Window, stands: Option<Value>) -> (Self, Answer) {
        let refused = |refusal| Ask::from(submission).ended(End::Refused(refusal));
        match (submission, stands) {
            (&Submission::Read(key), Some(Value::Hash(stamp, fields))) => {
                let _ = key;
                (self.clone(), Answer::Read(Outcome::Done(Some(Hash { stamp, fields }))))
            }
            (&Submission::Read(key), _) => (self.without(Key::Hash(key)), Answer::Read(Outcome::Done(None))),
            (Submission::Write { key, .. } | Submission::Keep { key, .. }, Some(stands))
                if !matches!(stands, Value::Hash(..)) =>
            {
                (self.without(Key::Hash(*key)), refused(Refusal::WrongType))
            }
            (Submission::Write { key, fields }, stands) => {
                let (stamp, mut all) = match stands {
                    Some(Value::Hash(stamp, fields)) => (stamp, fields),
                    _ => (None, Fields::new()),
                };
                all.extend(fields.clone());
                let next = self.with(Key::Hash(*key), Value::Hash(stamp, all), Life::new(window, key.ttl()));
                (next, Answer::Written(Outcome::Done(())))
            }
            (Submission::Keep { stamp, .. }, Some(Value::Hash(Some(stands), _))) if stands >= *stamp => {
                (self.clone(), Answer::Kept(Outcome::Done(Kept::Stands(stands))))
            }
            (Submission::Keep { key, stamp, fields }, _) => {
                let value = Value::Hash(Some(*stamp), fields.clone());
                let next = self.with(Key::Hash(*key), value, Life::new(window, key.ttl()));
                (next, Answer::Kept(Outcome::Done(Kept::Replaced)))
            }
            (Submission::Increment { key, .. }, Some(stands)) if !matches!(stands, Value::Counter(_)) => {
                (self.without(Key::Counter(*key)), refused(Refusal::WrongType))
            }
            (Submission::Increment { key, by }, stands) => {
                let before = if let Some(Value::Counter(count)) = stands { count } else { 0 };
                match before.checked_add(by.get()) {
                    Some(sum) => {
                        let life = Life::new(window, key.ttl());
                        let next = self.with(Key::Counter(*key), Value::Counter(sum), life);
                        (next, Answer::Counted(Outcome::Done(sum)))
                    }
                    None => (self.clone(), refused(Refusal::Overflow)),
                }
            }
            (Submission::Count(_), Some(Value::Counter(count))) => {
                (self.clone(), Answer::Counted(Outcome::Done(count)))
            }
            (&Submission::Count(key), _) => (self.without(Key::Counter(key)), Answer::Counted(Outcome::Done(0))),
            (Submission::Get(_), Some(Value::Text(text))) => (self.clone(), Answer::Got(Outcome::Done(Some(text)))),
            (&Submission::Get(key), _) => (self.without(Key::Revoked(key)), Answer::Got(Outcome::Done(None))),
            (Submission::Set { key, value, ttl }, _) => {
                let life = Life::new(window, *ttl);
                let next = self.with(Key::Revoked(*key), Value::Text(value.clone()), life);
                (next, Answer::Set(Outcome::Done(())))
            }
            (&Submission::Delete(key), stands) => (self.without(key), Answer::Deleted(Outcome::Done(stands.is_some()))),
            (other, _) => unreachable!("{other:?} is not of one entry"),
        }
    }

    /// What an operation on a region's presence may make of it.
    fn on_presence(&self, submission: &Submission, window: Window, answer: Option<&Answer>) -> Vec<Self> {
        let region = match submission {
            Submission::Delete(Key::Presence { region, .. })
            | Submission::Place { region, .. }
            | Submission::Near { region, .. } => *region,
            other => unreachable!("{other:?} is not of a presence"),
        };
        let mut next = self.clone();
        if !self.present.contains_key(&region) && !matches!(submission, Submission::Place { .. }) {
            let nobody = [Answer::Near(Outcome::Done(vec![])), Answer::Deleted(Outcome::Done(false))];
            return if answer.is_none_or(|answer| nobody.contains(answer)) { vec![next] } else { vec![] };
        }
        let members = match next.present.entry(region).or_insert_with(|| Presence::Members(BTreeMap::new())) {
            Presence::Members(members) => members,
            &mut Presence::Foreign(alive) => {
                next.present.remove(&region);
                let evicted = if alive == Alive::Yes { vec![] } else { next.on_presence(submission, window, answer) };
                let fits = match submission {
                    Submission::Near { .. } => {
                        answer.is_none_or(|answer| answer == &Answer::Near(Outcome::Done(vec![])))
                    }
                    other => {
                        answer.is_none_or(|answer| answer == &Ask::from(other).ended(End::Refused(Refusal::WrongType)))
                    }
                };
                return if fits { [vec![next], evicted].concat() } else { evicted };
            }
        };
        let fits = match submission {
            Submission::Delete(Key::Presence { member, .. }) => {
                // Whose time is over stands until somebody looks.
                let there = members.remove(member).map_or(Alive::No, |(_, life)| match life.at(window) {
                    Alive::No => Alive::Perhaps,
                    alive => alive,
                });
                match answer {
                    None => true,
                    Some(Answer::Deleted(Outcome::Done(said))) => {
                        there == Alive::Perhaps || *said == (there == Alive::Yes)
                    }
                    Some(_) => false,
                }
            }
            Submission::Place { member, at, .. } => {
                members.insert(*member, (Cell::of(*at).middle(), Life::new(window, limits::PRESENCE_TTL)));
                answer.is_none_or(|answer| answer == &Answer::Placed(Outcome::Done(())))
            }
            &Submission::Near { around, radius_mm, limit, .. } => match answer {
                None => true,
                Some(Answer::Near(Outcome::Done(said))) => {
                    are_nearest(members, window, around, radius_mm, limit.into(), said)
                }
                Some(_) => false,
            },
            _ => false,
        };
        if fits { vec![next] } else { vec![] }
    }

    /// Loads are no snapshot, but nothing is asked beside them here.
    fn are_loads(&self, region: RegionId, window: Window, said: &[(NodeId, Fields)]) -> bool {
        let mut expected: BTreeMap<NodeId, (&Fields, Alive)> = BTreeMap::new();
        for (key, (value, life)) in &self.entries {
            if let (Key::Hash(HashKey::Load { region: of, node }), Value::Hash(_, fields)) = (key, value)
                && *of == region
            {
                expected.insert(*node, (fields, life.at(window)));
            }
        }
        let sorted = said.is_sorted_by(|a, b| a.0 < b.0);
        let told = said.iter().all(|(node, fields)| {
            expected.get(node).is_some_and(|(stands, alive)| *alive != Alive::No && *stands == fields)
        });
        let complete = expected
            .iter()
            .all(|(node, (_, alive))| *alive != Alive::Yes || said.iter().any(|(there, _)| there == node));
        sorted && told && complete
    }
}

/// Whether this is what a search may find: by measuring every member.
fn are_nearest(
    members: &BTreeMap<CharacterId, (Position, Life)>,
    window: Window,
    around: Position,
    radius_mm: u64,
    limit: usize,
    said: &[Neighbour],
) -> bool {
    let mut near = BTreeMap::new();
    for (&member, &(position, life)) in members {
        let distance_mm = position.distance_mm(around);
        if distance_mm <= radius_mm && life.at(window) != Alive::No {
            near.insert(member, (Neighbour { member, position, distance_mm }, life.at(window)));
        }
    }
    let certain = near.values().filter(|(_, alive)| *alive == Alive::Yes).count();
    let right = said.iter().all(|told| near.get(&told.member).is_some_and(|(neighbour, _)| neighbour == told));
    let order = said.is_sorted_by(|a, b| (a.distance_mm, a.member) < (b.distance_mm, b.member));
    let count = (certain.min(limit)..=near.len().min(limit)).contains(&said.len());
    // Who is left out though there is room is not there; who is cut off is not nearer than the last by a thousandth.
    let last = said.last().map_or(0, |told| told.distance_mm);
    let left_out = near.values().filter(|(neighbour, _)| !said.iter().any(|told| told.member == neighbour.member));
    let none_nearer = left_out.into_iter().all(|(neighbour, alive)| {
        *alive != Alive::Yes || said.len() == limit && neighbour.distance_mm + neighbour.distance_mm / 1_000 >= last
    });
    right && order && count && none_nearer
}

impl Model<Cache> for Entries {
    const IN_ORDER: bool = true;

    fn ending(answer: &Answer) -> Ending {
        const ABSENT: &[Refusal] = &[Refusal::Unreachable, Refusal::Busy, Refusal::ReadOnly, Refusal::OutOfMemory];
        match answer {
            Answer::Read(outcome) => Ending::of(outcome, ABSENT),
            Answer::Written(outcome) | Answer::Set(outcome) | Answer::Placed(outcome) => Ending::of(outcome, ABSENT),
            Answer::Kept(outcome) => Ending::of(outcome, ABSENT),
            Answer::Counted(outcome) => Ending::of(outcome, ABSENT),
            Answer::Got(outcome) => Ending::of(outcome, ABSENT),
            Answer::Deleted(outcome) => Ending::of(outcome, ABSENT),
            Answer::Near(outcome) => Ending::of(outcome, ABSENT),
            Answer::Loads(outcome) => Ending::of(outcome, ABSENT),
        }
    }

    fn is_write(submission: &Submission) -> bool {
        let reads = matches!(
            submission,
            Submission::Read(_)
                | Submission::Count(_)
                | Submission::Get(_)
                | Submission::Near { .. }
                | Submission::Loads(_)
        );
        !reads && submission.is_bounded()
    }

    fn after(&self, submission: &Submission, window: Window, answer: Option<&<Cache as Door>::Answer>) -> Vec<Self> {
        if !submission.is_bounded() {
            let refused = Ask::from(submission).ended(End::Refused(Refusal::Malformed));
            return if answer.is_none_or(|answer| *answer == refused) { vec![self.clone()] } else { vec![] };
        }
        let key = match submission {
            &Submission::Read(key) | &Submission::Write { key, .. } | &Submission::Keep { key, .. } => Key::Hash(key),
            &Submission::Increment { key, .. } | &Submission::Count(key) => Key::Counter(key),
            &Submission::Get(key) | &Submission::Set { key, .. } => Key::Revoked(key),
            Submission::Delete(Key::Presence { .. }) | Submission::Place { .. } | Submission::Near { .. } => {
                return self.on_presence(submission, window, answer);
            }
            &Submission::Delete(key) => key,
            Submission::Loads(region) => {
                let fits = match answer {
                    None => true,
                    Some(Answer::Loads(Outcome::Done(said))) => self.are_loads(*region, window, said),
                    Some(_) => false,
                };
                return if fits { vec![self.clone()] } else { vec![] };
            }
        };
        let mut next = Vec::new();
        for (entries, stands) in self.cases(key, window) {
            let (after, expected) = entries.on_entry(submission, window, stands);
            if answer.is_none_or(|answer| *answer == expected) {
                next.push(after);
            }
        }
        next
    }
}
