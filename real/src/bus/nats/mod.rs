//! The client that production has: async-nats.
//!
//! Deliberately absent: its reconnecting, and its waits for acknowledgements. The adapter has its own.

mod consumers;
mod stream;
mod verdict;

pub use stream::NAME as STREAM;

use super::{
    Endpoint, Limits,
    client::{Client, Connected, Connection, Opened, Pending, Problem, Publish, Reply},
    link::{CONNECT, PROBE, PULSE},
};
use async_nats::{
    ConnectErrorKind, ConnectOptions, Event, HeaderMap, Message, PublishErrorKind, ServerAddr, Subject,
    connection::State,
    jetstream::context::{Context, ContextBuilder},
};
use futures_util::{FutureExt as _, StreamExt as _};
use std::{error::Error as _, future::ready, io, sync::Arc, time::Duration};
use tokio::{sync::watch, task::unconstrained, time::timeout};
use worldline_system::{
    Refusal,
    doors::bus::{Durable, Published, Start},
    limits,
    outcome::End,
};

/// Commands that wait for the connection's task.
const COMMANDS: usize = 2 * limits::OPERATIONS_IN_FLIGHT;
/// Messages of one subscription that nobody has taken: as many as can be asked for, of either kind.
const UNTAKEN: usize = limits::OPERATIONS_IN_FLIGHT;
const _: () = assert!(UNTAKEN > limits::BUS_CREDITS);
/// The first version of NATS that has all that is used.
const VERSION_MIN: (u32, u32) = (2, 10);

/// The client.
#[derive(Clone, Copy, Debug)]
pub(super) struct Nats;

impl Client for Nats {
    fn connect<'a>(
        &'a self,
        endpoint: &'a Endpoint,
        over: Arc<watch::Sender<bool>>,
    ) -> Pending<'a, Result<Connected, String>> {
        Box::pin(connect(endpoint, over))
    }
}

/// A server that was reached.
struct Server {
    client: async_nats::Client,
    context: Context,
    /// What acknowledgements of publishes are addressed to; the number follows.
    reply: String,
}

impl Connection for Server {
    fn stands(&self) -> bool {
        self.client.connection_state() == State::Connected
    }

    fn publish(&self, number: u64, publish: Publish) -> Option<End> {
        let Publish { subject, message, after, payload } = publish;
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Msg-Id", message.to_string());
        headers.insert("Nats-Expected-Stream", STREAM);
        if let Some(after) = after {
            headers.insert("Nats-Expected-Last-Subject-Sequence", after.to_string());
        }
        let reply = format!("{}.{number}", self.reply);
        let leaving = self.client.publish_with_reply_and_headers(subject.to_string(), reply, headers, payload);
        match unconstrained(leaving).now_or_never() {
            Some(Ok(())) => None,
            None => Some(End::Refused(Refusal::Busy)),
            Some(Err(error)) => Some(match error.kind() {
                PublishErrorKind::MaxPayloadExceeded => End::Refused(Refusal::Malformed),
                PublishErrorKind::Send => End::Refused(Refusal::Unreachable),
                _ => End::Unknown,
            }),
        }
    }

    fn stream(&self, limits: Limits) -> Pending<'_, Result<(), Problem>> {
        Box::pin(stream::ensure(&self.context, limits))
    }

    fn consume(&self, durable: Option<Durable>, start: Start) -> Pending<'_, Result<Opened, End>> {
        Box::pin(consumers::open(&self.context, durable, start))
    }

    fn acknowledge(&self, messages: Vec<Reply>) -> Pending<'_, Result<(), End>> {
        Box::pin(consumers::acknowledge(&self.client, messages))
    }

    fn reject(&self, message: Reply) -> Pending<'_, Result<(), End>> {
        Box::pin(consumers::confirmed(&self.client, message, "-NAK"))
    }

    fn discard(&self, message: Reply) {
        if let Ok(reply) = Subject::from_utf8(message) {
            // It comes again otherwise.
            let _ = unconstrained(self.client.publish(reply, "+TERM".into())).now_or_never();
        }
    }

    fn delete<'a>(&'a self, consumer: &'a str) -> Pending<'a, ()> {
        Box::pin(async move {
            let _ = self.context.delete_consumer_from_stream(consumer, STREAM).await;
        })
    }
}

