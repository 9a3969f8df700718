//! The process of a service: how it is killed, stopped and brought back, whichever service it is.

use crate::{etcd::Etcd, hosted::Hosted, nats::Nats, postgres::Postgres, proxy::Proxy, valkey::Valkey};
use worldline_laws::Fault;

/// What can be done to one.
pub trait Process {
    fn kill(&mut self);
    fn stop(&mut self);
    fn go_on(&mut self);
    fn restart(&mut self);
}

macro_rules! process {
    ($($server:ty),*) => {$(
        impl Process for $server {
            fn kill(&mut self) {
                <$server>::kill(self);
            }

            fn stop(&mut self) {
                <$server>::stop(self);
            }

            fn go_on(&mut self) {
                <$server>::go_on(self);
            }

            fn restart(&mut self) {
                <$server>::restart(self);
            }
        }
    )*};
}
process!(Etcd, Nats, Postgres, Valkey);

/// A service as a fault finds it, wherever it runs.
pub trait Place {
    /// The fault happens to it, or ends. `false` where it cannot be brought about here.
    fn befall(&mut self, fault: Fault, hosted: &Hosted) -> bool;
}

/// A service behind its proxy.
pub struct Behind<S> {
    pub server: S,
    pub proxy: Proxy,
    killed: bool,
}

impl<S: Process> Behind<S> {
    pub fn new(server: S, proxy: Proxy) -> Self {
        Self { server, proxy, killed: false }
    }
}

impl<S: Process> Place for Behind<S> {
    fn befall(&mut self, fault: Fault, _: &Hosted) -> bool {
        match fault {
            Fault::Kill => {
                self.server.kill();
                self.killed = true;
            }
            Fault::Stop => self.server.stop(),
            Fault::Heal => {
                if std::mem::take(&mut self.killed) {
                    self.server.restart();
                }
                self.server.go_on();
                self.proxy.befall(fault);
            }
            _ => return self.proxy.befall(fault),
        }
        true
    }
}
