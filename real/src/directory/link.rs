//! The one connection that an adapter keeps: to a member that has shown itself to be etcd, and to another when that is gone.
//!
//! A member is gone when the connection ends, when nothing at all is heard of it for [`PULSE`] and [`PROBE`] together although
//! it was asked, and, where there are others, when it knows no leader. What waits on the connection ends with it.
//!
//! Behind a single address there may be several members too (a load balancer, a name of many). So where the one that answers
//! has no quorum, another connection is tried beside it, and takes its place once it serves. Until then the first stays: it
//! still serves reads that need no quorum.
//!
//! Deliberately absent: HTTP/2 pings. etcd hangs up on whoever pings more often than every 5 s, so a question that costs
//! etcd nothing (a serializable read of one key) is what shows that it lives.

use super::{
    Config, Endpoint,
    client::{Client, Connected, Connection, Ends},
};
use crate::ready::Readiness;
use std::{
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering},
    time::Duration,
};
use tokio::{
    sync::{Notify, mpsc, watch},
    time::{Instant, sleep, timeout, timeout_at},
};
use worldline_system::{
    backoff::Backoff,
    doors::{directory::Consistency, entropy::Entropy},
    knobs::Retry,
};

/// How long a member may take to accept a connection, and what is asked may wait for one.
pub(super) const CONNECT: Duration = Duration::from_secs(1);
/// How often a member is asked whether it lives and has a quorum.
const PULSE: Duration = Duration::from_secs(1);
/// How long it may take to answer that.
pub(super) const PROBE: Duration = Duration::from_secs(2);
/// How long this process may need to read what has come in, once it runs again after it stood still.
const GRACE: Duration = Duration::from_millis(100);
/// Questions in a row that a member may fail to answer for want of a quorum before another member is asked.
const FAILED_PROBES: u32 = 2;
/// What is missing when the directory is.
const NEED: &str = "directory";

/// A connection to one member.
pub(super) struct Line {
    /// Every connection of an adapter has a higher one.
    pub number: u64,
    pub connection: Box<dyn Connection>,
}

/// Where the present connection is found.
#[derive(Clone)]
pub(super) struct Link {
    present: Arc<Present>,
    suspects: mpsc::Sender<u64>,
}

impl Link {
    /// A link, and what keeps it until `closing` says so.
    pub fn new(
        client: Arc<dyn Client>,
        entropy: Entropy,
        config: Config,
        ready: Readiness,
        mut closing: watch::Receiver<bool>,
    ) -> (Self, impl Future<Output = ()> + Send) {
        let present = Arc::new(Present::default());
        let (suspects, suspected) = mpsc::channel(1);
        let addresses: Vec<String> = config.endpoints.iter().map(Endpoint::to_string).collect();
        ready.missing(NEED, format!("not yet connected to etcd at {}", addresses.join(", ")));
        let keeper =
            Keeper { client, config, ready, present: Kept(present.clone()), suspected, number: 0, tries: 0, entropy };
        let task = async move {
            tokio::select! {
                biased;
                _ = closing.wait_for(|&closing| closing) => {}
                () = keeper.keep() => {}
            }
        };
        (Self { present, suspects }, task)
    }

    /// A connection behind number `behind`, as soon as there is one; `None` if there is none by then.
    pub async fn line(&self, behind: u64, by: Instant) -> Option<Arc<Line>> {
        timeout_at(by, self.present.behind(behind)).await.ok()?
    }

    /// The member of this connection knows no leader.
    pub fn suspect(&self, number: u64) {
        // One suspicion at a time is enough.
        let _ = self.suspects.try_send(number);
    }
}

/// The present connection. Who waits for one goes on in the order of asking, so that what was asked first leaves first.
#[derive(Default)]
struct Present {
    line: Mutex<Stage>,
    changed: Notify,
}

#[derive(Default)]
struct Stage {
    line: Option<Arc<Line>>,
    /// Nobody keeps it any more.
    over: bool,
}

impl Present {
    /// The first connection behind a number; `None` where none will come.
    async fn behind(&self, number: u64) -> Option<Arc<Line>> {
        loop {
            let mut changed = pin!(self.changed.notified());
            changed.as_mut().enable();
            {
                let stage = self.stage();
                let newer = stage.line.clone().filter(|line| line.number > number);
                if newer.is_some() || stage.over {
                    return newer;
                }
            }
            changed.await;
        }
    }

