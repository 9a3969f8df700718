//! The proxy of a link to etcd: a byte stream that knows where the frames of HTTP/2 begin, and which streams carry a transaction, so
//! that a caller can be ended behind one of them and before the next.
//!
//! A transaction is told by its first bytes: of all that is asked of etcd's services only its message begins with a comparison.
//!
//! Deliberately absent: TLS, compressed messages, transactions without comparisons (no role submits one), and what etcd answers,
//! which passes as it is.

use super::{stream, transactions::Transactions, way::Way};
use bytes::{Bytes, BytesMut};
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::SocketAddr,
    sync::Arc,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
    sync::mpsc,
    time::{Instant, sleep, sleep_until},
};
use worldline_proto::NodeId;

const CHUNK_BYTES: usize = 16 * 1024;
const CHUNKS_MAX: usize = 256;
/// What a client sends before its first frame.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// What stands before a frame's payload: length, type, flags, stream.
const HEAD_BYTES: usize = 9;
/// The longest frame: more than any server here lets its clients send.
const FRAME_BYTES_MAX: usize = 1 << 20;
/// Streams of one connection of which not enough has come to tell what they carry.
const UNTOLD_MAX: usize = 1_024;
const DATA: u8 = 0;
const RESET: u8 = 3;
const END_STREAM: u8 = 1;
const PADDED: u8 = 8;

/// Carries one connection of `caller` until both ends are closed or one of them breaks.
///
/// # Errors
/// An end is broken, or does not speak HTTP/2.
pub async fn carry(
    mut socket: TcpStream,
    caller: NodeId,
    server: SocketAddr,
    (forth, back): (Arc<Way>, Arc<Way>),
    transactions: Arc<Transactions>,
) -> io::Result<()> {
    let Some((mut there, known)) = stream::connect(&socket, server, &forth, &back).await? else { return Ok(()) };
    let (reads, writes) = socket.split();
    let (there_reads, there_writes) = there.split();
    let (sender, receiver) = mpsc::channel(CHUNKS_MAX);
    let mut asked = Asked { caller, transactions: &transactions, kinds: BTreeMap::new(), passing: BTreeSet::new() };
    let carried = async {
        tokio::try_join!(
            read(reads, sender, &forth, known, &mut asked),
            deliver(receiver, there_writes, &forth, || transactions.arrived(caller)),
            stream::copy(there_reads, writes, &back, known),
        )
    };
    let carried = carried.await.map(drop);
    // What had begun to pass and now cannot arrive.
    asked.passing.iter().for_each(|_| transactions.arrived(caller));
    carried
}

/// A frame that arrives, when, and whether a transaction has come whole with it.
struct Passing {
    at: Instant,
    bytes: Bytes,
    whole: bool,
}

/// What a stream carries, as far as its first bytes tell.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    Untold(Vec<u8>),
    Transaction { passes: bool },
    Other,
}

/// The streams of one connection.
struct Asked<'a> {
    caller: NodeId,
    transactions: &'a Transactions,
    kinds: BTreeMap<u32, Kind>,
    /// The transactions that pass and of which the end has not been read.
    passing: BTreeSet<u32>,
}

impl Asked<'_> {
    /// Whether a frame passes, and whether it is the end of a transaction.
    fn frame(&mut self, frame: &Frame) -> (bool, bool) {
        if frame.kind == RESET {
            self.kinds.remove(&frame.stream);
            return (true, self.passing.remove(&frame.stream));
        }
        if frame.kind != DATA {
            return (true, false);
        }
        let kind = self.kinds.entry(frame.stream).or_insert_with(|| Kind::Untold(Vec::new()));
        if let Kind::Untold(begin) = kind {
            begin.extend(frame.data());
            match is_transaction(begin) {
                Some(true) => {
                    let passes = self.transactions.begins(self.caller);
                    if passes {
                        self.passing.insert(frame.stream);
                    }
                    *kind = Kind::Transaction { passes };
                }
                Some(false) => *kind = Kind::Other,
                None => {}
            }
        }
        let passes = *kind != Kind::Transaction { passes: false };
        let ends = frame.flags & END_STREAM != 0;
        if ends {
            self.kinds.remove(&frame.stream);
        }
        while self.kinds.len() > UNTOLD_MAX {
            self.kinds.pop_first();
        }
        (passes, ends && self.passing.remove(&frame.stream))
    }
}

