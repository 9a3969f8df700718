//! The servers that may be the ledger's primary, and which of them is taken for it.
//!
//! An address names several as libpq writes it: `postgres://user@one:5432,two:5432/worldline`. The one in use stays until it is
//! found to take no writes; then the next is tried, and after the last the first.
//!
//! Deliberately absent: promoting one, and telling a primary from an older one that still takes writes. Whoever promotes a
//! standby ends the old primary first.

use super::{
    Problem,
    check::{self, Server},
};
use sqlx::PgConnection;
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// All of them. Clones agree on which is in use.
#[derive(Clone, Debug)]
pub(crate) struct Servers {
    all: Arc<[Server]>,
    at: Arc<AtomicUsize>,
}

impl Servers {
    /// The servers of an address, the first of them in use.
    pub fn new(url: &str) -> Result<Self, Problem> {
        let all = each(url).iter().map(|url| Server::new(url)).collect::<Result<Arc<[_]>, _>>()?;
        Ok(Self { all, at: Arc::default() })
    }

    /// The same, with what each shall call us in `pg_stat_activity`, and how many sessions it may have of that name.
    pub fn named(self, name: &str, sessions_max: usize) -> Self {
        let named = self.all.iter().map(|server| server.clone().named(name, sessions_max));
        Self { all: named.collect(), at: self.at }
    }

    /// How many there are; at least one.
    pub fn count(&self) -> usize {
        self.all.len()
    }

    /// Which is in use, counted from 0.
    pub fn at(&self) -> usize {
        self.at.load(Ordering::Relaxed)
    }

    /// The one in use.
    pub fn current(&self) -> &Server {
        &self.all[self.at()]
    }

    /// The one in use takes no writes: the next.
    pub fn turn(&self) {
        self.at.store((self.at() + 1) % self.count(), Ordering::Relaxed);
    }

    /// The first that takes writes, with a connection to it; or what is wrong with the last.
    pub async fn primary(&self) -> Result<(Server, PgConnection), Problem> {
        let mut found = Err(self.current().garbage());
        for server in self.all.iter() {
            found = server.connect().await.map(|connection| (server.clone(), connection));
            if let Ok((server, connection)) = &mut found {
                match check::find(server, connection).await {
                    Err(problem) if matches!(problem, Problem::ReadOnly(..)) => found = Err(problem),
                    _ => return found,
                }
            }
        }
        found
    }
}

/// The address of each server that this one names.
pub(crate) fn each(url: &str) -> Vec<String> {
    let whole = || vec![url.to_owned()];
    let Some((scheme, rest)) = url.split_once("://") else { return whole() };
    let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let (user, hosts) = authority.split_at(authority.rfind('@').map_or(0, |at| at + 1));
    if !hosts.contains(',') {
        return whole();
    }
    hosts.split(',').map(|host| format!("{scheme}://{user}{host}{path}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_names_one_server_or_several() {
        assert_eq!(each("postgres://u@one:1/w"), ["postgres://u@one:1/w"]);
        assert_eq!(
            each("postgres://u:p@one:1,[::1]:2,three/w?sslmode=prefer"),
            [
                "postgres://u:p@one:1/w?sslmode=prefer",
                "postgres://u:p@[::1]:2/w?sslmode=prefer",
                "postgres://u:p@three/w?sslmode=prefer"
            ]
        );
        assert_eq!(each("postgres:///w?host=a,b"), ["postgres:///w?host=a,b"]);
        assert_eq!(each("nonsense"), ["nonsense"]);
        let servers = Servers::new("postgres://u@one:1,two:2/w").expect("reads");
        assert_eq!((servers.count(), servers.at()), (2, 0));
        let other = servers.clone();
        servers.turn();
        assert_eq!(other.current().place.port, 2, "clones agree");
        servers.turn();
        assert_eq!(other.at(), 0);
    }
}
