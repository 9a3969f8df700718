//! What a submission does to a store: the answer, and what a replica must be told.

use super::store::{Effect, Name, Store, Value};
use worldline_proto::NodeId;
use worldline_system::{
    Outcome, Refusal,
    doors::cache::{Answer, Ask, Fields, Hash, HashKey, Kept, Key, Submission},
    limits,
    outcome::End,
    rules::grid::Cell,
    time::{Duration, UnixTime},
};

/// Whether it would change anything.
pub(super) fn is_write(submission: &Submission) -> bool {
    match submission {
        Submission::Read(_)
        | Submission::Count(_)
        | Submission::Get(_)
        | Submission::Near { .. }
        | Submission::Loads(_) => false,
        Submission::Write { .. }
        | Submission::Keep { .. }
        | Submission::Increment { .. }
        | Submission::Set { .. }
        | Submission::Delete(_)
        | Submission::Place { .. } => true,
    }
}

/// Executes a submission that is within its bounds. What it changes is already done to the store.
pub(super) fn execute(store: &mut Store, now: UnixTime, submission: &Submission) -> (Answer, Vec<Effect>) {
    let mut effects = vec![];
    let answer = run(store, now, submission, &mut effects);
    effects.iter().for_each(|effect| store.apply(now, effect));
    (answer, effects)
}

/// An entry of another type is somebody else's: it is deleted. A read of it is a miss, a write is refused.
fn run(store: &mut Store, now: UnixTime, submission: &Submission, effects: &mut Vec<Effect>) -> Answer {
    let refused = |refusal| Ask::from(submission).ended(End::Refused(refusal));
    let until = |ttl: Duration| now + ttl;
    match submission {
        &Submission::Read(key) => Answer::Read(Outcome::Done(match store.get(now, Name::Hash(key)) {
            Some(Value::Hash(stamp, fields)) => Some(Hash { stamp: *stamp, fields: fields.clone() }),
            Some(_) => {
                effects.push(Effect::Remove(Name::Hash(key)));
                None
            }
            None => None,
        })),
        Submission::Write { key, fields } => {
            let name = Name::Hash(*key);
            let (stamp, mut merged) = match store.get(now, name) {
                Some(Value::Hash(stamp, fields)) => (*stamp, fields.clone()),
                None => (None, Fields::new()),
                Some(_) => {
                    effects.push(Effect::Remove(name));
                    return refused(Refusal::WrongType);
                }
            };
            merged.extend(fields.clone());
            effects.push(Effect::Put(name, Value::Hash(stamp, merged), until(key.ttl())));
            Answer::Written(Outcome::Done(()))
        }
        Submission::Keep { key, stamp, fields } => {
            let name = Name::Hash(*key);
            match store.get(now, name) {
                Some(Value::Hash(Some(stands), _)) if stands >= stamp => {
                    return Answer::Kept(Outcome::Done(Kept::Stands(*stands)));
                }
                Some(Value::Hash(..)) | None => {}
                Some(_) => {
                    effects.push(Effect::Remove(name));
                    return refused(Refusal::WrongType);
                }
            }
            effects.push(Effect::Put(name, Value::Hash(Some(*stamp), fields.clone()), until(key.ttl())));
            Answer::Kept(Outcome::Done(Kept::Replaced))
        }
        Submission::Increment { key, by } => {
            let name = Name::Counter(*key);
            let before = match store.get(now, name) {
                Some(Value::Counter(count)) => *count,
                None => 0,
                Some(_) => {
                    effects.push(Effect::Remove(name));
                    return refused(Refusal::WrongType);
                }
            };
            let Some(sum) = before.checked_add(by.get()) else { return refused(Refusal::Overflow) };
            effects.push(Effect::Put(name, Value::Counter(sum), until(key.ttl())));
            Answer::Counted(Outcome::Done(sum))
        }
        &Submission::Count(key) => Answer::Counted(Outcome::Done(match store.get(now, Name::Counter(key)) {
            Some(Value::Counter(count)) => *count,
            Some(_) => {
                effects.push(Effect::Remove(Name::Counter(key)));
                0
            }
            None => 0,
        })),
        &Submission::Get(key) => Answer::Got(Outcome::Done(match store.get(now, Name::Revoked(key)) {
            Some(Value::Text(text)) => Some(text.clone()),
            Some(_) => {
                effects.push(Effect::Remove(Name::Revoked(key)));
                None
            }
            None => None,
        })),
        Submission::Set { key, value, ttl } => {
            // SET replaces whatever stands there.
            effects.push(Effect::Put(Name::Revoked(*key), Value::Text(value.clone()), until(*ttl)));
            Answer::Set(Outcome::Done(()))
        }
        &Submission::Delete(Key::Presence { region, member }) => {
            let name = Name::Presence(region);
            let there = match store.get(now, name) {
                Some(Value::Presence(presence)) => presence.clone().leave(member),
                Some(_) => {
                    effects.push(Effect::Remove(name));
                    return refused(Refusal::WrongType);
                }
                None => false,
            };
            effects.push(Effect::Leave(region, member));
            Answer::Deleted(Outcome::Done(there))
        }
        &Submission::Delete(key) => {
            let name = Name::of(key);
            let there = store.get(now, name).is_some();
            effects.push(Effect::Remove(name));
            Answer::Deleted(Outcome::Done(there))
        }
        &Submission::Place { region, member, at } => {
            let name = Name::Presence(region);
            if !matches!(store.get(now, name), None | Some(Value::Presence(_))) {
                effects.push(Effect::Remove(name));
                return refused(Refusal::WrongType);
            }
            effects.push(Effect::Place(region, member, Cell::of(at), until(limits::PRESENCE_TTL)));
            Answer::Placed(Outcome::Done(()))
        }
        &Submission::Near { region, around, radius_mm, limit } => {
            let name = Name::Presence(region);
            Answer::Near(Outcome::Done(match store.get(now, name) {
                Some(Value::Presence(presence)) => presence.near(now, around, radius_mm, limit),
                Some(_) => {
                    effects.push(Effect::Remove(name));
                    vec![]
                }
                None => vec![],
            }))
        }
        &Submission::Loads(region) => {
            let first = Name::Hash(HashKey::Load { region, node: NodeId(0) });
            let loads = store.range(now, first).map_while(|(name, value)| match (name, value) {
                (Name::Hash(HashKey::Load { region: of, node }), value) if of == region => Some((node, value)),
                _ => None,
            });
            let hashes = loads.filter_map(|(node, value)| match value {
                Value::Hash(_, fields) => Some((node, fields.clone())),
                _ => None,
            });
            Answer::Loads(Outcome::Done(hashes.take(limits::CACHE_LOADS).collect()))
        }
    }
}
