//! The worker: owner of entities. It holds a lease, claims what the directory assigns to it, validates what players do,
//! and commits the effects to the ledger before it answers.
//!
//! Phases, each a value that a checker can read: joining (no identity yet), active, suspended (its lease may have run
//! out: it emits nothing authoritative and starts no claim), resuming (its lease was renewed late: it reads its records,
//! resolves its batch and passes the fence again), draining (an orderly stop).
//!
//! Deliberately absent: durable state. What an entity has is the ledger's; here stands a copy that follows the commits.

mod batch;
mod checkpoints;
mod claims;
mod facts;
mod operations;
mod served;
mod sessions;
mod telemetry;
mod watch;

use crate::{
    Role, Turn,
    doors::{
        Asked, bus, cache,
        clock::TimerKey,
        directory, ledger, network,
        telemetry::{Label, Metric},
    },
    history::Note,
    knobs::Knobs,
    lease::{Holder, LeaseTimes, News},
    limits, reached,
    role::role_sums,
    routes::{Found, Routes},
    rules::space::Map,
    time::Instant,
};
use alloc::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    vec::Vec,
};
use batch::{Flight, Queued};
use checkpoints::Cached;
use claims::Claims;
use facts::Outgoing;
pub use served::Served;
use telemetry::Forwarding;
use watch::Watch;
use worldline_proto::{CharacterId, ConnectionId, EntityId, Epoch, NodeId, OpId};

role_sums! {
    Network(network::Event, network::Submission),
    Directory(directory::Event, Asked<directory::Submission>),
    Ledger(ledger::Event, Asked<ledger::Submission>),
    Bus(bus::Event, Asked<bus::Submission>),
    Cache(cache::Event, Asked<cache::Submission>),
}

/// What a worker is told before it starts.
#[derive(Clone, Debug)]
pub struct Config {
    /// The region whose cells it serves.
    pub region: directory::RegionId,
    /// The world's content.
    pub map: Arc<Map>,
    /// Of its lease.
    pub lease: LeaseTimes,
    /// Its periods.
    pub knobs: Knobs,
}

/// What a worker may do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// It asks for a lease and registers under it.
    Joining,
    /// It serves.
    Active,
    /// Its lease may have run out. It is silent.
    Suspended,
    /// Its lease was renewed late. It is silent until its records, its batch and its fences are sure.
    Resuming(Resuming),
    /// It finishes its batch, gives its lease back and stops.
    Draining,
}

/// How far a resumption is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Resuming {
    /// It reads its ownership records.
    Reading,
    /// It resolves the batch that was in flight.
    Resolving,
    /// It passes the fence again, at the same epochs.
    Fencing,
}

/// The timers of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Timer {
    /// The next renewal of the lease.
    Lease,
    /// The lease's end by its own clock.
    Silence,
    /// The registration is tried again.
    Register,
    /// The tick.
    Tick,
    /// The next scan for records that name this worker.
    Scan,
    /// A group of claims is tried again.
    Group(u64),
    /// The batch is submitted again.
    Batch,
    /// A forwarded effect is tried again: the attacker's number.
    Forward(u64),
    /// The claims of a resumption are tried again.
    Resume,
}

impl From<Timer> for TimerKey {
    fn from(timer: Timer) -> Self {
        match timer {
            Timer::Lease => Self::new(0, 0),
            Timer::Silence => Self::new(1, 0),
            Timer::Register => Self::new(2, 0),
            Timer::Tick => Self::new(3, 0),
            Timer::Scan => Self::new(4, 0),
            Timer::Group(group) => Self::new(5, group),
            Timer::Batch => Self::new(6, 0),
            Timer::Forward(character) => Self::new(7, character),
            Timer::Resume => Self::new(8, 0),
        }
    }
}

impl Timer {
    fn from_key(key: TimerKey) -> Option<Self> {
        Some(match key.kind() {
            0 => Self::Lease,
            1 => Self::Silence,
            2 => Self::Register,
            3 => Self::Tick,
            4 => Self::Scan,
            5 => Self::Group(key.number()),
            6 => Self::Batch,
            7 => Self::Forward(key.number()),
            8 => Self::Resume,
            _ => return None,
        })
    }
}

