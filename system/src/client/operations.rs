//! Operations: numbered without gaps, kept until they are answered, sent again under the same number.

use super::{Client, Conduct, Stage, Submission, Timer, send, telemetry::root};
use crate::{
    Turn,
    digest::digest,
    doors::{network::StreamClass, telemetry::SpanId},
    history::Note,
    limits, reached,
    time::{Duration, Instant},
    wire,
};
use alloc::{collections::VecDeque, vec::Vec};
use worldline_proto::{
    Digest, EntityId, EntityKind, OpNumber,
    client::{Answer, Perform, client_frame, operation_result},
};

/// How long an answer may take before its operation is sent again.
const RESEND_AFTER: Duration = Duration::from_millis(1_500);

/// What a client has asked for.
#[derive(Clone, Debug, Default)]
pub(super) struct Operations {
    /// The last number that was used.
    last: OpNumber,
    pending: VecDeque<Pending>,
    /// The last number that has a result, with its payload's digest: what a cheat uses again.
    answered: Option<OpNumber>,
}

#[derive(Clone, Debug)]
struct Pending {
    number: OpNumber,
    action: Vec<u8>,
    digest: Digest,
    /// When it was last sent in this session.
    sent: Option<Instant>,
    /// When the blow was struck. `None` of a number that a cheat uses again.
    begun: Option<Instant>,
}

impl Operations {
    pub fn outstanding(&self) -> usize {
        self.pending.len()
    }

    /// A session begins: the ledger has results up to `applied_through`. Whatever this process has not sent itself goes on
    /// behind that.
    pub fn resume(&mut self, applied_through: OpNumber) {
        self.last = self.last.max(applied_through);
        for pending in &mut self.pending {
            pending.sent = None;
        }
    }
}

impl Client {
    /// A blow is due.
    pub(super) fn strike(&mut self, turn: &mut Turn<'_, Submission>) {
        if !self.at_play(turn.now()) || !self.playing() {
            return;
        }
        turn.arm_in(Timer::Strike, self.config.attacks_every);
        let Some(target) = self.config.target else { return };
        if self.operations.outstanding() >= limits::CLIENT_WINDOW {
            return;
        }
        if self.config.conduct == Conduct::ReusesNumbers && self.operations.outstanding() + 1 < limits::CLIENT_WINDOW {
            self.reuse_a_number();
        }
        let action = wire::encode_attack(target);
        let (number, digest) = (self.operations.last.next(), digest(&action));
        self.operations.last = number;
        turn.note(Note::Performed { character: self.config.character, number, digest });
        self.operations.pending.push_back(Pending { number, action, digest, sent: None, begun: Some(turn.now()) });
        self.resend(turn);
    }

    /// Sends what was not sent yet; and once the first has waited too long for its answer, everything behind it too, since an
    /// owner refuses whatever comes behind a gap. In the order of the numbers.
    pub(super) fn resend(&mut self, turn: &mut Turn<'_, Submission>) {
        let Stage::Playing(connection) = self.stage else { return };
        let now = turn.now();
        let first = self.operations.pending.front().and_then(|pending| pending.sent);
        let again = first.is_some_and(|sent| now.since(sent) >= RESEND_AFTER);
        if let Some(pending) = self.operations.pending.front().filter(|_| again) {
            turn.note(Note::Resent { character: self.config.character, from: pending.number });
        }
        for pending in &mut self.operations.pending {
            match pending.sent {
                Some(_) if !again => continue,
                Some(_) => reached!(turn, "client.resent"),
                None => {}
            }
            pending.sent = Some(now);
            let span = pending.begun.map(|_| root(self.config.character, pending.number).1);
            let perform =
                Perform { number: pending.number.0, action: pending.action.clone(), span: SpanId::to_wire(span) };
            send(connection, StreamClass::Action, client_frame::Frame::Perform(perform), turn);
        }
        if !self.operations.pending.is_empty() {
            // Half of it, so that none waits much longer than it should; jitter keeps a crowd apart.
            let jitter = Duration::from_nanos(turn.entropy().below(RESEND_AFTER.as_nanos() / 4));
            turn.arm_in(Timer::Resend, RESEND_AFTER / 2 + jitter);
        }
    }

    /// An answer. One to a number that is not awaited was answered before.
    pub(super) fn on_answer(&mut self, answer: &Answer, turn: &mut Turn<'_, Submission>) {
        let number = OpNumber(answer.number);
        let Some(result) = &answer.result else { return };
        let conflict = matches!(result.result, Some(operation_result::Result::Conflict(_)));
        let result = wire::result_from_wire(result);
        if result.is_none() && !conflict {
            return;
        }
        let Some(index) = self.operations.pending.iter().position(|pending| pending.number == number) else { return };
        let Some(pending) = self.operations.pending.remove(index) else { return };
        let (character, digest) = (self.config.character, Some(pending.digest));
        turn.note(Note::Acknowledged { character, number, digest, result });
        self.operations.answered = Some(number);
        if let Some(begun) = pending.begun {
            self.tell_answered(number, begun, result, turn);
        }
    }

    /// Sends the last number that was answered once more, with another payload.
    fn reuse_a_number(&mut self) {
        let Some(number) = self.operations.answered.take() else { return };
        let Some(other) = EntityId::new(EntityKind::Boss, EntityId::NUMBER_MAX) else { return };
        let action = wire::encode_attack(other);
        let pending = Pending { number, digest: digest(&action), action, sent: None, begun: None };
        self.operations.pending.push_front(pending);
    }
}
