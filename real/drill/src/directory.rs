//! etcd as the drill itself speaks to it, past all links: what its watch tells from revision 1 on, and what is done to leases.
//!
//! Invariant: what is missing or cannot be read is an error, never a shorter history.

use crate::{present::Records, processes::Failed};
use etcd_client::{Client, Event, EventType, WatchOptions};
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    task::JoinHandle,
    time::{sleep, timeout},
};
use worldline_proto::{LeaseId, NodeId, Revision};
use worldline_real::{clock, directory::codec};
use worldline_system::{
    doors::directory::Change,
    time::{Duration as Span, Instant},
};

/// How soon a broken watch is tried again.
const AGAIN: Duration = Duration::from_millis(50);
/// How long one question to etcd may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long the watch may take to tell the last revision.
const LAST_PATIENCE: Duration = Duration::from_secs(10);
/// How much later than its commit a standing watch may tell of a revision. It is direct, but the machine may be loaded; one
/// that is silent for longer is broken off and begun anew.
const WATCH_LATE_MAX: Span = Span::from_secs(2);
/// All keys of the directory.
const PREFIX: &str = "/worldline/";

/// A revision, as the watch told it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    /// When, by the machine's monotonic clock: it happened before.
    pub at: Instant,
    /// When at the earliest it can have happened.
    pub earliest: Instant,
    /// Which.
    pub revision: Revision,
    /// What changed in it.
    pub changes: Vec<Change>,
}

/// What the watch has told.
#[derive(Clone, Debug, Default)]
struct Watched {
    heard: Vec<Heard>,
    /// What it told that nobody can read, or why it can tell no more.
    wrong: Option<String>,
    /// When the watch last told anything.
    told: Instant,
}

/// Connections to etcd of the drill's own, which no fault touches but that members are gone.
#[derive(Debug)]
pub struct Directory {
    /// Its members.
    members: Arc<[(NodeId, String)]>,
    watched: Arc<Mutex<Watched>>,
    watching: JoinHandle<()>,
}

impl Directory {
    /// Begins to watch. Called inside a runtime.
    #[must_use]
    pub fn watch(members: Vec<(NodeId, SocketAddr)>) -> Self {
        let watched = Watched { told: clock::now(), ..Watched::default() };
        let watched = Arc::new(Mutex::new(watched));
        let members: Arc<[_]> =
            members.into_iter().map(|(node, address)| (node, format!("http://{address}"))).collect();
        let watching = tokio::spawn(watch(Arc::clone(&members), Arc::clone(&watched)));
        Self { members, watched, watching }
    }

    /// What has been heard up to now.
    #[must_use]
    pub fn heard(&self) -> Vec<Heard> {
        locked(&self.watched).heard.clone()
    }

    /// All that has been heard, once that is all there is: up to the revision at which etcd stands now.
    ///
    /// # Errors
    /// The watch has not told all, or told what nobody can read.
    pub async fn complete(&self) -> Result<Vec<Heard>, Failed> {
        let incomplete = |why: String| Failed::History(format!("etcd's watch is incomplete: {why}"));
        let (stands, keys) =
            self.stands().await.map_err(|why| incomplete(format!("etcd does not say where it stands: {why}")))?;
        let until = tokio::time::Instant::now() + LAST_PATIENCE;
        loop {
            let watched = locked(&self.watched).clone();
            let missing = missing(&watched, stands, &keys);
            match missing {
                None => return Ok(watched.heard),
                Some(why) if watched.wrong.is_some() || tokio::time::Instant::now() >= until => {
                    return Err(incomplete(why));
                }
                Some(_) => sleep(AGAIN).await,
            }
        }
    }

    /// The revision at which etcd stands, and of each key the one that changed it last.
    async fn stands(&self) -> Result<(Revision, BTreeMap<Vec<u8>, Revision>), String> {
        let options = etcd_client::GetOptions::new().with_prefix().with_keys_only();
        let answer = self.ask(async |mut client| client.get(PREFIX, Some(options.clone())).await).await?;
        let revision = |bits: i64| Revision(u64::try_from(bits).unwrap_or(0));
        let keys = answer.kvs().iter().map(|pair| (pair.key().to_vec(), revision(pair.mod_revision()))).collect();
        let header = answer.header().ok_or("its answer carries no revision")?;
        Ok((revision(header.revision()), keys))
    }

    /// Asks one member after the other until one answers; what the last one says.
    async fn ask<T>(&self, ask: impl AsyncFn(Client) -> Result<T, etcd_client::Error>) -> Result<T, String> {
        let mut said = Err("it has no member".to_owned());
        for (_, url) in self.members.iter() {
            said = asked(url, &ask).await;
            if said.is_ok() {
                break;
            }
        }
        said
    }

