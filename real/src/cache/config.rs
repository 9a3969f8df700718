//! Where the cache is: the addresses of its servers, with a user where they want one.

use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo, ProtocolVersion};
use std::{fmt, str::FromStr};

/// Where the cache is.
#[derive(Clone, Debug)]
pub struct Config {
    /// Its servers, in any order; at least one. An adapter speaks with the one that is the primary.
    pub endpoints: Vec<Endpoint>,
}

/// The address of one server: `redis://[user:password@]host[:port][/db]`, where a `%` begins two hexadecimal digits in user and
/// password. What is printed of it never has the password.
#[derive(Clone)]
pub struct Endpoint {
    pub(crate) info: ConnectionInfo,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.info.addr() {
            ConnectionAddr::Tcp(host, port) if host.contains(':') => write!(f, "[{host}]:{port}"),
            ConnectionAddr::Tcp(host, port) => write!(f, "{host}:{port}"),
            other => write!(f, "{other}"),
        }
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a text is no address of a server.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{shown}` is no address of a cache: {wrong}; expected redis://[user:password@]host[:port][/db]")]
pub struct BadEndpoint {
    shown: String,
    wrong: &'static str,
}

impl FromStr for Endpoint {
    type Err = BadEndpoint;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text).map_err(|wrong| {
            let (scheme, rest) =
                text.split_once("://").map_or(("", text), |(_, rest)| (&text[..text.len() - rest.len()], rest));
            let shown = rest.rsplit_once('@').map_or_else(|| text.to_owned(), |(_, host)| format!("{scheme}…@{host}"));
            BadEndpoint { shown, wrong }
        })
    }
}

fn parse(text: &str) -> Result<Endpoint, &'static str> {
    match text.split_once("://") {
        Some(("redis" | "valkey", _)) => {}
        Some(("rediss" | "valkeys", _)) => return Err("TLS to the cache is not supported"),
        Some(("unix" | "redis+unix" | "valkey+unix", _)) => return Err("a socket in the file system is not supported"),
        _ => return Err("it does not begin with redis://"),
    }
    if text.contains('?') {
        return Err("it has options, and none is known");
    }
    let info = text.into_connection_info().map_err(|_| "it does not read")?;
    match info.addr() {
        ConnectionAddr::Tcp(host, port) if !host.is_empty() && *port != 0 => {}
        _ => return Err("it has no host and port"),
    }
    // The second version of the protocol: every server speaks it.
    let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP2);
    Ok(Endpoint { info: info.set_redis_settings(settings) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_and_its_password_is_never_shown() {
        let plain: Endpoint = "redis://127.0.0.1:6380".parse().expect("right");
        assert_eq!((plain.to_string().as_str(), plain.info.redis_settings().username()), ("127.0.0.1:6380", None));
        let with_user: Endpoint = "redis://worldline:p%40ss%3a@cache-1.edge/2".parse().expect("right");
        let settings = with_user.info.redis_settings();
        assert_eq!((settings.username(), settings.password(), settings.db()), (Some("worldline"), Some("p@ss:"), 2));
        assert_eq!(format!("{with_user} {with_user:?}"), "cache-1.edge:6379 cache-1.edge:6379");
        assert_eq!("valkey://[::1]:7".parse::<Endpoint>().expect("right").to_string(), "[::1]:7");
    }

    #[test]
    fn a_wrong_address_is_named_with_what_is_wrong_and_without_its_password() {
        let wrong = |text: &str| text.parse::<Endpoint>().expect_err("wrong").to_string();
        for text in
            ["", "127.0.0.1:6379", "redis://", "redis://h:0", "redis://h:70000", "redis://h/x", "http://h", "redis:h"]
        {
            assert!(wrong(text).contains("expected redis://[user:password@]host[:port][/db]"), "{text}");
        }
        assert!(wrong("rediss://h:1").contains("TLS"));
        assert!(wrong("redis://h:1?protocol=resp3").contains("options"));
        let message = wrong("redis://worldline:secret@:1");
        assert!(message.contains("@:1") && !message.contains("secret"), "{message}");
        assert!(!wrong("worldline:secret@h:1").contains("secret"));
    }
}
