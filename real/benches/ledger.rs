//! Batched commits through the adapter against the same SQL through plain sqlx, on one server, with as many connections, in
//! turns. Plain sqlx has the batches as text beforehand and does not read the answers; the adapter writes and reads them.
//!
//! `eval "$(ci/services start --only postgres)"; cargo bench -p worldline-real --bench ledger`. Exit 1 below [`RATIO_MIN`].

#[path = "ledger/world.rs"]
mod world;

use sqlx::{
    PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use std::{collections::VecDeque, process::ExitCode, str::FromStr, sync::Arc, time::Duration};
use world::{DEADLINE, World, op};
use worldline_real::clock;
use worldline_system::{
    Outcome,
    doors::{
        Asked, Event,
        ledger::{Answer, Batch, Submission, Verdict},
    },
};

/// Lanes, each with one batch in flight, and the batches of a lane in a turn: at the first depth the throughput is measured,
/// at the second what the adapter adds to a call.
const DEPTHS: [(usize, usize); 2] = [(64, 16), (1, 256)];
/// Lanes at most.
const LANES: usize = 64;
/// Operations in a batch.
const OPERATIONS: usize = 16;
/// Turns of each contender; the first warms up.
const TURNS: usize = 10;
const CONNECTIONS: usize = 8;
/// The goal at depth 64.
const RATIO_MIN: f64 = 0.8;
const COMMIT: &str = "select worldline.commit($1::text::jsonb)::text";

fn main() -> ExitCode {
    let Ok(server) = std::env::var("WORLDLINE_TEST_POSTGRES") else {
        eprintln!("WORLDLINE_TEST_POSTGRES names no server: eval \"$(ci/services start --only postgres)\"");
        return ExitCode::from(64);
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let mut bench = runtime.block_on(Bench::new(&server));
    let mut good = true;
    for (depth, batches) in DEPTHS {
        let (mut plain, mut ours) = (Vec::new(), Vec::new());
        for turn in 0..TURNS {
            let lanes = bench.lanes(depth, batches);
            let texts = lanes.iter().map(|lane| lane.iter().map(text).collect()).collect();
            plain.push(runtime.block_on(bench.plain(texts)));
            let lanes = bench.lanes(depth, batches);
            ours.push(bench.adapter(lanes));
            if turn == 0 {
                plain.clear();
                ours.clear();
            }
        }
        good &= report(depth, plain, ours);
    }
    runtime.block_on(async {
        bench.pool.close().await;
        bench.world.drop().await;
    });
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What a turn took: each batch, sorted, and all of them.
struct Turn {
    each: Vec<Duration>,
    whole: Duration,
}

fn report(depth: usize, plain: Vec<Turn>, ours: Vec<Turn>) -> bool {
    let rate =
        |turns: &[Turn]| median(turns.iter().map(|turn| turn.each.len() as f64 / turn.whole.as_secs_f64()).collect());
    let p50 =
        |turns: &[Turn]| median(turns.iter().map(|turn| turn.each[turn.each.len() / 2].as_secs_f64() * 1e3).collect());
    let p95 = |turns: &[Turn]| {
        median(turns.iter().map(|turn| turn.each[turn.each.len() * 95 / 100].as_secs_f64() * 1e3).collect())
    };
    println!("commits of {OPERATIONS} operations at depth {depth}, {CONNECTIONS} connections");
    for (name, turns) in [("sqlx", &plain), ("adapter", &ours)] {
        println!(
            "  {name:<8} {:>8.0} batches/s   p50 {:>7.2} ms   p95 {:>7.2} ms",
            rate(turns),
            p50(turns),
            p95(turns)
        );
    }
    // Of turns that follow each other: what else the machine does is the same for both.
    let pairs = ours.iter().zip(&plain);
    let ratio = median(pairs.map(|(ours, plain)| plain.whole.as_secs_f64() / ours.whole.as_secs_f64()).collect());
    println!("  ratio    {ratio:>8.2}             added latency p50 {:.2} ms", p50(&ours) - p50(&plain));
    depth == 1 || ratio >= RATIO_MIN
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn text(batch: &Batch) -> String {
    serde_json::to_string(batch).expect("a batch is JSON")
}

/// Both contenders.
struct Bench {
    pool: PgPool,
    world: World,
}

impl Bench {
    async fn new(server: &str) -> Self {
        let world = World::new(server, LANES, CONNECTIONS).await;
        // As the adapter's own connections are; asking whether one is alive before each call would slow the peer down.
        let options = PgConnectOptions::from_str(&world.url).expect("an address");
        let options = options.options([("synchronous_commit", "on")]);
        let pool = PgPoolOptions::new().max_connections(CONNECTIONS as u32).test_before_acquire(false);
        let pool = pool.connect_with(options).await.expect("connections");
        Self { pool, world }
    }

    /// The batches of a turn, by lane.
    fn lanes(&mut self, depth: usize, batches: usize) -> Vec<Vec<Batch>> {
        (0..depth).map(|lane| (0..batches).map(|_| self.world.batch(lane, OPERATIONS)).collect()).collect()
    }

    async fn plain(&self, lanes: Vec<Vec<String>>) -> Turn {
        let begun = clock::now();
        let lanes: Vec<_> = lanes.into_iter().map(|lane| tokio::spawn(plain_lane(self.pool.clone(), lane))).collect();
        let mut each = Vec::new();
        for lane in lanes {
            each.extend(lane.await.expect("a lane ends"));
        }
        each.sort_unstable();
        Turn { each, whole: clock::span(clock::now().since(begun)) }
    }

    /// As a role's thread does it: submits, takes the answers out of the inbox, and submits again what was refused.
    fn adapter(&self, lanes: Vec<Vec<Batch>>) -> Turn {
        let begun = clock::now();
        let mut since = vec![begun; lanes.len()];
        let mut lanes: Vec<VecDeque<Arc<Batch>>> =
            lanes.into_iter().map(|lane| lane.into_iter().map(Arc::new).collect()).collect();
        let mut each = Vec::new();
        let submit = |lane: usize, batch: &Arc<Batch>| {
            let submission = Submission::Commit(batch.clone());
            self.world.ledger.submit(Asked { op: op(lane), deadline: clock::now() + DEADLINE, submission });
        };
        lanes.iter().enumerate().for_each(|(lane, batches)| submit(lane, &batches[0]));
        let mut busy = lanes.len();
        while busy > 0 {
            let Some(Event::Ledger(event)) = self.world.inbox.next_event(clock::span(DEADLINE)) else {
                panic!("no answer")
            };
            let lane = event.op.counter as usize;
            match *event.answer {
                Answer::Committed(Outcome::Done(committed)) => {
                    assert!(committed.verdicts.iter().all(|verdict| matches!(verdict, Verdict::Applied(_))));
                    lanes[lane].pop_front();
                    each.push(clock::span(clock::now().since(since[lane])));
                    since[lane] = clock::now();
                }
                Answer::Committed(Outcome::Refused(refusal)) => eprintln!("refused: {refusal}"),
                other => panic!("{other:?}"),
            }
            match lanes[lane].front() {
                Some(batch) => submit(lane, batch),
                None => busy -= 1,
            }
        }
        each.sort_unstable();
        Turn { each, whole: clock::span(clock::now().since(begun)) }
    }
}

async fn plain_lane(pool: PgPool, lane: Vec<String>) -> Vec<Duration> {
    let mut each = Vec::new();
    for batch in lane {
        let begun = clock::now();
        let rows = sqlx::query(COMMIT).bind(batch).fetch_all(&pool).await.expect("an answer");
        assert_eq!(rows.len(), 1);
        each.push(clock::span(clock::now().since(begun)));
    }
    each
}
