//! What can be done to a running world from outside.

use crate::proxy::{requests::Harm, statements::When, way::Degraded};
use std::{fmt, time::Duration};
use worldline_proto::{LeaseId, NodeId};
use worldline_scenarios::nodes::{Kind, Nodes, character};

/// Nodes of one side of a link that a description names.
const NAMED_MAX: usize = 4;

/// A service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Service {
    /// etcd.
    Directory,
    /// PostgreSQL.
    Ledger,
    /// NATS.
    Bus,
    /// The Valkey of the region at this place of the scenario.
    Cache(usize),
}

impl Service {
    /// The service that a node is a member of.
    #[must_use]
    pub const fn of(kind: Kind) -> Option<Self> {
        match kind {
            Kind::Directory(_) => Some(Self::Directory),
            Kind::Ledger(_) => Some(Self::Ledger),
            Kind::Bus(_) => Some(Self::Bus),
            Kind::Cache(region, _) => Some(Self::Cache(region)),
            _ => None,
        }
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Directory => "etcd",
            Self::Ledger => "PostgreSQL",
            Self::Bus => "NATS",
            Self::Cache(_) => "Valkey",
        })
    }
}

/// A process of the drill.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// A role's.
    Role(NodeId),
    /// A service's, that stands for all its members.
    Service(Service),
    /// That of one member of a service.
    Member(NodeId),
}

impl Target {
    /// What it is called.
    #[must_use]
    pub fn name(self, nodes: &Nodes) -> String {
        match self {
            Self::Role(node) => nodes.name(node).to_owned(),
            Self::Service(service @ Service::Cache(_)) => {
                let first = nodes.iter().find(|(_, node)| Service::of(node.kind) == Some(service));
                format!("{service} ({})", first.map_or("", |(_, node)| &node.name))
            }
            Self::Service(service) => service.to_string(),
            Self::Member(node) => match nodes.kind(node).and_then(Service::of) {
                Some(service) => format!("{service} ({})", nodes.name(node)),
                None => nodes.name(node).to_owned(),
            },
        }
    }
}

/// What is done from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deed {
    /// All links are cut, then SIGKILL: the peers hear nothing. They stay cut until it starts again.
    Crash(Target),
    /// The link to the directory lets so many transactions of this role pass, and nothing of the next one; then all its links are
    /// cut, and SIGKILL.
    CrashBetweenTransactions(NodeId, u32),
    /// SIGKILL.
    Kill(Target),
    /// SIGTERM to a role: it stops when it is ready to.
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
    /// Who leads a service's members, or is their primary, hands over to another one.
    HandOver(Service),
    /// A lease is revoked by the drill.
    Revoke(LeaseId),
    /// The directory's past is compacted away.
    Compact,
    /// An operator gives a command: its process starts.
    Command(NodeId),
    /// From now on the bus's requests are harmed so, until it is told otherwise.
    Requests(Harm),
    /// Connections to the bus break.
    Disconnect(Option<NodeId>),
    /// The bus recognises no name of a message any more.
    ForgetNames,
    /// Every consumer of the stream begins again so many messages back.
    Rewind(u64),
    /// Every consumer of the stream is deleted.
    EndConsumers,
    /// Of a cache, or of all, something is taken or spoilt.
    Cache(Option<usize>, Loss),
}

/// What is done to the entries of a cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// FLUSHALL.
    All,
    /// So many of a thousand are deleted.
    Some(u16),
    /// So many of a thousand become something of another type.
    Types(u16),
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
            Self::CrashBetweenTransactions(node, count) => format!(
                "{} is to lose its links and be killed when its link to etcd has let {count} of its transactions pass and the next begins",
                nodes.name(*node)
            ),
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
            Self::HandOver(Service::Ledger) => "PostgreSQL's primary stops in order, for a standby".to_owned(),
            Self::HandOver(service) => format!("the leader of {service} hands over"),
            Self::Revoke(lease) => format!("lease {lease} is revoked"),
            Self::Compact => "etcd is compacted".to_owned(),
            Self::Command(node) => match nodes.kind(*node) {
                Some(Kind::Operator(_, number)) => format!("an operator revokes the tokens of {}", character(number)),
                _ => "an operator gives a command".to_owned(),
            },
            Self::Requests(harm) => harm.told(&whose),
            Self::Disconnect(from) => format!("the connections of {} to NATS break", whose(from)),
            Self::ForgetNames => "NATS recognises no message's name any more".to_owned(),
            Self::Rewind(by) => format!("every consumer begins again {by} messages back"),
            Self::EndConsumers => "every consumer is deleted".to_owned(),
            Self::Cache(region, loss) => {
                let caches =
                    region.map_or("every Valkey".to_owned(), |at| target(&Target::Service(Service::Cache(at))));
                match loss {
                    Loss::All => format!("{caches} forgets everything (FLUSHALL)"),
                    Loss::Some(permille) => format!("{caches} loses {} of its entries", percent((*permille).into())),
                    Loss::Types(permille) => {
                        format!("{} of the entries of {caches} are of another type", percent((*permille).into()))
                    }
                }
            }
        }
    }
}
