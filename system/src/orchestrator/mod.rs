//! The orchestrator: one of several leads, by a key in the directory that goes with its lease. The leader scans for
//! entities without a living owner and assigns them to workers of their home region.
//!
//! A region without any worker is decided to be *down*: the decision is a record in the directory that names the region which
//! serves its entities meanwhile, so that the next leader carries it on. It ends when the region has a worker again; what
//! went elsewhere stays there until its owner there is gone.
//!
//! Everything it decides is one compare-and-set: each record unchanged, the old owner's key absent, the new owner's present,
//! its own leader key unchanged. So two leaders, a late packet or a lost answer can do nothing that one would not.
//!
//! Who does not lead keeps the roster at hand, so that it can lead while the ledger does not answer.
//!
//! The leader also relays facts that their owners have not published (`relay`).
//!
//! Deliberately absent: watch events. What is found by scanning cannot be missed.

mod plan;
mod relay;
mod telemetry;

use crate::{
    Outcome, Role, Turn,
    doors::{
        Asked, bus,
        clock::TimerKey,
        directory::{
            self, Answer, Compare, Consistency, Family, Key, Page, RegionId, Transacted, Transaction, Value, Write,
        },
        ledger,
        telemetry::{Label, Metric},
    },
    history::Note,
    knobs::Knobs,
    lease::{Holder, LeaseTimes, News},
    limits, maybe, reached,
    role::role_sums,
    rules::space::Map,
    time::{Duration, Instant},
};
use alloc::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    vec,
    vec::Vec,
};
use plan::{Assignment, Decision, Survey};
use relay::Relay;
use worldline_proto::{EntityId, LeaseId, OpId, Revision};

role_sums! {
    Directory(directory::Event, Asked<directory::Submission>),
    Ledger(ledger::Event, Asked<ledger::Submission>),
    Bus(bus::Event, Asked<bus::Submission>),
}

/// Takeover transactions at once; the rest waits for the next round.
const TAKEOVERS: usize = 16;
/// How often the leader reads the roster again: new characters are assigned within this.
const ROSTER_PERIOD: Duration = Duration::from_secs(10);

/// What an orchestrator is told before it starts.
#[derive(Clone, Debug)]
pub struct Config {
    /// The world's content.
    pub map: Arc<Map>,
    /// Of its lease.
    pub lease: LeaseTimes,
    /// Its periods.
    pub knobs: Knobs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Timer {
    /// The next renewal of the lease.
    Lease,
    /// The next round: a campaign, or a scan.
    Round,
    /// The next sweep of the outbox.
    Relay,
}

impl From<Timer> for TimerKey {
    fn from(timer: Timer) -> Self {
        match timer {
            Timer::Lease => Self::new(0, 0),
            Timer::Round => Self::new(1, 0),
            Timer::Relay => Self::new(2, 0),
        }
    }
}

/// An orchestrator.
#[derive(Clone, Debug)]
pub struct Orchestrator {
    config: Config,
    holder: Option<Holder>,
    /// The revision of its own leader key, while it leads.
    leads: Option<Revision>,
    /// Another one led when it last campaigned.
    follows: bool,
    step: Step,
    survey: Survey,
    roster: BTreeMap<EntityId, ledger::RosterEntry>,
    roster_read_at: Option<Instant>,
    /// What reads the roster while another one leads.
    reading_ahead: Option<OpId>,
    /// Dead leases that the history knows of already.
    found_dead: BTreeSet<LeaseId>,
    /// Since when regions have been found without a worker.
    lost_since: BTreeMap<RegionId, Instant>,
    /// Where the workers are, or were, that records name.
    regions: BTreeMap<LeaseId, RegionId>,
    decisions: BTreeMap<OpId, (RegionId, Decision)>,
    /// With when each was submitted.
    takeovers: BTreeMap<OpId, (Instant, Vec<Assignment>)>,
    /// Records in a takeover: halved when one fails, whole again when one succeeds.
    chunk: usize,
    relay: Relay,
}

/// What a round waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Idle,
    Campaign(OpId),
    Roster(OpId),
    Regions(OpId),
    Workers(OpId),
    Owners(OpId),
}

