//! A world in a database of its own, and what tests say about it.

use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection, Row as _};
use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};
use worldline_proto::{
    CharacterId, Digest, EntityId, EntityKind, Epoch, Generation, Incarnation, LeaseId, Nonce, OpId, OpNumber,
};
use worldline_real::{
    Inbox, clock,
    ledger::{self, Config, Ledger, Seed},
    ready::Readiness,
};
use worldline_system::{
    Outcome, Refusal,
    doors::{
        Asked,
        ledger::{
            Answer, Authority, Batch, Checkpoint, Committed, Durable, Effect, Login, Operation, Submission, Verdict,
        },
    },
    rules::{attack::Blow, space::Position},
    time,
};

/// How long a test waits for what must come.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A database of the server that tests may use.
pub fn address(database: &str) -> String {
    of_server("WORLDLINE_TEST_POSTGRES", database)
}

/// The same, by a user who needs the password `open sesame`.
pub fn guarded(database: &str) -> String {
    of_server("WORLDLINE_TEST_POSTGRES_GUARDED", database)
}

fn of_server(variable: &str, database: &str) -> String {
    let any = std::env::var(variable).unwrap_or_else(|_| {
        panic!(
            "{variable} is not set: these tests need PostgreSQL 17. Run them by `ci/test`, or first \
             eval \"$(ci/services start --only postgres)\""
        )
    });
    another(&any, database)
}

/// Another database of the same server.
pub fn another(url: &str, database: &str) -> String {
    let (scheme, rest) = url.split_once("://").expect("an address");
    format!("{scheme}://{}/{database}", rest.split('/').next().unwrap())
}

/// Runs a statement, or several, on a database.
pub async fn sql(url: &str, statements: &str) {
    let mut connection = PgConnection::connect(url).await.expect("the server is there");
    connection.execute(AssertSqlSafe(statements)).await.unwrap_or_else(|error| panic!("{statements}: {error}"));
}

/// The first column of the first row.
pub async fn number(url: &str, question: &str) -> i64 {
    let mut connection = PgConnection::connect(url).await.expect("the server is there");
    let row = connection.fetch_one(AssertSqlSafe(question)).await.unwrap_or_else(|error| panic!("{question}: {error}"));
    row.get(0)
}

/// An empty database.
pub async fn database() -> String {
    database_on(&address("postgres")).await
}

