//! A connection as its client shows it.

use super::{
    counter_of,
    server::{Etcd, fork, lock},
};
use crate::script::{between, one_in, pause};
use futures_util::stream;
use madsim::task::spawn;
use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, AtomicU64, Ordering},
};
use tokio::sync::{mpsc, oneshot, watch};
use worldline_proto::{LeaseId, Revision};
use worldline_real::directory::{
    Endpoint,
    client::{Among, Client, Connected, Connection, Found, Latest, Pending, Range, Renewals, Told, Verdict, Watched},
};
use worldline_system::{
    Refusal,
    doors::{
        directory::{Consistency, Family, GapCause, Key, Page, Transacted, Transaction},
        entropy::Entropy,
    },
    time::Duration,
};

/// How often a watch looks whether there is something to tell.
const LOOK: Duration = Duration::from_millis(25);

/// What has become of a connection, as far as both ends know.
#[derive(Debug)]
pub struct Fate {
    /// The client finds nobody at the other end any more.
    pub over: watch::Sender<bool>,
    /// Nobody says anything at the other end any more.
    pub silent: AtomicBool,
    /// The member knows no leader.
    pub leaderless: AtomicBool,
    /// The member waits for a quorum.
    pub stuck: AtomicBool,
}

impl Fate {
    pub fn new() -> Self {
        let (over, _) = watch::channel(false);
        Self { over, silent: AtomicBool::default(), leaderless: AtomicBool::default(), stuck: AtomicBool::default() }
    }

    pub fn end(&self) {
        self.over.send_replace(true);
    }

    pub fn is_over(&self) -> bool {
        *self.over.subscribe().borrow()
    }

    pub async fn ended(&self) {
        // The sender is here.
        let _ = self.over.subscribe().wait_for(|&over| over).await;
    }
}

pub fn is(flag: &AtomicBool) -> bool {
    flag.load(Ordering::Relaxed)
}

/// The way between both ends.
#[derive(Clone, Debug)]
pub struct Wire {
    pub etcd: Arc<Etcd>,
    pub fate: Arc<Fate>,
    pub heard: Arc<AtomicU64>,
    /// How often etcd had been restored when it was opened.
    pub era: u64,
}

/// A connection.
pub struct Line {
    pub wire: Wire,
    pub draws: Mutex<Entropy>,
}

/// The client that leads there.
#[derive(Debug)]
pub struct Leads(pub Arc<Etcd>);

impl Client for Leads {
    fn connect<'a>(&'a self, _: &'a Endpoint, _: usize) -> Pending<'a, Result<Connected, String>> {
        Box::pin(self.0.clone().open())
    }
}

impl Wire {
    /// Carries a request there and its answer back, whoever still waits for it.
    async fn carry<T>(
        self,
        consistency: Consistency,
        mut draws: Entropy,
        act: impl FnOnce(&Etcd) -> Result<T, Verdict>,
        answer: oneshot::Sender<Result<T, Verdict>>,
    ) {
        let Self { etcd, fate, heard, era } = self;
        let long = one_in(&mut draws, 25) && !etcd.is_well();
        pause(between(&mut draws, Duration::ZERO, Duration::from_millis(if long { 1_500 } else { 6 }))).await;
        let dies = one_in(&mut draws, 2);
        if etcd.era() != era || (fate.is_over() || is(&fate.silent)) && dies {
            return etcd.note("a request that is lost with its connection");
        }
        if consistency == Linearizable {
            if is(&fate.stuck) {
                return etcd.note("a request that waits for a quorum");
            }
            if is(&fate.leaderless) {
                heard.fetch_add(1, Ordering::Relaxed);
                etcd.note("a request without a leader");
                // Perhaps nobody waits any more.
                return drop(answer.send(Err(Verdict::Refused(Refusal::NoLeader))));
            }
        }
        let fault = if etcd.is_well() { u64::MAX } else { draws.below(120) };
        match fault {
            0 | 1 => {
                etcd.note("a connection cut before the effect");
                return fate.end();
            }
            2 | 3 => return etcd.note("a request that is lost"),
            4 | 5 => return drop(answer.send(Err(Verdict::Refused(Refusal::Busy)))),
            _ => {}
        }
        let result = act(&etcd);
        match fault {
            6 | 7 => {
                etcd.note("a connection cut behind the effect");
                return fate.end();
            }
            8 | 9 => return etcd.note("an answer that is lost"),
            10 | 11 => {
                etcd.note("an answer that proves nothing");
                return drop(answer.send(Err(Verdict::Unknown)));
            }
            _ if is(&fate.silent) || fate.is_over() => return,
            _ => {}
        }
        pause(between(&mut draws, Duration::ZERO, Duration::from_millis(3))).await;
        heard.fetch_add(1, Ordering::Relaxed);
        // Perhaps nobody waits any more.
        drop(answer.send(result));
    }