    fn stage(&self) -> MutexGuard<'_, Stage> {
        // Nothing panics while it holds the lock.
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The keeper's end of it.
struct Kept(Arc<Present>);

impl Kept {
    fn replace(&self, line: Option<Arc<Line>>) {
        self.0.stage().line = line;
        self.0.changed.notify_waiters();
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.0.stage().over = true;
        self.0.changed.notify_waiters();
    }
}

/// Keeps the connection.
struct Keeper {
    client: Arc<dyn Client>,
    config: Config,
    ready: Readiness,
    present: Kept,
    suspected: mpsc::Receiver<u64>,
    number: u64,
    /// Connections tried so far.
    tries: usize,
    entropy: Entropy,
}

/// Why a connection is no longer tended.
struct Left {
    problem: String,
    /// Whether it has served a linearizable read.
    served: bool,
    /// What takes its place.
    next: Option<(Line, Ends)>,
}

impl Keeper {
    async fn keep(mut self) {
        let mut backoff = Backoff::default();
        let count = self.config.endpoints.len();
        let mut problems = vec![None; count];
        let Some(mut at) = usize::try_from(self.entropy.bits()).ok().and_then(|drawn| drawn.checked_rem(count)) else {
            return self.ready.missing(NEED, "no address of an etcd member is configured");
        };
        let mut next = None;
        loop {
            let connected = match next.take() {
                Some(next) => Ok(next),
                None => self.connect(at).await,
            };
            let problem = match connected {
                Err(problem) => problem,
                Ok((line, ends)) => {
                    self.number = line.number;
                    let line = Arc::new(line);
                    self.present.replace(Some(line.clone()));
                    tracing::info!(member = %self.config.endpoints[at], "connected to etcd");
                    let left = self.tend(at, &line, ends).await;
                    if left.served {
                        backoff.reset();
                        problems.fill(None);
                    }
                    if left.next.is_some() {
                        next = left.next;
                        continue;
                    }
                    self.present.replace(None);
                    left.problem
                }
            };
            problems[at] = Some(problem);
            let known: Vec<&str> = problems.iter().flatten().map(String::as_str).collect();
            self.ready.missing(NEED, known.join("; "));
            at = (at + 1) % count;
            // A round through all members without one that serves: wait before the next.
            if problems.iter().all(Option::is_some) {
                sleep(crate::clock::span(backoff.fail(Retry::default(), &mut self.entropy))).await;
            }
        }
    }

    async fn connect(&mut self, at: usize) -> Result<(Line, Ends), String> {
        self.tries = self.tries.wrapping_add(1);
        let Connected { connection, ends } = self.client.connect(&self.config.endpoints[at], self.tries).await?;
        Ok((Line { number: self.number + 1, connection }, ends))
    }

    /// Another connection to the same address, if it serves where the present one does not.
    async fn beside(&mut self, at: usize) -> Option<(Line, Ends)> {
        let other = self.connect(at).await.ok()?;
        probe(&other.0).await.ok().map(|()| other)
    }

    /// Looks after a connection until it has to be replaced.
    async fn tend(&mut self, at: usize, line: &Line, mut ends: Ends) -> Left {
        let several = self.config.endpoints.len() > 1;
        let endpoint = self.config.endpoints[at].clone();
        let (mut served, mut failures) = (false, 0);
        let (mut backoff, mut look_beside) = (Backoff::default(), Instant::now());
        loop {
            let heard = ends.heard_bytes.load(Ordering::Relaxed);
            let probed = tokio::select! {
                biased;
                _ = &mut ends.gone => return ended(&endpoint, served),
                probed = probe(line) => probed,
            };
            match probed {
                Ok(()) => {
                    (served, failures) = (true, 0);
                    backoff.reset();
                    self.ready.fulfilled(NEED);
                }
                Err(_) if silent(&ends, heard).await => {
                    let problem = format!("etcd at {endpoint} has stopped answering");
                    return Left { problem, served, next: None };
                }
                Err(problem) => {
                    failures += 1;
                    let problem = format!("etcd at {endpoint} answers but serves no linearizable read: {problem}");
                    if several && failures >= FAILED_PROBES {
                        return Left { problem, served, next: None };
                    }
                    self.ready.missing(NEED, &problem);
                    if failures >= FAILED_PROBES && Instant::now() >= look_beside {
                        let next = tokio::select! {
                            biased;
                            _ = &mut ends.gone => return ended(&endpoint, served),
                            next = self.beside(at) => next,
                        };
                        if next.is_some() {
                            return Left { problem, served, next };
                        }
                        let wait = backoff.fail(Retry::default(), &mut self.entropy);
                        look_beside = Instant::now() + crate::clock::span(wait);
                    }
                }
            }
            let pulse = sleep(PULSE);
            tokio::pin!(pulse);
            loop {
                tokio::select! {
                    biased;
                    _ = &mut ends.gone => return ended(&endpoint, served),
                    Some(number) = self.suspected.recv() => {
                        if several && number == line.number {
                            let problem = format!("etcd at {endpoint} knows no leader");
                            return Left { problem, served, next: None };
                        }
                    }
                    () = &mut pulse => break,
                }
            }
        }
    }
}

fn ended(endpoint: &Endpoint, served: bool) -> Left {
    Left { problem: format!("etcd at {endpoint} has ended the connection"), served, next: None }
}

/// Whether nothing was heard since so many bytes. What came in while this process itself stood still is read first.
async fn silent(ends: &Ends, heard: u64) -> bool {
    let nothing = || ends.heard_bytes.load(Ordering::Relaxed) == heard;
    if nothing() {
        sleep(GRACE).await;
    }
    nothing()
}

/// Asks a member whether it lives and has a quorum.
async fn probe(line: &Line) -> Result<(), String> {
    let (_, linearizable) = tokio::join!(
        timeout(PROBE, line.connection.probe(Consistency::Serializable)),
        timeout(PROBE, line.connection.probe(Consistency::Linearizable)),
    );
    match linearizable {
        Ok(probed) => probed,
        Err(_) => Err(format!("none within {} s, so it may have no quorum", PROBE.as_secs())),
    }
}
