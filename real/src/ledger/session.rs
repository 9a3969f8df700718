//! One connection to the server, made so that an answer can be believed.
//!
//! * `synchronous_commit = on` and `READ COMMITTED` are set by us, whatever the server's defaults are.
//! * A call's answer is taken only when the server is ready for the next query. The row with the function's result arrives
//!   before the commit: whoever believes it (sqlx's `fetch_one` does) answers before the commit.
//! * A server that stops waiting for its synchronous standby, because somebody cancelled the query, commits all the same and
//!   says so only in a warning. sqlx hands warnings to `tracing` alone, so each call listens there: a call during which the
//!   server warned is `Unknown`. The functions themselves warn of nothing.
//! * A connection whose call did not end well is closed, never used again.
//! * A backend that waits for its standby does not look whether its client is still there: one that is left alone stays. So the
//!   server is asked how many of ours it has before another is used.

use super::{
    Place, Problem,
    check::{self, Server},
    request::Request,
};
use crate::clock;
use sqlx::{
    Connection as _, PgConnection, Row as _,
    postgres::{PgConnectOptions, PgDatabaseError, PgSeverity},
};
use std::sync::{Arc, Mutex, PoisonError};
use tracing::{Dispatch, Event, Metadata, Subscriber, field, instrument::WithSubscriber as _, level_filters, span};
use worldline_system::{
    Refusal,
    outcome::End,
    time::{Duration, Instant},
};

/// The server gives up a call that has not come to its commit after so long: far behind every caller's deadline, and a bound on
/// how late a call may land whose caller has gone. A commit that waits for its standby is not given up; it has landed.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(10);

/// A session's backend, and how many the server has of its name.
const WHO: &str = "select max(pid || ' ' || backend_start) filter (where pid = pg_backend_pid()), \
                   count(*) filter (where application_name = current_setting('application_name') \
                                    and usename = current_user and datname = current_database()) \
                   from pg_stat_activity";
const AT_WORK: &str = "select pid || ' ' || backend_start from pg_stat_activity \
                       where state = 'active' and pid || ' ' || backend_start = any ($1)";
const CONFIRM: &str = "select pg_logical_emit_message(true, 'worldline', 'confirm')";

/// A connection whose server and schema were found good.
pub(super) struct Session {
    connection: PgConnection,
    ear: Ear,
    pub backend: Backend,
    /// Where its server is.
    pub place: Place,
    /// When it was last known to be alive.
    pub alive_at: Instant,
}

/// What serves a session at the server: its process and when that was started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Backend(String);

/// What every connection of ours asks of the server.
pub(super) fn options(options: PgConnectOptions) -> PgConnectOptions {
    let timeout = format!("{}ms", STATEMENT_TIMEOUT.as_millis());
    let settings = [
        ("synchronous_commit", "on"),
        ("default_transaction_isolation", "read committed"),
        ("client_min_messages", "warning"),
        ("statement_timeout", timeout.as_str()),
    ];
    sqlx::ConnectOptions::disable_statement_logging(options.application_name("worldlined").options(settings))
}

impl Session {
    /// Connects, and looks at server and schema. Each call is prepared when it is first made: a role makes one or two of them,
    /// and what is refused then is refused for certain.
    pub async fn open(server: &Server) -> Result<Self, Problem> {
        let mut connection = server.connect().await?;
        check::schema(server, &mut connection).await?;
        let row = server.within(sqlx::raw_sql(WHO).fetch_one(&mut connection)).await?;
        let (backend, ours): (String, i64) = (row.get(0), row.get(1));
        if usize::try_from(ours).unwrap_or(0) > server.sessions_max {
            let message = format!("it still has {ours} sessions of this name, which may wait for a lock or a standby");
            return Err(Problem::Busy(server.place.clone(), message));
        }
        let backend = Backend(backend);
        Ok(Self { connection, ear: Ear::default(), backend, place: server.place.clone(), alive_at: clock::now() })
    }

    /// Which of these the server still has at work. One that rests has answered, whether anybody has heard it or not.
    pub async fn at_work(&mut self, server: &Server, of: &[Backend]) -> Result<Vec<Backend>, Problem> {
        let names: Vec<&str> = of.iter().map(|Backend(name)| name.as_str()).collect();
        let working = sqlx::query(AT_WORK).bind(names).fetch_all(&mut self.connection);
        let rows = server.within(working).await?;
        Ok(rows.iter().map(|row| Backend(row.get(0))).collect())
    }

    /// Commits something that changes nothing: whether a commit is confirmed. It waits for as long as the server does.
    pub async fn confirm(&mut self, server: &Server) -> Result<(), Problem> {
        let dispatch = self.ear.dispatch.clone();
        let rows = sqlx::raw_sql(CONFIRM).fetch_all(&mut self.connection).with_subscriber(dispatch).await;
        rows.map_err(|error| server.said(&error))?;
        self.alive_at = clock::now();
        match self.ear.take() {
            Some(warning) => Err(Problem::Other(server.place.clone(), warning)),
            None => Ok(()),
        }
    }

