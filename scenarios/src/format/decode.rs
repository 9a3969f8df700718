//! From a document to a [`Scenario`].

use super::{
    fields::{Fields, Sink, Value, found},
    problem::{Problem, quoted},
    scenario::{Boss, Budget, CoreGroup, Place, Region, Scenario, Timing, Workload},
    select::Census,
    units,
};
use std::ops::RangeInclusive;
use toml::de::{DeTable, DeValue};
use worldline_proto::{EntityId, EntityKind};
use worldline_system::{
    knobs::{Knobs, Retry},
    lease::LeaseTimes,
    time::Duration,
};

/// Players of one world.
const PLAYERS: RangeInclusive<u32> = 1..=10_000;
const REGIONS_MAX: usize = 16;
const FAULTS_MAX: usize = 256;
const PHASE: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(30 * 60);

pub(super) const PLACES: &[(&str, Place)] = &[
    ("singapore", Place::Singapore),
    ("tokyo", Place::Tokyo),
    ("sydney", Place::Sydney),
    ("frankfurt", Place::Frankfurt),
    ("virginia", Place::Virginia),
    ("oregon", Place::Oregon),
];

const TIMINGS: &[(&str, Timing)] = &[
    ("failover", Timing::Failover),
    ("detect", Timing::Detect),
    ("reassign", Timing::Reassign),
    ("reconstruct", Timing::Reconstruct),
    ("redirect", Timing::Redirect),
    ("reconnect", Timing::Reconnect),
    ("resume", Timing::Resume),
    ("operation", Timing::Operation),
];

/// The scenario in `text`, or all that is wrong with it.
pub(super) fn scenario(text: &str) -> Result<Scenario, Vec<Problem>> {
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
    let mut sink = Sink::default();
    let scenario = decode(text, document.get_ref(), &mut sink);
    match scenario {
        Some(scenario) if sink.problems.is_empty() => Ok(scenario),
        _ => Err(sink.problems),
    }
}

fn decode(text: &str, document: &DeTable<'_>, sink: &mut Sink) -> Option<Scenario> {
    let mut fields = Fields::document(document);
    let name = fields.required("name", sink, units::name);
    let summary = fields.required("summary", sink, units::text);
    let duration = fields.required("duration", sink, units::duration_in(PHASE));
    let settle = fields.required("settle", sink, units::duration_in(PHASE));
    let core = fields.optional("core", sink, core).unwrap_or_else(default_core);
    let lease = fields.optional("lease", sink, lease).unwrap_or_default();
    let knobs = fields.optional("knobs", sink, knobs).unwrap_or_default();
    let (regions, bosses) = fields.required("world", sink, world).unwrap_or_default();
    let workload = match fields.value("workload") {
        Some(value) => workload(value, &bosses, sink),
        None => Some(default_workload()),
    };
    let census = Census { regions: &regions, bosses: &bosses, core: &core };
    let fault_values = fields.list("fault", sink);
    if let Some(extra) = fault_values.get(FAULTS_MAX) {
        sink.problems.push(Problem::new(extra.span(), "one fault too many", format!("at most {FAULTS_MAX}")));
    }
    let faults =
        fault_values.iter().take(FAULTS_MAX).filter_map(|value| super::faults::fault(value, duration, &census, sink));
    let faults: Vec<_> = faults.collect();
    let budgets = budgets(&fields.list("budget", sink), sink);
    fields.finish(sink, |_| None);
    if let (Some(target), Some(workload)) = (bosses.first(), &workload)
        && workload.target.is_none()
        && regions.iter().any(|region| region.travellers > 0)
    {
        let problem = Problem::new(
            0..0,
            "travellers without a target",
            "`[workload]` to have a `target` for them to stand beside",
        );
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
    })
}

