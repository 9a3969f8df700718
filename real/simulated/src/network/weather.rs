//! What the network promises in any weather: links that are slow, lossy or cut, a gateway that dies and comes back, clients
//! whose address changes. What befalls it, and when, follows from the seed.
//!
//! * An operation is answered once, and in time.
//! * What arrives on a stream is what was sent on it from its beginning, in order, each once and whole.
//! * A refused call is never heard of by its callee; one that was answered has been.
//! * Of an end a side hears at most once, and of nothing after it.
//! * Afterwards everybody can connect, and what was sent on connections that still stand has arrived.

use super::{Link, NAMES, Stage, number};
use crate::log::Log;
use std::collections::{BTreeMap, BTreeSet};
use worldline_laws::network::{CLIENTS, GATEWAY, WORKER};
use worldline_proto::{
    ConnectionId, NodeId, OpId,
    server::{AttachReply, AttachRequest, Reply, Request},
};
use worldline_system::{
    Outcome, Refusal,
    doors::{
        entropy::Entropy,
        network::{Call, CloseReason, Event, Payload, StreamClass, Submission},
    },
    limits,
    time::{Duration, Instant},
};

/// What happens in a run.
const STEPS: usize = 60;
/// The longest wait between two steps, in milliseconds.
const PAUSE_MS: u64 = 1_500;
/// How late an answer may come, for the steps of the simulation.
const GRACE: Duration = Duration::from_millis(20);
/// How long everybody has to be well again.
const BACK: Duration = Duration::from_secs(60);
/// How long a call may take.
const PATIENCE: Duration = Duration::from_millis(800);
const HEADER_BYTES: usize = 16;

/// What the weather of several seeds must come across.
pub const WEATHER: &[&str] = &[
    "a link changes",
    "a client's address changes",
    "a client is cut off",
    "the worker is cut off",
    "the gateway dies",
    "a connection is closed",
    "a message arrives",
    "a connection does not open",
    "a connection ends by silence",
    "a connection ends with its gateway",
    "a connection ends in order",
    "a call is done",
    "a call is refused",
    "an Unknown had happened",
    "an Unknown had not happened",
];

/// One end of a connection.
#[derive(Debug, Default)]
struct End {
    /// Names this end in what it sends.
    number: u64,
    /// What was sent in each class.
    sent: BTreeMap<StreamClass, u64>,
    /// What has arrived in each class.
    received: BTreeMap<StreamClass, u64>,
    /// The other end, once something of it has arrived.
    peer: Option<u64>,
    /// It was closed, by this side or to its knowledge.
    over: bool,
}

/// A call that waits.
#[derive(Debug)]
struct Asked {
    number: u64,
    due: Instant,
}

struct Weather {
    stage: Stage,
    log: Log,
    entropy: Entropy,
    ends: BTreeMap<(usize, ConnectionId), End>,
    connects: BTreeMap<OpId, (usize, Instant)>,
    calls: BTreeMap<OpId, Asked>,
    /// Calls that their callee has heard of.
    heard: BTreeSet<u64>,
    refused: BTreeSet<u64>,
    numbers: u64,
}

/// Plays the weather of a seed. Panics where a promise is broken.
#[must_use]
pub fn weather(seed: u64) -> Log {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let mut weather = Weather {
        stage: Stage::new(seed, Link::of(0)),
        log: Log::default(),
        entropy: Entropy::from_seed(bytes),
        ends: BTreeMap::new(),
        connects: BTreeMap::new(),
        calls: BTreeMap::new(),
        heard: BTreeSet::new(),
        refused: BTreeSet::new(),
        numbers: 0,
    };
    for _ in 0..STEPS {
        weather.step();
        let pause = weather.entropy.below(PAUSE_MS);
        weather.pass(Duration::from_millis(pause));
    }
    weather.clear_up();
    weather.log
}

