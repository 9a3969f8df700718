//! Reads and writes of session data through the adapter against the same commands through the redis client that it is made of,
//! on one server, in turns. Writes are one script in both, so that no entry is left without an end.
//!
//! `eval "$(ci/services start --only valkey)"; cargo bench -p worldline-real --bench cache`. Exit 1 below [`RATIO_MIN`].

use redis::aio::MultiplexedConnection;
use std::{process::ExitCode, time::Duration};
use worldline_proto::{CharacterId, Incarnation, OpId};
use worldline_real::{
    Inbox, Taker,
    cache::{Cache, Config},
    clock,
    ready::Readiness,
};
use worldline_system::{
    Outcome,
    doors::{
        Asked, Event,
        cache::{self, Answer, Fields, HashKey, Submission},
    },
    time,
};

/// Operations in flight, and after it the depth at which the added latency is measured.
const DEPTHS: [usize; 2] = [64, 1];
/// Operations of a lane in a turn, at each depth: writes and reads by turns.
const OPERATIONS: [usize; 2] = [512, 4_096];
/// Turns of each contender; the first warms up.
const TURNS: usize = 10;
/// The goal at depth 64.
const RATIO_MIN: f64 = 0.8;
const DEADLINE: time::Duration = time::Duration::from_secs(60);
/// What the adapter does for a write.
const WRITE: &str = "redis.call('HSET', KEYS[1], unpack(ARGV, 2)) redis.call('PEXPIRE', KEYS[1], ARGV[1]) return 1";

