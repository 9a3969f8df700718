//! L1 and L4: bounds hold, and a healed world forgets its wounds.

use super::{Check, Checker, Facts, Invariant, Setup, View, breach, ownership::Owners, table::Table};
use worldline_proto::{CharacterId, EntityId, Generation, NodeId, OpNumber};
use worldline_system::{
    doors::directory::RegionId,
    history::{Entry, Note, What},
    time::{Duration, Instant},
};

/// L1. Looks at every queue of every sample.
#[derive(Clone, Debug)]
pub struct BoundedQueues {
    seen: bool,
}

impl Checker for BoundedQueues {
    const INVARIANT: Invariant = Invariant::L1;

    fn new(_: &Setup) -> Self {
        Self { seen: false }
    }

    fn on_sample(&mut self, view: &View<'_>) -> Check {
        self.seen |= !view.queues.is_empty();
        match view.queues.iter().find(|queue| queue.length > queue.bound) {
            Some(queue) => {
                breach!("{} of {} holds {}; its bound is {}", queue.name, queue.node, queue.length, queue.bound)
            }
            None => Ok(()),
        }
    }

    fn at_end(&mut self, view: &View<'_>) -> Check {
        self.on_sample(view)
    }

    fn not_checked(&self) -> Option<&'static str> {
        (!self.seen).then_some("no sample told of any queue")
    }
}

/// What one client waits for.
#[derive(Clone, Debug, Default)]
struct Waiting {
    character: Option<CharacterId>,
    /// Its last session, and since when.
    joined: Generation,
    since: Instant,
    numbers: Vec<OpNumber>,
}

/// The clients of one character.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Players {
    #[default]
    None,
    One(NodeId),
    Several,
}

/// How long a client may take, once it has its place back, to be answered what it had asked before.
const BACK: Duration = Duration::from_secs(3);

/// L4. Follows what every living client has sent, and asks at the end of a settled run who is still waiting. A client whose
/// place another one has taken since waits rightly: it has been told to stay away. So does one that has only just got its
/// place back from another.
#[derive(Clone, Debug)]
pub struct NothingStuck {
    entities: Vec<EntityId>,
    clients: Table<NodeId, Waiting>,
    /// The highest session of each character that a client has joined.
    sessions: Table<CharacterId, Generation>,
    /// Which client plays a character, or that several do.
    players: Table<CharacterId, Players>,
    owners: Owners,
    regions: Table<EntityId, Option<RegionId>>,
    checked: bool,
    leaks_counted: bool,
}

impl NothingStuck {
    fn remember_regions(&mut self, view: &View<'_>) {
        for &entity in &self.entities {
            let Some((node, _)) = self.owners.server(entity) else { continue };
            if let Some(worker) = view.workers.iter().find(|worker| worker.node == node) {
                *self.regions.slot(entity) = Some(worker.region);
            }
        }
    }
}

impl Checker for NothingStuck {
    const INVARIANT: Invariant = Invariant::L4;

    fn new(setup: &Setup) -> Self {
        Self {
            entities: setup.rows.iter().map(|row| row.entity).collect(),
            clients: Table::default(),
            sessions: Table::default(),
            players: Table::default(),
            owners: Owners::default(),
            regions: Table::default(),
            checked: false,
            leaks_counted: false,
        }
    }

