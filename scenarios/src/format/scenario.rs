//! What a scenario file says, decoded and checked.

use super::{
    services::{BusFault, CacheFault, DirectoryFault, LedgerFault},
    setting::Setting,
};
use std::fmt;
use worldline_proto::EntityId;
use worldline_system::{knobs::Knobs, lease::LeaseTimes, time::Duration};

/// A scenario.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scenario {
    /// Its name.
    pub name: String,
    /// What threatens, in a sentence.
    pub summary: String,
    /// The regions of the world, at least one.
    pub regions: Vec<Region>,
    /// The world bosses.
    pub bosses: Vec<Boss>,
    /// The core: directory, ledger, orchestrators.
    pub core: CoreGroup,
    /// The times of every lease.
    pub lease: LeaseTimes,
    /// The periods and retry bounds of every role.
    pub knobs: Knobs,
    /// What the players do.
    pub workload: Workload,
    /// How long the fault phase is. All faults are healed at its end.
    pub duration: Duration,
    /// How long the world has after that to make progress again.
    pub settle: Duration,
    /// What goes wrong, in the order of the file.
    pub faults: Vec<Fault>,
    /// What must hold besides the invariants.
    pub budgets: Vec<Budget>,
    /// The file as it was read, for a failure to carry.
    pub text: String,
    /// What the command line put in the place of its values.
    pub settings: Vec<Setting>,
}

impl Scenario {
    /// All players.
    #[must_use]
    pub fn players(&self) -> u32 {
        self.regions.iter().map(|region| region.players + region.travellers).sum()
    }
}

/// A place on the WAN matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Singapore.
    Singapore,
    /// Tokyo.
    Tokyo,
    /// Sydney.
    Sydney,
    /// Frankfurt.
    Frankfurt,
    /// Virginia.
    Virginia,
    /// Oregon.
    Oregon,
}

/// A region of the world.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Region {
    /// Its name.
    pub name: String,
    /// Where it stands.
    pub place: Place,
    /// Worker processes.
    pub workers: u16,
    /// Gateway processes.
    pub gateways: u16,
    /// Players at this place whose characters are at home here.
    pub players: u32,
    /// Players at this place whose characters stand beside the boss that the workload attacks, wherever that is.
    pub travellers: u32,
    /// Other creatures that its workers own.
    pub npcs: u32,
}

/// A world boss.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Boss {
    /// The entity: `boss-N`.
    pub entity: EntityId,
    /// The region that owns it, an index into [`Scenario::regions`].
    pub region: usize,
    /// Its hit points.
    pub hit_points: u32,
    /// Its purse, in minor units, out of which bounties are paid.
    pub purse: i64,
}

/// The core: a group of its own, whichever region stands at the same place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CoreGroup {
    /// Where it stands, at least one place; the members of each kind take turns.
    pub places: Vec<Place>,
    /// Members of the directory.
    pub directory: u16,
    /// Members of the ledger: a primary and its standbys.
    pub ledger: u16,
    /// Members of the bus.
    pub bus: u16,
    /// Orchestrators.
    pub orchestrators: u16,
}

impl CoreGroup {
    /// Where the `n`th member of each kind stands.
    #[must_use]
    pub fn place(&self, n: u16) -> Place {
        self.places[usize::from(n) % self.places.len()]
    }
}

/// What the players do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// Movements a second of each player.
    pub moves_per_second: u16,
    /// How often each player attacks.
    pub attack_every: Duration,
    /// Whom: an index into [`Scenario::bosses`]. Who stands too far away is refused by the rules, and that is stored too.
    pub target: Option<usize>,
    /// The share of players, in permille, that move faster than the rules allow.
    pub speed_hack: u16,
    /// The share that use a number again with another payload.
    pub reused_numbers: u16,
    /// The share that are logged in twice.
    pub double_login: u16,
    /// The share whose tokens end during the run, whatever else they do.
    pub short_tokens: u16,
}

/// When a fault comes: at a moment of the window that each seed draws for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Not before.
    pub from: Duration,
    /// Not after.
    pub to: Duration,
}

/// One fault of the timeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// When.
    pub at: Window,
    /// How long; `None`: until the heal at the end of the fault phase, and a dead node stays dead.
    pub lasts: Option<Duration>,
    /// What.
    pub kind: FaultKind,
}

/// Which submissions a fault between a node and its sockets waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outbox {
    /// All of them.
    Any,
    /// Commits to the ledger.
    LedgerCommit,
    /// Transactions of the directory.
    DirectoryTransaction,
}

