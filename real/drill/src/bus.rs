//! NATS as the drill itself speaks to it, past all links: what it does to consumers, and what the stream has stored at the end.
//!
//! Invariant: what is missing or cannot be read is an error, never a shorter stream.

use crate::{processes::Failed, proxy::nats::FORGOTTEN};
use async_nats::{
    Client,
    jetstream::{
        self,
        consumer::{Config, DeliverPolicy, Info},
        stream::Stream,
    },
};
use bytes::Bytes;
use futures_util::StreamExt as _;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::Duration,
};
use tokio::time::timeout;
use worldline_proto::{EntityId, FactSequence};
use worldline_real::bus::STREAM;
use worldline_system::{
    doors::{bus::StreamSequence, ledger::FactRow},
    facts,
    history::Acceptance,
    time::UnixTime,
};

/// How long one question may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a future comes to, or that nothing came of it in time.
async fn within<T, E: std::fmt::Display>(asked: impl Future<Output = Result<T, E>>) -> Result<T, String> {
    let answered = timeout(PATIENCE, asked).await.map_err(|_| "no answer".to_owned())?;
    answered.map_err(|error| error.to_string())
}

async fn connect(servers: &[SocketAddr]) -> Result<Client, String> {
    let servers: Vec<String> = servers.iter().map(|address| format!("nats://{address}")).collect();
    within(async_nats::connect(servers)).await
}

async fn stream(servers: &[SocketAddr]) -> Result<Stream, String> {
    within(jetstream::new(connect(servers).await?).get_stream(STREAM)).await
}

/// The server that leads the stream's members, by its own name. `None` where nobody says.
pub async fn leader(servers: &[SocketAddr]) -> Option<String> {
    stream(servers).await.ok()?.cached_info().cluster.as_ref()?.leader.clone()
}

/// Has the stream's leader step down; the others elect.
///
/// # Errors
/// What NATS says.
pub async fn hand_over(servers: &[SocketAddr]) -> Result<(), String> {
    let client = connect(servers).await?;
    let subject = format!("$JS.API.STREAM.LEADER.STEPDOWN.{STREAM}");
    let answer = within(client.request(subject, Bytes::new())).await?;
    stepped_down(&answer.payload)
}

/// What the answer to a step down says.
fn stepped_down(answer: &[u8]) -> Result<(), String> {
    let said: serde_json::Value = serde_json::from_slice(answer).map_err(|error| error.to_string())?;
    match said["error"]["description"].as_str() {
        Some(why) => Err(why.to_owned()),
        None if said["success"] == true => Ok(()),
        None => Err(format!("it answers {said}")),
    }
}

/// Every consumer of the stream.
async fn consumers(stream: &Stream) -> Result<Vec<Info>, String> {
    let (mut all, mut each) = (Vec::new(), stream.consumers());
    while let Some(one) = timeout(PATIENCE, each.next()).await.map_err(|_| "no answer".to_owned())? {
        all.push(one.map_err(|error| error.to_string())?);
    }
    Ok(all)
}

/// Lets every consumer begin again so many messages before the first that it has not acknowledged; how many there are.
///
/// # Errors
/// What NATS says.
pub async fn rewind(servers: &[SocketAddr], by: u64) -> Result<usize, String> {
    let stream = stream(servers).await?;
    let consumers = consumers(&stream).await?;
    for Info { name, config, ack_floor, .. } in &consumers {
        let start_sequence = (ack_floor.stream_sequence + 1).saturating_sub(by).max(1);
        let deliver_policy = DeliverPolicy::ByStartSequence { start_sequence };
        // One that has begun cannot be moved.
        within(stream.delete_consumer(name)).await?;
        within(stream.create_consumer(Config { deliver_policy, ..config.clone() })).await?;
    }
    Ok(consumers.len())
}

/// Deletes every consumer; how many there were.
///
/// # Errors
/// What NATS says.
pub async fn end_consumers(servers: &[SocketAddr]) -> Result<usize, String> {
    let stream = stream(servers).await?;
    let consumers = consumers(&stream).await?;
    for Info { name, .. } in &consumers {
        within(stream.delete_consumer(name)).await?;
    }
    Ok(consumers.len())
}

/// Every message that the stream has stored, from sequence 1 on, and when.
///
/// # Errors
/// NATS does not say, a message is missing, or none of ours could be read so.
pub async fn stored(servers: &[SocketAddr]) -> Result<Vec<(UnixTime, Acceptance)>, Failed> {
    let failed = |why: String| Failed::History(format!("the stream {STREAM} cannot be read: {why}"));
    let mut stream = stream(servers).await.map_err(failed)?;
    let last = within(stream.info()).await.map_err(failed)?.state.last_sequence;
    let mut stored = Vec::new();
    for sequence in 1..=last {
        let message = within(stream.get_raw_message(sequence)).await;
        let message = message.map_err(|why| failed(format!("message {sequence} of {last}: {why}")))?;
        let named = message.headers.get("Nats-Msg-Id").map_or("", |name| name.as_str());
        // Its own name stands before how often the proxy had NATS forget all names.
        let name = named.split(FORGOTTEN).next().unwrap_or_default();
        let odd = || failed(format!("message {sequence} is `{named}` on `{}`, which is none of ours", message.subject));
        let at = u64::try_from(message.time.unix_timestamp_nanos()).map_err(|_| odd())?;
        let published = Acceptance::Published {
            sequence: StreamSequence(sequence),
            subject: message.subject.parse().map_err(|_| odd())?,
            message: name.parse().map_err(|_| odd())?,
            payload: message.payload.as_ref().into(),
        };
        stored.push((UnixTime::from_nanos(at), published));
    }
    Ok(stored)
}

