//! Which trace a call belongs to, for a line of the log about it.

use worldline_proto::{CharacterId, EntityId, OpNumber, server::Request};
use worldline_system::doors::telemetry::{SpanId, TraceId};

/// The trace of the operation that a call is about, and the caller's span in it; as the log writes them.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct About {
    pub trace_id: Option<String>,
    pub span_id: Option<String>,
}

impl About {
    /// Of a call. Nothing where it is about no operation.
    pub fn new(request: &Request) -> Self {
        let (character, number, span) = match request {
            Request::Perform(asked) => (asked.character, asked.number, asked.span),
            Request::ApplyEffect(asked) => (asked.character, asked.number, asked.span),
            Request::Attach(_) => return Self::default(),
        };
        let character = EntityId::from_raw(character).and_then(CharacterId::from_entity);
        let trace = character.map(|character| TraceId::of_operation(character, OpNumber(number)));
        Self {
            trace_id: trace.map(|trace| trace.to_string()),
            span_id: SpanId::from_wire(span).map(|span| span.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use worldline_proto::server::{AttachRequest, PerformRequest};

    #[test]
    fn an_operation_has_its_trace_and_all_else_none() {
        let character = CharacterId::new(7).expect("small");
        let asked = PerformRequest { character: character.entity().get(), number: 3, span: 255, ..Default::default() };
        let about = About::new(&Request::Perform(asked));
        let trace = TraceId::of_operation(character, OpNumber(3)).to_string();
        assert_eq!((about.trace_id, about.span_id.as_deref()), (Some(trace), Some("00000000000000ff")));
        assert_eq!(About::new(&Request::Attach(AttachRequest::default())), About::default());
        assert_eq!(
            About::new(&Request::Perform(PerformRequest { character: u64::MAX, ..Default::default() })),
            About::default()
        );
    }
}