    /// The member that leads, as it says itself. `None` where nobody does.
    pub async fn leader(&self) -> Option<NodeId> {
        for (node, url) in self.members.iter() {
            let Ok(status) = asked(url, &async |mut client: Client| client.status().await).await else { continue };
            if status.header().is_some_and(|header| header.member_id() == status.leader()) {
                return Some(*node);
            }
        }
        None
    }

    /// Has the leader hand over to the member behind it that runs.
    ///
    /// # Errors
    /// Nobody leads, nobody else runs, or what etcd says.
    pub async fn hand_over(&self) -> Result<(), String> {
        let (mut members, mut leader) = (Vec::new(), None);
        for (_, url) in self.members.iter() {
            let Ok(status) = asked(url, &async |mut client: Client| client.status().await).await else { continue };
            let Some(id) = status.header().map(|header| header.member_id()) else { continue };
            if id == status.leader() {
                leader = Some(members.len());
            }
            members.push((url, id));
        }
        let leader = leader.ok_or("nobody leads")?;
        let (url, _) = members[leader];
        let behind = (leader + 1) % members.len();
        if behind == leader {
            return Err("nobody else runs".to_owned());
        }
        let (_, next) = members[behind];
        asked(url, &async |mut client: Client| client.move_leader(next).await).await.map(drop)
    }

    /// Who leads and owns now. `None` where nobody says.
    pub async fn records(&self) -> Option<Records> {
        let options = etcd_client::GetOptions::new().with_prefix();
        let answer = self.ask(async |mut client| client.get(PREFIX, Some(options.clone())).await).await.ok()?;
        Some(Records::of(answer.kvs().iter().filter_map(|pair| codec::record(pair).ok()).collect()))
    }

    /// Ends a lease.
    ///
    /// # Errors
    /// What etcd says.
    pub async fn revoke(&self, lease: LeaseId) -> Result<(), String> {
        // etcd's ids are signed.
        let id = lease.get().cast_signed();
        self.ask(async |mut client| client.lease_revoke(id).await).await.map(drop)
    }

    /// Compacts the past away, up to what has been heard.
    ///
    /// # Errors
    /// What etcd says.
    pub async fn compact(&self) -> Result<(), String> {
        let revision = self.heard().last().map_or(1, |heard| i64::try_from(heard.revision.0).unwrap_or(1));
        self.ask(async |mut client| client.compact(revision, None).await).await.map(drop)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        self.watching.abort();
    }
}

/// What a member answers.
async fn asked<T>(url: &str, ask: &impl AsyncFn(Client) -> Result<T, etcd_client::Error>) -> Result<T, String> {
    let answered = timeout(PATIENCE, async { ask(Client::connect([url], None).await?).await }).await;
    answered.map_err(|_| "no answer".to_owned())?.map_err(|error| error.to_string())
}

fn locked(watched: &Mutex<Watched>) -> MutexGuard<'_, Watched> {
    watched.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the watch has not told of how etcd stands.
fn missing(watched: &Watched, stands: Revision, keys: &BTreeMap<Vec<u8>, Revision>) -> Option<String> {
    if let Some(wrong) = &watched.wrong {
        return Some(wrong.clone());
    }
    let last = watched.heard.last().map_or(Revision(0), |heard| heard.revision);
    // A new etcd stands at revision 1, and nothing has changed in it.
    if last < stands && stands > Revision(1) {
        return Some(format!("it ends at revision {last}, and etcd stands at {stands}"));
    }
    let mut told: BTreeMap<Vec<u8>, Revision> = BTreeMap::new();
    for heard in &watched.heard {
        for change in &heard.changes {
            match change {
                Change::Put(record) => told.insert(codec::path(record.key).into_bytes(), heard.revision),
                Change::Deleted(key) => told.remove(codec::path(*key).as_bytes()),
            };
        }
    }
    // Whatever has come since is the watch's alone.
    let odd = keys.iter().find(|&(key, revision)| last == stands && told.get(key) != Some(revision));
    odd.map(|(key, revision)| format!("it did not tell that revision {revision} put {}", String::from_utf8_lossy(key)))
}

async fn watch(members: Arc<[(NodeId, String)]>, watched: Arc<Mutex<Watched>>) {
    // One that has ended is begun anew at the next member.
    for (_, url) in members.iter().cycle() {
        let (next, told) = {
            let watched = locked(&watched);
            (watched.heard.last().map_or(1, |last| last.revision.0 + 1), watched.told)
        };
        // One that cannot be had is asked for again: etcd may be gone for a while, and keeps what it had. Whether it has told
        // all is asked at the end.
        let _ = follow(url, next, told, &watched).await;
        if locked(&watched).wrong.is_some() {
            return;
        }
        sleep(AGAIN).await;
    }
}

