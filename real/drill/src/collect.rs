//! What a run leaves behind outside its processes: what etcd's watch tells from revision 1 on, over a connection of the
//! drill's own, and the ledger's journal, whose times are the wall clock's.

use crate::processes::Failed;
use etcd_client::{Client, WatchOptions, WatchResponse};
use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    task::JoinHandle,
    time::{sleep, timeout},
};
use worldline_proto::{EntityId, LeaseId, NodeId, Revision};
use worldline_real::{clock, directory::codec};
use worldline_scenarios::{inject::Now, nodes::Roles};
use worldline_system::{
    doors::directory::{Change, Key, Record, Value},
    time::{Duration as Span, Instant, UnixTime},
};

/// How soon a broken watch is tried again.
const AGAIN: Duration = Duration::from_millis(50);
/// How long one question to etcd may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// All keys of the directory.
const PREFIX: &str = "/worldline/";

/// A revision, as the watch told it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    /// When, by the machine's monotonic clock.
    pub at: Instant,
    /// Which.
    pub revision: Revision,
    /// What changed in it.
    pub changes: Vec<Change>,
}

/// A connection to etcd of the drill's own, which no fault touches but that etcd is gone.
#[derive(Debug)]
pub struct Directory {
    url: String,
    heard: Arc<Mutex<Vec<Heard>>>,
    watching: JoinHandle<()>,
}

impl Directory {
    /// Begins to watch. Called inside a runtime.
    #[must_use]
    pub fn watch(address: SocketAddr) -> Self {
        let (url, heard) = (format!("http://{address}"), Arc::new(Mutex::new(Vec::new())));
        let watching = tokio::spawn(watch(url.clone(), Arc::clone(&heard)));
        Self { url, heard, watching }
    }

    /// What has been heard up to now.
    #[must_use]
    pub fn heard(&self) -> Vec<Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn client(&self) -> Result<Client, String> {
        let connected = timeout(PATIENCE, Client::connect([&self.url], None)).await;
        connected.map_err(|_| "no answer".to_owned())?.map_err(|error| error.to_string())
    }

    /// Who leads and owns now. `None` where nobody says.
    pub async fn records(&self) -> Option<Records> {
        let mut client = self.client().await.ok()?;
        let options = etcd_client::GetOptions::new().with_prefix();
        let asked = timeout(PATIENCE, client.get(PREFIX, Some(options))).await;
        let answer = asked.ok()?.ok()?;
        Some(Records(answer.kvs().iter().filter_map(|pair| codec::record(pair).ok()).collect()))
    }

    /// Ends a lease.
    ///
    /// # Errors
    /// What etcd says.
    pub async fn revoke(&self, lease: LeaseId) -> Result<(), String> {
        let mut client = self.client().await?;
        // etcd's ids are signed.
        let id = lease.get().cast_signed();
        timeout(PATIENCE, client.lease_revoke(id))
            .await
            .map_err(|_| "no answer".to_owned())?
            .map_err(|e| e.to_string())?;
        Ok(())
    }

    /// Compacts the past away, up to what has been heard.
    ///
    /// # Errors
    /// What etcd says.
    pub async fn compact(&self) -> Result<(), String> {
        let mut client = self.client().await?;
        let revision = self.heard().last().map_or(1, |heard| i64::try_from(heard.revision.0).unwrap_or(1));
        let asked = timeout(PATIENCE, client.compact(revision, None)).await;
        asked.map_err(|_| "no answer".to_owned())?.map_err(|error| error.to_string())?;
        Ok(())
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        self.watching.abort();
    }
}

async fn watch(url: String, heard: Arc<Mutex<Vec<Heard>>>) {
    loop {
        let next = heard.lock().unwrap_or_else(PoisonError::into_inner).last().map_or(1, |last| last.revision.0 + 1);
        // One that cannot be had is asked for again: etcd may be gone for a while, and keeps what it had.
        let _ = follow(&url, next, &heard).await;
        sleep(AGAIN).await;
    }
}

async fn follow(url: &str, from: u64, heard: &Mutex<Vec<Heard>>) -> Result<(), etcd_client::Error> {
    let options = etcd_client::ConnectOptions::new()
        .with_connect_timeout(PATIENCE)
        .with_keep_alive(Duration::from_secs(1), Duration::from_secs(2));
    let mut client = Client::connect([url], Some(options)).await?;
    let from = i64::try_from(from).unwrap_or(i64::MAX);
    let options = WatchOptions::new().with_prefix().with_start_revision(from);
    let mut stream = client.watch(PREFIX, Some(options)).await?;
    while let Some(answer) = stream.message().await? {
        if answer.canceled() {
            return Ok(());
        }
        let news = revisions(clock::now(), &answer);
        heard.lock().unwrap_or_else(PoisonError::into_inner).extend(news);
    }
    Ok(())
}

