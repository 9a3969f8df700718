//! The bus's laws on NATS.

use crate::{
    hosted::{About, GRACE, Hosted},
    nats::Nats,
    process::{Behind, Place as _},
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
    behind: Behind<Nats>,
    callers: Vec<(Bus, Readiness)>,
    limits: Limits,
    cases: u64,
    base: u64,
}

const STREAM: &str = "WORLDLINE_FACTS";
impl Real {
    fn new(limits: Limits) -> Self {
        let (hosted, server) = (Hosted::new(), Nats::start(""));
        let to = server.url().trim_start_matches("nats://").parse().unwrap();
        let proxy = Proxy::new(&hosted.runtime, to);
        Self { hosted, behind: Behind::new(server, proxy), callers: vec![], limits, cases: 0, base: 0 }
    }

    fn close(&mut self) {
        for (bus, _) in std::mem::take(&mut self.callers) {
            self.hosted.runtime.block_on(bus.close());
        }
    }

    /// The stream as an operator sees it, once it is there.
    fn stream(&self) -> jetstream::stream::Stream {
        self.hosted.wait(Span::from_secs(60), async {
            loop {
                if let Ok(client) = async_nats::connect(self.behind.server.url()).await
                    && let Ok(stream) = jetstream::new(client).get_stream(STREAM).await
                {
                    return stream;
                }
                tokio::task::yield_now().await;
            }
        })
    }
}

impl Drop for Real {
    fn drop(&mut self) {
        self.behind.server.go_on();
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
                    let endpoints = vec![format!("nats://{}", self.behind.proxy.address).parse().unwrap()];
                    let (config, inbox) = (Config { endpoints }, self.hosted.inbox.clone());
                    (Bus::with_limits(config, self.limits, inbox, ready.clone()), ready)
                })
                .collect();
        }
        for (_, ready) in &self.callers {
            self.hosted.wait(Span::from_secs(60), ready.until_degraded(|lacks| lacks.is_empty()));
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
        self.behind.befall(fault, &self.hosted)
    }
}

impl BusService for Real {
    fn crowd(&self) -> u64 {
        self.cases
    }

    fn deduplication(&self) -> Duration {
        self.limits.deduplication
    }

    fn messages_max(&self) -> u64 {
        self.limits.messages
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
    let limits = Limits { messages: 12, deduplication: Duration::from_secs(3) };
    laws::lives(&mut Real::new(limits), extent).expect(laws::LIVES);
}

#[test]
fn under_faults() {
    let extent = Extent { cases: 16, steps: 16, longest_wait: Duration::ZERO, seed: seed() };
    laws::under_faults(&mut Real::new(Limits::default()), extent).expect_under_faults(laws::UNDER_FAULTS);
}
