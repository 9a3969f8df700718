//! One connection: tasks that read it, one that sees its end, and a lane for each class that is written.
//!
//! * The role hears that it was accepted or opened before anything else of it, and that it has ended after everything else.
//! * A stream's reader waits for a place in the inbox, so that its flow control stops the peer; a datagram is shed.
//! * What the peer gets wrong closes the connection and is counted by its kind.

use super::{
    Shared,
    frames::{self, Dialect, Frames},
    lane::Lane,
    reason::{code, reason_of},
    transport,
};
use crate::network::counters::Count;
use bytes::Bytes;
use quinn::{RecvStream, SendDatagramError};
use std::{
    future::{Future, poll_fn},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, mpsc, oneshot},
    time::timeout,
};
use worldline_proto::{ConnectionId, NodeId};
use worldline_system::{
    doors::{
        self,
        network::{CloseReason, Event, Payload, StreamClass},
    },
    limits,
};

/// How long an orderly close waits until the peer has what was sent before it.
const FAREWELL: Duration = Duration::from_millis(500);
/// Pieces of a stream that a reader takes at once: each is what one packet has brought.
const READ_PIECES: usize = 16;
/// Datagrams that a reader takes at once.
const READ_DATAGRAMS: usize = 64;

const CLASSES: usize = StreamClass::ALL.len();

/// A connection that stands.
pub(super) struct Entry {
    connection: quinn::Connection,
    dialect: Dialect,
    lanes: [Mutex<Lane>; CLASSES],
    /// The ends of the writers of the lanes that were used.
    writers: Mutex<Vec<oneshot::Receiver<()>>>,
    /// Why this side ended it, where it was this side.
    own_reason: OnceLock<CloseReason>,
    /// The role has closed it and hears no more of it.
    left: AtomicBool,
    /// It is counted among those that still have something to deliver.
    leaving: AtomicBool,
    farewell: Notify,
}

impl Entry {
    pub fn send_datagram(&self, shared: &Shared, payload: &Payload) {
        let Some(bytes) = self.dialect.datagram(payload) else {
            tracing::error!(?payload, "this datagram cannot be sent");
            return shared.counters.add(Count::Unsendable);
        };
        match self.connection.send_datagram(bytes) {
            Ok(()) => {}
            Err(SendDatagramError::ConnectionLost(_)) => shared.counters.add(Count::SentToNobody),
            Err(_) => shared.counters.add(Count::Unsendable),
        }
    }

    pub fn send(self: &Arc<Self>, shared: &Arc<Shared>, class: StreamClass, payload: &Payload) {
        if self.is_over() {
            return shared.counters.add(Count::SentToNobody);
        }
        let Some(frame) = self.dialect.frame(payload) else {
            tracing::error!(?payload, "this message cannot be sent, and nothing after it may be");
            shared.counters.add(Count::Unsendable);
            return self.end(CloseReason::ProtocolError);
        };
        let mut lane = lock(&self.lanes[class as usize]);
        if lane.begin() {
            let (done, ended) = oneshot::channel();
            lock(&self.writers).push(ended);
            shared.tasks.spawn(write(Arc::clone(shared), Arc::clone(self), class, done));
        }
        let taken = lane.push(frame);
        drop(lane);
        if !taken {
            shared.counters.add(Count::Overflow);
            self.end(CloseReason::Overflow);
        }
    }

    /// This side ends it; the role is told.
    fn end(&self, reason: CloseReason) {
        if self.own_reason.set(reason).is_ok() {
            self.connection.close(code(reason), b"");
        }
    }

    /// The role closes it. An orderly close lets the peer have what was sent before; any other overtakes it.
    pub fn leave(&self, shared: &Shared, reason: CloseReason) {
        self.left.store(true, Ordering::Release);
        if reason == CloseReason::Closed && !lock(&self.writers).is_empty() {
            self.leaving.store(true, Ordering::Release);
            shared.leaving.send_modify(|leaving| *leaving += 1);
            self.farewell.notify_one();
        } else {
            self.end(reason);
        }
    }

    /// The process is stopping: nobody hears of it any more.
    pub fn forget(&self) {
        self.left.store(true, Ordering::Release);
    }

    fn wrong(&self, shared: &Shared, what: Count) {
        shared.counters.add(what);
        tracing::warn!(peer = %self.connection.remote_address(), ?what, "a connection is closed");
        self.end(CloseReason::ProtocolError);
    }

    fn is_over(&self) -> bool {
        self.left.load(Ordering::Acquire) || self.own_reason.get().is_some()
    }

    /// Nothing more is written: writers end when what waits is written.
    fn finish_lanes(&self) {
        for lane in &self.lanes {
            lock(lane).finish();
        }
    }
}

/// Nothing panics while it holds such a lock: what is inside is whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn enter(shared: &Shared, connection: quinn::Connection, dialect: Dialect) -> (ConnectionId, Arc<Entry>) {
    transport::widen(&connection, dialect);
    let entry = Arc::new(Entry {
        connection,
        dialect,
        lanes: Default::default(),
        writers: Mutex::default(),
        own_reason: OnceLock::new(),
        left: AtomicBool::new(false),
        leaving: AtomicBool::new(false),
        farewell: Notify::new(),
    });
    let id = ConnectionId(shared.next_number());
    shared.open().insert(id.0, Arc::clone(&entry));
    (id, entry)
}

