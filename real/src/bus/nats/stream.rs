//! The one stream: what it must be, made where there is none, and refused by name where it is another.

use super::super::{Limits, client::Problem};
use async_nats::jetstream::{
    ErrorCode,
    context::{Context, GetStreamErrorKind},
    stream::{Config, DiscardPolicy, RetentionPolicy, StorageType},
};
use std::{fmt, time::Duration};
use worldline_system::{limits, time};

/// The name of the bus's one stream.
pub const NAME: &str = "WORLDLINE_FACTS";
/// All its subjects.
pub(super) const SUBJECTS: &str = "worldline.facts.*";
/// What a message may have besides its payload: the headers.
const HEADER_BYTES: usize = 1_024;
/// Members of the stream where there is a cluster; a server that stands alone is its only member.
const REPLICAS: usize = 3;

/// What a stream of ours is.
fn wanted(Limits { messages, bytes, age, deduplication }: Limits, clustered: bool) -> Config {
    Config {
        name: NAME.to_owned(),
        description: Some("Facts of Worldline: what was committed, for who follows it".to_owned()),
        subjects: vec![SUBJECTS.to_owned()],
        retention: RetentionPolicy::Limits,
        discard: DiscardPolicy::Old,
        storage: StorageType::File,
        max_messages: i64::try_from(messages).unwrap_or(i64::MAX),
        max_bytes: i64::try_from(bytes).unwrap_or(i64::MAX),
        max_age: span(age),
        max_message_size: (limits::BUS_PAYLOAD_BYTES + HEADER_BYTES) as i32,
        duplicate_window: span(deduplication),
        num_replicas: if clustered { REPLICAS } else { 1 },
        ..Config::default()
    }
}

fn span(span: time::Duration) -> Duration {
    crate::clock::span(span)
}

/// Looks at the stream, and makes it where there is none.
pub(super) async fn ensure(context: &Context, limits: Limits) -> Result<(), Problem> {
    let found = match context.get_stream(NAME).await {
        Ok(stream) => stream.cached_info().config.clone(),
        Err(error) => match error.kind() {
            GetStreamErrorKind::JetStream(told) if told.error_code() == ErrorCode::STREAM_NOT_FOUND => {
                // Two may make it at once: the second finds what the first has made.
                let clustered = context.client().server_info().cluster.is_some();
                let made = context.create_stream(wanted(limits, clustered)).await;
                made.map_err(|error| unavailable(&format!("the stream {NAME} cannot be made: {error}")))?;
                tracing::info!(stream = NAME, "made the bus's stream");
                return Ok(());
            }
            GetStreamErrorKind::JetStream(told)
                if matches!(
                    told.error_code(),
                    ErrorCode::JETSTREAM_NOT_ENABLED | ErrorCode::JETSTREAM_NOT_ENABLED_FOR_ACCOUNT
                ) =>
            {
                return Err(Problem::NoJetStream);
            }
            _ => return Err(unavailable(&format!("the stream {NAME} cannot be asked for: {error}"))),
        },
    };
    let differences = differences(limits, &found);
    if differences.is_empty() {
        return Ok(());
    }
    Err(Problem::Differs(format!(
        "the stream {NAME} is not as it must be: {}; change it with `nats stream edit {NAME}`, or remove it",
        differences.join(", ")
    )))
}

fn unavailable(problem: &str) -> Problem {
    Problem::Unavailable(problem.to_owned())
}

/// What a stream has that ours must have otherwise. How many members it has is its operator's to change.
fn differences(limits: Limits, found: &Config) -> Vec<String> {
    let wanted = wanted(limits, false);
    let mut all = vec![];
    let mut compare = |name: &str, found: &dyn fmt::Debug, wanted: &dyn fmt::Debug| {
        let (found, wanted) = (format!("{found:?}"), format!("{wanted:?}"));
        if found != wanted {
            all.push(format!("its {name} is {found} where {wanted} is wanted"));
        }
    };
    compare("subjects", &found.subjects, &wanted.subjects);
    compare("retention", &found.retention, &wanted.retention);
    compare("discard", &found.discard, &wanted.discard);
    compare("storage", &found.storage, &wanted.storage);
    compare("max_msgs", &found.max_messages, &wanted.max_messages);
    compare("max_bytes", &found.max_bytes, &wanted.max_bytes);
    compare("max_age", &found.max_age, &wanted.max_age);
    compare("max_msg_size", &found.max_message_size, &wanted.max_message_size);
    compare("max_msgs_per_subject", &found.max_messages_per_subject.max(0), &0);
    compare("duplicate_window", &found.duplicate_window, &wanted.duplicate_window);
    compare("no_ack", &found.no_ack, &false);
    compare("sealed", &found.sealed, &false);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_difference_is_named_with_what_is_wanted() {
        let limits = Limits::default();
        assert_eq!(differences(limits, &wanted(limits, true)), [""; 0]);
        let other = Config { max_age: Duration::from_secs(60), discard: DiscardPolicy::New, ..wanted(limits, false) };
        let told = differences(limits, &other).join("; ");
        assert!(told.contains("max_age is 60s where 259200s is wanted"), "{told}");
        assert!(told.contains("discard is New where Old is wanted"), "{told}");
    }
}
