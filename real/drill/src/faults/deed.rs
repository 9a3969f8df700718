//! What can be done to a running world from outside.

use crate::proxy::{statements::When, way::Degraded};
use std::{fmt, time::Duration};
use worldline_proto::{LeaseId, NodeId};
use worldline_scenarios::nodes::Nodes;

/// Nodes of one side of a link that a description names.
const NAMED_MAX: usize = 4;

/// A service that one process stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Service {
    /// etcd.
    Directory,
    /// PostgreSQL.
    Ledger,
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Directory => "etcd",
            Self::Ledger => "PostgreSQL",
        })
    }
}

/// A process of the drill.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// A role's.
    Role(NodeId),
    /// A service's.
    Service(Service),
}

impl Target {
    /// What it is called.
    #[must_use]
    pub fn name(self, nodes: &Nodes) -> String {
        match self {
            Self::Role(node) => nodes.name(node).to_owned(),
            Self::Service(service) => service.to_string(),
        }
    }
}

/// What is done from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deed {
    /// All links are cut, then SIGKILL: the peers hear nothing. They stay cut until it starts again.
    Crash(Target),
    /// SIGKILL.
    Kill(Target),
    /// SIGTERM: it stops when it is ready to. Of a service: it is ended in order.
    Stop(Target),
    /// SIGKILL, and a new process.
    Restart(Target),
    /// A new process, if there is none.
    StartIfDead(Target),
    /// SIGSTOP.
    Pause(Target),
    /// SIGCONT.
    Resume(Target),
    /// Nothing gets from these to those.
    Cut {
        /// Names it for [`Deed::Mend`].
        id: u32,
        /// Senders.
        from: Vec<NodeId>,
        /// Receivers.
        to: Vec<NodeId>,
        /// The other direction too.
        both: bool,
    },
    /// What gets from these to those suffers.
    Degrade {
        /// Names it for [`Deed::Mend`].
        id: u32,
        /// Senders.
        from: Vec<NodeId>,
        /// Receivers.
        to: Vec<NodeId>,
        /// The other direction too.
        both: bool,
        /// How.
        how: Degraded,
    },
    /// Ends cuts and degradations.
    Mend(u32),
    /// Answers of statements are swallowed, so many of a thousand, at most `count`.
    LoseAnswers {
        /// Of which caller.
        from: Option<NodeId>,
        /// How often.
        permille: u16,
        /// At most.
        count: u32,
    },
    /// Connections to the ledger break.
    LoseConnections(u16, When),
    /// Commits reach the ledger later.
    DelayCommits(Option<NodeId>, Duration),
    /// A lease is revoked by the drill.
    Revoke(LeaseId),
    /// The directory's past is compacted away.
    Compact,
}

impl Deed {
    /// What is done, in words.
    #[must_use]
    pub fn told(&self, nodes: &Nodes) -> String {
        let target = |target: &Target| target.name(nodes);
        let side = |which: &[NodeId]| {
            let names: Vec<_> = which.iter().take(NAMED_MAX).map(|&node| nodes.name(node)).collect();
            let more = which.len().saturating_sub(NAMED_MAX);
            let rest = if more == 0 { String::new() } else { format!(" and {more} more") };
            format!("{}{rest}", names.join(", "))
        };
        let to = |both: &bool| if *both { "and" } else { "on the way to" };
        let whose = |from: &Option<NodeId>| from.map_or("all".to_owned(), |node| nodes.name(node).to_owned());
        let percent = |permille: u32| format!("{}%", f64::from(permille) / 10.0);
        match self {
            Self::Crash(at) => format!("{} loses its links and is killed", target(at)),
            Self::Kill(at) => format!("{} is killed", target(at)),
            Self::Stop(at) => format!("{} is asked to stop (SIGTERM)", target(at)),
            Self::Restart(at) => format!("{} is replaced", target(at)),
            Self::StartIfDead(at) => format!("{} starts again", target(at)),
            Self::Pause(at) => format!("{} is stopped (SIGSTOP)", target(at)),
            Self::Resume(at) => format!("{} goes on (SIGCONT)", target(at)),
            Self::Cut { from, to: there, both, .. } => {
                format!("nothing passes between {} {} {}", side(from), to(both), side(there))
            }
            Self::Degrade { from, to: there, both, how, .. } => format!(
                "what passes between {} {} {} is lost ({}), doubled ({}), late ({:?} and up to {:?})",
                side(from),
                to(both),
                side(there),
                percent(how.loss_permille),
                percent(how.duplicate_permille),
                how.delay,
                how.jitter
            ),
            Self::Mend(_) => "the link is mended".to_owned(),
            Self::LoseAnswers { from, permille, .. } => {
                format!("{} of the ledger's answers to {} are swallowed", percent((*permille).into()), whose(from))
            }
            Self::LoseConnections(permille, when) => {
                format!("{} of all statements lose their connection {when:?} they execute", percent((*permille).into()))
            }
            Self::DelayCommits(from, by) => format!("the commits of {} reach the ledger {by:?} later", whose(from)),
            Self::Revoke(lease) => format!("lease {lease} is revoked"),
            Self::Compact => "etcd is compacted".to_owned(),
        }
    }
}
