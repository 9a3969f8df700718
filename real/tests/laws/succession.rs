//! Servers of a cache: one alone, or a primary with a replica that takes over from it. What Sentinel does, the test does.

use crate::{hosted::Hosted, process::Behind, process::Place, proxy::Proxy, valkey::Valkey};
use redis::{Cmd, FromRedisValue, RedisResult};
use std::{net::SocketAddr, time::Duration};
use worldline_laws::Fault;

/// Where a cache runs.
pub trait Servers: Place {
    /// The address of whoever takes writes.
    fn primary(&self) -> String;

    fn has_replica(&self) -> bool {
        false
    }

    fn lag(&mut self, _: bool) {}

    fn until_replicated(&self, _: &Hosted) {}
}

impl Servers for Behind<Valkey> {
    fn primary(&self) -> String {
        self.server.url()
    }
}

/// Asks a server as a client of its own.
pub async fn ask<T: FromRedisValue>(url: &str, commands: &[&[&str]]) -> RedisResult<Vec<T>> {
    let mut connection = redis::Client::open(url)?.get_multiplexed_async_connection().await?;
    let mut said = Vec::new();
    for command in commands {
        let mut call = Cmd::new();
        command.iter().for_each(|part| {
            call.arg(*part);
        });
        said.push(call.query_async(&mut connection).await?);
    }
    Ok(said)
}

/// Two servers.
pub struct Succession {
    servers: [Valkey; 2],
    /// Through which the other follows each.
    links: [Proxy; 2],
    primary: usize,
    /// What has befallen the other one.
    down: Option<Fault>,
}

/// A server is back by then, and has taken over what there is.
const BACK: Duration = Duration::from_secs(60);

impl Succession {
    pub fn new(hosted: &Hosted) -> Self {
        // Else a primary waits whether more than one replica comes.
        let at_once = ["--repl-diskless-sync-delay", "0"];
        let servers = [Valkey::start(&at_once), Valkey::start(&at_once)];
        let at = |server: &Valkey| SocketAddr::from(([127, 0, 0, 1], server.port));
        let links = [0, 1].map(|n: usize| Proxy::new(&hosted.runtime, at(&servers[n])));
        let two = Self { servers, links, primary: 0, down: None };
        two.follow(hosted);
        two
    }

    pub fn urls(&self) -> Vec<String> {
        self.servers.iter().map(Valkey::url).collect()
    }

    fn replica(&self) -> &Valkey {
        &self.servers[1 - self.primary]
    }

    /// The other one follows the primary from now on.
    fn follow(&self, hosted: &Hosted) {
        let port = self.links[self.primary].address.port().to_string();
        command(hosted, &self.replica().url(), &["REPLICAOF", "127.0.0.1", &port]);
    }
}

/// Until the server answers.
fn command(hosted: &Hosted, url: &str, command: &[&str]) {
    hosted.wait(BACK, async {
        while ask::<redis::Value>(url, &[command]).await.is_err() {
            tokio::task::yield_now().await;
        }
    });
}

impl Place for Succession {
    fn befall(&mut self, fault: Fault, hosted: &Hosted) -> bool {
        match fault {
            Fault::Kill | Fault::Stop if self.down.is_none() => {
                let lost = &mut self.servers[self.primary];
                if fault == Fault::Kill {
                    lost.kill()
                } else {
                    lost.stop()
                }
                self.primary = 1 - self.primary;
                self.down = Some(fault);
                command(hosted, &self.servers[self.primary].url(), &["REPLICAOF", "NO", "ONE"]);
            }
            Fault::Heal => {
                self.lag(false);
                let other = &mut self.servers[1 - self.primary];
                match self.down.take() {
                    Some(Fault::Kill) => other.restart(),
                    Some(_) => other.go_on(),
                    None => return true,
                }
                self.follow(hosted);
            }
            _ => return false,
        }
        true
    }
}

impl Servers for Succession {
    fn primary(&self) -> String {
        self.servers[self.primary].url()
    }

    fn has_replica(&self) -> bool {
        true
    }

    fn lag(&mut self, on: bool) {
        let fault = if on { Fault::LoseAnswers } else { Fault::Heal };
        for link in &self.links {
            link.befall(fault);
        }
    }

    fn until_replicated(&self, hosted: &Hosted) {
        let offset = async |url: &str, name: &str| {
            let told: Vec<String> = ask(url, &[&["INFO", "replication"]]).await.ok()?;
            let value = |name: &str| {
                let line = told[0].lines().find_map(|line| line.strip_prefix(name));
                line.map(|value| value.trim().to_owned())
            };
            let up = value("master_link_status:").is_none_or(|status| status == "up");
            up.then(|| value(name)).flatten()
        };
        let (primary, replica) = (self.primary(), self.replica().url());
        hosted.wait(BACK, async {
            loop {
                let has = offset(&replica, "slave_repl_offset:").await;
                if has.is_some() && has == offset(&primary, "master_repl_offset:").await {
                    return;
                }
                tokio::task::yield_now().await;
            }
        });
    }
}
