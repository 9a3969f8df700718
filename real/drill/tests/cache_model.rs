//! The cache's adapter on a real server and the simulator's cache are one: whatever is submitted, both answer the same.
//!
//! What takes time (lives that end) and what a caller cannot do (entries of another type) stands in the tests of each.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

use proptest::{
    prelude::*,
    test_runner::{Config as Runs, TestRunner},
};
use std::{
    cell::Cell,
    net::TcpListener,
    process::{Child, Command, Stdio},
    sync::Arc,
};
use worldline_proto::{CharacterId, Digest, Epoch, Incarnation, NodeId, OpId, Version};
use worldline_real::{Inbox, cache::Cache, clock, ready::Readiness};
use worldline_sim::{NodeSpec, Place, Solo, World, cache, network::latency::City, world};
use worldline_system::{
    Role, Turn,
    doors::{
        self, Asked,
        cache::{Answer, CounterKey, Fields, HashKey, Key, RevokedKey, Stamp, Submission, Violation},
        clock::TimerKey,
        directory::RegionId,
    },
    limits,
    rules::space::Position,
    time::{Duration, Instant},
};

const CASES: u32 = 48;
const STEPS: usize = 120;
/// Few enough that everything meets everything.
const CHARACTERS: u64 = 4;
const PATIENCE: Duration = Duration::from_secs(30);

/// Of whom a case tells: nobody of another case.
#[derive(Clone, Copy, Debug)]
struct Crowd {
    first: u64,
    region: RegionId,
}

impl Crowd {
    fn new(case: u32) -> Self {
        // A case that fails is run again and again, ever smaller: each time with others.
        Self { first: u64::from(case) * 16, region: RegionId(case as u8) }
    }

    fn character(self, n: u64) -> CharacterId {
        CharacterId::new(self.first + n).unwrap()
    }

    fn hash(self, kind: u8, n: u64) -> HashKey {
        let (region, character) = (self.region, self.character(n));
        match kind {
            0 => HashKey::Session(character),
            1 => HashKey::Checkpoint(character.entity()),
            2 => HashKey::Load { region, node: NodeId(n as u32) },
            _ => HashKey::Peer { region, character },
        }
    }

    fn counter(self, n: u64) -> CounterKey {
        CounterKey { character: self.character(n), violation: Violation::Speed }
    }

    fn revoked(self, n: u64) -> RevokedKey {
        let mut digest = [0; 16];
        digest[..8].copy_from_slice(&(self.first + n).to_be_bytes());
        RevokedKey(Digest(digest))
    }
}

/// A submission of a crowd that is not known yet.
#[derive(Clone, Debug)]
enum Step {
    Read(u8, u64),
    Write(u8, u64, Fields),
    Keep(u8, u64, Stamp, Fields),
    Increment(u64, i64),
    Count(u64),
    Get(u64),
    Set(u64, String),
    DeleteHash(u8, u64),
    DeleteCounter(u64),
    DeleteRevoked(u64),
    Leave(u64),
    Place(u64, Position),
    Near(Position, u64),
    Loads,
}

impl Step {
    fn of(&self, crowd: Crowd) -> Submission {
        let Crowd { region, .. } = crowd;
        match self.clone() {
            Self::Read(kind, n) => Submission::Read(crowd.hash(kind, n)),
            Self::Write(kind, n, fields) => Submission::Write { key: crowd.hash(kind, n), fields },
            Self::Keep(kind, n, stamp, fields) => Submission::Keep { key: crowd.hash(kind, n), stamp, fields },
            Self::Increment(n, by) => Submission::Increment {
                key: crowd.counter(n),
                by: by.try_into().unwrap_or(std::num::NonZero::<i64>::MIN),
            },
            Self::Count(n) => Submission::Count(crowd.counter(n)),
            Self::Get(n) => Submission::Get(crowd.revoked(n)),
            Self::Set(n, value) => Submission::Set { key: crowd.revoked(n), value, ttl: PATIENCE * 10 },
            Self::DeleteHash(kind, n) => Submission::Delete(Key::Hash(crowd.hash(kind, n))),
            Self::DeleteCounter(n) => Submission::Delete(Key::Counter(crowd.counter(n))),
            Self::DeleteRevoked(n) => Submission::Delete(Key::Revoked(crowd.revoked(n))),
            Self::Leave(n) => Submission::Delete(Key::Presence { region, member: crowd.character(n) }),
            Self::Place(n, at) => Submission::Place { region, member: crowd.character(n), at },
            Self::Near(around, radius_mm) => {
                Submission::Near { region, around, radius_mm, limit: limits::CACHE_NEIGHBOURS }
            }
            Self::Loads => Submission::Loads(region),
        }
    }
}

