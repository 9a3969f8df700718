//! Selectors: how a fault names its nodes.

use super::{
    fields::{Sink, Value, found},
    forms,
    problem::{Problem, quoted},
    scenario::{Boss, CoreGroup, Region, Selector},
    world::{PLACES, one_of},
};
use crate::nodes::CACHE_SERVERS;
use toml::de::DeValue;
use worldline_proto::{EntityId, EntityKind};

const EXPECTED: &str = "a node: `worker:REGION:N`, `gateway:REGION:N`, `region:REGION`, `owner-of:boss-N`, \
                        `owner-of:character-N`, `player:N`, `replica:REGION`, `cache:REGION:N`, `core`, `core:PLACE`, `orchestrator:N`, `orchestrator:leader`, \
                        `directory:N`, `directory:leader`, `ledger:N`, `ledger:primary`, `bus:N` or `bus:leader`";

/// What a selector looks like. Which regions, members, players and entities there are, only the world says.
pub(super) fn pattern() -> String {
    let places: Vec<_> = PLACES.iter().map(|(word, _)| *word).collect();
    format!("^(core(:({}))?|region:{}|{})$", places.join("|"), forms::NAME, single_pattern())
}

/// The same of a single node.
pub(super) fn pattern_of_one() -> String {
    format!("^({})$", single_pattern())
}

fn single_pattern() -> String {
    let (name, n) = (forms::NAME, r"\+?[0-9]+");
    format!(
        "(orchestrator|directory|bus):(leader|{n})|ledger:(primary|{n})|(worker|gateway|cache):{name}:{n}|\
         replica:{name}|player:{n}|\
         owner-of:(boss|character)-{n}"
    )
}

/// The nodes that a file can name.
pub(super) struct Census<'a> {
    pub regions: &'a [Region],
    pub bosses: &'a [Boss],
    pub core: &'a CoreGroup,
}

