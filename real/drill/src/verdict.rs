//! What a drill has come to: everything that it has left behind, told to the judge in the order in which it happened.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use worldline_proto::{CharacterId, NodeId, OpNumber};
use worldline_real::ledger::Tables;
use worldline_reports::{Miss, RunResult};
use worldline_scenarios::{
    checkers::{Facts, LedgerRows, Services, View, WorkerState},
    format::Scenario,
    judge::{Judge, Ran},
    nodes::Nodes,
};
use worldline_system::{
    doors::ledger::{FactRow, StoredResult},
    history::{Acceptance, Entry, EventId, Row, What},
    time::Instant,
};

/// How the world stood at a moment, as far as whoever runs the drill can know.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Every worker, and whether it could serve.
    pub workers: Vec<WorkerState>,
    /// Whether the services could be used.
    pub services: Services,
}

/// Something that the judge is told besides the history.
#[derive(Clone, Debug)]
pub enum Told {
    /// The fault at this place of the scenario has come, and takes these nodes out.
    Began(usize, Vec<NodeId>),
    /// It was left out, or some of it, and why.
    Skipped(usize, String),
    /// A fault is over.
    Ended,
    /// All are over.
    Healed,
    /// How the world stood.
    Sampled(Sample),
}

/// All that a drill has left behind.
#[derive(Debug)]
pub struct Evidence<'a> {
    /// What was run.
    pub scenario: &'a Scenario,
    /// Its nodes.
    pub nodes: Arc<Nodes>,
    /// The seed.
    pub seed: u64,
    /// When it began, by the machine's clock: the zero of the entries' times.
    pub origin: Instant,
    /// When it was looked at for the last time, by the machine's clock. What came later belongs to its stop: it is checked, but
    /// nobody has to be served any more.
    pub ended: Instant,
    /// The one history.
    pub entries: &'a [Entry],
    /// What else there is to tell, by the machine's clock.
    pub told: &'a [(Instant, Told)],
    /// The ledger as it stood at the end.
    pub tables: &'a Tables,
    /// What is wrong that no checker sees.
    pub complaints: &'a [String],
}

impl Evidence<'_> {
    /// Tells the judge. The result, and the first entry that broke an invariant, if one did.
    #[must_use]
    pub fn judged(&self, wall_ns: u64, probes: BTreeMap<String, u64>) -> (RunResult, Option<Entry>) {
        let since = |at: Instant| Instant::default() + at.since(self.origin);
        let mut judge = Judge::new(self.scenario, Arc::clone(&self.nodes), self.seed);
        let mut told = self.told.iter().peekable();
        let (mut last, mut latest) = (EventId(0), None);
        let end = since(self.ended);
        let (run, stop) = self.entries.split_at(self.entries.partition_point(|entry| entry.at <= end));
        for entry in run {
            while let Some((at, told)) = told.next_if(|(at, _)| since(*at) <= entry.at) {
                tell(&mut judge, told, since(*at), last, &mut latest);
            }
            judge.on_entry(entry, &Facts::default());
            last = entry.event;
        }
        told.for_each(|(at, told)| tell(&mut judge, told, since(*at), last, &mut latest));
        if let Some(sample) = latest {
            let rows = Rows::new(self.tables, stop);
            judge.at_end(&View { ledger: Some(&rows), settled: true, ..view(sample, end, last) });
        }
        stop.iter().for_each(|entry| judge.on_stop(entry, &Facts::default()));
        for complaint in self.complaints {
            judge.missed(Miss { name: "process".to_owned(), sentence: complaint.clone() });
        }
        let violation = judge.violation();
        let line = violation.and_then(|violation| usize::try_from(violation.event.id).ok()?.checked_sub(1));
        let first = line.and_then(|line| self.entries.get(line)).cloned();
        let span_ns = self.ended.since(self.origin).as_nanos();
        let events = self.entries.len() as u64;
        let result = judge.result(Ran { seed: self.seed, hash: None, events, span_ns, wall_ns, probes });
        (result, first)
    }
}

