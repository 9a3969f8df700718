//! The fault timeline.

use super::{
    fields::{Fields, Sink, Value, found},
    problem::{Problem, quoted},
    scenario::{Fault, FaultKind, Outbox},
    select::Census,
    services, units,
};
use toml::de::DeValue;
use worldline_system::time::Duration;

/// How a fault ends.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Ends {
    /// It is over at once.
    AtOnce,
    /// After `for`, or with the heal.
    Later,
}

/// Every kind with its own keys, required ones first.
const KINDS: &[Kind] = &[
    ("crash", &["node"], Ends::Later),
    ("kill", &["node"], Ends::Later),
    ("stop", &["node"], Ends::Later),
    ("restart", &["node"], Ends::AtOnce),
    ("pause", &["node"], Ends::Later),
    ("slow", &["node", "times"], Ends::Later),
    ("crash-between-submissions", &["node", "after", "which"], Ends::Later),
    ("hold-outbox", &["node", "which"], Ends::Later),
    ("clock-step", &["node", "by"], Ends::AtOnce),
    ("clock-drift", &["node", "rate"], Ends::Later),
    ("clock-freeze", &["node"], Ends::Later),
    ("wall-step", &["node", "by"], Ends::AtOnce),
    ("cut", &["from", "to", "one_way"], Ends::Later),
    ("degrade", &["from", "to", "one_way", "loss", "duplicate", "delay", "jitter"], Ends::Later),
];

/// Which submissions a fault waits for.
const WHICH: &[(&str, Outbox)] = &[
    ("any", Outbox::Any),
    ("ledger-commit", Outbox::LedgerCommit),
    ("directory-transaction", Outbox::DirectoryTransaction),
];

/// Every kind of fault, those of the services too.
fn kinds() -> impl Iterator<Item = &'static Kind> {
    KINDS.iter().chain(services::KINDS)
}

