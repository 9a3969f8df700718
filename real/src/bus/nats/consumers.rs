//! Consumers of JetStream, which pull.
//!
//! JetStream is told of every message by itself (`AckExplicit`): its `AckAll` ignores an acknowledgement that comes after that
//! of a message which was delivered later, as it happens once something has come again. The last of them asks for a
//! confirmation, and JetStream sees to them in order.

use super::{
    super::client::{Delivered, Opened, Reply},
    STREAM, verdict,
};
use async_nats::{
    Client, Message as Raw, Request, RequestErrorKind, StatusCode, Subject as To,
    jetstream::{
        self, ErrorCode,
        consumer::{AckPolicy, Consumer, DeliverPolicy, pull},
        context::Context,
        stream::ConsumerErrorKind,
    },
};
use bytes::Bytes;
use futures_util::StreamExt as _;
use std::time::Duration;
use worldline_system::{
    Refusal,
    doors::bus::{Durable, GapCause, Message, Start, StreamSequence, Subject},
    limits,
    outcome::End,
    time::UnixTime,
};

/// How long one pull waits at the server.
const PULL: Duration = Duration::from_secs(10);
/// How often a server with nothing to tell says that it lives; two of them missed are the end of the consumer.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// After so long without a pull the server forgets a consumer that is not durable.
const FORGOTTEN: Duration = Duration::from_secs(30);

/// Opens a consumer, or the one that stands under this name.
pub(super) async fn open(context: &Context, durable: Option<Durable>, start: Start) -> Result<Opened, End> {
    let wanted = config(durable, start)?;
    let consumer = match durable {
        Some(durable) => match existing(context, durable, &wanted).await? {
            Some(consumer) => consumer,
            None => create(context, wanted).await?,
        },
        None => create(context, wanted).await?,
    };
    let name = consumer.cached_info().name.clone();
    let stream = consumer.stream().max_messages_per_batch(limits::BUS_CREDITS).expires(PULL).heartbeat(HEARTBEAT);
    let messages = stream.messages().await.map_err(|_| End::Unknown)?;
    Ok(Opened { name, messages: Box::pin(messages.map(|taken| taken.map(delivered).map_err(|error| cause(&error)))) })
}

/// Why nothing more comes.
fn cause(error: &pull::MessagesError) -> GapCause {
    use pull::MessagesErrorKind::{ConsumerDeleted, NoResponders, PushBasedConsumer};
    let ended = matches!(error.kind(), ConsumerDeleted | NoResponders | PushBasedConsumer);
    if ended { GapCause::Ended } else { GapCause::Disconnected }
}

fn delivered(message: jetstream::Message) -> Delivered {
    let reply = message.reply.as_ref().map(|reply| Bytes::copy_from_slice(reply.as_bytes()));
    match (read(&message), reply) {
        (Some(message), Some(reply)) => Delivered::Message(message, reply),
        (_, reply) => Delivered::Foreign(message.message.subject.into_string(), reply),
    }
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

/// What a consumer of ours is.
fn config(durable: Option<Durable>, start: Start) -> Result<pull::Config, End> {
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
    context: &Context,
    durable: Durable,
    wanted: &pull::Config,
) -> Result<Option<Consumer<pull::Config>>, End> {
    let name = durable.to_string();
    let found = context.get_consumer_from_stream::<pull::Config, _, _>(&name, STREAM).await;
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
    create(context, pull::Config { deliver_policy: found.deliver_policy, ..wanted.clone() }).await.map(Some)
}

async fn create(context: &Context, wanted: pull::Config) -> Result<Consumer<pull::Config>, End> {
    context.create_consumer_on_stream(wanted, STREAM).await.map_err(|error| match error.kind() {
        ConsumerErrorKind::JetStream(told) => verdict::consume(&told),
        _ => End::Unknown,
    })
}

/// Says of each that it was taken in, and waits until the server has said that it knows of the last.
pub(super) async fn acknowledge(client: &Client, mut messages: Vec<Reply>) -> Result<(), End> {
    let Some(last) = messages.pop() else { return Ok(()) };
    for message in messages {
        client.publish(to(message)?, "+ACK".into()).await.map_err(|_| End::Unknown)?;
    }
    confirmed(client, last, "+ACK").await
}

/// Tells the server something of a message, and waits until it has said that it knows.
pub(super) async fn confirmed(client: &Client, message: Reply, word: &'static str) -> Result<(), End> {
    let request = Request::new().payload(word.into());
    match client.send_request(to(message)?, request).await {
        Ok(Raw { status: Some(StatusCode::NO_RESPONDERS), .. }) => Err(End::Refused(Refusal::NoStream)),
        Ok(_) => Ok(()),
        Err(error) if error.kind() == RequestErrorKind::NoResponders => Err(End::Refused(Refusal::NoStream)),
        Err(_) => Err(End::Unknown),
    }
}

fn to(message: Reply) -> Result<To, End> {
    To::from_utf8(message).map_err(|_| End::Unknown)
}
