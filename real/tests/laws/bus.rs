//! The bus's laws on NATS.

use crate::{
    cluster::{Cluster, Kind, Leading},
    hosted::{About, GRACE, Hosted},
    nats::Nats,
    process::{Behind, Place},
    proxy::Proxy,
};
use async_nats::jetstream;
use std::time::Duration as Span;
use worldline_laws::{
    Extent, Fault, Service,
    bus::{self as laws, Bus as Door, BusService},
    seed,
    service::CALLERS,
};
use worldline_proto::OpId;
use worldline_real::{
    bus::{Bus, Config, Limits},
    clock,
    ready::Readiness,
};
use worldline_system::{
    doors::{
        self, Asked,
        bus::{Ask, Event, Submission},
    },
    outcome::End,
    time::{Duration, Instant},
};

struct Real {
    hosted: Hosted,
    place: Box<dyn Place>,
    /// As the callers reach it, and around whatever stands between.
    through: Vec<String>,
    direct: Vec<String>,
    callers: Vec<(Bus, Readiness)>,
    limits: Limits,
    cases: u64,
    base: u64,
}

const STREAM: &str = "WORLDLINE_FACTS";
/// The length of what is published where bytes are few: what it takes besides is much less.
const EACH_BYTES: usize = 16_000;

impl Real {
    fn new(limits: Limits) -> Self {
        let (hosted, server) = (Hosted::new(), Nats::start(""));
        let to = server.url().trim_start_matches("nats://").parse().unwrap();
        let proxy = Proxy::new(&hosted.runtime, to);
        let (through, direct) = (vec![format!("nats://{}", proxy.address)], vec![server.url()]);
        Self::at(hosted, Box::new(Behind::new(server, proxy)), through, direct, limits)
    }

    /// Three servers with the stream on each, whose leader is lost.
    fn clustered() -> Self {
        let place = Leading::new(Kind::Nats, leader);
        let urls = place.cluster.urls(Kind::Nats, "nats");
        Self::at(Hosted::new(), Box::new(place), urls.clone(), urls, Limits::default())
    }

    fn at(hosted: Hosted, place: Box<dyn Place>, through: Vec<String>, direct: Vec<String>, limits: Limits) -> Self {
        Self { hosted, place, through, direct, callers: vec![], limits, cases: 0, base: 0 }
    }

    fn close(&mut self) {
        for (bus, _) in std::mem::take(&mut self.callers) {
            self.hosted.runtime.block_on(bus.close());
        }
    }

    /// The stream as an operator sees it, once it is there.
    fn stream(&self) -> jetstream::stream::Stream {
        self.hosted.wait(Span::from_secs(60), stream(&self.direct))
    }
}

async fn stream(urls: &[String]) -> jetstream::stream::Stream {
    loop {
        if let Ok(client) = async_nats::connect(urls).await
            && let Ok(stream) = jetstream::new(client).get_stream(STREAM).await
        {
            return stream;
        }
        tokio::task::yield_now().await;
    }
}

/// Which server leads the stream, once one does.
fn leader(hosted: &Hosted, cluster: &Cluster) -> usize {
    let urls = cluster.urls(Kind::Nats, "nats");
    hosted.wait(Span::from_secs(60), async {
        loop {
            let leader = stream(&urls).await.cached_info().cluster.as_ref().and_then(|cluster| cluster.leader.clone());
            let known = leader.and_then(|leader| Kind::Nats.names().iter().position(|name| *name == leader));
            if let Some(n) = known {
                return n;
            }
        }
    })
}

impl Drop for Real {
    fn drop(&mut self) {
        self.fault(Fault::Heal);
        self.close();
    }
}

impl Service<Door> for Real {
    fn begin(&mut self) {
        // A case that failed may have left its fault behind. Whoever was there has consumers.
        self.fault(Fault::Heal);
        self.close();
        self.cases += 1;
        {
            let _inside = self.hosted.runtime.enter();
            self.callers = (0..CALLERS)
                .map(|_| {
                    let ready = Readiness::default();
                    let endpoints = self.through.iter().map(|url| url.parse().unwrap()).collect();
                    let (config, inbox) = (Config { endpoints }, self.hosted.inbox.clone());
                    (Bus::with_limits(config, self.limits, inbox, ready.clone()), ready)
                })
                .collect();
        }
        for (_, ready) in &self.callers {
            self.hosted.until_served(ready);
        }
        let stream = self.stream();
        self.base = self.hosted.runtime.block_on(async {
            stream.purge().await.unwrap();
            let info = stream.get_info().await.unwrap();
            info.state.last_sequence
        });
    }

