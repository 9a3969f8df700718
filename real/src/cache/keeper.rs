//! The one task of an adapter: it connects, sends what roles ask in batches, and tells them what came of it.
//!
//! A batch is everything that has been asked since the last one left: one write, and one read for all of it. Batches follow each
//! other on one connection, so that everything is executed in the order in which it was asked. What asks again (a script that the
//! server had forgotten, the second step of a search for loads) goes with the next batch.

use super::{
    Config, Counters,
    asks::Asks,
    link::{Line, connect},
    replies::turns_away,
    requests::{Done, Work},
};
use crate::{Inbox, clock, machine::Machine, ready::Readiness};
use redis::{Pipeline, RedisResult, Value};
use std::{collections::VecDeque, future::poll_fn, pin::Pin, sync::Arc, task::Poll, time::Duration};
use tokio::{
    task::unconstrained,
    time::{Instant, sleep, sleep_until},
};
use worldline_proto::OpId;
use worldline_system::{
    Refusal,
    backoff::Backoff,
    doors::{
        Event,
        cache::{self, Answer},
        entropy::Entropy,
    },
    knobs::Retry,
    outcome::End,
};

/// What is worse when the cache is missing.
pub(super) const NEED: &str = "cache";
/// How often a silent server is asked whether it is there, and how long it may take to answer anything.
const PULSE: Duration = Duration::from_secs(1);
/// How long this process may need to read what has come in, once it runs again after it stood still.
const GRACE: Duration = Duration::from_millis(100);
/// Batches in flight.
const BATCHES: usize = 8;
/// Submissions in one batch.
const BATCH: usize = 256;

type Sent = Pin<Box<dyn Future<Output = RedisResult<Vec<Value>>> + Send>>;

/// A batch in flight.
struct Batch {
    /// Each with how many commands it is.
    works: Vec<(Work, usize)>,
    reply: Sent,
    /// When it is overdue.
    by: Instant,
}

pub(super) struct Keeper {
    pub machine: Arc<dyn Machine>,
    pub config: Config,
    pub inbox: Inbox,
    pub ready: Readiness,
    pub counters: Counters,
    /// What roles ask. It ends when the adapter is closed.
    pub asked: Arc<Asks>,
}

impl Keeper {
    /// Works until the adapter is closed.
    pub async fn keep(mut self) {
        let mut entropy = self.machine.entropy().unwrap_or_else(|_| Entropy::from_seed([0; 32]));
        let (mut backoff, retry) = (Backoff::default(), Retry::default());
        let count = self.config.endpoints.len();
        if count == 0 {
            self.ready.degraded(NEED, "no address of a cache is configured");
            while self.meanwhile(std::future::pending::<()>()).await.is_some() {}
            return;
        }
        let mut problems: Vec<Option<String>> = vec![None; count];
        let mut at = 0;
        loop {
            let endpoint = self.config.endpoints[at].clone();
            let machine = self.machine.clone();
            let Some(connected) = self.meanwhile(connect(&*machine, &endpoint, BATCHES * 2)).await else { return };
            let problem = match connected {
                Err(problem) => problem,
                Ok(line) => {
                    tracing::info!(server = %endpoint, "connected to the cache");
                    self.ready.restored(NEED);
                    problems.fill(None);
                    backoff.reset();
                    match self.serve(line).await {
                        None => return,
                        Some(why) => format!("the cache at {endpoint} {why}"),
                    }
                }
            };
            problems[at] = Some(problem);
            let known: Vec<&str> = problems.iter().flatten().map(String::as_str).collect();
            self.ready.degraded(NEED, known.join("; "));
            at = (at + 1) % count;
            // A round through all servers without one that serves: wait before the next.
            if problems.iter().all(Option::is_some) {
                let wait = clock::span(backoff.fail(retry, &mut entropy));
                if self.meanwhile(sleep(wait)).await.is_none() {
                    return;
                }
            }
        }
    }

    /// Refuses what is asked until this has come about; `None` once the adapter is closed.
    async fn meanwhile<T>(&mut self, what: impl Future<Output = T>) -> Option<T> {
        tokio::pin!(what);
        loop {
            tokio::select! {
                biased;
                done = &mut what => return Some(done),
                works = self.asked.take(BATCH) => match works.as_slice() {
                    [] => return None,
                    works => works.iter().for_each(|work| refuse(&self.inbox, work)),
                },
            }
        }
    }

