//! What the relay asks of a bus that is away, and how fast it publishes what has piled up once the bus is back.

use std::collections::{BTreeMap, BTreeSet};
use worldline_proto::{EntityId, EntityKind, NodeId, OpId};
use worldline_scenarios::{
    catalogue,
    nodes::{Kind, Nodes},
    world::{self, Cast},
};
use worldline_sim::{Fault, World};
use worldline_system::{
    Outcome,
    doors::bus::{Answer, MessageId, Submission},
    history::{Completion, Entry, Invocation, What},
    limits,
    time::{Duration, Instant},
};

/// A world, and what is published in it.
struct Watched {
    world: World<Cast>,
    orchestrators: Vec<NodeId>,
    asked: BTreeMap<OpId, MessageId>,
    /// When an orchestrator asked for a publish, and when one of these was stored.
    relayed: Vec<Instant>,
    relayed_stored: Vec<Instant>,
    stored: BTreeSet<MessageId>,
}

impl Watched {
    fn run_until(&mut self, until: Instant) {
        self.world.run_until(until);
        let mut entries = Vec::new();
        self.world.drain_history(&mut entries);
        for Entry { at, node, what, .. } in entries {
            let relays = self.orchestrators.contains(&node);
            match what {
                What::Invoked(op, Invocation::Bus(Submission::Publish { message, .. })) => {
                    self.asked.insert(op, message);
                    if relays {
                        self.relayed.push(at);
                    }
                }
                What::Completed(op, completion) => {
                    let Completion::Bus(Answer::Published(Outcome::Done(_))) = *completion else { continue };
                    self.stored.insert(self.asked[&op]);
                    if relays {
                        self.relayed_stored.push(at);
                    }
                }
                _ => {}
            }
        }
    }
}

#[test]
fn a_bus_that_is_away_is_probed_and_what_has_piled_up_is_published_at_once_when_it_is_back() {
    const AWAY: Duration = Duration::from_secs(90);
    let mut scenario = catalogue::find("bus-down").expect("in the catalogue").expect("reads");
    scenario.faults.clear();
    scenario.regions[0].travellers = 30;
    let nodes = Nodes::of(&scenario);
    let bus = nodes.those(|kind| matches!(kind, Kind::Bus(_)));
    let mut watched = Watched {
        world: world::build(&scenario, &nodes, 1),
        orchestrators: nodes.those(|kind| matches!(kind, Kind::Orchestrator(_))),
        asked: BTreeMap::new(),
        relayed: Vec::new(),
        relayed_stored: Vec::new(),
        stored: BTreeSet::new(),
    };
    let gone = Instant::default() + Duration::from_secs(10);
    let back = gone + AWAY;
    watched.run_until(gone);
    for &node in &bus {
        watched.world.inject(Fault::Crash { node });
    }
    watched.relayed.clear();
    watched.run_until(back);

    let asked = watched.relayed.len();
    let probes = AWAY.as_nanos() / (limits::RELAY_RETRY_MAX.as_nanos() / 2) + 4;
    assert!(asked as u64 <= u64::from(limits::RELAY_PAGE) + probes, "{asked} publishes at a bus that is away");
    let probed = *watched.relayed.last().expect("it is probed");
    assert!(back.since(probed) <= limits::RELAY_RETRY_MAX + limits::BUS_PATIENCE, "it is probed to the end");

    for &node in &bus {
        watched.world.inject(Fault::Restart { node });
    }
    let known = std::mem::take(&mut watched.stored);
    watched.relayed_stored.clear();
    watched.run_until(back + Duration::from_secs(20));
    let first = watched.relayed_stored[0];
    assert!(first.since(back) <= limits::BUS_PATIENCE + limits::RELAY_RETRY_MAX + Duration::from_secs(2));
    let at_once = watched.relayed_stored.iter().filter(|at| at.since(first) <= Duration::from_secs(1)).count();
    let last = watched.relayed_stored[at_once - 1];
    println!("{at_once} facts stored {:?} to {:?} after the bus came back", first.since(back), last.since(back));
    assert!(at_once > 3 * usize::from(limits::RELAY_PAGE), "only {at_once} facts were relayed at once");
    watched.stored.extend(known);
    let newest = watched.stored.last().expect("some are").number;
    let missing = (1..newest).filter(|&number| !watched.stored.contains(&MessageId { number, entity: boss() })).count();
    assert_eq!(missing, 0, "of {newest} facts");
}

fn boss() -> EntityId {
    EntityId::new(EntityKind::Boss, 1).expect("in range")
}
