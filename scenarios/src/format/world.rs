//! `[world]` and `[core]`: what there is, and where.

use super::{
    fields::{Fields, Sink, Value, found},
    forms::{self, Name, Named, Sections, Whole, Word},
    problem::{Problem, quoted},
    scenario::{Boss, CoreGroup, Place, Region},
    shape::{Form, Key, Read as _, Table, table},
};
use serde_json::json;
use std::ops::RangeInclusive;
use toml::de::DeValue;
use worldline_proto::{EntityId, EntityKind};

/// Players of one world.
const PLAYERS: RangeInclusive<u32> = 1..=10_000;
const REGIONS_MAX: usize = 16;

pub(super) const PLACES: &[(&str, Place)] = &[
    ("singapore", Place::Singapore),
    ("tokyo", Place::Tokyo),
    ("sydney", Place::Sydney),
    ("frankfurt", Place::Frankfurt),
    ("virginia", Place::Virginia),
    ("oregon", Place::Oregon),
];

/// `[world]`.
pub(super) static WORLD: Table = table!("`[world]`", [&REGION, &BOSS]);
static REGION: Key<Sections> =
    Key::required("region", Sections { of: &REGIONS, from: 1, to: Some(REGIONS_MAX) }, "The regions of the world.");
static BOSS: Key<Sections> = Key::optional("boss", Sections { of: &BOSSES, from: 0, to: None }, "The world bosses.");

static REGIONS: Table = table!("`[[world.region]]`", [&NAME, &PLACE, &HOME, &TRAVELLERS, &NPCS, &WORKERS, &GATEWAYS], named_by: Some("name"), rules: place_or_name);
static NAME: Key<Name> = Key::required("name", Name, "How selectors call it.");
const A_PLACE: Word<Place> = Word { of: "a place of the WAN matrix", words: PLACES };
static PLACE: Key<Word<Place>> =
    Key::optional("place", A_PLACE, "Where it stands. May be left out if it is called as its place.");
const fn people(of: &'static str) -> Whole<u32> {
    Whole { from: 0, to: *PLAYERS.end(), of }
}
static HOME: Key<Whole<u32>> = Key::or(
    "players",
    people("a number of players"),
    0,
    "Players who sit here and whose characters are at home here. 1 to 10000 players in all regions together.",
);
static TRAVELLERS: Key<Whole<u32>> = Key::or(
    "travellers",
    people("a number of players"),
    0,
    "Players who sit here and whose characters stand beside the target of the workload.",
);
static NPCS: Key<Whole<u32>> =
    Key::or("npcs", people("a number of creatures"), 0, "Other creatures that its workers own.");
static WORKERS: Key<Whole<u16>> =
    Key::required("workers", Whole { from: 1, to: 64, of: "a number of workers" }, "Worker processes.");
static GATEWAYS: Key<Whole<u16>> =
    Key::required("gateways", Whole { from: 1, to: 16, of: "a number of gateways" }, "Gateway processes.");

/// A region that is not called as a place must say which place it stands at.
fn place_or_name() -> Vec<serde_json::Value> {
    let words: Vec<_> = PLACES.iter().map(|(word, _)| *word).collect();
    vec![json!({
        "if": { "properties": { "name": { "not": { "enum": words } } }, "required": ["name"] },
        "then": { "required": ["place"] },
    })]
}

static BOSSES: Table =
    table!("`[[world.boss]]`", [&BOSS_NAME, &HOME_REGION, &HIT_POINTS, &PURSE], named_by: Some("name"));
/// What names a boss.
pub(super) fn boss_pattern() -> String {
    "^boss-[1-9][0-9]{0,3}$".into()
}
static BOSS_NAME: Key<Named> =
    Key::required("name", Named { pattern: boss_pattern }, "Its name: `boss-1` to `boss-9999`.");
static HOME_REGION: Key<Named> = Key::required(
    "region",
    Named { pattern: || format!("^{}$", forms::NAME) },
    "The region whose workers own it: the name of one of `[[world.region]]`.",
);
static HIT_POINTS: Key<Whole<u32>> =
    Key::required("hit_points", Whole { from: 1, to: 1_000_000_000, of: "hit points" }, "Its hit points.");
