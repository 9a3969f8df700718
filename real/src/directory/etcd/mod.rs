//! The client that production has: etcd-client, on one TCP connection of the machine.
//!
//! Deliberately absent: its reconnecting, its balancing between members, and its renewals by itself. The adapter has its own.

mod calls;
pub mod codec;
mod owner;
mod verdict;
mod wire;

pub use owner::{Owner, WhoOwnsError, who_owns};

use super::{
    Endpoint,
    client::{Among, Client, Connected, Connection, Ends, Found, Latest, Pending, Range, Renewals, Verdict, Watched},
    link::{CONNECT, PROBE},
};
use crate::machine::{Machine, Stream};
use etcd_client::{Channel, ConnectOptions, Error, GetOptions, KvClient, LeaseClient, WatchClient};
use std::{io, sync::Arc};
use tokio::time::timeout;
use verdict::Said;
use worldline_proto::{LeaseId, Revision};
use worldline_system::{
    doors::directory::{Consistency, Family, Key, Page, Transacted, Transaction},
    time::Duration,
};

/// The largest answer, in bytes: what an operator wrote by hand may be large.
const ANSWER_BYTES: usize = 64 << 20;
/// What a stream may hold that nobody has read, in bytes; and a connection. A watch that waits for its turn to be read must
/// not stop the renewals beside it.
const WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 16 * WINDOW_BYTES;
/// The first version of etcd that has all that is used.
const VERSION_MIN: (u32, u32) = (3, 4);

/// The client, on this machine.
#[derive(Clone, Debug)]
pub(super) struct Etcd(pub Arc<dyn Machine>);

impl Client for Etcd {
    fn connect<'a>(&'a self, endpoint: &'a Endpoint, tries: usize) -> Pending<'a, Result<Connected, String>> {
        Box::pin(async move {
            let (member, ends) = connect(&*self.0, endpoint, tries).await?;
            Ok(Connected { connection: Box::new(member), ends })
        })
    }
}

/// A member that was reached.
struct Member {
    /// Asks only a member that knows a leader.
    strict: etcd_client::Client,
    /// Asks whatever the member has.
    lenient: etcd_client::Client,
}

impl Member {
    fn kv(&self) -> KvClient {
        self.strict.kv_client().max_decoding_message_size(ANSWER_BYTES)
    }

    /// For reads that need no quorum.
    fn kv_without_leader(&self) -> KvClient {
        self.lenient.kv_client().max_decoding_message_size(ANSWER_BYTES)
    }

    fn lease(&self) -> LeaseClient {
        self.strict.lease_client()
    }

    fn watch(&self) -> WatchClient {
        self.strict.watch_client().max_decoding_message_size(ANSWER_BYTES)
    }
}

impl Connection for Member {
    fn probe(&self, consistency: Consistency) -> Pending<'_, Result<(), String>> {
        let (path, options) = (codec::path(Key::Leader), GetOptions::new().with_keys_only());
        let (mut kv, options) = match consistency {
            Consistency::Linearizable => (self.kv(), options),
            Consistency::Serializable => (self.kv_without_leader(), options.with_serializable()),
        };
        Box::pin(async move {
            let probed = kv.get(path, Some(options)).await;
            probed.map(drop).map_err(|error| verdict::in_words(&error))
        })
    }

    fn grant(&self, lease: LeaseId, ttl: Duration) -> Pending<'_, Result<(), Verdict>> {
        Box::pin(calls::grant(self, lease, ttl))
    }

    fn revoke(&self, lease: LeaseId) -> Pending<'_, Result<(), Verdict>> {
        Box::pin(calls::revoke(self, lease))
    }

    fn renewals(&self, lease: LeaseId) -> Pending<'_, Result<Box<dyn Renewals>, Verdict>> {
        Box::pin(calls::renewals(self, lease))
    }

    fn transact<'a>(&'a self, transaction: &'a Transaction) -> Pending<'a, Result<Transacted, Verdict>> {
        Box::pin(calls::transact(self, transaction))
    }

    fn read(&self, asked: Range) -> Pending<'_, Result<Page, Verdict>> {
        Box::pin(calls::read(self, asked))
    }

    fn get(&self, key: Key, consistency: Consistency) -> Pending<'_, Result<Found, Verdict>> {
        Box::pin(calls::get(self, key, consistency))
    }

    fn watch(&self, family: Family, from: Revision) -> Pending<'_, Result<Watched, Verdict>> {
        Box::pin(calls::watch(self, family, from))
    }

    fn latest<'a>(&'a self, among: Among<'a>, before: Revision) -> Pending<'a, Result<Option<Latest>, Verdict>> {
        Box::pin(calls::latest(self, among, before))
    }
}

