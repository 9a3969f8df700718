//! One connection: tasks that read it, one that sees its end, and one for each lane that is written.
//!
//! * The role hears that it was accepted or opened before anything else of it, and that it has ended after everything else.
//! * What the peer gets wrong closes the connection and is counted by its kind.

use super::{
    Place, Shared,
    frames::Dialect,
    lane::{Datagrams, Gathered, Lane, Overflow},
    leaving::Leaver,
    reader::Reader,
    reason::{code, reason_of},
    transport,
};
use crate::network::counters::Count;
use quinn::{SendDatagramError, WriteError};
use std::{
    future::{Future, poll_fn},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::Waker,
    time::Duration,
};
use tokio::{
    sync::{Notify, mpsc, oneshot},
    task::yield_now,
    time::timeout,
};
use worldline_proto::{ConnectionId, NodeId};
use worldline_system::doors::{
    self,
    network::{CloseReason, Event, Payload, StreamClass},
};

/// How long an orderly close waits until the peer has what was sent before it.
const FAREWELL: Duration = Duration::from_millis(500);

pub(super) const CLASSES: usize = StreamClass::ALL.len();

/// A connection that stands.
pub(super) struct Entry {
    pub connection: quinn::Connection,
    pub dialect: Dialect,
    /// The peer has opened it.
    pub accepted: bool,
    lanes: [Mutex<Lane>; CLASSES],
    datagrams: Mutex<Datagrams>,
    /// The ends of the writers of the lanes that were used.
    writers: Mutex<Vec<oneshot::Receiver<()>>>,
    /// Why this side ended it, where it was this side.
    own_reason: OnceLock<CloseReason>,
    /// The role has closed it and hears no more of it.
    left: AtomicBool,
    /// Whether it still has something to deliver then.
    leaver: Leaver,
    /// The role has closed it, and for this reason it is closed when what was sent before has arrived.
    farewell: Notify,
    farewell_reason: OnceLock<CloseReason>,
}

impl Entry {
    pub fn send_datagram(self: &Arc<Self>, shared: &Arc<Shared>, payload: &Payload) {
        if self.is_over() {
            return shared.counters.add(Count::SentToNobody);
        }
        let Some(bytes) = self.dialect.datagram_bytes(payload) else {
            tracing::error!(connection = self.connection.stable_id(), "this datagram cannot be sent");
            return shared.counters.add(Count::Unsendable);
        };
        let mut lane = lock(&self.datagrams);
        if lane.writer.begin() {
            shared.tasks.spawn(write_datagrams(Arc::clone(shared), Arc::clone(self)));
        }
        let (displaced, writer) = lane.push(self.dialect, payload, bytes);
        drop(lane);
        if let Some(writer) = writer {
            shared.inbox.wake_writer(writer);
        }
        if displaced {
            shared.counters.add(Count::DatagramDisplaced);
        }
    }

    pub fn send(self: &Arc<Self>, shared: &Arc<Shared>, class: StreamClass, payload: &Payload) {
        if self.is_over() {
            return shared.counters.add(Count::SentToNobody);
        }
        let Some(bytes) = self.dialect.frame_bytes(payload) else {
            tracing::error!(?class, "this message cannot be sent, and nothing after it may be");
            shared.counters.add(Count::Unsendable);
            return self.end(CloseReason::ProtocolError);
        };
        let mut lane = lock(&self.lanes[class as usize]);
        if lane.writer.begin() {
            let (done, ended) = oneshot::channel();
            lock(&self.writers).push(ended);
            shared.tasks.spawn(write(Arc::clone(shared), Arc::clone(self), class, done));
        }
        let pushed = lane.push(self.dialect, payload, bytes);
        drop(lane);
        match pushed {
            Ok(Some(writer)) => shared.inbox.wake_writer(writer),
            Ok(None) => {}
            Err(Overflow) => {
                shared.counters.add(Count::Overflow);
                self.end(CloseReason::Overflow);
            }
        }
    }

    /// This side ends it; the role is told.
    fn end(&self, reason: CloseReason) {
        if self.own_reason.set(reason).is_ok() {
            self.connection.close(code(reason), b"");
        }
    }

    /// The role closes it. An orderly close, and one that bars the peer, let it have what was sent before; any other overtakes it.
    pub fn leave(&self, shared: &Shared, reason: CloseReason) {
        self.left.store(true, Ordering::Release);
        if matches!(reason, CloseReason::Closed | CloseReason::Barred) && !lock(&self.writers).is_empty() {
            // A role closes a connection once: it is forgotten with that.
            let _ = self.farewell_reason.set(reason);
            shared.leaving.begin(&self.leaver);
            self.farewell.notify_one();
        } else {
            self.end(reason);
        }
    }

