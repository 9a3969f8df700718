//! The one connection that an adapter keeps: to a server that has shown itself to be NATS with JetStream, and to another when
//! that is gone.
//!
//! A connection is gone when the server ends it, when nothing is heard for three pings, or when too many requests on it were
//! never answered. What waits on it ends with it, and so do its consumers: nothing is kept for the next one.

use super::{
    Config, Endpoint, Limits,
    client::{Client, Connected, Connection, Problem},
    publishes::Publishes,
};
use crate::{Inbox, entropy, ready::Readiness};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep, timeout, timeout_at},
};
use worldline_system::{backoff::Backoff, doors::entropy::Entropy, knobs::Retry};

/// How long a server may take to let us in, and what is asked may wait for a connection.
pub(super) const CONNECT: Duration = Duration::from_secs(1);
/// How long a server may take to greet us, and to answer for the stream.
pub(super) const PROBE: Duration = Duration::from_secs(2);
/// How often a server is pinged, and the stream is looked at. Three pings unanswered end the connection.
pub(super) const PULSE: Duration = Duration::from_secs(1);
/// What may stay unanswered on one connection before it is replaced: the client keeps a slot for some of it.
pub(super) const UNANSWERED: u32 = 1_024;
/// What a process does without when it has no bus.
const NEED: &str = "bus";

/// A connection to one server.
pub(super) struct Line {
    /// Every connection of an adapter has a higher one.
    pub number: u64,
    pub connection: Box<dyn Connection>,
    /// The stream behind it is ours.
    pub serves: AtomicBool,
    /// The connection is gone, or given up.
    over: Arc<watch::Sender<bool>>,
    pub unanswered: AtomicU32,
    pub publishes: Publishes,
}

impl Line {
    fn new(number: u64, connection: Box<dyn Connection>, over: Arc<watch::Sender<bool>>, inbox: Inbox) -> Self {
        let (serves, unanswered) = (AtomicBool::new(false), AtomicU32::new(0));
        Self { number, connection, serves, over, unanswered, publishes: Publishes::new(inbox) }
    }

    /// It is used no more.
    fn end(&self) {
        self.over.send_replace(true);
        self.publishes.end();
    }

    /// Returns once the connection is gone.
    pub async fn gone(&self) {
        let mut over = self.over.subscribe();
        // The line itself holds the sender.
        let _ = over.wait_for(|&over| over).await;
    }
}

/// Where the present connection is found.
#[derive(Clone)]
pub(super) struct Link {
    lines: watch::Receiver<Option<Arc<Line>>>,
    suspects: mpsc::Sender<u64>,
}

impl Link {
    /// A link, and what keeps it until `closing` says so.
    pub fn new(
        client: Arc<dyn Client>,
        config: Config,
        limits: Limits,
        inbox: Inbox,
        ready: Readiness,
        mut closing: watch::Receiver<bool>,
    ) -> (Self, impl Future<Output = ()> + Send) {
        let (lines_sender, lines) = watch::channel(None);
        let (suspects, suspected) = mpsc::channel(1);
        let addresses: Vec<String> = config.endpoints.iter().map(Endpoint::to_string).collect();
        ready.degraded(NEED, format!("not yet connected to NATS at {}", addresses.join(", ")));
        let keeper = Keeper { client, config, limits, inbox, ready, lines: lines_sender.clone(), suspected, number: 0 };
        let task = async move {
            tokio::select! {
                biased;
                _ = closing.wait_for(|&closing| closing) => {}
                () = keeper.keep() => {}
            }
            // The connection ends with whoever holds it last.
            if let Some(line) = lines_sender.send_replace(None) {
                line.end();
            }
        };
        (Self { lines, suspects }, task)
    }

    /// A link to nowhere.
    pub fn absent() -> Self {
        Self { lines: watch::channel(None).1, suspects: mpsc::channel(1).0 }
    }

    /// The connection, if there is one.
    pub fn present(&self) -> Option<Arc<Line>> {
        self.lines.borrow().clone()
    }

    /// The connection, as soon as there is one; `None` if there is none by then.
    pub async fn line(&self, by: Instant) -> Option<Arc<Line>> {
        if let Some(line) = self.present() {
            return Some(line);
        }
        let mut lines = self.lines.clone();
        let some = lines.wait_for(Option::is_some);
        timeout_at(by, some).await.ok()?.ok()?.clone()
    }

    /// A request on this connection was not answered in time.
    pub fn unanswered(&self, line: &Line) {
        if line.unanswered.fetch_add(1, Ordering::Relaxed) >= UNANSWERED {
            // One suspicion at a time is enough.
            let _ = self.suspects.try_send(line.number);
        }
    }
}

