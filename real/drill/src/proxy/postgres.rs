//! The proxy of a link to PostgreSQL: a byte stream that knows where messages begin, so that the answer of a statement can be
//! swallowed when the server has committed it, a commit be held back, a connection be broken at a chosen moment.
//!
//! A statement is all that is sent up to a `Sync` (or a simple query); its answer is all up to the `ReadyForQuery`. Only calls
//! of the functions that change something are harmed, and an answer is swallowed only if it shows that the call has been
//! committed: it holds no error and leaves no transaction open.
//!
//! Deliberately absent: TLS. A server that accepts it is carried as a plain stream, and nothing happens to its statements.

use super::{
    statements::{Statements, When},
    stream::{self, Chunk},
    way::Way,
};
use bytes::{Buf as _, Bytes, BytesMut};
use std::{
    collections::{BTreeMap, VecDeque},
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite},
    net::TcpStream,
    sync::mpsc,
    time::Instant,
};
use worldline_proto::NodeId;

/// The longest message that is carried.
const MESSAGE_BYTES_MAX: usize = 64 << 20;
const CHUNK_BYTES: usize = 16 * 1024;
const CHUNKS_MAX: usize = 256;
/// Prepared statements of one connection that are remembered by name.
const PREPARED_MAX: usize = 4_096;
/// What a connection may begin with, by the code in its first message.
const ASKS_FOR_TLS: u32 = 80_877_103;
const ASKS_FOR_GSS: u32 = 80_877_104;
const CANCELS: u32 = 80_877_102;

/// What both directions of a connection know.
#[derive(Debug, Default)]
struct Session {
    /// The statements whose answers are still to come.
    sent: VecDeque<Sent>,
    /// The server's next byte says whether it speaks TLS.
    asked: bool,
    /// From now on plain bytes.
    opaque: bool,
    /// An answer was swallowed: nothing arrives any more, either way.
    silent: bool,
}

/// A statement whose answer is still to come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sent {
    call: Option<Call>,
    breaks: Option<When>,
}

/// A call that changes something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    /// A login or a claim.
    Other,
    /// A batch: what a delayed commit means.
    Commit,
}

type Shared = Mutex<Session>;

fn lock(session: &Shared) -> MutexGuard<'_, Session> {
    // Nothing panics while it holds the lock: what is inside is whole.
    session.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What this text calls.
fn call(sql: &str) -> Option<Call> {
    let sql = sql.to_ascii_lowercase();
    if sql.contains("worldline.commit(") {
        Some(Call::Commit)
    } else {
        ["worldline.claim(", "worldline.login("].iter().any(|call| sql.contains(call)).then_some(Call::Other)
    }
}

/// Carries one connection of `caller` until both ends are closed, or broken, or a fault breaks it.
///
/// # Errors
/// An end is broken.
pub async fn carry(
    mut socket: TcpStream,
    caller: NodeId,
    server: SocketAddr,
    (forth, back): (Arc<Way>, Arc<Way>),
    statements: Arc<Statements>,
) -> io::Result<()> {
    let Some((mut there, known)) = stream::connect(&socket, server, &forth, &back).await? else { return Ok(()) };
    let session = Shared::default();
    let ended = {
        let (reads, writes) = socket.split();
        let (there_reads, there_writes) = there.split();
        let asks = Asks { session: &session, statements: &statements, caller, way: &forth };
        let answers = Answers { session: &session, statements: &statements, caller, way: &back };
        tokio::try_join!(asks.carry(reads, there_writes, known), answers.carry(there_reads, writes, known))
    };
    if ended.is_err() {
        // Nobody hears a proper end of a connection that breaks.
        let _ = (socket.set_zero_linger(), there.set_zero_linger());
    }
    ended.map(drop)
}

/// Cuts a direction into messages: a tag and a length. The first one of a caller has no tag.
#[derive(Debug, Default)]
struct Messages {
    buffer: BytesMut,
}

impl Messages {
    /// The next whole message, with its tag. `tagged`: whether it has one.
    fn next(&mut self, tagged: bool) -> io::Result<Option<Bytes>> {
        let tag = usize::from(tagged);
        let Some(mut length) = self.buffer.get(tag..tag + 4) else { return Ok(None) };
        let length = length.get_u32() as usize;
        if !(4..=MESSAGE_BYTES_MAX).contains(&length) {
            return Err(io::Error::other(format!("a message of {length} bytes")));
        }
        Ok((self.buffer.len() >= tag + length).then(|| self.buffer.split_to(tag + length).freeze()))
    }
}

