//! Publishes and deliveries through the adapter against the same through the async-nats that it is made of, on one NATS, in
//! turns: messages of the same bytes with the same headers on the same subjects; consumers with the same bounds.
//!
//! `eval "$(ci/services start --only nats)"; cargo bench -p worldline-real --bench bus`. Exit 1 below [`RATIO_MIN`].

use async_nats::{
    HeaderMap,
    jetstream::{
        self, AckKind, Context,
        consumer::{AckPolicy, DeliverPolicy, pull},
    },
};
use futures_util::StreamExt;
use std::{process::ExitCode, time::Duration};
use worldline_proto::{EntityId, EntityKind, Incarnation, OpId};
use worldline_real::{
    Inbox, Taker,
    bus::{Bus, Config},
    clock,
    ready::Readiness,
};
use worldline_system::{
    Outcome,
    doors::{
        Asked, Event,
        bus::{self, Answer, MessageId, Start, StreamSequence, Subject, Submission},
    },
    limits, time,
};

const STREAM: &str = "WORLDLINE_FACTS";
/// Publishes in flight, and after it the depth at which the added latency is measured.
const DEPTHS: [usize; 2] = [64, 1];
/// Publishes of a lane in a turn, at each depth.
const PUBLISHES: [u64; 2] = [256, 2_048];
/// Messages that a turn reads.
const MESSAGES: u64 = 16_384;
/// Messages that are acknowledged together.
const TOGETHER: u64 = 64;
/// Turns of each contender; the first warms up.
const TURNS: usize = 10;
/// The goal at depth 64, and of reading.
const RATIO_MIN: f64 = 0.8;
const DEADLINE: time::Duration = time::Duration::from_secs(60);
/// A fact as it is published.
const PAYLOAD: [u8; 64] = [7; 64];

