//! S6: a gateway that is told to stop loses nothing: neither a session that stands there nor an operation under way.

use super::{Check, Checker, Facts, Invariant, Setup, View, breach};
use std::collections::{BTreeMap, BTreeSet};
use worldline_proto::{CharacterId, Generation, NodeId, OpNumber};
use worldline_system::{
    history::{Entry, Note, What},
    time::{Duration, Instant},
};

/// How soon an operation that is under way when its gateway begins to drain is acknowledged, where nothing else is wrong: as
/// long as a gateway waits for its clients to leave.
const ACKNOWLEDGED_WITHIN: Duration = Duration::from_secs(10);

/// One client in its present life.
#[derive(Clone, Debug, Default)]
struct Client {
    character: Option<CharacterId>,
    joined: Generation,
    /// What it has sent and was not answered.
    waits: BTreeSet<OpNumber>,
}

/// S6. Follows which client plays where. From the moment in which a gateway begins to drain on it watches what the clients there
/// have under way and what they still send through it. Each is acknowledged, once, in bounded time; and the gateway does
/// not end before every session there has.
///
/// The bound is not asked for while anything else is wrong: a drain amid other faults takes as long as these.
#[derive(Clone, Debug)]
pub struct LosesNothing {
    /// At which gateway each character's highest session stands.
    sessions: BTreeMap<CharacterId, (NodeId, Generation)>,
    clients: BTreeMap<NodeId, Client>,
    draining: BTreeSet<NodeId>,
    /// Operations under way through a gateway that drains, and since when they are watched.
    watched: BTreeMap<(NodeId, OpNumber), Instant>,
    /// Operations that were watched and acknowledged.
    done: BTreeSet<(NodeId, OpNumber)>,
    drained: bool,
    followed: bool,
    timed: bool,
}

impl LosesNothing {
    /// Whether a client's own session stands at this gateway.
    fn plays_at(&self, client: &Client, gateway: NodeId) -> bool {
        let session = client.character.and_then(|character| self.sessions.get(&character));
        session == Some(&(gateway, client.joined))
    }

    fn opened(&mut self, gateway: NodeId, character: CharacterId, generation: Generation) {
        if self.sessions.get(&character).is_none_or(|(_, known)| *known < generation) {
            self.sessions.insert(character, (gateway, generation));
        }
    }

    fn drain(&mut self, gateway: NodeId, at: Instant) {
        self.drained = true;
        self.draining.insert(gateway);
        let there = self.clients.iter().filter(|(_, client)| self.plays_at(client, gateway));
        let under_way = there.flat_map(|(&node, client)| client.waits.iter().map(move |&number| ((node, number), at)));
        let under_way: Vec<_> = under_way.collect();
        self.followed |= !under_way.is_empty();
        self.watched.extend(under_way);
    }

    fn performed(&mut self, node: NodeId, character: CharacterId, number: OpNumber, at: Instant) {
        let client = self.clients.entry(node).or_default();
        client.character = Some(character);
        client.waits.insert(number);
        let client = &self.clients[&node];
        if self.draining.iter().any(|&gateway| self.plays_at(client, gateway)) {
            self.followed = true;
            self.watched.insert((node, number), at);
        }
    }

    fn acknowledged(&mut self, node: NodeId, number: OpNumber) -> Check {
        if let Some(client) = self.clients.get_mut(&node) {
            client.waits.remove(&number);
        }
        if self.watched.remove(&(node, number)).is_some() {
            self.done.insert((node, number));
        } else if self.done.contains(&(node, number)) {
            breach!("{node} was told of operation {number} again, which was under way when its gateway began to drain");
        }
        Ok(())
    }

    /// A gateway has ended as it was told: nobody plays there any more.
    fn stopped(&self, gateway: NodeId) -> Check {
        let left = self.sessions.iter().find(|(_, (node, _))| *node == gateway);
        match left.filter(|_| self.draining.contains(&gateway)) {
            Some((character, _)) => breach!("{gateway} drained and ended while the session of {character} stood there"),
            None => Ok(()),
        }
    }

    /// A life has ended, whether or not another one begins.
    fn gone(&mut self, node: NodeId) {
        self.draining.remove(&node);
        self.clients.remove(&node);
        self.sessions.retain(|_, (at, _)| *at != node);
        self.watched.retain(|(of, _), _| *of != node);
        self.done.retain(|(of, _)| *of != node);
    }
}

impl Checker for LosesNothing {
    const INVARIANT: Invariant = Invariant::S6;

    fn new(_: &Setup) -> Self {
        Self {
            sessions: BTreeMap::new(),
            clients: BTreeMap::new(),
            draining: BTreeSet::new(),
            watched: BTreeMap::new(),
            done: BTreeSet::new(),
            drained: false,
            followed: false,
            timed: false,
        }
    }

    fn on_entry(&mut self, entry: &Entry, _: &Facts<'_>) -> Check {
        match &entry.what {
            &What::Noted(Note::SessionOpened { character, generation }) => {
                self.opened(entry.node, character, generation)
            }
            &What::Noted(Note::SessionClosed { character, generation }) => {
                self.sessions.retain(|known, session| *known != character || *session != (entry.node, generation));
            }
            &What::Noted(Note::Joined { character, generation, .. }) => {
                let client = self.clients.entry(entry.node).or_default();
                (client.character, client.joined) = (Some(character), generation);
            }
            &What::Noted(Note::Performed { character, number, .. }) => {
                self.performed(entry.node, character, number, entry.at);
            }
            // A conflict answers another payload under a number that was answered before.
            What::Noted(Note::Acknowledged { number, result: Some(_), .. }) => {
                return self.acknowledged(entry.node, *number);
            }
            What::Noted(Note::Draining { .. }) => self.drain(entry.node, entry.at),
            What::Stopped => {
                self.stopped(entry.node)?;
                self.gone(entry.node);
            }
            What::Started | What::Crashed => self.gone(entry.node),
            _ => {}
        }
        Ok(())
    }

