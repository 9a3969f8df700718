//! NATS as its client shows it: connections that take what they can, and end, or fall silent; one stream, and consumers that
//! deliver what was not acknowledged again. Its moods are drawn.

use super::{
    Shared,
    line::{Command, Line, coming},
};
use crate::script::{between, draws, one_in, pause};
use bytes::Bytes;
use madsim::task::spawn;
use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};
use tokio::sync::{mpsc, oneshot, watch};
use worldline_real::{
    bus::client::{Connected, Delivered, Publish, Reply},
    clock,
};
use worldline_system::{
    Refusal,
    doors::{
        bus::{GapCause, Message, MessageId, Published, StreamSequence},
        entropy::Entropy,
    },
    limits,
    outcome::End,
    time::{Duration, Instant, UnixTime},
};

/// The part of the draws for connections begins here.
const CONNECTIONS: u64 = 1_000;
/// What a connection takes that its task has not seen.
const COMMANDS: usize = 16;
/// How long the client waits until it calls a server silent: while it connects, between pings, and of a consumer.
const SILENT: Duration = Duration::from_secs(3);
const HEARTBEATS: Duration = Duration::from_secs(2);
/// How often a consumer looks whether there is something to deliver.
const LOOK: Duration = Duration::from_millis(5);

/// All servers: they have one stream.
#[derive(Debug)]
pub struct Nats {
    pub book: Shared,
    well: AtomicBool,
    connected: AtomicU64,
    pub alive: AtomicU64,
    stored: Mutex<Stored>,
}

#[derive(Debug, Default)]
pub struct Stored {
    messages: Vec<(Publish, UnixTime)>,
    ids: BTreeMap<MessageId, u64>,
    pub consumers: BTreeMap<String, Consumer>,
}

#[derive(Debug, Default)]
pub struct Consumer {
    /// The operation that has opened it last.
    pub opened_by: u64,
    /// So many have been delivered.
    delivered: usize,
    /// By their place: how often it was delivered, and when it comes again.
    pub out: BTreeMap<u64, (u32, Instant)>,
}

impl Nats {
    pub fn new(book: Shared) -> Self {
        let (connected, alive) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { book, well: AtomicBool::new(false), connected, alive, stored: Mutex::default() }
    }

    /// From now on it does what it should.
    pub fn heal(&self) {
        self.well.store(true, Ordering::Relaxed);
    }

    /// Connections that somebody holds.
    pub fn connections(&self) -> u64 {
        self.alive.load(Ordering::Relaxed)
    }

    /// Messages that are stored.
    pub fn messages(&self) -> u64 {
        self.stored().messages.len() as u64
    }

    pub fn is_well(&self) -> bool {
        self.well.load(Ordering::Relaxed)
    }