/// A connection that this side has opened: `tell` says so to its role.
pub(super) fn begin(
    shared: &Arc<Shared>,
    connection: quinn::Connection,
    dialect: Dialect,
    place: OwnedSemaphorePermit,
    tell: impl FnOnce(ConnectionId),
) {
    let (id, entry) = enter(shared, connection, dialect);
    tell(id);
    shared.tasks.spawn(attend(Arc::clone(shared), id, entry, place));
}

/// A connection that a peer has opened. Its role is told when its inbox has a place, so that who opens and closes connections
/// all the time is slowed down.
pub(super) fn begin_accepted(
    shared: &Arc<Shared>,
    connection: quinn::Connection,
    dialect: Dialect,
    place: OwnedSemaphorePermit,
    from: NodeId,
) {
    let (connection, entry) = enter(shared, connection, dialect);
    let shared = Arc::clone(shared);
    shared.tasks.clone().spawn(async move {
        let accepted = doors::Event::Network(Event::Accepted { connection, from });
        if shared.inbox.deliver(accepted).await.is_ok() {
            attend(shared, connection, entry, place).await;
        } else {
            entry.end(CloseReason::Closed);
            shared.open().remove(&connection.0);
        }
    });
}

/// Reads a connection until it has ended.
async fn attend(shared: Arc<Shared>, id: ConnectionId, entry: Arc<Entry>, place: OwnedSemaphorePermit) {
    // Every reader holds an end of this, and nothing is sent on it.
    let (reading, mut all_read) = mpsc::channel(1);
    let reader = Reader { shared: Arc::clone(&shared), entry: Arc::clone(&entry), connection: id, _reading: reading };
    shared.tasks.spawn(reader.clone().datagrams());
    tokio::join!(reader.streams(), farewell(&entry));
    let None::<()> = all_read.recv().await else { unreachable!("nothing is sent on it") };
    shared.open().remove(&id.0);
    entry.finish_lanes();
    let reason = match (entry.own_reason.get(), entry.connection.close_reason()) {
        (Some(reason), _) => *reason,
        (None, Some(error)) => reason_of(&error),
        (None, None) => CloseReason::Closed,
    };
    if !entry.left.load(Ordering::Acquire) {
        shared.inbox.reserved(doors::Event::Network(Event::Closed { connection: id, reason }));
    }
    if entry.leaving.swap(false, Ordering::AcqRel) {
        shared.leaving.send_modify(|leaving| *leaving = leaving.saturating_sub(1));
    }
    drop(place);
}

/// Reads one connection, or one stream of it.
#[derive(Clone)]
struct Reader {
    shared: Arc<Shared>,
    entry: Arc<Entry>,
    connection: ConnectionId,
    _reading: mpsc::Sender<()>,
}

impl Reader {
    /// Takes the peer's streams and has each read, until the connection ends.
    async fn streams(self) {
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

    async fn stream(self, mut stream: RecvStream, class: StreamClass) {
        let Self { shared, entry, connection, .. } = &self;
        let (mut frames, mut events) = (Frames::default(), Vec::new());
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
                    Ok(Some(frame)) => entry.dialect.read(&frame),
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
            if entry.is_over() || shared.inbox.deliver_all(&mut events).await.is_err() {
                return;
            }
            if let Some(what) = wrong {
                return entry.wrong(shared, what);
            }
        }
    }

    async fn datagrams(self) {
        let Self { shared, entry, connection, .. } = &self;
        let mut events = Vec::new();
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

/// An orderly close: what was sent before it arrives, if the peer takes it in time.
async fn farewell(entry: &Entry) {
    if or_closed(entry, entry.farewell.notified()).await.is_none() {
        return;
    }
    entry.finish_lanes();
    let writers = std::mem::take(&mut *lock(&entry.writers));
    let written = async {
        for writer in writers {
            drop(writer.await);
        }
    };
    drop(timeout(FAREWELL, or_closed(entry, written)).await);
    entry.end(CloseReason::Closed);
}

/// What `future` comes to, unless the connection ends before.
async fn or_closed<T>(entry: &Entry, future: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        _ = entry.connection.closed() => None,
        output = future => Some(output),
    }
}

/// Writes what a lane could not write at once, and sees to it that the peer has all of it when there is no more.
async fn write(shared: Arc<Shared>, entry: Arc<Entry>, class: StreamClass, done: oneshot::Sender<()>) {
    let Ok(stream) = entry.connection.open_uni().await else { return };
    let lane = &entry.lanes[class as usize];
    lock(lane).open(stream, class);
    let written = poll_fn(|context| lock(lane).poll_written(context)).await;
    let stream = lock(lane).take();
    match (written, stream) {
        (Ok(()), Some(mut stream)) => {
            if stream.finish().is_ok() {
                // Until all is acknowledged, or the connection has ended.
                drop(stream.stopped().await);
            }
        }
        (Err(quinn::WriteError::ConnectionLost(_)), _) | (Ok(()), None) => {}
        // The peer does not want this class: nothing can be promised any more.
        (Err(_), _) => entry.wrong(&shared, Count::StreamCut),
    }
    drop(done);
}