/// Keeps the connection.
struct Keeper {
    client: Arc<dyn Client>,
    config: Config,
    limits: Limits,
    inbox: Inbox,
    ready: Readiness,
    lines: watch::Sender<Option<Arc<Line>>>,
    suspected: mpsc::Receiver<u64>,
    number: u64,
}

impl Keeper {
    async fn keep(mut self) {
        let mut entropy = entropy::fresh().unwrap_or_else(|_| Entropy::from_seed([0; 32]));
        let mut backoff = Backoff::default();
        let count = self.config.endpoints.len();
        let mut problems = vec![None; count];
        let Some(mut at) = usize::try_from(entropy.bits()).ok().and_then(|drawn| drawn.checked_rem(count)) else {
            return self.ready.degraded(NEED, "no address of a NATS server is configured");
        };
        loop {
            let endpoint = &self.config.endpoints[at];
            let over = Arc::new(watch::channel(false).0);
            let problem = match self.client.connect(endpoint, over.clone()).await {
                Err(problem) => problem,
                Ok(Connected { connection, acknowledgements }) => {
                    self.number += 1;
                    let line = Arc::new(Line::new(self.number, connection, over, self.inbox.clone()));
                    tracing::info!(server = %endpoint, "connected to NATS");
                    let unheard = format!("NATS at {endpoint} does not acknowledge what is published");
                    let mut served = true;
                    let problem = tokio::select! {
                        biased;
                        () = line.publishes.attend(&line, acknowledgements) => unheard,
                        (problem, last) = self.tend(at, &line) => {
                            served = last;
                            problem
                        }
                    };
                    self.lines.send_replace(None);
                    line.end();
                    if served {
                        backoff.reset();
                        problems.fill(None);
                    }
                    problem
                }
            };
            problems[at] = Some(problem);
            let known: Vec<&str> = problems.iter().flatten().map(String::as_str).collect();
            self.ready.degraded(NEED, known.join("; "));
            at = (at + 1) % count;
            // A round through all servers without one that serves: wait before the next.
            if problems.iter().all(Option::is_some) {
                sleep(crate::clock::span(backoff.fail(Retry::default(), &mut entropy))).await;
            }
        }
    }

    /// Looks after a connection until it has to be replaced: why, and whether the stream behind it was ours at last.
    async fn tend(&mut self, at: usize, line: &Arc<Line>) -> (String, bool) {
        let endpoint = self.config.endpoints[at].clone();
        let mut served = false;
        loop {
            let looked = tokio::select! {
                biased;
                () = line.gone() => return (format!("NATS at {endpoint} has ended the connection"), served),
                looked = timeout(PROBE, line.connection.stream(self.limits)) => looked,
            };
            let problem = match looked {
                Ok(Ok(())) => None,
                Ok(Err(Problem::NoJetStream)) => return (without_jetstream(&endpoint), served),
                Ok(Err(Problem::Differs(problem))) => {
                    served = false;
                    Some(format!("NATS at {endpoint}: {problem}"))
                }
                Ok(Err(Problem::Unavailable(problem))) => Some(format!("NATS at {endpoint} answers, but {problem}")),
                Err(_) => Some(format!(
                    "NATS at {endpoint} answers, but says nothing of the stream within {} s",
                    PROBE.as_secs()
                )),
            };
            served |= problem.is_none();
            // What was found to be ours is used until it is found to be another.
            line.serves.store(served, Ordering::Relaxed);
            if self.lines.borrow().is_none() {
                self.lines.send_replace(Some(line.clone()));
            }
            match problem {
                None => self.ready.restored(NEED),
                Some(problem) => self.ready.degraded(NEED, problem),
            }
            let pulse = sleep(PULSE);
            tokio::pin!(pulse);
            loop {
                tokio::select! {
                    biased;
                    () = line.gone() => return (format!("NATS at {endpoint} has ended the connection"), served),
                    Some(number) = self.suspected.recv() => {
                        if number == line.number {
                            return (format!("NATS at {endpoint} does not answer what it is asked"), served);
                        }
                    }
                    () = &mut pulse => break,
                }
            }
            // What the client could not tell: its events are few, but not kept for ever.
            if !line.connection.stands() {
                return (format!("NATS at {endpoint} has ended the connection"), served);
            }
        }
    }
}

pub(super) fn without_jetstream(endpoint: &Endpoint) -> String {
    format!(
        "NATS at {endpoint} runs without JetStream: start it with `-js`, or with `jetstream {{}}` in its configuration"
    )
}
