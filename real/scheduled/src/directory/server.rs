//! etcd as its client shows it: connections that end, fall silent and have no leader, requests and answers that are lost, and a
//! directory that is compacted, and restored from a backup, while nobody looks. Its moods are drawn, or go in turn.

use super::{
    Shared, boss,
    line::{Fate, Line, Wire},
    model::Model,
    owned,
};
use crate::script::{between, draws, one_in, pause};
use madsim::{runtime::Handle, task::spawn};
use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, AtomicU64, Ordering},
};
use tokio::sync::oneshot;
use worldline_proto::LeaseId;
use worldline_real::directory::client::{Connected, Ends};
use worldline_system::{doors::entropy::Entropy, time::Duration};

/// The part of the draws for connections begins here.
const CONNECTIONS: u64 = 1_000;
/// How long the client waits for a member that accepts connections and never answers.
const SILENT: Duration = Duration::from_secs(2);
/// What others write has such numbers.
const OTHERS: u64 = 1 << 40;

/// What a world has that another has not: a restored directory cannot tell deletions apart from what never was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum World {
    /// The directory is restored from backups.
    Restored,
    /// It is compacted.
    Compacted,
    /// Records are deleted, and workers are watched.
    Deleting,
}

/// All members: they have one directory.
#[derive(Debug)]
pub struct Etcd {
    pub book: Shared,
    pub world: World,
    well: AtomicBool,
    connected: AtomicU64,
    pub alive: AtomicU64,
    era: AtomicU64,
    model: Mutex<Model>,
}

impl Etcd {
    pub fn new(book: Shared) -> Self {
        let (connected, alive, era) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
        let world = [World::Restored, World::Compacted, World::Deleting][(Handle::current().seed() % 3) as usize];
        let (well, model) = (AtomicBool::new(false), Mutex::new(Model::new()));
        Self { book, world, well, connected, alive, era, model }
    }

    /// From now on it does what it should.
    pub fn heal(&self) {
        self.well.store(true, Ordering::Relaxed);
    }

    /// Connections that somebody holds.
    pub fn connections(&self) -> u64 {
        self.alive.load(Ordering::Relaxed)
    }

    pub fn is_well(&self) -> bool {
        self.well.load(Ordering::Relaxed)
    }

    pub fn is_ill(&self, draws: &mut Entropy, one_in_times: u64) -> bool {
        one_in(draws, one_in_times) && !self.is_well()
    }

    pub fn era(&self) -> u64 {
        self.era.load(Ordering::Relaxed)
    }

    pub fn model(&self) -> MutexGuard<'_, Model> {
        lock(&self.model)
    }

    pub fn note(&self, what: &'static str) {
        self.book.book().note(what);
    }

    /// Renews a lease, if there is one, for this operation.
    pub fn renew(&self, lease: LeaseId, counter: u64) -> Option<Duration> {
        let renewed = self.model().renew(lease);
        self.book.book().renewed(counter, renewed);
        renewed
    }

    pub async fn open(self: Arc<Self>) -> Result<Connected, String> {
        let number = self.connected.fetch_add(1, Ordering::Relaxed);
        self.book.book().connects(number);
        let mut draws = draws(CONNECTIONS + number);
        pause(between(&mut draws, Duration::ZERO, Duration::from_millis(5))).await;
        self.meanwhile(number, &mut draws);
        if self.is_ill(&mut draws, 5) {
            self.note("nobody at an address");
            return Err("nobody answers".to_owned());
        }
        if self.is_ill(&mut draws, 12) {
            self.note("nobody answers a connection");
            pause(SILENT).await;
            return Err("never answers".to_owned());
        }
        self.alive.fetch_add(1, Ordering::Relaxed);
        let (fate, heard) = (Arc::new(Fate::new()), Arc::new(AtomicU64::new(1)));
        let (hang_up, hung_up) = oneshot::channel();
        let (gone_sender, gone) = oneshot::channel();
        drop(spawn(self.clone().play(fate.clone(), number, hung_up, gone_sender, fork(&mut draws))));
        let wire = Wire { era: self.era(), etcd: self, fate, heard: heard.clone() };
        let line = Line { wire, draws: Mutex::new(draws) };
        Ok(Connected { connection: Box::new(line), ends: Ends { hang_up, gone, heard_bytes: heard } })
    }

    /// What comes to pass while the adapter has no connection.
    fn meanwhile(&self, number: u64, draws: &mut Entropy) {
        if number == 0 || self.is_well() {
            return;
        }
        let mut model = self.model();
        for n in 0..draws.below(4) {
            model.put(boss(draws.below(4)), owned(OTHERS + number * 4 + n));
        }
        if one_in(draws, 3) {
            model.elect();
        }
        match (self.world, draws.below(6)) {
            (World::Restored, 0..3) => {
                model.restore(1 + draws.below(6));
                // It may have passed what was seen.
                for n in 0..draws.below(12) {
                    model.put(boss(draws.below(4)), owned(2 * OTHERS + number * 12 + n));
                }
            }
            (World::Restored, 3) => model.replace(),
            (World::Compacted, 0..3) => model.compact(),
            _ => return,
        }
        drop(model);
        match self.world {
            World::Restored => {
                self.era.fetch_add(1, Ordering::Relaxed);
                self.book.book().restored();
                self.note("a directory that was restored");
            }
            _ => self.note("a directory that was compacted"),
        }
    }

    /// What becomes of a connection. Each thing has its turn.
    async fn play(
        self: Arc<Self>,
        fate: Arc<Fate>,
        number: u64,
        hung_up: oneshot::Receiver<()>,
        gone: oneshot::Sender<()>,
        mut draws: Entropy,
    ) {
        let late = one_in(&mut draws, 3);
        tokio::select! {
            biased;
            _ = hung_up => {
                self.note("a connection that is given up");
                return fate.end();
            }
            () = fate.ended() => {}
            () = self.clone().mood(&fate, number, fork(&mut draws)) => fate.ended().await,
        }
        if late {
            self.note("a connection that is told late to have ended");
            pause(between(&mut draws, Duration::ZERO, Duration::from_millis(60))).await;
        }
        drop(gone);
    }

    async fn mood(self: Arc<Self>, fate: &Fate, number: u64, mut draws: Entropy) {
        pause(between(&mut draws, Duration::from_millis(10), Duration::from_secs(3))).await;
        if self.is_well() {
            return;
        }
        let flag = match (Handle::current().seed() / 3 + number) % 5 {
            0 => {
                self.note("a connection that has ended");
                return fate.end();
            }
            1 => {
                self.note("a connection that is silent");
                return fate.silent.store(true, Ordering::Relaxed);
            }
            2 => &fate.leaderless,
            3 => &fate.stuck,
            _ => return,
        };
        flag.store(true, Ordering::Relaxed);
        for _ in 0..between(&mut draws, Duration::ZERO, Duration::from_secs(9)).as_nanos() / 100_000_000 {
            pause(Duration::from_millis(100)).await;
            if self.is_well() {
                break;
            }
        }
        flag.store(false, Ordering::Relaxed);
    }
}

/// Draws of their own.
pub fn fork(draws: &mut Entropy) -> Entropy {
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&draws.bits().to_le_bytes());
    Entropy::from_seed(seed)
}

pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Whoever panics ends the run.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