    /// Asks, and waits for the answer or the connection's end.
    async fn asked<T: Send + 'static>(
        &self,
        consistency: Consistency,
        draws: Entropy,
        act: impl FnOnce(&Etcd) -> Result<T, Verdict> + Send + 'static,
    ) -> Result<T, Verdict> {
        let (answer, answered) = oneshot::channel();
        drop(spawn(self.clone().carry(consistency, draws, act, answer)));
        let answered = async {
            match answered.await {
                Ok(answer) => answer,
                Err(_) => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            answer = answered => answer,
            () = self.fate.ended() => Err(Verdict::Unknown),
        }
    }

    /// Tells a watch until somebody ends it.
    async fn tell(
        self,
        family: Family,
        from: Revision,
        news: mpsc::Sender<Result<Told, GapCause>>,
        mut draws: Entropy,
    ) {
        let Self { etcd, fate, era, .. } = &self;
        let mut next = from.0;
        while !news.is_closed() {
            pause(LOOK).await;
            if fate.is_over() || etcd.era() != *era {
                return;
            }
            if is(&fate.silent) {
                return fate.ended().await;
            }
            if is(&fate.leaderless) || etcd.is_ill(&mut draws, 150) {
                return etcd.note("a watch whose stream ends alone");
            }
            if etcd.is_ill(&mut draws, 400) {
                etcd.note("a watch that is cancelled");
                return drop(news.send(Err(GapCause::Cancelled)).await);
            }
            if etcd.is_ill(&mut draws, 40) {
                pause(between(&mut draws, Duration::ZERO, Duration::from_millis(500))).await;
                continue;
            }
            let told = {
                let mut model = etcd.model();
                if next < model.oldest {
                    Err(GapCause::Compacted)
                } else {
                    let told = model.news(family, next);
                    next = next.max(model.revision() + 1);
                    Ok(told)
                }
            };
            let ends = told.is_err();
            let silent = told.as_ref().is_ok_and(|told| told.changed.is_none()) && !one_in(&mut draws, 20);
            if !silent && news.send(told).await.is_err() || ends {
                return;
            }
        }
    }
}

impl Line {
    fn fork(&self) -> Entropy {
        fork(&mut lock(&self.draws))
    }

    /// Asks over this connection, if it is not over.
    async fn ask<T: Send + 'static>(
        &self,
        consistency: Consistency,
        counter: Option<u64>,
        act: impl FnOnce(&Etcd) -> Result<T, Verdict> + Send + 'static,
    ) -> Result<T, Verdict> {
        if self.wire.fate.is_over() {
            self.wire.etcd.note("a connection that is over takes nothing");
            return Err(Verdict::NeverLeft);
        }
        if let Some(counter) = counter {
            self.wire.etcd.book.book().leaves(counter);
        }
        self.wire.asked(consistency, self.fork(), act).await
    }
}

use Consistency::{Linearizable, Serializable};

