//! What a bot is told: whom it plays, and how.

use super::{
    decode::{self, NODE_MAX},
    given::{Given, Value},
    keys::{OF_PLAYERS, PLAYER_LIST},
    knobs::retry,
    layers::Layers,
    problem::{Origin, Problem, Problems, Sink, quoted},
    server::{self, Process},
};
use crate::{clock, network::tls::Identity};
use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};
use worldline_proto::{
    CharacterId, EntityId, EntityKind, NodeId,
    token::{Claims, Key},
};
use worldline_system::{
    client::{self, Conduct},
    knobs::Knobs,
    time::Duration,
};

/// Players of one process: each has a thread and a socket.
const PLAYERS_MAX: usize = 2_000;
/// The node of the first player, where nothing else is said.
const FIRST_NODE: u32 = 1_000_000;
/// How long the tokens are valid that a bot makes itself.
const OWN_TOKEN: Duration = Duration::from_secs(7 * 86_400);
const GRACE: Duration = Duration::from_secs(30);
const MOVES_EVERY: Duration = Duration::from_millis(50);
const ATTACKS_EVERY: Duration = Duration::from_secs(1);
/// Nobody walks or strikes more often.
const EVERY_MIN: Duration = Duration::from_millis(1);

const CONDUCTS: &[(&str, Conduct)] =
    &[("honest", Conduct::Honest), ("speed-hack", Conduct::SpeedHack), ("reuses-numbers", Conduct::ReusesNumbers)];

/// A player. Its role's configuration holds a token: it has no way to print itself.
#[derive(Clone)]
pub struct Player {
    /// Its node.
    pub node: NodeId,
    /// What its role is told.
    pub client: client::Config,
}

/// What a bot is told.
#[derive(Clone)]
pub struct Bot {
    /// What runs it.
    pub process: Process,
    /// Where the gateways are.
    pub peers: BTreeMap<NodeId, SocketAddr>,
    /// Whom it trusts.
    pub identity: Identity,
    /// How long after the last `stop` answers may still come.
    pub grace: Duration,
    /// Its players.
    pub players: Vec<Player>,
}

/// Reads what a bot is told. `sink` may hold what was wrong with the layers themselves.
///
/// # Errors
/// Everything that is wrong.
pub fn bot(layers: &Layers, mut sink: Sink) -> Result<Bot, Problems> {
    let bot = decode_bot(layers, &mut sink);
    sink.into_result(bot)
}

fn decode_bot(layers: &Layers, sink: &mut Sink) -> Option<Bot> {
    let process = Process::read(layers, "bot", sink);
    let peers = layers.required("peers", sink, |given, sink| match decode::peers(given, sink)? {
        none if none.is_empty() => sink.report(given.problem("at least one gateway's node id and address")),
        peers => Some(peers),
    });
    let identity = server::stranger(layers, sink);
    let grace = layers.optional("grace", sink, decode::duration).unwrap_or(GRACE);
    let known = peers.clone().unwrap_or_default();
    let key = layers.optional("token_key", sink, decode::token_key);
    let common = Common { layers, peers: &known, key, nodes: RefCell::default() };
    let players = match layers.players() {
        Some(Given { value: Value::List(tables), .. }) if tables.len() <= PLAYERS_MAX => {
            let each = (0..).zip(tables).map(|(at, table)| common.player(Some(table), at, sink)).collect::<Vec<_>>();
            each.into_iter().collect()
        }
        Some(other) => {
            let expected = format!("at most {PLAYERS_MAX} players, each a table `[[{PLAYER_LIST}]]`");
            sink.report(other.problem(expected))
        }
        None => {
            let count = layers.optional("players", sink, decode::whole(1..=PLAYERS_MAX as u32, "players"));
            let each = (0..count.unwrap_or(1)).map_while(|at| common.player(None, at, sink)).collect::<Vec<_>>();
            (each.len() == count.unwrap_or(1) as usize).then_some(each)
        }
    };
    Some(Bot { process, peers: peers?, identity: identity?, grace, players: players? })
}

struct Common<'a> {
    layers: &'a Layers,
    peers: &'a BTreeMap<NodeId, SocketAddr>,
    key: Option<Key>,
    /// The nodes of the players so far.
    nodes: RefCell<BTreeSet<NodeId>>,
}

