//! One drill: a seed of a scenario on real processes, from a new folder to a result.
//!
//! The scenario's clock begins when the players are started. All faults are healed at its `duration`; after `settle` the
//! world is looked at for the last time, and only then stopped.

use crate::{
    bus,
    clocks::WallClock,
    faults::{Come, Counts, Plan, Service, done_on_links},
    histories::{lives, unwritten, write_merged},
    kept,
    order::{self, Sources},
    present::Present,
    processes::Failed,
    stage::Folder,
    verdict::{Evidence, Sample, Told},
    world::{Programs, World},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};
use worldline_proto::{Incarnation, NodeId};
use worldline_real::{clock, ledger};
use worldline_reports::{Miss, RunResult};
use worldline_scenarios::{
    format::Scenario,
    inject::{self, Impaired, Injection},
    run::{self, LOOK_AGAIN, SAMPLE_EVERY},
};
use worldline_system::{
    history::{Entry, What},
    time::{self, Duration},
};

/// What a drill has come to.
#[derive(Debug)]
pub struct Drilled {
    /// The result.
    pub result: RunResult,
    /// What was done and seen, in words.
    pub log: Vec<String>,
    /// The first entry of the history that broke an invariant, if one did.
    pub first: Option<Entry>,
    /// Where histories and logs are, if they were kept.
    pub folder: Option<PathBuf>,
}

/// What is done, in the order in which it is done at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Action {
    EndFault(usize),
    BeginFault(usize),
    WatchPrimary,
    Heal,
    Sample,
    Finish,
}

/// A drill that goes on.
struct Drill<'a> {
    scenario: &'a Scenario,
    folder: &'a Folder,
    world: World<'a>,
    agenda: BTreeSet<(Duration, Action)>,
    going_on: BTreeMap<usize, GoingOn>,
    /// Faults that came and did nothing, in words.
    in_vain: Vec<String>,
    wall: WallClock,
    told: Vec<(time::Instant, Told)>,
    log: Vec<String>,
    /// When the players were started.
    began: (Instant, time::Instant),
}

/// A fault that goes on.
struct GoingOn {
    plan: Plan,
    injection: Injection,
    /// What had gone wrong on the links when it came.
    before: Counts,
}

/// What is to be run.
#[derive(Clone, Copy, Debug)]
pub struct Order<'a> {
    /// Which scenario.
    pub scenario: &'a Scenario,
    /// Which seed of it.
    pub seed: u64,
    /// With which programs.
    pub programs: Programs<'a>,
    /// Whether histories and logs are kept though all held.
    pub keep: bool,
    /// Whether each member of directory, ledger and bus is a process of its own.
    pub cluster: bool,
}

/// How often the ledger's primary is looked after: as often as in the simulator.
const PULSE: Duration = Duration::from_millis(500);

/// Runs one seed of a scenario on real processes. `watched` is told what happens. It ends early when `stop` says so, with
/// nothing left running.
///
/// # Errors
/// It could not be run, or what it left behind cannot be read.
pub async fn drill(
    order: Order<'_>,
    mut stop: watch::Receiver<bool>,
    watched: &dyn Fn(&str),
) -> Result<Drilled, Failed> {
    let folder = Folder::create(&order.scenario.name, order.seed)?;
    let path = folder.path().to_owned();
    let keep = order.keep;
    let drilled = tokio::select! {
        biased;
        // Who can tell of a stop no more will not.
        Ok(_) = stop.wait_for(|stop| *stop) => Err(Failed::Interrupted),
        drilled = in_folder(order, &folder, watched) => drilled,
    };
    let held = drilled.as_ref().is_ok_and(|drilled| drilled.result.outcome() == worldline_reports::Outcome::Held);
    let interrupted = matches!(drilled, Err(Failed::Interrupted));
    if keep || !held && !interrupted {
        let name = &order.scenario.name;
        let kept = if held { Ok(path.clone()) } else { kept::keep(&path, name, order.seed) };
        let kept = kept.unwrap_or_else(|error| {
            watched(&format!("what it left behind could not be moved to the reports: {error}"));
            path.clone()
        });
        if drilled.is_err() {
            watched(&format!("what it left behind is in {}", kept.display()));
        }
        return drilled.map(|drilled| moved(drilled, &path, kept));
    }
    folder.remove()?;
    drilled
}

/// What it says of files, it says of where they are now.
fn moved(mut drilled: Drilled, from: &Path, to: PathBuf) -> Drilled {
    let (was, is) = (from.display().to_string(), to.display().to_string());
    for miss in &mut drilled.result.misses {
        miss.sentence = miss.sentence.replace(&was, &is);
    }
    drilled.folder = Some(to);
    drilled
}