fn world(value: &Value<'_>, sink: &mut Sink) -> Option<(Vec<Region>, Vec<Boss>)> {
    let mut fields = Fields::of(value, "`[world]`", sink);
    let values = fields.list("region", sink);
    let before = sink.problems.len();
    let mut regions: Vec<Region> = Vec::new();
    for value in values.iter().take(REGIONS_MAX) {
        let region = region(value, &regions, sink);
        regions.push(region);
    }
    if let Some(extra) = values.get(REGIONS_MAX) {
        sink.problems.push(Problem::new(extra.span(), "one region too many", format!("at most {REGIONS_MAX}")));
    }
    if values.is_empty() && fields.value("region").is_none() {
        fields.missing::<()>("region", sink);
    } else if sink.problems.len() == before {
        let players = regions.iter().map(|region| region.players + region.travellers).sum::<u32>();
        if !PLAYERS.contains(&players) {
            let expected = format!("from {} to {} players in all regions together", PLAYERS.start(), PLAYERS.end());
            sink.problems.push(Problem::new(players_span(&values, value), format!("{players} players"), expected));
        }
    }
    let mut bosses: Vec<Boss> = Vec::new();
    for value in fields.list("boss", sink) {
        let boss = boss(value, &regions, &bosses, sink);
        bosses.extend(boss);
    }
    fields.finish(sink, |_| None);
    Some((regions, bosses))
}