/// A kind of fault with its parameters. Selectors are resolved when the fault comes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// Power loss: the peers hear nothing.
    Crash(Vec<Selector>),
    /// The process dies: the peers are told at once.
    Kill(Vec<Selector>),
    /// SIGTERM: the process stops in order, when it is ready to.
    Stop(Vec<Selector>),
    /// The process is replaced by a new one at once.
    Restart(Vec<Selector>),
    /// SIGSTOP; the clocks go on.
    Pause(Vec<Selector>),
    /// Everything takes longer, by this factor in permille: 4000 is four times as long.
    Slow(Vec<Selector>, u32),
    /// Dies after so many submissions of these more, in the middle of an event.
    CrashBetweenSubmissions(Vec<Selector>, u32, Outbox),
    /// Stops between outbox and socket, holding what it was about to send.
    HoldOutbox(Vec<Selector>, Outbox),
    /// The monotonic clock jumps forward.
    ClockStep(Vec<Selector>, Duration),
    /// The monotonic clock runs fast (or slow), in parts a million.
    ClockDrift(Vec<Selector>, i32),
    /// The monotonic clock stands still.
    ClockFreeze(Vec<Selector>),
    /// The wall clock is set, in nanoseconds forward (or back).
    WallStep(Vec<Selector>, i64),
    /// An operator revokes the tokens of the characters of these players.
    RevokeTokens(Vec<u32>),
    /// Nothing gets from the one to the other.
    Cut {
        /// Sides.
        from: Vec<Selector>,
        /// Sides.
        to: Vec<Selector>,
        /// Whether the way back stays open.
        one_way: bool,
    },
    /// What gets from the one to the other gets there late, twice, or not at all.
    Degrade {
        /// Sides.
        from: Vec<Selector>,
        /// Sides.
        to: Vec<Selector>,
        /// Whether the way back stays as it was.
        one_way: bool,
        /// In permille.
        loss: u16,
        /// In permille.
        duplicate: u16,
        /// Added to every packet.
        delay: Duration,
        /// Added to every packet, at most, drawn for each.
        jitter: Duration,
    },
    /// Something about the ledger.
    Ledger(LedgerFault),
    /// Something about the directory.
    Directory(DirectoryFault),
    /// Something about the bus.
    Bus(BusFault),
    /// Something about the caches.
    Cache(CacheFault),
}

/// Names one or more nodes. Who leads or owns is looked up when the fault comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Selector {
    /// `worker:frankfurt:0`.
    Worker(usize, u16),
    /// `gateway:singapore:1`.
    Gateway(usize, u16),
    /// `player:3`: the machine of the player of `character-3`.
    Player(u32),
    /// `orchestrator:0`.
    Orchestrator(u16),
    /// `orchestrator:leader`.
    OrchestratorLeader,
    /// `directory:1`.
    Directory(u16),
    /// `directory:leader`.
    DirectoryLeader,
    /// `ledger:1`.
    Ledger(u16),
    /// `ledger:primary`.
    LedgerPrimary,
    /// `bus:1`.
    Bus(u16),
    /// `bus:leader`.
    BusLeader,
    /// `replica:singapore`.
    Replica(usize),
    /// `cache:singapore:0`.
    Cache(usize, u16),
    /// `owner-of:boss-1`.
    OwnerOf(EntityId),
    /// `region:singapore`: its workers, gateways, replica and cache.
    Region(usize),
    /// `core`: directory, ledger, bus and orchestrators.
    Core,
    /// `core:frankfurt`: those of them that stand there.
    CoreAt(Place),
}

/// A span of time that a run measures, by the name that a budget calls it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timing {
    /// From the fault until a player of the lost part sees authoritative state of its character again.
    Failover,
    /// Of it: until the orchestrator has seen that the owner is dead.
    Detect,
    /// Of it: until the record names a new owner.
    Reassign,
    /// Of it: until the new owner serves.
    Reconstruct,
    /// Of it: until the player sees it.
    Redirect,
    /// From the loss of a gateway (from a client's leaving, where it drains) until the player sees authoritative state through
    /// another one.
    Reconnect,
    /// From the end of the fault until a player whose owner had fallen silent sees authoritative state again.
    Resume,
    /// From an operation's first sending until its acknowledgement.
    Operation,
    /// From a fact's commit until a player, wherever it is, is shown it.
    Visibility,
}

impl Timing {
    /// Every timing, in the order of the tables.
    pub const ALL: [Self; 9] = [
        Self::Failover,
        Self::Detect,
        Self::Reassign,
        Self::Reconstruct,
        Self::Redirect,
        Self::Reconnect,
        Self::Resume,
        Self::Operation,
        Self::Visibility,
    ];

    /// Its name in files and tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Failover => "failover",
            Self::Detect => "detect",
            Self::Reassign => "reassign",
            Self::Reconstruct => "reconstruct",
            Self::Redirect => "redirect",
            Self::Reconnect => "reconnect",
            Self::Resume => "resume",
            Self::Operation => "operation",
            Self::Visibility => "visibility",
        }
    }
}

impl fmt::Display for Timing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a timing may take, every time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// What is measured.
    pub timing: Timing,
    /// The longest that it may be.
    pub within: Duration,
}
