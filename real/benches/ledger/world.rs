//! A database in which each lane has a hero and a boss of its own, and a ledger on it.

use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};
use worldline_proto::{
    CharacterId, Digest, EntityId, EntityKind, Epoch, Generation, Incarnation, LeaseId, Nonce, OpId, OpNumber,
};
use worldline_real::{
    Inbox, clock,
    ledger::{self, Config, Ledger, Seed},
    ready::Readiness,
};
use worldline_system::{
    Outcome,
    doors::{
        Asked,
        ledger::{Answer, Authority, Batch, Effect, Operation, Submission},
    },
    rules::{attack::Blow, space::Position},
    time,
};

/// How long anything may take.
pub const DEADLINE: time::Duration = time::Duration::from_secs(60);

pub struct World {
    /// The address of its database.
    pub url: String,
    pub ledger: Ledger,
    pub inbox: Inbox,
    next: Vec<u64>,
}

impl World {
    /// On the server at this address, whatever database it names.
    pub async fn new(server: &str, lanes: usize, connections: usize) -> Self {
        let (scheme, rest) = server.split_once("://").expect("an address");
        let server = format!("{scheme}://{}", rest.split('/').next().expect("a host"));
        let name = format!("bench_{}", std::process::id());
        let mut connection = PgConnection::connect(&format!("{server}/postgres")).await.expect("the server is there");
        connection
            .execute(AssertSqlSafe(format!("create database {name} template template0")))
            .await
            .expect("a database");
        let url = format!("{server}/{name}");
        ledger::migrate(&url).await.expect("a schema");
        let seed =
            |entity| Seed { entity, position: Position::default(), pinned: None, hit_points: u32::MAX, balance: 0 };
        let seeds: Vec<_> = (0..lanes).flat_map(|lane| [seed(hero(lane).entity()), seed(boss(lane))]).collect();
        ledger::seed(&url, &seeds).await.expect("entities");
        let inbox = Inbox::default();
        let mut config = Config::new(&url).expect("an address");
        config.connections = connections;
        let ledger = Ledger::new(config, inbox.clone(), Readiness::default());
        let world = Self { url, ledger, inbox, next: vec![1; lanes] };
        for lane in 0..lanes {
            let entities = vec![(hero(lane).entity(), Epoch(1)), (boss(lane), Epoch(1))];
            world.ask(Submission::Claim { lease: LeaseId::from_bits(1), entities }).await;
            world.ask(Submission::Login { character: hero(lane), nonce: Nonce(1), issued_unix_ms: 0 }).await;
        }
        world
    }

    /// Asks, and waits for what must be done.
    pub async fn ask(&self, submission: Submission) {
        let answer = self.ledger.ask(Asked { op: op(0), deadline: clock::now() + DEADLINE, submission }).await;
        assert!(matches!(answer, Answer::Claimed(Outcome::Done(_)) | Answer::LoggedIn(Outcome::Done(_))), "{answer:?}");
    }

    /// The next batch of so many blows of a lane's hero at its boss.
    pub fn batch(&mut self, lane: usize, operations: usize) -> Batch {
        let authority = |entity| Authority { entity, epoch: Epoch(1), lease: LeaseId::from_bits(1) };
        let operations = (0..operations).map(|_| {
            let number = self.next[lane];
            self.next[lane] += 1;
            Operation {
                character: hero(lane),
                generation: Generation(1),
                number: OpNumber(number),
                digest: Digest([number as u8; 16]),
                authority: vec![authority(hero(lane).entity()), authority(boss(lane))],
                effect: Effect::Attack { target: boss(lane), blow: Blow { damage: 1, experience: 1, bounty: 0 } },
            }
        });
        Batch { operations: operations.collect(), checkpoints: vec![], published: vec![] }
    }

    /// Ends the ledger and drops the database. Nobody else may hold a connection to it.
    pub async fn drop(self) {
        self.ledger.close().await;
        let (server, name) = self.url.rsplit_once('/').expect("an address");
        let mut connection = PgConnection::connect(&format!("{server}/postgres")).await.expect("the server is there");
        let drop = format!("drop database {name} with (force)");
        connection.execute(AssertSqlSafe(drop)).await.expect("nobody holds it");
    }
}

pub fn hero(lane: usize) -> CharacterId {
    CharacterId::new(lane as u64).expect("in range")
}

pub fn boss(lane: usize) -> EntityId {
    EntityId::new(EntityKind::Boss, lane as u64).expect("in range")
}

pub fn op(lane: usize) -> OpId {
    OpId { incarnation: Incarnation(1), counter: lane as u64 }
}