fn number() -> impl Strategy<Value = u64> + Clone {
    prop_oneof![6 => 0..4_u64, 1 => Just(u64::MAX), 1 => Just(1 << 53), 1 => any::<u64>()]
}

fn stamp() -> impl Strategy<Value = Stamp> {
    (number(), number()).prop_map(|(epoch, version)| Stamp { epoch: Epoch(epoch), version: Version(version) })
}

fn fields() -> impl Strategy<Value = Fields> {
    // Empty names and values, texts of any alphabet, and now and then what is beyond a bound or not the caller's to write.
    let name = prop_oneof![4 => "[ab]", 1 => "\\PC{0,3}", 1 => Just("stamp".to_owned())];
    prop::collection::btree_map(name, "\\PC{0,6}|[\r\n\0]{0,2}", 0..4)
}

fn place() -> impl Strategy<Value = Position> {
    let side = || prop_oneof![6 => -300_000..300_000_i64, 1 => Just(i64::MAX), 1 => -64_000_000..=64_000_000_i64];
    (side(), side()).prop_map(|(x_mm, y_mm)| Position { x_mm, y_mm })
}

fn step() -> impl Strategy<Value = Step> {
    let (kind, who) = (|| 0..4_u8, || 1..=CHARACTERS);
    let by = prop_oneof![6 => -3..9_i64, 1 => Just(i64::MAX), 1 => Just(i64::MIN), 1 => any::<i64>()];
    prop_oneof![
        3 => (kind(), who()).prop_map(|(kind, n)| Step::Read(kind, n)),
        3 => (kind(), who(), fields()).prop_map(|(kind, n, fields)| Step::Write(kind, n, fields)),
        4 => (kind(), who(), stamp(), fields()).prop_map(|(kind, n, stamp, fields)| Step::Keep(kind, n, stamp, fields)),
        3 => (who(), by).prop_map(|(n, by)| Step::Increment(n, by)),
        1 => who().prop_map(Step::Count),
        1 => who().prop_map(Step::Get),
        1 => (who(), "\\PC{0,9}").prop_map(|(n, value)| Step::Set(n, value)),
        1 => (kind(), who()).prop_map(|(kind, n)| Step::DeleteHash(kind, n)),
        1 => who().prop_map(Step::DeleteCounter),
        1 => who().prop_map(Step::DeleteRevoked),
        1 => who().prop_map(Step::Leave),
        4 => (who(), place()).prop_map(|(n, at)| Step::Place(n, at)),
        3 => (place(), 0..=limits::CACHE_RADIUS_MM + 1).prop_map(|(around, radius_mm)| Step::Near(around, radius_mm)),
        1 => Just(Step::Loads),
    ]
}

/// A role that asks one thing after the other, a millisecond apart.
#[derive(Clone)]
struct Asking {
    script: Arc<[Submission]>,
    heard: Vec<Answer>,
}

impl Role for Asking {
    type Event = doors::Event;
    type Submission = doors::Submission;

    fn on_event(&mut self, event: doors::Event, turn: &mut Turn<'_, doors::Submission>) {
        match event {
            doors::Event::Started => turn.arm_in(TimerKey(0), Duration::from_millis(1)),
            doors::Event::Timer(TimerKey(n)) => {
                let Some(submission) = self.script.get(n as usize).cloned() else { return };
                let (op, deadline) = (turn.next_op(), turn.now() + PATIENCE);
                turn.submit(doors::Submission::Cache(Asked { op, deadline, submission }));
                turn.arm_in(TimerKey(n + 1), Duration::from_millis(1));
            }
            doors::Event::Cache(event) => self.heard.push(*event.answer),
            other => panic!("{other:?} is not of the cache"),
        }
    }