impl Common<'_> {
    /// The player of a table of the file, or the one at this place of a run of players that differ in nothing but their
    /// numbers.
    fn player(&self, table: Option<&Given>, at: u32, sink: &mut Sink) -> Option<Player> {
        if let Some(table) = table {
            known_keys(table, sink);
        }
        let one = |name| table.and_then(|table| table.get(name)).or_else(|| self.layers.get(name));
        let own = |name| table.is_none_or(|table| table.get(name).is_none());
        let node = self.node(one("node"), table, if own("node") { at } else { 0 }, sink);
        let character = match one("character") {
            Some(given) => character(given, if own("character") { at } else { 0 }, sink),
            None => match table {
                Some(table) => sink.report(Problem::new(&table.origin, "no `character`", "`[[player]]` to have one")),
                None => self.layers.missing("character", sink),
            },
        };
        let token = self.token(one("token"), table, character, sink);
        let gateways = self.gateways(one("gateways"), sink);
        let mut span = |name, default| one(name).map_or(Some(default), |given| decode::duration(given, sink));
        let start = span("start", Duration::ZERO);
        let stop = span("stop", Duration::MAX);
        let stop = match (start, stop, one("stop")) {
            (Some(start), Some(stop), Some(given)) if stop <= start => {
                let found = format!("a `stop` of `{stop}` and a `start` of `{start}`");
                sink.report(Problem::new(&given.origin, found, "`stop` to be later than `start`"))
            }
            _ => stop,
        };
        let mut every = |name, default| one(name).map_or(Some(default), |given| every(given, sink));
        let moves_every = every("moves_every", MOVES_EVERY);
        let attacks_every = every("attacks_every", ATTACKS_EVERY);
        let target = one("target").map_or(Some(None), |given| target(given, sink).map(Some));
        let conduct = decode::word(CONDUCTS, "a conduct");
        let conduct = one("conduct").map_or(Some(Conduct::Honest), |given| conduct(given, sink));
        let knobs = Knobs { retry: retry(self.layers, sink)?, ..Knobs::default() };
        let client = client::Config {
            character: character?,
            token: token?,
            gateways: gateways?,
            start: start?,
            stop: stop?,
            moves_every: moves_every?,
            attacks_every: attacks_every?,
            target: target?,
            conduct: conduct?,
            knobs,
        };
        Some(Player { node: node?, client })
    }

    /// Its node: nobody else's. (Two players may be one character: the later session takes the place.)
    fn node(&self, given: Option<&Given>, table: Option<&Given>, at: u32, sink: &mut Sink) -> Option<NodeId> {
        let node = match given {
            None => NodeId(FIRST_NODE + at),
            Some(given) => match decode::node(given, sink)?.0.checked_add(at).filter(|node| *node <= NODE_MAX) {
                Some(node) => NodeId(node),
                None => return sink.report(counted_too_far(given, at, "a node's id", u64::from(NODE_MAX))),
            },
        };
        let whose = if self.peers.contains_key(&node) {
            format!("the node {node}, which `peers` has for another")
        } else if !self.nodes.borrow_mut().insert(node) {
            format!("the node {node} again")
        } else {
            return Some(node);
        };
        let origin = given.or(table).map_or(Origin::Nowhere, |given| given.origin.clone());
        sink.report(Problem::new(&origin, whose, "a node of its own for each player"))
    }

    fn token(
        &self,
        given: Option<&Given>,
        table: Option<&Given>,
        character: Option<CharacterId>,
        sink: &mut Sink,
    ) -> Option<Vec<u8>> {
        let own = || {
            let issued = clock::unix_now();
            let [issued_unix_ms, expires_unix_ms] = [issued, issued + OWN_TOKEN].map(|at| at.as_nanos() / 1_000_000);
            Some(self.key?.sign(Claims { character: character?, issued_unix_ms, expires_unix_ms }))
        };
        match given {
            Some(given) => decode::token(given, sink),
            None if self.key.is_some() || self.layers.get("token_key").is_some() => own(),
            None => match table {
                Some(table) => {
                    sink.report(Problem::new(&table.origin, "no `token`", "`[[player]]` to have one, or a `token_key`"))
                }
                None => self.layers.missing("token", sink),
            },
        }
    }

    fn gateways(&self, given: Option<&Given>, sink: &mut Sink) -> Option<Vec<NodeId>> {
        let Some(given) = given else {
            // A wrong or missing list of peers was reported where it stands.
            return Some(self.peers.keys().copied().collect()).filter(|all: &Vec<_>| !all.is_empty());
        };
        let nodes = decode::list(decode::node, "gateways' node ids")(given, sink)?;
        if nodes.is_empty() {
            return sink.report(given.problem("at least one gateway"));
        }
        if let Some(again) = decode::again(&nodes) {
            return sink.report(Problem::new(&given.origin, format!("{again} again"), "each gateway once"));
        }
        let stranger = nodes.iter().find(|node| !self.peers.contains_key(node));
        match stranger {
            Some(node) if !self.peers.is_empty() => {
                let found = format!("the gateway {}, which is not in `peers`", node.0);
                sink.report(Problem::new(&given.origin, found, "gateways whose addresses `peers` knows"))
            }
            _ => Some(nodes),
        }
    }
}

/// The character that is this, or so many further.
fn character(given: &Given, at: u32, sink: &mut Sink) -> Option<CharacterId> {
    let first = decode::character(given, sink)?;
    let counted = first.entity().number().checked_add(u64::from(at)).and_then(CharacterId::new);
    counted.or_else(|| sink.report(counted_too_far(given, at, "a character", EntityId::NUMBER_MAX)))
}

/// What is wrong where each further player of several has the next number, and there is none.
fn counted_too_far(given: &Given, at: u32, what: &str, max: u64) -> Problem {
    let found = format!("{}, counted up by {at} for another player", given.found());
    Problem::new(&given.origin, found, format!("{what} up to {max} for each player"))
}

/// How often something is done; zero is never.
fn every(given: &Given, sink: &mut Sink) -> Option<Duration> {
    let every = decode::duration(given, sink)?;
    if every > Duration::ZERO && every < EVERY_MIN {
        return sink.report(given.problem(format!("`{EVERY_MIN}` or longer, or `0s` for never")));
    }
    Some(every)
}

/// Whom a player may strike.
fn target(given: &Given, sink: &mut Sink) -> Option<EntityId> {
    let target = decode::entity(given, sink)?;
    if target.kind() != EntityKind::Boss {
        return sink.report(given.problem("a boss, such as `boss-1`: players strike nobody else"));
    }
    Some(target)
}

fn known_keys(table: &Given, sink: &mut Sink) {
    let Value::Table(entries) = &table.value else {
        sink.report::<()>(table.problem("`[[player]]` to be a table"));
        return;
    };
    for (name, origin, _) in entries.iter().filter(|(name, ..)| !OF_PLAYERS.contains(&name.as_str())) {
        let found = format!("the unknown key {}", quoted(name));
        let expected = format!("one of the keys of `[[player]]`: {}", OF_PLAYERS.join(", "));
        sink.report::<()>(Problem::new(origin, found, expected).near(name, OF_PLAYERS.iter().copied()));
    }
}