fn tell<'t>(judge: &mut Judge<'_>, told: &'t Told, at: Instant, last: EventId, latest: &mut Option<&'t Sample>) {
    match told {
        Told::Began(index, lost) => judge.fault_began(*index, lost, at),
        Told::Skipped(index, why) => judge.fault_skipped(*index, why.clone()),
        Told::Ended => judge.fault_ended(at),
        Told::Healed => judge.healed(at),
        Told::Sampled(sample) => {
            judge.on_sample(&view(sample, at, last));
            *latest = Some(sample);
        }
    }
}

/// What a checker sees of a sample. Of queues and leaks nobody outside a process knows.
fn view(sample: &Sample, at: Instant, event: EventId) -> View<'_> {
    View {
        at,
        event,
        queues: &[],
        workers: &sample.workers,
        services: Some(sample.services),
        ledger: None,
        leaks: None,
        disturbed: false,
        settled: false,
    }
}

/// The ledger's tables as a checker reads them.
struct Rows<'a> {
    tables: &'a Tables,
    /// Operations that were applied while the world stopped: their facts stand in the tables, and not at the end.
    stopping: BTreeSet<(CharacterId, OpNumber)>,
}

impl<'a> Rows<'a> {
    fn new(tables: &'a Tables, stop: &[Entry]) -> Self {
        let applied = stop.iter().filter_map(|entry| match &entry.what {
            What::Accepted(Acceptance::OperationApplied { operation, .. }) => {
                Some((operation.character, operation.number))
            }
            _ => None,
        });
        Self { tables, stopping: applied.collect() }
    }
}