/// The changes of an answer, by revision.
fn revisions(at: Instant, answer: &WatchResponse) -> Vec<Heard> {
    let mut all: Vec<Heard> = Vec::new();
    for event in answer.events() {
        // A key that is none of the directory's is none of a checker's.
        let (Some(pair), Ok(change)) = (event.kv(), codec::change(event)) else { continue };
        let revision = Revision(u64::try_from(pair.mod_revision()).unwrap_or(0));
        match all.last_mut() {
            Some(last) if last.revision == revision => last.changes.push(change),
            _ => all.push(Heard { at, revision, changes: vec![change] }),
        }
    }
    all
}

/// The directory as it stands.
#[derive(Clone, Debug)]
pub struct Records(Vec<Record>);

impl Records {
    fn leader(&self) -> Option<(NodeId, LeaseId)> {
        self.0.iter().find_map(|record| match record.value {
            Value::Leader(leader) => Some((leader.node, leader.lease)),
            _ => None,
        })
    }

    fn worker(&self, holds: impl Fn(LeaseId, NodeId) -> bool) -> Option<(LeaseId, NodeId)> {
        let workers = self.0.iter().filter_map(|record| match (record.key, record.value) {
            (Key::Worker(lease), Value::Worker(worker)) => Some((lease, worker.node)),
            _ => None,
        });
        workers.filter(|&(lease, node)| holds(lease, node)).last()
    }
}

/// The records, and which nodes stand for the services: their leader and their primary.
#[derive(Clone, Debug)]
pub struct Present {
    /// What the directory says. `None`: nothing.
    pub records: Option<Records>,
    /// The directory's.
    pub directory: Option<NodeId>,
    /// The ledger's.
    pub ledger: Option<NodeId>,
}

impl Roles for Present {
    fn orchestrator_leader(&self) -> Option<NodeId> {
        self.records.as_ref()?.leader().map(|(node, _)| node)
    }

    fn directory_leader(&self) -> Option<NodeId> {
        self.directory
    }

    fn ledger_primary(&self) -> Option<NodeId> {
        self.ledger
    }

    fn owner(&self, entity: EntityId) -> Option<NodeId> {
        let records = self.records.as_ref()?;
        let owner = records.0.iter().find_map(|record| match (record.key, record.value) {
            (Key::Owner(owned), Value::Owner(ownership)) if owned == entity => Some(ownership.lease),
            _ => None,
        })?;
        records.worker(|lease, _| lease == owner).map(|(_, node)| node)
    }
}

impl Now for Present {
    fn lease(&self, node: NodeId) -> Option<LeaseId> {
        let records = self.records.as_ref()?;
        let leader = records.leader().filter(|&(leader, _)| leader == node).map(|(_, lease)| lease);
        leader.or_else(|| records.worker(|_, at| at == node).map(|(lease, _)| lease))
    }
}

/// How the wall clock stood against the monotonic one, from time to time: what the ledger's commits are dated by.
#[derive(Clone, Debug, Default)]
pub struct WallClock(Vec<(Instant, UnixTime)>);

impl WallClock {
    /// Looks at both.
    pub fn look(&mut self) {
        let (before, wall, after) = (clock::now(), clock::unix_now(), clock::now());
        self.0.push((before + after.since(before) / 2, wall));
    }

    /// A moment of the wall clock, by the monotonic one: by the last look before it, or else the first.
    ///
    /// # Errors
    /// Nobody ever looked.
    pub fn monotonic(&self, wall: UnixTime) -> Result<Instant, Failed> {
        let before = self.0.iter().rev().find(|(_, known)| *known <= wall).or(self.0.first());
        let &(at, known) = before.ok_or_else(|| Failed::History("nobody has looked at the clocks".to_owned()))?;
        let (wall, known) = (wall.as_nanos(), known.as_nanos());
        Ok(if wall >= known { at + Span::from_nanos(wall - known) } else { at - Span::from_nanos(known - wall) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_is_dated_by_the_last_look_before_it() {
        let clocks = WallClock(vec![
            (Instant::from_nanos(100), UnixTime::from_nanos(1_000)),
            // The wall clock was set forward by 50 in between.
            (Instant::from_nanos(200), UnixTime::from_nanos(1_150)),
        ]);
        let at = |wall| clocks.monotonic(UnixTime::from_nanos(wall)).expect("looked").as_nanos();
        assert_eq!((at(1_040), at(1_160), at(990)), (140, 210, 90));
        assert!(WallClock::default().monotonic(UnixTime::from_nanos(1)).is_err());
    }
}