async fn in_folder(order: Order<'_>, folder: &Folder, watched: &dyn Fn(&str)) -> Result<Drilled, Failed> {
    let Order { scenario, seed, programs, cluster, .. } = order;
    let begun = Instant::now();
    let origin = clock::now();
    watched("starting services and processes");
    let world = World::start(scenario, seed, folder, programs, cluster).await?;
    watched(&format!(
        "{} processes on {} links are ready after {:.1} s",
        world.processes(),
        world.links.len(),
        begun.elapsed().as_secs_f64()
    ));
    let mut drill = Drill {
        scenario,
        folder,
        world,
        agenda: agenda(scenario, seed),
        going_on: BTreeMap::new(),
        in_vain: Vec::new(),
        wall: WallClock::default(),
        told: Vec::new(),
        log: Vec::new(),
        began: (Instant::now(), clock::now()),
    };
    drill.wall.look();
    drill.world.start_players()?;
    drill.play(watched).await?;
    let ended = clock::now();
    let tables = ledger::tables(&drill.world.ledger_url()).await;
    let tables = tables.map_err(|problem| Failed::History(problem.to_string()))?;
    let probes = drill.world.probes().await;
    watched("stopping");
    drill.world.stop().await;
    drill.wall.look();
    let journal = ledger::journal(&drill.world.ledger_url()).await;
    let journal = journal.map_err(|problem| Failed::History(problem.to_string()))?;
    let journal = journal.into_iter().map(|(wall, accepted)| Ok((drill.wall.monotonic(wall)?, accepted)));
    let journal = journal.collect::<Result<Vec<_>, Failed>>()?;
    let stream = bus::stored(&drill.world.bus()).await?;
    let stream = stream.into_iter().map(|(wall, stored)| Ok((drill.wall.monotonic(wall)?, stored)));
    let stream = stream.collect::<Result<Vec<_>, Failed>>()?;
    let written = ledger::tables(&drill.world.ledger_url()).await;
    let written = written.map_err(|problem| Failed::History(problem.to_string()))?.facts;
    let directory = drill.world.directory.complete().await?;
    drill.world.stop_services(folder)?;
    let left = drill.world.left_behind(folder);
    drill.world.complaints.extend(left);
    let lives = lives(folder)?;
    let short = unwritten(&lives, &drill.world.started);
    if let Some((node, why)) = short {
        return Err(Failed::History(format!("the history of {} is incomplete: {why}", drill.world.nodes.name(node))));
    }
    let same = bus::compared(stream.iter().map(|(_, stored)| stored), &written);
    drill.note(watched, same.as_ref().unwrap_or_else(|differs| differs));
    let members = &drill.world.members;
    let sinks = [Service::Directory, Service::Ledger, Service::Bus]
        .map(|service| members.stand_in(service).unwrap_or_default());
    let own = std::mem::take(&mut drill.world.seen);
    let entries = order::merged(Sources { origin, lives, own, directory, journal, stream, sinks });
    write_merged(folder, &entries)?;
    watched(&format!("judging {} lines of history", entries.len()));
    let evidence = Evidence {
        scenario,
        nodes: Arc::clone(&drill.world.nodes),
        seed,
        origin,
        ended,
        entries: &entries,
        told: &drill.told,
        tables: &tables,
        complaints: &drill.world.complaints,
    };
    let wall_ns = u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
    let (mut result, first) = evidence.judged(wall_ns, probes);
    let in_vain = drill.in_vain.into_iter();
    result.misses.extend(in_vain.map(|sentence| Miss { name: "fault".to_owned(), sentence }));
    result.misses.extend(same.err().map(|sentence| Miss { name: "stream".to_owned(), sentence }));
    Ok(Drilled { result, log: drill.log, first, folder: None })
}

fn agenda(scenario: &Scenario, seed: u64) -> BTreeSet<(Duration, Action)> {
    let mut agenda = BTreeSet::new();
    for index in 0..scenario.faults.len() {
        agenda.insert((run::fault_moment(scenario, index, seed), Action::BeginFault(index)));
    }
    agenda.insert((scenario.duration, Action::Heal));
    agenda.insert((scenario.duration + scenario.settle, Action::Finish));
    agenda.insert((SAMPLE_EVERY, Action::Sample));
    agenda.insert((PULSE, Action::WatchPrimary));
    agenda
}

