//! The adapter on real servers, one or more a test, which the test fills, stops, kills and starts again.

mod bad_services;
mod faults;
mod places;
mod valkey;
mod values;

use super::{Cache, Config};
use crate::{Inbox, clock, ready::Readiness};
use redis::{Cmd, FromRedisValue};
use std::{cell::RefCell, collections::BTreeMap};
use valkey::Valkey;
use worldline_proto::{CharacterId, Digest, Epoch, Incarnation, NodeId, OpId, Version};
use worldline_system::{
    Outcome, Refusal,
    doors::{
        self, Asked,
        cache::{
            Answer, CounterKey, Fields, Hash, HashKey, Kept, Key, Neighbour, RevokedKey, Stamp, Submission, Violation,
        },
        directory::RegionId,
    },
    limits,
    rules::space::Position,
    time,
};

/// How long the cache is given: more than a role gives it, for a machine may be busy.
const PATIENCE: time::Duration = time::Duration::from_secs(20);
/// What happens at all happens within this, also on a busy machine.
const SOON: time::Duration = time::Duration::from_secs(60);

/// A role's side of an adapter: what it asks and what it is told.
struct Caller {
    runtime: tokio::runtime::Runtime,
    cache: Cache,
    inbox: Inbox,
    ready: Readiness,
    asked: u64,
    answers: BTreeMap<OpId, Answer>,
}

impl Caller {
    fn new<U: AsRef<str>>(urls: &[U]) -> Self {
        let endpoints = urls.iter().map(|url| url.as_ref().parse().expect("a right address")).collect();
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(2).enable_all().build().expect("a runtime");
        let (inbox, ready) = (Inbox::default(), Readiness::default());
        let cache = {
            let _inside = runtime.enter();
            Cache::new(Config { endpoints }, inbox.clone(), ready.clone())
        };
        Self { runtime, cache, inbox, ready, asked: 0, answers: BTreeMap::new() }
    }

    /// One that is connected.
    fn connected<U: AsRef<str>>(urls: &[U]) -> Self {
        let caller = Self::new(urls);
        caller.until_connected();
        caller
    }

    fn until_connected(&self) {
        self.until("connected", |lacks| lacks.is_empty());
        assert!(self.ready.problems().is_empty(), "a process is ready without its cache");
    }

    /// What is wrong with the cache, once it contains this. The process is ready all the same.
    fn problem(&self, part: &str) -> String {
        let found = RefCell::default();
        self.until(part, |lacks| {
            let problem = lacks.get("cache").filter(|problem| problem.contains(part));
            problem.is_some_and(|problem| {
                found.replace(problem.clone());
                true
            })
        });
        assert!(self.ready.problems().is_empty(), "a process is ready without its cache");
        found.into_inner()
    }

    fn until(&self, what: &str, state: impl Fn(&BTreeMap<&'static str, String>) -> bool) {
        let waited = async { tokio::time::timeout(clock::span(SOON), self.ready.until_degraded(state)).await };
        let lacks = || self.ready.degradations();
        assert!(self.runtime.block_on(waited).is_ok(), "{what}: not within {SOON:?}, but {:?}", lacks());
    }

    fn ask(&mut self, submission: Submission) -> OpId {
        self.asked += 1;
        let op = OpId { incarnation: Incarnation(1), counter: self.asked };
        self.cache.submit(Asked { op, deadline: clock::now() + PATIENCE, submission });
        op
    }

    /// The answer to an operation, within [`SOON`].
    fn answer(&mut self, op: OpId) -> Answer {
        let by = clock::now() + SOON;
        while !self.answers.contains_key(&op) {
            let item = self.inbox.take(clock::until(by)).unwrap_or_else(|| panic!("{op} is not answered"));
            match item.into_event() {
                doors::Event::Cache(event) => {
                    let before = self.answers.insert(event.op, *event.answer);
                    assert!(before.is_none(), "{op} is answered once");
                }
                other => panic!("{other:?} is not of the cache"),
            }
        }
        self.answers[&op].clone()
    }

    fn call(&mut self, submission: Submission) -> Answer {
        let op = self.ask(submission);
        self.answer(op)
    }

    /// Repeats it until there is a connection to send it on.
    fn call_when_connected(&mut self, submission: &Submission, refused: &Answer) -> Answer {
        let by = clock::now() + SOON;
        loop {
            let answer = self.call(submission.clone());
            if &answer != refused {
                return answer;
            }
            assert!(clock::now() < by, "there is a connection by then");
            self.until_connected();
        }
    }

    /// Does something on the server as another client.
    fn other<T: FromRedisValue>(&self, server: &Valkey, command: &[&str]) -> T {
        self.runtime.block_on(async {
            let client = redis::Client::open(server.url()).expect("an address");
            let mut connection = client.get_multiplexed_async_connection().await.expect("it is there");
            let mut call = Cmd::new();
            command.iter().for_each(|part| {
                call.arg(part);
            });
            call.query_async(&mut connection).await.expect("it does it")
        })
    }

    fn counted(&self, name: &str) -> u64 {
        self.cache.counters().into_iter().find(|(counter, _)| *counter == name).expect("a counter").1
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        self.runtime.block_on(self.cache.close());
    }
}

fn hero(n: u64) -> CharacterId {
    CharacterId::new(n).expect("a small number")
}

fn session(n: u64) -> HashKey {
    HashKey::Session(hero(n))
}

fn fields(pairs: &[(&str, &str)]) -> Fields {
    pairs.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn write(n: u64, value: &str) -> Submission {
    Submission::Write { key: session(n), fields: fields(&[("v", value)]) }
}

fn read(n: u64) -> Submission {
    Submission::Read(session(n))
}

fn keep(n: u64, epoch: u64, version: u64) -> Submission {
    let fields = fields(&[("v", &format!("{epoch}/{version}"))]);
    Submission::Keep { key: HashKey::Checkpoint(hero(n).entity()), stamp: stamp(epoch, version), fields }
}

fn stamp(epoch: u64, version: u64) -> Stamp {
    Stamp { epoch: Epoch(epoch), version: Version(version) }
}

fn speed(n: u64) -> CounterKey {
    CounterKey { character: hero(n), violation: Violation::Speed }
}

fn increment(n: u64, by: i64) -> Submission {
    Submission::Increment { key: speed(n), by: by.try_into().expect("not zero") }
}

fn place(n: u64, x_mm: i64, y_mm: i64) -> Submission {
    Submission::Place { region: RegionId(0), member: hero(n), at: Position { x_mm, y_mm } }
}

fn near(around: Position, radius_mm: u64, limit: u16) -> Submission {
    Submission::Near { region: RegionId(0), around, radius_mm, limit }
}

fn hash(value: &str) -> Answer {
    Answer::Read(Outcome::Done(Some(Hash { stamp: None, fields: fields(&[("v", value)]) })))
}

fn miss() -> Answer {
    Answer::Read(Outcome::Done(None))
}

fn written() -> Answer {
    Answer::Written(Outcome::Done(()))
}
