//! The cache's laws on Valkey.

use crate::{
    hosted::{About, GRACE, Hosted},
    process::Behind,
    proxy::Proxy,
    succession::{Servers, Succession, ask},
    valkey::Valkey,
};
use redis::FromRedisValue;
use worldline_laws::{
    Extent, Fault, Service,
    cache::{self, CacheService},
    seed,
    service::CALLERS,
};
use worldline_proto::OpId;
use worldline_real::{
    cache::{Cache, Config},
    clock,
    ready::Readiness,
};
use worldline_system::{
    doors::{
        self, Asked,
        cache::{Ask, Event, Submission},
    },
    outcome::End,
    time::{Duration, Instant},
};

struct Real {
    hosted: Hosted,
    servers: Box<dyn Servers>,
    callers: Vec<(Cache, Readiness)>,
}

impl Real {
    fn new() -> Self {
        let (hosted, server) = (Hosted::new(), Valkey::start(&[]));
        let proxy = Proxy::new(&hosted.runtime, ([127, 0, 0, 1], server.port).into());
        let through = vec![format!("redis://{}", proxy.address)];
        Self::at(hosted, Box::new(Behind::new(server, proxy)), &through)
    }

    /// A primary and a replica, which takes over from it.
    fn clustered() -> Self {
        let hosted = Hosted::new();
        let succession = Succession::new(&hosted);
        let urls = succession.urls();
        Self::at(hosted, Box::new(succession), &urls)
    }

    fn at(hosted: Hosted, servers: Box<dyn Servers>, through: &[String]) -> Self {
        let callers = {
            let _inside = hosted.runtime.enter();
            (0..CALLERS)
                .map(|_| {
                    let ready = Readiness::default();
                    let endpoints = through.iter().map(|url| url.parse().unwrap()).collect();
                    (Cache::new(Config { endpoints }, hosted.inbox.clone(), ready.clone()), ready)
                })
                .collect()
        };
        let real = Self { hosted, servers, callers };
        real.until_connected();
        real
    }

    fn until_connected(&self) {
        for (_, ready) in &self.callers {
            self.hosted.until_served(ready);
        }
    }

    /// Does something on the server as another client.
    fn other<T: FromRedisValue>(&self, commands: &[&[&str]]) -> Vec<T> {
        let url = self.servers.primary();
        self.hosted.runtime.block_on(ask(&url, commands)).unwrap()
    }
}

impl Drop for Real {
    fn drop(&mut self) {
        self.fault(Fault::Heal);
        self.callers.iter().for_each(|(cache, _)| self.hosted.runtime.block_on(cache.close()));
    }
}

impl Service<cache::Cache> for Real {
    fn begin(&mut self) {
        // A case that failed may have left its fault behind.
        self.fault(Fault::Heal);
        self.until_connected();
        self.flush();
        self.until_replicated();
    }

    fn now(&self) -> Instant {
        clock::now()
    }

    fn submit(&mut self, caller: usize, patience: Duration, submission: Submission) -> OpId {
        let ask = Ask::from(&submission);
        let unknown = |op| doors::Event::Cache(Event { op, answer: ask.ended(End::Unknown).into() });
        let (op, deadline) = self.hosted.op(caller, patience, unknown);
        self.callers[caller].0.submit(Asked { op, deadline, submission });
        op
    }

    fn next_event(&mut self, by: Instant) -> Option<(usize, Event)> {
        let about = |event: &doors::Event| match event {
            doors::Event::Cache(event) => About::Answer(event.op),
            other => panic!("{other:?} is not of the cache"),
        };
        self.hosted.next_event(by, about).map(|(caller, event)| match event {
            doors::Event::Cache(event) => (caller, event),
            other => panic!("{other:?} is not of the cache"),
        })
    }

    fn grace(&self) -> Duration {
        GRACE
    }

    fn fault(&mut self, fault: Fault) -> bool {
        self.servers.befall(fault, &self.hosted)
    }
}

impl CacheService for Real {
    fn flush(&mut self) {
        self.other::<()>(&[&["FLUSHALL"]]);
    }

    fn soil(&mut self) {
        let keys: Vec<String> = self.other(&[&["KEYS", "*"]]).pop().unwrap();
        for key in &keys {
            self.other::<redis::Value>(&[&["DEL", key], &["RPUSH", key, "soil"]]);
        }
    }

    fn evict(&mut self) {
        let policy = ["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"];
        self.other::<()>(&[&policy, &["CONFIG", "SET", "maxmemory", "1"], &["CONFIG", "SET", "maxmemory", "0"]]);
    }

    fn has_replica(&self) -> bool {
        self.servers.has_replica()
    }

    fn lag(&mut self, on: bool) {
        self.servers.lag(on);
    }

    fn until_replicated(&mut self) {
        self.servers.until_replicated(&self.hosted);
    }
}

#[test]
fn sound() {
    let extent = Extent { cases: 64, steps: 32, longest_wait: Duration::from_millis(50), seed: seed() };
    cache::sound(&mut Real::new(), extent).expect(cache::SOUND);
}

#[test]
fn lives() {
    let extent = Extent { cases: 4, steps: 16, longest_wait: Duration::from_millis(5_500), seed: seed() };
    cache::lives(&mut Real::new(), extent).expect(&["a text's life", "half a text's life", "a load's life"]);
}

#[test]
fn under_faults() {
    let extent = Extent { cases: 8, steps: 12, longest_wait: Duration::from_secs(1), seed: seed() };
    cache::under_faults(&mut Real::new(), extent).expect_under_faults(cache::UNDER_FAULTS);
}

#[test]
fn on_a_cluster() {
    let extent = Extent { cases: 2, steps: 0, longest_wait: Duration::ZERO, seed: seed() };
    cache::primaries_lost(&mut Real::clustered(), extent).expect(cache::PRIMARIES_LOST);
}