static PURSE: Key<Whole<i64>> = Key::required(
    "purse",
    Whole { from: 0, to: 1_000_000_000_000, of: "minor units" },
    "What bounties are paid out of, in minor units.",
);

/// `[core]`.
pub(super) static CORE: Table = table!("`[core]`", [&CORE_PLACE, &DIRECTORY, &LEDGER, &BUS, &ORCHESTRATORS]);
static CORE_PLACE: Key<Places> = Key::or(
    "place",
    Places(Word { of: "a place of the WAN matrix, or a list of places", words: PLACES }),
    &[Place::Frankfurt],
    "Where it stands: one place, or a list over which the members of each kind take turns.",
);
const MEMBERS: Whole<u16> = Whole { from: 1, to: 7, of: "a number of members" };
static DIRECTORY: Key<Whole<u16>> = Key::or("directory", MEMBERS, 3, "Members of the directory.");
static LEDGER: Key<Whole<u16>> = Key::or("ledger", MEMBERS, 3, "Members of the ledger: a primary and its standbys.");
static BUS: Key<Whole<u16>> = Key::or("bus", MEMBERS, 3, "Members of the bus.");
static ORCHESTRATORS: Key<Whole<u16>> = Key::or("orchestrators", MEMBERS, 2, "Orchestrators; one of them leads.");

