//! A submission as a call of its stored function, and the function's answer as a value: both JSON, in the form that the types
//! of the door have by themselves.

use sqlx::{Postgres, postgres::PgArguments, query::Query};
use worldline_proto::EntityId;
use worldline_system::{
    Outcome, Refusal,
    doors::ledger::{Answer, Ask, Submission},
    limits::{BATCH_CHECKPOINTS, BATCH_OPERATIONS, CLAIM_ENTITIES, ROSTER_PAGE},
    outcome::End,
};

const LOGIN: &str = "select worldline.login($1, $2::text::numeric)::text";
const CLAIM: &str = "select worldline.claim($1, $2::text::jsonb)::text";
const COMMIT: &str = "select worldline.commit($1::text::jsonb)::text";
const ROSTER: &str = "select worldline.roster($1, $2)::text";

/// A call, ready to be sent.
pub(super) enum Request {
    Login { character: String, nonce: String },
    Claim { lease: String, entities: String },
    Commit { batch: String },
    Roster { after: Option<i64>, page: i32 },
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
            Submission::Login { character, nonce } => {
                Self::Login { character: character.to_string(), nonce: nonce.0.to_string() }
            }
            Submission::Claim { lease, entities } => {
                fits(entities.len() <= CLAIM_ENTITIES)?;
                Self::Claim { lease: lease.to_string(), entities: written(serde_json::to_string(entities))? }
            }
            Submission::Commit(batch) => {
                fits(batch.operations.len() <= BATCH_OPERATIONS && batch.checkpoints.len() <= BATCH_CHECKPOINTS)?;
                Self::Commit { batch: written(serde_json::to_string(batch))? }
            }
            &Submission::Roster { after, limit } => {
                fits((1..=ROSTER_PAGE).contains(&limit))?;
                Self::Roster { after: after.map(row_id), page: i32::from(limit) }
            }
        })
    }

    /// The statement with its arguments.
    pub fn query(&self) -> Query<'_, Postgres, PgArguments> {
        match self {
            Self::Login { character, nonce } => sqlx::query(LOGIN).bind(character).bind(nonce),
            Self::Claim { lease, entities } => sqlx::query(CLAIM).bind(lease).bind(entities),
            Self::Commit { batch } => sqlx::query(COMMIT).bind(batch),
            Self::Roster { after, page } => sqlx::query(ROSTER).bind(after).bind(page),
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
        Ask::Claim => Answer::Claimed(read(given)),
        Ask::Commit => Answer::Committed(read(given)),
        Ask::Roster => Answer::Roster(read(given)),
    }
}
