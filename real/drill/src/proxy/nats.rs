//! The proxy of a link to NATS: a byte stream that knows where messages begin, so that a request or its answer can be swallowed, a
//! delivery be held back, a connection be broken, and names of messages be made others than they were.
//!
//! That NATS has forgotten a message's name is the same, to whoever publishes it again, as that the name is a new one: behind it
//! stands how often all were forgotten (`boss-1.17#1`).
//!
//! Deliberately absent: TLS, and what the client asks for itself: its probes of the stream, its pulls.

use super::{
    requests::{Kind, Requests},
    stream::{self, Chunk},
    way::Way,
};
use bytes::{Bytes, BytesMut};
use std::{
    collections::BTreeSet,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    net::TcpStream,
    sync::mpsc,
    time::Instant,
};
use worldline_proto::NodeId;
use worldline_system::doors::bus::Subject;

/// The longest first line of a message.
const LINE_BYTES_MAX: usize = 64 << 10;
/// The longest rest of one.
const BODY_BYTES_MAX: usize = 16 << 20;
const CHUNK_BYTES: usize = 16 * 1024;
const CHUNKS_MAX: usize = 256;
/// Answers of one connection that are still to be swallowed; of more some are let go.
const AWAITED_MAX: usize = 4_096;
/// The header that names a message.
const NAME: &[u8] = b"Nats-Msg-Id: ";
/// What stands between a message's name and how often all names were forgotten.
pub const FORGOTTEN: char = '#';

/// Where answers are awaited that are to be swallowed.
type Awaited = Mutex<BTreeSet<Vec<u8>>>;

/// Carries one connection of `caller` until both ends are closed, or broken, or a fault breaks it.
///
/// # Errors
/// An end is broken, or a fault has broken it.
pub async fn carry(
    mut socket: TcpStream,
    caller: NodeId,
    server: SocketAddr,
    (forth, back): (Arc<Way>, Arc<Way>),
    requests: Arc<Requests>,
) -> io::Result<()> {
    let Some((mut there, known)) = stream::connect(&socket, server, &forth, &back).await? else { return Ok(()) };
    let (awaited, mut breaks) = (Awaited::default(), requests.breaks());
    let broken = async {
        while breaks.changed().await.is_ok() {
            if breaks.borrow().is_none_or(|from| from == caller) {
                return;
            }
        }
        std::future::pending().await
    };
    let ended = {
        let (reads, writes) = socket.split();
        let (there_reads, there_writes) = there.split();
        let (to_server, from_caller) = mpsc::channel(CHUNKS_MAX);
        let (to_caller, from_server) = mpsc::channel(CHUNKS_MAX);
        let ask = |frame: Frame| asked(frame, caller, &requests, &awaited);
        let tell = |frame: Frame| told(frame, &requests, &awaited);
        let both = async {
            tokio::try_join!(
                read(reads, to_server, &forth, known, ask),
                stream::deliver(from_caller, there_writes, &forth),
                read(there_reads, to_caller, &back, known, tell),
                stream::deliver(from_server, writes, &back),
            )
        };
        tokio::select! {
            ended = both => ended.map(drop),
            () = broken => Err(io::ErrorKind::ConnectionReset.into()),
        }
    };
    if ended.is_err() {
        // Nobody hears a proper end of a connection that breaks.
        let _ = (socket.set_zero_linger(), there.set_zero_linger());
    }
    ended
}

/// A message: its first line, and all of it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Frame {
    words: Vec<String>,
    /// Of how many bytes its headers are, if it has any.
    header: Option<usize>,
    line: usize,
    whole: Bytes,
}

impl Frame {
    fn is(&self, verbs: [&str; 2]) -> bool {
        self.words.first().is_some_and(|verb| verbs.contains(&verb.as_str()))
    }

    /// What stands behind its first line, without the end of the line that closes it.
    fn body(&self) -> &[u8] {
        self.whole.get(self.line + 2..self.whole.len() - 2).unwrap_or_default()
    }