    fn on_entry(&mut self, entry: &Entry, _: &Facts<'_>) -> Check {
        match &entry.what {
            What::Noted(Note::Performed { character, number, .. }) => {
                let waiting = self.clients.slot(entry.node);
                waiting.character = Some(*character);
                if !waiting.numbers.contains(number) {
                    waiting.numbers.push(*number);
                }
            }
            What::Noted(Note::Joined { character, generation, .. }) => {
                let waiting = self.clients.slot(entry.node);
                (waiting.joined, waiting.since) = (*generation, entry.at);
                let players = self.players.slot(*character);
                *players = match *players {
                    Players::None => Players::One(entry.node),
                    Players::One(node) if node == entry.node => Players::One(node),
                    Players::One(_) | Players::Several => Players::Several,
                };
                let highest = self.sessions.slot(*character);
                *highest = (*highest).max(*generation);
            }
            // Its token does not count any more: nobody owes it an answer.
            What::Noted(Note::TurnedAway { .. }) => self.clients.slot(entry.node).numbers.clear(),
            What::Noted(Note::Acknowledged { number, .. }) => {
                self.clients.slot(entry.node).numbers.retain(|waiting| waiting != number);
            }
            What::Noted(_) => self.owners.on_entry(entry),
            What::Started | What::Crashed | What::Stopped => {
                self.owners.on_entry(entry);
                // Whoever has died waits for nothing.
                if let Some(waiting) = self.clients.get_mut(entry.node) {
                    waiting.numbers.clear();
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn on_sample(&mut self, view: &View<'_>) -> Check {
        self.remember_regions(view);
        Ok(())
    }

    fn at_end(&mut self, view: &View<'_>) -> Check {
        if !view.settled {
            return Ok(());
        }
        self.checked = true;
        self.leaks_counted = view.leaks.is_some();
        self.remember_regions(view);
        for waiting in self.clients.values() {
            let Some(character) = waiting.character else { continue };
            let superseded = self.sessions.get(character).is_some_and(|&highest| highest > waiting.joined);
            let shared = self.players.get(character) == Some(&Players::Several);
            let just_back = shared && view.at.since(waiting.since) < BACK;
            if let Some(number) = waiting.numbers.first().filter(|_| !superseded && !just_back) {
                let n = waiting.numbers.len();
                breach!("{character} still waits for {n} operations, the first of them {number}");
            }
        }
        if let Some(leak) = view.leaks.and_then(<[_]>::first) {
            breach!("{} has leaked: {}", leak.node, leak.what);
        }
        for &entity in &self.entities {
            let region = self.regions.get(entity).copied().flatten();
            let able =
                view.workers.iter().any(|worker| worker.able && region.is_none_or(|region| worker.region == region));
            if !able {
                continue;
            }
            let Some((node, authority)) = self.owners.server(entity) else {
                breach!("nobody serves {entity} at the end");
            };
            let fence = view.row(entity).and_then(|row| row.fence);
            if fence.is_some_and(|fence| fence != (authority.epoch, authority.lease)) {
                breach!("{node} serves {entity} at epoch {}, and the fence stands at {fence:?}", authority.epoch);
            }
        }
        Ok(())
    }

    fn not_checked(&self) -> Option<&'static str> {
        match (self.checked, self.leaks_counted) {
            (false, _) => Some("the run did not end healed and settled"),
            (true, false) => Some("nothing is stuck, and nobody counted leaks"),
            (true, true) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{Leak, Queue, WorkerState, story::*},
        *,
    };

    #[test]
    fn l1_one_too_many_is_too_many() {
        let mut checker = BoundedQueues::new(&setup());
        let mut holds = |length| {
            let queue = Queue { node: NodeId(1), name: "operations", length, bound: 8 };
            checker.on_sample(&View { queues: &[queue], ..view(1) }).is_ok()
        };
        assert!(holds(8));
        assert!(!holds(9));
        assert_eq!(BoundedQueues::new(&setup()).not_checked(), Some("no sample told of any queue"));
    }

    fn joins(generation: u64) -> Note {
        Note::Joined { character: hero(), generation: Generation(generation), issued_unix_ms: 0 }
    }

    /// Both entities are served and one operation is answered; then `more`, and the end.
    fn ends(more: &[(u64, u32, What)], leaks: &[Leak], able: bool) -> bool {
        let (own, target) = (authority(hero(), 1, 1), authority(boss(), 1, 1));
        let mut lines = vec![
            (0, 1, serving(own, east(0))),
            (0, 1, serving(target, east(0))),
            (1, 9, performed(1, 1)),
            (2, 9, acknowledged(1, 1, Some(hit(100, 900)))),
        ];
        lines.extend_from_slice(more);
        let mut checker = NothingStuck::new(&setup());
        for entry in tell(lines) {
            assert_eq!(checker.on_entry(&entry, &Facts::default()), Ok(()));
        }
        let workers = [WorkerState { node: NodeId(1), region: RegionId(0), able }];
        let end = View { workers: &workers, leaks: Some(leaks), settled: true, ..view(9_000) };
        let verdict = checker.at_end(&end);
        assert_eq!(checker.not_checked(), None);
        verdict.is_ok()
    }

    #[test]
    fn l4_a_settled_world_has_nothing_left_over() {
        assert!(ends(&[], &[], true));
        assert!(!ends(&[(3, 9, performed(2, 2))], &[], true), "an operation without an answer");
        assert!(ends(&[(3, 9, performed(2, 2)), (4, 9, What::Crashed)], &[], true), "the dead wait for nothing");
        let joined = |generation| What::Noted(joins(generation));
        assert!(ends(&[(3, 9, performed(2, 2)), (4, 8, joined(2))], &[], true), "another client has taken its place");
        assert!(!ends(&[(3, 9, performed(2, 2)), (4, 9, joined(2))], &[], true), "it has come again, and still waits");
        let back = |at| [(3, 9, performed(2, 2)), (4, 8, joined(2)), (at, 9, joined(3))];
        assert!(ends(&back(8_000), &[], true), "it has only just got its place back");
        assert!(!ends(&back(5_000), &[], true), "it has had its place back for long");
        let away = What::Noted(Note::TurnedAway { character: hero() });
        assert!(ends(&[(3, 9, performed(2, 2)), (4, 9, away)], &[], true), "nobody owes it an answer");
        let leak = Leak { node: NodeId(1), what: "an operation past its deadline".into() };
        assert!(!ends(&[], &[leak], true));
        let dropped = What::Noted(Note::Dropped { authority: authority(boss(), 1, 1) });
        assert!(!ends(&[(3, 1, dropped.clone())], &[], true), "an entity that nobody serves");
        assert!(ends(&[(3, 1, dropped)], &[], false), "and nobody could");
    }
}