impl Weather {
    fn step(&mut self) {
        let client = CLIENTS[self.entropy.below(2) as usize];
        match self.entropy.below(20) {
            0..4 => self.connect(client),
            4..9 => self.send(),
            9..12 => self.call(),
            12 => self.cut(client),
            13 => self.stage.sim.repair(NAMES[client], NAMES[GATEWAY]),
            14 | 15 => {
                let link = Link::of(self.entropy.below(3));
                self.note("a link changes");
                self.stage.change(client, link);
            }
            16 => {
                self.note("a client's address changes");
                self.stage.rebind(client);
            }
            17 => self.crash(),
            18 => self.close(),
            _ => self.cut_worker(),
        }
    }

    fn note(&mut self, what: &'static str) {
        self.log.note(what);
        self.log.tell(self.stage.now(), "weather", &what);
    }

    fn connect(&mut self, client: usize) {
        let op = self.stage.submit(client, |op, _| Submission::Connect { op, to: NodeId(number(GATEWAY)) });
        self.connects.insert(op, (client, self.stage.now() + limits::HANDSHAKE_TIMEOUT + GRACE));
    }

    /// Some messages on some open end.
    fn send(&mut self) {
        let Some((node, connection)) = self.any_open() else { return };
        let class = StreamClass::ALL[self.entropy.below(StreamClass::ALL.len() as u64) as usize];
        for _ in 0..=self.entropy.below(5) {
            let len = match self.entropy.below(8) {
                0 => limits::FRAME_BYTES,
                1 => HEADER_BYTES,
                other => HEADER_BYTES + other as usize * 100,
            };
            self.say(node, connection, class, len);
        }
        let payload = payload(self.ends[&(node, connection)].number, 0, limits::DATAGRAM_BYTES);
        self.stage.submit(node, |_, _| Submission::Datagram { connection, payload });
    }

    fn say(&mut self, node: usize, connection: ConnectionId, class: StreamClass, len: usize) {
        let end = self.ends.get_mut(&(node, connection)).expect("it is open");
        let sequence = end.sent.entry(class).or_default();
        let payload = payload(end.number, *sequence, len);
        *sequence += 1;
        self.stage.submit(node, |_, _| Submission::Send { connection, class, payload });
    }

    fn close(&mut self) {
        let Some((node, connection)) = self.any_open() else { return };
        self.note("a connection is closed");
        self.ends.get_mut(&(node, connection)).expect("it is open").over = true;
        self.stage.submit(node, |_, _| Submission::Close { connection, reason: CloseReason::Closed });
    }

    fn any_open(&mut self) -> Option<(usize, ConnectionId)> {
        let open: Vec<_> = self.ends.iter().filter(|(_, end)| !end.over).map(|(&key, _)| key).collect();
        if open.is_empty() { None } else { Some(open[self.entropy.below(open.len() as u64) as usize]) }
    }

    fn call(&mut self) {
        self.numbers += 1;
        let number = self.numbers;
        let to = NodeId(super::number(WORKER));
        let request = Request::Attach(AttachRequest { character: number, generation: 1, inputs_through: 0 });
        let op = self
            .stage
            .submit(GATEWAY, |op, now| Submission::Call(Box::new(Call { op, deadline: now + PATIENCE, to, request })));
        self.calls.insert(op, Asked { number, due: self.stage.now() + PATIENCE + GRACE });
    }

    fn cut(&mut self, client: usize) {
        self.note("a client is cut off");
        self.stage.sim.partition(NAMES[client], NAMES[GATEWAY]);
        // Somebody who was cut off for long has lost its connection.
        if self.entropy.below(2) == 0 {
            self.pass(limits::IDLE_TIMEOUT + limits::KEEP_ALIVE);
        }
    }

