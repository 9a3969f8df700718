//! Consumers: each a task that takes what comes, and what it has delivered and not acknowledged.

use super::{
    Shared,
    client::{Coming, Delivered, Opened, Pending, Reply},
    link::{CONNECT, Line},
};
use futures_util::{FutureExt as _, StreamExt as _};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    sync::watch,
    time::{Instant, timeout, timeout_at},
};
use worldline_proto::OpId;
use worldline_system::{
    Outcome, Refusal,
    doors::{
        self,
        bus::{Durable, Event, GapCause, Start, StreamSequence},
    },
    limits,
    outcome::End,
};

/// Messages that are delivered at once, at most.
const TOGETHER: usize = 64;
/// How long the server may take to delete one.
const FAREWELL: Duration = Duration::from_secs(1);

/// A consumer that stands.
#[derive(Clone)]
struct Open {
    line: Arc<Line>,
    /// Delivered and not acknowledged: where the server wants to be told.
    out: Arc<Mutex<BTreeMap<u64, Reply>>>,
}

/// The consumers of an adapter.
#[derive(Default)]
pub(super) struct Consumers(Mutex<Places>);

/// By the operation that opens it: how it is told to end, and what stands once it is open.
type Places = BTreeMap<OpId, (watch::Sender<bool>, Option<Open>)>;