impl Orchestrator {
    /// An orchestrator before its first event.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self {
            config,
            holder: None,
            leads: None,
            follows: false,
            step: Step::Idle,
            survey: Survey::default(),
            roster: BTreeMap::new(),
            roster_read_at: None,
            reading_ahead: None,
            found_dead: BTreeSet::new(),
            lost_since: BTreeMap::new(),
            regions: BTreeMap::new(),
            decisions: BTreeMap::new(),
            takeovers: BTreeMap::new(),
            chunk: limits::TAKEOVER_RECORDS,
            relay: Relay::default(),
        }
    }

    /// Whether it holds a lease that stands at `now`, and so can lead.
    #[must_use]
    pub fn can_lead(&self, now: Instant) -> bool {
        self.holder.as_ref().is_some_and(|holder| holder.may_act(now))
    }

    /// Whether it believes that it leads.
    #[must_use]
    pub const fn leads(&self) -> bool {
        self.leads.is_some()
    }

    fn join(&mut self, turn: &mut Turn<'_, Submission>) {
        self.holder = Some(Holder::begin(self.config.lease, self.config.knobs, Timer::Lease.into(), turn));
        turn.arm_in(Timer::Round, self.config.knobs.scan_every);
    }

    fn lease(&self, now: Instant) -> Option<LeaseId> {
        self.holder.as_ref().filter(|holder| holder.may_act(now)).map(Holder::lease)
    }

    /// Begins a round: a leader surveys, anyone else campaigns.
    fn on_round(&mut self, turn: &mut Turn<'_, Submission>) {
        turn.arm_in(Timer::Round, self.config.knobs.scan_every);
        let Some(lease) = self.lease(turn.now()) else {
            self.step = Step::Idle;
            return self.deposed(turn);
        };
        if self.step != Step::Idle {
            return;
        }
        if self.leads.is_none() {
            return self.campaign(lease, turn);
        }
        self.begin_survey(turn);
    }

    fn roster_is_fresh(&self, now: Instant) -> bool {
        self.roster_read_at.is_some_and(|read| now.since(read) < ROSTER_PERIOD)
    }

    /// Surveys, with a roster that is fresh if the ledger answers.
    fn begin_survey(&mut self, turn: &mut Turn<'_, Submission>) {
        if self.roster_is_fresh(turn.now()) {
            self.survey(turn);
        } else {
            self.step = Step::Roster(ask_roster(None, turn));
        }
    }

    fn campaign(&mut self, lease: LeaseId, turn: &mut Turn<'_, Submission>) {
        let value = Value::Leader(directory::Leader { node: turn.node(), lease });
        let transaction = Transaction {
            compares: vec![Compare::Absent(Key::Leader)],
            writes: vec![Write::Put { key: Key::Leader, value, lease: Some(lease) }],
            otherwise: vec![Key::Leader],
        };
        let submission = directory::Submission::Transact(Arc::new(transaction));
        self.step = Step::Campaign(turn.directory(submission, limits::DIRECTORY_PATIENCE));
    }

    fn on_campaign(&mut self, outcome: Outcome<Transacted>, turn: &mut Turn<'_, Submission>) {
        self.step = Step::Idle;
        let Some(lease) = self.lease(turn.now()) else { return };
        // `Unknown` may have won: the next campaign then finds its own name under the key.
        let Outcome::Done(transacted) = outcome else { return };
        let own = |value| matches!(value, Value::Leader(leader) if leader.lease == lease);
        let won = if transacted.succeeded {
            Some(transacted.revision)
        } else {
            transacted.otherwise.iter().find(|record| own(record.value)).map(|record| record.mod_revision)
        };
        if let Some(revision) = won {
            self.leads = Some(revision);
            self.reading_ahead = None;
            self.found_dead.clear();
            self.lost_since.clear();
            turn.gauge(Metric::OrchestratorLeads, &[], 1);
            turn.note(Note::Elected { lease });
            if core::mem::take(&mut self.follows) {
                reached!(turn, "orchestrator.succession");
            }
            turn.arm_in(Timer::Relay, limits::RELAY_PERIOD);
            self.begin_survey(turn);
        } else {
            self.follows = true;
            // What takes the leader may take the ledger with it: its successor must know what there is to assign.
            if self.reading_ahead.is_none() && !self.roster_is_fresh(turn.now()) {
                self.reading_ahead = Some(ask_roster(None, turn));
            }
        }
    }

    fn deposed(&mut self, turn: &mut Turn<'_, Submission>) {
        if self.leads.take().is_some() {
            turn.gauge(Metric::OrchestratorLeads, &[], 0);
            turn.disarm(Timer::Relay);
            self.relay.stop();
            reached!(turn, "orchestrator.lost-leadership");
            if let Some(holder) = &self.holder {
                turn.note(Note::Deposed { lease: holder.lease() });
            }
        }
    }

    fn on_relay_period(&mut self, turn: &mut Turn<'_, Submission>) {
        if self.leads() {
            turn.arm_in(Timer::Relay, limits::RELAY_PERIOD);
            self.relay.on_period(turn);
        }
    }

    fn on_ledger(&mut self, op: OpId, answer: ledger::Answer, turn: &mut Turn<'_, Submission>) {
        match answer {
            ledger::Answer::Roster(outcome) if self.step == Step::Roster(op) => self.on_roster(outcome, turn),
            ledger::Answer::Roster(outcome) if self.reading_ahead == Some(op) => self.on_roster_ahead(outcome, turn),
            ledger::Answer::Unpublished(outcome) => self.relay.on_swept(op, outcome, turn),
            ledger::Answer::Flagged(outcome) => self.relay.on_flagged(op, &outcome, turn),
            _ => {}
        }
    }

    fn on_roster(&mut self, outcome: Outcome<ledger::Roster>, turn: &mut Turn<'_, Submission>) {
        let Outcome::Done(page) = outcome else {
            // A read: the next round tries again, or goes on with the roster it has.
            self.step = Step::Idle;
            if !self.roster.is_empty() {
                self.survey(turn);
            }
            return;
        };
        match self.take_in_roster(page, turn.now()) {
            Some(last) => self.step = Step::Roster(ask_roster(Some(last), turn)),
            None => self.survey(turn),
        }
    }

    /// A page came while another one leads. Without one the next campaign asks again.
    fn on_roster_ahead(&mut self, outcome: Outcome<ledger::Roster>, turn: &mut Turn<'_, Submission>) {
        let next = match outcome {
            Outcome::Done(page) => self.take_in_roster(page, turn.now()),
            Outcome::Refused(_) | Outcome::Unknown => None,
        };
        self.reading_ahead = next.map(|last| ask_roster(Some(last), turn));
    }

    /// Behind which entity the roster goes on. `None`: it is complete.
    fn take_in_roster(&mut self, page: ledger::Roster, now: Instant) -> Option<EntityId> {
        let last = page.entries.last().map(|entry| entry.entity).filter(|_| page.more);
        self.roster.extend(page.entries.into_iter().map(|entry| (entry.entity, entry)));
        if last.is_none() {
            self.roster_read_at = Some(now);
        }
        last
    }

    /// Reads which regions are down, and then, at the same revision, all workers and all ownership records.
    fn survey(&mut self, turn: &mut Turn<'_, Submission>) {
        self.survey = Survey::default();
        self.step = Step::Regions(read(Family::Regions, None, None, turn));
    }

    fn on_page(&mut self, family: Family, outcome: Outcome<Page>, turn: &mut Turn<'_, Submission>) {
        self.step = Step::Idle;
        // A read leaves nothing behind: the next round tries again.
        let Outcome::Done(page) = outcome else { return };
        let at = *self.survey.at.get_or_insert(page.revision);
        self.survey.take_in(&page.records);
        let last = page.records.last().filter(|_| page.more).map(|record| record.key);
        let (next, after) = match (family, last) {
            (Family::Regions, None) => (Family::Workers, None),
            (Family::Workers, None) => (Family::Owners, None),
            (family, Some(last)) => (family, Some(last)),
            (_, None) => return self.assign(turn),
        };
        let op = read(next, after, Some(at), turn);
        self.step = match next {
            Family::Regions => Step::Regions(op),
            Family::Workers => Step::Workers(op),
            _ => Step::Owners(op),
        };
    }

    /// Submits the takeovers that the survey calls for.
    fn assign(&mut self, turn: &mut Turn<'_, Submission>) {
        let (Some(leader_revision), Some(_)) = (self.leads, self.lease(turn.now())) else { return };
        let dead = self.survey.dead();
        self.survey.remember_regions(&mut self.regions);
        self.found_dead.retain(|lease| dead.contains_key(lease));
        for (lease, orphans) in dead {
            if self.found_dead.insert(lease) {
                turn.count(Metric::WorkerFailuresTotal, &[self.region_of(lease)], 1);
                turn.note(Note::FoundDead { lease, orphans });
            }
        }
        self.decide_regions(leader_revision, turn);
        let assignments = self.survey.assignments(&self.config.map, &self.roster);
        for group in assignments.chunk_by(|a, b| a.kind() == b.kind()) {
            for chunk in group.chunks(self.chunk) {
                if self.takeovers.len() >= TAKEOVERS {
                    return;
                }
                self.take_over(chunk, leader_revision, turn);
                // As a plan would that was made before the first answer: the second finds that the records have moved on.
                if maybe!(turn, "orchestrator.ask-twice") && self.takeovers.len() < TAKEOVERS {
                    self.take_over(chunk, leader_revision, turn);
                }
            }
        }
    }

    fn take_over(&mut self, chunk: &[Assignment], leader: Revision, turn: &mut Turn<'_, Submission>) {
        let transaction = plan::takeover(chunk, leader, turn.entropy());
        let submission = directory::Submission::Transact(Arc::new(transaction));
        let op = turn.directory(submission, limits::DIRECTORY_PATIENCE);
        self.takeovers.insert(op, (turn.now(), chunk.to_vec()));
    }

    /// Submits what is to be decided about regions: one decision a region at a time. A region has no worker for a while before
    /// it is down; that it has one again counts at once.
    fn decide_regions(&mut self, leader: Revision, turn: &mut Turn<'_, Submission>) {
        let (map, now) = (Arc::clone(&self.config.map), turn.now());
        let lost = self.survey.lost_regions(&map, &self.roster);
        self.lost_since.retain(|region, _| lost.contains_key(region));
        for region in (0..map.regions()).map(RegionId) {
            let long = lost
                .get(&region)
                .is_some_and(|&grace| now.since(*self.lost_since.entry(region).or_insert(now)) >= grace);
            let under_way = self.decisions.values().any(|(of, _)| *of == region);
            let Some(decision) = self.survey.decision(region, long, &map).filter(|_| !under_way) else { continue };
            let submission = directory::Submission::Transact(Arc::new(plan::decide(region, decision, leader)));
            let op = turn.directory(submission, limits::DIRECTORY_PATIENCE);
            self.decisions.insert(op, (region, decision));
        }
    }

    /// A decision stands, or does not, or may: the next survey reads what there is.
    fn on_decided(
        &mut self,
        region: RegionId,
        decision: Decision,
        outcome: Outcome<Transacted>,
        turn: &mut Turn<'_, Submission>,
    ) {
        match (outcome, decision) {
            (Outcome::Done(Transacted { succeeded: true, .. }), Decision::StandIn(stand_in, _)) => {
                reached!(turn, "orchestrator.region-down");
                turn.note(Note::RegionDown { region, stand_in });
                if self.step == Step::Idle {
                    self.survey(turn);
                }
            }
            (Outcome::Done(Transacted { succeeded: true, .. }), Decision::Back(_)) => {
                reached!(turn, "orchestrator.region-back");
                turn.note(Note::RegionBack { region });
            }
            (Outcome::Done(_) | Outcome::Unknown | Outcome::Refused(_), _) => {}
        }
    }

    fn on_takeover(&mut self, assigned: &[Assignment], outcome: Outcome<Transacted>, turn: &mut Turn<'_, Submission>) {
        match outcome {
            Outcome::Done(transacted) if transacted.succeeded => {
                reached!(turn, "orchestrator.takeover");
                self.chunk = limits::TAKEOVER_RECORDS;
                for assignment in assigned {
                    let Assignment { entity, from, to, .. } = *assignment;
                    self.count_migration(assignment, turn);
                    turn.note(Note::TookOver { entity, from: from.map(|(lease, _)| lease), to });
                }
            }
            Outcome::Done(transacted) => {
                reached!(turn, "orchestrator.takeover-lost-race");
                // One record that has moved on must not hold up the others for long.
                self.chunk = (self.chunk / 2).max(1);
                let lease = self.lease(turn.now());
                let still = |value| matches!(value, Value::Leader(leader) if Some(leader.lease) == lease);
                if !transacted.otherwise.iter().any(|record| still(record.value)) {
                    self.deposed(turn);
                }
            }
            // It may have happened. The next survey reads what stands, and the compares stop what would come twice.
            Outcome::Unknown => {}
            Outcome::Refused(_) => {}
        }
    }

    fn on_answer(&mut self, op: OpId, answer: Answer, turn: &mut Turn<'_, Submission>) {
        if let Some(holder) = &mut self.holder {
            match holder.on_answer(op, &answer, Timer::Lease.into(), turn) {
                News::NotMine => {}
                News::Nothing | News::Renewed => return,
                News::Gone => {
                    turn.count(Metric::LeasesLostTotal, &[Label::Word("orchestrator")], 1);
                    self.deposed(turn);
                    self.step = Step::Idle;
                    self.takeovers.clear();
                    self.decisions.clear();
                    return self.join(turn);
                }
            }
        }
        match answer {
            Answer::Transacted(outcome) if self.step == Step::Campaign(op) => self.on_campaign(outcome, turn),
            Answer::Transacted(outcome) => {
                if let Some((since, assigned)) = self.takeovers.remove(&op) {
                    self.tell_migrations(&assigned, since, &outcome, turn);
                    self.on_takeover(&assigned, outcome, turn);
                } else if let Some((region, decision)) = self.decisions.remove(&op) {
                    self.on_decided(region, decision, outcome, turn);
                }
            }
            Answer::Read(outcome) if self.step == Step::Regions(op) => self.on_page(Family::Regions, outcome, turn),
            Answer::Read(outcome) if self.step == Step::Workers(op) => self.on_page(Family::Workers, outcome, turn),
            Answer::Read(outcome) if self.step == Step::Owners(op) => self.on_page(Family::Owners, outcome, turn),
            _ => {}
        }
    }
}

