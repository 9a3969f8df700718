//! Consumers: each a task that pulls with as many credits as are free, and what it has delivered and not acknowledged.
//!
//! JetStream is told of every message by itself (`AckExplicit`): its `AckAll` ignores an acknowledgement that comes after that
//! of a message which was delivered later, as it happens once something has come again. The last of them asks for a
//! confirmation, and JetStream sees to them in order.

use super::{
    Shared, stream,
    verdict::{self, Verdict},
};
use crate::bus::link::{CONNECT, Line};
use async_nats::{
    Message as Raw, Request, StatusCode, Subject as Reply,
    jetstream::{
        self, ErrorCode,
        consumer::{AckPolicy, Consumer, DeliverPolicy, pull},
        stream::ConsumerErrorKind,
    },
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
        bus::{Durable, Event, GapCause, Message, Start, StreamSequence, Subject},
    },
    limits,
    outcome::End,
    time::UnixTime,
};

/// Messages that are delivered at once, at most.
const TOGETHER: usize = 64;
/// How long one pull waits at the server.
const PULL: Duration = Duration::from_secs(10);
/// How often a server with nothing to tell says that it lives; two of them missed are the end of the consumer.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// After so long without a pull the server forgets a consumer that is not durable.
const FORGOTTEN: Duration = Duration::from_secs(30);
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
    let (line, name, mut messages) = match opened {
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
        let ended = take(shared, &open, op, first, &mut messages, &mut delivered).await;
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
        let _ = timeout(FAREWELL, line.context.delete_consumer_from_stream(&name, stream::NAME)).await;
    }
}

/// What a pull has come to.
type Next = Option<Result<jetstream::Message, pull::MessagesError>>;

/// Takes a message, and with it all that have come already; why no other will come, if so.
async fn take(
    shared: &Shared,
    open: &Open,
    consumer: OpId,
    first: Next,
    messages: &mut pull::Stream,
    delivered: &mut Vec<doors::Event>,
) -> Option<GapCause> {
    let mut next = Some(first);
    while let Some(taken) = next {
        let message = match taken {
            Some(Ok(message)) => message,
            Some(Err(error)) => {
                use pull::MessagesErrorKind::{ConsumerDeleted, NoResponders, PushBasedConsumer};
                let ended = matches!(error.kind(), ConsumerDeleted | NoResponders | PushBasedConsumer);
                return Some(if ended { GapCause::Ended } else { GapCause::Disconnected });
            }
            None => return Some(GapCause::Ended),
        };
        match (read(&message), message.message.reply.clone()) {
            (Some(message), Some(reply)) => {
                lock(&open.out).insert(message.sequence.0, reply);
                let event = Event::Delivered { consumer, message: Arc::new(message) };
                delivered.push(doors::Event::Bus(event));
            }
            (Some(_), None) => {}
            (None, _) => {
                shared.foreign(&message.subject);
                // Nobody can make anything of it: it shall not come again.
                let _ = message.ack_with(jetstream::AckKind::Term).await;
            }
        }
        next = if delivered.len() < TOGETHER { messages.next().now_or_never() } else { None };
    }
    None
}

/// A message as a role sees it. `None` for one that is not ours.
fn read(message: &jetstream::Message) -> Option<Message> {
    let subject: Subject = message.subject.parse().ok()?;
    let info = message.info().ok()?;
    let published = u64::try_from(info.published.unix_timestamp_nanos()).ok()?;
    (message.payload.len() <= limits::BUS_PAYLOAD_BYTES).then(|| Message {
        sequence: StreamSequence(info.stream_sequence),
        subject,
        published: UnixTime::from_nanos(published),
        delivery: u32::try_from(info.delivered).unwrap_or(u32::MAX),
        payload: message.payload.as_ref().into(),
    })
}

type Opened = (Arc<Line>, String, pull::Stream);

async fn open(shared: &Shared, by: Instant, durable: Option<Durable>, start: Start) -> Result<Opened, Verdict> {
    let found_by = by.min(Instant::now() + CONNECT);
    let line = shared.link.line(found_by).await.ok_or(End::Refused(Refusal::Unreachable))?;
    if !line.serves.load(std::sync::atomic::Ordering::Relaxed) {
        return Err(End::Refused(Refusal::NotServing));
    }
    let opening = async {
        let wanted = config(durable, start)?;
        let consumer = match durable {
            Some(durable) => match existing(&line, durable, &wanted).await? {
                Some(consumer) => consumer,
                None => create(&line, wanted).await?,
            },
            None => create(&line, wanted).await?,
        };
        let name = consumer.cached_info().name.clone();
        let stream = consumer.stream().max_messages_per_batch(limits::BUS_CREDITS).expires(PULL).heartbeat(HEARTBEAT);
        let messages = stream.messages().await.map_err(|_| End::Unknown)?;
        Ok((name, messages))
    };
    tokio::select! {
        biased;
        opened = timeout_at(by, opening) => match opened {
            Ok(opened) => opened.map(|(name, messages)| (line.clone(), name, messages)),
            Err(_) => Err(End::Unknown),
        },
        () = line.gone() => Err(End::Unknown),
    }
}

