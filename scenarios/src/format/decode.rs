//! From a document to a [`Scenario`].

use super::{
    fields::{Fields, Sink, Value},
    forms::{Name, Section, Sections, Sentence, Span, Word},
    kinds, knobs,
    problem::{Problem, quoted},
    scenario::{Budget, Scenario, Timing},
    select::Census,
    setting::Setting,
    shape::{Key, Table, table},
    workload, world,
};
use toml::de::DeTable;
use worldline_system::time::Duration;

const FAULTS_MAX: usize = 256;
/// A phase of a run.
const PHASE: Span = Span::ms(1_000, 30 * 60_000);

const TIMINGS: &[(&str, Timing)] = &[
    ("failover", Timing::Failover),
    ("detect", Timing::Detect),
    ("reassign", Timing::Reassign),
    ("reconstruct", Timing::Reconstruct),
    ("redirect", Timing::Redirect),
    ("reconnect", Timing::Reconnect),
    ("resume", Timing::Resume),
    ("operation", Timing::Operation),
    ("visibility", Timing::Visibility),
];

/// A scenario file.
pub(super) static SCENARIO: Table = table!(
    "a scenario",
    [&NAME, &SUMMARY, &DURATION, &SETTLE, &CORE, &LEASE, &KNOBS, &WORLD, &WORKLOAD, &FAULT, &BUDGET]
);
static NAME: Key<Name> = Key::required("name", Name, "Its name: lower-case letters, digits, hyphens.");
static SUMMARY: Key<Sentence> = Key::required("summary", Sentence, "What threatens, in a sentence.");
static DURATION: Key<Span> = Key::required(
    "duration",
    PHASE,
    "How long the fault phase is. Everything is healed at its end, but dead nodes stay dead.",
);
static SETTLE: Key<Span> = Key::required("settle", PHASE, "How long the world has after that to make progress again.");
static CORE: Key<Section> = Key::optional(
    "core",
    Section(&world::CORE),
    "Directory, ledger and orchestrators: nodes of their own, whichever region stands at the same place.",
);
static LEASE: Key<Section> = Key::optional("lease", Section(&knobs::LEASE), "The times of every lease.");
static KNOBS: Key<Section> = Key::optional("knobs", Section(&knobs::KNOBS), "Periods and retry bounds of every role.");
static WORLD: Key<Section> = Key::required("world", Section(&world::WORLD), "The regions and what is in them.");
static WORKLOAD: Key<Section> = Key::optional("workload", Section(&workload::WORKLOAD), "What the players do.");
static FAULT: Key<Sections> =
    Key::optional("fault", Sections { of: &kinds::FAULT, from: 0, to: Some(FAULTS_MAX) }, "What goes wrong, and when.");
static BUDGET: Key<Sections> =
    Key::optional("budget", Sections { of: &BUDGETS, from: 0, to: None }, "What must hold besides the invariants.");

static BUDGETS: Table = table!("`[[budget]]`", [&TIMING, &WITHIN], named_by: Some("timing"));
static TIMING: Key<Word<Timing>> =
    Key::required("timing", Word { of: "a timing", words: TIMINGS }, "What is measured. One budget a timing.");
static WITHIN: Key<Span> = Key::required(
    "within",
    Span { from: Duration::from_millis(1), ..PHASE },
    "The longest that it may take, every time.",
);

