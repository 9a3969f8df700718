//! Who the ledger's primary is, and when a standby becomes it: what a Patroni beside the servers does, as the simulator's model has
//! it. A primary that is missing for as long as its lease lasts is ended, and of the standbys the one is promoted that has most of its
//! log, if a majority of the members says how much it has, and says the same twice: one that has just started again may still read
//! what it has. Who was deposed may have what nobody else has: when it is started again it begins anew as a copy of the primary.
//!
//! Deliberately absent: a primary that runs and is cut off from the others: what members say to each other passes no proxy.

use super::{World, ledger};
use crate::{
    bus,
    faults::{Effect, Service, detection},
    processes::Failed,
};
use sqlx::Connection as _;
use std::{collections::BTreeSet, time::Duration};
use tokio::time::timeout;
use worldline_proto::NodeId;
use worldline_real::clock;
use worldline_system::time::{Duration as Span, Instant};

/// How long a standby may take to say how far it is.
const PATIENCE: Duration = Duration::from_secs(2);

/// The ledger's members, by their nodes.
#[derive(Clone, Debug)]
pub struct Primary {
    /// Who is it.
    pub node: NodeId,
    /// Since when it has been missing.
    missing_since: Option<Instant>,
    /// How far the standbys were at the last look, while it is missing.
    standbys: Vec<(i64, NodeId)>,
    /// Since when a standby is being promoted for it, and why.
    promoting: Option<(Instant, Why)>,
    /// Who was it once and may have what nobody else has: it comes back only as a copy.
    pub deposed: BTreeSet<NodeId>,
    /// Who of these may come back.
    pub returning: BTreeSet<NodeId>,
}

/// Why another becomes the primary.
#[derive(Clone, Copy, Debug)]
enum Why {
    /// It has been missing for so long.
    Missing(Span),
    /// It hands over.
    Orderly,
}

impl Primary {
    /// The first.
    #[must_use]
    pub const fn new(node: NodeId) -> Self {
        Self {
            node,
            missing_since: None,
            standbys: Vec::new(),
            promoting: None,
            deposed: BTreeSet::new(),
            returning: BTreeSet::new(),
        }
    }
}