/// The texts in a message's body, each closed by a zero byte.
fn text(message: &[u8], n: usize) -> Option<String> {
    let part = message.get(5..)?.split(|&byte| byte == 0).nth(n)?;
    Some(String::from_utf8_lossy(part).into_owned())
}

/// From the caller to the server.
struct Asks<'a> {
    session: &'a Shared,
    statements: &'a Statements,
    caller: NodeId,
    way: &'a Way,
}

/// What is known of the statement that is being sent.
#[derive(Debug, Default)]
struct Sending {
    bytes: BytesMut,
    executes: bool,
    /// What the statement calls that it executes.
    call: Option<Call>,
    /// What the prepared statements call.
    prepared: BTreeMap<String, Call>,
}

impl Asks<'_> {
    async fn carry(
        &self,
        source: impl AsyncRead + Unpin,
        target: impl AsyncWrite + Unpin,
        from: Instant,
    ) -> io::Result<()> {
        let (sender, receiver) = mpsc::channel(CHUNKS_MAX);
        tokio::try_join!(self.read(source, sender, from), stream::deliver(receiver, target, self.way))?;
        Ok(())
    }

    async fn read(
        &self,
        mut source: impl AsyncRead + Unpin,
        sender: mpsc::Sender<Chunk>,
        from: Instant,
    ) -> io::Result<()> {
        let (mut messages, mut sending) = (Messages::default(), Sending::default());
        let (mut tagged, mut at) = (false, from);
        loop {
            if messages.buffer.capacity() - messages.buffer.len() < CHUNK_BYTES {
                messages.buffer.reserve(CHUNK_BYTES);
            }
            if source.read_buf(&mut messages.buffer).await.unwrap_or(0) == 0 {
                return Ok(());
            }
            let (opaque, silent) = {
                let session = lock(self.session);
                (session.opaque, session.silent)
            };
            if silent {
                messages.buffer.clear();
                continue;
            }
            if opaque {
                let bytes = messages.buffer.split().freeze();
                at = at.max(Instant::now() + self.way.segment());
                send(&sender, at, bytes).await?;
                continue;
            }
            while let Some(message) = messages.next(tagged)? {
                if !tagged {
                    tagged = self.begins(&message);
                    at = at.max(Instant::now() + self.way.segment());
                    send(&sender, at, message).await?;
                    continue;
                }
                let Some(Sent { call, breaks }) = self.takes(&mut sending, &message) else { continue };
                let mut later = self.way.segment();
                if call == Some(Call::Commit) {
                    later += self.statements.delay(self.caller);
                }
                let broken = || Err(io::Error::from(io::ErrorKind::ConnectionReset));
                if breaks == Some(When::Before) {
                    return broken();
                }
                at = at.max(Instant::now() + later);
                send(&sender, at, sending.bytes.split().freeze()).await?;
                if breaks == Some(When::During) {
                    tokio::time::sleep_until(at).await;
                    return broken();
                }
            }
        }
    }

    /// A first message: whether the session begins with it.
    fn begins(&self, message: &[u8]) -> bool {
        let code = message.get(4..8).map_or(0, |mut code| code.get_u32());
        lock(self.session).asked = matches!(code, ASKS_FOR_TLS | ASKS_FOR_GSS);
        !matches!(code, ASKS_FOR_TLS | ASKS_FOR_GSS | CANCELS)
    }

    /// Takes in a message. What is sent with it, where all up to it leaves now.
    fn takes(&self, sending: &mut Sending, message: &Bytes) -> Option<Sent> {
        sending.bytes.extend_from_slice(message);
        match message[0] {
            b'P' => {
                if let (Some(name), Some(sql)) = (text(message, 0), text(message, 1)) {
                    // A name may be taken for another statement, above all the empty one.
                    sending.prepared.remove(&name);
                    if let Some(call) = call(&sql).filter(|_| sending.prepared.len() < PREPARED_MAX) {
                        sending.prepared.insert(name, call);
                    }
                }
                None
            }
            b'B' => {
                let statement = text(message, 1).unwrap_or_default();
                sending.call = sending.call.or(sending.prepared.get(&statement).copied());
                None
            }
            b'E' => {
                sending.executes = true;
                None
            }
            b'D' | b'C' => None,
            tag @ (b'S' | b'Q') => {
                let simple = if tag == b'Q' { text(message, 0).and_then(|sql| call(&sql)) } else { None };
                let call = simple.or(sending.call.take().filter(|_| sending.executes));
                sending.executes = false;
                let sent = Sent { call, breaks: call.and_then(|_| self.statements.breaks()) };
                lock(self.session).sent.push_back(sent);
                Some(sent)
            }
            _ => Some(Sent::default()),
        }
    }
}

