//! Who gets in: a token is read once, at the hello, and the ledger decides.
//!
//! * The cache is asked first, for two hints. `revoked:{token}` says no early, so that who comes again and again with a
//!   revoked token does not reach the ledger; that nothing stands there proves nothing. `session:{character}` says who served
//!   the character last, which saves asking the directory where it is still so.
//! * The wall clock is read here and nowhere else. A session's end is counted from then on by the monotonic clock, so that a
//!   step of the wall clock ends no session and lengthens none.
//! * A hello that is not admitted yet ends only another one that is not: who bears a revoked token must not end the session
//!   of who bears a good one.
//!
//! Deliberately absent: a decision by the cache that a token is good.

use super::{
    Gateway, Submission, Timer,
    session::{Session, Stage},
};
use crate::{
    Outcome, Turn,
    digest::digest,
    doors::{
        cache::{self, Answer, Fields, HashKey, RevokedKey},
        directory::Ownership,
        network::CloseReason,
    },
    limits, reached,
    time::Duration,
    wire::PROTOCOL,
};
use alloc::{
    borrow::ToOwned,
    string::{String, ToString},
};
use worldline_proto::{
    ConnectionId, Digest, Epoch, LeaseId, NodeId, Nonce, OpId,
    client::{DeniedReason, Hello},
    token::{BadToken, SKEW_MS},
};

/// How long the cache keeps the early no: by then every gateway has heard of it, and the ledger says it again.
const REVOKED_TTL: Duration = Duration::from_secs(24 * 3_600);
/// Session data is written again when it is so old, so that it does not run out under a session that goes on.
const SESSION_REWRITTEN: Duration = Duration::from_secs(limits::SESSION_TTL.as_nanos() / 2_000_000_000);

const OWNER: &str = "owner";
const OWNER_LEASE: &str = "owner_lease";
const OWNER_EPOCH: &str = "owner_epoch";

/// What the cache is asked about a hello.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hint {
    /// Whether its token is known to be revoked.
    Revoked,
    /// Who served its character last.
    Owner,
}

/// What a client is told of a token that is not accepted.
const fn denied(bad: BadToken) -> DeniedReason {
    match bad {
        BadToken::Malformed | BadToken::Forged => DeniedReason::TokenForged,
        BadToken::OtherVersion(_) => DeniedReason::TokenVersion,
        BadToken::Expired => DeniedReason::TokenExpired,
        BadToken::NotYetValid => DeniedReason::TokenNotYetValid,
    }
}

impl Gateway {
    pub(super) fn on_hello(&mut self, connection: ConnectionId, hello: &Hello, turn: &mut Turn<'_, Submission>) {
        if self.greeting.remove(&connection).is_none() {
            return self.close(connection, CloseReason::ProtocolError, turn);
        }
        turn.disarm(Timer::Greeting(connection));
        if hello.protocol != PROTOCOL {
            return self.deny(connection, DeniedReason::Protocol, turn);
        }
        self.look_at_the_wall_clock(turn);
        let now_unix_ms = turn.unix_now().as_nanos() / 1_000_000;
        let claims = match self.config.key.verify(&hello.token, now_unix_ms) {
            Ok(claims) => claims,
            Err(bad) => {
                reached!(turn, "gateway.token-refused");
                return self.deny(connection, denied(bad), turn);
            }
        };
        let character = claims.character;
        if let Some(older) = self.arriving.insert(character, connection) {
            self.deny(older, DeniedReason::Superseded, turn);
            self.arriving.insert(character, connection);
        }
        let nonce = Nonce(turn.entropy().bits());
        let session = Session::new(&claims, digest(&hello.token), nonce, now_unix_ms, turn.now());
        let token = session.token;
        self.sessions.insert(connection, session);
        self.ask_cache(cache::Submission::Get(RevokedKey(token)), connection, Hint::Revoked, turn);
        self.ask_cache(cache::Submission::Read(HashKey::Session(character)), connection, Hint::Owner, turn);
    }

