//! S4: a revoked token stays revoked.
//!
//! The ledger is believed about what was revoked, and about the order of sessions and revocations: their generations. When a
//! client's token was issued, the client says, since a gateway may tell the ledger what it likes.

use super::{Check, Checker, Facts, Invariant, Setup, View, breach, table::Table};
use worldline_proto::{CharacterId, Generation, Incarnation, NodeId};
use worldline_system::{
    history::{Acceptance, Entry, Note, What},
    limits,
    time::{Duration, Instant},
};

/// How long after a revocation something of the session that it has ended may still be seen: for as long as a gateway may go on
/// without an answer of the ledger, and what was under way then.
const BOUND: Duration = Duration::from_secs(limits::SESSION_TRUST.as_nanos() / 1_000_000_000 + 10);

/// A session at a gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Open {
    generation: Generation,
    gateway: (NodeId, Incarnation),
}

/// What is known of one character.
#[derive(Clone, Debug, Default)]
struct Known {
    character: Option<CharacterId>,
    /// The last revocation: from when on tokens count, the generation that it raised, and when it was committed.
    revoked: Option<(u64, Generation, Instant)>,
    /// The session that a client has joined last, and when its token was issued.
    joined: Option<(Generation, u64)>,
    open: Vec<Open>,
}

impl Known {
    /// Whether a session has been ended by a revocation for longer than it may take to notice.
    fn is_over(&self, generation: Generation, at: Instant) -> bool {
        self.revoked.is_some_and(|(_, raised, since)| generation <= raised && at.since(since) > BOUND)
    }

    /// The session that was joined last, if it was begun behind the revocation with a token of before it.
    fn admitted(&self) -> Option<(Generation, u64)> {
        let (valid_from, raised, _) = self.revoked?;
        self.joined.filter(|(generation, issued)| *generation > raised && *issued < valid_from)
    }
}

/// S4. Follows revocations, the sessions behind them, and what sessions of before still do.
#[derive(Clone, Debug)]
pub struct StaysRevoked {
    characters: Table<CharacterId, Known>,
    /// The clients that were told to stay away with their token.
    away: Table<NodeId, Option<Incarnation>>,
    seen: bool,
}

impl StaysRevoked {
    fn on_note(&mut self, note: &Note, entry: &Entry) -> Check {
        let gateway = (entry.node, entry.incarnation);
        match note {
            Note::Joined { character, generation, issued_unix_ms } => {
                if self.away.get(entry.node).copied().flatten() == Some(entry.incarnation) {
                    breach!("{character} was turned away for good, and has come back with the same token");
                }
                let known = self.characters.slot(*character);
                known.joined = Some((*generation, *issued_unix_ms));
                if let Some((generation, issued)) = known.admitted() {
                    breach!(
                        "{character} plays session {generation} with a token issued at {issued} ms, which is revoked"
                    );
                }
                if known.is_over(*generation, entry.at) {
                    breach!("{character} was welcomed to session {generation}, which a revocation had long ended");
                }
            }
            Note::TurnedAway { .. } => *self.away.slot(entry.node) = Some(entry.incarnation),
            Note::SessionOpened { character, generation } => {
                let known = self.characters.slot(*character);
                known.character = Some(*character);
                known.open.push(Open { generation: *generation, gateway });
                if known.is_over(*generation, entry.at) {
                    breach!("session {generation} of {character} was opened, which a revocation had long ended");
                }
            }
            Note::SessionClosed { character, generation } => {
                let closed = Open { generation: *generation, gateway };
                self.characters.slot(*character).open.retain(|open| *open != closed);
            }
            Note::Moved { authority, generation, .. } => {
                let Some(character) = CharacterId::from_entity(authority.entity) else { return Ok(()) };
                if self.characters.get(character).is_some_and(|known| known.is_over(*generation, entry.at)) {
                    breach!("{character} was moved by session {generation}, which a revocation had long ended");
                }
            }
            _ => {}
        }
        Ok(())
    }
}

impl Checker for StaysRevoked {
    const INVARIANT: Invariant = Invariant::S4;

    fn new(_: &Setup) -> Self {
        Self { characters: Table::default(), away: Table::default(), seen: false }
    }

