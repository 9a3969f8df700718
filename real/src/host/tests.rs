//! The host with a small role and scripted doors.

use super::*;
use std::{
    path::PathBuf,
    sync::mpsc::{Receiver, Sender, channel},
};
use worldline_proto::{CallId, LeaseId, server::Request};
use worldline_system::{
    doors::{clock::TimerKey, directory::Answer},
    limits,
};

const PATIENCE: std::time::Duration = std::time::Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(30);
const LONG: Duration = Duration::from_secs(60);

/// Does what it is told when its process is asked to stop, and reports every event.
#[derive(Clone)]
struct Puppet {
    told: Sender<Event>,
    script: fn(usize, &Event, &mut Turn<'_, Submission>),
    seen: usize,
}

impl Role for Puppet {
    type Event = Event;
    type Submission = Submission;

    fn on_event(&mut self, event: Event, turn: &mut Turn<'_, Submission>) {
        (self.script)(self.seen, &event, turn);
        self.seen += 1;
        drop(self.told.send(event));
    }

    fn queues(&self, _: &mut dyn FnMut(&'static str, usize, usize)) {}
}

/// Passes on what leaves, with how long the history was at that moment.
struct Script {
    left: Sender<(Submission, u64)>,
    history: Option<PathBuf>,
}

impl Script {
    fn left(&self, submission: Submission) {
        let written = self.history.as_ref().and_then(|path| path.metadata().ok()).map_or(0, |file| file.len());
        drop(self.left.send((submission, written)));
    }
}

impl Doors for Script {
    fn network(&mut self, submission: network::Submission) {
        self.left(Submission::Network(submission));
    }

    fn directory(&mut self, asked: Asked<directory::Submission>) {
        self.left(Submission::Directory(asked));
    }

    fn ledger(&mut self, asked: Asked<ledger::Submission>) {
        self.left(Submission::Ledger(asked));
    }

    fn bus(&mut self, asked: Asked<bus::Submission>) {
        self.left(Submission::Bus(asked));
    }

    fn cache(&mut self, asked: Asked<cache::Submission>) {
        self.left(Submission::Cache(asked));
    }
}

struct Stage {
    inbox: Inbox,
    counters: Counters,
    told: Receiver<Event>,
    left: Receiver<(Submission, u64)>,
    thread: thread::JoinHandle<io::Result<()>>,
}

impl Stage {
    fn new(script: fn(usize, &Event, &mut Turn<'_, Submission>), history: Option<history::Writer>) -> Self {
        let ((told_to, told), (left_to, left)) = (channel(), channel());
        let (inbox, counters) = (Inbox::default(), Counters::default());
        let path = history.as_ref().map(|writer| writer.path().to_owned());
        let host = Host {
            role: Puppet { told: told_to, script, seen: 0 },
            desk: desk(NodeId(3)).expect("entropy"),
            doors: Script { left: left_to, history: path },
            inbox: inbox.clone(),
            history,
            probes: Probes::default(),
            counters: counters.clone(),
            telemetry: Telemetry::default(),
        };
        let thread = host.start("puppet").expect("a thread");
        Self { inbox, counters, told, left, thread }
    }

    fn told(&self) -> Event {
        self.told.recv_timeout(PATIENCE).expect("an event")
    }

    fn counted(&self, name: &str) -> u64 {
        self.counters.each().into_iter().find(|(counter, _)| *counter == name).expect("a counter").1
    }

    fn ended(self) {
        self.thread.join().expect("no panic").expect("no error");
        assert!(self.counters.stopped());
    }
}

fn answered(event: &Event) -> (OpId, Answer) {
    match event {
        Event::Directory(directory::Event::Answered { op, answer }) => (*op, (**answer).clone()),
        other => panic!("an answer of the directory, not {other:?}"),
    }
}

fn renew(turn: &mut Turn<'_, Submission>, patience: Duration) {
    let (op, deadline) = (turn.next_op(), turn.now() + patience);
    let submission = directory::Submission::KeepAlive(LeaseId::from_bits(1));
    turn.submit(Submission::Directory(Asked { op, deadline, submission }));
}

fn done() -> Answer {
    Answer::KeptAlive(Outcome::Done(limits::LEASE_TTL))
}

#[test]
fn an_operation_is_unknown_at_its_deadline_and_its_late_answer_is_dropped() {
    let stage = Stage::new(
        |_, event, turn| match event {
            Event::Started => renew(turn, SHORT),
            Event::Stop => turn.stopped(),
            _ => {}
        },
        None,
    );
    assert_eq!(stage.told(), Event::Started);
    let (op, answer) = answered(&stage.told());
    assert_eq!(answer, Answer::KeptAlive(Outcome::Unknown));
    let late = Event::Directory(directory::Event::Answered { op, answer: Box::new(done()) });
    stage.inbox.answer(op, late);
    stage.inbox.reserved(Event::Stop);
    assert_eq!(stage.told(), Event::Stop, "the late answer never came");
    assert_eq!((stage.counted("late_answers"), stage.counted("deadlines")), (1, 1));
    stage.ended();
}

#[test]
fn an_answer_in_time_is_the_only_one() {
    let stage = Stage::new(
        |_, event, turn| match event {
            Event::Started => {
                renew(turn, LONG);
                turn.arm_in(TimerKey::new(1, 1), SHORT);
            }
            Event::Stop => turn.stopped(),
            _ => {}
        },
        None,
    );
    assert_eq!(stage.told(), Event::Started);
    let (Submission::Directory(asked), _) = stage.left.recv_timeout(PATIENCE).expect("leaves") else {
        panic!("to the directory");
    };
    let event = Event::Directory(directory::Event::Answered { op: asked.op, answer: Box::new(done()) });
    stage.inbox.answer(asked.op, event.clone());
    stage.inbox.answer(asked.op, event.clone());
    let mut told = [stage.told(), stage.told()];
    told.sort_by_key(|event| matches!(event, Event::Timer(_)));
    assert_eq!(told, [event, Event::Timer(TimerKey::new(1, 1))]);
    stage.inbox.reserved(Event::Stop);
    assert_eq!(stage.told(), Event::Stop);
    assert_eq!(stage.counted("late_answers"), 1, "the second answer to one operation");
    stage.ended();
}

#[test]
fn an_operation_without_a_slot_is_refused_and_never_leaves() {
    let stage = Stage::new(
        |seen, event, turn| match event {
            Event::Started => (0..=limits::OPERATIONS_IN_FLIGHT).for_each(|_| renew(turn, LONG)),
            _ if seen == 1 => turn.stopped(),
            _ => {}
        },
        None,
    );
    assert_eq!(stage.told(), Event::Started);
    let (op, answer) = answered(&stage.told());
    assert_eq!(answer, Answer::KeptAlive(Outcome::Refused(Refusal::Busy)));
    assert_eq!(op.counter as usize, limits::OPERATIONS_IN_FLIGHT + 1);
    assert_eq!(stage.counted("refused_busy"), 1);
    let left = stage.left.iter().count();
    assert_eq!(left, limits::OPERATIONS_IN_FLIGHT);
    stage.ended();
}

#[test]
fn the_history_is_on_disk_before_anything_leaves() {
    let folder = std::env::temp_dir().join(format!("worldline-host-{}", std::process::id()));
    drop(std::fs::remove_dir_all(&folder));
    let writer = history::Writer::create(&folder, NodeId(3), Incarnation(9)).expect("a fresh folder");
    let path = writer.path().to_owned();
    let stage = Stage::new(
        |seen, _, turn| match seen {
            0 => renew(turn, SHORT),
            _ => turn.stopped(),
        },
        Some(writer),
    );
    let (_, written) = stage.left.recv_timeout(PATIENCE).expect("leaves");
    assert!(written > 0, "the invocation was in the file when it left");
    stage.ended();
    let entries = history::read(&path).expect("reads");
    let whats: Vec<_> = entries.iter().map(|entry| &entry.what).collect();
    let [What::Started, What::Invoked(asked, _), What::Completed(op, end), What::Stopped] = whats[..] else {
        panic!("a life: {whats:?}");
    };
    assert_eq!(asked, op);
    assert_eq!(**end, Completion::Directory(Answer::KeptAlive(Outcome::Unknown)));
    assert!(entries.is_sorted_by_key(|entry| entry.at));
    std::fs::remove_dir_all(&folder).expect("removes");
}

#[test]
fn a_timer_is_replaced_forgotten_and_never_early() {
    let stage = Stage::new(
        |seen, event, turn| match (seen, event) {
            (0, _) => {
                turn.arm_in(TimerKey::new(1, 0), Duration::ZERO);
                turn.arm_in(TimerKey::new(1, 0), SHORT);
                turn.arm_in(TimerKey::new(2, 0), Duration::ZERO);
                turn.disarm(TimerKey::new(2, 0));
            }
            _ => turn.stopped(),
        },
        None,
    );
    let begun = clock::now();
    assert_eq!(stage.told(), Event::Started);
    assert_eq!(stage.told(), Event::Timer(TimerKey::new(1, 0)));
    // It was armed after the role's thread began, which may have been just before `begun`.
    assert!(clock::now().since(begun) + Duration::from_millis(10) >= SHORT);
    stage.ended();
}

/// A role that has no variant for a call.
#[derive(Clone)]
struct Deaf;

struct Nothing;

impl TryFrom<Event> for Nothing {
    type Error = ();

    fn try_from(event: Event) -> Result<Self, ()> {
        if matches!(event, Event::Network(_)) { Err(()) } else { Ok(Self) }
    }
}

impl Role for Deaf {
    type Event = Nothing;
    type Submission = Submission;

    fn on_event(&mut self, _: Nothing, _: &mut Turn<'_, Submission>) {}

    fn queues(&self, _: &mut dyn FnMut(&'static str, usize, usize)) {}
}

#[test]
fn a_call_to_a_role_that_takes_none_is_refused_as_malformed() {
    let (left_to, left) = channel();
    let (inbox, counters) = (Inbox::default(), Counters::default());
    let host = Host {
        role: Deaf,
        desk: desk(NodeId(3)).expect("entropy"),
        doors: Script { left: left_to, history: None },
        inbox: inbox.clone(),
        history: None,
        probes: Probes::default(),
        counters: counters.clone(),
        telemetry: Telemetry::default(),
    };
    // The thread ends with the test process: this role never stops.
    drop(host.start("deaf").expect("a thread"));
    let request = Box::new(Request::Attach(worldline_proto::server::AttachRequest::default()));
    assert!(inbox.offer(Event::Network(network::Event::Called { call: CallId(7), from: NodeId(1), request })));
    let (left, _) = left.recv_timeout(PATIENCE).expect("a reply");
    let outcome = Box::new(Outcome::Refused(Refusal::Malformed));
    assert_eq!(left, Submission::Network(network::Submission::Reply { call: CallId(7), outcome }));
}
