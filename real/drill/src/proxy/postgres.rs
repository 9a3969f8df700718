//! The proxy of a link to PostgreSQL: a byte stream that knows where messages begin, so that the answer of a statement can be
//! swallowed when the server has committed it, a commit be held back, a connection be broken at a chosen moment.
//!
//! A statement is all that is sent up to a `Sync` (or a simple query), if something is executed in it; its answer is all up
//! to the `ReadyForQuery`. An answer that leaves a transaction open is never swallowed: nothing was committed.
//!
//! Deliberately absent: TLS. A server that accepts it is carried as a plain stream, and nothing happens to its statements.

use super::{
    statements::{Deed, Statements, When},
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
    deeds: VecDeque<Deed>,
    /// The server's next byte says whether it speaks TLS.
    asked: bool,
    /// From now on plain bytes.
    opaque: bool,
    /// An answer was swallowed: nothing arrives any more, either way.
    silent: bool,
}

type Shared = Mutex<Session>;

fn lock(session: &Shared) -> MutexGuard<'_, Session> {
    // Nothing panics while it holds the lock: what is inside is whole.
    session.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether this text commits a batch: what a delayed commit means.
fn commits(sql: &str) -> bool {
    sql.to_ascii_lowercase().contains("commit")
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
        tokio::try_join!(asks.carry(reads, there_writes, known), answers(there_reads, writes, &session, &back, known),)
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
    commits: bool,
    /// Of the prepared statements, which commit.
    prepared: BTreeMap<String, bool>,
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
                at = at.max(Instant::now() + self.way.delay());
                send(&sender, at, bytes).await?;
                continue;
            }
            while let Some(message) = messages.next(tagged)? {
                if !tagged {
                    tagged = self.begins(&message);
                    at = at.max(Instant::now() + self.way.delay());
                    send(&sender, at, message).await?;
                    continue;
                }
                let Some(deed) = self.takes(&mut sending, &message) else { continue };
                let mut later = self.way.delay();
                if sending.commits {
                    later += self.statements.delay(self.caller);
                }
                (sending.executes, sending.commits) = (false, false);
                let broken = || Err(io::Error::from(io::ErrorKind::ConnectionReset));
                if deed == Deed::Break(When::Before) {
                    return broken();
                }
                at = at.max(Instant::now() + later);
                send(&sender, at, sending.bytes.split().freeze()).await?;
                if deed == Deed::Break(When::During) {
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

    /// Takes in a message. The deed, where all up to it leaves now.
    fn takes(&self, sending: &mut Sending, message: &Bytes) -> Option<Deed> {
        sending.bytes.extend_from_slice(message);
        match message[0] {
            b'P' => {
                if let (Some(name), Some(sql)) = (text(message, 0), text(message, 1))
                    && sending.prepared.len() < PREPARED_MAX
                {
                    sending.prepared.insert(name, commits(&sql));
                }
                None
            }
            b'B' => {
                let statement = text(message, 1).unwrap_or_default();
                sending.commits |= sending.prepared.get(&statement).copied().unwrap_or(false);
                None
            }
            b'E' => {
                sending.executes = true;
                None
            }
            b'D' | b'C' => None,
            tag @ (b'S' | b'Q') => {
                let simple = tag == b'Q';
                sending.commits |= simple && text(message, 0).is_some_and(|sql| commits(&sql));
                let executes = sending.executes || simple;
                let deed = if executes { self.statements.next(self.caller) } else { Deed::Pass };
                lock(self.session).deeds.push_back(deed);
                Some(deed)
            }
            _ => Some(Deed::Pass),
        }
    }
}

/// From the server to the caller.
async fn answers(
    source: impl AsyncRead + Unpin,
    target: impl AsyncWrite + Unpin,
    session: &Shared,
    way: &Way,
    from: Instant,
) -> io::Result<()> {
    let (sender, receiver) = mpsc::channel(CHUNKS_MAX);
    tokio::try_join!(hear(source, sender, session, way, from), stream::deliver(receiver, target, way))?;
    Ok(())
}

async fn hear(
    mut source: impl AsyncRead + Unpin,
    sender: mpsc::Sender<Chunk>,
    session: &Shared,
    way: &Way,
    from: Instant,
) -> io::Result<()> {
    let mut messages = Messages::default();
    let mut held = BytesMut::new();
    let mut at = from;
    loop {
        if messages.buffer.capacity() - messages.buffer.len() < CHUNK_BYTES {
            messages.buffer.reserve(CHUNK_BYTES);
        }
        if source.read_buf(&mut messages.buffer).await.unwrap_or(0) == 0 {
            return Ok(());
        }
        let mut ready = BytesMut::new();
        let mut breaks = false;
        {
            let mut session = lock(session);
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
                held.extend_from_slice(&message);
                let deed = session.deeds.front().copied().unwrap_or(Deed::Pass);
                if message[0] == b'Z' {
                    session.deeds.pop_front();
                    let committed = message.get(5) == Some(&b'I');
                    match deed {
                        Deed::Swallow if committed => {
                            session.silent = true;
                            messages.buffer.clear();
                            held.clear();
                        }
                        Deed::Break(When::After) => {
                            breaks = true;
                            held.clear();
                        }
                        _ => ready.extend_from_slice(&held.split()),
                    }
                } else if deed == Deed::Pass {
                    ready.extend_from_slice(&held.split());
                }
                if breaks {
                    break;
                }
            }
        }
        if !ready.is_empty() {
            at = at.max(Instant::now() + way.delay());
            send(&sender, at, ready.freeze()).await?;
        }
        if breaks {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
    }
}

async fn send(sender: &mpsc::Sender<Chunk>, at: Instant, bytes: Bytes) -> io::Result<()> {
    sender.send(Chunk { at, bytes }).await.map_err(|_| io::ErrorKind::BrokenPipe.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{net::Ipv4Addr, time::Duration};
    use tokio::{io::AsyncWriteExt as _, net::TcpListener, task::JoinSet, time::timeout};

    const PATIENCE: Duration = Duration::from_secs(5);

    /// A message with its tag and length.
    fn message(tag: u8, body: &[u8]) -> Vec<u8> {
        let mut bytes = vec![tag];
        bytes.extend_from_slice(&(body.len() as u32 + 4).to_be_bytes());
        bytes.extend_from_slice(body);
        bytes
    }

    fn statement(sql: &str) -> Vec<u8> {
        let parse = message(b'P', &[b"s\0".as_slice(), sql.as_bytes(), b"\0\0\0"].concat());
        [parse, message(b'B', b"\0s\0\0\0\0\0\0\0"), message(b'E', b"\0\0\0\0\0"), message(b'S', b"")].concat()
    }

    fn answer(row: &[u8], status: u8) -> Vec<u8> {
        [message(b'D', row), message(b'Z', &[status])].concat()
    }

    struct Link {
        caller: TcpStream,
        server: TcpStream,
        statements: Arc<Statements>,
        _tasks: JoinSet<io::Result<()>>,
    }

    async fn read(stream: &mut TcpStream, bytes: &[u8]) {
        let mut buffer = vec![0; bytes.len()];
        timeout(PATIENCE, stream.read_exact(&mut buffer)).await.expect("in time").expect("reads");
        assert_eq!(buffer, bytes);
    }

    /// A connection whose session has begun.
    async fn link() -> Link {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let here = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let (address, to) = (here.local_addr().expect("bound"), listener.local_addr().expect("bound"));
        let statements = Arc::new(Statements::new(1));
        let mut tasks = JoinSet::new();
        let shared = Arc::clone(&statements);
        tasks.spawn(stream::listen(here, move |socket| {
            let way = |who| Arc::new(Way::new(Duration::ZERO, Duration::ZERO, 1, who));
            carry(socket, NodeId(7), to, (way(1), way(2)), Arc::clone(&shared))
        }));
        let mut caller = TcpStream::connect(address).await.expect("connects");
        let (mut server, _) = timeout(PATIENCE, listener.accept()).await.expect("in time").expect("accepts");
        let tls = [8_u32.to_be_bytes(), ASKS_FOR_TLS.to_be_bytes()].concat();
        caller.write_all(&tls).await.expect("writes");
        read(&mut server, &tls).await;
        server.write_all(b"N").await.expect("writes");
        read(&mut caller, b"N").await;
        let hello = [&13_u32.to_be_bytes()[..], &196_608_u32.to_be_bytes(), b"user\0"].concat();
        caller.write_all(&hello).await.expect("writes");
        read(&mut server, &hello).await;
        let ready = message(b'Z', b"I");
        server.write_all(&ready).await.expect("writes");
        read(&mut caller, &ready).await;
        Link { caller, server, statements, _tasks: tasks }
    }

    #[tokio::test]
    async fn a_swallowed_answer_was_executed_and_nothing_follows_it() {
        let mut link = link().await;
        let ask = statement("SELECT commit_batch($1)");
        link.caller.write_all(&ask).await.expect("writes");
        read(&mut link.server, &ask).await;
        link.server.write_all(&answer(b"1", b'I')).await.expect("writes");
        read(&mut link.caller, &answer(b"1", b'I')).await;
        link.statements.lose_answers(None, 1_000, 1);
        link.caller.write_all(&ask).await.expect("writes");
        read(&mut link.server, &ask).await;
        link.server.write_all(&answer(b"2", b'I')).await.expect("writes");
        assert!(timeout(Duration::from_millis(50), link.caller.read(&mut [0])).await.is_err(), "silence");
        // The caller gives up: the server hears it.
        drop(link.caller);
        assert_eq!(timeout(PATIENCE, link.server.read(&mut [0])).await.expect("in time").expect("the end"), 0);
        assert_eq!(link.statements.counts()[0], ("answers swallowed", 1));
    }

    #[tokio::test]
    async fn an_open_transaction_is_no_commit_and_its_answer_arrives() {
        let mut link = link().await;
        link.statements.lose_answers(None, 1_000, 1);
        let ask = statement("SELECT 1");
        link.caller.write_all(&ask).await.expect("writes");
        read(&mut link.server, &ask).await;
        link.server.write_all(&answer(b"1", b'T')).await.expect("writes");
        read(&mut link.caller, &answer(b"1", b'T')).await;
    }

    #[tokio::test]
    async fn a_connection_breaks_before_or_after_its_statement() {
        let reset = async |stream: &mut TcpStream| {
            let read = timeout(PATIENCE, stream.read(&mut [0; 16])).await.expect("in time");
            assert_eq!(read.expect_err("a reset").kind(), io::ErrorKind::ConnectionReset);
        };
        let ask = statement("SELECT commit_batch($1)");
        let mut link = link().await;
        link.statements.lose_connections(1_000, When::Before);
        link.caller.write_all(&ask).await.expect("writes");
        reset(&mut link.caller).await;
        reset(&mut link.server).await;
        let mut link = self::link().await;
        link.statements.lose_connections(1_000, When::After);
        link.caller.write_all(&ask).await.expect("writes");
        read(&mut link.server, &ask).await;
        link.server.write_all(&answer(b"1", b'I')).await.expect("writes");
        reset(&mut link.caller).await;
    }

    #[tokio::test]
    async fn a_commit_is_held_back_even_if_its_caller_has_gone() {
        let mut link = link().await;
        let by = Duration::from_millis(120);
        link.statements.delay_commits(Some(NodeId(7)), by);
        let other = statement("SELECT roster()");
        link.caller.write_all(&other).await.expect("writes");
        read(&mut link.server, &other).await;
        let ask = statement("SELECT commit_batch($1)");
        let begun = Instant::now();
        link.caller.write_all(&ask).await.expect("writes");
        link.caller.shutdown().await.expect("closes");
        read(&mut link.server, &ask).await;
        assert!(begun.elapsed() >= by);
    }
}
