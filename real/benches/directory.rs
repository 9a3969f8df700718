//! Batched compare-and-set through the adapter against the same transactions through the etcd client that it is made of, on
//! one etcd, in turns. Both write the same paths and values.
//!
//! `eval "$(ci/services start --only etcd)"; cargo bench -p worldline-real --bench directory`. Exit 1 below [`RATIO_MIN`].

use etcd_client::{Client, Compare as Condition, CompareOp, DeleteOptions, KvClient, Txn, TxnOp};
use std::{process::ExitCode, sync::Arc, time::Duration};
use worldline_proto::{EntityId, EntityKind, Epoch, Incarnation, LeaseId, Nonce, OpId, Revision};
use worldline_real::{
    Inbox, Taker, clock,
    directory::{Config, Directory, codec},
    ready::Readiness,
};
use worldline_system::{
    Outcome,
    doors::{
        Asked, Event,
        directory::{self, Answer, Compare, Key, Ownership, Submission, Transaction, Value, Write},
    },
    time,
};

/// Transactions in flight, and after it the depth at which the added latency is measured.
const DEPTHS: [usize; 2] = [64, 1];
/// Records in a transaction: as many as a worker claims in a group.
const RECORDS: u64 = 16;
/// Transactions of a lane in a turn, at each depth.
const TRANSACTIONS: [usize; 2] = [64, 512];
/// Turns of each contender; the first warms up.
const TURNS: usize = 10;
/// The goal at depth 64.
const RATIO_MIN: f64 = 0.8;
const DEADLINE: time::Duration = time::Duration::from_secs(60);

