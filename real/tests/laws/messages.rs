//! Where messages end in what passes a link, by the protocol that is spoken on it: so a place can be given as a number of messages.
//!
//! What only keeps a link alive is none: it comes by the clock. What cannot be read is one message that never ends.

use worldline_laws::script::Way;

/// What is spoken on a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Nats,
    Postgres,
    Redis,
    /// Something else: it has bytes and no messages.
    Other,
}

/// A message that is longer is not looked for to its end.
const LONGEST: usize = 1 << 24;

/// Reads one way of one link.
#[derive(Debug)]
pub struct Reader {
    protocol: Protocol,
    way: Way,
    /// The beginning of a message that has not ended.
    begun: Vec<u8>,
    /// Messages so far.
    count: u64,
}

/// A message by its length, and whether it counts.
type Found = Option<(usize, bool)>;

impl Reader {
    pub fn new(protocol: Protocol, way: Way) -> Self {
        Self { protocol, way, begun: vec![], count: 0 }
    }

    /// Takes in what comes next: where in it messages end, and whether each counts.
    pub fn read(&mut self, bytes: &[u8]) -> Vec<(usize, bool)> {
        let before = self.begun.len();
        self.begun.extend_from_slice(bytes);
        let (mut at, mut ends) = (0, vec![]);
        while let Some((length, counts)) = self.message(&self.begun[at..]) {
            at += length;
            self.count += 1;
            ends.push((at - before, counts));
        }
        self.begun.drain(..at);
        ends
    }

    /// Whether what comes next begins a message.
    pub fn is_between(&self) -> bool {
        self.begun.is_empty()
    }

    fn message(&self, bytes: &[u8]) -> Found {
        if bytes.is_empty() || bytes.len() > LONGEST {
            return None;
        }
        match self.protocol {
            Protocol::Nats => nats(bytes),
            Protocol::Redis => redis(bytes, 0).map(|length| (length, !is_ping(&bytes[..length]))),
            Protocol::Postgres => self.postgres(bytes),
            Protocol::Other => None,
        }
    }

    fn postgres(&self, bytes: &[u8]) -> Found {
        let (first, typed) = (self.count == 0, |at: usize| {
            let length = bytes.get(at..at + 4)?.try_into().ok()?;
            usize::try_from(u32::from_be_bytes(length)).ok()
        });
        match self.way {
            // What comes first has no type: how to go on, or who it is.
            Way::ToService if first => typed(0).filter(|&length| bytes.len() >= length).map(|length| (length, true)),
            Way::ToService if self.count == 1 && bytes[0] == 0 => {
                typed(0).filter(|&length| bytes.len() >= length).map(|length| (length, true))
            }
            // Whether encryption is wanted, in a byte. An error begins with its length behind it.
            Way::ToCaller if first && matches!(bytes, [b'N' | b'S']) => Some((1, true)),
            _ => typed(1).map(|length| length + 1).filter(|&length| bytes.len() >= length).map(|length| (length, true)),
        }
    }
}

/// The end of a line, its two last bytes included.
fn line(bytes: &[u8]) -> Option<usize> {
    bytes.windows(2).position(|pair| pair == b"\r\n").map(|at| at + 2)
}

fn nats(bytes: &[u8]) -> Found {
    let head = line(bytes)?;
    let words = std::str::from_utf8(&bytes[..head - 2]).ok()?;
    let verb = words.split(' ').next()?.to_ascii_uppercase();
    let payload = match verb.as_str() {
        "PUB" | "HPUB" | "MSG" | "HMSG" => words.rsplit(' ').next()?.parse::<usize>().ok()? + 2,
        _ => 0,
    };
    let counts = !matches!(verb.as_str(), "PING" | "PONG" | "+OK");
    (bytes.len() >= head + payload).then_some((head + payload, counts))
}

/// How deep answers are nested at most.
const DEPTH: u32 = 8;

fn redis(bytes: &[u8], depth: u32) -> Option<usize> {
    let head = line(bytes)?;
    let number = || std::str::from_utf8(&bytes[1..head - 2]).ok()?.parse::<i64>().ok();
    match bytes[0] {
        b'$' | b'=' | b'!' => {
            let length = usize::try_from(number()?).map_or(head, |length| head + length + 2);
            (bytes.len() >= length).then_some(length)
        }
        b'*' | b'~' | b'>' | b'%' if depth < DEPTH => {
            let each = if bytes[0] == b'%' { 2 } else { 1 };
            let mut at = head;
            for _ in 0..number()?.max(0) * each {
                at += redis(&bytes[at..], depth + 1)?;
            }
            Some(at)
        }
        _ => Some(head),
    }
}

fn is_ping(message: &[u8]) -> bool {
    matches!(message, b"*1\r\n$4\r\nPING\r\n" | b"+PONG\r\n")
}

#[test]
fn messages_end_where_their_protocol_says() {
    let ends = |protocol, way, all: &[u8]| -> Vec<(usize, bool)> {
        // However it comes.
        let whole = Reader::new(protocol, way).read(all);
        let (mut reader, mut pieces) = (Reader::new(protocol, way), vec![]);
        for (at, byte) in all.iter().enumerate() {
            pieces.extend(reader.read(&[*byte]).into_iter().map(|(end, counts)| (at + end, counts)));
        }
        assert_eq!(whole, pieces);
        assert!(reader.is_between());
        whole
    };
    let (to, back) = (Way::ToService, Way::ToCaller);
    let nats = b"CONNECT {}\r\nPING\r\nPUB a.b 3\r\n\r\n!\r\nHPUB a r 2 4\r\nabcd\r\n";
    assert_eq!(ends(Protocol::Nats, to, nats), [(12, true), (18, false), (34, true), (54, true)]);
    let redis = b"*2\r\n$3\r\nGET\r\n$2\r\n\r\n\r\n*1\r\n$4\r\nPING\r\n";
    assert_eq!(ends(Protocol::Redis, to, redis), [(21, true), (35, false)]);
    let answers = b"$-1\r\n*2\r\n:1\r\n*1\r\n+OK\r\n+PONG\r\n-ERR no\r\n";
    assert_eq!(ends(Protocol::Redis, back, answers), [(5, true), (22, true), (29, false), (38, true)]);
    let startup = [&[0, 0, 0, 8, 4, 210, 22, 47][..], &[0, 0, 0, 9, 0, 3, 0, 0, 0], b"Q\0\0\0\x05\0"].concat();
    assert_eq!(ends(Protocol::Postgres, to, &startup), [(8, true), (17, true), (23, true)]);
    let told = [&b"N"[..], b"R\0\0\0\x08\0\0\0\0", b"Z\0\0\0\x05I"].concat();
    let mut reader = Reader::new(Protocol::Postgres, back);
    assert_eq!((reader.read(&told[..1]), reader.read(&told[1..])), (vec![(1, true)], vec![(9, true), (15, true)]));
}