    /// Sees whether the wall clock has stepped since the last token was checked, by more than clocks may differ. What a step
    /// does is that tokens are taken for expired, or not valid yet, which clocks elsewhere do not say of them.
    fn look_at_the_wall_clock(&mut self, turn: &mut Turn<'_, Submission>) {
        let started = turn.unix_now().as_nanos().wrapping_sub(turn.now().as_nanos());
        let before = self.wall_clock_started.replace(started);
        if before.is_some_and(|before| before.abs_diff(started) > SKEW_MS * 1_000_000) {
            reached!(turn, "gateway.wall-clock-stepped");
        }
    }

    fn ask_cache(
        &mut self,
        submission: cache::Submission,
        connection: ConnectionId,
        hint: Hint,
        turn: &mut Turn<'_, Submission>,
    ) {
        let op = turn.cache(submission, limits::CACHE_PATIENCE);
        self.hints.insert(op, (connection, hint));
    }

    /// Takes an answer of the cache. That to a write tells nothing that anybody waits for.
    pub(super) fn on_cache(&mut self, op: OpId, answer: &Answer, turn: &mut Turn<'_, Submission>) {
        let Some((connection, hint)) = self.hints.remove(&op) else { return };
        let Some(session) = self.sessions.get_mut(&connection) else { return };
        let Stage::Asking { hints } = session.stage else { return };
        match (hint, answer) {
            (Hint::Revoked, Answer::Got(Outcome::Done(Some(_)))) => {
                reached!(turn, "gateway.token-revoked-early");
                return self.deny(connection, DeniedReason::TokenRevoked, turn);
            }
            (Hint::Owner, Answer::Read(Outcome::Done(Some(hash)))) => {
                let entity = session.character.entity();
                // Only where a link stands: to find out that nobody is there would take longer than to ask.
                if let Some((owner, node)) =
                    last_owner(&hash.fields).filter(|(_, node)| self.links.get(*node).is_some())
                {
                    reached!(turn, "gateway.owner-from-cache");
                    self.routes.guess(entity, owner, node);
                }
            }
            _ => {}
        }
        let Some(session) = self.sessions.get_mut(&connection) else { return };
        session.stage = if hints > 1 { Stage::Asking { hints: hints - 1 } } else { Stage::LoggingIn };
        self.go_on(connection, turn);
    }

    /// The ledger has said that a token is revoked: the cache is told, so that it says so early.
    pub(super) fn spread_revocation(&self, token: Digest, turn: &mut Turn<'_, Submission>) {
        let value = (turn.unix_now().as_nanos() / 1_000_000).to_string();
        let set = cache::Submission::Set { key: RevokedKey(token), value, ttl: REVOKED_TTL };
        turn.cache(set, limits::CACHE_PATIENCE);
    }

    /// Writes where a session is played: when it is taken by an owner, and again before the entry runs out.
    pub(super) fn write_session(&mut self, connection: ConnectionId, turn: &mut Turn<'_, Submission>) {
        let Some(session) = self.sessions.get_mut(&connection) else { return };
        let Some(owner) = self.routes.owner(session.character.entity()) else { return };
        let Stage::Playing { node, .. } = session.stage else { return };
        session.rewrite_due = turn.now() + SESSION_REWRITTEN;
        let told = [
            ("gateway", turn.node().to_string()),
            ("region", self.config.region.0.to_string()),
            ("generation", session.generation.0.to_string()),
            ("since_unix_ms", session.since_unix_ms.to_string()),
            (OWNER, node.0.to_string()),
            (OWNER_LEASE, owner.lease.get().to_string()),
            (OWNER_EPOCH, owner.epoch.0.to_string()),
        ];
        let fields = told.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        let key = HashKey::Session(session.character);
        turn.cache(cache::Submission::Write { key, fields }, limits::CACHE_PATIENCE);
    }
}

/// Who served a character last, as this version writes it. Anything else is a miss.
fn last_owner(fields: &Fields) -> Option<(Ownership, NodeId)> {
    let number = |name| fields.get(name).map(String::as_str)?.parse::<u64>().ok();
    let node = NodeId(u32::try_from(number(OWNER)?).ok()?);
    let (lease, epoch) = (LeaseId::from_bits(number(OWNER_LEASE)?), Epoch(number(OWNER_EPOCH)?));
    Some((Ownership { lease, epoch, nonce: Nonce(0) }, node))
}
