//! The echo workload: N nodes in a ring, each keeps one ping outstanding to its neighbour and answers its peer's.
//!
//! An ordinary role on the ordinary kernel and network: connections, links with drawn delays, clocks, incarnations and the
//! trace hash are all on. `echo [N [MESSAGES]]`; without arguments a table over N.

#![allow(clippy::disallowed_methods, reason = "a benchmark measures the machine it runs on")]

use std::time::Instant;
use worldline_proto::{ConnectionId, NodeId};
use worldline_sim::{City, Config, NodeSpec, Place, Solo, World};
use worldline_system::{
    Role, Turn,
    doors::{
        self,
        network::{Event, Payload, Submission},
    },
};

const PING: u8 = 0;
const PONG: u8 = 1;

#[derive(Clone)]
struct Echo {
    next: NodeId,
    received: u64,
}

struct Ask(Submission);

impl From<Submission> for Ask {
    fn from(submission: Submission) -> Self {
        Self(submission)
    }
}

impl From<Ask> for doors::Submission {
    fn from(ask: Ask) -> Self {
        Self::Network(ask.0)
    }
}

impl Echo {
    fn send(turn: &mut Turn<'_, Ask>, connection: ConnectionId, kind: u8, sequence: u64) {
        let mut frame = [0; 16];
        frame[0] = kind;
        frame[1..9].copy_from_slice(&sequence.to_le_bytes());
        turn.submit(Submission::Datagram { connection, payload: Payload::from(&frame[..]) });
    }
}

impl Role for Echo {
    type Event = doors::Event;
    type Submission = Ask;

    fn on_event(&mut self, event: doors::Event, turn: &mut Turn<'_, Ask>) {
        match event {
            doors::Event::Started => {
                turn.connect(self.next);
            }
            doors::Event::Network(Event::Opened { connection, .. }) => Self::send(turn, connection, PING, 0),
            doors::Event::Network(Event::Datagram { connection, payload }) => {
                let Some(Ok(frame)) = payload.as_bytes().map(<&[u8; 16]>::try_from) else { return };
                let [kind, sequence @ .., _, _, _, _, _, _, _] = *frame;
                let sequence = u64::from_le_bytes(sequence);
                self.received += 1;
                match kind {
                    PING => Self::send(turn, connection, PONG, sequence),
                    _ => Self::send(turn, connection, PING, sequence + 1),
                }
            }
            _ => {}
        }
    }

    fn queues(&self, _: &mut dyn FnMut(&'static str, usize, usize)) {}
}

/// The highest resident set of this process so far, in MB.
fn peak_rss_mb() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok()).unwrap_or(0.0) / 1024.0
}

/// Seconds that this process has run, in user and system. Steps of 10 ms.
fn cpu_s() -> f64 {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = text.rsplit(')').next().unwrap_or_default().split_whitespace();
    fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}

fn run(n: u32, messages: u64) {
    let mut world = World::new(Config { seed: 42, ..Config::default() });
    for i in 0..n {
        let role = Echo { next: NodeId((i + 1) % n), received: 0 };
        let node = world.add_node(NodeSpec::new(format!("echo-{i}"), Place::zone(City::Singapore, 0)), Solo(role));
        world.start(node);
    }
    let (begin, begin_cpu) = (Instant::now(), cpu_s());
    while world.core().counters().delivered < messages {
        if world.step().is_none() {
            break;
        }
    }
    let (wall_s, cpu_s) = (begin.elapsed().as_secs_f64(), cpu_s() - begin_cpu);
    let received: u64 = (0..n).filter_map(|i| world.actor(NodeId(i))).map(|role| role.0.received).sum();
    println!(
        "worldline n={n} wall_s={wall_s:.3} cpu_s={cpu_s:.3} virt_s={:.3} msgs={received} msgs_per_wall_s={:.0} \
         msgs_per_cpu_s={:.0} peak_rss_mb={:.1} trace={:016x}",
        world.now().as_nanos() as f64 / 1e9,
        received as f64 / wall_s,
        received as f64 / cpu_s,
        peak_rss_mb(),
        world.hash()
    );
}

fn main() {
    // Cargo passes `--bench`.
    let mut numbers = std::env::args().skip(1).filter_map(|argument| argument.parse().ok());
    let n: Option<u64> = numbers.next();
    let messages = numbers.next().unwrap_or(5_000_000);
    match n {
        Some(n) => run(u32::try_from(n).unwrap_or(u32::MAX).clamp(2, 1_000_000), messages),
        None => [2, 10, 100, 1_000, 10_000].into_iter().for_each(|n| run(n, messages)),
    }
}