fn main() -> ExitCode {
    let Ok(url) = std::env::var("WORLDLINE_TEST_NATS") else {
        eprintln!("WORLDLINE_TEST_NATS names no NATS: eval \"$(ci/services start --only nats)\"");
        return ExitCode::from(64);
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let mut bench = runtime.block_on(Bench::new(&url));
    let mut good = true;
    for (depth, publishes) in DEPTHS.into_iter().zip(PUBLISHES) {
        let (mut plain, mut ours) = (Vec::new(), Vec::new());
        for turn in 0..TURNS {
            plain.push(runtime.block_on(bench.plain(depth, publishes)));
            ours.push(bench.adapter(depth, publishes));
            if turn == 0 {
                plain.clear();
                ours.clear();
            }
        }
        let ratio =
            report(&format!("publishes of {} bytes at depth {depth}", PAYLOAD.len()), "publishes", &plain, &ours);
        good &= depth == 1 || ratio >= RATIO_MIN;
    }
    let (mut plain, mut ours) = (Vec::new(), Vec::new());
    for turn in 0..TURNS {
        plain.push(runtime.block_on(bench.plain_reader()));
        ours.push(bench.reader());
        if turn == 0 {
            plain.clear();
            ours.clear();
        }
    }
    let ratio = report(&format!("messages read at depth {}", limits::BUS_CREDITS), "messages", &plain, &ours);
    good &= ratio >= RATIO_MIN;
    runtime.block_on(bench.bus.close());
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

fn report(what: &str, unit: &str, plain: &[Turn], ours: &[Turn]) -> f64 {
    let over = |turns: &[Turn], of: &dyn Fn(&Turn) -> f64| median(turns.iter().map(of).collect());
    let rate = |turns: &[Turn]| over(turns, &|turn| turn.each.len() as f64 / turn.whole.as_secs_f64());
    let at = |turns: &[Turn], percent: usize| {
        over(turns, &|turn| turn.each[turn.each.len() * percent / 100].as_secs_f64() * 1e6)
    };
    println!("{what}");
    for (name, turns) in [("async-nats", plain), ("adapter", ours)] {
        let (p50, p95) = (at(turns, 50), at(turns, 95));
        println!("  {name:<12}{:>8.0} {unit}/s   p50 {p50:>7.0} us   p95 {p95:>7.0} us", rate(turns));
    }
    let pairs = ours.iter().zip(plain);
    let ratio = median(pairs.map(|(ours, plain)| plain.whole.as_secs_f64() / ours.whole.as_secs_f64()).collect());
    println!("  ratio       {ratio:>8.2}                  added latency p50 {:.0} us", at(ours, 50) - at(plain, 50));
    ratio
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn since(begun: time::Instant) -> Duration {
    clock::span(clock::now().since(begun))
}

fn entity(lane: usize) -> EntityId {
    EntityId::new(EntityKind::Boss, lane as u64).expect("in range")
}

/// Both contenders.
struct Bench {
    context: Context,
    bus: Bus,
    taker: Taker,
    /// Of facts: none is published twice, in no run of this.
    number: u64,
    operations: u64,
}

impl Bench {
    async fn new(url: &str) -> Self {
        let context = jetstream::new(async_nats::connect(url).await.expect("NATS is there"));
        let (inbox, ready) = (Inbox::default(), Readiness::default());
        let config = Config { endpoints: vec![url.parse().expect("an address")] };
        let bus = Bus::new(config, inbox.clone(), ready.clone());
        ready.until_degraded(|lacks| lacks.is_empty()).await;
        Self { context, bus, taker: Taker::new(inbox), number: clock::unix_now().as_nanos(), operations: 0 }
    }

    fn numbers(&mut self, count: u64) -> u64 {
        self.number += count;
        self.number - count
    }

    async fn plain(&mut self, depth: usize, publishes: u64) -> Turn {
        let begun = clock::now();
        let mut running = Vec::new();
        for lane in 0..depth {
            running.push(tokio::spawn(plain_lane(self.context.clone(), lane, self.numbers(publishes), publishes)));
        }
        let mut each = Vec::new();
        for running in running {
            each.extend(running.await.expect("a lane ends"));
        }
        Turn::new(begun, each)
    }

    /// As a role's thread does it: submits, and takes the answers out of the inbox.
    fn adapter(&mut self, depth: usize, publishes: u64) -> Turn {
        let begun = clock::now();
        let (mut asked, mut left) = (vec![begun; depth], vec![publishes; depth]);
        let first = self.numbers(publishes * depth as u64);
        let bus = self.bus.clone();
        let submit = |lane: usize, left: &mut [u64], asked: &mut [time::Instant]| {
            let Some(rest) = left[lane].checked_sub(1) else { return 0 };
            left[lane] = rest;
            let submission = Submission::Publish {
                subject: Subject::Fact(entity(lane)),
                message: MessageId { entity: entity(lane), number: first + rest },
                after: None,
                payload: PAYLOAD.as_slice().into(),
            };
            asked[lane] = clock::now();
            bus.submit(Asked { op: op(lane as u64), deadline: asked[lane] + DEADLINE, submission });
            1
        };
        let mut in_flight: usize = (0..depth).map(|lane| submit(lane, &mut left, &mut asked)).sum();
        let mut each = Vec::new();
        while in_flight > 0 {
            let Some(Event::Bus(bus::Event::Answered { op, answer })) = self.taker.next_event(clock::span(DEADLINE))
            else {
                panic!("no answer")
            };
            assert!(matches!(*answer, Answer::Published(Outcome::Done(_))), "{answer:?}");
            let lane = op.counter as usize;
            each.push(since(asked[lane]));
            in_flight -= 1;
            in_flight += submit(lane, &mut left, &mut asked);
        }
        Turn::new(begun, each)
    }

    async fn plain_reader(&self) -> Turn {
        let config = pull::Config {
            deliver_policy: DeliverPolicy::All,
            ack_policy: AckPolicy::Explicit,
            max_ack_pending: limits::BUS_CREDITS as i64,
            ack_wait: clock::span(limits::BUS_ACK_WAIT),
            ..pull::Config::default()
        };
        let consumer = self.context.create_consumer_on_stream(config, STREAM).await.expect("made");
        let name = consumer.cached_info().name.clone();
        let stream = consumer.stream().max_messages_per_batch(limits::BUS_CREDITS).heartbeat(Duration::from_secs(1));
        let mut messages = stream.expires(Duration::from_secs(10)).messages().await.expect("it is pulled");
        let begun = clock::now();
        let (mut each, mut last) = (Vec::new(), begun);
        for n in 1..=MESSAGES {
            let message = messages.next().await.expect("there are more").expect("delivered");
            each.push(since(last));
            last = clock::now();
            let acknowledged = if n % TOGETHER == 0 {
                message.double_ack_with(AckKind::Ack).await
            } else {
                message.ack_with(AckKind::Ack).await
            };
            acknowledged.expect("acknowledged");
        }
        let turn = Turn::new(begun, each);
        self.context.delete_consumer_from_stream(&name, STREAM).await.expect("deleted");
        turn
    }

    /// As a role's thread does it: takes messages out of the inbox, and acknowledges so many together.
    fn reader(&mut self) -> Turn {
        self.operations += 1;
        let consumer = op(1_000_000 + self.operations);
        let submission = Submission::Consume { durable: None, start: Start::Beginning };
        self.bus.submit(Asked { op: consumer, deadline: clock::now() + DEADLINE, submission });
        let opened = self.taker.next_event(clock::span(DEADLINE));
        assert!(matches!(opened, Some(Event::Bus(bus::Event::Answered { .. }))), "{opened:?}");
        let begun = clock::now();
        let (mut each, mut last, mut waiting) = (Vec::new(), begun, 0_u32);
        while (each.len() as u64) < MESSAGES || waiting > 0 {
            match self.taker.next_event(clock::span(DEADLINE)) {
                Some(Event::Bus(bus::Event::Delivered { message, .. })) => {
                    each.push(since(last));
                    last = clock::now();
                    let count = each.len() as u64;
                    if count <= MESSAGES && count.is_multiple_of(TOGETHER) {
                        self.operations += 1;
                        waiting += 1;
                        self.acknowledge(consumer, message.sequence);
                    }
                }
                Some(Event::Bus(bus::Event::Answered { answer, .. })) => {
                    assert_eq!(*answer, Answer::Acknowledged(Outcome::Done(())));
                    waiting -= 1;
                }
                other => panic!("{other:?}"),
            }
        }
        each.truncate(MESSAGES as usize);
        let turn = Turn::new(begun, each);
        let submission = Submission::Close(consumer);
        self.operations += 1;
        let closed = op(2_000_000 + self.operations);
        self.bus.submit(Asked { op: closed, deadline: clock::now() + DEADLINE, submission });
        while !matches!(self.taker.next_event(clock::span(DEADLINE)),
            Some(Event::Bus(bus::Event::Answered { op, .. })) if op == closed)
        {}
        // What was under way to it still comes.
        while self.taker.next_event(Duration::from_millis(50)).is_some() {}
        turn
    }

    fn acknowledge(&self, consumer: OpId, through: StreamSequence) {
        let submission = Submission::Acknowledge { consumer, through };
        self.bus.submit(Asked { op: op(3_000_000 + self.operations), deadline: clock::now() + DEADLINE, submission });
    }
}

async fn plain_lane(context: Context, lane: usize, first: u64, publishes: u64) -> Vec<Duration> {
    let mut each = Vec::new();
    for n in 0..publishes {
        let asked = clock::now();
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Msg-Id", MessageId { entity: entity(lane), number: first + n }.to_string());
        headers.insert("Nats-Expected-Stream", STREAM);
        let subject = Subject::Fact(entity(lane)).to_string();
        let sent = context.publish_with_headers(subject, headers, PAYLOAD.as_slice().into()).await.expect("sent");
        assert!(!sent.await.expect("stored").duplicate);
        each.push(since(asked));
    }
    each
}

fn op(counter: u64) -> OpId {
    OpId { incarnation: Incarnation(1), counter }
}
