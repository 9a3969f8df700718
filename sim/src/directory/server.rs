//! A member's side of a request: what it answers itself, what it asks its leader for, what it proposes, and how an answer
//! finds its way back.

use super::{
    Item, Model, Request, Response, later,
    member::{Confirm, Message, Waiter},
    store::{Command, Proposal},
};
use crate::{Core, replication::retransmit_at};
use std::{collections::BTreeSet, sync::Arc};
use worldline_system::{
    Outcome, Refusal,
    doors::directory::{Answer, Consistency, Key, Submission, Transaction, Write},
    limits::{DIRECTORY_OPERATIONS, DIRECTORY_PAGE},
    time::Duration,
};

/// Callers that wait at one member; one more is refused.
const WAITERS: usize = 8_192;
/// The shortest lease: one and a half election timeouts, in whole seconds, as etcd raises shorter ones.
const TTL_MIN_SECS: u64 = 2;

impl Model {
    /// A request has come in over the network.
    pub(super) fn arrive(&mut self, core: &mut Core, request: Box<Request>) {
        let (now, node) = (core.now(), self.members[request.member].node);
        if now >= request.deadline {
            return; // The caller has cancelled its stream.
        }
        if self.members[request.member].life != request.life {
            let response = lost(&request);
            return self.respond(core, request.member, response, 0);
        }
        let held = self.faults.delay(request.client).unwrap_or_default();
        let takes = core.service_times.directory(&request.submission) + held;
        if takes == Duration::ZERO {
            self.serve(core, *request);
        } else {
            later(core, now + takes, node, Item::Handle(request));
        }
    }

    /// Looks at a request and does what can be done at once.
    pub(super) fn serve(&mut self, core: &mut Core, request: Request) {
        let index = request.member;
        if self.members[index].life != request.life {
            return; // It sat in a process that is gone.
        }
        if let Some(refusal) = self.refusal(&request) {
            let answer = refused(&request.submission, refusal);
            return self.reply(core, index, &request, answer);
        }
        match &request.submission {
            Submission::Watch { family, from } => {
                let (family, from) = (*family, *from);
                self.watch(core, &request, family, from);
            }
            Submission::Read { consistency: Consistency::Serializable, .. }
            | Submission::Get { consistency: Consistency::Serializable, .. } => {
                let answer = self.read(index, &request.submission);
                self.reply(core, index, &request, answer);
            }
            Submission::Read { .. } | Submission::Get { .. } => {
                self.query(core, request, |origin, query| Confirm::Read { origin, query });
            }
            &Submission::KeepAlive(lease) => {
                self.query(core, request, |origin, query| Confirm::Renew { origin, query, lease });
            }
            &Submission::Grant { lease, ttl } => {
                let command = Command::Grant { lease, ttl: whole_seconds(ttl) };
                self.propose(core, request, command);
            }
            &Submission::Revoke(lease) => self.propose(core, request, Command::Revoke(lease)),
            Submission::Transact(transaction) => {
                let command = Command::Transact(transaction.clone());
                self.propose(core, request, command);
            }
            Submission::Unwatch(_) => {} // Ended at the caller's side.
        }
    }

    /// Why a request is refused before anything is proposed.
    fn refusal(&self, request: &Request) -> Option<Refusal> {
        let member = &self.members[request.member];
        let alone = match &request.submission {
            Submission::Transact(transaction) => {
                if let Some(refusal) = malformed(transaction) {
                    return Some(refusal);
                }
                false
            }
            &Submission::Read { limit, .. } if limit == 0 || limit > DIRECTORY_PAGE => return Some(Refusal::Malformed),
            Submission::Read { consistency, .. } | Submission::Get { consistency, .. } => {
                *consistency == Consistency::Serializable
            }
            Submission::Watch { .. } | Submission::Unwatch(_) => true,
            Submission::Grant { .. } | Submission::KeepAlive(_) | Submission::Revoke(_) => false,
        };
        match () {
            () if alone => None,
            () if member.leader.is_none() => Some(Refusal::NoLeader),
            () if member.waiters.len() >= WAITERS => Some(Refusal::Busy),
            () => None,
        }
    }