impl Census<'_> {
    fn players(&self) -> u32 {
        self.regions.iter().map(|region| region.players.saturating_add(region.travellers)).fold(0, u32::saturating_add)
    }

    /// Every selector of the kind that `text` begins with, as examples; at most a few of each.
    fn valid(&self) -> Vec<String> {
        let mut valid = ["core", "orchestrator:leader", "directory:leader", "ledger:primary", "bus:leader"]
            .map(String::from)
            .to_vec();
        for region in self.regions {
            valid.push(format!("region:{}", region.name));
            valid.push(format!("replica:{}", region.name));
            valid.extend((0..CACHE_SERVERS).map(|n| format!("cache:{}:{n}", region.name)));
            valid.extend((0..region.workers.min(8)).map(|n| format!("worker:{}:{n}", region.name)));
            valid.extend((0..region.gateways.min(8)).map(|n| format!("gateway:{}:{n}", region.name)));
        }
        valid.extend((0..self.core.directory).map(|n| format!("directory:{n}")));
        valid.extend((0..self.core.ledger).map(|n| format!("ledger:{n}")));
        valid.extend((0..self.core.bus).map(|n| format!("bus:{n}")));
        valid.extend((0..self.core.orchestrators).map(|n| format!("orchestrator:{n}")));
        valid.extend(self.bosses.iter().map(|boss| format!("owner-of:{}", boss.entity)));
        valid
    }

    /// The selector that `text` is, or what was expected in its place.
    fn selector(&self, text: &str) -> Result<Selector, String> {
        let mut parts = text.split(':');
        let (kind, second, third, rest) = (parts.next().unwrap_or(""), parts.next(), parts.next(), parts.next());
        if rest.is_some() {
            return Err(EXPECTED.into());
        }
        match (kind, second, third) {
            ("core", None, None) => Ok(Selector::Core),
            ("core", Some(place), None) => self.core_at(place),
            ("orchestrator", Some("leader"), None) => Ok(Selector::OrchestratorLeader),
            ("directory", Some("leader"), None) => Ok(Selector::DirectoryLeader),
            ("bus", Some("leader"), None) => Ok(Selector::BusLeader),
            ("bus", Some(n), None) => index("bus", n, self.core.bus).map(Selector::Bus),
            ("ledger", Some("primary"), None) => Ok(Selector::LedgerPrimary),
            ("orchestrator", Some(n), None) => {
                index("orchestrator", n, self.core.orchestrators).map(Selector::Orchestrator)
            }
            ("directory", Some(n), None) => index("directory", n, self.core.directory).map(Selector::Directory),
            ("ledger", Some(n), None) => index("ledger", n, self.core.ledger).map(Selector::Ledger),
            ("replica", Some(name), None) => self.region(name).map(Selector::Replica),
            ("cache", Some(name), Some(n)) => {
                let region = self.region(name)?;
                index(&format!("cache:{name}"), n, CACHE_SERVERS).map(|n| Selector::Cache(region, n))
            }
            ("region", Some(name), None) => self.region(name).map(Selector::Region),
            ("worker", Some(name), Some(n)) => {
                let region = self.region(name)?;
                index(&format!("worker:{name}"), n, self.regions[region].workers).map(|n| Selector::Worker(region, n))
            }
            ("gateway", Some(name), Some(n)) => {
                let region = self.region(name)?;
                index(&format!("gateway:{name}"), n, self.regions[region].gateways)
                    .map(|n| Selector::Gateway(region, n))
            }
            ("player", Some(n), None) => self.player(n, "player:").map(Selector::Player),
            ("owner-of", Some(entity), None) => self.entity(entity).map(Selector::OwnerOf),
            _ => Err(EXPECTED.into()),
        }
    }

    fn core_at(&self, name: &str) -> Result<Selector, String> {
        let place = PLACES.iter().find(|(known, place)| *known == name && self.core.places.contains(place));
        place.map(|(_, place)| Selector::CoreAt(*place)).ok_or_else(|| {
            let names = PLACES.iter().filter(|(_, place)| self.core.places.contains(place));
            let names: Vec<_> = names.map(|(name, _)| format!("`core:{name}`")).collect();
            format!("a place where this world's core stands: {}", names.join(", "))
        })
    }

    fn region(&self, name: &str) -> Result<usize, String> {
        self.regions
            .iter()
            .position(|region| region.name == name)
            .ok_or_else(|| one_of(self.regions.iter().map(|region| region.name.as_str()), |name| format!("`{name}`")))
    }

    /// The region of this name.
    pub fn region_named(&self, value: &Value<'_>, sink: &mut Sink) -> Option<usize> {
        let name = value.get_ref().as_str();
        match self.region(name.unwrap_or_default()) {
            Ok(region) => Some(region),
            Err(expected) => {
                let names = self.regions.iter().map(|region| region.name.as_str());
                let problem = Problem::new(value.span(), found(value), expected).near(name.unwrap_or_default(), names);
                sink.report(Problem { shape: name.is_none(), ..problem })
            }
        }
    }

    fn player(&self, number: &str, prefix: &str) -> Result<u32, String> {
        let players = self.players();
        let read = number.parse::<u32>().ok().filter(|n| (1..=players).contains(n));
        read.ok_or_else(|| format!("a player of this world: `{prefix}1` to `{prefix}{players}`"))
    }

    fn entity(&self, name: &str) -> Result<EntityId, String> {
        let known = || {
            let mut known: Vec<_> = self.bosses.iter().map(|boss| format!("`{}`", boss.entity)).collect();
            if self.players() > 0 {
                known.push(format!("`character-1` to `character-{}`", self.players()));
            }
            if known.is_empty() {
                "an entity of this world".into()
            } else {
                format!("an entity of this world: {}", known.join(", "))
            }
        };
        let entity: EntityId = name.parse().map_err(|_| known())?;
        match entity.kind() {
            EntityKind::Boss if self.bosses.iter().any(|boss| boss.entity == entity) => Ok(entity),
            EntityKind::Character if (1..=u64::from(self.players())).contains(&entity.number()) => Ok(entity),
            _ => Err(known()),
        }
    }

    fn read(&self, value: &Value<'_>, sink: &mut Sink) -> Option<Selector> {
        let DeValue::String(text) = value.get_ref() else {
            return sink.report(Problem::new(value.span(), found(value), EXPECTED));
        };
        match self.selector(text) {
            Ok(selector) => Some(selector),
            Err(expected) => {
                let valid = self.valid();
                // `directory:primary` is no word of ours; `directory:7` may be one of a larger world.
                let shape = expected == EXPECTED;
                let problem = Problem::new(value.span(), quoted(text), expected);
                let problem = problem.near(text, valid.iter().map(String::as_str));
                sink.report(Problem { shape, ..problem })
            }
        }
    }

    /// A selector of exactly one node.
    pub fn single(&self, value: &Value<'_>, sink: &mut Sink) -> Option<Selector> {
        match self.read(value, sink)? {
            Selector::Region(_) | Selector::Core | Selector::CoreAt(_) => {
                sink.report(Problem::new(value.span(), found(value), "a selector of a single node"))
            }
            selector => Some(selector),
        }
    }

    /// The numbers of one player, or of a list of them.
    pub fn players_named(&self, value: &Value<'_>, sink: &mut Sink) -> Option<Vec<u32>> {
        let mut numbers = Vec::new();
        for selector in self.selectors(value, sink)? {
            let Selector::Player(number) = selector else {
                let expected = format!("players: `player:1` to `player:{}`", self.players());
                return sink.report(Problem::new(value.span(), found(value), expected));
            };
            numbers.push(number);
        }
        numbers.sort_unstable();
        numbers.dedup();
        Some(numbers)
    }

    /// One selector, or a list of them.
    pub fn selectors(&self, value: &Value<'_>, sink: &mut Sink) -> Option<Vec<Selector>> {
        match value.get_ref() {
            DeValue::Array(list) if list.is_empty() => {
                sink.report(Problem::new(value.span(), "an empty list", "at least one node"))
            }
            DeValue::Array(list) => {
                let read: Vec<_> = list.iter().map(|value| self.read(value, sink)).collect();
                read.into_iter().collect()
            }
            _ => self.read(value, sink).map(|selector| vec![selector]),
        }
    }
}

/// A member number below `count`.
fn index(of: &str, text: &str, count: u16) -> Result<u16, String> {
    let read = text.parse::<u16>().ok().filter(|&n| n < count);
    read.ok_or_else(|| match count {
        0 => format!("something that this world has: it has no `{of}`"),
        1 => format!("`{of}:0`, the only one of this world"),
        n => format!("one of this world's: `{of}:0` to `{of}:{}`", n - 1),
    })
}
