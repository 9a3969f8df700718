//! Whether a server and its schema are what this program needs, and if not, in which way.

use super::{Place, Problem, migrate, session};
use crate::clock;
use sqlx::{
    AssertSqlSafe, ConnectOptions as _, PgConnection, Row as _,
    postgres::{PgConnectOptions, PgDatabaseError},
};
use std::{collections::BTreeMap, io, str::FromStr, time};
use worldline_system::time::Duration;

/// The oldest server that will do.
const OLDEST: u32 = 170_000;
/// How long a server may take to answer what it is asked at a connection's beginning.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);

/// What our schema consists of: tables with their columns, functions with their arguments.
const LAYOUT: [(&str, &str); 4] = [
    (
        "entities",
        "name text, id bigint, generation bigint, login_nonce numeric(20,0), fence_epoch numeric(20,0), fence_lease text, \
         fence_since timestamp with time zone, applied_through bigint, hit_points bigint, experience bigint, balance bigint, \
         checkpoint_epoch numeric(20,0), checkpoint_version numeric(20,0), x_mm bigint, y_mm bigint, \
         cooldown_end_unix_ns numeric(20,0), born_x_mm bigint, born_y_mm bigint, pinned_region smallint, minted bigint, facts bigint, \
         tokens_valid_from_unix_ms numeric(20,0)",
    ),
    ("journal", "id bigint, at timestamp with time zone, kind text, what jsonb"),
    (
        "outbox",
        "aggregate bigint, sequence bigint, character bigint, number bigint, body jsonb, written timestamp with time zone, \
         published timestamp with time zone",
    ),
    ("results", "entity bigint, slot smallint, number bigint, digest text, result jsonb"),
];
const FUNCTIONS: [&str; 10] = [
    "claim(text, jsonb)",
    "commit(jsonb)",
    "facts_of(text, bigint, integer)",
    "flag(jsonb)",
    "login(text, numeric, numeric)",
    "revoke(text, numeric)",
    "roster(bigint, integer)",
    "snapshot(jsonb)",
    "standing(jsonb)",
    "unpublished(bigint, integer)",
];

/// A server as its address names it.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    options: PgConnectOptions,
    pub place: Place,
    /// Sessions of our name that it may have, those included that nobody hears any more. One more is not opened.
    pub sessions_max: usize,
}

impl Server {
    pub fn new(url: &str) -> Result<Self, Problem> {
        let bad = |why: &str| Problem::BadUrl(why.to_owned());
        if !["postgres://", "postgresql://"].iter().any(|scheme| url.starts_with(scheme)) {
            return Err(bad("it does not begin with postgres://"));
        }
        let options = PgConnectOptions::from_str(url).map_err(|error| match error {
            sqlx::Error::Configuration(why) => Problem::BadUrl(why.to_string()),
            _ => bad("it is not an address"),
        })?;
        let place = Place {
            host: options.get_socket().map_or(options.get_host().to_owned(), |path| path.display().to_string()),
            port: options.get_port(),
            database: options.get_database().unwrap_or(options.get_username()).to_owned(),
        };
        Ok(Self { options: session::options(options), place, sessions_max: usize::MAX })
    }

    /// The same, with what it shall call us in `pg_stat_activity`, and how many sessions it may have of that name.
    pub fn named(self, name: &str, sessions_max: usize) -> Self {
        Self { options: self.options.application_name(name), sessions_max, ..self }
    }

    /// A connection to a server that is new enough.
    pub async fn connect(&self) -> Result<PgConnection, Problem> {
        let options = self.options.clone();
        // In a task of its own: what answers there may be anything, and the client does not survive every garbage.
        let mut connecting = tokio::spawn(async move { options.connect().await });
        let connection = match tokio::time::timeout(patience(), &mut connecting).await {
            Err(_) => {
                // The client waits for ever: its socket goes with its task.
                connecting.abort();
                return Err(Problem::Silent(self.place.clone(), PATIENCE));
            }
            Ok(Err(_)) => return Err(self.garbage()),
            Ok(Ok(connected)) => connected.map_err(|error| self.unconnected(&error))?,
        };
        if let Some(found) = connection.server_version_num().filter(|&found| found < OLDEST) {
            return Err(Problem::OldServer(self.place.clone(), format!("{}.{}", found / 10_000, found % 10_000)));
        }
        Ok(connection)
    }

