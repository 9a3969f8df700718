//! What a life promises: written down when something is asked, given or answered, and compared when the role is told.

use crate::{
    log::Log,
    script::{Mark, Stalls},
};
use std::{
    collections::{BTreeMap, VecDeque},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::Arc,
};
use worldline_proto::{ConnectionId, Incarnation, OpId, Revision};
use worldline_real::{Inbox, host::Counters};
use worldline_system::{
    Outcome, Refusal,
    doors::{
        Event, cache,
        clock::TimerKey,
        directory,
        network::{self, StreamClass},
    },
    limits,
    time::Instant,
};

/// Events that the role's thread takes at once, at most.
const TOGETHER: u64 = 16;

/// The way that unasked input takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Way {
    /// Shed where there is no slot.
    Offered,
    /// Waits for one.
    Streamed(u8),
    /// Ends its watch where there is none.
    News,
}

#[derive(Debug)]
struct Operation {
    asked: Mark,
    deadline: Instant,
    /// It had a slot when it was submitted.
    slot: bool,
    /// It was asked behind the role's last word.
    behind: bool,
    left: bool,
    answered: Option<(Mark, u64)>,
    told: bool,
}

/// All that was asked, given and told.
#[derive(Debug)]
pub struct Book {
    log: Log,
    stalls: Stalls,
    inbox: Inbox,
    operations: BTreeMap<OpId, Operation>,
    /// Operations that have a slot.
    in_flight: usize,
    timers: BTreeMap<TimerKey, (Mark, Instant)>,
    /// What is in the inbox, or on its way there.
    given: BTreeMap<Way, VecDeque<(u64, Mark)>>,
    numbers: u64,
    /// Answers that went into the inbox while the role lived, and those that the role was told.
    answers: u64,
    told: u64,
    /// What was told of unasked input since the last line of the log.
    inputs: (u64, DefaultHasher),
    /// Since when a writer is to be woken.
    writing: Option<Mark>,
    stopping: bool,
    stopped: bool,
    /// Nothing was left in the inbox when the role stopped.
    clean: bool,
}

/// The answer number `n` to an operation, which is one of the cache where `op` is even.
pub fn answer(op: OpId, n: u64) -> Event {
    if op.counter.is_multiple_of(2) {
        let answer = Box::new(cache::Answer::Counted(Outcome::Done(n as i64)));
        Event::Cache(cache::Event { op, answer })
    } else {
        let answer = Box::new(directory::Answer::Read(Outcome::Done(directory::Page {
            records: vec![],
            revision: Revision(n),
            more: false,
        })));
        Event::Directory(directory::Event::Answered { op, answer })
    }
}

/// Which operation an event answers, and how.
fn answered(event: &Event) -> Option<(OpId, Outcome<u64>)> {
    match event {
        Event::Cache(cache::Event { op, answer }) => match &**answer {
            cache::Answer::Counted(outcome) => Some((*op, outcome.clone().map(|n| n as u64))),
            _ => None,
        },
        Event::Directory(directory::Event::Answered { op, answer }) => match &**answer {
            directory::Answer::Read(outcome) => Some((*op, outcome.clone().map(|page| page.revision.0))),
            _ => None,
        },
        _ => None,
    }
}

/// Unasked input with a number.
pub fn numbered(way: Way, number: u64) -> Event {
    let connection = ConnectionId(1);
    let payload = || (&number.to_le_bytes()[..]).into();
    match way {
        Way::Offered => Event::Network(network::Event::Datagram { connection, payload: payload() }),
        Way::Streamed(which) => {
            let class = StreamClass::ALL[usize::from(which)];
            Event::Network(network::Event::Received { connection, class, payload: payload() })
        }
        Way::News => {
            let watch = OpId { incarnation: Incarnation(1), counter: 0 };
            let changes = Arc::new([]);
            Event::Directory(directory::Event::Changed { watch, revision: Revision(number), changes })
        }
    }
}

fn input(event: &Event) -> Option<(Way, u64)> {
    let number = |payload: &network::Payload| {
        u64::from_le_bytes(payload.as_bytes().and_then(|bytes| bytes.try_into().ok()).expect("eight bytes"))
    };
    match event {
        Event::Network(network::Event::Datagram { payload, .. }) => Some((Way::Offered, number(payload))),
        Event::Network(network::Event::Received { class, payload, .. }) => {
            Some((Way::Streamed(*class as u8), number(payload)))
        }
        Event::Directory(directory::Event::Changed { revision, .. }) => Some((Way::News, revision.0)),
        _ => None,
    }
}

