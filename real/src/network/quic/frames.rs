//! The framing of streams: the first byte is the class, then each frame is its length (four bytes, big endian) and its bytes.

use bytes::{BufMut as _, BytesMut};
use prost::Message as _;
use worldline_proto::server::PeerMessage;
use worldline_system::{
    doors::network::{Payload, StreamClass},
    limits,
};

use crate::network::counters::Count;

const LENGTH_BYTES: usize = 4;
/// What a reader keeps in hand for what comes next, at most.
const KEPT_BYTES: usize = 32 * 1024;

/// What the payloads of a connection are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// Bytes: a client and a gateway.
    Client,
    /// Encoded [`PeerMessage`]s: two roles.
    Peer,
}

impl Dialect {
    pub fn alpn(self) -> &'static [u8] {
        match self {
            Self::Client => b"worldline-client/1",
            Self::Peer => b"worldline-peer/1",
        }
    }

    pub fn of(alpn: &[u8]) -> Option<Self> {
        [Self::Client, Self::Peer].into_iter().find(|dialect| dialect.alpn() == alpn)
    }

    /// What arrived, as the role sees it.
    pub fn read(self, bytes: &[u8]) -> Result<Payload, Count> {
        match self {
            Self::Client => Ok(Payload::from(bytes)),
            Self::Peer => PeerMessage::decode(bytes).map(Payload::from).map_err(|_| Count::Undecodable),
        }
    }

    /// How many bytes a datagram takes; `None` where the payload is longer than the limit, or not of this dialect.
    pub fn datagram_bytes(self, payload: &Payload) -> Option<usize> {
        self.bytes(payload).filter(|len| *len <= limits::DATAGRAM_BYTES)
    }

    /// How many bytes a frame takes; `None` where the payload is longer than the limit, or not of this dialect.
    pub fn frame_bytes(self, payload: &Payload) -> Option<usize> {
        self.bytes(payload).filter(|len| *len <= limits::FRAME_BYTES).map(|len| LENGTH_BYTES + len)
    }

    fn bytes(self, payload: &Payload) -> Option<usize> {
        match (self, payload) {
            (Self::Client, payload) => payload.as_bytes().map(<[u8]>::len),
            (Self::Peer, Payload::Peer(message)) => Some(message.encoded_len()),
            (Self::Peer, _) => None,
        }
    }

    /// Appends a payload whose bytes were counted.
    pub fn put(self, payload: &Payload, to: &mut BytesMut) {
        match payload {
            Payload::Peer(message) => message.encode(to).expect("what grows is large enough"),
            bytes => to.put_slice(bytes.as_bytes().unwrap_or_default()),
        }
    }

    /// Appends a frame of so many bytes.
    pub fn put_frame(self, payload: &Payload, bytes: usize, to: &mut BytesMut) {
        to.put_u32((bytes - LENGTH_BYTES) as u32);
        self.put(payload, to);
    }
}

/// The class that a stream's first byte names.
pub(crate) fn class(byte: u8) -> Result<StreamClass, Count> {
    StreamClass::ALL.get(usize::from(byte)).copied().ok_or(Count::UnknownClass)
}

/// What has arrived of a stream.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    bytes: Vec<u8>,
    /// So many of them were taken.
    taken: usize,
}

impl Frames {
    pub fn push(&mut self, bytes: &[u8]) {
        if self.taken > 0 {
            self.bytes.drain(..self.taken);
            self.taken = 0;
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// Whether a frame has begun.
    pub fn within_a_frame(&self) -> bool {
        self.taken < self.bytes.len()
    }

    /// Takes the next whole frame. A length above the limit is refused before its bytes have come.
    pub fn next(&mut self) -> Result<Option<&[u8]>, Count> {
        let Some((length, rest)) = self.bytes[self.taken..].split_first_chunk::<LENGTH_BYTES>() else {
            self.release();
            return Ok(None);
        };
        let len = u32::from_be_bytes(*length) as usize;
        if len > limits::FRAME_BYTES {
            return Err(Count::FrameTooLong);
        }
        if rest.len() < len {
            self.bytes.reserve(len - rest.len());
            return Ok(None);
        }
        let begin = self.taken + LENGTH_BYTES;
        self.taken = begin + len;
        Ok(Some(&self.bytes[begin..self.taken]))
    }

    /// A connection that is silent after much keeps little.
    fn release(&mut self) {
        if !self.within_a_frame() && self.bytes.capacity() > KEPT_BYTES {
            *self = Self::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_out_as_they_went_in_however_they_are_cut() {
        let payloads: Vec<Vec<u8>> = [0, 1, 30, 1_200, limits::FRAME_BYTES].map(|len| vec![7; len]).into();
        let mut wire = BytesMut::new();
        for bytes in &payloads {
            let (begin, payload) = (wire.len(), Payload::from(&bytes[..]));
            let len = Dialect::Client.frame_bytes(&payload).expect("within the limit");
            Dialect::Client.put_frame(&payload, len, &mut wire);
            assert_eq!(wire.len() - begin, len);
        }
        for piece in [1, 3, 1_000, wire.len()] {
            let (mut frames, mut out) = (Frames::default(), Vec::new());
            for bytes in wire.chunks(piece) {
                frames.push(bytes);
                while let Some(frame) = frames.next().expect("within the limit") {
                    out.push(frame.to_vec());
                }
            }
            assert_eq!(out, payloads, "in pieces of {piece}");
            assert!(!frames.within_a_frame());
        }
    }

    #[test]
    fn one_byte_above_the_limit_is_refused_on_both_sides() {
        let long = vec![0; limits::FRAME_BYTES + 1];
        assert!(Dialect::Client.frame_bytes(&long[..].into()).is_none());
        assert!(Dialect::Client.datagram_bytes(&long[..limits::DATAGRAM_BYTES + 1].into()).is_none());
        assert!(Dialect::Client.datagram_bytes(&long[..limits::DATAGRAM_BYTES].into()).is_some());
        let mut frames = Frames::default();
        frames.push(&(limits::FRAME_BYTES as u32 + 1).to_be_bytes());
        assert!(matches!(frames.next(), Err(Count::FrameTooLong)));
    }

    #[test]
    fn a_dialect_carries_its_own_payloads_only() {
        let (bytes, message) = (Payload::from(&b"x"[..]), Payload::from(PeerMessage { message: None }));
        assert!(Dialect::Peer.frame_bytes(&bytes).is_none() && Dialect::Peer.datagram_bytes(&bytes).is_none());
        assert!(Dialect::Client.frame_bytes(&message).is_none() && Dialect::Client.datagram_bytes(&message).is_none());
        let mut encoded = BytesMut::new();
        Dialect::Peer.put(&message, &mut encoded);
        assert_eq!(Dialect::Peer.datagram_bytes(&message), Some(encoded.len()));
        assert_eq!(Dialect::Peer.read(&encoded).expect("decodes"), message);
        assert!(Dialect::Peer.read(b"\xff\xff").is_err());
        assert_eq!(Dialect::of(Dialect::Peer.alpn()), Some(Dialect::Peer));
        assert_eq!(Dialect::of(b"h3"), None);
    }
}
