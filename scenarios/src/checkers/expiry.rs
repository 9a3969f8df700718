//! S8: a session ends with its token, and not before.
//!
//! When a token ends, the scenario says; a gateway may read what it likes.

use super::{Check, Checker, Facts, Invariant, Setup, View, breach, table::Table};
use std::collections::{BTreeMap, BTreeSet};
use worldline_proto::{CharacterId, Generation, Incarnation, NodeId, token::SKEW_MS};
use worldline_system::{
    history::{Acceptance, Entry, Note, What},
    limits,
    time::{Duration, Instant},
};

/// How long after its token's end something of a session may still be seen: as often as a gateway looks, as long as what it had passed on
/// may be under way, and what clocks differ.
const BOUND: Duration = Duration::from_secs(limits::STANDING_PERIOD.as_nanos() / 1_000_000_000 + 5);

/// How long before its token's end a player may be told that it has ended: what clocks differ.
const EARLY: Duration = Duration::from_millis(SKEW_MS);

/// A session at a gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Open {
    generation: Generation,
    gateway: (NodeId, Incarnation),
}

/// S8. Follows the sessions whose tokens end.
#[derive(Clone, Debug)]
pub struct EndsWithItsToken {
    ends: BTreeMap<CharacterId, Instant>,
    open: Table<CharacterId, Vec<Open>>,
    /// Some gateway's wall clock is right: nobody hears everywhere that a token has ended before it has.
    told_truly: bool,
    /// Who is turned away for another reason: an operator has revoked its tokens, or it has misbehaved.
    away: BTreeSet<CharacterId>,
    /// The session of a token that has ended was open.
    seen: bool,
}

impl EndsWithItsToken {
    /// Whether the character's token has ended so long before this that nothing of its session may be seen any more.
    fn is_over(&self, character: CharacterId, at: Instant) -> bool {
        self.ends.get(&character).is_some_and(|end| at > *end + BOUND)
    }

    /// Whether the character's token is good for long yet.
    fn is_good(&self, character: CharacterId, at: Instant) -> bool {
        self.ends.get(&character).is_none_or(|end| at + EARLY < *end)
    }
}

impl Checker for EndsWithItsToken {
    const INVARIANT: Invariant = Invariant::S8;

    fn new(setup: &Setup) -> Self {
        Self {
            ends: setup.tokens_end.clone(),
            open: Table::default(),
            told_truly: setup.a_clock_is_right,
            away: BTreeSet::new(),
            seen: false,
        }
    }