impl Connection for Line {
    fn probe(&self, consistency: Consistency) -> Pending<'_, Result<(), String>> {
        Box::pin(async move {
            let probed = self.wire.asked(consistency, self.fork(), |_| Ok(())).await;
            probed.map_err(|verdict| format!("{verdict:?}"))
        })
    }

    fn grant(&self, lease: LeaseId, ttl: Duration) -> Pending<'_, Result<(), Verdict>> {
        let counter = lease.get();
        Box::pin(self.ask(Linearizable, Some(counter), move |etcd| {
            let granted = etcd.model().grant(lease, ttl);
            etcd.book.book().executed(counter, granted.err(), None);
            granted
        }))
    }

    fn revoke(&self, lease: LeaseId) -> Pending<'_, Result<(), Verdict>> {
        let counter = self.wire.etcd.book.book().revoker(lease);
        Box::pin(self.ask(Linearizable, Some(counter), move |etcd| {
            let revoked = etcd.model().revoke(lease);
            etcd.book.book().executed(counter, revoked.err(), None);
            revoked
        }))
    }

    fn renewals(&self, lease: LeaseId) -> Pending<'_, Result<Box<dyn Renewals>, Verdict>> {
        Box::pin(async move {
            let counter = self.wire.etcd.book.book().renewing(lease);
            let renewed = self.ask(Linearizable, None, move |etcd| Ok(etcd.renew(lease, counter))).await?;
            renewed.ok_or(Verdict::Refused(Refusal::LeaseNotFound))?;
            Ok(Box::new(Stream { wire: self.wire.clone(), lease, draws: self.fork(), broken: false })
                as Box<dyn Renewals>)
        })
    }

    fn transact<'a>(&'a self, transaction: &'a Transaction) -> Pending<'a, Result<Transacted, Verdict>> {
        let (counter, transaction) = (counter_of(transaction), transaction.clone());
        Box::pin(self.ask(Linearizable, Some(counter), move |etcd| {
            let transacted = etcd.model().transact(&transaction);
            etcd.book.book().executed(counter, transacted.as_ref().err().copied(), transacted.as_ref().ok().cloned());
            transacted
        }))
    }

    fn read(&self, asked: Range) -> Pending<'_, Result<Page, Verdict>> {
        Box::pin(self.ask(asked.consistency, None, move |etcd| etcd.model().read(asked)))
    }

    fn get(&self, key: Key, consistency: Consistency) -> Pending<'_, Result<Found, Verdict>> {
        Box::pin(self.ask(consistency, None, move |etcd| Ok(etcd.model().get(key))))
    }

    fn watch(&self, family: Family, from: Revision) -> Pending<'_, Result<Watched, Verdict>> {
        Box::pin(async move {
            let opened = move |etcd: &Etcd| {
                let mut model = etcd.model();
                let oldest = Revision(model.oldest);
                if from < oldest {
                    return Err(Verdict::Refused(Refusal::Compacted { oldest }));
                }
                // It has still to see what the leases do.
                let _ = model.news(family, 1);
                Ok(model.state())
            };
            let state = self.ask(Linearizable, None, opened).await?;
            let (news, taken) = mpsc::channel(4);
            drop(spawn(self.wire.clone().tell(family, from, news, self.fork())));
            let news = Box::pin(stream::unfold(taken, async |mut taken| taken.recv().await.map(|next| (next, taken))));
            Ok(Watched { state, news })
        })
    }

    fn latest<'a>(&'a self, among: Among<'a>, before: Revision) -> Pending<'a, Result<Option<Latest>, Verdict>> {
        let among = Wanted::from(among);
        Box::pin(self.ask(Serializable, None, move |etcd| etcd.model().latest(among.among(), before)))
    }
}

/// Among what, for as long as it takes.
enum Wanted {
    Family(Family),
    Path(Vec<u8>),
}

impl From<Among<'_>> for Wanted {
    fn from(among: Among<'_>) -> Self {
        match among {
            Among::Family(family) => Self::Family(family),
            Among::Path(path) => Self::Path(path.to_vec()),
        }
    }
}

impl Wanted {
    fn among(&self) -> Among<'_> {
        match self {
            Self::Family(family) => Among::Family(*family),
            Self::Path(path) => Among::Path(path),
        }
    }
}

/// A stream of renewals.
#[derive(Debug)]
struct Stream {
    wire: Wire,
    lease: LeaseId,
    draws: Entropy,
    broken: bool,
}

impl Renewals for Stream {
    fn renew(&mut self) -> Pending<'_, Result<Option<Duration>, Verdict>> {
        Box::pin(async move {
            let Self { wire, lease, draws, broken } = self;
            let etcd = wire.etcd.clone();
            if !*broken && etcd.is_ill(draws, 4) {
                etcd.note("a stream of renewals that ends alone");
                *broken = true;
            }
            if *broken || wire.fate.is_over() {
                *broken = true;
                return Err(Verdict::Unknown);
            }
            let lease = *lease;
            let counter = etcd.book.book().renewing(lease);
            let renewed = wire.asked(Linearizable, fork(draws), move |etcd| Ok(etcd.renew(lease, counter))).await;
            // etcd ends a stream that has no leader, and says nothing else on it.
            *broken = renewed.is_err();
            renewed.map_err(|_| Verdict::Unknown)
        })
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.wire.etcd.alive.fetch_sub(1, Ordering::Relaxed);
    }
}
