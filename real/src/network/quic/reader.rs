//! What arrives on a connection: a task that reads its datagrams, and one for each stream of it.
//!
//! * A stream's reader waits for a place in the inbox, so that its flow control stops the peer; a datagram is shed.
//! * What a stranger brings is measured before it reaches the role ([`Bucket`]): each class of its streams by itself, and its
//!   datagrams. Who brings more finds his datagrams dropped and his streams read no faster.

use super::{
    Shared,
    bucket::Bucket,
    connection::{CLASSES, Entry, or_closed},
    frames::{self, Dialect, Frames},
};
use crate::network::counters::Count;
use bytes::Bytes;
use quinn::RecvStream;
use std::{
    future::Future,
    sync::Arc,
    task::{Context, Poll, Waker},
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};
use worldline_proto::ConnectionId;
use worldline_system::{
    doors::{
        self,
        network::{Event, StreamClass},
    },
    limits,
};

/// Pieces of a stream that a reader takes at once: each is what one packet has brought.
const READ_PIECES: usize = 16;
/// Datagrams that a reader takes at once.
const READ_DATAGRAMS: usize = 64;

/// Reads one connection, or one stream of it.
#[derive(Clone)]
pub(super) struct Reader {
    shared: Arc<Shared>,
    entry: Arc<Entry>,
    connection: ConnectionId,
    _reading: mpsc::Sender<()>,
}

impl Reader {
    /// Who waits for the end of all readers holds the other end of `reading`, on which nothing is sent.
    pub fn new(shared: &Arc<Shared>, entry: &Arc<Entry>, connection: ConnectionId, reading: mpsc::Sender<()>) -> Self {
        Self { shared: Arc::clone(shared), entry: Arc::clone(entry), connection, _reading: reading }
    }

    /// Takes the peer's streams and has each read, until the connection ends.
    pub async fn streams(self) {
        let mut seen = [false; CLASSES];
        while let Ok(mut stream) = self.entry.connection.accept_uni().await {
            let mut first = [0];
            let class = match stream.read_exact(&mut first).await {
                Ok(()) => frames::class(first[0]),
                Err(quinn::ReadExactError::ReadError(quinn::ReadError::ConnectionLost(_))) => return,
                Err(_) => Err(Count::StreamCut),
            };
            match class {
                Ok(class) if std::mem::replace(&mut seen[class as usize], true) => {
                    return self.entry.wrong(&self.shared, Count::StreamDoubled);
                }
                Ok(class) => {
                    self.shared.tasks.spawn(self.clone().stream(stream, class));
                }
                Err(what) => return self.entry.wrong(&self.shared, what),
            }
        }
    }

    /// What bounds a stranger; roles trust each other, and a client its gateway.
    fn bucket(&self) -> Option<Bucket> {
        let entry = &self.entry;
        let bounded = entry.accepted && entry.dialect == Dialect::Client;
        bounded.then(|| Bucket::new(self.shared.client_frames_per_second, Instant::now()))
    }

    /// Hands messages to the role as fast as the peer may bring them. `false` where no more will be taken.
    async fn deliver(&self, events: &mut Vec<doors::Event>, bucket: Option<&mut Bucket>) -> bool {
        let Self { shared, entry, .. } = self;
        let Some(bucket) = bucket else { return shared.inbox.deliver_all(events).await.is_ok() };
        loop {
            let paid = bucket.take(events.len(), Instant::now());
            if paid == events.len() {
                return shared.inbox.deliver_all(events).await.is_ok();
            }
            let rest = events.split_off(paid);
            if shared.inbox.deliver_all(events).await.is_err() {
                return false;
            }
            *events = rest;
            shared.counters.add(Count::StreamHeld);
            if or_closed(entry, sleep_until(bucket.refilled())).await.is_none() {
                return false;
            }
        }
    }

    async fn stream(self, mut stream: RecvStream, class: StreamClass) {
        let Self { shared, entry, connection, .. } = &self;
        let (mut frames, mut events, mut bucket) = (Frames::default(), Vec::new(), self.bucket());
        let mut pieces: [Bytes; READ_PIECES] = Default::default();
        loop {
            match stream.read_chunks(&mut pieces).await {
                Ok(Some(read)) => pieces[..read].iter().for_each(|piece| frames.push(piece)),
                Ok(None) if !frames.within_a_frame() => return,
                Err(quinn::ReadError::ConnectionLost(_)) => return,
                Ok(None) | Err(_) => return entry.wrong(shared, Count::StreamCut),
            }
            let wrong = loop {
                let payload = match frames.next() {
                    Ok(None) => break None,
                    Ok(Some(frame)) => entry.dialect.read(frame),
                    Err(what) => Err(what),
                };
                match payload {
                    Ok(payload) => {
                        let event = Event::Received { connection: *connection, class, payload };
                        events.push(doors::Event::Network(event));
                    }
                    Err(what) => break Some(what),
                }
            };
            if entry.is_over() || !self.deliver(&mut events, bucket.as_mut()).await {
                return;
            }
            if let Some(what) = wrong {
                return entry.wrong(shared, what);
            }
        }
    }

    pub async fn datagrams(self) {
        let Self { shared, entry, connection, .. } = &self;
        let (mut events, mut bucket) = (Vec::new(), self.bucket());
        loop {
            let Some(first) = entry.connection.read_datagram().await.ok() else { return };
            let mut wrong = None;
            let mut next = Some(first);
            while let Some(bytes) = next.take() {
                let payload = match bytes.len() {
                    ..=limits::DATAGRAM_BYTES => entry.dialect.read(&bytes),
                    _ => Err(Count::DatagramTooLong),
                };
                match payload {
                    Ok(payload) => {
                        let event = Event::Datagram { connection: *connection, payload };
                        events.push(doors::Event::Network(event));
                    }
                    Err(what) => {
                        wrong = Some(what);
                        break;
                    }
                }
                if events.len() < READ_DATAGRAMS {
                    next = at_once(entry.connection.read_datagram()).and_then(Result::ok);
                }
            }
            if entry.is_over() {
                return;
            }
            if let Some(bucket) = &mut bucket {
                let paid = bucket.take(events.len(), Instant::now());
                shared.counters.add_many(Count::DatagramOverRate, (events.len() - paid) as u64);
                events.truncate(paid);
            }
            // What finds no place is lost, as a datagram may be; the inbox counts it.
            shared.inbox.offer_all(&mut events);
            if let Some(what) = wrong {
                return entry.wrong(shared, what);
            }
        }
    }
}

/// What a future comes to if it need not wait.
fn at_once<T>(future: impl Future<Output = T>) -> Option<T> {
    match std::pin::pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}
