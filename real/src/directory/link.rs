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

use super::{Config, Endpoint, codec, verdict, wire};
use crate::{
    machine::{Machine, Stream},
    ready::Readiness,
};
use etcd_client::{Channel, Client, ConnectOptions, Error, GetOptions, KvClient, LeaseClient, WatchClient};
use std::{
    io,
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
    doors::{directory::Key, entropy::Entropy},
    knobs::Retry,
};

/// How long a member may take to accept a connection, and what is asked may wait for one.
pub(super) const CONNECT: Duration = Duration::from_secs(1);
/// How often a member is asked whether it lives and has a quorum.
const PULSE: Duration = Duration::from_secs(1);
/// How long it may take to answer that.
const PROBE: Duration = Duration::from_secs(2);
/// How long this process may need to read what has come in, once it runs again after it stood still.
const GRACE: Duration = Duration::from_millis(100);
/// Questions in a row that a member may fail to answer for want of a quorum before another member is asked.
const FAILED_PROBES: u32 = 2;
/// The largest answer, in bytes: what an operator wrote by hand may be large.
const ANSWER_BYTES: usize = 64 << 20;
/// What a stream may hold that nobody has read, in bytes; and a connection. A watch that waits for its turn to be read must
/// not stop the renewals beside it.
const WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 16 * WINDOW_BYTES;
/// The first version of etcd that has all that is used.
const VERSION_MIN: (u32, u32) = (3, 4);
/// What is missing when the directory is.
const NEED: &str = "directory";

/// A connection to one member.
pub(super) struct Line {
    /// Every connection of an adapter has a higher one.
    pub number: u64,
    /// Asks only a member that knows a leader.
    strict: Client,
    /// Asks whatever the member has.
    lenient: Client,
}

impl Line {
    pub fn kv(&self) -> KvClient {
        self.strict.kv_client().max_decoding_message_size(ANSWER_BYTES)
    }

    /// For reads that need no quorum.
    pub fn kv_without_leader(&self) -> KvClient {
        self.lenient.kv_client().max_decoding_message_size(ANSWER_BYTES)
    }

    pub fn lease(&self) -> LeaseClient {
        self.strict.lease_client()
    }

