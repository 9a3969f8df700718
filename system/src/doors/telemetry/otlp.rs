//! Spans as OTLP writes them in JSON (`ExportTraceServiceRequest` of opentelemetry-proto 1.x, and its rules for JSON): names in
//! camel case, trace and span ids in hexadecimal, 64-bit numbers as texts.
//!
//! Who writes them gives what a span does not have itself: moments by a clock that others share, and names for regions, nodes and
//! characters.

use super::{Attribute, Label, Span, SpanId, TraceId};
use alloc::{
    string::{String, ToString as _},
    vec,
    vec::Vec,
};
use serde::Serialize;

/// What is sent, or is a line of a file.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ExportTraceServiceRequest {
    /// By the process that told them.
    pub resource_spans: Vec<ResourceSpans>,
}

/// The spans of one process.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ResourceSpans {
    /// Which process.
    pub resource: Resource,
    /// Its spans.
    pub scope_spans: Vec<ScopeSpans>,
}

/// A process.
#[derive(Clone, Debug, Serialize)]
pub struct Resource {
    /// What there is to say of it.
    pub attributes: Vec<KeyValue>,
}

/// The spans of one part of a process.
#[derive(Clone, Debug, Serialize)]
pub struct ScopeSpans {
    /// Which part.
    pub scope: Scope,
    /// The spans.
    pub spans: Vec<Written>,
}

/// A part of a process.
#[derive(Clone, Debug, Serialize)]
pub struct Scope {
    /// Its name.
    pub name: &'static str,
}

/// A span.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Written {
    trace_id: String,
    span_id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    parent_span_id: String,
    name: &'static str,
    kind: u8,
    start_time_unix_nano: String,
    end_time_unix_nano: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    attributes: Vec<KeyValue>,
    status: Status,
}

#[derive(Clone, Debug, Default, Serialize)]
struct Status {
    #[serde(skip_serializing_if = "String::is_empty")]
    message: String,
    #[serde(skip_serializing_if = "is_unset")]
    code: u8,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_unset(code: &u8) -> bool {
    *code == 0
}

/// An attribute.
#[derive(Clone, Debug, Serialize)]
pub struct KeyValue {
    key: String,
    value: AnyValue,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
enum AnyValue {
    StringValue(String),
    IntValue(String),
}

impl KeyValue {
    /// An attribute that is a text.
    #[must_use]
    pub fn text(key: &str, value: impl Into<String>) -> Self {
        Self { key: key.to_string(), value: AnyValue::StringValue(value.into()) }
    }
}

/// The kind of a span within one process: what OTLP calls internal.
const INTERNAL: u8 = 1;
/// The status of what failed.
const ERROR: u8 = 2;

/// How what a span only points at is written.
pub trait Names {
    /// A region, a node or a word.
    fn label(&self, label: Label) -> String;
    /// An entity; a character as the policy for personal data is.
    fn entity(&self, entity: worldline_proto::EntityId) -> String;
    /// A trace. Its own name follows from who did what: where that must not be told, this is another one.
    fn trace(&self, trace: TraceId) -> TraceId {
        trace
    }
    /// A span, likewise.
    fn span(&self, span: SpanId) -> SpanId {
        span
    }
}

impl Written {
    /// A span whose beginning and end were then, in Unix nanoseconds.
    #[must_use]
    pub fn new(span: &Span, (start_unix_ns, end_unix_ns): (u64, u64), names: &impl Names) -> Self {
        let value = |attribute| match attribute {
            Attribute::Number(number) => AnyValue::IntValue(i64::try_from(number).unwrap_or(i64::MAX).to_string()),
            Attribute::Label(label) => AnyValue::StringValue(names.label(label)),
            Attribute::Entity(entity) => AnyValue::StringValue(names.entity(entity)),
        };
        let attributes = span.attributes.iter();
        Self {
            trace_id: names.trace(span.trace).to_string(),
            span_id: names.span(span.id).to_string(),
            parent_span_id: span.parent.map_or_else(String::new, |parent| names.span(parent).to_string()),
            name: span.stage.name(),
            kind: INTERNAL,
            start_time_unix_nano: start_unix_ns.to_string(),
            end_time_unix_nano: end_unix_ns.to_string(),
            attributes: attributes.map(|(key, of)| KeyValue { key: key.to_string(), value: value(*of) }).collect(),
            status: span.failed.map_or_else(Status::default, |failed| Status { message: failed.into(), code: ERROR }),
        }
    }
}

/// The spans of one process.
#[must_use]
pub fn of_process(service: &str, further: Vec<KeyValue>, spans: Vec<Written>) -> ResourceSpans {
    let mut attributes = vec![KeyValue::text("service.name", service)];
    attributes.extend(further);
    ResourceSpans {
        resource: Resource { attributes },
        scope_spans: vec![ScopeSpans { scope: Scope { name: "worldline" }, spans }],
    }
}