/// Opens a connection to whoever stands behind an address. A name may stand for several: each try begins with another.
async fn dial(machine: &dyn Machine, endpoint: &Endpoint, tries: usize) -> io::Result<Box<dyn Stream>> {
    let mut addresses = machine.lookup(endpoint.host.clone(), endpoint.port).await?;
    let first = tries.checked_rem(addresses.len()).unwrap_or(0);
    addresses.rotate_left(first);
    let stream = machine.connect(addresses).await?;
    stream.prompt()?;
    Ok(stream)
}

/// Connects to a member, behind so many tries, and makes sure that it is etcd.
async fn connect(machine: &dyn Machine, endpoint: &Endpoint, tries: usize) -> Result<(Member, Ends), String> {
    let nobody = |problem: String| format!("nobody answers at {endpoint}, where etcd should: {problem}");
    let stream = match timeout(CONNECT, dial(machine, endpoint, tries)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Err(nobody(error.to_string())),
        Err(_) => return Err(nobody(format!("no connection within {} s", CONNECT.as_secs()))),
    };
    let (wire, ends) = wire::Wire::new(stream);
    let opened = async {
        let transport = tonic::transport::Endpoint::from_shared(format!("http://{endpoint}"))?
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .connect_with_connector(wire::Once::new(wire))
            .await?;
        let options = match &endpoint.user {
            None => ConnectOptions::new(),
            Some((name, password)) => ConnectOptions::new().with_user(name, password).with_auto_token_refresh(true),
        };
        let channel = Channel::Tonic(transport);
        let lenient = etcd_client::Client::from_channel(channel.clone(), Some(options.clone())).await?;
        let version = lenient.maintenance_client().status().await?.version().to_owned();
        let strict = etcd_client::Client::from_channel(channel, Some(options.with_require_leader(true))).await?;
        Ok::<_, Error>((Member { strict, lenient }, version))
    };
    let (member, version) = match timeout(PROBE, opened).await {
        Ok(Ok(opened)) => opened,
        Ok(Err(error)) => return Err(not_etcd(endpoint, &error)),
        Err(_) => {
            return Err(format!("{endpoint} accepts connections and never answers: etcd 3.4 or newer should be there"));
        }
    };
    if new_enough(&version) {
        Ok((member, ends))
    } else {
        Err(format!("etcd at {endpoint} is of version `{version}`: 3.4 or newer is needed"))
    }
}

fn not_etcd(endpoint: &Endpoint, error: &Error) -> String {
    let words = verdict::in_words(error);
    if verdict::said(error) == Said::Ended(Verdict::Unknown) {
        format!("what answers at {endpoint} is not etcd 3.4 or newer: {words}")
    } else {
        format!("etcd at {endpoint} does not let us in: {words}")
    }
}

fn new_enough(version: &str) -> bool {
    let mut numbers = version.split('.').map(str::parse);
    let (major, minor) = (numbers.next(), numbers.next());
    matches!((major, minor), (Some(Ok(major)), Some(Ok(minor))) if (major, minor) >= VERSION_MIN)
}

#[cfg(test)]
mod tests {
    #[test]
    fn etcd_is_served_from_3_4_on() {
        assert!(["3.4.0", "3.5.16", "3.10.0-rc.1", "4.0.0"].into_iter().all(super::new_enough));
        assert!(!["3.3.27", "2.9.10", "", "3", "x.y", "not etcd"].into_iter().any(super::new_enough));
    }
}
