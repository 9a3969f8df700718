//! What can be made to go wrong with the ledger, beyond what befalls its nodes and links.

use super::Model;
use crate::{Core, entropy::Purpose, replication::happens};
use worldline_proto::NodeId;
use worldline_system::time::Duration;

/// Something that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// Connections break around a commit, in so many of a thousand statements.
    LoseConnections {
        /// How often.
        permille: u16,
        /// At which moment.
        when: When,
    },
    /// Statements commit, and their answers are swallowed.
    LoseAnswers {
        /// Of which caller; `None` for all.
        from: Option<NodeId>,
        /// How often.
        permille: u16,
        /// At most so many.
        count: u32,
    },
    /// Commits sit at the server and execute only later.
    DelayCommits {
        /// Of which caller; `None` for all.
        from: Option<NodeId>,
        /// How much later.
        by: Duration,
    },
    /// Transactions are rolled back because of others, in so many of a thousand.
    Conflicts {
        /// As serialization failures (40001).
        serialization: u16,
        /// As victims of a deadlock (40P01), which PostgreSQL looks for after a second.
        deadlock: u16,
        /// As serialization failures among those that have waited for a row that another one then changed.
        contended: u16,
    },
    /// A disk takes so many thousandths of its usual time: of one member, or of all.
    SlowDisk {
        /// Which member; `None` for all.
        member: Option<NodeId>,
        /// 1,000 is healthy.
        factor_permille: u32,
    },
    /// A disk says that it has synced and has not: of one member, or of all.
    DisksLie {
        /// Which member; `None` for all.
        member: Option<NodeId>,
        /// Begins or ends it.
        on: bool,
    },
    /// The primary refuses writes (25006).
    ReadOnly {
        /// Begins or ends it.
        on: bool,
    },
    /// The primary's disk is full: it refuses writes (53100).
    DiskFull {
        /// Begins or ends it.
        on: bool,
    },
    /// A planned change of the primary: connections break, and the standby that has flushed most takes over at once.
    Switchover,
}

/// The moment at which a connection breaks. The caller cannot tell one from another: each is `Unknown` to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum When {
    /// Before the server has executed anything.
    Before,
    /// While it commits: it lands in one half of the cases.
    During,
    /// After the commit, before its answer.
    After,
}

/// The faults that go on.
#[derive(Clone, Debug, Default)]
pub(super) struct Faults {
    pub lose_connections: Option<(u16, When)>,
    pub lose_answers: Option<(Option<NodeId>, u16, u32)>,
    pub delay_commits: Option<(Option<NodeId>, Duration)>,
    pub serialization: u16,
    pub deadlock: u16,
    pub contended: u16,
    pub read_only: bool,
    pub disk_full: bool,
}

/// What is drawn for a statement: the high half of the draw's `who`.
#[derive(Clone, Copy)]
pub(super) enum Draw {
    Sync = 1,
    Connection = 2,
    Half = 3,
    Answer = 4,
    Serialization = 5,
    Deadlock = 6,
    Contended = 7,
}

/// 64 bits for the `n`-th statement or sync.
pub(super) fn draw(core: &Core, what: Draw, who: u32, n: u64) -> u64 {
    core.draw(Purpose::Ledger, (what as u64) << 32 | u64::from(who), n)
}

impl Faults {
    /// Whether the connection of statement `n` breaks, and when.
    pub fn breaks(&self, core: &Core, n: u64) -> Option<When> {
        let (permille, when) = self.lose_connections?;
        happens(draw(core, Draw::Connection, 0, n), permille).then_some(when)
    }

    /// Whether the answer of statement `n` to this caller is swallowed.
    pub fn swallows(&mut self, core: &Core, client: NodeId, n: u64) -> bool {
        let Some((from, permille, count)) = &mut self.lose_answers else { return false };
        let hit =
            *count > 0 && from.is_none_or(|from| from == client) && happens(draw(core, Draw::Answer, 0, n), *permille);
        *count -= u32::from(hit);
        hit
    }

    /// How long the commits of this caller are held back.
    pub fn delay(&self, client: NodeId) -> Option<Duration> {
        let (from, by) = self.delay_commits?;
        (by > Duration::ZERO && from.is_none_or(|from| from == client)).then_some(by)
    }
}

impl Model {
    pub(super) fn fail(&mut self, core: &mut Core, fault: Fault) {
        let faults = &mut self.faults;
        match fault {
            Fault::LoseConnections { permille, when } => faults.lose_connections = Some((permille, when)),
            Fault::LoseAnswers { from, permille, count } => faults.lose_answers = Some((from, permille, count)),
            Fault::DelayCommits { from, by } => faults.delay_commits = Some((from, by)),
            Fault::Conflicts { serialization, deadlock, contended } => {
                (faults.serialization, faults.deadlock, faults.contended) = (serialization, deadlock, contended);
            }
            Fault::ReadOnly { on } => faults.read_only = on,
            Fault::DiskFull { on } => faults.disk_full = on,
            Fault::SlowDisk { member, factor_permille } => self.disks(member, |disk| disk.slow_down(factor_permille)),
            Fault::DisksLie { member, on } => self.disks(member, |disk| disk.lie(on)),
            Fault::Switchover => self.switch_over(core),
        }
    }

    fn disks(&mut self, member: Option<NodeId>, change: impl Fn(&mut crate::replication::Disk)) {
        let chosen = self.members.iter_mut().filter(|each| member.is_none_or(|node| node == each.node));
        chosen.for_each(|member| change(&mut member.disk));
    }
}