/// The regions and bosses of `[world]`.
pub(super) fn world(value: &Value<'_>, sink: &mut Sink) -> Option<(Vec<Region>, Vec<Boss>)> {
    let mut fields = Fields::of(value, &WORLD, sink);
    let values = fields.list(&REGION, sink);
    let before = sink.problems.len();
    let mut regions: Vec<Region> = Vec::new();
    for value in values.iter().take(REGIONS_MAX) {
        let region = region(value, &regions, sink);
        regions.push(region);
    }
    if let Some(extra) = values.get(REGIONS_MAX) {
        sink.problems.push(Problem::new(extra.span(), "one region too many", format!("at most {REGIONS_MAX}")));
    }
    if values.is_empty() && fields.value(&REGION).is_none() {
        fields.missing::<()>("region", sink);
    } else if sink.problems.len() == before {
        let players = regions.iter().map(|region| region.players + region.travellers).sum::<u32>();
        if !PLAYERS.contains(&players) {
            let expected = format!("from {} to {} players in all regions together", PLAYERS.start(), PLAYERS.end());
            sink.problems.push(
                Problem::new(players_span(&values, value), format!("{players} players"), expected).beyond_shape(),
            );
        }
    }
    let mut bosses: Vec<Boss> = Vec::new();
    for value in fields.list(&BOSS, sink) {
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
    let mut fields = Fields::of(value, &REGIONS, sink);
    let name_value = fields.value(&NAME);
    let name = fields.read(&NAME, sink);
    if let (Some(name), Some(value)) = (&name, name_value)
        && earlier.iter().any(|region| region.name == *name)
    {
        sink.problems.push(
            Problem::new(value.span(), format!("the name {} again", quoted(name)), "a name of its own").beyond_shape(),
        );
    }
    let place = match (fields.value(&PLACE), &name) {
        (Some(value), _) => PLACE.form.read(value, sink),
        // A region that is called as its place need not say so twice.
        (None, Some(name)) => match PLACES.iter().find(|(word, _)| word == name) {
            Some((_, place)) => Some(*place),
            None => fields.missing("place", sink),
        },
        (None, None) => None,
    };
    let players = fields.read_or(&HOME, sink);
    let travellers = fields.read_or(&TRAVELLERS, sink);
    let npcs = fields.read_or(&NPCS, sink);
    let workers = fields.read(&WORKERS, sink);
    let gateways = fields.read(&GATEWAYS, sink);
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
    let mut fields = Fields::of(value, &BOSSES, sink);
    let name_value = fields.value(&BOSS_NAME);
    let entity = fields.read_with(&BOSS_NAME, sink, boss_name);
    if let (Some(entity), Some(value)) = (entity, name_value)
        && earlier.iter().any(|boss| boss.entity == entity)
    {
        sink.problems
            .push(Problem::new(value.span(), format!("the name `{entity}` again"), "a name of its own").beyond_shape());
    }
    let region = fields.read_with(&HOME_REGION, sink, |value, sink| {
        let name = match value.get_ref() {
            DeValue::String(name) => Some(name.as_ref()),
            _ => None,
        };
        let at = regions.iter().position(|region| Some(region.name.as_str()) == name);
        at.or_else(|| {
            let names = || regions.iter().map(|region| region.name.as_str());
            let expected = one_of(names(), str::to_owned);
            let problem = Problem::new(value.span(), found(value), expected).near(name.unwrap_or(""), names());
            sink.report(Problem { shape: name.is_none(), ..problem })
        })
    });
    let hit_points = fields.read(&HIT_POINTS, sink);
    let purse = fields.read(&PURSE, sink);
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

/// One place, or a list of them.
struct Places(Word<Place>);

impl Form for Places {
    type Meaning = &'static [Place];

    fn schema(&self) -> serde_json::Map<String, serde_json::Value> {
        let one = serde_json::Value::from(self.0.schema());
        let list = json!({ "type": "array", "minItems": 1, "uniqueItems": true, "items": one });
        forms::object(json!({ "anyOf": [one, list] }))
    }

    fn write(&self, meaning: &&'static [Place]) -> serde_json::Value {
        match *meaning {
            [one] => self.0.write(one),
            list => list.iter().map(|place| self.0.write(place)).collect(),
        }
    }
}

/// One place, or a list of them: no two the same.
fn core_places(value: &Value<'_>, sink: &mut Sink) -> Option<Vec<Place>> {
    let place = &CORE_PLACE.form.0;
    let DeValue::Array(list) = value.get_ref() else { return place.read(value, sink).map(|place| vec![place]) };
    if list.is_empty() {
        return sink.report(Problem::new(value.span(), "an empty list", "at least one place"));
    }
    let mut places = Vec::new();
    for value in list {
        let read = place.read(value, sink)?;
        if places.contains(&read) {
            return sink.report(Problem::new(value.span(), found(value), "a place that is not in the list yet"));
        }
        places.push(read);
    }
    Some(places)
}

/// What stands where a region is named. One whose own name cannot be read is not in the list.
pub(super) fn one_of<'a>(names: impl Iterator<Item = &'a str>, written: impl Fn(&str) -> String) -> String {
    let names: Vec<String> = names.filter(|name| !name.is_empty()).map(written).collect();
    match names.is_empty() {
        true => "a region that the world has".into(),
        false => format!("one of this world's regions: {}", names.join(", ")),
    }
}

/// The core of `[core]`.
pub(super) fn core(value: &Value<'_>, sink: &mut Sink) -> Option<CoreGroup> {
    let mut fields = Fields::of(value, &CORE, sink);
    let core = CoreGroup {
        places: fields.read_with(&CORE_PLACE, sink, core_places).unwrap_or_else(default_places),
        directory: fields.read_or(&DIRECTORY, sink),
        ledger: fields.read_or(&LEDGER, sink),
        bus: fields.read_or(&BUS, sink),
        orchestrators: fields.read_or(&ORCHESTRATORS, sink),
    };
    fields.finish(sink, |_| None);
    Some(core)
}

fn default_places() -> Vec<Place> {
    CORE_PLACE.default.unwrap_or_default().to_vec()
}

/// The core of a file that says nothing of it.
pub(super) fn default_core() -> CoreGroup {
    let text = "the default of a key that has one";
    CoreGroup {
        places: default_places(),
        directory: DIRECTORY.default.expect(text),
        ledger: LEDGER.default.expect(text),
        bus: BUS.default.expect(text),
        orchestrators: ORCHESTRATORS.default.expect(text),
    }
}