fn main() -> ExitCode {
    let Ok(url) = std::env::var("WORLDLINE_TEST_VALKEY") else {
        eprintln!("WORLDLINE_TEST_VALKEY names no cache: eval \"$(ci/services start --only valkey)\"");
        return ExitCode::from(64);
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let mut bench = runtime.block_on(Bench::new(&url));
    let mut good = true;
    for (depth, operations) in DEPTHS.into_iter().zip(OPERATIONS) {
        let (mut plain, mut ours) = (Vec::new(), Vec::new());
        for turn in 0..TURNS {
            plain.push(runtime.block_on(bench.plain(depth, operations)));
            ours.push(bench.adapter(depth, operations));
            if turn == 0 {
                plain.clear();
                ours.clear();
            }
        }
        good &= report(depth, plain, ours);
    }
    runtime.block_on(bench.cache.close());
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What a turn took: each operation, sorted, and all of them.
struct Turn {
    each: Vec<Duration>,
    whole: Duration,
}

impl Turn {
    fn new(begun: time::Instant, mut each: Vec<Duration>) -> Self {
        each.sort_unstable();
        Self { each, whole: since(begun) }
    }
}

fn report(depth: usize, plain: Vec<Turn>, ours: Vec<Turn>) -> bool {
    let over = |turns: &[Turn], of: &dyn Fn(&Turn) -> f64| median(turns.iter().map(of).collect());
    let rate = |turns: &[Turn]| over(turns, &|turn| turn.each.len() as f64 / turn.whole.as_secs_f64());
    let at = |turns: &[Turn], percent: usize| {
        over(turns, &|turn| turn.each[turn.each.len() * percent / 100].as_secs_f64() * 1e6)
    };
    println!("session reads and writes at depth {depth}");
    for (name, turns) in [("redis", &plain), ("adapter", &ours)] {
        let (p50, p95) = (at(turns, 50), at(turns, 95));
        println!("  {name:<12}{:>8.0} operations/s   p50 {p50:>7.0} us   p95 {p95:>7.0} us", rate(turns));
    }
    let ratio = median(
        ours.iter().zip(&plain).map(|(ours, plain)| plain.whole.as_secs_f64() / ours.whole.as_secs_f64()).collect(),
    );
    println!("  ratio       {ratio:>8.2}                  added latency p50 {:.0} us", at(&ours, 50) - at(&plain, 50));
    depth == 1 || ratio >= RATIO_MIN
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn since(begun: time::Instant) -> Duration {
    clock::span(clock::now().since(begun))
}

fn key(lane: usize) -> HashKey {
    let number = (u64::from(std::process::id()) << 16) + lane as u64;
    HashKey::Session(CharacterId::new(number).expect("in range"))
}

/// The `n`-th write of a lane: a position, a velocity and a cooldown.
fn fields(n: usize) -> Fields {
    let fields = [("x_mm", n.to_string()), ("y_mm", "-1234567".into()), ("cooldown_end_ms", "1767225600000".into())];
    fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// Both contenders.
struct Bench {
    connection: MultiplexedConnection,
    write: String,
    cache: Cache,
    taker: Taker,
}

impl Bench {
    async fn new(url: &str) -> Self {
        let client = redis::Client::open(url).expect("an address");
        let mut connection = client.get_multiplexed_async_connection().await.expect("the cache is there");
        let mut load = redis::cmd("SCRIPT");
        let write = load.arg("LOAD").arg(WRITE).query_async(&mut connection).await.expect("it takes scripts");
        let (inbox, ready) = (Inbox::default(), Readiness::default());
        let config = Config { endpoints: vec![url.parse().expect("an address")] };
        let cache = Cache::new(config, inbox.clone(), ready.clone());
        ready.until_degraded(|lacks| lacks.is_empty()).await;
        Self { connection, write, cache, taker: Taker::new(inbox) }
    }

    async fn plain(&self, lanes: usize, operations: usize) -> Turn {
        let begun = clock::now();
        let spawn =
            |lane: usize| tokio::spawn(plain_lane(self.connection.clone(), self.write.clone(), key(lane), operations));
        let running: Vec<_> = (0..lanes).map(spawn).collect();
        let mut each = Vec::new();
        for running in running {
            each.extend(running.await.expect("a lane ends"));
        }
        Turn::new(begun, each)
    }

    /// As a role's thread does it: submits, and takes the answers out of the inbox.
    fn adapter(&mut self, lanes: usize, operations: usize) -> Turn {
        let begun = clock::now();
        let (mut asked, mut done) = (vec![begun; lanes], vec![0; lanes]);
        let cache = self.cache.clone();
        let submit = |lane: usize, n: usize, asked: &mut [time::Instant]| {
            if n == operations {
                return 0;
            }
            let submission = match n % 2 {
                0 => Submission::Write { key: key(lane), fields: fields(n) },
                _ => Submission::Read(key(lane)),
            };
            asked[lane] = clock::now();
            cache.submit(Asked { op: op(lane), deadline: asked[lane] + DEADLINE, submission });
            1
        };
        let mut in_flight: usize = (0..lanes).map(|lane| submit(lane, 0, &mut asked)).sum();
        let mut each = Vec::new();
        while in_flight > 0 {
            let Some(Event::Cache(cache::Event { op, answer })) = self.taker.next_event(clock::span(DEADLINE)) else {
                panic!("no answer")
            };
            let lane = op.counter as usize;
            match *answer {
                Answer::Written(Outcome::Done(())) if done[lane] % 2 == 0 => {}
                Answer::Read(Outcome::Done(Some(hash))) => assert_eq!(hash.fields, fields(done[lane] - 1)),
                other => panic!("{other:?}"),
            }
            each.push(since(asked[lane]));
            done[lane] += 1;
            in_flight -= 1;
            in_flight += submit(lane, done[lane], &mut asked);
        }
        Turn::new(begun, each)
    }
}

async fn plain_lane(
    mut connection: MultiplexedConnection,
    script: String,
    key: HashKey,
    operations: usize,
) -> Vec<Duration> {
    let mut each = Vec::new();
    for n in 0..operations {
        let asked = clock::now();
        if n % 2 == 0 {
            let mut write = redis::cmd("EVALSHA");
            write.arg(&script).arg(1).arg(key.to_string()).arg(key.ttl().as_millis());
            for (name, value) in fields(n) {
                write.arg(name).arg(value);
            }
            write.exec_async(&mut connection).await.expect("an answer");
        } else {
            let mut read = redis::cmd("HGETALL");
            let read: Fields = read.arg(key.to_string()).query_async(&mut connection).await.expect("an answer");
            assert_eq!(read, fields(n - 1));
        }
        each.push(since(asked));
    }
    each
}

fn op(lane: usize) -> OpId {
    OpId { incarnation: Incarnation(1), counter: lane as u64 }
}