fn ask_roster(after: Option<EntityId>, turn: &mut Turn<'_, Submission>) -> OpId {
    turn.ledger(ledger::Submission::Roster { after, limit: limits::ROSTER_PAGE }, limits::LEDGER_PATIENCE)
}

fn read(family: Family, after: Option<Key>, at: Option<Revision>, turn: &mut Turn<'_, Submission>) -> OpId {
    let submission = directory::Submission::Read {
        family,
        after,
        limit: limits::DIRECTORY_PAGE,
        at,
        consistency: Consistency::Linearizable,
    };
    turn.directory(submission, limits::DIRECTORY_PATIENCE)
}

impl Role for Orchestrator {
    type Event = Event;
    type Submission = Submission;

    fn on_event(&mut self, event: Event, turn: &mut Turn<'_, Submission>) {
        if self.leads.is_some() && self.lease(turn.now()).is_none() {
            self.deposed(turn);
        }
        match event {
            Event::Started => {
                self.begin_telemetry(turn);
                self.join(turn);
            }
            Event::Stop => {
                if let Some(holder) = &self.holder {
                    turn.directory(directory::Submission::Revoke(holder.lease()), limits::DIRECTORY_PATIENCE);
                }
                turn.stopped();
            }
            Event::Timer(key) if key == Timer::Lease.into() => {
                if let Some(holder) = &mut self.holder {
                    holder.on_timer(Timer::Lease.into(), turn);
                }
            }
            Event::Timer(key) if key == Timer::Relay.into() => self.on_relay_period(turn),
            Event::Timer(_) => self.on_round(turn),
            Event::Directory(directory::Event::Answered { op, answer }) => self.on_answer(op, *answer, turn),
            // An orchestrator watches nothing.
            Event::Directory(directory::Event::Changed { .. } | directory::Event::Gap { .. }) => {}
            Event::Ledger(ledger::Event { op, answer }) => self.on_ledger(op, *answer, turn),
            Event::Bus(bus::Event::Answered { op, answer }) => {
                if let bus::Answer::Published(outcome) = &*answer {
                    self.relay.on_published(op, outcome, turn);
                }
            }
            // It consumes nothing either.
            Event::Bus(bus::Event::Delivered { .. } | bus::Event::Gap { .. }) => {}
        }
    }

    fn queues(&self, report: &mut dyn FnMut(&'static str, usize, usize)) {
        report("orchestrator.takeovers", self.takeovers.len(), TAKEOVERS);
        report("orchestrator.decisions", self.decisions.len(), usize::from(self.config.map.regions()));
        self.relay.queues(report);
    }
}