/// Whether a message of gRPC is a transaction. `None`: that is not told yet.
fn is_transaction(begin: &[u8]) -> Option<bool> {
    // Behind whether it is compressed and its length: field 1, of a length.
    let [0, _, _, _, _, message @ ..] = begin else { return if begin.len() < 5 { None } else { Some(false) } };
    let (first, rest) = message.split_first()?;
    if *first != 0x0a {
        return Some(false);
    }
    let length = rest.iter().position(|byte| byte & 0x80 == 0)?;
    // Its fields: how, what, and of which key it compares. A path would begin with a slash, the wish for a watch with its own key.
    rest.get(length + 1).map(|field| matches!(field, 0x08 | 0x10 | 0x1a))
}

/// A frame.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    whole: Bytes,
}

impl Frame {
    /// What it carries of its stream.
    fn data(&self) -> &[u8] {
        let payload = self.whole.get(HEAD_BYTES..).unwrap_or_default();
        if self.flags & PADDED == 0 {
            return payload;
        }
        let (padding, data) = payload.split_first().unwrap_or((&0, &[]));
        data.get(..data.len().saturating_sub(usize::from(*padding))).unwrap_or_default()
    }
}

/// Cuts what a client sends into frames.
#[derive(Debug, Default)]
struct Frames {
    buffer: BytesMut,
    begun: bool,
}

impl Frames {
    /// What comes next as a whole: the preface, or a frame.
    fn next(&mut self) -> io::Result<Option<Result<Frame, Bytes>>> {
        if !self.begun {
            let there = self.buffer.len().min(PREFACE.len());
            if self.buffer[..there] != PREFACE[..there] {
                return Err(io::Error::other("no HTTP/2"));
            }
            if there < PREFACE.len() {
                return Ok(None);
            }
            self.begun = true;
            return Ok(Some(Err(self.buffer.split_to(PREFACE.len()).freeze())));
        }
        let Some(&[a, b, c, kind, flags, d, e, f, g]) = self.buffer.first_chunk::<HEAD_BYTES>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        if length > FRAME_BYTES_MAX {
            return Err(io::Error::other(format!("a frame of {length} bytes")));
        }
        if self.buffer.len() < HEAD_BYTES + length {
            return Ok(None);
        }
        let whole = self.buffer.split_to(HEAD_BYTES + length).freeze();
        let stream = u32::from_be_bytes([d, e, f, g]) & (u32::MAX >> 1);
        Ok(Some(Ok(Frame { kind, flags, stream, whole })))
    }
}

/// Reads what a client sends to its end.
async fn read(
    mut source: impl AsyncRead + Unpin,
    sender: mpsc::Sender<Passing>,
    way: &Way,
    from: Instant,
    asked: &mut Asked<'_>,
) -> io::Result<()> {
    let (mut frames, mut at) = (Frames::default(), from);
    loop {
        frames.buffer.reserve(CHUNK_BYTES);
        if source.read_buf(&mut frames.buffer).await.unwrap_or(0) == 0 {
            return Ok(());
        }
        // What came together travels together.
        at = at.max(Instant::now() + way.segment());
        while let Some(next) = frames.next()? {
            let (bytes, (passes, whole)) = match next {
                Ok(frame) => (frame.whole.clone(), asked.frame(&frame)),
                Err(preface) => (preface, (true, false)),
            };
            if passes {
                sender.send(Passing { at, bytes, whole }).await.map_err(|_| io::ErrorKind::BrokenPipe)?;
            }
        }
    }
}

/// Writes what arrives when it arrives, and then the end. `arrived` is told of every transaction that has come whole.
async fn deliver(
    mut passing: mpsc::Receiver<Passing>,
    mut target: impl AsyncWrite + Unpin,
    way: &Way,
    arrived: impl Fn(),
) -> io::Result<()> {
    while let Some(Passing { at, bytes, whole }) = passing.recv().await {
        sleep_until(at).await;
        way.opened().await;
        target.write_all(&bytes).await?;
        if whole {
            arrived();
        }
    }
    sleep(way.segment()).await;
    way.opened().await;
    target.shutdown().await
}

#[cfg(test)]
#[path = "etcd_tests.rs"]
mod tests;
