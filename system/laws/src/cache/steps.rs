//! What callers of a cache do, and what befalls it. Few keys, so that everything meets everything.

use crate::{
    play::Seen,
    service::{CALLERS, Fault, Mishap},
};
use proptest::prelude::*;
use worldline_proto::{CharacterId, Digest, Epoch, NodeId, Version};
use worldline_system::{
    Outcome, Refusal,
    doors::{
        cache::{
            Answer, CounterKey, Fields, HashKey, Kept, Key, RevokedKey, STAMP_FIELD, Stamp, Submission, Violation,
        },
        directory::RegionId,
    },
    limits,
    rules::space::Position,
    time::Duration,
};

const CHARACTERS: u64 = 3;
const REGION: RegionId = RegionId(0);
/// How long a text lives here.
const TEXT_TTL: Duration = Duration::from_millis(300);
/// What a wait for an end takes more than the life.
const BEYOND: Duration = Duration::from_millis(60);

/// One submission.
#[derive(Clone, Debug)]
pub(super) struct What(Submission);

impl What {
    pub fn submission(&self) -> Submission {
        self.0.clone()
    }
}

/// How long nobody asks anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    Moment,
    Text,
    HalfText,
    Load,
    HalfLoad,
    Presence,
    HalfPresence,
    Session,
    Counter,
}

impl Wait {
    pub fn span(self) -> Duration {
        match self {
            Self::Moment => Duration::from_millis(10),
            Self::Text => TEXT_TTL + BEYOND,
            Self::HalfText => TEXT_TTL / 2,
            Self::Load => limits::LOAD_TTL + BEYOND,
            Self::HalfLoad => limits::LOAD_TTL / 2,
            Self::Presence => limits::PRESENCE_TTL + BEYOND,
            Self::HalfPresence => limits::PRESENCE_TTL / 2,
            Self::Session => limits::SESSION_TTL + BEYOND,
            Self::Counter => limits::VIOLATIONS_TTL + BEYOND,
        }
    }
}

/// A step of a case.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// By whom, all at once.
    Ask(Vec<(usize, What)>),
    Pass(Wait),
    Flush,
    Soil,
    Evict,
    /// The replica hears nothing any more of what the primary does.
    Lag,
    /// With the first counter that is used in it.
    Fault((Mishap, u64)),
}

pub(super) fn counted(n: u64) -> Submission {
    Submission::Increment { key: counter(n % CHARACTERS), by: 1.try_into().expect("not zero") }
}

pub(super) fn count(n: u64) -> Submission {
    Submission::Count(counter(n % CHARACTERS))
}

fn character(n: u64) -> CharacterId {
    CharacterId::new(n + 1).expect("a small number")
}

fn counter(n: u64) -> CounterKey {
    CounterKey { character: character(n), violation: Violation::Speed }
}

fn revoked(n: u64) -> RevokedKey {
    RevokedKey(Digest([n as u8; 16]))
}

fn hash_key() -> impl Strategy<Value = HashKey> {
    (0..4_u8, 0..CHARACTERS).prop_map(|(kind, n)| match kind {
        0 => HashKey::Session(character(n)),
        1 => HashKey::Checkpoint(character(n).entity()),
        2 => HashKey::Load { region: REGION, node: NodeId(n as u32) },
        _ => HashKey::Peer { region: REGION, character: character(n) },
    })
}

fn stamp() -> impl Strategy<Value = Stamp> {
    let number = || prop_oneof![6 => 0..4_u64, 1 => Just(u64::MAX), 1 => Just(1 << 53), 1 => any::<u64>()];
    (number(), number()).prop_map(|(epoch, version)| Stamp { epoch: Epoch(epoch), version: Version(version) })
}