    /// The process is stopping: nobody hears of it any more.
    pub fn forget(&self) {
        self.left.store(true, Ordering::Release);
    }

    pub fn wrong(&self, shared: &Shared, what: Count) {
        shared.counters.add(what);
        tracing::warn!(peer = %self.connection.remote_address(), ?what, "a connection is closed");
        self.end(CloseReason::ProtocolError);
    }

    pub fn is_over(&self) -> bool {
        self.left.load(Ordering::Acquire) || self.own_reason.get().is_some()
    }

    /// Nothing more is written: writers end when what waits is written.
    fn finish_lanes(&self) {
        for lane in &self.lanes {
            let writer = lock(lane).writer.finish();
            wake(writer);
        }
        let writer = lock(&self.datagrams).writer.finish();
        wake(writer);
    }
}

/// Nothing panics while it holds such a lock: what is inside is whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn wake(writer: Option<Waker>) {
    if let Some(writer) = writer {
        writer.wake();
    }
}

fn enter(
    shared: &Shared,
    connection: quinn::Connection,
    dialect: Dialect,
    accepted: bool,
) -> (ConnectionId, Arc<Entry>) {
    transport::widen(&connection, dialect);
    let entry = Arc::new(Entry {
        connection,
        dialect,
        accepted,
        lanes: Default::default(),
        datagrams: Mutex::default(),
        writers: Mutex::default(),
        own_reason: OnceLock::new(),
        left: AtomicBool::new(false),
        leaver: Leaver::default(),
        farewell: Notify::new(),
        farewell_reason: OnceLock::new(),
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
    place: Place,
    tell: impl FnOnce(ConnectionId),
) {
    let (id, entry) = enter(shared, connection, dialect, false);
    tell(id);
    shared.tasks.spawn(attend(Arc::clone(shared), id, entry, place));
}

/// A connection that a peer has opened. Its role is told when its inbox has a place, so that who opens and closes connections
/// all the time is slowed down.
pub(super) fn begin_accepted(
    shared: &Arc<Shared>,
    connection: quinn::Connection,
    dialect: Dialect,
    place: Place,
    from: NodeId,
) {
    let (connection, entry) = enter(shared, connection, dialect, true);
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
async fn attend(shared: Arc<Shared>, id: ConnectionId, entry: Arc<Entry>, place: Place) {
    // Every reader holds an end of this, and nothing is sent on it.
    let (reading, mut all_read) = mpsc::channel(1);
    let reader = Reader::new(&shared, &entry, id, reading);
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
    shared.leaving.end(&entry.leaver);
    drop(place);
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
    entry.end(entry.farewell_reason.get().copied().unwrap_or(CloseReason::Closed));
}

/// What `future` comes to, unless the connection ends before.
pub(super) async fn or_closed<T>(entry: &Entry, future: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        _ = entry.connection.closed() => None,
        output = future => Some(output),
    }
}

/// Writes a lane, and sees to it that the peer has all of it when there is no more.
async fn write(shared: Arc<Shared>, entry: Arc<Entry>, class: StreamClass, done: oneshot::Sender<()>) {
    let Ok(mut stream) = entry.connection.open_uni().await else { return };
    let lane = &entry.lanes[class as usize];
    let written = async {
        stream.write_all(&[class as u8]).await?;
        while let Some(frames) = poll_fn(|context| lock(lane).poll_take(context)).await {
            stream.write_chunk(frames).await?;
            yield_now().await;
        }
        Ok(())
    };
    match written.await {
        Ok(()) => {
            if stream.finish().is_ok() {
                // Until all is acknowledged, or the connection has ended.
                drop(stream.stopped().await);
            }
        }
        Err(WriteError::ConnectionLost(_)) => {}
        // The peer does not want this class: nothing can be promised any more.
        Err(_) => entry.wrong(&shared, Count::StreamCut),
    }
    drop(done);
}

/// Sends what waits of a connection's datagrams, until none will come.
async fn write_datagrams(shared: Arc<Shared>, entry: Arc<Entry>) {
    let mut taken = Gathered::default();
    while poll_fn(|context| lock(&entry.datagrams).poll_waiting(context)).await.is_some() {
        lock(&entry.datagrams).take(&mut taken);
        while let Some(datagram) = taken.pop() {
            match entry.connection.send_datagram(datagram) {
                Ok(()) => {}
                Err(SendDatagramError::ConnectionLost(_)) => shared.counters.add(Count::SentToNobody),
                Err(_) => shared.counters.add(Count::Unsendable),
            }
        }
    }
}