    pub fn watch(&self) -> WatchClient {
        self.strict.watch_client().max_decoding_message_size(ANSWER_BYTES)
    }
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
        machine: Arc<dyn Machine>,
        config: Config,
        ready: Readiness,
        mut closing: watch::Receiver<bool>,
    ) -> (Self, impl Future<Output = ()> + Send) {
        let present = Arc::new(Present::default());
        let (suspects, suspected) = mpsc::channel(1);
        let addresses: Vec<String> = config.endpoints.iter().map(Endpoint::to_string).collect();
        ready.missing(NEED, format!("not yet connected to etcd at {}", addresses.join(", ")));
        let entropy = machine.entropy().unwrap_or_else(|_| Entropy::from_seed([0; 32]));
        let keeper =
            Keeper { machine, config, ready, present: Kept(present.clone()), suspected, number: 0, tries: 0, entropy };
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
    machine: Arc<dyn Machine>,
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
    next: Option<(Line, wire::Ends)>,
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

    async fn connect(&mut self, at: usize) -> Result<(Line, wire::Ends), String> {
        self.tries = self.tries.wrapping_add(1);
        connect(&*self.machine, &self.config.endpoints[at], self.number + 1, self.tries).await
    }

    /// Another connection to the same address, if it serves where the present one does not.
    async fn beside(&mut self, at: usize) -> Option<(Line, wire::Ends)> {
        let other = self.connect(at).await.ok()?;
        probe(&other.0).await.ok().map(|()| other)
    }

    /// Looks after a connection until it has to be replaced.
    async fn tend(&mut self, at: usize, line: &Line, mut ends: wire::Ends) -> Left {
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
async fn silent(ends: &wire::Ends, heard: u64) -> bool {
    let nothing = || ends.heard_bytes.load(Ordering::Relaxed) == heard;
    if nothing() {
        sleep(GRACE).await;
    }
    nothing()
}

/// Asks a member whether it lives and has a quorum.
async fn probe(line: &Line) -> Result<(), String> {
    let path = codec::path(Key::Leader);
    let (mut lenient, mut strict) = (line.kv_without_leader(), line.kv());
    let options = || GetOptions::new().with_keys_only();
    let (_, linearizable) = tokio::join!(
        timeout(PROBE, lenient.get(path.clone(), Some(options().with_serializable()))),
        timeout(PROBE, strict.get(path.clone(), Some(options()))),
    );
    match linearizable {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(verdict::in_words(&error)),
        Err(_) => Err(format!("none within {} s, so it may have no quorum", PROBE.as_secs())),
    }
}

/// Opens a connection to whoever stands behind an address. A name may stand for several: each try begins with another.
async fn dial(machine: &dyn Machine, endpoint: &Endpoint, tries: usize) -> io::Result<Box<dyn Stream>> {
    let mut addresses = machine.lookup(endpoint.host.clone(), endpoint.port).await?;
    let first = tries.checked_rem(addresses.len()).unwrap_or(0);
    addresses.rotate_left(first);
    let stream = machine.connect(addresses).await?;
    stream.prompt()?;
    Ok(stream)
}

/// Connects to a member, behind so many tries, and makes sure that it is etcd.
pub(super) async fn connect(
    machine: &dyn Machine,
    endpoint: &Endpoint,
    number: u64,
    tries: usize,
) -> Result<(Line, wire::Ends), String> {
    let nobody = |problem: String| format!("nobody answers at {endpoint}, where etcd should: {problem}");
    let stream = match timeout(CONNECT, dial(machine, endpoint, tries)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Err(nobody(error.to_string())),
        Err(_) => return Err(nobody(format!("no connection within {} s", CONNECT.as_secs()))),
    };
    let (wire, ends) = wire::Wire::new(stream);
    let opened = async {
        let transport = tonic::transport::Endpoint::from_shared(format!("http://{endpoint}"))?
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .connect_with_connector(wire::Once::new(wire))
            .await?;
        let options = match &endpoint.user {
            None => ConnectOptions::new(),
            Some((name, password)) => ConnectOptions::new().with_user(name, password).with_auto_token_refresh(true),
        };
        let channel = Channel::Tonic(transport);
        let lenient = Client::from_channel(channel.clone(), Some(options.clone())).await?;
        let version = lenient.maintenance_client().status().await?.version().to_owned();
        let strict = Client::from_channel(channel, Some(options.with_require_leader(true))).await?;
        Ok::<_, Error>((Line { number, strict, lenient }, version))
    };
    let (line, version) = match timeout(PROBE, opened).await {
        Ok(Ok(opened)) => opened,
        Ok(Err(error)) => return Err(not_etcd(endpoint, &error)),
        Err(_) => {
            return Err(format!("{endpoint} accepts connections and never answers: etcd 3.4 or newer should be there"));
        }
    };
    if new_enough(&version) {
        Ok((line, ends))
    } else {
        Err(format!("etcd at {endpoint} is of version `{version}`: 3.4 or newer is needed"))
    }
}

fn not_etcd(endpoint: &Endpoint, error: &Error) -> String {
    let words = verdict::in_words(error);
    if verdict::verdict(error) == verdict::Verdict::Unknown {
        format!("what answers at {endpoint} is not etcd 3.4 or newer: {words}")
    } else {
        format!("etcd at {endpoint} does not let us in: {words}")
    }
}

fn new_enough(version: &str) -> bool {
    let mut numbers = version.split('.').map(str::parse);
    let (major, minor) = (numbers.next(), numbers.next());
    matches!((major, minor), (Some(Ok(major)), Some(Ok(minor))) if (major, minor) >= VERSION_MIN)
}

#[cfg(test)]
mod tests {
    #[test]
    fn etcd_is_served_from_3_4_on() {
        assert!(["3.4.0", "3.5.16", "3.10.0-rc.1", "4.0.0"].into_iter().all(super::new_enough));
        assert!(!["3.3.27", "2.9.10", "", "3", "x.y", "not etcd"].into_iter().any(super::new_enough));
    }
}
