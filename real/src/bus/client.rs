//! The client under the adapter's loops: connections, each to one server, and what comes over them.
//!
//! * A connection that is over stays over. Nothing is repeated here.
//! * An [`End`] is worth what it says: what is refused has certainly not happened.
//! * Deadlines are the adapter's: whoever drops a future waits no longer.
//!
//! Production has one client (`nats`); whoever gives another finds the same loops above it.

use super::{Endpoint, Limits};
use bytes::Bytes;
use futures_util::Stream;
use std::{fmt, pin::Pin, sync::Arc};
use tokio::sync::watch;
use worldline_system::{
    doors::bus::{Durable, GapCause, Message, MessageId, Published, Start, StreamSequence, Subject},
    outcome::End,
};

/// What a client will have done.
pub type Pending<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;
/// What comes over a connection, in its order; it ends with the connection.
pub type Coming<T> = Pin<Box<dyn Stream<Item = T> + Send>>;

/// Opens connections.
pub trait Client: fmt::Debug + Send + Sync {
    /// Connects to a server that has shown itself to be NATS with JetStream, or says what is wrong. `over` is told when the
    /// connection is gone.
    fn connect<'a>(
        &'a self,
        endpoint: &'a Endpoint,
        over: Arc<watch::Sender<bool>>,
    ) -> Pending<'a, Result<Connected, String>>;
}

/// A connection that was opened.
pub struct Connected {
    /// What can be asked of it.
    pub connection: Box<dyn Connection>,
    /// What the server says of the publishes, each by its number.
    pub acknowledgements: Coming<(u64, Result<Published, End>)>,
}

impl fmt::Debug for Connected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connected").finish_non_exhaustive()
    }
}

/// A connection to one server. It ends with whoever holds it last.
pub trait Connection: Send + Sync {
    /// Whether it is still there, as far as is known on this side.
    fn stands(&self) -> bool;

    /// Hands a publish over, if it is taken at once: why it is not. What is taken leaves in this order.
    fn publish(&self, number: u64, publish: Publish) -> Option<End>;

    /// Looks at the stream, and makes it where there is none.
    fn stream(&self, limits: Limits) -> Pending<'_, Result<(), Problem>>;

    /// Opens a consumer.
    fn consume(&self, durable: Option<Durable>, start: Start) -> Pending<'_, Result<Opened, End>>;

    /// Says that these were taken in, and waits until the server knows of the last, and so of all of them.
    fn acknowledge(&self, messages: Vec<Reply>) -> Pending<'_, Result<(), End>>;

    /// Asks for a message again, and waits until the server knows.
    fn reject(&self, message: Reply) -> Pending<'_, Result<(), End>>;

    /// Says that a message shall not come again, if that is taken at once.
    fn discard(&self, message: Reply);

    /// Deletes a consumer.
    fn delete<'a>(&'a self, consumer: &'a str) -> Pending<'a, ()>;
}

/// What is to be published.
#[derive(Clone, Debug)]
pub struct Publish {
    /// Where.
    pub subject: Subject,
    /// Under which id.
    pub message: MessageId,
    /// Only behind this one.
    pub after: Option<StreamSequence>,
    /// What.
    pub payload: Bytes,
}

/// Where the server wants to be told of a message.
pub type Reply = Bytes;

/// A consumer that was opened.
pub struct Opened {
    /// What the server calls it.
    pub name: String,
    /// What it delivers, and at last why it delivers no more.
    pub messages: Coming<Result<Delivered, GapCause>>,
}

impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opened").field("name", &self.name).finish_non_exhaustive()
    }
}

/// What a consumer has delivered.
#[derive(Debug)]
pub enum Delivered {
    /// A message of the door.
    Message(Message, Reply),
    /// Something else on this subject: no role can read it.
    Foreign(String, Option<Reply>),
}

/// What is wrong with the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// It is another than ours, and stays so until somebody changes it.
    Differs(String),
    /// There is no JetStream behind this account.
    NoJetStream,
    /// It cannot be asked or made now.
    Unavailable(String),
}
