//! What each of JetStream's answers is worth: certain or not.

use async_nats::{
    Message, StatusCode,
    jetstream::{self, ErrorCode, publish::PublishAck, response::Response},
};
use worldline_system::{
    Refusal,
    doors::bus::{Published, StreamSequence},
    outcome::End,
};

/// Why an operation came to no result.
pub(super) type Verdict = End;

/// What the answer to a publish says.
pub(super) fn published(answer: &Message) -> Result<Published, Verdict> {
    if answer.status == Some(StatusCode::NO_RESPONDERS) {
        return Err(End::Refused(Refusal::NoStream));
    }
    match serde_json::from_slice(&answer.payload) {
        // Its first publish is not stored yet, or never will be: 2.10 calls that a duplicate at no place.
        Ok(Response::Ok(PublishAck { sequence: 0, .. })) => Err(End::Refused(Refusal::Busy)),
        Ok(Response::Ok(PublishAck { sequence, duplicate, .. })) => {
            Ok(Published { sequence: StreamSequence(sequence), duplicate })
        }
        Ok(Response::Err { error }) => Err(publish(&error)),
        // Somebody else answers on that subject.
        Err(_) => Err(End::Unknown),
    }
}

/// What an error says of a publish.
fn publish(error: &jetstream::Error) -> Verdict {
    const WRONG_SEQUENCE: [ErrorCode; 2] =
        [ErrorCode::STREAM_WRONG_LAST_SEQUENCE, ErrorCode::STREAM_WRONG_LAST_SEQUENCE_CONSTANT];
    let code = error.error_code();
    End::Refused(match code {
        _ if WRONG_SEQUENCE.contains(&code) => {
            let words = error.to_string();
            let told = words.split_once("wrong last sequence: ").map(|(_, told)| told);
            let digits = told.and_then(|told| told.split(|c: char| !c.is_ascii_digit()).next());
            let last = digits.and_then(|digits| digits.parse().ok()).unwrap_or(0);
            Refusal::WrongSequence { last: StreamSequence(last) }
        }
        ErrorCode::STREAM_MESSAGE_EXCEEDS_MAXIMUM | ErrorCode::STREAM_HEADER_EXCEEDS_MAXIMUM => Refusal::Malformed,
        ErrorCode::STREAM_STORE_FAILED
        | ErrorCode::INSUFFICIENT_RESOURCES
        | ErrorCode::STORAGE_RESOURCES_EXCEEDED
        | ErrorCode::MEMORY_RESOURCES_EXCEEDED
        | ErrorCode::ACCOUNT_RESOURCES_EXCEEDED => Refusal::StreamFull,
        ErrorCode::STREAM_NOT_FOUND
        | ErrorCode::CLUSTER_NOT_AVAILABLE
        | ErrorCode::JETSTREAM_NOT_ENABLED
        | ErrorCode::JETSTREAM_NOT_ENABLED_FOR_ACCOUNT => Refusal::NoStream,
        // The same in words, of later versions.
        ErrorCode::STREAM_DUPLICATE_MESSAGE_CONFLICT => Refusal::Busy,
        _ => return End::Unknown,
    })
}

/// What an error says of a consumer that was to be opened: it was not.
pub(super) fn consume(error: &jetstream::Error) -> Verdict {
    End::Refused(match error.error_code() {
        ErrorCode::STREAM_NOT_FOUND
        | ErrorCode::CLUSTER_NOT_AVAILABLE
        | ErrorCode::JETSTREAM_NOT_ENABLED
        | ErrorCode::JETSTREAM_NOT_ENABLED_FOR_ACCOUNT => Refusal::NoStream,
        ErrorCode::MAXIMUM_CONSUMERS_LIMIT => Refusal::Busy,
        _ => Refusal::NotServing,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(payload: &str) -> Result<Published, Verdict> {
        published(&Message {
            subject: "inbox".into(),
            reply: None,
            payload: payload.to_owned().into(),
            headers: None,
            status: None,
            description: None,
            length: 0,
        })
    }

    fn error(code: u64, description: &str) -> Result<Published, Verdict> {
        told(&format!(
            r#"{{"error":{{"code":400,"err_code":{code},"description":"{description}"}},"stream":"S","seq":0}}"#
        ))
    }

    #[test]
    fn what_jetstream_says_is_worth_what_it_says() {
        let stored = |sequence, duplicate| Ok(Published { sequence: StreamSequence(sequence), duplicate });
        assert_eq!(told(r#"{"stream":"S","seq":7}"#), stored(7, false));
        assert_eq!(told(r#"{"stream":"S","seq":7,"duplicate":true}"#), stored(7, true));
        let refused = |refusal| Err(End::Refused(refusal));
        let wrong = |last| refused(Refusal::WrongSequence { last: StreamSequence(last) });
        assert_eq!(error(10071, "wrong last sequence: 17"), wrong(17));
        assert_eq!(error(10164, "wrong last sequence"), wrong(0));
        assert_eq!(error(10077, "maximum messages exceeded"), refused(Refusal::StreamFull));
        assert_eq!(error(10054, "message size exceeds maximum allowed"), refused(Refusal::Malformed));
        assert_eq!(error(10008, "JetStream system temporarily unavailable"), refused(Refusal::NoStream));
        assert_eq!(error(10158, "duplicate message id is in process"), refused(Refusal::Busy));
        assert_eq!(told(r#"{"stream":"S","seq":0,"duplicate":true}"#), refused(Refusal::Busy));
        assert_eq!(error(10001, "something else"), Err(End::Unknown));
    }

    #[test]
    fn what_is_no_answer_of_jetstream_proves_nothing() {
        for payload in ["", "{}", "+ACK", "{\"seq\":", "[1,2]", "{\"stream\":\"S\",\"seq\":-1}"] {
            assert_eq!(told(payload), Err(End::Unknown), "{payload:?}");
        }
    }
}
