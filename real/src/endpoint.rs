//! The address of a server, as its users write it: `scheme://[user:password@]host[:port]`, where a `%` begins two hexadecimal
//! digits in user and password. What is printed of it never has the password.

use std::{fmt, marker::PhantomData, str::FromStr};

/// A service whose servers are called so.
pub trait Service {
    /// Of an address, without `://`.
    const SCHEME: &'static str;
    /// The same with TLS, which is refused by name.
    const TLS: &'static str;
    /// The service's own name.
    const NAME: &'static str;
    /// One of its servers, with its article.
    const SERVER: &'static str;
    /// The port that it listens on unless it is told otherwise.
    const PORT: u16;
}

/// The address of one server.
#[derive(Clone, PartialEq, Eq)]
pub struct Endpoint<S> {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) user: Option<(String, String)>,
    service: PhantomData<S>,
}

impl<S> fmt::Display for Endpoint<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl<S> fmt::Debug for Endpoint<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a text is no address of a server.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{shown}` is no address of {server}: {wrong}; expected {scheme}://[user:password@]host[:port]")]
pub struct BadEndpoint {
    shown: String,
    server: &'static str,
    scheme: &'static str,
    wrong: String,
}

impl<S: Service> FromStr for Endpoint<S> {
    type Err = BadEndpoint;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text).map_err(|wrong| {
            let (scheme, rest) =
                text.split_once("://").map_or(("", text), |(_, rest)| (&text[..text.len() - rest.len()], rest));
            let shown = rest.rsplit_once('@').map_or_else(|| text.to_owned(), |(_, host)| format!("{scheme}…@{host}"));
            BadEndpoint { shown, server: S::SERVER, scheme: S::SCHEME, wrong }
        })
    }
}

fn parse<S: Service>(text: &str) -> Result<Endpoint<S>, String> {
    let rest = match text.split_once("://") {
        Some((scheme, rest)) if scheme == S::SCHEME => rest,
        Some((scheme, _)) if scheme == S::TLS => return Err(format!("TLS to {} is not supported", S::NAME)),
        _ => return Err(format!("it does not begin with {}://", S::SCHEME)),
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
        _ => (address, S::PORT),
    };
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let host = bare.unwrap_or(host);
    let wrong = |c: char| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_') || (bare.is_some() && c == ':'));
    if host.is_empty() || host.contains(wrong) || port == 0 {
        return Err("it has no host and port".into());
    }
    Ok(Endpoint { host: host.to_owned(), port, user, service: PhantomData })
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