    pub fn stored(&self) -> MutexGuard<'_, Stored> {
        lock(&self.stored)
    }

    pub fn is_ill(&self, draws: &mut Entropy, one_in_times: u64) -> bool {
        one_in(draws, one_in_times) && !self.is_well()
    }

    pub fn note(&self, what: &'static str) {
        self.book.book().note(what);
    }

    pub async fn open(self: Arc<Self>, over: Arc<watch::Sender<bool>>) -> Result<Connected, String> {
        let number = self.connected.fetch_add(1, Ordering::Relaxed);
        self.book.book().connects(number);
        let mut draws = draws(CONNECTIONS + number);
        pause(between(&mut draws, Duration::ZERO, Duration::from_millis(5))).await;
        if self.is_ill(&mut draws, 4) {
            self.note("nobody at an address");
            return Err("nobody answers".to_owned());
        }
        if self.is_ill(&mut draws, 12) {
            self.note("nobody answers a connection");
            pause(SILENT).await;
            return Err("never answers".to_owned());
        }
        self.alive.fetch_add(1, Ordering::Relaxed);
        let (commands, asked) = mpsc::channel(COMMANDS);
        let (told, acknowledgements) = mpsc::unbounded_channel();
        let (dead, noticed) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        drop(spawn(self.clone().fate(over, dead.clone(), noticed.clone(), fork(&mut draws))));
        drop(spawn(self.clone().work(asked, told, dead.clone(), noticed.clone(), fork(&mut draws))));
        let line = Line { nats: self, number, dead, noticed, draws: Mutex::new(draws), commands };
        Ok(Connected { connection: Box::new(line), acknowledgements: coming(acknowledgements) })
    }

    /// What becomes of a connection.
    async fn fate(
        self: Arc<Self>,
        over: Arc<watch::Sender<bool>>,
        dead: Arc<AtomicBool>,
        noticed: Arc<AtomicBool>,
        mut draws: Entropy,
    ) {
        pause(between(&mut draws, Duration::from_millis(10), Duration::from_secs(4))).await;
        if !self.is_ill(&mut draws, 1) {
            return;
        }
        dead.store(true, Ordering::Relaxed);
        match draws.below(4) {
            0 => self.note("a connection that has ended"),
            1 => {
                self.note("a connection that is told late to have ended");
                pause(between(&mut draws, Duration::ZERO, Duration::from_millis(50))).await;
            }
            2 => {
                self.note("a connection that is silent");
                pause(SILENT).await;
            }
            _ => {
                self.note("a connection whose end nobody tells");
                return noticed.store(true, Ordering::Relaxed);
            }
        }
        noticed.store(true, Ordering::Relaxed);
        over.send_replace(true);
    }

    /// Sees to what leaves over a connection, in its order.
    async fn work(
        self: Arc<Self>,
        mut asked: mpsc::Receiver<Command>,
        told: mpsc::UnboundedSender<(u64, Result<Published, End>)>,
        dead: Arc<AtomicBool>,
        noticed: Arc<AtomicBool>,
        mut draws: Entropy,
    ) {
        // Where nobody is there any more, nobody answers.
        let mut unanswered = Vec::new();
        while let Some(command) = asked.recv().await {
            let long = one_in(&mut draws, 25);
            if long || one_in(&mut draws, 3) {
                pause(between(&mut draws, Duration::ZERO, Duration::from_millis(if long { 200 } else { 2 }))).await;
            }
            if dead.load(Ordering::Relaxed) {
                if noticed.load(Ordering::Relaxed) && one_in(&mut draws, 2) {
                    self.note("a connection that takes nothing");
                    return;
                }
                match command {
                    Command::Publish(..) => {}
                    Command::Acknowledge(_, answer) => unanswered.extend(answer),
                    Command::Reject(_, answer) => unanswered.push(answer),
                }
                continue;
            }
            let lost = self.is_ill(&mut draws, 30);
            if lost {
                self.note("an answer that is lost");
            }
            match command {
                Command::Publish(number, publish) => {
                    let answer = self.publish(publish, &mut draws);
                    if !lost {
                        // Perhaps nobody is there any more.
                        let _ = told.send((number, answer));
                    }
                }
                Command::Acknowledge(reply, answer) => {
                    self.acknowledged(&reply);
                    answer_unless(lost, answer, &mut unanswered);
                }
                Command::Reject(reply, answer) => {
                    self.rejected(&reply);
                    answer_unless(lost, Some(answer), &mut unanswered);
                }
            }
        }
    }

    fn publish(&self, publish: Publish, draws: &mut Entropy) -> Result<Published, End> {
        let counter = counter(&publish.payload);
        if self.is_ill(draws, 40) {
            let refusal = if one_in(draws, 2) { Refusal::NoStream } else { Refusal::StreamFull };
            self.book.book().refuses(counter, refusal);
            return Err(End::Refused(refusal));
        }
        let mut stored = self.stored();
        let next = stored.messages.len() as u64 + 1;
        let sequence = *stored.ids.entry(publish.message).or_insert(next);
        let published = Published { sequence: StreamSequence(sequence), duplicate: sequence < next };
        if !published.duplicate {
            stored.messages.push((publish, clock::unix_now()));
        }
        drop(stored);
        self.book.book().stored(counter, published);
        if self.is_ill(draws, 60) {
            self.note("an answer of somebody else");
            return Err(End::Unknown);
        }
        Ok(published)
    }

    fn acknowledged(&self, reply: &Reply) {
        let (consumer, opened_by, sequence) = meant(reply);
        if let Some(consumer) = self.stored().consumers.get_mut(&consumer) {
            consumer.out.remove(&sequence);
        }
        self.book.book().acknowledged(opened_by, sequence);
    }

    fn rejected(&self, reply: &Reply) {
        let (consumer, opened_by, sequence) = meant(reply);
        if let Some((_, due)) = self.stored().consumers.get_mut(&consumer).and_then(|it| it.out.get_mut(&sequence)) {
            *due = clock::now();
        }
        self.book.book().rejected(opened_by);
    }

    /// Delivers to a consumer until somebody else opens it, nobody takes anything, or its connection is gone.
    pub async fn deliver(
        self: Arc<Self>,
        name: String,
        opened_by: u64,
        messages: mpsc::Sender<Result<Delivered, GapCause>>,
        dead: Arc<AtomicBool>,
        mut draws: Entropy,
    ) {
        while !messages.is_closed() {
            pause(LOOK).await;
            if dead.load(Ordering::Relaxed) {
                pause(HEARTBEATS).await;
                // The client misses its heartbeats.
                let _ = messages.send(Err(GapCause::Disconnected)).await;
                return;
            }
            if self.is_ill(&mut draws, 200) {
                self.note("a message of somebody else");
                let reply = Bytes::from(format!("{name} {opened_by} 0"));
                if messages.try_send(Ok(Delivered::Foreign("worldline.facts.nobody".to_owned(), Some(reply)))).is_ok() {
                    self.book.book().foreign(1, 0);
                }
            }
            let mut delivers = false;
            while let Some(message) = self.next(&name, opened_by) {
                delivers = true;
                let reply = Bytes::from(format!("{name} {opened_by} {}", message.sequence));
                let (sequence, delivery) = (message.sequence.0, message.delivery);
                self.book.book().delivers(opened_by, sequence, delivery);
                if messages.send(Ok(Delivered::Message(message, reply))).await.is_err() {
                    return;
                }
            }
            if self.is_ill(&mut draws, if delivers { 20 } else { 500 }) {
                self.note("a consumer that was deleted");
                self.stored().consumers.remove(&name);
                self.book.book().ends(opened_by);
                let _ = messages.send(Err(GapCause::Ended)).await;
                return;
            }
        }
    }

    /// What a consumer is to be told next.
    fn next(&self, name: &str, opened_by: u64) -> Option<Message> {
        let mut stored = self.stored();
        let Stored { messages, consumers, .. } = &mut *stored;
        let consumer = consumers.get_mut(name).filter(|consumer| consumer.opened_by == opened_by)?;
        let (now, again) = (clock::now(), clock::now() + limits::BUS_ACK_WAIT);
        let credits = limits::BUS_CREDITS - consumer.out.len();
        let due = consumer.out.iter_mut().find(|(_, (_, due))| *due <= now);
        let (sequence, delivery) = match due {
            Some((&sequence, (delivery, due))) => {
                (*delivery, *due) = (*delivery + 1, again);
                (sequence, *delivery)
            }
            None if consumer.delivered < messages.len() && credits > 0 => {
                consumer.delivered += 1;
                let sequence = consumer.delivered as u64;
                consumer.out.insert(sequence, (1, again));
                (sequence, 1)
            }
            None => return None,
        };
        let (Publish { subject, payload, .. }, published) = &messages[sequence as usize - 1];
        let (subject, published, payload) = (*subject, *published, payload.as_ref().into());
        Some(Message { sequence: StreamSequence(sequence), subject, published, delivery, payload })
    }
}

fn answer_unless(lost: bool, answer: Option<oneshot::Sender<()>>, unanswered: &mut Vec<oneshot::Sender<()>>) {
    match answer {
        Some(answer) if lost => unanswered.push(answer),
        // Perhaps nobody waits any more.
        Some(answer) => drop(answer.send(())),
        None => {}
    }
}

/// Which consumer, opened by which operation, and which message.
fn meant(reply: &Reply) -> (String, u64, u64) {
    let text = std::str::from_utf8(reply).expect("our own");
    let words: Vec<&str> = text.split(' ').collect();
    let [name, opened_by, sequence] = words[..] else { panic!("{text} is not our own") };
    (name.to_owned(), opened_by.parse().expect("a number"), sequence.parse().expect("a number"))
}

/// The operation that a payload belongs to.
pub fn counter(payload: &[u8]) -> u64 {
    u64::from_le_bytes(payload.try_into().expect("eight bytes"))
}

/// Draws of their own.
pub fn fork(draws: &mut Entropy) -> Entropy {
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&draws.bits().to_le_bytes());
    Entropy::from_seed(seed)
}

pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Whoever panics ends the run.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
