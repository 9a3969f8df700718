//! Revoking the tokens of a character: what `worldlined revoke` does.
//!
//! From when on tokens count is reckoned by the ledger's clock, so that an operator's own, wrong by years, revokes nothing that
//! it should not. The same clock bounds it: nothing takes a revocation back, so one of tokens that nobody can have yet would lock
//! a player out until then, or for good. A call whose outcome is unknown is made again with the same moment, which changes nothing
//! where it has happened.
//!
//! Deliberately absent: a bound in the ledger itself, whose function takes every moment.

use super::{
    Boxed, Problem,
    request::{self, Request},
    servers::Servers,
    session::Session,
};
use crate::clock;
use tokio::time::{sleep, timeout};
use worldline_proto::{CharacterId, token};
use worldline_system::{
    Outcome, Refusal,
    doors::ledger::{Answer, Ask, Revoked, Submission},
    outcome::End,
    time::Duration,
};

/// How often the ledger is asked at least before its answer is given up: for about a minute, with its patience.
const ATTEMPTS: u32 = 6;
/// How long one answer may take: a commit may wait for its standby.
const PATIENCE: Duration = Duration::from_secs(8);
/// Between two attempts.
const PAUSE: Duration = Duration::from_secs(1);

/// Why nothing can be said to be revoked.
#[derive(Debug, thiserror::Error)]
pub enum Unrevoked {
    /// Nothing was sent.
    #[error("nothing is revoked: {0}")]
    Problem(Problem),
    /// There is no such character.
    #[error("nothing is revoked: the ledger knows no {0}")]
    Nobody(CharacterId),
    /// The moment lies ahead of the ledger's clock by more than clocks may be apart.
    #[error(
        "nothing is revoked: nobody has a token of later than {latest_unix_ms} ms since 1970, by the ledger's clock"
    )]
    Ahead {
        /// The latest moment that would have been taken, in milliseconds since 1970.
        latest_unix_ms: u64,
    },
    /// The ledger says no.
    #[error("nothing is revoked: the ledger refuses it ({0})")]
    Refused(Refusal),
    /// It has been sent, and nobody has answered.
    #[error(
        "it is not known whether the tokens of {0} are revoked: the ledger has not answered. To run the same again is harmless"
    )]
    Unknown(CharacterId),
}

/// Revokes the tokens of a character that were issued before `valid_from_unix_ms`; before now, by the ledger's clock, and all that
/// clocks may be apart, where none is given. That is also the latest moment that is taken: tokens of later are not issued yet. Ends
/// its session. A ledger that cannot be reached is tried again for as long as `wait`.
#[must_use]
pub fn revoke(
    url: &str,
    character: CharacterId,
    valid_from_unix_ms: Option<u64>,
    wait: Duration,
) -> Boxed<'_, Result<Revoked, Unrevoked>> {
    Box::pin(async move {
        let servers = Servers::new(url).map_err(Unrevoked::Problem)?.named("worldlined revoke", usize::MAX);
        let (mut agreed, mut sent) = (None, false);
        let until = clock::now() + wait;
        let mut last = Unrevoked::Unknown(character);
        for attempt in 0_u32.. {
            if sent && attempt >= ATTEMPTS && clock::now() >= until {
                break;
            }
            if attempt > 0 {
                sleep(clock::span(PAUSE)).await;
            }
            let (mut session, latest_unix_ms) = match begun(&servers).await {
                Ok(begun) => begun,
                Err(problem) if !sent && (clock::now() >= until || !passes(&problem)) => {
                    return Err(Unrevoked::Problem(problem));
                }
                // Whoever has sent something keeps on until the ledger says what came of it.
                Err(_) => continue,
            };
            // What has been sent is sent again as it was, whatever the clock of another server shows.
            let valid_from_unix_ms = *agreed.get_or_insert(valid_from_unix_ms.unwrap_or(latest_unix_ms));
            if !sent && valid_from_unix_ms > latest_unix_ms {
                return Err(Unrevoked::Ahead { latest_unix_ms });
            }
            let submission = Submission::Revoke { character, valid_from_unix_ms };
            let request = Request::new(&submission).map_err(Unrevoked::Refused)?;
            let sent_before = std::mem::replace(&mut sent, true);
            let given = match timeout(clock::span(PATIENCE), session.call(&request)).await {
                Ok(Ok(given)) => given,
                // It is certain that this attempt did nothing; one before may have.
                Ok(Err(End::Refused(refusal))) if !sent_before => {
                    last = Unrevoked::Refused(refusal);
                    continue;
                }
                Ok(Err(End::Refused(_) | End::Unknown)) | Err(_) => {
                    last = Unrevoked::Unknown(character);
                    continue;
                }
            };
            session.close().await;
            match request::answer(Ask::Revoke, &given) {
                Answer::Revoked(Outcome::Done(revoked)) => return Ok(revoked),
                Answer::Revoked(Outcome::Refused(Refusal::Malformed)) => return Err(Unrevoked::Nobody(character)),
                _ => last = Unrevoked::Unknown(character),
            }
        }
        Err(last)
    })
}

/// Whether waiting may end it.
const fn passes(problem: &Problem) -> bool {
    use Problem::{Busy, Foreign, ReadOnly, Silent, Unreachable};
    matches!(problem, Busy(..) | Foreign(..) | ReadOnly(..) | Silent(..) | Unreachable(..))
}

/// A session at the server that takes writes, and the latest moment that any token can have been issued at: now by that server's
/// clock, and all that clocks may be apart.
async fn begun(servers: &Servers) -> Result<(Session, u64), Problem> {
    let (server, looked_at) = servers.primary().await?;
    drop(looked_at);
    let mut session = Session::open(&server).await?;
    let latest_unix_ms = session.unix_ms(&server).await? + token::SKEW_MS + 1;
    Ok((session, latest_unix_ms))
}