    fn queues(&self, _: &mut dyn FnMut(&'static str, usize, usize)) {}
}

/// What the simulator's cache answers, in the order of the script.
fn simulated(script: &[Submission]) -> Vec<Answer> {
    let mut world = World::new(world::Config { seed: 1, ..world::Config::default() });
    let spec = |name: &str| NodeSpec::new(name, Place::zone(City::Frankfurt, 0));
    let server = world.add_member(spec("cache"));
    let caller = world.add_node(spec("caller"), Solo(Asking { script: script.into(), heard: vec![] }));
    let region = cache::Region { members: vec![server], callers: vec![caller] };
    world.set_cache(cache::Config::new(vec![region]));
    world.start(caller);
    world.run_until(Instant::default() + Duration::from_millis(script.len() as u64 + 200));
    world.actor(caller).unwrap().0.heard.clone()
}

/// A server of the test's own.
struct Server {
    child: Child,
    url: String,
}

impl Server {
    fn start() -> Self {
        let binary = std::env::var_os("WORLDLINE_TEST_VALKEY_BIN")
            .expect("WORLDLINE_TEST_VALKEY_BIN is not set: ci/services install valkey && eval \"$(ci/services env)\"");
        let first = 10_000 + std::process::id() % 2_000;
        let free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
        let port = (first as u16..).find(free).unwrap().to_string();
        let arguments = ["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--port", &port];
        let silent = Command::new(binary).args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        Self { child: silent.expect("the server starts"), url: format!("redis://127.0.0.1:{port}") }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The adapter on it.
struct Real {
    runtime: tokio::runtime::Runtime,
    cache: Cache,
    inbox: Inbox,
    asked: Cell<u64>,
    _server: Server,
}

impl Real {
    fn new() -> Self {
        let server = Server::start();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (inbox, ready) = (Inbox::default(), Readiness::default());
        let cache = {
            let _inside = runtime.enter();
            let config = worldline_real::cache::Config { endpoints: vec![server.url.parse().unwrap()] };
            Cache::new(config, inbox.clone(), ready.clone())
        };
        runtime.block_on(ready.until_degraded(|lacks| lacks.is_empty()));
        Self { runtime, cache, inbox, asked: Cell::new(0), _server: server }
    }

    /// All at once, but that nothing is asked until a search for loads has its answer: that one is no snapshot.
    fn answers(&self, script: &[Submission]) -> Vec<Answer> {
        let chunks = script.split_inclusive(|submission| matches!(submission, Submission::Loads(_)));
        chunks.flat_map(|chunk| self.answers_at_once(chunk)).collect()
    }

    fn answers_at_once(&self, script: &[Submission]) -> Vec<Answer> {
        let first = self.asked.get();
        for submission in script.iter().cloned() {
            self.asked.set(self.asked.get() + 1);
            let op = OpId { incarnation: Incarnation(1), counter: self.asked.get() };
            self.cache.submit(Asked { op, deadline: clock::now() + PATIENCE, submission });
        }
        let mut answers = vec![None; script.len()];
        while answers.iter().any(Option::is_none) {
            match self.inbox.next_event(clock::span(PATIENCE)) {
                Some(doors::Event::Cache(event)) => {
                    answers[(event.op.counter - first - 1) as usize] = Some(*event.answer);
                }
                other => panic!("{other:?} instead of an answer"),
            }
        }
        answers.into_iter().flatten().collect()
    }
}

#[test]
fn the_server_and_the_simulator_answer_everything_alike() {
    let (real, case) = (Real::new(), Cell::new(0));
    let mut runner = TestRunner::new(Runs { cases: CASES, failure_persistence: None, ..Runs::default() });
    let checked = runner.run(&prop::collection::vec(step(), 1..STEPS), |steps| {
        let crowd = Crowd::new(case.replace(case.get() + 1));
        let script: Vec<Submission> = steps.iter().map(|step| step.of(crowd)).collect();
        let (simulated, served) = (simulated(&script), real.answers(&script));
        prop_assert_eq!(simulated.len(), served.len());
        for ((submission, simulated), served) in script.iter().zip(simulated).zip(served) {
            prop_assert_eq!(&simulated, &served, "{:?}", submission);
        }
        Ok(())
    });
    real.runtime.block_on(real.cache.close());
    checked.unwrap();
}
