//! What can be done to a running world from outside.

use super::{World, life};
use crate::{
    bus, cache,
    faults::{Deed, Effect, Loss, Service, Target},
    processes::{Failed, Process},
    stage::Folder,
};
use rustix::process::Signal;
use worldline_proto::NodeId;
use worldline_real::clock;
use worldline_scenarios::nodes::Nodes;
use worldline_system::history::What;

impl World<'_> {
    /// Does what a fault demands, and says whether anything is otherwise for it.
    ///
    /// # Errors
    /// What cannot be started again.
    pub async fn act(&mut self, deed: &Deed, folder: &Folder) -> Result<Effect, Failed> {
        let dead = |nodes: &Nodes, target: &Target| format!("{} does not run", target.name(nodes));
        if let Deed::Crash(target)
        | Deed::Kill(target)
        | Deed::Stop(target)
        | Deed::Restart(target)
        | Deed::Pause(target) = deed
        {
            self.finished(*target).await?;
        }
        Ok(match deed {
            Deed::Crash(target) => {
                self.members.node(*target).into_iter().for_each(|node| self.links.crashed(node));
                let killed = self.kill(*target, folder).await;
                Effect::of(killed, || dead(&self.nodes, target))
            }
            // Whether it hits anything, its end tells.
            Deed::CrashBetweenTransactions(node, count) => {
                self.links.transactions().end_behind(*node, *count);
                let runs = self.processes.get(node).is_some_and(Process::runs);
                Effect::of(runs, || dead(&self.nodes, &Target::Role(*node)))
            }
            Deed::Kill(target) => {
                let killed = self.kill(*target, folder).await;
                Effect::of(killed, || dead(&self.nodes, target))
            }
            Deed::Stop(target) => {
                self.look_at(*target, folder);
                let asked = match target {
                    Target::Role(node) => self.processes.get_mut(node).is_some_and(Process::ask_to_stop),
                    Target::Service(_) | Target::Member(_) => self.kill(*target, folder).await,
                };
                Effect::of(asked, || dead(&self.nodes, target))
            }
            Deed::Restart(target) => {
                let killed = self.kill(*target, folder).await;
                self.start_again(*target)?;
                Effect::of(killed, || format!("{}: it is only started", dead(&self.nodes, target)))
            }
            Deed::StartIfDead(target) => {
                self.start_again(*target)?;
                Effect::Hit
            }
            Deed::Pause(target) => {
                self.look_at(*target, folder);
                let paused = self.signal(*target, Signal::STOP);
                Effect::of(paused, || format!("{}, or is stopped already", dead(&self.nodes, target)))
            }
            Deed::Resume(target) => {
                self.signal(*target, Signal::CONT);
                if self.members.node(*target).is_some_and(|node| self.primary.deposed.contains(&node)) {
                    self.start_again(*target)?;
                }
                Effect::Hit
            }
            Deed::Cut { id, from, to, both } => self.links.cut(*id, from, to, *both),
            Deed::Degrade { id, from, to, both, how } => self.links.degrade(*id, from, to, *both, *how),
            Deed::Mend(id) => {
                self.links.mend(*id);
                Effect::Hit
            }
            // What these hit, their end tells.
            Deed::LoseAnswers { from, permille, count } => {
                self.links.statements().lose_answers(*from, *permille, *count);
                Effect::Hit
            }
            Deed::LoseConnections(permille, when) => {
                self.links.statements().lose_connections(*permille, *when);
                Effect::Hit
            }
            Deed::DelayCommits(from, by) => {
                self.links.statements().delay_commits(*from, *by);
                Effect::Hit
            }
            Deed::HandOver(service) => self.hand_over(*service).await,
            Deed::Revoke(lease) => match self.directory.revoke(*lease).await {
                Ok(_) => Effect::Hit,
                Err(why) => Effect::Nothing(format!("lease {lease} was not revoked: {why}")),
            },
            // It writes no history, so it is not counted among the lives that must have one.
            Deed::Command(node) => match self.processes.get_mut(node) {
                Some(process) => {
                    process.start()?;
                    Effect::Hit
                }
                None => Effect::Nothing(format!("{} has no process", self.nodes.name(*node))),
            },
            Deed::Compact => match self.directory.compact().await {
                Ok(_) => Effect::Hit,
                Err(why) => Effect::Nothing(format!("etcd was not compacted: {why}")),
            },
            // What it hits, its end tells.
            Deed::Requests(harm) => {
                self.links.requests().harm(*harm);
                Effect::Hit
            }
            Deed::Disconnect(from) => {
                Effect::of(self.links.requests().disconnect(*from), || "nobody was connected to NATS".to_owned())
            }
            Deed::ForgetNames => {
                self.links.requests().forget_names();
                Effect::Hit
            }
            Deed::Rewind(by) => of_consumers(bus::rewind(&self.bus(), *by).await),
            Deed::EndConsumers => of_consumers(bus::end_consumers(&self.bus()).await),
            Deed::Cache(region, loss) => self.lose(*region, *loss).await,
        })
    }

    /// Ends a process of which the link to the directory has seen the place that a fault waits for.
    ///
    /// # Errors
    /// What cannot be started again.
    pub async fn end_between_transactions(&mut self, node: NodeId, folder: &Folder) -> Result<(), Failed> {
        let crash = Deed::Crash(Target::Role(node));
        let effect = self.act(&crash, folder).await?;
        self.links.transactions().ended(effect == Effect::Hit);
        self.news.push(match effect {
            Effect::Hit => format!("{}, between two of its transactions", crash.told(&self.nodes)),
            Effect::Nothing(why) => why,
        });
        Ok(())
    }

    /// Takes or spoils entries of a region's cache, or of all.
    async fn lose(&self, region: Option<usize>, loss: Loss) -> Effect {
        let (mut lost, mut why) = (0, "there was nothing in it".to_owned());
        for service in self.members.services().filter(|service| matches!(service, Service::Cache(_))) {
            if region.is_some_and(|region| service != Service::Cache(region)) {
                continue;
            }
            for node in self.members.of_service(service) {
                match cache::lose(self.services.address(node), loss, self.seed).await {
                    Ok(count) => lost += count,
                    Err(error) => why = format!("{} says: {error}", Target::Service(service).name(&self.nodes)),
                }
            }
        }
        Effect::of(lost > 0, || why)
    }

    /// Whether it was this that ended it.
    async fn kill(&mut self, target: Target, folder: &Folder) -> bool {
        match target {
            Target::Role(node) => {
                let Some(process) = self.processes.get_mut(&node) else { return false };
                // What it still writes until it is gone is put before this.
                let at = clock::now();
                match process.kill().await {
                    Ok(true) => {
                        self.seen.push((at, node, life(folder, node), What::Crashed));
                        true
                    }
                    Ok(false) => false,
                    Err(complaint) => {
                        self.ended_by_itself(node, complaint, folder);
                        false
                    }
                }
            }
            Target::Service(_) | Target::Member(_) => {
                self.look_at(target, folder);
                let Some(node) = self.members.node(target) else { return false };
                self.paused.remove(&node);
                self.services.kill(node)
            }
        }
    }

    /// Waits until nothing is under way with a server: what befalls it next befalls one that runs.
    async fn finished(&mut self, target: Target) -> Result<(), Failed> {
        while self.members.node(target).is_some_and(|node| self.services.is_asked_for(node)) {
            self.next_done().await?;
        }
        Ok(())
    }

    /// A role's process starts; a server's is asked for.
    fn start_again(&mut self, target: Target) -> Result<(), Failed> {
        let Some(node) = self.members.node(target) else { return Ok(()) };
        self.links.started(node);
        // Another was promoted for it: it comes back when that one runs.
        if self.primary.deposed.contains(&node) {
            self.primary.returning.insert(node);
            return Ok(());
        }
        match target {
            Target::Role(_) => match self.processes.get(&node) {
                Some(process) if !process.is_up() => self.start_one(node),
                _ => Ok(()),
            },
            Target::Service(_) | Target::Member(_) => {
                self.services.start_again(&[node]);
                Ok(())
            }
        }
    }

    /// Stops or continues it. Whether that changes anything.
    fn signal(&mut self, target: Target, signal: Signal) -> bool {
        match target {
            Target::Role(node) => self.processes.get_mut(&node).is_some_and(|process| process.signal(signal)),
            Target::Service(_) | Target::Member(_) => {
                let Some(node) = self.members.node(target) else { return false };
                let there = self.services.signal(node, signal);
                let changed = match signal {
                    Signal::STOP if there => self.paused.insert(node),
                    _ => self.paused.remove(&node),
                };
                there && changed
            }
        }
    }

    /// Ends every fault. Roles that are dead stay dead; the services are asked for, a primary that another was promoted for as a copy
    /// of that one.
    pub fn heal(&mut self) {
        self.links.heal(self.scenario.faults.len());
        let servers = self.members.servers().map(|server| server.node);
        let (deposed, servers): (Vec<NodeId>, Vec<NodeId>) =
            servers.partition(|node| self.primary.deposed.contains(node));
        for &node in servers.iter().chain(&deposed) {
            self.signal(Target::Member(node), Signal::CONT);
            self.links.started(node);
        }
        self.primary.returning.extend(deposed);
        self.services.start_again(&servers);
        for process in self.processes.values_mut() {
            process.signal(Signal::CONT);
        }
    }
}

/// What came of something that was done to consumers.
fn of_consumers(done: Result<usize, String>) -> Effect {
    match done {
        Ok(count) => Effect::of(count > 0, || "the stream has no consumer".to_owned()),
        Err(why) => Effect::Nothing(format!("NATS says: {why}")),
    }
}