    /// What time it is by the server's clock, in milliseconds since 1970.
    pub async fn unix_ms(&mut self, server: &Server) -> Result<u64, Problem> {
        let asked = "select floor(extract(epoch from clock_timestamp()) * 1000)::bigint";
        let row = server.within(sqlx::raw_sql(asked).fetch_one(&mut self.connection)).await?;
        Ok(u64::try_from(row.get::<i64, _>(0)).unwrap_or(0))
    }

    /// Looks at server and schema again.
    pub async fn check(&mut self, server: &Server) -> Result<(), Problem> {
        check::schema(server, &mut self.connection).await?;
        self.alive_at = clock::now();
        Ok(())
    }

    /// Whether it is still there.
    pub async fn ping(&mut self) -> bool {
        let there = self.connection.ping().await.is_ok();
        self.alive_at = clock::now();
        there
    }

    /// One call, one transaction. After an end without an answer this connection must not be used again.
    pub async fn call(&mut self, request: &Request) -> Result<String, End> {
        // To the end of the stream: the commit comes after the row.
        let rows = request.query().fetch_all(&mut self.connection).with_subscriber(self.ear.dispatch.clone()).await;
        let rows = rows.map_err(|error| ended(&error))?;
        if let Some(warning) = self.ear.take() {
            tracing::warn!(warning, "the ledger's server warned at a commit: its outcome is unknown");
            return Err(End::Unknown);
        }
        self.alive_at = clock::now();
        rows.first().and_then(|row| row.try_get(0).ok()).ok_or(End::Unknown)
    }

    /// Says goodbye.
    pub async fn close(self) {
        // The server notices a connection that breaks as well.
        let _ = self.connection.close().await;
    }
}

/// What an error at a call says of its transaction.
///
/// An `ERROR` that arrives instead of the end of the transaction is raised by a server that has rolled it back: past the
/// commit's record it raises none. `FATAL` ends the connection, and a server may still say it after the commit. All else is
/// the connection's failure, and says nothing.
fn ended(error: &sqlx::Error) -> End {
    let database = match error {
        sqlx::Error::Database(database) => database.try_downcast_ref::<PgDatabaseError>(),
        _ => None,
    };
    match database {
        Some(error) if error.severity() == PgSeverity::Error => {
            let refusal = refusal(error.code());
            tracing::debug!(code = error.code(), message = error.message(), %refusal, "the ledger's server refused a call");
            End::Refused(refusal)
        }
        _ => End::Unknown,
    }
}

/// The refusal for an SQLSTATE that came with a certain rollback.
fn refusal(code: &str) -> Refusal {
    match code {
        "40001" => Refusal::SerializationFailure,
        "40P01" => Refusal::Deadlock,
        "25006" => Refusal::ReadOnly,
        "53100" => Refusal::DiskFull,
        // Out of memory and the like; lock or statement timed out, cancelled; the server is stopping.
        code if code.starts_with("53") || code.starts_with("57") || code == "55P03" => Refusal::Busy,
        // The schema is not what it was at the check, or it says no to what it should take: the next check will tell.
        _ => Refusal::NotServing,
    }
}

/// Hears what the server warns of while a call runs.
#[derive(Clone)]
struct Ear {
    heard: Arc<Mutex<Option<String>>>,
    dispatch: Dispatch,
}

impl Default for Ear {
    fn default() -> Self {
        let heard = Arc::<Mutex<Option<String>>>::default();
        Self { dispatch: Dispatch::new(Listener(heard.clone())), heard }
    }
}

impl Ear {
    fn take(&self) -> Option<String> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Where sqlx tells of the server's notices.
const NOTICES: &str = "sqlx::postgres::notice";

struct Listener(Arc<Mutex<Option<String>>>);

impl Subscriber for Listener {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // Asked for an event and, before that, for a hint whether one would be heard.
        !metadata.is_span() && metadata.target() == NOTICES && *metadata.level() <= tracing::Level::WARN
    }

    fn max_level_hint(&self) -> Option<level_filters::LevelFilter> {
        Some(level_filters::LevelFilter::WARN)
    }

    fn event(&self, event: &Event<'_>) {
        struct Message(String);
        impl field::Visit for Message {
            fn record_debug(&mut self, field: &field::Field, value: &dyn std::fmt::Debug) {
                if field.name() == "message" {
                    self.0 = format!("{value:?}");
                }
            }
        }
        if self.enabled(event.metadata()) {
            let mut message = Message(String::new());
            event.record(&mut message);
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(message.0);
        }
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_certain_rollback_has_its_refusal() {
        for (code, expected) in [
            ("40001", Refusal::SerializationFailure),
            ("40P01", Refusal::Deadlock),
            ("25006", Refusal::ReadOnly),
            ("53100", Refusal::DiskFull),
            ("53200", Refusal::Busy),
            ("57014", Refusal::Busy),
            ("55P03", Refusal::Busy),
            ("42883", Refusal::NotServing),
        ] {
            assert_eq!(refusal(code), expected, "{code}");
        }
    }

    #[test]
    fn what_is_no_error_of_the_server_is_unknown() {
        let broken = sqlx::Error::Io(std::io::ErrorKind::ConnectionReset.into());
        assert_eq!(ended(&broken), End::Unknown);
        assert_eq!(ended(&sqlx::Error::Protocol("garbage".into())), End::Unknown);
    }
}