    fn on_entry(&mut self, entry: &Entry, _: &Facts<'_>) -> Check {
        if self.ends.is_empty() {
            return Ok(());
        }
        let gateway = (entry.node, entry.incarnation);
        match &entry.what {
            What::Noted(Note::SessionOpened { character, generation }) => {
                self.open.slot(*character).push(Open { generation: *generation, gateway });
            }
            What::Noted(Note::SessionClosed { character, generation }) => {
                self.seen |= self.ends.get(character).is_some_and(|end| entry.at >= *end);
                let closed = Open { generation: *generation, gateway };
                self.open.slot(*character).retain(|open| *open != closed);
            }
            What::Noted(Note::Moved { authority, generation, .. }) => {
                let Some(character) = CharacterId::from_entity(authority.entity) else { return Ok(()) };
                if self.is_over(character, entry.at) {
                    breach!("{character} was moved by session {generation}, whose token had ended long before");
                }
            }
            What::Noted(Note::SentAway { character, .. })
            | What::Accepted(Acceptance::TokensRevoked { character, .. }) => drop(self.away.insert(*character)),
            What::Noted(Note::TurnedAway { character })
                if self.told_truly && self.is_good(*character, entry.at) && !self.away.contains(character) =>
            {
                breach!("{character} was turned away for good, and its token has not ended");
            }
            What::Started | What::Crashed | What::Stopped => {
                for open in self.open.values_mut() {
                    open.retain(|open| open.gateway.0 != entry.node);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn at_end(&mut self, view: &View<'_>) -> Check {
        if !view.settled {
            return Ok(());
        }
        for &character in self.ends.keys() {
            let Some(open) = self.open.get(character).and_then(|open| open.first()) else { continue };
            if self.is_over(character, view.at) {
                let Open { generation, gateway: (gateway, _) } = open;
                breach!("{gateway} still keeps session {generation} of {character}, whose token ended long before");
            }
        }
        Ok(())
    }

    fn not_checked(&self) -> Option<&'static str> {
        (!self.seen).then_some("no session was open when its token ended")
    }
}

#[cfg(test)]
mod tests {
    use super::{super::story::*, *};

    const GATEWAY: u32 = 7;

    fn opened(generation: u64) -> What {
        What::Noted(Note::SessionOpened { character: hero(), generation: Generation(generation) })
    }

    fn closed(generation: u64) -> What {
        What::Noted(Note::SessionClosed { character: hero(), generation: Generation(generation) })
    }

    /// The hero's token ends after a second; it moves at these milliseconds.
    fn moves(at_ms: u64) -> Option<usize> {
        let own = authority(hero(), 1, 1);
        let lines =
            [(0, GATEWAY, opened(1)), (1_000, GATEWAY, closed(1)), (at_ms, 1, moved(own, 1, 1, east(0), east(1)))];
        breaks_at::<EndsWithItsToken>(&tell(lines))
    }

    #[test]
    fn s8_what_was_under_way_when_the_token_ended_may_come_and_no_more() {
        assert_eq!(moves(1_001), None);
        assert_eq!(moves(11_000), None);
        assert_eq!(moves(11_001), Some(2));
    }

    /// Whether it breaks that the hero, whose token ends at 10 s, is turned away at 1 s behind this.
    fn turned_away_early(before: Option<What>, setup: &Setup) -> bool {
        let setup = Setup { tokens_end: [(hero(), at(10_000))].into(), ..setup.clone() };
        let turned = (1_000, 9, What::Noted(Note::TurnedAway { character: hero() }));
        let mut checker = EndsWithItsToken::new(&setup);
        let lines = tell(before.map(|what| (500, GATEWAY, what)).into_iter().chain([turned]));
        lines.iter().any(|entry| checker.on_entry(entry, &Facts::default()).is_err())
    }

    #[test]
    fn s8_nobody_is_turned_away_before_its_token_ends_but_for_another_reason() {
        let setup = setup();
        assert!(turned_away_early(None, &setup));
        let generation = Generation(1);
        let sent_away = What::Noted(Note::SentAway { character: hero(), generation });
        assert!(!turned_away_early(Some(sent_away), &setup));
        let revoked = Acceptance::TokensRevoked { character: hero(), valid_from_unix_ms: 1, generation };
        assert!(!turned_away_early(Some(What::Accepted(revoked)), &setup));
        assert!(
            !turned_away_early(None, &Setup { a_clock_is_right: false, ..setup }),
            "all gateways say that it has ended"
        );
        let turned = What::Noted(Note::TurnedAway { character: hero() });
        let ended = [(0, GATEWAY, opened(1)), (1_000, GATEWAY, closed(1)), (1_000, 9, turned)];
        assert_eq!(breaks_at::<EndsWithItsToken>(&tell(ended)), None);
    }

    #[test]
    fn s8_no_gateway_keeps_a_session_whose_token_has_ended() {
        let kept = |lines: &[(u64, u32, What)], end_ms| {
            let mut checker = EndsWithItsToken::new(&setup());
            for entry in tell(lines.to_vec()) {
                assert_eq!(checker.on_entry(&entry, &Facts::default()), Ok(()));
            }
            checker.at_end(&View { settled: true, ..view(end_ms) }).is_err()
        };
        assert!(!kept(&[(0, GATEWAY, opened(1))], 11_000));
        assert!(kept(&[(0, GATEWAY, opened(1))], 11_001));
        assert!(kept(&[(0, GATEWAY, opened(1)), (2_000, 8, closed(1))], 20_000), "another gateway closed its own");
        assert!(!kept(&[(0, GATEWAY, opened(1)), (2_000, GATEWAY, closed(1))], 20_000));
        assert!(!kept(&[(0, GATEWAY, opened(1)), (2_000, GATEWAY, What::Crashed)], 20_000));
        assert!(EndsWithItsToken::new(&setup()).not_checked().is_some());
    }
}