    fn now(&self) -> Instant {
        clock::now()
    }

    fn submit(&mut self, caller: usize, patience: Duration, submission: Submission) -> OpId {
        let ask = Ask::from(&submission);
        let unknown = |op| doors::Event::Bus(Event::Answered { op, answer: ask.ended(End::Unknown).into() });
        let (op, deadline) = self.hosted.op(caller, patience, unknown);
        let _inside = self.hosted.runtime.enter();
        self.callers[caller].0.submit(Asked { op, deadline, submission });
        op
    }

    fn next_event(&mut self, by: Instant) -> Option<(usize, Event)> {
        let about = |event: &doors::Event| match event {
            doors::Event::Bus(Event::Answered { op, .. }) => About::Answer(*op),
            doors::Event::Bus(Event::Delivered { consumer, .. } | Event::Gap { consumer, .. }) => {
                About::News(*consumer)
            }
            other => panic!("{other:?} is not of the bus"),
        };
        self.hosted.next_event(by, about).map(|(caller, event)| match event {
            doors::Event::Bus(event) => (caller, event),
            other => panic!("{other:?} is not of the bus"),
        })
    }

    fn grace(&self) -> Duration {
        GRACE
    }

    fn fault(&mut self, fault: Fault) -> bool {
        self.place.befall(fault, &self.hosted)
    }
}

impl BusService for Real {
    fn crowd(&self) -> u64 {
        self.cases
    }

    fn deduplication(&self) -> Duration {
        self.limits.deduplication
    }

    fn is_clustered(&self) -> bool {
        self.direct.len() > 1
    }

    fn messages_max(&self) -> u64 {
        let each = self.payload_bytes().map_or(1, |bytes| bytes as u64);
        self.limits.messages.min(self.limits.bytes / each)
    }

    fn age(&self) -> Duration {
        self.limits.age
    }

    fn until_empty(&mut self) {
        let stream = self.stream();
        self.hosted.wait(Span::from_secs(60), async {
            while stream.get_info().await.map_or(true, |info| info.state.messages > 0) {
                tokio::task::yield_now().await;
            }
        });
    }

    fn payload_bytes(&self) -> Option<usize> {
        (self.limits.bytes < Limits::default().bytes).then_some(EACH_BYTES)
    }

    fn base(&self) -> u64 {
        self.base
    }
}

#[test]
fn sound() {
    let extent = Extent { cases: 32, steps: 32, longest_wait: Duration::ZERO, seed: seed() };
    laws::sound(&mut Real::new(Limits::default()), extent).expect(laws::SOUND);
}

#[test]
fn lives() {
    let extent = Extent { cases: 6, steps: 24, longest_wait: Duration::from_millis(5_500), seed: seed() };
    let limits = Limits { messages: 12, deduplication: Duration::from_secs(3), ..Limits::default() };
    laws::lives(&mut Real::new(limits), extent).expect(laws::LIVES);
}

#[test]
fn limits() {
    let extent = Extent { cases: 3, steps: 24, longest_wait: Duration::ZERO, seed: seed() };
    let (age, deduplication) = (Duration::from_secs(4), Duration::from_secs(1));
    let limits = Limits { bytes: 168_000, age, deduplication, ..Limits::default() };
    laws::limits(&mut Real::new(limits), extent).expect(laws::LIMITS);
}

#[test]
fn under_faults() {
    let extent = Extent { cases: 16, steps: 16, longest_wait: Duration::ZERO, seed: seed() };
    laws::under_faults(&mut Real::new(Limits::default()), extent).expect_under_faults(laws::UNDER_FAULTS);
}

#[test]
fn on_a_cluster() {
    let extent = Extent { cases: 3, steps: 9, longest_wait: Duration::ZERO, seed: seed() };
    laws::leaders_lost(&mut Real::clustered(), extent).expect(laws::LEADERS_LOST);
}
