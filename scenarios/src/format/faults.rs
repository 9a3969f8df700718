//! The fault timeline.

use super::{
    fields::{Fields, Sink, Value, found},
    kinds::{self, FAULT, KINDS},
    problem::{Problem, quoted},
    scenario::{Fault, FaultKind},
    select::Census,
    services,
    shape::{Ends, Read as _, Variant},
};
use toml::de::DeValue;
use worldline_system::time::Duration;

/// The fault that `value` describes, in a scenario whose fault phase is `duration` long.
pub(super) fn fault(
    value: &Value<'_>,
    duration: Option<Duration>,
    census: &Census<'_>,
    sink: &mut Sink,
) -> Option<Fault> {
    let mut fields = Fields::of(value, &FAULT, sink);
    let kind_value = fields.value(&kinds::KIND);
    let at_value = fields.value(&kinds::AT);
    let at = fields.read(&kinds::AT, sink);
    let Some(variant) = fields.read_with(&kinds::KIND, sink, kind) else {
        // Without its kind nothing says which keys are right, but some are none of any kind.
        fields.finish_without_kind(sink);
        return None;
    };
    let Variant { name: kind_name, keys, ends, .. } = *variant;
    fields.also(keys);
    if let (Some(window), Some(duration), Some(value)) = (at, duration, at_value)
        && window.to >= duration
    {
        let expected = format!("a time before the end of the fault phase at `{duration}`");
        sink.problems.push(Problem::new(value.span(), found(value), expected).beyond_shape());
    }
    let lasts = lasts(&mut fields, kind_name, ends, at.map(|at| at.to), duration, sink);
    let decoded = parameters(kind_name, &mut fields, census, sink);
    let label = kind_value.map_or_else(String::new, |value| format!("a fault of kind {}", found(value)));
    fields.finish(sink, |key| {
        let owners: Vec<_> =
            KINDS.all().filter(|kind| kind.keys.iter().any(|own| own.name() == key)).map(|kind| kind.name).collect();
        let own: Vec<_> = keys.iter().map(|key| key.name()).collect();
        let allowed =
            || format!("at, kind, {}{}", own.join(", "), if ends == Ends::Later { ", for, until" } else { "" });
        (!owners.is_empty())
            .then(|| format!("a key of {label}: {} (`{key}` belongs to {})", allowed(), owners.join(", ")))
    });
    Some(Fault { at: at?, lasts: lasts?, kind: decoded? })
}

fn kind(value: &Value<'_>, sink: &mut Sink) -> Option<&'static Variant> {
    let names = || KINDS.all().map(|kind| kind.name);
    let expected = || format!("a kind of fault: {}", names().collect::<Vec<_>>().join(", "));
    let DeValue::String(text) = value.get_ref() else {
        return sink.report(Problem::new(value.span(), found(value), expected()));
    };
    match KINDS.all().find(|kind| kind.name == text) {
        Some(kind) => Some(kind),
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
    let (for_value, until_value) = (fields.value(&kinds::FOR), fields.value(&kinds::UNTIL));
    let Some(value) = until_value.or(for_value) else { return Some(None) };
    if ends == Ends::AtOnce {
        let expected = format!("no end: `{kind}` is over at once");
        return sink.report(Problem::new(value.span(), found(value), expected));
    }
    if for_value.is_some() && until_value.is_some() {
        return sink.report(Problem::new(value.span(), "both `for` and `until`", "one of them"));
    }
    let read = kinds::FOR.form.read(value, sink)?;
    let (Some(latest), Some(duration)) = (latest, duration) else { return Some(None) };
    let end = if until_value.is_some() { read } else { latest + read };
    if end <= latest {
        let expected = format!("an end after the fault, which may come as late as `{latest}`");
        return sink.report(Problem::new(value.span(), found(value), expected).beyond_shape());
    }
    if end > duration {
        let expected = format!(
            "an end by `{duration}`, the end of the fault phase (everything heals then; leave it out to last so long)"
        );
        return sink.report(Problem::new(value.span(), found(value), expected).beyond_shape());
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
    if kind.starts_with("bus-") {
        return services::bus(kind, fields, census, sink).map(FaultKind::Bus);
    }
    if kind.starts_with("cache-") {
        return services::cache(kind, fields, census, sink).map(FaultKind::Cache);
    }
    if matches!(kind, "cut" | "degrade") {
        return link(kind, fields, census, sink);
    }
    if kind == "revoke-tokens" {
        let players = fields.read_with(&kinds::PLAYERS, sink, |value, sink| census.players_named(value, sink));
        return players.map(FaultKind::RevokeTokens);
    }
    let nodes = fields.read_with(&kinds::NODE, sink, |value, sink| census.selectors(value, sink));
    Some(match kind {
        "crash" => FaultKind::Crash(nodes?),
        "kill" => FaultKind::Kill(nodes?),
        "stop" => FaultKind::Stop(nodes?),
        "restart" => FaultKind::Restart(nodes?),
        "pause" => FaultKind::Pause(nodes?),
        "slow" => {
            let times = fields.read(&kinds::TIMES, sink);
            FaultKind::Slow(nodes?, times? * 1_000)
        }
        "crash-between-submissions" => {
            let after = fields.read(&kinds::AFTER, sink);
            let which = fields.read_or(&kinds::WHICH_COUNT, sink);
            FaultKind::CrashBetweenSubmissions(nodes?, after?, which)
        }
        "hold-outbox" => {
            let which = fields.read(&kinds::WHICH, sink);
            FaultKind::HoldOutbox(nodes?, which?)
        }
        "clock-step" => {
            let by = fields.read(&kinds::STEP, sink);
            FaultKind::ClockStep(nodes?, by?)
        }
        "clock-drift" => {
            let rate = fields.read(&kinds::RATE, sink);
            FaultKind::ClockDrift(nodes?, rate?)
        }
        "clock-freeze" => FaultKind::ClockFreeze(nodes?),
        _ => {
            let by = fields.read(&kinds::WALL_STEP, sink);
            FaultKind::WallStep(nodes?, by?)
        }
    })
}

fn link(kind: &str, fields: &mut Fields<'_, '_>, census: &Census<'_>, sink: &mut Sink) -> Option<FaultKind> {
    let from = fields.read_with(&kinds::FROM, sink, |value, sink| census.selectors(value, sink));
    let to = fields.read_with(&kinds::TO, sink, |value, sink| census.selectors(value, sink));
    let one_way = fields.read_or(&kinds::ONE_WAY, sink);
    if kind == "cut" {
        return Some(FaultKind::Cut { from: from?, to: to?, one_way });
    }
    let before = sink.problems.len();
    let loss = fields.read(&kinds::LOSS, sink);
    let duplicate = fields.read(&kinds::DUPLICATE, sink);
    let delay = fields.read(&kinds::DELAY, sink);
    let jitter = fields.read(&kinds::JITTER, sink);
    if sink.problems.len() == before && loss.is_none() && duplicate.is_none() && delay.is_none() && jitter.is_none() {
        sink.problems.push(
            Problem::new(
                fields.span(),
                "a `degrade` that degrades nothing",
                "`loss`, `duplicate`, `delay` or `jitter`",
            )
            .beyond_shape(),
        );
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