/// From the server to the caller.
struct Answers<'a> {
    session: &'a Shared,
    statements: &'a Statements,
    caller: NodeId,
    way: &'a Way,
}

/// What is known of the answer that is arriving.
#[derive(Debug, Default)]
struct Arriving {
    /// What is held back of it, until its fate is known.
    held: BytesMut,
    /// It holds an error: nothing was committed.
    failed: bool,
    /// Whether it is to be swallowed if it tells of a commit; drawn when it begins.
    chosen: Option<bool>,
}

/// What becomes of an answer that is whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Passes,
    /// Neither it nor anything behind it arrives.
    Swallowed,
    /// The connection breaks.
    Breaks,
}

impl Answers<'_> {
    async fn carry(
        &self,
        source: impl AsyncRead + Unpin,
        target: impl AsyncWrite + Unpin,
        from: Instant,
    ) -> io::Result<()> {
        let (sender, receiver) = mpsc::channel(CHUNKS_MAX);
        tokio::try_join!(self.hear(source, sender, from), stream::deliver(receiver, target, self.way))?;
        Ok(())
    }

    async fn hear(
        &self,
        mut source: impl AsyncRead + Unpin,
        sender: mpsc::Sender<Chunk>,
        from: Instant,
    ) -> io::Result<()> {
        let (mut messages, mut arriving) = (Messages::default(), Arriving::default());
        let mut at = from;
        loop {
            if messages.buffer.capacity() - messages.buffer.len() < CHUNK_BYTES {
                messages.buffer.reserve(CHUNK_BYTES);
            }
            if source.read_buf(&mut messages.buffer).await.unwrap_or(0) == 0 {
                return Ok(());
            }
            let (ready, breaks) = self.takes(&mut messages, &mut arriving)?;
            if !ready.is_empty() {
                at = at.max(Instant::now() + self.way.segment());
                send(&sender, at, ready.freeze()).await?;
            }
            if breaks {
                return Err(io::ErrorKind::ConnectionReset.into());
            }
        }
    }

    /// Takes what has been read: what is passed on of it, and whether the connection then breaks.
    fn takes(&self, messages: &mut Messages, arriving: &mut Arriving) -> io::Result<(BytesMut, bool)> {
        let mut ready = BytesMut::new();
        let mut session = lock(self.session);
        if session.asked && !messages.buffer.is_empty() {
            session.asked = false;
            session.opaque = messages.buffer[0] != b'N';
            ready.extend_from_slice(&messages.buffer.split_to(1));
        }
        if session.silent {
            messages.buffer.clear();
        } else if session.opaque {
            ready.extend_from_slice(&messages.buffer.split());
        }
        while let Some(message) = if session.opaque || session.silent { None } else { messages.next(true)? } {
            arriving.held.extend_from_slice(&message);
            arriving.failed |= message[0] == b'E';
            let sent = session.sent.front().copied().unwrap_or_default();
            if message[0] != b'Z' {
                let draw = || self.statements.chooses(self.caller);
                let chosen = sent.call.is_some() && *arriving.chosen.get_or_insert_with(draw);
                // All others are passed on as they come: above all the row, which comes before the commit.
                if sent.breaks.is_none() && !chosen {
                    ready.extend_from_slice(&arriving.held.split());
                }
                continue;
            }
            session.sent.pop_front();
            let whole = std::mem::take(arriving);
            match self.fate(sent, &whole, message.get(5) == Some(&b'I')) {
                Fate::Passes => ready.extend_from_slice(&whole.held),
                Fate::Swallowed => {
                    session.silent = true;
                    messages.buffer.clear();
                }
                Fate::Breaks => return Ok((ready, true)),
            }
        }
        Ok((ready, false))
    }

    /// `idle`: the server says that no transaction is open.
    fn fate(&self, sent: Sent, answer: &Arriving, idle: bool) -> Fate {
        let committed = sent.call.is_some() && idle && !answer.failed;
        if sent.breaks == Some(When::After) {
            Fate::Breaks
        } else if committed && answer.chosen == Some(true) && self.statements.swallows(self.caller) {
            Fate::Swallowed
        } else {
            Fate::Passes
        }
    }
}

async fn send(sender: &mpsc::Sender<Chunk>, at: Instant, bytes: Bytes) -> io::Result<()> {
    sender.send(Chunk { at, bytes }).await.map_err(|_| io::ErrorKind::BrokenPipe.into())
}

#[cfg(test)]
mod tests;