    fn wait(&mut self, request: Request) -> u64 {
        self.counter += 1;
        let Request { client, op, deadline, member, submission, .. } = request;
        self.members[member].waiters.insert(self.counter, Waiter { client, op, deadline, submission });
        self.counter
    }

    /// Asks the leader for a confirmed leadership, here or over there.
    fn query(&mut self, core: &mut Core, request: Request, what: impl FnOnce(usize, u64) -> Confirm) {
        let index = request.member;
        let query = self.wait(request);
        let what = what(index, query);
        match self.members[index].leader {
            Some(leader) if leader == index => self.ask_leader(core, index, what),
            Some(leader) => {
                let message = match what {
                    Confirm::Renew { lease, .. } => Message::Renew { query, lease },
                    Confirm::Read { .. } | Confirm::Expire => Message::ReadIndex { query },
                };
                self.tell(core, index, leader, message);
            }
            None => unreachable!("it was refused"),
        }
    }

    /// Proposes a write, here or at the leader. From now on its effect may come at any time.
    fn propose(&mut self, core: &mut Core, request: Request, command: Command) {
        let index = request.member;
        let submission = request.submission.clone();
        let id = self.wait(request);
        let proposal = Arc::new(Proposal { id, command });
        match self.members[index].leader {
            Some(leader) if leader == index => {
                if !self.append(core, index, proposal) {
                    self.finish(core, index, id, refused(&submission, Refusal::Busy));
                }
            }
            Some(leader) => self.tell(core, index, leader, Message::Propose(proposal)),
            None => unreachable!("it was refused"),
        }
    }

    /// A linearizable read may be served: everything committed before it was asked is applied here.
    pub(super) fn serve_read(&mut self, core: &mut Core, index: usize, query: u64) {
        let Some(waiter) = self.members[index].waiters.get(&query) else { return };
        let submission = waiter.submission.clone();
        let answer = self.read(index, &submission);
        self.finish(core, index, query, answer);
    }

    /// What a member has applied.
    fn read(&self, index: usize, submission: &Submission) -> Answer {
        let reached = self.store.revision_at(self.members[index].applied);
        match *submission {
            Submission::Read { family, after, limit, at, .. } => {
                let at = at.unwrap_or(reached);
                Answer::Read(match self.store.readable(at, reached) {
                    Ok(()) => Outcome::Done(self.store.page(family, after, limit, at)),
                    Err(refusal) => Outcome::Refused(refusal),
                })
            }
            Submission::Get { key, .. } => Answer::Got(Outcome::Done((self.store.get(key, reached), reached))),
            _ => unreachable!("only reads are read"),
        }
    }

    /// Everything up to `commit` is applied at this member: who waits for it is answered, watches have news.
    pub(super) fn applied_up_to(&mut self, core: &mut Core, index: usize, commit: u64) {
        let from = self.members[index].applied + 1;
        if from > commit {
            return;
        }
        self.members[index].applied = commit;
        let mut changed = false;
        for at in from..=commit {
            let Some(effect) = self.store.effect(at) else { continue };
            changed |= !effect.changes.is_empty();
            if self.members[index].waiters.contains_key(&effect.proposal)
                && let Some(answer) = effect.answer.as_deref().cloned()
            {
                let proposal = effect.proposal;
                self.finish(core, index, proposal, answer);
            }
        }
        self.members[index].revision = self.store.revision_at(commit);
        self.members[index].log.trim(commit);
        let reads = std::mem::take(&mut self.members[index].reads);
        for (needed, query) in reads {
            if needed <= commit {
                self.serve_read(core, index, query);
            } else {
                self.members[index].reads.push((needed, query));
            }
        }
        if changed {
            self.push_all(core, index);
        }
    }

    /// Answers who waits at a member under this number.
    pub(super) fn finish(&mut self, core: &mut Core, index: usize, number: u64, answer: Answer) {
        let Some(waiter) = self.members[index].waiters.remove(&number) else { return };
        let Waiter { client, op, deadline, submission } = waiter;
        if !self.faults.swallows(core, client, &submission, number) {
            self.respond(core, index, Box::new(Response { client, op, deadline, broken: None, answer }), 0);
        }
    }

