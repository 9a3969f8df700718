//! Whether the sessions here still stand: the ledger is asked, as often as [`limits::STANDING_PERIOD`] says, and whenever an
//! owner has said that a newer session exists.
//!
//! A session acts only until [`limits::SESSION_TRUST`] after the last question that the ledger has answered was *sent*, by the
//! monotonic clock. So a session whose token is revoked ends soon while the ledger answers, and within that time whatever
//! fails, also where its player only moves, which no commit would notice. Beyond it a session is suspended and not closed: its
//! gateway does not know better, and when the ledger answers again it either goes on or ends.
//!
//! Deliberately absent: the cache. That it says nothing proves nothing.

use super::{Gateway, Submission, Timer};
use crate::{
    Outcome, Turn,
    doors::ledger::{self, Standing},
    limits, reached,
    time::{Duration, Instant},
};
use alloc::{collections::BTreeMap, vec::Vec};
use worldline_proto::{CharacterId, ConnectionId, OpId, client::DeniedReason};

/// The questions that wait for the ledger.
#[derive(Clone, Debug, Default)]
pub(super) struct Standings {
    asked: BTreeMap<OpId, Asked>,
}

#[derive(Clone, Debug)]
struct Asked {
    sent: Instant,
    /// The session that an owner says has ended; `None` for the regular question about all.
    ended: Option<ConnectionId>,
}

impl Standings {
    pub(super) fn waiting(&self) -> usize {
        self.asked.len()
    }

    fn is_asking(&self) -> bool {
        self.asked.values().any(|asked| asked.ended.is_none())
    }
}

impl Gateway {
    /// The regular question, and the end of what has expired.
    pub(super) fn look_after_sessions(&mut self, turn: &mut Turn<'_, Submission>) {
        // A gateway's own phase, so that not all of them ask at once.
        let jitter = Duration::from_nanos(turn.entropy().below(limits::STANDING_PERIOD.as_nanos() / 8));
        turn.arm_in(Timer::Standing, limits::STANDING_PERIOD - jitter);
        let now = turn.now();
        let expired: Vec<ConnectionId> = self
            .sessions
            .iter()
            .filter(|(_, session)| now >= session.expires)
            .map(|(&connection, _)| connection)
            .collect();
        for connection in expired {
            reached!(turn, "gateway.session-expired");
            self.deny(connection, DeniedReason::TokenExpired, turn);
        }
        let lapsed: Vec<ConnectionId> = self.characters.values().copied().collect();
        for connection in lapsed {
            self.tell_suspension(connection, turn);
            if self.sessions.get(&connection).is_some_and(|session| session.welcomed && now >= session.rewrite_due) {
                self.write_session(connection, turn);
            }
        }
        if self.standings.is_asking() {
            return;
        }
        let characters: Vec<CharacterId> = self.characters.keys().copied().collect();
        for page in characters.chunks(limits::STANDING_CHARACTERS) {
            self.ask_standing(page.to_vec(), None, turn);
        }
    }

    /// An owner has said that a session has ended. Why, the ledger knows: its client is told.
    pub(super) fn end_session(&mut self, connection: ConnectionId, turn: &mut Turn<'_, Submission>) {
        let Some(session) = self.sessions.get_mut(&connection) else { return };
        if !core::mem::replace(&mut session.ending, true) {
            let character = session.character;
            self.ask_standing(Vec::from([character]), Some(connection), turn);
        }
    }

    fn ask_standing(
        &mut self,
        characters: Vec<CharacterId>,
        ended: Option<ConnectionId>,
        turn: &mut Turn<'_, Submission>,
    ) {
        let op = turn.ledger(ledger::Submission::Standing { characters }, limits::LEDGER_PATIENCE);
        self.standings.asked.insert(op, Asked { sent: turn.now(), ended });
    }

    pub(super) fn on_standing(&mut self, op: OpId, outcome: Outcome<Vec<Standing>>, turn: &mut Turn<'_, Submission>) {
        let Some(Asked { sent, ended }) = self.standings.asked.remove(&op) else { return };
        // A question changes nothing: `Unknown` and a refusal alike leave the next one to be asked.
        if let Outcome::Done(standings) = outcome {
            for standing in standings {
                self.take_in_standing(standing, sent, turn);
            }
        }
        // The owner is believed where the ledger does not say why.
        if let Some(connection) = ended.filter(|connection| self.sessions.contains_key(connection)) {
            self.deny(connection, DeniedReason::Superseded, turn);
        }
    }

    fn take_in_standing(&mut self, standing: Standing, sent: Instant, turn: &mut Turn<'_, Submission>) {
        let Some(&connection) = self.characters.get(&standing.character) else { return };
        let Some(session) = self.sessions.get_mut(&connection) else { return };
        let revoked = session.issued_unix_ms < standing.tokens_valid_from_unix_ms;
        if revoked {
            reached!(turn, "gateway.session-revoked");
            let token = session.token;
            self.spread_revocation(token, turn);
            return self.deny(connection, DeniedReason::TokenRevoked, turn);
        }
        if standing.generation > session.generation {
            return self.deny(connection, DeniedReason::Superseded, turn);
        }
        // One that is younger than the answer was begun behind the question.
        if standing.generation == session.generation {
            session.trusted_until = session.trusted_until.max(sent + limits::SESSION_TRUST);
            self.tell_suspension(connection, turn);
        }
    }
}