    fn on_entry(&mut self, entry: &Entry, _: &Facts<'_>) -> Check {
        match &entry.what {
            What::Accepted(Acceptance::TokensRevoked { character, valid_from_unix_ms, generation }) => {
                self.seen = true;
                let known = self.characters.slot(*character);
                if let Some((before, ..)) = known.revoked.filter(|(before, ..)| valid_from_unix_ms <= before) {
                    breach!(
                        "tokens of {character} count from {valid_from_unix_ms} ms on, and counted only from {before}"
                    );
                }
                known.revoked = Some((*valid_from_unix_ms, *generation, entry.at));
                if let Some((generation, issued)) = known.admitted() {
                    breach!(
                        "{character} plays session {generation} with a token issued at {issued} ms, which is revoked"
                    );
                }
            }
            What::Accepted(Acceptance::LoggedIn { character, generation, issued_unix_ms }) => {
                let revoked = self.characters.get(*character).and_then(|known| known.revoked);
                if let Some((valid_from, ..)) = revoked.filter(|(valid_from, ..)| issued_unix_ms < valid_from) {
                    breach!(
                        "the ledger began session {generation} of {character} with a token issued at {issued_unix_ms} ms, and \
                         its tokens count from {valid_from} ms on"
                    );
                }
            }
            What::Accepted(Acceptance::OperationApplied { operation, .. }) => {
                let revoked = self.characters.get(operation.character).and_then(|known| known.revoked);
                if let Some((_, raised, _)) = revoked.filter(|(_, raised, _)| operation.generation <= *raised) {
                    breach!(
                        "operation {} of {} was applied for session {}, and a revocation had ended it at {raised}",
                        operation.number,
                        operation.character,
                        operation.generation
                    );
                }
            }
            What::Noted(note) => return self.on_note(note, entry),
            What::Started | What::Crashed | What::Stopped => {
                for known in self.characters.values_mut() {
                    known.open.retain(|open| open.gateway.0 != entry.node);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn at_end(&mut self, view: &View<'_>) -> Check {
        for known in self.characters.values() {
            let Some(character) = known.character else { continue };
            if let Some(open) = known.open.iter().find(|open| known.is_over(open.generation, view.at)) {
                breach!(
                    "session {} of {character} is still open at {}, and was revoked",
                    open.generation,
                    open.gateway.0
                );
            }
        }
        Ok(())
    }

    fn not_checked(&self) -> Option<&'static str> {
        (!self.seen).then_some("no token was revoked")
    }
}

#[cfg(test)]
mod tests {
    use super::{super::story::*, *};

    const LATE: u64 = 100_000;

    fn revoked(valid_from_unix_ms: u64, generation: u64) -> What {
        let generation = Generation(generation);
        What::Accepted(Acceptance::TokensRevoked { character: hero(), valid_from_unix_ms, generation })
    }

    fn begun(generation: u64, issued_unix_ms: u64) -> What {
        let generation = Generation(generation);
        What::Accepted(Acceptance::LoggedIn { character: hero(), generation, issued_unix_ms })
    }

    fn joined(generation: u64, issued_unix_ms: u64) -> What {
        What::Noted(Note::Joined { character: hero(), generation: Generation(generation), issued_unix_ms })
    }

    fn session(opens: bool, generation: u64) -> What {
        let (character, generation) = (hero(), Generation(generation));
        What::Noted(match opens {
            true => Note::SessionOpened { character, generation },
            false => Note::SessionClosed { character, generation },
        })
    }

    /// A token of 10 ms plays, is revoked, and one of 70 ms plays.
    fn good() -> Vec<(u64, u32, What)> {
        let own = authority(hero(), 1, 1);
        vec![
            (0, LEDGER, begun(1, 10)),
            (1, 5, session(true, 1)),
            (2, 9, joined(1, 10)),
            (3, LEDGER, applied(1, attack(1, 1, 1))),
            (4, LEDGER, revoked(50, 2)),
            // Its gateway has not heard of it yet.
            (5, 1, moved(own, 1, 1, east(0), east(1))),
            (6, 5, session(false, 1)),
            (7, 9, What::Noted(Note::TurnedAway { character: hero() })),
            (8, LEDGER, begun(3, 70)),
            (9, 5, session(true, 3)),
            (10, 8, joined(3, 70)),
            (11, LEDGER, applied(2, attack(2, 3, 2))),
            (LATE, 1, moved(own, 3, 1, east(1), east(2))),
        ]
    }

    #[test]
    fn s4_a_revoked_token_begins_nothing_and_what_it_had_begun_ends() {
        assert_eq!(breaks_at::<StaysRevoked>(&tell(good())), None);
        let own = authority(hero(), 1, 1);
        for (what, node, why) in [
            (begun(4, 49), LEDGER, "a session of a revoked token"),
            (joined(4, 49), 8, "a client's token is older than its gateway has said"),
            (joined(4, 70), 9, "a client that was turned away for good"),
            (applied(3, attack(3, 2, 3)), LEDGER, "the generation of the revocation is nobody's"),
            (applied(3, attack(3, 1, 3)), LEDGER, "an operation of the session that was ended"),
            (moved(own, 1, 2, east(2), east(3)), 1, "a movement of it, long after"),
            (session(true, 1), 6, "a gateway opens it, long after"),
            (revoked(50, 5), LEDGER, "the moment does not rise"),
        ] {
            let mut bad = good();
            bad.push((LATE + 1, node, what));
            assert_eq!(breaks_at::<StaysRevoked>(&tell(bad)), Some(13), "{why}");
        }
        let before = [(0, LEDGER, begun(1, 10)), (1, 9, joined(3, 10)), (2, LEDGER, revoked(50, 2))];
        assert_eq!(breaks_at::<StaysRevoked>(&tell(before)), Some(2), "the collector may tell of the client first");
    }

    #[test]
    fn s4_a_session_that_nobody_ends_is_found_at_the_end() {
        let ends = |more: Option<(u64, u32, What)>| {
            let mut checker = StaysRevoked::new(&setup());
            let lines = [(0, LEDGER, begun(1, 10)), (1, 5, session(true, 1)), (2, LEDGER, revoked(50, 2))];
            for entry in tell(lines.into_iter().chain(more)) {
                assert_eq!(checker.on_entry(&entry, &Facts::default()), Ok(()));
            }
            checker.at_end(&view(LATE)).is_ok()
        };
        assert!(!ends(None));
        assert!(ends(Some((3, 5, session(false, 1)))));
        assert!(ends(Some((3, 5, What::Crashed))), "a dead gateway serves nobody");
        assert_eq!(StaysRevoked::new(&setup()).not_checked(), Some("no token was revoked"));
    }
}