/// The scenario in `text` under these settings, or all that is wrong with it. The place of the first setting is one behind the
/// end of the text, that of the second another one behind it.
pub(super) fn scenario(text: &str, settings: &[Setting]) -> Result<Scenario, Vec<Problem>> {
    let (document, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        // What a broken document seems to say is not worth reporting.
        let problem = |error: &toml::de::Error| {
            let span = error.span().unwrap_or(0..0);
            let found = text.get(span.clone()).filter(|found| !found.trim().is_empty());
            Problem::new(
                span,
                found.map_or_else(|| "what is no TOML".into(), quoted),
                format!("valid TOML: {}", error.message()),
            )
        };
        return Err(errors.iter().map(problem).collect());
    }
    let mut document = document.into_inner();
    let mut sink = Sink::default();
    for (at, setting) in (text.len() + 1..).zip(settings) {
        if let Err(problem) = setting.put(&mut document, &SCENARIO, at..at + 1) {
            sink.problems.push(problem);
        }
    }
    if !sink.problems.is_empty() {
        return Err(sink.problems);
    }
    let scenario = decode(text, &document, &mut sink);
    match scenario {
        Some(scenario) if sink.problems.is_empty() => Ok(Scenario { settings: settings.to_vec(), ..scenario }),
        _ => Err(sink.problems),
    }
}

fn decode(text: &str, document: &DeTable<'_>, sink: &mut Sink) -> Option<Scenario> {
    let mut fields = Fields::document(document, &SCENARIO);
    let name = fields.read(&NAME, sink);
    let summary = fields.read(&SUMMARY, sink);
    let duration = fields.read(&DURATION, sink);
    let settle = fields.read(&SETTLE, sink);
    let core = fields.read_with(&CORE, sink, world::core).unwrap_or_else(world::default_core);
    let lease = fields.read_with(&LEASE, sink, knobs::lease).unwrap_or_default();
    let knobs = fields.read_with(&KNOBS, sink, knobs::knobs).unwrap_or_default();
    let (regions, bosses) = fields.read_with(&WORLD, sink, world::world).unwrap_or_default();
    let workload = match fields.value(&WORKLOAD) {
        Some(value) => workload::workload(value, &bosses, sink),
        None => Some(workload::default_workload()),
    };
    let census = Census { regions: &regions, bosses: &bosses, core: &core };
    let fault_values = fields.list(&FAULT, sink);
    if let Some(extra) = fault_values.get(FAULTS_MAX) {
        sink.problems.push(Problem::new(extra.span(), "one fault too many", format!("at most {FAULTS_MAX}")));
    }
    let faults =
        fault_values.iter().take(FAULTS_MAX).filter_map(|value| super::faults::fault(value, duration, &census, sink));
    let faults: Vec<_> = faults.collect();
    let budgets = budgets(&fields.list(&BUDGET, sink), sink);
    fields.finish(sink, |_| None);
    if let (Some(target), Some(workload)) = (bosses.first(), &workload)
        && workload.target.is_none()
        && regions.iter().any(|region| region.travellers > 0)
    {
        let problem = Problem::new(
            0..0,
            "travellers without a target",
            "`[workload]` to have a `target` for them to stand beside",
        )
        .beyond_shape();
        sink.problems.push(Problem { nearest: Some(format!("target = \"{}\"", target.entity)), ..problem });
    }
    Some(Scenario {
        name: name?,
        summary: summary?,
        regions,
        bosses,
        core,
        lease,
        knobs,
        workload: workload?,
        duration: duration?,
        settle: settle?,
        faults,
        budgets,
        text: text.to_owned(),
        settings: Vec::new(),
    })
}

fn budgets(values: &[&Value<'_>], sink: &mut Sink) -> Vec<Budget> {
    let mut budgets: Vec<Budget> = Vec::new();
    for value in values {
        let mut fields = Fields::of(value, &BUDGETS, sink);
        let timing_value = fields.value(&TIMING);
        let timing = fields.read(&TIMING, sink);
        let within = fields.read(&WITHIN, sink);
        fields.finish(sink, |_| None);
        let (Some(timing), Some(within)) = (timing, within) else { continue };
        if let (Some(value), true) = (timing_value, budgets.iter().any(|budget| budget.timing == timing)) {
            sink.problems.push(
                Problem::new(value.span(), format!("a second budget for `{timing}`"), "one budget a timing")
                    .beyond_shape(),
            );
        }
        budgets.push(Budget { timing, within });
    }
    budgets
}