fn fields() -> impl Strategy<Value = Fields> {
    // Empty names and values, texts of any alphabet, and now and then what is beyond a bound or not the caller's to write.
    let name = prop_oneof![6 => "[ab]", 1 => "\\PC{0,3}", 1 => Just(STAMP_FIELD.to_owned())];
    prop_oneof![
        12 => prop::collection::btree_map(name, "\\PC{0,6}|[\r\n\0]{0,2}", 0..4),
        1 => (limits::CACHE_FIELDS..=limits::CACHE_FIELDS + 1)
            .prop_map(|count| (0..count).map(|n| (n.to_string(), String::new())).collect()),
    ]
}

fn place() -> impl Strategy<Value = Position> {
    let side = || prop_oneof![6 => -300_000..300_000_i64, 1 => Just(i64::MAX), 1 => -64_000_000..=64_000_000_i64];
    (side(), side()).prop_map(|(x_mm, y_mm)| Position { x_mm, y_mm })
}

fn what() -> impl Strategy<Value = What> {
    let who = || 0..CHARACTERS;
    let by = prop_oneof![6 => -3..9_i64, 1 => Just(i64::MAX), 1 => Just(i64::MIN), 1 => any::<i64>()];
    let by = by.prop_map(|by| by.try_into().unwrap_or(std::num::NonZero::<i64>::MIN));
    let key = prop_oneof![
        hash_key().prop_map(Key::Hash),
        who().prop_map(|n| Key::Counter(counter(n))),
        who().prop_map(|n| Key::Revoked(revoked(n))),
        who().prop_map(|n| Key::Presence { region: REGION, member: character(n) }),
    ];
    let limit = || prop_oneof![3 => Just(limits::CACHE_NEIGHBOURS), 1 => 0..3_u16];
    prop_oneof![
        3 => hash_key().prop_map(Submission::Read),
        3 => (hash_key(), fields()).prop_map(|(key, fields)| Submission::Write { key, fields }),
        3 => (hash_key(), stamp(), fields()).prop_map(|(key, stamp, fields)| Submission::Keep { key, stamp, fields }),
        3 => (who(), by).prop_map(|(n, by)| Submission::Increment { key: counter(n), by }),
        1 => who().prop_map(|n| Submission::Count(counter(n))),
        2 => who().prop_map(|n| Submission::Get(revoked(n))),
        2 => (who(), "\\PC{0,9}")
            .prop_map(|(n, value)| Submission::Set { key: revoked(n), value, ttl: TEXT_TTL }),
        2 => key.prop_map(Submission::Delete),
        3 => (who(), place()).prop_map(|(n, at)| Submission::Place { region: REGION, member: character(n), at }),
        3 => (place(), 0..=limits::CACHE_RADIUS_MM + 1, limit())
            .prop_map(|(around, radius_mm, limit)| Submission::Near { region: REGION, around, radius_mm, limit }),
    ]
    .prop_map(What)
}

fn round() -> impl Strategy<Value = Step> {
    prop_oneof![
        9 => prop::collection::vec((0..CALLERS, what()), 1..5).prop_map(Step::Ask),
        1 => (0..CALLERS).prop_map(|caller| Step::Ask(vec![(caller, What(Submission::Loads(REGION)))])),
    ]
}

/// In fair weather.
pub(super) fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        16 => round(),
        2 => Just(Step::Pass(Wait::Moment)),
        1 => Just(Step::Flush),
        1 => Just(Step::Soil),
        1 => Just(Step::Evict),
    ]
}

/// With all the time that lives need to end.
pub(super) fn life() -> impl Strategy<Value = Step> {
    use Wait::{Counter, HalfLoad, HalfPresence, HalfText, Load, Presence, Session, Text};
    prop_oneof![
        6 => round(),
        2 => prop::sample::select(vec![Text, HalfText]).prop_map(Step::Pass),
        2 => prop::sample::select(vec![Load, HalfLoad, Presence, HalfPresence]).prop_map(Step::Pass),
        1 => prop_oneof![4 => Just(Session), 1 => Just(Counter)].prop_map(Step::Pass),
    ]
}