    /// What answers has made the client fail.
    pub fn garbage(&self) -> Problem {
        Problem::Foreign(self.place.clone(), "garbage".to_owned())
    }

    /// A question's answer, if it comes in time.
    pub async fn within<T>(&self, asked: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, Problem> {
        match tokio::time::timeout(patience(), asked).await {
            Err(_) => Err(Problem::Silent(self.place.clone(), PATIENCE)),
            Ok(answer) => answer.map_err(|error| self.said(&error)),
        }
    }

    /// What an error on an open connection means.
    pub fn said(&self, error: &sqlx::Error) -> Problem {
        let place = self.place.clone();
        match (error, sqlstate(error)) {
            (_, Some((code, message))) => match code.as_str() {
                "42501" => Problem::Forbidden(place, self.options.get_username().to_owned(), message),
                "25006" => Problem::ReadOnly(place, message),
                code if code.starts_with("53") || code.starts_with("57") => Problem::Busy(place, message),
                code if code.starts_with("42") || code.starts_with("3F") => Problem::SchemaForeign(place, message),
                _ => Problem::Other(place, message),
            },
            (sqlx::Error::Io(why), _) => Problem::Unreachable(place, why.to_string()),
            (sqlx::Error::Protocol(why), _) => Problem::Foreign(place, why.clone()),
            (other, _) => Problem::Other(place, other.to_string()),
        }
    }

    /// What an error at connecting means.
    fn unconnected(&self, error: &sqlx::Error) -> Problem {
        let place = self.place.clone();
        match (error, sqlstate(error)) {
            (_, Some((code, message))) => match code.as_str() {
                "28P01" | "28000" => Problem::Credentials(place, self.options.get_username().to_owned(), message),
                "3D000" => Problem::NoDatabase(place),
                "42501" => Problem::Forbidden(place, self.options.get_username().to_owned(), message),
                "57P03" | "57P01" | "57P02" => Problem::Busy(place, message),
                code if code.starts_with("53") => Problem::Busy(place, message),
                _ => Problem::Other(place, message),
            },
            (sqlx::Error::Io(why), _) if why.kind() == io::ErrorKind::UnexpectedEof => {
                Problem::Unreachable(place, "the connection was closed before anything was said".to_owned())
            }
            _ => self.said(error),
        }
    }
}

fn patience() -> time::Duration {
    clock::span(PATIENCE)
}

/// Code and message of an error that the server itself has raised.
pub(super) fn sqlstate(error: &sqlx::Error) -> Option<(String, String)> {
    let sqlx::Error::Database(error) = error else { return None };
    let error = error.try_downcast_ref::<PgDatabaseError>()?;
    Some((error.code().to_owned(), error.message().to_owned()))
}

/// What stands in a database that has a schema of our name.
#[derive(serde::Deserialize)]
pub(super) struct Found {
    /// The migrations that were applied, with their checksums in hexadecimal.
    pub applied: BTreeMap<i64, String>,
    /// The columns of our tables.
    columns: BTreeMap<String, Option<String>>,
    /// Functions of ours that are not there.
    absent: Vec<String>,
}

/// Looks at the database: `None` without a schema of our name. One that holds something but no list of ours is foreign; and a
/// server that takes no writes is none.
///
/// It is asked by simple queries, each of one round trip: a connection over a long way shall not take seconds to open.
pub(super) async fn find(server: &Server, connection: &mut PgConnection) -> Result<Option<Found>, Problem> {
    let place = || server.place.clone();
    let state = "select pg_is_in_recovery(), current_setting('transaction_read_only') = 'on', \
                 to_regnamespace('worldline') is not null, to_regclass('worldline.migrations') is not null, \
                 exists (select from pg_class where relnamespace = to_regnamespace('worldline'))";
    let row = server.within(sqlx::raw_sql(state).fetch_one(&mut *connection)).await?;
    if row.get(0) {
        return Err(Problem::ReadOnly(place(), "a standby".to_owned()));
    }
    if row.get(1) {
        return Err(Problem::ReadOnly(place(), "default_transaction_read_only is on".to_owned()));
    }
    match (row.get(2), row.get(3), row.get(4)) {
        (true, true, _) => {}
        (true, false, true) => {
            let why = "it has tables, but no list of this program's migrations".to_owned();
            return Err(Problem::SchemaForeign(place(), why));
        }
        _ => return Ok(None),
    }
    let row = server.within(sqlx::raw_sql(AssertSqlSafe(look())).fetch_one(connection)).await?;
    let found = row.try_get(0).map_err(|error| server.said(&error))?;
    let unread = |error: serde_json::Error| Problem::SchemaForeign(place(), error.to_string());
    serde_json::from_str(found).map(Some).map_err(unread)
}

/// The question for [`Found`].
fn look() -> String {
    let quoted = |names: Vec<&str>| names.iter().map(|name| format!("'{name}'")).collect::<Vec<_>>().join(", ");
    let (tables, functions) = (quoted(LAYOUT.map(|(table, _)| table).to_vec()), quoted(FUNCTIONS.to_vec()));
    format!(
        "select jsonb_build_object( \
         'applied', (select coalesce(jsonb_object_agg(version, encode(checksum, 'hex')), '{{}}') \
                     from worldline.migrations where success), \
         'columns', (select jsonb_object_agg(name, \
                     (select string_agg(attname || ' ' || format_type(atttypid, atttypmod), ', ' order by attnum) \
                      from pg_attribute where attrelid = to_regclass('worldline.' || name) \
                      and attnum > 0 and not attisdropped)) from unnest(array[{tables}]) name), \
         'absent', (select coalesce(jsonb_agg(name), '[]') from unnest(array[{functions}]) name \
                    where to_regprocedure('worldline.' || name) is null))::text"
    )
}

/// Whether the schema is this program's, in this program's version.
pub(super) async fn schema(server: &Server, connection: &mut PgConnection) -> Result<(), Problem> {
    let place = || server.place.clone();
    let Some(found) = find(server, connection).await? else { return Err(Problem::SchemaMissing(place())) };
    if let Some(why) = altered(&found.applied) {
        return Err(Problem::SchemaForeign(place(), why));
    }
    let expected = migrate::version();
    match found.applied.keys().next_back().copied().unwrap_or(0) {
        found if found < expected => Err(Problem::SchemaOlder { place: place(), found, expected }),
        found if found > expected => Err(Problem::SchemaNewer { place: place(), found, expected }),
        _ => difference(&found).map_or(Ok(()), |why| Err(Problem::SchemaForeign(place(), why))),
    }
}

/// A migration of our number that is not ours.
fn altered(applied: &BTreeMap<i64, String>) -> Option<String> {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let embedded = migrate::migrator();
    let other =
        embedded.iter().find(|ours| applied.get(&ours.version).is_some_and(|sum| *sum != hex(&ours.checksum)))?;
    Some(format!("its migration {} ({}) is another one", other.version, other.description))
}

/// What is not as the migrations made it.
fn difference(found: &Found) -> Option<String> {
    let table = LAYOUT.iter().find_map(|&(table, expected)| match found.columns.get(table) {
        Some(Some(columns)) if columns == expected => None,
        Some(Some(columns)) => Some(format!("its table `{table}` is ({columns}), expected ({expected})")),
        _ => Some(format!("it has no table `{table}`")),
    });
    table.or_else(|| found.absent.first().map(|function| format!("it has no function `{function}`")))
}
