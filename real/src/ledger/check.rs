//! Whether a server and its schema are what this program needs, and if not, in which way.

use super::{Place, Problem, migrate, session};
use crate::clock;
use sqlx::{
    ConnectOptions as _, PgConnection, Row as _,
    postgres::{PgConnectOptions, PgDatabaseError},
};
use std::{collections::BTreeMap, io, str::FromStr, time};
use worldline_system::time::Duration;

/// The oldest server that will do.
const OLDEST: u32 = 170_000;
/// How long a server may take to answer what it is asked at a connection's beginning.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);

/// What our schema consists of: tables with their columns, functions with their arguments.
const LAYOUT: [(&str, &str); 3] = [
    (
        "entities",
        "name text, id bigint, generation bigint, login_nonce numeric(20,0), fence_epoch numeric(20,0), fence_lease text, \
         fence_since timestamp with time zone, applied_through bigint, hit_points bigint, experience bigint, balance bigint, \
         checkpoint_epoch numeric(20,0), checkpoint_version numeric(20,0), x_mm bigint, y_mm bigint, \
         cooldown_end_unix_ns numeric(20,0), born_x_mm bigint, born_y_mm bigint, pinned_region smallint, minted bigint",
    ),
    ("journal", "id bigint, at timestamp with time zone, kind text, what jsonb"),
    ("results", "entity bigint, slot smallint, number bigint, digest text, result jsonb"),
];
const FUNCTIONS: [&str; 4] = ["claim(text, jsonb)", "commit(jsonb)", "login(text, numeric)", "roster(bigint, integer)"];

/// A server as its address names it.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    options: PgConnectOptions,
    pub place: Place,
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
        Ok(Self { options: session::options(options), place })
    }

    /// The same, with what it shall call us in `pg_stat_activity`.
    pub fn named(self, name: &str) -> Self {
        Self { options: self.options.application_name(name), ..self }
    }

    /// A connection to a server that is new enough and takes writes.
    pub async fn connect(&self) -> Result<PgConnection, Problem> {
        let options = self.options.clone();
        // In a task of its own: what answers there may be anything, and the client does not survive every garbage.
        let connecting = tokio::spawn(async move { options.connect().await });
        let mut connection = match tokio::time::timeout(patience(), connecting).await {
            Err(_) => return Err(Problem::Silent(self.place.clone(), PATIENCE)),
            Ok(Err(_)) => return Err(self.garbage()),
            Ok(Ok(connected)) => connected.map_err(|error| self.unconnected(&error))?,
        };
        if let Some(found) = connection.server_version_num().filter(|&found| found < OLDEST) {
            return Err(Problem::OldServer(self.place.clone(), format!("{}.{}", found / 10_000, found % 10_000)));
        }
        let state = "select pg_is_in_recovery(), current_setting('transaction_read_only') = 'on'";
        let row = self.within(sqlx::query(state).fetch_one(&mut connection)).await?;
        match (row.get(0), row.get(1)) {
            (true, _) => Err(Problem::ReadOnly(self.place.clone(), "a standby".to_owned())),
            (false, true) => {
                Err(Problem::ReadOnly(self.place.clone(), "default_transaction_read_only is on".to_owned()))
            }
            (false, false) => Ok(connection),
        }
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

/// Whether the schema is this program's, in this program's version.
pub(super) async fn schema(server: &Server, connection: &mut PgConnection) -> Result<(), Problem> {
    let place = || server.place.clone();
    let Some(applied) = applied(server, connection).await? else { return Err(Problem::SchemaMissing(place())) };
    let expected = migrate::version();
    let found = applied.keys().next_back().copied().unwrap_or(0);
    let embedded = migrate::migrator();
    let altered = embedded.iter().find(|ours| applied.get(&ours.version).is_some_and(|sum| *sum != *ours.checksum));
    if let Some(ours) = altered {
        let why = format!("its migration {} ({}) is another one", ours.version, ours.description);
        return Err(Problem::SchemaForeign(place(), why));
    }
    if found < expected {
        return Err(Problem::SchemaOlder { place: place(), found, expected });
    }
    if found > expected {
        return Err(Problem::SchemaNewer { place: place(), found, expected });
    }
    match difference(server, connection).await? {
        Some(why) => Err(Problem::SchemaForeign(place(), why)),
        None => Ok(()),
    }
}

/// The migrations that were applied, with their checksums; `None` without a schema of our name. One that holds something but
/// no list of ours is foreign.
pub(super) async fn applied(
    server: &Server,
    connection: &mut PgConnection,
) -> Result<Option<BTreeMap<i64, Vec<u8>>>, Problem> {
    let there = "select to_regnamespace('worldline') is not null, to_regclass('worldline.migrations') is not null, \
                 exists (select from pg_class where relnamespace = to_regnamespace('worldline'))";
    let row = server.within(sqlx::query(there).fetch_one(&mut *connection)).await?;
    match (row.get(0), row.get(1), row.get(2)) {
        (true, true, _) => {}
        (true, false, true) => {
            let why = "it has tables, but no list of this program's migrations".to_owned();
            return Err(Problem::SchemaForeign(server.place.clone(), why));
        }
        _ => return Ok(None),
    }
    let list = "select version, checksum from worldline.migrations where success";
    let rows = server.within(sqlx::query(list).fetch_all(connection)).await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect::<Result<_, _>>().map(Some).map_err(
        |error: sqlx::Error| Problem::SchemaForeign(server.place.clone(), format!("its list of migrations: {error}")),
    )
}

/// What is not as the migrations made it.
async fn difference(server: &Server, connection: &mut PgConnection) -> Result<Option<String>, Problem> {
    let columns = "select string_agg(attname || ' ' || format_type(atttypid, atttypmod), ', ' order by attnum) \
                   from pg_attribute where attrelid = to_regclass('worldline.' || $1) and attnum > 0 and not attisdropped";
    for (table, expected) in LAYOUT {
        let row = server.within(sqlx::query(columns).bind(table).fetch_one(&mut *connection)).await?;
        let found: Option<String> = row.get(0);
        match found {
            None => return Ok(Some(format!("it has no table `{table}`"))),
            Some(found) if found != expected => {
                return Ok(Some(format!("its table `{table}` is ({found}), expected ({expected})")));
            }
            Some(_) => {}
        }
    }
    let functions =
        "select wanted from unnest($1::text[]) wanted where to_regprocedure('worldline.' || wanted) is null";
    let wanted: Vec<String> = FUNCTIONS.iter().map(ToString::to_string).collect();
    let missing = server.within(sqlx::query(functions).bind(wanted).fetch_optional(connection)).await?;
    Ok(missing.map(|row| format!("it has no function `{}`", row.get::<String, _>(0))))
}