async fn database_on(server: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let name = format!("test_{}_{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    sql(server, &format!("create database {name} template template0")).await;
    another(server, &name)
}

/// A database with the schema, a hero, a boss and nobody who owns them.
pub async fn world() -> String {
    world_on(&address("postgres")).await
}

/// The same on another server.
pub async fn world_on(server: &str) -> String {
    let url = database_on(server).await;
    ledger::migrate(&url).await.unwrap();
    let seed =
        |entity, hit_points, balance| Seed { entity, position: Position::default(), pinned: None, hit_points, balance };
    let mut seeds = vec![seed(boss(), 100, 30), seed(hero().entity(), 50, 5)];
    seeds.extend((2..=40).map(|n| seed(character(n).entity(), 50, 5)));
    assert_eq!(ledger::seed(&url, &seeds).await.unwrap(), 41);
    url
}

/// An adapter, and whether it is ready.
pub fn adapter(url: &str, connections: usize) -> (Ledger, Readiness) {
    let ready = Readiness::default();
    let mut config = Config::new(url).unwrap();
    config.connections = connections;
    (Ledger::new(config, Inbox::default(), ready.clone()), ready)
}

/// An adapter to a world, with hero and boss owned at epoch 1 under lease 1, and a session of generation 1.
pub async fn begun(url: &str) -> Ledger {
    let (ledger, _) = adapter(url, 4);
    claim(&ledger, 1, &[(hero().entity(), 1), (boss(), 1)]).await.into_iter().for_each(|one| drop(one.unwrap()));
    assert_eq!(login(&ledger, 1).await.generation, Generation(1));
    ledger
}

pub fn hero() -> CharacterId {
    character(1)
}

pub fn character(n: u64) -> CharacterId {
    CharacterId::new(n).unwrap()
}

pub fn boss() -> EntityId {
    EntityId::new(EntityKind::Boss, 1).unwrap()
}

pub fn lease(n: u64) -> LeaseId {
    LeaseId::from_bits(n)
}

pub fn authority(entity: EntityId, epoch: u64, by: u64) -> Authority {
    Authority { entity, epoch: Epoch(epoch), lease: lease(by) }
}

/// Hero hits boss.
pub fn hit(number: u64, damage: u32) -> Operation {
    Operation {
        character: hero(),
        generation: Generation(1),
        number: OpNumber(number),
        digest: Digest([number as u8; 16]),
        authority: vec![authority(hero().entity(), 1, 1), authority(boss(), 1, 1)],
        effect: Effect::Attack { target: boss(), blow: Blow { damage, experience: 7, bounty: 20 } },
    }
}

pub async fn ask_within(ledger: &Ledger, submission: Submission, patience: Duration) -> Answer {
    let patience = time::Duration::from_nanos(u64::try_from(patience.as_nanos()).unwrap());
    let op = OpId { incarnation: Incarnation(1), counter: 1 };
    ledger.ask(Asked { op, deadline: clock::now() + patience, submission }).await
}

pub async fn ask(ledger: &Ledger, submission: Submission) -> Answer {
    ask_within(ledger, submission, PATIENCE).await
}

pub async fn claim(ledger: &Ledger, by: u64, entities: &[(EntityId, u64)]) -> Vec<Result<Box<Durable>, Refusal>> {
    let entities = entities.iter().map(|&(entity, epoch)| (entity, Epoch(epoch))).collect();
    match ask(ledger, Submission::Claim { lease: lease(by), entities }).await {
        Answer::Claimed(Outcome::Done(each)) => each,
        other => panic!("{other:?}"),
    }
}

pub async fn login(ledger: &Ledger, nonce: u64) -> Login {
    match ask(ledger, Submission::Login { character: hero(), nonce: Nonce(nonce), issued_unix_ms: 0 }).await {
        Answer::LoggedIn(Outcome::Done(login)) => login,
        other => panic!("{other:?}"),
    }
}

pub fn batch(operations: Vec<Operation>, checkpoints: Vec<Checkpoint>) -> Submission {
    Submission::Commit(Batch { operations, checkpoints, published: vec![] }.into())
}

pub async fn commit_within(ledger: &Ledger, operations: Vec<Operation>, patience: Duration) -> Outcome<Committed> {
    match ask_within(ledger, batch(operations, vec![]), patience).await {
        Answer::Committed(outcome) => outcome,
        other => panic!("{other:?}"),
    }
}

pub async fn commit(ledger: &Ledger, operations: Vec<Operation>) -> Vec<Verdict> {
    match commit_within(ledger, operations, PATIENCE).await {
        Outcome::Done(committed) => committed.verdicts,
        other => panic!("{other:?}"),
    }
}

/// Asks until the answer is `yes`: for what comes about on its own and tells nobody.
pub async fn until(mut asked: impl AsyncFnMut() -> bool) {
    let mut pulse = tokio::time::interval(Duration::from_millis(5));
    let waiting = async {
        while !asked().await {
            pulse.tick().await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.expect("it comes about");
}

/// Waits until a call of ours waits for a lock in this database, and returns its backend.
pub async fn blocked(url: &str) -> i64 {
    let mut connection = PgConnection::connect(url).await.expect("the server is there");
    let waits =
        "select pid::bigint from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";
    let waiting = async {
        loop {
            if let Some(row) = connection.fetch_optional(waits).await.expect("it answers") {
                return row.get(0);
            }
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.expect("a call waits")
}

/// A transaction that holds the row of the hero.
pub async fn holding(url: &str) -> PgConnection {
    let mut connection = PgConnection::connect(url).await.expect("the server is there");
    connection.execute("begin").await.unwrap();
    connection.execute("select 1 from worldline.entities where name = 'character-1' for update").await.unwrap();
    connection
}

/// The address of a server where nobody listens.
pub async fn nobody() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    format!("postgres://postgres@{}/world", listener.local_addr().unwrap())
}
