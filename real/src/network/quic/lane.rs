//! What a role sends in one class: written by its own thread while the stream takes it, and by a task when it does not.

use bytes::Bytes;
use quinn::{SendStream, WriteError};
use std::{
    collections::VecDeque,
    future::Future as _,
    pin::pin,
    task::{Context, Poll, Waker, ready},
};
use worldline_system::{doors::network::StreamClass, limits};

/// One class of one connection, this side sending.
#[derive(Default)]
pub(super) struct Lane {
    /// Its writer was begun.
    begun: bool,
    stream: Option<SendStream>,
    /// Frames that the stream has not taken, in order; the first may have begun.
    waiting: VecDeque<Bytes>,
    /// Of its writer, while that has nothing to write.
    idle: Option<Waker>,
    finished: bool,
}

impl Lane {
    /// Whether its writer must be begun now.
    pub fn begin(&mut self) -> bool {
        !std::mem::replace(&mut self.begun, true)
    }

    /// The peer has allowed a stream: its first byte names the class.
    pub fn open(&mut self, stream: SendStream, class: StreamClass) {
        self.waiting.push_front(Bytes::copy_from_slice(&[class as u8]));
        self.stream = Some(stream);
    }

    /// Sends a frame; `false` where too many wait.
    #[must_use]
    pub fn push(&mut self, frame: Bytes) -> bool {
        if self.waiting.len() >= limits::STREAM_BACKLOG {
            return false;
        }
        self.waiting.push_back(frame);
        // Only while nothing else waits: then the stream has no writer that it must wake, and forgetting this one is right.
        let alone = self.waiting.len() == 1 && self.idle.is_some();
        let written = alone && matches!(self.poll_flush(&mut Context::from_waker(Waker::noop())), Poll::Ready(Ok(())));
        if !written && let Some(writer) = self.idle.take() {
            writer.wake();
        }
        true
    }

    /// Nothing more is sent.
    pub fn finish(&mut self) {
        self.finished = true;
        if let Some(writer) = self.idle.take() {
            writer.wake();
        }
    }

    /// Writes until it was finished and all is written.
    pub fn poll_written(&mut self, context: &mut Context<'_>) -> Poll<Result<(), WriteError>> {
        match self.poll_flush(context) {
            Poll::Ready(Ok(())) if !self.finished => {
                self.idle = Some(context.waker().clone());
                Poll::Pending
            }
            other => other,
        }
    }

    pub fn take(&mut self) -> Option<SendStream> {
        self.stream.take()
    }

    fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<Result<(), WriteError>> {
        let Some(stream) = &mut self.stream else { return Poll::Pending };
        while !self.waiting.is_empty() {
            let written = {
                let writing = pin!(stream.write_chunks(self.waiting.make_contiguous()));
                ready!(writing.poll(context))?
            };
            self.waiting.drain(..written.chunks);
        }
        Poll::Ready(Ok(()))
    }
}
