//! Where the bus is: the client addresses of NATS servers, with a user where they want one. And what its stream keeps.

use crate::endpoint::{self, Service};
use worldline_system::{limits, time::Duration};

/// Where the bus is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Its servers, in any order; at least one. An adapter speaks with one of them at a time.
    pub endpoints: Vec<Endpoint>,
}

/// NATS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nats;

impl Service for Nats {
    const SCHEME: &'static str = "nats";
    const TLS: &'static str = "tls";
    const NAME: &'static str = "NATS";
    const SERVER: &'static str = "a NATS server";
    const PORT: u16 = 4222;
}

/// The address of one server.
pub type Endpoint = endpoint::Endpoint<Nats>;

/// How much the stream keeps, and for how long it recognises an id. Every adapter of a world has the same; the default is what the
/// door says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// One more, and the oldest goes.
    pub messages: u64,
    /// More, headers and framing counted, and the oldest go.
    pub bytes: u64,
    /// What is older goes.
    pub age: Duration,
    /// An id that is published again within this is stored once.
    pub deduplication: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        let (messages, bytes, age) = (limits::BUS_MESSAGES, limits::BUS_BYTES, limits::BUS_AGE);
        Self { messages, bytes, age, deduplication: limits::BUS_DEDUPLICATION }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_and_its_password_is_never_shown() {
        let plain: Endpoint = "nats://127.0.0.1:4223".parse().expect("right");
        assert_eq!((plain.to_string().as_str(), plain.user), ("127.0.0.1:4223", None));
        let with_user: Endpoint = "nats://root:p%40ss%3a@nats-1.core/".parse().expect("right");
        assert_eq!(with_user.user, Some(("root".to_owned(), "p@ss:".to_owned())));
        assert_eq!(format!("{with_user} {with_user:?}"), "nats-1.core:4222 nats-1.core:4222");
        assert_eq!("nats://[::1]:7".parse::<Endpoint>().expect("right").to_string(), "[::1]:7");
    }

    #[test]
    fn a_wrong_address_is_named_with_what_is_wrong_and_without_its_password() {
        let wrong = |text: &str| text.parse::<Endpoint>().expect_err("wrong").to_string();
        for text in
            ["", "127.0.0.1:4222", "http://h", "nats://", "nats://a:b:c", "nats://h:0", "nats://h:70000", "nats://h/x"]
        {
            assert!(wrong(text).contains("expected nats://[user:password@]host[:port]"), "{text}");
        }
        assert!(wrong("tls://h:1").contains("TLS"));
        let message = wrong("nats://root:secret@:1");
        assert!(message.contains("@:1") && !message.contains("secret"), "{message}");
    }
}
