//! The world file: the regions in order, the bosses, and what else the ledger begins with. The same for every process.
//!
//! A region's cells are its band of the world, from west to east in the order of the file.

use super::{
    decode::{character, entity, one_of, text, whole},
    given::{self, Given, Value},
    keys,
    problem::{Problem, Problems, Sink, quoted},
};
use std::{collections::BTreeMap, path::Path, sync::Arc};
use worldline_proto::{EntityId, EntityKind};
use worldline_system::{
    doors::directory::RegionId,
    rules::space::{self, Map, Position, WORLD_EDGE_MM},
};

pub use crate::ledger::Seed;

/// Regions of one world.
const REGIONS_MAX: usize = 128;
/// Entities of one kind in one world file.
const ENTITIES_MAX: u32 = 1_000_000;
/// How far the first boss stands from the middle of its region, and each further one from the one before, in millimetres:
/// within reach of a character that strays 8 m from there.
const BOSS_OFF_MM: i64 = 10_000;
const BOSSES_APART_MM: i64 = 2_000;
const HIT_POINTS: u32 = 1_000;
const BALANCE: i64 = 100;

/// A world.
#[derive(Clone, Debug)]
pub struct World {
    /// The regions' names, in order: a region's id is its place.
    pub regions: Vec<String>,
    /// The content that every role must agree on.
    pub map: Arc<Map>,
    /// What the ledger begins with, in id order.
    pub seeds: Vec<Seed>,
}

impl World {
    /// The region of this name.
    pub(super) fn region(&self, given: &Given, sink: &mut Sink) -> Option<RegionId> {
        region(&self.regions, given, sink)
    }

    /// A region's name.
    #[must_use]
    pub fn name(&self, region: RegionId) -> &str {
        self.regions.get(usize::from(region.0)).map_or("a region that the world file does not have", String::as_str)
    }
}

/// Reads a world file.
///
/// # Errors
/// Everything that is wrong with it.
pub fn world(path: &Path) -> Result<World, Problems> {
    let file = given::file(path, "a world file in TOML")?;
    let mut sink = Sink::default();
    let world = decode(&file, &mut sink);
    sink.into_result(world)
}

fn decode(file: &Given, sink: &mut Sink) -> Option<World> {
    let mut table = Table::of(file, "a world file", sink);
    let region_tables = table.list("region", sink);
    let boss_tables = table.list("boss", sink);
    let character_tables = table.list("character", sink);
    table.finish(sink);
    if region_tables.is_empty() || region_tables.len() > REGIONS_MAX {
        let found = format!("{} regions", region_tables.len());
        return sink.report(Problem::new(&file.origin, found, format!("1 to {REGIONS_MAX} `[[region]]`")));
    }
    let mut regions: Vec<String> = Vec::new();
    let mut npcs = Vec::new();
    for given in &region_tables {
        let (name, creatures) = region_of(given, &regions, sink);
        regions.push(name);
        npcs.push(creatures);
    }
    let count = u8::try_from(regions.len()).expect("at most 128 regions");
    let bare = Map::new(count, BTreeMap::new());
    let mut seeds = BTreeMap::new();
    let mut bosses = BTreeMap::new();
    for (index, given) in (0..).zip(&boss_tables) {
        if let Some((seed, region)) = boss_of(given, index, &bare, &regions, sink) {
            bosses.insert(seed.entity, space::Boss { position: seed.position, region });
            insert(seed, given, &mut seeds, sink);
        }
    }
    for given in &character_tables {
        for seed in characters_of(given, &bare, &regions, sink).into_iter().flatten() {
            insert(seed, given, &mut seeds, sink);
        }
    }
    let creatures = (0..).zip(npcs).flat_map(|(region, count)| std::iter::repeat_n(RegionId(region), count as usize));
    for (region, number) in creatures.zip(1..) {
        let entity = EntityId::new(EntityKind::Npc, number).expect("a small number");
        seeds.insert(
            entity,
            Seed { entity, position: bare.middle(region), pinned: None, hit_points: HIT_POINTS, balance: 0 },
        );
    }
    let map = Arc::new(Map::new(count, bosses));
    Some(World { regions, map, seeds: seeds.into_values().collect() })
}

fn insert(seed: Seed, given: &Given, seeds: &mut BTreeMap<EntityId, Seed>, sink: &mut Sink) {
    if seeds.insert(seed.entity, seed).is_some() {
        let found = format!("`{}` again", seed.entity);
        sink.report::<()>(Problem::new(&given.origin, found, "each entity once"));
    }
}

