//! What a node was told by the network, for the log: long payloads by their length and digest.

use crate::log::Log;
use std::{
    fmt::{self, Debug},
    hash::{DefaultHasher, Hash as _, Hasher as _},
};
use worldline_system::{
    doors::network::{Event, Payload},
    time::Instant,
};

/// A node was told this.
pub fn tell(log: &mut Log, at: Instant, who: &str, event: &Event) {
    match event {
        Event::Received { connection, class, payload } => log.tell(at, who, &(connection, class, Short(payload))),
        Event::Datagram { connection, payload } => log.tell(at, who, &(connection, "datagram", Short(payload))),
        other => log.tell(at, who, other),
    }
}

/// A payload by its length and its digest.
struct Short<'a>(&'a Payload);

impl Debug for Short<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(bytes) = self.0.as_bytes() else { return self.0.fmt(f) };
        let mut hasher = DefaultHasher::new();
        bytes.hash(&mut hasher);
        write!(f, "{} bytes {:016x}", bytes.len(), hasher.finish())
    }
}