/// Follows the directory from a revision on. The watch before this one last told something at `told`.
async fn follow(url: &str, from: u64, told: Instant, watched: &Mutex<Watched>) -> Result<(), etcd_client::Error> {
    let options = etcd_client::ConnectOptions::new()
        .with_connect_timeout(PATIENCE)
        .with_keep_alive(Duration::from_millis(500), Duration::from_secs(1));
    let mut client = Client::connect([url], Some(options)).await?;
    let from = i64::try_from(from).unwrap_or(i64::MAX);
    let options = WatchOptions::new().with_prefix().with_start_revision(from);
    let mut stream = client.watch(PREFIX, Some(options)).await?;
    // What had happened before this watch stood was told by nobody since the one before it.
    let mut before = None;
    while let Some(answer) = stream.message().await? {
        let now = clock::now();
        if answer.compact_revision() > 0 {
            let why = format!("etcd has compacted away what comes before revision {}", answer.compact_revision());
            locked(watched).wrong = Some(why);
        }
        if answer.canceled() {
            return Ok(());
        }
        let stands = answer.header().map_or(0, |header| u64::try_from(header.revision()).unwrap_or(0));
        let before = *before.get_or_insert(Revision(stands));
        let earliest = |revision| if revision <= before { told } else { now } - WATCH_LATE_MAX;
        let news = revisions(now, earliest, answer.events());
        let mut watched = locked(watched);
        watched.told = now;
        match news {
            Ok(news) => watched.heard.extend(news),
            Err(wrong) => {
                watched.wrong = Some(wrong);
                return Ok(());
            }
        }
    }
    Ok(())
}

/// The changes of an answer, by revision.
///
/// # Errors
/// One that no role could read either.
fn revisions(at: Instant, earliest: impl Fn(Revision) -> Instant, events: &[Event]) -> Result<Vec<Heard>, String> {
    let mut all: Vec<Heard> = Vec::new();
    for event in events {
        let pair = event.kv().ok_or("an event has no key")?;
        let change = match event.event_type() {
            // To a role an unreadable value is not there. Here it is a fault of whoever wrote it.
            EventType::Put => codec::record(pair).map(Change::Put),
            EventType::Delete => codec::change(event),
        };
        let change = change.map_err(|error| error.to_string())?;
        let revision = Revision(u64::try_from(pair.mod_revision()).unwrap_or(0));
        match all.last_mut() {
            Some(last) if last.revision == revision => last.changes.push(change),
            _ => all.push(Heard { at, earliest: earliest(revision), revision, changes: vec![change] }),
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use worldline_proto::EntityId;
    use worldline_system::doors::directory::{Key, Record, Value};

    fn boss() -> Key {
        Key::Owner(EntityId::new(worldline_proto::EntityKind::Boss, 1).expect("small"))
    }

    #[test]
    fn a_watch_that_ends_early_or_told_what_nobody_reads_is_incomplete() {
        let owned = Value::Owner(worldline_system::doors::directory::Ownership {
            lease: LeaseId::from_bits(7),
            epoch: worldline_proto::Epoch(1),
            nonce: worldline_proto::Nonce(1),
        });
        let put = |revision| {
            let record = Record { key: boss(), value: owned, mod_revision: Revision(revision), lease: None };
            let (at, revision, changes) = (Instant::default(), Revision(revision), vec![Change::Put(record)]);
            Heard { at, earliest: at, revision, changes }
        };
        let watched = |heard, wrong| Watched { heard, wrong, told: Instant::default() };
        let keys = |revision| BTreeMap::from([(codec::path(boss()).into_bytes(), Revision(revision))]);
        let none = BTreeMap::new();
        assert_eq!(missing(&watched(vec![], None), Revision(1), &none), None, "nothing has happened");
        assert_eq!(missing(&watched(vec![put(2), put(3)], None), Revision(3), &keys(3)), None);
        assert_eq!(missing(&watched(vec![put(2), put(4)], None), Revision(3), &keys(3)), None, "it went on since");
        let short = missing(&watched(vec![put(2)], None), Revision(3), &keys(3)).expect("short");
        assert!(short.contains("ends at revision 2") && short.contains("stands at 3"), "{short}");
        let mute = missing(&watched(vec![], None), Revision(2), &keys(2)).expect("it never told anything");
        assert!(mute.contains("ends at revision 0"), "{mute}");
        let mut other = keys(3);
        other.insert(codec::path(Key::Leader).into_bytes(), Revision(2));
        let hole = missing(&watched(vec![put(3)], None), Revision(3), &other).expect("a hole");
        assert!(hole.contains("revision 2") && hole.contains("leader"), "{hole}");
        let wrong = watched(vec![put(2)], Some("`/worldline/x` is no key".to_owned()));
        assert_eq!(missing(&wrong, Revision(2), &keys(2)), wrong.wrong);
    }
}
