//! Checkpoints beside the ledger's: each is written to the region's cache too, and a claim takes the newer of both.
//!
//! * From the cache only what the epoch it replaces has written is taken: an entry of an earlier epoch may be older than what
//!   its successor did, and nobody else may write at the replaced one.
//! * The cache is asked while the ledger's claim is under way. What it has not answered within [`limits::CACHE_PATIENCE`] is a
//!   miss, and the claim goes on from the ledger: losing the cache costs latency, and at most the period of checkpoints.
//! * The worker's load is told here as well, as often as [`limits::LOAD_PERIOD`] says.
//!
//! Deliberately absent: anything durable. Hit points, experience and results are the ledger's alone.

use super::{Submission, Worker};
use crate::{
    Outcome, Refusal, Turn,
    doors::{
        cache::{self, Answer, Fields, Hash, HashKey, Stamp},
        ledger::{Checkpoint, Checkpointed, Durable},
    },
    limits, reached,
    rules::space::Position,
    time::{Instant, UnixTime},
};
use alloc::{
    borrow::ToOwned,
    boxed::Box,
    collections::BTreeMap,
    string::{String, ToString},
    vec::Vec,
};
use worldline_proto::{EntityId, Epoch, OpId};

/// What a ledger's claim returns.
pub(super) type Claimed = Vec<Result<Box<Durable>, Refusal>>;

const X: &str = "x_mm";
const Y: &str = "y_mm";
const COOLDOWN: &str = "cooldown_end_unix_ns";

/// What is asked of the cache and what it has said, for the groups of claims under way; and the load.
#[derive(Clone, Debug, Default)]
pub(super) struct Cached {
    reads: BTreeMap<OpId, (u64, EntityId)>,
    found: BTreeMap<(u64, EntityId), (Stamp, Checkpointed)>,
    /// Claims that the ledger has answered before the cache did.
    waiting: BTreeMap<u64, Claimed>,
    load_due: Instant,
    /// The longest that a tick came too late since the load was last told.
    tick_late_us_max: u64,
    tick_due: Option<Instant>,
}

impl Cached {
    /// Forgets what was asked for a group.
    pub(super) fn forget(&mut self, group: u64) {
        self.reads.retain(|_, (of, _)| *of != group);
        self.found.retain(|(of, _), _| *of != group);
        self.waiting.remove(&group);
    }

    /// Forgets all claims: the identity is dead.
    pub(super) fn reset(&mut self) {
        (self.reads, self.found, self.waiting) = Default::default();
    }

    /// How many answers it waits for.
    pub(super) fn reads(&self) -> usize {
        self.reads.len()
    }

    fn is_reading(&self, group: u64) -> bool {
        self.reads.values().any(|&(of, _)| of == group)
    }

    /// Takes the claims of a group if the cache still has to answer for it; gives them back otherwise.
    pub(super) fn wait(&mut self, group: u64, claims: Claimed) -> Option<Claimed> {
        if !self.is_reading(group) {
            return Some(claims);
        }
        self.waiting.insert(group, claims);
        None
    }

    /// Puts the cache's checkpoint in the place of the ledger's where it is newer and of the epoch that is replaced. Counts which of
    /// the two had the last one, the cache where both have it.
    pub(super) fn bring_up(&self, group: u64, claimed: Epoch, durable: &mut Durable, turn: &mut Turn<'_, Submission>) {
        let kept = durable.checkpoint.map(|(epoch, version, _)| Stamp { epoch, version });
        let of_replaced = |(stamp, _): &&(Stamp, _)| Some(stamp.epoch.0) == claimed.0.checked_sub(1);
        let found = self.found.get(&(group, durable.entity)).filter(of_replaced);
        match found.filter(|(stamp, _)| kept.is_none_or(|kept| *stamp >= kept)) {
            Some(&(stamp, state)) => {
                reached!(turn, "worker.checkpoint-in-cache");
                if Some(stamp) != kept {
                    durable.checkpoint = Some((stamp.epoch, stamp.version, state));
                }
            }
            None if kept.is_some() => reached!(turn, "worker.checkpoint-from-ledger"),
            // Nobody has served it before.
            None => {}
        }
    }
}

impl Worker {
    /// Asks the cache for the checkpoints of a group that is about to be claimed.
    pub(super) fn read_checkpoints(&mut self, group: u64, entities: &[EntityId], turn: &mut Turn<'_, Submission>) {
        self.cached.forget(group);
        for &entity in entities {
            let read = cache::Submission::Read(HashKey::Checkpoint(entity));
            let op = turn.cache(read, limits::CACHE_PATIENCE);
            self.cached.reads.insert(op, (group, entity));
        }
    }

