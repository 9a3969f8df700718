//! A connection as its client shows it.

use super::{
    op,
    server::{Nats, counter, fork, lock},
};
use crate::script::{between, pause};
use futures_util::stream;
use madsim::task::spawn;
use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, Ordering},
};
use tokio::sync::{mpsc, oneshot, watch};
use worldline_real::{
    bus::{
        Endpoint, Limits,
        client::{Client, Coming, Connected, Connection, Opened, Pending, Problem, Publish, Reply},
    },
    clock,
};
use worldline_system::{
    Refusal,
    doors::{
        bus::{Durable, Start},
        entropy::Entropy,
    },
    limits,
    outcome::End,
    time::Duration,
};

/// What leaves over a connection.
pub enum Command {
    Publish(u64, Publish),
    Acknowledge(Reply, Option<oneshot::Sender<()>>),
    Reject(Reply, oneshot::Sender<()>),
}

/// A connection.
pub struct Line {
    pub nats: Arc<Nats>,
    pub number: u64,
    /// The server is not at its other end any more.
    pub dead: Arc<AtomicBool>,
    /// The client has noticed.
    pub noticed: Arc<AtomicBool>,
    pub draws: Mutex<Entropy>,
    pub commands: mpsc::Sender<Command>,
}

/// The client that leads there.
#[derive(Debug)]
pub struct Leads(pub Arc<Nats>);

impl Client for Leads {
    fn connect<'a>(
        &'a self,
        _: &'a Endpoint,
        over: Arc<watch::Sender<bool>>,
    ) -> Pending<'a, Result<Connected, String>> {
        Box::pin(self.0.clone().open(over))
    }
}

impl Line {
    fn is_dead(&self) -> bool {
        self.dead.load(Ordering::Relaxed)
    }

    fn fork(&self) -> Entropy {
        fork(&mut lock(&self.draws))
    }

    /// Takes its time, or for ever.
    async fn answers(&self, draws: &mut Entropy) {
        pause(between(draws, Duration::ZERO, Duration::from_millis(20))).await;
        if self.is_dead() || self.nats.is_ill(draws, 25) {
            self.nats.note("a question that is never answered");
            std::future::pending::<()>().await;
        }
    }

    async fn told(&self, command: Command, answer: oneshot::Receiver<()>) -> Result<(), End> {
        self.commands.send(command).await.map_err(|_| End::Unknown)?;
        answer.await.map_err(|_| End::Unknown)
    }
}

impl Connection for Line {
    fn stands(&self) -> bool {
        !self.noticed.load(Ordering::Relaxed)
    }

    fn publish(&self, number: u64, publish: Publish) -> Option<End> {
        let counter = counter(&publish.payload);
        let refusal = match self.commands.try_send(Command::Publish(number, publish)) {
            Ok(()) => {
                self.nats.book.book().leaves(counter, self.number);
                return None;
            }
            Err(mpsc::error::TrySendError::Full(_)) => Refusal::Busy,
            Err(mpsc::error::TrySendError::Closed(_)) => Refusal::Unreachable,
        };
        self.nats.book.book().not_taken(counter, refusal);
        Some(End::Refused(refusal))
    }

    fn stream(&self, _: Limits) -> Pending<'_, Result<(), Problem>> {
        let mut draws = self.fork();
        Box::pin(async move {
            self.answers(&mut draws).await;
            match draws.below(60) {
                _ if self.nats.is_well() => Ok(()),
                0 => Err(Problem::NoJetStream),
                1..4 => Err(Problem::Differs("other limits".to_owned())),
                4..8 => Err(Problem::Unavailable("no leader".to_owned())),
                _ => Ok(()),
            }
        })
    }

    fn consume(&self, durable: Option<Durable>, start: Start) -> Pending<'_, Result<Opened, End>> {
        let mut draws = self.fork();
        Box::pin(async move {
            self.answers(&mut draws).await;
            let Start::Time(tag) = start else { panic!("each has its own moment") };
            let opened_by = tag.as_nanos();
            if self.nats.is_ill(&mut draws, 12) {
                return Err(End::Refused(Refusal::NoStream));
            }
            let name = durable.map_or_else(|| format!("passing-{opened_by}"), |durable| durable.to_string());
            {
                let mut stored = self.nats.stored();
                let consumer = stored.consumers.entry(name.clone()).or_default();
                consumer.opened_by = opened_by;
                // What the last reader has left comes again.
                consumer.out.values_mut().for_each(|(_, due)| *due = clock::now());
            }
            self.nats.book.book().opens(op(opened_by));
            self.answers(&mut draws).await;
            let (messages, taken) = mpsc::channel(limits::BUS_CREDITS);
            let delivering = self.nats.clone().deliver(name.clone(), opened_by, messages, self.dead.clone(), draws);
            drop(spawn(delivering));
            Ok(Opened { name, messages: bounded(taken) })
        })
    }

    fn acknowledge(&self, mut messages: Vec<Reply>) -> Pending<'_, Result<(), End>> {
        Box::pin(async move {
            let last = messages.pop().expect("whoever acknowledges has something");
            for message in messages {
                self.commands.send(Command::Acknowledge(message, None)).await.map_err(|_| End::Unknown)?;
            }
            let (answer, answered) = oneshot::channel();
            self.told(Command::Acknowledge(last, Some(answer)), answered).await
        })
    }

    fn reject(&self, message: Reply) -> Pending<'_, Result<(), End>> {
        let (answer, answered) = oneshot::channel();
        Box::pin(self.told(Command::Reject(message, answer), answered))
    }

    fn discard(&self, _: Reply) {
        self.nats.book.book().foreign(0, 1);
    }

    fn delete<'a>(&'a self, consumer: &'a str) -> Pending<'a, ()> {
        let mut draws = self.fork();
        Box::pin(async move {
            self.answers(&mut draws).await;
            self.nats.note("a consumer deleted by its reader");
            self.nats.stored().consumers.remove(consumer);
        })
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.nats.alive.fetch_sub(1, Ordering::Relaxed);
    }
}

pub fn coming<T: Send + 'static>(from: mpsc::UnboundedReceiver<T>) -> Coming<T> {
    Box::pin(stream::unfold(from, async |mut from| from.recv().await.map(|next| (next, from))))
}

fn bounded<T: Send + 'static>(from: mpsc::Receiver<T>) -> Coming<T> {
    Box::pin(stream::unfold(from, async |mut from| from.recv().await.map(|next| (next, from))))
}
