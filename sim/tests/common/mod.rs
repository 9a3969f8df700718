//! A role that follows a script and remembers what it was told.

#![allow(dead_code, reason = "each test file uses its part")]

use std::sync::Arc;
use worldline_proto::{
    CallId, ConnectionId, NodeId,
    server::{AttachReply, AttachRequest, Reply, Request},
};
use worldline_sim::{City, Config, NodeSpec, Place, Solo, World};
use worldline_system::{
    Outcome, Role, Turn,
    doors::{
        self, Asked,
        clock::TimerKey,
        directory, ledger,
        network::{self, CloseReason, Payload, StreamClass},
    },
    time::{Duration, Instant},
};

/// What a puppet does when its time has come.
#[derive(Clone, Debug)]
pub enum Act {
    Connect(NodeId),
    /// On the connection that was opened or accepted last.
    Send(StreamClass, u32),
    Datagram(u32),
    Large(StreamClass, usize),
    Close,
    Call(NodeId, Duration),
    /// The same act again and again, with a number that counts up where it has one.
    Repeat(u32, Duration, Box<Act>),
    Arm(u64, Duration),
    /// Several submissions of one event.
    All(Vec<Act>),
}

/// What a puppet may submit: everything.
pub struct Ask(doors::Submission);

impl From<Ask> for doors::Submission {
    fn from(ask: Ask) -> Self {
        ask.0
    }
}

impl From<network::Submission> for Ask {
    fn from(submission: network::Submission) -> Self {
        Self(doors::Submission::Network(submission))
    }
}

impl From<Asked<directory::Submission>> for Ask {
    fn from(asked: Asked<directory::Submission>) -> Self {
        Self(doors::Submission::Directory(asked))
    }
}

impl From<Asked<ledger::Submission>> for Ask {
    fn from(asked: Asked<ledger::Submission>) -> Self {
        Self(doors::Submission::Ledger(asked))
    }
}

#[derive(Clone, Debug, Default)]
pub struct Puppet {
    pub script: Arc<Vec<(Duration, Act)>>,
    /// How long it takes to answer a call. `None`: it never does.
    pub answers_in: Option<Duration>,
    pub connection: Option<ConnectionId>,
    pub told: Vec<(Instant, doors::Event)>,
    waiting: Vec<CallId>,
}

const ACT: u8 = 1;
const ANSWER: u8 = 2;
const OWN: u8 = 3;

impl Puppet {
    pub fn new(script: impl IntoIterator<Item = (Duration, Act)>) -> Self {
        Self { script: Arc::new(script.into_iter().collect()), answers_in: Some(Duration::ZERO), ..Self::default() }
    }

    pub fn silent() -> Self {
        Self::new([])
    }

    fn act(&mut self, act: &Act, nth: u32, turn: &mut Turn<'_, Ask>) {
        match act {
            Act::Connect(to) => {
                turn.connect(*to);
            }
            Act::Send(class, n) => {
                if let Some(connection) = self.connection {
                    let payload = number(n + nth);
                    turn.submit(network::Submission::Send { connection, class: *class, payload });
                }
            }
            Act::Large(class, bytes) => {
                if let Some(connection) = self.connection {
                    let payload = Payload::from(&vec![nth as u8; *bytes][..]);
                    turn.submit(network::Submission::Send { connection, class: *class, payload });
                }
            }
            Act::Datagram(n) => {
                if let Some(connection) = self.connection {
                    turn.submit(network::Submission::Datagram { connection, payload: number(n + nth) });
                }
            }
            Act::Close => {
                if let Some(connection) = self.connection {
                    turn.submit(network::Submission::Close { connection, reason: CloseReason::Closed });
                }
            }
            Act::Call(to, patience) => {
                let request = AttachRequest { character: 7, generation: u64::from(nth), ..AttachRequest::default() };
                turn.call(*to, Request::Attach(request), *patience);
            }
            Act::Arm(key, span) => turn.arm_in(TimerKey::new(OWN, *key), *span),
            Act::All(acts) => acts.iter().for_each(|act| self.act(act, nth, turn)),
            Act::Repeat(..) => unreachable!("unrolled"),
        }
    }
}

/// A datagram or message that carries a number, four times over, so that a torn one shows.
pub fn number(n: u32) -> Payload {
    Payload::from(&[n.to_le_bytes(); 4].concat()[..])
}

pub fn number_of(payload: &Payload) -> u32 {
    let words = payload.as_bytes().expect("bytes").as_chunks::<4>().0;
    assert_eq!(words.len(), 4, "torn");
    assert!(words.iter().all(|word| word == &words[0]), "torn");
    u32::from_le_bytes(words[0])
}

impl Role for Puppet {
    type Event = doors::Event;
    type Submission = Ask;

