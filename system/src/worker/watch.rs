//! What a worker tells the cache of its players: where they are, and what they do that an honest client does not.
//!
//! * **Presence**: whoever plays here is placed when it comes and every [`limits::PRESENCE_PERIOD`], and taken away when it leaves.
//!   One whose leaving nobody heard of is forgotten within [`limits::PRESENCE_TTL`].
//! * **Violations**: a *bad second* is one in which the rules of movement have refused [`BAD_SECOND`] inputs or more of a player.
//!   Packets that come late and in a crowd bring one or two, and so does a takeover, until the player is corrected; so bad seconds
//!   in a row are forgiven for as long as an honest player can go uncorrected: then its connection is lost. Each further one is
//!   added to the counter of its kind, which lives for a day after the last. A player whose counter stands at
//!   [`limits::VIOLATIONS_MAX`] or above is released as misbehaved, and its gateway closes the session.
//!
//! Invariants: no more than one increment a second for a player, whatever it sends; nobody waits for the cache. What it does not
//! take is forgotten: an increment is never repeated, since it might count twice, and a cache that is lost only gives a player its
//! seconds again.
//!
//! Deliberately absent: a decision about what is accepted. The rules decide that, with or without a cache. What an operation
//! attempts too early is no violation either: its refusal is a stored result like any other.

use super::{Served, Submission, Worker, sessions::release_to};
use crate::{
    Outcome, Turn,
    doors::cache::{self, Answer, CounterKey, Key, Violation},
    limits, reached,
    rules::{movement::CREDIT_MM, space::Position},
    time::{Duration, Instant},
};
use alloc::{collections::BTreeMap, vec::Vec};
use core::num::NonZeroI64;
use worldline_proto::{CharacterId, Generation, OpId, server::ReleasedReason};

/// Refused inputs in a second that make it a bad one: half of what a client sends.
const BAD_SECOND: u32 = 10;
/// Bad seconds in a row that are forgiven: a connection that brings no correction is lost by then.
const FORGIVEN: u32 = (limits::IDLE_TIMEOUT.as_nanos() / 1_000_000_000) as u32 + 1;
/// How often it is looked what there is to tell.
const PERIOD: Duration = Duration::from_secs(1);
/// Players that are placed in a second, and of whom a bad one is told: a worker has room for ten times as many in a period.
const TOLD: usize = 512;
/// A bad second counts once.
const ONE: NonZeroI64 = NonZeroI64::new(1).expect("one is not zero");

/// What the rules have refused of one player.
#[derive(Clone, Copy, Debug, Default)]
struct Refused {
    /// Since the last look: walks that were too fast.
    speed: u32,
    /// Since the last look: what was no walk at all.
    teleport: u32,
    /// So many seconds before were bad, without a good one between.
    bad_seconds: u32,
}

impl Refused {
    /// A second is over. Whether it was a bad one; and of which kind, where it is not forgiven.
    fn end_second(&mut self) -> (bool, Option<Violation>) {
        let Self { speed, teleport, bad_seconds } = *self;
        if speed.saturating_add(teleport) < BAD_SECOND {
            return (false, None);
        }
        *self = Self { bad_seconds: bad_seconds.saturating_add(1), ..Self::default() };
        let violation = if teleport > speed { Violation::Teleport } else { Violation::Speed };
        (true, (bad_seconds >= FORGIVEN).then_some(violation))
    }
}

/// What is to be told, and what was.
#[derive(Clone, Debug, Default)]
pub(super) struct Watch {
    refused: BTreeMap<CharacterId, Refused>,
    /// Increments that wait for their sum, and of which session the bad second was.
    counting: BTreeMap<OpId, (CharacterId, Generation)>,
    due: Instant,
}

impl Watch {
    /// How many sums it waits for.
    pub(super) fn counting(&self) -> usize {
        self.counting.len()
    }

    /// The rules of movement have refused an input.
    pub(super) fn refused(&mut self, character: CharacterId, from: Position, to: Position) {
        let refused = self.refused.entry(character).or_default();
        // No credit is ever so high: it is no walk that was too fast, but none at all.
        let jump = !to.in_world() || from.distance_mm(to) > CREDIT_MM;
        let count = if jump { &mut refused.teleport } else { &mut refused.speed };
        *count = count.saturating_add(1);
    }
}

impl Worker {
    /// At every tick: tells what there is, once a second.
    pub(super) fn tell_of_players(&mut self, turn: &mut Turn<'_, Submission>) {
        let now = turn.now();
        if now < self.watch.due {
            return;
        }
        self.watch.due = now + PERIOD;
        self.tell_violations(turn);
        self.place_players(turn);
    }

    fn tell_violations(&mut self, turn: &mut Turn<'_, Submission>) {
        let mut bad = Vec::new();
        self.watch.refused.retain(|&character, refused| {
            let (goes_on, violation) = refused.end_second();
            bad.extend(violation.map(|violation| CounterKey { character, violation }));
            goes_on
        });
        for key in bad.into_iter().take(TOLD) {
            let Some(served) = self.entities.get(&key.character.entity()) else { continue };
            reached!(turn, "worker.bad-second");
            let op = turn.cache(cache::Submission::Increment { key, by: ONE }, limits::CACHE_PATIENCE);
            self.watch.counting.insert(op, (key.character, served.generation));
        }
    }

    /// Takes the sum of a counter, if the answer is to one.
    pub(super) fn on_counted(&mut self, op: OpId, answer: &Answer, turn: &mut Turn<'_, Submission>) {
        let Some((character, generation)) = self.watch.counting.remove(&op) else { return };
        let &Answer::Counted(Outcome::Done(sum)) = answer else { return };
        if sum < limits::VIOLATIONS_MAX || !self.acts(turn.now()) {
            return;
        }
        let served = self.entities.get_mut(&character.entity()).filter(|served| served.generation == generation);
        let Some(served) = served else { return };
        if let Some(gateway) = served.gateway.take() {
            reached!(turn, "worker.player-released");
            release_to(gateway, served, ReleasedReason::Misbehaved, turn);
            self.leave_presence(character, turn);
        }
    }

    /// Places those of whom it is due, as many as may be.
    fn place_players(&mut self, turn: &mut Turn<'_, Submission>) {
        let (now, region) = (turn.now(), self.config.region);
        let due = |served: &&mut Served| served.gateway.is_some() && now >= served.placed_until;
        let due = self.entities.values_mut().filter(due);
        for (member, served) in due.filter_map(|served| Some((served.character()?, served))).take(TOLD) {
            served.placed_until = now + limits::PRESENCE_PERIOD;
            let at = served.position;
            turn.cache(cache::Submission::Place { region, member, at }, limits::CACHE_PATIENCE);
        }
    }

    /// A player has left its gateway: it is present no longer.
    pub(super) fn leave_presence(&self, member: CharacterId, turn: &mut Turn<'_, Submission>) {
        let key = Key::Presence { region: self.config.region, member };
        turn.cache(cache::Submission::Delete(key), limits::CACHE_PATIENCE);
    }
}