impl Drill<'_> {
    /// Does what is on the agenda, and meanwhile takes in what servers come to that were asked for: nothing waits for them.
    async fn play(&mut self, watched: &dyn Fn(&str)) -> Result<(), Failed> {
        let transactions = Arc::clone(self.world.links.transactions());
        while let Some(&(at, action)) = self.agenda.first() {
            tokio::select! {
                biased;
                due = transactions.due() => self.world.end_between_transactions(due, self.folder).await?,
                done = self.world.next_done() => done?,
                () = sleep_until(self.began.0 + std::time::Duration::from_nanos(at.as_nanos())) => {
                    self.agenda.pop_first();
                    self.perform(at, action, watched).await?;
                }
            }
            for what in std::mem::take(&mut self.world.news) {
                self.note(watched, &what);
            }
        }
        Ok(())
    }

    async fn perform(&mut self, at: Duration, action: Action, watched: &dyn Fn(&str)) -> Result<(), Failed> {
        match action {
            Action::BeginFault(index) => self.begin_fault(at, index, watched).await?,
            Action::EndFault(index) => self.end_fault(index, watched).await?,
            Action::WatchPrimary => {
                self.world.watch_primary().await;
                self.agenda.insert((self.since_began() + PULSE, Action::WatchPrimary));
            }
            Action::Heal => {
                for (index, going_on) in std::mem::take(&mut self.going_on) {
                    self.say_what_it_did(index, &going_on, watched);
                }
                // As in the simulator: from when it is done, not from when that has taken effect.
                self.tell(Told::Healed);
                self.world.heal();
                self.note(watched, "everything is healed");
            }
            Action::Sample => {
                self.world.look_around(self.folder);
                self.wall.look();
                self.sample();
                self.agenda.insert((self.since_began() + SAMPLE_EVERY, Action::Sample));
            }
            Action::Finish => {
                self.world.all_done().await?;
                self.world.look_for_who_does_not_follow().await;
                self.sample();
                self.agenda.clear();
            }
        }
        Ok(())
    }

    fn since_began(&self) -> Duration {
        clock::now().since(self.began.1)
    }

    fn tell(&mut self, told: Told) {
        self.told.push((clock::now(), told));
    }

    fn note(&mut self, watched: &dyn Fn(&str), what: &str) {
        let line = format!("{:5.1} s  {what}", self.since_began().as_nanos() as f64 / 1e9);
        watched(&line);
        self.log.push(line);
    }

    async fn begin_fault(&mut self, at: Duration, index: usize, watched: &dyn Fn(&str)) -> Result<(), Failed> {
        let fault = &self.scenario.faults[index];
        let meant = |present: &Present| inject::injection(index, &fault.kind, &self.world.nodes, present);
        // Etcd is asked only for who leads or owns: it may be gone, and whoever else is meant is known without it.
        let injection = match meant(&self.world.present_without_records()) {
            None => meant(&self.world.present().await),
            known => known,
        };
        let Some(injection) = injection else {
            let again = self.since_began().max(at) + LOOK_AGAIN;
            if again < self.scenario.duration {
                self.agenda.insert((again, Action::BeginFault(index)));
            }
            return Ok(());
        };
        let plan = self.world.members.plan(&self.world.nodes, &injection);
        let (now, before) = (clock::now(), self.world.links.counts());
        let (place, mut done) = (self.world.seen.len(), Vec::new());
        for deed in &plan.begin {
            done.push((deed.clone(), self.world.act(deed, self.folder).await?));
        }
        let come = Come::of(done, &injection.lost);
        let left_out = [&plan.skipped[..], &come.missed].concat();
        for why in &left_out {
            self.note(watched, &format!("fault {} skipped: {why}", index + 1));
        }
        if !left_out.is_empty() {
            self.told.push((now, Told::Skipped(index, left_out.join("; "))));
        }
        if come.hit.is_empty() {
            return Ok(());
        }
        // It stands before what it has done.
        self.told.push((now, Told::Began(index, come.lost)));
        let mark = u32::try_from(index + 1).unwrap_or(u32::MAX);
        self.world.seen.insert(place, (now, NodeId(0), Incarnation(0), What::FaultInjected(mark)));
        for deed in &come.hit {
            self.note(watched, &format!("fault {}: {}", index + 1, deed.told(&self.world.nodes)));
        }
        if let Some(lasts) = fault.lasts {
            self.agenda.insert((self.since_began().max(at) + lasts, Action::EndFault(index)));
        }
        self.going_on.insert(index, GoingOn { plan, injection, before });
        Ok(())
    }

    /// What a fault has done on the links, now that it is over. One that did nothing was not provoked.
    fn say_what_it_did(&mut self, index: usize, going_on: &GoingOn, watched: &dyn Fn(&str)) {
        let after = self.world.links.counts();
        for (what, nothing) in done_on_links(&going_on.plan, going_on.before, after) {
            let sentence = format!("fault {} {what}", index + 1);
            self.note(watched, &sentence);
            if nothing {
                self.in_vain.push(sentence);
            }
        }
    }

    async fn end_fault(&mut self, index: usize, watched: &dyn Fn(&str)) -> Result<(), Failed> {
        let Some(going_on) = self.going_on.remove(&index) else { return Ok(()) };
        // As in the simulator: from when its end is brought about, not from when that has taken effect.
        self.tell(Told::Ended);
        for deed in &going_on.plan.end {
            self.world.act(deed, self.folder).await?;
        }
        self.say_what_it_did(index, &going_on, watched);
        self.note(watched, &format!("fault {} is over", index + 1));
        Ok(())
    }

    fn sample(&mut self) {
        let (mut unwell, mut impaired) = (BTreeSet::new(), Impaired::default());
        for GoingOn { plan, injection, .. } in self.going_on.values().filter(|going_on| !going_on.plan.end.is_empty()) {
            debug_assert!(!plan.begin.is_empty(), "what is left out does not go on");
            unwell.extend(&injection.unwell);
            impaired.directory |= injection.services.directory;
            impaired.ledger |= injection.services.ledger;
        }
        let workers = self.world.workers(&unwell);
        let services = self.world.usable(&unwell, impaired);
        self.tell(Told::Sampled(Sample { workers, services }));
    }
}
