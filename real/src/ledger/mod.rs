//! The ledger door on PostgreSQL.

mod problem;

pub use problem::{Place, Problem};

use crate::{host::Inbox, ready::Readiness};
use std::pin::Pin;
use worldline_proto::{CharacterId, EntityId, OpNumber};
use worldline_system::{
    Refusal,
    doors::{
        Asked, Event,
        directory::RegionId,
        ledger::{self, Answer, Ask, StoredResult, Submission},
    },
    history::{Acceptance, Row},
    outcome::End,
    rules::space::Position,
    time::UnixTime,
};

/// A future at a crate's boundary.
pub type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Connections of one process, unless it says otherwise.
pub const CONNECTIONS: usize = 8;

/// Which ledger, and how it is used.
#[derive(Clone, Debug)]
pub struct Config {
    /// `postgres://USER[:PASSWORD]@HOST:PORT/DATABASE`.
    pub url: String,
    /// At most so many connections at a time. At least one.
    pub connections: usize,
    /// What the server calls us in `pg_stat_activity`.
    pub name: String,
}

impl Config {
    /// The ledger at this address, with the defaults.
    ///
    /// # Errors
    /// The address does not read.
    pub fn new(url: &str) -> Result<Self, Problem> {
        Ok(Self { url: url.to_owned(), connections: CONNECTIONS, name: "worldlined".to_owned() })
    }
}

/// The adapter. Clones share its connections.
#[derive(Clone, Debug)]
pub struct Ledger {
    inbox: Inbox,
}

impl Ledger {
    /// Starts at once, whether the server is there or not; `ready` hears of the need `ledger`. Called inside a runtime.
    #[must_use]
    pub fn new(config: Config, inbox: Inbox, ready: Readiness) -> Self {
        ready.missing("ledger", format_args!("{} is not asked yet", config.name));
        Self { inbox }
    }

    /// Takes an operation; its answer goes to the inbox, before its deadline. Never waits.
    pub fn submit(&self, asked: Asked<Submission>) {
        let answer = Box::new(Ask::from(&asked.submission).ended(End::Refused(Refusal::Unreachable)));
        self.inbox.answer(asked.op, Event::Ledger(ledger::Event { op: asked.op, answer }));
    }

    /// The same, with the answer returned.
    #[must_use]
    pub fn ask(&self, asked: Asked<Submission>) -> Boxed<'static, Answer> {
        Box::pin(async move { Ask::from(&asked.submission).ended(End::Refused(Refusal::Unreachable)) })
    }

    /// What is wrong, as of the last check.
    #[must_use]
    pub fn problem(&self) -> Option<Problem> {
        None
    }

    /// Ends: what is in flight is answered, what comes later is refused, every connection is closed.
    #[must_use]
    pub fn close(&self) -> Boxed<'_, ()> {
        Box::pin(async {})
    }
}

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

/// The tables as a checker reads them, all of one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tables {
    /// Every entity's row, in id order.
    pub rows: Vec<Row>,
    /// The last operation of each character that has a result, in id order.
    pub applied_through: Vec<(CharacterId, OpNumber)>,
    /// The results that are kept, in the order of (character, number).
    pub results: Vec<(CharacterId, StoredResult)>,
    /// Minor units that were minted.
    pub minted: i128,
}

fn unwritten<T>() -> Result<T, Problem> {
    Err(Problem::BadUrl("not served yet".to_owned()))
}

/// Whether the ledger can be used as it stands.
#[must_use]
pub fn check(_: &str) -> Boxed<'_, Result<(), Problem>> {
    Box::pin(async { unwritten() })
}

/// Brings the schema to this program's version. May be repeated, and run by several at once.
#[must_use]
pub fn migrate(_: &str) -> Boxed<'_, Result<Report, Problem>> {
    Box::pin(async { unwritten() })
}

/// Creates the entities that do not exist yet, and says how many those were. The others stay as they are.
#[must_use]
pub fn seed<'a>(_: &'a str, _: &'a [Seed]) -> Boxed<'a, Result<usize, Problem>> {
    Box::pin(async { unwritten() })
}

/// What the ledger has accepted, each with the wall clock's time of its commit, in the order of the commits.
#[must_use]
pub fn journal(_: &str) -> Boxed<'_, Result<Vec<(UnixTime, Acceptance)>, Problem>> {
    Box::pin(async { unwritten() })
}

/// The tables as they stand.
#[must_use]
pub fn tables(_: &str) -> Boxed<'_, Result<Tables, Problem>> {
    Box::pin(async { unwritten() })
}
