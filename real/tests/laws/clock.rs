//! The clock's laws on a role's own thread, by the machine's clocks.

use crate::hosted::GRACE;
use std::{
    sync::{Arc, Mutex, mpsc},
    thread::JoinHandle,
};
use worldline_laws::{
    Extent,
    clock::{self as laws, Act, ClockService, Entry, Happened},
    seed,
};
use worldline_proto::{ConnectionId, NodeId};
use worldline_real::{
    Doors, Host, Inbox, clock,
    hooks::Probes,
    host::{self, Counters},
    telemetry::Telemetry,
};
use worldline_system::{
    Role, Turn,
    doors::{Asked, Event, Submission, bus, cache, directory, ledger, network},
    time::{Duration, Instant},
};

/// Does with its timers what it finds on its list when it is woken, and tells of every turn.
#[derive(Clone)]
struct Clerk {
    list: Arc<Mutex<Vec<Act>>>,
    tell: mpsc::Sender<Entry>,
}

impl Role for Clerk {
    type Event = Event;
    type Submission = Submission;

    fn on_event(&mut self, event: Event, turn: &mut Turn<'_, Submission>) {
        let what = match event {
            Event::Timer(key) => Happened::Fired(key),
            Event::Network(_) => {
                for act in std::mem::take(&mut *self.list.lock().unwrap()) {
                    let now = turn.now();
                    turn.submit(match act {
                        Act::Arm(key, after) => Submission::Arm { key, at: now + after },
                        Act::ArmPast(key, before) => Submission::Arm { key, at: now - before },
                        Act::Disarm(key) => Submission::Disarm(key),
                    });
                }
                Happened::Acted
            }
            Event::Stop => return turn.submit(Submission::Stopped),
            _ => return,
        };
        let _ = self.tell.send(Entry { at: turn.now(), unix: turn.unix_now(), what });
    }

    fn queues(&self, _: &mut dyn FnMut(&'static str, usize, usize)) {}
}

/// Nobody knocks.
struct Shut;

impl Doors for Shut {
    fn network(&mut self, _: network::Submission) {}
    fn directory(&mut self, _: Asked<directory::Submission>) {}
    fn ledger(&mut self, _: Asked<ledger::Submission>) {}
    fn bus(&mut self, _: Asked<bus::Submission>) {}
    fn cache(&mut self, _: Asked<cache::Submission>) {}
}

struct Real {
    inbox: Inbox,
    list: Arc<Mutex<Vec<Act>>>,
    told: mpsc::Receiver<Entry>,
    thread: Option<JoinHandle<std::io::Result<()>>>,
}

impl Real {
    fn new() -> Self {
        let (inbox, list, (tell, told)) = (Inbox::default(), Arc::<Mutex<Vec<Act>>>::default(), mpsc::channel());
        let host = Host {
            role: Clerk { list: list.clone(), tell },
            desk: host::desk(NodeId(1)).unwrap(),
            doors: Shut,
            inbox: inbox.clone(),
            history: None,
            probes: Probes::default(),
            counters: Counters::default(),
            telemetry: Telemetry::default(),
        };
        let thread = Some(host.start("clerk").unwrap());
        Self { inbox, list, told, thread }
    }
}

impl Drop for Real {
    fn drop(&mut self) {
        self.inbox.reserved(Event::Stop);
        drop(self.thread.take().unwrap().join());
    }
}

impl ClockService for Real {
    fn begin(&mut self) {
        *self = Self::new();
    }

    fn now(&self) -> Instant {
        clock::now()
    }

    fn act(&mut self, acts: &[Act]) -> Vec<Entry> {
        *self.list.lock().unwrap() = acts.to_vec();
        let payload = [0_u8; 1].as_slice().into();
        let wake = network::Event::Datagram { connection: ConnectionId(0), payload };
        assert!(self.inbox.offer(Event::Network(wake)));
        let mut entries: Vec<Entry> = vec![];
        while entries.last().is_none_or(|entry| entry.what != Happened::Acted) {
            entries.push(self.told.recv_timeout(clock::span(GRACE)).expect("a turn"));
        }
        entries
    }

    fn next(&mut self, by: Instant) -> Option<Entry> {
        self.told.recv_timeout(clock::until(by)).ok()
    }

    fn grace(&self) -> Duration {
        GRACE
    }
}

#[test]
fn timers() {
    let extent = Extent { cases: 24, steps: 24, longest_wait: Duration::from_millis(70), seed: seed() };
    laws::timers(&mut Real::new(), extent).expect(laws::TIMERS);
}

#[test]
fn the_monotonic_clock_is_the_one_that_counts_sleep() {
    use rustix::time::{ClockId, clock_gettime};
    let counted = || {
        let time = clock_gettime(ClockId::Boottime);
        Instant::from_nanos(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
    };
    for _ in 0..1_000 {
        let (before, now, after) = (counted(), clock::now(), counted());
        assert!(before <= now && now <= after, "{before:?} <= {now:?} <= {after:?}");
    }
}
