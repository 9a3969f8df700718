//! The stored functions of sessions: `login`, `revoke`, `standing`.
//!
//! Whether a token counts is looked at before the nonce of the last login: a login that is submitted again after a revocation
//! must not find the session that it had begun.

use super::{Call, Database, Slot};
use worldline_proto::{CharacterId, Nonce};
use worldline_system::{
    Outcome, Refusal,
    doors::ledger::{Login, Revoked, Standing},
    history::Acceptance,
    limits::STANDING_CHARACTERS,
};

impl Call<'_> {
    pub(super) fn login(&mut self, character: CharacterId, nonce: Nonce, issued_unix_ms: u64) -> Outcome<Login> {
        let Some(slot) = self.database.slot(character.entity()) else { return Outcome::Refused(Refusal::Malformed) };
        let before = self.database.at(slot).columns;
        if issued_unix_ms < before.tokens_valid_from_unix_ms {
            return Outcome::Refused(Refusal::TokenRevoked);
        }
        let repeated = before.login == Some(nonce);
        let generation = if repeated { before.generation } else { before.generation.next() };
        if !repeated {
            self.database.write(slot, &mut self.undo, |columns| {
                (columns.generation, columns.login) = (generation, Some(nonce));
            });
            self.acceptances.push(Acceptance::LoggedIn { character, generation, issued_unix_ms });
        }
        Outcome::Done(Login { generation, applied_through: before.applied_through })
    }

    pub(super) fn revoke(&mut self, character: CharacterId, valid_from_unix_ms: u64) -> Outcome<Revoked> {
        let Some(slot) = self.database.slot(character.entity()) else { return Outcome::Refused(Refusal::Malformed) };
        let before = self.database.at(slot).columns;
        let news = before.tokens_valid_from_unix_ms < valid_from_unix_ms;
        if news {
            let generation = before.generation.next();
            self.database.write(slot, &mut self.undo, |columns| {
                columns.tokens_valid_from_unix_ms = valid_from_unix_ms;
                (columns.generation, columns.login) = (generation, None);
            });
            self.acceptances.push(Acceptance::TokensRevoked { character, valid_from_unix_ms, generation });
        }
        Outcome::Done(Revoked { standing: stands(self.database, slot, character), news })
    }

    pub(super) fn standing(&self, characters: &[CharacterId]) -> Outcome<Vec<Standing>> {
        if characters.len() > STANDING_CHARACTERS {
            return Outcome::Refused(Refusal::Malformed);
        }
        let mut found: Vec<_> = characters
            .iter()
            .filter_map(|&character| Some((self.database.slot(character.entity())?, character)))
            .collect();
        found.sort_unstable();
        found.dedup();
        Outcome::Done(found.into_iter().map(|(slot, character)| stands(self.database, slot, character)).collect())
    }
}

fn stands(database: &Database, slot: Slot, character: CharacterId) -> Standing {
    let columns = database.at(slot).columns;
    let (generation, tokens_valid_from_unix_ms) = (columns.generation, columns.tokens_valid_from_unix_ms);
    Standing { character, generation, tokens_valid_from_unix_ms }
}
