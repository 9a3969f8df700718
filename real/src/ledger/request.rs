//! A submission as a call of its stored function, and the function's answer as a value: both JSON, in the form that the types
//! of the door have by themselves.

use sqlx::{Postgres, postgres::PgArguments, query::Query};
use worldline_proto::EntityId;
use worldline_system::{
    Outcome, Refusal,
    doors::ledger::{Answer, Ask, Submission},
    limits::{
        BATCH_CHECKPOINTS, BATCH_FLAGS, BATCH_OPERATIONS, CLAIM_ENTITIES, FACTS_PAGE, ROSTER_PAGE, SNAPSHOT_ENTITIES,
        STANDING_CHARACTERS,
    },
    outcome::End,
};

const LOGIN: &str = "select worldline.login($1, $2::text::numeric, $3::text::numeric)::text";
const REVOKE: &str = "select worldline.revoke($1, $2::text::numeric)::text";
const STANDING: &str = "select worldline.standing($1::text::jsonb)::text";
const CLAIM: &str = "select worldline.claim($1, $2::text::jsonb)::text";
const COMMIT: &str = "select worldline.commit($1::text::jsonb)::text";
const ROSTER: &str = "select worldline.roster($1, $2)::text";
const FACTS: &str = "select worldline.facts_of($1, $2, $3)::text";
const UNPUBLISHED: &str = "select worldline.unpublished($1, $2)::text";
const FLAG: &str = "select worldline.flag($1::text::jsonb)::text";
const SNAPSHOT: &str = "select worldline.snapshot($1::text::jsonb)::text";

/// No fact is older than this, in microseconds: a longer age would be before what the server can reckon with.
const AGE_MAX_US: i64 = 1_000 * 365 * 24 * 3_600 * 1_000_000;

/// A call, ready to be sent.
pub(super) enum Request {
    Login { character: String, nonce: String, issued_unix_ms: String },
    Revoke { character: String, valid_from_unix_ms: String },
    Standing { characters: String },
    Claim { lease: String, entities: String },
    Commit { batch: String },
    Roster { after: Option<i64>, page: i32 },
    Facts { aggregate: String, after: i64, page: i32 },
    Unpublished { older_than_us: i64, page: i32 },
    Flag { facts: String },
    Snapshot { entities: String },
}

impl Request {
    /// The call that a submission is.
    ///
    /// # Errors
    /// It is beyond a limit, and so malformed.
    pub fn new(submission: &Submission) -> Result<Self, Refusal> {
        let written = |json: serde_json::Result<String>| json.map_err(|_| Refusal::Malformed);
        let fits = |fits: bool| if fits { Ok(()) } else { Err(Refusal::Malformed) };
        Ok(match submission {
            Submission::Login { character, nonce, issued_unix_ms } => Self::Login {
                character: character.to_string(),
                nonce: nonce.0.to_string(),
                issued_unix_ms: issued_unix_ms.to_string(),
            },
            Submission::Revoke { character, valid_from_unix_ms } => {
                Self::Revoke { character: character.to_string(), valid_from_unix_ms: valid_from_unix_ms.to_string() }
            }
            Submission::Standing { characters } => {
                fits(characters.len() <= STANDING_CHARACTERS)?;
                Self::Standing { characters: written(serde_json::to_string(characters))? }
            }
            Submission::Claim { lease, entities } => {
                fits(entities.len() <= CLAIM_ENTITIES)?;
                Self::Claim { lease: lease.to_string(), entities: written(serde_json::to_string(entities))? }
            }
            Submission::Commit(batch) => {
                fits(batch.operations.len() <= BATCH_OPERATIONS && batch.checkpoints.len() <= BATCH_CHECKPOINTS)?;
                fits(batch.published.len() <= BATCH_FLAGS)?;
                Self::Commit { batch: written(serde_json::to_string(batch))? }
            }
            &Submission::Roster { after, limit } => {
                fits((1..=ROSTER_PAGE).contains(&limit))?;
                Self::Roster { after: after.map(row_id), page: i32::from(limit) }
            }
            &Submission::Facts { aggregate, after, limit } => {
                fits((1..=FACTS_PAGE).contains(&limit))?;
                let after = i64::try_from(after.0).unwrap_or(i64::MAX);
                Self::Facts { aggregate: aggregate.to_string(), after, page: i32::from(limit) }
            }
            &Submission::Unpublished { older_than, limit } => {
                fits((1..=FACTS_PAGE).contains(&limit))?;
                // Rounded up: the server reckons in microseconds.
                let age = i64::try_from(older_than.as_nanos().div_ceil(1_000)).unwrap_or(AGE_MAX_US);
                Self::Unpublished { older_than_us: age.min(AGE_MAX_US), page: i32::from(limit) }
            }
            Submission::Flag(facts) => {
                fits(facts.len() <= usize::from(FACTS_PAGE))?;
                Self::Flag { facts: written(serde_json::to_string(facts))? }
            }
            Submission::Snapshot { entities } => {
                fits(entities.len() <= SNAPSHOT_ENTITIES)?;
                Self::Snapshot { entities: written(serde_json::to_string(entities))? }
            }
        })
    }

    /// The statement with its arguments.
    pub fn query(&self) -> Query<'_, Postgres, PgArguments> {
        match self {
            Self::Login { character, nonce, issued_unix_ms } => {
                sqlx::query(LOGIN).bind(character).bind(nonce).bind(issued_unix_ms)
            }
            Self::Revoke { character, valid_from_unix_ms } => {
                sqlx::query(REVOKE).bind(character).bind(valid_from_unix_ms)
            }
            Self::Standing { characters } => sqlx::query(STANDING).bind(characters),
            Self::Claim { lease, entities } => sqlx::query(CLAIM).bind(lease).bind(entities),
            Self::Commit { batch } => sqlx::query(COMMIT).bind(batch),
            Self::Roster { after, page } => sqlx::query(ROSTER).bind(after).bind(page),
            Self::Facts { aggregate, after, page } => sqlx::query(FACTS).bind(aggregate).bind(after).bind(page),
            Self::Unpublished { older_than_us, page } => sqlx::query(UNPUBLISHED).bind(older_than_us).bind(page),
            Self::Flag { facts } => sqlx::query(FLAG).bind(facts),
            Self::Snapshot { entities } => sqlx::query(SNAPSHOT).bind(entities),
        }
    }
}

/// An entity's id as its row has it.
pub(super) fn row_id(entity: EntityId) -> i64 {
    i64::try_from(entity.get()).expect("a kind is far below 128")
}

/// The answer that a function has given. One that does not read is `Unknown`: it was committed, and nobody knows what.
pub(super) fn answer(ask: Ask, given: &str) -> Answer {
    fn read<T: serde::de::DeserializeOwned>(given: &str) -> Outcome<T> {
        serde_json::from_str(given).unwrap_or_else(|error| {
            tracing::error!(%error, "the ledger's function answered what does not read");
            End::Unknown.into()
        })
    }
    match ask {
        Ask::Login => Answer::LoggedIn(read(given)),
        Ask::Revoke => Answer::Revoked(read(given)),
        Ask::Standing => Answer::Standing(read(given)),
        Ask::Claim => Answer::Claimed(read(given)),
        Ask::Commit => Answer::Committed(read(given)),
        Ask::Roster => Answer::Roster(read(given)),
        Ask::Facts => Answer::Facts(read(given)),
        Ask::Unpublished => Answer::Unpublished(read(given)),
        Ask::Flag => Answer::Flagged(read(given)),
        Ask::Snapshot => Answer::Snapshot(read(given)),
    }
}