    /// Where its answer is awaited, if it says so: the word at this place, where it has one more than it needs.
    fn reply(&self, at: usize) -> Option<&str> {
        let sizes = 1 + usize::from(self.header.is_some());
        (self.words.len() == at + 1 + sizes).then(|| self.words[at].as_str())
    }
}

/// Cuts a direction into messages.
#[derive(Debug, Default)]
struct Frames {
    buffer: BytesMut,
}

impl Frames {
    fn next(&mut self) -> io::Result<Option<Frame>> {
        let Some(line) = self.buffer.windows(2).take(LINE_BYTES_MAX).position(|pair| pair == b"\r\n") else {
            return match self.buffer.len() {
                0..=LINE_BYTES_MAX => Ok(None),
                length => Err(io::Error::other(format!("a line of more than {length} bytes"))),
            };
        };
        let words: Vec<String> = String::from_utf8_lossy(&self.buffer[..line]).split(' ').map(str::to_owned).collect();
        let verb = words.first().map_or("", String::as_str);
        let number = |from_end: usize| {
            let word = words.len().checked_sub(from_end).and_then(|at| words.get(at));
            let number = word.and_then(|word| word.parse::<usize>().ok()).filter(|&bytes| bytes <= BODY_BYTES_MAX);
            number.ok_or_else(|| io::Error::other(format!("a message of no length: {}", words.join(" "))))
        };
        let (header, body) = match verb {
            "PUB" | "MSG" => (None, number(1)? + 2),
            "HPUB" | "HMSG" => (Some(number(2)?), number(1)? + 2),
            _ => (None, 0),
        };
        if self.buffer.len() < line + 2 + body {
            return Ok(None);
        }
        let whole = self.buffer.split_to(line + 2 + body).freeze();
        Ok(Some(Frame { words, header, line, whole }))
    }
}

/// Reads one direction to its end. `pass` says what becomes of each message, and how much later it arrives.
async fn read(
    mut source: impl AsyncRead + Unpin,
    sender: mpsc::Sender<Chunk>,
    way: &Way,
    from: Instant,
    pass: impl Fn(Frame) -> Option<(Bytes, Duration)>,
) -> io::Result<()> {
    let (mut frames, mut at) = (Frames::default(), from);
    loop {
        frames.buffer.reserve(CHUNK_BYTES);
        if source.read_buf(&mut frames.buffer).await.unwrap_or(0) == 0 {
            return Ok(());
        }
        while let Some(frame) = frames.next()? {
            if let Some((bytes, late)) = pass(frame) {
                // The order stays: nothing overtakes.
                at = at.max(Instant::now() + way.segment() + late);
                sender.send(Chunk { at, bytes }).await.map_err(|_| io::ErrorKind::BrokenPipe)?;
            }
        }
    }
}

/// What a client's message asks for, if that is what a role has asked for.
fn kind(subject: &str, body: &[u8]) -> Option<Kind> {
    if subject.parse::<Subject>().is_ok() {
        Some(Kind::Publish)
    } else if subject.starts_with("$JS.ACK.") {
        Some(if body.starts_with(b"+ACK") { Kind::Acknowledge } else { Kind::Other })
    } else {
        let opens = subject.starts_with("$JS.API.CONSUMER.") && !subject.starts_with("$JS.API.CONSUMER.MSG.");
        opens.then_some(Kind::Other)
    }
}

/// From the client: what arrives of it.
fn asked(frame: Frame, caller: NodeId, requests: &Requests, awaited: &Awaited) -> Option<(Bytes, Duration)> {
    let subject = frame.words.get(1).filter(|_| frame.is(["PUB", "HPUB"]));
    if let Some(kind) = subject.and_then(|subject| kind(subject, frame.body())) {
        if requests.swallows(caller, kind) {
            return None;
        }
        if let Some(reply) = frame.reply(2).filter(|_| requests.swallows_answer(caller, kind)) {
            let mut awaited = awaited.lock().unwrap_or_else(PoisonError::into_inner);
            awaited.insert(reply.as_bytes().to_vec());
            if awaited.len() > AWAITED_MAX {
                awaited.pop_first();
            }
        }
        if kind == Kind::Publish
            && let Some(renamed) = renamed(&frame, requests.forgotten())
        {
            return Some((renamed, Duration::ZERO));
        }
    }
    Some((frame.whole, Duration::ZERO))
}

