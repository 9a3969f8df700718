//! One connection: a task that reads it and sees its end, and a task for each class that is written.
//!
//! * The role hears that it was accepted or opened before anything else of it, and that it has ended after everything else.
//! * A stream's reader waits for a place in the inbox, so that its flow control stops the peer; a datagram is shed.
//! * What the peer gets wrong closes the connection and is counted by its kind.

use super::{
    Shared,
    frames::{self, Dialect, Frames},
    reason::{code, reason_of},
    transport,
};
use crate::network::counters::Count;
use bytes::Bytes;
use quinn::{RecvStream, SendDatagramError};
use std::{
    future::Future,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
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
/// Frames that a writer takes at once.
const WRITE_BATCH: usize = 64;
/// What a reader takes at once, in bytes.
const READ_BYTES: usize = 64 * 1024;

const CLASSES: usize = StreamClass::ALL.len();

/// A connection that stands.
pub(super) struct Entry {
    connection: quinn::Connection,
    dialect: Dialect,
    /// Queues to the writers of the classes that were written, while this side sends.
    queues: Mutex<[Option<mpsc::Sender<Bytes>>; CLASSES]>,
    /// Writers that run; the last one to end tells `farewell`.
    writers: Mutex<Vec<oneshot::Receiver<()>>>,
    /// Why this side ended it, where it was this side.
    own_reason: OnceLock<CloseReason>,
    /// The role has closed it and hears no more of it.
    left: AtomicBool,
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
        let mut queues = self.queues();
        let queue = queues[class as usize].get_or_insert_with(|| {
            let (queue, frames) = mpsc::channel(limits::STREAM_BACKLOG);
            let (done, ended) = oneshot::channel();
            lock(&self.writers).push(ended);
            shared.tasks.spawn(write(Arc::clone(shared), Arc::clone(self), class, frames, done));
            queue
        });
        let sent = queue.try_send(frame);
        drop(queues);
        match sent {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(_)) => {
                shared.counters.add(Count::Overflow);
                self.end(CloseReason::Overflow);
            }
            // The writer saw the connection's end before the role has heard of it.
            Err(mpsc::error::TrySendError::Closed(_)) => shared.counters.add(Count::SentToNobody),
        }
    }

    /// This side ends it; the role is told.
    fn end(&self, reason: CloseReason) {
        if self.own_reason.set(reason).is_ok() {
            self.connection.close(code(reason), b"");
        }
    }

    /// The role closes it. An orderly close lets the peer have what was sent before; any other overtakes it.
    pub fn leave(&self, reason: CloseReason) {
        self.left.store(true, Ordering::Release);
        if reason == CloseReason::Closed && !lock(&self.writers).is_empty() {
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

    fn queues(&self) -> MutexGuard<'_, [Option<mpsc::Sender<Bytes>>; CLASSES]> {
        lock(&self.queues)
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
        queues: Mutex::default(),
        writers: Mutex::default(),
        own_reason: OnceLock::new(),
        left: AtomicBool::new(false),
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
    let (slots, [control, action, state]) = slots();
    tokio::join!(
        distribute(&shared, &entry, slots),
        read_datagrams(&shared, &entry, id),
        read_stream(&shared, &entry, id, StreamClass::Control, control),
        read_stream(&shared, &entry, id, StreamClass::Action, action),
        read_stream(&shared, &entry, id, StreamClass::State, state),
        farewell(&entry),
    );
    shared.open().remove(&id.0);
    entry.queues().fill_with(|| None);
    let reason = match (entry.own_reason.get(), entry.connection.close_reason()) {
        (Some(reason), _) => *reason,
        (None, Some(error)) => reason_of(&error),
        (None, None) => CloseReason::Closed,
    };
    if !entry.left.load(Ordering::Acquire) {
        shared.inbox.reserved(doors::Event::Network(Event::Closed { connection: id, reason }));
    }
    drop(place);
}

type Slot<T> = oneshot::Sender<T>;

fn slots() -> ([Option<Slot<RecvStream>>; CLASSES], [oneshot::Receiver<RecvStream>; CLASSES]) {
    let pairs: [_; CLASSES] = std::array::from_fn(|_| oneshot::channel());
    let mut receivers = Vec::with_capacity(CLASSES);
    let slots = pairs.map(|(slot, receiver)| {
        receivers.push(receiver);
        Some(slot)
    });
    (slots, receivers.try_into().expect("as many as there are classes"))
}

/// Takes the peer's streams and hands each to the reader of its class.
async fn distribute(shared: &Shared, entry: &Entry, mut slots: [Option<Slot<RecvStream>>; CLASSES]) {
    while let Ok(mut stream) = entry.connection.accept_uni().await {
        let mut first = [0];
        let class = match stream.read_exact(&mut first).await {
            Ok(()) => frames::class(first[0]),
            Err(quinn::ReadExactError::ReadError(quinn::ReadError::ConnectionLost(_))) => return,
            Err(_) => Err(Count::StreamCut),
        };
        match class.map(|class| slots[class as usize].take()) {
            // Its reader waits for it as long as this side accepts streams.
            Ok(Some(slot)) => drop(slot.send(stream)),
            Ok(None) => return entry.wrong(shared, Count::StreamDoubled),
            Err(what) => return entry.wrong(shared, what),
        }
    }
}

async fn read_stream(
    shared: &Shared,
    entry: &Entry,
    connection: ConnectionId,
    class: StreamClass,
    slot: oneshot::Receiver<RecvStream>,
) {
    let Ok(mut stream) = slot.await else { return };
    let mut frames = Frames::default();
    loop {
        match stream.read_chunk(READ_BYTES, true).await {
            Ok(Some(chunk)) => frames.push(&chunk.bytes),
            Ok(None) if !frames.within_a_frame() => return,
            Err(quinn::ReadError::ConnectionLost(_)) => return,
            Ok(None) | Err(_) => return entry.wrong(shared, Count::StreamCut),
        }
        loop {
            let payload = match frames.next() {
                Ok(None) => break,
                Ok(Some(frame)) => entry.dialect.read(&frame),
                Err(what) => Err(what),
            };
            let payload = match payload {
                Ok(payload) => payload,
                Err(what) => return entry.wrong(shared, what),
            };
            if entry.is_over() {
                return;
            }
            let event = doors::Event::Network(Event::Received { connection, class, payload });
            if shared.inbox.deliver(event).await.is_err() {
                return;
            }
        }
    }
}

async fn read_datagrams(shared: &Shared, entry: &Entry, connection: ConnectionId) {
    while let Ok(bytes) = entry.connection.read_datagram().await {
        if bytes.len() > limits::DATAGRAM_BYTES {
            return entry.wrong(shared, Count::DatagramTooLong);
        }
        let payload = match entry.dialect.read(&bytes) {
            Ok(payload) => payload,
            Err(what) => return entry.wrong(shared, what),
        };
        if entry.is_over() {
            return;
        }
        // One that finds no place is lost, as a datagram may be; the inbox counts it.
        let _ = shared.inbox.offer(doors::Event::Network(Event::Datagram { connection, payload }));
    }
}

/// An orderly close: what was sent before it arrives, if the peer takes it in time.
async fn farewell(entry: &Entry) {
    let asked = or_closed(entry, entry.farewell.notified()).await;
    if asked.is_none() {
        return;
    }
    // A writer ends when its queue is empty and dropped.
    entry.queues().fill_with(|| None);
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

/// Writes one class, and sees to it that the peer has all of it when there is no more.
async fn write(
    shared: Arc<Shared>,
    entry: Arc<Entry>,
    class: StreamClass,
    mut queue: mpsc::Receiver<Bytes>,
    done: oneshot::Sender<()>,
) {
    let Ok(mut stream) = entry.connection.open_uni().await else { return };
    let mut frames = vec![Bytes::copy_from_slice(&[class as u8])];
    loop {
        match stream.write_all_chunks(&mut frames).await {
            Ok(()) => frames.clear(),
            Err(quinn::WriteError::ConnectionLost(_)) => return,
            // The peer does not want this class: nothing can be promised any more.
            Err(_) => return entry.wrong(&shared, Count::StreamCut),
        }
        if queue.recv_many(&mut frames, WRITE_BATCH).await == 0 {
            break;
        }
    }
    if stream.finish().is_ok() {
        // Until all is acknowledged, or the connection has ended.
        drop(stream.stopped().await);
    }
    drop(done);
}