fn main() -> ExitCode {
    let Ok(url) = std::env::var("WORLDLINE_TEST_ETCD") else {
        eprintln!("WORLDLINE_TEST_ETCD names no etcd: eval \"$(ci/services start --only etcd)\"");
        return ExitCode::from(64);
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let mut bench = runtime.block_on(Bench::new(&url));
    let mut good = true;
    for (depth, transactions) in DEPTHS.into_iter().zip(TRANSACTIONS) {
        let (mut plain, mut ours) = (Vec::new(), Vec::new());
        let mut lanes: Vec<Lane> = (0..depth).map(Lane::new).collect();
        for turn in 0..TURNS {
            plain.push(runtime.block_on(bench.plain(&mut lanes, transactions)));
            ours.push(bench.adapter(&mut lanes, transactions));
            if turn == 0 {
                plain.clear();
                ours.clear();
            }
        }
        runtime.block_on(bench.forget(&lanes));
        good &= report(depth, plain, ours);
    }
    runtime.block_on(bench.directory.close());
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What a turn took: each transaction, sorted, and all of them.
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
    println!("compare-and-set of {RECORDS} records at depth {depth}");
    for (name, turns) in [("etcd-client", &plain), ("adapter", &ours)] {
        let (p50, p95) = (at(turns, 50), at(turns, 95));
        println!("  {name:<12}{:>8.0} transactions/s   p50 {p50:>7.0} us   p95 {p95:>7.0} us", rate(turns));
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

/// Records that only one transaction at a time writes.
#[derive(Clone)]
struct Lane {
    keys: Vec<Key>,
    /// Of their last change; 0 before the first.
    revision: Revision,
    writes: u64,
}

impl Lane {
    fn new(lane: usize) -> Self {
        let first = (u64::from(std::process::id()) << 16) + lane as u64 * RECORDS;
        let keys = (first..first + RECORDS).map(|n| Key::Owner(EntityId::new(EntityKind::Npc, n).expect("in range")));
        Self { keys: keys.collect(), revision: Revision(0), writes: 0 }
    }

    fn value(&mut self) -> Value {
        self.writes += 1;
        let (epoch, nonce) = (Epoch(self.writes), Nonce(self.writes));
        Value::Owner(Ownership { lease: LeaseId::from_bits(1), epoch, nonce })
    }

    fn submission(&mut self) -> Submission {
        let value = self.value();
        let compare = |&key| match self.revision {
            Revision(0) => Compare::Absent(key),
            revision => Compare::Unchanged(key, revision),
        };
        Submission::Transact(Arc::new(Transaction {
            compares: self.keys.iter().map(compare).collect(),
            writes: self.keys.iter().map(|&key| Write::Put { key, value, lease: None }).collect(),
            otherwise: self.keys.clone(),
        }))
    }

    fn transaction(&mut self) -> Txn {
        let value = self.value();
        let revision = self.revision.0 as i64;
        let compare = |&key| Condition::mod_revision(codec::path(key), CompareOp::Equal, revision);
        let put = |&key| TxnOp::put(codec::path(key), codec::encode(value), None);
        let get = |&key| TxnOp::get(codec::path(key), None);
        Txn::new()
            .when(self.keys.iter().map(compare).collect::<Vec<_>>())
            .and_then(self.keys.iter().map(put).collect::<Vec<_>>())
            .or_else(self.keys.iter().map(get).collect::<Vec<_>>())
    }
}

/// Both contenders.
struct Bench {
    client: Client,
    directory: Directory,
    taker: Taker,
}

impl Bench {
    async fn new(url: &str) -> Self {
        let client = Client::connect([url], None).await.expect("etcd is there");
        let (inbox, ready) = (Inbox::default(), Readiness::default());
        let config = Config { endpoints: vec![url.parse().expect("an address")] };
        let directory = Directory::new(config, inbox.clone(), ready.clone());
        ready.until(|problems| problems.is_empty()).await;
        Self { client, directory, taker: Taker::new(inbox) }
    }

    async fn plain(&self, lanes: &mut [Lane], transactions: usize) -> Turn {
        let begun = clock::now();
        let spawn = |lane: &Lane| tokio::spawn(plain_lane(self.client.kv_client(), lane.clone(), transactions));
        let running: Vec<_> = lanes.iter().map(spawn).collect();
        let mut each = Vec::new();
        for (lane, running) in lanes.iter_mut().zip(running) {
            let (after, took) = running.await.expect("a lane ends");
            *lane = after;
            each.extend(took);
        }
        Turn::new(begun, each)
    }

    /// As a role's thread does it: submits, and takes the answers out of the inbox.
    fn adapter(&mut self, lanes: &mut [Lane], transactions: usize) -> Turn {
        let begun = clock::now();
        let (mut asked, mut left) = (vec![begun; lanes.len()], vec![transactions; lanes.len()]);
        let mut submit = |lane: usize, lanes: &mut [Lane], asked: &mut [time::Instant]| {
            let Some(rest) = left[lane].checked_sub(1) else { return 0 };
            left[lane] = rest;
            let submission = lanes[lane].submission();
            asked[lane] = clock::now();
            self.directory.submit(Asked { op: op(lane), deadline: asked[lane] + DEADLINE, submission });
            1
        };
        let mut in_flight = 0;
        for lane in 0..lanes.len() {
            in_flight += submit(lane, lanes, &mut asked);
        }
        let mut each = Vec::new();
        while in_flight > 0 {
            let Some(Event::Directory(directory::Event::Answered { op, answer })) =
                self.taker.next_event(clock::span(DEADLINE))
            else {
                panic!("no answer")
            };
            let Answer::Transacted(Outcome::Done(transacted)) = *answer else { panic!("{answer:?}") };
            assert!(transacted.succeeded, "nobody else writes there");
            let lane = op.counter as usize;
            lanes[lane].revision = transacted.revision;
            each.push(since(asked[lane]));
            in_flight -= 1;
            in_flight += submit(lane, lanes, &mut asked);
        }
        Turn::new(begun, each)
    }

    async fn forget(&self, lanes: &[Lane]) {
        let mut client = self.client.kv_client();
        for key in lanes.iter().flat_map(|lane| &lane.keys) {
            client.delete(codec::path(*key), Some(DeleteOptions::new())).await.expect("deleted");
        }
    }
}

async fn plain_lane(mut client: KvClient, mut lane: Lane, transactions: usize) -> (Lane, Vec<Duration>) {
    let mut each = Vec::new();
    for _ in 0..transactions {
        let asked = clock::now();
        let response = client.txn(lane.transaction()).await.expect("an answer");
        assert!(response.succeeded(), "nobody else writes there");
        lane.revision = Revision(response.header().expect("a header").revision() as u64);
        each.push(since(asked));
    }
    (lane, each)
}

fn op(lane: usize) -> OpId {
    OpId { incarnation: Incarnation(1), counter: lane as u64 }
}