    fn on_sample(&mut self, view: &View<'_>) -> Check {
        if view.disturbed {
            self.watched.clear();
        }
        self.timed |= self.followed && !view.disturbed;
        // Whose place another client has taken waits rightly.
        let clients = &self.clients;
        self.watched.retain(|(node, _), _| {
            let Some(Client { character, joined, .. }) = clients.get(node) else { return false };
            !clients.values().any(|other| other.character == *character && other.joined > *joined)
        });
        let late = self.watched.iter().find(|(_, since)| view.at.since(**since) > ACKNOWLEDGED_WITHIN);
        if let Some((&(node, number), &since)) = late {
            let span = view.at.since(since);
            breach!(
                "operation {number} of {node} was under way when its gateway drained, and is unanswered for {span}"
            );
        }
        Ok(())
    }

    fn at_end(&mut self, view: &View<'_>) -> Check {
        self.on_sample(view)
    }

    fn not_checked(&self) -> Option<&'static str> {
        match () {
            () if !self.drained => Some("no gateway was told to stop"),
            () if !self.followed => Some("gateways drained, and no operation was under way"),
            () if !self.timed => Some("nothing was lost or told twice, and something else was wrong all the time"),
            () => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::story::*, *};

    const GATEWAY: u32 = 5;
    const PLAYER: u32 = 9;

    fn opened(generation: u64) -> What {
        What::Noted(Note::SessionOpened { character: hero(), generation: Generation(generation) })
    }

    fn closed(generation: u64) -> What {
        What::Noted(Note::SessionClosed { character: hero(), generation: Generation(generation) })
    }

    fn joined(generation: u64) -> What {
        What::Noted(Note::Joined { character: hero(), generation: Generation(generation), issued_unix_ms: 0 })
    }

    fn told(number: u64) -> What {
        acknowledged(number, 1, Some(hit(100, 900)))
    }

    /// The hero plays at the gateway and strikes; the gateway drains, the hero strikes again, goes on at another one, and is
    /// answered there.
    fn good() -> Vec<(u64, u32, What)> {
        vec![
            (0, GATEWAY, opened(1)),
            (1, PLAYER, joined(1)),
            (2, PLAYER, performed(1, 1)),
            (3, GATEWAY, What::Noted(Note::Draining { sessions: 1 })),
            (4, PLAYER, performed(2, 1)),
            (5, GATEWAY, closed(1)),
            (6, GATEWAY, What::Stopped),
            (7, 6, opened(2)),
            (8, PLAYER, joined(2)),
            (9, PLAYER, told(1)),
            (10, PLAYER, told(2)),
        ]
    }

    /// Where the history breaks it; `Err` with what a sample so much later says.
    fn ends(lines: Vec<(u64, u32, What)>, ms: u64, disturbed: bool) -> Result<usize, (bool, Option<&'static str>)> {
        let mut checker = LosesNothing::new(&setup());
        let entries = tell(lines);
        if let Some(place) = entries.iter().position(|entry| checker.on_entry(entry, &Facts::default()).is_err()) {
            return Ok(place);
        }
        let held = checker.on_sample(&View { disturbed, ..view(ms) }).is_ok();
        Err((held, checker.not_checked()))
    }

    fn without(place: usize) -> Vec<(u64, u32, What)> {
        let mut lines = good();
        lines.remove(place);
        lines
    }

    #[test]
    fn s6_what_is_under_way_is_answered_once_and_in_time() {
        assert_eq!(ends(good(), 60_000, false), Err((true, None)));
        for place in [9, 10] {
            assert_eq!(ends(without(place), 9_000, false), Err((true, None)), "not yet");
            assert_eq!(ends(without(place), 60_000, false), Err((false, None)), "under way, and never answered");
        }
        let mut twice = good();
        twice.push((11, PLAYER, told(1)));
        assert_eq!(ends(twice, 60_000, false), Ok(11));
        let mut after = without(9);
        after.insert(9, (9, PLAYER, What::Crashed));
        assert_eq!(ends(after, 60_000, false), Err((true, None)), "the dead wait for nothing");
    }

    #[test]
    fn s6_a_gateway_ends_behind_its_last_session() {
        assert_eq!(ends(without(5), 60_000, false), Ok(5));
        let mut crashed = without(5);
        crashed[5].2 = What::Crashed;
        assert_eq!(ends(crashed, 60_000, false), Err((true, None)), "that was no drain");
    }

    #[test]
    fn s6_another_fault_is_no_fault_of_the_drain() {
        let why = "nothing was lost or told twice, and something else was wrong all the time";
        assert_eq!(ends(without(9), 60_000, true), Err((true, Some(why))));
        let mut displaced = without(9);
        displaced.extend([(11, 6, opened(3)), (12, 8, joined(3))]);
        assert_eq!(ends(displaced, 60_000, false), Err((true, None)), "another client has taken its place");
    }

    #[test]
    fn s6_says_what_it_could_not_see() {
        assert_eq!(ends(vec![], 9, false), Err((true, Some("no gateway was told to stop"))));
        let idle = vec![(0, GATEWAY, What::Noted(Note::Draining { sessions: 0 }))];
        assert_eq!(ends(idle, 9, false), Err((true, Some("gateways drained, and no operation was under way"))));
    }
}