/// A region's name and how many creatures stand in it. Something stands in for a name that is wrong and reported.
fn region_of(given: &Given, earlier: &[String], sink: &mut Sink) -> (String, u32) {
    let mut table = Table::of(given, "`[[region]]`", sink);
    let name = table.required("name", sink, |given, sink| {
        let name = text(given, sink)?;
        let valid = name.len() <= 40 && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
        if !valid {
            return sink.report(given.problem("a name of 1 to 40 letters, digits and hyphens"));
        }
        if earlier.contains(&name) {
            return sink.report(given.problem("a name of its own for each region"));
        }
        Some(name)
    });
    let npcs = table.optional("npcs", sink, whole(0..=ENTITIES_MAX, "a number of creatures")).unwrap_or(0);
    table.finish(sink);
    (name.unwrap_or_default(), npcs)
}

fn boss_of(given: &Given, index: i64, map: &Map, regions: &[String], sink: &mut Sink) -> Option<(Seed, RegionId)> {
    let mut table = Table::of(given, "`[[boss]]`", sink);
    let entity = table.required("name", sink, |given, sink| {
        let named = entity(given, sink)?;
        if named.kind() == EntityKind::Boss {
            return Some(named);
        }
        sink.report(given.problem("a boss's name, such as `boss-1`"))
    });
    let region = table.required("region", sink, |given, sink| region(regions, given, sink));
    let hit_points = table.required("hit_points", sink, whole(1..=1_000_000_000, "hit points"));
    let purse = table.required("purse", sink, whole(0..=1_000_000_000_000_i64, "minor units"));
    let placed = table.optional("position", sink, position);
    table.finish(sink);
    let region = region?;
    let middle = map.middle(region);
    let beside = Position { y_mm: middle.y_mm + BOSS_OFF_MM + BOSSES_APART_MM * index, ..middle };
    let position = placed.unwrap_or(beside);
    Some((Seed { entity: entity?, position, pinned: Some(region), hit_points: hit_points?, balance: purse? }, region))
}

/// A run of characters that begin at one place.
fn characters_of(given: &Given, map: &Map, regions: &[String], sink: &mut Sink) -> Option<Vec<Seed>> {
    let mut table = Table::of(given, "`[[character]]`", sink);
    let first = table.required("first", sink, character);
    let count = table.optional("count", sink, whole(1..=ENTITIES_MAX, "a number of characters")).unwrap_or(1);
    let region = table.required("region", sink, |given, sink| region(regions, given, sink));
    let placed = table.optional("position", sink, position);
    let hit_points = table.optional("hit_points", sink, whole(1..=1_000_000_000, "hit points")).unwrap_or(HIT_POINTS);
    let balance = table.optional("balance", sink, whole(0..=1_000_000_000_000_i64, "minor units")).unwrap_or(BALANCE);
    table.finish(sink);
    let (first, position) = (first?.entity().number(), placed.unwrap_or(map.middle(region?)));
    let seed = |number| {
        let entity = EntityId::new(EntityKind::Character, number)?;
        Some(Seed { entity, position, pinned: None, hit_points, balance })
    };
    Some((first..first.saturating_add(count.into())).filter_map(seed).collect())
}

fn position(given: &Given, sink: &mut Sink) -> Option<Position> {
    let mut table = Table::of(given, "a position", sink);
    let mut axis =
        |key| table.required(key, sink, whole(-WORLD_EDGE_MM..=WORLD_EDGE_MM, "millimetres from the middle"));
    let (x_mm, y_mm) = (axis("x_mm"), axis("y_mm"));
    table.finish(sink);
    Some(Position { x_mm: x_mm?, y_mm: y_mm? })
}

fn region(regions: &[String], given: &Given, sink: &mut Sink) -> Option<RegionId> {
    let names: Vec<_> = regions.iter().map(String::as_str).collect();
    let at = one_of(given, &names, "one of this world's regions", sink)?;
    u8::try_from(at).ok().map(RegionId)
}

/// A table that is being taken apart; what nobody asked for is reported.
pub(super) struct Table<'a> {
    given: &'a Given,
    what: &'static str,
    asked: Vec<&'static str>,
}

impl<'a> Table<'a> {
    /// The table that `given` is; an empty one, after a report, where it is none.
    pub fn of(given: &'a Given, what: &'static str, sink: &mut Sink) -> Self {
        if !matches!(given.value, Value::Table(_)) {
            sink.report::<()>(given.problem(format!("{what} to be a table")));
        }
        Self { given, what, asked: Vec::new() }
    }

