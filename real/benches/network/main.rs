//! The network door against the libraries under it, in one run: calls against plain tonic, stream messages and datagrams against
//! plain quinn. Both sides of each pair use the same TLS, the same runtime and the same echo; what differs is the door: framing,
//! the inbox, and how a role's thread and the tasks hand things to each other. Under quinn, as through the door, who calls and who
//! echoes has a thread of its own. What it costs that an application has one is told apart and not judged: the same with
//! quinn's echo as a task among quinn's own.
//!
//! `cargo bench -p worldline-real --bench network [-- NAME..]`; exit 1 if the door reaches less than [`RATIO_MIN`] of what is under it.

mod plain;
mod through;

use std::{collections::VecDeque, fs, path::PathBuf, process::ExitCode, time::Duration};
use worldline_proto::NodeId;
use worldline_real::{
    clock,
    network::tls::{Authority, Holder},
};

/// How much is under way at once where throughput is measured.
const DEPTH: usize = 64;
/// What is to be reached of the throughput of what is under the door.
const RATIO_MIN: f64 = 0.8;
/// How long one measurement takes: short, so that what else the machine does meets both of a pair alike.
const ROUND_NS: u64 = 250_000_000;
/// How many of each; the median counts.
const ROUNDS: usize = 21;
/// Bytes of a stream message: an operation or its answer.
const MESSAGE_BYTES: usize = 100;
/// Bytes of a datagram: a movement input or a state.
const DATAGRAM_BYTES: usize = 60;

/// How long a datagram is waited for before what is under way counts as lost.
const LOST: Duration = Duration::from_millis(500);

/// What was measured in one round.
struct Round {
    per_second: f64,
    /// Of every processor, for one round trip: what a busy machine does not change.
    processor_us: f64,
    p50_us: f64,
}

/// Counts round trips, and times each.
struct Stopwatch {
    began_ns: u64,
    processor_ns: u64,
    sent_ns: VecDeque<u64>,
    took_ns: Vec<u64>,
    /// How many were sent.
    number: u64,
}

impl Stopwatch {
    fn start() -> Self {
        Self {
            began_ns: now_ns(),
            processor_ns: processor_ns(),
            sent_ns: VecDeque::new(),
            took_ns: Vec::new(),
            number: 0,
        }
    }

    fn sent(&mut self) {
        self.sent_ns.push_back(now_ns());
    }

    /// The oldest is back. Whether another shall be sent.
    fn back(&mut self) -> bool {
        let now = now_ns();
        let sent = self.sent_ns.pop_front().expect("what comes back was sent");
        self.took_ns.push(now - sent);
        now - self.began_ns < ROUND_NS
    }

    fn waiting(&self) -> bool {
        !self.sent_ns.is_empty()
    }

    /// The next datagram, which is sent now.
    fn datagram(&mut self) -> Vec<u8> {
        self.sent();
        self.number += 1;
        let mut datagram = vec![7; DATAGRAM_BYTES];
        datagram[..8].copy_from_slice(&(self.began_ns + self.number).to_be_bytes());
        datagram
    }

    /// Whether this datagram is of this round and not of one that was given up. They come in order here, on loopback.
    fn is_ours(&self, datagram: &[u8]) -> bool {
        let oldest = self.began_ns + self.number - self.sent_ns.len() as u64;
        datagram.first_chunk().is_some_and(|number| u64::from_be_bytes(*number) > oldest)
    }

    /// What is under way is lost.
    fn lost(&mut self) -> bool {
        self.sent_ns.clear();
        now_ns() - self.began_ns < ROUND_NS
    }

    fn stop(mut self) -> Round {
        let seconds = (now_ns() - self.began_ns) as f64 / 1e9;
        let per_second = self.took_ns.len() as f64 / seconds;
        let processor_us = (processor_ns() - self.processor_ns) as f64 / 1e3 / self.took_ns.len() as f64;
        let middle = self.took_ns.len() / 2;
        let (_, p50, _) = self.took_ns.select_nth_unstable(middle);
        Round { per_second, processor_us, p50_us: *p50 as f64 / 1e3 }
    }
}

fn now_ns() -> u64 {
    clock::now().as_nanos()
}

