//! The directory door, served by etcd 3.4 or newer.

pub mod codec;
mod config;
mod owner;

pub use config::{BadEndpoint, Config, Endpoint};
pub use owner::{Owner, WhoOwnsError, who_owns};

use crate::{Inbox, ready::Readiness};
use std::pin::Pin;
use worldline_system::{
    Refusal,
    doors::{
        Asked, Event,
        directory::{self, Ask, Submission},
    },
    outcome::End,
};

/// A future that leaves this crate.
pub type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// The adapter. Clones share one connection.
#[derive(Clone, Debug)]
pub struct Directory {
    inbox: Inbox,
}

impl Directory {
    /// Begins to look for etcd; must be called inside a tokio runtime. `ready` hears of `"directory"`.
    #[must_use]
    pub fn new(_config: Config, inbox: Inbox, ready: Readiness) -> Self {
        ready.missing("directory", "not connected yet");
        Self { inbox }
    }

    /// Takes a submission and never waits. It is answered once, before its deadline.
    pub fn submit(&self, asked: Asked<Submission>) {
        let answer = Ask::from(&asked.submission).ended(End::Refused(Refusal::Unreachable));
        self.inbox
            .answer(asked.op, Event::Directory(directory::Event::Answered { op: asked.op, answer: Box::new(answer) }));
    }

    /// Ends all connections and tasks. What is asked from now on is refused.
    #[must_use]
    pub fn close(&self) -> Boxed<()> {
        Box::pin(async {})
    }
}
