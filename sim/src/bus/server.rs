//! The members' side of a request: from the member that its caller speaks with to the leader, and the answer's way back.

use super::{
    Item, Model, Request, Response, later,
    member::Waiter,
    proposal,
    stream::{Command, Name},
};
use crate::{
    Core,
    replication::{carry, reachable, retransmit_at},
};
use worldline_system::{
    Outcome, Refusal,
    doors::bus::{Answer, Ask, MessageId, Submission},
    limits::BUS_PAYLOAD_BYTES,
    outcome::End,
};

/// Callers that wait at the leader; one more is refused.
const WAITERS: usize = 8_192;

impl Model {
    /// A request has come in over the network: it goes on to the leader.
    pub(super) fn arrive(&mut self, core: &mut Core, request: Box<Request>) {
        let index = request.member;
        if self.members[index].life != request.life {
            let answer = Ask::from(&request.submission).ended(End::Unknown);
            let &Request { client, op, deadline, member, life, .. } = &*request;
            let response = Response { client, op, deadline, broken: Some((member, life)), answer };
            return self.respond(core, index, Box::new(response), 0);
        }
        self.counter += 1;
        if self.faults.loses_request(core, request.client, &request.submission, self.counter) {
            return;
        }
        match self.members[index].leader {
            Some(leader) if leader == index => self.serve(core, index, *request),
            Some(leader) => {
                let (here, there) = (self.members[index].node, self.members[leader].node);
                // To a leader that is gone and not yet missed it is lost.
                if let Some(delay) = carry(core, here, there) {
                    later(core, core.now() + delay, there, Item::Forwarded(leader, request));
                }
            }
            None => {
                let answer = refused(&request.submission, Refusal::NoStream);
                let &Request { client, op, deadline, .. } = &*request;
                self.respond(core, index, Box::new(Response { client, op, deadline, broken: None, answer }), 0);
            }
        }
    }

    /// A request has come to the member that leads, or did.
    pub(super) fn serve(&mut self, core: &mut Core, index: usize, request: Request) {
        let member = &self.members[index];
        if !member.is_leader() {
            return; // Nobody hears it.
        }
        if member.waiters.len() >= WAITERS {
            return self.reply(core, index, &request, refused(&request.submission, Refusal::Busy));
        }
        let command = match &request.submission {
            Submission::Publish { subject, message, after, payload } => {
                if payload.len() > BUS_PAYLOAD_BYTES {
                    let answer = refused(&request.submission, Refusal::Malformed);
                    return self.reply(core, index, &request, answer);
                }
                if self.is_staged(core, index, *message) {
                    let answer = refused(&request.submission, Refusal::Busy);
                    return self.reply(core, index, &request, answer);
                }
                Command::Publish {
                    subject: *subject,
                    message: *message,
                    after: *after,
                    payload: payload.clone(),
                    full: self.faults.full,
                    again: false,
                }
            }
            &Submission::Consume { durable, start } => {
                let name = durable.map_or(Name::Ephemeral(request.client, request.op), Name::Durable);
                Command::Consume { name, start }
            }
            &Submission::Acknowledge { consumer, through } => {
                match self.readers.get(&(request.client, consumer)).map(|reader| reader.name) {
                    Some(name) => Command::Acknowledge { name, through: through.0.min(self.delivered(name)) },
                    None => {
                        let answer = refused(&request.submission, Refusal::NotServing);
                        return self.reply(core, index, &request, answer);
                    }
                }
            }
            &Submission::Reject { consumer, sequence } => {
                let done = self.reject(core, request.client, consumer, sequence.0);
                let outcome = if done { Outcome::Done(()) } else { Outcome::Refused(Refusal::NotServing) };
                return self.reply(core, index, &request, Answer::Rejected(outcome));
            }
            Submission::Close(_) => return, // Ended at the caller's side.
        };
        self.propose(core, index, request, command);
    }

    /// Whether a leader has proposed this id already and not seen it stored; from now on it has. One that answers for itself
    /// alone proposes nothing.
    fn is_staged(&mut self, core: &Core, index: usize, message: MessageId) -> bool {
        let (now, alone) = (self.wall(core, index), self.members.len() == 1);
        if alone || self.stream.knows(message) {
            return false;
        }
        let Some(leading) = &mut self.members[index].leading else { return false };
        let since = leading.staged.get(&message);
        if since.is_some_and(|&since| now.since(since) < self.config.deduplication) {
            return true;
        }
        leading.staged.insert(message, now);
        false
    }

    /// From now on its effect may come at any time.
    fn propose(&mut self, core: &mut Core, index: usize, request: Request, command: Command) {
        let (id, at) = (self.number(), self.wall(core, index));
        let Request { client, op, deadline, member: via, ref submission, .. } = request;
        let ask = Ask::from(submission);
        self.members[index].waiters.insert(id, Waiter { client, via, op, deadline, ask });
        if !self.append(core, index, proposal(id, at, command)) {
            self.members[index].waiters.remove(&id);
            if let (Some(leading), Submission::Publish { message, .. }) = (&mut self.members[index].leading, submission)
            {
                leading.staged.remove(message);
            }
            self.reply(core, index, &request, ask.ended(End::Refused(Refusal::Busy)));
        }
    }

    /// Answers who waits at the leader under this number.
    pub(super) fn finish(&mut self, core: &mut Core, index: usize, number: u64, answer: Answer) {
        let Some(waiter) = self.members[index].waiters.remove(&number) else { return };
        let Waiter { client, via, op, deadline, ask } = waiter;
        if !self.faults.loses_answer(core, client, ask, number) {
            self.send_back(core, index, via, Response { client, op, deadline, broken: None, answer });
        }
    }

    fn reply(&mut self, core: &mut Core, index: usize, request: &Request, answer: Answer) {
        let &Request { client, op, deadline, member, .. } = request;
        self.counter += 1;
        if !self.faults.loses_answer(core, client, Ask::from(&request.submission), self.counter) {
            self.send_back(core, index, member, Response { client, op, deadline, broken: None, answer });
        }
    }

    /// From the leader to the member that the caller speaks with.
    fn send_back(&mut self, core: &mut Core, leader: usize, via: usize, response: Response) {
        if leader == via {
            return self.respond(core, via, Box::new(response), 0);
        }
        let (here, there) = (self.members[leader].node, self.members[via].node);
        if let Some(delay) = carry(core, here, there) {
            later(core, core.now() + delay, there, Item::Back(via, Box::new(response)));
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
            // Its routes are reset with it: the others know at once that their leader is gone.
            let node = self.members[index].node;
            for other in (0..self.members.len()).filter(|&other| other != index) {
                if self.members[other].leader == Some(index) && reachable(core, node, self.members[other].node) {
                    self.members[other].leader = None;
                }
            }
        }
        self.members[index].crash(power);
    }

    /// Every second: forgets who has given up waiting, and looks after connections.
    pub(super) fn sweep(&mut self, core: &mut Core) {
        let now = core.now();
        for member in &mut self.members {
            member.waiters.retain(|_, waiter| waiter.deadline > now);
        }
        self.sweep_clients(core);
    }
}

/// The answer that refuses a submission.
pub(super) fn refused(submission: &Submission, refusal: Refusal) -> Answer {
    Ask::from(submission).ended(End::Refused(refusal))
}