impl Book {
    pub fn new(stalls: Stalls, inbox: Inbox) -> Self {
        Self {
            log: Log::default(),
            stalls,
            inbox,
            operations: BTreeMap::new(),
            in_flight: 0,
            timers: BTreeMap::new(),
            given: BTreeMap::new(),
            numbers: 0,
            answers: 0,
            told: 0,
            inputs: (0, DefaultHasher::new()),
            writing: None,
            stopping: false,
            stopped: false,
            clean: false,
        }
    }

    pub fn is_stopping(&self) -> bool {
        self.stopping
    }

    pub fn has_stopped(&self) -> bool {
        self.stopped
    }

    pub fn note(&mut self, what: &'static str) {
        self.log.note(what);
    }

    /// The role has asked.
    pub fn asked(&mut self, op: OpId, deadline: Instant) {
        let slot = self.in_flight < limits::OPERATIONS_IN_FLIGHT;
        self.in_flight += usize::from(slot);
        let asked = self.stalls.mark();
        let behind = self.stopped;
        let operation = Operation { asked, deadline, slot, behind, left: false, answered: None, told: false };
        assert!(self.operations.insert(op, operation).is_none(), "an operation is asked once");
    }

    /// A door has it.
    pub fn left(&mut self, op: OpId) -> Instant {
        let operation = self.operations.get_mut(&op).expect("only what was asked leaves");
        assert!(!operation.behind, "{op}: nothing leaves behind the role's last word");
        assert!(operation.slot, "{op}: what has no slot for its answer does not leave");
        assert!(!operation.left, "{op}: nothing leaves twice");
        operation.left = true;
        operation.deadline
    }

    /// A door answers.
    pub fn answers(&mut self, op: OpId) -> Event {
        self.numbers += 1;
        let (mark, number) = (self.stalls.mark(), self.numbers);
        self.answers += u64::from(!self.stopped);
        let operation = self.operations.get_mut(&op).expect("it has left");
        match operation.answered {
            Some(_) => self.log.note("a second answer"),
            None if operation.told => self.log.note("an answer that came too late"),
            None => operation.answered = Some((mark, number)),
        }
        answer(op, number)
    }

    /// A door has something to write.
    pub fn writes(&mut self) {
        self.writing.get_or_insert(self.stalls.mark());
    }

    /// Its writer was woken.
    pub fn written(&mut self) {
        if let Some(since) = self.writing.take() {
            since.prompt(self.stalls.mark(), since.at, "a writer");
        }
    }

    pub fn arm(&mut self, key: TimerKey, at: Instant) {
        self.timers.insert(key, (self.stalls.mark(), at));
    }

    pub fn disarm(&mut self, key: TimerKey) {
        self.timers.remove(&key);
    }

    /// Input that goes into the inbox next: its number.
    pub fn give(&mut self, way: Way) -> u64 {
        self.numbers += 1;
        let mark = self.stalls.mark();
        self.given.entry(way).or_default().push_back((self.numbers, mark));
        self.numbers
    }

    fn waiting(&self, way: Way) -> usize {
        self.given.get(&way).map_or(0, VecDeque::len)
    }

    /// How many slots are free at least; the role's thread may have taken a few more events than the role was told.
    fn slots(&self, way: Way, all: usize) -> usize {
        if self.stopped { 0 } else { all.saturating_sub(self.waiting(way)) }
    }

    /// Offers a datagram.
    pub fn offer(&mut self) {
        let free = self.slots(Way::Offered, limits::INBOX);
        let number = self.numbers + 1;
        let taken = self.inbox.offer(numbered(Way::Offered, number));
        assert!(taken || free == 0, "a datagram is shed where there is no slot, and only there");
        if taken {
            self.give(Way::Offered);
        }
    }

    /// Offers datagrams at once.
    pub fn offer_all(&mut self, count: u64) {
        let (free, shed) = (self.slots(Way::Offered, limits::INBOX) as u64, self.inbox.shed());
        let first = self.numbers + 1;
        let mut events = (first..first + count).map(|number| numbered(Way::Offered, number)).collect();
        self.inbox.offer_all(&mut events);
        let taken = count - (self.inbox.shed() - shed);
        let most = if self.stopped { 0 } else { (free + TOGETHER).min(count) };
        assert!((free.min(count)..=most).contains(&taken), "what finds no slot is shed and counted, and only that");
        if taken < count && !self.stopped {
            self.note("a datagram shed");
        }
        for _ in 0..taken {
            self.give(Way::Offered);
        }
    }