/// A worker.
#[derive(Clone, Debug)]
pub struct Worker {
    config: Config,
    phase: Phase,
    holder: Option<Holder>,
    registration: Option<OpId>,
    claims: Claims,
    entities: BTreeMap<EntityId, Served>,
    /// The highest epoch of each entity that this process has held or was told of. It outlives the holding.
    highest: BTreeMap<EntityId, Epoch>,
    queue: VecDeque<Queued>,
    flight: Option<Flight>,
    outgoing: Outgoing,
    /// Calls of effects at other owners: for which attacker.
    forwards: BTreeMap<OpId, Forwarding>,
    gateways: BTreeMap<NodeId, ConnectionId>,
    peers: BTreeMap<ConnectionId, NodeId>,
    routes: Routes,
    cached: Cached,
    watch: Watch,
    tick: u64,
}

impl Worker {
    /// A worker before its first event.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self {
            config,
            phase: Phase::Joining,
            holder: None,
            registration: None,
            claims: Claims::default(),
            entities: BTreeMap::new(),
            highest: BTreeMap::new(),
            queue: VecDeque::new(),
            flight: None,
            outgoing: Outgoing::default(),
            forwards: BTreeMap::new(),
            gateways: BTreeMap::new(),
            peers: BTreeMap::new(),
            routes: Routes::default(),
            cached: Cached::default(),
            watch: Watch::default(),
            tick: 0,
        }
    }

    /// What it may do now.
    #[must_use]
    pub const fn phase(&self) -> Phase {
        self.phase
    }

    /// The entities that it holds (silently, unless it is active).
    pub fn served(&self) -> impl Iterator<Item = &Served> {
        self.entities.values()
    }

    /// Its identity, once it has one.
    #[must_use]
    pub fn lease(&self) -> Option<worldline_proto::LeaseId> {
        self.holder.as_ref().map(Holder::lease)
    }

    /// Whether it may emit something authoritative or start a claim at `now`.
    fn acts(&self, now: Instant) -> bool {
        matches!(self.phase, Phase::Active | Phase::Draining) && self.valid(now)
    }

    /// Whether its lease covers `now` by its own clock.
    fn valid(&self, now: Instant) -> bool {
        self.holder.as_ref().is_some_and(|holder| holder.may_act(now))
    }

    fn join(&mut self, turn: &mut Turn<'_, Submission>) {
        let holder = Holder::begin(self.config.lease, self.config.knobs, Timer::Lease.into(), turn);
        let LeaseTimes { ttl, margin, .. } = self.config.lease;
        turn.note(Note::Identity { lease: holder.lease(), ttl, margin });
        self.holder = Some(holder);
        self.phase = Phase::Joining;
    }

    /// Looks at the clock before anything else: a process that was stopped for longer than its lease must notice in the
    /// first event after it, whichever that is.
    fn look_at_the_clock(&mut self, turn: &mut Turn<'_, Submission>) {
        let silent = matches!(self.phase, Phase::Joining | Phase::Suspended);
        if !silent && !self.valid(turn.now()) {
            self.suspend(turn);
        }
    }

    fn suspend(&mut self, turn: &mut Turn<'_, Submission>) {
        let Some(holder) = &self.holder else { return };
        turn.count(Metric::WorkerSuspensionsTotal, &[], 1);
        turn.note(Note::Suspended { lease: holder.lease() });
        if self.phase == Phase::Draining {
            self.give_lease_back(turn);
            return turn.stopped();
        }
        self.phase = Phase::Suspended;
        self.ticks_stop();
        self.tell_gateways_suspended(true, turn);
    }

    fn on_renewed(&mut self, turn: &mut Turn<'_, Submission>) {
        let Some(holder) = &self.holder else { return };
        turn.arm(Timer::Silence, holder.valid_until());
        if !self.valid(turn.now()) {
            return;
        }
        match self.phase {
            Phase::Joining => self.register(turn),
            Phase::Suspended => {
                self.phase = Phase::Resuming(Resuming::Reading);
                self.scan(turn);
            }
            Phase::Active | Phase::Resuming(_) | Phase::Draining => {}
        }
    }

    /// The directory has ended the lease: the identity is dead and all that was held under it is dropped.
    fn on_gone(&mut self, turn: &mut Turn<'_, Submission>) {
        reached!(turn, "worker.fenced");
        let Some(holder) = self.holder.take() else { return };
        let held: Vec<EntityId> = self.entities.keys().copied().collect();
        for entity in held {
            self.drop_entity(entity, turn);
        }
        turn.count(Metric::LeasesLostTotal, &[Label::Word("worker")], 1);
        self.report(turn);
        turn.note(Note::Fenced { lease: holder.lease() });
        self.abandon_operations(turn);
        self.claims.reset(turn);
        self.cached.reset();
        self.ticks_stop();
        self.registration = None;
        for timer in [Timer::Silence, Timer::Register, Timer::Tick, Timer::Scan, Timer::Batch, Timer::Resume] {
            turn.disarm(timer);
        }
        if self.phase == Phase::Draining {
            turn.stopped();
        } else {
            self.join(turn);
        }
    }

    /// Resumption, step by step; called again whenever a step may have been completed.
    fn go_on_resuming(&mut self, turn: &mut Turn<'_, Submission>) {
        if self.phase == Phase::Resuming(Resuming::Resolving) {
            if self.flight.is_some() {
                self.resubmit_batch(turn);
                return;
            }
            self.phase = Phase::Resuming(Resuming::Fencing);
            self.pass_fences_again(turn);
        }
    }

    fn resumed(&mut self, turn: &mut Turn<'_, Submission>) {
        reached!(turn, "worker.resumed-same-lease");
        let Some(holder) = &self.holder else { return };
        turn.count(Metric::WorkerResumptionsTotal, &[], 1);
        turn.note(Note::Resumed { lease: holder.lease() });
        self.activate(turn);
        self.tell_gateways_suspended(false, turn);
    }

    fn activate(&mut self, turn: &mut Turn<'_, Submission>) {
        self.phase = Phase::Active;
        turn.arm_in(Timer::Tick, limits::TICK);
        self.restart_claims(turn);
        let characters: Vec<CharacterId> = self.entities.values().filter_map(Served::character).collect();
        for character in characters {
            self.forward(character, turn);
            self.begin_next(character, turn);
        }
    }

    fn on_timer(&mut self, timer: Timer, turn: &mut Turn<'_, Submission>) {
        match timer {
            Timer::Lease => {
                if let Some(holder) = &mut self.holder {
                    holder.on_timer(Timer::Lease.into(), turn);
                }
            }
            // Looking at the clock was all there was to do.
            Timer::Silence => {}
            Timer::Register => self.register(turn),
            Timer::Tick => self.on_tick(turn),
            Timer::Scan => self.scan(turn),
            Timer::Group(group) => self.try_group(group, turn),
            Timer::Batch => self.resubmit_batch(turn),
            Timer::Forward(number) => {
                if let Some(character) = CharacterId::new(number) {
                    self.forward(character, turn);
                }
            }
            Timer::Resume => {
                if self.phase == Phase::Resuming(Resuming::Fencing) {
                    self.pass_fence(turn);
                }
            }
        }
    }

    fn on_directory(&mut self, event: directory::Event, turn: &mut Turn<'_, Submission>) {
        match event {
            directory::Event::Answered { op, answer } => {
                if let Some(holder) = &mut self.holder {
                    match holder.on_answer(op, &answer, Timer::Lease.into(), turn) {
                        News::NotMine => {}
                        News::Nothing => return,
                        News::Renewed => return self.on_renewed(turn),
                        News::Gone => return self.on_gone(turn),
                    }
                }
                match self.routes.on_answer(op, &answer, turn) {
                    Found::NotMine => {}
                    Found::Route(entity, _) => return self.forward_all(entity, turn),
                    Found::Halfway | Found::Nowhere(_) => return,
                }
                self.on_claims_answer(op, *answer, turn);
            }
            directory::Event::Changed { watch, changes, .. } => self.on_changes(watch, &changes, turn),
            directory::Event::Gap { watch, .. } => self.on_gap(watch, turn),
        }
    }

    fn on_ledger(&mut self, event: ledger::Event, turn: &mut Turn<'_, Submission>) {
        match *event.answer {
            ledger::Answer::Committed(outcome) => self.on_committed(event.op, outcome, turn),
            ledger::Answer::Claimed(outcome) => self.on_claimed(event.op, outcome, turn),
            // A worker asks for nothing else.
            ledger::Answer::LoggedIn(_)
            | ledger::Answer::Revoked(_)
            | ledger::Answer::Standing(_)
            | ledger::Answer::Roster(_)
            | ledger::Answer::Facts(_)
            | ledger::Answer::Unpublished(_)
            | ledger::Answer::Flagged(_)
            | ledger::Answer::Snapshot(_) => {}
        }
    }

    fn on_bus(&mut self, event: &bus::Event, turn: &mut Turn<'_, Submission>) {
        // A worker consumes nothing.
        let bus::Event::Answered { op, answer } = event else { return };
        if let bus::Answer::Published(outcome) = &**answer {
            self.outgoing.on_published(*op, outcome, turn);
        }
    }

    fn on_stop(&mut self, turn: &mut Turn<'_, Submission>) {
        match self.phase {
            Phase::Active => {
                self.phase = Phase::Draining;
                self.drain(turn);
            }
            // It answers for nothing any more. What it has submitted and knows no outcome of, the fence puts in order with
            // what its successor does: nobody need wait for the end of its lease.
            _ => {
                self.give_lease_back(turn);
                turn.stopped();
            }
        }
    }

    /// Gives the lease back once nothing is in flight; the orchestrator sees it at its next scan.
    fn drain(&mut self, turn: &mut Turn<'_, Submission>) {
        if self.phase == Phase::Draining && self.flight.is_none() && self.queue.is_empty() {
            self.give_lease_back(turn);
            turn.stopped();
        }
    }

    fn give_lease_back(&self, turn: &mut Turn<'_, Submission>) {
        if let Some(holder) = &self.holder {
            turn.directory(directory::Submission::Revoke(holder.lease()), limits::DIRECTORY_PATIENCE);
        }
    }
}

