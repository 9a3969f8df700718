//! What is wrong with a ledger, said so that who runs it knows where and what to do. Never a password.

use std::fmt;

/// Where a ledger is: `host:port/database`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Host, or the folder of a local socket.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Database.
    pub database: String,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}/{}", self.host, self.port, self.database)
    }
}

/// Why a ledger cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The address does not read.
    #[error("the ledger's address does not read ({0}): expected postgres://USER[:PASSWORD]@HOST:PORT/DATABASE")]
    BadUrl(String),
    /// No connection came about.
    #[error("no PostgreSQL answers at {0}: {1}; start it, or correct `ledger`")]
    Unreachable(Place, String),
    /// It accepts connections and says nothing.
    #[error("{0} accepts connections but has not answered within {1}: is it PostgreSQL, and is it alive?")]
    Silent(Place, worldline_system::time::Duration),
    /// Something else answers there.
    #[error("what answers at {0} does not speak PostgreSQL's protocol ({1}); correct `ledger`")]
    Foreign(Place, String),
    /// User or password are wrong.
    #[error("PostgreSQL at {0} refuses the user `{1}`: {2}; correct user and password of `ledger`")]
    Credentials(Place, String, String),
    /// There is no such database.
    #[error("PostgreSQL at {0} has no such database; create it, then run `worldlined migrate`")]
    NoDatabase(Place),
    /// It has no connection left, or is starting or stopping.
    #[error("PostgreSQL at {0} takes no connection now: {1}")]
    Busy(Place, String),
    /// A commit waits, and nobody answers.
    #[error("commits have not been confirmed for {1} (synchronous standby missing?) at {0}")]
    Unconfirmed(Place, worldline_system::time::Duration),
    /// The server is too old.
    #[error("PostgreSQL at {0} is version {1}; needed is 17 or newer")]
    OldServer(Place, String),
    /// It is a standby, or set to read only.
    #[error("PostgreSQL at {0} is read-only ({1}); name the primary in `ledger`")]
    ReadOnly(Place, String),
    /// The user may not use the schema.
    #[error(
        "the user `{1}` may not use the schema at {0}: {2}; grant it, or run `worldlined migrate` as the same user"
    )]
    Forbidden(Place, String, String),
    /// The database has no schema of ours.
    #[error("the database {0} has no schema `worldline`; run `worldlined migrate`")]
    SchemaMissing(Place),
    /// The schema is older than this program.
    #[error("the schema at {place} is version {found}, this program needs {expected}; run `worldlined migrate`")]
    SchemaOlder {
        /// Where.
        place: Place,
        /// Its version.
        found: i64,
        /// The version of this program.
        expected: i64,
    },
    /// The schema is newer than this program.
    #[error("the schema at {place} is version {found}, this program knows {expected}; run a newer `worldlined`")]
    SchemaNewer {
        /// Where.
        place: Place,
        /// Its version.
        found: i64,
        /// The version of this program.
        expected: i64,
    },
    /// There is a schema of our name, and it is not ours.
    #[error("the schema `worldline` at {0} is not this program's: {1}; use another database")]
    SchemaForeign(Place, String),
    /// Anything else that the server says.
    #[error("PostgreSQL at {0}: {1}")]
    Other(Place, String),
}

impl Problem {
    /// Whether the schema is at fault: waiting does not help, a person must act.
    #[must_use]
    pub const fn is_schema(&self) -> bool {
        matches!(
            self,
            Self::SchemaMissing(_) | Self::SchemaOlder { .. } | Self::SchemaNewer { .. } | Self::SchemaForeign(..)
        )
    }
}
