//! What a role has sent and a task has not written yet: a lane for each class of a connection, and one for its datagrams.
//!
//! * The role's thread only puts down: it never meets the locks under which quinn seals and sends packets.
//! * A writer is woken when it has nothing to do, once, and not before its role has acted on what waits for it
//!   ([`Taker`](crate::Taker)): it takes what has gathered meanwhile. That of a class lets the packets leave and looks again before
//!   it rests. The more there is to send, the more goes into a packet, and the fewer are the wake-ups.
//! * A class holds [`limits::STREAM_BACKLOG`] frames, and beside them its writer holds one piece of them.

use super::frames::Dialect;
use bytes::{Bytes, BytesMut};
use std::{
    collections::VecDeque,
    task::{Context, Poll, Waker},
};
use worldline_system::{doors::network::Payload, limits};

/// Frames that are written at once, at most.
const PIECE_FRAMES: usize = 64;
/// Bytes that frames are gathered to. A longer frame is a piece of its own.
const PIECE_BYTES: usize = 16 * 1024;
/// Room that the first datagram makes for others.
const FIRST_BYTES: usize = 1_024;
/// Datagrams that wait for their writer; one more displaces the oldest.
const DATAGRAMS: usize = 1_024;

/// The task that takes what was put down.
#[derive(Default)]
pub(super) struct Writer {
    begun: bool,
    /// While it has nothing to write.
    idle: Option<Waker>,
    finished: bool,
}

impl Writer {
    /// Whether it must be begun now.
    pub fn begin(&mut self) -> bool {
        !std::mem::replace(&mut self.begun, true)
    }

    /// Nothing more is sent: it ends when what waits is written. To be woken without the lane's lock.
    #[must_use]
    pub fn finish(&mut self) -> Option<Waker> {
        self.finished = true;
        self.idle.take()
    }

    fn wait<T>(&mut self, context: &Context<'_>) -> Poll<Option<T>> {
        if self.finished {
            return Poll::Ready(None);
        }
        self.idle = Some(context.waker().clone());
        Poll::Pending
    }
}

/// Too many frames wait: the peer does not take them.
pub(super) struct Overflow;

/// One class of one connection, this side sending.
#[derive(Default)]
pub(super) struct Lane {
    pub writer: Writer,
    waiting: VecDeque<Piece>,
    frames: usize,
}

/// Frames one after the other.
struct Piece {
    bytes: BytesMut,
    frames: usize,
}

impl Lane {
    /// Puts a frame of so many bytes down. Its writer is to be woken without the lane's lock.
    pub fn push(&mut self, dialect: Dialect, payload: &Payload, bytes: usize) -> Result<Option<Waker>, Overflow> {
        if self.frames >= limits::STREAM_BACKLOG {
            return Err(Overflow);
        }
        let fits = |piece: &Piece| piece.frames < PIECE_FRAMES && piece.bytes.len() + bytes <= PIECE_BYTES;
        if !self.waiting.back().is_some_and(fits) {
            self.waiting.push_back(Piece { bytes: BytesMut::with_capacity(bytes), frames: 0 });
        }
        let piece = self.waiting.back_mut().expect("it was just put there");
        dialect.put_frame(payload, bytes, &mut piece.bytes);
        piece.frames += 1;
        self.frames += 1;
        Ok(self.writer.idle.take())
    }

    /// The next frames to write; `None` when there are no more and none will come.
    pub fn poll_take(&mut self, context: &Context<'_>) -> Poll<Option<Bytes>> {
        match self.waiting.pop_front() {
            Some(Piece { bytes, frames }) => {
                self.frames -= frames;
                Poll::Ready(Some(bytes.freeze()))
            }
            None => self.writer.wait(context),
        }
    }
}

/// The datagrams of one connection, this side sending.
#[derive(Default)]
pub(super) struct Datagrams {
    pub writer: Writer,
    waiting: Gathered,
}

/// Datagrams one after the other.
#[derive(Default)]
pub(super) struct Gathered {
    bytes: BytesMut,
    lengths: VecDeque<usize>,
}