impl Role for Worker {
    type Event = Event;
    type Submission = Submission;

    fn on_event(&mut self, event: Event, turn: &mut Turn<'_, Submission>) {
        self.look_at_the_clock(turn);
        match event {
            Event::Started => {
                telemetry::begin(turn);
                self.join(turn);
            }
            Event::Stop => self.on_stop(turn),
            Event::Timer(key) => {
                if let Some(timer) = Timer::from_key(key) {
                    self.on_timer(timer, turn);
                }
            }
            Event::Network(event) => self.on_network(event, turn),
            Event::Directory(event) => self.on_directory(event, turn),
            Event::Ledger(event) => self.on_ledger(event, turn),
            Event::Cache(event) => self.on_cache(event, turn),
            Event::Bus(event) => self.on_bus(&event, turn),
        }
    }

    fn queues(&self, report: &mut dyn FnMut(&'static str, usize, usize)) {
        report("worker.queue", self.queue.len(), limits::WORKER_QUEUE);
        report("worker.forwards", self.forwards.len(), limits::OPERATIONS_IN_FLIGHT);
        let (lookups, most) = self.routes.lookups();
        report("worker.lookups", lookups, most);
        self.claims.queues(report);
        report("worker.cached-checkpoints-asked", self.cached.reads(), claims::ENTITIES_IN_CLAIM);
        report("worker.violations-counted", self.watch.counting(), limits::OPERATIONS_IN_FLIGHT);
        self.outgoing.queues(report);
        let waiting = self.entities.values().map(Served::waiting).max().unwrap_or(0);
        report("worker.character-operations", waiting, limits::CLIENT_WINDOW);
    }
}