    /// Serves on a connection until it has to be replaced: why; or `None` once the adapter is closed.
    async fn serve(&mut self, line: Line) -> Option<String> {
        let mut flying: VecDeque<Batch> = VecDeque::new();
        let mut next: Vec<Work> = vec![];
        let mut heard = Instant::now();
        let mut open = true;
        let mut suspected = false;
        let problem = loop {
            if !next.is_empty() && flying.len() < BATCHES {
                flying.push_back(send(&line, std::mem::take(&mut next)).await);
            }
            if !open && flying.is_empty() {
                return None;
            }
            // What is overdue is given a moment more: this process itself may have stood still.
            let due =
                flying.front().map_or(heard + PULSE, |batch| batch.by) + if suspected { GRACE } else { Duration::ZERO };
            tokio::select! {
                biased;
                reply = front(&mut flying), if !flying.is_empty() => {
                    let Some(batch) = flying.pop_front() else { continue };
                    (heard, suspected) = (Instant::now(), false);
                    match reply {
                        Ok(values) => {
                            if let Some(why) = self.tell(batch.works, &values, &mut next) {
                                break why;
                            }
                        }
                        Err(error) => {
                            lost(&self.inbox, batch.works);
                            break format!("has ended the connection: {error}");
                        }
                    }
                }
                () = sleep_until(due) => match (flying.is_empty(), suspected) {
                    (true, _) => next.push(Work::Ping),
                    (false, false) => suspected = true,
                    (false, true) => break format!("has not answered within {} s", PULSE.as_secs()),
                },
                works = self.asked.take(BATCH), if open && flying.len() < BATCHES => {
                    open = !works.is_empty();
                    next.extend(works);
                    self.drop_late(&mut next);
                }
            }
        };
        self.counters.lost_connection();
        flying.into_iter().for_each(|batch| lost(&self.inbox, batch.works));
        // What was not sent may be told so.
        next.iter().for_each(|work| refuse(&self.inbox, work));
        Some(problem)
    }

    /// What nobody waits for any more is not sent.
    fn drop_late(&self, works: &mut Vec<Work>) {
        let now = self.machine.now();
        works.retain(|work| {
            let late = matches!(work, Work::Ask { deadline, .. } if *deadline <= now);
            if late {
                refuse(&self.inbox, work);
            }
            !late
        });
    }

    /// Tells who asked. Returns why the server is not the one to ask any more, if it says so.
    fn tell(&self, works: Vec<(Work, usize)>, values: &[Value], next: &mut Vec<Work>) -> Option<String> {
        let mut values = values;
        let mut away = None;
        let mut answers = Vec::with_capacity(works.len());
        for (work, commands) in works {
            let (said, rest) = values.split_at(commands.min(values.len()));
            values = rest;
            away = away.or_else(|| said.iter().find_map(turns_away).map(str::to_owned));
            let Done { answer, next: more } = work.decode(said, &self.counters);
            answers.extend(answer.map(|(op, answer)| event(op, answer)));
            next.extend(more);
        }
        self.inbox.answer_all(answers.into_iter());
        away.map(|code| format!("turns us away: {code}"))
    }
}

/// The reply of the first batch. The others have theirs when they are the first.
async fn front(flying: &mut VecDeque<Batch>) -> RedisResult<Vec<Value>> {
    match flying.front_mut() {
        Some(batch) => batch.reply.as_mut().await,
        None => std::future::pending().await,
    }
}

/// Sends a batch: it is on its way, behind all before it, when this returns.
async fn send(line: &Line, works: Vec<Work>) -> Batch {
    let mut pipeline = Pipeline::with_capacity(works.len());
    let works: Vec<_> = works
        .into_iter()
        .map(|work| {
            let commands = work.encode(&line.scripts, &mut pipeline);
            (work, commands)
        })
        .collect();
    let count = works.iter().map(|(_, commands)| commands).sum();
    let mut connection = line.connection.clone();
    let mut reply: Sent =
        Box::pin(unconstrained(async move { connection.send_packed_commands(&pipeline, 0, count).await }));
    // The connection has a place for it, so the first look at it puts it there.
    let first = poll_fn(|context| Poll::Ready(reply.as_mut().poll(context))).await;
    if let Poll::Ready(done) = first {
        reply = Box::pin(std::future::ready(done));
    }
    Batch { works, reply, by: Instant::now() + PULSE }
}

fn event(op: OpId, answer: Answer) -> (OpId, Event) {
    (op, Event::Cache(cache::Event { op, answer: Box::new(answer) }))
}

fn tell(inbox: &Inbox, op: OpId, answer: Answer) {
    let (op, event) = event(op, answer);
    inbox.answer(op, event);
}

/// It has certainly not left.
pub(super) fn refuse(inbox: &Inbox, work: &Work) {
    if let Some((op, ask)) = work.op() {
        tell(inbox, op, ask.ended(End::Refused(Refusal::Unreachable)));
    }
}

/// Nobody knows what became of these.
fn lost(inbox: &Inbox, works: Vec<(Work, usize)>) {
    for (op, ask) in works.iter().filter_map(|(work, _)| work.op()) {
        tell(inbox, op, ask.ended(End::Unknown));
    }
}