/// Where the number of players is best pointed at: the last `players` of the file, or else the world.
fn players_span(regions: &[&Value<'_>], world: &Value<'_>) -> std::ops::Range<usize> {
    let mut players = regions.iter().filter_map(|region| region.get_ref().as_table()?.get("players"));
    players.next_back().map_or(world.span(), toml::Spanned::span)
}

/// What the file calls something, even if it must not.
fn called(value: Option<&Value<'_>>) -> String {
    value.and_then(|value| value.get_ref().as_str()).unwrap_or_default().to_owned()
}

/// A region. Where something of it is wrong, and reported, something stands in for it: what names the region must not be
/// reported too.
fn region(value: &Value<'_>, earlier: &[Region], sink: &mut Sink) -> Region {
    let mut fields = Fields::of(value, "`[[world.region]]`", sink);
    let name_value = fields.value("name");
    let name = fields.required("name", sink, units::name);
    if let (Some(name), Some(value)) = (&name, name_value)
        && earlier.iter().any(|region| region.name == *name)
    {
        sink.problems.push(Problem::new(value.span(), format!("the name {} again", quoted(name)), "a name of its own"));
    }
    let place_word = units::word(PLACES, "a place of the WAN matrix");
    let place = match (fields.value("place"), &name) {
        (Some(value), _) => place_word(value, sink),
        // A region that is called as its place need not say so twice.
        (None, Some(name)) => match PLACES.iter().find(|(word, _)| word == name) {
            Some((_, place)) => Some(*place),
            None => fields.required("place", sink, place_word),
        },
        (None, None) => None,
    };
    let mut people = |key, of| fields.optional(key, sink, units::whole(0..=*PLAYERS.end(), of)).unwrap_or(0);
    let players = people("players", "a number of players");
    let travellers = people("travellers", "a number of players");
    let npcs = people("npcs", "a number of creatures");
    let workers = fields.required("workers", sink, units::whole(1..=64, "a number of workers"));
    let gateways = fields.required("gateways", sink, units::whole(1..=16, "a number of gateways"));
    fields.finish(sink, |_| None);
    Region {
        name: name.unwrap_or_else(|| called(name_value)),
        place: place.unwrap_or(Place::Frankfurt),
        workers: workers.unwrap_or(u16::MAX),
        gateways: gateways.unwrap_or(u16::MAX),
        players,
        travellers,
        npcs,
    }
}

/// A boss. Where something but its name is wrong, and reported, something stands in for it.
fn boss(value: &Value<'_>, regions: &[Region], earlier: &[Boss], sink: &mut Sink) -> Option<Boss> {
    let mut fields = Fields::of(value, "`[[world.boss]]`", sink);
    let name_value = fields.value("name");
    let entity = fields.required("name", sink, boss_name);
    if let (Some(entity), Some(value)) = (entity, name_value)
        && earlier.iter().any(|boss| boss.entity == entity)
    {
        sink.problems.push(Problem::new(value.span(), format!("the name `{entity}` again"), "a name of its own"));
    }
    let region = fields.required("region", sink, |value, sink| {
        let name = match value.get_ref() {
            DeValue::String(name) => Some(name.as_ref()),
            _ => None,
        };
        let at = regions.iter().position(|region| Some(region.name.as_str()) == name);
        at.or_else(|| {
            let names = || regions.iter().map(|region| region.name.as_str());
            let expected = format!("one of this world's regions: {}", names().collect::<Vec<_>>().join(", "));
            sink.report(Problem::new(value.span(), found(value), expected).near(name.unwrap_or(""), names()))
        })
    });
    let hit_points = fields.required("hit_points", sink, units::whole(1..=1_000_000_000, "hit points"));
    let purse = fields.required("purse", sink, units::whole(0..=1_000_000_000_000_i64, "minor units"));
    fields.finish(sink, |_| None);
    let (region, hit_points, purse) = (region.unwrap_or(0), hit_points.unwrap_or(1), purse.unwrap_or(0));
    Some(Boss { entity: entity?, region, hit_points, purse })
}

fn boss_name(value: &Value<'_>, sink: &mut Sink) -> Option<EntityId> {
    let text = match value.get_ref() {
        DeValue::String(text) => text.as_ref(),
        _ => "",
    };
    let entity = text.parse::<EntityId>().ok().filter(|entity| {
        entity.kind() == EntityKind::Boss && (1..=9_999).contains(&entity.number()) && entity.to_string() == text
    });
    entity.or_else(|| sink.report(Problem::new(value.span(), found(value), "a boss's name: `boss-1` to `boss-9999`")))
}

fn default_core() -> CoreGroup {
    CoreGroup { places: vec![Place::Frankfurt], directory: 3, ledger: 3, orchestrators: 2 }
}

fn core(value: &Value<'_>, sink: &mut Sink) -> Option<CoreGroup> {
    let default = default_core();
    let mut fields = Fields::of(value, "`[core]`", sink);
    let places = fields.optional("place", sink, core_places);
    let mut members =
        |key, default| fields.optional(key, sink, units::whole(1..=7, "a number of members")).unwrap_or(default);
    let core = CoreGroup {
        places: places.unwrap_or(default.places),
        directory: members("directory", default.directory),
        ledger: members("ledger", default.ledger),
        orchestrators: members("orchestrators", default.orchestrators),
    };
    fields.finish(sink, |_| None);
    Some(core)
}

/// One place, or a list of them: no two the same.
fn core_places(value: &Value<'_>, sink: &mut Sink) -> Option<Vec<Place>> {
    let place = units::word(PLACES, "a place of the WAN matrix, or a list of places");
    let DeValue::Array(list) = value.get_ref() else { return place(value, sink).map(|place| vec![place]) };
    if list.is_empty() {
        return sink.report(Problem::new(value.span(), "an empty list", "at least one place"));
    }
    let mut places = Vec::new();
    for value in list {
        let read = place(value, sink)?;
        if places.contains(&read) {
            return sink.report(Problem::new(value.span(), found(value), "a place that is not in the list yet"));
        }
        places.push(read);
    }
    Some(places)
}

fn lease(value: &Value<'_>, sink: &mut Sink) -> Option<LeaseTimes> {
    let default = LeaseTimes::default();
    let mut fields = Fields::of(value, "`[lease]`", sink);
    let before = sink.problems.len();
    // etcd grants whole seconds.
    let seconds = Duration::from_secs(1)..=Duration::from_secs(60);
    let ttl = fields.optional("ttl", sink, units::duration_in(seconds)).unwrap_or(default.ttl);
    let span = Duration::from_millis(10)..=Duration::from_secs(60);
    let margin = fields.optional("margin", sink, units::duration_in(Duration::ZERO..=Duration::from_secs(60)));
    let renewal = fields.optional("renewal", sink, units::duration_in(span)).unwrap_or(default.renewal);
    let margin = margin.unwrap_or(default.margin);
    let acts = ttl - margin;
    if sink.problems.len() == before && (margin >= ttl || renewal >= acts) {
        let found = format!("a lease of `{ttl}` with a margin of `{margin}`, renewed every `{renewal}`");
        sink.problems.push(Problem::new(fields.span(), found, "`renewal` to be shorter than `ttl` less `margin`"));
    }
    fields.finish(sink, |_| None);
    Some(LeaseTimes { ttl, margin, renewal })
}

fn knobs(value: &Value<'_>, sink: &mut Sink) -> Option<Knobs> {
    let default = Knobs::default();
    let mut fields = Fields::of(value, "`[knobs]`", sink);
    let before = sink.problems.len();
    let mut span = |key, from_ms, default| {
        let range = Duration::from_millis(from_ms)..=Duration::from_secs(60);
        fields.optional(key, sink, units::duration_in(range)).unwrap_or(default)
    };
    let knobs = Knobs {
        scan_every: span("scan_every", 50, default.scan_every),
        checkpoint_every: span("checkpoint_every", 50, default.checkpoint_every),
        renewal_patience: span("renewal_patience", 50, default.renewal_patience),
        retry: Retry {
            first: span("retry_first", 1, default.retry.first),
            longest: span("retry_longest", 1, default.retry.longest),
        },
    };
    let Retry { first, longest } = knobs.retry;
    if sink.problems.len() == before && first > longest {
        let found = format!("waits from `{first}` to `{longest}`");
        sink.problems.push(Problem::new(fields.span(), found, "`retry_first` to be at most `retry_longest`"));
    }
    fields.finish(sink, |_| None);
    Some(knobs)
}

fn default_workload() -> Workload {
    Workload {
        moves_per_second: 20,
        attack_every: Duration::from_secs(1),
        target: None,
        speed_hack: 0,
        reused_numbers: 0,
        double_login: 0,
    }
}

fn workload(value: &Value<'_>, bosses: &[Boss], sink: &mut Sink) -> Option<Workload> {
    let default = default_workload();
    let mut fields = Fields::of(value, "`[workload]`", sink);
    let moves = fields.optional("moves_per_second", sink, units::whole(0..=60, "movements a second"));
    let often = Duration::from_millis(100)..=Duration::from_secs(600);
    let attack_every = fields.optional("attack_every", sink, units::duration_in(often)).unwrap_or(default.attack_every);
    let target = fields.optional("target", sink, |value, sink| {
        let name = match value.get_ref() {
            DeValue::String(name) => name.as_ref(),
            _ => "",
        };
        let names: Vec<String> = bosses.iter().map(|boss| boss.entity.to_string()).collect();
        names.iter().position(|known| known == name).or_else(|| {
            let expected = match names.is_empty() {
                true => "the name of a `[[world.boss]]` (this world has none)".into(),
                false => format!("one of this world's bosses: {}", names.join(", ")),
            };
            sink.report(Problem::new(value.span(), found(value), expected).near(name, names.iter().map(String::as_str)))
        })
    });
    let mut share = |key| fields.optional(key, sink, units::permille).unwrap_or(0);
    let (speed_hack, reused_numbers, double_login) =
        (share("speed_hack"), share("reused_numbers"), share("double_login"));
    if speed_hack + reused_numbers + double_login > 1000 {
        let found = format!("shares of {} in all", units::permille_text(speed_hack + reused_numbers + double_login));
        sink.problems.push(Problem::new(
            fields.span(),
            found,
            "shares of misbehaving players of at most `100%` in all",
        ));
    }
    fields.finish(sink, |_| None);
    Some(Workload {
        moves_per_second: moves.unwrap_or(default.moves_per_second),
        attack_every,
        target,
        speed_hack,
        reused_numbers,
        double_login,
    })
}

fn budgets(values: &[&Value<'_>], sink: &mut Sink) -> Vec<Budget> {
    let mut budgets: Vec<Budget> = Vec::new();
    for value in values {
        let mut fields = Fields::of(value, "`[[budget]]`", sink);
        let timing_value = fields.value("timing");
        let timing = fields.required("timing", sink, units::word(TIMINGS, "a timing"));
        let within = fields.required("within", sink, units::duration_in(Duration::from_millis(1)..=*PHASE.end()));
        fields.finish(sink, |_| None);
        let (Some(timing), Some(within)) = (timing, within) else { continue };
        if let (Some(value), true) = (timing_value, budgets.iter().any(|budget| budget.timing == timing)) {
            sink.problems.push(Problem::new(
                value.span(),
                format!("a second budget for `{timing}`"),
                "one budget a timing",
            ));
        }
        budgets.push(Budget { timing, within });
    }
    budgets
}