    /// What was given under a key.
    pub fn get(&mut self, key: &'static str) -> Option<&'a Given> {
        self.asked.push(key);
        self.given.get(key)
    }

    /// What `decode` makes of what was given under a key.
    pub fn optional<T>(
        &mut self,
        key: &'static str,
        sink: &mut Sink,
        decode: impl FnOnce(&Given, &mut Sink) -> Option<T>,
    ) -> Option<T> {
        self.get(key).and_then(|given| decode(given, sink))
    }

    /// The same for a key that must be there.
    pub fn required<T>(
        &mut self,
        key: &'static str,
        sink: &mut Sink,
        decode: impl FnOnce(&Given, &mut Sink) -> Option<T>,
    ) -> Option<T> {
        match self.get(key) {
            Some(given) => decode(given, sink),
            None if !matches!(self.given.value, Value::Table(_)) => None,
            None => {
                let expected = format!("{} to have one", self.what);
                sink.report(Problem::new(&self.given.origin, format!("no `{key}`"), expected))
            }
        }
    }

    /// The tables of the list under a key.
    pub fn list(&mut self, key: &'static str, sink: &mut Sink) -> Vec<&'a Given> {
        match self.get(key) {
            None => Vec::new(),
            Some(Given { value: Value::List(list), .. }) => list.iter().collect(),
            Some(other) => {
                sink.report::<()>(other.problem(format!("a list of tables: write `[[{key}]]`")));
                Vec::new()
            }
        }
    }

    /// Reports every key that nobody asked for.
    pub fn finish(self, sink: &mut Sink) {
        let Value::Table(entries) = &self.given.value else { return };
        for (name, origin, _) in entries.iter().filter(|(name, ..)| !self.asked.contains(&name.as_str())) {
            let found = format!("the unknown key {}", quoted(name));
            let expected = format!("one of the keys of {}: {}", self.what, self.asked.join(", "));
            let problem = Problem::new(origin, found, expected).near(name, self.asked.iter().copied());
            let elsewhere = problem.nearest.is_none() && keys::find(name).is_some();
            let expected = if elsewhere {
                format!("{} (that is a setting of a process)", problem.expected)
            } else {
                problem.expected
            };
            sink.report::<()>(Problem { expected, ..problem });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<World, Problems> {
        let file = given::toml(&"world.toml".into(), text)?;
        let mut sink = Sink::default();
        let world = decode(&file, &mut sink);
        sink.into_result(world)
    }

    #[test]
    fn a_boss_stands_beside_the_middle_of_its_region_unless_it_is_placed() {
        let world = read(
            "[[region]]\nname = 'a'\nnpcs = 2\n[[region]]\nname = 'b'\nnpcs = 1\n\
             [[boss]]\nname = 'boss-1'\nregion = 'b'\nhit_points = 10\npurse = 5\n\
             [[boss]]\nname = 'boss-2'\nregion = 'a'\nhit_points = 10\npurse = 5\nposition = { x_mm = 1, y_mm = -2 }\n\
             [[character]]\nfirst = 3\ncount = 2\nregion = 'a'\n",
        )
        .expect("reads");
        let boss = |n| EntityId::new(EntityKind::Boss, n).expect("small");
        let middle = world.map.middle(RegionId(1));
        let first = world.map.boss(boss(1)).expect("there");
        assert_eq!((first.position.x_mm, first.position.y_mm, first.region), (middle.x_mm, BOSS_OFF_MM, RegionId(1)));
        assert_eq!(world.map.boss(boss(2)).expect("there").position, Position { x_mm: 1, y_mm: -2 });
        let names: Vec<_> = world.seeds.iter().map(|seed| seed.entity.to_string()).collect();
        assert_eq!(names, ["character-3", "character-4", "boss-1", "boss-2", "npc-1", "npc-2", "npc-3"]);
    }

    #[test]
    fn all_that_is_wrong_is_told_at_once_with_its_place() {
        let text = "[[region]]\nname = 'frankfurt'\n[[boss]]\nname = 'bos-1'\nregion = 'frankfrut'\nhitpoints = 5\npurse = -1\n";
        let problems = read(text).expect_err("wrong").to_string();
        for told in [
            "world.toml:4:8: found `bos-1`",
            "world.toml:5:10: found `frankfrut`, expected one of this world's regions: frankfurt; did you mean `frankfurt`?",
            "world.toml:6:1: found the unknown key `hitpoints`",
            "did you mean `hit_points`?",
            "world.toml:7:9: found the number -1",
        ] {
            assert!(problems.contains(told), "{told} in {problems}");
        }
        // A region that is there twice is one to choose, not two, and no empty word beside it.
        let text = "[[region]]\nname = 'virginia'\n[[region]]\nname = 'virginia'\n[[boss]]\nname = 'boss-1'\nregion = 'x'\n\
                    hit_points = 5\npurse = 1\n";
        let problems = read(text).expect_err("wrong").to_string();
        assert!(
            problems.contains("world.toml:7:10: found `x`, expected one of this world's regions: virginia\n"),
            "{problems}"
        );
    }
}