    /// Tells news.
    pub fn news(&mut self, inbox: &Inbox) {
        let free = self.slots(Way::News, limits::WATCH_CREDITS);
        let taken = inbox.news(numbered(Way::News, self.numbers + 1));
        assert!(taken || free == 0, "news find no slot where as many wait as there are credits, and only there");
        if taken {
            self.give(Way::News);
        } else if !self.stopped {
            self.note("news shed");
        }
    }

    /// The role is told.
    pub fn told(&mut self, event: &Event) {
        assert!(!self.stopped, "nobody is told anything behind the last word");
        let now = self.stalls.mark();
        if let Some((way, number)) = input(event) {
            return self.told_input(now, way, number);
        }
        let (count, digest) = std::mem::take(&mut self.inputs);
        if count > 0 {
            self.log.tell(now.at, "role", &format_args!("{count} inputs {:016x}", digest.finish()));
        }
        self.log.tell(now.at, "role", event);
        match event {
            Event::Started => {}
            Event::Stop => self.stopping = true,
            Event::Timer(key) => {
                let (armed, due) = self.timers.remove(key).expect("only what is armed fires");
                assert!(due <= now.at, "{key:?} fires early");
                armed.prompt(now, due, "a timer");
            }
            event => {
                let (op, outcome) = answered(event).expect("nothing else was given");
                self.told_answer(now, op, outcome);
            }
        }
    }

    fn told_input(&mut self, now: Mark, way: Way, number: u64) {
        let (given, mark) = self.given.get_mut(&way).and_then(VecDeque::pop_front).expect("only what was given comes");
        assert_eq!(number, given, "what comes {way:?} comes in its order, each once");
        // A stream may have waited for its slots.
        if !matches!(way, Way::Streamed(_)) {
            mark.prompt(now, mark.at, "what was put into the inbox");
        }
        self.inputs.0 += 1;
        (way, number).hash(&mut self.inputs.1);
    }

    fn told_answer(&mut self, now: Mark, op: OpId, outcome: Outcome<u64>) {
        let operation = self.operations.get_mut(&op).expect("only what was asked is answered");
        assert!(!operation.told, "{op} is answered twice");
        operation.told = true;
        operation.asked.prompt(now, operation.deadline, "an operation");
        self.in_flight -= usize::from(operation.slot);
        match outcome {
            Outcome::Done(number) => {
                let (mark, first) = operation.answered.expect("nobody else answers");
                assert_eq!(number, first, "{op}: the first answer is the one");
                mark.prompt(now, mark.at, "an answer");
                self.told += 1;
                if now.at >= operation.deadline {
                    self.log.note("an answer found behind its deadline");
                }
            }
            Outcome::Unknown => {
                assert!(operation.left, "{op}: what never left is refused");
                assert!(now.at >= operation.deadline, "{op} is given up before its deadline");
                assert!(operation.answered.is_none(), "{op}: the answer was there and is not told");
            }
            Outcome::Refused(refusal) => {
                assert_eq!(refusal, Refusal::Busy, "{op}");
                assert!(!operation.slot && !operation.left, "{op}: only what never left is refused");
                self.log.note("an operation without a slot");
            }
        }
    }

    /// Whether everything that was asked and given has been told.
    pub fn is_told(&self) -> bool {
        self.given.values().all(VecDeque::is_empty) && self.operations.values().all(|operation| operation.told)
    }

    /// The role says its last word.
    pub fn stop(&mut self) {
        self.stopped = true;
        self.clean = self.inbox.is_empty();
        let amid = self.operations.values().any(|operation| operation.left && !operation.told);
        self.note(if amid { "stopped amid operations" } else { "stopped when all was told" });
    }

    /// The host has ended.
    pub fn ended(&mut self, counters: &Counters) {
        let counted = |name: &str| counters.each().into_iter().find(|(each, _)| *each == name).map(|(_, count)| count);
        assert!(self.writing.is_none(), "who stops leaves no writer asleep");
        for (op, operation) in &self.operations {
            assert!(operation.left || !operation.slot || !operation.told, "{op} was told what nobody can know");
        }
        let (late, most) = (counted("late_answers").expect("a counter"), self.answers - self.told);
        let least = if self.clean { most.saturating_sub(TOGETHER) } else { 0 };
        assert!((least..=most).contains(&late), "answers that nobody waits for are counted");
        let busy = self.operations.values().filter(|operation| !operation.slot && operation.told).count();
        assert!(counted("refused_busy") >= Some(busy as u64), "what found no slot is counted");
        assert!(self.inbox.is_empty() && !self.inbox.offer(Event::Started), "a role that has stopped has no inbox");
    }

    pub fn log(&mut self) -> Log {
        std::mem::take(&mut self.log)
    }
}