/// What a consumer of ours is.
fn config(durable: Option<Durable>, start: Start) -> Result<pull::Config, Verdict> {
    let malformed = End::Refused(Refusal::Malformed);
    let deliver_policy = match start {
        Start::Beginning => DeliverPolicy::All,
        Start::New => DeliverPolicy::New,
        Start::Sequence(sequence) => DeliverPolicy::ByStartSequence { start_sequence: sequence.0.max(1) },
        Start::Time(time) => DeliverPolicy::ByStartTime {
            start_time: time::OffsetDateTime::from_unix_timestamp_nanos(time.as_nanos().into())
                .map_err(|_| malformed)?,
        },
    };
    Ok(pull::Config {
        durable_name: durable.map(|durable| durable.to_string()),
        deliver_policy,
        ack_policy: AckPolicy::Explicit,
        ack_wait: crate::clock::span(limits::BUS_ACK_WAIT),
        max_ack_pending: limits::BUS_CREDITS as i64,
        inactive_threshold: if durable.is_some() { crate::clock::span(limits::BUS_AGE) } else { FORGOTTEN },
        ..pull::Config::default()
    })
}

/// The durable consumer, if it is there, with the bounds that are wanted; it keeps its place and where it began.
async fn existing(
    line: &Line,
    durable: Durable,
    wanted: &pull::Config,
) -> Result<Option<Consumer<pull::Config>>, Verdict> {
    let name = durable.to_string();
    let found = line.context.get_consumer_from_stream::<pull::Config, _, _>(&name, stream::NAME).await;
    let consumer = match found {
        Ok(consumer) => consumer,
        Err(error) => {
            return match error.kind() {
                ConsumerErrorKind::JetStream(told) if told.error_code() == ErrorCode::CONSUMER_NOT_FOUND => Ok(None),
                ConsumerErrorKind::JetStream(told) => Err(verdict::consume(&told)),
                _ => Err(End::Unknown),
            };
        }
    };
    let found = &consumer.cached_info().config;
    let same = found.ack_policy == wanted.ack_policy
        && found.ack_wait == wanted.ack_wait
        && found.max_ack_pending == wanted.max_ack_pending;
    if same {
        return Ok(Some(consumer));
    }
    create(line, pull::Config { deliver_policy: found.deliver_policy, ..wanted.clone() }).await.map(Some)
}

async fn create(line: &Line, wanted: pull::Config) -> Result<Consumer<pull::Config>, Verdict> {
    line.context.create_consumer_on_stream(wanted, stream::NAME).await.map_err(|error| match error.kind() {
        ConsumerErrorKind::JetStream(told) => verdict::consume(&told),
        _ => End::Unknown,
    })
}

impl Shared {
    /// Acknowledges everything that a consumer has delivered up to `through`.
    pub(super) async fn acknowledge(&self, by: Instant, op: OpId, through: StreamSequence) -> Outcome<()> {
        let Some(open) = self.consumers.get(op) else { return Outcome::Refused(Refusal::NotServing) };
        let told: Vec<(u64, Reply)> =
            lock(&open.out).range(..=through.0).map(|(&sequence, reply)| (sequence, reply.clone())).collect();
        let Some(((_, last), before)) = told.split_last() else { return Outcome::Done(()) };
        let ended = self
            .tell(&open.line, by, async |line| {
                for (_, reply) in before {
                    line.client.publish(reply.clone(), "+ACK".into()).await.map_err(|_| End::Unknown)?;
                }
                confirmed(line, last.clone(), "+ACK").await
            })
            .await;
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
        self.tell(&open.line, by, async |line| confirmed(line, reply, "-NAK").await).await
    }

    async fn tell(
        &self,
        line: &Line,
        by: Instant,
        telling: impl AsyncFnOnce(&Line) -> Result<(), Verdict>,
    ) -> Outcome<()> {
        if Instant::now() >= by {
            return Outcome::Refused(Refusal::Unreachable);
        }
        tokio::select! {
            biased;
            told = timeout_at(by, telling(line)) => match told {
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

/// Tells the server something of a message, and waits until it has said that it knows.
async fn confirmed(line: &Line, reply: Reply, word: &'static str) -> Result<(), Verdict> {
    let request = Request::new().payload(word.into());
    match line.client.send_request(reply, request).await {
        Ok(Raw { status: Some(StatusCode::NO_RESPONDERS), .. }) => Err(End::Refused(Refusal::NoStream)),
        Ok(_) => Ok(()),
        Err(error) if error.kind() == async_nats::RequestErrorKind::NoResponders => {
            Err(End::Refused(Refusal::NoStream))
        }
        Err(_) => Err(End::Unknown),
    }
}