/// Connects to a server and makes sure that it is NATS with JetStream.
async fn connect(endpoint: &Endpoint, over: Arc<watch::Sender<bool>>) -> Result<Connected, String> {
    let options = ConnectOptions::new()
        .name("worldline")
        .connection_timeout(PROBE)
        .request_timeout(None)
        .ping_interval(PULSE)
        .client_capacity(COMMANDS)
        .subscription_capacity(UNTAKEN)
        .ignore_discovered_servers()
        // It tries once more before it gives up; whatever comes of that, this connection is over.
        .max_reconnects(1)
        .reconnect_delay_callback(|_| Duration::ZERO)
        .event_callback(move |event| {
            if matches!(event, Event::Disconnected | Event::Closed) {
                over.send_replace(true);
            }
            ready(())
        });
    let options = match &endpoint.user {
        None => options,
        Some((user, password)) => options.user_and_password(user.clone(), password.clone()),
    };
    let address: ServerAddr =
        format!("nats://{endpoint}").parse().map_err(|error| format!("{endpoint} is no address: {error}"))?;
    let client = match timeout(PROBE + CONNECT, options.connect(address)).await {
        Ok(Ok(client)) => client,
        Ok(Err(error)) => {
            let refused = error.source().and_then(|source| source.downcast_ref::<io::Error>());
            let words = refused.map_or_else(|| error.to_string(), io::Error::to_string);
            return Err(match error.kind() {
                ConnectErrorKind::TimedOut => silent(endpoint),
                ConnectErrorKind::AuthorizationViolation | ConnectErrorKind::Authentication => {
                    format!("NATS at {endpoint} does not let us in: wrong user or password")
                }
                ConnectErrorKind::Dns => format!("nobody answers at {endpoint}, where NATS should: {error}"),
                ConnectErrorKind::Io if refused.is_some_and(is_nobody) => {
                    format!("nobody answers at {endpoint}, where NATS should: {words}")
                }
                _ => format!("what answers at {endpoint} is not NATS 2.10 or newer: {words}"),
            });
        }
        Err(_) => return Err(silent(endpoint)),
    };
    let info = client.server_info();
    if !new_enough(&info.version) {
        return Err(format!("NATS at {endpoint} is of version `{}`: 2.10 or newer is needed", info.version));
    }
    if !info.jetstream {
        return Err(super::link::without_jetstream(endpoint));
    }
    let context = ContextBuilder::new().timeout(PROBE).max_ack_inflight(1).build(client.clone());
    let reply = client.new_inbox();
    let answers = client.subscribe(format!("{reply}.*")).await;
    let answers = answers.map_err(|error| format!("NATS at {endpoint} answers, but lets nobody subscribe: {error}"))?;
    let acknowledgements = Box::pin(answers.filter_map(|message| ready(acknowledged(&message))));
    Ok(Connected { connection: Box::new(Server { client, context, reply }), acknowledgements })
}

/// What is said of a publish, and of which.
fn acknowledged(message: &Message) -> Option<(u64, Result<Published, End>)> {
    let number = message.subject.rsplit('.').next()?.parse().ok()?;
    Some((number, verdict::published(message)))
}

fn silent(endpoint: &Endpoint) -> String {
    format!("{endpoint} accepts connections and never answers: NATS 2.10 or newer should be there")
}

fn is_nobody(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionRefused, HostUnreachable, NetworkUnreachable, TimedOut};
    matches!(error.kind(), ConnectionRefused | HostUnreachable | NetworkUnreachable | TimedOut)
}

fn new_enough(version: &str) -> bool {
    let mut numbers = version.split('.').map(str::parse);
    let (major, minor) = (numbers.next(), numbers.next());
    matches!((major, minor), (Some(Ok(major)), Some(Ok(minor))) if (major, minor) >= VERSION_MIN)
}

#[cfg(test)]
mod tests {
    #[test]
    fn nats_is_served_from_2_10_on() {
        assert!(["2.10.0", "2.10.27", "2.12.1-beta", "3.0.0"].into_iter().all(super::new_enough));
        assert!(!["2.9.25", "1.4.1", "", "2", "x.y", "not nats"].into_iter().any(super::new_enough));
    }
}