/// What this process has used of all processors.
fn processor_ns() -> u64 {
    let used = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    used.tv_sec as u64 * 1_000_000_000 + used.tv_nsec as u64
}

/// Certificates of nodes 1 and 2, in a folder of their own.
struct Certificates(PathBuf);

impl Certificates {
    fn new() -> Self {
        let folder = std::env::temp_dir().join(format!("worldline-bench-network-{}", std::process::id()));
        let authority = Authority::create().expect("entropy");
        authority.save(&folder).expect("writes");
        for node in [1, 2] {
            let holder = Holder::Node(NodeId(node));
            authority.issue(&holder, &[]).expect("issues").save(&folder).expect("writes");
        }
        Self(folder)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn pem(&self, name: &str) -> Vec<u8> {
        fs::read(self.file(name)).expect("just written")
    }
}

impl Drop for Certificates {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

fn median(rounds: &mut [f64]) -> f64 {
    rounds.sort_by(f64::total_cmp);
    rounds[rounds.len() / 2]
}

/// One pair: the door and what is under it, measured in turn. Whether the goal was reached.
fn compare(
    name: &str,
    under: &str,
    goal: Option<f64>,
    mut door: impl FnMut(usize) -> Round,
    mut plain: impl FnMut(usize) -> Round,
) -> bool {
    // The first round of each opens what must be open.
    let _ = (door(DEPTH), plain(DEPTH));
    let (mut door_rates, mut plain_rates, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    let (mut door_us, mut plain_us) = (Vec::new(), Vec::new());
    let (mut door_processor, mut plain_processor) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let (here, there) = (door(DEPTH), plain(DEPTH));
        ratios.push(here.per_second / there.per_second);
        door_rates.push(here.per_second);
        plain_rates.push(there.per_second);
        door_processor.push(here.processor_us);
        plain_processor.push(there.processor_us);
        door_us.push(door(1).p50_us);
        plain_us.push(plain(1).p50_us);
    }
    let (door_us, plain_us) = (median(&mut door_us), median(&mut plain_us));
    let ratio = median(&mut ratios);
    println!(
        "{name:<25} {:>8.0}/s  {under} {:>8.0}/s  ratio {ratio:.2}   processor {:>5.1} µs, {under} {:>5.1} µs   alone {door_us:>4.0} µs, {under} {plain_us:>4.0} µs, added {:>4.0} µs",
        median(&mut door_rates),
        median(&mut plain_rates),
        median(&mut door_processor),
        median(&mut plain_processor),
        door_us - plain_us,
    );
    let missed = goal.filter(|&goal| ratio < goal);
    if let Some(goal) = missed {
        println!("{name}: below the goal of {goal}");
    }
    missed.is_none()
}

fn main() -> ExitCode {
    let certificates = Certificates::new();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("builds");
    println!("round trips, {DEPTH} at once; alone: the median of one at a time");
    let door = through::Pair::new(&runtime, &certificates);
    let tonic = plain::Tonic::new(&runtime, &certificates);
    let quinn = plain::Quinn::new(&runtime, &certificates, plain::Application::Thread);
    let tasks = plain::Quinn::new(&runtime, &certificates, plain::Application::Task);
    // What cargo itself says begins with a dash.
    let named: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let asked = |name: &str| named.is_empty() || named.iter().any(|argument| name.starts_with(argument.as_str()));
    let goal = Some(RATIO_MIN);
    let mut good = true;
    if asked("calls") {
        good &= compare("calls", "tonic", goal, |depth| door.calls(depth), |depth| tonic.calls(depth));
    }
    if asked("stream") {
        let name = "stream messages";
        good &= compare(name, "quinn", goal, |depth| door.messages(depth), |depth| quinn.messages(depth));
        let name = "stream messages to a task";
        compare(name, "quinn", None, |depth| door.messages(depth), |depth| tasks.messages(depth));
    }
    if asked("datagrams") {
        let name = "datagrams";
        good &= compare(name, "quinn", goal, |depth| door.datagrams(depth), |depth| quinn.datagrams(depth));
        let name = "datagrams to a task";
        compare(name, "quinn", None, |depth| door.datagrams(depth), |depth| tasks.datagrams(depth));
    }
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
