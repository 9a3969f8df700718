//! `[lease]` and `[knobs]`: what an operator would turn.

use super::{
    fields::{Fields, Sink, Value, found},
    forms::Span,
    problem::Problem,
    shape::{Key, Table, table},
};
use worldline_system::{
    knobs::{Knobs, Retry},
    lease::LeaseTimes,
    limits,
    time::Duration,
};

/// What a holder keeps off its lease, and how often it renews it, where a file says only how long it lives: a fifth of that.
const PART: u64 = 5;

/// `[lease]`.
pub(super) static LEASE: Table = table!("`[lease]`", [&TTL, &MARGIN, &RENEWAL]);
static TTL: Key<Span> = Key::or(
    "ttl",
    Span::ms(1_000, 60_000),
    limits::LEASE_TTL,
    "Time to live of a lease, in whole seconds: how long the directory believes in a worker it does not hear of.",
);
static MARGIN: Key<Span> = Key::optional(
    "margin",
    Span::ms(0, 60_000),
    "What a holder keeps off its lease: it acts until `ttl` less `margin` after it sent its last renewal. A fifth of `ttl` \
     where it is left out.",
);
static RENEWAL: Key<Span> = Key::optional(
    "renewal",
    Span::ms(10, 60_000),
    "How often a lease is renewed; shorter than `ttl` less `margin`. A fifth of `ttl` where it is left out.",
);

/// `[knobs]`.
pub(super) static KNOBS: Table = table!("`[knobs]`", [&SCAN, &CHECKPOINT, &PATIENCE, &RETRY_FIRST, &RETRY_LONGEST]);
static SCAN: Key<Span> = Key::or(
    "scan_every",
    Span::ms(50, 60_000),
    limits::SCAN_PERIOD,
    "How often the leading orchestrator looks for entities without a living owner.",
);
static CHECKPOINT: Key<Span> = Key::or(
    "checkpoint_every",
    Span::ms(50, 60_000),
    limits::CHECKPOINT_PERIOD,
    "How often every served entity is checkpointed: what a crash may lose of its position.",
);
static PATIENCE: Key<Span> = Key::or(
    "renewal_patience",
    Span::ms(50, 60_000),
    limits::RENEWAL_PATIENCE,
    "How long a renewal of a lease may take before another is tried.",
);
static RETRY_FIRST: Key<Span> = Key::or(
    "retry_first",
    Span::ms(1, 60_000),
    limits::RETRY_MIN,
    "The first wait before something that failed is tried again; it doubles, with jitter.",
);
static RETRY_LONGEST: Key<Span> =
    Key::or("retry_longest", Span::ms(1, 60_000), limits::RETRY_MAX, "The longest such wait; at least `retry_first`.");

/// The times of a lease.
pub(super) fn lease(value: &Value<'_>, sink: &mut Sink) -> Option<LeaseTimes> {
    let mut fields = Fields::of(value, &LEASE, sink);
    let before = sink.problems.len();
    let ttl_value = fields.value(&TTL);
    let ttl = fields.read_or(&TTL, sink);
    let margin = fields.read(&MARGIN, sink).unwrap_or(ttl / PART);
    let renewal = fields.read(&RENEWAL, sink).unwrap_or(ttl / PART);
    if let (Some(value), true) =
        (ttl_value, sink.problems.len() == before && !ttl.as_nanos().is_multiple_of(1_000_000_000))
    {
        let expected = "whole seconds: the directory grants no others";
        sink.problems.push(Problem::new(value.span(), found(value), expected).beyond_shape());
    }
    if sink.problems.len() == before && (margin >= ttl || renewal >= ttl - margin) {
        let found = format!("a lease of `{ttl}` with a margin of `{margin}`, renewed every `{renewal}`");
        let expected = "`renewal` to be shorter than `ttl` less `margin`";
        sink.problems.push(Problem::new(fields.span(), found, expected).beyond_shape());
    }
    fields.finish(sink, |_| None);
    Some(LeaseTimes { ttl, margin, renewal })
}

/// The periods and retry bounds.
pub(super) fn knobs(value: &Value<'_>, sink: &mut Sink) -> Option<Knobs> {
    let mut fields = Fields::of(value, &KNOBS, sink);
    let before = sink.problems.len();
    let mut span = |key| fields.read_or(key, sink);
    let (scan_every, checkpoint_every, renewal_patience) = (span(&SCAN), span(&CHECKPOINT), span(&PATIENCE));
    let (first, longest): (Duration, Duration) = (span(&RETRY_FIRST), span(&RETRY_LONGEST));
    if sink.problems.len() == before && first > longest {
        let found = format!("waits from `{first}` to `{longest}`");
        let expected = "`retry_first` to be at most `retry_longest`";
        sink.problems.push(Problem::new(fields.span(), found, expected).beyond_shape());
    }
    fields.finish(sink, |_| None);
    Some(Knobs { scan_every, checkpoint_every, renewal_patience, retry: Retry { first, longest } })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_is_what_the_roles_have_by_themselves() {
        let defaults = LeaseTimes::default();
        assert_eq!((defaults.margin, defaults.renewal), (defaults.ttl / PART, defaults.ttl / PART));
        let empty = toml::Spanned::new(0..0, toml::de::DeValue::Table(toml::de::DeTable::new()));
        let mut sink = Sink::default();
        assert_eq!(lease(&empty, &mut sink), Some(defaults));
        assert_eq!(knobs(&empty, &mut sink), Some(Knobs::default()));
        assert!(sink.problems.is_empty());
    }
}