impl Gathered {
    /// Takes the first. With the last goes the room for them: a connection that rests keeps none.
    pub fn pop(&mut self) -> Option<Bytes> {
        let len = self.lengths.pop_front()?;
        let last = self.lengths.is_empty();
        Some(if last { std::mem::take(&mut self.bytes) } else { self.bytes.split_to(len) }.freeze())
    }
}

impl Datagrams {
    /// Puts a datagram of so many bytes down. Whether the oldest was displaced, and the writer, to be woken without the lock.
    pub fn push(&mut self, dialect: Dialect, payload: &Payload, bytes: usize) -> (bool, Option<Waker>) {
        let full = self.waiting.lengths.len() >= DATAGRAMS;
        if full {
            drop(self.waiting.pop());
        }
        if self.waiting.lengths.is_empty() {
            self.waiting.bytes = BytesMut::with_capacity(bytes.max(FIRST_BYTES));
        }
        dialect.put(payload, &mut self.waiting.bytes);
        self.waiting.lengths.push_back(bytes);
        (full, self.writer.idle.take())
    }

    /// Ready when there are some; `None` when none will come.
    pub fn poll_waiting(&mut self, context: &Context<'_>) -> Poll<Option<()>> {
        if self.waiting.lengths.is_empty() { self.writer.wait(context) } else { Poll::Ready(Some(())) }
    }

    /// Takes all that wait, in exchange for what is done with.
    pub fn take(&mut self, done: &mut Gathered) {
        std::mem::swap(&mut self.waiting, done);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(lane: &mut Lane) -> Poll<Option<Bytes>> {
        lane.poll_take(&Context::from_waker(Waker::noop()))
    }

    fn push(lane: &mut Lane, len: usize) -> bool {
        let payload = Payload::from(&vec![7; len][..]);
        let bytes = Dialect::Client.frame_bytes(&payload).expect("within the limit");
        lane.push(Dialect::Client, &payload, bytes).is_ok()
    }

    #[test]
    fn a_class_holds_its_backlog_and_not_one_frame_more() {
        let mut lane = Lane::default();
        assert!((0..limits::STREAM_BACKLOG).all(|_| push(&mut lane, 10)));
        assert!(!push(&mut lane, 10));
        let mut bytes = 0;
        while let Poll::Ready(Some(piece)) = take(&mut lane) {
            assert!(piece.len() <= PIECE_FRAMES * 14, "so much at once");
            bytes += piece.len();
        }
        assert_eq!(bytes, limits::STREAM_BACKLOG * 14);
        assert!(push(&mut lane, 10), "there is room again");
    }

    #[test]
    fn short_frames_are_gathered_and_a_long_one_stands_alone() {
        let mut lane = Lane::default();
        for len in [1, 2, limits::FRAME_BYTES, 3] {
            assert!(push(&mut lane, len));
        }
        for expected in [4 + 1 + 4 + 2, 4 + limits::FRAME_BYTES, 4 + 3] {
            assert!(matches!(take(&mut lane), Poll::Ready(Some(piece)) if piece.len() == expected));
        }
        assert!(take(&mut lane).is_pending());
        assert!(lane.writer.finish().is_some(), "who waits is woken");
        assert!(matches!(take(&mut lane), Poll::Ready(None)));
    }

    #[test]
    fn the_newest_datagrams_are_kept_each_as_it_was() {
        let mut lane = Datagrams::default();
        let datagram = |n: usize| vec![n as u8; n % 7];
        for n in 0..=DATAGRAMS {
            let payload = Payload::from(&datagram(n)[..]);
            let (displaced, _) = lane.push(Dialect::Client, &payload, n % 7);
            assert_eq!(displaced, n == DATAGRAMS);
        }
        let mut taken = Gathered::default();
        let poll = |lane: &mut Datagrams| lane.poll_waiting(&Context::from_waker(Waker::noop()));
        assert!(poll(&mut lane).is_ready());
        lane.take(&mut taken);
        for n in 1..=DATAGRAMS {
            assert_eq!(taken.pop().as_deref(), Some(&datagram(n)[..]), "{n}");
        }
        assert!(taken.pop().is_none());
        assert!(poll(&mut lane).is_pending());
    }
}
