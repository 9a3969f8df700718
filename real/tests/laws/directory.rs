//! The directory's laws on etcd.

use crate::{
    cluster::{Cluster, Kind, Leading},
    etcd::Etcd,
    hosted::{About, GRACE, Hosted},
    process::{Behind, Place},
    proxy::Proxy,
};
use std::time::Duration as Span;
use worldline_laws::{
    Extent, Fault, Service,
    directory::{self as laws, Directory as Door, DirectoryService},
    seed,
    service::CALLERS,
};
use worldline_proto::OpId;
use worldline_real::{
    clock,
    directory::{Config, Directory},
    ready::Readiness,
};
use worldline_system::{
    doors::{
        self, Asked,
        directory::{Ask, Event, Submission},
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
    callers: Vec<(Directory, Readiness)>,
}

impl Real {
    fn new() -> Self {
        let (hosted, server) = (Hosted::new(), Etcd::start(&[]));
        let to = server.url().trim_start_matches("http://").parse().unwrap();
        let proxy = Proxy::new(&hosted.runtime, to);
        let (through, direct) = (vec![format!("http://{}", proxy.address)], vec![server.url()]);
        Self { hosted, place: Box::new(Behind::new(server, proxy)), through, direct, callers: vec![] }
    }

    /// Three members, whose leader is lost.
    fn clustered() -> Self {
        let place = Leading::new(Kind::Etcd, leader);
        let urls = place.cluster.urls(Kind::Etcd, "http");
        Self { hosted: Hosted::new(), place: Box::new(place), through: urls.clone(), direct: urls, callers: vec![] }
    }

    /// A client of etcd's own, for what no role does.
    fn etcd(&self) -> etcd_client::Client {
        self.hosted.wait(Span::from_secs(60), async {
            loop {
                if let Ok(mut client) = etcd_client::Client::connect(&self.direct, None).await
                    && client.status().await.is_ok()
                {
                    return client;
                }
                tokio::task::yield_now().await;
            }
        })
    }

    fn close(&mut self) {
        for (directory, _) in std::mem::take(&mut self.callers) {
            self.hosted.runtime.block_on(directory.close());
        }
    }
}

/// Which member leads, once one does.
fn leader(hosted: &Hosted, cluster: &Cluster) -> usize {
    let urls = cluster.urls(Kind::Etcd, "http");
    hosted.wait(Span::from_secs(60), async {
        loop {
            for (n, url) in urls.iter().enumerate() {
                if let Ok(mut client) = etcd_client::Client::connect([url], None).await
                    && let Ok(status) = client.status().await
                    && status.header().is_some_and(|header| header.member_id() == status.leader())
                {
                    return n;
                }
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
        // A case that failed may have left its fault behind. Whoever was there has watches.
        self.fault(Fault::Heal);
        self.close();
        let mut client = self.etcd();
        self.hosted.runtime.block_on(async {
            let all = etcd_client::DeleteOptions::new().with_prefix();
            client.delete("/worldline/", Some(all)).await.unwrap();
            for lease in client.leases().await.unwrap().leases() {
                client.lease_revoke(lease.id()).await.unwrap();
            }
        });
        let _inside = self.hosted.runtime.enter();
        self.callers = (0..CALLERS)
            .map(|_| {
                let ready = Readiness::default();
                let endpoints = self.through.iter().map(|url| url.parse().unwrap()).collect();
                (Directory::new(Config { endpoints }, self.hosted.inbox.clone(), ready.clone()), ready)
            })
            .collect();
        for (_, ready) in &self.callers {
            self.hosted.wait(Span::from_secs(60), ready.until(|problems| problems.is_empty()));
        }
    }

    fn now(&self) -> Instant {
        clock::now()
    }

    fn submit(&mut self, caller: usize, patience: Duration, submission: Submission) -> OpId {
        let ask = Ask::from(&submission);
        let unknown = |op| doors::Event::Directory(Event::Answered { op, answer: ask.ended(End::Unknown).into() });
        let (op, deadline) = self.hosted.op(caller, patience, unknown);
        let _inside = self.hosted.runtime.enter();
        self.callers[caller].0.submit(Asked { op, deadline, submission });
        op
    }

    fn next_event(&mut self, by: Instant) -> Option<(usize, Event)> {
        let about = |event: &doors::Event| match event {
            doors::Event::Directory(Event::Answered { op, .. }) => About::Answer(*op),
            doors::Event::Directory(Event::Changed { watch, .. } | Event::Gap { watch, .. }) => About::News(*watch),
            other => panic!("{other:?} is not of the directory"),
        };
        self.hosted.next_event(by, about).map(|(caller, event)| match event {
            doors::Event::Directory(event) => (caller, event),
            other => panic!("{other:?} is not of the directory"),
        })
    }

    fn grace(&self) -> Duration {
        GRACE
    }

    fn fault(&mut self, fault: Fault) -> bool {
        self.place.befall(fault, &self.hosted)
    }
}

impl DirectoryService for Real {
    fn compact(&mut self) {
        let mut client = self.etcd();
        self.hosted.runtime.block_on(async {
            let revision = client.get("/worldline/", None).await.unwrap().header().unwrap().revision();
            // It may have been compacted there already.
            drop(client.compact(revision, None).await);
        });
    }
}

#[test]
fn sound() {
    let extent = Extent { cases: 48, steps: 28, longest_wait: Duration::ZERO, seed: seed() };
    laws::sound(&mut Real::new(), extent).expect(laws::SOUND);
}

#[test]
fn leases() {
    let extent = Extent { cases: 4, steps: 20, longest_wait: Duration::from_millis(1_500), seed: seed() };
    laws::leases(&mut Real::new(), extent).expect(laws::LEASES);
}

#[test]
fn under_faults() {
    let extent = Extent { cases: 16, steps: 12, longest_wait: Duration::ZERO, seed: seed() };
    laws::under_faults(&mut Real::new(), extent).expect_under_faults(laws::UNDER_FAULTS);
}

#[test]
fn on_a_cluster() {
    let extent = Extent { cases: 3, steps: 9, longest_wait: Duration::ZERO, seed: seed() };
    laws::leaders_lost(&mut Real::clustered(), extent).expect(&["killed", "stopped", "watched"]);
}
