//! Where the bus is: the client addresses of NATS servers, with a user where they want one.

use std::{fmt, str::FromStr};

/// The port that NATS listens on unless it is told otherwise.
const PORT: u16 = 4222;

/// Where the bus is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Its servers, in any order; at least one. An adapter speaks with one of them at a time.
    pub endpoints: Vec<Endpoint>,
}

/// The client address of one server: `nats://[user:password@]host[:port]`, where a `%` begins two hexadecimal digits in user
/// and password. What is printed of it never has the password.
#[derive(Clone, PartialEq, Eq)]
pub struct Endpoint {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) user: Option<(String, String)>,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
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
#[error("`{shown}` is no address of a NATS server: {wrong}; expected nats://[user:password@]host[:port]")]
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
    let rest = match text.split_once("://") {
        Some(("nats", rest)) => rest,
        Some(("tls", _)) => return Err("TLS to NATS is not supported"),
        _ => return Err("it does not begin with nats://"),
    };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let (user, address) = match rest.rsplit_once('@') {
        None => (None, rest),
        Some((user, address)) => {
            let (name, password) = user.split_once(':').ok_or("its user has no password")?;
            let decoded = decode(name).zip(decode(password)).ok_or("a `%` in its user or password is no escape")?;
            (Some(decoded), address)
        }
    };
    let (host, port) = match address.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => {
            (host, port.parse().map_err(|_| "its port is no number up to 65535")?)
        }
        _ => (address, PORT),
    };
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let host = bare.unwrap_or(host);
    let wrong = |c: char| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_') || (bare.is_some() && c == ':'));
    if host.is_empty() || host.contains(wrong) || port == 0 {
        return Err("it has no host and port");
    }
    Ok(Endpoint { host: host.to_owned(), port, user })
}

/// A text without its percent escapes.
fn decode(text: &str) -> Option<String> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        decoded.push(if byte == b'%' {
            let digit = |byte: u8| char::from(byte).to_digit(16);
            u8::try_from(digit(bytes.next()?)? * 16 + digit(bytes.next()?)?).ok()?
        } else {
            byte
        });
    }
    String::from_utf8(decoded).ok()
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
