//! Measures the cost model: what an event costs each server role, over worlds of several sizes that run `worker-crash`, so that
//! claims, takeovers and large inheritances are among what is measured.
//!
//! For each role and kind of event a line is laid through (submissions left, nanoseconds taken) by least squares, without
//! the slowest hundredth, which is the machine's and not the role's. Prints the model; `--write` replaces the committed one.

#![allow(clippy::disallowed_methods, reason = "a benchmark measures the machine it runs on")]

use std::{cell::RefCell, collections::BTreeMap, fs, time::Instant as Wall};
use worldline_scenarios::{
    catalogue,
    cost::{Figure, Figures, Model},
    format,
    nodes::Nodes,
    world::{self, Cast},
};
use worldline_sim::{Actor, Fault, Seat};
use worldline_system::{
    doors::{self, network},
    time::{Duration, Instant},
};

/// A role whose turns are timed.
#[derive(Clone)]
struct Timed(Cast);

/// One turn: submissions left, nanoseconds taken.
type Turns = Vec<(u32, u32)>;

thread_local! {
    static TURNS: RefCell<BTreeMap<(&'static str, &'static str), Turns>> = const { RefCell::new(BTreeMap::new()) };
}

impl Actor for Timed {
    fn deliver(&mut self, event: doors::Event, mut seat: Seat<'_>) {
        let role = match &self.0 {
            Cast::Client(_) => return self.0.deliver(event, seat),
            Cast::Gateway(_) => "gateway",
            Cast::Worker(_) => "worker",
            Cast::Orchestrator(_) => "orchestrator",
            Cast::Replica(_) => "replica",
            // Nobody waits for one.
            Cast::Operator(_) => return self.0.deliver(event, seat),
        };
        let kind = match &event {
            doors::Event::Started | doors::Event::Timer(_) | doors::Event::Stop => "timer",
            doors::Event::Network(network::Event::Datagram { .. } | network::Event::Received { .. }) => "message",
            doors::Event::Network(_) => "call",
            doors::Event::Directory(_) => "directory",
            doors::Event::Ledger(_) => "ledger",
            doors::Event::Bus(_) => "bus",
            doors::Event::Cache(_) => "cache",
        };
        let started = Wall::now();
        self.0.deliver(event, seat.lend());
        let took = u32::try_from(started.elapsed().as_nanos()).unwrap_or(u32::MAX);
        let left = u32::try_from(seat.submissions()).unwrap_or(u32::MAX);
        TURNS.with_borrow_mut(|turns| turns.entry((role, kind)).or_default().push((left, took)));
    }

    fn queues(&self, report: &mut dyn FnMut(&'static str, usize, usize)) {
        self.0.queues(report);
    }
}

fn main() {
    let crash = catalogue::find("worker-crash").expect("the catalogue has it").expect("and it is valid");
    for players in [20, 100, 400] {
        let lines = crash.text.lines().map(|line| match line.split_once(" = ").map(|(key, _)| key) {
            Some("players") => format!("players = {}", players / 3),
            _ => line.to_owned(),
        });
        let text = lines.collect::<Vec<_>>().join("\n");
        let scenario = format::parse("crowd.toml", &text).unwrap_or_else(|problems| panic!("{problems}"));
        let nodes = Nodes::of(&scenario);
        let mut world = world::build_with(&scenario, &nodes, 1, Timed);
        world.run_until(Instant::default() + Duration::from_secs(10));
        for (id, _) in nodes.iter().filter(|(_, node)| node.name == "worker:frankfurt:0") {
            world.inject(Fault::Crash { node: id });
        }
        world.run_until(Instant::default() + Duration::from_secs(40));
    }
    let clock = clock_ns();
    let figures = |role| Figures {
        timer: figure(role, "timer", clock),
        message: figure(role, "message", clock),
        call: figure(role, "call", clock),
        directory: figure(role, "directory", clock),
        ledger: figure(role, "ledger", clock),
        bus: figure(role, "bus", clock),
        cache: figure(role, "cache", clock),
    };
    let model = Model {
        gateway: figures("gateway"),
        worker: figures("worker"),
        orchestrator: figures("orchestrator"),
        replica: figures("replica"),
    };
    let text = format!(
        "# What an event costs a server, in nanoseconds of a core, and what each submission adds that it leaves.\n\
         # Measured by `ci/calibrate`; the roles' own work, without sockets.\n\n{}",
        toml::to_string(&model).expect("figures are numbers")
    );
    print!("{text}");
    if std::env::args().any(|word| word == "--write") {
        fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/cost-model.toml"), text).expect("the project is writable");
    }
}

/// The line through a kind's turns, without what looking at the clock costs.
fn figure(role: &'static str, kind: &'static str, clock: f64) -> Figure {
    let mut turns = TURNS.with_borrow_mut(|turns| turns.remove(&(role, kind))).unwrap_or_default();
    turns.sort_unstable_by_key(|&(_, took)| took);
    turns.truncate(turns.len() - turns.len() / 100);
    let n = turns.len() as f64;
    if turns.is_empty() {
        return Figure::default();
    }
    let mean = |of: fn(&(u32, u32)) -> f64| turns.iter().map(of).sum::<f64>() / n;
    let (x, y) = (mean(|t| f64::from(t.0)), mean(|t| f64::from(t.1)));
    let spread: f64 = turns.iter().map(|t| (f64::from(t.0) - x).powi(2)).sum();
    let both: f64 = turns.iter().map(|t| (f64::from(t.0) - x) * (f64::from(t.1) - y)).sum();
    let slope = if spread > 0.0 { (both / spread).max(0.0) } else { 0.0 };
    let event = (y - slope * x - clock).max(1.0);
    Figure { event: event.round() as u64, submission: slope.round() as u64 }
}

/// What two looks at the clock cost.
fn clock_ns() -> f64 {
    const LOOKS: u32 = 1_000_000;
    let started = Wall::now();
    for _ in 0..LOOKS {
        std::hint::black_box(Wall::now());
    }
    started.elapsed().as_nanos() as f64 / f64::from(LOOKS)
}
