//! Who the ledger's primary is, and when a standby becomes it: what a Patroni beside the servers does, as the simulator's model has
//! it. A primary that is missing for as long as its lease lasts is ended, and of the standbys that run the one is promoted that has
//! received most, if a majority of the members is left.
//!
//! Deliberately absent: a primary that runs and is cut off from the others: what members say to each other passes no proxy.

use super::World;
use crate::{
    faults::{Service, detection},
    processes::Failed,
};
use sqlx::Connection as _;
use std::{collections::BTreeSet, time::Duration};
use tokio::time::timeout;
use worldline_proto::NodeId;
use worldline_real::clock;
use worldline_system::time::Instant;

/// How long a standby may take to say how far it is.
const PATIENCE: Duration = Duration::from_secs(2);

/// The ledger's members, by their nodes.
#[derive(Clone, Debug)]
pub struct Primary {
    /// Who is it.
    pub node: NodeId,
    /// Since when it has been missing.
    missing_since: Option<Instant>,
    /// Who was it once, and does not come back.
    pub deposed: BTreeSet<NodeId>,
}

impl Primary {
    /// The first.
    #[must_use]
    pub const fn new(node: NodeId) -> Self {
        Self { node, missing_since: None, deposed: BTreeSet::new() }
    }
}

impl World<'_> {
    /// Looks after the ledger's primary. What was done, in words, if something was.
    ///
    /// # Errors
    /// A standby cannot be promoted.
    pub async fn watch_primary(&mut self) -> Result<Option<String>, Failed> {
        let primary = self.primary.node;
        if !self.members.clustered(Service::Ledger) || self.runs(primary) {
            self.primary.missing_since = None;
            return Ok(None);
        }
        let now = clock::now();
        let missing = now.since(*self.primary.missing_since.get_or_insert(now));
        if missing < detection() {
            return Ok(None);
        }
        let members: Vec<NodeId> = self.members.of_service(Service::Ledger).collect();
        let standbys: Vec<NodeId> =
            members.iter().copied().filter(|&node| node != primary && self.runs(node)).collect();
        // Of two the standby decides alone: without it the old primary can confirm nothing.
        if members.len() > 2 && standbys.len() * 2 <= members.len() {
            return Ok(None);
        }
        let Some(candidate) = self.furthest(&standbys).await else { return Ok(None) };
        // Two that take writes would both be believed.
        self.services.kill(primary);
        self.paused.remove(&primary);
        self.services.promote(candidate).await?;
        self.primary.deposed.insert(primary);
        (self.primary.node, self.primary.missing_since) = (candidate, None);
        let took = clock::now().since(now).as_nanos() / 1_000_000;
        let missing = missing.as_nanos() as f64 / 1e9;
        let (old, new) = (self.nodes.name(primary), self.nodes.name(candidate));
        Ok(Some(format!("{old} is missing for {missing:.1} s: PostgreSQL ({new}) is promoted within {took} ms")))
    }

    /// The standby that has received most; of equals the first. `None` where none says.
    async fn furthest(&self, standbys: &[NodeId]) -> Option<NodeId> {
        let mut best: Option<(i64, NodeId)> = None;
        for &node in standbys {
            let url = format!("postgres://postgres@{}/postgres", self.services.address(node));
            let Ok(Ok(received)) = timeout(PATIENCE, received(&url)).await else { continue };
            if best.is_none_or(|(most, _)| received > most) {
                best = Some((received, node));
            }
        }
        best.map(|(_, node)| node)
    }
}

/// Up to which byte of the log a standby has received and flushed.
async fn received(url: &str) -> Result<i64, sqlx::Error> {
    let mut connection = sqlx::PgConnection::connect(url).await?;
    let asked = "select (coalesce(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()) - '0/0'::pg_lsn)::bigint";
    let received = sqlx::query_scalar(asked).fetch_one(&mut connection).await?;
    connection.close().await?;
    Ok(received)
}