impl Consumers {
    fn all(&self) -> MutexGuard<'_, Places> {
        lock(&self.0)
    }

    /// Takes a place for one; says when it is to end. `None` where there is no place left.
    pub fn begin(&self, op: OpId) -> Option<watch::Receiver<bool>> {
        let mut all = self.all();
        if all.len() >= limits::BUS_CONSUMERS {
            return None;
        }
        let (stop, stopped) = watch::channel(false);
        all.insert(op, (stop, None));
        Some(stopped)
    }

    /// Ends one.
    pub fn end(&self, op: OpId) {
        if let Some((stop, _)) = self.all().remove(&op) {
            stop.send_replace(true);
        }
    }

    fn stands(&self, op: OpId, open: Open) {
        if let Some((_, place)) = self.all().get_mut(&op) {
            *place = Some(open);
        }
    }

    fn get(&self, op: OpId) -> Option<Open> {
        self.all().get(&op)?.1.clone()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while it holds the lock: what is inside is whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Opens a consumer, answers, and delivers until it ends.
pub(super) async fn run(
    shared: &Shared,
    op: OpId,
    by: Instant,
    durable: Option<Durable>,
    start: Start,
    mut stopped: watch::Receiver<bool>,
) {
    let mut closing = shared.closing.subscribe();
    let opened = tokio::select! {
        biased;
        _ = closing.wait_for(|&closing| closing) => Err(End::Unknown),
        opened = open(shared, by, durable, start) => opened,
    };
    let (line, Opened { name, mut messages }) = match opened {
        Ok(opened) => opened,
        Err(end) => {
            shared.consumers.end(op);
            return shared.answer(op, doors::bus::Answer::Consuming(end.into()));
        }
    };
    let open = Open { line: line.clone(), out: Arc::default() };
    shared.consumers.stands(op, open.clone());
    shared.answer(op, doors::bus::Answer::Consuming(Outcome::Done(())));
    let mut delivered = Vec::new();
    let gap = loop {
        let first = tokio::select! {
            biased;
            _ = stopped.wait_for(|&stopped| stopped) => break None,
            _ = closing.wait_for(|&closing| closing) => break None,
            () = line.gone() => break Some(GapCause::Disconnected),
            first = messages.next() => first,
        };
        let ended = take(shared, &open, op, first, &mut messages, &mut delivered);
        if !shared.inbox.news_all(&mut delivered) {
            break Some(GapCause::Overflow);
        }
        if ended.is_some() {
            break ended;
        }
    };
    shared.consumers.end(op);
    if let Some(cause) = gap {
        shared.inbox.reserved(doors::Event::Bus(Event::Gap { consumer: op, cause }));
    }
    drop(messages);
    if durable.is_none() {
        // The server forgets it by itself otherwise.
        let _ = timeout(FAREWELL, line.connection.delete(&name)).await;
    }
}

/// What a consumer has come to.
type Next = Option<Came>;
type Came = Result<Delivered, GapCause>;

/// Takes a message, and with it all that have come already; why no other will come, if so.
fn take(
    shared: &Shared,
    open: &Open,
    consumer: OpId,
    first: Next,
    messages: &mut Coming<Came>,
    delivered: &mut Vec<doors::Event>,
) -> Option<GapCause> {
    let mut next = Some(first);
    while let Some(taken) = next {
        match taken {
            Some(Ok(Delivered::Message(message, reply))) => {
                lock(&open.out).insert(message.sequence.0, reply);
                let event = Event::Delivered { consumer, message: Arc::new(message) };
                delivered.push(doors::Event::Bus(event));
            }
            Some(Ok(Delivered::Foreign(subject, reply))) => {
                shared.foreign(&subject);
                // Nobody can make anything of it: it shall not come again.
                if let Some(reply) = reply {
                    open.line.connection.discard(reply);
                }
            }
            Some(Err(cause)) => return Some(cause),
            None => return Some(GapCause::Ended),
        }
        next = if delivered.len() < TOGETHER { messages.next().now_or_never() } else { None };
    }
    None
}

async fn open(
    shared: &Shared,
    by: Instant,
    durable: Option<Durable>,
    start: Start,
) -> Result<(Arc<Line>, Opened), End> {
    let found_by = by.min(Instant::now() + CONNECT);
    let line = shared.link.line(found_by).await.ok_or(End::Refused(Refusal::Unreachable))?;
    if !line.serves.load(std::sync::atomic::Ordering::Relaxed) {
        return Err(End::Refused(Refusal::NotServing));
    }
    tokio::select! {
        biased;
        opened = timeout_at(by, line.connection.consume(durable, start)) => match opened {
            Ok(opened) => opened.map(|opened| (line.clone(), opened)),
            Err(_) => Err(End::Unknown),
        },
        () = line.gone() => Err(End::Unknown),
    }
}

impl Shared {
    /// Acknowledges everything that a consumer has delivered up to `through`.
    pub(super) async fn acknowledge(&self, by: Instant, op: OpId, through: StreamSequence) -> Outcome<()> {
        let Some(open) = self.consumers.get(op) else { return Outcome::Refused(Refusal::NotServing) };
        let told: Vec<(u64, Reply)> =
            lock(&open.out).range(..=through.0).map(|(&sequence, reply)| (sequence, reply.clone())).collect();
        if told.is_empty() {
            return Outcome::Done(());
        }
        let replies = told.iter().map(|(_, reply)| reply.clone()).collect();
        let ended = self.tell(&open.line, by, open.line.connection.acknowledge(replies)).await;
        if let Outcome::Done(()) = ended {
            let mut out = lock(&open.out);
            told.iter().for_each(|(sequence, _)| {
                out.remove(sequence);
            });
        }
        ended
    }

    /// Asks for one message again.
    pub(super) async fn reject(&self, by: Instant, op: OpId, sequence: StreamSequence) -> Outcome<()> {
        let refused = Outcome::Refused(Refusal::NotServing);
        let Some(open) = self.consumers.get(op) else { return refused };
        let Some(reply) = lock(&open.out).get(&sequence.0).cloned() else { return refused };
        self.tell(&open.line, by, open.line.connection.reject(reply)).await
    }

    async fn tell(&self, line: &Line, by: Instant, telling: Pending<'_, Result<(), End>>) -> Outcome<()> {
        if Instant::now() >= by {
            return Outcome::Refused(Refusal::Unreachable);
        }
        tokio::select! {
            biased;
            told = timeout_at(by, telling) => match told {
                Ok(told) => told.map_or_else(Outcome::from, Outcome::Done),
                Err(_) => {
                    self.link.unanswered(line);
                    Outcome::Unknown
                }
            },
            () = line.gone() => Outcome::Unknown,
        }
    }
}
