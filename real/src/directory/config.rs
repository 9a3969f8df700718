//! Where the directory is: the client addresses of etcd's members, with a user where etcd wants one.

use crate::endpoint::{self, Service};

/// Where the directory is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Its members, in any order; at least one. An adapter speaks with one of them at a time.
    pub endpoints: Vec<Endpoint>,
}

/// etcd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Etcd;

impl Service for Etcd {
    const SCHEME: &'static str = "http";
    const TLS: &'static str = "https";
    const NAME: &'static str = "etcd";
    const SERVER: &'static str = "an etcd member";
    const PORT: u16 = 2379;
}

/// The address of one server.
pub type Endpoint = endpoint::Endpoint<Etcd>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_and_its_password_is_never_shown() {
        let plain: Endpoint = "http://127.0.0.1:2380".parse().expect("right");
        assert_eq!((plain.to_string().as_str(), plain.user), ("127.0.0.1:2380", None));
        let with_user: Endpoint = "http://root:p%40ss%3a@etcd-1.core/".parse().expect("right");
        assert_eq!(with_user.user, Some(("root".to_owned(), "p@ss:".to_owned())));
        assert_eq!(format!("{with_user} {with_user:?}"), "etcd-1.core:2379 etcd-1.core:2379");
        assert_eq!("http://[::1]:7".parse::<Endpoint>().expect("right").to_string(), "[::1]:7");
    }

    #[test]
    fn a_wrong_address_is_named_with_what_is_wrong_and_without_its_password() {
        let wrong = |text: &str| text.parse::<Endpoint>().expect_err("wrong").to_string();
        for text in [
            "",
            "127.0.0.1:2379",
            "http://",
            "http://a:b:c",
            "http://h:0",
            "http://h:70000",
            "http://h/x",
            "http://::1",
        ] {
            assert!(wrong(text).contains("expected http://[user:password@]host[:port]"), "{text}");
        }
        assert!(wrong("https://h:1").contains("TLS"));
        let message = wrong("http://root:secret@:1");
        assert!(message.contains("@:1") && !message.contains("secret"), "{message}");
        assert!(!wrong("root:secret@h:1").contains("secret"));
    }
}