/// From the server: what arrives of it, and how much later.
fn told(frame: Frame, requests: &Requests, awaited: &Awaited) -> Option<(Bytes, Duration)> {
    let subject = frame.words.get(1).filter(|_| frame.is(["MSG", "HMSG"]));
    if let Some(subject) = subject
        && awaited.lock().unwrap_or_else(PoisonError::into_inner).remove(subject.as_bytes())
    {
        requests.swallowed_answer();
        return None;
    }
    let delivered = subject.is_some() && frame.reply(3).is_some_and(|reply| reply.starts_with("$JS.ACK."));
    let late = if delivered { requests.delay() } else { Duration::ZERO };
    Some((frame.whole, late))
}

/// The publish under the name that its message has since all names were forgotten so often. `None`: it has none, or its own.
fn renamed(frame: &Frame, forgotten: u32) -> Option<Bytes> {
    let header = frame.header.filter(|_| forgotten > 0)?;
    let (head, payload) = frame.body().split_at_checked(header)?;
    let begins = head.windows(NAME.len()).position(|text| text.eq_ignore_ascii_case(NAME))? + NAME.len();
    let ends = begins + head[begins..].windows(2).position(|pair| pair == b"\r\n")?;
    let more = format!("{FORGOTTEN}{forgotten}");
    let words = &frame.words[..frame.words.len() - 2];
    let sizes = (head.len() + more.len(), head.len() + more.len() + payload.len());
    let line = format!("{} {} {}\r\n", words.join(" "), sizes.0, sizes.1);
    let parts = [line.as_bytes(), &head[..ends], more.as_bytes(), &head[ends..], payload, b"\r\n"];
    Some(parts.concat().into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::requests::Harm;
    use tokio::{io::AsyncWriteExt as _, net::TcpListener, task::JoinSet, time::timeout};
    use worldline_sim::bus::Which;

    const PATIENCE: Duration = Duration::from_secs(5);
    const ONE: NodeId = NodeId(7);

    fn frames(bytes: &[u8]) -> Vec<Frame> {
        let mut frames = Frames { buffer: bytes.into() };
        std::iter::from_fn(|| frames.next().expect("messages of NATS")).collect()
    }

    /// A publish of this fact, answered at this place.
    fn publish(name: &str, reply: &str) -> Vec<u8> {
        let header = format!("NATS/1.0\r\nNats-Msg-Id: {name}\r\nNats-Expected-Stream: WORLDLINE_FACTS\r\n\r\n");
        let all = header.len() + 4;
        format!("HPUB worldline.facts.boss-1 {reply} {} {all}\r\n{header}fact\r\n", header.len()).into_bytes()
    }

    #[test]
    fn messages_are_cut_where_they_end_whatever_is_in_them() {
        let bytes =
            [&b"PING\r\nPUB a.b 6\r\nPING\r\n\r\nMSG _INBOX.x 1 2\r\nhi\r\n"[..], &publish("boss-1.1", "in"), b"PU"]
                .concat();
        let all = frames(&bytes);
        assert_eq!(all.iter().map(|frame| frame.words[0].as_str()).collect::<Vec<_>>(), ["PING", "PUB", "MSG", "HPUB"]);
        assert_eq!((all[1].body(), all[1].reply(2)), (&b"PING\r\n"[..], None));
        assert_eq!(all[3].reply(2), Some("in"));
        assert_eq!(all.iter().map(|frame| frame.whole.len()).sum::<usize>(), bytes.len() - 2);
        for wrong in [&b"PUB a\r\n"[..], b"PUB a 99999999999\r\n", &[b'x'; LINE_BYTES_MAX + 1]] {
            assert!(Frames { buffer: wrong.into() }.next().is_err(), "{:?}", String::from_utf8_lossy(wrong));
        }
    }

    #[test]
    fn a_publish_has_another_name_since_all_were_forgotten() {
        let frame = &frames(&publish("boss-1.17", "in"))[0];
        assert_eq!(renamed(frame, 0), None);
        let other = renamed(frame, 2).expect("it has a name");
        assert_eq!(other, publish("boss-1.17#2", "in"));
        assert_eq!(renamed(&frames(b"PUB worldline.facts.boss-1 4\r\nfact\r\n")[0], 1), None);
    }

    struct Link {
        caller: TcpStream,
        server: TcpStream,
        requests: Arc<Requests>,
        _tasks: JoinSet<io::Result<()>>,
    }

    async fn link() -> Link {
        let bind = || TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0));
        let (listener, here) = (bind().await.expect("a port"), bind().await.expect("a port"));
        let (address, to) = (here.local_addr().expect("bound"), listener.local_addr().expect("bound"));
        let requests = Arc::new(Requests::new(1));
        let (mut tasks, shared) = (JoinSet::new(), Arc::clone(&requests));
        tasks.spawn(stream::listen(here, move |socket| {
            let way = |who| Arc::new(Way::new(Duration::ZERO, Duration::ZERO, 1, who));
            carry(socket, ONE, to, (way(1), way(2)), Arc::clone(&shared))
        }));
        let caller = TcpStream::connect(address).await.expect("connects");
        let (server, _) = timeout(PATIENCE, listener.accept()).await.expect("in time").expect("accepts");
        Link { caller, server, requests, _tasks: tasks }
    }

    async fn reads(stream: &mut TcpStream, bytes: &[u8]) {
        let mut buffer = vec![0; bytes.len()];
        timeout(PATIENCE, stream.read_exact(&mut buffer)).await.expect("in time").expect("reads");
        assert_eq!(String::from_utf8_lossy(&buffer), String::from_utf8_lossy(bytes));
    }

    #[tokio::test]
    async fn an_answer_is_swallowed_though_its_request_was_stored_and_all_else_arrives() {
        let mut link = link().await;
        link.requests.harm(Harm::LoseAnswers { from: Some(ONE), of: Which::Publishes, permille: 1_000 });
        let asked =
            [publish("boss-1.1", "_INBOX.a.1"), b"PUB $JS.API.STREAM.INFO.X _INBOX.a.2 0\r\n\r\n".to_vec()].concat();
        link.caller.write_all(&asked).await.expect("writes");
        reads(&mut link.server, &asked).await;
        link.server.write_all(b"MSG _INBOX.a.1 1 2\r\nok\r\nMSG _INBOX.a.2 1 2\r\nok\r\n").await.expect("writes");
        reads(&mut link.caller, b"MSG _INBOX.a.2 1 2\r\nok\r\n").await;
        assert_eq!(link.requests.counts().answers, 1);
    }

    #[tokio::test]
    async fn an_acknowledgement_never_arrives_and_a_connection_breaks() {
        let mut link = link().await;
        link.requests.harm(Harm::LoseRequests { from: None, of: Which::Acknowledgements, permille: 1_000 });
        let other = b"PUB $JS.ACK.W.c.1.2.3.4.5 4\r\n-NAK\r\n";
        link.caller
            .write_all(&[b"PUB $JS.ACK.W.c.1.1.1.4.5 4\r\n+ACK\r\n".as_slice(), other].concat())
            .await
            .expect("writes");
        reads(&mut link.server, other).await;
        assert_eq!(link.requests.counts().requests, 1);
        assert!(link.requests.disconnect(Some(ONE)), "somebody is connected");
        let ended = timeout(PATIENCE, link.caller.read(&mut [0; 8])).await.expect("in time");
        assert!(!matches!(ended, Ok(1..)), "{ended:?}");
    }
}