    fn on_event(&mut self, event: doors::Event, turn: &mut Turn<'_, Ask>) {
        self.told.push((turn.now(), event.clone()));
        match event {
            doors::Event::Started => {
                for (n, (at, _)) in self.script.iter().enumerate() {
                    turn.arm_in(TimerKey::new(ACT, n as u64), *at);
                }
            }
            doors::Event::Timer(key) if key.kind() == ACT => {
                let (index, nth) = ((key.number() & 0xFFFF) as usize, (key.number() >> 16) as u32);
                let script = self.script.clone();
                match &script[index].1 {
                    Act::Repeat(times, every, act) => {
                        self.act(act, nth, turn);
                        if nth + 1 < *times {
                            turn.arm_in(TimerKey::new(ACT, index as u64 | u64::from(nth + 1) << 16), *every);
                        }
                    }
                    act => self.act(act, 0, turn),
                }
            }
            doors::Event::Timer(key) if key.kind() == ANSWER => {
                let call = self.waiting.remove(0);
                turn.submit(network::Submission::Reply { call, outcome: Box::new(Outcome::Done(reply(call.0))) });
            }
            doors::Event::Network(network::Event::Opened { connection, .. })
            | doors::Event::Network(network::Event::Accepted { connection, .. }) => self.connection = Some(connection),
            doors::Event::Network(network::Event::Called { call, .. }) => match self.answers_in {
                Some(Duration::ZERO) => {
                    turn.submit(network::Submission::Reply { call, outcome: Box::new(Outcome::Done(reply(call.0))) });
                }
                Some(span) => {
                    self.waiting.push(call);
                    turn.arm_in(TimerKey::new(ANSWER, call.0), span);
                }
                None => {}
            },
            doors::Event::Stop => turn.stopped(),
            _ => {}
        }
    }

    fn queues(&self, _: &mut dyn FnMut(&'static str, usize, usize)) {}
}

fn reply(epoch: u64) -> Reply {
    Reply::Attach(AttachReply { epoch, ..AttachReply::default() })
}

pub type Stage = World<Solo<Puppet>>;

/// A world of two puppets in two cities.
pub fn stage(seed: u64, puppets: impl IntoIterator<Item = (City, Puppet)>) -> Stage {
    let mut world = World::new(Config { seed, ..Config::default() });
    for (n, (city, puppet)) in puppets.into_iter().enumerate() {
        let node = world.add_node(NodeSpec::new(format!("puppet-{n}"), Place::zone(city, 0)), Solo(puppet));
        world.start(node);
    }
    world
}

pub const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

pub const fn at_ms(n: u64) -> Instant {
    Instant::from_nanos(n * 1_000_000)
}

pub fn told(world: &Stage, node: u32) -> &[(Instant, doors::Event)] {
    &world.actor(NodeId(node)).expect("it has started").0.told
}

/// What a puppet was told by the network, in order.
pub fn heard(world: &Stage, node: u32) -> Vec<network::Event> {
    let events = told(world, node).iter();
    events
        .filter_map(|(_, event)| if let doors::Event::Network(event) = event { Some(event.clone()) } else { None })
        .collect()
}

/// The numbers of the messages of a class that a puppet received, in order.
pub fn received(world: &Stage, node: u32, wanted: StreamClass) -> Vec<u32> {
    let number = |event: &network::Event| match event {
        network::Event::Received { class, payload, .. } if *class == wanted => Some(number_of(payload)),
        _ => None,
    };
    heard(world, node).iter().filter_map(number).collect()
}

/// The numbers of the datagrams that a puppet received, in order.
pub fn datagrams(world: &Stage, node: u32) -> Vec<u32> {
    let number = |event: &network::Event| match event {
        network::Event::Datagram { payload, .. } => Some(number_of(payload)),
        _ => None,
    };
    heard(world, node).iter().filter_map(number).collect()
}

/// How the calls of a puppet ended.
pub fn outcomes(world: &Stage, node: u32) -> Vec<Outcome<Reply>> {
    let outcome = |event: &network::Event| match event {
        network::Event::Answered { outcome, .. } => Some((**outcome).clone()),
        _ => None,
    };
    heard(world, node).iter().filter_map(outcome).collect()
}

/// Why and when the connections of a puppet ended, by its own clock counted from its start.
pub fn closed(world: &Stage, node: u32) -> Vec<(Duration, CloseReason)> {
    let begin = told(world, node)[0].0;
    let reason = |(at, event): &(Instant, doors::Event)| match event {
        doors::Event::Network(network::Event::Closed { reason, .. } | network::Event::NotOpened { reason, .. }) => {
            Some((at.since(begin), *reason))
        }
        _ => None,
    };
    told(world, node).iter().filter_map(reason).collect()
}
