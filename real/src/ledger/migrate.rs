//! Schema and content: what `worldlined migrate` does.

use super::{
    Boxed, Problem,
    check::{self, Server},
    request::row_id,
    servers::Servers,
};
use serde_json::json;
use sqlx::{
    PgConnection, Row as _,
    migrate::{MigrateError, Migrator},
};
use std::collections::BTreeMap;
use worldline_proto::EntityId;
use worldline_system::{doors::directory::RegionId, rules::space::Position};

/// What a migration did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The versions that it applied, in order. Empty: there was nothing to do.
    pub applied: Vec<i64>,
    /// The version that stands now.
    pub version: i64,
}

/// An entity as the world begins with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seed {
    /// Which.
    pub entity: EntityId,
    /// Where it stands.
    pub position: Position,
    /// The region that must own it, wherever it stands.
    pub pinned: Option<RegionId>,
    /// Its hit points.
    pub hit_points: u32,
    /// What is minted for it, in minor units. Not negative.
    pub balance: i64,
}

/// Two migrations of one database do not run at once. Any number will do, as long as it stays the same.
const LOCK: i64 = 0x776f_726c_646c_696e;

/// The migrations that are embedded in this program.
pub(super) fn migrator() -> Migrator {
    let mut migrator = sqlx::migrate!();
    migrator.dangerous_set_table_name("worldline.migrations");
    migrator.create_schema("worldline");
    // Ours is taken before the first look.
    migrator.set_locking(false);
    migrator
}

/// The version that they lead to.
pub(super) fn version() -> i64 {
    migrator().iter().map(|migration| migration.version).max().expect("there is a migration")
}

/// Brings the schema to this program's version. May be repeated, and run by several at once.
///
/// Fails with a [`Problem`] if the server is not usable, or holds a schema of our name that is newer or not ours; such a
/// one is left untouched.
#[must_use]
pub fn migrate(url: &str) -> Boxed<'_, Result<Report, Problem>> {
    Box::pin(async move {
        let (server, mut connection) = primary(url).await?;
        // A migration may take longer than a call; another one that runs is waited for, but not for ever.
        let settings = "set statement_timeout = 0; set lock_timeout = '60s'";
        server.within(sqlx::raw_sql(settings).execute(&mut connection)).await?;
        let lock = sqlx::query("select pg_advisory_lock($1)").bind(LOCK).execute(&mut connection).await;
        lock.map_err(|error| match check::sqlstate(&error) {
            Some((code, _)) if code == "55P03" => {
                Problem::Busy(server.place.clone(), "another migration has been running for a minute".to_owned())
            }
            _ => server.said(&error),
        })?;
        // The lock goes with the connection.
        apply(&server, &mut connection).await
    })
}

async fn primary(url: &str) -> Result<(Server, PgConnection), Problem> {
    Servers::new(url)?.named("worldlined migrate", usize::MAX).primary().await
}

async fn apply(server: &Server, connection: &mut PgConnection) -> Result<Report, Problem> {
    let before = check::find(server, connection).await?.map_or_else(BTreeMap::new, |found| found.applied);
    if let Some(&found) = before.keys().next_back().filter(|&&found| found > version()) {
        return Err(Problem::SchemaNewer { place: server.place.clone(), found, expected: version() });
    }
    migrator().run_direct(None, connection, false).await.map_err(|error| match error {
        MigrateError::Execute(error) => server.said(&error),
        MigrateError::ExecuteMigration(error, number) => {
            let why = check::sqlstate(&error).map_or_else(|| error.to_string(), |(_, message)| message);
            Problem::SchemaForeign(server.place.clone(), format!("migration {number} does not apply: {why}"))
        }
        other => Problem::SchemaForeign(server.place.clone(), other.to_string()),
    })?;
    check::schema(server, connection).await?;
    let applied = migrator().iter().map(|migration| migration.version).filter(|v| !before.contains_key(v)).collect();
    Ok(Report { applied, version: version() })
}

/// Creates the entities that do not exist yet, and says how many those were. The others stay as they are.
#[must_use]
pub fn seed<'a>(url: &'a str, seeds: &'a [Seed]) -> Boxed<'a, Result<usize, Problem>> {
    Box::pin(async move {
        let (server, mut connection) = primary(url).await?;
        check::schema(&server, &mut connection).await?;
        let rows: Vec<_> = seeds.iter().map(row).collect();
        let insert = "insert into worldline.entities (id, born_x_mm, born_y_mm, pinned_region, hit_points, balance, minted) \
                      select id, x_mm, y_mm, pinned, hit_points, balance, balance from jsonb_to_recordset($1::text::jsonb) as \
                      seed (id bigint, x_mm bigint, y_mm bigint, pinned smallint, hit_points bigint, balance bigint) \
                      order by id on conflict do nothing returning id";
        let created = sqlx::query(insert).bind(json!(rows).to_string()).fetch_all(&mut connection).await;
        Ok(created.map_err(|error| server.said(&error))?.iter().filter(|row| row.try_get::<i64, _>(0).is_ok()).count())
    })
}

fn row(seed: &Seed) -> serde_json::Value {
    json!({
        "id": row_id(seed.entity),
        "x_mm": seed.position.x_mm,
        "y_mm": seed.position.y_mm,
        "pinned": seed.pinned.map(|region| region.0),
        "hit_points": seed.hit_points,
        "balance": seed.balance,
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_migration_in_the_folder_is_embedded() {
        let folder =
            std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/migrations")).expect("the folder is there");
        assert_eq!(folder.count(), super::migrator().iter().count(), "touch this file when a migration is added");
    }
}