/// With faults.
pub(super) fn weather(faults: &'static [Fault]) -> impl Strategy<Value = Step> {
    let mishap = Mishap::any(faults);
    prop_oneof![
        3 => round(),
        2 => (mishap, 0..CHARACTERS).prop_map(Step::Fault),
    ]
}

/// The primary is killed and stopped, each while the replica hears all of it and while it does not; in any order.
pub(super) fn succession() -> impl Strategy<Value = Vec<Step>> {
    // Each moment of a round is one that the replica may have stopped at: few are told apart soon.
    let round = || prop::collection::vec((0..CALLERS, what()), 1..3).prop_map(Step::Ask);
    let loss = move |(fault, lags): (Fault, bool)| {
        let rounds = || prop::collection::vec(round(), 0..3);
        (rounds(), rounds(), any::<bool>(), 0..CHARACTERS).prop_map(move |(before, after, under_way, first)| {
            let lag = lags.then_some(Step::Lag);
            let fault = Step::Fault((Mishap { fault, under_way }, first));
            before.into_iter().chain(lag).chain(after).chain([fault]).collect::<Vec<_>>()
        })
    };
    let losses = Fault::OF_LEADERS.map(|fault| [loss((fault, false)), loss((fault, true))]);
    let losses: Vec<_> = losses.into_iter().flatten().collect();
    losses.prop_shuffle().prop_map(|all| all.concat())
}

/// Reads of whatever callers may have written.
pub(super) fn everything() -> impl Iterator<Item = Submission> {
    let of = |n| {
        let (node, character) = (NodeId(n as u32), character(n));
        [
            Submission::Read(HashKey::Session(character)),
            Submission::Read(HashKey::Checkpoint(character.entity())),
            Submission::Read(HashKey::Load { region: REGION, node }),
            Submission::Read(HashKey::Peer { region: REGION, character }),
            count(n),
            Submission::Get(revoked(n)),
        ]
    };
    let (around, radius_mm) = (Position { x_mm: 0, y_mm: 0 }, limits::CACHE_RADIUS_MM);
    let near = Submission::Near { region: REGION, around, radius_mm, limit: limits::CACHE_NEIGHBOURS };
    (0..CHARACTERS).flat_map(of).chain([near])
}

/// What an answer shows.
pub(super) fn note(answer: &Answer, seen: &mut Seen) {
    match answer {
        Answer::Read(Outcome::Done(Some(_))) => seen.note("hash read"),
        Answer::Read(Outcome::Done(None)) => seen.note("hash missed"),
        Answer::Kept(Outcome::Done(Kept::Replaced)) => seen.note("replaced"),
        Answer::Kept(Outcome::Done(Kept::Stands(_))) => seen.note("stands"),
        Answer::Counted(Outcome::Done(_)) => seen.note("counted"),
        Answer::Counted(Outcome::Refused(Refusal::Overflow)) => seen.note("overflow"),
        Answer::Got(Outcome::Done(Some(_))) => seen.note("text read"),
        Answer::Got(Outcome::Done(None)) => seen.note("text missed"),
        Answer::Near(Outcome::Done(near)) if !near.is_empty() => seen.note("neighbours"),
        Answer::Loads(Outcome::Done(loads)) if !loads.is_empty() => seen.note("loads"),
        Answer::Deleted(Outcome::Done(true)) => seen.note("deleted"),
        Answer::Written(Outcome::Refused(Refusal::WrongType))
        | Answer::Kept(Outcome::Refused(Refusal::WrongType))
        | Answer::Counted(Outcome::Refused(Refusal::WrongType))
        | Answer::Placed(Outcome::Refused(Refusal::WrongType)) => seen.note("wrong type"),
        Answer::Written(Outcome::Refused(Refusal::Malformed))
        | Answer::Kept(Outcome::Refused(Refusal::Malformed))
        | Answer::Near(Outcome::Refused(Refusal::Malformed))
        | Answer::Placed(Outcome::Refused(Refusal::Malformed)) => seen.note("malformed"),
        _ => {}
    }
}
