//! What the ledger has accepted and how it stands, for those who check it.

use super::{
    Boxed, Problem,
    check::{self, Server},
    servers::Servers,
};
use serde::Deserialize;
use sqlx::{PgConnection, Row as _};
use worldline_proto::{CharacterId, EntityId, OpNumber};
use worldline_system::{
    doors::ledger::{FactRow, StoredResult},
    history::{Acceptance, Row},
    time::UnixTime,
};

/// The tables as a checker reads them, all of one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tables {
    /// Every entity's row, in id order.
    pub rows: Vec<Row>,
    /// The last operation of each character that has a result, in id order.
    pub applied_through: Vec<(CharacterId, OpNumber)>,
    /// The results that are kept, in the order of (character, number).
    pub results: Vec<(CharacterId, StoredResult)>,
    /// The outbox, in the order of (aggregate, sequence).
    pub facts: Vec<FactRow>,
    /// Minor units that were minted.
    pub minted: i128,
}

/// What the ledger has accepted, each with the wall clock's time of its commit, in the order of the commits.
///
/// The time is the server's own (`track_commit_timestamp = on`), or else that of the function that wrote it. Entries about
/// one entity come in the order of their commits in any case, as long as the server's clock is not set back.
#[must_use]
pub fn journal(url: &str) -> Boxed<'_, Result<Vec<(UnixTime, Acceptance)>, Problem>> {
    Box::pin(async move {
        let (server, mut connection) = reader(url).await?;
        // An operation is told with what it really wrote to the outbox, and with all of it.
        let select = "select (extract(epoch from time) * 1000000)::bigint, accepted from ( \
                      select id, jsonb_build_object(kind, case when kind = 'OperationApplied' then what || jsonb_build_object( \
                      'fact', case when o.sequence is not null then worldline.fact_shown(o) end) else what end)::text \
                      as accepted, coalesce( \
                      case when current_setting('track_commit_timestamp') = 'on' then pg_xact_commit_timestamp(j.xmin) end, at \
                      ) as time, o.aggregate, o.sequence \
                      from worldline.journal j left join worldline.outbox o on kind = 'OperationApplied' \
                      and what #>> '{operation,character}' = worldline.name_of(o.character) \
                      and (what #> '{operation,number}')::numeric = o.number::numeric) entries \
                      order by time, id, aggregate, sequence";
        let rows = sqlx::query(select).fetch_all(&mut connection).await.map_err(|error| server.said(&error))?;
        rows.iter()
            .map(|row| {
                let micros: i64 = row.get(0);
                let nanos = u64::try_from(micros).unwrap_or(0).saturating_mul(1_000);
                Ok((UnixTime::from_nanos(nanos), read(&server, row.get(1))?))
            })
            .collect()
    })
}

/// The tables as they stand.
#[must_use]
pub fn tables(url: &str) -> Boxed<'_, Result<Tables, Problem>> {
    Box::pin(async move {
        let (server, mut connection) = reader(url).await?;
        // One statement: one moment.
        let select = "select \
            (select coalesce(jsonb_agg(worldline.shown(e) order by id), '[]') from worldline.entities e)::text, \
            (select coalesce(jsonb_agg(jsonb_build_array(name, applied_through) order by id), '[]') \
             from worldline.entities where id >> 56 = 1)::text, \
            (select coalesce(jsonb_agg(jsonb_build_array(name, jsonb_build_object( \
             'number', number, 'digest', digest, 'result', result)) order by id, number), '[]') \
             from worldline.results join worldline.entities on id = entity)::text, \
            (select coalesce(jsonb_agg(worldline.fact_shown(o) order by aggregate, sequence), '[]') \
             from worldline.outbox o)::text, \
            (select coalesce(sum(minted), 0) from worldline.entities)::text";
        let row = sqlx::query(select).fetch_one(&mut connection).await.map_err(|error| server.said(&error))?;
        let minted: String = row.get(4);
        Ok(Tables {
            rows: read(&server, row.get(0))?,
            applied_through: read(&server, row.get(1))?,
            results: read(&server, row.get(2))?,
            facts: read(&server, row.get(3))?,
            minted: minted.parse().unwrap_or_default(),
        })
    })
}

/// The row of one entity as it stands; `None` for one that does not exist.
#[must_use]
pub fn row(url: &str, entity: EntityId) -> Boxed<'_, Result<Option<Row>, Problem>> {
    Box::pin(async move {
        let (server, mut connection) = reader(url).await?;
        let select = "select worldline.shown(e)::text from worldline.entities e where name = $1";
        let asked = sqlx::query(select).bind(entity.to_string()).fetch_optional(&mut connection);
        let found = asked.await.map_err(|error| server.said(&error))?;
        found.map(|row| read(&server, row.get(0))).transpose()
    })
}

/// A connection for questions that may take their time.
async fn reader(url: &str) -> Result<(Server, PgConnection), Problem> {
    let (server, mut connection) = Servers::new(url)?.named("worldline checker", usize::MAX).primary().await?;
    check::schema(&server, &mut connection).await?;
    server.within(sqlx::raw_sql("set statement_timeout = 0").execute(&mut connection)).await?;
    Ok((server, connection))
}

fn read<'de, T: Deserialize<'de>>(server: &Server, json: &'de str) -> Result<T, Problem> {
    serde_json::from_str(json).map_err(|error| {
        Problem::SchemaForeign(server.place.clone(), format!("a row of it does not read: {error}: {json:.200}"))
    })
}
