//! What the servers of the cache say of themselves: `INFO`, on a connection of its own, so that no role's request waits behind it.

use super::Telemetry;
use crate::{cache, clock};
use redis::{AsyncConnectionConfig, Client, aio::MultiplexedConnection};
use std::{collections::BTreeMap, time::Duration};
use tokio::time::timeout;
use worldline_system::{
    doors::telemetry::{Label, Meter, Metric, labels, ratio},
    time::Instant,
};

/// How long one server may take to say it.
const PATIENCE: Duration = Duration::from_secs(1);

/// Commands by what they do; what a script runs counts too. Others are the servers' own business.
const KINDS: [(&str, &[&str]); 3] = [
    ("get", &["get", "mget", "hget", "hmget", "hgetall", "exists", "geopos", "geosearch", "zscore", "zrangebyscore"]),
    ("set", &["set", "setex", "psetex", "hset", "hmset", "incrby", "geoadd", "zadd", "expire", "pexpire", "pexpireat"]),
    ("del", &["del", "unlink", "hdel", "zrem", "zremrangebyscore"]),
];

/// The servers of a region's cache.
#[derive(Default)]
pub(super) struct Servers(Vec<Server>);

struct Server {
    name: &'static str,
    client: Option<Client>,
    connection: Option<MultiplexedConnection>,
    /// Calls by kind, the last time that it was asked, and when that was.
    calls: Option<(Instant, BTreeMap<&'static str, u64>)>,
}

impl Servers {
    pub fn of(config: Option<&cache::Config>) -> Self {
        let endpoints = config.map(|config| config.endpoints.as_slice()).unwrap_or_default();
        let server = |endpoint: &cache::Endpoint| Server {
            // A few for the life of a process; a label is a word.
            name: String::leak(endpoint.to_string()),
            client: Client::open(endpoint.info.clone()).ok(),
            connection: None,
            calls: None,
        };
        Self(endpoints.iter().map(server).collect())
    }

    /// Asks each of them. Of one that does not answer nothing is known: what it said before stands.
    pub async fn ask(&mut self, telemetry: &Telemetry) {
        for server in &mut self.0 {
            match timeout(PATIENCE, server.info()).await {
                Ok(Some(info)) => server.tell(&info, &mut telemetry.meter()),
                Ok(None) | Err(_) => server.connection = None,
            }
        }
    }
}

impl Server {
    async fn info(&mut self) -> Option<String> {
        if self.connection.is_none() {
            let config = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
            let opened = self.client.as_ref()?.get_multiplexed_async_connection_with_config(&config).await;
            self.connection = Some(opened.ok()?);
        }
        let mut ask = redis::cmd("INFO");
        ask.arg("all").query_async(self.connection.as_mut()?).await.ok()
    }

    fn tell(&mut self, info: &str, meter: &mut Meter) {
        let value = |name: &str| {
            let value = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
            value.trim().parse::<u64>().ok()
        };
        let node = Label::Word(self.name);
        let bytes = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        if let Some(used) = value("used_memory") {
            meter.set(Metric::DragonflyMemoryUsedBytes, labels(&[node]), bytes(used));
        }
        if let Some(limit) = value("maxmemory").filter(|limit| *limit > 0) {
            meter.set(Metric::DragonflyMemoryLimitBytes, labels(&[node]), bytes(limit));
        }
        // A replica's own figures say nothing of what is read.
        if info.contains("role:master") {
            if let (Some(hits), Some(misses)) = (value("keyspace_hits"), value("keyspace_misses")) {
                let named = labels(&[Label::Word("all")]);
                meter.set(Metric::DragonflyHitRatio, named, ratio(hits, hits.saturating_add(misses)));
            }
            for (reason, name) in [("memory", "evicted_keys"), ("expired", "expired_keys")] {
                if let Some(count) = value(name) {
                    meter.set_counter(Metric::DragonflyEvictionCount, labels(&[Label::Word(reason)]), count);
                }
            }
        }
        self.tell_calls(info, node, meter);
    }

    fn tell_calls(&mut self, info: &str, node: Label, meter: &mut Meter) {
        let (now, calls) = (clock::now(), calls(info));
        if let Some((since, before)) = &self.calls {
            let elapsed_ms = now.since(*since).as_millis().max(1);
            for (kind, count) in &calls {
                // A server that began anew counts from nothing.
                let more = count.checked_sub(before.get(kind).copied().unwrap_or(0)).unwrap_or(*count);
                let a_second = i64::try_from(more.saturating_mul(1_000) / elapsed_ms).unwrap_or(i64::MAX);
                meter.set(Metric::DragonflyOpsPerSec, labels(&[node, Label::Word(kind)]), a_second);
            }
        }
        self.calls = Some((now, calls));
    }
}

/// How often commands of each kind were called.
fn calls(info: &str) -> BTreeMap<&'static str, u64> {
    let mut calls: BTreeMap<_, _> = KINDS.iter().map(|(kind, _)| (*kind, 0)).collect();
    for line in info.lines() {
        let Some((command, rest)) = line.strip_prefix("cmdstat_").and_then(|line| line.split_once(":calls=")) else {
            continue;
        };
        let count = rest.split(',').next().and_then(|count| count.parse::<u64>().ok()).unwrap_or(0);
        let kind = KINDS.iter().find(|(_, commands)| commands.contains(&command));
        if let Some(sum) = kind.and_then(|(kind, _)| calls.get_mut(kind)) {
            *sum += count;
        }
    }
    calls
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_says_is_read_and_what_it_does_not_say_is_not_made_up() {
        let info = "# Memory\r\nused_memory:1048576\r\nmaxmemory:0\r\n# Replication\r\nrole:master\r\n\
                    keyspace_hits:3\r\nkeyspace_misses:1\r\nevicted_keys:0\r\nexpired_keys:7\r\n\
                    cmdstat_hset:calls=5,usec=9,usec_per_call=1.8\r\ncmdstat_evalsha:calls=5,usec=1\r\n\
                    cmdstat_hgetall:calls=4,usec=2\r\ncmdstat_config|get:calls=1,usec=1\r\n";
        let mut server = Server { name: "here", client: None, connection: None, calls: None };
        let mut meter = Meter::default();
        server.tell(info, &mut meter);
        let told: Vec<_> = meter.each().map(|(metric, _, value)| (metric.table().name, value.clone())).collect();
        use worldline_system::doors::telemetry::Value::{Counter, Gauge};
        let gauge = |value| Gauge { now: value, most: value };
        assert_eq!(
            told,
            [
                ("dragonfly_memory_used_bytes", gauge(1 << 20)),
                ("dragonfly_hit_ratio", gauge(750_000)),
                ("dragonfly_eviction_count", Counter(7)),
                ("dragonfly_eviction_count", Counter(0)),
            ],
            "no limit, and no rate of the first look"
        );
        assert_eq!(calls(info), BTreeMap::from([("get", 4), ("set", 5), ("del", 0)]));
        server.tell(info, &mut meter);
        assert!(meter.each().any(|(metric, ..)| metric == Metric::DragonflyOpsPerSec));
        let nothing = calls("cmdstat_get:calls=many,usec=1\r\ncmdstat_:calls=\r\ncmdstat_set:calls=3");
        assert_eq!(nothing, BTreeMap::from([("get", 0), ("set", 3), ("del", 0)]));
    }
}