/// Whether the stream tells what stands in the ledger, and nothing else: each fact once or more often.
///
/// # Errors
/// In what they differ.
pub fn compared<'a>(stream: impl Iterator<Item = &'a Acceptance>, ledger: &[FactRow]) -> Result<String, String> {
    let (mut told, mut messages): (BTreeMap<(EntityId, FactSequence), FactRow>, usize) = (BTreeMap::new(), 0);
    for stored in stream {
        let Acceptance::Published { sequence, payload, .. } = stored else { continue };
        let fact = facts::decode(payload).map_err(|why| format!("message {sequence} of the stream: {why}"))?;
        let known = told.insert((fact.aggregate, fact.sequence), fact);
        if known.is_some_and(|known| known != fact) {
            return Err(format!(
                "message {sequence} of the stream tells fact {} of {} otherwise",
                fact.sequence, fact.aggregate
            ));
        }
        messages += 1;
    }
    let name = |fact: &FactRow| format!("fact {} of {}", fact.sequence, fact.aggregate);
    let known: BTreeSet<_> = ledger.iter().map(|fact| (fact.aggregate, fact.sequence)).collect();
    for fact in ledger {
        match told.get(&(fact.aggregate, fact.sequence)) {
            Some(same) if same == fact => {}
            Some(other) => return Err(format!("the stream tells {other:?}; the ledger has {fact:?}")),
            None => return Err(format!("the stream does not have {}", name(fact))),
        }
    }
    if let Some(more) = told.values().find(|fact| !known.contains(&(fact.aggregate, fact.sequence))) {
        return Err(format!("the stream tells {}, which the ledger does not have", name(more)));
    }
    let again = messages - told.len();
    Ok(format!(
        "the stream {STREAM} tells the ledger's {} facts in {messages} messages ({again} of them again)",
        ledger.len()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use worldline_proto::{CharacterId, EntityKind, OpNumber};
    use worldline_system::doors::{
        bus::{MessageId, Subject},
        ledger::FactBody,
    };

    fn fact(sequence: u64, dealt: u32) -> FactRow {
        FactRow {
            aggregate: EntityId::new(EntityKind::Boss, 1).expect("small"),
            sequence: FactSequence(sequence),
            character: CharacterId::new(1).expect("small"),
            number: OpNumber(sequence),
            body: FactBody::Hit { dealt, remaining: 1, experience: 0, bounty: 0 },
        }
    }

    fn message(place: u64, fact: &FactRow) -> Acceptance {
        Acceptance::Published {
            sequence: StreamSequence(place),
            subject: Subject::Fact(fact.aggregate),
            message: MessageId { entity: fact.aggregate, number: fact.sequence.0 },
            payload: facts::encode(fact),
        }
    }

    #[test]
    fn the_stream_is_the_ledgers_log_though_something_is_told_twice_and_not_if_it_lacks_or_changes_a_fact() {
        let ledger = [fact(1, 5), fact(2, 5)];
        let all = |stream: &[FactRow]| {
            let messages: Vec<_> = (1..).zip(stream).map(|(place, fact)| message(place, fact)).collect();
            compared(messages.iter(), &ledger)
        };
        let same = all(&[fact(2, 5), fact(1, 5), fact(2, 5)]).expect("they agree");
        assert!(same.contains("2 facts in 3 messages (1 of them again)"), "{same}");
        for (stream, why) in [
            (&[fact(1, 5)][..], "does not have fact 2 of boss-1"),
            (&[fact(1, 5), fact(2, 6)], "the ledger has"),
            (&[fact(1, 5), fact(2, 5), fact(3, 5)], "which the ledger does not have"),
            (&[fact(1, 5), fact(2, 5), fact(1, 6)], "tells fact 1 of boss-1 otherwise"),
        ] {
            let wrong = all(stream).expect_err("they differ");
            assert!(wrong.contains(why), "{wrong}");
        }
    }

    #[test]
    fn what_a_leader_says_of_stepping_down_is_read() {
        assert_eq!(stepped_down(br#"{"type":"x","success":true}"#), Ok(()));
        let refused = br#"{"type":"x","error":{"code":503,"description":"stream is offline"},"success":false}"#;
        assert_eq!(stepped_down(refused), Err("stream is offline".to_owned()));
        assert!(stepped_down(b"{}").is_err() && stepped_down(b"?").is_err());
    }
}