    fn cut_worker(&mut self) {
        self.note("the worker is cut off");
        let (gateway, worker) = (NAMES[GATEWAY], NAMES[WORKER]);
        match self.entropy.below(3) {
            0 => self.stage.sim.partition(gateway, worker),
            1 => self.stage.sim.partition_oneway(gateway, worker),
            _ => self.stage.sim.partition_oneway(worker, gateway),
        }
        self.call();
        let for_ms = self.entropy.below(4_000);
        self.pass(Duration::from_millis(for_ms));
        self.stage.sim.repair(gateway, worker);
    }

    /// The gateway dies: whoever was connected learns of it, from the next life or by silence.
    fn crash(&mut self) {
        self.note("the gateway dies");
        self.stage.crash(GATEWAY);
        self.ends.retain(|(node, _), _| *node != GATEWAY);
        self.calls.clear();
        let for_ms = self.entropy.below(2_000);
        self.pass(Duration::from_millis(for_ms));
        self.stage.restart(GATEWAY);
    }

    fn pass(&mut self, span: Duration) {
        let until = self.stage.now() + span;
        while self.listen(until) {}
    }

    /// Takes the next event in, if one comes until then.
    fn listen(&mut self, until: Instant) -> bool {
        let heard = self.stage.next_event(until, &mut self.log);
        let now = self.stage.now();
        let late = self.connects.values().map(|(_, due)| *due).chain(self.calls.values().map(|asked| asked.due));
        assert!(late.min().is_none_or(|due| due >= now), "not answered in time: {:?} {:?}", self.connects, self.calls);
        let Some((node, event)) = heard else { return false };
        self.hear(node, event);
        true
    }

    fn hear(&mut self, node: usize, event: Event) {
        match event {
            Event::Opened { op, connection } => {
                assert!(self.connects.remove(&op).is_some(), "{op} is answered twice");
                self.open(node, connection);
            }
            Event::NotOpened { op, .. } => {
                assert!(self.connects.remove(&op).is_some(), "{op} is answered twice");
                self.log.note("a connection does not open");
            }
            Event::Accepted { connection, .. } => self.open(node, connection),
            Event::Received { connection, class, payload } => {
                let end = self.ends.get_mut(&(node, connection)).expect("an open connection");
                assert!(!end.over, "{node} hears of {connection:?} after its end");
                let (from, sequence) = read(&payload);
                assert_eq!(*end.peer.get_or_insert(from), from, "another connection's message");
                let next = end.received.entry(class).or_default();
                assert_eq!(sequence, *next, "what was sent next in {class:?} of {connection:?}");
                *next += 1;
                self.log.note("a message arrives");
            }
            Event::Datagram { connection, payload } => {
                let end = &self.ends[&(node, connection)];
                assert!(!end.over, "{node} hears of {connection:?} after its end");
                assert!(end.peer.is_none_or(|peer| peer == read(&payload).0), "another connection's datagram");
            }
            Event::Closed { connection, reason } => {
                self.log.note(match reason {
                    CloseReason::IdleTimeout => "a connection ends by silence",
                    CloseReason::Reset => "a connection ends with its gateway",
                    _ => "a connection ends in order",
                });
                let end = self.ends.get_mut(&(node, connection)).expect("an open connection");
                assert!(!std::mem::replace(&mut end.over, true), "{node} hears twice of the end of {connection:?}");
            }
            Event::Called { call, request, .. } => {
                let Request::Attach(AttachRequest { character, .. }) = *request else { panic!("{request:?}") };
                assert!(!self.refused.contains(&character), "call {character} was refused, and it is called for");
                assert!(self.heard.insert(character), "call {character} is heard of twice");
                let reply = Reply::Attach(AttachReply { epoch: character, ..AttachReply::default() });
                self.stage.submit(WORKER, |_, _| Submission::Reply { call, outcome: Box::new(Outcome::Done(reply)) });
            }
            Event::Answered { op, outcome } => {
                let Asked { number, .. } = self.calls.remove(&op).expect("a call that waits");
                match *outcome {
                    Outcome::Done(Reply::Attach(AttachReply { epoch, .. })) => {
                        assert_eq!(epoch, number, "another call's reply");
                        assert!(self.heard.contains(&number));
                        self.log.note("a call is done");
                    }
                    Outcome::Refused(Refusal::Unreachable | Refusal::Busy) => {
                        assert!(!self.heard.contains(&number), "call {number} is refused, and it was heard of");
                        self.refused.insert(number);
                        self.log.note("a call is refused");
                    }
                    Outcome::Unknown if self.heard.contains(&number) => self.log.note("an Unknown had happened"),
                    Outcome::Unknown => self.log.note("an Unknown had not happened"),
                    other => panic!("call {number} is answered by {other:?}"),
                }
            }
        }
    }