    /// Takes an answer of the cache. That to a write tells nothing that anybody waits for, unless it is a counter's sum.
    pub(super) fn on_cache(&mut self, event: cache::Event, turn: &mut Turn<'_, Submission>) {
        let Some((group, entity)) = self.cached.reads.remove(&event.op) else {
            return self.on_counted(event.op, &event.answer, turn);
        };
        if let Answer::Read(Outcome::Done(Some(hash))) = &*event.answer
            && let Some(found) = decode(hash)
        {
            self.cached.found.insert((group, entity), found);
        }
        if !self.cached.is_reading(group)
            && let Some(claims) = self.cached.waiting.remove(&group)
        {
            self.take_in_claims(group, claims, turn);
        }
    }

    /// Writes checkpoints to the cache, beside the batch that brings them to the ledger.
    pub(super) fn cache_checkpoints(&self, checkpoints: &[Checkpoint], turn: &mut Turn<'_, Submission>) {
        for Checkpoint { authority, version, state } in checkpoints {
            let (key, stamp) =
                (HashKey::Checkpoint(authority.entity), Stamp { epoch: authority.epoch, version: *version });
            turn.cache(cache::Submission::Keep { key, stamp, fields: encode(state) }, limits::CACHE_PATIENCE);
        }
    }

    /// At every tick: looks how late it came, and tells the load when that is due.
    pub(super) fn tell_load(&mut self, turn: &mut Turn<'_, Submission>) {
        let now = turn.now();
        let late = self.cached.tick_due.map_or(0, |due| now.since(due).as_micros());
        self.cached.tick_late_us_max = self.cached.tick_late_us_max.max(late);
        self.cached.tick_due = Some(now + limits::TICK);
        if now < self.cached.load_due {
            return;
        }
        self.cached.load_due = now + limits::LOAD_PERIOD;
        self.report(turn);
        let told = [
            ("entity_count", self.entities.len().to_string()),
            ("queued_operations", self.queue.len().to_string()),
            ("tick_late_us_max", core::mem::take(&mut self.cached.tick_late_us_max).to_string()),
            ("last_update_unix_ms", (turn.unix_now().as_nanos() / 1_000_000).to_string()),
        ];
        let key = HashKey::Load { region: self.config.region, node: turn.node() };
        let fields = told.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        turn.cache(cache::Submission::Write { key, fields }, limits::CACHE_PATIENCE);
    }

    /// The ticks stop for a while: the next one is not late.
    pub(super) fn ticks_stop(&mut self) {
        self.cached.tick_due = None;
    }
}

fn encode(state: &Checkpointed) -> Fields {
    let Checkpointed { position, cooldown_end } = state;
    let values = [
        (X, position.x_mm.to_string()),
        (Y, position.y_mm.to_string()),
        (COOLDOWN, cooldown_end.as_nanos().to_string()),
    ];
    values.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// A checkpoint as this version writes it, inside the world. Anything else is a miss.
fn decode(hash: &Hash) -> Option<(Stamp, Checkpointed)> {
    let value = |name| hash.fields.get(name).map(String::as_str);
    let position = Position { x_mm: value(X)?.parse().ok()?, y_mm: value(Y)?.parse().ok()? };
    let cooldown_end = UnixTime::from_nanos(value(COOLDOWN)?.parse().ok()?);
    position.in_world().then_some((hash.stamp?, Checkpointed { position, cooldown_end }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use worldline_proto::Version;

    #[test]
    fn a_checkpoint_comes_back_and_what_does_not_read_is_a_miss() {
        let state = Checkpointed { position: Position { x_mm: -7, y_mm: 9 }, cooldown_end: UnixTime::from_nanos(11) };
        let stamp = Stamp { epoch: Epoch(3), version: Version(4) };
        let whole = Hash { stamp: Some(stamp), fields: encode(&state) };
        assert_eq!(decode(&whole), Some((stamp, state)));
        assert_eq!(decode(&Hash { stamp: None, ..whole.clone() }), None);
        for (name, wrong) in [(X, "far"), (Y, "64000001"), (COOLDOWN, "-1")] {
            let mut hash = whole.clone();
            hash.fields.insert(name.to_owned(), wrong.to_owned());
            assert_eq!(decode(&hash), None, "{name} {wrong}");
            hash.fields.remove(name);
            assert_eq!(decode(&hash), None, "without {name}");
        }
    }
}