impl LedgerRows for Rows<'_> {
    fn each(&self, each: &mut dyn FnMut(&Row)) {
        self.tables.rows.iter().for_each(each);
    }

    fn applied_through(&self, character: CharacterId) -> Option<OpNumber> {
        self.tables.applied_through.iter().find(|(known, _)| *known == character).map(|(_, number)| *number)
    }

    fn result(&self, character: CharacterId, number: OpNumber) -> Option<StoredResult> {
        let results = &self.tables.results;
        results.iter().find(|(known, result)| *known == character && result.number == number).map(|(_, result)| *result)
    }

    fn each_fact(&self, each: &mut dyn FnMut(FactRow)) {
        let stopping = |fact: &&FactRow| !self.stopping.contains(&(fact.character, fact.number));
        self.tables.facts.iter().filter(stopping).copied().for_each(each);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::order::{Sources, merged};
    use worldline_proto::{EntityId, Epoch, Incarnation, LeaseId, Version};
    use worldline_reports::{Outcome, State};
    use worldline_scenarios::{catalogue, world};
    use worldline_system::{doors::ledger::Authority, history::Note};

    const SECOND: u64 = 1_000_000_000;
    const UP: Services = Services { directory: true, ledger: true, orchestrator: true };

    fn at(seconds: u64) -> Instant {
        Instant::from_nanos(seconds * SECOND)
    }

    fn scenario(name: &str) -> Scenario {
        catalogue::find(name).expect("in the catalogue").expect("reads")
    }

    /// A worker claims an entity and serves it; the ledger accepts a checkpoint under this lease.
    fn history(scenario: &Scenario, writer: u64) -> Vec<Entry> {
        let authority = |lease| Authority {
            entity: world::seeds(scenario)[0].entity,
            epoch: Epoch(1),
            lease: LeaseId::from_bits(lease),
        };
        let journal = vec![
            (at(11), Acceptance::FenceRaised { authority: authority(7), before: None }),
            (at(13), Acceptance::Checkpointed { authority: authority(writer), version: Version(1) }),
        ];
        let own = vec![(at(12), NodeId(8), Incarnation(1), What::Started)];
        merged(Sources { origin: at(10), journal, own, ..Sources::default() })
    }

    /// The ledger as the scenario begins with it.
    fn tables(scenario: &Scenario) -> Tables {
        let balances = world::seeds(scenario).into_iter().map(|seed| Row {
            entity: seed.entity,
            fence: None,
            hit_points: seed.hit_points,
            experience: 0,
            balance: seed.balance,
        });
        Tables { rows: balances.collect(), ..Tables::default() }
    }

    fn judged(name: &str, writer: u64, told: &[(Instant, Told)], complaints: &[String]) -> (RunResult, Option<Entry>) {
        let scenario = scenario(name);
        let entries = history(&scenario, writer);
        let tables = tables(&scenario);
        let evidence = Evidence {
            scenario: &scenario,
            nodes: Arc::new(Nodes::of(&scenario)),
            seed: 1,
            origin: at(10),
            ended: at(20),
            entries: &entries,
            told,
            tables: &tables,
            complaints,
        };
        evidence.judged(SECOND, BTreeMap::new())
    }

    fn state(run: &RunResult, id: &str) -> State {
        run.verdicts.iter().find(|verdict| verdict.id == id).expect("checked or not").state.clone()
    }

    #[test]
    fn a_write_by_another_lease_is_found_with_the_line_that_shows_it() {
        let (run, first) = judged("swing", 7, &[], &[]);
        assert_eq!((run.outcome(), state(&run, "O1"), first), (Outcome::Held, State::Held, None));
        let (run, first) = judged("swing", 8, &[], &[]);
        assert_eq!((run.outcome(), state(&run, "O1")), (Outcome::Broken, State::Broken));
        let first = first.expect("a line");
        assert_eq!((first.event, first.at), (EventId(3), at(3)));
        assert!(matches!(first.what, What::Accepted(Acceptance::Checkpointed { .. })));
    }

    #[test]
    fn what_is_written_while_the_world_stops_is_checked_too() {
        let scenario = scenario("swing");
        let entries = history(&scenario, 8);
        let told = [(at(11), Told::Sampled(Sample { workers: Vec::new(), services: UP }))];
        let evidence = Evidence {
            scenario: &scenario,
            nodes: Arc::new(Nodes::of(&scenario)),
            seed: 1,
            origin: at(10),
            // Before the checkpoint of another lease.
            ended: at(12),
            entries: &entries,
            told: &told,
            tables: &tables(&scenario),
            complaints: &[],
        };
        let (run, first) = evidence.judged(SECOND, BTreeMap::new());
        assert_eq!((run.outcome(), state(&run, "O1"), run.entries), (Outcome::Broken, State::Broken, 3));
        assert_eq!(first.expect("a line").event, EventId(3));
    }

    #[test]
    fn what_nobody_can_see_from_outside_is_not_checked() {
        let told = [(at(15), Told::Sampled(Sample { workers: Vec::new(), services: UP }))];
        let (run, _) = judged("swing", 7, &told, &[]);
        for id in ["L1", "L4", "O9"] {
            assert!(matches!(state(&run, id), State::NotChecked(_)), "{id}");
        }
        // Nobody played: that is a miss, and no invariant's.
        assert_eq!(run.outcome(), Outcome::Missed);
    }

    #[test]
    fn a_process_that_ended_badly_and_a_fault_that_was_left_out_are_told() {
        let sampled = || Told::Sampled(Sample { workers: Vec::new(), services: UP });
        let told = [(at(12), Told::Skipped(0, "no clock of its own".into())), (at(15), sampled())];
        let (run, _) = judged("worker-crash", 7, &told, &["worker:x ended by itself".into()]);
        assert_eq!(run.skipped().len(), 1);
        assert!(run.misses.iter().any(|miss| miss.name == "process"));
        assert!(run.misses.iter().all(|miss| miss.name != "fault" && miss.name != "failover"), "{:?}", run.misses);
    }

    #[test]
    fn the_crash_of_a_process_stands_where_it_happened() {
        let scenario = scenario("worker-crash");
        let entity: EntityId = world::seeds(&scenario)[0].entity;
        let note = |node, lease, epoch| {
            let authority = Authority { entity, epoch: Epoch(epoch), lease: LeaseId::from_bits(lease) };
            let serving = Note::Serving { authority, position: Default::default(), applied_through: OpNumber(0) };
            (NodeId(node), Incarnation(1), What::Noted(serving))
        };
        let own = [(11, note(8, 7, 1)), (16, note(9, 8, 2))];
        let own = own.map(|(seconds, (node, life, what))| (at(seconds), node, life, what)).to_vec();
        let crashed = (at(12), NodeId(8), Incarnation(1), What::Crashed);
        let own = own.into_iter().chain([crashed]).collect();
        let entries = merged(Sources { origin: at(10), own, ..Sources::default() });
        let order: Vec<_> = entries.iter().map(|entry| entry.node).collect();
        assert_eq!(order, [NodeId(8), NodeId(8), NodeId(9)], "the crash stands where it happened");
    }
}