    fn open(&mut self, node: usize, connection: ConnectionId) {
        self.numbers += 1;
        let end = End { number: self.numbers, ..End::default() };
        assert!(self.ends.insert((node, connection), end).is_none(), "{connection:?} is opened twice");
        // The first message says to the other side whose connection it is.
        if node != GATEWAY {
            self.say(node, connection, StreamClass::ALL[0], HEADER_BYTES);
        }
    }

    /// All is well again: connections that still stand deliver, and everybody connects and calls anew.
    fn clear_up(&mut self) {
        self.note("all is well");
        for client in CLIENTS {
            self.stage.sim.repair(NAMES[client], NAMES[GATEWAY]);
            self.stage.change(client, Link::of(0));
        }
        let by = self.stage.now() + BACK;
        self.pass(limits::IDLE_TIMEOUT + limits::KEEP_ALIVE);
        while !self.all_arrived() {
            assert!(self.stage.now() < by, "never arrived: {:?}", self.ends);
            self.listen(by);
        }
        for client in CLIENTS {
            let open = self.ends.len();
            self.connect(client);
            self.pass(limits::HANDSHAKE_TIMEOUT);
            assert_eq!(self.ends.len(), open + 2, "client {client} connects");
        }
        self.call();
        let answered = self.numbers;
        self.pass(PATIENCE);
        assert!(self.heard.contains(&answered), "the worker hears of a call");
        assert!(self.connects.is_empty() && self.calls.is_empty(), "everything is answered");
    }

    /// Whether every connection either stands on both sides, and all that was sent on it has arrived, or on none.
    fn all_arrived(&self) -> bool {
        let open = |gateway: bool| {
            self.ends.iter().filter(move |((node, _), end)| !end.over && (*node == GATEWAY) == gateway).map(|it| it.1)
        };
        let clients: BTreeMap<u64, &End> = open(false).map(|end| (end.number, end)).collect();
        let arrived = |from: &End, to: &End| from.sent.iter().all(|(class, sent)| to.received.get(class) == Some(sent));
        let whole = |end: &End| {
            let peer = end.peer.and_then(|peer| clients.get(&peer));
            peer.is_some_and(|peer| arrived(peer, end) && arrived(end, peer))
        };
        open(true).count() == clients.len() && open(true).all(whole)
    }
}

/// A message that names its sender and its place, and can be told from a torn one.
fn payload(from: u64, sequence: u64, len: usize) -> Payload {
    let mut bytes = Vec::with_capacity(len);
    bytes.extend(from.to_le_bytes());
    bytes.extend(sequence.to_le_bytes());
    bytes.resize(len.max(HEADER_BYTES), filling(from, sequence));
    Payload::from(&bytes[..])
}

fn filling(from: u64, sequence: u64) -> u8 {
    (from * 31 + sequence) as u8
}

fn read(payload: &Payload) -> (u64, u64) {
    let bytes = payload.as_bytes().expect("a client's bytes");
    let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight"));
    let (from, sequence) = (number(0), number(8));
    assert!(bytes[HEADER_BYTES..].iter().all(|&byte| byte == filling(from, sequence)), "a message is torn");
    (from, sequence)
}