impl World<'_> {
    /// Looks after the ledger's primary: one that has been missing for long enough is ended, and a standby asked for in its place.
    pub async fn watch_primary(&mut self) {
        let primary = self.primary.node;
        if !self.members.clustered(Service::Ledger) || self.primary.promoting.is_some() {
            return;
        }
        // One that is being started is not given up.
        if !self.runs(primary) && self.services.is_asked_for(primary) {
            return;
        }
        if self.runs(primary) {
            self.primary.missing_since = None;
            self.call_back();
            return;
        }
        let now = clock::now();
        let missing = now.since(*self.primary.missing_since.get_or_insert(now));
        if missing < detection() {
            return;
        }
        let members: Vec<NodeId> = self.members.of_service(Service::Ledger).collect();
        let standbys: Vec<NodeId> =
            members.iter().copied().filter(|&node| node != primary && self.runs(node)).collect();
        let standbys = self.received(&standbys).await;
        let before = std::mem::replace(&mut self.primary.standbys, standbys.clone());
        // Of two the standby decides alone: without it the old primary can confirm nothing.
        let majority = members.len() <= 2 || standbys.len() * 2 > members.len();
        let Some(candidate) = furthest(&standbys).filter(|_| majority && standbys == before) else { return };
        // Two that take writes would both be believed.
        self.services.kill(primary);
        self.paused.remove(&primary);
        self.primary.deposed.insert(primary);
        self.primary.promoting = Some((now, Why::Missing(missing)));
        self.services.promote(candidate);
    }

    /// Asks for one that was deposed, now that there is somebody to follow.
    fn call_back(&mut self) {
        let mut returning = self.primary.returning.iter().copied();
        if let Some(node) = returning.find(|&node| !self.services.is_asked_for(node)) {
            self.services.copy(node, self.primary.node);
        }
    }

    /// Complains of every member of the ledger that does not follow the primary by now, but of those that do not run.
    pub async fn look_for_who_does_not_follow(&mut self) {
        if !self.members.clustered(Service::Ledger) {
            return;
        }
        let others = self.members.of_service(Service::Ledger).filter(|&node| node != self.primary.node);
        for node in others.collect::<Vec<_>>() {
            let follows = async {
                let url = ledger::url([self.services.address(node)]);
                matches!(timeout(PATIENCE, follows(&url)).await, Ok(Ok(true)))
            };
            let returns = self.primary.returning.contains(&node);
            if returns || self.runs(node) && !follows.await {
                let (name, primary) = (self.nodes.name(node), self.nodes.name(self.primary.node));
                self.complaints.push(format!("PostgreSQL ({name}) does not follow {primary}"));
            }
        }
    }

    /// One that was deposed follows the primary, or could not yet.
    pub(super) fn followed(&mut self, node: NodeId, failed: Option<Failed>) {
        let name = self.nodes.name(node);
        match failed {
            None => {
                self.news.push(format!("{name} begins anew as a copy of {}", self.nodes.name(self.primary.node)));
                self.primary.deposed.remove(&node);
                self.primary.returning.remove(&node);
            }
            // The next look tries again.
            Some(why) => self.news.push(format!("{name} does not follow yet: {why}")),
        }
    }

    /// A standby was promoted.
    pub(super) fn promoted(&mut self, candidate: NodeId) {
        let old = std::mem::replace(&mut self.primary.node, candidate);
        self.primary.missing_since = None;
        let Some((begun, why)) = self.primary.promoting.take() else { return };
        let took = clock::now().since(begun).as_nanos() / 1_000_000;
        let name = self.nodes.name(old);
        let why = match why {
            Why::Missing(span) => format!("{name} is missing for {:.1} s", span.as_nanos() as f64 / 1e9),
            Why::Orderly => {
                self.services.start_again(&[old]);
                format!("{name} has stopped")
            }
        };
        let new = self.nodes.name(candidate);
        self.news.push(format!("{why}: PostgreSQL ({new}) is promoted within {took} ms"));
    }

    /// Who leads a service's members, or is their primary, hands over to another one.
    pub(super) async fn hand_over(&mut self, service: Service) -> Effect {
        let done = match service {
            Service::Directory => self.directory.hand_over().await,
            Service::Bus => bus::hand_over(&self.bus()).await,
            Service::Ledger => self.switch_over().await,
            Service::Cache(_) => Err("one process stands for all".to_owned()),
        };
        done.map_or_else(|why| Effect::Nothing(format!("{service} did not hand over: {why}")), |()| Effect::Hit)
    }

    /// The primary is asked to stop, and the standby that has most to take its place.
    async fn switch_over(&mut self) -> Result<(), String> {
        let primary = self.primary.node;
        if !self.runs(primary) || self.primary.promoting.is_some() {
            return Err("its primary does not run".to_owned());
        }
        let standbys = self.members.of_service(Service::Ledger).filter(|&node| node != primary && self.runs(node));
        let standbys: Vec<NodeId> = standbys.collect();
        let candidate = furthest(&self.received(&standbys).await).ok_or("no standby runs")?;
        self.primary.promoting = Some((clock::now(), Why::Orderly));
        self.services.switch_over(primary, candidate);
        Ok(())
    }

    /// How far those of these standbys are that say it.
    async fn received(&self, standbys: &[NodeId]) -> Vec<(i64, NodeId)> {
        let mut all = Vec::new();
        for &node in standbys {
            let url = ledger::url([self.services.address(node)]);
            if let Ok(Ok(received)) = timeout(PATIENCE, received(&url)).await {
                all.push((received, node));
            }
        }
        all
    }
}

/// The standby that has most; of equals the first.
fn furthest(standbys: &[(i64, NodeId)]) -> Option<NodeId> {
    let most = standbys.iter().map(|(received, _)| *received).max()?;
    standbys.iter().find(|(received, _)| *received == most).map(|(_, node)| *node)
}

/// Up to which byte of the log a standby has it. One that has received nothing since it was started says what it has replayed: what
/// it says that it has received is then where it would begin, at a segment's first byte.
async fn received(url: &str) -> Result<i64, sqlx::Error> {
    let mut connection = sqlx::PgConnection::connect(url).await?;
    let asked = "select (greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()) - '0/0'::pg_lsn)::bigint";
    let received = sqlx::query_scalar(asked).fetch_one(&mut connection).await?;
    connection.close().await?;
    Ok(received)
}

/// Whether a server receives another's log.
async fn follows(url: &str) -> Result<bool, sqlx::Error> {
    let mut connection = sqlx::PgConnection::connect(url).await?;
    let asked = "select exists (select from pg_stat_wal_receiver where status = 'streaming')";
    let follows = sqlx::query_scalar(asked).fetch_one(&mut connection).await?;
    connection.close().await?;
    Ok(follows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_standby_that_has_most_is_promoted_and_of_equals_the_first() {
        let [one, other] = [NodeId(1), NodeId(2)];
        assert_eq!(furthest(&[(10, one), (11, other)]), Some(other));
        assert_eq!(furthest(&[(11, one), (11, other)]), Some(one));
        assert_eq!(furthest(&[]), None);
    }
}