/// A kind's name, its own keys, and how it ends.
type Kind = (&'static str, &'static [&'static str], Ends);

/// The fault that `value` describes, in a scenario whose fault phase is `duration` long.
pub(super) fn fault(
    value: &Value<'_>,
    duration: Option<Duration>,
    census: &Census<'_>,
    sink: &mut Sink,
) -> Option<Fault> {
    let mut fields = Fields::of(value, "`[[fault]]`", sink);
    let kind_value = fields.value("kind");
    let at_value = fields.value("at");
    let at = fields.required("at", sink, units::window);
    let Some((kind_name, keys, ends)) = fields.required("kind", sink, kind) else {
        return None; // Without its kind nothing says which keys are right.
    };
    if let (Some(window), Some(duration), Some(value)) = (at, duration, at_value)
        && window.to >= duration
    {
        let expected = format!("a time before the end of the fault phase at `{duration}`");
        sink.problems.push(Problem::new(value.span(), found(value), expected));
    }
    let lasts = lasts(&mut fields, kind_name, ends, at.map(|at| at.to), duration, sink);
    let decoded = parameters(kind_name, &mut fields, census, sink);
    let label = kind_value.map_or_else(String::new, |value| format!("a fault of kind {}", found(value)));
    fields.finish(sink, |key| {
        let owners: Vec<_> = kinds().filter(|(_, keys, _)| keys.contains(&key)).map(|(kind, ..)| *kind).collect();
        let allowed =
            || format!("at, kind, {}{}", keys.join(", "), if ends == Ends::Later { ", for, until" } else { "" });
        (!owners.is_empty())
            .then(|| format!("a key of {label}: {} (`{key}` belongs to {})", allowed(), owners.join(", ")))
    });
    Some(Fault { at: at?, lasts: lasts?, kind: decoded? })
}

fn kind(value: &Value<'_>, sink: &mut Sink) -> Option<Kind> {
    let names = || kinds().map(|(name, ..)| *name);
    let expected = || format!("a kind of fault: {}", names().collect::<Vec<_>>().join(", "));
    let DeValue::String(text) = value.get_ref() else {
        return sink.report(Problem::new(value.span(), found(value), expected()));
    };
    match kinds().find(|(name, ..)| name == text) {
        Some(kind) => Some(*kind),
        None => sink.report(Problem::new(value.span(), quoted(text), expected()).near(text, names())),
    }
}

/// How long the fault lasts: `for = "20s"`, or `until = "30s"` by the run's clock. The outer `None` is a reported problem.
fn lasts(
    fields: &mut Fields<'_, '_>,
    kind: &str,
    ends: Ends,
    latest: Option<Duration>,
    duration: Option<Duration>,
    sink: &mut Sink,
) -> Option<Option<Duration>> {
    let (for_value, until_value) = (fields.value("for"), fields.value("until"));
    let Some(value) = until_value.or(for_value) else { return Some(None) };
    if ends == Ends::AtOnce {
        let expected = format!("no end: `{kind}` is over at once");
        return sink.report(Problem::new(value.span(), found(value), expected));
    }
    if for_value.is_some() && until_value.is_some() {
        return sink.report(Problem::new(value.span(), "both `for` and `until`", "one of them"));
    }
    let read = units::duration(value, sink)?;
    let (Some(latest), Some(duration)) = (latest, duration) else { return Some(None) };
    let end = if until_value.is_some() { read } else { latest + read };
    if end <= latest {
        let expected = format!("an end after the fault, which may come as late as `{latest}`");
        return sink.report(Problem::new(value.span(), found(value), expected));
    }
    if end > duration {
        let expected = format!(
            "an end by `{duration}`, the end of the fault phase (everything heals then; leave it out to last so long)"
        );
        return sink.report(Problem::new(value.span(), found(value), expected));
    }
    Some(Some(end - latest))
}

fn parameters(kind: &str, fields: &mut Fields<'_, '_>, census: &Census<'_>, sink: &mut Sink) -> Option<FaultKind> {
    if kind.starts_with("ledger-") {
        return services::ledger(kind, fields, census, sink).map(FaultKind::Ledger);
    }
    if kind.starts_with("directory-") {
        return services::directory(kind, fields, census, sink).map(FaultKind::Directory);
    }
    if matches!(kind, "cut" | "degrade") {
        return link(kind, fields, census, sink);
    }
    let nodes = fields.required("node", sink, |value, sink| census.selectors(value, sink));
    let by = |fields: &mut Fields<'_, '_>, sink: &mut Sink| fields.required("by", sink, units::duration);
    Some(match kind {
        "crash" => FaultKind::Crash(nodes?),
        "kill" => FaultKind::Kill(nodes?),
        "stop" => FaultKind::Stop(nodes?),
        "restart" => FaultKind::Restart(nodes?),
        "pause" => FaultKind::Pause(nodes?),
        "slow" => {
            let times = fields.required("times", sink, units::whole(2..=1_000, "a whole number"));
            let times: u32 = times?;
            FaultKind::Slow(nodes?, times * 1_000)
        }
        "crash-between-submissions" => {
            let after = fields.required("after", sink, units::whole(0..=1_000_000, "a number of submissions"));
            let which = fields.optional("which", sink, units::word(WHICH, "submissions")).unwrap_or(Outbox::Any);
            FaultKind::CrashBetweenSubmissions(nodes?, after?, which)
        }
        "hold-outbox" => {
            let which = fields.required("which", sink, units::word(WHICH, "an outbox"));
            FaultKind::HoldOutbox(nodes?, which?)
        }
        "clock-step" => {
            let by = by(fields, sink);
            FaultKind::ClockStep(nodes?, by?)
        }
        "clock-drift" => {
            let rate = fields.required("rate", sink, units::ppm);
            FaultKind::ClockDrift(nodes?, rate?)
        }
        "clock-freeze" => FaultKind::ClockFreeze(nodes?),
        _ => {
            let by = fields.required("by", sink, units::signed_duration);
            FaultKind::WallStep(nodes?, by?)
        }
    })
}

fn link(kind: &str, fields: &mut Fields<'_, '_>, census: &Census<'_>, sink: &mut Sink) -> Option<FaultKind> {
    let from = fields.required("from", sink, |value, sink| census.selectors(value, sink));
    let to = fields.required("to", sink, |value, sink| census.selectors(value, sink));
    let one_way = fields.optional("one_way", sink, units::truth).unwrap_or(false);
    if kind == "cut" {
        return Some(FaultKind::Cut { from: from?, to: to?, one_way });
    }
    let before = sink.problems.len();
    let loss = fields.optional("loss", sink, units::permille);
    let duplicate = fields.optional("duplicate", sink, units::permille);
    let delay = fields.optional("delay", sink, units::duration_in(Duration::ZERO..=Duration::from_secs(60)));
    let jitter = fields.optional("jitter", sink, units::duration_in(Duration::ZERO..=Duration::from_secs(60)));
    if sink.problems.len() == before && loss.is_none() && duplicate.is_none() && delay.is_none() && jitter.is_none() {
        sink.problems.push(Problem::new(
            fields.span(),
            "a `degrade` that degrades nothing",
            "`loss`, `duplicate`, `delay` or `jitter`",
        ));
    }
    Some(FaultKind::Degrade {
        from: from?,
        to: to?,
        one_way,
        loss: loss.unwrap_or(0),
        duplicate: duplicate.unwrap_or(0),
        delay: delay.unwrap_or(Duration::ZERO),
        jitter: jitter.unwrap_or(Duration::ZERO),
    })
}