    pub(super) fn reply(&mut self, core: &mut Core, index: usize, request: &Request, answer: Answer) {
        let &Request { client, op, deadline, .. } = request;
        self.counter += 1;
        if !self.faults.swallows(core, client, &request.submission, self.counter) {
            self.respond(core, index, Box::new(Response { client, op, deadline, broken: None, answer }), 0);
        }
    }

    /// An answer leaves its member; what is lost on the way is sent again until its caller has given up.
    pub(super) fn respond(&mut self, core: &mut Core, index: usize, response: Box<Response>, attempt: u8) {
        let (now, node, client) = (core.now(), self.members[index].node, response.client);
        if now > response.deadline || core.incarnation(client) != response.op.incarnation {
            return;
        }
        match core.hop(node, client) {
            Some(delay) => later(core, now + delay, client, Item::Answer(response)),
            None => {
                let again = Item::Respond(index, response, attempt.saturating_add(1));
                later(core, retransmit_at(now, attempt), node, again);
            }
        }
    }

    pub(super) fn member_crashed(&mut self, core: &mut Core, index: usize, power: bool) {
        if !power {
            self.reset_connections(core, index);
        }
        self.members[index].crash(power);
    }

    pub(super) fn member_started(&mut self, core: &mut Core, index: usize) {
        let applied = self.store.applied();
        self.members[index].restart(core.now(), applied);
        self.members[index].revision = self.store.revision_at(self.members[index].applied);
    }

    /// Every second: forgets who has given up waiting, and looks after connections.
    pub(super) fn sweep(&mut self, core: &mut Core) {
        let now = core.now();
        for member in &mut self.members {
            member.waiters.retain(|_, waiter| waiter.deadline > now);
            let waiters = &member.waiters;
            member.reads.retain(|(_, query)| waiters.contains_key(query));
        }
        self.sweep_clients(core);
        self.sweep_watches(core);
    }
}

/// etcd counts time to live in whole seconds and raises what is below its minimum.
fn whole_seconds(ttl: Duration) -> Duration {
    Duration::from_secs(ttl.as_nanos().div_ceil(1_000_000_000).max(TTL_MIN_SECS))
}

/// What a server refuses without looking at its state.
fn malformed(transaction: &Transaction) -> Option<Refusal> {
    let Transaction { compares, writes, otherwise } = transaction;
    if [compares.len(), writes.len(), otherwise.len()].into_iter().any(|count| count > DIRECTORY_OPERATIONS) {
        return Some(Refusal::TooManyOperations);
    }
    let keys: BTreeSet<Key> = writes
        .iter()
        .map(|write| match write {
            Write::Put { key, .. } | Write::Delete(key) => *key,
        })
        .collect();
    (keys.len() < writes.len()).then_some(Refusal::Malformed)
}

/// The answer that refuses a submission.
pub(super) fn refused(submission: &Submission, refusal: Refusal) -> Answer {
    ended(submission, Some(refusal))
}

fn ended(submission: &Submission, refusal: Option<Refusal>) -> Answer {
    fn outcome<T>(refusal: Option<Refusal>) -> Outcome<T> {
        refusal.map_or(Outcome::Unknown, Outcome::Refused)
    }
    match submission {
        Submission::Grant { .. } => Answer::Granted(outcome(refusal)),
        Submission::KeepAlive(_) => Answer::KeptAlive(outcome(refusal)),
        Submission::Revoke(_) => Answer::Revoked(outcome(refusal)),
        Submission::Transact(_) => Answer::Transacted(outcome(refusal)),
        Submission::Read { .. } => Answer::Read(outcome(refusal)),
        Submission::Get { .. } => Answer::Got(outcome(refusal)),
        Submission::Watch { .. } => Answer::Watching(outcome(refusal)),
        Submission::Unwatch(_) => Answer::Unwatched(outcome(refusal)),
    }
}

/// The answer to a submission whose connection broke after it was sent.
pub(super) fn unknown(submission: &Submission) -> Answer {
    ended(submission, None)
}

fn lost(request: &Request) -> Box<Response> {
    let &Request { client, op, deadline, member, life, .. } = request;
    let answer = unknown(&request.submission);
    Box::new(Response { client, op, deadline, broken: Some((member, life)), answer })
}
