//! The one connection that an adapter keeps: to the server that has shown itself to be the primary.
//!
//! Whoever answers is asked for its version, its part and its scripts before anything else is sent to it.

use super::{Config, Endpoint, scripts::Script};
use crate::machine::{Machine, Stream};
use redis::{AsyncConnectionConfig, ErrorKind, RedisError, aio::MultiplexedConnection};
use std::{io, time::Duration};
use tokio::{
    task::{JoinHandle, spawn},
    time::timeout,
};

/// How long a server may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(1);
/// How long it may take until it has answered what it is asked first.
const HANDSHAKE: Duration = Duration::from_secs(2);
/// The first version of Redis that has all that is used: `GEOSEARCH`. Valkey and Dragonfly say which Redis they are like.
const VERSION_MIN: (u32, u32) = (6, 2);

/// A connection.
pub(super) struct Line {
    pub connection: MultiplexedConnection,
    /// The digests of [`Script::ALL`], as the server has told them.
    pub scripts: Vec<String>,
    _driver: Driver,
}

/// The task that moves a connection's bytes; it ends with the connection.
struct Driver(JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Connects to a server and makes sure that it can be used.
pub(super) async fn connect(machine: &dyn Machine, endpoint: &Endpoint, batches: usize) -> Result<Line, String> {
    let nobody = |problem: String| format!("nobody answers at {endpoint}, where the cache should: {problem}");
    // Each batch that is in flight has its place at once: a batch that waited for one could be overtaken.
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(None)
        .set_response_timeout(None)
        .set_pipeline_buffer_size(batches);
    let opened = async {
        let stream = reach(machine, endpoint).await.map_err(nobody)?;
        let (mut connection, driver) =
            MultiplexedConnection::new_with_config(endpoint.info.redis_settings(), stream, config)
                .await
                .map_err(|error| not_ours(endpoint, &error))?;
        let driver = Driver(spawn(driver));
        let scripts = introduce(endpoint, &mut connection).await?;
        Ok(Line { connection, scripts, _driver: driver })
    };
    timeout(CONNECT + HANDSHAKE, opened).await.unwrap_or_else(|_| {
        Err(format!("{endpoint} accepts connections and never answers: a server of the Redis protocol should be there"))
    })
}

/// Opens a connection to whoever accepts them there.
async fn reach(machine: &dyn Machine, endpoint: &Endpoint) -> Result<Box<dyn Stream>, String> {
    let redis::ConnectionAddr::Tcp(host, port) = endpoint.info.addr() else {
        return Err("it is no address of TCP".to_owned());
    };
    let dial = async {
        let stream = machine.connect(machine.lookup(host.clone(), *port).await?).await?;
        stream.prompt()?;
        Ok::<_, io::Error>(stream)
    };
    match timeout(CONNECT, dial).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no connection within {} s", CONNECT.as_secs())),
    }
}

/// Asks who is there, and gives it the scripts: their digests.
async fn introduce(endpoint: &Endpoint, connection: &mut MultiplexedConnection) -> Result<Vec<String>, String> {
    let told = |error: RedisError| not_ours(endpoint, &error);
    let info: String = redis::cmd("INFO").query_async(connection).await.map_err(told)?;
    let value = |name: &str| {
        info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim).unwrap_or_default()
    };
    let version = value("redis_version");
    if !new_enough(version) {
        return Err(format!("the cache at {endpoint} is like Redis `{version}`: 6.2 or newer is needed"));
    }
    if value("cluster_enabled") == "1" {
        return Err(format!("the cache at {endpoint} is a Redis Cluster: one primary with all keys is needed"));
    }
    if value("role") != "master" {
        return Err(format!(
            "the cache at {endpoint} is a replica of {}:{}",
            value("master_host"),
            value("master_port")
        ));
    }
    let mut scripts = vec![];
    for script in Script::ALL {
        let mut load = redis::cmd("SCRIPT");
        scripts.push(load.arg("LOAD").arg(script.text()).query_async(connection).await.map_err(told)?);
    }
    Ok(scripts)
}

/// What is wrong with a server that answered, or did not.
fn not_ours(endpoint: &Endpoint, error: &RedisError) -> String {
    let said = error.to_string();
    let (user, code) = (endpoint.info.redis_settings().password().is_some(), error.code().unwrap_or_default());
    let has = |part: &str| said.contains(part);
    match error.kind() {
        _ if code == "NOAUTH" || has("NOAUTH") => format!("the cache at {endpoint} wants a password"),
        _ if has("WRONGPASS") || has("invalid username-password") => {
            format!("the cache at {endpoint} refuses the user or the password")
        }
        ErrorKind::AuthenticationFailed if user => {
            format!("the cache at {endpoint} refuses the user or the password, or has none")
        }
        _ if code == "NOPERM" => format!("the cache at {endpoint} does not permit what is needed: {said}"),
        _ if has("NOPROTO") || error.kind() == ErrorKind::RESP3NotSupported => {
            format!("the cache at {endpoint} does not speak version 2 of the Redis protocol: {said}")
        }
        _ if code == "LOADING" => format!("the cache at {endpoint} is still loading its data"),
        ErrorKind::Io if !error.is_connection_dropped() => {
            format!("nobody answers at {endpoint}, where the cache should: {said}")
        }
        _ => format!("what answers at {endpoint} is no server of the Redis protocol that can be used: {said}"),
    }
}

fn new_enough(version: &str) -> bool {
    let mut numbers = version.split('.').map(str::parse);
    let (major, minor) = (numbers.next(), numbers.next());
    matches!((major, minor), (Some(Ok(major)), Some(Ok(minor))) if (major, minor) >= VERSION_MIN)
}

/// The addresses in words.
pub(super) fn addresses(config: &Config) -> String {
    let addresses: Vec<String> = config.endpoints.iter().map(Endpoint::to_string).collect();
    addresses.join(", ")
}

#[cfg(test)]
mod tests {
    #[test]
    fn servers_are_used_from_6_2_on() {
        assert!(["6.2.0", "7.2.4", "8.0", "10.1.2"].into_iter().all(super::new_enough));
        assert!(!["6.0.16", "5.0.7", "", "7", "x.y"].into_iter().any(super::new_enough));
    }
}
