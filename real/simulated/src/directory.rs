//! The directory adapter with etcd's own client, on simulated machines, against the simulated directory behind etcd's gRPC
//! interface; each caller in a host of its own.

pub mod etcd;
pub mod holder;
pub mod kernel;
pub mod laws;
mod words;

use crate::{
    log::Log,
    machine::{STEP, Simulated},
};
use kernel::{Kernel, Shared};
use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration as Span,
};
use tokio::sync::mpsc;
use turmoil::{Builder, Sim};
use worldline_laws::{Fault, service::CALLERS};
use worldline_proto::{Incarnation, OpId};
use worldline_real::{
    Inbox,
    directory::{Config, Directory},
    machine::Machine as _,
    ready::Readiness,
};
use worldline_system::{
    doors::{
        self, Asked,
        directory::{Event, Submission},
    },
    time::{Duration, Instant},
};

/// The name of etcd's host.
const ETCD: &str = "etcd";
/// The names of the callers' hosts.
const NAMES: [&str; CALLERS] = ["caller-0", "caller-1", "caller-2"];
const PORT: u16 = 2_379;
/// How long what is sent over a slow link takes, each way.
const SLOW: Span = Span::from_millis(200);
/// No case takes so long.
const LONGEST: Span = Span::from_secs(1_000_000);
/// Segments that wait on a connection of the simulation.
const SOCKET_CAPACITY: usize = 4_096;

/// A caller: its inbox, and where it is told what to ask.
type Caller = (Inbox, mpsc::UnboundedSender<Asked<Submission>>);

/// The directory and its callers.
pub struct Stage {
    sim: Sim<'static>,
    kernel: Shared,
    callers: Vec<Caller>,
    asked: u64,
    /// etcd is dead.
    dead: bool,
}

impl Stage {
    /// Everybody starts.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut sim = Builder::new()
            .rng_seed(seed)
            .tick_duration(STEP)
            .simulation_duration(LONGEST)
            .min_message_latency(STEP)
            .max_message_latency(STEP * 3)
            .tcp_capacity(SOCKET_CAPACITY)
            .enable_random_order()
            .build();
        let kernel = Kernel::new(seed);
        let (machine, directory) = (Simulated::new(seed * 8), kernel.clone());
        sim.host(ETCD, move || {
            let (machine, directory) = (machine.clone(), directory.clone());
            async move {
                let (asks, asked) = mpsc::unbounded_channel();
                tokio::task::spawn_local(kernel::serve(directory, asked, {
                    let machine = machine.clone();
                    move || machine.now()
                }));
                etcd::serve(&*machine, SocketAddr::from(([0, 0, 0, 0], PORT)), asks).await
            }
        });
        let callers: Vec<Caller> = NAMES
            .into_iter()
            .enumerate()
            .map(|(caller, name)| {
                let (inbox, (ask, asked)) = (Inbox::default(), mpsc::unbounded_channel());
                let machine = Simulated::new(seed * 8 + 1 + caller as u64);
                let (own, asked) = (inbox.clone(), Arc::new(Mutex::new(Some(asked))));
                sim.host(name, move || live(machine.clone(), own.clone(), Arc::clone(&asked)));
                (inbox, ask)
            })
            .collect();
        Self { sim, kernel, callers, asked: 0, dead: false }
    }

    /// Now, by everybody's clock.
    #[must_use]
    pub fn now(&self) -> Instant {
        Instant::from_nanos(u64::try_from(self.sim.elapsed().as_nanos()).expect("shorter than 500 years"))
    }

    /// Something befalls etcd, as these callers see it.
    fn befall(&mut self, fault: Fault, callers: &[usize]) {
        let now = self.now();
        for caller in callers.iter().map(|&caller| NAMES[caller]) {
            match fault {
                Fault::Kill => {}
                Fault::Slow => self.sim.set_link_latency(caller, ETCD, SLOW),
                Fault::Stop => self.sim.hold(caller, ETCD),
                Fault::Cut => self.sim.partition(caller, ETCD),
                Fault::LoseRequests => self.sim.partition_oneway(caller, ETCD),
                Fault::LoseAnswers | Fault::HalfClose => self.sim.partition_oneway(ETCD, caller),
                // What was held back is delivered; what was lost is lost.
                Fault::Heal => {
                    self.sim.release(caller, ETCD);
                    self.sim.repair(caller, ETCD);
                    self.sim.set_link_latency(caller, ETCD, STEP);
                    self.sim.set_link_max_message_latency(caller, ETCD, STEP * 3);
                }
            }
        }
        match fault {
            Fault::Kill => {
                self.kernel.borrow_mut().kill(now);
                self.sim.crash(ETCD);
                self.dead = true;
            }
            Fault::Heal if std::mem::take(&mut self.dead) => {
                self.kernel.borrow_mut().restart(now);
                self.sim.bounce(ETCD);
            }
            _ => {}
        }
    }

    fn submit(&mut self, caller: usize, patience: Duration, submission: Submission) -> OpId {
        self.asked += 1;
        let op = OpId { incarnation: Incarnation(caller as u32 + 1), counter: self.asked };
        let asked = Asked { op, deadline: self.now() + patience, submission };
        self.callers[caller].1.send(asked).expect("callers live for ever");
        op
    }

    fn next_event(&mut self, by: Instant, log: &mut Log) -> Option<(usize, Event)> {
        loop {
            for (caller, (inbox, _)) in self.callers.iter().enumerate() {
                let Some(event) = inbox.next_event(Span::ZERO) else { continue };
                let doors::Event::Directory(event) = event else { panic!("{event:?} is not of the directory") };
                log.tell(self.now(), NAMES[caller], &event);
                return Some((caller, event));
            }
            if self.now() >= by {
                return None;
            }
            self.sim.step().expect("hosts run for ever");
        }
    }
}

/// A caller's process: the adapter as production has it, and a test instead of a role.
async fn live(
    machine: Arc<Simulated>,
    inbox: Inbox,
    asked: Arc<Mutex<Option<mpsc::UnboundedReceiver<Asked<Submission>>>>>,
) -> turmoil::Result {
    let mut asked = asked.lock().unwrap_or_else(PoisonError::into_inner).take().expect("a caller lives once");
    let endpoints = vec![format!("http://{ETCD}:{PORT}").parse()?];
    let directory = Directory::on(machine, Config { endpoints }, inbox, Readiness::default());
    while let Some(asked) = asked.recv().await {
        directory.submit(asked);
    }
    std::future::pending().await
}
